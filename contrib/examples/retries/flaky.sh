#!/bin/sh
# flaky.sh PROCESS: the odd ones fail; all end with 3 when they do well.
[ $(($1 % 2)) = 0 ] || { echo "no luck" >&2; exit 1; }
echo "well done"
exit 3

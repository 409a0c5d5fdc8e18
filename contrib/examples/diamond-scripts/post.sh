#!/bin/sh
# post.sh NODE CODE: what C ends with is as it should be.
echo "post $1 $2" >> scripts
[ "$2" = 0 ] || [ "$1 $2" = "C 2" ]

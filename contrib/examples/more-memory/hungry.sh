#!/bin/sh
# hungry.sh MEMORY: pretends to need 256 MB.
[ "$1" -ge 256 ] || { echo "out of memory with $1 MB" >&2; exit 137; }
echo "enough: $1 MB"

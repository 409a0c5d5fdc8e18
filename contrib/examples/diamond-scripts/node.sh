#!/bin/sh
echo "node $1"
[ "$1" != C ] || exit 2

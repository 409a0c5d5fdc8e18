#!/bin/sh
# work.sh NODE TRY WORDS: one node needs a second try, another a file that says `mended`.
echo "$1: $3"
case $1 in
AGAIN) [ "$2" -ge 1 ] ;;
BROKEN) grep -q mended state || exit 4 ;;
esac

#!/bin/sh
# wordcount.sh BOOK: how often each word is in it, in counts.BOOK.
tr -s ' ' '\n' < "$1" | LC_ALL=C sort | uniq -c | awk '{ print $2, $1 }' > "counts.$1"
echo "$1 is counted"

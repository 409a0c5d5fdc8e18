#!/bin/sh
# Sums the counts of all books.
awk '{ sum[$1] += $2 } END { for (word in sum) print word, sum[word] }' counts.*.tsv | LC_ALL=C sort > all.tsv

#!/bin/sh
# A node for each line.
n=0
while read -r line; do
	n=$((n + 1))
	echo "JOB PART$n part.sub"
	echo "VARS PART$n line=\"$line\" number=\"$n\""
done < lines > parts.dag

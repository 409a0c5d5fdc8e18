#!/bin/sh
# count.sh -s STATE -y YEAR: the state's sum for a year.
while getopts s:y: option; do
	case $option in
	s) state=$OPTARG ;;
	y) year=$OPTARG ;;
	*) exit 2 ;;
	esac
done
awk -v year="$year" -v state="$state" '$1 == year { sum += $2 } END { print state, year, sum }' "$state.data"

#!/bin/sh
# keg.sh -i INPUT… -o OUTPUT…: each output names the job and holds the inputs, indented.
while [ $# -gt 0 ]; do
	case $1 in
	-i) outputs= ;;
	-o) outputs=yes ;;
	*) if [ -n "$outputs" ]; then
		{
			echo "$PEGASUS_JOB_ID"
			# shellcheck disable=SC2086
			sed 's/^/  /' $inputs
		} > "$1"
	else
		inputs="$inputs $1"
	fi ;;
	esac
	shift
done

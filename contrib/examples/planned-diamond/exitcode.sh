#!/bin/sh
# exitcode.sh -r CODE FILE: looks at what the job left, and keeps it.
[ "$1" = -r ] && [ "$2" = 0 ] && mv "$3" "$3.000"

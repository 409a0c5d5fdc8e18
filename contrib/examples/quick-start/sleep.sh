#!/bin/sh
# sleep.sh SECONDS: a job that does nothing, and says so.
echo "asleep for $1 seconds" >&2
sleep "$1"
echo "awake"

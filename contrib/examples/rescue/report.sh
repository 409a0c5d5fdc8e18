#!/bin/sh
# report.sh STATUS FAILED: the DAG ends as its last node does.
echo "status $1, $2 failed"
[ "$2" = 0 ]

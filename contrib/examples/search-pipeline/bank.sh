#!/bin/sh
# bank.sh --gps-start A --gps-end B --ifo I --output FILE
echo "$6 $2 $4 $KMP_LIBRARY" > "$8"

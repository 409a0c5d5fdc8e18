#!/bin/sh
# model.sh --alpha A --beta B
echo "alpha=$2 beta=$4 product=$(($2 * $4))" > result.dat
echo "model of $2 and $4" > log.dat

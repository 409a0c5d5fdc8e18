#!/bin/sh
echo "$1 after ${2:-nothing}"

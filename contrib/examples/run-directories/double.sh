#!/bin/sh
# Doubles the number on standard input.
read -r number
echo $((number * 2))

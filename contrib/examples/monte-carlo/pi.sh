#!/bin/sh
# pi.sh SEED POINTS: how many of the points fall into the circle. The generator is its own, so that all machines agree.
awk -v seed="$1" -v points="$2" '
	function random() { state = (state * 16807) % 2147483647; return state / 2147483647 }
	BEGIN {
		state = seed * 7919 + 1
		for (i = 0; i < points; i++) { x = random(); y = random(); if (x * x + y * y < 1) hits++ }
		print hits, points
	}'

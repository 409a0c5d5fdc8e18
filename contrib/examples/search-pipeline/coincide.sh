#!/bin/sh
LC_ALL=C sort "$@"

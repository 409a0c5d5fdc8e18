#!/bin/sh
cat ./*.out > joined

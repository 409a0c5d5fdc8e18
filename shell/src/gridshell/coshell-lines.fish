# Runs lines until there are no more. Ctrl-C in a loop of fish's own commands ends this one, too: then it is read again, and tells so.
if set -q vo__status[1]
	set vo__status 130
	printf '%s\0%s\0' $vo__status $PWD >/dev/fd/9
end
while read --null --local vo__line </dev/fd/8
	set -q vo__status[1]; and vo__return $vo__status
	eval $vo__line </dev/tty
	set vo__status $status
	printf '%s\0%s\0' $vo__status $PWD >/dev/fd/9
end

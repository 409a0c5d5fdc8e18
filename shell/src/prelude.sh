# Read by the shells that run grid commands, interactive or not. Grid commands are programs on PATH; those whose names a shell keeps
# for itself are functions. What is meant for the shell still reaches it.
PATH=$VO_BIN:$PATH
unset VO_BIN BASH_ENV

command -v builtin >/dev/null || builtin() { command "$@"; }

# The words of the grid win over aliases, which would also break the definitions below. An alias of rm (`rm -i` is usual) stays that
# for files.
vo__rm=$(alias rm 2>/dev/null) || vo__rm=
vo__rm=${vo__rm#alias }
eval "vo__rm=${vo__rm#rm=}"
case $vo__rm in
'') vo__rm='command rm' ;;
rm | 'rm '*) vo__rm="command $vo__rm" ;;
*' rm' | *' rm '*) vo__rm='command rm' ;;
esac
unalias GRID_COMMANDS 2>/dev/null || :

rm() {
	if command vo --means-jobs "$@"; then
		command vo rm "$@"
	else
		# Without a word after it, bash -e says something of its own when it fails.
		eval "$vo__rm \"\$@\"" || return
	fi
}
history() { command vo history "$@"; }
log() { command vo log "$@"; }
help() { command vo help "$@"; }

# Of the session with --force; else of this shell. (dash lets nobody have the word.)
if (eval 'exit() { :; }') 2>/dev/null; then
	eval 'exit() {
		case ${1-} in
		--force | -force | -f) command vo exit --force ;;
		*) builtin exit "$@" ;;
		esac
	}'
fi

# Jobs of the grid, or the shell's own background jobs where one is named (%1, a process id). Without a name: both.
wait() {
	case ${1-} in
	'')
		builtin wait
		command vo wait
		return
		;;
	%* | -n | -p | -f)
		builtin wait "$@"
		return
		;;
	esac
	for vo__pid in $(jobs -p); do
		if [ "$vo__pid" = "$1" ]; then
			builtin wait "$@"
			return
		fi
	done
	command vo wait "$@"
}

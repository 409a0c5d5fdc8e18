# Read by the shells that run grid commands, interactive or not. Grid commands are programs on PATH; those whose names a shell keeps
# for itself are functions. What is meant for the shell still reaches it.
PATH=$VO_BIN:$PATH
unset VO_BIN BASH_ENV

command -v builtin >/dev/null || builtin() { command "$@"; }

rm() { command vo --rm "$@"; }
history() { command vo history "$@"; }
log() { command vo log "$@"; }
help() { command vo help "$@"; }

# Of the session with --force; else of this shell.
exit() {
	case ${1-} in
	--force | -force | -f) command vo exit --force ;;
	*) builtin exit "$@" ;;
	esac
}

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

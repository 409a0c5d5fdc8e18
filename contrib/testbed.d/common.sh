# shellcheck shell=bash
# What every part uses: messages, waiting for a condition, the lock.

readonly EXIT_USAGE=2 EXIT_CANNOT=77 # 77: the test frameworks' word for "skipped"

say() { printf 'testbed: %s\n' "$*" >&2; }

die() {
	say "$*"
	exit 1
}

# die_usage MESSAGE: the caller named something that does not exist.
die_usage() {
	say "$*"
	exit "$EXIT_USAGE"
}

# cannot WHY: this machine cannot run the testbed.
cannot() {
	say "cannot run here: $*"
	exit "$EXIT_CANNOT"
}

# wait_for SECONDS COMMAND...: poll until COMMAND succeeds; fails when the time is over.
wait_for() {
	local deadline=$((SECONDS + $1))
	shift
	until "$@"; do
		((SECONDS < deadline)) || return 1
		sleep 0.1
	done
}

need_root() { ((EUID == 0)) || cannot "namespaces, mounts and packages need root"; }

need_up() { [[ -d $STATE/sites ]] || die "not up: run contrib/testbed up"; }

# Commands that change what runs take turns. Descriptor 9 must not leak into the hosts: they would hold the lock for ever.
lock_state() {
	mkdir -p "$STATE"
	exec 9<"$STATE"
	flock 9
	# A `down` that we waited for has removed the directory which we hold.
	[[ $STATE -ef /proc/self/fd/9 ]] || lock_state
}

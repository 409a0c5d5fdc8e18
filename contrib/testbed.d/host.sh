# shellcheck shell=bash
# The life of one host. No file says what runs: a host is the processes in its network namespace.

readonly UP_TIMEOUT=60 # seconds until `up` says which sites are not ready; a busy machine takes 15

# host_init HOST: the machine's id of the host's first process, or nothing.
host_init() {
	local netns pid
	netns=$(netns_of "$1")
	netns_exists "$netns" || return 0
	for pid in $(ip netns pids "$netns"); do
		# The last number is the id in its own, innermost namespace.
		if [[ $(sed -n 's/^NSpid:.*\t//p' "/proc/$pid/status" 2>/dev/null) == 1 ]]; then
			echo "$pid"
			return
		fi
	done
}

host_runs() { [[ -n $(host_init "$1") ]]; }

# host_start HOST: does nothing when it runs.
host_start() {
	local host=$1 site=${1%-*} role
	! host_runs "$host" || return 0
	case ${host##*-} in
	n*) role=node ;;
	gw*) role=gw ;;
	*) role=${host##*-} ;;
	esac
	mkdir -p "$(site_dir "$site")/hosts/$host"
	env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		setsid nsenter --net="/run/netns/$(netns_of "$host")" \
		unshare --mount --uts --ipc --pid --fork --kill-child \
		/bin/bash "$TESTBED_LIB/enter.sh" "$(site_dir "$site")" "$host" "$role" "${SITE_BATCH[$site]}" \
		</dev/null >"$(site_dir "$site")/hosts/$host/console.log" 2>&1 9>&- &
}

host_is_empty() { ! netns_exists "$(netns_of "$1")" || [[ -z $(ip netns pids "$(netns_of "$1")") ]]; }

# host_stop HOST: the power goes. With the first process the kernel kills all others of the namespace.
host_stop() {
	local init
	init=$(host_init "$1")
	[[ -z $init ]] || kill -KILL "$init" 2>/dev/null || true
	wait_for 10 host_is_empty "$1" || die "$1 still has processes: $(ip netns pids "$(netns_of "$1")" | paste -sd' ')"
}

# host_exec HOST COMMAND...: as root, in all the host's namespaces, with a clean environment.
host_exec() {
	local host=$1 init
	shift
	init=$(host_init "$host")
	[[ -n $init ]] || {
		say "$host does not run"
		return 1
	}
	nsenter -t "$init" --mount --uts --ipc --net --pid -- \
		env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM="${TERM:-dumb}" "$@"
}

# host_answers HOST: a gateway's sshd greets.
host_answers() {
	local banner
	# shellcheck disable=SC2016 # for the shell inside
	banner=$(host_exec "$1" timeout 2 bash -c 'read -r line </dev/tcp/127.0.0.1/22 && echo "$line"' 2>/dev/null) || true
	[[ $banner == SSH-2.0-* ]] && return
	echo "sshd on $1 does not answer"
	return 1
}

# site_ready SITE: silent success, or what is missing.
site_ready() {
	local gateway
	for gateway in $(gateways_of "$1"); do host_answers "$gateway" || return 1; done
	batch_ready "$1"
}

site_up() {
	local site=$1 host
	make_site "$site"
	site_network_up "$site"
	for host in $(hosts_of "$site"); do host_start "$host"; done
}

site_down() {
	local site=$1 host
	for host in $(hosts_of "$site"); do host_stop "$host"; done
	site_network_down "$site"
	mountpoint -q "$(site_dir "$site")/home" && umount "$(site_dir "$site")/home"
	return 0
}

# The mounts of the homes tell where the testbed that is up keeps its state.
need_own_testbed() {
	local other
	other=$(awk -v own="$STATE/" '$1 == "vo-testbed" && index($2, own) != 1 { sub("/sites/.*", "", $2); print $2; exit }' /proc/mounts)
	[[ -z $other ]] || die "another testbed is up: VO_TESTBED_STATE=$other"
}

# note_site_ready SITE: keeps what is missing in a file, for a message later.
note_site_ready() { site_ready "$1" >"$(site_dir "$1")/waits-for" 2>&1; }

cmd_up() {
	local site sites=("$@") late=() why deadline
	((${#sites[@]})) || sites=("${ALL_SITES[@]}")
	for site in "${sites[@]}"; do need_site "$site"; done
	need_root
	need_debian
	need_packages
	need_own_testbed
	lock_state
	need_kernel
	need_free_addresses

	make_keys
	router_up
	for site in "${sites[@]}"; do site_up "$site"; done
	write_known_hosts
	write_ssh_config

	deadline=$((SECONDS + UP_TIMEOUT))
	for site in "${sites[@]}"; do
		wait_for $((deadline - SECONDS)) note_site_ready "$site" || late+=("$site")
	done
	for site in "${late[@]}"; do
		why=$(<"$(site_dir "$site")/waits-for")
		say "$site is not ready after $UP_TIMEOUT s: ${why:-no word}; logs are in $(site_dir "$site")/hosts"
	done
	cmd_info "${sites[@]}"
	((${#late[@]} == 0))
}

cmd_down() {
	local keep='' site
	case ${1:-} in
	'') ;;
	--keep) keep=yes ;;
	*) die_usage "down takes --keep only" ;;
	esac
	need_root
	need_own_testbed
	lock_state
	for site in "${ALL_SITES[@]}"; do site_down "$site"; done
	router_down
	[[ -n $keep ]] || rm -rf "$STATE"
}

cmd_reboot() {
	need_root
	need_up
	need_host "${1:-}"
	lock_state
	netns_exists "$(netns_of "$1")" || die "$1 is not up"
	host_stop "$1"
	host_start "$1"
	wait_for 10 host_runs "$1" || die "$1 does not start: see $(site_dir "${1%-*}")/hosts/$1/console.log"
}

cmd_exec() {
	local user='' host
	if [[ ${1:-} == -u ]]; then
		user=${2:-}
		shift 2 || die_usage "exec [-u USER] HOST CMD [ARG...]"
	fi
	need_root
	need_up
	need_host "${1:-}"
	host=$1
	shift
	(($#)) || die_usage "exec [-u USER] HOST CMD [ARG...]"
	[[ -z $user ]] || set -- runuser -l "$user" -c "$(printf '%q ' "$@")"
	host_exec "$host" "$@"
}

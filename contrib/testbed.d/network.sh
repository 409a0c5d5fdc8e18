# shellcheck shell=bash
# The network: workstation ── router ── gateway of each site ── LAN of the site.
#
# The router is a namespace of its own, so that the workstation neither forwards packets nor changes a setting: it gets one
# interface and one route. The router is also where links are cut: a host behind a cut sees silence, never an error of its own.

readonly ROUTER=vo-router UPLINK=vo-testbed

netns_of() { printf 'vo-%s' "$1"; }

netns_exists() { [[ -e /run/netns/$1 ]]; }

router_iptables() { ip netns exec "$ROUTER" iptables -w "$@"; }

# A /16 that leads elsewhere already would be cut off by ours.
need_free_addresses() {
	local taken
	taken=$(ip -o route show root 10.77.0.0/16 | grep -v "dev $UPLINK" || true)
	[[ -z $taken ]] || cannot "this machine has a route of its own into 10.77.0.0/16: $taken"
}

# new_netns NAME: with forwarding, which a host may use and does not mind.
new_netns() {
	ip netns add "$1"
	ip -n "$1" link set lo up
	ip netns exec "$1" sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
}

# join NETNS DEVICE ADDRESS OTHER_NETNS OTHER_DEVICE: a wire between two namespaces; the first end gets ADDRESS.
join() {
	ip link add "$2" netns "$1" type veth peer name "$5" netns "$4"
	ip -n "$1" addr add "$3/24" dev "$2"
	ip -n "$1" link set "$2" up
	ip -n "$4" link set "$5" up
}

router_up() {
	netns_exists "$ROUTER" && return
	new_netns "$ROUTER"
	ip link add "$UPLINK" type veth peer name workstation netns "$ROUTER"
	ip addr add 10.77.0.1/24 dev "$UPLINK"
	ip link set "$UPLINK" up
	ip -n "$ROUTER" addr add 10.77.0.2/24 dev workstation
	ip -n "$ROUTER" link set workstation up
	ip route add 10.77.0.0/16 via 10.77.0.2 dev "$UPLINK"
	# As a laptop behind its provider's NAT, the workstation calls out and takes no call.
	router_iptables -A FORWARD -o workstation -p tcp --syn -j DROP
}

router_down() {
	ip link del "$UPLINK" 2>/dev/null || true
	ip netns del "$ROUTER" 2>/dev/null || true
	# `ip netns` leaves the mount in which it keeps the names; only the last user may remove it.
	rmdir /run/netns 2>/dev/null || { [[ -z $(ls -A /run/netns 2>/dev/null) ]] && umount /run/netns && rmdir /run/netns; } 2>/dev/null || true
}

# wan_up GATEWAY: its link to the router.
wan_up() {
	local link address
	link=$(link_of "$1")
	address=$(gateway_address "$1")
	join "$(netns_of "$1")" wan0 "$address" "$ROUTER" "$link"
	ip -n "$ROUTER" addr add "${address%.2}.1/24" dev "$link"
	ip -n "$(netns_of "$1")" route add default via "${address%.2}.1"
	# The chain holds what cuts this link, nothing else.
	router_iptables -N "$link"
	router_iptables -I FORWARD -i "$link" -j "$link"
	router_iptables -I FORWARD -o "$link" -j "$link"
}

site_network_up() {
	local site=$1 index=${SITE_INDEX[$1]} host netns
	local gateway=$site-gw gateway_netns
	gateway_netns=$(netns_of "$gateway")
	netns_exists "$gateway_netns" && return

	for host in $(gateways_of "$site"); do
		new_netns "$(netns_of "$host")"
		wan_up "$host"
	done
	ip -n "$gateway_netns" link add lan0 type bridge
	ip -n "$gateway_netns" addr add "$(lan_address "$gateway")/24" dev lan0
	ip -n "$gateway_netns" link set lan0 up
	ip netns exec "$gateway_netns" iptables -w -t nat -A POSTROUTING -o wan0 -s "10.78.$index.0/24" -j MASQUERADE

	for host in $(hosts_of "$site"); do
		[[ $host == "$gateway" ]] && continue
		netns=$(netns_of "$host")
		netns_exists "$netns" || new_netns "$netns"
		join "$netns" eth0 "$(lan_address "$host")" "$gateway_netns" "${host##*-}"
		ip -n "$gateway_netns" link set "${host##*-}" master lan0
		[[ $host == *-gw2 ]] || ip -n "$netns" route add default via "$(lan_address "$gateway")"
	done
}

site_network_down() {
	local host
	for host in $(hosts_of "$1"); do
		ip netns del "$(netns_of "$host")" 2>/dev/null || true
	done
}

# links_of SITE|GATEWAY: all of a site's, or one.
links_of() {
	local gateway
	if [[ ${1:-} == *-gw* ]]; then
		need_host "$1"
		link_of "$1"
		return
	fi
	need_site "${1:-}"
	for gateway in $(gateways_of "$1"); do printf '%s\n' "$(link_of "$gateway")"; done
}

cmd_cut() {
	need_root
	need_up
	local links link rule
	links=$(links_of "${1:-}")
	case ${2:-} in
	'') rule=(-j DROP) ;;
	--reset) rule=(-p tcp -j REJECT --reject-with tcp-reset) ;;
	--new) rule=(-p tcp --syn -j DROP) ;;
	*) die_usage "cut SITE|GATEWAY [--reset|--new]" ;;
	esac
	cmd_heal "$1"
	for link in $links; do router_iptables -A "$link" "${rule[@]}"; done
}

cmd_heal() {
	need_root
	need_up
	local links link
	links=$(links_of "${1:-}")
	netns_exists "$(netns_of "${1%-gw*}-gw")" || die "${1%-gw*} is not up"
	for link in $links; do router_iptables -F "$link"; done
}

# link_state SITE: "up", or what `cut` did to its (first) link.
link_state() {
	case $(router_iptables -S "$1" 2>/dev/null) in
	*REJECT*) echo "cut (reset)" ;;
	*--syn*DROP* | *SYN*DROP*) echo "cut (new)" ;;
	*DROP*) echo cut ;;
	*) echo up ;;
	esac
}

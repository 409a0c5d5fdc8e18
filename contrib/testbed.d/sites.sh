# shellcheck shell=bash
# shellcheck disable=SC2034 # the other parts read these
# The table of sites. Everything that differs between them is here or follows from `batch`.
#
# Addresses: site i has its gateway at 10.77.i.2 on the wide-area side, a second one at 10.77.(10 + i).2, and a LAN 10.78.i.0/24 with the
# gateway at .1, the scheduler's host at .2, the second gateway at .3 and the nodes from .11 on. The workstation is 10.77.0.1, the router between all of them 10.77.x.1.

readonly ALL_SITES=(tundra mesa grid bare)
readonly NODES=2 CPUS=4 # CPUs are what the batch system believes in; the machine may have fewer

declare -rA SITE_INDEX=([tundra]=1 [mesa]=2 [grid]=3 [bare]=4)
declare -rA SITE_BATCH=([tundra]=slurm [mesa]=slurm [grid]=gridengine [bare]=none)
declare -rA SITE_USER=([tundra]=alice [mesa]=bob [grid]=carol [bare]=dave)
# How port 22 lets the user in. Port 2222 takes the user's plain key at every site.
declare -rA SITE_AUTH=([tundra]=key [mesa]=passphrase [grid]=otp [bare]=key)

# Sites with a second login node, SITE-gw2: the same host keys, the same home, a link of its own.
readonly TWO_GATEWAYS=" tundra "

# A second account at every site, with no way in by SSH: for what one user must not be able to do to another.
readonly OTHER_USER=mallory

# One site also takes Kerberos tickets, on port 2223: its gateway is the realm's KDC.
readonly KERBEROS_SITE=tundra KERBEROS_REALM=TUNDRA.TESTBED

# One site's hosts, and the workstation, have one directory of the workstation's in common, under one path: $STATE/shared.
readonly SHARED_SITE=tundra

# Not secret: nothing outside this machine can reach the hosts.
readonly KEY_PASSPHRASE=mesa-passphrase
readonly LOGIN_PASSWORD=grid-password
readonly KERBEROS_PASSWORD=tundra-password
readonly TOTP_SECRET=3132333435363738393031323334353637383930 # RFC 6238's test key, in hexadecimal

need_site() { [[ -n ${1:-} && -n ${SITE_INDEX[$1]:-} ]] || die_usage "no site '${1:-}': there are ${ALL_SITES[*]}"; }

# hosts_of SITE: its hosts, the order in which they start.
hosts_of() {
	local site=$1 node
	if [[ ${SITE_BATCH[$site]} != none ]]; then
		printf '%s\n' "$site-mgr"
		for ((node = 1; node <= NODES; node++)); do printf '%s\n' "$site-n$node"; done
	fi
	gateways_of "$site"
}

gateways_of() {
	printf '%s\n' "$1-gw"
	[[ $TWO_GATEWAYS != *" $1 "* ]] || printf '%s\n' "$1-gw2"
}

need_host() {
	local host=${1:-} site
	site=${host%-*}
	if [[ -z $site || -z ${SITE_INDEX[$site]:-} ]] || ! hosts_of "$site" | grep -xF -- "$host" >/dev/null; then
		die_usage "no host '$host': hosts are named as tundra-gw, tundra-mgr, tundra-n1"
	fi
}

# gateway_address SITE|GATEWAY
gateway_address() {
	local index=${SITE_INDEX[${1%-gw*}]}
	[[ $1 != *-gw2 ]] || index=$((10 + index))
	printf '10.77.%d.2' "$index"
}

# link_of GATEWAY: the router's interface to it, and the chain of what cuts it.
link_of() { printf '%s' "${1/-gw/}"; }

# lan_address HOST
lan_address() {
	local number
	case ${1##*-} in
	gw) number=1 ;;
	mgr) number=2 ;;
	gw2) number=3 ;;
	n*) number=$((10 + ${1##*-n})) ;;
	esac
	printf '10.78.%d.%d' "${SITE_INDEX[${1%-*}]}" "$number"
}

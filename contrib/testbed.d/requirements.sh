# shellcheck shell=bash
# What the machine must have: packages, and features of the kernel.

readonly PACKAGES=(
	openssh-server openssh-client libpam-oath oathtool
	iproute2 iptables procps util-linux
	krb5-kdc krb5-admin-server krb5-user
	munge slurm-wlm
	gridengine-master gridengine-exec gridengine-client
)

need_debian() {
	[[ -r /etc/os-release ]] || cannot "no /etc/os-release: the packages come from Debian 12"
	local id version
	id=$(. /etc/os-release && printf '%s' "${ID:-}")
	version=$(. /etc/os-release && printf '%s' "${VERSION_ID:-}")
	[[ $id == debian && $version == 12 ]] || cannot "this is '$id $version', and the packages (Slurm 22.05, Grid Engine 8.1.9) come from Debian 12"
}

missing_packages() {
	local package status
	for package in "${PACKAGES[@]}"; do
		status=$(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null) || status=
		[[ $status == ii* ]] || printf '%s\n' "$package"
	done
}

need_packages() {
	local missing
	missing=$(missing_packages | paste -sd' ')
	[[ -z $missing ]] || cannot "not installed: $missing (contrib/testbed install installs them)"
}

# Prints what does not work, each followed by "; ". Its argument is an empty directory.
# shellcheck disable=SC2016 # it runs in a shell of its own
readonly PROBE='
	try() { local lack=$1; shift; "$@" >/dev/null || printf "%s; " "$lack"; }
	cd "$1" && mkdir layer merged
	try "no character devices on the file system of VO_TESTBED_STATE (choose another)" mknod layer/true c 0 0
	try "no overlay file system" mount -t overlay -o lowerdir=layer:/usr/bin overlay merged
	try "no way to hide a file by an overlay" test ! -e merged/true
	try "no tmpfs" mount -t tmpfs -o size=1m,nr_inodes=100 tmpfs layer
	try "no devpts of its own for each host" mount -t devpts -o newinstance,ptmxmode=0666 devpts layer
	try "no veth devices" ip link add veth0 type veth peer name veth1
	try "no bridge devices" ip link add lan0 type bridge
	try "no masquerading" iptables -t nat -A POSTROUTING -j MASQUERADE
	try "no packet filter" iptables -A FORWARD -p tcp --syn -j DROP
	try "no REJECT in the packet filter" iptables -A FORWARD -p tcp -j REJECT --reject-with tcp-reset
'

# Tries each feature in namespaces of its own, so that nothing is left on the machine whatever happens.
need_kernel() {
	local scratch missing
	unshare --mount --net --uts --ipc --pid --fork true 2>/dev/null || cannot "the kernel, or the container that this is, allows no new namespaces"
	scratch=$(mktemp -d "$STATE/probe.XXXXXX")
	missing=$(unshare --mount --net --uts --ipc --pid --fork bash -c "$PROBE" probe "$scratch" </dev/null 2>/dev/null) || true
	rm -rf "$scratch"
	[[ -z $missing ]] || rmdir --ignore-fail-on-non-empty "$STATE"
	[[ -z $missing ]] || cannot "the kernel lacks what the hosts need: ${missing%; }"
}

cmd_install() {
	(($# == 0)) || die_usage "install takes no argument"
	need_root
	need_debian
	local missing
	mapfile -t missing < <(missing_packages)
	((${#missing[@]})) || return 0
	say "installing ${missing[*]}"

	# The packages' scripts would start munged, slurmctld, sge_qmaster and sshd on the workstation itself.
	local policy=/usr/sbin/policy-rc.d
	if [[ -e $policy || -L $policy ]]; then
		mv "$policy" "$policy.vo-testbed"
		trap 'mv -f /usr/sbin/policy-rc.d.vo-testbed /usr/sbin/policy-rc.d' EXIT
	else
		trap 'rm -f /usr/sbin/policy-rc.d' EXIT
	fi
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"

	export DEBIAN_FRONTEND=noninteractive
	debconf-set-selections <<-EOF
		gridengine-common shared/gridenginemaster string localhost
		gridengine-common shared/gridenginecell string default
		gridengine-common shared/gridengineconfig boolean false
		krb5-config krb5-config/default_realm string $KERBEROS_REALM
		krb5-config krb5-config/add_servers boolean false
	EOF
	apt-get -qq -o DPkg::Lock::Timeout=300 update || say "apt-get update failed; trying with the lists at hand"
	apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "${missing[@]}" >&2 ||
		cannot "apt-get could not install ${missing[*]}"
}

# shellcheck shell=bash
# The files of a site, which all its hosts share: /etc and /home. And the workstation's side: keys, known_hosts, ssh_config.

readonly HOME_SIZE=2g # a bound, not a reservation

site_dir() { printf '%s/sites/%s' "$STATE" "$1"; }

# What a host needs of this machine's /etc. A list, since the rest is the workstation's own business.
readonly ETC_FILES=(
	alternatives bash.bashrc bash_completion.d ca-certificates.conf debian_version default/locale environment host.conf inputrc
	ld.so.cache ld.so.conf ld.so.conf.d localtime login.defs magic mime.types netconfig networks nsswitch.conf os-release pam.conf
	pam.d perl profile protocols rpc security services shells skel ssl/certs ssl/openssl.cnf terminfo timezone vim
)

# make_site SITE: writes the site's files, once.
make_site() {
	local site=$1 dir
	dir=$(site_dir "$site")
	if [[ ! -e $dir/complete ]]; then
		rm -rf "$dir"
		mkdir -p "$dir"/{etc,home,usr-layer/bin}
		make_etc "$site" "$dir/etc"
		hide_commands "$site" "$dir/usr-layer/bin"
		batch_configure "$site"
		[[ $site != "$SHARED_SITE" ]] || make_shared "$site" "$dir"
		touch "$dir/complete"
	fi
	# One file system a site, so that one site's home can be filled and no other's.
	if ! mountpoint -q "$dir/home"; then
		mount -t tmpfs -o "mode=755,size=$HOME_SIZE" vo-testbed "$dir/home"
		make_homes "$site" "$dir/home"
	fi
}

# make_shared SITE DIR: the hosts find it by this link. Its user may be anyone on the workstation, so the numbers are theirs.
make_shared() {
	mkdir -p "$STATE/shared"
	chown "$(site_ids "$1" "${SITE_USER[$1]}")" "$STATE/shared"
	chmod 700 "$STATE/shared"
	ln -s "$STATE/shared" "$2/shared"
}

make_etc() {
	local site=$1 etc=$2 file host user uid=5001 password
	for file in "${ETC_FILES[@]}"; do
		[[ -e /etc/$file ]] || continue
		mkdir -p "$(dirname "$etc/$file")"
		cp -a "/etc/$file" "$etc/$file"
	done
	mkdir -p "$etc/ssh"
	cp "$TESTBED_LIB/boot.sh" "$etc/boot"
	: >"$etc/machine-id" # each host mounts its own over it
	: >"$etc/resolv.conf"
	echo 'proc /proc proc defaults 0 0' >"$etc/fstab"

	# The machine's system accounts (their ids are in its packages' files), and none of its people.
	awk -F: '$3 < 1000 || $1 == "nobody" || $1 == "slurm"' /etc/passwd >"$etc/passwd"
	awk -F: '$3 < 1000 || $1 == "nogroup" || $1 == "slurm"' /etc/group >"$etc/group"
	sed 's/:.*/:*:19000:0:99999:7:::/' "$etc/passwd" >"$etc/shadow"
	for user in "${SITE_USER[$site]}" "$OTHER_USER"; do
		password='*'
		[[ ${SITE_AUTH[$site]} == otp && $user != "$OTHER_USER" ]] && password=$(openssl passwd -6 "$LOGIN_PASSWORD")
		echo "$user:x:$uid:$uid:$user:/home/$user:/bin/bash" >>"$etc/passwd"
		echo "$user:x:$uid:" >>"$etc/group"
		echo "$user:$password:19000:0:99999:7:::" >>"$etc/shadow"
		uid=$((uid + 1))
	done
	chgrp shadow "$etc/shadow"
	chmod 640 "$etc/shadow"

	{
		echo "127.0.0.1 localhost"
		for host in $(hosts_of "$site"); do echo "$(lan_address "$host") $host"; done
		for host in "${ALL_SITES[@]}"; do [[ $host == "$site" ]] || echo "$(gateway_address "$host") $host"; done
	} >"$etc/hosts"
	make_sshd "$site" "$etc"
	[[ $site != "$KERBEROS_SITE" ]] || make_kerberos "$site" "$etc"
}

# krb5_conf SITE: for the realm's users and servers alike. Names are as they are: there is no DNS.
krb5_conf() {
	cat <<-EOF
		[libdefaults]
			default_realm = $KERBEROS_REALM
			dns_lookup_kdc = false
			dns_canonicalize_hostname = false
			rdns = false
		[realms]
			$KERBEROS_REALM = {
				kdc = $(gateway_address "$1")
			}
		[domain_realm]
			$(gateway_address "$1") = $KERBEROS_REALM
	EOF
}

make_kerberos() {
	local site=$1 etc=$2 host
	host=host/$(gateway_address "$site")
	mkdir -m 700 "$etc/krb5kdc"
	krb5_conf "$site" >"$etc/krb5.conf"
	printf '[realms]\n\t%s = {\n\t\tkdc_ports = 88\n\t\tkdc_tcp_ports = 88\n\t\tmax_life = 10h\n\t}\n' "$KERBEROS_REALM" >"$etc/krb5kdc/kdc.conf"
	cat >"$etc/krb5kdc/setup" <<-EOF
		set -e
		kdb5_util create -s -P "\$(head -c 16 /dev/urandom | base64)"
		kadmin.local -q "addprinc -pw $KERBEROS_PASSWORD ${SITE_USER[$site]}"
		kadmin.local -q "addprinc -randkey $host"
		kadmin.local -q "ktadd -k /etc/krb5.keytab $host"
	EOF
	# The ticket is for the address, as which users know the gateway; sshd would look for its own name.
	{
		printf 'GSSAPIStrictAcceptorCheck no\nPort 2223\n'
		cat "$etc/ssh/sshd_config"
		printf 'Match LocalPort 2223\n\tGSSAPIAuthentication yes\n\tAuthenticationMethods gssapi-with-mic\n'
	} >"$etc/ssh/sshd_config.new"
	mv "$etc/ssh/sshd_config.new" "$etc/ssh/sshd_config"
}

make_sshd() {
	local site=$1 etc=$2 kind methods=publickey interactive=no
	for kind in ed25519 ecdsa; do
		ssh-keygen -q -t "$kind" -N '' -C "$site-gw" -f "$etc/ssh/ssh_host_${kind}_key"
	done
	if [[ ${SITE_AUTH[$site]} == otp ]]; then
		methods=keyboard-interactive:pam interactive=yes
		mkdir -m 700 "$etc/oath"
		make_otp_users "$site" "$etc"
	fi
	# The window lets a person read and type for two minutes.
	cat >"$etc/pam.d/sshd" <<-'EOF'
		auth     requisite pam_unix.so
		auth     required  pam_oath.so usersfile=/etc/oath/users window=4 digits=6
		account  required  pam_unix.so
		session  required  pam_limits.so
	EOF
	cat >"$etc/ssh/sshd_config" <<-EOF
		Port 22
		Port 2222
		HostKey /etc/ssh/ssh_host_ed25519_key
		HostKey /etc/ssh/ssh_host_ecdsa_key
		UsePAM yes
		PermitRootLogin no
		PasswordAuthentication no
		KbdInteractiveAuthentication $interactive
		AuthenticationMethods $methods
		MaxStartups 50:30:100
		PrintMotd no
		LogLevel VERBOSE
		Subsystem sftp internal-sftp
		Match LocalPort 2222
			KbdInteractiveAuthentication no
			AuthenticationMethods publickey
	EOF
}

# pam_oath writes the last code used into this file, by renaming another over it; so do we.
make_otp_users() {
	(umask 077 && echo "HOTP/T30/6 ${SITE_USER[$1]} - $TOTP_SECRET" >"$2/oath/users.new")
	mv "$2/oath/users.new" "$2/oath/users"
}

make_homes() {
	local site=$1 homes=$2 user home
	for user in "${SITE_USER[$site]}" "$OTHER_USER"; do
		home=$homes/$user
		cp -rT /etc/skel "$home"
		mkdir -m 700 "$home/.ssh"
		[[ $user == "$OTHER_USER" ]] || cat "$STATE/keys/$user"*.pub >"$home/.ssh/authorized_keys"
		# By number: the names are the site's, not this machine's.
		chown -R "$(site_ids "$site" "$user")" "$home"
		chmod 700 "$home"
	done
}

# site_ids SITE USER: "uid:gid" there.
site_ids() { awk -F: -v user="$2" '$1 == user { print $3 ":" $4 }' "$(site_dir "$1")/etc/passwd"; }

# hide_commands SITE DIR: a site has only its own batch system's commands. An overlay over /usr takes a character device 0/0 to
# mean that the name does not exist.
hide_commands() {
	local site=$1 dir=$2 name
	{
		[[ ${SITE_BATCH[$site]} == slurm ]] || dpkg -L slurm-client
		[[ ${SITE_BATCH[$site]} == gridengine ]] || dpkg -L gridengine-client
	} | sed -n 's,^/usr/bin/,,p' | while read -r name; do mknod "$dir/$name" c 0 0; done
}

# The users' keys: KEYS/USER for port 22 and KEYS/USER-plain, without a passphrase, for port 2222.
make_keys() {
	local site user passphrase
	mkdir -p "$STATE/keys"
	for site in "${ALL_SITES[@]}"; do
		user=${SITE_USER[$site]}
		[[ -e $STATE/keys/$user-plain ]] || ssh-keygen -q -t ed25519 -N '' -C "$user@$site" -f "$STATE/keys/$user-plain"
		case ${SITE_AUTH[$site]} in
		key) passphrase= ;;
		passphrase) passphrase=$KEY_PASSPHRASE ;;
		otp) continue ;;
		esac
		[[ -e $STATE/keys/$user ]] || ssh-keygen -q -t ed25519 -N "$passphrase" -C "$user@$site" -f "$STATE/keys/$user"
	done
}

# The known_hosts of all sites that have been made. mesa's lines are hashed, as some distributions' ssh writes them.
write_known_hosts() {
	local site gateway address key lines
	lines=$(mktemp "$STATE/known_hosts.XXXXXX")
	: >"$STATE/known_hosts.new"
	for site in "${ALL_SITES[@]}"; do
		for gateway in $(gateways_of "$site"); do
			address=$(gateway_address "$gateway")
			for key in "$(site_dir "$site")"/etc/ssh/ssh_host_*_key.pub; do
				[[ -e $key ]] || continue
				printf '%s %s\n' "$address" "$(cut -d' ' -f1,2 "$key")" "[$address]:2222" "$(cut -d' ' -f1,2 "$key")" "[$address]:2223" "$(cut -d' ' -f1,2 "$key")"
			done
		done >"$lines"
		[[ $site != mesa ]] || ssh-keygen -q -H -f "$lines" &>/dev/null
		cat "$lines" >>"$STATE/known_hosts.new"
	done
	rm -f "$lines" "$lines.old"
	mv "$STATE/known_hosts.new" "$STATE/known_hosts"
}

# host_entry ALIAS SITE|GATEWAY PORT KEY [LINE]
host_entry() {
	printf 'Host %s\n\tHostName %s\n\tUser %s\n\tPort %d\n' "$1" "$(gateway_address "$2")" "${SITE_USER[${2%-gw*}]}" "$3"
	[[ -z $4 ]] || printf '\tIdentityFile %s\n\tPreferredAuthentications publickey\n' "$STATE/keys/$4"
	[[ -n $4 ]] || printf '\tPubkeyAuthentication no\n\tPreferredAuthentications keyboard-interactive\n'
	[[ -z ${5:-} ]] || printf '\t%s\n' "$5"
	printf '\n'
}

write_ssh_config() {
	local site user key
	{
		printf '# Written by contrib/testbed. NAME is port 22, NAME-key the plain key on port 2222.\n\n'
		for site in "${ALL_SITES[@]}"; do
			user=${SITE_USER[$site]}
			key=$user
			[[ ${SITE_AUTH[$site]} != otp ]] || key=
			host_entry "$site" "$site" 22 "$key"
			host_entry "$site-key" "$site" 2222 "$user-plain"
		done
		printf '# The second login node of a site.\n'
		for site in $TWO_GATEWAYS; do
			host_entry "$site-key2" "$site-gw2" 2222 "${SITE_USER[$site]}-plain"
		done
		printf '# mesa, as reached from tundra.\n'
		host_entry tundra-jump mesa 2222 "${SITE_USER[mesa]}-plain" "ProxyJump tundra"
		printf '# By ticket: KRB5_CONFIG=%s kinit %s\n' "$STATE/krb5.conf" "${SITE_USER[$KERBEROS_SITE]}"
		printf 'Host %s-krb\n\tHostName %s\n\tUser %s\n\tPort 2223\n\tIdentityFile none\n\tGSSAPIAuthentication yes\n\n' \
			"$KERBEROS_SITE" "$(gateway_address "$KERBEROS_SITE")" "${SITE_USER[$KERBEROS_SITE]}"
		printf 'Host *\n\tUserKnownHostsFile %s\n\tGlobalKnownHostsFile none\n\tIdentitiesOnly yes\n\tStrictHostKeyChecking yes\n' "$STATE/known_hosts"
	} >"$STATE/ssh_config"
	krb5_conf "$KERBEROS_SITE" >"$STATE/krb5.conf"
}

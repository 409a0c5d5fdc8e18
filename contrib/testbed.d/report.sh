# shellcheck shell=bash
# What a person reads or uses by hand: the table of log-ins, the state of the sites, ssh, one-time codes.

# how_to_log_in SITE: what port 22 asks for.
how_to_log_in() {
	case ${SITE_AUTH[$1]} in
	key) echo "key without passphrase" ;;
	passphrase) echo "key with passphrase \"$KEY_PASSPHRASE\"" ;;
	otp) echo "password \"$LOGIN_PASSWORD\", then the code of: oathtool --totp $TOTP_SECRET" ;;
	esac
}

cmd_info() {
	local site sites=("$@")
	((${#sites[@]})) || sites=("${ALL_SITES[@]}")
	for site in "${sites[@]}"; do need_site "$site"; done
	printf '%-8s%-13s%-7s%-11s%s\n' SITE BATCH USER GATEWAY 'PORT 22 ASKS FOR'
	for site in "${sites[@]}"; do
		printf '%-8s%-13s%-7s%-11s%s\n' "$site" "$(batch_title "$site")" "${SITE_USER[$site]}" "$(gateway_address "$site")" "$(how_to_log_in "$site")"
	done
	cat <<-EOF

		Log in:  contrib/testbed ssh NAME, or: ssh -F $STATE/ssh_config NAME
		Names:   SITE (port 22), SITE-key (port 2222: a key without passphrase), tundra-key2 (tundra's second login node),
		         tundra-jump (mesa by way of tundra),
		         $KERBEROS_SITE-krb (port 2223: a Kerberos ticket, by KRB5_CONFIG=$STATE/krb5.conf kinit ${SITE_USER[$KERBEROS_SITE]},
		         password "$KERBEROS_PASSWORD")
		Keys:    $STATE/keys
	EOF
}

cmd_status() {
	(($# == 0)) || die_usage "status takes no argument"
	need_root
	local site host running hosts seen ready=0
	printf '%-8s%-7s%-12s%-12s%s\n' SITE HOSTS LINK HOME STATE
	for site in "${ALL_SITES[@]}"; do
		running=0 hosts=0
		for host in $(hosts_of "$site"); do
			hosts=$((hosts + 1))
			! host_runs "$host" || running=$((running + 1))
		done
		if ((running == 0)); then
			printf '%-8s%-7s%-12s%-12s%s\n' "$site" "0/$hosts" - - down
			ready=1
			continue
		fi
		if seen=$(site_ready "$site" 2>&1); then seen=ready; else ready=1; fi
		printf '%-8s%-7s%-12s%-12s%s\n' "$site" "$running/$hosts" "$(link_state "$site")" \
			"$(df -h --output=used,size "$(site_dir "$site")/home" | awk 'NR == 2 { print $1 "/" $2 }')" "${seen:-not ready}"
	done
	return "$ready"
}

cmd_ssh() {
	need_up
	(($#)) || die_usage "ssh NAME [CMD...]: see contrib/testbed info"
	exec ssh -F "$STATE/ssh_config" "$@"
}

# A code works once, and the current one may be spent: the site forgets what it has seen, so that the code printed always works.
cmd_otp() {
	need_root
	need_up
	local site=${1:-grid}
	need_site "$site"
	[[ ${SITE_AUTH[$site]} == otp ]] || die_usage "$site asks for no code"
	[[ -e $(site_dir "$site")/complete ]] || die "$site is not up"
	make_otp_users "$site" "$(site_dir "$site")/etc"
	oathtool --totp "$TOTP_SECRET"
}

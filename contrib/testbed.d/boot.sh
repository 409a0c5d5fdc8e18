#!/bin/bash
# The first process of a host: starts its daemons, then collects the processes that lost their parent.
# Usage: boot ROLE BATCH, with ROLE gw, mgr or node.
role=$1 batch=$2

start_munge() { runuser -u munge -- /usr/sbin/munged --num-threads=2; }

boot_slurm() {
	start_munge
	case $role in
	mgr)
		install -d -o slurm -g slurm /var/spool/slurm/ctld
		/usr/sbin/slurmctld
		;;
	node)
		mkdir -p /var/spool/slurm/d
		/usr/sbin/slurmd
		;;
	esac
}

# The realm is made at the first start, by /etc/krb5kdc/setup.
boot_kerberos() {
	mkdir -p /var/lib/krb5kdc
	[[ -e /etc/krb5.keytab ]] || bash -x /etc/krb5kdc/setup
	/usr/sbin/krb5kdc
}

boot_gridengine() {
	local root=/var/lib/gridengine spool=/var/spool/gridengine
	export SGE_ROOT=$root SGE_CELL=default SGE_MASTER_PIDFILE=/run/gridengine/qmaster.pid SGE_EXECD_PIDFILE=/run/gridengine/execd.pid
	case $role in
	mgr)
		install -d -o sgeadmin -g sgeadmin "$spool"/{qmaster,qmaster/job_scripts,spooldb}
		[[ -e $spool/spooldb/sge ]] || runuser -u sgeadmin -- /usr/share/gridengine/scripts/init_cluster "$root" default "$spool/spooldb" sgeadmin
		/usr/sbin/sge_qmaster
		if [[ ! -e $spool/configured ]]; then
			until qconf -sh >/dev/null 2>&1; do sleep 0.1; done
			bash -x /etc/gridengine-setup && touch "$spool/configured"
		fi
		;;
	node)
		install -d -o sgeadmin -g sgeadmin "$spool/execd"
		# A node that comes before the master knows it gives up for good.
		until qconf -sq all.q >/dev/null 2>&1; do sleep 0.2; done
		/usr/sbin/sge_execd
		;;
	esac
}

[[ $(hostname) != *-gw || ! -e /etc/krb5kdc/setup ]] || boot_kerberos
[[ $role != gw ]] || /usr/sbin/sshd -E /var/log/sshd.log
case $batch in
slurm) boot_slurm ;;
gridengine) boot_gridengine ;;
esac

# bash collects any child that ends, orphans included, while it waits for one.
while :; do
	sleep infinity &
	wait $!
done

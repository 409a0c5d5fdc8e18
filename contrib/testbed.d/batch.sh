# shellcheck shell=bash
# The batch systems: their configuration, written with the site's files, and how to tell that they take jobs. boot.sh starts them.

batch_configure() {
	case ${SITE_BATCH[$1]} in
	slurm) slurm_configure "$1" ;;
	gridengine) gridengine_configure "$1" ;;
	none) ;;
	esac
}

# batch_ready SITE: each node is there and idle or busy. Prints what it saw, for the message when it does not become true.
batch_ready() {
	case ${SITE_BATCH[$1]} in
	slurm) slurm_ready "$1" ;;
	gridengine) gridengine_ready "$1" ;;
	none) ;;
	esac
}

batch_title() {
	case ${SITE_BATCH[$1]} in
	slurm) echo "Slurm" ;;
	gridengine) echo "Grid Engine" ;;
	none) echo "none" ;;
	esac
}

slurm_configure() {
	local site=$1 etc
	etc=$(site_dir "$site")/etc
	mkdir -p "$etc/slurm" "$etc/munge"
	head -c 1024 /dev/urandom >"$etc/munge/munge.key"
	chown -R "$(site_ids "$site" munge)" "$etc/munge"
	chmod 700 "$etc/munge"
	chmod 400 "$etc/munge/munge.key"
	# The default is to look for /sys/fs/cgroup, which the hosts lack, and to give up; v1 looks when it is used, and it is not.
	echo CgroupPlugin=cgroup/v1 >"$etc/slurm/cgroup.conf"
	# No cgroups, no task affinity: the nodes are parts of one machine. config_overrides makes Slurm believe in CPUs that
	# are not there. Nodes that were away come back by themselves (ReturnToService), as a reboot test wants.
	cat >"$etc/slurm/slurm.conf" <<-EOF
		ClusterName=$site
		SlurmctldHost=$site-mgr
		SlurmUser=slurm
		AuthType=auth/munge
		CredType=cred/munge
		StateSaveLocation=/var/spool/slurm/ctld
		SlurmdSpoolDir=/var/spool/slurm/d
		SlurmctldPidFile=/run/slurmctld.pid
		SlurmdPidFile=/run/slurmd.pid
		SlurmctldLogFile=/var/log/slurm/slurmctld.log
		SlurmdLogFile=/var/log/slurm/slurmd.log
		ProctrackType=proctrack/linuxproc
		TaskPlugin=task/none
		MpiDefault=none
		JobAcctGatherType=jobacct_gather/none
		AccountingStorageType=accounting_storage/none
		SelectType=select/cons_tres
		SelectTypeParameters=CR_CPU
		SlurmdParameters=config_overrides
		SchedulerParameters=bf_interval=2,sched_interval=2,sched_min_interval=100000
		ReturnToService=2
		SlurmdTimeout=30
		SlurmctldTimeout=10
		InactiveLimit=0
		KillWait=5
		MinJobAge=120
		MaxArraySize=1001
		MailProg=/bin/true
		NodeName=$site-n[1-$NODES] CPUs=$CPUS RealMemory=3000 State=UNKNOWN
		PartitionName=debug Nodes=ALL Default=YES DefaultTime=10 MaxTime=60 State=UP
		PartitionName=short Nodes=ALL MaxTime=5 MaxNodes=1 State=UP
	EOF
}

slurm_ready() {
	local seen
	seen=$(host_exec "$1-gw" timeout 5 sinfo -h -N -p debug -o '%N is %T' 2>&1) || true
	(($(grep -cE ' is (idle|mixed|allocated)$' <<<"$seen") == NODES)) && return
	printf '%s\n' "$seen" | paste -sd,
	return 1
}

gridengine_configure() {
	local site=$1 dir cell node
	dir=$(site_dir "$site")
	cell=$dir/gridengine/default/common
	# Grid Engine's hosts share this directory; the package leaves a fresh cell in it.
	cp -a /var/lib/gridengine "$dir/gridengine"
	mkdir -p "$cell"
	echo "$site-mgr" >"$cell/act_qmaster"
	chown -R "$(site_ids "$site" sgeadmin)" "$dir/gridengine/default"

	# boot.sh runs this once, as soon as the master answers.
	{
		echo 'set -e'
		echo "qconf -as $site-gw"
		for ((node = 1; node <= NODES; node++)); do echo "qconf -ah $site-n$node; qconf -as $site-n$node"; done
		cat "$TESTBED_LIB/gridengine-setup.sh"
	} >"$dir/etc/gridengine-setup"
	for ((node = 1; node <= NODES; node++)); do echo "$site-n$node"; done >"$dir/etc/gridengine-nodes"
}

gridengine_ready() {
	local seen
	# A sixth column holds the states that keep a queue from taking jobs.
	seen=$(host_exec "$1-gw" timeout 5 qstat -f 2>&1) || true
	(($(awk '/^all\.q@/ && NF == 5' <<<"$seen" | wc -l) == NODES)) && return
	grep -E '^all\.q@|error' <<<"$seen" | tr -s ' ' | paste -sd,
	return 1
}

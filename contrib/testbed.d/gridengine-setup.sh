# shellcheck shell=bash
# Runs on the scheduler's host, on a fresh cell: hosts, parallel environments, the queue, quick reactions.
file=$(mktemp)

# edit FIELD VALUE [FIELD VALUE]...: replaces fields of the configuration on standard input.
edit() {
	local script=
	while (($#)); do
		script+="s,^$1 .*,$1 $2,;"
		shift 2
	done
	sed -e "$script" >"$file"
}

{
	echo 'group_name @allhosts'
	paste -sd' ' /etc/gridengine-nodes | sed 's/^/hostlist /'
} >"$file"
qconf -Ahgrp "$file"

# pe NAME RULE JOB_IS_FIRST_TASK
pe() {
	cat >"$file" <<-PE
		pe_name            $1
		slots              999
		user_lists         NONE
		xuser_lists        NONE
		start_proc_args    NONE
		stop_proc_args     NONE
		allocation_rule    $2
		control_slaves     TRUE
		job_is_first_task  $3
		urgency_slots      min
		accounting_summary FALSE
		qsort_args         NONE
	PE
	qconf -Ap "$file"
}
# shellcheck disable=SC2016 # Grid Engine's own word
pe smp '$pe_slots' TRUE
pe onepernode 1 FALSE

qconf -sq | edit qname all.q hostlist @allhosts slots 4 pe_list 'make smp onepernode' shell /bin/bash \
	load_thresholds NONE rerun FALSE notify 00:00:05 tmpdir /tmp
qconf -Aq "$file"

qconf -ssconf | edit schedule_interval 0:0:2 flush_submit_sec 1 flush_finish_sec 1 load_adjustment_decay_time 0:0:0 \
	job_load_adjustments NONE schedd_job_info true
qconf -Msconf "$file"

# qconf takes the configuration's name from the file's.
qconf -sconf | sed 1d | edit load_report_time 00:00:05 max_unheard 00:00:30 mailer /bin/true
sed 's/flush_time=00:00:15/flush_time=00:00:01/' "$file" >"${file%/*}/global"
qconf -Mconf "${file%/*}/global"

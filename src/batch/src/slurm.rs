//! Slurm: `sbatch`, `squeue`, `sacct`, `scancel`. Sources: their manual pages, and the captures in `tests/fixtures/batch`.

use std::time::Duration;

use crate::{
    BatchId, CancelReply, Class, ProxyRequest, RawOutput, Row, Status, StatusError, Submission, SubmitReply,
    contains_any, is_number, seconds, shell::Script,
};

/// A profile may set these, and `squeue` would then list only some of the user's batch jobs.
const FILTERS: [&str; 6] =
    ["SQUEUE_ACCOUNT", "SQUEUE_LICENSES", "SQUEUE_NAMES", "SQUEUE_PARTITION", "SQUEUE_QOS", "SQUEUE_STATES"];

/// The mark after the first field tells rows from the rest of a name that holds newlines; the name comes last, since it
/// may hold anything.
const FORMAT: &str = "JobID:|vo|,State:|,RestartCnt:|,Reason:|,Name:";
/// `squeue` drops an unknown field with a complaint and exits 0, so the header is checked word for word.
const HEADER: &str = "JOBID|vo|STATE|RESTART_COUNT|REASON|NAME";
const MARK: &str = "|vo|";

const ACCOUNTING_FORMAT: &str = "JobIDRaw,State,ExitCode,JobName";
const ACCOUNTING_HEADER: &str = "JobIDRaw|State|ExitCode|JobName";

/// The controller, its database or the way there is in trouble; `slurm_errno.h` has these texts.
const TRANSIENT: &[&str] = &[
    "Socket timed out",
    "Unable to contact slurm controller",
    "temporarily unable to accept job",
    "temporarily unavailable",
    "Transport endpoint",
    "Connection refused",
    "Connection reset",
    "Connection timed out",
    "No route to host",
    "Zero Bytes were transmitted",
    "Unexpected message received",
    "Message receive failure",
    "Message send failure",
    "Header lengths are longer",
    "Protocol authentication error",
    "Problem talking to",
    "standby mode",
    "Job credential expired",
    "Error writing job script to file",
    "Error writing job environment to file",
    "I/O error writing script/environment to file",
    "Unable to establish config",
    "Unable to process configuration file",
    "Unable to resolve",
    "System is shutting down",
    "Cannot allocate memory",
];

/// Limits of association and QOS: counts of submitted jobs and their sum.
const LIMIT: &[&str] =
    &["AssocMaxSubmit", "AssocGrp", "QOSMaxSubmit", "QOSGrp", "PerUser", "PerAccount", "accounting/QOS policy"];

/// What no waiting makes right, though the last line says "accounting/QOS policy" too: limits of one batch job.
const TOO_MUCH: &[&str] = &["PerJob", "PerNode", "WallDuration", "NotSatisfied", "TimeLimit"];

pub(crate) const HINTS: &[(&str, &str)] = &[
    ("invalid partition", "`sites` shows the site's settings; `sinfo -s` on the gateway lists its partitions"),
    ("Invalid partition", "`sites` shows the site's settings; `sinfo -s` on the gateway lists its partitions"),
    ("Invalid account", "`sacctmgr show assoc user=$USER` on the gateway lists your accounts; set `account`"),
    ("Invalid qos", "`sacctmgr show assoc user=$USER format=account,qos` on the gateway lists what you may use"),
    ("Invalid feature", "a constraint in `directives` names no feature of the site: `sinfo -o %f` lists them"),
    ("configuration is not available", "no node has that many CPUs or that much memory: `sinfo -o '%P %c %m'`"),
    ("time limit", "ask for less walltime: `sinfo -o '%P %l'` lists the limits"),
    ("WallDuration", "ask for less walltime: the limit of your account or QOS is lower"),
    ("DOS line breaks", "remove the carriage returns from `directives`"),
    ("unrecognized option", "sbatch does not know an option in `directives`"),
    ("not a batch script", "sbatch did not get the script: is it replaced by a wrapper at this site?"),
];

pub(crate) fn render(request: &ProxyRequest<'_>) -> Submission {
    let ProxyRequest { nodes, cpus, .. } = request;
    let minutes = seconds(request.walltime).div_ceil(60);
    let mut argv = vec![
        "sbatch".to_owned(),
        "--parsable".to_owned(),
        format!("--job-name={}", request.name),
        format!("--chdir={}", request.workdir),
        // `%` begins a pattern; append, because a restarted batch job would erase what the first one said.
        format!("--output={}", request.output.replace('%', "%%")),
        "--open-mode=append".to_owned(),
        "--export=ALL".to_owned(),
        format!("--nodes={nodes}"),
        format!("--ntasks={nodes}"),
        "--ntasks-per-node=1".to_owned(),
        format!("--cpus-per-task={cpus}"),
        format!("--time={minutes}"),
    ];
    argv.extend(request.memory_mb.map(|mb| format!("--mem={mb}M")));
    argv.extend(request.queue.map(|queue| format!("--partition={queue}")));
    argv.extend(request.account.map(|account| format!("--account={account}")));

    // Durations only: the controller's start and end are compared with each other, never with this node's clock.
    // squeue is asked by releases that do not set them, once.
    let variables = format!(
        r#"seconds() {{ awk '{{ days = 0; if (split($0, part, "-") == 2) {{ days = part[1]; $0 = part[2] }}
	count = split($0, unit, ":"); sum = 0; for (i = 1; i <= count; i++) sum = sum * 60 + unit[i]
	print sum + days * 86400 }}'; }}
VO_TIME_LEFT_S={}
if [ -n "$SLURM_JOB_START_TIME" ] && [ -n "$SLURM_JOB_END_TIME" ]; then
	VO_TIME_LEFT_S=$((SLURM_JOB_END_TIME - SLURM_JOB_START_TIME))
else
	left=$(timeout 20 squeue --noheader --jobs="$SLURM_JOB_ID" --format=%L 2>/dev/null)
	case $left in
	'' | *[!0-9:-]*) ;; # no answer, UNLIMITED, INVALID: what was asked for
	*) VO_TIME_LEFT_S=$(printf '%s\n' "$left" | seconds) ;;
	esac
fi
VO_BATCH_ID=$SLURM_JOB_ID VO_BATCH_RESTARTS=${{SLURM_RESTART_COUNT:-0}}
export VO_TIME_LEFT_S VO_BATCH_ID VO_BATCH_RESTARTS"#,
        minutes.saturating_mul(60)
    );
    let start = if *nodes <= 1 {
        format!(
            r#"VO_NODE_INDEX=0 VO_NODE_CPUS=${{SLURM_CPUS_ON_NODE:-{cpus}}} /bin/sh -c "$node" sh "$@" &
started
told=$!"#
        )
    } else {
        // Slurm itself signals the tasks of a step; srun takes a TERM as an order to kill them at once, so it is
        // not told. --overlap leaves the CPUs to the jobs, whatever else the user starts in the allocation.
        r#"srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --overlap --no-kill --export=ALL \
	--cpu-bind=none --input=none --kill-on-bad-exit=0 --wait=0 \
	/bin/sh -c "VO_NODE_INDEX=\$SLURM_PROCID VO_NODE_CPUS=\$SLURM_CPUS_ON_NODE; export VO_NODE_INDEX VO_NODE_CPUS; $node" \
	sh "$@" &
started"#
            .to_owned()
    };
    let script = Script {
        marker: Some("#SBATCH"),
        // A restarted proxy is harmless (its restart count tells it apart), but nobody asked for it. A node that fails takes
        // no other node's starter along.
        defaults: if *nodes <= 1 { &["--no-requeue"] } else { &["--no-requeue", "--no-kill"] },
        signals: "TERM",
        variables: &variables,
        start: &start,
    };
    Submission { argv, script: script.render(request) }
}

fn classify(_: &RawOutput<'_>, message: &str) -> Class {
    if contains_any(message, TRANSIENT) {
        Class::Transient
    } else if contains_any(message, LIMIT) && !contains_any(&without_policy_line(message), TOO_MUCH) {
        Class::Limit
    } else {
        Class::Permanent
    }
}

/// "Job violates accounting/QOS policy (… size and/or time limits)" ends every message about a limit; the line before it
/// names the limit.
fn without_policy_line(message: &str) -> String {
    message.lines().filter(|line| !line.contains("accounting/QOS policy")).collect()
}

pub(crate) fn parse_submit(out: &RawOutput<'_>) -> SubmitReply {
    let stdout = out.stdout();
    // `ID` or `ID;CLUSTER`; a site's wrapper may have talked before.
    let id = stdout.lines().rev().filter_map(|line| line.trim().split(';').next()).find(|word| is_number(word));
    out.submit_reply(id, classify)
}

pub(crate) fn status_all(user: &str) -> Vec<String> {
    let unset = FILTERS.iter().flat_map(|name| ["-u", name]);
    // --all: batch jobs in hidden partitions too. --states: ended ones, while the controller remembers them.
    let squeue = ["squeue", "--all", "--states=all"];
    let mut argv: Vec<String> = ["env"].into_iter().chain(unset).chain(squeue).map(str::to_owned).collect();
    argv.extend([format!("--user={user}"), format!("--Format={FORMAT}")]);
    argv
}

pub(crate) fn parse_status(prefix: &str, out: &RawOutput<'_>) -> Result<Vec<Row>, StatusError> {
    let listing = out.listing(&["Invalid user", "Socket timed out", "Unable to contact", "Problem talking"])?;
    let lines = after_header(&listing, HEADER)?;
    let mut rows: Vec<Row> = Vec::new();
    // Whether the last row may go on: its name is none of ours, so it may hold newlines.
    let mut open = false;
    for line in lines {
        let garbled = || StatusError::Garbled(line.to_owned());
        let Some((id, rest)) = line.split_once(MARK).filter(|(id, _)| is_number(id)) else {
            if open {
                continue;
            }
            return Err(garbled());
        };
        let mut fields = rest.splitn(4, '|');
        let [Some(state), Some(restarts), Some(reason), Some(name)] = [(); 4].map(|()| fields.next()) else {
            return Err(garbled());
        };
        let restarts = restarts.parse().map_err(|_| garbled())?;
        open = !name.starts_with(prefix);
        if !open {
            let status = status(state, reason, None);
            rows.push(Row {
                id: BatchId(id.to_owned()),
                name: name.to_owned(),
                status,
                restarts,
                raw: line.to_owned(),
            });
        }
    }
    Ok(rows)
}

/// The lines after the header; what comes before it is a site's banner. A listing that does not end in a newline was cut.
fn after_header<'a>(listing: &'a str, header: &str) -> Result<impl Iterator<Item = &'a str>, StatusError> {
    if !listing.ends_with('\n') {
        return Err(StatusError::Garbled(listing.lines().last().unwrap_or("nothing").to_owned()));
    }
    let mut lines = listing.lines();
    if lines.any(|line| line.trim_end() == header) {
        Ok(lines)
    } else {
        Err(StatusError::Garbled(format!("no header {header}")))
    }
}

/// Both spellings of the states, long and short, and accounting's `CANCELLED by UID` and `CANCELLED+`.
fn status(state: &str, reason: &str, end: Option<(i32, i32)>) -> Status {
    let said = Some(reason.trim()).filter(|reason| !matches!(*reason, "" | "None" | "(null)")).map(str::to_owned);
    let failed = || Status::Failed {
        why: said.as_ref().map_or_else(|| state.to_owned(), |reason| format!("{state} ({reason})")),
    };
    match state.split([' ', '+']).next().unwrap_or_default() {
        "PENDING" | "PD" | "REQUEUED" | "RQ" if said.as_deref().is_some_and(needs_a_person) => {
            Status::Held { reason: said }
        }
        "PENDING" | "PD" | "REQUEUED" | "RQ" | "REQUEUE_FED" | "RF" => Status::Pending { reason: said },
        "REQUEUE_HOLD" | "RH" | "SPECIAL_EXIT" | "SE" | "RESV_DEL_HOLD" | "RD" => Status::Held { reason: said },
        "RUNNING" | "R" | "CONFIGURING" | "CF" | "RESIZING" | "RS" | "SIGNALING" | "SI" | "POWER_UP_NODE" => {
            Status::Running
        }
        "SUSPENDED" | "S" | "STOPPED" | "ST" => Status::Suspended,
        "COMPLETING" | "CG" | "STAGE_OUT" | "SO" => Status::Ending,
        "COMPLETED" | "CD" => Status::Done { exit: Some(0), signal: None },
        "FAILED" | "F" => match end {
            Some((code, 0)) if code != 0 => Status::Done { exit: Some(code), signal: None },
            Some((_, signal)) if signal != 0 => Status::Done { exit: None, signal: Some(signal) },
            _ => failed(),
        },
        "CANCELLED" | "CA" | "REVOKED" | "RV" => Status::Cancelled,
        "PREEMPTED" | "PR" => Status::Preempted,
        "TIMEOUT" | "TO" | "NODE_FAIL" | "NF" | "BOOT_FAIL" | "BF" | "DEADLINE" | "DL" | "OUT_OF_MEMORY" | "OOM"
        | "LAUNCH_FAILED" | "RECONFIG_FAIL" => failed(),
        _ => Status::Unknown(state.to_owned()),
    }
}

/// Reasons for which a pending batch job never starts until somebody changes something.
fn needs_a_person(reason: &str) -> bool {
    contains_any(reason, &["Held", "held", "NeverSatisfied", "BadConstraints", "Invalid"])
        || matches!(
            reason,
            "PartitionTimeLimit" | "PartitionNodeLimit" | "PartitionConfig" | "AccountNotAllowed" | "QOSNotAllowed"
        )
        || reason.contains("PerJob")
}

pub(crate) fn accounting(user: &str, since: Duration) -> Vec<String> {
    // The default window begins at midnight. A duration back from its own now needs no clock of ours.
    let seconds = since.as_secs();
    ["sacct", "--parsable2", "--allocations", "--duplicates"]
        .map(str::to_owned)
        .into_iter()
        .chain([
            format!("--user={user}"),
            format!("--starttime=now-{seconds}"),
            format!("--format={ACCOUNTING_FORMAT}"),
        ])
        .collect()
}

pub(crate) fn parse_accounting(prefix: &str, out: &RawOutput<'_>) -> Result<Vec<Row>, StatusError> {
    if contains_any(&out.words(), &["accounting storage is disabled"]) {
        return Err(StatusError::Disabled);
    }
    let listing = out.listing(&["Invalid user", "Problem talking"])?;
    let mut rows: Vec<Row> = Vec::new();
    for line in after_header(&listing, ACCOUNTING_HEADER)? {
        let mut fields = line.splitn(4, '|');
        let [Some(id), Some(state), Some(end), Some(name)] = [(); 4].map(|()| fields.next()) else {
            continue;
        };
        if !is_number(id) || !name.starts_with(prefix) {
            continue;
        }
        let end = end.split_once(':').and_then(|(code, signal)| Some((code.parse().ok()?, signal.parse().ok()?)));
        let end = end.ok_or_else(|| StatusError::Garbled(line.to_owned()))?;
        let (id, name) = (BatchId(id.to_owned()), name.to_owned());
        // One row each time it was started, oldest first: what counts is the last.
        let before = rows.iter().position(|row| row.id == id).map(|index| rows.remove(index));
        let restarts = before.map_or(0, |row| row.restarts.saturating_add(1));
        rows.push(Row { id, name, status: status(state, "", Some(end)), restarts, raw: line.to_owned() });
    }
    Ok(rows)
}

pub(crate) fn parse_cancel(out: &RawOutput<'_>) -> CancelReply {
    // An unknown or ended id is silent and 0, unless it stands among others that fail.
    let message = out.words();
    let gone = |line: &str| contains_any(line, &["Invalid job id specified", "already completing or completed"]);
    let stderr = String::from_utf8_lossy(out.stderr);
    let only_gone = !stderr.trim().is_empty() && stderr.lines().filter(|line| line.contains("error")).all(gone);
    if !out.timed_out && (out.code == Some(0) || (out.code.is_some() && only_gone)) {
        return CancelReply::Accepted;
    }
    let class = out.class(&message, classify);
    CancelReply::Refused { message, class }
}

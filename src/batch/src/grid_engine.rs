//! Grid Engine (SGE 8.1 and its relatives): `qsub`, `qstat -xml`, `qacct`, `qdel`. Sources: their manual pages, and the
//! captures in `tests/fixtures/batch`.

use std::time::Duration;

use crate::{
    BatchId, CancelReply, Class, ProxyRequest, RawOutput, Row, Status, StatusError, Submission, SubmitReply,
    contains_any, is_number, seconds,
    shell::{Script, join},
};

/// The qmaster, or the way there, is in trouble.
const TRANSIENT: &[&str] = &[
    "commlib",
    "unable to send message to qmaster",
    "unable to contact qmaster",
    "got send error",
    "got read error",
    "got select error",
    "Error reading answer list from qmaster",
    "failed receiving gdi request",
    "could not be scheduled; try again later",
    "Connection refused",
    "timeout",
];

/// "only 20 jobs are allowed per user (current job count: 20)", per cluster too; the exit code is 25.
const LIMIT: &[&str] = &["jobs are allowed per", "exceeds job limit"];
const LIMIT_CODE: i32 = 25;

pub(crate) const HINTS: &[(&str, &str)] = &[
    ("unknown queue", "`qstat -g c` on the gateway lists its queues; set `queue`"),
    (
        "parallel environment",
        "`qconf -spl` lists the site's parallel environments; name one by directives = [\"-pe NAME SLOTS\"]",
    ),
    (
        "no suitable queues",
        "no queue takes this size, walltime or memory even when empty: ask for less, or see `qconf -sq QUEUE`",
    ),
    ("project", "`qconf -sprjl` on the gateway lists the projects; set `account`"),
    ("unknown resource", "`qconf -sc` on the gateway lists the resources that `directives` may name"),
    ("not a valid access list", "ask the site's administrators for access to this queue"),
    ("jobs are allowed per", "the site's limit of batch jobs is reached; it is tried again as others end"),
];

pub(crate) fn render(request: &ProxyRequest<'_>) -> Submission {
    let nodes = request.nodes.max(1);
    let cpus = request.cpus.max(1);
    let seconds = seconds(request.walltime);
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let mut argv = words("qsub -terse -S /bin/sh -b n -j y");
    argv.extend(["-N", request.name, "-wd", request.workdir, "-o", request.output].map(str::to_owned));
    argv.extend(words(&format!("-l h_rt={seconds}")));
    // Grid Engine has no memory of a node, only of a slot.
    argv.extend(request.memory_mb.into_iter().flat_map(|mb| words(&format!("-l h_vmem={}M", mb.div_ceil(cpus)))));
    argv.extend(request.queue.into_iter().flat_map(|queue| ["-q", queue]).map(str::to_owned));
    argv.extend(request.account.into_iter().flat_map(|project| ["-P", project]).map(str::to_owned));
    // Sites choose the names of their parallel environments; these are the customary ones.
    let environment = match (nodes, cpus) {
        (1, 1) => None,
        (1, _) => Some(format!("-pe smp {cpus}")),
        (_, 1) => Some(format!("-pe onepernode {nodes}")),
        _ => Some(format!("-pe mpi {}", nodes.saturating_mul(cpus))),
    };
    let given = request.directives.iter().flat_map(|directive| directive.split_whitespace());
    let environment = environment.filter(|_| !given.into_iter().any(|word| word == "-pe"));
    // -w e: or else a walltime over the queue's limit is accepted and waits for ever. -notify: USR2 before the kill.
    let defaults: Vec<&str> = ["-r n", "-w e", "-notify"].into_iter().chain(environment.as_deref()).collect();

    let variables = format!(
        "VO_BATCH_ID=$JOB_ID VO_BATCH_RESTARTS=${{RESTARTED:-0}} VO_TIME_LEFT_S={seconds}\n\
         export VO_BATCH_ID VO_BATCH_RESTARTS VO_TIME_LEFT_S"
    );
    // The whole process group gets USR2, so everything that is not this shell starts with it ignored. The other nodes'
    // starters get it from their own execution daemons; a TERM to qrsh would cut them off instead. A host can stand in
    // several lines, one a queue; the first host is this one. qrsh passes on no variables, and hands one line to the
    // user's shell over there.
    let command = crate::shell::quote(&join(
        ["/bin/sh", "-c", crate::shell::NODE, "sh"].into_iter().chain(request.starter.iter().map(String::as_str)),
    ));
    let start = format!(
        r#"command={command}
hosts="localhost ${{NSLOTS:-{cpus}}}"
if [ -r "${{PE_HOSTFILE:-}}" ]; then
	hosts=$(awk '{{ if (!($1 in slots)) order[++count] = $1; slots[$1] += $2 }}
		END {{ for (i = 1; i <= count; i++) print order[i], slots[order[i]] }}' "$PE_HOSTFILE")
fi
index=0
while read -r host slots; do
	(
		trap '' USR1 USR2
		VO_NODE_INDEX=$index VO_NODE_CPUS=$slots
		export VO_NODE_INDEX VO_NODE_CPUS
		[ "$index" -gt 0 ] || exec /bin/sh -c "$node" sh "$@"
		exec qrsh -inherit -nostdin "$host" "exec /usr/bin/env VO_BATCH_ID=$VO_BATCH_ID VO_BATCH_RESTARTS=$VO_BATCH_RESTARTS\
 VO_TIME_LEFT_S=$VO_TIME_LEFT_S VO_NODE_INDEX=$index VO_NODE_CPUS=$slots $command"
	) </dev/null &
	started
	[ "$index" -gt 0 ] || told=$!
	index=$((index + 1))
done <<HOSTS
$hosts
HOSTS"#
    );
    let script = Script {
        marker: Some("#$"),
        defaults: &defaults,
        signals: "TERM USR1 USR2",
        variables: &variables,
        start: &start,
    };
    Submission { argv, script: script.render(request) }
}

fn classify(out: &RawOutput<'_>, message: &str) -> Class {
    if contains_any(message, TRANSIENT) {
        Class::Transient
    } else if out.code == Some(LIMIT_CODE) || contains_any(message, LIMIT) {
        Class::Limit
    } else {
        Class::Permanent
    }
}

pub(crate) fn parse_submit(out: &RawOutput<'_>) -> SubmitReply {
    let stdout = out.stdout();
    // A site's submit verifier may talk on stdout too.
    let id = stdout.lines().rev().map(str::trim).find(|word| is_number(word));
    out.submit_reply(id, classify)
}

pub(crate) fn status_all(user: &str) -> Vec<String> {
    // Not the plain listing: it cuts names to ten characters, and is empty without jobs.
    ["qstat", "-xml", "-u", user].map(str::to_owned).to_vec()
}

pub(crate) fn parse_status(prefix: &str, out: &RawOutput<'_>) -> Result<Vec<Row>, StatusError> {
    let listing = out.listing(&["commlib", "unable to send message"])?;
    let xml = listing.split_once("<?xml").map_or("", |(_, xml)| xml).trim_end();
    if !xml.ends_with("</job_info>") || !xml.contains("<job_info") {
        return Err(StatusError::Garbled("no complete <job_info>".to_owned()));
    }
    let mut rows = Vec::new();
    for element in xml.split("<job_list").skip(1) {
        let (element, _) =
            element.split_once("</job_list>").ok_or_else(|| StatusError::Garbled("a <job_list> without end".into()))?;
        let raw = || element.split_whitespace().collect::<Vec<_>>().join(" ");
        let field = |tag| text(element, tag).ok_or_else(|| StatusError::Garbled(raw()));
        let (id, name, state) = (field("JB_job_number")?, field("JB_name")?, field("state")?);
        if !is_number(&id) {
            return Err(StatusError::Garbled(raw()));
        }
        if name.starts_with(prefix) {
            let restarts = u32::from(state.contains('R'));
            rows.push(Row { id: BatchId(id), name, status: status(&state), restarts, raw: raw() });
        }
    }
    Ok(rows)
}

/// The text of the first `<tag>`, with the five entities and character references resolved.
fn text(element: &str, tag: &str) -> Option<String> {
    let (_, rest) = element.split_once(&format!("<{tag}>"))?;
    let (text, _) = rest.split_once(&format!("</{tag}>"))?;
    let mut parts = text.split('&');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (entity, rest) = part.split_once(';')?;
        plain.push(match entity {
            "lt" => '<',
            "gt" => '>',
            "amp" => '&',
            "quot" => '"',
            "apos" => '\'',
            _ => {
                let number = entity.strip_prefix('#')?;
                let code = number
                    .strip_prefix('x')
                    .map_or_else(|| number.parse().ok(), |hex| u32::from_str_radix(hex, 16).ok());
                char::from_u32(code?)?
            }
        });
        plain.push_str(rest);
    }
    Some(plain)
}

/// The letters of `qstat`'s state: d(eletion), E(rror), h(old), r(unning), R(estarted), s(uspended), S (queue), T (threshold),
/// t(ransferring), w(aiting), q(ueued), z (ended).
fn status(state: &str) -> Status {
    let has = |letters: &[char]| state.contains(letters);
    if state.is_empty() || !state.chars().all(|letter| "dEhrRsSTNPtwqz".contains(letter)) {
        Status::Unknown(state.to_owned())
    } else if has(&['d']) {
        Status::Ending
    } else if has(&['E']) {
        Status::Held { reason: Some(format!("error state {state}")) }
    } else if has(&['z']) {
        Status::Done { exit: None, signal: None }
    } else if has(&['q', 'w']) {
        if has(&['h']) {
            Status::Held { reason: Some(format!("hold {state}")) }
        } else {
            Status::Pending { reason: None }
        }
    } else if has(&['s', 'S', 'T', 'N', 'P']) {
        Status::Suspended
    } else if has(&['r', 't', 'R']) {
        Status::Running
    } else {
        Status::Unknown(state.to_owned())
    }
}

pub(crate) fn accounting(user: &str, prefix: &str, since: Duration) -> Vec<String> {
    let days = since.as_secs().div_ceil(86_400).max(1).to_string();
    ["qacct", "-o", user, "-d", &days, "-j", &format!("{prefix}*")].map(str::to_owned).to_vec()
}

pub(crate) fn parse_accounting(prefix: &str, out: &RawOutput<'_>) -> Result<Vec<Row>, StatusError> {
    let words = out.words();
    if out.code == Some(1)
        && contains_any(
            &words,
            &["no jobs running since startup", "accounting: No such file", "accounting: Permission"],
        )
    {
        return Err(StatusError::Disabled);
    }
    // "error: job name vo-1* not found" is an answer.
    if out.code == Some(1) && !out.timed_out && words.starts_with("error: job name") && words.ends_with("not found") {
        return Ok(Vec::new());
    }
    let listing = out.listing(&[])?;
    let mut rows: Vec<Row> = Vec::new();
    let mut records = listing.split("==============================================================\n");
    if records.next().is_some_and(|before| before == listing) {
        return Err(StatusError::Garbled("no record".to_owned()));
    }
    for record in records {
        let field = |name: &str| {
            record
                .lines()
                .filter_map(|line| line.split_once(' '))
                .find(|(word, _)| *word == name)
                .map(|(_, value)| value.trim())
        };
        let garbled = || StatusError::Garbled(record.lines().take(9).collect::<Vec<_>>().join("; "));
        let [Some(name), Some(id), Some(failed), Some(exit)] =
            ["jobname", "jobnumber", "failed", "exit_status"].map(field)
        else {
            return Err(garbled());
        };
        let number = |value: &str| value.split_whitespace().next().and_then(|word| word.parse::<i32>().ok());
        let (Some(failed_code), Some(exit)) = (number(failed), number(exit)) else {
            return Err(garbled());
        };
        if !is_number(id) || !name.starts_with(prefix) {
            continue;
        }
        // 100 "assumedly after job": a signal ended it, which the exit code above 128 names.
        let status = match failed_code {
            0 | 100 if exit > 128 => Status::Done { exit: None, signal: Some(exit - 128) },
            0 => Status::Done { exit: Some(exit), signal: None },
            _ => Status::Failed { why: failed.to_owned() },
        };
        let id = BatchId(id.to_owned());
        let raw = format!("{id} {name} failed {failed} exit_status {exit}");
        let row = Row { id, name: name.to_owned(), status, restarts: 0, raw };
        // A parallel batch job has a record for each task, in the order of their ends; the script's own is the last.
        match rows.iter_mut().find(|before| before.id == row.id) {
            Some(before) => *before = row,
            None => rows.push(row),
        }
    }
    Ok(rows)
}

pub(crate) fn parse_cancel(out: &RawOutput<'_>) -> CancelReply {
    // All messages go to stdout, and one id that does not exist makes the exit code 1.
    let message = out.words();
    let fine = ["has registered the job", "has deleted job", "does not exist", "already in deletion"];
    let told = !out.timed_out && out.code.is_some_and(|code| code <= 1);
    let mut lines = message.lines().filter(|line| line.contains(|letter: char| letter.is_ascii_alphabetic()));
    if told && lines.all(|line| contains_any(line, &fine)) {
        return CancelReply::Accepted;
    }
    let class = out.class(&message, classify);
    CancelReply::Refused { message, class }
}

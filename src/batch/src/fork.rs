//! The agent as a batch system of one machine; [`crate::System::Fork`] specifies the calls.

use crate::{
    BatchId, CancelReply, Class, ProxyRequest, RawOutput, Row, Status, StatusError, Submission, SubmitReply,
    shell::Script,
};

pub(crate) fn call(agent: &str, dir: &str, verb: &str) -> Vec<String> {
    [agent, "fork", verb, "--dir", dir].map(str::to_owned).to_vec()
}

pub(crate) fn render(agent: &str, dir: &str, request: &ProxyRequest<'_>) -> Submission {
    let mut argv = call(agent, dir, "submit");
    argv.extend(["--name", request.name, "--output", request.output].map(str::to_owned));
    // No clock runs out here, so the walltime is the starter's to keep. Field 22 of stat, counted behind the name.
    let variables = format!(
        r#"VO_BATCH_ID=$$.$(sed 's/.*) //' "/proc/$$/stat" | cut -d ' ' -f 20) VO_BATCH_RESTARTS=0 VO_TIME_LEFT_S={}
export VO_BATCH_ID VO_BATCH_RESTARTS VO_TIME_LEFT_S
cd {} || exit"#,
        crate::seconds(request.walltime),
        crate::shell::quote(request.workdir),
    );
    let start =
        format!("VO_NODE_INDEX=0 VO_NODE_CPUS={} /bin/sh -c \"$node\" sh \"$@\" &\nstarted\ntold=$!", request.cpus);
    let script = Script { marker: None, defaults: &[], signals: "TERM", variables: &variables, start: &start };
    Submission { argv, script: script.render(request) }
}

pub(crate) fn parse_submit(out: &RawOutput<'_>) -> SubmitReply {
    let stdout = out.stdout();
    out.submit_reply(stdout.lines().next_back().filter(|line| is_id(line)), |_, _| Class::Permanent)
}

pub(crate) fn parse_status(prefix: &str, out: &RawOutput<'_>) -> Result<Vec<Row>, StatusError> {
    let listing = out.listing(&[])?;
    let Some(listing) = listing.strip_suffix("end\n") else {
        return Err(StatusError::Garbled("no end".to_owned()));
    };
    let mut rows = Vec::new();
    for line in listing.lines() {
        let garbled = || StatusError::Garbled(line.to_owned());
        let mut fields = line.split('\t');
        let [Some(id), Some(name), Some(state), Some(end), None] = [(); 5].map(|()| fields.next()) else {
            return Err(garbled());
        };
        if !is_id(id) {
            return Err(garbled());
        }
        let status = match (state, end, end.strip_prefix('s')) {
            ("running", _, _) => Status::Running,
            ("done", "-", _) => Status::Done { exit: None, signal: None },
            ("done", _, Some(signal)) => {
                Status::Done { exit: None, signal: Some(signal.parse().map_err(|_| garbled())?) }
            }
            ("done", code, None) => Status::Done { exit: Some(code.parse().map_err(|_| garbled())?), signal: None },
            _ => Status::Unknown(state.to_owned()),
        };
        if name.starts_with(prefix) {
            rows.push(Row {
                id: BatchId(id.to_owned()),
                name: name.to_owned(),
                status,
                restarts: 0,
                raw: line.to_owned(),
            });
        }
    }
    Ok(rows)
}

pub(crate) fn parse_cancel(out: &RawOutput<'_>) -> CancelReply {
    if out.code == Some(0) && !out.timed_out {
        return CancelReply::Accepted;
    }
    let message = out.words();
    let class = out.class(&message, |_, _| Class::Permanent);
    CancelReply::Refused { message, class }
}

/// `PID.STARTTIME`
fn is_id(word: &str) -> bool {
    word.split_once('.').is_some_and(|(pid, start)| crate::is_number(pid) && crate::is_number(start))
}

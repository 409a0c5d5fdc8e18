//! What real batch systems print, read back: captures in `tests/fixtures/batch/SYSTEM/NAME`, with stdout in `.out`, stderr
//! in `.err`, command and exit code in `.meta`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{fs, path::PathBuf};

use proptest::prelude::*;
use vo_batch::{
    BatchId, CancelReply, Class, Detected, Kind, NoBatchSystem, RawOutput, Row, Status, StatusError, SubmitReply,
    System,
};

struct Capture {
    code: i32,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

fn capture(name: &str) -> Capture {
    let file =
        |suffix| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../../tests/fixtures/batch/{name}.{suffix}"));
    let meta = fs::read_to_string(file("meta")).unwrap_or_else(|error| panic!("{name}: {error}"));
    let code = meta.lines().rev().find_map(|line| line.strip_prefix("rc=")).and_then(|code| code.parse().ok()).unwrap();
    let stderr = if file("err").exists() { fs::read(file("err")).unwrap() } else { Vec::new() };
    Capture { code, stdout: fs::read(file("out")).unwrap(), stderr }
}

impl Capture {
    fn raw(&self) -> RawOutput<'_> {
        RawOutput { code: Some(self.code), stdout: &self.stdout, stderr: &self.stderr, timed_out: false }
    }
}

fn said<'a>(code: i32, stdout: &'a str, stderr: &'a str) -> RawOutput<'a> {
    RawOutput { code: Some(code), stdout: stdout.as_bytes(), stderr: stderr.as_bytes(), timed_out: false }
}

fn fork() -> System {
    System::new(Kind::Fork, "/opt/vo-agent", "/home/me/fork")
}

fn rows(rows: &[Row]) -> Vec<(&str, &str, String, u32)> {
    rows.iter().map(|row| (row.id.0.as_str(), row.name.as_str(), row.status.to_string(), row.restarts)).collect()
}

#[test]
fn accepted_submissions() {
    for (system, name, id) in [
        (System::Slurm, "slurm-22.05/03-sbatch-parsable", "2"),
        (System::Slurm, "slurm-22.05-slurmdbd/01-parsable-M", "1"),
        (System::GridEngine, "sge-8.1.9/03-qsub-terse", "2"),
    ] {
        assert_eq!(system.parse_submit(&capture(name).raw()), SubmitReply::Accepted(BatchId(id.into())), "{name}");
    }
    let banner = said(0, "Welcome to cluster 9\nnot 12 words\n4711\n", "");
    assert_eq!(System::Slurm.parse_submit(&banner), SubmitReply::Accepted(BatchId("4711".into())));
    assert_eq!(fork().parse_submit(&said(0, "812.99120\n", "")), SubmitReply::Accepted(BatchId("812.99120".into())));
}

#[test]
fn rejected_submissions() {
    use Class::{Limit, Permanent, Transient};
    for (system, name, expected, words) in [
        (System::Slurm, "slurm-22.05/20-err-partition", Permanent, "invalid partition specified: nope"),
        (System::Slurm, "slurm-24.11/03-err-part", Permanent, "invalid partition specified: nope"),
        (System::Slurm, "slurm-22.05/20-err-constraint", Permanent, "Invalid feature specification"),
        (System::Slurm, "slurm-22.05/20-err-mem", Permanent, "Requested node configuration is not available"),
        (System::Slurm, "slurm-22.05/20-err-time", Permanent, "Invalid --time specification"),
        (System::Slurm, "slurm-22.05/20-err-unknownopt", Permanent, "unrecognized option '--frobnicate'"),
        (System::Slurm, "slurm-22.05/20-err-dos", Permanent, "DOS line breaks"),
        (System::Slurm, "slurm-22.05-slurmdbd/02-badaccount", Permanent, "Invalid account"),
        (System::Slurm, "slurm-22.05/40-munge-sbatch", Transient, "Protocol authentication error"),
        (System::Slurm, "slurm-22.05/41-hung-sbatch", Transient, "Socket timed out on send/recv operation"),
        (System::Slurm, "slurm-22.05/42-down-sbatch", Transient, "Unable to contact slurm controller"),
        (System::GridEngine, "sge-8.1.9/03-qsub-verify", Permanent, "no suitable queues"),
        (System::GridEngine, "sge-8.1.9/10-err-opt", Permanent, "invalid option argument"),
        (System::GridEngine, "sge-8.1.9/10-err-pe", Permanent, "parallel environment \"nope\" does not exist"),
        (System::GridEngine, "sge-8.1.9/10-err-project", Permanent, "project \"nope\" does not exist"),
        (System::GridEngine, "sge-8.1.9/10-err-queue", Permanent, "unknown queue \"nope.q\""),
        (System::GridEngine, "sge-8.1.9/10-err-res", Permanent, "unknown resource"),
        (System::GridEngine, "sge-8.1.9/10-err-time", Permanent, "is not a time value"),
        (System::GridEngine, "sge-8.1.9/10-err-now", Transient, "try again later"),
        (System::GridEngine, "sge-8.1.9/21-down-qsub", Transient, "unable to send message to qmaster"),
    ] {
        let reply = system.parse_submit(&capture(name).raw());
        let SubmitReply::Rejected { message, class } = reply else { panic!("{name}: {reply:?}") };
        assert_eq!(class, expected, "{name}");
        assert!(message.contains(words), "{name}: {message}");
    }

    let slurm_limit = String::from_utf8(capture("slurm-22.05-slurmdbd/03-submit-limit").stderr).unwrap();
    let sge_limit = String::from_utf8(capture("sge-8.1.9/11-limit").stderr).unwrap();
    let policy = "Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)";
    for (system, raw, expected) in [
        (System::Slurm, said(1, "", &slurm_limit), Limit),
        (
            System::Slurm,
            said(1, "", &format!("sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: {policy}\n")),
            Limit,
        ),
        (System::Slurm, said(1, "", &format!("sbatch: error: {policy}\n")), Limit),
        (
            System::Slurm,
            said(1, "", &format!("sbatch: error: QOSMaxWallDurationPerJobLimit\nsbatch: error: {policy}\n")),
            Permanent,
        ),
        (System::Slurm, said(127, "", "sh: 1: sbatch: not found\n"), Permanent),
        (System::GridEngine, said(25, "", &sge_limit), Limit),
        (fork(), said(1, "", "error: cannot write the note\n"), Permanent),
        // Whatever leaves it open whether it was queued.
        (System::Slurm, said(1, "", ""), Transient),
        (System::Slurm, said(0, "", ""), Transient),
        (System::Slurm, said(0, "no number\n", ""), Transient),
        (System::Slurm, said(1, "4711\n", "srun: error: something after it\n"), Transient),
        (System::Slurm, RawOutput { timed_out: true, ..said(0, "4711\n", "") }, Transient),
        (
            System::Slurm,
            RawOutput { code: None, ..said(0, "", "sbatch: error: Invalid partition name specified") },
            Transient,
        ),
        (System::GridEngine, RawOutput { timed_out: true, code: None, ..said(0, "", "") }, Transient),
        (fork(), said(0, "4711\n", ""), Transient),
    ] {
        let reply = system.parse_submit(&raw);
        let SubmitReply::Rejected { message, class } = reply else { panic!("{raw:?}: {reply:?}") };
        assert_eq!(class, expected, "{message}");
        assert!(!message.is_empty());
    }
}

#[test]
fn hints_name_what_to_look_at() {
    let hint = |system: System, name: &str| {
        let SubmitReply::Rejected { message, .. } = system.parse_submit(&capture(name).raw()) else { panic!("{name}") };
        system.hint(&message)
    };
    assert!(hint(System::Slurm, "slurm-22.05/20-err-partition").unwrap().contains("sinfo -s"));
    assert!(hint(System::Slurm, "slurm-22.05-slurmdbd/02-badaccount").unwrap().contains("account"));
    assert!(hint(System::GridEngine, "sge-8.1.9/10-err-pe").unwrap().contains("-pe NAME SLOTS"));
    assert!(hint(System::GridEngine, "sge-8.1.9/03-qsub-verify").unwrap().contains("walltime"));
    assert_eq!(hint(System::Slurm, "slurm-22.05/41-hung-sbatch"), None);
}

#[test]
fn slurm_status() {
    let listing = capture("slurm-22.05/50-squeue-ours");
    let ours = System::Slurm.parse_status("vo-5eed-", &listing.raw()).unwrap();
    assert_eq!(
        rows(&ours),
        [
            ("15", "vo-5eed-4", "ended with exit code 0".to_owned(), 0),
            ("16", "vo-5eed-5", "failed: FAILED (NonZeroExitCode)".to_owned(), 0),
            ("18", "vo-5eed-7", "pending (BeginTime)".to_owned(), 1),
            ("21", "vo-5eed-9", "pending (Resources)".to_owned(), 0),
            ("23", "vo-5eed-10", "held (JobHeldUser)".to_owned(), 0),
            ("13", "vo-5eed-2", "held (JobHeldUser)".to_owned(), 0),
            ("12", "vo-5eed-1", "running".to_owned(), 0),
            ("17", "vo-5eed-6", "running".to_owned(), 0),
            ("14", "vo-5eed-3", "held (PartitionTimeLimit)".to_owned(), 0),
        ]
    );
    assert_eq!(ours[0].raw, "15|vo|COMPLETED|0|None|vo-5eed-4");
    let before = System::Slurm.parse_status("vo-s", &listing.raw()).unwrap();
    assert_eq!(before[0].status, Status::Cancelled);
    assert_eq!(System::Slurm.parse_status("vo-x", &listing.raw()), Ok(vec![]));
    assert_eq!(System::Slurm.parse_status("vo-", &capture("slurm-22.05/50-squeue-ours-empty").raw()), Ok(vec![]));
}

const SQUEUE: &str = "JOBID|vo|STATE|RESTART_COUNT|REASON|NAME\n";

#[test]
fn slurm_status_words() {
    for (words, expected) in [
        ("PENDING|0|None", "pending"),
        ("PD|0|Priority", "pending (Priority)"),
        ("PENDING|0|AssocMaxJobsLimit", "pending (AssocMaxJobsLimit)"),
        ("PENDING|0|job requeued in held state", "held (job requeued in held state)"),
        ("PENDING|0|PartitionConfig", "held (PartitionConfig)"),
        ("PENDING|0|DependencyNeverSatisfied", "held (DependencyNeverSatisfied)"),
        ("SPECIAL_EXIT|0|job requeued in held state", "held (job requeued in held state)"),
        ("CONFIGURING|0|None", "running"),
        ("S|0|None", "suspended"),
        ("CG|0|None", "ending"),
        ("COMPLETING|3|None", "ending"),
        ("NODE_FAIL|0|NodeDown", "failed: NODE_FAIL (NodeDown)"),
        ("TIMEOUT|0|TimeLimit", "failed: TIMEOUT (TimeLimit)"),
        ("OUT_OF_MEMORY|0|OutOfMemory", "failed: OUT_OF_MEMORY (OutOfMemory)"),
        ("PREEMPTED|0|None", "preempted"),
        ("CANCELLED|0|None", "cancelled"),
        ("EXPEDITING|0|None", "unknown state \"EXPEDITING\""),
        ("|0|", "unknown state \"\""),
    ] {
        let listing = format!("{SQUEUE}7|vo|{words}|vo-1\n");
        let rows = System::Slurm.parse_status("vo-", &said(0, &listing, "")).unwrap();
        assert_eq!(rows[0].status.to_string(), expected, "{words}");
    }
}

#[test]
fn no_answer_is_not_an_answer() {
    for (system, name) in [
        (System::Slurm, "slurm-22.05/40-munge-squeue"),
        (System::Slurm, "slurm-22.05/41-hung-squeue"),
        (System::Slurm, "slurm-22.05/42-down-squeue"),
        (System::Slurm, "slurm-22.05/43-conf-missing"),
        (System::Slurm, "slurm-22.05/50-squeue-ours-nouser"),
        (System::GridEngine, "sge-8.1.9/20-hung-qstat"),
        (System::GridEngine, "sge-8.1.9/21-down-qstat-xml"),
    ] {
        let error = system.parse_status("vo-", &capture(name).raw()).unwrap_err();
        assert!(matches!(error, StatusError::Failed { .. }), "{name}: {error}");
        assert!(error.is_transient());
    }
    let listing = String::from_utf8(capture("slurm-22.05/50-squeue-ours").stdout).unwrap();
    let xml = String::from_utf8(capture("sge-8.1.9/50-qstat-ours").stdout).unwrap();
    let cut = |text: &str| text[..text.len() * 2 / 3].to_owned();
    for (system, stdout) in [
        (System::Slurm, String::new()),
        (System::Slurm, "slurm_load_jobs error: Socket timed out on send/recv operation\n".to_owned()),
        (System::Slurm, String::from_utf8(capture("slurm-22.05/50-squeue-badfield").stdout).unwrap()),
        (System::Slurm, cut(&listing)),
        (System::Slurm, format!("{SQUEUE}no row at all\n")),
        (System::Slurm, format!("{SQUEUE}7|vo|RUNNING|0|None|vo-1\nthe rest of no name of ours\n")),
        (System::Slurm, format!("{SQUEUE}7|vo|RUNNING|many|None|vo-1\n")),
        (System::Slurm, format!("{SQUEUE}7|vo|RUNNING|0\n")),
        (System::Slurm, SQUEUE.trim_end().to_owned()),
        (System::GridEngine, String::new()),
        (System::GridEngine, "<?xml version='1.0'?>\n".to_owned()),
        (System::GridEngine, cut(&xml)),
        (System::GridEngine, xml.replace("<JB_name>", "<JB_title>")),
        (System::GridEngine, xml.replacen("</job_list>", "", 3).replace("</job_list>", "")),
        (fork(), String::new()),
        (fork(), "812.99120\tvo-1\trunning\t-\n".to_owned()),
        (fork(), "812\tvo-1\trunning\t-\nend\n".to_owned()),
        (fork(), "812.99120\tvo-1\trunning\nend\n".to_owned()),
        (fork(), "812.99120\tvo-1\tdone\tx\nend\n".to_owned()),
    ] {
        let read = system.parse_status("vo-", &said(0, &stdout, ""));
        assert!(matches!(read, Err(StatusError::Garbled(_))), "{stdout:?}: {read:?}");
    }
    let late = RawOutput { timed_out: true, ..said(0, SQUEUE, "") };
    assert_eq!(System::Slurm.parse_status("vo-", &late), Err(StatusError::TimedOut));
    let killed = RawOutput { code: None, ..said(0, SQUEUE, "") };
    assert!(matches!(System::Slurm.parse_status("vo-", &killed), Err(StatusError::Failed { code: None, .. })));
}

#[test]
fn names_and_banners_of_others_do_no_harm() {
    let listing = format!(
        "Maintenance on Monday | vo-\n{SQUEUE}8|vo|PENDING|0|None|a|b\nvo-9|vo|x\n\nc\n9|vo|RUNNING|0|None|vo-9\n10|vo|RUNNING|0|None|\u{fffd}\n"
    );
    let mut bytes = listing.into_bytes();
    bytes.extend(b"11|vo|RUNNING|0|None|\xff\xfe\n");
    let raw = RawOutput { stdout: &bytes, ..said(0, "", "squeue: warning: old client\n") };
    assert_eq!(rows(&System::Slurm.parse_status("vo-", &raw).unwrap()), [("9", "vo-9", "running".to_owned(), 0)]);
}

#[test]
fn grid_engine_status() {
    let listing = capture("sge-8.1.9/50-qstat-ours");
    assert_eq!(
        rows(&System::GridEngine.parse_status("vo-5eed-", &listing.raw()).unwrap()),
        [
            ("21", "vo-5eed-1", "running".to_owned(), 0),
            ("26", "vo-5eed-6", "running".to_owned(), 0),
            ("24", "vo-5eed-4", "pending".to_owned(), 0),
            ("23", "vo-5eed-3", "held (error state Eqw)".to_owned(), 0),
            ("22", "vo-5eed-2", "held (hold hqw)".to_owned(), 0),
        ]
    );
    for name in ["sge-8.1.9/02-qstat-empty-xml", "sge-8.1.9/50-qstat-ours-nouser"] {
        assert_eq!(System::GridEngine.parse_status("vo-", &capture(name).raw()), Ok(vec![]), "{name}");
    }
    let ended = System::GridEngine.parse_status("stdin", &capture("sge-8.1.9/09-qstat-z-xml").raw()).unwrap();
    assert_eq!(rows(&ended), [("3", "stdin", "ended".to_owned(), 0)]);
    let long = System::GridEngine.parse_status("pilot_one_long", &capture("sge-8.1.9/05-qstat-xml").raw()).unwrap();
    assert_eq!(long[0].name, "pilot_one_long_name");
}

#[test]
fn grid_engine_states_and_entities() {
    for (state, expected, restarts) in [
        ("dr", "ending", 0),
        ("dt", "ending", 0),
        ("t", "running", 0),
        ("Rr", "running", 1),
        ("Rq", "pending", 1),
        ("hRwq", "held (hold hRwq)", 1),
        ("s", "suspended", 0),
        ("S", "suspended", 0),
        ("tsT", "suspended", 0),
        ("EhRqw", "held (error state EhRqw)", 1),
        ("x?", "unknown state \"x?\"", 0),
        ("", "unknown state \"\"", 0),
    ] {
        let xml = format!(
            "<?xml version='1.0'?>\n<job_info><job_list state=\"x\"><JB_job_number>7</JB_job_number>\
             <JB_name>vo-&lt;a&gt;&amp;&quot;&#65;&#x42;&apos;</JB_name><state>{state}</state></job_list></job_info>\n"
        );
        let row = System::GridEngine.parse_status("vo-", &said(0, &xml, "")).unwrap().remove(0);
        assert_eq!(
            (row.name.as_str(), row.status.to_string().as_str(), row.restarts),
            ("vo-<a>&\"AB'", expected, restarts)
        );
    }
}

#[test]
fn fork_status() {
    let listing = "812.99120\tvo-1\trunning\t-\n813.1\tother\tdone\t0\n814.2\tvo-2\tdone\t7\n815.3\tvo-3\tdone\ts9\n\
                   816.4\tvo-4\tdone\t-\n817.5\tvo-5\tdreaming\t-\nend\n";
    assert_eq!(
        rows(&fork().parse_status("vo-", &said(0, listing, "")).unwrap()),
        [
            ("812.99120", "vo-1", "running".to_owned(), 0),
            ("814.2", "vo-2", "ended with exit code 7".to_owned(), 0),
            ("815.3", "vo-3", "ended by signal 9".to_owned(), 0),
            ("816.4", "vo-4", "ended".to_owned(), 0),
            ("817.5", "vo-5", "unknown state \"dreaming\"".to_owned(), 0),
        ]
    );
    assert_eq!(fork().parse_status("vo-", &said(0, "end\n", "")), Ok(vec![]));
}

#[test]
fn accounting() {
    for name in ["slurm-22.05/12-sacct", "slurm-24.11/03-sacct", "slurm-22.05/53-sacct-ours"] {
        let read = System::Slurm.parse_accounting("vo-", &capture(name).raw());
        assert_eq!(read, Err(StatusError::Disabled), "{name}");
    }
    let down = System::Slurm.parse_accounting("vo-", &capture("slurm-22.05-slurmdbd/10-dbd-down-sacct").raw());
    assert!(matches!(down, Err(StatusError::Failed { code: Some(1), .. })));

    let listing = "JobIDRaw|State|ExitCode|JobName\n1|CANCELLED by 5001|0:0|vo-1\n2|COMPLETED|0:0|vo-2\n3|FAILED|7:0|vo-3\n\
                   4|FAILED|0:11|vo-4\n5|NODE_FAIL|0:0|vo-5\n5|RUNNING|0:0|vo-5\n6|TIMEOUT|0:0|vo-6\n7|FAILED|1:0|a|b\nc\n8.batch|FAILED|1:0|vo-8\n";
    assert_eq!(
        rows(&System::Slurm.parse_accounting("vo-", &said(0, listing, "")).unwrap()),
        [
            ("1", "vo-1", "cancelled".to_owned(), 0),
            ("2", "vo-2", "ended with exit code 0".to_owned(), 0),
            ("3", "vo-3", "ended with exit code 7".to_owned(), 0),
            ("4", "vo-4", "ended by signal 11".to_owned(), 0),
            ("5", "vo-5", "running".to_owned(), 1),
            ("6", "vo-6", "failed: TIMEOUT".to_owned(), 0),
        ]
    );

    let qacct = |prefix: &str, name: &str| System::GridEngine.parse_accounting(prefix, &capture(name).raw());
    assert_eq!(
        rows(&qacct("vo-5eed-", "sge-8.1.9/52-qacct-ours").unwrap()),
        [
            ("28", "vo-5eed-7", "ended with exit code 7".to_owned(), 0),
            ("29", "vo-5eed-8", "ended by signal 11".to_owned(), 0),
            ("25", "vo-5eed-5", "ended by signal 12".to_owned(), 0)
        ]
    );
    assert_eq!(qacct("vo-zz", "sge-8.1.9/52-qacct-ours-none"), Ok(vec![]));
    // A record a task, in the order of their ends.
    let parallel = qacct("mn", "sge-8.1.9/13-qacct").unwrap();
    assert_eq!(rows(&parallel), [("56", "mn", "ended with exit code 0".to_owned(), 0)]);
    let all = Capture { code: 0, ..capture("sge-8.1.9/12-qacct-all") };
    assert_eq!(
        rows(&System::GridEngine.parse_accounting("", &all.raw()).unwrap())[..3],
        [
            ("50", "hrt", "failed: 37  : qmaster enforced h_rt, h_cpu, or h_vmem limit".to_owned(), 0),
            ("52", "ntf", "ended by signal 9".to_owned(), 0),
            ("53", "fail7", "ended with exit code 7".to_owned(), 0),
        ]
    );
    let fresh = said(
        1,
        "",
        "no jobs running since startup\n/var/lib/gridengine/default/common/accounting: No such file or directory\n",
    );
    assert_eq!(System::GridEngine.parse_accounting("vo-", &fresh), Err(StatusError::Disabled));
    assert!(matches!(System::GridEngine.parse_accounting("vo-", &said(0, "", "")), Err(StatusError::Garbled(_))));
    assert_eq!(fork().parse_accounting("vo-", &said(0, "", "")), Err(StatusError::Disabled));
}

#[test]
fn cancels() {
    let refused = |system: System, name: &str| match system.parse_cancel(&capture(name).raw()) {
        CancelReply::Refused { message, class } => (message, class),
        CancelReply::Accepted => panic!("{name} accepted"),
    };
    for name in ["slurm-22.05/14-scancel-bad", "slurm-22.05/14-scancel-bad-v", "slurm-22.05/51-scancel-mixed"] {
        assert_eq!(System::Slurm.parse_cancel(&capture(name).raw()), CancelReply::Accepted, "{name}");
    }
    assert_eq!(refused(System::Slurm, "slurm-22.05/14-scancel-other").1, Class::Permanent);
    assert_eq!(refused(System::Slurm, "slurm-22.05/51-scancel-mixed-foreign").1, Class::Permanent);
    assert_eq!(refused(System::Slurm, "slurm-22.05/14-scancel-malformed").1, Class::Permanent);
    assert_eq!(refused(System::Slurm, "slurm-22.05/40-munge-scancel").1, Class::Transient);
    assert_eq!(refused(System::Slurm, "slurm-22.05/42-down-scancel").1, Class::Transient);
    let gone = "scancel: error: Kill job error on job id 1: Job/step already completing or completed\n";
    assert_eq!(System::Slurm.parse_cancel(&said(1, "", gone)), CancelReply::Accepted);
    assert!(matches!(
        System::Slurm.parse_cancel(&RawOutput { timed_out: true, code: None, ..said(0, "", gone) }),
        CancelReply::Refused { class: Class::Transient, .. }
    ));

    for name in ["09-qdel-pending", "09-qdel-running", "08-qdel-bad", "51-qdel-mixed", "14-qdel-f"] {
        let name = format!("sge-8.1.9/{name}");
        assert_eq!(System::GridEngine.parse_cancel(&capture(&name).raw()), CancelReply::Accepted, "{name}");
    }
    let (message, class) = refused(System::GridEngine, "sge-8.1.9/08-qdel-other");
    assert_eq!(class, Class::Permanent);
    assert!(message.contains("do not have the necessary privileges"));
    assert_eq!(refused(System::GridEngine, "sge-8.1.9/21-down-qdel").1, Class::Transient);
    assert_eq!(fork().parse_cancel(&said(0, "", "")), CancelReply::Accepted);
}

#[test]
fn many_ids_take_several_calls() {
    let ids: Vec<BatchId> = (0..2500).map(|id| BatchId(id.to_string())).collect();
    let calls = System::GridEngine.cancel(&ids);
    assert_eq!(calls.iter().map(Vec::len).collect::<Vec<_>>(), [1001, 1001, 501]);
    assert_eq!(calls[2][..2], ["qdel", "2000"]);
    assert!(System::Slurm.cancel(&[]).is_empty());
    assert_eq!(fork().cancel(&ids[..1]), [["/opt/vo-agent", "fork", "cancel", "--dir", "/home/me/fork", "0"]]);
    assert_eq!(System::GridEngine.cancel_by_hand(&ids[..2]), "qdel -f 0 1");
}

#[test]
fn detection() {
    let found = |raw: RawOutput<'_>| Detected::parse(&raw).unwrap();
    let slurm = found(capture("slurm-22.05/60-probe").raw());
    assert_eq!((slurm.systems[0].kind, slurm.systems[0].version.as_str()), (Kind::Slurm, "22.05.8"));
    let sge = found(capture("sge-8.1.9/60-probe").raw());
    assert_eq!((sge.systems[0].kind, sge.systems[0].version.as_str()), (Kind::GridEngine, "SGE 8.1.9"));
    assert_eq!(sge.choose(), Ok(Kind::GridEngine));
    let both = found(said(0, "motd\nvo-batch sge SGE 8.1.9\nvo-batch slurm 24.11.5\nvo-batch end\n", ""));
    assert_eq!((both.systems.len(), both.choose()), (2, Ok(Kind::Slurm)));
    let pbs = found(said(0, "vo-batch PBS 23.06.06\nvo-batch LSF \nvo-batch end\n", ""));
    let none = pbs.choose().unwrap_err();
    assert_eq!(none, NoBatchSystem { others: vec!["PBS 23.06.06".into(), "LSF".into()] });
    assert_eq!(
        none.to_string(),
        "no batch system that we know is on the PATH, and these are not supported: PBS 23.06.06, LSF"
    );
    assert!(Detected::parse(&said(0, "vo-batch slurm 22.05.8\n", "")).is_err());
    assert!(Detected::parse(&said(1, "vo-batch end\n", "")).is_err());
}

proptest! {
    /// Whatever a command prints, reading it ends in a value.
    #[test]
    fn nothing_panics(
        name in prop::sample::select(vec![
            "slurm-22.05/50-squeue-ours", "sge-8.1.9/50-qstat-ours", "sge-8.1.9/52-qacct-ours", "slurm-22.05/03-sbatch-parsable",
        ]),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<Vec<u8>>()), 0..8),
        stderr in any::<Vec<u8>>(),
        code in prop::option::of(any::<i32>()),
    ) {
        let mut stdout = capture(name).stdout;
        for (from, to, bytes) in edits {
            let (from, to) = (from.index(stdout.len() + 1), to.index(stdout.len() + 1));
            stdout.splice(from.min(to)..from.max(to).min(from.min(to) + 40), bytes);
        }
        for code in [code, Some(0)] {
            let raw = RawOutput { code, stdout: &stdout, stderr: &stderr, timed_out: false };
            for system in [System::Slurm, System::GridEngine, fork()] {
                let _ = system.parse_submit(&raw);
                let _ = system.parse_status("vo-", &raw);
                let _ = system.parse_accounting("", &raw);
                let _ = system.parse_cancel(&raw);
            }
            let _ = Detected::parse(&raw);
        }
    }

    /// A listing that was cut anywhere is no answer.
    #[test]
    fn cut_listings_are_errors_or_say_less_by_whole_rows(at in any::<prop::sample::Index>()) {
        let listing = capture("slurm-22.05/50-squeue-ours").stdout;
        let at = at.index(listing.len());
        let raw = RawOutput { code: Some(0), stdout: &listing[..at], stderr: b"", timed_out: false };
        let whole = System::Slurm.parse_status("vo-", &RawOutput { stdout: &listing, ..raw }).unwrap();
        if let Ok(rows) = System::Slurm.parse_status("vo-", &raw) {
            prop_assert_eq!(&rows[..], &whole[..rows.len()]);
            prop_assert_eq!(listing[at - 1], b'\n');
        }
        let xml = capture("sge-8.1.9/50-qstat-ours").stdout;
        let raw = RawOutput { stdout: &xml[..at.min(xml.len() - 2)], ..raw };
        prop_assert!(System::GridEngine.parse_status("vo-", &raw).is_err());
    }
}

//! What the event logs are told.

use super::*;
use crate::template::Piece;

/// The notes in one line.
fn noted(actions: &[Action]) -> String {
    let show = |action: &Action| match action {
        Action::Note { job, note, .. } => Some(match note {
            Note::Submitted { jobs } => format!("{job}+{} submitted", jobs.count()),
            Note::Executing { host, .. } => format!("{job} runs at {host}"),
            Note::Disconnected { host, why, .. } => format!("{job} lost at {host}: {why}"),
            Note::Reconnected { host, .. } => format!("{job} found at {host}"),
            Note::ReconnectFailed { host, why, .. } => format!("{job} given up at {host}: {why}"),
            Note::Terminated { usage, .. } => format!("{job} ended, {} bytes", usage.sent_bytes),
            Note::Moved { files, host } => format!("{job} {files:?} {host}"),
            note => format!("{job} {note:?}"),
        }),
        _ => None,
    };
    actions.iter().filter_map(show).collect::<Vec<_>>().join("; ")
}

fn bench() -> Bench {
    let mut bench =
        Bench::with_jobs(vec![GroupRecord { log: Some(Template::constant("log")), ..group(3, program(1)) }]);
    bench.join(2);
    let ids = vec![attempt(0, 1), attempt(1, 1)];
    assert_eq!(noted(&bench.tell(Event::AttemptsStarted { key: KEY, ids })), "1.0 runs at node1; 1.1 runs at node1");
    bench
}

#[test]
fn what_runs_where_a_starter_is_silent_is_told_as_lost_and_found() {
    let mut bench = bench();
    let silent = || Event::StarterSilent { key: KEY, why: "cut".into() };
    assert_eq!(noted(&bench.tell(silent())), "1.0 lost at node1: cut; 1.1 lost at node1: cut");
    assert_eq!(noted(&bench.tell(silent())), "", "once");
    bench.tell(Event::StarterJoined { key: KEY, offer: offer(2), time_left: None });
    // One ended meanwhile.
    let told = bench.inventory(KEY, &[], &[attempt(1, 1)], &[attempt(0, 1)]);
    assert_eq!(noted(&told), "1.0 found at node1; 1.1 found at node1");
    assert_eq!(noted(&bench.inventory(KEY, &[], &[attempt(1, 1)], &[attempt(0, 1)])), "", "once");
    assert_eq!(noted(&bench.end(KEY, attempt(0, 1), Outcome::Exited(0))), "1.0 ended, 0 bytes");
}

#[test]
fn what_was_lost_with_its_starter_is_given_up_and_a_crash_changes_nothing_of_it() {
    let mut bench = bench();
    bench.tell(Event::StarterSilent { key: KEY, why: "cut".into() });
    let told = bench.tell(Event::StarterGone { key: KEY, why: "its lease has passed".into() });
    let expected = "1.0 given up at node1: its lease has passed; 1.1 given up at node1: its lease has passed";
    assert_eq!(noted(&told), expected);
    // The same follows from the records alone.
    let mut pool = Pool::new();
    let mut notes = Vec::new();
    for record in &bench.log {
        pool.apply(record);
        notes.extend(pool.notes(record));
    }
    assert_eq!(noted(&notes), format!("1.0+3 submitted; {expected}"));
}

#[test]
fn what_a_starter_that_answers_fails_is_evicted() {
    let mut bench = bench();
    let told = bench.tell(Event::StarterGone { key: KEY, why: "killed".into() });
    assert!(noted(&told).starts_with("1.0 Evicted { why: \"killed\" }"), "{told:?}");
}

#[test]
fn what_files_move_is_told_with_its_times() {
    let mut bench = bench();
    let times = |actions: &[Action]| -> Vec<u64> {
        let at = |action: &Action| if let Action::Note { at, .. } = action { Some(at.0) } else { None };
        actions.iter().filter_map(at).collect()
    };
    let moved = vec![(attempt(1, 1), Some(Time(5)), Some(Time(9))), (attempt(0, 2), Some(Time(5)), None)];
    let told = bench.tell(Event::InputsMoved { key: KEY, moved });
    assert_eq!(noted(&told), "1.1 InputsBegan node1; 1.1 InputsCame node1", "of the attempt that is out");
    assert_eq!(times(&told), [5, 9]);
    let told = bench.tell(Event::InputsMoved { key: KEY, moved: vec![(attempt(0, 1), None, Some(Time(7)))] });
    assert_eq!(noted(&told), "1.0 InputsCame node1");
    // What comes with outputs has a beginning and an end at home.
    let output = Output { kind: OutputKind::Stdout, size: 5, hash: [0; 32], mode: 0o644, inline: None };
    let result = AttemptResult { outputs: vec![output], ..result(attempt(0, 1), Outcome::Exited(0)) };
    let ended = |result: &AttemptResult| Event::AttemptEnded { key: KEY, result: result.clone() };
    assert_eq!(noted(&bench.tell(ended(&result))), "1.0 OutputsBegan node1");
    assert_eq!(noted(&bench.tell(ended(&result))), "", "the starter repeats itself");
    let told = bench.tell(Event::OutputsStored { key: KEY, result });
    assert_eq!(noted(&told), "1.0 OutputsCame node1; 1.0 ended, 5 bytes");
    assert_eq!(noted(&bench.end(KEY, attempt(1, 1), Outcome::Exited(0))), "1.1 ended, 0 bytes", "nothing came");
}

#[test]
fn a_late_cluster_is_told_of_as_a_whole_once() {
    let log_terms = LogTerms { late: Some(2), ..LogTerms::default() };
    let group = GroupRecord { log: Some(Template::constant("log")), log_terms, ..group(4, program(1)) };
    let mut bench = Bench::with_jobs(vec![group]);
    bench.join(4);
    bench.tell(Event::AttemptsStarted { key: KEY, ids: (0..4).map(|proc| attempt(proc, 1)).collect() });
    for proc in [0, 1] {
        let told = bench.end(KEY, attempt(proc, 1), Outcome::Exited(0));
        assert_eq!(noted(&told), format!("1.{proc} ended, 0 bytes"));
    }
    let one = Select { jobs: [attempt(3, 1).job].into(), ..Select::default() };
    let all = || Select { clusters: [1].into(), ..Select::default() };
    let held = bench.tell(Event::HoldAsked { select: one, why: "me".into() });
    assert!(!noted(&held).contains("ClusterOver"), "{held:?}");
    bench.end(KEY, attempt(2, 1), Outcome::Exited(0));
    let told = bench.tell(Event::RemovalAsked { select: all() });
    let over = "1.3 Removed { why: None }; 1.0 ClusterOver { jobs: 4, items: 2 }";
    assert_eq!(noted(&told), over);
    assert_eq!(noted(&bench.tell(Event::RemovalAsked { select: all() })), "", "once");
    // The same follows from the records alone.
    let (mut pool, mut notes) = (Pool::new(), Vec::new());
    for record in &bench.log {
        pool.apply(record);
        notes.extend(pool.notes(record));
    }
    let noted = noted(&notes);
    assert!(noted.starts_with("1.0 ClusterSubmitted; 1.0+4 submitted; 1.0 ended") && noted.ends_with(over), "{noted}");
    assert_eq!(noted.matches("ClusterOver").count(), 1);
}

#[test]
fn jobs_that_ask_for_mails_are_told_of_without_a_log() {
    let to = Some(Template(vec![Piece::Text(b"ann".to_vec()), Piece::Process]));
    let mail = Some(Mail { told: Told::Ends, to, attributes: Vec::new() });
    let log_terms = LogTerms { mail, ..LogTerms::default() };
    let mut bench = Bench::with_jobs(vec![GroupRecord { log_terms, ..group(3, program(1)) }]);
    assert!(!bench.pool.is_at_rest(1));
    bench.join(2);
    let told = bench.end(KEY, attempt(0, 1), Outcome::Exited(3));
    let note = told.iter().find_map(|action| match action {
        Action::Note { job, log, terms, .. } => Some((*job, log.clone(), terms.mail.clone())),
        _ => None,
    });
    let (job, log, mail) = note.unwrap();
    assert_eq!((job, log, mail.map(|mail| mail.told)), (attempt(0, 1).job, None, Some(Told::Ends)));
    bench.end(KEY, attempt(1, 1), Outcome::Exited(0));
    assert!(!bench.pool.is_at_rest(1));
    bench.end(KEY, attempt(2, 1), Outcome::Exited(0));
    assert!(bench.pool.is_at_rest(1));
}

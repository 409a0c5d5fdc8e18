//! What the event logs are told.

use super::*;

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

//! Jobs that wait for their time.

use core::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// Times in small words, as attributes in seconds: `at = N`; `after = N` the job became idle; `every = N`; `each = N` later for each process;
/// `window` and `prep`. `never` has no time; with `noop = N` jobs from the process N on are done at once, and the others may start at any time.
#[derive(Debug, Default)]
struct Clock {
    asked: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Hands {
    words: BTreeMap<String, u64>,
    asked: Arc<AtomicUsize>,
}

impl Judge for Clock {
    fn terms(&self, _: &Terms, _: &Program) -> Option<(String, Arc<dyn Match>)> {
        None
    }

    fn timing(&self, terms: &Terms, _: &Program) -> Option<Arc<dyn Timing>> {
        let words = terms.attributes.iter().map(|(name, value)| (name.clone(), value.parse().unwrap()));
        let hands = Hands { words: words.collect(), asked: Arc::clone(&self.asked) };
        (!terms.attributes.is_empty()).then(|| Arc::new(hands) as Arc<dyn Timing>)
    }
}

impl Timing for Hands {
    fn asks(&self, _: &JobView<'_>) -> Asks {
        if self.words.contains_key("each") { Asks::Itself } else { Asks::State }
    }

    fn when(&self, job: &JobView<'_>, now: Time) -> Result<When, Instead> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let word = |name: &str| self.words.get(name).copied();
        let (basis, window) = (job.at.max(job.submitted).0 / 1000, word("window").unwrap_or(0));
        let starts = match (word("at"), word("after"), word("every")) {
            (Some(at), ..) => at,
            (_, Some(after), _) => basis + after,
            (.., Some(every)) => {
                let later = (basis / every + 1..).map(|n| n * every);
                later.into_iter().find(|at| (at + window) * 1000 >= now.0).unwrap()
            }
            _ if word("noop").is_some_and(|first| first > u64::from(job.id.proc)) => return Ok(When::ANY),
            _ if word("noop").is_some() => return Err(Instead::Done(End::Exited(3))),
            _ => {
                let hold = Hold { why: "it has no time".into(), code: 20, subcode: 0 };
                return Err(Instead::Held(hold));
            }
        };
        let starts = starts + word("each").unwrap_or(0) * u64::from(job.id.proc);
        let [opens, closes] = [starts - word("prep").unwrap_or(0), starts + window];
        Ok(When { opens: Time(opens * 1000), starts: Time(starts * 1000), closes: Time(closes * 1000) })
    }
}

fn timed(count: u32, words: &[(&str, u64)]) -> GroupRecord {
    let attributes = words.iter().map(|(name, value)| ((*name).to_owned(), value.to_string())).collect();
    GroupRecord { terms: Terms { attributes, ..Terms::default() }, ..group(count, program(1)) }
}

/// A bench with a starter of these CPUs, and how often times were asked for.
fn bench(cpus: u32) -> (Bench, Arc<AtomicUsize>) {
    let clock = Clock::default();
    let asked = Arc::clone(&clock.asked);
    let mut bench = Bench { pool: Pool::with_judge(Arc::new(clock)), ..Bench::default() };
    bench.join(cpus);
    (bench, asked)
}

impl Bench {
    /// Submits at a second, and what is done then.
    fn submit_at(&mut self, second: u64, groups: Vec<GroupRecord>) -> String {
        self.now = Time(second * 1000);
        self.pool.submit(self.now, "test".into(), groups);
        told(&self.drain())
    }

    /// What is done when the time of the pool's deadline comes, and when that is in seconds.
    fn wake(&mut self) -> (u64, String) {
        self.now = self.pool.deadline().unwrap();
        let done = told(&self.tell(Event::TimePassed));
        (self.now.0 / 1000, done)
    }

    /// The starter is back, with what it has queued.
    fn back(&mut self, cpus: u32, queued: &[AttemptId]) {
        self.tell(Event::StarterJoined { key: KEY, offer: offer(cpus), time_left: None });
        self.inventory(KEY, queued, &[], &[]);
    }

    fn later(&self) -> (u32, u32) {
        let counts = self.pool.counts(&Select::default());
        (counts.idle, counts.later)
    }

    fn reason(&self, proc: u32) -> (u16, String) {
        let view = self.pool.view(attempt(proc, 1).job).unwrap();
        (view.code.0, view.reason.unwrap_or_default().to_owned())
    }

    /// Started and ended with exit code 1, with the site or the program at fault.
    fn start_and_end(&mut self, id: AttemptId, outcome: Outcome) -> String {
        self.tell(Event::AttemptsStarted { key: KEY, ids: vec![id] });
        told(&self.end(KEY, id, outcome))
    }
}

#[test]
fn a_job_takes_a_slot_when_its_time_comes_and_knows_when_to_start() {
    let (mut bench, asked) = bench(2);
    assert_eq!(
        bench.submit_at(10, vec![timed(1000, &[("at", 100), ("prep", 20)]), group(1, program(1))]),
        "7: run 1.1000#1"
    );
    assert_eq!((bench.later(), bench.pool.demand_cpus()), ((1001, 1000), 1));
    // All of them wait as one.
    assert!(asked.load(Ordering::Relaxed) <= 2, "{asked:?}");
    bench.refold();
    assert_eq!(bench.later(), (1001, 1000));
    bench.back(2, &[attempt(1000, 1)]);
    bench.now = Time(79_999);
    assert_eq!(told(&bench.tell(Event::TimePassed)), "");
    assert_eq!(bench.pool.deadline(), Some(Time(80_000)));
    bench.now = Time(80_000);
    let actions = bench.tell(Event::TimePassed);
    // A slot and a backlog.
    assert_eq!(told(&actions), "7: run 1.0#1; 7: run 1.1#1 1.2#1");
    let due = When { opens: Time(80_000), starts: Time(100_000), closes: Time(100_000) };
    for action in &actions {
        let Action::Assign { attempts, .. } = action else { panic!("{action:?}") };
        assert!(attempts.iter().all(|each| each.when == Some(due)), "{action:?}");
    }
    assert_eq!((bench.later(), bench.pool.demand_cpus()), ((1001, 0), 1001));
}

#[test]
fn what_could_not_start_in_time_is_held() {
    let (mut bench, _) = bench(1);
    bench.submit_at(10, vec![group(5, program(1)), timed(3, &[("at", 100), ("window", 5)])]);
    assert_eq!(bench.wake(), (100, String::new()));
    assert_eq!(bench.pool.deadline(), Some(Time(105_001)));
    bench.refold();
    bench.back(1, &[attempt(0, 1), attempt(1, 1)]);
    assert_eq!((bench.now, bench.later()), (Time(100_000), (8, 0)));
    assert_eq!(bench.wake(), (105, String::new()));
    for proc in 5..8 {
        assert_eq!(bench.state(proc), JobState::Held);
        assert_eq!(bench.reason(proc), (20, "Job missed deferred execution time".to_owned()));
    }
    assert_eq!(bench.pool.deadline(), None);
    // Released, its time is over still.
    bench.tell(Event::ReleaseAsked { select: Select { jobs: [attempt(5, 1).job].into(), ..Select::default() } });
    assert_eq!(bench.reason(5).0, 20);
    bench.refold();
    assert_eq!(bench.state(5), JobState::Held);
    // As is that of one that is submitted now, and of one that never has any.
    bench.pool.submit(bench.now, "t".into(), vec![timed(1, &[("at", 50)]), timed(1, &[("never", 0)])]);
    bench.drain();
    let why = |proc| bench.pool.view(JobId { cluster: 2, proc }).unwrap().reason.unwrap().to_owned();
    assert_eq!([why(0), why(1)], ["Job missed deferred execution time", "it has no time"]);
}

#[test]
fn what_its_starter_could_not_start_in_time_is_held() {
    let (mut bench, _) = bench(1);
    bench.submit_at(10, vec![timed(2, &[("at", 20)])]);
    assert_eq!(bench.wake(), (20, "7: run 1.0#1; 7: run 1.1#1".to_owned()));
    assert_eq!(bench.start_and_end(attempt(0, 1), Outcome::Exited(0)), "7: forget 1.0#1");
    assert_eq!(told(&bench.end(KEY, attempt(1, 1), Outcome::Missed)), "7: forget 1.1#1");
    assert_eq!((bench.state(0), bench.reason(1).0), (JobState::Completed, 20));
    bench.refold();
}

#[test]
fn a_job_may_be_done_without_being_run() {
    let (mut bench, _) = bench(1);
    assert_eq!(bench.submit_at(10, vec![timed(1000, &[("noop", 0)])]), "");
    let counts = bench.pool.counts(&Select::default());
    assert_eq!((counts.completed, counts.failed, bench.pool.demand_cpus()), (1000, 1000, 0));
    let view = bench.pool.view(attempt(7, 0).job).unwrap();
    assert_eq!((view.end, view.attempts, view.starts(), view.site), (Some(End::Exited(3)), 0, 0, None));
    bench.refold();
    assert_eq!(bench.pool.counts(&Select::default()), counts);
    bench.back(1, &[]);
    // Some of them are run.
    assert_eq!(bench.submit_at(20, vec![timed(4, &[("noop", 2), ("each", 0)])]), "7: run 2.0#1; 7: run 2.1#1");
    assert_eq!(bench.pool.counts(&Select::default()).completed, 1002);
    assert_eq!(bench.pool.deadline(), None);
    // Held as it is submitted, it is done when it is released.
    let held = GroupRecord { held: true, ..timed(1, &[("noop", 0)]) };
    bench.submit_at(30, vec![held]);
    assert_eq!(bench.pool.counts(&Select::default()).held, 1);
    bench.tell(Event::ReleaseAsked { select: Select { clusters: [3].into(), ..Select::default() } });
    assert_eq!(bench.pool.counts(&Select::default()).completed, 1003);
    // As is one that was held since.
    let select = Select { clusters: [2].into(), ..Select::default() };
    bench.tell(Event::HoldAsked { select: select.clone(), why: "w".into() });
    bench.refold();
    assert_eq!(bench.pool.counts(&Select::default()).completed, 1003);
}

#[test]
fn each_job_may_have_its_own_time() {
    let (mut bench, asked) = bench(8);
    bench.submit_at(0, vec![timed(4, &[("at", 100), ("each", 10)])]);
    assert_eq!(asked.load(Ordering::Relaxed), 4);
    assert_eq!(bench.wake(), (100, "7: run 1.0#1".to_owned()));
    bench.tell(Event::RemovalAsked { select: Select { jobs: [attempt(1, 1).job].into(), ..Select::default() } });
    let select = Select { jobs: [attempt(2, 1).job].into(), ..Select::default() };
    bench.tell(Event::HoldAsked { select: select.clone(), why: "w".into() });
    bench.tell(Event::ReleaseAsked { select });
    bench.refold();
    bench.back(8, &[attempt(0, 1)]);
    assert_eq!(bench.later(), (3, 2));
    assert_eq!(bench.wake(), (110, String::new()));
    // What is left of the first one's time, and of the removed one's.
    let mut woken = bench.wake();
    while woken.1.is_empty() {
        woken = bench.wake();
    }
    assert_eq!(woken, (120, "7: run 1.2#1".to_owned()));
}

#[test]
fn a_job_that_missed_one_of_its_times_waits_for_the_next() {
    let (mut bench, _) = bench(1);
    bench.submit_at(10, vec![group(2, program(1)), timed(2, &[("every", 60), ("prep", 5), ("window", 3)])]);
    assert_eq!(bench.wake(), (55, String::new()));
    assert_eq!(bench.wake(), (63, String::new()));
    assert_eq!((bench.later(), bench.pool.deadline()), ((4, 2), Some(Time(115_000))));
    for proc in [0, 1] {
        bench.start_and_end(attempt(proc, 1), Outcome::Exited(0));
    }
    assert_eq!(bench.wake(), (115, "7: run 1.2#1; 7: run 1.3#1".to_owned()));
    // Failed by its site, it waits for the next one after that.
    bench.now = Time(130_000);
    bench.start_and_end(attempt(2, 1), Outcome::SiteFailed("lost".into()));
    assert_eq!(bench.later(), (2, 1));
    bench.refold();
    bench.back(1, &[attempt(3, 1)]);
    let mut woken = bench.wake();
    while woken.0 < 170 {
        woken = bench.wake();
    }
    assert_eq!(woken, (175, "7: run 1.2#2".to_owned()));
}

#[test]
fn edits_and_holds_leave_the_time_as_it_is() {
    let (mut bench, _) = bench(8);
    bench.submit_at(0, vec![timed(5, &[("at", 100)])]);
    let select =
        |procs: &[u32]| Select { jobs: procs.iter().map(|proc| attempt(*proc, 1).job).collect(), ..Select::default() };
    let edit = |priority| Edit { priority: Some(priority), ..Edit::default() };
    bench.tell(Event::EditAsked { select: select(&[1, 3]), edit: edit(5) });
    bench.tell(Event::EditAsked { select: Select::default(), edit: edit(7) });
    bench.tell(Event::HoldAsked { select: select(&[0, 1]), why: "w".into() });
    bench.refold();
    bench.back(8, &[]);
    assert_eq!((bench.later(), bench.pool.demand_cpus()), ((3, 3), 0));
    bench.tell(Event::ReleaseAsked { select: Select::default() });
    assert_eq!(bench.later(), (5, 5));
    assert_eq!(bench.wake(), (100, "7: run 1.0#1 1.2#1 1.4#1 1.1#1 1.3#1".to_owned()));
    assert_eq!(bench.later(), (5, 0));
}

#[test]
fn why_tells_what_time_is_waited_for() {
    let (mut bench, _) = bench(1);
    bench.submit_at(10, vec![timed(2, &[("at", 100), ("prep", 20), ("window", 5)])]);
    let job = |bench: &Bench, proc| bench.pool.explain(bench.now, attempt(proc, 1).job, &[]).unwrap();
    let present = job(&bench, 1);
    assert_eq!((present.state.as_str(), present.idle), ("idle", false));
    assert_eq!(present.next, ["its start, in 1m30s; it takes a slot up to 20s before"]);
    let cluster = bench.pool.explain_cluster(bench.now, 1, &[]).unwrap();
    assert_eq!(
        cluster.next,
        ["2 idle job(s), the first 1.0, wait for its start, in 1m30s; it takes a slot up to 20s before"]
    );
    bench.wake();
    bench.tell(Event::AttemptsStarted { key: KEY, ids: vec![attempt(0, 1)] });
    assert_eq!(job(&bench, 0).next, ["its start, in 20s; it takes a slot up to 20s before"]);
    bench.now = Time(101_000);
    assert_eq!(job(&bench, 0).next, ["its end"]);
}

#[test]
fn the_event_log_hears_of_a_program_when_it_starts() {
    let (mut bench, _) = bench(3);
    let group = GroupRecord { log: Some(Template::constant("log")), ..timed(3, &[("at", 100), ("prep", 20)]) };
    bench.submit_at(10, vec![group]);
    let noted = |actions: &[Action]| {
        let executing = |action: &&Action| matches!(action, Action::Note { note: Note::Executing { .. }, .. });
        actions.iter().filter(executing).count()
    };
    bench.now = Time(80_000);
    bench.tell(Event::TimePassed);
    let ids: Vec<_> = (0..3).map(|proc| attempt(proc, 1)).collect();
    assert_eq!(noted(&bench.tell(Event::AttemptsStarted { key: KEY, ids })), 0);
    assert_eq!((bench.state(0), bench.pool.deadline()), (JobState::Running, Some(Time(100_000))));
    // Clocks differ: what has ended was started.
    assert_eq!(noted(&bench.end(KEY, attempt(0, 1), Outcome::Exited(0))), 1);
    bench.end(KEY, attempt(1, 1), Outcome::Evicted("so".into()));
    bench.now = Time(100_000);
    assert_eq!(noted(&bench.tell(Event::TimePassed)), 1);
    assert_eq!(noted(&bench.tell(Event::TimePassed)), 0, "once");
}

//! What policies make of jobs.

use core::sync::atomic::{AtomicUsize, Ordering};

use super::terms::Words;
use super::*;

/// A policy in small words, as attributes. When a job ends: `retry = N` runs it again until it exits with 0 or has done so N times;
/// `hold = CODE` holds it if it exits with that. From time to time: `hold running`, `vacate running`, `remove idle` and `release held`, each once a
/// job, as far as its past tells; `remove held`, `release all` asks for nothing but the state; `each` asks about each job.
#[derive(Debug)]
pub(super) struct Rules {
    retry: Option<u32>,
    hold: Option<u8>,
    words: BTreeSet<String>,
    asked: Arc<AtomicUsize>,
}

impl Rules {
    pub(super) fn of(terms: &Terms, asked: &Arc<AtomicUsize>) -> Option<Arc<dyn Policy>> {
        let find = |name: &str| terms.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value);
        let words = terms.attributes.iter().filter(|(name, _)| name == "words").map(|(_, word)| word.clone());
        let rules = Rules {
            retry: find("retry").map(|n| n.parse().unwrap()),
            hold: find("hold").map(|n| n.parse().unwrap()),
            words: words.collect(),
            asked: Arc::clone(asked),
        };
        (!terms.attributes.is_empty()).then(|| Arc::new(rules) as Arc<dyn Policy>)
    }

    fn says(&self, word: &str) -> bool {
        self.words.contains(word)
    }
}

impl Policy for Rules {
    fn ended(&self, job: &JobView<'_>, _: Time) -> Option<Decision> {
        let end = job.end.expect("it has ended");
        if self.hold.is_some_and(|code| end == End::Exited(code)) {
            return Some(Decision::Hold(Hold { why: format!("it ended as {end:?}"), code: 3, subcode: 7 }));
        }
        let retry = self.retry.filter(|most| end != End::Exited(0) && job.completions() <= *most);
        retry.map(|_| Decision::Again("it is tried again".into()))
    }

    fn is_periodic(&self) -> bool {
        !self.words.is_empty()
    }

    fn asks(&self, job: &JobView<'_>, _: Time) -> Option<Asks> {
        let concerned = match job.state {
            JobState::Running => self.says("hold running") || self.says("vacate running"),
            JobState::Idle => self.says("remove idle"),
            JobState::Held => self.says("release held") || self.says("release all") || self.says("remove held"),
            _ => false,
        };
        let asks = match () {
            () if self.says("each") => Asks::Itself,
            () if self.says("release all") || self.says("remove held") => Asks::State,
            () => Asks::Fate,
        };
        concerned.then_some(asks)
    }

    fn now(&self, job: &JobView<'_>, _: Time) -> Option<Decision> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let hold = || Decision::Hold(Hold { why: "it ran".into(), code: 3, subcode: 0 });
        match job.state {
            JobState::Running if self.says("vacate running") && job.starts() < 2 => {
                Some(Decision::Vacate("it ran".into()))
            }
            JobState::Running if self.says("hold running") && job.past.holds == 0 => Some(hold()),
            JobState::Idle if self.says("remove idle") && job.attempts > 2 => Some(Decision::Remove("tired".into())),
            JobState::Held if self.says("release held") && job.code.0 == 3 && job.past.holds < 3 => {
                Some(Decision::Release("rested".into()))
            }
            JobState::Held if self.says("release all") => Some(Decision::Release("all of them".into())),
            JobState::Held if self.says("remove held") => Some(Decision::Remove("all of them".into())),
            _ => None,
        }
    }
}

fn attribute(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// The policy of a group of a random world.
pub(super) fn some(mut below: impl FnMut(u64) -> u64) -> Vec<(String, String)> {
    let mut words = Vec::new();
    if below(3) > 0 {
        return words;
    }
    if below(3) == 0 {
        words.push(attribute("retry", &below(4).to_string()));
    }
    if below(4) == 0 {
        words.push(attribute("hold", "2"));
    }
    for word in ["hold running", "vacate running", "remove idle", "release held", "each"] {
        if below(5) == 0 {
            words.push(attribute("words", word));
        }
    }
    words
}

fn bench_of(count: u32, attributes: &[(&str, &str)]) -> (Bench, Arc<AtomicUsize>) {
    let words = Words::default();
    let asked = words.asked();
    let mut bench = Bench { pool: Pool::with_judge(Arc::new(words)), ..Bench::default() };
    let attributes = attributes.iter().map(|(name, value)| attribute(name, value)).collect();
    let terms = Terms { attributes, ..Terms::default() };
    bench.pool.submit(bench.now, "test".into(), vec![GroupRecord { terms, ..group(count, program(1)) }]);
    (bench, asked)
}

impl Bench {
    fn run(&mut self, id: AttemptId) {
        self.tell(Event::AttemptsStarted { key: KEY, ids: vec![id] });
    }

    /// A minute passes.
    fn patrol(&mut self) -> Vec<Action> {
        self.now = self.now + Duration::from_secs(60);
        assert!(self.pool.deadline().is_some_and(|deadline| deadline <= self.now));
        self.tell(Event::TimePassed)
    }

    fn job(&self, proc: u32) -> JobView<'_> {
        self.pool.view(attempt(proc, 1).job).unwrap()
    }
}

#[test]
fn a_job_runs_again_until_its_policy_lets_it_go() {
    let (mut bench, _) = bench_of(1, &[("retry", "2")]);
    bench.join(1);
    for number in 1..=2 {
        let id = attempt(0, number);
        bench.run(id);
        let again = format!("7: forget {id}; 7: run 1.0#{}", number + 1);
        assert_eq!(told(&bench.end(KEY, id, Outcome::Exited(1))), again);
        // The starter repeats itself: what has counted counts for nothing.
        assert_eq!(told(&bench.end(KEY, id, Outcome::Exited(1))), format!("7: forget {id}"));
        let job = bench.job(0);
        assert_eq!((job.completions(), job.past.starts, job.past.end), (number, number, Some(End::Exited(1))));
        assert_eq!((job.past.wall_ms, job.end, job.failed), (u64::from(number) * 1000, None, false));
        assert_eq!(bench.pool.jobs_failed_by_sites(), 0, "it is no failure of the site");
        bench.refold();
        bench.tell(Event::StarterJoined { key: KEY, offer: offer(1), time_left: None });
        bench.inventory(KEY, &[attempt(0, number + 1)], &[], &[]);
    }
    assert_eq!(told(&bench.end(KEY, attempt(0, 3), Outcome::Exited(1))), "7: forget 1.0#3");
    assert_eq!((bench.state(0), bench.job(0).completions(), bench.job(0).starts()), (JobState::Completed, 3, 3));
    assert_eq!(bench.pool.counts(&Select::default()).failed, 1);
    bench.refold();
}

#[test]
fn a_late_result_of_an_attempt_before_the_last_end_counts_for_nothing() {
    let other = StarterKey(8);
    let (mut bench, _) = bench_of(1, &[("retry", "5")]);
    bench.join(1);
    bench.run(attempt(0, 1));
    bench.tell(Event::StarterSilent { key: KEY, why: "cut".into() });
    bench.tell(Event::StarterGone { key: KEY, why: "its node is down".into() });
    bench.join_as(other, offer(1));
    bench.end(other, attempt(0, 2), Outcome::Exited(1));
    // It was not down.
    bench.tell(Event::StarterJoined { key: KEY, offer: offer(1), time_left: None });
    bench.inventory(KEY, &[], &[], &[attempt(0, 1)]);
    assert_eq!(told(&bench.end(KEY, attempt(0, 1), Outcome::Exited(0))), "7: forget 1.0#1");
    assert_eq!((bench.state(0), bench.job(0).attempts), (JobState::Matched, 3));
    bench.refold();
}

#[test]
fn success_is_the_exit_code_that_the_program_has_for_it() {
    let check = |success: u8, outcome: Outcome, failed: bool| {
        let mut bench = Bench::with_jobs(vec![group(1, Program { success, ..program(1) })]);
        bench.join(1);
        bench.end(KEY, attempt(0, 1), outcome);
        assert_eq!((bench.job(0).failed, bench.pool.counts(&Select::default()).failed), (failed, u32::from(failed)));
        bench.refold();
        assert_eq!((bench.job(0).failed, bench.pool.counts(&Select::default()).failed), (failed, u32::from(failed)));
    };
    check(0, Outcome::Exited(0), false);
    check(0, Outcome::Exited(3), true);
    check(3, Outcome::Exited(3), false);
    check(3, Outcome::Exited(0), true);
    check(3, Outcome::Exited(1), true);
    check(3, Outcome::Signaled(3), true);
}

#[test]
fn a_job_that_ends_badly_is_held_and_runs_again_when_it_is_released() {
    let (mut bench, _) = bench_of(1, &[("hold", "4")]);
    bench.join(1);
    assert_eq!(told(&bench.end(KEY, attempt(0, 1), Outcome::Exited(4))), "7: forget 1.0#1");
    let job = bench.job(0);
    assert_eq!((job.state, job.code, job.reason), (JobState::Held, (3, 7), Some("it ended as Exited(4)")));
    bench.refold();
    bench.join(1);
    let select = || Select::default();
    assert_eq!(told(&bench.tell(Event::ReleaseAsked { select: select() })), "7: run 1.0#2");
    assert_eq!(bench.job(0).code, (0, 0));
    bench.end(KEY, attempt(0, 2), Outcome::Exited(0));
    assert_eq!((bench.state(0), bench.job(0).completions()), (JobState::Completed, 2));
}

#[test]
fn jobs_are_submitted_on_hold() {
    let mut bench = Bench::with_jobs(vec![group(1, program(1)), GroupRecord { held: true, ..group(2, program(1)) }]);
    assert_eq!(told(&bench.join(4)), "7: run 1.0#1");
    assert_eq!((bench.state(1), bench.job(2).code.0), (JobState::Held, 15));
    assert_eq!(bench.job(1).reason, Some("submitted on hold at user's request"));
    bench.refold();
    bench.join(4);
    bench.inventory(KEY, &[attempt(0, 1)], &[], &[]);
    assert_eq!(told(&bench.tell(Event::ReleaseAsked { select: Select::default() })), "7: run 1.1#1 1.2#1");
    assert_eq!(bench.job(1).reason, None);
}

#[test]
fn jobs_are_held_released_and_removed_from_time_to_time() {
    let (mut bench, _) = bench_of(2, &[("words", "hold running"), ("words", "release held")]);
    assert_eq!(told(&bench.patrol()), "");
    bench.join(1);
    bench.run(attempt(0, 1));
    bench.now = bench.now + Duration::from_secs(59);
    assert_eq!(told(&bench.tell(Event::TimePassed)), "", "not yet");
    bench.now = bench.now - Duration::from_secs(59);
    assert_eq!(told(&bench.patrol()), "7: kill 1.0#1");
    assert_eq!((bench.state(0), bench.job(0).past.wall_ms), (JobState::Held, 60_000));
    bench.refold();
    bench.tell(Event::Recovered);
    bench.join(1);
    // The user's holds are the user's; the policy releases its own.
    let select = Select { jobs: [attempt(1, 1).job].into(), ..Select::default() };
    bench.tell(Event::HoldAsked { select, why: "wait".into() });
    bench.patrol();
    assert_eq!((bench.state(0), bench.state(1)), (JobState::Matched, JobState::Held));
    let (mut bench, _) = bench_of(3, &[("words", "remove held")]);
    bench.tell(Event::HoldAsked { select: Select::default(), why: "wait".into() });
    bench.patrol();
    assert_eq!(bench.pool.counts(&Select::default()).removed, 3);
    bench.refold();
    // Nothing is left to look at.
    bench.tell(Event::Recovered);
    bench.patrol();
    assert_eq!(bench.pool.deadline(), None);
}

#[test]
fn a_vacated_job_waits_again_once_it_is_dead() {
    let (mut bench, _) = bench_of(1, &[("words", "vacate running")]);
    bench.join(1);
    bench.run(attempt(0, 1));
    assert_eq!(told(&bench.patrol()), "7: kill 1.0#1");
    assert_eq!(bench.state(0), JobState::Running);
    assert_eq!(told(&bench.end(KEY, attempt(0, 1), Outcome::Killed)), "7: forget 1.0#1; 7: run 1.0#2");
    assert_eq!(bench.pool.jobs_failed_by_sites(), 0, "it is no failure of the site");
    assert_eq!(bench.job(0).past.starts, 1);
    bench.refold();
}

#[test]
fn it_is_known_since_when_a_job_runs_after_a_crash_too() {
    let (mut bench, _) = bench_of(1, &[("words", "vacate running")]);
    bench.join(1);
    bench.now = Time(5000);
    bench.run(attempt(0, 1));
    bench.refold();
    bench.now = Time(50_000);
    bench.tell(Event::StarterJoined { key: KEY, offer: offer(1), time_left: None });
    bench.inventory(KEY, &[], &[attempt(0, 1)], &[]);
    assert_eq!((bench.state(0), bench.job(0).at), (JobState::Running, Time(5000)));
}

#[test]
fn jobs_that_fared_alike_are_judged_at_once() {
    let check = |words: &[&str], expected: usize| {
        let attributes: Vec<(&str, &str)> = words.iter().map(|word| ("words", *word)).collect();
        let (mut bench, asked) = bench_of(1000, &attributes);
        bench.tell(Event::HoldAsked { select: Select::default(), why: "wait".into() });
        bench.patrol();
        assert_eq!(asked.load(Ordering::Relaxed), expected, "{words:?}");
    };
    check(&["remove idle"], 0);
    check(&["release all"], 1);
    check(&["release held"], 1);
    check(&["release held", "each"], 1000);
}

impl Pool {
    fn jobs_failed_by_sites(&self) -> u32 {
        self.clusters.values().flat_map(|cluster| &cluster.jobs).map(|job| u32::from(job.site_failures)).sum()
    }
}

#[test]
fn what_the_kernel_kills_for_memory_is_held_or_asks_for_more() {
    let full = || Outcome::OutOfMemory("over 64 megabytes".into());
    let (mut bench, _) = bench_of(2, &[("retry", "2"), ("hold", "1")]);
    bench.join(1);
    bench.run(attempt(0, 1));
    let used = Usage { peak_kib: 70_000, ..Usage::default() };
    let result = AttemptResult { usage: used, ..result(attempt(0, 1), full()) };
    assert_eq!(told(&bench.tell(Event::AttemptEnded { key: KEY, result })), "7: forget 1.0#1");
    let job = bench.job(0);
    assert_eq!((job.state, job.code, job.reason), (JobState::Held, (34, 102), Some("over 64 megabytes")));
    assert_eq!((job.usage.peak_kib, job.end, bench.pool.jobs_failed_by_sites()), (70_000, None, 0));
    bench.refold();
    assert_eq!(bench.job(0).code, (34, 102));

    let (mut bench, _) = bench_of(1, &[("words", "vacate running")]);
    bench.join(1);
    bench.run(attempt(0, 1));
    assert_eq!(told(&bench.end(KEY, attempt(0, 1), full())), "7: forget 1.0#1; 7: run 1.0#2");
    assert_eq!((bench.job(0).starts(), bench.pool.jobs_failed_by_sites()), (1, 0));
}

#[test]
fn what_the_user_takes_off_its_slot_waits_again() {
    let mut bench = Bench::with_jobs(vec![group(3, program(1))]);
    bench.join(2);
    bench.run(attempt(0, 1));
    let select = |procs: &[u32]| Select {
        jobs: procs.iter().map(|proc| JobId { cluster: 1, proc: *proc }).collect(),
        ..Select::default()
    };
    assert_eq!(bench.pool.concerned(&Select::default(), Change::Vacate), 1, "the others don't run");
    let actions = bench.tell(Event::VacateAsked { select: Select::default(), fast: true });
    assert_eq!(told(&actions), "7: kill 1.0#1");
    assert!(
        actions.iter().any(|action| matches!(action, Action::Kill { grace, signal: 0, .. } if grace.is_zero())),
        "{actions:?}"
    );
    assert_eq!(bench.state(0), JobState::Running, "until it is known to be dead");
    let actions = told(&bench.end(KEY, attempt(0, 1), Outcome::Killed));
    assert!(actions.starts_with("7: forget 1.0#1") && actions.contains("run"), "{actions}");
    assert_eq!((bench.pool.jobs_failed_by_sites(), bench.job(0).past.starts), (0, 1));
    bench.refold();
    assert_eq!(bench.job(0).past.starts, 1);
    // One that has ended before it could be killed has ended.
    let mut bench = Bench::with_jobs(vec![group(1, program(1))]);
    bench.join(1);
    bench.run(attempt(0, 1));
    let actions = bench.tell(Event::VacateAsked { select: select(&[0]), fast: false });
    assert!(actions.iter().any(|action| matches!(action, Action::Kill { grace, .. } if !grace.is_zero())));
    bench.end(KEY, attempt(0, 1), Outcome::Exited(0));
    assert_eq!(bench.state(0), JobState::Completed);
    assert_eq!(told(&bench.tell(Event::VacateAsked { select: select(&[0]), fast: false })), "");
    bench.refold();
}

//! Priorities, requirements, ranks and shares.

use core::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// Understands two small expressions: requirements are the numbers of sites that suit, a rank is `cpus`.
#[derive(Debug, Default)]
pub(super) struct Words {
    asked: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Sites {
    suit: Option<Vec<u16>>,
    ranked: bool,
    asked: Arc<AtomicUsize>,
}

impl Words {
    pub(super) fn asked(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.asked)
    }
}

impl Judge for Words {
    fn anew(&self, job: &JobView<'_>) -> Edit {
        Edit { memory_mb: Some(100 * u64::from(job.past.starts)), ..Edit::default() }
    }

    fn terms(&self, terms: &Terms, _: &Program) -> Option<(String, Arc<dyn Match>)> {
        let suit: Option<Vec<u16>> =
            terms.requirements.as_ref().map(|text| text.split(' ').map(|n| n.parse().unwrap()).collect());
        let ranked = terms.rank.is_some();
        let text = format!("{suit:?} {ranked}");
        (suit.is_some() || ranked)
            .then(|| (text, Arc::new(Sites { suit, ranked, asked: Arc::clone(&self.asked) }) as Arc<dyn Match>))
    }

    fn policy(&self, terms: &Terms, _: &Program) -> Option<Arc<dyn Policy>> {
        policy::Rules::of(terms, &self.asked)
    }
}

impl Match for Sites {
    fn rank(&self, offer: &Offer, _: Option<Duration>) -> Option<f64> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let suits = self.suit.as_ref().is_none_or(|sites| sites.contains(&offer.site.0));
        suits.then_some(if self.ranked { f64::from(offer.cpus) } else { 0.0 })
    }

    fn verdict(&self, offer: &Offer) -> Verdict {
        self.rank(offer, None).map_or(Verdict::Unfit, |rank| Verdict::Fit { rank, time_left: None })
    }

    fn has_rank(&self) -> bool {
        self.ranked
    }

    fn refusal(&self, offer: &Offer, left: Option<Duration>) -> Option<String> {
        self.rank(offer, left).is_none().then(|| format!("site is one of {:?}", self.suit))
    }
}

pub(super) fn wanting(count: u32, sites: &str) -> GroupRecord {
    let terms = Terms { requirements: Some(sites.into()), ..Terms::default() };
    GroupRecord { terms, ..group(count, program(1)) }
}

fn bench() -> (Bench, Arc<AtomicUsize>) {
    let words = Words::default();
    let asked = Arc::clone(&words.asked);
    (Bench { pool: Pool::with_judge(Arc::new(words)), ..Bench::default() }, asked)
}

impl Bench {
    fn submit(&mut self, group: GroupRecord) -> Vec<Action> {
        self.pool.submit(self.now, "test".into(), vec![group]);
        self.drain()
    }
}

fn at_site(site: u16, cpus: u32) -> Offer {
    Offer { site: SiteId(site), ..offer(cpus) }
}

#[test]
fn what_waits_at_a_starter_is_not_asked_back_for_what_does_not_go_there() {
    let urgent = |cpus, account: Option<&str>| GroupRecord {
        terms: Terms { priority: 5, accounting_group: account.map(str::to_owned), ..Terms::default() },
        ..group(4, program(cpus))
    };
    // It needs more than there is.
    let (mut bench, _) = bench();
    bench.submit(urgent(2, None));
    bench.submit(group(4, program(1)));
    let given = told(&bench.join(1));
    assert!(given.contains("2.0#1") && !given.contains("give back"), "{given}");
    // Another account has its share.
    let (mut bench, _) = self::bench();
    bench.submit(urgent(1, Some("a")));
    bench.submit(group(4, program(1)));
    let given = told(&bench.join(2));
    assert!(given.contains("1.0#1") && given.contains("2.0#1") && !given.contains("give back"), "{given}");
    // Its own has not.
    let (mut bench, _) = self::bench();
    bench.submit(group(4, program(1)));
    bench.join(1);
    assert_eq!(told(&bench.submit(urgent(1, None))), "7: give back 2");
}

#[test]
fn a_higher_priority_goes_first_and_age_decides_among_equals() {
    let (mut bench, _) = bench();
    let with = |priority| GroupRecord { terms: Terms { priority, ..Terms::default() }, ..group(1, program(1)) };
    for priority in [0, -5, 5, 0, 5] {
        bench.submit(with(priority));
    }
    assert_eq!(told(&bench.join(8)), "7: run 3.0#1 5.0#1 1.0#1 4.0#1 2.0#1");
    bench.refold();
}

#[test]
fn requirements_are_asked_once_for_each_class_and_kind() {
    let (mut bench, asked) = bench();
    for round in 0..50 {
        bench.submit(wanting(100, if round % 2 == 0 { "1" } else { "1 2" }));
    }
    for key in 0..200 {
        let site = if key % 2 == 0 { 2 } else { 3 };
        bench.join_as(StarterKey(key), at_site(site, 4));
    }
    let at = |bench: &Bench, site: u16| {
        let starters = bench.pool.starters.values().filter(|s| s.offer.site == SiteId(site));
        starters.map(|s| s.held.len()).sum::<usize>()
    };
    // Slots and a backlog of as many at each.
    assert_eq!((at(&bench, 2), at(&bench, 3)), (100 * 8, 0));
    assert!(bench.pool.live.keys().all(|id| id.cluster % 2 == 0));
    assert_eq!(asked.load(Ordering::Relaxed), 4, "two classes, two kinds");
}

#[test]
fn what_suits_nothing_keeps_nothing_else_back() {
    let (mut bench, _) = bench();
    bench.submit(wanting(3, "9"));
    bench.submit(group(2, program(1)));
    assert_eq!(told(&bench.join_as(KEY, at_site(3, 2))), "7: run 2.0#1 2.1#1");
    let id = JobId { cluster: 1, proc: 0 };
    let present = bench.pool.explain(bench.now, id, &[]).unwrap();
    assert!(
        present.next.iter().any(|line| line.contains("refused by its requirements: site is one of")),
        "{present:?}"
    );
    assert_eq!(told(&bench.join_as(StarterKey(8), at_site(9, 2))), "8: run 1.0#1 1.1#1; 8: run 1.2#1");
}

#[test]
fn without_a_judge_what_has_requirements_waits() {
    let mut bench = Bench::with_jobs(vec![wanting(1, "3"), group(1, program(1))]);
    assert_eq!(told(&bench.join(4)), "7: run 1.1#1");
}

#[test]
fn jobs_go_to_the_starters_that_they_prefer() {
    let (mut bench, _) = bench();
    for (key, cpus) in [(1, 2), (2, 4), (3, 3)] {
        bench.join_as(StarterKey(key), at_site(1, cpus));
    }
    let ranked = |count, priority| {
        let terms = Terms { rank: Some("cpus".into()), priority, ..Terms::default() };
        GroupRecord { terms, ..group(count, program(1)) }
    };
    assert_eq!(told(&bench.submit(ranked(5, 0))), "2: run 1.0#1 1.1#1 1.2#1 1.3#1; 3: run 1.4#1");
    // A higher priority chooses before an older job does.
    let (mut bench, _) = self::bench();
    bench.submit(ranked(2, 0));
    bench.submit(ranked(2, 9));
    bench.submit(group(2, program(1)));
    for (key, cpus) in [(1, 2), (2, 4)] {
        let offer = at_site(1, cpus);
        bench.pool.handle(bench.now, Event::StarterJoined { key: StarterKey(key), offer, time_left: None });
        let number = 1;
        let (queued, running, finished) = (Vec::new(), Vec::new(), Vec::new());
        bench.pool.handle(bench.now, Event::InventoryTold { key: StarterKey(key), number, queued, running, finished });
    }
    assert_eq!(told(&bench.drain()), "2: run 2.0#1 2.1#1 1.0#1 1.1#1; 1: run 3.0#1 3.1#1");
}

#[test]
fn accounts_share_by_their_weights() {
    let (mut bench, _) = bench();
    bench.pool.set_weights([("a".to_owned(), 2), ("b".to_owned(), 1)].into());
    let of = |account: Option<&str>| {
        let terms = Terms { accounting_group: account.map(str::to_owned), ..Terms::default() };
        GroupRecord { terms, ..group(1000, program(1)) }
    };
    for account in [Some("a"), Some("b"), None] {
        bench.submit(of(account));
    }
    // 200 CPUs and a backlog as large.
    bench.join(200);
    let out = |bench: &Bench, cluster| bench.pool.live.keys().filter(|id| id.cluster == cluster).count();
    assert_eq!([1, 2, 3].map(|cluster| out(&bench, cluster)), [200, 100, 100]);
    // What one has no use for is the others'.
    bench.tell(Event::RemovalAsked { select: Select { clusters: [1].into(), ..Select::default() } });
    bench.inventory(KEY, &[], &[], &[]);
    assert_eq!([2, 3].map(|cluster| out(&bench, cluster)), [200, 200]);
    bench.refold();
}

#[test]
fn a_backlog_makes_way_for_a_higher_priority() {
    let (mut bench, _) = bench();
    bench.join(2);
    bench.submit(group(9, program(1)));
    let ids = [0, 1, 2, 3].map(|proc| attempt(proc, 1));
    bench.tell(Event::AttemptsStarted { key: KEY, ids: ids[..2].to_vec() });
    let urgent = GroupRecord { terms: Terms { priority: 1, ..Terms::default() }, ..group(1, program(1)) };
    assert_eq!(told(&bench.submit(urgent)), "7: give back 2");
    let back = ids[2..].iter().rev().copied().collect();
    assert_eq!(told(&bench.tell(Event::AttemptsReturned { key: KEY, ids: back })), "7: run 2.0#1 1.2#2");
    // Once it is there, nothing more is asked back.
    assert_eq!(told(&bench.submit(group(1, program(1)))), "");
}

/// Suits when it is told to: what a time of day might do.
#[derive(Clone, Debug, Default)]
struct Fickle(Arc<AtomicUsize>);

impl Judge for Fickle {
    fn terms(&self, terms: &Terms, _: &Program) -> Option<(String, Arc<dyn Match>)> {
        Some((terms.requirements.clone()?, Arc::new(self.clone())))
    }
}

impl Match for Fickle {
    fn rank(&self, _: &Offer, _: Option<Duration>) -> Option<f64> {
        (self.0.load(Ordering::Relaxed) > 0).then_some(0.0)
    }

    fn verdict(&self, _: &Offer) -> Verdict {
        Verdict::Varies
    }

    fn has_rank(&self) -> bool {
        false
    }

    fn refusal(&self, _: &Offer, _: Option<Duration>) -> Option<String> {
        None
    }
}

#[test]
fn what_suits_nothing_now_is_looked_at_again_if_that_may_change() {
    let fickle = Fickle::default();
    let mut bench = Bench { pool: Pool::with_judge(Arc::new(fickle.clone())), ..Bench::default() };
    bench.submit(wanting(1, "later"));
    assert_eq!(bench.pool.deadline(), None, "nothing could run it");
    assert_eq!(told(&bench.join(1)), "");
    let due = bench.pool.deadline().unwrap();
    assert!(due > bench.now && due <= bench.now + Duration::from_secs(60));
    fickle.0.store(1, Ordering::Relaxed);
    bench.now = due;
    assert_eq!(told(&bench.tell(Event::TimePassed)), "7: run 1.0#1");
    assert!(bench.pool.deadline().is_none_or(|at| at > due));
}

/// Jobs that take so many thousandths of the limits of these names.
fn limited(count: u32, limits: &[(&str, u32)]) -> GroupRecord {
    let limits = limits.iter().map(|(name, share)| ((*name).to_owned(), *share)).collect();
    GroupRecord { terms: Terms { limits, ..Terms::default() }, ..group(count, program(1)) }
}

#[test]
fn no_more_jobs_are_out_than_their_limits_allow() {
    let mut bench = Bench::new();
    let limits = || [("sw".to_owned(), 3), ("db".to_owned(), 1)].into();
    bench.pool.set_limits(limits());
    bench.submit(limited(5, &[("sw", 1000)]));
    bench.submit(limited(2, &[("db", 500), ("sw", 1000), ("free", 1000)]));
    bench.submit(group(1, program(1)));
    assert_eq!(bench.pool.demand_cpus(), 3 + 2 + 1);
    // What is not limited passes by what is.
    assert_eq!(told(&bench.join(16)), "7: run 1.0#1 1.1#1 1.2#1 3.0#1");
    let next = |bench: &Bench, proc| bench.pool.explain(bench.now, attempt(proc, 1).job, &[]).unwrap().next;
    assert_eq!(next(&bench, 3)[0], "its concurrency limit sw: 3 of 3 in use");
    assert_eq!(told(&bench.end(KEY, attempt(0, 1), Outcome::Exited(0))), "7: forget 1.0#1; 7: run 1.3#1");
    // One that is killed counts until it is known to be dead; another starter has room then, too.
    bench.join_as(StarterKey(8), offer(4));
    let select = Select { jobs: [attempt(1, 1).job].into(), ..Select::default() };
    assert_eq!(told(&bench.tell(Event::RemovalAsked { select })), "7: kill 1.1#1");
    bench.log.extend(bench.pool.take_records());
    bench.refold();
    bench.pool.set_limits(limits());
    assert_eq!(told(&bench.join_as(StarterKey(8), offer(4))), "");
    bench.tell(Event::StarterJoined { key: KEY, offer: offer(16), time_left: None });
    let held =
        [attempt(1, 1), attempt(2, 1), attempt(3, 1), AttemptId { job: JobId { cluster: 3, proc: 0 }, attempt: 1 }];
    bench.inventory(KEY, &[], &held, &[]);
    assert_eq!(told(&bench.end(KEY, attempt(1, 1), Outcome::Killed)), "7: forget 1.1#1; 7: run 1.4#1");
    for proc in [2, 3] {
        bench.end(KEY, attempt(proc, 1), Outcome::Exited(0));
    }
    let out = |bench: &Bench| bench.pool.live.keys().filter(|id| id.cluster == 2).count();
    assert_eq!(out(&bench), 2, "each takes a half of it");
    bench.refold();
}

#[test]
fn a_starter_with_room_is_thought_of_when_a_limit_has_room_again() {
    let mut bench = Bench::new();
    bench.pool.set_limits([("sw".to_owned(), 1)].into());
    bench.submit(limited(2, &[("sw", 1000)]));
    bench.join(1);
    assert_eq!(told(&bench.join_as(StarterKey(8), offer(1))), "");
    bench.tell(Event::AttemptsStarted { key: KEY, ids: vec![attempt(0, 1)] });
    // The one that ran it is about to end, and takes no more.
    bench.tell(Event::StarterJoined { key: KEY, offer: offer(1), time_left: Some(Duration::from_secs(1)) });
    bench.inventory(KEY, &[], &[attempt(0, 1)], &[]);
    assert_eq!(told(&bench.end(KEY, attempt(0, 1), Outcome::Exited(0))), "7: forget 1.0#1; 8: run 1.1#1");
}

#[test]
fn the_order_of_two_accounts_keeps_nobody_back() {
    let (mut bench, _) = bench();
    bench.join(4);
    let ranked = |account: &str| {
        let terms = Terms { rank: Some("cpus".into()), accounting_group: Some(account.into()), ..Terms::default() };
        GroupRecord { terms, ..group(1, program(1)) }
    };
    bench.submit(ranked("a"));
    bench.end(KEY, attempt(0, 1), Outcome::Exited(0));
    // The younger job is that of the account which is looked at first.
    for account in ["b", "a"] {
        bench.pool.submit(bench.now, "test".into(), vec![ranked(account)]);
    }
    let told = told(&bench.drain());
    assert!(told.contains("2.0#1") && told.contains("3.0#1"), "{told}");
}

#[test]
fn a_cluster_has_no_more_jobs_out_than_it_says() {
    let (mut bench, _) = bench();
    bench.join(8);
    let limited =
        || GroupRecord { terms: Terms { limits: vec![at_once(2)], ..Terms::default() }, ..group(5, program(1)) };
    assert_eq!(told(&bench.submit(limited())), "7: run 1.0#1 1.1#1");
    assert_eq!(told(&bench.submit(limited())), "7: run 2.0#1 2.1#1", "each cluster has its own");
    let why = bench.pool.explain(bench.now, JobId { cluster: 1, proc: 3 }, &[]).unwrap();
    assert!(why.next[0].contains("max_materialize 2 of cluster 1: 2 of 2 in use"), "{:?}", why.next);
    assert_eq!(bench.pool.demand_cpus(), 4);
}

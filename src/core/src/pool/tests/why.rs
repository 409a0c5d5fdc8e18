//! What is told of jobs: always from records that went through the journal.

use super::*;

fn sites() -> Vec<SiteFacts> {
    let site = |name: &str, linked| SiteFacts { name: name.into(), linked, lease: Duration::from_secs(600) };
    vec![site("a", true), site("b", false), site("c", true), site("tundra", true)]
}

/// The steps of a job, one a line: seconds, who, what.
fn told(bench: &Bench, proc: u32) -> String {
    let mut trail = Trail::new(attempt(proc, 1).job, sites(), &bench.pool);
    for record in &bench.log {
        let stored = minicbor::to_vec(record).unwrap();
        trail.see(&minicbor::decode(&stored).unwrap());
    }
    let line = |step: &Step| {
        let at = step.at.map_or("?".into(), |at| (at.0 / 1000).to_string());
        format!("{at} {}: {}\n", step.by, step.text)
    };
    trail.steps().0.iter().map(line).collect()
}

fn present(bench: &Bench, proc: u32) -> String {
    let Present { state, steps, next, .. } = bench.pool.explain(bench.now, attempt(proc, 1).job, &sites()).unwrap();
    let steps: String = steps.iter().map(|step| format!("{}: {}\n", step.by, step.text)).collect();
    format!("{state}\n{steps}next: {}\n", next.join("; "))
}

impl Bench {
    fn at(&mut self, seconds: u64) -> &mut Self {
        self.now = Time(seconds * 1000);
        self
    }
}

#[test]
fn a_lost_starter_is_evidence_for_the_second_attempt() {
    let mut bench = Bench::new();
    bench.at(1).pool.submit(Time(1000), "sim".into(), vec![group(2, program(1))]);
    assert_eq!(present(&bench, 1), "idle\nnext: a starter: none has called; 1 idle job(s) are before it\n");
    bench.at(2).join(2);
    assert_eq!(
        present(&bench, 0),
        "matched: attempt 1 is at node1 (proxy tundra/1), not started\n\
         next: its start there: 0 job(s) run on 2 CPU(s), 2 wait, this one among them\n"
    );
    bench.at(3).tell(Event::AttemptsStarted { key: KEY, ids: vec![attempt(0, 1)] });
    bench.at(5);
    assert_eq!(
        present(&bench, 0),
        "running on node1 (proxy tundra/1) for 2.0s, attempt 1\nstarter on node1: attempt 1 runs\nnext: its end\n"
    );
    bench.at(6).tell(Event::StarterSilent { key: KEY, why: "its connection broke".into() });
    bench.at(16);
    assert_eq!(
        present(&bench, 0),
        "unknown: the starter that has attempt 1, on node1 (proxy tundra/1), is silent\n\
         starter on node1: attempt 1 runs\n\
         next: its starter, silent for 10s: its connection broke; evidence of its end (job tag, batch system, exit file), or the \
         end of its lease in 9m50s; then the next attempt\n"
    );
    bench.at(20).tell(Event::StarterGone { key: KEY, why: "its job tag is gone".into() });
    bench.at(21).join_as(StarterKey(8), Offer { host: "node2".into(), proxy: ProxyId(2), ..offer(2) });
    bench.at(22).tell(Event::AttemptsStarted { key: StarterKey(8), ids: vec![attempt(0, 2), attempt(1, 2)] });
    bench.at(24).end(StarterKey(8), attempt(0, 2), Outcome::Exited(0));
    let expected = "1 you: submitted cluster 1 (sim) of 2 job(s)
2 master: attempt 1 sent to node1 (proxy tundra/1)
3 starter on node1: attempt 1 runs
6 agent of tundra: the starter is silent: its connection broke
20 agent of tundra: the starter on node1 (proxy tundra/1) has ended: its job tag is gone
20 master: attempt 1 was failed by its site (its job tag is gone); the job is idle again
21 master: attempt 2 sent to node2 (proxy tundra/2)
24 starter on node2: attempt 2 ended with exit code 0 after 1.0s
24 master: completed at tundra: its outputs are here, its result is durable
";
    assert_eq!(told(&bench, 0), expected);
    // The other one had not started there.
    let other = told(&bench, 1);
    assert!(other.contains("20 agent of tundra: the starter on node1 (proxy tundra/1) has ended: its job tag is gone\n20 master: attempt 1 had not started there; the job is idle again\n"), "{other}");
    assert_eq!(present(&bench, 0), "completed with exit code 0\nnext: \n");
    // A snapshot says the same of the present.
    let snapshot = minicbor::to_vec(bench.pool.snapshot()).unwrap();
    bench.pool = Pool::new().restore(minicbor::decode(&snapshot).unwrap());
    assert_eq!(present(&bench, 0), "completed with exit code 0\nnext: \n");
    assert_eq!(told(&bench, 0), expected);
}

#[test]
fn after_a_restart_of_the_master_the_silence_is_told_as_its_own() {
    let mut bench = Bench::with_jobs(vec![group(1, program(1))]);
    bench.at(1).join(1);
    bench.at(2).tell(Event::AttemptsStarted { key: KEY, ids: vec![attempt(0, 1)] });
    let mut read = Pool::new();
    bench.log.iter().for_each(|record| read.apply(record));
    bench.pool = read;
    bench.at(60).tell(Event::Recovered);
    assert_eq!(bench.pool.starters().next().unwrap().since, bench.now, "not since 1970");
    assert!(present(&bench, 0).contains("silent for 0.0s: the master was started again"), "{}", present(&bench, 0));
    bench.at(61).tell(Event::StarterJoined { key: KEY, offer: offer(1), time_left: None });
    bench.at(62).inventory(KEY, &[], &[attempt(0, 1)], &[]);
    let expected = "60 master: the starter is silent: the master was started again\n61 agent of tundra: the starter answers again\n";
    assert!(told(&bench, 0).ends_with(expected), "{}", told(&bench, 0));
    assert!(present(&bench, 0).starts_with("running on node1"), "{}", present(&bench, 0));
}

#[test]
fn a_site_that_is_cut_off_concludes_nothing() {
    let mut bench = Bench::with_jobs(vec![group(1, program(1))]);
    bench.join_as(KEY, Offer { site: SiteId(1), ..offer(1) });
    bench.tell(Event::SiteLost { site: SiteId(1), why: "the way to its site was lost: timeout".into() });
    let text = present(&bench, 0);
    assert!(text.contains("the way to site b: without it nothing can be concluded"), "{text}");
    assert!(told(&bench, 0).contains("master: the starter is silent: the way to its site was lost: timeout\n"));
}

#[test]
fn a_late_result_is_told_with_what_it_supersedes() {
    let mut bench = Bench::with_jobs(vec![group(1, program(1))]);
    bench.at(1).join(1);
    bench.at(2).tell(Event::StarterSilent { key: KEY, why: "cut".into() });
    bench.at(3).join_as(KEY, offer(1));
    // Recalled from there, it went elsewhere; yet it had run.
    bench.at(4).tell(Event::AttemptsReturned { key: KEY, ids: vec![attempt(0, 1)] });
    bench.at(5).join_as(StarterKey(8), Offer { host: "node2".into(), ..offer(1) });
    bench.at(6).end(KEY, attempt(0, 1), Outcome::Exited(3));
    let text = told(&bench, 0);
    assert!(
        text.contains(
            "starter on node1: attempt 1, which counted as lost, has ended at node1 (proxy tundra/1); attempt "
        ),
        "{text}"
    );
    assert!(text.contains("is given up for it\n6 starter on node1: attempt 1 ended with exit code 3"), "{text}");
}

#[test]
fn what_keeps_jobs_back_is_told_of_every_starter() {
    let mut bench = Bench::with_jobs(vec![group(9, program(2)), group(1, program(64))]);
    bench.join(2);
    bench.join_as(StarterKey(8), offer(1));
    bench.join_as(StarterKey(9), offer(2));
    bench.tell(Event::StarterSilent { key: StarterKey(9), why: "cut".into() });
    let text = present(&bench, 8);
    assert!(text.starts_with("idle\nnext: a free slot; 1 of 3 starter(s): too small: it needs 2 CPU(s)"), "{text}");
    assert!(text.contains("1 of 3 starter(s): silent"), "{text}");
    assert!(text.contains("1 of 3 starter(s): full, with 2 CPU(s)"), "{text}");
    assert!(text.contains(" idle job(s) are before it"), "{text}");
    let greedy = Program { gpus: 1, resources: vec![("fpgas".into(), 3)], ..program(1) };
    bench.pool.submit(bench.now, "test".into(), vec![group(1, greedy)]);
    let text = bench.pool.explain(bench.now, JobId { cluster: 2, proc: 0 }, &sites()).unwrap().next.join("\n");
    assert!(text.contains("too small: it needs 1 CPU(s) and 1 GPU(s) and 3 fpgas, the largest has"), "{text}");
    let text = present(&bench, 9);
    assert!(
        text.contains("3 of 3 starter(s): too small: it needs 64 CPU(s), the largest has 2 CPU(s) and 0 MB"),
        "{text}"
    );
    let cluster = bench.pool.explain_cluster(bench.now, 1, &sites()).unwrap();
    assert_eq!(cluster.state, "10 idle", "matched ones count as idle");
    assert!(
        cluster.next.iter().any(|line| line.starts_with("1 idle job(s), the first 1.9, wait for a free slot")),
        "{cluster:?}"
    );
    assert!(cluster.steps.iter().any(|step| step.text.contains("at the silent starter on node1")), "{cluster:?}");
}

#[test]
fn a_cluster_counts_what_its_jobs_share() {
    let mut bench = Bench::with_jobs(vec![group(12, program(1))]);
    bench.join(12);
    for proc in 0..12 {
        let why = if proc < 11 { format!("no such file {}", proc / 6) } else { "not permitted".into() };
        bench.end(KEY, attempt(proc, 1), Outcome::Unrunnable(why));
    }
    let cluster = bench.pool.explain_cluster(bench.now, 1, &sites()).unwrap();
    let texts: Vec<_> = cluster.steps.iter().map(|step| step.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "6 job(s) held, such as 1.0: no such file 0",
            "5 job(s) held, such as 1.6: no such file 1",
            "1 job(s) held, such as 1.11: not permitted"
        ]
    );
    assert_eq!(cluster.state, "12 held");
    assert!(told(&bench, 3).ends_with("0 master: held: no such file 0\n"));
}

#[test]
fn a_removed_job_tells_who_did_it() {
    let mut bench = Bench::with_jobs(vec![group(3, program(1))]);
    bench.at(9).tell(Event::RemovalAsked { select: Select { clusters: [1].into(), jobs: BTreeSet::new() } });
    assert!(told(&bench, 1).ends_with("9 you: removed\n"));
}

#[test]
fn a_job_that_comes_and_goes_for_ever_keeps_its_last_steps() {
    let mut trail = Trail::new(attempt(0, 1).job, sites(), &Pool::new());
    for n in 0..1000 {
        trail.see(&Record::Dispatched { key: KEY, ids: vec![attempt(0, n)], at: Some(Time(n.into())) });
    }
    let (steps, dropped) = trail.steps();
    assert_eq!((steps.len(), dropped), (500, 500));
    assert_eq!(steps[499].text, "attempt 999 sent to starter 0000000000000007");
}

/// Records as versions wrote them before they had times.
#[test]
fn journals_of_earlier_versions_are_read() {
    #[derive(Encode)]
    enum Earlier {
        #[n(1)]
        StarterJoined {
            #[n(0)]
            key: StarterKey,
            #[n(1)]
            offer: Offer,
        },
        #[n(2)]
        StarterGone {
            #[n(0)]
            key: StarterKey,
        },
        #[n(3)]
        Dispatched {
            #[n(0)]
            key: StarterKey,
            #[n(1)]
            ids: Vec<AttemptId>,
        },
        #[n(4)]
        Returned {
            #[n(0)]
            key: StarterKey,
            #[n(1)]
            ids: Vec<AttemptId>,
        },
        #[n(6)]
        SiteFailed {
            #[n(0)]
            at: Time,
            #[n(1)]
            id: AttemptId,
            #[n(2)]
            why: String,
        },
    }
    let mut bench = Bench::with_jobs(vec![group(1, program(1))]);
    bench.drain();
    let ids = |n| vec![attempt(0, n)];
    let earlier = [
        Earlier::StarterJoined { key: KEY, offer: offer(1) },
        Earlier::Dispatched { key: KEY, ids: ids(1) },
        Earlier::Returned { key: KEY, ids: ids(1) },
        Earlier::Dispatched { key: KEY, ids: ids(2) },
        Earlier::SiteFailed { at: Time(7000), id: attempt(0, 2), why: "burnt".into() },
        Earlier::StarterGone { key: KEY },
    ];
    for record in earlier {
        let record: Record = minicbor::decode(&minicbor::to_vec(record).unwrap()).unwrap();
        bench.pool.apply(&record);
        bench.log.push(record);
    }
    assert_eq!((bench.state(0), bench.pool.starters().count()), (JobState::Idle, 0));
    let expected = "? master: attempt 1 sent to node1 (proxy tundra/1)
? master: attempt 1 came back unstarted; the job is idle again
? master: attempt 2 sent to node1 (proxy tundra/1)
? agent of tundra: the starter on node1 (proxy tundra/1) has ended: the record doesn't tell why
7 master: attempt 2 was failed by its site (burnt); the job is idle again
";
    assert!(told(&bench, 0).ends_with(expected), "{}", told(&bench, 0));
}

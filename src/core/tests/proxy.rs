//! The proxies of a site: tables of cases, and a simulated site with faults and a checker that knows nothing of the machine.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use vo_core::ids::{ProxyId, StarterKey};
use vo_core::proxy::{Action, Config, Event, Exit, Proxies, Record, Row, RowStatus, State, SubmitAnswer, Topic};
use vo_core::time::Time;

const STATUS: Duration = Duration::from_secs(60);
const LEASE: Duration = Duration::from_secs(600);
const ABSENCE: Duration = Duration::from_secs(1200);
const ONE: ProxyId = ProxyId(1);
const KEY: StarterKey = StarterKey(7);

fn config() -> Config {
    Config { nodes: 1, queued_permille: 150, queued_base: 2, status: STATUS, lease: LEASE, absence: ABSENCE }
}

fn exit(code: &str, restarts: u32) -> Exit {
    Exit { code: code.to_owned(), restarts }
}

/// A machine with its driver: everything is durable at once.
struct Site {
    machine: Proxies,
    now: Time,
    log: Vec<Record>,
    actions: Vec<Action>,
}

impl Site {
    fn new(target: u32) -> Site {
        let mut site =
            Site { machine: Proxies::new("vo-s-", 1), now: Time(1_000_000), log: Vec::new(), actions: Vec::new() };
        site.tell(Event::Recovered);
        site.tell(Event::Configured(config()));
        site.tell(Event::TargetSet(target));
        site
    }

    /// One proxy, queued as batch job 100.
    fn queued() -> Site {
        let mut site = Site::new(1);
        site.answer(1, SubmitAnswer::Accepted("100".to_owned()));
        site
    }

    /// One proxy, its starter connected.
    fn running() -> Site {
        let mut site = Site::queued();
        site.call("100", 0);
        site
    }

    fn tell(&mut self, event: Event) {
        self.machine.handle(self.now, event);
        self.log.extend(std::iter::from_fn(|| self.machine.poll_record()));
        self.actions.extend(std::iter::from_fn(|| self.machine.poll_action()).map(|(_, action)| action));
    }

    fn answer(&mut self, attempt: u32, answer: SubmitAnswer) {
        self.tell(Event::SubmitAnswered { proxy: ONE, attempt, answer });
    }

    fn call(&mut self, batch_id: &str, restarts: u32) {
        self.tell(Event::StarterConnected { proxy: ONE, node: 0, key: KEY, batch_id: batch_id.to_owned(), restarts });
    }

    fn lose(&mut self, left: Option<&str>) {
        let left = left.map(str::to_owned);
        self.tell(Event::StarterLost { proxy: ONE, key: KEY, left, heard: self.now, why: "broken".to_owned() });
    }

    /// Lets time pass, and answers the status calls of that time with `rows`; every other call fails.
    fn pass(&mut self, span: Duration, rows: &[Row]) {
        let end = self.now + span;
        loop {
            for action in std::mem::take(&mut self.actions) {
                match action {
                    Action::QueryStatus => self.tell(Event::StatusListed(rows.to_vec())),
                    Action::QueryAccounting => self.tell(Event::AccountingFailed { never: false }),
                    Action::ReadTags => self.tell(Event::TagsFailed),
                    _ => {}
                }
            }
            let next = self.machine.deadline().filter(|&at| at <= end);
            self.now = next.unwrap_or(end).max(self.now);
            if next.is_none() {
                return;
            }
            self.tell(Event::DeadlinePassed);
        }
    }

    /// The next reading of tags and exit files, which is due two seconds after a change.
    fn read(&mut self, tags: &[ProxyId], exits: &[(ProxyId, &str)]) {
        self.tell(Event::TagsFailed);
        self.actions.clear();
        self.now = self.now + Duration::from_secs(2);
        self.tell(Event::DeadlinePassed);
        assert!(self.actions.contains(&Action::ReadTags));
        let exits = exits.iter().map(|&(id, code)| (id, exit(code, 0))).collect();
        self.tell(Event::TagsListed { tags: tags.iter().map(|&id| (id, 0)).collect(), exits });
    }

    fn state(&self) -> State {
        self.machine.view(ONE).unwrap().state
    }

    fn why(&self) -> String {
        self.machine.view(ONE).unwrap().why.to_owned()
    }

    /// The tokens submitted since the last look.
    fn submitted(&mut self) -> Vec<String> {
        let tokens = self.actions.iter().filter_map(|a| match a {
            Action::SubmitProxy { token, .. } => Some(token.clone()),
            _ => None,
        });
        let tokens = tokens.collect();
        self.actions.clear();
        tokens
    }
}

fn row(token: &str, id: &str, status: RowStatus) -> Row {
    Row { token: token.to_owned(), batch_id: id.to_owned(), status, restarts: 0 }
}

fn listed(status: RowStatus) -> Event {
    Event::StatusListed(vec![row("vo-s-1-1", "100", status)])
}

#[test]
fn a_restart_that_a_starter_tells_first_gets_its_tags_again() {
    let mut site = Site::running();
    site.lose(None);
    site.actions.clear();
    site.call("100", 0);
    assert!(!site.actions.contains(&Action::MakeTags(ONE)));
    site.call("100", 1);
    assert!(site.actions.contains(&Action::MakeTags(ONE)));
}

#[test]
fn an_unclear_answer_that_its_starter_settles_stops_no_submission() {
    let mut site = Site::new(1);
    site.answer(1, SubmitAnswer::Unclear("timed out".to_owned()));
    site.tell(Event::StatusFailed("timed out".to_owned()));
    site.call("100", 0);
    site.lose(Some("idle"));
    site.read(&[], &[(ONE, "0")]);
    assert_eq!(site.state(), State::Exit);
    site.pass(STATUS * 10, &[]);
    let next = site.machine.view(ProxyId(2)).map(|view| view.state);
    assert_eq!(next, Some(State::Submitting));
}

#[test]
fn evidence_moves_a_queued_proxy() {
    fn check(event: Event, state: State, why: &str) {
        let mut site = Site::queued();
        site.pass(STATUS * 2, &[row("vo-s-1-1", "100", RowStatus::Pending("Priority".into()))]);
        site.tell(event.clone());
        assert_eq!(site.state(), state, "{event:?}");
        assert!(site.why().contains(why), "{event:?}: {}", site.why());
    }
    let tags = |tags: &[(ProxyId, u32)], exits: &[(ProxyId, &str)]| Event::TagsListed {
        tags: tags.iter().copied().collect(),
        exits: exits.iter().map(|&(id, code)| (id, exit(code, 0))).collect(),
    };
    let starter = |batch_id: &str| Event::StarterConnected {
        proxy: ONE,
        node: 0,
        key: KEY,
        batch_id: batch_id.into(),
        restarts: 0,
    };
    check(listed(RowStatus::Pending("Resources".into())), State::Pend, "Resources");
    check(listed(RowStatus::Running), State::Run, "no starter");
    check(listed(RowStatus::Ended("cancelled".into())), State::Exit, "cancelled");
    check(listed(RowStatus::Ending), State::Pend, "ending");
    check(listed(RowStatus::Unclear("SPLENDID".into())), State::Pend, "SPLENDID");
    check(Event::StatusListed(Vec::new()), State::Unknown, "doesn't list");
    check(Event::StatusFailed("Socket timed out".into()), State::Pend, "Priority");
    check(Event::AccountingFailed { never: true }, State::Pend, "Priority");
    check(tags(&[(ONE, 0)], &[]), State::Pend, "Priority");
    check(tags(&[], &[]), State::Exit, "tags are gone");
    check(tags(&[(ONE, 0)], &[(ONE, "1")]), State::Exit, "exit code 1");
    check(Event::TagsFailed, State::Pend, "Priority");
    check(starter("100"), State::Run, "connected");
    check(starter(""), State::Run, "connected");
}

#[test]
fn a_connected_starter_is_stronger_than_a_row() {
    for status in [RowStatus::Pending("BeginTime".into()), RowStatus::Ending, RowStatus::Ended("node fail".into())] {
        let mut site = Site::running();
        site.pass(STATUS, &[]);
        site.tell(listed(status.clone()));
        assert_eq!(site.state(), State::Run, "{status:?}");
        site.tell(Event::StatusListed(Vec::new()));
        assert_eq!(site.state(), State::Run);
    }
    // Once it is gone, what the batch system said counts.
    let mut site = Site::running();
    site.tell(listed(RowStatus::Ended("preempted".into())));
    site.lose(None);
    assert_eq!((site.state(), site.why().as_str()), (State::Exit, "preempted"));
}

#[test]
fn every_answer_to_a_submission() {
    fn check(answer: SubmitAnswer, state: State, note: Option<(Topic, bool)>, again: bool) {
        let mut site = Site::new(1);
        assert_eq!(site.submitted(), ["vo-s-1-1"]);
        site.answer(1, answer.clone());
        assert_eq!(site.state(), state, "{answer:?}");
        let notes: Vec<_> = site.machine.notes().map(|note| (note.topic, note.blocks())).collect();
        assert_eq!(notes, Vec::from_iter(note), "{answer:?}");
        site.pass(STATUS * 3, &[]);
        let intents = site.log.iter().filter(|r| matches!(r, Record::SubmitIntended(..))).count();
        assert_eq!(intents > 1, again, "{answer:?}");
    }
    check(SubmitAnswer::Accepted("100".into()), State::Pend, None, false);
    check(SubmitAnswer::Refused("invalid partition".into()), State::Exit, Some((Topic::Refused, true)), false);
    check(
        SubmitAnswer::Limited("QOSMaxSubmitJobPerUserLimit".into()),
        State::Wanted,
        Some((Topic::Limited, false)),
        true,
    );
    check(SubmitAnswer::Unclear("Socket timed out".into()), State::Submitting, None, true);
}

#[test]
fn what_was_read_before_a_batch_job_was_started_anew_proves_nothing() {
    let again = || {
        let mut site = Site::queued();
        site.now = site.now + STATUS * 2;
        site.tell(Event::DeadlinePassed);
        assert!(site.actions.contains(&Action::ReadTags));
        site.now = site.now + Duration::from_secs(3);
        site.tell(Event::StatusListed(vec![Row { restarts: 2, ..row("vo-s-1-1", "100", RowStatus::Running) }]));
        assert!(site.actions.contains(&Action::MakeTags(ONE)));
        site
    };
    for restarts in [0, 1, 2] {
        let mut site = again();
        site.tell(Event::TagsListed { tags: BTreeSet::new(), exits: [(ONE, exit("0", restarts))].into() });
        assert_eq!(site.state(), State::Run, "as of restart {restarts}");
    }
    // However late it was read, a script tells of its own start of the batch job.
    for (restarts, state) in [(0, State::Run), (1, State::Run), (2, State::Exit)] {
        let mut site = again();
        site.tell(Event::StarterConnected { proxy: ONE, node: 0, key: KEY, batch_id: "100".into(), restarts: 2 });
        site.lose(None);
        site.now = site.now + Duration::from_secs(2);
        site.tell(Event::TagsFailed);
        site.tell(Event::TagsListed { tags: [(ONE, 0)].into(), exits: [(ONE, exit("0", restarts))].into() });
        assert_eq!(site.state(), state, "as of restart {restarts}");
    }
}

#[test]
fn an_unclear_submission_is_looked_up_before_the_next() {
    let lost = || {
        let mut site = Site::new(1);
        site.submitted();
        site.answer(1, SubmitAnswer::Unclear("Socket timed out".into()));
        site
    };
    // Found: adopted.
    let mut site = lost();
    site.tell(listed(RowStatus::Running));
    assert_eq!((site.state(), site.machine.view(ONE).unwrap().batch_id), (State::Run, Some("100")));
    // Absent once, or with failures between: nothing.
    let mut site = lost();
    site.tell(Event::StatusListed(Vec::new()));
    site.now = site.now + STATUS * 9;
    site.tell(Event::StatusFailed("down".into()));
    assert_eq!((site.state(), site.submitted()), (State::Submitting, Vec::new()));
    // Absent from two listings that lie apart: again, under another name; the first one is cancelled should it appear after all.
    let mut site = lost();
    site.pass(STATUS * 2, &[]);
    let intents: Vec<_> =
        site.log.iter().filter_map(|r| if let Record::SubmitIntended(_, n, _) = r { Some(*n) } else { None }).collect();
    assert_eq!(intents, [1, 2]);
    site.answer(2, SubmitAnswer::Accepted("200".into()));
    site.actions.clear();
    site.tell(Event::StatusListed(vec![
        row("vo-s-1-1", "100", RowStatus::Running),
        row("vo-s-1-2", "200", RowStatus::Running),
    ]));
    assert!(site.actions.contains(&Action::CancelProxies(vec!["100".into()])), "{:?}", site.actions);
    // So is what bears a name of ours and is not known: the records of its time are lost.
    site.tell(Event::CancelAnswered(None));
    site.actions.clear();
    site.tell(Event::StatusListed(vec![
        row("vo-s-x-1-1", "50", RowStatus::Running),
        row("vo-s-1-2", "200", RowStatus::Running),
    ]));
    assert!(site.actions.contains(&Action::CancelProxies(vec!["50".into()])), "{:?}", site.actions);
    // And its starter is sent away.
    site.call("100", 0);
    assert!(site.actions.iter().any(|a| matches!(a, Action::EndStarter(KEY, _))));
    // The starter itself is evidence, too.
    let mut site = lost();
    site.call("100", 0);
    assert_eq!((site.state(), site.machine.view(ONE).unwrap().batch_id), (State::Run, Some("100")));
}

#[test]
fn what_is_being_cancelled_gets_no_work() {
    let mut site = Site::new(1);
    // It was accepted, whatever the answer says.
    site.answer(1, SubmitAnswer::Limited("too many jobs".into()));
    site.pass(STATUS, &[]);
    site.answer(2, SubmitAnswer::Limited("too many jobs".into()));
    site.actions.clear();
    site.tell(listed(RowStatus::Pending("Priority".into())));
    assert!(site.actions.contains(&Action::CancelProxies(vec!["100".into()])), "{:?}", site.actions);
    // The cancel is taken, and nothing comes of it for now.
    site.tell(Event::CancelAnswered(None));
    site.call("100", 0);
    assert!(site.actions.iter().any(|a| matches!(a, Action::EndStarter(KEY, _))), "{:?}", site.actions);
}

#[test]
fn a_proxy_that_nobody_shows_is_lost_in_the_end() {
    let mut site = Site::queued();
    site.pass(LEASE / 2, &[]);
    assert_eq!(site.state(), State::Unknown);
    site.pass(LEASE * 2, &[]);
    assert_eq!(site.state(), State::Exit);
    assert!(site.why().starts_with("lost"), "{}", site.why());
    // Without good listings it stays as it is, however long that takes.
    let mut site = Site::queued();
    site.tell(Event::StatusFailed("down".into()));
    site.now = site.now + LEASE * 100;
    site.tell(Event::StatusFailed("down".into()));
    assert_eq!(site.state(), State::Pend);
}

#[test]
fn accounting_tells_how_it_ended() {
    let mut site = Site::queued();
    site.pass(STATUS * 2, &[]);
    assert_eq!(site.state(), State::Unknown);
    site.tell(Event::AccountingListed(vec![row("vo-s-1-1", "100", RowStatus::Running)]));
    assert_eq!(site.state(), State::Unknown);
    site.tell(Event::AccountingListed(vec![row("vo-s-1-1", "100", RowStatus::Ended("NODE_FAIL".into()))]));
    assert_eq!((site.state(), site.why().as_str()), (State::Exit, "accounting: NODE_FAIL"));
}

#[test]
fn a_silent_starter_is_gone_by_evidence_only() {
    fn gone(site: &Site) -> Option<&str> {
        site.actions.iter().find_map(|a| match a {
            Action::StarterDown { key: KEY, gone: true, why } => Some(why.as_str()),
            _ => None,
        })
    }
    let running = row("vo-s-1-1", "100", RowStatus::Running);
    let mut site = Site::running();
    site.lose(None);
    assert!(site.actions.iter().any(|a| matches!(a, Action::StarterDown { gone: false, .. })));
    assert_eq!(gone(&site), None);
    site.read(&[ONE], &[]);
    assert_eq!(gone(&site), None);
    // It may come back.
    site.call("100", 0);
    assert_eq!(site.machine.view(ONE).unwrap().connected, 1);
    // Its tag is gone.
    site.lose(None);
    site.read(&[], &[]);
    assert_eq!((gone(&site), site.state()), (Some("its proxy ended: its job tags are gone"), State::Exit));
    // It said that it leaves.
    let mut site = Site::running();
    site.lose(Some("idle"));
    assert_eq!(gone(&site), Some("it left: idle"));
    // Its lease is over.
    let mut site = Site::running();
    site.lose(None);
    site.pass(LEASE - Duration::from_secs(1), std::slice::from_ref(&running));
    assert!(!site.log.iter().any(|r| matches!(r, Record::StarterGone(..))));
    site.pass(Duration::from_secs(2), std::slice::from_ref(&running));
    assert!(site.log.iter().any(|r| matches!(r, Record::StarterGone(_, _, why, _) if why == "its lease is over")));
}

#[test]
fn a_requeued_batch_job_is_the_same_proxy() {
    let mut site = Site::running();
    site.lose(None);
    site.now = site.now + STATUS;
    site.actions.clear();
    let again = Row { restarts: 1, ..row("vo-s-1-1", "100", RowStatus::Pending("BeginTime".into())) };
    site.tell(Event::StatusListed(vec![again]));
    assert_eq!(site.state(), State::Pend);
    assert!(site.actions.contains(&Action::MakeTags(ONE)));
    // A starter of its first life is none of this one.
    site.call("100", 0);
    assert!(site.actions.iter().any(|a| matches!(a, Action::EndStarter(..))));
    site.tell(Event::StarterConnected { proxy: ONE, node: 0, key: StarterKey(8), batch_id: "100".into(), restarts: 1 });
    assert_eq!(site.state(), State::Run);
}

#[test]
fn status_calls_are_rare() {
    fn check(mut site: Site, rows: &[Row], most: usize) {
        let mut calls = Vec::new();
        site.actions.clear();
        for _ in 0..36_000 {
            site.now = site.now + Duration::from_millis(100);
            if site.machine.deadline().is_some_and(|at| at <= site.now) {
                site.tell(Event::DeadlinePassed);
            }
            for action in std::mem::take(&mut site.actions) {
                match action {
                    Action::QueryStatus => {
                        calls.push(site.now);
                        site.tell(Event::StatusListed(rows.to_vec()));
                    }
                    Action::ReadTags => site.tell(Event::TagsFailed),
                    _ => {}
                }
            }
        }
        assert!(calls.windows(2).all(|pair| pair[1].since(pair[0]) >= STATUS), "{calls:?}");
        assert!(calls.len() <= most, "{} calls in an hour", calls.len());
    }
    check(Site::new(0), &[], 0);
    check(Site::queued(), &[row("vo-s-1-1", "100", RowStatus::Pending(String::new()))], 60);
    check(Site::running(), &[row("vo-s-1-1", "100", RowStatus::Running)], 6);
}

#[test]
fn proxies_that_never_call_are_spaced_out() {
    let mut site = Site::new(1);
    let mut at = Vec::new();
    for number in 1..=6u64 {
        while site.submitted().is_empty() {
            site.now = site.machine.deadline().unwrap();
            site.tell(Event::DeadlinePassed);
        }
        at.push(site.now);
        let (proxy, id) = (ProxyId(number), format!("{number}"));
        site.tell(Event::SubmitAnswered { proxy, attempt: 1, answer: SubmitAnswer::Accepted(id) });
        site.read(&[proxy], &[(proxy, "1")]);
    }
    let waits: Vec<u64> = at.windows(2).map(|pair| pair[1].since(pair[0]).as_secs() / 60).collect();
    assert_eq!(waits, [0, 0, 1, 2, 4]);
    let note = site.machine.notes().next().unwrap();
    assert_eq!((note.topic, note.blocks(), note.proxy), (Topic::Barren, false, Some(ProxyId(6))));
}

#[test]
fn the_queue_is_throttled_and_the_target_kept() {
    let mut site = Site::new(40);
    let mut accepted = 0;
    let mut running = BTreeSet::new();
    for _ in 0..1000 {
        for action in std::mem::take(&mut site.actions) {
            if let Action::SubmitProxy { proxy, attempt, .. } = action {
                accepted += 1;
                site.tell(Event::SubmitAnswered {
                    proxy,
                    attempt,
                    answer: SubmitAnswer::Accepted(format!("{}", proxy.0)),
                });
            }
        }
        let queued: Vec<_> =
            site.machine.views().filter(|v| matches!(v.state, State::Submitting | State::Pend)).map(|v| v.id).collect();
        assert!(queued.len() <= running.len() * 150 / 1000 + 2, "{} queued, {} run", queued.len(), running.len());
        if let Some(&proxy) = queued.first() {
            running.insert(proxy);
            let (key, batch_id) = (StarterKey(proxy.0), format!("{}", proxy.0));
            site.tell(Event::StarterConnected { proxy, node: 0, key, batch_id, restarts: 0 });
        }
    }
    assert_eq!((accepted, running.len()), (40, 40));
    // Fewer end none that runs, and replace none that ends.
    site.tell(Event::TargetSet(10));
    site.tell(Event::StarterLost { proxy: ONE, key: StarterKey(1), left: None, heard: site.now, why: String::new() });
    site.read(&[ONE], &[(ONE, "0")]);
    assert_eq!(site.machine.views().filter(|v| v.state == State::Run).count(), 39);
    assert!(site.submitted().is_empty());
}

#[test]
fn a_master_that_stays_away_loses_what_waits_and_nothing_that_works() {
    const MISSED: &str = "no word";
    let state = |site: &Site, id: u64| site.machine.view(ProxyId(id)).map(|view| (view.state, view.why.to_owned()));
    // One runs, one waits, one is to be submitted.
    let mut site = Site::running();
    site.tell(Event::TargetSet(3));
    site.tell(Event::SubmitAnswered {
        proxy: ProxyId(2),
        attempt: 1,
        answer: SubmitAnswer::Accepted("101".to_owned()),
    });
    site.actions.clear();
    site.tell(Event::MasterLink(false));
    site.tell(Event::MasterMissed(MISSED.to_owned()));
    assert_eq!(site.actions.iter().filter(|a| matches!(a, Action::CancelProxies(_))).count(), 1);
    assert!(site.actions.contains(&Action::CancelProxies(vec!["101".to_owned()])), "{:?}", site.actions);
    assert_eq!(state(&site, 1).unwrap().0, State::Run);
    assert_eq!(state(&site, 2).unwrap(), (State::Pend, MISSED.to_owned()));
    // A submission under way ends the same way.
    site.tell(Event::CancelAnswered(None));
    site.actions.clear();
    site.tell(Event::SubmitAnswered {
        proxy: ProxyId(3),
        attempt: 1,
        answer: SubmitAnswer::Accepted("102".to_owned()),
    });
    assert!(site.actions.contains(&Action::CancelProxies(vec!["102".to_owned()])), "{:?}", site.actions);
    site.tell(Event::CancelAnswered(None));
    // It goes on: its starter may come and go as ever, and nothing takes its place when it has run out.
    site.lose(None);
    site.call("100", 0);
    assert!(site.actions.contains(&Action::Welcome(KEY)));
    site.lose(Some("idle for 20m"));
    site.read(&[], &[(ONE, "0"), (ProxyId(2), "143"), (ProxyId(3), "143")]);
    assert_eq!((site.state(), site.submitted().len()), (State::Exit, 0));
    // A master that is back is served as before.
    site.tell(Event::MasterLink(true));
    site.tell(Event::TargetSet(1));
    assert_eq!(site.submitted().len(), 1);

    // A restarted batch system may list as pending what runs.
    let mut site = Site::running();
    site.lose(None);
    site.tell(listed(RowStatus::Pending("restarted".to_owned())));
    assert_eq!(site.state(), State::Pend);
    site.actions.clear();
    site.tell(Event::MasterMissed(MISSED.to_owned()));
    assert!(!site.actions.iter().any(|a| matches!(a, Action::CancelProxies(_))), "{:?}", site.actions);
}

#[test]
fn without_a_master_nothing_is_submitted_after_a_while() {
    let mut site = Site::running();
    site.tell(Event::MasterLink(true));
    site.tell(Event::MasterLink(false));
    let ended = |site: &mut Site| {
        site.lose(Some("walltime"));
        site.read(&[], &[(ONE, "0")]);
        site.submitted()
    };
    assert_eq!(ended(&mut site).len(), 1, "the master may be back any moment");
    let mut site = Site::running();
    site.tell(Event::MasterLink(true));
    site.tell(Event::MasterLink(false));
    site.pass(ABSENCE, &[row("vo-s-1-1", "100", RowStatus::Running)]);
    assert_eq!(ended(&mut site).len(), 0);
    site.tell(Event::MasterLink(true));
    assert_eq!(site.submitted().len(), 1);
}

#[test]
fn a_refusal_blocks_until_someone_acts() {
    let mut site = Site::new(3);
    site.submitted();
    site.answer(1, SubmitAnswer::Refused("invalid partition".into()));
    site.pass(STATUS * 60, &[]);
    assert!(site.submitted().is_empty());
    site.tell(Event::TargetSet(3));
    assert_eq!(site.submitted().len(), 1);
    assert_eq!(site.machine.notes().count(), 0);
}

#[test]
fn a_shutdown_is_complete_when_a_later_listing_is_clean() {
    let complete = |site: &Site| site.actions.contains(&Action::ShutdownComplete);
    // Lets the next status call begin, if none has begun.
    let ask = |site: &mut Site| {
        while !site.actions.contains(&Action::QueryStatus) {
            site.now = site.machine.deadline().unwrap();
            site.tell(Event::DeadlinePassed);
            assert!(!complete(site), "nobody has agreed");
        }
    };
    let answer = |site: &mut Site, event| {
        site.actions.clear();
        site.tell(event);
    };
    let mut site = Site::running();
    site.tell(Event::ShutdownAsked);
    site.tell(Event::CancelAnswered(None));
    site.lose(Some("the session ends"));
    assert!(site.actions.contains(&Action::QueryStatus));
    site.read(&[], &[(ONE, "0")]);
    assert_eq!(site.state(), State::Exit);
    assert!(!complete(&site), "no listing came");
    // One that began before the end proves nothing: the batch job may have been on its way into it.
    answer(&mut site, Event::StatusListed(Vec::new()));
    assert!(!complete(&site), "an old listing");
    for unclean in [
        RowStatus::Ending,
        RowStatus::Running,
        RowStatus::Pending("Held".into()),
        RowStatus::Unclear("SPLENDID".into()),
    ] {
        ask(&mut site);
        answer(&mut site, listed(unclean.clone()));
        assert!(!complete(&site), "{unclean:?}");
        // Those that don't end are cancelled once more.
        site.tell(Event::CancelAnswered(None));
        assert!(!complete(&site), "{unclean:?}");
    }
    ask(&mut site);
    answer(&mut site, Event::StatusFailed("timed out".into()));
    assert!(!complete(&site), "no answer");
    ask(&mut site);
    answer(&mut site, listed(RowStatus::Ended("cancelled".into())));
    assert!(complete(&site));

    // Nor while a cancel command runs, which may be about to fail.
    let mut site = Site::running();
    site.tell(Event::ShutdownAsked);
    site.lose(Some("the session ends"));
    site.read(&[], &[(ONE, "0")]);
    answer(&mut site, Event::StatusListed(Vec::new()));
    ask(&mut site);
    answer(&mut site, Event::StatusListed(Vec::new()));
    assert!(!complete(&site), "a cancel command runs");
    site.tell(Event::CancelAnswered(None));
    assert!(complete(&site));

    // Where nothing was ever submitted there is nobody to ask.
    let mut site = Site::new(0);
    site.tell(Event::ShutdownAsked);
    assert!(complete(&site) && !site.actions.contains(&Action::QueryStatus));
}

#[test]
fn folding_gives_the_same_state() {
    let mut site = Site::running();
    site.lose(None);
    site.tell(Event::TargetSet(3));
    for events in [Event::RemovalAsked(vec![ProxyId(2)]), listed(RowStatus::Running)] {
        site.tell(events);
    }
    for records in [site.log.clone(), site.machine.snapshot()] {
        let mut again = Proxies::new("vo-s-", 2);
        records.iter().for_each(|record| again.apply(record));
        let show = |machine: &Proxies| {
            machine
                .views()
                .map(|v| format!("{:?} {:?} {:?} {:?}", v.id, v.state, v.since, v.batch_id))
                .collect::<Vec<_>>()
        };
        assert_eq!(show(&again), show(&site.machine));
        assert_eq!(again.starters().count(), 1);
    }
}

// ---- a simulated site

/// Minimal and good enough: SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

#[derive(Clone, Debug)]
struct Batch {
    id: String,
    proxy: ProxyId,
    token: String,
    queued: bool,
    ended: Option<u64>,
    key: StarterKey,
    connected: bool,
}

#[derive(Clone, Debug)]
enum Happening {
    /// The records up to this one reach the disk.
    Synced(u64, u64),
    /// An answer to the agent of this life.
    Answer(u64, Event),
    /// The batch system takes a submission in.
    Accept(String),
    Start(String),
    Call(String),
    Hangup(String),
    End(String),
    Cancel(Vec<String>),
    Crash,
}

struct World {
    now: u64,
    random: Random,
    faults: bool,
    life: u64,
    machine: Proxies,
    disk: Vec<Record>,
    unsynced: Vec<Record>,
    synced: u64,
    held: Vec<(u64, Action)>,
    agenda: BTreeMap<(u64, u64), Happening>,
    count: u64,
    batch: Vec<Batch>,
    tags: BTreeSet<(ProxyId, u32)>,
    exits: BTreeMap<ProxyId, Exit>,
    last_status: Option<u64>,
    closing: bool,
    complete: bool,
}

impl World {
    fn new(seed: u64) -> World {
        let mut world = World {
            now: 1_000,
            random: Random(seed),
            faults: true,
            life: 0,
            machine: Proxies::new("vo-s-", seed),
            disk: Vec::new(),
            unsynced: Vec::new(),
            synced: 0,
            held: Vec::new(),
            agenda: BTreeMap::new(),
            count: 0,
            batch: Vec::new(),
            tags: BTreeSet::new(),
            exits: BTreeMap::new(),
            last_status: None,
            closing: false,
            complete: false,
        };
        world.start();
        world
    }

    fn later(&mut self, most: u64, happening: Happening) {
        let at = self.now + 1 + self.random.below(most);
        self.count += 1;
        self.agenda.insert((at, self.count), happening);
    }

    /// A new agent reads what the old one left.
    fn start(&mut self) {
        self.life += 1;
        self.machine = Proxies::new("vo-s-", self.random.next());
        self.disk.iter().for_each(|record| self.machine.apply(record));
        self.unsynced.clear();
        self.synced = 0;
        self.held.clear();
        for batch in &mut self.batch {
            batch.connected = false;
        }
        self.last_status = None;
        self.tell(Event::Recovered);
        self.tell(Event::Configured(config()));
        self.tell(Event::TargetSet(4));
        self.tell(Event::MasterLink(true));
        let live: Vec<_> = self.batch.iter().filter(|b| !b.queued && b.ended.is_none()).map(|b| b.id.clone()).collect();
        for id in live {
            self.later(30_000, Happening::Call(id));
        }
    }

    fn tell(&mut self, event: Event) {
        self.machine.handle(Time(self.now), event);
        let before = self.synced + self.unsynced.len() as u64;
        self.unsynced.extend(std::iter::from_fn(|| self.machine.poll_record()));
        let after = self.synced + self.unsynced.len() as u64;
        self.held.extend(std::iter::from_fn(|| self.machine.poll_action()));
        if after > before {
            let life = self.life;
            self.later(500, Happening::Synced(life, after));
        }
        self.release();
    }

    fn release(&mut self) {
        while self.held.first().is_some_and(|(after, _)| *after <= self.synced) {
            let (_, action) = self.held.remove(0);
            self.perform(action);
        }
    }

    fn answer(&mut self, most: u64, event: Event) {
        let life = self.life;
        self.later(most, Happening::Answer(life, event));
    }

    fn perform(&mut self, action: Action) {
        let fault = self.faults && self.random.chance(25);
        match action {
            Action::SubmitProxy { proxy, attempt, token } => {
                self.tags.insert((proxy, 0));
                let answer = |answer| Event::SubmitAnswered { proxy, attempt, answer };
                if fault {
                    match self.random.below(4) {
                        0 => self.answer(5_000, answer(SubmitAnswer::Limited("limit".into()))),
                        1 => self.answer(10_000, answer(SubmitAnswer::Unclear("not accepted".into()))),
                        2 => {
                            // The batch system is slow: it takes it in after it has given up.
                            self.answer(10_000, answer(SubmitAnswer::Unclear("accepted".into())));
                            self.later(50_000, Happening::Accept(token));
                        }
                        _ => {
                            self.later(5_000, Happening::Accept(token));
                            self.later(5_000, Happening::Crash);
                        }
                    }
                } else {
                    let id = self.accept(&token);
                    self.answer(3_000, answer(SubmitAnswer::Accepted(id)));
                }
            }
            Action::QueryStatus => {
                // A minute; but one of them may have waited for records before it.
                assert!(
                    self.closing || self.last_status.is_none_or(|last| self.now >= last + 59_000),
                    "status calls too close"
                );
                self.last_status = Some(self.now);
                if fault {
                    return self.answer(60_000, Event::StatusFailed("down".into()));
                }
                let shown = self.batch.iter().filter(|b| b.ended.is_none_or(|at| self.now < at + 100_000));
                let rows = shown.map(|b| {
                    row(
                        &b.token,
                        &b.id,
                        match (b.ended, b.queued) {
                            (Some(_), _) => RowStatus::Ended("done".into()),
                            (None, true) => RowStatus::Pending("Priority".into()),
                            (None, false) => RowStatus::Running,
                        },
                    )
                });
                let rows = rows.collect();
                self.answer(8_000, Event::StatusListed(rows));
            }
            Action::QueryAccounting => self.answer(8_000, Event::AccountingFailed { never: false }),
            Action::ReadTags if fault => self.answer(500, Event::TagsFailed),
            Action::ReadTags => {
                self.answer(500, Event::TagsListed { tags: self.tags.clone(), exits: self.exits.clone() })
            }
            Action::CancelProxies(ids) if fault => {
                drop(ids);
                self.answer(10_000, Event::CancelAnswered(Some("busy".into())));
            }
            Action::CancelProxies(ids) => {
                self.later(5_000, Happening::Cancel(ids));
                self.answer(5_000, Event::CancelAnswered(None));
            }
            Action::EndStarter(key, _) => {
                if let Some(batch) = self.batch.iter().find(|b| b.key == key) {
                    let id = batch.id.clone();
                    self.later(2_000, Happening::End(id));
                }
            }
            Action::MakeTags(proxy) => drop(self.tags.insert((proxy, 0))),
            Action::CleanProxy(proxy) => self.tags.retain(|(id, _)| *id != proxy),
            Action::ShutdownComplete => self.complete = true,
            Action::Welcome(_)
            | Action::StarterDown { .. }
            | Action::ReportProxies(_)
            | Action::ReportNote(_)
            | Action::RemoveFiles(_) => {}
        }
    }

    fn accept(&mut self, token: &str) -> String {
        let proxy = ProxyId(token.strip_prefix("vo-s-").unwrap().split('-').next().unwrap().parse().unwrap());
        // The checker: a proxy is in the batch system once.
        let twice = self.batch.iter().find(|b| b.proxy == proxy);
        assert!(twice.is_none(), "{token} although there was {twice:?}");
        let id = format!("{}", self.batch.len() + 1000);
        let key = StarterKey(self.batch.len() as u64);
        self.batch.push(Batch {
            id: id.clone(),
            proxy,
            token: token.to_owned(),
            queued: true,
            ended: None,
            key,
            connected: false,
        });
        self.later(900_000, Happening::Start(id.clone()));
        id
    }

    fn find(&mut self, id: &str) -> Option<&mut Batch> {
        self.batch.iter_mut().find(|b| b.id == id && b.ended.is_none())
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Synced(life, upto) if life == self.life && upto > self.synced => {
                let records = usize::try_from(upto - self.synced).unwrap();
                self.disk.extend(self.unsynced.drain(..records));
                self.synced = upto;
                self.release();
            }
            Happening::Answer(life, event) if life == self.life => self.tell(event),
            Happening::Synced(..) | Happening::Answer(..) => {}
            Happening::Accept(token) => drop(self.accept(&token)),
            Happening::Crash => self.start(),
            Happening::Start(id) => {
                let barren = self.faults && self.random.chance(10);
                if let Some(batch) = self.find(&id) {
                    batch.queued = false;
                    if barren {
                        self.later(20_000, Happening::End(id));
                    } else {
                        self.later(20_000, Happening::Call(id.clone()));
                        self.later(7_200_000, Happening::End(id));
                    }
                }
            }
            Happening::Call(id) => {
                let Some(batch) = self.find(&id).filter(|b| !b.connected && !b.queued) else {
                    return;
                };
                batch.connected = true;
                let event = Event::StarterConnected {
                    proxy: batch.proxy,
                    node: 0,
                    key: batch.key,
                    batch_id: id.clone(),
                    restarts: 0,
                };
                self.tell(event);
                if self.faults && self.random.chance(30) {
                    self.later(600_000, Happening::Hangup(id));
                }
            }
            Happening::Hangup(id) => {
                if self.hang_up(&id) {
                    self.later(60_000, Happening::Call(id));
                }
            }
            Happening::End(id) => self.end(&id),
            Happening::Cancel(ids) => ids.iter().for_each(|id| self.end(id)),
        }
    }

    fn hang_up(&mut self, id: &str) -> bool {
        let now = Time(self.now);
        let Some(batch) = self.find(id).filter(|b| b.connected) else {
            return false;
        };
        batch.connected = false;
        let (proxy, key) = (batch.proxy, batch.key);
        self.tell(Event::StarterLost { proxy, key, left: None, heard: now, why: "reset".into() });
        true
    }

    fn end(&mut self, id: &str) {
        self.hang_up(id);
        let (now, clean) = (self.now, !self.faults || self.random.chance(70));
        if let Some(batch) = self.find(id) {
            batch.ended = Some(now);
            let proxy = batch.proxy;
            if clean {
                self.tags.remove(&(proxy, 0));
                self.exits.insert(proxy, exit("0", 0));
            }
        }
    }

    fn run(&mut self, span: u64, done: impl Fn(&World) -> bool) {
        let end = self.now + span;
        while !done(self) {
            let agenda = self.agenda.first_key_value().map(|(&(at, _), _)| at);
            let deadline = self.machine.deadline().map(|at| at.0.max(self.now));
            let Some(at) = agenda.into_iter().chain(deadline).min().filter(|&at| at <= end) else {
                self.now = end;
                return;
            };
            self.now = at;
            if agenda == Some(at) {
                let (_, happening) = self.agenda.pop_first().unwrap();
                self.happen(happening);
            } else {
                self.tell(Event::DeadlinePassed);
            }
        }
    }
}

const HOUR: u64 = 3_600_000;

#[test]
fn no_proxy_twice_and_none_left_behind() {
    for seed in 0..60 {
        let result = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            for _ in 0..8 {
                world.run(HOUR / 2, |_| false);
                world.start();
            }
            world.faults = false;
            let busy = |world: &World| {
                world.machine.views().filter(|v| v.state == State::Run && v.connected == 1).count() == 4
            };
            world.run(8 * HOUR, busy);
            assert!(busy(&world), "the target is not reached: {:?}", world.machine.views().collect::<Vec<_>>());
            let live = world.batch.iter().filter(|b| b.ended.is_none()).count();
            assert!(live >= 4, "{live}");
            world.closing = true;
            world.tell(Event::ShutdownAsked);
            world.run(HOUR, |world| world.complete);
            assert!(
                world.complete,
                "shutdown hangs: {:?} {:?}",
                world.machine.views().collect::<Vec<_>>(),
                world.machine.remains()
            );
            let left: Vec<_> = world.batch.iter().filter(|b| b.ended.is_none()).collect();
            assert!(left.is_empty(), "left: {left:?}");
        });
        assert!(result.is_ok(), "seed {seed}");
    }
}

/// The records of the first proxy in words, through what is stored.
fn told(site: &Site) -> Vec<String> {
    let stored = site.log.iter().map(|record| minicbor::decode::<Record>(&minicbor::to_vec(record).unwrap()).unwrap());
    let ours = stored.filter(|record| record.proxy() == Some(ONE));
    ours.map(|record| record.step())
        .map(|(at, text)| format!("{} {text}", at.map_or(0, |at| at.since(Time(1_000_000)).as_secs())))
        .collect()
}

fn waits(site: &Site) -> String {
    site.machine.explain(site.now, ONE).unwrap().1.join("\n")
}

#[test]
fn a_proxy_tells_its_records_with_times_and_what_it_waits_for() {
    let mut site = Site::new(1);
    assert_eq!(waits(&site), "the answer of the submit command");
    site.answer(1, SubmitAnswer::Accepted("100".to_owned()));
    assert!(waits(&site).contains("its start: a starter's call"), "{}", waits(&site));
    assert!(waits(&site).contains("the next status call, in 1m0s"), "{}", waits(&site));
    site.now = site.now + Duration::from_secs(30);
    site.call("100", 0);
    site.now = site.now + Duration::from_secs(30);
    site.lose(None);
    site.now = site.now + Duration::from_secs(60);
    let (seen, _) = site.machine.explain(site.now, ONE).unwrap();
    assert!(
        seen.iter().any(|(at, text)| *at == Some(Time(1_060_000)) && text == "the starter on node 0 is silent: broken")
    );
    assert!(waits(&site).contains("or the end of its lease in 9m0s"), "{}", waits(&site));
    site.tell(Event::RemovalAsked(vec![ONE]));
    assert!(waits(&site).contains("its end; it is cancelled"), "{}", waits(&site));
    site.tell(Event::TagsFailed);
    site.now = site.now + Duration::from_secs(60);
    site.tell(Event::DeadlinePassed);
    site.tell(Event::TagsListed { tags: [(ONE, 0)].into(), exits: [(ONE, exit("137", 0))].into() });
    let expected = [
        "0 the master wants one more",
        "0 submission 1 begins",
        "0 queued as batch job 100",
        "30 starter 0000000000000007 on node 0 calls for the first time",
        "30 RUN: starters are connected",
        "120 it is to end: removed, as asked",
        "180 EXIT: its script ended with exit code 137",
        "180 starter 0000000000000007 has ended: its proxy ended: its script ended with exit code 137",
    ];
    assert_eq!(told(&site), expected);
    assert_eq!(waits(&site), "nothing: it is forgotten after a while");
}

#[test]
fn a_lost_submission_and_an_unlisted_proxy_tell_what_would_settle_them() {
    let mut site = Site::new(1);
    site.answer(1, SubmitAnswer::Unclear("Socket timed out".to_owned()));
    let (seen, next) = site.machine.explain(site.now, ONE).unwrap();
    assert!(seen.iter().any(|(_, text)| text.contains("vo-s-1-1 is looked up")), "{seen:?}");
    assert!(
        next.contains(&"a listing that shows it, or two that don't: then it is submitted again".to_owned()),
        "{next:?}"
    );
    let mut site = Site::queued();
    site.pass(STATUS * 2, &[]);
    assert_eq!(site.state(), State::Unknown);
    let (seen, next) = site.machine.explain(site.now, ONE).unwrap();
    assert!(seen.iter().any(|(at, text)| at.is_some() && text == "the batch system doesn't list it"), "{seen:?}");
    assert!(next.iter().any(|text| text.starts_with("evidence of its end; it counts as lost in ")), "{next:?}");
}

#[test]
fn a_site_tells_why_no_more_is_submitted() {
    let check = |site: &Site, expected: &str| {
        let text = site.machine.explain_site(site.now).1[0].clone();
        assert!(text.starts_with(expected), "{text}\nnot {expected}");
    };
    let site = Site { machine: Proxies::new("vo-s-", 1), now: Time(0), log: Vec::new(), actions: Vec::new() };
    check(&site, "a master's word on how many proxies it wants");
    let mut site = Site::new(3);
    check(&site, "the answer of a submit command");
    site.answer(1, SubmitAnswer::Accepted("100".to_owned()));
    let two = |answer| Event::SubmitAnswered { proxy: ProxyId(2), attempt: 1, answer };
    site.tell(two(SubmitAnswer::Accepted("101".to_owned())));
    check(&site, "room: 2 proxies are queued, and 2 may be (2 + 150‰ of those that run)");
    let mut site = Site::new(1);
    site.answer(1, SubmitAnswer::Refused("invalid partition".to_owned()));
    check(&site, "someone to act: nothing is submitted after a refusal (invalid partition)");
    let mut site = Site::new(1);
    site.answer(1, SubmitAnswer::Limited("QOSMaxSubmitJobPerUserLimit".to_owned()));
    check(&site, "the next submission, in 1m0s: the site's limit was reached");
    let mut site = Site::running();
    check(&site, "no submission: 1 proxies are queued or running, and 1 are wanted");
    site.tell(Event::StatusFailed("squeue: Connection refused".to_owned()));
    let (seen, _) = site.machine.explain_site(site.now);
    assert!(
        seen.iter()
            .any(|(_, text)| text.contains("1 status call(s) in a row came to nothing, the last: squeue: Connection")),
        "{seen:?}"
    );
    site.tell(Event::ShutdownAsked);
    check(&site, "no submission: the session ends here");
}

//! What users want: holds, releases and edits of their jobs at any time, policies and limits; and how the session is set up. All of it is
//! chosen apart from the rest of the world.

use std::sync::Arc;

use vo_core::pool::{Asks, Decision, Edit, Hold, JobView, Judge, Match, Policy, Pool};

use super::*;
use crate::clock::Dice;

/// A concurrency limit, and how many jobs that name it may be out at once.
pub(super) const LIMIT: (&str, u32) = ("few", 2);

/// Why a job is held that rests.
const RESTS: (u16, i32) = (3, 1);

/// A pool with nothing in it, as each master sets it up.
pub(crate) fn empty_pool() -> Pool {
    let mut pool = Pool::with_judge(Arc::new(Words));
    pool.set_limits([(LIMIT.0.to_owned(), LIMIT.1)].into());
    pool
}

/// What a world's users and its configuration want.
pub(super) struct Wishes {
    pub(super) dice: Dice,
    /// Changes of jobs.
    count: u64,
    /// Held jobs stay held at the end.
    leaves: bool,
    policies: bool,
    /// Sites have room for results that are put aside.
    pub(super) spools: bool,
    /// Of a heartbeat, and so many may be missed; none if agents go on by themselves.
    pub(super) heartbeat: Option<(Duration, u32)>,
    /// Do others get the proxies of a site that is silent for so long?
    pub(super) reallocate: bool,
}

impl Wishes {
    pub(super) fn new(seed: u64) -> Wishes {
        let mut dice = Dice::new(!seed);
        // A quarter of the worlds have none.
        let any = !dice.one_in(4);
        let heartbeat = (dice.span(60_000, 900_000), dice.between(1, 4) as u32);
        Wishes {
            count: if any && !dice.one_in(3) { dice.between(1, 40) } else { 0 },
            leaves: dice.one_in(4),
            policies: any && dice.one_in(3),
            spools: any && !dice.one_in(3),
            heartbeat: (any && dice.one_in(2)).then_some(heartbeat),
            reallocate: dice.one_in(2),
            dice,
        }
    }

    /// When the changes come.
    pub(super) fn changes(&mut self, span: u64) -> Vec<Duration> {
        (0..self.count).map(|_| self.dice.span(0, span)).collect()
    }

    /// What jobs ask for besides their program.
    pub(super) fn terms(&mut self, large: bool) -> Terms {
        let mut terms = Terms::default();
        if !self.policies {
            return terms;
        }
        let limited = self.dice.one_in(4) && !large;
        terms.limits.extend(limited.then(|| (LIMIT.0.to_owned(), 1000)));
        for word in ["again", "hold", "rest", "vacate"] {
            if self.dice.one_in(4) {
                terms.attributes.push((word.to_owned(), String::new()));
            }
        }
        terms
    }

    /// Are jobs submitted on hold?
    pub(super) fn on_hold(&mut self) -> bool {
        self.count > 0 && self.dice.one_in(8)
    }

    /// May the job be as it is when all is done?
    pub(super) fn may_stay(&self, job: &JobView<'_>) -> bool {
        // One that rests is let go by its policy.
        job.state == JobState::Held && (is_given_up(job) || self.leaves && job.code != RESTS)
    }
}

/// Is it held since nobody could run it?
pub(super) fn is_given_up(job: &JobView<'_>) -> bool {
    job.reason.is_some_and(|why| why.contains("sites or nodes failed it"))
}

/// Knows the words of policies: `again` runs a job up to three times until it succeeds, `hold` holds one that fails, `rest` holds it once
/// while it runs and lets it go later, `vacate` makes it run elsewhere once.
#[derive(Debug)]
struct Words;

#[derive(Debug)]
struct Rules(BTreeSet<String>);

impl Judge for Words {
    fn terms(&self, _: &Terms, _: &Program) -> Option<(String, Arc<dyn Match>)> {
        None
    }

    fn policy(&self, terms: &Terms, _: &Program) -> Option<Arc<dyn Policy>> {
        let words: BTreeSet<String> = terms.attributes.iter().map(|(word, _)| word.clone()).collect();
        (!words.is_empty()).then(|| Arc::new(Rules(words)) as Arc<dyn Policy>)
    }
}

impl Policy for Rules {
    fn ended(&self, job: &JobView<'_>, _: Time) -> Option<Decision> {
        if job.end == Some(End::Exited(0)) {
            return None;
        }
        if self.0.contains("hold") && job.past.holds == 0 {
            return Some(Decision::Hold(Hold { why: "it failed".into(), code: 3, subcode: 0 }));
        }
        (self.0.contains("again") && job.completions() < 3).then(|| Decision::Again("it failed".into()))
    }

    fn is_periodic(&self) -> bool {
        self.0.contains("rest") || self.0.contains("vacate")
    }

    fn asks(&self, job: &JobView<'_>, _: Time) -> Option<Asks> {
        matches!(job.state, JobState::Running | JobState::Held).then_some(Asks::Fate)
    }

    fn now(&self, job: &JobView<'_>, _: Time) -> Option<Decision> {
        match job.state {
            JobState::Running if self.0.contains("rest") && job.past.holds == 0 => {
                Some(Decision::Hold(Hold { why: "it is to rest".into(), code: RESTS.0, subcode: RESTS.1 }))
            }
            JobState::Running if self.0.contains("vacate") && job.starts() < 2 => {
                Some(Decision::Vacate("it is to run elsewhere".into()))
            }
            JobState::Held if self.0.contains("rest") && job.code == RESTS => {
                Some(Decision::Release("it has rested".into()))
            }
            _ => None,
        }
    }
}

impl World<'_> {
    /// A user holds, releases, vacates or edits some jobs.
    pub(super) fn change(&mut self) {
        let Some(master) = &mut self.master else { return };
        let dice = &mut self.wishes.dice;
        let all: Vec<JobId> = master.pool.views(&Select::default(), None).map(|view| view.id).collect();
        let Some(first) = dice.pick(&all) else { return };
        let mut select = Select::default();
        if dice.one_in(3) {
            select.clusters.insert(first.cluster);
        } else {
            select.jobs.extend((0..dice.between(1, 8) as u32).map(|n| JobId { proc: first.proc + n, ..first }));
        }
        let widest = self.sites.iter().map(|site| site.shape.1).max().unwrap_or(1).min(2);
        let (kind, event) = match dice.between(0, 5) {
            0 | 1 => ("held", Event::HoldAsked { select, why: "as asked".into() }),
            2 | 3 => ("released", Event::ReleaseAsked { select }),
            4 => ("vacated", Event::VacateAsked { select, fast: dice.one_in(2) }),
            _ => {
                let edit = Edit {
                    priority: dice.one_in(2).then(|| dice.between(0, 5) as i32),
                    accounting_group: dice.pick(&[None, Some(String::new()), Some("a".to_owned())]).flatten(),
                    cpus: dice.one_in(2).then(|| dice.between(1, u64::from(widest) + 1) as u32),
                    ..Edit::default()
                };
                ("edited", Event::EditAsked { select, edit })
            }
        };
        *self.summary.faults.entry(kind).or_default() += 1;
        let now = master.time(self.clock.now);
        master.pool.handle(now, event);
        self.turn();
    }

    /// When the faults have stopped, users let their jobs go, unless they leave them.
    pub(super) fn release_all(&mut self) {
        let Some(master) = &mut self.master else { return };
        let all = Select::default();
        let held = master.pool.views(&all, None).filter(|job| job.state == JobState::Held);
        let jobs: BTreeSet<JobId> = held.filter(|job| !self.wishes.may_stay(job)).map(|job| job.id).collect();
        if !jobs.is_empty() {
            let now = master.time(self.clock.now);
            let select = Select { jobs, ..Select::default() };
            master.pool.handle(now, Event::ReleaseAsked { select });
            self.turn();
        }
    }
}

//! Nodes that eat jobs: where attempts fail at once, a whole queue goes by in minutes. How attempts end is counted for each node, over
//! all of its starters and proxies, and compared with how those of the same program end elsewhere: what fails everywhere is not the
//! node's fault. An excluded node gets no work for a while, and its starters end as soon as nothing runs there, unless no other node is left.

use super::*;

/// So many failures in a row, and a node is looked at. Where jobs fail by themselves it is looked at again when twice as many have:
/// what fails everywhere must not cost a comparison each.
const FAILURES_IN_A_ROW: u32 = 8;

/// An attempt that takes longer than this to fail did some work: a node that eats jobs takes less.
const FAST: Duration = Duration::from_secs(2);

/// Jobs that failed fast by themselves are the node's fault only after so many of their program did better elsewhere.
const BETTER_ELSEWHERE: u32 = 3;

/// How long a node is excluded at first; twice as long each time that it is no better.
const EXCLUSION: Duration = Duration::from_secs(15 * 60);

/// The same for a node without any to compare it with, or the only one: it must be tried again soon.
const REST: Duration = Duration::from_secs(60);

/// How long a node is left alone whose jobs fail fast while those at other nodes run and none has ended yet: by then it shows whether
/// they do better, and a node that eats a hundred jobs a second has not eaten the queue.
const SUSPICION: Duration = Duration::from_secs(4);

/// Exclusions double up to this many times: to 8 hours.
const DOUBLINGS: u8 = 5;

/// Programs whose ends are counted at one node; the oldest goes first.
const PROGRAMS: usize = 32;

/// Nodes kept in mind; bounds what a site can make us remember by new names.
const NODES: usize = 4096;

/// Why a node gets no work, and how long.
#[derive(Clone, Debug)]
pub(super) struct Exclusion {
    pub(super) since: Time,
    pub(super) until: Time,
    pub(super) why: String,
}

/// How the attempts of one program ended at one node.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    /// With success, or after some work.
    good: u32,
    /// Failed fast, or by the site.
    bad: u32,
    /// How many failed fast since one ended well.
    row: u32,
}

#[derive(Clone, Debug, Default)]
struct Node {
    /// Attempts that the site failed since a program ran to its end.
    failures: u32,
    tallies: BTreeMap<u64, Tally>,
    /// Exclusions since an attempt ended well.
    times: u8,
    excluded: Option<Exclusion>,
}

/// All nodes of which something is known.
#[derive(Clone, Debug, Default)]
pub(super) struct Nodes {
    sites: BTreeMap<SiteId, BTreeMap<String, Node>>,
    count: usize,
    /// The excluded ones, by the end of it.
    excluded: BTreeSet<(Time, SiteId, String)>,
}

/// A node that gets no work.
#[derive(Clone, Copy, Debug)]
pub struct NodeView<'a> {
    /// Its site.
    pub site: SiteId,
    /// Its name.
    pub host: &'a str,
    /// Since when.
    pub since: Time,
    /// Until when.
    pub until: Time,
    /// The evidence.
    pub why: &'a str,
}

/// How an attempt ended, as far as its node is concerned.
enum Verdict {
    Good,
    FailedFast,
    FailedBySite,
}

impl Verdict {
    fn of(result: &AttemptResult) -> Option<Verdict> {
        let fast = u128::from(result.usage.wall_ms) < FAST.as_millis();
        match result.outcome {
            Outcome::Exited(0) => Some(Verdict::Good),
            Outcome::Exited(_) | Outcome::Signaled(_) if fast => Some(Verdict::FailedFast),
            Outcome::Exited(_) | Outcome::Signaled(_) => Some(Verdict::Good),
            Outcome::SiteFailed(_) => Some(Verdict::FailedBySite),
            // Ours, the user's or the batch system's doing.
            Outcome::Unrunnable(_)
            | Outcome::Killed
            | Outcome::NeedsFiles
            | Outcome::Evicted(_)
            | Outcome::Missed
            | Outcome::OutOfMemory(_)
            | Outcome::OutputFailed(_) => None,
        }
    }
}

impl Nodes {
    fn find(&self, site: SiteId, host: &str) -> Option<&Node> {
        self.sites.get(&site)?.get(host)
    }

    /// A node, known from now on.
    fn node(&mut self, site: SiteId, host: &str) -> Option<&mut Node> {
        if self.find(site, host).is_none() {
            self.count += 1;
            if self.count > NODES {
                self.forget_one();
            }
            self.sites.entry(site).or_default().insert(host.to_string(), Node::default());
        }
        self.sites.get_mut(&site)?.get_mut(host)
    }

    /// One that is not excluded goes.
    fn forget_one(&mut self) {
        for hosts in self.sites.values_mut() {
            let unneeded = hosts.iter().find(|(_, node)| node.excluded.is_none());
            if let Some(host) = unneeded.map(|(host, _)| host.clone()) {
                hosts.remove(&host);
                self.count -= 1;
                return;
            }
        }
    }

    pub(super) fn is_excluded(&self, site: SiteId, host: &str) -> bool {
        self.find(site, host).is_some_and(|node| node.excluded.is_some())
    }

    pub(super) fn exclude(&mut self, site: SiteId, host: &str, times: u8, exclusion: Exclusion) {
        let until = exclusion.until;
        let Some(node) = self.node(site, host) else { return };
        node.times = times;
        let before = node.excluded.replace(exclusion);
        if let Some(before) = before {
            self.excluded.remove(&(before.until, site, host.to_string()));
        }
        self.excluded.insert((until, site, host.to_string()));
    }

    /// The next node whose exclusion is over.
    fn release(&mut self, now: Time) -> Option<(SiteId, String)> {
        let (_, site, host) = self.excluded.first().filter(|(until, ..)| *until <= now)?.clone();
        self.excluded.pop_first();
        if let Some(node) = self.node(site, &host) {
            node.excluded = None;
        }
        Some((site, host))
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.excluded.first().map(|(until, ..)| *until)
    }

    fn views(&self) -> impl Iterator<Item = NodeView<'_>> {
        self.excluded.iter().filter_map(|(_, site, host)| {
            let Exclusion { since, until, why } = self.find(*site, host)?.excluded.as_ref()?;
            Some(NodeView { site: *site, host, since: *since, until: *until, why })
        })
    }

    /// What [`Pool::apply`] needs to know of them.
    pub(super) fn records(&self) -> Vec<Record> {
        let record = |node: NodeView<'_>| Record::NodeExcluded {
            site: node.site,
            host: node.host.to_string(),
            since: node.since,
            until: node.until,
            why: node.why.to_string(),
            times: self.find(node.site, node.host).map_or(1, |node| node.times),
        };
        self.views().map(record).collect()
    }

    /// How attempts of a program ended at other nodes, of those that are not excluded: well, badly.
    fn elsewhere(&self, program: u64, site: SiteId, host: &str) -> (u32, u32) {
        let others = self.sites.iter().flat_map(|(of, hosts)| hosts.iter().map(move |(name, node)| (*of, name, node)));
        let others = others.filter(|(of, name, node)| (*of, name.as_str()) != (site, host) && node.excluded.is_none());
        let tallies = others.filter_map(|(.., node)| node.tallies.get(&program));
        tallies.fold((0, 0), |(good, bad), tally| (good.saturating_add(tally.good), bad.saturating_add(tally.bad)))
    }
}

impl Node {
    /// Counts an end; might the node be at fault now?
    fn count(&mut self, program: u64, verdict: &Verdict) -> bool {
        let tally = self.tallies.entry(program).or_default();
        match verdict {
            Verdict::Good => {
                tally.good = tally.good.saturating_add(1);
                tally.row = 0;
                self.failures = 0;
                self.times = 0;
            }
            Verdict::FailedFast => {
                tally.bad = tally.bad.saturating_add(1);
                tally.row = tally.row.saturating_add(1);
                self.failures = 0;
            }
            Verdict::FailedBySite => {
                tally.bad = tally.bad.saturating_add(1);
                self.failures = self.failures.saturating_add(1);
            }
        }
        let suspect = match verdict {
            Verdict::Good => false,
            Verdict::FailedFast => tally.row >= FAILURES_IN_A_ROW && (tally.row.is_power_of_two() || self.times > 0),
            Verdict::FailedBySite => self.failures >= FAILURES_IN_A_ROW,
        };
        if self.tallies.len() > PROGRAMS {
            let oldest = self.tallies.keys().find(|other| **other != program).copied();
            oldest.map(|oldest| self.tallies.remove(&oldest));
        }
        suspect && self.excluded.is_none()
    }

    /// Was it compared with others for how the program fails there, and found to be no worse?
    fn acquitted(&self, program: u64) -> bool {
        self.times == 0 && self.tallies.get(&program).is_some_and(|tally| tally.row >= FAILURES_IN_A_ROW)
    }
}

impl Pool {
    /// Nodes that get no work for now.
    pub fn excluded_nodes(&self) -> impl Iterator<Item = NodeView<'_>> {
        self.nodes.views()
    }

    /// An attempt ended at a starter: does that speak against its node? It does until others were found to fare no better.
    pub(super) fn judge(&mut self, now: Time, key: StarterKey, result: &AttemptResult) -> bool {
        let Some(verdict) = Verdict::of(result) else { return false };
        let Some(program) = self.group(result.id.job).map(|group| group.program) else { return false };
        let Some(Starter { offer: Offer { site, host, .. }, .. }) = self.starters.get(&key) else { return false };
        let suspect = self.nodes.node(*site, host).is_some_and(|node| node.count(program, &verdict));
        if matches!(verdict, Verdict::Good) {
            return false;
        }
        let (site, host) = (*site, host.clone());
        if suspect {
            self.compare(now, program, site, &host, &verdict, &result.outcome);
        }
        self.nodes.find(site, &host).is_some_and(|node| !node.acquitted(program))
    }

    /// Compares a node where many failed in a row with the others.
    fn compare(&mut self, now: Time, program: u64, site: SiteId, host: &str, verdict: &Verdict, outcome: &Outcome) {
        let (good, bad) = self.nodes.elsewhere(program, site, host);
        let unknown = good == 0 && bad == 0;
        let good = good.saturating_add(self.working_elsewhere(now, program, site, host, FAST));
        let better = good > 0 && good / 3 >= bad;
        let others = self
            .starters
            .values()
            .any(|s| s.connected && !s.excluded && (s.offer.site, s.offer.host.as_str()) != (site, host));
        let mut suspicion = false;
        let (blamed, what) = match (verdict, outcome) {
            (Verdict::FailedBySite, Outcome::SiteFailed(why)) => (better, format!("failed there, the last: {why}")),
            _ if good >= BETTER_ELSEWHERE && better => {
                (true, format!("failed there within {} s, and {good} did better elsewhere", FAST.as_secs()))
            }
            _ => {
                let first = self.nodes.find(site, host).is_some_and(|node| node.times == 0);
                let run = self.working_elsewhere(now, program, site, host, Duration::ZERO) > 0;
                if !(unknown && run && first) {
                    if let Some(node) = self.nodes.node(site, host) {
                        node.times = 0;
                    }
                    return;
                }
                suspicion = true;
                (false, format!("failed there within {} s; how others do will show", FAST.as_secs()))
            }
        };
        let ends = blamed && others;
        let Some(node) = self.nodes.find(site, host) else { return };
        let row = node.failures.max(node.tallies.get(&program).map_or(0, |tally| tally.row));
        let times = node.times.saturating_add(1);
        let span = if suspicion {
            SUSPICION
        } else if ends {
            EXCLUSION
        } else {
            REST
        };
        let span = span * (1 << (times - 1).min(DOUBLINGS));
        let why = format!("{row} jobs in a row {what}");
        self.write(Record::NodeExcluded {
            site,
            host: host.to_string(),
            since: now,
            until: now + span,
            why: why.clone(),
            times,
        });
        let there = self.starters.iter().filter(|(_, s)| (s.offer.site, s.offer.host.as_str()) == (site, host));
        let keys: Vec<StarterKey> = there.map(|(key, _)| *key).collect();
        if ends {
            // One that comes later is left to its own idle limit: it keeps the batch system from giving us the same node over and over.
            let why = format!("its node is excluded: {why}");
            keys.into_iter().for_each(|key| self.act(Action::Drain { key, why: why.clone() }));
        } else {
            keys.into_iter().for_each(|key| self.recall_all(now, key));
        }
    }

    /// Attempts of a program that run at other nodes for some time; as many as matter.
    fn working_elsewhere(&self, now: Time, program: u64, site: SiteId, host: &str, longer: Duration) -> u32 {
        let others =
            self.starters.values().filter(|s| !s.excluded && (s.offer.site, s.offer.host.as_str()) != (site, host));
        let running = others.flat_map(|s| s.held.iter()).filter(|(_, held)| {
            // What was given there may run already, and be told later than a node takes to eat a queue.
            held.phase == Phase::Running || (held.phase == Phase::Queued && longer.is_zero())
        });
        let working = running.filter(|(id, _)| {
            self.group(id.job).is_some_and(|group| group.program == program)
                && self.job(id.job).is_some_and(|job| job.at + longer <= now)
        });
        working.take(BETTER_ELSEWHERE as usize).count() as u32
    }

    /// Nodes whose time is over get work again; one more failure, and they are excluded for longer.
    pub(super) fn wake(&mut self, now: Time) {
        while let Some((site, host)) = self.nodes.release(now) {
            self.mark_excluded(site, &host, false);
        }
    }

    pub(super) fn mark_excluded(&mut self, site: SiteId, host: &str, excluded: bool) {
        let mut there = Vec::new();
        for (key, starter) in &mut self.starters {
            if (starter.offer.site, starter.offer.host.as_str()) == (site, host) {
                starter.excluded = excluded;
                there.push(*key);
            }
        }
        there.into_iter().for_each(|key| self.touch(key));
    }
}

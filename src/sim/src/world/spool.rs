//! What starters put aside at the site, and the agent that stands in for them, as their drivers would do it.

use super::*;

impl World<'_> {
    /// A starter writes results to the site's files, one after the other; it may end in the midst of that.
    pub(super) fn put_aside(&mut self, site: usize, key: StarterKey, ids: Vec<AttemptId>) {
        if !self.wishes.spools {
            // Its files are full: what is not told is lost, and run again.
            return self.tell_starter(site, key, StarterEvent::Spooled { kept: vec![], over: true });
        }
        let now = self.wishes.dice.between(0, ids.len() as u64 + 1) as usize;
        if let Some(node) = self.sites[site].starters.get_mut(&key) {
            node.aside.clear();
        }
        self.write_aside(site, key, &ids[..now]);
        let at = self.clock.now + self.wishes.dice.span(1, 6000);
        self.clock.at(at, What::Spooled(site, key, ids));
    }

    fn write_aside(&mut self, site: usize, key: StarterKey, ids: &[AttemptId]) {
        let now = self.clock.now;
        let here = &mut self.sites[site];
        let hangs = here.hangs;
        let node = here.starters.get_mut(&key).filter(|node| !hangs && node.cut_off <= now);
        let Some(node) = node else { return };
        for result in ids.iter().filter_map(|id| node.machine.result(*id)) {
            // One that is written may be taken, and is not written again. A large one finds no room.
            if !node.aside.contains(&result.id) && !self.wishes.dice.one_in(10) {
                node.aside.insert(result.id);
                here.spool.entry(key).or_default().insert(result.id, (result.clone(), now));
            }
        }
    }

    pub(super) fn spooled(&mut self, site: usize, key: StarterKey, ids: &[AttemptId]) {
        if self.sites[site].starters.get(&key).is_none_or(|node| !node.alive) {
            return;
        }
        // The session's end removes its files.
        let over = self.sites[site].leases.values().next().is_none();
        if !over {
            self.write_aside(site, key, ids);
        }
        let kept = self.sites[site].starters.get(&key).map(|node| node.aside.iter().copied().collect());
        let kept = kept.unwrap_or_default();
        self.tell_starter(site, key, StarterEvent::Spooled { kept, over });
    }

    /// The guardian of a starter that was killed puts aside what its jobs wrote.
    pub(super) fn hand_in(&mut self, site: usize, key: StarterKey, ids: &[AttemptId]) {
        let now = self.clock.now;
        if !self.wishes.spools || self.sites[site].hangs || self.sites[site].leases.values().next().is_none() {
            return;
        }
        for id in ids {
            let (id, outcome) = (*id, Outcome::SiteFailed("its starter was killed".into()));
            let outputs = vec![Output { kind: OutputKind::Stdout, size: 1, hash: [0; 32], mode: 0o600, inline: None }];
            let result = AttemptResult { id, outcome, usage: Usage::default(), outputs, kept: None };
            self.sites[site].spool.entry(key).or_default().entry(id).or_insert((result, now));
        }
    }

    /// An agent tells its master what was put aside.
    pub(super) fn present(&mut self, site: usize, life: u64, only: Option<StarterKey>) {
        if self.sites[site].hangs {
            return self.of(site, life, 1000, 5000, OfAgent::Present(only));
        }
        let keys: Vec<StarterKey> = match only {
            Some(key) => vec![key],
            None => self.sites[site].spool.keys().copied().collect(),
        };
        for key in keys {
            let here = &mut self.sites[site];
            let Some(agent) = here.agents.get_mut(&life) else { return };
            let Some(results) = here.spool.get(&key) else { continue };
            let open = agent.work.as_ref().is_some_and(|work| {
                work.machine.starters().any(|(_, other, link)| other == key && !matches!(link, Link::Gone(_)))
            });
            if open || agent.lines.contains_key(&key) || agent.master.is_none() {
                continue;
            }
            let ids: BTreeSet<AttemptId> = results.keys().copied().collect();
            if agent.stands_for.insert(key, ids.clone()).is_some_and(|told| told.is_superset(&ids)) {
                continue;
            }
            let results: Vec<AttemptResult> = results.values().map(|(result, _)| result.clone()).collect();
            // It is no part of its proxy any more, and has room for nothing.
            let Some(offer) = self.offer(site, key) else { continue };
            let offer = Offer { proxy: ProxyId(0), cpus: 0, ..offer };
            self.say_to_master(site, life, ToMaster::Up(key, offer, None));
            let inventory = FromStarter::Inventory(1, Vec::new(), Vec::new(), ids.into_iter().collect());
            self.say_to_master(site, life, ToMaster::Relay(key, inventory));
            for result in results {
                let report = FromStarter::Report(Vec::new(), vec![result], Vec::new());
                self.say_to_master(site, life, ToMaster::Relay(key, report));
            }
        }
    }

    /// What the master says to a starter that an agent stands in for.
    pub(super) fn stand_in(&mut self, site: usize, life: u64, key: StarterKey, message: ToStarter) {
        let mut ids = match message {
            ToStarter::Acknowledge(ids) => return self.of(site, life, 1, 200, OfAgent::Forget(key, ids)),
            // What is there has ended; of what is not there, nothing is.
            ToStarter::Kill(ids, _) => ids,
            ToStarter::Assign(_, attempts) => attempts.into_iter().map(|(id, _)| id).collect(),
            ToStarter::Define(..) | ToStarter::Recall(..) | ToStarter::Drain(_) => return,
        };
        let here = self.sites[site].spool.get(&key);
        ids.retain(|id| here.is_none_or(|results| !results.contains_key(id)));
        if !ids.is_empty() {
            let report = FromStarter::Report(Vec::new(), Vec::new(), ids);
            self.say_to_master(site, life, ToMaster::Relay(key, report));
        }
    }

    pub(super) fn forget_spooled(&mut self, site: usize, life: u64, key: StarterKey, ids: &[AttemptId]) {
        if self.may_act(site, life).is_err() {
            if let Some(agent) = self.sites[site].agents.get_mut(&life) {
                agent.stands_for.remove(&key);
            }
            return;
        }
        self.check_forgotten(key, ids);
        let here = &mut self.sites[site];
        let Some(results) = here.spool.get_mut(&key) else { return };
        results.retain(|id, _| !ids.contains(id));
        if results.is_empty() {
            here.spool.remove(&key);
            if let Some(agent) = here.agents.get_mut(&life) {
                agent.stands_for.remove(&key);
            }
            let why = "it ended, and what it put aside is delivered".to_owned();
            self.say_to_master(site, life, ToMaster::Down(key, true, why));
        }
    }
}

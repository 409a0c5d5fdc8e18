//! The master, as its driver would run it.

use super::*;

impl World<'_> {
    pub(super) fn start_master(&mut self) -> Checked {
        self.masters += 1;
        let mut master =
            Master::start(self.masters, &self.disk).map_err(|e| format!("the store does not open: {e}"))?;
        let kept = master.kept();
        if kept > self.journal.len() {
            return Err("the store holds more than was ever appended".into());
        }
        self.journal.truncate(kept);
        self.over.retain(|_, at| *at < kept);
        for (cluster, jobs) in &self.acknowledged {
            let found = master.pool.counts(&Select { clusters: [*cluster].into(), jobs: BTreeSet::new() });
            let found = found.unfinished() + found.completed + found.removed;
            if found != *jobs {
                return Err(format!(
                    "cluster {cluster} was acknowledged with {jobs} jobs and has {found} after a crash"
                ));
            }
        }
        let life = master.life;
        master.pool.handle(self.clock.now, Event::Recovered);
        self.master = Some(master);
        for site in 0..self.sites.len() {
            self.clock.after(10, 2000, What::Dial(life, site));
        }
        self.turn();
        Ok(())
    }

    pub(super) fn kill_master(&mut self) {
        if self.master.take().is_none() {
            return;
        }
        let loss = self.clock.pick(&[Loss::None, Loss::All, Loss::Tail, Loss::Scattered(512)]).unwrap_or(Loss::All);
        self.disk.crash(loss, self.clock.choices());
        for site in 0..self.sites.len() {
            self.cut_stream(site);
        }
        self.clock.after(100, 900_000, What::MasterStarts);
    }

    /// What the production driver does after each burst of events.
    pub(super) fn turn(&mut self) {
        let Some(master) = &mut self.master else { return };
        let life = master.life;
        let (records, uncommitted) = master.append();
        for record in records {
            match &record {
                Record::Ended { ends, .. } => {
                    for end in ends {
                        let twice = self.over.insert(end.id.job, self.journal.len()).is_some();
                        let expected = match end.end {
                            End::Exited(code) => Outcome::Exited(code),
                            End::Signaled(signal) => Outcome::Signaled(signal),
                        };
                        if twice || self.truth.get(&end.id) != Some(&expected) {
                            self.wrong = Some(format!("{} counts twice or never ended so", end.id));
                        }
                    }
                }
                Record::Dispatched { ids, .. } => {
                    if let Some(id) = ids.iter().find(|id| self.over.contains_key(&id.job)) {
                        self.wrong = Some(format!("{id} was dispatched after its job's success"));
                    }
                }
                _ => {}
            }
            self.journal.push(record);
        }
        if uncommitted && !master.committing {
            master.committing = true;
            self.clock.after(1, 30, What::Commit(life));
        }
        let mut actions = Vec::new();
        while let Some(action) = master.pool.poll_action(master.durable()) {
            if let Action::KeepPartial { key, result } = &action {
                master.pool.handle(self.clock.now, Event::PartialKept { key: *key, id: result.id });
            }
            actions.push(action);
        }
        let durable = master.durable();
        for (record, cluster, jobs) in std::mem::take(&mut master.submitted) {
            if record <= durable {
                self.acknowledged.insert(cluster, jobs);
            } else {
                master.submitted.push((record, cluster, jobs));
            }
        }
        for (record, jobs) in std::mem::take(&mut master.removals) {
            if record <= durable {
                self.removed.extend(jobs);
            } else {
                master.removals.push((record, jobs));
            }
        }
        if let Some(deadline) = master.pool.deadline()
            && master.tick.is_none_or(|tick| deadline < tick)
        {
            let deadline = deadline.max(self.clock.now);
            master.tick = Some(deadline);
            self.clock.at(deadline, What::MasterTick(life));
        }
        let target = u32::from(master.pool.demand_cpus() > 0 && !self.ending) * 3;
        let changed = std::mem::replace(&mut master.target, target) != target;
        actions.into_iter().for_each(|action| self.carry_out(action));
        for site in 0..self.sites.len() {
            if changed {
                self.say_to_agent(site, ToAgent::Target(target));
            }
        }
    }

    pub(super) fn carry_out(&mut self, action: Action) {
        match action {
            Action::Assign { key, inventory, define, attempts, .. } => {
                for (number, program) in define {
                    self.say_to_starter(key, ToStarter::Define(number, program));
                }
                let attempts = attempts.into_iter().map(|(id, program, _)| (id, program)).collect();
                self.say_to_starter(key, ToStarter::Assign(inventory, attempts));
            }
            Action::Recall { key, inventory, count } => self.say_to_starter(key, ToStarter::Recall(inventory, count)),
            Action::Kill { key, ids, grace } => self.say_to_starter(key, ToStarter::Kill(ids, grace)),
            Action::Drain { key, why } => self.say_to_starter(key, ToStarter::Drain(why)),
            Action::Acknowledge { key, ids } => self.say_to_starter(key, ToStarter::Acknowledge(ids)),
            Action::Collect { key, result, .. } => {
                let Some(master) = &mut self.master else { return };
                master.collections += 1;
                let number = master.collections;
                let site = master.pool.proxy_of(key).map(|(site, _)| usize::from(site.0));
                let link = site.and_then(|site| self.sites[site].stream).map(|(link, ..)| link);
                master.collecting.insert(number, (key, result, link));
                let life = master.life;
                self.clock.after(20, 2000, What::Collected(life, number));
            }
            Action::KeepPartial { .. } | Action::Note { .. } => {}
        }
    }

    pub(super) fn collected(&mut self, life: u64, number: u64) {
        let now = self.clock.now;
        let Some(master) = self.master.as_mut().filter(|m| m.life == life) else {
            return;
        };
        let Some((key, result, link)) = master.collecting.remove(&number) else {
            return;
        };
        if link.is_some_and(|link| self.whole.contains(&link)) {
            master.pool.handle(now, Event::OutputsStored { key, result });
        } else if self.clock.one_in(2) {
            let why = "the way to the starter was lost".into();
            master.pool.handle(now, Event::OutputsFailed { key, id: result.id, why, ours: false });
        }
        self.turn();
    }

    pub(super) fn commit(&mut self, life: u64) -> Checked {
        let snapshot = self.clock.one_in(200);
        let Some(master) = self.master.as_mut().filter(|m| m.life == life) else {
            return Ok(());
        };
        master.committing = false;
        master.commit().map_err(|e| format!("commit: {e}"))?;
        self.turn();
        if snapshot && let Some(master) = &mut self.master {
            master.snapshot().map_err(|e| format!("snapshot: {e}"))?;
            self.turn();
        }
        Ok(())
    }

    pub(super) fn master_tick(&mut self, life: u64) {
        let now = self.clock.now;
        if let Some(master) = self.master.as_mut().filter(|m| m.life == life && m.tick == Some(now)) {
            master.tick = None;
            master.pool.handle(now, Event::TimePassed);
            self.turn();
        }
    }

    pub(super) fn say_to_agent(&mut self, site: usize, message: ToAgent) {
        if let Some((link, lane, _)) = &mut self.sites[site].stream {
            let at = lane.arrival(&mut self.clock, 5, 150);
            self.clock.at(at, What::ToAgent(site, *link, message));
        }
    }

    pub(super) fn say_to_starter(&mut self, key: StarterKey, message: ToStarter) {
        let site = self.master.as_ref().and_then(|m| m.pool.proxy_of(key)).map(|(site, _)| usize::from(site.0));
        if let Some(site) = site {
            self.say_to_agent(site, ToAgent::Relay(key, message));
        }
    }

    pub(super) fn dial(&mut self, life: u64, site: usize) {
        let Some(target) = self.master.as_ref().filter(|m| m.life == life).map(|m| m.target) else {
            return;
        };
        if self.sites[site].stream.is_some() || self.done.contains(&site) {
            return;
        }
        if !self.sites[site].reachable {
            return self.clock.after(1000, 30_000, What::Dial(life, site));
        }
        if self.sites[site].agent.is_none() {
            self.start_agent(site);
        }
        let link = self.link();
        self.sites[site].stream = Some((link, Lane::default(), Lane::default()));
        self.say_to_agent(site, ToAgent::Configure);
        self.say_to_agent(site, if self.ending { ToAgent::Shutdown } else { ToAgent::Target(target) });
    }

    pub(super) fn at_master(&mut self, site: usize, link: u64, message: ToMaster) {
        let now = self.clock.now;
        if !self.whole.contains(&link) || self.sites[site].stream.is_none_or(|(current, ..)| current != link) {
            return;
        }
        let Some(master) = &mut self.master else { return };
        let pool = &mut master.pool;
        match message {
            ToMaster::Up(key, offer, left) => {
                pool.handle(now, Event::StarterJoined { key, offer, time_left: Some(left) });
            }
            ToMaster::Down(key, true, why) => pool.handle(now, Event::StarterGone { key, why }),
            ToMaster::Down(key, false, why) => pool.handle(now, Event::StarterSilent { key, why }),
            ToMaster::Relay(key, FromStarter::Inventory(number, queued, running, finished)) => {
                pool.handle(now, Event::InventoryTold { key, number, queued, running, finished });
            }
            ToMaster::Relay(key, FromStarter::Report(started, results, returned)) => {
                if !started.is_empty() {
                    pool.handle(now, Event::AttemptsStarted { key, ids: started });
                }
                results.into_iter().for_each(|result| pool.handle(now, Event::AttemptEnded { key, result }));
                if !returned.is_empty() {
                    pool.handle(now, Event::AttemptsReturned { key, ids: returned });
                }
            }
            ToMaster::Relay(_, FromStarter::Leaving(_)) => {}
            ToMaster::Done => {
                self.done.insert(site);
            }
        }
        self.turn();
    }

    pub(super) fn cut_stream(&mut self, site: usize) {
        let Some((link, ..)) = self.sites[site].stream else {
            return;
        };
        self.whole.remove(&link);
        if self.master.is_none() {
            self.sites[site].stream = None;
        } else {
            self.clock.after(0, 20_000, What::StreamLostAtMaster(site, link));
        }
        if let Some(agent) = &self.sites[site].agent {
            let life = agent.life;
            self.clock.after(0, 20_000, What::StreamLostAtAgent(site, life, link));
        }
    }

    pub(super) fn stream_lost_at_master(&mut self, site: usize, link: u64) {
        let now = self.clock.now;
        if self.sites[site].stream.is_none_or(|(current, ..)| current != link) {
            return;
        }
        self.sites[site].stream = None;
        let Some(master) = &mut self.master else { return };
        master.pool.handle(now, Event::SiteLost { site: SiteId(site as u16), why: "cut".into() });
        let life = master.life;
        self.clock.after(500, 10_000, What::Dial(life, site));
        self.turn();
    }
}

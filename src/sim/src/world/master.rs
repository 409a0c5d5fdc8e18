//! The master, as its driver would run it, and its calls to the sites.

use super::*;

impl World<'_> {
    pub(super) fn start_master(&mut self) -> Checked {
        self.masters += 1;
        let ahead = if self.clock.one_in(3) { self.clock.between(0, 3_600_000) } else { 0 };
        let mut master =
            Master::start(self.masters, ahead, &self.disk).map_err(|e| format!("the store does not open: {e}"))?;
        self.checker.master_begins(master.kept())?;
        for (cluster, jobs) in &self.checker.acknowledged {
            let found = master.pool.counts(&Select { clusters: [*cluster].into(), jobs: BTreeSet::new() });
            let found = found.unfinished() + found.completed + found.removed;
            if found != *jobs {
                return Err(format!(
                    "cluster {cluster} was acknowledged with {jobs} jobs and has {found} after a crash"
                ));
            }
        }
        let life = master.life;
        let now = master.time(self.clock.now);
        master.pool.handle(now, Event::Recovered);
        self.master = Some(master);
        for site in 0..self.sites.len() {
            self.clock.after(10, 2000, What::Dial(life, site));
        }
        self.turn();
        Ok(())
    }

    pub(super) fn kill_master(&mut self, away: u64) {
        let Some(mut master) = self.master.take() else { return };
        // In the midst of a commit, or of a snapshot: so many of its steps were done.
        if self.clock.one_in(2) {
            self.disk.crash_at(self.disk.steps() + self.clock.between(0, 4));
            let _ = master.commit();
        } else if self.clock.one_in(4) {
            self.disk.crash_at(self.disk.steps() + self.clock.between(0, 14));
            let _ = master.snapshot();
        }
        drop(master);
        let loss = self
            .clock
            .pick(&[Loss::None, Loss::All, Loss::Tail, Loss::Scattered(512), Loss::Scattered(16)])
            .unwrap_or(Loss::All);
        self.disk.crash(loss, self.clock.choices());
        for site in 0..self.sites.len() {
            self.cut_stream(site);
        }
        self.clock.after(100, away, What::MasterStarts);
    }

    /// What the production driver does after each burst of events.
    pub(super) fn turn(&mut self) {
        let Some(master) = &mut self.master else { return };
        let life = master.life;
        let (records, uncommitted) = master.append();
        for record in records {
            if let Err(why) = self.checker.recorded(record) {
                self.wrong.get_or_insert(why);
            }
        }
        if uncommitted && !master.committing {
            master.committing = true;
            self.clock.after(1, 30, What::Commit(life));
        }
        let durable = master.durable();
        self.checker.settle(master.kept() + usize::try_from(durable).unwrap_or(usize::MAX));
        let mut actions = Vec::new();
        while let Some(action) = master.pool.poll_action(durable) {
            if let Action::KeepPartial { key, result } = &action
                && result.kept.is_none()
            {
                let now = master.time(self.clock.now);
                master.pool.handle(now, Event::PartialKept { key: *key, result: result.clone() });
                continue;
            }
            actions.push(action);
        }
        for (record, cluster, jobs) in std::mem::take(&mut master.submitted) {
            if record <= durable {
                self.checker.acknowledged.insert(cluster, jobs);
            } else {
                master.submitted.push((record, cluster, jobs));
            }
        }
        for (record, jobs) in std::mem::take(&mut master.removals) {
            if record <= durable {
                self.checker.removed.extend(jobs);
            } else {
                master.removals.push((record, jobs));
            }
        }
        if let Some(deadline) = master.pool.deadline() {
            let deadline = Time(deadline.0.saturating_sub(master.ahead)).max(self.clock.now);
            if master.tick.is_none_or(|tick| deadline < tick) {
                master.tick = Some(deadline);
                self.clock.at(deadline, What::MasterTick(life));
            }
        }
        master.wanting = master.pool.demand_cpus() > 0 && !self.ending;
        actions.into_iter().for_each(|action| self.carry_out(action));
        (0..self.sites.len()).for_each(|site| self.set_target(site));
    }

    /// Says how many proxies are wanted, if that is not what was said.
    pub(super) fn set_target(&mut self, site: usize) {
        let target = self.target(site);
        if let Some(master) = &mut self.master
            && master.targets.insert(site, target) != Some(target)
        {
            self.say_to_agent(site, ToAgent::Target(target));
        }
    }

    /// Proxies that a site is to have; with `on_missed = reallocate`, also its part of those of sites that are silent for long.
    fn target(&self, site: usize) -> u32 {
        let now = self.clock.now;
        if self.master.as_ref().is_none_or(|master| !master.wanting) {
            return 0;
        }
        let own = self.sites[site].proxies;
        let Some((heartbeat, count)) = self.wishes.heartbeat.filter(|_| self.wishes.reallocate) else { return own };
        let silent = |here: &&Site| here.stream.is_none() && now.since(here.told) >= heartbeat * count;
        let missing: u32 = self.sites.iter().filter(silent).map(|here| here.proxies).sum();
        let present: u32 = self.sites.iter().filter(|here| here.stream.is_some()).map(|here| here.proxies).sum();
        own + (missing * own).div_ceil(present.max(1))
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Assign { key, inventory, define, attempts, .. } => {
                for (number, program, _) in define {
                    self.say_to_starter(key, ToStarter::Define(number, program));
                }
                let attempts = attempts.into_iter().map(|each| (each.id, each.program)).collect();
                self.say_to_starter(key, ToStarter::Assign(inventory, attempts));
            }
            Action::Recall { key, inventory, count } => self.say_to_starter(key, ToStarter::Recall(inventory, count)),
            Action::Kill { key, ids, grace, .. } => self.say_to_starter(key, ToStarter::Kill(ids, grace)),
            Action::Drain { key, why } => self.say_to_starter(key, ToStarter::Drain(why)),
            Action::Acknowledge { key, ids } => self.say_to_starter(key, ToStarter::Acknowledge(ids)),
            Action::Collect { key, result, .. } | Action::KeepPartial { key, result } => {
                let Some(master) = &mut self.master else { return };
                master.collections += 1;
                let number = master.collections;
                let site = master.pool.proxy_of(key).map(|(site, _)| usize::from(site.0));
                let link = site.and_then(|site| self.sites[site].stream).map(|stream| stream.link);
                master.collecting.insert(number, (key, result, link));
                let life = master.life;
                self.clock.after(20, 2000, What::Collected(life, number));
            }
            Action::Note { .. } => {}
        }
    }

    pub(super) fn collected(&mut self, life: u64, number: u64) {
        let now = self.clock.now;
        let Some(master) = self.master.as_mut().filter(|m| m.life == life) else {
            return;
        };
        let now = master.time(now);
        let Some((key, result, link)) = master.collecting.remove(&number) else {
            return;
        };
        if link.is_some_and(|link| !self.cut.contains_key(&link)) {
            let kept = result.outcome.is_cut_off();
            let event = if kept { Event::PartialKept { key, result } } else { Event::OutputsStored { key, result } };
            master.pool.handle(now, event);
        } else if result.outcome.is_cut_off() {
            // The starter has it still, and tells it again.
        } else if self.clock.one_in(2) {
            let why = "the way to the starter was lost".into();
            master.pool.handle(now, Event::OutputsFailed { key, id: result.id, why, ours: false, too_large: false });
        }
        self.turn();
    }

    pub(super) fn commit(&mut self, life: u64) -> Checked {
        let snapshot = self.clock.one_in(200);
        let Some(master) = self.master.as_mut().filter(|m| m.life == life) else {
            return Ok(());
        };
        // A crash in the midst of it is rare; here it is not.
        if !self.calm && self.kinds.contains(&"master killed") && self.clock.one_in(100) {
            self.kill_master(900_000);
            return Ok(());
        }
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
            let now = master.time(now);
            master.pool.handle(now, Event::TimePassed);
            self.turn();
        }
    }

    pub(super) fn say_to_agent(&mut self, site: usize, message: ToAgent) {
        let here = &mut self.sites[site];
        let (low, high) = here.latency;
        let Some(stream) = &mut here.stream else { return };
        let known = self.master.as_ref().is_some_and(|master| master.heard.contains(&stream.link));
        if (known || matches!(message, ToAgent::Configure)) && !self.cut.contains_key(&stream.link) {
            let at = stream.to_agent.arrival(&mut self.clock, low, high);
            self.clock.at(at, What::Agent(site, stream.agent, OfAgent::FromMaster(stream.link, message)));
        }
    }

    fn say_to_starter(&mut self, key: StarterKey, message: ToStarter) {
        let site = self.master.as_ref().and_then(|m| m.pool.proxy_of(key)).map(|(site, _)| usize::from(site.0));
        if let Some(site) = site {
            self.say_to_agent(site, ToAgent::Relay(key, message));
        }
    }

    /// Calls a site, by a name that may lead to any of its login nodes. What runs there then does what `vo-agent connect` does.
    pub(super) fn dial(&mut self, life: u64, site: usize) {
        let now = self.clock.now;
        let Some(above) = self.master.as_ref().filter(|m| m.life == life).map(|m| m.epochs.get(&site).copied()) else {
            return;
        };
        let above = above.or(self.sites[site].met.then_some(1));
        let here = &mut self.sites[site];
        if here.stream.is_some() || here.call.is_some() || self.done.contains(&site) {
            return;
        }
        if !here.reachable || here.hangs {
            return self.clock.after(1000, 30_000, What::Dial(life, site));
        }
        let node = if self.clock.one_in(3) { self.clock.between(0, here.gateways as u64) as usize } else { 0 };
        let fresh = self.calm || self.quiet == Some(site);
        let holder = here.leases.list(now, node, fresh, self.clock.choices()).last().copied();
        let holder = holder.and_then(|epoch| Some((epoch, here.agents.get(here.leases.get(epoch)?)?)));
        let local = holder.is_some_and(|(epoch, agent)| epoch >= above.unwrap_or(0) && agent.node == node);
        let answering = here.socket.filter(|_| local).filter(|agent| here.answers(*agent, node));
        if let Some(agent) = answering {
            return self.open_stream(site, agent);
        }
        let agent = self.start_agent(site, node, above.unwrap_or(0));
        self.sites[site].call = Some((life, agent));
        self.clock.after(50, 500, What::Reached(life, site, agent, 0));
    }

    /// Is the agent that was started ready?
    pub(super) fn reached(&mut self, life: u64, site: usize, agent: u64, tries: u32) {
        if self.sites[site].call != Some((life, agent)) {
            return;
        }
        let here = &mut self.sites[site];
        let node = here.agents.get(&agent).map(|agent| agent.node);
        let alive = self.master.as_ref().is_some_and(|m| m.life == life);
        if alive && here.reachable && here.socket == Some(agent) && node.is_some_and(|node| here.answers(agent, node)) {
            here.call = None;
            return self.open_stream(site, agent);
        }
        if !alive || !here.reachable || node.is_none() || tries > 60 {
            here.call = None;
            if let Some(master) = &self.master {
                self.clock.after(500, 10_000, What::Dial(master.life, site));
            }
            return;
        }
        self.clock.after(500, 501, What::Reached(life, site, agent, tries + 1));
    }

    fn open_stream(&mut self, site: usize, agent: u64) {
        let link = self.link();
        let opened = self.clock.now;
        self.sites[site].stream =
            Some(Stream { link, agent, opened, to_agent: Lane::default(), to_master: Lane::default() });
        self.say_to_agent(site, ToAgent::Configure);
        self.clock.after(200_000, 300_000, What::NoHello(site, link));
    }

    pub(super) fn no_hello(&mut self, site: usize, link: u64) {
        let heard = self.master.as_ref().is_some_and(|master| master.heard.contains(&link));
        if !heard && self.sites[site].stream.is_some_and(|stream| stream.link == link) {
            self.cut_stream(site);
        }
    }

    pub(super) fn at_master(&mut self, site: usize, link: u64, message: ToMaster) {
        if !self.carries(link) || self.sites[site].stream.is_none_or(|stream| stream.link != link) {
            return;
        }
        self.sites[site].told = self.clock.now;
        let Some(master) = &mut self.master else { return };
        let now = master.time(self.clock.now);
        let of_site = |pool: &pool::Pool, key| pool.proxy_of(key).is_some_and(|(of, _)| usize::from(of.0) == site);
        let pool = &mut master.pool;
        match message {
            ToMaster::Hello(epoch) => {
                let known = master.epochs.entry(site).or_default();
                if epoch < *known {
                    return self.cut_stream(site);
                }
                *known = epoch;
                self.sites[site].met = true;
                master.heard.insert(link);
                let target = self.target(site);
                if let Some(master) = &mut self.master {
                    master.targets.insert(site, target);
                }
                let order = if self.ending { ToAgent::Shutdown } else { ToAgent::Target(target) };
                self.say_to_agent(site, order);
            }
            ToMaster::Proxies(proxies) => {
                let first = master.reported.insert(link);
                let mut gone = Vec::new();
                for key in pool.starters_of(SiteId(site as u16), None) {
                    let proxy = pool.proxy_of(key).map(|(_, proxy)| proxy);
                    match proxies.iter().find(|(id, ..)| Some(*id) == proxy) {
                        Some((_, true, why)) => gone.push((key, why.clone())),
                        None if first => gone.push((key, "its proxy ended".into())),
                        _ => {}
                    }
                }
                for (key, why) in gone {
                    pool.handle(now, Event::StarterGone { key, why });
                }
            }
            ToMaster::Up(key, offer, left) => {
                pool.handle(now, Event::StarterJoined { key, offer, time_left: left });
            }
            ToMaster::Down(key, gone, why) if of_site(pool, key) => {
                pool.handle(
                    now,
                    if gone { Event::StarterGone { key, why } } else { Event::StarterSilent { key, why } },
                );
            }
            ToMaster::Relay(key, message) if of_site(pool, key) => match message {
                FromStarter::Inventory(number, queued, running, finished) => {
                    pool.handle(now, Event::InventoryTold { key, number, queued, running, finished });
                }
                FromStarter::Report(started, results, returned) => {
                    if !started.is_empty() {
                        pool.handle(now, Event::AttemptsStarted { key, ids: started });
                    }
                    results.into_iter().for_each(|result| pool.handle(now, Event::AttemptEnded { key, result }));
                    if !returned.is_empty() {
                        pool.handle(now, Event::AttemptsReturned { key, ids: returned });
                    }
                }
                FromStarter::Leaving(_) => {}
            },
            ToMaster::Down(..) | ToMaster::Relay(..) => {}
            ToMaster::Done => {
                self.done.insert(site);
                self.require(self.ending, || format!("site {site} ended while its master was there"));
            }
        }
        self.turn();
    }

    pub(super) fn cut_stream(&mut self, site: usize) {
        let Some(Stream { link, agent, .. }) = self.sites[site].stream else {
            return;
        };
        self.sever(link);
        if self.master.is_none() {
            self.sites[site].stream = None;
        } else {
            self.clock.after(0, 20_000, What::StreamLostAtMaster(site, link));
        }
        self.clock.after(0, 20_000, What::Agent(site, agent, OfAgent::StreamLost(link)));
    }

    pub(super) fn stream_lost_at_master(&mut self, site: usize, link: u64) {
        if self.sites[site].stream.is_none_or(|stream| stream.link != link) {
            return;
        }
        self.sever(link);
        self.sites[site].stream = None;
        let Some(master) = &mut self.master else { return };
        let now = master.time(self.clock.now);
        master.pool.handle(now, Event::SiteLost { site: SiteId(site as u16), why: "cut".into() });
        let life = master.life;
        self.clock.after(500, 10_000, What::Dial(life, site));
        self.turn();
    }
}

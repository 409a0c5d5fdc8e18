//! The connections between starters and agents.

use super::*;

/// A starter that hears nothing for this long gives its connection up.
const SILENCE: Duration = Duration::from_secs(90);

impl World<'_> {
    pub(super) fn welcomed(&self, site: usize, life: u64) -> Vec<StarterKey> {
        let agent = self.sites[site].agents.get(&life);
        agent.map_or_else(Vec::new, |agent| agent.lines.iter().filter(|(_, l)| l.welcomed).map(|(k, _)| *k).collect())
    }

    /// The machine takes a starter in.
    pub(super) fn welcome(&mut self, site: usize, life: u64, key: StarterKey) {
        let Some(agent) = self.agent(site, life) else { return };
        let (master, epoch) = (agent.master.is_some(), agent.epoch);
        if let Some(line) = agent.lines.get_mut(&key) {
            line.welcomed = true;
            self.say_on_line(site, life, key, AtStarter::Welcome(master, epoch));
            self.say_up(site, life, key);
        }
    }

    pub(super) fn say_up(&mut self, site: usize, life: u64, key: StarterKey) {
        let now = self.clock.now;
        if let Some(offer) = self.offer(site, key) {
            let left = self.sites[site].starters.get(&key).map(|node| node.ends.since(now));
            self.say_to_master(site, life, ToMaster::Up(key, offer, left));
        }
    }

    /// What a starter offers.
    pub(super) fn offer(&self, site: usize, key: StarterKey) -> Option<Offer> {
        let node = self.sites[site].starters.get(&key)?;
        Some(Offer {
            site: SiteId(site as u16),
            proxy: node.proxy,
            host: format!("node{}-{}", node.proxy, node.index),
            cpus: node.cpus,
            memory_mb: 0,
            gpus: 0,
            shared: Shared::Everything,
            drain: DRAIN,
            arch: "x86_64".into(),
            system: "Linux".into(),
            attributes: Vec::new(),
            resources: Vec::new(),
        })
    }

    pub(super) fn say_on_line(&mut self, site: usize, life: u64, key: StarterKey, message: AtStarter) {
        let line = self.sites[site].agents.get_mut(&life).and_then(|agent| agent.lines.get_mut(&key));
        if let Some(line) = line
            && !self.cut.contains_key(&line.link)
        {
            let at = line.to_starter.arrival(&mut self.clock, 0, 20);
            self.clock.at(at, What::AtStarter(site, key, line.link, message));
        }
    }

    /// A starter calls the agent that its address file names.
    pub(super) fn call(&mut self, site: usize, key: StarterKey) {
        let now = self.clock.now;
        let here = &self.sites[site];
        let Some(node) = here.starters.get(&key).filter(|node| node.alive && node.link.is_none()) else {
            return;
        };
        let address = here.address.filter(|_| !here.hangs && node.cut_off <= now);
        let Some((_, agent)) = address.filter(|(_, agent)| here.agents.contains_key(agent)) else {
            return self.clock.after(1000, 30_000, What::Call(site, key));
        };
        let link = self.link();
        if let Some(node) = self.sites[site].starters.get_mut(&key) {
            node.link = Some((link, agent));
            node.welcomed = false;
            node.called = now;
        }
        self.of(site, agent, 1, 200, OfAgent::Called(key, link));
        self.clock.after(5000, 6000, What::CallFailed(site, key, link));
    }

    pub(super) fn call_failed(&mut self, site: usize, key: StarterKey, link: u64) {
        let current = |node: &&mut Node| node.link.is_some_and(|(current, _)| current == link);
        if let Some(node) = self.sites[site].starters.get_mut(&key).filter(current)
            && !node.welcomed
        {
            node.link = None;
            self.sever(link);
            self.clock.after(200, 30_000, What::Call(site, key));
        }
    }

    /// A starter says who it is.
    pub(super) fn called(&mut self, site: usize, life: u64, key: StarterKey, link: u64) {
        let now = self.clock.now;
        let here = &mut self.sites[site];
        let (Some(node), Some(agent)) = (here.starters.get(&key), here.agents.get_mut(&life)) else {
            return;
        };
        if !matches!(agent.stage, Stage::Working) || node.epoch > agent.epoch {
            // It is not set up yet, or the starter has met a newer one: then it asks its lease.
            self.of(site, life, 0, 50, OfAgent::KeepLease);
            return self.clock.after(0, 20, What::CallFailed(site, key, link));
        }
        let (proxy, index, batch_id, restarts) = (node.proxy, node.index, node.batch_id.clone(), node.restarts);
        let (to_starter, to_agent) = (Lane::default(), Lane::default());
        let line = Line { link, welcomed: false, to_starter, to_agent, heard: now, left: None };
        let before = agent.lines.insert(key, line);
        if let Some(before) = before {
            self.sever(before.link);
        }
        if self.cut.contains_key(&link) {
            // Its connection was taken in, and found to be closed.
            self.of(site, life, 0, 1000, OfAgent::LineLost(key, link));
        }
        self.clock.after(10_000, 20_000, What::Beat(site, key, link));
        self.tell_proxies(site, life, proxy::Event::StarterConnected { proxy, node: index, key, batch_id, restarts });
    }

    /// Both ends of a line see whether the other one is there.
    pub(super) fn beat(&mut self, site: usize, key: StarterKey, link: u64) {
        let now = self.clock.now;
        let (whole, deaf) = (self.is_whole(link), self.deaf.contains(&link));
        let here = &mut self.sites[site];
        let address = here.address;
        let Some(node) = here.starters.get_mut(&key) else { return };
        let near = node.alive && node.link.is_some_and(|(current, _)| current == link);
        let holder = here.agents.iter_mut().find(|(_, a)| a.lines.get(&key).is_some_and(|line| line.link == link));
        let far = holder.is_some();
        let (mut heard, mut answered) = (false, false);
        let mut silent = None;
        if let Some((life, agent)) = holder
            && let Some(line) = agent.lines.get_mut(&key)
        {
            if near && whole && !agent.stopped {
                heard = line.to_starter.is_open(now);
                if !deaf && line.to_agent.is_open(now) {
                    line.heard = now;
                    answered = heard;
                }
            }
            if !agent.stopped && now.since(line.heard) >= LEASE {
                silent = Some(*life);
            }
        }
        if near {
            if heard && whole {
                node.heard = now;
            }
            let newer = !node.master && address.is_some_and(|(epoch, _)| epoch > node.epoch);
            if now.since(node.heard) >= SILENCE || newer {
                self.line_lost_at_starter(site, key, link);
            } else if answered {
                let asked = now - self.clock.span(0, 10_000);
                self.tell_starter(site, key, StarterEvent::AgentHeard { asked });
            }
        }
        if let Some(life) = silent {
            self.line_lost_at_agent(site, life, key, link);
        } else if near || far {
            self.clock.after(10_000, 20_000, What::Beat(site, key, link));
        }
    }

    pub(super) fn cut_line(&mut self, site: usize, key: StarterKey) {
        let Some((link, agent)) = self.sites[site].starters.get(&key).and_then(|node| node.link) else {
            return;
        };
        self.sever(link);
        self.of(site, agent, 0, 60_000, OfAgent::LineLost(key, link));
        self.clock.after(0, 60_000, What::LineLostAtStarter(site, key, link));
    }

    pub(super) fn line_lost_at_agent(&mut self, site: usize, life: u64, key: StarterKey, link: u64) {
        let proxy = self.sites[site].starters.get(&key).map_or(ProxyId(0), |node| node.proxy);
        let now = self.clock.now;
        let Some(agent) = self.agent(site, life) else { return };
        if agent.lines.get(&key).is_none_or(|line| line.link != link) {
            return;
        }
        let Some(line) = agent.lines.remove(&key) else { return };
        let ahead = agent.work.as_ref().map_or(0, |work| work.ahead);
        let heard = Time(line.heard.min(now).0.wrapping_add(ahead));
        self.sever(link);
        let why = "connection lost".to_owned();
        self.tell_proxies(site, life, proxy::Event::StarterLost { proxy, key, left: line.left, heard, why });
    }

    pub(super) fn line_lost_at_starter(&mut self, site: usize, key: StarterKey, link: u64) {
        let current = |node: &&mut Node| node.link.is_some_and(|(current, _)| current == link);
        let Some(node) = self.sites[site].starters.get_mut(&key).filter(current) else {
            return;
        };
        let agent = node.link.take().map(|(_, agent)| agent);
        self.sever(link);
        if let Some(agent) = agent {
            self.of(site, agent, 0, 20_000, OfAgent::LineLost(key, link));
        }
        // Some stay away for longer than their lease.
        let long = self.mishap(site, 5);
        self.clock.after(500, if long { 1_200_000 } else { 10_000 }, What::Call(site, key));
        self.tell_starter(site, key, StarterEvent::AgentLost);
    }

    pub(super) fn agent_hears(&mut self, site: usize, life: u64, key: StarterKey, link: u64, message: FromStarter) {
        let now = self.clock.now;
        let carries = self.carries(link) && !self.deaf.contains(&link);
        let Some(agent) = self.agent(site, life) else { return };
        let Some(line) = agent.lines.get_mut(&key).filter(|line| carries && line.link == link) else {
            return;
        };
        line.heard = now;
        match message {
            FromStarter::Leaving(why) => {
                line.left = Some(why);
                self.line_lost_at_agent(site, life, key, link);
            }
            message if line.welcomed => self.say_to_master(site, life, ToMaster::Relay(key, message)),
            _ => {}
        }
    }

    pub(super) fn starter_hears(&mut self, site: usize, key: StarterKey, link: u64, message: AtStarter) {
        let now = self.clock.now;
        let carries = self.carries(link);
        let Some(node) = self.sites[site].starters.get_mut(&key) else { return };
        if !carries || node.link.is_none_or(|(current, _)| current != link) || node.cut_off > now {
            return;
        }
        node.heard = now;
        let asked = node.called;
        match message {
            AtStarter::Welcome(master, epoch) => {
                // An old agent is not listened to.
                if epoch < node.epoch {
                    return self.call_failed(site, key, link);
                }
                node.epoch = epoch;
                node.master = master;
                node.welcomed = true;
            }
            AtStarter::Master(up) => node.master = up,
            AtStarter::End(_) | AtStarter::Relay(_) => {}
        }
        let event = match message {
            AtStarter::Welcome(master, _) => StarterEvent::AgentConnected { master, asked },
            AtStarter::Master(up) => StarterEvent::MasterLinkChanged { up },
            AtStarter::End(why) => StarterEvent::EndAsked { why },
            AtStarter::Relay(ToStarter::Define(program, body)) => {
                let demand = Demand { cpus: body.cpus, memory_mb: body.memory_mb, gpus: body.gpus };
                StarterEvent::ProgramDefined { program, demand, body }
            }
            AtStarter::Relay(ToStarter::Assign(inventory, attempts)) => StarterEvent::Assigned {
                inventory,
                tasks: attempts.into_iter().map(|(id, program)| Task { id, program, body: () }).collect(),
            },
            AtStarter::Relay(ToStarter::Acknowledge(ids)) => StarterEvent::Acknowledged(ids),
            AtStarter::Relay(ToStarter::Recall(inventory, count)) => {
                StarterEvent::Recalled { inventory, count: count as usize }
            }
            AtStarter::Relay(ToStarter::Kill(ids, grace)) => {
                self.note_kill(key, &ids, grace);
                StarterEvent::KillAsked { ids, grace }
            }
            AtStarter::Relay(ToStarter::Drain(why)) => StarterEvent::DrainAsked { why },
        };
        self.tell_starter(site, key, event);
    }
}

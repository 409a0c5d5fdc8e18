//! The event agent of a site, as its driver would run it, and the lines to its starters.

use super::*;

impl World<'_> {
    pub(super) fn agent(&mut self, site: usize, life: u64) -> Option<&mut Agent> {
        self.sites[site].agent.as_mut().filter(|agent| agent.life == life)
    }

    pub(super) fn start_agent(&mut self, site: usize) {
        let random = self.clock.between(0, u64::MAX);
        let here = &mut self.sites[site];
        here.lives += 1;
        let mut machine = Proxies::new(&format!("vo-{site}-"), random);
        here.table.iter().for_each(|record| machine.apply(record));
        here.agent = Some(Agent {
            life: here.lives,
            machine,
            unsynced: Vec::new(),
            durable: 0,
            syncing: false,
            waiting: VecDeque::new(),
            tick: None,
            lines: BTreeMap::new(),
            master: None,
        });
        self.tell_proxies(site, proxy::Event::Recovered);
    }

    pub(super) fn kill_agent(&mut self, site: usize) {
        let Some(agent) = self.sites[site].agent.take() else {
            return;
        };
        self.cut_stream(site);
        for (key, line) in agent.lines {
            self.whole.remove(&line.link);
            self.clock.after(0, 20_000, What::LineLostAtStarter(site, key, line.link));
        }
    }

    pub(super) fn tell_proxies(&mut self, site: usize, event: proxy::Event) {
        let now = self.clock.now;
        let Some(agent) = &mut self.sites[site].agent else {
            return;
        };
        agent.machine.handle(now, event);
        agent.unsynced.extend(std::iter::from_fn(|| agent.machine.poll_record()));
        agent.waiting.extend(std::iter::from_fn(|| agent.machine.poll_action()));
        let life = agent.life;
        if !agent.unsynced.is_empty() && !agent.syncing {
            agent.syncing = true;
            self.clock.after(1, 30, What::Sync(site, life));
        }
        if let Some(deadline) = agent.machine.deadline()
            && agent.tick.is_none_or(|tick| deadline < tick)
        {
            let deadline = deadline.max(self.clock.now);
            agent.tick = Some(deadline);
            self.clock.at(deadline, What::AgentTick(site, life));
        }
        self.do_proxies(site);
    }

    pub(super) fn sync(&mut self, site: usize, life: u64) {
        if let Some(agent) = self.agent(site, life) {
            agent.syncing = false;
            agent.durable += agent.unsynced.len() as u64;
            let records = std::mem::take(&mut agent.unsynced);
            let restarted = agent.waiting.iter().any(|(_, action)| matches!(action, proxy::Action::MakeTags(_)));
            self.sites[site].table.extend(records);
            // A crash between a record and what is to follow it is rare; here, where nothing repeats the action, it is not.
            if restarted && !self.calm && self.kinds.contains(&"agent killed") && self.clock.one_in(2) {
                return self.kill_agent(site);
            }
            self.do_proxies(site);
        }
    }

    /// As the driver does it: with the exit file of an earlier life out of the way.
    fn make_tags(&mut self, site: usize, proxy: ProxyId, nodes: u32) {
        self.sites[site].tags.extend((0..nodes).map(|node| (proxy, node)));
        self.sites[site].exits.remove(&proxy);
    }

    pub(super) fn do_proxies(&mut self, site: usize) {
        while let Some(agent) = &mut self.sites[site].agent
            && agent.waiting.front().is_some_and(|(record, _)| *record <= agent.durable)
            && let Some((_, action)) = agent.waiting.pop_front()
        {
            let life = agent.life;
            self.do_proxy(site, life, action);
        }
    }

    pub(super) fn do_proxy(&mut self, site: usize, life: u64, action: proxy::Action) {
        use proxy::{Action as Do, Event as Heard};
        let nodes = self.sites[site].shape.0;
        let hangs = self.sites[site].batch.hangs;
        let fails = !self.calm && self.clock.one_in(20);
        self.say(format_args!("site {site}: {action:?}"));
        match action {
            Do::MakeTags(proxy) => self.make_tags(site, proxy, nodes),
            Do::SubmitProxy { proxy, attempt, token } => {
                self.make_tags(site, proxy, nodes);
                self.run_submit(site, life, proxy, attempt, token);
            }
            Do::QueryStatus if hangs || fails => {
                self.clock.after(1000, 30_000, What::Answer(site, life, Heard::StatusFailed("timed out".into())));
            }
            Do::QueryStatus => {
                let rows = self.rows(site, false);
                self.clock.after(50, 3000, What::Answer(site, life, Heard::StatusListed(rows)));
            }
            Do::QueryAccounting if site == 0 => {
                self.clock.after(1, 10, What::Answer(site, life, Heard::AccountingFailed { never: true }));
            }
            Do::QueryAccounting if hangs || fails => {
                self.clock.after(1000, 30_000, What::Answer(site, life, Heard::AccountingFailed { never: false }));
            }
            Do::QueryAccounting => {
                let rows = self.rows(site, true);
                self.clock.after(50, 3000, What::Answer(site, life, Heard::AccountingListed(rows)));
            }
            Do::ReadTags => {
                let (tags, exits) = (self.sites[site].tags.clone(), self.sites[site].exits.clone());
                self.clock.after(1, 200, What::Answer(site, life, Heard::TagsListed { tags, exits }));
            }
            Do::CancelProxies(ids) => {
                let refusal = (hangs || fails).then(|| "timed out".to_owned());
                if refusal.is_none() {
                    ids.iter().for_each(|id| self.cancel(site, id));
                }
                self.clock.after(50, 3000, What::Answer(site, life, Heard::CancelAnswered(refusal)));
            }
            Do::Welcome(key) => {
                let Some(agent) = &mut self.sites[site].agent else {
                    return;
                };
                let master = agent.master.is_some();
                if let Some(line) = agent.lines.get_mut(&key) {
                    line.welcomed = true;
                    self.say_on_line(site, key, AtStarter::Welcome(master));
                    self.say_up(site, key);
                }
            }
            Do::EndStarter(key, why) => self.say_on_line(site, key, AtStarter::End(why)),
            Do::StarterDown { key, gone, why } => self.say_to_master(site, ToMaster::Down(key, gone, why)),
            Do::CleanProxy(proxy) => {
                self.sites[site].tags.retain(|(of, _)| *of != proxy);
                self.sites[site].exits.remove(&proxy);
            }
            Do::ReportProxies(_) | Do::ReportNote(_) | Do::RemoveFiles(_) => {}
            Do::ShutdownComplete => self.shut_down(site),
        }
    }

    pub(super) fn say_to_master(&mut self, site: usize, message: ToMaster) {
        let master = self.sites[site].agent.as_ref().and_then(|agent| agent.master);
        if let Some((link, _, lane)) = &mut self.sites[site].stream
            && master == Some(*link)
        {
            let at = lane.arrival(&mut self.clock, 5, 150);
            self.clock.at(at, What::ToMaster(site, *link, message));
        }
    }

    pub(super) fn say_up(&mut self, site: usize, key: StarterKey) {
        let now = self.clock.now;
        if let Some(node) = self.sites[site].starters.get(&key) {
            let offer = Offer {
                site: SiteId(site as u16),
                proxy: node.proxy,
                host: format!("node{}", node.index),
                cpus: node.cpus,
                memory_mb: 0,
                gpus: 0,
                shared: Shared::Everything,
                drain: DRAIN,
                arch: "x86_64".into(),
                system: "Linux".into(),
            };
            let left = node.ends.since(now);
            self.say_to_master(site, ToMaster::Up(key, offer, left));
        }
    }

    pub(super) fn say_on_line(&mut self, site: usize, key: StarterKey, message: AtStarter) {
        let Some(agent) = &mut self.sites[site].agent else {
            return;
        };
        if let Some(line) = agent.lines.get_mut(&key) {
            let at = line.to_starter.arrival(&mut self.clock, 0, 20);
            self.clock.at(at, What::AtStarter(site, key, line.link, message));
        }
    }

    pub(super) fn at_agent(&mut self, site: usize, link: u64, message: ToAgent) {
        if !self.whole.contains(&link) || self.sites[site].agent.is_none() {
            return;
        }
        match message {
            ToAgent::Configure => {
                let nodes = self.sites[site].shape.0;
                if let Some(agent) = &mut self.sites[site].agent {
                    agent.master = Some(link);
                }
                let config = proxy::Config {
                    nodes,
                    queued_permille: 150,
                    queued_base: 2,
                    status: STATUS,
                    lease: LEASE,
                    absence: LEASE * 2,
                };
                self.tell_proxies(site, proxy::Event::Configured(config));
                self.greet(site);
            }
            ToAgent::Target(target) => self.tell_proxies(site, proxy::Event::TargetSet(target)),
            ToAgent::Relay(key, message) => {
                let agent = self.sites[site].agent.as_ref();
                if agent.and_then(|agent| agent.lines.get(&key)).is_some_and(|line| line.welcomed) {
                    self.say_on_line(site, key, AtStarter::Relay(message));
                }
            }
            ToAgent::Shutdown => {
                let keys = self.lines(site);
                for key in keys {
                    self.say_on_line(site, key, AtStarter::End("the session ends".into()));
                }
                self.tell_proxies(site, proxy::Event::ShutdownAsked);
            }
        }
    }

    pub(super) fn lines(&self, site: usize) -> Vec<StarterKey> {
        let agent = self.sites[site].agent.as_ref();
        agent.map_or_else(Vec::new, |agent| agent.lines.iter().filter(|(_, l)| l.welcomed).map(|(k, _)| *k).collect())
    }

    /// Tells a master that has just come what there is.
    pub(super) fn greet(&mut self, site: usize) {
        let up = self.lines(site);
        up.iter().for_each(|key| self.say_up(site, *key));
        let Some(agent) = &self.sites[site].agent else { return };
        let down = agent.machine.starters().filter_map(|(_, key, link)| match link {
            Link::Up => None,
            Link::Silent(_, why) => Some(ToMaster::Down(key, false, why.clone())),
            Link::Gone(why) => Some(ToMaster::Down(key, true, why.clone())),
        });
        let down: Vec<ToMaster> = down.collect();
        down.into_iter().for_each(|message| self.say_to_master(site, message));
        up.into_iter().for_each(|key| self.say_on_line(site, key, AtStarter::Master(true)));
        self.tell_proxies(site, proxy::Event::MasterLink(true));
    }

    pub(super) fn stream_lost_at_agent(&mut self, site: usize, life: u64, link: u64) {
        let Some(agent) = self.agent(site, life).filter(|agent| agent.master == Some(link)) else {
            return;
        };
        agent.master = None;
        self.lines(site).into_iter().for_each(|key| self.say_on_line(site, key, AtStarter::Master(false)));
        self.tell_proxies(site, proxy::Event::MasterLink(false));
    }

    pub(super) fn shut_down(&mut self, site: usize) {
        let left: Vec<_> =
            self.sites[site].batch.jobs.iter().filter(|(_, job)| job.state != BatchState::Ended).collect();
        let left = format!("{:?}", left.iter().map(|(id, job)| (id, &job.name)).collect::<Vec<_>>());
        let late = self.sites[site].batch.late;
        self.require(left == "[]" && late == 0, || format!("batch jobs left behind at site {site}: {left}"));
        self.say_to_master(site, ToMaster::Done);
    }

    pub(super) fn call(&mut self, site: usize, key: StarterKey) {
        let Some(node) = self.sites[site].starters.get(&key).filter(|node| node.alive && node.link.is_none()) else {
            return;
        };
        let (proxy, index, batch_id, restarts) = (node.proxy, node.index, node.batch_id.clone(), node.restarts);
        let before = match &self.sites[site].agent {
            Some(agent) => agent.lines.get(&key).map(|line| line.link),
            None => return self.clock.after(1000, 10_000, What::Call(site, key)),
        };
        if let Some(before) = before {
            self.line_lost_at_agent(site, key, before, None);
        }
        let link = self.link();
        self.heard.insert(link, self.clock.now);
        if let Some(node) = self.sites[site].starters.get_mut(&key) {
            node.link = Some(link);
        }
        if let Some(agent) = &mut self.sites[site].agent {
            let (to_starter, to_agent) = (Lane::default(), Lane::default());
            agent.lines.insert(key, Line { link, welcomed: false, to_starter, to_agent });
        }
        self.clock.after(10_000, 20_000, What::Beat(site, key, link));
        self.tell_proxies(site, proxy::Event::StarterConnected { proxy, node: index, key, batch_id, restarts });
    }

    pub(super) fn beat(&mut self, site: usize, key: StarterKey, link: u64) {
        if self.whole.contains(&link) {
            self.heard.insert(link, self.clock.now);
            self.clock.after(10_000, 20_000, What::Beat(site, key, link));
            self.tell_starter(site, key, StarterEvent::AgentHeard);
        }
    }

    pub(super) fn cut_line(&mut self, site: usize, key: StarterKey) {
        let Some(link) = self.sites[site].starters.get(&key).and_then(|node| node.link) else {
            return;
        };
        self.whole.remove(&link);
        self.clock.after(0, 60_000, What::LineLostAtAgent(site, key, link));
        self.clock.after(0, 60_000, What::LineLostAtStarter(site, key, link));
    }

    pub(super) fn line_lost_at_agent(&mut self, site: usize, key: StarterKey, link: u64, left: Option<String>) {
        let proxy = self.sites[site].starters.get(&key).map_or(ProxyId(0), |node| node.proxy);
        let Some(agent) = &mut self.sites[site].agent else {
            return;
        };
        if agent.lines.get(&key).is_none_or(|line| line.link != link) {
            return;
        }
        agent.lines.remove(&key);
        let heard = self.heard.get(&link).copied().unwrap_or(self.clock.now);
        self.whole.remove(&link);
        let why = "connection lost".to_owned();
        self.tell_proxies(site, proxy::Event::StarterLost { proxy, key, left, heard, why });
    }

    pub(super) fn line_lost_at_starter(&mut self, site: usize, key: StarterKey, link: u64) {
        let Some(node) = self.sites[site].starters.get_mut(&key).filter(|node| node.link == Some(link)) else {
            return;
        };
        node.link = None;
        // Some stay away for longer than their lease.
        let long = !self.calm && self.clock.one_in(5);
        self.clock.after(500, if long { 1_200_000 } else { 10_000 }, What::Call(site, key));
        self.tell_starter(site, key, StarterEvent::AgentLost);
    }

    pub(super) fn agent_hears(&mut self, site: usize, key: StarterKey, link: u64, message: FromStarter) {
        let Some(agent) = &self.sites[site].agent else { return };
        if !self.whole.contains(&link) || agent.lines.get(&key).is_none_or(|line| line.link != link) {
            return;
        }
        self.heard.insert(link, self.clock.now);
        match message {
            FromStarter::Leaving(why) => self.line_lost_at_agent(site, key, link, Some(why)),
            message => self.say_to_master(site, ToMaster::Relay(key, message)),
        }
    }

    pub(super) fn starter_hears(&mut self, site: usize, key: StarterKey, link: u64, message: AtStarter) {
        let here = self.sites[site].starters.get(&key).is_some_and(|node| node.link == Some(link));
        if !here || !self.whole.contains(&link) {
            return;
        }
        let event = match message {
            AtStarter::Welcome(master) => StarterEvent::AgentConnected { master },
            AtStarter::Master(up) => StarterEvent::MasterLinkChanged { up },
            AtStarter::End(why) => StarterEvent::EndAsked { why },
            AtStarter::Relay(ToStarter::Define(program, body)) => {
                let demand = Demand { cpus: body.cpus, memory_mb: body.memory_mb };
                StarterEvent::ProgramDefined { program, demand, body }
            }
            AtStarter::Relay(ToStarter::Assign(inventory, attempts)) => StarterEvent::Assigned {
                inventory,
                tasks: attempts.into_iter().map(|(id, program)| Task { id, program, body: () }).collect(),
            },
            AtStarter::Relay(ToStarter::Acknowledge(ids)) => StarterEvent::Acknowledged(ids),
            AtStarter::Relay(ToStarter::Drain(why)) => StarterEvent::DrainAsked { why },
            AtStarter::Relay(ToStarter::Recall(inventory, count)) => {
                StarterEvent::Recalled { inventory, count: count as usize }
            }
            AtStarter::Relay(ToStarter::Kill(ids, grace)) => StarterEvent::KillAsked { ids, grace },
        };
        self.tell_starter(site, key, event);
    }
}

//! The event agents of a site, as their driver would run them.

use super::*;

/// How often the copy of a table is tried that another agent is still replacing.
const COPIES: u32 = 5;

/// Between two looks for what starters put aside late.
const LOOK: Duration = Duration::from_secs(60);

impl World<'_> {
    /// A process that will act once it holds the lease.
    pub(super) fn start_agent(&mut self, site: usize, node: usize, above: u64) -> u64 {
        self.summary.agents += 1;
        let fresh = self.calm || self.quiet == Some(site);
        let here = &mut self.sites[site];
        here.lives += 1;
        let life = here.lives;
        let tables = here.tables.list(self.clock.now, node, fresh, self.clock.choices());
        let (claim, step) = Claim::new(tables.last().copied().unwrap_or(0).max(above));
        here.agents.insert(
            life,
            Agent {
                node,
                stopped: false,
                stage: Stage::Claiming(claim, step),
                epoch: 0,
                began: Time(0),
                fenced: false,
                work: None,
                lines: BTreeMap::new(),
                master: None,
                heard: Time(0),
                missed: Missed::None,
                closing: false,
                stands_for: BTreeMap::new(),
            },
        );
        self.of(site, life, 1, 100, OfAgent::Claim);
        life
    }

    /// Lets something happen to an agent.
    pub(super) fn of(&mut self, site: usize, life: u64, low: u64, high: u64, what: OfAgent) {
        self.clock.after(low, high, What::Agent(site, life, what));
    }

    pub(super) fn agent(&mut self, site: usize, life: u64) -> Option<&mut Agent> {
        self.sites[site].agents.get_mut(&life)
    }

    pub(super) fn of_agent(&mut self, site: usize, life: u64, what: OfAgent) -> Checked {
        match what {
            OfAgent::Claim => self.claim(site, life),
            OfAgent::Open => return self.open_table(site, life),
            OfAgent::Begin(ahead) => self.begin(site, life, ahead),
            OfAgent::KeepLease => {
                let _ = self.may_act(site, life);
                self.of(site, life, 5000, 30_000, OfAgent::KeepLease);
                let (epoch, address) = (self.agent(site, life).map(|agent| agent.epoch), self.sites[site].address);
                if address != epoch.map(|epoch| (epoch, life))
                    && self.working(site, life)
                    && self.may_act(site, life).is_ok()
                {
                    self.of(site, life, 0, 50, OfAgent::WriteAddress);
                }
            }
            OfAgent::WriteAddress => {
                if let Some(epoch) = self.agent(site, life).map(|agent| agent.epoch) {
                    self.sites[site].address = Some((epoch, life));
                }
            }
            OfAgent::Sync => return self.sync(site, life),
            OfAgent::Listen => self.listen(site, life),
            OfAgent::Present(only) => self.present(site, life, only),
            OfAgent::Look => {
                self.present(site, life, None);
                let at = self.clock.now + LOOK;
                self.clock.at(at, What::Agent(site, life, OfAgent::Look));
            }
            OfAgent::Forget(key, ids) => self.forget_spooled(site, life, key, &ids),
            OfAgent::Tick => {
                let now = self.clock.now;
                let work = self.agent(site, life).and_then(|agent| agent.work.as_mut());
                if let Some(work) = work.filter(|work| work.tick.is_some_and(|tick| tick <= now)) {
                    work.tick = None;
                    self.tell_proxies(site, life, proxy::Event::DeadlinePassed);
                }
            }
            OfAgent::Do(action) => self.act(site, life, action),
            OfAgent::Submit(proxy, attempt, token) => self.submit_next(site, life, proxy, attempt, token),
            OfAgent::RunSubmit(proxy, attempt, token) => self.run_submit(site, life, proxy, attempt, token),
            OfAgent::Heard(event) => {
                if let proxy::Event::SubmitAnswered { proxy, attempt, answer } = &event {
                    let unclear = matches!(answer, SubmitAnswer::Unclear(_));
                    self.note_submission(site, life, *proxy, *attempt, unclear);
                    if let Some(work) = self.agent(site, life).and_then(|agent| agent.work.as_mut()) {
                        work.submitting = None;
                    }
                }
                self.tell_proxies(site, life, event);
            }
            OfAgent::Listed(rows) => {
                self.note_listing(site, life, &rows);
                self.tell_proxies(site, life, proxy::Event::StatusListed(rows));
            }
            OfAgent::FromMaster(link, message) => self.at_agent(site, life, link, message),
            OfAgent::StreamLost(link) => self.stream_lost_at_agent(site, life, link),
            OfAgent::Called(key, link) => self.called(site, life, key, link),
            OfAgent::FromStarter(key, link, message) => self.agent_hears(site, life, key, link, message),
            OfAgent::LineLost(key, link) => self.line_lost_at_agent(site, life, key, link),
            OfAgent::Quit => self.quit(site, life),
        }
        Ok(())
    }

    fn working(&mut self, site: usize, life: u64) -> bool {
        self.agent(site, life).is_some_and(|agent| matches!(agent.stage, Stage::Working))
    }

    // ---- its process

    /// The next step on the way to the lease.
    fn claim(&mut self, site: usize, life: u64) {
        let now = self.clock.now;
        let fresh = self.calm || self.quiet == Some(site);
        if self.sites[site].hangs {
            return self.of(site, life, 1000, 5000, OfAgent::Claim);
        }
        let Site { agents, leases, .. } = &mut self.sites[site];
        let Some(agent) = agents.get_mut(&life) else { return };
        let node = agent.node;
        let Stage::Claiming(claim, step) = &mut agent.stage else { return };
        let seen = match step {
            Step::List => Seen::Listed(leases.list(now, node, fresh, self.clock.choices()).into_iter().collect()),
            Step::Make(epoch) => Seen::Made(leases.make(now, node, *epoch, life)),
            Step::Remove(epochs) => {
                // One call of the file system at a time.
                if let Some((first, rest)) = epochs.split_first() {
                    leases.remove(now, node, *first);
                    if !rest.is_empty() {
                        *epochs = rest.to_vec();
                        return self.of(site, life, 1, 100, OfAgent::Claim);
                    }
                }
                Seen::Removed
            }
            Step::Held(epoch) => {
                agent.epoch = *epoch;
                agent.stage = Stage::Ready;
                self.sites[site].socket = Some(life);
                return self.of(site, life, 5000, 30_000, OfAgent::KeepLease);
            }
            Step::Overtaken(_) => return self.quit(site, life),
        };
        *step = claim.next(seen);
        let long = self.mishap(site, 10);
        self.of(site, life, 1, if long { 5000 } else { 100 }, OfAgent::Claim);
        if self.has("agent stopped") && self.mishap(site, 15) {
            self.stop_agent(site, life);
        }
    }

    /// Asks the lease, as before everything that matters.
    pub(super) fn may_act(&mut self, site: usize, life: u64) -> Result<(), String> {
        let Site { agents, leases, hangs, .. } = &mut self.sites[site];
        let Some(agent) = agents.get_mut(&life) else { return Err("it has ended".into()) };
        if *hangs {
            return Err("the lease cannot be read".into());
        }
        if agent.fenced || leases.get(agent.epoch) != Some(&life) {
            if !agent.fenced {
                agent.fenced = true;
                self.of(site, life, 0, 20, OfAgent::Quit);
            }
            return Err("another agent has taken over".into());
        }
        Ok(())
    }

    /// Opens its table, with what its predecessor left; that one may still write.
    fn open_table(&mut self, site: usize, life: u64) -> Checked {
        let now = self.clock.now;
        let fresh = self.calm || self.quiet == Some(site);
        let Site { agents, tables, .. } = &mut self.sites[site];
        let Some(mut agent) = agents.remove(&life) else { return Ok(()) };
        let Stage::Opening(tries) = agent.stage else {
            agents.insert(life, agent);
            return Ok(());
        };
        // It makes its own directory first, so that it lists what is there since.
        tables.changed(now, agent.node);
        let listed = tables.list(now, agent.node, fresh, self.clock.choices());
        let before = listed.range(..agent.epoch).next_back().copied();
        let own = MemDisk::new();
        let mut opened = Err("it is gone".to_owned());
        if let Some(from) = before.map(|before| tables.get(before)) {
            if let Some(from) = from.cloned() {
                // An agent that doesn't know yet may commit what it has, or replace its files.
                let (mut coins, mut choices) = (self.clock.choices().clone(), self.clock.choices().clone());
                self.clock.choices().below(2);
                let mut meanwhile = || {
                    for work in agents.values_mut().filter_map(|agent| agent.work.as_mut()) {
                        let _ = match coins.below(40) {
                            0..10 => work.table.commit(),
                            10 if !work.table.is_dirty() => work.table.snapshot(work.machine.snapshot()),
                            _ => Ok(()),
                        };
                    }
                };
                let mut from = Raced { disk: from, meanwhile: &mut meanwhile, choices: &mut choices };
                opened = vo_store::copy(&mut from, &mut own.clone()).map_err(|e| e.to_string());
            }
        } else {
            opened = Ok(());
        }
        let wall = now.0 + if self.clock.one_in(3) { self.clock.between(0, 3_600_000) } else { 0 };
        let opened = opened.and_then(|()| Table::open(own.clone(), wall, agent.epoch).map_err(|e| e.to_string()));
        let Site { agents, tables, .. } = &mut self.sites[site];
        let (epoch, node) = (agent.epoch, agent.node);
        let (table, records) = match opened {
            Ok(opened) => opened,
            Err(_) if tries < COPIES => {
                agent.stage = Stage::Opening(tries + 1);
                agents.insert(life, agent);
                self.of(site, life, 200, 201, OfAgent::Open);
                return Ok(());
            }
            Err(why) => {
                // Another one may have taken over, and removed it all; if not, something is wrong.
                agents.insert(life, agent);
                let held = self.may_act(site, life).is_ok();
                self.quit(site, life);
                return if held { Err(format!("site {site}: the table does not open: {why}")) } else { Ok(()) };
            }
        };
        tables.make(now, node, epoch, own);
        for old in listed.range(..epoch) {
            tables.remove(now, node, *old);
        }
        let mut machine = Proxies::new(&check::prefix(site, table.base), wall);
        records.iter().for_each(|record| machine.apply(record));
        // A clock that was set back must not make times of the table lie ahead.
        let latest = machine.views().map(|view| view.since.0).max().unwrap_or(0);
        let ahead = wall.saturating_sub(table.base).max(latest);
        let waiting = VecDeque::new();
        agent.work = Some(Work { machine, table, syncing: false, waiting, submitting: None, tick: None, ahead: 0 });
        agents.insert(life, agent);
        self.of(site, life, 0, 100, OfAgent::Begin(ahead));
        Ok(())
    }

    fn begin(&mut self, site: usize, life: u64, at: u64) {
        if let Err(why) = self.may_act(site, life) {
            if why.contains("read") {
                // It refuses its master, and ends.
                self.quit(site, life);
            }
            return;
        }
        let now = self.clock.now;
        let Some(agent) = self.agent(site, life) else { return };
        agent.stage = Stage::Working;
        agent.began = now;
        agent.heard = now;
        let (epoch, master) = (agent.epoch, agent.master.take());
        if let Some(work) = &mut agent.work {
            // Times of its machine count from the table's beginning.
            work.ahead = at.wrapping_sub(now.0);
        }
        self.sites[site].address = Some((epoch, life));
        self.tell_proxies(site, life, proxy::Event::Recovered);
        self.listen(site, life);
        if self.wishes.spools {
            self.clock.at(now + LOOK, What::Agent(site, life, OfAgent::Look));
        }
        if let Some(link) = master {
            self.configured(site, life, link);
        }
    }

    pub(super) fn kill_agent(&mut self, site: usize, life: u64) {
        let Some(mut agent) = self.sites[site].agents.remove(&life) else {
            return;
        };
        // In the midst of a commit: what is written is seen, and is not durable.
        if let Some((work, disk)) = agent.work.as_mut().zip(self.sites[site].tables.get(agent.epoch))
            && self.clock.one_in(2)
        {
            disk.crash_at(disk.steps() + self.clock.between(0, 4));
            let _ = work.table.commit();
            disk.restart();
        }
        self.postponed.remove(&(site, life));
        let stream = self.sites[site].stream;
        if stream.is_some_and(|stream| stream.agent == life) {
            self.cut_stream(site);
        }
        for (key, line) in agent.lines {
            self.sever(line.link);
            self.clock.after(0, 20_000, What::LineLostAtStarter(site, key, line.link));
        }
    }

    /// It ends in order: what it recorded becomes durable.
    fn quit(&mut self, site: usize, life: u64) {
        if let Some(work) = self.agent(site, life).and_then(|agent| agent.work.as_mut()) {
            let _ = work.table.commit();
        }
        self.kill_agent(site, life);
    }

    pub(super) fn stop_agent(&mut self, site: usize, life: u64) {
        let Some(agent) = self.agent(site, life) else { return };
        agent.stopped = true;
        let long = self.clock.one_in(4);
        self.clock.after(10, if long { 3_000_000 } else { 120_000 }, What::GoesOn(site, life));
        if let Some(stream) = self.sites[site].stream
            && stream.agent == life
        {
            // The master sees that nobody answers.
            self.clock.after(30_000, 600_000, What::StreamLostAtMaster(site, stream.link));
        }
    }

    /// A stopped agent goes on, between any two of its steps.
    pub(super) fn goes_on(&mut self, site: usize, life: u64) -> Checked {
        let Some(agent) = self.agent(site, life) else { return Ok(()) };
        agent.stopped = false;
        for what in self.postponed.remove(&(site, life)).unwrap_or_default() {
            if self.sites[site].agents.contains_key(&life) {
                self.of_agent(site, life, what)?;
            }
        }
        Ok(())
    }

    /// The file server of the home loses power, and all login nodes with it.
    pub(super) fn crash_gateway(&mut self, site: usize) {
        for life in self.sites[site].agents.keys().copied().collect::<Vec<_>>() {
            self.kill_agent(site, life);
        }
        let loss =
            self.clock.pick(&[Loss::All, Loss::Tail, Loss::Scattered(64), Loss::Scattered(16)]).unwrap_or(Loss::All);
        let tables: Vec<MemDisk> = self.sites[site].tables.values().cloned().collect();
        tables.iter().for_each(|disk| disk.crash(loss, self.clock.choices()));
        for tag in std::mem::take(&mut self.sites[site].unsynced) {
            if self.clock.one_in(2) {
                self.sites[site].tags.remove(&tag);
            }
        }
    }

    // ---- its machine

    pub(super) fn tell_proxies(&mut self, site: usize, life: u64, event: proxy::Event) {
        let now = self.clock.now;
        let Some(agent) = self.agent(site, life) else { return };
        let Some(work) = agent.work.as_mut().filter(|_| matches!(agent.stage, Stage::Working)) else {
            return;
        };
        let at = Time(now.0.wrapping_add(work.ahead));
        work.machine.handle(at, event);
        let mut ended = Vec::new();
        while let Some(record) = work.machine.poll_record() {
            if let proxy::Record::Ended(id, why, _) = &record {
                let batch_id = work.machine.view(*id).and_then(|view| view.batch_id.map(str::to_owned));
                ended.extend(batch_id.map(|batch_id| (*id, batch_id, why.clone())));
            }
            work.table.append(record);
        }
        work.waiting.extend(std::iter::from_fn(|| work.machine.poll_action()));
        let sync = work.table.is_dirty() && !std::mem::replace(&mut work.syncing, work.table.is_dirty());
        let deadline = work.machine.deadline().map(|at| Time(at.0.wrapping_sub(work.ahead)).max(now));
        let tick = deadline.filter(|deadline| work.tick.is_none_or(|tick| *deadline < tick));
        if let Some(tick) = tick {
            work.tick = Some(tick);
            self.clock.at(tick, What::Agent(site, life, OfAgent::Tick));
        }
        if sync {
            let slow = self.mishap(site, 20);
            self.of(site, life, 1, if slow { 3000 } else { 30 }, OfAgent::Sync);
        }
        ended.into_iter().for_each(|(id, batch_id, why)| self.check_ended(site, id, &batch_id, &why));
        self.do_proxies(site, life);
    }

    fn sync(&mut self, site: usize, life: u64) -> Checked {
        let snapshot = self.clock.one_in(30);
        if self.has("gateway crashed") && self.mishap(site, 100) {
            self.crash_gateway(site);
            return Ok(());
        }
        let Some(work) = self.agent(site, life).and_then(|agent| agent.work.as_mut()) else {
            return Ok(());
        };
        work.syncing = false;
        let mut done = work.table.commit();
        if snapshot && done.is_ok() {
            done = work.table.snapshot(work.machine.snapshot());
        }
        done.map_err(|e| format!("site {site}: the table: {e}"))?;
        // A crash between a record and what is to follow it is rare; here it is not.
        let held = work.waiting.iter().any(|(_, action)| !matches!(action, proxy::Action::ReportProxies(_)));
        if held && self.has("agent killed") && self.mishap(site, 20) {
            self.kill_agent(site, life);
        } else {
            self.do_proxies(site, life);
        }
        Ok(())
    }

    fn do_proxies(&mut self, site: usize, life: u64) {
        while let Some(work) = self.agent(site, life).and_then(|agent| agent.work.as_mut())
            && work.waiting.front().is_some_and(|(record, _)| *record <= work.table.durable())
            && let Some((_, action)) = work.waiting.pop_front()
        {
            self.do_proxy(site, life, action);
        }
    }

    fn do_proxy(&mut self, site: usize, life: u64, action: proxy::Action) {
        use proxy::{Action as Do, Event as Heard};
        if self.log.is_some() {
            self.say(format_args!("agent {life} of site {site}: {action:?}"));
        }
        if let Do::SubmitProxy { proxy, .. } = action
            && let Some(work) = self.agent(site, life).and_then(|agent| agent.work.as_mut())
        {
            work.submitting = Some(proxy);
        }
        match action {
            Do::MakeTags(_)
            | Do::CleanProxy(_)
            | Do::RemoveFiles(_)
            | Do::CancelProxies(_)
            | Do::SubmitProxy { .. } => match self.may_act(site, life) {
                Ok(()) => self.of(site, life, 0, 100, OfAgent::Do(action)),
                Err(why) => self.not_done(site, life, action, why),
            },
            Do::QueryStatus => self.query_status(site, life),
            Do::QueryAccounting => self.query_accounting(site, life),
            Do::ReadTags if self.sites[site].hangs => {
                self.of(site, life, 1000, 60_000, OfAgent::Heard(Heard::TagsFailed))
            }
            Do::ReadTags => {
                let here = &self.sites[site];
                let (tags, exits) = (here.tags.keys().copied().collect(), here.exits.clone());
                // A file server may be slow: they are what was there then.
                let slow = self.mishap(site, 10);
                let most = if slow { 20_000 } else { 200 };
                self.of(site, life, 1, most, OfAgent::Heard(Heard::TagsListed { tags, exits }));
            }
            Do::Welcome(key) => self.welcome(site, life, key),
            Do::EndStarter(key, why) => self.say_on_line(site, life, key, AtStarter::End(why)),
            Do::StarterDown { key, gone, why } => {
                self.say_to_master(site, life, ToMaster::Down(key, gone, why));
                if let Some(agent) = self.agent(site, life).filter(|_| gone) {
                    agent.stands_for.remove(&key);
                }
                if gone && self.sites[site].spool.contains_key(&key) {
                    self.of(site, life, 1, 200, OfAgent::Present(Some(key)));
                }
            }
            Do::ReportProxies(ids) => self.report(site, life, |id| ids.contains(&id)),
            Do::ReportNote(_) => {}
            Do::ShutdownComplete => self.shut_down(site, life),
        }
    }

    fn not_done(&mut self, site: usize, life: u64, action: proxy::Action, why: String) {
        let answer = match action {
            proxy::Action::SubmitProxy { proxy, attempt, .. } => {
                proxy::Event::SubmitAnswered { proxy, attempt, answer: SubmitAnswer::Limited(why) }
            }
            proxy::Action::CancelProxies(_) => proxy::Event::CancelAnswered(Some(why)),
            _ => return,
        };
        self.of(site, life, 0, 100, OfAgent::Heard(answer));
    }

    /// Its lease was there, a moment ago.
    fn act(&mut self, site: usize, life: u64, action: proxy::Action) {
        let here = &mut self.sites[site];
        match action {
            proxy::Action::MakeTags(proxy) => {
                self.make_tags(site, proxy);
                self.sync_tags(site, proxy);
            }
            proxy::Action::CleanProxy(proxy) => here.tags.retain(|(of, _), _| *of != proxy),
            proxy::Action::RemoveFiles(proxy) => drop(here.exits.remove(&proxy)),
            proxy::Action::CancelProxies(ids) => self.run_cancel(site, life, ids),
            proxy::Action::SubmitProxy { proxy, attempt, token } => {
                if here.hangs {
                    let action = proxy::Action::SubmitProxy { proxy, attempt, token };
                    return self.not_done(site, life, action, "cannot write the proxy's files".into());
                }
                self.make_tags(site, proxy);
                self.sync_tags(site, proxy);
                self.of(site, life, 0, 100, OfAgent::Submit(proxy, attempt, token));
            }
            _ => {}
        }
    }

    /// The last question before the command: its intent is durable since before.
    fn submit_next(&mut self, site: usize, life: u64, proxy: ProxyId, attempt: u32, token: String) {
        match self.may_act(site, life) {
            Ok(()) => self.of(site, life, 0, 50, OfAgent::RunSubmit(proxy, attempt, token)),
            Err(why) => self.not_done(site, life, proxy::Action::SubmitProxy { proxy, attempt, token }, why),
        }
    }

    /// As the driver does it: with the exit file of an earlier life out of the way.
    fn make_tags(&mut self, site: usize, proxy: ProxyId) {
        let here = &mut self.sites[site];
        here.exits.remove(&proxy);
        for node in 0..here.shape.0 {
            here.tags.entry((proxy, node)).or_insert_with(|| {
                here.unsynced.insert((proxy, node));
                None
            });
        }
    }

    fn sync_tags(&mut self, site: usize, proxy: ProxyId) {
        self.sites[site].unsynced.retain(|(of, _)| *of != proxy);
    }

    /// Nothing of the session is left there: it removes its files, says so, and ends.
    fn shut_down(&mut self, site: usize, life: u64) {
        if self.may_act(site, life).is_err() {
            // It can't remove its files, and ends. What is there now is a newer one's.
            return self.of(site, life, 0, 20, OfAgent::Quit);
        }
        let here = &self.sites[site];
        // Where the script has ended, the batch system sees it some time after.
        let over = |id: &String, job: &BatchJob| {
            let mut nodes =
                here.starters.values().filter(|n| n.batch_id == *id && n.restarts == job.restarts).peekable();
            nodes.peek().is_some() && nodes.all(|n| !n.alive && n.running.is_empty())
        };
        // One that missed its master can't know of what no listing has shown. The last one may have begun a minute ago.
        let unseen = |job: &BatchJob| !self.ending && self.clock.now.since(job.shows) < ANSWER;
        let left = here.batch.jobs.iter().filter(|(_, job)| job.state != BatchState::Ended && !unseen(job));
        let left: Vec<_> = left.filter(|(id, job)| !over(id, job)).collect();
        let left = format!("{:?}", left.iter().map(|(id, job)| (id, &job.name)).collect::<Vec<_>>());
        let late = self.sites[site].batch.late;
        // One that missed its master may have been lied to.
        let lied = !self.ending && self.has("batch lies");
        self.require(lied || (left == "[]" && late == 0), || format!("batch jobs left behind at site {site}: {left}"));
        let now = self.clock.now;
        let here = &mut self.sites[site];
        let node = here.agents.get(&life).map_or(0, |agent| agent.node);
        here.tags.clear();
        here.unsynced.clear();
        here.exits.clear();
        here.spool.clear();
        here.leases.clear(now, node);
        here.tables.clear(now, node);
        here.address = None;
        self.say_to_master(site, life, ToMaster::Done);
        self.of(site, life, 5000, 5001, OfAgent::Quit);
    }

    // ---- its master

    pub(super) fn say_to_master(&mut self, site: usize, life: u64, message: ToMaster) {
        let here = &mut self.sites[site];
        let master = here.agents.get(&life).and_then(|agent| agent.master);
        let (low, high) = here.latency;
        if let Some(stream) = &mut here.stream
            && master == Some(stream.link)
            && !self.cut.contains_key(&stream.link)
        {
            let at = stream.to_master.arrival(&mut self.clock, low, high);
            self.clock.at(at, What::ToMaster(site, stream.link, message));
        }
    }

    fn at_agent(&mut self, site: usize, life: u64, link: u64, message: ToAgent) {
        if !self.carries(link) {
            return;
        }
        let (now, ending) = (self.clock.now, self.ending);
        let Some(agent) = self.agent(site, life) else { return };
        if let ToAgent::Configure = message {
            // A newer agent is the one to talk to; without a word from us the master calls again.
            if self.may_act(site, life).is_err() {
                return;
            }
            let Some(agent) = self.agent(site, life) else { return };
            agent.heard = now;
            agent.missed = Missed::None;
            match agent.stage {
                // It refuses its master.
                Stage::Working if agent.closing && !ending => {}
                Stage::Working => self.configured(site, life, link),
                Stage::Opening(_) => agent.master = Some(link),
                Stage::Ready | Stage::Claiming(..) => {
                    agent.master = Some(link);
                    agent.stage = Stage::Opening(0);
                    self.of(site, life, 1, 500, OfAgent::Open);
                }
            }
            return;
        }
        // What came over an older stream is not read any more.
        if agent.master != Some(link) {
            return;
        }
        agent.heard = now;
        match message {
            ToAgent::Configure => {}
            ToAgent::Target(target) => self.tell_proxies(site, life, proxy::Event::TargetSet(target)),
            ToAgent::Relay(key, message) => {
                if agent.lines.get(&key).is_some_and(|line| line.welcomed) {
                    self.say_on_line(site, life, key, AtStarter::Relay(message));
                } else if agent.stands_for.contains_key(&key) {
                    self.stand_in(site, life, key, message);
                }
            }
            ToAgent::Shutdown => self.close(site, life),
        }
    }

    /// The session ends here.
    fn close(&mut self, site: usize, life: u64) {
        let Some(agent) = self.agent(site, life) else { return };
        agent.closing = true;
        for key in self.welcomed(site, life) {
            self.say_on_line(site, life, key, AtStarter::End("the session ends".into()));
        }
        self.tell_proxies(site, life, proxy::Event::ShutdownAsked);
    }

    /// Is its master there? It asks one that is silent, so that a stream that is whole brings words.
    fn listen(&mut self, site: usize, life: u64) {
        let Some((heartbeat, count)) = self.wishes.heartbeat else { return };
        let now = self.clock.now;
        self.clock.at(now + heartbeat / 4, What::Agent(site, life, OfAgent::Listen));
        let Some(agent) = self.agent(site, life) else { return };
        let (master, heard, missed, closing) = (agent.master, agent.heard, agent.missed, agent.closing);
        if master.is_some_and(|link| self.is_whole(link)) {
            if let Some(agent) = self.agent(site, life) {
                agent.heard = now;
            }
            return;
        }
        let patience = heartbeat * (count + u32::from(missed == Missed::Called));
        if missed != Missed::Withdrawn && !closing && now.since(heard) >= patience {
            let called = missed == Missed::None && master.is_some();
            if let Some(agent) = self.agent(site, life) {
                agent.missed = if called { Missed::Called } else { Missed::Withdrawn };
            }
            match master {
                Some(link) if called => self.stream_lost_at_agent(site, life, link),
                _ => {
                    *self.summary.faults.entry("heartbeats missed").or_default() += 1;
                    self.tell_proxies(site, life, proxy::Event::MasterMissed("no word from the master".into()));
                }
            }
        }
        let idle = self.agent(site, life).and_then(|agent| agent.work.as_ref()).is_some_and(|work| {
            let live = |view: proxy::View<'_>| view.state != State::Exit;
            !work.machine.views().any(live)
        });
        let waits = self.sites[site].hangs || !self.sites[site].spool.is_empty();
        if missed == Missed::Withdrawn && !closing && idle && !waits && self.may_act(site, life).is_ok() {
            self.say(format_args!("agent {life} of site {site}: no master came: the session ends here"));
            self.close(site, life);
        }
    }

    /// A master's stream is open: it hears what there is, and then what changes.
    fn configured(&mut self, site: usize, life: u64, link: u64) {
        let nodes = self.sites[site].shape.0;
        let Some(agent) = self.agent(site, life) else { return };
        let epoch = agent.epoch;
        if agent.master.replace(link).is_some() {
            self.master_link(site, life, false);
        }
        let config = proxy::Config {
            nodes,
            queued_permille: 150,
            queued_base: 2,
            status: STATUS,
            lease: LEASE,
            absence: LEASE * 2,
        };
        self.tell_proxies(site, life, proxy::Event::Configured(config));
        self.say_to_master(site, life, ToMaster::Hello(epoch));
        self.report(site, life, |_| true);
        for key in self.welcomed(site, life) {
            self.say_up(site, life, key);
        }
        let work = self.agent(site, life).and_then(|agent| agent.work.as_ref());
        let down = work.iter().flat_map(|work| work.machine.starters()).filter_map(|(_, key, link)| match link {
            Link::Up => None,
            Link::Silent(_, why) => Some(ToMaster::Down(key, false, why.clone())),
            Link::Gone(why) => Some(ToMaster::Down(key, true, why.clone())),
        });
        let down: Vec<ToMaster> = down.collect();
        down.into_iter().for_each(|message| self.say_to_master(site, life, message));
        if let Some(agent) = self.agent(site, life) {
            agent.stands_for.clear();
        }
        if !self.sites[site].spool.is_empty() {
            self.of(site, life, 1, 200, OfAgent::Present(None));
        }
        self.master_link(site, life, true);
    }

    fn master_link(&mut self, site: usize, life: u64, up: bool) {
        for key in self.welcomed(site, life) {
            self.say_on_line(site, life, key, AtStarter::Master(up));
        }
        self.tell_proxies(site, life, proxy::Event::MasterLink(up));
    }

    fn report(&mut self, site: usize, life: u64, which: impl Fn(ProxyId) -> bool) {
        let work = self.agent(site, life).and_then(|agent| agent.work.as_ref());
        let views = work.iter().flat_map(|work| work.machine.views()).filter(|view| which(view.id));
        let proxies = views.map(|view| (view.id, view.state == State::Exit, view.why.to_owned())).collect();
        self.say_to_master(site, life, ToMaster::Proxies(proxies));
    }

    pub(super) fn stream_lost_at_agent(&mut self, site: usize, life: u64, link: u64) {
        if let Some(agent) = self.agent(site, life).filter(|agent| agent.master == Some(link)) {
            agent.master = None;
            self.master_link(site, life, false);
        }
    }
}

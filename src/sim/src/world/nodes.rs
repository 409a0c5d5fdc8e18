//! Starters, as their driver would run them, and the processes of jobs.

use super::*;

impl World<'_> {
    pub(super) fn tell_starter(&mut self, site: usize, key: StarterKey, event: StarterEvent) {
        let now = self.clock.now;
        let Some(node) = self.sites[site].starters.get_mut(&key).filter(|node| node.alive) else {
            return;
        };
        node.machine.handle(now, event);
        while let Some(node) = self.sites[site].starters.get_mut(&key).filter(|node| node.alive)
            && let Some(action) = node.machine.poll_action()
        {
            self.do_starter(site, key, action);
        }
        if let Some(node) = self.sites[site].starters.get_mut(&key).filter(|node| node.alive)
            && let Some(deadline) = node.machine.deadline()
            && node.tick.is_none_or(|tick| deadline < tick)
        {
            let deadline = deadline.max(self.clock.now);
            node.tick = Some(deadline);
            self.clock.at(deadline, What::StarterTick(site, key));
        }
    }

    pub(super) fn do_starter(&mut self, site: usize, key: StarterKey, action: StarterAction) {
        if self.log.is_some() {
            self.say(format_args!("starter {key}: {action:?}"));
        }
        match action {
            StarterAction::Start { task, program } => self.start_process(site, key, task.id, &program),
            StarterAction::Terminate(id) => {
                if self.clock.one_in(2) {
                    self.signal(site, key, id, 15);
                }
            }
            StarterAction::Kill(id) => self.signal(site, key, id, 9),
            StarterAction::SendInventory { number, queued, running, finished } => {
                self.say_to_line(site, key, FromStarter::Inventory(number, queued, running, finished));
            }
            StarterAction::SendReport { started, results, returned } => {
                self.say_to_line(site, key, FromStarter::Report(started, results, returned));
            }
            StarterAction::Spool(ids) => self.put_aside(site, key, ids),
            StarterAction::Forget(ids) => {
                if let Some(node) = self.sites[site].starters.get_mut(&key) {
                    node.results.retain(|id, _| !ids.contains(id));
                }
                self.check_forgotten(key, &ids);
            }
            StarterAction::Leave { why } => {
                self.say_to_line(site, key, FromStarter::Leaving(why));
                self.kill_starter(site, key, true);
            }
        }
    }

    fn say_to_line(&mut self, site: usize, key: StarterKey, message: FromStarter) {
        let here = &mut self.sites[site];
        let Some((link, agent)) = here.starters.get(&key).and_then(|node| node.link) else { return };
        let line = here.agents.get_mut(&agent).and_then(|agent| agent.lines.get_mut(&key));
        if let Some(line) = line.filter(|line| line.link == link)
            && !self.cut.contains_key(&link)
        {
            let at = line.to_agent.arrival(&mut self.clock, 0, 20);
            self.clock.at(at, What::Agent(site, agent, OfAgent::FromStarter(key, link, message)));
        }
    }

    pub(super) fn start_process(&mut self, site: usize, key: StarterKey, id: AttemptId, program: &Program) {
        self.summary.starts += 1;
        self.check_start(site, key, id);
        self.runs += 1;
        let run = self.runs;
        let Some(node) = self.sites[site].starters.get_mut(&key) else {
            return;
        };
        node.running.insert(id, (run, program.cpus));
        let (used, cpus) = (node.cpus_used(), node.cpus);
        self.require(used <= cpus, || format!("{key} runs jobs for {used} CPUs and has {cpus}"));
        let outcome = match self.clock.between(0, 100) {
            0 => Outcome::SiteFailed("no space left on device".into()),
            1 => Outcome::Signaled(11),
            2..6 => Outcome::Exited(1),
            _ => Outcome::Exited(0),
        };
        self.clock.after(1, 5, What::Started(site, key, id));
        let most = if self.clock.one_in(10) { 600_000 } else { 60_000 };
        self.clock.after(5, most, What::Ended(site, key, id, run, outcome));
    }

    pub(super) fn signal(&mut self, site: usize, key: StarterKey, id: AttemptId, signal: u8) {
        let run = self.sites[site].starters.get(&key).and_then(|node| node.running.get(&id)).map(|(run, _)| *run);
        if let Some(run) = run {
            self.clock.after(0, 50, What::Ended(site, key, id, run, Outcome::Signaled(signal)));
        }
    }

    pub(super) fn process_ended(&mut self, site: usize, key: StarterKey, id: AttemptId, run: u64, outcome: Outcome) {
        let Some(node) = self.sites[site].starters.get_mut(&key) else {
            return;
        };
        if node.running.get(&id).is_none_or(|(current, _)| *current != run) {
            return;
        }
        node.running.remove(&id);
        node.idle = self.clock.now;
        if outcome.is_final() {
            node.results.insert(id, self.clock.now);
        }
        if outcome.is_final() {
            self.checker.truth.insert(id, outcome.clone());
        }
        // What counts leaves nothing; the starter knows whether this does.
        let kept = self.clock.one_in(2).then(|| Kept { number: 1, outputs: Vec::new() });
        let mut outputs = Vec::new();
        if outcome.is_final() && self.clock.one_in(2) {
            outputs.push(Output { kind: OutputKind::Stdout, size: 1, hash: [0; 32], mode: 0o600, inline: None });
        }
        let usage = Usage { wall_ms: self.clock.between(5, 60_000), cpu_ms: 1, peak_kib: 1, ..Usage::default() };
        self.tell_starter(site, key, StarterEvent::JobEnded(AttemptResult { id, outcome, usage, outputs, kept }));
    }

    /// The starter's process ends. Its guardian, if the node still runs, kills what it left and then removes its tag.
    pub(super) fn kill_starter(&mut self, site: usize, key: StarterKey, guardian: bool) {
        let Some(node) = self.sites[site].starters.get_mut(&key).filter(|node| node.alive) else {
            return;
        };
        node.alive = false;
        let link = node.link.take();
        if guardian {
            self.clock.after(10, 2000, What::TreeDead(site, key));
        } else {
            node.running.clear();
        }
        if let Some((link, agent)) = link {
            // Its last words may still be on the way.
            let (low, high) = if guardian { (20, 1000) } else { (10_000, 60_000) };
            self.of(site, agent, low, high, OfAgent::LineLost(key, link));
        }
    }

    pub(super) fn tree_dead(&mut self, site: usize, key: StarterKey) {
        let here = &mut self.sites[site];
        let Some(node) = here.starters.get_mut(&key) else {
            return;
        };
        let partial: Vec<AttemptId> = std::mem::take(&mut node.running).into_keys().collect();
        let (proxy, index, id, restarts) = (node.proxy, node.index, node.batch_id.clone(), node.restarts);
        let runs = |job: &BatchJob| job.restarts == restarts && job.state == BatchState::Running;
        if !here.batch.jobs.get(&id).is_some_and(runs) {
            return;
        }
        self.hand_in(site, key, &partial);
        let here = &mut self.sites[site];
        here.tags.remove(&(proxy, index));
        here.unsynced.remove(&(proxy, index));
        let works = |n: &Node| n.alive || !n.running.is_empty();
        let others = here.starters.values().any(|n| works(n) && n.batch_id == id && n.restarts == restarts);
        if !others {
            here.exits.insert(proxy, proxy::Exit { code: "0".into(), restarts });
            // The batch system sees it some time after.
            self.clock.after(0, 15_000, What::ScriptEnded(site, id, restarts));
        }
    }
}

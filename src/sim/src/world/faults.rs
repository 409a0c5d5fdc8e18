//! Faults: they come, stay a while and stop.

use super::*;

const KINDS: [&str; 18] = [
    "master killed",
    "agent killed",
    "agent stopped",
    "gateway crashed",
    "stream cut",
    "stream stalls",
    "site unreachable",
    "line cut",
    "line deaf",
    "line stalls",
    "starter killed",
    "node down",
    "node cut off",
    "batch hangs",
    "batch lies",
    "requeued",
    "home hangs",
    "master away",
];

/// Those of a world: half of them, all, or none.
pub(super) fn kinds(clock: &mut Clock<What>) -> Vec<&'static str> {
    match clock.between(0, 12) {
        0 => Vec::new(),
        1 => KINDS.to_vec(),
        n => KINDS.into_iter().filter(|_| clock.one_in(if n < 6 { 4 } else { 2 })).collect(),
    }
}

impl World<'_> {
    pub(super) fn has(&self, kind: &str) -> bool {
        self.kinds.contains(&kind)
    }

    pub(super) fn fault(&mut self) -> Checked {
        if self.calm {
            return Ok(());
        }
        self.clock.after(1000, if self.long { 3_600_000 } else { 240_000 }, What::Fault);
        let Some(kind) = self.clock.pick(&self.kinds) else {
            return Ok(());
        };
        let site = self.clock.between(0, self.sites.len() as u64) as usize;
        if self.quiet == Some(site) && !kind.starts_with("master") {
            return Ok(());
        }
        *self.summary.faults.entry(kind).or_default() += 1;
        self.say(format_args!("FAULT {kind} at site {site}"));
        let here = &self.sites[site];
        let keys: Vec<StarterKey> = here.starters.iter().filter(|(_, n)| n.alive).map(|(key, _)| *key).collect();
        let key = self.clock.pick(&keys);
        let lives: Vec<u64> = here.agents.iter().filter(|(_, a)| !a.stopped).map(|(life, _)| *life).collect();
        let life = self.clock.pick(&lives);
        let hour = if self.long { 24 * 3_600_000 } else { 1_500_000 };
        match kind {
            "master killed" => self.kill_master(900_000),
            "master away" => self.kill_master(if self.long { 40 * 3_600_000 } else { 3_000_000 }),
            "agent killed" => life.into_iter().for_each(|life| self.kill_agent(site, life)),
            "agent stopped" => life.into_iter().for_each(|life| self.stop_agent(site, life)),
            "gateway crashed" => self.crash_gateway(site),
            "stream cut" => self.cut_stream(site),
            "stream stalls" => {
                if let Some(stream) = &mut self.sites[site].stream {
                    stream.to_agent.stall(&mut self.clock, 1000, 120_000);
                    stream.to_master.stall(&mut self.clock, 1000, 120_000);
                }
            }
            "site unreachable" => {
                self.sites[site].reachable = false;
                self.clock.after(1000, hour, What::ReachableAgain(site));
                self.cut_stream(site);
            }
            "line cut" => key.into_iter().for_each(|key| self.cut_line(site, key)),
            "line deaf" => {
                let link = key.and_then(|key| self.sites[site].starters[&key].link);
                self.deaf.extend(link.map(|(link, _)| link));
            }
            "line stalls" => {
                let clock = &mut self.clock;
                let lines = self.sites[site].agents.values_mut().flat_map(|agent| agent.lines.iter_mut());
                if let Some((_, line)) = lines.into_iter().find(|(of, _)| Some(**of) == key) {
                    line.to_starter.stall(clock, 1000, 80_000);
                    line.to_agent.stall(clock, 1000, 80_000);
                }
            }
            "starter killed" => key.into_iter().for_each(|key| self.kill_starter(site, key, true)),
            "node down" => {
                if let Some(key) = key {
                    let (id, restarts) = self.batch_job_of(site, key);
                    self.kill_starter(site, key, false);
                    self.clock.after(10_000, 300_000, What::NodesLost(site, id, restarts));
                }
            }
            "node cut off" => key.into_iter().for_each(|key| self.cut_off(site, key)),
            "batch hangs" => {
                self.sites[site].batch.hangs = true;
                self.clock.after(1000, if self.long { hour } else { 600_000 }, What::BatchWell(site));
            }
            "batch lies" => {
                self.sites[site].batch.lies = true;
                self.clock.after(1000, 1_200_000, What::BatchWell(site));
            }
            "home hangs" => {
                self.sites[site].hangs = true;
                self.clock.after(1000, 300_000, What::HomeWell(site));
            }
            _ => {
                let running = self.sites[site].batch.jobs.iter();
                let running = running.filter(|(_, job)| job.state == BatchState::Running && !job.cancelled);
                let running: Vec<String> = running.map(|(id, _)| id.clone()).collect();
                if let Some(id) = self.clock.pick(&running) {
                    self.requeue(site, &id);
                }
            }
        }
        Ok(())
    }

    /// The node of a starter is cut off; the batch system takes it for dead, and runs the batch job anew or not, while it lives on.
    fn cut_off(&mut self, site: usize, key: StarterKey) {
        let rest = self.clock.span(60_000, 1_500_000);
        let until = self.clock.now + rest;
        let (id, restarts) = self.batch_job_of(site, key);
        if let Some(node) = self.sites[site].starters.get_mut(&key) {
            node.cut_off = until;
        }
        self.cut_line(site, key);
        if self.clock.one_in(2) {
            self.clock.after(10_000, 300_000, What::NodesLost(site, id, restarts));
        }
    }

    pub(super) fn calm(&mut self) {
        self.calm = true;
        let now = self.clock.now;
        // A stream that lost something in its midst carries nothing any more.
        let deaf = std::mem::take(&mut self.deaf);
        for site in 0..self.sites.len() {
            let lines = self.sites[site].agents.values().flat_map(|agent| agent.lines.iter());
            let lines = lines.filter(|(_, line)| deaf.contains(&line.link)).map(|(key, _)| *key);
            lines.collect::<Vec<_>>().into_iter().for_each(|key| self.cut_line(site, key));
        }
        for site in 0..self.sites.len() {
            self.sites[site].reachable = true;
            self.sites[site].hangs = false;
            self.sites[site].batch.hangs = false;
            self.sites[site].batch.lies = false;
            self.sites[site].batch.jobs.values_mut().for_each(|job| job.shows = job.shows.min(now));
            for node in self.sites[site].starters.values_mut().filter(|node| node.cut_off > now) {
                node.cut_off = now;
                if node.zombie {
                    // The batch system kills what it took for dead when the node is back.
                    let kill = What::Terminate(site, node.batch_id.clone(), node.restarts);
                    self.clock.at(now + Duration::from_secs(1), kill);
                }
            }
            let stopped = self.sites[site].agents.iter().filter(|(_, agent)| agent.stopped);
            for life in stopped.map(|(life, _)| *life).collect::<Vec<_>>() {
                self.clock.after(0, 60_000, What::GoesOn(site, life));
            }
        }
        // What is under way, such as a submission that an agent had decided upon before it was stopped, comes to an end.
        self.clock.after(400_000, 500_000, What::Ending);
    }
}

//! The batch system of a site.

use super::*;

impl World<'_> {
    pub(super) fn run_submit(&mut self, site: usize, life: u64, proxy: ProxyId, attempt: u32, token: String) {
        let answer = |answer| What::Answer(site, life, proxy::Event::SubmitAnswered { proxy, attempt, answer });
        let timed_out = || SubmitAnswer::Unclear("timed out".into());
        if self.sites[site].batch.hangs {
            self.clock.after(10_000, 10_001, answer(timed_out()));
            // It may find the request when it goes on.
            if self.clock.one_in(2) {
                self.sites[site].batch.late += 1;
                self.clock.after(10_000, 20_000, What::Accept(site, proxy, token));
            }
            return;
        }
        let accepts = |world: &mut Self, low, high| {
            world.sites[site].batch.late += 1;
            world.clock.after(low, high, What::Accept(site, proxy, token.clone()));
        };
        match self.clock.between(0, if self.calm { 1 } else { 10 }) {
            0..7 => {
                accepts(self, 50, 500);
                let id = format!("{}", 100 + self.sites[site].batch.names.len() as u64 + self.sites[site].batch.late);
                self.sites[site].batch.promised.insert(token.clone(), id.clone());
                self.clock.after(600, 2000, answer(SubmitAnswer::Accepted(id)));
            }
            7 => {
                accepts(self, 1000, 20_000);
                self.clock.after(10_000, 10_001, answer(timed_out()));
            }
            8 => self.clock.after(10_000, 10_001, answer(timed_out())),
            _ => self.clock.after(100, 200, answer(SubmitAnswer::Limited("too many jobs".into()))),
        }
    }

    pub(super) fn accept(&mut self, site: usize, proxy: ProxyId, name: String) {
        if self.sites[site].batch.hangs {
            return self.clock.after(1000, 2000, What::Accept(site, proxy, name));
        }
        let batch = &mut self.sites[site].batch;
        batch.late -= 1;
        let fresh = batch.names.insert(name.clone());
        batch.next += 1;
        let id = batch.promised.remove(&name).unwrap_or_else(|| format!("x{}", batch.next));
        let job = BatchJob {
            name: name.clone(),
            proxy,
            state: BatchState::Pending,
            restarts: 0,
            ended: None,
            cancelled: false,
        };
        batch.jobs.insert(id.clone(), job);
        self.require(fresh, || format!("{name} was submitted twice"));
        let long = self.clock.one_in(5);
        self.clock.after(500, if long { 1_200_000 } else { 60_000 }, What::Launch(site, id));
    }

    pub(super) fn rows(&mut self, site: usize, accounting: bool) -> Vec<Row> {
        let now = self.clock.now;
        let keep = if site.is_multiple_of(2) { Duration::from_secs(300) } else { Duration::ZERO };
        let jobs = self.sites[site].batch.jobs.iter();
        let listed = jobs.filter(|(_, job)| accounting || job.ended.is_none_or(|at| now.since(at) < keep));
        let row = |(id, job): (&String, &BatchJob)| Row {
            token: job.name.clone(),
            batch_id: id.clone(),
            status: match job.state {
                BatchState::Pending => RowStatus::Pending("Priority".into()),
                BatchState::Running if job.cancelled => RowStatus::Ending,
                BatchState::Running => RowStatus::Running,
                BatchState::Ended => RowStatus::Ended("COMPLETED".into()),
            },
            restarts: job.restarts,
        };
        listed.map(row).collect()
    }

    pub(super) fn launch(&mut self, site: usize, id: &str) {
        let (nodes, cpus) = self.sites[site].shape;
        let now = self.clock.now;
        let Some(job) = self.sites[site].batch.jobs.get_mut(id).filter(|job| job.state == BatchState::Pending) else {
            return;
        };
        job.state = BatchState::Running;
        let (proxy, restarts) = (job.proxy, job.restarts);
        let ends = now + WALLTIME;
        self.clock.at(ends, What::Terminate(site, id.to_owned(), restarts));
        for index in 0..nodes {
            self.next_key += 1;
            let key = StarterKey(self.next_key);
            let limits = Limits { idle: IDLE, lease: LEASE, drain: DRAIN };
            let offer = NodeOffer { cpus, memory_mb: 0, ends: Some(ends) };
            let node = Node {
                machine: Starter::new(now, limits, offer),
                proxy,
                batch_id: id.to_owned(),
                restarts,
                index,
                cpus,
                ends,
                alive: true,
                tick: None,
                link: None,
                running: BTreeMap::new(),
            };
            self.sites[site].starters.insert(key, node);
            // Its guardian's first act.
            self.sites[site].tags.insert((proxy, index));
            self.sites[site].exits.remove(&proxy);
            self.clock.after(10, 5000, What::Call(site, key));
            self.tell_starter(site, key, StarterEvent::TimePassed);
        }
    }

    pub(super) fn of_batch_job(&self, site: usize, id: &str, restarts: u32) -> Vec<StarterKey> {
        let of = self.sites[site].starters.iter().filter(|(_, n)| n.batch_id == id && n.restarts == restarts);
        of.map(|(key, _)| *key).collect()
    }

    pub(super) fn batch_job_of(&self, site: usize, key: StarterKey) -> (String, u32) {
        self.sites[site].starters.get(&key).map_or((String::new(), 0), |node| (node.batch_id.clone(), node.restarts))
    }

    pub(super) fn cancel(&mut self, site: usize, id: &str) {
        let now = self.clock.now;
        let Some(job) = self.sites[site].batch.jobs.get_mut(id) else {
            return;
        };
        job.cancelled = true;
        let restarts = job.restarts;
        match job.state {
            BatchState::Pending => {
                job.state = BatchState::Ended;
                job.ended = Some(now);
            }
            BatchState::Running => {
                for key in self.of_batch_job(site, id, restarts) {
                    self.tell_starter(site, key, StarterEvent::EndAsked { why: "the batch system ends it".into() });
                }
                self.clock.after(5000, 30_000, What::Terminate(site, id.to_owned(), restarts));
            }
            BatchState::Ended => {}
        }
    }

    /// SIGKILL to everything of a batch job, guardians too.
    pub(super) fn batch_kill(&mut self, site: usize, id: &str, restarts: u32) {
        for key in self.of_batch_job(site, id, restarts) {
            self.kill_starter(site, key, false);
            if let Some(node) = self.sites[site].starters.get_mut(&key) {
                node.running.clear();
            }
        }
        let now = self.clock.now;
        if let Some(job) = self.sites[site].batch.jobs.get_mut(id)
            && job.restarts == restarts
            && job.state == BatchState::Running
        {
            job.state = BatchState::Ended;
            job.ended = Some(now);
        }
    }

    /// The batch system finds a node of the job down: the job ends, or is queued again.
    pub(super) fn nodes_lost(&mut self, site: usize, id: &str, restarts: u32) {
        if self.clock.one_in(2) {
            self.batch_kill(site, id, restarts);
        } else if self.sites[site].batch.jobs.get(id).is_some_and(|job| job.restarts == restarts) {
            self.requeue(site, id);
        }
    }

    pub(super) fn requeue(&mut self, site: usize, id: &str) {
        let Some(job) =
            self.sites[site].batch.jobs.get(id).filter(|job| job.state == BatchState::Running && !job.cancelled)
        else {
            return;
        };
        let restarts = job.restarts;
        self.batch_kill(site, id, restarts);
        if let Some(job) = self.sites[site].batch.jobs.get_mut(id) {
            job.state = BatchState::Pending;
            job.ended = None;
            job.restarts += 1;
        }
        self.clock.after(5000, 120_000, What::Launch(site, id.to_owned()));
    }
}

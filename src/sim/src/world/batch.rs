//! The batch system of a site, and what it lies about.

use super::*;

/// A site, as the seed wants it.
pub(super) fn site(clock: &mut Clock<What>, large: bool) -> Site {
    let shape = if large {
        (clock.between(1, 17) as u32, clock.between(1, 9) as u32)
    } else {
        (clock.between(1, 3) as u32, clock.between(1, 5) as u32)
    };
    let batch = Batch {
        limit: if clock.one_in(4) { clock.between(2, 4) as usize } else { usize::MAX },
        keeps: if clock.one_in(2) { 300 } else { 0 },
        accounting: clock.one_in(2),
        ..Batch::default()
    };
    Site {
        gateways: clock.between(1, 4) as usize,
        met: false,
        agents: BTreeMap::new(),
        lives: 0,
        leases: Directory::default(),
        tables: Directory::default(),
        address: None,
        socket: None,
        tags: BTreeMap::new(),
        unsynced: BTreeSet::new(),
        exits: BTreeMap::new(),
        spool: BTreeMap::new(),
        hangs: false,
        batch,
        starters: BTreeMap::new(),
        shape,
        proxies: if large { clock.between(2, 9) as u32 } else { 3 },
        latency: if clock.one_in(8) { (1000, 8000) } else { (5, 150) },
        stream: None,
        told: clock.now,
        call: None,
        reachable: true,
    }
}

impl World<'_> {
    /// A submit command, with the answer that the agent hears.
    pub(super) fn run_submit(&mut self, site: usize, life: u64, proxy: ProxyId, attempt: u32, token: String) {
        self.check_submission(site, life, proxy, attempt);
        let answered = |answer| OfAgent::Heard(proxy::Event::SubmitAnswered { proxy, attempt, answer });
        let unclear = || answered(SubmitAnswer::Unclear("timed out".into()));
        let limited = || answered(SubmitAnswer::Limited("too many jobs".into()));
        let strange = self.mishap(site, 3);
        let batch = &mut self.sites[site].batch;
        let live = batch.jobs.values().filter(|job| job.state != BatchState::Ended).count();
        batch.next += 1;
        let id = format!("{}", 100 + batch.next);
        let accept = |id| What::Accept(site, proxy, token.clone(), id);
        if batch.hangs {
            // It may find the request when it goes on.
            if self.clock.one_in(2) {
                self.sites[site].batch.late += 1;
                self.clock.after(10_000, 20_000, accept(None));
            }
            return self.of(site, life, 10_000, 150_000, unclear());
        }
        if live >= batch.limit {
            return self.of(site, life, 100, 2000, limited());
        }
        if !strange {
            batch.late += 1;
            self.clock.after(50, 500, accept(Some(id.clone())));
            return self.of(site, life, 600, 5000, answered(SubmitAnswer::Accepted(id)));
        }
        let kind = self.clock.between(0, 6);
        let (low, high) = (self.clock.between(1, 20_000), self.clock.between(20_000, 150_000));
        if matches!(kind, 0 | 1 | 4 | 5) {
            self.sites[site].batch.late += 1;
            self.clock.after(low, low + 1, accept(Some(id.clone())));
        }
        match kind {
            // It was accepted, whatever the answer says.
            0 | 1 => self.of(site, life, 100, 30_000, unclear()),
            2 => self.of(site, life, 100, 30_000, unclear()),
            3 => self.of(site, life, 100, 2000, limited()),
            4 if self.has("batch lies") => self.of(site, life, low, high, limited()),
            // The answer comes late.
            _ => self.of(site, life, high, high + 1, answered(SubmitAnswer::Accepted(id))),
        }
    }

    pub(super) fn accept(&mut self, site: usize, proxy: ProxyId, name: String, id: Option<String>) {
        if self.sites[site].batch.hangs {
            return self.clock.after(1000, 2000, What::Accept(site, proxy, name, id));
        }
        let hidden = match self.mishap(site, 4) {
            true if self.clock.one_in(5) => self.clock.span(0, 600_000),
            true => self.clock.span(0, 50_000),
            false => Duration::ZERO,
        };
        let shows = self.clock.now + hidden;
        self.summary.batch_jobs += 1;
        let batch = &mut self.sites[site].batch;
        batch.late -= 1;
        let fresh = batch.names.insert(name.clone());
        batch.next += 1;
        let id = id.unwrap_or_else(|| format!("x{}", batch.next));
        let state = BatchState::Pending;
        let job = BatchJob { name: name.clone(), proxy, state, restarts: 0, shows, ended: None, cancelled: false };
        batch.jobs.insert(id.clone(), job);
        self.require(fresh, || format!("{name} was submitted twice"));
        let long = self.mishap(site, 5);
        self.clock.after(500, if long { 1_200_000 } else { 60_000 }, What::Launch(site, id));
    }

    /// What a listing shows that tells the truth.
    fn rows(&mut self, site: usize, accounting: bool) -> Vec<Row> {
        let now = self.clock.now;
        let batch = &self.sites[site].batch;
        let keep = Duration::from_secs(batch.keeps);
        let shown =
            |job: &BatchJob| job.shows <= now && (accounting || job.ended.is_none_or(|at| now.since(at) < keep));
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
        batch.jobs.iter().filter(|(_, job)| shown(job)).map(row).collect()
    }

    /// Does a question come to nothing? How long that takes.
    fn no_answer(&mut self, site: usize) -> Option<(u64, u64)> {
        let fails = self.mishap(site, 20);
        let hangs = self.sites[site].batch.hangs;
        hangs.then_some((60_000, 60_001)).or(fails.then_some((100, 30_000)))
    }

    pub(super) fn query_status(&mut self, site: usize, life: u64) {
        if let Some((low, high)) = self.no_answer(site) {
            return self.of(site, life, low, high, OfAgent::Heard(proxy::Event::StatusFailed("timed out".into())));
        }
        let mut rows = self.rows(site, false);
        let batch = &mut self.sites[site].batch;
        batch.old.push_back(rows.clone());
        if batch.old.len() > 5 {
            batch.old.pop_front();
        }
        let liar = self.has("batch lies");
        if liar && self.mishap(site, if self.sites[site].batch.lies { 2 } else { 20 }) {
            match self.clock.between(0, 4) {
                0 => rows.clear(),
                1 => rows.retain(|_| self.clock.one_in(2)),
                2 => {
                    let old: Vec<_> = self.sites[site].batch.old.iter().cloned().collect();
                    rows = self.clock.pick(&old).unwrap_or_default();
                }
                _ => rows.iter_mut().for_each(|row| row.status = RowStatus::Unclear("CG?".into())),
            }
        }
        let slow = self.mishap(site, 8);
        self.of(site, life, 50, if slow { 55_000 } else { 3000 }, OfAgent::Listed(rows));
    }

    pub(super) fn query_accounting(&mut self, site: usize, life: u64) {
        let event = if !self.sites[site].batch.accounting {
            proxy::Event::AccountingFailed { never: true }
        } else if let Some((low, high)) = self.no_answer(site) {
            return self.of(site, life, low, high, OfAgent::Heard(proxy::Event::AccountingFailed { never: false }));
        } else {
            let mut rows = self.rows(site, true);
            // It forgets, and tells of a life before the last restart.
            if self.mishap(site, 4) {
                rows.retain(|_| self.clock.one_in(2));
            }
            for row in rows.iter_mut().filter(|row| row.restarts > 0) {
                if self.clock.one_in(2) {
                    row.restarts -= 1;
                    row.status = RowStatus::Ended("NODE_FAIL".into());
                }
            }
            proxy::Event::AccountingListed(rows)
        };
        self.of(site, life, 50, 3000, OfAgent::Heard(event));
    }

    /// A cancel command.
    pub(super) fn run_cancel(&mut self, site: usize, life: u64, ids: Vec<String>) {
        if let Some((low, high)) = self.no_answer(site) {
            let answer = proxy::Event::CancelAnswered(Some("timed out".into()));
            return self.of(site, life, low, high, OfAgent::Heard(answer));
        }
        for id in ids {
            self.check_cancel(site, life, &id);
            // It is taken, and nothing comes of it, or only later.
            match self.mishap(site, 5) {
                true if self.clock.one_in(2) => {}
                true => self.clock.after(1000, 300_000, What::Cancel(site, id)),
                false => self.cancel(site, &id),
            }
        }
        self.of(site, life, 50, 3000, OfAgent::Heard(proxy::Event::CancelAnswered(None)));
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
            let offer = NodeOffer { cpus, memory_mb: 0, gpus: 0, ends: Some(ends) };
            let node = Node {
                machine: Starter::new(now, limits, offer),
                proxy,
                batch_id: id.to_owned(),
                restarts,
                index,
                cpus,
                ends,
                alive: true,
                cut_off: now,
                zombie: false,
                tick: None,
                link: None,
                welcomed: false,
                epoch: 0,
                master: false,
                called: now,
                heard: now,
                idle: now,
                results: BTreeMap::new(),
                running: BTreeMap::new(),
                aside: BTreeSet::new(),
            };
            self.sites[site].starters.insert(key, node);
            // Its guardian's first act.
            self.sites[site].tags.insert((proxy, index), Some(key));
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
                    if self.sites[site].starters.get(&key).is_some_and(|node| node.cut_off <= now) {
                        self.tell_starter(site, key, StarterEvent::EndAsked { why: "the batch system ends it".into() });
                    }
                }
                self.clock.after(5000, 30_000, What::Terminate(site, id.to_owned(), restarts));
            }
            BatchState::Ended => {}
        }
    }

    /// SIGKILL to everything of a batch job, guardians too. It doesn't reach nodes that are cut off.
    pub(super) fn batch_kill(&mut self, site: usize, id: &str, restarts: u32) {
        let now = self.clock.now;
        for key in self.of_batch_job(site, id, restarts) {
            let Some(node) = self.sites[site].starters.get_mut(&key) else { continue };
            if node.cut_off > now {
                node.zombie = true;
                let back = node.cut_off;
                self.clock.at(back + Duration::from_secs(1), What::Terminate(site, id.to_owned(), restarts));
                continue;
            }
            self.kill_starter(site, key, false);
            if let Some(node) = self.sites[site].starters.get_mut(&key) {
                node.running.clear();
            }
        }
        self.script_ended(site, id, restarts);
    }

    pub(super) fn script_ended(&mut self, site: usize, id: &str, restarts: u32) {
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

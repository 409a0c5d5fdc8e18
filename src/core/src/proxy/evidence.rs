//! What the batch system, starters, tags and exit files tell about proxies.

use super::*;

impl Proxies {
    fn moved(&mut self, now: Time, id: ProxyId, state: State, restarts: u32, why: &str) {
        let Some(proxy) = self.proxies.get_mut(&id) else {
            return;
        };
        if proxy.state != state || proxy.restarts != restarts {
            self.record(Record::Moved(id, state, restarts, why.to_owned(), now));
        } else if proxy.why != why {
            why.clone_into(&mut proxy.why);
            self.changed.insert(id);
        }
    }

    pub(super) fn draw_jitter(&mut self) {
        // SplitMix64 (Steele, Lea, Flood 2014): a tenth of the interval needs no better one.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.jitter = self.config.status / 10 * u32::try_from((mixed >> 32) % 100).unwrap_or(0) / 100;
    }

    pub(super) fn on_status(&mut self, now: Time, rows: Vec<Row>) {
        let began = self.status_began.unwrap_or(now);
        self.status_running = false;
        self.status_failures = 0;
        self.status_said = None;
        self.paused = false;
        self.draw_jitter();
        self.clean = Some((began, rows.iter().all(|row| matches!(row.status, RowStatus::Ended(_)))));
        // Those cancelled before and not listed any more are gone.
        self.orphans.retain(|id, _| rows.iter().any(|row| row.batch_id == *id));

        let mut listed = BTreeSet::new();
        for row in rows {
            let over = matches!(row.status, RowStatus::Ended(_));
            let Some((id, attempt)) = self.parse_token(&row.token) else {
                if !over {
                    self.orphans.entry(row.batch_id).or_insert(now);
                }
                continue;
            };
            let owner = match self.proxies.get(&id) {
                Some(proxy) if proxy.is_live() => match &proxy.batch_id {
                    Some(batch_id) => *batch_id == row.batch_id,
                    None => {
                        let ours = proxy.attempt == attempt;
                        if ours {
                            self.queued(now, id, row.batch_id.clone());
                        }
                        ours
                    }
                },
                // The batch system may take a while to see what the exit file told us.
                Some(proxy) => proxy.since + self.config.status > began || matches!(row.status, RowStatus::Ending),
                None => false,
            };
            if over {
                self.orphans.remove(&row.batch_id);
            }
            if owner {
                listed.insert(id);
                self.judge(now, id, row);
            } else if !over {
                self.orphans.entry(row.batch_id).or_insert(now);
            }
        }
        for id in self.live() {
            if !listed.contains(&id) {
                self.not_listed(now, id, began);
            }
        }
    }

    /// A row of a listing says what it says about a proxy.
    fn judge(&mut self, now: Time, id: ProxyId, row: Row) {
        let Some(proxy) = self.proxies.get_mut(&id).filter(|p| p.is_live()) else {
            return;
        };
        proxy.absence = None;
        let connected = proxy.connected() > 0;
        let restarted = row.restarts > proxy.restarts;
        let restarts = row.restarts.max(proxy.restarts);
        match row.status {
            RowStatus::Pending(_) | RowStatus::Running if connected && !restarted => {}
            RowStatus::Pending(reason) => {
                self.moved(now, id, State::Pend, restarts, &reason);
            }
            RowStatus::Running => {
                self.moved(
                    now,
                    id,
                    State::Run,
                    restarts,
                    "the batch system says that it runs; no starter is connected",
                );
            }
            RowStatus::Ended(why) if connected => proxy.ended = Some(why),
            RowStatus::Ended(why) => self.end(now, id, why),
            RowStatus::Ending | RowStatus::Unclear(_) if connected => {}
            RowStatus::Ending => {
                let (state, restarts) = (proxy.state, proxy.restarts);
                self.moved(now, id, state, restarts, "the batch system is ending it");
            }
            RowStatus::Unclear(raw) => {
                let (state, restarts) = (proxy.state, proxy.restarts);
                self.moved(now, id, state, restarts, &raw);
            }
        }
        if restarted {
            self.renew(now, id);
        }
    }

    /// Its batch job was started anew.
    fn renew(&mut self, now: Time, id: ProxyId) {
        if let Some(proxy) = self.proxies.get_mut(&id) {
            proxy.renewed = now;
        }
        self.act(Action::MakeTags(id));
    }

    /// A good listing that began at `began` doesn't show a live proxy.
    fn not_listed(&mut self, now: Time, id: ProxyId, began: Time) {
        let gap = if self.closing.is_some() { self.config.status.min(CLOSING_POLL * 5) } else { self.config.status };
        let Some(proxy) = self.proxies.get_mut(&id) else {
            return;
        };
        if let Some(lookup) = &mut proxy.lookup {
            match lookup.absent {
                _ if lookup.since > began => {}
                None => lookup.absent = Some(began),
                Some(first) if began >= first + gap => {
                    self.not_submitted(now, id, "two listings don't show it: it was never accepted".to_owned());
                }
                Some(_) => {}
            }
            return;
        }
        // A submission may have come after the listing; and a connected starter is stronger evidence than a missing row.
        if proxy.batch_id.is_none() || proxy.queued >= began || proxy.connected() > 0 {
            return;
        }
        if proxy.removing && proxy.cancel.accepted.is_some_and(|at| at <= began) {
            self.end(now, id, "cancelled; the batch system doesn't list it any more".to_owned());
            return;
        }
        match &mut proxy.absence {
            Some(absence) => absence.last = began,
            None => {
                proxy.absence = Some(Absence { first: began, last: began, asked: false });
                let restarts = proxy.restarts;
                self.moved(now, id, State::Unknown, restarts, "the batch system doesn't list it");
            }
        }
    }

    pub(super) fn accounting_was_asked(&mut self) {
        let began = self.accounting_began.unwrap_or_default();
        for absence in self.proxies.values_mut().filter_map(|p| p.absence.as_mut()) {
            absence.asked |= absence.first <= began;
        }
    }

    pub(super) fn on_accounting(&mut self, now: Time, rows: &[Row]) {
        self.accounting_running = false;
        self.accounting_was_asked();
        for row in rows {
            let Some((id, _)) = self.parse_token(&row.token) else {
                continue;
            };
            let Some(proxy) = self.proxies.get(&id) else {
                continue;
            };
            if proxy.absence.is_some()
                && proxy.batch_id.as_ref() == Some(&row.batch_id)
                && row.restarts >= proxy.restarts
                && let RowStatus::Ended(why) = &row.status
            {
                self.end(now, id, format!("accounting: {why}"));
            }
        }
    }

    pub(super) fn on_starter(
        &mut self,
        now: Time,
        id: ProxyId,
        node: u32,
        key: StarterKey,
        batch_id: &str,
        restarts: u32,
    ) {
        let refusal = match self.proxies.get(&id) {
            None => Some("its proxy is not known"),
            Some(proxy) if !proxy.is_live() => Some("its proxy counts as ended"),
            Some(proxy) if proxy.removing => Some("its proxy is to end"),
            Some(proxy) if proxy.state == State::Wanted && proxy.attempt == 0 => Some("its proxy was never submitted"),
            Some(proxy) if restarts < proxy.restarts => Some("its batch job was started again"),
            Some(proxy) if matches!(proxy.starters.get(&key), Some(Starter { link: Link::Gone(_), .. })) => {
                Some("it counts as ended")
            }
            // Only then can there be two batch jobs of this proxy.
            Some(proxy) if proxy.attempt > 1 && proxy.batch_id.as_deref().is_some_and(|known| known != batch_id) => {
                Some("another batch job is its proxy")
            }
            Some(_) if self.orphans.contains_key(batch_id) => Some("its batch job is being cancelled"),
            Some(_) => None,
        };
        if let Some(why) = refusal {
            self.act(Action::EndStarter(key, why.to_owned()));
            return;
        }
        if self.proxies.get(&id).is_some_and(|p| p.batch_id.is_none()) && !batch_id.is_empty() {
            self.queued(now, id, batch_id.to_owned());
        }
        if self.proxies.get(&id).is_some_and(|p| !p.starters.contains_key(&key)) {
            self.record(Record::StarterSeen(id, node, key, Some(now)));
        }
        if let Some(proxy) = self.proxies.get_mut(&id) {
            if let Some(starter) = proxy.starters.get_mut(&key) {
                starter.link = Link::Up;
            }
            proxy.absence = None;
            proxy.touched = now;
        }
        self.barren = 0;
        self.resolve(Topic::Barren);
        self.changed.insert(id);
        let restarted = self.proxies.get(&id).is_some_and(|proxy| restarts > proxy.restarts);
        self.moved(now, id, State::Run, restarts, "starters are connected");
        if restarted {
            self.renew(now, id);
        }
        self.act(Action::Welcome(key));
    }

    pub(super) fn on_starter_lost(
        &mut self,
        now: Time,
        id: ProxyId,
        key: StarterKey,
        left: Option<String>,
        heard: Time,
        why: &str,
    ) {
        let Some(proxy) = self.proxies.get_mut(&id) else {
            return;
        };
        let Some(starter) = proxy.starters.get_mut(&key).filter(|s| s.link == Link::Up) else {
            return;
        };
        starter.link = Link::Silent(heard, why.to_owned());
        proxy.touched = now;
        self.changed.insert(id);
        let rest = proxy.connected();
        let ended = proxy.ended.take().filter(|_| rest == 0);
        if rest == 0 {
            proxy.why = format!("no starter is connected; the last one: {}", left.as_deref().unwrap_or(why));
        }
        match left {
            Some(left) => self.starter_gone(now, id, key, format!("it left: {left}")),
            None => self.act(Action::StarterDown { key, gone: false, why: why.to_owned() }),
        }
        if let Some(why) = ended {
            self.end(now, id, why);
        }
    }

    pub(super) fn on_tags(&mut self, now: Time, tags: &BTreeSet<(ProxyId, u32)>, exits: &BTreeMap<ProxyId, Exit>) {
        self.tags_running = false;
        for id in self.live() {
            let Some(proxy) = self.proxies.get(&id).filter(|p| p.batch_id.is_some()) else {
                continue;
            };
            // Its tags were made before it was submitted. So this reading began after that, unless it was queued while we read. When its
            // batch job is started anew, they are made again.
            if proxy.queued.max(proxy.renewed) >= self.tags_read {
                continue;
            }
            // An earlier submission that ran after all leaves the same files: they don't tell which of the two has ended.
            if proxy.attempt > 1 {
                continue;
            }
            if let Some(Exit { code, .. }) = exits.get(&id).filter(|exit| exit.restarts >= proxy.restarts) {
                self.end(now, id, format!("its script ended with exit code {code}"));
                continue;
            }
            if proxy.connected() == 0 && tags.range((id, 0)..=(id, u32::MAX)).next().is_none() {
                self.end(now, id, "its job tags are gone".to_owned());
                continue;
            }
            let gone: Vec<_> = proxy
                .starters
                .iter()
                .filter(|(_, s)| matches!(s.link, Link::Silent(..)) && !tags.contains(&(id, s.node)))
                .map(|(&key, _)| key)
                .collect();
            for key in gone {
                self.starter_gone(now, id, key, "its job tag is gone".to_owned());
            }
        }
    }
}

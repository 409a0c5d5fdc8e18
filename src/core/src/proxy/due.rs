//! What is due: questions to the batch system, cancels, the end of what was silent for too long, and of the whole.

use super::*;

impl Proxies {
    /// Does what is due, and sets the deadline for what is not.
    pub(super) fn settle(&mut self, now: Time) {
        let mut wake = Wake { now, next: None };
        self.expire(&mut wake);
        self.keep_target(&mut wake);
        self.cancel_due(&mut wake);
        self.ask_status(&mut wake);
        self.ask_accounting(&mut wake);
        self.read_tags(&mut wake);
        self.forget(&mut wake);
        self.finish(now);
        self.deadline = wake.next;
        if !self.changed.is_empty() {
            let changed = core::mem::take(&mut self.changed);
            self.act(Action::ReportProxies(changed));
        }
    }

    /// How long a proxy may be in no listing before it counts as lost.
    pub(super) fn grace(&self) -> Duration {
        self.config.lease.max(self.config.status * 2)
    }

    /// Silence that has lasted long enough.
    fn expire(&mut self, wake: &mut Wake) {
        let grace = self.grace();
        let mut gone = Vec::new();
        let mut lost = Vec::new();
        for (&id, proxy) in self.proxies.iter().filter(|(_, p)| p.is_live()) {
            for (&key, starter) in &proxy.starters {
                if let Link::Silent(since, _) = starter.link
                    && wake.due(since + self.config.lease)
                {
                    gone.push((id, key));
                }
            }
            if let Some(absence) = proxy.absence
                && absence.last > absence.first
                && (absence.asked || self.accounting_never)
                && proxy.connected() == 0
                && wake.due(absence.first + grace)
            {
                lost.push(id);
            }
        }
        for (id, key) in gone {
            self.starter_gone(wake.now, id, key, "its lease is over".to_owned());
        }
        for id in lost {
            let why = "lost: no listing shows it, accounting tells no end, its tags are there, no exit file, no starter calls";
            self.end(wake.now, id, why.to_owned());
        }
    }

    fn cancel_due(&mut self, wake: &mut Wake) {
        if !self.cancelling.is_empty() {
            return;
        }
        let removing = self.proxies.values().filter(|p| p.is_live() && p.removing);
        let ids: BTreeSet<String> = removing
            .filter_map(|p| p.batch_id.clone().map(|id| (id, p.cancel.next)))
            .chain(self.orphans.iter().map(|(id, &next)| (id.clone(), next)))
            .filter_map(|(id, next)| wake.due(next).then_some(id))
            .collect();
        if !ids.is_empty() {
            self.cancelling = ids.into_iter().collect();
            self.cancel_began = wake.now;
            self.act(Action::CancelProxies(self.cancelling.clone()));
        }
    }

    pub(super) fn on_cancel_answered(&mut self, now: Time, refusal: Option<String>) {
        let ids = core::mem::take(&mut self.cancelling);
        let again = now + if self.closing.is_some() { CLOSING_POLL * 5 } else { self.config.status };
        for proxy in self.proxies.values_mut().filter(|p| p.batch_id.as_ref().is_some_and(|id| ids.contains(id))) {
            proxy.cancel.next = again;
            if refusal.is_none() {
                proxy.cancel.accepted = Some(self.cancel_began);
            }
        }
        for id in &ids {
            if let Some(next) = self.orphans.get_mut(id) {
                *next = again;
            }
        }
        self.cancel_refusal = refusal;
    }

    /// When the batch system should be asked next, if at all.
    pub(super) fn status_due(&self) -> Option<Time> {
        let status = self.config.status;
        let last = self.status_began;
        if let Some(closing) = self.closing {
            // Twice as long after each, so that a batch system that agrees at once keeps nobody waiting.
            let pace = |last: Time| last.since(closing).clamp(CLOSING_POLL / 8, CLOSING_POLL);
            return Some(last.map_or(closing, |last| (last + pace(last)).max(closing)));
        }
        let mut need: Option<(Time, bool)> = None;
        for proxy in self.proxies.values().filter(|p| p.is_live()) {
            let all = proxy.connected() >= self.config.nodes as usize;
            let (since, rare) = match proxy.state {
                _ if proxy.lookup.is_some() => (Time(0), false),
                State::Pend | State::Unknown => (proxy.since + status, false),
                State::Run if proxy.removing || !all => (proxy.touched + status, false),
                State::Run => (proxy.touched + status * RARE, true),
                _ => continue,
            };
            let (earliest, rarely) = need.unwrap_or((since, rare));
            need = Some((earliest.min(since), rarely && rare));
        }
        if self.paused || !self.orphans.is_empty() {
            need = Some((Time(0), false));
        }
        let (since, rare) = need?;
        let failures = 1 << self.status_failures.min(3);
        let interval = status * if rare { RARE } else { failures } + self.jitter;
        Some(last.map_or(since, |last| since.max(last + interval)))
    }

    fn ask_status(&mut self, wake: &mut Wake) {
        if self.status_running || self.closed || !self.configured || (self.closing.is_some() && !self.ever_submitted) {
            return;
        }
        if self.status_due().is_some_and(|at| wake.due(at)) {
            self.status_running = true;
            self.status_began = Some(wake.now);
            self.act(Action::QueryStatus);
        }
    }

    fn ask_accounting(&mut self, wake: &mut Wake) {
        if self.accounting_running || self.accounting_never || self.closing.is_some() || !self.configured {
            return;
        }
        let wanted = self.proxies.values().any(|p| p.is_live() && p.absence.is_some());
        let next = self.accounting_began.map_or(Time(0), |last| last + self.config.status);
        if wanted && wake.due(next) {
            self.accounting_running = true;
            self.accounting_began = Some(wake.now);
            self.act(Action::QueryAccounting);
        }
    }

    /// Tags and exit files are read while starters are missing: often at first, when a proxy has just started or ended.
    fn read_tags(&mut self, wake: &mut Wake) {
        if self.tags_running || self.closed {
            return;
        }
        let silent = |p: &&Proxy| p.is_submitted() && p.connected() < self.config.nodes as usize;
        let Some(touched) = self.proxies.values().filter(silent).map(|p| p.touched).max() else {
            return;
        };
        let period = match wake.now.since(touched).as_secs() {
            0..30 => Duration::from_secs(1),
            30..600 => Duration::from_secs(10),
            _ => Duration::from_secs(60),
        };
        if wake.due(self.tags_read + period) {
            self.tags_running = true;
            self.tags_read = wake.now;
            self.act(Action::ReadTags);
        }
    }

    fn forget(&mut self, wake: &mut Wake) {
        let ended: Vec<_> = self.proxies.iter().filter(|(_, p)| !p.is_live()).map(|(&id, p)| (id, p.since)).collect();
        let surplus = ended.len().saturating_sub(MAX_ENDED);
        for (place, (id, since)) in ended.into_iter().enumerate() {
            if place < surplus || self.master.is_some_and(|told| wake.due(since.max(told) + KEEP_ENDED)) {
                self.record(Record::Forgotten(id));
                self.act(Action::RemoveFiles(id));
            }
        }
    }

    fn finish(&mut self, now: Time) {
        let Some(closing) = self.closing.filter(|_| !self.closed) else {
            return;
        };
        let last = self.proxies.values().filter(|p| p.attempt > 0).map(|p| p.since).fold(closing, Time::max).min(now);
        let agreed = !self.ever_submitted || self.clean.is_some_and(|(began, clean)| clean && began >= last);
        let idle = !self.submitting && self.cancelling.is_empty() && self.orphans.is_empty();
        if agreed && idle && self.live().is_empty() {
            self.closed = true;
            self.act(Action::ShutdownComplete);
        }
    }
}

/// Collects the next deadline.
pub(super) struct Wake {
    pub(super) now: Time,
    next: Option<Time>,
}

impl Wake {
    /// Has the time come? If not, it is one to wake up at.
    pub(super) fn due(&mut self, at: Time) -> bool {
        if at <= self.now {
            return true;
        }
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
        false
    }
}

//! How many proxies there are to be, and what comes of their submission.

use super::*;

impl Proxies {
    pub(super) fn keep_target(&mut self, wake: &mut Wake) {
        let Some(target) = self.target.filter(|_| self.configured && self.closing.is_none()) else {
            return;
        };
        let counted: Vec<_> =
            self.proxies.iter().filter(|(_, p)| p.is_live() && !p.removing).map(|(&id, p)| (id, p.state)).collect();
        let target = target as usize;
        let surplus = counted.len().saturating_sub(target);
        let unsubmitted = counted.iter().rev().filter(|(_, state)| *state == State::Wanted).take(surplus);
        for &(id, _) in unsubmitted {
            self.end(wake.now, id, "no longer wanted".to_owned());
        }
        let blocked = self.notes.values().any(Note::blocks);
        if blocked {
            return;
        }
        for _ in counted.len()..target {
            self.record(Record::Wanted(ProxyId(self.next_id), wake.now));
        }
        if self.submitting || self.paused {
            return;
        }
        let (queued, room) = self.queue();
        let first = self.proxies.iter().find(|(_, p)| p.state == State::Wanted).map(|(&id, p)| (id, p.attempt));
        let Some((proxy, attempt)) = first.filter(|_| queued < room) else {
            return;
        };
        if self.away.is_some_and(|since| wake.due(since + self.config.absence)) {
            return;
        }
        if wake.due(self.next_submit) {
            let attempt = attempt.saturating_add(1);
            self.submitting = true;
            self.record(Record::SubmitIntended(proxy, attempt, wake.now));
            let token = self.token(proxy, attempt);
            self.act(Action::SubmitProxy { proxy, attempt, token });
        }
    }

    /// Proxies that are queued, and how many may be.
    pub(super) fn queue(&self) -> (usize, usize) {
        let (mut running, mut queued) = (0usize, 0usize);
        for proxy in self.proxies.values().filter(|p| p.is_live()) {
            match proxy.state {
                State::Run => running += 1,
                State::Wanted => {}
                _ => queued += 1,
            }
        }
        let more = running.saturating_mul(self.config.queued_permille as usize) / 1000;
        (queued, more + self.config.queued_base as usize)
    }

    pub(super) fn on_submit_answered(&mut self, now: Time, id: ProxyId, attempt: u32, answer: SubmitAnswer) {
        self.submitting = false;
        let current = self.proxies.get(&id).is_some_and(|p| p.is_live() && p.attempt == attempt);
        let known = self.proxies.get(&id).and_then(|p| p.batch_id.clone());
        match answer {
            SubmitAnswer::Accepted(batch_id) => {
                self.limited = 0;
                self.resolve(Topic::Limited);
                if known.as_ref() == Some(&batch_id) {
                } else if current && known.is_none() {
                    self.queued(now, id, batch_id);
                } else {
                    self.orphans.insert(batch_id, now);
                }
            }
            _ if !current || known.is_some() => {}
            SubmitAnswer::Refused(message) => {
                self.note(Topic::Refused, message.clone(), None);
                self.end(now, id, format!("refused: {message}"));
            }
            SubmitAnswer::Limited(message) => {
                self.limited = self.limited.saturating_add(1);
                self.next_submit = now + self.pause(self.limited);
                self.not_submitted(now, id, message.clone());
                self.note(Topic::Limited, message, None);
            }
            SubmitAnswer::Unclear(message) => {
                self.paused = true;
                if let Some(proxy) = self.proxies.get_mut(&id) {
                    proxy.why = format!("no clear answer ({message}); its name is looked up");
                    proxy.lookup = Some(Lookup { since: now, absent: None });
                    self.changed.insert(id);
                }
            }
        }
    }

    /// Pause after so many failures in succession: the status interval, doubled each time.
    pub(super) fn pause(&self, failures: u32) -> Duration {
        let doubled = 1 << failures.saturating_sub(1).min(16);
        self.config.status.saturating_mul(doubled).min(MAX_PAUSE)
    }

    pub(super) fn queued(&mut self, now: Time, id: ProxyId, batch_id: String) {
        self.record(Record::Submitted(id, batch_id, now));
    }

    pub(super) fn not_submitted(&mut self, now: Time, id: ProxyId, why: String) {
        if self.proxies.get(&id).is_some_and(|p| p.removing) {
            self.end(now, id, why);
        } else {
            self.record(Record::NotSubmitted(id, why, now));
        }
    }
}

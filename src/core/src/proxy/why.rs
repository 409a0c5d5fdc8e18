//! Why a proxy is as it is: its records in words, what holds now and is in none, and what is waited for. The same of the site.

use super::*;
use crate::time::span;

/// Something seen or concluded, and when, if that is known.
pub type Step = (Option<Time>, String);

impl Record {
    /// Whose step it is.
    pub fn proxy(&self) -> Option<ProxyId> {
        match self {
            Record::Used(..) => None,
            Record::Wanted(id, ..)
            | Record::SubmitIntended(id, ..)
            | Record::NotSubmitted(id, ..)
            | Record::Submitted(id, ..)
            | Record::Moved(id, ..)
            | Record::Removing(id, ..)
            | Record::StarterSeen(id, ..)
            | Record::StarterGone(id, ..)
            | Record::Ended(id, ..)
            | Record::Forgotten(id) => Some(*id),
        }
    }

    /// In words.
    pub fn step(&self) -> Step {
        match self {
            Record::Used(..) => (None, "the table was replaced by a snapshot".to_owned()),
            Record::Wanted(_, at) => (Some(*at), "the master wants one more".to_owned()),
            Record::SubmitIntended(_, attempt, at) => (Some(*at), format!("submission {attempt} begins")),
            Record::NotSubmitted(_, why, at) => (Some(*at), format!("it was not accepted: {why}")),
            Record::Submitted(_, id, at) => (Some(*at), format!("queued as batch job {id}")),
            Record::Moved(_, state, restarts, why, at) => {
                let again = match restarts {
                    0 => String::new(),
                    times => format!(", restarted {times} time(s) by the batch system"),
                };
                (Some(*at), format!("{state}{again}: {why}"))
            }
            Record::Removing(_, at, why) => {
                (*at, format!("it is to end: {}", why.as_deref().unwrap_or("the record doesn't tell why")))
            }
            Record::StarterSeen(_, node, key, at) => {
                (*at, format!("starter {key} on node {node} calls for the first time"))
            }
            Record::StarterGone(_, key, why, at) => (*at, format!("starter {key} has ended: {why}")),
            Record::Ended(_, why, at) => (Some(*at), format!("EXIT: {why}")),
            Record::Forgotten(_) => (None, "forgotten".to_owned()),
        }
    }
}

impl Proxies {
    /// What holds of a proxy now, and what is waited for; none if it is not known.
    pub fn explain(&self, now: Time, id: ProxyId) -> Option<(Vec<Step>, Vec<String>)> {
        let proxy = self.proxies.get(&id)?;
        let (mut seen, mut next) = (Vec::new(), Vec::new());
        let left = |at: Time| span(at.since(now));
        seen.push((None, format!("{} for {}: {}", proxy.state, span(now.since(proxy.since)), proxy.why)));
        let nodes = self.config.nodes as usize;
        for starter in proxy.starters.values() {
            match &starter.link {
                Link::Up => seen.push((None, format!("the starter on node {} is connected", starter.node))),
                Link::Silent(since, why) => {
                    seen.push((Some(*since), format!("the starter on node {} is silent: {why}", starter.node)));
                    let end = left(*since + self.config.lease);
                    next.push(format!(
                        "the silent starter: its call, its job tag's end, or the end of its lease in {end}"
                    ));
                }
                Link::Gone(_) => {}
            }
        }
        if let Some(ended) = &proxy.ended {
            seen.push((None, format!("the batch system says that it has ended ({ended}), yet a starter is connected")));
        }
        if let Some(lookup) = &proxy.lookup {
            let token = self.token(id, proxy.attempt);
            seen.push((Some(lookup.since), format!("its submission gave no clear answer; {token} is looked up")));
            if let Some(first) = lookup.absent {
                seen.push((Some(first), "a good listing doesn't show it".to_owned()));
            }
            next.push("a listing that shows it, or two that don't: then it is submitted again".to_owned());
        }
        if let Some(absence) = &proxy.absence {
            seen.push((Some(absence.first), "the batch system doesn't list it".to_owned()));
            let asked = if self.accounting_never {
                "there is no accounting here"
            } else if absence.asked {
                "accounting was asked, and tells no end"
            } else {
                "accounting is asked"
            };
            seen.push((None, asked.to_owned()));
            let end = left(absence.first + self.grace());
            next.push(format!(
                "evidence of its end; it counts as lost in {end} if it is not listed again and no starter calls"
            ));
        }
        match proxy.state {
            State::Wanted => next.push(self.throttle(now)),
            State::Submitting if proxy.lookup.is_none() => next.push("the answer of the submit command".to_owned()),
            State::Submitting | State::Unknown => {}
            State::Pend => next.push("its start: a starter's call, or the batch system's word".to_owned()),
            State::Run if proxy.connected() < nodes => {
                next.push(format!("calls of {} of its {nodes} starter(s)", nodes - proxy.connected()));
            }
            State::Run => next.push("the end of its starters: idle, at the end of the walltime, or asked".to_owned()),
            State::Exit => next.push("nothing: it is forgotten after a while".to_owned()),
        }
        if proxy.is_live() && proxy.removing {
            if let Some(at) = proxy.cancel.accepted {
                seen.push((Some(at), "the batch system took the cancel command".to_owned()));
            }
            if let Some(refusal) = &self.cancel_refusal {
                seen.push((None, format!("the last cancel command was refused: {refusal}")));
            }
            next.push(format!("its end; it is cancelled (again) in {}", left(proxy.cancel.next)));
        }
        if proxy.is_submitted() {
            if proxy.connected() < nodes {
                next.push(
                    "its job tags and exit file, which are read every few seconds at first, then every minute"
                        .to_owned(),
                );
            }
            next.push(self.status_words(now));
        }
        Some((seen, next))
    }

    /// What holds of the site's batch system now, and what is waited for.
    pub fn explain_site(&self, now: Time) -> (Vec<Step>, Vec<String>) {
        let mut seen = Vec::new();
        if let Some((began, clean)) = self.clean {
            let what = if clean { "no batch job of ours" } else { "batch jobs of ours" };
            seen.push((Some(began), format!("the last good status call began; it shows {what}")));
        }
        if let Some((at, why)) = &self.status_said {
            let failures = self.status_failures;
            seen.push((Some(*at), format!("{failures} status call(s) in a row came to nothing, the last: {why}")));
        }
        if self.accounting_never {
            seen.push((None, "there is no accounting here".to_owned()));
        } else if let Some(at) = self.accounting_began {
            seen.push((Some(at), "accounting was asked last".to_owned()));
        }
        for note in self.notes.values() {
            seen.push((None, note.message.clone()));
        }
        for id in self.orphans.keys() {
            seen.push((None, format!("batch job {id} has our name and is no proxy: it is cancelled")));
        }
        if self.barren > 0 {
            seen.push((None, format!("{} proxies in a row ended without a call from a starter", self.barren)));
        }
        (seen, alloc::vec![self.throttle(now), self.status_words(now)])
    }

    fn status_words(&self, now: Time) -> String {
        if self.status_running {
            let began = self.status_began.unwrap_or(now);
            return format!("the answer of the status call that began {} ago", span(now.since(began)));
        }
        match self.status_due() {
            Some(at) => format!("the next status call, in {}", span(at.since(now))),
            None => "no status call: there is nothing to ask about".to_owned(),
        }
    }

    /// What the next submission waits for.
    fn throttle(&self, now: Time) -> String {
        if self.closing.is_some() {
            return "no submission: the session ends here".to_owned();
        }
        let Some(target) = self.target.filter(|_| self.configured) else {
            return "a master's word on how many proxies it wants".to_owned();
        };
        let live = self.proxies.values().filter(|p| p.is_live() && !p.removing);
        let wanted = live.clone().filter(|p| p.state == State::Wanted).count();
        if let Some(note) = self.notes.values().find(|note| note.blocks()) {
            return format!("someone to act: nothing is submitted after a refusal ({})", note.message);
        }
        if wanted == 0 {
            return format!("no submission: {} proxies are queued or running, and {target} are wanted", live.count());
        }
        if self.submitting {
            return "the answer of a submit command; the next one follows".to_owned();
        }
        if self.paused {
            return "a good listing before the next submission: the last one gave no clear answer".to_owned();
        }
        let (queued, room) = self.queue();
        if queued >= room {
            return format!(
                "room: {queued} proxies are queued, and {room} may be ({} + {}‰ of those that run)",
                self.config.queued_base, self.config.queued_permille
            );
        }
        if self.away.is_some_and(|since| since + self.config.absence <= now) {
            return "a master: nothing is submitted while none has been heard for long".to_owned();
        }
        match self.next_submit.since(now) {
            Duration::ZERO => "the next submission, at once".to_owned(),
            wait if self.limited > 0 => format!("the next submission, in {}: the site's limit was reached", span(wait)),
            wait => format!("the next submission, in {}: the last proxies came to nothing", span(wait)),
        }
    }
}

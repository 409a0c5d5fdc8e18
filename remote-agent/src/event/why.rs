//! What the agent says when it is asked why: the records of its table, and the state of its machine.

use std::rc::Rc;
use std::time::Instant;

use vo_core::proxy::{Record, Step};
use vo_wire::link::{Because, WHY_BYTES, WHY_STEPS, Why, WhyStep};

use super::agent::{Agent, host, ms};
use super::table::records_of;

impl Agent {
    /// Answers a question of the master's. The table is read from its files: nothing more is kept for it.
    pub(super) async fn explain(self: Rc<Self>, question: Why) {
        let (mut steps, mut gaps) = (Vec::new(), Vec::new());
        if let Some(proxy) = question.proxy {
            let (dir, epoch) = (self.dir.table(), self.epoch());
            let read = tokio::task::spawn_blocking(move || records_of(&dir, epoch, proxy)).await;
            let (records, missing): (Vec<Record>, _) = read.unwrap_or_default();
            gaps = missing;
            let dropped = records.len().saturating_sub(WHY_STEPS);
            if dropped > 0 {
                gaps.push(format!("{dropped} earlier record(s) are left out"));
            }
            steps = records.iter().skip(dropped).map(|record| self.step(record.step())).collect();
        }
        let now = self.now();
        let explained = self.machine.borrow().as_ref().map(|machine| match question.proxy {
            Some(proxy) => machine.explain(now, proxy).unwrap_or_default(),
            None => machine.explain_site(now),
        });
        let (seen, mut next) = explained.unwrap_or_default();
        let mut seen: Vec<WhyStep> = seen.into_iter().take(WHY_STEPS).map(|step| self.step(step)).collect();
        if question.proxy.is_none() {
            let aged = |at: Instant, text: &str| WhyStep { age_ms: Some(ms(at.elapsed())), text: text.to_owned() };
            seen.extend(self.status_answered.get().map(|at| aged(at, "the last good answer of the status command")));
            seen.extend(
                Some(aged(self.heard.get(), "the master was heard last")).filter(|_| self.life.get().is_some()),
            );
            let starters = self.starters.borrow().len();
            let text = format!(
                "process {} on {}, epoch {}; {starters} starter(s) are connected",
                std::process::id(),
                host(),
                self.epoch()
            );
            seen.push(WhyStep { age_ms: None, text });
        }
        next.truncate(WHY_STEPS);
        next.iter_mut().for_each(cut);
        if let Some(master) = &*self.master.borrow() {
            master.out.say(0, &Because { nonce: question.nonce, steps, now: seen, next, gaps });
        }
    }

    fn step(&self, (at, mut text): Step) -> WhyStep {
        cut(&mut text);
        WhyStep { age_ms: at.map(|at| ms(self.now().since(at))), text }
    }
}

fn cut(text: &mut String) {
    if text.len() > WHY_BYTES {
        let end = (0..=WHY_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
}

//! What happened to a site, in this life of the master: for `why SITE`.

use std::collections::VecDeque;

use vo_core::Time;
use vo_wire::control::WhyStep;

/// Entries kept of a site. A gateway that is down for days repeats itself, and that is one entry.
const KEPT: usize = 100;

/// Words of a site kept in an entry, in bytes.
const WORDS: usize = 2000;

/// Entries among which a repetition is looked for: a try and its failure alternate.
const REPEATED: usize = 4;

struct Entry {
    first: Time,
    last: Time,
    times: u32,
    by: &'static str,
    text: String,
}

/// The last things that happened.
#[derive(Default)]
pub(crate) struct History {
    entries: VecDeque<Entry>,
    dropped: bool,
}

impl History {
    /// Takes in what `by` saw or did.
    pub(crate) fn note(&mut self, now: Time, by: &'static str, text: impl Into<String>) {
        let mut text = text.into();
        cut(&mut text, WORDS);
        let same = self.entries.iter().rposition(|entry| entry.by == by && entry.text == text);
        if let Some(place) = same.filter(|place| place + REPEATED >= self.entries.len())
            && let Some(mut entry) = self.entries.remove(place)
        {
            entry.last = now;
            entry.times += 1;
            self.entries.push_back(entry);
            return;
        }
        if self.entries.len() >= KEPT {
            self.entries.pop_front();
            self.dropped = true;
        }
        self.entries.push_back(Entry { first: now, last: now, times: 1, by, text });
    }

    /// The entries as steps, in the order of their last time.
    pub(crate) fn steps(&self, date: impl Fn(Time) -> String) -> Vec<WhyStep> {
        let step = |entry: &Entry| {
            let times = match entry.times {
                1 => String::new(),
                times => format!(" ({times} times since {})", date(entry.first)),
            };
            WhyStep { at_ms: Some(entry.last.0), by: entry.by.into(), text: format!("{}{times}", entry.text) }
        };
        self.entries.iter().map(step).collect()
    }

    /// Has it forgotten anything?
    pub(crate) fn is_whole(&self) -> bool {
        !self.dropped
    }
}

/// Cuts a text to so many bytes, at a character.
pub(crate) fn cut(text: &mut String, bytes: usize) {
    if text.len() > bytes {
        let end = (0..=bytes).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_are_counted_and_the_oldest_go() {
        let mut history = History::default();
        for n in 0..50 {
            history.note(Time(2 * n), "master", "connecting");
            history.note(Time(2 * n + 1), "master", "no route");
        }
        let steps = history.steps(|at| at.0.to_string());
        let texts: Vec<_> = steps.iter().map(|step| (step.at_ms, step.text.as_str())).collect();
        assert_eq!(texts, [(Some(98), "connecting (50 times since 0)"), (Some(99), "no route (50 times since 1)")]);
        assert!(history.is_whole());
        for n in 0..200 {
            history.note(Time(n), "agent", format!("{n}"));
        }
        assert_eq!(history.steps(|_| String::new()).len(), KEPT);
        assert!(!history.is_whole());
    }

    #[test]
    fn long_words_are_cut_at_a_character() {
        let mut text = "é".repeat(10);
        cut(&mut text, 5);
        assert_eq!(text, "éé…");
    }
}

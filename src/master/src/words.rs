//! What sites say in words. Whoever runs a gateway or a node chooses them, and they reach a terminal, logs and files: so they become
//! one line each, without anything that drives a terminal or hides what stands there, and bounded.

use vo_core::job::Outcome;
use vo_wire::WireError;
use vo_wire::frame::{Frame, Message};
use vo_wire::link;
use vo_wire::node::StarterFacts;
use vo_wire::work;

/// Characters kept of one text.
const MOST: usize = 4096;

/// Lines kept of one list.
const MOST_LINES: usize = 1000;

/// One line for people: line ends and other control characters, and those that turn the direction of writing, become spaces.
pub(crate) fn plain(text: &str) -> String {
    let safe = |c: char| {
        let turns =
            matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || turns { ' ' } else { c }
    };
    text.chars().take(MOST).map(safe).collect::<String>().trim().to_owned()
}

fn make_plain(text: &mut String) {
    *text = plain(text);
}

/// A message with words in it.
pub(crate) trait Spoken: Message {
    /// Makes them plain.
    fn make_plain(&mut self);
}

/// The message of a frame from a site, with its words made plain.
pub(crate) fn heard<M: Spoken>(frame: &Frame) -> Result<M, WireError> {
    let mut message: M = frame.read()?;
    message.make_plain();
    Ok(message)
}

impl Spoken for link::AgentHello {
    fn make_plain(&mut self) {
        [&mut self.host, &mut self.batch, &mut self.batch_version, &mut self.version].into_iter().for_each(make_plain);
    }
}

impl Spoken for link::ProxyReport {
    fn make_plain(&mut self) {
        for info in &mut self.proxies {
            make_plain(&mut info.why);
            info.batch_id.iter_mut().for_each(make_plain);
        }
    }
}

impl Spoken for link::SiteNote {
    fn make_plain(&mut self) {
        make_plain(&mut self.message);
        self.hint.iter_mut().for_each(make_plain);
    }
}

impl Spoken for link::StarterUp {
    fn make_plain(&mut self) {
        let StarterFacts { batch_id, host, arch, system, .. } = &mut self.facts;
        [batch_id, host, arch, system].into_iter().for_each(make_plain);
    }
}

impl Spoken for link::StarterDown {
    fn make_plain(&mut self) {
        make_plain(&mut self.why);
    }
}

impl Spoken for link::ShutdownDone {
    fn make_plain(&mut self) {
        self.left.truncate(MOST_LINES);
        self.left.iter_mut().for_each(make_plain);
    }
}

impl Spoken for link::Because {
    fn make_plain(&mut self) {
        let Self { steps, now, next, gaps, .. } = self;
        for list in [&mut *next, &mut *gaps] {
            list.truncate(MOST_LINES);
            list.iter_mut().for_each(make_plain);
        }
        for list in [steps, now] {
            list.truncate(MOST_LINES);
            list.iter_mut().for_each(|step| make_plain(&mut step.text));
        }
    }
}

impl Spoken for work::OutputLost {
    fn make_plain(&mut self) {
        make_plain(&mut self.why);
    }
}

impl Spoken for work::Report {
    fn make_plain(&mut self) {
        for result in &mut self.results {
            match &mut result.outcome {
                Outcome::Unrunnable(why)
                | Outcome::SiteFailed(why)
                | Outcome::Evicted(why)
                | Outcome::OutOfMemory(why)
                | Outcome::OutputFailed(why) => make_plain(why),
                Outcome::Exited(_) | Outcome::Signaled(_) | Outcome::Killed | Outcome::NeedsFiles | Outcome::Missed => {
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_drives_the_terminal_or_makes_a_line_of_its_own() {
        let hostile = "node1\x1b]0;owned\x07\x1b[2J\r\nhint: run `rm -r ~`\u{9b}31m\u{202e}txt.exe\u{2028}\0 ";
        let said = plain(hostile);
        assert!(!said.chars().any(char::is_control) && !said.contains(['\u{202e}', '\u{2028}']), "{said:?}");
        assert_eq!(said.lines().count(), 1);
        assert_eq!(plain(&"x".repeat(1 << 20)).len(), MOST);
        assert_eq!(plain("invalid partition \"debgu\" – naïve ☃"), "invalid partition \"debgu\" – naïve ☃");

        let note = link::SiteNote {
            resolved: false,
            message: hostile.into(),
            hint: Some(hostile.into()),
            blocks: false,
            passing: false,
        };
        let heard: link::SiteNote = heard(&Frame::new(0, &note)).unwrap();
        assert_eq!((heard.message.as_str(), heard.hint.as_deref()), (said.as_str(), Some(said.as_str())));
        let left = link::ShutdownDone { left: vec![hostile.into(); 5000] };
        let left: link::ShutdownDone = super::heard(&Frame::new(0, &left)).unwrap();
        assert!(left.left.len() == MOST_LINES && left.left.iter().all(|line| *line == said));
    }
}

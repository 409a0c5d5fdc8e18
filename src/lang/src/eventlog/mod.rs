//! Job event logs, as HTCondor writes and reads them: text, JSON and XML.
//!
//! Sources: HTCondor manual, "Job event log codes" and "Job event log" of the submit description's and the configuration's reference; logs of 25.14.

mod read;
#[cfg(test)]
mod tests;
mod write;

pub use read::{End, Fault, Head, MAX_EVENT, Reader};
pub use write::{Body, Event, Files, Resources, Spent, Usage, Used};

/// How events are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Form {
    /// Lines for people, up to one of three dots.
    #[default]
    Text,
    /// An object for each event.
    Json,
    /// A ClassAd in XML for each event.
    Xml,
}

impl Form {
    /// The names that `vo.conf` knows them by.
    pub const NAMES: [(&'static str, Form); 3] = [("text", Form::Text), ("json", Form::Json), ("xml", Form::Xml)];

    /// The last line of an event.
    pub fn last_line(self) -> &'static str {
        match self {
            Form::Text => "...\n",
            Form::Json => "}\n",
            Form::Xml => "</c>\n",
        }
    }
}

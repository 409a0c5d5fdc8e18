//! How a session starts, what its sites ask, and its end.

use super::*;

/// Follow the session's start: [`SiteEvent`]s and [`Question`]s (answered with [`Answer`]) until every gateway has settled and, for
/// each site that is up, the wanted starters have called back or `patience_ms` has passed; then [`Done`]. Closing the connection
/// before cancels the questions, not the session.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FollowStart {
    /// How long to wait for starters once all gateways have settled; 0 doesn't wait.
    #[n(0)]
    pub patience_ms: u64,
    /// May questions be asked? If not, what needs an answer fails.
    #[n(1)]
    pub interactive: bool,
}

/// What happened at a site, in the order in which it happened.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum SiteEvent {
    /// Its gateway is being connected to.
    #[n(0)]
    Spawning {
        /// The site's name.
        #[n(0)]
        site: String,
        /// Its gateway, as the user wrote it.
        #[n(1)]
        gateway: String,
    },
    /// The agent is being uploaded.
    #[n(1)]
    Uploading {
        /// The site's name.
        #[n(0)]
        site: String,
        /// Bytes sent.
        #[n(1)]
        sent: u64,
        /// Bytes in all.
        #[n(2)]
        total: u64,
    },
    /// Its event agent is at work.
    #[n(2)]
    Up {
        /// The site's name.
        #[n(0)]
        site: String,
        /// The batch system found.
        #[n(1)]
        batch: String,
    },
    /// It can't be used, or not for now.
    #[n(3)]
    Failed {
        /// The site's name.
        #[n(0)]
        site: String,
        /// Why.
        #[n(1)]
        message: String,
        /// What the user may do.
        #[n(2)]
        hint: Option<String>,
        /// Was a login refused?
        #[n(3)]
        authentication: bool,
    },
    /// Starters that called back, of those wanted, over all sites.
    #[n(4)]
    Participants {
        /// Called back.
        #[n(0)]
        joined: u32,
        /// Wanted.
        #[n(1)]
        wanted: u32,
    },
    /// Words of a site: a banner, a rejected submission.
    #[n(5)]
    Note {
        /// The site's name.
        #[n(0)]
        site: String,
        /// One line or more.
        #[n(1)]
        message: String,
        /// What the user may do.
        #[n(2)]
        hint: Option<String>,
    },
}

impl SiteEvent {
    /// The site that it is about.
    pub fn site(&self) -> Option<&str> {
        match self {
            SiteEvent::Spawning { site, .. }
            | SiteEvent::Uploading { site, .. }
            | SiteEvent::Up { site, .. }
            | SiteEvent::Failed { site, .. }
            | SiteEvent::Note { site, .. } => Some(site),
            SiteEvent::Participants { .. } => None,
        }
    }
}

/// A question to the person at the terminal.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Question {
    /// Told back in the answer.
    #[n(0)]
    pub id: u64,
    /// The site that it is about.
    #[n(1)]
    pub site: String,
    /// Shown first, if not empty: an instruction, a host key's fingerprint.
    #[n(2)]
    pub title: String,
    /// The prompt.
    #[n(3)]
    pub text: String,
    /// May the answer be seen as it is typed?
    #[n(4)]
    pub echo: bool,
    /// Is `yes` or `no` expected?
    #[n(5)]
    pub confirm: bool,
}

/// The answer to a [`Question`]; none if the person gave none.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct Answer {
    /// Which question.
    #[n(0)]
    pub id: u64,
    /// What was typed: may be a secret, so it is never printed.
    #[n(1)]
    pub text: Option<String>,
}

/// Connect to a site now, and ask what needs an answer: [`Question`]s (answered with [`Answer`]) and the site's [`SiteEvent`]s, then
/// [`Done`] once its agent is at work, or [`Failed`]. Closing the connection before cancels the questions; the site is tried on.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Login {
    /// The site's name.
    #[n(0)]
    pub site: String,
    /// May questions be asked? If not, what needs an answer fails.
    #[n(1)]
    pub interactive: bool,
}

/// From an askpass program that the system's `ssh` started: ask this. Answered by [`Answer`], with id 0.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Askpass {
    /// The site.
    #[n(0)]
    pub site: String,
    /// What `ssh` asks.
    #[n(1)]
    pub prompt: String,
    /// `SSH_ASKPASS_PROMPT`: `confirm`, `none` or nothing.
    #[n(2)]
    pub kind: String,
}

/// End the session: [`SiteEvent::Note`]s meanwhile, then [`Done`], or [`Failed`] with [`Fault::Unfinished`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct EndSession {
    /// Even with unfinished jobs?
    #[n(0)]
    pub force: bool,
}

/// What is known of the session: [`SessionDetail`], then [`Done`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ShowSession {}

/// What is known of a session.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SessionDetail {
    /// All of its jobs, by state.
    #[n(0)]
    pub jobs: Counts,
    /// Whoever is attached.
    #[n(1)]
    pub attached: Option<Place>,
    /// Attached since, if anyone is.
    #[n(2)]
    pub attached_ms: Option<u64>,
    /// Device number of the grid shell's own terminal, if it runs.
    #[n(3)]
    pub terminal: Option<u64>,
}

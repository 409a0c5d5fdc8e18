//! The evidence for what is shown.

use super::*;

/// What a [`Why`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Subject {
    /// `12.3`.
    #[n(0)]
    Job,
    /// `12`.
    #[n(1)]
    Cluster,
    /// `SITE/NUMBER`, a number that only one site has, or the batch system's id.
    #[n(2)]
    Proxy,
    /// Its name.
    #[n(3)]
    Site,
}

/// Why is it as it is? Answered by [`Because`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Why {
    /// What `name` names; none if the master is to find out.
    #[n(0)]
    pub subject: Option<Subject>,
    /// As the user wrote it.
    #[n(1)]
    pub name: String,
}

/// A step of a chain of evidence.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct WhyStep {
    /// When it was seen or concluded; none for what holds now, or has no record of its time.
    #[n(0)]
    pub at_ms: Option<u64>,
    /// By whom.
    #[n(1)]
    pub by: String,
    /// What.
    #[n(2)]
    pub text: String,
}

/// The answer to [`Why`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Because {
    /// What it is about.
    #[n(0)]
    pub subject: Subject,
    /// Its whole name: `12.3`, `tundra/7`.
    #[n(1)]
    pub name: String,
    /// Its state, in words.
    #[n(2)]
    pub state: String,
    /// How it came to that, oldest first.
    #[n(3)]
    pub steps: Vec<WhyStep>,
    /// What is waited for next.
    #[n(4)]
    pub next: Vec<String>,
    /// What the answer lacks: evidence that is gone, a site that can't be asked.
    #[n(5)]
    pub notes: Vec<String>,
}

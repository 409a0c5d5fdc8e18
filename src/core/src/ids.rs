//! Identities, each a type of its own.

use core::fmt;
use core::str::FromStr;
use minicbor::{Decode, Encode};

/// A job: process `proc` of cluster `cluster`. Printed `12.3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct JobId {
    /// The cluster, from 1.
    #[n(0)]
    pub cluster: u32,
    /// The process within the cluster, from 0.
    #[n(1)]
    pub proc: u32,
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.cluster, self.proc)
    }
}

/// Text that is no job id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a job id such as 12.3")]
pub struct NotAJobId;

impl FromStr for JobId {
    type Err = NotAJobId;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (cluster, proc) = text.split_once('.').ok_or(NotAJobId)?;
        Ok(JobId { cluster: number(cluster)?, proc: number(proc)? })
    }
}

fn number(text: &str) -> Result<u32, NotAJobId> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(NotAJobId);
    }
    text.parse().map_err(|_| NotAJobId)
}

/// One try to run a job: the key under which a result counts once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct AttemptId {
    /// The job.
    #[n(0)]
    pub job: JobId,
    /// The try, from 1.
    #[n(1)]
    pub attempt: u32,
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.job, self.attempt)
    }
}

macro_rules! serial {
    ($(#[$doc:meta])* $name:ident($int:ty), $show:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        #[cbor(transparent)]
        pub struct $name(#[n(0)] pub $int);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $show, self.0)
            }
        }
    };
}

serial! {
    /// A site of a session, by its place in the session's configuration.
    SiteId(u16), "{}"
}
serial! {
    /// A job proxy of one site: a number that the site's event agent gives, from 1, never reused in the session.
    ProxyId(u64), "{}"
}
serial! {
    /// One life of one starter: a random number that the starter draws when it starts. A starter that reconnects keeps it; a
    /// requeued batch job's starter has another.
    StarterKey(u64), "{:016x}"
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn job_ids_read_as_they_print() {
        fn check(text: &str, expected: Option<(u32, u32)>) {
            let read = text.parse::<JobId>().ok().map(|j| (j.cluster, j.proc));
            assert_eq!(read, expected, "{text:?}");
            if let Some((cluster, proc)) = expected {
                assert_eq!(JobId { cluster, proc }.to_string(), text);
            }
        }
        check("12.3", Some((12, 3)));
        check("1.0", Some((1, 0)));
        check("4294967295.4294967295", Some((u32::MAX, u32::MAX)));
        check("4294967296.0", None);
        for bad in ["", "12", ".", "1.", ".1", "1.+1", "-1.0", "1.0.0", " 1.0", "a.b"] {
            check(bad, None);
        }
    }
}

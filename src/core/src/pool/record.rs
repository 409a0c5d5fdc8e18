//! What the pool remembers through a crash: its records, and the fold over them.

use super::*;

/// What a starter offers, as the matcher sees it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Offer {
    /// Its site.
    #[n(0)]
    pub site: SiteId,
    /// Its proxy there.
    #[n(1)]
    pub proxy: ProxyId,
    /// The node.
    #[n(2)]
    pub host: String,
    /// CPUs.
    #[n(3)]
    pub cpus: u32,
    /// Memory.
    #[n(4)]
    pub memory_mb: u64,
    /// GPUs.
    #[n(5)]
    pub gpus: u32,
    /// Files that it shares with the workstation.
    #[n(6)]
    pub shared: Shared,
    /// Takes no job when less than this is left of its walltime.
    #[cbor(n(7), with = "millis")]
    pub drain: Duration,
    /// Architecture.
    #[n(8)]
    pub arch: String,
    /// Operating system.
    #[n(9)]
    pub system: String,
    /// More attributes of its slots, with the text of their values: its site's, as the user set them.
    #[cbor(n(10), default)]
    pub attributes: Vec<(String, String)>,
    /// What it has of its site's own resources, as the user set them.
    #[cbor(n(11), default)]
    pub resources: Vec<(String, u32)>,
}

/// Which files a node shares with the workstation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Shared {
    /// None: files travel.
    #[default]
    #[n(0)]
    Nothing,
    /// Those of the marker's file system: the driver names the directory, files travel where that is elsewhere.
    #[n(1)]
    MarkerFs,
    /// All.
    #[n(2)]
    Everything,
}

/// A `queue` statement, as submitted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct GroupRecord {
    /// Jobs.
    #[n(0)]
    pub count: u32,
    /// What they run.
    #[n(1)]
    pub program: Program,
    /// Job event log.
    #[n(2)]
    pub log: Option<Template>,
    /// What the matcher goes by.
    #[cbor(n(3), default)]
    pub terms: Terms,
    /// What their templates take from each job's row, a row for each job in order.
    #[n(4)]
    pub table: Option<Table>,
    /// Their processes, where several groups share the processes of a statement among them: all of these in one row.
    #[n(5)]
    pub procs: Option<Procs>,
    /// What their submitter knows them by, in the first group: a submission with a tag that was there is answered by the jobs that have it.
    #[n(6)]
    pub tag: Option<String>,
    /// Are they submitted on hold?
    #[cbor(n(7), default)]
    pub held: bool,
    /// What their event log is to hold.
    #[cbor(n(8), default)]
    pub log_terms: LogTerms,
    /// Whose jobs they are, submitted once more.
    #[n(9)]
    pub origin: Option<Origin>,
}

/// What is told of jobs: what their event log is to hold, and how; and to whom by mail.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct LogTerms {
    /// In XML, whatever the session's logs are written in.
    #[n(0)]
    pub xml: bool,
    /// The batch name that the user gave.
    #[n(1)]
    pub batch_name: Option<Template>,
    /// The DAG's node that they are of.
    #[n(2)]
    pub dag_node: Option<Template>,
    /// What the submission notes for programs.
    #[n(3)]
    pub notes: Option<Template>,
    /// What it notes for people.
    #[n(4)]
    pub user_notes: Option<Template>,
    /// Disk space that the jobs ask for, in KiB.
    #[n(5)]
    pub disk_kib: Option<u64>,
    /// Of a cluster whose jobs are not all to be there at once, how many items they are made of: its log tells of the cluster, too.
    #[n(6)]
    pub late: Option<u32>,
    /// Attributes of the jobs' ads that it tells with each event.
    #[cbor(n(7), default)]
    pub information: Vec<String>,
    /// The mails that they ask for.
    #[n(8)]
    pub mail: Option<Mail>,
}

/// The mails that jobs ask for.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Mail {
    /// What of them is told.
    #[n(0)]
    pub told: Told,
    /// Who gets them; none is the user.
    #[n(1)]
    pub to: Option<Template>,
    /// Attributes that are told as well.
    #[n(2)]
    pub attributes: Vec<String>,
}

/// What is told of jobs by mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Told {
    /// All that becomes of them.
    #[n(0)]
    Everything,
    /// That they have ended by themselves.
    #[n(1)]
    Ends,
    /// That they failed, or can't run as they are.
    #[n(2)]
    Failures,
}

impl GroupRecord {
    /// Do the groups number their jobs once each and without gaps, and is there a row for each job where there are rows?
    pub fn are_whole(groups: &[GroupRecord]) -> bool {
        let (mut next, mut listed) = (0u64, Vec::new());
        let close = |next: &mut u64, listed: &mut Vec<u32>| {
            listed.sort_unstable();
            let whole = (*next..).zip(&*listed).all(|(expected, proc)| expected == u64::from(*proc));
            *next += listed.len() as u64;
            listed.clear();
            whole
        };
        let each = |group: &GroupRecord| {
            let listed_whole = match &group.procs {
                Some(procs) => {
                    listed.extend_from_slice(procs.as_slice());
                    procs.as_slice().len() == group.count as usize
                }
                None => {
                    let whole = close(&mut next, &mut listed);
                    next += u64::from(group.count);
                    whole
                }
            };
            listed_whole && group.table.as_ref().is_none_or(|table| table.rows() == group.count)
        };
        groups.iter().all(each) && close(&mut next, &mut listed)
    }
}

/// A job's end.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Ended {
    /// The attempt whose result counts.
    #[n(0)]
    pub id: AttemptId,
    /// Where it ran.
    #[n(1)]
    pub site: u16,
    /// How it ended.
    #[n(2)]
    pub end: End,
    /// What it used.
    #[n(3)]
    pub usage: Usage,
    /// What its policy makes of that; none if the job has done.
    #[n(4)]
    pub then: Option<Decision>,
}

/// What the pool stores. Fields are only ever added.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Record {
    /// A cluster was submitted.
    #[n(0)]
    Submitted {
        /// Its number.
        #[n(0)]
        cluster: u32,
        /// When.
        #[n(1)]
        at: Time,
        /// Its name.
        #[n(2)]
        name: String,
        /// Its groups.
        #[n(3)]
        groups: Vec<GroupRecord>,
    },
    /// A starter called in for the first time.
    #[n(1)]
    StarterJoined {
        /// Which.
        #[n(0)]
        key: StarterKey,
        /// What it offers.
        #[n(1)]
        offer: Offer,
        /// When. Here and below, journals of earlier versions have none.
        #[n(2)]
        at: Option<Time>,
    },
    /// It ended, with all it held.
    #[n(2)]
    StarterGone {
        /// Which.
        #[n(0)]
        key: StarterKey,
        /// When that was concluded.
        #[n(1)]
        at: Option<Time>,
        /// The evidence.
        #[n(2)]
        why: Option<String>,
    },
    /// Attempts go to a starter.
    #[n(3)]
    Dispatched {
        /// Where to.
        #[n(0)]
        key: StarterKey,
        /// Which.
        #[n(1)]
        ids: Vec<AttemptId>,
        /// When.
        #[n(2)]
        at: Option<Time>,
    },
    /// Attempts came back unstarted.
    #[n(4)]
    Returned {
        /// From where.
        #[n(0)]
        key: StarterKey,
        /// Which.
        #[n(1)]
        ids: Vec<AttemptId>,
        /// When.
        #[n(2)]
        at: Option<Time>,
        /// Why.
        #[n(3)]
        why: Option<Return>,
    },
    /// Jobs completed.
    #[n(5)]
    Ended {
        /// When.
        #[n(0)]
        at: Time,
        /// Which.
        #[n(1)]
        ends: Vec<Ended>,
    },
    /// A site failed a job; it is idle again.
    #[n(6)]
    SiteFailed {
        /// When.
        #[n(0)]
        at: Time,
        /// Which.
        #[n(1)]
        id: AttemptId,
        /// Why.
        #[n(2)]
        why: String,
        /// When it was known to run, if it did.
        #[n(3)]
        ran: Option<Time>,
        /// The starter that it ran at, if that had fallen silent.
        #[n(4)]
        lost: Option<StarterKey>,
    },
    /// A job can't run as it is.
    #[n(7)]
    Held {
        /// When.
        #[n(0)]
        at: Time,
        /// Which.
        #[n(1)]
        job: JobId,
        /// Why.
        #[n(2)]
        why: String,
        /// The same in HTCondor's numbers; 0 if nothing tells.
        #[cbor(n(3), default)]
        code: u16,
    },
    /// The user removed jobs.
    #[n(8)]
    Removed {
        /// When.
        #[n(0)]
        at: Time,
        /// Cluster, first and last process. Ended jobs among them are not touched.
        #[n(1)]
        ranges: Vec<(u32, u32, u32)>,
    },
    /// An attempt that was given up has a result: it is the job's attempt again, and no other.
    #[n(9)]
    Claimed {
        /// Who has the result.
        #[n(0)]
        key: StarterKey,
        /// The attempt.
        #[n(1)]
        id: AttemptId,
        /// When.
        #[n(2)]
        at: Option<Time>,
    },
    /// A node gets no work for a while.
    #[n(10)]
    NodeExcluded {
        /// Whose node.
        #[n(0)]
        site: SiteId,
        /// Its name.
        #[n(1)]
        host: String,
        /// Since when.
        #[n(2)]
        since: Time,
        /// Until when.
        #[n(3)]
        until: Time,
        /// The evidence.
        #[n(4)]
        why: String,
        /// How often in a row, so that it is tried again later each time.
        #[n(5)]
        times: u8,
    },
    /// Starters fell silent. Evidence only: a pool that is read back has none that answers.
    #[n(11)]
    Silent {
        /// Which.
        #[n(0)]
        keys: Vec<StarterKey>,
        /// When.
        #[n(1)]
        at: Time,
        /// What became of the connection.
        #[n(2)]
        why: String,
        /// Did the site's agent tell? If not, it is our own way to the site that is lost.
        #[n(3)]
        told: bool,
    },
    /// A silent starter answers again. Evidence only.
    #[n(12)]
    Answers {
        /// Which.
        #[n(0)]
        key: StarterKey,
        /// When.
        #[n(1)]
        at: Time,
    },
    /// The user held jobs.
    #[n(13)]
    HeldByUser {
        /// When.
        #[n(0)]
        at: Time,
        /// Cluster, first and last process. Ended and held jobs among them are not touched.
        #[n(1)]
        ranges: Vec<(u32, u32, u32)>,
        /// Why.
        #[n(2)]
        why: String,
    },
    /// The user released held jobs.
    #[n(14)]
    Released {
        /// When.
        #[n(0)]
        at: Time,
        /// Cluster, first and last process. Jobs among them that are not held are not touched.
        #[n(1)]
        ranges: Vec<(u32, u32, u32)>,
    },
    /// The user changed what jobs ask for.
    #[n(15)]
    Edited {
        /// When.
        #[n(0)]
        at: Time,
        /// Cluster, first and last process. Ended jobs among them are not touched.
        #[n(1)]
        ranges: Vec<(u32, u32, u32)>,
        /// How.
        #[n(2)]
        edit: Edit,
    },
    /// The policies of jobs decided about them.
    #[n(16)]
    Judged {
        /// When.
        #[n(0)]
        at: Time,
        /// Cluster, first and last process. Ended jobs among them are not touched.
        #[n(1)]
        ranges: Vec<(u32, u32, u32)>,
        /// What.
        #[n(2)]
        decision: Decision,
    },
    /// Attempts run whose jobs' policies may ask since when.
    #[n(17)]
    Started {
        /// When that was told.
        #[n(0)]
        at: Time,
        /// Which.
        #[n(1)]
        ids: Vec<AttemptId>,
    },
    /// The user took jobs that have ended out of the queue.
    #[n(18)]
    Dismissed {
        /// When.
        #[n(0)]
        at: Time,
        /// Cluster, first and last process.
        #[n(1)]
        ranges: Vec<(u32, u32, u32)>,
    },
    /// What attempts had used that come to nothing.
    #[n(19)]
    Measured {
        /// When.
        #[n(0)]
        at: Time,
        /// Of which jobs, and what.
        #[n(1)]
        used: Vec<(JobId, Usage)>,
    },
}

/// Why attempts came back unstarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Return {
    /// Another starter was idle.
    #[n(0)]
    Recalled,
    /// Its starter is about to end.
    #[n(1)]
    Closing,
    /// Its starter's inventory doesn't have it: the message was lost.
    #[n(2)]
    Lost,
    /// Its starter ended.
    #[n(3)]
    Gone,
    /// The node doesn't see its directory: it goes again, with its files.
    #[n(4)]
    NeedsFiles,
    /// It could not be sent any more: its starter was being asked what it holds.
    #[n(5)]
    Unsent,
    /// Many failed in a row at its node.
    #[n(6)]
    Excluded,
}

/// Durations as milliseconds.
mod millis {
    use core::time::Duration;
    use minicbor::decode::Decoder;
    use minicbor::encode::{Encoder, Write};

    pub(super) fn encode<C, W: Write>(
        span: &Duration,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.u64(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))?.ok()
    }

    pub(super) fn decode<'b, C>(d: &mut Decoder<'b>, _: &mut C) -> Result<Duration, minicbor::decode::Error> {
        d.u64().map(Duration::from_millis)
    }
}

impl Record {
    /// When it was made, if it tells.
    pub fn at(&self) -> Option<Time> {
        match self {
            Record::Submitted { at, .. }
            | Record::Ended { at, .. }
            | Record::SiteFailed { at, .. }
            | Record::Held { at, .. }
            | Record::Removed { at, .. }
            | Record::HeldByUser { at, .. }
            | Record::Released { at, .. }
            | Record::Edited { at, .. }
            | Record::NodeExcluded { since: at, .. }
            | Record::Silent { at, .. }
            | Record::Judged { at, .. }
            | Record::Started { at, .. }
            | Record::Dismissed { at, .. }
            | Record::Measured { at, .. }
            | Record::Answers { at, .. } => Some(*at),
            Record::StarterJoined { at, .. }
            | Record::StarterGone { at, .. }
            | Record::Dispatched { at, .. }
            | Record::Returned { at, .. }
            | Record::Claimed { at, .. } => *at,
        }
    }
}

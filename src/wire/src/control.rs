//! Programs on the workstation and the master, over the session's Unix socket. Kinds `0x04..`.
//!
//! The client opens with [`Hello`], the master answers [`Welcome`]. Then one request at a time; what is listed comes in pages, what
//! is followed comes as it happens, and each request ends with [`Done`] or [`Failed`]. Closing the connection ends a request. Times
//! are milliseconds since 1970, by the workstation's clock.

mod jobs;
mod pool;
mod session;
mod terminal;
mod why;

use minicbor::{Decode, Encode};

use crate::frame::kinds;

pub use jobs::*;
pub use pool::*;
pub use session::*;
pub use terminal::*;
pub use why::*;

/// A client's first word.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    /// [`crate::PROTOCOL`].
    #[n(0)]
    pub protocol: u32,
}

/// The master's answer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Welcome {
    /// [`crate::PROTOCOL`].
    #[n(0)]
    pub protocol: u32,
    /// The session's name.
    #[n(1)]
    pub session: String,
    /// The master's process.
    #[n(2)]
    pub pid: u32,
    /// When the session began.
    #[n(3)]
    pub started_ms: u64,
}

/// The request is done.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Done {}

/// Why a request failed; the program's exit code follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Fault {
    /// The request makes no sense here: unknown job, unknown site.
    #[n(0)]
    Usage,
    /// A submission was refused.
    #[n(1)]
    Refused,
    /// The master could not do it: a full disk.
    #[n(2)]
    System,
    /// `exit` with unfinished jobs, without force.
    #[n(3)]
    Unfinished,
    /// The session is ending.
    #[n(4)]
    Ending,
    /// A site refuses the login.
    #[n(5)]
    Login,
    /// A site can't be reached or used.
    #[n(6)]
    Unreachable,
}

/// The request failed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Failed {
    /// What kind of failure.
    #[n(0)]
    pub fault: Fault,
    /// In one line.
    #[n(1)]
    pub message: String,
    /// What the user may do.
    #[n(2)]
    pub hint: Option<String>,
}

kinds! {
    0x0401 => Hello, 0x0402 => Welcome, 0x0403 => Done, 0x0404 => Failed, 0x0405 => FollowStart, 0x0406 => SiteEvent,
    0x0407 => Question, 0x0408 => Answer, 0x0409 => Askpass, 0x040a => Submit, 0x040b => Submitted, 0x040c => ListJobs,
    0x040d => JobRows, 0x040e => ListClusters, 0x040f => ClusterRows, 0x0410 => ListPool, 0x0411 => StarterRows,
    0x0412 => ListSites, 0x0413 => SiteRows, 0x0414 => ListProxies, 0x0415 => ProxyRows, 0x0416 => Alter, 0x0417 => Altered,
    0x0418 => Watch, 0x0419 => Progress, 0x041a => ShowJob, 0x041b => JobDetail, 0x041c => EndSession, 0x041d => Attach,
    0x041e => TtyData, 0x041f => TtyResize, 0x0420 => TtyClosed, 0x0421 => Login, 0x0422 => Detach, 0x0423 => Detached,
    0x0424 => ShowSession, 0x0425 => SessionDetail, 0x0426 => Why, 0x0427 => Because,
    0x0428 => AdRows, 0x0429 => Retry, 0x042a => Retried,
    0x0430 => SubmitPiece,
}

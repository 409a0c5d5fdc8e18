//! The grid shell's terminal.

use super::*;

/// Attach a terminal to the grid shell, starting it if there is none. From then on [`TtyData`] goes both ways, until [`TtyClosed`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Attach {
    /// Size.
    #[n(0)]
    pub rows: u16,
    /// Size.
    #[n(1)]
    pub cols: u16,
    /// The environment for a new shell (`TERM`, `SHELL`, …), as `NAME=value`.
    #[cbor(n(2))]
    pub environment: Vec<EnvEntry>,
    /// Its directory.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub directory: Vec<u8>,
    /// The terminal that attaches.
    #[n(4)]
    pub from: Option<Place>,
}

/// A person's terminal.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Place {
    /// In words: `pts/3`, `pts/4 (SSH from 192.0.2.7)`.
    #[n(0)]
    pub name: String,
    /// Its device number.
    #[n(1)]
    pub device: u64,
}

/// Detach whoever is attached: [`Detached`], then [`Done`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Detach {
    /// Whose wish it is.
    #[n(0)]
    pub from: Option<Place>,
}

/// What was detached.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Detached {
    /// In words; none if nothing was attached.
    #[n(0)]
    pub place: Option<String>,
}

/// `NAME=value`, as bytes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct EnvEntry(#[cbor(n(0), with = "minicbor::bytes")] pub Vec<u8>);

/// Bytes of the terminal.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TtyData {
    /// The bytes.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub data: Vec<u8>,
}

/// The terminal has another size.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TtyResize {
    /// Size.
    #[n(0)]
    pub rows: u16,
    /// Size.
    #[n(1)]
    pub cols: u16,
}

/// The terminal is no longer attached.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TtyClosed {
    /// The shell's exit code, if it ended; none if another terminal took over or it was detached.
    #[n(0)]
    pub code: Option<i32>,
    /// In words: a fragment, such as `attached from pts/4`.
    #[n(1)]
    pub why: String,
}

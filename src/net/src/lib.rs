//! Encrypted connections: mutual TLS between starters and event agents ([`tls`]), SSH from the master to gateways (`ssh`,
//! behind the feature of that name), and the frames of `vo-wire` on any stream ([`frames`]).
//!
//! This crate knows hosts, keys, names and streams. It must not know jobs, proxies' states or batch systems, it keeps no
//! files of its own but the lines it appends to the user's `known_hosts`, and it never writes to a terminal: every question
//! goes through the caller's `Prompter`.

pub mod frames;
#[cfg(feature = "ssh")]
pub mod ssh;
pub mod tls;

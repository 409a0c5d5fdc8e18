//! What the parts say to each other: frames, messages, version handshake. Must not know sockets.
//!
//! A frame is `length: u32 BE | kind: u16 BE | route: u64 BE | body`, where `length` counts what follows it. The kind stands
//! outside the body so that a peer skips kinds it doesn't know; the body is CBOR (minicbor, arrays by field number), in which
//! unknown trailing fields are skipped and missing optional ones are absent: agents outlive masters, so messages evolve by adding.
//! The route is a starter's key in frames between the master and a starter, which an event agent passes on unread, and 0 elsewhere.
//!
//! Three conversations use them: master and event agent ([`link`]), master and starter through the event agent ([`work`]), starter
//! and event agent ([`node`]); and a fourth between the master and the programs on its own machine ([`control`]).

#![forbid(unsafe_code)]

pub mod control;
pub mod dag;
pub mod frame;
pub mod link;
pub mod node;
pub mod work;

pub use frame::{Frame, FrameReader, Message, WireError};

/// Version of the protocol. A peer with another major number (the upper 16 bits) is refused; minor ones get along.
pub const PROTOCOL: u32 = 1 << 16;

/// May peers of these two versions talk?
pub fn compatible(ours: u32, theirs: u32) -> bool {
    ours >> 16 == theirs >> 16
}

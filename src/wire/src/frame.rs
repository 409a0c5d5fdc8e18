//! Framing, and the link between a message type and its kind.

use minicbor::{Decode, Encode};

/// Largest frame, counted after its length field. The largest body we send is a chunk of a file (256 KiB) or a batch of results
/// (bounded to 1 MiB by its maker); a peer that announces more is broken or hostile.
pub const MAX_FRAME: usize = 4 << 20;

/// Bytes of kind and route.
const HEAD: usize = 10;

/// Why bytes from a peer could not be read. None of them is worth going on with the connection.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum WireError {
    /// The announced length is below the head's or above [`MAX_FRAME`].
    #[error("frame of {0} bytes, allowed are {HEAD} to {MAX_FRAME}")]
    Length(usize),
    /// The body is no message of its kind.
    #[error("malformed message of kind {kind:#06x}: {why}")]
    Body {
        /// The frame's kind.
        kind: u16,
        /// What the decoder said.
        why: String,
    },
    /// The frame is none that may come here.
    #[error("unexpected message of kind {0:#06x}")]
    Unexpected(u16),
}

/// A message type; `KIND` tells it apart in the frame's head.
pub trait Message: Sized + Encode<()> + for<'b> Decode<'b, ()> {
    /// Unique over all conversations; never reused.
    const KIND: u16;
}

/// One frame, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Tells the message type.
    pub kind: u16,
    /// The starter it comes from or goes to, or 0.
    pub route: u64,
    /// The message, encoded.
    pub body: Vec<u8>,
}

impl Frame {
    /// A frame for `message`.
    pub fn new<M: Message>(route: u64, message: &M) -> Frame {
        let mut body = Vec::new();
        encode(message, &mut body);
        Frame { kind: M::KIND, route, body }
    }

    /// The message, if it is an `M`.
    ///
    /// # Errors
    /// [`WireError::Unexpected`] for another kind, [`WireError::Body`] for bytes that are no `M`.
    pub fn read<M: Message>(&self) -> Result<M, WireError> {
        if self.kind != M::KIND {
            return Err(WireError::Unexpected(self.kind));
        }
        minicbor::decode(&self.body).map_err(|e| WireError::Body { kind: self.kind, why: e.to_string() })
    }

    /// Appends the frame, as it travels.
    pub fn write(&self, out: &mut Vec<u8>) {
        head(out, HEAD + self.body.len(), self.kind, self.route);
        out.extend_from_slice(&self.body);
    }
}

/// Appends `message` as a frame: what [`Frame::new`] and [`Frame::write`] do, without the copy.
pub fn write_message<M: Message>(route: u64, message: &M, out: &mut Vec<u8>) {
    let start = out.len();
    head(out, 0, M::KIND, route);
    encode(message, out);
    let length = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

fn head(out: &mut Vec<u8>, length: usize, kind: u16, route: u64) {
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&route.to_be_bytes());
}

fn encode<M: Message>(message: &M, out: &mut Vec<u8>) {
    // Writing to a vector can't fail, and our messages' encoders have no failures of their own.
    let _: Result<(), minicbor::encode::Error<core::convert::Infallible>> = minicbor::encode(message, out);
}

/// Turns a stream of bytes into frames.
#[derive(Debug, Default)]
pub struct FrameReader {
    bytes: Vec<u8>,
    taken: usize,
}

impl FrameReader {
    /// A reader at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Where the next bytes of the stream are appended.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        if self.taken > 0 {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
        &mut self.bytes
    }

    /// The next whole frame, if it is there.
    ///
    /// # Errors
    /// [`WireError::Length`]; the stream can't be read on.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, WireError> {
        let rest = &self.bytes[self.taken..];
        let Some((length, rest)) = rest.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if !(HEAD..=MAX_FRAME).contains(&length) {
            return Err(WireError::Length(length));
        }
        if rest.len() < length {
            return Ok(None);
        }
        let (Some((kind, rest)), body) = (rest.split_first_chunk::<2>(), &rest[HEAD..length]) else {
            return Ok(None);
        };
        let Some((route, _)) = rest.split_first_chunk::<8>() else {
            return Ok(None);
        };
        let frame = Frame { kind: u16::from_be_bytes(*kind), route: u64::from_be_bytes(*route), body: body.to_vec() };
        self.taken += 4 + length;
        Ok(Some(frame))
    }
}

/// Gives message types their kinds.
macro_rules! kinds {
    ($($kind:literal => $name:ident),* $(,)?) => {
        $(impl $crate::frame::Message for $name { const KIND: u16 = $kind; })*
    };
}
pub(crate) use kinds;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{Ping, SetTarget};
    use crate::work::{Report, is_relayed};
    use minicbor::{Decode, Encode};

    #[derive(Debug, PartialEq, Encode, Decode)]
    struct Newer {
        #[n(0)]
        proxies: u32,
        #[n(1)]
        added: Option<String>,
    }

    impl Message for Newer {
        const KIND: u16 = SetTarget::KIND;
    }

    #[test]
    fn frames_arrive_however_the_stream_is_cut() {
        let mut bytes = Vec::new();
        write_message(7, &Ping { nonce: 1 }, &mut bytes);
        Frame::new(u64::MAX, &SetTarget { proxies: 3 }).write(&mut bytes);
        for size in 1..=bytes.len() {
            let mut reader = FrameReader::new();
            let mut frames = Vec::new();
            for piece in bytes.chunks(size) {
                reader.buffer().extend_from_slice(piece);
                while let Some(frame) = reader.next_frame().unwrap() {
                    frames.push(frame);
                }
            }
            assert_eq!(frames.len(), 2, "pieces of {size}");
            assert_eq!((frames[0].route, frames[0].read::<Ping>()), (7, Ok(Ping { nonce: 1 })));
            assert_eq!((frames[1].route, frames[1].read::<SetTarget>()), (u64::MAX, Ok(SetTarget { proxies: 3 })));
            assert!(reader.buffer().is_empty());
        }
    }

    #[test]
    fn messages_evolve_by_adding_fields() {
        let newer = Frame::new(0, &Newer { proxies: 4, added: Some("x".into()) });
        assert_eq!(newer.read(), Ok(SetTarget { proxies: 4 }), "an added field is skipped");
        let older = Frame::new(0, &SetTarget { proxies: 5 });
        assert_eq!(older.read(), Ok(Newer { proxies: 5, added: None }), "a missing one is absent");
    }

    #[test]
    fn what_is_no_frame_or_message_is_refused() {
        fn check(length: u32, expected: Result<Option<Frame>, WireError>) {
            let mut reader = FrameReader::new();
            reader.buffer().extend_from_slice(&length.to_be_bytes());
            assert_eq!(reader.next_frame(), expected, "{length}");
        }
        check(0, Err(WireError::Length(0)));
        check(9, Err(WireError::Length(9)));
        check(10, Ok(None));
        check(MAX_FRAME as u32, Ok(None));
        check(MAX_FRAME as u32 + 1, Err(WireError::Length(MAX_FRAME + 1)));
        check(u32::MAX, Err(WireError::Length(u32::MAX as usize)));
        let ping = Frame::new(0, &Ping { nonce: 1 });
        assert_eq!(ping.read::<SetTarget>(), Err(WireError::Unexpected(Ping::KIND)));
        for garbage in [&b""[..], b"\xff", b"\x9f", b"\x81\x1b", b"\xbf\xff"] {
            let frame = Frame { kind: Report::KIND, route: 0, body: garbage.to_vec() };
            assert!(matches!(frame.read::<Report>(), Err(WireError::Body { .. })), "{garbage:?}");
        }
    }

    #[test]
    fn random_bytes_never_panic() {
        // A linear congruential generator: bytes that no encoder would make.
        let mut state = 1u64;
        for _ in 0..20_000 {
            let mut body = Vec::new();
            for _ in 0..state % 64 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                body.push((state >> 33) as u8);
            }
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let frame = |kind| Frame { kind, route: 0, body: body.clone() };
            let _ = frame(Report::KIND).read::<Report>();
            let _ = frame(crate::link::Configure::KIND).read::<crate::link::Configure>();
            let _ = frame(crate::control::Submit::KIND).read::<crate::control::Submit>();
            let mut reader = FrameReader::new();
            reader.buffer().extend_from_slice(&body);
            while let Ok(Some(_)) = reader.next_frame() {}
        }
    }

    #[test]
    fn only_work_is_relayed() {
        assert!(is_relayed(Report::KIND));
        assert!(!is_relayed(SetTarget::KIND));
        assert!(!is_relayed(crate::node::End::KIND));
        assert!(!is_relayed(crate::control::Submit::KIND));
    }
}

//! The keys that detach a terminal, among all that are typed.

use std::time::{Duration, Instant};

/// How long keys are held that may begin the sequence: two keys are typed in it, and it is hardly felt where they were meant for a
/// program.
const HELD: Duration = Duration::from_millis(400);
/// Modifiers of a key as xterm's protocols number them: Ctrl, and Ctrl with Shift.
const CTRL: [&[u8]; 2] = [b"5", b"6"];

/// Looks for the sequence.
pub(crate) struct Keys {
    /// As a terminal sends them; none never match.
    sequence: Vec<u8>,
    /// Keys that may begin it, and the bytes that came for each.
    held: Vec<(u8, Vec<u8>)>,
    since: Instant,
}

/// What is typed, in two.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Typed {
    /// For the program.
    pub(crate) keys: Vec<u8>,
    /// The sequence came after them.
    pub(crate) detach: bool,
}

impl Keys {
    pub(crate) fn new(sequence: Vec<u8>) -> Keys {
        Keys { sequence, held: Vec::new(), since: Instant::now() }
    }

    /// Takes what was typed.
    pub(crate) fn typed(&mut self, bytes: &[u8], now: Instant) -> Typed {
        let mut keys = self.overdue(now);
        let mut rest = bytes;
        while let Some((&first, _)) = rest.split_first() {
            let (key, length) = control(rest).unwrap_or((first, 1));
            let (bytes, after) = rest.split_at(length);
            rest = after;
            self.held.push((key, bytes.to_vec()));
            self.since = now;
            while !self.held.iter().map(|(key, _)| key).eq(self.sequence.iter().take(self.held.len())) {
                keys.extend(self.held.remove(0).1);
            }
            if !self.held.is_empty() && self.held.len() == self.sequence.len() {
                self.held.clear();
                return Typed { keys, detach: true };
            }
        }
        Typed { keys, detach: false }
    }

    /// Keys that were held for long enough: they meant something else.
    pub(crate) fn overdue(&mut self, now: Instant) -> Vec<u8> {
        if self.deadline().is_some_and(|at| at <= now) {
            return self.held.drain(..).flat_map(|(_, bytes)| bytes).collect();
        }
        Vec::new()
    }

    /// When keys that are held are due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        (!self.held.is_empty()).then(|| self.since + HELD)
    }
}

/// A control key as programs may have a terminal send it (xterm's `modifyOtherKeys`, the kitty terminal's protocol): what it is in
/// plain terms, and its length.
fn control(bytes: &[u8]) -> Option<(u8, usize)> {
    const LONGEST: usize = 16;
    let body = bytes.strip_prefix(b"\x1b[")?;
    let end = body.iter().take(LONGEST).position(|byte| !matches!(byte, b'0'..=b'9' | b';'))?;
    let mut numbers = body.get(..end)?.split(|byte| *byte == b';');
    let (code, modifier) = match (body.get(end)?, numbers.next()?, numbers.next()?, numbers.next(), numbers.next()) {
        (b'~', b"27", modifier, Some(code), None) => (code, modifier),
        (b'u', code, modifier, None, None) => (code, modifier),
        _ => return None,
    };
    let code: u8 = std::str::from_utf8(code).ok()?.parse().ok()?;
    let key = match code {
        b' ' => 0,
        // Where they are on an American keyboard, which is how terminals have always understood them.
        b'2' => 0,
        b'6' => 0x1e,
        b'-' => 0x1f,
        b'@'..=b'_' | b'a'..=b'z' => code & 0x1f,
        _ => return None,
    };
    CTRL.contains(&modifier).then_some((key, 2 + end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds pieces at milliseconds, and the end of the wait; what reached the program, and whether it was detached.
    fn check(sequence: &[u8], pieces: &[(u64, &[u8])], expected: &[u8], detached: bool) {
        let start = Instant::now();
        let mut keys = Keys::new(sequence.to_vec());
        let mut seen = Vec::new();
        let mut detach = false;
        for (at, piece) in pieces {
            assert!(!detach, "nothing is read after it");
            let typed = keys.typed(piece, start + Duration::from_millis(*at));
            seen.extend(typed.keys);
            detach = typed.detach;
        }
        seen.extend(keys.overdue(start + Duration::from_secs(3600)));
        assert_eq!((seen.as_slice(), detach), (expected, detached), "{sequence:?} in {pieces:?}");
        assert_eq!(keys.deadline(), None, "nothing is held for ever");
    }

    #[test]
    fn the_sequence_detaches_and_nothing_else_is_taken() {
        let keys = b"\x1ed";
        check(keys, &[(0, b"\x1ed")], b"", true);
        check(keys, &[(0, b"ls\x1e"), (300, b"d")], b"ls", true);
        check(keys, &[(0, b"\x1e"), (399, b"d")], b"", true);
        // Too slow, or something else.
        check(keys, &[(0, b"\x1e"), (400, b"d")], b"\x1ed", false);
        check(keys, &[(0, b"\x1e"), (10, b"x"), (20, b"d")], b"\x1exd", false);
        check(keys, &[(0, b"\x1e")], b"\x1e", false);
        check(keys, &[(0, b"ddd\x1b[A")], b"ddd\x1b[A", false);
        // The first key again begins it again.
        check(keys, &[(0, b"\x1e\x1ed")], b"\x1e", true);
        check(b"\x01\x01d", &[(0, b"\x01\x01\x01d")], b"\x01", true);
        check(b"\x1c", &[(0, b"a\x1cb")], b"a", true);
        check(b"", &[(0, b"\x1ed\0")], b"\x1ed\0", false);
    }

    #[test]
    fn control_keys_are_known_in_every_protocol() {
        let keys = b"\x1ed";
        for first in ["\x1b[27;5;94~", "\x1b[27;6;94~", "\x1b[27;6;54~", "\x1b[94;5u", "\x1b[54;6u"] {
            check(keys, &[(0, first.as_bytes()), (200, b"d")], b"", true);
            check(keys, &[(0, first.as_bytes()), (200, b"x")], format!("{first}x").as_bytes(), false);
        }
        check(b"\x18\x04", &[(0, b"\x1b[120;5u\x1b[27;5;100~")], b"", true);
        check(b"\0\x11", &[(0, b"\x1b[32;5u\x11")], b"", true);
        // Not with Ctrl, not a key, not whole.
        for other in
            ["\x1b[27;2;94~", "\x1b[94u", "\x1b[1;5A", "\x1b[27;5;", "\x1b[", "\x1b", "\x1b[200~", "\x1b[27;5;94;1~"]
        {
            let typed = format!("{other}d");
            check(keys, &[(0, typed.as_bytes())], typed.as_bytes(), false);
        }
    }
}

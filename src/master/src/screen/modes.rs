//! What programs have switched on at a terminal, by what they print.

use std::collections::BTreeSet;
use std::fmt::Write;

/// Longest control sequence that is understood; longer ones are passed on unread.
const LONGEST: usize = 64;
/// Keyboard protocols that lie on top of each other; the kitty terminal keeps few, too.
const MOST_KEYBOARDS: usize = 8;
/// Most repetitions of a character by one sequence: no line is longer.
const MOST_REPEATED: u16 = super::LARGEST;

const BELL: u8 = 0x07;
const SHIFT_OUT: u8 = 0x0e;
const SHIFT_IN: u8 = 0x0f;
const CANCEL: u8 = 0x18;
const SUBSTITUTE: u8 = 0x1a;
const ESCAPE: u8 = 0x1b;

/// A private mode of DEC's or xterm's.
struct Private {
    number: u16,
    /// In a new terminal.
    on: bool,
    /// Does `vt100` have it?
    modelled: bool,
}

const fn private(number: u16, on: bool, modelled: bool) -> Private {
    Private { number, on, modelled }
}

/// Cursor keys, reverse video, origin, wrapping, the cursor's blinking and itself, mice (9, 1000 to 1016 but for 1004, focus),
/// alternate screens, bracketed paste, synchronized drawing, sizes told in band.
const PRIVATE: [Private; 20] = [
    private(1, false, true),
    private(5, false, false),
    private(6, false, true),
    private(7, true, false),
    private(9, false, true),
    private(12, false, false),
    private(25, true, true),
    private(1000, false, true),
    private(1002, false, true),
    private(1003, false, true),
    private(1004, false, false),
    private(1005, false, true),
    private(1006, false, true),
    private(1015, false, false),
    private(1016, false, false),
    private(47, false, true),
    private(1049, false, true),
    private(2004, false, true),
    private(SYNCHRONIZED, false, false),
    private(2048, false, false),
];
/// Of these, the last one set counts. 1047 is taken for 47.
const ALTERNATE: [u16; 2] = [47, 1049];
const SYNCHRONIZED: u16 = 2026;

/// DEC's line drawing characters, in place of `_` and what follows it.
const GRAPHICS: [char; 32] = [
    ' ', '◆', '▒', '␉', '␌', '␍', '␊', '°', '±', '␤', '␋', '┘', '┐', '┌', '└', '┼', '⎺', '⎻', '─', '⎼', '⎽', '├', '┤',
    '┴', '┬', '│', '≤', '≥', 'π', '≠', '£', '·',
];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// In an escape or control sequence.
    Sequence,
    /// In a title or the like.
    Words,
    /// In a control sequence that is too long.
    Long,
}

/// The modes that a terminal is in.
#[derive(Clone, Debug, Default)]
pub struct Modes {
    state: State,
    /// What has begun and not ended: a sequence, the lead of a title, a character.
    pub(super) begun: Vec<u8>,
    /// Private modes that are not as in a new terminal.
    private: BTreeSet<u16>,
    keypad: bool,
    /// Top and bottom of the part that scrolls.
    margins: Option<(u16, u16)>,
    /// The same of the screen that is not shown: in `vt100` each has its own, where a terminal has one pair.
    hidden_margins: Option<(u16, u16)>,
    /// xterm's `modifyOtherKeys`.
    other_keys: u16,
    /// The kitty terminal's keyboard protocols.
    keyboards: Vec<u16>,
    cursor_style: bool,
    /// Do G0 and G1 hold line drawing characters?
    graphics: [bool; 2],
    /// Is it G1's turn?
    shifted: bool,
}

impl Modes {
    /// Takes what a program printed.
    pub fn follow(&mut self, bytes: &[u8]) {
        self.translate(bytes, &mut |_| {});
    }

    /// Takes what a program printed, and gives the same to `sink` in `vt100`'s terms.
    pub(super) fn translate(&mut self, bytes: &[u8], sink: &mut impl FnMut(&[u8])) {
        let mut text = if self.state == State::Text { std::mem::take(&mut self.begun) } else { Vec::new() };
        let mut rest = bytes;
        loop {
            let end = rest.iter().position(|byte| self.is_special(*byte)).unwrap_or(rest.len());
            let (plain, more) = rest.split_at(end);
            if !plain.is_empty() {
                sink(plain);
            }
            let Some((byte, after)) = more.split_first() else {
                break;
            };
            self.special(*byte, sink);
            rest = after;
        }
        if self.state == State::Text {
            text.extend_from_slice(bytes.get(bytes.len().saturating_sub(3)..).unwrap_or_default());
            self.begun = text.split_off(text.len() - unfinished(&text));
        }
    }

    fn is_special(&self, byte: u8) -> bool {
        match self.state {
            State::Text => {
                matches!(byte, ESCAPE | SHIFT_OUT | SHIFT_IN) || (self.draws() && matches!(byte, b'_'..=b'~'))
            }
            State::Sequence => true,
            State::Words => matches!(byte, BELL | CANCEL | SUBSTITUTE | ESCAPE),
            State::Long => matches!(byte, CANCEL | SUBSTITUTE | ESCAPE | b'@'..=b'~'),
        }
    }

    fn draws(&self) -> bool {
        self.graphics[usize::from(self.shifted)]
    }

    fn special(&mut self, byte: u8, sink: &mut impl FnMut(&[u8])) {
        match (self.state, byte) {
            (_, ESCAPE) => {
                // It cancels what it interrupts.
                self.begun = vec![byte];
                self.state = State::Sequence;
            }
            (State::Text, SHIFT_OUT | SHIFT_IN) => self.shifted = byte == SHIFT_OUT,
            (State::Text, _) => {
                let drawn = GRAPHICS.get(usize::from(byte.saturating_sub(b'_'))).copied().unwrap_or(' ');
                sink(drawn.encode_utf8(&mut [0; 4]).as_bytes());
            }
            (State::Words | State::Long, _) => {
                sink(&[byte]);
                self.state = State::Text;
            }
            (State::Sequence, CANCEL | SUBSTITUTE) => self.state = State::Text,
            // Obeyed at once.
            (State::Sequence, 0..0x20) => sink(&[byte]),
            (State::Sequence, _) => {
                self.begun.push(byte);
                self.state = self.sequence(sink);
            }
        }
    }

    /// Another byte of a sequence.
    fn sequence(&mut self, sink: &mut impl FnMut(&[u8])) -> State {
        match *self.begun.as_slice() {
            [_, b'['] => State::Sequence,
            [_, b']' | b'P' | b'X' | b'^' | b'_'] => {
                sink(&self.begun);
                State::Words
            }
            [_, b'[', .., b'@'..=b'~'] => {
                let begun = std::mem::take(&mut self.begun);
                let told = self.control(&begun);
                sink(told.as_deref().unwrap_or(&begun));
                State::Text
            }
            [_, .., b' '..=b'?'] if self.begun.len() > LONGEST => {
                sink(&self.begun);
                State::Long
            }
            [_, b'[', ..] | [_, .., b' '..=b'/'] => State::Sequence,
            _ => {
                match self.begun.as_slice() {
                    [_, b'('] | [_, b')'] => {}
                    [_, b'(', set] => self.graphics[0] = *set == b'0',
                    [_, b')', set] => self.graphics[1] = *set == b'0',
                    [_, b'='] => self.keypad = true,
                    [_, b'>'] => self.keypad = false,
                    [_, b'c'] => *self = Modes { begun: std::mem::take(&mut self.begun), ..Modes::default() },
                    _ => {}
                }
                sink(&self.begun);
                State::Text
            }
        }
    }

    /// A whole control sequence; what to tell `vt100` instead, if it takes it otherwise than terminals do.
    fn control(&mut self, sequence: &[u8]) -> Option<Vec<u8>> {
        let body = sequence.get(2..)?;
        let (lead, body) = match body.split_first() {
            Some((lead @ b'<'..=b'?', body)) => (*lead, body),
            _ => (b' ', body),
        };
        let end = body.iter().position(|byte| !matches!(byte, b'0'..=b';'))?;
        let (numbers, kind) = body.split_at_checked(end)?;
        let numbers: Vec<u16> = numbers
            .split(|byte| *byte == b';')
            .map(|number| std::str::from_utf8(number).ok().and_then(|text| text.parse().ok()).unwrap_or(0))
            .collect();
        let first = numbers.first().copied().unwrap_or(0);
        let second = numbers.get(1).copied().unwrap_or(0);
        match (lead, kind) {
            (b'?', b"h" | b"l") => {
                let alternate = self.is_alternate();
                numbers.iter().for_each(|number| self.set(*number, kind == b"h"));
                // The margins of the screen that `vt100` shows now.
                let found = match (self.is_alternate(), numbers.contains(&1049)) {
                    (true, true) if kind == b"h" => None,
                    (now, _) if now != alternate => self.hidden_margins,
                    _ => self.margins,
                };
                if self.is_alternate() != alternate {
                    self.hidden_margins = self.margins;
                }
                let mut told = String::from_utf8_lossy(sequence).replace("1047", "47");
                if found != self.margins {
                    told += "\x1b7\x1b[r";
                    self.write_margins(&mut told);
                    told += "\x1b8";
                }
                return Some(told.into_bytes());
            }
            (b' ', b"r") => self.margins = (first > 1 || second > 0).then_some((first, second)),
            (b' ', b" q") => self.cursor_style = first > 0,
            (b' ', b"b") if first > MOST_REPEATED => return Some(Vec::new()),
            (b' ', b"!p") => {
                let private = self.private.iter().filter(|mode| !matches!(mode, 1 | 6 | 7 | 25));
                self.private = private.copied().collect();
                (self.keypad, self.margins, self.graphics, self.shifted) = (false, None, [false; 2], false);
                return Some(b"\x1b7\x1b[r\x1b8\x1b[?1l\x1b[?6l\x1b[?25h\x1b>\x1b[m".to_vec());
            }
            (b'>', b"m") if first == 4 => self.other_keys = second,
            (b'>', b"u") if self.keyboards.len() < MOST_KEYBOARDS => self.keyboards.push(first),
            (b'<', b"u") => {
                self.keyboards.truncate(self.keyboards.len().saturating_sub(usize::from(first.max(1))));
            }
            _ => {}
        }
        None
    }

    fn is_alternate(&self) -> bool {
        ALTERNATE.iter().any(|number| self.private.contains(number))
    }

    fn set(&mut self, number: u16, on: bool) {
        let number = if number == 1047 { 47 } else { number };
        if ALTERNATE.contains(&number) {
            self.private.retain(|mode| !ALTERNATE.contains(mode));
        }
        let Some(mode) = PRIVATE.iter().find(|mode| mode.number == number) else {
            return;
        };
        if on == mode.on {
            self.private.remove(&number);
        } else {
            self.private.insert(number);
        }
    }

    /// The window has another size.
    pub(super) fn resized(&mut self) {
        (self.margins, self.hidden_margins) = (None, None);
    }

    /// What brings a terminal that is in these modes into those of a new one, with the primary screen and its cursor.
    pub fn undo(&self) -> Vec<u8> {
        let mut out = String::new();
        // Whatever was cut short.
        if self.state != State::Text {
            out += "\x18\x1b\\";
        }
        if !self.keyboards.is_empty() {
            // Each screen has its own.
            out += &format!("\x1b[<{}u", self.keyboards.len());
        }
        self.write_private(&mut out, |mode| (!ALTERNATE.contains(&mode.number)).then_some(mode.on));
        self.write_private(&mut out, |mode| ALTERNATE.contains(&mode.number).then_some(false));
        let others = [
            (self.margins.is_some(), "\x1b7\x1b[r\x1b8"),
            (self.keypad, "\x1b>"),
            (self.other_keys > 0, "\x1b[>4m"),
            (self.cursor_style, "\x1b[0 q"),
            (self.graphics[0], "\x1b(B"),
            (self.graphics[1], "\x1b)B"),
            (self.shifted, "\x0f"),
        ];
        others.iter().filter(|(on, _)| *on).for_each(|(_, undo)| out += undo);
        out += "\x1b[m";
        out.into_bytes()
    }

    /// Sets what `vt100` doesn't know of in a new terminal.
    pub(super) fn write_unmodelled(&self, out: &mut String) {
        self.write_private(out, |mode| (!mode.modelled && mode.number != SYNCHRONIZED).then_some(!mode.on));
        if self.other_keys > 0 {
            *out += &format!("\x1b[>4;{}m", self.other_keys);
        }
        self.keyboards.iter().for_each(|flags| *out += &format!("\x1b[>{flags}u"));
    }

    /// The part that scrolls, if it isn't all.
    pub(super) fn write_margins(&self, out: &mut String) -> bool {
        match self.margins {
            Some((top, 0)) => *out += &format!("\x1b[{top}r"),
            Some((top, bottom)) => *out += &format!("\x1b[{top};{bottom}r"),
            None => return false,
        }
        true
    }

    /// Lets a terminal in these modes be drawn on.
    pub(super) fn write_pause(&self, out: &mut String) {
        if self.state != State::Text {
            *out += "\x18\x1b\\";
        }
        *out += "\x1b(B\x0f\x1b[r";
    }

    /// What turns line drawing on, and what has begun: last, since all that is printed after it is changed by it.
    pub(super) fn write_last(&self, out: &mut Vec<u8>) {
        let sets = [(self.graphics[0], &b"\x1b(0"[..]), (self.graphics[1], b"\x1b)0"), (self.shifted, b"\x0e")];
        sets.iter().filter(|(on, _)| *on).for_each(|(_, text)| out.extend_from_slice(text));
        out.extend_from_slice(&self.begun);
    }

    fn write_private(&self, out: &mut String, to: impl Fn(&Private) -> Option<bool>) {
        for mode in PRIVATE.iter().filter(|mode| self.private.contains(&mode.number)) {
            if let Some(on) = to(mode) {
                // Writing to a String doesn't fail.
                let _ = write!(out, "\x1b[?{}{}", mode.number, if on { 'h' } else { 'l' });
            }
        }
    }
}

/// Bytes at the end of `text` that begin a character and don't end it.
fn unfinished(text: &[u8]) -> usize {
    for (back, byte) in text.iter().rev().take(3).enumerate() {
        let whole = match byte {
            0x80..0xc0 => continue,
            0xc0..0xe0 => 2,
            0xe0..0xf0 => 3,
            0xf0..0xf8 => 4,
            _ => 0,
        };
        return if whole > back + 1 { back + 1 } else { 0 };
    }
    0
}

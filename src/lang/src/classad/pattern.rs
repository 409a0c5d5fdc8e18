//! Regular expressions as PCRE2 reads them, over bytes.
//!
//! They run on fancy-regex, which is safe Rust: what needs no backtracking runs in linear time, and the rest (look-around, back-references, possessive quantifiers) has a
//! bound on its steps. Patterns are translated, since PCRE2 differs in what it refuses, in `$`, `\h`, `\R`, `\Q…\E`, octal escapes and brackets within brackets. What is
//! left out are recursion, callouts, verbs, branch reset, conditions and Unicode properties: such patterns are errors, as those that PCRE2 refuses.

use fancy_regex::{BytesMode, Regex, RegexBuilder, RegexInput};

/// Longest pattern in bytes, and most steps back within a search.
const MAX_PATTERN: usize = 64 << 10;
const MAX_STEPS: usize = 200_000;
/// Most bytes of a compiled pattern, as that of `(a{99}){99}` grows.
const MAX_SIZE: usize = 1 << 20;

/// A compiled pattern.
#[derive(Debug)]
pub(super) struct Pattern {
    regex: Regex,
    text: String,
}

/// How a pattern is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) caseless: bool,
    pub(super) multiline: bool,
    pub(super) dotall: bool,
    pub(super) extended: bool,
}

impl Options {
    /// Of letters, of which those that mean nothing are passed over.
    pub(super) fn of(letters: &[u8]) -> Self {
        let has = |letter: u8| letters.contains(&letter);
        Options { caseless: has(b'i'), multiline: has(b'm'), dotall: has(b's'), extended: has(b'x') }
    }
}

/// The search failed: too many steps back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooHard;

/// The places of a match and its groups; a group that took no part has none.
pub(super) type Groups = Vec<Option<(usize, usize)>>;

impl Pattern {
    /// Compiles a pattern for subjects that end in a newline, before which `$` matches too, or for all others.
    pub(super) fn new(pattern: &[u8], options: Options, newline: bool) -> Option<Self> {
        if pattern.len() > MAX_PATTERN {
            return None;
        }
        let text = Translator::new(pattern, options, newline).run()?;
        let regex = build(&text, false)?;
        Some(Pattern { regex, text })
    }

    /// Whether the pattern matches anywhere.
    pub(super) fn matches(&self, subject: &[u8]) -> Result<bool, TooHard> {
        self.regex.is_match(subject).map_err(|_| TooHard)
    }

    /// Whether the pattern matches anything that isn't empty.
    pub(super) fn find_filled(&self, subject: &[u8]) -> Result<bool, TooHard> {
        match build(&self.text, true) {
            Some(regex) => regex.is_match(subject).map_err(|_| TooHard),
            // The pattern itself was compiled, so it can match nothing but what is empty.
            None => Ok(false),
        }
    }

    /// The first match from `start` on; with `filled`, one that begins there and isn't empty.
    pub(super) fn find(&self, subject: &[u8], start: usize, filled: bool) -> Result<Option<Groups>, TooHard> {
        let input = RegexInput::new(subject).from_pos(start);
        let found = if filled {
            let Some(regex) = build(&self.text, true) else {
                return Ok(None);
            };
            regex.captures_input(input.anchored(true)).map(|found| found.map(|captures| groups(&captures)))
        } else {
            self.regex.captures_input(input).map(|found| found.map(|captures| groups(&captures)))
        };
        found.map_err(|_| TooHard)
    }
}

fn groups(captures: &fancy_regex::Captures<'_, [u8]>) -> Groups {
    captures.iter().map(|group| group.map(|group| (group.start(), group.end()))).collect()
}

fn build(text: &str, filled: bool) -> Option<Regex> {
    RegexBuilder::new(text)
        .bytes_mode(BytesMode::Ascii)
        .unicode_mode(false)
        .find_not_empty(filled)
        .backtrack_limit(MAX_STEPS)
        .delegate_size_limit(MAX_SIZE)
        .build()
        .ok()
}

/// What an escape stands for.
enum Escape {
    Byte(u8),
    /// A class, as it stands within brackets.
    Class(&'static str),
    /// Something that is no character.
    Other(String, bool),
    Quote,
    Nothing,
}

/// One pattern, from PCRE2's syntax to fancy-regex's.
struct Translator<'p> {
    pattern: &'p [u8],
    at: usize,
    out: String,
    options: Options,
    newline: bool,
    /// Options outside the groups that are open.
    outside: Vec<Options>,
    /// Where what a quantifier may follow begins in `out`; nothing where none may follow.
    atom: Option<usize>,
    /// Where the groups that are open begin in `out`.
    opened: Vec<usize>,
    /// Groups that capture, so far.
    captures: usize,
}

impl<'p> Translator<'p> {
    fn new(pattern: &'p [u8], options: Options, newline: bool) -> Self {
        let letters: String = [(options.caseless, 'i'), (options.multiline, 'm'), (options.dotall, 's')]
            .iter()
            .filter(|(on, _)| *on)
            .map(|(_, letter)| *letter)
            .collect();
        let out = if letters.is_empty() { String::new() } else { format!("(?{letters})") };
        Translator {
            pattern,
            at: 0,
            out,
            options,
            newline,
            outside: Vec::new(),
            atom: None,
            opened: Vec::new(),
            captures: 0,
        }
    }

    fn rest(&self) -> &'p [u8] {
        self.pattern.get(self.at..).unwrap_or_default()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.pattern.get(self.at).copied();
        self.at += usize::from(byte.is_some());
        byte
    }

    fn take(&mut self, text: &[u8]) -> bool {
        let found = self.rest().starts_with(text);
        self.at += if found { text.len() } else { 0 };
        found
    }

    /// Takes bytes up to `end`, and it.
    fn take_until(&mut self, end: &[u8]) -> Option<&'p [u8]> {
        let rest = self.rest();
        let length = rest.windows(end.len()).position(|window| window == end)?;
        self.at += length + end.len();
        rest.get(..length)
    }

    fn run(mut self) -> Option<String> {
        while let Some(byte) = self.next() {
            match byte {
                b' ' | b'\t'..=b'\r' if self.options.extended => {}
                b'#' if self.options.extended => while self.next().is_some_and(|byte| byte != b'\n') {},
                b'\\' => self.escape()?,
                b'[' => {
                    let start = self.out.len();
                    self.class()?;
                    self.atom = Some(start);
                }
                b'(' => self.group()?,
                b')' => {
                    self.atom = Some(self.opened.pop()?);
                    self.options = self.outside.pop()?;
                    self.out.push(')');
                }
                b'|' => {
                    self.out.push('|');
                    self.atom = None;
                }
                b'^' => self.assertion("^"),
                b'$' if self.options.multiline || !self.newline => self.assertion("$"),
                b'$' => self.assertion(r"(?=\n?\z)"),
                b'.' => {
                    self.atom = Some(self.out.len());
                    self.out.push('.');
                }
                b'*' | b'+' | b'?' => self.quantifier(&char::from(byte).to_string())?,
                b'{' => match self.counts() {
                    Some((text, length)) => {
                        self.at += length;
                        self.quantifier(&text?)?;
                    }
                    None => self.literal(b'{'),
                },
                byte => self.literal(byte),
            }
        }
        self.opened.is_empty().then_some(self.out)
    }

    fn literal(&mut self, byte: u8) {
        self.atom = Some(self.out.len());
        push_byte(&mut self.out, byte);
    }

    fn assertion(&mut self, text: &str) {
        self.out.push_str(text);
        self.atom = None;
    }

    /// Whether `{` begins counts: their text (nothing, if they are refused), and the bytes that they take.
    fn counts(&self) -> Option<(Option<String>, usize)> {
        const MOST: u32 = 65_535;
        let rest = self.rest();
        let length = rest.iter().position(|byte| *byte == b'}')?;
        let inner = std::str::from_utf8(rest.get(..length)?).ok()?;
        let number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let value = |digits: &str| digits.parse::<u32>().ok().filter(|count| *count <= MOST);
        let (least, most) = inner.split_once(',').map_or((inner, None), |(least, most)| (least, Some(most)));
        if !number(least) || most.is_some_and(|most| !most.is_empty() && !number(most)) {
            return None;
        }
        let valid = match (value(least), most) {
            (Some(_), None | Some("")) => true,
            (Some(least), Some(most)) => value(most).is_some_and(|most| least <= most),
            (None, _) => false,
        };
        Some((valid.then(|| format!("{{{inner}}}")), length + 1))
    }

    fn quantifier(&mut self, text: &str) -> Option<()> {
        let start = self.atom.take()?;
        let atom = self.out.get(start..).unwrap_or_default();
        if ["(?=", "(?!", "(?<=", "(?<!"].iter().any(|look| atom.starts_with(look)) {
            // To look around more than once is to look once.
            if matches!(text.as_bytes(), [b'*' | b'?', ..] | [b'{', b'0', b',' | b'}', ..]) {
                self.out.insert_str(start, "(?:");
                self.out.push_str("|)");
            }
            let _ = self.take(b"?") || self.take(b"+");
            return Some(());
        }
        if self.take(b"?") {
            self.out.push_str(text);
            self.out.push('?');
        } else if self.take(b"+") {
            self.out.insert_str(start, "(?>");
            self.out.push_str(text);
            self.out.push(')');
        } else {
            self.out.push_str(text);
        }
        Some(())
    }

    fn group(&mut self) -> Option<()> {
        let start = self.out.len();
        let (mut open, outside) = (String::from("("), self.options);
        if self.rest().first() == Some(&b'*') {
            return None;
        }
        if self.take(b"?#") {
            return self.take_until(b")").map(drop);
        }
        if self.take(b"?") {
            let named = |pattern: &mut Self, end: &[u8]| {
                let name = std::str::from_utf8(pattern.take_until(end)?).ok()?;
                let valid = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                    && name.len() <= 32
                    && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
                pattern.captures += 1;
                valid.then(|| format!("(?<{name}>"))
            };
            if let Some(kind) =
                [&b":"[..], b"=", b"!", b">", b"<=", b"<!"].into_iter().find(|kind| self.rest().starts_with(kind))
            {
                self.at += kind.len();
                open = format!("(?{}", std::str::from_utf8(kind).ok()?);
            } else if self.take(b"P=") {
                let name = std::str::from_utf8(self.take_until(b")")?).ok()?;
                self.atom = Some(start);
                self.out.push_str(&format!(r"(?:\k<{name}>)"));
                return Some(());
            } else if self.take(b"P<") || self.take(b"<") {
                open = named(self, b">")?;
            } else if self.take(b"'") {
                open = named(self, b"'")?;
            } else {
                return self.flags(outside);
            }
        } else {
            self.captures += 1;
        }
        self.outside.push(outside);
        self.opened.push(start);
        self.out.push_str(&open);
        self.atom = None;
        Some(())
    }

    /// `(?i)` or `(?i:`, from the letters on.
    fn flags(&mut self, outside: Options) -> Option<()> {
        let (start, mut on, mut set, mut unset) = (self.out.len(), true, String::new(), String::new());
        loop {
            let letter = self.next()?;
            let option = match letter {
                b'-' if on => {
                    on = false;
                    continue;
                }
                b'i' => &mut self.options.caseless,
                b'm' => &mut self.options.multiline,
                b's' => &mut self.options.dotall,
                b'x' => &mut self.options.extended,
                b')' | b':' => {
                    let minus = if unset.is_empty() { "" } else { "-" };
                    if letter == b':' {
                        self.outside.push(outside);
                        self.opened.push(start);
                        self.out.push_str(&format!("(?{set}{minus}{unset}:"));
                    } else if !(set.is_empty() && unset.is_empty()) {
                        self.out.push_str(&format!("(?{set}{minus}{unset})"));
                    }
                    self.atom = None;
                    return Some(());
                }
                _ => return None,
            };
            *option = on;
            if letter != b'x' {
                (if on { &mut set } else { &mut unset }).push(char::from(letter));
            }
        }
    }

    fn escape(&mut self) -> Option<()> {
        let start = self.out.len();
        match self.escaped(false)? {
            Escape::Byte(byte) => self.literal(byte),
            Escape::Class(class) => {
                self.out.push_str(&format!("[{class}]"));
                self.atom = Some(start);
            }
            Escape::Other(text, repeats) => {
                self.out.push_str(&text);
                self.atom = repeats.then_some(start);
            }
            Escape::Quote => {
                for byte in self.quoted() {
                    self.literal(*byte);
                }
            }
            Escape::Nothing => {}
        }
        Some(())
    }

    /// What stands between `\Q` and `\E`.
    fn quoted(&mut self) -> &'p [u8] {
        let rest = self.rest();
        self.take_until(b"\\E").unwrap_or_else(|| {
            self.at = self.pattern.len();
            rest
        })
    }

    /// What follows a backslash.
    fn escaped(&mut self, in_class: bool) -> Option<Escape> {
        const BLANKS: &str = r"\x09\x20\xa0";
        const NOT_BLANKS: &str = r"\x00-\x08\x0a-\x1f\x21-\x9f\xa1-\xff";
        const BREAKS: &str = r"\x0a-\x0d\x85";
        const NOT_BREAKS: &str = r"\x00-\x09\x0e-\x84\x86-\xff";
        let other = |text: &str, repeats: bool| (!in_class).then(|| Escape::Other(text.to_owned(), repeats));
        let byte = self.next()?;
        Some(match byte {
            b'd' => Escape::Class(r"\d"),
            b'D' => Escape::Class(r"\D"),
            b'w' => Escape::Class(r"\w"),
            b'W' => Escape::Class(r"\W"),
            b's' => Escape::Class(r"\s"),
            b'S' => Escape::Class(r"\S"),
            b'h' => Escape::Class(BLANKS),
            b'H' => Escape::Class(NOT_BLANKS),
            b'v' => Escape::Class(BREAKS),
            b'V' => Escape::Class(NOT_BREAKS),
            b'b' if in_class => Escape::Byte(8),
            b'b' => other(r"\b", false)?,
            b'B' => other(r"\B", false)?,
            b'A' => other(r"\A", false)?,
            b'z' => other(r"\z", false)?,
            b'Z' if self.newline => other(r"(?=\n?\z)", false)?,
            b'Z' => other(r"\z", false)?,
            b'G' => other(r"\G", false)?,
            b'K' => other(r"\K", false)?,
            b'R' => other(r"(?:\r\n|[\x0a-\x0d\x85])", true)?,
            b'N' => other(r"[^\n]", true)?,
            b'Q' => Escape::Quote,
            b'E' => Escape::Nothing,
            b'a' => Escape::Byte(7),
            b'e' => Escape::Byte(27),
            b'f' => Escape::Byte(12),
            b'n' => Escape::Byte(10),
            b'r' => Escape::Byte(13),
            b't' => Escape::Byte(9),
            b'c' => Escape::Byte(self.next().filter(|byte| matches!(byte, b' '..=b'~'))?.to_ascii_uppercase() ^ 0x40),
            b'x' => Escape::Byte(self.hexadecimal()?),
            b'o' => {
                let digits = if self.take(b"{") { self.take_until(b"}")? } else { return None };
                Escape::Byte(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()?)
            }
            b'0' => Escape::Byte(self.octal(0, 2)),
            b'1'..=b'9' => self.number(byte, in_class)?,
            b'g' if !in_class => {
                let text = if self.take(b"{") { self.take_until(b"}")? } else { self.digits() };
                let text = std::str::from_utf8(text).ok()?;
                let group = match text.strip_prefix('-') {
                    Some(back) => {
                        (self.captures + 1).checked_sub(back.parse::<usize>().ok()?).filter(|group| *group > 0)?
                    }
                    None => text.parse::<usize>().ok()?,
                };
                Escape::Other(format!(r"(?:\{group})"), true)
            }
            b'k' if !in_class => {
                let end: &[u8] = match self.next()? {
                    b'<' => b">",
                    b'{' => b"}",
                    b'\'' => b"'",
                    _ => return None,
                };
                let name = std::str::from_utf8(self.take_until(end)?).ok()?;
                Escape::Other(format!(r"(?:\k<{name}>)"), true)
            }
            letter if letter.is_ascii_alphabetic() => return None,
            byte => Escape::Byte(byte),
        })
    }

    fn digits(&mut self) -> &'p [u8] {
        let rest = self.rest();
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        rest.get(..count).unwrap_or_default()
    }

    /// `\1` and the like: a group if there may be one, else an octal number.
    fn number(&mut self, first: u8, in_class: bool) -> Option<Escape> {
        let start = self.at;
        let mut number = usize::from(first - b'0');
        for digit in self.digits() {
            number = number.saturating_mul(10).saturating_add(usize::from(digit - b'0'));
        }
        if !in_class && (number < 10 || first >= b'8' || number <= self.captures) {
            return Some(Escape::Other(format!(r"(?:\{number})"), true));
        }
        self.at = start;
        Some(match first {
            b'8' | b'9' => Escape::Byte(first),
            _ => Escape::Byte(self.octal(u32::from(first - b'0'), 2)),
        })
    }

    fn octal(&mut self, mut number: u32, most: usize) -> u8 {
        for _ in 0..most {
            match self.rest().first() {
                Some(digit @ b'0'..=b'7') => number = number * 8 + u32::from(digit - b'0'),
                _ => break,
            }
            self.at += 1;
        }
        (number & 0xff) as u8
    }

    fn hexadecimal(&mut self) -> Option<u8> {
        if self.take(b"{") {
            let digits = self.take_until(b"}")?;
            return u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
        }
        let mut number = 0;
        for _ in 0..2 {
            match self.rest().first().and_then(|byte| char::from(*byte).to_digit(16)) {
                Some(digit) => number = number * 16 + digit,
                None => break,
            }
            self.at += 1;
        }
        u8::try_from(number).ok()
    }

    /// A class, after its `[`.
    fn class(&mut self) -> Option<()> {
        self.out.push('[');
        if self.take(b"^") {
            self.out.push('^');
        }
        let (mut first, mut quoted) = (true, &b""[..]);
        // The byte that a range may begin with, or whether a class stands there.
        let mut before: Option<Result<u8, ()>> = None;
        loop {
            let byte = if let Some((byte, rest)) = quoted.split_first() {
                quoted = rest;
                Ok(*byte)
            } else {
                match self.next()? {
                    b']' if !first => break,
                    b'[' if matches!(self.rest().first(), Some(b':' | b'.' | b'=')) && self.posix().is_some() => {
                        if self.rest().first() != Some(&b':') {
                            return None;
                        }
                        let (name, length) = self.posix()?;
                        self.out.push_str(name?);
                        self.at += length;
                        Err(())
                    }
                    b'-' if !first && before.is_some() && self.rest().first() != Some(&b']') => {
                        let end = self.class_end()?;
                        match (before.take()?, end) {
                            (Ok(start), Ok(end)) if start <= end => {
                                self.out.push('-');
                                push_escaped(&mut self.out, end);
                            }
                            _ => return None,
                        }
                        continue;
                    }
                    b'\\' => match self.escaped(true)? {
                        Escape::Byte(byte) => Ok(byte),
                        Escape::Class(class) => {
                            self.out.push_str(class);
                            Err(())
                        }
                        Escape::Quote => {
                            quoted = self.quoted();
                            continue;
                        }
                        Escape::Nothing => continue,
                        Escape::Other(..) => return None,
                    },
                    byte => Ok(byte),
                }
            };
            first = false;
            if let Ok(byte) = byte {
                push_escaped(&mut self.out, byte);
            }
            before = Some(byte);
        }
        self.out.push(']');
        Some(())
    }

    /// The end of a range.
    fn class_end(&mut self) -> Option<Result<u8, ()>> {
        Some(match self.next()? {
            b'\\' => match self.escaped(true)? {
                Escape::Byte(byte) => Ok(byte),
                _ => Err(()),
            },
            b'[' if self.posix().is_some() => Err(()),
            byte => Ok(byte),
        })
    }

    /// `:name:]` after a `[` within a class: what it becomes (nothing, if there is no such class), and the bytes that it takes.
    fn posix(&self) -> Option<(Option<&'static str>, usize)> {
        const NAMES: [&str; 28] = [
            "[:alpha:]",
            "[:lower:]",
            "[:upper:]",
            "[:alnum:]",
            "[:ascii:]",
            "[:blank:]",
            "[:cntrl:]",
            "[:digit:]",
            "[:graph:]",
            "[:print:]",
            "[:punct:]",
            "[:space:]",
            "[:word:]",
            "[:xdigit:]",
            "[:^alpha:]",
            "[:^lower:]",
            "[:^upper:]",
            "[:^alnum:]",
            "[:^ascii:]",
            "[:^blank:]",
            "[:^cntrl:]",
            "[:^digit:]",
            "[:^graph:]",
            "[:^print:]",
            "[:^punct:]",
            "[:^space:]",
            "[:^word:]",
            "[:^xdigit:]",
        ];
        let rest = self.rest();
        let (mark, inner) = rest.split_first()?;
        let length = inner.iter().position(|byte| !byte.is_ascii_alphabetic() && *byte != b'^')?;
        if inner.get(length) != Some(mark) || inner.get(length + 1) != Some(&b']') {
            return None;
        }
        let taken = rest.get(..length + 3)?;
        let known = NAMES.iter().find(|name| name.as_bytes().get(1..) == Some(taken));
        Some((known.copied(), length + 3))
    }
}

fn push_byte(out: &mut String, byte: u8) {
    if byte.is_ascii_alphanumeric() { out.push(char::from(byte)) } else { push_escaped(out, byte) }
}

fn push_escaped(out: &mut String, byte: u8) {
    out.push_str(&format!(r"\x{byte:02x}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, subject: &str, expected: Option<bool>) {
        let found = Pattern::new(pattern.as_bytes(), Options::default(), subject.ends_with('\n'))
            .map(|p| p.matches(subject.as_bytes()).unwrap());
        assert_eq!(found, expected, "{pattern} {subject:?}");
    }

    #[test]
    fn patterns_mean_what_they_do_in_pcre() {
        check("a$", "a\n", Some(true));
        check("a$", "a\nb", Some(false));
        check("(?m)a$", "a\nb", Some(true));
        check("a\\Z", "a\n", Some(true));
        check("a\\z", "a\n", Some(false));
        check("^*", "a", None);
        check("a**", "a", None);
        check("a{2,1}", "a", None);
        check("a{,3}", "a{,3}", Some(true));
        check("a++a", "aaa", Some(false));
        check("[]a]", "]", Some(true));
        check("[a&&b]", "&", Some(true));
        check("[[:alpha:]-]+$", "a-", Some(true));
        check("[\\d-z]", "a", None);
        check("\\Qa.b\\E+", "a.bb", Some(true));
        check("(.)\\1", "abb", Some(true));
        check("(?=b)b(?!c)", "bc", Some(false));
        check("(?=x)?b", "b", Some(true));
        check("(?=x)+b", "b", Some(false));
        check("\\101\\x41\\0", "AA", Some(false));
        check("(?x) a b # comment", "ab", Some(true));
        check("(?<n>a)\\k{n}(?P=n)", "aaa", Some(true));
        check("\\w", "\u{e9}", Some(false));
        check("(", "", None);
        check("a)", "", None);
        check("\\i", "i", None);
        check("(?i:a)A", "AA", Some(true));
        check("(?i:a)A", "Aa", Some(false));
    }

    #[test]
    fn a_search_ends() {
        let nested = Pattern::new(b"(?=x)?(a|aa|aaa|b)*c\\1", Options::default(), false).unwrap();
        let _ = nested.matches(&[b'a'; 10_000]);
        assert!(Pattern::new(b"(a{1000}){1000}", Options::default(), false).is_none());
        assert!(Pattern::new("(".repeat(50_000).as_bytes(), Options::default(), false).is_none());
        assert!(
            Pattern::new(["(".repeat(20_000), ")".repeat(20_000)].concat().as_bytes(), Options::default(), false)
                .is_none()
        );
    }
}

//! Lines and words of a DAG file.

use std::borrow::Cow;

/// A command with its continuation lines, and where its bytes come from.
pub(super) struct Line<'a> {
    /// Without white space at both ends.
    pub(super) text: Cow<'a, [u8]>,
    /// For each physical line: where it begins in `text`, and in the file.
    pieces: Vec<(u32, u32)>,
}

impl Line<'_> {
    /// The place in the file of byte `at` of the text.
    pub(super) fn place(&self, at: usize) -> u32 {
        let at = u32::try_from(at).unwrap_or(u32::MAX);
        let piece = self.pieces.partition_point(|(start, _)| *start <= at).checked_sub(1);
        let (start, place) = piece.and_then(|i| self.pieces.get(i)).copied().unwrap_or((0, 0));
        place.saturating_add(at - start)
    }
}

/// Reads a file line by line.
pub(super) struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Begins at byte `at`, which must begin a line.
    pub(super) fn new(text: &'a [u8], at: u32) -> Self {
        Reader { text, at: at as usize }
    }

    /// Where the next line begins.
    pub(super) fn at(&self) -> u32 {
        u32::try_from(self.at).unwrap_or(u32::MAX)
    }

    /// The next physical line that is neither blank nor a comment (`#`, `//`), trimmed, with its place.
    pub(super) fn raw(&mut self) -> Option<(&'a [u8], u32)> {
        loop {
            let rest = self.text.get(self.at..).filter(|rest| !rest.is_empty())?;
            let length = rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
            let whole = rest.get(..length).unwrap_or_default();
            let lead = whole.len() - whole.trim_ascii_start().len();
            let place = u32::try_from(self.at + lead).unwrap_or(u32::MAX);
            self.at += length + 1;
            let line = whole.trim_ascii();
            if !(line.is_empty() || line.starts_with(b"#") || line.starts_with(b"//")) {
                return Some((line, place));
            }
        }
    }

    /// The next command: a line that ends in `\` goes on in the next one, over blank lines and comments.
    pub(super) fn line(&mut self) -> Option<Line<'a>> {
        let (first, place) = self.raw()?;
        let Some(head) = first.strip_suffix(b"\\") else {
            return Some(Line { text: Cow::Borrowed(first), pieces: vec![(0, place)] });
        };
        let mut text = head.to_vec();
        let mut pieces = vec![(0, place)];
        while let Some((next, place)) = self.raw() {
            text.push(b' ');
            pieces.push((u32::try_from(text.len()).unwrap_or(u32::MAX), place));
            let head = next.strip_suffix(b"\\");
            text.extend_from_slice(head.unwrap_or(next));
            if head.is_none() {
                break;
            }
        }
        Some(Line { text: Cow::Owned(text), pieces })
    }
}

/// What is wrong with a command, where in its line, and what was expected.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) at: usize,
    pub(super) message: String,
    pub(super) expected: Option<String>,
    pub(super) hint: Option<String>,
}

impl Fault {
    pub(super) fn new(at: usize, message: impl Into<String>) -> Self {
        Fault { at, message: message.into(), expected: None, hint: None }
    }

    pub(super) fn expected(mut self, what: impl Into<String>) -> Self {
        self.expected = Some(what.into());
        self
    }

    pub(super) fn hint(mut self, what: Option<String>) -> Self {
        self.hint = what;
        self
    }
}

/// A word and where it begins.
pub(super) type Word<'l> = (Cow<'l, str>, usize);

/// Takes a line apart. Words are parted by blanks; quotation marks of either kind keep blanks together, and within
/// them `\` takes the next character as it is.
pub(super) struct Lexer<'l> {
    line: &'l str,
    at: usize,
}

impl<'l> Lexer<'l> {
    pub(super) fn new(line: &'l str) -> Self {
        Lexer { line, at: 0 }
    }

    pub(super) fn end(&self) -> usize {
        self.line.len()
    }

    fn rest(&self) -> &'l str {
        self.line.get(self.at..).unwrap_or_default()
    }

    fn skip_blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\r']).len();
    }

    /// The next word, with its quotation marks; none at the end of the line.
    pub(super) fn word(&mut self) -> Result<Option<Word<'l>>, Fault> {
        self.take(false)
    }

    /// The next word, without quotation marks.
    pub(super) fn unquoted(&mut self) -> Result<Option<Word<'l>>, Fault> {
        self.take(true)
    }

    fn take(&mut self, trim: bool) -> Result<Option<Word<'l>>, Fault> {
        self.skip_blanks();
        let (start, rest) = (self.at, self.rest());
        if rest.is_empty() {
            return Ok(None);
        }
        let blank = |c: char| matches!(c, ' ' | '\t' | '\r');
        let plain = rest.find(|c| blank(c) || c == '"' || c == '\'').unwrap_or(rest.len());
        if rest.get(plain..).is_none_or(|after| after.is_empty() || after.starts_with(blank)) {
            self.at += plain;
            return Ok(rest.get(..plain).map(|word| (Cow::Borrowed(word), start)));
        }
        let mut word = String::new();
        let mut quote: Option<(char, usize)> = None;
        let mut chars = rest.char_indices();
        self.at = self.line.len();
        while let Some((offset, c)) = chars.next() {
            match quote {
                Some(_) if c == '\\' => word.extend(chars.next().map(|(_, next)| next)),
                Some((mark, _)) if c == mark => {
                    quote = None;
                    if !trim {
                        word.push(c);
                    }
                }
                Some(_) => word.push(c),
                None if blank(c) => {
                    self.at = start + offset;
                    break;
                }
                None if c == '"' || c == '\'' => {
                    quote = Some((c, start + offset));
                    if !trim {
                        word.push(c);
                    }
                }
                None => word.push(c),
            }
        }
        match quote {
            Some((mark, at)) => {
                Err(Fault::new(at, "quotation mark is never closed").expected(format!("a closing `{mark}`")))
            }
            None => Ok(Some((Cow::Owned(word), start))),
        }
    }

    /// The next word, without moving on.
    pub(super) fn peek(&mut self) -> Result<Option<Word<'l>>, Fault> {
        let at = self.at;
        let word = self.word();
        self.at = at;
        word
    }

    /// The next `NAME = value`, blanks around `=` or not, the value in quotation marks or a word; none at the end.
    pub(super) fn assignment(&mut self) -> Result<Option<(&'l str, usize, String)>, Fault> {
        self.skip_blanks();
        let (start, rest) = (self.at, self.rest());
        if rest.is_empty() {
            return Ok(None);
        }
        let length = rest.find([' ', '\t', '\r', '=', '"', '\'']).unwrap_or(rest.len());
        let name = rest.get(..length).unwrap_or_default();
        self.at += length;
        if rest.get(length..).is_some_and(|after| after.starts_with(['"', '\''])) {
            return Err(Fault::new(self.at, "quotation mark in the name of a variable").expected("`NAME=\"value\"`"));
        }
        if name.is_empty() {
            return Err(Fault::new(start, "variable has no name").expected("`NAME=\"value\"`"));
        }
        self.skip_blanks();
        let Some(after) = self.rest().strip_prefix('=') else {
            return Err(Fault::new(self.at, format!("`{name}` has no value")).expected("`=`"));
        };
        self.at += 1;
        let doubled = after.trim_start_matches([' ', '\t', '\r']).starts_with('=');
        self.skip_blanks();
        let at = self.at;
        let value = if doubled { None } else { self.unquoted()? };
        match value {
            Some((value, _)) => Ok(Some((name, start, value.into_owned()))),
            None => {
                let found = if doubled { "`==` for `=`".to_owned() } else { format!("`{name}` has no value") };
                Err(Fault::new(at, found).expected("a value in double quotes"))
            }
        }
    }

    /// All that is left, trimmed, with its place.
    pub(super) fn remain(&mut self) -> (&'l str, usize) {
        let rest = self.rest();
        let at = self.at + (rest.len() - rest.trim_start().len());
        self.at = self.line.len();
        (rest.trim(), at)
    }
}

/// Are they the same keyword? Case doesn't count, and `-` is `_`.
pub(super) fn is(word: &str, keyword: &str) -> bool {
    let plain = |b: u8| if b == b'-' { b'_' } else { b.to_ascii_uppercase() };
    word.len() == keyword.len() && word.bytes().map(plain).eq(keyword.bytes().map(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_join_as_dagman_joins_them() {
        let check = |text: &str, expected: &[&str]| {
            let mut reader = Reader::new(text.as_bytes(), 0);
            let mut lines = Vec::new();
            while let Some(line) = reader.line() {
                for (at, byte) in line.text.iter().enumerate() {
                    let place = line.place(at) as usize;
                    // A continuation is a blank that stands for what is between.
                    if *byte != b' ' {
                        assert_eq!(text.as_bytes().get(place), Some(byte), "{text:?} at {at}");
                    }
                }
                lines.push(String::from_utf8_lossy(&line.text).into_owned());
            }
            assert_eq!(lines, expected, "{text:?}");
        };
        check("JOB A a\n\n # c\n// d\n  JOB B b \r\n", &["JOB A a", "JOB B b"]);
        check("PARENT A \\\n# c\n\nB CHILD \\\n C\nX", &["PARENT A  B CHILD  C", "X"]);
        check("A\\", &["A"]);
        check("A # b", &["A # b"]);
        check("", &[]);
    }

    #[test]
    fn words_are_taken_as_dagman_takes_them() {
        let check = |line: &str, trim: bool, expected: Result<&[&str], usize>| {
            let mut lexer = Lexer::new(line);
            let mut words = Vec::new();
            let result = loop {
                match lexer.take(trim) {
                    Ok(Some((word, _))) => words.push(word.into_owned()),
                    Ok(None) => break Ok(words),
                    Err(fault) => break Err(fault.at),
                }
            };
            match (result, expected) {
                (Ok(words), Ok(expected)) => assert_eq!(words, expected, "{line}"),
                (Err(at), Err(expected)) => assert_eq!(at, expected, "{line}"),
                (result, _) => panic!("{line}: {result:?}"),
            }
        };
        check("a  b\tc\r", true, Ok(&["a", "b", "c"]));
        check(r#""a b" 'c"d' e"f g"h"#, true, Ok(&["a b", "c\"d", "ef gh"]));
        check(r#""a b" e'f'"#, false, Ok(&["\"a b\"", "e'f'"]));
        check(r#"a\b "c\"d\\e""#, true, Ok(&[r"a\b", r#"c"d\e"#]));
        check(r#"a "b"#, true, Err(2));
        check("ä 'ö'", true, Ok(&["ä", "ö"]));
    }

    #[test]
    fn assignments_are_taken_apart() {
        let check = |line: &str, expected: Result<&[(&str, &str)], usize>| {
            let mut lexer = Lexer::new(line);
            let mut pairs = Vec::new();
            let result = loop {
                match lexer.assignment() {
                    Ok(Some((name, _, value))) => pairs.push((name.to_owned(), value)),
                    Ok(None) => break Ok(pairs),
                    Err(fault) => break Err(fault.at),
                }
            };
            match (result, expected) {
                (Ok(pairs), Ok(expected)) => {
                    let pairs: Vec<_> = pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                    assert_eq!(pairs, expected, "{line}");
                }
                (Err(at), Err(expected)) => assert_eq!(at, expected, "{line}"),
                (result, _) => panic!("{line}: {result:?}"),
            }
        };
        check(r#"a="1" b = "x y" +c='z'"#, Ok(&[("a", "1"), ("b", "x y"), ("+c", "z")]));
        check(r#"a="say \"hi\" \\""#, Ok(&[("a", "say \"hi\" \\")]));
        check("a=1", Ok(&[("a", "1")]));
        check("a", Err(1));
        check("a =", Err(3));
        check("a b=1", Err(2));
        check("=1", Err(0));
        check("a==1", Err(2));
        check(r#"a"b=1"#, Err(1));
        check("", Ok(&[]));
    }
}

//! What is wrong with a text, where, and what would be right.

use std::borrow::Cow;
use std::fmt;

/// Whether a text can still be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The text is used; its author should know this.
    Warning,
    /// The text is refused.
    Error,
}

/// One finding about a text. `Display` gives several lines, without a final newline:
///
/// ```text
/// a.sub:3:13: error: quotation mark is never closed, expected a closing `"`
///   3 | arguments = "a b
///     |             ^
/// hint: …
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// Name of the text, as the caller gave it.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1, in characters (a byte that is not UTF-8 counts as one).
    pub column: u32,
    /// A lower-case fragment that says what is wrong.
    pub message: String,
    /// What would have been right in this place.
    pub expected: Option<String>,
    /// What the author may do about it.
    pub hint: Option<String>,
    /// The line concerned, cut to what fits beside the mark and made safe to print.
    pub excerpt: String,
    /// Characters of `excerpt` before the mark.
    pub indent: u32,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, "{}:{}:{}: {kind}: {}", printable(&self.file), self.line, self.column, self.message)?;
        if let Some(expected) = &self.expected {
            write!(f, ", expected {expected}")?;
        }
        if !self.excerpt.is_empty() {
            let number = self.line.to_string();
            let (gutter, indent) = (number.len(), self.indent as usize);
            write!(f, "\n  {number} | {}\n  {:gutter$} | {:indent$}^", self.excerpt, "", "")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

/// Places in a text as byte offsets, and the diagnostics made of them.
pub(crate) struct Source<'a> {
    name: Cow<'a, str>,
    text: Cow<'a, [u8]>,
    line_starts: Vec<u32>,
}

impl<'a> Source<'a> {
    /// `text` must be shorter than 4 GiB; the rest would have no offsets.
    pub(crate) fn new(name: impl Into<Cow<'a, str>>, text: impl Into<Cow<'a, [u8]>>) -> Self {
        let (name, text) = (name.into(), text.into());
        let after = |(i, _): (usize, &u8)| u32::try_from(i + 1).ok();
        let newlines = text.iter().enumerate().filter(|(_, b)| **b == b'\n').filter_map(after);
        let line_starts = std::iter::once(0).chain(newlines).collect();
        Source { name, text, line_starts }
    }

    pub(crate) fn len(&self) -> usize {
        self.text.len()
    }

    /// A finding at byte `offset`; past the end means the end.
    pub(crate) fn at(&self, offset: u32, severity: Severity, message: impl Into<String>) -> Diagnostic {
        const BEFORE: usize = 60;
        const SHOWN: usize = 100;
        let row = self.line_starts.partition_point(|start| *start <= offset).saturating_sub(1);
        let start = self.line_starts.get(row).copied().unwrap_or(0) as usize;
        let rest = self.text.get(start..).unwrap_or_default();
        let line = rest.split(|b| *b == b'\n').next().unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let before = (offset as usize).saturating_sub(start).min(line.len());
        let (head, tail) = line.split_at(before);
        let head = characters(head);
        let skipped = head.len().saturating_sub(BEFORE);
        let shown = head.iter().skip(skipped).copied().chain(characters(tail)).take(SHOWN);
        Diagnostic {
            severity,
            file: self.name.clone().into_owned(),
            line: u32::try_from(row + 1).unwrap_or(u32::MAX),
            column: u32::try_from(head.len() + 1).unwrap_or(u32::MAX),
            message: message.into(),
            expected: None,
            hint: None,
            excerpt: shown.map(visible).collect::<String>().trim_end().to_owned(),
            indent: u32::try_from(head.len() - skipped).unwrap_or(0),
        }
    }
}

impl Diagnostic {
    pub(crate) fn expected(mut self, what: impl Into<String>) -> Self {
        self.expected = Some(what.into());
        self
    }

    pub(crate) fn hint(mut self, what: impl Into<String>) -> Self {
        self.hint = Some(what.into());
        self
    }
}

fn characters(bytes: &[u8]) -> Vec<char> {
    let each = |chunk: std::str::Utf8Chunk<'_>| {
        let bad = std::iter::repeat_n(char::REPLACEMENT_CHARACTER, chunk.invalid().len());
        chunk.valid().chars().chain(bad).collect::<Vec<_>>()
    };
    bytes.utf8_chunks().flat_map(each).collect()
}

/// Keeps a terminal safe from what a file holds, and every character one column wide where it can be.
fn visible(c: char) -> char {
    match c {
        '\t' => ' ',
        c if c.is_control() => '·',
        c => c,
    }
}

/// `bytes` as text for a message: control characters made visible, long text cut.
pub(crate) fn show(bytes: &[u8]) -> String {
    const SHOWN: usize = 60;
    let all = characters(bytes.get(..4 * SHOWN).unwrap_or(bytes));
    let mut text: String = all.iter().take(SHOWN).copied().map(visible).collect();
    if all.len() > SHOWN {
        text.push('…');
    }
    text
}

fn printable(name: &str) -> String {
    name.chars().map(visible).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_shows_its_place() {
        let source = Source::new("a.sub", b"one\r\n\ttw\xff\xc3\xa9 x\x1b[0m\r\nlast");
        let d = source.at(11, Severity::Error, "odd word").expected("`y`").hint("try y");
        assert_eq!(
            d.to_string(),
            "a.sub:2:6: error: odd word, expected `y`\n  2 |  tw\u{fffd}é x·[0m\n    |      ^\nhint: try y"
        );
        let end = source.at(u32::MAX, Severity::Warning, "no end");
        assert_eq!(end.to_string(), "a.sub:3:5: warning: no end\n  3 | last\n    |     ^");
        let empty = Source::new("e", b"").at(0, Severity::Error, "nothing");
        assert_eq!(empty.to_string(), "e:1:1: error: nothing");
    }

    #[test]
    fn a_long_line_is_cut_around_the_mark() {
        let text = [vec![b'a'; 500], vec![b'!'], vec![b'b'; 500]].concat();
        let d = Source::new("f", &text).at(500, Severity::Error, "long");
        assert_eq!((d.column, d.indent, d.excerpt.len()), (501, 60, 100));
        assert_eq!(d.excerpt.as_bytes()[60], b'!');
    }
}

//! Physical lines to logical ones.

/// A byte of a description and its offset in the source.
pub(super) type Spot = (u8, u32);

/// A text, read line by line.
pub(super) struct Lines<'t> {
    text: &'t [u8],
    /// The offset of the text's first byte.
    base: u32,
    at: usize,
}

impl<'t> Lines<'t> {
    /// `text`, whose first byte has the offset `base`.
    pub(super) fn new(text: &'t [u8], base: u32) -> Self {
        Lines { text, base, at: 0 }
    }

    /// Where the next line begins.
    pub(super) fn offset(&self) -> u32 {
        // The caller bounds a text far below 4 GiB.
        self.base.saturating_add(u32::try_from(self.at).unwrap_or(u32::MAX))
    }

    /// The next line as it stands, without its end, and the offset of its first byte.
    pub(super) fn physical(&mut self) -> Option<(&'t [u8], u32)> {
        let rest = self.text.get(self.at..).filter(|rest| !rest.is_empty())?;
        let from = self.offset();
        let end = memchr(rest);
        self.at += end + 1;
        rest.get(..end).map(|line| (line, from))
    }

    /// The next logical line: comments and blank lines dropped, continuations joined, white space at both ends (and `\r`) removed.
    ///
    /// As HTCondor reads them: a line that ends in `\` (white space may follow) goes on in the next one without its indent; a comment
    /// never continues, but one inside a continuation is passed over when it ends in `\` itself, and ends the continuation otherwise.
    pub(super) fn logical(&mut self) -> Option<Vec<Spot>> {
        let mut joined: Option<Vec<Spot>> = None;
        loop {
            let Some((line, from)) = self.physical() else {
                return joined.map(trimmed);
            };
            let lead = line.len() - line.trim_ascii_start().len();
            let line = line.trim_ascii();
            let comment = line.starts_with(b"#");
            let (content, goes_on) = match line.strip_suffix(b"\\") {
                Some(head) => (head, true),
                None => (line, false),
            };
            match (&mut joined, comment) {
                (None, true) => continue,
                (None, false) if line.is_empty() => continue,
                (Some(_), true) => {}
                (_, false) => {
                    let first = from.saturating_add(u32::try_from(lead).unwrap_or(u32::MAX));
                    joined.get_or_insert_default().extend(content.iter().copied().zip(first..));
                }
            }
            if !goes_on {
                return joined.map(trimmed);
            }
        }
    }
}

fn memchr(text: &[u8]) -> usize {
    text.iter().position(|b| *b == b'\n').unwrap_or(text.len())
}

/// `spots` without white space at its beginning.
pub(super) fn trim_start(mut spots: &[Spot]) -> &[Spot] {
    while let [(b, _), rest @ ..] = spots
        && b.is_ascii_whitespace()
    {
        spots = rest;
    }
    spots
}

/// `spots` without white space at its ends.
pub(super) fn trim(spots: &[Spot]) -> &[Spot] {
    let mut spots = trim_start(spots);
    while let [rest @ .., (b, _)] = spots
        && b.is_ascii_whitespace()
    {
        spots = rest;
    }
    spots
}

/// The bytes alone.
pub(super) fn bytes(spots: &[Spot]) -> Vec<u8> {
    spots.iter().map(|(b, _)| *b).collect()
}

fn trimmed(mut spots: Vec<Spot>) -> Vec<Spot> {
    let end = spots.iter().rposition(|(b, _)| !b.is_ascii_whitespace()).map_or(0, |last| last + 1);
    spots.truncate(end);
    spots
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logical(text: &[u8], base: u32) -> impl Iterator<Item = Vec<Spot>> {
        let mut lines = Lines::new(text, base);
        std::iter::from_fn(move || lines.logical())
    }

    #[test]
    fn lines_join_as_htcondor_joins_them() {
        let check = |text: &str, expected: &[&str]| {
            let lines: Vec<String> =
                logical(text.as_bytes(), 0).map(|l| String::from_utf8(bytes(&l)).unwrap_or_default()).collect();
            assert_eq!(lines, expected, "{text:?}");
            for (byte, at) in logical(text.as_bytes(), 100).flatten() {
                assert_eq!(text.as_bytes().get(at as usize - 100), Some(&byte), "{text:?}");
            }
        };
        check("a = 1\r\n\n  b=2  \n# c\n", &["a = 1", "b=2"]);
        check("o = a\\\nb\n", &["o = ab"]);
        check("o = a \\ \n   b\nc=d", &["o = a b", "c=d"]);
        check("o = a\\\n   \\\n b\n", &["o = ab"]);
        check("o = a \\\n\nerror = b\n", &["o = a", "error = b"]);
        check("# comment \\\noutput = x", &["output = x"]);
        check("o = a\\\n#com\\\n,b\n", &["o = a,b"]);
        check("o = a\\\n#com\n,b\n", &["o = a", ",b"]);
        check("o = a\\", &["o = a"]);
        check("\\\n\\\n", &[""]);
        check("o = a # b", &["o = a # b"]);
        check("", &[]);
    }
}

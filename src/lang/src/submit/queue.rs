//! `queue` statements: how many jobs, and the items that tell them apart.

use vo_core::items::ESCAPE;

use super::scene::{Column, escape};
use crate::diagnostic::show;

/// What follows `queue`, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Args {
    /// Jobs for each item, as it is written; empty is 1.
    pub(super) count: Vec<u8>,
    pub(super) items: Option<Items>,
}

/// Where the items come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Items {
    /// Names of the columns; never empty.
    pub(super) names: Vec<String>,
    pub(super) mode: Mode,
    slice: Slice,
    /// What stands on the line itself.
    pub(super) list: Vec<u8>,
    /// The list goes on in the following lines, up to one that begins with `)`.
    pub(super) goes_on: bool,
    /// The first line names the columns, which commas alone part.
    table: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Words.
    In,
    /// Lines.
    From,
    /// File names.
    Matching(Kind),
}

/// What a pattern of file names is to match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Files and directories.
    Any,
    /// All but directories.
    Files,
    /// Directories.
    Dirs,
}

/// `[start:end:step]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Slice {
    start: Option<i64>,
    end: Option<i64>,
    step: Option<i64>,
}

impl Slice {
    /// Is the item of this place, among so many, meant? As in HTCondor, `[n]` is all from `n` on, and a step counts without its sign.
    fn selects(self, place: usize, count: usize) -> bool {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let place = i64::try_from(place).unwrap_or(i64::MAX);
        let from = |at: Option<i64>, default| match at {
            Some(at) if at < 0 => at.saturating_add(count),
            Some(at) => at,
            None => default,
        };
        let (start, end) = (from(self.start, 0), from(self.end, count));
        let step = self.step.map_or(1, i64::unsigned_abs).max(1);
        place >= start && place < end && place.abs_diff(start) % step == 0
    }
}

/// A wrong statement: what is wrong, what was expected.
pub(super) type Fault = (String, &'static str);

/// Takes apart what follows `queue`, macros expanded.
pub(super) fn parse(text: &[u8]) -> Result<Args, Fault> {
    let Some((before, keyword, after)) = keyword(text) else {
        return Ok(Args { count: text.trim_ascii().to_vec(), items: None });
    };
    let (count, names) = names(before)?;
    let mut mode = match keyword {
        b"in" => Mode::In,
        b"from" => Mode::From,
        _ => Mode::Matching(Kind::Any),
    };
    let (mut slice, mut rest, mut table) = (Slice::default(), after.trim_ascii(), false);
    let mut of_kind = false;
    loop {
        if rest.first() == Some(&b'[') {
            let end = rest.iter().position(|b| *b == b']');
            let read = end.and_then(|end| rest.get(1..end)).and_then(parse_slice);
            slice = match (read, mode) {
                (Some(slice), _) => slice,
                // A pattern may begin with a set of characters.
                (None, Mode::Matching(_)) => break,
                (None, _) => {
                    return Err(("this is no slice".to_owned(), "`[start:end:step]`, each a whole number or left out"));
                }
            };
            rest = end.and_then(|end| rest.get(end + 1..)).unwrap_or_default().trim_ascii_start();
            continue;
        }
        let letters = rest.iter().take_while(|b| b.is_ascii_alphabetic()).count();
        let ends = matches!(rest.get(letters), None | Some(b' ' | b'\t' | b'(' | b'['));
        let (word, tail) = rest.split_at(letters);
        let kind = match word.to_ascii_lowercase().as_slice() {
            b"files" => Kind::Files,
            b"dirs" => Kind::Dirs,
            b"any" => Kind::Any,
            b"table" if mode == Mode::From && ends => {
                table = true;
                rest = tail.trim_ascii_start();
                continue;
            }
            _ => break,
        };
        match &mut mode {
            Mode::Matching(_) if ends && of_kind => {
                return Err(("`matching` takes one kind".to_owned(), "`files`, `dirs` or `any`"));
            }
            Mode::Matching(of) if ends => (*of, of_kind) = (kind, true),
            _ => break,
        }
        rest = tail.trim_ascii_start();
    }
    let (list, goes_on) = match rest {
        [b'(', inner @ .., b')'] => (inner, false),
        [b'(', inner @ ..] => (inner, true),
        list => (list, false),
    };
    let parenthesised = rest.first() == Some(&b'(');
    let list = list.trim_ascii().to_vec();
    if list.is_empty() && !parenthesised {
        return Err((format!("nothing follows `{}`", String::from_utf8_lossy(keyword)), "items"));
    }
    // A file is told from a list of one line by the parentheses.
    let list = if mode == Mode::From && parenthesised && !list.is_empty() { [b"\n", &list[..]].concat() } else { list };
    Ok(Args { count, items: Some(Items { names, mode, slice, list, goes_on, table }) })
}

/// The text before and after the first `in`, `from` or `matching` that stands by itself.
fn keyword(text: &[u8]) -> Option<(&[u8], &'static [u8], &[u8])> {
    let delimiter = |b: u8| b.is_ascii_whitespace() || b == b'(';
    let mut at = 0;
    while at < text.len() {
        let rest = text.get(at..)?;
        let length = rest.iter().take_while(|b| !delimiter(**b)).count();
        let (word, after) = rest.split_at(length);
        let known: [&[u8]; 3] = [b"in", b"from", b"matching"];
        if let Some(keyword) = known.into_iter().find(|known| word.eq_ignore_ascii_case(known)) {
            return Some((text.get(..at)?, keyword, after));
        }
        at += length + 1;
    }
    None
}

/// Parts the count from the names that follow it.
fn names(text: &[u8]) -> Result<(Vec<u8>, Vec<String>), Fault> {
    let part = |b: &u8| b.is_ascii_whitespace() || *b == b',';
    let mut end = text.len();
    let mut names = Vec::new();
    loop {
        let before = text.get(..end).unwrap_or_default();
        end = before.iter().rposition(|b| !part(b)).map_or(0, |last| last + 1);
        let before = text.get(..end).unwrap_or_default();
        let start = before.iter().rposition(&part).map_or(0, |last| last + 1);
        let word = before.get(start..).unwrap_or_default();
        let is_name = word.first().is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_')
            && word.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.'));
        if !is_name {
            break;
        }
        names.push(String::from_utf8_lossy(word).into_owned());
        end = start;
    }
    names.reverse();
    if names.len() > 1000 {
        return Err(("too many names".to_owned(), "at most 1000"));
    }
    if names.is_empty() {
        names.push("Item".to_owned());
    }
    Ok((text.get(..end).unwrap_or_default().trim_ascii().to_vec(), names))
}

fn parse_slice(text: &[u8]) -> Option<Slice> {
    let mut parts = str::from_utf8(text).ok()?.split(':');
    let mut next = || match parts.next() {
        None | Some("") => Some(None),
        Some(number) => number.parse::<i32>().ok().map(|number| Some(i64::from(number))),
    };
    let slice = Slice { start: next()?, end: next()?, step: next()? };
    (next()?.is_none() && slice.step != Some(0)).then_some(slice)
}

/// Items, as columns.
pub(super) struct Loop {
    /// One for each name.
    pub(super) columns: Vec<Column>,
    /// The place of each item among all, as slices count them.
    pub(super) places: Vec<u32>,
    bytes: usize,
}

impl Items {
    /// Takes the names of the columns from the first of these lines, if they are a table's.
    pub(super) fn name_columns(&mut self, lines: &mut Vec<&[u8]>) -> Result<(), Fault> {
        if !self.table {
            return Ok(());
        }
        let header = if lines.is_empty() { &[][..] } else { lines.remove(0) };
        let mut named = Vec::new();
        for name in header.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
            let letters = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.');
            if !name.first().is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_') || !name.iter().all(letters) {
                return Err((
                    format!("`{}` can't name a column", show(name)),
                    "a table's first line: names, parted by commas",
                ));
            }
            named.push(String::from_utf8_lossy(name).into_owned());
        }
        self.names = named;
        Ok(())
    }

    /// The items of a list, by columns; an error if they are more than `most` bytes.
    pub(super) fn columns<'t>(
        &self,
        items: impl Iterator<Item = &'t [u8]>,
        count: usize,
        most: usize,
    ) -> Result<Loop, Fault> {
        let mut made =
            Loop { columns: self.names.iter().map(|_| Column::new()).collect(), places: Vec::new(), bytes: 0 };
        for (place, item) in items.enumerate() {
            if !self.slice.selects(place, count) {
                continue;
            }
            made.push(item, self.table);
            // What no table holds can't become one.
            if made.bytes > most {
                return Err((format!("the items take more than {most} bytes"), "fewer or shorter ones"));
            }
            made.places.push(u32::try_from(place).unwrap_or(u32::MAX));
        }
        Ok(made)
    }
}

impl Loop {
    fn push(&mut self, item: &[u8], table: bool) {
        let mut rest = item;
        let only_units = item.contains(&0x1f);
        let separator = |b: &u8| match (table, only_units) {
            (true, _) => *b == b',',
            (_, true) => *b == 0x1f,
            _ => matches!(b, b',' | b' ' | b'\t'),
        };
        let blank = |b: &u8| matches!(b, b' ' | b'\t');
        let last = self.columns.len().saturating_sub(1);
        for (number, column) in self.columns.iter_mut().enumerate() {
            let end = if number == last { None } else { rest.iter().position(separator) };
            let (cell, tail) = rest.split_at(end.unwrap_or(rest.len()));
            let mut cell = cell;
            while cell.last().is_some_and(blank) {
                cell = cell.split_last().map_or(cell, |(_, head)| head);
            }
            self.bytes += cell.len() + 1;
            if cell.contains(&ESCAPE) {
                column.push(&escape(cell))
            } else {
                column.push(cell)
            }
            rest = tail.get(1..).unwrap_or_default();
            while rest.first().is_some_and(blank) {
                rest = rest.get(1..).unwrap_or_default();
            }
        }
    }
}

/// The words of a list.
pub(super) fn words(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|b| b.is_ascii_whitespace() || *b == b',').filter(|word| !word.is_empty())
}

/// The lines of a list, without empty ones.
pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|b| *b == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty())
}

/// The condition of an `if`, macros expanded.
///
/// # Errors
/// What is wrong with it, and what was expected.
pub(super) fn condition(text: &[u8], defined: &dyn Fn(&str) -> bool) -> Result<bool, Fault> {
    let text = String::from_utf8_lossy(text).into_owned();
    let text = text.trim();
    let (negated, text) = match text.strip_prefix('!') {
        Some(inner) => (true, inner.trim()),
        None => (false, text),
    };
    bare_condition(text, defined).map(|value| value != negated)
}

fn bare_condition(text: &str, defined: &dyn Fn(&str) -> bool) -> Result<bool, Fault> {
    let word = |text: &str| match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "t" => Some(true),
        // A macro that is not defined leaves nothing.
        "false" | "no" | "f" | "" => Some(false),
        number => number.parse::<f64>().ok().filter(|n| n.is_finite()).map(|number| number != 0.0),
    };
    if let Some(value) = word(text) {
        return Ok(value);
    }
    let after = |keyword: &str| {
        let rest = text.get(keyword.len()..).filter(|_| text.is_char_boundary(keyword.len()))?;
        let starts = text.get(..keyword.len())?.eq_ignore_ascii_case(keyword);
        (starts && rest.starts_with(char::is_whitespace)).then(|| rest.trim())
    };
    if text.eq_ignore_ascii_case("defined") {
        return Ok(false);
    }
    if let Some(name) = after("defined") {
        if !name.bytes().all(super::macros::is_name_byte) {
            return Err(("`defined` takes one name".to_owned(), "`defined NAME`"));
        }
        return Ok(word(name).is_some() || defined(name));
    }
    if let Some(comparison) = after("version") {
        return version(comparison)
            .ok_or_else(|| ("this is no comparison of versions".to_owned(), "such as `version >= 8.1.6`"));
    }
    Err((
        format!("`{}` is no condition", show(text.as_bytes())),
        "true, false, a number, `defined NAME` or `version >= X.Y.Z`, with `!` before it for the opposite",
    ))
}

/// The version of HTCondor whose language this is, for `version` tests.
pub(super) const VERSION: [u32; 3] = [24, 12, 24];

fn version(text: &str) -> Option<bool> {
    let (negated, text) = match text.strip_prefix('!') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let operators = text.chars().take_while(|c| "<>=".contains(*c)).count();
    let (operator, number) = text.split_at(operators);
    let number = number.trim().trim_start_matches(['v', 'V']);
    let parts = number.split('.').map(|part| part.parse::<u32>().ok()).collect::<Option<Vec<u32>>>()?;
    let (major, minor) = (*parts.first()?, *parts.get(1)?);
    let sub = parts.get(2).copied().unwrap_or(VERSION[2]);
    if major < 6 || parts.len() > 3 {
        return None;
    }
    let order = VERSION.cmp(&[major, minor, sub]);
    let value = match operator {
        "<" => order.is_lt(),
        "<=" => order.is_le(),
        ">" => order.is_gt(),
        ">=" => order.is_ge(),
        "=" | "==" => order.is_eq(),
        _ => return None,
    };
    Some(value != negated)
}

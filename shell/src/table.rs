//! Tables, dates, durations and JSON lists on standard output.

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::error::{Error, ExitCode, Result, printable};

/// Which side a column's cells stand on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
}

/// Rows of text under a heading, each column as wide as its widest cell.
pub(crate) struct Table {
    sides: Vec<Side>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(columns: &[(&str, Side)]) -> Self {
        Table {
            sides: columns.iter().map(|(_, side)| *side).collect(),
            rows: vec![columns.iter().map(|(name, _)| (*name).to_owned()).collect()],
        }
    }

    /// Appends a row; it has as many cells as there are columns.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells.iter().map(|cell| printable(cell).replace('\n', " ")).collect());
    }

    /// Rows below the heading.
    pub(crate) fn len(&self) -> usize {
        self.rows.len() - 1
    }

    /// Without spaces at the ends of lines.
    pub(crate) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let width = |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max();
        let widths: Vec<usize> = (0..self.sides.len()).map(|column| width(column).unwrap_or(0)).collect();
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, width), side) in row.iter().zip(&widths).zip(&self.sides) {
                if !line.is_empty() {
                    line.push(' ');
                }
                match side {
                    Side::Left => line += &format!("{cell:<width$}"),
                    Side::Right => line += &format!("{cell:>width$}"),
                }
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Objects as one JSON array, written as they come.
pub(crate) struct JsonList<W> {
    out: W,
    empty: bool,
}

impl<W: Write> JsonList<W> {
    pub(crate) fn new(out: W) -> Self {
        JsonList { out, empty: true }
    }

    pub(crate) fn push(&mut self, object: &impl Serialize) -> Result<()> {
        let lead = if self.empty { "[\n " } else { ",\n " };
        self.empty = false;
        let text = serde_json::to_string(object)
            .map_err(|e| Error::new(ExitCode::Internal, "cannot write JSON").because(e))?;
        write!(self.out, "{lead}{text}").map_err(written)
    }

    pub(crate) fn end(mut self) -> Result<()> {
        let text = if self.empty { "[]\n" } else { "\n]\n" };
        self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()).map_err(written)
    }
}

/// Standard output, buffered.
pub(crate) fn stdout() -> io::BufWriter<io::StdoutLock<'static>> {
    io::BufWriter::new(io::stdout().lock())
}

/// The error of a write to standard output. A reader that has seen enough (`q | head`) ends the program without a word, as
/// SIGPIPE would.
pub(crate) fn written(e: io::Error) -> Error {
    if e.kind() == io::ErrorKind::BrokenPipe {
        std::process::exit(128 + libc::SIGPIPE);
    }
    Error::system("cannot write to standard output", e)
}

/// Writes a line to standard output. It tells of what was done, which stays so if nobody reads that: then standard error has it.
pub(crate) fn announce(line: fmt::Arguments<'_>) {
    let mut out = io::stdout().lock();
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        eprintln!("{line}");
    }
}

/// `11/21 21:13` or ` 1/5  21:13`, in local time, as HTCondor's listings have it.
pub(crate) fn short_date(ms: u64, zone: &TimeZone) -> String {
    let date = date(ms, zone, "%-m/%-d %H:%M");
    let (day, time) = date.split_once(' ').unwrap_or((&date, ""));
    let (month, day) = day.split_once('/').unwrap_or((day, ""));
    format!("{month:>2}/{day:<2} {time}")
}

/// `11/21/26 21:13:08`, in local time.
pub(crate) fn date_and_time(ms: u64, zone: &TimeZone) -> String {
    date(ms, zone, "%m/%d/%y %H:%M:%S")
}

/// `2026-11-21 21:13:08`, in local time.
pub(crate) fn full_date(ms: u64, zone: &TimeZone) -> String {
    date(ms, zone, "%Y-%m-%d %H:%M:%S")
}

fn date(ms: u64, zone: &TimeZone, format: &str) -> String {
    match i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()) {
        Some(at) => at.to_zoned(zone.clone()).strftime(format).to_string(),
        None => "?".into(),
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0)
}

/// `1+02:03:04`: days, hours, minutes, seconds, as HTCondor's listings have it.
pub(crate) fn clock(ms: u64) -> String {
    let s = ms / 1000;
    format!("{}+{:02}:{:02}:{:02}", s / 86_400, s / 3600 % 24, s / 60 % 60, s % 60)
}

/// `2h30m`: the two largest units.
pub(crate) fn span(ms: u64) -> String {
    let s = ms / 1000;
    let coarse = match s {
        0..3600 => s,
        3600..86_400 => s / 60 * 60,
        _ => s / 3600 * 3600,
    };
    vo_lang::format_duration(Duration::from_secs(coarse))
}

/// `_` for nothing, as HTCondor's listings have it.
pub(crate) fn count(n: u32) -> String {
    if n == 0 { "_".into() } else { n.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_and_show_no_escapes() {
        let mut table = Table::new(&[("NAME", Side::Left), ("CPUS", Side::Right), ("WHY", Side::Left)]);
        table.row(vec!["frostbite".into(), "4".into(), "a\nb\x1b[1m".into()]);
        table.row(vec!["é".into(), "16000".into(), String::new()]);
        let mut out = Vec::new();
        table.write(&mut out).unwrap();
        let expected = "NAME       CPUS WHY\nfrostbite     4 a b\u{fffd}[1m\né         16000\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn json_lists_are_arrays_at_any_length() {
        for length in 0..3 {
            let mut out = Vec::new();
            let mut list = JsonList::new(&mut out);
            for i in 0..length {
                list.push(&serde_json::json!({ "i": i })).unwrap();
            }
            list.end().unwrap();
            let read: Vec<serde_json::Value> = serde_json::from_slice(&out).unwrap();
            assert_eq!(read.len(), length);
        }
    }

    #[test]
    fn times() {
        assert_eq!(clock(93_784_999), "1+02:03:04");
        assert_eq!(span(93_784_999), "1d2h");
        assert_eq!(span(9_000_000), "2h30m");
        assert_eq!(span(9_001_000), "2h30m");
        assert_eq!(span(61_000), "1m1s");
        assert_eq!(span(0), "0s");
        assert_eq!(short_date(1_795_295_589_000, &TimeZone::UTC), "11/21 21:13");
        assert_eq!(full_date(1_795_295_589_000, &TimeZone::UTC), "2026-11-21 21:13:09");
        assert_eq!(full_date(u64::MAX, &TimeZone::UTC), "?");
    }
}

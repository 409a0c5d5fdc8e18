//! What tells the jobs of one `queue` statement apart besides their numbers: their items, as rows of a table, and their places among the
//! processes of the cluster.

use alloc::sync::Arc;
use alloc::vec::Vec;
use minicbor::data::Type;
use minicbor::decode::{self, Decoder};
use minicbor::encode::{self, Encoder, Write};
use minicbor::{Decode, Encode};

/// Begins an escape in a cell; see [`CellPart`].
pub const ESCAPE: u8 = 1;

/// Rows between two entries of a table's index.
const STRIDE: usize = 32;

/// The values of one job: its row of the table, each cell ended by a NUL byte. Empty where there is no table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Row(#[cbor(n(0), with = "minicbor::bytes")] pub Vec<u8>);

impl Row {
    /// Is there nothing in it?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A cell; empty if there is none of this number.
    pub fn cell(&self, column: u16) -> &[u8] {
        self.0.split(|b| *b == 0).nth(column.into()).unwrap_or_default()
    }
}

/// A part of a cell. Bytes stand for themselves but for [`ESCAPE`], after which `c` is the number of the cluster, `w` the end of a word,
/// and `e` the byte itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CellPart<'a> {
    /// Bytes as they are.
    Text(&'a [u8]),
    /// The number of the job's cluster.
    Cluster,
    /// The end of a word, where a cell holds words.
    WordEnd,
}

/// The parts of a cell, in order.
pub fn parts(cell: &[u8]) -> impl Iterator<Item = CellPart<'_>> {
    let mut rest = cell;
    core::iter::from_fn(move || {
        let text = rest.iter().position(|b| *b == ESCAPE).unwrap_or(rest.len());
        if text > 0 {
            let (text, tail) = rest.split_at(text);
            rest = tail;
            return Some(CellPart::Text(text));
        }
        let (escape, tail) = rest.split_at_checked(2)?;
        rest = tail;
        Some(match escape {
            [_, b'c'] => CellPart::Cluster,
            [_, b'w'] => CellPart::WordEnd,
            _ => CellPart::Text(&escape[..1]),
        })
    })
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Cells {
    width: u16,
    rows: u32,
    text: Vec<u8>,
    /// Where each [`STRIDE`]th row begins.
    starts: Vec<u32>,
}

/// Rows of cells, one for each job; cheap to clone. Encoded as the number of columns and the cells, row by row, each ended by a NUL byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table(Arc<Cells>);

impl Table {
    /// A table of `text`: cells row by row, each ended by a NUL byte. None if that makes no whole rows, or 4 GiB of text.
    pub fn new(width: u16, text: Vec<u8>) -> Option<Table> {
        if u32::try_from(text.len()).is_err() || text.last().is_some_and(|last| *last != 0) {
            return None;
        }
        let mut starts = Vec::new();
        let (mut cell, mut rows, mut start) = (0u16, 0usize, true);
        for (at, byte) in text.iter().enumerate() {
            if start && cell == 0 && rows % STRIDE == 0 {
                starts.push(at as u32);
            }
            start = *byte == 0;
            if start {
                cell += 1;
                if cell == width {
                    cell = 0;
                    rows += 1;
                }
            }
        }
        // Cells can't be more than bytes, so that rows can't be more than 2^32 either.
        (cell == 0 && (width > 0 || text.is_empty()))
            .then(|| Table(Arc::new(Cells { width, rows: rows as u32, text, starts })))
    }

    /// How many columns there are.
    pub fn width(&self) -> u16 {
        self.0.width
    }

    /// How many rows there are.
    pub fn rows(&self) -> u32 {
        self.0.rows
    }

    /// A row; empty if there is none of this number.
    pub fn row(&self, row: u32) -> &[u8] {
        let Cells { width, rows, text, starts } = &*self.0;
        let Some(start) = starts.get(row as usize / STRIDE).filter(|_| row < *rows) else {
            return &[];
        };
        let skip = (row as usize % STRIDE) * usize::from(*width);
        let text = &text[*start as usize..];
        let mut ends = text.iter().enumerate().filter(|(_, b)| **b == 0).map(|(at, _)| at + 1);
        let from = if skip == 0 { 0 } else { ends.nth(skip - 1).unwrap_or(text.len()) };
        let to = ends.nth(usize::from(*width) - 1).unwrap_or(text.len());
        &text[from..to]
    }
}

impl<C> Encode<C> for Table {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.array(2)?.u16(self.0.width)?.bytes(&self.0.text)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Table {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        if d.array()? != Some(2) {
            return Err(decode::Error::type_mismatch(Type::Array));
        }
        let (width, text) = (d.u16()?, d.bytes()?);
        Table::new(width, text.to_vec()).ok_or_else(|| decode::Error::message("the table has no whole rows"))
    }
}

/// The processes of jobs that don't stand in one row, ascending; cheap to clone. Encoded as bytes: the distances less one, 7 bits a byte,
/// the last of each without the high bit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Procs(Arc<[u32]>);

impl Procs {
    /// None if they don't ascend.
    pub fn new(procs: Vec<u32>) -> Option<Procs> {
        procs.is_sorted_by(|a, b| a < b).then(|| Procs(procs.into()))
    }

    /// The processes.
    pub fn as_slice(&self) -> &[u32] {
        &self.0
    }
}

impl<C> Encode<C> for Procs {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        let mut bytes = Vec::with_capacity(self.0.len());
        let mut next = 0;
        for proc in self.0.iter() {
            let mut distance = proc - next;
            while distance > 0x7f {
                bytes.push(distance as u8 | 0x80);
                distance >>= 7;
            }
            bytes.push(distance as u8);
            next = proc.saturating_add(1);
        }
        e.bytes(&bytes)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Procs {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let bad = || decode::Error::message("the numbers of processes are damaged");
        let (mut procs, mut next, mut distance, mut shift) = (Vec::new(), 0u64, 0u64, 0);
        for byte in d.bytes()? {
            if shift > 28 {
                return Err(bad());
            }
            distance |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                let proc = next + distance;
                procs.push(u32::try_from(proc).map_err(|_| bad())?);
                (next, distance, shift) = (proc + 1, 0, 0);
            }
        }
        if shift == 0 { Ok(Procs(procs.into())) } else { Err(bad()) }
    }
}

/// Which jobs of a cluster are a group's, and their rows; cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    first: u32,
    count: u32,
    procs: Option<Procs>,
    table: Option<Table>,
}

impl Members {
    /// `count` jobs: those of `procs`, if they are given, else those from `first` on. Members beyond `procs` don't exist.
    pub fn new(first: u32, count: u32, procs: Option<Procs>, table: Option<Table>) -> Members {
        let listed = procs.as_ref().map_or(u32::MAX, |procs| procs.0.len() as u32);
        let first = procs.as_ref().map_or(first, |procs| procs.0.first().copied().unwrap_or(0));
        Members { first, count: count.min(u32::MAX - first).min(listed), procs, table }
    }

    /// How many jobs.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The process of the first job.
    pub fn first(&self) -> u32 {
        self.first
    }

    /// Their numbers of processes, if they don't stand in one row.
    pub fn procs(&self) -> Option<&Procs> {
        self.procs.as_ref()
    }

    /// Their rows.
    pub fn table(&self) -> Option<&Table> {
        self.table.as_ref()
    }

    /// The process of a job, counted within the group.
    pub fn proc(&self, index: u32) -> u32 {
        match &self.procs {
            Some(procs) => procs.0.get(index as usize).copied().unwrap_or(u32::MAX),
            None => self.first.saturating_add(index),
        }
    }

    /// The place of a process within the group, if it belongs to it.
    pub fn index(&self, proc: u32) -> Option<u32> {
        let index = match &self.procs {
            Some(procs) => procs.0.binary_search(&proc).ok()? as u32,
            None => proc.checked_sub(self.first)?,
        };
        (index < self.count).then_some(index)
    }

    /// The processes, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = u32> + ExactSizeIterator + '_ {
        (0..self.count as usize).map(|index| self.proc(index as u32))
    }

    /// What is particular to the job of a process.
    pub fn row(&self, proc: u32) -> Row {
        let row = self.table.as_ref().and_then(|table| Some(table.row(self.index(proc)?)));
        Row(row.unwrap_or_default().to_vec())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use alloc::{format, vec};

    fn table(rows: &[&[&str]]) -> Table {
        let width = rows.first().map_or(1, |row| row.len()) as u16;
        let cells = rows.iter().flat_map(|row| row.iter()).map(|cell| format!("{cell}\0"));
        Table::new(width, cells.collect::<alloc::string::String>().into_bytes()).unwrap()
    }

    #[test]
    fn rows_are_found() {
        for width in 1..4u16 {
            let rows: Vec<Vec<alloc::string::String>> = (0..200u32)
                .map(|row| (0..width).map(|column| "x".repeat((row as usize * 7 + usize::from(column)) % 5)).collect())
                .collect();
            let views: Vec<Vec<&str>> = rows.iter().map(|row| row.iter().map(|cell| cell.as_str()).collect()).collect();
            let made = table(&views.iter().map(Vec::as_slice).collect::<Vec<_>>());
            assert_eq!(made.rows(), 200);
            for (number, row) in rows.iter().enumerate() {
                let found = Row(made.row(number as u32).to_vec());
                for (column, cell) in row.iter().enumerate() {
                    assert_eq!(found.cell(column as u16), cell.as_bytes(), "{width} {number} {column}");
                }
                assert_eq!(found.cell(width), b"");
            }
            assert_eq!(made.row(200), b"");
            let bytes = minicbor::to_vec(&made).unwrap();
            assert_eq!(minicbor::decode::<Table>(&bytes).unwrap(), made);
        }
    }

    #[test]
    fn what_is_no_table_is_refused() {
        for (width, text) in [(0, b"a\0".as_slice()), (2, b"a\0"), (1, b"a"), (2, b"a\0b\0c\0")] {
            assert_eq!(Table::new(width, text.to_vec()), None, "{width} {text:?}");
            let mut bytes = vec![0x82, width as u8];
            Encoder::new(&mut bytes).bytes(text).unwrap();
            assert!(minicbor::decode::<Table>(&bytes).is_err());
        }
        assert_eq!(Table::new(0, vec![]).unwrap().rows(), 0);
    }

    #[test]
    fn cells_have_parts() {
        use CellPart::*;
        let check = |cell: &[u8], expected: &[CellPart<'_>]| assert_eq!(parts(cell).collect::<Vec<_>>(), expected);
        check(b"", &[]);
        check(b"ab\x01cd", &[Text(b"ab"), Cluster, Text(b"d")]);
        check(b"\x01e\x01w", &[Text(b"\x01"), WordEnd]);
        check(b"x\x01", &[Text(b"x")]);
    }

    #[test]
    fn members_know_their_places() {
        let row = Members::new(5, 3, None, Some(table(&[&["a"], &["b"], &["c"]])));
        assert_eq!(row.iter().collect::<Vec<_>>(), [5, 6, 7]);
        assert_eq!((row.index(4), row.index(7), row.index(8)), (None, Some(2), None));
        assert_eq!((row.row(6).cell(0), row.row(8)), (b"b".as_slice(), Row::default()));
        let procs = Procs::new(vec![0, 1, 9, 300, 1_000_000, u32::MAX - 1]).unwrap();
        let bytes = minicbor::to_vec(&procs).unwrap();
        assert_eq!(minicbor::decode::<Procs>(&bytes).unwrap(), procs);
        let listed = Members::new(77, 9, Some(procs), None);
        assert_eq!((listed.first(), listed.count(), listed.index(9), listed.index(10)), (0, 6, Some(2), None));
        assert_eq!(Procs::new(vec![1, 1]), None);
        for bad in [b"\x41\x80".as_slice(), b"\x46\xff\xff\xff\xff\xff\x01", b"\x46\xff\xff\xff\xff\x0f\x00"] {
            assert!(minicbor::decode::<Procs>(bad).is_err(), "{bad:?}");
        }
    }
}

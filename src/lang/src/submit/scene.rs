//! The jobs of one `queue` statement: their processes, their items, and what is computed for each of them.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use vo_core::items::{CellPart, ESCAPE, Members, Procs, Table, parts};

use super::macros::Refused;
use super::template::{Atom, Late};
use super::words::Piece;

/// Longest table of one statement, in bytes: a submission is one record of the job store.
pub(super) const MAX_TABLE: usize = 48 << 20;

/// What a name stands for in a statement's jobs.
#[derive(Debug, Clone)]
pub(super) enum Live {
    Text(Vec<u8>),
    Late(Late),
}

/// What a column's cells depend on.
#[derive(Debug, Clone, Default)]
pub(super) struct Sources {
    /// Columns of items.
    pub(super) columns: BTreeSet<u16>,
    /// Each job's own number, or chance.
    pub(super) job: bool,
}

/// A value for each job, as [`vo_core::items`] has cells.
#[derive(Debug, Clone, Default)]
pub(super) struct Column {
    text: Vec<u8>,
    ends: Vec<u32>,
    sources: Sources,
    /// Each cell is one word in any syntax: not empty, no space, quote or separator.
    clean: bool,
}

impl Column {
    pub(super) fn new() -> Self {
        Column { clean: true, ..Column::default() }
    }

    pub(super) fn push(&mut self, cell: &[u8]) {
        let plain = |b: &u8| b.is_ascii_alphanumeric() || b"_-./+:=@%~^!?*#&<>[]{}()".contains(b) || *b >= 0x80;
        self.clean &= !cell.is_empty() && cell.iter().all(plain);
        self.text.extend_from_slice(cell);
        // The statement's table is bounded far below 4 GiB.
        self.ends.push(u32::try_from(self.text.len()).unwrap_or(u32::MAX));
    }

    pub(super) fn cell(&self, row: u32) -> &[u8] {
        let row = row as usize;
        let end = self.ends.get(row).map_or(0, |end| *end as usize);
        let start = row.checked_sub(1).and_then(|before| self.ends.get(before)).map_or(0, |end| *end as usize);
        self.text.get(start..end).unwrap_or_default()
    }
}

/// `bytes` as a cell.
pub(super) fn escape(bytes: &[u8]) -> Vec<u8> {
    let mut cell = Vec::with_capacity(bytes.len());
    bytes.iter().for_each(|byte| push_escaped(*byte, &mut cell));
    cell
}

fn push_escaped(byte: u8, cell: &mut Vec<u8>) {
    cell.push(byte);
    if byte == ESCAPE {
        cell.push(b'e');
    }
}

/// A value without open columns, as a cell.
pub(super) fn cell_of<'a>(atoms: impl IntoIterator<Item = &'a Atom>) -> Vec<u8> {
    let mut cell = Vec::new();
    for atom in atoms {
        match atom {
            Atom::Byte(byte) => push_escaped(*byte, &mut cell),
            Atom::Late(Late::Cluster) => cell.extend([ESCAPE, b'c']),
            Atom::Late(_) => {}
        }
    }
    cell
}

/// Words without open columns, as a cell.
pub(super) fn words_of(words: &[Vec<Piece>]) -> Vec<u8> {
    let mut cell = Vec::new();
    for word in words {
        cell.extend(cell_of(word.iter().map(|(atom, _)| atom)));
        cell.extend([ESCAPE, b'w']);
    }
    cell
}

/// See the module's text.
pub(super) struct Scene {
    /// The statement's first process.
    first: u32,
    count: u32,
    /// The processes, where they don't stand in a row.
    procs: Option<Vec<u32>>,
    /// Names of the statement's own, in lower case.
    live: BTreeMap<String, Live>,
    /// Columns that were given, not computed.
    given: u16,
    columns: RefCell<Vec<Column>>,
    /// Columns by the text that they were computed from.
    computed: RefCell<BTreeMap<Vec<u8>, u16>>,
    /// Columns that must be the same for all jobs of an ad, as some command needs one value.
    needs: RefCell<BTreeSet<u16>>,
    needs_job: Cell<bool>,
}

impl Scene {
    /// `count` jobs from process `first` on, with a cell of each column for each.
    pub(super) fn new(first: u32, count: u32, live: BTreeMap<String, Live>, columns: Vec<Column>) -> Self {
        let columns: Vec<Column> = (0..)
            .zip(columns)
            .map(|(number, column)| Column { sources: Sources { columns: [number].into(), job: false }, ..column })
            .collect();
        Scene {
            first,
            count,
            procs: None,
            live,
            given: u16::try_from(columns.len()).unwrap_or(u16::MAX),
            columns: RefCell::new(columns),
            computed: RefCell::default(),
            needs: RefCell::default(),
            needs_job: Cell::new(false),
        }
    }

    pub(super) fn count(&self) -> u32 {
        self.count
    }

    pub(super) fn proc(&self, row: u32) -> u32 {
        match &self.procs {
            Some(procs) => procs.get(row as usize).copied().unwrap_or(u32::MAX),
            None => self.first.saturating_add(row),
        }
    }

    pub(super) fn live(&self, name: &str) -> Option<&Live> {
        self.live.get(name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.live.keys().map(String::as_str)
    }

    /// The process of a job, counted from `first`: text at once where there is but one job.
    pub(super) fn process(&self, first: u32, row: Option<u32>) -> Result<Vec<u8>, Atom> {
        let row = row.or((self.count == 1).then_some(0));
        match row {
            Some(row) => Ok(self.proc(row).saturating_sub(first).to_string().into_bytes()),
            None => Err(Atom::Late(Late::Process(first))),
        }
    }

    /// A cell's bytes; nothing if the cluster's number is in it.
    pub(super) fn cell(&self, column: u16, row: u32) -> Vec<u8> {
        self.columns.borrow().get(usize::from(column)).map(|column| column.cell(row).to_vec()).unwrap_or_default()
    }

    pub(super) fn is_clean(&self, column: u16) -> bool {
        self.columns.borrow().get(usize::from(column)).is_some_and(|column| column.clean)
    }

    /// Is there a cell for which `test` holds?
    pub(super) fn any_cell(&self, column: u16, test: impl Fn(&[u8]) -> bool) -> bool {
        let columns = self.columns.borrow();
        columns.get(usize::from(column)).is_some_and(|column| (0..self.count).any(|row| test(column.cell(row))))
    }

    /// The value of one job, but for the cluster's number.
    pub(super) fn fill(&self, value: &[Piece], row: u32) -> Vec<Piece> {
        let mut filled = Vec::with_capacity(value.len());
        for (atom, place) in value {
            let mut put = |bytes: &[u8]| filled.extend(bytes.iter().map(|byte| (Atom::Byte(*byte), *place)));
            match atom {
                Atom::Late(Late::Process(first)) => {
                    put(self.proc(row).saturating_sub(*first).to_string().as_bytes());
                }
                Atom::Late(Late::Column(column)) => {
                    for part in parts(&self.cell(*column, row)) {
                        match part {
                            CellPart::Text(text) => filled.extend(text.iter().map(|b| (Atom::Byte(*b), *place))),
                            CellPart::Cluster => filled.push((Atom::Late(Late::Cluster), *place)),
                            CellPart::WordEnd => {}
                        }
                    }
                }
                other => filled.push((*other, *place)),
            }
        }
        filled
    }

    /// What a value depends on.
    pub(super) fn sources(&self, value: &[Piece]) -> Sources {
        let mut sources = Sources::default();
        let columns = self.columns.borrow();
        for (atom, _) in value {
            match atom {
                Atom::Late(Late::Process(_)) => sources.job = true,
                Atom::Late(Late::Column(column)) => {
                    if let Some(column) = columns.get(usize::from(*column)) {
                        sources.columns.extend(&column.sources.columns);
                        sources.job |= column.sources.job;
                    }
                }
                _ => {}
            }
        }
        sources
    }

    /// The column that was computed from `text`, if one was.
    pub(super) fn known(&self, text: &[u8]) -> Option<u16> {
        self.computed.borrow().get(text).copied()
    }

    /// A column with a cell for each job, computed from `text`, if that tells all.
    ///
    /// # Errors
    /// Those of `cell`; or a word about what is too much.
    pub(super) fn compute(
        &self,
        text: Option<Vec<u8>>,
        sources: Sources,
        mut cell: impl FnMut(u32) -> Result<Vec<u8>, Refused>,
    ) -> Result<Result<u16, String>, Refused> {
        let mut column = Column { sources, ..Column::new() };
        for row in 0..self.count {
            column.push(&cell(row)?);
            if column.text.len() > MAX_TABLE {
                return Ok(Err(format!("more than {MAX_TABLE} bytes of values for the jobs of one `queue` statement")));
            }
        }
        let mut columns = self.columns.borrow_mut();
        let Ok(number) = u16::try_from(columns.len()) else {
            return Ok(Err("too many different values for each job".to_owned()));
        };
        columns.push(column);
        if let Some(text) = text {
            self.computed.borrow_mut().insert(text, number);
        }
        Ok(Ok(number))
    }

    /// Notes that some command needs one value, where this one differs from job to job.
    pub(super) fn need(&self, value: &[Piece]) {
        let sources = self.sources(value);
        self.needs.borrow_mut().extend(sources.columns);
        self.needs_job.set(self.needs_job.get() | sources.job);
    }

    /// Scenes of jobs that are alike in what is [needed](Scene::need); none if nothing is. An error if they are more than `most`.
    pub(super) fn split(&self, most: usize) -> Option<Result<Vec<Scene>, ()>> {
        let needs = self.needs.take();
        let by_job = self.needs_job.replace(false);
        if needs.is_empty() && !by_job {
            return None;
        }
        let mut classes: BTreeMap<Vec<u8>, Vec<u32>> = BTreeMap::new();
        let columns = self.columns.borrow();
        for row in 0..self.count {
            let mut key = Vec::new();
            if by_job {
                key.extend(row.to_be_bytes());
            }
            for column in &needs {
                key.extend_from_slice(columns.get(usize::from(*column)).map(|c| c.cell(row)).unwrap_or_default());
                key.push(0);
            }
            classes.entry(key).or_default().push(row);
            if classes.len() > most {
                return Some(Err(()));
            }
        }
        // In the order of their first jobs.
        let mut classes: Vec<Vec<u32>> = classes.into_values().collect();
        classes.sort_by_key(|rows| rows.first().copied());
        Some(Ok(classes.iter().map(|rows| self.part(rows, &needs)).collect()))
    }

    fn part(&self, rows: &[u32], fixed: &BTreeSet<u16>) -> Scene {
        let columns = self.columns.borrow();
        let single = rows.len() == 1;
        let (mut kept, mut numbers) = (Vec::new(), BTreeMap::new());
        for (number, column) in (0..self.given).zip(columns.iter()) {
            if !single && !fixed.contains(&number) {
                let mut part = Column::new();
                rows.iter().for_each(|row| part.push(column.cell(*row)));
                numbers.insert(number, u16::try_from(kept.len()).unwrap_or(u16::MAX));
                kept.push(part);
            }
        }
        let live = self.live.iter().map(|(name, live)| {
            let live = match live {
                Live::Late(Late::Column(column)) => match numbers.get(column) {
                    Some(number) => Live::Late(Late::Column(*number)),
                    None => {
                        let cell = columns.get(usize::from(*column)).zip(rows.first()).map(|(c, row)| c.cell(*row));
                        let text = parts(cell.unwrap_or_default()).filter_map(|part| match part {
                            CellPart::Text(text) => Some(text),
                            _ => None,
                        });
                        Live::Text(text.flatten().copied().collect())
                    }
                },
                live => live.clone(),
            };
            (name.clone(), live)
        });
        let procs: Vec<u32> = rows.iter().map(|row| self.proc(*row)).collect();
        let count = u32::try_from(procs.len()).unwrap_or(u32::MAX);
        let first = procs.first().copied().unwrap_or(self.first);
        let mut scene = Scene::new(first, count, live.collect(), kept);
        scene.procs = Some(procs);
        scene
    }

    /// Which processes the jobs have, with a table of the columns `used`, in their order.
    pub(super) fn members(&self, used: &[u16]) -> Result<Members, String> {
        let columns = self.columns.borrow();
        let chosen: Vec<&Column> = used.iter().filter_map(|number| columns.get(usize::from(*number))).collect();
        let size: usize = chosen.iter().map(|column| column.text.len() + column.ends.len()).sum();
        if size > MAX_TABLE {
            return Err(format!("more than {MAX_TABLE} bytes of values for the jobs of one `queue` statement"));
        }
        let mut table = None;
        if !chosen.is_empty() {
            let mut text = Vec::with_capacity(size);
            for row in 0..self.count {
                for column in &chosen {
                    text.extend_from_slice(column.cell(row));
                    text.push(0);
                }
            }
            table = Table::new(u16::try_from(chosen.len()).unwrap_or(u16::MAX), text);
        }
        let procs = self.procs.clone().and_then(Procs::new);
        Ok(Members::new(self.first, self.count, procs, table))
    }
}

//! What a store still has of its past: records that a snapshot has replaced, kept as evidence, and those since.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::StoreError;
use crate::format::{self, Bad, GROUP_HEADER, LOG_HEADER};
use crate::log::{log_name, past_name};

/// How much is read at once.
const BUFFER: usize = 256 << 10;

/// What [`read_past`] found.
#[derive(Debug, Default)]
pub struct Past {
    /// Number of the first record that is left; none if there is no record.
    pub first: Option<u64>,
    /// What could not be read. The records before and after it were.
    pub gaps: Vec<StoreError>,
}

/// Reads every record that the store in `dir` has, oldest first, with its number, while another thread or process may write it: all that
/// was durable before the call is read, what comes after it may be. Memory is bounded by the largest commit. What is damaged is left out
/// and told: evidence is not state, and nothing is derived from it.
///
/// # Errors
/// The directory can't be read.
pub fn read_past(dir: &Path, mut each: impl FnMut(u64, &[u8])) -> Result<Past, StoreError> {
    let mut past = Past::default();
    let mut generations = BTreeSet::new();
    for entry in fs::read_dir(dir).map_err(StoreError::io("list", dir))? {
        let name = entry.map_err(StoreError::io("list", dir))?.file_name();
        let number = |kind| name.to_str()?.strip_prefix(kind)?.parse::<u64>().ok();
        generations.extend(number("past-").or_else(|| number("log-")));
    }
    let (Some(first), Some(last)) = (generations.first(), generations.last()) else {
        return Ok(past);
    };
    let mut expected = None;
    for generation in *first..=*last {
        // The list may lack one that was given its other name meanwhile. That change has one direction.
        let live = dir.join(log_name(generation));
        let (path, file) = match File::open(&live) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let path = dir.join(past_name(generation));
                let file = File::open(&path);
                (path, file)
            }
            file => (live, file),
        };
        let read = match file {
            // Too old to be kept, or lost: what follows tells.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            file => file.map_err(StoreError::io("open", &path)).and_then(|file| {
                segment(&path, file, generation, &mut expected, generation == *last, &mut past, &mut each)
            }),
        };
        if let Err(error) = read {
            past.gaps.push(error);
            expected = None;
        }
    }
    Ok(past)
}

fn segment(
    path: &Path,
    file: File,
    generation: u64,
    expected: &mut Option<u64>,
    newest: bool,
    past: &mut Past,
    each: &mut impl FnMut(u64, &[u8]),
) -> Result<(), StoreError> {
    // What comes after this is newer than the question.
    let length = file.metadata().map_err(StoreError::io("read", path))?.len();
    let mut file = BufReader::with_capacity(BUFFER, file.take(length));
    let mut bytes = vec![0; LOG_HEADER];
    let damaged = |offset: u64, why| StoreError::Damaged { file: path.to_owned(), offset, why };
    let short = |offset| {
        move |e: io::Error| match e.kind() {
            io::ErrorKind::UnexpectedEof => damaged(offset, "the file ends inside a commit"),
            _ => StoreError::io("read", path)(e),
        }
    };
    file.read_exact(&mut bytes).map_err(short(0))?;
    let base = format::read_log_header(&bytes, generation).map_err(|bad| match bad {
        Bad::Version(found) => StoreError::Version { file: path.to_owned(), found },
        Bad::Damaged(at, why) => damaged(at as u64, why),
    })?;
    if expected.is_some_and(|expected| expected != base) {
        past.gaps.push(damaged(16, "records before it are missing"));
    }
    let (mut sequence, mut offset) = (base, LOG_HEADER as u64);
    while offset < length {
        let mut group = || -> Result<(), StoreError> {
            bytes.resize(GROUP_HEADER, 0);
            file.read_exact(&mut bytes).map_err(short(offset))?;
            let records = format::group_length(&bytes, generation).filter(|records| *records <= length - offset);
            let records =
                records.and_then(|n| usize::try_from(n).ok()).ok_or("the checksum of a commit's header is wrong");
            bytes.resize(GROUP_HEADER + records.map_err(|why| damaged(offset, why))?, 0);
            file.read_exact(bytes.get_mut(GROUP_HEADER..).unwrap_or_default()).map_err(short(offset))?;
            let records = format::read_group(&bytes, generation, sequence + 1).map_err(|why| damaged(offset, why))?;
            let mut at = records.start;
            while at < records.end {
                let body = format::read_record(&bytes, at, &records)
                    .ok_or_else(|| damaged(offset + at as u64, "a record does not end inside its commit"))?;
                sequence += 1;
                past.first.get_or_insert(sequence);
                each(sequence, bytes.get(body.clone()).unwrap_or_default());
                at = body.end;
            }
            Ok(())
        };
        match group() {
            Ok(()) => offset += bytes.len() as u64,
            // A commit that is being written, or was torn: it was never told to be durable.
            Err(_) if newest => break,
            Err(error) => return Err(error),
        }
    }
    *expected = Some(sequence);
    Ok(())
}

impl StoreError {
    pub(crate) fn io(action: &'static str, file: &Path) -> impl FnOnce(io::Error) -> StoreError + use<> {
        let file: PathBuf = file.to_owned();
        move |source| StoreError::Io { action, file, source }
    }
}

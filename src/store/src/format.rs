//! The bytes of the files; the layout is in the crate's documentation.

use std::ops::Range;

/// The longest record body, in bytes: far above any record of ours, and a bound on what a damaged file can ask for.
pub const MAX_RECORD: usize = 64 << 20;

/// Sequence numbers and generations stay below this, so that counting on from a file's number cannot overflow.
pub(crate) const MAX_NUMBER: u64 = 1 << 62;
const VERSION: u8 = 1;
const LOG_MAGIC: &[u8; 7] = b"VOLOG1\n";
const SNAPSHOT_MAGIC: &[u8; 7] = b"VOSNAP\n";

pub(crate) const LOG_HEADER: usize = 28;
pub(crate) const GROUP_HEADER: usize = 24;
const RECORD_HEADER: usize = 4;
pub(crate) const SNAPSHOT_HEADER: usize = 40;

/// Why bytes are not what they should be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Bad {
    /// At an offset from the start of the given bytes.
    Damaged(usize, &'static str),
    Version(u8),
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn crc(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize()
}

/// Checks what both kinds of file begin with; `N` is the length of the header, whose last four bytes are its checksum.
fn file_header<const N: usize>(bytes: &[u8], magic: &[u8; 7], generation: u64) -> Result<(), Bad> {
    let Some(header) = bytes.first_chunk::<N>() else {
        return Err(Bad::Damaged(bytes.len(), "the file ends inside its header"));
    };
    if !header.starts_with(magic) {
        return Err(Bad::Damaged(0, "it does not begin as a file of this kind does"));
    }
    if header[7] != VERSION {
        return Err(Bad::Version(header[7]));
    }
    if u32_at(header, N - 4) != Some(crc(&[&header[..N - 4]])) {
        return Err(Bad::Damaged(0, "the checksum of its header is wrong"));
    }
    if u64_at(header, 8) != Some(generation) {
        return Err(Bad::Damaged(8, "its generation is not that of its name"));
    }
    if u64_at(header, 16).is_none_or(|number| number >= MAX_NUMBER) {
        return Err(Bad::Damaged(16, "its sequence number is out of range"));
    }
    Ok(())
}

pub(crate) fn log_header(generation: u64, base: u64) -> [u8; LOG_HEADER] {
    let mut header = [0; LOG_HEADER];
    header[..7].copy_from_slice(LOG_MAGIC);
    header[7] = VERSION;
    header[8..16].copy_from_slice(&generation.to_le_bytes());
    header[16..24].copy_from_slice(&base.to_le_bytes());
    let sum = crc(&[&header[..24]]);
    header[24..].copy_from_slice(&sum.to_le_bytes());
    header
}

/// The base of a log file.
pub(crate) fn read_log_header(bytes: &[u8], generation: u64) -> Result<u64, Bad> {
    file_header::<LOG_HEADER>(bytes, LOG_MAGIC, generation)?;
    u64_at(bytes, 16).ok_or(Bad::Damaged(16, "the file ends inside its header"))
}

pub(crate) fn snapshot_header(generation: u64, sequence: u64, state: &[u8]) -> [u8; SNAPSHOT_HEADER] {
    let mut header = [0; SNAPSHOT_HEADER];
    header[..7].copy_from_slice(SNAPSHOT_MAGIC);
    header[7] = VERSION;
    header[8..16].copy_from_slice(&generation.to_le_bytes());
    header[16..24].copy_from_slice(&sequence.to_le_bytes());
    header[24..32].copy_from_slice(&(state.len() as u64).to_le_bytes());
    header[32..36].copy_from_slice(&crc(&[state]).to_le_bytes());
    let sum = crc(&[&header[..36]]);
    header[36..].copy_from_slice(&sum.to_le_bytes());
    header
}

/// The last sequence number that a snapshot covers, and its state.
pub(crate) fn read_snapshot(bytes: &[u8], generation: u64) -> Result<(u64, &[u8]), Bad> {
    file_header::<SNAPSHOT_HEADER>(bytes, SNAPSHOT_MAGIC, generation)?;
    let (header, state) = bytes.split_at(SNAPSHOT_HEADER);
    if u64_at(header, 24) != Some(state.len() as u64) {
        return Err(Bad::Damaged(24, "its length is not that of the file"));
    }
    if u32_at(header, 32) != Some(crc(&[state])) {
        return Err(Bad::Damaged(SNAPSHOT_HEADER, "the checksum of its state is wrong"));
    }
    let sequence = u64_at(header, 16).ok_or(Bad::Damaged(16, "the file ends inside its header"))?;
    Ok((sequence, state))
}

/// Appends `length, body` to a group in the making.
pub(crate) fn push_record(group: &mut Vec<u8>, body: &[u8]) {
    debug_assert!(body.len() <= MAX_RECORD);
    group.extend_from_slice(&(body.len() as u32).to_le_bytes());
    group.extend_from_slice(body);
}

/// Fills in the header of a group, whose first [`GROUP_HEADER`] bytes were left free for it.
pub(crate) fn seal_group(group: &mut [u8], generation: u64, first: u64) {
    let (header, records) = group.split_at_mut(GROUP_HEADER);
    header[..8].copy_from_slice(&first.to_le_bytes());
    header[8..16].copy_from_slice(&(records.len() as u64).to_le_bytes());
    header[16..20].copy_from_slice(&crc(&[records]).to_le_bytes());
    let sum = crc(&[&generation.to_le_bytes(), &header[..20]]);
    header[20..].copy_from_slice(&sum.to_le_bytes());
}

/// The first sequence number of the group header at the start of `bytes`, if one is there.
fn group_first(bytes: &[u8], generation: u64) -> Option<u64> {
    let header = bytes.first_chunk::<GROUP_HEADER>()?;
    let sum = crc(&[&generation.to_le_bytes(), &header[..20]]);
    (u32_at(header, 20)? == sum).then_some(())?;
    u64_at(header, 0)
}

/// Bytes of the records behind a group header, if it is one.
pub(crate) fn group_length(bytes: &[u8], generation: u64) -> Option<u64> {
    group_first(bytes, generation).and_then(|_| u64_at(bytes, 8))
}

/// The records of the group at the start of `bytes`, as a range, or why there is no whole group with this number.
pub(crate) fn read_group(bytes: &[u8], generation: u64, first: u64) -> Result<Range<usize>, &'static str> {
    if bytes.len() < GROUP_HEADER {
        return Err("the file ends inside the header of a commit");
    }
    match group_first(bytes, generation) {
        None => return Err("the checksum of a commit's header is wrong"),
        Some(found) if found != first => return Err("a commit does not follow on the one before it"),
        Some(_) => {}
    }
    let length = u64_at(bytes, 8).and_then(|length| usize::try_from(length).ok());
    let records = length.and_then(|length| bytes[GROUP_HEADER..].get(..length));
    let records = records.ok_or("the file ends inside a commit")?;
    if u32_at(bytes, 16) != Some(crc(&[records])) {
        return Err("the checksum of a commit is wrong");
    }
    Ok(GROUP_HEADER..GROUP_HEADER + records.len())
}

/// Whether a commit later than number `first` was ever begun in these bytes, at whatever offset.
///
/// The bound on the distance keeps chance matches in random bytes (one in 2^32 a byte by the checksum alone) rare.
pub(crate) fn has_later_group(bytes: &[u8], generation: u64, first: u64) -> bool {
    bytes.windows(GROUP_HEADER).any(|window| {
        u64_at(window, 0).is_some_and(|found| found > first && found - first <= u64::from(u32::MAX))
            && group_first(window, generation).is_some()
    })
}

/// The body of the record at `at`, as a range, or `None` if it does not lie inside `group`.
pub(crate) fn read_record(bytes: &[u8], at: usize, group: &Range<usize>) -> Option<Range<usize>> {
    let length = u32_at(bytes, at)? as usize;
    let start = at.checked_add(RECORD_HEADER)?;
    let end = start.checked_add(length)?;
    (length <= MAX_RECORD && end <= group.end).then_some(start..end)
}

//! Damage that no crash explains, and the real disk.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use vo_store::memdisk::MemDisk;
use vo_store::{Cut, Lock, Log, MAX_RECORD, Options, Replay, StoreError, write_atomic};

const LOG: &str = "log-1";
const SNAPSHOT: &str = "snapshot-1";
const LOG_HEADER: usize = 28;
const GROUP_HEADER: usize = 24;

fn open(disk: &MemDisk) -> Result<(Vec<Vec<u8>>, Option<Cut>), StoreError> {
    let mut records = Vec::new();
    let opened = Log::open_on(disk.clone(), Options { create: false, ..Options::default() }, |replay| {
        records.push(match replay {
            Replay::Snapshot(bytes, _) => [b"snapshot ", bytes].concat(),
            Replay::Record(bytes) => bytes.to_vec(),
        });
        Ok::<(), &str>(())
    })?;
    Ok((records, opened.cut))
}

/// A snapshot of two records, then commits of two, one and two records.
fn small() -> (MemDisk, Vec<Vec<u8>>) {
    let disk = MemDisk::new();
    let mut log = Log::open_on(disk.clone(), Options::default(), |_| Ok::<(), &str>(())).unwrap().log;
    let mut records = vec![b"snapshot of two".to_vec()];
    log.append(b"zero");
    log.append(b"one");
    log.snapshot(b"of two").unwrap();
    for group in [&["two", ""][..], &["three"], &["four", "five"]] {
        for record in group {
            log.append(record.as_bytes());
            records.push(record.as_bytes().to_vec());
        }
        log.commit().unwrap();
    }
    (disk, records)
}

/// Offsets in the log of `small` at which its groups begin, and its length.
fn groups() -> [usize; 4] {
    let first = LOG_HEADER;
    let second = first + GROUP_HEADER + 4 + 3 + 4;
    let third = second + GROUP_HEADER + 4 + 5;
    [first, second, third, third + GROUP_HEADER + 4 + 4 + 4 + 4]
}

#[test]
fn no_flipped_byte_is_accepted() {
    let (disk, records) = small();
    let last = groups()[2];
    assert_eq!(disk.content(LOG).unwrap().len(), groups()[3]);
    assert_eq!(open(&disk).unwrap(), (records.clone(), None));
    for name in [LOG, SNAPSHOT] {
        let good = disk.content(name).unwrap();
        for at in 0..good.len() {
            for flip in 1..=255_u8 {
                let mut bytes = good.clone();
                bytes[at] ^= flip;
                let disk = disk.copy();
                disk.set_content(name, &bytes);
                match open(&disk) {
                    Ok((seen, cut)) => {
                        // A rotten last commit looks like a torn one.
                        assert!(name == LOG && at >= last, "{name} byte {at}");
                        assert_eq!(seen, records[..4]);
                        assert_eq!(cut.expect("a cut").offset, last as u64);
                    }
                    Err(StoreError::Version { found, .. }) => assert_eq!((at, found), (7, 1 ^ flip)),
                    Err(StoreError::Damaged { file, offset, .. }) => {
                        assert!(name == SNAPSHOT || at < last, "{name} byte {at}");
                        assert_eq!(file.to_str(), Some(name));
                        assert!(offset <= at as u64, "{name}: byte {at} reported at {offset}");
                        assert_eq!(disk.content(name).unwrap(), bytes, "refused, yet changed");
                    }
                    Err(error) => panic!("{name} byte {at}: {error}"),
                }
            }
        }
    }
}

#[test]
fn a_log_that_ends_early_or_late_is_cut() {
    let (disk, records) = small();
    let good = disk.content(LOG).unwrap();
    let tails = [vec![0; 1], vec![0; 5000], vec![0xff; 100], good[LOG_HEADER..].to_vec(), good.clone()];
    let longer = tails.iter().map(|tail| [&good[..], tail].concat());
    for bytes in (0..=good.len()).map(|end| good[..end].to_vec()).chain(longer) {
        let disk = disk.copy();
        disk.set_content(LOG, &bytes);
        if bytes.len() < LOG_HEADER {
            assert!(matches!(open(&disk), Err(StoreError::Damaged { .. })), "{} bytes", bytes.len());
            continue;
        }
        let end = *groups().iter().rfind(|&&end| end <= bytes.len()).unwrap();
        let whole = [1, 3, 4, 6][groups().iter().position(|&group| group == end).unwrap()];
        let (seen, cut) = open(&disk).unwrap();
        assert_eq!(seen, records[..whole], "{} bytes", bytes.len());
        assert_eq!(cut.as_ref().map(|cut| (cut.offset, cut.bytes)), {
            let excess = bytes.len() - end;
            (excess > 0).then_some((end as u64, excess as u64))
        });
        assert_eq!(disk.content(LOG).unwrap(), bytes[..end]);
        assert_eq!(open(&disk).unwrap(), (seen, None), "cut twice");
    }
}

#[test]
fn a_missing_commit_is_refused() {
    let (disk, _) = small();
    let good = disk.content(LOG).unwrap();
    let [first, second, third, _] = groups();
    for (from, to) in [(first, second), (second, third), (first, third)] {
        let disk = disk.copy();
        disk.set_content(LOG, &[&good[..from], &good[to..]].concat());
        let error = open(&disk).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { offset, .. } if offset == from as u64), "{error}");
    }
    // Two bad commits in a row, and a good header with a bad body behind a bad commit.
    for bad in [&[second + 30, third + 30][..], &[second, third + 30]] {
        let disk = disk.copy();
        let mut bytes = good.clone();
        bad.iter().for_each(|&at| bytes[at] ^= 1);
        disk.set_content(LOG, &bytes);
        assert!(matches!(open(&disk), Err(StoreError::Damaged { .. })));
    }
}

/// A copy of a store with only some of its files, under other names.
fn only(disk: &MemDisk, files: &[(&str, &str)]) -> MemDisk {
    let copy = MemDisk::new();
    for (from, to) in files {
        copy.set_content(to, &disk.content(from).unwrap());
    }
    copy
}

#[test]
fn a_missing_or_foreign_file_is_refused() {
    let (disk, records) = small();
    let missing = |files: &[(&str, &str)]| match open(&only(&disk, files)) {
        Err(StoreError::Missing { file }) => file.to_str().unwrap().to_owned(),
        other => panic!("{files:?}: {other:?}"),
    };
    assert_eq!(missing(&[]), "log-0");
    assert_eq!(missing(&[(LOG, LOG)]), SNAPSHOT);
    assert_eq!(missing(&[(SNAPSHOT, SNAPSHOT)]), LOG);
    assert_eq!(missing(&[(SNAPSHOT, SNAPSHOT), (LOG, "log-1.new")]), LOG);
    // An unfinished snapshot leaves an empty log, not one with records.
    let early = MemDisk::new();
    Log::open_on(early.clone(), Options::default(), |_| Ok::<(), &str>(())).unwrap();
    early.set_content(LOG, &disk.content(LOG).unwrap());
    assert!(matches!(open(&early), Err(StoreError::Missing { file }) if file.to_str() == Some(SNAPSHOT)));
    early.set_content(LOG, &disk.content(LOG).unwrap()[..LOG_HEADER]);
    assert_eq!(open(&early).unwrap().0.len(), 0);

    let damaged = |files: &[(&str, &str)]| {
        assert!(matches!(open(&only(&disk, files)), Err(StoreError::Damaged { .. })), "{files:?}");
    };
    damaged(&[(LOG, "log-0")]);
    damaged(&[(LOG, "log-2"), (SNAPSHOT, "snapshot-2")]);
    damaged(&[(LOG, SNAPSHOT), (SNAPSHOT, LOG)]);

    // Names that are not ours stay; what a crash leaves goes.
    let whole = [(LOG, LOG), (SNAPSHOT, SNAPSHOT)];
    let disk = only(&disk, &whole);
    let ours = ["log-0", "log-2.new", "snapshot-2.new", "snapshot-0"];
    let others = ["lock", "log-x", "log-01", "log-", "snapshot", "log-99999999999999999999", "x.new", "log-+3"];
    ours.iter().chain(&others).for_each(|name| disk.set_content(name, b"x"));
    assert_eq!(open(&disk).unwrap().0, records);
    ours.iter().for_each(|name| assert!(disk.content(name).is_none(), "{name} is left"));
    others.iter().for_each(|name| assert!(disk.content(name).is_some(), "{name} is gone"));
}

#[test]
fn a_replay_that_refuses_ends_the_opening() {
    let (disk, _) = small();
    let error = Log::open_on(disk, Options::default(), |replay| match replay {
        Replay::Record(b"three") => Err("I cannot count to three"),
        _ => Ok(()),
    })
    .unwrap_err();
    let offset = (groups()[1] + GROUP_HEADER + 4) as u64;
    assert!(matches!(&error, StoreError::Replay { offset: at, source, .. }
        if *at == offset && source.to_string() == "I cannot count to three"));
}

#[test]
fn a_record_too_long_is_never_reported_durable() {
    let disk = MemDisk::new();
    let mut log = Log::open_on(disk.clone(), Options::default(), |_| Ok::<(), &str>(())).unwrap().log;
    let long = vec![7; MAX_RECORD + 1];
    log.append(&long[..MAX_RECORD]);
    assert_eq!(log.commit().unwrap(), 1);
    assert_eq!(log.append(&long), 2);
    log.append(b"short");
    assert!(matches!(log.commit(), Err(StoreError::Poisoned { .. })));
    assert_eq!(log.durable(), 1);
    let (records, cut) = open(&disk).unwrap();
    assert!(records == [&long[..MAX_RECORD]] && cut.is_none());
}

#[test]
fn a_commit_is_one_sync_and_an_empty_one_none() {
    let disk = MemDisk::new();
    let mut log = Log::open_on(disk.clone(), Options::default(), |_| Ok::<(), &str>(())).unwrap().log;
    let before = (disk.syncs(), disk.steps());
    log.commit().unwrap();
    assert_eq!((disk.syncs(), disk.steps()), before);
    (0..1000).for_each(|_| _ = log.append(b"x"));
    log.commit().unwrap();
    assert_eq!((disk.syncs(), disk.steps()), (before.0 + 1, before.1 + 2));
}

#[test]
fn a_real_directory() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("a/b");
    let absent = Log::open(&dir, Options { create: false, ..Options::default() }, |_| Ok::<(), &str>(()));
    assert!(matches!(absent, Err(StoreError::Missing { .. })) && !dir.exists());

    let mut log = Log::open(&dir, Options::default(), |_| Err("nothing to replay")).unwrap().log;
    assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(dir.join("log-0")).unwrap().mode() & 0o777, 0o600);
    log.append(b"one");
    log.snapshot(b"of one").unwrap();
    log.append(b"two");
    assert_eq!(log.commit().unwrap(), 2);

    let names = || {
        let mut names: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(), ["lock", "log-1", "snapshot-1"]);

    // Ours while it lives, and only then.
    let busy = Log::open(&dir, Options::default(), |_| Ok::<(), &str>(())).unwrap_err();
    let holder = format!("is in use by process {} on ", std::process::id());
    assert!(busy.to_string().contains(&holder) && busy.is_transient(), "{busy}");
    drop(log);

    let file = dir.join("log-1");
    let good = fs::read(&file).unwrap();
    fs::write(&file, [&good[..], b"torn"].concat()).unwrap();
    let mut seen = Vec::new();
    let opened = Log::open(&dir, Options { create: false, ..Options::default() }, |replay| {
        seen.push(format!("{replay:?}"));
        Ok::<(), &str>(())
    })
    .unwrap();
    assert_eq!(seen, [format!("{:?}", Replay::Snapshot(b"of one", 1)), format!("{:?}", Replay::Record(b"two"))]);
    let cut = opened.cut.unwrap();
    assert_eq!((&cut.file, cut.offset, cut.bytes), (&file, good.len() as u64, 4));
    assert_eq!(fs::read(&file).unwrap(), good);
}

#[test]
fn a_lock_says_who_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let lock = Lock::acquire(dir.path()).unwrap();
    let text = fs::read_to_string(dir.path().join("lock")).unwrap();
    assert!(text.starts_with(&format!("process {} on ", std::process::id())), "{text}");
    for (text, holder) in [("", "another process"), ("evil\x1b[2J\u{7}\n", "evil [2J")] {
        fs::write(dir.path().join("lock"), text).unwrap();
        match Lock::acquire(dir.path()) {
            Err(StoreError::Busy { holder: found, .. }) => assert_eq!(found.trim_end(), holder),
            other => panic!("{other:?}"),
        }
    }
    drop(lock);
    Lock::acquire(dir.path()).unwrap();
}

#[test]
fn an_atomic_write_replaces_all_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    write_atomic(&path, b"old", 0o644).unwrap();
    write_atomic(&path, b"new", 0o400).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o400);
    // A directory cannot be replaced by a file: nothing changes and nothing is left.
    fs::create_dir(dir.path().join("dir")).unwrap();
    write_atomic(&dir.path().join("dir"), b"x", 0o600).unwrap_err();
    write_atomic(&dir.path().join("absent/file"), b"x", 0o600).unwrap_err();
    write_atomic("/".as_ref(), b"x", 0o600).unwrap_err();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

//! What is kept of replaced logs, and how it is read while the store goes on.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use vo_store::memdisk::{Choices, Loss, MemDisk};
use vo_store::{Disk, Log, Options, StoreError, read_past};

const KEEP: Options = Options { create: true, keep: 4000 };

fn open(dir: &Path, options: Options) -> Log {
    Log::open(dir, options, |_| Ok::<(), StoreError>(())).unwrap().log
}

/// Records that tell their number, some hundred bytes each.
fn write(log: &mut Log, count: u64) {
    for _ in 0..count {
        log.append(format!("{:0100}", log.appended() + 1).as_bytes());
    }
    log.commit().unwrap();
}

fn read(dir: &Path) -> (Vec<u64>, Option<u64>, Vec<String>) {
    let mut seen = Vec::new();
    let past = read_past(dir, |number, bytes| {
        let said = std::str::from_utf8(bytes).unwrap().parse::<u64>().unwrap();
        assert_eq!(said, number);
        seen.push(number);
    });
    let past = past.unwrap();
    (seen, past.first, past.gaps.iter().map(ToString::to_string).collect())
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != "lock");
    names.sort();
    names
}

#[test]
fn what_a_snapshot_replaced_can_be_read_up_to_the_bound() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), KEEP);
    write(&mut log, 10);
    assert_eq!(read(dir.path()), ((1..=10).collect(), Some(1), vec![]));
    log.snapshot(b"").unwrap();
    write(&mut log, 10);
    assert_eq!(read(dir.path()), ((1..=20).collect(), Some(1), vec![]), "across a snapshot");
    for _ in 0..5 {
        log.snapshot(b"").unwrap();
        write(&mut log, 10);
    }
    drop(log);
    // Three logs of some 1100 bytes fit.
    assert_eq!(read(dir.path()), ((31..=70).collect(), Some(31), vec![]));
    assert_eq!(names(dir.path()), ["log-6", "past-3", "past-4", "past-5", "snapshot-6"].map(String::from).to_vec());
    drop(open(dir.path(), KEEP));
    assert_eq!(read(dir.path()).1, Some(31), "opening keeps it");
}

#[test]
fn without_a_bound_nothing_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), Options::default());
    write(&mut log, 10);
    log.snapshot(b"").unwrap();
    assert_eq!(names(dir.path()), ["log-1", "snapshot-1"]);
    assert_eq!(read(dir.path()), (vec![], None, vec![]));
}

#[test]
fn damage_leaves_out_what_it_hits_and_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), KEEP);
    for _ in 0..3 {
        write(&mut log, 5);
        write(&mut log, 5);
        log.snapshot(b"").unwrap();
    }
    write(&mut log, 5);
    drop(log);
    let path = dir.path().join("past-1");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() * 3 / 4;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (seen, first, gaps) = read(dir.path());
    assert_eq!(first, Some(1));
    assert_eq!(seen, (1..=15).chain(21..=35).collect::<Vec<_>>());
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert!(gaps[0].contains("past-1 is damaged at byte "), "{gaps:?}");
    fs::remove_file(&path).unwrap();
    let (seen, _, gaps) = read(dir.path());
    assert_eq!(seen, (1..=10).chain(21..=35).collect::<Vec<_>>());
    assert!(gaps[0].contains("past-2 is damaged at byte 16: records before it are missing"), "{gaps:?}");
    // Evidence is no state: the store opens.
    drop(open(dir.path(), KEEP));
}

#[test]
fn a_reader_sees_every_record_in_order_while_the_writer_turns_pages() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), Options { create: true, keep: 1 << 30 });
    write(&mut log, 1);
    let (durable, over) = (AtomicU64::new(1), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..300 {
                write(&mut log, 3);
                durable.store(log.durable(), Ordering::SeqCst);
                log.snapshot(b"").unwrap();
            }
            over.store(true, Ordering::SeqCst);
        });
        let mut reads = 0;
        while !over.load(Ordering::SeqCst) || reads == 0 {
            let before = durable.load(Ordering::SeqCst);
            let (seen, first, gaps) = read(dir.path());
            assert_eq!((first, gaps), (Some(1), vec![]));
            assert!(seen.iter().copied().eq(1..=seen.len() as u64), "in order, without a gap");
            assert!(seen.len() as u64 >= before, "all that was durable before: {} of {before}", seen.len());
            reads += 1;
        }
    });
}

#[test]
fn a_crash_between_snapshot_and_keeping_loses_no_evidence() {
    let mut kept = 0;
    for step in 0..60 {
        let disk = MemDisk::new();
        let open = || Log::open_on(disk.clone(), KEEP, |_| Ok::<(), StoreError>(()));
        let mut log = open().unwrap().log;
        log.append(b"a record");
        log.commit().unwrap();
        disk.crash_at(disk.steps() + step);
        let done = log.snapshot(b"state").is_ok();
        drop(log);
        disk.crash(Loss::None, &mut Choices::new(step));
        let mut names = open().map(drop).map(|()| disk.clone().list().unwrap()).unwrap();
        names.sort();
        match names.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["log-0"] => assert!(!done),
            ["log-1", "past-0", "snapshot-1"] => kept += 1,
            ref other => panic!("step {step}: {other:?}"),
        }
        if done && kept > 2 {
            return;
        }
    }
    panic!("no crash hit");
}

#[test]
fn on_a_full_disk_evidence_makes_room_for_state() {
    let disk = MemDisk::new();
    let mut log = Log::open_on(disk.clone(), KEEP, |_| Ok::<(), StoreError>(())).unwrap().log;
    log.append(b"a record");
    log.commit().unwrap();
    log.snapshot(b"state").unwrap();
    assert!(disk.content("past-0").is_some());
    disk.set_room(Some(5));
    log.append(b"another");
    assert!(log.commit().unwrap_err().is_transient());
    assert_eq!(disk.content("past-0"), None);
    disk.set_room(None);
    assert_eq!(log.commit().unwrap(), 2);
}

//! Crashes at every step, with every kind of loss, against a model that only counts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::convert::Infallible;

use vo_store::memdisk::{Choices, Loss, MemDisk};
use vo_store::{Disk as _, Log, Opened, Options, Replay, StoreError};

/// `None`: only the process dies.
const LOSSES: [Option<Loss>; 8] = [
    None,
    Some(Loss::None),
    Some(Loss::All),
    Some(Loss::Tail),
    Some(Loss::Scattered(1)),
    Some(Loss::Scattered(5)),
    Some(Loss::Scattered(24)),
    Some(Loss::Scattered(64)),
];

/// The body of record number `n`: its length and bytes follow from the number, so no record passes for another.
fn body(n: u64) -> Vec<u8> {
    let mut choices = Choices::new(n);
    let length = [0, 1, 7, 16, 40][choices.below(5)];
    let mut body = if length == 0 { Vec::new() } else { n.to_le_bytes().to_vec() };
    body.resize(body.len().max(length), n as u8);
    body
}

/// The fold of records 1 to n.
fn state(n: u64) -> Vec<u8> {
    n.to_le_bytes().to_vec()
}

fn end(disk: &MemDisk, loss: Option<Loss>, choices: &mut Choices) {
    match loss {
        None => disk.restart(),
        Some(loss) => disk.crash(loss, choices),
    }
}

/// Opens a store and returns how many records it holds, having compared each with what was written.
fn open(disk: &MemDisk) -> Result<(Opened<MemDisk>, u64), StoreError> {
    let mut count = 0;
    let opened = Log::open_on(disk.clone(), Options::default(), |replay| {
        match replay {
            Replay::Snapshot(bytes, _) => {
                assert_eq!(count, 0, "a snapshot after something else");
                count = u64::from_le_bytes(bytes.try_into().expect("a snapshot that was never written"));
                assert!(count > 0, "a snapshot that was never written");
            }
            Replay::Record(bytes) => {
                count += 1;
                assert_eq!(bytes, body(count), "record {count}");
            }
        }
        Ok::<(), Infallible>(())
    })?;
    assert_eq!((opened.log.appended(), opened.log.durable()), (count, count));
    Ok((opened, count))
}

/// What a history has told its caller so far.
#[derive(Debug, Default, Clone)]
struct Told {
    durable: u64,
    /// How many records there were whenever durability was asked for: only these may come back.
    asked: BTreeSet<u64>,
}

/// Appends, commits and takes snapshots until the disk fails or the history ends.
fn run(log: &mut Log<MemDisk>, told: &mut Told, choices: &mut Choices, moves: usize) -> Result<(), StoreError> {
    for _ in 0..moves {
        match choices.below(8) {
            0..5 => {
                for _ in 0..=choices.below(3) {
                    let next = log.appended() + 1;
                    assert_eq!(log.append(&body(next)), next);
                }
            }
            5 | 6 => {
                told.asked.insert(log.appended());
                told.durable = log.commit()?;
            }
            _ if log.appended() > 0 => {
                told.asked.insert(log.appended());
                log.snapshot(&state(log.appended()))?;
                told.durable = log.durable();
                assert_eq!(log.size(), 0);
            }
            _ => {}
        }
        assert_eq!(told.durable, log.durable());
    }
    Ok(())
}

fn check(count: u64, told: &Told, what: &dyn Fn() -> String) {
    assert!(count >= told.durable, "{}: {count} records of {} durable ones", what(), told.durable);
    assert!(count == 0 || told.asked.contains(&count), "{}: {count} records, half a commit of {told:?}", what());
}

/// One history, crashed at every step; then the recovery from it crashed at every step.
fn histories(seeds: std::ops::Range<u64>, moves: usize, recoveries: bool) {
    for seed in seeds {
        let history = |disk: &MemDisk, told: &mut Told| -> Result<(), StoreError> {
            let (mut opened, _) = open(disk)?;
            run(&mut opened.log, told, &mut Choices::new(seed), moves)
        };
        let whole = MemDisk::new();
        history(&whole, &mut Told::default()).unwrap();
        for step in 0..=whole.steps() {
            for (i, loss) in LOSSES.into_iter().enumerate() {
                let what = || format!("seed {seed}, step {step}, {loss:?}");
                let mut choices = Choices::new(seed << 32 | step << 8 | i as u64);
                let disk = MemDisk::new();
                disk.crash_at(step);
                let mut told = Told::default();
                let result = history(&disk, &mut told);
                assert!(
                    result.is_err() || step + 2 >= whole.steps(),
                    "{}: only the last removals may fail unseen",
                    what()
                );
                end(&disk, loss, &mut choices);

                if recoveries {
                    recover_with_crashes(&disk, &told, &mut choices, &what);
                }
                let (mut opened, count) = open(&disk).unwrap_or_else(|e| panic!("{}: {e}", what()));
                check(count, &told, &what);
                // It goes on from there.
                let mut told = Told { durable: count, asked: BTreeSet::from([count]) };
                run(&mut opened.log, &mut told, &mut choices, 6).unwrap();
                drop(opened);
                disk.crash(Loss::All, &mut choices);
                let (_, count) = open(&disk).unwrap_or_else(|e| panic!("{}, second opening: {e}", what()));
                check(count, &told, &what);
            }
        }
    }
}

/// Crashes the opening itself at every step: what one opening has shown may never be taken back.
fn recover_with_crashes(crashed: &MemDisk, told: &Told, choices: &mut Choices, what: &dyn Fn() -> String) {
    for step in 0.. {
        for loss in LOSSES {
            let disk = crashed.copy();
            disk.crash_at(step);
            let seen = open(&disk).map(|(_, count)| count);
            end(&disk, loss, choices);
            let what = || format!("{}, then opening crashed at step {step} with {loss:?}", what());
            let (_, count) = open(&disk).unwrap_or_else(|e| panic!("{}: {e}", what()));
            check(count, told, &what);
            if let Ok(seen) = seen {
                assert_eq!(count, seen, "{}", what());
                return;
            }
        }
    }
}

#[test]
fn a_crash_at_any_step_keeps_what_was_committed() {
    histories(0..60, 25, false);
}

#[test]
fn a_crash_of_the_recovery_too() {
    histories(1000..1012, 14, true);
}

/// An input/output error at every step: the caller goes on or, once the log is poisoned, opens anew.
#[test]
fn an_error_at_any_step_loses_nothing() {
    for seed in 0..40 {
        let whole = MemDisk::new();
        run(&mut open(&whole).unwrap().0.log, &mut Told::default(), &mut Choices::new(seed), 25).unwrap();
        for step in 0..whole.steps() {
            for loss in LOSSES {
                let what = || format!("seed {seed}, error at step {step}, then {loss:?}");
                let mut choices = Choices::new(seed);
                let disk = MemDisk::new();
                disk.fail_at(step);
                let (mut opened, _) = open(&disk).or_else(|_| open(&disk)).unwrap();
                let mut told = Told::default();
                if let Err(error) = run(&mut opened.log, &mut told, &mut choices, 25) {
                    if matches!(error, StoreError::Poisoned { .. }) {
                        drop(opened);
                        let (again, count) = open(&disk).unwrap_or_else(|e| panic!("{}: {e}", what()));
                        check(count, &told, &what);
                        told = Told { durable: count, asked: BTreeSet::from([count]) };
                        opened = again;
                    }
                    run(&mut opened.log, &mut told, &mut choices, 8).unwrap_or_else(|e| panic!("{}: {e}", what()));
                }
                drop(opened);
                end(&disk, loss, &mut choices);
                let (_, count) = open(&disk).unwrap_or_else(|e| panic!("{}: {e}", what()));
                check(count, &told, &what);
            }
        }
    }
}

#[test]
fn a_killed_process_leaves_commits_that_the_next_one_makes_durable() {
    // The write came through, its sync did not; the system still shows it.
    let disk = MemDisk::new();
    let (mut opened, _) = open(&disk).unwrap();
    opened.log.append(&body(1));
    disk.crash_at(disk.steps() + 1);
    opened.log.commit().unwrap_err();
    disk.restart();
    let (_, count) = open(&disk).unwrap();
    assert_eq!(count, 1);
    disk.crash(Loss::All, &mut Choices::new(0));
    assert_eq!(open(&disk).unwrap().1, 1, "what was replayed is gone");
}

#[test]
fn a_full_disk_keeps_records_waiting() {
    for room in 0..80 {
        let disk = MemDisk::new();
        let (mut opened, _) = open(&disk).unwrap();
        let log = &mut opened.log;
        log.append(&body(1));
        log.commit().unwrap();
        let length = disk.content("log-0").unwrap().len();

        disk.set_room(Some(room));
        let mut n = 1;
        let error = loop {
            n += 1;
            log.append(&body(n));
            match log.commit() {
                Ok(durable) => assert_eq!(durable, n),
                Err(error) => break error,
            }
        };
        assert!(error.is_transient(), "{error}");
        assert_eq!((log.appended(), log.durable()), (n, n - 1));
        assert_eq!(disk.content("log-0").unwrap().len(), log.size() as usize + 28, "cut back");
        assert!(log.size() as usize + 28 <= length + room);
        // A snapshot fails as well and changes nothing, and the records still wait.
        let error = log.snapshot(&state(n)).unwrap_err();
        assert!(error.is_transient(), "{error}");
        assert!(log.commit().unwrap_err().is_transient());

        log.append(&body(n + 1));
        disk.set_room(None);
        assert_eq!(log.commit().unwrap(), n + 1);
        log.append(&body(n + 2));
        log.snapshot(&state(n + 2)).unwrap();
        assert_eq!(log.commit().unwrap(), n + 2);
        disk.crash(Loss::All, &mut Choices::new(0));
        assert_eq!(open(&disk).unwrap().1, n + 2);
    }
}

#[test]
fn a_failed_sync_poisons_until_reopened() {
    for seed in 0..200 {
        let disk = MemDisk::new();
        let (mut opened, _) = open(&disk).unwrap();
        let log = &mut opened.log;
        log.append(&body(1));
        log.commit().unwrap();
        for _ in 0..seed {
            // The disk's choice of what to lose follows from the number of steps.
            disk.clone().sync_dir().unwrap();
        }
        log.append(&body(2));
        log.append(&body(3));
        disk.fail_at(disk.steps() + 1);
        let text = chain(&log.commit().unwrap_err());
        assert!(text.contains("log-0") && text.contains("the disk failed"), "{text}");
        log.append(&body(4));
        for _ in 0..2 {
            // The sync would succeed now, and mean nothing.
            let error = log.commit().unwrap_err();
            assert!(matches!(error, StoreError::Poisoned { .. }) && !error.is_transient());
            assert!(matches!(log.snapshot(&state(4)).unwrap_err(), StoreError::Poisoned { .. }));
            assert_eq!(log.durable(), 1);
        }
        drop(opened);
        // The system still shows the commit, so it is replayed; then it has to be durable.
        let (_, count) = open(&disk).unwrap();
        assert_eq!(count, 3);
        disk.crash(Loss::All, &mut Choices::new(seed));
        assert_eq!(open(&disk).unwrap().1, 3, "what was replayed is gone");
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

#[test]
fn a_snapshot_that_fails_leaves_the_log_good_until_its_rename() {
    let disk = MemDisk::new();
    let (mut opened, _) = open(&disk).unwrap();
    opened.log.append(&body(1));
    // Create, write header and state, sync; create, write, sync; rename, sync names; then the snapshot's rename.
    for step in 0..9 {
        disk.fail_at(disk.steps() + step);
        let error = opened.log.snapshot(&state(1)).unwrap_err();
        assert!(matches!(error, StoreError::Io { .. }), "step {step}: {error}");
    }
    assert_eq!(opened.log.commit().unwrap(), 1);
    disk.crash(Loss::All, &mut Choices::new(0));
    assert_eq!(open(&disk).unwrap().1, 1);
}

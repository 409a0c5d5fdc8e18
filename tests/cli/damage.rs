//! Stores that were damaged: a torn end is cut and told, all else is refused with the file and the place.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vo_tests::{Home, Terminal, seconds, wait_until};

/// A session called `t` with jobs that ended, whose master was killed.
fn killed(home: &Home) {
    home.write("t.sub", "executable = /bin/true\nqueue 3\n");
    home.vo(["-s", "t", "-n", "1:1", "--keep", "-c", "submit t.sub; wait; submit t.sub; wait"]).ok();
    kill_nine(home, |line| line.contains(" master "));
}

fn kill_nine(home: &Home, which: impl Fn(&str) -> bool) {
    let found: Vec<i32> = home.processes().iter().filter(|(_, line)| which(line)).map(|(pid, _)| *pid).collect();
    assert!(!found.is_empty(), "{:#?}", home.processes());
    for pid in found {
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        wait_until("its end", seconds(10), || (!fs::exists(format!("/proc/{pid}")).unwrap()).then_some(()));
    }
}

fn back(home: &Home) -> Terminal {
    home.terminal(["-r", "t"])
}

fn store(home: &Home) -> PathBuf {
    home.session_dir("t").join("store")
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// `-r` fails with each of these words, on a screen of any width.
fn assert_refused(home: &Home, words: &[&str]) {
    let mut terminal = back(home);
    let code = terminal.within(seconds(60)).exit_code();
    let shown = terminal.shown().replace(['\n', '\r'], "");
    assert_eq!(code, 1, "{shown}");
    for word in words.iter().chain(&["error: cannot start the master", "hint: nothing was changed"]) {
        assert!(shown.contains(word), "{word}: {shown}");
    }
}

/// With what was there before, the session comes back and can be ended.
fn end(home: &Home) {
    back(home).within(seconds(60)).prompt();
    assert_eq!(home.vo(["-s", "t", "-c", "history --json"]).ok().json().as_array().map(Vec::len), Some(6));
    home.end("t");
    home.assert_nothing_left();
}

#[test]
fn a_torn_end_is_cut_and_the_person_is_told() {
    let home = Home::new();
    killed(&home);
    let log = store(&home).join("log-0");
    let length = fs::metadata(&log).unwrap().len();
    // The beginning of a commit that the disk never had whole.
    change(&log, |bytes| bytes.extend_from_slice(&[0x5a; 17]));
    let mut terminal = back(&home);
    let shown = terminal.within(seconds(60)).prompt().replace(['\n', '\r'], "");
    for words in
        ["job store: cut 17 bytes off ", &format!("log-0 at byte {length}"), "nothing that was acknowledged is lost"]
    {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    drop(terminal);
    assert_eq!(home.vo(["-s", "t", "-c", "history --json"]).ok().json().as_array().map(Vec::len), Some(6));
    home.end("t");
    home.assert_nothing_left();
}

#[test]
fn a_flipped_byte_in_the_middle_is_refused_with_its_place() {
    let home = Home::new();
    killed(&home);
    let log = store(&home).join("log-0");
    let good = fs::read(&log).unwrap();
    change(&log, |bytes| bytes[60] ^= 1);
    let damaged = fs::read(&log).unwrap();
    assert_refused(&home, &["cannot open the job store in ", "log-0 is damaged at byte 28: ", "checksum of a commit"]);
    assert_eq!(fs::read(&log).unwrap(), damaged, "it is left as it was");
    // Commands without a terminal say the same as for any session that does not run.
    home.vo(["-s", "t", "-c", "q"]).code(9).says(["vo-login -r t"]);
    fs::write(&log, good).unwrap();
    end(&home);
}

#[test]
fn a_file_that_is_gone_or_unreadable_is_refused_by_name() {
    let home = Home::new();
    killed(&home);
    let log = store(&home).join("log-0");
    // As after a snapshot, whose file is lost.
    let aside = store(&home).join("log-7");
    fs::rename(&log, &aside).unwrap();
    assert_refused(&home, &["snapshot-7 is missing", "from a copy"]);
    fs::rename(&aside, &log).unwrap();
    if nix::unistd::geteuid().is_root() {
        vo_tests::skip("root reads all files: an unreadable one is not tried");
    } else {
        fs::set_permissions(&log, fs::Permissions::from_mode(0o000)).unwrap();
        assert_refused(&home, &["cannot read ", "log-0", "Permission denied", "ls -ld"]);
        fs::set_permissions(&log, fs::Permissions::from_mode(0o600)).unwrap();
    }
    // A directory in its place can't be read by anyone.
    let aside = home.work("aside");
    fs::rename(&log, &aside).unwrap();
    fs::create_dir(&log).unwrap();
    let mut terminal = back(&home);
    assert_eq!(terminal.within(seconds(60)).exit_code(), 1);
    let shown = terminal.shown().replace(['\n', '\r'], "");
    fs::remove_dir(&log).unwrap();
    fs::rename(&aside, &log).unwrap();
    assert!(shown.contains("cannot read ") && shown.contains("store/log-0: "), "{shown}");
    end(&home);
}

/// CRC-32 (IEEE), as the store's checksums are.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum: u32, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 })
    })
}

/// A commit that is whole, of one record that says something new.
fn commit(number: u64, body: &[u8]) -> Vec<u8> {
    let records = [&(body.len() as u32).to_le_bytes()[..], body].concat();
    let head =
        [&number.to_le_bytes()[..], &(records.len() as u64).to_le_bytes(), &crc(&records).to_le_bytes()].concat();
    let sum = crc(&[&0u64.to_le_bytes()[..], &head].concat());
    [&head[..], &sum.to_le_bytes(), &records].concat()
}

/// Number of the last record in a log of generation 0.
fn last_number(bytes: &[u8]) -> u64 {
    let at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let (mut offset, mut last) = (28, 0);
    while offset < bytes.len() {
        let (first, length) = (at(offset), at(offset + 8) as usize);
        let (mut record, end) = (offset + 24, offset + 24 + length);
        last = first - 1;
        while record < end {
            record += 4 + u32::from_le_bytes(bytes[record..record + 4].try_into().unwrap()) as usize;
            last += 1;
        }
        offset = end;
    }
    last
}

#[test]
fn a_record_of_a_newer_version_is_refused_with_its_place() {
    let home = Home::new();
    killed(&home);
    let log = store(&home).join("log-0");
    let good = fs::read(&log).unwrap();
    // [200, {}]: a kind of record that nobody knows yet.
    let commit = commit(last_number(&good) + 1, &[0x82, 0x18, 200, 0x80]);
    change(&log, |bytes| bytes.extend_from_slice(&commit));
    let place = format!("log-0 at byte {}", good.len() + 28);
    assert_refused(&home, &["cannot replay ", &place, "newer version"]);
    fs::write(&log, good).unwrap();
    end(&home);
}

#[test]
fn an_agents_damaged_table_is_refused_and_shown_with_its_site() {
    let home = Home::new();
    killed(&home);
    kill_nine(&home, |line| line.starts_with("vo-agent event"));
    let sessions = fs::read_dir(home.path().join(".vo-login")).unwrap().filter_map(Result::ok);
    let site = sessions.map(|entry| entry.path()).find(|path| path.join("jobinfo_table").is_dir()).unwrap();
    let table = || {
        let epochs = fs::read_dir(site.join("jobinfo_table")).unwrap().filter_map(Result::ok);
        let newest = epochs.filter_map(|e| e.file_name().to_str()?.parse::<u64>().ok()).max().unwrap();
        site.join("jobinfo_table").join(newest.to_string()).join("log-0")
    };
    let good = fs::read(table()).unwrap();
    change(&table(), |bytes| bytes[60] ^= 1);
    let mut terminal = back(&home);
    terminal.within(seconds(60)).prompt();
    let shown = terminal.shown().replace(['\n', '\r'], "");
    for words in ["local: ", "log-0 is damaged at byte 28", "hint: nothing was changed"] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    drop(terminal);
    let sites = home.vo(["-s", "t", "-c", "sites --json"]).ok().json();
    assert_eq!(sites[0]["state"], "failed", "{sites:#}");
    let why = home.vo(["-s", "t", "-c", "why local"]).ok().stdout;
    assert!(why.contains("is damaged at byte 28"), "{why}");

    // With its good table the site is used again, and a torn end of that is cut and told.
    fs::write(table(), good).unwrap();
    change(&table(), |bytes| bytes.extend_from_slice(&[0x5a; 17]));
    home.vo(["-s", "t", "-c", "vo login local"]).ok();
    let why = wait_until("what was cut", seconds(60), || {
        Some(home.vo(["-s", "t", "-c", "why local"]).ok().stdout).filter(|text| text.contains("cut 17 bytes off"))
    });
    assert!(why.starts_with("site local: up for "), "nothing is wrong now: {why}");
    home.end("t");
    home.assert_nothing_left();
}

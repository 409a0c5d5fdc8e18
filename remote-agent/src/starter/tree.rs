//! Process trees: who descends from whom, who ended and how.

use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vo_core::ids::AttemptId;

/// The children of `pid`, those adopted included.
pub(super) fn children(pid: i32) -> Vec<i32> {
    // Each thread lists the children that it made or adopted. Kernels without CONFIG_PROC_CHILDREN have no such file.
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for thread in threads.flatten() {
        match fs::read_to_string(thread.path().join("children")) {
            Ok(list) => found.extend(numbers(&list)),
            Err(e) if e.kind() == io::ErrorKind::NotFound && thread.path().exists() => return children_by_parent(pid),
            Err(_) => {}
        }
    }
    found
}

/// The children of this process's first thread: all of them, where only that thread spawns.
pub(super) fn own_children() -> Vec<i32> {
    let own = std::process::id();
    match fs::read_to_string(format!("/proc/{own}/task/{own}/children")) {
        Ok(list) => numbers(&list).collect(),
        Err(_) => children(own.cast_signed()),
    }
}

fn numbers(list: &str) -> impl Iterator<Item = i32> {
    list.split_ascii_whitespace().filter_map(|word| word.parse().ok())
}

fn children_by_parent(parent: i32) -> Vec<i32> {
    let child = |entry: fs::DirEntry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read(entry.path().join("stat")).ok()?;
        // `PID (NAME) STATE PPID …`, where the name may hold anything.
        let end = stat.iter().rposition(|b| *b == b')')?;
        let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
        let of: i32 = rest.split_ascii_whitespace().nth(1)?.parse().ok()?;
        (of == parent).then_some(pid)
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(child).collect()
}

/// All that descends from `pid`, parents before children.
pub(super) fn descendants(pid: i32) -> Vec<i32> {
    let mut found = children(pid);
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        for child in children(pid) {
            // A pid reused while we look must not close a circle.
            if !found.contains(&child) {
                found.push(child);
            }
        }
        next += 1;
    }
    found
}

/// The attempt that a process belongs to, as its environment says; none if it doesn't say or is not ours to read.
pub(super) fn attempt_of(pid: i32) -> Option<AttemptId> {
    let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let value = |name: &[u8]| {
        let mut entries = environ.split(|b| *b == 0);
        entries.find_map(|entry| std::str::from_utf8(entry.strip_prefix(name)?).ok())
    };
    Some(AttemptId { job: value(b"VO_JOB=")?.parse().ok()?, attempt: value(b"VO_ATTEMPT=")?.parse().ok()? })
}

/// Sends a signal to a process, or to the group of a negative number; one that is gone is no error.
pub(super) fn signal(pid: i32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid), signal);
}

/// How a child ended, and what it and the descendants that it waited for used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) user: Duration,
    pub(super) system: Duration,
    /// Largest resident set of a process. The kernel counts the moment between vfork and exec, so a small program shows the
    /// size of its parent, the starter.
    pub(super) peak_kib: u64,
}

/// A child that ended and was not reaped: its number, and its group's, can't be reused yet.
pub(super) fn peek_ended() -> Option<i32> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: the pointer is to a siginfo_t of ours, all bytes of which are valid as zeros.
    let info = unsafe {
        if libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), flags) != 0 {
            return None;
        }
        info.assume_init()
    };
    // SAFETY: waitid filled it in for a child, or left the zeros.
    let pid = unsafe { info.si_pid() };
    (pid > 0).then_some(pid)
}

/// Reaps `pid` if it ended, or with -1 any child that did. `Ok(None)` is that none has; `ECHILD` that there is no child.
pub(super) fn reap(pid: i32) -> io::Result<Option<Ended>> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both pointers are to memory of ours of the right type; zeros are a valid rusage.
    let (pid, usage) = unsafe {
        let pid = libc::wait4(pid, &raw mut status, libc::WNOHANG, usage.as_mut_ptr());
        (pid, usage.assume_init())
    };
    match pid {
        0 => Ok(None),
        1.. => {
            let span = |t: libc::timeval| {
                Duration::from_secs(t.tv_sec.unsigned_abs()) + Duration::from_micros(t.tv_usec.unsigned_abs())
            };
            Ok(Some(Ended {
                status: ExitStatus::from_raw(status),
                user: span(usage.ru_utime),
                system: span(usage.ru_stime),
                peak_kib: usage.ru_maxrss.unsigned_abs(),
            }))
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// Kills every descendant of this process, and returns when none is left.
pub(super) fn kill_descendants() {
    let own = std::process::id().cast_signed();
    let mut pause = Duration::from_millis(1);
    loop {
        for pid in descendants(own) {
            signal(pid, Signal::SIGKILL);
        }
        match reap(-1) {
            Ok(Some(_)) => pause = Duration::from_millis(1),
            // What resists SIGKILL is in a device or network file system call, perhaps for long.
            Ok(None) => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(500));
            }
            // Orphans become our children: without children there is no descendant.
            Err(e) if e.raw_os_error() == Some(libc::ECHILD) => return,
            Err(_) => {}
        }
    }
}

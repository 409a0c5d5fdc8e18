//! Whether the kernel killed what runs here for want of memory.
//!
//! Sources: the kernel's "Control Group v2" (`memory.events`, `memory.max`) and "Memory Resource Controller" (`memory.oom_control`,
//! `memory.limit_in_bytes`).

use std::fs;
use std::path::{Path, PathBuf};

/// What counts them, and what limits memory, by version of cgroups.
const V2: (&str, &str) = ("memory.events", "memory.max");
const V1: (&str, &str) = ("memory.oom_control", "memory.limit_in_bytes");
/// No limit, as version 1 writes it, is about the largest number.
const NO_LIMIT: u64 = 1 << 60;

/// The kernel's count of what it killed for that in the cgroup that this process shares with its jobs, as it was at the last two looks.
#[derive(Debug, Default)]
pub(super) struct Killings {
    counter: Option<PathBuf>,
    /// The names of files with limits, from there up.
    limits: Vec<PathBuf>,
    before: u64,
    last: u64,
}

impl Killings {
    /// Jobs begin to run: what was before is none of theirs.
    pub(super) fn begin(&mut self) {
        let cgroups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        *self = Killings::of(&cgroups, Path::new("/sys/fs/cgroup"));
    }

    /// For a process in these `cgroups` (cgroups(7)), which are mounted below `root`.
    fn of(cgroups: &str, root: &Path) -> Killings {
        let found = cgroups.lines().find_map(|line| {
            let (_, line) = line.split_once(':')?;
            let (controllers, path) = line.split_once(':')?;
            let (mount, files) = match controllers {
                "" => (root.to_owned(), V2),
                _ if controllers.split(',').any(|controller| controller == "memory") => (root.join("memory"), V1),
                _ => return None,
            };
            let leaf = mount.join(path.trim_start_matches('/'));
            // Not all cgroups have the controller, nor are all to be seen from within a container.
            let mut all = leaf.ancestors().take_while(|dir| dir.starts_with(&mount));
            let dir = all.find(|dir| dir.join(files.0).exists())?;
            let up = dir.ancestors().take_while(|dir| dir.starts_with(&mount));
            Some((dir.join(files.0), up.map(|dir| dir.join(files.1)).collect()))
        });
        let (counter, limits) = found.map_or((None, Vec::new()), |(counter, limits)| (Some(counter), limits));
        let mut killings = Killings { counter, limits, before: 0, last: 0 };
        killings.last = killings.count();
        killings.before = killings.last;
        killings
    }

    fn count(&self) -> u64 {
        let text = self.counter.as_ref().and_then(|counter| fs::read_to_string(counter).ok()).unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
        count.unwrap_or(0)
    }

    /// Looks again, from time to time.
    pub(super) fn look(&mut self) {
        (self.before, self.last) = (self.last, self.count());
    }

    /// Did it kill anything since the look before the last one?
    pub(super) fn are_new(&self) -> bool {
        self.counter.is_some() && self.count() > self.before
    }

    /// The least memory that any of the cgroups allows, in MiB.
    pub(super) fn limit_mb(&self) -> Option<u64> {
        let limits = self.limits.iter().filter_map(|limit| fs::read_to_string(limit).ok()?.trim().parse::<u64>().ok());
        limits.filter(|limit| *limit < NO_LIMIT).min().map(|bytes| bytes >> 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree of cgroups that has these files.
    fn tree(name: &str, files: &[(&str, &str)]) -> PathBuf {
        let root = std::env::temp_dir().join(format!("vo-memory-{name}-{}", std::process::id()));
        for (file, text) in files {
            fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
            fs::write(root.join(file), text).unwrap();
        }
        root
    }

    #[test]
    fn killings_are_seen_for_two_looks() {
        let events =
            |killed: u32| format!("low 0\nhigh 0\nmax 70\noom {killed}\noom_kill {killed}\noom_group_kill 0\n");
        let root = tree(
            "v2",
            &[
                ("job_7/memory.events", &events(3)),
                ("job_7/memory.max", "268435456\n"),
                ("job_7/step/task/cgroup.procs", ""),
                ("memory.max", "max\n"),
            ],
        );
        let mut killings = Killings::of("0::/job_7/step/task\n", &root);
        assert_eq!((killings.are_new(), killings.limit_mb()), (false, Some(256)));
        fs::write(root.join("job_7/memory.events"), events(4)).unwrap();
        assert!(killings.are_new());
        killings.look();
        assert!(killings.are_new());
        killings.look();
        assert!(!killings.are_new());
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn both_versions_are_known_and_neither_need_be_there() {
        let root = tree(
            "v1",
            &[
                ("memory/a/b/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
                ("memory/a/b/memory.limit_in_bytes", "9223372036854771712\n"),
                ("memory/a/memory.limit_in_bytes", "1073741824\n"),
                ("unified/x", ""),
            ],
        );
        let of = |cgroups: &str| Killings::of(cgroups, &root);
        let killings = of("9:name=systemd:/init.scope\n4:memory:/a/b\n1:cpu,cpuacct:/\n0::/init.scope\n");
        assert_eq!((killings.last, killings.limit_mb()), (2, Some(1024)));
        let counter = |cgroups: &str| of(cgroups).counter.map(|found| found.strip_prefix(&root).unwrap().to_owned());
        assert_eq!(counter("4:cpu,memory:/a/b\n").unwrap(), Path::new("memory/a/b/memory.oom_control"));
        for nothing in ["", "0::/a/b\n", "4:memory:/\n", "nonsense\n4:memory"] {
            assert_eq!(counter(nothing), None, "{nothing}");
            assert!(!of(nothing).are_new() && of(nothing).limit_mb().is_none());
        }
        fs::remove_dir_all(root).unwrap();
    }
}

//! What running jobs use: when that is measured, and when the master hears of it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;
use vo_core::ids::AttemptId;
use vo_core::job::Usage;

use super::tree;

/// A job is measured after half of its age, but no sooner and no later than this: most of what there is to know of a job shows early.
const SOONEST: Duration = Duration::from_secs(1);
const LATEST: Duration = Duration::from_secs(60);

/// The CPU time of a job that does nothing new is told so often.
const RARELY: Duration = Duration::from_secs(300);

/// A size is news that grew by as many parts of itself, and by as many KiB.
const PARTS: u64 = 20;
const LEAST_KIB: u64 = 1024;

/// Files of a scratch directory that are counted; a job that has more is not worth the time.
const MOST_FILES: usize = 100_000;

/// What is known of a running job's usage.
#[derive(Debug)]
pub(super) struct Meter {
    since: Instant,
    due: Instant,
    last: Option<Usage>,
    told: Option<(Instant, Usage)>,
}

impl Meter {
    pub(super) fn new(since: Instant) -> Meter {
        Meter { since, due: since + SOONEST, last: None, told: None }
    }

    /// Is it to be measured now? If so, when next is settled.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let due = self.due <= now;
        if due {
            self.due = now + (now.saturating_duration_since(self.since) / 2).clamp(SOONEST, LATEST);
        }
        due
    }

    /// Takes in what was measured.
    pub(super) fn read(&mut self, used: Usage) {
        let used = self.whole(used);
        let last = self.last.unwrap_or_default();
        // A process that nobody waited for takes its time with it.
        let cpu_ms = used.cpu_ms.max(last.cpu_ms);
        self.last = Some(Usage { cpu_ms, system_ms: used.system_ms.max(last.system_ms), ..used });
    }

    /// What was used, with the largest sizes that were measured.
    pub(super) fn whole(&self, used: Usage) -> Usage {
        let last = self.last.unwrap_or_default();
        let (peak_kib, disk_kib) = (used.peak_kib.max(last.peak_kib), used.disk_kib.max(last.disk_kib));
        Usage { peak_kib, disk_kib, ..used }
    }

    pub(super) fn last(&self) -> Option<Usage> {
        self.last
    }

    /// What the master is to hear now, if anything.
    pub(super) fn news(&mut self, now: Instant) -> Option<Usage> {
        let last = self.last?;
        let grew = |new: u64, old: u64| new > old + (old / PARTS).max(LEAST_KIB);
        let is_news = self.told.is_none_or(|(at, told)| {
            let rarely = now.saturating_duration_since(at) >= RARELY;
            let sizes = grew(last.peak_kib, told.peak_kib) || grew(last.disk_kib, told.disk_kib);
            sizes || (rarely && last != told)
        });
        is_news.then(|| self.told = Some((now, last))).map(|()| last)
    }
}

/// What jobs use, each with its process and its scratch directory, if it has one; `strays` are our children that are no job's own.
pub(super) fn of(jobs: Vec<(AttemptId, i32, Option<PathBuf>)>, strays: &[i32]) -> Vec<(AttemptId, Usage)> {
    let strays: Vec<_> = strays.iter().filter_map(|pid| Some((tree::attempt_of(*pid)?, *pid))).collect();
    let measure = |(id, pid, scratch): (AttemptId, i32, Option<PathBuf>)| {
        let roots = strays.iter().filter(|(of, _)| *of == id).map(|(_, pid)| *pid).chain([pid]);
        let all = roots.flat_map(|pid| [vec![pid], tree::descendants(pid)].concat());
        let mut used = sum(all.filter_map(Sample::of));
        used.disk_kib = scratch.map_or(0, |scratch| kib_below(&scratch));
        (id, used)
    };
    jobs.into_iter().map(measure).collect()
}

/// One process.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    /// The largest that it was by itself.
    peak: u64,
    /// Its own memory, and what it shows of files and of shared memory.
    own: u64,
    file: u64,
    shared: u64,
    /// In ticks, with those of the children that it waited for.
    user: u64,
    system: u64,
}

/// The usage of processes. What several of them show of the same files is counted once, for the one that shows most.
fn sum(samples: impl Iterator<Item = Sample>) -> Usage {
    let (mut all, mut file, mut shared) = (Sample::default(), 0, 0);
    for one in samples {
        all.peak = all.peak.max(one.peak);
        all.own += one.own;
        file = file.max(one.file);
        shared = shared.max(one.shared);
        all.user += one.user;
        all.system += one.system;
    }
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    let ms = |ticks: u64| ticks * 1000 / u64::try_from(per_second).unwrap_or(100).max(1);
    Usage {
        cpu_ms: ms(all.user + all.system),
        system_ms: ms(all.system),
        peak_kib: all.peak.max(all.own + file + shared),
        ..Usage::default()
    }
}

impl Sample {
    /// A process as it is now, if it is still there.
    fn of(pid: i32) -> Option<Sample> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        Some(Sample::read(&status, &String::from_utf8_lossy(&stat)))
    }

    fn read(status: &str, stat: &str) -> Sample {
        let mut sample = Sample::default();
        for line in status.lines() {
            let Some((name, value)) = line.split_once(':') else { continue };
            let field = match name {
                "VmHWM" => &mut sample.peak,
                "RssAnon" => &mut sample.own,
                "RssFile" => &mut sample.file,
                "RssShmem" => &mut sample.shared,
                _ => continue,
            };
            *field = value.split_ascii_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or(0);
        }
        // `PID (NAME) STATE …`, where the name may hold anything; utime, stime, cutime and cstime are the fields 14 to 17.
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks: Vec<u64> =
            rest.split_ascii_whitespace().skip(11).take(4).map(|ticks| ticks.parse().unwrap_or(0)).collect();
        if let [user, system, of_children, system_of_children] = ticks[..] {
            (sample.user, sample.system) = (user + of_children, system + system_of_children);
        }
        sample
    }
}

/// What the files below a directory occupy.
pub(super) fn kib_below(directory: &Path) -> u64 {
    let (mut blocks, mut left, mut directories) = (0, MOST_FILES, vec![directory.to_owned()]);
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let Some(next) = left.checked_sub(1) else { return blocks / 2 };
            left = next;
            // Of a link its own size.
            let Ok(found) = entry.metadata() else { continue };
            blocks += found.blocks();
            if found.is_dir() {
                directories.push(entry.path());
            }
        }
    }
    blocks / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_read_as_the_kernel_shows_them() {
        let status = "Name:\ta) b (\nVmPeak:\t  9000 kB\nVmHWM:\t  4000 kB\nVmRSS:\t  3000 kB\nRssAnon:\t  1000 kB\n\
                      RssFile:\t  1500 kB\nRssShmem:\t   500 kB\n";
        let stat = "7 (a) b () S 1 7 7 0 -1 4194304 100 200 0 0 250 50 1000 25 20 0 1 0 77 9216000 750";
        let one = Sample::read(status, stat);
        let used = sum([one].into_iter());
        assert_eq!((used.peak_kib, used.cpu_ms, used.system_ms), (4000, 13_250, 750));
        // Of two, each has memory of its own, and both show the same files.
        let used = sum([one, one, one, Sample { own: 10, ..Sample::default() }].into_iter());
        assert_eq!((used.peak_kib, used.cpu_ms), (3010 + 1500 + 500, 39_750));
        assert_eq!(sum([Sample::read("", "")].into_iter()), Usage::default());
    }

    #[test]
    fn the_master_hears_what_is_news() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let used = |peak_kib, cpu_ms| Usage { peak_kib, cpu_ms, ..Usage::default() };
        let mut meter = Meter::new(start);
        let mut check = |seconds: u64, read: Usage, expected: Option<Usage>| {
            meter.read(read);
            assert_eq!(meter.news(at(seconds)), expected, "{seconds} {read:?}");
        };
        check(1, used(10_000, 10), Some(used(10_000, 10)));
        check(2, used(11_000, 900), None);
        check(3, used(11_025, 950), Some(used(11_025, 950)));
        // The largest of all; time that was seen is not lost.
        check(4, used(500, 0), None);
        check(302, used(900, 960), None);
        check(303, used(900, 960), Some(used(11_025, 960)));
        check(900, used(900, 960), None);
        check(901, used(100_000, 970), Some(used(100_000, 970)));
        check(902, used(104_000, 980), None);
        check(903, used(105_001, 980), Some(used(105_001, 980)));
    }

    #[test]
    fn jobs_are_measured_often_while_they_are_young() {
        let start = Instant::now();
        let mut meter = Meter::new(start);
        let due = (0..7200).filter(|seconds| meter.is_due(start + Duration::from_secs(*seconds)));
        let due: Vec<u64> = due.collect();
        assert_eq!(due[..8], [1, 2, 3, 5, 8, 12, 18, 27]);
        assert!(due.len() < 140 && due.windows(2).all(|pair| pair[1] - pair[0] <= 61), "{due:?}");
    }

    #[test]
    fn what_runs_is_measured() {
        let scratch = std::env::temp_dir().join(format!("vo-usage-{}", std::process::id()));
        fs::create_dir_all(scratch.join("below")).unwrap();
        fs::write(scratch.join("below/file"), vec![1; 300 << 10]).unwrap();
        let id = AttemptId { job: "1.0".parse().unwrap(), attempt: 1 };
        let own = std::process::id().cast_signed();
        let used = of(vec![(id, own, Some(scratch.clone()))], &[])[0].1;
        fs::remove_dir_all(&scratch).unwrap();
        assert!(used.peak_kib > 500 && (300..1000).contains(&used.disk_kib), "{used:?}");
        assert_eq!(kib_below(&scratch), 0);
    }
}

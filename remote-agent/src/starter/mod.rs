//! The starter: one on each node of a proxy. It calls the event agent back, runs the jobs that the master gives it, and keeps every
//! result until it is acknowledged.
//!
//! Two processes: the guardian (`guardian.rs`), which the proxy script starts, and its child, the starter proper (`driver.rs`), whose
//! decisions are [`vo_core::starter`]'s.

mod blobs;
mod driver;
mod facts;
mod guardian;
mod jobs;
mod link;
mod memory;
mod moving;
mod scratch;
mod tree;
mod usage;

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitCode, ExitStatus};
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::getppid;
use ring::rand::{SecureRandom, SystemRandom};
use vo_core::ids::ProxyId;

use self::scratch::Scratch;
use crate::launch::{self, Launch, SiteDir};

/// Exit code when the starter could not do its work at all: bad arguments, no launch file, an unusable node.
pub const EXIT_UNUSABLE: u8 = 2;

/// What batch systems send before they kill.
const ENDING_SIGNALS: [Signal; 5] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGXCPU, Signal::SIGUSR2];

/// What the proxy script says, in arguments and environment, and the launch file.
#[derive(Debug)]
struct Settings {
    site: SiteDir,
    launch: Launch,
    node_index: u32,
    batch_id: String,
    restarts: u32,
    /// As the batch system says.
    cpus: Option<u32>,
    time_left: Option<Duration>,
    scratch: Scratch,
}

/// The words after `vo-agent starter`.
struct Arguments {
    dir: PathBuf,
    proxy: ProxyId,
    /// In the starter proper: its guardian and its scratch directory.
    child: Option<(u32, PathBuf)>,
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = OsString>) -> Option<Arguments> {
        let (mut dir, mut proxy, mut guardian, mut scratch) = (None, None, None, None);
        while let Some(name) = words.next() {
            let value = words.next()?;
            match name.to_str()? {
                "--dir" => dir = Some(PathBuf::from(value)),
                "--proxy" => proxy = Some(ProxyId(value.to_str()?.parse().ok()?)),
                "--child" => guardian = Some(value.to_str()?.parse().ok()?),
                "--scratch" => scratch = Some(PathBuf::from(value)),
                _ => return None,
            }
        }
        Some(Arguments { dir: dir?, proxy: proxy?, child: guardian.zip(scratch) })
    }
}

/// A number in the environment; what is none counts as absent.
fn number<T: std::str::FromStr>(name: &str) -> Option<T> {
    env::var(name).ok()?.trim().parse().ok()
}

/// Runs `vo-agent starter --dir SESSIONDIR --proxy N`; `args` are the words after `starter`. The proxy script sets `VO_BATCH_ID`,
/// `VO_BATCH_RESTARTS`, `VO_NODE_INDEX`, `VO_NODE_CPUS`, `VO_TIME_LEFT_S` and `VO_SCRATCH`, each of which may be missing.
///
/// Ends with 0 when the starter left in order, with [`EXIT_UNUSABLE`], or as a signal's victim does in a shell.
pub fn main<I>(args: I) -> ExitCode
where
    I: IntoIterator,
    I::Item: Into<OsString>,
{
    let Some(arguments) = Arguments::parse(args.into_iter().map(Into::into)) else {
        return unusable("usage: vo-agent starter --dir DIRECTORY --proxy NUMBER");
    };
    let result = match &arguments.child {
        None => guard(&arguments),
        Some((guardian, scratch)) => work(&arguments, *guardian, scratch),
    };
    result.unwrap_or_else(|e| unusable(&e.to_string()))
}

fn unusable(why: &str) -> ExitCode {
    eprintln!("vo-agent starter: {why}");
    EXIT_UNUSABLE.into()
}

fn read_launch(site: &SiteDir, proxy: ProxyId) -> io::Result<Launch> {
    let path = site.launch(proxy);
    launch::read(&path).map_err(|e| io::Error::new(e.kind(), format!("cannot read {}: {e}", path.display())))
}

fn node_index() -> u32 {
    number("VO_NODE_INDEX").unwrap_or(0)
}

/// The guardian's life.
fn guard(arguments: &Arguments) -> io::Result<ExitCode> {
    let site = SiteDir(arguments.dir.clone());
    let tag = site.tag(arguments.proxy, node_index());
    let watched = read_launch(&site, arguments.proxy).and_then(|launch| {
        guardian::show(&tag, &site.exit_file(arguments.proxy))?;
        let scratch = scratch_dir(&launch, node_index())?;
        // `/proc/self/exe` stays what runs now, also when the file is replaced or removed.
        let mut starter = Command::new("/proc/self/exe");
        // Its name says what it is where one file is two programs.
        starter.arg0(env::args_os().next().unwrap_or_else(|| "vo-agent".into()));
        starter.arg("starter").arg("--dir").arg(&arguments.dir).args(["--proxy", &arguments.proxy.to_string()]);
        starter.args(["--child", &std::process::id().to_string()]).arg("--scratch").arg(&scratch);
        Ok((guardian::watch(&mut starter), scratch))
    });
    let (status, scratch) = match watched {
        Ok((status, scratch)) => (status, scratch),
        // Nothing was started, so nothing runs.
        Err(e) => (Err(e), PathBuf::new()),
    };
    if let Some(signal) = status.as_ref().ok().and_then(ExitStatus::signal) {
        let how = Signal::try_from(signal).map_or_else(|_| format!("signal {signal}"), |signal| signal.to_string());
        guardian::hand_in(&Scratch(scratch.clone()), &site, &how);
    }
    guardian::put_away(&scratch, &tag);
    let status = status?;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(u8::try_from(code).unwrap_or(EXIT_UNUSABLE).into())
}

/// A name that no other starter has, so that a second life on the node never meets the files of the first.
fn scratch_dir(launch: &Launch, node: u32) -> io::Result<PathBuf> {
    let base = launch.scratch.clone().map(OsString::from).or_else(|| env::var_os("VO_SCRATCH"));
    let base = base.filter(|base| base.as_os_str() != OsStr::new("")).unwrap_or_else(|| "/tmp".into());
    let name = format!("vo-{}-{}.{node}-{:016x}", launch.session_id, launch.proxy, random()?);
    Ok(PathBuf::from(base).join(name.replace('/', "_")))
}

fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other("no random numbers"))?;
    Ok(u64::from_ne_bytes(bytes))
}

/// The starter's life.
fn work(arguments: &Arguments, guardian: u32, scratch: &std::path::Path) -> io::Result<ExitCode> {
    SigSet::empty().thread_set_mask()?;
    guardian::adopt_orphans()?;
    prctl::set_pdeathsig(Signal::SIGTERM)?;
    let guarded = || getppid().as_raw().cast_unsigned() == guardian;
    let site = SiteDir(arguments.dir.clone());
    let launch = read_launch(&site, arguments.proxy)?;
    let tag = site.tag(arguments.proxy, node_index());
    let asked = Duration::from_secs(launch.walltime_s);
    let time_left = number("VO_TIME_LEFT_S").map(Duration::from_secs).or_else(|| (!asked.is_zero()).then_some(asked));
    let settings = Settings {
        node_index: node_index(),
        batch_id: env::var("VO_BATCH_ID").unwrap_or_default(),
        restarts: number("VO_BATCH_RESTARTS").unwrap_or(0),
        cpus: number("VO_NODE_CPUS").filter(|cpus| *cpus > 0),
        time_left,
        scratch: Scratch(scratch.to_owned()),
        site,
        launch,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = if guarded() { runtime.block_on(driver::run(settings, &guarded)) } else { Ok(ExitCode::SUCCESS) };
    runtime.shutdown_background();
    if !guarded() {
        // The guardian was killed: its last duties are ours.
        tree::kill_descendants();
        guardian::put_away(scratch, &tag);
    }
    result
}

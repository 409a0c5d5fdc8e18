//! A session over three real clusters, while what can die is killed and what can hang is hung; and the count afterwards.
//!
//! Each job writes into a ledger at its site when it begins and when it ends. The ledgers, the outputs, the history and the
//! job event log are four witnesses that know nothing of each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::testbed::{GRID, MESA, Site, TUNDRA, root, state, testbed};
use crate::{Home, seconds, wait_until};

const SITES: [&Site; 3] = [&TUNDRA, &MESA, &GRID];
const NAME: &str = "endure";
/// In the home of a site's user.
const LEDGER: &str = "endure.ledger";
/// After the last fault, all must complete within this beyond the time that the jobs need.
const PATIENCE: Duration = seconds(900);

/// What to do.
#[derive(Debug)]
pub struct Plan {
    /// Faults, one after the other.
    pub rounds: u64,
    /// Jobs of the one cluster.
    pub jobs: usize,
    /// How long a job runs.
    pub seconds: u64,
    /// Draws the faults.
    pub seed: u64,
    /// Which faults may come.
    pub faults: Vec<Fault>,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan { rounds: 50, jobs: 2000, seconds: 3, seed: 1, faults: Fault::ALL.to_vec() }
    }
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The master is killed; the session is brought back at once.
    Master,
    /// A site's event agent is killed.
    Agent,
    /// The bridge between SSH and the event agent is killed.
    Bridge,
    /// The sshd that serves our connection is killed.
    Sshd,
    /// One starter on a node is killed.
    Starter,
    /// All of ours on a node is killed, jobs too.
    Node,
    /// The link is silent for a while.
    Cut,
    /// The link refuses everything for a while.
    Reset,
    /// The gateway is power-cycled.
    RebootGateway,
    /// A node is power-cycled.
    RebootNode,
    /// The batch system's controller hangs for a while.
    Hung,
    /// The controller is killed, and started after a while.
    Stopped,
    /// The gateway's munged is killed, and started after a while: no batch command works.
    Munge,
    /// The user's home is full for a while.
    FullHome,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 14] = [
        Fault::Master,
        Fault::Agent,
        Fault::Bridge,
        Fault::Sshd,
        Fault::Starter,
        Fault::Node,
        Fault::Cut,
        Fault::Reset,
        Fault::RebootGateway,
        Fault::RebootNode,
        Fault::Hung,
        Fault::Stopped,
        Fault::Munge,
        Fault::FullHome,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Master => "master",
            Fault::Agent => "agent",
            Fault::Bridge => "bridge",
            Fault::Sshd => "sshd",
            Fault::Starter => "starter",
            Fault::Node => "node",
            Fault::Cut => "cut",
            Fault::Reset => "reset",
            Fault::RebootGateway => "reboot-gateway",
            Fault::RebootNode => "reboot-node",
            Fault::Hung => "hung",
            Fault::Stopped => "stopped",
            Fault::Munge => "munge",
            Fault::FullHome => "full-home",
        }
    }

    /// Does it stay until it is undone?
    fn lasts(self) -> bool {
        matches!(self, Fault::Cut | Fault::Reset | Fault::Hung | Fault::Stopped | Fault::Munge | Fault::FullHome)
    }
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Tally {
    /// Faults that hit something.
    pub faults: BTreeMap<Fault, u32>,
    /// Jobs.
    pub jobs: usize,
    /// From submission to the last completion.
    pub took: Duration,
    /// Jobs that completed at each site.
    pub at: BTreeMap<String, usize>,
    /// Executions that began, and that ended by themselves.
    pub executions: (usize, usize),
    /// Entries of the job event log that tell of an end.
    pub logged: usize,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<_> = self.faults.iter().map(|(fault, count)| format!("{} {count}", fault.name())).collect();
        let hits: u32 = self.faults.values().sum();
        writeln!(f, "{hits} faults: {}", faults.join(", "))?;
        writeln!(f, "{} jobs in {} s, by site: {:?}", self.jobs, self.took.as_secs(), self.at)?;
        writeln!(f, "executions: {} begun, {} ended by themselves", self.executions.0, self.executions.1)?;
        writeln!(f, "event log: {} ends", self.logged)?;
        write!(f, "lost 0, counted twice 0, started after the result was known 0, outputs wrong 0, left behind 0")
    }
}

/// Numbers of a seed (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}

/// A fault that lasts; undone when dropped, whatever happens.
struct Lasting {
    fault: Fault,
    site: &'static Site,
    until: Instant,
}

impl Drop for Lasting {
    fn drop(&mut self) {
        let (site, gateway, manager) = (self.site, self.site.gateway(), format!("{}-mgr", self.site.name));
        match self.fault {
            Fault::Cut | Fault::Reset => drop(testbed(&["heal", site.name])),
            Fault::Hung => drop(root(&manager, &format!("pkill -CONT -x {}", controller(site)))),
            Fault::Stopped if site.batch == "slurm" => drop(root(&manager, "/usr/sbin/slurmctld")),
            Fault::Stopped => drop(root(
                &manager,
                "SGE_ROOT=/var/lib/gridengine SGE_CELL=default SGE_MASTER_PIDFILE=/run/gridengine/qmaster.pid /usr/sbin/sge_qmaster",
            )),
            Fault::Munge => drop(root(&gateway, "runuser -u munge -- /usr/sbin/munged --num-threads=2 --force")),
            Fault::FullHome => drop(testbed(&["unfill", site.name])),
            _ => {}
        }
    }
}

fn controller(site: &Site) -> &'static str {
    if site.batch == "slurm" { "slurmctld" } else { "sge_qmaster" }
}

/// Does a line of shell, as root on a host, find something to do?
fn hits(host: &str, line: &str) -> bool {
    root(host, &format!("{line} && echo did")).lines().any(|line| line == "did")
}

/// Runs the plan. Panics, with what is wrong, if something is.
pub fn endure(plan: &Plan) -> Tally {
    for site in SITES {
        site.assert_nothing_left();
        site.sh(&format!("rm -f {LEDGER}.*"));
    }
    let home = Home::on_testbed();
    let site = |site: &Site| format!("[[site]]\ngateway = \"{}\"\n", site.plain());
    // A node that is lost is given up after a minute instead of ten.
    let conf = format!("[session]\nlease = \"60s\"\n{}", SITES.map(site).concat());
    home.write("vo.conf", conf);
    home.script(
        "work.sh",
        &format!(
            "#!/bin/sh\necho \"begun $1 $(date +%s%3N)\" >> ~/{LEDGER}.$(hostname)\nsleep {}\necho \"ended $1 $(date +%s%3N)\" >> ~/{LEDGER}.$(hostname)\necho \"result of $1\"\n",
            plan.seconds
        ),
    );
    home.write(
        "work.sub",
        format!(
            "executable = work.sh\narguments = $(Process)\noutput = out.$(Process)\nlog = events\nshould_transfer_files = YES\nqueue {}\n",
            plan.jobs
        ),
    );
    home.vo(["-H", "vo.conf", "-s", NAME, "--keep", "-n", "2:4", "-W", "55", "-c", "submit work.sub"]).ok();
    let begun = Instant::now();
    let mut tally = Tally { jobs: plan.jobs, ..Tally::default() };
    let mut dice = Dice(plan.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut lasting: Vec<Lasting> = Vec::new();
    let completed = || history(&home).len();
    for round in 1..=plan.rounds {
        let pause = Duration::from_millis(500 + dice.below(4500));
        let next = Instant::now() + pause;
        while Instant::now() < next {
            lasting.retain(|fault| fault.until > Instant::now());
            std::thread::sleep(Duration::from_millis(50));
        }
        let fault = dice.pick(&plan.faults);
        let site = dice.pick(&SITES);
        let length = seconds(5 + dice.below(20));
        let nodes: Vec<String> = site.nodes().collect();
        let node = &nodes[dice.below(nodes.len() as u64) as usize];
        // Two lasting faults of a site would undo each other, and a host that boots finds no daemon to stop.
        let busy = lasting.iter().any(|l| l.site.name == site.name);
        let hit = (!busy || !(fault.lasts() || matches!(fault, Fault::RebootGateway | Fault::RebootNode)))
            && strike(&home, fault, site, node);
        if hit {
            *tally.faults.entry(fault).or_default() += 1;
            if fault.lasts() {
                lasting.push(Lasting { fault, site, until: Instant::now() + length });
            }
        }
        eprintln!(
            "{:>5} s  round {round}: {} at {}{}; {} of {} completed",
            begun.elapsed().as_secs(),
            fault.name(),
            site.name,
            if hit { "" } else { " (nothing there)" },
            completed(),
            plan.jobs
        );
    }
    lasting.clear();

    let slots = 24;
    let limit = begun.elapsed() + seconds(plan.jobs as u64 * plan.seconds / slots) + PATIENCE;
    wait_until("the completion of all jobs", limit, || {
        std::thread::sleep(seconds(1));
        (completed() >= plan.jobs).then_some(())
    });
    tally.took = begun.elapsed();
    count(&home, plan, &mut tally);
    home.end(NAME);
    home.assert_nothing_left();
    for site in SITES {
        site.sh(&format!("rm -f {LEDGER}.*"));
        // A batch system that was hung or restarted takes its time to clean up.
        wait_until(&format!("nothing left at {}", site.name), seconds(120), || {
            (site.batch_jobs().is_empty() && site.processes().is_empty() && site.files().is_empty()).then_some(())
        });
    }
    tally
}

/// All that the session says has ended.
fn history(home: &Home) -> Vec<Value> {
    home.vo(["-s", NAME, "-c", "history --json"]).ok().json().as_array().cloned().expect("a list")
}

/// The ledgers' lines: what, job, and when in milliseconds. The hosts share this machine's clock.
fn ledger() -> Vec<(String, usize, u64)> {
    let mut lines = Vec::new();
    for site in SITES {
        let home = state().join("sites").join(site.name).join("home").join(site.user);
        for entry in fs::read_dir(&home).expect("the site's home").filter_map(Result::ok) {
            if !entry.file_name().to_string_lossy().starts_with(LEDGER) {
                continue;
            }
            let text = fs::read_to_string(entry.path()).expect("a ledger");
            lines.extend(text.lines().filter_map(|line| {
                let mut words = line.split(' ');
                Some((words.next()?.to_owned(), words.next()?.parse().ok()?, words.next()?.parse().ok()?))
            }));
        }
    }
    lines
}

/// Hears the four witnesses.
fn count(home: &Home, plan: &Plan, tally: &mut Tally) {
    let history = history(home);
    let mut ended = BTreeMap::new();
    for job in &history {
        let proc = job["proc"].as_u64().expect("a number") as usize;
        assert_eq!((&job["state"], job["exit_code"].as_u64()), (&"completed".into(), Some(0)), "{job:#}");
        assert!(ended.insert(proc, job["ended_ms"].as_u64().expect("a time")).is_none(), "listed twice: {job:#}");
        *tally.at.entry(job["site"].as_str().expect("a site").to_owned()).or_default() += 1;
    }
    let lost: Vec<_> = (0..plan.jobs).filter(|job| !ended.contains_key(job)).collect();
    assert!(lost.is_empty() && ended.len() == plan.jobs, "lost: {lost:?}");

    let wrong: Vec<_> =
        (0..plan.jobs).filter(|job| home.read(format!("out.{job}")) != format!("result of {job}\n")).collect();
    assert!(wrong.is_empty(), "outputs of {wrong:?} are not what they should be");
    let files = fs::read_dir(home.work("")).expect("our own directory").count();
    assert_eq!(files, plan.jobs + 4, "the outputs, the event log, the three files written here, and nothing else");

    let mut ends = vec![0; plan.jobs];
    let log = home.read("events");
    for line in log.lines().filter(|line| line.starts_with("005 (001.")) {
        let proc = line.split('.').nth(1).and_then(|proc| proc.parse::<usize>().ok()).expect("an id");
        ends[proc] += 1;
        tally.logged += 1;
    }
    let otherwise: Vec<_> = (0..plan.jobs).filter(|job| ends[*job] != 1).map(|job| (job, ends[job])).collect();
    assert!(otherwise.is_empty(), "the event log does not tell of one end: {otherwise:?}");

    let ledger = ledger();
    let of = |what: &str| ledger.iter().filter(|(word, ..)| word == what).count();
    tally.executions = (of("begun"), of("ended"));
    let ran: BTreeSet<usize> = ledger.iter().filter(|(what, ..)| what == "ended").map(|(_, job, _)| *job).collect();
    assert_eq!(ran.len(), plan.jobs, "each job ran to its end somewhere");
    // A message may be on its way to a node while the result is stored.
    let late: Vec<_> = ledger.iter().filter(|(what, job, at)| what == "begun" && *at > ended[job] + 2000).collect();
    assert!(late.is_empty(), "started after the result was known: {late:?}");
}

/// Does the damage; did it hit something?
fn strike(home: &Home, fault: Fault, site: &'static Site, node: &str) -> bool {
    let (gateway, manager, user) = (site.gateway(), format!("{}-mgr", site.name), site.user);
    let killed = |host: &str, pattern: &str| hits(host, &format!("pkill -KILL -u {user} -f '{pattern}'"));
    match fault {
        Fault::Master => {
            let sessions = home.vo(["-l", "--json"]).ok().json();
            let pid = sessions[0]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).expect("the master runs");
            kill(Pid::from_raw(pid), Signal::SIGKILL).expect("our own process");
            wait_until("the master's end", seconds(10), || {
                (!fs::exists(format!("/proc/{pid}")).unwrap_or(true)).then_some(())
            });
            let mut terminal = home.terminal(["-r", NAME]);
            terminal.within(seconds(120)).prompt();
            true
        }
        Fault::Agent => killed(&gateway, "[v]o-agent event"),
        Fault::Bridge => killed(&gateway, "[v]o-agent connect"),
        Fault::Sshd => killed(&gateway, "[s]shd: "),
        Fault::Starter => {
            // Guardian or starter, whichever comes first in the list.
            hits(node, &format!("pgrep -u {user} -f '[v]o-agent starter' | shuf -n 1 | xargs -r kill -KILL"))
        }
        Fault::Node => hits(node, &format!("pkill -KILL -u {user}")),
        Fault::Cut => {
            testbed(&["cut", site.name]);
            true
        }
        Fault::Reset => {
            testbed(&["cut", site.name, "--reset"]);
            true
        }
        Fault::RebootGateway => {
            testbed(&["reboot", &gateway]);
            true
        }
        Fault::RebootNode => {
            testbed(&["reboot", node]);
            true
        }
        Fault::Hung => hits(&manager, &format!("pkill -STOP -x {}", controller(site))),
        Fault::Stopped => hits(
            &manager,
            &format!("pkill -KILL -x {0} && while pgrep -x {0} >/dev/null; do sleep 0.05; done", controller(site)),
        ),
        Fault::Munge => site.batch == "slurm" && hits(&gateway, "pkill -KILL -x munged"),
        Fault::FullHome => {
            testbed(&["fill", site.name]);
            true
        }
    }
}

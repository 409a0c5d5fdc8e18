//! Benchmarks over a local site. Each figure is the median of several rounds; what is compared is measured in the same round.
//!
//! CPU time is that of every process of ours and of the jobs together: this program is a subreaper, so whatever detaches itself
//! becomes its child again, and the kernel's count of waited-for children holds it all once the last one has ended.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark that can't go on stops")]

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::time::TimeVal;
use nix::sys::wait::wait;
use nix::unistd::Pid;
use vo_tests::{Home, binary, seconds, wait_until};

const USAGE: &str = "\
usage: tests/bench/run [--rounds N] [--jobs N] [--minutes N] [FIGURE...]

  jobs     /bin/true, two at a time, against a loop of posix_spawn with two in flight   (--jobs 10000)
  submit   queue 100000: time, and memory of the master for each job
  start    from the start of the program to the prompt
  latency  from submit to the job's start, idle pool
  agent    size of the program; memory of an event agent that knows 100 proxies
  idle     CPU time of a session without work                                          (--minutes 10)
  recover  from `vo-login -r` to the prompt after kill -9 of the master, by jobs in the store
  durable  calls of fsync and the like for each 1000 jobs, counted by strace             (--jobs 10000)

Without FIGURE all are measured. A figure is the median of --rounds rounds (5).
";

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (mut rounds, mut jobs, mut minutes, mut figures) = (5, 10_000, 10, Vec::new());
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|n| n.parse().ok()).unwrap_or_else(|| usage());
        match argument.as_str() {
            "--rounds" => rounds = number(),
            "--jobs" => jobs = number(),
            "--minutes" => minutes = number(),
            "--bare" => return bare(number()),
            "jobs" | "submit" | "start" | "latency" | "agent" | "idle" | "recover" | "durable" => {
                figures.push(argument)
            }
            _ => usage(),
        }
    }
    nix::sys::prctl::set_child_subreaper(true).expect("Linux has subreapers");
    let wanted = |figure: &str| figures.is_empty() || figures.iter().any(|wanted| wanted == figure);
    if wanted("jobs") {
        job_rate(rounds, jobs);
    }
    if wanted("submit") {
        submit(rounds);
    }
    if wanted("start") {
        start(rounds);
    }
    if wanted("latency") {
        latency(rounds);
    }
    if wanted("agent") {
        agent();
    }
    if wanted("idle") {
        idle(minutes);
    }
    if wanted("recover") {
        recover(rounds);
    }
    if wanted("durable") {
        durable(jobs);
    }
}

fn usage() -> ! {
    eprint!("{USAGE}");
    std::process::exit(2)
}

/// The bare loop: `count` times `/bin/true`, two in flight, by posix_spawn.
fn bare(count: u64) {
    let spawn = || Command::new("/bin/true").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut flying: Vec<Child> = Vec::new();
    for _ in 0..count {
        if flying.len() == 2 {
            let ended = wait().expect("two children run").pid().expect("it has ended").as_raw();
            flying.retain(|child| child.id() != ended.cast_unsigned());
        }
        flying.push(spawn().expect("/bin/true can be run"));
    }
    while wait().is_ok() {}
}

fn job_rate(rounds: u64, count: u64) {
    let mut columns: [Vec<f64>; 4] = Default::default();
    for round in 0..rounds {
        let bare = |measured: &mut [f64; 4]| {
            let before = children_cpu();
            let clock = Instant::now();
            let me = std::env::current_exe().expect("this program has a path");
            let status = Command::new(me).args(["--bare", &count.to_string()]).status().expect("it can be run");
            assert!(status.success());
            measured[0] = clock.elapsed().as_secs_f64();
            measured[1] = (children_cpu() - before).as_secs_f64();
        };
        let ours = |measured: &mut [f64; 4]| {
            let before = children_cpu();
            let home = Home::new();
            home.write("t.sub", format!("executable = /bin/true\nqueue {count}\n"));
            home.vo(["-s", "b", "-n", "1:2", "--keep", "-c", "true"]).ok();
            let clock = Instant::now();
            home.vo(["-s", "b", "-c", "submit t.sub; wait -q"]).ok();
            measured[2] = clock.elapsed().as_secs_f64();
            home.end("b");
            home.wait_for_no_process();
            reap();
            measured[3] = (children_cpu() - before).as_secs_f64();
        };
        let mut measured = [0.0; 4];
        // Turn and turn about, so that a machine that warms up favours neither.
        if round % 2 == 0 {
            bare(&mut measured);
            ours(&mut measured);
        } else {
            ours(&mut measured);
            bare(&mut measured);
        }
        for (column, value) in columns.iter_mut().zip(measured) {
            column.push(value);
        }
    }
    let [bare_wall, bare_cpu, our_wall, our_cpu] = &columns;
    let ratios =
        |ours: &[f64], bare: &[f64]| median(&ours.iter().zip(bare).map(|(ours, bare)| ours / bare).collect::<Vec<_>>());
    println!("jobs: {count} x /bin/true, two at a time");
    println!("  bare loop   wall {:.2} s, CPU {:.2} s", median(bare_wall), median(bare_cpu));
    println!(
        "  vo-login    wall {:.2} s (submit and wait), CPU {:.2} s (session and jobs, start to end)",
        median(our_wall),
        median(our_cpu)
    );
    println!("  ratio       wall {:.2}, CPU {:.2}", ratios(our_wall, bare_wall), ratios(our_cpu, bare_cpu));
}

fn submit(rounds: u64) {
    const JOBS: u64 = 100_000;
    let (mut times, mut bytes) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let home = Home::new();
        home.write("t.sub", format!("executable = /bin/sleep\narguments = 10000\nqueue {JOBS}\n"));
        home.vo(["-s", "b", "-n", "1:2", "--keep", "-c", "true"]).ok();
        let master = process(&home, " master");
        let before = resident(master);
        times.push(
            home.command(home.session_dir("b").join("shell/bin/submit"))
                .args(["-s", "b", "t.sub"])
                .timed()
                .as_secs_f64(),
        );
        bytes.push((resident(master) - before) as f64 / JOBS as f64);
        home.end("b");
    }
    println!(
        "submit: queue {JOBS}\n  {:.3} s, {:.1} bytes of resident memory of the master for each job",
        median(&times),
        median(&bytes)
    );
}

fn start(rounds: u64) {
    let times: Vec<f64> = (0..rounds)
        .map(|_| {
            let home = Home::new();
            let clock = Instant::now();
            let mut terminal = home.terminal([] as [&str; 0]);
            terminal.prompt();
            let time = clock.elapsed();
            terminal.type_line("exit");
            assert_eq!(terminal.exit_code(), 0);
            time.as_secs_f64()
        })
        .collect();
    println!("start: {:.3} s from the start of the program to the prompt", median(&times));
}

fn latency(rounds: u64) {
    let home = Home::new();
    home.write("t.sub", "executable = /bin/date\narguments = +%s%N\noutput = now\nqueue\n");
    home.vo(["-s", "b", "-n", "1:2", "--keep", "-c", "true"]).ok();
    let submit = home.session_dir("b").join("shell/bin/submit");
    let (mut from_command, mut from_acceptance) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        let before = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_nanos();
        home.command(&submit).args(["-s", "b", "t.sub"]).timed();
        home.vo(["-s", "b", "-c", "wait -q"]).ok();
        let ran: u128 = home.read("now").trim().parse().expect("nanoseconds");
        from_command.push((ran.saturating_sub(before)) as f64 / 1e6);
        let job = &home.vo(["-s", "b", "-c", &format!("history --json {round}")]).ok().json()[0];
        let time = |key: &str| job[key].as_f64().expect("a time");
        from_acceptance.push(time("started_ms") - time("submitted_ms"));
    }
    home.end("b");
    println!(
        "latency: the job's program ran {:.1} ms after `submit` was started, {:.0} ms after the job was durable",
        median(&from_command),
        median(&from_acceptance)
    );
}

fn agent() {
    let size = fs::metadata(binary("vo-agent")).expect("it is there").len();
    let home = Home::new();
    home.vo(["-s", "b", "-n", "100:1", "--keep", "-c", "true"]).ok();
    let known = wait_until("100 proxies", seconds(120), || {
        let proxies = home.vo(["-s", "b", "-c", "proxies --json"]).ok().json().as_array().map_or(0, Vec::len);
        (proxies >= 100).then_some(proxies)
    });
    let resident = resident(process(&home, " event"));
    home.end("b");
    println!(
        "agent: {:.2} MB on disk; {:.1} MB resident with {known} proxies, all connected",
        size as f64 / 1e6,
        resident as f64 / 1e6
    );
}

fn idle(minutes: u64) {
    let home = Home::new();
    home.vo(["-s", "b", "-n", "1:2", "--keep", "-c", "true"]).ok();
    wait_until("the starter", seconds(30), || {
        home.processes().iter().find(|(_, line)| line.contains(" starter")).map(drop)
    });
    let parts = [" master", " event", " starter"].map(|name| (name, process(&home, name)));
    let before = parts.map(|(_, pid)| cpu(pid));
    std::thread::sleep(Duration::from_secs(60 * minutes));
    println!("idle: CPU over {minutes} minutes");
    for ((name, pid), before) in parts.into_iter().zip(before) {
        println!("  {:8} {:.2} s", name.trim(), cpu(pid) - before);
    }
    home.end("b");
}

fn recover(rounds: u64) {
    println!("recover: from `vo-login -r` to the prompt");
    let waiting = "executable = /bin/sleep\narguments = 10000\nqueue";
    let ran = "executable = /bin/true\nqueue";
    let stores = [("that wait", waiting), ("that ran", ran)].into_iter();
    for (what, submit, jobs) in stores.flat_map(|(what, submit)| [100_000, 1_000_000].map(|jobs| (what, submit, jobs)))
    {
        let home = Home::new();
        home.write("t.sub", format!("{submit} {jobs}\n"));
        home.vo(["-s", "b", "-n", "1:2", "--keep", "-c", "submit t.sub"]).ok();
        if submit == ran {
            home.command(binary("vo-login")).args(["-s", "b", "-c", "wait -q"]).timed();
        }
        let mut resident_after = 0;
        let times: Vec<f64> = (0..rounds)
            .map(|_| {
                let master = process(&home, " master");
                kill(Pid::from_raw(master), Signal::SIGKILL).expect("our own process");
                wait_until("the master's end", seconds(10), || {
                    (!fs::exists(format!("/proc/{master}/exe")).unwrap_or(true)).then_some(())
                });
                let clock = Instant::now();
                let mut terminal = home.terminal(["-r", "b"]);
                terminal.prompt();
                resident_after = resident(process(&home, " master"));
                clock.elapsed().as_secs_f64()
            })
            .collect();
        let store = home.session_dir("b").join("store");
        let bytes: u64 = fs::read_dir(store)
            .expect("it is there")
            .filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()))
            .sum();
        println!(
            "  {jobs:>9} jobs {what}: {:.3} s; the store has {:.1} MB, the master {:.1} MB resident",
            median(&times),
            bytes as f64 / 1e6,
            resident_after as f64 / 1e6
        );
        home.end("b");
    }
}

fn durable(jobs: u64) {
    println!("durable: calls for each 1000 jobs of {jobs}, two at a time");
    for (what, output) in [("without outputs", ""), ("with an output file each", "output = out.$(Process)\n")] {
        let home = Home::new();
        home.write("t.sub", format!("executable = /bin/echo\narguments = $(Process)\n{output}queue {jobs}\n"));
        home.vo(["-s", "b", "-n", "1:2", "--keep", "-c", "true"]).ok();
        let counts = home.path().join("counts");
        let mut strace = Command::new("strace")
            .args(["-f", "-c", "-e", "trace=fsync,fdatasync,syncfs", "-o"])
            .arg(&counts)
            .args(["-p", &process(&home, " master").to_string()])
            .stderr(Stdio::null())
            .spawn()
            .expect("strace is installed");
        home.vo(["-s", "b", "-c", "submit t.sub; wait -q"]).ok();
        kill(Pid::from_raw(strace.id().cast_signed()), Signal::SIGINT).expect("our own child");
        strace.wait().expect("our own child");
        let table = fs::read_to_string(counts).expect("strace writes its table");
        // Columns: % time, seconds, usecs/call, calls, [errors], syscall.
        for line in table.lines().filter(|line| line.trim_end().ends_with("sync") || line.contains("syncfs")) {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let (Some(calls), Some(name)) = (words.get(3).and_then(|n| n.parse::<f64>().ok()), words.last()) {
                println!("  {what}: {:.1} {name}", calls * 1000.0 / jobs as f64);
            }
        }
        home.end("b");
    }
}

/// Runs a command to its end; panics unless it succeeds.
trait Timed {
    fn timed(&mut self) -> Duration;
}

impl Timed for Command {
    fn timed(&mut self) -> Duration {
        let clock = Instant::now();
        let status = self.stdout(Stdio::null()).status().expect("it can be run");
        assert!(status.success(), "{self:?}: {status}");
        clock.elapsed()
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// CPU time of all children waited for, and of theirs.
fn children_cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("it can be asked");
    let time = |value: TimeVal| {
        Duration::new(value.tv_sec().cast_unsigned(), 0) + Duration::from_micros(value.tv_usec().cast_unsigned())
    };
    time(usage.user_time()) + time(usage.system_time())
}

/// Waits for the children that came to us because their parents ended.
fn reap() {
    while wait() != Err(Errno::ECHILD) {}
}

/// The process of `home` whose command line has this word.
fn process(home: &Home, word: &str) -> i32 {
    let processes = home.processes();
    processes
        .iter()
        .find(|(_, command)| command.contains(word))
        .unwrap_or_else(|| panic!("no{word} in {processes:#?}"))
        .0
}

/// Resident memory in bytes.
fn resident(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("every process has it");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// CPU time in seconds so far.
fn cpu(pid: i32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    // Fields 14 and 15 of proc(5), in clock ticks of 1/100 s.
    after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / 100.0
}

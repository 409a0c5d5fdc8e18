//! What jobs ask to become of them: when they end, and from time to time.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use vo_tests::{Home, seconds, wait_until};

/// A program that counts its runs in `runs`, and ends as its argument says for each of them, the last for all more: `3`, or `-KILL`.
const ENDS: &str = "#!/bin/sh
echo run >> runs
n=$(wc -l < runs)
[ $n -le $# ] || n=$#
eval end=\\${$n}
case $end in -*) kill $end $$;; *) exit $end;; esac
";

/// A session `t` with one local proxy that looks at jobs every second.
fn session() -> Home {
    let home = Home::new();
    home.write("vo.conf", "[session]\npolicy_interval = \"1s\"\n[[site]]\ngateway = \"local\"\nproxies = \"1:2\"\n");
    home.script("ends.sh", ENDS);
    home.vo(["-H", "vo.conf", "-s", "t", "--keep", "-c", "true"]).ok();
    home
}

fn kill_master(home: &Home) {
    let sessions = home.vo(["-l", "--json"]).ok().json();
    let pid = i32::try_from(sessions[0]["pid"].as_i64().unwrap()).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    wait_until("its end", seconds(10), || (!std::fs::exists(format!("/proc/{pid}")).unwrap()).then_some(()));
}

fn end(home: &Home) {
    home.end("t");
    home.assert_nothing_left();
}

fn submit(home: &Home, description: &str) {
    let _ = std::fs::remove_file(home.work("runs"));
    home.write("t.sub", description);
    home.vo(["-s", "t", "-c", "submit t.sub"]).ok();
}

/// The job of a cluster.
fn job(home: &Home, cluster: u32) -> Value {
    home.vo(["-s", "t", "-c", &format!("q --all --json {cluster}")]).ok().json()[0].clone()
}

fn once(home: &Home, cluster: u32, state: &str) -> Value {
    wait_until(state, seconds(60), || Some(job(home, cluster)).filter(|job| job["state"] == state))
}

fn runs(home: &Home) -> usize {
    home.read("runs").lines().count()
}

fn why(home: &Home, cluster: u32) -> String {
    home.vo(["-s", "t", "-c", &format!("why {cluster}.0")]).ok().stdout
}

/// What the event log has to say, entry by entry, once it has as many; but for what jobs use.
fn events(home: &Home, count: usize) -> Vec<String> {
    wait_until("the entries of the event log", seconds(30), || {
        let all = home.read("log");
        let events: Vec<String> =
            all.split("...\n").filter(|event| !event.starts_with("006")).map(str::to_owned).collect();
        (events.len() > count).then_some(events)
    })
}

#[test]
fn a_job_is_tried_again_as_often_as_it_asks() {
    let home = session();
    // The end of each run; the runs there are, how the job counts, what `wait` says of it.
    let cases = [
        ("max_retries = 3\narguments = 1 -KILL 0", 3, Some(0), 0),
        ("max_retries = 1\narguments = 1 2 0", 2, Some(2), 7),
        ("max_retries = 5\nretry_until = 4\narguments = 1 4 0", 2, Some(4), 7),
        ("max_retries = 5\nretry_until = ExitBySignal\narguments = 1 -TERM 0", 2, None, 7),
        ("max_retries = 5\nsuccess_exit_code = 3\narguments = 0 3 1", 2, Some(3), 0),
        ("success_exit_code = 3\nmax_retries = 0\narguments = 0 3", 1, Some(0), 7),
        ("on_exit_remove = NumJobCompletions >= 4 || ExitCode =?= 9\narguments = 0 1 0 1 0", 4, Some(1), 7),
    ];
    for ((commands, expected, code, waits), cluster) in cases.into_iter().zip(1..) {
        submit(&home, &format!("executable = ends.sh\n{commands}\nqueue\n"));
        home.vo(["-s", "t", "-c", &format!("wait --timeout 60s {cluster}")]).code(waits);
        let job = job(&home, cluster);
        assert_eq!((runs(&home), job["exit_code"].as_i64()), (expected, code), "{commands}: {job:#}");
        assert_eq!((&job["state"], job["attempts"].as_u64()), (&Value::from("completed"), Some(expected as u64)));
    }
    end(&home);
}

#[test]
fn what_became_of_a_job_is_told() {
    let home = session();
    submit(&home, "executable = ends.sh\narguments = 1 0\nmax_retries = 2\nlog = log\nqueue\n");
    home.vo(["-s", "t", "-c", "wait --timeout 60s 1"]).ok();
    let rule = "OnExitRemove expression 'NumJobCompletions > JobMaxRetries || ExitCode =?= 0' evaluated to FALSE";
    let told = why(&home, 1);
    for words in ["attempt 1 ended with exit code 1", rule, "the job is idle again", "attempt 2 ended with exit code 0"]
    {
        assert!(told.contains(words), "{told}");
    }
    let events = events(&home, 5);
    let codes: Vec<&str> = events.iter().filter_map(|event| event.get(..3)).collect();
    assert_eq!(codes, ["000", "001", "004", "001", "005"], "{events:#?}");
    assert!(events[2].contains("(0) Job terminated and was requeued"), "{}", events[2]);
    assert!(events[2].contains("(1) Normal termination (return value 1)"), "{}", events[2]);
    end(&home);
}

#[test]
fn a_job_that_ends_badly_is_held_until_it_is_released() {
    let home = session();
    submit(
        &home,
        "executable = ends.sh
arguments = 4 0
log = log
on_exit_hold = ExitCode == 4
on_exit_hold_reason = strcat(\"ended with \", string(ExitCode))
on_exit_hold_subcode = 40 + ExitCode
queue
",
    );
    let held = once(&home, 1, "held");
    assert_eq!(held["reason"], "ended with 4");
    assert!(events(&home, 3)[2].contains("Job was held.\n\tended with 4\n\tCode 3 Subcode 44"));
    assert!(why(&home, 1).contains("held: ended with 4"));
    home.vo(["-s", "t", "-c", "release 1; wait --timeout 60s 1"]).ok();
    assert_eq!(runs(&home), 2);
    end(&home);
}

#[test]
fn jobs_may_be_submitted_on_hold() {
    let home = session();
    submit(&home, "executable = ends.sh\narguments = 0\nhold = true\nqueue 2\n");
    let held = home.vo(["-s", "t", "-c", "q --hold --json 1"]).ok().json();
    let reasons: Vec<_> = held.as_array().unwrap().iter().map(|job| job["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["submitted on hold at user's request"; 2]);
    home.vo(["-s", "t", "-c", "release 1.1; wait --timeout 60s 1.1"]).ok();
    assert_eq!((runs(&home), job(&home, 1)["state"].as_str()), (1, Some("held")));
    home.vo(["-s", "t", "-c", "rm 1"]).ok();
    end(&home);
}

#[test]
fn jobs_are_held_released_and_removed_as_they_ask() {
    let home = session();
    let sleep = "executable = /bin/sleep\narguments = 600\nlog = log\n";
    submit(&home, &format!("{sleep}periodic_remove = JobStatus == 2 && time() - JobCurrentStartDate > 1\nqueue\n"));
    once(&home, 1, "removed");
    assert!(why(&home, 1).contains("removed: The job attribute PeriodicRemove expression"));
    assert!(events(&home, 3)[2].starts_with("009 (001.000.000)"));
    submit(&home, &format!("{sleep}allowed_execute_duration = 1\nqueue\n"));
    assert_eq!(once(&home, 2, "held")["reason"], "The job exceeded allowed execute duration of 00:00:01");
    assert!(events(&home, 6)[5].contains("Code 47 Subcode 0"));
    submit(
        &home,
        &format!(
            "{sleep}allowed_job_duration = 1\nperiodic_release = HoldReasonCode == 46 && NumJobStarts < 2\nperiodic_remove = JobStatus == 5 && NumJobStarts == 2\nqueue\n"
        ),
    );
    assert_eq!(once(&home, 3, "removed")["attempts"], 2);
    // Idle ones, too: nothing here has so many processors.
    submit(
        &home,
        "executable = /bin/true\nrequest_cpus = 99\nperiodic_hold = QDate < time() && JobStatus == 1\nperiodic_hold_reason = \"waited\"\nperiodic_hold_subcode = 5\nqueue\n",
    );
    assert_eq!(once(&home, 4, "held")["reason"], "waited");
    // What the user holds, no expression releases.
    submit(&home, "executable = /bin/true\nhold = true\nperiodic_release = true\nqueue\n");
    once(&home, 5, "completed");
    submit(&home, &format!("{sleep}periodic_vacate = NumJobStarts < 2\nqueue\n"));
    let again = wait_until("its second attempt", seconds(60), || {
        Some(job(&home, 6)).filter(|job| job["state"] == "running" && job["attempts"] == 2)
    });
    assert_eq!(again["exit_code"], Value::Null);
    home.vo(["-s", "t", "-c", "condor_rm -all"]).ok();
    end(&home);
}

#[test]
fn a_master_that_was_killed_knows_how_often_a_job_was_tried() {
    let home = session();
    let text = "#!/bin/sh\necho run >> runs\nwhile [ -e wait -a $(wc -l < runs) -eq 2 ]; do sleep 0.05; done\nexit 1\n";
    home.script("slow.sh", text);
    home.write("wait", "");
    submit(&home, "executable = slow.sh\nmax_retries = 2\nlog = log\nqueue\n");
    wait_until("the second run", seconds(60), || (home.work("runs").exists() && runs(&home) == 2).then_some(()));
    kill_master(&home);
    std::fs::remove_file(home.work("wait")).unwrap();
    home.terminal(["-r", "t"]).within(seconds(60)).prompt();
    home.vo(["-s", "t", "-c", "wait --timeout 60s 1"]).code(7);
    assert_eq!((runs(&home), job(&home, 1)["attempts"].as_u64()), (3, Some(3)));
    let codes: Vec<String> = events(&home, 7).iter().filter_map(|event| event.get(..3).map(str::to_owned)).collect();
    assert_eq!(codes.iter().filter(|code| *code == "004").count(), 2, "{codes:?}");
    assert_eq!(codes.iter().filter(|code| *code == "005").count(), 1, "{codes:?}");
    end(&home);
}

#[test]
fn jobs_are_killed_as_they_ask() {
    let home = session();
    home.script(
        "job.sh",
        "#!/bin/sh
trap 'echo usr1 >> $1; exit 1' USR1
trap 'echo usr2 >> $1; exit 1' USR2
trap 'sleep 6; echo term >> $1; exit 1' TERM
echo up >> $1
while :; do sleep 0.1; done
",
    );
    let says = |cluster: u32, words: &str| {
        let file = home.work(format!("f{cluster}"));
        wait_until(words, seconds(60), || std::fs::read_to_string(&file).ok().filter(|text| text == words));
    };
    let start = |cluster: u32, commands: &str| {
        submit(&home, &format!("executable = job.sh\narguments = f{cluster}\n{commands}\nqueue\n"));
        says(cluster, "up\n");
    };
    start(1, "kill_sig = SIGUSR1");
    home.vo(["-s", "t", "-c", "rm 1"]).ok();
    says(1, "up\nusr1\n");
    start(2, "kill_sig = SIGUSR1\nremove_kill_sig = 12");
    home.vo(["-s", "t", "-c", "rm 2"]).ok();
    says(2, "up\nusr2\n");
    start(3, "hold_kill_sig = SIGUSR2");
    home.vo(["-s", "t", "-c", "hold 3"]).ok();
    says(3, "up\nusr2\n");
    home.vo(["-s", "t", "-c", "rm 3"]).ok();
    start(4, "kill_sig = SIGUSR2\nperiodic_vacate = NumJobStarts < 2");
    says(4, "up\nusr2\nup\n");
    home.vo(["-s", "t", "-c", "rm 4"]).ok();
    // Longer than jobs have that don't ask for it.
    start(5, "want_graceful_removal = true\njob_max_vacate_time = 30");
    home.vo(["-s", "t", "-c", "rm 5"]).ok();
    says(5, "up\nterm\n");
    home.write("bad.sub", "executable = /bin/true\njob_max_vacate_time = \"long\"\nqueue\n");
    home.vo(["-s", "t", "-c", "submit bad.sub"]).code(6).says(["job_max_vacate_time is no number of seconds"]);
    end(&home);
}

#[test]
fn no_more_jobs_run_at_once_than_a_limit_allows() {
    let home = Home::new();
    home.write("vo.conf", "[session]\nlimits = { Licence = 2 }\n[[site]]\ngateway = \"local\"\nproxies = \"1:6\"\n");
    // Each sees how many there are of its kind while it runs.
    home.script("job.sh", "#!/bin/sh\ntouch run.$1.$$\nsleep 0.3\nls | grep -c \"^run.$1\" >> seen.$1\nrm run.$1.$$\n");
    home.vo(["-H", "vo.conf", "-s", "t", "--keep", "-c", "true"]).ok();
    home.write(
        "t.sub",
        "executable = job.sh
arguments = a
concurrency_limits = LICENCE
queue 6
arguments = b
concurrency_limits = licence:2, other
queue 2
arguments = c
concurrency_limits = licence:3
queue
",
    );
    home.vo(["-s", "t", "-c", "submit t.sub; wait --timeout 60s 1.0 1.1 1.2 1.3 1.4 1.5 1.6 1.7"]).ok();
    let most = |kind: &str| home.read(format!("seen.{kind}")).lines().map(|n| n.parse().unwrap()).max();
    assert_eq!((most("a"), most("b")), (Some(2), Some(1)));
    let why = home.vo(["-s", "t", "-c", "why 1.8"]).ok().stdout;
    assert!(why.contains("its concurrency limit licence: 0 of 2 in use, and it takes 3"), "{why}");
    home.write("bad.sub", "executable = /bin/true\nconcurrency_limits = a b:x\nqueue\n");
    home.vo(["-s", "t", "-c", "submit bad.sub"]).code(6).says(["\"b:x\" is no concurrency limit"]);
    home.vo(["-s", "t", "-c", "rm 1"]).ok();
    home.write("m.sub", "executable = job.sh\narguments = m\nmax_materialize = 3\nmax_idle = 1\nqueue 9\n");
    let run = home.vo(["-s", "t", "-c", "submit m.sub; wait --timeout 60s 2"]).ok();
    assert!(!run.stderr.contains("warning"), "{run:?}");
    assert_eq!(home.read("seen.m").lines().map(|n| n.parse().unwrap()).max(), Some(3));
    end(&home);
}

#[test]
fn the_nodes_of_a_dag_succeed_as_their_jobs_do() {
    let home = session();
    home.write("a.sub", "executable = ends.sh\narguments = 0 3\nsuccess_exit_code = 3\nmax_retries = 1\nqueue\n");
    home.write(
        "b.sub",
        "executable = /bin/sh\narguments = \"-c 'exit 0'\"\nsuccess_exit_code = 3\nmax_retries = 0\nqueue\n",
    );
    home.write("good.dag", "JOB A a.sub\n");
    home.write("bad.dag", "JOB B b.sub\n");
    home.vo(["-s", "t", "-c", "submit good.dag; submit bad.dag"]).ok();
    let codes = wait_until("the ends of both", seconds(60), || {
        let dags = home.vo(["-s", "t", "-c", "dag --json"]).ok().json();
        let codes: Vec<_> = dags.as_array()?.iter().map(|dag| dag["exit_code"].as_i64()).collect();
        codes.iter().all(Option::is_some).then_some(codes)
    });
    assert_eq!(codes, [Some(0), Some(1)]);
    end(&home);
}

/// A program that takes 150 MB of memory and 4 MB of its directory, and keeps them.
const GROWS: &str = "#!/bin/sh
head -c 4000000 /dev/zero > made
{ head -c 150000000 /dev/zero; sleep 600; } | tail
";

/// What `q -af` says of a job.
fn told(home: &Home, cluster: u32, attributes: &str) -> Vec<String> {
    let line = home.vo(["-s", "t", "-c", &format!("q --all {cluster} -af {attributes}")]).ok().stdout;
    line.split_ascii_whitespace().map(str::to_owned).collect()
}

fn once_grown(home: &Home, cluster: u32) {
    wait_until("memory", seconds(60), || {
        told(home, cluster, "MemoryUsage").first()?.parse::<u64>().ok().filter(|mb| (140..250).contains(mb))
    });
}

#[test]
fn what_a_job_uses_is_known_while_it_runs() {
    let home = session();
    home.script("grows.sh", GROWS);
    submit(&home, "executable = grows.sh\nshould_transfer_files = yes\nlog = log\nqueue\n");
    once_grown(&home, 1);
    let all = told(&home, 1, "JobStatus ResidentSetSize ImageSize DiskUsage RemoteUserCpu RemoteSysCpu");
    let numbers: Vec<f64> = all.iter().map(|word| word.parse().unwrap_or(-1.0)).collect();
    let [status, resident, image, disk, user, system] = numbers[..] else { panic!("{all:?}") };
    assert_eq!((status, resident), (2.0, image), "{all:?}");
    assert!(resident > 140_000.0 && (3900.0..20_000.0).contains(&disk), "{all:?}");
    assert!(user >= 0.0 && system > 0.0 && user + system < 60.0, "{all:?}");
    let sizes = wait_until("event 006", seconds(30), || {
        let log = home.read("log");
        let sizes = log.split("...\n").filter(|event| event.starts_with("006 (001.000.000)"));
        let sizes: Vec<u64> =
            sizes.filter_map(|event| event.lines().next()?.rsplit(' ').next()?.parse().ok()).collect();
        sizes.last().is_some_and(|size| *size > 140_000).then_some(sizes)
    });
    assert!(sizes.is_sorted_by(|a, b| a < b), "{sizes:?}");
    // After a crash it comes again.
    kill_master(&home);
    home.terminal(["-r", "t"]).within(seconds(60)).prompt();
    wait_until("the job runs on", seconds(60), || Some(job(&home, 1)).filter(|job| job["state"] == "running"));
    once_grown(&home, 1);
    assert_eq!(job(&home, 1)["attempts"], 1);
    end(&home);
}

#[test]
fn a_job_that_takes_more_than_it_asked_for_is_held() {
    let home = session();
    home.script("grows.sh", GROWS);
    submit(&home, "executable = grows.sh\nrequest_memory = 100\nperiodic_hold = MemoryUsage > RequestMemory\nqueue\n");
    let held = once(&home, 1, "held");
    let reason = held["reason"].as_str().unwrap();
    assert!(reason.contains("PeriodicHold expression 'MemoryUsage > RequestMemory' evaluated to TRUE"), "{reason}");
    submit(
        &home,
        "executable = grows.sh\nperiodic_remove = ResidentSetSize > 100000 && Site == \"local\" && RemoteHost isnt undefined\nqueue\n",
    );
    once(&home, 2, "removed");
    // What a job used is known while it waits, even after a crash.
    kill_master(&home);
    home.terminal(["-r", "t"]).within(seconds(60)).prompt();
    once_grown(&home, 1);
    assert_eq!(told(&home, 1, "JobStatus HoldReasonCode"), ["5", "3"]);
    end(&home);
}

#[test]
fn a_job_asks_for_more_memory_than_it_had() {
    let home = session();
    home.script("grows.sh", GROWS);
    let (hold, release) = ("MemoryUsage > RequestMemory", "HoldReasonCode == 3 && NumJobStarts < 3");
    let more = "ifThenElse(MemoryUsage =!= undefined, MemoryUsage * 2, MY.DefaultMemory)";
    submit(
        &home,
        &format!(
            "executable = grows.sh\n+DefaultMemory = 100\nrequest_memory = {more}\nperiodic_hold = {hold}\nperiodic_release = {release}\nqueue\n"
        ),
    );
    let memory = |cluster: u32| told(&home, cluster, "RequestMemory")[0].parse::<u64>().unwrap();
    assert_eq!(memory(1), 100);
    let runs_again = |cluster: u32, attempts: u64| {
        wait_until("it runs again", seconds(60), || {
            Some(job(&home, cluster)).filter(|job| job["state"] == "running" && job["attempts"] == attempts)
        });
        once_grown(&home, cluster);
    };
    runs_again(1, 2);
    // What it had taken when it was held, twice.
    assert!((200..500).contains(&memory(1)) && memory(1) % 2 == 0, "{}", memory(1));
    assert!(why(&home, 1).contains(&format!("asks anew: request_memory = {}", memory(1))), "{}", why(&home, 1));
    home.vo(["-s", "t", "-c", "condor_rm 1"]).ok();

    submit(&home, "executable = grows.sh\nrequest_memory = 50\nretry_request_memory = 100, 400 MB\nlog = log\nqueue\n");
    wait_until("it asks for enough", seconds(60), || (memory(2) == 400).then_some(()));
    let attempts = wait_until("it runs", seconds(60), || {
        Some(job(&home, 2)).filter(|job| job["state"] == "running")?["attempts"].as_u64()
    });
    once_grown(&home, 2);
    assert_eq!((memory(2), job(&home, 2)["attempts"].as_u64()), (400, Some(attempts)));
    let events = events(&home, 3);
    let evicted: Vec<&String> = events.iter().filter(|event| event.starts_with("004")).collect();
    assert_eq!(evicted.len() as u64, attempts - 1, "{events:#?}");
    assert!(evicted[0].contains("MB of memory, and asked for 50 MB"), "{}", evicted[0]);
    home.vo(["-s", "t", "-c", "condor_rm 2"]).ok();

    // When there is no more to ask for.
    submit(
        &home,
        "executable = grows.sh\nrequest_memory = 50\nretry_request_memory_increase = RequestMemory * 2\nretry_request_memory_max = 100\nqueue\n",
    );
    once(&home, 3, "held");
    assert_eq!(told(&home, 3, "HoldReasonCode HoldReasonSubCode RequestMemory"), ["34", "102", "100"]);
    end(&home);
}

#[test]
fn a_job_asks_for_more_scratch_space_than_it_had() {
    let home = session();
    home.script(
        "fills.sh",
        "#!/bin/sh\nhead -c 3000000 /dev/zero >filled\nwhile ! [ -e \"$1/go\" ]; do sleep 0.1; done\n",
    );
    let text = format!(
        "executable = fills.sh\narguments = {}\nshould_transfer_files = YES\ntransfer_output_files =\nrequest_disk = 1 MB\n",
        home.work("").display()
    );
    submit(&home, &format!("{text}retry_request_disk = 2 MB\nqueue\n"));
    once(&home, 1, "held");
    assert_eq!(told(&home, 1, "HoldReasonCode HoldReasonSubCode RequestDisk"), ["34", "104", "2048"]);
    submit(&home, &format!("{text}retry_request_disk = 2 MB, 100 MB\nlog = log\nqueue\n"));
    wait_until("it asks for enough", seconds(60), || (told(&home, 2, "RequestDisk") == ["102400"]).then_some(()));
    let running = || Some(job(&home, 2)).filter(|job| job["state"] == "running");
    let attempts = wait_until("it runs", seconds(60), || running()?["attempts"].as_u64());
    home.write("go", "");
    home.vo(["-s", "t", "-c", "wait --timeout 60s 2"]).ok();
    let events = events(&home, 3);
    let evicted: Vec<&String> = events.iter().filter(|event| event.starts_with("004")).collect();
    assert_eq!(evicted.len() as u64, attempts - 1, "{events:#?}");
    assert!(evicted[0].contains("KB of scratch space, and asked for 1024 KB"), "{}", evicted[0]);
    home.vo(["-s", "t", "-c", "condor_rm 1"]).ok();
    end(&home);
}

/// A cgroup below our own that allows little memory.
struct Cgroup(std::path::PathBuf);

impl Cgroup {
    /// None where we may not make one.
    fn new(bytes: u64) -> Option<Cgroup> {
        let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        let path = |kind: &str| Some(own.lines().find_map(|line| line.split_once(kind))?.1.to_owned());
        let places = [
            (path(":memory:"), "/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            (path("0::"), "/sys/fs/cgroup", "memory.max"),
        ];
        places.into_iter().find_map(|(path, mount, limit)| {
            let dir = std::path::PathBuf::from(format!("{mount}{}/vo-{}", path?, std::process::id()));
            std::fs::create_dir(&dir).ok()?;
            let cgroup = Cgroup(dir);
            std::fs::write(cgroup.0.join(limit), bytes.to_string()).ok()?;
            Some(cgroup)
        })
    }

    fn take(&self, pid: i32) -> std::io::Result<()> {
        std::fs::write(self.0.join("cgroup.procs"), pid.to_string())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn what_the_kernel_kills_for_memory_is_held() {
    let Some(cgroup) = Cgroup::new(64 << 20) else {
        return vo_tests::skip("needs to make a cgroup that limits memory");
    };
    let home = session();
    let starter = wait_until("the starter", seconds(30), || {
        let all = home.processes();
        all.into_iter().find(|(_, line)| line.contains("starter") && line.contains("--child")).map(|(pid, _)| pid)
    });
    cgroup.take(starter).unwrap();
    // A signal that was no fault of the memory's.
    submit(&home, "executable = ends.sh\narguments = -KILL\nqueue\n");
    assert_eq!(once(&home, 1, "completed")["signal"], 9);
    home.script("fills.sh", "#!/bin/sh\necho begun\nexec tail < /dev/zero\n");
    home.script("within.sh", "#!/bin/sh\ntail < /dev/zero\n");
    for (place, words) in [(2, "executable = fills.sh\noutput = out\n"), (3, "executable = within.sh\n")] {
        let files = if place == 2 { "yes" } else { "no" };
        submit(&home, &format!("{words}should_transfer_files = {files}\nlog = log\nrequest_memory = 1000\nqueue\n"));
        once(&home, place, "held");
        assert_eq!(told(&home, place, "HoldReasonCode HoldReasonSubCode"), ["34", "102"]);
        let reason = job(&home, place)["reason"].as_str().unwrap().to_owned();
        assert!(
            reason.starts_with("Job has gone over cgroup memory limit of 64 megabytes. Last measured usage: "),
            "{reason}"
        );
    }
    let kept = home.vo(["-s", "t", "-c", "log 2.0"]).ok().stdout;
    assert!(kept.contains("partial   attempt 1, output, 6 bytes: "), "{kept}");
    assert!(home.read("log").contains("megabytes.\n\tCode 34 Subcode 102\n"), "{}", home.read("log"));
    home.vo(["-s", "t", "-c", "condor_rm 2 3"]).ok();
    end(&home);
}

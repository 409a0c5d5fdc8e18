//! The submissions as rendered, word for word, and what their scripts do when `/bin/sh` runs them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use vo_batch::{Kind, ProxyRequest, Submission, System, shell};

const STARTER: [&str; 4] = ["/home/me/.vo-login/bin/vo-agent", "starter", "--proxy", "it's $1"];

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

fn request<'a>(starter: &'a [String], directives: &'a [String]) -> ProxyRequest<'a> {
    ProxyRequest {
        name: "vo-5eed-17",
        nodes: 1,
        cpus: 16,
        walltime: Duration::from_secs(36_001),
        memory_mb: None,
        queue: None,
        account: None,
        directives,
        workdir: "/home/me/.vo-login/s-5eed",
        output: "/home/me/.vo-login/s-5eed/p 17%.out",
        starter,
        exit_file: "/home/me/.vo-login/s-5eed/17.exit",
    }
}

/// Compares with `tests/fixtures/batch/scripts/NAME.sh`, whose second line has the command; `BLESS=1` writes it anew.
fn check(name: &str, submission: &Submission) {
    let command = shell::join(submission.argv.iter().map(String::as_str));
    let is = submission.script.replacen('\n', &format!("\n# {command}\n"), 1);
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../../tests/fixtures/batch/scripts/{name}.sh"));
    if env::var_os("BLESS").is_some() {
        fs::write(&file, &is).unwrap();
    }
    let golden = fs::read_to_string(&file).unwrap_or_default();
    assert!(is == golden, "{name} differs from its golden file; it is now:\n{is}");
    let parsed = Command::new("/bin/sh").arg("-n").arg(&file).status().unwrap();
    assert!(parsed.success(), "{name} is no shell script");
}

#[test]
fn golden_submissions() {
    let starter = owned(&STARTER);
    let plain = request(&starter, &[]);
    let directives = owned(&["--constraint=ib", "--mail-type=NONE\r\n--requeue", ""]);
    let full = ProxyRequest {
        nodes: 2,
        memory_mb: Some(30_001),
        queue: Some("normal"),
        account: Some("TG-123"),
        directives: &directives,
        ..plain
    };
    let environment = owned(&["-q fast.q -pe orte* 64"]);
    let fork = System::new(Kind::Fork, "/home/me/vo agent", "/home/me/fork");
    check("slurm-one-node", &System::Slurm.render(&plain));
    check("slurm-two-nodes", &System::Slurm.render(&full));
    check("sge-one-node", &System::GridEngine.render(&plain));
    check("sge-two-nodes", &System::GridEngine.render(&full));
    check(
        "sge-own-environment",
        &System::GridEngine.render(&ProxyRequest { nodes: 4, directives: &environment, ..plain }),
    );
    check("fork", &fork.render(&plain));
}

#[test]
fn walltimes_round_up() {
    let argv = |system: System, walltime| system.render(&ProxyRequest { walltime, ..request(&[], &[]) }).argv;
    for (walltime, minutes, seconds) in [
        (Duration::from_secs(0), "--time=1", "h_rt=1"),
        (Duration::from_millis(1), "--time=1", "h_rt=1"),
        (Duration::from_secs(60), "--time=1", "h_rt=60"),
        (Duration::from_millis(60_001), "--time=2", "h_rt=61"),
        (Duration::from_secs(86_400), "--time=1440", "h_rt=86400"),
    ] {
        assert!(argv(System::Slurm, walltime).iter().any(|word| word == minutes), "{walltime:?}");
        assert!(argv(System::GridEngine, walltime).iter().any(|word| word == seconds), "{walltime:?}");
    }
    for system in [System::Slurm, System::GridEngine] {
        argv(system, Duration::MAX);
    }
}

/// A proxy script that runs on this machine.
struct Running {
    dir: TempDir,
    child: Child,
}

impl Running {
    /// Runs `code` as the starter's, in a script rendered for `system` as on a node with these variables.
    fn start(system: &System, variables: &[(&str, &str)], code: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let starter = owned(&["/bin/sh", "-c", code, "starter", "it's", "$1"]);
        let (workdir, exit_file, output) = (path(""), path("exit file"), path("output"));
        let request =
            ProxyRequest { workdir: &workdir, exit_file: &exit_file, output: &output, ..request(&starter, &[]) };
        fs::write(path("script"), system.render(&request).script).unwrap();
        let child = Command::new("/bin/sh")
            .arg(path("script"))
            .current_dir(dir.path())
            .envs(variables.iter().copied())
            .env_remove("TMPDIR")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self { dir, child }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// Waits for the script's end: its own code, and what it left in the exit file.
    fn end(mut self) -> (Option<i32>, String, TempDir) {
        let code = self.child.wait().unwrap().code();
        (code, fs::read_to_string(self.path("exit file")).unwrap_or_default(), self.dir)
    }
}

/// The exit code in an exit file.
fn code_of(exit: &str) -> Option<i32> {
    exit.split_whitespace().next()?.parse().ok()
}

fn wait_for(file: &Path) {
    let patience = Instant::now() + Duration::from_secs(20);
    while !file.exists() {
        assert!(Instant::now() < patience, "{} does not appear", file.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

const SLURM: [(&str, &str); 4] = [
    ("SLURM_JOB_ID", "77"),
    ("SLURM_CPUS_ON_NODE", "5"),
    ("SLURM_JOB_START_TIME", "1000"),
    ("SLURM_JOB_END_TIME", "4600"),
];

fn systems() -> [(System, &'static [(&'static str, &'static str)]); 3] {
    [
        (System::new(Kind::Fork, "", ""), &[]),
        (System::Slurm, &SLURM),
        (System::GridEngine, &[("JOB_ID", "78"), ("NSLOTS", "3"), ("RESTARTED", "1")]),
    ]
}

#[test]
fn a_starter_finds_its_words_and_variables() {
    let code = r#"printf '%s\n' "$VO_BATCH_ID" "$VO_BATCH_RESTARTS" "$VO_NODE_INDEX" "$VO_NODE_CPUS" "$VO_TIME_LEFT_S" "$VO_SCRATCH" "$@" >seen"#;
    for ((system, variables), expected) in systems().into_iter().zip([
        ["ID", "0", "0", "16", "36001", "/tmp", "it's", "$1"],
        ["77", "0", "0", "5", "3600", "/tmp", "it's", "$1"],
        ["78", "1", "0", "3", "36001", "/tmp", "it's", "$1"],
    ]) {
        let running = Running::start(&system, variables, code);
        let pid = running.child.id().to_string();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let (code, exit, dir) = running.end();
        assert_eq!((code, exit), (Some(0), format!("0 {}\n", expected[1])), "{}", system.kind());
        let seen = fs::read_to_string(dir.path().join("seen")).unwrap();
        let mut seen: Vec<&str> = seen.lines().collect();
        if system.kind() == Kind::Fork {
            let start = stat.rsplit_once(") ").unwrap().1.split(' ').nth(19).unwrap();
            assert_eq!(seen[0], format!("{pid}.{start}"));
            seen[0] = "ID";
        }
        assert_eq!(seen, expected, "{}", system.kind());
        assert!(!dir.path().join("exit file.new").exists());
    }
}

#[test]
fn time_left_of_a_slurm_that_does_not_tell_the_end() {
    let dir = TempDir::new().unwrap();
    let squeue = dir.path().join("squeue");
    let path = format!("{}:{}", dir.path().display(), env::var("PATH").unwrap());
    for (said, expected) in [
        ("echo 4:56", "296"),
        ("echo 59:00", "3540"),
        ("echo 1:00:00", "3600"),
        ("echo 2-03:04:05", "183845"),
        ("echo UNLIMITED", "36060"),
        ("echo INVALID", "36060"),
        ("echo slurm_load_jobs error: Invalid job id specified >&2; exit 1", "36060"),
    ] {
        fs::write(&squeue, format!("#!/bin/sh\n{said}\n")).unwrap();
        assert!(Command::new("chmod").arg("+x").arg(&squeue).status().unwrap().success());
        let variables =
            [("SLURM_JOB_ID", "77"), ("SLURM_JOB_START_TIME", ""), ("SLURM_JOB_END_TIME", ""), ("PATH", &path)];
        let running = Running::start(&System::Slurm, &variables, "echo $VO_TIME_LEFT_S >seen");
        let (_, _, dir) = running.end();
        assert_eq!(fs::read_to_string(dir.path().join("seen")).unwrap().trim(), expected, "{said}");
    }
}

#[test]
fn exit_codes_arrive() {
    for (system, variables) in systems() {
        for (code, expected) in
            [("exit 7", 7), ("exit 127", 127), ("exit 255", 255), ("kill -9 $$", 137), ("kill -TERM $$", 143)]
        {
            let (own, exit, _dir) = Running::start(&system, variables, code).end();
            assert_eq!((own, code_of(&exit)), (Some(expected), Some(expected)), "{} {code}", system.kind());
        }
    }
}

#[test]
fn a_signal_reaches_the_starter_and_its_end_is_awaited() {
    // Ends a while after the signal, with a code of its own.
    let code = "trap 'sleep 0.3; exit 9' TERM; : >up; while :; do sleep 0.05; done";
    for (system, variables) in systems() {
        let signals: &[&str] =
            if system.kind() == Kind::GridEngine { &["-TERM", "-USR1", "-USR2"] } else { &["-TERM"] };
        for signal in signals {
            let running = Running::start(&system, variables, code);
            wait_for(&running.path("up"));
            running.signal(signal);
            running.signal(signal);
            let (own, exit, _dir) = running.end();
            assert_eq!((own, code_of(&exit)), (Some(9), Some(9)), "{} {signal}", system.kind());
        }
    }
}

#[test]
fn a_starter_that_a_signal_ends_is_told_apart_from_an_interrupted_wait() {
    for (system, variables) in systems() {
        for _ in 0..20 {
            let running = Running::start(&system, variables, ": >up; exec sleep 60");
            wait_for(&running.path("up"));
            running.signal("-TERM");
            let (own, exit, _dir) = running.end();
            assert_eq!((own, code_of(&exit)), (Some(143), Some(143)), "{}", system.kind());
        }
    }
}

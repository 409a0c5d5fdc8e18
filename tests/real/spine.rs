//! The main job: one session over three clusters, a thousand jobs, and nothing left afterwards.

use std::collections::BTreeSet;

use vo_tests::testbed::{GRID, MESA, TUNDRA};
use vo_tests::{Home, seconds, wait_until};

use crate::{conf, leave, log_in};

const JOBS: usize = 1000;

#[test]
fn a_thousand_jobs_over_three_clusters() {
    let sites = [&TUNDRA, &MESA, &GRID];
    for site in sites {
        site.assert_nothing_left();
    }
    let home = Home::on_testbed();
    conf(&home, &["tundra", "mesa", "grid"]);
    let mut terminal = home.terminal(["-n", "2:4", "-W", "30", "-H", "vo.conf", "-s", "spine"]);
    log_in(&mut terminal);
    terminal.within(seconds(120)).expect("Setting up VO participants .");
    terminal.expect("Done");
    terminal.expect("Welcome to your grid environment.");
    terminal.expect("To shut down the environment, type \"exit\". To detach from it, type \"detach\".");
    terminal.prompt();
    let shown = terminal.shown();
    for site in sites {
        assert_eq!(
            shown.matches(&format!("Spawning on {}\n", site.name)).count(),
            1,
            "one line for each site:\n{shown}"
        );
    }
    for secret in [vo_tests::testbed::PASSPHRASE, vo_tests::testbed::PASSWORD] {
        assert!(!shown.contains(secret), "a secret was shown");
    }

    // Two proxies of four CPUs at each site are batch jobs there, one each.
    for site in sites {
        assert_eq!(site.batch_jobs().len(), 2, "at {}: {:#?}", site.name, site.batch_jobs());
    }

    // Each job says who it is and where it ran; 0.2 s keep all slots busy for a while.
    home.script("work.sh", "#!/bin/sh\nread word\nsleep 0.2\necho \"job $1 says $word on $(hostname)\"\necho \"to stderr $1\" >&2\necho $1 > result.$1\n");
    home.write("input", "hello\n");
    home.write(
        "work.sub",
        format!(
            "executable = work.sh
arguments = $(Process)
input = input
output = out/job.$(Process)
error = err/job.$(Process)
transfer_output_files = result.$(Process)
should_transfer_files = YES
queue {JOBS}
"
        ),
    );
    home.sh("mkdir out err").ok();
    assert_eq!(terminal.run("submit work.sub").trim(), format!("{JOBS} job(s) submitted to cluster 1."));

    // Meanwhile the pool is visible, from here and from another terminal.
    let pool = wait_until("jobs that run at every site at once", seconds(60), || {
        let pool = home.vo(["-s", "spine", "-c", "status --json"]).ok().json();
        let busy: BTreeSet<String> = pool
            .as_array()?
            .iter()
            .filter(|starter| starter["running"].as_u64() > Some(0))
            .map(|starter| starter["site"].as_str().unwrap_or_default().to_owned())
            .collect();
        (busy.len() == sites.len()).then_some(pool)
    });
    assert_eq!(pool.as_array().map(Vec::len), Some(6), "{pool:#}");
    for starter in pool.as_array().unwrap() {
        assert_eq!(starter["cpus"], 4, "{starter}");
        assert!(starter["busy_cpus"].as_u64() <= Some(4), "no slot is oversubscribed: {starter}");
        assert!(starter["time_left_ms"].as_u64().is_some_and(|ms| ms <= 30 * 60_000), "{starter}");
    }
    let table = terminal.run("status");
    for site in sites {
        assert!(table.contains(site.name), "{table}");
    }
    assert!(
        table.lines().any(|line| line.trim_start().starts_with("Total") && line.contains(" 24 ")),
        "totals:\n{table}"
    );

    terminal.within(seconds(300)).type_line("wait");
    terminal.expect(&format!("{JOBS} of {JOBS} job(s) succeeded"));
    terminal.within(seconds(60)).prompt();

    let history = home.vo(["-s", "spine", "-c", "history --json"]).ok().json();
    let jobs = history.as_array().unwrap();
    assert_eq!(jobs.len(), JOBS);
    let mut at = std::collections::BTreeMap::<&str, usize>::new();
    for job in jobs {
        assert_eq!((&job["state"], job["exit_code"].as_u64()), (&"completed".into(), Some(0)), "{job}");
        *at.entry(job["site"].as_str().unwrap()).or_default() += 1;
    }
    assert_eq!(at.len(), 3, "jobs ran at all sites: {at:?}");
    assert!(at.values().all(|&count| count >= JOBS / 20), "and no site was idle: {at:?}");

    for process in 0..JOBS {
        let said = home.read(format!("out/job.{process}"));
        let host = said.strip_prefix(&format!("job {process} says hello on ")).map(str::trim);
        assert!(
            host.is_some_and(|host| sites.iter().flat_map(|site| site.nodes()).any(|node| node == host)),
            "{said:?}"
        );
        assert_eq!(home.read(format!("err/job.{process}")), format!("to stderr {process}\n"));
        assert_eq!(home.read(format!("result.{process}")), format!("{process}\n"));
    }
    let files = std::fs::read_dir(home.work("")).unwrap().count();
    assert_eq!(files, JOBS + 6, "the results, the six things that the test made, and nothing else");

    println!("jobs at each site: {at:?}");
    leave(&home, terminal, &sites);
}

#[test]
fn outputs_come_home_whole() {
    use std::os::unix::ffi::OsStrExt;
    const LENGTH: u64 = 100_000_000;
    let home = Home::on_testbed();
    conf(&home, &["tundra-key", "grid-key"]);
    home.write("big.sub", format!("executable = /bin/sh\ntransfer_executable = false\narguments = \"-c 'head -c {LENGTH} /dev/zero | tr ''\\0'' x'\"\noutput = big\nqueue\n"));
    home.script(std::ffi::OsStr::from_bytes(b"pr\xf6gram"), "#!/bin/sh\nprintf %s \"$1\"; exit 3\n");
    home.write(
        "bytes.sub",
        b"executable = pr\xf6gram\narguments = \"'\xff\xfe \xe9'\"\noutput = out.\xfc$(Process)\nqueue 8\n",
    );
    home.write(
        "signal.sub",
        "executable = /bin/sh\ntransfer_executable = false\narguments = \"-c 'kill -SEGV $$'\"\nqueue\n",
    );
    let script = "submit big.sub; submit bytes.sub; submit signal.sub; wait";
    home.vo(["-H", "vo.conf", "-s", "t", "--keep", "-n", "1:4", "-c", script]).code(7);
    let history = home.vo(["-s", "t", "-c", "history --json"]).ok().json();
    home.end("t");
    let end = |job: &str| {
        history.as_array().unwrap().iter().find(|row| row["job"] == job).unwrap_or_else(|| panic!("{job}: {history:#}"))
    };
    assert_eq!(end("1.0")["exit_code"], 0);
    assert_eq!(end("2.7")["exit_code"], 3);
    assert_eq!(end("3.0")["signal"], 11);
    let bytes = std::fs::read(home.work("big")).unwrap();
    assert_eq!(bytes.len() as u64, LENGTH);
    assert!(bytes.iter().all(|&byte| byte == b'x'));
    for process in b'0'..b'8' {
        let name = [b"out.\xfc", &[process][..]].concat();
        assert_eq!(std::fs::read(home.work(std::ffi::OsStr::from_bytes(&name))).unwrap(), b"\xff\xfe \xe9");
    }
    crate::nothing_left(&home, &[&TUNDRA, &GRID]);
}

#[test]
fn the_agent_is_uploaded_once() {
    let home = Home::on_testbed();
    conf(&home, &["tundra-key"]);
    let agent = || TUNDRA.sh("stat -c '%n %i %Y' .vo-login/bin/*/*");
    home.vo(["-H", "vo.conf", "-s", "one", "--keep", "-n", "1:1", "-c", "true"]).ok();
    let first = agent();
    assert_eq!(first.lines().count(), 1, "{first}");
    home.vo(["-H", "vo.conf", "-s", "two", "--keep", "-n", "1:1", "-c", "true"]).ok();
    assert_eq!(agent(), first, "the second session found it there");
    home.end("one");
    assert_eq!(agent(), first, "the first session's end left the second one its agent");
    home.write("t.sub", "executable = /bin/hostname\ntransfer_executable = false\noutput = where\nqueue\n");
    home.vo(["-s", "two", "-c", "submit t.sub; wait"]).ok();
    home.end("two");
    assert!(home.read("where").starts_with("tundra-n"));
    crate::nothing_left(&home, &[&TUNDRA]);
}

//! The job language on clusters: expressions, items, retries, remaps and DAGs over several sites.

use std::collections::BTreeSet;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vo_tests::testbed::{MESA, TUNDRA};
use vo_tests::{Home, examples, run_example, seconds, wait_until};

use crate::nothing_left;
use crate::ssh::{home_with, known};

/// A session over two Slurm clusters, each a project of its own.
fn start(proxies: &str) -> Home {
    let home = home_with("", &known());
    home.write(
        "vo.conf",
        "[[site]]\ngateway = \"tundra-key\"\nname = \"tundra\"\nattributes = { Project = \"TACC_RESOURCES\" }\n\
         [[site]]\ngateway = \"mesa-key\"\nname = \"mesa\"\nattributes = { Project = \"SDSC\" }\n",
    );
    home.vo(["-H", "vo.conf", "-s", "t", "--keep", "-n", proxies, "-W", "30", "-c", "true"]).ok();
    wait_until("starters at both", seconds(60), || {
        let status = home.vo(["-s", "t", "-c", "status --json"]).ok().json();
        let sites: BTreeSet<_> = status.as_array()?.iter().filter_map(|row| row["site"].as_str()).collect();
        (sites.len() == 2).then_some(())
    });
    home
}

fn end(home: &Home) {
    for site in [&TUNDRA, &MESA] {
        site.sh("rm -rf tried");
    }
    home.end("t");
    nothing_left(home, &[&TUNDRA, &MESA]);
}

#[test]
fn a_description_means_the_same_at_every_site() {
    let home = start("1:4");
    // It fails at its first try at a site, and says where it is.
    home.script(
        "run.LINUX",
        "#!/bin/sh\nmkdir -p \"$HOME/tried\"\nread word <word\necho \"$1 $2 $word at $SITE on $(hostname)\" >made\n\
         [ -e \"$HOME/tried/$1\" ] || { : >\"$HOME/tried/$1\"; exit 3; }\n",
    );
    home.write("a.in", "alpha\n");
    home.write("b.in", "beta\n");
    home.sh("mkdir a b && cp a.in a/word && cp b.in b/word").ok();
    home.write("items", "a, TACC_RESOURCES\nb, SDSC\n");
    home.write(
        "t.sub",
        "executable = run.$$(OpSys)\narguments = $(name).$(Step) $$(Project)\nenvironment = SITE=$$(Site)\n\
         requirements = TARGET.TimeToLive > 300 && TARGET.Project == \"$(project)\"\nrank = Cpus\n\
         should_transfer_files = YES\ntransfer_input_files = $(name)/word\ntransfer_output_files = made\n\
         transfer_output_remaps = \"made = out/$(name).$(Step)\"\nmax_retries = 2\nlog = t.log\nqueue 3 name, project from items\n",
    );
    home.sh("mkdir out").ok();
    home.vo(["-s", "t", "-c", "submit t.sub; wait --timeout 60s"]).ok().says(["6 of 6 job(s) succeeded"]);
    for (name, project, word, site) in [("a", "TACC_RESOURCES", "alpha", "tundra"), ("b", "SDSC", "beta", "mesa")] {
        for step in 0..3 {
            let made = home.read(format!("out/{name}.{step}"));
            assert!(made.starts_with(&format!("{name}.{step} {project} {word} at {site} on {site}-n")), "{made}");
        }
    }
    let sites = home.vo(["-s", "t", "-c", "history -constraint 'NumJobCompletions == 2' -af ExitCode"]).ok().stdout;
    assert_eq!(sites, "0\n".repeat(6), "each ran twice");
    let log = home.read("t.log");
    assert_eq!(log.lines().filter(|line| line.starts_with("005 ")).count(), 6, "{log}");

    // What no slot is stays, and says so.
    home.write("never.sub", "executable = /bin/true\nrequirements = TARGET.TimeToLive > 36000\nqueue 2\n");
    home.vo(["-s", "t", "-c", "submit never.sub"]).ok();
    let why = home.vo(["-s", "t", "-c", "why 2.0"]).ok().stdout;
    assert!(why.contains("TARGET.TimeToLive > 36000"), "{why}");
    home.vo(["-s", "t", "-c", "edit 2.0 'requirements=TARGET.TimeToLive > 36'; wait --timeout 30s 2.0; condor_rm 2.1"])
        .ok();
    end(&home);
}

#[test]
fn a_dag_over_two_clusters_outlives_its_master() {
    let home = start("1:4");
    home.script("job.sh", "#!/bin/sh\necho \"$1 on $(hostname)\"\nsleep 0.5\n");
    home.write(
        "job.sub",
        "executable = job.sh\narguments = $(JOB)\noutput = $(JOB).out\nrequirements = Site == \"$(site)\"\nlog = nodes.log\nqueue\n",
    );
    home.script("post.sh", "#!/bin/sh\nexit $1\n");
    home.write("sum.sub", "executable = /bin/sh\ntransfer_executable = false\narguments = \"-c 'cat N*.out'\"\nshould_transfer_files = YES\ntransfer_input_files = $(files)\noutput = sum\nqueue\n");
    let mut dag = String::from("JOB FIRST job.sub\nVARS FIRST site=\"tundra\"\nRETRY FIRST 1\n");
    let names: Vec<String> = (0..40).map(|n| format!("N{n}")).collect();
    for (n, name) in names.iter().enumerate() {
        dag += &format!("JOB {name} job.sub\nVARS {name} site=\"{}\"\n", ["tundra", "mesa"][n % 2]);
    }
    let files = names.iter().map(|name| format!("{name}.out")).collect::<Vec<_>>().join(",");
    dag += &format!("JOB SUM sum.sub\nVARS SUM files=\"{files}\"\n");
    let all = names.join(" ");
    dag += &format!("PARENT FIRST CHILD {all}\nPARENT {all} CHILD SUM\nSCRIPT POST SUM post.sh $RETURN\n");
    home.write("x.dag", dag);
    home.vo(["-s", "t", "-c", "submit x.dag"]).ok();
    let done = || home.vo(["-s", "t", "-c", "dag --json 1"]).ok().json()[0]["done"].as_u64().unwrap();
    for least in [4, 20] {
        wait_until("some nodes", seconds(60), || (done() >= least).then_some(()));
        let sessions = home.vo(["-l", "--json"]).ok().json();
        let pid = i32::try_from(sessions[0]["pid"].as_i64().unwrap()).unwrap();
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        wait_until("its end", seconds(10), || (!std::fs::exists(format!("/proc/{pid}")).unwrap()).then_some(()));
        home.terminal(["-r", "t"]).within(seconds(60)).prompt();
    }
    home.vo(["-s", "t", "-c", "dag wait --timeout 120s 1"]).ok();
    let sum = home.read("sum");
    let seen: BTreeSet<&str> = sum.lines().map(|line| line.split(" on ").next().unwrap()).collect();
    assert_eq!((seen.len(), sum.lines().count()), (40, 40), "{sum}");
    for line in sum.lines() {
        let (name, host) = line.split_once(" on ").unwrap();
        let site = ["tundra-n", "mesa-n"][name[1..].parse::<usize>().unwrap() % 2];
        assert!(host.starts_with(site), "{line}");
    }
    let history = home.vo(["-s", "t", "-c", "history --json"]).ok().json();
    assert_eq!(history.as_array().map(Vec::len), Some(43), "each node was submitted once, and the DAG");
    end(&home);
}

#[test]
fn the_examples_leave_the_same_over_clusters() {
    let home = start("1:4");
    for name in examples() {
        run_example(&home, &name);
    }
    end(&home);
}

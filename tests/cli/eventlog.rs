//! Job event logs of real sessions, in every form.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vo_lang::eventlog::{End, Head, Reader};
use vo_tests::{Home, seconds, wait_until};

/// The process of this home whose command line holds all of `words`.
fn process(home: &Home, words: &[&str]) -> Option<i32> {
    let found = home.processes().into_iter().find(|(_, line)| words.iter().all(|word| line.contains(word)));
    found.map(|(pid, _)| pid)
}

fn signal(home: &Home, words: &[&str], signal: Signal) {
    let pid = wait_until("the process", seconds(30), || process(home, words));
    kill(Pid::from_raw(pid), signal).unwrap();
}

fn events(log: &[u8]) -> Vec<Head> {
    let (mut reader, mut events) = (Reader::default(), Vec::new());
    reader.feed(log);
    while let Some(event) = reader.next_event() {
        events.push(event.unwrap().0);
    }
    events
}

/// Brings about every event that there is, in the log `NAME.log`.
fn session(name: &str, conf: &str, more: &str) {
    let home = Home::new();
    home.write("vo.conf", format!("[session]\n{conf}[[site]]\ngateway = \"local\"\n"));
    home.vo(["-H", "vo.conf", "-s", "t", "-n", "1:1", "--keep", "-c", "true"]).ok();
    let vo = |line: &str| home.vo(["-s", "t", "-c", line]).ok();
    let log = format!("{name}.log");
    let read = || events(&fs::read(home.work(&log)).unwrap_or_default());
    let wait_for = |number: u16, count: usize| {
        let there = || (read().iter().filter(|event| event.number == number).count() >= count).then_some(());
        wait_until(&format!("{count} events {number} in {name}"), seconds(60), there);
    };
    let submit = |text: &str| {
        home.write("t.sub", format!("log = {log}\n{more}{text}"));
        vo("submit t.sub");
    };

    home.script("end.sh", "#!/bin/sh\necho hello\n[ $1 = 2 ] && kill -KILL $$\nexit $(($1 * 3))\n");
    submit(
        "executable = end.sh\narguments = $(Process)\nbatch_name = a \"b\" <c>\noutput = out.$(Process)\nshould_transfer_files = yes\n\
         request_disk = 2MB\nmax_idle = 2\nqueue 3\n",
    );
    // The log may not be there yet; whether jobs succeeded is not what it tells.
    assert_eq!(vo(&format!("wait --timeout 60s {log}")).stdout, "All jobs done.\n");
    let ends: Vec<_> = read().iter().filter_map(|event| event.end).collect();
    for end in [End::Exited(0), End::Exited(3), End::Signaled(9)] {
        assert!(ends.contains(&end), "{name}: {ends:?}");
    }

    let of = |proc: Option<i64>| -> Vec<(u16, String)> {
        let own = |event: &Head| event.proc.filter(|proc| *proc >= 0) == proc && event.number != 6;
        read().into_iter().filter(own).map(|event| (event.number, event.time)).collect()
    };
    let numbers = |events: &[(u16, String)]| events.iter().map(|(number, _)| *number).collect::<Vec<_>>();
    assert_eq!(numbers(&of(None)), [35, 36], "{name}: the cluster's own");
    for proc in 0..3 {
        let seen = of(Some(proc));
        assert_eq!(numbers(&seen), [0, 40, 40, 1, 40, 40, 5], "{name}");
        assert!(seen.is_sorted_by_key(|(_, time)| time), "{name}: {seen:?}");
    }
    let (script, text) = (home.read("end.sh").len(), home.read(&log));
    for (form, lines) in [
        (
            "text",
            [
                &format!("\t{script}  -  Total Bytes Received By Job"),
                "\t6  -  Total Bytes Sent By Job",
                "     2048      2048 ",
            ],
        ),
        ("json", [&format!("\"TotalReceivedBytes\": {script}.0"), "\"TotalSentBytes\": 6.0", "\"RequestDisk\": 2048"]),
    ] {
        lines
            .iter()
            .filter(|_| form == name)
            .for_each(|line| assert_eq!(text.matches(line).count(), 3, "{line}\n{text}"));
    }

    // What runs is lost with the agent, and found again.
    home.script("until.sh", "#!/bin/sh\nwhile ! [ -e go ]; do sleep 0.1; done\n");
    submit("executable = until.sh\nqueue\n");
    wait_for(1, 4);
    signal(&home, &["vo-agent event"], Signal::SIGKILL);
    wait_for(22, 1);
    wait_for(23, 1);
    // It is evicted with its proxy, and runs again.
    signal(&home, &["starter", "--dir"], Signal::SIGTERM);
    wait_for(4, 1);
    wait_for(1, 5);
    // It is lost with its starter, and runs again.
    signal(&home, &["starter", "--child"], Signal::SIGKILL);
    wait_for(24, 1);
    wait_for(1, 6);
    home.write("go", "");
    wait_for(5, 4);

    submit(
        "executable = until.sh\nrequirements = false\npriority = 5\njob_ad_information_attrs = JobPrio, Owner Nothing\nqueue\n",
    );
    vo("hold 3");
    vo("release 3");
    vo("rm 3");
    wait_for(9, 1);
    let seen: Vec<_> = read().iter().filter(|event| event.cluster == Some(3)).map(|event| event.number).collect();
    assert_eq!(seen, [0, 28, 12, 28, 13, 28, 9, 28]);
    let told = ["JobPrio = 5\n", "\"JobPrio\": 5,\n", "<a n=\"JobPrio\"><i>5</i></a>\n"]
        .map(|line| home.read(&log).matches(line).count());
    assert_eq!(told.iter().sum::<usize>(), 4, "{name}: {told:?}");
    let days = read().iter().filter(|event| event.time.len() >= 19 && event.time.starts_with("20")).count();
    assert_eq!(days, read().len());
    if let Some(kept) = std::env::var_os("VO_KEEP_EVENT_LOGS") {
        fs::copy(home.work(&log), PathBuf::from(kept).join(&log)).unwrap();
    }
    home.end("t");
    home.assert_nothing_left();
}

#[test]
fn text_has_every_event() {
    session("text", "", "");
}

#[test]
fn json_has_every_event() {
    session("json", "log_format = \"json\"\n", "");
}

#[test]
fn xml_has_every_event() {
    session("xml", "log_format = \"json\"\n", "log_xml = true\n");
}

/// `condor_wait`, as a program of its own: there is no session.
fn wait(home: &Home, words: &str) -> vo_tests::Run {
    home.sh(&format!("exec -a condor_wait vo-login {words}"))
}

#[test]
fn wait_reads_the_logs_of_htcondor() {
    let home = Home::new();
    for name in ["text", "xml", "json", "dag.text", "suspended.text"] {
        let log = vo_tests::project().join(format!("tests/fixtures/eventlog/htcondor-25.14.{name}"));
        home.write("a.log", fs::read(&log).unwrap());
        assert_eq!(wait(&home, "a.log").ok().stdout, "All jobs done.\n", "{name}");
        assert_eq!(wait(&home, "-num 1 a.log").ok().stdout, "Specified number of jobs (1) done.\n", "{name}");
        wait(&home, "--quiet --num 99 --wait 0 a.log").code(1).says(["0 job(s) have not ended"]);
    }
    home.write("a.log", fs::read(vo_tests::project().join("tests/fixtures/eventlog/htcondor-25.14.dag.text")).unwrap());
    let shown = wait(&home, "-status a.log 22").ok().stdout;
    assert_eq!(shown, "22.0.0 submitted\n22.0.0 executing\n22.0.0 completed\nAll jobs done.\n");
    assert_eq!(wait(&home, "-q -echo a.log").ok().stdout, home.read("a.log"));
    wait(&home, "a.log 7 8").code(1).says(["a.log tells of none of these jobs"]);
    wait(&home, "gone.log").code(1).says(["cannot read gone.log", "a job event log"]);
    wait(&home, "a.log b.log").code(2).says(["b.log is no job"]);
    wait(&home, "--num 2 12").code(2).says(["./12"]);
    home.write("12", "no event\n...\n");
    wait(&home, "./12").code(1).says(["./12: byte 0: neither an event", "tells of no job"]);
    home.assert_nothing_left();
}

#[test]
fn wait_follows_a_log_that_grows_and_one_that_replaces_it() {
    let home = Home::new();
    let fixture = vo_tests::project().join("tests/fixtures/eventlog/htcondor-25.14.dag.text");
    let whole = fs::read_to_string(fixture).unwrap();
    let mut command = home.command("/bin/bash");
    let shown = fs::File::create(home.work("shown")).unwrap();
    command.args(["-c", "exec -a condor_wait vo-login -echo a.log"]).stdout(shown);
    let mut child = command.spawn().unwrap();
    // It is not there at first; then come a whole event and a part of the next one.
    let second = whole.find("001 (").unwrap();
    home.write("a.log", &whole[..second + 100]);
    wait_until("the first event", seconds(20), || (home.read("shown") == whole[..second]).then_some(()));
    let mut log = fs::OpenOptions::new().append(true).open(home.work("a.log")).unwrap();
    let last = whole.find("000 (023").unwrap();
    log.write_all(&whole.as_bytes()[second + 100..last]).unwrap();
    let code = wait_until("its end", seconds(20), || child.try_wait().unwrap());
    assert!(code.success());
    assert_eq!(home.read("shown"), format!("{}All jobs done.\n", &whole[..last]));

    let shown = fs::File::create(home.work("shown")).unwrap();
    home.write("a.log", &whole[..second]);
    let mut command = home.command("/bin/bash");
    command.args(["-c", "exec -a condor_wait vo-login -echo a.log"]).stdout(shown);
    let mut child = command.spawn().unwrap();
    wait_until("the first event", seconds(20), || (home.read("shown") == whole[..second]).then_some(()));
    fs::rename(home.write("b.log", &whole[last..]), home.work("a.log")).unwrap();
    let code = wait_until("its end", seconds(20), || child.try_wait().unwrap());
    assert!(code.success());
    assert_eq!(home.read("shown"), format!("{}{}All jobs done.\n", &whole[..second], &whole[last..]));
    home.assert_nothing_left();
}

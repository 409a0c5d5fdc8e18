//! When what jobs print comes home.

use std::os::unix::fs::PermissionsExt;

use vo_tests::{Home, Run, binary, seconds, wait_until};

/// Prints a line for each file `go.N` that appears, until the fourth.
const LINES: &str = "#!/bin/sh
for n in 0 1 2 3; do
	while ! [ -e \"$1/go.$n\" ]; do sleep 0.1; done
	echo line $n of attempt $VO_ATTEMPT
	echo error $n >&2
done
";

fn session(commands: &str) -> Home {
    let home = Home::new();
    home.script("lines.sh", LINES);
    let work = home.work("");
    let common = format!("executable = lines.sh\narguments = {}\noutput = out\nerror = err\n", work.display());
    home.write("t.sub", format!("{common}should_transfer_files = YES\n{commands}queue\n"));
    home.write("out", "from before");
    home.vo(["-s", "t", "-n", "1:1", "--keep", "-c", "submit t.sub"]).ok();
    home
}

fn reads(home: &Home, expected: &str) {
    let is = || home.work("out").exists() && home.read("out") == expected;
    wait_until(expected, seconds(60), || is().then_some(()));
}

#[test]
fn what_a_job_prints_is_seen_while_it_runs() {
    let home = session("stream_output = true\n");
    home.write("go.0", "");
    reads(&home, "line 0 of attempt 1\n");
    home.write("go.1", "");
    let first = "line 0 of attempt 1\nline 1 of attempt 1\n";
    reads(&home, first);
    assert!(!home.work("err").exists(), "the other one comes at the end");
    // The next master goes on where that one was; what was lost meanwhile is sent again.
    let session = home.vo(["-l", "--json"]).ok().json();
    let master = i32::try_from(session[0]["pid"].as_i64().unwrap()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(master), nix::sys::signal::Signal::SIGKILL).unwrap();
    wait_until("its end", seconds(20), || (!std::fs::exists(format!("/proc/{master}")).unwrap()).then_some(()));
    home.write("out", "line");
    home.terminal(["-r", "t"]).within(seconds(60)).prompt();
    home.write("go.2", "");
    reads(&home, &format!("{first}line 2 of attempt 1\n"));
    // The next attempt begins anew.
    home.vo(["-s", "t", "-c", "hold 1; release 1"]).ok();
    reads(&home, "line 0 of attempt 2\nline 1 of attempt 2\nline 2 of attempt 2\n");
    home.write("go.3", "");
    home.vo(["-s", "t", "-c", "wait --timeout 60s 1"]).ok().says(["1 of 1 job(s) succeeded"]);
    let all: String = (0..4).map(|n| format!("line {n} of attempt 2\n")).collect();
    assert_eq!((home.read("out"), home.read("err")), (all, "error 0\nerror 1\nerror 2\nerror 3\n".into()));
    home.end("t");
    home.assert_nothing_left();
}

#[test]
fn a_flood_of_output_is_seen_whole() {
    let home = Home::new();
    home.script(
        "flood.sh",
        "#!/bin/sh\nseq 400000\ntouch \"$1/done\"\nwhile ! [ -e \"$1/go\" ]; do sleep 0.1; done\nseq 9\n",
    );
    let work = home.work("");
    home.write(
        "t.sub",
        format!("executable = flood.sh\narguments = {}\noutput = out\nerror = out\nstream_output = true\nshould_transfer_files = YES\nqueue\n", work.display()),
    );
    home.vo(["-s", "t", "-n", "1:1", "--keep", "-c", "submit t.sub"]).ok();
    let flood: String = (1..=400_000).map(|n| format!("{n}\n")).collect();
    let size = || std::fs::metadata(home.work("out")).map_or(0, |found| found.len());
    wait_until("all of it", seconds(60), || (size() == flood.len() as u64).then_some(()));
    assert!(home.read("out") == flood && home.work("done").exists());
    home.write("go", "");
    home.vo(["-s", "t", "-c", "wait --timeout 60s 1"]).ok();
    assert!(home.read("out") == flood + "1\n2\n3\n4\n5\n6\n7\n8\n9\n");
    home.end("t");
    home.assert_nothing_left();
}

#[test]
fn what_a_job_prints_may_stay_at_its_node() {
    let home = session("transfer_output = false\n");
    (0..4).for_each(|n| drop(home.write(format!("go.{n}"), "")));
    home.vo(["-s", "t", "-c", "wait --timeout 60s 1"]).ok().says(["1 of 1 job(s) succeeded"]);
    assert_eq!(
        (home.read("out"), home.read("err")),
        ("from before".into(), "error 0\nerror 1\nerror 2\nerror 3\n".into())
    );
    home.end("t");
    home.assert_nothing_left();
}

#[test]
fn what_jobs_leave_has_the_permissions_of_who_submitted_them() {
    let home = Home::new();
    home.script("made.sh", "#!/bin/sh\numask\necho made >made.$1\nmkdir dir.$1\necho in >dir.$1/in\n");
    let common = "executable = made.sh\narguments = $(how)\noutput = out.$(how)\n";
    let there = "should_transfer_files = YES\ntransfer_output_files = made.there, dir.there\nqueue how in (there)\n";
    home.write("t.sub", format!("{common}queue how in (here)\n{there}"));
    for (mask, file, directory) in [("0027", 0o640, 0o750), ("0002", 0o664, 0o775)] {
        let mut shell = home.command("sh");
        shell.args(["-c", &format!("umask {mask}; exec \"$0\" \"$@\"")]).arg(binary("vo-login"));
        shell.args(["-n", "1:1", "-c", "submit t.sub; wait --timeout 60s"]);
        Run::of(shell, b"").ok();
        for how in ["here", "there"] {
            assert_eq!(home.read(format!("out.{how}")), format!("{mask}\n"), "{how}");
            let mode = |name: String| home.work(&name).metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(format!("out.{how}")), file, "{how}");
            assert_eq!(mode(format!("made.{how}")), file, "{how}");
            assert_eq!(mode(format!("dir.{how}")), directory, "{how}");
            std::fs::remove_file(home.work(format!("out.{how}"))).unwrap();
            std::fs::remove_file(home.work(format!("made.{how}"))).unwrap();
            std::fs::remove_dir_all(home.work(format!("dir.{how}"))).unwrap();
        }
    }
    home.assert_nothing_left();
}

#[test]
fn links_to_what_a_job_made_come_home_as_files() {
    let home = Home::new();
    home.script(
        "made.sh",
        "#!/bin/sh\nmkdir all\necho one >all/part.1\nln -s part.1 all/last\nln -s all/part.1 last\nln -s /etc/passwd users\nln -s ../.. all/up\n",
    );
    let named = "transfer_output_files = all\nqueue\n";
    home.write("t.sub", format!("executable = made.sh\nshould_transfer_files = YES\nqueue\n{named}"));
    home.vo(["-n", "1:1", "-c", "submit t.sub; wait --timeout 60s"]).ok();
    for file in ["last", "all/part.1", "all/last"] {
        assert_eq!(home.read(file), "one\n", "{file}");
        assert!(!home.work(file).is_symlink(), "{file}");
    }
    for elsewhere in ["users", "all/up"] {
        assert!(home.work(elsewhere).symlink_metadata().is_err(), "{elsewhere}");
    }
    home.assert_nothing_left();
}

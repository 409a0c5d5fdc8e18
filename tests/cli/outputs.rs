//! When what jobs print comes home.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};

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

/// What was put on a web server, by its path.
type Put = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// A web server that keeps what is put below it, and refuses what is put below `/refused/`. It runs until the tests end.
fn store_by_http() -> (String, Put) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let kept = Put::default();
    let keep = kept.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let (mut request, mut length, mut line) = (String::new(), 0, String::new());
            while stream.read_line(&mut line).unwrap() > 2 {
                if request.is_empty() {
                    request.clone_from(&line);
                }
                let (name, value) = line.split_once(':').unwrap_or_default();
                if name.eq_ignore_ascii_case("content-length") {
                    length = value.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            let path = request.strip_prefix("PUT ").unwrap().split(' ').next().unwrap();
            let answer = if path.starts_with("/refused/") { "403 Forbidden" } else { "201 Created" };
            keep.lock().unwrap().insert(path.to_owned(), body);
            let answer = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            stream.get_mut().write_all(answer.as_bytes()).unwrap();
        }
    });
    (format!("http://{address}"), kept)
}

#[test]
fn outputs_go_to_urls() {
    let home = Home::new();
    home.vo(["-s", "t", "--keep", "-c", "true"]).ok();
    let (url, kept) = store_by_http();
    let far = format!("file://{}", home.work("far").display());
    let make = "executable = /bin/sh\ntransfer_executable = false\n\
        arguments = \"-c 'echo one > one; echo two > two; mkdir d; echo deep > d/deep; echo said; echo three > three; exit $(code:0)'\"\n";
    let files = || {
        let mut files: Vec<_> = std::fs::read_dir(home.path().join("work")).unwrap().collect();
        files.retain(|file| !file.as_ref().unwrap().file_name().to_str().unwrap().ends_with(".sub"));
        let mut names: Vec<_> =
            files.into_iter().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let put = |name: &str| kept.lock().unwrap().remove(name).map(|bytes| String::from_utf8(bytes).unwrap());

    // Some by name, to several kinds of URLs; the rest comes home.
    let remaps = format!("one = {far}/$(Process)/first; two = {url}/two.$(Cluster); d = {url}/tree/");
    let text = format!(
        "{make}transfer_output_files = one, two, d, three\ntransfer_output_remaps = \"{remaps}\"\noutput = out\n"
    );
    home.write("some.sub", format!("{text}queue\n"));
    home.vo(["-s", "t", "-c", "submit some.sub; wait"]).ok().says(["1 of 1 job(s) succeeded"]);
    assert_eq!(files(), ["far", "out", "three"]);
    assert_eq!(home.read("far/0/first"), "one\n");
    assert_eq!(std::fs::read_dir(home.work("far/0")).unwrap().count(), 1);
    assert_eq!(put("/two.1").unwrap(), "two\n");
    assert_eq!(put("/tree/deep").unwrap(), "deep\n");
    let told = home.vo(["-s", "t", "-c", "history -af TransferOutputRemaps"]).ok().stdout;
    assert_eq!(
        told.trim(),
        remaps.replace(" = ", "=").replace("; ", ";").replace("$(Process)", "0").replace("$(Cluster)", "1")
    );

    // All of them to one place, but what it prints; no remap counts then.
    home.sh("rm -r far three out").ok();
    let all = format!("{text}output_destination = {url}/all/$(x)\n");
    home.write("all.sub", format!("{all}queue x in (0)\n"));
    home.vo(["-s", "t", "-c", "submit all.sub; wait 2"]).ok().says(["1 of 1 job(s) succeeded"]);
    assert_eq!(files(), ["out"]);
    for (name, content) in [("one", "one\n"), ("two", "two\n"), ("d/deep", "deep\n"), ("three", "three\n")] {
        assert_eq!(put(&format!("/all/0/{name}")).unwrap(), content);
    }
    let told = home.vo(["-s", "t", "-c", "history 2 -af OutputDestination"]).ok().stdout;
    assert_eq!(told.trim(), format!("{url}/all/0"));

    // What it prints, if that names a URL. With ON_SUCCESS nothing else is sent of a job that fails.
    home.sh("rm out").ok();
    home.write(
        "fails.sub",
        format!("code = 3\n{all}x = 1\noutput = {url}/said\nwhen_to_transfer_output = ON_SUCCESS\nqueue\n"),
    );
    home.vo(["-s", "t", "-c", "submit fails.sub; wait 3"]).says(["0 of 1 job(s) succeeded"]);
    assert_eq!(files(), [""; 0]);
    assert_eq!(put("/said").unwrap(), "said\n");
    assert!(kept.lock().unwrap().is_empty());
    home.end("t");
    home.assert_nothing_left();
}

#[test]
fn an_output_that_can_not_be_sent_holds_its_job() {
    let home = Home::new();
    home.vo(["-s", "t", "--keep", "-c", "true"]).ok();
    let (url, _) = store_by_http();
    home.write("file", "");
    let directory = home.work("far");
    std::fs::create_dir(&directory).unwrap();
    let there = |name: &str| format!("file://{}/{name}", home.path().join("work").display());
    let sub = |name: &str, to: &str| {
        let text = "executable = /bin/sh\ntransfer_executable = false\narguments = \"-c 'echo one > one; echo two > two'\"\noutput = out\n";
        home.write(name, format!("{text}transfer_output_remaps = \"one = {to}\"\nqueue\n"));
        home.vo(["-s", "t", "-c", &format!("submit {name}")]).ok();
    };
    sub("refused.sub", &format!("{url}/refused/one"));
    sub("within.sub", &there("file/one"));
    sub("onto.sub", &there("far"));
    home.vo(["-s", "t", "-c", "wait --timeout 60s"]).code(7);
    for (job, why) in [
        (1, format!("one can not be sent to {url}/refused/one: curl:")),
        (2, format!("one can not be sent to {}: mkdir:", there("file/one"))),
        (3, format!("one can not be sent to {}: it is a directory", there("far"))),
    ] {
        let told = home.vo(["-s", "t", "-c", &format!("q {job} -af HoldReasonCode HoldReason")]).ok().stdout;
        assert!(told.starts_with(&format!("12 {why}")), "{told}");
    }
    assert!(!home.work("two").exists(), "nothing comes home of a result that doesn't count");
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
    // Once the way is free, the released job does it all anew.
    std::fs::remove_dir(&directory).unwrap();
    home.vo(["-s", "t", "-c", "release 3; wait 3"]).ok();
    assert_eq!((home.read("far"), home.read("two")), ("one\n".into(), "two\n".into()));
    // A node that can't send them gets no such job, and is not to blame.
    sub("osdf.sub", "osdf:///none/of/these");
    let why = wait_until("it waits", seconds(30), || {
        let why = home.vo(["-s", "t", "-c", "why 4.0"]).ok().stdout;
        why.contains("refused by its requirements").then_some(why)
    });
    assert!(why.contains("stringListIMember(\"osdf\",TARGET.HasFileTransferPluginMethods)"), "{why}");
    let slots = home.vo(["-s", "t", "-c", "status -af HasFileTransferPluginMethods"]).ok().stdout;
    assert_eq!(slots, "file,ftp,http,https\n");
    home.vo(["-s", "t", "-c", "rm 1 2 4"]).ok();
    home.end("t");
    home.assert_nothing_left();
}

#[test]
fn directories_with_nothing_in_them_come_home() {
    let home = Home::new();
    home.write(
        "t.sub",
        "executable = /bin/sh
transfer_executable = false
arguments = \"-c 'mkdir -p top/full/empty top/bare alone far/away; echo x > top/full/file'\"
should_transfer_files = YES
transfer_output_files = top, alone, far
transfer_output_remaps = \"alone = there/it/is\"
queue
",
    );
    home.vo(["-s", "t", "--keep", "-c", "submit t.sub; wait"]).ok().says(["1 of 1 job(s) succeeded"]);
    for name in ["top/full/empty", "top/bare", "there/it/is", "far/away"] {
        assert_eq!(std::fs::read_dir(home.work(name)).unwrap().count(), 0, "{name}");
    }
    assert_eq!(home.read("top/full/file"), "x\n");
    // What is there already may stay, unless it is none.
    home.write("top/bare/mine", "");
    home.vo(["-s", "t", "-c", "submit t.sub; wait 2"]).ok().says(["1 of 1 job(s) succeeded"]);
    assert!(home.work("top/bare/mine").exists());
    home.sh("rm -r far; echo > far").ok();
    home.vo(["-s", "t", "-c", "submit t.sub; wait --timeout 60s 3"]).code(7);
    let told = home.vo(["-s", "t", "-c", "q 3 -af HoldReasonCode HoldReason; rm 3"]).ok().stdout;
    assert!(told.starts_with("12 ") && told.contains("/far: File exists"), "{told}");
    home.end("t");
    home.assert_nothing_left();
}

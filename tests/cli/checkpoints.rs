//! What an attempt leaves to the next one: checkpoints of the job's own, and the outputs of one that was interrupted.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vo_tests::{Home, seconds, wait_until};

/// The starter, or its guardian.
fn starter(home: &Home, guardian: bool) -> Option<Pid> {
    let is = |line: &str| line.contains("vo-agent starter") && line.contains("--child") != guardian;
    home.processes().into_iter().find(|(_, line)| is(line)).map(|(pid, _)| Pid::from_raw(pid))
}

fn send(pid: Pid, signal: Signal) {
    kill(pid, signal).unwrap();
    let gone = || !std::fs::exists(format!("/proc/{pid}")).unwrap();
    wait_until("its end", seconds(30), || gone().then_some(()));
}

fn appears(home: &Home, name: &str) {
    let file = home.work(name);
    wait_until(name, seconds(60), || file.exists().then_some(()));
}

/// The sets that are kept for job 1.0.
fn kept(home: &Home) -> Vec<String> {
    let entries = std::fs::read_dir(home.session_dir("t").join("kept/1.0")).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

fn is_kept(home: &Home, set: &str) {
    wait_until(set, seconds(30), || (kept(home) == [set]).then_some(()));
}

fn none_is_kept(home: &Home) {
    let kept = home.session_dir("t").join("kept");
    let empty = || std::fs::read_dir(&kept).is_ok_and(|mut entries| entries.next().is_none());
    wait_until("an empty store", seconds(30), || empty().then_some(()));
}

/// Goes on from `state` by a step of its work, and ends to be checkpointed. At each step from the second on, it waits for the file `go.STEP`; at
/// the fourth, it is done.
const STEPS: &str = r#"#!/bin/sh
read -r n 2>/dev/null <state || n=0
echo "step $n of attempt $VO_ATTEMPT"
echo "error $n" >&2
if [ $n -ge 2 ]; then
	touch "$1/reached.$n.$VO_ATTEMPT"
	while ! [ -e "$1/go.$n" ]; do sleep 0.1; done
fi
echo "piece $n" >>pieces
[ $n -lt 4 ] || exit 0
echo $((n + 1)) >state
exit 85
"#;

fn steps(home: &Home, commands: &str) {
    home.script("steps.sh", STEPS);
    let work = home.work("");
    let common = format!("executable = steps.sh\narguments = {}\noutput = out\nerror = err\n", work.display());
    home.write("t.sub", format!("{common}{commands}queue\n"));
}

#[test]
fn a_job_goes_on_from_its_last_checkpoint() {
    let home = Home::new();
    steps(&home, "checkpoint_exit_code = 85\ntransfer_checkpoint_files = state, pieces\nlog = log\n");
    home.vo(["-s", "t", "-n", "1:1", "--keep", "-c", "submit t.sub"]).ok();
    appears(&home, "reached.2.1");
    is_kept(&home, "1.2");
    let set = home.session_dir("t").join("kept/1.0/1.2/files");
    let why = home.vo(["-s", "t", "-c", "why 1.0"]).ok().stdout;
    assert!(why.contains(&format!("what an earlier one left: {}", set.display())), "{why}");
    // The master dies, and then the node.
    let session = home.vo(["-l", "--json"]).ok().json();
    send(Pid::from_raw(i32::try_from(session[0]["pid"].as_i64().unwrap()).unwrap()), Signal::SIGKILL);
    home.terminal(["-r", "t"]).within(seconds(60)).prompt();
    home.vo(["-s", "t", "-c", "status"]).ok();
    send(starter(&home, false).unwrap(), Signal::SIGKILL);
    appears(&home, "reached.2.2");
    // It is held a step later: what came after the checkpoint is not there the next time.
    home.write("go.2", "");
    appears(&home, "reached.3.2");
    is_kept(&home, "2.1");
    home.vo(["-s", "t", "-c", "hold 1; release 1"]).ok();
    appears(&home, "reached.3.3");
    home.write("go.3", "");
    appears(&home, "reached.4.3");
    assert!(!home.work("out").exists(), "a checkpoint is not the job's end");
    home.write("go.4", "");
    home.vo(["-s", "t", "-c", "wait --timeout 60s 1"]).ok().says(["1 of 1 job(s) succeeded"]);
    let steps = [(0, 1), (1, 1), (2, 2), (3, 3), (4, 3)];
    let told: String = steps.iter().map(|(step, attempt)| format!("step {step} of attempt {attempt}\n")).collect();
    assert_eq!(home.read("out"), told);
    assert_eq!(home.read("err"), "error 0\nerror 1\nerror 2\nerror 3\nerror 4\n");
    assert_eq!(home.read("pieces"), "piece 0\npiece 1\npiece 2\npiece 3\npiece 4\n");
    none_is_kept(&home);
    // To its event log it ended once.
    let log = home.read("log");
    assert_eq!(log.lines().filter(|line| line.starts_with("005 ")).count(), 1, "{log}");
    home.end("t");
    home.assert_nothing_left();
}

#[test]
fn checkpoints_that_nobody_could_take_wait_at_the_site() {
    let home = Home::new();
    steps(&home, "+SuccessCheckpointExitCode = 85\n+WantFTOnCheckpoint = true\n");
    home.write("vo.conf", "[session]\nlease = \"8s\"\n[[site]]\ngateway = \"local\"\n");
    home.vo(["-H", "vo.conf", "-s", "t", "-n", "1:1", "--keep", "-c", "submit t.sub"]).ok();
    appears(&home, "reached.2.1");
    is_kept(&home, "1.2");
    // Neither master nor agent sees the next steps, nor the end of the starter.
    let session = home.vo(["-l", "--json"]).ok().json();
    send(Pid::from_raw(i32::try_from(session[0]["pid"].as_i64().unwrap()).unwrap()), Signal::SIGKILL);
    let agent = home.processes().into_iter().find(|(_, line)| line.contains("vo-agent event")).unwrap();
    send(Pid::from_raw(agent.0), Signal::SIGKILL);
    home.write("go.2", "");
    home.write("go.3", "");
    appears(&home, "reached.4.1");
    wait_until("the starter's end", seconds(60), || starter(&home, false).is_none().then_some(()));
    assert_eq!(kept(&home), ["1.2"]);
    home.terminal(["-r", "t"]).within(seconds(60)).prompt();
    is_kept(&home, "1.4");
    home.write("go.4", "");
    home.vo(["-s", "t", "-c", "wait --timeout 60s 1"]).ok().says(["1 of 1 job(s) succeeded"]);
    assert_eq!(home.read("pieces"), "piece 0\npiece 1\npiece 2\npiece 3\npiece 4\n");
    home.end("t");
    home.assert_nothing_left();
}

/// Counts its attempts in `count`, and keeps what it has when it is asked to end; the third is done.
const INTERRUPTED: &str = r#"#!/bin/sh
read -r n <count
n=$((n + 1))
echo "attempt $n" | tee "part.$n"
trap 'echo $n >count; exit 3' TERM
[ $n -lt 3 ] || exit 0
touch "$1/reached.$n"
while :; do sleep 0.1; done
"#;

fn interrupted(commands: &str) -> Home {
    let home = Home::new();
    home.script("count.sh", INTERRUPTED);
    home.write("count", "0\n");
    home.write(
        "t.sub",
        format!(
            "executable = count.sh\narguments = {}\ntransfer_input_files = count\noutput = out\n\
             when_to_transfer_output = ON_EXIT_OR_EVICT\n{commands}queue\n",
            home.work("").display()
        ),
    );
    home.vo(["-s", "t", "-n", "1:1", "--keep", "-c", "submit t.sub"]).ok();
    appears(&home, "reached.1");
    // The batch system ends the proxy.
    send(starter(&home, true).unwrap(), Signal::SIGTERM);
    appears(&home, "reached.2");
    is_kept(&home, "1.1");
    home.vo(["-s", "t", "-c", "hold 1"]).ok();
    // An attempt may have gone to the starter that was about to end.
    wait_until("the next set", seconds(30), || matches!(&kept(&home)[..], [set] if set != "1.1").then_some(()));
    assert!(!home.work("part.1").exists(), "nothing comes home before the end");
    home.vo(["-s", "t", "-c", "release 1; wait --timeout 60s 1"]).ok().says(["1 of 1 job(s) succeeded"]);
    none_is_kept(&home);
    home
}

#[test]
fn an_interrupted_attempt_leaves_its_outputs_to_the_next() {
    let home = interrupted("");
    for attempt in 1..=3 {
        assert_eq!(home.read(format!("part.{attempt}")), format!("attempt {attempt}\n"));
    }
    assert_eq!((home.read("out"), home.read("count")), ("attempt 3\n".into(), "2\n".into()));
    // What is removed leaves nothing.
    home.write("count", "0\n");
    std::fs::remove_file(home.work("reached.1")).unwrap();
    home.vo(["-s", "t", "-c", "submit t.sub"]).ok();
    appears(&home, "reached.1");
    home.vo(["-s", "t", "-c", "hold 2"]).ok();
    let set = home.session_dir("t").join("kept/2.0/1.1");
    wait_until("the set", seconds(30), || set.exists().then_some(()));
    home.vo(["-s", "t", "-c", "rm 2"]).ok();
    none_is_kept(&home);
    home.end("t");
    assert!(!home.session_dir("t").join("kept").exists());
    home.assert_nothing_left();
}

#[test]
fn output_goes_on_where_the_interrupted_attempt_ended_if_that_is_asked_for() {
    let home = interrupted("transfer_output_files = count, part.3\nerase_output_and_error_on_restart = false\n");
    assert_eq!(
        (home.read("out"), home.read("part.3")),
        ("attempt 1\nattempt 2\nattempt 3\n".into(), "attempt 3\n".into())
    );
    assert!(!home.work("part.1").exists(), "only what is named is kept");
    home.end("t");
    home.assert_nothing_left();
}

#[test]
fn a_job_may_checkpoint_itself_in_its_own_directory_or_by_a_signal() {
    let home = Home::new();
    home.script(
        "steps.sh",
        "#!/bin/sh\nread -r n 2>/dev/null <$1 || n=0\necho step $n\n[ $n -lt 3 ] || exit 0\necho $((n + 1)) >$1\neval $2\n",
    );
    home.write(
        "t.sub",
        "executable = steps.sh\narguments = \"state.$(Process) 'kill -USR2 $$'\"\noutput = out.$(Process)\n\
         +SuccessCheckpointExitBySignal = true\n+SuccessCheckpointExitSignal = 12\nqueue\n",
    );
    home.write(
        "o.sub",
        "executable = steps.sh\narguments = \"state 'exit 85'\"\noutput = out\nerror = out\nshould_transfer_files = NO\n\
         checkpoint_exit_code = 85\nqueue\n",
    );
    home.vo(["-s", "t", "-n", "1:1", "--keep", "-c", "submit t.sub; submit o.sub; wait --timeout 60s"]).ok();
    for out in ["out", "out.0"] {
        assert_eq!(home.read(out), "step 0\nstep 1\nstep 2\nstep 3\n", "{out}");
    }
    // A checkpoint that is not there is not taken for one.
    home.write(
        "m.sub",
        "executable = steps.sh\narguments = \"state 'exit 85'\"\noutput = m\ncheckpoint_exit_code = 85\n\
         transfer_checkpoint_files = nowhere\nqueue\n",
    );
    home.vo(["-s", "t", "-c", "submit m.sub"]).ok();
    let job = || home.vo(["-s", "t", "-c", "q --all --json 3"]).ok().json()[0].clone();
    let held = wait_until("held", seconds(60), || Some(job()).filter(|job| job["state"] == "held"));
    assert_eq!(held["reason"], "transfer_checkpoint_files: nowhere: No such file or directory");
    home.vo(["-s", "t", "-c", "submit m.sub -a checkpoint_exit_code=300"]).code(6).says(["300 is no exit code"]);
    home.vo(["-s", "t", "-c", "rm 3"]).ok();
    home.end("t");
    home.assert_nothing_left();
}

#[test]
fn checkpoints_made_without_a_master_come_when_there_is_one() {
    let home = Home::new();
    steps(&home, "checkpoint_exit_code = 85\n");
    home.vo(["-s", "t", "-n", "1:1", "--keep", "-c", "submit t.sub"]).ok();
    appears(&home, "reached.2.1");
    is_kept(&home, "1.2");
    let session = home.vo(["-l", "--json"]).ok().json();
    send(Pid::from_raw(i32::try_from(session[0]["pid"].as_i64().unwrap()).unwrap()), Signal::SIGKILL);
    home.write("go.2", "");
    home.write("go.3", "");
    appears(&home, "reached.4.1");
    assert_eq!(kept(&home), ["1.2"]);
    home.terminal(["-r", "t"]).within(seconds(60)).prompt();
    // The newest alone.
    is_kept(&home, "1.4");
    send(starter(&home, false).unwrap(), Signal::SIGKILL);
    appears(&home, "reached.4.2");
    home.write("go.4", "");
    home.vo(["-s", "t", "-c", "wait --timeout 60s 1"]).ok().says(["1 of 1 job(s) succeeded"]);
    assert_eq!(home.read("pieces"), "piece 0\npiece 1\npiece 2\npiece 3\npiece 4\n");
    home.end("t");
    home.assert_nothing_left();
}

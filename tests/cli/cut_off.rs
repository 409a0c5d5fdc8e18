//! Attempts that are cut off: what they wrote is kept, and results that nobody could take wait at the site.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vo_tests::{Home, seconds, wait_until};

/// The process of this home whose command line holds all of `words`.
fn process(home: &Home, words: &[&str]) -> Option<i32> {
    let found = home.processes().into_iter().find(|(_, line)| words.iter().all(|word| line.contains(word)));
    found.map(|(pid, _)| pid)
}

fn end(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    wait_until("its end", seconds(20), || (!std::fs::exists(format!("/proc/{pid}")).unwrap()).then_some(()));
}

/// A job that writes, tells that it has, and waits for the file `go`; later attempts end at once.
fn talker(home: &Home) {
    home.script(
        "talk.sh",
        "#!/bin/sh\necho attempt $VO_ATTEMPT\necho oops $VO_ATTEMPT >&2\n[ $VO_ATTEMPT = 1 ] || exit 0\n\
         touch \"$1/written.$VO_JOB\"\nwhile ! [ -e \"$1/go\" ]; do sleep 0.1; done\nhead -c 300000 /dev/zero >big\n",
    );
    let work = home.work("");
    home.write(
        "t.sub",
        format!(
            "executable = talk.sh\narguments = {}\noutput = out.$(Process)\nerror = err.$(Process)\n\
             should_transfer_files = YES\nqueue 1\n",
            work.display()
        ),
    );
}

fn written(home: &Home, job: &str) {
    let file = home.work(format!("written.{job}"));
    wait_until("the job has written", seconds(60), || file.exists().then_some(()));
}

#[test]
fn what_cut_off_attempts_wrote_is_found_with_log() {
    let home = Home::new();
    talker(&home);
    home.vo(["-s", "t", "-n", "1:1", "--keep", "-c", "submit t.sub"]).ok();
    written(&home, "1.0");
    // The starter is killed; its guardian hands in what it finds.
    end(process(&home, &["starter", "--child"]).unwrap());
    home.vo(["-s", "t", "-c", "wait --timeout 100s"]).ok().says(["1 of 1 job(s) succeeded"]);
    let shown = |line: &str| home.vo(["-s", "t", "-c", line]).ok().stdout;
    wait_until("the guardian's word", seconds(30), || shown("log 1.0").contains("partial").then_some(()));
    assert_eq!(shown("log --attempt 1 1.0"), "attempt 1\n");
    assert_eq!(shown("log --attempt 1 -e 1.0"), "oops 1\n");
    assert_eq!(shown("log -o 1.0"), "attempt 2\n");
    home.vo(["-s", "t", "-c", "log --attempt 2 1.0"]).code(2).says(["nothing is kept", "`log -o 1.0`"]);
    let detail = home.vo(["-s", "t", "-c", "log --json 1.0"]).ok().json();
    let kinds: Vec<_> = detail[0]["partials"].as_array().unwrap().iter().map(|row| row["kind"].clone()).collect();
    assert_eq!(kinds, ["output", "error"]);

    // So does one that the user removes; its own files are not touched.
    home.vo(["-s", "t", "-c", "submit t.sub"]).ok();
    std::fs::remove_file(home.work("out.0")).unwrap();
    written(&home, "2.0");
    home.vo(["-s", "t", "-c", "rm 2"]).ok();
    wait_until("what it wrote", seconds(30), || shown("log 2.0").contains("partial").then_some(()));
    assert_eq!(shown("log --attempt 1 2.0"), "attempt 1\n");
    assert!(!home.work("out.0").exists());
    let kept = home.session_dir("t").join("partial");
    assert_eq!(std::fs::read_dir(&kept).unwrap().count(), 4);
    home.end("t");
    assert!(!kept.exists());
    home.assert_nothing_left();
}

#[test]
fn results_wait_at_the_site_for_the_next_master() {
    let home = Home::new();
    talker(&home);
    home.write("vo.conf", "[session]\nlease = \"8s\"\n[[site]]\ngateway = \"local\"\n");
    home.vo(["-H", "vo.conf", "-s", "t", "-n", "1:1", "--keep", "-c", "submit t.sub"]).ok();
    written(&home, "1.0");
    // Neither master nor agent is there when the job ends, nor before the starter's lease does.
    let session = home.vo(["-l", "--json"]).ok().json();
    end(i32::try_from(session[0]["pid"].as_i64().unwrap()).unwrap());
    end(process(&home, &["vo-agent event"]).unwrap());
    home.write("go", "");
    wait_until("the starter's end", seconds(60), || process(&home, &["starter", "--dir"]).is_none().then_some(()));
    assert!(!home.work("big").exists());
    home.terminal(["-r", "t"]).within(seconds(60)).prompt();
    home.vo(["-s", "t", "-c", "wait --timeout 100s"]).ok().says(["1 of 1 job(s) succeeded"]);
    assert_eq!(home.read("out.0"), "attempt 1\n", "the attempt that ended counts");
    assert_eq!(std::fs::metadata(home.work("big")).unwrap().len(), 300_000);
    let spool =
        std::fs::read_dir(home.path().join(".vo-login")).unwrap().flatten().map(|entry| entry.path().join("spool"));
    for spool in spool.filter(|spool| spool.exists()) {
        let empty = || std::fs::read_dir(&spool).is_ok_and(|mut entries| entries.next().is_none());
        wait_until("an empty spool", seconds(30), || empty().then_some(()));
    }
    home.end("t");
    home.assert_nothing_left();
}

#[test]
fn a_result_put_aside_after_its_starter_was_given_up_counts() {
    let home = Home::new();
    let work = home.work("");
    home.script(
        "wait.sh",
        "#!/bin/sh\necho attempt $VO_ATTEMPT\ntouch \"$1/began.$VO_ATTEMPT\"\nwhile ! [ -e \"$1/go.$VO_ATTEMPT\" ]; do sleep 0.1; done\n",
    );
    let began = |attempt: u32| {
        let file = home.work(format!("began.{attempt}"));
        wait_until("an attempt", seconds(60), || file.exists().then_some(()));
    };
    home.write(
        "t.sub",
        format!(
            "executable = wait.sh\narguments = {}\noutput = out\nshould_transfer_files = YES\nqueue\n",
            work.display()
        ),
    );
    home.write("vo.conf", "[session]\nlease = \"8s\"\n[[site]]\ngateway = \"local\"\n");
    home.vo(["-H", "vo.conf", "-s", "t", "-n", "2:1", "--keep", "-c", "submit t.sub"]).ok();
    began(1);
    // Who runs it: the job's parent.
    let job = process(&home, &["wait.sh"]).unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{job}/stat")).unwrap();
    let starter: i32 = stat.rsplit(") ").next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();

    // It ends while nobody can take its result, and there is no room to put it aside.
    let session = home.vo(["-l", "--json"]).ok().json();
    end(i32::try_from(session[0]["pid"].as_i64().unwrap()).unwrap());
    end(process(&home, &["vo-agent event"]).unwrap());
    let entries = std::fs::read_dir(home.path().join(".vo-login")).unwrap().flatten().map(|entry| entry.path());
    let site = entries.into_iter().find(|path| path.join("proxies").exists()).unwrap();
    std::fs::write(site.join("spool"), "").unwrap();
    home.write("go.1", "");
    let said = || {
        let proxies = std::fs::read_dir(site.join("proxies")).unwrap().flatten();
        let files = proxies.flat_map(|proxy| std::fs::read_dir(proxy.path()).unwrap().flatten());
        files.into_iter().any(|file| {
            std::fs::read(file.path()).is_ok_and(|text| String::from_utf8_lossy(&text).contains("can't be put aside"))
        })
    };
    wait_until("a starter that finds no room", seconds(60), || said().then_some(()));

    // It is cut off until it counts as ended, and its job runs elsewhere.
    kill(Pid::from_raw(starter), Signal::SIGSTOP).unwrap();
    home.terminal(["-r", "t"]).within(seconds(60)).prompt();
    // For which there is to be another proxy: that one still runs, says the batch system.
    began(2);
    std::fs::remove_file(site.join("spool")).unwrap();
    kill(Pid::from_raw(starter), Signal::SIGCONT).unwrap();
    home.vo(["-s", "t", "-c", "wait --timeout 150s"]).ok().says(["1 of 1 job(s) succeeded"]);
    assert_eq!(home.read("out"), "attempt 1\n");
    home.end("t");
    home.assert_nothing_left();
}

/// Starts cron with one table, in a mount namespace where it finds no other.
const CRON: &str =
    "mount -t tmpfs none /run && mount -t tmpfs none /etc/cron.d && mount -t tmpfs none /var/spool/cron/crontabs &&
	mount --bind /dev/null /etc/crontab && install -m 600 crontab /var/spool/cron/crontabs/root && exec cron -f";

/// Starts a user's systemd, in a mount namespace where it believes that the machine was booted with it.
const SYSTEMD: &str = "mount -t tmpfs none /run && mkdir -p /run/systemd/system && mkdir -m 700 /run/user && export XDG_RUNTIME_DIR=/run/user &&
	SYSTEMD_OFFLINE=1 systemctl --quiet --user enable vo-agent-revive.timer && exec /lib/systemd/systemd --user --log-target=console --unit=timers.target";

/// The master and the event agent are killed, and `service` brings the agent back, without a master.
fn comes_back_by(service: &str, program: &str, prepare: impl FnOnce(&Home)) {
    if !nix::unistd::geteuid().is_root() || !std::path::Path::new(program).exists() {
        return vo_tests::skip(&format!("needs {program}, and root to run one of its own"));
    }
    let home = Home::new();
    talker(&home);
    home.write("vo.conf", "[session]\nlease = \"10m\"\n[[site]]\ngateway = \"local\"\n");
    home.vo(["-H", "vo.conf", "-s", "t", "-n", "1:1", "--keep", "-c", "submit t.sub"]).ok();
    written(&home, "1.0");
    let session = home.vo(["-l", "--json"]).ok().json();
    end(i32::try_from(session[0]["pid"].as_i64().unwrap()).unwrap());
    end(process(&home, &["vo-agent event"]).unwrap());
    let starter = process(&home, &["starter", "--child"]).unwrap();
    prepare(&home);
    let mut command = home.command("unshare");
    command.args(["--mount", "sh", "-c", service]).current_dir(home.work(""));
    let mut running = std::os::unix::process::CommandExt::process_group(&mut command, 0).spawn().unwrap();
    let back = || process(&home, &["vo-agent event"]);
    wait_until("the agent", seconds(150), || {
        assert_eq!(running.try_wait().unwrap(), None, "{program} runs");
        back()
    });
    running.kill().unwrap();
    running.wait().unwrap();
    // It goes on without that, the starter has come to it, and what it runs counts.
    home.terminal(["-r", "t"]).within(seconds(60)).prompt();
    home.write("go", "");
    home.vo(["-s", "t", "-c", "wait --timeout 60s"]).ok().says(["1 of 1 job(s) succeeded"]);
    assert_eq!(home.read("out.0"), "attempt 1\n");
    assert_eq!(process(&home, &["starter", "--child"]), Some(starter), "the same one");
    home.end("t");
    home.assert_nothing_left();
}

#[test]
fn cron_brings_back_an_agent_that_was_killed_without_a_master() {
    comes_back_by(CRON, "/usr/sbin/cron", |home| {
        // The line of the manual, each minute.
        let table = std::fs::read_to_string(vo_tests::project().join("contrib/revive/crontab")).unwrap();
        let table = table.replace("*/10 * * * *", "* * * * *");
        home.write("crontab", format!("HOME={}\n{table}", home.path().display()));
    });
}

#[test]
fn systemd_brings_back_an_agent_that_was_killed_without_a_master() {
    comes_back_by(SYSTEMD, "/lib/systemd/systemd", |home| {
        let units = home.path().join("config/systemd/user");
        std::fs::create_dir_all(&units).unwrap();
        for name in ["vo-agent-revive.service", "vo-agent-revive.timer"] {
            std::fs::copy(vo_tests::project().join("contrib/revive").join(name), units.join(name)).unwrap();
        }
        // As the manual has it, sooner.
        std::fs::create_dir(units.join("vo-agent-revive.timer.d")).unwrap();
        let sooner = "[Timer]\nOnStartupSec=\nOnStartupSec=1s\nAccuracySec=1s\nRandomizedDelaySec=0\n";
        std::fs::write(units.join("vo-agent-revive.timer.d/sooner.conf"), sooner).unwrap();
    });
}

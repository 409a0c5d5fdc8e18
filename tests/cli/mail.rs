//! The mails that jobs ask for.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vo_tests::{Home, seconds, wait_until};

/// Stands for `sendmail -t`: each mail becomes a file `mail.N`, whole.
const SENDMAIL: &str = "#!/bin/sh
cd \"$(dirname \"$0\")\" || exit 1
cat > part.$$
mv part.$$ mail.$(ls | grep -c '^mail\\.')
";

/// A session `t` with one local proxy, and what sends its mails.
fn session(mail: &str) -> Home {
    let home = Home::new();
    home.script("sendmail.sh", SENDMAIL);
    home.script("fails.sh", "#!/bin/sh\necho 'no relay' >&2\nexit 75\n");
    let mail = mail.replace("./", &format!("{}/", home.work("").display()));
    let conf = format!("[session]\nmail = \"{mail}\"\n[[site]]\ngateway = \"local\"\nproxies = \"1:2\"\n");
    home.write("vo.conf", conf);
    home.vo(["-H", "vo.conf", "-s", "t", "--keep", "-c", "true"]).ok();
    home
}

fn submit(home: &Home, description: &str) -> String {
    home.write("t.sub", description);
    home.vo(["-s", "t", "-c", "submit t.sub"]).ok().stderr
}

/// The mails so far.
fn mails(home: &Home) -> Vec<String> {
    let names = (0..).map(|n| format!("mail.{n}")).take_while(|name| home.work(name).exists());
    names.map(|name| home.read(name)).collect()
}

/// The mails, once there are as many.
fn once(home: &Home, count: usize) -> Vec<String> {
    wait_until("a mail", seconds(60), || Some(mails(home)).filter(|mails| mails.len() >= count))
}

fn end(home: &Home) {
    home.end("t");
    home.assert_nothing_left();
}

#[test]
fn a_job_tells_how_it_ended() {
    let home = session("./sendmail.sh -t");
    let said = submit(
        &home,
        "executable = /bin/sh\narguments = \"-c 'exit 3'\"\nnotification = Error\nnotify_user = ann@example.org\n\
         email_attributes = RequestCpus, Campaign, Absent\nMY.Campaign = \"spring\"\nqueue\n",
    );
    assert_eq!(said, "");
    let mail = once(&home, 1).remove(0);
    let (headers, body) = mail.split_once("\n\n").unwrap();
    assert!(
        headers.starts_with("To: ann@example.org\nSubject: [vo-login t] job 1.0 ended with exit code 3\n"),
        "{mail}"
    );
    for line in [
        "Job 1.0 ended with exit code 3\n    command    /bin/sh -c exit 3\n    directory  /",
        "    submitted  20",
        "    started    20",
        "    ended      20",
        "    run time   0:00:0",
        "    memory     ",
        "    site       local\n",
        "    RequestCpus = 1\n    Campaign = \"spring\"\n    Absent = undefined\n",
    ] {
        assert!(body.contains(line), "{line:?} is missing in\n{mail}");
    }
    // What did well is not told, nor what the user did; a job that can't run is.
    submit(&home, "executable = /bin/true\nnotification = error\nqueue\n");
    submit(&home, "executable = /bin/true\nnotification = error\nhold = true\nqueue\n");
    submit(&home, "executable = /bin/true\nqueue\n");
    home.vo(["-s", "t", "-c", "wait 2 4"]).ok();
    submit(
        &home,
        "executable = /no/such/program\ntransfer_executable = false\nnotification = ERROR\nnotify_user = bob\nqueue\n",
    );
    let mail = once(&home, 2).remove(1);
    assert!(mail.starts_with("To: bob\nSubject: [vo-login t] job 5.0 is held: "), "{mail}");
    end(&home);
    assert_eq!(mails(&home).len(), 2, "{:?}", mails(&home));
}

#[test]
fn a_cluster_makes_one_mail_and_a_crash_loses_and_doubles_none() {
    let home = session("./sendmail.sh");
    home.script("some.sh", "#!/bin/sh\nwhile [ $1 = 29 ] && [ ! -e go ]; do sleep 0.1; done\n[ $1 -ge 4 ]\n");
    submit(
        &home,
        "executable = some.sh\narguments = $(Process)\nnotification = Complete\nbatch_name = scan\nqueue 30\n",
    );
    let waiting = home.session_dir("t").join("mails");
    let read = || std::fs::read_to_string(&waiting).unwrap_or_default();
    wait_until("what is to be told, in its file", seconds(60), || read().contains("\"succeeded\":25").then_some(()));
    assert_eq!(mails(&home).len(), 0, "the cluster is at work");
    let pid = home.vo(["-l", "--json"]).ok().json()[0]["pid"].as_i64().unwrap();
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL).unwrap();
    wait_until("its end", seconds(10), || (!std::fs::exists(format!("/proc/{pid}")).unwrap()).then_some(()));
    home.terminal(["-r", "t"]).within(seconds(60)).prompt();
    home.write("go", "");
    let mail = once(&home, 1).remove(0);
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name;
    let begin = format!("To: {user}\nSubject: [vo-login t] cluster 1: 4 failed, 26 succeeded\n");
    assert!(mail.starts_with(&begin), "{mail}");
    assert!(mail.contains("\nCluster 1 (scan): 4 failed, 26 succeeded\n\nJob 1."), "{mail}");
    assert_eq!(mail.matches(" ended with exit code 1\n").count(), 4, "those that failed are all told of:\n{mail}");
    assert_eq!(mail.matches(" ended with exit code 0\n").count(), 10, "{mail}");
    assert!(mail.contains("\nand 16 more; "), "{mail}");
    end(&home);
    assert_eq!(mails(&home).len(), 1);
}

#[test]
fn the_end_of_the_session_tells_what_waits() {
    let home = session("./sendmail.sh");
    submit(
        &home,
        "executable = /bin/sh\narguments = \"-c '[ $(Process) = 0 ] || sleep 600'\"\nnotification = always\nqueue 2\n",
    );
    home.vo(["-s", "t", "-c", "wait 1.0"]).ok();
    end(&home);
    let mails = mails(&home);
    assert_eq!(mails.len(), 1);
    assert!(mails[0].contains("Job 1.0 ended with exit code 0\n"), "{}", mails[0]);
}

#[test]
fn what_cannot_be_sent_is_told() {
    let home = session("none");
    let said = submit(&home, "executable = /bin/true\nnotification = complete\nqueue\n");
    assert!(
        said.contains("warning: no mail can be sent of cluster 1: vo.conf says `mail = \"none\"`\nhint: "),
        "{said}"
    );
    assert_eq!(submit(&home, "executable = /bin/true\nqueue\n"), "");
    let said = submit(&home, "executable = /bin/true\nnotify_user = never\nqueue\n");
    assert!(said.contains("t.sub:2:") && said.contains("`notification = never` asks for none"), "{said}");
    end(&home);
    let home = session("./no-such-program -t");
    let said = submit(&home, "executable = /bin/true\nnotification = complete\nqueue\n");
    assert!(said.contains("there is no program /") && said.contains("no-such-program, which vo.conf names"), "{said}");
    end(&home);
    let home = session("./fails.sh");
    assert_eq!(submit(&home, "executable = /bin/true\nnotification = complete\nqueue\n"), "");
    let log = home.session_dir("t").join("master.log");
    wait_until("the failure in the log", seconds(60), || {
        let log = std::fs::read_to_string(&log).unwrap();
        (log.contains("can't be sent: ") && log.contains("ended with exit status: 75: no relay")).then_some(())
    });
    let waiting = || std::fs::read_to_string(home.session_dir("t").join("mails")).unwrap();
    wait_until("the mail among what waits", seconds(10), || waiting().contains("\"succeeded\":1").then_some(()));
    end(&home);
}

#[test]
fn a_dag_tells_of_its_end_and_its_nodes_are_quiet_unless_told_otherwise() {
    let home = session("./sendmail.sh");
    home.write("node.sub", "executable = /bin/sh\narguments = \"-c 'exit $(code)'\"\nnotification = always\nqueue\n");
    home.write("x.dag", "JOB A node.sub\nJOB B node.sub\nPARENT A CHILD B\nVARS A code=\"0\"\nVARS B code=\"1\"\n");
    home.vo(["-s", "t", "-c", "condor_submit_dag -notification Error x.dag; dag wait x.dag"]).code(7);
    let mail = once(&home, 1).remove(0);
    assert!(mail.contains("\nSubject: [vo-login t] DAG 1 ended with exit code 1\n"), "{mail}");
    assert!(mail.contains("\n    nodes      2, of which 1 are done and 1 failed\n    rescue     "), "{mail}");
    home.vo(["-s", "t", "-c", "condor_submit_dag -f -dont_suppress_notification x.dag; dag wait x.dag"]).code(7);
    // The address has had a mail already; the rest goes at the end of the session.
    end(&home);
    let mails = mails(&home);
    assert_eq!(mails.len(), 2, "{mails:?}");
    assert!(mails[1].contains("\nSubject: [vo-login t] 2 clusters: 1 failed, 1 succeeded\n"), "{}", mails[1]);
    let refused = home.vo(["-c", "condor_submit_dag -notification sometimes x.dag"]).code(2);
    assert!(refused.stderr.contains("expected never, complete, error or always"), "{}", refused.stderr);
}

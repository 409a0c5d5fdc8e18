//! DAGs over a local site: order, scripts, retries, rescue files, sub-DAGs, holding and removing, and a master that is killed.

use std::collections::BTreeSet;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vo_tests::{Home, project, seconds, wait_until};

/// Each job notes its node, and does as its macros say.
const JOB: &str =
    "executable = job.sh\narguments = $(JOB) $(RETRY) $(code) $(pause)\noutput = $(JOB).$(RETRY).out\nqueue\n";

fn home() -> Home {
    let home = Home::new();
    home.script("job.sh", "#!/bin/sh\necho \"$1 $2\" >> ledger\nsleep ${4:-0}\nexit ${3:-0}\n");
    home.write("job.sub", JOB);
    home.vo(["-s", "t", "-n", "1:4", "--keep", "-c", "true"]).ok();
    home
}

fn end(home: &Home) {
    home.end("t");
    home.assert_nothing_left();
}

fn ledger(home: &Home) -> Vec<String> {
    home.read("ledger").lines().map(str::to_owned).collect()
}

fn place(ledger: &[String], line: &str) -> usize {
    let places: Vec<usize> = (0..ledger.len()).filter(|i| ledger[*i] == line).collect();
    assert_eq!(places.len(), 1, "{line} is in {ledger:?}");
    places[0]
}

#[test]
fn nodes_run_in_order_with_scripts_retries_and_a_rescue_file() {
    let home = home();
    home.script("pre.sh", "#!/bin/sh\necho pre $* >> ledger\n");
    home.script("post.sh", "#!/bin/sh\necho post $*\n[ \"$2\" = 0 ] || [ -e mended ]\n");
    home.write(
        "x.dag",
        "JOB A job.sub\nJOB B job.sub\nJOB C job.sub\nJOB D job.sub\nJOB N gone.sub NOOP\nPARENT A CHILD B C N\nPARENT B C N CHILD D\n\
         VARS ALL_NODES code=\"0\" pause=\"0\"\nVARS C code=\"3\"\nRETRY C 1\nSCRIPT PRE B pre.sh $JOB $RETRY $MAX_RETRIES\n\
         SCRIPT DEBUG said ALL POST C post.sh $JOB $RETURN $RETRY $FAILED_COUNT\nNODE_STATUS_FILE status\nJOBSTATE_LOG states\nDOT x.dot\n",
    );
    let run = home.vo(["-s", "t", "-c", "submit x.dag; dag wait x.dag"]).code(7);
    assert_eq!(run.stdout, "DAG 1: 5 node(s) of x.dag submitted.\n1 job(s) submitted to cluster 1.\n");
    run.says(["last problem: the jobs of node C ended: 3"]);
    let lines = ledger(&home);
    assert_eq!(place(&lines, "A 0"), 0, "{lines:?}");
    assert!(place(&lines, "pre B 0 0") < place(&lines, "B 0"));
    assert!(place(&lines, "C 0") < place(&lines, "C 1"));
    assert_eq!(lines.len(), 5, "D must not run: {lines:?}");
    assert_eq!(home.read("said"), "*** post.sh ***\npost C 3 0 0\n*** post.sh ***\npost C 3 1 0\n");
    let rescue = home.read("x.dag.rescue001");
    assert!(rescue.contains("# Nodes that failed: 1\n#   C,<ENDLIST>\n"), "{rescue}");
    let done: Vec<&str> = rescue.lines().filter(|line| line.starts_with("DONE")).collect();
    assert_eq!(done, ["DONE A", "DONE B", "DONE N"]);
    assert!(home.read("status").contains("DagStatus = 6; /* \"STATUS_ERROR (failed)\" */"));
    assert!(home.read("status").contains("NodesFutile = 1;"));
    assert_eq!(home.read("states").matches(" C JOB_FAILURE 3 - - ").count(), 2, "{}", home.read("states"));
    assert!(home.read("x.dot").contains("\"A\" -> \"B\";"));
    assert!(home.read("x.dag.dagman.out").contains("DAG 1 EXITING WITH STATUS 1"));
    let metrics: serde_json::Value = serde_json::from_str(&home.read("x.dag.metrics")).unwrap();
    assert_eq!((&metrics["exitcode"], &metrics["nodes_failed"]), (&1.into(), &1.into()));
    assert!(!home.work("x.dag.lock").exists());
    let shown = home.vo(["-s", "t", "-c", "dag --json 1"]).ok().json();
    assert_eq!((&shown[0]["state"], &shown[0]["done"], &shown[0]["failed"]), (&"failed".into(), &3.into(), &1.into()));

    // What was done is not done again; mended, the rest succeeds.
    home.write("mended", "");
    home.vo(["-s", "t", "-c", "submit x.dag; dag wait x.dag"]).ok().says(["x.dag.rescue001 says what is done"]);
    let lines = ledger(&home);
    assert_eq!(lines.iter().filter(|line| line.starts_with("A ")).count(), 1, "{lines:?}");
    assert_eq!(lines.last().unwrap(), "D 0", "{lines:?}");
    // All of it, with -f.
    home.vo(["-s", "t", "-c", "condor_submit_dag -f x.dag; dag wait x.dag"]).ok();
    assert_eq!(ledger(&home).iter().filter(|line| *line == "A 0").count(), 2);
    assert!(home.work("x.dag.rescue001.old").exists());
    end(&home);
}

#[test]
fn a_status_file_tells_of_the_last_change_though_nothing_follows_it() {
    let home = home();
    home.script(
        "look.sh",
        "#!/bin/sh\ni=0\nuntil grep -A3 'Node = \"B\"' status | grep -q '\"not_idle\"'\ndo\n i=$((i + 1))\n [ $i -lt 300 ] || exit 1\n \
         sleep 0.1\ndone\n",
    );
    home.write("look.sub", "executable = look.sh\nqueue\n");
    home.write(
        "x.dag",
        "JOB A job.sub\nVARS A code=\"0\" pause=\"0\"\nJOB B look.sub\nPARENT A CHILD B\nNODE_STATUS_FILE status 3\n",
    );
    home.vo(["-s", "t", "-c", "submit x.dag; dag wait x.dag"]).ok();
    end(&home);
}

#[test]
fn a_job_state_log_tells_each_step_in_order() {
    let home = home();
    home.script("post.sh", "#!/bin/sh\n[ \"$1$2\" != C0 ] && [ \"$1$3\" != D1 ]\n");
    home.script("d.sh", "#!/bin/sh\n[ \"$1\" = 1 ]\n");
    home.write("a.sub", "executable = /bin/sh\narguments = -c 'exit 2'\n+pegasus_site = \"local\"\nqueue 2\n");
    home.write(
        "b.sub",
        "executable = /bin/true\nlog = b.log\n+job_tag_name = \"+job_tag_value\"\n+job_tag_value = \"viz\"\nqueue\n",
    );
    home.write("c.sub", "executable = /bin/true\nqueue\n");
    home.write("d.sub", "executable = d.sh\narguments = $(RETRY)\nqueue\n");
    home.write(
        "x.dag",
        "JOBSTATE_LOG states\nJOB A a.sub\nJOB B b.sub\nJOB C c.sub\nJOB D d.sub\nJOB E gone.sub\nPARENT A CHILD B\nPARENT B CHILD C\n\
         PARENT C CHILD D\nPARENT D CHILD E\nSCRIPT PRE A /bin/true\nSCRIPT PRE C /bin/true\nSCRIPT POST ALL_NODES post.sh $JOB $RETRY $RETURN\n\
         RETRY C 1\nRETRY D 1\n",
    );
    home.vo(["-s", "t", "-c", "submit x.dag; dag wait x.dag"]).ok();
    // Who has waited for it finds all of it.
    let states = home.read("states");
    let mut known: Vec<String> = Vec::new();
    let mut told = Vec::new();
    for line in states.lines() {
        let (seconds, rest) = line.split_once(' ').unwrap();
        seconds.parse::<u64>().unwrap();
        let words: Vec<&str> = rest.split(' ').collect();
        // Clusters in their order; what memory was seen at depends on the machine.
        let id = match words[2].split_once('.') {
            Some((cluster, proc)) if words[0] != "INTERNAL" => {
                let place = known.iter().position(|known| known == cluster).unwrap_or_else(|| {
                    known.push(cluster.to_owned());
                    known.len() - 1
                });
                format!("{}.{proc}", ["a", "b", "c", "cc", "d", "dd"][place])
            }
            _ => words[2].to_owned(),
        };
        if words[1] != "IMAGE_SIZE" {
            told.push([&words[..2], &[&id], &words[3..]].concat().join(" "));
        }
    }
    // Two jobs may start and end in either order.
    told[2..=8].sort();
    let expected = "\
INTERNAL *** DAGMAN_STARTED 1.0 ***
A PRE_SCRIPT_STARTED - local - 1
A EXECUTE a.0 local - 1
A EXECUTE a.1 local - 1
A JOB_TERMINATED a.0 local - 1
A JOB_TERMINATED a.1 local - 1
A PRE_SCRIPT_SUCCESS - local - 1
A SUBMIT a.0 local - 1
A SUBMIT a.1 local - 1
A JOB_FAILURE 2 local - 1
A POST_SCRIPT_STARTED a.0 local - 1
A POST_SCRIPT_TERMINATED a.0 local - 1
A POST_SCRIPT_SUCCESS a.0 local - 1
B SUBMIT b.0 viz - 2
B EXECUTE b.0 viz - 2
B JOB_TERMINATED b.0 viz - 2
B JOB_SUCCESS 0 viz - 2
B POST_SCRIPT_STARTED b.0 viz - 2
B POST_SCRIPT_TERMINATED b.0 viz - 2
B POST_SCRIPT_SUCCESS b.0 viz - 2
C PRE_SCRIPT_STARTED - - - 3
C PRE_SCRIPT_SUCCESS - - - 3
C SUBMIT c.0 - - 3
C EXECUTE c.0 - - 3
C JOB_TERMINATED c.0 - - 3
C JOB_SUCCESS 0 - - 3
C POST_SCRIPT_STARTED c.0 - - 3
C POST_SCRIPT_TERMINATED c.0 - - 3
C POST_SCRIPT_FAILURE c.0 - - 3
C PRE_SCRIPT_STARTED - - - 4
C PRE_SCRIPT_SUCCESS - - - 4
C SUBMIT cc.0 - - 4
C EXECUTE cc.0 - - 4
C JOB_TERMINATED cc.0 - - 4
C JOB_SUCCESS 0 - - 4
C POST_SCRIPT_STARTED cc.0 - - 4
C POST_SCRIPT_TERMINATED cc.0 - - 4
C POST_SCRIPT_SUCCESS cc.0 - - 4
D SUBMIT d.0 - - 5
D EXECUTE d.0 - - 5
D JOB_TERMINATED d.0 - - 5
D JOB_FAILURE 1 - - 5
D POST_SCRIPT_STARTED d.0 - - 5
D POST_SCRIPT_TERMINATED d.0 - - 5
D POST_SCRIPT_FAILURE d.0 - - 5
D SUBMIT dd.0 - - 6
D EXECUTE dd.0 - - 6
D JOB_TERMINATED dd.0 - - 6
D JOB_SUCCESS 0 - - 6
D POST_SCRIPT_STARTED dd.0 - - 6
D POST_SCRIPT_TERMINATED dd.0 - - 6
D POST_SCRIPT_SUCCESS dd.0 - - 6
E SUBMIT_FAILURE - - - 7
E POST_SCRIPT_STARTED - - - 7
E POST_SCRIPT_TERMINATED - - - 7
E POST_SCRIPT_SUCCESS - - - 7
INTERNAL *** DAGMAN_FINISHED 0 ***";
    assert_eq!(told.join("\n"), expected, "{states}");
    end(&home);
}

#[test]
fn the_nodes_of_a_dag_are_submitted_by_few_processes() {
    let home = home();
    // What a description runs must not take what the next nodes are told by, nor answer for them.
    home.write("who.sub", "executable = /bin/echo\narguments = $(who)\noutput = $(JOB).out\nqueue who from cat; echo 1 >&2; echo $PPID |\n");
    let node = |number: u32| format!("JOB N{number} who.sub\n");
    let parents: String = (0..40).map(|number| format!("N{number} ")).collect();
    // Those that have nothing to do are killed before the last node, for which another is started.
    home.script("kill.sh", "#!/bin/sh\nkill -9 $(cat N*.out)\ntrue\n");
    let last = format!("JOB LOST gone.sub\nJOB LAST who.sub\nSCRIPT PRE LAST kill.sh\nPARENT {parents} CHILD LAST\n");
    home.write("x.dag", (0..40).map(node).collect::<String>() + &last);
    home.vo(["-s", "t", "-c", "submit x.dag; dag wait x.dag"]).code(7);
    let by: BTreeSet<String> = (0..40).map(|number| home.read(format!("N{number}.out"))).collect();
    assert!(by.len() <= 4 && !by.contains(&home.read("LAST.out")), "{by:?}");
    let out = home.read("x.dag.dagman.out");
    assert!(out.contains("node LOST can't be submitted: error: cannot read gone.sub"), "{out}");
    assert!(!out.contains("node LAST can't"), "{out}");
    end(&home);
}

#[test]
fn dags_within_dags_and_a_last_node() {
    let home = home();
    home.write("in.dag", "JOB I job.sub\nJOB J job.sub\nPARENT I CHILD J\nVARS ALL_NODES code=\"0\" pause=\"0\"\n");
    home.write("bad.dag", "JOB X job.sub\nVARS X code=\"4\" pause=\"0\"\n");
    home.write(
        "out.dag",
        "SUBDAG EXTERNAL S in.dag\nSPLICE P in.dag\nSUBDAG EXTERNAL T bad.dag\nJOB Z job.sub\nPARENT S P CHILD T\nPARENT T CHILD Z\n\
         FINAL F {\n executable = job.sh\n arguments = final $(DAG_STATUS)-$(FAILED_COUNT) 9\n}\n",
    );
    // X fails.
    home.vo(["-s", "t", "-c", "submit out.dag; vo wait"]).code(7);
    let mut lines = ledger(&home);
    assert_eq!(lines.pop().as_deref(), Some("final 2-1"), "{lines:?}");
    assert_eq!(lines.pop().as_deref(), Some("X 0"), "{lines:?}");
    assert!(place(&lines, "P+I 0") < place(&lines, "P+J 0") && place(&lines, "I 0") < place(&lines, "J 0"));
    assert!(home.work("bad.dag.rescue001").exists() && home.work("out.dag.rescue001").exists());
    let rows = home.vo(["-s", "t", "-c", "dag --json"]).ok().json();
    let states: Vec<_> =
        rows.as_array().unwrap().iter().map(|row| (row["file"].clone(), row["exit_code"].clone())).collect();
    assert_eq!(states, [("out.dag".into(), 1.into()), ("in.dag".into(), 0.into()), ("bad.dag".into(), 1.into())]);
    end(&home);
}

#[test]
fn a_dag_within_a_dag_that_ends_at_once_is_seen_to() {
    let home = home();
    home.write("in.dag", "JOB I gone NOOP\n");
    let mut text = String::new();
    for node in 0..20 {
        text += &format!("SUBDAG EXTERNAL S{node} in.dag DIR d{node}\n");
        std::fs::create_dir(home.work(format!("d{node}"))).unwrap();
        home.write(format!("d{node}/in.dag"), "JOB I gone NOOP\n");
    }
    home.write("out.dag", text);
    home.vo(["-s", "t", "-c", "submit out.dag; dag wait --timeout 60s 1"]).ok();
    end(&home);
}

#[test]
fn a_dag_is_held_halted_locked_and_removed() {
    let home = home();
    home.write("x.dag", "JOB A job.sub\nJOB B job.sub\nPARENT A CHILD B\nVARS ALL_NODES code=\"0\" pause=\"600\"\n");
    let queued = |state: &str, number: &str| {
        wait_until("the queued node", seconds(30), || {
            let shown = home.vo(["-s", "t", "-c", &format!("dag --json {number}")]).ok().json();
            (shown[0]["state"] == state && shown[0]["queued"] == 1).then_some(())
        });
    };
    home.vo(["-s", "t", "-c", "condor_submit_dag -MaxJobs 1 x.dag"]).ok();
    queued("running", "1");
    home.vo(["-s", "t", "-c", "submit x.dag"]).code(6).says(["runs already, as DAG 1"]);
    home.vo(["-s", "t", "-c", "dag hold 1"]).ok();
    queued("held", "1");
    home.vo(["-s", "t", "-c", "dag release x.dag"]).ok();
    queued("running", "1");
    // A session doesn't end over a DAG.
    home.vo(["-s", "t", "-c", "vo exit"]).code(9).says(["1 DAG(s) are unfinished"]);
    home.vo(["-s", "t", "-c", "dag rm 1; dag wait 1"]).code(7);
    let left = home.vo(["-s", "t", "-c", "q --json"]).ok().json();
    assert_eq!(left, serde_json::json!([]), "its jobs are removed");
    assert!(home.read("x.dag.rescue001").contains("# Nodes premarked DONE: 0"));

    // A halt file: what runs ends, and then the DAG.
    home.write("y.dag", "JOB A job.sub\nJOB B job.sub\nPARENT A CHILD B\nVARS ALL_NODES code=\"0\" pause=\"3\"\n");
    home.vo(["-s", "t", "-c", "submit y.dag"]).ok();
    queued("running", "3");
    home.write("y.dag.halt", "");
    home.vo(["-s", "t", "-c", "dag wait --timeout 60s y.dag"]).code(7).says(["halted"]);
    assert!(home.read("y.dag.rescue001").contains("DONE A"));
    assert!(!ledger(&home).contains(&"B 0".to_owned()));
    end(&home);
}

/// The numbers of the events in a log.
fn events(log: &str) -> Vec<&str> {
    log.lines().filter(|line| line.contains(" (00")).filter_map(|line| line.get(..3)).collect()
}

#[test]
fn a_dag_is_a_job_with_a_number_of_the_clusters() {
    let home = home();
    let ask = |line: &str| home.vo(["-s", "t", "-c", line]);
    home.write("x.dag", "JOB A job.sub\nJOB B job.sub\nPARENT A CHILD B\nVARS ALL_NODES code=\"0\" pause=\"600\"\n");
    ask("condor_submit job.sub; wait").ok();
    let said = ask("condor_submit_dag x.dag").ok().stdout;
    assert!(said.ends_with("\n1 job(s) submitted to cluster 2.\n"), "{said}");
    wait_until("the first node", seconds(30), || {
        (ask("q -const 'DAGManJobId == 2' -af ClusterId DAGNodeName JobStatus").ok().stdout == "3 A 2\n").then_some(())
    });
    let shown = ask("condor_q -nobatch").ok().stdout;
    let line = shown.lines().find(|line| line.starts_with("   2.0 ")).unwrap_or_else(|| panic!("{shown}"));
    assert!(line.contains(" R ") && line.ends_with("condor_dagman x.dag"), "{line}");
    let ad = |line: &str| ask(&format!("q 2 -af {line}")).ok().stdout;
    assert_eq!(ad("JobUniverse JobStatus DAG_NodesTotal DAG_NodesQueued JobBatchName"), "7 2 2 1 x.dag+2\n");
    assert_eq!(ask("q 2 -af:r OtherJobRemoveRequirements").ok().stdout, "DAGManJobId =?= 2\n");
    assert_eq!(ask("condor_hold 2").ok().stdout, "All jobs in cluster 2 have been held\n");
    assert_eq!(ask("condor_hold 2.0").code(1).stderr, "Job 2.0 already held\n");
    assert_eq!(ask("q -hold -af:j HoldReasonCode").ok().stdout, "2.0 1\n");
    for name in ["2.0", "2", "job 2.0", "cluster 2"] {
        let why = ask(&format!("why {name}")).ok().stdout;
        assert!(why.starts_with("job 2.0: held: by the user\n"), "{name}: {why}");
        assert!(why.contains("submitted DAG x.dag of 2 node(s)") && why.contains("`release 2`"), "{name}: {why}");
    }
    ask("why job 2").code(2).says(["there is no job 2"]);
    let detail = ask("log --json 2.0").ok().json();
    assert_eq!((&detail[0]["state"], &detail[0]["events"][0]["text"]), (&"held".into(), &"submitted".into()));
    assert_eq!(detail[0]["log"], home.work("x.dag.dagman.log").to_str().unwrap());
    ask("log 2.1").code(2).says(["there is no job 2.1"]);
    assert_eq!(ask("condor_release 2.0").ok().stdout, "Job 2.0 released\n");
    // The number stays taken when the master is killed, and so does the DAG.
    let sessions = home.vo(["-l", "--json"]).ok().json();
    let pid = i32::try_from(sessions[0]["pid"].as_i64().unwrap()).unwrap();
    home.write("y.dag", "JOB A job.sub NOOP\n");
    ask("submit y.dag; wait 4").ok().says(["DAG 4"]);
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    wait_until("its end", seconds(10), || (!std::fs::exists(format!("/proc/{pid}")).unwrap()).then_some(()));
    home.terminal(["-r", "t"]).within(seconds(60)).prompt();
    assert_eq!(ask("condor_submit -terse job.sub").ok().stdout, "5.0 - 5.0\n");
    assert_eq!(ask("condor_rm 2").ok().stdout, "All jobs in cluster 2 have been marked for removal\n");
    ask("condor_wait x.dag.dagman.log 2; wait").code(7);
    assert_eq!(events(&home.read("x.dag.dagman.log")), ["000", "001", "012", "013", "009"]);
    assert_eq!(events(&home.read("y.dag.dagman.log")), ["000", "001", "005"]);
    assert!(home.read("x.dag.rescue001").contains("# Nodes premarked DONE: 0"));
    assert_eq!(ask("q -nobatch -af ClusterId").ok().stdout, "");
    let ended = ask("history -af ClusterId JobStatus ExitCode -const 'JobUniverse == 7'").ok().stdout;
    assert_eq!(ended, "2 3 undefined\n4 4 0\n");
    assert!(ask("why 4").ok().stdout.starts_with("job 4.0: completed with exit code 0\n"));
    assert!(ask("log 2.0").ok().stdout.ends_with(" removed\n"));
    end(&home);
}

#[test]
fn a_bad_dag_is_refused_with_its_lines() {
    let home = home();
    home.write("x.dag", "JOB Alpha job.sub\nJOB B job.sub\nPARENT Alpha CHILD B\nPARENT B CHILD Alpha\n");
    home.vo(["-s", "t", "-c", "submit x.dag"]).code(6).says(["x.dag:3:1: error: the DAG has a cycle", "(line 4)"]);
    home.write("y.dag", "JOB Alpha job.sub\nRETRY Alpa 3\n");
    home.vo(["-s", "t", "-c", "submit y.dag"])
        .code(6)
        .says(["y.dag:2:7: error: no node `Alpa`", "did you mean `Alpha`?"]);
    let checked = home.vo(["-s", "t", "-c", "dag check --json x.dag y.dag job.sub || true"]).ok().json();
    assert_eq!(checked[0]["valid"], false);
    assert_eq!(home.vo(["-s", "t", "-c", "dag --json"]).ok().json(), serde_json::json!([]));
    // A description that can't be read fails its node, and is named.
    home.write("z.dag", "JOB A gone.sub\n");
    home.vo(["-s", "t", "-c", "submit z.dag; dag wait 1"]).code(7).says(["node A", "gone.sub"]);
    end(&home);
}

#[test]
fn a_master_killed_again_and_again_submits_each_node_once() {
    let home = home();
    let mut text = String::from("JOBSTATE_LOG states\nVARS ALL_NODES code=\"0\" pause=\"0.05\"\n");
    for layer in 0..12 {
        for node in 0..5 {
            text += &format!("JOB N{layer}_{node} job.sub\n");
        }
        if layer > 0 {
            let list = |layer| (0..5).map(|node| format!(" N{layer}_{node}")).collect::<String>();
            text += &format!("PARENT{} CHILD{}\n", list(layer - 1), list(layer));
        }
    }
    // Beside them a chain of DAGs within the DAG.
    for node in 0..6 {
        std::fs::create_dir(home.work(format!("d{node}"))).unwrap();
        let inner = format!("JOB I{node} {{\nexecutable = ../job.sh\narguments = I{node} 0 0 0\ninitialdir = ..\n}}\n");
        home.write(format!("d{node}/in.dag"), inner);
        text += &format!("SUBDAG EXTERNAL S{node} in.dag DIR d{node}\n");
        if node > 0 {
            text += &format!("PARENT S{} CHILD S{node}\n", node - 1);
        }
    }
    home.write("x.dag", text);
    home.vo(["-s", "t", "-c", "submit x.dag"]).ok();
    for round in 0..4_u64 {
        let done = |least: u64| {
            let shown = home.vo(["-s", "t", "-c", "dag --json 1"]).ok().json();
            (shown[0]["done"].as_u64().unwrap() >= least).then_some(())
        };
        wait_until("some nodes", seconds(60), || done(3 + 12 * round));
        let sessions = home.vo(["-l", "--json"]).ok().json();
        let pid = i32::try_from(sessions[0]["pid"].as_i64().unwrap()).unwrap();
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        wait_until("its end", seconds(10), || (!std::fs::exists(format!("/proc/{pid}")).unwrap()).then_some(()));
        home.terminal(["-r", "t"]).within(seconds(60)).prompt();
    }
    home.vo(["-s", "t", "-c", "dag wait --timeout 120s 1"]).ok();
    let lines = ledger(&home);
    for layer in 0..12 {
        for node in 0..5 {
            let at = place(&lines, &format!("N{layer}_{node} 0"));
            assert!(layer == 0 || (0..5).all(|n| place(&lines, &format!("N{}_{n} 0", layer - 1)) < at));
        }
    }
    for node in 0..6 {
        place(&lines, &format!("I{node} 0"));
    }
    assert_eq!(lines.len(), 66);
    let jobs = home.vo(["-s", "t", "-c", "history --json"]).ok().json();
    assert_eq!(jobs.as_array().unwrap().len(), 66 + 7, "each node's jobs are in the queue once, and seven DAGs");
    home.end("t");
    let states = home.read("states");
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let tries: BTreeSet<(String, String)> =
        states.lines().map(words).filter(|w| w[1] != "INTERNAL").map(|w| (w[1].clone(), w[6].clone())).collect();
    let (names, numbers): (BTreeSet<_>, BTreeSet<_>) = tries.iter().cloned().unzip();
    assert_eq!((tries.len(), names.len(), numbers.len()), (66, 66, 66), "each node was tried once: {states}");
    assert_eq!(states.matches(" RECOVERY_FINISHED ").count(), 4, "{states}");
    home.assert_nothing_left();
}

#[test]
fn the_chain_of_the_examples_runs_for_a_hundred_run_numbers() {
    let home = home();
    let make = project().join("contrib/chain/make-dag");
    home.sh(&format!("{} 1 100 > runs.dag", make.display())).ok();
    home.vo(["-s", "t", "-c", "condor_submit_dag -MaxJobs 200 runs.dag; dag wait --timeout 600s runs.dag"]).ok();
    let shown = home.vo(["-s", "t", "-c", "dag --json runs.dag"]).ok().json();
    assert_eq!((&shown[0]["nodes"], &shown[0]["done"]), (&500.into(), &500.into()));
    // The same programs by hand.
    home.sh(&format!(
        "mkdir hand && cd hand && for s in OSCAR_INIT OSCAR_JOB ORCA_INIT ORCA_JOB TT; do {}/$s 42; done",
        make.parent().unwrap().display()
    ))
    .ok();
    assert_eq!(home.read("tables/42.table"), home.read("hand/42.table"));
    let tables = home.sh("cat tables/*.table").ok();
    let mut runs: Vec<u32> =
        tables.stdout.lines().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
    runs.sort_unstable();
    assert_eq!(runs, (1..=100).collect::<Vec<_>>());
    end(&home);
}

#[test]
fn an_aborted_dag_says_which_node_aborted_it() {
    let home = home();
    home.write(
        "x.dag",
        "JOB A job.sub\nJOB B job.sub\nVARS A code=\"9\" pause=\"0\"\nVARS B code=\"0\" pause=\"99\"\nABORT-DAG-ON A 9 RETURN 4\n",
    );
    home.vo(["-s", "t", "-c", "submit x.dag; dag wait x.dag"])
        .code(7)
        .says(["aborted, exit code 4", "last problem: the jobs of node A ended: 9"]);
    // A submitter that has not come to B leaves nothing to remove.
    let told = home.read("x.dag.dagman.out");
    assert!(!told.contains("-1002"), "{told}");
    assert_eq!(told.contains("node B is submitted"), told.contains("the jobs of node B were removed"), "{told}");
    end(&home);
}

#[test]
fn a_node_that_cant_be_submitted_says_why_and_no_more() {
    let home = home();
    home.write("x.dag", "JOB A a.sub\nVARS A unused=\"1\"\n");
    home.write("a.sub", "executable = job.sh\ntypo = $(absent)\nrequest_cpus = many\nqueue\n");
    home.vo(["-s", "t", "-c", "condor_submit_dag x.dag; dag wait x.dag"])
        .code(7)
        .says(["last problem: node A: a.sub:3:"]);
    let told = home.read("x.dag.dagman.out");
    assert!(told.contains("a.sub:2:1: warning: `typo` is no command"), "lines count from the file's own first: {told}");
    assert!(!told.contains("`job`") && !told.contains("`unused`"), "what the DAG sets is no fault of the file: {told}");
    end(&home);
}

#[test]
fn scripts_know_how_jobs_ended_and_the_dag_has_attributes() {
    let home = home();
    home.script("post.sh", "#!/bin/sh\nfor word; do echo \"$word\"; done > said\n");
    home.script("add.sh", "#!/bin/sh\necho \"$ADDED $OTHER\" > added\n");
    home.write("codes.sub", "executable = job.sh\narguments = J $(Process) $CHOICE(Process,0,3,0,3)\nqueue 4\n");
    home.write(
        "x.dag",
        "JOB A codes.sub\nTOLERANCE A 4\nSCRIPT POST A post.sh $EXIT_CODES $EXIT_CODE_COUNTS $EXIT_CODE_LIST $JOB_ABORT_COUNT $CLUSTERID $UNKNOWN x$NODE\n\
         JOB B job.sub NOOP\nSCRIPT PRE B add.sh\nSET_JOB_ATTR Run = 17\nSET_JOB_ATTR Kind = \"a b\"\n",
    );
    home.write("own.sub", "# of the DAG's own job\n+Run = 18\nrequest_memory = 1G\n");
    std::fs::create_dir(home.work("logs")).unwrap();
    let line = "condor_submit_dag -terse -v -AllowVersionMismatch -import_env -include_env HOME,PATH -insert_env 'ADDED=1;OTHER=b c' -debug 3 \
                -Lockfile l -update_submit -outfile_dir logs -insert_sub_file own.sub -append 'My.Who = \"me\"' x.dag";
    let run = home.vo(["-s", "t", "-c", line]).ok();
    assert_eq!(run.stdout, "1.0 - 1.0\n");
    assert_eq!(run.stderr.matches("warning: ").count(), 1, "{run:?}");
    assert!(run.stderr.contains("\"request_memory = 1G\" has no effect here"), "{run:?}");
    home.vo(["-s", "t", "-c", "dag wait x.dag"]).ok();
    assert_eq!(home.read("said"), "0,3\n0:2,3:2\n0,3,0,3\n0\n2\n$UNKNOWN\nx$NODE\n");
    assert_eq!(home.read("added"), "1 b c\n");
    assert!(home.read("logs/x.dag.dagman.out").contains("EXITING WITH STATUS 0"));
    assert!(!home.work("x.dag.dagman.out").exists());
    let ad = home.vo(["-s", "t", "-c", "history 1 -af Run Kind Who; history 2.0 -af Run Kind"]).ok().stdout;
    assert_eq!(ad, "18 a b me\nundefined undefined\n");
    end(&home);
}

#[test]
fn options_that_would_change_a_dag_are_kept_or_refused() {
    let home = home();
    home.write("x.dag", "JOB A job.sub\nVARS A code=\"0\" pause=\"0\"\nSCRIPT PRE A false\nSCRIPT POST A true\n");
    let submit = |options: &str| home.vo(["-s", "t", "-c", &format!("condor_submit_dag {options} x.dag")]);
    for (options, part) in [
        ("-DoRecov", "-dorecov"),
        ("-valgrind", "-valgrind"),
        ("-remote other", "-remote"),
        ("-DumpRescue", "-DumpRescue"),
    ] {
        submit(options).code(2).says([part]);
    }
    submit("-append '+A = 1 +'").code(6).says(["attribute `+A = 1 +` of the DAG"]);
    submit("-insert_env A").code(6).says(["`-insert_env A` has no value"]);
    submit("").ok();
    home.vo(["-s", "t", "-c", "dag wait x.dag"]).code(7);
    submit("-f -AlwaysRunPost").ok();
    home.vo(["-s", "t", "-c", "dag wait x.dag"]).ok();
    std::fs::rename(home.work("x.dag.rescue001.old"), home.work("mine")).unwrap();
    std::fs::write(home.work("mine"), "DONE A\n").unwrap();
    submit("-RescueFile mine").ok().says(["mine says what is done"]);
    home.vo(["-s", "t", "-c", "dag wait x.dag"]).ok();
    end(&home);
}

//! What listings show: constraints, formats and layouts, as HTCondor's listings have them.

use serde_json::{Value, json};

use vo_tests::{Home, Run, project};

/// A session with cluster 1, which completed (process 1 with exit code 3), cluster 2, which runs until a file `go` is there, cluster 3, which no slot
/// suits, and cluster 4, whose second half is held.
fn session() -> Home {
    let home = Home::new();
    home.script("job", "#!/bin/sh\ntest $1 -ne 1 || exit 3\n");
    home.script("sleep", "#!/bin/sh\nuntil test -e go; do /bin/sleep 0.05; done\n");
    home.write(
        "one.sub",
        "executable = job\narguments = $(Process)\n+Project = \"neutrinos\"\nbatch_name = first\nqueue 3\n",
    );
    home.write("two.sub", "executable = sleep\narguments = 60\nqueue 1\n");
    home.write(
        "three.sub",
        "executable = job\narguments = \"0 'two words'\"\nrequirements = Nowhere\npriority = 7\nqueue\n",
    );
    home.write("four.sub", "executable = job\nrequirements = Nowhere\noutput = out.$(Process)\nqueue 4\n");
    home.vo(["-s", "t", "--keep", "-n", "1:2", "-c", "submit one.sub; wait 1"]).code(7);
    ask(&home, "submit two.sub three.sub four.sub; hold 4.2-3").ok();
    vo_tests::wait_until("the job that waits runs", vo_tests::seconds(30), || {
        (ask(&home, "q 2 -af JobStatus").ok().stdout == "2\n").then_some(())
    });
    home
}

fn ask(home: &Home, line: &str) -> Run {
    home.vo(["-s", "t", "-c", line])
}

fn leave(home: &Home) {
    home.write("go", "");
    home.end("t");
    home.assert_nothing_left();
}

#[test]
fn constraints_and_expressions_are_classads() {
    let home = session();
    let check = |line: &str, expected: &str| assert_eq!(ask(&home, line).ok().stdout, expected, "{line}");
    check("q -af ClusterId ProcId JobStatus", "2 0 2\n3 0 1\n4 0 1\n4 1 1\n4 2 5\n4 3 5\n");
    check("q -const 'JobStatus == 5' -af:jV Out Nothing", "4.2 \"out.2\" undefined\n4.3 \"out.3\" undefined\n");
    check(
        "q -const 'JobPrio > 0' -af:l ClusterId Arguments",
        "ClusterId = 3 Arguments = 0 'two words'\n".replace("'two words'", "two' 'words").as_str(),
    );
    check("q -const 'JobPrio > 0' -const 'ClusterId != 3' -af ClusterId", "");
    check("q 4 -const 'ProcId % 2 == 0' -af:, ClusterId ProcId 'ProcId * 10'", "4, 0, 0\n4, 2, 20\n");
    check("q -const 'ClusterId == 3' -af:r Requirements JobPrio", "Nowhere 7\n");
    check(
        "q -const 'ClusterId == 4' -af:h ClusterId ProcId Out",
        "ClusterId ProcId Out  \n4         0      out.0\n4         1      out.1\n4         2      out.2\n4         3      out.3\n",
    );
    check("history 1 -const 'ExitCode =!= 0' -af ProcId ExitCode Project", "1 3 neutrinos\n");
    check(
        "condor_q -format '%d.' ClusterId -format '%d ' ProcId -format '%s\\n' Out -const 'JobStatus == 5'",
        "4.2 out.2\n4.3 out.3\n",
    );
    let all = ask(&home, "history -af ProcId CompletionDate").ok().stdout;
    let ends: Vec<u64> = all.lines().map(|line| line.split(' ').nth(1).unwrap().parse().unwrap()).collect();
    assert!(ends.len() == 3 && ends.is_sorted_by(|a, b| a >= b), "the last one first: {all}");
    assert_eq!(ask(&home, "history -limit 1 -const 'ProcId < 2' -af ProcId").ok().stdout.lines().count(), 1);
    check("q --json -const 'ClusterId == 9'", "[]\n");
    let rows = ask(&home, "q --json -const 'JobStatus == 5'").ok().json();
    assert_eq!(rows.as_array().unwrap().iter().map(|row| row["job"].clone()).collect::<Vec<_>>(), ["4.2", "4.3"]);
    let bad = ask(&home, "q -constraint 'JobStatus == '").code(2);
    assert!(bad.stderr.contains("no ClassAd expression"), "{bad:?}");
    ask(&home, "q -af:x A").code(2).says(["there is no letter 'x'"]);
    leave(&home);
}

#[test]
fn queues_are_asked_in_condor_qs_words() {
    let home = session();
    let said = |line: &str| ask(&home, line).ok().stdout;
    let check = |line: &str, expected: &str| assert_eq!(said(line), expected, "{line}");
    check("q -limit 2 -af:j JobStatus", "2.0 2\n3.0 1\n");
    check("q -limit 2 -const 'ClusterId == 4' -af:j JobStatus", "4.0 1\n4.1 1\n");
    assert_eq!(said("condor_q -limit 1").lines().skip(4).take_while(|line| !line.is_empty()).count(), 1);
    ask(&home, "condor_q -limit 0").code(2);
    check("q 3 -af:T JobPrio Owner", "  0+00:00:07 \n");
    check(
        "condor_q 3 -xml -attributes ClusterId,Requirements",
        "<?xml version=\"1.0\"?>
<!DOCTYPE classads SYSTEM \"classads.dtd\">
<classads>
<c>
    <a n=\"ClusterId\"><i>3</i></a>
    <a n=\"Requirements\"><e>Nowhere</e></a>
</c>
</classads>
",
    );
    check("condor_q 4 -long:new -attributes ProcId -limit 2", "{\n[ ProcId = 0 ]\n,\n[ ProcId = 1 ]\n}\n");
    check("q 3 -jsonl -attributes ProcId,Owner2", "{\"ProcId\":0}\n");
    check("condor_q nosuchuser -af ClusterId", "");
    check("condor_q -submitter nosuchuser@x -af ClusterId", "");
    check("condor_q nosuchuser 3 -af ClusterId", "3\n");
    ask(&home, "q nosuchuser").code(2).says(["is no job"]);
    check("condor_q -global -allusers -name t -pool localhost 3 -af ClusterId", "3\n");
    check("condor_q -name $(id -un)@$(uname -n) 3 -af ClusterId", "3\n");
    ask(&home, "condor_q -name elsewhere.example.org").code(2).says(["there is no elsewhere.example.org", "-s NAME"]);
    for theirs in ["-io", "-jobads x", "-goodput", "-autocluster"] {
        ask(&home, &format!("condor_q {theirs}")).code(2).says(["condor_q has no option"]);
    }
    let idle = said("condor_q -idle");
    let rows: Vec<&str> = idle.lines().skip(3).collect();
    assert_eq!(rows[0], " ID      OWNER          UNIVERSE  CPUS MEMORY STARTS LAST_HOST");
    assert_eq!(rows.len(), 4, "{idle}");
    assert!(rows[1].ends_with(" Vanilla      1             0 undefined"), "{idle}");
    let wide = said("condor_q -nobatch -wide:20");
    assert!(wide.lines().skip(3).take(6).all(|line| line.len() == 20), "{wide}");
    assert_eq!(
        said("q -nobatch -cputime").lines().nth(3).unwrap(),
        " ID      OWNER            SUBMITTED     CPU_TIME ST PRI SIZE CMD"
    );
    // What HTCondor's analysis would tell is told by why.
    let (why, analyzed) = (said("why 3.0"), said("condor_q -better-analyze 3.0"));
    assert_eq!(why, analyzed);
    assert!(analyzed.contains("Nowhere"), "{analyzed}");
    let all = ask(&home, "q --analyze --json").ok().json();
    let names: Vec<&Value> = all.as_array().unwrap().iter().map(|answer| &answer["name"]).collect();
    assert_eq!(names, ["2", "3", "4"]);
    let some = ask(&home, "condor_q -analyze:summary -json -const 'JobStatus == 1 && ClusterId == 4'").ok().json();
    assert_eq!(some.as_array().unwrap().len(), 2);
    ask(&home, "condor_q -analyze:reverse 3").code(2).says(["machines are not analyzed"]);
    leave(&home);
}

#[test]
fn histories_end_where_they_are_told_to() {
    let home = Home::new();
    home.write("t.sub", "executable = /bin/true\nqueue 2\n");
    home.write("never.sub", "executable = /bin/true\nrequirements = Nowhere\nqueue 2\n");
    home.vo(["-s", "t", "-n", "1:1", "--keep", "-c", "submit t.sub && wait 1 --timeout 60s; submit never.sub; rm 2.1"])
        .ok();
    ask(&home, "submit t.sub && wait 3 --timeout 60s && rm 2.0").ok();
    let jobs =
        |options: &str| ask(&home, &format!("condor_history {options} -af:j JobStatus")).ok().stdout.replace('\n', ",");
    let backwards = jobs("");
    assert!(backwards.starts_with("2.0 3,3.") && backwards.contains(",2.1 3,1."), "{backwards}");
    let mut forwards: Vec<&str> = backwards.trim_end_matches(',').split(',').collect();
    forwards.reverse();
    assert_eq!(jobs("-forwards"), forwards.join(",") + ",");
    assert_eq!(jobs("-backwards"), backwards);
    assert_eq!(jobs("-limit 2 -forwards"), forwards[..2].join(",") + ",");
    assert_eq!(jobs("-match 1"), "2.0 3,");
    assert_eq!(jobs("-limit 0 -scanlimit 0"), backwards);
    assert_eq!(jobs("-scanlimit 1"), "2.0 3,");
    assert_eq!(jobs("-scanlimit 1 -const 'ClusterId == 3'"), "", "what a constraint passes over is looked at");
    assert_eq!(jobs("-scanlimit 1 3").matches("3.").count(), 1);
    assert_eq!(jobs("-since 2.0"), "");
    assert_eq!(jobs("-since 2.1").matches(' ').count(), 3);
    assert_eq!(jobs("-since 1 -const 'JobStatus == 3'"), "2.0 3,2.1 3,");
    assert_eq!(jobs("-since 'JobStatus == 4'"), "2.0 3,");
    assert_eq!(jobs("-since 3"), "2.0 3,");
    assert_eq!(jobs("-since 3 2"), "2.0 3,2.1 3,", "what isn't asked for ends nothing");
    assert_eq!(jobs("-completedsince 4000000000"), "");
    assert_eq!(jobs("-completedsince 1 -forwards").matches(" 4").count(), 4);
    assert_eq!(jobs("nosuchuser"), "");
    ask(&home, "condor_history -since 1 -forwards").code(2);
    ask(&home, "condor_history -since 'foo('").code(2).says(["no ClassAd expression"]);
    ask(&home, "condor_history -file f").code(2).says(["condor_history has no option -file here"]);
    let xml = ask(&home, "condor_history -limit 1 -xml -attributes ClusterId").ok().stdout;
    assert!(xml.contains("\n    <a n=\"ClusterId\"><i>2</i></a>\n"), "{xml}");
    let rows = ask(&home, "history --json --forwards --limit 1").ok().json();
    assert_eq!(rows[0]["job"].as_str(), forwards[0].split(' ').next());
    home.end("t");
    home.assert_nothing_left();
}

#[test]
fn whole_ads_are_lines_or_json() {
    let home = session();
    let long = ask(&home, "condor_q -l 3.0").ok().stdout;
    let lines: Vec<&str> = long.lines().collect();
    assert!(long.ends_with("\n\n") && lines.len() > 30, "{long}");
    for line in [
        "ClusterId = 3",
        "Arguments = \"0 two' 'words\"",
        "JobStatus = 1",
        "Requirements = Nowhere",
        "Rank = 0.0",
        "MyType = \"Job\"",
    ] {
        assert!(lines.contains(&line), "{line}: {long}");
    }
    let names: Vec<String> = lines
        .iter()
        .filter(|line| !line.is_empty())
        .map(|line| line.split(" = ").next().unwrap().to_lowercase())
        .collect();
    assert!(names.is_sorted(), "{names:?}");
    let ads = ask(&home, "condor_q -json 3 -attributes ClusterId,Requirements,Rank,Owner").ok().json();
    let owner = ask(&home, "q 3 -af Owner").ok().stdout;
    assert_eq!(ads, json!([{"ClusterId": 3, "Owner": owner.trim(), "Rank": 0.0, "Requirements": "/Expr(Nowhere)/"}]));
    assert_eq!(ask(&home, "q 3 --long --json").ok().json()[0]["JobPrio"], 7);
    assert_eq!(ask(&home, "q 3 --json").ok().json()[0]["state"], "idle", "ours has stable keys of its own");
    let ended = ask(&home, "condor_history -json 1.1").ok().json();
    assert_eq!(
        (&ended[0]["ExitCode"], &ended[0]["JobStatus"], &ended[0]["ExitBySignal"]),
        (&json!(3), &json!(4), &Value::Bool(false))
    );
    leave(&home);
}

/// The lines that a command printed in a capture.
fn captured(file: &str, command: &str) -> Vec<String> {
    let text = std::fs::read_to_string(project().join("tests/fixtures/htcondor").join(file)).unwrap();
    let after = text.split(&format!("$ {command}\n")).nth(1).unwrap();
    after.split("--- exit 0").next().unwrap().lines().map(str::to_owned).collect()
}

/// A line without what differs from one session to another: digits, the owner.
fn shape(line: &str, owner: &str) -> String {
    let line = line.replace(&format!("{owner:<14}"), &format!("{:<14}", "OWNER"));
    line.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect::<String>().trim_end().to_owned()
}

#[test]
fn layouts_are_those_of_condor_q_and_condor_history() {
    let home = session();
    let owner = ask(&home, "q 3 -af Owner").ok().stdout.trim().to_owned();
    let lines = |line: &str| -> Vec<String> { ask(&home, line).ok().stdout.lines().map(str::to_owned).collect() };
    for view in ["-hold", "-run", "-idle"] {
        let (alone, both) = (lines(&format!("condor_q {view}")), lines(&format!("condor_q -nobatch {view}")));
        assert_eq!((&alone[3], alone.len()), (&both[3], both.len()), "{view} is by job anyway");
    }
    for view in ["-nobatch", "-hold", "-run"] {
        let (ours, theirs) =
            (lines(&format!("condor_q {view}")), captured("condor_q.txt", &format!("condor_q {view}")));
        assert_eq!((&ours[0], &ours[1]), (&theirs[0], &theirs[1]), "{view}");
        assert!(ours[2].starts_with("-- "), "{view}");
        assert_eq!(ours[3], theirs[3], "{view}: the headings");
        // Two lines of one job each, up to what is particular to it.
        let cut = theirs[3]
            .find(if view == "-hold" {
                "CODE"
            } else if view == "-run" {
                "HOST"
            } else {
                "CMD"
            })
            .unwrap();
        let head = |line: &str, owner: &str| shape(line, owner).chars().take(cut).collect::<String>();
        assert_eq!(head(&ours[4], &owner), head(&theirs[4], "alice"), "{view}");
    }
    let job = lines("condor_q -nobatch 2").into_iter().nth(4).unwrap();
    assert!(job.contains(" R  0 ") && job.ends_with(" sleep 60"), "{job}");
    let (ours, theirs) = (lines("condor_q"), captured("condor_q.txt", "condor_q"));
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(&ours[3]), words(&theirs[3]));
    let row = |line: &str, owner: &str| line.replace(owner, "OWNER");
    assert_eq!(
        words(&row(&ours[6], &owner))[2..].join(" ").split(' ').skip(2).collect::<Vec<_>>(),
        ["_", "_", "2", "2", "4", "4.0-3"]
    );
    let total = |lines: &[String]| {
        lines.iter().filter(|line| line.starts_with("Total")).map(|line| shape(line, "")).collect::<Vec<_>>()
    };
    assert_eq!(total(&ours), total(&theirs).iter().map(|line| line.replace("99 jobs", "9 jobs")).collect::<Vec<_>>());
    assert!(
        ours.contains(
            &"Total for query: 6 jobs; 0 completed, 0 removed, 3 idle, 1 running, 2 held, 0 suspended".to_owned()
        ),
        "{ours:#?}"
    );
    let some = lines("condor_q -const 'JobStatus == 5'");
    assert!(some[4].ends_with("4.2 ... 4.3"), "{some:#?}");
    assert_eq!(total(&some).len(), 2);
    assert_eq!(lines("condor_q -totals")[3..], ours[ours.len() - 3..]);
    assert_eq!(lines(&format!("condor_q {owner}"))[3..], ours[3..], "one's own name means all");
    let (ours, theirs) = (lines("condor_history -limit 2"), captured("condor_history.txt", "condor_history -limit 2"));
    assert_eq!(ours[0], theirs[0]);
    assert_eq!(ours.len(), 3);
    let until = theirs[1].find('X').unwrap();
    assert_eq!(shape(&ours[1], &owner)[..until], shape(&theirs[1], "alice")[..until]);
    assert_eq!(ours[1].find(" job "), Some(theirs[1].find(" sleep").unwrap()), "{ours:?}");
    leave(&home);
}

#[test]
fn a_dag_or_a_named_batch_is_one_line_of_the_batch_view() {
    let home = Home::new();
    home.script("job", "#!/bin/sh\n");
    home.write("never.sub", "executable = job\nrequirements = Nowhere\nqueue 2\n");
    home.write("x.dag", "JOB A never.sub\nJOB B never.sub\n");
    home.vo(["-s", "t", "--keep", "-c", "submit x.dag"]).ok();
    vo_tests::wait_until("its nodes are submitted", vo_tests::seconds(30), || {
        let nodes = ask(&home, "q -const 'DAGManJobId == 1' -af DAGNodeName").ok().stdout;
        (nodes.lines().count() == 4).then_some(())
    });
    ask(&home, "submit never.sub; submit --batch-name sim never.sub; submit --batch-name sim never.sub; rm 6.1").ok();
    let tree = ask(&home, "q --dag").ok().stdout;
    let tree: Vec<&str> = tree.lines().skip(3).take_while(|line| !line.is_empty()).collect();
    assert_eq!(tree[0], " ID      OWNER/NODENAME      SUBMITTED     RUN_TIME ST PRI SIZE CMD");
    let names: Vec<String> =
        tree[1..].iter().map(|line| line[..20].split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let owner = ask(&home, "q 2.0 -af Owner").ok().stdout;
    // Nodes that don't wait for each other may be submitted in any order.
    let (first, second) = if names[1] == "2.0 |-A" { ("A", "B") } else { ("B", "A") };
    let node = |job: &str, name: &str| format!("{job} |-{name}");
    let nodes = [node("2.0", first), node("2.1", first), node("3.0", second), node("3.1", second)];
    assert_eq!(names[0], format!("1.0 {}", owner.trim()));
    assert_eq!(names[1..5], nodes);
    assert_eq!(
        ask(&home, "condor_q -dag -nobatch 3")
            .ok()
            .stdout
            .lines()
            .filter(|line| line.contains(&format!("   |-{second} ")))
            .count(),
        2
    );
    assert_eq!(
        ask(&home, "condor_q -dag").ok().stdout.lines().nth(3).map(|line| line.contains("BATCH_NAME")),
        Some(true)
    );
    let rows = |line: &str| -> Vec<String> {
        let shown = ask(&home, line).ok().stdout;
        let rows = shown.lines().skip(4).take_while(|line| !line.is_empty());
        rows.map(|row| row.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>())
            .map(|mut row| {
                row.drain(1..3);
                row.join(" ")
            })
            .collect()
    };
    // Of a DAG, nodes are told; where a condition leaves its own job out, jobs.
    let expected = ["x.dag+1 _ _ 4 _ 2 2.0 ... 3.1", "never.sub _ _ 2 _ 2 4.0-1", "sim _ _ 3 _ 4 5.0 ... 6.1"];
    assert_eq!(rows("q"), expected);
    assert_eq!(
        rows("q -const 'ProcId == 1'"),
        ["x.dag+1 _ _ 2 _ 2 2.1 ... 3.1", "never.sub _ _ 1 _ 1 4.1", "sim _ _ 1 _ 2 5.1 ... 6.1"]
    );
    // A DAG that has no job yet is there all the same.
    home.script("hang", "#!/bin/sh\nexec sleep 600\n");
    home.write("y.dag", "JOB A never.sub\nSCRIPT PRE A hang\n");
    ask(&home, "submit y.dag").ok();
    assert_eq!(rows("q")[3..], ["y.dag+7 _ _ _ _ 1 7.0"]);
    assert_eq!(rows("q 7"), ["y.dag+7 _ _ _ _ 1 7.0"]);
    assert_eq!(rows("q 4")[..], expected[1..2]);
    ask(&home, "hold --batch-name sim").ok();
    assert_eq!(rows("q 5-6"), ["sim _ _ _ 3 4 5.0 ... 6.1"]);
    leave(&home);
}

#[test]
fn the_pool_has_machine_ads() {
    let home = session();
    let check = |line: &str, expected: &str| assert_eq!(ask(&home, line).ok().stdout, expected, "{line}");
    check("status -af Cpus State Activity Site OpSys", "2 Claimed Busy local LINUX\n");
    check("condor_status -const 'Cpus > 2' -af Name", "");
    check("status -avail -af Name", "");
    let name = ask(&home, "status -af Name").ok().stdout;
    assert_eq!(ask(&home, "q 2 -af RemoteHost").ok().stdout, name, "jobs name their slots");
    assert_eq!(ask(&home, &format!("status {} -af Name", name.trim())).ok().stdout, name);
    check("status nosuchnode -af Name", "");
    let long = ask(&home, "condor_status -l").ok().stdout;
    assert!(long.contains("\nState = \"Claimed\"\n") && long.contains("\nMemory = "), "{long}");
    let ads = ask(&home, "condor_status -json").ok().json();
    assert_eq!((&ads[0]["Cpus"], &ads[0]["Site"]), (&json!(2), &json!("local")));
    assert_eq!(ask(&home, "status --json").ok().json()[0]["site"], "local");
    let compact = ask(&home, "status -compact").ok().stdout;
    assert_eq!(
        compact
            .lines()
            .nth(1)
            .unwrap()
            .split_whitespace()
            .skip(2)
            .collect::<Vec<_>>()
            .join(" ")
            .split(' ')
            .filter(|word| !word.contains('.'))
            .collect::<Vec<_>>(),
        ["1", "2", "0", "1", "1", "CB", "local"]
    );
    assert_eq!(
        ask(&home, "status -const 'Cpus > 2'").ok().stdout.lines().last().unwrap().split_whitespace().nth(1),
        Some("0")
    );
    leave(&home);
}

#[test]
fn jobs_are_changed_by_constraint() {
    let home = session();
    let check = |line: &str, expected: &str| assert_eq!(ask(&home, line).ok().stdout, expected, "{line}");
    check("release -constraint 'JobStatus == 5 && ProcId == 3'", "1 job(s) released.\n");
    check("hold -const 'ClusterId == 4 && JobStatus == 1' -reason later", "3 job(s) held.\n");
    assert_eq!(
        ask(&home, "q -hold -af ProcId HoldReason -const 'HoldReason == \"later\"'").ok().stdout,
        "0 later\n1 later\n3 later\n"
    );
    check("edit -constraint 'ClusterId == 4 && ProcId < 2' priority=9", "2 job(s) edited.\n");
    assert_eq!(ask(&home, "q -const 'JobPrio == 9' -af:j JobPrio").ok().stdout, "4.0 9\n4.1 9\n");
    check("rm 4 -constraint 'JobPrio == 9'", "2 job(s) removed.\n");
    check("rm -constraint 'JobStatus == 7'", "0 job(s) removed.\n");
    let none = "Couldn't find/remove all jobs matching constraint (JobStatus == 7)\n";
    assert_eq!(ask(&home, "condor_rm -const 'JobStatus == 7'").code(1).stderr, none);
    ask(&home, "condor_hold -const 'Jobs ='").code(2);
    ask(&home, "condor_rm").code(2);
    assert_eq!(ask(&home, "q -af:j JobStatus").ok().stdout, "2.0 2\n3.0 1\n4.2 5\n4.3 5\n");
    // Words and codes of HTCondor's tools.
    let fails = |line: &str, code, expected: &str| assert_eq!(ask(&home, line).code(code).stderr, expected, "{line}");
    check("condor_hold 3 -reason because -subcode 7", "All jobs in cluster 3 have been held\n");
    fails("condor_hold 3", 1, "Couldn't find/hold all jobs in cluster 3\n");
    fails("condor_hold 3.0 99.1", 1, "Job 3.0 already held\nJob 99.1 not found\n");
    check("condor_release 3.0 99.1", "Job 3.0 released\n");
    fails("condor_release 3.0", 1, "Job 3.0 not held to be released\n");
    fails("condor_rm 99", 1, "Couldn't find/remove all jobs in cluster 99\n");
    check("condor_prio -p 5 3", "");
    check(
        "condor_qedit 3.0 JobPrio 6 RequestMemory=64",
        "Set attribute \"JobPrio\" for 1 matching jobs.\nSet attribute \"RequestMemory\" for 1 matching jobs.\n",
    );
    assert_eq!(ask(&home, "q 3 -af JobPrio RequestMemory").ok().stdout, "6 64\n");
    ask(&home, "condor_qedit 99 JobPrio 6").code(1);
    check(
        "condor_rm 4.2 99.0 3 99",
        "Job 4.2 marked for removal\nAll jobs matching constraint (ClusterId == 3 || ClusterId == 99) have been marked for removal\n",
    );
    check(
        "condor_rm -forcex $(id -un)",
        &format!("All jobs of user \"{}\" have been marked for removal\n", home.sh("id -un").ok().stdout.trim()),
    );
    fails("condor_rm -all", 0, "There are no jobs in the queue\n");
    assert_eq!(ask(&home, "q -totals").ok().stdout.matches("0 jobs;").count(), 2);
    leave(&home);
}

#[test]
fn what_failed_is_retried_and_nothing_else() {
    let home = Home::new();
    // Fails while `bad.N` is there, for its number and its item.
    home.script(
        "job",
        "#!/bin/sh\nread line\ncase $1 in 4) kill -TERM $$;; esac\necho $line $2 $3\ntest ! -e bad.$1\n",
    );
    home.write(
        "t.sub",
        "executable = job\narguments = $(Process) $(Cluster) $(word)\ninput = in\noutput = out.$(Cluster).$(Process)\nlog = $(Cluster).log\n\
         queue word in (a b c d e f)\n",
    );
    home.write("in", "first");
    ["bad.1", "bad.2", "bad.4"].iter().for_each(|name| drop(home.write(name, "")));
    home.vo(["-s", "t", "--keep", "-c", "submit t.sub; wait 1"]).code(7);
    let check = |line: &str, expected: &str| assert_eq!(ask(&home, line).ok().stdout, expected, "{line}");
    home.write("in", "second");
    std::fs::remove_file(home.work("bad.1")).unwrap();
    check("retry 1.2-4 -const 'ExitCode == 1'", "1 of 6 job(s) of cluster 1 submitted as cluster 2.\n");
    check("retry 1.5", "Nothing is retried: no such job failed, or those that did were retried before.\n");
    ask(&home, "wait 2").code(7);
    // Of 1.2, the last try counts, which failed again.
    check("retry 1", "3 of 6 job(s) of cluster 1 submitted as cluster 3.\n");
    ask(&home, "wait").code(7);
    assert_eq!(home.read("out.1.0"), "first 1 a\n", "what succeeded is not run again");
    assert_eq!(home.read("out.1.1"), "second 1 b\n");
    assert_eq!(home.read("out.1.2"), "second 1 c\n");
    assert!(!home.work("out.3.0").exists() && !home.work("3.log").exists());
    let sorted = |line: &str| {
        let mut lines: Vec<String> = ask(&home, line).ok().stdout.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let retried = sorted("history -const 'RetriedAs =!= undefined' -af:j RetriedAs");
    assert_eq!(retried, ["1.1 3.0", "1.2 2.0", "1.4 3.1", "2.0 3.2"]);
    check("history 3.0 -af RetryOf ExitCode JobBatchName", "1.1 0 t.sub\n");
    for (job, told) in [("1.2", "retried it as job 2.0"), ("2.0", "retried job 1.2 as this one")] {
        let why = ask(&home, &format!("why {job}")).ok().stdout;
        assert!(why.contains(told), "{why}");
    }
    let log = home.read("1.log");
    assert!(log.contains("(003.000.000)") && log.contains("(001.001.000)"), "{log}");

    // What has succeeded by now is left alone, and what was named twice is retried once.
    std::fs::remove_file(home.work("bad.2")).unwrap();
    let json = ask(&home, "retry 1 3 --json").ok().json();
    assert_eq!(json, json!([{"from": 1, "of": 6, "jobs": 2, "cluster": 4}]));
    ask(&home, "wait").code(7);
    assert_eq!(sorted("history 4 -af RetryOf ExitCode ExitSignal"), ["3.1 undefined 15", "3.2 0 undefined"]);
    leave(&home);
}

#[test]
fn jobs_that_leave_in_queue_keeps_are_listed_until_they_are_removed() {
    let home = Home::new();
    home.write(
        "t.sub",
        "executable = /bin/true\nleave_in_queue = JobStatus == 4 && ProcId < 2\nqueue 3\nleave_in_queue = false\nqueue\n",
    );
    home.vo(["-s", "t", "-n", "1:2", "--keep", "-c", "submit t.sub && wait --timeout 60s"]).ok();
    let said = |command: &str| home.vo(["-s", "t", "-c", command]).ok().stdout;
    assert_eq!(said("q -af ClusterId ProcId JobStatus"), "1 0 4\n1 1 4\n");
    let states = |rows: Value| -> Vec<String> {
        rows.as_array().unwrap().iter().map(|row| format!("{} {}", row["job"], row["state"])).collect()
    };
    let listed = states(home.vo(["-s", "t", "-c", "q --json"]).ok().json());
    assert_eq!(listed, ["\"1.0\" \"completed\"", "\"1.1\" \"completed\""]);
    for command in ["q", "condor_q", "q -nobatch", "condor_q -constraint 'JobStatus == 4'"] {
        let listed = said(command);
        let totals = "Total for query: 2 jobs; 2 completed, 0 removed, 0 idle, 0 running, 0 held, 0 suspended\n";
        assert!(listed.contains(totals), "{command}: {listed}");
    }
    assert!(said("q -nobatch").contains(" C  0 "), "{}", said("q -nobatch"));
    assert_eq!(said("q -hold -af ProcId"), "");
    said("rm 1.1 1.2");
    assert_eq!(said("q -af ProcId"), "0\n");
    let why = said("why 1.1");
    assert!(why.contains("removed from the queue, where it stayed after its end"), "{why}");
    said("rm -constraint 'JobStatus == 4'");
    assert_eq!(said("q -af ProcId"), "");
    assert_eq!(said("history -af ProcId JobStatus").lines().count(), 4);
    home.end("t");
    home.assert_nothing_left();
}

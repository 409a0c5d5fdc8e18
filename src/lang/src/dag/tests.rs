use super::*;
use proptest::prelude::*;
use std::fmt::Write as _;

/// Reads `text` as `x.dag`, beside the files given.
fn read(text: &str, files: &[(&str, &str)]) -> Result<Dag, String> {
    let lookup = |path: &str| {
        let found = files.iter().find(|(name, _)| *name == path);
        found.map(|(_, text)| text.as_bytes().to_vec()).ok_or_else(|| "no such file".to_owned())
    };
    let context = Context { read: &lookup, any_names: false };
    let input =
        |(name, text): &(&'static str, String)| Input { name, text: text.clone().leak().as_bytes(), directory: "" };
    parse(&[input(&("x.dag", text.to_owned()))], None, &context)
        .map_err(|found| found.iter().map(|d| format!("{d}\n")).collect())
}

/// Edges as `A>B`, weak ones as `A~B`, through joins, sorted.
fn edges(dag: &Dag) -> String {
    let mut all = std::collections::BTreeSet::new();
    for (node, _) in dag.written() {
        let mut open: Vec<(u32, bool)> = dag.graph().children(node).collect();
        while let Some((child, weak)) = open.pop() {
            if dag.nodes()[child as usize].kind == Kind::Join {
                open.extend(dag.graph().children(child).map(|(child, _)| (child, weak)));
            } else {
                all.insert(format!("{}{}{}", dag.name(node), if weak { '~' } else { '>' }, dag.name(child)));
            }
        }
    }
    all.into_iter().collect::<Vec<_>>().join(" ")
}

/// Nodes: name, kind, description, what is set.
fn nodes(dag: &Dag) -> Vec<String> {
    let each = |(number, node): (u32, &Node)| {
        let mut text = format!("{} {:?}", dag.name(number), node.kind);
        match dag.description(number) {
            Some(Description::File(file)) => write!(text, " {file}").unwrap(),
            Some(Description::Dag(file)) => write!(text, " dag {file}").unwrap(),
            Some(Description::Inline(inline)) => write!(text, " {:?}", String::from_utf8_lossy(inline)).unwrap(),
            None => {}
        }
        let fresh = Node { retries: 0, ..node.clone() };
        if !dag.directory(number).is_empty() {
            write!(text, " in {}", dag.directory(number)).unwrap();
        }
        for (flag, word) in [(node.noop, " noop"), (node.done, " done")] {
            text.push_str(if flag { word } else { "" });
        }
        if node.retries > 0 {
            write!(text, " retry {} {:?}", node.retries, node.unless_exit).unwrap();
        }
        if fresh.priority != 0 {
            write!(text, " priority {}", node.priority).unwrap();
        }
        text
    };
    dag.written().map(each).collect()
}

fn good(text: &str, files: &[(&str, &str)], expected_nodes: &[&str], expected_edges: &str) -> Dag {
    let dag = read(text, files).unwrap_or_else(|errors| panic!("{text}\n{errors}"));
    assert_eq!(nodes(&dag), expected_nodes, "{text}");
    assert_eq!(edges(&dag), expected_edges, "{text}");
    dag
}

#[test]
fn nodes_and_edges() {
    good(
        "# the diamond\nJob A a.sub\nJOB B b.sub DIR d NOOP\njob C \"c d.sub\" DONE\nJOB D d.sub noop dir e\nparent A child B C\nPARENT B C CHILD D\n",
        &[],
        &["A Job a.sub", "B Job b.sub in d noop", "C Job c d.sub done", "D Job d.sub in e noop"],
        "A>B A>C B>D C>D",
    );
    // Dependencies may come before their nodes, and twice.
    good("PARENT A CHILD B\nPARENT A A CHILD B\nJOB A a\nJOB B b", &[], &["A Job a", "B Job b"], "A>B");
    good("JOB A a\nJOB B b\nWEAK PARENT A CHILD B", &[], &["A Job a", "B Job b"], "A~B");
    good("JOB A a\nJOB B b\nWEAK PARENT A CHILD B\nPARENT A CHILD B", &[], &["A Job a", "B Job b"], "A>B");
    good("JOB A \\\n # comment\n a.sub \\\n  NOOP", &[], &["A Job a.sub noop"], "");
    good(
        "SUBDAG EXTERNAL S in.dag DIR d\nFINAL F f\nSERVICE V v\nPROVISIONER P p",
        &[],
        &["S Subdag dag in.dag in d", "F Final f", "V Service v", "P Provisioner p"],
        "",
    );
}

#[test]
fn many_parents_with_many_children_meet_in_a_join() {
    let mut text = String::new();
    for node in 0..1000 {
        writeln!(text, "JOB A{node} a\nJOB B{node} b").unwrap();
    }
    let list = |letter| (0..1000).map(|n| format!(" {letter}{n}")).collect::<String>();
    writeln!(text, "PARENT{} CHILD{}", list('A'), list('B')).unwrap();
    let dag = read(&text, &[]).unwrap();
    assert_eq!((dag.graph().edges(), dag.nodes().len(), dag.written().count()), (2000, 2001, 2000));
}

#[test]
fn descriptions_within_the_file() {
    let dag = good(
        "SUBMIT-DESCRIPTION d {\n executable = /bin/true\n # no\n\n}\nJOB A d\nJOB B {\n arguments = } x\n queue\n} DIR e NOOP\nJOB C @=end\nx = {\n}\n@end\nSPLICE S s",
        &[("s", "JOB N d\nJOB M other")],
        &[
            "A Job \"executable = /bin/true\\n\"",
            "B Job \"arguments = } x\\nqueue\\n\" in e noop",
            "C Job \"x = {\\n}\\n\"",
            "S+N Job \"executable = /bin/true\\n\"",
            "S+M Job other",
        ],
        "",
    );
    assert_eq!(dag.splices, 1);
}

#[test]
fn splices() {
    let inner = "JOB A a\nJOB B b DIR sub\nJOB C c DIR /abs\nPARENT A CHILD B C";
    good(
        "JOB X x\nSPLICE S inner.dag DIR d\nJOB Y y\nPARENT X CHILD S\nPARENT S CHILD Y",
        &[("d/inner.dag", inner)],
        &["X Job x", "S+A Job a in d", "S+B Job b in d/sub", "S+C Job c in /abs", "Y Job y"],
        "S+A>S+B S+A>S+C S+B>Y S+C>Y X>S+A",
    );
    // Twice the same file, nested, and a later dependency doesn't change what a splice's ends are.
    good(
        "SPLICE P o\nJOB X x\nJOB Y y\nPARENT X CHILD P\nPARENT Y CHILD P",
        &[("o", "SPLICE L i\nSPLICE R i\nPARENT L CHILD R"), ("i", "JOB n s")],
        &["P+L+n Job s", "P+R+n Job s", "X Job x", "Y Job y"],
        "P+L+n>P+R+n X>P+L+n Y>P+L+n",
    );
    let dag = good(
        "SPLICE S i\nRETRY S+n 3\nPRIORITY S+m 7\nPARENT S+n CHILD S+m",
        &[("i", "JOB n s\nJOB m s\nCATEGORY n c\nCATEGORY m +g\nMAXJOBS c 4\nRETRY ALL_NODES 1 UNLESS-EXIT 2")],
        &["S+n Job s retry 3 Some(2)", "S+m Job s retry 1 Some(2) priority 7"],
        "S+n>S+m",
    );
    let categories: Vec<_> = dag.categories().iter().map(|c| (c.name.as_str(), c.limit)).collect();
    assert_eq!(categories, [("S+c", Some(4)), ("+g", None)]);
    // ALL_NODES is for the file that says it.
    good("SPLICE S i\nJOB A a\nRETRY all_nodes 2", &[("i", "JOB n s")], &["S+n Job s", "A Job a retry 2 None"], "");
}

#[test]
fn pins_connect_splices() {
    let files = [
        ("a", "JOB x s\nJOB y s\nPIN_OUT x 1\nPIN_OUT y 2\nPIN_OUT x 2"),
        ("b", "JOB u s\nJOB v s\nJOB w s\nPARENT v CHILD w\nPIN_IN u 1\nPIN_IN v 2"),
        ("orphan", "JOB u s\nJOB v s\nPIN_IN u 1\nPIN_IN u 2"),
        ("hole", "JOB u s\nPIN_IN u 2"),
    ];
    let names = ["A+x Job s", "A+y Job s", "B+u Job s", "B+v Job s", "B+w Job s"];
    good("SPLICE A a\nSPLICE B b\nCONNECT A B", &files, &names, "A+x>B+u A+x>B+v A+y>B+v B+v>B+w");
    bad(
        "SPLICE A a\nSPLICE B orphan\nCONNECT A B",
        &files,
        "x.dag:3:11: error: node `B+v` has neither a parent nor a `PIN_IN`",
    );
    bad("SPLICE A a\nSPLICE B hole\nCONNECT A B", &files, "x.dag:3:11: error: splice `B` has no node for `PIN_IN` 1");
    bad("SPLICE A a\nSPLICE B b\nCONNECT B A", &files, "x.dag:3:9: error: splice `B` has no `PIN_OUT`");
    bad("SPLICE A a\nSPLICE B b\nCONNECT A C", &files, "x.dag:3:11: error: no splice `C`");
}

#[test]
fn what_nodes_are_told() {
    let dag = read(
        "JOB A a\nJOB B b\nSCRIPT PRE A ./pre.sh  $JOB 'x y'\nSCRIPT DEFER 4 60 DEBUG log ALL POST A post\n\
         SCRIPT HOLD ALL_NODES hold\nABORT-DAG-ON A 3 RETURN 1\nPRE_SKIP B 2\nPRE-SKIP A 1\nCATEGORY ALL_NODES c\nMaxJobs c 2\n\
         TOLERANCE A 10% FAIL-FAST\nTOLERANCE B 3 wait\nSAVE_POINT_FILE A\nSAVE_POINT_FILE B b.save\n\
         VARS ALL_NODES x=\"1\" +Y = \"\\\"q\\\"\"\nVARS A APPEND X=\"2\" z=\"$(JOB)\"\n",
        &[],
    )
    .unwrap();
    let (a, b) = (dag.find("A").unwrap(), dag.find("B").unwrap());
    let pre = dag.script(a, ScriptKind::Pre).unwrap();
    assert_eq!((pre.command.as_str(), pre.defer, &pre.debug), ("./pre.sh  $JOB 'x y'", None, &None));
    let post = dag.script(a, ScriptKind::Post).unwrap();
    assert_eq!((post.defer, &post.debug), (Some((4, 60)), &Some(("log".to_owned(), true, true))));
    assert_eq!(dag.script(b, ScriptKind::Hold).unwrap().command, "hold");
    assert_eq!(dag.script(b, ScriptKind::Pre), None);
    let node = |n: u32| &dag.nodes()[n as usize];
    assert_eq!(node(a).abort_on, Some(AbortOn { exit: 3, code: Some(1) }));
    assert_eq!((node(a).pre_skip, node(b).pre_skip), (Some(1), Some(2)));
    assert_eq!(node(a).tolerance, Some(Tolerance { value: 10, percent: true, fail_fast: Some(true) }));
    assert_eq!(node(b).tolerance, Some(Tolerance { value: 3, percent: false, fail_fast: Some(false) }));
    assert_eq!((dag.save_point(a), dag.save_point(b)), (Some("A-x.dag.save"), Some("b.save")));
    assert_eq!((dag.category(a), dag.categories()[0].limit), (Some(0), Some(2)));
    assert_eq!(dag.vars(a), [("x", "2", None), ("MY.Y", "\"q\"", None), ("z", "$(JOB)", Some(true))]);
    assert_eq!(dag.vars(b), [("x", "1", None), ("MY.Y", "\"q\"", None)]);
}

#[test]
fn what_the_dag_is_told() {
    let dag = read(
        "JOB A a\nCONFIG dagman.conf\nDOT g.dot UPDATE dont-overwrite INCLUDE head\nNODE_STATUS_FILE s 30 ALWAYS-UPDATE\n\
         JOBSTATE_LOG j\nENV SET X=1;Y=2\nENV GET HOME, PATH\nSET_JOB_ATTR Foo = 1 + 1\nINCLUDE more",
        &[("more", "JOB B b\nPARENT A CHILD B")],
    )
    .unwrap();
    assert_eq!(edges(&dag), "A>B");
    assert_eq!((dag.config.as_deref(), dag.jobstate_log.as_deref()), (Some("dagman.conf"), Some("j")));
    let dot = dag.dot.clone().unwrap();
    assert_eq!(
        (dot.path.as_str(), dot.update, dot.overwrite, dot.header.as_deref()),
        ("g.dot", true, false, Some("head"))
    );
    assert_eq!(dag.status_file, Some(StatusFile { path: "s".to_owned(), interval_s: 30, always: true }));
    assert_eq!(dag.env, [Env::Set("X=1;Y=2".to_owned()), Env::Get(vec!["HOME".to_owned(), "PATH".to_owned()])]);
    assert_eq!(dag.attributes, ["Foo = 1 + 1"]);
}

/// The first finding's first line.
fn bad(text: &str, files: &[(&str, &str)], expected: &str) -> String {
    match read(text, files) {
        Ok(_) => panic!("{text}\nis good, expected {expected}"),
        Err(errors) => {
            assert!(errors.starts_with(expected), "{text}\n{errors}\nexpected: {expected}");
            errors
        }
    }
}

#[test]
fn faults_are_explained() {
    let unknown = bad("JOB Band b\nJOB C c\nPARENT Bnd CHILD C D", &[], "x.dag:3:8: error: no node `Bnd`");
    assert!(unknown.contains("\n  3 | PARENT Bnd CHILD C D\n    |        ^\nhint: did you mean `Band`?"), "{unknown}");
    assert!(unknown.contains("x.dag:3:20: error: no node `D`"), "{unknown}");
    let cases = [
        (
            "JBO A a",
            "x.dag:1:1: error: `JBO` is no command of a DAG file, expected a command such as `JOB` or `PARENT`",
        ),
        ("JOB A", "x.dag:1:6: error: node `A` has no submit description, expected a submit description"),
        ("JOB", "x.dag:1:4: error: the line ends too early, expected the node's name"),
        ("JOB A a\n\nJOB A b", "x.dag:3:5: error: node `A` is defined twice (line 1)"),
        (
            "JOB A a\nJOB B b NOPE",
            "x.dag:2:9: error: `NOPE` can't stand here, expected `DIR DIRECTORY`, `NOOP`, `DONE`",
        ),
        ("JOB Parent a", "x.dag:1:5: error: `Parent` can't be the name of a node"),
        ("JOB A+B a", "x.dag:1:5: error: node name `A+B` has a `+`"),
        ("JOB \"A b\" a", "x.dag:1:5: error: node name `\"A b\"` has a quotation mark"),
        ("JOB A {\nqueue", "x.dag:1:7: error: the submit description is never closed, expected a line `}`"),
        ("JOB A \"a", "x.dag:1:7: error: quotation mark is never closed, expected a closing `\"`"),
        ("JOB A a\nPARENT A", "x.dag:2:9: error: no `CHILD`, expected"),
        ("JOB A a\nPARENT A CHILD", "x.dag:2:10: error: no children"),
        ("JOB A a\nPARENT CHILD A", "x.dag:2:8: error: no parents"),
        ("JOB A a\nFINAL F f\nPARENT A CHILD F", "x.dag:3:16: error: node `F` can't have parents or children"),
        ("JOB A a\nFINAL F f\nFINAL G g", "x.dag:3:1: error: a second `FINAL` node; `F` is one (line 2)"),
        ("JOB A a\nRETRY A -1", "x.dag:2:9: error: `-1` can't stand here, expected a number that is not negative"),
        ("JOB A a\nRETRY A 3x", "x.dag:2:9: error: `3x` can't stand here"),
        ("JOB A a\nRETRY A 2147483648", "x.dag:2:9: error: `2147483648` can't stand here"),
        ("JOB A a\nMAXJOBS c 2147483648", "x.dag:2:11: error: `2147483648` can't stand here"),
        ("JOB A a\nRETRY A 3 UNLESS-EXIT", "x.dag:2:22: error: the line ends too early, expected an exit code"),
        ("FINAL F f\nRETRY F 1", "x.dag:2:7: error: node `F` can't be tried again"),
        (
            "JOB A a\nABORT-DAG-ON A 1 RETURN 256",
            "x.dag:2:25: error: `256` can't stand here, expected an exit code of 0 to 255",
        ),
        ("JOB A a\nVARS A", "x.dag:2:7: error: no variables, expected `NAME=\"value\"`"),
        ("JOB A a\nVARS A queue=\"1\"", "x.dag:2:8: error: variable `queue` begins with `queue`"),
        ("JOB A a\nVARS A x", "x.dag:2:9: error: `x` has no value, expected `=`"),
        ("JOB A a\nSCRIPT A pre", "x.dag:2:8: error: `A` can't stand here, expected `PRE`, `POST` or `HOLD`"),
        ("JOB A a\nSCRIPT PRE A", "x.dag:2:13: error: no script"),
        ("JOB A a\nREJECT", "x.dag:2:1: error: the DAG is marked with `REJECT`"),
        ("SUBDAG X y", "x.dag:1:8: error: `SUBDAG` is not followed by `EXTERNAL`"),
        ("SPLICE S gone", "x.dag:1:10: error: can't read `gone`: no such file"),
        ("SPLICE S self", "self:1:10: error: `self` includes or splices itself"),
        ("SPLICE S ok\nJOB S s", "x.dag:2:5: error: `S` is the name of a splice already"),
        ("SPLICE S ok\nRETRY S 1", "x.dag:2:7: error: `S` is a splice, expected a node"),
        ("SPLICE S final", "final:1:1: error: a splice can't have a `FINAL` node"),
        ("JOB A a\nJOB B b\nPARENT A \\\n CHILD X", "x.dag:4:8: error: no node `X`"),
        ("# nothing", "x.dag:1:1: error: the DAG has no nodes"),
        ("JOB A a\nDONE ALL_NODES", "x.dag:2:6: error: `DONE` can't be for `ALL_NODES`"),
        ("JOB A a\nDONE B", "x.dag:2:6: error: no node `B`"),
    ];
    let files = [("self", "SPLICE T self"), ("ok", "JOB n n"), ("final", "FINAL F f")];
    for (text, expected) in cases {
        bad(text, &files, expected);
    }
}

#[test]
fn cycles_are_shown_with_their_lines() {
    let errors = bad(
        "JOB A a\nJOB B b\nJOB C c\nJOB D d\nPARENT A CHILD B\nPARENT B C CHILD C D\n",
        &[],
        "x.dag:6:1: error: the DAG has a cycle: C → C",
    );
    assert!(errors.contains("hint: `C` is a parent of `C` (line 6)"), "{errors}");
    let errors = bad(
        "JOB A a\nPARENT A CHILD S\nPARENT S CHILD A\nSPLICE S s",
        &[("s", "JOB B b\nJOB C c\nPARENT B CHILD C")],
        "",
    );
    let found = [
        (
            "A → S+B → S+C → A",
            "`A` is a parent of `S+B` (line 2); `S+B` is a parent of `S+C` (s:3); `S+C` is a parent of `A` (line 3)",
        ),
        ("S+B → S+C → A → S+B", "`S+B` is a parent of `S+C` (line 3); `S+C` is a parent of `A` (x.dag:3)"),
        (
            "S+C → A → S+B → S+C",
            "`S+C` is a parent of `A` (line 3); `A` is a parent of `S+B` (line 2); `S+B` is a parent of `S+C` (s:3)",
        ),
    ];
    assert!(found.iter().any(|(path, lines)| errors.contains(path) && errors.contains(lines)), "{errors}");
}

#[test]
fn a_bomb_of_splices_is_refused() {
    let mut files = Vec::new();
    for depth in 0..40 {
        files.push((format!("f{depth}"), format!("SPLICE a f{0}\nSPLICE b f{0}\n", depth + 1)));
    }
    files.push(("f40".to_owned(), "JOB n n\n".to_owned()));
    let files: Vec<(&str, &str)> = files.iter().map(|(n, t)| (n.as_str(), t.as_str())).collect();
    let errors = bad("SPLICE s f0", &files, "");
    assert!(errors.contains("the DAG reads more than 200000 files"), "{errors}");
    let deep: Vec<(String, String)> = (0..100).map(|n| (format!("f{n}"), format!("INCLUDE f{}", n + 1))).collect();
    let deep: Vec<(&str, &str)> = deep.iter().map(|(n, t)| (n.as_str(), t.as_str())).collect();
    bad("INCLUDE f0", &deep, "f62:1:9: error: splices and included files are nested more than 64 deep");
}

#[test]
fn many_faults_take_no_longer_than_they_are_read() {
    let mut text: String = (0..5000).map(|n| format!("JOB Node{n:05} a\n")).collect();
    text += &"RETRY Nod00001 1\n".repeat(20_000);
    let start = std::time::Instant::now();
    let errors = bad(&text, &[], "x.dag:5001:7: error: no node `Nod00001`\n");
    assert!(errors.matches("error: ").count() <= 100);
    // Looking for the nearest name each time would take minutes.
    assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
}

#[test]
fn several_files_make_one_dag() {
    let input =
        |name, text: &'static str| Input { name, text: text.as_bytes(), directory: if name == "b" { "d" } else { "" } };
    let context = Context { read: &|_| Err("no".to_owned()), any_names: false };
    let dag =
        parse(&[input("a", "JOB A a\nJOB B b\nPARENT A CHILD B"), input("b", "JOB A a")], None, &context).ok().unwrap();
    assert_eq!(nodes(&dag), ["0.A Job a", "0.B Job b", "1.A Job a in d"]);
    assert_eq!(edges(&dag), "0.A>0.B");
}

#[test]
fn a_rescue_file_is_read_back() {
    let text = "JOB A a\nJOB B b\nJOB C c\nJOB D d\nSPLICE S s\nPARENT A B CHILD C D\nWEAK PARENT D CHILD S\nRETRY ALL_NODES 3 UNLESS-EXIT 9\nFINAL F f";
    let lookup = |_: &str| Ok(b"JOB N n".to_vec());
    let context = Context { read: &lookup, any_names: false };
    let input = |name, text| Input { name, text, directory: "" };
    let dag = parse(&[input("x.dag", text.as_bytes())], None, &context).ok().unwrap();
    let progress = |node: u32| Progress {
        done: ["A", "S+N", "F"].contains(&dag.name(node)),
        failed: ["B", "D"].contains(&dag.name(node)),
        retried: u32::from(dag.name(node) == "B"),
    };
    let rescue = write_rescue(&dag, "x.dag", "11/25/2026 17:30:00 UTC", false, &progress);
    assert_eq!(
        rescue,
        "# Rescue DAG file, created after running\n#   the x.dag DAG file\n# Created 11/25/2026 17:30:00 UTC\n\
         # Rescue DAG version: 2.1.0\n#\n# Total number of Nodes: 6\n# Nodes premarked DONE: 3\n# Nodes that failed: 2\n\
         #   B,D,<ENDLIST>\n\nDONE A\n# 0 of 3 retries already performed; 3 remaining\nRETRY A 3 UNLESS-EXIT 9\n\
         # 1 of 3 retries already performed; 2 remaining\nRETRY B 2 UNLESS-EXIT 9\n\
         # 0 of 3 retries already performed; 3 remaining\nRETRY C 3 UNLESS-EXIT 9\n\
         # Failed node with only weak child dependencies:\nDONE D\n\
         # 0 of 3 retries already performed; 3 remaining\nRETRY D 3 UNLESS-EXIT 9\nDONE S+N\n"
    );
    let again = parse(&[input("x.dag", text.as_bytes())], Some(&input("x.dag.rescue001", rescue.as_bytes())), &context);
    let again = again.ok().unwrap();
    let done: Vec<&str> = again.written().filter(|(_, node)| node.done).map(|(n, _)| again.name(n)).collect();
    assert_eq!(done, ["A", "D", "S+N"]);
    assert_eq!(again.nodes()[again.find("B").unwrap() as usize].retries, 2);
    // Joins of DAGMan's are passed over; other unknown nodes are not.
    let join = input("r", b"DONE _condor_join_node0\nDONE A".as_slice());
    assert!(parse(&[input("x.dag", text.as_bytes())], Some(&join), &context).is_ok());
    let stray = input("r", b"DONE Q".as_slice());
    assert!(parse(&[input("x.dag", text.as_bytes())], Some(&stray), &context).is_err());
    let save = write_save_point(&dag, 2, "t", &progress);
    assert!(save.starts_with("# Save file written at Start Node C\n# Created t\n"), "{save}");
}

#[test]
fn rescue_files_are_numbered() {
    assert_eq!(rescue_name("x.dag", false, 1), "x.dag.rescue001");
    assert_eq!(rescue_name("x.dag", true, 12), "x.dag_multi.rescue012");
    let names = [
        "x.dag",
        "x.dag.rescue002",
        "x.dag.rescue010",
        "x.dag.rescue011.old",
        "y.dag.rescue900",
        "x.dag_multi.rescue003",
    ];
    assert_eq!(last_rescue("x.dag", false, names), Some(10));
    assert_eq!(last_rescue("x.dag", true, names), Some(3));
    assert_eq!(last_rescue("z.dag", false, names), None);
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::sample::select(vec![
            "JOB",
            "PARENT",
            "CHILD",
            "SPLICE",
            "INCLUDE",
            "VARS",
            "RETRY",
            "SCRIPT",
            "PRE",
            "ALL_NODES",
            "A",
            "B",
            "S",
            "S+A",
            "f",
            "{",
            "}",
            "@=x",
            "@x",
            "\\\n",
            "\n",
            "\n",
            "\"",
            "'",
            "=",
            "1",
            "-1",
            "10%",
            "DIR",
            "DONE",
            "CONNECT",
            "PIN_IN",
            "PIN_OUT",
            "SUBDAG",
            "EXTERNAL",
            "FINAL",
            "WEAK",
            "ENV",
            "SET",
            "DOT",
            "#",
            "CATEGORY",
            "MAXJOBS",
            "SUBMIT-DESCRIPTION",
            "\u{fffd}",
            "TOLERANCE",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,6}",
    ]
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(words in proptest::collection::vec(word(), 0..60), inner in proptest::collection::vec(word(), 0..30)) {
        let (text, inner) = (words.join(" "), inner.join(" "));
        if let Ok(dag) = read(&text, &[("f", &inner)]) {
            for (node, _) in dag.written() {
                dag.vars(node);
                dag.script(node, ScriptKind::Post);
            }
            prop_assert!(dag.graph().cycle().is_none());
        }
    }

    /// A random graph, written with random grouping of its edges, is read as it was: same nodes, same edges, or a true cycle.
    #[test]
    fn graphs_are_read_as_they_were(
        nodes in 1_usize..12,
        commands in proptest::collection::vec((proptest::collection::vec(0_usize..12, 1..4), proptest::collection::vec(0_usize..12, 1..4)), 0..12),
    ) {
        let mut text: String = (0..nodes).map(|n| format!("JOB N{n} s\n")).collect();
        let mut expected = std::collections::BTreeSet::new();
        for (parents, children) in &commands {
            let list = |list: &[usize]| list.iter().map(|n| format!(" N{}", n % nodes)).collect::<String>();
            writeln!(text, "PARENT{} CHILD{}", list(parents), list(children)).unwrap();
            for parent in parents {
                expected.extend(children.iter().map(|child| (parent % nodes, child % nodes)));
            }
        }
        // Reachability by squaring: a node that reaches itself is in a cycle.
        let mut reach = vec![vec![false; nodes]; nodes];
        expected.iter().for_each(|(a, b)| reach[*a][*b] = true);
        for via in 0..nodes {
            for a in 0..nodes {
                for b in 0..nodes {
                    reach[a][b] |= reach[a][via] && reach[via][b];
                }
            }
        }
        let cyclic = (0..nodes).any(|n| reach[n][n]);
        match read(&text, &[]) {
            Ok(dag) => {
                prop_assert!(!cyclic, "{text}");
                let mut list: Vec<String> = expected.iter().map(|(a, b)| format!("N{a}>N{b}")).collect();
                list.sort();
                prop_assert_eq!(edges(&dag), list.join(" "));
            }
            Err(errors) => prop_assert!(cyclic && errors.contains("has a cycle"), "{text}{errors}"),
        }
    }
}

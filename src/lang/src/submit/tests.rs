use super::*;
use crate::Severity;
use proptest::prelude::*;

/// A world with a few files, a variable, and a coin that always falls alike.
struct Small;

impl World for Small {
    fn variable(&self, name: &str) -> Option<Vec<u8>> {
        (name == "HOME").then(|| b"/home/ada".to_vec())
    }

    fn file(&self, name: &[u8]) -> Result<Vec<u8>, String> {
        let files: [(&[u8], &[u8]); 6] = [
            (b"items", b"a 1\n\n b, 2 \r\n# c\n"),
            (b"more.sub", b"y = included\nif defined z\ny = $(z)\nendif\n"),
            (b"again.sub", b"include : again.sub\n"),
            (b"bad.sub", b"\nnonsense\n"),
            (b"units", b"a b\x1fc\n"),
            (b"one", b"only\n"),
        ];
        let found = files.iter().find(|(known, _)| *known == name).map(|(_, text)| text.to_vec());
        found.ok_or_else(|| "no such file".to_owned())
    }

    fn output(&self, command: &[u8]) -> Result<Vec<u8>, String> {
        match command {
            b"seq 3" => Ok(b"1\n2\n3\n".to_vec()),
            b"echo y = made" => Ok(b"y = made\n".to_vec()),
            _ => Err("it exited with 1".to_owned()),
        }
    }

    fn keep(&self, file: &[u8], _: &[u8]) -> Result<(), String> {
        if file == b"full" { Err("no space".to_owned()) } else { Ok(()) }
    }

    fn matching(&self, pattern: &[u8], kind: Kind) -> Result<Vec<Vec<u8>>, String> {
        let names: &[&[u8]] = match (pattern, kind) {
            (b"*.dat", Kind::Any) => &[b"a.dat", b"b.dat", b"d.dat/"],
            (b"*.dat", Kind::Files) => &[b"a.dat", b"b.dat"],
            (b"*.dat", Kind::Dirs) => &[b"d.dat/"],
            (b"a*", _) => &[b"a.dat"],
            _ => &[],
        };
        Ok(names.iter().map(|name| name.to_vec()).collect())
    }

    fn random(&self) -> u64 {
        4
    }
}

const CONTEXT: Context<'_> =
    Context { world: &Small, overrides: &[], predefined: &[], here: b"/here", only_show: false };

fn run(text: &[u8]) -> Result<Description, Vec<Diagnostic>> {
    parse("a.sub", text, &CONTEXT)
}

/// The first group's ad, for a description of `executable = /bin/echo`, `lines` and `queue`.
fn ad(lines: &str) -> Result<JobAd, String> {
    let text = format!("executable = /bin/echo\n{lines}\nqueue\n");
    match run(text.as_bytes()) {
        Ok(mut description) => Ok(description.groups.remove(0).ad),
        Err(found) => Err(found.iter().map(brief).collect::<Vec<_>>().join("\n")),
    }
}

/// A diagnostic in one line.
fn brief(d: &Diagnostic) -> String {
    let kind = if d.severity == Severity::Error { "E" } else { "W" };
    let expected = d.expected.iter().map(|e| format!(", expected {e}")).collect::<String>();
    let hint = d.hint.iter().map(|h| format!("; {h}")).collect::<String>();
    format!("{kind} {}:{} {}{expected}{hint}", d.line, d.column, d.message)
}

fn text(template: &Template) -> String {
    String::from_utf8_lossy(&template.expand(vo_core::JobId { cluster: 7, proc: 3 })).into_owned()
}

fn words(templates: &[Template]) -> Vec<String> {
    templates.iter().map(text).collect()
}

/// The arguments of each job of a description, in order of process, without the words that don't differ.
fn jobs(lines: &str) -> Result<Vec<String>, String> {
    let text = format!("executable = /bin/echo\n{lines}\n");
    let description = run(text.as_bytes()).map_err(|found| found.iter().map(brief).collect::<Vec<_>>().join("\n"))?;
    let mut jobs = std::collections::BTreeMap::new();
    for group in &description.groups {
        for proc in group.members.iter() {
            let words = Template::fill_list(&group.ad.arguments, &group.members.row(proc));
            let job = vo_core::JobId { cluster: 7, proc };
            let words: Vec<_> = words.iter().map(|w| String::from_utf8_lossy(&w.expand(job)).into_owned()).collect();
            assert_eq!(jobs.insert(proc, words.join("|")), None, "{lines}");
        }
    }
    assert!((0..).zip(jobs.keys()).all(|(expected, proc)| expected == *proc), "{lines}: {jobs:?}");
    Ok(jobs.into_values().collect())
}

/// Expected values: condor_submit 24.12.
#[test]
fn names_of_items_set_commands() {
    let described = b"executable = x\narguments = never\nqueue Input, arguments from (\n i, a b\n j, \"'c d'\"\n)\n\
        arguments = last\nqueue\nqueue 2 executable,request_memory from (\n y 5\n z 1GB\n)\n";
    let description = run(described).unwrap();
    let told: Vec<String> = description
        .groups
        .iter()
        .flat_map(|group| {
            group.members.iter().map(|proc| {
                let row = group.members.row(proc);
                let list =
                    |templates: &[Template]| Template::fill_list(templates, &row).iter().map(text).collect::<Vec<_>>();
                let input = group.ad.input.as_ref().map(|input| text(&input.fill(&row)));
                format!(
                    "{} {:?} {input:?} {:?}",
                    text(&group.ad.executable.fill(&row)),
                    list(&group.ad.arguments),
                    group.ad.request_memory_mb
                )
            })
        })
        .collect();
    let expected = [
        r#"/here/x ["a", "b"] Some("i") None"#,
        r#"/here/x ["c d"] Some("j") None"#,
        r#"/here/x ["last"] None None"#,
        r#"/here/y ["last"] None Some(5)"#,
        r#"/here/y ["last"] None Some(5)"#,
        r#"/here/z ["last"] None Some(1024)"#,
        r#"/here/z ["last"] None Some(1024)"#,
    ];
    assert_eq!(told, expected);
}

#[test]
fn machines_fill_in_what_is_theirs() {
    let slot = crate::classad::Ad::parse("[Arch = \"X86_64\"; Memory = 2048; Half = 0.5; Odd = \"a b\"; Bad = 1 / 0]")
        .unwrap();
    let job = crate::classad::Ad::parse("[RequestCpus = 2]").unwrap();
    let context = crate::classad::Context::new(Some(&job), Some(&slot), 0);
    let check = |lines: &str, expected: Result<&str, &str>| {
        let ad = ad(lines).unwrap();
        // As it is written, where nobody fills it in.
        assert!(words(&ad.arguments).join(" ").contains("$$("), "{lines}");
        let mut fill = |asked: &[u8]| fill_in(asked, &context);
        let filled: Result<Vec<_>, String> = ad.arguments.iter().map(|word| word.fill_in(&mut fill)).collect();
        let filled = filled.map(|filled| filled.iter().map(|word| format!("<{}>", text(word))).collect::<String>());
        assert_eq!(filled, expected.map(str::to_owned).map_err(str::to_owned), "{lines}");
    };
    check("arguments = -m $$(Memory)M $$(ARCH)$$(Half)", Ok("<-m><2048M><X86_645.000000000000000E-01>"));
    check("arguments = $$(Nope:none at all) $$(Nope:)$$(Odd)", Ok("<none at all><a b>"));
    check("x = Mem\narguments = $$([TARGET.$(x)ory / MY.RequestCpus + 1]) $(Process)", Ok("<1025><0>"));
    check("arguments = \"'$$([strcat(\"\"a'b\"\", Arch)])' $$(Memory)\"", Ok("<a'bX86_64><2048>"));
    check("arguments = $$([strcat(\\\"a\\\", Arch)])", Ok("<aX86_64>"));
    check("arguments = $$(Nope)", Err("$$(Nope) has no value on the machine that was to run it"));
    check("arguments = $$(Bad:1)", Err("$$(Bad:1) has no value on the machine that was to run it"));
}

#[test]
fn macros_expand_as_in_htcondor() {
    let check = |lines: &str, expected: &str| {
        let seen = ad(lines).map(|ad| words(&ad.arguments).join(" "));
        assert_eq!(seen.as_deref(), Ok(expected), "{lines}");
    };
    check("x = a $(y)\ny = b\narguments = $(x) $(nope) $(z:def) $(z:) $(X:other)", "a b def a b");
    check("x =\narguments = $(x:def)", "def");
    check("x = 1\nx = $(x) 2\narguments = $(x)", "1 2");
    check("x = $(x) b\narguments = $(x)", "b");
    check("x = $(x:0) b\narguments = $(x)", "0 b");
    check("x = $(X)$(x)z\narguments = $(x)", "z");
    check("arguments = $(Cluster).$(Process).$(ClusterId).$(ProcId).$(PROCID)", "7.0.7.0.0");
    check("arguments = $(Step) $(Row) $(ItemIndex)", "0 0 0");
    check("process = 5\narguments = $(Process)", "5");
    check("arguments = $(DOLLAR)x $$ $5 $(a b) $( x) $x ${x} $env(HOME)", "$x $$ $5 $(a b) $( x) $x ${x} $env(HOME)");
    check(
        "arguments = $ENV(HOME) $ENV(NOPE) $ENV(NOPE:xx) $ENV(NOPE:$(executable))",
        "/home/ada UNDEFINED xx /bin/echo",
    );
    check("y = 1\narguments = $(x:$(y)) $(x:a b) $(x:a)b) $(x:$(w:z)) $(x:$ENV(HOME))", "1 a b ab) z /home/ada");
    check("arguments = $(arguments)x", "x");
    check("+Foo = 3\narguments = $(MY.foo) $(my.FOO)", "3 3");
    check("arguments = $(executable) $(IsLinux) $(submit_file) [$(Item)$(Node)]", "/bin/echo 1 a.sub []");
    check("f = /a/b.c\narguments = $Fn(f) $INT(Process,%03d) $CHOICE(1,x,y) $SUBSTR(f,1,1)", "b 000 y a");
    check("f = $(g)/b.c\ng = q\narguments = $Fp(f) $BASENAME($(f))", "q/ b.c");
    check("x = 1\nx += 2\ny = a\ny +,= b\ny +&&= c\nz += 1\narguments = $(x) $(y) $(z)", "1 2 a,b && c 1");
    check(
        "x0 = v\nn = 0\narguments = $(x$(n)) $(x$(Process)) $(y$(n):d) $($(m):d) <$()> $(:f) $(item:e)",
        "v v d d <> f e",
    );
    check("n = x\nx = y\n$(n)$(n) = a\narguments = $(xx) $($(n)) $ENV($(e)OPE:d) $ENV($(e)OPE)", "a y d UNDEFINED");
    check("n = N\narguments = $ENV($(n)OPE:d) $ENV()", "d UNDEFINED");
    check("f = a/b\narguments = $$Fn(f) $$$Fn(f) $$$(f)", "$$Fn(f) $$b $$a/b");
    check("initialdir = run/\narguments = $Ff(a) $Ff(/b)", "/here/run/a /b");
    check("x @=end\nline one\n  line two\n# c\nlast\n@end\narguments = $(x)", "line one line two last");
    check("arguments = $FX $FOO(x) $Int(3)", "$FX $FOO(x) $Int(3)");
    check("a = b\narguments = $(A)", "b");
    check("arguments = =x", "=x");
}

#[test]
fn commands_fill_the_ad() {
    let ad = ad(concat!(
        "Universe = Local\nARGUMENTS = \"a 'b c' $(Process)\"\nenvironment = \"A=1 B='x y' A=2\"\ngetenv = PATH, HO*\n",
        "initialdir = run$(Process)\ninput = in put\noutput = o.$(Cluster).$(Process)\nstderr = e\nlog = l\n",
        "request_cpus = 4\nRequestMemory = 1.5 GB\nrequest_disk = 1M\nshould_transfer_files = YES\n",
        "when_to_transfer_output = ON_EXIT\ntransfer_executable = False\n",
        "transfer_input_files = a, b ,c d,,dir/\ntransfer_output_files = \"x, y\"\nbatch_name = \"a b\"\n",
        "+WantIt = true\nMY.Other = $(Process) + 1\nnotification = never\n",
    ));
    let ad = ad.unwrap();
    assert_eq!(ad.universe, Universe::Local);
    assert_eq!(words(&ad.arguments), ["a", "b c", "0"]);
    let environment: Vec<_> = ad.environment.iter().map(|(n, v)| format!("{n}={}", text(v))).collect();
    assert_eq!(environment, ["A=2", "B=x y"]);
    assert_eq!(ad.getenv, GetEnv::Matching(vec!["PATH".into(), "HO*".into()]));
    let paths = [&ad.input, &ad.output, &ad.error, &ad.log, &ad.batch_name];
    let paths: Vec<_> = paths.into_iter().flatten().map(text).collect();
    assert_eq!(paths, ["in put", "o.7.0", "e", "l", "a b"]);
    assert_eq!(text(ad.initialdir.as_ref().unwrap()), "/here/run0");
    assert_eq!((ad.request_cpus, ad.request_memory_mb, ad.request_disk_kb), (4, Some(1536), Some(1024)));
    assert_eq!((ad.transfer, ad.transfer_executable), (ShouldTransfer::Yes, false));
    assert_eq!(words(&ad.transfer_input), ["a", "b", "c d", "dir/"]);
    assert_eq!(ad.transfer_output.map(|t| words(&t)), Some(vec!["x".into(), "y".into()]));
    let attributes: Vec<_> = ad.attributes.iter().map(|(n, v)| format!("{n}={}", text(v))).collect();
    assert_eq!(attributes, ["Other=0 + 1", "WantIt=true"]);
}

#[test]
fn defaults_are_htcondors() {
    let ad = ad("output =\ntransfer_output_files =\nrequest_memory = undefined").unwrap();
    let expected = JobAd {
        universe: Universe::Vanilla,
        executable: Template::constant("/bin/echo"),
        arguments: vec![],
        old_arguments: false,
        environment: vec![],
        getenv: GetEnv::None,
        initialdir: None,
        input: None,
        output: None,
        error: None,
        log: None,
        request_cpus: 1,
        request_memory_mb: None,
        request_disk_kb: None,
        request_gpus: None,
        request_texts: Vec::new(),
        at_once: None,
        resources: vec![],
        counted: vec![],
        requests: vec![],
        requirements: None,
        rank: None,
        priority: 0,
        accounting_group: None,
        accounting_user: None,
        container_image: None,
        docker_image: None,
        without: vec!["RequestMemory"],
        transfer: ShouldTransfer::IfNeeded,
        when_to_transfer: WhenToTransfer::OnExit,
        transfer_remaps: vec![],
        destination: None,
        settings: vec![],
        transfer_executable: true,
        transfer_input: vec![],
        transfer_output: None,
        transfer_checkpoint: None,
        batch_name: None,
        attributes: vec![],
    };
    assert_eq!(ad, expected);
    assert_eq!(self::ad("transfer_output_files = \"\"").unwrap().transfer_output, Some(vec![]));
}

#[test]
fn queue_statements_make_groups() {
    let check = |lines: &str, expected: &[&str]| {
        let text = format!("arguments = $(v:)$(Step) $(Process)\n{lines}");
        assert_eq!(jobs(&text), Ok(expected.iter().map(|job| job.to_string()).collect()), "{lines}");
    };
    check("queue", &["0|0"]);
    check("Queue 2\nQUEUE\t$(n:2)", &["0|0", "1|1", "0|2", "1|3"]);
    check("v = a\nqueue 2\nv = b\nqueue 2", &["a0|0", "a1|1", "b0|2", "b1|3"]);
    check("queue +2", &["0|0", "1|1"]);
    assert_eq!(run(b"executable = x\nqueue 0\nqueue 10000000").map(|d| d.jobs()), Ok(10_000_000));
    let bad = |line: &str, expected: &str| {
        let text = format!("executable = x\n{line}");
        let seen = run(text.as_bytes()).map_err(|found| found.iter().map(brief).collect::<Vec<_>>().join("\n"));
        assert_eq!(seen, Err(expected.to_owned()), "{text}");
    };
    bad("queue -1", "E 2:7 the number of jobs is negative, expected a number of jobs");
    bad("queue abc", "E 2:7 `abc` is no number, expected a number of jobs");
    bad(
        "queue 3 # three",
        "E 2:7 text after the number of jobs, expected a number of jobs; a comment needs a line of its own",
    );
    bad("queue = 3", "E 2:7 `queue` takes no `=`, expected `queue` or `queue COUNT`");
    bad("queue $(Process)", "E 2:7 the number of jobs can't depend on `$(Cluster)` or `$(Process)`");
    let limit = "expected at most 10000000 jobs in one cluster";
    bad("queue 99999999999", &format!("E 2:7 `queue 99999999999` is too much, {limit}"));
    bad("queue 10000000\nqueue", "E 3:1 more than 10000000 jobs in one cluster");
    bad(
        "queue 0",
        "W 2:7 `queue 0` submits no job\nE 2:8 description submits no job: every `queue` statement counts 0",
    );
    bad("queue x from (\na\n", "E 2:1 the list of items never ends, expected a line with `)`");
    bad("queue x from nowhere", "E 2:7 items can't be read from `nowhere`: no such file");
    bad("queue x from false |", "E 2:7 items can't be read from `false |`: it exited with 1");
    bad("queue x in [a] (b)", "E 2:7 this is no slice, expected `[start:end:step]`, each a whole number or left out");
    bad("queue x in", "E 2:7 nothing follows `in`, expected items");
    bad(
        "queue x in ()",
        concat!(
            "W 2:1 there is no item: this `queue` statement submits no job\n",
            "E 2:14 description submits no job: every `queue` statement counts 0"
        ),
    );
    bad(
        "queu 3",
        concat!(
            "E 2:6 `queu` is followed by something else, expected `=`; did you mean `queue`?\n",
            "E 2:7 description submits nothing, expected a `queue` statement; ",
            "`queue` alone submits one job, `queue 100` a hundred"
        ),
    );
}

/// Expected values: condor_submit 24.12, but for blank lines among items, which are no items here.
#[test]
fn items_tell_jobs_apart() {
    let check = |lines: &str, expected: &[&str]| {
        let text = format!("arguments = [$(x)] $(Item)[$(y)] $(ItemIndex) $(Row) $(Step) $(Process)\n{lines}");
        assert_eq!(jobs(&text), Ok(expected.iter().map(|job| job.to_string()).collect()), "{lines}");
    };
    check("queue 2 x in (a, b)", &["[a]|[]|0|0|0|0", "[a]|[]|0|0|1|1", "[b]|[]|1|1|0|2", "[b]|[]|1|1|1|3"]);
    check("queue x in [::2] (a b c d)", &["[a]|[]|0|0|0|0", "[c]|[]|2|2|0|1"]);
    check("queue x in [1:3](a b c d)", &["[b]|[]|1|1|0|0", "[c]|[]|2|2|0|1"]);
    check("queue x from (\na \\\n# c \\\n  b\n)", &["[a|b]|[]|0|0|0|0"]);
    check("queue x in [-1] (a b c d)", &["[d]|[]|3|3|0|0"]);
    check("queue x in [1] a, b c", &["[b]|[]|1|1|0|0", "[c]|[]|2|2|0|1"]);
    check("queue in (a b)", &["[]|a[]|0|0|0|0", "[]|b[]|1|1|0|1"]);
    check("queue x from (\na b\n# c\n c,d\n\n)\nqueue", &["[a|b]|[]|0|0|0|0", "[c,d]|[]|1|1|0|1", "[]|[]|0|0|0|2"]);
    check("queue x,y from (\na b c\n d\n)", &["[a]|[b|c]|0|0|0|0", "[d]|[]|1|1|0|1"]);
    check("queue x from (a b)", &["[a|b]|[]|0|0|0|0"]);
    check("queue x, y from items", &["[a]|[1]|0|0|0|0", "[b]|[2]|1|1|0|1", "[#]|[c]|2|2|0|2"]);
    check("queue x,y from units", &["[a|b]|[c]|0|0|0|0"]);
    check("queue x from seq 3 |", &["[1]|[]|0|0|0|0", "[2]|[]|1|1|0|1", "[3]|[]|2|2|0|2"]);
    check("queue x from one", &["[only]|[]|0|0|0|0"]);
    check("queue x matching *.dat", &["[a.dat]|[]|0|0|0|0", "[b.dat]|[]|1|1|0|1", "[d.dat/]|[]|2|2|0|2"]);
    check("queue x matching files (a* *.dat\n)", &["[a.dat]|[]|0|0|0|0", "[b.dat]|[]|1|1|0|1"]);
    check("queue x matching dirs [0:1] *.dat", &["[d.dat/]|[]|0|0|0|0"]);
    check("x = before\nqueue x in (a)\nqueue", &["[a]|[]|0|0|0|0", "[before]|[]|0|0|0|1"]);
    check("l = p, q\nqueue x in $(l)", &["[p]|[]|0|0|0|0", "[q]|[]|1|1|0|1"]);
    check("y = $(z)$(Process)\nz = Z\nqueue x in ($(y) t)", &["[Z0]|[Z0]|0|0|0|0", "[t]|[Z1]|1|1|0|1"]);
    check("queue x from (\n$(y).$(ClusterId)\nt\n)", &["[.7]|[]|0|0|0|0", "[t]|[]|1|1|0|1"]);
    // Many jobs of few items are groups of their own.
    let many = run(b"executable = x\narguments = $(x) $(Step) $(Row)\nqueue 1000 x in (a b)").unwrap();
    assert_eq!(many.groups.len(), 2);
    assert_eq!(
        jobs("arguments = $(x)$(Step)$(Row)\nqueue 100 x in (a b)").unwrap().last().map(String::as_str),
        Some("b991")
    );
}

/// What differs from job to job in more than its text.
#[test]
fn items_go_where_they_are_needed() {
    let check = |lines: &str, expected: &[&str]| {
        assert_eq!(jobs(lines), Ok(expected.iter().map(|job| job.to_string()).collect()), "{lines}");
    };
    let list = "queue x from (\na 'b c'\n\"d 'e f'\"\ng\n)";
    check(&format!("arguments = 1 $(x)\n{}", list.replace('"', "")), &["1|a|'b|c'", "1|d|'e|f'", "1|g"]);
    check(&format!("arguments = $(x)\n{list}"), &["a|'b|c'", "d|e f", "g"]);
    check("arguments = \"'$(x)' $(Cluster)\"\nqueue x from (\na b\nc\n)", &["a b|7", "c|7"]);
    check("arguments = \"'$(x)' $(Cluster)\"\nqueue x from (\na b\nit''s \"\"q\"\"\n)", &["a b|7", "it's \"q\"|7"]);
    check("arguments = $(x) $(y)\nqueue x,y from (\na\nb 1 2\n)", &["a", "b|1|2"]);
    check(
        "arguments = $Fn(x)-$INT(Process,%03d)-$(x:none)\nqueue x from (\n/a/b.c\nd\n)",
        &["b-000-/a/b.c", "d-001-d"],
    );
    check("arguments = $(y:none)\nqueue x,y from (\na\nb 1\n)", &["none", "1"]);
    check("arguments = $RANDOM_INTEGER(0,9) $CHOICE(Process,p,q)\nqueue 2", &["4|p", "4|q"]);
    let fault = jobs("arguments = $(x)\nqueue x from (\na\n\"b\n)");
    assert_eq!(
        fault.unwrap_err(),
        "E 2:13 double quote is never closed (in the value for process 1), expected a closing `\"`"
    );
    let fault = jobs("arguments = $INT(x)\nqueue x in (1 b)");
    assert_eq!(fault.unwrap_err(), "E 2:13 `$INT()`: `b` is no whole number, expected a whole number");
    let fault = jobs("arguments = $INT(Cluster)\nqueue 2");
    assert!(fault.unwrap_err().starts_with("E 2:13 `$INT()` can't work on the number of the cluster"));
    let fault = jobs("request_cpus = $(Cluster)\nqueue 2");
    assert!(fault.unwrap_err().starts_with("E 2:16 `request_cpus` can't depend on the number of the cluster"));
}

#[test]
fn jobs_that_need_different_slots_are_groups_of_their_own() {
    let text = "executable = $(x)\narguments = $(x) $(Process)\noutput = $(x).out\nrequest_memory = $(mem)\n\
        environment = \"A=$(e)\"\nqueue x,mem,e from (\na 10 'p q'\n/b 20 r\nc 10 s\n/d 20 ''\n)";
    let description = run(text.as_bytes()).unwrap();
    let groups: Vec<_> = description
        .groups
        .iter()
        .map(|group| {
            let program = |proc: u32| {
                let (row, job) = (group.members.row(proc), vo_core::JobId { cluster: 7, proc });
                let text = |template: &Template| String::from_utf8(template.fill(&row).expand(job)).unwrap();
                let words =
                    Template::fill_list(&group.ad.arguments, &row).iter().map(&text).collect::<Vec<_>>().join(" ");
                let variable = text(&group.ad.environment[0].1);
                format!("{} {words} {} {variable}", text(&group.ad.executable), text(group.ad.output.as_ref().unwrap()))
            };
            (group.ad.request_memory_mb, group.members.iter().map(program).collect::<Vec<_>>())
        })
        .collect();
    assert_eq!(
        groups,
        [
            (Some(10), vec!["/here/a a 0 a.out p q".to_owned(), "/here/c c 2 c.out s".to_owned()]),
            (Some(20), vec!["/b /b 1 /b.out r".to_owned(), "/d /d 3 /d.out ".to_owned()]),
        ]
    );
    let by_process = "executable = x\nrequest_memory = $INT(Process,%d)0\nqueue 3";
    let memory: Vec<_> = run(by_process.as_bytes()).unwrap().groups.iter().map(|g| g.ad.request_memory_mb).collect();
    assert_eq!(memory, [Some(0), Some(10), Some(20)]);
    let too_many = "executable = x\nrequest_memory = 1$(Process)\nqueue 20000";
    assert!(brief(&run(too_many.as_bytes()).unwrap_err()[0]).contains("more than 10000 ways"));
}

#[test]
fn branches_and_includes() {
    let check = |lines: &str, expected: Result<&str, &str>| {
        let seen = ad(&format!("{lines}\narguments = $(x:) $(y:)")).map(|ad| words(&ad.arguments).join(" "));
        assert_eq!(seen, expected.map(str::to_owned).map_err(str::to_owned), "{lines}");
    };
    check("if true\nx = 1\nelse\nx = 2\nendif", Ok("1"));
    check("if false\nx = 1\nelif 0\nx = 2\nelif yes\nx = 3\nelif true\nx = 4\nelse\nx = 5\nendif", Ok("3"));
    check("if false\nif true\nx = 1\nelse\nx = 2\nendif\nqueue x from (\nif\n)\ny @=e\nendif\n@e\nendif", Ok(""));
    check("IF ! defined x\n:x = 1\nEndif", Ok("1"));
    check("if defined Process\nx = 1\nendif\nif $(Process)\ny = 1\nelif $(Cluster)\ny = 2\nendif", Ok("1 2"));
    check(
        "if true\n: x = 1\nendif",
        Err("E 3:1 line doesn't begin with a command, expected `command = value` or `queue`"),
    );
    check("if !\nendif", Err("E 2:1 nothing is asked here, expected a condition"));
    check("if defined a-b\nendif", Err("E 2:4 `defined` takes one name, expected `defined NAME`"));
    check("a =\nif defined a\nx = 1\nendif\nif $(b)\nx = 2\nendif\nif defined true\ny = 3\nendif", Ok("3"));
    check(
        "if version > 8.9.5\nx = new\nendif\nif version < 24.12\ny = 1\nelif version >= 24.12.0\ny = 2\nendif",
        Ok("new 2"),
    );
    check("v = 2\nif $(v) \nx = $(v)\nendif", Ok("2"));
    check("include : more.sub", Ok("included"));
    check("z = 4\ninclude : more.sub\nx = 1", Ok("1 4"));
    check("include ifexist : nowhere\ninclude command : echo y = made", Ok("made"));
    check("include : echo y = made |", Ok("made"));
    check("include : nowhere", Err("E 2:11 `nowhere` can't be included: no such file"));
    check("include : again.sub", Err("E 1:1 includes are nested more than 10 deep"));
    check("if true\nx = 1", Err("E 2:1 this `if` is never closed, expected an `endif`"));
    check("endif", Err("E 2:1 `endif` without an `if`"));
    check("if 1\nelse\nelse\nendif", Err("E 4:1 a second `else` of one `if`"));
    check("if 1\nelse\nelif 1\nendif", Err("E 4:1 `elif` after the `else` of its `if`"));
    check(
        "if $(Process) == 0\nendif",
        Err("E 2:4 `0 == 0` is no condition, expected true, false, a number, `defined NAME` or \
            `version >= X.Y.Z`, with `!` before it for the opposite"),
    );
    check("x @=e\n1", Err("E 2:1 this value of several lines never ends, expected a line `@e`"));
    check("x = now\nerror : stop $(x)", Err("E 3:1 stop now"));
    check("include command into there : echo y = made", Ok("made"));
    check("include command into more.sub : no such command", Ok("included"));
    check("include command into full : echo y = made", Err("E 2:29 `echo y = made` can't be included: no space"));
    check(
        "include command into : echo",
        Err("E 2:1 `include command into` names no file, expected `include command into FILE : COMMAND`"),
    );
    check(
        "use FEATURE : x",
        Err(
            "E 2:1 `use` names a template of a pool's configuration, and there is none here; write what the template stands for, or include it from a file",
        ),
    );
    let found = run(b"executable = x\ninclude : bad.sub\nqueue").unwrap_err();
    assert_eq!((found[0].file.as_str(), found[0].line), ("bad.sub", 2));
}

#[test]
fn faults_are_explained() {
    let check = |lines: &str, expected: &str| assert_eq!(ad(lines), Err(expected.to_owned()), "{lines}");
    check(
        "arguments = “a b”",
        "E 2:13 value begins with the typographic quote “, expected `\"` or no quote; \
        word processors and web pages put them in place of `\"` and `'`",
    );
    check("arguments == x", "E 2:12 `==` compares; a command is set with `=`, expected `arguments = value`");
    check("output : x", "E 2:8 `output` is followed by a colon, expected `=`");
    check("just words", "E 2:6 `just` is followed by something else, expected `=`");
    check("= x", "E 2:1 line doesn't begin with a command, expected `command = value` or `queue`");
    check(
        "arguments = a \"b",
        "E 2:15 double quote inside a value that doesn't begin with one, \
        expected `\\\"`, or the whole value in double quotes",
    );
    check(
        "arguments = \"a \\\n   'b\"",
        "E 3:4 single quote is never closed, \
        expected a closing `'` (a `'` of the text is doubled: `''`)",
    );
    check("environment = A", "E 2:15 environment variable has no value, expected `NAME=value`");
    check(
        "request_memory = lots",
        "E 2:18 `lots` is no size, \
        expected a size such as 512M, 2G or 1.5T, or an expression that has a value now",
    );
    check(
        "request_cpus = 0",
        "E 2:16 `0` is no number of processors, \
        expected a whole number from 1 on, or an expression that has such a value now",
    );
    check("request_memroy = 3", "E 2:1 there is no resource for `request_memroy`; did you mean `request_memory`?");
    check("universe = docker", "E 2:12 universe `docker` without an image, expected `docker_image = IMAGE`");
    check(
        "universe = docker\ncontainer_image = docker://a",
        "E 2:12 universe `docker` takes no `container_image`, expected `docker_image = IMAGE`, or no `universe`",
    );
    check(
        "concurrency_limits = a, b-c",
        "E 2:22 `b-c` is no concurrency limit, expected names such as `licence`, or `database:2`",
    );
    check("accounting_group = a b", "E 2:20 `a b` is two names, expected one name, without blanks");
    check("arguments2 = a", "E 2:14 `arguments2` is in the new syntax, expected the value in double quotes");
    check(
        "universe = moon",
        "E 2:12 there is no universe `moon`, expected `vanilla`, `container`, `docker`, `local` or `scheduler`",
    );
    check(
        "requirements = OpSys = \"LINUX\"",
        "E 2:22 `requirements` is no ClassAd expression: unexpected `=`; a comparison is `==`, \
        expected an operator, or the end",
    );
    for (line, hint) in [
        ("rank = a and b", "`&&` and `||` join conditions"),
        ("requirements = Arch == “X86_64”", "it has typographic quotes, which word processors put in place of `\"`"),
        ("+Foo = 1 +", "`foo` is no ClassAd expression"),
    ] {
        let fault = ad(line).unwrap_err();
        assert!(fault.contains(hint), "{fault}");
    }
    check("transfer_output_remaps = \"a\"", "E 2:27 this output has no place to go to, expected `\"NAME = PATH; …\"`");
    check("kill_sig = SIGFOO", "E 2:12 there is no signal `sigfoo`, expected a name such as SIGINT, or a number");
    check("transfer_executable = no", "E 2:23 `no` is neither true nor false, expected `true` or `false`");
    check(
        "should_transfer_files = NO\nwhen_to_transfer_output = ON_EXIT",
        "E 3:27 `should_transfer_files = no` leaves no output to transfer, expected one of the two alone",
    );
    check(
        "should_transfer_files = no\ntransfer_input_files = a",
        "E 3:24 `should_transfer_files = no` leaves nothing of `transfer_input_files`, expected one of the two alone",
    );
    check("transfer_output_files = a, osdf:///x", "E 2:28 an output has no URL, expected a path");
    check(
        "output_destination = far/away",
        "E 2:22 `output_destination` is no URL, expected such as `file:///staging/me/`",
    );
    check(
        "a = $(b)\nb = $(c)\nc = $(b)\narguments = $(a)",
        "E 5:13 macros refer to each other in a ring: `b` → `c` → `b`",
    );
    check("arguments = x $(y", "E 2:15 macro reference is never closed, expected a `)`");
    check("arguments = $(y:$(z)", "E 2:13 macro reference is never closed, expected a `)`");
    let hint = "the machine fills it in in `executable`, `arguments`, `environment`, `input`, `transfer_input_files` and images";
    check("output = $$(Memory)", &format!("E 2:10 `$$()` is not supported in `output`; {hint}"));
    check("+Where = $$(Machine)", &format!("E 2:10 `$$()` is not supported in `my.where`; {hint}"));
    check("arguments = $$(Memory", "E 2:13 macro reference is never closed, expected a `)`");
    check("arguments = $$(x y)", "E 2:13 `$$()` names no attribute of a machine");
    check("arguments = $$([1 +])", "E 2:13 `$$([…])` is no ClassAd expression: the text ends here");
    check(
        "arguments = $$(x:$(Cluster))",
        "E 2:13 `$$()` can't be a part of what is computed, nor depend on the cluster; neither the machine nor the number of the cluster is known yet",
    );
    check("output = a\0b", "E 2:11 a NUL byte can't be part of a description");
    let refused = "it would change what the jobs do, so it isn't just ignored";
    for command in ["scitokens_file = x", "append_files = a"] {
        let name = command.split(' ').next().unwrap_or_default();
        check(command, &format!("E 2:1 `{name}` is not supported yet; {refused}"));
    }
    check("checkpoint_exit_code = x", "E 2:24 `x` is no whole number, expected a whole number");
    let seconds = "expected a whole number from 0 on, or an expression such as `QDate + 3600`";
    for (name, value) in
        [("deferral_time", "-5"), ("deferral_time", "5.5"), ("deferral_time", "undefined"), ("cron_window", "true")]
    {
        let set = if name == "cron_window" { "cron_hour = 3\n" } else { "" };
        let (line, column) = (2 + set.lines().count(), name.len() + 4);
        let message = format!("`{name}` is no whole number of seconds: `{value}`, {seconds}");
        check(&format!("{set}{name} = {value}"), &format!("E {line}:{column} {message}"));
    }
    check(
        "universe = scheduler\ndeferral_time = 5",
        "E 3:1 jobs of universe `scheduler` can't be deferred, expected `universe = local`",
    );
    check(
        "cron_hour = 24",
        "E 2:13 `cron_hour` is no part of a schedule: 24 is not within 0 to 23, \
         expected numbers from 0 to 23, `*`, ranges such as `5-10`, steps such as `*/5`",
    );
    // Everything at once, in the order of the text.
    check(
        "request_cpus = x\nfoo bar\nerror = $(y\nuniverse = vm",
        "E 2:16 `x` is no number of processors, expected a whole number from 1 on, or an expression that has such a value now\n\
        E 3:5 `foo` is followed by something else, expected `=`\n\
        E 4:9 macro reference is never closed, expected a `)`\n\
        E 5:12 universe `vm` is not supported, expected `vanilla`, `container`, `docker`, `local` or `scheduler`",
    );
    let found = run(b"arguments = x\nqueue\n").unwrap_err();
    assert_eq!(
        found.iter().map(brief).collect::<Vec<_>>(),
        ["E 2:1 no program is given, expected `executable = PATH` before `queue`"]
    );
    assert_eq!(
        brief(&run(b"\xff\xfee\0").unwrap_err()[0]),
        "E 1:1 this is UTF-16 text, expected UTF-8; iconv -f UTF-16 -t UTF-8 a.sub makes it readable"
    );
}

#[test]
fn warnings_leave_the_job_as_it_is() {
    let check = |lines: &str, expected: &[&str]| {
        let text = format!("executable = x\n{lines}\nqueue\n");
        let seen = run(text.as_bytes()).map(|d| d.warnings.iter().map(brief).collect::<Vec<_>>());
        assert_eq!(seen, Ok(expected.iter().map(|s| (*s).to_owned()).collect()), "{lines}");
    };
    check("requirements = true\nmax_retries = 0\nperiodic_hold = False\nrequest_gpus = 0\nnotification = Never", &[]);
    check("notification = Complete\nnotify_user = ann@example.org", &[]);
    check(
        "notify_user = Never",
        &["W 2:15 mails would go to a user named `Never`; `notification = never` asks for none"],
    );
    check("n = 3\narguments = $(n)\n+Mine = 1\ndescription = d", &[]);
    check("rank = Memory\npriority = 1", &[]);
    check("deferral_time = QDate + 60\ndeferral_window = 5\ncron_minute = */5", &[]);
    check("deferral_window = 5", &["W 2:1 `deferral_window` has no effect without `deferral_time`"]);
    check("job_lease_duration = 5\ncore_size = 2 * 3\nmax_transfer_input_mb = 1\nmax_transfer_output_mb = x", &[]);
    check("concurrency_limits_expr = strcat(\"a\", \",b\")", &[]);
    check("stack_size = 1", &["W 2:1 `stack_size` has no effect yet"]);
    check("when_to_transfer_output = ON_EXIT_OR_EVICT\nerase_output_and_error_on_restart = false", &[]);
    check("checkpoint_exit_code = 85\ntransfer_checkpoint_files = a, b", &[]);
    check("+SuccessCheckpointExitCode = 85\ntransfer_checkpoint_files = a, b", &[]);
    check(
        "transfer_checkpoint_files = a",
        &["W 2:1 `transfer_checkpoint_files` has no effect without `checkpoint_exit_code`"],
    );
    check("argumnets = 5", &["W 2:1 `argumnets` is no command, and no value refers to it; did you mean `arguments`?"]);
    check(
        "zzz = 5",
        &["W 2:1 `zzz` is no command, and no value refers to it; \
        it has no effect; if it is meant to, look at vo-submit-file(5)"],
    );
    check("output = a\nOUTPUT = b", &["W 3:1 `output` is set again: this value replaces that of line 2"]);
    check("output = a\nqueue\noutput = b", &[]);
    check(
        "PeriodicHold = a\nperiodic_hold = b",
        &["W 2:1 `periodichold` is ignored: `periodic_hold` is set, and means the same"],
    );
    check(
        "process = $(Process)",
        &["W 2:1 `$(process)` is always 0 in its own definition; \
        without the definition, or with another name, it is that of each job"],
    );
    check(
        "process = 1\nprocess = $(process)2\nimage_size = 4 GB\nrow = 5",
        &[
            "W 5:1 `row` is no command, and no value refers to it; it has no effect; if it is meant to, look at vo-submit-file(5)",
        ],
    );
    check("output = a\nstdout = b", &["W 3:1 `stdout` is ignored: `output` is set, and means the same"]);
    check(
        "count = 1\narguments = $(cuont) $(count)",
        &["W 3:13 macro `cuont` is not defined and expands to nothing; did you mean `$(count)`?"],
    );
    check("arguments = $( x)", &["W 2:13 this is no macro reference and stays as it is written"]);
    check(
        "executable = /bin/ls -l",
        &[
            "W 2:1 `executable` is set again: this value replaces that of line 1",
            "W 2:14 the name of the program contains a space; arguments of the program go into `arguments`",
        ],
    );
    check(
        "output = \"a b\"",
        &["W 2:10 the quotation marks are taken as part of the file name; \
        paths are written without quotes, spaces and all"],
    );
    check(
        "environment = A=1 B=2",
        &["W 2:15 spaces don't part variables here: they belong to `A`; \
        write `A=1;B=2`, or `\"A=1 B=2\"` in double quotes"],
    );
    check(
        "getenv = yes",
        &["W 2:10 `getenv = yes` asks for a variable named `yes`; `getenv = true` passes on the whole environment"],
    );
    let late = run(b"executable = x\nqueue\nlog = y\n").unwrap();
    assert_eq!(
        late.warnings.iter().map(brief).collect::<Vec<_>>(),
        ["W 3:1 commands after the last `queue` statement have no effect"]
    );
}

#[test]
fn a_diagnostic_shows_the_line() {
    let found = run(b"executable = x\n\targuments = \"a 'b\" # c\nqueue\n").unwrap_err();
    assert_eq!(
        found[0].to_string(),
        concat!(
            "a.sub:2:19: error: text goes on after the closing double quote, ",
            "expected the end of the value (a `\"` of the text is doubled: `\"\"`)\n",
            "  2 |  arguments = \"a 'b\" # c\n",
            "    |                   ^"
        )
    );
}

#[test]
fn windows_files_and_foreign_bytes_pass() {
    let d =
        run(b"\xef\xbb\xbfexecutable = /bin/\xff\r\n\targuments\t=\ta\xfe \\\r\n  $(Process)\r\nqueue 2\r\n").unwrap();
    let ad = &d.groups[0].ad;
    assert_eq!(ad.executable, Template::constant(b"/bin/\xff"));
    assert_eq!(
        ad.arguments.iter().map(|a| a.expand(vo_core::JobId { cluster: 1, proc: 1 })).collect::<Vec<_>>(),
        [b"a\xfe".to_vec(), b"1".to_vec()]
    );
    assert_eq!((d.groups[0].count(), d.warnings), (2, vec![]));
}

#[test]
fn overrides_win() {
    let set = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
    let overrides = [set("N", "9"), set("output", "a\\"), set("x", "1\nqueue")];
    let context = Context { overrides: &overrides, ..CONTEXT };
    let text = b"executable = x\nn = 1\noutput = z\narguments = $(n) $(x)\nqueue $(N)\n";
    let d = parse("f", text, &context).unwrap();
    assert_eq!((d.jobs(), words(&d.groups[0].ad.arguments)), (9, vec!["9".into(), "1".into(), "queue".into()]));
    assert_eq!(d.groups[0].ad.output, Some(Template::constant("a\\")));
    let overrides = [set("request_cpus", "x")];
    let found = parse("f", b"executable = x\nqueue\n", &Context { overrides: &overrides, ..CONTEXT }).unwrap_err();
    assert_eq!(found[0].to_string().lines().nth(1), Some("  1 | request_cpus = x"));
    assert_eq!((found[0].file.as_str(), found[0].column), ("command line", 16));
}

#[test]
fn what_the_matcher_goes_by_is_in_the_ad() {
    let ad = ad(concat!(
        "requirements = TARGET.TimeToLive > 60 && Project == \"X\"\nrank = Memory\nprio = 2 + 3\nrequest_gpus = 2\n",
        "accounting_group = g\nrequest_Licenses = 3\nrequest_tag = \"a\"\ntransfer_output_remaps = \"a.$(Process) = out/b; c=/d\"\n",
        "+Project = \"Y\"\ndocker_image = debian:12\nwhen_to_transfer_output = ON_SUCCESS\n",
    ));
    let ad = ad.unwrap();
    let demands = "(TARGET.TimeToLive > 60 && Project == \"X\") && (TARGET.Licenses >= RequestLicenses) && regexp(Requesttag, TARGET.tag)";
    assert_eq!(ad.demands().as_deref(), Some(demands));
    assert_eq!((ad.rank.as_deref(), ad.priority, ad.request_gpus), (Some("Memory"), 5, Some(2)));
    assert_eq!((ad.accounting_group.as_deref(), ad.when_to_transfer), (Some("g"), WhenToTransfer::OnSuccess));
    let remaps: Vec<_> = ad.transfer_remaps.iter().map(|(from, to)| format!("{}>{}", text(from), text(to))).collect();
    assert_eq!(remaps, ["a.0>out/b", "c>/d"]);
    assert_eq!(ad.container_image.as_ref().map(text).as_deref(), Some("docker://debian:12"));
    let lone = self::ad("requirements = a || b").unwrap();
    assert_eq!(lone.demands().as_deref(), Some("a || b"));
    assert_eq!(self::ad("").unwrap().demands(), None);
}

/// Expected values: condor_submit 24.12; tests/conform compares thousands more.
#[test]
fn job_ads_are_those_of_condor_submit() {
    let text = "executable = run.sh\narguments = \"a 'b c' $(x)\"\noutput = o.$(x)\nmax_retries = 3\nretry_until = a ? b : c\n\
        request_memory = 2G\n+Item = \"$(x)\"\nqueue x in (p q)\n";
    let description = parse("a.sub", text.as_bytes(), &Context { only_show: true, ..CONTEXT }).unwrap();
    let (arch, opsys) = ("X86_64", "LINUX");
    let facts =
        Facts { cluster: 7, submitted: 9, owner: "ada", arch, opsys, domain: "d", here: b"/here", environment: &[] };
    let ad = description.groups[0].classad(1, &facts);
    let shown = |name: &str| ad.get(name).map(|value| value.old_syntax().to_string()).unwrap_or_default();
    for (name, expected) in [
        ("Cmd", "\"/here/run.sh\""),
        ("Arguments", "\"a b' 'c q\""),
        ("Out", "\"o.q\""),
        ("Err", "\"/dev/null\""),
        ("Iwd", "\"/here\""),
        ("ProcId", "1"),
        ("RequestMemory", "2048"),
        ("OnExitRemove", "NumJobCompletions > JobMaxRetries || ExitCode =?= 0 || (a ? b : c)"),
        ("Item", "\"q\""),
        ("TransferErr", "false"),
        ("TransferOut", ""),
        (
            "Requirements",
            "(TARGET.Arch == \"X86_64\") && (TARGET.OpSys == \"LINUX\") && (TARGET.Disk >= RequestDisk) && \
            (TARGET.Memory >= RequestMemory) && ((TARGET.FileSystemDomain == MY.FileSystemDomain) || (TARGET.HasFileTransfer))",
        ),
    ] {
        assert_eq!(shown(name), expected, "{name}");
    }
}

/// Expected values: condor_submit 24.12.
#[test]
fn attributes_name_their_commands() {
    let settings = |lines: &str| {
        let settings = ad(lines).unwrap().settings;
        let shown = settings.iter().map(|(name, setting)| match setting {
            Setting::Expression(text) => format!("{name} = {text}"),
            Setting::Text(text) | Setting::Path(text) => format!("{name} = \"{}\"", self::text(text)),
        });
        shown.collect::<Vec<_>>().join(", ")
    };
    assert_eq!(settings("PeriodicRelease=(JobStatus == 5)"), "PeriodicRelease = (JobStatus == 5)");
    assert_eq!(settings("onExitRemove = ExitCode == 0"), settings("on_exit_remove = ExitCode == 0"));
    assert_eq!(settings("KillSig = 2"), "KillSig = \"SIGINT\"");
    assert_eq!(settings("ImageSize = 4 GB\ndisk_usage = 1.5"), "DiskUsage = 2, ImageSize = 4194304");
    assert_eq!(settings("ConcurrencyLimits = a"), "");
    assert_eq!(
        ad("image_size = big").unwrap_err(),
        "E 2:14 `big` is no size, expected a size such as 512M, 2G or 1.5T"
    );
    // Of something like an attribute, the command is thought of.
    let odd = run(b"executable = x\nmaterialize_max_idle = 1\nperiodc_hold = a\nqueue").unwrap().warnings;
    let hints: Vec<_> = odd.iter().filter_map(|d| d.hint.clone()).collect();
    assert_eq!(
        hints,
        ["it has no effect; if it is meant to, look at vo-submit-file(5)", "did you mean `periodic_hold`?"]
    );
}

#[test]
fn a_dry_run_tells_what_would_be_refused() {
    let text = "executable = x\nx509userproxy = p\nstack_size = 1\ntransfer_output_remaps = \"a = s3://b/c\"\nqueue";
    let seen = |only_show| {
        let findings = match parse("a.sub", text.as_bytes(), &Context { only_show, ..CONTEXT }) {
            Ok(description) => description.warnings,
            Err(findings) => findings,
        };
        findings.iter().map(brief).collect::<Vec<_>>()
    };
    let proxy = "`transfer_input_files` can bring the file of a proxy, and `environment` name it in X509_USER_PROXY";
    let kinds = "nodes send outputs to file, ftp, http, https, osdf, pelican, stash";
    let stack = "W 3:1 `stack_size` has no effect yet";
    assert_eq!(
        seen(true),
        [
            format!("W 2:1 `x509userproxy` is not supported yet: submitted, this is refused; {proxy}"),
            stack.to_owned(),
            format!("W 4:31 outputs can't be sent to `s3` URLs: submitted, this is refused; {kinds}"),
        ]
    );
    assert_eq!(
        seen(false),
        [
            format!("E 2:1 `x509userproxy` is not supported yet; {proxy}"),
            stack.to_owned(),
            format!("E 4:31 outputs can't be sent to `s3` URLs; {kinds}"),
        ]
    );
}

#[test]
fn getenv_selects() {
    let check = |list: &str, name: &str, expected: bool| {
        let ad = ad(&format!("getenv = {list}"));
        assert_eq!(ad.map(|ad| ad.getenv.selects(name.as_bytes())), Ok(expected), "{list} {name}");
    };
    check("true", "HOME", true);
    check("0", "HOME", false);
    check("H* LANG", "HOME", true);
    check("H*, LANG", "LANG", true);
    check("H*", "AH", false);
    check("*M*E", "HOME", true);
    check("H*M", "HOME", false);
    check("H*,!HOME", "HOME", false);
    check("!HOME", "PATH", true);
    check("!HOME", "HOME", false);
}

/// Growth by doubling, deep nesting and long lines end in an error, soon.
#[test]
fn hostile_macros_are_bounded() {
    let doubling = |first: &str| {
        let chain: String = (1..60).map(|i| format!("x{i} = $(x{})$(x{})\n", i - 1, i - 1)).collect();
        ad(&format!("x0 = {first}\n{chain}arguments = $(x59)")).unwrap_err()
    };
    let long = doubling(&"a".repeat(100));
    assert!(long.contains("value expands to more than 1048576 bytes"), "{long}");
    assert!(doubling("").contains("expand to too much text"), "{}", doubling(""));
    let itself = format!("x = aa\n{}arguments = $(x)", "x = $(x)$(x)\n".repeat(40));
    assert!(ad(&itself).unwrap_err().contains("value is longer than 1048576 bytes"));
    let deep = format!("arguments = {}1{}", "$(a:".repeat(20_000), ")".repeat(20_000));
    assert!(ad(&deep).unwrap_err().contains("nested more than 64 deep"));
    let open = format!("arguments = {}", "$(a:".repeat(200_000));
    assert!(ad(&open).unwrap_err().contains("never closed"));
    let junk = "junk\n".repeat(100_000);
    assert_eq!(run(junk.as_bytes()).unwrap_err().len(), 100);
    assert!(ad(&"queue\n".repeat(100_001)).unwrap_err().contains("more than 100000 groups of different jobs"));
}

proptest! {
    #[test]
    fn any_bytes_have_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = run(&bytes);
    }

    #[test]
    fn anything_like_a_description_has_an_answer(
        lines in prop::collection::vec(
            "(executable|arguments|environment|x|y|\\+A|queue|if|#|request_memory|getenv)( ?= ?)?\
             (\\$\\(|x|y|:|\\)|Process\\)|\"|'|\\$ENV\\(|a| |;|=|9|,|\\\\)*\\\\?",
            0..12,
        ),
    ) {
        if let Err(found) = run(lines.join("\n").as_bytes()) {
            prop_assert!(found.iter().any(|d| d.severity == Severity::Error));
            for d in found {
                prop_assert!(d.line as usize <= lines.len().max(1) && d.column >= 1, "{d}");
            }
        }
    }

    /// Words quoted in the new syntax come back as they were, in both commands.
    #[test]
    fn quoted_words_come_back(args in prop::collection::vec("[a-z \"'$\\\\;=\t]{0,8}", 0..6)) {
        let quote = |word: &String| {
            let word = word.replace('\'', "''").replace('"', "\"\"").replace('$', "$(DOLLAR)");
            format!("'{word}'")
        };
        let quoted: Vec<_> = args.iter().map(quote).collect();
        let named: Vec<_> = quoted.iter().enumerate().map(|(i, q)| format!("V{i}={q}")).collect();
        let lines = format!("arguments = \"{}\"\nenvironment = \"{}\"", quoted.join(" "), named.join(" "));
        let ad = ad(&lines).unwrap();
        prop_assert_eq!(words(&ad.arguments), args.clone());
        prop_assert_eq!(ad.environment.iter().map(|(_, v)| text(v)).collect::<Vec<_>>(), args);
    }
}

#[test]
fn requests_are_asked_before_the_first_attempt_and_again() {
    let check = |text: &str, amounts: (u32, Option<u64>, Option<u32>), again: &[(&str, &str)]| {
        let ad = ad(text).unwrap();
        assert_eq!((ad.request_cpus, ad.request_memory_mb, ad.request_gpus), amounts, "{text}");
        let again: Vec<_> = again.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        assert_eq!(ad.requests, again, "{text}");
    };
    let more = "ifThenElse(MemoryUsage =!= undefined, MAX({MemoryUsage * 3/2, DefaultMemory}), DefaultMemory)";
    let memory = ("RequestMemory", more);
    check(&format!("+DefaultMemory = 1500\nrequest_memory = {more}"), (1, Some(1500), None), &[memory]);
    check(
        "request_cpus = 4\nrequest_memory = RequestCpus * 1000",
        (4, Some(4000), None),
        &[("RequestMemory", "RequestCpus * 1000")],
    );
    check("request_memory = 2 * 1024\nrequest_gpus = 1 + 1", (1, Some(2048), Some(2)), &[]);
    let cpus = "ifThenElse(NumJobStarts > 0, 8, 2)";
    check(
        &format!("request_cpus = {cpus}\nrequest_gpus = NumJobStarts + 1"),
        (2, None, Some(1)),
        &[("RequestCpus", cpus), ("RequestGPUs", "NumJobStarts + 1")],
    );
    let retry = |list: &str| [("RetryRequestMemory".to_owned(), list.to_owned())];
    let list = |text: &str| ad(&format!("request_memory = 1G\n{text}")).unwrap().requests;
    assert_eq!(list("retry_request_memory = 4GB"), retry("{4096}"));
    assert_eq!(
        list("retry_request_memory = 2 GB, max({RequestMemory, 3000}), 8000"),
        retry("{2048,max({RequestMemory, 3000}),8000}")
    );
    assert_eq!(
        list("retry_request_memory_increase = RequestMemory * 2\nretry_request_memory_max = 8GB"),
        retry("{min({RequestMemory * 2,8192})}")
    );
    assert_eq!(list("retry_request_memory_increase = RequestMemory + 500"), retry("{RequestMemory + 500}"));
    assert!(ad("request_memory = 1G\nretry_request_memory = lots of").is_err());
    assert_eq!(
        list("retry_request_disk = 2 GB, RequestDisk * 4, 512"),
        [("RetryRequestDisk".to_owned(), "{2097152,RequestDisk * 4,512}".to_owned())]
    );
    let of = ad("request_Fpgas = 1 + NumJobStarts\nrequest_Lasers = 2\nrequest_kind = \"big\"").unwrap();
    assert_eq!(of.counted, [("Fpgas".to_owned(), 1), ("Lasers".to_owned(), 2)]);
    assert_eq!(of.requests, [("RequestFpgas".to_owned(), "1 + NumJobStarts".to_owned())]);
    assert_eq!(
        of.demands().unwrap(),
        "(TARGET.Fpgas >= RequestFpgas) && regexp(Requestkind, TARGET.kind) && (TARGET.Lasers >= RequestLasers)"
    );
    let flag = ad("request_sudo = true").unwrap();
    assert_eq!((flag.demands(), flag.counted), (None, Vec::new()));
}

#[test]
fn a_table_names_its_columns() {
    let words = |queue: &str| {
        let text = format!("executable = x\narguments = $(b) $(a:none)\n{queue}\n");
        let described = run(text.as_bytes()).map_err(|found| brief(&found[0]))?;
        let each = |group: &Group| -> Vec<String> {
            let rows = group.members.iter().map(|proc| group.members.row(proc));
            let fill = |row| Template::fill_list(&group.ad.arguments, &row);
            let expand = |word: &Template| word.expand(vo_core::JobId { cluster: 1, proc: 0 });
            rows.map(|row| String::from_utf8(fill(row).iter().map(expand).collect::<Vec<_>>().join(&b' ')).unwrap())
                .collect()
        };
        Ok::<_, String>(described.groups.iter().flat_map(each).collect::<Vec<_>>())
    };
    let all = words("queue from table (\n a , b\n 1 x, 2\n\n3,4,5\n)").unwrap();
    assert_eq!(all, ["2 1 x", "4,5 3"]);
    assert_eq!(words("queue z from table [1:] (\nb\n1 2\n3\n)").unwrap(), ["3 none"]);
    let wrong = words("queue from table (\na b\n1 2\n)").unwrap_err();
    assert_eq!(wrong, "E 3:7 `a b` can't name a column, expected a table's first line: names, parted by commas");
}

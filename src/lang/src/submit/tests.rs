use super::*;
use crate::Severity;
use proptest::prelude::*;

fn run(text: &[u8]) -> Result<Description, Vec<Diagnostic>> {
    let env = |name: &str| (name == "HOME").then(|| b"/home/ada".to_vec());
    parse("a.sub", text, &Context { env: &env, overrides: &[] })
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
    String::from_utf8_lossy(&template.expand(7, 3)).into_owned()
}

fn words(templates: &[Template]) -> Vec<String> {
    templates.iter().map(text).collect()
}

/// Expected values: condor_submit 24.12.
#[test]
fn macros_expand_as_in_htcondor() {
    let check = |lines: &str, expected: &str| {
        let seen = ad(lines).map(|ad| words(&ad.arguments).join(" "));
        assert_eq!(seen.as_deref(), Ok(expected), "{lines}");
    };
    check("x = a $(y)\ny = b\narguments = $(x) $(nope) $(z:def) $(z:) $(X:other)", "a b def a b");
    check("x = 1\nx = $(x) 2\narguments = $(x)", "1 2");
    check("x = $(x) b\narguments = $(x)", "b");
    check("x = $(x:0) b\narguments = $(x)", "0 b");
    check("x = $(X)$(x)z\narguments = $(x)", "z");
    check("arguments = $(Cluster).$(Process).$(ClusterId).$(ProcId).$(PROCID)", "7.3.7.3.3");
    check("arguments = $(Step) $(Row) $(ItemIndex)", "3 0 0");
    check("process = 5\narguments = $(Process)", "5");
    check("arguments = $(DOLLAR)x $$ $5 $(a b) $( x) $x ${x} $env(HOME)", "$x $$ $5 $(a b) $( x) $x ${x} $env(HOME)");
    check(
        "arguments = $ENV(HOME) $ENV(NOPE) $ENV(NOPE:xx) $ENV(NOPE:$(executable))",
        "/home/ada UNDEFINED xx /bin/echo",
    );
    check("y = 1\narguments = $(x:$(y)) $(x:a b) $(x:a)b) $(x:$(w:z)) $(x:$ENV(HOME))", "1 a b ab) z /home/ada");
    check("arguments = $(arguments)x", "x");
    check("+Foo = 3\narguments = $(MY.foo) $(my.FOO)", "3 3");
    check("arguments = $(executable) $(IsLinux) $(submit_file)", "/bin/echo 1 a.sub");
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
    assert_eq!(words(&ad.arguments), ["a", "b c", "3"]);
    let environment: Vec<_> = ad.environment.iter().map(|(n, v)| format!("{n}={}", text(v))).collect();
    assert_eq!(environment, ["A=2", "B=x y"]);
    assert_eq!(ad.getenv, GetEnv::Matching(vec!["PATH".into(), "HO*".into()]));
    let paths = [&ad.initialdir, &ad.input, &ad.output, &ad.error, &ad.log, &ad.batch_name];
    let paths: Vec<_> = paths.into_iter().flatten().map(text).collect();
    assert_eq!(paths, ["run3", "in put", "o.7.3", "e", "l", "a b"]);
    assert_eq!((ad.request_cpus, ad.request_memory_mb, ad.request_disk_kb), (4, Some(1536), Some(1024)));
    assert_eq!((ad.transfer, ad.transfer_executable), (ShouldTransfer::Yes, false));
    assert_eq!(words(&ad.transfer_input), ["a", "b", "c d", "dir/"]);
    assert_eq!(ad.transfer_output.map(|t| words(&t)), Some(vec!["x".into(), "y".into()]));
    let attributes: Vec<_> = ad.attributes.iter().map(|(n, v)| format!("{n}={}", text(v))).collect();
    assert_eq!(attributes, ["Other=3 + 1", "WantIt=true"]);
}

#[test]
fn defaults_are_htcondors() {
    let ad = ad("output =\ntransfer_output_files =\nrequest_memory = undefined").unwrap();
    let expected = JobAd {
        universe: Universe::Vanilla,
        executable: Template::literal("/bin/echo"),
        arguments: vec![],
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
        transfer: ShouldTransfer::IfNeeded,
        transfer_executable: true,
        transfer_input: vec![],
        transfer_output: None,
        batch_name: None,
        attributes: vec![],
    };
    assert_eq!(ad, expected);
    assert_eq!(self::ad("transfer_output_files = \"\"").unwrap().transfer_output, Some(vec![]));
}

#[test]
fn queue_statements_make_groups() {
    let check = |text: &str, expected: Result<&[(u32, &str)], &str>| {
        let text = format!("executable = x\narguments = $(v:)$(Step)\n{text}");
        let seen = run(text.as_bytes());
        match (&seen, expected) {
            (Ok(d), Ok(expected)) => {
                let seen: Vec<_> = d.groups.iter().map(|g| (g.count, words(&g.ad.arguments).join(" "))).collect();
                let seen: Vec<_> = seen.iter().map(|(n, a)| (*n, a.as_str())).collect();
                assert_eq!(seen, expected, "{text}");
            }
            (Err(found), Err(expected)) => {
                assert_eq!(found.iter().map(brief).collect::<Vec<_>>().join("\n"), expected, "{text}");
            }
            _ => panic!("{text}: {seen:?}"),
        }
    };
    check("queue", Ok(&[(1, "3")]));
    check("Queue 5\nQUEUE\t$(n:2)", Ok(&[(5, "3"), (2, "0")]));
    check("v = a\nqueue 2\nv = b\nqueue 2", Ok(&[(2, "a3"), (2, "b1")]));
    check("queue 0\nqueue 10000000", Ok(&[(10_000_000, "3")]));
    check("queue +3", Ok(&[(3, "3")]));
    let bad = |line: &str, expected: &str| {
        let text = format!("executable = x\n{line}");
        let seen = run(text.as_bytes()).map_err(|found| found.iter().map(brief).collect::<Vec<_>>().join("\n"));
        assert_eq!(seen, Err(expected.to_owned()), "{text}");
    };
    bad("queue -1", "E 2:7 the number of jobs is negative, expected a number of jobs");
    bad("queue abc", "E 2:7 `abc` is no number, expected a number of jobs");
    bad("queue 2+1", "E 2:7 `2+1` is no number (expressions are not supported yet), expected a number of jobs");
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
    bad("queue 2 in (a b)", "E 2:7 `queue … in …` is not supported yet");
    bad("queue x from (\n1\n2\n)\n", "E 2:7 `queue … from …` is not supported yet");
    bad("queue f matching *.dat", "E 2:7 `queue … matching …` is not supported yet");
    bad(
        "queu 3",
        concat!(
            "E 2:6 `queu` is followed by something else, expected `=`; did you mean `queue`?\n",
            "E 2:7 description submits nothing, expected a `queue` statement; ",
            "`queue` alone submits one job, `queue 100` a hundred"
        ),
    );
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
        expected a size such as 512M, 2G or 1.5T (expressions are not supported yet)",
    );
    check(
        "request_cpus = 0",
        "E 2:16 `0` is no number of processors, \
        expected a whole number from 1 on (expressions are not supported yet)",
    );
    check("request_cpus = $(Process)", "E 2:16 a `request_cpus` that differs from job to job is not supported yet");
    check(
        "request_memroy = 3",
        "E 2:1 `request_memroy` asks for a resource of its own, \
        which is not supported yet; did you mean `request_memory`?",
    );
    check("universe = docker", "E 2:12 universe `docker` is not supported yet, expected `vanilla` or `local`");
    check("universe = moon", "E 2:12 there is no universe `moon`, expected `vanilla` or `local`");
    check("transfer_executable = no", "E 2:23 `no` is neither true nor false, expected `true` or `false`");
    check(
        "should_transfer_files = NO\nwhen_to_transfer_output = ON_EXIT",
        "E 3:27 `should_transfer_files = no` leaves no output to transfer, expected one of the two alone",
    );
    check(
        "transfer_input_files = a, osdf:///x",
        "E 2:27 transfer from and to URLs is not supported yet, expected a path",
    );
    check(
        "a = $(b)\nb = $(c)\nc = $(b)\narguments = $(a)",
        "E 5:13 macros refer to each other in a ring: `b` → `c` → `b`",
    );
    check("arguments = x $(y", "E 2:15 macro reference is never closed, expected a `)`");
    check("arguments = $(y:$(z)", "E 2:13 macro reference is never closed, expected a `)`");
    check(
        "arguments = $$(Memory)",
        "E 2:13 `$$(…)`, filled in from the machine that runs the job, is not supported yet",
    );
    check("arguments = $INT(Process,%03d)", "E 2:13 the macro function `$INT()` is not supported yet");
    check("output = $Fn(executable)", "E 2:10 the macro function `$Fn()` is not supported yet");
    check("if true\noutput = x\nendif", "E 2:1 `if` is not supported yet\nE 4:1 `endif` is not supported yet");
    check("include : x", "E 2:1 `include` is not supported yet");
    check("arguments @=end\nqueue\nx y\n@end", "E 2:1 values of several lines (`@=`) are not supported yet");
    check("output = a\0b", "E 2:11 a NUL byte can't be part of a description");
    let refused = "it would change what the jobs do, so it isn't just ignored";
    for command in [
        "requirements = Memory > 1",
        "on_exit_hold = ExitCode != 0",
        "max_retries = 3",
        "retry_until = 0",
        "periodic_remove = true",
        "deferral_time = 5",
        "container_image = x.sif",
        "docker_image = debian",
        "request_gpus = 1",
        "transfer_output_remaps = \"a=b\"",
        "hold = true",
    ] {
        let name = command.split(' ').next().unwrap_or_default();
        check(command, &format!("E 2:1 `{name}` is not supported yet; {refused}"));
    }
    // Everything at once, in the order of the text.
    check(
        "request_cpus = x\nfoo bar\nerror = $(y\nuniverse = vm",
        "E 2:16 `x` is no number of processors, expected a whole number from 1 on (expressions are not supported yet)\n\
        E 3:5 `foo` is followed by something else, expected `=`\n\
        E 4:9 macro reference is never closed, expected a `)`\n\
        E 5:12 universe `vm` is not supported yet, expected `vanilla` or `local`",
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
    check("n = 3\narguments = $(n)\n+Mine = 1\ndescription = d", &[]);
    check("rank = Memory", &["W 2:1 `rank` has no effect yet"]);
    check("argumnets = 5", &["W 2:1 `argumnets` is no command, and no value refers to it; did you mean `arguments`?"]);
    check(
        "zzz = 5",
        &["W 2:1 `zzz` is no command, and no value refers to it; \
        it has no effect; if it is meant to, look at vo-submit-file(5)"],
    );
    check("output = a\nOUTPUT = b", &["W 3:1 `output` is set again: this value replaces that of line 2"]);
    check("output = a\nqueue\noutput = b", &[]);
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
    assert_eq!(ad.executable.as_constant(), Some(b"/bin/\xff".as_slice()));
    assert_eq!(ad.arguments.iter().map(|a| a.expand(1, 1)).collect::<Vec<_>>(), [b"a\xfe".to_vec(), b"1".to_vec()]);
    assert_eq!((d.groups[0].count, d.warnings), (2, vec![]));
}

#[test]
fn overrides_win() {
    let set = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
    let overrides = [set("N", "9"), set("output", "a\\"), set("x", "1\nqueue")];
    let context = Context { env: &|_| None, overrides: &overrides };
    let text = b"executable = x\nn = 1\noutput = z\narguments = $(n) $(x)\nqueue $(N)\n";
    let d = parse("f", text, &context).unwrap();
    assert_eq!((d.jobs(), words(&d.groups[0].ad.arguments)), (9, vec!["9".into(), "1".into(), "queue".into()]));
    assert_eq!(d.groups[0].ad.output, Some(Template::literal("a\\")));
    let overrides = [set("request_cpus", "x")];
    let found = parse("f", b"executable = x\nqueue\n", &Context { env: &|_| None, overrides: &overrides }).unwrap_err();
    assert_eq!(found[0].to_string().lines().nth(1), Some("  1 | request_cpus = x"));
    assert_eq!((found[0].file.as_str(), found[0].column), ("command line", 16));
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
    assert!(ad(&"queue\n".repeat(100_001)).unwrap_err().contains("more than 100000 `queue` statements"));
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

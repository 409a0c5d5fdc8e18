//! Submit descriptions: what is refused, with which words, and that nothing of it is submitted.

use vo_tests::{Home, seconds, wait_until};

/// A session called `t` that stays, for several commands.
fn session() -> Home {
    let home = Home::new();
    home.vo(["-s", "t", "--keep", "-c", "true"]).ok();
    home
}

fn end(home: &Home) {
    home.end("t");
    home.assert_nothing_left();
}

#[test]
fn bad_descriptions_are_refused_whole() {
    let home = session();
    let refused = |text: &str, words: &[&str]| {
        home.write("bad.sub", text);
        home.vo(["-s", "t", "-c", "submit bad.sub"]).code(6).says(words.iter().copied());
    };
    refused("executable = /bin/true\narguments = \"a b\nqueue\n", &["bad.sub:2:13", "expected"]);
    refused("executable = /bin/true\nqueue x\n", &["bad.sub:2:7"]);
    refused("executable /bin/true\nqueue\n", &["bad.sub:1:"]);
    refused("queue\n", &["bad.sub:", "expected `executable = PATH`"]);
    refused("executable = /bin/true\n", &["bad.sub", "queue"]);
    refused("executable = /bin/true\nrequest_cpus = many\nqueue\n", &["bad.sub:2:16", "many"]);
    refused("executable = absent\nqueue\n", &["absent", "No such file"]);
    home.write("plain", "#!/bin/sh\n");
    refused("executable = plain\nshould_transfer_files = NO\nqueue\n", &["plain is not executable", "chmod +x"]);
    refused("executable = /bin/cat\ninput = absent\nqueue\n", &["absent"]);
    refused("executable = /bin/true\noutput = absent/out\nqueue\n", &["absent/out"]);
    let numbered = "executable = /bin/true\noutput = absent/out.$(Cluster).$(Process)\nqueue 2\n";
    refused(numbered, &["absent isn't there", "make the directory first"]);
    // The second statement is bad: the first one's jobs are not submitted either.
    refused("executable = /bin/true\nqueue 5\nexecutable = absent\nqueue\n", &["absent"]);
    home.vo(["-s", "t", "-c", "submit absent.sub"]).code(6).says(["absent.sub"]);

    let all = home.vo(["-s", "t", "-c", "q --all --json"]).ok();
    assert_eq!(all.json(), serde_json::json!([]), "nothing was submitted");
    end(&home);
}

#[test]
fn an_output_that_finds_its_directory_gone_is_named_as_the_user_named_it() {
    let home = session();
    std::fs::create_dir(home.work("out")).unwrap();
    let text = "executable = /bin/rmdir\narguments = {}\noutput = out/o.$(Cluster)\n\
        transfer_executable = false\nshould_transfer_files = YES\nqueue\n";
    home.write("a.sub", text.replace("{}", &home.work("out").display().to_string()));
    home.vo(["-s", "t", "-c", "submit a.sub; wait"]).code(7);
    let held = home.vo(["-s", "t", "-c", "q -hold"]).ok().stdout;
    assert!(held.contains("/out/o.1: No such file or directory"), "{held}");
    end(&home);
}

#[test]
fn an_unknown_key_is_named_in_a_warning() {
    let home = session();
    home.write("a.sub", "executable = /bin/true\noutptu = x\nqueue\n");
    let run = home.vo(["-s", "t", "-c", "submit a.sub; wait"]).ok().says(["a.sub:2:1: warning", "outptu", "output"]);
    assert_eq!(run.stdout, "1 job(s) submitted to cluster 1.\n");
    end(&home);
}

#[test]
fn a_description_may_come_by_standard_input() {
    let home = session();
    let run = home.sh("printf 'executable = /bin/true\\nqueue 3\\n' | vo-login -s t -c 'submit -'").ok();
    assert_eq!(run.stdout, "3 job(s) submitted to cluster 1.\n");
    home.vo(["-s", "t", "-c", "wait"]).ok().says(["3 of 3 job(s) succeeded"]);
    end(&home);
}

#[test]
fn a_session_that_is_not_there_is_named() {
    let home = Home::new();
    let run = home.sh("vo-login -s nowhere --help >/dev/null && VO_SESSION=nowhere vo-login -l");
    assert_eq!((run.code, run.stdout.contains("nowhere")), (0, false), "{run:?}");
}

#[test]
fn items_reach_the_jobs() {
    let home = session();
    home.sh("mkdir in").ok();
    home.write("in/a.txt", "alpha\n");
    home.write("in/b c.txt", "beta\n");
    home.write("items", "10 in/a.txt\n20 in/b c.txt\n");
    let show = "#!/bin/sh\necho \"$1 $NAME:$WORDS:$#:$(cat):$(ls | grep -c txt)\"\n";
    home.script("show.sh", show);
    // In their own directory, and in a scratch directory with their files.
    for (transfer, name, beside, cluster) in [("no", "here", 0, "wait 1"), ("yes", "there", 1, "wait 2")] {
        let inputs = if beside > 0 { "transfer_input_files = $(file)\n" } else { "" };
        let text = format!(
            "executable = show.sh\narguments = $(Process) $(file)\nenvironment = \"NAME='$Fn(file)' WORDS='$(Row) $(mem)'\"\n\
             input = $(file)\noutput = {name}.$(mem)\nlog = {name}.$(mem).log\nrequest_memory = $(mem)\n\
             should_transfer_files = {transfer}\n{inputs}queue mem, file from items\n"
        );
        home.write("items.sub", text);
        home.vo(["-s", "t", "-c", "submit items.sub"]).ok();
        home.vo(["-s", "t", "-c", cluster]).ok().says(["2 of 2 job(s) succeeded"]);
        assert_eq!(home.read(format!("{name}.10")), format!("0 a:0 10:2:alpha:{beside}\n"));
        assert_eq!(home.read(format!("{name}.20")), format!("1 b c:1 20:3:beta:{beside}\n"));
        for memory in ["10", "20"] {
            let log = || home.read(format!("{name}.{memory}.log"));
            let ended = || log().contains("Normal termination (return value 0)").then_some(());
            wait_until("the end in the event log", seconds(10), ended);
        }
    }
    let rows = home.vo(["-s", "t", "-c", "q --all --json"]).ok().json();
    let rows = rows.as_array().map(Vec::as_slice).unwrap_or_default();
    let commands: Vec<&str> = rows.iter().filter_map(|row| row["command"].as_str()).collect();
    assert!(
        commands[0].ends_with("show.sh 0 in/a.txt") && commands[1].ends_with("show.sh 1 in/b c.txt"),
        "{commands:?}"
    );
    end(&home);
}

#[test]
fn items_come_from_lists_commands_and_patterns() {
    let home = session();
    for name in ["x.dat", "y.dat"] {
        home.write(name, name);
    }
    home.write("common.inc", "executable = /bin/echo\noutput = out.$(Process)\n");
    home.write(
        "all.sub",
        "include : common.inc\nif defined ENVIRONMENT\nerror : no\nendif\narguments = $(v) $(Step)$(Row)\n\
         queue 2 v in (p q)\nqueue v from printf '1 one\\n2 two\\n' |\nqueue v matching files *.dat\nqueue v from (\nlast\n)\n",
    );
    home.vo(["-s", "t", "-c", "submit all.sub; wait"]).ok().says(["9 of 9 job(s) succeeded"]);
    let said: Vec<String> = (0..9).map(|proc| home.read(format!("out.{proc}")).trim().to_owned()).collect();
    assert_eq!(said, ["p 00", "p 10", "q 01", "q 11", "1 one 00", "2 two 01", "x.dat 00", "y.dat 01", "last 00"]);
    end(&home);
}

#[test]
fn a_command_line_is_description_enough() {
    let home = session();
    home.sh("mkdir data").ok();
    for name in ["a", "b"] {
        home.write(format!("data/{name}.fits"), name);
    }
    home.script("analyse", "#!/bin/sh\necho \"$1 $2 $(cat \"$2\")\"\n");
    let run =
        home.vo(["-s", "t", "-c", "submit --cpus 1 --memory 10M --for 'data/*.fits' ./analyse \"it's\" {}; wait"]);
    assert_eq!(run.ok().says(["2 of 2 job(s) succeeded"]).stdout, "2 job(s) submitted to cluster 1.\n");
    assert_eq!(home.read("analyse.1.0.out"), "it's data/a.fits a\n");
    assert_eq!(home.read("analyse.1.1.out"), "it's data/b.fits b\n");
    home.vo(["-s", "t", "-c", "submit should_transfer_files=yes --for 'data/*.fits' ./analyse x {}"]).code(6);
    home.vo(["-s", "t", "-c", "submit -a should_transfer_files=yes --for 'data/*.fits' ./analyse x {}; wait"]).ok();
    assert_eq!(home.read("analyse.2.1.out"), "x data/b.fits b\n");
    home.vo(["-s", "t", "-c", "submit --jobs 3 sh -- -c 'echo {}'; wait 3"]).ok().says(["3 of 3 job(s) succeeded"]);
    assert_eq!(home.read("sh.3.2.out"), "2\n");
    home.vo(["-s", "t", "-c", "submit --for 'none*' ./analyse {}"]).code(6).says(["none* matches no file"]);
    end(&home);
}

#[test]
fn a_dry_run_shows_the_job_ads() {
    let home = session();
    let text = "executable = /bin/echo\narguments = $(x)\nperiodic_remove = NumJobStarts > 3\nqueue x in (p q)\n";
    home.write("a.sub", text);
    let run = home.vo(["-s", "t", "-c", "submit --dry-run a.sub"]).ok();
    for line in
        ["Args = \"p\"", "Args = \"q\"", "ProcId = 1", "PeriodicRemove = NumJobStarts > 3", "Cmd = \"/bin/echo\""]
    {
        assert!(run.stdout.lines().any(|shown| shown == line), "{line}: {}", run.stdout);
    }
    home.vo(["-s", "t", "-c", "submit --dry-run=ads a.sub"]).ok();
    assert!(home.read("ads").contains("ProcId = 0\n"));
    let all = home.vo(["-s", "t", "-c", "q --all --json"]).ok();
    assert_eq!(all.json(), serde_json::json!([]), "nothing was submitted");
    end(&home);
}

#[test]
fn outputs_go_where_they_are_sent() {
    let home = session();
    home.sh("mkdir -p results deep/er").ok();
    home.write("deep/er/in.txt", "in\n");
    home.script("make", "#!/bin/sh\nmkdir d; echo one > out.txt; echo two > d/two.txt; cat $1 > kept; exit $2\n");
    home.write(
        "a.sub",
        "executable = make\narguments = in.txt 0\ntransfer_input_files = deep/er/in.txt\ntransfer_output_files = out.txt, d/two.txt, kept\n\
         transfer_output_remaps = \"out.txt = results/o.$(Process); kept=results/k\"\nqueue\n",
    );
    home.vo(["-s", "t", "-c", "submit a.sub; wait"]).ok().says(["1 of 1 job(s) succeeded"]);
    assert_eq!(
        (home.read("results/o.0"), home.read("two.txt"), home.read("results/k")),
        ("one\n".into(), "two\n".into(), "in\n".into())
    );
    home.write(
        "b.sub",
        "executable = make\narguments = deep/er/in.txt 1\ntransfer_input_files = deep/er/in.txt\npreserve_relative_paths = true\n\
         transfer_output_files = d/two.txt\nwhen_to_transfer_output = $(w)\nshould_transfer_files = yes\nqueue w from (\nON_SUCCESS\nON_EXIT\n)\n",
    );
    home.vo(["-s", "t", "-c", "submit b.sub; wait 2"]).says(["0 of 2 job(s) succeeded"]);
    assert!(home.work("d/two.txt").exists());
    home.sh("rm -r d").ok();
    home.vo(["-s", "t", "-c", "submit b.sub -a when_to_transfer_output=ON_SUCCESS; wait 3"])
        .says(["0 of 2 job(s) succeeded"]);
    assert!(!home.work("d").exists());
    end(&home);
}

#[test]
fn a_job_may_run_in_a_container() {
    let mut home = Home::new();
    home.sh("mkdir bin").ok();
    // Stands in for the real one, which needs an image and rights that not every host gives.
    home.script("bin/apptainer", "#!/bin/sh\necho \"$1 $2\"\nwhile [ \"$1\" != --pwd ]; do shift; done\ncd \"$2\" && echo \"in ${3##*/}\"; shift 3; exec \"$@\"\n");
    let path = format!("{}:{}", home.work("bin").display(), std::env::var("PATH").unwrap_or_default());
    home.set("PATH", path);
    home.vo(["-s", "t", "--keep", "-c", "true"]).ok();
    home.write("box.sif", "an image");
    home.write(
        "a.sub",
        "executable = /bin/echo\ntransfer_executable = false\narguments = hello $(Process)\ncontainer_image = $(i)\noutput = out.$(Process)\n\
         should_transfer_files = $(t)\nqueue i, t from (\ndocker://debian:12 yes\nbox.sif yes\nbox.sif no\n)\n",
    );
    home.vo(["-s", "t", "-c", "submit a.sub; wait"]).ok().says(["3 of 3 job(s) succeeded"]);
    assert_eq!(home.read("out.0"), "exec --no-home\nin debian:12\nhello 0\n");
    assert_eq!(home.read("out.1"), "exec --no-home\nin box.sif\nhello 1\n");
    assert_eq!(home.read("out.2"), "exec --no-home\nin box.sif\nhello 2\n");
    assert_eq!(home.vo(["-s", "t", "-c", "status -af HasContainer HasSIF"]).ok().stdout, "true true\n");
    end(&home);
}

#[test]
fn a_job_waits_for_a_node_that_runs_containers_and_blames_none() {
    let home = session();
    home.write("box.sif", "an image");
    home.write("a.sub", "executable = /bin/true\ntransfer_executable = false\ncontainer_image = $(i)\nqueue i in (docker://debian:12, box.sif)\n");
    home.write("b.sub", "executable = /bin/true\nqueue 5\n");
    home.vo(["-s", "t", "-c", "submit a.sub b.sub; wait --timeout 30s 2"]).ok().says(["5 of 5 job(s) succeeded"]);
    let rows = home.vo(["-s", "t", "-c", "q --json 1"]).ok().json();
    assert_eq!((&rows[0]["state"], &rows[1]["state"]), (&"idle".into(), &"idle".into()), "{rows}");
    let why = home.vo(["-s", "t", "-c", "why 1.0"]).ok().stdout;
    assert!(why.contains("refused by its requirements: TARGET.HasDockerURL"), "{why}");
    let slots = "status -af HasContainer HasSIF";
    assert_eq!(home.vo(["-s", "t", "-c", slots]).ok().stdout, "undefined undefined\n");
    home.vo(["-s", "t", "-c", "rm 1"]).ok();
    end(&home);
}

#[test]
fn inputs_may_come_from_urls() {
    let home = session();
    home.write("there.txt", "from afar\n");
    let url = format!("file://{}", home.work("there.txt").display());
    home.write(
        "a.sub",
        format!(
            "executable = /bin/cat\ntransfer_executable = false\narguments = there.txt\noutput = out\ntransfer_input_files = {url}\nqueue\n"
        ),
    );
    home.vo(["-s", "t", "-c", "submit a.sub; wait"]).ok().says(["1 of 1 job(s) succeeded"]);
    assert_eq!(home.read("out"), "from afar\n");
    // What can't be fetched is the site's fault, and tried again.
    home.vo(["-s", "t", "-c", "submit a.sub 'transfer_input_files = gopher://x/there.txt'"]).ok();
    wait_until("it was tried", seconds(30), || {
        let why = home.vo(["-s", "t", "-c", "why 2.0"]).stdout;
        why.contains("gopher://x/there.txt can not be fetched: nothing here fetches such a URL").then_some(())
    });
    home.vo(["-s", "t", "-c", "rm 2"]).ok();
    end(&home);
}

#[test]
fn machines_fill_in_what_a_description_asks_of_them() {
    let home = Home::new();
    home.write("vo.conf", "[[site]]\ngateway = \"local\"\nattributes = { Project = \"OSCAR\", Scale = 3 }\n");
    home.script("run.LINUX", "#!/bin/sh\necho \"$@\" \"$SCALED\"\n");
    let text = "executable = run.$$(OpSys)\narguments = $$(Project) $(Process) $$(Nope:none) $$([TARGET.Scale * 2])\n\
                environment = \"SCALED='$$(scale) times'\"\noutput = out.$(Process)\nqueue 2\n";
    home.write("asks.sub", text);
    home.write("lacks.sub", "executable = /bin/echo\narguments = $$(Nope)\nqueue\n");
    home.vo(["-H", "vo.conf", "-s", "t", "--keep", "-c", "submit asks.sub; wait --timeout 30s"]).ok();
    assert_eq!(home.read("out.0"), "OSCAR 0 none 6 3 times\n");
    assert_eq!(home.read("out.1"), "OSCAR 1 none 6 3 times\n");
    home.vo(["-s", "t", "-c", "submit lacks.sub"]).ok();
    let job = || home.vo(["-s", "t", "-c", "q 2 --json"]).ok().json()[0].clone();
    let held = wait_until("a hold", seconds(30), || Some(job()).filter(|job| job["state"] == "held"));
    assert_eq!(held["reason"], "$$(Nope) has no value on the machine that was to run it");
    end(&home);
}

#[test]
fn universes_local_and_scheduler_run_on_the_workstation() {
    let home = Home::new();
    home.write("vo.conf", "[[site]]\ngateway = \"local\"\nname = \"desk\"\n");
    std::fs::create_dir(home.work("dir")).unwrap();
    home.write("dir/in", "here");
    let text = "executable = /bin/sh\narguments = \"-c 'cat in; pwd -P; echo left > made'\"\ninitialdir = dir\noutput = out\nqueue\n";
    for universe in ["local", "scheduler"] {
        home.write("here.sub", format!("universe = {universe}\nrequirements = Cpus > 0\n{text}"));
        home.vo(["-H", "vo.conf", "-s", "t", "--keep", "-c", "submit here.sub; wait --timeout 30s"]).ok();
        let dir = home.work("dir").canonicalize().unwrap();
        assert_eq!(home.read("dir/out"), format!("here{}\n", dir.display()));
        assert_eq!(home.read("dir/made"), "left\n");
        std::fs::remove_file(dir.join("made")).unwrap();
        std::fs::remove_file(dir.join("out")).unwrap();
    }
    let universes = home.vo(["-s", "t", "-c", "history -af JobUniverse"]).ok().stdout;
    assert_eq!(universes, "7\n12\n");
    end(&home);
}

/// What NVIDIA's tool says where there are GPUs: there are none on most machines that run tests.
const NVIDIA_SMI: &str = "#!/bin/sh
case $* in
--query-gpu=*) echo '40960, 8.0, NVIDIA A100-SXM4-40GB' ;;
*) printf 'Driver Version : 535.104.05\\nCUDA Version : 12.2\\n' ;;
esac
";

#[test]
fn gpus_are_of_the_kind_that_is_asked_for_and_each_is_one_jobs_own() {
    let mut home = Home::new();
    let tools = home.work("tools");
    std::fs::create_dir(&tools).unwrap();
    home.script("tools/nvidia-smi", NVIDIA_SMI);
    let path = std::env::var("PATH").unwrap_or_default();
    home.set("PATH", format!("{}:{path}", tools.display()));
    home.set("CUDA_VISIBLE_DEVICES", "3,5");
    home.write("vo.conf", "[[site]]\ngateway = \"local\"\nproxies = \"1:4\"\n");
    // A job with a GPU ends once another one has started, so that both have theirs at once.
    home.script(
        "see",
        "#!/bin/sh\necho $CUDA_VISIBLE_DEVICES > gpu.$1\nuntil [ -e gpu.0 ] && [ -e gpu.1 ]; do sleep 0.05; done\n",
    );
    let text = "executable = see\nrequest_gpus = 1\ngpus_minimum_capability = 7.5\ngpus_minimum_memory = 32G\n\
                require_gpus = DriverVersion >= 12\nqueue arguments in (0 1)\n";
    home.write("gpu.sub", text);
    home.write("none.sub", "shell = echo \"[$CUDA_VISIBLE_DEVICES]\" > none\nqueue\n");
    home.write("all.sub", "executable = see\narguments = all\nrequest_gpus = 2\nqueue\n");
    home.write("newer.sub", "executable = see\nrequest_gpus = 1\ngpus_minimum_capability = 9.0\nqueue\n");
    let jobs = "submit gpu.sub; submit none.sub; submit all.sub; wait --timeout 60s; submit newer.sub";
    home.vo(["-H", "vo.conf", "-s", "t", "--keep", "-c", jobs]).ok();
    let mut seen = [home.read("gpu.0"), home.read("gpu.1")];
    seen.sort_unstable();
    assert_eq!(seen, ["3\n", "5\n"]);
    assert_eq!((home.read("none"), home.read("gpu.all")), ("[]\n".to_owned(), "3,5\n".to_owned()));
    let why = home.vo(["-s", "t", "-c", "why 4.0"]).ok().stdout;
    assert!(why.contains("countMatches(MY.RequireGPUs,TARGET.AvailableGPUs) >= RequestGPUs"), "{why}");
    let told = home.vo(["-s", "t", "-c", "status -af GPUs CUDADeviceName GPUs_GlobalMemoryMb"]).ok().stdout;
    assert_eq!(told, "2 NVIDIA A100-SXM4-40GB 40960\n");
    end(&home);
}

#[test]
fn a_program_that_nobody_made_executable_runs_where_it_travels() {
    let home = Home::new();
    home.write("plain.sh", "#!/bin/sh\necho from $PWD\n");
    home.write("t.sub", "executable = plain.sh\noutput = out.$(Process)\nlog = t.log\nqueue 2\n");
    // The log is there as soon as the jobs are submitted.
    let run = home.vo(["-c", "submit t.sub; cat *.log > seen; wait; history -af ExitCode"]).ok();
    assert_eq!(run.stdout, "2 job(s) submitted to cluster 1.\n0\n0\n");
    assert!(home.read("seen").starts_with("000 (001.000.000)"));
    assert!(home.read("out.1").starts_with("from /"));
    home.assert_nothing_left();
}

#[test]
fn what_is_queued_may_be_said_on_the_command_line() {
    let home = Home::new();
    home.write("t.sub", "executable = /bin/echo\narguments = $(x)\noutput = out.$(Process)\nlog = t.log\n");
    home.write("whole.sub", "executable = /bin/true\nqueue\n");
    home.vo(["-s", "t", "--keep", "-c", "condor_submit t.sub -queue x in '(a, b)'; wait"]).ok().says(["2 of 2"]);
    assert_eq!((home.read("out.0"), home.read("out.1")), ("a\n".into(), "b\n".into()));
    home.vo(["-s", "t", "-c", "condor_submit t.sub -queue 3; wait"]).ok().says(["5 of 5"]);
    home.vo(["-s", "t", "-c", "condor_submit whole.sub -queue 3"]).code(2).says(["whole.sub has a `queue` statement"]);
    end(&home);
}

#[test]
fn what_travels_has_its_limits() {
    let home = Home::new();
    home.vo(["-s", "t", "--keep", "-c", "true"]).ok();
    home.sh("head -c 1500000 /dev/zero > big").ok();
    let submit = |name: &str, lines: &str| {
        home.write(name, format!("should_transfer_files = yes\n{lines}\nqueue\n"));
        home.vo(["-s", "t", "-c", &format!("submit {name}")]).ok();
    };
    submit(
        "in.sub",
        "executable = /bin/true\ntransfer_executable = false\ntransfer_input_files = big\nmax_transfer_input_mb = 1",
    );
    let make =
        "executable = /bin/sh\ntransfer_executable = false\narguments = \"-c 'head -c 1500000 /dev/zero > made'\"";
    submit("out.sub", &format!("{make}\nmax_transfer_output_mb = RequestCpus"));
    submit(
        "fits.sub",
        &format!("{make}\ntransfer_input_files = big\nmax_transfer_input_mb = 2\nmax_transfer_output_mb = 1 + 1"),
    );
    home.vo(["-s", "t", "-c", "wait 3"]).ok();
    assert_eq!(std::fs::metadata(home.work("made")).unwrap().len(), 1_500_000);
    for (job, code, why) in [
        (1, "32", "its input has 1500000 bytes, and max_transfer_input_mb allows 1048576"),
        (2, "33", "its output has 1500000 bytes, and max_transfer_output_mb allows 1048576"),
    ] {
        let held = wait_until("the hold", seconds(60), || {
            let said = home.vo(["-s", "t", "-c", &format!("q {job} -af HoldReasonCode HoldReason")]).ok().stdout;
            said.starts_with(code).then_some(said)
        });
        assert!(held.contains(why), "{held}");
    }
    home.write("no.sub", "executable = /bin/true\nmax_transfer_input_mb = TARGET.Disk\nqueue\n");
    home.vo(["-s", "t", "-c", "submit no.sub"])
        .code(6)
        .says(["max_transfer_input_mb = TARGET.Disk is no whole number"]);
    home.end("t");
    home.assert_nothing_left();
}

#[test]
fn core_files_leases_and_limits_are_as_asked_for() {
    let home = Home::new();
    home.write("vo.conf", "[session]\nlease = \"1m\"\n[[site]]\ngateway = \"local\"\nproxies = \"1:2\"\n");
    home.vo(["-H", "vo.conf", "-s", "t", "--keep", "-c", "true"]).ok();
    let submit = |lines: &str| {
        let text = format!(
            "executable = /bin/bash\narguments = \"-c 'ulimit -c'\"\noutput = out.$(Cluster)\n{lines}\nqueue\n"
        );
        home.write("t.sub", text);
        home.vo(["-s", "t", "-c", "submit t.sub"]).ok().stderr
    };
    let hard = home.sh("ulimit -H -c").ok().stdout;
    assert_eq!(submit("core_size = 0"), "");
    assert_eq!(submit("core_size = 2048 * 1024\nshould_transfer_files = yes\njob_lease_duration = 60"), "");
    assert_eq!(submit("core_size = -1"), "");
    home.vo(["-s", "t", "-c", "wait"]).ok();
    let expected = if hard == "unlimited\n" { "2048\n".to_owned() } else { home.read("out.2") };
    assert_eq!([home.read("out.1"), home.read("out.2"), home.read("out.3")], ["0\n".to_owned(), expected, hard]);
    let said = submit("job_lease_duration = 30 * 60");
    assert!(
        said.contains("warning: job_lease_duration of cluster 4 is longer than the lease of starters, 60 s\nhint: "),
        "{said}"
    );
    submit("MY.Kind = \"Licence\"\nconcurrency_limits_expr = strcat(Kind, \":2,disk\")");
    let told = home.vo(["-s", "t", "-c", "q 5 --all -af ConcurrencyLimits"]).ok().stdout;
    assert_eq!(told, "Licence:2,disk\n");
    home.vo(["-s", "t", "-c", "wait"]).ok();
    home.write("no.sub", "executable = /bin/true\nconcurrency_limits_expr = TARGET.Machine\nqueue\n");
    home.vo(["-s", "t", "-c", "submit no.sub"]).code(6).says(["concurrency_limits_expr = TARGET.Machine is no text"]);
    home.end("t");
    home.assert_nothing_left();
}

#[test]
fn standard_input_may_be_a_file_of_the_node() {
    let home = session();
    home.write("data", "that travelled\n");
    home.write("here", "of the node\n");
    let text = "executable = /bin/cat\ntransfer_executable = false\ntransfer_input = false\ninput = $(x)\noutput = out.$(Process)\n\
                should_transfer_files = YES\ntransfer_input_files = data\n";
    home.write("t.sub", format!("{text}queue x in (data, {})\n", home.work("here").display()));
    home.vo(["-s", "t", "-c", "submit t.sub; wait"]).ok().says(["2 of 2 job(s) succeeded"]);
    assert_eq!((home.read("out.0"), home.read("out.1")), ("that travelled\n".into(), "of the node\n".into()));
    // What isn't there is known when it is wanted.
    home.write("lacks.sub", format!("{text}x = absent\nqueue\n"));
    home.vo(["-s", "t", "-c", "submit lacks.sub; wait --timeout 30s 2"]).code(7);
    let why = home.vo(["-s", "t", "-c", "q 2 -af HoldReason"]).ok().stdout;
    assert!(why.contains("/work/absent: No such file or directory"), "{why}");
    home.vo(["-s", "t", "-c", "rm 2"]).ok();
    end(&home);
}

#[test]
fn a_job_finds_its_ad() {
    let home = session();
    home.write(
        "t.sub",
        "executable = /bin/sh
transfer_executable = false
arguments = \"-c 'cat $_CONDOR_JOB_AD; echo $_CONDOR_JOB_AD' $(x)\"
batch_name = named
output = out.$(Process)
error = $(e)
+Say = \"it is $(x)\"
+Twice = 2 * ProcId
request_memory = 64
should_transfer_files = $CHOICE(Process, NO, YES)
queue x, e from (
one, err
two, e\"r\n)
",
    );
    home.vo(["-s", "t", "-c", "submit t.sub; wait"]).ok();
    for process in 0..2 {
        let out = home.read(format!("out.{process}"));
        let (item, error) = [("one", "err"), ("two", "e\\\"r")][process];
        for line in [
            "ClusterId = 1\n",
            &format!("ProcId = {process}\n"),
            &format!("Out = \"out.{process}\"\n"),
            &format!("GlobalJobId = \"t#1.{process}#"),
            "JobBatchName = \"named\"\n",
            "RequestMemory = 64\n",
            "JobStatus = 2\n",
            "Twice = 2 * ProcId\n",
            "Cmd = \"/bin/sh\"\n",
            &format!(" {item}\"\n"),
            &format!("Say = \"it is {item}\"\n"),
            &format!("Err = \"{error}\"\n"),
        ] {
            assert!(out.contains(line), "{line}\n{out}");
        }
        let file = out.lines().last().unwrap();
        assert_eq!(file.ends_with("/work/.job.ad"), process == 1, "{file}");
        wait_until("it is gone", seconds(30), || (!std::path::Path::new(file).exists()).then_some(()));
    }
    end(&home);
}

#[test]
fn a_job_finds_the_ad_of_its_slot() {
    let home = Home::new();
    home.write("vo.conf", "[[site]]\ngateway = \"local\"\nattributes = { Project = \"OSCAR\" }\n");
    home.write(
        "t.sub",
        "shell = cat $_CONDOR_MACHINE_AD; echo $_CONDOR_MACHINE_AD; ls -A > listed.$(Process)
output = out.$(Process)
should_transfer_files = $CHOICE(Process, NO, YES)
queue 2
",
    );
    home.vo(["-H", "vo.conf", "-s", "t", "-n", "1:1", "--keep", "-c", "submit t.sub; wait"]).ok();
    for process in 0..2 {
        let out = home.read(format!("out.{process}"));
        for line in ["Cpus = 1\n", "Name = \"slot1@", "OpSys = \"LINUX\"\n", "Project = \"OSCAR\"\n"] {
            assert!(out.contains(line), "{line}\n{out}");
        }
        assert!(!out.contains("TimeToLive"), "{out}");
        let file = out.lines().last().unwrap();
        assert_eq!(file.ends_with("/work/.machine.ad"), process == 1, "{file}");
    }
    // It is no output.
    assert_eq!(home.read("listed.1").lines().filter(|name| *name == ".machine.ad").count(), 1);
    assert!(!home.work(".machine.ad").exists());
    home.end("t");
    home.assert_nothing_left();
}

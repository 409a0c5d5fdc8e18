//! A site whose nodes see a directory of the workstation's under the same path, as with an institute's file server.

use std::fs;
use std::os::unix::fs::MetadataExt;

use vo_tests::testbed::{TUNDRA, root};
use vo_tests::{Home, seconds, wait_until};

use crate::nothing_left;

/// A session over tundra, in which `home` is shared, with two slots.
fn start(home: &Home) {
    home.write("vo.conf", "tundra-key\n");
    home.hand_over();
    home.vo(["-H", "vo.conf", "-s", "t", "--keep", "-n", "1:2", "-c", "true"]).ok();
}

fn end(home: &Home) {
    home.vo(["-s", "t", "-c", "exit --force"]).ok();
    nothing_left(home, &[&TUNDRA]);
}

/// The input files that the site keeps for its nodes.
fn blobs() -> Vec<String> {
    TUNDRA.files().into_iter().filter(|path| path.contains("/blobs/")).collect()
}

#[test]
fn jobs_in_a_shared_directory_run_and_write_there() {
    let home = Home::shared_with_tundra();
    // It says where it is, adds a line to a file that was there, and goes on once it is told to.
    home.script(
        "work.sh",
        "#!/bin/sh\necho begun $(hostname)\nstat -c %i . >inode.$1\necho $1 >>log.$1\nuntil [ -e go ]; do sleep 0.05; done\necho done\n",
    );
    home.write("input", "from the workstation\n");
    home.write("t.sub", "executable = work.sh\narguments = $(Process)\ninput = input\noutput = out.$(Process)\ntransfer_input_files = input\nqueue 2\n");
    for process in 0..2 {
        home.write(format!("log.{process}"), "was there\n");
        home.write(format!("out.{process}"), "");
    }
    start(&home);
    let inode = |name: &str| fs::metadata(home.work(name)).unwrap().ino();
    let before: Vec<_> = ["out.0", "out.1", "log.0", "log.1"].map(inode).into();
    home.vo(["-s", "t", "-c", "submit t.sub"]).ok();
    // What they write is here while they run.
    wait_until("both jobs' first words", seconds(60), || {
        (0..2).all(|n| home.read(format!("out.{n}")).starts_with("begun tundra-n")).then_some(())
    });
    let rows = home.vo(["-s", "t", "-c", "q --json --nobatch"]).ok().json();
    assert!(rows.as_array().unwrap().iter().all(|job| job["state"] == "running"), "{rows:#}");
    assert!(blobs().is_empty(), "nothing travelled: {:#?}", blobs());
    home.write("go", "");
    home.vo(["-s", "t", "-c", "wait --timeout 60s"]).ok().says(["2 of 2 job(s) succeeded"]);
    assert_eq!(Vec::from(["out.0", "out.1", "log.0", "log.1"].map(inode)), before, "the same files as before");
    for process in 0..2 {
        assert_eq!(home.read(format!("log.{process}")), format!("was there\n{process}\n"));
        assert_eq!(home.read(format!("inode.{process}")).trim(), inode("").to_string());
        assert!(home.read(format!("out.{process}")).ends_with("\ndone\n"));
    }
    assert!(blobs().is_empty(), "nothing travelled: {:#?}", blobs());
    end(&home);
}

#[test]
fn jobs_that_are_elsewhere_travel_in_the_same_session() {
    let home = Home::shared_with_tundra();
    let elsewhere = tempfile::Builder::new().prefix("vo-").tempdir().unwrap();
    std::os::unix::fs::chown(elsewhere.path(), Some(5001), Some(5001)).unwrap();
    let there = elsewhere.path().display();
    home.script("work.sh", "#!/bin/sh\ncat; pwd\n");
    home.write("input", "from the workstation\n");
    // Its directory is not shared; its directory is, and its output, or its input, is not.
    home.write(
        "1.sub",
        format!("executable = work.sh\ninput = input\ninitialdir = {there}\noutput = out\nqueue\n")
            .replace("input = input", &format!("input = {}", home.work("input").display()))
            .replace("= work.sh", &format!("= {}", home.work("work.sh").display())),
    );
    home.write("2.sub", format!("executable = work.sh\ninput = input\noutput = {there}/out2\nqueue\n"));
    fs::write(elsewhere.path().join("input3"), "not shared\n").unwrap();
    home.write("3.sub", format!("executable = work.sh\ninput = {there}/input3\noutput = out3\nqueue\n"));
    home.write("4.sub", "executable = work.sh\ninput = /dev/null\noutput = out4\nerror = /dev/null\nqueue\n");
    start(&home);
    home.vo(["-s", "t", "-c", "submit 1.sub; submit 2.sub; submit 3.sub; submit 4.sub; wait --timeout 90s"]).ok();
    let read = |name: &str| fs::read_to_string(elsewhere.path().join(name)).unwrap();
    let here = home.work("").display().to_string();
    let here = here.trim_end_matches('/');
    for said in [read("out"), read("out2"), home.read("out3")] {
        let text = if said.contains("not shared") { "not shared\n" } else { "from the workstation\n" };
        assert!(said.starts_with(text) && !said.contains(here), "it ran in a scratch directory: {said:?}");
    }
    assert_eq!(home.read("out4"), format!("{here}\n"), "/dev/null is everywhere");
    end(&home);
}

/// The node loses the file system after it has said that it shares it.
#[test]
fn a_directory_that_a_node_no_longer_sees_makes_files_travel() {
    let home = Home::shared_with_tundra();
    home.script("work.sh", "#!/bin/sh\necho ran in $(pwd)\n");
    home.write("t.sub", "executable = work.sh\noutput = out.$(Process)\nqueue 4\n");
    start(&home);
    wait_until("the starter", seconds(60), || {
        (home.vo(["-s", "t", "-c", "status --json"]).ok().json().as_array()?.len() == 1).then_some(())
    });
    let shared = vo_tests::testbed::state().join("shared");
    for node in TUNDRA.nodes() {
        root(&node, &format!("umount -l {}", shared.display()));
    }
    let _again = crate::Undo(|| {
        // A host mounts it when it starts.
        for node in TUNDRA.nodes() {
            vo_tests::testbed::testbed(&["reboot", &node]);
        }
        vo_tests::testbed::testbed(&["up", "tundra"]);
    });
    home.vo(["-s", "t", "-c", "submit t.sub; wait --timeout 90s"]).ok().says(["4 of 4 job(s) succeeded"]);
    for process in 0..4 {
        let said = home.read(format!("out.{process}"));
        assert!(said.starts_with("ran in /") && !said.contains("/shared/"), "{said:?}");
    }
    end(&home);
}

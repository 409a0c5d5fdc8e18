//! A full disk at the workstation: a clear word for the user, and nothing lost.

use vo_tests::{Home, skip};

/// Runs a script in a mount namespace of its own, where `state` and `work/out` are small file systems.
fn small_disks(home: &Home, script: &str) -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        skip("small file systems need root to be mounted");
        return None;
    }
    std::fs::create_dir_all(home.work("out")).unwrap();
    std::fs::create_dir_all(home.path().join("state")).unwrap();
    let mut command = home.command("unshare");
    let mount = "set -e; mount -t tmpfs -o size=24m none $XDG_STATE_HOME; mount -t tmpfs -o size=4m none out; ";
    let output = command.args(["--mount", "sh", "-c"]).arg(mount.to_owned() + script).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    Some(text)
}

#[test]
fn a_full_state_directory_refuses_submissions_and_forgets_nothing() {
    let home = Home::new();
    home.write("t.sub", "executable = /bin/sleep\ntransfer_executable = false\narguments = 3\nqueue 4\n");
    home.write("x.dag", "JOB A t.sub\n");
    let script = "
        vo-login -s t -n 1:2 --keep -c 'submit t.sub'
        dd if=/dev/zero of=$XDG_STATE_HOME/filler bs=64k count=280 2>/dev/null
        if vo-login -s t -c 'submit t.sub'; then echo taken; else echo refused $?; fi
        if vo-login -s t -c 'submit x.dag'; then echo taken; else echo the DAG is refused $?; fi
        dd if=/dev/zero of=$XDG_STATE_HOME/filler2 bs=4k 2>/dev/null || true
        sleep 5
        vo-login -s t -c 'q'
        rm $XDG_STATE_HOME/filler $XDG_STATE_HOME/filler2
        vo-login -s t -c 'wait --timeout 60s'
        vo-login -s t -c 'submit t.sub; wait --timeout 60s'
        vo-login -s t -c 'exit --force'";
    let Some(text) = small_disks(&home, script) else { return };
    for said in [
        "the disk of ",
        " is full: ",
        "\nrefused 1",
        "the DAG is refused 1",
        "4 of 4 job(s) succeeded",
        "submitted to cluster 2",
    ] {
        assert!(text.contains(said), "{said}: {text}");
    }
    assert!(!text.contains("taken"), "{text}");
    home.assert_nothing_left();
}

#[test]
fn outputs_wait_at_the_site_while_there_is_no_room_for_them() {
    let home = Home::new();
    home.script("big.sh", "#!/bin/sh\nhead -c 1000000 /dev/zero\n");
    home.write("t.sub", "executable = big.sh\noutput = out/big.$(Process)\nshould_transfer_files = YES\nqueue 3\n");
    let script = "
        dd if=/dev/zero of=out/filler bs=1000k count=3 2>/dev/null
        vo-login -s t -n 1:1 --keep -c 'submit t.sub; wait --timeout 12s' || echo waited
        vo-login -s t -c 'history --json'; vo-login -s t -c 'q --json'
        rm out/filler
        vo-login -s t -c 'wait --timeout 60s'
        wc -c out/big.*
        vo-login -s t -c 'history --json | jq -c \"[.[].attempts]\"'
        vo-login -s t -c 'exit --force'";
    let Some(text) = small_disks(&home, script) else { return };
    for said in ["waited", "3 of 3 job(s) succeeded", "3000000 total", "[1,1,1]"] {
        assert!(text.contains(said), "{said}: {text}");
    }
    home.assert_nothing_left();
}

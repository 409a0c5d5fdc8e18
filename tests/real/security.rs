//! Another user on the gateways, on the nodes and on the workstation: what they can read, reach and plant. They have an account and a
//! shell everywhere, as users of clusters do.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use vo_tests::testbed::{GRID, Site, TUNDRA, root};
use vo_tests::{Home, seconds, wait_until};

use crate::{conf, nothing_left};

/// Whom we defend against: a user without any right to what is ours. `nobody` has an account everywhere.
const MALLORY: u32 = 65534;

/// What marks a secret of ours: private keys are PEM everywhere.
const SECRET: &str = "PRIVATE KEY";

/// Runs a line of shell as mallory inside a host of the testbed.
fn mallory(host: &str, line: &str) -> String {
    let quoted = line.replace('\'', r"'\''");
    root(host, &format!("setpriv --reuid {MALLORY} --regid {MALLORY} --clear-groups sh -c '{quoted}'"))
}

/// The same on the workstation.
fn mallory_here(line: &str) -> String {
    let user = MALLORY.to_string();
    let output = Command::new("setpriv")
        .args(["--reuid", &user, "--regid", &user, "--clear-groups", "sh", "-c", line])
        .output()
        .expect("setpriv can be run");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Our processes on a host, by number: the words that they were started with.
fn ours(host: &str, user: &str) -> BTreeMap<u32, String> {
    let listing = root(host, &format!("ps -u {user} -o pid=,args= --width 4000"));
    let rows = listing.lines().filter(|line| line.contains("vo-agent") && !line.contains(" ps "));
    rows.filter_map(|line| line.trim().split_once(' ').map(|(pid, words)| (pid.parse().unwrap(), words.to_owned())))
        .collect()
}

/// The TCP port that the agent listens on, if any process of the user listens there at all.
fn ports(host: &str, user: &str) -> Vec<u16> {
    let uid = root(host, &format!("id -u {user}"));
    let rows = root(host, "ss -Htlne");
    let ours = rows.lines().filter(|row| row.split_whitespace().any(|word| word == format!("uid:{}", uid.trim())));
    let port = |row: &str| row.split_whitespace().nth(3)?.rsplit(':').next()?.parse().ok();
    let mut ports: Vec<u16> = ours.filter_map(port).collect();
    ports.dedup();
    ports
}

/// A session at a site with a job that runs on a node, and tells what it sees of itself.
fn session(home: &Home, site: &Site) -> String {
    conf(home, &[&site.plain()]);
    home.write(
        "spy.sub",
        "executable = /bin/sh\ntransfer_executable = false\narguments = \"-c 'env; ls -l /proc/self/fd; ls -ld . ..; while \
         [ ! -e stop ]; do sleep 0.2; done'\"\nshould_transfer_files = YES\noutput = spied\nqueue\n",
    );
    home.vo(["-H", "vo.conf", "-s", "sec", "--keep", "-n", "1:1", "-c", "submit spy.sub"]).ok();
    wait_until("a job that runs", seconds(120), || {
        let jobs = home.vo(["-s", "sec", "-c", "q --json"]).ok().json();
        (jobs[0]["state"] == "running").then_some(())
    });
    let toml = std::fs::read_to_string(home.session_dir("sec").join("session.toml")).unwrap();
    toml.lines().find_map(|line| line.strip_prefix("id = ")).unwrap().trim_matches('"').to_owned()
}

#[test]
fn another_user_at_a_site_reads_and_reaches_nothing() {
    for site in [&TUNDRA, &GRID] {
        let home = Home::on_testbed();
        let id = session(&home, site);
        let (gateway, user) = (site.gateway(), site.user);
        let dir = format!("/home/{user}/.vo-login/sec-{id}");

        // Processes: their words hold no secret, and nothing else of them can be read.
        let mut seen = 0;
        for host in site.hosts() {
            for (pid, words) in ours(&host, user) {
                seen += 1;
                assert!(!words.contains(SECRET) && !words.contains("BEGIN"), "{host}: {words}");
                for name in ["environ", "maps", "mem", "fd/0", "cwd/agent.addr", "root/home"] {
                    let got = mallory(&host, &format!("head -c 1 /proc/{pid}/{name} 2>/dev/null | wc -c"));
                    assert_eq!(got.trim(), "0", "{host}: /proc/{pid}/{name} of {words}");
                }
                let environment = root(&host, &format!("cat /proc/{pid}/environ"));
                assert!(!environment.contains(SECRET), "{host}: environment of {words}");
            }
        }
        assert!(seen >= 3, "an agent, a guardian and a starter");

        // Files: below the session's directory none can even be named; elsewhere nothing of ours is open to others.
        for path in ["", "/agent.sock", "/agent.addr", "/proxies/0/launch", "/jobinfo_table", "/../bin"] {
            let said = mallory(&gateway, &format!("ls -d {dir}{path} && cat {dir}{path} | head -c 1"));
            assert!(said.contains("Permission denied"), "{path}: {said}");
        }
        for host in site.hosts() {
            let open = mallory(
                &host,
                &format!(
                    "find /tmp /var/tmp /dev/shm /run /home/{user}/.vo-login -user {user} \\( -readable -o -writable -o -executable \\) \
                     -name '*vo*' ! -path '*vo-testbed*' 2>/dev/null"
                ),
            );
            assert_eq!(open.trim(), "", "{host}");
        }
        let launch = site.sh("find .vo-login -name launch | head -1");
        assert!(site.sh(&format!("cat {}", launch.trim())).contains(SECRET), "the key is where it should be");
        // The site's own authority, for an agent that is brought back without its master.
        let elsewhere =
            site.sh(&format!("grep -rl '{SECRET}' .vo-login/sec-* | grep -v /launch$ | xargs -r stat -c '%a %n'"));
        assert_eq!(elsewhere.trim(), format!("600 .vo-login/sec-{id}/revival"), "and nowhere else");

        // Sockets: the agent's own directory hides its one Unix socket, and there is no abstract one.
        let stream =
            "use IO::Socket::UNIX; print IO::Socket::UNIX->new(Peer => $ARGV[0]) ? \"reached\" : \"refused: $!\"";
        let said = mallory(&gateway, &format!("perl -e '{stream}' {dir}/agent.sock"));
        assert!(said.contains("refused: Permission denied"), "{said}");
        let abstract_names = mallory(&gateway, "grep -c '@.*vo' /proc/net/unix || true");
        assert_eq!(abstract_names.trim(), "0");

        // Ports: one on the gateway, none on nodes. From the gateway and from a node it says nothing to a stranger, and closes.
        let open = ports(&gateway, user);
        assert_eq!(open.len(), 1, "{open:?}");
        for node in site.nodes() {
            assert!(ports(&node, user).is_empty(), "{node}");
        }
        let node = site.nodes().next().unwrap();
        let address =
            root(&gateway, "hostname -I").split_whitespace().find(|a| a.starts_with("10.")).unwrap().to_owned();
        let lan = root(&node, &format!("getent ahostsv4 {gateway} | cut -d' ' -f1 | head -1"));
        let call = |host: &str, address: &str, words: &str| {
            let program = format!(
                "use IO::Socket::INET; $SIG{{PIPE}} = \"IGNORE\"; $s = IO::Socket::INET->new(PeerAddr => $ARGV[0], Timeout => 10) or die \"no way: $!\"; \
                 print $s {words}; $s->flush; $s->shutdown(1); local $/; $got = <$s>; print \"said \", length($got // \"\")"
            );
            mallory(host, &format!("perl -e '{program}' {address}:{}", open[0]))
        };
        for words in [
            "\"x\" x 5000",
            "pack(\"H*\", \"16030100b8010000b40303\") . (\"a\" x 200)",
            "\"\"",
            "\"GET / HTTP/1.0\\r\\n\\r\\n\"",
        ] {
            assert_eq!(call(&gateway, &address, words), "said 0", "{words}");
            if !lan.trim().is_empty() {
                assert_eq!(call(&node, lan.trim(), words), "said 0", "{words} from a node");
            }
        }
        // Nor can it be taken over while the agent has it.
        let bind = "use IO::Socket::INET; print IO::Socket::INET->new(LocalPort => $ARGV[0], Listen => 1, ReuseAddr => 1) ? \"bound\" : \"refused\"";
        assert_eq!(mallory(&gateway, &format!("perl -e '{bind}' {}", open[0])), "refused");

        // What the batch system shows of our batch jobs, to mallory and to anyone.
        let shown = match site.batch {
            "slurm" => mallory(
                &gateway,
                "scontrol show job -dd; squeue -O name:80,command:200,workdir:200; scontrol write batch_script $(squeue -h -o %i | head -1) -",
            ),
            _ => mallory(&gateway, ". /etc/profile; qstat -j '*'; qstat -xml -r -f"),
        };
        assert!(shown.contains(&format!("vo-{id}")), "the listing is one of ours: {shown}");
        assert!(!shown.contains(SECRET) && !shown.contains("BEGIN "), "{shown}");
        if site.batch == "slurm" {
            assert!(!shown.contains("#!/bin/sh"), "the script is its owner's: {shown}");
        }

        // The job itself sees no secret in its environment, no descriptor of ours, and a directory of its own.
        let dirs: Vec<String> = site
            .nodes()
            .map(|node| root(&node, &format!("find /tmp -maxdepth 6 -path '*/vo-{id}-*/jobs/*/work' | head -1")))
            .collect();
        let (at, work) = site
            .nodes()
            .zip(&dirs)
            .find(|(_, dir)| dir.contains("/work"))
            .map(|(n, d)| (n, d.trim().to_owned()))
            .expect("a scratch directory");
        let scratch = work.split("/jobs/").next().unwrap();
        assert_eq!(root(&at, &format!("stat -c %a {scratch}")).trim(), "700");
        root(&at, &format!("su {user} -s /bin/sh -c 'touch {work}/stop'"));
        home.vo(["-s", "sec", "-c", "wait"]).ok();
        let spied = home.read("spied");
        assert!(spied.contains("VO_JOB=1.0") && !spied.contains(SECRET), "{spied}");
        let descriptors: Vec<&str> = spied.lines().filter_map(|line| line.split(" -> ").nth(1)).collect();
        // Its three, and the directory that `ls` reads.
        assert_eq!(descriptors.len(), 4, "{spied}");
        assert!(!descriptors.iter().any(|to| to.contains("socket") || to.contains(".vo-login")), "{descriptors:?}");

        home.end("sec");
        nothing_left(&home, &[site]);
    }
}

#[test]
fn a_flood_on_the_gateway_keeps_no_starter_out() {
    const FLOOD: usize = 4000;
    let home = Home::on_testbed();
    conf(&home, &["tundra-key"]);
    home.vo(["-H", "vo.conf", "-s", "flood", "--keep", "-n", "1:1", "-c", "true"]).ok();
    let gateway = TUNDRA.gateway();
    let port = ports(&gateway, TUNDRA.user)[0];
    let agent = ours(&gateway, TUNDRA.user).into_iter().find(|(_, words)| words.contains(" event ")).unwrap().0;
    let before = root(&gateway, &format!("awk '/VmHWM/ {{print $2}}' /proc/{agent}/status"));
    // They stay open until mallory is told to stop.
    let program = format!(
        "use IO::Socket::INET; my @all; for (1..{FLOOD}) {{ my $s = IO::Socket::INET->new(PeerAddr => \"127.0.0.1:{port}\", Timeout => 5) \
         or next; print $s \"x\" x 20; $s->flush; push @all, $s; }} open(F, \">/tmp/mallory-ready\"); print F scalar(@all); close F; \
         sleep 1 while -e \"/tmp/mallory-ready\";"
    );
    mallory(&gateway, &format!("rm -f /tmp/mallory-ready; ulimit -n 8192; perl -e '{program}' >/dev/null 2>&1 &"));
    let opened = wait_until("a flood", seconds(120), || {
        root(&gateway, "cat /tmp/mallory-ready 2>/dev/null").trim().parse::<usize>().ok()
    });
    assert!(opened > FLOOD / 2, "{opened} were opened");
    // Meanwhile a new proxy's starter comes in, and jobs run.
    home.write("t.sub", "executable = /bin/true\ntransfer_executable = false\nqueue 20\n");
    home.vo(["-s", "flood", "-c", "submit t.sub; wait"]).ok().says(["20 of 20 job(s) succeeded"]);
    let descriptors: usize = root(&gateway, &format!("ls /proc/{agent}/fd | wc -l")).trim().parse().unwrap();
    assert!(descriptors < 256 + 64, "{descriptors} descriptors");
    let peak: u64 = root(&gateway, &format!("awk '/VmHWM/ {{print $2}}' /proc/{agent}/status")).trim().parse().unwrap();
    println!("{opened} half-open: {descriptors} descriptors, {} to {peak} KiB", before.trim());
    assert!(peak < 20 << 10, "{peak} KiB");
    root(&gateway, "rm -f /tmp/mallory-ready");
    home.end("flood");
    nothing_left(&home, &[&TUNDRA]);
}

#[test]
fn another_user_on_the_workstation_reads_and_reaches_nothing() {
    let home = Home::new();
    home.vo(["-s", "here", "--keep", "-c", "true"]).ok();
    // The way there is open, so that nothing but our own modes protects it.
    let mut above = home.path();
    while let Some(parent) = above.parent() {
        let mode = std::fs::metadata(above).unwrap().permissions().mode();
        let _ = std::fs::set_permissions(above, std::fs::Permissions::from_mode(mode | 0o755));
        above = parent;
    }
    let dir = home.session_dir("here");
    for path in ["", "control.sock", "ca.pem", "session.toml", "store", "master.log", "marker"] {
        let path = dir.join(path);
        let said = mallory_here(&format!("cat {} 2>&1; ls -ld {} 2>&1", path.display(), path.join(".").display()));
        assert!(said.contains("Permission denied"), "{}: {said}", path.display());
    }
    let stream = "use IO::Socket::UNIX; print IO::Socket::UNIX->new(Peer => $ARGV[0]) ? \"reached\" : \"refused: $!\"";
    let said = mallory_here(&format!("perl -e '{stream}' {}", dir.join("control.sock").display()));
    assert_eq!(said, "refused: Permission denied");
    for (pid, _) in home.processes() {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        for text in [words, environment] {
            assert!(!String::from_utf8_lossy(&text).contains(SECRET));
        }
        let got = mallory_here(&format!("head -c 1 /proc/{pid}/environ 2>/dev/null | wc -c"));
        assert_eq!(got.trim(), "0");
    }
    // Even with the directory open, the master talks to its own user only.
    let mut open = dir.as_path();
    while open != home.path() {
        std::fs::set_permissions(open, std::fs::Permissions::from_mode(0o755)).unwrap();
        open = open.parent().unwrap();
    }
    std::fs::set_permissions(dir.join("control.sock"), std::fs::Permissions::from_mode(0o666)).unwrap();
    let talk = "use IO::Socket::UNIX; $SIG{PIPE} = \"IGNORE\"; $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die \"refused: $!\"; \
                print $s pack(\"NnQ>H*\", 16, 0x0401, 0, \"811a00010000\"); $s->flush; sysread($s, $got, 100); print \"said \", length($got // \"\")";
    let said = mallory_here(&format!("perl -e '{talk}' {}", dir.join("control.sock").display()));
    assert_eq!(said, "said 0");
    let own = home.sh(&format!("perl -e '{talk}' {}", dir.join("control.sock").display())).ok().stdout;
    assert!(own.starts_with("said ") && own != "said 0", "its own user is answered: {own}");
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700)).unwrap();
    home.end("here");
    home.assert_nothing_left();
}

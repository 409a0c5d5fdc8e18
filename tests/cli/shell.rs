//! The grid shell at a terminal.

use vo_tests::{Home, Terminal, seconds, wait_until};

/// Is the command called `name` in the foreground of its terminal, and not stopped?
fn foreground(home: &Home, name: &str) -> bool {
    home.processes().iter().filter(|(_, command)| command.trim() == name).any(|(pid, _)| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // proc(5): state, parent, process group, session, terminal, foreground process group.
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').take(6).collect();
        matches!(fields[..], [state, _, group, _, _, foreground] if state != "T" && group == foreground)
    })
}

fn start(home: &Home) -> Terminal {
    let mut terminal = home.terminal([] as [&str; 0]);
    terminal.expect("Welcome to your grid environment.");
    terminal.prompt();
    terminal
}

fn leave(home: &Home, mut terminal: Terminal) {
    terminal.type_line("exit");
    assert_eq!(terminal.exit_code(), 0);
    home.assert_nothing_left();
}

#[test]
fn a_session_on_this_machine_reads_as_documented() {
    let home = Home::new();
    let mut terminal = home.terminal([] as [&str; 0]);
    terminal.expect("Spawning on ");
    let dots = terminal.expect("Done");
    assert!(dots.contains("Setting up VO participants ."), "{dots:?}");
    terminal.expect("Welcome to your grid environment.");
    terminal.expect("To shut down the environment, type \"exit\". To detach from it, type \"detach\".");
    terminal.prompt();
    let host = home.sh("hostname -s").ok().stdout;
    assert!(
        terminal.shown().trim_end_matches(' ').ends_with(&format!("{}(grid)%", host.trim())),
        "{}",
        terminal.shown()
    );

    home.write("t.sub", "executable = /bin/sleep\narguments = 0.2\nqueue 4\n");
    assert_eq!(terminal.run("submit t.sub").trim(), "4 job(s) submitted to cluster 1.");
    assert!(terminal.run("status").contains("Total"));
    terminal.run("wait");
    assert_eq!(terminal.run("q --json | jq length").trim(), "0");
    assert_eq!(terminal.run("history --json | jq length").trim(), "4");
    leave(&home, terminal);
}

#[test]
fn lines_run_in_the_users_own_shell() {
    let home = Home::new();
    let mut terminal = start(&home);
    assert_eq!(terminal.run("pwd").trim(), home.work("").to_str().unwrap().trim_end_matches('/'));
    terminal.run("cd /usr/share");
    assert_eq!(terminal.run("pwd").trim(), "/usr/share");
    terminal.run("cd -");
    terminal.run("X='two  words'");
    assert_eq!(terminal.run("echo \"$X\" | tr a-z A-Z").trim(), "TWO  WORDS");
    terminal.run("export Y=exported");
    assert_eq!(terminal.run("sh -c 'echo $Y'").trim(), "exported");
    terminal.run("f() { echo \"f $1\"; }");
    assert_eq!(terminal.run("f x").trim(), "f x");
    assert_eq!(terminal.run("false; echo $?").trim(), "1");
    terminal.run("false");
    assert_eq!(terminal.run("echo $?").trim(), "1");
    // A word that a grid command has too: rm of files is the file system's.
    home.write("gone", "");
    terminal.run("rm gone");
    assert!(!home.work("gone").exists());
    leave(&home, terminal);
}

#[test]
fn interrupts_and_job_control_work() {
    let home = Home::new();
    let mut terminal = start(&home);
    let sleeping = |name: &str| home.processes().iter().any(|(_, command)| command.trim() == name);
    terminal.type_line("sleep 1001");
    wait_until("sleep runs", seconds(10), || foreground(&home, "sleep 1001").then_some(()));
    terminal.send(b"\x03");
    terminal.prompt();
    assert!(!sleeping("sleep 1001"));

    terminal.type_line("sleep 1002");
    wait_until("sleep runs", seconds(10), || foreground(&home, "sleep 1002").then_some(()));
    terminal.send(b"\x1a");
    terminal.prompt();
    assert!(terminal.run("jobs").contains("sleep 1002"));
    terminal.type_line("fg");
    terminal.expect("sleep 1002");
    wait_until("sleep is back", seconds(10), || foreground(&home, "sleep 1002").then_some(()));
    terminal.send(b"\x03");
    terminal.prompt();
    wait_until("sleep has ended", seconds(10), || (!sleeping("sleep 1002")).then_some(()));

    // A grid command, too: what it waits for goes on.
    home.write("t.sub", "executable = /bin/sleep\narguments = 1003\nqueue\n");
    terminal.run("submit t.sub");
    terminal.type_line("wait");
    wait_until("the job runs", seconds(20), || sleeping("/bin/sleep 1003").then_some(()));
    terminal.expect("1 running");
    terminal.send(b"\x03");
    terminal.prompt();
    assert!(sleeping("/bin/sleep 1003"), "Ctrl-C ends the waiting, not the job");
    assert_eq!(terminal.run("q --json | jq length").trim(), "1");

    // At the prompt it only clears the line.
    terminal.send(b"echo nev");
    terminal.expect("echo nev");
    terminal.send(b"\x03");
    terminal.prompt();
    assert_eq!(terminal.run("echo again").trim().lines().last(), Some("again"));
    terminal.run("rm 1");
    leave(&home, terminal);
}

#[test]
fn full_screen_programs_have_the_terminal() {
    let home = Home::new();
    let mut terminal = start(&home);
    home.write("long.txt", (1..=500).map(|n| format!("line {n}\n")).collect::<String>());
    terminal.type_line("less long.txt");
    terminal.expect("line 40");
    terminal.send(b"G");
    terminal.expect("line 500");
    terminal.send(b"q");
    terminal.prompt();

    if home.sh("command -v vi").code == 0 {
        terminal.type_line("vi new.txt");
        terminal.expect("new.txt");
        terminal.send(b"ihello\x1b:wq\r");
        terminal.prompt();
        assert_eq!(home.read("new.txt"), "hello\n");
    } else {
        vo_tests::skip("no vi on this machine");
    }

    assert_eq!(terminal.run("stty size").trim(), "50 200");
    terminal.resize(40, 100);
    wait_until("the new size", seconds(10), || (terminal.run("stty size").trim() == "40 100").then_some(()));
    assert_eq!(terminal.run("echo fine").trim(), "fine", "the line editor has its terminal back");
    leave(&home, terminal);
}

#[test]
fn history_and_completion_help_typing() {
    let home = Home::new();
    let mut terminal = start(&home);
    terminal.run("echo remember-me");
    terminal.send(b"\x1b[A");
    terminal.expect("echo remember-me");
    terminal.send(b"\r");
    assert!(terminal.prompt().contains("remember-me"));
    home.write("very-long-name.sub", "executable = /bin/true\nqueue 2\n");
    terminal.send(b"subm\tvery\t");
    terminal.expect("submit very-long-name.sub");
    terminal.send(b"\r");
    assert!(terminal.prompt().contains("2 job(s) submitted to cluster 1."));
    terminal.run("wait");
    // More jobs than are offered at once: what nobody typed isn't put in.
    home.write("many.sub", "executable = /bin/sleep\narguments = 1000\nqueue 300\n");
    terminal.run("submit many.sub");
    terminal.send(b"q 2.\t15 --json | jq -r .[].job\r");
    assert_eq!(terminal.prompt().trim_end().lines().last(), Some("2.15"));
    terminal.run("vo rm --all --yes");
    leave(&home, terminal);

    let mut terminal = start(&home);
    terminal.send(b"\x12remember");
    terminal.expect("echo remember-me");
    terminal.send(b"\r");
    assert!(terminal.prompt().contains("remember-me"), "history outlives the session");
    leave(&home, terminal);
}

#[test]
fn another_terminal_talks_to_the_same_session() {
    let home = Home::new();
    let mut terminal = home.terminal(["-s", "shared"]);
    terminal.prompt();
    home.write("t.sub", "executable = /bin/true\nqueue 7\n");
    terminal.run("submit t.sub");
    home.vo(["-s", "shared", "-c", "wait"]).ok().says(["7 of 7 job(s) succeeded"]);
    assert_eq!(home.sh("vo-login -s shared -c 'history --json' | jq length").ok().stdout, "7\n");
    assert_eq!(terminal.run("echo still here").trim(), "still here");
    leave(&home, terminal);
}

/// Shells that lines may run in, as far as they are here; the others are skipped visibly.
const SHELLS: [&str; 4] = ["fish", "dash", "bash", "zsh"];

/// The path of a shell, if it is installed.
fn installed(home: &Home, shell: &str) -> Option<String> {
    let found = home.sh(&format!("command -v {shell}"));
    if found.code != 0 {
        vo_tests::skip(&format!("no {shell} on this machine"));
        return None;
    }
    Some(found.stdout.trim().to_owned())
}

/// fish fills this directory from all manual pages in the background when it starts the first time.
fn quiet_fish(home: &Home) {
    std::fs::create_dir_all(home.path().join(".local/share/fish/generated_completions")).unwrap();
}

/// Runs `test` with a session whose user has this shell, and then leaves it.
fn in_shell(shell: &str, files: &[(&str, &str)], test: impl FnOnce(&Home, &mut Terminal)) {
    let mut home = Home::new();
    let Some(path) = installed(&home, shell) else { return };
    for (name, text) in files {
        let path = home.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    home.set("SHELL", path);
    quiet_fish(&home);
    let mut terminal = start(&home);
    test(&home, &mut terminal);
    leave(&home, terminal);
}

/// The last line that a command printed.
fn last(terminal: &mut Terminal, command: &str) -> String {
    terminal.run(command).trim_end().lines().last().unwrap_or_default().to_owned()
}

#[test]
fn each_shell_runs_lines_as_it_does_by_itself() {
    for shell in SHELLS {
        let fish = shell == "fish";
        let word = |posix: &'static str, in_fish: &'static str| if fish { in_fish } else { posix };
        in_shell(shell, &[], |home, terminal| {
            // Which shell it is.
            let running = last(terminal, word("ps -o comm= -p $$", "ps -o comm= -p $fish_pid"));
            assert_eq!(running, shell);
            assert_eq!(last(terminal, "echo a b | tr a-z A-Z | cat"), "A B", "{shell}");
            // Directories, and the way back.
            terminal.run("cd /usr/share");
            assert_eq!(last(terminal, "pwd"), "/usr/share", "{shell}");
            terminal.run("cd -");
            assert_eq!(last(terminal, "pwd"), home.work("").to_str().unwrap().trim_end_matches('/'), "{shell}");
            // Variables, exported or not, and unset again.
            terminal.run(word("X='two  words'", "set X 'two  words'"));
            assert_eq!(last(terminal, "echo \"<$X>\""), "<two  words>", "{shell}");
            assert_eq!(last(terminal, "sh -c 'echo \"<$X>\"'"), "<>", "{shell}: not exported");
            terminal.run(word("export X", "set -x X $X"));
            assert_eq!(last(terminal, "sh -c 'echo \"<$X>\"'"), "<two  words>", "{shell}: exported");
            terminal.run(word("unset X", "set -e X"));
            assert_eq!(last(terminal, "sh -c 'echo \"<$X>\"'"), "<>", "{shell}");
            // Quoting.
            assert_eq!(
                last(terminal, r#"printf '%s|' "it's" 'a "b"' a\ b "\\" é"#),
                r#"it's|a "b"|a b|\|é|"#,
                "{shell}: also what has no line feed at its end stays to be seen"
            );
            // Functions and constructs over several lines.
            for line in word("f() {\necho \"f $1\"\n}", "function f\necho \"f $argv[1]\"\nend").lines() {
                terminal.type_line(line);
            }
            terminal.prompt();
            assert_eq!(last(terminal, "f x"), "f x", "{shell}");
            for line in word(
                "for i in 1 2; do\nif true; then\necho \"i $i\"\nfi\ndone",
                "for i in 1 2\nif true\necho \"i $i\"\nend\nend",
            )
            .lines()
            {
                terminal.type_line(line);
            }
            terminal.expect("i 1");
            terminal.expect("i 2");
            terminal.prompt();
            if !fish {
                for line in ["cat <<END", "here $((1 + 1))", "END"] {
                    terminal.type_line(line);
                }
                terminal.expect("here 2");
                terminal.prompt();
            }
            // Exit codes: of a program, a pipe, a signal, an unknown command; kept from line to line.
            let status = word("echo $?", "echo $status");
            for (line, code) in [
                ("sh -c 'exit 3'", "3"),
                ("true", "0"),
                ("false | true", "0"),
                ("no-such-command-at-all", "127"),
                ("sh -c 'kill -TERM $$'", "143"),
            ] {
                terminal.run(line);
                assert_eq!(last(terminal, status), code, "{shell}: {line}");
            }
            // Redirections, globs, background jobs, input from the terminal.
            terminal.run("echo one > red; echo two >> red; cat < red > copy");
            assert_eq!(home.read("copy"), "one\ntwo\n", "{shell}");
            assert_eq!(last(terminal, "ls cop*"), "copy", "{shell}");
            terminal.type_line(word("read name; echo \"got <$name>\"", "read -P '' name; echo \"got <$name>\""));
            wait_until("the shell reads", seconds(10), || terminal.shown().ends_with('\n').then_some(()));
            terminal.type_line("some body");
            terminal.expect("got <some body>");
            terminal.prompt();
            // A wrong line is no end.
            terminal.run(if fish { "echo )" } else { "echo ) (" });
            assert_eq!(last(terminal, "echo fine"), "fine", "{shell}");
            // Grid commands are there, those included whose names the shell has, too.
            home.write("t.sub", "executable = /bin/true\nqueue 3\n");
            assert!(terminal.run("submit t.sub").contains("3 job(s) submitted"), "{shell}");
            assert!(terminal.run("wait").contains("3 of 3 job(s) succeeded"), "{shell}");
            assert_eq!(last(terminal, "history --json | jq length"), "3", "{shell}");
            assert_eq!(last(terminal, "status --json | jq length"), "1", "{shell}");
            assert!(terminal.run("help q").contains("Usage: q"), "{shell}");
            assert!(terminal.run("rm 1").contains("0 job(s) removed"), "{shell}");
            terminal.run("rm red");
            assert!(!home.work("red").exists(), "{shell}");
            assert!(terminal.run("log 1.0").contains("1.0"), "{shell}");
        });
    }
}

#[test]
fn each_shell_has_interrupts_and_job_control() {
    for shell in SHELLS {
        let fish = shell == "fish";
        in_shell(shell, &[], |home, terminal| {
            let runs = |name: &str| home.processes().iter().any(|(_, command)| command.trim() == name);
            terminal.type_line("sleep 1001");
            wait_until("sleep runs", seconds(10), || foreground(home, "sleep 1001").then_some(()));
            terminal.send(b"\x03");
            terminal.prompt();
            assert!(!runs("sleep 1001"), "{shell}");
            assert_eq!(last(terminal, if fish { "echo $status" } else { "echo $?" }), "130", "{shell}");

            // A pipe of two is one job.
            terminal.type_line("sleep 1002 | cat");
            wait_until("both run", seconds(10), || {
                (foreground(home, "sleep 1002") && foreground(home, "cat")).then_some(())
            });
            terminal.send(b"\x1a");
            terminal.prompt();
            assert!(terminal.run("jobs").contains("sleep 1002"), "{shell}");
            terminal.type_line("fg");
            wait_until(&format!("{shell}: both are back"), seconds(10), || {
                (foreground(home, "sleep 1002") && foreground(home, "cat")).then_some(())
            });
            terminal.send(b"\x03");
            terminal.prompt();
            wait_until("sleep has ended", seconds(10), || (!runs("sleep 1002")).then_some(()));

            // A loop of the shell's own.
            terminal.run(if fish { "set X kept" } else { "X=kept" });
            // What is typed must not look like what is printed.
            terminal.type_line(if fish {
                "echo be''gun; while true; end"
            } else {
                "echo be''gun; while :; do :; done"
            });
            terminal.expect("begun");
            terminal.send(b"\x03");
            terminal.prompt();
            assert_eq!(last(terminal, "echo \"<$X>\""), "<kept>", "{shell}");

            terminal.run("sleep 1003 &");
            assert!(terminal.run("jobs").contains("sleep 1003"), "{shell}");
            // zsh counts what runs the line, too; dash may take it for the current one.
            terminal.type_line(if fish || shell == "dash" { "kill %1" } else { "kill %%" });
            let shown = format!("{shell}: the background job has ended:\n{}", terminal.shown());
            wait_until(&shown, seconds(10), || (!runs("sleep 1003")).then_some(()));
            // The shell's word of it may come after the prompt.
            terminal.type_line("echo set''tled");
            terminal.expect("settled");
            terminal.prompt();

            home.write("long.txt", (1..=500).map(|n| format!("line {n}\n")).collect::<String>());
            terminal.type_line("less long.txt");
            terminal.expect("line 40");
            terminal.send(b"q");
            terminal.prompt();
            if home.sh("command -v vi").code == 0 {
                terminal.type_line("vi new.txt");
                terminal.expect("new.txt");
                terminal.send(b"ihello\x1b:wq\r");
                terminal.prompt();
                assert_eq!(home.read("new.txt"), "hello\n", "{shell}");
            }
        });
    }
}

/// Startup files that are anything but quiet: what a person has who likes their prompt.
#[test]
fn busy_startup_files_do_no_harm() {
    let posix = "echo 'Welcome back!'\nalias ll='ls -l' rm='rm -i' q='echo mine' status='git status' wait='echo waits'\n\
                 greet() { echo \"hello $1\"; }\nexport FROM_RC=yes\nPS1='%n \\u $ '\nTMOUT=1000\n";
    let bash = format!(
        "{posix}PROMPT_COMMAND='echo prompt-noise; printf \"\\033]0;title\\007\"'\nPS0='ps0-noise'\ntrap 'echo debug-noise' DEBUG\n\
         set -o vi\nshopt -s expand_aliases\n"
    );
    let zsh = format!(
        "{posix}autoload -Uz add-zsh-hook vcs_info compinit\nsetopt prompt_subst share_history correct auto_cd\n\
         precmd() {{ echo precmd-noise }}\nnoise() {{ echo hook-noise }}\nadd-zsh-hook precmd noise\nadd-zsh-hook preexec noise\n\
         RPROMPT='%~ right-noise'\nHISTFILE=~/.zsh_history\nSAVEHIST=1000\nPROMPT='%F{{red}}prompt-noise%f '\nbindkey -v\n"
    );
    let fish = "echo 'Welcome back!'\nalias ll='ls -l'\nalias rm='rm -i'\nalias q='echo mine'\nfunction greet; echo hello $argv; end\n\
                set -gx FROM_RC yes\nfunction fish_prompt; echo prompt-noise; end\nfunction fish_right_prompt; echo right-noise; end\n\
                function noise --on-event fish_prompt; echo hook-noise; end\nfunction more --on-event fish_preexec; echo pre-noise; end\n\
                set fish_greeting greeting-noise\n";
    let dash = posix.replace("PS1", "ENV_READ=1; PS1");
    for (shell, file, text) in [
        ("bash", ".bashrc", bash.as_str()),
        ("zsh", ".zshrc", zsh.as_str()),
        ("fish", "config/fish/config.fish", fish),
        ("dash", ".dashrc", dash.as_str()),
    ] {
        let mut home = Home::new();
        let Some(path) = installed(&home, shell) else { continue };
        let rc = home.path().join(file);
        std::fs::create_dir_all(rc.parent().unwrap()).unwrap();
        std::fs::write(&rc, text).unwrap();
        home.set("SHELL", path);
        quiet_fish(&home);
        if shell == "dash" {
            home.set("ENV", &rc);
        }
        let mut terminal = start(&home);
        assert!(terminal.shown().contains("Welcome back!"), "{shell}: {}", terminal.shown());
        let before = terminal.shown().len();
        assert_eq!(last(&mut terminal, "greet you"), "hello you", "{shell}: functions of startup files");
        assert_eq!(last(&mut terminal, "sh -c 'echo $FROM_RC'"), "yes", "{shell}");
        home.write("listed", "");
        assert!(terminal.run("ll").contains("listed"), "{shell}: aliases of startup files");
        // The grid's words are the grid's.
        assert_eq!(last(&mut terminal, "q --json"), "[]", "{shell}");
        assert_eq!(last(&mut terminal, "status --json | jq length"), "1", "{shell}");
        // And `rm -i` still asks.
        terminal.type_line("rm listed");
        terminal.expect("listed");
        terminal.expect("? ");
        terminal.type_line("n");
        terminal.prompt();
        assert!(home.work("listed").exists(), "{shell}");
        let shown = terminal.shown().split_off(before);
        assert!(!shown.contains("noise"), "{shell}: no prompt of the shell's own:\n{shown}");
        assert_eq!(last(&mut terminal, "tty"), last(&mut terminal, "tty"), "{shell}");
        leave(&home, terminal);
    }
}

/// As those do who can't change their login shell.
#[test]
fn a_startup_file_may_exec_another_shell() {
    for (shell, other) in [("bash", "zsh"), ("bash", "fish"), ("zsh", "bash")] {
        let rc = format!("command -v {other} >/dev/null && exec {other}\n");
        in_shell(
            shell,
            &[(".bashrc", if shell == "bash" { &rc } else { "" }), (".zshrc", if shell == "zsh" { &rc } else { "" })],
            |home, terminal| {
                if installed(home, other).is_some() {
                    let pid = if other == "fish" { "$fish_pid" } else { "$$" };
                    assert_eq!(last(terminal, &format!("ps -o comm= -p {pid}")), other);
                    assert_eq!(last(terminal, "q --json"), "[]");
                }
            },
        );
    }
}

#[test]
fn the_end_of_a_shell_is_not_the_sessions() {
    for shell in SHELLS {
        in_shell(shell, &[], |home, terminal| {
            terminal.run("cd /usr");
            for end in ["exec true", "kill -9 $$", "true; exit 3"] {
                let end = if shell == "fish" { end.replace("$$", "$fish_pid") } else { end.to_owned() };
                assert!(terminal.run(&end).contains("Your shell has ended"), "{shell}: {end}");
                assert_eq!(last(terminal, "pwd"), "/usr", "{shell}: {end}");
            }
            if shell != "fish" {
                terminal.run("set -e");
                assert!(terminal.run("false").contains("Your shell has ended"), "{shell}");
                assert_eq!(last(terminal, "echo on"), "on", "{shell}");
            }
            // While nobody looked.
            let pid = last(terminal, if shell == "fish" { "echo $fish_pid" } else { "echo $$" });
            home.sh(&format!("kill -KILL {pid}")).ok();
            assert_eq!(last(terminal, "echo on"), "on", "{shell}");
        });
    }
}

#[test]
fn bytes_that_are_no_text_are_the_shells_business() {
    for shell in SHELLS {
        in_shell(shell, &[], |home, terminal| {
            use std::os::unix::ffi::OsStrExt;
            let name = std::ffi::OsStr::from_bytes(b"d\xe9");
            std::fs::create_dir(home.work(name)).unwrap();
            terminal.run("cd d*");
            terminal.run("echo there > file");
            assert_eq!(std::fs::read(home.work(name).join("file")).unwrap(), b"there\n", "{shell}");
            home.write("t.sub", "executable = /bin/pwd\noutput = where\nqueue\n");
            terminal.run("cp ../t.sub .");
            terminal.run("submit t.sub; wait");
            assert!(std::fs::read(home.work(name).join("where")).unwrap().ends_with(b"/d\xe9\n"), "{shell}");
            // Typed, they can't be a line; the next one is read as ever.
            terminal.send(b"echo \xe9\xff x\r");
            terminal.prompt();
            assert_eq!(last(terminal, "echo on"), "on", "{shell}");
        });
    }
}

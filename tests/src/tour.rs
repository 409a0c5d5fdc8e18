//! The README's tour, typed line by line.

use std::fs;

use crate::{Home, Terminal, project};

/// Types the README's `number`th console block (from 0) at a terminal, and compares what comes with what it shows.
///
/// `$ ` and `NAME(grid)% ` begin lines to type; what follows `$ cat > FILE` is typed as well, up to `^D`. Each other line must appear,
/// in this order; `…` in it stands for anything.
pub fn take_tour(home: &mut Home, number: usize) {
    let readme = fs::read_to_string(project().join("README.md")).expect("the README is there");
    let block = readme.split("```console\n").nth(number + 1).and_then(|rest| rest.split("\n```").next());
    // The prompt shows a `!` after a command that failed.
    home.set("PS1", "$(test $? = 0 || echo '!')$ ");
    let mut terminal = home.terminal_of("/bin/bash".as_ref(), ["--norc", "--noprofile", "-i"]);
    terminal.within(crate::seconds(300));
    let mut typing = false;
    for line in block.expect("the README has this block").lines() {
        if typing {
            terminal.type_line(line);
            typing = line != "^D";
        } else if let Some(command) = line.strip_prefix("$ ") {
            succeed(&mut terminal, "$ ");
            typing = command.starts_with("cat > ");
            // A key typed before `cat` reads the terminal would not be its end of file: the shell takes the text instead.
            let text = if typing { " <<'^D'" } else { "" };
            terminal.type_line(&format!("{command}{text}"));
        } else if let Some((_, command)) = line.split_once("(grid)% ") {
            terminal.prompt();
            terminal.type_line(command);
        } else {
            for part in line.split('…').filter(|part| !part.trim().is_empty()) {
                terminal.expect(part);
            }
        }
    }
    succeed(&mut terminal, "$ ");
    terminal.type_line("exit");
    assert_eq!(terminal.exit_code(), 0, "{}", terminal.shown());
}

/// Waits for the shell's prompt; the last command must have succeeded.
fn succeed(terminal: &mut Terminal, prompt: &str) {
    terminal.prompt_of(prompt);
    let before = terminal.shown();
    assert!(!before.ends_with(&format!("!{prompt}")), "a command failed:\n{before}");
}

//! The programs against real batch systems behind real SSH gateways: the sites of contrib/testbed. One test at a time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

mod endure;
mod faults;
mod language;
mod network;
mod nodes;
mod readme;
mod security;
mod shared;
mod spine;
mod ssh;
mod why;

use vo_tests::testbed::Site;
use vo_tests::{Home, Terminal};

/// Runs `undo` when dropped, so that a failed test leaves the testbed as it was.
struct Undo<F: FnMut()>(F);

impl<F: FnMut()> Drop for Undo<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// A plain vo.conf with these gateways.
fn conf(home: &Home, gateways: &[&str]) {
    home.write("vo.conf", gateways.join("\n") + "\n");
}

/// Answers what mesa and grid ask, in whichever order, until the session is there.
fn log_in(terminal: &mut Terminal) {
    let (mut asked_mesa, mut asked_grid) = (false, false);
    while !(asked_mesa && asked_grid) {
        let (_, question) = terminal.expect_any(&["Enter passphrase for key ", "Password: "]);
        if question == 0 {
            terminal.expect("/bob: ");
            terminal.type_line(vo_tests::testbed::PASSPHRASE);
            asked_mesa = true;
        } else {
            terminal.type_line(vo_tests::testbed::PASSWORD);
            terminal.expect("One-time password");
            terminal.expect(": ");
            terminal.type_line(&vo_tests::testbed::one_time_code());
            asked_grid = true;
        }
    }
}

/// `exit`, and nothing of ours is left here or at `sites`.
fn leave(home: &Home, mut terminal: Terminal, sites: &[&Site]) {
    terminal.type_line("exit --force");
    assert_eq!(terminal.within(vo_tests::seconds(90)).exit_code(), 0, "{}", terminal.shown());
    nothing_left(home, sites);
}

/// Nothing of ours is left here or at `sites`.
fn nothing_left(home: &Home, sites: &[&Site]) {
    home.assert_nothing_left();
    for site in sites {
        site.assert_nothing_left();
    }
}

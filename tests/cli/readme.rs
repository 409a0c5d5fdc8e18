//! What the README tells a newcomer to type.

use vo_tests::{Home, seconds, take_tour};

#[test]
fn cargo_run_gives_a_grid_prompt() {
    let mut home = Home::new();
    home.set_cargo();
    let mut terminal = home.terminal_of("cargo".as_ref(), ["run", "--release"]);
    terminal.within(seconds(300)).expect("Welcome to your grid environment.");
    terminal.prompt();
    terminal.type_line("exit");
    assert_eq!(terminal.exit_code(), 0);
    home.assert_nothing_left();
}

#[test]
fn the_tour_on_this_machine() {
    let mut home = Home::new();
    home.set_cargo();
    take_tour(&mut home, 0);
    home.assert_nothing_left();
}

//! vo.conf and command lines that can't be used.

use vo_tests::Home;

/// `vo-login -H vo.conf` with this content must end with exit code 3 and say each of `words`, before any session exists.
fn refused(content: &[u8], words: &[&str]) {
    let home = Home::new();
    home.write("vo.conf", content);
    home.vo(["-H", "vo.conf", "-c", "q"]).code(3).says(words.iter().copied());
    home.assert_nothing_left();
}

#[test]
fn a_missing_vo_conf_is_named() {
    let home = Home::new();
    home.vo(["-H", "absent.conf", "-c", "q"]).code(3).says(["absent.conf", "No such file"]);
    home.assert_nothing_left();
}

#[test]
fn an_unreadable_vo_conf_is_named() {
    let home = Home::new();
    std::fs::create_dir(home.work("vo.conf")).unwrap();
    home.vo(["-H", "vo.conf", "-c", "q"]).code(3).says(["vo.conf", "directory"]);
    home.assert_nothing_left();
}

#[test]
fn bad_lines_are_shown_with_their_place() {
    refused(b"tundra\ntwo words\n", &["vo.conf:2:"]);
    refused(b"[[site]]\ngateway = \"tundra\"\nwalltme = \"10h\"\n", &["vo.conf:3:1", "walltme", "walltime"]);
    refused(b"[[site]]\ngateway = \"tundra\"\nwalltime = \"soon\"\n", &["vo.conf:3:12", "soon"]);
    refused(b"[[site]]\nuser = \"ann\"\n", &["vo.conf:", "gateway"]);
    refused(b"[[site]]\ngateway = \"tundra\n", &["vo.conf:2:"]);
    refused(b"tundra\nb\xff\xfe\n", &["vo.conf:2:2", "UTF-8"]);
}

#[test]
fn bad_options_are_usage_errors() {
    let home = Home::new();
    for options in [&["-n", "4:x"][..], &["-n", "0:4"], &["-W", "soon"], &["-s", "../x"], &["--no-such-option"]] {
        let run = home.vo(options.iter().chain(&["-c", "q"])).code(2);
        assert!(run.stdout.is_empty(), "{options:?} printed {:?}", run.stdout);
        assert!(run.stderr.starts_with("error:"), "{options:?} said {:?}", run.stderr);
    }
    home.assert_nothing_left();
}

#[test]
fn help_and_version_need_no_session() {
    let home = Home::new();
    let help = home.vo(["--help"]).ok().stdout;
    for word in ["-H", "-n", "-W", "-G", "-s", "-c", "130"] {
        assert!(help.contains(word), "--help says nothing of {word}:\n{help}");
    }
    assert!(home.vo(["--version"]).ok().stdout.contains(env!("CARGO_PKG_VERSION")));
    home.assert_nothing_left();
}

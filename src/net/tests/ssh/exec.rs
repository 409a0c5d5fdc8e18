//! Commands and uploads.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vo_net::ssh::{Class, ConnectOptions, ExitStatus, Gateway, SshError, quote};

use crate::server::{Answers, Site, needs_openssh};

pub(crate) const SOON: Duration = Duration::from_secs(60);

/// What both back ends must do alike.
pub(crate) async fn commands(gateway: &Gateway) {
    let run = |command: &'static str, input: &'static [u8]| gateway.exec_collect(command, input, SOON, 1 << 20);
    let output = run("cat; echo oops >&2; exit 3", b"hello").await.unwrap();
    assert_eq!(output.status, ExitStatus::Code(3));
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"hello"[..], &b"oops\n"[..]));
    // A command that doesn't read what it is given, and one that ends with the code that ssh uses for itself.
    assert!(run("true", &[b'x'; 300_000]).await.unwrap().status.success());
    assert_eq!(run("exit 255", b"").await.unwrap().status, ExitStatus::Code(255));

    let too_much = gateway.exec_collect("yes", b"", SOON, 1000).await.unwrap_err();
    assert!(matches!(too_much, SshError::TooMuchOutput { limit: 1000, .. }), "{too_much}");
    let too_long = gateway.exec_collect("sleep 60", b"", Duration::from_millis(300), 10).await.unwrap_err();
    assert!(matches!(too_long, SshError::CommandTimedOut { .. }), "{too_long}");

    // 8 MB each way, and the output's unread half doesn't hurry anyone.
    let exec = gateway.exec("cat").await.unwrap();
    let (mut input, mut output) = (exec.stdin, exec.stdout);
    let data: Vec<u8> = (0..8_000_000_u32).map(|i| (i % 251).try_into().unwrap()).collect();
    let mut back = Vec::new();
    let send = async {
        input.write_all(&data).await.unwrap();
        input.shutdown().await.unwrap();
        drop(input);
    };
    let (_, read) = tokio::join!(send, output.read_to_end(&mut back));
    read.unwrap();
    assert!(data == back);
    assert!(exec.exit.wait().await.unwrap().success());
}

/// What both back ends' uploads must do alike.
pub(crate) async fn uploads(gateway: &Gateway, site: &Site) {
    let data: Vec<u8> = (0..1_000_000_u32).map(|i| (i % 241).try_into().unwrap()).collect();
    let size = u64::try_from(data.len()).unwrap();
    let file = site.path("it's a $(file)");
    let path = file.to_str().unwrap();
    let mut seen = Vec::new();
    gateway.upload(data.as_slice(), size, path, 0o750, |sent| seen.push(sent)).await.unwrap();
    assert!(std::fs::read(&file).unwrap() == data);
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o7777, 0o750);
    assert!(seen.is_sorted() && seen.last() == Some(&size));

    // Less than was said, as when the line is cut: the old file stays, and nothing else is left.
    let before = std::fs::read_dir(site.dir.path()).unwrap().count();
    let cut = gateway.upload(&data[..1000], size, path, 0o750, |_| ()).await.unwrap_err();
    assert!(matches!(&cut, SshError::Upload { stderr, .. } if stderr == "incomplete"), "{cut}");
    assert!(std::fs::read(&file).unwrap() == data);
    assert_eq!(std::fs::read_dir(site.dir.path()).unwrap().count(), before);

    let nowhere = format!("{path}/x");
    let refused = gateway.upload(data.as_slice(), size, &nowhere, 0o600, |_| ()).await.unwrap_err();
    assert!(matches!(&refused, SshError::Upload { stderr, .. } if stderr.contains("irectory")), "{refused}");
}

#[tokio::test]
async fn commands_run() {
    needs_openssh!();
    let gateway = Site::new().connect().await;
    assert!(!gateway.is_system());
    gateway.close().await;
    let site = Site::new();
    let gateway = site.connect().await;
    commands(&gateway).await;
    let killed = gateway.exec_collect("kill -KILL $$", b"", SOON, 10).await.unwrap();
    assert_eq!(killed.status, ExitStatus::Signal("KILL".to_owned()));
    uploads(&gateway, &site).await;
}

#[tokio::test]
async fn one_session_is_enough_and_two_are_refused() {
    needs_openssh!();
    let site = Site::with("MaxSessions 1\n");
    let gateway = site.connect().await;
    for _ in 0..20 {
        assert!(gateway.exec_collect("true", b"", SOON, 4096).await.unwrap().status.success());
    }
    let first = gateway.exec("cat").await.unwrap();
    let refused = gateway.exec("true").await.unwrap_err();
    assert!(matches!(refused, SshError::ChannelRefused { .. }), "{refused}");
    assert_eq!(refused.class(), Class::Blocked);
    // Dropping the first frees its slot once the server agrees, which is soon.
    drop(first);
    let free = async { while gateway.exec("true").await.is_err() {} };
    tokio::time::timeout(SOON, free).await.unwrap();
}

#[tokio::test]
async fn keys_of_all_kinds_and_options_of_all_kinds_are_honoured() {
    needs_openssh!();
    let site = Site::new();
    for kind in ["rsa", "ecdsa", "ed25519"] {
        site.keygen(&format!("id_{kind}"), kind, "");
        site.write("authorized", &site.read(&format!("id_{kind}.pub")));
        site.config(&format!(
            "IdentityFile {}\nIdentitiesOnly yes\nRekeyLimit 1M",
            site.path(&format!("id_{kind}")).display()
        ));
        let target = site.target().await;
        assert_eq!(target.settings.identity_files.len(), 2);
        let gateway = site.connect().await;
        assert!(gateway.exec_collect("true", b"", SOON, 10).await.unwrap().status.success());
    }
    site.write(
        "more",
        "Match host gw exec \"true\"\n ServerAliveInterval 7\n Ciphers aes256-ctr\n MACs hmac-sha2-256\n",
    );
    site.write("authorized", &site.read("id.pub"));
    site.config(&format!("Include {}", site.path("more").display()));
    let target = site.target().await;
    assert_eq!(target.settings.alive_interval, Duration::from_secs(7));
    let gateway = site.connect().await;
    assert!(gateway.exec_collect("true", b"", SOON, 10).await.unwrap().status.success());
}

#[tokio::test]
async fn hosts_behind_hosts_are_reached() {
    needs_openssh!();
    let (jump, site) = (Site::new(), Site::new());
    let other = format!(
        "Host gw\n ProxyJump jump\nHost jump\n HostName 127.0.0.1\n Port {}\n IdentityFile {}\n UserKnownHostsFile {}\n\
         Host jump gw\n IdentityAgent none",
        jump.address.port(),
        jump.path("id").display(),
        jump.path("known").display()
    );
    site.config(&other);
    let target = site.target().await;
    assert_eq!(target.jumps.iter().map(|hop| hop.host.as_str()).collect::<Vec<_>>(), ["jump"]);
    let gateway = site.connect().await;
    commands(&gateway).await;
    gateway.close().await;
    let log = jump.read("sshd.log");
    assert!(log.contains("Accepted publickey"), "{log}");

    // The jump host's own key and login are checked as any other's.
    jump.write("known", "");
    let refused = site.try_connect(&Answers::nobody()).await.unwrap_err();
    assert!(matches!(&refused, SshError::HostKeyUnknown { host, .. } if host == "jump"), "{refused}");
    // A chain that bites its tail ends.
    site.config("Host gw\n ProxyJump jump\nHost jump\n ProxyJump gw");
    let endless = vo_net::ssh::Target::resolve(&site.query("gw")).await.unwrap_err();
    assert!(matches!(endless, SshError::Config { .. }), "{endless}");
}

#[tokio::test]
async fn no_ssh_program_no_configuration() {
    needs_openssh!();
    let site = Site::new();
    let mut query = site.query("127.0.0.1");
    query.program = Some(site.path("no-ssh"));
    query.port = Some(site.address.port());
    let mut target = vo_net::ssh::Target::resolve(&query).await.unwrap();
    assert!(target.needs_system().is_none());
    assert_eq!(target.user, crate::server::user());
    target.settings.user_known_hosts = vec![site.path("known")];
    target.settings.identity_files = vec![site.path("id")];
    target.settings.agent = None;
    let gateway = Gateway::connect(&target, &ConnectOptions::default(), Answers::nobody()).await.unwrap();
    assert!(gateway.exec_collect("true", b"", SOON, 10).await.unwrap().status.success());
}

#[tokio::test]
async fn the_next_address_is_tried() {
    needs_openssh!();
    let site = Site::new();
    // The server listens on 127.0.0.1 alone; where the name means ::1 first, that one refuses.
    site.config("Host gw\n HostName localhost");
    site.write("known", &format!("[localhost]:{} {}\n", site.address.port(), site.public("host_ed25519")));
    site.connect().await;
    site.config("Host gw\n HostName localhost\n AddressFamily inet6");
    let e = site.try_connect(&Answers::nobody()).await.unwrap_err();
    assert_eq!(e.class(), Class::Down, "{e}");
}

#[test]
fn words_are_quoted_for_any_shell() {
    for (word, quoted) in [
        ("a", "a"),
        ("", "''"),
        ("a b", "'a b'"),
        ("it's", r"'it'\''s'"),
        ("$x`y`", "'$x`y`'"),
        ("/x/y-1.2", "/x/y-1.2"),
        ("~", "'~'"),
    ] {
        assert_eq!(quote(word), quoted);
        let said = crate::server::run("sh", &["-c", &format!("printf %s {quoted}")]);
        assert_eq!(said, word);
    }
}

#[test]
fn everything_may_move_between_threads() {
    fn may_move<T: Send>(_: impl FnOnce(&'static Gateway, &'static vo_net::ssh::Target) -> T) {}
    may_move(|_, target| async { Gateway::connect(target, &ConnectOptions::default(), Answers::nobody()).await });
    may_move(|_, _| async { vo_net::ssh::Target::resolve(&vo_net::ssh::TargetQuery::new("x")).await });
    may_move(|gateway, _| gateway.exec("true"));
    may_move(|gateway, _| gateway.exec_collect("true", b"", SOON, 1));
    may_move(|gateway, _| gateway.upload(&b""[..], 0, "x", 0o600, |_| ()));
    may_move(|gateway, _| gateway.closed());
}

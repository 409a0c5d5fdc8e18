//! Hosts that aren't there, hang, turn us away, or vanish.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use vo_net::ssh::{Class, ConnectOptions, Gateway, NoPrompter, SshError, Target, TargetQuery};

use crate::exec::SOON;
use crate::server::{Answers, Site, needs_openssh};

async fn fails(host: &str, port: u16, timeout: Duration) -> SshError {
    let query = TargetQuery { port: Some(port), program: None, user: Some("ann".into()), ..TargetQuery::new(host) };
    let mut target = Target::resolve(&query).await.unwrap();
    target.settings.connect_timeout = timeout;
    target.settings.user_known_hosts = Vec::new();
    Gateway::connect(&target, &ConnectOptions::default(), std::sync::Arc::new(NoPrompter)).await.unwrap_err()
}

/// A server that sends `says`, then keeps the connection for as long as `hold`.
async fn speaker(says: &'static [u8], hold: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(says).await;
            if hold {
                held.push(stream);
            }
        }
    });
    port
}

#[tokio::test]
async fn each_failure_has_its_name_and_class() {
    let short = Duration::from_millis(300);
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let e = fails("127.0.0.1", free, SOON).await;
    assert!(matches!(e, SshError::Refused { .. }) && e.class() == Class::Down, "{e}");
    let e = fails("no-such-host.invalid", 22, SOON).await;
    assert!(matches!(e, SshError::NotFound { .. }) && e.is_transient(), "{e}");
    // Accepts and says nothing, before and after its version.
    let e = fails("127.0.0.1", speaker(b"", true).await, short).await;
    assert!(matches!(e, SshError::TimedOut { .. }) && e.class() == Class::Down, "{e}");
    let e = fails("127.0.0.1", speaker(b"SSH-2.0-x\r\n", true).await, short).await;
    assert!(matches!(e, SshError::TimedOut { .. }), "{e}");
    // Closes at once, says why, or closes after its version.
    let e = fails("127.0.0.1", speaker(b"", false).await, SOON).await;
    assert!(matches!(e, SshError::TurnedAway { .. }) && e.class() == Class::Blocked, "{e}");
    let e = fails("127.0.0.1", speaker(b"Exceeded MaxStartups\r\n", false).await, SOON).await;
    assert!(matches!(&e, SshError::TurnedAway { why, .. } if why == "Exceeded MaxStartups"), "{e}");
    let e = fails("127.0.0.1", speaker(b"SSH-2.0-x\r\n", false).await, SOON).await;
    assert!(matches!(e, SshError::TurnedAway { .. }), "{e}");
    // No SSH server at all.
    let e = fails("127.0.0.1", speaker(b"SSH-2.0-x\r\nGET / HTTP/1.1\r\n\r\n\r\n\r\n\r\n", true).await, SOON).await;
    assert!(matches!(e, SshError::Protocol { .. }) && !e.is_transient(), "{e}");
    for host in ["", "-oProxyCommand=touch /tmp/x", "a b", "a\nb"] {
        let e = Target::resolve(&TargetQuery::new(host)).await.unwrap_err();
        assert!(matches!(e, SshError::Config { .. }), "{e}");
    }
}

#[tokio::test]
async fn a_bad_configuration_is_quoted() {
    needs_openssh!();
    let site = Site::new();
    site.write("config", "Host gw\n Prot 22\n");
    let e = Target::resolve(&site.query("gw")).await.unwrap_err();
    assert!(matches!(&e, SshError::Config { why, .. } if why.contains("Bad configuration option: prot")), "{e}");
    let missing = TargetQuery { config: Some(site.path("none")), ..site.query("gw") };
    let e = Target::resolve(&missing).await.unwrap_err();
    assert!(matches!(&e, SshError::Config { why, .. } if why.contains("No such file")), "{e}");
}

#[tokio::test]
async fn a_stopped_server_is_noticed() {
    needs_openssh!();
    let site = Site::new();
    site.config("ServerAliveInterval 1\nServerAliveCountMax 2");
    let gateway = site.connect().await;
    let exec = gateway.exec("cat").await.unwrap();
    site.signal("STOP");
    let lost = tokio::time::timeout(SOON, gateway.closed()).await.unwrap();
    assert!(lost.to_string().contains("no longer answers"), "{lost}");
    let ended = tokio::time::timeout(SOON, exec.exit.wait()).await.unwrap().unwrap_err();
    assert!(matches!(&ended, SshError::Closed { .. }) && ended.class() == Class::Down, "{ended}");
    site.signal("CONT");
    let after = gateway.exec("true").await.unwrap_err();
    assert!(matches!(after, SshError::Closed { .. }), "{after}");
}

#[tokio::test]
async fn a_killed_server_ends_commands_and_uploads() {
    needs_openssh!();
    let site = Site::new();
    let gateway = site.connect().await;
    let exec = gateway.exec("cat").await.unwrap();
    let endless = tokio::io::repeat(b'x');
    let file = site.path("upload");
    let upload = gateway.upload(endless, u64::MAX, file.to_str().unwrap(), 0o600, |sent| {
        if sent > 4_000_000 {
            site.signal("KILL");
        }
    });
    let failed = tokio::time::timeout(SOON, upload).await.unwrap().unwrap_err();
    assert!(matches!(failed, SshError::Closed { .. }), "{failed}");
    tokio::time::timeout(SOON, gateway.closed()).await.unwrap();
    assert!(matches!(exec.exit.wait().await, Err(SshError::Closed { .. })));
    assert!(!file.exists());
    gateway.close().await;
    // And back again.
    site.try_connect(&Answers::nobody()).await.unwrap();
}

#[tokio::test]
async fn banners_are_shown_without_tricks() {
    needs_openssh!();
    let site = Site::with("Banner DIR/banner\n");
    site.write("banner", "Welcome to \x1b[31mtundra\n\n");
    let user = Answers::nobody();
    site.try_connect(&user).await.unwrap();
    assert_eq!(*user.told.lock().unwrap(), ["Welcome to  [31mtundra"]);
}

//! The system's `ssh` as back end.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use vo_net::ssh::{AskPass, ConnectOptions, SshError};

use crate::exec::{SOON, commands, uploads};
use crate::server::{Answers, Site, needs_openssh};

fn forced(site: &Site) -> ConnectOptions {
    ConnectOptions { force_system: true, control_dir: Some(site.dir.path().to_owned()), ..ConnectOptions::default() }
}

fn sockets(site: &Site) -> usize {
    let is_socket = |name: &str| name.starts_with('m') && name.contains('-');
    std::fs::read_dir(site.dir.path())
        .unwrap()
        .filter(|e| is_socket(e.as_ref().unwrap().file_name().to_str().unwrap()))
        .count()
}

#[tokio::test]
async fn it_does_what_the_other_does() {
    needs_openssh!();
    let site = Site::new();
    let gateway = site.connect_with(&forced(&site), &Answers::nobody()).await.unwrap();
    assert!(gateway.is_system());
    commands(&gateway).await;
    uploads(&gateway, &site).await;
    assert_eq!(sockets(&site), 1);
    gateway.close().await;
    assert_eq!(sockets(&site), 0);
    let log = site.read("sshd.log");
    assert_eq!(log.matches("Accepted publickey").count(), 1, "{log}");
}

#[tokio::test]
async fn a_proxy_command_chooses_it() {
    needs_openssh!();
    let site = Site::new();
    // sshd itself as the way to the host.
    site.config(&format!("ProxyCommand {} -i -f {}", crate::server::SSHD, site.path("sshd_config").display()));
    let gateway = site.connect().await;
    assert!(gateway.is_system());
    let output = gateway.exec_collect("echo here", b"", SOON, 100).await.unwrap();
    assert_eq!(output.stdout, b"here\n");
}

#[tokio::test]
async fn a_master_of_the_users_own_is_joined() {
    needs_openssh!();
    let site = Site::new();
    site.config(&format!("ControlPath {}", site.path("own").display()));
    let own = |args: &[&str]| {
        let status = Command::new("ssh").arg("-F").arg(site.path("config")).args(args).arg("gw").status();
        assert!(status.unwrap().success());
    };
    own(&["-q", "-M", "-N", "-f"]);
    // Nothing but the master can log in now.
    site.write("authorized", "");
    let gateway = site.connect().await;
    assert!(gateway.exec_collect("true", b"", SOON, 10).await.unwrap().status.success());
    gateway.close().await;
    own(&["-q", "-O", "check"]);
    own(&["-q", "-O", "exit"]);
    let refused = site.try_connect(&Answers::nobody()).await.unwrap_err();
    assert!(matches!(refused, SshError::AuthRefused { .. }), "{refused}");
}

#[tokio::test]
async fn its_failures_have_names() {
    needs_openssh!();
    let site = Site::new();
    let options = forced(&site);
    let fails = async || site.connect_with(&options, &Answers::nobody()).await.unwrap_err();
    site.keygen("wrong", "ed25519", "");
    site.write("known", &site.known_line("wrong"));
    let e = fails().await;
    assert!(matches!(&e, SshError::System { stderr, .. } if stderr.contains("IDENTIFICATION HAS CHANGED")), "{e}");
    site.write("known", &site.known_line("host_ed25519"));
    site.write("authorized", "");
    let e = fails().await;
    assert!(matches!(&e, SshError::AuthRefused { offered, .. } if offered == &["publickey"]), "{e}");
    site.config("Host gw\n HostName no-such-host.invalid");
    let e = fails().await;
    assert!(matches!(e, SshError::NotFound { .. }), "{e}");
    site.config("Host gw\n Port 1");
    let e = fails().await;
    assert!(matches!(e, SshError::Refused { port: 1, .. }), "{e}");
    assert_eq!(sockets(&site), 0);
}

#[tokio::test]
async fn its_questions_go_through_askpass() {
    needs_openssh!();
    let site = Site::new();
    std::fs::remove_file(site.path("id")).unwrap();
    site.keygen("id", "ed25519", "open sesame");
    site.write("authorized", &site.read("id.pub"));
    let program = site.path("askpass");
    std::fs::write(&program, "#!/bin/sh\necho \"$1\" >> \"$ASKED\"\necho open sesame\n").unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o700)).unwrap();
    let env = vec![("ASKED".into(), site.path("asked").into())];
    let options = ConnectOptions { askpass: Some(AskPass { program, env }), ..forced(&site) };
    let gateway = site.connect_with(&options, &Answers::give(&[])).await.unwrap();
    assert!(gateway.exec_collect("true", b"", SOON, 10).await.unwrap().status.success());
    assert!(site.read("asked").contains("passphrase"));
    // With nobody to answer, it isn't even started.
    let refused = site.connect_with(&options, &Answers::nobody()).await.unwrap_err();
    assert!(matches!(refused, SshError::AuthRefused { .. }), "{refused}");
    assert_eq!(site.read("asked").lines().count(), 1);
}

#[tokio::test]
async fn its_loss_is_noticed() {
    needs_openssh!();
    let site = Site::new();
    let gateway = site.connect_with(&forced(&site), &Answers::nobody()).await.unwrap();
    let exec = gateway.exec("cat").await.unwrap();
    site.signal("KILL");
    tokio::time::timeout(SOON, gateway.closed()).await.unwrap();
    let ended = tokio::time::timeout(SOON, exec.exit.wait()).await.unwrap();
    assert!(matches!(ended, Err(SshError::Closed { .. })), "{ended:?}");
    assert!(matches!(gateway.exec("true").await, Err(SshError::Closed { .. })));
}

//! Host keys: our verdicts beside those of OpenSSH's own client.

use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;

use vo_net::ssh::SshError;
use vo_net::ssh::known_hosts::{KnownHosts, Verdict, lookup_name};

use crate::server::{Answers, Site, needs_openssh, run};

/// What OpenSSH's client makes of the site's `known` file.
fn openssh(site: &Site, options: &[&str]) -> &'static str {
    let output = Command::new("ssh")
        .arg("-F")
        .arg(site.path("config"))
        .args(["-oBatchMode=yes", "-oUpdateHostKeys=no"])
        .args(options)
        .args(["gw", "true"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        "known"
    } else if said.contains("REVOKED HOST KEY") {
        "revoked"
    } else if said.contains("IDENTIFICATION HAS CHANGED") {
        "changed"
    } else if said.contains("Host key verification failed") {
        "unknown"
    } else {
        panic!("{said}")
    }
}

async fn ours(site: &Site) -> &'static str {
    match site.try_connect(&Answers::nobody()).await {
        Ok(_) => "known",
        Err(SshError::HostKeyRevoked { .. }) => "revoked",
        Err(SshError::HostKeyChanged { .. }) => "changed",
        Err(SshError::HostKeyUnknown { .. }) => "unknown",
        Err(e) => panic!("{e}"),
    }
}

#[tokio::test]
async fn verdicts_are_those_of_openssh() {
    needs_openssh!();
    let site = Site::with("HostKey DIR/host_ed25519\nHostKey DIR/host_ecdsa\n");
    site.keygen("host_ecdsa", "ecdsa", "");
    for kind in ["ed25519", "ecdsa", "rsa"] {
        site.keygen(&format!("wrong_{kind}"), kind, "");
    }
    let (name, port) = (site.name(), site.address.port());
    let [right, ecdsa] = ["host_ed25519", "host_ecdsa"].map(|key| site.public(key));
    let [wrong, wrong_ecdsa, wrong_rsa] = ["wrong_ed25519", "wrong_ecdsa", "wrong_rsa"].map(|key| site.public(key));
    let hashed = |line: &str| {
        site.write("hashed", line);
        run("ssh-keygen", &["-q", "-H", "-f", site.path("hashed").to_str().unwrap()]);
        site.read("hashed")
    };
    let cases = [
        ("nothing", String::new(), "unknown"),
        ("right", format!("{name} {right}"), "known"),
        ("right, another line ends the file", format!("{name} {right}\n\n# x"), "known"),
        ("only the second type", format!("{name} {ecdsa}"), "known"),
        ("wrong", format!("{name} {wrong}"), "changed"),
        ("wrong and right", format!("{name} {wrong}\n{name} {right}"), "known"),
        ("right and wrong", format!("{name} {right}\n{name} {wrong}"), "known"),
        ("wrong of one type, right of the other", format!("{name} {wrong}\n{name} {ecdsa}"), "changed"),
        ("a type that it doesn't have", format!("{name} {wrong_rsa}"), "changed"),
        ("wrong of its second type", format!("{name} {wrong_ecdsa}"), "changed"),
        ("without port", format!("127.0.0.1 {right}"), "known"),
        ("without port, wrong", format!("127.0.0.1 {wrong}"), "unknown"),
        ("wrong with port, right without", format!("{name} {wrong}\n127.0.0.1 {right}"), "changed"),
        ("another port", format!("[127.0.0.1]:{} {right}", port ^ 1), "unknown"),
        ("hashed", hashed(&format!("{name} {right}\n")), "known"),
        ("hashed, wrong", hashed(&format!("{name} {wrong}\n")), "changed"),
        ("hashed, another host", hashed(&format!("elsewhere {wrong}\n")), "unknown"),
        ("revoked", format!("{name} {right}\n@revoked * {right}"), "revoked"),
        ("revoked first", format!("@revoked * {right}\n{name} {right}"), "revoked"),
        ("revoked elsewhere", format!("{name} {right}\n@revoked elsewhere {right}"), "known"),
        ("another revoked", format!("{name} {right}\n@revoked * {wrong}"), "known"),
        ("revoked without port", format!("{name} {right}\n@revoked 127.0.0.1 {right}"), "known"),
        ("revoked only without port", format!("@revoked 127.0.0.1 {right}"), "revoked"),
        ("an authority is no host key", format!("@cert-authority {name} {right}"), "unknown"),
        ("an authority beside it", format!("@cert-authority {name} {wrong}\n{name} {right}"), "known"),
        ("a list", format!("elsewhere,{name} {right}"), "known"),
        ("wildcards", format!("[127.*.?]:{port} {right}"), "known"),
        ("wildcards that miss", format!("[127.?.?.?]:{port}? {right}"), "unknown"),
        ("all", format!("* {wrong}"), "changed"),
        ("negated", format!("[127.*]:*,!{name} {right}"), "unknown"),
        ("negated another", format!("!elsewhere,{name} {right}"), "known"),
        ("only negated", format!("!elsewhere {right}"), "unknown"),
        ("tabs and a comment", format!("\t{name}\t\t{}\ta comment", right.replace(' ', "\t")), "known"),
        ("CRLF", format!("{name} {right}\r\n"), "known"),
        ("CRLF after a comment", format!("{name} {right} me@here\r\n"), "known"),
        ("commented out", format!("#{name} {right}"), "unknown"),
        ("unknown marker", format!("@trusted {name} {right}"), "unknown"),
        ("the type lies", format!("{name} {}", right.replace("ssh-ed25519", "ssh-rsa")), "unknown"),
        ("cut off", format!("{name} {}", &right[..40]), "unknown"),
        ("a bad line first", format!("{name} ssh-ed25519 !!!\n{name} {right}"), "known"),
        ("no key", format!("{name}\n{name} ssh-ed25519\n@revoked\n@cert-authority {name}"), "unknown"),
    ];
    let mut wrongs = Vec::new();
    for (what, text, expected) in cases {
        site.write("known", &text);
        let both = (openssh(&site, &[]), ours(&site).await);
        if both != (expected, expected) {
            wrongs.push(format!("{what}: expected {expected}, OpenSSH {}, ours {}", both.0, both.1));
        }
    }
    assert!(wrongs.is_empty(), "{wrongs:#?}");

    site.config("HostKeyAlias Tundra");
    for (text, expected) in [
        (format!("Tundra {right}"), "known"),
        (format!("{name} {right}"), "unknown"),
        (format!("[Tundra]:{port} {right}"), "unknown"),
    ] {
        site.write("known", &text);
        assert_eq!((openssh(&site, &[]), ours(&site).await), (expected, expected), "{text}");
    }
    // Several files count together.
    site.config(&format!("UserKnownHostsFile {0}/a {0}/b\nGlobalKnownHostsFile {0}/c", site.dir.path().display()));
    site.write("b", &format!("{name} {right}"));
    assert_eq!((openssh(&site, &[]), ours(&site).await), ("known", "known"));
    site.write("c", &format!("@revoked * {right}"));
    assert_eq!((openssh(&site, &[]), ours(&site).await), ("revoked", "revoked"));
}

#[tokio::test]
async fn host_certificates_are_judged_as_openssh_does() {
    needs_openssh!();
    let site = Site::with("HostKey DIR/host_ed25519\nHostCertificate DIR/host_ed25519-cert.pub\n");
    for key in ["ca", "other"] {
        site.keygen(key, "ed25519", "");
    }
    let (name, key) = (site.name(), site.path("host_ed25519.pub"));
    let certify = |args: &[&str]| {
        let ca = site.path("ca");
        let all = [&["-q", "-s", ca.to_str().unwrap(), "-I", "host"], args, &[key.to_str().unwrap()]].concat();
        run("ssh-keygen", &all);
    };
    let [ca, other, plain] = ["ca", "other", "host_ed25519"].map(|key| site.public(key));
    let trusted = format!("@cert-authority [127.*]:* {ca}");
    let good: &[&str] = &["-h", "-n", "127.0.0.1"];
    let cases: [(&str, &[&str], String, &str); 12] = [
        ("trusted", good, trusted.clone(), "known"),
        ("any principal", &["-h"], trusted.clone(), "known"),
        ("another authority", good, format!("@cert-authority * {other}"), "unknown"),
        ("another host", &["-h", "-n", "elsewhere"], trusted.clone(), "unknown"),
        ("another host, plain key known", &["-h", "-n", "elsewhere"], format!("{trusted}\n{name} {plain}"), "known"),
        ("a pattern", &["-h", "-n", "127.*"], trusted.clone(), "unknown"),
        ("over", &["-h", "-n", "127.0.0.1", "-V", "20200101:20200102"], trusted.clone(), "unknown"),
        ("not yet", &["-h", "-n", "127.0.0.1", "-V", "20980101:20980102"], trusted.clone(), "unknown"),
        ("revoked authority", good, format!("{trusted}\n@revoked * {ca}"), "revoked"),
        ("revoked key", good, format!("{trusted}\n@revoked * {plain}"), "revoked"),
        ("authority as a plain key", good, format!("{name} {ca}"), "changed"),
        ("authority for another host", good, format!("@cert-authority elsewhere {ca}"), "unknown"),
    ];
    let mut wrongs = Vec::new();
    for (what, args, text, expected) in cases {
        certify(args);
        site.write("known", &text);
        let both = (openssh(&site, &[]), ours(&site).await);
        if both != (expected, expected) {
            wrongs.push(format!("{what}: expected {expected}, OpenSSH {}, ours {}", both.0, both.1));
        }
    }
    assert!(wrongs.is_empty(), "{wrongs:#?}");
}

#[tokio::test]
async fn unknown_keys_are_asked_about_and_remembered() {
    needs_openssh!();
    let site = Site::new();
    let printed = run("ssh-keygen", &["-l", "-f", site.path("host_ed25519.pub").to_str().unwrap()]);
    let fingerprint = printed.split(' ').nth(1).unwrap();
    let config = |strict: &str, hash: &str| {
        let file = site.path(".ssh/known");
        let _ = std::fs::remove_dir_all(site.path(".ssh"));
        site.config(&format!(
            "UserKnownHostsFile {}\nStrictHostKeyChecking {strict}\nHashKnownHosts {hash}",
            file.display()
        ));
    };
    let user = Answers::give(&[]);

    config("ask", "no");
    let refused = site.try_connect(&user).await.unwrap_err();
    assert!(matches!(&refused, SshError::HostKeyUnknown { key, .. } if key.fingerprint == fingerprint), "{refused}");
    assert!(refused.hint().unwrap().contains("ssh gw"));
    assert!(!site.path(".ssh").exists());
    assert_eq!(user.keys.lock().unwrap()[0].key.name, site.name());

    user.trusting.store(true, Ordering::SeqCst);
    for hash in ["no", "yes"] {
        config("ask", hash);
        site.try_connect(&user).await.unwrap();
        let text = site.read(".ssh/known");
        assert_eq!(text.starts_with("|1|"), hash == "yes", "{text}");
        assert_eq!(ours(&site).await, "known");
        assert_eq!(openssh(&site, &["-oStrictHostKeyChecking=yes"]), "known");
    }
    // Nor is it asked again when the session's keys are renewed, which 8 MB make necessary here.
    let renewing = Site::with("RekeyLimit 512K\nLogLevel DEBUG1\n");
    renewing.write("known", "");
    renewing.config("StrictHostKeyChecking ask");
    let gateway = renewing.try_connect(&user).await.unwrap();
    renewing.write("known", "");
    crate::exec::commands(&gateway).await;
    assert!(renewing.read("sshd.log").matches("rekey in after").count() > 2);
    gateway.close().await;
    // A file without a newline at its end gets one first.
    std::fs::write(site.path(".ssh/known"), "elsewhere ssh-ed25519 AAAA").unwrap();
    site.try_connect(&user).await.unwrap();
    assert_eq!(site.read(".ssh/known").lines().count(), 2);

    for (strict, expected) in [("yes", "unknown"), ("accept-new", "known"), ("no", "known")] {
        config(strict, "no");
        assert_eq!(ours(&site).await, expected, "{strict}");
    }
    assert_eq!(user.keys.lock().unwrap().len(), 5);
    // `no` never accepts a changed key.
    site.keygen("wrong", "ed25519", "");
    std::fs::write(site.path(".ssh/known"), site.known_line("wrong")).unwrap();
    let changed = site.try_connect(&user).await.unwrap_err();
    assert!(matches!(&changed, SshError::HostKeyChanged { line: 1, .. }), "{changed}");
    assert!(changed.hint().unwrap().contains("ssh-keygen -f"));
}

#[test]
fn lookups_need_no_server() {
    let field = |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    let key = [field(b"ssh-ed25519"), field(&[1; 32])].concat();
    let other = [field(b"ssh-rsa"), field(&[1, 0, 1]), field(&[0x7f; 256])].concat();
    let salt = [7; 20];
    let line = |name: &str, key: &[u8], kind: &str, salt| vo_net::ssh::known_hosts::new_line(name, kind, key, salt);
    let mut known = KnownHosts::default();
    known.add("a".as_ref(), &line("gw.example.org", &key, "ssh-ed25519", None));
    known.add("b".as_ref(), &format!("# x\n{}", line("[gw]:2222", &other, "ssh-rsa", Some(&salt))));
    assert_eq!(known.check("gw.example.org", None, &key), Verdict::Known);
    assert_eq!(known.check(&lookup_name("GW.Example.org", 22), None, &key), Verdict::Known);
    assert_eq!(known.check("gw.example.org", None, &other), Verdict::Changed { file: "a".into(), line: 1 });
    assert_eq!(known.check(&lookup_name("gw", 2222), Some("gw"), &other), Verdict::Known);
    assert_eq!(known.check(&lookup_name("gw", 2222), Some("gw"), &key), Verdict::Changed { file: "b".into(), line: 2 });
    assert_eq!(known.check("gw", None, &key), Verdict::Unknown);
    assert_eq!(known.key_types("[gw]:2222", Some("gw.example.org")), ["ssh-rsa", "ssh-ed25519"]);
    // Nothing in a file breaks the reader.
    for text in [
        "\0",
        "|1|",
        "|1||",
        "|1|x|y a b",
        "@",
        "!",
        ",",
        "* * *",
        "\u{feff}x",
        "a b AAAA",
        "a b AAAAAA==",
        "a b /////w==",
    ] {
        let mut known = KnownHosts::default();
        known.add("x".as_ref(), text);
        assert_eq!(known.check("a", None, &key), Verdict::Unknown, "{text:?}");
    }
}

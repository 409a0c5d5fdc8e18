//! Logging in.

use std::process::{Command, Stdio};
use std::sync::Arc;

use vo_net::ssh::{Class, ConnectOptions, PromptKind, SshError};

use crate::server::{Answers, Site, needs_openssh, run};

#[tokio::test]
async fn a_passphrase_is_asked_once() {
    needs_openssh!();
    let site = Site::new();
    std::fs::remove_file(site.path("id")).unwrap();
    site.keygen("id", "ed25519", "open sesame");
    site.write("authorized", &site.read("id.pub"));
    let options = ConnectOptions::default();
    let user = Answers::give(&["wrong", "open sesame"]);
    let (first, second) = tokio::join!(site.connect_with(&options, &user), site.connect_with(&options, &user));
    first.unwrap();
    second.unwrap();
    let question = format!("Enter passphrase for key {}: ", site.path("id").display());
    assert_eq!(user.questions(), [question.clone(), question]);
    assert_eq!(user.asked.lock().unwrap()[1].kind, PromptKind::Passphrase);

    let fresh = || ConnectOptions::default();
    let wrong = site.connect_with(&fresh(), &Answers::give(&["a", "b", "c", "d"])).await.unwrap_err();
    assert!(matches!(&wrong, SshError::Passphrase { key, .. } if *key == site.path("id")), "{wrong}");
    assert_eq!(wrong.class(), Class::Denied);
    let cancelled = site.connect_with(&fresh(), &Answers::give(&[])).await.unwrap_err();
    assert!(matches!(cancelled, SshError::Cancelled { .. }), "{cancelled}");
    let alone = site.connect_with(&fresh(), &Answers::nobody()).await.unwrap_err();
    assert!(matches!(alone, SshError::AuthRefused { .. }), "{alone}");
    assert!(alone.hint().unwrap().contains("ssh-agent"), "{:?}", alone.hint());

    // A key that the server does not want costs no passphrase.
    site.write("authorized", "");
    let user = Answers::give(&["open sesame"]);
    let refused = site.connect_with(&fresh(), &user).await.unwrap_err();
    assert!(matches!(&refused, SshError::AuthRefused { tried, .. } if tried[0].contains("refused")), "{refused}");
    assert_eq!(user.questions(), [""; 0]);
}

#[tokio::test]
async fn old_key_formats_are_read() {
    needs_openssh!();
    let site = Site::with("PubkeyAcceptedAlgorithms +ssh-rsa\n");
    for (format, passphrase) in [("PEM", ""), ("PKCS8", ""), ("PKCS8", "open sesame"), ("PEM", "open sesame")] {
        for name in ["id", "id.pub"] {
            std::fs::remove_file(site.path(name)).unwrap();
        }
        let file = site.path("id");
        run("ssh-keygen", &["-q", "-t", "rsa", "-m", format, "-N", passphrase, "-f", file.to_str().unwrap()]);
        site.write("authorized", &site.read("id.pub"));
        let user = Answers::give(&["open sesame"]);
        let result = site.connect_with(&ConnectOptions::default(), &user).await;
        assert!(result.is_ok(), "{format} {passphrase}: {:?}", result.err());
    }
}

#[tokio::test]
async fn certificates_open_doors_too() {
    needs_openssh!();
    let site = Site::with("TrustedUserCAKeys DIR/ca.pub\n");
    site.keygen("ca", "ed25519", "");
    site.write("authorized", "");
    let sign = |key: &str| {
        let (ca, public) = (site.path("ca"), site.path(&format!("{key}.pub")));
        let user = crate::server::user();
        run("ssh-keygen", &["-q", "-s", ca.to_str().unwrap(), "-I", "me", "-n", &user, public.to_str().unwrap()]);
    };
    sign("id");
    site.connect().await;
    site.keygen("rsa", "rsa", "");
    sign("rsa");
    std::fs::rename(site.path("rsa-cert.pub"), site.path("elsewhere.pub")).unwrap();
    let [key, certificate] = ["rsa", "elsewhere.pub"].map(|name| site.path(name));
    site.config(&format!("Host gw\n IdentityFile {}\n CertificateFile {}", key.display(), certificate.display()));
    std::fs::remove_file(site.path("id-cert.pub")).unwrap();
    site.connect().await;
}

/// An ssh-agent that ends with the test.
struct Agent(std::process::Child);

impl Agent {
    fn start(site: &Site) -> Agent {
        let mut command = Command::new("ssh-agent");
        command.arg("-D").arg("-a").arg(site.path("agent")).stdin(Stdio::null()).stdout(Stdio::null());
        let agent = Agent(command.spawn().unwrap());
        while !site.path("agent").exists() {
            std::thread::yield_now();
        }
        agent
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn the_agent_is_used_as_the_configuration_says() {
    needs_openssh!();
    let site = Site::new();
    let _agent = Agent::start(&site);
    let add = |key: &str| {
        let socket = site.path("agent");
        let status = Command::new("ssh-add").arg("-q").arg(site.path(key)).env("SSH_AUTH_SOCK", socket).status();
        assert!(status.unwrap().success());
    };
    for kind in ["rsa", "ecdsa"] {
        site.keygen(kind, kind, "");
        add(kind);
    }
    std::fs::remove_file(site.path("id")).unwrap();
    let lines = |only: &str| format!("IdentityAgent {}\nIdentitiesOnly {only}", site.path("agent").display());
    site.config(&lines("no"));
    for kind in ["rsa", "ecdsa"] {
        site.write("authorized", &site.read(&format!("{kind}.pub")));
        site.connect().await;
    }
    site.config(&lines("yes"));
    let refused = site.try_connect(&Answers::nobody()).await.unwrap_err();
    let none = ["publickey: no key".to_owned()];
    assert!(matches!(&refused, SshError::AuthRefused { tried, .. } if tried[..] == none), "{refused}");
    // An agent that isn't there is said, and passed over.
    site.keygen("key", "ed25519", "");
    site.config("IdentityAgent /nonexistent/agent");
    let refused = site.try_connect(&Answers::nobody()).await.unwrap_err();
    assert!(
        matches!(&refused, SshError::AuthRefused { tried, .. } if tried[0].starts_with("ssh-agent: ")),
        "{refused}"
    );
}

#[tokio::test]
async fn two_keys_may_both_be_wanted() {
    needs_openssh!();
    let site = Site::with("AuthenticationMethods publickey,publickey\n");
    site.keygen("second", "ecdsa", "");
    let refused = site.try_connect(&Answers::nobody()).await.unwrap_err();
    assert!(
        matches!(&refused, SshError::AuthRefused { tried, .. } if tried[0].ends_with("accepted, but not enough")),
        "{refused}"
    );
    site.write("authorized", &(site.read("id.pub") + &site.read("second.pub")));
    site.config(&format!("Host gw\n IdentityFile {}", site.path("second").display()));
    site.connect().await;
}

#[tokio::test]
async fn a_refusal_says_what_was_tried() {
    needs_openssh!();
    let site = Site::new();
    site.write("authorized", "");
    for name in ["second", "third", "fourth", "fifth", "sixth", "seventh"] {
        site.keygen(name, "ed25519", "");
    }
    let refused = site.try_connect(&Answers::give(&[])).await.unwrap_err();
    let SshError::AuthRefused { user, tried, offered, .. } = &refused else { panic!("{refused}") };
    assert_eq!(*user, crate::server::user());
    assert_eq!(*tried, [format!("publickey {}: refused", site.path("id").display())]);
    assert_eq!(offered, &["publickey"]);
    assert!(!refused.is_transient());
    // So many that the server hangs up.
    let file = |name| format!(" IdentityFile {}\n", site.path(name).display());
    let files: String = ["second", "third", "fourth", "fifth", "sixth", "seventh"].map(file).concat();
    site.config(&format!("Host gw\n{files}"));
    let refused = site.try_connect(&Answers::give(&[])).await.unwrap_err();
    assert!(
        matches!(&refused, SshError::AuthRefused { tried, .. } if tried.last().unwrap().contains("Too many")),
        "{refused}"
    );
}

mod questions {
    //! A server that asks: what OpenSSH's does only with PAM.

    use std::borrow::Cow;

    use russh::keys::{Algorithm, PrivateKey};
    use russh::server::{Auth, Handler, Response};
    use russh::{MethodKind, MethodSet};
    use vo_net::ssh::{Gateway, Target, TargetQuery};

    use super::*;

    /// Wants a password and then, in a second request of the same method, a one-time code; ends with a request of zero
    /// questions. With `two_factors`, wants the account's password first.
    struct Asker {
        round: usize,
        two_factors: bool,
        passed: bool,
    }

    fn ask(name: &'static str, prompts: Vec<(&'static str, bool)>) -> Auth {
        let prompts = prompts.into_iter().map(|(text, echo)| (Cow::Borrowed(text), echo)).collect::<Vec<_>>();
        Auth::Partial { name: name.into(), instructions: "Mind the \x1b[31mgap".into(), prompts: prompts.into() }
    }

    fn refuse(methods: &[MethodKind], partial_success: bool) -> Auth {
        Auth::Reject { proceed_with_methods: Some(MethodSet::from(methods)), partial_success }
    }

    impl Handler for Asker {
        type Error = russh::Error;

        async fn auth_none(&mut self, _: &str) -> Result<Auth, russh::Error> {
            let first = if self.two_factors { MethodKind::Password } else { MethodKind::KeyboardInteractive };
            Ok(refuse(&[first], false))
        }

        async fn auth_password(&mut self, _: &str, password: &str) -> Result<Auth, russh::Error> {
            self.passed = password == "secret";
            let next = if self.passed { MethodKind::KeyboardInteractive } else { MethodKind::Password };
            Ok(refuse(&[next], self.passed))
        }

        async fn auth_keyboard_interactive<'a>(
            &'a mut self,
            _: &str,
            _: &str,
            response: Option<Response<'a>>,
        ) -> Result<Auth, russh::Error> {
            let answers: Vec<String> =
                response.into_iter().flatten().map(|answer| String::from_utf8_lossy(&answer).into_owned()).collect();
            self.round += 1;
            let good = match self.round {
                1 => return Ok(ask("Login", vec![("Password: ", false), ("Colour:", true)])),
                2 => answers == ["secret", "blue"],
                3 => answers == ["123456"],
                _ => answers.is_empty(),
            };
            Ok(match self.round {
                _ if !good => {
                    self.round = 0;
                    refuse(&[MethodKind::KeyboardInteractive], false)
                }
                2 => ask("", vec![("Code", false)]),
                3 => ask("", vec![]),
                _ => Auth::Accept,
            })
        }
    }

    async fn try_login(user: &Arc<Answers>, two_factors: bool) -> Result<Gateway, SshError> {
        let dir = tempfile::tempdir().unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let key = PrivateKey::random(&mut rand_of_ring(), Algorithm::Ed25519).unwrap();
        let config = russh::server::Config {
            keys: vec![key],
            auth_rejection_time: std::time::Duration::ZERO,
            max_auth_attempts: 20,
            ..Default::default()
        };
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let asker = Asker { round: 0, two_factors, passed: false };
            if let Ok(session) = russh::server::run_stream(Arc::new(config), stream, asker).await {
                let _ = session.await;
            }
        });
        let query =
            TargetQuery { port: Some(port), program: None, user: Some("ann".into()), ..TargetQuery::new("127.0.0.1") };
        let mut target = Target::resolve(&query).await.unwrap();
        target.settings.user_known_hosts = vec![dir.path().join("known")];
        target.settings.identity_files = Vec::new();
        target.settings.agent = None;
        target.settings.strict_host_keys = vo_net::ssh::StrictHostKeys::AcceptNew;
        let prompter: Arc<dyn vo_net::ssh::Prompter> = Arc::<Answers>::clone(user);
        let result = Gateway::connect(&target, &ConnectOptions::default(), prompter).await;
        server.abort();
        result
    }

    fn rand_of_ring() -> impl russh::keys::ssh_key::rand_core::CryptoRng {
        russh::keys::key::safe_rng()
    }

    #[tokio::test]
    async fn several_questions_in_several_rounds() {
        let user = Answers::give(&["secret", "blue", "123456"]);
        try_login(&user, false).await.unwrap();
        assert_eq!(user.questions(), ["Password: ", "Colour: ", "Code "]);
        let asked = user.asked.lock().unwrap();
        assert_eq!(asked.iter().map(|prompt| prompt.echo).collect::<Vec<_>>(), [false, true, false]);
        assert_eq!(asked[0].instruction, "Login\nMind the  [31mgap");
        assert_eq!(asked[1].instruction, "");
    }

    #[tokio::test]
    async fn a_wrong_answer_is_asked_again_three_times_at_most() {
        let user = Answers::give(&["secret", "red", "secret", "blue", "123456"]);
        try_login(&user, false).await.unwrap();
        let user = Answers::give(&["x"; 20]);
        let refused = try_login(&user, false).await.unwrap_err();
        assert!(matches!(refused, SshError::AuthRefused { .. }), "{refused}");
        assert_eq!(user.questions().len(), 6);
    }

    #[tokio::test]
    async fn password_and_then_code() {
        let user = Answers::give(&["wrong", "secret", "secret", "blue", "123456"]);
        try_login(&user, true).await.unwrap();
        let own = "ann@127.0.0.1's password: ";
        assert_eq!(user.questions(), [own, own, "Password: ", "Colour: ", "Code "]);
    }

    #[tokio::test]
    async fn nobody_there_and_cancelled() {
        let alone = try_login(&Answers::nobody(), false).await.unwrap_err();
        assert!(alone.hint().is_some_and(|hint| hint.contains("terminal")), "{alone}");
        let cancelled = try_login(&Answers::give(&["secret"]), false).await.unwrap_err();
        assert!(matches!(cancelled, SshError::Cancelled { .. }), "{cancelled}");
    }
}

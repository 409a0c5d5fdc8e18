//! sshd, keys, configuration and a user who answers.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use vo_net::ssh::{Answer, ConnectOptions, Gateway, HostKeyQuestion, Prompt, Prompter, SshError, Target, TargetQuery};

pub(crate) const SSHD: &str = "/usr/sbin/sshd";

/// Whether the programs are there; if not, says so.
pub(crate) fn installed() -> bool {
    let there = Path::new(SSHD).exists() && Path::new("/usr/bin/ssh").exists();
    if !there {
        // Straight to the stream: the harness hides what the macros print.
        let why = "SKIPPED: needs OpenSSH's client and server (apt-get install openssh-client openssh-server)";
        let _ = writeln!(std::io::stderr(), "{why}");
    }
    there
}

/// Returns from the test, visibly, where OpenSSH is missing.
macro_rules! needs_openssh {
    () => {
        if !crate::server::installed() {
            return;
        }
    };
}
pub(crate) use needs_openssh;

pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn user() -> String {
    run("id", &["-un"]).trim().to_owned()
}

/// A directory with keys, a server, and a configuration for the client.
pub(crate) struct Site {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) address: SocketAddr,
    children: Arc<Mutex<Vec<std::process::Child>>>,
    stop: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
}

impl Site {
    /// A server with host key `host_ed25519` that lets `id` in, and a configuration with the host `gw` that knows it.
    pub(crate) fn new() -> Site {
        Site::with("")
    }

    /// The same, with more lines for `sshd_config`, before the usual ones. `DIR` stands for the directory.
    pub(crate) fn with(sshd_config: &str) -> Site {
        let dir = tempfile::Builder::new().prefix("vo").tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let site = Site {
            address: listener.local_addr().unwrap(),
            dir,
            children: Arc::default(),
            stop: Arc::default(),
            listener: None,
        };
        site.keygen("host_ed25519", "ed25519", "");
        site.keygen("id", "ed25519", "");
        site.write("authorized", &site.read("id.pub"));
        let mut config = sshd_config.replace("DIR", site.path("").to_str().unwrap().trim_end_matches('/'));
        if !sshd_config.contains("HostKey ") {
            writeln!(config, "HostKey {}", site.path("host_ed25519").display()).unwrap();
        }
        writeln!(config, "AuthorizedKeysFile {}", site.path("authorized").display()).unwrap();
        config.push_str(
            "StrictModes no\nUsePAM no\nPidFile none\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n",
        );
        site.write("sshd_config", &config);
        site.write("known", &site.known_line("host_ed25519"));
        site.config("");
        // Root's sshd wants its empty directory, which the package's service makes.
        let _ = std::fs::create_dir("/run/sshd");
        site.serve(listener)
    }

    fn serve(mut self, listener: TcpListener) -> Site {
        let (children, stop) = (Arc::clone(&self.children), Arc::clone(&self.stop));
        let (config, log) = (self.path("sshd_config"), self.path("sshd.log"));
        self.listener = Some(std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let input = OwnedFd::from(stream.unwrap());
                let output = input.try_clone().unwrap();
                let mut sshd = Command::new(SSHD);
                sshd.arg("-i").arg("-f").arg(&config).arg("-E").arg(&log);
                let child = sshd.stdin(Stdio::from(input)).stdout(Stdio::from(output)).stderr(Stdio::null()).spawn();
                children.lock().unwrap().push(child.unwrap());
            }
        }));
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn keygen(&self, name: &str, kind: &str, passphrase: &str) {
        let file = self.path(name);
        let bits: &[&str] = if kind == "rsa" { &["-b", "2048"] } else { &[] };
        let args = [&["-q", "-t", kind, "-N", passphrase, "-C", name, "-f", file.to_str().unwrap()], bits].concat();
        run("ssh-keygen", &args);
    }

    /// `type base64` of a public key.
    pub(crate) fn public(&self, name: &str) -> String {
        self.read(&format!("{name}.pub")).split(' ').take(2).collect::<Vec<_>>().join(" ")
    }

    /// The server's name in `known_hosts`.
    pub(crate) fn name(&self) -> String {
        format!("[127.0.0.1]:{}", self.address.port())
    }

    pub(crate) fn known_line(&self, key: &str) -> String {
        format!("{} {}\n", self.name(), self.public(key))
    }

    /// Writes the client's configuration; `lines` come first and so win.
    pub(crate) fn config(&self, lines: &str) {
        let dir = self.dir.path().display();
        self.write(
            "config",
            &format!(
                "{lines}\nHost gw\n HostName 127.0.0.1\n Port {}\n User {}\n IdentityFile {dir}/id\n IdentityAgent none\n\
                 Host *\n UserKnownHostsFile {dir}/known\n GlobalKnownHostsFile none\n",
                self.address.port(),
                user(),
            ),
        );
    }

    pub(crate) fn query(&self, host: &str) -> TargetQuery {
        TargetQuery { config: Some(self.path("config")), ..TargetQuery::new(host) }
    }

    pub(crate) async fn target(&self) -> Target {
        Target::resolve(&self.query("gw")).await.unwrap()
    }

    pub(crate) async fn try_connect(&self, prompter: &Arc<Answers>) -> Result<Gateway, SshError> {
        let options = ConnectOptions { control_dir: Some(self.dir.path().to_owned()), ..ConnectOptions::default() };
        self.connect_with(&options, prompter).await
    }

    pub(crate) async fn connect_with(
        &self,
        options: &ConnectOptions,
        prompter: &Arc<Answers>,
    ) -> Result<Gateway, SshError> {
        let prompter: Arc<dyn Prompter> = Arc::<Answers>::clone(prompter);
        Gateway::connect(&self.target().await, options, prompter).await
    }

    /// Connects without a question.
    pub(crate) async fn connect(&self) -> Gateway {
        self.try_connect(&Answers::nobody()).await.unwrap()
    }

    /// Sends a signal to every sshd process of this site, those without privileges included.
    pub(crate) fn signal(&self, signal: &str) {
        for child in self.children.lock().unwrap().iter() {
            let family = run("ps", &["-eo", "pid=,ppid="]);
            let mut pids = vec![child.id().to_string()];
            for line in family.lines() {
                let (pid, parent) = line.trim().split_once(' ').unwrap();
                if pids.iter().any(|p| p == parent.trim()) {
                    pids.push(pid.to_owned());
                }
            }
            for pid in pids {
                let _ = Command::new("kill").args([format!("-{signal}"), pid]).stderr(Stdio::null()).status();
            }
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
        self.signal("KILL");
        for child in self.children.lock().unwrap().iter_mut() {
            let _ = child.wait();
        }
    }
}

/// A user: gives answers in order, and remembers what was asked and said. `None` cancels.
#[derive(Default)]
pub(crate) struct Answers {
    interactive: bool,
    answers: Mutex<VecDeque<Option<String>>>,
    pub(crate) trusting: AtomicBool,
    pub(crate) asked: Mutex<Vec<Prompt>>,
    pub(crate) keys: Mutex<Vec<HostKeyQuestion>>,
    pub(crate) told: Mutex<Vec<String>>,
}

impl Answers {
    pub(crate) fn nobody() -> Arc<Answers> {
        Arc::default()
    }

    pub(crate) fn give(answers: &[&str]) -> Arc<Answers> {
        let answers = Mutex::new(answers.iter().map(|answer| Some((*answer).to_owned())).collect());
        Arc::new(Answers { interactive: true, answers, ..Answers::default() })
    }

    pub(crate) fn questions(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|prompt| prompt.text.clone()).collect()
    }
}

impl Prompter for Answers {
    fn interactive(&self) -> bool {
        self.interactive
    }

    fn ask(&self, prompt: Prompt) -> Answer<'_, Option<String>> {
        assert!(self.interactive, "asked {prompt:?} of nobody");
        self.asked.lock().unwrap().push(prompt);
        let answer = self.answers.lock().unwrap().pop_front().flatten();
        Box::pin(async { answer })
    }

    fn confirm_host_key(&self, question: HostKeyQuestion) -> Answer<'_, bool> {
        assert!(self.interactive, "asked {question:?} of nobody");
        self.keys.lock().unwrap().push(question);
        let trusting = self.trusting.load(Ordering::SeqCst);
        Box::pin(async move { trusting })
    }

    fn info(&self, _: &str, text: &str) {
        self.told.lock().unwrap().push(text.to_owned());
    }
}

//! The system's `ssh` with a control socket of our own: for what russh lacks (Kerberos, ProxyCommand, hardware keys), and to
//! share a master connection that the user already has.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::{oneshot, watch};

use super::gateway::{ConnectOptions, Exec, ExecExit, ExitStatus};
use super::target::client_args;
use super::{Prompter, SshError, Target};

/// Exit code of `ssh` for its own failures; remote commands may use it too.
const OWN_FAILURE: i32 = 255;
/// Longest time a login may take, with all the user's answers.
const LOGIN_TIME: Duration = Duration::from_secs(600);
/// Longest time for `ssh -O`, which talks to a local socket.
const CONTROL_TIME: Duration = Duration::from_secs(10);
/// Most of `ssh`'s own words that are kept.
const MOST_WORDS: usize = 64 * 1024;

/// A program that asks the user what `ssh` wants to know: `SSH_ASKPASS` in ssh(1). It gets the question as its argument, and
/// prints the answer.
#[derive(Clone, Debug)]
pub struct AskPass {
    /// The program.
    pub program: PathBuf,
    /// Environment that tells it whom to ask. Nothing secret.
    pub env: Vec<(OsString, OsString)>,
}

/// A master connection and the means to use it.
#[derive(Debug)]
pub(super) struct Connection {
    target: Target,
    socket: PathBuf,
    lost: watch::Receiver<Option<String>>,
    /// Ends the master when dropped; `None` for one of the user's own.
    stop: Option<oneshot::Sender<oneshot::Sender<()>>>,
}

impl Connection {
    pub(super) async fn open(
        target: &Target,
        options: &ConnectOptions,
        prompter: &dyn Prompter,
    ) -> Result<Connection, SshError> {
        if let Some(own) = &target.settings.control_path
            && alive(target, own).await
        {
            return Ok(Connection::joined(target, own));
        }
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let missing =
            || SshError::Config { host: target.host.clone(), why: "no directory for its control socket".to_owned() };
        let dir = options.control_dir.as_deref().ok_or_else(missing)?;
        let socket = dir.join(format!("m{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));

        let settings = &target.settings;
        let mut command = client(target, &socket);
        command.args(["-M", "-N", "-oControlPersist=no", "-oRequestTTY=no", "-oRemoteCommand=none"]);
        // ssh takes the first value given, so these are overridden by nothing; the configuration's own are in `settings`.
        command.arg(format!("-oServerAliveInterval={}", settings.alive_interval.as_secs()));
        command.arg(format!("-oServerAliveCountMax={}", settings.alive_count));
        command.arg(format!("-oConnectTimeout={}", settings.connect_timeout.as_secs()));
        match options.askpass.as_ref().filter(|_| prompter.interactive()) {
            Some(askpass) => {
                command.env("SSH_ASKPASS", &askpass.program).env("SSH_ASKPASS_REQUIRE", "force");
                command.envs(askpass.env.iter().cloned());
                if std::env::var_os("DISPLAY").is_none() {
                    command.env("DISPLAY", ":0");
                }
            }
            None => {
                command.arg("-oBatchMode=yes");
            }
        }
        command.arg("--").arg(&target.host);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
        let mut master = command.spawn().map_err(|source| cannot_run(target, source))?;

        // The words are read all the time: a full pipe would stop the master.
        let (words_sender, words) = watch::channel(Vec::new());
        if let Some(mut stderr) = master.stderr.take() {
            tokio::spawn(async move {
                let mut buffer = vec![0; 4096];
                while let Ok(count @ 1..) = stderr.read(&mut buffer).await {
                    let new = buffer.get(..count).unwrap_or_default();
                    words_sender.send_modify(|words| {
                        words.extend_from_slice(new);
                        let surplus = words.len().saturating_sub(MOST_WORDS);
                        words.drain(..surplus);
                    });
                }
            });
        }
        let ready = tokio::time::timeout(LOGIN_TIME, ready(&mut master, target, &socket)).await;
        match ready {
            Ok(true) => (),
            Ok(false) => {
                let _ = words_end(&words).await;
                return Err(explain(target, &String::from_utf8_lossy(&words.borrow())));
            }
            Err(_) => {
                return Err(SshError::TimedOut { host: target.host.clone(), after: LOGIN_TIME });
            }
        }
        let said = String::from_utf8_lossy(&words.borrow()).trim().to_owned();
        if !said.is_empty() {
            prompter.info(&target.host, &super::prompt::printable(&said));
        }

        let (lost_sender, lost) = watch::channel(None);
        let (stop, stopped) = oneshot::channel::<oneshot::Sender<()>>();
        let watched = (client(target, &socket), target.host.clone());
        tokio::spawn(async move {
            let told = tokio::select! {
                _ = master.wait() => None,
                told = stopped => Some(told),
            };
            if let Some(told) = told {
                let (mut exit, host) = watched;
                exit.args(["-O", "exit", "--"]).arg(host);
                let gone = async {
                    quiet(&mut exit).await;
                    let _ = master.wait().await;
                };
                if tokio::time::timeout(CONTROL_TIME, gone).await.is_err() {
                    let _ = master.kill().await;
                }
                lost_sender.send_replace(Some("we closed it".to_owned()));
                if let Ok(told) = told {
                    let _ = told.send(());
                }
            } else {
                let _ = words_end(&words).await;
                let words = String::from_utf8_lossy(&words.borrow()).trim().to_owned();
                let last = words.lines().last().unwrap_or("the system's ssh ended").to_owned();
                lost_sender.send_replace(Some(last));
            }
        });
        Ok(Connection { target: target.clone(), socket, lost, stop: Some(stop) })
    }

    /// Uses the user's own master, which ends when they say so.
    fn joined(target: &Target, socket: &Path) -> Connection {
        let (lost_sender, lost) = watch::channel(None);
        let (watched, own) = (target.clone(), socket.to_owned());
        tokio::spawn(async move {
            // A master of someone else's can't be waited for, only asked.
            let mut tick = tokio::time::interval(watched.settings.alive_interval.max(Duration::from_secs(1)));
            loop {
                tokio::select! {
                    () = lost_sender.closed() => return,
                    _ = tick.tick() => (),
                }
                if !alive(&watched, &own).await {
                    lost_sender.send_replace(Some("your ControlMaster ended".to_owned()));
                    return;
                }
            }
        });
        Connection { target: target.clone(), socket: socket.to_owned(), lost, stop: None }
    }

    pub(super) fn exec(&self, command: &str) -> Result<Exec, SshError> {
        let host = self.target.host.clone();
        if let Some(why) = self.lost.borrow().clone() {
            return Err(SshError::Closed { host, why });
        }
        let mut ssh = client(&self.target, &self.socket);
        // Never a login of its own: without the master this must fail, not ask.
        ssh.args(["-oControlMaster=no", "-oBatchMode=yes", "-oProxyCommand=false", "-T", "--"]).arg(&host).arg(command);
        ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
        let mut child = ssh.spawn().map_err(|source| cannot_run(&self.target, source))?;
        let (Some(stdin), Some(stdout), Some(mut words)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(SshError::Closed { host, why: "no pipes to ssh".to_owned() });
        };
        let (stderr, mut to_caller) = tokio::io::duplex(MOST_WORDS);
        let (mut sender, exit) = oneshot::channel();
        let (lost, target, socket) = (self.lost.clone(), self.target.clone(), self.socket.clone());
        tokio::spawn(async move {
            let mut last = Vec::new();
            let mut wanted = true;
            let relay = async {
                let mut buffer = vec![0; 4096];
                while let Ok(count @ 1..) = words.read(&mut buffer).await {
                    let new = buffer.get(..count).unwrap_or_default();
                    last.extend_from_slice(new);
                    let surplus = last.len().saturating_sub(MOST_WORDS);
                    last.drain(..surplus);
                    wanted = wanted && to_caller.write_all(new).await.is_ok();
                }
                drop(to_caller);
                child.wait().await
            };
            let ended = tokio::select! {
                ended = relay => ended,
                // Nobody waits: kill_on_drop ends the child.
                () = sender.closed() => return,
            };
            let words = String::from_utf8_lossy(&last).trim().to_owned();
            let status = match ended {
                Err(source) => Err(SshError::Closed { host, why: source.to_string() }),
                Ok(status) => match (status.code(), status.signal()) {
                    (Some(OWN_FAILURE), _) if refused_session(&words) => {
                        Err(SshError::ChannelRefused { host, why: words })
                    }
                    // The command's own exit code, or that of an ssh which lost its master.
                    (Some(OWN_FAILURE), _) if !alive(&target, &socket).await => {
                        Err(SshError::Closed { host, why: lost.borrow().clone().unwrap_or(words) })
                    }
                    (Some(code), _) => Ok(ExitStatus::Code(u32::try_from(code).unwrap_or(u32::MAX))),
                    (None, signal) => Err(SshError::Closed {
                        host,
                        why: format!("the local ssh was killed by signal {}", signal.unwrap_or(0)),
                    }),
                },
            };
            let _ = sender.send(status);
        });
        Ok(Exec { stdin: Box::new(stdin), stdout: Box::new(stdout), stderr: Box::new(stderr), exit: ExecExit(exit) })
    }

    pub(super) async fn closed(&self) -> String {
        let why = self.lost.clone().wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        why.unwrap_or_else(|| "the connection ended".to_owned())
    }

    pub(super) async fn close(mut self) {
        if let Some(stop) = self.stop.take() {
            let (told, done) = oneshot::channel();
            if stop.send(told).is_ok() {
                let _ = done.await;
            }
        }
    }
}

fn cannot_run(target: &Target, source: std::io::Error) -> SshError {
    SshError::Program { program: program(target), source }
}

fn program(target: &Target) -> PathBuf {
    target.query.program.clone().unwrap_or_else(|| PathBuf::from("ssh"))
}

/// `ssh` with what the target overrides and this control socket.
fn client(target: &Target, socket: &Path) -> Command {
    let mut command = Command::new(program(target));
    command.args(client_args(&target.query)).arg("-S").arg(socket);
    command.args(["-oClearAllForwardings=yes", "-oForwardAgent=no", "-oForwardX11=no"]);
    command
}

/// Runs a command without input and output; whether it succeeded.
async fn quiet(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).kill_on_drop(true);
    command.status().await.is_ok_and(|status| status.success())
}

/// Whether a master listens at a control socket.
async fn alive(target: &Target, socket: &Path) -> bool {
    let mut check = client(target, socket);
    check.args(["-O", "check", "--"]).arg(&target.host);
    tokio::time::timeout(CONTROL_TIME, quiet(&mut check)).await.unwrap_or(false)
}

/// Waits until the master serves its socket, which it does once logged in; `false` if it ended instead.
async fn ready(master: &mut Child, target: &Target, socket: &Path) -> bool {
    loop {
        // ssh gives no other sign than the socket's appearance.
        tokio::select! {
            _ = master.wait() => return false,
            () = tokio::time::sleep(Duration::from_millis(20)) => (),
        }
        if socket.exists() && alive(target, socket).await {
            return true;
        }
    }
}

/// Waits until all that a dead `ssh` said was read.
async fn words_end(words: &watch::Receiver<Vec<u8>>) -> Result<(), watch::error::RecvError> {
    let mut words = words.clone();
    let all = async { while words.changed().await.is_ok() {} };
    // Its children (a ProxyCommand) may hold the pipe open.
    let _ = tokio::time::timeout(Duration::from_secs(1), all).await;
    Ok(())
}

fn refused_session(words: &str) -> bool {
    words.contains("Session open refused by peer") || words.contains("open failed")
}

/// Turns what `ssh` said into the error it means, or hands on its words.
fn explain(target: &Target, words: &str) -> SshError {
    let host = target.host.clone();
    let has = |text: &str| words.contains(text);
    let stderr = words.trim().to_owned();
    let last = stderr.lines().last().unwrap_or_default().to_owned();
    if has("Could not resolve hostname") {
        SshError::NotFound { hostname: target.hostname.clone(), source: std::io::Error::other(last) }
    } else if has("Connection refused") {
        SshError::Refused { host, port: target.port }
    } else if has("Connection timed out") || has("Operation timed out") {
        SshError::TimedOut { host, after: target.settings.connect_timeout }
    } else if has("No route to host") || has("Network is unreachable") {
        SshError::Unreachable { host, source: std::io::Error::other(last) }
    } else if has("kex_exchange_identification") && target.needs_system() == Some("ProxyCommand") {
        let own = ["kex_exchange_identification", "Connection closed by", "Connection reset by"];
        let theirs = stderr.lines().filter(|line| !own.iter().any(|word| line.starts_with(word)));
        SshError::ProxyCommand { host, why: theirs.collect::<Vec<_>>().join("; ") }
    } else if has("kex_exchange_identification") || has("Exceeded MaxStartups") || has("Not allowed at this time") {
        SshError::TurnedAway { host, why: last }
    } else if has("Permission denied (") || has("Too many authentication failures") {
        let offered = last.split_once('(').and_then(|(_, list)| list.split_once(')'));
        let offered = offered.map(|(list, _)| list.split(',').map(str::to_owned).collect()).unwrap_or_default();
        SshError::AuthRefused { host, user: target.user.clone(), tried: vec![last], offered }
    } else {
        SshError::System { host, stderr }
    }
}

//! A connection to a gateway, whoever serves it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;

use super::auth::KeyRing;
use super::system::AskPass;
use super::{Prompter, SshError, Target, builtin, system};

/// How to connect, beyond what the target says.
#[derive(Clone, Debug, Default)]
pub struct ConnectOptions {
    /// Use the system's `ssh` even where the built-in client would do (`-G`).
    pub force_system: bool,
    /// A directory of the caller's, mode 0700, for the control sockets of the system's `ssh`. Its path must be short:
    /// Unix sockets have 107 bytes, of which `ssh` takes 17 for itself. Needed for that back end only.
    pub control_dir: Option<PathBuf>,
    /// How the system's `ssh` asks its questions; without it, it asks none and fails where it would have to.
    pub askpass: Option<AskPass>,
    /// Private keys unlocked so far. Share one among all connections, and each passphrase is asked once.
    pub keys: KeyRing,
}

/// How a remote command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// It exited with this code.
    Code(u32),
    /// A signal killed it; the name is without `SIG`, such as `KILL`.
    Signal(String),
}

impl ExitStatus {
    /// Exit code 0.
    pub fn success(&self) -> bool {
        *self == Self::Code(0)
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(name) => write!(f, "signal {name}"),
        }
    }
}

/// What a finished remote command left.
#[derive(Clone, Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error output.
    pub stderr: Vec<u8>,
}

/// A running remote command. Read `stdout` and `stderr` at the same time: a full one holds up the other. One that is dropped
/// discards what comes, or, with the system's `ssh`, may end the command as a broken pipe does. Shutting `stdin` down, or
/// dropping it, ends the command's input.
pub struct Exec {
    /// The command's standard input.
    pub stdin: Box<dyn AsyncWrite + Send + Sync + Unpin>,
    /// The command's standard output.
    pub stdout: Box<dyn AsyncRead + Send + Sync + Unpin>,
    /// The command's standard error output.
    pub stderr: Box<dyn AsyncRead + Send + Sync + Unpin>,
    /// The command's end.
    pub exit: ExecExit,
}

impl fmt::Debug for Exec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exec").finish_non_exhaustive()
    }
}

/// The end of a remote command. Dropping it closes the command's channel (which, as ever with SSH, need not kill it).
#[derive(Debug)]
pub struct ExecExit(pub(super) oneshot::Receiver<Result<ExitStatus, SshError>>);

impl ExecExit {
    /// Waits until the command has ended and its channel is closed on both sides.
    pub async fn wait(self) -> Result<ExitStatus, SshError> {
        // The sender is only lost when the runtime shuts down.
        self.0.await.unwrap_or_else(|_| {
            Err(SshError::Closed { host: "gateway".to_owned(), why: "we are shutting down".to_owned() })
        })
    }
}

/// Quotes a word for a remote shell, of whatever kind.
pub fn quote(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// One connection to a gateway. Commands run side by side, each on a channel of its own, as far as the server's MaxSessions
/// allows.
#[derive(Debug)]
pub struct Gateway {
    host: String,
    inner: Inner,
}

#[derive(Debug)]
enum Inner {
    Builtin(Box<builtin::Connection>),
    System(Box<system::Connection>),
}

impl Gateway {
    /// Connects, checks the host key, logs in.
    pub async fn connect(
        target: &Target,
        options: &ConnectOptions,
        prompter: Arc<dyn Prompter>,
    ) -> Result<Gateway, SshError> {
        let inner = if options.force_system || target.needs_system().is_some() {
            Inner::System(Box::new(system::Connection::open(target, options, prompter.as_ref()).await?))
        } else {
            Inner::Builtin(Box::new(Box::pin(builtin::Connection::open(target, options, prompter)).await?))
        };
        Ok(Gateway { host: target.host.clone(), inner })
    }

    /// The gateway's name, as the user gave it.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether the system's `ssh` serves this connection.
    pub fn is_system(&self) -> bool {
        matches!(self.inner, Inner::System(_))
    }

    /// Starts a command line in the remote user's shell and home directory.
    pub async fn exec(&self, command: &str) -> Result<Exec, SshError> {
        match &self.inner {
            Inner::Builtin(connection) => connection.exec(command).await,
            Inner::System(connection) => connection.exec(command),
        }
    }

    /// Runs a command to its end. `stdin` is its whole input; more than `max_output` bytes on either stream, or more time
    /// than `timeout`, are errors.
    pub async fn exec_collect(
        &self,
        command: &str,
        stdin: &[u8],
        timeout: Duration,
        max_output: usize,
    ) -> Result<Output, SshError> {
        let run = async {
            let exec = self.exec(command).await?;
            let Exec { stdin: mut input, stdout, stderr, exit } = exec;
            // A command may end without reading its input: what counts is how it ends.
            let feed = async {
                let _ = input.write_all(stdin).await;
                let _ = input.shutdown().await;
                drop(input);
                Ok(())
            };
            let ((), stdout, stderr) = tokio::try_join!(
                feed,
                self.collect(stdout, command, max_output),
                self.collect(stderr, command, max_output)
            )?;
            Ok(Output { status: exit.wait().await?, stdout, stderr })
        };
        let timed_out =
            |_| SshError::CommandTimedOut { host: self.host.clone(), command: command.to_owned(), after: timeout };
        tokio::time::timeout(timeout, run).await.map_err(timed_out)?
    }

    async fn collect(
        &self,
        stream: Box<dyn AsyncRead + Send + Sync + Unpin>,
        command: &str,
        limit: usize,
    ) -> Result<Vec<u8>, SshError> {
        let mut bytes = Vec::new();
        let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        // These pipes end, but don't fail; why they ended is the exit status's to tell.
        let _ = stream.take(most).read_to_end(&mut bytes).await;
        if bytes.len() > limit {
            return Err(SshError::TooMuchOutput { host: self.host.clone(), command: command.to_owned(), limit });
        }
        Ok(bytes)
    }

    /// Writes a remote file, whole or not at all: aside, with a check of its size, then renamed. `path` is relative to the
    /// remote home directory unless it begins with `/`; its directory must exist. `mode` is octal, such as `0o755`.
    /// `progress` is called with the bytes sent so far.
    pub async fn upload(
        &self,
        mut source: impl AsyncRead + Unpin,
        size: u64,
        path: &str,
        mode: u32,
        mut progress: impl FnMut(u64),
    ) -> Result<(), SshError> {
        // `./` keeps a name that begins with `-` from being taken for an option. The size tells a cut line from the end.
        let path = if path.starts_with('/') { path.to_owned() } else { format!("./{path}") };
        let script = format!(
            "umask 077; t={}.$$; trap 'rm -f \"$t\"' 0; cat > \"$t\" && \
             if [ `wc -c < \"$t\"` -ne {size} ]; then echo 'incomplete' >&2; exit 1; fi && \
             chmod {mode:o} \"$t\" && mv -f \"$t\" {}",
            quote(&path),
            quote(&path)
        );
        let exec = self.exec(&format!("sh -c {}", quote(&script))).await?;
        let Exec { stdin: mut input, stdout, stderr, exit } = exec;
        drop(stdout);
        let feed = async {
            let mut buffer = vec![0; 64 * 1024];
            let mut sent = 0;
            loop {
                let failed = |source| SshError::Source { host: self.host.clone(), source };
                let count = source.read(&mut buffer).await.map_err(failed)?;
                let Some(chunk) = buffer.get(..count).filter(|chunk| !chunk.is_empty()) else {
                    break;
                };
                // The remote side gave up (disk full): its own words follow.
                if input.write_all(chunk).await.is_err() {
                    break;
                }
                sent += u64::try_from(count).unwrap_or(0);
                progress(sent);
            }
            let _ = input.shutdown().await;
            drop(input);
            Ok(())
        };
        const MOST_WORDS: u64 = 64 * 1024;
        let mut words = Vec::new();
        let listen = async {
            let mut stderr = stderr.take(MOST_WORDS);
            let _ = stderr.read_to_end(&mut words).await;
            Ok(())
        };
        tokio::try_join!(feed, listen)?;
        let status = exit.wait().await?;
        if !status.success() {
            let stderr = String::from_utf8_lossy(&words).trim_end().to_owned();
            return Err(SshError::Upload { host: self.host.clone(), status, stderr });
        }
        Ok(())
    }

    /// Waits until the connection is lost, and tells why. Never ends while it stands.
    pub async fn closed(&self) -> SshError {
        let why = match &self.inner {
            Inner::Builtin(connection) => connection.closed().await,
            Inner::System(connection) => connection.closed().await,
        };
        SshError::Closed { host: self.host.clone(), why }
    }

    /// Ends the connection and all its commands, and waits (briefly) until the server knows.
    pub async fn close(self) {
        match self.inner {
            Inner::Builtin(connection) => connection.close().await,
            Inner::System(connection) => connection.close().await,
        }
    }
}

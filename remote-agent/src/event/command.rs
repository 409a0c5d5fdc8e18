//! Batch commands: child processes with a time limit and bounded output.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use vo_batch::RawOutput;

/// Bytes kept of each output: a listing of some ten thousand batch jobs. A command that says more is stopped.
const MAX_OUTPUT: u64 = 4 << 20;

/// For a login shell with a slow profile.
const LOGIN: Duration = Duration::from_secs(20);

/// The environment that commands run in.
#[derive(Clone, Debug, Default)]
pub(super) struct Environment(Vec<(OsString, OsString)>);

/// What a command did.
#[derive(Debug, Default)]
pub(super) struct Output {
    code: Option<i32>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    timed_out: bool,
}

impl Output {
    pub(super) fn raw(&self) -> RawOutput<'_> {
        RawOutput { code: self.code, stdout: &self.stdout, stderr: &self.stderr, timed_out: self.timed_out }
    }
}

impl Environment {
    /// The agent's own.
    pub(super) fn own() -> Environment {
        Environment(std::env::vars_os().collect()).plain()
    }

    /// That of the user's login shell: at many sites only its profile knows where the batch system is. The agent's own, if the shell
    /// does not answer.
    pub(super) async fn login() -> Environment {
        let own = Environment::own();
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
        let shell = user.map(|user| user.shell.into_os_string()).filter(|shell| !shell.is_empty());
        let shell = shell.unwrap_or_else(|| "/bin/sh".into());
        // A dash before its name makes any shell a login shell, also those where -l and -c don't go together.
        let mut name = OsString::from("-");
        name.push(std::path::Path::new(&shell).file_name().unwrap_or_default());
        let mut command = Command::new(&shell);
        command.arg0(name).args(["-c", "echo; echo vo-login-environment; env -0"]);
        let output = run(command, &own, b"", LOGIN).await;
        let mark = b"\nvo-login-environment\n";
        let Some(at) = output.stdout.windows(mark.len()).position(|bytes| bytes == mark) else {
            tracing::warn!(
                "the login shell {} does not tell its environment: {}",
                shell.display(),
                String::from_utf8_lossy(&output.stderr).trim()
            );
            return own;
        };
        let variables = output.stdout.get(at + mark.len()..).unwrap_or_default().split(|&byte| byte == 0);
        let pair = |text: &[u8]| {
            let at = text.iter().position(|&byte| byte == b'=')?;
            Some((OsString::from_vec(text.get(..at)?.to_vec()), OsStr::from_bytes(text.get(at + 1..)?).to_owned()))
        };
        Environment(variables.filter_map(pair).collect()).plain()
    }

    /// Messages are read by programs, so they come in English.
    fn plain(mut self) -> Environment {
        self.0.retain(|(name, _)| !matches!(name.to_str(), Some("LC_ALL" | "LANGUAGE")));
        self.0.push(("LC_ALL".into(), "C".into()));
        self
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(n, _)| n == name)
    }
}

/// The limit of descriptors that we came with: a batch system hands that of its submit command on to the batch job.
static DESCRIPTORS: OnceLock<(rlim_t, rlim_t)> = OnceLock::new();

/// Lets this process have as many descriptors as the system allows: one a starter, and some for strangers.
pub(super) fn raise_descriptors() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = DESCRIPTORS.set((soft, hard));
        if let Err(e) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
            tracing::warn!("only {soft} file descriptors: {e}");
        }
    }
}

/// Runs `argv`; a program that can't be started is one that exits with 127.
pub(super) async fn run_argv(argv: &[String], env: &Environment, stdin: &[u8], limit: Duration) -> Output {
    let mut words = argv.iter();
    let mut command = Command::new(words.next().map_or("", String::as_str));
    command.args(words);
    run(command, env, stdin, limit).await
}

/// Runs a command in a process group of its own, which dies with the agent: what it was about is looked up then.
pub(super) async fn run(mut command: Command, env: &Environment, stdin: &[u8], limit: Duration) -> Output {
    command.env_clear().envs(env.0.iter().map(|(name, value)| (name, value)));
    // The child looks its program up in its own PATH.
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let descriptors = DESCRIPTORS.get().copied();
    // SAFETY: prctl and setrlimit are async-signal-safe, and the closure touches nothing else.
    unsafe {
        command.pre_exec(move || {
            if let Some((soft, hard)) = descriptors {
                setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;
            }
            Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?)
        });
    }
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(e) => {
            let program = command.as_std().get_program().display();
            return Output {
                code: Some(127),
                stderr: format!("cannot start {program}: {e}").into_bytes(),
                ..Output::default()
            };
        }
    };
    let group = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
    let mut output = Output::default();
    let result = tokio::time::timeout(limit, talk(&mut child, stdin, &mut output)).await;
    match result {
        Ok(Ok(code)) => {
            output.code = code;
            return output;
        }
        Ok(Err(e)) => output.stderr.extend_from_slice(e.to_string().as_bytes()),
        Err(_) => output.timed_out = true,
    }
    // Its leader is not reaped yet, so the group is still this one.
    if let Some(group) = group {
        let _ = killpg(group, Signal::SIGKILL);
    }
    let _ = child.wait().await;
    output
}

async fn talk(child: &mut Child, stdin: &[u8], output: &mut Output) -> io::Result<Option<i32>> {
    let mut input = child.stdin.take();
    let write = async {
        if let Some(mut pipe) = input.take() {
            // A command that doesn't read its input says why itself.
            let _ = pipe.write_all(stdin).await;
        }
        Ok(())
    };
    let (out, err) = (child.stdout.take(), child.stderr.take());
    tokio::try_join!(write, read(out, &mut output.stdout), read(err, &mut output.stderr))?;
    Ok(child.wait().await?.code())
}

async fn read(pipe: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>) -> io::Result<()> {
    if let Some(pipe) = pipe
        && pipe.take(MAX_OUTPUT + 1).read_to_end(into).await? as u64 > MAX_OUTPUT
    {
        return Err(io::Error::other("more output than any command of ours has"));
    }
    Ok(())
}

//! Everything that can go wrong between the master and a gateway.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// What a failure means for whoever would try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Nobody answers, or the line broke: try again, with growing pauses.
    Down,
    /// The host answers and turns us away (MaxStartups, MaxSessions, penalties, a banned address): every further try makes it
    /// worse, so pause for long.
    Blocked,
    /// Host key, login or configuration: nothing changes until the user does something.
    Denied,
}

/// The key that a host showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownKey {
    /// The host's name in `known_hosts`: `host`, or `[host]:port`.
    pub name: String,
    /// Key type, such as `ssh-ed25519`.
    pub key_type: String,
    /// Fingerprint, `SHA256:…`, as `ssh-keygen -l` prints it.
    pub fingerprint: String,
}

impl fmt::Display for ShownKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.key_type, self.fingerprint)
    }
}

/// Failures of SSH. Hosts are named as the user named them.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    /// The host name, user name or configuration makes no sense; `why` is `ssh`'s own text where it said so.
    #[error("the SSH configuration for {host} is unusable: {why}")]
    Config {
        /// Host asked for.
        host: String,
        /// Reason.
        why: String,
    },
    /// The system's `ssh` is needed and can't be started.
    #[error("cannot run {program}")]
    Program {
        /// The program's path or name.
        program: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The name does not resolve to any address.
    #[error("cannot find the host {hostname}")]
    NotFound {
        /// Name looked up.
        hostname: String,
        /// The resolver's reason.
        source: io::Error,
    },
    /// Nothing listens there, or a firewall says no.
    #[error("{host} port {port} refuses connections")]
    Refused {
        /// Host asked for.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// Nothing was heard in time.
    #[error("no answer from {host} within {} s", after.as_secs())]
    TimedOut {
        /// Host asked for.
        host: String,
        /// How long was waited.
        after: Duration,
    },
    /// The network can't reach it.
    #[error("cannot reach {host}")]
    Unreachable {
        /// Host asked for.
        host: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The server closed the connection before it said who it is: what overloaded or banning servers do.
    #[error("{host} closed the connection before the login")]
    TurnedAway {
        /// Host asked for.
        host: String,
        /// What the server said, if anything.
        why: String,
    },
    /// The configuration's ProxyCommand ended before the login.
    #[error("the ProxyCommand for {host} ended before the login: {why}")]
    ProxyCommand {
        /// Host asked for.
        host: String,
        /// What it said.
        why: String,
    },
    /// Server and client have no algorithm in common, or one broke the protocol.
    #[error("no SSH session with {host}: {why}")]
    Protocol {
        /// Host asked for.
        host: String,
        /// Reason.
        why: String,
    },
    /// The host's key is not known, and nobody accepted it.
    #[error("the host key of {host} is not known ({key})")]
    HostKeyUnknown {
        /// Host asked for.
        host: String,
        /// The key it showed.
        key: Box<ShownKey>,
    },
    /// Another key is known for this host.
    #[error("the host key of {host} is not the one in {}:{line} ({key})", file.display())]
    HostKeyChanged {
        /// Host asked for.
        host: String,
        /// The key it showed.
        key: Box<ShownKey>,
        /// File with the other key.
        file: PathBuf,
        /// Its line, from 1.
        line: usize,
    },
    /// The host's key, or the authority of its certificate, is marked `@revoked`.
    #[error("the host key of {host} is revoked in {}:{line} ({key})", file.display())]
    HostKeyRevoked {
        /// Host asked for.
        host: String,
        /// The key it showed.
        key: Box<ShownKey>,
        /// File that revokes it.
        file: PathBuf,
        /// Its line, from 1.
        line: usize,
    },
    /// An accepted host key could not be remembered, or a `known_hosts` file can't be read.
    #[error("cannot use {}", file.display())]
    KnownHosts {
        /// The file.
        file: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Every way to log in failed. `tried` has a line for each, in order.
    #[error("{host} refuses the login of {user} ({})", if tried.is_empty() { format!("nothing to try of what it takes: {}", offered.join(", ")) } else { tried.join("; ") })]
    AuthRefused {
        /// Host asked for.
        host: String,
        /// Remote user.
        user: String,
        /// What was tried with which outcome, such as `publickey ~/.ssh/id_ed25519: refused`.
        tried: Vec<String>,
        /// Methods that the server would still take.
        offered: Vec<String>,
    },
    /// No passphrase given for this key fits, and no other way to log in worked.
    #[error("wrong passphrase for {}", key.display())]
    Passphrase {
        /// Host asked for.
        host: String,
        /// File of the private key.
        key: PathBuf,
    },
    /// The user cancelled at a question.
    #[error("the login to {host} was cancelled")]
    Cancelled {
        /// Host asked for.
        host: String,
    },
    /// The server opens no further channel (MaxSessions), or refuses to run commands.
    #[error("{host} does not run another command on this connection: {why}")]
    ChannelRefused {
        /// Host asked for.
        host: String,
        /// The server's reason.
        why: String,
    },
    /// The connection is gone.
    #[error("the connection to {host} is closed: {why}")]
    Closed {
        /// Host asked for.
        host: String,
        /// Reason.
        why: String,
    },
    /// A remote command took too long, and its channel was closed.
    #[error("{host} did not finish a command within {} s: {command}", after.as_secs())]
    CommandTimedOut {
        /// Host asked for.
        host: String,
        /// Its command.
        command: String,
        /// How long was waited.
        after: Duration,
    },
    /// A remote command printed more than was asked for, and its channel was closed.
    #[error("{host} printed more than {limit} bytes: {command}")]
    TooMuchOutput {
        /// Host asked for.
        host: String,
        /// Its command.
        command: String,
        /// Most bytes that were wanted of stdout, and of stderr.
        limit: usize,
    },
    /// An upload ended otherwise than with exit code 0; `stderr` is the remote side's, word for word.
    #[error("upload to {host} failed ({status}): {stderr}")]
    Upload {
        /// Host asked for.
        host: String,
        /// How the remote command ended.
        status: super::ExitStatus,
        /// Its standard error output.
        stderr: String,
    },
    /// Local data for an upload could not be read.
    #[error("cannot read what should go to {host}")]
    Source {
        /// Host asked for.
        host: String,
        /// The reader's error.
        source: io::Error,
    },
    /// The system's `ssh` failed in a way that none of the above describes; `stderr` is its own text, word for word.
    #[error("ssh {host}: {stderr}")]
    System {
        /// Host asked for.
        host: String,
        /// What it printed.
        stderr: String,
    },
}

impl SshError {
    /// What the failure means for whoever would try again.
    pub fn class(&self) -> Class {
        match self {
            Self::NotFound { .. }
            | Self::Refused { .. }
            | Self::TimedOut { .. }
            | Self::Unreachable { .. }
            | Self::ProxyCommand { .. }
            | Self::Closed { .. }
            | Self::CommandTimedOut { .. } => Class::Down,
            Self::TurnedAway { .. } | Self::ChannelRefused { .. } => Class::Blocked,
            Self::Config { .. }
            | Self::Program { .. }
            | Self::Protocol { .. }
            | Self::HostKeyUnknown { .. }
            | Self::HostKeyChanged { .. }
            | Self::HostKeyRevoked { .. }
            | Self::KnownHosts { .. }
            | Self::AuthRefused { .. }
            | Self::Passphrase { .. }
            | Self::Cancelled { .. }
            | Self::TooMuchOutput { .. }
            | Self::Upload { .. }
            | Self::Source { .. }
            | Self::System { .. } => Class::Denied,
        }
    }

    /// Whether trying again later, unchanged, may succeed.
    pub fn is_transient(&self) -> bool {
        self.class() != Class::Denied
    }

    /// What the user can do about it, as a sentence fragment for a line `hint: …`.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Program { .. } => "install OpenSSH's client, or leave out -G".to_owned(),
            Self::NotFound { hostname, .. } => format!("check the spelling; `ssh -G {hostname}` shows what ~/.ssh/config makes of it"),
            Self::Refused { port, .. } if *port == 22 => "is an SSH server running there? Some listen on another port: set `port`".to_owned(),
            Self::Refused { port, .. } => format!("is an SSH server listening on port {port}? Your address may also be banned for a while"),
            Self::TimedOut { .. } | Self::Unreachable { .. } => "is the network up, and a VPN or jump host needed?".to_owned(),
            Self::TurnedAway { .. } => {
                "the server limits new connections or has banned this address for a while: wait some minutes before you try again".to_owned()
            }
            Self::ProxyCommand { host, .. } => format!("does `ssh {host}` work?"),
            Self::Protocol { .. } => "`-G` uses the system's ssh, which may know other algorithms".to_owned(),
            Self::HostKeyUnknown { host, .. } => {
                format!("log in once with `ssh {host}` and compare the fingerprint with the one that the site publishes")
            }
            Self::HostKeyChanged { key, file, .. } => format!(
                "someone may be listening in. If the site announced a new key: `ssh-keygen -f {} -R '{}'`",
                file.display(),
                key.name
            ),
            Self::HostKeyRevoked { .. } => "do not log in; ask the site's administrators".to_owned(),
            Self::AuthRefused { host, user, tried, offered } => {
                let has = |method: &str| offered.iter().any(|o| o == method);
                if tried.iter().any(|t| t.ends_with(super::auth::NEEDS_ANSWER)) {
                    "it needs an answer from you: run it on a terminal, or use a key in ssh-agent".to_owned()
                } else if has("gssapi-with-mic") && !has("publickey") {
                    "it takes Kerberos tickets: `kinit` gets one, and ~/.ssh/config should say `GSSAPIAuthentication yes` for it".to_owned()
                } else {
                    format!("does `ssh {user}@{host}` work? `user` and ~/.ssh/config set user and key")
                }
            }
            Self::Passphrase { key, .. } => format!("`ssh-add {}` gives the key to ssh-agent, once for all sites", key.display()),
            Self::ChannelRefused { .. } => "the server allows few sessions a connection (MaxSessions); close others".to_owned(),
            _ => return None,
        })
    }
}

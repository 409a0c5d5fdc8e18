//! The built-in client: russh, with OpenSSH's ways of trusting hosts.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use russh::client::{self, DisconnectReason, Session};
use russh::keys::{PublicKey, PublicKeyOrCertificate};
use russh::{ChannelMsg, Disconnect};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};

use super::algorithms::preferred;
use super::gateway::{ConnectOptions, Exec, ExecExit, ExitStatus};
use super::prompt::printable;
use super::trust::Trust;
use super::{Prompter, SshError, Target};

/// Bytes of each standard stream that may wait to be read.
const PIPE: usize = 128 * 1024;
/// Addresses of one name that are tried.
const MOST_ADDRESSES: usize = 8;
/// How long `close` waits for the server.
const GOODBYE: Duration = Duration::from_secs(2);
/// Time for a channel to open, and for the last messages of a channel that we close.
const CHANNEL_TIME: Duration = Duration::from_secs(60);

pub(super) type Handle = client::Handle<Handler>;

/// A connection through any number of jump hosts.
pub(super) struct Connection {
    host: String,
    handle: Handle,
    /// The connections it goes through, nearest first.
    through: Vec<Handle>,
    lost: watch::Receiver<Option<String>>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("host", &self.host).finish_non_exhaustive()
    }
}

impl Connection {
    pub(super) async fn open(
        target: &Target,
        options: &ConnectOptions,
        prompter: Arc<dyn Prompter>,
    ) -> Result<Connection, SshError> {
        let mut through: Vec<Handle> = Vec::new();
        for hop in target.jumps.iter().chain([target]) {
            let (mut handle, lost) = match through.last() {
                None => {
                    let stream = dial(hop).await?;
                    handshake(hop, stream, &prompter).await?
                }
                Some(jump) => {
                    let (hostname, port) = (hop.hostname.clone(), u32::from(hop.port));
                    let open = jump.channel_open_direct_tcpip(hostname, port, "127.0.0.1", 0);
                    let channel = within(hop, hop.settings.connect_timeout, open).await?.map_err(|e| match e {
                        russh::Error::ChannelOpenFailure(reason) => SshError::Unreachable {
                            host: hop.host.clone(),
                            source: io::Error::other(format!("its jump host says {reason:?}")),
                        },
                        e => closed(&hop.host, &e),
                    })?;
                    handshake(hop, channel.into_stream(), &prompter).await?
                }
            };
            super::auth::login(&mut handle, &lost, hop, options, prompter.as_ref()).await?;
            if std::ptr::eq(hop, target) {
                return Ok(Connection { host: target.host.clone(), handle, through, lost });
            }
            through.push(handle);
        }
        // The chain above ends with the target itself.
        Err(SshError::Config { host: target.host.clone(), why: "no host".to_owned() })
    }

    pub(super) async fn exec(&self, command: &str) -> Result<Exec, SshError> {
        let refused = |e: russh::Error| match e {
            russh::Error::ChannelOpenFailure(reason) => {
                SshError::ChannelRefused { host: self.host.clone(), why: format!("{reason:?}") }
            }
            e => self.lost(&e),
        };
        let timed_out = |_| SshError::TimedOut { host: self.host.clone(), after: CHANNEL_TIME };
        let open =
            async || tokio::time::timeout(CHANNEL_TIME, self.handle.channel_open_session()).await.map_err(timed_out);
        let mut channel = match open().await? {
            // sshd frees a closed channel's slot only after it has handled all that came with our close, so an open right
            // behind that is refused. The refusal tells that the slot is free by now.
            Err(russh::Error::ChannelOpenFailure(_)) => open().await?,
            opened => opened,
        }
        .map_err(refused)?;
        channel.exec(true, command).await.map_err(|e| self.lost(&e))?;
        // Nothing but window adjustments may come before the reply.
        let reply = async {
            loop {
                match channel.wait().await {
                    Some(ChannelMsg::Success) => return Ok(()),
                    Some(ChannelMsg::Failure) => return Err("it refuses to run commands"),
                    Some(ChannelMsg::Close) | None => return Err("it closed the channel"),
                    Some(_) => (),
                }
            }
        };
        let answer = tokio::time::timeout(CHANNEL_TIME, reply).await.map_err(timed_out)?;
        if let Err(why) = answer {
            let _ = channel.close().await;
            return Err(match &*self.lost.borrow() {
                Some(why) => SshError::Closed { host: self.host.clone(), why: why.clone() },
                None => SshError::ChannelRefused { host: self.host.clone(), why: why.to_owned() },
            });
        }

        let (stdin, from_caller) = tokio::io::duplex(PIPE);
        let (stdout, to_stdout) = tokio::io::duplex(PIPE);
        let (stderr, to_stderr) = tokio::io::duplex(PIPE);
        let (exit_sender, exit) = oneshot::channel();
        let (host, lost) = (self.host.clone(), self.lost.clone());
        tokio::spawn(async move {
            let unknown = || {
                let why = lost.borrow().clone().unwrap_or_else(|| "a command ended without saying how".to_owned());
                SshError::Closed { host, why }
            };
            pump(channel, from_caller, [to_stdout, to_stderr], exit_sender, unknown).await;
        });
        Ok(Exec { stdin: Box::new(stdin), stdout: Box::new(stdout), stderr: Box::new(stderr), exit: ExecExit(exit) })
    }

    fn lost(&self, e: &russh::Error) -> SshError {
        let why = self.lost.borrow().clone().unwrap_or_else(|| e.to_string());
        SshError::Closed { host: self.host.clone(), why }
    }

    pub(super) async fn closed(&self) -> String {
        reason_of(&self.lost).await
    }

    pub(super) async fn close(self) {
        let Connection { handle, through, lost, .. } = self;
        let farewell = async {
            let _ = handle.disconnect(Disconnect::ByApplication, "", "").await;
            reason_of(&lost).await;
            for jump in through.iter().rev() {
                let _ = jump.disconnect(Disconnect::ByApplication, "", "").await;
            }
        };
        let _ = tokio::time::timeout(GOODBYE, farewell).await;
    }
}

/// Carries one command's streams until its channel is closed on both sides: by the server at the command's end, or by us when
/// nobody waits for that any more.
async fn pump(
    channel: russh::Channel<client::Msg>,
    mut input: DuplexStream,
    outputs: [DuplexStream; 2],
    mut exit: oneshot::Sender<Result<ExitStatus, SshError>>,
    unknown: impl FnOnce() -> SshError,
) {
    let (mut reader, writer) = channel.split();
    let feed = async {
        let mut buffer = vec![0; 32 * 1024];
        while let Ok(count @ 1..) = input.read(&mut buffer).await {
            if writer.data(buffer.get(..count).unwrap_or_default()).await.is_err() {
                return;
            }
        }
        let _ = writer.eof().await;
    };
    let mut status = None;
    let listen = async {
        let mut outputs = outputs.map(Some);
        while let Some(message) = reader.wait().await {
            let (index, data) = match message {
                ChannelMsg::Data { data } => (0, data),
                ChannelMsg::ExtendedData { data, ext: 1 } => (1, data),
                ChannelMsg::ExitStatus { exit_status } => {
                    status = Some(ExitStatus::Code(exit_status));
                    continue;
                }
                ChannelMsg::ExitSignal { signal_name, .. } => {
                    status = Some(ExitStatus::Signal(signal_text(signal_name)));
                    continue;
                }
                ChannelMsg::Eof => {
                    outputs = [None, None];
                    continue;
                }
                ChannelMsg::Close => return,
                _ => continue,
            };
            let Some(slot) = outputs.get_mut(index) else { continue };
            if let Some(output) = slot
                && output.write_all(&data).await.is_err()
            {
                *slot = None;
            }
        }
    };
    let abandoned = {
        let (mut feed, mut listen) = (pin!(feed), pin!(listen));
        let mut fed = false;
        loop {
            tokio::select! {
                () = &mut feed, if !fed => fed = true,
                () = &mut listen => break false,
                () = exit.closed() => break true,
            }
        }
    };
    if abandoned {
        let _ = writer.close().await;
        // Until the server has closed it too, the channel counts against its MaxSessions.
        let _ = tokio::time::timeout(CHANNEL_TIME, async { while reader.wait().await.is_some() {} }).await;
    } else {
        let _ = exit.send(status.ok_or_else(unknown));
    }
}

fn signal_text(signal: russh::Sig) -> String {
    match signal {
        russh::Sig::Custom(name) => printable(&name),
        signal => format!("{signal:?}"),
    }
}

async fn reason_of(lost: &watch::Receiver<Option<String>>) -> String {
    let why = lost.clone().wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
    why.unwrap_or_else(|| "the connection ended".to_owned())
}

fn closed(host: &str, e: &russh::Error) -> SshError {
    SshError::Closed { host: host.to_owned(), why: e.to_string() }
}

async fn within<T>(target: &Target, time: Duration, future: impl Future<Output = T>) -> Result<T, SshError> {
    let timed_out = |_| SshError::TimedOut { host: target.host.clone(), after: time };
    tokio::time::timeout(time, future).await.map_err(timed_out)
}

/// Opens a TCP connection to the first address that answers, and waits for the server's first words, which say more than a
/// failed handshake does where a server turns us away.
async fn dial(target: &Target) -> Result<TcpStream, SshError> {
    let host = || target.host.clone();
    let time = target.settings.connect_timeout;
    let not_found = |source| SshError::NotFound { hostname: target.hostname.clone(), source };
    let found = within(target, time, tokio::net::lookup_host((target.hostname.as_str(), target.port))).await?;
    let wanted = |address: &SocketAddr| target.settings.ipv6.is_none_or(|six| address.is_ipv6() == six);
    let addresses: Vec<_> = found.map_err(not_found)?.filter(wanted).take(MOST_ADDRESSES).collect();
    let mut last = not_found(io::Error::from(io::ErrorKind::AddrNotAvailable));
    for address in addresses {
        last = match tokio::time::timeout(time, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                let _ = stream.set_nodelay(true);
                let mut first = [0; 256];
                return match within(target, time, stream.peek(&mut first)).await? {
                    Ok(1..) if first.starts_with(b"SSH-") => Ok(stream),
                    Ok(1..) => {
                        let line =
                            String::from_utf8_lossy(first.split(|&b| b == b'\n' || b == 0).next().unwrap_or_default());
                        tracing::debug!(host = target.host, line = printable(&line), "a line before the SSH version");
                        if ["Exceeded MaxStartups", "Not allowed at this time"]
                            .iter()
                            .any(|says| line.starts_with(says))
                        {
                            return Err(SshError::TurnedAway { host: host(), why: printable(&line) });
                        }
                        Ok(stream)
                    }
                    Ok(0) | Err(_) => Err(SshError::TurnedAway { host: host(), why: String::new() }),
                };
            }
            Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => {
                SshError::Refused { host: host(), port: target.port }
            }
            Ok(Err(source)) => SshError::Unreachable { host: host(), source },
            Err(_) => SshError::TimedOut { host: host(), after: time },
        };
    }
    Err(last)
}

async fn handshake<S>(
    target: &Target,
    stream: S,
    prompter: &Arc<dyn Prompter>,
) -> Result<(Handle, watch::Receiver<Option<String>>), SshError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let trust = Trust::load(target)?;
    let config = client::Config {
        keepalive_interval: Some(target.settings.alive_interval),
        keepalive_max: usize::try_from(target.settings.alive_count).unwrap_or(usize::MAX),
        preferred: preferred(&target.settings, &trust),
        ..client::Config::default()
    };
    let (asking, asked) = watch::channel(false);
    let (lost_sender, lost) = watch::channel(None);
    let handler = Handler { trust, accepted: None, prompter: Arc::clone(prompter), asking, lost: lost_sender };
    let time = target.settings.connect_timeout;
    let handle = tokio::select! {
        handle = client::connect_stream(Arc::new(config), stream, handler) => handle,
        () = clock(asked, time) => return Err(SshError::TimedOut { host: target.host.clone(), after: time }),
    };
    let host = target.host.clone();
    let handle = handle.map_err(|e| match e {
        HandlerError::Ours(e) => *e,
        HandlerError::Ssh(russh::Error::Disconnect | russh::Error::HUP) => {
            SshError::TurnedAway { host, why: lost.borrow().clone().unwrap_or_default() }
        }
        HandlerError::Ssh(russh::Error::IO(e)) if broken(&e) => SshError::TurnedAway { host, why: e.to_string() },
        HandlerError::Ssh(russh::Error::IO(source)) => SshError::Unreachable { host, source },
        HandlerError::Ssh(russh::Error::NoCommonAlgo { kind, theirs, .. }) => {
            let why = format!("it offers no {kind:?} algorithm of ours, but {}", printable(&theirs.join(", ")));
            SshError::Protocol { host, why }
        }
        HandlerError::Ssh(e) => SshError::Protocol { host, why: e.to_string() },
    })?;
    Ok((handle, lost))
}

/// Ends after a time during which nothing was asked of the user: it stands still while they compare a fingerprint. Never ends
/// once there is no one left to ask.
pub(super) async fn clock(mut asked: watch::Receiver<bool>, time: Duration) {
    while asked.wait_for(|asking| !asking).await.is_ok() {
        tokio::select! {
            () = tokio::time::sleep(time) => return,
            begun = asked.wait_for(|asking| *asking) => if begun.is_err() { break },
        }
    }
    std::future::pending::<()>().await;
}

fn broken(e: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(e.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

/// Errors that end a session: russh's, or ours about the host key.
#[derive(Debug)]
pub(super) enum HandlerError {
    Ssh(russh::Error),
    Ours(Box<SshError>),
}

impl From<russh::Error> for HandlerError {
    fn from(e: russh::Error) -> Self {
        Self::Ssh(e)
    }
}

pub(super) struct Handler {
    trust: Trust,
    accepted: Option<PublicKey>,
    prompter: Arc<dyn Prompter>,
    asking: watch::Sender<bool>,
    lost: watch::Sender<Option<String>>,
}

impl client::Handler for Handler {
    type Error = HandlerError;

    async fn auth_banner(&mut self, banner: &str, _: &mut Session) -> Result<(), HandlerError> {
        let banner = printable(banner);
        if !banner.is_empty() {
            self.prompter.info(&self.trust.host, &banner);
        }
        Ok(())
    }

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, HandlerError> {
        let key = shown.public_key();
        match &self.accepted {
            // The keys of the session are renewed now and then: the host must stay the same, and nothing is asked again.
            Some(accepted) => Ok(*accepted == key),
            None => {
                let decision = self.trust.decide(shown, self.prompter.as_ref(), &self.asking).await;
                decision.map_err(|e| HandlerError::Ours(Box::new(e)))?;
                self.accepted = Some(key);
                Ok(true)
            }
        }
    }

    async fn disconnected(&mut self, reason: DisconnectReason<HandlerError>) -> Result<(), HandlerError> {
        let (why, result) = match reason {
            DisconnectReason::ReceivedDisconnect(info) => (printable(&info.message), Ok(())),
            DisconnectReason::Error(HandlerError::Ssh(e)) => {
                let why = match &e {
                    russh::Error::KeepaliveTimeout => "it no longer answers".to_owned(),
                    russh::Error::Disconnect | russh::Error::HUP => "it closed the connection".to_owned(),
                    e => e.to_string(),
                };
                (why, Err(HandlerError::Ssh(e)))
            }
            DisconnectReason::Error(HandlerError::Ours(e)) => (e.to_string(), Err(HandlerError::Ours(e))),
        };
        self.lost.send_replace(Some(why));
        result
    }
}

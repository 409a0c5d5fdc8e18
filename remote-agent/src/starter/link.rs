//! The way to the event agent: calling it, again and again, and the two directions of one connection.

use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ring::rand::{SecureRandom, SystemRandom};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use vo_core::ids::StarterKey;
use vo_net::frames::{FrameSource, send};
use vo_net::tls::{self, Identity};
use vo_wire::frame::{Frame, Message, write_message};
use vo_wire::link::Ping;
use vo_wire::node::{End, StarterFacts, StarterHello, Welcome};
use vo_wire::{PROTOCOL, compatible};

use crate::launch::{self, AgentAddress};

/// For one address, from TCP's first word to the agent's welcome.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause before the second round of addresses; doubled before each further one.
const BACKOFF_MIN: Duration = Duration::from_millis(200);

/// Longest pause between two rounds.
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// During a pause, how often to look whether the agent has moved.
const LOOK: Duration = Duration::from_secs(2);

/// With more than this to write, nothing is read: a peer that asks without listening must not fill our memory.
const OUT_MAX: usize = 8 << 20;

/// An agent that talks and doesn't answer for so many silences is one that doesn't hear us. What we have to say may take a while to be
/// written.
const DEAF: u32 = 6;

/// Whom to call, and as whom.
pub(super) struct Caller {
    pub(super) key: StarterKey,
    pub(super) identity: Identity,
    /// Largest agent epoch seen.
    pub(super) epoch: Cell<u64>,
    /// When the last connection was opened, and how long to wait after it if it breaks soon.
    pub(super) last: Cell<Option<(Instant, Duration)>>,
    /// How often the agent is asked for a sign of life; silence for three times this is a broken connection.
    pub(super) silence: Duration,
}

/// Why calling is given up.
#[derive(Debug)]
pub(super) struct Refused(pub(super) String);

impl Caller {
    /// Calls until the agent whose address is in the file `address` answers. `facts` are told at each call.
    pub(super) async fn call(
        &self,
        address: &Path,
        facts: impl Fn() -> StarterFacts,
    ) -> Result<(Connection, Welcome), Refused> {
        // An agent that takes us in and closes, again and again, is called no more often than one that doesn't answer.
        let mut pause = BACKOFF_MIN;
        if let Some((opened, wait)) = self.last.get()
            && opened.elapsed() < BACKOFF_MAX
        {
            sleep(jittered(wait)).await;
            pause = (wait * 2).min(BACKOFF_MAX);
        }
        let mut said = String::new();
        loop {
            let seen = modified(address);
            let mut why = String::new();
            match launch::read::<AgentAddress>(address) {
                Ok(agent) => {
                    for place in &agent.addresses {
                        let answer = timeout(CONNECT_TIMEOUT, self.open(address, place, facts())).await;
                        match answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                            Ok(Err(why)) => return Err(Refused(why)),
                            Ok(Ok((connection, welcome))) if compatible(PROTOCOL, welcome.protocol) => {
                                self.epoch.set(welcome.epoch);
                                self.last.set(Some((Instant::now(), pause)));
                                return Ok((connection, welcome));
                            }
                            Ok(Ok((_, welcome))) => {
                                let (ours, theirs) = (PROTOCOL >> 16, welcome.protocol >> 16);
                                return Err(Refused(format!("the agent speaks protocol {theirs}, we speak {ours}")));
                            }
                            Err(e) => why.push_str(&format!("{place}: {}; ", chain(&e))),
                        }
                    }
                }
                Err(e) => why = format!("cannot read {}: {e}", address.display()),
            }
            if why != said {
                tracing::warn!("cannot reach the agent: {why}");
                said = why;
            }
            let until = Instant::now() + jittered(pause);
            while Instant::now() < until && modified(address) == seen {
                sleep(LOOK.min(until - Instant::now())).await;
            }
            pause = (pause * 2).min(BACKOFF_MAX);
        }
    }

    /// Calls one address. An agent that doesn't take us in says why.
    async fn open(
        &self,
        address: &Path,
        place: &str,
        facts: StarterFacts,
    ) -> io::Result<Result<(Connection, Welcome), String>> {
        let opened = Instant::now();
        let mut stream = TcpStream::connect(place).await?;
        stream.set_nodelay(true)?;
        stream.write_all(&self.identity.knock()).await?;
        let config = tls::client_config(&self.identity).map_err(io::Error::other)?;
        let stream = tls::connect_agent(&config, self.identity.domain(), stream).await.map_err(io::Error::other)?;
        let (read, mut write) = tokio::io::split(stream);
        let epoch = self.epoch.get();
        send(&mut write, 0, &StarterHello { protocol: PROTOCOL, key: self.key, epoch, facts }).await?;
        let mut source = FrameSource::new(Box::new(read) as Box<dyn AsyncRead + Unpin>);
        let answer = source.next().await?.ok_or_else(|| io::Error::other("the agent closed without a word"))?;
        if answer.kind == End::KIND {
            return Ok(Err(answer.read::<End>().map_err(io::Error::other)?.why));
        }
        let welcome: Welcome = answer.read().map_err(io::Error::other)?;
        if welcome.epoch < epoch {
            return Err(io::Error::other(format!("an old agent answered (epoch {}, now {epoch})", welcome.epoch)));
        }
        let connection = Connection {
            source,
            sink: Box::new(write),
            out: Vec::new(),
            unflushed: false,
            opened,
            heard: Instant::now(),
            asked: opened,
            question: opened,
            nonce: 0,
            open: false,
            silence: self.silence,
            address: address.to_owned(),
            epoch: welcome.epoch,
        };
        Ok(Ok((connection, welcome)))
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|meta| meta.modified()).ok()
}

/// Between half of `span` and all of it: the starters of a site must not call all at once when its agent returns.
fn jittered(span: Duration) -> Duration {
    let mut byte = [0];
    // Without random numbers the pause is merely regular.
    let _ = SystemRandom::new().fill(&mut byte);
    span / 2 + span / 2 * u32::from(byte[0]) / 255
}

fn chain(e: &dyn std::error::Error) -> String {
    let reasons: Vec<String> = std::iter::successors(Some(e), |e| e.source()).map(ToString::to_string).collect();
    reasons.join(": ")
}

/// A connection on which the agent said its welcome.
pub(super) struct Connection {
    source: FrameSource<Box<dyn AsyncRead + Unpin>>,
    sink: Box<dyn AsyncWrite + Unpin>,
    out: Vec<u8>,
    unflushed: bool,
    /// When the agent was called.
    pub(super) opened: Instant,
    heard: Instant,
    /// When it was last asked for a sign of life.
    asked: Instant,
    /// When the question of this number was first put, and whether it is still open.
    question: Instant,
    nonce: u64,
    open: bool,
    silence: Duration,
    /// Where the agent in charge says where it is, and the epoch of this one.
    address: PathBuf,
    epoch: u64,
}

impl Connection {
    /// Puts a message behind those that wait to be written.
    pub(super) fn put<M: Message>(&mut self, route: u64, message: &M) {
        write_message(route, message, &mut self.out);
    }

    /// Waits for the next frame, and writes meanwhile. Cancel-safe.
    ///
    /// # Errors
    /// The connection is of no more use.
    pub(super) async fn next(&mut self) -> io::Result<Frame> {
        loop {
            let wake = (self.asked + self.silence).min(self.heard + self.silence * 3);
            tokio::select! {
                frame = self.source.next(), if self.out.len() < OUT_MAX => {
                    self.heard = Instant::now();
                    return frame?.ok_or_else(|| io::ErrorKind::ConnectionAborted.into());
                }
                done = push(&mut *self.sink, &self.out), if self.unflushed || !self.out.is_empty() => self.pushed(done?),
                () = sleep_until(wake) => {
                    let deaf = self.open && self.question.elapsed() >= self.silence * DEAF;
                    if deaf || self.heard.elapsed() >= self.silence * 3 {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                    // One that hangs, or is cut off with its node, keeps its connections open; another may have taken over long ago.
                    let silent = self.heard.elapsed() >= self.silence;
                    if silent && launch::read::<AgentAddress>(&self.address).is_ok_and(|agent| agent.epoch > self.epoch) {
                        return Err(io::Error::other("it is silent, and another agent is in charge"));
                    }
                    self.asked = Instant::now();
                    if !self.open {
                        (self.question, self.open) = (self.asked, true);
                        self.nonce += 1;
                    }
                    self.put(0, &Ping { nonce: self.nonce });
                }
            }
        }
    }

    /// The agent answers; when it was asked, if that is the question.
    pub(super) fn answered(&mut self, nonce: u64) -> Option<Instant> {
        let answered = self.open && nonce == self.nonce;
        self.open &= !answered;
        answered.then_some(self.question)
    }

    /// A frame that came with the last one.
    pub(super) fn buffered(&mut self) -> io::Result<Option<Frame>> {
        if self.out.len() < OUT_MAX { self.source.buffered() } else { Ok(None) }
    }

    /// Writes all that waits, and closes.
    pub(super) async fn finish(mut self) -> io::Result<()> {
        while self.unflushed || !self.out.is_empty() {
            let done = push(&mut *self.sink, &self.out).await?;
            self.pushed(done);
        }
        self.sink.shutdown().await
    }

    fn pushed(&mut self, written: usize) {
        self.out.drain(..written);
        self.unflushed = written > 0;
    }
}

/// Writes some of `out`, or flushes when it is empty.
async fn push(sink: &mut (dyn AsyncWrite + Unpin), out: &[u8]) -> io::Result<usize> {
    if out.is_empty() {
        return sink.flush().await.map(|()| 0);
    }
    match sink.write(out).await? {
        0 => Err(io::ErrorKind::WriteZero.into()),
        written => Ok(written),
    }
}

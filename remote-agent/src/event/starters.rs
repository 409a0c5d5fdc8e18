//! The starters' connections: TCP, mutual TLS.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;
use vo_core::ids::StarterKey;
use vo_core::proxy::Event;
use vo_net::frames::FrameSource;
use vo_net::tls::{self, Identity};
use vo_wire::frame::{Frame, Message};
use vo_wire::link::{BlobAck, NeedBlob, Ping, Pong};
use vo_wire::node::{Leaving, StarterFacts, StarterHello};
use vo_wire::work::is_relayed;

use super::agent::Agent;
use super::outbox::{Outbox, outbox};
use super::strangers::{Place, Strangers};

/// Connections that have not knocked: anyone on the network may open one. Each takes a descriptor and some 2 KiB; a starter's knock comes
/// with its first packet, so its place is soon free again.
const STRANGERS: usize = 256;

/// While all those places are taken, no more than `CROWD` connections are accepted in each `PACE`: a flood costs a few percent of a CPU.
const CROWD: u32 = 16;

/// See `CROWD`.
const PACE: Duration = Duration::from_millis(8);

/// For the knock: a starter says it at once.
const KNOCK: Duration = Duration::from_secs(5);

/// Handshakes under way: each costs a millisecond of CPU and some 20 KiB.
const HANDSHAKES: usize = 64;

/// Connections that have knocked and wait for their handshake: the starters of a large site, after its agent was away. More are turned
/// away, and call again.
const GUESTS: usize = 4096;

/// For a handshake and the first word, once it is a connection's turn.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A starter's connection is closed after so many quarters of a lease without a word, the last of them after a question: what becomes of
/// its jobs shows as unknown before they are given up, and one that wakes in time calls again.
const SILENCE: u32 = 3;

/// A starter that is told to end goes by itself within this, or its connection is closed.
const GOING: Duration = Duration::from_secs(10);

/// Files that one starter may wait for: it asks for four at once.
const FILES: usize = 16;

/// Bytes that wait for one starter.
const ROOM: usize = 1 << 20;

/// Frames of a burst that are passed on together, in bytes.
const BURST: usize = 256 << 10;

/// A starter's connection.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) facts: StarterFacts,
    pub(super) out: Outbox,
    /// The machine has taken it in: only then are frames relayed.
    pub(super) welcomed: bool,
    /// Asks its task to close.
    pub(super) close: Rc<Notify>,
    serial: u64,
}

/// Listens on the port of an earlier agent if it is free, so that its starters find us at once; else on one of the range.
pub(super) async fn bind(range: Option<(u16, u16)>, earlier: Option<u16>) -> io::Result<TcpListener> {
    let (first, last) = range.unwrap_or((0, 0));
    let earlier = earlier.filter(|port| range.is_none() || (first..=last).contains(port));
    let mut error = io::Error::new(io::ErrorKind::InvalidInput, "the range of ports is empty");
    for port in earlier.into_iter().chain(first..=last) {
        // `::` takes IPv4 too, where there is IPv6 at all.
        for address in [IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)] {
            match TcpListener::bind(SocketAddr::new(address, port)).await {
                Ok(listener) => return Ok(listener),
                Err(e) => error = e,
            }
        }
    }
    Err(error)
}

/// Where starters may find us: `local` ones on this machine itself, others at every address that leads elsewhere, and by name.
pub(super) fn addresses(port: u16, local: bool) -> Vec<String> {
    let mut found = Vec::new();
    if local {
        found.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port).to_string());
    }
    let mut ips: Vec<IpAddr> = Vec::new();
    for interface in nix::ifaddrs::getifaddrs().into_iter().flatten() {
        let Some(address) = interface.address else {
            continue;
        };
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        let v6 = || address.as_sockaddr_in6().map(|a| a.ip()).filter(|ip| !ip.is_unicast_link_local()).map(IpAddr::V6);
        ips.extend(v4.or_else(v6).filter(|ip| !ip.is_loopback()));
    }
    ips.sort();
    ips.dedup();
    found.extend(ips.into_iter().map(|ip| SocketAddr::new(ip, port).to_string()));
    if let Ok(name) = nix::unistd::gethostname() {
        found.push(format!("{}:{port}", name.to_string_lossy()));
    }
    found
}

/// What a starter meets: the knock that it should know, and the agent's part in TLS.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) identity: Identity,
    pub(super) config: Arc<ServerConfig>,
}

/// Takes in starters, for the life of the agent.
pub(super) async fn listen(agent: Rc<Agent>, listener: TcpListener) {
    let strangers = Strangers::new(STRANGERS);
    let handshakes = Rc::new(Semaphore::new(HANDSHAKES));
    let guests = Rc::new(Semaphore::new(GUESTS));
    let mut crowd = 0;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let crowded = strangers.full();
                let place = strangers.admit(peer.ip());
                let (agent, guests, handshakes) = (Rc::clone(&agent), Rc::clone(&guests), Rc::clone(&handshakes));
                tokio::task::spawn_local(async move {
                    // A stranger is not worth a line of the log each.
                    let Some((stream, door)) = knocked(&agent, stream, place).await else {
                        return agent.strangers.set(agent.strangers.get() + 1);
                    };
                    let Ok(guest) = guests.try_acquire() else {
                        return tracing::warn!(%peer, "turned away: too many call at once");
                    };
                    let Ok(turn) = handshakes.acquire().await else {
                        return;
                    };
                    let welcomed = tokio::time::timeout(HANDSHAKE, greet(&agent, stream, &door)).await;
                    drop((turn, guest));
                    match welcomed {
                        Ok(Ok((frames, write, hello))) => Box::pin(serve(&agent, frames, write, hello)).await,
                        Ok(Err(why)) => tracing::warn!(%peer, "refused: {why}"),
                        Err(_) => tracing::warn!(%peer, "no handshake in time"),
                    }
                });
                crowd += u32::from(crowded);
                if crowd == CROWD {
                    crowd = 0;
                    tokio::time::sleep(PACE).await;
                }
            }
            Err(e) => {
                // Out of descriptors, most likely: others must close first.
                tracing::warn!("accept: {e}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Says in the log, now and then, that strangers called.
pub(super) async fn count_strangers(agent: Rc<Agent>) {
    let mut told = 0;
    loop {
        tokio::time::sleep(Duration::from_secs(60)).await;
        let now = agent.strangers.get();
        if now != told {
            tracing::warn!("{} connections did not knock", now - told);
            told = now;
        }
    }
}

type Secure = TlsStream<TcpStream>;
type Reader = FrameSource<tokio::io::ReadHalf<Secure>>;
type Writer = tokio::io::WriteHalf<Secure>;

/// Waits for the knock; none for a stranger.
async fn knocked(agent: &Agent, mut stream: TcpStream, place: Place) -> Option<(TcpStream, Rc<Door>)> {
    let door = agent.door.borrow().clone()?;
    let mut said = [0; tls::KNOCK];
    let heard = tokio::select! {
        read = tokio::time::timeout(KNOCK, stream.read_exact(&mut said)) => matches!(read, Ok(Ok(_))),
        () = place.lost() => false,
    };
    (heard && door.identity.is_knock(&said)).then_some((stream, door))
}

async fn greet(agent: &Agent, stream: TcpStream, door: &Door) -> Result<(Reader, Writer, StarterHello), String> {
    let text = |e: &dyn std::error::Error| match e.source() {
        Some(source) => format!("{e}: {source}"),
        None => e.to_string(),
    };
    stream.set_nodelay(true).map_err(|e| e.to_string())?;
    let stream = tls::accept_starter(&door.config, stream).await.map_err(|e| text(&e))?;
    let shown = stream.get_ref().1.peer_certificates().map(<[_]>::to_vec);
    let (read, write) = tokio::io::split(stream);
    let mut frames = FrameSource::new(read);
    let first = frames.next().await.map_err(|e| e.to_string())?.ok_or("it said nothing")?;
    let hello: StarterHello = first.read().map_err(|e| e.to_string())?;
    let proxy = hello.facts.proxy;
    tls::expect_starter(shown.as_deref(), door.identity.domain(), proxy.0).map_err(|e| text(&e))?;
    if !vo_wire::compatible(vo_wire::PROTOCOL, hello.protocol) {
        return Err(format!("protocol {:#x}", hello.protocol));
    }
    if hello.epoch > agent.epoch() {
        agent.doubt.notify_one();
        return Err(format!("it has seen an agent of epoch {}, ours is {}", hello.epoch, agent.epoch()));
    }
    if agent.starters.borrow().get(&hello.key).is_some_and(|line| line.facts.proxy != proxy) {
        return Err(format!("its key is that of a starter of another proxy than {proxy}"));
    }
    Ok((frames, write, hello))
}

async fn serve(agent: &Rc<Agent>, mut frames: Reader, write: Writer, hello: StarterHello) {
    let key = hello.key;
    let proxy = hello.facts.proxy;
    let (out, drain) = outbox(ROOM);
    let close = Rc::new(Notify::new());
    let serial = agent.serial.get() + 1;
    agent.serial.set(serial);
    let connected = Event::StarterConnected {
        proxy,
        node: hello.facts.node_index,
        key,
        batch_id: hello.facts.batch_id.clone(),
        restarts: hello.facts.restarts,
    };
    let line = Line { facts: hello.facts, out, welcomed: false, close: Rc::clone(&close), serial };
    let old = agent.starters.borrow_mut().insert(key, line);
    if let Some(old) = old {
        // It calls again over another connection, and the one before is dead.
        old.close.notify_one();
    }
    agent.tell(connected);
    let mut writer = tokio::task::spawn_local(drain.run(write));
    let mut conversation = Conversation { agent: Rc::clone(agent), key, left: None };
    let mut heard = Instant::now();
    let mut asked = false;
    let going = tokio::time::sleep(GOING);
    tokio::pin!(going);
    let current = || agent.starters.borrow().get(&key).is_some_and(|line| line.serial == serial);
    let why = loop {
        let lease = agent.lease_time();
        let silence = lease * SILENCE / 4;
        let patience = if asked { silence } else { lease / 2 };
        let welcomed = agent.starters.borrow().get(&key).is_some_and(|line| line.welcomed);
        tokio::select! {
            frame = frames.next() => match frame {
                // It has called again: what it said before is over.
                Ok(Some(_)) if !current() => break String::new(),
                Ok(Some(frame)) => {
                    heard = Instant::now();
                    asked = false;
                    if let Err(why) = conversation.take(frame, &mut frames).await {
                        break why;
                    }
                }
                Ok(None) => break "it closed its connection".to_owned(),
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => break "its connection broke off".to_owned(),
                Err(e) => break format!("its connection broke: {e}"),
            },
            () = close.notified() => break "its connection was given up".to_owned(),
            // The machine has told it to end, or has not made its welcome durable: it calls again then.
            () = &mut going, if !welcomed => break "it was not taken in".to_owned(),
            ended = &mut writer => break match ended {
                Ok(Err(e)) => format!("its connection broke: {e}"),
                _ => "its connection ended".to_owned(),
            },
            () = tokio::time::sleep(patience.saturating_sub(heard.elapsed())) => {
                if asked {
                    break format!("silent for {silence:?}");
                }
                asked = true;
                conversation.say(&Ping { nonce: 0 });
            }
        }
    };
    // A peer that takes nothing must not keep the connection by that.
    writer.abort();
    if current() {
        agent.starters.borrow_mut().remove(&key);
        agent.blobs.starter_gone(key);
        let (left, heard) = (conversation.left, agent.at(heard));
        agent.tell(Event::StarterLost { proxy, key, left, heard, why });
        agent.line_closed();
    }
}

struct Conversation {
    agent: Rc<Agent>,
    key: StarterKey,
    left: Option<String>,
}

impl Conversation {
    fn say<M: Message>(&self, message: &M) {
        if let Some(line) = self.agent.starters.borrow().get(&self.key) {
            line.out.say(self.key.0, message);
        }
    }

    /// Takes a frame, and those that came with it.
    async fn take<R: AsyncRead + Unpin>(&mut self, first: Frame, frames: &mut FrameSource<R>) -> Result<(), String> {
        let mut relayed = Vec::new();
        let mut next = Some(first);
        while let Some(mut frame) = next {
            if is_relayed(frame.kind) {
                // Whatever it says, this is who it is.
                frame.route = self.key.0;
                frame.write(&mut relayed);
            } else {
                self.control(&frame)?;
            }
            if relayed.len() >= BURST {
                self.relay(std::mem::take(&mut relayed)).await;
            }
            next = frames.buffered().map_err(|e| e.to_string())?;
        }
        if !relayed.is_empty() {
            self.relay(relayed).await;
        }
        Ok(())
    }

    /// Passes frames on to the master, and waits for room; without a master they are dropped, as the starter was told.
    async fn relay(&self, bytes: Vec<u8>) {
        let welcomed = self.agent.starters.borrow().get(&self.key).is_some_and(|line| line.welcomed);
        let out = self.agent.master.borrow().as_ref().filter(|_| welcomed).map(|master| master.out.clone());
        if let Some(out) = out {
            // A stream that closed meanwhile is one without a master.
            let _ = out.pass(bytes).await;
        }
    }

    fn control(&mut self, frame: &Frame) -> Result<(), String> {
        let text = |e: vo_wire::WireError| e.to_string();
        let (welcomed, behind) = match self.agent.starters.borrow().get(&self.key) {
            Some(line) => (line.welcomed, line.out.said()),
            None => (false, 0),
        };
        if behind > ROOM {
            return Err("it asks, and takes no answer".to_owned());
        }
        match frame.kind {
            // One that is not taken in gets nothing: its proxy may have ended.
            NeedBlob::KIND if !welcomed => {}
            NeedBlob::KIND => {
                let hash = frame.read::<NeedBlob>().map_err(text)?.hash;
                if self.agent.blobs.waited_for(self.key) >= FILES {
                    return Err(format!("it asks for more than {FILES} files at once"));
                }
                self.agent.blobs.need(&self.agent, self.key, hash);
            }
            BlobAck::KIND => self.agent.blobs.acknowledged(self.key, &frame.read().map_err(text)?),
            Ping::KIND => self.say(&Pong { nonce: frame.read::<Ping>().map_err(text)?.nonce }),
            Leaving::KIND => self.left = Some(frame.read::<Leaving>().map_err(text)?.why),
            Pong::KIND => {}
            kind => tracing::debug!(kind, "skipped"),
        }
        Ok(())
    }
}

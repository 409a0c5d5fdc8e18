//! The way to one site: connects to its gateway, brings the agent there, carries frames both ways, and connects again when the way is
//! lost. One task a site, so that none disturbs another.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use ring::digest;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use vo_net::frames::FrameSource;
use vo_net::ssh::{self, AskPass, Class, ConnectOptions, ExecExit, Gateway, Prompter, Target, TargetQuery};
use vo_wire::Frame;
use vo_wire::control::{Question, SiteEvent};
use vo_wire::frame::Message;
use vo_wire::link::{AgentHello, AgentRefused, Configure};

use crate::journal::chain;

/// First and longest pause before connecting again to a gateway that is silent: it may be back any moment, and a try costs it nothing.
const DOWN: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));
/// The same for one that turns us away: each hasty try prolongs a ban, and most bans end after minutes. Also for one that refuses the
/// login or has no use for us, which mends itself now and then: a home directory that was not mounted yet.
const CAREFUL: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(1800));
/// For a short remote command.
const PROBE_PATIENCE: Duration = Duration::from_secs(60);
/// For an agent's first word: it may have to start, to wait for a slow login shell and to read its table.
const FIRST_FRAME: Duration = Duration::from_secs(180);
/// Most bytes of such a command's output that are looked at.
const PROBE_BYTES: usize = 64 << 10;
/// Bytes of a site's frames that wait for the master's task or for our disks: two of the largest. A site that says more waits.
const ROOM: usize = 2 * vo_wire::frame::MAX_FRAME;
/// Most bytes of the bridge's standard error that are kept.
const WORDS: u64 = 8 << 10;

/// What a site's task needs to know.
#[derive(Clone)]
pub(crate) struct Route {
    pub(crate) site: String,
    /// As the user wrote it; shown.
    pub(crate) gateway: String,
    pub(crate) way: Way,
    /// `NAME-ID`: the session's directory at the site.
    pub(crate) session: String,
    /// Agent programs, the most portable first.
    pub(crate) agents: Vec<PathBuf>,
    pub(crate) configure: Configure,
    /// The one person who answers questions, shared by all sites.
    pub(crate) person: Arc<Semaphore>,
    /// An agent was at work there for an earlier master.
    pub(crate) reached: bool,
}

/// How a site is reached.
#[derive(Clone)]
pub(crate) enum Way {
    /// It is this machine: the program that acts as the agent.
    Local(PathBuf),
    /// By SSH.
    Ssh { query: TargetQuery, options: ConnectOptions },
}

/// What a site's task tells.
pub(crate) enum Told {
    Event(SiteEvent),
    Question(Question, oneshot::Sender<Option<String>>),
    /// The stream to the agent is open: frames sent here go to it.
    Linked(mpsc::UnboundedSender<Vec<u8>>),
    /// With its part of the site's room, free again when it has been dealt with.
    Frame(Frame, OwnedSemaphorePermit),
    /// There is no stream: it ended, or could not be opened. It is tried again after the pause.
    Lost {
        problem: Problem,
        pause: Duration,
        /// Orders taken before this try began.
        orders: u64,
    },
}

/// What the master may want of a site's task. Closing the way for orders ends the task.
pub(crate) enum Order {
    /// Connect at once, and ask the person if there is one. Of no meaning while the stream is open.
    Connect { interactive: bool },
    /// The stream is silent: give it up, and connect anew.
    Reconnect,
}

/// What keeps a site from being used, by what helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Nobody answers: time.
    Down,
    /// The gateway turns us away: much time.
    Blocked,
    /// The login is refused: a person.
    Login,
    /// It has no use for us as it is: its administrator, or another configuration.
    Unusable,
}

impl Trouble {
    /// How long to wait after so many failures of this kind in succession, from 1. `random` spreads those who lost one gateway together.
    fn pause(self, failures: u32, random: u8) -> Duration {
        let (first, last) = if self == Trouble::Down { DOWN } else { CAREFUL };
        let full = first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(last);
        full / 2 + full / 2 * u32::from(random) / 255
    }
}

/// Why a site can't be used.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    pub(crate) trouble: Trouble,
}

impl Problem {
    fn new(message: impl Into<String>) -> Self {
        Problem { message: message.into(), hint: None, trouble: Trouble::Unusable }
    }

    fn down(message: impl Into<String>) -> Self {
        Problem { trouble: Trouble::Down, ..Problem::new(message) }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Problem { hint: Some(hint.into()), ..self }
    }
}

impl From<ssh::SshError> for Problem {
    fn from(error: ssh::SshError) -> Self {
        let trouble = match error.class() {
            Class::Down => Trouble::Down,
            Class::Blocked => Trouble::Blocked,
            Class::Denied => Trouble::Login,
        };
        Problem { hint: error.hint(), trouble, message: chain(&error) }
    }
}

/// Tells the master; when it is gone, so are we.
pub(crate) type Tell = Arc<dyn Fn(Told) -> Telling + Send + Sync>;
/// A message on its way: the master's queue is bounded, so frames wait for it.
pub(crate) type Telling = std::pin::Pin<Box<dyn Future<Output = bool> + Send>>;

/// Asks through the master. The questions of one connection come together: another's wait until it is made or given up.
struct Asker {
    site: String,
    tell: Tell,
    /// Taken while one is asked; none if nobody answers.
    person: Option<Arc<Semaphore>>,
    turn: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Asker {
    async fn question(&self, title: String, text: String, echo: bool, confirm: bool) -> Option<String> {
        let mut turn = self.turn.lock().await;
        if turn.is_none()
            && let Some(person) = &self.person
        {
            *turn = person.clone().acquire_owned().await.ok();
        }
        drop(turn);
        let (answer, answered) = oneshot::channel();
        let question = Question { id: 0, site: self.site.clone(), title, text, echo, confirm };
        if !(self.tell)(Told::Question(question, answer)).await {
            return None;
        }
        answered.await.ok().flatten()
    }
}

impl Prompter for Asker {
    fn interactive(&self) -> bool {
        self.person.is_some()
    }

    fn ask(&self, prompt: ssh::Prompt) -> ssh::Answer<'_, Option<String>> {
        // As OpenSSH does: several gateways may ask for a password.
        let text = match prompt.kind {
            ssh::PromptKind::Passphrase => prompt.text,
            ssh::PromptKind::Password | ssh::PromptKind::KeyboardInteractive => {
                format!("({}) {}", prompt.host, prompt.text)
            }
        };
        Box::pin(self.question(prompt.instruction, text, prompt.echo, false))
    }

    fn confirm_host_key(&self, question: ssh::HostKeyQuestion) -> ssh::Answer<'_, bool> {
        let title = format!(
            "The authenticity of host '{}' can't be established.\n{} key fingerprint is {}.",
            question.key.name, question.key.key_type, question.key.fingerprint
        );
        let text = match question.file {
            Some(file) => format!("Trust it from now on, and remember it in {} (yes/no)? ", file.display()),
            None => "Trust it for this connection (yes/no)? ".into(),
        };
        Box::pin(async move { self.question(title, text, true, true).await.is_some_and(|a| a.trim() == "yes") })
    }

    fn info(&self, _: &str, text: &str) {
        let event = SiteEvent::Note { site: self.site.clone(), message: text.to_owned(), hint: None };
        let telling = (self.tell)(Told::Event(event));
        tokio::task::spawn(telling);
    }
}

/// A stream to the agent, and what must live as long.
struct Stream {
    stdin: Box<dyn AsyncWrite + Send + Sync + Unpin>,
    stdout: Box<dyn AsyncRead + Send + Sync + Unpin>,
    stderr: Box<dyn AsyncRead + Send + Sync + Unpin>,
    /// The connection and the command on it: both end when they are dropped.
    remote: Option<(Gateway, ExecExit)>,
}

/// Runs until the master is gone or gives no more orders.
pub(crate) async fn run(route: Route, interactive: bool, tell: Tell, mut orders: mpsc::UnboundedReceiver<Order>) {
    // At the start one person is asked by all sites in turn. One who asks for a login has a terminal of their own, which may stay
    // without an answer for days.
    let mut person = interactive.then(|| route.person.clone());
    let asks = |interactive: bool| interactive.then(|| Arc::new(Semaphore::new(1)));
    let (mut taken, mut said) = (0, false);
    let mut failures: Option<(Trouble, u32)> = None;
    // The highest epoch of an agent met so far: one of a lower epoch was taken over from, whatever it believes.
    let mut epoch = u64::from(route.reached);
    loop {
        if !std::mem::replace(&mut said, true) || person.is_some() {
            let spawning = SiteEvent::Spawning { site: route.site.clone(), gateway: route.gateway.clone() };
            (tell)(Told::Event(spawning)).await;
        }
        let opened = tokio::select! {
            opened = open(&route, person.take(), epoch, &tell) => opened,
            order = orders.recv() => match order {
                None => return,
                Some(Order::Connect { interactive }) => {
                    person = asks(interactive);
                    taken += 1;
                    continue;
                }
                Some(Order::Reconnect) => continue,
            },
        };
        let ended = match opened {
            Err(problem) => Err(problem),
            Ok(stream) => {
                let carried = carry(&route, stream, &mut epoch, &tell);
                tokio::pin!(carried);
                loop {
                    tokio::select! {
                        ended = &mut carried => break ended,
                        order = orders.recv() => match order {
                            None => return,
                            Some(Order::Connect { .. }) => taken += 1,
                            // A new call finds the agent that answers, or starts one in place of one that hangs.
                            Some(Order::Reconnect) => break Err(Problem::down("the agent is silent")),
                        },
                    }
                }
            }
        };
        let problem = match ended {
            Ok(Ended::MasterGone) => return,
            Ok(Ended::Lost(problem, worked)) => {
                if worked {
                    failures = None;
                }
                problem
            }
            Err(problem) => problem,
        };
        let count = failures.filter(|(trouble, _)| *trouble == problem.trouble).map_or(1, |(_, count)| count + 1);
        failures = Some((problem.trouble, count));
        let mut random = [0];
        // Without random numbers the pause is merely regular.
        let _ = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut random);
        let pause = problem.trouble.pause(count, random[0]);
        if !(tell)(Told::Lost { problem, pause, orders: taken }).await {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            order = orders.recv() => match order {
                None => return,
                Some(Order::Connect { interactive }) => {
                    person = asks(interactive);
                    taken += 1;
                }
                Some(Order::Reconnect) => {}
            },
        }
    }
}

enum Ended {
    MasterGone,
    /// And whether frames came over it.
    Lost(Problem, bool),
}

/// Frames both ways until the stream ends.
async fn carry(route: &Route, stream: Stream, epoch: &mut u64, tell: &Tell) -> Result<Ended, Problem> {
    let Stream { mut stdin, stdout, stderr, remote } = stream;
    let mut opening = Vec::new();
    vo_wire::frame::write_message(0, &route.configure, &mut opening);
    let (sender, mut outgoing) = mpsc::unbounded_channel::<Vec<u8>>();
    let write = async move {
        stdin.write_all(&opening).await?;
        stdin.flush().await?;
        while let Some(bytes) = outgoing.recv().await {
            stdin.write_all(&bytes).await?;
            if outgoing.is_empty() {
                stdin.flush().await?;
            }
        }
        Ok::<(), std::io::Error>(())
    };
    let words = async move {
        let mut text = Vec::new();
        let _ = stderr.take(WORDS).read_to_end(&mut text).await;
        text
    };
    let (words, mut worked) = (tokio::spawn(words), false);
    let mut refused = None;
    let mut source = FrameSource::new(stdout);
    let room = Arc::new(Semaphore::new(ROOM));
    let read = async {
        loop {
            let next = source.next();
            let next = match worked {
                true => next.await,
                false => tokio::time::timeout(FIRST_FRAME, next).await.map_err(|_| std::io::ErrorKind::TimedOut)?,
            };
            let Some(frame) = next? else { break };
            if frame.kind == AgentHello::KIND {
                let hello = frame.read::<AgentHello>().map_err(std::io::Error::other)?;
                if hello.epoch < *epoch {
                    let why = format!("an old agent answered (epoch {}, now {epoch})", hello.epoch);
                    return Err(std::io::Error::other(why));
                }
                *epoch = hello.epoch;
            }
            if frame.kind == AgentRefused::KIND {
                refused = Some(frame.read::<AgentRefused>().map_err(std::io::Error::other)?);
                return Ok(false);
            }
            if !worked && !(tell)(Told::Linked(sender.clone())).await {
                return Ok(true);
            }
            worked = true;
            let size = u32::try_from(frame.body.len() + size_of::<Frame>()).unwrap_or(u32::MAX);
            let Ok(place) = room.clone().acquire_many_owned(size).await else {
                return Ok(true);
            };
            if !(tell)(Told::Frame(frame, place)).await {
                return Ok(true);
            }
        }
        Ok::<bool, std::io::Error>(false)
    };
    tokio::pin!(write);
    let ended = tokio::select! {
        ended = read => ended,
        failed = &mut write => failed.map(|()| false),
    };
    if matches!(ended, Ok(true)) {
        return Ok(Ended::MasterGone);
    }
    if let Some(AgentRefused { message, hint }) = refused {
        return Err(Problem { hint, ..Problem::new(message) });
    }
    let said = tokio::time::timeout(Duration::from_secs(2), words).await.ok().and_then(Result::ok).unwrap_or_default();
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    let why = match (remote, ended) {
        _ if !said.is_empty() => said,
        (Some((gateway, _)), ended) => match tokio::time::timeout(Duration::from_millis(100), gateway.closed()).await {
            Ok(error) => chain(&error),
            Err(_) => ended.err().map_or_else(|| "the agent's stream ended".into(), |e| e.to_string()),
        },
        (None, Err(error)) => error.to_string(),
        (None, Ok(_)) => "the agent's stream ended".into(),
    };
    Ok(Ended::Lost(Problem::down(why), worked))
}

async fn open(route: &Route, person: Option<Arc<Semaphore>>, epoch: u64, tell: &Tell) -> Result<Stream, Problem> {
    match &route.way {
        Way::Local(program) => local(route, program, epoch).await,
        Way::Ssh { query, options } => remote(route, query, options, person, epoch, tell).await,
    }
}

/// The agent's home: `~/.vo-login`.
fn home() -> Result<PathBuf, Problem> {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    Ok(PathBuf::from(home.ok_or_else(|| Problem::new("HOME is not set"))?).join(".vo-login"))
}

async fn local(route: &Route, program: &Path, epoch: u64) -> Result<Stream, Problem> {
    let program = program.to_owned();
    let read = program.clone();
    let loaded = tokio::task::spawn_blocking(move || -> Result<PathBuf, Problem> {
        let bytes = std::fs::read(&read)
            .map_err(|e| Problem::new(format!("cannot read the agent program {}: {e}", read.display())))?;
        let dir = home()?.join("bin").join(hex(&bytes));
        let file = dir.join("vo-agent");
        if std::fs::metadata(&file).is_ok_and(|found| found.len() == bytes.len() as u64) {
            return Ok(file);
        }
        let failed = |e: std::io::Error| Problem::new(format!("cannot write {}: {e}", file.display()));
        crate::session::private_dir(&dir).map_err(failed)?;
        vo_store::write_atomic(&file, &bytes, 0o700).map_err(failed)?;
        Ok(file)
    });
    let file = loaded.await.map_err(|_| Problem::new("reading the agent program was interrupted"))??;
    let mut command = Command::new(&file);
    command.args(["connect", "--session", &route.session, "--above", &epoch.to_string()]).process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| Problem::new(format!("cannot start {}: {e}", file.display())))?;
    let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(Problem::new("no pipes to the agent"));
    };
    let pipes = |e: std::io::Error| Problem::new(format!("no pipes to the agent: {e}"));
    let stdin = tokio::net::unix::pipe::Sender::from_owned_fd(stdin.into()).map_err(pipes)?;
    let stdout = tokio::net::unix::pipe::Receiver::from_owned_fd(stdout.into()).map_err(pipes)?;
    let stderr = tokio::net::unix::pipe::Receiver::from_owned_fd(stderr.into()).map_err(pipes)?;
    // Reaped when it ends; its end is seen by its pipes.
    std::thread::spawn(move || child.wait());
    Ok(Stream { stdin: Box::new(stdin), stdout: Box::new(stdout), stderr: Box::new(stderr), remote: None })
}

async fn remote(
    route: &Route,
    query: &TargetQuery,
    options: &ConnectOptions,
    person: Option<Arc<Semaphore>>,
    epoch: u64,
    tell: &Tell,
) -> Result<Stream, Problem> {
    let target = Target::resolve(query).await?;
    let asker = Arc::new(Asker { site: route.site.clone(), tell: tell.clone(), person, turn: Mutex::new(None) });
    let connected = Gateway::connect(&target, options, asker.clone()).await;
    // The next gateway's questions may come, however long this connection keeps its asker.
    asker.turn.lock().await.take();
    let gateway = connected?;
    let file = match install(route, &gateway, tell).await {
        Ok(file) => file,
        Err(problem) => {
            gateway.close().await;
            return Err(problem);
        }
    };
    let (file, session) = (ssh::quote(&file), ssh::quote(&route.session));
    let command = format!("exec {file} connect --session {session} --above {epoch}");
    let exec = gateway.exec(&sh(&command)).await?;
    Ok(Stream { stdin: exec.stdin, stdout: exec.stdout, stderr: exec.stderr, remote: Some((gateway, exec.exit)) })
}

/// For `/bin/sh`, whatever the remote login shell is.
fn sh(script: &str) -> String {
    format!("/bin/sh -c {}", ssh::quote(script))
}

/// What the gateway says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
struct Probe {
    home: String,
    machine: String,
    /// `getconf GNU_LIBC_VERSION`; none without glibc.
    libc: Option<(u32, u32)>,
    /// The agent programs there: hash by their directory's name, and size. An upload that was cut off, on a file system without atomic
    /// renames, shows by its size.
    agents: Vec<(String, u64)>,
}

fn probe_script() -> String {
    "printf 'home=%s\\n' \"$HOME\"; printf 'machine=%s\\n' \"$(uname -sm)\"; \
     printf 'libc=%s\\n' \"$(getconf GNU_LIBC_VERSION 2>/dev/null)\"; \
     for f in \"$HOME\"/.vo-login/bin/*/vo-agent; do [ -x \"$f\" ] && printf 'agent=%s %s\\n' \"$(wc -c <\"$f\")\" \"$f\"; done; \
     printf 'end\\n'"
        .to_owned()
}

impl Probe {
    /// Reads the probe's output; what a login shell printed before is passed over.
    fn read(text: &str) -> Option<Probe> {
        let mut probe = Probe::default();
        let mut whole = false;
        for line in text.lines() {
            if let Some(home) = line.strip_prefix("home=") {
                home.clone_into(&mut probe.home);
            } else if let Some(machine) = line.strip_prefix("machine=") {
                machine.clone_into(&mut probe.machine);
            } else if let Some(libc) = line.strip_prefix("libc=glibc ") {
                probe.libc = version(libc.trim());
            } else if let Some((size, path)) = line.strip_prefix("agent=").and_then(|rest| rest.trim().split_once(' '))
            {
                let hash = path.trim().strip_suffix("/vo-agent").and_then(|dir| dir.rsplit('/').next());
                probe.agents.extend(hash.map(str::to_owned).zip(size.parse().ok()));
            } else if line == "end" {
                whole = true;
            }
        }
        (whole && probe.home.starts_with('/')).then_some(probe)
    }
}

fn version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.split('.').next()?.parse().ok()?))
}

/// An agent program that we could upload.
struct Agent {
    path: PathBuf,
    bytes: Vec<u8>,
    hash: String,
    /// The glibc that it needs.
    needs: (u32, u32),
}

fn hex(bytes: &[u8]) -> String {
    let hash = digest::digest(&digest::SHA256, bytes);
    hash.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

/// The largest `GLIBC_x.y` that a program names: what its symbols need.
fn glibc_needed(bytes: &[u8]) -> (u32, u32) {
    const MARK: &[u8] = b"GLIBC_";
    let mut needed = (0, 0);
    let mut rest = bytes;
    while let Some(at) = rest.windows(MARK.len()).position(|window| window == MARK) {
        rest = &rest[at + MARK.len()..];
        let end = rest.iter().position(|b| !b.is_ascii_digit() && *b != b'.').unwrap_or(rest.len()).min(8);
        if let Some(found) = std::str::from_utf8(&rest[..end]).ok().and_then(version) {
            needed = needed.max(found);
        }
    }
    needed
}

impl Agent {
    fn load(path: &Path) -> std::io::Result<Agent> {
        let bytes = std::fs::read(path)?;
        Ok(Agent { path: path.to_owned(), hash: hex(&bytes), needs: glibc_needed(&bytes), bytes })
    }
}

/// Sees to it that the agent is at the gateway; its path there.
async fn install(route: &Route, gateway: &Gateway, tell: &Tell) -> Result<String, Problem> {
    let output = gateway.exec_collect(&sh(&probe_script()), b"", PROBE_PATIENCE, PROBE_BYTES).await?;
    let Some(probe) = Probe::read(&String::from_utf8_lossy(&output.stdout)) else {
        let said = String::from_utf8_lossy(&output.stderr);
        let message = format!("the gateway runs no commands for us ({}): {}", output.status, said.trim());
        return Err(
            Problem::new(message).hint("try `ssh GATEWAY uname`: a forced command or a restricted shell would show")
        );
    };
    let ours = format!("Linux {}", std::env::consts::ARCH);
    if probe.machine != ours {
        return Err(Problem::new(format!("the gateway is {}, the agent is for {ours}", probe.machine)));
    }
    let mut least = None;
    for path in &route.agents {
        let read = path.clone();
        // An interrupted read is one that failed.
        let Ok(Ok(agent)) = tokio::task::spawn_blocking(move || Agent::load(&read)).await else {
            continue;
        };
        if probe.libc.is_none_or(|libc| agent.needs > libc) {
            least = Some(least.map_or(agent.needs, |least| agent.needs.min(least)));
            continue;
        }
        let dir = format!("{}/.vo-login/bin/{}", probe.home, agent.hash);
        if !probe.agents.contains(&(agent.hash.clone(), agent.bytes.len() as u64)) {
            upload(route, gateway, &agent, &dir, tell).await?;
        }
        return Ok(format!("{dir}/vo-agent"));
    }
    let Some((major, minor)) = least else {
        return Err(Problem::new("there is no agent program to upload")
            .hint("`cargo build --release` makes target/release/vo-agent"));
    };
    let message = match probe.libc {
        Some((has, minor_has)) => format!("the agent needs glibc {major}.{minor}, the gateway has {has}.{minor_has}"),
        None => format!("the agent needs glibc {major}.{minor}, the gateway has none"),
    };
    Err(Problem::new(message).hint("`contrib/portable-agent` builds one for glibc 2.17 and later"))
}

async fn upload(route: &Route, gateway: &Gateway, agent: &Agent, dir: &str, tell: &Tell) -> Result<(), Problem> {
    tracing::info!(site = route.site, agent = %agent.path.display(), bytes = agent.bytes.len(), "uploading the agent");
    let (site, total, tell) = (route.site.clone(), agent.bytes.len() as u64, tell.clone());
    let progress = move |sent: u64| {
        let event = SiteEvent::Uploading { site: site.clone(), sent, total };
        tokio::task::spawn((tell)(Told::Event(event)));
    };
    progress(0);
    let aside = format!("{dir}/.vo-agent.{}", route.session);
    let (d, a) = (ssh::quote(dir), ssh::quote(&aside));
    let script = format!(
        "umask 077 && mkdir -p {d} && cat >{a} && chmod 700 {a} && \
         if command -v sha256sum >/dev/null; then echo '{hash}  {aside}' | sha256sum -c - >/dev/null; else \
         [ \"$(wc -c <{a})\" -eq {total} ]; fi && mv -f {a} {d}/vo-agent || {{ rm -f {a}; rmdir {d} 2>/dev/null; exit 1; }}",
        hash = agent.hash,
    );
    let sent = gateway.exec_collect(&sh(&script), &agent.bytes, Duration::from_secs(600), PROBE_BYTES).await?;
    progress(total);
    if sent.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&sent.stderr);
    let line = said.trim().lines().last().unwrap_or_default();
    let problem = Problem::new(format!("the agent could not be written to {dir}: {line}"));
    Err(if line.contains("No space left") || line.contains("quota") {
        problem.hint("your home directory at the site is full; `quota -s` or `df -h ~` there tells")
    } else {
        problem
    })
}

/// How the system's `ssh` asks, from a daemon: through a program that asks the master.
pub(crate) fn askpass(program: &Path, session_dir: &Path, site: &str) -> AskPass {
    AskPass {
        program: program.to_owned(),
        env: vec![("VO_SESSION_DIR".into(), session_dir.into()), ("VO_SITE".into(), site.into())],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_read_after_a_chatty_login() {
        let text = "Welcome!\nhome=/home/u\nmachine=Linux x86_64\nlibc=glibc 2.36\nagent=3 /home/u/.vo-login/bin/abc/vo-agent\n\
                    agent=2 /home/u/.vo-login/bin/def/vo-agent\nend\n";
        let probe = Probe::read(text).unwrap();
        assert_eq!(probe.home, "/home/u");
        assert_eq!(probe.libc, Some((2, 36)));
        assert_eq!(probe.agents, [("abc".to_owned(), 3), ("def".to_owned(), 2)]);
        assert_eq!(Probe::read("home=/home/u\n"), None, "no end");
        assert_eq!(Probe::read("home=\nend\n"), None, "no home");
        assert_eq!(Probe::read("home=/\nlibc=\nend\n").unwrap().libc, None, "no glibc");
    }

    #[test]
    fn pauses_grow_by_what_is_wrong() {
        let check = |trouble: Trouble, failures, least, most| {
            let seconds = |random| trouble.pause(failures, random).as_secs_f32();
            assert_eq!((seconds(0), seconds(255)), (least, most), "{trouble:?}, failure {failures}");
        };
        check(Trouble::Down, 1, 1.0, 2.0);
        check(Trouble::Down, 2, 2.0, 4.0);
        check(Trouble::Down, 8, 128.0, 256.0);
        check(Trouble::Down, 9, 150.0, 300.0);
        check(Trouble::Down, u32::MAX, 150.0, 300.0);
        for trouble in [Trouble::Blocked, Trouble::Login, Trouble::Unusable] {
            check(trouble, 1, 30.0, 60.0);
            check(trouble, 2, 60.0, 120.0);
            check(trouble, 6, 900.0, 1800.0);
            check(trouble, 60, 900.0, 1800.0);
        }
    }

    #[test]
    fn the_newest_symbol_version_is_what_a_program_needs() {
        assert_eq!(glibc_needed(b"\0GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_2.9\0"), (2, 34));
        assert_eq!(glibc_needed(b"GLIBC_PRIVATE GLIBC_"), (0, 0));
        assert_eq!(glibc_needed(b"GLIBC_2.17"), (2, 17));
    }
}

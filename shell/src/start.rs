//! From a configuration to a session that runs, and to its end.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use ring::rand::SecureRandom;
use vo_lang::Diagnostic;
use vo_lang::conf::{Conf, MAX_TEXT};
use vo_master::session::{ConfText, READY, SessionFile};
use vo_wire::control::{Answer, Done, EndSession, FollowStart, Question, SiteEvent};
use vo_wire::frame::Message;

use crate::client::{Master, read};
use crate::error::{Error, ExitCode, Result, printable};
use crate::sessions::{Session, State};
use crate::signals::Signals;
use crate::table::now_ms;
use crate::terminal::{self, Reply};

/// What the command line says of a session to start.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    pub(crate) conf: Option<PathBuf>,
    pub(crate) proxies: Option<String>,
    pub(crate) walltime: Option<Duration>,
    pub(crate) system_ssh: bool,
}

/// Shows what is wrong with a configuration.
fn wrong(findings: &[Diagnostic]) -> Error {
    findings.iter().for_each(|finding| eprintln!("{finding}"));
    Error::new(ExitCode::Configuration, "the configuration is wrong; nothing was started")
}

impl Wishes {
    /// Reads the configuration.
    pub(crate) fn read_conf(&self) -> Result<Option<ConfText>> {
        let Some(path) = &self.conf else { return Ok(None) };
        let failed = |e: &dyn std::fmt::Display| {
            Error::new(ExitCode::Configuration, format!("cannot read {}", path.display())).because(e)
        };
        let file = File::open(path).map_err(|e| failed(&e))?;
        let mut bytes = Vec::new();
        file.take(MAX_TEXT as u64 + 1).read_to_end(&mut bytes).map_err(|e| failed(&e))?;
        let file = path.to_string_lossy().into_owned();
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Some(ConfText { file, text })),
            Err(e) => Err(match Conf::parse(&file, e.as_bytes(), &[]) {
                Err(findings) => wrong(&findings),
                Ok(_) => failed(&e),
            }),
        }
    }

    /// The session file of a new session.
    fn session_file(&self, name: &str) -> Result<SessionFile> {
        let mut id = [0; 8];
        ring::rand::SystemRandom::new()
            .fill(&mut id)
            .map_err(|_| Error::new(ExitCode::Failure, "the system gives no random numbers"))?;
        let program = env::current_exe().map_err(|e| Error::system("cannot tell the path of this program", e))?;
        let file = SessionFile {
            name: name.to_owned(),
            id: id.iter().map(|byte| format!("{byte:02x}")).collect(),
            created_ms: now_ms(),
            agents: agents(&program),
            program,
            ssh_config: env::var_os("VO_SSH_CONFIG").map(|path| std::path::absolute(&path).unwrap_or(path.into())),
            conf: self.read_conf()?,
            proxies: self.proxies.clone(),
            walltime_s: self.walltime.map(|walltime| walltime.as_secs()),
            system_ssh: self.system_ssh,
        };
        let conf = file.read_conf().map_err(|errors| wrong(&errors))?;
        conf.warnings.iter().for_each(|finding| eprintln!("{finding}"));
        if conf.sites.is_empty() {
            let error = Error::new(
                ExitCode::Configuration,
                format!("{} names no gateway", self.conf.as_deref().unwrap_or(Path::new("")).display()),
            );
            return Err(error.hint("write a host name a line; without -H the session is on this machine"));
        }
        Ok(file)
    }
}

/// Agent programs for gateways, the most portable first: what `VO_AGENT` names, a portable build beside this program or where cargo
/// leaves it, and this program itself.
fn agents(program: &Path) -> Vec<PathBuf> {
    let dir = program.parent().unwrap_or(Path::new("/"));
    let built = format!("../{}-unknown-linux-gnu/release/vo-agent", env::consts::ARCH);
    let beside = ["vo-agent-portable", &built, "vo-agent"].map(|name| dir.join(name));
    let given = env::var_os("VO_AGENT").map(PathBuf::from);
    given.into_iter().chain(beside).filter(|path| path.is_file()).chain([program.to_owned()]).collect()
}

/// Starts a new session's master. The session must not exist.
pub(crate) fn create(session: &Session, wishes: &Wishes) -> Result<Master> {
    let file = wishes.session_file(&session.name)?;
    let _lock = session.lock()?;
    match session.state()? {
        State::Absent => {}
        State::Running(master) => return Err(runs(session, &master)),
        State::Stale => return Err(stale(session)),
    }
    session.install_commands(&file.program)?;
    file.write(&session.dir).map_err(|e| Error::system(format!("cannot write to {}", session.dir.display()), e))?;
    launch(session).inspect_err(|_| {
        // It never ran, so there is nothing to bring back.
        let _ = fs::remove_file(SessionFile::path(&session.dir));
    })
}

/// Starts a master for a session whose master is dead; it recovers what is there.
pub(crate) fn recover(session: &Session) -> Result<Master> {
    let _lock = session.lock()?;
    if let State::Running(master) = session.state()? {
        return Ok(master);
    }
    let broken = |e| Error::system(format!("cannot read session {}", session.name), e);
    let mut file = SessionFile::read(&session.dir).map_err(broken)?;
    // This program may have another path or version than the one that began the session.
    file.program = env::current_exe().map_err(broken)?;
    file.agents = agents(&file.program);
    file.write(&session.dir).map_err(broken)?;
    session.install_commands(&file.program)?;
    launch(session)
}

/// The refusal to start a session that runs.
pub(crate) fn runs(session: &Session, master: &Master) -> Error {
    let name = &session.name;
    Error::new(ExitCode::Busy, format!("session {name} already runs (process {})", master.welcome.pid)).hint(format!(
        "`vo-login -r {name}` attaches to it, `vo-login -s {name} -c COMMANDS` talks to it, -s OTHER starts another"
    ))
}

/// The refusal to start a session that waits to be brought back.
pub(crate) fn stale(session: &Session) -> Error {
    let name = &session.name;
    Error::new(ExitCode::Busy, format!("session {name} did not end: its master was killed, and its jobs are kept"))
        .hint(format!("`vo-login -r {name}` brings it back, -s OTHER starts another"))
}

/// Starts the master as a daemon and waits until it listens.
fn launch(session: &Session) -> Result<Master> {
    let failed = |e: &dyn std::fmt::Display| Error::system("cannot start the master", e);
    let log_path = session.dir.join("master.log");
    let log = OpenOptions::new().append(true).create(true).mode(0o600).open(&log_path).map_err(|e| failed(&e))?;
    let program = env::current_exe().map_err(|e| failed(&e))?;
    let mut child = Command::new(program)
        .arg("master")
        .arg("--dir")
        .arg(&session.dir)
        .current_dir(&session.dir)
        .env_remove("VO_SESSION")
        .env_remove("VO_SESSION_DIR")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(|e| failed(&e))?;
    let mut words = Vec::new();
    if let Some(pipe) = child.stdout.take() {
        let mut pipe = BufReader::new(pipe);
        pipe.read_until(b'\n', &mut words).map_err(|e| failed(&e))?;
        if words != READY {
            pipe.read_to_end(&mut words).map_err(|e| failed(&e))?;
        }
    }
    if words == READY {
        return Master::connect(&session.dir, None)?
            .ok_or_else(|| failed(&"it ended at once").hint(format!("see {}", log_path.display())));
    }
    let status = child.wait().map_err(|e| failed(&e))?;
    let text = String::from_utf8_lossy(&words).into_owned();
    let mut lines = text.lines();
    match (lines.next(), lines.next()) {
        (Some(why), Some(hint)) => Err(failed(&why).hint(hint)),
        (Some(why), None) => Err(failed(&why)),
        (None, _) => Err(failed(&format!("it ended with {status}")).hint(format!("see {}", log_path.display()))),
    }
}

/// What a start came to.
pub(crate) enum Started {
    /// At least one site is up.
    Up,
    /// Ctrl-C, or another signal, while it went on.
    Signal(Signal),
}

/// Shows the session's start and asks what it asks, until its sites have settled and starters have called back or `patience` has
/// passed.
///
/// # Errors
/// If no site is up; the session still runs then.
pub(crate) fn follow(master: &mut Master, signals: &Signals, patience: Duration, verbose: bool) -> Result<Started> {
    let person = terminal::person();
    let patience_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
    master.send(&FollowStart { patience_ms, interactive: person.is_some() })?;
    let mut report = Report::new(verbose, !patience.is_zero());
    let mut skipped = false;
    loop {
        while let Some(frame) = master.buffered()? {
            if frame.kind == Done::KIND {
                report.end();
                return match report.verdict() {
                    // It was the person who gave up the last site, not the site that refused.
                    Err(_) if skipped => Ok(Started::Signal(Signal::SIGINT)),
                    verdict => verdict,
                };
            }
            if frame.kind == SiteEvent::KIND {
                report.event(read(&frame)?);
            }
            if frame.kind == Question::KIND {
                report.line_feed();
                let question: Question = read(&frame)?;
                let reply = match &person {
                    Some(person) => terminal::ask(person, signals, &question)
                        .map_err(|e| Error::system("cannot ask on the terminal", e))?,
                    None => Reply::Nothing,
                };
                let text = match reply {
                    Reply::Text(text) => Some(text),
                    // Ctrl-C at a question gives up that site; a second one, the session.
                    Reply::Signal(Signal::SIGINT) if !std::mem::replace(&mut skipped, true) => None,
                    Reply::Signal(signal) => return Ok(Started::Signal(signal)),
                    Reply::Nothing => None,
                };
                master.send(&Answer { id: question.id, text })?;
            }
        }
        if let Some(signal) = signals.stop() {
            report.line_feed();
            return Ok(Started::Signal(signal));
        }
        let mut ready =
            [PollFd::new(master.as_fd(), PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(Error::system("cannot wait for the session's start", e)),
        }
        if ready.first().is_some_and(|fd| fd.any().unwrap_or(false)) {
            master.fill()?;
        }
    }
}

/// Ends the session, whatever its jobs do, and says what the sites say meanwhile.
pub(crate) fn end(session: &Session) -> Result<()> {
    match session.state()? {
        State::Running(master) => finish(master, true),
        State::Stale | State::Absent => Ok(()),
    }
}

/// Asks the master to end, and waits until it has gone.
pub(crate) fn finish(master: Master, force: bool) -> Result<()> {
    /// The master's last steps after its last word are on this machine only.
    const LAST_STEPS: Duration = Duration::from_secs(10);
    let mut master = ask_end(master, force)?;
    let deadline = Instant::now() + LAST_STEPS;
    // The connection closes with the master; nothing more is said on it.
    while let Ok(Some(_)) = master.frame_before(Some(deadline)) {}
    Ok(())
}

/// Asks the master to end, and shows what the sites say until it is done with them.
pub(crate) fn ask_end(mut master: Master, force: bool) -> Result<Master> {
    let mut report = Report::new(true, false);
    master.pages(&EndSession { force }, |event: SiteEvent| {
        report.event(event);
        Ok(())
    })?;
    report.line_feed();
    Ok(master)
}

/// Site events, as lines on standard error.
struct Report {
    out: io::Stderr,
    live: bool,
    verbose: bool,
    /// Are starters waited for?
    patient: bool,
    /// Is the cursor on a line to be written over?
    uploading: bool,
    /// Is it behind dots?
    open: bool,
    dots: u32,
    /// Starters that called back, and those wanted; none if nobody waits for them.
    participants: Option<(u32, u32)>,
    sites: BTreeMap<String, Site>,
}

/// How far a site's start is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Site {
    Pending,
    Up,
    Failed,
    /// It refused our login.
    Refused,
}

/// Most dots on the line that counts participants.
const DOTS: u32 = 40;

impl Report {
    fn new(verbose: bool, patient: bool) -> Report {
        let out = io::stderr();
        let live = out.is_terminal();
        Report {
            patient,
            out,
            live,
            verbose,
            uploading: false,
            open: false,
            dots: 0,
            participants: None,
            sites: BTreeMap::new(),
        }
    }

    fn line_feed(&mut self) {
        if std::mem::take(&mut self.uploading) {
            self.write("\r\x1b[K");
        }
        if std::mem::take(&mut self.open) {
            self.dots = 0;
            self.write("\n");
        }
    }

    /// Nothing depends on what is shown: a standard error that is closed changes nothing.
    fn write(&mut self, text: &str) {
        let _ = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
    }

    fn line(&mut self, text: &str) {
        self.line_feed();
        self.write(&format!("{}\n", printable(text)));
    }

    fn event(&mut self, event: SiteEvent) {
        match event {
            SiteEvent::Spawning { site, gateway } => {
                self.line(&format!("Spawning on {gateway}"));
                self.sites.entry(site).or_insert(Site::Pending);
            }
            SiteEvent::Uploading { site, sent, total } if self.live && total > 0 => {
                let percent = sent.saturating_mul(100) / total;
                self.write(&format!("\r\x1b[KUploading the agent to {}: {percent} %", printable(&site)));
                self.uploading = true;
                return;
            }
            SiteEvent::Uploading { .. } => {}
            SiteEvent::Up { site, batch } => {
                if self.verbose {
                    self.line(&format!("{site}: up, batch system {batch}"));
                }
                self.sites.insert(site, Site::Up);
            }
            SiteEvent::Failed { site, message, hint, authentication } => {
                self.note(&site, &message, hint.as_deref());
                self.sites.insert(site, if authentication { Site::Refused } else { Site::Failed });
            }
            SiteEvent::Note { site, message, hint } => self.note(&site, &message, hint.as_deref()),
            SiteEvent::Participants { joined, wanted } if self.patient => self.participants = Some((joined, wanted)),
            SiteEvent::Participants { .. } => {}
        }
        self.show_participants();
    }

    fn note(&mut self, site: &str, message: &str, hint: Option<&str>) {
        self.line(&format!("{site}: {message}"));
        if let Some(hint) = hint {
            self.line(&format!("hint: {hint}"));
        }
    }

    /// A dot for each starter, or for each fortieth of them, once all gateways have settled.
    fn show_participants(&mut self) {
        let Some((joined, wanted)) = self.participants else {
            return;
        };
        // Nobody is waited for while gateways are, nor where none is up.
        if self.sites.values().any(|site| *site == Site::Pending) || !self.sites.values().any(|site| *site == Site::Up)
        {
            return;
        }
        if !self.open {
            self.line_feed();
            self.write("Setting up VO participants ");
            self.open = true;
        }
        let scaled = u64::from(joined) * u64::from(DOTS) / u64::from(wanted.max(DOTS));
        let due = u32::try_from(scaled).unwrap_or(DOTS).min(DOTS);
        while self.dots < due {
            self.dots += 1;
            self.write(".");
        }
    }

    fn end(&mut self) {
        let Some((joined, wanted)) = self.participants.filter(|(_, wanted)| *wanted > 0) else {
            return self.line_feed();
        };
        self.show_participants();
        self.open = false;
        if joined >= wanted {
            self.write(" Done\n");
        } else {
            self.write(&format!(" {joined} of {wanted}; the others join when their batch jobs start\n"));
        }
    }

    fn verdict(&self) -> Result<Started> {
        if self.sites.values().any(|site| *site == Site::Up) {
            return Ok(Started::Up);
        }
        if self.sites.values().all(|site| *site == Site::Refused) {
            return Err(Error::new(ExitCode::Authentication, "no site could be used: logins were refused"));
        }
        Err(Error::new(ExitCode::Unreachable, "no site could be used"))
    }
}

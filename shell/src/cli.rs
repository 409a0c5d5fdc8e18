//! `vo-login` itself: starts, attaches to, talks to and lists sessions.

use std::env;
use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use nix::sys::signal::Signal;
use serde::Serialize;
use vo_lang::conf::parse_proxies;
use vo_master::session::SessionFile;
use vo_wire::control::{SessionDetail, ShowSession};

use crate::attach;
use crate::client::Master;
use crate::error::{Error, ExitCode, Result};
use crate::script::{self, End, Source};
use crate::sessions::{self, DEFAULT, Session, State};
use crate::signals::Signals;
use crate::start::{self, Started, Wishes};
use crate::table::{JsonList, Side, Table, now_ms, span, stdout, written};

/// How long a start waits for starters to call back, once the gateways have settled.
const PATIENCE: Duration = Duration::from_secs(10);

/// One prompt over many clusters
///
/// Starts a session on the sites of a configuration (without one, on this machine alone) and gives a grid prompt. With a script,
/// -c, or standard input that is no terminal, runs grid commands without a prompt instead: in the session named by -s if it runs,
/// which is left running, else in a new one, which ends with the script.
#[derive(Parser, Debug)]
#[command(name = "vo-login", version, after_help = format!("Exit codes:\n{}", ExitCode::table()))]
pub(crate) struct Cli {
    /// Configuration: a gateway a line, or TOML (see vo.conf(5))
    #[arg(short = 'H', value_name = "FILE")]
    conf: Option<PathBuf>,

    /// N job proxies of CPUS processors at each site
    #[arg(short = 'n', value_name = "N:CPUS", value_parser = proxies)]
    proxies: Option<String>,

    /// Walltime of each proxy, such as 10h; a bare number is minutes
    #[arg(short = 'W', value_name = "TIME", value_parser = walltime)]
    walltime: Option<Duration>,

    /// Use the system's ssh program
    #[arg(short = 'G')]
    system_ssh: bool,

    /// Name of the session [default: default]
    #[arg(short, long, value_name = "NAME")]
    session: Option<String>,

    /// Run these grid commands, then end
    #[arg(short, value_name = "COMMANDS")]
    commands: Option<OsString>,

    /// Leave the session running at the end of a script
    #[arg(long)]
    keep: bool,

    /// Come back to a session (without NAME, the only one): attach to it, or bring it back if its master was killed
    #[arg(short, long, value_name = "NAME", num_args = 0..=1, conflicts_with_all = ["conf", "proxies", "walltime", "system_ssh", "commands", "script", "keep"])]
    #[expect(clippy::option_option, reason = "-r, and -r NAME")]
    resume: Option<Option<String>>,

    /// List sessions: age, jobs (unfinished/all), who is attached, sites
    #[arg(short, long, conflicts_with_all = ["conf", "proxies", "walltime", "system_ssh", "session", "commands", "script", "keep", "resume"])]
    list: bool,

    /// With --list: a JSON array, one object for each session
    #[arg(long, requires = "list")]
    json: bool,

    /// Don't wait for starters to call back
    #[arg(long)]
    no_wait: bool,

    /// Say more
    #[arg(short, long)]
    verbose: bool,

    /// Script of grid commands and its arguments
    #[arg(value_name = "SCRIPT", trailing_var_arg = true)]
    script: Vec<OsString>,
}

fn proxies(text: &str) -> Result<String, String> {
    parse_proxies(text).map(|_| text.to_owned()).map_err(|expected| format!("expected {expected}"))
}

fn walltime(text: &str) -> Result<Duration, String> {
    vo_lang::parse_walltime(text).map_err(|e| format!("expected {e}"))
}

/// The command line's definition, for completions.
pub(crate) fn definition() -> clap::Command {
    Cli::command()
}

/// Runs `vo-login` with these words; the process's exit code.
pub(crate) fn run(words: impl Iterator<Item = OsString>) -> Result<i32> {
    let cli = Cli::try_parse_from(words).unwrap_or_else(|e| e.exit());
    if cli.list {
        return list(cli.json).map(|()| ExitCode::Success.number());
    }
    if let Some(name) = &cli.resume {
        let session = match name.as_deref().or(cli.session.as_deref()) {
            Some(name) => Session::named(name)?,
            None => only_session()?,
        };
        return resume(&session, &cli);
    }
    let session = Session::named(cli.session.as_deref().unwrap_or(DEFAULT))?;
    match source(&cli)? {
        Some(source) => batch(&session, &cli, source),
        None => interactive(&session, &cli),
    }
}

/// What a start meets must not leave half a session behind: from here on signals wait until they are looked at. Until the master has
/// answered they end us, whatever it waits for.
fn signals() -> Result<Signals> {
    Signals::catch(&[Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGWINCH, Signal::SIGCHLD])
        .map_err(|e| Error::system("cannot catch signals", e))
}

/// The script to run, if one is asked for.
fn source(cli: &Cli) -> Result<Option<Source>> {
    let mut words = cli.script.iter().cloned();
    Ok(match (&cli.commands, io::stdin().is_terminal()) {
        (Some(text), _) => Some(Source::Text(text.clone(), words.collect())),
        (None, terminal) => match words.next() {
            Some(file) => Some(Source::File(file.into(), words.collect())),
            None if !terminal => Some(Source::Input),
            None if !io::stdout().is_terminal() => {
                return Err(Error::usage("a grid prompt needs a terminal for its output")
                    .hint("-c COMMANDS runs grid commands without one"));
            }
            None => None,
        },
    })
}

impl Cli {
    fn wishes(&self) -> Wishes {
        Wishes {
            conf: self.conf.clone(),
            proxies: self.proxies.clone(),
            walltime: self.walltime,
            system_ssh: self.system_ssh,
        }
    }

    fn patience(&self) -> Duration {
        if self.no_wait { Duration::ZERO } else { PATIENCE }
    }
}

fn interactive(session: &Session, cli: &Cli) -> Result<i32> {
    // Nothing is started for a terminal that can't be attached.
    attach::own_keys()?;
    let state = session.settled()?;
    let signals = signals()?;
    match state {
        State::Running(master) => return Err(start::runs(session, &master)),
        State::Stale => return Err(start::stale(session)),
        State::Absent => {}
    }
    let mut master = start::create(session, &cli.wishes())?;
    if let Some(code) = set_up(session, &mut master, cli.patience(), cli, &signals)? {
        return Ok(code);
    }
    eprintln!(
        "Welcome to your grid environment.\nTo shut down the environment, type \"exit\". To detach from it, type \"detach\"."
    );
    attach::run(session, master, &signals)
}

fn resume(session: &Session, cli: &Cli) -> Result<i32> {
    let terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    if !terminal {
        return Err(Error::usage("-r needs a terminal")
            .hint(format!("`vo-login -s {} -c COMMANDS` talks to a session that runs", session.name)));
    }
    let state = session.state()?;
    let signals = signals()?;
    let master = match state {
        State::Running(master) => {
            not_inside(session)?;
            master
        }
        State::Absent => return session.connect().map(|_| ExitCode::Success.number()),
        State::Stale => {
            eprintln!("Session {}'s master was killed. Bringing the session back.", session.name);
            let mut master = start::recover(session)?;
            let jobs = session.connect().and_then(|mut master| master.ask::<_, SessionDetail>(&ShowSession {}))?.jobs;
            eprintln!(
                "It has all of its jobs: {} unfinished, {} in all. The grid shell is a new one; what ran in the old one has ended.",
                jobs.unfinished(),
                jobs.total()
            );
            // Sites that can't be reached now may be later: the session is not given up for them.
            match start::follow(&mut master, &signals, cli.patience(), cli.verbose) {
                Ok(Started::Up) => {}
                Ok(Started::Signal(signal)) => return Ok(128 + signal as i32),
                Err(error) => eprintln!("{error}"),
            }
            master
        }
    };
    attach::run(session, master, &signals)
}

/// The session that `-r` without a name means: the only one.
fn only_session() -> Result<Session> {
    let mut all = sessions::all()?;
    match (all.pop(), all.pop()) {
        (Some((session, _)), None) => Ok(session),
        (None, _) => Session::named(DEFAULT),
        _ => {
            table()?.write(&mut io::stderr()).map_err(|e| Error::system("cannot write to standard error", e))?;
            Err(Error::usage("there are several sessions").hint("`vo-login -r NAME` comes back to one of them"))
        }
    }
}

/// A session within its own terminal would show itself without end.
fn not_inside(session: &Session) -> Result<()> {
    /// Sessions within sessions that are looked through.
    const DEPTH: usize = 16;
    let refused = || Error::usage(format!("this terminal is itself shown in session {}", session.name));
    let Some(mut device) = attach::place().map(|place| place.device) else {
        return Ok(());
    };
    let details: Vec<(Session, SessionDetail)> = sessions::all()?
        .into_iter()
        .filter_map(|(session, state)| match state {
            Ok(State::Running(mut master)) => Some((session, master.ask(&ShowSession {}).ok()?)),
            _ => None,
        })
        .collect();
    for _ in 0..DEPTH {
        let Some((around, detail)) = details.iter().find(|(_, detail)| detail.terminal == Some(device)) else {
            break;
        };
        if around.dir == session.dir {
            return Err(refused().hint("`detach` leaves it"));
        }
        // A session that nobody sees is shown nowhere.
        let Some(place) = &detail.attached else { break };
        device = place.device;
    }
    if env::var_os("VO_SESSION_DIR").is_some_and(|dir| session.dir == dir) {
        return Err(refused().hint(format!(
            "VO_SESSION_DIR says so; if it is wrong, `env -u VO_SESSION_DIR vo-login -r {}`",
            session.name
        )));
    }
    Ok(())
}

fn batch(session: &Session, cli: &Cli, source: Source) -> Result<i32> {
    let state = session.settled()?;
    let signals = signals()?;
    let started = match state {
        State::Running(master) => {
            same_configuration(session, cli, &master)?;
            false
        }
        State::Stale => return Err(start::stale(session)),
        State::Absent => {
            let mut master = start::create(session, &cli.wishes())?;
            // Jobs wait for starters by themselves.
            if let Some(code) = set_up(session, &mut master, Duration::ZERO, cli, &signals)? {
                return Ok(code);
            }
            true
        }
    };
    let ended = script::run(session, source, &signals);
    if started && (!cli.keep || matches!(ended, Ok(End::Signal(_)))) {
        start::end(session)?;
    }
    Ok(match ended? {
        End::Code(code) => code,
        End::Signal(signal) => 128 + signal as i32,
    })
}

/// Follows a new session's start. If nothing comes of it, ends the session; then the exit code, or why no site is up.
fn set_up(
    session: &Session,
    master: &mut Master,
    patience: Duration,
    cli: &Cli,
    signals: &Signals,
) -> Result<Option<i32>> {
    match start::follow(master, signals, patience, cli.verbose) {
        Ok(Started::Up) => Ok(None),
        Ok(Started::Signal(signal)) => {
            eprintln!("Ending session {}.", session.name);
            start::end(session)?;
            Ok(Some(128 + signal as i32))
        }
        Err(error) => {
            if let Err(other) = start::end(session) {
                eprintln!("{other}");
            }
            Err(error)
        }
    }
}

/// A running session is not one that a script with another configuration means.
fn same_configuration(session: &Session, cli: &Cli, master: &Master) -> Result<()> {
    let wishes = cli.wishes();
    if let Some(wanted) = wishes.read_conf()? {
        let file = SessionFile::read(&session.dir)
            .map_err(|e| Error::system(format!("cannot read session {}", session.name), e))?;
        if file.conf.is_none_or(|has| has.text != wanted.text) {
            let error = start::runs(session, master)
                .because(format!("it was started with another configuration than {}", wanted.file));
            return Err(error);
        }
    }
    if wishes.proxies.is_some() || wishes.walltime.is_some() || wishes.system_ssh {
        eprintln!("warning: session {} already runs; -n, -W and -G change nothing", session.name);
    }
    Ok(())
}

/// A session in `--list --json`.
#[derive(Serialize)]
struct SessionJson<'a> {
    session: &'a str,
    state: &'static str,
    pid: Option<u32>,
    created_ms: Option<u64>,
    sites: &'a [String],
    unfinished: Option<u32>,
    jobs: Option<u32>,
    attached: Option<AttachedJson<'a>>,
    directory: String,
}

#[derive(Serialize)]
struct AttachedJson<'a> {
    terminal: &'a str,
    since_ms: Option<u64>,
}

/// A session in listings.
struct Listed {
    session: Session,
    /// `unknown` if its master doesn't answer.
    state: &'static str,
    pid: Option<u32>,
    created_ms: Option<u64>,
    sites: Vec<String>,
    /// If its master answers.
    detail: Option<SessionDetail>,
}

impl Listed {
    fn all() -> Result<Vec<Listed>> {
        let listed = |(session, state): (Session, Result<State>)| {
            let file = SessionFile::read(&session.dir).ok();
            let (state, master) = match state {
                Ok(State::Running(master)) => ("running", Some(master)),
                Ok(State::Stale | State::Absent) => ("stale", None),
                Err(_) => ("unknown", None),
            };
            Listed {
                state,
                pid: master.as_ref().map(|master| master.welcome.pid),
                created_ms: file.as_ref().map(|file| file.created_ms),
                sites: file
                    .and_then(|file| file.read_conf().ok())
                    .map(|conf| conf.sites.into_iter().map(|site| site.name).collect())
                    .unwrap_or_default(),
                detail: master.and_then(|mut master| master.ask(&ShowSession {}).ok()),
                session,
            }
        };
        Ok(sessions::all()?.into_iter().map(listed).collect())
    }
}

/// The sessions, for people.
fn table() -> Result<Table> {
    let mut table = Table::new(&[
        ("SESSION", Side::Left),
        ("STATE", Side::Left),
        ("PID", Side::Right),
        ("AGE", Side::Right),
        ("JOBS", Side::Right),
        ("ATTACHED", Side::Left),
        ("SITES", Side::Left),
    ]);
    let now = now_ms();
    for listed in Listed::all()? {
        let unknown = || "-".to_owned();
        table.row(vec![
            listed.session.name.clone(),
            listed.state.into(),
            listed.pid.map_or_else(unknown, |pid| pid.to_string()),
            listed.created_ms.map_or_else(unknown, |ms| span(now.saturating_sub(ms))),
            listed.detail.as_ref().map_or_else(unknown, |d| format!("{}/{}", d.jobs.unfinished(), d.jobs.total())),
            listed.detail.as_ref().and_then(|d| d.attached.as_ref()).map_or_else(unknown, |place| place.name.clone()),
            listed.sites.join(","),
        ]);
    }
    Ok(table)
}

fn list(json: bool) -> Result<()> {
    if !json {
        let table = table()?;
        if table.len() == 0 {
            eprintln!("No sessions.");
            return Ok(());
        }
        return table.write(&mut io::stdout()).map_err(written);
    }
    let mut list = JsonList::new(stdout());
    for listed in Listed::all()? {
        let detail = listed.detail.as_ref();
        list.push(&SessionJson {
            session: &listed.session.name,
            state: listed.state,
            pid: listed.pid,
            created_ms: listed.created_ms,
            sites: &listed.sites,
            unfinished: detail.map(|detail| detail.jobs.unfinished()),
            jobs: detail.map(|detail| detail.jobs.total()),
            attached: detail.and_then(|detail| {
                let place = detail.attached.as_ref()?;
                Some(AttachedJson { terminal: &place.name, since_ms: detail.attached_ms })
            }),
            directory: listed.session.dir.to_string_lossy().into_owned(),
        })?;
    }
    list.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound_and_shows_every_exit_code() {
        definition().debug_assert();
        let help = definition().render_help().to_string();
        for (code, meaning) in ExitCode::TABLE {
            assert!(help.contains(&format!("{:>5}  {meaning}", code.number())), "{meaning}");
        }
    }

    #[test]
    fn options_after_a_script_are_its_own() {
        let read = |line: &str| Cli::try_parse_from(line.split(' '));
        let cli = read("vo-login -H vo.conf run.vo -x --keep a");
        let script = cli.map(|cli| (cli.script, cli.keep)).ok();
        assert_eq!(script, Some((["run.vo", "-x", "--keep", "a"].map(OsString::from).to_vec(), false)));
        assert_eq!(read("vo-login -r").ok().map(|cli| cli.resume), Some(Some(None)));
        assert_eq!(read("vo-login -r other").ok().map(|cli| cli.resume), Some(Some(Some("other".into()))));
        for bad in [
            "vo-login -W 0",
            "vo-login -n 0:4",
            "vo-login -n x",
            "vo-login -r a -c q",
            "vo-login -l a",
            "vo-login --json",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}

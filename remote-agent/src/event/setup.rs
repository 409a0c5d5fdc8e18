//! How an agent comes to work: a master's configuration, the batch system, the table, the port.

use std::fs;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ring::rand::{SecureRandom, SystemRandom};
use vo_batch::{Detected, Kind, System};
use vo_core::proxy::{Config, Event, Proxies, State};
use vo_core::time::Time;
use vo_net::tls::{self, SiteAuthority};
use vo_wire::link::{AgentRefused, Configure};

use crate::connect::explain;
use crate::launch::{AgentAddress, Revival};

use super::agent::{Agent, Life, Missed};
use super::command::{Environment, run_argv};
use super::files::write_file;
use super::spool::Spools;
use super::starters;
use super::table;

/// For the versions of batch systems.
const PROBE: Duration = Duration::from_secs(30);

/// What the master told, and what follows from it.
pub(super) struct Setup {
    pub(super) configure: Configure,
    pub(super) authority: SiteAuthority,
    pub(super) system: System,
    pub(super) version: String,
    pub(super) environment: Rc<Environment>,
    pub(super) prefix: String,
}

/// Why the agent can't work here.
pub(super) struct Refusal {
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Refusal {
    pub(super) fn new(message: impl ToString) -> Refusal {
        Refusal { message: message.to_string(), hint: None }
    }

    pub(super) fn frame(&self) -> AgentRefused {
        AgentRefused { message: self.message.clone(), hint: self.hint.clone() }
    }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

pub(super) fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other("no random numbers"))?;
    Ok(u64::from_ne_bytes(bytes))
}

/// The batch jobs of this session and site, and no others, have names that begin so.
fn prefix(configure: &Configure) -> String {
    let id: String = configure.session_id.chars().filter(char::is_ascii_alphanumeric).take(16).collect();
    let site = ring::digest::digest(&ring::digest::SHA256, configure.site.as_bytes());
    let site: String = site.as_ref().iter().take(2).map(|byte| format!("{byte:02x}")).collect();
    format!("vo-{id}-{site}-")
}

impl Agent {
    /// Takes in what a master says at its connection. The first one sets everything up.
    pub(super) async fn configure(self: &Rc<Self>, configure: Configure) -> Result<(), Refusal> {
        let _one = self.configuring.lock().await;
        if self.is_closing() {
            return Err(Refusal::new("the session is ending here"));
        }
        let authority = SiteAuthority::from_pem(&configure.authority).map_err(Refusal::new)?;
        let identity = authority.issue_agent().map_err(Refusal::new)?;
        let config = tls::server_config(&identity).map_err(Refusal::new)?;
        *self.door.borrow_mut() = Some(Rc::new(starters::Door { identity, config }));
        let old = self.setup.borrow().clone();
        let setup = match old {
            Some(old) if old.configure.proxies.batch == configure.proxies.batch => Setup {
                system: old.system.clone(),
                version: old.version.clone(),
                environment: Rc::clone(&old.environment),
                prefix: old.prefix.clone(),
                configure,
                authority,
            },
            Some(_)
                if self.machine.borrow().as_ref().is_some_and(|m| m.views().any(|view| view.state != State::Exit)) =>
            {
                return Err(Refusal::new("the batch system can't be changed while proxies of the old one are there"));
            }
            _ => {
                let (system, version, environment) = self.detect(configure.proxies.batch.as_deref()).await?;
                Setup {
                    system,
                    version,
                    environment: Rc::new(environment),
                    prefix: prefix(&configure),
                    configure,
                    authority,
                }
            }
        };
        let limits = setup.configure.limits.clone();
        let nodes = if setup.system.kind() == Kind::Fork { 1 } else { setup.configure.proxies.nodes.max(1) };
        let setup = Rc::new(setup);
        *self.setup.borrow_mut() = Some(Rc::clone(&setup));
        if self.life.get().is_none() {
            self.begin(&setup).await?;
        }
        let revival = Revival { configure: setup.configure.clone(), program: self.program.clone() };
        if let Err(e) = write_file(&self.dir.revival(), &revival) {
            tracing::warn!("without a master this agent can't be started again: {}", explain(&e));
        }
        self.heard.set(Instant::now());
        self.missed.set(Missed::None);
        self.tell(Event::Configured(Config {
            nodes,
            queued_permille: limits.queued_permille,
            queued_base: limits.queued_base,
            status: Duration::from_millis(limits.status_ms),
            lease: Duration::from_millis(limits.lease_ms),
            absence: Duration::from_millis(limits.idle_ms),
        }));
        self.wake.notify_one();
        Ok(())
    }

    async fn detect(&self, wanted: Option<&str>) -> Result<(System, String, Environment), Refusal> {
        let system = |kind| System::new(kind, &self.program, &self.dir.0.join("fork").to_string_lossy());
        let wanted = wanted.map(str::parse::<Kind>).transpose().map_err(Refusal::new)?;
        if wanted == Some(Kind::Fork) {
            return Ok((system(Kind::Fork), env!("CARGO_PKG_VERSION").to_owned(), Environment::own()));
        }
        let environment = Environment::login().await;
        let probe = ["/bin/sh", "-c", vo_batch::PROBE].map(str::to_owned);
        let output = run_argv(&probe, &environment, b"", PROBE).await;
        let found =
            Detected::parse(&output.raw()).map_err(|e| Refusal::new(format!("cannot find the batch system: {e}")))?;
        let kind = match wanted {
            Some(kind) => kind,
            None => found.choose().map_err(|e| Refusal {
                message: e.to_string(),
                hint: Some(
                    "if a login shell finds it, set `batch`; to use this machine's own cores, set `batch = \"fork\"`"
                        .to_owned(),
                ),
            })?,
        };
        let version = found.systems.into_iter().find(|found| found.kind == kind).map(|found| found.version);
        let version = version.ok_or_else(|| Refusal {
            message: format!("the commands of {kind} are not on the PATH of a login shell"),
            hint: Some("set `batch` to what this gateway has, or leave it out".to_owned()),
        })?;
        if kind == Kind::GridEngine && !environment.has("SGE_ROOT") {
            tracing::warn!("SGE_ROOT is not set in a login shell");
        }
        Ok((system(kind), version, environment))
    }

    /// Opens the table, listens, and lets the machine recover.
    async fn begin(self: &Rc<Self>, setup: &Setup) -> Result<(), Refusal> {
        let failed = |what: &str, e: &io::Error| Refusal::new(format!("cannot {what}: {}", explain(e)));
        for name in ["tags", "proxies", "blobs"] {
            fs::create_dir_all(self.dir.0.join(name)).map_err(|e| failed(&format!("make {name}/"), &e))?;
        }
        let (path, epoch) = (self.dir.table(), self.lease.epoch);
        let (table, found, notices) = tokio::task::spawn_blocking(move || table::open(&path, epoch, unix_ms()))
            .await
            .map_err(Refusal::new)?
            .map_err(|e| {
                let source = std::error::Error::source(&e).map(|source| match source.downcast_ref::<io::Error>() {
                    Some(source) => explain(source),
                    None => source.to_string(),
                });
                let message = source.map_or_else(|| e.to_string(), |source| format!("{e}: {source}"));
                let hint = e.hint().map(|hint| format!("{hint}; its proxies are in the batch system still"));
                Refusal { message, hint }
            })?;
        *self.cut.borrow_mut() = found.cut;
        let base = found.base.unwrap_or_default();
        // A table that is begun anew must not take the batch jobs of a lost one for its own.
        let prefix = format!("{}{:06x}-", setup.prefix, base & 0xff_ffff);
        let mut machine = Proxies::new(&prefix, random().map_err(|e| failed("start", &e))?);
        for record in &found.records {
            machine.apply(record);
        }
        // A clock that was set back must not make times of the table lie ahead.
        let latest = machine.views().map(|view| view.since.0).max().unwrap_or(0);
        let now = Time(unix_ms().saturating_sub(base).max(latest));
        let old: Option<AgentAddress> = crate::launch::read(&self.dir.address()).ok();
        let old_port = old.as_ref().and_then(|old| old.addresses.first()?.rsplit(':').next()?.parse().ok());
        let listener = starters::bind(setup.configure.limits.ports, old_port).await;
        let listener = listener.map_err(|e| failed("listen for starters", &e))?;
        let port = listener.local_addr().map_err(|e| failed("listen for starters", &e))?.port();
        let address = AgentAddress { epoch, addresses: starters::addresses(port, setup.system.kind() == Kind::Fork) };
        self.may_act().await.map_err(Refusal::new)?;
        write_file(&self.dir.address(), &address).map_err(|e| failed("write agent.addr", &e))?;
        *self.address.borrow_mut() = Some(address);

        let life = Life { base, began: (now, Instant::now()), port };
        tracing::info!(epoch, port, batch = setup.system.kind().name(), version = setup.version, "begins");
        // Set once: `configuring` is held.
        let _ = self.life.set(life);
        *self.machine.borrow_mut() = Some(machine);
        *self.table.borrow_mut() = Some(table);
        self.tell(Event::Recovered);
        tokio::task::spawn_local(starters::listen(Rc::clone(self), listener));
        tokio::task::spawn_local(starters::count_strangers(Rc::clone(self)));
        tokio::task::spawn_local(Rc::clone(self).take_notices(notices));
        tokio::task::spawn_local(Rc::clone(self).keep_time());
        tokio::task::spawn_local(Rc::clone(self).say_stats());
        tokio::task::spawn_local(Spools::watch(Rc::clone(self)));
        Ok(())
    }
}

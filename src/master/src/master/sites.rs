//! What the master knows of its sites, and what it does about it.

use super::*;
use crate::words::{heard, plain};
use vo_core::job::{BY_CURL, BY_PELICAN};

/// What every site of a session is made from.
pub(super) struct Makings<'a> {
    pub(super) session: &'a SessionFile,
    pub(super) conf: &'a Conf,
    pub(super) dir: &'a Path,
    pub(super) ca: &'a SessionCa,
    pub(super) epoch: u64,
    pub(super) marker: &'a Marker,
    pub(super) now: Time,
    pub(super) person: &'a Arc<Semaphore>,
    pub(super) keys: &'a KeyRing,
    pub(super) reached: &'a BTreeSet<String>,
}

/// The sites at which an agent was ever at work, in the file `reached`, a line each.
pub(super) fn reached(dir: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(dir.join(REACHED)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

const REACHED: &str = "reached";

/// A site's state at the start, and the way to it.
pub(super) fn prepare(of: &Makings<'_>, conf: &SiteConf) -> Result<(Site, Route), String> {
    let Makings { session, dir, ca, epoch, marker, now, .. } = *of;
    let local = conf.gateway == session::LOCAL;
    let cores = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1));
    let (wanted, cpus) = match conf.proxies {
        Some(proxies) => (proxies.count, proxies.cpus),
        None => (1, if local { cores } else { 1 }),
    };
    let limits = limits(of.conf, conf);
    let authority = ca.site_intermediate(&conf.name).map_err(|e| chain(&e))?;
    let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    // A local pool is the user's own machine: it ends with the session.
    let walltime = conf.walltime.unwrap_or(Duration::from_secs(if local { 365 * 86_400 } else { 3600 }));
    let shape = ProxyShape {
        batch: conf.batch.clone().or(local.then(|| "fork".into())),
        nodes: conf.nodes.max(1),
        cpus: cpus.max(1),
        memory_mb: conf.memory.map(|mb| u32::try_from(mb).unwrap_or(u32::MAX)),
        walltime_s: millis(walltime) / 1000,
        queue: conf.queue.clone(),
        account: conf.account.clone(),
        directives: conf.directives.clone(),
        parallel_environment: conf.parallel_environment.clone(),
        scratch: conf.scratch.clone(),
    };
    let configure = link::Configure {
        protocol: vo_wire::PROTOCOL,
        session: session.name.clone(),
        session_id: session.id.clone(),
        site: conf.name.clone(),
        master_epoch: epoch,
        authority: authority.to_pem(),
        proxies: shape,
        limits: limits.clone(),
        marker: marker.clone(),
    };
    let way = if local {
        Way::Local(session.program.clone())
    } else {
        let mut query = vo_net::ssh::TargetQuery::new(&conf.gateway);
        query.user.clone_from(&conf.user);
        query.port = conf.port;
        query.config.clone_from(&session.ssh_config);
        let options = vo_net::ssh::ConnectOptions {
            force_system: conf.system_ssh,
            control_dir: Some(control_dir(dir, session)?),
            askpass: Some(site::askpass(&session.program, dir, &conf.name)),
            keys: of.keys.clone(),
        };
        Way::Ssh { query, options }
    };
    let route = Route {
        site: conf.name.clone(),
        gateway: if local { host_name() } else { conf.gateway.clone() },
        way,
        session: format!("{}-{}", session.name, session.id),
        agents: session.agents.clone(),
        configure,
        person: of.person.clone(),
        reached: of.reached.contains(&conf.name),
    };
    let site = Site {
        conf: conf.clone(),
        state: SiteState::Connecting,
        since: now,
        link: None,
        orders: None,
        ordered: 0,
        next_try: None,
        heard: Instant::now(),
        asked: Instant::now(),
        hello: None,
        reported: false,
        wanted,
        target: None,
        limits,
        cpus: cpus.max(1).saturating_mul(conf.nodes.max(1)),
        proxies: BTreeMap::new(),
        left: BTreeSet::new(),
        problem: None,
        stats: link::AgentStats::default(),
        sending: HashMap::new(),
        promised: HashSet::new(),
        wanted_files: BTreeSet::new(),
        reached: of.reached.contains(&conf.name),
        history: History::default(),
    };
    Ok((site, route))
}

/// Where the system's `ssh` keeps its sockets, whose addresses must be short: below the session's directory, or `/tmp` if that is deep.
pub(super) fn control_path(dir: &Path, session: &SessionFile) -> PathBuf {
    const LONGEST: usize = 60;
    let near = dir.join("ssh");
    if near.as_os_str().len() <= LONGEST { near } else { PathBuf::from(format!("/tmp/vo-ssh-{}", session.id)) }
}

fn control_dir(dir: &Path, session: &SessionFile) -> Result<PathBuf, String> {
    let path = control_path(dir, session);
    session::private_dir(&path).map_err(|e| e.to_string())?;
    Ok(path)
}

fn host_name() -> String {
    nix::unistd::gethostname().map_or_else(|_| "localhost".into(), |name| name.to_string_lossy().into_owned())
}

/// What expressions may ask of a site's slots besides what its nodes tell.
fn attributes(conf: &SiteConf, disk_kib: u64, facts: &vo_wire::node::StarterFacts) -> Vec<(String, String)> {
    let name = |name: &str, value: &str| (name.to_owned(), vo_lang::classad::Value::from(value).to_string());
    let own = conf.attributes.iter().cloned();
    [name("Site", &conf.name), name("Gateway", &conf.gateway)]
        .into_iter()
        .chain(conf.account.iter().map(|account| name("Project", account)))
        .chain((disk_kib > 0).then(|| ("Disk".to_owned(), rounded(disk_kib).to_string())))
        .chain(containers(facts).map(|name| (name.to_owned(), "true".to_owned())))
        .chain([("HasFileTransfer".to_owned(), "true".to_owned()), name(TRANSFER_METHODS, &methods(facts))])
        .chain(facts.gpu.iter().flat_map(gpu_attributes))
        .chain(own)
        .collect()
}

/// What containers a node runs, in HTCondor's words.
fn containers(facts: &vo_wire::node::StarterFacts) -> impl Iterator<Item = &'static str> {
    let any = ["HasContainer", "HasDocker", "HasDockerURL"].into_iter().filter(|_| facts.apptainer || facts.podman);
    any.chain(["HasSIF", "HasSandboxImage", "HasSingularity"].into_iter().filter(|_| facts.apptainer))
}

/// The kinds of URLs from and to which a node brings files by itself.
const TRANSFER_METHODS: &str = "HasFileTransferPluginMethods";

fn methods(facts: &vo_wire::node::StarterFacts) -> String {
    let curl = BY_CURL.into_iter().filter(|_| facts.curl);
    curl.chain(BY_PELICAN.into_iter().filter(|_| facts.pelican)).collect::<Vec<_>>().join(",")
}

/// What GPUs are like, in HTCondor's words: those of today, and those that were before GPUs of several makers.
fn gpu_attributes(gpu: &vo_wire::node::Gpu) -> Vec<(String, String)> {
    let tenths = |n: u32| (n > 0).then(|| format!("{}.{}", n / 10, n % 10));
    let facts = [
        ("DeviceName", Some(vo_lang::classad::Value::from(gpu.name.as_str()).to_string())),
        ("GlobalMemoryMb", Some(gpu.memory_mb.to_string())),
        ("Capability", tenths(gpu.capability)),
        ("DriverVersion", tenths(gpu.cuda)),
        ("MaxSupportedVersion", (gpu.cuda > 0).then(|| (gpu.cuda / 10 * 1000 + gpu.cuda % 10 * 10).to_string())),
    ];
    let known = facts.into_iter().filter_map(|(name, value)| Some((name, value?)));
    known.flat_map(|(name, value)| ["GPUs_", "CUDA"].map(|maker| (format!("{maker}{name}"), value.clone()))).collect()
}

/// Down to four significant bits, so that nodes of one kind stay so to the matcher.
pub(super) fn rounded(number: u64) -> u64 {
    let spare = 60_u32.saturating_sub(number.leading_zeros());
    number >> spare << spare
}

fn limits(conf: &Conf, site: &SiteConf) -> Limits {
    let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let ports = site.listen_ports.or(conf.session.listen_ports);
    Limits {
        queued_permille: 150,
        queued_base: site.max_queued.unwrap_or(4),
        idle_ms: millis(conf.session.idle),
        lease_ms: millis(conf.session.lease),
        drain_ms: millis(DRAIN),
        ports: ports.map(|p| (p.first, p.last)),
        status_ms: millis(STATUS_PACE),
        capture_bytes: conf.session.max_output.unwrap_or(MAX_OUTPUT),
        inline_bytes: INLINE_BYTES,
        heartbeat_ms: millis(conf.session.heartbeat),
        missed_heartbeats: conf.session.missed_heartbeats,
        shutdown_on_missed: conf.session.on_missed != OnMissed::Keep,
    }
}

impl Site {
    /// Was it silent for so long that it is not counted on?
    pub(super) fn has_missed(&self) -> bool {
        let patience = self.limits.heartbeat_ms.saturating_mul(u64::from(self.limits.missed_heartbeats.max(1)));
        self.state != SiteState::Up && self.heard.elapsed() >= Duration::from_millis(patience)
    }
}

/// A site's proxies, and those that stand for its part of `missing` CPUs when sites with `present` of them share these.
fn part(wanted: u32, cpus: u32, missing: u64, present: u64) -> u32 {
    let own = u128::from(wanted) * u128::from(cpus);
    let more = (u128::from(missing) * own).div_ceil(u128::from(present.max(1))).div_ceil(u128::from(cpus.max(1)));
    wanted.saturating_add(u32::try_from(more).unwrap_or(u32::MAX))
}

/// What becomes of what is left at a site that can't be told that the session ends.
fn what_remains(site: &Site) -> String {
    let patience = site.limits.heartbeat_ms.saturating_mul(u64::from(site.limits.missed_heartbeats));
    let patience = vo_lang::format_duration(Duration::from_millis(patience));
    let after = if site.limits.shutdown_on_missed {
        let live = site.proxies.values().filter(|(info, _)| info.state != ProxyState::Exit).count();
        format!("after {patience} without us its agent lets its {live} proxies run out, and removes what is left")
    } else {
        "its agent goes on by itself (on_missed = keep)".into()
    };
    format!("{after}, or `rm -r ~/.vo-login` there after cancelling them")
}

impl Master {
    /// Begins to connect to the sites. Questions can be asked only at this first try.
    pub(super) fn connect_sites(&mut self, interactive: bool) {
        self.started = true;
        for index in 0..self.routes.len() {
            if self.sites[index].orders.is_none() {
                self.connect_site(SiteId(index as u16), interactive);
            }
        }
    }

    /// Starts the task of a site.
    fn connect_site(&mut self, id: SiteId, interactive: bool) {
        let index = usize::from(id.0);
        let Some(route) = self.routes[index].clone() else {
            return;
        };
        let inputs = self.inputs.clone();
        let tell: site::Tell = Arc::new(move |told| {
            let inputs = inputs.clone();
            Box::pin(async move { inputs.send(Input::Site(id, told)).await.is_ok() })
        });
        let (orders, ordered) = mpsc::unbounded_channel();
        self.sites[index].orders = Some(orders);
        self.sites[index].ordered = 0;
        tokio::spawn(site::run(route, interactive, tell, ordered));
    }

    /// Has a site tried without waiting any longer; a task that had ended begins anew. The number of the order.
    pub(super) fn connect_now(&mut self, id: SiteId, interactive: bool) -> u64 {
        let site = &mut self.sites[usize::from(id.0)];
        site.next_try = None;
        site.ordered += 1;
        let order = site::Order::Connect { interactive };
        if site.orders.as_ref().is_none_or(|orders| orders.send(order).is_err()) {
            self.connect_site(id, interactive);
        }
        self.sites[usize::from(id.0)].ordered
    }

    fn set_state(&mut self, id: SiteId, state: SiteState) {
        let now = self.now();
        if let Some(site) = self.sites.get_mut(usize::from(id.0))
            && site.state != state
        {
            tracing::info!(site = site.conf.name, ?state, "site");
            // A gateway that is silent now and turns us away then is one outage.
            let away = |state| matches!(state, SiteState::Lost | SiteState::Blocked);
            if !(away(site.state) && away(state)) {
                site.since = now;
            }
            site.state = state;
        }
    }

    /// For `why SITE`.
    fn remember(&mut self, id: SiteId, by: &'static str, text: impl Into<String>) {
        let now = self.now();
        if let Some(site) = self.sites.get_mut(usize::from(id.0)) {
            site.history.note(now, by, text);
        }
    }

    pub(super) fn site_told(&mut self, id: SiteId, told: site::Told) {
        let now = self.now();
        let Some(site) = self.sites.get_mut(usize::from(id.0)) else {
            return;
        };
        match told {
            site::Told::Event(event) => {
                match &event {
                    SiteEvent::Spawning { gateway, .. } => {
                        site.history.note(now, "master", format!("connecting to {gateway}"))
                    }
                    SiteEvent::Note { message, .. } => site.history.note(now, "gateway", message.clone()),
                    _ => {}
                }
                self.announce(event);
            }
            site::Told::Question(question, answer) => self.ask(question, answer),
            site::Told::Linked(link) => site.link = Some(link),
            site::Told::Frame(frame, room) => {
                site.heard = Instant::now();
                if let Err(error) = self.frame(id, &frame, room) {
                    tracing::error!(site = self.sites[usize::from(id.0)].conf.name, %error, "bad frame from the agent");
                }
            }
            site::Told::Lost { mut problem, pause, orders } => {
                problem.message = plain(&problem.message);
                problem.hint = problem.hint.as_deref().map(plain);
                self.unlink(id);
                let why = format!("the way to its site was lost: {}", problem.message);
                self.pool.handle(now, Event::SiteLost { site: id, why });
                self.sites[usize::from(id.0)].next_try = Some(now + pause);
                self.site_failed(id, problem, orders);
            }
        }
    }

    fn unlink(&mut self, id: SiteId) {
        let Some(site) = self.sites.get_mut(usize::from(id.0)) else {
            return;
        };
        site.link = None;
        site.hello = None;
        site.reported = false;
        site.target = None;
        site.sending.clear();
        site.wanted_files.clear();
        // Whoever waits for a piece from there waits in vain; the result is told again after the next inventory.
        let pool = &self.pool;
        self.collecting.retain(|_, (key, _)| pool.proxy_of(*key).is_some_and(|(site, _)| site != id));
    }

    /// A site can't be used. What was the outcome of an earlier try than of the one that a client waits for doesn't concern it.
    fn site_failed(&mut self, id: SiteId, problem: Problem, orders: u64) {
        let now = self.now();
        let Some(site) = self.sites.get_mut(usize::from(id.0)) else {
            return;
        };
        let name = site.conf.name.clone();
        let Problem { message, hint, trouble } = problem;
        tracing::warn!(site = name, message, ?trouble, "can't be used");
        let what = match trouble {
            Trouble::Down => "no connection",
            Trouble::Blocked => "the gateway turns us away",
            Trouble::Login => "a person must log in",
            Trouble::Unusable => "it can't be used",
        };
        let words = hint.as_ref().map_or_else(String::new, |hint| format!(" ({hint})"));
        site.history.note(now, "master", format!("{what}: {message}{words}"));
        if matches!(site.state, SiteState::Ended) {
            return;
        }
        let state = match trouble {
            Trouble::Down => SiteState::Lost,
            Trouble::Blocked => SiteState::Blocked,
            Trouble::Login => SiteState::NeedsLogin,
            Trouble::Unusable => SiteState::Failed,
        };
        let helpless = matches!(state, SiteState::NeedsLogin | SiteState::Failed);
        if helpless
            && let Some(ending) = &mut self.ending
            && ending.waiting.remove(&id)
        {
            site.orders = None;
            ending.left.push(format!("{name}: {message}; {}", what_remains(site)));
        }
        let before = site.state;
        let login = format!("`login {name}` tries again, and asks what needs an answer");
        let advice = match (&hint, trouble) {
            (hint, Trouble::Down | Trouble::Unusable) => hint.clone(),
            (Some(hint), _) if trouble == Trouble::Login => Some(format!("{login}; {hint}")),
            (None, Trouble::Login) => Some(login),
            (hint, _) => hint.clone(),
        };
        site.problem = Some((message.clone(), advice));
        self.set_state(id, state);
        let answered = |client: &&mut Client| matches!(client.request, Some(Request::LoggingIn { site, order, .. }) if site == id && order <= orders);
        let fault = if trouble == Trouble::Login { Fault::Login } else { Fault::Unreachable };
        for client in self.clients.values_mut().filter(answered) {
            client.failed(fault, format!("{name}: {message}"), hint.clone());
        }
        // What is tried again and again is said once.
        if before == SiteState::Connecting || (helpless && before != state) {
            let authentication = trouble == Trouble::Login;
            self.announce(SiteEvent::Failed { site: name, message, hint, authentication });
        }
    }

    pub(super) fn to_site<M: Message>(&self, id: SiteId, message: &M) {
        if let Some(link) = self.sites.get(usize::from(id.0)).and_then(|site| site.link.as_ref()) {
            let mut bytes = Vec::new();
            write_message(0, message, &mut bytes);
            let _ = link.send(bytes);
        }
    }

    pub(super) fn frame(
        &mut self,
        id: SiteId,
        frame: &Frame,
        room: OwnedSemaphorePermit,
    ) -> Result<(), vo_wire::WireError> {
        let key = StarterKey(frame.route);
        let now = self.now();
        if work::is_relayed(frame.kind) && !self.belongs(id, key) {
            return Ok(());
        }
        match frame.kind {
            work::Report::KIND => {
                let report: work::Report = heard(frame)?;
                if !report.moved.is_empty() {
                    let before = |ago: Option<u64>| Some(Time(now.0.saturating_sub(ago?)));
                    let moved = report.moved.into_iter().map(|m| (m.id, before(m.began_ms), before(m.came_ms)));
                    self.pool.handle(now, Event::InputsMoved { key, moved: moved.collect() });
                }
                if !report.started.is_empty() {
                    self.pool.handle(now, Event::AttemptsStarted { key, ids: report.started });
                }
                for result in report.results {
                    self.result(now, key, result);
                }
                if !report.returned.is_empty() {
                    self.pool.handle(now, Event::AttemptsReturned { key, ids: report.returned });
                }
            }
            work::Inventory::KIND => {
                let work::Inventory { queued, running, finished, number } = frame.read()?;
                self.pool.handle(now, Event::InventoryTold { key, number, queued, running, finished });
            }
            work::Measured::KIND => {
                let work::Measured { used } = frame.read()?;
                self.pool.handle(now, Event::AttemptsMeasured { key, used });
            }
            work::OutputChunk::KIND => {
                let chunk = frame.read::<work::OutputChunk>()?;
                if let Some((from, collection)) = self.collecting.get(&chunk.id)
                    && *from == key
                    && collection.set == chunk.kept
                {
                    let _ = collection.pieces.send((Ok(chunk), room));
                }
            }
            work::OutputLost::KIND => {
                let lost: work::OutputLost = heard(frame)?;
                if let Some((from, collection)) = self.collecting.get(&lost.id)
                    && *from == key
                    && collection.set == lost.kept
                {
                    let _ = collection.pieces.send((Err(lost.why), room));
                }
            }
            work::Printed::KIND => self.show(key, frame.read()?),
            work::Checkpointed::KIND => self.checkpointed(key, frame.read()?),
            link::AgentHello::KIND => self.hello(id, heard(frame)?),
            link::ProxyReport::KIND => self.proxies(id, heard(frame)?),
            link::SiteNote::KIND => self.site_note(id, heard(frame)?),
            link::StarterUp::KIND => {
                let link::StarterUp { key, facts } = heard(frame)?;
                let Some(site) = self.sites.get(usize::from(id.0)) else {
                    return Ok(());
                };
                match self.pool.proxy_of(key) {
                    Some(known) if known != (id, facts.proxy) => {
                        tracing::warn!(site = site.conf.name, %key, "says that another proxy's starter is its own");
                        return Ok(());
                    }
                    None if self.pool.starter_count() >= MOST_STARTERS
                        && self.pool.starters_of(id, None).len() >= MOST_STARTERS =>
                    {
                        tracing::warn!(site = site.conf.name, "more than {MOST_STARTERS} starters");
                        return Ok(());
                    }
                    _ => {}
                }
                let shared = match facts.shares {
                    Shares::Nothing => Shared::Nothing,
                    Shares::MarkerFs => Shared::MarkerFs,
                    Shares::Everything => Shared::Everything,
                };
                let attributes = attributes(&site.conf, facts.scratch_bytes >> 10, &facts);
                let offer = Offer {
                    site: id,
                    proxy: facts.proxy,
                    host: facts.host,
                    // A node that claims all the CPUs of the world would get all the jobs.
                    cpus: facts.cpus.min(MOST_CPUS),
                    memory_mb: facts.memory_mb,
                    gpus: facts.gpus,
                    shared,
                    drain: Duration::from_millis(site.limits.drain_ms),
                    arch: facts.arch,
                    system: facts.system,
                    attributes,
                    resources: site.conf.resources.clone(),
                };
                let time_left = facts.time_left_ms.map(Duration::from_millis);
                self.sites[usize::from(id.0)].left.remove(&facts.proxy);
                self.pool.handle(now, Event::StarterJoined { key, offer, time_left });
            }
            link::StarterDown::KIND => {
                let link::StarterDown { key, gone, why } = heard(frame)?;
                if let Some((_, proxy)) = self.pool.proxy_of(key).filter(|(site, _)| *site == id) {
                    self.drop_collections(key);
                    let event = if gone { Event::StarterGone { key, why } } else { Event::StarterSilent { key, why } };
                    self.pool.handle(now, event);
                    if gone && self.pool.starters_of(id, Some(proxy)).is_empty() {
                        self.sites[usize::from(id.0)].left.insert(proxy);
                    }
                }
            }
            link::NeedBlob::KIND => self.blob_needed(id, frame.read::<link::NeedBlob>()?.hash),
            link::BlobAck::KIND => {
                let link::BlobAck { hash, received } = frame.read()?;
                self.blob_acknowledged(id, hash, received);
            }
            link::Ping::KIND => self.to_site(id, &link::Pong { nonce: frame.read::<link::Ping>()?.nonce }),
            link::AgentStats::KIND => self.sites[usize::from(id.0)].stats = frame.read()?,
            link::ShutdownDone::KIND => self.site_ended(id, heard(frame)?),
            link::Because::KIND => self.agent_because(id, heard(frame)?),
            // From an agent newer than we are, or not for us.
            _ => {}
        }
        Ok(())
    }

    /// Is it a starter of this site? One site's agent can say nothing of another's.
    fn belongs(&self, id: SiteId, key: StarterKey) -> bool {
        self.pool.proxy_of(key).is_some_and(|(site, _)| site == id)
    }

    fn drop_collections(&mut self, key: StarterKey) {
        self.collecting.retain(|_, (from, _)| *from != key);
    }

    fn result(&mut self, now: Time, key: StarterKey, result: AttemptResult) {
        self.pool.handle(now, Event::AttemptEnded { key, result });
    }

    fn hello(&mut self, id: SiteId, hello: link::AgentHello) {
        let now = self.now();
        let Some(site) = self.sites.get_mut(usize::from(id.0)) else {
            return;
        };
        if !vo_wire::compatible(vo_wire::PROTOCOL, hello.protocol) {
            let message = format!("its event agent is version {}, which we can't talk to", hello.version);
            let hint = Some("end the session with the vo-login that started it".into());
            site.orders = None;
            self.unlink(id);
            return self.site_failed(id, Problem { message, hint, trouble: Trouble::Unusable }, u64::MAX);
        }
        if !std::mem::replace(&mut site.reached, true) {
            self.note_reached();
        }
        let Some(site) = self.sites.get_mut(usize::from(id.0)) else {
            return;
        };
        let link::AgentHello { epoch, host, pid, batch, batch_version, .. } = &hello;
        let agent =
            format!("the agent answers: process {pid} on {host}, epoch {epoch}; batch system {batch} {batch_version}");
        site.history.note(now, "agent", agent.trim());
        let up = SiteEvent::Up { site: site.conf.name.clone(), batch: hello.batch.clone() };
        site.hello = Some(hello);
        site.problem = None;
        site.next_try = None;
        let state = if self.ending.is_some() { SiteState::Ending } else { SiteState::Up };
        self.set_state(id, state);
        self.announce(up);
        for client in self.clients.values_mut() {
            if matches!(client.request, Some(Request::LoggingIn { site, .. }) if site == id) {
                client.done();
            }
        }
        if self.ending.is_some() {
            self.shut_down(id);
        } else {
            self.set_target(id);
        }
    }

    /// Remembers where something of ours may be, before there is.
    fn note_reached(&self) {
        let names = self.sites.iter().filter(|site| site.reached).map(|site| format!("{}\n", site.conf.name));
        if let Err(error) = vo_store::write_atomic(&self.dir.join(REACHED), names.collect::<String>().as_bytes(), 0o600)
        {
            // Then only a master that was killed before the next try forgets the site when it ends the session.
            tracing::warn!(%error, "cannot note which sites were reached");
        }
    }

    fn proxies(&mut self, id: SiteId, report: link::ProxyReport) {
        let now = self.now();
        let Some(site) = self.sites.get_mut(usize::from(id.0)) else {
            return;
        };
        let first = !std::mem::replace(&mut site.reported, true);
        if first {
            site.proxies.clear();
            site.left.clear();
        }
        let mut ended = Vec::new();
        for info in report.proxies {
            if site.proxies.len() >= MOST_PROXIES && !site.proxies.contains_key(&info.id) {
                tracing::warn!(site = site.conf.name, "more than {MOST_PROXIES} proxies");
                break;
            }
            if info.state == ProxyState::Exit {
                ended.push((info.id, info.why.clone()));
            }
            if info.state != ProxyState::Run {
                site.left.remove(&info.id);
            }
            site.proxies.insert(info.id, (info, now));
        }
        let mut gone: Vec<(StarterKey, String)> = Vec::new();
        for (proxy, why) in ended {
            gone.extend(self.pool.starters_of(id, Some(proxy)).into_iter().map(|key| (key, why.clone())));
        }
        if first {
            // Starters of proxies that the agent has forgotten ended while we were away.
            for key in self.pool.starters_of(id, None) {
                let known = self
                    .pool
                    .proxy_of(key)
                    .is_some_and(|(_, p)| self.sites[usize::from(id.0)].proxies.contains_key(&p));
                if !known {
                    gone.push((key, "its proxy ended".into()));
                }
            }
        }
        for (key, why) in gone {
            self.drop_collections(key);
            self.pool.handle(now, Event::StarterGone { key, why });
        }
    }

    fn site_note(&mut self, id: SiteId, note: link::SiteNote) {
        let now = self.now();
        let Some(site) = self.sites.get_mut(usize::from(id.0)) else {
            return;
        };
        let link::SiteNote { resolved, message, hint, passing, .. } = note;
        tracing::info!(site = site.conf.name, resolved, message, "note");
        site.history.note(now, "agent", format!("{}{message}", if resolved { "no longer: " } else { "" }));
        if resolved {
            site.problem = None;
            return;
        }
        if !passing {
            site.problem = Some((message.clone(), hint.clone()));
        }
        let event = SiteEvent::Note { site: site.conf.name.clone(), message, hint };
        self.announce(event);
    }

    // ---- how many proxies ----

    pub(super) fn set_targets(&mut self) {
        let demand = self.pool.demand_cpus();
        if demand > 0 {
            self.busy_at = Instant::now();
        }
        for index in 0..self.sites.len() {
            self.set_target(SiteId(index as u16));
        }
    }

    /// At the start, and for a while after the last job ended, all that the user asked for; while there is work, as much of that as the
    /// work can fill. A proxy that nothing can run in any more is one of them, but fills nothing.
    fn set_target(&mut self, id: SiteId) {
        let (demand, quiet, now) = (self.pool.demand_cpus(), self.busy_at.elapsed(), self.now());
        let wanted = self.wanted(id);
        let Some(site) = self.sites.get_mut(usize::from(id.0)) else {
            return;
        };
        if site.state != SiteState::Up || site.hello.is_none() || self.ending.is_some() {
            return;
        }
        let proxies = if demand > 0 {
            let filled = demand.div_ceil(u64::from(site.cpus)).saturating_add(site.left.len() as u64);
            u32::try_from(filled).unwrap_or(u32::MAX).min(wanted)
        } else if quiet < Duration::from_millis(site.limits.idle_ms / 2) {
            wanted
        } else {
            0
        };
        if site.target != Some(proxies) {
            site.target = Some(proxies);
            site.history.note(now, "master", format!("{proxies} of {wanted} proxies are wanted"));
            self.to_site(id, &link::SetTarget { proxies });
        }
    }

    /// Proxies that a site is to have at most: what the user asked for and, with `on_missed = reallocate`, its part of what silent sites
    /// should have had. A proxy of a silent site still counts there, and so do its jobs, until there is evidence.
    pub(super) fn wanted(&self, id: SiteId) -> u32 {
        let Some(site) = self.sites.get(usize::from(id.0)) else {
            return 0;
        };
        if self.on_missed != OnMissed::Reallocate {
            return site.wanted;
        }
        let cpus = |site: &Site| u64::from(site.wanted) * u64::from(site.cpus);
        let missing = self.sites.iter().filter(|site| site.has_missed()).map(cpus).sum();
        let present = self.sites.iter().filter(|site| site.state == SiteState::Up).map(cpus).sum();
        part(site.wanted, site.cpus, missing, present)
    }

    /// Asks agents that were silent for long whether they live, and gives up a stream on which none answers.
    pub(super) fn ask_silent(&mut self) {
        for index in 0..self.sites.len() {
            let site = &mut self.sites[index];
            let pause = SILENCE.min(Duration::from_millis(site.limits.heartbeat_ms)).max(TICK);
            let silent = site.heard.elapsed();
            if site.link.is_none() || silent < pause || site.asked.elapsed() < pause {
                continue;
            }
            site.asked = Instant::now();
            if silent >= pause * SILENCES
                && let Some(orders) = &site.orders
            {
                tracing::warn!(site = site.conf.name, ?silent, "the agent doesn't answer");
                let _ = orders.send(site::Order::Reconnect);
            } else {
                self.to_site(SiteId(index as u16), &link::Ping { nonce: 0 });
            }
        }
    }

    /// Starters that called back, and those wanted, over the sites that are up.
    pub(super) fn participants(&self) -> (u32, u32) {
        let joined = self.pool.starters().filter(|s| s.connected).count() as u32;
        let up = self.sites.iter().filter(|site| site.state == SiteState::Up);
        (joined, up.map(|site| site.wanted * site.conf.nodes.max(1)).sum())
    }

    /// Has every gateway either an agent at work, whose first proxy the batch system has taken or refused, or a reason why not? A
    /// batch system that takes its time is not waited for long.
    pub(super) fn settled(&self) -> bool {
        let now = self.now();
        let settled = |site: &Site| match site.state {
            SiteState::Connecting => false,
            SiteState::Up => {
                let answered = |info: &ProxyInfo| !matches!(info.state, ProxyState::Wanted | ProxyState::Submitting);
                site.problem.is_some()
                    || site.proxies.values().any(|(info, _)| answered(info))
                    || now.since(site.since) > SUBMISSION_PATIENCE
            }
            _ => true,
        };
        self.started && self.sites.iter().all(settled)
    }

    // ---- files for the nodes ----

    /// Sends a file that the site asks for, if a job that was sent there brings it: it gets to see no other one, whatever it knows.
    fn blob_needed(&mut self, id: SiteId, hash: Hash) {
        let Some(site) = self.sites.get_mut(usize::from(id.0)) else {
            return;
        };
        if !site.promised.contains(&hash) {
            tracing::warn!(site = site.conf.name, "asks for a file that no job brings there");
            let why = "no job that was sent to this site brings such a file".to_owned();
            return self.to_site(id, &link::BlobMissing { hash, why });
        }
        if !site.sending.contains_key(&hash) {
            site.wanted_files.insert(hash);
            self.send_asked(id);
        }
    }

    /// Opens files that are asked for, so many at once.
    fn send_asked(&mut self, id: SiteId) {
        while let Some(site) = self.sites.get_mut(usize::from(id.0))
            && site.sending.len() < SENDING
            && let Some(hash) = site.wanted_files.pop_first()
        {
            site.sending.insert(hash, Sending { blob: None, sent: 0, received: 0, reading: true });
            let (files, inputs) = (self.files.clone(), self.inputs.clone());
            tokio::task::spawn_blocking(move || {
                let read = files.open(&hash).and_then(|blob| {
                    let first = blob.read(0, work::CHUNK)?;
                    Ok((Arc::new(blob), first))
                });
                let _ = inputs.blocking_send(Input::BlobRead { site: id, hash, read });
            });
        }
    }

    pub(super) fn blob_read(&mut self, id: SiteId, hash: Hash, read: Result<(Arc<Blob>, Vec<u8>), String>) {
        let Some(site) = self.sites.get_mut(usize::from(id.0)) else {
            return;
        };
        let Some(sending) = site.sending.get_mut(&hash) else {
            return;
        };
        sending.reading = false;
        match read {
            Ok((blob, data)) => {
                let (size, offset) = (blob.size, sending.sent);
                sending.blob = Some(blob);
                sending.sent += data.len() as u64;
                self.to_site(id, &link::BlobChunk { hash, offset, size, data });
                self.send_on(id, hash);
            }
            Err(why) => {
                site.sending.remove(&hash);
                self.to_site(id, &link::BlobMissing { hash, why });
                self.send_asked(id);
            }
        }
    }

    fn blob_acknowledged(&mut self, id: SiteId, hash: Hash, received: u64) {
        if let Some(sending) = self.sites.get_mut(usize::from(id.0)).and_then(|site| site.sending.get_mut(&hash)) {
            sending.received = sending.received.max(received);
            self.send_on(id, hash);
        }
    }

    /// Reads the next piece, to be sent: one at a time, so that they go in order.
    fn send_on(&mut self, id: SiteId, hash: Hash) {
        let Some(site) = self.sites.get_mut(usize::from(id.0)) else {
            return;
        };
        let Some(sending) = site.sending.get_mut(&hash) else {
            return;
        };
        let Some(blob) = &sending.blob else { return };
        if sending.sent >= blob.size {
            site.sending.remove(&hash);
            return self.send_asked(id);
        }
        if sending.reading || sending.sent >= sending.received.saturating_add(work::WINDOW) {
            return;
        }
        sending.reading = true;
        let (blob, offset, inputs) = (blob.clone(), sending.sent, self.inputs.clone());
        tokio::task::spawn_blocking(move || {
            let read = blob.read(offset, work::CHUNK).map(|data| (blob, data));
            let _ = inputs.blocking_send(Input::BlobRead { site: id, hash, read });
        });
    }

    // ---- the end ----

    /// Begins to end the session.
    pub(super) fn end(&mut self) {
        if self.ending.is_some() {
            return;
        }
        tracing::info!("ending");
        let until = Instant::now() + ENDING_PATIENCE;
        let mut ending = Ending { waiting: BTreeSet::new(), left: Vec::new(), until, told: None };
        let mut notes = Vec::new();
        for (index, site) in self.sites.iter_mut().enumerate() {
            let id = SiteId(index as u16);
            match site.state {
                SiteState::Up => drop(ending.waiting.insert(id)),
                _ if !site.reached => site.orders = None,
                SiteState::Connecting | SiteState::Lost | SiteState::Blocked => {
                    ending.waiting.insert(id);
                    let message = format!("is not connected; tried for another {} s", ENDING_PATIENCE.as_secs());
                    notes.push(SiteEvent::Note { site: site.conf.name.clone(), message, hint: None });
                }
                _ => {
                    let (why, _) = site.problem.clone().unwrap_or_default();
                    ending.left.push(format!("{}: {why}; {}", site.conf.name, what_remains(site)));
                    site.orders = None;
                }
            }
        }
        let waiting: Vec<SiteId> = ending.waiting.iter().copied().collect();
        self.ending = Some(ending);
        notes.into_iter().for_each(|note| self.announce(note));
        for id in waiting {
            match self.sites[usize::from(id.0)].state {
                SiteState::Up => self.shut_down(id),
                _ => drop(self.connect_now(id, false)),
            }
        }
    }

    fn shut_down(&mut self, id: SiteId) {
        self.remember(id, "master", "the session ends: it is to remove its proxies and files");
        self.set_state(id, SiteState::Ending);
        let patience_ms = u64::try_from(ENDING_PATIENCE.as_millis()).unwrap_or(u64::MAX) * 3 / 4;
        self.to_site(id, &link::Shutdown { patience_ms });
    }

    fn site_ended(&mut self, id: SiteId, done: link::ShutdownDone) {
        self.set_state(id, SiteState::Ended);
        let Some(site) = self.sites.get_mut(usize::from(id.0)) else {
            return;
        };
        site.link = None;
        site.orders = None;
        let name = site.conf.name.clone();
        if let Some(ending) = &mut self.ending {
            ending.waiting.remove(&id);
            ending.left.extend(done.left.into_iter().map(|left| format!("{name}: {left}")));
        }
        let message = "its proxies and files are removed".into();
        self.announce(SiteEvent::Note { site: name, message, hint: None });
    }

    pub(super) fn check_ending(&mut self) {
        let Some(ending) = &mut self.ending else { return };
        if (!ending.waiting.is_empty() || self.dags.unfinished() > 0) && Instant::now() < ending.until {
            return;
        }
        // Mails are told of what was there to the end, and waited for no longer than for event logs.
        let told = *ending.told.get_or_insert_with(|| Instant::now() + LAST_MAILS);
        if self.finished.is_some() || (!self.mails.end() && Instant::now() < told) {
            return;
        }
        for id in std::mem::take(&mut ending.waiting) {
            let site = &self.sites[usize::from(id.0)];
            ending.left.push(format!("{}: can't be reached; {}", site.conf.name, what_remains(site)));
        }
        let left = std::mem::take(&mut ending.left);
        self.event_logs.end();
        self.remove_files();
        for line in &left {
            tracing::warn!(line, "left behind");
        }
        let enders = self.clients.values_mut().filter(|c| matches!(c.request, Some(Request::Ending)));
        for client in enders {
            if left.is_empty() {
                client.done();
            } else {
                let message = format!("the session has ended, but something is left behind: {}", left.join("; "));
                client.failed(Fault::System, message, None);
            }
        }
        self.finished = Some(ExitCode::SUCCESS);
    }

    /// What a session leaves on the workstation: the shell's history and the log. `session.toml` goes last: without it the name is free.
    fn remove_files(&self) {
        for name in ["store", "store-before", "partial", "kept", "dags"] {
            let _ = std::fs::remove_dir_all(self.dir.join(name));
        }
        let _ = std::fs::remove_dir_all(control_path(&self.dir, &self.session));
        for name in ["ca.pem", "marker", "epoch", REACHED, eventlog::MARK, mail::FILE, "control.sock", "session.toml"] {
            let _ = std::fs::remove_file(self.dir.join(name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_silent_sites_should_have_had_is_shared_out() {
        // Nobody is silent.
        assert_eq!(part(4, 16, 0, 64), 4);
        // 8 CPUs of a silent site, for one with proxies of 2 and for one with proxies of 4, of equal size.
        assert_eq!(part(4, 2, 8, 16), 6);
        assert_eq!(part(2, 4, 8, 16), 3);
        // Rather a proxy too many than one too few.
        assert_eq!(part(1, 16, 1, 16), 2);
        // A site without proxies of its own takes none; absurd numbers stay numbers.
        assert_eq!(part(0, 4, 8, 16), 0);
        assert_eq!(part(u32::MAX, u32::MAX, u64::MAX, 0), u32::MAX);
    }
}

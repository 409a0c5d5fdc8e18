//! What clients ask for, and what they are told.

use vo_core::pool::{self, Change, End};
use vo_lang::classad::{Ad, Context};
use vo_wire::WireError;
use vo_wire::dag::{DagRow, Order};
use vo_wire::link::ProxyInfo;

use super::*;
use crate::eventlog;
use crate::jobad::{Columns, Condition};
use crate::judge;
use crate::listing::{self, Page, Show};
use crate::partials;

/// Named jobs that are cheap enough to be counted after every burst.
const COUNTED_AT_ONCE: usize = 1000;

/// The last attempts of a job of which partial outputs are looked for.
const PARTIALS: usize = 100;

impl Master {
    pub(super) fn client_told(&mut self, told: control::Told) {
        match told {
            control::Told::Opened(id, outbox) => {
                self.clients
                    .insert(id, Client { outbox, greeted: false, request: None, pieces: Vec::new(), busy: false });
            }
            control::Told::Drained(id) => {
                if let Some(client) = self.clients.get_mut(&id) {
                    client.busy = false;
                }
            }
            control::Told::Closed(id) => self.client_gone(id),
            control::Told::Frame(id, frame) => {
                if let Err(error) = self.request(id, &frame)
                    && let Some(client) = self.clients.get_mut(&id)
                {
                    let hint = "the session was started by another version of vo-login".to_owned();
                    client.failed(Fault::Usage, error.to_string(), Some(hint));
                }
            }
        }
    }

    fn client_gone(&mut self, id: u64) {
        self.clients.remove(&id);
        if let Some(terminal) = &mut self.terminal {
            terminal.detach(id);
        }
        // Nobody answers any more.
        self.questions.retain(|_, asked| asked.client != Some(id));
    }

    fn request(&mut self, id: u64, frame: &Frame) -> Result<(), WireError> {
        let Some(client) = self.clients.get_mut(&id) else {
            return Ok(());
        };
        if !client.greeted {
            let hello = frame.read::<ctl::Hello>()?;
            client.greeted = vo_wire::compatible(vo_wire::PROTOCOL, hello.protocol);
            let welcome = ctl::Welcome {
                protocol: vo_wire::PROTOCOL,
                session: self.session.name.clone(),
                pid: std::process::id(),
                started_ms: self.session.created_ms,
            };
            client.send(&welcome);
            return Ok(());
        }
        match frame.kind {
            ctl::Answer::KIND => self.answered(id, frame.read()?),
            ctl::TtyData::KIND => {
                let data = frame.read::<ctl::TtyData>()?.data;
                if let Some(terminal) = self.terminal.as_ref().filter(|t| t.is_attached(id)) {
                    terminal.type_in(data);
                }
            }
            ctl::TtyResize::KIND => {
                let ctl::TtyResize { rows, cols } = frame.read()?;
                if let Some(terminal) = self.terminal.as_ref().filter(|t| t.is_attached(id)) {
                    terminal.resize(rows, cols);
                }
            }
            ctl::FollowStart::KIND => self.follow(id, &frame.read()?),
            ctl::Login::KIND => self.login(id, &frame.read()?),
            ctl::Askpass::KIND => self.askpass(id, frame.read()?),
            ctl::Submit::KIND => self.submit(id, frame.read()?),
            ctl::SubmitPiece::KIND => {
                let ctl::SubmitPiece { bytes, last } = frame.read()?;
                if client.pieces.len() + bytes.len() > vo_store::MAX_RECORD {
                    client.pieces = Vec::new();
                    client.failed(Fault::Refused, "the submission is too long", None);
                } else {
                    client.pieces.extend(bytes);
                    if last {
                        let body = std::mem::take(&mut client.pieces);
                        self.submit(id, Frame { kind: ctl::Submit::KIND, route: 0, body }.read()?);
                    }
                }
            }
            ctl::ListJobs::KIND => self.list_jobs(id, frame.read()?),
            ctl::ListClusters::KIND => self.list_clusters(id, &frame.read()?),
            ctl::ListPool::KIND => self.list_pool(id, frame.read()?),
            ctl::ListSites::KIND => {
                let rows = self.site_rows();
                self.pages(id, rows, |rows| ctl::SiteRows { rows });
            }
            ctl::ListProxies::KIND => {
                let all = frame.read::<ctl::ListProxies>()?.all;
                let rows = self.proxy_rows(all);
                self.pages(id, rows, |rows| ctl::ProxyRows { rows });
            }
            ctl::Alter::KIND => self.alter(id, frame.read()?),
            ctl::Retry::KIND => self.retry(id, frame.read()?),
            ctl::Watch::KIND => {
                if let Some(mut select) = self.select(id, &frame.read::<ctl::Watch>()?.picks) {
                    if select == Select::default() {
                        select.clusters = self.pool.clusters(&select).map(|c| c.cluster).collect();
                    }
                    // With no job at all there is nothing to wait for, and an empty selection would mean all.
                    let nothing = select == Select::default();
                    if let Some(client) = self.clients.get_mut(&id) {
                        if nothing {
                            client.send(&ctl::Progress { counts: ctl::Counts::default(), rate_milli: 0 });
                            client.done();
                        } else {
                            client.request = Some(Request::Watching { select, told: None });
                        }
                    }
                }
            }
            ctl::Why::KIND => self.why(id, &frame.read()?),
            ctl::ShowJob::KIND => self.show_job(id, frame.read::<ctl::ShowJob>()?.job),
            ctl::EndSession::KIND => self.end_asked(id, frame.read::<ctl::EndSession>()?.force),
            ctl::Attach::KIND => self.attach(id, &frame.read()?),
            ctl::Detach::KIND => self.detach_asked(id, frame.read::<ctl::Detach>()?.from),
            ctl::ShowSession::KIND => self.show_session(id),
            kind if !self.dag_request(id, frame)? => return Err(WireError::Unexpected(kind)),
            _ => {}
        }
        Ok(())
    }

    fn list_jobs(&mut self, id: u64, asked: ctl::ListJobs) {
        let ctl::ListJobs { picks, states, last, constraint, columns, stays, first, forwards, since, scan } = asked;
        let Some(select) = self.select(id, &picks) else { return };
        let Some(condition) = self.condition(id, constraint) else { return };
        let Some(since) = self.condition(id, since) else { return };
        let show = match columns {
            None => Some(Show::Rows),
            Some(columns) => self.understood(id, Columns::read(columns, self.seconds())).map(Show::Ads),
        };
        let Some(show) = show else { return };
        let stays = stays.then(|| self.staying()).flatten();
        let dags = self.dags.chosen(&select).iter().map(|dag| self.dags.job(dag, &self.facts)).collect();
        let listing = Listing::new(&self.pool, select, states, last, condition, show, self.facts.clone());
        let listing = listing.staying(stays).until(first, scan, since, forwards).with(&self.pool, dags);
        if let Some(client) = self.clients.get_mut(&id) {
            client.request = Some(Request::Listing(Box::new(listing)));
        }
    }

    fn list_clusters(&mut self, id: u64, asked: &ctl::ListClusters) {
        let Some(select) = self.select(id, &asked.picks) else { return };
        let Some(condition) = self.condition(id, asked.constraint.clone()) else { return };
        if condition.is_some() {
            let show = Show::Clusters(BTreeMap::new());
            let listing = Listing::new(&self.pool, select, Vec::new(), None, condition, show, self.facts.clone());
            let listing = listing.staying(self.staying());
            if let Some(client) = self.clients.get_mut(&id) {
                client.request = Some(Request::Listing(Box::new(listing)));
            }
            return;
        }
        let rows = self.pool.clusters(&select).map(|c| ctl::ClusterRow {
            cluster: c.cluster,
            name: c.name.to_owned(),
            submitted_ms: c.submitted.0,
            counts: counts(&c.counts),
            span: None,
            batch: None,
            stays: (0, 0),
        });
        let mut rows: Vec<_> = rows.collect();
        if let Some(mut stays) = self.staying() {
            for view in self.pool.staying(&select) {
                if let Ok(place) = rows.binary_search_by_key(&view.id.cluster, |row| row.cluster)
                    && let Some(row) = rows.get_mut(place)
                {
                    let stays = stays.holds(&view, &self.facts);
                    listing::count_staying(&mut row.stays, &view, stays);
                }
            }
        }
        name_batches(&mut rows, &self.pool, &self.dags);
        self.pages(id, rows, |rows| ctl::ClusterRows { rows });
    }

    fn list_pool(&mut self, id: u64, asked: ctl::ListPool) {
        let Some(condition) = self.condition(id, asked.constraint) else { return };
        let columns = asked.columns.map(|columns| Columns::read(columns, self.seconds())).transpose();
        let Some(columns) = self.understood(id, columns) else { return };
        let chosen: Vec<_> = self
            .starter_rows()
            .into_iter()
            .filter_map(|row| {
                // Nobody asks for the ads of a large pool to be made for nothing.
                if condition.is_none() && columns.is_none() {
                    return Some((row, None));
                }
                let ad = self.starter_ad(&row)?;
                condition.as_ref().is_none_or(|condition| condition.holds_of(&ad)).then_some((row, Some(ad)))
            })
            .collect();
        match columns {
            None => self.pages(id, chosen.into_iter().map(|(row, _)| row).collect(), |rows| ctl::StarterRows { rows }),
            Some(columns) => {
                let rows = chosen.into_iter().filter_map(|(_, ad)| ad).map(|ad| columns.of(&ad)).collect();
                self.pages(id, rows, |rows| ctl::AdRows { rows });
            }
        }
    }

    /// The machine ad of a starter's slots, with what they do now.
    fn starter_ad(&self, row: &ctl::StarterRow) -> Option<Ad> {
        let starter = self.pool.starter(row.key)?;
        let mut ad = judge::slot_ad(starter.offer, row.time_left_ms.map(Duration::from_millis));
        let (state, activity) = row.words();
        let since = self.now().0.saturating_sub(row.age_ms) / 1000;
        ad.insert("MyType", "Machine");
        ad.insert("State", state);
        ad.insert("Activity", activity);
        for (name, number) in [
            ("EnteredCurrentState", since),
            ("EnteredCurrentActivity", since),
            ("BusyCpus", row.busy_cpus.into()),
            ("RunningJobs", row.running.into()),
            ("WaitingJobs", row.queued.into()),
            ("CompletedJobs", row.completed),
            ("ProxyId", row.proxy),
        ] {
            ad.insert(name, i64::try_from(number).unwrap_or(i64::MAX));
        }
        Some(ad)
    }

    fn seconds(&self) -> i64 {
        i64::try_from(self.now().0 / 1000).unwrap_or(i64::MAX)
    }

    /// What a client's text means; if it means nothing, the client is told.
    fn understood<T>(&mut self, client: u64, read: Result<T, String>) -> Option<T> {
        let told = |why| {
            if let Some(client) = self.clients.get_mut(&client) {
                client.failed(Fault::Usage, why, Some("vo-classad(7) tells the language".into()));
            }
        };
        read.map_err(told).ok()
    }

    /// What keeps jobs that have ended in the queue.
    fn staying(&self) -> Option<Condition> {
        Condition::read("LeaveJobInQueue", self.seconds()).ok()
    }

    /// A client's condition, if it has one; nothing if it can't be understood.
    #[expect(clippy::option_option, reason = "none, and none that is understood")]
    fn condition(&mut self, client: u64, text: Option<String>) -> Option<Option<Condition>> {
        let now = self.seconds();
        self.understood(client, text.map(|text| Condition::read(&text, now)).transpose())
    }

    /// The jobs that a client names, DAGs among them, or its error.
    fn select(&mut self, client: u64, picks: &[ctl::Pick]) -> Option<Select> {
        self.select_known(client, picks, false)
    }

    /// The same; those that aren't there may be left out.
    fn select_known(&mut self, client: u64, picks: &[ctl::Pick], lenient: bool) -> Option<Select> {
        let (mut select, every) = (Select::default(), Select::default());
        for pick in picks {
            match pick {
                ctl::Pick::Cluster(cluster) => drop(select.clusters.insert(*cluster)),
                ctl::Pick::Job(job) => drop(select.jobs.insert(*job)),
                ctl::Pick::Jobs(first, last) => {
                    let jobs = self.pool.jobs_of(first.cluster);
                    let range = first.proc..jobs.min(last.saturating_add(1));
                    select.jobs.extend(range.map(|proc| JobId { proc, ..*first }));
                    // One that isn't there is found below.
                    select.jobs.insert(*first);
                }
                ctl::Pick::Clusters(first, last) => {
                    let all = self.pool.clusters(&every).map(|c| c.cluster).filter(|c| (first..=last).contains(&c));
                    select.clusters.extend(all);
                    let dags = self.dags.rows().into_iter().map(|row| row.dag);
                    select.clusters.extend(dags.filter(|dag| (first..=last).contains(&dag)));
                    select.clusters.insert(*first);
                }
                ctl::Pick::Name(name) => {
                    let named = self.pool.clusters(&every).filter(|c| c.name == name).map(|c| c.cluster);
                    let before = select.clusters.len();
                    select.clusters.extend(named);
                    if select.clusters.len() == before {
                        if let Some(client) = self.clients.get_mut(&client) {
                            let message = format!("no batch is called {name:?} in this session");
                            client.failed(Fault::Usage, message, Some("`q` and `history` list their names".into()));
                        }
                        return None;
                    }
                }
            }
        }
        if lenient {
            return Some(select);
        }
        let mut jobs = select.clone();
        for dag in self.dags.chosen(&select) {
            jobs.clusters.remove(&dag.dag);
            jobs.jobs.remove(&JobId { cluster: dag.dag, proc: 0 });
        }
        let Some(missing) = self.pool.missing(&jobs) else {
            return Some(select);
        };
        if let Some(client) = self.clients.get_mut(&client) {
            let message = format!("there is no job {missing} in this session");
            client.failed(Fault::Usage, message, Some("`q` and `history` list the jobs".into()));
        }
        None
    }

    fn alter(&mut self, id: u64, asked: ctl::Alter) {
        let Some(mut select) = self.select_known(id, &asked.picks, asked.lenient) else { return };
        let Some(mut condition) = self.condition(id, asked.constraint) else { return };
        // What has ended can only be taken out of the queue, if it is there still.
        let mut ended: Vec<JobId> = Vec::new();
        if asked.alteration == ctl::Alteration::Remove
            && let Some(mut stays) = self.staying()
        {
            let views = self.pool.staying(&select).filter(|view| stays.holds(view, &self.facts));
            let meant =
                |view: &pool::JobView<'_>| condition.as_mut().is_none_or(|asked| asked.holds(view, &self.facts));
            ended = views.filter(meant).map(|view| view.id).collect();
        }
        let left = ended.len() as u32;
        let change = match asked.alteration {
            ctl::Alteration::Remove => Change::Remove,
            ctl::Alteration::Hold(_) => Change::Hold,
            ctl::Alteration::Release => Change::Release,
            ctl::Alteration::Edit(_) => Change::Edit,
            ctl::Alteration::Vacate { .. } => Change::Vacate,
        };
        let mut dags = self.dags.chosen(&select);
        dags.retain(|dag| dags::concerns(dag, change));
        if let Some(mut condition) = condition {
            dags.retain(|dag| condition.holds_of(&self.dags.job(dag, &self.facts).ad));
            let mut jobs = listing::sift(&self.pool, &select, &mut condition, &self.facts);
            jobs.extend(dags.iter().map(|dag| JobId { cluster: dag.dag, proc: 0 }));
            // An empty selection would mean all.
            if jobs.is_empty() {
                if !ended.is_empty() && !asked.only_count {
                    self.pool.handle(self.now(), Event::DismissalAsked { jobs: ended });
                    return self.answer_once_durable(id, &ctl::Altered { jobs: left });
                }
                if let Some(client) = self.clients.get_mut(&id) {
                    client.send(&ctl::Altered { jobs: left });
                    client.done();
                }
                return;
            }
            select = Select { clusters: BTreeSet::new(), jobs };
        }
        let answer = ctl::Altered { jobs: self.pool.concerned(&select, change) + left + dags.len() as u32 };
        if asked.only_count {
            if let Some(client) = self.clients.get_mut(&id) {
                client.send(&answer);
                client.done();
            }
            return;
        }
        let event = match asked.alteration {
            ctl::Alteration::Remove => Event::RemovalAsked { select },
            ctl::Alteration::Hold(why) => Event::HoldAsked { select, why },
            ctl::Alteration::Release => Event::ReleaseAsked { select },
            ctl::Alteration::Edit(edit) => Event::EditAsked { select, edit },
            ctl::Alteration::Vacate { fast } => Event::VacateAsked { select, fast },
        };
        let now = self.now();
        for dag in dags {
            let order = match change {
                Change::Remove => Order::Remove,
                Change::Hold => Order::Hold,
                Change::Release | Change::Edit | Change::Vacate => Order::Release,
            };
            self.dags.order(now, dag.dag, order);
        }
        self.pool.handle(now, Event::DismissalAsked { jobs: ended });
        self.pool.handle(now, event);
        self.answer_once_durable(id, &answer);
    }

    pub(super) fn pages<T: Clone, M: Message>(&mut self, client: u64, rows: Vec<T>, page: impl Fn(Vec<T>) -> M) {
        if let Some(client) = self.clients.get_mut(&client) {
            for rows in rows.chunks(1000) {
                client.send(&page(rows.to_vec()));
            }
            client.done();
        }
    }

    fn submit(&mut self, id: u64, submit: ctl::Submit) {
        let ctl::Submit { groups, name } = submit;
        let total: u64 = groups.iter().map(|g| u64::from(g.count)).sum();
        let refusal = self.refusal().or_else(|| {
            if total == 0 || total > u64::from(u32::MAX) || !GroupRecord::are_whole(&groups) {
                Some((Fault::Refused, format!("a cluster of {total} jobs, not numbered as they must be")))
            } else if groups.iter().any(stays_here) && !self.has_workstation() {
                let what =
                    "universes local and scheduler run jobs on the workstation, which is no site of this session";
                Some((Fault::Refused, format!("{what}: add `[[site]]` with `gateway = \"local\"` to vo.conf")))
            } else {
                None
            }
        });
        if let Some(refusal) = refusal {
            return self.refuse(id, refusal);
        }
        let now = self.now();
        let tag = groups.first().and_then(|group| group.tag.clone());
        // A DAG reads no log.
        let logged = tag.is_none() && groups.iter().any(|group| group.log.is_some());
        if let Some(cluster) = tag.as_ref().and_then(|tag| self.tags.get(tag)).copied() {
            return self.answer_once_durable(
                id,
                &ctl::Submitted { cluster, jobs: total as u32, unmailed: None, lease_s: None },
            );
        }
        let lease_s =
            Some(self.lease.as_secs()).filter(|lease| groups.iter().filter_map(lease_of).any(|asked| asked > *lease));
        let asks = groups.iter().any(|group| group.log_terms.mail.is_some());
        let unmailed = self.mails.unable().filter(|_| asks).map(str::to_owned);
        let cluster = self.pool.submit(now, name, groups);
        tag.map(|tag| self.tags.insert(tag, cluster));
        self.busy_at = Instant::now();
        let answer = ctl::Submitted { cluster, jobs: total as u32, unmailed, lease_s };
        if logged {
            self.answer_once_logged(id, &answer);
        } else {
            self.answer_once_durable(id, &answer);
        }
    }

    pub(super) fn refuse(&mut self, client: u64, (fault, message): (Fault, String)) {
        if let Some(client) = self.clients.get_mut(&client) {
            client.failed(fault, message, None);
        }
    }

    fn has_workstation(&self) -> bool {
        self.sites.iter().any(|site| site.conf.gateway == session::LOCAL)
    }

    /// Why nothing can be submitted now.
    pub(super) fn refusal(&self) -> Option<(Fault, String)> {
        if self.ending.is_some() {
            return Some((Fault::Ending, "the session is ending".to_owned()));
        }
        if let Some(why) = &self.blocked {
            return Some((Fault::System, format!("the job store can't be written: {why}")));
        }
        let free = self.free_bytes().filter(|free| *free < DISK_RESERVE)?;
        let (dir, kib) = (self.dir.display(), free >> 10);
        Some((Fault::System, format!("the disk of {dir} is full: {kib} KiB are left, for the results of what runs")))
    }

    fn retry(&mut self, id: u64, asked: ctl::Retry) {
        let Some(select) = self.select(id, &asked.picks) else { return };
        let Some(mut condition) = self.condition(id, asked.constraint) else { return };
        // By the cluster that was named: what failed of it, which may be a later cluster's.
        let mut failed: BTreeMap<u32, BTreeMap<u32, BTreeSet<u32>>> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for job in self.pool.ids(&select, None) {
            let pool::Retry::Failed(last) = self.pool.retriable(job, asked.removed) else { continue };
            let Some(view) = self.pool.view(last) else { continue };
            if condition.as_mut().is_none_or(|condition| condition.holds(&view, &self.facts)) && seen.insert(last) {
                failed.entry(job.cluster).or_default().entry(last.cluster).or_default().insert(last.proc);
            }
        }
        if !asked.only_count
            && let Some(refusal) = self.refusal().filter(|_| !failed.is_empty())
        {
            return self.refuse(id, refusal);
        }
        let now = self.now();
        let mut rows = Vec::new();
        for (from, parts) in failed {
            let jobs = parts.values().map(BTreeSet::len).sum::<usize>() as u32;
            let cluster = (!asked.only_count).then(|| {
                let groups = parts.iter().flat_map(|(cluster, procs)| self.pool.once_more(*cluster, procs)).collect();
                let first = self.pool.view(JobId { cluster: from, proc: 0 });
                let name = first.map(|view| view.batch.to_owned()).unwrap_or_default();
                self.pool.submit(now, name, groups)
            });
            rows.push(ctl::RetriedRow { from, of: self.pool.jobs_of(from), jobs, cluster });
        }
        self.busy_at = Instant::now();
        self.answer_once_durable(id, &ctl::Retried { rows });
    }

    fn free_bytes(&self) -> Option<u64> {
        let stat = nix::sys::statvfs::statvfs(&self.dir).ok()?;
        Some(stat.blocks_available().saturating_mul(stat.fragment_size()))
    }

    fn show_job(&mut self, id: u64, job: JobId) {
        let Some(view) = self.pool.view(job) else {
            match self.dag_of(job).map(|dag| self.show_dags_job(&dag)) {
                Some(detail) => {
                    if let Some(client) = self.clients.get_mut(&id) {
                        client.send(&detail);
                        client.done();
                    }
                }
                None => drop(self.select(id, &[ctl::Pick::Job(job)])),
            }
            return;
        };
        let program = view.program.filled(&view.row);
        let dir = program.initialdir.expand(job);
        let at = |name: &Option<Template>| {
            let name = name.as_ref()?.expand(job);
            Some(Path::new(OsStr::from_bytes(&dir)).join(OsStr::from_bytes(&name)).into_os_string().into_vec())
        };
        let log = view.log.map(|log| log.fill(&view.row));
        let log = log.map(|log| eventlog::path(&log, &program.initialdir, job).into_os_string().into_vec());
        let row = listing::row(&view, &|site| self.site_name(site));
        let detail = ctl::JobDetail {
            initialdir: dir.clone(),
            output: at(&program.output),
            error: at(&program.error),
            log,
            events: events(&row, view.end),
            partials: self.partials(job, row.attempts),
            row,
        };
        if let Some(client) = self.clients.get_mut(&id) {
            client.send(&detail);
            client.done();
        }
    }

    /// The DAG that is this job.
    pub(super) fn dag_of(&self, job: JobId) -> Option<DagRow> {
        self.dags.chosen(&Select { clusters: BTreeSet::new(), jobs: [job].into() }).pop()
    }

    fn show_dags_job(&self, dag: &DagRow) -> ctl::JobDetail {
        let row = self.dags.job(dag, &self.facts).row;
        let log = Path::new(OsStr::from_bytes(&dag.directory)).join(format!("{}.dagman.log", dag.file));
        ctl::JobDetail {
            initialdir: dag.directory.clone(),
            output: None,
            error: None,
            log: Some(log.into_os_string().into_vec()),
            events: events(&row, row.exit_code.map(End::Exited)),
            partials: Vec::new(),
            row,
        }
    }

    fn partials(&self, job: JobId, attempts: u32) -> Vec<ctl::PartialRow> {
        let last = (1..=attempts).rev().take(PARTIALS).flat_map(|attempt| [(attempt, true), (attempt, false)]);
        let mut rows: Vec<_> = last
            .filter_map(|(attempt, error)| {
                let path = partials::path(&self.dir, AttemptId { job, attempt }, error);
                let bytes = std::fs::metadata(&path).ok()?.len();
                Some(ctl::PartialRow { attempt, error, path: path.into_os_string().into_vec(), bytes })
            })
            .collect();
        rows.reverse();
        rows
    }

    fn site_name(&self, site: u16) -> Option<String> {
        self.sites.get(usize::from(site)).map(|site| site.conf.name.clone())
    }

    // ---- the start ----

    fn follow(&mut self, id: u64, request: &ctl::FollowStart) {
        let patience = Duration::from_millis(request.patience_ms);
        let interactive = request.interactive;
        if let Some(client) = self.clients.get_mut(&id) {
            for event in &self.events {
                let mut bytes = Vec::new();
                write_message(0, event, &mut bytes);
                client.outbox.send(bytes);
            }
            client.request = Some(Request::Following { patience, interactive, settled: None, told: None });
        }
        if !self.started {
            self.connect_sites(interactive);
        }
        self.put_questions();
    }

    /// Has a site connected for a client that may answer its questions.
    fn login(&mut self, id: u64, request: &ctl::Login) {
        let index = self.sites.iter().position(|site| site.conf.name == request.site);
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        let Some(index) = index else {
            let message = format!("there is no site {:?}", request.site);
            return client.failed(Fault::Usage, message, Some("`sites` lists them".into()));
        };
        if self.ending.is_some() {
            return client.failed(Fault::Ending, "the session is ending", None);
        }
        if self.sites[index].state == SiteState::Up {
            return client.done();
        }
        let (site, interactive) = (SiteId(index as u16), request.interactive);
        let order = self.connect_now(site, interactive);
        if let Some(client) = self.clients.get_mut(&id) {
            client.request = Some(Request::LoggingIn { site, interactive, order });
        }
    }

    pub(super) fn announce(&mut self, event: SiteEvent) {
        let about = self.sites.iter().position(|site| Some(site.conf.name.as_str()) == event.site());
        for client in self.clients.values_mut() {
            let concerned = match &client.request {
                Some(Request::Following { .. } | Request::Ending) => true,
                Some(Request::LoggingIn { site, .. }) => about == Some(usize::from(site.0)),
                _ => false,
            };
            if concerned {
                client.send(&event);
            }
        }
        if !matches!(event, SiteEvent::Uploading { .. }) {
            self.events.push_back(event);
            if self.events.len() > KEPT_EVENTS {
                self.events.pop_front();
            }
        }
    }

    pub(super) fn ask(&mut self, question: ctl::Question, answer: oneshot::Sender<Option<String>>) {
        self.last_question += 1;
        let question = ctl::Question { id: self.last_question, ..question };
        self.questions.insert(self.last_question, Asked { question, answer, client: None });
        self.put_questions();
    }

    /// Puts questions to whoever logs in at that site, or follows the start; with nobody there who could answer, there is no answer.
    fn put_questions(&mut self) {
        for asked in self.questions.values_mut().filter(|asked| asked.client.is_none()) {
            let login = |client: &&mut Client| match client.request {
                Some(Request::LoggingIn { site, interactive: true, .. }) => {
                    self.sites[usize::from(site.0)].conf.name == asked.question.site
                }
                _ => false,
            };
            let follows =
                |client: &&mut Client| matches!(client.request, Some(Request::Following { interactive: true, .. }));
            let find = |wanted: &dyn Fn(&&mut Client) -> bool, clients: &mut BTreeMap<u64, Client>| {
                clients.iter_mut().find(|(_, client)| wanted(client)).map(|(id, _)| *id)
            };
            asked.client = find(&login, &mut self.clients).or_else(|| find(&follows, &mut self.clients));
            if let Some(client) = asked.client.and_then(|id| self.clients.get_mut(&id)) {
                client.send(&asked.question);
            }
        }
        self.questions.retain(|_, asked| asked.client.is_some());
    }

    fn answered(&mut self, client: u64, answer: ctl::Answer) {
        if self.questions.get(&answer.id).is_some_and(|asked| asked.client == Some(client))
            && let Some(asked) = self.questions.remove(&answer.id)
        {
            let _ = asked.answer.send(answer.text);
        }
    }

    /// The system's `ssh` asks through a program of ours.
    fn askpass(&mut self, id: u64, request: ctl::Askpass) {
        let ctl::Askpass { site, prompt, kind } = request;
        let Some(outbox) = self.clients.get(&id).map(|client| client.outbox.clone()) else {
            return;
        };
        let confirm = kind == "confirm" || prompt.contains("(yes/no");
        let (answer, answered) = oneshot::channel();
        let question = ctl::Question { id: 0, site, title: String::new(), text: prompt, echo: confirm, confirm };
        self.ask(question, answer);
        tokio::spawn(async move {
            let text = answered.await.ok().flatten();
            let mut bytes = Vec::new();
            write_message(0, &ctl::Answer { id: 0, text }, &mut bytes);
            write_message(0, &ctl::Done {}, &mut bytes);
            outbox.send(bytes);
        });
    }

    // ---- the end ----

    fn end_asked(&mut self, id: u64, force: bool) {
        let unfinished = self.pool.counts(&Select::default()).unfinished();
        let dags = self.dags.unfinished();
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        let unfinished_sites = self.sites.iter().filter(|site| site.state == SiteState::NeedsLogin && site.reached);
        let locked: Vec<&str> = unfinished_sites.map(|site| site.conf.name.as_str()).collect();
        if !force && self.ending.is_none() && (unfinished > 0 || dags > 0 || !locked.is_empty()) {
            let (mut messages, mut hints) = (Vec::new(), Vec::new());
            if unfinished > 0 {
                messages.push(format!("{unfinished} job(s) are unfinished"));
                hints.push("`wait` waits for them, `exit --force` removes them".to_owned());
            }
            if dags > 0 {
                messages.push(format!("{dags} DAG(s) are unfinished"));
                hints.push("`dag` lists them, `exit --force` removes them with rescue files".to_owned());
            }
            if !locked.is_empty() {
                messages.push(format!("what is left at {} can't be removed without a login", locked.join(", ")));
                hints.push(format!("`login {}` asks for what is needed", locked.join(" ")));
            }
            client.failed(Fault::Unfinished, messages.join("; "), Some(hints.join("; ")));
            return;
        }
        client.request = Some(Request::Ending);
        let now = self.now();
        for row in self.dags.rows().into_iter().filter(|row| row.code.is_none()) {
            self.dags.order(now, row.dag, Order::Remove);
        }
        if unfinished > 0 {
            let now = self.now();
            self.pool.handle(now, Event::RemovalAsked { select: Select::default() });
        }
        self.end();
    }

    // ---- the terminal ----

    fn attach(&mut self, id: u64, attach: &ctl::Attach) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        let (outbox, now_ms) = (client.outbox.clone(), unix_ms());
        let attached = match &mut self.terminal {
            Some(terminal) => terminal.attach(id, outbox, attach, now_ms, true),
            None => {
                let ended = self.shell_ended.clone();
                let SessionFile { program, name, .. } = &self.session;
                let started = Terminal::start(program, name, &self.dir, (id, outbox), attach, now_ms, ended);
                started.map(|terminal| self.terminal = Some(terminal))
            }
        };
        if let Err(why) = attached {
            client.failed(Fault::System, why, None);
        }
    }

    fn detach_asked(&mut self, id: u64, from: Option<ctl::Place>) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        // Asked for at the terminal itself, it needs no explanation.
        let own = self.terminal.as_ref().and_then(Terminal::device);
        let why = match from {
            Some(place) if Some(place.device) != own => format!("asked for at {}", place.name),
            Some(_) | None => String::new(),
        };
        let place = self.terminal.as_mut().and_then(|terminal| terminal.close(None, &why));
        client.send(&ctl::Detached { place });
        client.done();
    }

    fn show_session(&mut self, id: u64) {
        let terminal = self.terminal.as_ref();
        let (attached, attached_ms) = terminal.and_then(Terminal::attached).unzip();
        let detail = ctl::SessionDetail {
            jobs: counts(&self.pool.counts(&Select::default())),
            attached,
            attached_ms,
            terminal: terminal.and_then(Terminal::device),
        };
        if let Some(client) = self.clients.get_mut(&id) {
            client.send(&detail);
            client.done();
        }
    }

    // ---- news ----

    /// Tells clients what they follow, at their pace; listings go on when the client has taken the last page.
    pub(super) fn tell_clients(&mut self) {
        let (now, instant) = (self.now(), Instant::now());
        let following = self.clients.values().any(|c| matches!(c.request, Some(Request::Following { .. })));
        let participants = if following { self.participants() } else { (0, 0) };
        let settled = following && self.settled();
        let any_up = self.sites.iter().any(|site| site.state == SiteState::Up);
        let rate_milli = self.rate.milli();
        for client in self.clients.values_mut().filter(|client| !client.busy) {
            match &mut client.request {
                Some(Request::Listing(listing)) => {
                    let (page, more) = listing.page(&self.pool);
                    match page {
                        Page::Jobs(rows) => client.send(&rows),
                        Page::Ads(rows) => client.send(&rows),
                        Page::Clusters(mut page) => {
                            name_batches(&mut page.rows, &self.pool, &self.dags);
                            client.send(&page);
                        }
                    }
                    if !more {
                        client.done();
                    }
                }
                Some(Request::Watching { select, told }) => {
                    let early = told.as_ref().is_some_and(|(at, _)| instant.duration_since(*at) < WATCH_PACE);
                    if early && select.jobs.len() > COUNTED_AT_ONCE {
                        continue;
                    }
                    let counts = counts(&self.pool.counts(select));
                    let over = counts.idle + counts.running == 0;
                    let news = told.as_ref().is_none_or(|(_, before)| *before != counts);
                    if over || (news && !early) {
                        *told = Some((instant, counts));
                        client.send(&ctl::Progress { counts, rate_milli });
                        if over {
                            client.done();
                        }
                    }
                }
                Some(Request::Following { patience, settled: since, told, .. }) => {
                    let (joined, wanted) = participants;
                    let news = *told != Some(participants);
                    *told = Some(participants);
                    let since = if settled { Some(*since.get_or_insert(now)) } else { None };
                    let patient = since.is_some_and(|since| now.since(since) < *patience);
                    let over = since.is_some() && (!any_up || joined >= wanted || !patient);
                    if news {
                        client.send(&SiteEvent::Participants { joined, wanted });
                    }
                    if over {
                        client.done();
                    }
                }
                Some(Request::LoggingIn { .. } | Request::Why(_) | Request::WatchingDag { .. } | Request::Ending)
                | None => {}
            }
        }
    }

    pub(super) fn starter_rows(&self) -> Vec<ctl::StarterRow> {
        let now = self.now();
        // An agent that stands in for one that ended is none itself.
        let rows = self.pool.starters().filter(|s| s.offer.proxy != ProxyId(0)).map(|s| {
            let site = self.sites.get(usize::from(s.offer.site.0));
            let time_left = s.deadline.map(|deadline| deadline.since(now));
            let state = if !s.connected {
                let linked = site.is_some_and(|site| site.link.is_some());
                if linked { ctl::StarterState::Silent } else { ctl::StarterState::Unreachable }
            } else if s.excluded {
                ctl::StarterState::Excluded
            } else if time_left.is_some_and(|left| left <= s.offer.drain) {
                ctl::StarterState::Draining
            } else if s.running > 0 {
                ctl::StarterState::Busy
            } else {
                ctl::StarterState::Idle
            };
            ctl::StarterRow {
                key: s.key,
                site: site.map(|site| site.conf.name.clone()).unwrap_or_default(),
                host: s.offer.host.clone(),
                proxy: s.offer.proxy.0,
                state,
                age_ms: now.0.saturating_sub(s.since.0),
                cpus: s.offer.cpus,
                busy_cpus: s.busy_cpus,
                memory_mb: s.offer.memory_mb,
                running: s.running,
                queued: s.queued,
                completed: s.completed,
                time_left_ms: time_left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
                arch: s.offer.arch.clone(),
                system: s.offer.system.clone(),
                gpus: s.offer.gpus,
            }
        });
        let mut rows: Vec<_> = rows.collect();
        rows.sort_by(|a, b| (&a.site, &a.host, a.proxy).cmp(&(&b.site, &b.host, b.proxy)));
        rows
    }

    pub(super) fn site_rows(&self) -> Vec<ctl::SiteRow> {
        let starters: Vec<_> = self.pool.starters().filter(|s| s.offer.proxy != ProxyId(0)).collect();
        let rows = self.sites.iter().enumerate().map(|(index, site)| {
            let id = SiteId(index as u16);
            let mine = starters.iter().filter(|s| s.offer.site == id && s.connected);
            let (mut count, mut cpus, mut busy_cpus) = (0, 0, 0);
            mine.for_each(|s| {
                count += 1;
                cpus += s.offer.cpus;
                busy_cpus += s.busy_cpus;
            });
            let in_state = |states: &[ProxyState]| {
                site.proxies.values().filter(|(info, _)| states.contains(&info.state)).count() as u32
            };
            let hello = site.hello.as_ref();
            let version = |h: &link::AgentHello| format!("{} {}", h.batch, h.batch_version).trim().to_owned();
            ctl::SiteRow {
                name: site.conf.name.clone(),
                gateway: site.conf.gateway.clone(),
                state: site.state,
                since_ms: site.since.0,
                batch: hello.map(version),
                target: site.target.unwrap_or(0),
                queued: in_state(&[ProxyState::Wanted, ProxyState::Submitting, ProxyState::Pend]),
                running: in_state(&[ProxyState::Run]),
                starters: count,
                cpus,
                busy_cpus,
                completed: self.pool.completed_at(id),
                problem: site.problem.as_ref().map(|(message, _)| match self.on_missed {
                    OnMissed::Reallocate if site.has_missed() => {
                        format!("{message}; its share of proxies is asked for elsewhere")
                    }
                    _ => message.clone(),
                }),
                hint: site.problem.as_ref().and_then(|(_, hint)| hint.clone()),
                calls: site.stats.calls,
                host: hello.map(|h| h.host.clone()),
                excluded: self.pool.excluded_nodes().filter(|node| node.site == id).map(excluded_node).collect(),
                next_try_ms: site.next_try.map(|at| at.0),
            }
        });
        rows.collect()
    }

    fn proxy_rows(&self, all: bool) -> Vec<ctl::ProxyRow> {
        let now = self.now();
        let mut excluded: BTreeMap<(SiteId, ProxyId), BTreeSet<&str>> = BTreeMap::new();
        for starter in self.pool.starters().filter(|s| s.excluded) {
            excluded.entry((starter.offer.site, starter.offer.proxy)).or_default().insert(&starter.offer.host);
        }
        let rows = self.sites.iter().enumerate().flat_map(|(index, site)| {
            let excluded = &excluded;
            let shown = site.proxies.values().filter(move |(info, _)| all || info.state != ProxyState::Exit);
            shown.map(move |(info, at)| {
                let age_ms = info.age_ms.saturating_add(now.0.saturating_sub(at.0));
                let mut why = info.why.clone();
                for host in excluded.get(&(SiteId(index as u16), info.id)).into_iter().flatten() {
                    why += &format!("; node {host} is excluded");
                }
                ctl::ProxyRow { site: site.conf.name.clone(), info: ProxyInfo { age_ms, why, ..info.clone() } }
            })
        });
        rows.collect()
    }
}

/// Says which clusters are shown as one batch.
fn name_batches(rows: &mut [ctl::ClusterRow], pool: &Pool, dags: &Dags) {
    let mut known: BTreeMap<String, Option<String>> = BTreeMap::new();
    for row in rows {
        let (tag, name) = pool.submitted_with(row.cluster);
        let dag = tag.and_then(|tag| {
            let dag = tag.split(':').next().unwrap_or_default().to_owned();
            known.entry(dag).or_insert_with(|| dags.batch(tag)).clone()
        });
        row.batch = name.map(str::to_owned).or(dag);
    }
}

fn excluded_node(node: pool::NodeView<'_>) -> ctl::ExcludedNode {
    ctl::ExcludedNode {
        host: node.host.to_owned(),
        since_ms: node.since.0,
        until_ms: node.until.0,
        why: node.why.to_owned(),
    }
}

fn counts(c: &pool::Counts) -> ctl::Counts {
    ctl::Counts {
        idle: c.idle,
        running: c.running,
        held: c.held,
        completed: c.completed,
        removed: c.removed,
        failed: c.failed,
        later: c.later,
    }
}

/// How long the jobs are to go on without contact, in seconds.
fn lease_of(group: &GroupRecord) -> Option<u64> {
    let ad = jobad::asked(&group.terms, &group.program);
    let asked = Context::new(Some(&ad), None, 0).evaluate(ad.get("JobLeaseDuration")?).as_i64()?;
    u64::try_from(asked).ok()
}

/// What a job's state tells of its past.
/// Must the jobs run on the workstation?
fn stays_here(group: &GroupRecord) -> bool {
    let stays = |(name, value): &(String, String)| name == "JobUniverse" && matches!(value.as_str(), "7" | "12");
    group.terms.attributes.iter().any(stays)
}

fn events(row: &ctl::JobRow, end: Option<End>) -> Vec<ctl::JobEventRow> {
    let at = |at_ms: u64, text: String| ctl::JobEventRow { at_ms, text };
    let mut events = vec![at(row.submitted_ms, "submitted".into())];
    let place = match (&row.host, &row.site) {
        (Some(host), Some(site)) => format!(" on {host} of {site}"),
        (None, Some(site)) => format!(" at {site}"),
        _ => String::new(),
    };
    if let Some(started) = row.started_ms {
        events.push(at(started, format!("attempt {} started{place}", row.attempts)));
    }
    if let Some(reason) = &row.reason {
        let when = row.ended_ms.or(row.started_ms).unwrap_or(row.submitted_ms);
        let what = if row.state == ctl::JobState::Held { "held" } else { "a site failed an attempt" };
        events.push(at(when, format!("{what}: {reason}")));
    }
    if let Some(ended) = row.ended_ms {
        events.push(at(
            ended,
            match end {
                Some(End::Exited(code)) => format!("ended with exit code {code}{place}"),
                Some(End::Signaled(signal)) => format!("ended by signal {signal}{place}"),
                None => "removed".into(),
            },
        ));
    }
    events.sort_by_key(|event| event.at_ms);
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_of_a_job_is_counted() {
        let counted =
            counts(&pool::Counts { idle: 1, running: 2, held: 4, completed: 8, removed: 16, failed: 3, later: 1 });
        assert_eq!(counted.total(), 31);
        assert_eq!(counted.unfinished(), 7);
    }
}

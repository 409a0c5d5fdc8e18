//! Why a job, a cluster, a proxy or a site is as it is: from the journal, the pool, what the sites told, and the sites themselves.

use vo_core::dag::State;
use vo_core::pool::{Present, Record, SiteFacts, Step, Trail};
use vo_core::time::span;
use vo_store::Past;
use vo_wire::dag::DagRow;

use super::*;
use crate::history::cut;

/// An agent that doesn't answer by then is spoken for by its last reports.
const PATIENCE: Duration = Duration::from_secs(5);

/// Journals read at once: each reads up to some hundred megabytes.
const READERS: usize = 2;

/// Proxies that wait, of a site, whose reasons are told of an idle job.
const PENDING: usize = 3;

/// Questions that are under way.
#[derive(Default)]
pub(super) struct Whys {
    last: u64,
    /// They wait for what the pool has taken in to be durable: the record, the client, the question, the job.
    jobs: VecDeque<(u64, u64, u64, JobId)>,
    /// Agents were asked: the number that they tell back, and who waits for it.
    asked: BTreeMap<u64, AskedAgent>,
}

struct AskedAgent {
    client: u64,
    site: SiteId,
    until: Instant,
    answer: ctl::Because,
}

/// What the journal tells of a job.
pub(super) struct Evidence {
    client: u64,
    question: u64,
    job: JobId,
    steps: Vec<Step>,
    dropped: u64,
    past: Result<Past, String>,
    /// When the oldest record was made.
    since: Option<Time>,
    undecoded: u64,
}

fn readers() -> &'static Semaphore {
    static READING: std::sync::OnceLock<Semaphore> = std::sync::OnceLock::new();
    READING.get_or_init(|| Semaphore::new(READERS))
}

/// A subject that a name may mean.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Meant {
    Job(JobId),
    Cluster(u32),
    Dag(u32),
    Proxy(SiteId, ProxyId),
    Site(SiteId),
}

impl Master {
    pub(super) fn why(&mut self, client: u64, question: &ctl::Why) {
        match self.meant(question) {
            Ok(Meant::Job(job)) => {
                self.whys.last += 1;
                let number = self.whys.last;
                if let Some(client) = self.clients.get_mut(&client) {
                    client.request = Some(Request::Why(number));
                }
                self.whys.jobs.push_back((self.pool.sequence(), client, number, job));
            }
            Ok(Meant::Cluster(cluster)) => {
                let answer = self.why_cluster(cluster);
                self.because(client, answer);
            }
            Ok(Meant::Dag(dag)) => {
                if let Some(dag) = self.dag_of(JobId { cluster: dag, proc: 0 }) {
                    let answer = self.why_dag(&dag);
                    self.because(client, answer);
                }
            }
            Ok(Meant::Site(site)) => self.ask_agent(client, site, None),
            Ok(Meant::Proxy(site, proxy)) => self.ask_agent(client, site, Some(proxy)),
            Err((message, hint)) => {
                if let Some(client) = self.clients.get_mut(&client) {
                    client.failed(Fault::Usage, message, Some(hint));
                }
            }
        }
    }

    fn because(&mut self, client: u64, mut answer: ctl::Because) {
        answer.steps.iter_mut().for_each(|step| cut(&mut step.text, link::WHY_BYTES));
        if let Some(client) = self.clients.get_mut(&client) {
            client.send(&answer);
            client.done();
        }
    }

    /// Does a client still wait for this answer?
    fn waits(&self, client: u64, question: u64) -> bool {
        self.clients.get(&client).is_some_and(|c| matches!(c.request, Some(Request::Why(n)) if n == question))
    }

    // ---- what is meant

    fn meant(&self, question: &ctl::Why) -> Result<Meant, (String, String)> {
        let name = question.name.as_str();
        let mut found = Vec::new();
        let wanted = |subject| question.subject.is_none_or(|asked| asked == subject);
        if wanted(ctl::Subject::Job)
            && let Ok(job) = name.parse::<JobId>()
            && self.pool.view(job).is_some()
        {
            found.push(Meant::Job(job));
        }
        if wanted(ctl::Subject::Cluster)
            && let Ok(cluster) = name.parse::<u32>()
            && self.pool.missing(&Select { clusters: [cluster].into(), jobs: BTreeSet::new() }).is_none()
        {
            found.push(Meant::Cluster(cluster));
        }
        // A DAG is a job, whose number is a cluster's.
        let job = name.parse().ok().filter(|_| wanted(ctl::Subject::Job));
        let cluster = name.parse().ok().filter(|_| wanted(ctl::Subject::Cluster));
        let job = job.or(cluster.map(|cluster| JobId { cluster, proc: 0 }));
        found.extend(job.and_then(|job| self.dag_of(job)).map(|dag| Meant::Dag(dag.dag)));
        for (site, id) in self.sites.iter().zip((0..).map(SiteId)) {
            if wanted(ctl::Subject::Site) && site.conf.name == name {
                found.push(Meant::Site(id));
            }
            if !wanted(ctl::Subject::Proxy) {
                continue;
            }
            let of_site = name.strip_prefix(&site.conf.name).and_then(|rest| rest.strip_prefix('/'));
            let number = of_site.or_else(|| question.subject.map(|_| name)).and_then(|number| number.parse().ok());
            let number = number.map(ProxyId).filter(|proxy| site.proxies.contains_key(proxy));
            let by_batch_id = site.proxies.values().filter(|(info, _)| info.batch_id.as_deref() == Some(name));
            let mut proxies: Vec<ProxyId> = number.into_iter().chain(by_batch_id.map(|(info, _)| info.id)).collect();
            proxies.sort_unstable();
            proxies.dedup();
            found.extend(proxies.into_iter().map(|proxy| Meant::Proxy(id, proxy)));
        }
        match <[Meant; 1]>::try_from(found) {
            Ok([one]) => Ok(one),
            Err(none) if none.is_empty() => {
                let hint = "`q` and `history` list jobs, `proxies --all` proxies, `sites` sites";
                Err((format!("there is no {} {name} in this session", self.kinds(question)), hint.into()))
            }
            Err(several) => {
                let (all, exact): (Vec<_>, Vec<_>) = several.iter().map(|meant| self.words(meant, name)).unzip();
                Err((format!("{name} may mean {}", all.join(", or ")), format!("ask {}", exact.join(" or "))))
            }
        }
    }

    fn kinds(&self, question: &ctl::Why) -> &'static str {
        match question.subject {
            None => "job, cluster, proxy or site",
            Some(ctl::Subject::Job) => "job",
            Some(ctl::Subject::Cluster) => "cluster",
            Some(ctl::Subject::Proxy) => "proxy",
            Some(ctl::Subject::Site) => "site",
        }
    }

    /// What is meant, and how to ask for just that.
    fn words(&self, meant: &Meant, name: &str) -> (String, String) {
        match meant {
            Meant::Job(job) => (format!("job {job}"), format!("`why job {job}`")),
            Meant::Cluster(cluster) => (format!("cluster {cluster}"), format!("`why cluster {cluster}`")),
            Meant::Dag(dag) => (format!("DAG {dag}"), format!("`why job {dag}.0`")),
            Meant::Site(_) => (format!("site {name}"), format!("`why site {name}`")),
            Meant::Proxy(site, proxy) => {
                let site = self.name_of(*site);
                (format!("proxy {proxy} of site {site}"), format!("`why {site}/{proxy}`"))
            }
        }
    }

    fn name_of(&self, site: SiteId) -> String {
        self.sites.get(usize::from(site.0)).map(|site| site.conf.name.clone()).unwrap_or_default()
    }

    fn site_facts(&self) -> Vec<SiteFacts> {
        let facts = |site: &Site| SiteFacts {
            name: site.conf.name.clone(),
            linked: site.link.is_some(),
            lease: Duration::from_millis(site.limits.lease_ms),
        };
        self.sites.iter().map(facts).collect()
    }

    // ---- jobs

    /// Reads the journal for questions about jobs, once it has all that the pool had taken in when they came.
    pub(super) fn read_journal(&mut self) {
        while let Some((record, client, question, job)) = self.whys.jobs.front().copied()
            && (record <= self.durable || self.blocked.is_some())
        {
            self.whys.jobs.pop_front();
            let mut trail = Trail::new(job, self.site_facts(), &self.pool);
            let (dir, inputs) = (self.dir.join("store"), self.inputs.clone());
            tokio::spawn(async move {
                let permit = readers().acquire().await;
                let read = tokio::task::spawn_blocking(move || {
                    let (mut since, mut undecoded) = (None, 0);
                    let past = vo_store::read_past(&dir, |_, bytes| match minicbor::decode::<Record>(bytes) {
                        Ok(record) => {
                            since = since.or(record.at());
                            trail.see(&record);
                        }
                        Err(_) => undecoded += 1,
                    });
                    let past = past.map_err(|e| chain(&e));
                    let (steps, dropped) = trail.steps();
                    Evidence { client, question, job, steps, dropped, past, since, undecoded }
                });
                let read = read.await;
                drop(permit);
                if let Ok(evidence) = read {
                    let _ = inputs.send(Input::Evidence(Box::new(evidence))).await;
                }
            });
        }
    }

    pub(super) fn evidence(&mut self, evidence: Evidence) {
        let Evidence { client, question, job, steps, dropped, past, since, undecoded } = evidence;
        let waits =
            self.clients.get(&client).is_some_and(|c| matches!(c.request, Some(Request::Why(n)) if n == question));
        let Some(present) = self.pool.explain(self.now(), job, &self.site_facts()).filter(|_| waits) else {
            return;
        };
        let mut notes = Vec::new();
        match past {
            Ok(past) => {
                if past.first.is_some_and(|first| first > 1) {
                    let since = since.map_or_else(|| "an unknown time".into(), date);
                    notes.push(format!("the journal's records before {since} are no longer kept"));
                }
                notes.extend(past.gaps.iter().map(|gap| format!("records are missing: {}", chain(gap))));
            }
            Err(why) => notes.push(format!("the journal can't be read: {why}")),
        }
        if undecoded > 0 {
            notes.push(format!("{undecoded} record(s) were written by another version, and are left out"));
        }
        if dropped > 0 {
            notes.push(format!("{dropped} earlier step(s) are left out"));
        }
        if let Some(why) = &self.blocked {
            notes.push(format!("the job store can't be written, so nothing moves: {why}"));
        }
        let mut steps: Vec<ctl::WhyStep> = steps.into_iter().map(step).collect();
        if let Some(view) = self.pool.view(job)
            && steps.first().is_none_or(|first| first.at_ms.is_none_or(|at| at > view.submitted.0))
        {
            let text = format!("submitted, with cluster {}", job.cluster);
            steps.insert(0, ctl::WhyStep { at_ms: Some(view.submitted.0), by: "you".into(), text });
        }
        let result_waits = self.retry.iter().find(|(_, whole, _)| whole.result.id.job == job);
        if let Some((_, _, why)) = result_waits {
            let text = format!("its outputs can't be written here, and are tried again every {RETRY_OUTPUTS:?}: {why}");
            steps.push(ctl::WhyStep { at_ms: None, by: "master".into(), text });
        }
        if let Some(set) = self.sets.newest(job).filter(|_| !self.pool.is_over(job)) {
            let text =
                format!("the next attempt begins with what an earlier one left: {}", set.join("files").display());
            steps.push(ctl::WhyStep { at_ms: None, by: "master".into(), text });
        }
        let answer = self.answer(ctl::Subject::Job, job.to_string(), present, steps, notes);
        self.because(client, answer);
    }

    fn why_dag(&self, dag: &DagRow) -> ctl::Because {
        let job = self.dags.job(dag, &self.facts).row;
        let step = |at_ms, by: &str, text| ctl::WhyStep { at_ms, by: by.into(), text };
        let nodes = |states: &[State]| states.iter().map(|state| dag.of(*state)).sum::<u32>();
        let text = format!("submitted DAG {} of {} node(s)", dag.file, dag.total());
        let mut steps = vec![step(Some(dag.submitted_ms), "you", text)];
        let state = match (job.state, job.exit_code) {
            (ctl::JobState::Held, _) => format!("held: {}", job.reason.unwrap_or_default()),
            (ctl::JobState::Removed, _) => "removed".to_owned(),
            (ctl::JobState::Completed, code) => format!("completed with exit code {}", code.unwrap_or_default()),
            _ if dag.halted => "running, but halted".to_owned(),
            _ => "running".to_owned(),
        };
        if let Some(at) = dag.ended_ms {
            steps.push(step(Some(at), "master", state.clone()));
        }
        let (done, failed) = (nodes(&[State::Done]), nodes(&[State::Failed]));
        steps.push(step(None, "master", format!("{done} node(s) are done, {failed} have failed")));
        steps.extend(dag.problem.iter().map(|why| step(None, "master", format!("last problem: {why}"))));
        let mut next = Vec::new();
        if dag.code.is_none() {
            if dag.paused {
                next.push(format!("`release {}`: until then nothing new begins", dag.dag));
            } else if dag.halted {
                next.push(format!("`dag resume {}`, or the end of what runs", dag.dag));
            }
            let waits = [
                (nodes(&[State::Submitting, State::Submitted]), "node(s), whose jobs are submitted"),
                (nodes(&[State::Pre, State::Post]), "node(s), whose scripts run"),
                (nodes(&[State::Ready]), "node(s), which are to be submitted"),
                (nodes(&[State::NotReady]), "node(s), which wait for others"),
            ];
            next.extend(waits.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")));
            next.push(format!("`dag {}` shows them", dag.dag));
        }
        ctl::Because { subject: ctl::Subject::Job, name: job.id.to_string(), state, steps, next, notes: Vec::new() }
    }

    fn why_cluster(&self, cluster: u32) -> ctl::Because {
        let select = Select { clusters: [cluster].into(), jobs: BTreeSet::new() };
        let submitted = self.pool.clusters(&select).next().map(|view| {
            let text = format!("submitted ({})", view.name);
            ctl::WhyStep { at_ms: Some(view.submitted.0), by: "you".into(), text }
        });
        let present = self.pool.explain_cluster(self.now(), cluster, &self.site_facts()).unwrap_or_default();
        self.answer(ctl::Subject::Cluster, cluster.to_string(), present, submitted.into_iter().collect(), Vec::new())
    }

    fn answer(
        &self,
        subject: ctl::Subject,
        name: String,
        present: Present,
        mut steps: Vec<ctl::WhyStep>,
        notes: Vec<String>,
    ) -> ctl::Because {
        let Present { state, steps: seen, mut next, idle } = present;
        for seen in seen.into_iter().map(step) {
            let place = match seen.at_ms {
                Some(at) => {
                    steps.iter().rposition(|step| step.at_ms.is_some_and(|t| t <= at)).map_or(0, |last| last + 1)
                }
                None => steps.len(),
            };
            steps.insert(place, seen);
        }
        if idle {
            next.extend(self.sites.iter().zip((0..).map(SiteId)).map(|(site, id)| self.outlook(id, site)));
        }
        ctl::Because { subject, name, state, steps, next, notes }
    }

    /// What a site may still bring into the pool.
    fn outlook(&self, id: SiteId, site: &Site) -> String {
        let name = &site.conf.name;
        if site.state != SiteState::Up {
            return format!("site {name}: {}", self.site_words(site));
        }
        let in_state = |states: &[ProxyState]| site.proxies.values().filter(|(p, _)| states.contains(&p.state)).count();
        let running = in_state(&[ProxyState::Run]);
        let waiting = in_state(&[ProxyState::Wanted, ProxyState::Submitting, ProxyState::Pend]);
        let mut text =
            format!("site {name}: {running} of {} wanted proxies run, {waiting} wait", site.target.unwrap_or(0));
        let pending = site.proxies.values().filter(|(p, _)| p.state == ProxyState::Pend);
        let reasons: BTreeSet<&str> = pending.map(|(info, _)| info.why.as_str()).collect();
        for reason in reasons.into_iter().take(PENDING) {
            text += &format!("; {reason}");
        }
        if let Some((problem, _)) = &site.problem {
            text += &format!("; {problem}");
        }
        let excluded = self.pool.excluded_nodes().filter(|node| node.site == id).count();
        if excluded > 0 {
            text += &format!("; {excluded} node(s) are excluded");
        }
        text
    }

    // ---- proxies and sites

    fn ask_agent(&mut self, client: u64, id: SiteId, proxy: Option<ProxyId>) {
        let answer = match proxy {
            Some(proxy) => self.why_proxy(id, proxy),
            None => self.why_site(id),
        };
        let Some(site) = self.sites.get(usize::from(id.0)) else {
            return;
        };
        if site.link.is_none() || site.hello.is_none() {
            let answer = self.without_agent(id, answer, "it is not connected");
            return self.because(client, answer);
        }
        self.whys.last += 1;
        let nonce = self.whys.last;
        if let Some(client) = self.clients.get_mut(&client) {
            client.request = Some(Request::Why(nonce));
        }
        self.whys.asked.insert(nonce, AskedAgent { client, site: id, until: Instant::now() + PATIENCE, answer });
        self.to_site(id, &link::Why { nonce, proxy });
    }

    /// Answers for agents that don't.
    pub(super) fn agents_overdue(&mut self) {
        let now = Instant::now();
        let sites = &self.sites;
        let over = |asked: &AskedAgent| asked.until <= now || sites[usize::from(asked.site.0)].link.is_none();
        let over: Vec<u64> = self.whys.asked.iter().filter(|(_, asked)| over(asked)).map(|(nonce, _)| *nonce).collect();
        for nonce in over {
            if let Some(asked) = self.whys.asked.remove(&nonce).filter(|asked| self.waits(asked.client, nonce)) {
                let answer = self.without_agent(asked.site, asked.answer, "it doesn't answer");
                self.because(asked.client, answer);
            }
        }
    }

    fn without_agent(&self, id: SiteId, mut answer: ctl::Because, why: &str) -> ctl::Because {
        let name = self.name_of(id);
        answer.notes.push(format!("the agent of {name} could not be asked ({why}); this is what it told last"));
        let site = self.sites.get(usize::from(id.0)).filter(|site| site.state != SiteState::Up);
        if let Some(site) = site.filter(|_| answer.subject == ctl::Subject::Proxy) {
            answer.next.push(format!("site {name}: {}", self.site_words(site)));
        }
        answer
    }

    pub(super) fn agent_because(&mut self, id: SiteId, told: link::Because) {
        let now = self.now();
        let Some(asked) = self.whys.asked.get(&told.nonce).filter(|asked| asked.site == id) else {
            return;
        };
        let (client, nonce) = (asked.client, told.nonce);
        let waits = self.waits(client, nonce);
        let Some(AskedAgent { mut answer, .. }) = self.whys.asked.remove(&nonce).filter(|_| waits) else {
            return;
        };
        let by = format!("agent of {}", self.name_of(id));
        // Its ages, by our clock.
        let step = |step: link::WhyStep| ctl::WhyStep {
            at_ms: step.age_ms.map(|age| now.0.saturating_sub(age)),
            by: by.clone(),
            text: step.text,
        };
        let mut last = 0;
        let told_steps = told.steps.into_iter().take(link::WHY_STEPS).map(step).map(|step| {
            // One without a time stays behind the one before it.
            last = step.at_ms.unwrap_or(last);
            (last, step)
        });
        let mut steps: Vec<_> = told_steps.collect();
        if answer.subject == ctl::Subject::Site {
            // The agent's own records of a proxy are better than what it reported of them.
            steps.extend(std::mem::take(&mut answer.steps).into_iter().map(|step| (step.at_ms.unwrap_or(0), step)));
        }
        steps.sort_by_key(|(at, _)| *at);
        answer.steps = steps.into_iter().map(|(_, step)| step).collect();
        answer.steps.extend(told.now.into_iter().take(link::WHY_STEPS).map(step));
        answer.next.extend(told.next.into_iter().take(link::WHY_STEPS));
        answer.notes.extend(told.gaps.into_iter().take(link::WHY_STEPS));
        self.because(client, answer);
    }

    fn why_proxy(&self, id: SiteId, proxy: ProxyId) -> ctl::Because {
        let name = format!("{}/{proxy}", self.name_of(id));
        let known = self.sites.get(usize::from(id.0)).and_then(|site| site.proxies.get(&proxy));
        let (mut state, mut steps) = (String::new(), Vec::new());
        if let Some((info, told)) = known {
            let age = span(self.now().since(*told) + Duration::from_millis(info.age_ms));
            let batch = info.batch_id.as_ref().map_or_else(String::new, |id| format!(", batch job {id}"));
            let word = info.state.name();
            state = format!("{word} for {age}{batch}, {} of {} starters connected", info.starters, info.nodes);
            steps.push(ctl::WhyStep {
                at_ms: Some(told.0.saturating_sub(info.age_ms)),
                by: format!("agent of {}", self.name_of(id)),
                text: info.why.clone(),
            });
        }
        ctl::Because { subject: ctl::Subject::Proxy, name, state, steps, next: Vec::new(), notes: Vec::new() }
    }

    fn why_site(&self, id: SiteId) -> ctl::Because {
        let mut answer = ctl::Because {
            subject: ctl::Subject::Site,
            name: self.name_of(id),
            state: String::new(),
            steps: Vec::new(),
            next: Vec::new(),
            notes: Vec::new(),
        };
        let Some(site) = self.sites.get(usize::from(id.0)) else {
            return answer;
        };
        answer.state = self.site_words(site);
        answer.steps = site.history.steps(date);
        if !site.history.is_whole() {
            answer.notes.push("earlier events are no longer kept".into());
        }
        for node in self.pool.excluded_nodes().filter(|node| node.site == id) {
            let text = format!("node {} gets no work until {}: {}", node.host, date(node.until), node.why);
            answer.steps.push(ctl::WhyStep { at_ms: Some(node.since.0), by: "master".into(), text });
        }
        answer.steps.sort_by_key(|step| step.at_ms);
        let limits = &site.limits;
        if site.link.is_some() && limits.heartbeat_ms > 0 {
            let text = format!(
                "the agent was heard {} ago; a heartbeat is missed after {}, and {} are borne with",
                span(site.heard.elapsed()),
                span(Duration::from_millis(limits.heartbeat_ms)),
                limits.missed_heartbeats
            );
            answer.steps.push(ctl::WhyStep { at_ms: None, by: "master".into(), text });
        }
        if site.state == SiteState::Up {
            answer.next.push(self.target_words(id, site));
        }
        if let Some(at) = site.next_try {
            answer.next.push(format!("the next try to connect, in {}", span(at.since(self.now()))));
        }
        answer
    }

    /// Why so many proxies are wanted.
    fn target_words(&self, id: SiteId, site: &Site) -> String {
        let (demand, asked) = (self.pool.demand_cpus(), self.wanted(id));
        let target = site.target.unwrap_or(0);
        let each = site.cpus;
        let why = if demand > 0 {
            format!("unfinished jobs would fill {demand} CPUs, a proxy has {each}, and {asked} were asked for")
        } else if target > 0 {
            format!("no job is unfinished, and all {asked} are kept for a while in case more are submitted")
        } else {
            "no job is unfinished".into()
        };
        let unit = if target == 1 { "proxy is" } else { "proxies are" };
        format!("{target} {unit} wanted: {why}")
    }

    fn site_words(&self, site: &Site) -> String {
        let state = match site.state {
            SiteState::Connecting => "being connected to",
            SiteState::Up => "up",
            SiteState::Lost => "lost",
            SiteState::Blocked => "blocked",
            SiteState::Failed => "failed",
            SiteState::NeedsLogin => "needs login",
            SiteState::Ending => "ending",
            SiteState::Ended => "ended",
        };
        let mut text = format!("{state} for {}", span(self.now().since(site.since)));
        if let Some((problem, hint)) = &site.problem {
            text += &format!(": {problem}");
            if let Some(hint) = hint {
                text += &format!(" ({hint})");
            }
        }
        text
    }
}

/// `2026-11-21 21:13:08`, in local time.
fn date(at: Time) -> String {
    let at = i64::try_from(at.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    at.map_or_else(
        || "?".into(),
        |at| at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
    )
}

fn step(step: Step) -> ctl::WhyStep {
    ctl::WhyStep { at_ms: step.at.map(|at| at.0), by: step.by, text: step.text }
}

//! Listings of jobs, page by page, so that a million rows neither fill memory nor hold others up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vo_core::Time;
use vo_core::ids::JobId;
use vo_core::pool::{End, JobState, JobView, Pool, Select};
use vo_core::template::Template;
use vo_wire::control as ctl;

use crate::dags::Job;
use crate::jobad::{Columns, Condition, Facts};

/// Rows of a page.
const PAGE: usize = 1000;
/// Bytes of a page of ads, after which it is full.
const PAGE_BYTES: usize = 512 << 10;
/// Jobs looked at for a page at the most: a page may be empty.
const LOOKED_AT: usize = 100_000;
/// A job that a condition is asked of counts for so many that are merely looked at.
const ASKED: usize = 20;
/// Characters of a job's command line in listings.
const COMMAND: usize = 200;

/// What a listing gives.
pub(crate) enum Show {
    /// A row for each job.
    Rows,
    /// What is asked of their ads.
    Ads(Columns),
    /// How many of each cluster there are.
    Clusters(BTreeMap<u32, ctl::ClusterRow>),
}

/// A page of a listing.
pub(crate) enum Page {
    Jobs(ctl::JobRows),
    Ads(ctl::AdRows),
    Clusters(ctl::ClusterRows),
}

/// Where a listing of jobs is.
pub(crate) struct Listing {
    select: Select,
    states: Vec<ctl::JobState>,
    /// What keeps jobs that have ended in the queue, if those are wanted.
    stays: Option<Condition>,
    condition: Option<Condition>,
    show: Show,
    facts: Arc<Facts>,
    next: Option<JobId>,
    /// In the order of time: the ids, the last first.
    order: Option<std::vec::IntoIter<JobId>>,
    /// The first comes first there.
    forwards: bool,
    /// How many are wanted yet, and may be looked at yet.
    left: usize,
    scan: Option<usize>,
    /// Ends the listing.
    since: Option<Condition>,
    counted: bool,
    /// DAGs that are not yet listed, by number.
    dags: BTreeMap<u32, Job>,
}

impl Listing {
    pub(crate) fn new(
        pool: &Pool,
        select: Select,
        states: Vec<ctl::JobState>,
        last: Option<u32>,
        condition: Option<Condition>,
        show: Show,
        facts: Arc<Facts>,
    ) -> Self {
        let order = last.map(|_| {
            let chosen = pool.views(&select, None).filter(|view| wanted(&states, view));
            let mut ids: Vec<(Time, JobId)> = chosen.map(|view| (view.at, view.id)).collect();
            ids.sort_unstable_by(|a, b| b.cmp(a));
            ids.into_iter().map(|(_, id)| id).collect::<Vec<_>>().into_iter()
        });
        Listing {
            select,
            states,
            stays: None,
            condition,
            show,
            facts,
            next: None,
            order,
            forwards: false,
            left: last.map_or(usize::MAX, |last| last as usize),
            scan: None,
            since: None,
            counted: false,
            dags: BTreeMap::new(),
        }
    }

    /// Lists also jobs that have ended of which this holds, if their description may keep them in the queue.
    pub(crate) fn staying(self, stays: Option<Condition>) -> Self {
        Listing { stays, ..self }
    }

    /// Ends it before the first of which `since` holds, or when `scan` were looked at or `first` listed; what is in the order of time may go forwards.
    pub(crate) fn until(self, first: Option<u32>, scan: Option<u32>, since: Option<Condition>, forwards: bool) -> Self {
        let most = |count: u32| count as usize;
        Listing { left: self.left.min(first.map_or(usize::MAX, most)), scan: scan.map(most), since, forwards, ..self }
    }

    /// The same, with those of the DAGs that are asked for.
    pub(crate) fn with(mut self, pool: &Pool, dags: Vec<Job>) -> Self {
        let wanted = |dag: &Job| {
            let state = self.states.is_empty() || self.states.contains(&dag.row.state);
            // In sessions of earlier versions DAGs had numbers of their own.
            state && pool.jobs_of(dag.row.id.cluster) == 0
        };
        self.dags = dags.into_iter().filter(wanted).map(|dag| (dag.row.id.cluster, dag)).collect();
        if let Some(ids) = self.order.as_mut().filter(|_| !self.dags.is_empty()) {
            let jobs = ids.filter_map(|id| Some((pool.view(id)?.at, id)));
            let dags = self.dags.values().map(|dag| (Time(dag.row.entered_ms), dag.row.id));
            let mut all: Vec<(Time, JobId)> = jobs.chain(dags).collect();
            all.sort_unstable_by(|a, b| b.cmp(a));
            *ids = all.into_iter().map(|(_, id)| id).collect::<Vec<_>>().into_iter();
        }
        self
    }

    /// The next page, and whether there are more.
    pub(crate) fn page(&mut self, pool: &Pool) -> (Page, bool) {
        let Listing {
            select,
            states,
            stays,
            condition,
            show,
            facts,
            next,
            order,
            forwards,
            left,
            scan,
            since,
            counted,
            dags,
        } = self;
        let site = |site: u16| facts.sites.get(usize::from(site)).cloned();
        let (mut rows, mut ads, mut bytes, mut looked) = (Vec::new(), Vec::new(), 0, 0);
        let mut more = !*counted;
        let mut walk = pool.ids(select, *next).peekable();
        while more && rows.len().max(ads.len()) < PAGE && bytes < PAGE_BYTES && looked < LOOKED_AT {
            let id = match order {
                _ if *left == 0 || *scan == Some(0) => None,
                Some(ids) if *forwards => ids.next_back(),
                Some(ids) => ids.next(),
                None => match dags.first_key_value() {
                    Some((dag, _)) if walk.peek().is_none_or(|job| *dag < job.cluster) => {
                        Some(JobId { cluster: *dag, proc: 0 })
                    }
                    _ => walk.next(),
                },
            };
            let Some(id) = id else {
                more = false;
                break;
            };
            looked += 1;
            if let Some(dag) = dags.remove(&id.cluster) {
                if since.as_ref().is_some_and(|since| since.holds_of(&dag.ad)) {
                    more = false;
                    break;
                }
                *scan = scan.map(|scan| scan - 1);
                if condition.as_ref().is_some_and(|condition| !condition.holds_of(&dag.ad)) {
                    continue;
                }
                *left -= 1;
                match show {
                    Show::Rows => rows.push(dag.row),
                    Show::Ads(columns) => ads.push(ctl::AdRow { job: Some(id), ..columns.of(&dag.ad) }),
                    Show::Clusters(_) => {}
                }
                continue;
            }
            *next = Some(JobId { proc: id.proc.saturating_add(1), ..id });
            let out = |condition: &Condition| {
                pool.place_of(id).and_then(|place| condition.of_group((id.cluster, place))) == Some(false)
            };
            // Whatever ends the listing must be looked at.
            if since.is_none() && scan.is_none() && condition.as_ref().is_some_and(out) {
                continue;
            }
            let Some(view) = pool.view(id) else { continue };
            let mut stays = || view.stays && stays.as_mut().is_some_and(|stays| stays.holds(&view, facts));
            if !wanted(states, &view) && !stays() {
                continue;
            }
            if let Some(since) = since {
                looked += ASKED;
                if since.holds(&view, facts) {
                    more = false;
                    break;
                }
            }
            *scan = scan.map(|scan| scan - 1);
            if let Some(condition) = condition {
                looked += ASKED;
                if !condition.holds(&view, facts) {
                    continue;
                }
            }
            *left -= 1;
            match show {
                Show::Rows => rows.push(row(&view, &site)),
                Show::Ads(columns) => {
                    let row = columns.of_job(&view, facts);
                    bytes += row.cells.iter().chain(&row.names).map(String::len).sum::<usize>();
                    ads.push(row);
                }
                Show::Clusters(clusters) => {
                    let stays = stays();
                    count(clusters, &view, stays);
                }
            }
        }
        match show {
            Show::Rows => (Page::Jobs(ctl::JobRows { rows }), more),
            Show::Ads(_) => (Page::Ads(ctl::AdRows { rows: ads }), more),
            Show::Clusters(clusters) => {
                *counted = !more;
                let rows = if more {
                    Vec::new()
                } else {
                    std::iter::from_fn(|| clusters.pop_first()).take(PAGE).map(|(_, row)| row).collect()
                };
                (Page::Clusters(ctl::ClusterRows { rows }), more || !clusters.is_empty())
            }
        }
    }
}

/// The jobs of those selected that a change may concern and of which a condition holds.
pub(crate) fn sift(pool: &Pool, select: &Select, condition: &mut Condition, facts: &Facts) -> BTreeSet<JobId> {
    let unfinished = |view: &JobView<'_>| !matches!(view.state, JobState::Completed | JobState::Removed);
    let views = pool.views(select, None).filter(unfinished);
    views.filter(|view| condition.holds(view, facts)).map(|view| view.id).collect()
}

fn count(clusters: &mut BTreeMap<u32, ctl::ClusterRow>, view: &JobView<'_>, stays: bool) {
    let proc = view.id.proc;
    let row = clusters.entry(view.id.cluster).or_insert_with(|| ctl::ClusterRow {
        cluster: view.id.cluster,
        name: view.batch.to_owned(),
        submitted_ms: view.submitted.0,
        counts: ctl::Counts::default(),
        span: Some((proc, proc)),
        batch: None,
        stays: (0, 0),
    });
    count_staying(&mut row.stays, view, stays);
    row.span = row.span.map(|(first, last)| (first.min(proc), last.max(proc)));
    let counts = &mut row.counts;
    *match view.state {
        JobState::Idle | JobState::Matched => &mut counts.idle,
        JobState::Running | JobState::Transferring => &mut counts.running,
        JobState::Held => &mut counts.held,
        JobState::Completed => &mut counts.completed,
        JobState::Removed => &mut counts.removed,
    } += 1;
    counts.failed += u32::from(view.state == JobState::Completed && view.end != Some(End::Exited(0)));
}

/// Counts a job that has ended, if it stays in the queue: completed, or removed.
pub(crate) fn count_staying(all: &mut (u32, u32), view: &JobView<'_>, stays: bool) {
    let (completed, removed) = all;
    *if view.state == JobState::Removed { removed } else { completed } += u32::from(stays);
}

fn wanted(states: &[ctl::JobState], view: &JobView<'_>) -> bool {
    states.is_empty() || states.contains(&state(view))
}

fn state(view: &JobView<'_>) -> ctl::JobState {
    match view.state {
        JobState::Idle => ctl::JobState::Idle,
        JobState::Matched | JobState::Running if view.silent => ctl::JobState::Unknown,
        JobState::Matched => ctl::JobState::Matched,
        JobState::Running => ctl::JobState::Running,
        JobState::Transferring => ctl::JobState::Transferring,
        JobState::Held => ctl::JobState::Held,
        JobState::Completed => ctl::JobState::Completed,
        JobState::Removed => ctl::JobState::Removed,
    }
}

/// A job's row.
pub(crate) fn row(view: &JobView<'_>, site: &impl Fn(u16) -> Option<String>) -> ctl::JobRow {
    let (exit_code, signal) = match view.end {
        Some(End::Exited(code)) => (Some(code), None),
        Some(End::Signaled(signal)) => (None, Some(signal)),
        None => (None, None),
    };
    let ended = matches!(view.state, JobState::Completed | JobState::Removed);
    let started_ms = match view.state {
        JobState::Running => Some(view.at.0),
        JobState::Completed => Some(view.at.0.saturating_sub(view.usage.wall_ms)),
        _ => None,
    };
    ctl::JobRow {
        id: view.id,
        state: state(view),
        attempts: view.attempts,
        submitted_ms: view.submitted.0,
        started_ms,
        ended_ms: ended.then_some(view.at.0),
        exit_code,
        signal,
        usage: view.usage,
        site: view.site.and_then(|id| site(id.0)),
        host: view.host.map(str::to_owned),
        reason: view.reason.map(str::to_owned),
        command: command(view),
        priority: view.terms.priority,
        entered_ms: view.at.0.max(view.submitted.0),
        starts_ms: view.starts_at().filter(|_| view.later).map(|at| at.0),
    }
}

fn command(view: &JobView<'_>) -> String {
    let mut text = String::new();
    let program = view.program.filled(&view.row);
    let words = std::iter::once(&program.executable).chain(&program.arguments);
    for (i, word) in words.enumerate() {
        if i > 0 {
            text.push(' ');
        }
        text.push_str(&expand(word, view.id));
        if text.len() > COMMAND {
            break;
        }
    }
    match text.char_indices().nth(COMMAND) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// A template's text for people: control characters can't reach a terminal.
pub(crate) fn expand(template: &Template, job: JobId) -> String {
    let text = String::from_utf8_lossy(&template.expand(job)).into_owned();
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

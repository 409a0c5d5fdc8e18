//! Listings of jobs, page by page, so that a million rows neither fill memory nor hold others up.

use vo_core::Time;
use vo_core::ids::JobId;
use vo_core::pool::{End, JobState, JobView, Pool, Select};
use vo_core::template::Template;
use vo_wire::control as ctl;

/// Rows of a page.
const PAGE: usize = 1000;
/// Jobs looked at for a page at the most: a page may be empty.
const LOOKED_AT: usize = 100_000;
/// Characters of a job's command line in listings.
const COMMAND: usize = 200;

/// Where a listing of jobs is.
pub(crate) struct Listing {
    select: Select,
    states: Vec<ctl::JobState>,
    next: Option<JobId>,
    /// With a limit: the ids, the last first.
    last: Option<std::vec::IntoIter<JobId>>,
}

impl Listing {
    pub(crate) fn new(pool: &Pool, select: Select, states: Vec<ctl::JobState>, last: Option<u32>) -> Self {
        let last = last.map(|limit| {
            let chosen = pool.views(&select, None).filter(|view| wanted(&states, view));
            let mut ids: Vec<(Time, JobId)> = chosen.map(|view| (view.at, view.id)).collect();
            ids.sort_unstable_by(|a, b| b.cmp(a));
            ids.truncate(limit as usize);
            ids.into_iter().map(|(_, id)| id).collect::<Vec<_>>().into_iter()
        });
        Listing { select, states, next: None, last }
    }

    /// The next page, and whether there are more.
    pub(crate) fn page(&mut self, pool: &Pool, site: impl Fn(u16) -> Option<String>) -> (Vec<ctl::JobRow>, bool) {
        if let Some(ids) = &mut self.last {
            let rows: Vec<_> = ids.by_ref().take(PAGE).filter_map(|id| pool.view(id)).map(|v| row(&v, &site)).collect();
            return (rows, ids.len() > 0);
        }
        let mut rows = Vec::new();
        let (mut looked, mut next) = (0, None);
        for view in pool.views(&self.select, self.next) {
            if rows.len() == PAGE || looked == LOOKED_AT {
                next = Some(view.id);
                break;
            }
            looked += 1;
            if wanted(&self.states, &view) {
                rows.push(row(&view, &site));
            }
        }
        self.next = next;
        (rows, next.is_some())
    }
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

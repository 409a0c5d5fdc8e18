//! Input files on their way to scratch directories: when the master hears of them.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use vo_core::ids::AttemptId;
use vo_wire::work::Moved;

/// Files that take so long are told of before they are there.
const LONG: Duration = Duration::from_secs(1);

/// Those of which there is something to tell.
#[derive(Debug, Default)]
pub(super) struct Moves(BTreeMap<AttemptId, Move>);

#[derive(Debug)]
struct Move {
    began: Instant,
    came: Option<Instant>,
    /// The master has heard that they began to come.
    told: bool,
}

impl Moves {
    pub(super) fn began(&mut self, id: AttemptId, began: Instant) {
        self.0.insert(id, Move { began, came: None, told: false });
    }

    pub(super) fn came(&mut self, id: AttemptId, now: Instant) {
        if let Some(files) = self.0.get_mut(&id) {
            files.came = Some(now);
        }
    }

    /// They won't come.
    pub(super) fn failed(&mut self, id: AttemptId) {
        self.0.remove(&id);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What the master is to hear now.
    pub(super) fn news(&mut self, now: Instant) -> Vec<Moved> {
        let ago = |moment: Instant| super::driver::millis(now.saturating_duration_since(moment));
        let mut news = Vec::new();
        self.0.retain(|id, files| {
            if files.came.is_none() && (files.told || now < files.began + LONG) {
                return true;
            }
            let began_ms = (!files.told).then(|| ago(files.began));
            news.push(Moved { id: *id, began_ms, came_ms: files.came.map(ago) });
            files.told = true;
            files.came.is_none()
        });
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_of_when_they_came_or_take_long() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let id = |attempt| AttemptId { job: "1.0".parse().unwrap(), attempt };
        let mut moves = Moves::default();
        (1..4).for_each(|attempt| moves.began(id(attempt), at(0)));
        moves.came(id(1), at(300));
        moves.failed(id(3));
        let told = |attempt, began_ms, came_ms| Moved { id: id(attempt), began_ms, came_ms };
        assert_eq!(moves.news(at(500)), [told(1, Some(500), Some(200))]);
        assert_eq!(moves.news(at(999)), []);
        assert_eq!(moves.news(at(1000)), [told(2, Some(1000), None)]);
        assert_eq!(moves.news(at(5000)), []);
        moves.came(id(2), at(6000));
        assert_eq!(moves.news(at(6500)), [told(2, None, Some(500))]);
        assert!(moves.is_empty() && moves.news(at(9000)).is_empty());
    }
}

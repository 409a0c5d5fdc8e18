//! What running jobs use, as their starters tell from time to time. It comes again after a crash, so no record tells it until an attempt comes to
//! nothing: then it is what the job is known by while it waits.

use super::*;

impl Job {
    /// Takes in what an attempt used so far. The largest sizes are those of all attempts.
    pub(super) fn spend(&mut self, usage: &Usage) {
        let short = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        self.cpu_ms = short(usage.cpu_ms);
        self.system_ms = short(usage.system_ms);
        self.peak_kib = self.peak_kib.max(short(usage.peak_kib));
        self.disk_kib = self.disk_kib.max(short(usage.disk_kib));
    }

    fn spent(&self) -> Usage {
        Usage {
            cpu_ms: self.cpu_ms.into(),
            system_ms: self.system_ms.into(),
            peak_kib: self.peak_kib.into(),
            disk_kib: self.disk_kib.into(),
            ..Usage::default()
        }
    }
}

impl Pool {
    /// A starter told what attempts have used so far.
    pub(super) fn measured(&mut self, now: Time, key: StarterKey, used: &[(AttemptId, Usage)]) {
        for (id, usage) in used {
            let running = self.job(id.job).filter(|job| job.state == JobState::Running);
            let Some(before) = running.map(|job| job.peak_kib).filter(|_| self.is_current(*id, key)) else { continue };
            self.apply_measured(id.job, usage);
            self.measured.insert(id.job);
            let peak_kib = self.job(id.job).map_or(0, |job| job.peak_kib);
            if peak_kib > before {
                let note = self.note(now, id.job, || Note::Grown { peak_kib: peak_kib.into() });
                note.into_iter().for_each(|note| self.act(note));
            }
        }
    }

    pub(super) fn apply_measured(&mut self, id: JobId, usage: &Usage) {
        self.change(id, |job| job.spend(usage));
    }

    /// Records what is known of attempts that come to nothing.
    pub(super) fn remember(&mut self, now: Time, jobs: &[JobId]) {
        let known: Vec<JobId> = jobs.iter().copied().filter(|id| self.measured.remove(id)).collect();
        let used: Vec<_> = known.into_iter().filter_map(|id| Some((id, self.job(id)?.spent()))).collect();
        if !used.is_empty() {
            self.write(Record::Measured { at: now, used });
        }
    }
}

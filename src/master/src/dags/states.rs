//! `JOBSTATE_LOG`: a line for each step of the nodes and their jobs, as DAGMan writes it.
//!
//! Events of jobs come when the pool's record of them is durable. What the DAG does by itself may have followed from a record that is not: its
//! lines wait until all events before them are told.

use std::fs::{File, OpenOptions};
use std::io::Write as _;

use super::*;

/// A try of a node.
#[derive(Debug)]
pub(super) struct Try {
    name: String,
    /// The site of Pegasus, or what else the submit description calls its jobs.
    tag: String,
    /// Among all tries of all nodes.
    number: u32,
}

/// The job state log of a DAG.
pub(super) struct JobStates {
    file: Option<File>,
    next: u32,
    /// The last try of each node, and how often it was tried before.
    tries: BTreeMap<u32, (u32, Arc<Try>)>,
    /// Whose jobs clusters are of which more is to come.
    clusters: BTreeMap<u32, Arc<Try>>,
    /// Lines that wait for so many records, each with the cluster of which it is the last.
    waiting: VecDeque<(u64, String, Option<u32>)>,
    /// No more come.
    closed: bool,
}

/// A line's last word, and the name of its node.
fn parsed(line: &str) -> Option<(u32, &str)> {
    let mut words = line.split(' ');
    let name = words.nth(1)?;
    Some((words.next_back()?.parse().ok()?, name))
}

impl JobStates {
    /// Where a log is there already, its numbers are gone on with if `goes_on`.
    pub(super) fn open(path: &Path, goes_on: bool) -> JobStates {
        let before = fs::read(path).ok().filter(|_| goes_on).unwrap_or_default();
        let last = String::from_utf8_lossy(&before).lines().filter_map(parsed).map(|(number, _)| number).max();
        let file = OpenOptions::new().append(true).create(true).open(path);
        if let Err(error) = &file {
            tracing::warn!(path = %path.display(), %error, "the job state log of a DAG can't be written");
        }
        JobStates {
            file: file.ok(),
            next: last.unwrap_or(0) + 1,
            tries: BTreeMap::new(),
            clusters: BTreeMap::new(),
            waiting: VecDeque::new(),
            closed: false,
        }
    }

    /// The numbers of tries that were under way when an earlier master ended, by their nodes' names.
    pub(super) fn numbers(path: &Path) -> BTreeMap<String, u32> {
        let text = fs::read(path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        text.lines().filter_map(parsed).map(|(number, name)| (name.to_owned(), number)).collect()
    }

    /// A node's try, which gets the next number unless it has one.
    pub(super) fn begun(
        &mut self,
        node: u32,
        tried: u32,
        number: Option<u32>,
        name: &str,
        tag: impl FnOnce() -> String,
    ) -> Arc<Try> {
        if let Some((_, known)) = self.tries.get(&node).filter(|(before, _)| *before == tried) {
            return known.clone();
        }
        let number = number.unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        });
        let begun = Arc::new(Try { name: name.to_owned(), tag: tag(), number });
        self.tries.insert(node, (tried, begun.clone()));
        begun
    }

    /// Events of this cluster are told.
    pub(super) fn submitted(&mut self, cluster: u32, of: Arc<Try>) {
        self.clusters.insert(cluster, of);
    }

    pub(super) fn follows(&self, cluster: u32) -> bool {
        self.clusters.contains_key(&cluster)
    }

    /// Something of a job, whose record is durable.
    pub(super) fn event(&mut self, ms: u64, cluster: u32, job: &str, event: &str) {
        if let Some(of) = self.clusters.get(&cluster) {
            let line = line(ms, of, event, job);
            self.write(&line);
        }
    }

    /// Something of a node, told after the events of so many records; of `last`, no more events come then.
    pub(super) fn node(&mut self, behind: u64, ms: u64, of: &Try, (event, detail): (&str, &str), last: Option<u32>) {
        self.waiting.push_back((behind, line(ms, of, event, detail), last));
    }

    /// Something of the DAG itself: `DAGMAN_STARTED 12.0`.
    pub(super) fn internal(&mut self, behind: u64, ms: u64, what: &str) {
        self.waiting.push_back((behind, format!("{} INTERNAL *** {what} ***\n", ms / 1000), None));
    }

    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// For how many records the next line waits.
    pub(super) fn waits_for(&self) -> Option<u64> {
        self.waiting.front().map(|(behind, ..)| *behind)
    }

    /// Writes the lines that waited for so many. True when that were the last ones.
    pub(super) fn told(&mut self, records: u64) -> bool {
        while let Some((_, line, last)) = self.waiting.pop_front_if(|(behind, ..)| *behind <= records) {
            self.write(&line);
            if let Some(cluster) = last {
                self.clusters.remove(&cluster);
            }
        }
        self.closed && self.waiting.is_empty()
    }

    fn write(&mut self, line: &str) {
        if let Some(file) = &mut self.file
            && let Err(error) = file.write_all(line.as_bytes())
        {
            tracing::warn!(%error, "the job state log of a DAG can't be written");
            self.file = None;
        }
    }
}

impl Drop for JobStates {
    fn drop(&mut self) {
        self.told(u64::MAX);
    }
}

impl Dags {
    pub(super) fn open_states(&mut self, now: Time, number: u32, active: &Active) {
        let Some(path) = active.dag.jobstate_log.as_ref().map(|log| active.directory.join(log)) else { return };
        let recovers = active.base > 0;
        let mut states = JobStates::open(&path, recovers || active.bundle.rescue.is_some());
        if recovers {
            let numbers = JobStates::numbers(&path);
            for (node, _) in active.dag.written() {
                let began = match active.run.state(node) {
                    State::Pre | State::Submitting | State::Submitted | State::Post => true,
                    State::Ready => active.dag.script(node, ScriptKind::Pre).is_some(),
                    State::NotReady | State::Done | State::Failed | State::Futile => false,
                };
                let name = active.dag.name(node);
                if let Some(number) = numbers.get(name).filter(|_| began) {
                    let of = states.begun(node, active.run.retries(node), Some(*number), name, || active.job_tag(node));
                    if let Some(cluster) = active.run.cluster(node) {
                        states.submitted(cluster, of);
                    }
                }
            }
            states.internal(self.seen, now.0, "RECOVERY_STARTED");
            states.internal(self.seen, now.0, "RECOVERY_FINISHED");
        } else {
            states.internal(self.seen, now.0, &format!("DAGMAN_STARTED {number}.0"));
        }
        self.states.insert(number, states);
    }

    /// Tells in its DAG's job state log, if there is one, what becomes of a node; of `last`, no more is told.
    pub(super) fn tell_state(&mut self, now: Time, dag: u32, node: u32, what: (&str, &str), last: Option<u32>) {
        if let Some(active) = self.active.get(&dag)
            && let Some(states) = self.states.get_mut(&dag)
        {
            let (tried, name) = (active.run.retries(node), active.dag.name(node));
            let of = states.begun(node, tried, None, name, || active.job_tag(node));
            states.node(self.seen, now.0, &of, what, last);
        }
    }

    /// For how many records of the pool the next line of a job state log waits, if one does.
    pub(crate) fn line_waits_for(&self) -> Option<u64> {
        self.states.values().filter_map(JobStates::waits_for).min()
    }

    /// Is there more to come in its job state log?
    pub(crate) fn is_telling(&self, dag: u32) -> bool {
        self.states.contains_key(&dag)
    }

    /// All that follows from so many records of the pool was done.
    pub(crate) fn records_told(&mut self, records: u64) {
        self.states.retain(|_, states| !states.told(records));
    }

    /// Tells events of jobs in the job state logs of their DAGs.
    pub(crate) fn note(&mut self, entry: &Entry) {
        let cluster = entry.job.cluster;
        if let Some(states) = self.states.values_mut().find(|states| states.follows(cluster)) {
            for (job, event) in entry.events() {
                states.event(entry.at.0, cluster, &job, event);
            }
        }
    }
}

fn line(ms: u64, of: &Try, event: &str, detail: &str) -> String {
    format!("{} {} {event} {detail} {} - {}\n", ms / 1000, of.name, of.tag, of.number)
}

/// What a submit description calls its jobs in job state logs: the value of the attribute that `+job_tag_name` names, or of `+pegasus_site`.
pub(super) fn tag(description: &[u8]) -> String {
    let text = String::from_utf8_lossy(description).replace("\\\n", "");
    let value = |wanted: &str| {
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        let mut of = pairs.filter(|(name, value)| name.trim().eq_ignore_ascii_case(wanted) && !value.trim().is_empty());
        let value = of.next_back().map(|(_, value)| value.trim()).filter(|value| !value.contains('$'))?;
        Some(value.trim_matches('"').to_owned())
    };
    let name = value("+job_tag_name").unwrap_or_else(|| "+pegasus_site".to_owned());
    // What stands in a line has no blanks.
    value(&name).map(|tag| tag.replace(char::is_whitespace, "_")).filter(|tag| !tag.is_empty()).unwrap_or("-".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_called_by_their_tags() {
        let check = |text: &str, expected: &str| assert_eq!(tag(text.as_bytes()), expected, "{text}");
        check("executable = x\n+pegasus_site = \"local\"\nqueue\n", "local");
        check("+job_tag_name = \"+job_tag_value\"\n+job_tag_value = \"viz\"\n+pegasus_site = \"no\"\n", "viz");
        check("+Pegasus_Site= \"a\"\n +pegasus_site =\\\n \"b c\"", "b_c");
        check("+pegasus_site = \"$(site)\"", "-");
        check("+pegasus_site =\nqueue", "-");
        check("", "-");
    }
}

//! The thread that stores the records of all DAGs: a log for each, since a DAG's ends with it.

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use vo_store::Log;

/// Between two tries to write to a full disk.
const RETRY: Duration = Duration::from_secs(1);
/// What comes within this shares a commit.
const PACE: Duration = Duration::from_millis(5);

enum Work {
    Open(u32, Box<Log>),
    Records(u32, Vec<Vec<u8>>),
    /// The DAG has ended.
    Close(u32),
}

/// A handle on the thread.
pub(crate) struct Logs(Sender<Work>);

impl Logs {
    /// Starts it. `durable` is told how many records of a DAG's log are durable, or why they can't be.
    pub(crate) fn start(durable: impl Fn(u32, Result<u64, String>) + Send + 'static) -> io::Result<Logs> {
        let (work, inbox) = mpsc::channel();
        thread::Builder::new().name("dag-log".into()).spawn(move || run(&inbox, &durable))?;
        Ok(Logs(work))
    }

    /// Takes over a DAG's log.
    pub(crate) fn open(&self, dag: u32, log: Log) {
        let _ = self.0.send(Work::Open(dag, Box::new(log)));
    }

    /// Stores records, in order.
    pub(crate) fn store(&self, dag: u32, records: Vec<Vec<u8>>) {
        let _ = self.0.send(Work::Records(dag, records));
    }

    /// Lets go of a log.
    pub(crate) fn close(&self, dag: u32) {
        let _ = self.0.send(Work::Close(dag));
    }
}

fn run(inbox: &Receiver<Work>, durable: &dyn Fn(u32, Result<u64, String>)) {
    let mut logs: BTreeMap<u32, Box<Log>> = BTreeMap::new();
    while let Ok(first) = inbox.recv() {
        let due = Instant::now() + PACE;
        let mut touched = std::collections::BTreeSet::new();
        let mut next = Some(first);
        while let Some(work) = next {
            match work {
                Work::Open(dag, log) => drop(logs.insert(dag, log)),
                Work::Close(dag) => drop(logs.remove(&dag)),
                Work::Records(dag, records) => {
                    if let Some(log) = logs.get_mut(&dag) {
                        touched.insert(dag);
                        for record in records {
                            log.append(&record);
                        }
                    }
                }
            }
            next = if touched.is_empty() {
                None
            } else {
                inbox.recv_timeout(due.saturating_duration_since(Instant::now())).ok()
            };
        }
        for dag in touched {
            let Some(log) = logs.get_mut(&dag) else { continue };
            loop {
                match log.commit() {
                    Ok(number) => break durable(dag, Ok(number)),
                    Err(error) if error.is_transient() => {
                        durable(dag, Err(crate::journal::chain(&error)));
                        thread::sleep(RETRY);
                    }
                    Err(error) => {
                        // Nothing of this DAG moves any more; its log tells at the next start of the master.
                        durable(dag, Err(crate::journal::chain(&error)));
                        logs.remove(&dag);
                        break;
                    }
                }
            }
        }
    }
}

//! The examples of contrib/examples: what they leave, and what their event logs tell.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::{Home, project};

/// Copies the example called `name` to a directory of its own, runs its `run` in the session `t`, and compares the files it leaves with those in
/// `expected`, and the entries of its logs with `events`: a log, an event's number and its count in each line.
pub fn run_example(home: &Home, name: &str) {
    let from = project().join("contrib/examples").join(name);
    home.sh(&format!("cp -r {} {name}", from.display())).ok();
    home.hand_over();
    home.vo(["-s", "t", "-c", &format!("set -e; cd {name}; . ./run")]).ok();
    let expected = from.join("expected");
    let mut compared = 0;
    for path in files(&expected) {
        let file = path.strip_prefix(&expected).expect("it is below");
        let (ours, theirs) = (home.read(Path::new(name).join(file)), fs::read_to_string(&path).expect("an example"));
        assert_eq!(ours, theirs, "{name}: {}", file.display());
        compared += 1;
    }
    assert!(compared > 0, "{name} leaves nothing");
    let events = fs::read_to_string(from.join("events")).expect("an example has its events");
    let mut logs: BTreeMap<&str, String> = BTreeMap::new();
    for line in events.lines() {
        let [log, event, count] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{name}: {line}") };
        let text = logs.entry(log).or_insert_with(|| home.read(Path::new(name).join(log)));
        let begins = format!("{event} (");
        let found = text.lines().filter(|line| line.starts_with(&begins)).count();
        assert_eq!(found.to_string(), count, "{name}: {log} has {event}:\n{text}");
    }
}

/// The names of all examples.
pub fn examples() -> Vec<String> {
    let entries = fs::read_dir(project().join("contrib/examples")).expect("contrib/examples");
    let entries = entries.map(|entry| entry.expect("an entry")).filter(|entry| entry.path().is_dir());
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().expect("a plain name")).collect();
    names.sort_unstable();
    names
}

fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory of the example") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

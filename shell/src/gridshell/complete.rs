//! What the line editor asks about a line: how it could go on, and whether it is whole.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::env;
use std::fs;

use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Helper};
use vo_core::JobId;
use vo_wire::control::{ClusterRows, JobRows, ListClusters, ListJobs, ListProxies, Pick, ProxyRows};

use super::coshell::Syntax;
use crate::client::Master;
use crate::commands;
use crate::error::Result;
use crate::sessions::{Session, State};

/// Most job ids that are offered at once.
const OFFERED_JOBS: u32 = 100;
/// Words that the user's shell knows by itself.
const BUILTINS: [&str; 11] = ["alias", "bg", "cd", "echo", "exit", "export", "fg", "jobs", "kill", "set", "unset"];

/// Answers for the lines of a session's grid shell.
pub(super) struct Lines {
    session: Session,
    syntax: Syntax,
    files: FilenameCompleter,
    programs: OnceCell<BTreeSet<String>>,
}

/// The word at the end of a line, and the command it belongs to.
#[derive(Debug, PartialEq, Eq)]
struct Place<'a> {
    start: usize,
    word: &'a str,
    /// None where the word itself is the command.
    command: Option<&'a str>,
}

fn place(line: &str) -> Place<'_> {
    let start = line.rfind(|c: char| c.is_whitespace() || "|&;(`".contains(c)).map_or(0, |at| at + 1);
    let (before, word) = line.split_at(start);
    let clause = before.rsplit(['|', '&', ';', '(', '`']).next().unwrap_or_default();
    Place { start, word, command: clause.split_whitespace().next() }
}

impl Lines {
    pub(super) fn new(session: Session, syntax: Syntax) -> Lines {
        Lines { session, syntax, files: FilenameCompleter::new(), programs: OnceCell::new() }
    }

    /// Programs on PATH, as of the first question.
    fn programs(&self) -> &BTreeSet<String> {
        self.programs.get_or_init(|| {
            let path = env::var_os("PATH").unwrap_or_default();
            let entries = env::split_paths(&path).filter_map(|dir| fs::read_dir(dir).ok()).flatten();
            entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
        })
    }

    /// Words that may stand for an operand of a grid command; none if it has others.
    fn operands(&self, command: &str, word: &str) -> Option<Vec<String>> {
        let command = commands::find(command)?;
        if word.starts_with('-') {
            let manual = command.manual();
            return Some(
                manual
                    .get_arguments()
                    .filter(|a| !a.is_hide_set())
                    .filter_map(|a| a.get_long())
                    .map(|long| format!("--{long}"))
                    .collect(),
            );
        }
        match command.name() {
            // A job event log.
            "wait" if word.starts_with(|c: char| !c.is_ascii_digit()) => None,
            "q"
            | "wait"
            | "history"
            | "log"
            | "rm"
            | "hold"
            | "release"
            | "edit"
            | "retry"
            | "condor_prio"
            | "condor_qedit"
            | "condor_vacate_job"
            | "condor_tail"
            | "condor_transfer_data" => self.ask(|master| jobs(master, word)),
            "sites" | "proxies" | "login" => self.ask(commands::site_names),
            "why" => self.ask(|master| named(master, word)),
            "help" => Some(commands::ALL.iter().map(|command| command.name().to_owned()).collect()),
            _ => None,
        }
    }

    /// Completion has nothing to say about a session that doesn't answer.
    fn ask(&self, question: impl FnOnce(&mut Master) -> Result<Vec<String>>) -> Option<Vec<String>> {
        match self.session.state() {
            Ok(State::Running(mut master)) => question(&mut master).ok(),
            _ => None,
        }
    }
}

/// All that `why` answers for: jobs, sites, proxies.
fn named(master: &mut Master, word: &str) -> Result<Vec<String>> {
    let mut found = jobs(master, word)?;
    found.extend(commands::site_names(master)?);
    master.pages(&ListProxies { all: true }, |page: ProxyRows| {
        found.extend(page.rows.iter().map(|row| format!("{}/{}", row.site, row.info.id)));
        Ok(())
    })?;
    Ok(found)
}

/// Clusters, or the jobs of the one that `word` names.
fn jobs(master: &mut Master, word: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    match word.split_once('.') {
        Some((cluster, _)) => {
            let Ok(JobId { cluster, .. }) = format!("{cluster}.0").parse() else {
                return Ok(found);
            };
            let request =
                ListJobs { picks: vec![Pick::Cluster(cluster)], last: Some(OFFERED_JOBS), ..ListJobs::default() };
            master.pages(&request, |page: JobRows| {
                found.extend(page.rows.iter().map(|row| row.id.to_string()));
                Ok(())
            })?;
            // There are more, which may begin otherwise: what is typed is as far as the word can go.
            if found.len() >= usize::try_from(OFFERED_JOBS).unwrap_or(usize::MAX) {
                found.push(word.to_owned());
            }
        }
        None => master.pages(&ListClusters { picks: Vec::new(), constraint: None }, |page: ClusterRows| {
            found.extend(page.rows.iter().map(|row| row.cluster.to_string()));
            Ok(())
        })?,
    }
    Ok(found)
}

impl Completer for Lines {
    type Candidate = Pair;

    fn complete(&self, line: &str, at: usize, context: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let Place { start, word, command } = place(line.get(..at).unwrap_or(line));
        let words: Option<Vec<String>> = match command {
            None if word.contains(['/', '~', '\'', '"', '$']) => None,
            None => {
                let ours = commands::ALL.iter().flat_map(|command| command.names.iter().copied());
                let known: BTreeSet<&str> =
                    ours.chain(BUILTINS).chain(self.programs().iter().map(String::as_str)).collect();
                Some(known.into_iter().map(str::to_owned).collect())
            }
            Some(command) => self.operands(command, word),
        };
        let fitting: Vec<Pair> = words
            .into_iter()
            .flatten()
            .filter(|candidate| candidate.starts_with(word))
            .map(|text| Pair { display: text.clone(), replacement: format!("{text} ") })
            .collect();
        if fitting.is_empty() { self.files.complete(line, at, context) } else { Ok((start, fitting)) }
    }
}

impl Validator for Lines {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let incomplete = self.syntax.is_incomplete(context.input());
        Ok(if incomplete { ValidationResult::Incomplete } else { ValidationResult::Valid(None) })
    }
}

impl Hinter for Lines {
    type Hint = String;
}

impl Highlighter for Lines {}

impl Helper for Lines {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_to_complete_and_its_command() {
        let check = |line: &str, word: &str, command: Option<&str>| {
            let found = place(line);
            assert_eq!((found.word, found.command), (word, command), "{line:?}");
            assert_eq!(line.get(found.start..), Some(word));
        };
        check("", "", None);
        check("su", "su", None);
        check("q ", "", Some("q"));
        check("q 12.", "12.", Some("q"));
        check("q | wc", "wc", None);
        check("ls;rm 1", "1", Some("rm"));
        check("echo $(q --js", "--js", Some("q"));
        check("log é", "é", Some("log"));
    }
}

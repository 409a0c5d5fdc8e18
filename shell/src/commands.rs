//! The grid commands. Each is one function of its arguments, whatever name it was called by: `q`, `condor_q`, `vo q`, a line of
//! the grid shell.

mod ads;
mod alter;
mod dag;
mod detach;
mod exit;
mod help;
mod jobs;
mod log;
mod login;
mod pool;
mod remove;
mod submit;
mod tail;
mod wait;
mod why;

use std::collections::VecDeque;
use std::ffi::OsString;

use clap::{Args, CommandFactory, Parser};
use serde::Serialize;
use vo_core::JobId;
use vo_wire::control::Pick;

use crate::client::Master;
use crate::error::{Error, ExitCode, Result};
use crate::sessions::Session;
use crate::table::{JsonList, stdout};

/// A grid command.
pub(crate) struct Command {
    /// Its name, and those by which HTCondor's users know it.
    pub(crate) names: &'static [&'static str],
    /// Of its operands, for help.
    pub(crate) operands: &'static str,
    run: fn(Vec<OsString>) -> Result<ExitCode>,
    manual: fn() -> clap::Command,
}

macro_rules! commands {
    ($($names:expr, $operands:literal, $module:ident :: $arguments:ident => $run:path;)*) => {
        /// All grid commands, in the order of `help`.
        pub(crate) const ALL: &[Command] = &[$(Command {
            names: &$names,
            operands: $operands,
            run: |words| $run(parse::<$module::$arguments>(words)?),
            manual: <$module::$arguments as CommandFactory>::command,
        }),*];
    };
}

commands! {
    ["submit", "condor_submit"], "FILE…", submit::Submit => submit::run;
    ["condor_submit_dag"], "FILE…", dag::SubmitDag => dag::submit;
    ["dag"], "[DAG]", dag::Dag => dag::run;
    ["status", "condor_status"], "", pool::Status => pool::status;
    ["q", "condor_q"], "[JOB…]", jobs::Queue => jobs::queue;
    ["wait", "condor_wait"], "[LOG] [JOB…]", wait::Wait => wait::run;
    ["rm", "condor_rm"], "JOB…", remove::Remove => remove::run;
    ["hold", "condor_hold"], "JOB…", alter::Hold => alter::hold;
    ["release", "condor_release"], "JOB…", alter::Release => alter::release;
    ["condor_vacate_job"], "JOB…", alter::Vacate => alter::vacate;
    ["edit"], "JOB… NAME=VALUE…", alter::Edit => alter::edit;
    ["condor_qedit"], "JOB… NAME VALUE…", alter::QEdit => alter::qedit;
    ["condor_prio"], "-p N JOB…", alter::Prio => alter::prio;
    ["retry"], "JOB…", alter::Retry => alter::retry;
    ["history", "condor_history"], "[JOB…]", jobs::History => jobs::history;
    ["log"], "JOB", log::Log => log::run;
    ["condor_tail"], "JOB", tail::Tail => tail::run;
    ["condor_transfer_data"], "JOB…", tail::TransferData => tail::transfer;
    ["why"], "NAME", why::Why => why::run;
    ["sites"], "[SITE…]", pool::Sites => pool::sites;
    ["proxies"], "[SITE…]", pool::Proxies => pool::proxies;
    ["login"], "[SITE…]", login::Login => login::run;
    ["detach"], "", detach::Detach => detach::run;
    ["exit"], "[--force]", exit::Exit => exit::run;
    ["help"], "[COMMAND]", help::Help => help::run;
}

/// HTCondor's tools that there are none of here, and what to do instead.
const ABSENT: &[(&str, &str)] = &[
    ("condor_suspend", "nothing suspends jobs; `hold` stops them, and `condor_vacate_job` makes them wait again"),
    ("condor_continue", "nothing suspends jobs; `release` lets held ones run"),
    ("condor_vacate", "`condor_vacate_job` takes jobs, `status` tells what runs where"),
    ("condor_ssh_to_job", "`log JOB` tells where it runs, `condor_tail JOB` what it writes"),
    ("condor_now", "`edit JOB priority=N` lets a job go first"),
    ("condor_evicted_files", "`why JOB` tells where what it left to its next attempt is kept"),
    ("condor_userlog", "`history` and `log JOB` tell what jobs took, `wait LOG` reads their event log"),
    (
        "condor_userprio",
        "accounting groups share the pool by the weights of vo.conf(5); `q` has the priorities of jobs",
    ),
    ("condor_watch_q", "`wait` shows progress; `q --json` is for programs"),
    ("condor_top", "`status` shows the pool"),
    ("condor_run", "`submit --cpus N PROGRAM ARGUMENTS` runs a command as a job"),
    ("condor_dagman", "`condor_submit_dag` submits a DAG, `dag` shows it"),
    ("condor_reschedule", "jobs are matched as soon as there is a slot"),
];

impl Command {
    /// Its own name.
    pub(crate) fn name(&self) -> &'static str {
        self.names.first().copied().unwrap_or_default()
    }

    /// Its options and operands.
    pub(crate) fn manual(&self) -> clap::Command {
        (self.manual)().name(self.name())
    }
}

/// The command called `name`.
pub(crate) fn find(name: &str) -> Option<&'static Command> {
    ALL.iter().find(|command| command.names.contains(&name))
}

/// Names that are put on PATH: all but `rm`, which there means files, and `exit`, which every shell has.
pub(crate) fn programs() -> impl Iterator<Item = &'static str> {
    ALL.iter()
        .flat_map(|command| command.names.iter().copied())
        .chain(ABSENT.iter().map(|(name, _)| *name))
        .filter(|name| !matches!(*name, "rm" | "exit"))
        .chain(["vo"])
}

/// Runs `words`: the name under which a grid command was called, and its arguments.
pub(crate) fn run(name: &str, arguments: Vec<OsString>) -> Result<ExitCode> {
    let mut words = vec![OsString::from(name)];
    words.extend(arguments);
    if name == "vo" {
        words.remove(0);
        if words.is_empty() {
            words.push("help".into());
        }
    }
    let called = words.first().and_then(|word| word.to_str()).unwrap_or_default().to_owned();
    if called.starts_with("condor_") && words.get(1).is_some_and(|word| word == "-version") {
        println!("vo-login {}", env!("CARGO_PKG_VERSION"));
        return Ok(ExitCode::Success);
    }
    match find(&called) {
        // Of the shells' `rm`, which may mean files.
        None if called == "--means-jobs" => {
            let operands = words.split_off(1);
            let jobs = remove::means_jobs(&operands, |path| path.symlink_metadata().is_ok());
            Ok(if jobs { ExitCode::Success } else { ExitCode::Failure })
        }
        Some(command) => (command.run)(words),
        None if called == "--help" || called == "-h" => help::run(help::Help { command: None }),
        None if called.starts_with("condor_") => {
            let hint = ABSENT.iter().find(|(name, _)| *name == called).map(|(_, hint)| *hint);
            Err(Error::new(ExitCode::Failure, format!("there is no {called} here"))
                .hint(hint.unwrap_or("vo-htcondor(7) lists what there is of HTCondor's tools")))
        }
        None => {
            let names = ALL.iter().map(Command::name);
            let error = Error::usage(format!("there is no grid command {called:?}"));
            Err(error.hint(match vo_lang::nearest(&called, names) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "`help` lists them".into(),
            }))
        }
    }
}

/// Shortest beginning of a long option that stands for it.
const SHORTEST: usize = 3;

/// Parses a command's words.
fn parse<A: Parser>(words: Vec<OsString>) -> Result<A> {
    let manual = A::command();
    let words = doubled(&manual, words);
    refuse_unknown(&manual, &words)?;
    Ok(A::try_parse_from(words).unwrap_or_else(|e| e.exit()))
}

/// HTCondor's long options have one dash (`-nobatch`), case and `_` don't matter in them, and they may be cut short (`-const`); ours may, too. Letters
/// of `-af:jh` become a word of their own, what else follows a colon a value.
fn doubled(manual: &clap::Command, words: Vec<OsString>) -> Vec<OsString> {
    let plain = |name: &str| name.to_ascii_lowercase().replace('_', "-");
    let names = |argument: &clap::Arg| -> Vec<String> {
        let aliases = argument.get_all_aliases().unwrap_or_default();
        argument.get_long().into_iter().chain(aliases).map(str::to_owned).collect()
    };
    let known = |asked: &str| -> Option<String> {
        let all = || {
            manual.get_arguments().flat_map(|argument| names(argument).into_iter().map(move |name| (argument, name)))
        };
        let exact = all().find(|(_, name)| plain(name) == plain(asked)).map(|(_, name)| name);
        // What begins with a short option may be that and its value.
        let mut fitting = all().filter(|(argument, name)| {
            argument.get_short().is_none() && !argument.is_hide_set() && plain(name).starts_with(&plain(asked))
        });
        let abbreviated = || match (fitting.next(), fitting.next()) {
            (Some((_, name)), None) if asked.len() >= SHORTEST => Some(name),
            _ => None,
        };
        exact.or_else(abbreviated)
    };
    // HTCondor writes `-long:json`, `-wide:100`.
    let qualifies = |long: &str| {
        manual.get_arguments().any(|a| a.is_require_equals_set() && names(a).iter().any(|name| name == long))
    };
    let name = words.first().and_then(|word| word.to_str()).unwrap_or_default();
    let called = name.starts_with("condor_") && manual.get_arguments().any(|a| a.get_long() == Some("htcondor"));
    let mut made = Vec::with_capacity(words.len() + 1);
    let mut operands_only = false;
    let mut words = VecDeque::from(words);
    // `-dry-run FILE DESCRIPTION`: of a word alone, the description is meant.
    let file_of = |long: &str, words: &mut VecDeque<OsString>| {
        let takes = called && long == "dry-run" && words.len() > 1;
        let file = takes.then(|| words.pop_front()).flatten();
        file.map(|file| [OsString::from("--dry-run="), file].into_iter().collect::<OsString>())
    };
    while let Some(word) = words.pop_front() {
        if made.len() == 1 && called {
            made.push("--htcondor".into());
        }
        operands_only |= word == "--";
        let text = word.to_str().filter(|w| w.starts_with('-') && w.len() > 1 && !operands_only);
        let Some(text) = text else {
            made.push(word);
            continue;
        };
        let bare = text.trim_start_matches('-');
        let qualified = bare.split_once(':').and_then(|(long, rest)| Some((known(long)?, rest)));
        match qualified {
            Some((long, letters)) if long == "autoformat" || long == "af" => {
                made.extend([OsString::from(format!("--{long}")), format!(":{letters}").into()]);
                continue;
            }
            Some((long, _)) if called && long == "dry-run" => {
                made.push(file_of(&long, &mut words).unwrap_or_else(|| "--dry-run".into()));
                continue;
            }
            Some((long, rest)) if qualifies(&long) => {
                made.push(format!("--{long}={rest}").into());
                continue;
            }
            _ => {}
        }
        let (long, value) = bare.split_once('=').map_or((bare, None), |(long, value)| (long, Some(value)));
        let long = match long {
            _ if text.starts_with("--") => None,
            "help" => Some("help".to_owned()),
            long => known(long),
        };
        made.push(match (long, value) {
            (Some(long), Some(value)) => format!("--{long}={value}").into(),
            (Some(long), None) => file_of(&long, &mut words).unwrap_or_else(|| format!("--{long}").into()),
            (None, _) => word,
        });
    }
    if called && made.len() == 1 {
        made.push("--htcondor".into());
    }
    made
}

/// By HTCondor's names, `-since` is an option of theirs that isn't known here; it must not be read as `-s ince`.
fn refuse_unknown(manual: &clap::Command, words: &[OsString]) -> Result<()> {
    let name = words.first().and_then(|word| word.to_str()).unwrap_or_default();
    if !name.starts_with("condor_") {
        return Ok(());
    }
    let takes_value = |option: &str| {
        let names = |argument: &clap::Arg| {
            let short = argument.get_short().is_some_and(|short| option.strip_prefix('-') == Some(&short.to_string()));
            short || argument.get_long().is_some_and(|long| option.strip_prefix("--") == Some(long))
        };
        let apart = |argument: &clap::Arg| argument.get_action().takes_values() && !argument.is_require_equals_set();
        manual.get_arguments().any(|argument| names(argument) && apart(argument))
    };
    let mut before = "";
    for word in words.iter().skip(1).map(|word| word.to_str().unwrap_or_default()).take_while(|word| *word != "--") {
        let letters = word.strip_prefix('-').filter(|rest| rest.len() > 1 && rest.starts_with(char::is_alphabetic));
        if letters.is_some() && !takes_value(before) {
            let error = Error::usage(format!("{name} has no option {word} here"));
            return Err(error.hint(format!("`{name} --help` lists those that it has; see also vo-htcondor(7)")));
        }
        before = word;
    }
    Ok(())
}

/// Options of every command that asks the master.
#[derive(Args, Debug)]
pub(crate) struct Asking {
    /// Session to ask [default: the one this runs in, else `default`]
    #[arg(short, long, value_name = "NAME")]
    session: Option<String>,
}

impl Asking {
    fn session(&self) -> Result<Session> {
        Session::chosen(self.session.as_deref())
    }

    fn connect(&self) -> Result<Master> {
        self.session()?.connect()
    }
}

/// Where HTCondor's users say that their jobs are: there is one place.
#[derive(Args, Debug, Default)]
pub(crate) struct Place {
    /// Taken for HTCondor's sake: the session or this machine
    #[arg(long, hide = true)]
    name: Option<String>,
    /// Taken for HTCondor's sake: the session or this machine
    #[arg(long, hide = true)]
    pool: Option<String>,
}

impl Place {
    /// Is it the session that is asked?
    fn check(&self, session: &str) -> Result<()> {
        let host = nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned();
        let short = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
        for (option, name) in [("name", &self.name), ("pool", &self.pool)] {
            let Some(name) = name else { continue };
            let at = name.rsplit('@').next().unwrap_or_default();
            let at = at.split(':').next().unwrap_or_default();
            if at != session && at != "localhost" && short(at) != short(&host) {
                let error = Error::usage(format!("-{option}: there is no {name} here, only the session {session}"));
                return Err(error.hint("`-s NAME` asks another session"));
            }
        }
        Ok(())
    }
}

/// Objects, as a JSON array.
fn json_list(objects: impl Iterator<Item = impl Serialize>) -> Result<ExitCode> {
    let mut list = JsonList::new(stdout());
    for object in objects {
        list.push(&object)?;
    }
    list.end().map(|()| ExitCode::Success)
}

/// The names of the session's sites.
pub(crate) fn site_names(master: &mut Master) -> Result<Vec<String>> {
    Ok(pool::site_rows(master)?.into_iter().map(|row| row.name).collect())
}

/// Reads `12` (a cluster), `12.3` (a job), `12-15` (clusters) or `12.3-9` (jobs).
pub(crate) fn pick(word: &str) -> Result<Pick, String> {
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u32>().ok()).flatten();
    let (first, last) = word.split_once('-').map_or((word, None), |(first, last)| (first, Some(last)));
    let expected = "expected a cluster such as 12, a job such as 12.3, or several such as 12-15 or 12.3-9";
    let picked = match (first.parse::<JobId>(), number(first), last.map(number)) {
        (Ok(job), _, None) => Some(Pick::Job(job)),
        (Ok(job), _, Some(Some(last))) if last >= job.proc => Some(Pick::Jobs(job, last)),
        (Err(_), Some(cluster), None) => Some(Pick::Cluster(cluster)),
        (Err(_), Some(cluster), Some(Some(last))) if last >= cluster => Some(Pick::Clusters(cluster, last)),
        _ => None,
    };
    picked.ok_or_else(|| expected.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks() {
        assert_eq!(pick("12"), Ok(Pick::Cluster(12)));
        assert_eq!(pick("12.3"), Ok(Pick::Job(JobId { cluster: 12, proc: 3 })));
        assert_eq!(pick("12-14"), Ok(Pick::Clusters(12, 14)));
        assert_eq!(pick("12.3-5"), Ok(Pick::Jobs(JobId { cluster: 12, proc: 3 }, 5)));
        for bad in
            ["", "12.", ".3", "a", "-1", "+1", "12.3.4", "99999999999", "14-12", "12.5-3", "12-", "12-a", "1-2-3"]
        {
            assert!(pick(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_name_is_one_command_and_its_manual_is_sound() {
        let mut names: Vec<&str> = ALL.iter().flat_map(|c| c.names.iter().copied()).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
        for command in ALL {
            command.manual().debug_assert();
        }
    }

    #[test]
    fn an_option_of_htcondors_that_is_unknown_is_refused_by_its_name() {
        let refused = |line: &str| {
            let words = line.split(' ').map(OsString::from).collect();
            let words = doubled(&jobs::History::command(), words);
            refuse_unknown(&jobs::History::command(), &words).is_err()
        };
        for line in ["condor_history -file f", "condor_history 12 -epochs", "condor_history -long -search x"] {
            assert!(refused(line), "{line}");
        }
        for line in [
            "condor_history -limit 5",
            "condor_history -s other 12",
            "condor_history -constraint -since",
            "condor_history -since 5.0 -scanlimit 3 -xml",
            "condor_history -long:json -wide:60",
            "condor_history -const -5",
            "condor_history -af:jh ExitCode",
            "condor_history --xml",
            "history -file f",
        ] {
            assert!(!refused(line), "{line}");
        }
    }

    #[test]
    fn one_dash_serves_for_two() {
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        let queue: jobs::Queue = parse(words(&["q", "-nobatch", "-json", "12"])).unwrap_or_else(|e| panic!("{e}"));
        assert!(queue.nobatch && queue.json);
        assert_eq!(queue.picks, [jobs::Whose::Jobs(Pick::Cluster(12))]);
        let history: jobs::History = parse(words(&["history", "-limit=3"])).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(history.limit, Some(3));
        let check = |line: &str, expected: &str| {
            let made = doubled(&jobs::Queue::command(), words(&line.split(' ').collect::<Vec<_>>()));
            let made: Vec<_> = made.iter().map(|word| word.to_string_lossy()).collect();
            assert_eq!(made.join(" "), expected);
        };
        check("q -const true -af:jh A B", "q --constraint true --af :jh A B");
        check("q -Auto A", "q --autoformat A");
        check("q --autoformat:l A", "q --autoformat :l A");
        check("q -long:json -wide:60 -better-ana:summary 1", "q --long=json --wide=60 --better-analyze=summary 1");
        check("q -co true -l 12", "q -co true -l 12");
        check("q -- -hold -const", "q -- -hold -const");
        check("condor_q", "condor_q --htcondor");
        check("condor_q -help", "condor_q --htcondor --help");
        check("condor_q -json 12", "condor_q --htcondor --json 12");
        let dry = |line: &str, expected: &str| {
            let made = doubled(&submit::Submit::command(), words(&line.split(' ').collect::<Vec<_>>()));
            let made: Vec<_> = made.iter().map(|word| word.to_string_lossy()).collect();
            assert_eq!(made.join(" "), expected);
        };
        dry("condor_submit -dry-run - a.sub", "condor_submit --htcondor --dry-run=- a.sub");
        dry("condor_submit -dry:full ads a.sub x=1", "condor_submit --htcondor --dry-run=ads a.sub x=1");
        dry("condor_submit -dry-run a.sub", "condor_submit --htcondor --dry-run a.sub");
        dry("condor_submit a.sub -dry-run=ads", "condor_submit --htcondor a.sub --dry-run=ads");
        dry("submit -dry-run a.sub b.sub", "submit --dry-run a.sub b.sub");
    }
}

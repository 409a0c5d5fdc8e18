//! `condor_submit_dag` and `dag`: workflows.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::io::{IsTerminal, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Parser;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use vo_core::JobId;
use vo_core::dag::State;
use vo_core::pool::Told;
use vo_lang::dag::{self as lang, Context, Env, Input};
use vo_wire::control::{Done, Pick};
use vo_wire::dag::{
    Bundle, Bytes, DagNode, DagNodes, DagRow, DagRows, DagSubmitted, File, ListDags, Options, Order, OrderDag, ShowDag,
    SubmitDag as Request, WatchDag,
};
use vo_wire::frame::Message;

use super::Asking;
use crate::client::{Master, read};
use crate::error::{Error, ExitCode, Result};
use crate::table::{JsonList, Side, Table, now_ms, span, stdout};

/// Idle jobs of a DAG above which no node is submitted, unless said otherwise; as DAGMAN_MAX_JOBS_IDLE.
const MAX_IDLE: u32 = 1000;
/// Scripts of each kind at a time; as DAGMAN_MAX_PRE_SCRIPTS and its kin.
const MAX_SCRIPTS: u32 = 20;
/// Nodes of a DAG shown at once, unless `--nodes` asks for all.
const SHOWN: usize = 200;

/// Submits a DAG: jobs that wait for each other
///
/// Several files make one DAG. Nodes that a rescue file beside the first one says are done are not run again, unless with -f. Names of
/// options may be written as HTCondor's, with one dash and capitals.
#[derive(Parser, Debug)]
pub(crate) struct SubmitDag {
    #[command(flatten)]
    asking: Asking,
    /// Nodes with jobs in the queue, at most; 0 is no limit
    #[arg(long, value_name = "N", alias = "max-jobs")]
    maxjobs: Option<u32>,
    /// Idle jobs above which no node is submitted; 0 is no limit [default: 1000]
    #[arg(long, value_name = "N", alias = "max-idle")]
    maxidle: Option<u32>,
    /// PRE scripts at a time; 0 is no limit [default: 20]
    #[arg(long, value_name = "N", alias = "max-pre")]
    maxpre: Option<u32>,
    /// POST scripts at a time; 0 is no limit [default: 20]
    #[arg(long, value_name = "N", alias = "max-post")]
    maxpost: Option<u32>,
    /// HOLD scripts at a time; 0 is no limit [default: 20]
    #[arg(long, value_name = "N", alias = "max-hold")]
    maxhold: Option<u32>,
    /// Run all of it, whatever rescue files say: they are renamed to `*.old`
    #[arg(short, long)]
    force: bool,
    /// Go on from this rescue file
    #[arg(long, value_name = "N", alias = "do-rescue-from", conflicts_with = "force")]
    dorescuefrom: Option<u32>,
    /// Go on from this file, whatever its name
    #[arg(long, value_name = "FILE", alias = "rescue-file", conflicts_with_all = ["force", "dorescuefrom", "load_save"])]
    rescuefile: Option<PathBuf>,
    /// 0: pass over rescue files
    #[arg(long, value_name = "0|1")]
    autorescue: Option<u8>,
    /// Go on from this save point
    #[arg(long, value_name = "FILE", alias = "load-save", conflicts_with = "dorescuefrom")]
    load_save: Option<PathBuf>,
    /// Paths in each DAG file count from its own directory
    #[arg(long, alias = "use-dag-dir")]
    usedagdir: bool,
    /// Added to every node's priority
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    priority: Option<i32>,
    /// Name of the batch of its jobs
    #[arg(long, value_name = "NAME")]
    batch_name: Option<String>,
    /// An attribute of the ad of the DAG's own job: `+NAME = VALUE`
    #[arg(short, long, value_name = "COMMAND")]
    append: Vec<String>,
    /// A file with such lines
    #[arg(long, value_name = "FILE", alias = "insert-sub-file")]
    insert_sub_file: Option<PathBuf>,
    /// Environment of its scripts and submissions, besides that of this command: `NAME=VALUE;NAME=VALUE`
    #[arg(long, value_name = "VARIABLES", alias = "insert-env")]
    insert_env: Vec<String>,
    /// Directory of its `.dagman.out`
    #[arg(long, value_name = "DIRECTORY", alias = "outfile-dir")]
    outfile_dir: Option<PathBuf>,
    /// Run POST scripts after PRE scripts that failed, too
    #[arg(long, alias = "always-run-post")]
    alwaysrunpost: bool,
    /// Don't, whatever the configuration says
    #[arg(long, alias = "dont-always-run-post", conflicts_with = "alwaysrunpost")]
    dontalwaysrunpost: bool,
    /// DAGMan configuration, besides what CONFIG names
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check it, and submit nothing
    #[arg(long, alias = "no-submit")]
    no_submit: bool,
    /// Print the id of the DAG's job alone
    #[arg(long, conflicts_with = "json")]
    terse: bool,
    /// A JSON array with the DAG's number
    #[arg(long)]
    json: bool,
    /// Send a mail when it has ended: `complete`, `error` for when it has failed, `always` for when it was removed, too, or `never` (the default)
    #[arg(long, value_name = "WHEN", value_parser = notification)]
    notification: Option<Notification>,
    /// Let its nodes' jobs send the mails that their descriptions ask for
    #[arg(long, visible_alias = "dont_suppress_notification")]
    mail_nodes: bool,
    /// The node of a DAG that this is, as DAG:NODE:TRY
    #[arg(long, value_name = "TAG", hide = true)]
    dag_node: Option<String>,
    /// Without effect here
    #[arg(long, hide = true, value_name = "PROGRAM")]
    dagman: Option<PathBuf>,
    /// As it is anyway, or of no meaning here
    #[arg(long, hide = true, num_args = 1, aliases = ["include_env", "debug", "lockfile", "schedd-daemon-ad-file", "schedd-address-file", "submitmethod"])]
    same_value: Vec<String>,
    /// As it is anyway, or of no meaning here
    #[arg(short = 'v', long, hide = true, action = clap::ArgAction::Count, aliases = ["verbose", "import_env", "update_submit", "do_recurse", "no_recurse", "suppress_notification", "allowversionmismatch"])]
    same: u8,
    /// Refused
    #[arg(long, hide = true, aliases = ["dorecov", "dorecovery"])]
    recover: bool,
    /// Refused
    #[arg(long, hide = true)]
    valgrind: bool,
    /// Refused
    #[arg(long, hide = true, value_name = "NAME")]
    remote: Option<String>,
    /// DAG files
    #[arg(value_name = "FILE", required = true)]
    files: Vec<OsString>,
}

impl SubmitDag {
    /// `submit FILE.dag`.
    pub(super) fn plain(asking: Asking, files: Vec<OsString>, batch_name: Option<String>, json: bool) -> SubmitDag {
        SubmitDag {
            asking,
            maxjobs: None,
            maxidle: None,
            maxpre: None,
            maxpost: None,
            maxhold: None,
            force: false,
            dorescuefrom: None,
            autorescue: None,
            load_save: None,
            usedagdir: false,
            priority: None,
            batch_name,
            append: Vec::new(),
            insert_sub_file: None,
            insert_env: Vec::new(),
            outfile_dir: None,
            alwaysrunpost: false,
            dontalwaysrunpost: false,
            rescuefile: None,
            config: None,
            no_submit: false,
            terse: false,
            json,
            notification: None,
            mail_nodes: false,
            dag_node: None,
            dagman: None,
            same_value: Vec::new(),
            same: 0,
            recover: false,
            valgrind: false,
            remote: None,
            files,
        }
    }

    /// What DAGs within it are submitted with, too.
    fn deep(&self) -> Vec<String> {
        let mut words = Vec::new();
        let mut flag = |on: bool, word: &str| words.extend(on.then(|| word.to_owned()));
        flag(self.force, "--force");
        flag(self.usedagdir, "--usedagdir");
        flag(self.mail_nodes, "--mail-nodes");
        if let Some(batch) = &self.batch_name {
            words.extend(["--batch-name".to_owned(), batch.clone()]);
        }
        if let Some(auto) = self.autorescue {
            words.extend(["--autorescue".to_owned(), auto.to_string()]);
        }
        if let Some(dir) = &self.outfile_dir {
            words.extend(["--outfile-dir".to_owned(), dir.to_string_lossy().into_owned()]);
        }
        words.extend(self.insert_env.iter().flat_map(|entries| ["--insert-env".to_owned(), entries.clone()]));
        words
    }
}

/// What a DAG tells by mail.
#[derive(Clone, Copy, Debug)]
struct Notification(Option<Told>);

fn notification(text: &str) -> std::result::Result<Notification, &'static str> {
    Ok(Notification(match text.to_ascii_lowercase().as_str() {
        "never" => None,
        "always" => Some(Told::Everything),
        "complete" => Some(Told::Ends),
        "error" => Some(Told::Failures),
        _ => return Err("expected never, complete, error or always"),
    }))
}

/// Does `submit` take the file for a DAG?
pub(super) fn is_dag(file: &OsStr) -> bool {
    Path::new(file).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("dag"))
}

/// A DAG, as `--json` tells that it was submitted.
#[derive(Serialize)]
struct SubmittedJson {
    dag: u32,
    nodes: u32,
}

/// A DAG and the texts that it is made of.
struct Prepared {
    dag: lang::Dag,
    files: Vec<File>,
    read: Vec<File>,
}

fn text(path: &str) -> std::result::Result<Vec<u8>, String> {
    fs::read(path).map_err(|e| e.to_string())
}

/// Reads DAG files, and says what is wrong with them.
fn prepare(names: &[OsString], use_dag_dir: bool, rescue: Option<&File>, any_names: bool) -> Result<Prepared> {
    let mut files = Vec::new();
    for name in names {
        let shown = name.to_str().ok_or_else(|| Error::usage(format!("{} is no UTF-8 name", name.display())))?;
        let text =
            fs::read(name).map_err(|e| Error::new(ExitCode::Refused, format!("cannot read {shown}")).because(e))?;
        let directory = Path::new(shown).parent().filter(|_| use_dag_dir).map(|dir| dir.to_string_lossy().into_owned());
        files.push(File { name: shown.to_owned(), text, directory: directory.unwrap_or_default() });
    }
    let seen = std::cell::RefCell::new(BTreeMap::new());
    let read = |path: &str| {
        let text = text(path)?;
        seen.borrow_mut().insert(path.to_owned(), text.clone());
        Ok(text)
    };
    let input = |file: &'_ File| -> (String, Vec<u8>, String) {
        (file.name.clone(), file.text.clone(), file.directory.clone())
    };
    let (texts, rescue): (Vec<_>, Option<_>) = (files.iter().map(input).collect(), rescue.map(input));
    let parsed = {
        let inputs: Vec<Input<'_>> =
            texts.iter().map(|(name, text, directory)| Input { name, text, directory }).collect();
        let rescue = rescue.as_ref().map(|(name, text, directory)| Input { name, text, directory });
        lang::parse(&inputs, rescue.as_ref(), &Context { read: &read, any_names })
    };
    let shown = names.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    match parsed {
        Ok(dag) => {
            let read = seen.into_inner().into_iter().map(|(name, text)| File { name, text, directory: String::new() });
            Ok(Prepared { dag, files, read: read.collect() })
        }
        Err(findings) => {
            findings.iter().for_each(|finding| eprintln!("{finding}"));
            Err(Error::new(ExitCode::Refused, format!("{shown} can't run as it is")))
        }
    }
}

pub(super) fn submit(arguments: SubmitDag) -> Result<ExitCode> {
    let first = arguments.files.first().cloned().unwrap_or_default();
    let shown = first.to_string_lossy().into_owned();
    let here = std::env::current_dir().map_err(|e| Error::system("cannot tell the current directory", e))?;
    if arguments.dagman.is_some() {
        eprintln!("warning: -dagman has no effect here: the session runs the DAG");
    }
    refuse(&arguments)?;
    let rescue = rescue(&arguments, &first)?;
    if let Some(rescue) = &rescue {
        eprintln!("{} says what is done; -f would run all of it again.", rescue.name);
    }
    let prepared = prepare(&arguments.files, arguments.usedagdir, rescue.as_ref(), false)?;
    prepared.dag.warnings.iter().for_each(|warning| eprintln!("{warning}"));
    let options = options(&arguments, &prepared.dag)?;
    let environment = environment(&prepared.dag, &arguments.insert_env)?;
    if arguments.no_submit {
        println!("{shown}: {} node(s), nothing is wrong with it.", prepared.dag.written().count());
        return Ok(ExitCode::Success);
    }
    let session = arguments.asking.session()?;
    let mut master = session.connect()?;
    // A master that was killed asks for a node's DAG again.
    let same = |row: &DagRow| arguments.dag_node.is_some() && row.tag == arguments.dag_node;
    if let Some(row) = rows(&mut master)?.into_iter().find(same) {
        return super::json_list([SubmittedJson { dag: row.dag, nodes: row.total() }].iter());
    }
    let lock = lock(&first, &session.dir, &mut master)?;
    if arguments.force {
        set_aside(&first)?;
    }
    let bundle = Bundle {
        directory: here.into_os_string().into_vec(),
        files: prepared.files,
        read: prepared.read,
        rescue,
        environment,
        options,
        tag: arguments.dag_node.clone(),
        submitted_ms: now_ms(),
    };
    let name = format!("dag-{}", std::process::id());
    let path = session.dir.join(&name);
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all(&minicbor::to_vec(&bundle).map_err(std::io::Error::other)?)?;
        file.sync_all()
    };
    write().map_err(|e| Error::system(format!("cannot write {}", path.display()), e))?;
    let DagSubmitted { dag, nodes, unmailed } = master.ask(&Request { bundle: name })?;
    if let Some(why) = unmailed {
        super::submit::tell_unmailed(&format!("DAG {dag}"), &why);
    }
    // What is written after the DAG was taken may say less than the master knows: it is only for the next one who comes.
    let _ = fs::write(&lock, format!("vo-login\n{}\n{dag}\n", session.dir.display()));
    if arguments.json {
        return super::json_list([SubmittedJson { dag, nodes }].iter());
    }
    if arguments.terse {
        println!("{dag}.0 - {dag}.0");
        return Ok(ExitCode::Success);
    }
    println!("DAG {dag}: {nodes} node(s) of {shown} submitted.\n1 job(s) submitted to cluster {dag}.");
    Ok(ExitCode::Success)
}

/// `name` with `suffix`.
fn with_suffix(name: &OsStr, suffix: &str) -> PathBuf {
    let mut name = name.to_owned();
    name.push(suffix);
    name.into()
}

/// The names of the files beside `file`.
fn beside(file: &Path) -> Vec<String> {
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::read_dir(dir)
        .map_or_else(|_| Vec::new(), |entries| entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect())
}

fn base_name(file: &OsStr) -> String {
    Path::new(file).file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Options that would change what becomes of the DAG, and can't be done here.
fn refuse(arguments: &SubmitDag) -> Result<()> {
    let (option, hint) = match arguments {
        SubmitDag { recover: true, .. } => (
            "-dorecov",
            "the session brings its DAGs back by itself; of others, -dorescuefrom goes on from a rescue file",
        ),
        SubmitDag { valgrind: true, .. } => ("-valgrind", "there is no condor_dagman here: the session runs the DAG"),
        SubmitDag { remote: Some(_), .. } => ("-remote", "`-s NAME` submits to another session"),
        _ => return Ok(()),
    };
    Err(Error::usage(format!("condor_submit_dag has no option {option} here")).hint(hint))
}

/// Attributes of the DAG's own job that the command line gives; of other commands, that they do nothing is told.
fn attributes(arguments: &SubmitDag, dag: &lang::Dag) -> Result<Vec<String>> {
    let mut lines = arguments.append.clone();
    if let Some(path) = &arguments.insert_sub_file {
        let text = fs::read_to_string(path)
            .map_err(|e| Error::new(ExitCode::Refused, format!("cannot read {}", path.display())).because(e))?;
        let of = |line: &&str| !line.is_empty() && !line.starts_with('#');
        lines.extend(text.lines().map(str::trim).filter(of).map(str::to_owned));
    }
    lines.retain(|line| {
        let name = line.split('=').next().unwrap_or_default().trim().to_ascii_lowercase();
        let attribute = line.contains('=') && (name.starts_with('+') || name.starts_with("my."));
        if !attribute {
            eprintln!("warning: {line:?} has no effect here: of the DAG's own job only attributes can be set, as +NAME = VALUE");
        }
        attribute
    });
    for line in dag.attributes.iter().chain(&lines) {
        let value = line.split_once('=').map(|(_, value)| value.trim());
        if let Some(why) = value.map_or(Some("it has no value".to_owned()), |value| super::ads::expression(value).err())
        {
            return Err(Error::new(ExitCode::Refused, format!("attribute `{line}` of the DAG: {why}"))
                .hint("a string stands in double quotes"));
        }
    }
    Ok(lines)
}

/// The rescue file or save point that the DAG goes on from.
fn rescue(arguments: &SubmitDag, first: &OsStr) -> Result<Option<File>> {
    let multi = arguments.files.len() > 1;
    let path = match (&arguments.load_save, arguments.dorescuefrom) {
        _ if arguments.rescuefile.is_some() => arguments.rescuefile.clone(),
        (Some(save), _) if save.components().count() > 1 => Some(save.clone()),
        (Some(save), _) => Some(Path::new(first).with_file_name(lang::SAVE_POINT_DIRECTORY).join(save)),
        (None, Some(number)) => Some(PathBuf::from(lang::rescue_name(&first.to_string_lossy(), multi, number))),
        (None, None) if arguments.force || arguments.autorescue == Some(0) => None,
        (None, None) => {
            let names = beside(Path::new(first));
            let last = lang::last_rescue(&base_name(first), multi, names.iter().map(String::as_str));
            last.map(|number| lang::rescue_name(&first.to_string_lossy(), multi, number).into())
        }
    };
    let Some(path) = path else { return Ok(None) };
    let text = fs::read(&path)
        .map_err(|e| Error::new(ExitCode::Refused, format!("cannot read {}", path.display())).because(e))?;
    Ok(Some(File { name: path.to_string_lossy().into_owned(), text, directory: String::new() }))
}

/// Renames rescue files, so that none is used.
fn set_aside(first: &OsStr) -> Result<()> {
    let name = base_name(first);
    for other in beside(Path::new(first)) {
        let multi = lang::last_rescue(&name, true, [other.as_str()]).is_some();
        if multi || lang::last_rescue(&name, false, [other.as_str()]).is_some() {
            let path = Path::new(first).with_file_name(&other);
            fs::rename(&path, with_suffix(path.as_os_str(), ".old"))
                .map_err(|e| Error::system(format!("cannot rename {}", path.display()), e))?;
        }
    }
    Ok(())
}

/// The lock file, when no other run of the DAG has it.
fn lock(first: &OsStr, session: &Path, master: &mut Master) -> Result<PathBuf> {
    let path = with_suffix(first, ".lock");
    let Ok(held) = fs::read_to_string(&path) else { return Ok(path) };
    let mut lines = held.lines();
    let (ours, dir, dag) = (lines.next() == Some("vo-login"), lines.next(), lines.next());
    let (Some(dir), Some(dag), true) = (dir, dag.and_then(|dag| dag.parse::<u32>().ok()), ours) else {
        return Err(Error::new(ExitCode::Refused, format!("{} is held by another program", path.display()))
            .hint("if no DAGMan runs this DAG any more, remove the file"));
    };
    let runs = if Path::new(dir) == session {
        rows(master)?.iter().any(|row| row.dag == dag && row.code.is_none())
    } else {
        Path::new(dir).join("dags").join(dag.to_string()).join("bundle").exists()
    };
    if runs {
        let message = format!("{} runs already, as DAG {dag} of the session in {dir}", first.display());
        return Err(Error::new(ExitCode::Refused, message).hint("`dag` shows it; `dag rm` removes it"));
    }
    Ok(path)
}

/// The environment of the DAG's scripts and submissions: this one, and what `ENV SET` and the command line add.
fn environment(dag: &lang::Dag, added: &[String]) -> Result<Vec<(Bytes, Bytes)>> {
    let ours = |name: &OsString| name.as_bytes().starts_with(b"VO_SESSION");
    let all =
        std::env::vars_os().filter(|(name, _)| !ours(name)).map(|(name, value)| (name.into_vec(), value.into_vec()));
    let mut all: BTreeMap<Vec<u8>, Vec<u8>> = all.collect();
    let set = dag.env.iter().filter_map(|env| match env {
        Env::Set(entries) => Some(("ENV SET", entries)),
        Env::Get(_) => None,
    });
    for (command, entries) in set.chain(added.iter().map(|entries| ("-insert_env", entries))) {
        // Its first character may name another one that parts them.
        let by = entries.chars().next().filter(|c| !c.is_alphanumeric() && *c != '_' && *c != ' ').unwrap_or(';');
        for entry in entries.split(by).map(str::trim).filter(|entry| !entry.is_empty()) {
            let (name, value) = entry.split_once('=').ok_or_else(|| {
                Error::new(ExitCode::Refused, format!("`{command} {entry}` has no value"))
                    .hint(format!("{command} NAME=value;NAME=value"))
            })?;
            all.insert(name.trim().into(), value.into());
        }
    }
    Ok(all.into_iter().map(|(name, value)| (Bytes(name), Bytes(value))).collect())
}

/// What options and DAGMan configuration files ask for; options win.
fn options(arguments: &SubmitDag, dag: &lang::Dag) -> Result<Options> {
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    for path in dag.config.iter().map(PathBuf::from).chain(arguments.config.clone()) {
        let text = fs::read_to_string(&path)
            .map_err(|e| Error::new(ExitCode::Refused, format!("cannot read {}", path.display())).because(e))?;
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some((name, value)) = line.split_once('=') {
                known.insert(name.trim().to_ascii_uppercase(), value.trim().to_owned());
            }
        }
    }
    let mut take = |name: &str| known.remove(&format!("DAGMAN_{name}"));
    let number = |value: Option<String>| value.and_then(|value| value.parse::<u32>().ok());
    let yes = |value: Option<String>| {
        value.map(|value| matches!(value.to_ascii_lowercase().as_str(), "true" | "yes" | "1" | "t" | "y"))
    };
    let options = Options {
        max_jobs: arguments.maxjobs.or(number(take("MAX_JOBS_SUBMITTED"))),
        max_idle: arguments.maxidle.or(number(take("MAX_JOBS_IDLE"))).or(Some(MAX_IDLE)),
        max_pre: arguments.maxpre.or(number(take("MAX_PRE_SCRIPTS"))).or(Some(MAX_SCRIPTS)),
        max_post: arguments.maxpost.or(number(take("MAX_POST_SCRIPTS"))).or(Some(MAX_SCRIPTS)),
        max_hold: arguments.maxhold.or(number(take("MAX_HOLD_SCRIPTS"))).or(Some(MAX_SCRIPTS)),
        always_post: (yes(take("ALWAYS_RUN_POST")).unwrap_or(false) && !arguments.dontalwaysrunpost)
            || arguments.alwaysrunpost,
        depth_first: yes(take("SUBMIT_DEPTH_FIRST")).unwrap_or(false),
        retry_first: yes(take("RETRY_NODE_FIRST")).unwrap_or(false),
        append_vars: yes(take("DEFAULT_APPEND_VARS")).unwrap_or(false),
        keep_retries: yes(take("RESET_RETRIES_UPON_RESCUE")).is_some_and(|reset| !reset),
        max_rescue: number(take("MAX_RESCUE_NUM")),
        tolerance: number(take("NODE_JOB_FAILURE_TOLERANCE")).unwrap_or(0),
        keep_jobs: yes(take("REMOVE_JOB_LIST_ON_FAILURE")).is_some_and(|remove| !remove),
        any_names: false,
        priority: arguments.priority.unwrap_or(0),
        batch_name: arguments.batch_name.clone(),
        append: attributes(arguments, dag)?,
        deep: arguments.deep(),
        mail: arguments.notification.and_then(|Notification(told)| told),
        mail_nodes: arguments.mail_nodes || yes(take("SUPPRESS_NOTIFICATION")).is_some_and(|suppress| !suppress),
        out_dir: arguments.outfile_dir.as_ref().map(|dir| dir.to_string_lossy().into_owned()),
    };
    for name in known.keys().filter(|name| name.starts_with("DAGMAN_")) {
        eprintln!("warning: {name} has no effect here");
    }
    Ok(options)
}

/// Shows DAGs: all, or the nodes of one
///
/// `dag` lists them, `dag DAG` shows one as a tree with a bar. `dag wait DAG` waits until it has ended; the exit code is 0 if it
/// succeeded, 7 if not. `dag rm DAG` removes it with its jobs and writes a rescue file; `dag hold` begins nothing new until `dag release`;
/// `dag halt` begins nothing new and ends it when what runs has ended, unless `dag resume` comes before. `dag check FILE…` says what is
/// wrong with DAG files. A DAG is named by its number or its file.
#[derive(Parser, Debug)]
pub(crate) struct Dag {
    #[command(flatten)]
    asking: Asking,
    /// A JSON array
    #[arg(long)]
    json: bool,
    /// All nodes of a large DAG
    #[arg(long)]
    nodes: bool,
    /// Wait no longer than this, such as 2h30m
    #[arg(long, value_name = "TIME", value_parser = duration)]
    timeout: Option<Duration>,
    /// A DAG; or wait, rm, hold, release, halt, resume or check, and what it is for
    #[arg(value_name = "DAG")]
    words: Vec<OsString>,
}

fn duration(text: &str) -> std::result::Result<Duration, String> {
    vo_lang::parse_duration(text).map_err(|e| format!("expected {e}"))
}

pub(super) fn run(arguments: Dag) -> Result<ExitCode> {
    let (action, rest) = match arguments.words.split_first() {
        None => return list(&arguments),
        Some((first, rest)) => (first.to_string_lossy().into_owned(), rest),
    };
    let order = match action.as_str() {
        "check" => return check(rest, arguments.json),
        "wait" => return wait(&arguments, rest),
        "rm" | "remove" => Order::Remove,
        "hold" => Order::Hold,
        "release" => Order::Release,
        "halt" => Order::Halt,
        "resume" => Order::Resume,
        _ => return show(&arguments, &arguments.words),
    };
    let mut master = arguments.asking.connect()?;
    for dag in chosen(&mut master, rest)? {
        master.send(&OrderDag { dag: dag.dag, order })?;
        until_done(&mut master, |_| Ok(()))?;
        let what = match order {
            Order::Remove => "is being removed",
            Order::Hold => "is held",
            Order::Release => "goes on",
            Order::Halt => "is halted",
            Order::Resume => "goes on",
        };
        println!("DAG {} {what}.", dag.dag);
    }
    Ok(ExitCode::Success)
}

fn until_done(master: &mut Master, mut each: impl FnMut(&vo_wire::Frame) -> Result<()>) -> Result<()> {
    loop {
        let frame = master.frame()?;
        if frame.kind == Done::KIND {
            return Ok(());
        }
        each(&frame)?;
    }
}

fn rows(master: &mut Master) -> Result<Vec<DagRow>> {
    let mut rows = Vec::new();
    master.send(&ListDags {})?;
    until_done(master, |frame| {
        rows.extend(read::<DagRows>(frame)?.rows);
        Ok(())
    })?;
    Ok(rows)
}

/// The DAGs that words name: numbers, or files (of several runs the last).
fn chosen(master: &mut Master, words: &[OsString]) -> Result<Vec<DagRow>> {
    let rows = rows(master)?;
    if words.is_empty() {
        return Err(Error::usage("no DAG is named").hint("`dag` lists them"));
    }
    let here = std::env::current_dir().unwrap_or_default();
    let each = |word: &OsString| {
        let text = word.to_string_lossy();
        let number = text.strip_prefix("dag").unwrap_or(&text).parse::<u32>().ok();
        let path = here.join(word);
        let file = |row: &&DagRow| {
            let whole = Path::new(OsStr::from_bytes(&row.directory)).join(&row.file);
            whole == path || row.file == text
        };
        let found = rows.iter().rev().find(|row| Some(row.dag) == number).or_else(|| rows.iter().rev().find(file));
        found
            .cloned()
            .ok_or_else(|| Error::usage(format!("there is no DAG {text} in this session")).hint("`dag` lists them"))
    };
    words.iter().map(each).collect()
}

#[derive(Serialize)]
struct DagJson<'a> {
    dag: u32,
    file: &'a str,
    directory: String,
    state: &'static str,
    exit_code: Option<i32>,
    submitted_ms: u64,
    ended_ms: Option<u64>,
    nodes: u32,
    done: u32,
    queued: u32,
    ready: u32,
    pre: u32,
    post: u32,
    unready: u32,
    failed: u32,
    futile: u32,
    rescue: Option<&'a str>,
    problem: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_list: Option<Vec<NodeJson<'a>>>,
}

#[derive(Serialize)]
struct NodeJson<'a> {
    node: &'a str,
    state: &'static str,
    exit_code: Option<i32>,
    retry: u32,
    max_retries: u32,
    cluster: Option<u32>,
    dag: Option<u32>,
    parents: Vec<&'a str>,
}

fn state(row: &DagRow) -> &'static str {
    match (row.code, row.status) {
        (Some(0), _) => "done",
        (Some(_), 4) => "removed",
        (Some(_), 3) => "aborted",
        (Some(_), 6) => "halted",
        (Some(_), _) => "failed",
        (None, _) if row.paused => "held",
        (None, _) if row.halted => "halting",
        (None, 4) => "removing",
        (None, 3) => "aborting",
        (None, _) => "running",
    }
}

fn node_state(state: State) -> &'static str {
    match state {
        State::NotReady => "unready",
        State::Ready => "ready",
        State::Pre => "pre",
        State::Submitting | State::Submitted => "queued",
        State::Post => "post",
        State::Done => "done",
        State::Failed => "failed",
        State::Futile => "futile",
    }
}

fn dag_json<'a>(row: &'a DagRow, nodes: Option<&'a [DagNode]>) -> DagJson<'a> {
    let node = |node: &'a DagNode| NodeJson {
        node: &node.name,
        state: node_state(node.state),
        exit_code: matches!(node.state, State::Done | State::Failed).then_some(node.code),
        retry: node.retries.0,
        max_retries: node.retries.1,
        cluster: node.cluster.filter(|_| !node.subdag),
        dag: node.cluster.filter(|_| node.subdag),
        parents: node.parents.iter().filter_map(|p| Some(nodes?.get(*p as usize)?.name.as_str())).collect(),
    };
    DagJson {
        dag: row.dag,
        file: &row.file,
        directory: String::from_utf8_lossy(&row.directory).into_owned(),
        state: state(row),
        exit_code: row.code,
        submitted_ms: row.submitted_ms,
        ended_ms: row.ended_ms,
        nodes: row.total(),
        done: row.of(State::Done),
        queued: row.of(State::Submitted) + row.of(State::Submitting),
        ready: row.of(State::Ready),
        pre: row.of(State::Pre),
        post: row.of(State::Post),
        unready: row.of(State::NotReady),
        failed: row.of(State::Failed),
        futile: row.of(State::Futile),
        rescue: row.rescue.as_deref(),
        problem: row.problem.as_deref(),
        node_list: nodes.map(|nodes| nodes.iter().map(node).collect()),
    }
}

fn list(arguments: &Dag) -> Result<ExitCode> {
    let mut master = arguments.asking.connect()?;
    let rows = rows(&mut master)?;
    if arguments.json {
        return super::json_list(rows.iter().map(|row| dag_json(row, None)));
    }
    let mut table = Table::new(&[
        ("DAG", Side::Right),
        ("STATE", Side::Left),
        ("DONE", Side::Right),
        ("QUEUED", Side::Right),
        ("FAILED", Side::Right),
        ("NODES", Side::Right),
        ("AGE", Side::Right),
        ("FILE", Side::Left),
    ]);
    for row in &rows {
        let age = row.ended_ms.unwrap_or_else(now_ms).saturating_sub(row.submitted_ms);
        table.row(vec![
            row.dag.to_string(),
            state(row).to_owned(),
            row.of(State::Done).to_string(),
            (row.of(State::Submitted) + row.of(State::Submitting)).to_string(),
            row.of(State::Failed).to_string(),
            row.total().to_string(),
            span(age),
            row.file.clone(),
        ]);
    }
    table.write(&mut stdout()).map_err(|e| Error::system("cannot write to standard output", e))?;
    Ok(ExitCode::Success)
}

fn show(arguments: &Dag, words: &[OsString]) -> Result<ExitCode> {
    let mut master = arguments.asking.connect()?;
    let mut json = arguments.json.then(|| JsonList::new(stdout()));
    for row in chosen(&mut master, words)? {
        master.send(&ShowDag { dag: row.dag })?;
        let (mut rows, mut nodes) = (Vec::new(), Vec::new());
        until_done(&mut master, |frame| {
            if frame.kind == DagNodes::KIND {
                nodes.extend(read::<DagNodes>(frame)?.nodes);
            } else {
                rows.extend(read::<DagRows>(frame)?.rows);
            }
            Ok(())
        })?;
        let row = rows.pop().unwrap_or(row);
        match &mut json {
            Some(list) => list.push(&dag_json(&row, Some(&nodes)))?,
            None => {
                let shown = if arguments.nodes { usize::MAX } else { SHOWN };
                let text = summary(&row) + &tree(&nodes, shown);
                stdout().write_all(text.as_bytes()).map_err(|e| Error::system("cannot write to standard output", e))?;
            }
        }
    }
    json.map_or(Ok(()), JsonList::end)?;
    Ok(ExitCode::Success)
}

/// A DAG in a few lines: what it is, a bar, what went wrong.
fn summary(row: &DagRow) -> String {
    const WIDTH: u64 = 40;
    let (done, total) = (row.of(State::Done), row.total());
    let filled = (u64::from(done) * WIDTH).checked_div(u64::from(total)).unwrap_or(0) as usize;
    let mut text = format!("DAG {} {}: {}", row.dag, row.file, state(row));
    if let Some(code) = row.code {
        text += &format!(", exit code {code}");
    }
    text +=
        &format!("\n[{}{}] {done} of {total} node(s) done", "=".repeat(filled), " ".repeat(WIDTH as usize - filled));
    let of = |states: &[State]| states.iter().map(|state| row.of(*state)).sum::<u32>();
    let parts = [
        (of(&[State::Submitted, State::Submitting]), "queued"),
        (of(&[State::Pre, State::Post]), "in scripts"),
        (of(&[State::Ready]), "ready"),
        (of(&[State::NotReady]), "waiting"),
        (of(&[State::Failed]), "failed"),
        (of(&[State::Futile]), "never to start"),
    ];
    for (number, what) in parts.into_iter().filter(|(number, _)| *number > 0) {
        text += &format!(", {number} {what}");
    }
    text.push('\n');
    for (what, value) in [("rescue file", &row.rescue), ("last problem", &row.problem)] {
        if let Some(value) = value {
            text += &format!("{what}: {value}\n");
        }
    }
    text
}

/// The nodes as a tree: each under the first of its parents, the others named beside it. Of a large one, what matters most.
fn tree(nodes: &[DagNode], most: usize) -> String {
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    let mut roots = Vec::new();
    for (number, node) in nodes.iter().enumerate() {
        match node.parents.first().and_then(|parent| children.get_mut(*parent as usize)) {
            Some(list) => list.push(number),
            None => roots.push(number),
        }
    }
    let mut text = String::new();
    let mut shown = 0;
    let mut open: Vec<(usize, usize)> = roots.into_iter().rev().map(|root| (root, 0)).collect();
    while let Some((number, depth)) = open.pop() {
        let Some(node) = nodes.get(number) else { continue };
        if shown == most {
            text += &format!("… {} more node(s): --nodes shows all\n", nodes.len() - shown);
            break;
        }
        shown += 1;
        text += &format!("{}{}  {}", "  ".repeat(depth), node.name, node_state(node.state));
        match (node.cluster, node.subdag) {
            (Some(dag), true) => text += &format!(" dag {dag}"),
            (Some(cluster), false) => text += &format!(" {cluster}"),
            (None, _) => {}
        }
        if let Some((idle, running, held, ended)) = node.jobs {
            let jobs = [(idle - held, "idle"), (running, "running"), (held, "held"), (ended, "ended")];
            let jobs: Vec<String> =
                jobs.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
            text += &format!(" ({})", jobs.join(", "));
        }
        if node.state == State::Failed {
            text += &format!(" exit code {}", node.code);
        }
        if node.retries.0 > 0 {
            text += &format!(", retry {} of {}", node.retries.0, node.retries.1);
        }
        let others: Vec<&str> =
            node.parents.iter().skip(1).filter_map(|p| Some(nodes.get(*p as usize)?.name.as_str())).take(5).collect();
        if !others.is_empty() {
            let more = node.parents.len().saturating_sub(1 + others.len());
            text += &format!(
                "  [also after {}{}]",
                others.join(", "),
                if more > 0 { format!(" and {more} more") } else { String::new() }
            );
        }
        text.push('\n');
        open.extend(children.get(number).into_iter().flatten().rev().map(|child| (*child, depth + 1)));
    }
    text
}

/// Waits until no DAG runs any more.
pub(super) fn wait_for_all(master: &mut Master, deadline: Option<Instant>) -> Result<()> {
    for row in rows(master)?.into_iter().filter(|row| row.code.is_none()) {
        master.send(&WatchDag { dag: row.dag })?;
        loop {
            match master.frame_before(deadline)? {
                Some(frame) if frame.kind == Done::KIND => break,
                Some(_) => {}
                None => {
                    return Err(Error::new(ExitCode::TimedOut, format!("DAG {} has not ended", row.dag)));
                }
            }
        }
    }
    Ok(())
}

fn wait(arguments: &Dag, words: &[OsString]) -> Result<ExitCode> {
    let mut master = arguments.asking.connect()?;
    let deadline = arguments.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let rows = chosen(&mut master, words)?;
    wait_for(&mut master, rows, deadline)
}

/// The DAGs among jobs, which have their numbers; they are taken out.
pub(super) fn among(master: &mut Master, picks: &mut Vec<Pick>) -> Result<Vec<DagRow>> {
    let mut rows = rows(master)?;
    let is =
        |pick: &Pick, dag: u32| matches!(pick, Pick::Cluster(n) | Pick::Job(JobId { cluster: n, .. }) if *n == dag);
    rows.retain(|row| picks.iter().any(|pick| is(pick, row.dag)));
    picks.retain(|pick| !rows.iter().any(|row| is(pick, row.dag)));
    Ok(rows)
}

/// Waits until DAGs have ended; whether all succeeded.
pub(super) fn wait_for(master: &mut Master, rows: Vec<DagRow>, deadline: Option<Instant>) -> Result<ExitCode> {
    let mut verdict = ExitCode::Success;
    for row in rows {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("[{bar:30}] {pos}/{len} {msg}") {
                bar.set_style(style.progress_chars("=> "));
            }
            bar
        });
        let mut last = row;
        master.send(&WatchDag { dag: last.dag })?;
        loop {
            let Some(frame) = master.frame_before(deadline)? else {
                let message = format!(
                    "DAG {} has not ended: {} of {} node(s) are done",
                    last.dag,
                    last.of(State::Done),
                    last.total()
                );
                return Err(Error::new(ExitCode::TimedOut, message));
            };
            if frame.kind == Done::KIND {
                break;
            }
            if let Some(row) = read::<DagRows>(&frame)?.rows.pop() {
                last = row;
            }
            if let Some(bar) = &bar {
                bar.set_length(u64::from(last.total()));
                bar.set_position(u64::from(last.of(State::Done)));
                bar.set_message(format!("{} queued, {} failed", last.of(State::Submitted), last.of(State::Failed)));
            }
        }
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        // The reader of standard error may be gone; the exit code still tells.
        let _ = std::io::stderr().write_all(summary(&last).as_bytes());
        if last.code != Some(0) {
            verdict = ExitCode::JobsFailed;
        }
    }
    Ok(verdict)
}

/// What `dag check --json` says of a file.
#[derive(Serialize)]
struct CheckJson {
    file: String,
    valid: bool,
    nodes: usize,
    joins: usize,
    edges: usize,
    splices: u32,
    findings: Vec<FindingJson>,
}

#[derive(Serialize)]
struct FindingJson {
    severity: &'static str,
    file: String,
    line: u32,
    column: u32,
    message: String,
}

fn check(words: &[OsString], json: bool) -> Result<ExitCode> {
    if words.is_empty() {
        return Err(Error::usage("no DAG file is named"));
    }
    let mut list = json.then(|| JsonList::new(stdout()));
    let mut verdict = ExitCode::Success;
    for file in words {
        let shown = file.to_string_lossy().into_owned();
        let text =
            fs::read(file).map_err(|e| Error::new(ExitCode::Refused, format!("cannot read {shown}")).because(e))?;
        let context = Context { read: &self::text, any_names: false };
        let parsed = lang::parse(&[Input { name: &shown, text: &text, directory: "" }], None, &context);
        let (dag, findings) = match parsed {
            Ok(dag) => {
                let findings = dag.warnings.clone();
                (Some(dag), findings)
            }
            Err(findings) => (None, findings),
        };
        if dag.is_none() {
            verdict = ExitCode::Refused;
        }
        let joins = dag.as_ref().map_or(0, |dag| dag.nodes().len() - dag.written().count());
        let (nodes, edges) = dag.as_ref().map_or((0, 0), |dag| (dag.written().count(), dag.graph().edges()));
        match &mut list {
            Some(list) => {
                let finding = |d: &vo_lang::Diagnostic| FindingJson {
                    severity: if d.severity == vo_lang::Severity::Error { "error" } else { "warning" },
                    file: d.file.clone(),
                    line: d.line,
                    column: d.column,
                    message: d.message.clone(),
                };
                let splices = dag.as_ref().map_or(0, |dag| dag.splices);
                let findings = findings.iter().map(finding).collect();
                list.push(&CheckJson { file: shown, valid: dag.is_some(), nodes, joins, edges, splices, findings })?;
            }
            None => {
                findings.iter().for_each(|finding| eprintln!("{finding}"));
                if dag.is_some() {
                    println!("{shown}: {nodes} node(s), {edges} edge(s), nothing is wrong with it.");
                }
            }
        }
    }
    list.map_or(Ok(()), JsonList::end)?;
    Ok(verdict)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, state: State, parents: &[u32]) -> DagNode {
        let (name, parents) = (name.to_owned(), parents.to_vec());
        DagNode { name, state, retries: (0, 0), code: 0, cluster: None, subdag: false, jobs: None, parents }
    }

    #[test]
    fn a_tree_names_every_node_once() {
        let mut nodes = vec![
            node("A", State::Done, &[]),
            node("B", State::Submitted, &[0]),
            node("C", State::Failed, &[0]),
            node("D", State::Futile, &[1, 2]),
            node("E", State::Ready, &[]),
        ];
        nodes[1].cluster = Some(7);
        nodes[1].jobs = Some((2, 1, 1, 0));
        nodes[2].code = 3;
        nodes[2].retries = (1, 1);
        assert_eq!(
            tree(&nodes, 10),
            "A  done\n  B  queued 7 (1 idle, 1 running, 1 held)\n    D  futile  [also after C]\n  C  failed exit code 3, retry 1 of 1\nE  ready\n"
        );
        assert_eq!(
            tree(&nodes, 2),
            "A  done\n  B  queued 7 (1 idle, 1 running, 1 held)\n… 3 more node(s): --nodes shows all\n"
        );
    }

    #[test]
    fn a_dag_is_told_in_a_few_lines() {
        let mut row =
            DagRow { dag: 3, file: "x.dag".to_owned(), nodes: vec![1, 0, 0, 0, 2, 0, 1, 0, 0], ..DagRow::default() };
        assert_eq!(
            summary(&row),
            "DAG 3 x.dag: running\n[==========                              ] 1 of 4 node(s) done, 2 queued, 1 waiting\n"
        );
        row = DagRow {
            code: Some(1),
            rescue: Some("x.dag.rescue001".to_owned()),
            nodes: vec![0, 0, 0, 0, 0, 0, 1, 1, 1],
            ..row
        };
        assert_eq!(
            summary(&row),
            "DAG 3 x.dag: failed, exit code 1\n[=============                           ] 1 of 3 node(s) done, 1 failed, 1 never to start\nrescue file: x.dag.rescue001\n"
        );
    }

    #[test]
    fn dag_files_are_known_by_their_names() {
        for (name, expected) in
            [("x.dag", true), ("a/b.DAG", true), ("x.sub", false), ("dag", false), ("x.dag.rescue001", false)]
        {
            assert_eq!(is_dag(OsStr::new(name)), expected, "{name}");
        }
    }
}

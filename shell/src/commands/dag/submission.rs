//! `condor_submit_dag`: what a DAG is made of, on its way to the master.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Parser;
use serde::Serialize;
use vo_core::pool::Told;
use vo_lang::dag::{self as lang, Context, Env, Input};
use vo_wire::dag::{Bundle, Bytes, DagRow, DagSubmitted, File, Options, SubmitDag as Request};

use super::{rows, text};
use crate::client::Master;
use crate::commands::{Asking, ads, json_list};
use crate::error::{Error, ExitCode, Result};
use crate::table::now_ms;

/// Idle jobs of a DAG above which no node is submitted, unless said otherwise; as DAGMAN_MAX_JOBS_IDLE.
const MAX_IDLE: u32 = 1000;
/// Scripts of each kind at a time; as DAGMAN_MAX_PRE_SCRIPTS and its kin.
const MAX_SCRIPTS: u32 = 20;

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
    pub(in crate::commands) fn plain(
        asking: Asking,
        files: Vec<OsString>,
        batch_name: Option<String>,
        json: bool,
    ) -> SubmitDag {
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
pub(in crate::commands) fn is_dag(file: &OsStr) -> bool {
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

pub(in crate::commands) fn submit(arguments: SubmitDag) -> Result<ExitCode> {
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
        return json_list([SubmittedJson { dag: row.dag, nodes: row.total() }].iter());
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
        crate::commands::submit::tell_unmailed(&format!("DAG {dag}"), &why);
    }
    // What is written after the DAG was taken may say less than the master knows: it is only for the next one who comes.
    let _ = fs::write(&lock, format!("vo-login\n{}\n{dag}\n", session.dir.display()));
    if arguments.json {
        return json_list([SubmittedJson { dag, nodes }].iter());
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
        if let Some(why) = value.map_or(Some("it has no value".to_owned()), |value| ads::expression(value).err()) {
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

//! `submit`: from a submit description to a cluster.

use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, IsTerminal, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Parser};
use serde::Serialize;
use vo_core::JobId;
use vo_core::items::Members;
use vo_core::job::{BY_CURL, BY_PELICAN, Checkpoint, CheckpointEnd, Comes, Killing, Program, Transfer, is_url};
use vo_core::pool::{GroupRecord, LogTerms, Mail, Terms, Told, at_once};
use vo_core::template::{Piece, Template};
use vo_lang::classad::{Context as ClassAd, Expr, Value};
use vo_lang::submit::{
    self, Context, GetEnv, Group, JobAd, Kind, Setting, ShouldTransfer, Universe, WhenToTransfer, World, scheme,
};
use vo_lang::{Diagnostic, Severity};
use vo_wire::Frame;
use vo_wire::control::{Submit as Request, SubmitPiece, Submitted};

use super::{Asking, dag};
use crate::client::Master;
use crate::error::{Error, ExitCode, Result};
use crate::table::{JsonList, stdout};

/// Submits jobs described in files (condor_submit's form)
///
/// Nothing of a description is submitted if anything in it is wrong. Words of the form NAME=VALUE win over the description.
#[derive(Parser, Debug)]
pub(crate) struct Submit {
    #[command(flatten)]
    asking: Asking,
    /// A command that wins over the description, as `NAME = VALUE`
    #[arg(short, long, value_name = "COMMAND")]
    append: Vec<OsString>,
    /// What follows `queue`, for a description without that statement; the last option
    #[arg(long, value_name = "WORDS", num_args = 1.., allow_hyphen_values = true)]
    queue: Vec<OsString>,
    /// Name of the batch in listings
    #[arg(long, value_name = "NAME")]
    batch_name: Option<String>,
    /// Print the ids alone: first and last job
    #[arg(long, conflicts_with = "json")]
    terse: bool,
    /// A JSON array, one object for each cluster
    #[arg(long)]
    json: bool,
    /// Print the job ads and submit nothing; into FILE, if one is given
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "-")]
    dry_run: Option<PathBuf>,
    #[command(flatten)]
    by_arguments: ByArguments,
    /// Called by HTCondor's name, which says more
    #[arg(long, hide = true)]
    htcondor: bool,
    /// Submit the nodes of a DAG that standard input tells of
    #[arg(long, hide = true)]
    dag_nodes: bool,
    /// Submit descriptions and DAG files (`*.dag`); `-` is standard input [default: standard input, unless it is a terminal]. With --for, --jobs, --cpus,
    /// --memory, --disk or --gpus: a program and its arguments, in which `{}` stands for the job's item
    #[arg(value_name = "FILE")]
    words: Vec<OsString>,
}

/// Jobs described by the command line alone.
#[derive(Args, Debug)]
struct ByArguments {
    /// A job for each file that the pattern matches
    #[arg(long = "for", value_name = "PATTERN")]
    patterns: Vec<OsString>,
    /// So many jobs, told apart by their numbers from 0 on
    #[arg(long, value_name = "COUNT", conflicts_with = "patterns")]
    jobs: Option<u32>,
    /// Processors of each job
    #[arg(long, value_name = "COUNT")]
    cpus: Option<u32>,
    /// Memory of each job: 2G
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// Scratch space of each job: 10G
    #[arg(long, value_name = "SIZE")]
    disk: Option<String>,
    /// GPUs of each job
    #[arg(long, value_name = "COUNT")]
    gpus: Option<u32>,
}

mod dry;
mod nodes;
mod world;

/// Dots of condor_submit's first line, one a job, at most.
const DOTS: u32 = 50;

/// Bytes of a submission in one frame.
const PIECE: usize = 1 << 20;

/// Jobs of one template whose files are looked for before anything is submitted; what is missing for later ones holds them.
const CHECKED_JOBS: u32 = 10_000;

/// A cluster, as `--json` tells it.
#[derive(Serialize)]
struct SubmittedJson {
    cluster: u32,
    jobs: u32,
}

pub(super) fn run(arguments: Submit) -> Result<ExitCode> {
    let Submit { asking, append, queue, batch_name, terse, json, dry_run, by_arguments, htcondor, dag_nodes, words } =
        arguments;
    if dag_nodes {
        return nodes::serve(&asking);
    }
    let described = by_arguments.describe(&words)?;
    let words = if described.is_some() { Vec::new() } else { words };
    let (overrides, mut files): (Vec<_>, Vec<_>) =
        words.into_iter().partition(|word| assignment(word).is_some() && !Path::new(word).exists());
    let overrides: Vec<(String, Vec<u8>)> = append
        .iter()
        .chain(&overrides)
        .map(|word| {
            assignment(word).ok_or_else(|| Error::usage(format!("{} is not of the form NAME=VALUE", word.display())))
        })
        .collect::<Result<_>>()?;
    if files.is_empty() && described.is_none() {
        if io::stdin().is_terminal() {
            return Err(Error::usage("no submit description given").hint("`submit FILE`; `help submit` tells more"));
        }
        files.push("-".into());
    }
    if files.iter().any(|file| dag::is_dag(file)) {
        if !files.iter().all(|file| dag::is_dag(file)) || !overrides.is_empty() {
            return Err(Error::usage("a DAG file is submitted with other DAG files alone, and takes no NAME=VALUE")
                .hint("VARS in the DAG file gives its nodes macros"));
        }
        return dag::submit(dag::SubmitDag::plain(asking, files, batch_name, json));
    }
    let here = std::env::current_dir().map_err(|e| Error::system("cannot tell the current directory", e))?;
    let texts = files.iter().map(|file| Ok((file.clone(), read(file)?)));
    let mut texts: Vec<(OsString, Vec<u8>)> =
        described.into_iter().map(|text| Ok(("command line".into(), text))).chain(texts).collect::<Result<_>>()?;
    if !queue.is_empty() {
        let words: Vec<&[u8]> = queue.iter().map(|word| word.as_bytes()).collect();
        let line = [b"\nqueue ", &words.join(&b' ')[..], b"\n"].concat();
        for (file, text) in &mut texts {
            if queues(text) {
                let error = Error::usage(format!("{} has a `queue` statement itself", file.display()));
                return Err(error.hint("--queue is for a description without one"));
            }
            text.extend_from_slice(&line);
        }
    }
    if let Some(into) = dry_run {
        return dry::run(&texts, &overrides, &here, &into);
    }
    // All of them are read and checked before any is sent.
    let requests: Vec<Request> = texts
        .iter()
        .map(|(file, text)| prepare(file, text, 0, &overrides, batch_name.as_deref(), &here))
        .collect::<Result<_>>()?;
    let mut master = asking.connect()?;
    let mut list = json.then(|| JsonList::new(stdout()));
    let mut submit = |request: &Request| -> Result<()> {
        let Submitted { cluster, jobs, unmailed, lease_s } = send(&mut master, request)?;
        if let Some(why) = unmailed {
            tell_unmailed(&format!("cluster {cluster}"), &why);
        }
        if let Some(lease) = lease_s {
            eprintln!(
                "warning: job_lease_duration of cluster {cluster} is longer than the lease of starters, {lease} s"
            );
            eprintln!(
                "hint: jobs go on however long the workstation is away; `lease` in vo.conf says how long a starter goes on without its agent"
            );
        }
        match &mut list {
            Some(list) => list.push(&SubmittedJson { cluster, jobs })?,
            None if terse => println!("{cluster}.0 - {cluster}.{}", jobs.saturating_sub(1)),
            None if htcondor => {
                let dots = ".".repeat(jobs.min(DOTS) as usize);
                println!("Submitting job(s){dots}\n{jobs} job(s) submitted to cluster {cluster}.");
            }
            None => println!("{jobs} job(s) submitted to cluster {cluster}."),
        }
        Ok(())
    };
    let submitted = requests.iter().try_for_each(&mut submit);
    // What was submitted before a refusal is told all the same.
    list.map_or(Ok(()), JsonList::end)?;
    submitted?;
    Ok(ExitCode::Success)
}

/// Says that no mail will come, and why.
pub(super) fn tell_unmailed(of: &str, why: &str) {
    eprintln!("warning: no mail can be sent of {of}: {why}");
    eprintln!("hint: `mail = \"PROGRAM\"` in vo.conf names what sends mails; `notification = never` asks for none");
}

/// Sends a submission, in pieces if it is long.
fn send(master: &mut Master, request: &Request) -> Result<Submitted> {
    let body = Frame::new(0, request).body;
    let mut pieces = body.chunks(PIECE).peekable();
    while let Some(piece) = pieces.next() {
        let piece = SubmitPiece { bytes: piece.to_vec(), last: pieces.peek().is_none() };
        if piece.last {
            return master.ask(&piece);
        }
        master.send(&piece)?;
    }
    Err(Error::new(ExitCode::Internal, "an empty submission"))
}

/// `NAME=VALUE` or `NAME = VALUE`, taken apart.
fn assignment(word: &OsStr) -> Option<(String, Vec<u8>)> {
    let bytes = word.as_bytes();
    let (name, value) = bytes.split_at_checked(bytes.iter().position(|b| *b == b'=')?)?;
    let name = str::from_utf8(name).ok()?.trim();
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'+'));
    plain.then(|| (name.to_owned(), value.get(1..).unwrap_or_default().trim_ascii().to_vec()))
}

/// The description of a DAG's node: after the lines that the DAG gives it. It queues one job, if it doesn't say.
fn of_a_dag(before: &[String], text: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    for line in before {
        all.extend(line.as_bytes().iter().map(|b| if *b == b'\n' { b' ' } else { *b }));
        all.push(b'\n');
    }
    all.extend_from_slice(text);
    if !queues(text) {
        all.extend_from_slice(b"\nqueue\n");
    }
    all
}

/// Does any line begin with `queue`?
fn queues(text: &[u8]) -> bool {
    let queue = |line: &[u8]| line.trim_ascii_start().get(..5).is_some_and(|word| word.eq_ignore_ascii_case(b"queue"));
    text.split(|b| *b == b'\n').any(queue)
}

fn read(file: &OsStr) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    // One byte more than is taken, so that the parser sees that it is too much.
    let most = submit::MAX_TEXT as u64 + 1;
    let read = if file == "-" {
        io::stdin().lock().take(most).read_to_end(&mut text)
    } else {
        fs::File::open(file).and_then(|opened| opened.take(most).read_to_end(&mut text))
    };
    let shown = file.to_string_lossy();
    read.map_err(|e| Error::new(ExitCode::Refused, format!("cannot read {shown}")).because(e))?;
    Ok(text)
}

/// Reads a description, and tells what is wrong with it.
///
/// Its first `before` lines are not the author's: what is wrong with those of a DAG is said where the DAG is read.
fn describe(
    file: &OsStr,
    text: &[u8],
    before: usize,
    overrides: &[(String, Vec<u8>)],
    here: &Path,
    only_show: bool,
) -> Result<submit::Description> {
    let shown = file.to_string_lossy();
    let context = Context {
        world: &world::Here,
        overrides,
        predefined: &world::predefined(),
        here: here.as_os_str().as_bytes(),
        only_show,
    };
    let before = u32::try_from(before).unwrap_or(u32::MAX);
    let say = |finding: &Diagnostic| {
        let mut finding = finding.clone();
        if finding.file == shown {
            if finding.line <= before && finding.severity == Severity::Warning {
                return;
            }
            finding.line = finding.line.saturating_sub(before).max(1);
        }
        eprintln!("{finding}");
    };
    match submit::parse(&shown, text, &context) {
        Ok(description) => {
            description.warnings.iter().for_each(say);
            Ok(description)
        }
        Err(findings) => {
            findings.iter().for_each(say);
            Err(Error::new(ExitCode::Refused, format!("nothing of {shown} was submitted")))
        }
    }
}

impl ByArguments {
    /// The description that the arguments stand for, if they stand for one.
    fn describe(&self, words: &[OsString]) -> Result<Option<Vec<u8>>> {
        let ByArguments { patterns, jobs, cpus, memory, disk, gpus } = self;
        let asked = jobs.is_some() || cpus.is_some() || memory.is_some() || disk.is_some() || gpus.is_some();
        if patterns.is_empty() && !asked {
            return Ok(None);
        }
        let Some((program, arguments)) = words.split_first() else {
            return Err(Error::usage("no program is given").hint("`submit --for 'data/*.fits' ./analyse {}`"));
        };
        let program = found(program)?;
        let item: &[u8] = if patterns.is_empty() { b"$(Process)" } else { b"$(Item)" };
        let quote = |word: &OsString| {
            let mut quoted = vec![b'\''];
            let mut rest = word.as_bytes();
            while let Some((byte, tail)) = rest.split_first() {
                match byte {
                    b'{' if tail.first() == Some(&b'}') => {
                        quoted.extend_from_slice(item);
                        rest = tail.get(1..).unwrap_or_default();
                        continue;
                    }
                    b'\'' | b'"' => quoted.extend([*byte, *byte]),
                    b'$' => quoted.extend_from_slice(b"$(DOLLAR)"),
                    b'\n' => return Err(Error::usage("an argument of several lines")),
                    byte => quoted.push(*byte),
                }
                rest = tail;
            }
            quoted.push(b'\'');
            Ok(quoted)
        };
        let arguments = arguments.iter().map(quote).collect::<Result<Vec<_>>>()?.join(&b' ');
        let name = String::from_utf8_lossy(&base(&program)).replace('$', "_");
        let mut text = [b"executable = ", &program[..], b"\narguments = \"", &arguments, b"\"\n"].concat();
        let mut set = |name: &str, value: String| text.extend(format!("{name} = {value}\n").into_bytes());
        cpus.iter().for_each(|cpus| set("request_cpus", cpus.to_string()));
        gpus.iter().for_each(|gpus| set("request_gpus", gpus.to_string()));
        memory.iter().for_each(|memory| set("request_memory", memory.clone()));
        disk.iter().for_each(|disk| set("request_disk", disk.clone()));
        set("output", format!("{name}.$(Cluster).$(Process).out"));
        set("error", format!("{name}.$(Cluster).$(Process).err"));
        set("log", format!("{name}.$(Cluster).log"));
        if patterns.is_empty() {
            set("queue", String::new());
            text.truncate(text.len() - " = \n".len());
            text.extend(format!(" {}\n", jobs.unwrap_or(1)).into_bytes());
        } else {
            set("transfer_input_files", "$(Item)".to_owned());
            set("preserve_relative_paths", "true".to_owned());
            text.extend_from_slice(b"queue Item from (\n");
            for name in self.matches()? {
                text.extend(name);
                text.push(b'\n');
            }
            text.extend_from_slice(b")\n");
        }
        Ok(Some(text))
    }

    /// The files that the patterns match, each once, in order.
    fn matches(&self) -> Result<Vec<Vec<u8>>> {
        let (mut names, mut known) = (Vec::new(), HashSet::new());
        for pattern in &self.patterns {
            let shown = pattern.display();
            let found = world::Here.matching(pattern.as_bytes(), Kind::Files);
            let found = found.map_err(|why| Error::usage(format!("{shown} can't be looked for: {why}")))?;
            if found.is_empty() {
                return Err(Error::new(ExitCode::Refused, format!("{shown} matches no file")));
            }
            for name in found {
                if name.iter().any(|b| matches!(b, b'\'' | b'"' | b'$' | b',' | b'\n') || *b == 1) {
                    let shown = String::from_utf8_lossy(&name).into_owned();
                    let error =
                        Error::new(ExitCode::Refused, format!("{shown} has a quote, a comma or a `$` in its name"));
                    return Err(error.hint("a submit description can have it, with `queue x from FILE`"));
                }
                if known.insert(name.clone()) {
                    names.push(name);
                }
            }
        }
        Ok(names)
    }
}

/// Where a program is: a word without a slash is looked for as a shell does.
fn found(program: &OsStr) -> Result<Vec<u8>> {
    if program.as_bytes().contains(&b'/') {
        return Ok(program.as_bytes().to_vec());
    }
    let dirs = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&dirs).map(|dir| dir.join(program));
    match places.find(|place| executable(place).is_ok()) {
        Some(place) => Ok(place.into_os_string().into_vec()),
        None => Err(Error::new(ExitCode::Refused, format!("there is no program {}", program.display()))
            .hint("a program of this directory is written with `./` before it")),
    }
}

fn prepare(
    file: &OsStr,
    text: &[u8],
    before: usize,
    overrides: &[(String, Vec<u8>)],
    batch_name: Option<&str>,
    here: &Path,
) -> Result<Request> {
    let description = describe(file, text, before, overrides, here, false)?;
    let mut groups = Vec::new();
    for group in &description.groups {
        let mut converted = convert(group, here)?;
        converted.log_terms.late = is_late(&group.ad).then_some(description.items);
        if let Some(name) = batch_name {
            converted.log_terms.batch_name = Some(Template::constant(name));
        }
        if let Err(error) = check(&converted, &group.members) {
            // A program that nobody made executable can't run where it is; its copy on a node can.
            if converted.program.transfer != Transfer::IfNeeded {
                return Err(error);
            }
            converted.program.transfer = Transfer::Yes;
            check(&converted, &group.members)?;
        }
        groups.push(converted);
    }
    let first = description.groups.first();
    let name = batch_name.map(str::to_owned).or_else(|| name(first?, file)).unwrap_or_default();
    Ok(Request { groups, name })
}

/// What listings call the cluster.
fn name(group: &Group, file: &OsStr) -> Option<String> {
    let proc = group.members.first();
    // The cluster has no number yet.
    let text = |template: &Template| {
        let pieces = template.fill(&group.members.row(proc)).0.into_iter().map(|piece| match piece {
            Piece::Cluster => Piece::Text(b"$(Cluster)".to_vec()),
            piece => piece,
        });
        Template(pieces.collect()).expand(JobId { cluster: 0, proc })
    };
    let bytes = match &group.ad.batch_name {
        Some(name) => text(name),
        None if file == "-" || file == "command line" => base(&text(&group.ad.executable)),
        None => base(file.as_bytes()),
    };
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn base(path: &[u8]) -> Vec<u8> {
    path.rsplit(|b| *b == b'/').next().unwrap_or_default().to_vec()
}

/// The umask of this process, which has one thread.
fn umask() -> u16 {
    use nix::sys::stat::{Mode, umask};
    let mask = umask(Mode::from_bits_truncate(0o077));
    umask(mask);
    u16::try_from(mask.bits()).unwrap_or(0o077)
}

/// The slots of the machine where jobs are submitted.
const WORKSTATION: &str = "TARGET.Gateway == \"local\"";

fn convert(group: &Group, here: &Path) -> Result<GroupRecord> {
    let ad = &group.ad;
    let here_only = match ad.universe {
        Universe::Local => Some("12"),
        Universe::Scheduler => Some("7"),
        Universe::Vanilla | Universe::Container | Universe::Docker => None,
    };
    let image = ad.container_image.as_ref();
    // An image that is a file travels as one, and is then known by its name alone.
    let begins = |template: &Template, test: &dyn Fn(&[u8]) -> bool| match template.0.first() {
        Some(Piece::Text(text)) => test(text),
        Some(Piece::Column(_) | Piece::Words(_)) => group.members.iter().any(|proc| {
            let each = Template::fill_list(std::slice::from_ref(template), &group.members.row(proc));
            each.iter().any(|each| matches!(each.0.first(), Some(Piece::Text(text)) if test(text)))
        }),
        _ => false,
    };
    // These the container's program fetches by itself.
    let registry = image.is_some_and(|image| begins(image, &of_registry));
    let urls = ad.transfer_input.iter().chain(image.filter(|_| !registry)).any(|name| begins(name, &is_url));
    let remapped = ad.transfer_remaps.iter().map(|(_, to)| to);
    let sent: Vec<_> = ad.destination.iter().chain(&ad.output).chain(&ad.error).chain(remapped).collect();
    let urls = urls || sent.iter().any(|to| begins(to, &is_url));
    let methods = [&BY_CURL[..], &BY_PELICAN].concat().into_iter().filter(|method| {
        let is = |name: &[u8]| scheme(name).as_deref() == Some(*method);
        let mut names = ad.transfer_input.iter().chain(image).chain(sent.iter().copied());
        urls && ad.transfer != ShouldTransfer::No && here_only.is_none() && names.any(|name| begins(name, &is))
    });
    let methods = methods.map(|method| format!("stringListIMember(\"{method}\",TARGET.HasFileTransferPluginMethods)"));
    let methods: Vec<String> = methods.collect();
    let mut transfer_input = ad.transfer_input.clone();
    transfer_input.extend(image.filter(|_| !registry && ad.transfer != ShouldTransfer::No).cloned());
    let checkpoint = checkpoint(ad)?;
    let program = Program {
        executable: ad.executable.clone(),
        arguments: ad.arguments.clone(),
        environment: environment(ad),
        initialdir: ad.initialdir.clone().unwrap_or_else(|| Template::constant(here.as_os_str().as_bytes())),
        input: ad.input.clone(),
        output: ad.output.clone(),
        error: ad.error.clone(),
        transfer_input,
        transfer_output: ad.transfer_output.clone(),
        transfer: match ad.transfer {
            _ if here_only.is_some() => Transfer::No,
            ShouldTransfer::Yes => Transfer::Yes,
            ShouldTransfer::No => Transfer::No,
            // In its own directory, outputs would keep their names, and an earlier attempt's would not be put back.
            ShouldTransfer::IfNeeded if !ad.transfer_remaps.is_empty() || urls || checkpoint.is_some() => Transfer::Yes,
            ShouldTransfer::IfNeeded => Transfer::IfNeeded,
        },
        transfer_executable: ad.transfer_executable,
        cpus: ad.request_cpus,
        memory_mb: ad.request_memory_mb,
        gpus: ad.request_gpus.unwrap_or(0),
        transfer_remaps: ad.transfer_remaps.clone(),
        destination: ad.destination.clone(),
        keep_paths: is_true(ad, "PreserveRelativePaths"),
        only_success: ad.when_to_transfer == WhenToTransfer::OnSuccess,
        container: ad.container_image.clone(),
        success: success(ad)?,
        killing: killing(ad)?,
        resources: ad.counted.clone(),
        checkpoint,
        keep_evicted: ad.when_to_transfer == WhenToTransfer::OnExitOrEvict,
        input_there: is(ad, "TransferIn", "false"),
        output_comes: comes(ad, "TransferOut", "StreamOut"),
        error_comes: comes(ad, "TransferErr", "StreamErr"),
        umask: Some(umask()),
        core_bytes: whole(ad, "CoreSize", "core_size")?.map(|size| u64::try_from(size).unwrap_or(u64::MAX)),
        most_in: megabytes(ad, "MaxTransferInputMB", "max_transfer_input_mb")?,
        most_out: megabytes(ad, "MaxTransferOutputMB", "max_transfer_output_mb")?,
        append: is(ad, "EraseOutputAndErrorOnRestart", "false"),
    };
    let (same, own): (Vec<_>, Vec<_>) = ad.attributes.iter().cloned().partition(|(_, value)| value.is_constant());
    let attributes = same.into_iter().filter_map(|(name, value)| Some((name, constant(&value)?)));
    let held = ad.settings.iter().any(|(name, _)| *name == "JobStatus");
    // How jobs begin is no attribute of theirs for good.
    let begins = |name: &str| ["JobStatus", "HoldReason", "HoldReasonCode"].contains(&name);
    let settings = ad.settings.iter().filter(|(name, _)| !begins(name)).filter_map(|(name, setting)| match setting {
        Setting::Expression(text) => Some(((*name).to_owned(), text.clone())),
        Setting::Text(text) => Some(((*name).to_owned(), Value::from(constant(text)?).old_syntax().to_string())),
        Setting::Path(_) => None,
    });
    let disk = ad.request_disk_kb.filter(|disk| *disk > 0);
    // It may come to more.
    let grows = ad.requests.iter().any(|(name, _)| name == "RetryRequestDisk");
    let clause =
        disk.map(|disk| if grows { "TARGET.Disk >= RequestDisk".to_owned() } else { format!("TARGET.Disk >= {disk}") });
    let disk = disk.map(|disk| ("RequestDisk".to_owned(), disk.to_string()));
    let container = image.map(|_| if registry { "TARGET.HasDockerURL" } else { "TARGET.HasSIF" }.to_owned());
    let here_only_clause = here_only.map(|_| WORKSTATION.to_owned());
    let clauses: Vec<String> = here_only_clause.into_iter().chain(container).chain(methods).chain(clause).collect();
    let universe = here_only.map(|number| ("JobUniverse".to_owned(), number.to_owned()));
    let terms = Terms {
        requirements: match ad.demands() {
            demands if clauses.is_empty() => demands,
            Some(demands) => Some(format!("{} && ({demands})", clauses.join(" && "))),
            None => Some(clauses.join(" && ")),
        },
        rank: ad.rank.clone(),
        priority: ad.priority,
        accounting_group: ad.accounting_group.clone(),
        // The user's own word wins.
        attributes: universe
            .into_iter()
            .chain(disk)
            .chain(settings)
            .chain(attributes)
            .chain(named_resources(ad))
            .collect(),
        own,
        limits: limits(ad)?,
        requests: ad.requests.clone(),
    };
    let members = &group.members;
    Ok(GroupRecord {
        tag: None,
        origin: None,
        count: group.count(),
        program,
        log: ad.log.clone(),
        log_terms: log_terms(ad),
        table: members.table().cloned(),
        procs: members.procs().cloned(),
        terms,
        held,
    })
}

/// The concurrency limits that the jobs are counted against, and how much of each a job takes, in thousandths.
fn limits(ad: &JobAd) -> Result<Vec<(String, u32)>> {
    let named = ad.settings.iter().find(|(name, _)| *name == "ConcurrencyLimits").map(|(_, setting)| setting);
    let names = match named {
        Some(Setting::Text(names)) => constant(names).unwrap_or_default(),
        Some(Setting::Expression(text)) => {
            let value = Expr::parse_old(text).map(|expr| ClassAd::new(Some(&known(ad)), None, 0).evaluate(&expr));
            let names = value.as_ref().ok().and_then(Value::as_str).map(|names| names.to_ascii_lowercase());
            names.ok_or_else(|| {
                let error = Error::new(ExitCode::Refused, format!("concurrency_limits_expr = {text} is no text"));
                error.hint("it is asked once, at submission, and may refer to what the description says of all jobs")
            })?
        }
        _ => String::new(),
    };
    let mut limits: BTreeMap<String, u32> = BTreeMap::new();
    for word in names.split([',', ' ']).filter(|word| !word.is_empty()) {
        let (name, amount) = word.split_once(':').unwrap_or((word, "1"));
        let share = amount.trim().parse::<f64>().ok().map(|amount| amount * 1000.0);
        let share = share.filter(|share| (1.0..=1e9).contains(share)).map(|share| share.round() as u32);
        let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.');
        let (true, Some(share)) = (plain, share) else {
            let error = Error::new(ExitCode::Refused, format!("{word:?} is no concurrency limit"));
            return Err(
                error.hint("`concurrency_limits = licence, database:2` names limits, and how much of each a job takes")
            );
        };
        let all = limits.entry(name.to_owned()).or_default();
        *all = all.saturating_add(share);
    }
    Ok(limits.into_iter().chain(ad.at_once.map(at_once)).collect())
}

/// What the jobs ask for of resources of the site's own that is no number.
fn named_resources(ad: &JobAd) -> impl Iterator<Item = (String, String)> + '_ {
    let counted = |name: &String| ad.counted.iter().any(|(known, _)| known == name);
    let named = ad.resources.iter().filter(move |(name, _)| !counted(name));
    named.map(|(name, text)| (format!("Request{name}"), text.clone()))
}

/// What the description says of all of the jobs.
fn known(ad: &JobAd) -> vo_lang::classad::Ad {
    let mut known = vo_lang::classad::Ad::new();
    known.insert("RequestCpus", i64::from(ad.request_cpus));
    ad.request_gpus.iter().for_each(|gpus| known.insert("RequestGPUs", i64::from(*gpus)));
    let settings = ad.settings.iter().filter_map(|(name, setting)| match setting {
        Setting::Expression(text) if *name != "ConcurrencyLimits" => Some((*name, text.clone())),
        Setting::Text(text) => Some((*name, Value::from(constant(text)?).old_syntax().to_string())),
        _ => None,
    });
    let own = ad.attributes.iter().filter(|(_, value)| value.is_constant());
    let own = own.filter_map(|(name, value)| Some((name.as_str(), constant(value)?)));
    for (name, text) in settings.chain(own) {
        if let Ok(expr) = Expr::parse_old(&text) {
            known.insert(name, expr);
        }
    }
    known
}

/// A whole number.
fn whole(ad: &JobAd, attribute: &str, command: &str) -> Result<Option<i64>> {
    let Some((_, Setting::Expression(text))) = ad.settings.iter().find(|(name, _)| *name == attribute) else {
        return Ok(None);
    };
    let value = Expr::parse_old(text).map(|expr| ClassAd::new(Some(&known(ad)), None, 0).evaluate(&expr));
    match value {
        Ok(Value::Undefined) if text.eq_ignore_ascii_case("undefined") => Ok(None),
        Ok(Value::Integer(number)) => Ok(Some(number)),
        _ => {
            let error = Error::new(ExitCode::Refused, format!("{command} = {text} is no whole number"));
            Err(error.hint("it is asked once, at submission, and may refer to what the description says of all jobs"))
        }
    }
}

/// Megabytes, in bytes; none if they are without limit.
fn megabytes(ad: &JobAd, attribute: &str, command: &str) -> Result<Option<u64>> {
    let most = whole(ad, attribute, command)?.and_then(|most| u64::try_from(most).ok());
    Ok(most.map(|most| most.saturating_mul(1 << 20)))
}

/// How the jobs' attempts are killed.
fn killing(ad: &JobAd) -> Result<Killing> {
    let find = |name: &str| ad.settings.iter().find(|(known, _)| *known == name).map(|(_, setting)| setting);
    let signal = |name: &str| match find(name) {
        Some(Setting::Text(text)) => {
            let signal = constant(text).and_then(|text| text.parse::<nix::sys::signal::Signal>().ok());
            signal.map(|signal| signal as u8)
        }
        _ => None,
    };
    let value = |name: &str| match find(name) {
        Some(Setting::Expression(text)) => {
            Expr::parse_old(text).map_or(Value::Error, |expr| ClassAd::new(None, None, 0).evaluate(&expr))
        }
        _ => Value::Undefined,
    };
    let seconds = |name: &str, command: &str| match value(name) {
        Value::Undefined => Ok(None),
        value => match value.as_i64().and_then(|s| u32::try_from(s).ok()) {
            Some(seconds) => Ok(Some(seconds)),
            None => Err(Error::new(ExitCode::Refused, format!("{command} is no number of seconds"))),
        },
    };
    let vacate_s =
        seconds("JobMaxVacateTime", "job_max_vacate_time")?.or(seconds("KillSigTimeout", "kill_sig_timeout")?);
    let any = signal("KillSig").unwrap_or(0);
    Ok(Killing {
        signal: any,
        remove: signal("RemoveKillSig").unwrap_or(any),
        hold: signal("HoldKillSig").unwrap_or(any),
        vacate_s,
        remove_s: vacate_s.filter(|_| value("WantGracefulRemoval").truth() == Some(true)),
    })
}

/// The exit code of success.
fn success(ad: &JobAd) -> Result<u8> {
    let code = ad.settings.iter().find(|(name, _)| *name == "JobSuccessExitCode").map(|(_, setting)| setting);
    let Some(Setting::Expression(text)) = code else { return Ok(0) };
    text.parse().map_err(|_| {
        Error::new(ExitCode::Refused, format!("success_exit_code = {text} is no exit code"))
            .hint("programs end with 0 to 255")
    })
}

/// When what the jobs print comes home.
fn comes(ad: &JobAd, transfer: &str, stream: &str) -> Comes {
    if is(ad, transfer, "false") {
        Comes::Never
    } else if is_true(ad, stream) {
        Comes::Live
    } else {
        Comes::AtEnd
    }
}

/// How the jobs checkpoint themselves, if they do.
fn checkpoint(ad: &JobAd) -> Result<Option<Checkpoint>> {
    let set = ad.settings.iter().filter_map(|(name, setting)| match setting {
        Setting::Expression(text) => Some((*name, text.clone())),
        Setting::Text(_) | Setting::Path(_) => None,
    });
    let own = ad.attributes.iter().filter_map(|(name, value)| Some((name.as_str(), constant(value)?)));
    let all: Vec<(&str, String)> = set.chain(own).collect();
    let find = |wanted: &str| {
        let name = format!("SuccessCheckpointExit{wanted}");
        all.iter().rev().find(|(known, _)| known.eq_ignore_ascii_case(&name)).map(|(_, text)| text.trim())
    };
    let number = |text: &str, what: &str| {
        text.parse::<u8>().map_err(|_| {
            Error::new(ExitCode::Refused, format!("{text} is no {what} with which a program can end"))
                .hint("an exit code is 0 to 255, a signal is given by its number")
        })
    };
    let by_signal = find("BySignal").is_some_and(|text| text.eq_ignore_ascii_case("true"));
    let end = match (find("Code"), find("Signal").filter(|_| by_signal)) {
        (_, Some(signal)) => CheckpointEnd::Signal(number(signal, "signal")?),
        (Some(code), None) => CheckpointEnd::Exit(number(code, "exit code")?),
        (None, None) => return Ok(None),
    };
    Ok(Some(Checkpoint { end, files: ad.transfer_checkpoint.clone() }))
}

/// What the jobs' event log is to hold.
fn log_terms(ad: &JobAd) -> LogTerms {
    let text = |attribute: &str| match ad.settings.iter().find(|(name, _)| *name == attribute)?.1 {
        Setting::Text(ref text) => Some(text.clone()),
        _ => None,
    };
    let node = ad.attributes.iter().find(|(name, _)| name.eq_ignore_ascii_case("DAGNodeName"));
    let node = node.and_then(|(_, value)| constant(value));
    let node = node.as_deref().map(|text| text.trim_matches('"'));
    LogTerms {
        xml: is_true(ad, "UserLogUseXML"),
        batch_name: ad.batch_name.clone(),
        dag_node: node.map(Template::constant),
        notes: text("SubmitEventNotes"),
        user_notes: text("SubmitEventUserNotes"),
        disk_kib: ad.request_disk_kb.filter(|disk| *disk > 0),
        late: None,
        information: text("JobAdInformationAttrs").as_ref().and_then(constant).map_or_else(Vec::new, |names| {
            let names = names.split(|c: char| c == ',' || c.is_whitespace());
            names.filter(|name| is_name(name)).map(str::to_owned).collect()
        }),
        mail: mail(ad),
    }
}

fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Are the jobs not all to be in the queue at once?
fn is_late(ad: &JobAd) -> bool {
    let idle = ad.settings.iter().find(|(name, _)| *name == "JobMaterializeMaxIdle").map(|(_, setting)| setting);
    let idle = match idle {
        Some(Setting::Expression(text)) => text.parse::<u32>().ok(),
        _ => None,
    };
    ad.at_once.is_some() || idle.is_some_and(|most| most > 0)
}

/// The mails that the jobs ask for.
fn mail(ad: &JobAd) -> Option<Mail> {
    let find = |attribute: &str| ad.settings.iter().find(|(name, _)| *name == attribute).map(|(_, setting)| setting);
    let Some(Setting::Expression(wanted)) = find("JobNotification") else { return None };
    let told = match wanted.as_str() {
        "1" => Told::Everything,
        "2" => Told::Ends,
        _ => Told::Failures,
    };
    let to = match find("NotifyUser") {
        Some(Setting::Text(to)) => Some(to.clone()),
        _ => None,
    };
    let attributes = match find("EmailAttributes") {
        Some(Setting::Text(names)) => constant(names).unwrap_or_default(),
        _ => String::new(),
    };
    let attributes = attributes.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    Some(Mail { told, to, attributes })
}

/// Is this an image that container programs take from a registry?
fn of_registry(image: &[u8]) -> bool {
    [&b"docker:"[..], b"oras:", b"library:", b"shub:"].iter().any(|scheme| image.starts_with(scheme))
}

fn is_true(ad: &JobAd, attribute: &str) -> bool {
    is(ad, attribute, "true")
}

fn is(ad: &JobAd, attribute: &str, wanted: &str) -> bool {
    let value = ad.settings.iter().find(|(name, _)| *name == attribute).map(|(_, setting)| setting);
    matches!(value, Some(Setting::Expression(text)) if text == wanted)
}

/// A template's text, if it is the same for all jobs.
fn constant(template: &Template) -> Option<String> {
    template
        .is_constant()
        .then(|| template.expand(JobId { cluster: 0, proc: 0 }))
        .and_then(|text| String::from_utf8(text).ok())
}

/// The description's variables, after those that `getenv` takes from here.
fn environment(ad: &JobAd) -> Vec<(Template, Template)> {
    let taken = taken_over(ad).into_iter().map(|(name, value)| (Template::constant(name), Template::constant(value)));
    let mut variables: Vec<(Template, Template)> = taken.collect();
    for (name, value) in &ad.environment {
        variables.push((Template::constant(name.as_bytes()), value.clone()));
    }
    variables
}

/// What `getenv` takes from here, without what the description sets itself.
fn taken_over(ad: &JobAd) -> Vec<(Vec<u8>, Vec<u8>)> {
    if ad.getenv == GetEnv::None {
        return Vec::new();
    }
    let wanted = |name: &OsStr| {
        // The session's own variables mean nothing to a job.
        let ours = name.as_bytes().starts_with(b"VO_SESSION");
        let set = ad.environment.iter().any(|(other, _)| other.as_bytes() == name.as_bytes());
        !ours && !set && ad.getenv.selects(name.as_bytes())
    };
    let here = std::env::vars_os().filter(|(name, _)| wanted(name));
    here.map(|(name, value)| (name.into_vec(), value.into_vec())).collect()
}

/// Looks for what the jobs need on this machine.
fn check(group: &GroupRecord, members: &Members) -> Result<()> {
    let program = &group.program;
    let mut seen = HashSet::new();
    let fixed = |template: &Template| template.is_constant() && program.initialdir.is_constant();
    let mut each = |templates: &[&Template], what: fn(&Path) -> Result<(), Problem>, itself: bool| -> Result<()> {
        let jobs = if templates.iter().all(|t| fixed(t)) { 1 } else { CHECKED_JOBS };
        for proc in members.iter().take(jobs as usize) {
            // The cluster's number is not known yet, nor the machine. Files named by them can't be looked for.
            let job = JobId { cluster: 0, proc };
            let row = members.row(proc);
            let dir = program.initialdir.fill(&row);
            let all: Vec<Template> = templates.iter().map(|template| (*template).clone()).collect();
            for template in Template::fill_list(&all, &row) {
                if named_later(&template, &dir) {
                    // Where its directory has no such name, that is looked for.
                    let of = |cluster| {
                        let job = JobId { cluster, proc };
                        let path = Path::new(OsStr::from_bytes(&dir.expand(job)))
                            .join(OsStr::from_bytes(&template.expand(job)));
                        path.parent().map(Path::to_path_buf)
                    };
                    let known = of(0).filter(|folder| !template.asks_machine() && of(1).as_ref() == Some(folder));
                    if std::ptr::fn_addr_eq(what, writable as fn(&Path) -> Result<(), Problem>)
                        && let Some(folder) = known
                        && seen.insert((folder.clone(), what as usize))
                        && !folder.is_dir()
                    {
                        let problem = Problem::new("isn't there, where outputs are to go", MAKE_FIRST);
                        return Err(problem.refuse(&folder));
                    }
                    continue;
                }
                let name = template.expand(job);
                if is_url(&name) {
                    continue;
                }
                let path = PathBuf::from(OsString::from_vec(dir.expand(job))).join(OsStr::from_bytes(&name));
                // An item without a name here has no such file.
                if itself == name.is_empty() && seen.insert((path.clone(), what as usize)) {
                    what(&path).map_err(|problem| problem.refuse(&path))?;
                }
            }
        }
        Ok(())
    };
    if program.transfer_executable {
        let travels = program.transfer == Transfer::Yes;
        each(&[&program.executable], if travels { program_file } else { executable }, false)?;
    }
    each(&[&Template::default()], directory, true)?;
    let input = program.input.iter().filter(|_| !program.input_there || program.transfer == Transfer::No);
    each(&input.chain(&program.transfer_input).collect::<Vec<_>>(), readable, false)?;
    each(&program.output.iter().chain(&program.error).chain(&group.log).collect::<Vec<_>>(), writable, false)
}

const MAKE_FIRST: &str = "make the directory first; outputs are named from initialdir";

/// Is it named by the number of the cluster, or by the machine that runs the job?
fn named_later(template: &Template, dir: &Template) -> bool {
    template.asks_machine() || [template, dir].iter().any(|t| t.0.contains(&Piece::Cluster))
}

/// What is wrong with a file that a job needs.
struct Problem {
    what: String,
    hint: &'static str,
}

impl Problem {
    fn new(what: impl Into<String>, hint: &'static str) -> Problem {
        Problem { what: what.into(), hint }
    }

    fn refuse(self, path: &Path) -> Error {
        Error::new(ExitCode::Refused, format!("{} {}", path.display(), self.what)).hint(self.hint)
    }
}

fn executable(path: &Path) -> Result<(), Problem> {
    program_file(path)?;
    match fs::metadata(path) {
        Ok(found) if found.permissions().mode() & 0o111 == 0 => {
            Err(Problem::new("is not executable", "`chmod +x` makes it so"))
        }
        _ => Ok(()),
    }
}

/// A program that travels: its copy is made executable.
fn program_file(path: &Path) -> Result<(), Problem> {
    const HINT: &str =
        "executable names the program, seen from here; `transfer_executable = false` for a program of the nodes";
    match fs::metadata(path) {
        Err(e) => Err(Problem::new(format!("can't be used as the executable: {e}"), HINT)),
        Ok(found) if !found.is_file() => {
            Err(Problem::new("can't be used as the executable: it is no regular file", HINT))
        }
        Ok(found) if found.len() == 0 => Err(Problem::new("can't be used as the executable: it is empty", HINT)),
        Ok(_) => Ok(()),
    }
}

fn directory(path: &Path) -> Result<(), Problem> {
    const HINT: &str = "initialdir names a directory that is there, seen from here";
    match fs::metadata(path) {
        Err(e) => Err(Problem::new(format!("can't be used as initialdir: {e}"), HINT)),
        Ok(found) if !found.is_dir() => Err(Problem::new("can't be used as initialdir: it is no directory", HINT)),
        Ok(_) => Ok(()),
    }
}

fn readable(path: &Path) -> Result<(), Problem> {
    use nix::unistd::{AccessFlags, access};
    access(path, AccessFlags::R_OK).map_err(|e| {
        Problem::new(format!("can't be read as input: {}", e.desc()), "input files are named from initialdir")
    })
}

fn writable(path: &Path) -> Result<(), Problem> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    match fs::metadata(parent) {
        Ok(found) if found.is_dir() => Ok(()),
        _ => Err(Problem::new("can't be written: its directory isn't there", MAKE_FIRST)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn parsed(text: &[u8]) -> submit::Description {
        parsed_in(Path::new("/home/ann"), text)
    }

    fn parsed_in(here: &Path, text: &[u8]) -> submit::Description {
        let (world, here) = (world::Here, here.as_os_str().as_bytes());
        submit::parse(
            "a.sub",
            text,
            &Context { world: &world, overrides: &[], predefined: &[], here, only_show: false },
        )
        .unwrap()
    }

    #[test]
    fn paths_are_seen_from_where_submit_runs() {
        let check = |path: &str, expected: &str| {
            let description = parsed(format!("executable = /bin/true\n{path}\nqueue").as_bytes());
            let group = convert(&description.groups[0], Path::new("/home/ann")).unwrap();
            assert_eq!(group.program.initialdir.expand(JobId { cluster: 1, proc: 0 }), expected.as_bytes());
        };
        check("", "/home/ann");
        check("initialdir = run", "/home/ann/run");
        check("initialdir = /scratch", "/scratch");
    }

    #[test]
    fn assignments() {
        let check = |word: &str, expected: Option<(&str, &str)>| {
            let read = assignment(OsStr::new(word)).map(|(name, value)| (name, String::from_utf8(value).unwrap()));
            assert_eq!(read.as_ref().map(|(name, value)| (name.as_str(), value.as_str())), expected, "{word:?}");
        };
        check("a=b", Some(("a", "b")));
        check("request_cpus = 4", Some(("request_cpus", "4")));
        check("+Project=\"x=y\"", Some(("+Project", "\"x=y\"")));
        check("a.sub", None);
        check("=b", None);
        check("./a=b", None);
    }

    #[test]
    fn what_is_missing_here_is_refused_with_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let check_text = |text: &str, expected: Option<&str>| {
            let description = parsed_in(dir.path(), text.as_bytes());
            let group = &description.groups[0];
            let result = convert(group, dir.path()).and_then(|made| check(&made, &group.members));
            let message = result.err().map(|e| e.to_string());
            match (expected, &message) {
                (None, None) => {}
                (Some(part), Some(message)) if message.contains(part) => {}
                _ => panic!("{text:?}: {message:?}"),
            }
        };
        fs::write(dir.path().join("plain"), "#!/bin/sh\n").unwrap();
        fs::write(dir.path().join("empty"), "").unwrap();
        fs::write(dir.path().join("in.0"), "").unwrap();
        check_text("executable = /bin/true\nqueue", None);
        check_text("executable = absent\nqueue", Some("absent can't be used as the executable"));
        check_text("executable = plain\nqueue", Some("plain is not executable"));
        check_text("executable = plain\nshould_transfer_files = YES\nqueue", None);
        check_text("executable = empty\nshould_transfer_files = YES\nqueue", Some("empty can't be used"));
        check_text("executable = absent\ntransfer_executable = false\nqueue", None);
        check_text("executable = /bin/cat\ninput = in.$(Process)\nqueue 1", None);
        check_text("executable = /bin/cat\ninput = in.$(Process)\nqueue 2", Some("in.1 can't be read"));
        check_text("executable = /bin/cat\ninput = in.$(Cluster)\nqueue", None);
        check_text("executable = /bin/cat\ninput = in.$(x)\nqueue x in (0)", None);
        check_text("executable = /bin/cat\ninput = $(x)\nqueue x,y from (\nin.0\nplain 1\n)", None);
        check_text(
            "executable = /bin/cat\ntransfer_input_files = plain, in.$(x)\nqueue x in (0 7)",
            Some("in.7 can't be read"),
        );
        check_text("executable = $(x)\nqueue x in (/bin/cat plain)", Some("plain is not executable"));
        check_text("executable = /bin/true\noutput = no/out\nqueue", Some("out can't be written"));
        check_text("executable = /bin/true\ninitialdir = no\nqueue", Some("can't be used as initialdir"));
    }
}

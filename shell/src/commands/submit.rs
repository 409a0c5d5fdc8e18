//! `submit`: from a submit description to a cluster.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, IsTerminal, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::Parser;
use serde::Serialize;
use vo_core::JobId;
use vo_core::job::{Program, Transfer};
use vo_core::template::{Piece, Template};
use vo_lang::submit::{self, Context, GetEnv, Group, JobAd, ShouldTransfer, Universe};
use vo_wire::Frame;
use vo_wire::control::{Submit as Request, SubmitGroup, Submitted};
use vo_wire::frame::MAX_FRAME;

use super::Asking;
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
    /// Name of the batch in listings
    #[arg(long, value_name = "NAME")]
    batch_name: Option<String>,
    /// Print the ids alone: first and last job
    #[arg(long, conflicts_with = "json")]
    terse: bool,
    /// A JSON array, one object for each cluster
    #[arg(long)]
    json: bool,
    /// Submit descriptions; `-` is standard input [default: standard input, unless it is a terminal]
    #[arg(value_name = "FILE")]
    words: Vec<OsString>,
}

/// Jobs of one template whose files are looked for before anything is submitted; what is missing for later ones holds them.
const CHECKED_JOBS: u32 = 10_000;

/// A cluster, as `--json` tells it.
#[derive(Serialize)]
struct SubmittedJson {
    cluster: u32,
    jobs: u32,
}

pub(super) fn run(arguments: Submit) -> Result<ExitCode> {
    let Submit { asking, append, batch_name, terse, json, words } = arguments;
    let (overrides, mut files): (Vec<_>, Vec<_>) =
        words.into_iter().partition(|word| assignment(word).is_some() && !Path::new(word).exists());
    let overrides: Vec<(String, Vec<u8>)> = append
        .iter()
        .chain(&overrides)
        .map(|word| {
            assignment(word).ok_or_else(|| Error::usage(format!("{} is not of the form NAME=VALUE", word.display())))
        })
        .collect::<Result<_>>()?;
    if files.is_empty() {
        if io::stdin().is_terminal() {
            return Err(Error::usage("no submit description given").hint("`submit FILE`; `help submit` tells more"));
        }
        files.push("-".into());
    }
    let here = std::env::current_dir().map_err(|e| Error::system("cannot tell the current directory", e))?;
    // All of them are read and checked before any is sent.
    let requests: Vec<Request> =
        files.iter().map(|file| prepare(file, &overrides, batch_name.as_deref(), &here)).collect::<Result<_>>()?;
    let mut master = asking.connect()?;
    let mut list = json.then(|| JsonList::new(stdout()));
    let mut submit = |request: &Request| -> Result<()> {
        let Submitted { cluster, jobs } = master.ask(request)?;
        match &mut list {
            Some(list) => list.push(&SubmittedJson { cluster, jobs })?,
            None if terse => println!("{cluster}.0 - {cluster}.{}", jobs.saturating_sub(1)),
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

/// `NAME=VALUE` or `NAME = VALUE`, taken apart.
fn assignment(word: &OsStr) -> Option<(String, Vec<u8>)> {
    let bytes = word.as_bytes();
    let (name, value) = bytes.split_at_checked(bytes.iter().position(|b| *b == b'=')?)?;
    let name = str::from_utf8(name).ok()?.trim();
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'+'));
    plain.then(|| (name.to_owned(), value.get(1..).unwrap_or_default().trim_ascii().to_vec()))
}

fn prepare(file: &OsStr, overrides: &[(String, Vec<u8>)], batch_name: Option<&str>, here: &Path) -> Result<Request> {
    let shown = file.to_string_lossy();
    let mut text = Vec::new();
    // One byte more than is taken, so that the parser sees that it is too much.
    let most = submit::MAX_TEXT as u64 + 1;
    let read = if file == "-" {
        io::stdin().lock().take(most).read_to_end(&mut text)
    } else {
        fs::File::open(file).and_then(|opened| opened.take(most).read_to_end(&mut text))
    };
    read.map_err(|e| Error::new(ExitCode::Refused, format!("cannot read {shown}")).because(e))?;
    let env = |name: &str| std::env::var_os(name).map(OsString::into_vec);
    let description = match submit::parse(&shown, &text, &Context { env: &env, overrides }) {
        Ok(description) => description,
        Err(findings) => {
            findings.iter().for_each(|finding| eprintln!("{finding}"));
            return Err(Error::new(ExitCode::Refused, format!("nothing of {shown} was submitted")));
        }
    };
    description.warnings.iter().for_each(|warning| eprintln!("{warning}"));
    let mut first = 0;
    let mut groups = Vec::new();
    for group in &description.groups {
        let converted = convert(group, here)?;
        check(&converted, first)?;
        first += group.count;
        groups.push(converted);
    }
    let ad = description.groups.first().map(|group| &group.ad);
    let name = batch_name.map(str::to_owned).or_else(|| name(ad?, file)).unwrap_or_default();
    let request = Request { groups, name };
    if Frame::new(0, &request).body.len() + 64 > MAX_FRAME {
        let error = Error::new(
            ExitCode::Refused,
            format!("{shown} describes {} different programs, which is too much at once", request.groups.len()),
        );
        return Err(error.hint("put them into several files, or let $(Process) tell them apart"));
    }
    Ok(request)
}

/// What listings call the cluster.
fn name(ad: &JobAd, file: &OsStr) -> Option<String> {
    let bytes = match &ad.batch_name {
        Some(name) => name.source(),
        None if file == "-" => base(&ad.executable.source()),
        None => base(file.as_bytes()),
    };
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn base(path: &[u8]) -> Vec<u8> {
    path.rsplit(|b| *b == b'/').next().unwrap_or_default().to_vec()
}

fn convert(group: &Group, here: &Path) -> Result<SubmitGroup> {
    let ad = &group.ad;
    if ad.universe == Universe::Local {
        return Err(Error::new(ExitCode::Refused, "universe local is not supported")
            .hint("universe vanilla runs jobs on any node of the pool"));
    }
    let optional = |template: &Option<submit::Template>| template.as_ref().map(late).transpose();
    let list = |templates: &[submit::Template]| templates.iter().map(late).collect::<Result<Vec<_>>>();
    let executable = late(&ad.executable)?;
    let program = Program {
        executable: if ad.transfer_executable { absolute(here, executable) } else { executable },
        arguments: list(&ad.arguments)?,
        environment: environment(ad)?,
        initialdir: absolute(here, optional(&ad.initialdir)?.unwrap_or_default()),
        input: optional(&ad.input)?,
        output: optional(&ad.output)?,
        error: optional(&ad.error)?,
        transfer_input: list(&ad.transfer_input)?,
        transfer_output: ad.transfer_output.as_deref().map(list).transpose()?,
        transfer: match ad.transfer {
            ShouldTransfer::Yes => Transfer::Yes,
            ShouldTransfer::No => Transfer::No,
            ShouldTransfer::IfNeeded => Transfer::IfNeeded,
        },
        transfer_executable: ad.transfer_executable,
        cpus: ad.request_cpus,
        memory_mb: ad.request_memory_mb,
        gpus: 0,
    };
    Ok(SubmitGroup { count: group.count, program, log: optional(&ad.log)?, ..SubmitGroup::default() })
}

/// The description's variables, after those that `getenv` takes from here.
fn environment(ad: &JobAd) -> Result<Vec<(Template, Template)>> {
    let mut variables = Vec::new();
    if ad.getenv != GetEnv::None {
        for (name, value) in std::env::vars_os() {
            // The session's own variables mean nothing to a job.
            let ours = name.as_bytes().starts_with(b"VO_SESSION");
            let set = ad.environment.iter().any(|(other, _)| other.as_bytes() == name.as_bytes());
            if !ours && !set && ad.getenv.selects(name.as_bytes()) {
                variables.push((Template::constant(name.into_vec()), Template::constant(value.into_vec())));
            }
        }
    }
    for (name, value) in &ad.environment {
        variables.push((Template::constant(name.as_bytes()), late(value)?));
    }
    Ok(variables)
}

/// `path` seen from `here`, unless it is absolute.
fn absolute(here: &Path, path: Template) -> Template {
    if matches!(path.0.first(), Some(Piece::Text(text)) if text.first() == Some(&b'/')) {
        return path;
    }
    let mut start = here.as_os_str().as_bytes().to_vec();
    if !path.0.is_empty() {
        start.push(b'/');
    }
    let mut pieces = vec![Piece::Text(start)];
    pieces.extend(path.0);
    Template(pieces)
}

/// The template in the pool's form.
fn late(template: &submit::Template) -> Result<Template> {
    if let Some(text) = template.as_constant() {
        return Ok(Template::constant(text));
    }
    let source = template.source();
    let mut pieces = Vec::new();
    let mut text = Vec::new();
    let mut rest = source.as_slice();
    while let Some((byte, tail)) = rest.split_first() {
        let macros: [(&[u8], Option<Piece>); 3] =
            [(b"$(DOLLAR)", None), (b"$(Cluster)", Some(Piece::Cluster)), (b"$(Process)", Some(Piece::Process))];
        match macros.into_iter().find_map(|(name, piece)| Some((rest.strip_prefix(name)?, piece))) {
            Some((tail, None)) => {
                text.push(b'$');
                rest = tail;
            }
            Some((tail, Some(piece))) => {
                if !text.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut text)));
                }
                pieces.push(piece);
                rest = tail;
            }
            None if *byte == b'$' => {
                let error = Error::new(ExitCode::Refused, "$(Step) after the first queue statement is not supported");
                return Err(error.hint("use $(Process), or a file for each queue statement"));
            }
            None => {
                text.push(*byte);
                rest = tail;
            }
        }
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
    Ok(Template(pieces))
}

/// Looks for what the jobs need on this machine.
fn check(group: &SubmitGroup, first: u32) -> Result<()> {
    let program = &group.program;
    let mut seen = HashSet::new();
    let mut each = |template: &Template, what: fn(&Path) -> Result<(), Problem>| -> Result<()> {
        let jobs =
            if template.is_constant() && program.initialdir.is_constant() { 1 } else { group.count.min(CHECKED_JOBS) };
        for proc in first..first.saturating_add(jobs) {
            // The cluster's number is not known yet. Files named by it can't be there.
            let job = JobId { cluster: 0, proc };
            let dir = PathBuf::from(OsString::from_vec(program.initialdir.expand(job)));
            let path = dir.join(OsStr::from_bytes(&template.expand(job)));
            if seen.insert((path.clone(), what as usize)) {
                what(&path).map_err(|problem| problem.refuse(&path))?;
            }
        }
        Ok(())
    };
    let named_by_cluster =
        |template: &Template| [template, &program.initialdir].iter().any(|t| t.0.contains(&Piece::Cluster));
    if program.transfer_executable && !named_by_cluster(&program.executable) {
        each(&program.executable, executable)?;
    }
    if !named_by_cluster(&Template::default()) {
        each(&program.initialdir, directory)?;
    }
    for input in program.input.iter().chain(&program.transfer_input) {
        let url = matches!(input.0.first(), Some(Piece::Text(text)) if text.windows(3).any(|w| w == b"://"));
        if !url && !named_by_cluster(input) {
            each(input, readable)?;
        }
    }
    for output in program.output.iter().chain(&program.error).chain(&group.log) {
        if !named_by_cluster(output) {
            each(output, writable)?;
        }
    }
    Ok(())
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
    const HINT: &str =
        "executable names the program, seen from here; `transfer_executable = false` for a program of the nodes";
    match fs::metadata(path) {
        Err(e) => Err(Problem::new(format!("can't be used as the executable: {e}"), HINT)),
        Ok(found) if !found.is_file() => {
            Err(Problem::new("can't be used as the executable: it is no regular file", HINT))
        }
        Ok(found) if found.permissions().mode() & 0o111 == 0 => {
            Err(Problem::new("is not executable", "`chmod +x` makes it so"))
        }
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
        _ => Err(Problem::new(
            "can't be written: its directory isn't there",
            "make the directory first; outputs are named from initialdir",
        )),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn parsed(text: &[u8]) -> submit::Description {
        submit::parse("a.sub", text, &Context { env: &|_| None, overrides: &[] }).unwrap()
    }

    #[test]
    fn templates_keep_every_byte() {
        let description =
            parsed(b"executable = /bin/echo\narguments = a$(DOLLAR)(Process)\xff.$(Cluster).$(Process)\nqueue 2\n");
        let argument = &description.groups[0].ad.arguments[0];
        let converted = late(argument).unwrap();
        for proc in [0, 1, 12] {
            assert_eq!(converted.expand(JobId { cluster: 7, proc }), argument.expand(7, proc));
        }
    }

    #[test]
    fn paths_are_seen_from_where_submit_runs() {
        let here = Path::new("/home/ann");
        let check = |path: &str, expected: &str| {
            let made = absolute(here, Template::constant(path));
            assert_eq!(made.expand(JobId { cluster: 1, proc: 0 }), expected.as_bytes());
        };
        check("", "/home/ann");
        check("run", "/home/ann/run");
        check("/scratch", "/scratch");
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
            let description = parsed(text.as_bytes());
            let result = convert(&description.groups[0], dir.path()).and_then(|group| check(&group, 0));
            let message = result.err().map(|e| e.to_string());
            match (expected, &message) {
                (None, None) => {}
                (Some(part), Some(message)) if message.contains(part) => {}
                _ => panic!("{text:?}: {message:?}"),
            }
        };
        fs::write(dir.path().join("plain"), "").unwrap();
        fs::write(dir.path().join("in.0"), "").unwrap();
        check_text("executable = /bin/true\nqueue", None);
        check_text("executable = absent\nqueue", Some("absent can't be used as the executable"));
        check_text("executable = plain\nqueue", Some("plain is not executable"));
        check_text("executable = absent\ntransfer_executable = false\nqueue", None);
        check_text("executable = /bin/cat\ninput = in.$(Process)\nqueue 1", None);
        check_text("executable = /bin/cat\ninput = in.$(Process)\nqueue 2", Some("in.1 can't be read"));
        check_text("executable = /bin/cat\ninput = in.$(Cluster)\nqueue", None);
        check_text("executable = /bin/true\noutput = no/out\nqueue", Some("out can't be written"));
        check_text("executable = /bin/true\ninitialdir = no\nqueue", Some("can't be used as initialdir"));
    }
}

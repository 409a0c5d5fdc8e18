//! What a node runs: its submission and its scripts, as processes of the workstation.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::{CommandExt as _, ExitStatusExt};
use std::path::PathBuf;
use std::process::Stdio;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::oneshot;
use vo_core::dag as core;
use vo_wire::dag::{NodeSubmitted, Options, SubmitNode};

use super::*;

/// Characters of the names of a node's parents that its jobs are told, at most.
const PARENT_NAMES: usize = 2000;

/// The plan of a DAG.
pub(super) fn plan(dag: &Dag, options: &Options) -> core::Plan {
    let script = |number, kind| {
        let script = dag.script(number, kind)?;
        Some(script.defer.map(|(status, seconds)| (status, Duration::from_secs(seconds.into()))))
    };
    let node = |(number, node): (u32, &lang::Node)| core::PlanNode {
        kind: match node.kind {
            Kind::Job | Kind::Subdag => core::Kind::Regular,
            Kind::Join => core::Kind::Join,
            Kind::Final => core::Kind::Final,
            Kind::Provisioner => core::Kind::Provisioner,
            Kind::Service => core::Kind::Service,
        },
        noop: node.noop,
        done: node.done,
        priority: node.priority,
        retries: node.retries,
        unless_exit: node.unless_exit,
        abort_on: node.abort_on.map(|abort| (abort.exit, abort.code)),
        pre_skip: node.pre_skip,
        tolerance: node.tolerance.map_or(
            core::Tolerance { value: options.tolerance, percent: false, fail_fast: !options.keep_jobs },
            |t| core::Tolerance {
                value: t.value,
                percent: t.percent,
                fail_fast: t.fail_fast.unwrap_or(!options.keep_jobs),
            },
        ),
        scripts: [script(number, ScriptKind::Pre), script(number, ScriptKind::Post), script(number, ScriptKind::Hold)],
        category: dag.category(number),
        save_point: dag.save_point(number).is_some(),
    };
    let (mut starts, mut children) =
        (Vec::with_capacity(dag.nodes().len() + 1), Vec::with_capacity(dag.graph().edges()));
    let end = |children: &Vec<u32>| u32::try_from(children.len()).unwrap_or(u32::MAX);
    for number in (0..).take(dag.nodes().len()) {
        starts.push(end(&children));
        children.extend(dag.graph().children(number).map(|(child, weak)| child | if weak { core::WEAK } else { 0 }));
    }
    starts.push(end(&children));
    // 0 is no limit, as condor_submit_dag takes it.
    let limit = |limit: Option<u32>| limit.filter(|limit| *limit > 0);
    core::Plan {
        nodes: (0..).zip(dag.nodes()).map(node).collect(),
        starts,
        children,
        categories: dag.categories().iter().map(|category| category.limit).collect(),
        limits: core::Limits {
            jobs: limit(options.max_jobs),
            idle: limit(options.max_idle),
            pre: limit(options.max_pre),
            post: limit(options.max_post),
            hold: limit(options.max_hold),
        },
        always_post: options.always_post,
        depth_first: options.depth_first,
        retry_first: options.retry_first,
    }
}

/// What macros say of how a node's jobs ended: the codes, in order, how many jobs had each, the code of each job, and how many were removed.
fn exits(ended: &Ends, name: &str) -> Option<String> {
    let mut counts: BTreeMap<i32, usize> = BTreeMap::new();
    ended.iter().flatten().for_each(|code| *counts.entry(*code).or_default() += 1);
    let joined = |texts: Vec<String>| texts.join(",");
    Some(match name {
        "EXIT_CODES" => joined(counts.keys().map(ToString::to_string).collect()),
        "EXIT_CODE_COUNTS" => joined(counts.iter().map(|(code, count)| format!("{code}:{count}")).collect()),
        "EXIT_CODE_LIST" => {
            joined(ended.iter().map(|code| code.map_or_else(String::new, |code| code.to_string())).collect())
        }
        "JOB_ABORT_COUNT" => ended.iter().filter(|code| code.is_none()).count().to_string(),
        _ => return None,
    })
}

/// The tag of a submission.
fn tag(dag: u32, node: u32, try_number: u32) -> String {
    format!("{dag}:{node}:{try_number}")
}

/// Which DAG, node and try a tag means.
pub(super) fn read_tag(tag: &str) -> Option<(u32, u32, u32)> {
    let mut parts = tag.split(':').map(|part| part.parse().ok());
    let read = (parts.next()??, parts.next()??, parts.next()??);
    parts.next().is_none().then_some(read)
}

/// The session that a submission goes to.
#[derive(Clone, Copy)]
pub(super) struct Home<'a> {
    pub(super) dir: &'a Path,
    pub(super) name: &'a str,
    pub(super) program: &'a Path,
}

/// A process to run.
pub(super) struct Process {
    program: OsString,
    name: OsString,
    words: Vec<OsString>,
    directory: PathBuf,
    environment: Vec<(OsString, OsString)>,
    /// Appended to: a file, whether standard output and standard error are.
    debug: Option<(PathBuf, bool, bool)>,
}

impl Active {
    fn environment(&self) -> Vec<(OsString, OsString)> {
        let word = |bytes: &vo_wire::dag::Bytes| OsString::from_vec(bytes.0.clone());
        self.bundle.environment.iter().map(|(name, value)| (word(name), word(value))).collect()
    }

    fn directory_of(&self, node: u32) -> PathBuf {
        self.directory.join(self.dag.directory(node))
    }

    fn parent_names(&self, node: u32) -> String {
        let mut names = Vec::new();
        for (parent, _) in self.dag.written() {
            let direct = |from: u32| self.dag.graph().children(from).any(|(child, _)| child == node);
            let through = || {
                let joins = self.dag.graph().children(parent).map(|(child, _)| child);
                joins.into_iter().any(|child| {
                    self.dag.nodes().get(child as usize).is_some_and(|n| n.kind == Kind::Join) && direct(child)
                })
            };
            if direct(parent) || through() {
                names.push(self.dag.name(parent));
            }
        }
        let names = names.join(",");
        if names.len() > PARENT_NAMES { String::new() } else { names }
    }

    fn priority(&self, node: u32) -> i32 {
        self.dag.nodes().get(node as usize).map_or(0, |node| node.priority) + self.bundle.options.priority
    }

    /// A grid command in the DAG's environment.
    fn grid_command(&self, name: &str, words: Vec<OsString>, directory: PathBuf, session: Home<'_>) -> Process {
        let mut environment = self.environment();
        environment.retain(|(name, _)| !name.as_bytes().starts_with(b"VO_SESSION"));
        environment.push(("VO_SESSION".into(), session.name.into()));
        environment.push(("VO_SESSION_DIR".into(), session.dir.into()));
        Process { program: session.program.into(), name: name.into(), words, directory, environment, debug: None }
    }

    /// What submits the DAG that a node is.
    pub(super) fn subdag(&self, dag: u32, node: u32, try_number: u32, session: Home<'_>) -> Process {
        let mut words: Vec<OsString> = vec!["--json".into(), "--dag-node".into(), tag(dag, node, try_number).into()];
        words.extend(self.bundle.options.deep.iter().map(OsString::from));
        let priority = self.priority(node);
        if priority != 0 {
            words.extend([OsString::from("--priority"), priority.to_string().into()]);
        }
        if let Some(Description::Dag(file)) = self.dag.description(node) {
            words.extend([OsString::from("--"), file.into()]);
        }
        self.grid_command("condor_submit_dag", words, self.directory_of(node), session)
    }

    /// What submits other nodes, one after another.
    pub(super) fn submitter(&self, session: Home<'_>) -> Process {
        self.grid_command("submit", vec!["--dag-nodes".into()], session.dir.to_owned(), session)
    }

    /// A node's submission, told of the DAG by macros and attributes as DAGMan's jobs are.
    pub(super) fn submission(&self, dag: u32, node: u32, try_number: u32) -> SubmitNode {
        let (name, options) = (self.dag.name(node), &self.bundle.options);
        let mut before = vec![
            format!("JOB={name}"),
            format!("RETRY={try_number}"),
            format!("DAG_STATUS={}", self.run.status()),
            format!("FAILED_COUNT={}", self.run.counts().of(State::Failed)),
            format!("DAGManJobId={dag}"),
        ];
        // Looking through a large DAG for each node would cost its square.
        if self.dag.nodes().len() <= PARENT_NAMES {
            before.push(format!("DAG_PARENT_NAMES={}", self.parent_names(node)));
        }
        let priority = self.priority(node);
        if priority != 0 {
            before.push(format!("priority={priority}"));
        }
        before.extend(options.batch_name.iter().map(|batch| format!("batch_name={batch}")));
        let mut append = Vec::new();
        for (name, value, last) in self.dag.vars(node) {
            let list = if last.unwrap_or(options.append_vars) { &mut append } else { &mut before };
            list.push(format!("{name}={value}"));
        }
        append.push(format!("MY.DAGManJobId={dag}"));
        append.push(format!("MY.DAGNodeName=\"{name}\""));
        append.push(format!("MY.DAGManNodeRetry={try_number}"));
        if !options.mail_nodes {
            append.push("notification=never".to_owned());
        }
        let (file, text) = match self.dag.description(node) {
            Some(Description::File(file)) => (file.into(), None),
            Some(Description::Inline(text)) => (String::new(), Some(vo_wire::dag::Bytes(text.to_vec()))),
            _ => (String::new(), None),
        };
        let directory = self.directory_of(node).into_os_string().into_vec();
        SubmitNode { tag: tag(dag, node, try_number), directory, file, text, before, append }
    }

    /// A script of a node, with its macros filled in.
    pub(super) fn script(&self, dag: u32, node: u32, script: Script, ended: &Ends) -> Process {
        let kind = match script {
            Script::Pre => ScriptKind::Pre,
            Script::Post => ScriptKind::Post,
            Script::Hold => ScriptKind::Hold,
        };
        let found = self.dag.script(node, kind);
        let command = found.map_or("", |script| script.command.as_str());
        let mut words = command.split([' ', '\t']).filter(|word| !word.is_empty());
        let program = words.next().unwrap_or_default();
        let directory = self.directory_of(node);
        // A name alone means a file there, as with DAGMan, else a program of the system.
        let beside = !program.contains('/') && directory.join(program).exists();
        let words = words.map(|word| OsString::from(self.filled(dag, node, script, ended, word))).collect();
        let debug = found.and_then(|script| script.debug.as_ref());
        Process {
            program: if beside { directory.join(program).into() } else { program.into() },
            name: program.into(),
            words,
            environment: self.environment(),
            debug: debug.map(|(file, out, err)| (directory.join(file), *out, *err)),
            directory,
        }
    }

    fn filled(&self, dag: u32, node: u32, script: Script, ended: &Ends, word: &str) -> String {
        let Some(name) = word.strip_prefix('$') else { return word.to_owned() };
        let counts = self.run.counts();
        let cluster = self.run.cluster(node).unwrap_or(0);
        let jobs = self.submitted_jobs.get(&node).copied().unwrap_or(0);
        let code = if self.run.pre_code(node) != 0 { core::JOB_SKIPPED } else { self.run.code(node) };
        let count = |number: u32| number.to_string();
        let all = match name.to_ascii_uppercase().as_str() {
            "NODE" | "JOB" => self.dag.name(node).to_owned(),
            "RETRY" => count(self.run.retries(node)),
            "MAX_RETRIES" => count(self.dag.nodes().get(node as usize).map_or(0, |node| node.retries)),
            "DAG_STATUS" => self.run.status().to_string(),
            "FAILED_COUNT" => count(counts.of(State::Failed)),
            "FUTILE_COUNT" => count(counts.of(State::Futile)),
            "DONE_COUNT" => count(counts.of(State::Done)),
            "QUEUED_COUNT" => count(counts.of(State::Submitted)),
            "NODE_COUNT" => count(counts.total()),
            "DAGID" => count(dag),
            _ => String::new(),
        };
        if !all.is_empty() || script == Script::Pre {
            return if all.is_empty() { word.to_owned() } else { all };
        }
        match name.to_ascii_uppercase().as_str() {
            "JOBID" => format!("{cluster}.{}", jobs.saturating_sub(1)),
            "CLUSTERID" => count(cluster),
            "JOB_COUNT" => count(jobs),
            "SUCCESS" => (if code == 0 { "True" } else { "False" }).to_owned(),
            "RETURN" => code.to_string(),
            "PRE_SCRIPT_RETURN" => self.run.pre_code(node).to_string(),
            name => exits(ended, name).unwrap_or_else(|| word.to_owned()),
        }
    }
}

impl Process {
    fn command(&self) -> Command {
        let mut command = std::process::Command::new(&self.program);
        command.arg0(&self.name).args(&self.words).current_dir(&self.directory);
        command.env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).process_group(0);
        let mut command = Command::from(command);
        // SAFETY: prctl is safe to call between fork and exec.
        unsafe {
            // What a master began must not run beside what the next one begins.
            command.pre_exec(|| {
                nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).map_err(io::Error::from)
            });
        }
        command
    }

    fn missing(&self) -> Option<String> {
        let found = self.directory.is_dir();
        (!found).then(|| format!("there is no directory {}", self.directory.display()))
    }
}

/// Submits the DAG that a node is; tells its number.
pub(super) async fn submit_dag(process: Process) -> Result<(u32, u32), String> {
    if let Some(missing) = process.missing() {
        return Err(missing);
    }
    let mut command = process.command();
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let output = command.output().await.map_err(|e| format!("cannot run condor_submit_dag: {e}"))?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if !output.status.success() {
        return Err(if said.is_empty() { format!("condor_submit_dag ended with {}", output.status) } else { said });
    }
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout).map_err(|e| e.to_string())?;
    let number = rows.get(0).and_then(|row| row.get("dag")?.as_u64()).and_then(|n| u32::try_from(n).ok());
    number.map(|dag| (dag, 1)).ok_or_else(|| "condor_submit_dag told no DAG".to_owned())
}

/// A `submit` that submits the nodes of a DAG, one after another: a process for each would cost more than all the rest of a node.
pub(crate) struct Submitter {
    child: Child,
    requests: ChildStdin,
    answers: ChildStdout,
}

impl Submitter {
    pub(super) fn start(process: &Process) -> Result<Submitter, String> {
        let failed = |e: &dyn std::fmt::Display| format!("cannot run submit: {e}");
        let mut command = process.command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|e| failed(&e))?;
        let (Some(requests), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed(&"it has no pipes"));
        };
        Ok(Submitter { child, requests, answers })
    }

    /// Submits a node: tells its cluster and jobs, or why there are none. If it can't even tell that, it is no use any more.
    pub(super) async fn submit(mut self, node: &SubmitNode) -> (Option<Submitter>, Result<(u32, u32), String>) {
        match self.ask(node).await {
            Ok(NodeSubmitted { cluster: Some(cluster), .. }) => (Some(self), Ok(cluster)),
            Ok(NodeSubmitted { said, .. }) => (Some(self), Err(said)),
            Err(why) => {
                let ended = self.child.try_wait().ok().flatten();
                (
                    None,
                    Err(ended.map_or_else(|| format!("submit: {why}"), |status| format!("submit ended with {status}"))),
                )
            }
        }
    }

    async fn ask(&mut self, node: &SubmitNode) -> io::Result<NodeSubmitted> {
        let body = minicbor::to_vec(node).map_err(io::Error::other)?;
        let length = u32::try_from(body.len()).map_err(io::Error::other)?;
        self.requests.write_all(&[&length.to_be_bytes(), &body[..]].concat()).await?;
        let length = self.answers.read_u32().await?;
        let mut body = vec![0; length as usize];
        self.answers.read_exact(&mut body).await?;
        minicbor::decode(&body).map_err(io::Error::other)
    }
}

/// Runs a script; tells its exit code, or its signal as a negative. One that can't be started ended with 1.
pub(super) fn run_script(process: Process, killed: oneshot::Receiver<()>, tell: impl FnOnce(i32) + Send + 'static) {
    tokio::spawn(async move {
        let code = script(process, killed).await.unwrap_or_else(|why| {
            tracing::warn!(why, "a script of a DAG can't be run");
            1
        });
        tell(code);
    });
}

async fn script(process: Process, killed: oneshot::Receiver<()>) -> Result<i32, String> {
    let mut command = process.command();
    let (out, err) = match &process.debug {
        Some((file, out, err)) => {
            let open = || {
                OpenOptions::new().append(true).create(true).open(file).map_err(|e| format!("{}: {e}", file.display()))
            };
            let each = |wanted: bool| if wanted { open().map(Stdio::from) } else { Ok(Stdio::null()) };
            // What it is the output of, DAGMan says first.
            open()?.write_all(format!("*** {} ***\n", process.name.display()).as_bytes()).map_err(|e| e.to_string())?;
            (each(*out)?, each(*err)?)
        }
        None => (Stdio::null(), Stdio::null()),
    };
    command.stdout(out).stderr(err);
    let mut child = command
        .spawn()
        .map_err(|e| format!("{} in {}: {e}", process.program.display(), process.directory.display()))?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(nix::unistd::Pid::from_raw);
    let status = tokio::select! {
        status = child.wait() => status,
        // An error means that nobody can ask any more: the DAG is over.
        _ = killed => {
            if let Some(group) = group {
                let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
            }
            child.wait().await
        }
    };
    let status = status.map_err(|e| e.to_string())?;
    Ok(status.code().unwrap_or_else(|| -status.signal().unwrap_or(9)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_told_how_jobs_ended() {
        let check = |ended: &[Option<i32>], expected: [&str; 4]| {
            let of = |name| exits(&ended.to_vec(), name).unwrap_or_default();
            let all = ["EXIT_CODES", "EXIT_CODE_COUNTS", "EXIT_CODE_LIST", "JOB_ABORT_COUNT"].map(of);
            assert_eq!(all, expected, "{ended:?}");
        };
        check(&[], ["", "", "", "0"]);
        check(&[Some(0)], ["0", "0:1", "0", "0"]);
        check(&[Some(3), Some(0), None, Some(3), Some(-9)], ["-9,0,3", "-9:1,0:1,3:2", "3,0,,3,-9", "1"]);
        assert_eq!(exits(&vec![Some(0)], "RETURN"), None);
    }
}

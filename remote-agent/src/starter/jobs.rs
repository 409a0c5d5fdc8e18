//! Starting programs: where, with which files and environment, and what it means when that fails.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{AccessFlags, Uid, User};
use vo_core::ids::{AttemptId, JobId};
use vo_core::items::{ESCAPE, Row};
use vo_core::job::{Outcome, Program};
use vo_core::template::Template;
use vo_wire::link::Marker;
use vo_wire::node::Shares;

use crate::spool;

use super::facts;
use super::scratch::{Captures, Place, Scratch, captures, unfetched, unsent, urls};

/// Bytes as a path.
pub(super) fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// Variables that tell libraries how many threads to start, as HTCondor's STARTER_NUM_THREADS_ENV_VARS has them.
const THREAD_VARIABLES: [&str; 12] = [
    "CUBACORES",
    "GOMAXPROCS",
    "JULIA_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OMP_THREAD_LIMIT",
    "OPENBLAS_NUM_THREADS",
    "PYTHON_CPU_COUNT",
    "ROOT_MAX_THREADS",
    "TF_LOOP_PARALLEL_ITERATIONS",
    "TF_NUM_THREADS",
];

/// What of the starter's environment jobs get too: the node's, and the GPUs given to the proxy; none of the batch system's.
const INHERITED: [&str; 5] = ["LANG", "TZ", "SHELL", "HOME", "PATH"];

/// Which GPUs a program may use, as the makers' libraries and HTCondor tell it.
const GPU_VARIABLES: [&str; 4] =
    ["CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "_CONDOR_AssignedGPUs"];

/// What all jobs on the node start with.
#[derive(Debug)]
pub(super) struct Node {
    environment: Vec<(OsString, OsString)>,
    null: File,
    shares: Shares,
    marker_device: Option<u64>,
    /// What its GPUs are called.
    gpus: Vec<String>,
    /// The ad of its slots, and the file that has it.
    ad: Option<(PathBuf, String)>,
    /// Where the ads of jobs are that run in their own directories.
    ads: PathBuf,
}

/// A program, with what is the same for all of its jobs worked out.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) program: Arc<Program>,
    threads: OsString,
    /// The ads of its jobs, and more lines of them; empty if they are not known.
    ads: Arc<[Template; 2]>,
}

impl Prepared {
    pub(super) fn new(program: Program, ad: Template, own: Template) -> Self {
        let threads = program.cpus.max(1).to_string().into();
        Prepared { program: Arc::new(program), threads, ads: Arc::new([ad, own]) }
    }

    /// The same for one job: with the cells of its row in their places.
    pub(super) fn filled(self: Arc<Self>, row: &Row) -> Arc<Self> {
        if row.is_empty() {
            return self;
        }
        let [ad, own] = &*self.ads;
        let ads = Arc::new([ad.fill(&within_strings(row)), own.fill(row)]);
        Arc::new(Prepared { program: self.program.filled(row), threads: self.threads.clone(), ads })
    }

    /// The ad of one job; empty if it is not known.
    fn ad(&self, job: JobId) -> Vec<u8> {
        self.ads.iter().flat_map(|lines| lines.expand(job)).collect()
    }

    /// Where a job that runs in its own directory writes standard output and error.
    pub(super) fn captures_in_place(&self, id: AttemptId) -> Captures {
        let home = PathBuf::from(OsString::from_vec(self.program.initialdir.expand(id.job)));
        let file = |name: &Option<Template>| name.as_ref().map(|name| home.join(path(&name.expand(id.job))));
        captures(file(&self.program.output), file(&self.program.error))
    }
}

/// A row whose cells may stand within the strings of an ad: quotes escaped, words parted by a blank.
fn within_strings(row: &Row) -> Row {
    let mut quoted = Vec::with_capacity(row.0.len());
    for byte in &row.0 {
        match (byte, quoted.last()) {
            (b'"', _) => quoted.extend(b"\\\""),
            (b'w', Some(&ESCAPE)) => *quoted.last_mut().unwrap_or(&mut 0) = b' ',
            _ => quoted.push(*byte),
        }
    }
    Row(quoted)
}

/// An attempt, and what it is given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Given<'a> {
    pub(super) id: AttemptId,
    /// How long its program waits before it starts.
    pub(super) delay: Duration,
    /// Which of the node's GPUs are its own.
    pub(super) gpus: &'a [u32],
}

/// The ad of a job's slot, in its scratch directory.
const SLOT_AD: &str = ".machine.ad";

/// Its own.
const JOB_AD: &str = ".job.ad";

/// The three standard files of a job.
pub(super) struct Standard {
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

/// The umask of a job, until this is dropped. Threads that write meanwhile write below directories that are the starter's alone.
struct Umask(Mode);

impl Umask {
    fn of(program: &Program) -> Umask {
        Umask(umask(Mode::from_bits_truncate(program.umask.unwrap_or(0o022).into())))
    }
}

impl Drop for Umask {
    fn drop(&mut self) {
        umask(self.0);
    }
}

/// The largest core file of a job, until this is dropped: what the node allows, at most.
struct CoreSize(Option<(u64, u64)>);

impl CoreSize {
    fn of(program: &Program) -> CoreSize {
        CoreSize(program.core_bytes.and_then(|wanted| {
            let (soft, hard) = getrlimit(Resource::RLIMIT_CORE).ok()?;
            let wanted = if hard == RLIM_INFINITY { wanted } else { wanted.min(hard) };
            setrlimit(Resource::RLIMIT_CORE, wanted, hard).ok()?;
            Some((soft, hard))
        }))
    }
}

impl Drop for CoreSize {
    fn drop(&mut self) {
        if let Some((soft, hard)) = self.0 {
            let _ = setrlimit(Resource::RLIMIT_CORE, soft, hard);
        }
    }
}

impl Node {
    /// `scratch` is the starter's own.
    pub(super) fn new(shares: Shares, marker: &Marker, scratch: &Scratch) -> io::Result<Node> {
        let mut environment: Vec<(OsString, OsString)> =
            INHERITED.iter().filter_map(|name| Some(((*name).into(), env::var_os(name)?))).collect();
        let mut default = |name: &str, value: OsString| {
            if !environment.iter().any(|(known, set)| known == name && !set.is_empty()) {
                environment.push((name.into(), value));
            }
        };
        if let Ok(Some(user)) = User::from_uid(Uid::current()) {
            default("HOME", user.dir.into());
            default("USER", user.name.clone().into());
            default("LOGNAME", user.name.into());
        }
        default("PATH", "/usr/local/bin:/usr/bin:/bin".into());
        let shared = scratch.tmp().into_os_string();
        environment.push(("TMPDIR".into(), shared.clone()));
        environment.push(("_CONDOR_SCRATCH_DIR".into(), shared));
        let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
        Ok(Node {
            environment,
            null,
            shares,
            marker_device: facts::marker_device(marker),
            gpus: facts::gpus(),
            ad: None,
            ads: scratch.ads(),
        })
    }

    /// Takes in the ad of its slots, for jobs to read in `file`.
    pub(super) fn describe(&mut self, file: PathBuf, ad: String) {
        if self.ad.as_ref().is_some_and(|(_, known)| *known == ad) {
            return;
        }
        match fs::write(&file, &ad) {
            Ok(()) => self.ad = Some((file, ad)),
            Err(e) => tracing::warn!("cannot write {}: {e}", file.display()),
        }
    }

    fn null(&self) -> io::Result<OwnedFd> {
        Ok(self.null.try_clone()?.into())
    }

    /// Opens a job's standard files: what `open` gives for a name, `/dev/null` where there is none. One name for both outputs is
    /// one open file, so that neither overwrites the other. Both begin empty, unless they are to be written on.
    fn standard<'a>(
        &self,
        input: Option<&'a Path>,
        output: Option<&'a Path>,
        error: Option<&'a Path>,
        append: bool,
    ) -> Result<Standard, (io::Error, &'a Path)> {
        let null = || self.null().map_err(|e| (e, Path::new("/dev/null")));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(!append).append(append);
        let create = |path: &'a Path| match options.open(path) {
            Ok(file) => Ok(OwnedFd::from(file)),
            Err(e) => Err((e, path)),
        };
        let stdin = match input {
            Some(path) => File::open(path).map_err(|e| (e, path))?.into(),
            None => null()?,
        };
        let stdout = output.map_or_else(null, create)?;
        let stderr = match error {
            Some(path) if output == error => stdout.try_clone().map_err(|e| (e, path))?,
            error => error.map_or_else(null, create)?,
        };
        Ok(Standard { stdin, stdout, stderr })
    }

    /// Starts a job in its own directory, and says its process id; or why it has none.
    pub(super) fn start_in_place(
        &self,
        prepared: &Prepared,
        given: Given<'_>,
        directory: Option<u64>,
        append: bool,
    ) -> Result<i32, Outcome> {
        let id = given.id;
        let program = &prepared.program;
        let home = PathBuf::from(OsString::from_vec(program.initialdir.expand(id.job)));
        self.check_shared(&home, directory)?;
        let file = |name: &Option<Template>| name.as_ref().map(|name| home.join(path(&name.expand(id.job))));
        let (input, output, error) = (file(&program.input), file(&program.output), file(&program.error));
        let executable = home.join(path(&program.executable.expand(id.job)));
        let _umask = Umask::of(program);
        let standard = self
            .standard(input.as_deref(), output.as_deref(), error.as_deref(), append)
            .map_err(|(e, path)| self.verdict_in_place(&e, "open", path, &home))?;
        let (ad, file) = (prepared.ad(id.job), self.job_ad(id));
        // Where the node has no room for it, a job that needs none of the node's otherwise runs without.
        if !ad.is_empty() && fs::write(file, ad).is_err() {
            self.forget(id);
        }
        self.spawn(prepared, given, &executable, &home, None, standard).map_err(|e| {
            self.forget(id);
            self.verdict_in_place(&e, "execute", &executable, &home)
        })
    }

    /// The file with the ad of a job that runs in its own directory.
    fn job_ad(&self, id: AttemptId) -> PathBuf {
        self.ads.join(spool::name(id))
    }

    /// A job that ran in its own directory has ended.
    pub(super) fn forget(&self, id: AttemptId) {
        let _ = fs::remove_file(self.job_ad(id));
    }

    /// Starts a job in its scratch directory, and says its process id; or why it has none.
    pub(super) fn start_in_scratch(
        &self,
        prepared: &Prepared,
        given: Given<'_>,
        place: &Place,
    ) -> Result<i32, Outcome> {
        let _umask = Umask::of(&prepared.program);
        let (input, output, error) = (place.stdin.as_deref(), place.stdout.as_deref(), place.stderr.as_deref());
        let standard =
            self.standard(input, output, error, place.append).map_err(|(e, path)| verdict(&e, "open", path))?;
        let work = place.work();
        let put = |name: &str, ad: &[u8]| {
            let file = work.join(name);
            let open = OpenOptions::new().write(true).create_new(true).open(&file);
            match open.and_then(|mut file| file.write_all(ad)) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(verdict(&e, "write", &file)),
                _ => Ok(()),
            }
        };
        if let Some((_, ad)) = &self.ad {
            put(SLOT_AD, ad.as_bytes())?;
        }
        let ad = prepared.ad(given.id.job);
        if !ad.is_empty() {
            put(JOB_AD, &ad)?;
        }
        self.spawn(prepared, given, &place.executable, &work, Some(&work), standard)
            .map_err(|e| verdict(&e, "execute", &place.executable))
    }

    /// Starts to send outputs to their URLs, in the environment of their job, whose program has ended; says the process id.
    pub(super) fn send(
        &self,
        prepared: &Prepared,
        given: Given<'_>,
        place: &Place,
        files: &[(PathBuf, OsString)],
    ) -> io::Result<i32> {
        let _umask = Umask::of(&prepared.program);
        let work = place.work();
        let standard = self.standard(None, None, None, false).map_err(|(e, _)| e)?;
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", SEND, "sh"]).arg(unsent(&work));
        for (file, url) in files {
            shell.arg(file).arg(url);
        }
        self.launch(shell, prepared, given, &work, Some(&work), standard)
    }

    /// Is `home` the job's own directory?
    fn check_shared(&self, home: &Path, inode: Option<u64>) -> Result<(), Outcome> {
        match self.shares {
            Shares::Everything => Ok(()),
            Shares::MarkerFs => {
                let found = fs::metadata(home).ok().filter(fs::Metadata::is_dir);
                let same = found.is_some_and(|m| Some(m.ino()) == inode && Some(m.dev()) == self.marker_device);
                if same { Ok(()) } else { Err(Outcome::NeedsFiles) }
            }
            Shares::Nothing => Err(Outcome::NeedsFiles),
        }
    }

    /// What a failure means for a job that runs in its own directory.
    fn verdict_in_place(&self, e: &io::Error, what: &str, path: &Path, home: &Path) -> Outcome {
        if !is_absent(e) {
            verdict(e, what, path)
        } else if self.shares == Shares::MarkerFs {
            // The workstation may have it outside of the file system that we share.
            Outcome::NeedsFiles
        } else if !home.is_dir() {
            verdict(e, "enter", home)
        } else {
            verdict(e, what, path)
        }
    }

    /// Starts the program, after `delay`, and says its process id, which is also its process group's. `own_scratch` is the job's scratch
    /// directory, if it has one of its own.
    pub(super) fn spawn(
        &self,
        prepared: &Prepared,
        given: Given<'_>,
        executable: &Path,
        directory: &Path,
        own_scratch: Option<&Path>,
        standard: Standard,
    ) -> io::Result<i32> {
        let Given { id, delay, .. } = given;
        let text = |template: &Template, job: JobId| OsString::from_vec(template.expand(job));
        let program = &prepared.program;
        // process_group and current_dir keep std on posix_spawn, which doesn't copy our page tables; a pre_exec hook would not.
        let mut command = match &program.container {
            Some(image) => container(path(&image.expand(id.job)), executable, directory, program)?,
            None => Command::new(executable),
        };
        if !delay.is_zero() {
            if program.container.is_none() {
                nix::unistd::access(executable, AccessFlags::X_OK)?;
            }
            command = waiting(&command, delay)?;
        }
        // What an earlier try left is not fetched anew.
        let fetched =
            |work: &Path| urls(program, id).into_iter().filter(|(_, name)| !work.join(name).exists()).collect();
        let fetched = own_scratch.map(|work| (work, fetched(work))).filter(|(_, urls): &(_, Vec<_>)| !urls.is_empty());
        if let Some((work, urls)) = fetched {
            command = fetching(&command, &unfetched(work), &urls);
        }
        command.args(program.arguments.iter().map(|argument| text(argument, id.job)));
        let _core_size = CoreSize::of(program);
        self.launch(command, prepared, given, directory, own_scratch, standard)
    }

    /// Starts a command as a job's process.
    fn launch(
        &self,
        mut command: Command,
        prepared: &Prepared,
        Given { id, gpus, .. }: Given<'_>,
        directory: &Path,
        own_scratch: Option<&Path>,
        standard: Standard,
    ) -> io::Result<i32> {
        let text = |template: &Template| OsString::from_vec(template.expand(id.job));
        let program = &prepared.program;
        command
            .current_dir(directory)
            .process_group(0)
            .stdin(Stdio::from(standard.stdin))
            .stdout(Stdio::from(standard.stdout))
            .stderr(Stdio::from(standard.stderr))
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .envs(THREAD_VARIABLES.map(|name| (name, &prepared.threads)));
        if !self.gpus.is_empty() {
            // A job sees its own GPUs alone: one that asked for none, none.
            let names: Vec<&str> =
                gpus.iter().filter_map(|gpu| self.gpus.get(*gpu as usize)).map(String::as_str).collect();
            let names = names.join(",");
            command.envs(GPU_VARIABLES.map(|name| (name, &names)));
        }
        if let Some(scratch) = own_scratch {
            command.env("TMPDIR", scratch).env("_CONDOR_SCRATCH_DIR", scratch);
        }
        if let Some((file, _)) = &self.ad {
            command
                .env("_CONDOR_MACHINE_AD", own_scratch.map_or_else(|| file.clone(), |scratch| scratch.join(SLOT_AD)));
        }
        let file = own_scratch.map_or_else(|| self.job_ad(id), |scratch| scratch.join(JOB_AD));
        if !prepared.ads[0].0.is_empty() && file.exists() {
            command.env("_CONDOR_JOB_AD", file);
        }
        command
            .envs(program.environment.iter().map(|(name, value)| (text(name), text(value))))
            .env("VO_JOB", id.job.to_string())
            .env("VO_ATTEMPT", id.attempt.to_string());
        Ok(command.spawn()?.id().cast_signed())
    }
}

/// Fetches inputs, with the programs that the node has for their URLs, then becomes the job's program: `sh -c … sh MARK [URL NAME]... -- PROGRAM...`. What
/// fails is told in the file MARK. All of it is the job's process, and is killed and reaped as that is.
const FETCH: &str = r#"mark=$1; shift
while [ "$1" != -- ]; do
	url=$1 name=$2; shift 2
	case $url in
	http://* | https://* | ftp://* | file://*)
		said=$(curl --fail --silent --show-error --location --retry 2 --speed-limit 1 --speed-time 120 --output "$name" -- "$url" 2>&1) ;;
	osdf://* | pelican://* | stash://* | *+osdf://* | *+pelican://*)
		if command -v pelican >/dev/null; then said=$(pelican object get "$url" "$name" 2>&1)
		elif command -v stashcp >/dev/null; then said=$(stashcp "$url" "$name" 2>&1)
		else said='the node has neither pelican nor stashcp' && false; fi ;;
	*) said='nothing here fetches such a URL' && false ;;
	esac || { printf '%s can not be fetched: %s' "$url" "$said" >"$mark"; exit 1; }
done
shift
exec "$@""#;

/// `command`, after its inputs were fetched.
fn fetching(command: &Command, mark: &Path, urls: &[(OsString, OsString)]) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", FETCH, "sh"]).arg(mark);
    for (url, name) in urls {
        shell.arg(url).arg(name);
    }
    shell.arg("--").arg(command.get_program()).args(command.get_args());
    shell
}

/// Sends outputs to their URLs: `sh -c … sh MARK [FILE URL]...`. The first that fails is told in the file MARK, unless a signal ended its program: then
/// somebody ended all of them. What goes to a file is whole there or isn't there.
const SEND: &str = r#"mark=$1; shift
copy() {
	to=${1#file://}
	[ -d "$to" ] && echo 'it is a directory' && return 1
	mkdir -p -- "${to%/*}/" && part=$(mktemp -- "${to%/*}/.vo-partial-XXXXXX") || return
	cp -p -- "$file" "$part" && sync "$part" && mv -f -- "$part" "$to" || { code=$?; rm -f -- "$part"; return $code; }
}
while [ $# -gt 0 ]; do
	file=$1 url=$2; shift 2
	case $url in
	file:///*) said=$(copy "$url" 2>&1) ;;
	http://* | https://* | ftp://*)
		said=$(curl --fail --silent --show-error --location --retry 2 --speed-limit 1 --speed-time 120 --output /dev/null --upload-file "$file" -- "$url" 2>&1) ;;
	osdf://* | pelican://* | stash://* | *+osdf://* | *+pelican://*)
		if command -v pelican >/dev/null; then said=$(pelican object put "$file" "$url" 2>&1)
		else said=$(stashcp "$file" "$url" 2>&1); fi ;;
	*) said='nothing here sends to such a URL' && false ;;
	esac
	code=$?
	[ $code -lt 128 ] || exit 1
	[ $code -eq 0 ] || { printf '%s can not be sent to %s: %s' "${file##*/}" "$url" "$said" >"$mark"; exit 1; }
done"#;

/// Waits until the node has been up for so many hundredths of a second, then becomes the job's program: `sh -c … sh HUNDREDTHS PROGRAM...`.
const WAIT: &str = r#"until=$1; shift
read -r up idle </proc/uptime
left=$((until - ${up%.*}${up#*.}))
[ "$left" -le 0 ] || sleep "$((left / 100)).$((left % 100 / 10))$((left % 10))"
exec "$@""#;

/// `command`, when `delay` has passed, fetched inputs or not.
fn waiting(command: &Command, delay: Duration) -> io::Result<Command> {
    let text = fs::read_to_string("/proc/uptime")?;
    let up: f64 = text.split(' ').next().and_then(|up| up.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    let until = ((up + delay.as_secs_f64()) * 100.0).ceil() as u64;
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", WAIT, "sh", &until.to_string()]).arg(command.get_program()).args(command.get_args());
    Ok(shell)
}

/// Programs that run containers, the first that is there; the same by two names.
pub(super) const APPTAINER: [&str; 2] = ["apptainer", "singularity"];
/// Programs that fetch from and send to the OSDF, the first that is there.
pub(super) const PELICAN: [&str; 2] = ["pelican", "stashcp"];
/// One that runs containers of a registry's images.
pub(super) const PODMAN: &str = "podman";

/// Does a search for programs find this one?
pub(super) fn installed(name: &str) -> bool {
    let dirs = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&dirs).any(|dir| dir.join(name).is_file())
}

/// A command that runs `executable` in a container of `image`, where `directory` is seen as it is here. An image that is a file or a directory lies
/// in `directory`, if it travelled, or where its name says.
fn container(image: &Path, executable: &Path, directory: &Path, program: &Program) -> io::Result<Command> {
    let schemes = [&b"docker:"[..], b"oras:", b"library:", b"shub:"];
    let registry = schemes.iter().any(|scheme| image.as_os_str().as_bytes().starts_with(scheme));
    let travelled = image.file_name().map(|name| directory.join(name)).filter(|file| file.exists());
    let image = if registry { image.to_owned() } else { travelled.unwrap_or_else(|| directory.join(image)) };
    if let Some(runtime) = APPTAINER.into_iter().find(|name| installed(name)) {
        let mut command = Command::new(runtime);
        command.args(["exec", "--no-home"]);
        if program.gpus > 0 {
            command.arg("--nv");
        }
        command.arg("--bind").arg(directory).arg("--pwd").arg(directory).arg(image).arg(executable);
        return Ok(command);
    }
    if registry && installed(PODMAN) {
        let mut command = Command::new(PODMAN);
        let mut volume = directory.as_os_str().to_owned();
        volume.push(":");
        volume.push(directory);
        command.args(["run", "--rm", "--interactive", "--network=host", "--env-host", "--volume"]).arg(volume);
        command.arg("--workdir").arg(directory).arg("--entrypoint").arg(executable).arg(image);
        return Ok(command);
    }
    let text = "the node has neither apptainer nor singularity, nor podman for images of a registry";
    Err(io::Error::other(format!("{text}: {}", image.display())))
}

fn is_absent(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR))
}

/// What it means that a job could not be started.
fn verdict(e: &io::Error, what: &str, path: &Path) -> Outcome {
    let interpreter = what == "execute" && is_absent(e) && path.exists();
    let of = if interpreter { "its interpreter: " } else { "" };
    let text = format!("cannot {what} {}: {of}{}", path.display(), reason(e));
    if is_the_users(e) { Outcome::Unrunnable(text) } else { Outcome::SiteFailed(text) }
}

/// The system's words, without std's `(os error 2)`.
pub(super) fn reason(e: &io::Error) -> String {
    e.raw_os_error().map_or_else(|| e.to_string(), |code| nix::errno::Errno::from_raw(code).desc().to_owned())
}

/// Would it fail anywhere? Otherwise the node is to blame: full disks, exhausted tables, broken file systems.
fn is_the_users(e: &io::Error) -> bool {
    match e.raw_os_error() {
        Some(code) => matches!(
            code,
            libc::ENOENT
                | libc::EACCES
                | libc::EPERM
                | libc::ENOEXEC
                | libc::ENOTDIR
                | libc::EISDIR
                | libc::ELOOP
                | libc::ENAMETOOLONG
                | libc::E2BIG
                | libc::EINVAL
                | libc::ELIBBAD
                | libc::EROFS
        ),
        // A NUL byte in a name, an argument or a variable.
        None => e.kind() == io::ErrorKind::InvalidInput,
    }
}

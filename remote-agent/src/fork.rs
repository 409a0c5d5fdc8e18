//! `vo-agent fork submit|status|cancel`: a batch system of one machine, without a daemon. `vo_batch::System::Fork` specifies the calls.
//!
//! The directory holds, for each script, `ID` with the script's name and the machine's boot id, and `ID.sh`. A script runs in a session
//! of its own, whose number is the process id in its ID; processes are told apart from later ones of the same number by their start time.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{options, usage};

/// Ended scripts stay listed for this long.
const KEEP: Duration = Duration::from_secs(300);

/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(5);

/// Nothing escapes SIGKILL but what hangs in the kernel.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs it.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let mut args = args.peekable();
    let verb = args.next().unwrap_or_default();
    let result = match verb.to_str() {
        Some("submit") => match options(&mut args, ["--dir", "--name", "--output"]) {
            Ok([Some(dir), Some(name), Some(output)]) => {
                submit(Path::new(&dir), &name.to_string_lossy(), Path::new(&output))
            }
            Ok(_) => return usage("fork submit needs --dir, --name and --output"),
            Err(why) => return usage(&why),
        },
        Some(verb @ ("status" | "cancel")) => match options(&mut args, ["--dir"]) {
            Ok([Some(dir)]) if verb == "status" => status(Path::new(&dir)),
            Ok([Some(dir)]) => cancel(Path::new(&dir), args),
            Ok(_) => return usage("fork needs --dir"),
            Err(why) => return usage(&why),
        },
        _ => return usage("fork knows submit, status and cancel"),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("vo-agent fork: {e}");
            ExitCode::FAILURE
        }
    }
}

/// A process as `/proc/PID/stat` shows it.
struct Stat {
    zombie: bool,
    session: i32,
    start: u64,
}

fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses, and may hold any byte.
    let end = text.iter().rposition(|&byte| byte == b')')?;
    let text = std::str::from_utf8(text.get(end + 1..)?).ok()?;
    let field = |number: usize| text.split_ascii_whitespace().nth(number - 3);
    Some(Stat {
        zombie: matches!(field(3)?, "Z" | "X"),
        session: field(6)?.parse().ok()?,
        start: field(22)?.parse().ok()?,
    })
}

/// The shell of a script.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Id {
    pid: i32,
    start: u64,
}

impl Id {
    fn parse(text: &str) -> Option<Id> {
        let (pid, start) = text.split_once('.')?;
        let id = Id { pid: pid.parse().ok()?, start: start.parse().ok()? };
        (id.pid > 0 && id.to_string() == text).then_some(id)
    }

    fn runs(self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.start == self.start && !stat.zombie)
    }

    /// Every live process of its session. The kernel gives no process a number that a session still bears.
    fn members(self) -> io::Result<Vec<i32>> {
        if stat(self.pid).is_some_and(|stat| stat.start != self.start) {
            return Ok(Vec::new());
        }
        let mut members = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if stat(pid).is_some_and(|stat| stat.session == self.pid && !stat.zombie) {
                members.push(pid);
            }
        }
        Ok(members)
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.pid, self.start)
    }
}

fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// What the directory says about a script: its id, its name, and whether it can still run.
fn notes(dir: &Path) -> io::Result<Vec<(Id, String, bool)>> {
    let boot = boot_id()?;
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Some(id) = entry.file_name().to_str().and_then(Id::parse) else {
            continue;
        };
        let note = match fs::read_to_string(entry.path()) {
            Ok(note) => note,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        if let Some((name, booted)) = note.trim_end().split_once('\t') {
            found.push((id, name.to_owned(), booted == boot && id.runs()));
        }
    }
    Ok(found)
}

fn write_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn submit(dir: &Path, name: &str, output: &Path) -> io::Result<()> {
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a name is one line without tabs"));
    }
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let mut script = Vec::new();
    io::stdin().lock().read_to_end(&mut script)?;
    let open = || OpenOptions::new().append(true).create(true).mode(0o600).open(output);

    // The shell waits for its script's path on stdin, so that it runs nothing before it is noted; without a word it ends.
    let mut command = Command::new("/bin/sh");
    command.args(["-c", r#"IFS= read -r script && exec /bin/sh "$script" </dev/null"#]).arg0("sh");
    command.stdin(Stdio::piped()).stdout(open()?).stderr(open()?);
    // SAFETY: setsid is async-signal-safe, and the closure touches nothing else.
    unsafe {
        command.pre_exec(|| Ok(nix::unistd::setsid().map(drop)?));
    }
    let mut child = command.spawn()?;
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    let start = stat(pid).ok_or_else(|| io::Error::other("the shell ended at once"))?.start;
    let id = Id { pid, start };
    let path = dir.join(format!("{id}.sh"));
    write_durably(&path, &script)?;
    write_durably(&dir.join(id.to_string()), format!("{name}\t{}\n", boot_id()?).as_bytes())?;
    File::open(dir)?.sync_all()?;
    let mut stdin = child.stdin.take().ok_or_else(|| io::Error::other("no pipe to the shell"))?;
    let mut line = path.into_os_string().into_encoded_bytes();
    line.push(b'\n');
    stdin.write_all(&line)?;
    println!("{id}");
    Ok(())
}

fn status(dir: &Path) -> io::Result<()> {
    let mut listing = String::new();
    for (id, name, runs) in notes(dir)? {
        let ended = dir.join(format!("{id}.end"));
        if !runs {
            // When it ended nobody saw; from now on it stays listed for as long as was promised.
            match fs::metadata(&ended).and_then(|meta| meta.modified()) {
                Ok(at) if SystemTime::now().duration_since(at).is_ok_and(|age| age > KEEP) => {
                    remove(dir, id)?;
                    continue;
                }
                Ok(_) => {}
                Err(_) => drop(OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&ended)?),
            }
        }
        listing += &format!("{id}\t{name}\t{}\t-\n", if runs { "running" } else { "done" });
    }
    io::stdout().write_all(format!("{listing}end\n").as_bytes())?;
    io::stdout().flush()
}

fn remove(dir: &Path, id: Id) -> io::Result<()> {
    // The note goes last: what it names is gone then.
    for path in [format!("{id}.sh"), format!("{id}.end"), id.to_string()].map(|name| dir.join(name)) {
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

fn cancel(dir: &Path, ids: impl Iterator<Item = OsString>) -> io::Result<()> {
    let asked: Vec<Id> = ids.filter_map(|id| id.to_str().and_then(Id::parse)).collect();
    let boot = boot_id()?;
    let ours = |id: &Id| -> bool {
        let note: PathBuf = dir.join(id.to_string());
        fs::read_to_string(note).is_ok_and(|note| note.trim_end().ends_with(&boot))
    };
    let asked: Vec<Id> = asked.into_iter().filter(ours).collect();
    let began = Instant::now();
    let (mut signal, mut told) = (Signal::SIGTERM, Vec::new());
    loop {
        let mut left = Vec::new();
        for id in &asked {
            left.extend(id.members()?);
        }
        if left.is_empty() {
            return Ok(());
        }
        let age = began.elapsed();
        if age > GRACE + PATIENCE {
            return Err(io::Error::other(format!("processes {left:?} do not end")));
        }
        if age > GRACE && signal == Signal::SIGTERM {
            (signal, told) = (Signal::SIGKILL, Vec::new());
        }
        for pid in left {
            if !told.contains(&pid) {
                // It may have ended since we looked.
                let _ = kill(Pid::from_raw(pid), signal);
                told.push(pid);
            }
        }
        // Processes that are no children of ours tell nobody when they end.
        std::thread::sleep(Duration::from_millis(20));
    }
}

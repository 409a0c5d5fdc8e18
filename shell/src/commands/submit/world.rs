//! What submit descriptions may ask of this machine: files, commands, names, chance.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::{Command, Stdio};

use jiff::Zoned;
use ring::rand::{SecureRandom, SystemRandom};
use vo_lang::submit::{Kind, MAX_TEXT, World};

/// This machine.
pub(crate) struct Here;

impl World for Here {
    fn variable(&self, name: &str) -> Option<Vec<u8>> {
        std::env::var_os(name).map(OsString::into_vec)
    }

    fn file(&self, name: &[u8]) -> Result<Vec<u8>, String> {
        let read = match name {
            b"-" => bounded(io::stdin().lock()),
            name => File::open(OsStr::from_bytes(name)).and_then(bounded),
        };
        read.map_err(|e| e.to_string())
    }

    fn keep(&self, file: &[u8], text: &[u8]) -> Result<(), String> {
        std::fs::write(OsStr::from_bytes(file), text).map_err(|e| e.to_string())
    }

    fn output(&self, command: &[u8]) -> Result<Vec<u8>, String> {
        let shell = || Command::new("/bin/sh");
        let mut child = shell()
            .arg("-c")
            .arg(OsStr::from_bytes(command))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| e.to_string())?;
        let output = child.stdout.take().map(bounded).unwrap_or_else(|| Ok(Vec::new()));
        let ended = child.wait().map_err(|e| e.to_string())?;
        let output = output.map_err(|e| e.to_string())?;
        if ended.success() { Ok(output) } else { Err(format!("the command ended with {ended}")) }
    }

    fn matching(&self, pattern: &[u8], kind: Kind) -> Result<Vec<Vec<u8>>, String> {
        let mut names = Vec::new();
        for mut name in glob(pattern)? {
            let is_dir = Path::new(OsStr::from_bytes(&name)).is_dir();
            let wanted = match kind {
                Kind::Any => true,
                Kind::Files => !is_dir,
                Kind::Dirs => is_dir,
            };
            if wanted {
                // As HTCondor marks directories.
                if is_dir && !name.ends_with(b"/") {
                    name.push(b'/');
                }
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn random(&self) -> u64 {
        let mut bytes = [0; 8];
        // The system's generator doesn't fail once it has begun to give numbers.
        let _ = SystemRandom::new().fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

/// The names that the C library's glob(3) finds, which takes any bytes: `*` matches no `/`, and no leading dot.
fn glob(pattern: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let pattern = CString::new(pattern).map_err(|e| e.to_string())?;
    // SAFETY: a glob_t is plain data, of which all zeros are the empty one.
    let mut found: libc::glob_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pattern ends with a zero, and the result is ours.
    let code = unsafe { libc::glob(pattern.as_ptr(), 0, None, &raw mut found) };
    let names = match code {
        0 => {
            // SAFETY: after success gl_pathv has gl_pathc strings, which live until globfree.
            let name = |place| unsafe { CStr::from_ptr(*found.gl_pathv.add(place)) }.to_bytes().to_vec();
            Ok((0..found.gl_pathc).map(name).collect())
        }
        libc::GLOB_NOMATCH => Ok(Vec::new()),
        libc::GLOB_NOSPACE => Err("there is no memory for what it matches".to_owned()),
        _ => Err("its directories can't be read".to_owned()),
    };
    // SAFETY: glob has filled it in, whatever it returned, and nothing refers to it any more.
    unsafe { libc::globfree(&raw mut found) };
    names
}

/// One byte more than is taken, so that the parser sees that it is too much.
fn bounded(from: impl Read) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    from.take(MAX_TEXT as u64 + 1).read_to_end(&mut text)?;
    if text.len() > MAX_TEXT {
        return Err(io::Error::other(format!("more than {MAX_TEXT} bytes")));
    }
    Ok(text)
}

/// The macros that condor_submit has without a definition.
pub(crate) fn predefined() -> Vec<(String, Vec<u8>)> {
    let now = Zoned::now();
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let of_release = |name: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches('"').to_owned()
    };
    let version = of_release("VERSION_ID");
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let name: String = of_release("NAME").split_whitespace().next().unwrap_or("Linux").to_owned();
    let machine = match std::env::consts::ARCH {
        "x86_64" => "X86_64".to_owned(),
        other => other.to_owned(),
    };
    [
        ("SUBMIT_TIME", now.timestamp().as_second().to_string()),
        ("YEAR", now.strftime("%Y").to_string()),
        ("MONTH", now.strftime("%m").to_string()),
        ("DAY", now.strftime("%d").to_string()),
        ("ARCH", machine),
        ("OPSYS", "LINUX".to_owned()),
        ("OPSYSVER", (major * 100 + minor).to_string()),
        ("OPSYSMAJORVER", major.to_string()),
        ("OPSYSANDVER", format!("{name}{major}")),
    ]
    .map(|(name, value)| (name.to_owned(), value.into_bytes()))
    .into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn names_are_matched_as_a_shell_matches_them() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.dat", "a.dat", ".hidden.dat", "c.txt"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        fs::create_dir(dir.path().join("d.dat")).unwrap();
        let check = |pattern: &str, kind: Kind, expected: &[&str]| {
            let whole = dir.path().join(pattern).into_os_string().into_vec();
            let names = Here.matching(&whole, kind).unwrap();
            let base = dir.path().as_os_str().len() + 1;
            let names: Vec<_> = names.iter().map(|name| str::from_utf8(&name[base..]).unwrap()).collect();
            assert_eq!(names, expected, "{pattern}");
        };
        check("*.dat", Kind::Any, &["a.dat", "b.dat", "d.dat/"]);
        check("*.dat", Kind::Files, &["a.dat", "b.dat"]);
        check("*", Kind::Dirs, &["d.dat/"]);
        check("[ac].*", Kind::Any, &["a.dat", "c.txt"]);
        check("nothing*", Kind::Any, &[]);
        check("a.dat", Kind::Files, &["a.dat"]);
    }

    #[test]
    fn names_that_are_no_text_are_matched_too() {
        let dir = tempfile::tempdir().unwrap();
        let names: Vec<Vec<u8>> = [&b"caf\xe9.dat"[..], b"tea.dat", b"\xff"]
            .map(|name| [dir.path().as_os_str().as_bytes(), b"/", name].concat())
            .into();
        names.iter().for_each(|name| fs::write(OsStr::from_bytes(name), "").unwrap());
        let matching = |pattern: &[u8]| {
            Here.matching(&[dir.path().as_os_str().as_bytes(), b"/", pattern].concat(), Kind::Files).unwrap()
        };
        assert_eq!(matching(b"*"), names);
        assert_eq!(matching(b"*.dat"), names[..2]);
        assert_eq!(matching(b"caf\xe9*"), names[..1]);
    }

    #[test]
    fn commands_give_what_they_print() {
        let world = Here;
        assert_eq!(world.output(b"printf 'a\\nb\\n'"), Ok(b"a\nb\n".to_vec()));
        assert!(world.output(b"exit 3").unwrap_err().contains("3"));
        assert!(world.file(b"/nowhere/at/all").unwrap_err().contains("No such file"));
    }
}

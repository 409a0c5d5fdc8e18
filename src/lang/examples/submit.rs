//! Reads descriptions from standard input, one a line with the control character 0x1e for the ends of lines, and prints the ads of their first jobs, for
//! tests/conform. With `--expand FILE`: reads one and tells how many jobs it makes, for tests/bench.

use std::io::{BufRead, Write, stdin, stdout};

use vo_lang::submit::{Context, Facts, Kind, MAX_TEXT, World, parse};

struct Here;

impl World for Here {
    fn variable(&self, name: &str) -> Option<Vec<u8>> {
        std::env::var(name).ok().map(String::into_bytes)
    }

    fn file(&self, name: &[u8]) -> Result<Vec<u8>, String> {
        std::fs::read(String::from_utf8_lossy(name).as_ref()).map_err(|e| e.to_string())
    }

    fn output(&self, command: &[u8]) -> Result<Vec<u8>, String> {
        let command = String::from_utf8_lossy(command).into_owned();
        let output = std::process::Command::new("/bin/sh").arg("-c").arg(command).output();
        output.map(|output| output.stdout).map_err(|e| e.to_string())
    }

    fn keep(&self, file: &[u8], text: &[u8]) -> Result<(), String> {
        std::fs::write(String::from_utf8_lossy(file).as_ref(), text).map_err(|e| e.to_string())
    }

    fn matching(&self, pattern: &[u8], kind: Kind) -> Result<Vec<Vec<u8>>, String> {
        let mut names = Vec::new();
        for name in String::from_utf8_lossy(&self.output(&[b"ls -d ", pattern].concat())?).lines() {
            let is_dir = std::path::Path::new(name).is_dir();
            let slash = if is_dir && !name.ends_with('/') { "/" } else { "" };
            if matches!((kind, is_dir), (Kind::Any, _) | (Kind::Files, false) | (Kind::Dirs, true)) {
                names.push(format!("{name}{slash}").into_bytes());
            }
        }
        Ok(names)
    }

    fn random(&self) -> u64 {
        4
    }
}

/// What the other side leaves out, too: see theirs.py.
const LEFT_OUT: [&str; 13] = [
    "condorplatform",
    "condorversion",
    "diskusage",
    "enteredcurrentstatus",
    "executablesize",
    "filesystemdomain",
    "imagesize",
    "jobsubmitmethod",
    "owner",
    "qdate",
    "transferinputsizemb",
    "userlog",
    "iwd",
];
const MOST: usize = 6;

fn main() -> std::io::Result<()> {
    let here = std::env::current_dir()?.into_os_string().into_encoded_bytes();
    let predefined = [("ARCH", "X86_64"), ("OPSYS", "LINUX")].map(|(name, value)| (name.to_owned(), value.into()));
    let context = Context { world: &Here, overrides: &[], predefined: &predefined, here: &here, only_show: true };
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, _, file] = &arguments[..] {
        let text = std::fs::read(file)?;
        match parse(file, &text, &context) {
            Ok(description) => println!("{} jobs in {} groups", description.jobs(), description.groups.len()),
            Err(faults) => faults.iter().for_each(|fault| eprintln!("{fault}")),
        }
        return Ok(());
    }
    let mut variables: Vec<(Vec<u8>, Vec<u8>)> =
        std::env::vars().map(|(name, value)| (name.into_bytes(), value.into_bytes())).collect();
    variables.sort();
    let owner = std::env::var("OWNER").unwrap_or_default();
    let mut out = stdout().lock();
    for line in stdin().lock().split(b'\n') {
        let text: Vec<u8> = line?.iter().map(|b| if *b == 0x1e { b'\n' } else { *b }).collect();
        assert!(text.len() < MAX_TEXT);
        let description = match parse("case.sub", &[&text[..], b"\n"].concat(), &context) {
            Ok(description) => description,
            Err(_) => {
                writeln!(out, "error")?;
                continue;
            }
        };
        let mut jobs: Vec<_> =
            description.groups.iter().flat_map(|g| g.members.iter().map(move |proc| (proc, g))).collect();
        jobs.sort_by_key(|(proc, _)| *proc);
        let mut ads = Vec::new();
        for (proc, group) in jobs.into_iter().take(MOST) {
            let taken: Vec<_> = variables.iter().filter(|(name, _)| group.ad.getenv.selects(name)).cloned().collect();
            let (arch, opsys) = ("X86_64", "LINUX");
            let facts = Facts {
                cluster: 7,
                submitted: 0,
                owner: &owner,
                arch,
                opsys,
                domain: "d",
                here: &here,
                environment: &taken,
            };
            let ad = group.classad(proc, &facts);
            let mut lines: Vec<String> = ad
                .iter()
                .map(|(name, value)| (name.to_str_lossy().to_ascii_lowercase(), value))
                .filter(|(name, _)| !LEFT_OUT.contains(&name.as_str()))
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            lines.sort();
            ads.push(lines.join("\t").replace('\n', "\\n"));
        }
        writeln!(out, "{}", ads.join("\x1e"))?;
    }
    Ok(())
}

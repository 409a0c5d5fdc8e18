//! `submit --dry-run`: the job ads, as condor_submit would make them.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use vo_lang::submit::Facts;

use super::{describe, taken_over, world};
use crate::error::{Error, ExitCode, Result};
use crate::table::stdout;

pub(super) fn run(
    texts: &[(OsString, Vec<u8>)],
    overrides: &[(String, Vec<u8>)],
    here: &Path,
    into: &Path,
) -> Result<ExitCode> {
    let failed = |e: io::Error| Error::new(ExitCode::Failure, format!("cannot write {}", into.display())).because(e);
    let mut out: Box<dyn Write> = match into.as_os_str() == OsStr::new("-") {
        true => Box::new(stdout()),
        false => Box::new(BufWriter::new(File::create(into).map_err(failed)?)),
    };
    let predefined = world::predefined();
    let known = |name: &str| {
        let value = predefined.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_slice());
        String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
    };
    let (arch, opsys) = (known("ARCH"), known("OPSYS"));
    let owner = std::env::var("USER").unwrap_or_default();
    let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    for (cluster, (file, text)) in (1..).zip(texts) {
        let description = describe(file, text, 0, overrides, here, true)?;
        for group in &description.groups {
            let facts = Facts {
                cluster,
                submitted: i64::try_from(now).unwrap_or(0),
                owner: &owner,
                arch: &arch,
                opsys: &opsys,
                domain: &host,
                here: here.as_os_str().as_encoded_bytes(),
                environment: &taken_over(&group.ad),
            };
            for proc in group.members.iter() {
                for (name, value) in group.classad(proc, &facts).iter() {
                    writeln!(out, "{} = {}", name.to_str_lossy(), value.old_syntax()).map_err(failed)?;
                }
                writeln!(out).map_err(failed)?;
            }
        }
    }
    out.flush().map_err(failed)?;
    Ok(ExitCode::Success)
}

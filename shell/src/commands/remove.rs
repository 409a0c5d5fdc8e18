//! `rm`: jobs, and the decision whether a line `rm …` means jobs or files.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::Parser;
use vo_wire::control::Alteration;

use super::alter::{Meant, Words, alter};
use super::pick;
use crate::error::{ExitCode, Result};

/// Removes jobs, wherever they are
#[derive(Parser, Debug)]
pub(crate) struct Remove {
    #[command(flatten)]
    meant: Meant,
    /// Taken for HTCondor's sake
    #[arg(long, value_name = "WHY", hide = true)]
    reason: Option<String>,
    /// Taken for HTCondor's sake: a job is removed at once anyway
    #[arg(long, hide = true)]
    forcex: bool,
}

pub(super) fn run(arguments: Remove) -> Result<ExitCode> {
    let (theirs, already) = ("marked for removal", "already marked for removal");
    alter(&arguments.meant, Alteration::Remove, &Words { verb: "remove", done: "removed", theirs, already })
}

/// Does `rm` with these arguments mean jobs? Only if each one, up to an option that only jobs have, reads as a job or cluster and none is a file that is
/// there.
pub(super) fn means_jobs(arguments: &[OsString], exists: impl Fn(&Path) -> bool) -> bool {
    const OURS: [&str; 4] = ["all", "batch-name", "const", "constraint"];
    let is_ours = |word: &OsStr| {
        let option = word.to_str().filter(|word| word.starts_with('-')).map(|word| word.trim_start_matches('-'));
        option.is_some_and(|option| OURS.contains(&option.split('=').next().unwrap_or_default()))
    };
    let is_job = |word: &OsStr| word.to_str().is_some_and(|word| pick(word).is_ok()) && !exists(Path::new(word));
    let mut rest = arguments.iter().skip_while(|word| is_job(word));
    !arguments.is_empty() && rest.next().is_none_or(|word| is_ours(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    #[test]
    fn rm_means_jobs_only_where_nothing_else_could_be_meant() {
        let check = |line: &str, expected: bool| {
            let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
            let exists = |path: &Path| path == Path::new("7") || path == Path::new("a.txt");
            assert_eq!(means_jobs(&words, exists), expected, "rm {line}");
        };
        check("12", true);
        check("12.3 13", true);
        check("7", false);
        check("7.0", true);
        check("12 7", false);
        check("12 a.txt", false);
        check("-f 12", false);
        check("-- 12", false);
        check("-constraint JobStatus==5", true);
        check("--all", true);
        check("12 -const JobStatus==5", true);
        check("7 --all", false);
        check("--batch-name=sim", true);
        check("-al", false);
        check("a.txt --all", false);
        check("./12", false);
        check("12.", false);
        check("1.2.3", false);
        check("99999999999", false);
        check("", false);
        assert!(!means_jobs(&[OsString::from_vec(vec![0x31, 0xff])], |_| false));
    }
}

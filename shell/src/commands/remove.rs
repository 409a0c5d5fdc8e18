//! `rm`: jobs, and the decision whether a line `rm …` means jobs or files.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::Parser;
use vo_wire::control::Alteration;

use super::alter::{Meant, alter};
use super::pick;
use crate::error::{ExitCode, Result};

/// Removes jobs, wherever they are
#[derive(Parser, Debug)]
pub(crate) struct Remove {
    #[command(flatten)]
    meant: Meant,
}

pub(super) fn run(arguments: Remove) -> Result<ExitCode> {
    alter(&arguments.meant, Alteration::Remove, ("remove", "removed"))
}

/// Does `rm` with these arguments mean jobs? Only if each one reads as a job or cluster and none is a file that is there.
pub(super) fn means_jobs(arguments: &[OsString], exists: impl Fn(&Path) -> bool) -> bool {
    let is_job = |word: &OsStr| word.to_str().is_some_and(|word| pick(word).is_ok()) && !exists(Path::new(word));
    !arguments.is_empty() && arguments.iter().all(|word| is_job(word))
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
        check("./12", false);
        check("12.", false);
        check("1.2.3", false);
        check("99999999999", false);
        check("", false);
        assert!(!means_jobs(&[OsString::from_vec(vec![0x31, 0xff])], |_| false));
    }
}

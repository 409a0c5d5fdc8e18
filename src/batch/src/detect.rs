//! Which batch systems a gateway has.

use crate::{Kind, RawOutput, StatusError};

/// A script for `/bin/sh` on the gateway, run in the environment that the commands will be run in; [`Detected::parse`]
/// reads its stdout. It asks for versions only, which no system needs its controller for, and takes well under a second.
///
/// Grid Engine's and PBS's commands share their names, and the same names exist as wrappers around Slurm: what counts is
/// what each says of itself.
pub const PROBE: &str = r#"
said() { printf 'vo-batch %s %s\n' "$1" "$2"; }
if version=$(sbatch --version 2>/dev/null) && squeue --version >/dev/null 2>&1; then
	said slurm "$(printf '%s\n' "$version" | sed -n 's/^slurm[^ ]* //p')"
fi
if command -v qsub >/dev/null 2>&1 && command -v qstat >/dev/null 2>&1; then
	version=$(qstat --version 2>&1 </dev/null | sed -n -e 's/^pbs_version *= *//p' -e 's/^Version: *//p' | head -n 1)
	if [ -n "$version" ]; then
		said PBS "$version"
	elif ! qstat -help 2>&1 </dev/null | grep -q -e '--man'; then
		version=$(qstat -help 2>&1 </dev/null | sed -n '1s/^\(.*[A-Z]*GE.*\)$/\1/p')
		[ -z "$version" ] || said sge "$version"
	fi
fi
! command -v condor_submit >/dev/null 2>&1 || said HTCondor "$(condor_version 2>/dev/null | sed -n 's/^.CondorVersion: *\([^ ]*\).*/\1/p')"
! command -v bsub >/dev/null 2>&1 || said LSF ''
! command -v flux >/dev/null 2>&1 || said Flux ''
echo 'vo-batch end'
"#;

/// A batch system that the probe met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which it is.
    pub kind: Kind,
    /// Its version, in its own words.
    pub version: String,
}

/// What [`PROBE`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Detected {
    /// The systems that we can drive; several may be installed side by side.
    pub systems: Vec<Found>,
    /// Names and versions of those that we can't drive.
    pub others: Vec<String>,
}

/// A gateway where nothing can be submitted to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no batch system that we know is on the PATH{}", found(.others))]
pub struct NoBatchSystem {
    /// Names and versions of the systems that are there and that we can't drive.
    pub others: Vec<String>,
}

fn found(others: &[String]) -> String {
    if others.is_empty() { String::new() } else { format!(", and these are not supported: {}", others.join(", ")) }
}

impl Detected {
    /// Reads the probe's output.
    ///
    /// # Errors
    /// A probe that did not come to its end has found nothing out.
    pub fn parse(out: &RawOutput<'_>) -> Result<Self, StatusError> {
        let listing = out.listing(&[])?;
        let mut detected = Self::default();
        for line in listing.lines().filter_map(|line| line.strip_prefix("vo-batch ")) {
            let (word, version) = line.split_once(' ').unwrap_or((line, ""));
            let version = version.trim().to_owned();
            match word.parse::<Kind>() {
                Ok(kind) => detected.systems.push(Found { kind, version }),
                Err(_) if word == "end" => return Ok(detected),
                Err(_) => detected.others.push(format!("{word} {version}").trim_end().to_owned()),
            }
        }
        Err(StatusError::Garbled("no end of the probe".to_owned()))
    }

    /// The system to use when the user named none: the first in the order of [`Kind::ALL`].
    ///
    /// # Errors
    /// [`NoBatchSystem`], which names what is there instead.
    pub fn choose(&self) -> Result<Kind, NoBatchSystem> {
        let kinds = self.systems.iter().map(|found| found.kind);
        kinds.min().ok_or_else(|| NoBatchSystem { others: self.others.clone() })
    }
}

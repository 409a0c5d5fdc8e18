//! What runs at a site: the event agent on its gateway ([`event`]), the starters on its nodes ([`starter`]), the master's way to the
//! agent ([`connect`]), what brings an agent back without a master ([`revive`]), and a batch system for a machine that has none
//! ([`fork`]). One small binary, uploaded once. Must not know the master's store.

pub mod connect;
pub mod event;
pub mod fork;
pub mod launch;
mod lease;
pub mod revive;
mod spool;
pub mod starter;

use std::ffi::OsString;
use std::process::ExitCode;

/// Wrong command line.
pub const EXIT_USAGE: u8 = 2;

const USAGE: &str = "\
usage: vo-agent connect --session NAME-ID [--dir ROOT] [--above EPOCH]
       vo-agent event --session NAME-ID [--dir ROOT] [--above EPOCH]
       vo-agent starter ...
       vo-agent fork submit|status|cancel ...
       vo-agent revive [--dir ROOT]
       vo-agent version";

/// Runs the program: `args` begin with the program's name. `vo-login` calls this when it is started under the name `vo-agent`.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let mut args = args.skip(1);
    let command = args.next().unwrap_or_default();
    match command.to_str() {
        Some("connect") => connect::main(args),
        Some("event") => event::main(args),
        Some("starter") => starter::main(args),
        Some("fork") => fork::main(args),
        Some("revive") => revive::main(args),
        Some("version" | "--version" | "-V") => {
            println!("vo-agent {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        _ => usage("unknown command"),
    }
}

/// Says what is wrong with the command line.
pub(crate) fn usage(why: &str) -> ExitCode {
    eprintln!("vo-agent: {why}\n{USAGE}");
    ExitCode::from(EXIT_USAGE)
}

/// Takes `--NAME VALUE` pairs, each of `names` at most once, in the order of `names`; what follows them is left in `args`.
///
/// # Errors
/// What is wrong, in words.
pub(crate) fn options<const N: usize>(
    args: &mut std::iter::Peekable<impl Iterator<Item = OsString>>,
    names: [&str; N],
) -> Result<[Option<OsString>; N], String> {
    let mut values = [const { None }; N];
    while let Some(word) = args.next_if(|word| word.to_str().is_some_and(|word| word.starts_with("--"))) {
        let slot = names.iter().zip(&mut values).find(|(name, _)| word == **name);
        let Some((_, value)) = slot.filter(|(_, value)| value.is_none()) else {
            return Err(format!("unexpected option {}", word.display()));
        };
        *value = Some(args.next().ok_or_else(|| format!("{} needs a value", word.display()))?);
    }
    Ok(values)
}

//! The agent's program; see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    vo_agent::main(std::env::args_os())
}

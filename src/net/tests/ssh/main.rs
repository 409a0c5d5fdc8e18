//! The SSH client against real servers: OpenSSH's sshd, one process a connection on a loopback socket of the test's own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod auth;
mod exec;
mod faults;
mod hosts;
mod server;
mod system;

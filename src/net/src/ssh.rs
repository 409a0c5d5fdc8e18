//! SSH from the master to the gateways: one connection a site, served by russh in this process or by the system's `ssh`.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use vo_net::ssh::{ConnectOptions, Gateway, NoPrompter, SshError, Target, TargetQuery};
//! # async fn example() -> Result<(), SshError> {
//! let target = Target::resolve(&TargetQuery::new("tg-login.example.org")).await?;
//! let gateway = Gateway::connect(&target, &ConnectOptions::default(), Arc::new(NoPrompter)).await?;
//! let output = gateway.exec_collect("uname -m", b"", std::time::Duration::from_secs(30), 4096).await?;
//! gateway.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! - [`Target::resolve`] asks `ssh -G` what the user's configuration says of a host, and whether russh can serve it
//!   ([`Backend`]).
//! - [`Gateway::connect`] checks the host key against `known_hosts` as OpenSSH does ([`known_hosts`]), authenticates, and
//!   asks what must be asked through a [`Prompter`]. Do this in the foreground; afterwards nothing is ever asked.
//! - [`Gateway::exec`] runs one remote command with piped standard streams; [`Gateway::exec_collect`] and
//!   [`Gateway::upload`] build on it. Remote commands are strings for the remote user's shell: quoting is the caller's.
//! - [`Gateway::closed`] tells when and why the connection was lost. Nothing reconnects by itself: [`SshError::class`] tells
//!   the caller whether to try again, to back off, or to ask the user.

mod algorithms;
mod auth;
mod builtin;
mod error;
mod gateway;
pub mod known_hosts;
mod prompt;
mod system;
mod target;
mod trust;

pub use auth::KeyRing;
pub use error::{Class, ShownKey, SshError};
pub use gateway::{ConnectOptions, Exec, ExecExit, ExitStatus, Gateway, Output, quote};
pub use prompt::{Answer, HostKeyQuestion, NoPrompter, Prompt, PromptKind, Prompter};
pub use system::AskPass;
pub use target::{Backend, Settings, StrictHostKeys, Target, TargetQuery};

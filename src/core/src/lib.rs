//! The state machines of the system: the pool of jobs and slots, the proxies of a site, the jobs on a node,
//! the nodes of a DAG.
//!
//! This crate must not know clocks, files, sockets, threads or randomness: it is `no_std`, time and random numbers come in as
//! arguments, and the simulator runs exactly this code. Every machine has one shape: `handle(now, event)`, then drain
//! `poll_action()`, then sleep until `deadline()`. Events become records (`decide`), records fold into state (`apply`, all that
//! recovery needs), and an action leaves only when the records behind it are durable.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
// Random worlds name the seed that failed.
#[cfg(test)]
extern crate std;

pub mod dag;
pub mod ids;
pub mod items;
pub mod job;
pub mod lease;
pub mod pool;
pub mod proxy;
pub mod starter;
pub mod template;
pub mod time;

pub use ids::{JobId, ProxyId, SiteId, StarterKey};
pub use template::Template;
pub use time::Time;

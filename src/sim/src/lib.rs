//! A whole session in virtual time: the production machines of master, event agents and starters, on simulated disks, links, nodes
//! and batch systems, under faults that come, stay a while and stop. One seed decides everything.
//!
//! This crate must not know the real world: no clock, file, socket or process; its disk is [`vo_store::memdisk`].
//!
//! The checker is independent of the machines. It believes the durable journal, the processes that really ran, and the batch systems:
//! no job lost, none counted twice, none sent after its success is durable, no two attempts of one job at once, no node
//! oversubscribed, no batch name used twice, and nothing left behind after shutdown.

mod clock;
mod master;
mod site;
mod world;

pub use clock::Clock;
pub use world::{Failure, Summary, run};

//! A whole session in virtual time: the production machines of master, event agents and starters, on simulated disks, links, nodes
//! and batch systems, under faults that come, stay a while and stop. One seed decides everything.
//!
//! A site has several login nodes with one home, where directories may be listed as they were a while ago; several agents of it may
//! live at once, be stopped between any two of their steps and go on later. Each claims its lease as the production driver does, step by
//! step, and copies its predecessor's table while that one may still write it. The batch system hides what it accepted, forgets, shows
//! nothing, a part or the past, takes cancels without acting, and calls batch jobs ended whose processes live on at a node that is cut off.
//! Users hold, release and edit jobs meanwhile, some of which have policies or are counted against a limit; starters put results aside that
//! they could not tell; agents that miss their master for long give up what is queued.
//!
//! This crate must not know the real world: no clock, file, socket or process; its disk is [`vo_store::memdisk`].
//!
//! The checker is independent of the machines. It believes the durable journal, the processes that really ran, and the batch systems:
//! no job lost, none counted twice, none sent after its success is durable, no result forgotten that is not, no attempt started twice,
//! no two attempts of one job at once, no held job sent out or started where its kill is known, none that runs on long after it, no
//! limit exceeded, no node oversubscribed, no batch name used twice, no proxy submitted again before two listings
//! failed to show it, none cancelled that works while its session goes on, no slot of a site without faults left empty while jobs wait, nothing stuck once the faults have stopped, and
//! nothing left behind after shutdown. One thing it lets pass: two attempts at once where the batch system says of the first one's node
//! that it has ended, and nobody can reach it.

mod clock;
mod master;
mod shared;
mod site;
mod world;

pub use clock::{Clock, Dice};
pub use world::{Failure, Summary, run};

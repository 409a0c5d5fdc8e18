//! The event agent: one for each session on a site's gateway.
//!
//! It drives [`vo_core::proxy`] with real files, processes and connections, and relays between the master and the starters. Everything
//! runs on one thread around `agent::Agent`; only the table (`table`) and file accesses have others.

mod actions;
mod agent;
mod blobs;
mod command;
mod fence;
mod files;
mod log;
mod master;
mod outbox;
mod setup;
mod spool;
mod starters;
mod strangers;
mod table;
mod why;

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::rc::Rc;

use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

use crate::connect::{EXIT_AGENT, Place, explain};
use crate::launch::{self, Revival, SiteDir};
use crate::lease::Lease;
use crate::usage;
use agent::Agent;

/// Runs it: `--session NAME-ID [--dir ROOT] [--above EPOCH] [--revive yes]`. With the last one it begins its work at once, with what a master
/// told an earlier agent. Says `ready` on standard output, or why not, and closes it.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let place = match Place::from_args(args) {
        Ok(place) => place,
        Err(why) => return usage(&why),
    };
    match run(&place) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            println!("{why}");
            ExitCode::from(EXIT_AGENT)
        }
    }
}

fn run(place: &Place) -> Result<(), String> {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    place.enter()?;
    let text = |what: &'static str| move |e: io::Error| format!("cannot {what}: {}", explain(&e));
    let dir = place.dir();
    let floor = table::highest(&SiteDir(dir.clone()).table()).map_err(text("read the table"))?.max(place.above);
    let unique = setup::random().map_err(text("start"))?;
    let lease = Lease::claim(&dir, floor, unique).map_err(text("take the lease"))?;
    let lease = lease.ok_or("another agent has just taken over")?;
    log::start(&dir.join("agent.log")).map_err(text("open agent.log"))?;
    command::raise_descriptors();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(8).build();
    let runtime = runtime.map_err(text("start"))?;
    let listener = {
        let _guard = runtime.enter();
        // We hold the lease, so whoever listened there may not act any more.
        match std::fs::remove_file("agent.sock") {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(text("remove an old socket")(e)),
            _ => UnixListener::bind("agent.sock").map_err(text("make agent.sock"))?,
        }
    };
    let signals = {
        let _guard = runtime.enter();
        let take = |kind| signal(kind).map_err(text("take signals"));
        [take(SignalKind::terminate())?, take(SignalKind::interrupt())?, take(SignalKind::hangup())?]
    };
    let agent = Rc::new(Agent::new(place, lease).map_err(text("start"))?);
    println!("ready");
    detach().map_err(text("detach"))?;

    let local = LocalSet::new();
    local.block_on(&runtime, async {
        tokio::task::spawn_local(master::listen(Rc::clone(&agent), listener));
        tokio::task::spawn_local(Rc::clone(&agent).keep_lease());
        if place.revive {
            tokio::task::spawn_local(revive(Rc::clone(&agent)));
        }
        let [mut terminate, mut interrupt, mut hangup] = signals;
        loop {
            tokio::select! {
                () = agent.ended() => break,
                // Everything that matters is in the table.
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => {}
            }
        }
    });
    // Connections close before the table: nobody is told what is not durable.
    drop(local);
    runtime.shutdown_background();
    agent.close_table();
    tracing::info!("ends");
    Ok(())
}

/// Begins the work that an earlier agent was told to do.
async fn revive(agent: Rc<Agent>) {
    let told = match launch::read::<Revival>(&agent.dir.revival()) {
        Ok(revival) => agent.configure(revival.configure).await.map_err(|refusal| refusal.message),
        Err(e) => Err(format!("revival: {e}")),
    };
    if let Err(why) = told {
        tracing::error!("cannot go on without a master: {why}");
        agent.quit();
    }
}

/// Closes the pipe to the bridge that started us.
fn detach() -> io::Result<()> {
    io::stdout().flush()?;
    let null = File::open("/dev/null")?;
    nix::unistd::dup2_stdin(null.as_fd())?;
    let null = OpenOptions::new().write(true).open("/dev/null")?;
    nix::unistd::dup2_stdout(null.as_fd())?;
    Ok(())
}

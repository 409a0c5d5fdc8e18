//! What happens to a DAG, and what it asks for.

use super::Script;

/// What the jobs of a node do, all together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Jobs {
    /// Jobs in all.
    pub total: u32,
    /// Wait for a slot, or are held.
    pub idle: u32,
    /// Run.
    pub running: u32,
    /// Are held.
    pub held: u32,
    /// Are over, however they ended.
    pub ended: u32,
    /// Of these: ended with another code than 0, or by a signal.
    pub failed: u32,
    /// Of these: were removed.
    pub removed: u32,
    /// How the first of them failed: its exit code, or its signal as a negative, or [`super::JOB_REMOVED`]. 0 if none did.
    pub code: i32,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A script ended; one that could not be started ended with 1.
    ScriptEnded {
        /// Whose.
        node: u32,
        /// Which.
        script: Script,
        /// Its exit code, or its signal as a negative.
        code: i32,
    },
    /// A node's jobs are in the queue, durably.
    Submitted {
        /// Which node.
        node: u32,
        /// What they are called.
        cluster: u32,
        /// How many.
        jobs: u32,
    },
    /// They can't be submitted.
    SubmitFailed {
        /// Which node.
        node: u32,
    },
    /// Something happened to a node's jobs.
    Jobs {
        /// Which node.
        node: u32,
        /// What they do now.
        jobs: Jobs,
    },
    /// The user holds the DAG, or lets it go on.
    PauseAsked(bool),
    /// The DAG is halted, or no longer.
    HaltAsked(bool),
    /// The user removes it.
    RemovalAsked,
    /// The time of [`super::Run::deadline`] came.
    TimePassed,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Run a script, then tell [`Event::ScriptEnded`].
    RunScript {
        /// Whose.
        node: u32,
        /// Which.
        script: Script,
    },
    /// Kill one that runs; its end is told all the same.
    KillScript {
        /// Whose.
        node: u32,
        /// Which.
        script: Script,
    },
    /// Submit a node's jobs, unless jobs of the same token (node and try) are there; then tell [`Event::Submitted`] or
    /// [`Event::SubmitFailed`].
    Submit {
        /// Which node.
        node: u32,
        /// The try, from 0.
        try_number: u32,
    },
    /// Remove the jobs of a node that are left.
    Remove {
        /// Which node.
        node: u32,
    },
    /// Write how far the DAG is: this node begins.
    WriteSavePoint {
        /// Which node.
        node: u32,
    },
    /// The DAG has ended.
    Finish {
        /// Its exit code.
        code: i32,
        /// Some of it is left to do.
        rescue: bool,
    },
}

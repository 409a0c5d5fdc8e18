//! The programs as a person meets them, over a local site: command line, files, terminals, exit codes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

mod attach;
mod checkpoints;
mod conf;
mod cut_off;
mod dag;
mod damage;
mod disks;
mod eventlog;
mod examples;
mod jobs;
mod leaving;
mod listing;
mod mail;
mod outputs;
mod policies;
mod readme;
mod recovery;
mod scripts;
mod shell;
mod submit;
mod timing;
mod tools;
mod why;

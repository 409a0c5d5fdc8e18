//! Many jobs over three real clusters while everything that can die is killed: `tests/endure/run`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a program that can't go on stops")]

use vo_tests::endure::{Fault, Plan, endure};

const USAGE: &str = "\
usage: tests/endure/run [--rounds N] [--jobs N] [--seconds N] [--seed N] [--faults NAME,...]

One session over the testbed's two Slurm clusters and its Grid Engine runs --jobs jobs (2000) of --seconds seconds (3),
while --rounds faults (50) come at random moments and random sites. A fault that lasts is undone after some seconds. Then
everything must complete: no job lost, none counted twice, none started after its result was known, each output whole, and
nothing left behind. Exit code 0 if so. The same --seed (1) draws the same faults.
";

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut plan = Plan::default();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| usage());
        let number = |text: String| text.parse().unwrap_or_else(|_| usage());
        match argument.as_str() {
            "--rounds" => plan.rounds = number(value()),
            "--jobs" => plan.jobs = number(value()) as usize,
            "--seconds" => plan.seconds = number(value()),
            "--seed" => plan.seed = number(value()),
            "--faults" => {
                let named = |name: &str| Fault::ALL.into_iter().find(|fault| fault.name() == name);
                plan.faults = value().split(',').map(|name| named(name).unwrap_or_else(|| usage())).collect();
            }
            _ => usage(),
        }
    }
    println!("{}", endure(&plan));
}

fn usage() -> ! {
    let names: Vec<_> = Fault::ALL.iter().map(|fault| fault.name()).collect();
    eprint!("{USAGE}\nFaults: {}\n", names.join(", "));
    std::process::exit(2)
}

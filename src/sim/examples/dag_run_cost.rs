//! What a run of a DAG costs in the machine alone: `dag_run_cost NODES [noop]`, layers of a thousand nodes with ten parents each. Every
//! node's jobs are submitted, start and end, unless it is a NOOP. Prints CPU-seconds and the peak of memory.

use std::time::Instant;

use vo_core::Time;
use vo_core::dag::{Action, Event, Jobs, Limits, Plan, PlanNode, Run};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let count: u32 = std::env::args().nth(1).ok_or("usage: dag_run_cost NODES [noop]")?.parse()?;
    let noop = std::env::args().nth(2).is_some();
    let mut edges: Vec<(u32, u32)> = Vec::new();
    for node in 1000..count {
        edges.extend((0..10).map(|i| ((node / 1000 - 1) * 1000 + (node * 7 + i * 97) % 1000, node)));
    }
    edges.sort_unstable();
    edges.dedup();
    let (mut starts, mut at) = (Vec::new(), 0);
    for node in 0..=count {
        while edges.get(at).is_some_and(|(parent, _)| *parent < node) {
            at += 1;
        }
        starts.push(u32::try_from(at)?);
    }
    let plan = Plan {
        nodes: (0..count).map(|_| PlanNode { noop, ..PlanNode::default() }).collect(),
        starts,
        children: edges.iter().map(|(_, child)| *child).collect(),
        limits: Limits { jobs: Some(200), ..Limits::default() },
        ..Plan::default()
    };
    drop(edges);
    let start = Instant::now();
    let mut run = Run::new(plan);
    run.resume(Time(0));
    let (mut records, mut now) = (0_u64, 0);
    while run.ended().is_none() || run.poll_action().is_some() {
        while run.poll_record().is_some() {
            records += 1;
        }
        let Some((_, action)) = run.poll_action() else { continue };
        if let Action::Submit { node, .. } = action {
            now += 1;
            let running = Jobs { total: 1, running: 1, ..Jobs::default() };
            let ended = Jobs { total: 1, ended: 1, ..Jobs::default() };
            run.handle(Time(now), Event::Submitted { node, cluster: node + 1, jobs: 1 });
            run.handle(Time(now), Event::Jobs { node, jobs: running });
            run.handle(Time(now), Event::Jobs { node, jobs: ended });
        }
    }
    println!("{count} nodes, {records} records, ended with {:?}: {:.3} s", run.ended(), start.elapsed().as_secs_f64());
    let status = std::fs::read_to_string("/proc/self/status")?;
    println!("{}", status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default());
    Ok(())
}

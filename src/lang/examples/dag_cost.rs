//! What reading a DAG costs: `dag_cost NODES`, for that many nodes in layers of a thousand, with ten parents each, half of them
//! named one by one. Prints CPU-seconds and the peak of memory; or `dag_cost FILE`.

use std::fmt::Write as _;
use std::time::Instant;
use vo_lang::dag;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let what = std::env::args().nth(1).ok_or("usage: dag_cost NODES|FILE")?;
    let mut text = String::new();
    match what.parse::<u32>() {
        Ok(nodes) => {
            for node in 0..nodes {
                writeln!(text, "JOB Node{node} job.sub")?;
                writeln!(text, "VARS Node{node} n=\"{node}\"")?;
                let Some(above) = (node / 1000).checked_sub(1) else { continue };
                let parent = |i: u32| above * 1000 + (node * 7 + i * 97) % 1000;
                if node % 2 == 0 {
                    for i in 0..10 {
                        writeln!(text, "PARENT Node{} CHILD Node{node}", parent(i))?;
                    }
                } else {
                    let parents: String = (0..10).map(|i| format!(" Node{}", parent(i))).collect();
                    writeln!(text, "PARENT{parents} CHILD Node{node}")?;
                }
            }
        }
        Err(_) => text = std::fs::read_to_string(&what)?,
    }
    let context = dag::Context { read: &|path| std::fs::read(path).map_err(|e| e.to_string()), any_names: false };
    let start = Instant::now();
    let input = dag::Input { name: "cost.dag", text: text.as_bytes(), directory: "" };
    match dag::parse(&[input], None, &context) {
        Ok(dag) => println!("{} nodes, {} edges, {} bytes", dag.nodes().len(), dag.graph().edges(), text.len()),
        Err(found) => found.iter().for_each(|d| println!("{d}")),
    }
    println!("{:.3} s", start.elapsed().as_secs_f64());
    let status = std::fs::read_to_string("/proc/self/status")?;
    println!("{}", status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default());
    Ok(())
}

//! `dag_verdict DIR…`: reads `main.dag` in each directory and prints a line: whether it is good, and how large. For tests/conform.

use vo_lang::dag;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for dir in std::env::args().skip(1) {
        let read = |path: &str| std::fs::read(format!("{dir}/{path}")).map_err(|e| e.to_string());
        let text = read("main.dag")?;
        let context = dag::Context { read: &read, any_names: false };
        match dag::parse(&[dag::Input { name: "main.dag", text: &text, directory: "" }], None, &context) {
            Ok(dag) => {
                let (nodes, arcs) = (dag.nodes().len(), dag.graph().edges());
                println!("valid: {nodes} nodes with joins, {arcs} arcs, {} splices", dag.splices);
            }
            Err(_) => println!("invalid"),
        }
    }
    Ok(())
}

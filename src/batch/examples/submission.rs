//! Prints a submit command and its script, to look at or to try by hand on a gateway:
//! `cargo run -p vo-batch --example submission -- slurm 2 4 60 /home/me me-1 STARTER ARGS... >s.sh; sh -c "$(sed -n '2s/^# //p' s.sh)" <s.sh`

use std::{env, time::Duration};

use vo_batch::{ProxyRequest, System, shell};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = env::args().skip(1).collect();
    let [system, nodes, cpus, walltime, workdir, name, starter @ ..] = words.as_slice() else {
        return Err("usage: submission SYSTEM NODES CPUS SECONDS WORKDIR NAME STARTER [ARG]...".into());
    };
    let directives: Vec<String> =
        env::var("DIRECTIVES").iter().flat_map(|all| all.lines()).map(str::to_owned).collect();
    let queue = env::var("QUEUE").ok();
    let request = ProxyRequest {
        name,
        nodes: nodes.parse()?,
        cpus: cpus.parse()?,
        walltime: Duration::from_secs(walltime.parse()?),
        memory_mb: None,
        queue: queue.as_deref(),
        account: None,
        directives: &directives,
        workdir,
        output: &format!("{workdir}/{name}.out"),
        starter,
        exit_file: &format!("{workdir}/{name}.exit"),
    };
    let submission = System::new(system.parse()?, "vo-agent", workdir).render(&request);
    let command = shell::join(submission.argv.iter().map(String::as_str));
    print!("{}", submission.script.replacen('\n', &format!("\n# {command}\n"), 1));
    Ok(())
}

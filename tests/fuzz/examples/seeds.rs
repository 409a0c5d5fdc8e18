//! Writes the seeds to where cargo-fuzz looks for them: `cargo run -p vo-fuzz --example seeds tests/fuzz/driver/corpus`.

use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let corpus = PathBuf::from(std::env::args_os().nth(1).unwrap_or_else(|| "tests/fuzz/driver/corpus".into()));
    for (name, _) in vo_fuzz::TARGETS {
        let dir = corpus.join(name);
        std::fs::create_dir_all(&dir)?;
        for (number, seed) in vo_fuzz::seeds(name).iter().enumerate() {
            std::fs::write(dir.join(format!("seed-{number}")), seed)?;
        }
    }
    Ok(())
}

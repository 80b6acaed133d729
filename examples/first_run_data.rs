//! Writes the data of the first run: the acceptability task, and text to pre-train on.
//!
//! ```text
//! cargo run --release --example first_run_data -- assets/acceptability corpus.txt
//! ```

use std::path::Path;

use mtlora::train::acceptability;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(task), Some(corpus)) = (arguments.next(), arguments.next()) else {
        return Err("usage: first_run_data TASK_FOLDER CORPUS_FILE".into());
    };
    std::fs::create_dir_all(&task)?;
    acceptability::write_tsv(Path::new(&task), 1, 8000, 500)?;
    acceptability::write_corpus(Path::new(&corpus), 2, 60_000)?;
    Ok(())
}

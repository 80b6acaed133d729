//! Writes the data of the first run of text generation: the facts task, and text to pre-train on.
//!
//! ```text
//! cargo run --release --example facts_data -- assets/facts corpus.txt
//! ```

use std::path::Path;

use mtlora::train::facts;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(task), Some(corpus)) = (arguments.next(), arguments.next()) else {
        return Err("usage: facts_data TASK_FOLDER CORPUS_FILE".into());
    };
    facts::write_jsonl(Path::new(&task), 1, 2000, 100, 100)?;
    facts::write_corpus(Path::new(&corpus), 2, 40_000)?;
    Ok(())
}

use std::error::Error;
use std::path::PathBuf;

use mtlora::models::convert_gguf;
use serde_json::json;

use crate::cli::console::output;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The GGUF file, of a llama, qwen2 or qwen3 in F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K or Q6_K.
    #[arg(long, value_name = "FILE")]
    gguf: PathBuf,
    /// The folder to write, with weights in 32-bit floats; must be new or empty.
    #[arg(long)]
    out: PathBuf,
    /// Write into a folder that is not empty.
    #[arg(long)]
    overwrite: bool,
}

pub(crate) fn run(args: &Args, json: bool) -> Result<(), Box<dyn Error>> {
    output::ensure_empty_dir(&args.out, args.overwrite)?;
    let made = convert_gguf(&args.gguf, &args.out)?;
    say!(
        "the {} with {} parameters is in {}",
        made.model_type,
        made.parameters,
        args.out.display()
    )?;
    if json {
        output::json(&json!({
            "out": args.out,
            "model_type": made.model_type,
            "parameters": made.parameters,
        }))?;
    }
    Ok(())
}

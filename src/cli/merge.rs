use std::error::Error;
use std::path::PathBuf;

use mtlora::core::device;
use mtlora::models::copy_tokenizer_files;
use mtlora::train::Run;
use serde_json::json;

use super::output;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The run whose adapter is folded in.
    #[arg(long)]
    run: PathBuf,
    /// The folder to write; must be new or empty.
    #[arg(long)]
    out: PathBuf,
    /// Write into a folder that is not empty.
    #[arg(long)]
    overwrite: bool,
}

pub(crate) fn run(args: Args, json: bool) -> Result<(), Box<dyn Error>> {
    let (run, config) = Run::open(&args.run)?;
    output::vacant(&args.out, args.overwrite)?;
    let device = device(&config.device)?;
    let parts = run.load(&config, &device)?;
    std::fs::create_dir_all(&args.out)
        .map_err(|error| format!("{}: {error}", args.out.display()))?;
    copy_tokenizer_files(&config.model, &args.out)?;
    parts.model.save(&args.out, &parts.config)?;
    println!("the merged model is in {}", args.out.display());
    if json {
        output::json(&json!({ "out": args.out }))?;
    }
    Ok(())
}

use std::error::Error;
use std::path::PathBuf;

use mtlora::core::device;
use mtlora::models::copy_tokenizer_files;
use mtlora::train::StoredConfig;
use serde_json::json;

use super::{hub, output};

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
    let (run, stored) = hub::open_run(&args.run)?;
    output::vacant(&args.out, args.overwrite)?;
    match stored {
        StoredConfig::Classification(config) => {
            let parts = run.load(&config, &device(&config.device)?)?;
            output::make_folder(&args.out)?;
            copy_tokenizer_files(&config.model, &args.out)?;
            parts.model.save(&args.out, &parts.config)?;
        }
        StoredConfig::Generation(config) => {
            let parts = config.load(&run, &device(&config.device)?)?;
            output::make_folder(&args.out)?;
            copy_tokenizer_files(&config.model, &args.out)?;
            parts.model.save(&args.out, &parts.config)?;
        }
    }
    println!("the merged model is in {}", args.out.display());
    if json {
        output::json(&json!({ "out": args.out }))?;
    }
    Ok(())
}

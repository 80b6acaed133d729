use std::error::Error;
use std::path::PathBuf;

use mtlora::core::BaseDtype;
use mtlora::models::{copy_generation_config, copy_tokenizer_files};
use mtlora::train::ModelSpec;
use serde_json::json;

use crate::cli::console::output;
use crate::cli::model::adapted;
use crate::cli::model::adapted::{AnyModel, Source};
use crate::cli::model::device;
use crate::cli::model::finished::CheckpointArgs;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The run whose adapter is merged.
    #[arg(long, conflicts_with = "adapter", required_unless_present = "adapter")]
    run: Option<PathBuf>,
    #[command(flatten)]
    checkpoint: CheckpointArgs,
    /// Instead of a run: an adapter (of a run, or LoRA saved by PEFT) ...
    #[arg(long, value_name = "DIR", requires = "model")]
    adapter: Option<PathBuf>,
    /// ... and its base model.
    #[arg(long, requires = "adapter")]
    model: Option<PathBuf>,
    /// The folder to write; must be new or empty.
    #[arg(long)]
    out: PathBuf,
    /// Write into a folder that is not empty.
    #[arg(long)]
    overwrite: bool,
}

pub(crate) fn run(args: Args, json: bool) -> Result<(), Box<dyn Error>> {
    let source = Source {
        run: args.run,
        checkpoint: args.checkpoint,
        adapter: args.adapter,
        model: args.model,
    };
    let trained = adapted::source(source, None)?;
    let folder = &trained.folder;
    let device = device::open(&trained.device)?;
    let base = match &trained.model {
        AnyModel::Classifier(model) => &model.spec.base.model,
        AnyModel::Generator(model) => &model.spec.base.model,
    };
    adapted::refuse_source(
        &args.out,
        base,
        "the base model, which the adapter still needs",
    )?;
    adapted::refuse_source(&args.out, folder, "the adapter that is merged")?;
    output::ensure_empty_dir(&args.out, args.overwrite)?;
    // The update is merged into the weights in the base model's own precision, whatever precision the run used.
    match trained.model {
        AnyModel::Classifier(model) => {
            let mut spec = model.spec;
            spec.base.adapter.base_dtype = BaseDtype::F32;
            let merged = spec.load(folder, &device)?;
            merged.model.save(&args.out, &merged.config)?;
            copy_tokenizer_files(&spec.base.model, &args.out)?;
        }
        AnyModel::Generator(model) => {
            let mut spec = model.spec;
            spec.base.adapter.base_dtype = BaseDtype::F32;
            let merged = spec.load(folder, &device)?;
            merged.model.save(&args.out, &merged.config)?;
            copy_tokenizer_files(&spec.base.model, &args.out)?;
            copy_generation_config(&spec.base.model, &args.out)?;
        }
    }
    say!("the merged model is in {}", args.out.display())?;
    if json {
        output::json(&json!({ "out": args.out }))?;
    }
    Ok(())
}

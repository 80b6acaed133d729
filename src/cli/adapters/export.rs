use std::error::Error;
use std::path::PathBuf;

use mtlora::core::Fold;

use mtlora::models::PeftAdapter;
use serde_json::json;

use crate::cli::console::output;
use crate::cli::model::adapted;
use crate::cli::model::finished::CheckpointArgs;

/// The update of a weight is scale * B T A, but PEFT supports only scale * B A. T is therefore folded into A and B,
/// which does not change the model's outputs. An adapter of rank r on g projections that are fused in one weight
/// becomes one LoRA of rank g r with g times the alpha.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The run, or another folder with an adapter of MTLoRA.
    #[arg(long)]
    run: PathBuf,
    #[command(flatten)]
    checkpoint: CheckpointArgs,
    /// The folder to write; must be new or empty.
    #[arg(long)]
    out: PathBuf,
    /// The factor that T is folded into: a (A becomes T A), b (B becomes B T), or balanced. With the singular
    /// value decomposition T = U S V', balanced makes A into S^1/2 V' A and B into B U S^1/2, so that both get
    /// the same share of T's scale. This is better for further training and for half precision.
    #[arg(long, default_value_t = Fold::Balanced)]
    fold: Fold,
    /// The base model's name in the adapter's configuration, for example its id on the Hub [default: the run's
    /// model folder].
    #[arg(long, value_name = "NAME")]
    base_model_name: Option<String>,
    /// Write into a folder that is not empty.
    #[arg(long)]
    overwrite: bool,
}

pub(crate) fn run(args: Args, json: bool) -> Result<(), Box<dyn Error>> {
    args.checkpoint.check(&args.run)?;
    adapted::refuse_source(&args.out, &args.run, "the adapter that is exported")?;
    let adapter = PeftAdapter::from_folder(&args.run)?;
    output::ensure_empty_dir(&args.out, args.overwrite)?;
    let mut plain = adapter.fold(args.fold)?;
    if args.base_model_name.is_some() {
        plain.config.base_model_name_or_path = args.base_model_name;
    }
    output::make_folder(&args.out)?;
    plain.write(&args.out)?;
    say!("the adapter is in {} as plain LoRA", args.out.display())?;
    if json {
        output::json(&json!({
            "out": args.out,
            "r": plain.config.r,
            "lora_alpha": plain.config.lora_alpha,
            "modules": plain.modules.len(),
        }))?;
    }
    Ok(())
}

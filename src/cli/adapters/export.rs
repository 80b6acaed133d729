use std::error::Error;
use std::path::{Path, PathBuf};

use mtlora::core::Fold;

use mtlora::models::{
    CausalConfig, ExportOptions, ModelConfig, ModelFamilies, PeftAdapter, Server, export_adapter,
    is_gguf,
};
use mtlora::train::Run;
use mtlora::train::report::CardOf;
use serde_json::json;

use crate::cli::adapters::card;
use crate::cli::console::output;
use crate::cli::model::adapted;
use crate::cli::model::finished::CheckpointArgs;

/// The update of a weight is scale * B T A, but PEFT supports only scale * B A. T is therefore folded into A and B,
/// which does not change the model's outputs. An adapter of rank r on g projections that are fused in one weight
/// becomes one LoRA of rank g r with g times the alpha. With --for, the scale is folded into B as well, so that no program
/// can read it wrongly.
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
    /// The program that serves the adapter: peft, vllm (mistral.rs reads the same), llama.cpp, ollama or mlx [default:
    /// a folder for PEFT that keeps rank and alpha, for further training].
    #[arg(long = "for", value_name = "PROGRAM")]
    server: Option<Server>,
    /// The base model's folder, which llama.cpp's and Ollama's files need [default: the run's].
    #[arg(long, value_name = "DIR", requires = "server")]
    model: Option<PathBuf>,
    /// The factor that T is folded into: a (A becomes T A), b (B becomes B T), or balanced. With the singular
    /// value decomposition T = U S V', balanced makes A into S^1/2 V' A and B into B U S^1/2, so that both get
    /// the same share of T's scale. This is better for further training and for half precision.
    #[arg(long, default_value_t = Fold::Balanced)]
    fold: Fold,
    /// The base model's name in the files, for example its id on the Hub, or for ollama what FROM names [default: the
    /// run's model folder].
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
    if let Some(server) = args.server {
        return for_server(args, &adapter, server, json);
    }
    output::ensure_empty_dir(&args.out, args.overwrite)?;
    let mut plain = adapter.fold(args.fold)?;
    if args.base_model_name.is_some() {
        plain.config.base_model_name_or_path = args.base_model_name;
    }
    output::make_folder(&args.out)?;
    plain.write(&args.out)?;
    let of = CardOf::Adapter {
        server: None,
        rank: plain.config.r,
    };
    card::write(of, &args.run, &args.out);
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

fn for_server(
    args: Args,
    adapter: &PeftAdapter,
    server: Server,
    json: bool,
) -> Result<(), Box<dyn Error>> {
    let model = match args.model {
        None if Run::is_in(&args.run) => Some(Run::open(&args.run)?.1.base.model),
        None => {
            let named = adapter.config.base_model_name_or_path.as_ref();
            named
                .map(PathBuf::from)
                .filter(|model| model.is_dir() || is_gguf(model))
        }
        given => given,
    };
    if let Some(model) = &model {
        adapted::refuse_source(&args.out, model, "the base model")?;
    }
    let base = match &model {
        Some(model) if server.needs_base() => Some(decoder(model)?),
        _ => None,
    };
    let options = ExportOptions {
        fold: args.fold,
        base,
        base_name: args.base_model_name,
    };
    output::ensure_empty_dir(&args.out, args.overwrite)?;
    let written = export_adapter(adapter, server, &options, &args.out)?;
    let of = CardOf::Adapter {
        server: Some(server),
        rank: written.rank,
    };
    card::write(of, &args.run, &args.out);
    if let Some(file) = written.files.first() {
        say!("the adapter for {server} is {}", file.display())?;
    }
    if json {
        output::json(&json!({
            "out": args.out,
            "for": server.name(),
            "files": written.files,
            "r": written.rank,
            "modules": written.modules,
        }))?;
    }
    Ok(())
}

/// The configuration of the decoder in a folder.
fn decoder(folder: &Path) -> Result<CausalConfig, Box<dyn Error>> {
    match ModelFamilies::builtin().open(folder)? {
        ModelConfig::Causal(config) => Ok(config),
        ModelConfig::Classifier(_) => Err(format!(
            "{}: this model predicts labels or numbers, and the program that serves the adapter writes texts; leave out \
             --for",
            folder.display()
        )
        .into()),
    }
}

use std::error::Error;
use std::path::{Path, PathBuf};

use mtlora::core::Fold;

use mtlora::models::{
    CausalConfig, ExportOptions, ModelConfig, ModelFamilies, PeftAdapter, Server, export_adapter,
    is_gguf,
};
use mtlora::train::report::CardOf;
use mtlora::train::{Run, is_unnamed};
use serde_json::{Value, json};

use crate::cli::adapters::card;
use crate::cli::console::output;
use crate::cli::model::adapted;
use crate::cli::model::finished::CheckpointArgs;
use crate::cli::model::{head, label_file};

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
    #[command(flatten)]
    form: Form,
    /// The base model's name in the files, for example its id on the Hub, or for ollama what FROM names [default: the
    /// run's model folder].
    #[arg(long, value_name = "NAME")]
    base_model_name: Option<String>,
    /// Write into a folder that is not empty.
    #[arg(long)]
    overwrite: bool,
}

/// How an adapter is written.
#[derive(clap::Args)]
pub(crate) struct Form {
    /// The program that serves the adapter: peft, vllm (mistral.rs reads the same), llama.cpp, ollama or mlx [default:
    /// a folder for PEFT that keeps rank and alpha, for further training].
    #[arg(long = "for", value_name = "PROGRAM")]
    server: Option<Server>,
    /// The base model's folder, which llama.cpp's and Ollama's files need [default: the run's].
    #[arg(long, value_name = "DIR")]
    pub(crate) model: Option<PathBuf>,
    /// The factor that T is folded into: a (A becomes T A), b (B becomes B T), or balanced. With the singular
    /// value decomposition T = U S V', balanced makes A into S^1/2 V' A and B into B U S^1/2, so that both get
    /// the same share of T's scale. This is better for further training and for half precision.
    #[arg(long, default_value_t = Fold::Balanced)]
    fold: Fold,
}

/// What was written.
pub(crate) struct Written {
    /// What it is.
    pub(crate) of: CardOf,
    /// The file to give to the program, if it is for one.
    main: Option<PathBuf>,
    /// What the JSON says besides the folder.
    json: Value,
}

pub(crate) fn run(args: Args, json: bool) -> Result<(), Box<dyn Error>> {
    args.checkpoint.check(&args.run)?;
    adapted::refuse_source(&args.out, &args.run, "the adapter that is exported")?;
    adapted::refuse_without_adapter(&args.run)?;
    let adapter = PeftAdapter::from_folder(&args.run)?;
    let base = args.form.base(&args.run, &adapter)?;
    if let Some(model) = base.model.as_ref().filter(|_| args.form.server.is_some()) {
        adapted::refuse_source(&args.out, model, "the base model")?;
    }
    output::ensure_empty_dir(&args.out, args.overwrite)?;
    let written = args
        .form
        .write(&adapter, base, args.base_model_name.clone(), &args.out)?;
    write_labels(Some(&args.run), &adapter, &args.out)?;
    let name = args.base_model_name.as_deref();
    card::write(written.of, &args.run, name, &args.out);
    match (&written.main, args.form.server) {
        (Some(file), Some(server)) => say!("the adapter for {server} is {}", file.display())?,
        _ => say!("the adapter is in {} as plain LoRA", args.out.display())?,
    }
    if json {
        let mut object = json!({ "out": args.out });
        if let (Some(all), Value::Object(more)) = (object.as_object_mut(), written.json) {
            all.extend(more);
        }
        output::json(&object)?;
    }
    Ok(())
}

/// Writes the classes of the head's outputs into the folder `out` of an adapter that was made from the one in `folder`, if that
/// has a head and its classes have names. An older list of classes in `out` is removed otherwise.
pub(crate) fn write_labels(
    folder: Option<&Path>,
    adapter: &PeftAdapter,
    out: &Path,
) -> Result<(), Box<dyn Error>> {
    let names = match (folder, adapter.num_labels()) {
        (Some(folder), Some(outputs)) => head::adapter_labels(folder, outputs)?,
        _ => None,
    };
    match names {
        Some(names) if !names.is_empty() && !is_unnamed(&names) => label_file::write(out, &names),
        _ => label_file::remove(out),
    }
}

/// The base model of an adapter that is written for a program.
pub(crate) struct Base {
    model: Option<PathBuf>,
    config: Option<CausalConfig>,
}

impl Form {
    /// Finds the base model, as far as the program that the adapter is written for needs it.
    pub(crate) fn base(&self, run: &Path, adapter: &PeftAdapter) -> Result<Base, Box<dyn Error>> {
        let Some(server) = self.server else {
            if self.model.is_some() {
                return Err(
                    "--model is for an adapter that is written for a program (--for); plain LoRA needs no base model: \
                     leave it out"
                        .into(),
                );
            }
            return Ok(Base {
                model: None,
                config: None,
            });
        };
        let model = match &self.model {
            None if Run::is_in(run) => {
                let model = Run::open(run)?.1.base.model;
                if server.needs_base() {
                    adapted::refuse_missing_base(run, &model)?;
                }
                Some(model)
            }
            None => {
                let named = adapter.config.base_model_name_or_path.as_ref();
                named
                    .map(PathBuf::from)
                    .filter(|model| model.is_dir() || is_gguf(model))
            }
            given => given.clone(),
        };
        let config = match &model {
            Some(model) if server.needs_base() => Some(decoder(model)?),
            _ => None,
        };
        Ok(Base { model, config })
    }

    /// Writes the adapter into the folder `out`. `base_name` is the base model's name in the files.
    pub(crate) fn write(
        &self,
        adapter: &PeftAdapter,
        base: Base,
        base_name: Option<String>,
        out: &Path,
    ) -> Result<Written, Box<dyn Error>> {
        let Some(server) = self.server else {
            let mut plain = adapter.fold(self.fold)?;
            if base_name.is_some() {
                plain.config.base_model_name_or_path = base_name;
            }
            output::make_folder(out)?;
            plain.write(out)?;
            return Ok(Written {
                of: CardOf::Adapter {
                    server: None,
                    rank: plain.config.r,
                },
                main: None,
                json: json!({
                    "r": plain.config.r,
                    "lora_alpha": plain.config.lora_alpha,
                    "modules": plain.modules.len(),
                }),
            });
        };
        let options = ExportOptions {
            fold: self.fold,
            base: base.config,
            base_name,
        };
        let written = export_adapter(adapter, server, &options, out)?;
        Ok(Written {
            of: CardOf::Adapter {
                server: Some(server),
                rank: written.rank,
            },
            main: written.files.first().cloned(),
            json: json!({
                "for": server.name(),
                "files": written.files,
                "r": written.rank,
                "modules": written.modules,
            }),
        })
    }
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

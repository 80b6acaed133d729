use std::error::Error;
use std::path::{Path, PathBuf};

use mtlora::core::BaseDtype;
use mtlora::models::{
    GgufType, StoredDtype, copy_generation_config, copy_tokenizer_files, save_gguf,
};
use mtlora::train::ModelSpec;
use mtlora::train::report::CardOf;
use serde_json::json;

use crate::cli::adapters::card;
use crate::cli::console::output;
use crate::cli::model::adapted;
use crate::cli::model::adapted::{AnyModel, Source, TrainedModel};
use crate::cli::model::device;
use crate::cli::model::finished::CheckpointArgs;

/// The endings of a model card and its picture beside a GGUF file.
const BESIDE: [&str; 2] = ["md", "svg"];

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
    /// ... and its base model. With --run: the run's base model, if it is no longer where the run found it.
    #[arg(long)]
    model: Option<PathBuf>,
    /// The folder to write, which must be new or empty; with --gguf, the file.
    #[arg(long)]
    out: PathBuf,
    /// Precision of the weights that are written: f32, bf16, f16.
    #[arg(
        long,
        default_value_t,
        value_name = "PRECISION",
        conflicts_with = "gguf"
    )]
    dtype: StoredDtype,
    /// Write a GGUF file for llama.cpp and Ollama, `--out`, instead of a folder, with matrices in this type: F16, BF16, Q8_0,
    /// F32. A run's model card lies beside the file: NAME.md and NAME.svg for NAME.gguf.
    #[arg(long, value_name = "TYPE")]
    gguf: Option<GgufType>,
    /// Write into a folder that is not empty, or over a file.
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
    let folder = trained.folder.clone();
    let base = match &trained.model {
        AnyModel::Classifier(model) => &model.spec.base.model,
        AnyModel::Generator(model) => &model.spec.base.model,
    };
    adapted::refuse_source(
        &args.out,
        base,
        "the base model, which the adapter still needs",
    )?;
    adapted::refuse_source(&args.out, &folder, "the adapter that is merged")?;
    match args.gguf {
        Some(_) => check_file(&args.out, card::is_for(&folder), args.overwrite)?,
        None => output::ensure_empty_dir(&args.out, args.overwrite)?,
    }
    let form = match args.gguf {
        Some(kind) => Form::Gguf(kind),
        None => Form::Folder(args.dtype),
    };
    let of = write(trained, form, &args.out)?;
    card::write(of, &folder, None, &args.out);
    let form = match form {
        Form::Gguf(kind) => ("gguf", kind.to_string()),
        Form::Folder(dtype) => ("dtype", dtype.to_string()),
    };
    let card = match args.gguf {
        Some(_) if card::is_for(&folder) => card_beside(&args.out),
        _ => Vec::new(),
    };
    finish(&args.out, &card, form, json)
}

/// How a merged model is written.
#[derive(Clone, Copy)]
pub(crate) enum Form {
    /// As a Hugging Face folder with weights in this precision.
    Folder(StoredDtype),
    /// As a GGUF file with matrices in this type.
    Gguf(GgufType),
}

/// Merges the update into the weights in the base model's own precision, whatever precision the run used, and writes the
/// model. Returns what it is.
pub(crate) fn write(
    trained: TrainedModel,
    form: Form,
    out: &Path,
) -> Result<CardOf, Box<dyn Error>> {
    let folder = &trained.folder;
    let device = device::open(&trained.device)?;
    match (trained.model, form) {
        (AnyModel::Classifier(_), Form::Gguf(_)) => {
            Err("--gguf is for models that generate texts: merge this one without it".into())
        }
        (AnyModel::Classifier(model), Form::Folder(dtype)) => {
            let mut spec = model.spec;
            spec.base.adapter.base_dtype = BaseDtype::F32;
            let merged = spec.load(folder, &device)?;
            merged.model.save_in(dtype, out, &merged.config)?;
            copy_tokenizer_files(&spec.base.model, out)?;
            Ok(CardOf::Merged)
        }
        (AnyModel::Generator(model), form) => {
            let mut spec = model.spec;
            spec.base.adapter.base_dtype = BaseDtype::F32;
            let merged = spec.load(folder, &device)?;
            let base = &spec.base.model;
            match form {
                Form::Gguf(kind) => {
                    save_gguf(merged.model, &merged.config, base, kind, out)?;
                    Ok(CardOf::Gguf(kind))
                }
                Form::Folder(dtype) => {
                    merged.model.save_in(dtype, out, &merged.config)?;
                    copy_tokenizer_files(base, out)?;
                    copy_generation_config(base, out)?;
                    Ok(CardOf::Merged)
                }
            }
        }
    }
}

/// The model card beside a GGUF file and the picture in it, as far as they are there.
fn card_beside(file: &Path) -> Vec<PathBuf> {
    let mut beside = BESIDE.map(|end| file.with_extension(end)).to_vec();
    beside.retain(|path| path.exists());
    beside
}

/// Says where the model is, with its card beside it, and what its weights are in.
fn finish(
    out: &Path,
    card: &[PathBuf],
    form: (&str, String),
    json: bool,
) -> Result<(), Box<dyn Error>> {
    say!("the merged model is in {}", out.display())?;
    if !card.is_empty() {
        let names: Vec<String> = card.iter().map(|path| path.display().to_string()).collect();
        say!("its model card is in {}", names.join(" and "))?;
    }
    if json {
        let (name, value) = form;
        let mut object = json!({ "out": out, name: value });
        if !card.is_empty() {
            object["card"] = json!(card);
        }
        output::json(&object)?;
    }
    Ok(())
}

/// Refuses what is no GGUF file's name, and a file that is there already, also in the place of the card if there will be one.
fn check_file(path: &Path, has_card: bool, overwrite: bool) -> Result<(), String> {
    let shown = path.display();
    if path.extension().is_none_or(|end| end != "gguf") {
        return Err(format!(
            "{shown}: with --gguf, --out is the file to write: let its name end in .gguf"
        ));
    }
    let beside = BESIDE.map(|end| path.with_extension(end));
    let beside = beside.iter().filter(|_| has_card).map(PathBuf::as_path);
    for file in [path].into_iter().chain(beside) {
        if file.exists() && !overwrite {
            return Err(format!(
                "{} is there already: pass --overwrite, or another --out",
                file.display()
            ));
        }
    }
    Ok(())
}

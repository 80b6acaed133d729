//! An adapter on a base model, in place of a run.

use std::error::Error;
use std::path::{Path, PathBuf};

use mtlora::core::devices;
use mtlora::models::{EncoderConfig, GenerationConfig, Gpt2Config, ModelError, PeftAdapter};
use mtlora::train::{
    AdapterSettings, GenerationRunConfig, Objective, Run, RunConfig, SaveOptions, StoredConfig,
    TrainOptions, settings_of,
};

use crate::cli::console::output;
use crate::cli::hub;
use crate::cli::model::finished::{self, CheckpointArgs};
use crate::cli::model::head::{Head, HeadOf};
use crate::cli::settings::defaults::Defaults;
use crate::cli::settings::flags::Settings;
use crate::cli::settings::resolve::Resolved;
use crate::cli::text::encoding;

/// The device of that name, or the first.
pub(crate) fn device_name(wanted: Option<&str>) -> Result<String, &'static str> {
    match wanted {
        Some(name) => Ok(name.to_string()),
        None => {
            let first = devices().into_iter().next();
            Ok(first.ok_or("this build has no backend")?.name)
        }
    }
}

/// Reads an adapter's folder, and tells what of it was ignored.
pub(crate) fn read(folder: &Path) -> Result<PeftAdapter, Box<dyn Error>> {
    finished::note_if_unfinished(folder)?;
    read_finished(folder)
}

/// As [`read`], where it is known that the run whose folder it may be has ended.
pub(crate) fn read_finished(folder: &Path) -> Result<PeftAdapter, Box<dyn Error>> {
    let adapter = PeftAdapter::from_folder(folder)?;
    if !adapter.config.ignored.is_empty() {
        note!(
            "{}: unknown fields of adapter_config.json are ignored: {}",
            folder.display(),
            output::printable(&adapter.config.ignored.join(", "))
        );
    }
    Ok(adapter)
}

/// An error if a new run would be written where the adapter lies that it starts with: that would be gone before
/// the new one is whole.
pub(crate) fn refuse_own(out: &Path, adapter: Option<&Path>) -> Result<(), String> {
    let place = |folder: &Path| folder.canonicalize().ok();
    let same =
        adapter.is_some_and(|adapter| place(adapter).is_some() && place(adapter) == place(out));
    match same {
        true => Err(format!(
            "{}: the adapter that the run starts with is there; name another folder for --out",
            out.display()
        )),
        false => Ok(()),
    }
}

/// What is to be used: a run, or an adapter on a model.
pub(crate) struct Source {
    /// The run's folder.
    pub(crate) run: Option<PathBuf>,
    /// Which state of the run.
    pub(crate) checkpoint: CheckpointArgs,
    /// The adapter's folder, or its name on the Hub.
    pub(crate) adapter: Option<PathBuf>,
    /// The model's.
    pub(crate) model: Option<PathBuf>,
}

/// Where the trained values of `source` are and what they are.
pub(crate) fn source(
    source: Source,
    device: Option<&str>,
) -> Result<(PathBuf, StoredConfig), Box<dyn Error>> {
    match (source.run, source.adapter, source.model) {
        (Some(run), ..) => {
            source.checkpoint.check(&run)?;
            let (_, stored) = hub::open_run(&run)?;
            Ok((run, stored))
        }
        (None, Some(adapter), Some(model)) => {
            let adapter = hub::adapter(&adapter)?;
            let model = hub::model(&model, None, |_| Ok(()))?;
            let stored = infer_config(&adapter, &model, device)?;
            Ok((adapter, stored))
        }
        _ => Err("--run is needed, or --adapter with --model".into()),
    }
}

/// The run that the adapter in `folder` on `model` could be of, where no task is said: one with the
/// outputs of its head.
fn infer_config(
    folder: &Path,
    model: &Path,
    device: Option<&str>,
) -> Result<StoredConfig, Box<dyn Error>> {
    let adapter = read(folder)?;
    let device = device_name(device)?;
    let settings = settings_of(&adapter.config);
    let model = model.to_path_buf();
    // What a run knows of its texts and labels holds on another copy of its base model, too.
    let is_generation =
        Run::is_in(folder) && matches!(StoredConfig::open(folder)?.1, StoredConfig::Generation(_));
    let is_causal = Gpt2Config::from_folder(&model).is_ok();
    if Run::is_in(folder) && is_generation != is_causal {
        return Err(format!(
            "{}: is not of the kind that the run in {} was trained on, which is {}",
            model.display(),
            folder.display(),
            if is_generation {
                "a GPT-2"
            } else {
                "a RoBERTa or BERT"
            }
        )
        .into());
    }
    if Run::is_in(folder)
        && let StoredConfig::Classification(mut config) = StoredConfig::open(folder)?.1
    {
        let head = Head::find(HeadOf::Adapter(folder, &adapter), &model)?;
        config.fresh_head = head.fresh;
        config.model = model;
        config.device = device;
        config.adapter = settings;
        return Ok(StoredConfig::Classification(config));
    }
    match Gpt2Config::from_folder(&model) {
        Ok(config) => generation(model, settings, &config, device),
        Err(ModelError::UnsupportedArchitecture { .. }) => {
            classification(folder, model, settings, &adapter, device)
        }
        Err(error) => Err(error.into()),
    }
}

fn generation(
    model: PathBuf,
    adapter: AdapterSettings,
    config: &Gpt2Config,
    device: String,
) -> Result<StoredConfig, Box<dyn Error>> {
    Ok(StoredConfig::Generation(Box::new(GenerationRunConfig {
        task: String::new(),
        data: PathBuf::new(),
        train_split: String::new(),
        max_length: config.n_positions,
        label_smoothing: 0.0,
        device,
        final_scores: false,
        pairs: None,
        adapter,
        training: TrainOptions::default(),
        checkpoints: SaveOptions::default(),
        decoding: GenerationConfig::from_folder(&model, config.vocab_size)?,
        model,
    })))
}

fn classification(
    folder: &Path,
    model: PathBuf,
    settings: AdapterSettings,
    adapter: &PeftAdapter,
    device: String,
) -> Result<StoredConfig, Box<dyn Error>> {
    let config = EncoderConfig::from_folder(&model)?;
    let head = Head::find(HeadOf::Adapter(folder, adapter), &model)?;
    let labels = head.labels.unwrap_or_else(|| config.labels.clone());
    let outputs = labels.len();
    let objective = match outputs {
        1 => Objective::Regression,
        _ => Objective::Classification { labels },
    };
    let default = Defaults::classification().max_length;
    let max_length = encoding::default_length(&model, default)?.min(config.max_tokens());
    Ok(StoredConfig::Classification(Box::new(RunConfig {
        model,
        task: String::new(),
        data: PathBuf::new(),
        table: None,
        adapter: settings,
        max_length,
        device,
        training: TrainOptions::default(),
        checkpoints: SaveOptions::default(),
        fresh_head: head.fresh,
        objective,
    })))
}

/// The run that the adapter in `folder` could be of, for the task of `settings`, which name its base
/// model and its data too.
pub(crate) fn config_for_task(
    folder: &Path,
    settings: Settings,
) -> Result<StoredConfig, Box<dyn Error>> {
    let adapter = read(folder)?;
    let of_adapter = settings_of(&adapter.config);
    Ok(match settings.resolve(HeadOf::Adapter(folder, &adapter))? {
        Resolved::Classification(mut config, _) => {
            config.adapter = of_adapter;
            StoredConfig::Classification(config)
        }
        Resolved::Generation(mut config, _) => {
            config.adapter = of_adapter;
            StoredConfig::Generation(config)
        }
    })
}

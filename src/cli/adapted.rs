//! An adapter on a base model, in place of a run.

use std::error::Error;
use std::path::{Path, PathBuf};

use mtlora::core::devices;
use mtlora::models::{EncoderConfig, GenerationConfig, Gpt2Config, ModelError, PeftAdapter};
use mtlora::train::{
    AdapterSettings, GenerationRunConfig, Objective, RunConfig, SaveOptions, StoredConfig,
    TrainOptions, settings_of,
};

use super::settings::{Resolved, Settings};
use super::{hub, output, texts};

/// The most tokens of an example where no run says it.
const MAX_LENGTH: usize = 128;

/// The device of that name, or the first.
pub(super) fn device_name(wanted: Option<&str>) -> Result<String, &'static str> {
    match wanted {
        Some(name) => Ok(name.to_string()),
        None => {
            let first = devices().into_iter().next();
            Ok(first.ok_or("this build has no backend")?.name)
        }
    }
}

/// Reads an adapter's folder, and tells what of it was ignored.
pub(super) fn read(folder: &Path) -> Result<PeftAdapter, Box<dyn Error>> {
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
pub(super) fn refuse_own(out: &Path, adapter: Option<&Path>) -> Result<(), String> {
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

/// Where the trained values are and what they are: those of a run, or of an adapter on a model.
pub(super) fn source(
    run: Option<PathBuf>,
    adapter: Option<PathBuf>,
    model: Option<PathBuf>,
    device: Option<&str>,
) -> Result<(PathBuf, StoredConfig), Box<dyn Error>> {
    match (run, adapter, model) {
        (Some(run), ..) => {
            let (_, stored) = hub::open_run(&run)?;
            Ok((run, stored))
        }
        (None, Some(adapter), Some(model)) => {
            let adapter = hub::adapter(&adapter)?;
            let model = hub::model(&model, None, |_| Ok(()))?;
            let stored = untold(&adapter, &model, device)?;
            Ok((adapter, stored))
        }
        _ => Err("--run is needed, or --adapter with --model".into()),
    }
}

/// The run that the adapter in `folder` on `model` could be of, where no task is said: one with the
/// outputs of its head.
fn untold(
    folder: &Path,
    model: &Path,
    device: Option<&str>,
) -> Result<StoredConfig, Box<dyn Error>> {
    let adapter = read(folder)?;
    let device = device_name(device)?;
    let settings = settings_of(&adapter.config);
    let model = model.to_path_buf();
    match Gpt2Config::from_folder(&model) {
        Ok(config) => generation(model, settings, &config, device),
        Err(ModelError::UnsupportedArchitecture { .. }) => {
            classification(model, settings, &adapter, device)
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
        pairs: None,
        adapter,
        training: TrainOptions::default(),
        checkpoints: SaveOptions::default(),
        decoding: GenerationConfig::from_folder(&model, config.vocab_size)?,
        model,
    })))
}

fn classification(
    model: PathBuf,
    settings: AdapterSettings,
    adapter: &PeftAdapter,
    device: String,
) -> Result<StoredConfig, Box<dyn Error>> {
    let config = EncoderConfig::from_folder(&model)?;
    let outputs = adapter.num_labels().unwrap_or(config.num_labels());
    // A base that was never fine-tuned has names for another number of labels.
    let labels = match config.labels.len() == outputs {
        true => config.labels.clone(),
        false => (0..outputs).map(|index| format!("LABEL_{index}")).collect(),
    };
    let objective = match outputs {
        1 => Objective::Regression,
        _ => Objective::Classification { labels },
    };
    if adapter.num_labels().is_none() {
        note!("the adapter has no head: the base model's is used, random where it has none");
    }
    let max_length = texts::usual_length(&model, MAX_LENGTH)?.min(config.max_tokens());
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
        objective,
    })))
}

/// The run that the adapter in `folder` could be of, for the task of `settings`, which name its base
/// model and its data too.
pub(super) fn told(folder: &Path, settings: Settings) -> Result<StoredConfig, Box<dyn Error>> {
    let adapter = read(folder)?;
    let of_adapter = settings_of(&adapter.config);
    Ok(match settings.resolve()? {
        Resolved::Classification(mut config, task) => {
            config.adapter = of_adapter;
            check_head(folder, &adapter, task.name(), &config.objective)?;
            StoredConfig::Classification(config)
        }
        Resolved::Generation(mut config, _) => {
            config.adapter = of_adapter;
            StoredConfig::Generation(config)
        }
    })
}

/// An error if the adapter's head has other outputs than the task asks for.
pub(super) fn check_head(
    folder: &Path,
    adapter: &PeftAdapter,
    task: &str,
    objective: &Objective,
) -> Result<(), String> {
    let wanted = match objective {
        Objective::Classification { labels } => labels.len(),
        Objective::Regression => 1,
    };
    match adapter.num_labels() {
        Some(found) if found != wanted => Err(format!(
            "{}: its head has {found} outputs, {task} asks for {wanted}; name the task that it was trained on",
            folder.display()
        )),
        _ => Ok(()),
    }
}

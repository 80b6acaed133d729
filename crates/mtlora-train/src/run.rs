//! A run's folder: what it was told, what it learned, and how it went.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{Device, TensorData};
use mtlora_core::{State, load_state};
use mtlora_models::{
    Checkpoint, EncoderConfig, ModelError, ProblemType, SequenceClassifier, TextEncoder,
    write_atomically, write_checkpoint,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::adapter_settings::AdapterSettings;
use crate::example::Objective;
use crate::init_from::init_from;
use crate::options::TrainOptions;
use crate::table::TableConfig;
use crate::trainer::TrainError;

const CONFIG: &str = "run.toml";
const STATE: &str = "trained.safetensors";
const LOG: &str = "metrics.jsonl";

/// All that a run is made from: with it and the same model folder and data, it can be made again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// The base model's folder.
    pub model: PathBuf,
    /// The task's name.
    pub task: String,
    /// The data's folder.
    pub data: PathBuf,
    /// The columns of a table, where the task is one.
    pub table: Option<TableConfig>,
    /// What trains.
    pub adapter: AdapterSettings,
    /// The most tokens of an example; longer ones are cut.
    pub max_length: usize,
    /// The device's name.
    pub device: String,
    /// How it trains.
    pub training: TrainOptions,
    /// What the head puts out.
    pub objective: Objective,
}

impl RunConfig {
    /// The base model with this run's head and method, ready to train on an autodiff `device`, and
    /// the names of the tensors that its folder lacks.
    ///
    /// # Errors
    /// When the folder is no model, or the adapter does not fit it.
    pub fn prepare(&self, device: &Device) -> Result<(Parts, Vec<String>), TrainError> {
        let config = task_config(EncoderConfig::from_folder(&self.model)?, &self.objective)?;
        let text = TextEncoder::from_folder(&self.model, &config, self.max_length)?;
        let (model, fresh) =
            SequenceClassifier::from_folder(&self.model, &config, self.training.seed, device)?;
        let seed = self.training.seed;
        let model = self.adapter.prepare(model, &["classifier"], seed)?;
        Ok((
            Parts {
                model,
                config,
                text,
            },
            fresh,
        ))
    }

    /// As [`prepare`](Self::prepare), and with the adapter of the run that `init_from` names.
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare), and when that run's adapter does not fit this one.
    pub fn start(&self, device: &Device) -> Result<(Parts, Vec<String>), TrainError> {
        let (mut parts, fresh) = self.prepare(device)?;
        parts.model = init_from(parts.model, &self.adapter)?;
        Ok((parts, fresh))
    }
}

/// The configuration with a head for `objective`.
///
/// # Errors
/// When there are too many labels.
pub fn task_config(
    config: EncoderConfig,
    objective: &Objective,
) -> Result<EncoderConfig, ModelError> {
    match objective {
        Objective::Classification { labels } => {
            config.with_classifier(labels.clone(), ProblemType::SingleLabelClassification)
        }
        Objective::Regression => {
            config.with_classifier(vec!["LABEL_0".to_string()], ProblemType::Regression)
        }
    }
}

/// A model with what it takes to feed it.
pub struct Parts {
    /// The model.
    pub model: SequenceClassifier,
    /// Its sizes and labels.
    pub config: EncoderConfig,
    /// From text to tokens.
    pub text: TextEncoder,
}

/// A run's folder.
#[derive(Clone, Debug)]
pub struct Run {
    folder: PathBuf,
}

impl Run {
    /// A new folder with the resolved configuration in it.
    ///
    /// # Errors
    /// When the folder exists and is not empty, unless `overwrite`; what the operating system says.
    pub fn create(
        folder: &Path,
        overwrite: bool,
        config: &impl Serialize,
    ) -> Result<Self, TrainError> {
        let run = Self {
            folder: folder.to_path_buf(),
        };
        let occupied = fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
        if occupied && !overwrite {
            return Err(TrainError::Report(format!(
                "{}: exists and is not empty; name another folder, or pass --overwrite",
                folder.display()
            )));
        }
        fs::create_dir_all(folder).map_err(|error| ModelError::write(folder, error))?;
        for old in [STATE, LOG] {
            let path = run.path(old);
            if path.exists() {
                fs::remove_file(&path).map_err(|error| ModelError::write(&path, error))?;
            }
        }
        let text = toml::to_string_pretty(config)
            .map_err(|error| TrainError::Report(format!("{CONFIG}: {error}")))?;
        write_atomically(&run.path(CONFIG), text.as_bytes())?;
        Ok(run)
    }

    /// A run that is there, and its configuration, a [`RunConfig`] or what else `C` is; see
    /// [`StoredConfig`](crate::StoredConfig) where that is not known.
    ///
    /// # Errors
    /// When the folder has no readable `run.toml`.
    pub fn open<C: DeserializeOwned>(folder: &Path) -> Result<(Self, C), TrainError> {
        let path = folder.join(CONFIG);
        let text = fs::read_to_string(&path).map_err(|error| {
            TrainError::Report(format!(
                "{} is no run folder: cannot read its {CONFIG}: {error}",
                folder.display()
            ))
        })?;
        let config = toml::from_str(&text)
            .map_err(|error| TrainError::Report(format!("{}: {error}", path.display())))?;
        let folder = folder.to_path_buf();
        Ok((Self { folder }, config))
    }

    /// The trained model, without gradients.
    ///
    /// # Errors
    /// When the base model or the trained values cannot be read or do not fit.
    pub fn load(&self, config: &RunConfig, device: &Device) -> Result<Parts, TrainError> {
        let (parts, _) = config.prepare(&device.clone().autodiff())?;
        Ok(Parts {
            model: load_state(parts.model, self.values()?)?.valid(),
            ..parts
        })
    }

    /// The trained values, by path.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn values(&self) -> Result<State, TrainError> {
        let file = Checkpoint::open_file(&self.path(STATE))?;
        let mut values = State::new();
        for name in file.names() {
            let (shape, data) = file.read_f32(name)?;
            values.insert(name.to_string(), TensorData::new(data, shape));
        }
        Ok(values)
    }

    /// Writes the trained values, replacing older ones only when they are whole.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn save_state(&self, values: &State) -> Result<(), TrainError> {
        let mut tensors = Vec::new();
        for (path, data) in values {
            let values: Vec<f32> = data
                .clone()
                .convert::<f32>()
                .try_to_vec()
                .map_err(|error| TrainError::Report(format!("{path}: {error:?}")))?;
            tensors.push((path.clone(), data.shape().to_vec(), values.into()));
        }
        Ok(write_checkpoint(&self.path(STATE), tensors)?)
    }

    /// Appends a line to the metrics log.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn log(&self, entry: &impl Serialize) -> Result<(), TrainError> {
        let path = self.path(LOG);
        let mut line = serde_json::to_string(entry)
            .map_err(|error| TrainError::Report(format!("{LOG}: {error}")))?;
        line.push('\n');
        fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .map_err(|error| ModelError::write(&path, error).into())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

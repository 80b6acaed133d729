//! The run of a data-to-text task.

use std::path::PathBuf;

use burn::module::Module;
use burn::tensor::Device;
use mtlora_core::load_state;
use mtlora_models::{CausalLm, CausalText, GenerationConfig, Gpt2Config};
use serde::{Deserialize, Serialize};

use crate::adapter_settings::{AdapterSettings, MethodName};
use crate::data_to_text::PairsConfig;
use crate::generator::GeneratorParts;
use crate::init_from::init_from;
use crate::options::TrainOptions;
use crate::run::Run;
use crate::saver::SaveOptions;
use crate::trainer::TrainError;

/// All that a data-to-text run is made from: with it and the same model folder and data, it can be
/// made again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenerationRunConfig {
    /// The base model's folder: a GPT-2.
    pub model: PathBuf,
    /// The task's name.
    pub task: String,
    /// The data's folder.
    pub data: PathBuf,
    /// The split that it was trained on.
    pub train_split: String,
    /// The most tokens of a sequence; longer inputs are cut from the left.
    pub max_length: usize,
    /// The share of each token's loss that is spread over the vocabulary, in `[0, 1)`.
    pub label_smoothing: f64,
    /// The device's name.
    pub device: String,
    /// The columns of pairs of the user's own, where the task is such.
    pub pairs: Option<PairsConfig>,
    /// What trains.
    pub adapter: AdapterSettings,
    /// How it trains.
    pub training: TrainOptions,
    /// When checkpoints are made.
    #[serde(default)]
    pub checkpoints: SaveOptions,
    /// How texts are written.
    pub decoding: GenerationConfig,
}

impl GenerationRunConfig {
    /// The base model with this run's method, ready to train on an autodiff `device`.
    ///
    /// # Errors
    /// When the folder is no GPT-2, the adapter does not fit it, or there is nothing that could
    /// train.
    pub fn prepare(&self, device: &Device) -> Result<GeneratorParts, TrainError> {
        if self.adapter.method == MethodName::Head {
            return Err(TrainError::Option(
                "a GPT-2 has no head of its own to train: choose method mtlora or full",
            ));
        }
        let config = Gpt2Config::from_folder(&self.model)?;
        let text = CausalText::from_folder(&self.model, &config)?;
        let model = CausalLm::from_folder(&self.model, &config, device)?;
        let model = self.adapter.prepare(model, &[], self.training.seed)?;
        Ok(GeneratorParts {
            model,
            config,
            text,
        })
    }

    /// As [`prepare`](Self::prepare), and with the adapter of the run that `init_from` names.
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare), and when that run's adapter does not fit this one.
    pub fn start(&self, device: &Device) -> Result<GeneratorParts, TrainError> {
        let mut parts = self.prepare(device)?;
        parts.model = init_from(parts.model, &self.adapter)?;
        Ok(parts)
    }

    /// The trained model, without gradients, for writing texts: see [`AdapterSettings::folded`].
    ///
    /// # Errors
    /// When the base model or the trained values cannot be read or do not fit.
    pub fn load(&self, run: &Run, device: &Device) -> Result<GeneratorParts, TrainError> {
        let parts = self.prepare(&device.clone().autodiff())?;
        let model = load_state(parts.model, run.values()?)?;
        Ok(GeneratorParts {
            model: self.adapter.folded(model.valid()),
            ..parts
        })
    }
}

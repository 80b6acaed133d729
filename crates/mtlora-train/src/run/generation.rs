//! The run of a data-to-text task.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use mtlora_models::{CausalLm, CausalText, GenerationConfig, Gpt2Config, TrainedFormat};
use serde::{Deserialize, Serialize};

use crate::data::python;
use crate::inference::generator::{LoadedGenerator, PromptForm, WriteError, WriteOptions};
use crate::metrics::labels::Scores;
use crate::run::adapter_settings::{AdapterSettings, MethodName};
use crate::run::init_from::{import, start};
use crate::run::load::load;
use crate::run::saver::SaveOptions;
use crate::tasks::data_to_text::{PairsConfig, Record};
use crate::training::learners::causal::{causal_scores, encode_records};
use crate::training::learners::classification::TrainError;
use crate::training::options::TrainOptions;

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
    /// Whether the training ends with texts for the dev split and their scores. Runs of earlier builds do not say.
    #[serde(default)]
    pub final_scores: bool,
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
    /// The base model with this run's method, ready to train on an autodiff `device`. Its adapter is
    /// new, or the one that `init_from` names.
    ///
    /// # Errors
    /// When the folder is no GPT-2, the adapter does not fit it, or there is nothing that could
    /// train.
    pub fn start(&self, device: &Device) -> Result<LoadedGenerator, TrainError> {
        let parts = self.base(device)?;
        let seed = self.training.seed;
        let model = start(parts.model, &parts.config, &self.adapter, &[], seed)?;
        let model = self.adapter.keep_base(model)?;
        Ok(LoadedGenerator { model, ..parts })
    }

    /// The base model with the values that were trained, without gradients, for writing texts (see
    /// [`AdapterSettings::folded`]): the values of the run, or of the adapter, in `folder`.
    ///
    /// # Errors
    /// When the base model or the trained values cannot be read or do not fit.
    pub fn load(&self, folder: &Path, device: &Device) -> Result<LoadedGenerator, TrainError> {
        // What needs a gradient can only be told where there are some.
        let parts = self.base(&device.clone().autodiff())?;
        let model = load(parts.model, &parts.config, &self.adapter, folder)?;
        Ok(LoadedGenerator {
            model: self.adapter.folded(model),
            ..parts
        })
    }

    /// As [`start`](Self::start), but with the head, too, of the adapter that `init_from` names.
    ///
    /// # Errors
    /// When none is named, it does not fit the model, or differs from the settings.
    pub fn import(&self, device: &Device) -> Result<LoadedGenerator, TrainError> {
        let parts = self.base(device)?;
        let model = import(parts.model, &parts.config, &self.adapter)?;
        Ok(LoadedGenerator { model, ..parts })
    }

    /// What the model of `parts`, which [`load`](Self::load) has made, writes for each record, on one line, and tells
    /// `observe` how many texts are done.
    ///
    /// # Errors
    /// When the settings forbid every text, or the device fails.
    pub fn write_texts(
        &self,
        parts: &LoadedGenerator,
        records: &[Record],
        device: &Device,
        observe: &mut dyn FnMut(usize),
    ) -> Result<Vec<String>, WriteError> {
        let inputs: Vec<&str> = records.iter().map(|record| record.input.as_str()).collect();
        let options = WriteOptions {
            decoding: self.decoding.clone(),
            form: PromptForm::Input,
            cut: true,
        };
        let written = parts.write(&inputs, &options, device, observe)?;
        // In a file that is read line by line, texts that are what the scores see: words with spaces between them.
        let one_line = |text: &str| python::split(text).collect::<Vec<_>>().join(" ");
        Ok(written.iter().map(|one| one_line(&one.text)).collect())
    }

    /// The loss and the perplexity of the records' references to the model of `parts`, which [`load`](Self::load) has
    /// made.
    ///
    /// # Errors
    /// When no reference is short enough, or the device fails.
    pub fn likelihood(
        &self,
        parts: &LoadedGenerator,
        records: &[Record],
        device: &Device,
    ) -> Result<Scores, TrainError> {
        let end = parts.config.eos_token_id;
        let (sequences, _) = encode_records(&parts.text, end, records, self.max_length)?;
        causal_scores(&parts.model, &sequences, device)
    }

    /// How what `parts` trains is written.
    ///
    /// # Errors
    /// When the model has adapters of different structures.
    pub fn format(&self, parts: &LoadedGenerator) -> Result<TrainedFormat, TrainError> {
        self.adapter
            .format(&parts.model, &parts.config, &self.model)
    }

    /// The base model.
    pub(crate) fn base(&self, device: &Device) -> Result<LoadedGenerator, TrainError> {
        if self.adapter.method == MethodName::Head {
            return Err(TrainError::Option(
                "a GPT-2 has no head of its own to train: choose method mtlora or full",
            ));
        }
        let config = Gpt2Config::from_folder(&self.model)?;
        let text = CausalText::from_folder(&self.model, &config)?;
        let dtype = self.adapter.base_dtype_to_read();
        let model = CausalLm::from_folder_in(dtype, &self.model, &config, device)?;
        Ok(LoadedGenerator {
            model,
            config,
            text,
        })
    }
}

//! The configuration of a run.

use std::path::PathBuf;

use mtlora_models::{GenerationConfig, LossOn};
use serde::{Deserialize, Serialize};

use crate::run::model::base::BaseSpec;
use crate::run::model::classifier::{ClassifierSpec, HeadSpec};
use crate::run::model::generator::GeneratorSpec;
use crate::run::save_options::SaveOptions;
use crate::tasks::chat::TooLongChat;
use crate::tasks::data_to_text::PairsConfig;
use crate::tasks::table::TableConfig;
use crate::training::options::TrainOptions;

/// The configuration of a run. Together with the same model folder and data it is enough to repeat the run.
///
/// `K` has the part that only one kind of run has: a [`RunKind`] if the kind is known only at run time, or one of its
/// kinds after [`typed`](RunConfig::typed).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig<K = RunKind> {
    /// The name of the device.
    pub device: String,
    /// The base model and its trainable parameters.
    pub base: BaseSpec,
    /// The training data.
    pub data: DataSpec,
    /// The options of the training.
    pub training: TrainOptions,
    /// The options of checkpoints.
    #[serde(default)]
    pub checkpoints: SaveOptions,
    /// The part that depends on the kind of run.
    pub kind: K,
}

/// The data of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSpec {
    /// The name of the task.
    pub task: String,
    /// The folder with the data.
    pub folder: PathBuf,
    /// The share of the train split that is held back, and decides in place of the dev split which state is the best.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_fraction: Option<f64>,
    /// The split that is scored once, after training, with the best state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score_split: Option<String>,
}

impl DataSpec {
    /// All examples of this folder for the task `task`: the train split is trained on, and the dev split decides which
    /// state is the best.
    pub fn new(task: &str, folder: PathBuf) -> Self {
        Self {
            task: task.to_string(),
            folder,
            validation_fraction: None,
            score_split: None,
        }
    }
}

/// The kind of a run, with the part of the configuration that only this kind has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunKind {
    /// A classification or a regression.
    Classification(ClassificationRun),
    /// A data-to-text task.
    Generation(GenerationRun),
    /// Conversations.
    Chat(ChatRun),
}

/// The part of the configuration that only classifications and regressions have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassificationRun {
    /// The classification head.
    pub head: HeadSpec,
    /// The columns of the table, if the task is the user's own table.
    pub table: Option<TableConfig>,
}

/// The part of the configuration that only data-to-text runs have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenerationRun {
    /// The split to train on.
    pub train_split: String,
    /// The share of each token's training loss that is spread over the whole vocabulary, in `0.0..1.0`.
    pub label_smoothing: f64,
    /// Whether the run ends with generating texts for the dev split and scoring them.
    pub final_scores: bool,
    /// The columns of the table, if the task is the user's own table of prompts and completions.
    pub pairs: Option<PairsConfig>,
    /// The decoding settings.
    pub decoding: GenerationConfig,
}

/// The part of the configuration that only runs on conversations have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatRun {
    /// Which tokens are learned.
    pub loss_on: LossOn,
    /// What becomes of examples with more tokens than fit.
    pub too_long: TooLongChat,
    /// The share of each token's training loss that is spread over the whole vocabulary, in `0.0..1.0`.
    pub label_smoothing: f64,
    /// The decoding settings, with the tokens that end an answer.
    pub decoding: GenerationConfig,
}

/// A configuration whose kind is known.
#[derive(Clone, Debug, PartialEq)]
pub enum TypedConfig {
    /// The configuration of a classification or a regression.
    Classification(Box<RunConfig<ClassificationRun>>),
    /// The configuration of a data-to-text run.
    Generation(Box<RunConfig<GenerationRun>>),
    /// The configuration of a run on conversations.
    Chat(Box<RunConfig<ChatRun>>),
}

/// The settings that may change when a run is resumed. `None` leaves a setting as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResumeChanges {
    /// The name of the device.
    pub device: Option<String>,
    /// The options of checkpoints.
    pub checkpoints: Option<SaveOptions>,
    /// Whether a data-to-text run ends with generating and scoring texts.
    pub final_scores: Option<bool>,
}

impl<K> RunConfig<K> {
    /// Replaces the part that depends on the kind.
    fn with_kind<L>(self, kind: impl FnOnce(K) -> L) -> RunConfig<L> {
        RunConfig {
            device: self.device,
            base: self.base,
            data: self.data,
            training: self.training,
            checkpoints: self.checkpoints,
            kind: kind(self.kind),
        }
    }
}

impl RunConfig {
    /// The configuration with a statically known kind.
    pub fn typed(self) -> TypedConfig {
        match self.kind.clone() {
            RunKind::Classification(kind) => {
                TypedConfig::Classification(Box::new(self.with_kind(|_| kind)))
            }
            RunKind::Generation(kind) => {
                TypedConfig::Generation(Box::new(self.with_kind(|_| kind)))
            }
            RunKind::Chat(kind) => TypedConfig::Chat(Box::new(self.with_kind(|_| kind))),
        }
    }

    /// Applies changes to a resumed run. This function defines which settings may change; all others stay.
    pub fn change(&mut self, changes: ResumeChanges) {
        if let Some(device) = changes.device {
            self.device = device;
        }
        if let Some(checkpoints) = changes.checkpoints {
            self.checkpoints = checkpoints;
        }
        if let (Some(scores), RunKind::Generation(kind)) = (changes.final_scores, &mut self.kind) {
            kind.final_scores = scores;
        }
    }

    /// The current values of all settings that may change.
    pub(crate) fn changeable(&self) -> ResumeChanges {
        ResumeChanges {
            device: Some(self.device.clone()),
            checkpoints: Some(self.checkpoints.clone()),
            final_scores: match &self.kind {
                RunKind::Classification(_) | RunKind::Chat(_) => None,
                RunKind::Generation(kind) => Some(kind.final_scores),
            },
        }
    }
}

impl From<RunConfig<ClassificationRun>> for RunConfig {
    fn from(config: RunConfig<ClassificationRun>) -> Self {
        config.with_kind(RunKind::Classification)
    }
}

impl From<RunConfig<GenerationRun>> for RunConfig {
    fn from(config: RunConfig<GenerationRun>) -> Self {
        config.with_kind(RunKind::Generation)
    }
}

impl From<RunConfig<ChatRun>> for RunConfig {
    fn from(config: RunConfig<ChatRun>) -> Self {
        config.with_kind(RunKind::Chat)
    }
}

impl RunConfig<ChatRun> {
    /// The model.
    pub fn model(&self) -> GeneratorSpec {
        GeneratorSpec {
            base: self.base.clone(),
            seed: self.training.seed,
        }
    }
}

impl RunConfig<ClassificationRun> {
    /// The model with its head.
    pub fn model(&self) -> ClassifierSpec {
        ClassifierSpec {
            base: self.base.clone(),
            head: self.kind.head.clone(),
            seed: self.training.seed,
        }
    }
}

impl RunConfig<GenerationRun> {
    /// The model.
    pub fn model(&self) -> GeneratorSpec {
        GeneratorSpec {
            base: self.base.clone(),
            seed: self.training.seed,
        }
    }
}

#[cfg(test)]
pub(crate) fn example() -> RunConfig {
    use crate::data::example::Objective;
    use crate::run::model::adapter_settings::AdapterSettings;

    RunConfig {
        device: "flex".to_string(),
        base: BaseSpec {
            model: PathBuf::from("roberta-base"),
            max_length: 128,
            adapter: AdapterSettings::default(),
        },
        data: DataSpec::new("cola", PathBuf::from("data")),
        training: TrainOptions::default(),
        checkpoints: SaveOptions::default(),
        kind: RunKind::Classification(ClassificationRun {
            head: HeadSpec {
                objective: Objective::Regression,
                fresh: false,
            },
            table: None,
        }),
    }
}

//! The configuration of a run.

use std::path::PathBuf;

use mtlora_models::GenerationConfig;
use serde::{Deserialize, Serialize};

use crate::run::model::base::BaseSpec;
use crate::run::model::classifier::{ClassifierSpec, HeadSpec};
use crate::run::model::generator::GeneratorSpec;
use crate::run::save_options::SaveOptions;
use crate::tasks::data_to_text::PairsConfig;
use crate::tasks::table::TableConfig;
use crate::training::options::TrainOptions;

/// Everything that a run is made from: with it and the same model folder and data, the run can be made again.
///
/// `K` is what only runs of one kind have: a [`RunKind`], if it is known when the program runs, or one of the kinds in
/// it, after [`typed`](RunConfig::typed).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig<K = RunKind> {
    /// The name of the device that computes.
    pub device: String,
    /// The model, and which of its parameters train.
    pub base: BaseSpec,
    /// What it is trained on.
    pub data: DataSpec,
    /// How it trains.
    pub training: TrainOptions,
    /// When checkpoints are made.
    #[serde(default)]
    pub checkpoints: SaveOptions,
    /// What only this kind of run has.
    pub kind: K,
}

/// What a run is trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSpec {
    /// The task's name.
    pub task: String,
    /// The folder with the data.
    pub folder: PathBuf,
}

/// The kind of a run, and what only this kind has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunKind {
    /// A classification or a regression.
    Classification(ClassificationRun),
    /// A data-to-text task.
    Generation(GenerationRun),
}

/// What only the run of a classification or a regression has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassificationRun {
    /// The model's head.
    pub head: HeadSpec,
    /// The columns of the table, if the task is the user's own table.
    pub table: Option<TableConfig>,
}

/// What only the run of a data-to-text task has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenerationRun {
    /// The split that it is trained on.
    pub train_split: String,
    /// The share of each token's loss that is spread over the vocabulary, in `[0, 1)`.
    pub label_smoothing: f64,
    /// Whether training ends with texts for the dev split and their scores.
    pub final_scores: bool,
    /// The columns of the table, if the task is the user's own prompts and completions.
    pub pairs: Option<PairsConfig>,
    /// How texts are decoded.
    pub decoding: GenerationConfig,
}

/// A configuration by its kind.
#[derive(Clone, Debug, PartialEq)]
pub enum TypedConfig {
    /// Of a classification or a regression.
    Classification(Box<RunConfig<ClassificationRun>>),
    /// Of a data-to-text task.
    Generation(Box<RunConfig<GenerationRun>>),
}

/// What may change when a run is resumed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResumeChanges {
    /// The device's name.
    pub device: Option<String>,
    /// When checkpoints are made.
    pub checkpoints: Option<SaveOptions>,
    /// Whether the training of a data-to-text task ends with texts and their scores.
    pub final_scores: Option<bool>,
}

impl<K> RunConfig<K> {
    /// The same configuration with another kind.
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
    /// The configuration as one of its kind.
    pub fn typed(self) -> TypedConfig {
        match self.kind.clone() {
            RunKind::Classification(kind) => {
                TypedConfig::Classification(Box::new(self.with_kind(|_| kind)))
            }
            RunKind::Generation(kind) => {
                TypedConfig::Generation(Box::new(self.with_kind(|_| kind)))
            }
        }
    }

    /// Makes the changes that a resumed run may have; all other settings stay. This function defines which these are.
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

    /// What is set here of all that may change.
    pub(crate) fn changeable(&self) -> ResumeChanges {
        ResumeChanges {
            device: Some(self.device.clone()),
            checkpoints: Some(self.checkpoints.clone()),
            final_scores: match &self.kind {
                RunKind::Classification(_) => None,
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
        data: DataSpec {
            task: "cola".to_string(),
            folder: PathBuf::from("data"),
        },
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

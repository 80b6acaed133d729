//! The previous format of `run.toml`.

use std::path::PathBuf;

use mtlora_models::GenerationConfig;
use serde::Deserialize;

use crate::data::example::Objective;
use crate::run::config::settings::{
    ClassificationRun, DataSpec, GenerationRun, RunConfig, RunKind,
};
use crate::run::model::adapter_settings::AdapterSettings;
use crate::run::model::base::BaseSpec;
use crate::run::model::classifier::HeadSpec;
use crate::run::save_options::SaveOptions;
use crate::tasks::data_to_text::PairsConfig;
use crate::tasks::table::TableConfig;
use crate::training::normalization::of_earlier_builds;
use crate::training::options::TrainOptions;

/// Format 2. Each kind of run had its own layout, and the file did not name the kind.
pub(super) enum Format2 {
    Classification(Classification),
    Generation(Generation),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Classification {
    model: PathBuf,
    task: String,
    data: PathBuf,
    table: Option<TableConfig>,
    adapter: AdapterSettings,
    max_length: usize,
    device: String,
    training: TrainOptions,
    #[serde(default)]
    checkpoints: SaveOptions,
    #[serde(default)]
    fresh_head: bool,
    objective: Objective,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Generation {
    model: PathBuf,
    task: String,
    data: PathBuf,
    train_split: String,
    max_length: usize,
    label_smoothing: f64,
    device: String,
    #[serde(default)]
    final_scores: bool,
    pairs: Option<PairsConfig>,
    adapter: AdapterSettings,
    training: TrainOptions,
    #[serde(default)]
    checkpoints: SaveOptions,
    decoding: GenerationConfig,
}

impl Format2 {
    /// Reads the text of a `run.toml` without its format number.
    pub(super) fn read(text: &str) -> Result<Self, toml::de::Error> {
        let table: toml::Table = text.parse()?;
        // Only runs that generate texts have decoding settings.
        let mut config = if table.contains_key("decoding") {
            Self::Generation(toml::from_str(text)?)
        } else {
            Self::Classification(toml::from_str(text)?)
        };
        let options = table.get("training").and_then(toml::Value::as_table);
        if let Some(options) = options {
            let mut options = options.clone();
            of_earlier_builds(&mut options);
            *config.training() = options.try_into()?;
        }
        // Targets that had no form as a setting were stored as a description.
        let adapter = config.adapter();
        let is_described =
            |targets: &String| targets == "the adapter's" || targets.ends_with(" of some layers");
        if adapter.init_from.is_some() && adapter.targets.as_ref().is_some_and(is_described) {
            adapter.targets = None;
        }
        Ok(config)
    }

    fn adapter(&mut self) -> &mut AdapterSettings {
        match self {
            Self::Classification(config) => &mut config.adapter,
            Self::Generation(config) => &mut config.adapter,
        }
    }

    fn training(&mut self) -> &mut TrainOptions {
        match self {
            Self::Classification(config) => &mut config.training,
            Self::Generation(config) => &mut config.training,
        }
    }
}

impl From<Format2> for RunConfig {
    fn from(config: Format2) -> Self {
        match config {
            Format2::Classification(config) => Self {
                device: config.device,
                base: BaseSpec {
                    model: config.model,
                    max_length: config.max_length,
                    adapter: config.adapter,
                },
                data: DataSpec::new(&config.task, config.data),
                training: config.training,
                checkpoints: config.checkpoints,
                kind: RunKind::Classification(ClassificationRun {
                    head: HeadSpec {
                        objective: config.objective,
                        fresh: config.fresh_head,
                    },
                    table: config.table,
                }),
            },
            Format2::Generation(config) => Self {
                device: config.device,
                base: BaseSpec {
                    model: config.model,
                    max_length: config.max_length,
                    adapter: config.adapter,
                },
                data: DataSpec::new(&config.task, config.data),
                training: config.training,
                checkpoints: config.checkpoints,
                kind: RunKind::Generation(GenerationRun {
                    train_split: config.train_split,
                    label_smoothing: config.label_smoothing,
                    final_scores: config.final_scores,
                    pairs: config.pairs,
                    decoding: config.decoding,
                }),
            },
        }
    }
}

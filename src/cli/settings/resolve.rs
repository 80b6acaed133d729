//! Resolves settings and defaults into the configuration of a run.

use std::error::Error;
use std::path::PathBuf;

use mtlora::core::{AdaLora, AdapterMethod, BaseDtype, Dora};
use mtlora::models::{
    AdapterConfig, CausalConfig, CausalModelConfig, CausalText, ClassifierConfig, GenerationConfig,
    TextConfig, is_gguf,
};
use mtlora::train::chat::ChatTask;
use mtlora::train::data_to_text::{GenerationTask, PairsConfig, PairsTask};
use mtlora::train::{
    AdapterSettings, BaseSpec, ChatRun, ClassificationRun, DataSpec, GenerationRun, HeadSpec,
    MethodName, RunConfig, SaveOptions, TableTask, Task, TaskData, check_fraction, glue, registry,
    settings_of,
};

use crate::cli::chat;
use crate::cli::hub;
use crate::cli::model::device;
use crate::cli::model::finished;
use crate::cli::model::head::{Head, HeadOf};
use crate::cli::settings::defaults::{self, ADALORA_RANK, Defaults, LABEL_SMOOTHING, NONE};
use crate::cli::settings::flags::Settings;
use crate::cli::settings::needed;
use crate::cli::settings::storable::storable;
use crate::cli::text::encoding;

/// The configuration of a run, and its task.
pub(crate) enum Resolved {
    /// A classification or a regression.
    Classification(Box<RunConfig<ClassificationRun>>, Box<dyn Task>),
    /// A data-to-text task.
    Generation(Box<RunConfig<GenerationRun>>, Box<dyn GenerationTask>),
    /// Conversations.
    Chat(Box<RunConfig<ChatRun>>),
}

/// The model's folder, the data folder and the device.
struct Place {
    model: PathBuf,
    data: PathBuf,
    device: String,
}

impl Settings {
    /// Completes these settings with defaults to the configuration of a run, and opens its task. A classification
    /// starts with the head from `head`.
    ///
    /// # Errors
    /// If a setting is missing or does not apply to the task.
    pub(crate) fn resolve(self, head: HeadOf<'_>) -> Result<Resolved, Box<dyn Error>> {
        let (Some(name), Some(model)) = (self.task.clone(), self.model.clone()) else {
            return Err(needed::message(&self.missing()?).into());
        };
        let pairs = (name == PairsTask::NAME).then(|| self.pairs());
        let generation = registry::open_generation(&name, pairs.clone())?;
        let is_chat = registry::find(&name)?.is_chat();
        // Before anything is fetched.
        self.check_for_task(&name)?;
        // The path is absolute, so that the run can be read from any working directory.
        let data = match (&self.data, glue::task(&name)) {
            (Some(data), _) => data.canonicalize().unwrap_or_else(|_| data.clone()),
            (None, Ok(task)) => {
                let mut splits = vec![task.train_split(), task.dev_split()];
                splits.extend(self.score_split.as_deref());
                hub::glue_data(&task, &splits)?
            }
            (None, Err(_)) => return Err(needed::message(&self.missing()?).into()),
        };
        let model = hub::model(&model, self.revision.as_deref(), |folder| {
            match generation {
                _ if is_chat => drop(CausalConfig::from_folder(folder)?),
                Some(_) => drop(CausalConfig::from_folder(folder)?),
                None => drop(ClassifierConfig::from_folder(folder)?),
            }
            Ok(())
        })?;
        // A relative name can be Unicode although the folders above it are not.
        storable("model", &model)?;
        storable("data", &data)?;
        let device = device::name_or_default(self.device.as_deref())?;
        let place = Place {
            model,
            data,
            device,
        };
        match generation {
            _ if is_chat => self.chat(place),
            Some(task) => self.generation(place, task, pairs),
            None => self.classification(&name, place, head),
        }
    }

    /// Checks that the task is known and has these settings, and that their numbers are in range, without looking for files.
    ///
    /// # Errors
    /// If not.
    pub(crate) fn check_for_task(&self, name: &str) -> Result<(), Box<dyn Error>> {
        let task = registry::find(name)?;
        let is_chat = task.is_chat();
        if is_chat {
            self.refuse_for_chat(name)?;
        } else {
            self.refuse_chat(name)?;
        }
        if let Some(fraction) = self.validation_fraction {
            check_fraction(fraction)?;
        }
        if is_chat || registry::open_generation(name, None)?.is_some() {
            self.refuse_labels(name)?;
        } else {
            self.refuse_data_to_text(name)?;
        }
        self.refuse_columns(&task)?;
        self.refuse_metric(&task)?;
        Ok(())
    }

    fn classification(
        self,
        name: &str,
        place: Place,
        head: HeadOf<'_>,
    ) -> Result<Resolved, Box<dyn Error>> {
        let table = (name == TableTask::NAME).then(|| self.table());
        let head = match (self.fresh_head, head) {
            (Some(true), HeadOf::Adapter(folder, adapter)) if adapter.num_labels().is_some() => {
                return Err(format!(
                    "--fresh-head cannot be used here: the adapter in {} has a head of its own",
                    folder.display()
                )
                .into());
            }
            (Some(true), _) => HeadOf::Fresh,
            (_, head) => head,
        };
        let mut task = registry::open_classification(name, table.clone(), &place.data)?;
        let head = Head::find(head, &place.model)?;
        task = head.fit(task, self.labels.as_deref())?;
        let table = table.map(|table| table.with_classes_of(task.as_ref()));
        if table.is_some() {
            // Other splits may have classes that the head has but the train split lacks.
            task = registry::open_classification(name, table.clone(), &place.data)?;
        }
        let model = ClassifierConfig::from_folder(&place.model)?;
        let defaults = Defaults::classification().on(model.model_type());
        let adapter = self.adapter(defaults.adapter, defaults.adalora_targets)?;
        note_length(self.max_length, model.max_tokens());
        let max_length = match self.max_length {
            Some(length) => length,
            None => encoding::default_length(&place.model, defaults.max_length)?,
        };
        let config = RunConfig {
            device: place.device,
            base: BaseSpec {
                model: place.model,
                max_length,
                adapter,
            },
            data: DataSpec {
                validation_fraction: self.validation_fraction,
                score_split: self.score_split.clone(),
                ..DataSpec::new(task.name(), place.data)
            },
            training: self.training(defaults.training),
            checkpoints: self.checkpoints(SaveOptions::default()),
            kind: ClassificationRun {
                head: HeadSpec {
                    fresh: head.fresh,
                    objective: task.objective().clone(),
                },
                table,
            },
        };
        Ok(Resolved::Classification(Box::new(config), task))
    }

    fn generation(
        self,
        place: Place,
        task: Box<dyn GenerationTask>,
        pairs: Option<PairsConfig>,
    ) -> Result<Resolved, Box<dyn Error>> {
        let model = CausalConfig::from_folder(&place.model)?;
        let defaults = Defaults::data_to_text().on(model.model_type());
        let adapter = self.adapter(defaults.adapter, defaults.adalora_targets)?;
        let max_length = match self.max_length {
            Some(length) => length,
            None => encoding::default_length(&place.model, defaults.max_length)?,
        };
        note_length(self.max_length, model.max_tokens());
        let max_length = max_length.min(model.max_tokens());
        let decoding = defaults::decoding(task.scorer());
        let decoding = GenerationConfig {
            num_beams: self.num_beams.unwrap_or(decoding.num_beams),
            length_penalty: self.length_penalty.unwrap_or(decoding.length_penalty),
            no_repeat_ngram_size: self
                .no_repeat_ngram_size
                .unwrap_or(decoding.no_repeat_ngram_size),
            max_new_tokens: self.max_new_tokens.unwrap_or(decoding.max_new_tokens),
            eos_token_ids: self
                .eos_token_ids
                .clone()
                .unwrap_or(vec![model.end_of_text()]),
            ..decoding
        };
        decoding.validate()?;
        let config = RunConfig {
            device: place.device,
            base: BaseSpec {
                model: place.model,
                max_length,
                adapter,
            },
            data: DataSpec {
                validation_fraction: self.validation_fraction,
                score_split: self.score_split.clone(),
                ..DataSpec::new(task.name(), place.data)
            },
            training: self.training(defaults.training),
            checkpoints: self.checkpoints(SaveOptions::default()),
            kind: GenerationRun {
                train_split: self
                    .train_split
                    .clone()
                    .unwrap_or_else(|| task.train_split().to_string()),
                label_smoothing: self.label_smoothing.unwrap_or(LABEL_SMOOTHING),
                final_scores: self.final_scores().unwrap_or(true),
                pairs,
                decoding,
            },
        };
        Ok(Resolved::Generation(Box::new(config), task))
    }

    fn chat(self, place: Place) -> Result<Resolved, Box<dyn Error>> {
        let model = CausalConfig::from_folder(&place.model)?;
        let text = CausalText::from_folder(&place.model, &model)?;
        let defaults = Defaults::chat(model.model_type());
        let adapter = self.adapter(defaults.adapter, defaults.adalora_targets)?;
        let max_length = match self.max_length {
            Some(length) => length,
            None => encoding::default_length(&place.model, defaults.max_length)?,
        };
        note_length(self.max_length, model.max_tokens());
        let mut decoding = chat::decoding(&place.model, &model, &text)?;
        if let Some(ends) = &self.eos_token_ids {
            decoding.eos_token_ids.clone_from(ends);
        }
        if let Some(most) = self.max_new_tokens {
            decoding.max_new_tokens = most;
        }
        decoding.validate()?;
        let config = RunConfig {
            device: place.device,
            base: BaseSpec {
                model: place.model,
                max_length: max_length.min(model.max_tokens()),
                adapter,
            },
            data: DataSpec {
                validation_fraction: self.validation_fraction,
                score_split: self.score_split.clone(),
                ..DataSpec::new(ChatTask::NAME, place.data)
            },
            training: self.training(defaults.training),
            checkpoints: self.checkpoints(SaveOptions::default()),
            kind: ChatRun {
                loss_on: self.loss_on.unwrap_or_default(),
                too_long: self.too_long.unwrap_or_default(),
                label_smoothing: self.label_smoothing.unwrap_or(0.0),
                decoding,
            },
        };
        Ok(Resolved::Chat(Box::new(config)))
    }

    /// The settings of the adapter. If it starts from another adapter, the settings of that one are the defaults.
    fn adapter(
        &self,
        defaults: AdapterSettings,
        adalora_targets: Option<&str>,
    ) -> Result<AdapterSettings, Box<dyn Error>> {
        let named = self.init_from.as_deref();
        let named = named.filter(|folder| folder.as_os_str() != NONE);
        let init_from = named.map(hub::adapter).transpose()?;
        let defaults = match &init_from {
            Some(folder) if self.method.unwrap_or(defaults.method) == MethodName::MtLora => {
                finished::note_if_unfinished(folder)?;
                settings_of(&AdapterConfig::from_folder(folder)?)
            }
            _ => defaults,
        };
        let method = self.method.unwrap_or(defaults.method);
        let structure = self.structure.unwrap_or(defaults.structure);
        let has_adapter = method == MethodName::MtLora;
        let mut defaults = defaults;
        if has_adapter && adapts_whole_weights(structure) {
            if self.projections.is_some() {
                return Err(format!(
                    "--projections is not for --structure {structure}, which adapts a weight as a whole: leave it out"
                )
                .into());
            }
            defaults.projections = None;
        }
        if has_adapter && structure == AdapterMethod::from(AdaLora) {
            defaults = match init_from {
                Some(_) => self.adalora(defaults)?,
                None => AdapterSettings {
                    rank: ADALORA_RANK,
                    targets: adalora_targets
                        .map(str::to_string)
                        .or(defaults.targets.clone()),
                    ..self.adalora(defaults)?
                },
            };
        } else {
            self.refuse_adalora()?;
        }
        Ok(AdapterSettings {
            method,
            structure,
            rank: self.rank.unwrap_or(defaults.rank),
            alpha: self.alpha.unwrap_or(defaults.alpha),
            use_rslora: self.use_rslora.unwrap_or(defaults.use_rslora),
            dropout: self.adapter_dropout.unwrap_or(defaults.dropout),
            init: self.init.unwrap_or(defaults.init),
            init_from,
            targets: self.targets.clone().or(defaults.targets),
            projections: self.projections.clone().or(defaults.projections),
            base_dtype: self
                .base_dtype
                .unwrap_or_else(|| self.usual_base_dtype(method)),
            adalora: defaults.adalora.map(|schedule| self.schedule(schedule)),
        })
    }

    /// The precision of a base if none is set: a GGUF file's weights stay packed, unless they are trained.
    fn usual_base_dtype(&self, method: MethodName) -> BaseDtype {
        match &self.model {
            Some(model) if method != MethodName::Full && is_gguf(model) => BaseDtype::Packed,
            _ => BaseDtype::default(),
        }
    }

    /// The defaults of an AdaLoRA adapter, from those of others.
    ///
    /// # Errors
    /// If a setting was given that AdaLoRA does not have.
    fn adalora(&self, defaults: AdapterSettings) -> Result<AdapterSettings, String> {
        if self.init.is_some() {
            return Err(
                "--init is not for --structure adalora, which has a start of its own: leave it out"
                    .to_string(),
            );
        }
        Ok(AdapterSettings {
            adalora: Some(defaults.adalora.unwrap_or_default()),
            ..defaults
        })
    }
}

/// Says that a maximum length is longer than what the model reads.
fn note_length(asked: Option<usize>, most: usize) {
    if let Some(length) = asked.filter(|length| *length > most) {
        note!(
            "--max-length {length} is more than the {most} tokens that the model reads, so {most} is used"
        );
    }
}

/// Whether adapters of this method are on whole weights, also where a weight is of fused projections: PEFT's format, which
/// they are written in, knows no others.
pub(crate) fn adapts_whole_weights(structure: AdapterMethod) -> bool {
    [AdaLora.into(), Dora.into()].contains(&structure)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn settings(toml: &str) -> Settings {
        toml::from_str(toml).unwrap()
    }

    #[test]
    fn settings_that_a_task_lacks_are_refused() {
        let text = "task = 'cola'\nmodel = 'm'\ndata = 'd'\nnum_beams = 4\nlabel_smoothing = 0.1\n";
        let error = settings(text)
            .resolve(HeadOf::Model)
            .err()
            .unwrap()
            .to_string();
        assert!(error.starts_with("only data-to-text tasks have label_smoothing, num_beams; cola"));
    }

    #[test]
    fn init_from_none_means_a_new_adapter() {
        let text = "task = 'cola'\nmodel = 'assets/tiny-roberta'\ndata = 'd'\ninit_from = 'none'\n";
        let Resolved::Classification(config, _) = settings(text).resolve(HeadOf::Model).unwrap()
        else {
            panic!("cola is a classification");
        };
        assert_eq!(config.base.adapter.init_from, None);
        assert_eq!(config.training.warmup_steps, None);
    }
}

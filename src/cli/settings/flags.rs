//! Defines the settings of a run. Each is defined once, as a flag and as a key of a settings file or a recipe.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use mtlora::core::{AdaLoraSchedule, AdapterMethod, BaseDtype, FinalPhase, Init};
use mtlora::models::LossOn;
use mtlora::train::chat::{ChatTask, TooLongChat};
use mtlora::train::data_to_text::PairsConfig;
use mtlora::train::registry::{self, TaskEntry};
use mtlora::train::{
    AdamSettings, BatchSize, LoraPlus, LossNormalization, LrScheduler, MethodName, MetricError,
    MetricName, ReportTo, SaveOptions, TableConfig, TableTask, TrainOptions,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cli::settings::{defaults, names, numbers};
use crate::cli::train;

/// The heading in the help for flags of data-to-text tasks only.
const DATA_TO_TEXT: &str = "Data-to-text";
/// The heading in the help for flags of conversations only.
const CHAT: &str = "Conversations (--task chat)";
/// The settings under [`DATA_TO_TEXT`] that conversations have, too.
const CHAT_TOO: [&str; 5] = [
    "gradient_checkpointing",
    "projections",
    "label_smoothing",
    "eos_token_ids",
    "max_new_tokens",
];
/// The heading in the help for flags of AdaLoRA only.
const ADALORA: &str = "AdaLoRA (--structure adalora)";
/// The settings that data-to-text tasks do not have.
const LABELS_ONLY: [&str; 6] = [
    "text_column",
    "pair_column",
    "label_column",
    "regression",
    "labels",
    "fresh_head",
];

/// The settings that only an adapter has.
const ADAPTER: [&str; 8] = [
    "structure",
    "rank",
    "alpha",
    "use_rslora",
    "adapter_dropout",
    "init",
    "targets",
    "projections",
];

/// Groups of settings that exclude one another. If a layer has a setting of a group, the lower layers' settings of
/// the group are ignored.
pub(crate) const EXCLUSIVE: [&[&str]; 3] = [
    &["batch", "batch_tokens"],
    &["epochs", "max_steps"],
    &["warmup_ratio", "warmup_steps"],
];

/// Adds the defaults to the help of the flags, and lets those with numbers say plainly what they need.
fn with_defaults_and_numbers() -> impl FnMut(clap::Arg) -> clap::Arg {
    let mut with_default = defaults::add_to_help(defaults::of_settings());
    move |flag| with_default(numbers::in_plain_words(flag))
}

/// The settings that can be given by flags, a settings file or a recipe. The help adds the defaults from
/// [`defaults`].
#[derive(Clone, Debug, Default, PartialEq, clap::Args, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[command(mut_args(with_defaults_and_numbers()))]
pub(crate) struct Settings {
    /// The number of threads. The flag is one of all commands.
    #[arg(skip)]
    pub(crate) threads: Option<NonZeroUsize>,
    /// The base model (an encoder such as RoBERTa, BERT or DeBERTa; a causal model such as GPT-2 for data-to-text): a Hugging
    /// Face folder, or a name on the Hub such as roberta-base, org/name or org/name@revision.
    #[arg(long)]
    pub(crate) model: Option<PathBuf>,
    /// For a model on the Hub: the branch, tag or commit.
    #[arg(long)]
    pub(crate) revision: Option<String>,
    /// The task (see `mtlora tasks`).
    #[arg(long, value_parser = names::task(), hide_possible_values = true)]
    pub(crate) task: Option<String>,
    /// The folder with the data [needed, except for GLUE's tasks, which are on the Hub].
    #[arg(long)]
    pub(crate) data: Option<PathBuf>,
    /// For --task table: the column with the text.
    #[arg(long)]
    pub(crate) text_column: Option<String>,
    /// For --task table: the column with the second text of a pair.
    #[arg(long)]
    pub(crate) pair_column: Option<String>,
    /// For --task table: the column with the label or the number.
    #[arg(long)]
    pub(crate) label_column: Option<String>,
    /// The classes in the order of the outputs of the model's classification head, separated by commas; classes that
    /// contain commas go into a --config file, as labels = ["a, b", "c"].
    #[arg(long, value_delimiter = ',')]
    pub(crate) labels: Option<Vec<String>>,
    /// Start with a new output layer of the classification head, although the model has one: for a model that was
    /// fine-tuned on other classes.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) fresh_head: Option<bool>,
    /// For --task table: predict a number instead of a class.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) regression: Option<bool>,
    /// Which parameters are trained: mtlora (an adapter), full (all), head, bitfit (the biases and the head).
    #[arg(long, value_parser = names::one_of::<MethodName>(), hide_possible_values = true)]
    #[schemars(schema_with = "names::of::<MethodName>")]
    pub(crate) method: Option<MethodName>,
    /// How T is made: lora, shim, icfm, ctcm, dtsm; adalora (T = diag(e), whose ranks are pruned
    /// while it trains); or dora (LoRA that trains the lengths of the weight's rows separately).
    #[arg(long, value_parser = names::one_of::<AdapterMethod>(), hide_possible_values = true)]
    #[schemars(schema_with = "names::of::<AdapterMethod>")]
    pub(crate) structure: Option<AdapterMethod>,
    /// Rank of the update; for adalora, the rank before pruning.
    #[arg(long, visible_alias = "init-r")]
    #[serde(alias = "init_r")]
    pub(crate) rank: Option<usize>,
    /// Numerator of the update's scale, alpha / rank.
    #[arg(long)]
    pub(crate) alpha: Option<f64>,
    /// Scale by alpha / sqrt(rank), as rsLoRA (arXiv 2312.03732) does, with any structure but adalora.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) use_rslora: Option<bool>,
    /// Dropout on the adapter's input.
    #[arg(long)]
    pub(crate) adapter_dropout: Option<f64>,
    /// The initialization of the adapter: kaiming, identity, zero.
    #[arg(long, value_parser = names::one_of::<Init>(), hide_possible_values = true)]
    #[schemars(schema_with = "names::of::<Init>")]
    pub(crate) init: Option<Init>,
    /// Start with the adapter (not the head) in this folder, which is that of a run or was saved by PEFT, or with a
    /// name on the Hub. Structure, rank, alpha and targets are then those of the adapter. A plain LoRA can start any
    /// --structure, with T = I. The value none means a new adapter.
    #[arg(long, value_name = "DIR")]
    pub(crate) init_from: Option<PathBuf>,
    /// The weights that are adapted: endings of names separated by commas, a regular expression, or all-linear.
    #[arg(long)]
    pub(crate) targets: Option<String>,
    /// Precision of the frozen weights: f32, bf16 (half the memory, and faster on processors with bfloat16 products),
    /// f16 (half the memory), int8 (a quarter of the memory), nf4 (an eighth, as in QLoRA), packed (as a GGUF file has them,
    /// which is the default for one).
    #[arg(long, value_parser = names::one_of::<BaseDtype>(), hide_possible_values = true)]
    #[schemars(schema_with = "names::of::<BaseDtype>")]
    pub(crate) base_dtype: Option<BaseDtype>,
    /// Hold back this share of the train split (the same examples for every seed), and let it decide which state is the
    /// best, in place of the dev split.
    #[arg(long, value_name = "SHARE")]
    pub(crate) validation_fraction: Option<f64>,
    /// Score this split once, after training, with the best state (for data-to-text tasks, in place of the dev split).
    #[arg(long, value_name = "SPLIT")]
    pub(crate) score_split: Option<String>,
    /// The highest learning rate.
    #[arg(long)]
    pub(crate) lr: Option<f64>,
    /// How the learning rate changes, with transformers' names: linear (falls to zero), cosine (falls along half a wave),
    /// constant (without warm-up), constant_with_warmup, warmup_stable_decay (falls at the end, see --decay-ratio).
    #[arg(long, value_parser = names::one_of::<LrScheduler>(), hide_possible_values = true, value_name = "NAME")]
    #[schemars(schema_with = "names::of::<LrScheduler>")]
    pub(crate) lr_scheduler_type: Option<LrScheduler>,
    /// For --lr-scheduler-type warmup_stable_decay: the fraction of all steps, at the end, over which the learning rate
    /// falls.
    #[arg(long)]
    pub(crate) decay_ratio: Option<f64>,
    /// LoRA+ (arXiv 2402.12354): the learning rate of B (and of trained biases) divided by that of A; the paper advises
    /// about 16, with a smaller --lr.
    #[arg(long, value_name = "RATIO")]
    pub(crate) loraplus_lr_ratio: Option<f64>,
    /// LoRA+ for the factors that T is made of: their learning rate divided by that of A.
    #[arg(long, value_name = "RATIO")]
    pub(crate) loraplus_lr_ratio_t: Option<f64>,
    /// Sequences in a batch.
    #[arg(long)]
    pub(crate) batch: Option<usize>,
    /// Tokens in a batch, instead of --batch.
    #[arg(long, conflicts_with = "batch")]
    pub(crate) batch_tokens: Option<usize>,
    /// Batches in a step.
    #[arg(long)]
    pub(crate) gradient_accumulation: Option<usize>,
    /// How the losses of a step with several batches are averaged. step: their sum is divided by the number of tokens
    /// (or examples) in all batches. batch: each batch's sum is divided by its own number, and the mean over the
    /// batches is taken, as in the published GPT-2 code.
    #[arg(long, value_parser = names::one_of::<LossNormalization>(), hide_possible_values = true)]
    #[schemars(schema_with = "names::of::<LossNormalization>")]
    pub(crate) loss_normalization: Option<LossNormalization>,
    /// Passes over the training data.
    #[arg(long)]
    pub(crate) epochs: Option<usize>,
    /// Steps of the training, instead of --epochs: the last pass over the data may end early.
    #[arg(long, value_name = "STEPS", conflicts_with = "epochs")]
    pub(crate) max_steps: Option<usize>,
    /// The fraction of all steps over which the learning rate rises.
    #[arg(long)]
    pub(crate) warmup_ratio: Option<f64>,
    /// Steps over which the learning rate rises, instead of --warmup-ratio.
    #[arg(long, conflicts_with = "warmup_ratio")]
    pub(crate) warmup_steps: Option<usize>,
    /// AdamW's weight decay.
    #[arg(long)]
    pub(crate) weight_decay: Option<f64>,
    /// How much of the gradients' mean AdamW keeps in a step.
    #[arg(long, value_name = "BETA1")]
    pub(crate) adam_beta1: Option<f64>,
    /// How much of the mean of the gradients' squares AdamW keeps in a step.
    #[arg(long, value_name = "BETA2")]
    pub(crate) adam_beta2: Option<f64>,
    /// What AdamW adds before it divides by the root of that mean.
    #[arg(long, value_name = "EPSILON")]
    pub(crate) adam_epsilon: Option<f64>,
    /// The largest norm that the gradients may have; larger ones are scaled down.
    #[arg(long)]
    pub(crate) max_grad_norm: Option<f64>,
    /// Steps between evaluations.
    #[arg(long)]
    pub(crate) eval_steps: Option<usize>,
    /// The metric that decides which state is kept and whether a score is better, such as accuracy or loss.
    #[arg(long, value_parser = names::one_of::<MetricName>(), hide_possible_values = true, value_name = "METRIC")]
    #[schemars(schema_with = "names::of::<MetricName>")]
    pub(crate) metric_for_best_model: Option<MetricName>,
    /// Evaluations without a better score after which training stops.
    #[arg(long)]
    pub(crate) patience: Option<usize>,
    /// Steps between checkpoints, beyond those after each epoch and each best evaluation.
    #[arg(long)]
    pub(crate) save_steps: Option<usize>,
    /// Minutes between checkpoints.
    #[arg(long)]
    pub(crate) save_minutes: Option<f64>,
    /// Number of newest checkpoints that are kept, beside the one of the best evaluation.
    #[arg(long)]
    pub(crate) save_total_limit: Option<usize>,
    /// Where the curves are reported, beside the run's own metrics.jsonl: tensorboard (event files in the run's folder), none.
    #[arg(long, value_parser = names::one_of::<ReportTo>(), hide_possible_values = true, value_name = "WHERE")]
    #[schemars(schema_with = "names::of::<ReportTo>")]
    pub(crate) report_to: Option<ReportTo>,
    /// Maximum number of tokens of an example. Longer examples are truncated on the side that the model's tokenizer
    /// sets. In data-to-text examples only the input is truncated, on the left, and examples whose text is too long
    /// are left out. For conversations, see --too-long.
    #[arg(long)]
    pub(crate) max_length: Option<usize>,
    /// Seed of the head, the adapter, the data's order and dropout.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// The device (see `mtlora devices`).
    #[arg(long)]
    pub(crate) device: Option<String>,
    /// The average rank of the adapters after pruning.
    #[arg(long, help_heading = ADALORA)]
    pub(crate) target_r: Option<usize>,
    /// Steps at the start in which nothing is pruned.
    #[arg(long, help_heading = ADALORA, value_name = "STEPS")]
    pub(crate) tinit: Option<usize>,
    /// Steps at the end in which the ranks stay as they are.
    #[arg(long, help_heading = ADALORA, value_name = "STEPS")]
    pub(crate) tfinal: Option<usize>,
    /// Steps from one pruning to the next in between.
    #[arg(long, alias = "deltaT", help_heading = ADALORA, value_name = "STEPS")]
    #[serde(alias = "deltaT")]
    pub(crate) delta_t: Option<usize>,
    /// Smoothing factor of the average of sensitivities (AdaLoRA).
    #[arg(long, help_heading = ADALORA)]
    pub(crate) beta1: Option<f64>,
    /// Smoothing factor of the average of uncertainties (AdaLoRA).
    #[arg(long, help_heading = ADALORA)]
    pub(crate) beta2: Option<f64>,
    /// The weight of the term of the loss that keeps A and B orthogonal.
    #[arg(long, help_heading = ADALORA)]
    pub(crate) orth_reg_weight: Option<f64>,
    /// What happens in the last steps (--tfinal): fixed-pattern (the first of them prunes, and the pattern stays, as in
    /// PEFT), frozen-scores (each prunes by the scores as they were before, as in the authors' code).
    #[arg(long, value_parser = names::one_of::<FinalPhase>(), hide_possible_values = true, help_heading = ADALORA)]
    #[schemars(schema_with = "names::of::<FinalPhase>")]
    pub(crate) final_phase: Option<FinalPhase>,
    /// Which tokens are learned: assistant (what the assistant writes in all of its turns), completion (what it writes in the
    /// last one, or in what the data call completion), all.
    #[arg(long, value_parser = names::one_of::<LossOn>(), hide_possible_values = true, help_heading = CHAT)]
    #[schemars(schema_with = "names::of::<LossOn>")]
    pub(crate) loss_on: Option<LossOn>,
    /// What becomes of examples with more than --max-length tokens: cut (at the end), drop.
    #[arg(long, value_parser = names::one_of::<TooLongChat>(), hide_possible_values = true, help_heading = CHAT)]
    #[schemars(schema_with = "names::of::<TooLongChat>")]
    pub(crate) too_long: Option<TooLongChat>,
    /// The split to train on.
    #[arg(long, help_heading = DATA_TO_TEXT)]
    pub(crate) train_split: Option<String>,
    /// For --task pairs: the column with the prompt.
    #[arg(long, help_heading = DATA_TO_TEXT)]
    pub(crate) prompt_column: Option<String>,
    /// For --task pairs: the column with the text to write.
    #[arg(long, help_heading = DATA_TO_TEXT)]
    pub(crate) completion_column: Option<String>,
    /// For models with a fused projection, such as GPT-2: which of query, key and value are adapted, as letters of
    /// qkv.
    #[arg(long, help_heading = DATA_TO_TEXT)]
    pub(crate) projections: Option<String>,
    /// The share of each token's loss that is spread over the vocabulary.
    #[arg(long, help_heading = DATA_TO_TEXT)]
    pub(crate) label_smoothing: Option<f64>,
    /// Store only the input of each layer, and compute the layer again in the backward pass: less memory, at the cost of one
    /// more forward pass, with the same results.
    #[arg(long, help_heading = DATA_TO_TEXT, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) gradient_checkpointing: Option<bool>,
    /// Number of beams.
    #[arg(long, help_heading = DATA_TO_TEXT)]
    pub(crate) num_beams: Option<usize>,
    /// A sequence's log-probability is divided by its length to this power.
    #[arg(long, help_heading = DATA_TO_TEXT)]
    pub(crate) length_penalty: Option<f64>,
    /// No sequence of this many tokens is generated twice; 0 allows all.
    #[arg(long, help_heading = DATA_TO_TEXT)]
    pub(crate) no_repeat_ngram_size: Option<usize>,
    /// The tokens that end a text, separated by commas.
    #[arg(long, value_delimiter = ',', help_heading = DATA_TO_TEXT)]
    pub(crate) eos_token_ids: Option<Vec<u32>>,
    /// Maximum number of generated tokens.
    #[arg(long, help_heading = DATA_TO_TEXT)]
    pub(crate) max_new_tokens: Option<usize>,
    /// Do not generate and score texts for the dev split (BLEU and other metrics) at the end; `mtlora eval` can do it
    /// later.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", help_heading = DATA_TO_TEXT)]
    pub(crate) no_final_scores: Option<bool>,
}

impl Settings {
    /// The settings that were given, by name.
    ///
    /// # Errors
    /// If a value cannot be stored in a TOML file; the error names its flag.
    pub(super) fn given(&self) -> Result<toml::Table, String> {
        self.check_storable()?;
        toml::Table::try_from(self).map_err(|error| error.to_string())
    }

    /// The flag that sets a key of run.toml, such as `--lr` for `training.learning_rate`, if there is one.
    pub(crate) fn flag_of(key: &str) -> Option<String> {
        let (_, last) = key.rsplit_once('.').unwrap_or(("", key));
        let name = match key {
            "data.folder" => "data",
            "base.adapter.dropout" => "adapter_dropout",
            "training.learning_rate" => "lr",
            "training.batch.sequences" => "batch",
            "training.batch.tokens" => "batch_tokens",
            "training.adam.beta1" => "adam_beta1",
            "training.adam.beta2" => "adam_beta2",
            "training.adam.epsilon" => "adam_epsilon",
            "training.lora_plus.lr_ratio" => "loraplus_lr_ratio",
            "training.lora_plus.lr_ratio_t" => "loraplus_lr_ratio_t",
            _ => last,
        };
        let command = Self::augment_args(clap::Command::new("settings"));
        let is_flag = command.get_arguments().any(|flag| flag.get_id() == name);
        is_flag.then(|| format!("--{}", name.replace('_', "-")))
    }

    /// The names of the given settings whose flags have this heading in the help.
    fn given_under(&self, heading: &str) -> Result<Vec<String>, String> {
        let given = self.given()?;
        let command = Self::augment_args(clap::Command::new("settings"));
        let set = command
            .get_arguments()
            .filter(|flag| flag.get_help_heading() == Some(heading))
            .map(|flag| flag.get_id().to_string())
            .filter(|name| given.contains_key(name));
        Ok(set.collect())
    }

    /// Refuses settings that only AdaLoRA has, because the adapter is another.
    pub(super) fn refuse_adalora(&self) -> Result<(), String> {
        let set = self.given_under(ADALORA)?;
        if set.is_empty() {
            return Ok(());
        }
        Err(format!(
            "only --structure adalora has {}: leave them out",
            set.join(", ")
        ))
    }

    /// When and how much AdaLoRA prunes. `defaults` are used where nothing was given.
    pub(super) fn schedule(&self, defaults: AdaLoraSchedule) -> AdaLoraSchedule {
        AdaLoraSchedule {
            target_rank: self.target_r.unwrap_or(defaults.target_rank),
            initial_steps: self.tinit.unwrap_or(defaults.initial_steps),
            final_steps: self.tfinal.unwrap_or(defaults.final_steps),
            interval: self.delta_t.unwrap_or(defaults.interval),
            sensitivity_decay: self.beta1.unwrap_or(defaults.sensitivity_decay),
            uncertainty_decay: self.beta2.unwrap_or(defaults.uncertainty_decay),
            penalty: self.orth_reg_weight.unwrap_or(defaults.penalty),
            final_phase: self.final_phase.unwrap_or(defaults.final_phase),
        }
    }

    /// Refuses settings that only data-to-text tasks have, because the task `task` is not one.
    pub(super) fn refuse_data_to_text(&self, task: &str) -> Result<(), String> {
        let set = self.given_under(DATA_TO_TEXT)?;
        if set.is_empty() {
            return Ok(());
        }
        Err(format!(
            "only data-to-text tasks have {}; {task} asks for labels or numbers: leave them out",
            set.join(", ")
        ))
    }

    /// Refuses settings that only data-to-text tasks have, because the task is about conversations.
    pub(super) fn refuse_for_chat(&self, task: &str) -> Result<(), String> {
        let mut set = self.given_under(DATA_TO_TEXT)?;
        set.retain(|name| !CHAT_TOO.contains(&name.as_str()));
        if set.is_empty() {
            return Ok(());
        }
        Err(format!(
            "the task {task} does not have {}: leave them out",
            set.join(", ")
        ))
    }

    /// Refuses settings that only conversations have, because `task` is another task.
    pub(super) fn refuse_chat(&self, task: &str) -> Result<(), String> {
        let set = self.given_under(CHAT)?;
        if set.is_empty() {
            return Ok(());
        }
        Err(format!(
            "only the task {} has {}; the task is {task}: leave them out",
            ChatTask::NAME,
            set.join(", ")
        ))
    }

    /// Refuses settings that only tasks with labels or numbers have, because `task` is a data-to-text task.
    pub(super) fn refuse_labels(&self, task: &str) -> Result<(), String> {
        let given = self.given()?;
        match LABELS_ONLY.iter().find(|name| given.contains_key(**name)) {
            Some(field) => Err(format!(
                "{field} does not apply to the task {task}; leave it out"
            )),
            None => Ok(()),
        }
    }

    /// Refuses settings that name the columns of the user's own data, because the data of `task` are others.
    pub(super) fn refuse_columns(&self, task: &TaskEntry) -> Result<(), String> {
        let given = self.given()?;
        for other in registry::all() {
            if other.name() == task.name() {
                continue;
            }
            let mut columns = other.column_settings().to_vec();
            if other.name() == TableTask::NAME {
                columns.push("regression");
            }
            columns.retain(|name| given.contains_key(*name));
            if !columns.is_empty() {
                return Err(format!(
                    "only the task {} has {}; the task is {}: leave them out",
                    other.name(),
                    columns.join(", "),
                    task.name()
                ));
            }
        }
        Ok(())
    }

    /// Refuses to choose the best state by a metric that `task` does not have. The metrics of a table are those of its data,
    /// which are not read here.
    pub(super) fn refuse_metric(&self, task: &TaskEntry) -> Result<(), MetricError> {
        let computed = if task.is_chat() {
            train::chat::METRICS.to_vec()
        } else if task.is_generation() {
            train::generation::METRICS.to_vec()
        } else if task.name() == TableTask::NAME {
            return Ok(());
        } else {
            let names = task.metric_names().into_iter();
            let mut metrics: Vec<MetricName> = names.filter_map(|name| name.parse().ok()).collect();
            metrics.push(MetricName::Loss);
            metrics
        };
        self.training(TrainOptions::default())
            .check_metric(&computed)
    }

    /// The given settings of an adapter that have no effect, because the method trains none.
    pub(super) fn idle(&self) -> Result<Option<(MethodName, Vec<&'static str>)>, String> {
        let method = self.method.unwrap_or(MethodName::MtLora);
        if method == MethodName::MtLora {
            return Ok(None);
        }
        let given = self.given()?;
        let idle = ADAPTER.into_iter().filter(|name| given.contains_key(*name));
        let idle: Vec<&'static str> = idle.collect();
        Ok((!idle.is_empty()).then_some((method, idle)))
    }

    /// The columns of a table.
    pub(crate) fn table(&self) -> TableConfig {
        let defaults = TableConfig::default();
        TableConfig {
            text: self.text_column.clone().unwrap_or(defaults.text),
            pair: self.pair_column.clone(),
            label: self.label_column.clone().unwrap_or(defaults.label),
            regression: self.regression.unwrap_or(defaults.regression),
            ..TableConfig::default()
        }
    }

    /// The columns of a table with prompts and completions.
    pub(super) fn pairs(&self) -> PairsConfig {
        let defaults = PairsConfig::default();
        PairsConfig {
            prompt: self.prompt_column.clone().unwrap_or(defaults.prompt),
            completion: self
                .completion_column
                .clone()
                .unwrap_or(defaults.completion),
            ..PairsConfig::default()
        }
    }

    /// Whether the run should end with generating and scoring texts, if this was given.
    pub(crate) fn final_scores(&self) -> Option<bool> {
        self.no_final_scores.map(|leave_out| !leave_out)
    }

    /// The options of checkpoints and reports. `defaults` are used where nothing was given.
    pub(super) fn checkpoints(&self, defaults: SaveOptions) -> SaveOptions {
        SaveOptions {
            save_steps: self.save_steps.or(defaults.save_steps),
            save_minutes: self.save_minutes.or(defaults.save_minutes),
            save_total_limit: self.save_total_limit.unwrap_or(defaults.save_total_limit),
            report_to: self.report_to.unwrap_or(defaults.report_to),
        }
    }

    /// The learning rates of LoRA+, if one was given.
    fn lora_plus(&self) -> Option<LoraPlus> {
        let (b, t) = (self.loraplus_lr_ratio, self.loraplus_lr_ratio_t);
        let same = LoraPlus::default();
        (b.is_some() || t.is_some()).then(|| LoraPlus {
            lr_ratio: b.unwrap_or(same.lr_ratio),
            lr_ratio_t: t.unwrap_or(same.lr_ratio_t),
        })
    }

    /// The options of training. `defaults` are used where nothing was given.
    pub(crate) fn training(&self, defaults: TrainOptions) -> TrainOptions {
        TrainOptions {
            batch: match (self.batch, self.batch_tokens) {
                (Some(sequences), _) => BatchSize::Sequences(sequences),
                (None, Some(tokens)) => BatchSize::Tokens(tokens),
                (None, None) => defaults.batch,
            },
            gradient_accumulation: self
                .gradient_accumulation
                .unwrap_or(defaults.gradient_accumulation),
            loss_normalization: self
                .loss_normalization
                .unwrap_or(defaults.loss_normalization),
            learning_rate: self.lr.unwrap_or(defaults.learning_rate),
            lr_scheduler_type: self.lr_scheduler_type.unwrap_or(defaults.lr_scheduler_type),
            decay_ratio: self.decay_ratio.or(defaults.decay_ratio),
            epochs: self.epochs.unwrap_or(defaults.epochs),
            max_steps: self.max_steps,
            warmup_ratio: self.warmup_ratio.unwrap_or(defaults.warmup_ratio),
            warmup_steps: self.warmup_steps,
            weight_decay: self.weight_decay.unwrap_or(defaults.weight_decay),
            adam: AdamSettings {
                beta1: self.adam_beta1.unwrap_or(defaults.adam.beta1),
                beta2: self.adam_beta2.unwrap_or(defaults.adam.beta2),
                epsilon: self.adam_epsilon.unwrap_or(defaults.adam.epsilon),
            },
            lora_plus: self.lora_plus().or(defaults.lora_plus),
            max_grad_norm: self.max_grad_norm,
            eval_steps: self.eval_steps,
            metric_for_best_model: self
                .metric_for_best_model
                .or(defaults.metric_for_best_model),
            patience: self.patience,
            gradient_checkpointing: self.gradient_checkpointing.unwrap_or_default(),
            seed: self.seed.unwrap_or(defaults.seed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_run_toml_have_their_flags() {
        let flag = |key: &str| Settings::flag_of(key).unwrap_or_default();
        for (key, name) in [
            ("device", "--device"),
            ("base.adapter.rank", "--rank"),
            ("base.adapter.dropout", "--adapter-dropout"),
            ("training.learning_rate", "--lr"),
            ("training.epochs", "--epochs"),
            ("training.batch.tokens", "--batch-tokens"),
            ("training.gradient_accumulation", "--gradient-accumulation"),
            ("training.adam.beta2", "--adam-beta2"),
            ("training.lora_plus.lr_ratio_t", "--loraplus-lr-ratio-t"),
            ("data.folder", "--data"),
            ("kind.classification.head.objective.kind", ""),
        ] {
            assert_eq!(flag(key), name, "{key}");
        }
    }

    #[test]
    fn the_settings_of_one_kind_of_task_are_flags() {
        let command = Settings::augment_args(clap::Command::new("settings"));
        let is_flag = |name: &str| command.get_arguments().any(|flag| flag.get_id() == name);
        for name in LABELS_ONLY.into_iter().chain(ADAPTER) {
            assert!(is_flag(name), "{name}");
        }
    }
}

//! Defines the defaults of a run's settings. Each is defined once: runs use them, and the help prints them.

use clap::Arg;
use mtlora::core::AdaLoraSchedule;
use mtlora::models::{GenerationConfig, LossOn, ModelFamilies};
use mtlora::train::chat::TooLongChat;
use mtlora::train::data_to_text::{PairsConfig, Scorer};
use mtlora::train::{
    AdapterSettings, BatchSize, DECAY_RATIO, LoraPlus, SaveOptions, TableConfig, TrainOptions,
};

use crate::cli::chat::ANSWER_TOKENS;

/// The share of each token's training loss that is spread over the whole vocabulary.
pub(crate) const LABEL_SMOOTHING: f64 = 0.1;
/// AdaLoRA's rank before pruning; PEFT's default of `init_r`.
pub(super) const ADALORA_RANK: usize = 12;
/// The value of `init_from` that means a new adapter.
pub(crate) const NONE: &str = "none";

/// The defaults that depend on the kind of task.
pub(crate) struct Defaults {
    /// The trainable parameters, and the settings of the adapter.
    pub(crate) adapter: AdapterSettings,
    /// The target modules of AdaLoRA, where they differ from the adapter's.
    pub(crate) adalora_targets: Option<&'static str>,
    /// The options of the training.
    pub(crate) training: TrainOptions,
    /// The maximum number of tokens of an example.
    pub(crate) max_length: usize,
}

impl Defaults {
    /// The defaults of classifications and regressions.
    pub(crate) fn classification() -> Self {
        Self {
            adapter: AdapterSettings::default(),
            adalora_targets: None,
            training: TrainOptions::default(),
            max_length: 128,
        }
    }

    /// The defaults of data-to-text tasks. They are the settings of the paper's GPT-2 runs (arXiv 2403.07440), except
    /// that the warm-up is a share of the steps.
    pub(crate) fn data_to_text() -> Self {
        let defaults = Self {
            adapter: AdapterSettings {
                rank: 4,
                alpha: 32.0,
                dropout: 0.1,
                ..AdapterSettings::default()
            },
            adalora_targets: None,
            training: TrainOptions {
                batch: BatchSize::Sequences(8),
                learning_rate: 2e-4,
                epochs: 5,
                weight_decay: 0.01,
                ..TrainOptions::default()
            },
            max_length: 512,
        };
        defaults.on("gpt2")
    }

    /// The defaults of conversations with a model of this type: with an adapter on all linear maps, a few hundred
    /// conversations are learned in a few passes.
    pub(crate) fn chat(model_type: &str) -> Self {
        let of_model = Self::data_to_text().on(model_type);
        Self {
            adalora_targets: None,
            adapter: AdapterSettings {
                rank: 16,
                alpha: 32.0,
                targets: Some("all-linear".to_string()),
                projections: of_model.adapter.projections,
                ..AdapterSettings::default()
            },
            training: TrainOptions {
                batch: BatchSize::Sequences(8),
                learning_rate: 1e-3,
                epochs: 5,
                weight_decay: 0.0,
                ..TrainOptions::default()
            },
            max_length: 1024,
        }
    }

    /// The same defaults with the default targets for models of this type.
    pub(crate) fn on(mut self, model_type: &str) -> Self {
        let default = ModelFamilies::builtin().default_targets(model_type);
        self.adapter.targets = Some(default.targets.to_string());
        self.adalora_targets = default.adalora;
        self.adapter.projections = default.projections.map(str::to_string);
        self
    }

    /// The number of sequences in a batch.
    pub(crate) fn batch_sequences(&self) -> usize {
        match self.training.batch {
            BatchSize::Sequences(count) | BatchSize::Tokens(count) => count,
        }
    }
}

/// The decoding settings of the paper for data-to-text tasks. The tokens that end a text depend on the model and are
/// set elsewhere.
pub(crate) fn decoding(scorer: Scorer) -> GenerationConfig {
    GenerationConfig {
        num_beams: 10,
        length_penalty: match scorer {
            Scorer::E2e => 0.9,
            Scorer::WebNlg | Scorer::Dart => 0.8,
        },
        no_repeat_ngram_size: 4,
        max_new_tokens: 64,
        ..GenerationConfig::default()
    }
}

/// The defaults that the help shows: the id of a flag, and the text after `default: `.
pub(crate) type HelpDefaults = Vec<(&'static str, String)>;

/// Adds each default to the help of its flag, as `[default: ...]`.
pub(crate) fn add_to_help(shown: HelpDefaults) -> impl FnMut(Arg) -> Arg {
    move |flag| {
        let Some((_, default)) = shown.iter().find(|(name, _)| flag.get_id() == name) else {
            return flag;
        };
        let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
        let help = help.trim_end_matches('.');
        flag.help(format!("{help} [default: {default}]"))
    }
}

/// A default that may differ for a second `kind` of task or model.
pub(crate) fn by_kind(first: impl ToString, kind: &str, second: impl ToString) -> String {
    let (first, second) = (first.to_string(), second.to_string());
    if first == second {
        first
    } else {
        format!("{first}; {kind}: {second}")
    }
}

/// The defaults of [`Settings`](super::flags::Settings).
pub(crate) fn of_settings() -> HelpDefaults {
    let labels = Defaults::classification();
    let texts = Defaults::data_to_text();
    let chats = Defaults::chat("llama");
    // One default for all kinds of tasks, or those of conversations beside those of the others.
    let both = |value: fn(&Defaults) -> String| {
        let (first, chat) = (value(&labels), value(&chats));
        let shown = by_kind(&first, "data-to-text", value(&texts));
        if chat == first {
            shown
        } else {
            format!("{shown}; chat: {chat}")
        }
    };
    let (table, pairs) = (TableConfig::default(), PairsConfig::default());
    let checkpoints = SaveOptions::default();
    let e2e = decoding(Scorer::E2e);
    let adalora = AdaLoraSchedule::default();
    let every = |interval: Option<String>| interval.unwrap_or_else(|| "no others".to_string());
    vec![
        ("revision", "main".to_string()),
        ("text_column", table.text),
        ("pair_column", "none".to_string()),
        ("label_column", table.label),
        (
            "labels",
            "they are matched by the names in the model's config.json; a new head takes the data's order".to_string(),
        ),
        ("method", both(|of| of.adapter.method.to_string())),
        ("structure", both(|of| of.adapter.structure.to_string())),
        (
            "rank",
            by_kind(
                both(|of| of.adapter.rank.to_string()),
                "adalora",
                ADALORA_RANK,
            ),
        ),
        ("target_r", adalora.target_rank.to_string()),
        ("tinit", adalora.initial_steps.to_string()),
        ("tfinal", adalora.final_steps.to_string()),
        ("delta_t", adalora.interval.to_string()),
        ("beta1", adalora.sensitivity_decay.to_string()),
        ("beta2", adalora.uncertainty_decay.to_string()),
        ("orth_reg_weight", adalora.penalty.to_string()),
        ("final_phase", adalora.final_phase.to_string()),
        ("alpha", both(|of| of.adapter.alpha.to_string())),
        ("adapter_dropout", both(|of| of.adapter.dropout.to_string())),
        ("init", both(|of| of.adapter.init.to_string())),
        ("init_from", NONE.to_string()),
        ("targets", both(|of| of.adapter.targets.clone().unwrap_or_default())),
        ("base_dtype", both(|of| of.adapter.base_dtype.to_string())),
        ("lr", both(|of| format!("{:e}", of.training.learning_rate))),
        ("loraplus_lr_ratio", LoraPlus::default().lr_ratio.to_string()),
        ("loraplus_lr_ratio_t", LoraPlus::default().lr_ratio_t.to_string()),
        ("batch", both(|of| of.batch_sequences().to_string())),
        (
            "gradient_accumulation",
            both(|of| of.training.gradient_accumulation.to_string()),
        ),
        (
            "loss_normalization",
            both(|of| of.training.loss_normalization.to_string()),
        ),
        ("lr_scheduler_type", both(|of| of.training.lr_scheduler_type.to_string())),
        ("decay_ratio", DECAY_RATIO.to_string()),
        ("adam_beta1", both(|of| of.training.adam.beta1.to_string())),
        ("adam_beta2", both(|of| of.training.adam.beta2.to_string())),
        ("adam_epsilon", both(|of| format!("{:e}", of.training.adam.epsilon))),
        ("metric_for_best_model", "the task's first; data-to-text: loss".to_string()),
        ("epochs", both(|of| of.training.epochs.to_string())),
        ("warmup_ratio", both(|of| of.training.warmup_ratio.to_string())),
        ("weight_decay", both(|of| of.training.weight_decay.to_string())),
        ("max_grad_norm", "no bound".to_string()),
        ("eval_steps", "once an epoch".to_string()),
        ("patience", "never".to_string()),
        (
            "save_steps",
            every(checkpoints.save_steps.map(|steps| steps.to_string())),
        ),
        (
            "save_minutes",
            every(checkpoints.save_minutes.map(|minutes| minutes.to_string())),
        ),
        ("save_total_limit", checkpoints.save_total_limit.to_string()),
        ("report_to", checkpoints.report_to.to_string()),
        (
            "max_length",
            format!(
                "{}, or the tokenizer's own limit if that is lower",
                both(|of| of.max_length.to_string())
            ),
        ),
        ("seed", both(|of| of.training.seed.to_string())),
        ("device", "the first".to_string()),
        ("loss_on", LossOn::default().to_string()),
        ("too_long", TooLongChat::default().to_string()),
        ("train_split", "the task's: train".to_string()),
        ("prompt_column", pairs.prompt),
        ("completion_column", pairs.completion),
        (
            "projections",
            format!(
                "{} where --targets has c_attn",
                texts.adapter.projections.unwrap_or_default()
            ),
        ),
        ("label_smoothing", format!("{LABEL_SMOOTHING}; chat: 0")),
        ("num_beams", e2e.num_beams.to_string()),
        (
            "length_penalty",
            format!(
                "{} for e2e, else {}",
                e2e.length_penalty,
                decoding(Scorer::Dart).length_penalty
            ),
        ),
        ("no_repeat_ngram_size", e2e.no_repeat_ngram_size.to_string()),
        (
            "eos_token_ids",
            "the model's end of text; chat: also those of generation_config.json and of the chat template".to_string(),
        ),
        (
            "max_new_tokens",
            format!("{}; chat: that of generation_config.json, or {ANSWER_TOKENS}", e2e.max_new_tokens),
        ),
    ]
}

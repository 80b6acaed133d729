//! The measured model and its adapter.

use std::error::Error;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use mtlora::core::{AdapterMethod, BaseDtype, capabilities, trainable_parameters};
use mtlora::models::{
    CausalConfig, CausalLm, ClassifierConfig, ClassifierOptions, ModelConfig, ModelError,
    ModelFamilies, SequenceClassifier, is_gguf,
};
use mtlora::train::{AdapterSettings, MethodName, TrainOptions};

use super::card::Card;
use super::report::Place;
use crate::cli::settings::defaults::{self, Defaults, HelpDefaults};
use crate::cli::settings::names;
use crate::cli::settings::resolve::adapts_whole_weights;

/// The flags that choose the model.
#[derive(clap::Args)]
pub(super) struct ModelArgs {
    /// roberta-base, gpt2 or gpt2-medium with random weights, or a Hugging Face folder; generation needs a causal model.
    #[arg(long, value_name = "NAME|DIR")]
    model: String,
    /// Seed of random weights, tokens, the data's order and dropout.
    #[arg(long, default_value_t = 0)]
    pub(super) seed: u64,
    /// The device (see `mtlora devices`) [default: the first].
    #[arg(long)]
    device: Option<String>,
    /// Also print what each kernel of a device other than the processor is asked to do in a step.
    #[arg(long)]
    pub(super) verbose: bool,
    /// Also print the least time that a card needs for what a device other than the processor is asked to do in a step,
    /// from the rates of the card's memory and arithmetic.
    #[arg(long, value_name = "GB/s,TFLOP/s", value_parser = Card::parse)]
    pub(super) card: Option<Card>,
}

/// The flags that choose the trainable parameters, as in `mtlora train`.
#[derive(clap::Args)]
#[command(mut_args(defaults::add_to_help(help_defaults())))]
pub(super) struct AdapterArgs {
    /// Which parameters are trained: mtlora (an adapter), full (all), head, bitfit (the biases and the head).
    #[arg(long, value_parser = names::one_of::<MethodName>(), hide_possible_values = true, default_value_t = AdapterSettings::default().method)]
    pub(super) method: MethodName,
    /// How T is made: lora, shim, icfm, ctcm, dtsm; adalora (without what it does between steps); or dora.
    #[arg(long, value_parser = names::one_of::<AdapterMethod>(), hide_possible_values = true, default_value = AdapterSettings::default().structure.name())]
    pub(super) structure: AdapterMethod,
    /// Rank of the update.
    #[arg(long)]
    rank: Option<usize>,
    /// Numerator of the update's scale, alpha / rank.
    #[arg(long)]
    alpha: Option<f64>,
    /// Scale by alpha / sqrt(rank).
    #[arg(long)]
    use_rslora: bool,
    /// Dropout on the adapter's input.
    #[arg(long)]
    adapter_dropout: Option<f64>,
    /// The weights that are adapted: endings of names separated by commas, a regular expression, or all-linear.
    #[arg(long)]
    targets: Option<String>,
    /// For models with a fused projection, such as GPT-2: which of query, key and value are adapted, as letters of
    /// qkv.
    #[arg(long)]
    projections: Option<String>,
    /// Precision of the frozen weights: f32, bf16, f16, int8, nf4, packed (as a GGUF file has them).
    #[arg(long, value_parser = names::one_of::<BaseDtype>(), hide_possible_values = true, default_value_t = AdapterSettings::default().base_dtype)]
    pub(super) base_dtype: BaseDtype,
}

/// The defaults that the help shows, which are those of `mtlora train`.
fn help_defaults() -> HelpDefaults {
    let (encoder, causal) = (Defaults::classification(), Defaults::data_to_text());
    let both = |value: fn(&AdapterSettings) -> String| {
        defaults::by_kind(value(&encoder.adapter), "causal", value(&causal.adapter))
    };
    vec![
        ("rank", both(|of| of.rank.to_string())),
        ("alpha", both(|of| of.alpha.to_string())),
        ("adapter_dropout", both(|of| of.dropout.to_string())),
        ("targets", both(|of| of.targets.clone().unwrap_or_default())),
        (
            "projections",
            causal.adapter.projections.unwrap_or_default(),
        ),
    ]
}

impl ModelArgs {
    /// The name of the model in reports.
    pub(super) fn name(&self) -> &str {
        &self.model
    }

    /// The model's folder; `None` if its weights are random.
    pub(super) fn folder(&self) -> Option<PathBuf> {
        let families = ModelFamilies::builtin();
        let is_published = families.published_names().any(|name| name == self.model);
        (!is_published).then(|| PathBuf::from(&self.model))
    }

    /// The configuration of the model.
    pub(super) fn open(&self) -> Result<ModelConfig, Box<dyn Error>> {
        let families = ModelFamilies::builtin();
        if let Some(config) = families.published(&self.model)? {
            return Ok(config);
        }
        let folder = Path::new(&self.model);
        if !folder.is_dir() && !is_gguf(folder) {
            let names: Vec<_> = families.published_names().collect();
            return Err(format!(
                "--model {}: there is no such folder; name a folder, or one of {}",
                self.model,
                names.join(", ")
            )
            .into());
        }
        Ok(families.open(folder)?)
    }

    /// Opens the device, and measures its peak rate for a base model in this precision.
    pub(super) fn place(&self, base_dtype: BaseDtype) -> Result<Place, Box<dyn Error>> {
        let place = Place::open(self.device.as_deref(), base_dtype)?;
        if self.card.is_some() && capabilities(&place.device).on_host {
            return Err(
                "--card needs a --device other than the processor, whose work is counted".into(),
            );
        }
        Ok(place)
    }

    /// The encoder with the head of `config`, prepared for training on an autodiff `device`.
    pub(super) fn classifier(
        &self,
        config: &ClassifierConfig,
        adapter: &AdapterArgs,
        device: &Device,
    ) -> Result<SequenceClassifier, Box<dyn Error>> {
        if adapter.projections.is_some() {
            return Err("--projections is for causal models such as gpt2".into());
        }
        let settings = adapter.settings(Defaults::classification().on(config.model_type()).adapter);
        let options = ClassifierOptions {
            base_dtype: settings.base_dtype_to_read(),
            seed: self.seed,
            // The values of the head do not matter here, and the folder's head may be that of another task.
            fresh_head: true,
        };
        let model = match self.folder() {
            Some(folder) => {
                SequenceClassifier::from_folder_with(options, &folder, config, device)?.0
            }
            None => SequenceClassifier::fresh_in(options.base_dtype, config, self.seed, device)?,
        };
        let model = settings
            .method(&["classifier"], self.seed)?
            .prepare(model)?;
        Ok(settings.keep_base(model)?)
    }

    /// The options of training, which differ from the defaults only in the seed.
    pub(super) fn options(&self) -> TrainOptions {
        TrainOptions {
            seed: self.seed,
            ..TrainOptions::default()
        }
    }

    /// The causal model without an adapter.
    pub(super) fn plain_causal(
        &self,
        base_dtype: BaseDtype,
        config: &CausalConfig,
        device: &Device,
    ) -> Result<CausalLm, ModelError> {
        match self.folder() {
            Some(folder) => CausalLm::from_folder_in(base_dtype, &folder, config, device),
            None => CausalLm::fresh_in(base_dtype, config, self.seed, device),
        }
    }

    /// The causal model, prepared for training on an autodiff `device`. What the flags do not say of its adapter follows
    /// from `defaults`.
    pub(super) fn causal(
        &self,
        config: &CausalConfig,
        adapter: &AdapterArgs,
        defaults: AdapterSettings,
        device: &Device,
    ) -> Result<CausalLm, Box<dyn Error>> {
        if adapter.method == MethodName::Head {
            return Err(
                "a causal model has no head of its own to train: choose mtlora or full".into(),
            );
        }
        let settings = adapter.settings(defaults);
        let model = settings.method(&[], self.seed)?.prepare(self.plain_causal(
            settings.base_dtype_to_read(),
            config,
            device,
        )?)?;
        if trainable_parameters(&model) == 0 {
            return Err(
                "the model has no biases, which bitfit trains: choose mtlora or full".into(),
            );
        }
        Ok(settings.keep_base(model)?)
    }
}

impl AdapterArgs {
    fn settings(&self, defaults: AdapterSettings) -> AdapterSettings {
        let usual_projections = defaults
            .projections
            .filter(|_| !adapts_whole_weights(self.structure));
        AdapterSettings {
            method: self.method,
            structure: self.structure,
            rank: self.rank.unwrap_or(defaults.rank),
            alpha: self.alpha.unwrap_or(defaults.alpha),
            use_rslora: self.use_rslora,
            dropout: self.adapter_dropout.unwrap_or(defaults.dropout),
            targets: self.targets.clone().or(defaults.targets),
            projections: self.projections.clone().or(usual_projections),
            base_dtype: self.base_dtype,
            init: defaults.init,
            init_from: defaults.init_from,
            adalora: defaults.adalora,
        }
    }
}

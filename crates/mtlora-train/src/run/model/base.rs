//! Loads a base model with an adapter. This needs neither a task nor data.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::Device;
use mtlora_core::trainable_parameters;
use mtlora_models::{CheckpointLayout, TrainedFormat};
use serde::{Deserialize, Serialize};

use crate::run::error::RunError;
use crate::run::model::adapter_settings::AdapterSettings;
use crate::run::model::init_from::{import, start};
use crate::run::model::load::load;

/// A base model and its trainable or trained parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseSpec {
    /// The base model's folder.
    pub model: PathBuf,
    /// The maximum number of tokens of an example. Longer texts are truncated; inputs of causal models are truncated
    /// on the left.
    pub max_length: usize,
    /// The trainable parameters, and the settings of the adapter.
    pub adapter: AdapterSettings,
}

/// A model with its configuration and its tokenizer.
pub struct Loaded<M, C, T> {
    /// The model.
    pub model: M,
    /// The configuration of the model.
    pub config: C,
    /// The tokenizer.
    pub text: T,
}

impl<M, C, T> Loaded<M, C, T> {
    /// Replaces the model.
    ///
    /// # Errors
    /// Those of `change`.
    fn try_map<E>(self, change: impl FnOnce(M, &C) -> Result<M, E>) -> Result<Self, E> {
        Ok(Self {
            model: change(self.model, &self.config)?,
            config: self.config,
            text: self.text,
        })
    }
}

/// A model that is prepared for training.
pub struct Started<M, C, T> {
    /// The model.
    pub loaded: Loaded<M, C, T>,
    /// The names of the tensors that the base model's folder lacks. They start with new values.
    pub missing: Vec<String>,
}

/// The model that a [`ModelSpec`] loads.
pub type LoadedFor<S> =
    Loaded<<S as ModelSpec>::Model, <S as ModelSpec>::Config, <S as ModelSpec>::Text>;

/// The model that a [`ModelSpec`] prepares for training.
pub type StartedFor<S> =
    Started<<S as ModelSpec>::Model, <S as ModelSpec>::Config, <S as ModelSpec>::Text>;

/// Loads one kind of base model with its adapter.
pub trait ModelSpec: Sized {
    /// The model.
    type Model: Module;
    /// Its configuration.
    type Config: CheckpointLayout;
    /// The tokenizer.
    type Text;

    /// The base model and the adapter.
    fn base(&self) -> &BaseSpec;

    /// The seed of new values.
    fn seed(&self) -> u64;

    /// Reads the base model without an adapter, on `device`.
    ///
    /// # Errors
    /// If the folder has no such model.
    fn read_base(&self, device: &Device) -> Result<StartedFor<Self>, RunError>;

    /// Whether the base model of `other` has the same values, except for those that its folder lacks, which depend on
    /// the seed.
    fn has_base_of(&self, other: &Self) -> bool;

    /// A copy of a base model that [`has_base_of`](Self::has_base_of) this one, with the values that
    /// [`read_base`](Self::read_base) would give it. The copy shares what stays unchanged.
    ///
    /// # Errors
    /// If a value does not fit the model.
    fn copy_base(&self, base: &StartedFor<Self>) -> Result<StartedFor<Self>, RunError>;

    /// The modules that are trained in full beside the adapter, if the base model's folder lacks the tensors in
    /// `missing`.
    fn modules_to_save(&self, missing: &[String]) -> Vec<&'static str>;

    /// Converts the model to the form that is fastest without gradients.
    fn for_inference(&self, model: Self::Model) -> Self::Model;

    /// Loads the model and prepares it for training on an autodiff `device`. Its adapter is new, or the one in
    /// `init_from`.
    ///
    /// # Errors
    /// If the folder does not have such a model, the adapter does not match it, or there is nothing to train.
    fn start(&self, device: &Device) -> Result<StartedFor<Self>, RunError> {
        self.prepare(self.read_base(device)?)
    }

    /// Prepares a base model for training, as [`start`](Self::start) does.
    ///
    /// # Errors
    /// If the adapter does not match the model, or there is nothing to train.
    fn prepare(&self, base: StartedFor<Self>) -> Result<StartedFor<Self>, RunError> {
        let Started { loaded, missing } = base;
        let settings = &self.base().adapter;
        let beside = self.modules_to_save(&missing);
        let loaded = loaded.try_map(|model, config| {
            let model = start(model, config, settings, &beside, self.seed())?;
            if trainable_parameters(&model) == 0 {
                return Err(RunError::Settings(
                    "the model has none of the parameters that this method trains (bitfit needs biases): choose method \
                     mtlora or full",
                ));
            }
            settings.keep_base(model)
        })?;
        Ok(Started { loaded, missing })
    }

    /// Loads the model without gradients, with the trained values in `folder`, which is that of a run or an adapter.
    ///
    /// # Errors
    /// If the base model or the trained values cannot be read or do not match each other.
    fn load(&self, folder: &Path, device: &Device) -> Result<LoadedFor<Self>, RunError> {
        // On an autodiff device, parameters that are made from tensors show that they require gradients, too.
        let base = self.read_base(&device.clone().autodiff())?.loaded;
        base.try_map(|model, config| {
            let model = load(model, config, &self.base().adapter, folder)?;
            Ok(self.for_inference(model))
        })
    }

    /// Like [`start`](Self::start), but also loads the head of the adapter in `init_from`.
    ///
    /// # Errors
    /// If `init_from` is not set, or the adapter does not match the model or the settings.
    fn import(&self, device: &Device) -> Result<LoadedFor<Self>, RunError> {
        let base = self.read_base(device)?.loaded;
        base.try_map(|model, config| import(model, config, &self.base().adapter))
    }

    /// The format of the trained values.
    ///
    /// # Errors
    /// If the model has adapters of different methods.
    fn format(&self, loaded: &LoadedFor<Self>) -> Result<TrainedFormat, RunError> {
        let base = self.base();
        base.adapter
            .format(&loaded.model, &loaded.config, &base.model)
    }
}

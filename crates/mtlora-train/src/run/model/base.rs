//! A base model with an adapter. Neither a task nor data is needed to load one.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::Device;
use mtlora_models::{CheckpointLayout, TrainedFormat};
use serde::{Deserialize, Serialize};

use crate::run::error::RunError;
use crate::run::model::adapter_settings::AdapterSettings;
use crate::run::model::init_from::{import, start};
use crate::run::model::load::load;

/// A base model, and which of its parameters train or were trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseSpec {
    /// The base model's folder.
    pub model: PathBuf,
    /// The most tokens of an example. Longer texts are cut; longer inputs of a GPT-2 are cut from the left.
    pub max_length: usize,
    /// What trains, and how its adapter is made.
    pub adapter: AdapterSettings,
}

/// A model with what it takes to feed it.
pub struct Loaded<M, C, T> {
    /// The model.
    pub model: M,
    /// Its sizes, and the names of its outputs.
    pub config: C,
    /// From text to tokens, and back where the model writes texts.
    pub text: T,
}

impl<M, C, T> Loaded<M, C, T> {
    /// The same with another model in place of this one.
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

/// A model that is ready to train.
pub struct Started<M, C, T> {
    /// The model.
    pub loaded: Loaded<M, C, T>,
    /// The names of the tensors that the base model's folder lacks: they start with new values.
    pub missing: Vec<String>,
}

/// What a [`ModelSpec`] loads.
pub type LoadedFor<S> =
    Loaded<<S as ModelSpec>::Model, <S as ModelSpec>::Config, <S as ModelSpec>::Text>;

/// What a [`ModelSpec`] makes ready to train.
pub type StartedFor<S> =
    Started<<S as ModelSpec>::Model, <S as ModelSpec>::Config, <S as ModelSpec>::Text>;

/// What loads a base model of one kind, with its adapter.
pub trait ModelSpec: Sized {
    /// The model.
    type Model: Module;
    /// Its configuration.
    type Config: CheckpointLayout;
    /// What turns text into tokens.
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

    /// The modules that train beside the adapter, if the base model's folder lacks the tensors in `missing`.
    fn modules_to_save(&self, missing: &[String]) -> Vec<&'static str>;

    /// The model as it computes fastest without gradients.
    fn for_inference(&self, model: Self::Model) -> Self::Model;

    /// The model, ready to train on an autodiff `device`. Its adapter is new, or the one that `init_from` names.
    ///
    /// # Errors
    /// If the folder has no such model, the adapter does not fit it, or nothing could train.
    fn start(&self, device: &Device) -> Result<StartedFor<Self>, RunError> {
        let Started { loaded, missing } = self.read_base(device)?;
        let settings = &self.base().adapter;
        let beside = self.modules_to_save(&missing);
        let loaded = loaded.try_map(|model, config| {
            settings.keep_base(start(model, config, settings, &beside, self.seed())?)
        })?;
        Ok(Started { loaded, missing })
    }

    /// The model with the trained values of the run, or of the adapter, in `folder`, without gradients.
    ///
    /// # Errors
    /// If the base model or the trained values cannot be read or do not fit each other.
    fn load(&self, folder: &Path, device: &Device) -> Result<LoadedFor<Self>, RunError> {
        // What requires a gradient is only visible on an autodiff device.
        let base = self.read_base(&device.clone().autodiff())?.loaded;
        base.try_map(|model, config| {
            let model = load(model, config, &self.base().adapter, folder)?;
            Ok(self.for_inference(model))
        })
    }

    /// As [`start`](Self::start), but also with the head of the adapter that `init_from` names.
    ///
    /// # Errors
    /// If no adapter is named, it does not fit the model, or differs from the settings.
    fn import(&self, device: &Device) -> Result<LoadedFor<Self>, RunError> {
        let base = self.read_base(device)?.loaded;
        base.try_map(|model, config| import(model, config, &self.base().adapter))
    }

    /// How the trained values of the model are written.
    ///
    /// # Errors
    /// If the model has adapters of different structures.
    fn format(&self, loaded: &LoadedFor<Self>) -> Result<TrainedFormat, RunError> {
        let base = self.base();
        base.adapter
            .format(&loaded.model, &loaded.config, &base.model)
    }
}

//! What a model family offers to the registry.

use std::fmt;

use super::causal::CausalConfig;
use super::classifier::ClassifierConfig;
use super::config_file::ConfigFile;
use super::masked_lm::MaskedLmConfig;
use super::sizes::{ModelSizes, PublishedModel};
use crate::error::ModelError;

/// Models that share an architecture, by the `model_type` in their config.json. A family offers some of the kinds of models.
pub trait ModelFamily: fmt::Debug + Send + Sync {
    /// The `model_type`s that the family reads.
    fn model_types(&self) -> &[&'static str];

    /// The family as encoders with a classification head.
    fn classifier(&self) -> Option<&dyn ClassifierFamily> {
        None
    }

    /// The family as masked language models, for pre-training.
    fn masked_lm(&self) -> Option<&dyn MaskedLmFamily> {
        None
    }

    /// The family as causal language models.
    fn causal(&self) -> Option<&dyn CausalFamily> {
        None
    }

    /// Which weights an adapter is attached to if nothing else is asked for.
    fn default_targets(&self) -> DefaultTargets {
        DefaultTargets::ALL_LINEAR
    }

    /// Models of the family whose sizes are published, for measuring without their weights.
    fn published(&self) -> &[PublishedModel] {
        &[]
    }
}

/// Which weights an adapter is attached to if nothing else is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultTargets {
    /// The weights, as [`Targets::parse`](mtlora_core::Targets::parse) reads them.
    pub targets: &'static str,
    /// The same for AdaLoRA, where its published runs adapt other weights of the family.
    pub adalora: Option<&'static str>,
    /// Which of the query, key and value that one weight holds, as letters of `qkv`, in families that have such a weight.
    pub projections: Option<&'static str>,
}

impl DefaultTargets {
    /// Every linear map but the head.
    pub const ALL_LINEAR: Self = Self {
        targets: "all-linear",
        adalora: None,
        projections: None,
    };
}

/// A family of causal language models.
pub trait CausalFamily {
    /// Reads a config.json whose `model_type` is one of the family's.
    ///
    /// # Errors
    /// A field missing or out of range, or with a value that is not computed, with the file and its name.
    fn read(&self, file: &ConfigFile) -> Result<CausalConfig, ModelError>;

    /// The configuration of a new model with these sizes and the family's published defaults.
    ///
    /// # Errors
    /// When a size is out of range, with its name.
    fn with_sizes(&self, model_type: &str, sizes: &ModelSizes) -> Result<CausalConfig, ModelError>;
}

/// A family of encoders with a classification head.
pub trait ClassifierFamily {
    /// Reads a config.json whose `model_type` is one of the family's.
    ///
    /// # Errors
    /// A field missing or out of range, or with a value that is not computed, with the file and its name.
    fn read(&self, file: &ConfigFile) -> Result<ClassifierConfig, ModelError>;

    /// The configuration of a new model with these sizes and the family's published defaults.
    ///
    /// # Errors
    /// When a size is out of range, with its name.
    fn with_sizes(
        &self,
        model_type: &str,
        sizes: &ModelSizes,
    ) -> Result<ClassifierConfig, ModelError>;
}

/// A family of masked language models.
pub trait MaskedLmFamily {
    /// The configuration of a new model with these sizes and the family's published defaults.
    ///
    /// # Errors
    /// When a size is out of range, with its name.
    fn with_sizes(
        &self,
        model_type: &str,
        sizes: &ModelSizes,
    ) -> Result<MaskedLmConfig, ModelError>;
}

//! What a model family offers to the registry.

use std::fmt;

use super::causal::CausalConfig;
use super::classifier::ClassifierConfig;
use super::config_file::ConfigFile;
use super::masked_lm::MaskedLmConfig;
use super::sizes::{ModelSizes, PublishedModel};
use crate::error::ModelError;

/// Models that share an architecture, by the `model_type` in their config.json. What a family does not offer is none.
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

    /// Models of the family whose sizes are published, for measuring without their weights.
    fn published(&self) -> &[PublishedModel] {
        &[]
    }
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

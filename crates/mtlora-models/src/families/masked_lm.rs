//! Masked language models, whatever their family: what pre-training of an encoder trains.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor};
use mtlora_core::BaseDtype;

use super::boxed::{BoxedModule, Exposes};
use super::config_handle::ConfigHandle;
use super::text_config::TextConfig;
use crate::error::ModelError;
use crate::files::stored_dtype::StoredDtype;
use crate::files::weights::{self, CheckpointLayout};
use crate::packed_batch::PackedBatch;

/// The forward pass of a masked language model, as its family defines it.
pub trait MaskedLmModel {
    /// Logits over the vocabulary at `places` of the batch: `[places, vocab_size]`.
    fn logits(&self, batch: &PackedBatch, places: Tensor<1, Int>) -> Tensor<2>;
}

/// The configuration of a masked language model, as its family defines it.
pub trait MaskedLmModelConfig: TextConfig + CheckpointLayout + fmt::Debug + Send + Sync {
    /// A model whose values are all zero.
    fn empty_masked_lm(&self, device: &Device) -> MaskedLm;
}

/// The configuration of a masked language model of any family.
pub type MaskedLmConfig = ConfigHandle<dyn MaskedLmModelConfig>;

impl MaskedLmConfig {
    /// A handle on a family's own configuration.
    pub fn of(config: impl MaskedLmModelConfig + 'static) -> Self {
        Self::new(Arc::new(config))
    }
}

impl MaskedLmModelConfig for MaskedLmConfig {
    fn empty_masked_lm(&self, device: &Device) -> MaskedLm {
        (**self).empty_masked_lm(device)
    }
}

/// An encoder of any family that predicts masked tokens.
pub type MaskedLm = BoxedModule<dyn MaskedLmModel>;

impl<M: MaskedLmModel + 'static> Exposes<dyn MaskedLmModel> for M {
    fn exposed(&self) -> &(dyn MaskedLmModel + 'static) {
        self
    }

    fn exposed_mut(&mut self) -> &mut (dyn MaskedLmModel + 'static) {
        self
    }
}

impl MaskedLm {
    /// A model with random weights.
    ///
    /// # Errors
    /// Never, with a configuration that was read or made.
    pub fn fresh(
        config: &dyn MaskedLmModelConfig,
        seed: u64,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let model = config.empty_masked_lm(device);
        weights::fresh(model, config, seed, |_| BaseDtype::F32)
    }

    /// Logits over the vocabulary at `places` of the batch: `[places, vocab_size]`.
    pub fn forward(&self, batch: &PackedBatch, places: Tensor<1, Int>) -> Tensor<2> {
        self.model().logits(batch, places)
    }

    /// Writes `model.safetensors` and `config.json` into `folder`. The folder is made if it does not exist.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn save(self, folder: &Path, config: &dyn MaskedLmModelConfig) -> Result<(), ModelError> {
        weights::write(&self, StoredDtype::F32, folder, config)
    }
}

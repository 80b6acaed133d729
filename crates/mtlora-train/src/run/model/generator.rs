//! A causal language model that generates texts.

use burn::tensor::Device;
use mtlora_models::{CausalConfig, CausalLm, CausalText};

use crate::run::error::RunError;
use crate::run::model::base::{BaseSpec, Loaded, ModelSpec, Started};
use crate::run::model::method_name::MethodName;

/// A causal language model with its configuration and its tokenizer.
pub type LoadedGenerator = Loaded<CausalLm, CausalConfig, CausalText>;

/// A causal language model with an adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct GeneratorSpec {
    /// The base model and the adapter.
    pub base: BaseSpec,
    /// The seed of new values of the adapter.
    pub seed: u64,
}

impl ModelSpec for GeneratorSpec {
    type Model = CausalLm;
    type Config = CausalConfig;
    type Text = CausalText;

    fn base(&self) -> &BaseSpec {
        &self.base
    }

    fn seed(&self) -> u64 {
        self.seed
    }

    fn read_base(
        &self,
        device: &Device,
    ) -> Result<Started<CausalLm, CausalConfig, CausalText>, RunError> {
        let BaseSpec { model, adapter, .. } = &self.base;
        if adapter.method == MethodName::Head {
            return Err(RunError::Settings(
                "a causal model has no head of its own to train: choose method mtlora or full",
            ));
        }
        let config = CausalConfig::from_folder(model)?;
        let text = CausalText::from_folder(model, &config)?;
        let dtype = adapter.base_dtype_to_read();
        let model = CausalLm::from_folder_in(dtype, model, &config, device)?;
        let loaded = Loaded {
            model,
            config,
            text,
        };
        // A causal model's folder must have all tensors.
        let missing = Vec::new();
        Ok(Started { loaded, missing })
    }

    fn has_base_of(&self, other: &Self) -> bool {
        let dtype = |spec: &Self| spec.base.adapter.base_dtype_to_read();
        self.base.model == other.base.model && dtype(self) == dtype(other)
    }

    fn copy_base(
        &self,
        base: &Started<CausalLm, CausalConfig, CausalText>,
    ) -> Result<Started<CausalLm, CausalConfig, CausalText>, RunError> {
        let loaded = Loaded {
            model: base.loaded.model.clone(),
            config: base.loaded.config.clone(),
            text: base.loaded.text.clone(),
        };
        let missing = base.missing.clone();
        Ok(Started { loaded, missing })
    }

    fn modules_to_save(&self, _: &[String]) -> Vec<&'static str> {
        Vec::new()
    }

    fn for_inference(&self, model: CausalLm) -> CausalLm {
        self.base.adapter.folded(model)
    }
}

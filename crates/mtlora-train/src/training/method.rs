//! The parameters that a run trains: adapters, the head, or the whole model.

use burn::module::{Module, ParamGroup};
use mtlora_core::{AttachError, MtLoraConfig};

/// Which parameters are trained.
#[derive(Clone, Debug, PartialEq)]
pub enum Method {
    /// The adapters, and the modules that their configuration trains in full (the head).
    MtLora(MtLoraConfig),
    /// All parameters.
    Full,
    /// Only the classification head.
    Head,
}

impl Method {
    /// Prepares `model` for training: the parameters that the method trains require gradients, and all others are
    /// frozen. The head is the module named `classifier`.
    ///
    /// # Errors
    /// When the adapter does not fit the model.
    pub fn prepare<M: Module>(&self, model: M) -> Result<M, AttachError> {
        match self {
            Method::MtLora(config) => config.attach(model),
            Method::Full => Ok(model),
            Method::Head => Ok(model
                .no_grad()
                .set_require_grad_group(ParamGroup::from_predicate("classifier."), true)),
        }
    }
}

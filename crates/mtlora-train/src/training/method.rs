//! What a run trains: adapters, the head, or everything.

use burn::module::{Module, ParamGroup};
use mtlora_core::{AttachError, MtLoraConfig};

/// What trains.
#[derive(Clone, Debug, PartialEq)]
pub enum Method {
    /// Adapters, and the modules that their configuration keeps (the head).
    MtLora(MtLoraConfig),
    /// Everything.
    Full,
    /// The classification head only.
    Head,
}

impl Method {
    /// `model` with what the method trains trainable, and the rest frozen. A head is what is named
    /// `classifier`.
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

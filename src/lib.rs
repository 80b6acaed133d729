//! Fine-tune language models with MTLoRA, on a CPU or a GPU, without Python.
//!
//! The program's parts as one library: the method ([`core`]), the models ([`models`]), and tasks,
//! data, metrics and training ([`train`]); and, with the feature `hub`, names on the Hugging Face Hub (`hub`).

pub use mtlora_core as core;
#[cfg(feature = "hub")]
pub use mtlora_hub as hub;
pub use mtlora_models as models;
pub use mtlora_train as train;

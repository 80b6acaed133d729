//! Fine-tune language models with MTLoRA, on any GPU or a CPU, without Python.
//!
//! The program's parts as one library: the method ([`core`]), the models ([`models`]), and tasks,
//! data, metrics and training ([`train`]).

pub use mtlora_core as core;
pub use mtlora_models as models;
pub use mtlora_train as train;

//! Fine-tune language models with MTLoRA, on a CPU or a GPU, without Python.
//!
//! This crate is the program `mtlora`, and gives its parts as one library. Each begins with an example to start from:
//!
//! | module | what it does |
//! |---|---|
//! | [`core`] | attaches adapters to any Burn module, computes with them and merges them |
//! | [`models`] | opens RoBERTa, BERT and GPT-2 from Hugging Face folders, and adapters in PEFT's format |
//! | [`train`] | tasks, data, metrics, the training loop, and runs on disk |
//! | `hub` (a feature) | downloads models, adapters and data sets from the Hugging Face Hub |

pub use mtlora_core as core;
#[cfg(feature = "hub")]
pub use mtlora_hub as hub;
pub use mtlora_models as models;
pub use mtlora_train as train;

//! Fine-tune language models with MTLoRA, on a CPU or a GPU, without Python.
//!
//! This crate is the program `mtlora`, and gives its parts as one library. Each begins with an example to start from:
//!
//! | module | what it does |
//! |---|---|
//! | [`core`] | attaches adapters to any Burn module, computes with them and merges them |
//! | [`models`] | opens encoders and decoders from Hugging Face folders, and adapters in PEFT's format |
//! | [`train`] | tasks, data, metrics, the training loop, and runs on disk |
//! | `hub` (a feature) | downloads models, adapters and data sets from the Hugging Face Hub |
//!
//! The documentation of the program and of these crates is a book, in the repository's folder `docs`. For those who write Rust
//! it begins with `docs/rust/adapters.md`, for those with a task and data with `docs/task/start.md`, and for those who compare methods
//! with `docs/compare/methods.md`.

pub use mtlora_core as core;
#[cfg(feature = "hub")]
pub use mtlora_hub as hub;
pub use mtlora_models as models;
pub use mtlora_train as train;

/// The programs on the pages of the book, as documentation tests.
#[cfg(doctest)]
mod book {
    #[doc = include_str!("../docs/rust/adapters.md")]
    struct Adapters;
    #[doc = include_str!("../docs/rust/task.md")]
    struct Task;
    #[doc = include_str!("../docs/rust/method.md")]
    struct Method;
    #[doc = include_str!("../docs/rust/kernels.md")]
    struct Kernels;
}

//! The operations that training spends its time in, as a Burn backend extension.
//!
//! - [`MtLoraBackend`] in `backend.rs` lists them. Each has a body from Burn's own operations (`definitions/`), which is
//!   what a backend without a kernel runs.
//! - `autodiff/` has a backward pass for each, which saves the least that it can.
//! - `flex/` has the kernels for the CPU: overrides of methods in that backend's `impl`. `cube/` has those for GPUs.
//! - `cpu/` says which instructions the processor has, and chooses which of them the kernels use.
//! - `capabilities.rs` is how other code asks what a device can do.
//!
//! The functions of [`layers`](crate::adapted_linear) call them on tensors.

// burn-ndarray is deprecated upstream; it stays a second, independent CPU backend to test against.
#![cfg_attr(feature = "ndarray", allow(deprecated))]

#[cfg(test)]
mod agreement;
mod autodiff;
mod backend;
mod capabilities;
mod cpu;
#[cfg(feature = "cube")]
#[allow(
    clippy::assign_op_pattern,
    clippy::duplicate_underscore_argument,
    reason = "the macro that reads kernels has its own rules for assignments, and makes the arguments"
)]
mod cube;
mod definitions;
#[cfg(feature = "flex")]
mod flex;
mod matmul_precision;
mod optional;
pub mod vecmath;

pub use backend::MtLoraBackend;
pub use capabilities::{
    BackendCapabilities, Capabilities, capabilities, cpu_multiplies_bf16, cpu_multiply_tiles,
};
pub use cpu::{CpuChoice, CpuPath, CpuPathError};
pub use definitions::activation_dtype::ActivationDtype;
pub use definitions::attention::{AttentionConstants, AttentionForward, AttentionLayout};
pub use definitions::cross_entropy::IGNORE_INDEX;
pub use definitions::dropout::SeededDropout;
pub use definitions::gelu::Gelu;
pub use definitions::linear::Weight;
pub use definitions::optimizer::AdamWStep;
pub use definitions::relative_attention::RelativeTables;
pub use matmul_precision::{MatmulPrecision, MatmulPrecisionError};
pub use optional::{Optional, OptionalInt};

//! What each operation computes, from Burn's own operations on any backend: the definition that kernels are compared
//! with, and what a backend without a kernel runs.

pub(super) mod activation_dtype;
pub(super) mod adapted_norms;
pub(super) mod attention;
pub(super) mod cached;
pub(super) mod cross_entropy;
pub(super) mod dropout;
pub(super) mod embedding;
pub(super) mod gelu;
pub(super) mod linear;
pub(super) mod norm;
pub(super) mod optimizer;
pub(super) mod relative_attention;
pub(super) mod rms_norm;
pub(super) mod rotary;
pub(super) mod scaled_columns;
pub(super) mod squares;
pub(super) mod swiglu;

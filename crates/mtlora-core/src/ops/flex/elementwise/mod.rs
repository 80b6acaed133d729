//! Kernels that work on elements, or on pairs of them, each by itself.

pub(super) mod dropout;
pub(super) mod gelu;
pub(super) mod rotary;
pub(super) mod swiglu;

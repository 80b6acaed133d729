//! Kernels that compute each element, or each pair of elements, independently of the others.

pub(super) mod dropout;
pub(super) mod gelu;
pub(super) mod rotary;
pub(super) mod scaled_columns;
pub(super) mod swiglu;

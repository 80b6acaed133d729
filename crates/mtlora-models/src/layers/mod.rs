//! Layers that several model families share.

pub(crate) mod layer_norm;

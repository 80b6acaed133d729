//! Layers that several model families share. They know their own sizes, and no family's configuration.

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod attention_context;
pub(crate) mod feed_forward;
pub(crate) mod layer_norm;
pub(crate) mod post_norm;
pub(crate) mod rms_norm;
pub(crate) mod rotary;
pub(crate) mod weights;

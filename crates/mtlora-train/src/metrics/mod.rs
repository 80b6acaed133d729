//! Metrics for predicted classes and numbers, and for generated texts.

pub(crate) mod labels;
pub mod text;
pub(crate) mod text_scores;

//! Metrics of labels, and of texts against references.

pub(crate) mod labels;
pub mod text;
pub(crate) mod text_scores;

//! What the configurations of all encoders say about the classification head: its labels and what it predicts.

pub(crate) mod labels;
pub(crate) mod problem_type;

//! What a trained model is used for: predictions, evaluation and generated texts.

pub(crate) mod evaluation;
pub(crate) mod generator;
pub(crate) mod inputs;
pub(crate) mod several;

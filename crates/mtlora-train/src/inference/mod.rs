//! Uses a trained model for predictions, evaluation and text generation.

pub(crate) mod evaluation;
pub(crate) mod generator;
pub(crate) mod inputs;
pub(crate) mod several;

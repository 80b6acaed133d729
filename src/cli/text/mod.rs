//! Commands on texts: predict, generate and score.

pub(crate) mod decoding;
pub(crate) mod encoding;
pub(crate) mod generate;
pub(crate) mod held_back;
pub(crate) mod predict;
pub(crate) mod score;
pub(crate) mod several;
pub(crate) mod standard_input;

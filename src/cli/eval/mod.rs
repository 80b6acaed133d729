//! `mtlora eval`.

pub(crate) mod chat;
pub(crate) mod classification;
pub(crate) mod generation;
pub(crate) mod generation_scores;

pub(crate) use classification::{Args, run};

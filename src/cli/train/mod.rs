//! `mtlora train`.

pub(crate) mod classification;
pub(crate) mod generation;

pub(crate) use classification::{Args, run};

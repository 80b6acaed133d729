//! `mtlora pretrain`.

pub(crate) mod causal;
pub(crate) mod masked_lm;

pub(crate) use masked_lm::{Args, run};

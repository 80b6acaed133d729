//! RoBERTa and BERT (Liu et al., 2019; Devlin et al., 2019): classification and masked language modelling.

pub(crate) mod classifier;
pub(crate) mod config;
pub(crate) mod masked_lm;
pub(crate) mod model;

//! Pre-training small models from scratch: masked and causal language modelling.

pub(crate) mod causal;
pub(crate) mod masked_lm;
pub(crate) mod steps;

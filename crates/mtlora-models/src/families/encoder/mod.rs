//! RoBERTa and BERT (Liu et al., 2019; Devlin et al., 2019), and RoBERTa for other languages (XLM-RoBERTa, CamemBERT):
//! classification and masked language modelling.

pub(crate) mod architecture;
pub(crate) mod classifier;
pub(crate) mod config;
mod family;
mod layout;
pub(crate) mod masked_lm;
pub(crate) mod model;

pub(crate) use family::EncoderFamily;

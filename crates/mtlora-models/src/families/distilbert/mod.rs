//! DistilBERT (Sanh et al., arXiv 1910.01108): classification.

pub(crate) mod classifier;
pub(crate) mod config;
mod family;
mod layout;
pub(crate) mod model;

pub(crate) use family::DistilBertFamily;

//! DeBERTa v2 and v3 (He et al., arXiv 2006.03654 and 2111.09543): classification.

pub(crate) mod classifier;
pub(crate) mod config;
mod family;
mod layout;
pub(crate) mod model;
pub(crate) mod positions;

pub(crate) use family::DebertaFamily;

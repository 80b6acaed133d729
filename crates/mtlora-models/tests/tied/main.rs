//! GPT-2's token embeddings and output map, one weight or two, in every form in which tools write them; and the word
//! embeddings of encoders with a masked language model's head. What transformers 5.24 gives for each form was looked up
//! with it: it ties the two if the configuration does not say otherwise and the file has one of them, or both and equal,
//! and has two weights where both are there and differ, whatever the configuration says. It takes no notice of metadata.
#![allow(clippy::unwrap_used)]

mod adapters;
#[path = "../common/mod.rs"]
mod common;
mod encoders;
mod support;
mod weights;

//! GPT-2's token embeddings and output map, one weight or two, in every form in which tools write them; and the word
//! embeddings of encoders with a masked language model's head. The expected results are those of transformers 5.24.
//! It ties the two if the configuration does not say otherwise and the file has one of them, or both with equal
//! values. If both are there and differ, it has two weights, whatever the configuration says. It ignores metadata.
#![allow(clippy::unwrap_used)]

mod adapters;
#[path = "../common/mod.rs"]
mod common;
mod encoders;
mod support;
mod weights;

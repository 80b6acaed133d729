//! The optimizer: AdamW as PyTorch computes it, its state, clipping, and the learning rate of each step.

pub(crate) mod adamw;
pub(crate) mod gradient_factor;
mod in_place;
pub(crate) mod lora_plus;
pub(crate) mod schedule;
pub(crate) mod state;

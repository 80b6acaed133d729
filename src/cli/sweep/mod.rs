//! `mtlora sweep`: compares methods on tasks, with a run for each arm, task, seed and choice of settings.

mod cell;
mod check;
mod command;
pub(crate) mod file;
mod jobs;
pub(crate) mod plan;
mod reproduce;
mod shard;
mod status;
pub(crate) mod store;
mod work;

pub(crate) use command::{Args, run};
pub(crate) use reproduce::{Args as ReproduceArgs, run as reproduce};

//! The settings of a run, from flags, settings files, recipes and defaults.

mod assets;
pub(crate) mod check;
pub(crate) mod defaults;
pub(crate) mod elsewhere;
pub(crate) mod first_run;
pub(crate) mod flags;
pub(crate) mod layers;
pub(crate) mod message;
pub(crate) mod names;
pub(crate) mod needed;
mod numbers;
pub(crate) mod recipe;
pub(crate) mod resolve;
mod resume;
pub(crate) mod source;
mod storable;
pub(crate) mod task;

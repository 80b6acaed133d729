//! Commands that list devices, tasks and recipes.

pub(crate) mod devices;
pub(crate) mod recipes;
pub(crate) mod tasks;

//! `mtlora train`.

mod bases;
mod begin;
pub(crate) mod chat;
pub(crate) mod classification;
mod command;
pub(crate) mod generation;
mod method;
mod outcome;
mod preview;
mod replace;
mod resume;

pub(crate) use bases::Bases;
pub(crate) use begin::Begin;
pub(crate) use command::{Args, run};
pub(crate) use replace::different;

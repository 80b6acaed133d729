//! `mtlora train`.

mod begin;
mod chat;
mod classification;
mod command;
mod generation;
mod method;
mod outcome;
mod replace;
mod resume;

pub(crate) use command::{Args, run};

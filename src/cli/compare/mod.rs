//! `mtlora table`: what the runs of a sweep show.

mod command;
pub(crate) mod gather;
mod peft;

pub(crate) use command::{Args, run};

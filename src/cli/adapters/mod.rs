//! Commands on adapters: fold, convert, inspect and combine them.

pub(crate) mod combine;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod inspect;
pub(crate) mod merge;

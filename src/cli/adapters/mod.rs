//! Commands on adapters: merge, export, push, import, inspect and combine.

mod card;
pub(crate) mod combine;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod inspect;
pub(crate) mod merge;
#[cfg(feature = "hub")]
pub(crate) mod push;

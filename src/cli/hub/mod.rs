//! Models, adapters and data sets by their names on the Hugging Face Hub.

#[cfg(not(feature = "hub"))]
mod absent;
#[cfg(feature = "hub")]
mod names;
#[cfg(feature = "hub")]
mod transfers;

#[cfg(not(feature = "hub"))]
pub(crate) use absent::*;
#[cfg(feature = "hub")]
pub(crate) use names::*;
#[cfg(feature = "hub")]
pub(crate) use transfers::Transfers;

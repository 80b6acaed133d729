//! Measures what an adapter has learned, by decompositions of low-rank updates in double precision on the host.

pub(crate) mod combine;
pub(crate) mod inspection;
pub(crate) mod linalg;
pub(crate) mod low_rank;
pub(crate) mod spectrum;
pub(crate) mod svd;

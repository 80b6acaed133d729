//! What several tests of this crate use.

pub(crate) mod allocations;
pub(crate) mod fuzz;

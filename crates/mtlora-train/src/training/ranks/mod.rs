//! One training on several ranks: processes, usually one for each device, which compute the micro-batches of a step together.
//!
//! Rank 0 makes the whole training, as if it were alone, except for two things that it shares with the others: the gradients
//! of the micro-batches of a step, and the parts of an evaluation. It sends the trained values and what is to be computed, and
//! adds what comes back in the order in which it would have computed it. So the result has the same bytes for any number of
//! ranks that compute alike, and the others need neither the run's folder nor the state of the optimizer.

pub(crate) mod error;
pub(crate) mod group;
pub(crate) mod lead;
mod message;
pub(crate) mod serve;
pub(crate) mod threads;

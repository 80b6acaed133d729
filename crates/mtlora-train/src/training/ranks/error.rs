//! Errors of a training on several ranks.

/// The reason why several ranks cannot train together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RanksError {
    /// The micro-batches of a step cannot be shared evenly.
    #[error(
        "a step has {accumulation} micro-batches (--gradient-accumulation), which {ranks} ranks cannot share evenly: use a \
         multiple of {ranks}. A step of {accumulation} micro-batches on one rank is the same as one of {accumulation} ranks \
         with one each"
    )]
    Indivisible {
        /// The number of micro-batches in a step.
        accumulation: usize,
        /// The number of ranks.
        ranks: usize,
    },
    /// A rank was started with something else than rank 0.
    #[error(
        "rank {rank} has {what} than rank 0: start all ranks with the same command, program, model and data"
    )]
    Differs {
        /// The rank.
        rank: usize,
        /// What differs, as in "other data".
        what: String,
    },
    /// A rank cannot go on.
    #[error("rank {rank}: {message}")]
    Failed {
        /// The rank.
        rank: usize,
        /// Its error.
        message: String,
    },
    /// A rank has ended, and did not say why.
    #[error("rank {rank} has ended; resume the training from its last checkpoint")]
    Gone {
        /// The rank.
        rank: usize,
    },
    /// A message has another form than this build's.
    #[error("a message of rank {rank} cannot be read; start all ranks with the same program")]
    Message {
        /// The rank.
        rank: usize,
    },
    /// A value that ranks exchange is not in 32-bit floats.
    #[error("the values of `{path}` are not 32-bit floats, so they cannot be sent to other ranks")]
    Value {
        /// The parameter's path, or the number of its gradient.
        path: String,
    },
}

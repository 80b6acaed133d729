//! The interface that all search strategies share.

use super::config::GenerationConfig;
use super::error::Stuck;

/// A generated sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// The new tokens, without the prompt and without the end token.
    pub tokens: Vec<u32>,
    /// The end token that ended the sequence; `None` if it ended at `max_new_tokens`.
    pub end_token: Option<u32>,
    /// With beam search: the sum of the log-probabilities of the new tokens (the end token included, after the
    /// repetition penalty), divided by their number to the power of `length_penalty`. With greedy decoding and
    /// sampling: the sum of the model's own log-probabilities, before penalties and warpers. Natural logarithms.
    pub score: f32,
}

/// The search for one prompt's continuations.
pub(super) trait Search<'a>: Sized {
    fn new(prompt: &[u32], config: &'a GenerationConfig) -> Self;

    /// Performs one step. `logits`, `[rows, vocab]`, belong to the rows that the previous call put into `next`; in the
    /// first call, to the prompt. Fills `next` with the rows to continue with, each as the row that it extends and the
    /// new token; an empty `next` means that the search is done. `scratch` is a reusable buffer without meaning between
    /// calls.
    fn advance(
        &mut self,
        logits: &[f32],
        vocab_size: usize,
        scratch: &mut Vec<f32>,
        next: &mut Vec<(usize, u32)>,
    ) -> Result<(), Stuck>;

    /// The sequences that the search found.
    fn finish(self) -> Vec<Generated>;
}

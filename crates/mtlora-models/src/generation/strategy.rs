//! What every search for a prompt's continuations has in common.

use super::config::GenerationConfig;
use super::error::Stuck;

/// A generated sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// The new tokens, without the prompt and without the end token.
    pub tokens: Vec<u32>,
    /// The end token that it ended with; absent if it ended at `max_new_tokens`.
    pub end_token: Option<u32>,
    /// Beam search: the sum of the log-probabilities of the new tokens, the end token among them, as the repetition
    /// penalty left them, / their number ^ `length_penalty`. Greedy and sampling: the plain sum of the model's own
    /// log-probabilities, before penalties and warpers. Natural logarithms.
    pub score: f32,
}

/// The search for one prompt's continuations.
pub(super) trait Search<'a>: Sized {
    fn new(prompt: &[u32], config: &'a GenerationConfig) -> Self;

    /// One step: `logits`, `[rows, vocab]`, are of the rows that the call before put into `next`, at first of the
    /// prompt. Puts in the rows to go on with, each with the row that it continues and the token; none: it is done.
    /// `scratch` has no meaning from call to call.
    fn advance(
        &mut self,
        logits: &[f32],
        vocab_size: usize,
        scratch: &mut Vec<f32>,
        next: &mut Vec<(usize, u32)>,
    ) -> Result<(), Stuck>;

    /// What it found.
    fn finish(self) -> Vec<Generated>;
}

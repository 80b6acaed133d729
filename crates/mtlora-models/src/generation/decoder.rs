//! The model, as decoding sees it.

/// A causal language model with a key-value cache. A row is a sequence in that cache.
pub trait CausalDecoder {
    /// Why the model could not run.
    type Error: std::error::Error + 'static;

    /// Tokens in the vocabulary: the width of the logits.
    fn vocab_size(&self) -> usize;

    /// The most tokens that a row may hold, the prompt's included.
    fn max_positions(&self) -> usize;

    /// Reads prompts, none of them empty, into a fresh cache of a row each; what an earlier call left there is dropped.
    /// Returns the logits behind each prompt's last token, `[prompts, vocab]`, row-major.
    ///
    /// # Errors
    /// What the model says.
    fn start(&mut self, prompts: &[Vec<u32>]) -> Result<Vec<f32>, Self::Error>;

    /// One more token a row: row `i` continues what was row `parents[i]` after the call before, with `tokens[i]`. The
    /// two slices are equally long and not empty. A row that nothing continues is dropped; a row may be continued
    /// several times. The rows of one prompt stay together, in the order of the prompts, but in any order among
    /// themselves. Returns the logits behind the new tokens, `[rows, vocab]`, row-major.
    ///
    /// # Errors
    /// What the model says.
    fn step(&mut self, parents: &[usize], tokens: &[u32]) -> Result<Vec<f32>, Self::Error>;
}

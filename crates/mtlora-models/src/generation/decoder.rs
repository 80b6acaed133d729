//! The interface between decoding and the model.

/// A causal language model with a key-value cache. A row is a sequence in that cache.
pub trait CausalDecoder {
    /// The error of a model that fails.
    type Error: std::error::Error + 'static;

    /// The number of tokens in the vocabulary, which is the width of the logits.
    fn vocab_size(&self) -> usize;

    /// The largest number of tokens in a row, the prompt included.
    fn max_positions(&self) -> usize;

    /// Discards the cache and reads the prompts, none of them empty, into a new one with one row for each. Returns the
    /// logits after each prompt's last token, `[prompts, vocab]`, row-major.
    ///
    /// # Errors
    /// When the model fails.
    fn start(&mut self, prompts: &[Vec<u32>]) -> Result<Vec<f32>, Self::Error>;

    /// Appends one token to each row: the new row `i` is row `parents[i]` of the previous call, extended by
    /// `tokens[i]`. The two slices have the same length and are not empty. A row without a successor is dropped, and a
    /// row may have several. The rows of one prompt stay together, in the order of the prompts, but in any order among
    /// themselves. Returns the logits after the new tokens, `[rows, vocab]`, row-major.
    ///
    /// # Errors
    /// When the model fails.
    fn step(&mut self, parents: &[usize], tokens: &[u32]) -> Result<Vec<f32>, Self::Error>;
}

/// A decoder that can go back to an earlier place of a row, and read several tokens at once from there.
pub trait RewindingDecoder: CausalDecoder {
    /// Keeps the first `kept` tokens of the only row, which has at least that many, and appends `tokens`, of which there is at
    /// least one. With `kept` 0 there need not be a row before. Returns the logits after the last token, `[vocab]`.
    ///
    /// # Errors
    /// When the model fails.
    fn rewind(&mut self, kept: usize, tokens: &[u32]) -> Result<Vec<f32>, Self::Error>;
}

//! What tokenizing and batching must know of a model.

/// What tokenizing for a model, and laying its tokens end to end, must know of the model's configuration.
pub trait TextConfig {
    /// The `model_type` of its config.json.
    fn model_type(&self) -> &str;

    /// The tokenizer's class, where config.json names one.
    fn tokenizer_class(&self) -> Option<&str>;

    /// Rows of the token embeddings.
    fn vocab_size(&self) -> usize;

    /// The longest sequence, in tokens with the special ones.
    fn max_tokens(&self) -> usize;

    /// Rows of the token-type embeddings; 1 where the model has no token types.
    fn token_types(&self) -> usize {
        1
    }

    /// The position of each token of a sequence: mostly 0, 1, 2 and so on.
    fn positions(&self, ids: &[u32]) -> Vec<usize> {
        (0..ids.len()).collect()
    }
}

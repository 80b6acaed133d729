//! Linear maps and embeddings whose values come later: from a checkpoint, or from a seed.

use burn::module::Initializer;
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::tensor::Device;

/// A linear map from `input` to `output` values, with a bias; all values are zero.
pub fn zero_linear(input: usize, output: usize, device: &Device) -> Linear {
    LinearConfig::new(input, output)
        .with_initializer(Initializer::Zeros)
        .init(device)
}

/// The same without a bias.
pub fn zero_linear_without_bias(input: usize, output: usize, device: &Device) -> Linear {
    LinearConfig::new(input, output)
        .with_bias(false)
        .with_initializer(Initializer::Zeros)
        .init(device)
}

/// A table of `rows` vectors of `width` values; all values are zero.
pub fn zero_embedding(rows: usize, width: usize, device: &Device) -> Embedding {
    EmbeddingConfig::new(rows, width)
        .with_initializer(Initializer::Zeros)
        .init(device)
}

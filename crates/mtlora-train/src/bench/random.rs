//! Makes sequences of random tokens for benchmarks: time and memory depend only on their lengths.

use mtlora_models::{CausalModelConfig, ClassifierModelConfig, Tokens};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::data::example::Target;
use crate::inference::evaluation::Item;
use crate::tasks::data_to_text::Sequence;

/// Token ids below this are special tokens in RoBERTa's vocabulary. In GPT-2's vocabulary they are ordinary tokens.
const FIRST: u32 = 5;

/// `count` sequences of `length` tokens, each with a label or a number for a head of
/// [`num_labels`](ClassifierModelConfig::num_labels) outputs.
pub fn random_items(
    config: &dyn ClassifierModelConfig,
    [count, length]: [usize; 2],
    seed: u64,
) -> Vec<Item> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let item = |_| {
        let target = match config.num_labels() {
            1 => Target::Value(rng.random_range(0.0..5.0)),
            labels => Target::Class(rng.random_range(0..labels)),
        };
        let ids = ids(&mut rng, length, config.vocab_size());
        Item {
            tokens: Tokens {
                type_ids: vec![0; ids.len()],
                ids,
            },
            target: Some(target),
        }
    };
    (0..count).map(item).collect()
}

/// `count` sequences of `length` tokens, whose loss is over all tokens but the first.
pub fn random_sequences(
    config: &dyn CausalModelConfig,
    [count, length]: [usize; 2],
    seed: u64,
) -> Vec<Sequence> {
    let prompts = random_prompts(config, [count, length], seed).into_iter();
    prompts.map(|ids| Sequence { ids, loss_from: 1 }).collect()
}

/// `count` sequences of `length` tokens.
pub fn random_prompts(
    config: &dyn CausalModelConfig,
    [count, length]: [usize; 2],
    seed: u64,
) -> Vec<Vec<u32>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    // The last token of the vocabulary is the end of text.
    let prompt = |_| ids(&mut rng, length, config.vocab_size() - 1);
    (0..count).map(prompt).collect()
}

fn ids(rng: &mut ChaCha8Rng, length: usize, vocab_size: usize) -> Vec<u32> {
    let end = vocab_size as u32;
    // The vocabulary can be too small to leave out the special tokens.
    let first = FIRST.min(end.saturating_sub(1));
    (0..length)
        .map(|_| rng.random_range(first..end.max(1)))
        .collect()
}

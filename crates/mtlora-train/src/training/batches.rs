//! Groups sequences into batches.

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::{Deserialize, Serialize};

/// The size of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BatchSize {
    /// Exactly this many sequences; the last batch of an epoch may have fewer.
    Sequences(usize),
    /// As many sequences as fit into this many tokens. A sequence that is longer is a batch of its own.
    Tokens(usize),
}

/// The batches of one epoch. Each batch is a list of indices into `lengths`, which has the number of tokens of each
/// sequence. `seed` and `epoch` determine the shuffle. Within a batch the sequences are sorted by length, so that
/// attention runs on few distinct shapes.
///
/// Batches of a fixed number of sequences are drawn from the whole shuffled data, as PyTorch's data loaders do. With
/// a token budget, sequences of similar lengths share a batch, and the order of the batches is shuffled.
pub fn shuffled(lengths: &[usize], size: BatchSize, seed: u64, epoch: usize) -> Vec<Vec<usize>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(epoch as u64);
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.shuffle(&mut rng);
    match size {
        BatchSize::Sequences(_) => cut(&order, lengths, size),
        BatchSize::Tokens(_) => {
            // The sort is stable, so that sequences of equal length stay in shuffled order.
            order.sort_by_key(|index| lengths[*index]);
            let mut batches = cut(&order, lengths, size);
            batches.shuffle(&mut rng);
            batches
        }
    }
}

/// The batches of an evaluation, as indices into `lengths`, in ascending order of length.
pub fn by_length(lengths: &[usize], size: BatchSize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|index| lengths[*index]);
    cut(&order, lengths, size)
}

fn cut(order: &[usize], lengths: &[usize], size: BatchSize) -> Vec<Vec<usize>> {
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut tokens = 0;
    for index in order {
        let full = batches.last().is_none_or(|batch| match size {
            BatchSize::Sequences(most) => batch.len() >= most.max(1),
            BatchSize::Tokens(most) => tokens + lengths[*index] > most,
        });
        if full {
            batches.push(Vec::new());
            tokens = 0;
        }
        if let Some(batch) = batches.last_mut() {
            batch.push(*index);
            tokens += lengths[*index];
        }
    }
    for batch in &mut batches {
        batch.sort_by_key(|index| lengths[*index]);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_sequence_is_in_exactly_one_batch(
            lengths in prop::collection::vec(1usize..50, 0..80),
            amount in 1usize..100, tokens: bool, seed: u64, epoch in 0usize..5,
        ) {
            let size = if tokens { BatchSize::Tokens(amount) } else { BatchSize::Sequences(amount) };
            let batches = shuffled(&lengths, size, seed, epoch);
            let mut all: Vec<usize> = batches.concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..lengths.len()).collect::<Vec<_>>());
            for batch in &batches {
                prop_assert!(batch.is_sorted_by_key(|index| lengths[*index]));
                let sum: usize = batch.iter().map(|index| lengths[*index]).sum();
                match size {
                    BatchSize::Sequences(most) => prop_assert!(batch.len() <= most),
                    BatchSize::Tokens(most) => prop_assert!(sum <= most || batch.len() == 1),
                }
            }
        }
    }

    #[test]
    fn epochs_differ_and_seeds_repeat() {
        let lengths = vec![5; 100];
        let order = |seed, epoch| shuffled(&lengths, BatchSize::Sequences(10), seed, epoch);
        assert_eq!(order(1, 0), order(1, 0));
        assert_ne!(order(1, 0), order(1, 1));
        assert_ne!(order(1, 0), order(2, 0));
    }
}

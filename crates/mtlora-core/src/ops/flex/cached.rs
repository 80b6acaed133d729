use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::instructions::vectorized;
use super::reduce::sum_of;
use super::{contiguous, tensor, values};
use crate::Contexts;
use crate::ops::vecmath::exp;

/// A head's part of the cache: `[slots, width]`, from the column `from` on.
#[derive(Clone, Copy)]
struct Head<'a> {
    cache: &'a [f32],
    width: usize,
    from: usize,
}

impl<'a> Head<'a> {
    /// What lies in a slot that exists.
    #[inline(always)]
    fn slot(self, slot: u32, head_dim: usize) -> &'a [f32] {
        &self.cache[slot as usize * self.width + self.from..][..head_dim]
    }
}

vectorized! {
    /// One head of one row: `out` is its part of the result.
    fn attend(
        out: &mut [f32],
        query: &[f32],
        keys: Head<'_>,
        values: Head<'_>,
        context: &[u32],
        scale: f32,
        scores: &mut Vec<f32>,
    ) {
        scores.clear();
        let mut largest = f32::NEG_INFINITY;
        for slot in context {
            let score = scale * sum_of(query, keys.slot(*slot, query.len()), |q, k| q * k);
            largest = largest.max(score);
            scores.push(score);
        }
        let mut sum = 0.0;
        for score in scores.iter_mut() {
            *score = exp(*score - largest);
            sum += *score;
        }
        for (slot, score) in context.iter().zip(scores.iter()) {
            let weight = score / sum;
            for (out, value) in out.iter_mut().zip(values.slot(*slot, query.len())) {
                *out += weight * value;
            }
        }
    }
}

/// [`crate::ops::MtLoraBackend::cached_attention`], reading keys and values where they lie.
pub(crate) fn cached_attention(
    query: FlexTensor,
    keys: FlexTensor,
    cached: FlexTensor,
    contexts: &Contexts,
    heads: usize,
    scale: f32,
) -> FlexTensor {
    let (query, keys, cached) = (contiguous(query), contiguous(keys), contiguous(cached));
    let shape = query.shape();
    let head_dim = (shape[1] / heads).max(1);
    let width = keys.shape()[1];
    assert_eq!(cached.shape()[1], width, "the width of keys and values");
    // How many heads of the query share a head of key and value.
    let sharing = (heads * head_dim / width.max(1)).max(1);
    let caches = [values(&keys), values(&cached)];
    let mut out = vec![0.0; values(&query).len()];
    out.par_chunks_mut(head_dim)
        .zip(values(&query).par_chunks(head_dim))
        .enumerate()
        .for_each_init(Vec::new, |scores, (index, (out, query))| {
            let context = contexts.row(index / heads);
            let from = index % heads / sharing * head_dim;
            let [keys, values] = caches.map(|cache| Head { cache, width, from });
            attend(out, query, keys, values, context, scale, scores);
        });
    tensor(out, shape)
}

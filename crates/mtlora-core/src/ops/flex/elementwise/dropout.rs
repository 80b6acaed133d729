use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use crate::ops::SeededDropout;
use crate::ops::flex::instructions::vectorized;
use crate::ops::flex::{CHUNK, contiguous, exclusive, made, tensor, values};

/// Elements whose mask is held at a time.
const HELD: usize = 256;

/// [`crate::ops::MtLoraBackend::seeded_dropout`], in the input's own memory if no other tensor shares it.
pub(crate) fn seeded_dropout(x: FlexTensor, dropout: SeededDropout) -> FlexTensor {
    if x.is_unique() {
        let mut x = exclusive(x);
        x.storage_mut::<f32>()
            .par_chunks_mut(CHUNK)
            .enumerate()
            .for_each(|(chunk, x)| drop_elements(x, chunk * CHUNK, dropout));
        return x;
    }
    let x = contiguous(x);
    let read = values(&x);
    let y = made(read.len(), CHUNK, |chunk, y| {
        y.copy_from_slice(&read[chunk * CHUNK..][..y.len()]);
        drop_elements(y, chunk * CHUNK, dropout);
    });
    tensor(y, x.shape())
}

vectorized! {
    /// `x * mask`, `x` beginning at the place `first`.
    pub(in crate::ops::flex) fn drop_elements(x: &mut [f32], first: usize, dropout: SeededDropout) {
        let mut mask = [0.0; HELD];
        for (held, x) in x.chunks_mut(HELD).enumerate() {
            let mask = &mut mask[..x.len()];
            dropout.fill(mask, first + held * HELD);
            for (x, mask) in x.iter_mut().zip(mask) {
                *x *= *mask;
            }
        }
    }
}

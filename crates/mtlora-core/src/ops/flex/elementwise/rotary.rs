use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use crate::ops::flex::instructions::vectorized;
use crate::ops::flex::norm::rows;
use crate::ops::flex::{contiguous, exclusive, made, tensor, values};

vectorized! {
    /// The heads of whole rows of `width`, each row with its cosines and sines.
    fn turn_rows(x: &mut [f32], width: usize, cos: &[f32], sin: &[f32], half: usize) {
        let angles = cos.chunks_exact(half).zip(sin.chunks_exact(half));
        for (row, (cos, sin)) in x.chunks_exact_mut(width).zip(angles) {
            for head in row.chunks_exact_mut(2 * half) {
                let (first, second) = head.split_at_mut(half);
                let points = first.iter_mut().zip(second);
                for ((first, second), (cos, sin)) in points.zip(cos.iter().zip(sin)) {
                    let (x1, x2) = (*first, *second);
                    *first = x1 * cos - x2 * sin;
                    *second = x2 * cos + x1 * sin;
                }
            }
        }
    }
}

/// [`crate::ops::MtLoraBackend::rotate_heads`], in the input's own memory if no other tensor shares it.
pub(crate) fn rotate_heads(x: FlexTensor, cos: FlexTensor, sin: FlexTensor) -> FlexTensor {
    let (cos, sin) = (contiguous(cos), contiguous(sin));
    let [tokens, half] = [cos.shape()[0], cos.shape()[1]];
    let width = x.shape()[1];
    assert_eq!(cos.shape(), sin.shape(), "the shape of cosines and sines");
    assert!(
        x.shape()[0] == tokens && width.is_multiple_of(2 * half.max(1)),
        "{:?} for angles of {tokens} tokens and heads of {} elements",
        x.shape(),
        2 * half
    );
    if half == 0 || width == 0 {
        return x;
    }
    let (cos, sin) = (values(&cos), values(&sin));
    let chunk = rows(width);
    let turn = |index: usize, x: &mut [f32]| {
        let first = index * (chunk / width) * half;
        let angles = first..first + x.len() / width * half;
        turn_rows(x, width, &cos[angles.clone()], &sin[angles], half);
    };
    if x.is_unique() {
        let mut x = exclusive(x);
        x.storage_mut::<f32>()
            .par_chunks_mut(chunk)
            .enumerate()
            .for_each(|(index, x)| turn(index, x));
        return x;
    }
    let x = contiguous(x);
    let read = values(&x);
    let y = made(read.len(), chunk, |index, y: &mut [f32]| {
        y.copy_from_slice(&read[index * chunk..][..y.len()]);
        turn(index, y);
    });
    tensor(y, x.shape())
}

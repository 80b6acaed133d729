//! The lengths of an adapted weight's rows, read once in the precision that the weight is kept in.

use burn::backend::Flex;
use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::{Shape, bf16};

use super::instructions::vectorized;
use super::linear::{Matrix, dequantized, rank_matmul, slice};
use super::products::packed::unpack;
use super::reduce::sum_of;
use super::{contiguous, made, suits, tensor, values};
use crate::ops::Weight;
use crate::ops::definitions::adapted_norms;
use crate::packed;

/// Columns that a task sums.
const COLUMNS: usize = 128;
/// Rows whose squares are added up before they are added to the others', so that sums of many rows keep their digits.
const ROWS: usize = 64;

vectorized! {
    /// Adds the squares of rows, `width` apart, to at most [`COLUMNS`] sums, from their column `first` on.
    fn add_squares[E: Copy, F: Fn(E) -> f32](sums: &mut [f32], x: &[E], width: usize, first: usize, widened: F) {
        for rows in x.chunks(ROWS * width) {
            let mut part = [0.0; COLUMNS];
            for row in rows.chunks_exact(width) {
                for (sum, x) in part[..sums.len()].iter_mut().zip(&row[first..]) {
                    let x = widened(*x);
                    *sum += x * x;
                }
            }
            for (sum, part) in sums.iter_mut().zip(part) {
                *sum += part;
            }
        }
    }
}

vectorized! {
    /// The sum of the squares of each row.
    fn row_squares(sums: &mut [f32], x: &[f32], width: usize) {
        for (sum, row) in sums.iter_mut().zip(x.chunks_exact(width)) {
            *sum = sum_of(row, row, |x, _| x * x);
        }
    }
}

vectorized! {
    /// Adds what the update changes: `scale B_o · (2 A W_oᵀ + scale A Aᵀ B_oᵀ)` for each output `o`. `across` is `A Wᵀ`, `[rank, out]`;
    /// `own` is `B A Aᵀ`, `[out, rank]`.
    fn add_update(sums: &mut [f32], b: &[f32], across: &[f32], own: &[f32], scale: f32) {
        let (outputs, rank) = (sums.len(), b.len() / sums.len());
        let rows = b.chunks_exact(rank).zip(own.chunks_exact(rank));
        for (output, (sum, (b, own))) in sums.iter_mut().zip(rows).enumerate() {
            let across = across[output..].iter().step_by(outputs);
            for ((b, across), own) in b.iter().zip(across).zip(own) {
                *sum += scale * b * (2.0 * across + scale * own);
            }
        }
    }
}

/// The sum of the squares of each column of a matrix of `width` columns.
fn squared_columns<E: Copy + Sync>(
    x: &[E],
    width: usize,
    widened: impl Fn(E) -> f32 + Copy + Sync,
) -> Vec<f32> {
    made(width, COLUMNS, |index, sums| {
        add_squares(sums, x, width, index * COLUMNS, widened)
    })
}

/// The square of the length of each output's weights: `[out]`.
fn squared_outputs(matrix: &Matrix) -> Vec<f32> {
    /// Outputs that a task sums where their weights lie one after the other.
    const TASK: usize = 16;
    let [inputs, outputs] = matrix.sides();
    match matrix {
        Matrix::F32(weight) if weight.transposed => {
            let x = values(&weight.tensor);
            made(outputs, TASK, |index, sums| {
                row_squares(sums, &x[index * TASK * inputs..], inputs)
            })
        }
        Matrix::F32(weight) => squared_columns(values(&weight.tensor), outputs, |x| x),
        Matrix::Bf16(weight) => {
            let widened = |x: bf16| f32::from_bits(u32::from(x.to_bits()) << 16);
            squared_columns(slice::<bf16>(weight), outputs, widened)
        }
        Matrix::Int8 { weight, block } => {
            squared_columns(&dequantized(weight, outputs, *block), outputs, |x| x)
        }
        Matrix::Packed(weight) => match packed::view(weight) {
            Some(matrix) if matrix.is_turned() => made(outputs, TASK, |index, sums| {
                let rows = index * TASK..index * TASK + sums.len();
                let mut x = vec![0.0; rows.len() * inputs];
                unpack(matrix, rows, 0..inputs, &mut x);
                row_squares(sums, &x, inputs);
            }),
            Some(matrix) => {
                let mut x = vec![0.0; inputs * outputs];
                unpack(matrix, 0..inputs, 0..outputs, &mut x);
                squared_columns(&x, outputs, |x| x)
            }
            None => Vec::new(),
        },
    }
}

/// [`crate::ops::MtLoraBackend::adapted_squared_norms`].
pub(crate) fn adapted_squared_norms(
    weight: Weight<Flex>,
    a: FlexTensor,
    b: FlexTensor,
    scale: f64,
) -> FlexTensor {
    let (true, Some(matrix)) = (suits(&[&a, &b]), Matrix::of(&weight)) else {
        return adapted_norms::squared::<Flex>(weight, a, b, scale);
    };
    let [inputs, outputs] = matrix.sides();
    let rank = a.shape()[0];
    assert_eq!(a.shape()[1], inputs, "the weight's inputs and A's");
    assert_eq!(b.shape(), Shape::from([outputs, rank]), "the shape of B");
    let mut sums = squared_outputs(&matrix);
    if rank > 0 {
        let (a, b) = (contiguous(a), contiguous(b));
        let across = matrix.product(values(&a), false, None);
        let own = rank_matmul(a.clone(), a.transpose(0, 1));
        let own = rank_matmul(b.clone(), own);
        add_update(&mut sums, values(&b), &across, values(&own), scale as f32);
    }
    tensor(sums, Shape::from([outputs]))
}

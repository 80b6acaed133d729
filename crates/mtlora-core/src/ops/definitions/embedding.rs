//! Embedding tables, of which tokens look up rows:
//!
//! ```text
//! y[t] = E[ids[t]]     dE[r] = sum over the tokens t with ids[t] = r of dy[t]
//! ```

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{FloatDType, IndexingUpdateOp, Shape};

use crate::ops::{MtLoraBackend, Weight};

/// The rows that are looked up.
pub(in crate::ops) fn forward<B: MtLoraBackend>(
    table: Weight<B>,
    ids: IntTensor<B>,
) -> FloatTensor<B> {
    let table = match table {
        Weight::Float(table) => table,
        Weight::Quantized(table) if B::capabilities(&table.device()).unpacks_words => {
            return B::packed_rows(table, ids);
        }
        Weight::Quantized(table) => B::dequantize(table, FloatDType::F32),
    };
    B::float_select(table, 0, ids)
}

/// The gradient of a table of `rows` rows.
pub(in crate::ops) fn backward<B: Backend>(
    dy: FloatTensor<B>,
    ids: IntTensor<B>,
    rows: usize,
) -> FloatTensor<B> {
    let shape = Shape::from([rows, dy.shape()[1]]);
    let zeros = B::float_zeros(shape, &dy.device(), dy.dtype().into());
    B::float_select_assign(zeros, 0, ids, dy, IndexingUpdateOp::Add)
}

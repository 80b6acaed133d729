//! Columns that are multiplied by a factor each, and a row that is added:
//!
//! ```text
//! y = x * f + bias     dx = dy * f     df = sum over rows of dy * x     dbias = sum over rows of dy
//! ```

use burn::backend::Backend;
use burn::backend::tensor::FloatTensor;

use super::linear::sum_rows;
use super::norm::row;

pub(in crate::ops) fn forward<B: Backend>(
    x: FloatTensor<B>,
    factors: FloatTensor<B>,
    bias: Option<FloatTensor<B>>,
) -> FloatTensor<B> {
    let y = B::float_mul(x, row::<B>(factors));
    match bias {
        Some(bias) => B::float_add(y, row::<B>(bias)),
        None => y,
    }
}

/// `dx` and `df`.
pub(in crate::ops) fn backward<B: Backend>(
    x: FloatTensor<B>,
    factors: FloatTensor<B>,
    dy: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let df = sum_rows::<B>(B::float_mul(dy.clone(), x));
    (B::float_mul(dy, row::<B>(factors)), df)
}

//! The sum of the squares of all elements of several tensors: of gradients, the square of their norm.

use burn::backend::Backend;
use burn::backend::tensor::FloatTensor;

/// `before` and the squares, as `[1]`.
pub(in crate::ops) fn sum_of_squares<B: Backend>(
    tensors: impl IntoIterator<Item = FloatTensor<B>>,
    first: FloatTensor<B>,
    before: Option<FloatTensor<B>>,
) -> FloatTensor<B> {
    let square_sum = |x: FloatTensor<B>| B::float_sum(B::float_mul(x.clone(), x));
    let sum = tensors
        .into_iter()
        .fold(square_sum(first), |sum, x| B::float_add(sum, square_sum(x)));
    match before {
        Some(before) => B::float_add(before, sum),
        None => sum,
    }
}

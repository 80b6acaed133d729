//! The mask of dropout.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Scalar, TensorMetadata};
use burn::tensor::{Distribution, Shape};

pub(super) fn mask<B: Backend>(like: &FloatTensor<B>, entries: usize, prob: f64) -> FloatTensor<B> {
    let keep = 1.0 - prob;
    let drawn = B::float_random(
        Shape::from([entries]),
        Distribution::Bernoulli(keep),
        &like.device(),
        like.dtype().into(),
    );
    B::float_mul_scalar(drawn, Scalar::from(1.0 / keep))
}

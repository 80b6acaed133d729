use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::Shape;
use rayon::prelude::*;

use crate::ops::flex::instructions::vectorized;
use crate::ops::flex::norm::rows;
use crate::ops::flex::reduce::summed_rows;
use crate::ops::flex::{contiguous, exclusive, made, tensor, values};

vectorized! {
    /// Whole rows of `x`, each times `factors`, plus `bias`.
    fn write_rows(y: &mut [f32], x: &[f32], factors: &[f32], bias: Option<&[f32]>) {
        let width = factors.len();
        for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            match bias {
                Some(bias) => {
                    for ((y, x), (factor, bias)) in y.iter_mut().zip(x).zip(factors.iter().zip(bias)) {
                        *y = x * factor + bias;
                    }
                }
                None => {
                    for ((y, x), factor) in y.iter_mut().zip(x).zip(factors) {
                        *y = x * factor;
                    }
                }
            }
        }
    }
}

vectorized! {
    /// Whole rows become themselves times `factors`.
    fn scale_rows(x: &mut [f32], factors: &[f32]) {
        for x in x.chunks_exact_mut(factors.len()) {
            for (x, factor) in x.iter_mut().zip(factors) {
                *x *= factor;
            }
        }
    }
}

vectorized! {
    /// Adds the products of whole rows to `sums`.
    fn add_products(sums: &mut [f32], x: &[f32], dy: &[f32]) {
        let width = sums.len();
        for (x, dy) in x.chunks_exact(width).zip(dy.chunks_exact(width)) {
            for (sum, (x, dy)) in sums.iter_mut().zip(x.iter().zip(dy)) {
                *sum += x * dy;
            }
        }
    }
}

/// [`crate::ops::MtLoraBackend::scale_columns`].
pub(crate) fn scale_columns(
    x: FlexTensor,
    factors: FlexTensor,
    bias: Option<FlexTensor>,
) -> FlexTensor {
    let (shape, width) = (x.shape(), x.shape()[1]);
    assert_eq!(factors.shape(), Shape::from([width]), "a factor a column");
    if let Some(bias) = &bias {
        assert_eq!(bias.shape(), factors.shape(), "a bias a column");
    }
    if shape.num_elements() == 0 {
        return x;
    }
    let (x, factors, bias) = (contiguous(x), contiguous(factors), bias.map(contiguous));
    let (x, factors, bias) = (values(&x), values(&factors), bias.as_ref().map(values));
    let chunk = rows(width);
    let y = made(x.len(), chunk, |index, y: &mut [f32]| {
        let x = &x[index * chunk..][..y.len()];
        write_rows(y, x, factors, bias);
    });
    tensor(y, shape)
}

/// [`crate::ops::MtLoraBackend::scale_columns_backward`]; the gradient of `x` lies in `dy`'s own memory if no other tensor
/// shares it.
pub(crate) fn scale_columns_backward(
    x: FlexTensor,
    factors: FlexTensor,
    dy: FlexTensor,
) -> (FlexTensor, FlexTensor) {
    let width = x.shape()[1];
    assert_eq!(x.shape(), dy.shape(), "the shape of x and gradient");
    assert_eq!(factors.shape(), Shape::from([width]), "a factor a column");
    let (x, factors, mut dx) = (contiguous(x), contiguous(factors), exclusive(dy));
    let sums = summed_rows(values(&x), values(&dx), width, add_products);
    if dx.shape().num_elements() > 0 {
        let (factors, parts) = (values(&factors), dx.storage_mut::<f32>());
        parts
            .par_chunks_mut(rows(width))
            .for_each(|part| scale_rows(part, factors));
    }
    (dx, tensor(sums, Shape::from([width])))
}

//! Rotary positions (arXiv 2104.09864): the two halves of each head are the coordinates of points, and each point is turned by
//! an angle that grows with its token's position. The halves are those of Hugging Face's models, where coordinate `i` goes with
//! coordinate `i + half`; the paper pairs neighbours.
//!
//! ```text
//! y1 = x1 cos - x2 sin     y2 = x2 cos + x1 sin
//! ```
//!
//! It is linear, so that the gradient is `dy` turned back: the same with `-sin`. Cosines and sines may have a common factor
//! (YaRN's), which the gradient has too.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{Shape, Slice};

pub(in crate::ops) fn forward<B: Backend>(
    x: FloatTensor<B>,
    cos: FloatTensor<B>,
    sin: FloatTensor<B>,
) -> FloatTensor<B> {
    let shape = x.shape();
    let [tokens, width, half] = [shape[0], shape[1], cos.shape()[1]];
    let heads = width / (2 * half);
    let x = B::float_reshape(x, Shape::from([tokens, heads, 2 * half]));
    let part = |from: usize| {
        let slices = [0..tokens, 0..heads, from..from + half].map(Slice::from);
        B::float_slice(x.clone(), &slices)
    };
    let (first, second) = (part(0), part(half));
    let [cos, sin] = [cos, sin].map(|t| B::float_reshape(t, Shape::from([tokens, 1, half])));
    let turned = [
        B::float_sub(
            B::float_mul(first.clone(), cos.clone()),
            B::float_mul(second.clone(), sin.clone()),
        ),
        B::float_add(B::float_mul(second, cos), B::float_mul(first, sin)),
    ];
    B::float_reshape(B::float_cat(turned.to_vec(), 2), shape)
}

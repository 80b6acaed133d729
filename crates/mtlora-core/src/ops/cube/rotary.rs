//! Rotary positions, `ops/definitions/rotary.rs`: a unit turns one point, the two coordinates of one angle in one head.
//!
//! Bound: each element of `x` is read once and each of `y` written once, 8 bytes. The cosines and sines of a token are read once, if
//! the device's cache serves its other heads.

use burn::backend::TensorMetadata;
use burn_cubecl::cubecl::{self, calculate_cube_count_elemwise, prelude::*};
use burn_cubecl::tensor::CubeTensor;

use super::memory::Rows;
use super::row_launches::{UNITS, flat};

#[cube(launch, create_dummy_kernel)]
fn rotate_heads_kernel(
    x: &[f32],
    cos: &[f32],
    sin: &[f32],
    y: &mut [f32],
    tokens: usize,
    points: usize,
    half: usize,
    stride: usize,
    cos_stride: usize,
    sin_stride: usize,
) {
    let point = ABSOLUTE_POS;
    if point < tokens * points {
        let token = point / points;
        let of_token = point % points;
        let angle = of_token % half;
        let first = token * stride + of_token / half * 2 * half + angle;
        let second = first + half;
        let cosine = cos[token * cos_stride + angle];
        let sine = sin[token * sin_stride + angle];
        let a = x[first];
        let b = x[second];
        y[first] = a * cosine - b * sine;
        y[second] = b * cosine + a * sine;
    }
}

/// [`crate::ops::MtLoraBackend::rotate_heads`], in the input's own memory if no other tensor shares it.
pub(super) fn rotate_heads(x: CubeTensor, cos: CubeTensor, sin: CubeTensor) -> CubeTensor {
    let (tokens, half) = (x.shape()[0], cos.shape()[1]);
    assert_eq!(cos.shape(), sin.shape(), "the shape of cosines and sines");
    assert_eq!(cos.shape()[0], tokens, "the rows of x, cosines and sines");
    assert!(
        half > 0 && x.shape()[1].is_multiple_of(2 * half),
        "heads of {} elements in rows of {}",
        2 * half,
        x.shape()[1]
    );
    if tokens == 0 {
        return x;
    }
    let client = x.client.clone();
    let (x, y) = Rows::of(x).with_output(0);
    let [cos, sin] = [cos, sin].map(Rows::of);
    let points = x.width / 2;
    let dim = flat(&client, UNITS);
    rotate_heads_kernel::launch(
        &client,
        calculate_cube_count_elemwise(&client, tokens * points, dim),
        dim,
        x.argument(),
        cos.argument(),
        sin.argument(),
        y.argument(),
        tokens,
        points,
        half,
        x.stride,
        cos.stride,
        sin.stride,
    );
    y.tensor
}

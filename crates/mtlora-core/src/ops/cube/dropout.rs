//! Dropout, `ops/definitions/dropout.rs`: the mask is computed from the seed and the place of each element, in both passes,
//! so that none is made, uploaded or held.
//!
//! Bound: each element is read once and written once, 8 bytes.

use burn::backend::TensorMetadata;
use burn_cubecl::cubecl::{self, calculate_cube_count_elemwise, prelude::*};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use super::memory::Output;
use super::row_launches::{UNITS, flat};
use crate::ops::SeededDropout;
use crate::ops::definitions::dropout::MaskParts;

/// A mask, as kernels compute it: [`SeededDropout`]'s.
#[derive(CubeType, CubeLaunch)]
pub(super) struct Mask {
    low: u32,
    high: u32,
    bound: u32,
    scale: f32,
}

/// A mask as a kernel's argument.
pub(super) fn mask(dropout: SeededDropout) -> MaskLaunch {
    let MaskParts {
        low,
        high,
        bound,
        scale,
    } = dropout.parts();
    MaskLaunch::new(low, high, bound, scale)
}

#[cube]
impl Mask {
    /// The entry at a place: zero, or `1 / (1 - prob)`.
    pub(super) fn entry(&self, place: u32) -> f32 {
        let drawn = mixed(mixed(place + self.low) ^ self.high);
        select(drawn >= self.bound, self.scale, 0.0f32)
    }
}

/// `lowbias32`. Integers wrap around in kernels.
#[cube]
fn mixed(x: u32) -> u32 {
    let x = (x ^ (x >> 16u32)) * 0x7feb_352du32;
    let x = (x ^ (x >> 15u32)) * 0x846c_a68bu32;
    x ^ (x >> 16u32)
}

#[cube(launch, create_dummy_kernel)]
fn dropout_kernel<N: Size>(x: &[Vector<f32, N>], y: &mut [Vector<f32, N>], mask: Mask) {
    let index = ABSOLUTE_POS;
    if index < x.len() {
        let read = x[index];
        let mut kept = Vector::<f32, N>::empty();
        #[unroll]
        for lane in 0..N::value() {
            let place = (index * N::value() + lane) as u32;
            kept.insert(lane, read.extract(lane) * mask.entry(place));
        }
        y[index] = kept;
    }
}

/// [`crate::ops::MtLoraBackend::seeded_dropout`], in the input's own memory if no other tensor shares it.
pub(super) fn seeded_dropout(x: CubeTensor, dropout: SeededDropout) -> CubeTensor {
    let elements = x.shape().num_elements();
    if elements == 0 {
        return x;
    }
    let x = into_contiguous(x);
    let client = x.client.clone();
    let sizes = client.io_optimized_vector_sizes(size_of::<f32>());
    let vector = sizes
        .filter(|size| elements.is_multiple_of(*size))
        .max()
        .unwrap_or(1);
    let y = Output::over(&x, 0);
    let units = elements / vector;
    let dim = flat(&client, UNITS);
    let count = calculate_cube_count_elemwise(&client, units, dim);
    dropout_kernel::launch(
        &client,
        count,
        dim,
        vector,
        x.into_buffer_arg(),
        y.argument(),
        mask(dropout),
    );
    y.tensor
}

//! The sum of the squares of several tensors, `ops/definitions/squares.rs`, in one launch: an adapter's tensors are small and many, so
//! that launches cost more than the work. One cube goes through all of them.
//!
//! Bound: each element is read once, 4 bytes.

use burn::backend::TensorMetadata;
use burn::tensor::{DType, Shape};
use burn_cubecl::cubecl::{self, prelude::*};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use super::memory::uninitialised;
use super::reduce::sum_of_units;
use super::row_launches::units_for;

/// Tensors of a launch: with the sum before them, the sum, and the scalars, the kernel binds eight buffers.
const TENSORS: usize = 5;

/// The sum of this unit's squares.
#[cube]
fn squares(x: &[f32], elements: usize, #[comptime] units: usize) -> f32 {
    let mut own = 0.0f32;
    let mut place = UNIT_POS as usize;
    while place < elements {
        own += x[place] * x[place];
        place += units;
    }
    own
}

/// A tensor that is absent has no elements.
#[cube(launch, create_dummy_kernel)]
fn sum_of_squares_kernel(
    first: &[f32],
    second: ComptimeOption<&[f32]>,
    third: ComptimeOption<&[f32]>,
    fourth: ComptimeOption<&[f32]>,
    fifth: ComptimeOption<&[f32]>,
    before: ComptimeOption<&[f32]>,
    sum: &mut [f32],
    elements_of_first: usize,
    elements_of_second: usize,
    elements_of_third: usize,
    elements_of_fourth: usize,
    elements_of_fifth: usize,
    #[comptime] adds: bool,
    #[comptime] units: usize,
) {
    #[comptime]
    let second = match second {
        ComptimeOption::Some(second) => second,
        ComptimeOption::None => first,
    };
    #[comptime]
    let third = match third {
        ComptimeOption::Some(third) => third,
        ComptimeOption::None => first,
    };
    #[comptime]
    let fourth = match fourth {
        ComptimeOption::Some(fourth) => fourth,
        ComptimeOption::None => first,
    };
    #[comptime]
    let fifth = match fifth {
        ComptimeOption::Some(fifth) => fifth,
        ComptimeOption::None => first,
    };
    #[comptime]
    let before = match before {
        ComptimeOption::Some(before) => before,
        ComptimeOption::None => first,
    };
    let mut own = squares(first, elements_of_first, units);
    own += squares(second, elements_of_second, units);
    own += squares(third, elements_of_third, units);
    own += squares(fourth, elements_of_fourth, units);
    own += squares(fifth, elements_of_fifth, units);
    let mut all = sum_of_units(own, units);
    if comptime!(adds) {
        all += before[0];
    }
    if UNIT_POS == 0 {
        sum[0] = all;
    }
}

/// [`crate::ops::MtLoraBackend::sum_of_squares`].
pub(super) fn sum_of_squares(
    first: CubeTensor,
    others: [Option<CubeTensor>; TENSORS - 1],
    before: Option<CubeTensor>,
) -> CubeTensor {
    let client = first.client.clone();
    let sum = uninitialised(&first, Shape::from([1]), DType::F32);
    let first = into_contiguous(first);
    let others = others.map(|x| x.map(into_contiguous));
    let of_first = first.shape().num_elements();
    let elements = others
        .each_ref()
        .map(|x| x.as_ref().map_or(0, |x| x.shape().num_elements()));
    let units = units_for(&sum.device, of_first + elements.iter().sum::<usize>(), 1);
    let [second, third, fourth, fifth] = others.map(|x| x.map(CubeTensor::into_buffer_arg).into());
    let adds = before.is_some();
    sum_of_squares_kernel::launch(
        &client,
        CubeCount::Static(1, 1, 1),
        CubeDim::new_1d(units as u32),
        first.into_buffer_arg(),
        second,
        third,
        fourth,
        fifth,
        before.map(CubeTensor::into_buffer_arg).into(),
        sum.clone().into_buffer_arg(),
        of_first,
        elements[0],
        elements[1],
        elements[2],
        elements[3],
        adds,
        units,
    );
    sum
}

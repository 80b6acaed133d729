//! All values of a matrix that is kept in words, and the rows of an embedding table.

use burn::backend::TensorMetadata;
use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::{DType, Shape};
use burn_cubecl::cubecl::{self, calculate_cube_count_elemwise, prelude::*};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use super::{Packed, WordSteps, Words, unpacked};
use crate::ops::cube::memory::uninitialised;
use crate::ops::cube::product::{Steps, StepsLaunch};
use crate::ops::cube::row_launches::{UNITS, flat};
use crate::packed::words::GROUP;

/// A unit unpacks a group.
#[cube(launch, create_dummy_kernel)]
fn unpack_words_kernel(
    first: &[u32],
    second: &[u32],
    y: &mut [f32],
    rows: usize,
    groups: usize,
    steps: WordSteps,
    steps_y: Steps,
    #[comptime] words: Words,
) {
    let at = ABSOLUTE_POS;
    if at < rows * groups {
        let row = at / groups;
        let group = at % groups;
        let low = first[row * steps.first + group];
        let high = second[row * steps.second + group / comptime!(words.groups)];
        #[unroll]
        for place in 0..4usize {
            let column = group * 4 + place;
            y[row * steps_y.row + column * steps_y.column] =
                unpacked(low, high, comptime!(place as u32), words);
        }
    }
}

#[cube(launch, create_dummy_kernel)]
fn packed_rows_kernel<I: Int>(
    first: &[u32],
    second: &[u32],
    ids: &[I],
    y: &mut [f32],
    tokens: usize,
    groups: usize,
    steps: WordSteps,
    #[comptime] words: Words,
    #[define(I)] _ids: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at < tokens * groups {
        let token = at / groups;
        let group = at % groups;
        let row = u32::cast_from(ids[token]) as usize;
        let low = first[row * steps.first + group];
        let high = second[row * steps.second + group / comptime!(words.groups)];
        #[unroll]
        for place in 0..4usize {
            y[at * 4 + place] = unpacked(low, high, comptime!(place as u32), words);
        }
    }
}

/// [`crate::ops::MtLoraBackend::unpack_words`].
pub(in crate::ops::cube) fn values(parameter: &CubeTensor) -> CubeTensor {
    let client = parameter.client.clone();
    let packed = Packed::of(parameter);
    let y = uninitialised(parameter, parameter.shape(), DType::F32);
    let strides = y.meta.strides();
    let steps_y = match packed.is_turned {
        true => StepsLaunch::new(strides[1], strides[0]),
        false => StepsLaunch::new(strides[0], strides[1]),
    };
    let groups = packed.width / GROUP;
    let dim = flat(&client, UNITS);
    let (first, second, steps) = packed.arguments();
    unpack_words_kernel::launch(
        &client,
        calculate_cube_count_elemwise(&client, packed.rows * groups, dim),
        dim,
        first,
        second,
        y.clone().into_buffer_arg(),
        packed.rows,
        groups,
        steps,
        steps_y,
        packed.words,
    );
    y
}

/// [`crate::ops::MtLoraBackend::packed_rows`].
///
/// # Panics
/// When the table is packed along its columns.
pub(in crate::ops::cube) fn rows(table: &CubeTensor, ids: CubeTensor) -> CubeTensor {
    let client = table.client.clone();
    let packed = Packed::of(table);
    assert!(!packed.is_turned, "an embedding's rows are packed");
    let ids = into_contiguous(ids);
    let tokens = ids.shape()[0];
    let y = uninitialised(table, Shape::from([tokens, packed.width]), DType::F32);
    if tokens == 0 {
        return y;
    }
    let groups = packed.width / GROUP;
    let dim = flat(&client, UNITS);
    let (first, second, steps) = packed.arguments();
    packed_rows_kernel::launch(
        &client,
        calculate_cube_count_elemwise(&client, tokens * groups, dim),
        dim,
        first,
        second,
        ids.clone().into_buffer_arg(),
        y.clone().into_buffer_arg(),
        tokens,
        groups,
        steps,
        packed.words,
        dtype_to_storage_type(ids.dtype()),
    );
    y
}

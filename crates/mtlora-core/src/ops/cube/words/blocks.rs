//! A unit computes a block of the product, as in [`product`](crate::ops::cube::product): for drivers that compute on the
//! processor.

use burn::backend::TensorMetadata;
use burn_cubecl::cubecl::{self, calculate_cube_count_elemwise, prelude::*};

use super::{Factors, WordSteps, Words, unpacked};
use crate::autotune::is_software;
use crate::ops::cube::product::{Division, Sizes, Steps};
use crate::ops::cube::row_launches::flat;

#[cube(launch_unchecked, create_dummy_kernel)]
fn packed_blocks_kernel(
    x: &[f32],
    first: &[u32],
    second: &[u32],
    bias: ComptimeOption<&[f32]>,
    y: &mut [f32],
    sizes: Sizes,
    steps_x: Steps,
    steps: WordSteps,
    #[comptime] adds: bool,
    #[comptime] is_along: bool,
    #[comptime] words: Words,
    #[comptime] side: usize,
) {
    #[comptime]
    let bias = match bias {
        ComptimeOption::Some(bias) => bias,
        ComptimeOption::None => x,
    };
    let across = (sizes.columns + comptime!(side - 1)) / side;
    let down = (sizes.rows + comptime!(side - 1)) / side;
    let block = ABSOLUTE_POS;
    if block < across * down {
        let first_row = block / across * side;
        let first_column = block % across * side;
        // Rows and columns past the end are read as the last one, and not written.
        let mut places_x = Array::<usize>::new(side);
        #[unroll]
        for i in 0..side {
            places_x[i] = (first_row + i).min(sizes.rows - 1) * steps_x.row;
        }
        let mut products = Array::<f32>::new(comptime!(side * side));
        #[unroll]
        for index in 0..comptime!(side * side) {
            products[index] = 0.0f32;
        }
        let mut right = Array::<f32>::new(side);
        let mut offset_x = 0usize.runtime();
        if comptime!(is_along) {
            let mut places_first = Array::<usize>::new(side);
            let mut places_second = Array::<usize>::new(side);
            #[unroll]
            for j in 0..side {
                let row = (first_column + j).min(sizes.columns - 1);
                places_first[j] = row * steps.first;
                places_second[j] = row * steps.second;
            }
            let mut low = Array::<u32>::new(side);
            let mut high = Array::<u32>::new(side);
            let mut group = 0usize.runtime();
            while group < sizes.inner / 4 {
                let at_second = group / comptime!(words.groups);
                #[unroll]
                for j in 0..side {
                    low[j] = first[places_first[j] + group];
                    high[j] = second[places_second[j] + at_second];
                }
                // Not unrolled: software drivers take long to compile long kernels.
                let mut place = 0u32.runtime();
                while place < 4u32 {
                    #[unroll]
                    for j in 0..side {
                        right[j] = unpacked(low[j], high[j], place, words);
                    }
                    add_products(x, &places_x, offset_x, &right, &mut products, side);
                    offset_x += steps_x.column;
                    place += 1;
                }
                group += 1;
            }
        } else {
            let mut row_first = 0usize.runtime();
            let mut row_second = 0usize.runtime();
            let mut at = 0usize.runtime();
            while at < sizes.inner {
                #[unroll]
                for offset in 0..comptime!(side / 4) {
                    let group = (first_column / 4 + offset).min(sizes.columns / 4 - 1);
                    let low = first[row_first + group];
                    let high = second[row_second + group / comptime!(words.groups)];
                    #[unroll]
                    for place in 0..4usize {
                        let at = comptime!(4 * offset + place);
                        right[at] = unpacked(low, high, comptime!(place as u32), words);
                    }
                }
                add_products(x, &places_x, offset_x, &right, &mut products, side);
                offset_x += steps_x.column;
                row_first += steps.first;
                row_second += steps.second;
                at += 1;
            }
        }
        #[unroll]
        for i in 0..side {
            let row = first_row + i;
            #[unroll]
            for j in 0..side {
                let column = first_column + j;
                if row < sizes.rows && column < sizes.columns {
                    let mut value = products[i * side + j];
                    if comptime!(adds) {
                        value += bias[column];
                    }
                    y[row * sizes.columns + column] = value;
                }
            }
        }
    }
}

/// Adds the products of a column of the left factor and a row of the right one.
#[cube]
fn add_products(
    x: &[f32],
    places_x: &Array<usize>,
    offset_x: usize,
    right: &Array<f32>,
    products: &mut Array<f32>,
    #[comptime] side: usize,
) {
    #[unroll]
    for i in 0..side {
        let left = x[places_x[i] + offset_x];
        #[unroll]
        for j in 0..side {
            products[i * side + j] += left * right[j];
        }
    }
}

pub(super) fn launch(factors: &Factors) {
    let client = factors.y.client.clone();
    let shape = factors.y.shape();
    let [rows, columns] = [shape[0], shape[1]];
    let division = Division::of(is_software(&factors.y.device), [rows, columns]);
    let blocks = rows.div_ceil(division.block) * columns.div_ceil(division.block);
    let dim = flat(&client, division.units);
    let (steps_x, x) = factors.left();
    let (first, second, steps) = factors.packed.arguments();
    // SAFETY: `view` and `Packed::arguments` give each factor all places up to the last that it has, the kernel reads no row or
    // column past these, and it writes only entries of the product.
    unsafe {
        packed_blocks_kernel::launch_unchecked(
            &client,
            calculate_cube_count_elemwise(&client, blocks, dim),
            dim,
            x,
            first,
            second,
            factors.bias().into(),
            factors.y.clone().into_buffer_arg(),
            factors.sizes(),
            steps_x,
            steps,
            factors.bias.is_some(),
            factors.is_along,
            factors.packed.words,
            division.block,
        );
    }
}

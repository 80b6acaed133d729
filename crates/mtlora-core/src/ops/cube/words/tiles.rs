//! A cube computes a tile of the product, and keeps parts of both factors in shared memory while it does: for cards.

use burn::backend::TensorMetadata;
use burn_cubecl::cubecl::client::Client;
use burn_cubecl::cubecl::{self, prelude::*};

use super::{Factors, WordSteps, Words, unpacked};
use crate::ops::cube::product::{Sizes, Steps};

/// Rows, and columns, of a tile.
const TILE: usize = 64;
/// Terms of the sums that are in shared memory at a time.
const DEPTH: usize = 16;
/// Rows, and columns, of a tile that a unit computes.
const SIDE: usize = 4;
/// Units of a cube.
const UNITS: usize = (TILE / SIDE) * (TILE / SIDE);
/// Units whose blocks stand side by side.
const ACROSS: usize = TILE / SIDE;

/// Whether the device's cubes are large enough.
pub(super) fn fits(client: &Client) -> bool {
    let hardware = &client.properties().hardware;
    let units = hardware.max_units_per_cube.min(hardware.max_cube_dim.0) as usize;
    let bytes = 2 * TILE * DEPTH * size_of::<f32>();
    units >= UNITS && hardware.max_shared_memory_size >= bytes
}

#[cube(launch_unchecked, create_dummy_kernel)]
fn packed_tiles_kernel(
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
) {
    #[comptime]
    let bias = match bias {
        ComptimeOption::Some(bias) => bias,
        ComptimeOption::None => x,
    };
    let unit = UNIT_POS as usize;
    let first_row = CUBE_POS_Y as usize * TILE;
    let first_column = CUBE_POS_X as usize * TILE;
    // Both with the terms of the sums from row to row.
    let mut left = Shared::<[f32]>::new_slice(comptime!(DEPTH * TILE));
    let mut right = Shared::<[f32]>::new_slice(comptime!(DEPTH * TILE));
    let own_row = unit / ACROSS * SIDE;
    let own_column = unit % ACROSS * SIDE;
    let mut products = Array::<f32>::new(comptime!(SIDE * SIDE));
    #[unroll]
    for index in 0..comptime!(SIDE * SIDE) {
        products[index] = 0.0f32;
    }
    let mut start = 0usize.runtime();
    while start < sizes.inner {
        #[unroll]
        for turn in 0..comptime!(DEPTH * TILE / UNITS) {
            let index = unit + comptime!(turn * UNITS);
            let row = first_row + index / DEPTH;
            let term = start + index % DEPTH;
            let mut value = 0.0f32;
            if row < sizes.rows && term < sizes.inner {
                value = x[row * steps_x.row + term * steps_x.column];
            }
            left[index % DEPTH * TILE + index / DEPTH] = value;
        }
        // Each unit unpacks one group.
        let mut low = 0u32;
        let mut high = 0u32;
        if comptime!(is_along) {
            let column = unit / comptime!(DEPTH / 4);
            let offset = unit % comptime!(DEPTH / 4);
            let row = first_column + column;
            let group = start / 4 + offset;
            if row < sizes.columns && group < sizes.inner / 4 {
                low = first[row * steps.first + group];
                high = second[row * steps.second + group / comptime!(words.groups)];
            }
            #[unroll]
            for place in 0..4usize {
                right[(offset * 4 + place) * TILE + column] =
                    unpacked(low, high, comptime!(place as u32), words);
            }
        } else {
            let term = unit / comptime!(TILE / 4);
            let offset = unit % comptime!(TILE / 4);
            let row = start + term;
            let group = first_column / 4 + offset;
            if row < sizes.inner && group < sizes.columns / 4 {
                low = first[row * steps.first + group];
                high = second[row * steps.second + group / comptime!(words.groups)];
            }
            #[unroll]
            for place in 0..4usize {
                right[term * TILE + offset * 4 + place] =
                    unpacked(low, high, comptime!(place as u32), words);
            }
        }
        sync_cube();
        let mut of_left = Array::<f32>::new(SIDE);
        let mut of_right = Array::<f32>::new(SIDE);
        #[unroll]
        for term in 0..DEPTH {
            #[unroll]
            for i in 0..SIDE {
                of_left[i] = left[comptime!(term * TILE) + own_row + i];
                of_right[i] = right[comptime!(term * TILE) + own_column + i];
            }
            #[unroll]
            for i in 0..SIDE {
                #[unroll]
                for j in 0..SIDE {
                    products[i * SIDE + j] += of_left[i] * of_right[j];
                }
            }
        }
        sync_cube();
        start += DEPTH;
    }
    #[unroll]
    for i in 0..SIDE {
        let row = first_row + own_row + i;
        #[unroll]
        for j in 0..SIDE {
            let column = first_column + own_column + j;
            if row < sizes.rows && column < sizes.columns {
                let mut value = products[i * SIDE + j];
                if comptime!(adds) {
                    value += bias[column];
                }
                y[row * sizes.columns + column] = value;
            }
        }
    }
}

pub(super) fn launch(factors: &Factors) {
    let client = factors.y.client.clone();
    let shape = factors.y.shape();
    let tiles = |side: usize| side.div_ceil(TILE) as u32;
    let (steps_x, x) = factors.left();
    let (first, second, steps) = factors.packed.arguments();
    // SAFETY: `view` and `Packed::arguments` give each factor all places up to the last that it has, the kernel reads no row or
    // column past these, and it writes only entries of the product.
    unsafe {
        packed_tiles_kernel::launch_unchecked(
            &client,
            CubeCount::Static(tiles(shape[1]), tiles(shape[0]), 1),
            CubeDim::new_1d(UNITS as u32),
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
        );
    }
}

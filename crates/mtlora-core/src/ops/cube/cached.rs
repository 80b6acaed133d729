//! Attention of one new token a row over a key-value cache, `ops/definitions/cached.rs`: a cube for each row and head. Its units score
//! a place of the cache each, and then sum up the values, each unit a few columns of some of these places.
//!
//! Bound: the keys and values of each row's context are read once. Beams with a common beginning read it from the device's
//! cache.

use burn::backend::TensorMetadata;
use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::DType;
use burn_cubecl::cubecl::ir::ElemType;
use burn_cubecl::cubecl::{self, prelude::*};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use super::memory::{Rows, uninitialised};

/// Units of a cube, and places of the cache that they score at a time.
const UNITS: usize = 64;

/// Where the running maximum of the scores starts. WGSL has no literal for minus infinity.
const LEAST: f32 = -1e30;

/// The widest head.
const WIDEST: usize = 512;

/// How a cube's units share a head's columns.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
struct Shares {
    /// Vectors of a head in a row.
    vectors: usize,
    /// Units that share a row, each with the vectors `unit + n * lanes`.
    lanes: usize,
}

impl Shares {
    fn new(vectors: usize) -> Self {
        Self {
            vectors,
            lanes: vectors.min(UNITS),
        }
    }

    /// Rows that are summed up at a time.
    fn groups(self) -> usize {
        UNITS / self.lanes
    }

    /// Vectors of a unit.
    fn own(self) -> usize {
        self.vectors.div_ceil(self.lanes)
    }
}

/// `contexts` has where each row's places begin in itself, and then the places: `[rows + 1 + places]`. `group` of the query's heads
/// share one of keys and values.
#[cube(launch, create_dummy_kernel)]
fn cached_attention_kernel<I: Int, N: Size>(
    query: &[Vector<f32, N>],
    keys: &[Vector<f32, N>],
    values: &[Vector<f32, N>],
    contexts: &[I],
    output: &mut [Vector<f32, N>],
    query_stride: usize,
    key_stride: usize,
    value_stride: usize,
    output_stride: usize,
    group: usize,
    scale: f32,
    #[comptime] shares: Shares,
    #[define(I)] _integer: ElemType,
) {
    let unit = UNIT_POS as usize;
    let head = CUBE_POS_X as usize * shares.vectors;
    let shared_head = CUBE_POS_X as usize / group * shares.vectors;
    let row = CUBE_POS_Y as usize;
    let mut ends = Shared::<[u32]>::new_slice(2usize);
    let mut ours = Shared::<[Vector<f32, N>]>::new_slice(comptime!(shares.vectors));
    if unit < 2 {
        ends[unit] = u32::cast_from(contexts[row + unit]);
    }
    let mut vector = unit;
    while vector < shares.vectors {
        ours[vector] = query[row * query_stride + head + vector];
        vector += UNITS;
    }
    let mut scores = Shared::<[f32]>::new_slice(UNITS);
    let mut weights = Shared::<[f32]>::new_slice(UNITS);
    let mut places = Shared::<[u32]>::new_slice(UNITS);
    sync_cube();
    let mut from = workgroup_uniform_load(&ends[0]) as usize;
    let end = workgroup_uniform_load(&ends[1]) as usize;

    let group = unit / shares.lanes;
    let lane = unit % shares.lanes;
    let mut sums = Array::<Vector<f32, N>>::new(comptime!(shares.own()));
    #[unroll]
    for own in 0..shares.own() {
        sums[own] = Vector::<f32, N>::new(0.0f32);
    }
    let mut largest = LEAST.runtime();
    // Of this unit's places.
    let mut total = 0.0f32.runtime();
    while from < end {
        let mut score = LEAST.runtime();
        if from + unit < end {
            let place = u32::cast_from(contexts[from + unit]);
            places[unit] = place;
            let start = place as usize * key_stride + shared_head;
            let mut product = 0.0f32.runtime();
            for vector in 0..shares.vectors {
                product += ours[vector].dot(keys[start + vector]);
            }
            score = product * scale;
        }
        scores[unit] = score;
        sync_cube();
        let before = largest;
        for other in 0..UNITS {
            largest = largest.max(scores[other]);
        }
        let shrink = (before - largest).exp();
        let weight = select(from + unit < end, (score - largest).exp(), 0.0f32);
        weights[unit] = weight;
        total = total * shrink + weight;
        #[unroll]
        for own in 0..shares.own() {
            sums[own] *= Vector::<f32, N>::new(shrink);
        }
        sync_cube();
        let count = (end - from).min(UNITS);
        if group < shares.groups() {
            let mut other = group;
            while other < count {
                let factor = Vector::<f32, N>::new(weights[other]);
                let start = places[other] as usize * value_stride + shared_head;
                #[unroll]
                for own in 0..shares.own() {
                    let vector = lane + own * shares.lanes;
                    if vector < shares.vectors {
                        sums[own] += values[start + vector] * factor;
                    }
                }
                other += shares.groups();
            }
        }
        // The places and weights are written again.
        sync_cube();
        from += UNITS;
    }

    scores[unit] = total;
    let mut parts = Shared::<[Vector<f32, N>]>::new_slice(comptime!(UNITS * shares.own()));
    #[unroll]
    for own in 0..shares.own() {
        parts[own * UNITS + unit] = sums[own];
    }
    sync_cube();
    let mut whole = 0.0f32.runtime();
    for other in 0..UNITS {
        whole += scores[other];
    }
    if group == 0 {
        #[unroll]
        for own in 0..shares.own() {
            let vector = lane + own * shares.lanes;
            if vector < shares.vectors {
                let mut sum = Vector::<f32, N>::new(0.0f32);
                for group in 0..shares.groups() {
                    sum += parts[own * UNITS + group * shares.lanes + lane];
                }
                output[row * output_stride + head + vector] = sum / Vector::<f32, N>::new(whole);
            }
        }
    }
}

/// Whether the kernel serves these: 32-bit floats, heads of 1 to 512 elements, as many for the query as for keys and values or a multiple
/// of that, and a device with cubes of 64 units and 16 KiB of shared memory.
pub(super) fn suits(
    query: &CubeTensor,
    keys: &CubeTensor,
    values: &CubeTensor,
    heads: usize,
) -> bool {
    let hardware = &query.client.properties().hardware;
    let (most_x, most_y, _) = hardware.max_cube_count;
    let [rows, width] = [query.shape()[0], query.shape()[1]];
    let head = width.checked_div(heads).unwrap_or(0);
    let key_width = keys.shape()[1];
    let shared_heads = key_width.checked_div(head).unwrap_or(0);
    let dtypes = [query, keys, values].map(|x| x.dtype());
    dtypes == [DType::F32; 3]
        && values.shape()[1] == key_width
        && shared_heads > 0
        && key_width == head * shared_heads
        && heads.is_multiple_of(shared_heads)
        && (1..=WIDEST).contains(&head)
        && width == head * heads
        && UNITS <= hardware.max_units_per_cube.min(hardware.max_cube_dim.0) as usize
        && 16 * 1024 <= hardware.max_shared_memory_size
        && (1..=most_y as usize).contains(&rows)
        && heads <= most_x as usize
}

/// [`crate::ops::MtLoraBackend::cached_attention`]; [`suits`] has been asked. `contexts` as
/// [`Contexts::on_device`](crate::Contexts::on_device) makes them.
pub(super) fn cached_attention(
    query: CubeTensor,
    [keys, values]: [CubeTensor; 2],
    contexts: CubeTensor,
    heads: usize,
    scale: f32,
) -> CubeTensor {
    let client = query.client.clone();
    let output = uninitialised(&query, query.shape(), query.dtype());
    let [query, keys, values] = [query, keys, values].map(Rows::of);
    let contexts = into_contiguous(contexts);
    let head = query.width / heads;
    let fits = |size: &usize| {
        let strides = [query.stride, keys.stride, values.stride, head];
        *size <= 4 && strides.iter().all(|stride| stride.is_multiple_of(*size))
    };
    let sizes = client.io_optimized_vector_sizes(size_of::<f32>());
    let vector = sizes.filter(fits).max().unwrap_or(1);
    let integer = dtype_to_storage_type(contexts.dtype());
    cached_attention_kernel::launch(
        &client,
        CubeCount::Static(heads as u32, query.count as u32, 1),
        CubeDim::new_1d(UNITS as u32),
        vector,
        query.argument(),
        keys.argument(),
        values.argument(),
        contexts.into_buffer_arg(),
        output.clone().into_buffer_arg(),
        query.stride / vector,
        keys.stride / vector,
        values.stride / vector,
        query.width / vector,
        query.width / keys.width,
        scale,
        Shares::new(head / vector),
        integer,
    );
    output
}

//! Attention within the sequences of a packed batch, `ops/definitions/attention.rs`: all sequences and heads in one launch, over the
//! sequence offsets on the device. Matrices of scores exist a tile at a time, and dropout's mask is computed where it is
//! needed.
//!
//! Kernels are compiled for a head's width and for nothing else: the numbers of tokens and of sequences, what a token sees, and
//! dropout are arguments.
//!
//! On cards a cube serves a tile of rows, with shared memory. On drivers that compute on the processor, where barriers cost much, a unit serves
//! a row, if the sequences are short.
//!
//! Bound: the forward pass reads query, key and value and writes the output; the backward pass reads these four and the
//! output's gradient and writes three gradients.

mod backward;
mod forward;
pub(super) mod operations;
mod rows;
mod tiles;

use burn::backend::TensorMetadata;
use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::{DType, Shape};
use burn_cubecl::cubecl::calculate_cube_count_elemwise;
use burn_cubecl::cubecl::client::Client;
use burn_cubecl::cubecl::prelude::{BufferArg, CubeCount, CubeDim};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use super::dropout;
use super::memory::{Rows, uninitialised};
use super::row_launches::{self, UNITS_OF_SOFTWARE, flat};
use crate::SequenceOffsets;
use crate::autotune::is_software;
use crate::ops::{AttentionLayout, SeededDropout};
use tiles::{BatchLaunch, Form, PlaceLaunch, TILE, UNITS, WIDEST_VECTOR, chunk_for};

/// The widest head: a unit keeps its share of a row of each sum in registers.
const WIDEST: usize = 512;

/// Query, key and value.
// It is made once per call, so its size does not matter.
#[allow(clippy::large_enum_variant)]
#[derive(Clone)]
pub(super) enum Projections {
    /// Each `[tokens, heads * head_dim]`, with as many heads in key and value or fewer.
    Separate([CubeTensor; 3]),
    /// Side by side: `[tokens, 3 * heads * head_dim]`.
    Fused(CubeTensor),
}

impl Projections {
    fn tensors(&self) -> &[CubeTensor] {
        match self {
            Self::Separate(parts) => parts,
            Self::Fused(fused) => std::slice::from_ref(fused),
        }
    }

    /// Elements of a row of the query, the key and the value.
    fn widths(&self) -> [usize; 3] {
        match self {
            Self::Separate(parts) => parts.each_ref().map(|part| part.shape()[1]),
            Self::Fused(fused) => [fused.shape()[1] / 3; 3],
        }
    }
}

/// Whether the kernels serve these: 32-bit floats, heads of 1 to 512 elements, as many for the query as for key and value or a multiple of
/// that, and a device with cubes of 64 units and 16 KiB of shared memory.
pub(super) fn suits(projections: &Projections, layout: &AttentionLayout) -> bool {
    let [width, key_width, value_width] = projections.widths();
    let head = width.checked_div(layout.heads).unwrap_or(0);
    let shared_heads = layout.key_value_heads(width, key_width);
    let query = &projections.tensors()[0];
    let hardware = &query.client.properties().hardware;
    let (most_x, most_y, _) = hardware.max_cube_count;
    let tiles = layout.offsets.tokens().div_ceil(TILE);
    let tensors = projections.tensors();
    key_width == value_width
        && key_width == head * shared_heads
        && width == head * layout.heads
        && shared_heads > 0
        && layout.heads.is_multiple_of(shared_heads)
        && tensors.iter().all(|x| x.dtype() == DType::F32)
        && (1..=WIDEST).contains(&head)
        && UNITS <= hardware.max_units_per_cube.min(hardware.max_cube_dim.0) as usize
        && chunk_for(hardware.max_shared_memory_size).is_some()
        && tiles <= most_x as usize
        && layout.heads <= most_y as usize
}

/// A packed matrix as the kernels read it: the rows of a buffer, from a column on.
struct Matrix<'a> {
    rows: &'a Rows,
    column: usize,
}

impl Matrix<'_> {
    fn place(&self, vector: usize) -> PlaceLaunch {
        PlaceLaunch::new(self.column / vector, self.rows.stride / vector)
    }
}

/// Everything that all kernels are given.
struct Call<'a> {
    client: Client,
    /// The buffers that query, key and value lie in: three, or one.
    buffers: Vec<Rows>,
    /// `[sequences + 1]`.
    offsets: CubeTensor,
    layout: &'a AttentionLayout,
    tokens: usize,
    /// Elements of a row of the query, the key and the value.
    widths: [usize; 3],
}

impl<'a> Call<'a> {
    fn new(projections: Projections, offsets: CubeTensor, layout: &'a AttentionLayout) -> Self {
        let widths = projections.widths();
        let tensors = match projections {
            Projections::Separate(parts) => Vec::from(parts),
            Projections::Fused(fused) => vec![fused],
        };
        let tokens = layout.offsets.tokens();
        for tensor in &tensors {
            assert_eq!(
                tensor.shape()[0],
                tokens,
                "the rows of query, key and value"
            );
        }
        Self {
            client: tensors[0].client.clone(),
            buffers: tensors.into_iter().map(Rows::of).collect(),
            offsets: into_contiguous(offsets),
            layout,
            tokens,
            widths,
        }
    }

    fn head(&self) -> usize {
        self.widths[0] / self.layout.heads
    }

    /// How many of the query's heads share one of key and value.
    fn group(&self) -> usize {
        self.widths[0] / self.widths[1]
    }

    /// Query, key or value.
    fn matrix(&self, part: usize) -> Matrix<'_> {
        match self.buffers.as_slice() {
            [fused] => Matrix {
                rows: fused,
                column: part * self.widths[0],
            },
            separate => Matrix {
                rows: &separate[part],
                column: 0,
            },
        }
    }

    /// The buffer of key or value, unless it is the query's.
    fn other_buffer(&self, part: usize) -> Option<BufferArg> {
        self.buffers.get(part).map(Rows::argument)
    }

    /// Elements that are read and written at a time: as many as divide a head and the rows' strides.
    fn vector(&self, others: &[&Rows]) -> usize {
        let fits = |size: &usize| {
            let mut rows = self.buffers.iter().chain(others.iter().copied());
            *size <= WIDEST_VECTOR
                && self.head().is_multiple_of(*size)
                && rows.all(|rows| rows.stride.is_multiple_of(*size))
        };
        let sizes = self.client.io_optimized_vector_sizes(size_of::<f32>());
        sizes.filter(fits).max().unwrap_or(1)
    }

    fn form(&self, vector: usize) -> Form {
        let shared = self.client.properties().hardware.max_shared_memory_size;
        Form::new(self.head(), vector, chunk_for(shared).unwrap_or(vector))
    }

    fn batch(&self) -> BatchLaunch {
        let none = SeededDropout { prob: 0.0, seed: 0 };
        let window = self.layout.window.unwrap_or(self.tokens);
        BatchLaunch::new(
            self.tokens,
            self.layout.offsets.count(),
            self.layout.heads as u32,
            self.group() as u32,
            self.layout.scale as f32,
            u32::from(self.layout.causal),
            window.min(self.tokens) as u32,
            u32::from(self.layout.dropout.is_some()),
            dropout::mask(self.layout.dropout.unwrap_or(none)),
        )
    }

    /// The size of a launch with `of_each` cubes for each tile of tokens and each head.
    fn cubes(&self, of_each: u32) -> (CubeCount, CubeDim) {
        let tiles = self.tokens.div_ceil(TILE) as u32;
        let count = CubeCount::Static(tiles, self.layout.heads as u32, of_each);
        (count, CubeDim::new_1d(UNITS as u32))
    }

    /// Vectors of a head, where the kernels by rows are faster than those by tiles.
    fn by_row(&self, vector: usize) -> Option<usize> {
        let vectors = self.head() / vector;
        // In tests, odd numbers of tokens are computed as on a card, so that both forms are tested.
        let as_on_card = cfg!(test) && !self.tokens.is_multiple_of(2);
        let has_rows = is_software(&self.offsets.device) && !as_on_card;
        let suits = has_rows && vectors <= rows::MOST_VECTORS;
        let offsets = &self.layout.offsets;
        let by_row = PAIR * offsets.score_entries();
        (suits && by_row <= pairs_by_tile(offsets)).then_some(vectors)
    }

    /// The size of a launch with a unit for each of `count` rows.
    fn units(&self, count: usize) -> (CubeCount, CubeDim) {
        let dim = flat(&self.client, UNITS_OF_SOFTWARE);
        let count = calculate_cube_count_elemwise(&self.client, count, dim);
        (count, dim)
    }

    fn empty(&self, shape: [usize; 2]) -> CubeTensor {
        let like = &self.offsets;
        uninitialised(like, Shape::from(shape), DType::F32)
    }

    /// Attention, and what its backward pass reads of it.
    fn forward(&self) -> Forward {
        let width = self.widths[0];
        let output = self.empty([self.tokens, width]);
        let log_sum_exp = self.empty([self.tokens, self.layout.heads]);
        let vector = self.vector(&[]);
        let place = |part| self.matrix(part).place(vector);
        if let Some(vectors) = self.by_row(vector) {
            let (count, dim) = self.units(self.tokens * self.layout.heads);
            rows::attention_forward_by_row::launch(
                &self.client,
                count,
                dim,
                vector,
                self.buffers[0].argument(),
                self.other_buffer(1).into(),
                self.other_buffer(2).into(),
                self.offsets.clone().into_buffer_arg(),
                output.clone().into_buffer_arg(),
                log_sum_exp.clone().into_buffer_arg(),
                place(0),
                place(1),
                place(2),
                PlaceLaunch::new(0, width / vector),
                self.batch(),
                vectors,
                dtype_to_storage_type(self.offsets.dtype()),
            );
            return Forward {
                output,
                log_sum_exp,
            };
        }
        let (cubes, dim) = self.cubes(1);
        forward::attention_forward::launch(
            &self.client,
            cubes,
            dim,
            vector,
            self.buffers[0].argument(),
            self.other_buffer(1).into(),
            self.other_buffer(2).into(),
            self.offsets.clone().into_buffer_arg(),
            output.clone().into_buffer_arg(),
            log_sum_exp.clone().into_buffer_arg(),
            place(0),
            place(1),
            place(2),
            PlaceLaunch::new(0, width / vector),
            self.batch(),
            self.form(vector),
            dtype_to_storage_type(self.offsets.dtype()),
        );
        Forward {
            output,
            log_sum_exp,
        }
    }

    /// Writes the gradients of query, key and value.
    fn backward(&self, forward: Forward, dy: CubeTensor, gradients: &Gradients) {
        let (output, dy) = (Rows::of(forward.output), Rows::of(dy));
        let statistics = self.empty([self.tokens, 2 * self.layout.heads]);
        let vector = self.vector(&[&dy, &output]);
        let form = self.form(vector);
        let whole = |rows: &Rows| PlaceLaunch::new(0, rows.stride / vector);

        let count = self.tokens * self.layout.heads;
        let dim = flat(&self.client, row_launches::UNITS);
        backward::attention_row_sums::launch(
            &self.client,
            calculate_cube_count_elemwise(&self.client, count, dim),
            dim,
            vector,
            output.argument(),
            dy.argument(),
            forward.log_sum_exp.into_buffer_arg(),
            statistics.clone().into_buffer_arg(),
            whole(&output),
            whole(&dy),
            self.tokens,
            self.layout.heads,
            form.vectors,
        );

        let place = |part| self.matrix(part).place(vector);
        let gradient = |part: usize| {
            let Share { start, stride } = gradients.shares[part];
            PlaceLaunch::new(start / vector, stride / vector)
        };
        if let Some(vectors) = self.by_row(vector) {
            let heads = self.layout.heads + self.layout.heads / self.group();
            let (count, dim) = self.units(self.tokens * heads);
            rows::attention_gradients_by_row::launch(
                &self.client,
                count,
                dim,
                vector,
                self.buffers[0].argument(),
                self.other_buffer(1).into(),
                self.other_buffer(2).into(),
                dy.argument(),
                statistics.into_buffer_arg(),
                self.offsets.clone().into_buffer_arg(),
                gradients.buffer.clone().into_buffer_arg(),
                place(0),
                place(1),
                place(2),
                whole(&dy),
                gradient(0),
                gradient(1),
                gradient(2),
                self.batch(),
                vectors,
                dtype_to_storage_type(self.offsets.dtype()),
            );
            return;
        }
        let (cubes, dim) = self.cubes(2);
        backward::attention_gradients::launch(
            &self.client,
            cubes,
            dim,
            vector,
            self.buffers[0].argument(),
            self.other_buffer(1).into(),
            self.other_buffer(2).into(),
            dy.argument(),
            statistics.into_buffer_arg(),
            self.offsets.clone().into_buffer_arg(),
            gradients.buffer.clone().into_buffer_arg(),
            place(0),
            place(1),
            place(2),
            whole(&dy),
            gradient(0),
            gradient(1),
            gradient(2),
            self.batch(),
            form,
            dtype_to_storage_type(self.offsets.dtype()),
        );
    }
}

/// An estimate of how many times as long as in a tile a pair of rows takes where a unit serves a row alone, since it reads both rows again.
const PAIR: usize = 2;

/// The pairs of rows in all tiles of scores.
fn pairs_by_tile(offsets: &SequenceOffsets) -> usize {
    let (starts, tokens) = (offsets.starts(), offsets.tokens());
    let tiles = (0..tokens).step_by(TILE).map(|first| {
        let last = (first + TILE).min(tokens) - 1;
        // The sequences that follow those of the tile's first and last rows.
        let [after_first, after_last] =
            [first, last].map(|row| starts.partition_point(|start| *start <= row));
        let end = starts.get(after_last).copied().unwrap_or(tokens);
        let seen = end - starts[after_first - 1];
        seen.div_ceil(TILE) * TILE * TILE
    });
    tiles.sum()
}

/// What the backward pass reads of the forward pass.
pub(super) struct Forward {
    /// `[tokens, heads * head_dim]`.
    pub output: CubeTensor,
    /// Of each row's scores: `[tokens, heads]`.
    pub log_sum_exp: CubeTensor,
}

/// The memory of three gradients. It is one buffer, since the kernel that writes them has no more to bind.
struct Gradients {
    buffer: CubeTensor,
    shares: [Share; 3],
}

/// The rows of one gradient in a buffer, in elements.
#[derive(Clone, Copy)]
struct Share {
    /// Where the first begins.
    start: usize,
    /// From a row to the next.
    stride: usize,
}

impl Gradients {
    /// Side by side.
    fn fused(call: &Call<'_>) -> Self {
        let width = call.widths[0];
        Self {
            buffer: call.empty([call.tokens, 3 * width]),
            shares: [0, width, 2 * width].map(|start| Share {
                start,
                stride: 3 * width,
            }),
        }
    }

    /// One after the other, each where a tensor may begin.
    fn separate(call: &Call<'_>) -> Self {
        let alignment = call.client.properties().memory.alignment as usize / size_of::<f32>();
        let mut end = 0;
        let shares = call.widths.map(|width| {
            let start = end;
            let size = call.tokens * width;
            end += size.next_multiple_of(alignment.max(WIDEST_VECTOR));
            Share {
                start,
                stride: width,
            }
        });
        Self {
            buffer: call.empty([1, end]),
            shares,
        }
    }

    /// The gradients as tensors of their own, of `rows` rows.
    fn into_parts(self, rows: usize) -> [CubeTensor; 3] {
        let elements = self.buffer.shape().num_elements();
        self.shares.map(|Share { start, stride }| {
            let bytes = |elements: usize| (elements * size_of::<f32>()) as u64;
            let buffer = &self.buffer;
            let handle = buffer.handle.clone().offset_start(bytes(start));
            CubeTensor::new_contiguous(
                buffer.client.clone(),
                buffer.device.clone(),
                Shape::from([rows, stride]),
                handle.offset_end(bytes(elements - start - rows * stride)),
                buffer.dtype,
            )
        })
    }
}

/// Attention, and what its backward pass reads of it. [`suits`] has been asked.
pub(super) fn forward(
    projections: Projections,
    offsets: CubeTensor,
    layout: &AttentionLayout,
) -> Forward {
    Call::new(projections, offsets, layout).forward()
}

/// The gradients of query, key and value. Without `forward` the forward pass is computed again.
pub(super) fn backward_of_separate(
    inputs: [CubeTensor; 3],
    offsets: CubeTensor,
    forward: Option<Forward>,
    dy: CubeTensor,
    layout: &AttentionLayout,
) -> [CubeTensor; 3] {
    let call = Call::new(Projections::Separate(inputs), offsets, layout);
    let forward = forward.unwrap_or_else(|| call.forward());
    let gradients = Gradients::separate(&call);
    call.backward(forward, dy, &gradients);
    gradients.into_parts(call.tokens)
}

/// The same of inputs that lie side by side, as one gradient.
pub(super) fn backward_of_fused(
    fused: CubeTensor,
    offsets: CubeTensor,
    forward: Option<Forward>,
    dy: CubeTensor,
    layout: &AttentionLayout,
) -> CubeTensor {
    let call = Call::new(Projections::Fused(fused), offsets, layout);
    let forward = forward.unwrap_or_else(|| call.forward());
    let gradients = Gradients::fused(&call);
    call.backward(forward, dy, &gradients);
    gradients.buffer
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn tiles_have_the_pairs_of_whole_tiles() {
        let pairs =
            |lengths: &[usize]| pairs_by_tile(&SequenceOffsets::from_lengths(lengths).unwrap());
        assert_eq!(pairs(&[TILE]), TILE * TILE);
        assert_eq!(pairs(&[2 * TILE]), 4 * TILE * TILE);
        // A tile that begins within a sequence sees it from its beginning.
        assert_eq!(pairs(&[TILE - 1, 2]), 3 * TILE * TILE);
        assert_eq!(pairs(&[1]), TILE * TILE);
        assert_eq!(pairs(&[1; 40]), 2 * TILE * TILE);
    }
}

//! What attention's kernels share: which scores a tile of rows sees, and products of tiles in shared memory.
//!
//! A cube owns a tile of [`TILE`] rows of the packed batch in one head (queries, or keys in the gradients of keys and values)
//! and goes over the rows that these see, a tile at a time. A tile may hold rows of several sequences: each row
//! knows the range of rows that it sees, and all other scores count as absent. So the number of cubes depends on the number
//! of tokens alone, and short sequences share a tile.
//!
//! A cube has [`SIDE`] x [`SIDE`] units. A unit computes the scores of the rows and columns `place + n * SIDE`, where `place`
//! is its own along either side, and keeps them in its registers.

use burn_cubecl::cubecl::{self, prelude::*};

use crate::ops::cube::dropout::Mask;

/// Units of a cube along each side of a tile.
pub(super) const SIDE: usize = 8;
/// Rows, and columns, of a tile whose scores a unit computes.
pub(super) const BLOCK: usize = 4;
/// Rows, and columns, of a tile of scores.
pub(super) const TILE: usize = SIDE * BLOCK;
/// Units of a cube.
pub(super) const UNITS: usize = SIDE * SIDE;
/// From a row of a tile of scores to the next in shared memory. One more than a row, so that the units of a column read
/// different banks.
pub(super) const PITCH: usize = TILE + 1;
/// From a row of the units' partial results to the next.
pub(super) const PARTS: usize = SIDE + 1;
/// Elements of a row that shared memory holds at a time, at most: the more, the fewer barriers. The first number that fits is
/// taken.
const CHUNKS: [usize; 2] = [64, 32];
/// The widest vector.
pub(super) const WIDEST_VECTOR: usize = 4;

/// Bytes of shared memory that a kernel takes at most.
const fn shared_bytes(chunk: usize) -> usize {
    let rows = 2 * TILE * (chunk + WIDEST_VECTOR);
    let scores = TILE * PITCH + TILE * PARTS;
    let seen = FIELDS * TILE + UNITS;
    4 * (rows + scores + seen)
}

/// How many elements of a row fit in `bytes` of shared memory at a time; `None` if that is too little for the kernels.
pub(super) fn chunk_for(bytes: usize) -> Option<usize> {
    CHUNKS
        .into_iter()
        .find(|chunk| shared_bytes(*chunk) <= bytes)
}

/// The score of a pair of tokens that do not see each other. It is lower than any real score; WGSL has no literal for minus
/// infinity.
pub(super) const ABSENT: f32 = -1e30;

/// What a kernel is compiled for.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub(super) struct Form {
    /// Vectors of a head in a row.
    pub vectors: usize,
    /// Vectors of a row that shared memory holds at a time: a multiple of [`SIDE`].
    pub chunk: usize,
}

impl Form {
    /// For a head of `width` elements in vectors of `vector`, of which shared memory holds `chunk` elements at a time.
    pub fn new(width: usize, vector: usize, chunk: usize) -> Self {
        let vectors = width / vector;
        Self {
            vectors,
            chunk: (chunk / vector).min(vectors.next_multiple_of(SIDE)),
        }
    }

    /// Chunks of a row.
    pub fn chunks(self) -> usize {
        self.vectors.div_ceil(self.chunk)
    }

    /// Vectors of a chunk.
    pub fn vectors_of(self, chunk: usize) -> usize {
        self.chunk.min(self.vectors - chunk * self.chunk)
    }

    /// Vectors of a chunk that one unit sums up for each of its rows.
    pub fn columns(self) -> usize {
        self.chunk / SIDE
    }

    /// Sums of a unit: vectors.
    pub fn sums(self) -> usize {
        self.chunks() * self.columns() * BLOCK
    }

    /// From a row of a tile in shared memory to the next. One vector more than a row, so that the units of a column read
    /// different banks.
    pub fn pitch(self) -> usize {
        self.chunk + 1
    }
}

/// The batch, and its dropout.
#[derive(CubeLaunch, CubeType)]
pub(super) struct Batch {
    pub tokens: usize,
    pub sequences: usize,
    /// The query's heads.
    pub heads: u32,
    /// How many of the query's heads share one of key and value.
    pub group: u32,
    /// The scores' factor.
    pub scale: f32,
    /// 1 where a token sees no later one, else 0.
    pub causal: u32,
    /// How many of the last tokens a token sees where it sees no later one, itself among them: at most as many as there are.
    pub window: u32,
    /// 1 where probabilities are dropped, else 0.
    pub drops: u32,
    pub mask: Mask,
}

/// Where the rows of a packed matrix lie in a buffer, in vectors.
#[derive(CubeLaunch, CubeType)]
pub(super) struct Place {
    /// The first row's first vector.
    pub start: usize,
    /// From a row to the next.
    pub stride: usize,
}

/// What a row of the batch sees.
#[derive(CubeType)]
pub(super) struct Seen {
    /// The row that it sees first.
    pub first: u32,
    /// The end of the rows that it sees.
    pub end: u32,
    /// The entry of a score lies at `mask + step * other row` in dropout's mask.
    pub mask: u32,
    pub step: u32,
    /// The most rows that a row of its sequence sees.
    pub most: u32,
}

/// The places of [`Seen`]'s numbers in shared memory, each for all rows of a tile.
pub(super) const FIRST: usize = 0;
pub(super) const END: usize = 1;
pub(super) const MASK: usize = 2;
pub(super) const STEP: usize = 3;
pub(super) const MOST: usize = 4;
pub(super) const FIELDS: usize = 5;

/// The sequence that a row belongs to.
#[cube]
pub(super) fn sequence_of<I: Int>(offsets: &[I], sequences: usize, row: usize) -> usize {
    let mut low = 0usize.runtime();
    let mut high = sequences;
    while high - low > 1 {
        let middle = (low + high) / 2;
        if usize::cast_from(offsets[middle]) <= row {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

/// The number of entries of a sequence's scores in one head.
#[cube]
pub(super) fn squared_length<I: Int>(offsets: &[I], sequence: usize) -> u32 {
    let length = u32::cast_from(offsets[sequence + 1]) - u32::cast_from(offsets[sequence]);
    length * length
}

/// What a row of a sequence sees in one of the query's heads. `entries` are those of the scores of the sequences before it, in one head.
/// `owns_keys` says that the row is a key, which queries see, and not a query.
#[cube]
pub(super) fn row_sees<I: Int>(
    offsets: &[I],
    batch: &Batch,
    row: usize,
    sequence: usize,
    head: u32,
    entries: u32,
    #[comptime] owns_keys: bool,
) -> Seen {
    let start = u32::cast_from(offsets[sequence]);
    let row = row as u32;
    let mut first = start;
    let mut end = u32::cast_from(offsets[sequence + 1]);
    let length = end - start;
    if batch.causal == 1 {
        if comptime!(owns_keys) {
            first = row;
            end = end.min(row + batch.window);
        } else {
            end = row + 1;
            first = first.max(end - end.min(batch.window));
        }
    }
    let mut mask = 0u32.runtime();
    let mut step = 0u32.runtime();
    if batch.drops == 1 {
        let matrix = batch.heads * entries + head * length * length;
        if comptime!(owns_keys) {
            mask = matrix - start * length + (row - start);
            step = length;
        } else {
            mask = matrix + (row - start) * length - start;
            step = 1u32.runtime();
        }
    }
    Seen {
        first,
        end,
        mask,
        step,
        most: length.min(batch.window),
    }
}

/// The factor of the gradients that pass through a row's scores, where a row of its sequence sees `most` rows at most. The score of a
/// token that sees only itself has the probability 1 whatever it is, and so no gradient; computed, it would be a difference of
/// rounding errors.
#[cube]
pub(super) fn score_factor(most: u32, batch: &Batch) -> f32 {
    select(most == 1u32, 0.0f32, batch.scale)
}

/// The shared memory of a cube.
#[derive(CubeType)]
pub(super) struct Memory<N: Size> {
    /// Two tiles of rows, a chunk at a time.
    left: Shared<[Vector<f32, N>]>,
    right: Shared<[Vector<f32, N>]>,
    /// A tile of scores, or of what is computed from them.
    pub weights: Shared<[f32]>,
    /// What each unit has found of each row.
    pub parts: Shared<[f32]>,
    /// What the tile's rows see: [`FIELDS`] numbers of each.
    pub seen: Shared<[u32]>,
    /// Parts of a sum over sequences.
    entries: Shared<[u32]>,
}

#[cube]
pub(super) fn memory<N: Size>(#[comptime] form: Form) -> Memory<N> {
    Memory::<N> {
        left: Shared::new_slice(comptime!(TILE * form.pitch())),
        right: Shared::new_slice(comptime!(TILE * form.pitch())),
        weights: Shared::new_slice(comptime!(TILE * PITCH)),
        parts: Shared::new_slice(comptime!(TILE * PARTS)),
        seen: Shared::new_slice(comptime!(FIELDS * TILE)),
        entries: Shared::new_slice(UNITS),
    }
}

/// Finds what the tile's rows see in one of the query's heads. `owns_keys` says that the rows are keys, which queries see, and not
/// queries. All units of a cube call it.
#[cube]
pub(super) fn find_seen<I: Int, N: Size>(
    memory: &mut Memory<N>,
    offsets: &[I],
    batch: &Batch,
    head: u32,
    #[comptime] owns_keys: bool,
) {
    let unit = UNIT_POS as usize;
    let first = CUBE_POS_X as usize * TILE;
    let before = sequence_of::<I>(offsets, batch.sequences, first);
    let mut part = 0u32.runtime();
    if batch.drops == 1 {
        let mut sequence = unit;
        while sequence < before {
            part += squared_length::<I>(offsets, sequence);
            sequence += UNITS;
        }
    }
    memory.entries[unit] = part;
    sync_cube();
    if unit < TILE {
        let row = first + unit;
        #[unroll]
        for field in 0..FIELDS {
            memory.seen[comptime!(field * TILE) + unit] = 0u32;
        }
        if row < batch.tokens {
            let sequence = sequence_of::<I>(offsets, batch.sequences, row);
            // The entries of the sequences before this one, in one head.
            let mut entries = 0u32.runtime();
            if batch.drops == 1 {
                for part in 0..UNITS {
                    entries += memory.entries[part];
                }
                for earlier in before..sequence {
                    entries += squared_length::<I>(offsets, earlier);
                }
            }
            let seen = row_sees::<I>(offsets, batch, row, sequence, head, entries, owns_keys);
            memory.seen[FIRST * TILE + unit] = seen.first;
            memory.seen[END * TILE + unit] = seen.end;
            memory.seen[MASK * TILE + unit] = seen.mask;
            memory.seen[STEP * TILE + unit] = seen.step;
            memory.seen[MOST * TILE + unit] = seen.most;
        }
    }
    sync_cube();
}

/// The row that the tile's rows see first. The same number in all units, which a loop with barriers in it needs.
#[cube]
pub(super) fn first_seen<N: Size>(memory: &Memory<N>) -> usize {
    workgroup_uniform_load(&memory.seen[FIRST * TILE]) as usize
}

/// The end of the rows that the tile's rows see: those of its last token.
#[cube]
pub(super) fn end_of_seen<N: Size>(memory: &Memory<N>, batch: &Batch) -> usize {
    let last = (batch.tokens - 1 - CUBE_POS_X as usize * TILE).min(TILE - 1);
    workgroup_uniform_load(&memory.seen[END * TILE + last]) as usize
}

/// Whether a row of the tile sees another row of the batch.
#[cube]
pub(super) fn is_visible<N: Size>(memory: &Memory<N>, row: usize, other: u32) -> bool {
    // Both are computed: a branch would cost more.
    (other >= memory.seen[FIRST * TILE + row]) & (other < memory.seen[END * TILE + row])
}

/// The entry of dropout's mask for a score of a row of the tile.
#[cube]
pub(super) fn mask_entry<N: Size>(
    memory: &Memory<N>,
    batch: &Batch,
    row: usize,
    other: u32,
) -> f32 {
    let step = memory.seen[STEP * TILE + row];
    batch
        .mask
        .entry(memory.seen[MASK * TILE + row] + step * other)
}

/// One head of a packed matrix in a buffer.
#[derive(CubeType)]
pub(super) struct Matrix<'a, N: Size> {
    values: &'a [Vector<f32, N>],
    start: usize,
    stride: usize,
}

#[cube]
pub(super) fn matrix<'a, N: Size>(
    values: &'a [Vector<f32, N>],
    rows: &Place,
    head: u32,
    #[comptime] form: Form,
) -> Matrix<'a, N> {
    Matrix::<'a, N> {
        values,
        start: rows.start + head as usize * form.vectors,
        stride: rows.stride,
    }
}

/// A tile of a matrix's rows: `first` is the first of them, and rows from `end` on are not read.
#[derive(CubeType)]
pub(super) struct Rows {
    first: usize,
    end: usize,
}

#[cube]
pub(super) fn rows(first: usize, end: usize) -> Rows {
    Rows { first, end }
}

/// Copies a chunk of a tile's rows to shared memory; rows from the end on are zeros.
#[cube]
fn load<N: Size>(
    tile: &mut Shared<[Vector<f32, N>]>,
    matrix: &Matrix<'_, N>,
    rows: &Rows,
    #[comptime] chunk: usize,
    #[comptime] form: Form,
) {
    let vectors = comptime!(form.vectors_of(chunk));
    let from = matrix.start + chunk * form.chunk;
    let mut place = UNIT_POS as usize;
    while place < TILE * vectors {
        let row = place / vectors;
        let vector = place % vectors;
        let mut value = Vector::<f32, N>::new(0.0f32);
        if rows.first + row < rows.end {
            value = matrix.values[from + (rows.first + row) * matrix.stride + vector];
        }
        tile[row * comptime!(form.pitch()) + vector] = value;
        place += UNITS;
    }
}

/// Copies rows of one chunk to where [`multiply`] finds them with `keeps_left`.
#[cube]
pub(super) fn keep_left<N: Size>(
    memory: &mut Memory<N>,
    a: &Matrix<'_, N>,
    a_rows: &Rows,
    #[comptime] form: Form,
) {
    load::<N>(&mut memory.left, a, a_rows, 0usize, form);
}

/// The products of each row of a tile with each of another: a unit's [`BLOCK`] x [`BLOCK`] of them in `products`.
#[cube]
pub(super) fn multiply<N: Size>(
    products: &mut Array<f32>,
    memory: &mut Memory<N>,
    a: &Matrix<'_, N>,
    a_rows: &Rows,
    b: &Matrix<'_, N>,
    b_rows: &Rows,
    #[comptime] keeps_left: bool,
    #[comptime] form: Form,
) {
    let unit = UNIT_POS as usize;
    let row = unit / SIDE;
    let column = unit % SIDE;
    #[unroll]
    for index in 0..BLOCK * BLOCK {
        products[index] = 0.0f32;
    }
    #[unroll]
    for chunk in 0..form.chunks() {
        // Nobody reads the last chunk any more.
        sync_cube();
        if comptime!(!keeps_left) {
            load::<N>(&mut memory.left, a, a_rows, chunk, form);
        }
        load::<N>(&mut memory.right, b, b_rows, chunk, form);
        sync_cube();
        for vector in 0..form.vectors_of(chunk) {
            let mut ours = Array::<Vector<f32, N>>::new(BLOCK);
            #[unroll]
            for i in 0..BLOCK {
                ours[i] = memory.left[(row + i * SIDE) * comptime!(form.pitch()) + vector];
            }
            #[unroll]
            for j in 0..BLOCK {
                let other = memory.right[(column + j * SIDE) * comptime!(form.pitch()) + vector];
                #[unroll]
                for i in 0..BLOCK {
                    products[i * BLOCK + j] += ours[i].dot(other);
                }
            }
        }
    }
}

/// Adds a tile of weights times rows to the sums: a unit has [`BLOCK`] rows of the sums and some columns of each chunk. The
/// weights are the memory's; the first thing that happens is that all units wait for them.
#[cube]
pub(super) fn accumulate<N: Size>(
    sums: &mut Array<Vector<f32, N>>,
    memory: &mut Memory<N>,
    b: &Matrix<'_, N>,
    b_rows: &Rows,
    #[comptime] form: Form,
) {
    let unit = UNIT_POS as usize;
    let row = unit / SIDE;
    let column = unit % SIDE;
    let count = (b_rows.end - b_rows.first).min(TILE);
    #[unroll]
    for chunk in 0..form.chunks() {
        sync_cube();
        load::<N>(&mut memory.right, b, b_rows, chunk, form);
        sync_cube();
        for other in 0..count {
            let mut factors = Array::<Vector<f32, N>>::new(BLOCK);
            #[unroll]
            for i in 0..BLOCK {
                factors[i] =
                    Vector::<f32, N>::new(memory.weights[(row + i * SIDE) * PITCH + other]);
            }
            #[unroll]
            for own in 0..form.columns() {
                let value = memory.right[other * comptime!(form.pitch()) + column + own * SIDE];
                #[unroll]
                for i in 0..BLOCK {
                    let place = comptime!((chunk * form.columns() + own) * BLOCK + i);
                    sums[place] += value * factors[i];
                }
            }
        }
    }
}

/// Writes the rows of the sums to a head, each times a factor of its own.
#[cube]
pub(super) fn write<N: Size>(
    output: &mut [Vector<f32, N>],
    rows: &Place,
    sums: &Array<Vector<f32, N>>,
    factors: &Array<f32>,
    batch: &Batch,
    head: u32,
    #[comptime] form: Form,
) {
    let unit = UNIT_POS as usize;
    let row = unit / SIDE;
    let column = unit % SIDE;
    #[unroll]
    for i in 0..BLOCK {
        let token = CUBE_POS_X as usize * TILE + row + i * SIDE;
        if token < batch.tokens {
            let from = rows.start + token * rows.stride + head as usize * form.vectors;
            #[unroll]
            for chunk in 0..form.chunks() {
                #[unroll]
                for own in 0..form.columns() {
                    let vector = comptime!(chunk * form.chunk + own * SIDE) + column;
                    if vector < form.vectors {
                        let place = comptime!((chunk * form.columns() + own) * BLOCK + i);
                        output[from + vector] = sums[place] * Vector::<f32, N>::new(factors[i]);
                    }
                }
            }
        }
    }
}

//! The scores of relative positions, which DeBERTa's disentangled attention adds to those of the tokens (arXiv 2006.03654,
//! equation 4).
//!
//! A table has a row for each distance `key's place - query's place`, from `-(longest - 1)` to `longest - 1`. With `K'` the
//! table of keys and `Q'` that of queries, and `q` and `k` the places of two tokens of a sequence:
//!
//! ```text
//! S[q, k] = scale (Q[q] · K[k] + Q[q] · K'[k - q] + K[k] · Q'[k - q])
//! ```
//!
//! Each token is multiplied with all rows of a table that its sequence needs, `2 length - 1` of them. A row of the
//! result has the scores of all keys side by side, and begins one place earlier than the row before it, so that slices of
//! a longer row's memory move it into place (the skewing of arXiv 1809.04281).

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, ExtensionType, TensorMetadata};
use burn::tensor::{Shape, Slice};

use crate::ops::optional::Optional;

/// Keys and queries of relative positions, each `[2 * longest - 1, heads * head_dim]`: row `longest - 1 + distance` belongs
/// to a key that stands `distance` places after the query. `longest` is at least the length of the longest sequence.
#[derive(Clone, Debug, ExtensionType)]
#[extension_type(fusion: cfg(feature = "cube"))]
pub struct RelativeTables<B: Backend> {
    /// What queries are multiplied with (content to position).
    #[extension_type]
    pub keys: Optional<B>,
    /// What keys are multiplied with (position to content).
    #[extension_type]
    pub queries: Optional<B>,
}

impl<B: Backend> RelativeTables<B> {
    /// The keys, then the queries.
    pub(in crate::ops) fn into_options(self) -> [Option<FloatTensor<B>>; 2] {
        [self.keys.into_option(), self.queries.into_option()]
    }
}

impl<B: Backend> From<[Option<FloatTensor<B>>; 2]> for RelativeTables<B> {
    fn from([keys, queries]: [Option<FloatTensor<B>>; 2]) -> Self {
        Self {
            keys: keys.into(),
            queries: queries.into(),
        }
    }
}

/// The sides of `[count, heads, length, head_dim]`.
fn sides<B: Backend>(rectangle: &FloatTensor<B>) -> [usize; 4] {
    let shape = rectangle.shape();
    [shape[0], shape[1], shape[2], shape[3]]
}

/// `[count, heads, length, columns]` as `[heads, count * length, columns]`.
fn by_heads<B: Backend>(rectangle: FloatTensor<B>) -> FloatTensor<B> {
    let [count, heads, length, columns] = sides::<B>(&rectangle);
    B::float_reshape(
        B::float_permute(rectangle, &[1, 0, 2, 3]),
        Shape::from([heads, count * length, columns]),
    )
}

/// The way back.
fn by_sequences<B: Backend>(
    stacked: FloatTensor<B>,
    [count, length]: [usize; 2],
) -> FloatTensor<B> {
    let shape = stacked.shape();
    let [heads, columns] = [shape[0], shape[2]];
    B::float_permute(
        B::float_reshape(stacked, Shape::from([heads, count, length, columns])),
        &[1, 0, 2, 3],
    )
}

/// The first of a table's rows that sequences of this length read.
fn first_row<B: Backend>(table: &FloatTensor<B>, length: usize) -> usize {
    let longest = table.shape()[0].div_ceil(2);
    assert!(
        length <= longest,
        "a sequence of {length} tokens, and relative positions for {longest}"
    );
    longest - length
}

/// The rows of a table that sequences of this length read: `[heads, 2 * length - 1, head_dim]`. In the order of
/// distances, or in the opposite one.
fn rows_of<B: Backend>(
    table: &FloatTensor<B>,
    heads: usize,
    length: usize,
    backward: bool,
) -> FloatTensor<B> {
    let (width, rows) = (table.shape()[1], 2 * length - 1);
    let first = first_row::<B>(table, length);
    let slices = [Slice::from(first..first + rows), Slice::from(0..width)];
    let seen = B::float_slice(table.clone(), &slices);
    let seen = if backward {
        B::float_flip(seen, &[0])
    } else {
        seen
    };
    let apart = B::float_reshape(seen, Shape::from([rows, heads, width / heads]));
    B::float_permute(apart, &[1, 0, 2])
}

/// Gradients of what [`rows_of`] made, with zeros for the table's other rows.
fn whole_table<B: Backend>(
    table: &FloatTensor<B>,
    gradient: FloatTensor<B>,
    length: usize,
    backward: bool,
) -> FloatTensor<B> {
    let (width, rows) = (table.shape()[1], 2 * length - 1);
    let gradient = B::float_permute(gradient, &[1, 0, 2]);
    let gradient = B::float_reshape(gradient, Shape::from([rows, width]));
    let gradient = if backward {
        B::float_flip(gradient, &[0])
    } else {
        gradient
    };
    let first = first_row::<B>(table, length);
    padded::<B>(gradient, 0, first, first)
}

/// Zeros before and after a tensor's elements along one side.
fn padded<B: Backend>(
    tensor: FloatTensor<B>,
    side: usize,
    before: usize,
    after: usize,
) -> FloatTensor<B> {
    let (device, dtype) = (tensor.device(), tensor.dtype());
    let zeros = |count: usize| {
        let mut shape = tensor.shape();
        shape[side] = count;
        B::float_zeros(shape, &device, dtype.into())
    };
    let (before, after) = (
        (before > 0).then(|| zeros(before)),
        (after > 0).then(|| zeros(after)),
    );
    if before.is_none() && after.is_none() {
        return tensor;
    }
    let parts = before.into_iter().chain([tensor]).chain(after);
    B::float_cat(parts.collect(), side)
}

/// Column `length - 1 - row + place` of each row moves to column `place`: `[matrices, length, 2 * length - 1]` to
/// `[matrices, length, length]`.
fn skewed<B: Backend>(bands: FloatTensor<B>, length: usize) -> FloatTensor<B> {
    let matrices = bands.shape()[0];
    if length == 1 {
        return bands;
    }
    let [wide, narrow] = [2 * length - 1, 2 * length - 2];
    let flat = B::float_reshape(bands, Shape::from([matrices, length * wide]));
    let from = length - 1;
    let slices = [
        Slice::from(0..matrices),
        Slice::from(from..from + length * narrow),
    ];
    let rows = B::float_slice(flat, &slices);
    let rows = B::float_reshape(rows, Shape::from([matrices, length, narrow]));
    let slices = [
        Slice::from(0..matrices),
        Slice::from(0..length),
        Slice::from(0..length),
    ];
    B::float_slice(rows, &slices)
}

/// The way back, with zeros in the columns that [`skewed`] leaves out.
fn unskewed<B: Backend>(scores: FloatTensor<B>, length: usize) -> FloatTensor<B> {
    let matrices = scores.shape()[0];
    if length == 1 {
        return scores;
    }
    let [wide, narrow] = [2 * length - 1, 2 * length - 2];
    let rows = padded::<B>(scores, 2, 0, narrow - length);
    let flat = B::float_reshape(rows, Shape::from([matrices, length * narrow]));
    let flat = padded::<B>(flat, 1, length - 1, 1);
    B::float_reshape(flat, Shape::from([matrices, length, wide]))
}

/// The products of tokens with the rows of a table, moved into place: `[count, heads, length, length]`, where the tokens
/// are the rows.
fn products<B: Backend>(
    tokens: &FloatTensor<B>,
    table: &FloatTensor<B>,
    backward: bool,
) -> FloatTensor<B> {
    let [count, heads, length, _] = sides::<B>(tokens);
    let seen = rows_of::<B>(table, heads, length, backward);
    let bands = B::float_matmul(by_heads::<B>(tokens.clone()), B::float_transpose(seen));
    let shape = Shape::from([heads * count, length, 2 * length - 1]);
    let scores = skewed::<B>(B::float_reshape(bands, shape), length);
    let shape = Shape::from([heads, count * length, length]);
    by_sequences::<B>(B::float_reshape(scores, shape), [count, length])
}

/// The gradients of the tokens and of the table, from that of [`products`].
fn product_gradients<B: Backend>(
    tokens: &FloatTensor<B>,
    table: &FloatTensor<B>,
    d_scores: FloatTensor<B>,
    backward: bool,
) -> [FloatTensor<B>; 2] {
    let [count, heads, length, _] = sides::<B>(tokens);
    let d_scores = by_heads::<B>(d_scores);
    let shape = Shape::from([heads * count, length, length]);
    let bands = unskewed::<B>(B::float_reshape(d_scores, shape), length);
    let shape = Shape::from([heads, count * length, 2 * length - 1]);
    let bands = B::float_reshape(bands, shape);
    let seen = rows_of::<B>(table, heads, length, backward);
    let d_tokens = B::float_matmul(bands.clone(), seen);
    let d_seen = B::float_matmul(B::float_transpose(bands), by_heads::<B>(tokens.clone()));
    [
        by_sequences::<B>(d_tokens, [count, length]),
        whole_table::<B>(table, d_seen, length, backward),
    ]
}

/// What the tables add to the scores of sequences of equal length, without the factor: `[count, heads, length, length]`.
/// Query and key: `[count, heads, length, head_dim]`.
pub(super) fn scores<B: Backend>(
    query: &FloatTensor<B>,
    key: &FloatTensor<B>,
    tables: &[Option<FloatTensor<B>>; 2],
) -> Option<FloatTensor<B>> {
    let [keys, queries] = tables;
    let to_positions = keys
        .as_ref()
        .map(|table| products::<B>(query, table, false));
    // A key's row has the scores of all queries, which is the transpose, and its distances fall from left to right.
    let to_tokens = queries
        .as_ref()
        .map(|table| B::float_transpose(products::<B>(key, table, true)));
    match (to_positions, to_tokens) {
        (Some(a), Some(b)) => Some(B::float_add(a, b)),
        (a, b) => a.or(b),
    }
}

/// The gradients of query, key and the two tables.
pub(super) struct Gradients<B: Backend> {
    pub query: Option<FloatTensor<B>>,
    pub key: Option<FloatTensor<B>>,
    pub tables: [Option<FloatTensor<B>>; 2],
}

/// The gradients from that of [`scores`].
pub(super) fn gradients<B: Backend>(
    query: &FloatTensor<B>,
    key: &FloatTensor<B>,
    tables: &[Option<FloatTensor<B>>; 2],
    d_scores: &FloatTensor<B>,
) -> Gradients<B> {
    let [keys, queries] = tables;
    let of_keys = keys
        .as_ref()
        .map(|table| product_gradients::<B>(query, table, d_scores.clone(), false));
    let of_queries = queries.as_ref().map(|table| {
        product_gradients::<B>(key, table, B::float_transpose(d_scores.clone()), true)
    });
    let (query, d_keys) = of_keys.map(|[tokens, table]| (tokens, table)).unzip();
    let (key, d_queries) = of_queries.map(|[tokens, table]| (tokens, table)).unzip();
    Gradients {
        query,
        key,
        tables: [d_keys, d_queries],
    }
}

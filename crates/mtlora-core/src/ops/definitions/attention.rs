//! Attention within the sequences of a packed batch.
//!
//! Consecutive sequences of equal length are one rectangle, so no entry of a score matrix belongs
//! to padding. With `S = scale Q Kᵀ`, `P = softmax(S)`, `M = P * keep`, `O = M V`:
//!
//! ```text
//! dV = Mᵀ dO     dP = (dO Vᵀ) * keep     dS = P * (dP - rowsum(P * dP))
//! dQ = scale dS K     dK = scale dSᵀ Q
//! ```
//!
//! The backward pass computes `P` again from `Q` and `K` rather than keep it.
//!
//! Key and value may have fewer heads than the query (grouped-query attention, arXiv 2305.13245): groups of
//! consecutive query heads share one of theirs, and the gradients of a group are added up.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, ExtensionType, Scalar, TensorMetadata, get_or_init_device_settings};
use burn::tensor::{Shape, Slice};

use super::activation_dtype::ActivationDtype;
use super::dropout::SeededDropout;
use super::relative_attention;
use crate::ops::backend::MtLoraBackend;
use crate::ops::optional::{Optional, OptionalInt};
use crate::sequence_offsets::{EqualLengthRun, SequenceOffsets};

/// The operation's tensors; [`MtLoraBackend::segment_attention`](crate::ops::MtLoraBackend::segment_attention) has the shapes.
#[derive(Clone, Debug)]
pub(in crate::ops) struct Inputs<T> {
    pub query: T,
    pub key: T,
    pub value: T,
    pub keep: Option<T>,
    /// The tables of relative positions: keys, then queries.
    pub tables: [Option<T>; 2],
}

impl<T> Inputs<T> {
    pub(in crate::ops) fn new(query: T, key: T, value: T, keep: Option<T>) -> Self {
        Self {
            query,
            key,
            value,
            keep,
            tables: [None, None],
        }
    }
}

/// What attention reads beside query, key and value. It gets no gradient.
#[derive(Clone, Debug, ExtensionType)]
#[extension_type(fusion: cfg(feature = "cube"))]
pub struct AttentionConstants<B: Backend> {
    /// A dropout's mask, 0 or `1 / (1 - p)`, where it was drawn: `[heads * sum of squared lengths]`, sequence after
    /// sequence, and head after head in each.
    #[extension_type]
    pub keep: Optional<B>,
    /// [`AttentionLayout::offsets`] on the device: `[sequences + 1]`. Given where the backend's kernels read it,
    /// [`Capabilities::reads_offsets`](crate::Capabilities::reads_offsets).
    #[extension_type]
    pub offsets: OptionalInt<B>,
}

/// What the backward pass reads of the forward pass, where a kernel has left it.
#[derive(Clone, Debug, ExtensionType)]
#[extension_type(fusion: cfg(feature = "cube"))]
pub enum AttentionForward<B: Backend> {
    /// From [`MtLoraBackend::segment_attention_and_log_sum_exp`](crate::ops::MtLoraBackend::segment_attention_and_log_sum_exp).
    Kept {
        /// The operation's output: `[tokens, heads * head_dim]`.
        output: FloatTensor<B>,
        /// Of each row's scores: `[tokens, heads]`.
        log_sum_exp: FloatTensor<B>,
    },
    /// The backward pass computes it again.
    Absent,
}

/// How attention divides a packed batch into sequences and heads.
#[derive(Clone, Debug)]
pub struct AttentionLayout {
    /// Where each sequence begins.
    pub offsets: SequenceOffsets,
    /// The query's heads, side by side in a row. Key and value have as many or fewer, of the same width;
    /// how many follows from the width of their rows ([`Self::key_value_heads`]).
    pub heads: usize,
    /// The scores' factor: usually `1 / sqrt(head_dim)`.
    pub scale: f64,
    /// Whether a token sees only itself and those before it.
    pub causal: bool,
    /// How many of the last tokens a token sees, itself among them: at least 1. All where it is absent. Only with `causal`.
    pub window: Option<usize>,
    /// Dropout on the probabilities, whose mask has an entry for each score: sequence after sequence, and head after
    /// head in each.
    pub dropout: Option<SeededDropout>,
    /// How query, key and value are kept for the backward pass. With bfloat16, products may round their factors to it in
    /// both passes.
    pub saved: ActivationDtype,
}

impl AttentionLayout {
    /// How many heads key and value have, where rows of the query have `query` elements and theirs `key`.
    pub(in crate::ops) fn key_value_heads(&self, query: usize, key: usize) -> usize {
        let head_dim = query.checked_div(self.heads).unwrap_or(0);
        key.checked_div(head_dim).unwrap_or(self.heads)
    }
}

/// One run of sequences of equal length as rectangles `[count, heads, length, head_dim]`, and its probabilities.
struct Block<B: Backend> {
    query: FloatTensor<B>,
    /// Each head as often as heads of the query share it, as `value`'s.
    key: FloatTensor<B>,
    value: FloatTensor<B>,
    /// `P`: `[count, heads, length, length]`.
    probabilities: FloatTensor<B>,
    /// A mask that was drawn: `[count, heads, length, length]`.
    keep: Option<FloatTensor<B>>,
    /// The dropout whose mask begins with this block's first entry.
    dropout: Option<SeededDropout>,
}

impl<B: MtLoraBackend> Block<B> {
    fn new(
        inputs: &Inputs<FloatTensor<B>>,
        layout: &AttentionLayout,
        run: EqualLengthRun,
        entry: usize,
    ) -> Self {
        let heads = layout.heads;
        let key_value_heads =
            layout.key_value_heads(inputs.query.shape()[1], inputs.key.shape()[1]);
        let query = rectangle::<B>(&inputs.query, heads, run);
        let key = repeated::<B>(rectangle::<B>(&inputs.key, key_value_heads, run), heads);
        let value = repeated::<B>(rectangle::<B>(&inputs.value, key_value_heads, run), heads);
        let mut scores = B::float_matmul(query.clone(), B::float_transpose(key.clone()));
        if let Some(relative) = relative_attention::scores::<B>(&query, &key, &inputs.tables) {
            scores = B::float_add(scores, relative);
        }
        let mut scores = B::float_mul_scalar(scores, Scalar::from(layout.scale));
        if layout.causal {
            scores = without_unseen::<B>(scores, run.length, layout.window);
        }
        let shape = Shape::from([run.count, layout.heads, run.length, run.length]);
        let keep = inputs.keep.as_ref().map(|keep| {
            let end = entry + shape.num_elements();
            let slice = B::float_slice(keep.clone(), &[Slice::from(entry..end)]);
            B::float_reshape(slice, shape)
        });
        Self {
            query,
            key,
            value,
            probabilities: B::softmax(scores, 3),
            keep,
            dropout: layout.dropout.map(|dropout| dropout.starting_at(entry)),
        }
    }

    /// `M`.
    fn kept(&self) -> FloatTensor<B> {
        self.times_keep(self.probabilities.clone())
    }

    /// An entry for each score, times its entry of `keep`.
    fn times_keep(&self, scores: FloatTensor<B>) -> FloatTensor<B> {
        let scores = match &self.keep {
            Some(keep) => B::float_mul(scores, keep.clone()),
            None => scores,
        };
        match self.dropout {
            Some(dropout) => B::seeded_dropout(scores, dropout),
            None => scores,
        }
    }
}

/// Rows of `[tokens, heads * head_dim]` as `[count, heads, length, head_dim]`.
fn rectangle<B: Backend>(
    packed: &FloatTensor<B>,
    heads: usize,
    run: EqualLengthRun,
) -> FloatTensor<B> {
    let [tokens, width] = [packed.shape()[0], packed.shape()[1]];
    let rows = if run.count * run.length == tokens {
        packed.clone()
    } else {
        let slices = [Slice::from(run.start..run.end()), Slice::from(0..width)];
        B::float_slice(packed.clone(), &slices)
    };
    let shape = [run.count, run.length, heads, width / heads];
    B::float_permute(B::float_reshape(rows, Shape::from(shape)), &[0, 2, 1, 3])
}

/// `[count, key-value heads, length, head_dim]` with each head as often as heads of the query share it: `[count, heads,
/// length, head_dim]`.
fn repeated<B: Backend>(rectangle: FloatTensor<B>, heads: usize) -> FloatTensor<B> {
    let shape = rectangle.shape();
    let [count, own, length, head_dim] = [shape[0], shape[1], shape[2], shape[3]];
    if own == heads {
        return rectangle;
    }
    let apart = Shape::from([count, own, 1, length, head_dim]);
    let repeated = Shape::from([count, own, heads / own, length, head_dim]);
    let repeated = B::float_expand(B::float_reshape(rectangle, apart), repeated);
    B::float_reshape(repeated, Shape::from([count, heads, length, head_dim]))
}

/// The way back for gradients: the sums over the heads that share one.
fn summed<B: Backend>(gradients: FloatTensor<B>, own: usize) -> FloatTensor<B> {
    let shape = gradients.shape();
    let [count, heads, length, head_dim] = [shape[0], shape[1], shape[2], shape[3]];
    if own == heads {
        return gradients;
    }
    let apart = Shape::from([count, own, heads / own, length, head_dim]);
    let sums = B::float_sum_dim(B::float_reshape(gradients, apart), 2);
    B::float_reshape(sums, Shape::from([count, own, length, head_dim]))
}

/// The way back: `[count, heads, length, head_dim]` as rows of the batch.
fn rows<B: Backend>(rectangle: FloatTensor<B>) -> FloatTensor<B> {
    let shape = rectangle.shape();
    let [count, heads, length, head_dim] = [shape[0], shape[1], shape[2], shape[3]];
    B::float_reshape(
        B::float_permute(rectangle, &[0, 2, 1, 3]),
        Shape::from([count * length, heads * head_dim]),
    )
}

/// The scores, `[count, heads, length, length]`, with minus infinity where a column lies after its row, or before the
/// `window` columns that end with it. The masks are made on the device: nothing is uploaded.
fn without_unseen<B: Backend>(
    scores: FloatTensor<B>,
    length: usize,
    window: Option<usize>,
) -> FloatTensor<B> {
    let device = scores.device();
    let dtypes = get_or_init_device_settings::<B>(&device);
    let places = B::int_arange(0..length as i64, &device, dtypes.int_dtype);
    let along = |shape: [usize; 4]| {
        let places = B::int_reshape(places.clone(), Shape::from(shape));
        B::int_expand(places, Shape::from([1, 1, length, length]))
    };
    let (row, column) = (along([1, 1, length, 1]), along([1, 1, 1, length]));
    let without = |scores: FloatTensor<B>, hidden| {
        let hidden = B::bool_expand(hidden, scores.shape());
        B::float_mask_fill(scores, hidden, Scalar::from(f32::NEG_INFINITY))
    };
    let later = B::int_lower(row.clone(), column.clone(), dtypes.bool_dtype);
    let scores = without(scores, later);
    match window.filter(|window| *window < length) {
        Some(window) => {
            let ends = B::int_add_scalar(column, Scalar::from(window as i64 - 1));
            without(scores, B::int_lower(ends, row, dtypes.bool_dtype))
        }
        None => scores,
    }
}

fn join<B: Backend>(mut runs: Vec<FloatTensor<B>>) -> FloatTensor<B> {
    match runs.len() {
        1 => runs.remove(0),
        _ => B::float_cat(runs, 0),
    }
}

/// The blocks of the batch, one at a time, so that no more than one run's scores are held.
fn blocks<B: MtLoraBackend>(
    inputs: &Inputs<FloatTensor<B>>,
    layout: &AttentionLayout,
) -> impl Iterator<Item = Block<B>> {
    let mut entry = 0;
    layout.offsets.runs().into_iter().map(move |run| {
        let block = Block::new(inputs, layout, run, entry);
        entry += run.count * layout.heads * run.length * run.length;
        block
    })
}

pub(in crate::ops) fn forward<B: MtLoraBackend>(
    inputs: Inputs<FloatTensor<B>>,
    layout: &AttentionLayout,
) -> FloatTensor<B> {
    let outputs = blocks::<B>(&inputs, layout)
        .map(|block| rows::<B>(B::float_matmul(block.kept(), block.value)))
        .collect();
    join::<B>(outputs)
}

/// The gradients of query, key and value.
pub(in crate::ops) fn backward<B: MtLoraBackend>(
    inputs: &Inputs<FloatTensor<B>>,
    dy: FloatTensor<B>,
    layout: &AttentionLayout,
) -> [FloatTensor<B>; 3] {
    gradients::<B>(inputs, dy, layout).0
}

/// The gradients of query, key and value, and of the tables of relative positions that there are.
pub(in crate::ops) fn gradients<B: MtLoraBackend>(
    inputs: &Inputs<FloatTensor<B>>,
    dy: FloatTensor<B>,
    layout: &AttentionLayout,
) -> ([FloatTensor<B>; 3], [Option<FloatTensor<B>>; 2]) {
    let scaled = |tensor| B::float_mul_scalar(tensor, Scalar::from(layout.scale));
    let own = layout.key_value_heads(inputs.query.shape()[1], inputs.key.shape()[1]);
    let (mut dq, mut dk, mut dv) = (Vec::new(), Vec::new(), Vec::new());
    let mut d_tables = [None, None];
    for (run, block) in layout
        .offsets
        .runs()
        .into_iter()
        .zip(blocks::<B>(inputs, layout))
    {
        let d_out = rectangle::<B>(&dy, layout.heads, run);
        let kept = B::float_transpose(block.kept());
        let d_value = B::float_matmul(kept, d_out.clone());
        dv.push(rows::<B>(summed::<B>(d_value, own)));
        let dp = B::float_matmul(d_out, B::float_transpose(block.value.clone()));
        let dp = block.times_keep(dp);
        let weighted = B::float_mul(block.probabilities.clone(), dp);
        let row_sums = B::float_sum_dim(weighted.clone(), 3);
        // P * dP - P * rowsum(P * dP)
        let ds = scaled(B::float_sub(
            weighted,
            B::float_mul(block.probabilities, row_sums),
        ));
        let (query, key) = (&block.query, &block.key);
        let relative = relative_attention::gradients::<B>(query, key, &inputs.tables, &ds);
        let d_query = B::float_matmul(ds.clone(), block.key);
        let d_query = sum_of::<B>(d_query, relative.query);
        let d_key = B::float_matmul(B::float_transpose(ds), block.query);
        let d_key = sum_of::<B>(d_key, relative.key);
        dq.push(rows::<B>(d_query));
        dk.push(rows::<B>(summed::<B>(d_key, own)));
        for (sum, part) in d_tables.iter_mut().zip(relative.tables) {
            *sum = match (sum.take(), part) {
                (Some(sum), part) => Some(sum_of::<B>(sum, part)),
                (None, part) => part,
            };
        }
    }
    ([dq, dk, dv].map(join::<B>), d_tables)
}

fn sum_of<B: Backend>(a: FloatTensor<B>, b: Option<FloatTensor<B>>) -> FloatTensor<B> {
    match b {
        Some(b) => B::float_add(a, b),
        None => a,
    }
}

/// Query, key and value of a tensor that has them side by side: `[tokens, 3 * width]` becomes three of
/// `[tokens, width]`.
pub(in crate::ops) fn parts<B: Backend>(fused: FloatTensor<B>) -> [FloatTensor<B>; 3] {
    let [tokens, width] = [fused.shape()[0], fused.shape()[1] / 3];
    [0, 1, 2].map(|part| {
        let columns = part * width..(part + 1) * width;
        B::float_slice(
            fused.clone(),
            &[Slice::from(0..tokens), Slice::from(columns)],
        )
    })
}

/// The shape of attention's output, from that of query, key and value side by side.
#[cfg(feature = "cube")]
pub(in crate::ops) fn output_shape(fused: &Shape) -> Shape {
    Shape::from([fused[0], fused[1] / 3])
}

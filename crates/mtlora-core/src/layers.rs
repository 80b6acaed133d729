use burn::backend::Dispatch;
use burn::module::Param;
use burn::nn::{Dropout, Embedding, Linear};
use burn::tensor::{DType, Device, Distribution, FloatDType, Int, Tensor};

use crate::adapter::action::optional;
use crate::ops::{
    ActivationDtype, AttentionConstants, AttentionLayout, Gelu, MtLoraBackend, OptionalInt,
    RelativeTables, SeededDropout, capabilities,
};
use crate::{Adapter, Contexts, LinearInput, SequenceOffsets, random};

/// `linear` with its adapter, computed on the activations: `x W + b + scale ((x Aᵀ) Tᵀ) Bᵀ`.
///
/// The dense update is never made, and the frozen weight gets no gradient. A layer without an
/// adapter is a plain linear map; one whose base trains takes Burn's own way.
///
/// # Shapes
/// - `x`: `[..., in]`
/// - output: `[..., out]`
pub fn adapted_linear<const D: usize>(linear: &Linear, x: Tensor<D>) -> Tensor<D> {
    let adapter = linear.weight.reparameterization::<Adapter>();
    // Without an adapter of ours, `val` is the weight as it acts, whatever else hangs on it.
    let weight = match adapter {
        Some(_) => linear.weight.base(),
        None => linear.weight.val(),
    };
    if D < 2 || adapter.is_some() && weight.is_require_grad() {
        return linear.forward(x);
    }
    let mut shape = x.dims();
    let x: Tensor<2> = x.flatten(0, D - 2);
    let bias = linear.bias.as_ref().map(Param::val);
    let Some(adapter) = adapter else {
        let x = x.into_dispatch();
        let y = <Dispatch as MtLoraBackend>::mixed_linear(x, weight.into(), optional(bias));
        let y = Tensor::<2>::from_dispatch(y);
        shape[D - 1] = y.dims()[1];
        return y.reshape(shape);
    };
    let dropped = drops(&adapter.dropout, &x).then(|| dropout(&adapter.dropout, x.clone()));
    let input = LinearInput {
        x,
        dropped,
        weight,
        bias,
    };
    let y = adapter.form.method.linear(adapter.update(), input);
    shape[D - 1] = y.dims()[1];
    y.reshape(shape)
}

/// `embedding` with its adapter, computed on the rows that are looked up:
/// `W[ids] + scale (Aᵀ[ids] Tᵀ) Bᵀ`.
///
/// # Shapes
/// - `ids`: `[tokens]`
/// - output: `[tokens, dim]`
pub fn adapted_embedding(embedding: &Embedding, ids: Tensor<1, Int>) -> Tensor<2> {
    let adapter = embedding.weight.reparameterization::<Adapter>();
    // Without an adapter of ours, `val` is the weight as it acts, whatever else hangs on it.
    let weight = match adapter {
        Some(_) => embedding.weight.base(),
        None => embedding.weight.val(),
    };
    let base = Tensor::<2>::from_dispatch(<Dispatch as MtLoraBackend>::select_rows(
        weight.into(),
        ids.clone().into_dispatch(),
    ));
    let base = match base.dtype() {
        DType::BF16 => base.cast(FloatDType::F32),
        _ => base,
    };
    let Some(adapter) = adapter else {
        return base;
    };
    adapter.form.method.embedding(adapter.update(), base, ids)
}

/// The heads of attention, and which tokens a token sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionForm {
    /// The query's heads.
    pub heads: usize,
    /// Whether a token sees no later one.
    pub causal: bool,
    /// How many of the last tokens a token sees, itself among them: at least 1. All where it is absent. It has no effect
    /// where attention is not `causal`.
    pub window: Option<usize>,
}

impl AttentionForm {
    /// A token sees its whole sequence.
    pub fn full(heads: usize) -> Self {
        Self {
            heads,
            causal: false,
            window: None,
        }
    }

    /// A token sees itself and those before it.
    pub fn causal(heads: usize) -> Self {
        Self {
            causal: true,
            ..Self::full(heads)
        }
    }
}

/// Scaled dot-product attention within each sequence of a packed batch:
/// `softmax(Q Kᵀ / sqrt(head_dim)) V`, per head, over the tokens that `form` lets a token see.
///
/// Key and value may have fewer heads than the query, if their number divides the query's: groups of consecutive query heads
/// then share one (grouped-query attention, arXiv 2305.13245). `dropout` acts on the attention probabilities while training.
/// `saved` says how query, key and value are kept for the backward pass; with [`ActivationDtype::Bf16`] the output may be
/// rounded, too.
///
/// # Shapes
/// - `query`, output: `[tokens, heads * head_dim]`
/// - `key`, `value`: `[tokens, key-value heads * head_dim]`
pub fn segment_attention(
    [query, key, value]: [Tensor<2>; 3],
    offsets: &SequenceOffsets,
    form: AttentionForm,
    dropout: &Dropout,
    saved: ActivationDtype,
) -> Tensor<2> {
    let heads = form.heads;
    let head_dim = query.dims()[1] / heads;
    let masked = masked(dropout, &query, heads * offsets.score_entries());
    let constants = constants(masked.drawn, offsets, &query.device());
    let layout = layout(offsets, form, head_dim, masked.seeded, saved);
    Tensor::from_dispatch(<Dispatch as MtLoraBackend>::segment_attention(
        query.into_dispatch(),
        key.into_dispatch(),
        value.into_dispatch(),
        constants,
        layout,
    ))
}

/// [`segment_attention`] on query, key and value that lie side by side, as one projection makes
/// them: the parts are not copied, and there is one gradient.
///
/// # Shapes
/// - `fused`: `[tokens, 3 * heads * head_dim]`
/// - output: `[tokens, heads * head_dim]`
pub fn fused_segment_attention(
    fused: Tensor<2>,
    offsets: &SequenceOffsets,
    heads: usize,
    causal: bool,
    dropout: &Dropout,
    saved: ActivationDtype,
) -> Tensor<2> {
    let head_dim = fused.dims()[1] / (3 * heads);
    let masked = masked(dropout, &fused, heads * offsets.score_entries());
    let constants = constants(masked.drawn, offsets, &fused.device());
    let form = AttentionForm {
        causal,
        ..AttentionForm::full(heads)
    };
    let layout = layout(offsets, form, head_dim, masked.seeded, saved);
    Tensor::from_dispatch(<Dispatch as MtLoraBackend>::fused_segment_attention(
        fused.into_dispatch(),
        constants,
        layout,
    ))
}

/// What relative positions add to the scores of [`relative_segment_attention`].
#[derive(Clone, Debug)]
pub struct RelativePositions {
    /// What queries are multiplied with (content to position): `[2 * longest - 1, heads * head_dim]`. Row
    /// `longest - 1 + distance` belongs to a key that stands `distance` places after the query; `longest` is at least the
    /// length of the longest sequence.
    pub keys: Option<Tensor<2>>,
    /// What keys are multiplied with (position to content): the same shape and order.
    pub queries: Option<Tensor<2>>,
    /// The factor of the sum of all scores: in DeBERTa `1 / sqrt((1 + tables) * head_dim)`.
    pub scale: f64,
}

/// Disentangled attention (DeBERTa, arXiv 2006.03654) within each sequence of a packed batch: as [`segment_attention`], with
/// the scores `scale (Q[q] · K[k] + Q[q] · keys[k - q] + K[k] · queries[k - q])` of a query at place `q` and a key at `k`.
/// Each distance has one row of the tables, so that what they add depends on no other sequence.
///
/// # Shapes
/// - `query`, output: `[tokens, heads * head_dim]`
/// - `key`, `value`: `[tokens, key-value heads * head_dim]`
///
/// # Panics
/// When a table has fewer rows than the longest sequence needs, or another width than the query.
pub fn relative_segment_attention(
    [query, key, value]: [Tensor<2>; 3],
    positions: RelativePositions,
    offsets: &SequenceOffsets,
    form: AttentionForm,
    dropout: &Dropout,
    saved: ActivationDtype,
) -> Tensor<2> {
    let [_, width] = query.dims();
    let longest = offsets.lengths().max().unwrap_or(1);
    for table in [&positions.keys, &positions.queries].into_iter().flatten() {
        let [rows, columns] = table.dims();
        assert!(
            rows % 2 == 1 && rows > 2 * (longest - 1) && columns == width,
            "relative positions of {:?} for sequences of up to {longest} tokens and queries of {width} elements",
            table.dims()
        );
    }
    let masked = masked(dropout, &query, form.heads * offsets.score_entries());
    let constants = constants(masked.drawn, offsets, &query.device());
    let mut layout = layout(offsets, form, width / form.heads, masked.seeded, saved);
    layout.scale = positions.scale;
    let tables = RelativeTables {
        keys: optional(positions.keys),
        queries: optional(positions.queries),
    };
    Tensor::from_dispatch(<Dispatch as MtLoraBackend>::relative_segment_attention(
        query.into_dispatch(),
        key.into_dispatch(),
        value.into_dispatch(),
        tables,
        constants,
        layout,
    ))
}

fn constants(
    keep: Option<Tensor<1>>,
    offsets: &SequenceOffsets,
    device: &Device,
) -> AttentionConstants<Dispatch> {
    let reads_offsets = capabilities(device).reads_offsets;
    let offsets = reads_offsets.then(|| offsets.on_device(device).into_dispatch());
    AttentionConstants {
        keep: optional(keep),
        offsets: OptionalInt::from(offsets),
    }
}

fn layout(
    offsets: &SequenceOffsets,
    form: AttentionForm,
    head_dim: usize,
    dropout: Option<SeededDropout>,
    saved: ActivationDtype,
) -> AttentionLayout {
    let AttentionForm {
        heads,
        causal,
        window,
    } = form;
    AttentionLayout {
        offsets: offsets.on_host(),
        heads,
        scale: 1.0 / (head_dim as f64).sqrt(),
        causal,
        window: window.filter(|_| causal).map(|window| window.max(1)),
        dropout,
        saved,
    }
}

/// Scaled dot-product attention of one new token a row over a key-value cache. Key and value may have fewer heads, as in
/// [`segment_attention`].
///
/// # Shapes
/// - `query`, output: `[rows, heads * head_dim]`
/// - `keys`, `values`: `[places, key-value heads * head_dim]`
pub fn cached_attention(
    query: Tensor<2>,
    [keys, values]: [Tensor<2>; 2],
    contexts: &Contexts,
    heads: usize,
) -> Tensor<2> {
    let head_dim = query.dims()[1] / heads;
    let device = query.device();
    let reads_places = capabilities(&device).reads_offsets;
    let places = reads_places.then(|| contexts.on_device(&device).into_dispatch());
    Tensor::from_dispatch(<Dispatch as MtLoraBackend>::cached_attention(
        query.into_dispatch(),
        keys.into_dispatch(),
        values.into_dispatch(),
        OptionalInt::from(places),
        contexts.on_host(),
        heads,
        1.0 / (head_dim as f64).sqrt(),
    ))
}

/// The Gaussian error linear unit of each element.
///
/// As [`burn::tensor::activation::gelu`] and `gelu_approximate`, with a kernel on flex and a
/// backward pass that saves nothing but `x`, in the precision of `saved`. The output does not depend on `saved`.
pub fn gelu<const D: usize>(x: Tensor<D>, form: Gelu, saved: ActivationDtype) -> Tensor<D> {
    let x = x.into_dispatch();
    Tensor::from_dispatch(<Dispatch as MtLoraBackend>::activate_gelu(x, form, saved))
}

/// Layer normalisation of each row: `(x - mean) / sqrt(variance + epsilon) * gamma + beta`.
///
/// As [`burn::nn::LayerNorm`], with a backward pass that saves nothing but `x`.
///
/// # Shapes
/// - `x`, output: `[rows, width]`
/// - `gamma`, `beta`: `[width]`
pub fn layer_norm(x: Tensor<2>, gamma: Tensor<1>, beta: Tensor<1>, epsilon: f64) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as MtLoraBackend>::normalize_rows(
        x.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        epsilon,
    ))
}

/// [`layer_norm`] of a residual connection: of the rows of `dropout(x) + residual`.
///
/// # Shapes
/// - `x`, `residual`, output: `[rows, width]`
/// - `gamma`, `beta`: `[width]`
pub fn residual_layer_norm(
    [x, residual]: [Tensor<2>; 2],
    module: &Dropout,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f64,
) -> Tensor<2> {
    if !capabilities(&x.device()).adds_and_normalizes {
        return layer_norm(dropout(module, x) + residual, gamma, beta, epsilon);
    }
    let [rows, width] = x.dims();
    let masked = masked(module, &x, rows * width);
    let x = match masked.drawn {
        Some(mask) => x * mask.reshape([rows, width]),
        None => x,
    };
    let (y, _) = <Dispatch as MtLoraBackend>::add_and_normalize_rows(
        x.into_dispatch(),
        residual.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        masked.seeded,
        epsilon,
    );
    Tensor::from_dispatch(y)
}

/// Root mean square normalisation of each row (arXiv 1910.07467): `x / sqrt(mean(x²) + epsilon) * gamma`.
///
/// # Shapes
/// - `x`, output: `[rows, width]`
/// - `gamma`: `[width]`
pub fn rms_norm(x: Tensor<2>, gamma: Tensor<1>, epsilon: f64) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as MtLoraBackend>::rms_normalize_rows(
        x.into_dispatch(),
        gamma.into_dispatch(),
        epsilon,
    ))
}

/// Rotary positions (arXiv 2104.09864): each head turned by the angles of its token. Coordinate `i` of a head goes with
/// coordinate `i + half`, as in Hugging Face's models.
///
/// # Shapes
/// - `x`, output: `[tokens, heads * 2 * half]`
/// - `cos`, `sin`, which are constants: `[tokens, half]`
pub fn rotate_heads(x: Tensor<2>, cos: Tensor<2>, sin: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as MtLoraBackend>::rotate_heads(
        x.into_dispatch(),
        cos.into_dispatch(),
        sin.into_dispatch(),
    ))
}

/// The element-wise part of a SwiGLU (arXiv 2002.05202): `gate * sigmoid(gate) * up`. `saved` says in which precision both
/// are kept for the backward pass; the output does not depend on it.
///
/// # Shapes
/// - `gate`, `up`, output: the same
pub fn swiglu<const D: usize>(gate: Tensor<D>, up: Tensor<D>, saved: ActivationDtype) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as MtLoraBackend>::swiglu(
        gate.into_dispatch(),
        up.into_dispatch(),
        saved,
    ))
}

/// Logits over the vocabulary, `hidden Eᵀ`, where the output map is the token embeddings: for decoding. On
/// an autodiff device they are Burn's own operations, unless the embeddings are packed; [`tied_cross_entropy`] is what trains.
///
/// # Shapes
/// - `hidden`: `[rows, hidden]`
/// - `embedding`: `[vocabulary, hidden]`
/// - output: `[rows, vocabulary]`
pub fn tied_logits(hidden: Tensor<2>, embedding: Tensor<2>) -> Tensor<2> {
    let hidden = hidden.into_dispatch();
    Tensor::from_dispatch(<Dispatch as MtLoraBackend>::mixed_linear_backward(
        hidden,
        embedding.into(),
    ))
}

/// The sum over rows of the cross-entropy between `hidden Eᵀ` and the targets. With label smoothing
/// `s`, a row's loss is `(1 - s) nll + s * mean over the vocabulary of -log p`.
///
/// The logits of all rows are never held at once, in either pass, and a frozen embedding gets no gradient.
///
/// # Shapes
/// - `hidden`: `[rows, hidden]`
/// - `embedding`: `[vocabulary, hidden]`
/// - `targets`: `[rows]`, each below the vocabulary's size, or [`IGNORE_INDEX`](crate::IGNORE_INDEX) in rows that
///   count nothing
/// - output: `[1]`
pub fn tied_cross_entropy(
    hidden: Tensor<2>,
    embedding: Tensor<2>,
    targets: Tensor<1, Int>,
    smoothing: f64,
) -> Tensor<1> {
    Tensor::from_dispatch(<Dispatch as MtLoraBackend>::tied_cross_entropy(
        hidden.into_dispatch(),
        embedding.into(),
        targets.into_dispatch(),
        smoothing,
    ))
}

/// Dropout: each element is zero with the module's probability, else divided by one minus it.
///
/// As [`Dropout::forward`]; [`seed`](crate::seed) says where the masks start. Where the device makes masks from seeds
/// ([`Capabilities::seeded_dropout`](crate::Capabilities::seeded_dropout)), the backward pass makes its mask again and
/// none is held.
pub fn dropout(dropout: &Dropout, x: Tensor<2>) -> Tensor<2> {
    let shape = x.dims();
    match masked(dropout, &x, shape[0] * shape[1]) {
        Masked {
            seeded: Some(seeded),
            ..
        } => {
            let x = x.into_dispatch();
            Tensor::from_dispatch(<Dispatch as MtLoraBackend>::seeded_dropout(x, seeded))
        }
        Masked {
            drawn: Some(mask), ..
        } => x * mask.reshape(shape),
        _ => x,
    }
}

/// A dropout's mask: by its seed, by its values, or none.
struct Masked {
    seeded: Option<SeededDropout>,
    /// `[entries]`
    drawn: Option<Tensor<1>>,
}

/// The mask of a dropout on `like`'s device: its seed where the device makes masks from seeds, else its drawn values.
fn masked(dropout: &Dropout, like: &Tensor<2>, entries: usize) -> Masked {
    let drops = drops(dropout, like);
    let from_seed = capabilities(&like.device()).seeded_dropout;
    // Counted on every device: one with a generator of its own starts each step from the count.
    let seed = drops.then(random::next);
    Masked {
        seeded: seed.filter(|_| from_seed).map(|seed| SeededDropout {
            prob: dropout.prob,
            seed,
        }),
        drawn: (drops && !from_seed).then(|| {
            let kept = Distribution::Bernoulli(1.0 - dropout.prob);
            Tensor::random([entries], kept, &like.device()).div_scalar(1.0 - dropout.prob)
        }),
    }
}

/// Whether dropout changes anything here; the condition of [`Dropout::forward`].
fn drops(dropout: &Dropout, x: &Tensor<2>) -> bool {
    dropout.prob > 0.0 && dropout.training.is_enabled() && x.device().is_autodiff()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use burn::module::{Lora, Module};
    use burn::nn::EmbeddingConfig;
    use burn::tensor::TensorData;

    use super::*;
    use crate::{load_state, state};

    /// Burn's own LoRA, whose factors are all nonzero here.
    #[test]
    fn other_reparameterizations_of_an_embedding_act() {
        let device = crate::devices().remove(0).device.autodiff();
        let plain = EmbeddingConfig::new(7, 5).init(&device);
        let embedding = plain.clone().apply_lora(Lora::new(2, 4.0));
        let values = state(&embedding, |path, _| path.contains("lora"))
            .into_iter()
            .map(|(path, old)| {
                let shape = old.shape().to_vec();
                let count: usize = shape.iter().product();
                let values: Vec<f32> = (0..count).map(|at| at as f32 / 3.0 - 1.0).collect();
                (path, TensorData::new(values, shape))
            })
            .collect();
        let embedding: Embedding = load_state(embedding, values).unwrap();
        let ids = Tensor::<1, Int>::from_data([3, 0, 6, 3], &device);
        let rows = |embedding: &Embedding| {
            let found = embedding.forward(ids.clone().unsqueeze_dim::<2>(0));
            found.squeeze_dim::<2>(0).into_data()
        };
        let found = adapted_embedding(&embedding, ids.clone()).into_data();
        assert_eq!(found, rows(&embedding));
        assert_ne!(found, rows(&plain));
    }
}

use burn::backend::Dispatch;
use burn::module::Param;
use burn::nn::{Dropout, Embedding, Linear};
use burn::tensor::{Int, Tensor};

use crate::ops::{AttentionLayout, Gelu, MtLoraBackend, Optional};
use crate::{Adapter, Contexts, Segments, random};

/// `linear` with its adapter, computed on the activations: `x W + b + scale ((x Aᵀ) Tᵀ) Bᵀ`.
///
/// The dense update is never made, and the frozen weight gets no gradient. A layer without an
/// adapter, or one whose base trains, takes Burn's own way.
///
/// # Shapes
/// - `x`: `[..., in]`
/// - output: `[..., out]`
pub fn adapted_linear<const D: usize>(linear: &Linear, x: Tensor<D>) -> Tensor<D> {
    let Some(adapter) = linear.weight.reparameterization::<Adapter>() else {
        return linear.forward(x);
    };
    let weight = linear.weight.base();
    if weight.is_require_grad() || D < 2 {
        return linear.forward(x);
    }
    let mut shape = x.dims();
    let x: Tensor<2> = x.flatten(0, D - 2);
    let dropped = drops(&adapter.dropout, &x).then(|| dropout(&adapter.dropout, x.clone()));
    let y = Tensor::<2>::from_dispatch(<Dispatch as MtLoraBackend>::adapted_linear(
        x.into_dispatch(),
        optional(dropped),
        weight.into_dispatch(),
        optional(linear.bias.as_ref().map(Param::val)),
        adapter.a.val().into_dispatch(),
        optional(adapter.transform()),
        adapter.up().into_dispatch(),
        adapter.form.scale,
    ));
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
    let base = embedding.weight.base().select(0, ids.clone());
    let Some(adapter) = embedding.weight.reparameterization::<Adapter>() else {
        return base;
    };
    let mut hidden = adapter.a.val().select(1, ids).transpose();
    if let Some(t) = adapter.transform() {
        hidden = hidden.matmul(t.transpose());
    }
    base + hidden
        .matmul(adapter.up().transpose())
        .mul_scalar(adapter.form.scale)
}

/// Scaled dot-product attention within each sequence of a strip:
/// `softmax(Q Kᵀ / sqrt(head_dim)) V`, per head; with `causal`, no token sees a later one.
///
/// `dropout` acts on the attention probabilities while training.
///
/// # Shapes
/// - `query`, `key`, `value`: `[tokens, heads * head_dim]`
/// - output: `[tokens, heads * head_dim]`
pub fn segment_attention(
    [query, key, value]: [Tensor<2>; 3],
    segments: &Segments,
    heads: usize,
    causal: bool,
    dropout: &Dropout,
) -> Tensor<2> {
    let keep = drops(dropout, &query)
        .then(|| dropout_mask(&query, heads * segments.score_entries(), dropout.prob));
    let head_dim = query.dims()[1] / heads;
    Tensor::from_dispatch(<Dispatch as MtLoraBackend>::segment_attention(
        query.into_dispatch(),
        key.into_dispatch(),
        value.into_dispatch(),
        optional(keep),
        AttentionLayout {
            segments: segments.clone(),
            heads,
            scale: 1.0 / (head_dim as f64).sqrt(),
            causal,
        },
    ))
}

/// Scaled dot-product attention of one new token a row over a key-value cache.
///
/// # Shapes
/// - `query`, output: `[rows, heads * head_dim]`
/// - `keys`, `values`: `[places, heads * head_dim]`
pub fn cached_attention(
    query: Tensor<2>,
    [keys, values]: [Tensor<2>; 2],
    contexts: &Contexts,
    heads: usize,
) -> Tensor<2> {
    let head_dim = query.dims()[1] / heads;
    Tensor::from_dispatch(<Dispatch as MtLoraBackend>::cached_attention(
        query.into_dispatch(),
        keys.into_dispatch(),
        values.into_dispatch(),
        contexts.clone(),
        heads,
        1.0 / (head_dim as f64).sqrt(),
    ))
}

/// The Gaussian error linear unit of each element.
///
/// As [`burn::tensor::activation::gelu`] and `gelu_approximate`, with a kernel on a CPU and a
/// backward pass that saves nothing but `x`.
pub fn gelu<const D: usize>(x: Tensor<D>, form: Gelu) -> Tensor<D> {
    let x = x.into_dispatch();
    Tensor::from_dispatch(<Dispatch as MtLoraBackend>::activate_gelu(x, form))
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

/// The sum over rows of the cross-entropy between `hidden Eᵀ` and the targets. With label smoothing
/// `s`, a row's loss is `(1 - s) nll + s * mean over the vocabulary of -log p`.
///
/// The logits are never held whole, in neither pass, and a frozen embedding gets no gradient.
///
/// # Shapes
/// - `hidden`: `[rows, hidden]`
/// - `embedding`: `[vocabulary, hidden]`
/// - `targets`: `[rows]`, each below the vocabulary's size
/// - output: `[1]`
pub fn tied_cross_entropy(
    hidden: Tensor<2>,
    embedding: Tensor<2>,
    targets: Tensor<1, Int>,
    smoothing: f64,
) -> Tensor<1> {
    Tensor::from_dispatch(<Dispatch as MtLoraBackend>::tied_cross_entropy(
        hidden.into_dispatch(),
        embedding.into_dispatch(),
        targets.into_dispatch(),
        smoothing,
    ))
}

/// Dropout: each element is zero with the module's probability, else divided by one minus it.
///
/// As [`Dropout::forward`], with the mask drawn on all threads on a CPU; [`seed`](crate::seed) says
/// where it starts.
pub fn dropout(dropout: &Dropout, x: Tensor<2>) -> Tensor<2> {
    if !drops(dropout, &x) {
        return x;
    }
    let shape = x.dims();
    let keep = dropout_mask(&x, shape[0] * shape[1], dropout.prob);
    x * keep.reshape(shape)
}

fn dropout_mask(like: &Tensor<2>, entries: usize, prob: f64) -> Tensor<1> {
    let like = like.clone().into_dispatch();
    Tensor::from_dispatch(<Dispatch as MtLoraBackend>::dropout_mask(
        like,
        entries,
        prob,
        random::next(),
    ))
}

/// Whether dropout changes anything here; the condition of [`Dropout::forward`].
fn drops(dropout: &Dropout, x: &Tensor<2>) -> bool {
    dropout.prob > 0.0 && dropout.training.is_enabled() && x.device().is_autodiff()
}

fn optional<const D: usize>(tensor: Option<Tensor<D>>) -> Optional<Dispatch> {
    tensor.map(Tensor::into_dispatch).into()
}

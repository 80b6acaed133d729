//! Cross-entropy over a vocabulary whose output map is the (tied) embedding, in chunks of rows, so
//! that the logits of all tokens are never held at once.
//!
//! With `p = softmax(h Eᵀ)` of a row, its target `t`, label smoothing `s` and `V` tokens:
//!
//! ```text
//! loss = -(1 - s) log p[t] - s / V * sum of log p
//! g    = p - (1 - s) onehot(t) - s / V       (the gradient of the logits)
//! dh   = g E          dE = sum over rows of gᵀ h
//! ```
//!
//! The loss is a sum, so its gradients are known but for one factor as soon as the logits are: the
//! forward pass makes them and the logits are never made a second time (as Liger Kernel does it,
//! arXiv 2410.10989).

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Scalar, TensorMetadata};
use burn::tensor::{IndexingUpdateOp, Shape, Slice};

use super::tracked::is_tracked;
use super::{MtLoraBackend, Optional, Weight};

/// The most bytes that the logits of one chunk take.
const CHUNK_BYTES: usize = 32 << 20;

/// Ranges of rows whose logits over `vocabulary` tokens fit a chunk.
fn chunks(rows: usize, vocabulary: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let step = (CHUNK_BYTES / 4 / vocabulary.max(1)).max(1);
    (0..rows)
        .step_by(step)
        .map(move |start| start..(start + step).min(rows))
}

fn rows_of<B: Backend>(tensor: &FloatTensor<B>, range: &std::ops::Range<usize>) -> FloatTensor<B> {
    let width = tensor.shape()[1];
    let slices = [Slice::from(range.clone()), Slice::from(0..width)];
    B::float_slice(tensor.clone(), &slices)
}

/// `log p`: `[rows, vocabulary]`.
fn log_softmax<B: Backend>(logits: FloatTensor<B>) -> FloatTensor<B> {
    let shifted = B::float_sub(logits.clone(), B::float_max_dim(logits, 1));
    let sum = B::float_sum_dim(B::float_exp(shifted.clone()), 1);
    B::float_sub(shifted, B::float_log(sum))
}

/// The loss of each row: `[rows]`. `targets`: `[rows]`.
pub(super) fn row_losses<B: Backend>(
    logits: FloatTensor<B>,
    targets: IntTensor<B>,
    smoothing: f64,
) -> FloatTensor<B> {
    let rows = logits.shape()[0];
    let log_p = log_softmax::<B>(logits);
    losses::<B>(
        &log_p,
        B::int_reshape(targets, Shape::from([rows, 1])),
        smoothing,
    )
}

fn losses<B: Backend>(
    log_p: &FloatTensor<B>,
    targets: IntTensor<B>,
    smoothing: f64,
) -> FloatTensor<B> {
    let rows = log_p.shape()[0];
    let at_target = B::float_gather(1, log_p.clone(), targets);
    let loss = B::float_mul_scalar(at_target, Scalar::from(smoothing - 1.0));
    let loss = match smoothing > 0.0 {
        true => {
            let mean = B::float_mean_dim(log_p.clone(), 1);
            B::float_sub(loss, B::float_mul_scalar(mean, Scalar::from(smoothing)))
        }
        false => loss,
    };
    B::float_reshape(loss, Shape::from([rows]))
}

/// The loss of each row, and the gradient of its logits, `[rows, vocabulary]`.
pub(super) fn row_losses_and_gradients<B: Backend>(
    logits: FloatTensor<B>,
    targets: IntTensor<B>,
    smoothing: f64,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let [rows, vocabulary] = [logits.shape()[0], logits.shape()[1]];
    let targets = B::int_reshape(targets, Shape::from([rows, 1]));
    let log_p = log_softmax::<B>(logits);
    let loss = losses::<B>(&log_p, targets.clone(), smoothing);
    let p = B::float_exp(log_p);
    let p = match smoothing > 0.0 {
        true => B::float_sub_scalar(p, Scalar::from(smoothing / vocabulary as f64)),
        false => p,
    };
    let (device, dtype) = (p.device(), p.dtype());
    let target = B::float_full(
        Shape::from([rows, 1]),
        Scalar::from(smoothing - 1.0),
        &device,
        dtype.into(),
    );
    let gradient = B::float_scatter(1, p, targets, target, IndexingUpdateOp::Add);
    (loss, gradient)
}

/// `hidden Eᵀ`: the embedding is a linear map from tokens to hidden states, taken backward.
fn logits<B: Backend + MtLoraBackend>(
    hidden: FloatTensor<B>,
    embedding: &FloatTensor<B>,
) -> FloatTensor<B> {
    B::mixed_linear_backward(hidden, Weight::Float(embedding.clone()))
}

/// The sum of the losses: `[1]`.
pub(super) fn forward<B: Backend + MtLoraBackend>(
    hidden: FloatTensor<B>,
    embedding: FloatTensor<B>,
    targets: IntTensor<B>,
    smoothing: f64,
) -> FloatTensor<B> {
    let vocabulary = embedding.shape()[0];
    let losses = chunks(hidden.shape()[0], vocabulary).map(|range| {
        let logits = logits::<B>(rows_of::<B>(&hidden, &range), &embedding);
        let targets = B::int_slice(targets.clone(), &[Slice::from(range)]);
        B::float_sum(B::cross_entropy_rows(logits, targets, smoothing))
    });
    total::<B>(losses, &hidden)
}

/// The sum of `[1]` tensors; zero where there is none.
fn total<B: Backend>(
    parts: impl Iterator<Item = FloatTensor<B>>,
    like: &FloatTensor<B>,
) -> FloatTensor<B> {
    parts
        .reduce(B::float_add)
        .unwrap_or_else(|| B::float_zeros(Shape::from([1]), &like.device(), like.dtype().into()))
}

/// The sum of the losses, and the gradients that are wanted.
struct Pass<B: Backend> {
    loss: FloatTensor<B>,
    /// `[rows, hidden]`
    d_hidden: Option<FloatTensor<B>>,
    /// `[vocabulary, hidden]`
    d_embedding: Option<FloatTensor<B>>,
}

fn forward_and_gradients<B: Backend + MtLoraBackend>(
    hidden: FloatTensor<B>,
    embedding: FloatTensor<B>,
    targets: IntTensor<B>,
    smoothing: f64,
    [wants_hidden, wants_embedding]: [bool; 2],
) -> Pass<B> {
    let vocabulary = embedding.shape()[0];
    let (mut losses, mut d_hidden, mut d_embedding) = (Vec::new(), Vec::new(), None);
    for range in chunks(hidden.shape()[0], vocabulary) {
        let rows = rows_of::<B>(&hidden, &range);
        let logits = logits::<B>(rows.clone(), &embedding);
        let targets = B::int_slice(targets.clone(), &[Slice::from(range)]);
        let (loss, gradient) = B::cross_entropy_rows_and_gradients(logits, targets, smoothing);
        losses.push(B::float_sum(loss));
        if wants_hidden {
            let embedding = Weight::Float(embedding.clone());
            d_hidden.push(B::mixed_linear(
                gradient.clone(),
                embedding,
                Optional::Absent,
            ));
        }
        if wants_embedding {
            let part = B::float_matmul(B::float_transpose(gradient), rows);
            d_embedding = Some(match d_embedding.take() {
                Some(sum) => B::float_add(sum, part),
                None => part,
            });
        }
    }
    // Without rows there are gradients, too.
    if wants_embedding && d_embedding.is_none() {
        d_embedding = Some(zeros_like::<B>(&embedding));
    }
    let joined = match d_hidden.len() {
        0 => wants_hidden.then(|| zeros_like::<B>(&hidden)),
        1 => d_hidden.pop(),
        _ => Some(B::float_cat(d_hidden, 0)),
    };
    Pass {
        loss: total::<B>(losses.into_iter(), &hidden),
        d_hidden: joined,
        d_embedding,
    }
}

fn zeros_like<B: Backend>(tensor: &FloatTensor<B>) -> FloatTensor<B> {
    B::float_zeros(tensor.shape(), &tensor.device(), tensor.dtype().into())
}

#[derive(Debug)]
struct TiedCrossEntropy;

/// Parents: `hidden`, `embedding`. The state is their gradients for an upstream gradient of 1.
impl<B: Backend> Backward<B, 2> for TiedCrossEntropy {
    type State = [Option<FloatTensor<B>>; 2];

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let upstream = grads.consume::<B>(&ops.node);
        let factor = B::float_reshape(upstream, Shape::from([1, 1]));
        for (parent, gradient) in ops.parents.into_iter().zip(ops.state) {
            if let (Some(node), Some(gradient)) = (parent, gradient) {
                grads.register::<B>(node.id, B::float_mul(gradient, factor.clone()));
            }
        }
    }
}

/// The operation on an autodiff backend.
pub(super) fn track<B: Backend + MtLoraBackend, C: CheckpointStrategy>(
    hidden: FloatTensor<Autodiff<B, C>>,
    embedding: FloatTensor<Autodiff<B, C>>,
    targets: IntTensor<B>,
    smoothing: f64,
) -> FloatTensor<Autodiff<B, C>> {
    let wanted = [&hidden, &embedding].map(|tensor| is_tracked::<B, C>(tensor.node()));
    let (hidden, hidden_node) = hidden.into_parts();
    let (embedding, embedding_node) = embedding.into_parts();
    match TiedCrossEntropy
        .prepare::<C>([hidden_node, embedding_node])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => {
            let pass = forward_and_gradients::<B>(hidden, embedding, targets, smoothing, wanted);
            prep.finish([pass.d_hidden, pass.d_embedding], pass.loss)
        }
        OpsKind::UnTracked(prep) => {
            prep.finish(B::tied_cross_entropy(hidden, embedding, targets, smoothing))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_all_rows_once() {
        for (rows, vocabulary) in [(0, 5), (1, 50_257), (1000, 50_257), (7, usize::MAX)] {
            let all: Vec<usize> = chunks(rows, vocabulary).flatten().collect();
            assert_eq!(all, (0..rows).collect::<Vec<_>>());
        }
        assert!(chunks(1000, 50_257).all(|range| range.len() * 50_257 * 4 <= CHUNK_BYTES));
    }
}

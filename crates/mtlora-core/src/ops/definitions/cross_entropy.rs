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
//! A row whose target is negative, such as [`IGNORE_INDEX`], has no loss and no gradient.
//!
//! The loss is a sum, so its gradients are known but for one factor as soon as the logits are: the
//! forward pass makes them and the logits are never made a second time (as Liger Kernel does it,
//! arXiv 2410.10989).

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Scalar, TensorMetadata, get_or_init_device_settings};
use burn::tensor::{IndexingUpdateOp, Shape, Slice};

use crate::ops::capabilities::Capabilities;

/// The target of rows that have no loss in [`tied_cross_entropy`](crate::tied_cross_entropy), as PyTorch's
/// `ignore_index`. Any negative target has the same effect.
pub const IGNORE_INDEX: i32 = -100;

/// The most bytes that the logits of one chunk take on the host: its caches serve few rows as well as many.
const HOST_CHUNK_BYTES: usize = 32 << 20;
/// The same on another device, which needs many rows to keep all of it busy: 1,335 rows of a vocabulary of 50,257.
const DEVICE_CHUNK_BYTES: usize = 256 << 20;
/// Where a chunk on such a device has more rows than this, it has a multiple of it, so that products have whole tiles.
const DEVICE_ROWS: usize = 128;

/// Ranges of rows whose logits over `vocabulary` tokens fit a chunk of a device.
pub(in crate::ops) fn chunks(
    rows: usize,
    vocabulary: usize,
    device: Capabilities,
) -> impl Iterator<Item = std::ops::Range<usize>> {
    let bytes = if device.on_host {
        HOST_CHUNK_BYTES
    } else {
        DEVICE_CHUNK_BYTES.min(device.largest_tensor)
    };
    let mut step = (bytes / 4 / vocabulary.max(1)).max(1);
    if !device.on_host && step > DEVICE_ROWS {
        step -= step % DEVICE_ROWS;
    }
    (0..rows)
        .step_by(step)
        .map(move |start| start..(start + step).min(rows))
}

pub(in crate::ops) fn rows_of<B: Backend>(
    tensor: &FloatTensor<B>,
    range: &std::ops::Range<usize>,
) -> FloatTensor<B> {
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

/// The column of each row's target (0 where it is ignored), and 1 for rows with a target and 0 for ignored ones; each
/// `[rows, 1]`.
fn target_columns<B: Backend>(
    targets: IntTensor<B>,
    like: &FloatTensor<B>,
) -> (IntTensor<B>, FloatTensor<B>) {
    let column = Shape::from([like.shape()[0], 1]);
    let targets = B::int_reshape(targets, column);
    let dtypes = get_or_init_device_settings::<B>(&like.device());
    let zero = Scalar::from(0);
    let given = B::int_greater_equal_elem(targets.clone(), zero, dtypes.bool_dtype);
    let given = B::bool_into_float(given, like.dtype().into());
    (B::int_clamp_min(targets, zero), given)
}

/// The loss of each row: `[rows]`. `targets`: `[rows]`.
pub(in crate::ops) fn row_losses<B: Backend>(
    logits: FloatTensor<B>,
    targets: IntTensor<B>,
    smoothing: f64,
) -> FloatTensor<B> {
    let (targets, given) = target_columns::<B>(targets, &logits);
    losses::<B>(&log_softmax::<B>(logits), targets, given, smoothing)
}

/// `targets`, `given`: `[rows, 1]`.
fn losses<B: Backend>(
    log_p: &FloatTensor<B>,
    targets: IntTensor<B>,
    given: FloatTensor<B>,
    smoothing: f64,
) -> FloatTensor<B> {
    let rows = log_p.shape()[0];
    let at_target = B::float_gather(1, log_p.clone(), targets);
    let loss = B::float_mul_scalar(at_target, Scalar::from(smoothing - 1.0));
    let loss = if smoothing > 0.0 {
        let mean = B::float_mean_dim(log_p.clone(), 1);
        B::float_sub(loss, B::float_mul_scalar(mean, Scalar::from(smoothing)))
    } else {
        loss
    };
    B::float_reshape(B::float_mul(loss, given), Shape::from([rows]))
}

/// The loss of each row, and the gradient of its logits, `[rows, vocabulary]`.
pub(in crate::ops) fn row_losses_and_gradients<B: Backend>(
    logits: FloatTensor<B>,
    targets: IntTensor<B>,
    smoothing: f64,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let [rows, vocabulary] = [logits.shape()[0], logits.shape()[1]];
    let (targets, given) = target_columns::<B>(targets, &logits);
    let log_p = log_softmax::<B>(logits);
    let loss = losses::<B>(&log_p, targets.clone(), given.clone(), smoothing);
    let p = B::float_exp(log_p);
    let p = if smoothing > 0.0 {
        B::float_sub_scalar(p, Scalar::from(smoothing / vocabulary as f64))
    } else {
        p
    };
    let (device, dtype) = (p.device(), p.dtype());
    let target = B::float_full(
        Shape::from([rows, 1]),
        Scalar::from(smoothing - 1.0),
        &device,
        dtype.into(),
    );
    let gradient = B::float_scatter(1, p, targets, target, IndexingUpdateOp::Add);
    (loss, B::float_mul(gradient, given))
}

/// The sum of `[1]` tensors, or zero if there are no tensors.
pub(in crate::ops) fn total<B: Backend>(
    parts: impl Iterator<Item = FloatTensor<B>>,
    like: &FloatTensor<B>,
) -> FloatTensor<B> {
    parts
        .reduce(B::float_add)
        .unwrap_or_else(|| B::float_zeros(Shape::from([1]), &like.device(), like.dtype().into()))
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Tensor, TensorData};

    use super::*;
    use crate::ops::capabilities;
    use crate::{devices, tied_cross_entropy};

    /// The loss, and the gradients of the hidden states.
    fn pass(hidden: &[f32], targets: &[i32]) -> (f32, Vec<f32>) {
        let device = devices().remove(0).device.autodiff();
        let hidden = TensorData::new(hidden.to_vec(), [targets.len(), 2]);
        let hidden = Tensor::<2>::from_data(hidden, &device).require_grad();
        let embedding = [[1.0, -2.0], [0.5, 3.0], [-1.0, 0.25]];
        let embedding = Tensor::<2>::from_data(embedding, &device);
        let targets = TensorData::new(targets.to_vec(), [targets.len()]);
        let targets = Tensor::from_data(targets, &device);
        let loss = tied_cross_entropy(hidden.clone(), embedding, targets, 0.1);
        let gradients = hidden.grad(&loss.clone().backward());
        let gradients = gradients.map(|gradients| gradients.into_data().try_to_vec());
        let gradients: Option<Vec<f32>> = gradients.and_then(Result::ok);
        (loss.into_scalar(), gradients.unwrap_or_default())
    }

    #[test]
    fn ignored_rows_are_as_if_they_were_not_there() {
        let with = pass(&[0.3, 0.7, -5.0, 9.0, 1.5, -0.2], &[2, IGNORE_INDEX, 0]);
        let without = pass(&[0.3, 0.7, 1.5, -0.2], &[2, 0]);
        assert_eq!(with.0, without.0);
        assert_eq!(with.1[..2], without.1[..2]);
        assert_eq!(with.1[2..4], [0.0, 0.0]);
        assert_eq!(with.1[4..], without.1[2..]);
    }

    /// The capabilities of the processor, and of another device with a limit on the bytes of a tensor.
    fn host_and_other(largest_tensor: usize) -> [Capabilities; 2] {
        let host = capabilities(&devices().remove(0).device);
        let other = Capabilities {
            on_host: false,
            largest_tensor,
            ..host
        };
        [host, other]
    }

    fn lengths(rows: usize, vocabulary: usize, device: Capabilities) -> Vec<usize> {
        let ranges = chunks(rows, vocabulary, device);
        ranges.map(|range| range.len()).collect()
    }

    #[test]
    fn chunks_cover_all_rows_once() {
        for device in host_and_other(usize::MAX) {
            for (rows, vocabulary) in [(0, 5), (1, 50_257), (1000, 50_257), (7, usize::MAX)] {
                let all: Vec<usize> = chunks(rows, vocabulary, device).flatten().collect();
                assert_eq!(all, (0..rows).collect::<Vec<_>>());
            }
        }
        let [host, _] = host_and_other(usize::MAX);
        assert!(
            chunks(1000, 50_257, host).all(|range| range.len() * 50_257 * 4 <= HOST_CHUNK_BYTES)
        );
    }

    #[test]
    fn chunks_of_other_devices_have_many_rows() {
        let [_, device] = host_and_other(usize::MAX);
        assert_eq!(lengths(4000, 50_257, device), [1280, 1280, 1280, 160]);
        // Fewer of a larger vocabulary, or where tensors must be smaller.
        assert_eq!(lengths(500, 250_002, device), [256, 244]);
        let [_, device] = host_and_other(128 << 20);
        assert_eq!(lengths(1000, 50_257, device), [640, 360]);
    }
}

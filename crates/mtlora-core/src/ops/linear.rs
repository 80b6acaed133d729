//! The linear map, whose weight may be kept in less precision than what passes through it:
//!
//! ```text
//! y = x W + bias     dx = dy Wᵀ     dW = xᵀ dy     dbias = sum over tokens of dy
//! ```

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::{FloatTensor, QuantizedTensor};
use burn::backend::{Autodiff, Backend, Dispatch, ExtensionType, Scalar, TensorMetadata};
use burn::tensor::{DType, Shape, Tensor};

use super::MtLoraBackend;
use super::tracked::{is_tracked, node_or_constant};

/// A matrix in the precision that it is kept in.
#[derive(ExtensionType)]
pub enum Weight<B: Backend> {
    /// Floats. Where their precision is not that of the other factor, that factor is rounded to
    /// it first; sums are in the other factor's precision.
    Float(FloatTensor<B>),
    /// Integers with scales; the other factor keeps its precision.
    Quantized(QuantizedTensor<B>),
}

impl<B: Backend> Clone for Weight<B> {
    fn clone(&self) -> Self {
        match self {
            Weight::Float(tensor) => Weight::Float(tensor.clone()),
            Weight::Quantized(tensor) => Weight::Quantized(tensor.clone()),
        }
    }
}

impl<B: Backend> std::fmt::Debug for Weight<B> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Weight::Float(tensor) => tensor.fmt(formatter),
            Weight::Quantized(tensor) => tensor.fmt(formatter),
        }
    }
}

impl From<Tensor<2>> for Weight<Dispatch> {
    fn from(tensor: Tensor<2>) -> Self {
        match tensor.dtype() {
            DType::QFloat(_) => Weight::Quantized(tensor.into_dispatch()),
            _ => Weight::Float(tensor.into_dispatch()),
        }
    }
}

impl<B: Backend> Weight<B> {
    /// What it holds, without the autodiff backend's wrapping.
    pub(super) fn inner<C: CheckpointStrategy>(weight: Weight<Autodiff<B, C>>) -> Self {
        match weight {
            Weight::Float(tensor) => Weight::Float(tensor.into_primitive()),
            Weight::Quantized(tensor) => Weight::Quantized(tensor),
        }
    }

    /// `x`, rounded to the weight's precision where that is less, and the weight in `x`'s.
    pub(super) fn matched(self, x: FloatTensor<B>) -> (FloatTensor<B>, FloatTensor<B>) {
        let own = x.dtype();
        match self {
            Weight::Quantized(weight) => (x, B::dequantize(weight, own.into())),
            Weight::Float(weight) if weight.dtype() == own => (x, weight),
            Weight::Float(weight) => {
                let x = B::float_cast(x, weight.dtype().into());
                (
                    B::float_cast(x, own.into()),
                    B::float_cast(weight, own.into()),
                )
            }
        }
    }
}

/// `x W + bias`.
pub(super) fn forward<B: Backend>(
    x: FloatTensor<B>,
    weight: Weight<B>,
    bias: Option<FloatTensor<B>>,
) -> FloatTensor<B> {
    let (x, weight) = weight.matched(x);
    let y = B::float_matmul(x, weight);
    match bias {
        Some(bias) => {
            let width = bias.shape()[0];
            B::float_add(y, B::float_reshape(bias, Shape::from([1, width])))
        }
        None => y,
    }
}

/// `dy Wᵀ`.
pub(super) fn backward<B: Backend>(dy: FloatTensor<B>, weight: Weight<B>) -> FloatTensor<B> {
    let (dy, weight) = weight.matched(dy);
    B::float_matmul(dy, B::float_transpose(weight))
}

/// `sum + scale a b`.
pub(super) fn add_matmul<B: Backend>(
    sum: FloatTensor<B>,
    a: FloatTensor<B>,
    b: FloatTensor<B>,
    scale: f64,
) -> FloatTensor<B> {
    let product = B::float_matmul(a, b);
    B::float_add(sum, B::float_mul_scalar(product, Scalar::from(scale)))
}

/// The bias' gradient: `[out]`.
pub(super) fn bias_gradient<B: Backend>(dy: FloatTensor<B>) -> FloatTensor<B> {
    let width = dy.shape()[1];
    B::float_reshape(B::float_sum_dim(dy, 0), Shape::from([width]))
}

/// What the backward pass needs; each shared with its owner.
#[derive(Clone, Debug)]
struct SavedInputs<B: Backend> {
    weight: Weight<B>,
    /// Where the weight trains.
    x: Option<FloatTensor<B>>,
}

#[derive(Debug)]
struct Linear;

/// Parents: `x`, the weight (never where it is quantized), `bias`.
impl<B: Backend + MtLoraBackend> Backward<B, 3> for Linear {
    type State = SavedInputs<B>;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let [x, weight, bias] = ops.parents;
        if let Some(bias) = bias {
            grads.register::<B>(bias.id, bias_gradient::<B>(dy.clone()));
        }
        if let (Some(weight), Some(x)) = (weight, ops.state.x) {
            let dw = B::float_matmul(B::float_transpose(x), dy.clone());
            grads.register::<B>(weight.id, dw);
        }
        if let Some(x) = x {
            grads.register::<B>(x.id, B::mixed_linear_backward(dy, ops.state.weight));
        }
    }
}

/// The operation on an autodiff backend.
pub(super) fn track<B: Backend + MtLoraBackend, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    weight: Weight<Autodiff<B, C>>,
    bias: Option<FloatTensor<Autodiff<B, C>>>,
) -> FloatTensor<Autodiff<B, C>> {
    let kept = match &weight {
        Weight::Float(weight) => Some(weight),
        Weight::Quantized(_) => None,
    };
    let weight_trains = kept.is_some_and(|weight| is_tracked::<B, C>(weight.node()));
    let nodes = [
        x.node(),
        node_or_constant::<B, C>(kept, &x),
        node_or_constant::<B, C>(bias.as_ref(), &x),
    ];
    let weight = Weight::<B>::inner(weight);
    let x = x.into_primitive();
    let bias = bias.map(|bias| bias.into_primitive());
    let saved = SavedInputs {
        weight: weight.clone(),
        x: weight_trains.then(|| x.clone()),
    };
    let y = B::mixed_linear(x, weight, bias.into());
    match Linear.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(saved, y),
        OpsKind::UnTracked(prep) => prep.finish(y),
    }
}

//! The linear map with a low-rank update.
//!
//! With `z` the adapter's input (`x`, or `x` after dropout), `u = z Aᵀ`, `v = u Tᵀ`:
//!
//! ```text
//! y  = x W + bias + scale v Bᵀ
//! g  = scale dy B                  (the gradient of v)
//! dB = scale dyᵀ v     dT = gᵀ u     du = g T     dA = duᵀ z
//! dz = du A            dx = dy Wᵀ    dbias = sum over tokens of dy
//! ```

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Backend, Scalar, TensorMetadata};
use burn::tensor::Shape;

use super::MtLoraBackend;

/// The operation's inputs; [`MtLoraBackend::adapted_linear`] has the shapes.
pub(super) struct Inputs<T> {
    pub x: T,
    pub dropped: Option<T>,
    pub weight: T,
    pub bias: Option<T>,
    pub a: T,
    pub t: Option<T>,
    pub b: T,
    pub scale: f64,
}

/// The output, and `u` (`[tokens, rank]`), which the backward pass reads.
pub(super) fn forward<B: Backend>(
    inputs: Inputs<FloatTensor<B>>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let z = inputs.dropped.unwrap_or_else(|| inputs.x.clone());
    let u = B::float_matmul(z, B::float_transpose(inputs.a));
    let v = transformed::<B>(u.clone(), inputs.t);
    let update = B::float_matmul(v, B::float_transpose(inputs.b));
    let mut y = B::float_matmul(inputs.x, inputs.weight);
    if let Some(bias) = inputs.bias {
        let width = bias.shape()[0];
        y = B::float_add(y, B::float_reshape(bias, Shape::from([1, width])));
    }
    let y = B::float_add(y, B::float_mul_scalar(update, Scalar::from(inputs.scale)));
    (y, u)
}

/// `u Tᵀ`.
fn transformed<B: Backend>(u: FloatTensor<B>, t: Option<FloatTensor<B>>) -> FloatTensor<B> {
    match t {
        Some(t) => B::float_matmul(u, B::float_transpose(t)),
        None => u,
    }
}

/// What the backward pass needs. `z` and `weight` are shared with their owners, not copied.
#[derive(Clone, Debug)]
struct Saved<T> {
    z: T,
    u: T,
    weight: T,
    a: T,
    t: Option<T>,
    b: T,
    scale: f64,
    /// Whether `z` is an input of its own (dropout), so that its gradient does not belong to `x`.
    dropped: bool,
}

#[derive(Debug)]
struct AdaptedLinear;

/// Parents: `x`, `dropped`, `bias`, `a`, `t`, `b`. The weight is not among them.
impl<B: Backend> Backward<B, 6> for AdaptedLinear {
    type State = Saved<FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, 6>, grads: &mut Gradients, _: &mut Checkpointer) {
        let saved = ops.state;
        let dy = grads.consume::<B>(&ops.node);
        let [x, dropped, bias, a, t, b] = ops.parents.map(|node| node.map(|node| node.id));
        let z_tracked = if saved.dropped { dropped } else { x };

        let scaled = |tensor| B::float_mul_scalar(tensor, Scalar::from(saved.scale));
        if let Some(b) = b {
            let v = transformed::<B>(saved.u.clone(), saved.t.clone());
            let db = B::float_matmul(B::float_transpose(dy.clone()), v);
            grads.register::<B>(b, scaled(db));
        }
        let mut dz = None;
        if a.is_some() || t.is_some() || z_tracked.is_some() {
            let g = scaled(B::float_matmul(dy.clone(), saved.b));
            if let Some(t) = t {
                let dt = B::float_matmul(B::float_transpose(g.clone()), saved.u);
                grads.register::<B>(t, dt);
            }
            let du = match saved.t {
                Some(t) => B::float_matmul(g, t),
                None => g,
            };
            if let Some(a) = a {
                let da = B::float_matmul(B::float_transpose(du.clone()), saved.z);
                grads.register::<B>(a, da);
            }
            dz = z_tracked.map(|_| B::float_matmul(du, saved.a));
        }
        if let Some(bias) = bias {
            let width = dy.shape()[1];
            let sum = B::float_sum_dim(dy.clone(), 0);
            grads.register::<B>(bias, B::float_reshape(sum, Shape::from([width])));
        }
        if let (Some(dropped), true) = (dropped, saved.dropped)
            && let Some(dz) = dz.take()
        {
            grads.register::<B>(dropped, dz);
        }
        if let Some(x) = x {
            let dx = B::float_matmul(dy, B::float_transpose(saved.weight));
            let dx = match dz {
                Some(dz) => B::float_add(dx, dz),
                None => dx,
            };
            grads.register::<B>(x, dx);
        }
    }
}

/// The operation on an autodiff backend.
pub(super) fn track<B: Backend + MtLoraBackend, C: CheckpointStrategy>(
    inputs: Inputs<FloatTensor<Autodiff<B, C>>>,
) -> FloatTensor<Autodiff<B, C>> {
    // An input that is not there has a constant in its place, which gets no gradient.
    let absent = || Autodiff::<B, C>::from_inner(inputs.weight.primitive().clone());
    let guard = |tensor: &Option<FloatTensor<Autodiff<B, C>>>| -> NodeGuard {
        match tensor {
            Some(tensor) => tensor.node(),
            None => absent().node(),
        }
    };
    let nodes = [
        inputs.x.node(),
        guard(&inputs.dropped),
        guard(&inputs.bias),
        inputs.a.node(),
        guard(&inputs.t),
        inputs.b.node(),
    ];
    let inner = Inputs {
        x: inputs.x.into_primitive(),
        dropped: inputs.dropped.map(|tensor| tensor.into_primitive()),
        weight: inputs.weight.into_primitive(),
        bias: inputs.bias.map(|tensor| tensor.into_primitive()),
        a: inputs.a.into_primitive(),
        t: inputs.t.map(|tensor| tensor.into_primitive()),
        b: inputs.b.into_primitive(),
        scale: inputs.scale,
    };
    match AdaptedLinear.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let mut saved = Saved {
                z: inner.dropped.clone().unwrap_or_else(|| inner.x.clone()),
                u: inner.a.clone(),
                weight: inner.weight.clone(),
                a: inner.a.clone(),
                t: inner.t.clone(),
                b: inner.b.clone(),
                scale: inner.scale,
                dropped: inner.dropped.is_some(),
            };
            let (y, u) = forward::<B>(inner);
            saved.u = u;
            prep.finish(saved, y)
        }
        OpsKind::UnTracked(prep) => prep.finish(B::adapted_linear(
            inner.x,
            inner.dropped.into(),
            inner.weight,
            inner.bias.into(),
            inner.a,
            inner.t.into(),
            inner.b,
            inner.scale,
        )),
    }
}

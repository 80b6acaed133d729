//! The linear map with a frozen weight and a low-rank update.
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
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend};

use super::tracked::node_or_constant;
use crate::ops::definitions::linear::scaled_product;
use crate::ops::{MtLoraBackend, Weight};

/// The operation's inputs; [`MtLoraBackend::adapted_linear`] has the shapes.
pub(super) struct Inputs<B: Backend> {
    pub x: FloatTensor<B>,
    pub dropped: Option<FloatTensor<B>>,
    pub weight: Weight<B>,
    pub bias: Option<FloatTensor<B>>,
    pub a: FloatTensor<B>,
    pub t: Option<FloatTensor<B>>,
    pub b: FloatTensor<B>,
    pub scale: f64,
}

impl<B: MtLoraBackend> Inputs<B> {
    /// The output, and `u`.
    fn computed(self) -> (FloatTensor<B>, FloatTensor<B>) {
        B::adapted_linear_and_projection(
            self.x,
            self.dropped.into(),
            self.weight,
            self.bias.into(),
            self.a,
            self.t.into(),
            self.b,
            self.scale,
        )
    }
}

/// `u Tᵀ`.
fn transformed<B: MtLoraBackend>(u: FloatTensor<B>, t: Option<FloatTensor<B>>) -> FloatTensor<B> {
    match t {
        Some(t) => B::rank_matmul(u, B::float_transpose(t)),
        None => u,
    }
}

/// What the backward pass needs. `z` and `weight` are shared with their owners, not copied.
#[derive(Clone, Debug)]
struct SavedInputs<B: Backend> {
    z: FloatTensor<B>,
    u: FloatTensor<B>,
    weight: Weight<B>,
    a: FloatTensor<B>,
    t: Option<FloatTensor<B>>,
    b: FloatTensor<B>,
    scale: f64,
    /// Whether `z` is an input of its own (dropout), so that its gradient does not belong to `x`.
    dropped: bool,
}

#[derive(Debug)]
struct AdaptedLinear;

/// Parents: `x`, `dropped`, `bias`, `a`, `t`, `b`. The weight is not among them.
impl<B: MtLoraBackend> Backward<B, 6> for AdaptedLinear {
    type State = SavedInputs<B>;

    fn backward(self, ops: Ops<Self::State, 6>, grads: &mut Gradients, _: &mut Checkpointer) {
        let saved = ops.state;
        let dy = grads.consume::<B>(&ops.node);
        let [x, dropped, bias, a, t, b] = ops.parents.map(|node| node.map(|node| node.id));
        let z_tracked = if saved.dropped { dropped } else { x };

        if let Some(b) = b {
            let v = transformed::<B>(saved.u.clone(), saved.t.clone());
            let db = scaled_product::<B>(B::float_transpose(dy.clone()), v, saved.scale);
            grads.register::<B>(b, db);
        }
        if let Some(bias) = bias {
            grads.register::<B>(bias, B::sum_rows(dy.clone()));
        }
        let mut dx = x.map(|_| B::mixed_linear_backward(dy.clone(), saved.weight));
        if a.is_some() || t.is_some() || z_tracked.is_some() {
            let g = scaled_product::<B>(dy, saved.b, saved.scale);
            if let Some(t) = t {
                let dt = B::rank_matmul(B::float_transpose(g.clone()), saved.u);
                grads.register::<B>(t, dt);
            }
            let du = match saved.t {
                Some(t) => B::rank_matmul(g, t),
                None => g,
            };
            if let Some(a) = a {
                let da = B::rank_matmul(B::float_transpose(du.clone()), saved.z);
                grads.register::<B>(a, da);
            }
            if let (Some(dropped), true) = (dropped, saved.dropped) {
                grads.register::<B>(dropped, B::rank_matmul(du, saved.a));
            } else if !saved.dropped {
                dx = dx.map(|dx| B::add_matmul(dx, du, saved.a, 1.0));
            }
        }
        if let (Some(x), Some(dx)) = (x, dx) {
            grads.register::<B>(x, dx);
        }
    }
}

/// The operation on an autodiff backend.
pub(super) fn track<B: MtLoraBackend, C: CheckpointStrategy>(
    inputs: Inputs<Autodiff<B, C>>,
) -> FloatTensor<Autodiff<B, C>> {
    let guard = |tensor: &Option<FloatTensor<Autodiff<B, C>>>| {
        node_or_constant::<B, C>(tensor.as_ref(), &inputs.x)
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
        weight: super::inner(inputs.weight),
        bias: inputs.bias.map(|tensor| tensor.into_primitive()),
        a: inputs.a.into_primitive(),
        t: inputs.t.map(|tensor| tensor.into_primitive()),
        b: inputs.b.into_primitive(),
        scale: inputs.scale,
    };
    match AdaptedLinear.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let mut saved = SavedInputs {
                z: inner.dropped.clone().unwrap_or_else(|| inner.x.clone()),
                u: inner.a.clone(),
                weight: inner.weight.clone(),
                a: inner.a.clone(),
                t: inner.t.clone(),
                b: inner.b.clone(),
                scale: inner.scale,
                dropped: inner.dropped.is_some(),
            };
            let (y, u) = inner.computed();
            saved.u = u;
            prep.finish(saved, y)
        }
        OpsKind::UnTracked(prep) => prep.finish(inner.computed().0),
    }
}

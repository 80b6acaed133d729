use burn::module::{Module, Param, Reparameterization};
use burn::nn::Dropout;
use burn::tensor::Tensor;

use crate::Structure;

/// An MTLoRA adapter on one frozen weight: the update `scale * B T A`, with `T` made from `C` and
/// `D` as [`Structure`] says.
///
/// The factors keep the paper's and PEFT's layout, whatever that of the weight. As a Burn
/// [`Reparameterization`] it works on any module: [`Param::val`] is then the base plus the dense
/// update, [`Module::materialize`] folds the update in. Layers that know it take the shorter way
/// on the activations: [`adapted_linear`](crate::adapted_linear),
/// [`adapted_embedding`](crate::adapted_embedding).
#[derive(Module, Debug)]
pub struct Adapter {
    /// `A`, the down projection: `[rank, in]`.
    pub a: Param<Tensor<2>>,
    /// `B`, the up projection: `[out, rank]`.
    pub b: Param<Tensor<2>>,
    /// `C`: `[rank, rank]`, where the structure has it.
    pub c: Option<Param<Tensor<2>>>,
    /// `D`: `[rank, rank]`, where the structure has it.
    pub d: Option<Param<Tensor<2>>>,
    /// Dropout on the adapter's input while training. The dense way cannot express it and leaves
    /// it out.
    pub dropout: Dropout,
    /// How `T` is made.
    #[module(skip)]
    pub structure: Structure,
    /// `alpha / rank`, or `alpha / sqrt(rank)` with rank-stabilised scaling.
    pub scale: f64,
}

impl Adapter {
    /// `T`: `[rank, rank]`, or `None` where it is the identity.
    pub fn transform(&self) -> Option<Tensor<2>> {
        self.structure.transform(
            self.c.as_ref().map(Param::val),
            self.d.as_ref().map(Param::val),
        )
    }

    /// The number of rows of `A`.
    pub fn rank(&self) -> usize {
        self.a.lazy_shape()[0]
    }

    /// The dense update `scale * B T A`: `[out, in]`.
    pub fn delta(&self) -> Tensor<2> {
        let b = self.b.val();
        let bt = match self.transform() {
            Some(t) => b.matmul(t),
            None => b,
        };
        bt.matmul(self.a.val()).mul_scalar(self.scale)
    }
}

impl Reparameterization for Adapter {
    const NAME: &'static str = "mtlora";

    /// Base plus dense update. A base of rank 2 is read as Burn keeps linear and embedding
    /// weights, `[in, out]`; a base of higher rank as Burn keeps convolutions, `[out, in, k...]`.
    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        let delta = match D {
            2 => self.delta().transpose(),
            _ => self.delta(),
        };
        // The sum is made in the factors' precision, as in Burn's own LoRA: a packed base is
        // left for the addition to unpack.
        let base = match base.dtype() {
            dtype if dtype.is_float() && dtype != delta.dtype() => base.cast(delta.dtype()),
            _ => base,
        };
        let shape = base.shape();
        base + delta.reshape(shape)
    }
}

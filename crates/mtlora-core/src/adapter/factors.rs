use burn::module::{Module, Param, Reparameterization};
use burn::nn::Dropout;
use burn::tensor::Tensor;

use crate::AdapterForm;

/// An MTLoRA adapter on one frozen weight: the update `scale * B T A`, with `T` made from `C` and
/// `D` as its [`Structure`](crate::Structure) says.
///
/// The factors keep the paper's and PEFT's layout, whatever that of the weight. As a Burn
/// [`Reparameterization`] it works on any module: [`Param::val`] is then the base plus the dense
/// update, [`Module::materialize`] folds the update in. Layers that know it take the shorter way
/// on the activations: [`adapted_linear`](crate::adapted_linear),
/// [`adapted_embedding`](crate::adapted_embedding).
#[derive(Module, Debug)]
pub struct Adapter {
    /// `A`, the down projection: `[rank, in]`; fused: `[g rank, in]`.
    pub a: Param<Tensor<2>>,
    /// `B`, the up projection: `[out, rank]`; fused: `[g width, rank]`.
    pub b: Param<Tensor<2>>,
    /// `C`: `[rank, rank]`, where the structure has it; fused: `[g rank, g rank]`.
    pub c: Option<Param<Tensor<2>>>,
    /// `D`, as `C`.
    pub d: Option<Param<Tensor<2>>>,
    /// Dropout on the adapter's input while training, with the form's probability. The dense way
    /// cannot express it and leaves it out.
    pub dropout: Dropout,
    /// How `T` is made, which projections are adapted, and the scale.
    pub form: AdapterForm,
}

impl Adapter {
    /// `T`: `[rank, rank]` (fused: `[g rank, g rank]`), or `None` where it is the identity.
    pub fn transform(&self) -> Option<Tensor<2>> {
        self.form.structure.transform(
            self.c.as_ref().map(Param::val),
            self.d.as_ref().map(Param::val),
        )
    }

    /// The rank of each projection's update: the number of columns of `B`.
    pub fn rank(&self) -> usize {
        self.b.lazy_shape()[1]
    }

    /// `B` as it acts on all of `T A x`: `[out, rank]`, or, where projections are fused,
    /// `[out, g rank]` with the `k`-th adapted projection's rows in columns `k rank..(k + 1) rank`
    /// and zeros elsewhere.
    pub fn up(&self) -> Tensor<2> {
        let b = self.b.val();
        if self.form.fused.is_empty() {
            return b;
        }
        let adapted = self.form.groups();
        let [rows, rank] = b.dims();
        let (width, device) = (rows / adapted.max(1), b.device());
        let zeros = |columns: usize| Tensor::<2>::zeros([width, columns], &device);
        let mut before = 0;
        let blocks = self.form.fused.iter().map(|is_adapted| {
            if !is_adapted {
                return zeros(adapted * rank);
            }
            let own = b
                .clone()
                .slice([before * width..(before + 1) * width, 0..rank]);
            let behind = adapted - before - 1;
            let mut parts = vec![own];
            if before > 0 {
                parts.insert(0, zeros(before * rank));
            }
            if behind > 0 {
                parts.push(zeros(behind * rank));
            }
            before += 1;
            Tensor::cat(parts, 1)
        });
        Tensor::cat(blocks.collect(), 0)
    }

    /// The dense update `scale * B T A`: `[out, in]`.
    pub fn delta(&self) -> Tensor<2> {
        let b = self.up();
        let bt = match self.transform() {
            Some(t) => b.matmul(t),
            None => b,
        };
        bt.matmul(self.a.val()).mul_scalar(self.form.scale)
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

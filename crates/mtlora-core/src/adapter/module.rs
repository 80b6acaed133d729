//! An adapter as a Burn module.

use burn::module::{Devices, Module, ModuleMapper, ModuleVisitor, Param, Reparameterization};
use burn::nn::Dropout;
use burn::tensor::{Device, Tensor};

use crate::adapter::action::{self, Update};
use crate::adapter::factors::Factors;
use crate::adapter::form::AdapterForm;
use crate::packed;

/// An adapter on one frozen weight: the factors that its [method](crate::AdapterMethod) declares, and how they act.
///
/// The factors keep the paper's and PEFT's layout, whatever that of the weight. As a Burn
/// [`Reparameterization`] it works on any module: [`Param::val`] is then the base plus the dense
/// update, [`Module::materialize`] folds the update in. Layers that know it take the shorter way
/// on the activations: [`adapted_linear`](crate::adapted_linear),
/// [`adapted_embedding`](crate::adapted_embedding).
///
/// `Module` is implemented by hand because Burn's derive makes a parameter's path from the names of the fields, and
/// so would put the further factors at `mtlora.further.c`. Every factor's path ends in the name that its method
/// declares: `mtlora.a`, `mtlora.c`.
#[derive(Clone, Debug)]
pub struct Adapter {
    /// `A`, the down projection: `[rank, in]`; fused: `[g rank, in]`.
    pub a: Param<Tensor<2>>,
    /// `B`, the up projection: `[out, rank]`; fused: `[g width, rank]`.
    pub b: Param<Tensor<2>>,
    /// The further factors that the method declares, as `C` and `D`.
    pub further: Factors<Param<Tensor<2>>>,
    /// Dropout on the adapter's input while training, with the form's probability. The dense way
    /// cannot express it and leaves it out.
    pub dropout: Dropout,
    /// The method, which projections are adapted, and the scale.
    pub form: AdapterForm,
}

impl Adapter {
    /// The factor with this name: `a`, `b`, or one of the further ones.
    pub fn factor(&self, name: &str) -> Option<&Param<Tensor<2>>> {
        self.factors()
            .find(|(known, _)| *known == name)
            .map(|(_, factor)| factor)
    }

    /// Every factor with its name, in the order in which the method declares them.
    pub fn factors(&self) -> impl Iterator<Item = (&'static str, &Param<Tensor<2>>)> {
        [("a", &self.a), ("b", &self.b)]
            .into_iter()
            .chain(self.further.iter())
    }

    /// `T`: `[rank, rank]` (fused: `[g rank, g rank]`), or `None` where it is the identity.
    pub fn transform(&self) -> Option<Tensor<2>> {
        self.form
            .method
            .transform(&self.further.map_ref(|_, factor| factor.val()))
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
            let after = adapted - before - 1;
            let mut parts = vec![own];
            if before > 0 {
                parts.insert(0, zeros(before * rank));
            }
            if after > 0 {
                parts.push(zeros(after * rank));
            }
            before += 1;
            Tensor::cat(parts, 1)
        });
        Tensor::cat(blocks.collect(), 0)
    }

    /// The update's values, ready to be multiplied.
    pub fn update(&self) -> Update {
        let further = self.further.map_ref(|_, factor| factor.val());
        Update {
            a: self.a.val(),
            up: self.up(),
            transform: self.form.method.transform(&further),
            further,
            scale: self.form.scale,
        }
    }

    /// The dense product of the factors, `scale * B T A`: `[out, in]`. Of most methods it is the update.
    pub fn delta(&self) -> Tensor<2> {
        action::delta(&self.update())
    }

    /// The adapter with each of its factors changed.
    fn map_factors(
        self,
        mut change: impl FnMut(&'static str, Param<Tensor<2>>) -> Param<Tensor<2>>,
    ) -> Self {
        Self {
            a: change("a", self.a),
            b: change("b", self.b),
            further: self.further.map(change),
            ..self
        }
    }
}

impl Reparameterization for Adapter {
    const NAME: &'static str = "mtlora";

    /// Base plus dense update. A base of rank 2 is read as Burn keeps linear and embedding
    /// weights, `[in, out]`; a base of higher rank as Burn keeps convolutions, `[out, in, k...]`.
    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        let matrix = || action::matrix(base.clone());
        let delta = self.form.method.delta(&self.update(), &matrix);
        let delta = if D == 2 { delta.transpose() } else { delta };
        // The sum is made in the factors' precision, as in Burn's own LoRA: a packed base is
        // left for the addition to unpack.
        let base = packed::dense(&base).unwrap_or(base);
        let base = match base.dtype() {
            dtype if dtype.is_float() && dtype != delta.dtype() => base.cast(delta.dtype()),
            _ => base,
        };
        let shape = base.shape();
        base + delta.reshape(shape)
    }
}

/// The kind of container that visitors see, as Burn's derive would name it.
const KIND: &str = "Struct:Adapter";

impl Module for Adapter {
    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        for (name, factor) in self.factors() {
            visitor.enter_module(name, KIND);
            factor.visit(visitor);
            visitor.exit_module(name, KIND);
        }
        visitor.enter_module("dropout", KIND);
        self.dropout.visit(visitor);
        visitor.exit_module("dropout", KIND);
        self.form.show(visitor);
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        let adapter = self.map_factors(|name, factor| {
            mapper.enter_module(name, KIND);
            let factor = Module::map(factor, mapper);
            mapper.exit_module(name, KIND);
            factor
        });
        mapper.enter_module("dropout", KIND);
        let dropout = Module::map(adapter.dropout.clone(), mapper);
        mapper.exit_module("dropout", KIND);
        Self { dropout, ..adapter }
    }

    fn to_device(self, device: &Device) -> Self {
        let dropout = self.dropout.clone().to_device(device);
        let adapter = self.map_factors(|_, factor| factor.to_device(device));
        Self { dropout, ..adapter }
    }

    fn fork(self, device: &Device) -> Self {
        let dropout = self.dropout.clone().fork(device);
        let adapter = self.map_factors(|_, factor| factor.fork(device));
        Self { dropout, ..adapter }
    }

    fn collect_devices(&self, devices: Devices) -> Devices {
        self.factors().fold(devices, |devices, (_, factor)| {
            factor.collect_devices(devices)
        })
    }

    fn materialize(self) -> Self {
        self.map_factors(|_, factor| factor.materialize())
    }

    fn valid(&self) -> Self {
        let adapter = self.clone().map_factors(|_, factor| factor.valid());
        Self {
            dropout: self.dropout.valid(),
            ..adapter
        }
    }

    fn train(self) -> Self {
        let dropout = self.dropout.clone().train();
        let adapter = self.map_factors(|_, factor| factor.train());
        Self { dropout, ..adapter }
    }
}

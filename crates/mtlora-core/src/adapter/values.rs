use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::nn::DropoutConfig;
use burn::tensor::{Device, Tensor, TensorData};

use crate::adapter::attached::attached;
use crate::adapter::factors::Factors;
use crate::adapter::form::AdapterForm;
use crate::adapter::init::{Start, generator};
use crate::adapter::methods::definition::{AdapterMethod, Sizes};
use crate::adapter::methods::structures::Structure;
use crate::adapter::module::Adapter;

/// An adapter on the host: what files hold, and what is computed without a model. The factors'
/// shapes are those of [`Adapter`].
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterValues {
    /// `A`: `[rank, in]`; fused: `[g rank, in]`.
    pub a: TensorData,
    /// `B`: `[out, rank]`; fused: `[g width, rank]`.
    pub b: TensorData,
    /// The further factors that the method declares, as `C` and `D`.
    pub further: Factors<TensorData>,
    /// How they act.
    pub form: AdapterForm,
}

impl AdapterValues {
    /// The values of factors given by name; what is not given is empty.
    pub(super) fn of(
        form: AdapterForm,
        factors: &mut dyn Iterator<Item = (&'static str, TensorData)>,
    ) -> Self {
        let mut all: Factors<TensorData> = factors.collect();
        let mut take = |name| {
            all.remove(name)
                .unwrap_or_else(|| TensorData::zeros::<f32, _>([0, 0]))
        };
        Self {
            a: take("a"),
            b: take("b"),
            further: all,
            form,
        }
    }

    /// The factor with this name: `a`, `b`, or one of the further ones.
    pub fn factor(&self, name: &str) -> Option<&TensorData> {
        self.factors()
            .find(|(known, _)| *known == name)
            .map(|(_, data)| data)
    }

    /// Every factor with its name, in the order in which the method declares them.
    pub fn factors(&self) -> impl Iterator<Item = (&'static str, &TensorData)> {
        [("a", &self.a), ("b", &self.b)]
            .into_iter()
            .chain(self.further.iter())
    }

    /// The rank of each projection's update: the number of columns of `B`.
    pub fn rank(&self) -> usize {
        self.b.shape().get(1).copied().unwrap_or(0)
    }

    /// The rank without what the method has taken out ([`MethodDefinition::kept`](crate::MethodDefinition::kept)); of fused
    /// projections, that of all of them together.
    pub fn rank_in_use(&self) -> usize {
        match self.form.method.kept(&self.further) {
            Some(kept) => kept.into_iter().filter(|kept| *kept).count(),
            None => self.rank(),
        }
    }

    /// The adapter on `device`.
    pub fn to_device(&self, device: &Device) -> Adapter {
        let param = |data: &TensorData| Param::from_data(data.clone(), device);
        Adapter {
            a: param(&self.a),
            b: param(&self.b),
            further: self.further.map_ref(|_, data| param(data)),
            dropout: DropoutConfig::new(self.form.dropout).init(),
            form: self.form.clone(),
        }
    }

    /// The same update in another method, whose `T` starts as the identity. `None` where this one has a `T` of its
    /// own, or the other one's `T` cannot be the identity.
    ///
    /// ```
    /// use burn::tensor::TensorData;
    /// use mtlora_core::{AdapterForm, AdapterValues, Factors, Structure};
    /// let lora = AdapterValues {
    ///     a: TensorData::from([[1.0f32, 2.0, 3.0]]),
    ///     b: TensorData::from([[4.0f32], [5.0]]),
    ///     further: Factors::none(),
    ///     form: AdapterForm::new(Structure::Lora, 2.0),
    /// };
    /// let shim = lora.in_method(Structure::Shim).unwrap();
    /// assert_eq!(shim.factor("c"), Some(&TensorData::from([[1.0f32]])));
    /// ```
    pub fn in_method(mut self, method: impl Into<AdapterMethod>) -> Option<Self> {
        let method = method.into();
        if self.form.method == method {
            return Some(self);
        }
        if self.form.method != Structure::Lora {
            return None;
        }
        let side = |data: &TensorData, at: usize| data.shape().get(at).copied().unwrap_or(0);
        let sizes = Sizes {
            rank: self.rank(),
            total_rank: side(&self.a, 0),
            input: side(&self.a, 1),
            output: side(&self.b, 0),
        };
        for factor in method.further_factors() {
            let shape = (factor.shape)(&sizes);
            // The values are not random, so that the generator's seed does not matter.
            let start = factor
                .neutral
                .filter(|start| *start != Start::OutputNorms)?;
            let values = start.values(&mut generator(0, 0), shape, &Vec::new);
            self.further
                .insert(factor.name, TensorData::new(values, shape));
        }
        self.form.method = method;
        Some(self)
    }
}

impl Adapter {
    /// The adapter's values, on the host.
    pub fn values(&self) -> AdapterValues {
        let data = |param: &Param<Tensor<2>>| param.val().into_data();
        AdapterValues {
            a: data(&self.a),
            b: data(&self.b),
            further: self.further.map_ref(|_, factor| data(factor)),
            form: self.form.clone(),
        }
    }
}

/// Every adapter of a module, by the path of the module whose weight it is on.
pub fn adapters<M: Module>(module: &M) -> BTreeMap<String, AdapterValues> {
    attached(module)
        .into_iter()
        .map(|(path, adapter)| (path, adapter.values()))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};

    use crate::{AttachError, FusedProjections, Init, MtLoraConfig, Targets, attach_adapters};

    #[derive(Module, Debug)]
    struct Net {
        embed: Embedding,
        fused: Linear,
        head: Linear,
    }

    fn net() -> Net {
        let device = crate::devices()[0].device.clone().autodiff();
        Net {
            embed: EmbeddingConfig::new(9, 6).init(&device),
            fused: LinearConfig::new(6, 12).init(&device),
            head: LinearConfig::new(12, 2).init(&device),
        }
    }

    fn adapted(structure: Structure, init: Init) -> Net {
        MtLoraConfig::new(structure)
            .with_rank(2)
            .with_init(init)
            .with_dropout(0.25)
            .with_target_modules(Targets::names(["embed", "fused"]))
            .with_fused_projections(vec![FusedProjections {
                module: "fused".into(),
                adapted: vec![true, false, true],
            }])
            .with_modules_to_save(vec!["head".into()])
            .attach(net())
            .unwrap()
    }

    #[test]
    fn adapters_come_off_one_model_and_go_on_another() {
        let source = adapted(Structure::Ctcm, Init::Zero);
        let values = adapters(&source);
        let paths: Vec<&str> = values.keys().map(String::as_str).collect();
        assert_eq!(paths, ["embed", "fused"]);
        let fused = &values["fused"];
        assert_eq!(fused.a.shape().to_vec(), [4, 6]);
        assert_eq!((fused.rank(), fused.form.groups()), (2, 2));
        assert_eq!((fused.form.scale, fused.form.dropout), (8.0, 0.25));
        let target = attach_adapters(net(), values.clone(), &["head".to_string()]).unwrap();
        assert_eq!(adapters(&target), values);
        assert_eq!(adapters(&target.valid()), values);
        assert!(target.head.weight.base().is_require_grad());
        assert!(!target.fused.weight.base().is_require_grad());
        let trainable = crate::trainable_parameters(&target);
        assert_eq!(trainable, crate::trainable_parameters(&source));
    }

    #[test]
    fn adapters_that_do_not_fit_are_named() {
        let refused = |change: fn(&mut BTreeMap<String, AdapterValues>)| {
            let mut values = adapters(&adapted(Structure::Shim, Init::Kaiming));
            change(&mut values);
            attach_adapters(net(), values, &[]).unwrap_err()
        };
        let error = refused(|values| {
            let one = values.remove("embed").unwrap();
            values.insert("embad".into(), one);
        });
        assert!(matches!(error, AttachError::NoMatch { .. }), "{error}");
        let error = refused(|values| {
            let a = values["fused"].a.clone();
            values.get_mut("embed").unwrap().a = a;
        });
        let text = error.to_string();
        assert!(text.contains("embed") && text.contains("[2, 9]"), "{text}");
        let error = refused(|values| {
            values.get_mut("embed").unwrap().further = Factors::none();
        });
        assert!(error.to_string().contains("no C"), "{error}");
        let error = refused(|values| {
            values.get_mut("embed").unwrap().form.method = Structure::Lora.into();
        });
        assert!(error.to_string().contains("a C that"), "{error}");
    }

    #[test]
    fn lora_goes_on_in_any_structure_with_the_same_update() {
        let device = crate::devices()[0].device.clone();
        let mut lora = adapters(&adapted(Structure::Shim, Init::Zero))["fused"].clone();
        (lora.further, lora.form.method) = (Factors::none(), Structure::Lora.into());
        let update = lora.to_device(&device).delta().into_data();
        for structure in Structure::ALL {
            let other = lora.clone().in_method(structure).unwrap();
            let found = other.to_device(&device).delta().into_data();
            found.assert_approx_eq::<f32>(&update, burn::tensor::Tolerance::absolute(1e-7));
            if structure != Structure::Lora {
                assert!(other.in_method(Structure::Lora).is_none());
            }
        }
    }
}

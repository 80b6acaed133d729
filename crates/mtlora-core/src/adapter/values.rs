use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::DropoutConfig;
use burn::tensor::{Device, Tensor, TensorData};

use crate::adapter::init::diagonal;
use crate::{Adapter, AdapterForm, Structure};

/// An adapter on the host: what files hold, and what is computed without a model. The factors'
/// shapes are those of [`Adapter`].
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterValues {
    /// `A`: `[rank, in]`; fused: `[g rank, in]`.
    pub a: TensorData,
    /// `B`: `[out, rank]`; fused: `[g width, rank]`.
    pub b: TensorData,
    /// `C`: `[rank, rank]`, where the structure has it; fused: `[g rank, g rank]`.
    pub c: Option<TensorData>,
    /// `D`, as `C`.
    pub d: Option<TensorData>,
    /// How they act.
    pub form: AdapterForm,
}

impl AdapterValues {
    /// The rank of each projection's update: the number of columns of `B`.
    pub fn rank(&self) -> usize {
        self.b.shape().get(1).copied().unwrap_or(0)
    }

    /// The adapter on `device`.
    pub fn to_device(&self, device: &Device) -> Adapter {
        let param = |data: &TensorData| Param::from_data(data.clone(), device);
        Adapter {
            a: param(&self.a),
            b: param(&self.b),
            c: self.c.as_ref().map(param),
            d: self.d.as_ref().map(param),
            dropout: DropoutConfig::new(self.form.dropout).init(),
            form: self.form.clone(),
        }
    }

    /// The same update in another structure, whose `T` starts as the identity. None where this one
    /// has a `T` of its own.
    ///
    /// ```
    /// use burn::tensor::TensorData;
    /// use mtlora_core::{AdapterForm, AdapterValues, Structure};
    /// let lora = AdapterValues {
    ///     a: TensorData::from([[1.0f32, 2.0, 3.0]]),
    ///     b: TensorData::from([[4.0f32], [5.0]]),
    ///     c: None,
    ///     d: None,
    ///     form: AdapterForm::new(Structure::Lora, 2.0),
    /// };
    /// let shim = lora.in_structure(Structure::Shim).unwrap();
    /// assert_eq!(shim.c, Some(TensorData::from([[1.0f32]])));
    /// ```
    pub fn in_structure(mut self, structure: Structure) -> Option<Self> {
        if self.form.structure == structure {
            return Some(self);
        }
        if self.form.structure != Structure::Lora {
            return None;
        }
        let side = self.a.shape().first().copied().unwrap_or(0);
        let identity = match structure {
            Structure::Dtsm => diagonal(side, 0.5),
            _ => diagonal(side, 1.0),
        };
        let matrix = || TensorData::new(identity.clone(), [side, side]);
        self.c = structure.has_c().then(matrix);
        self.d = structure.has_d().then(matrix);
        self.form.structure = structure;
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
            c: self.c.as_ref().map(data),
            d: self.d.as_ref().map(data),
            form: self.form.clone(),
        }
    }
}

/// Every adapter of a module, by the path of the module whose weight it is on.
pub fn adapters<M: Module>(module: &M) -> BTreeMap<String, AdapterValues> {
    let mut collect = Collect::default();
    module.visit(&mut collect);
    collect.adapters
}

#[derive(Default)]
struct Collect {
    path: Vec<String>,
    /// The adapter that is being visited.
    factors: BTreeMap<String, TensorData>,
    form: Option<AdapterForm>,
    adapters: BTreeMap<String, AdapterValues>,
}

impl ModuleVisitor for Collect {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        if container_type == "Reparameterization" {
            self.factors.clear();
            self.form = None;
        }
        if let Some(form) = AdapterForm::entered(name, container_type) {
            self.form = Some(form);
        }
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, container_type: &str) {
        self.path.pop();
        if container_type != "Reparameterization" {
            return;
        }
        let mut factor = |name| self.factors.remove(name);
        if let (Some(a), Some(b), Some(form)) = (factor("a"), factor("b"), self.form.take()) {
            let (c, d) = (factor("c"), factor("d"));
            // The last name is the weight's.
            let module = &self.path[..self.path.len().saturating_sub(1)];
            let values = AdapterValues { a, b, c, d, form };
            self.adapters.insert(module.join("."), values);
        }
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let [.., adapter, name] = self.path.as_slice()
            && adapter == "mtlora"
        {
            self.factors.insert(name.clone(), param.val().into_data());
        }
    }
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
        let error = refused(|values| values.get_mut("embed").unwrap().c = None);
        assert!(error.to_string().contains("no C"), "{error}");
        let error = refused(|values| {
            values.get_mut("embed").unwrap().form.structure = Structure::Lora;
        });
        assert!(error.to_string().contains("a C that"), "{error}");
    }

    #[test]
    fn lora_goes_on_in_any_structure_with_the_same_update() {
        let device = crate::devices()[0].device.clone();
        let mut lora = adapters(&adapted(Structure::Shim, Init::Zero))["fused"].clone();
        (lora.c, lora.d, lora.form.structure) = (None, None, Structure::Lora);
        let update = lora.to_device(&device).delta().into_data();
        for structure in Structure::ALL {
            let other = lora.clone().in_structure(structure).unwrap();
            let found = other.to_device(&device).delta().into_data();
            found.assert_approx_eq::<f32>(&update, burn::tensor::Tolerance::absolute(1e-7));
            if structure != Structure::Lora {
                assert!(other.in_structure(Structure::Lora).is_none());
            }
        }
    }
}

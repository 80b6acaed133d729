use std::collections::BTreeMap;

use burn::module::{Module, Param, Reparameterizer};
use burn::tensor::{DType, Tensor};

use crate::adapter::action::matrix;
use crate::adapter::config::MtLoraConfig;
use crate::adapter::error::AttachError;
use crate::adapter::methods::definition::{AdapterMethod, Sizes, WeightKind};
use crate::adapter::module::Adapter;
use crate::adapter::survey::{Adaptable, Weight, parameter_of, sides, survey};
use crate::adapter::targets::ends_with_name;
use crate::adapter::values::AdapterValues;
use crate::packed::unquantized;
use crate::visit::each_parameter;

impl MtLoraConfig {
    /// Freezes `module`, hangs an adapter on each weight that `target_modules` names, and leaves
    /// `modules_to_save` trainable.
    ///
    /// Works on every Burn module: whatever reads a weight through [`Param::val`] sees base plus
    /// update.
    ///
    /// # Errors
    /// When nothing matches a target (with the names that there are), and when a number is out of
    /// its range. `module` is dropped then.
    pub fn attach<M: Module>(&self, module: M) -> Result<M, AttachError> {
        self.validate()?;
        let mut weights = survey(&module);
        weights.retain(|weight| !is_kept(&weight.path, &self.modules_to_save));

        let modules: Vec<(String, bool)> = weights
            .iter()
            .map(|weight| (weight.path.clone(), weight.linear))
            .collect();
        let mut plan = BTreeMap::new();
        for (index, path) in self
            .target_modules
            .select(&modules)?
            .into_iter()
            .enumerate()
        {
            let Some(weight) = weights.iter().find(|weight| weight.path == path) else {
                continue;
            };
            if weight.adapted {
                return Err(AttachError::Adapted {
                    path: path.to_string(),
                });
            }
            self.check_fit(path, sides(&weight.shape))?;
            let fused = self.fused(path).to_vec();
            check_kind(path, self.method, weight, !fused.is_empty())?;
            plan.insert(parameter_of(path), (index as u64, fused));
        }
        Ok(module.apply_reparameterization(Attach {
            modules_to_save: &self.modules_to_save,
            plan,
            adapter: |weight: Adaptable<'_>, (index, fused): (u64, Vec<bool>)| {
                self.start(weight, index, fused)
            },
        }))
    }
}

/// Freezes `module`, hangs the given adapters on its weights (by the path of the module that owns the
/// weight), and leaves `modules_to_save` (paths of modules or parameters, or endings of them) trainable.
///
/// [`adapters`](crate::adapters) reads them back; [`MtLoraConfig::attach`] makes new ones.
///
/// # Errors
/// When there is no such weight, it has an adapter already, or a factor does not fit it. `module` is
/// dropped then.
pub fn attach_adapters<M: Module>(
    module: M,
    adapters: BTreeMap<String, AdapterValues>,
    modules_to_save: &[String],
) -> Result<M, AttachError> {
    let weights = survey(&module);
    let mut plan = BTreeMap::new();
    for (path, values) in adapters {
        let weight = weights.iter().find(|weight| weight.path == path);
        let Some(weight) = weight else {
            return Err(AttachError::NoMatch {
                target: path,
                available: weights.into_iter().map(|w| w.path).collect(),
            });
        };
        if weight.adapted {
            return Err(AttachError::Adapted { path });
        }
        let form = &values.form;
        check_kind(&path, form.method, weight, !form.fused.is_empty())?;
        check_factors(&path, &values, sides(&weight.shape))?;
        plan.insert(parameter_of(&path), values);
    }
    Ok(module.apply_reparameterization(Attach {
        modules_to_save,
        plan,
        adapter: |weight: Adaptable<'_>, values: AdapterValues| values.to_device(weight.device),
    }))
}

/// Whether the method can adapt such a weight.
fn check_kind(
    path: &str,
    method: AdapterMethod,
    weight: &Weight,
    is_fused: bool,
) -> Result<(), AttachError> {
    let kind = if !weight.linear && weight.shape.num_dims() == 2 {
        WeightKind::Embedding
    } else if is_fused {
        WeightKind::Fused
    } else {
        WeightKind::Single
    };
    match method.refuses_weight(kind) {
        None => Ok(()),
        Some(reason) => Err(AttachError::Weight {
            path: path.to_string(),
            method,
            reason,
        }),
    }
}

/// Whether factors have the shapes that the weight, the projections and the structure ask for.
fn check_factors(
    path: &str,
    values: &AdapterValues,
    [input, output]: [usize; 2],
) -> Result<(), AttachError> {
    let fused = &values.form.fused;
    let adapted = values.form.groups();
    if !fused.is_empty() && (adapted == 0 || !output.is_multiple_of(fused.len())) {
        return Err(AttachError::Fused {
            path: path.to_string(),
            output,
            projections: fused.len(),
            adapted,
        });
    }
    let (method, rank) = (values.form.method, values.rank());
    let sizes = Sizes {
        rank,
        // A file may say anything of the rank, also a number that is too large to be multiplied.
        total_rank: adapted.saturating_mul(rank),
        input,
        output: output / fused.len().max(1) * adapted,
    };
    let wrong = |name: &str, expected, found| AttachError::Factor {
        path: path.to_string(),
        factor: name.to_uppercase(),
        method,
        expected,
        found,
    };
    for factor in method.factors() {
        let expected = (factor.shape)(&sizes);
        let found = values.factor(factor.name).map(|data| data.shape().to_vec());
        if found.as_deref() != Some(expected.as_slice()) {
            return Err(wrong(factor.name, Some(expected), found));
        }
    }
    let mut further = values.further.iter();
    match further.find(|(name, _)| method.factor(name).is_none()) {
        None => Ok(()),
        Some((name, data)) => Err(wrong(name, None, Some(data.shape().to_vec()))),
    }
}

/// Whether the parameter or module at `path` belongs to `modules_to_save`.
fn is_kept(path: &str, modules_to_save: &[String]) -> bool {
    let mut ancestors = path.to_string();
    loop {
        if modules_to_save
            .iter()
            .any(|name| ends_with_name(&ancestors, name))
        {
            return true;
        }
        match ancestors.rfind('.') {
            Some(dot) => ancestors.truncate(dot),
            None => return false,
        }
    }
}

struct Attach<'a, T, F> {
    modules_to_save: &'a [String],
    /// The data for each adapter, by the path of the weight that it adapts.
    plan: BTreeMap<String, T>,
    adapter: F,
}

impl<T, F: Fn(Adaptable<'_>, T) -> Adapter> Reparameterizer for Attach<'_, T, F> {
    type Reparam = Adapter;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<Adapter>) {
        if is_kept(path, self.modules_to_save) {
            return (trainable(param), None);
        }
        let param = param.set_require_grad(false);
        let adapter = self.plan.remove(path).map(|from| {
            let weight = Adaptable {
                shape: &param.lazy_shape(),
                device: &param.lazy_device(),
                matrix: &|| matrix(param.base()),
            };
            (self.adapter)(weight, from)
        });
        (param, adapter)
    }
}

/// The parameter in a form that can train: a quantized one is unpacked.
fn trainable<const D: usize>(param: Param<Tensor<D>>) -> Param<Tensor<D>> {
    if !param.is_initialized() || !matches!(param.base().dtype(), DType::QFloat(_)) {
        return param;
    }
    param.map(unquantized).set_require_grad(true)
}

/// The number of values that training changes.
pub fn trainable_parameters<M: Module>(module: &M) -> usize {
    let mut count = 0;
    each_parameter(module, |parameter| {
        if parameter.trains() {
            count += parameter.shape().num_elements();
        }
    });
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Init, Structure, Targets};
    use burn::nn::conv::{Conv2d, Conv2dConfig};
    use burn::nn::{Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig};

    #[derive(Module, Debug)]
    struct Net {
        embed: Embedding,
        query: Linear,
        norm: LayerNorm,
        conv: Conv2d,
        classifier: Linear,
    }

    fn net() -> Net {
        let device = &crate::devices()[0].device.clone().autodiff();
        Net {
            embed: EmbeddingConfig::new(10, 6).init(device),
            query: LinearConfig::new(6, 4).init(device),
            norm: LayerNormConfig::new(4).init(device),
            conv: Conv2dConfig::new([2, 3], [2, 2]).init(device),
            classifier: LinearConfig::new(4, 2).init(device),
        }
    }

    fn config() -> MtLoraConfig {
        MtLoraConfig::new(Structure::Ctcm).with_rank(2)
    }

    #[test]
    fn only_adapters_and_kept_modules_train() {
        let net = config()
            .with_modules_to_save(vec!["classifier".into()])
            .attach(net())
            .unwrap();
        // Linear layers but the kept one: A 2 x 6, B 4 x 2, C and D 2 x 2; the head 4 x 2 + 2.
        assert_eq!(trainable_parameters(&net), 12 + 8 + 8 + 10);
        assert!(
            net.classifier
                .weight
                .reparameterization::<Adapter>()
                .is_none()
        );
    }

    #[test]
    fn every_kind_of_weight_can_be_adapted_and_starts_unchanged() {
        for init in [Init::Kaiming, Init::Identity, Init::Zero] {
            let plain = net();
            let before = plain.conv.weight.val().into_data();
            let targets = Targets::names(["embed", "query", "conv"]);
            let net = config()
                .with_init(init)
                .with_target_modules(targets)
                .attach(plain)
                .unwrap();
            assert!(net.embed.weight.reparameterization::<Adapter>().is_some());
            assert!(net.conv.weight.reparameterization::<Adapter>().is_some());
            net.conv.weight.val().into_data().assert_eq(&before, true);
        }
    }

    /// A packed embedding is unpacked where it is adapted or trained in full.
    #[test]
    fn a_packed_weight_can_be_adapted_and_trained() {
        let values: Vec<f32> = (0..10 * 32).map(|at| (at % 7) as f32 - 3.0).collect();
        let matrix = crate::PackedMatrix::nf4(&values, [10, 32]).unwrap();
        let all = matrix.values();
        let net = || Net {
            embed: EmbeddingConfig::new(10, 32).init(&net().embed.weight.device()),
            ..net()
        };
        let packed = || {
            let value = |path: &str| {
                let matrix = (path == "embed.weight").then(|| matrix.clone());
                Ok::<_, crate::StateError>(matrix.map(crate::LoadedValue::Packed))
            };
            crate::load_each(net(), value).unwrap()
        };
        let targets = Targets::names(["embed"]);
        let adapted = config().with_target_modules(targets).attach(packed());
        let weight = &adapted.unwrap().embed.weight;
        assert!(weight.reparameterization::<Adapter>().is_some());
        let found = weight.val();
        assert_eq!(found.dtype(), DType::F32);
        assert_eq!(found.into_data().try_to_vec::<f32>().unwrap(), all);

        let targets = Targets::names(["query"]);
        let kept = config()
            .with_target_modules(targets)
            .with_modules_to_save(vec!["embed".into()])
            .attach(packed())
            .unwrap();
        assert!(kept.embed.weight.base().is_require_grad());
        let found = kept.embed.weight.val().into_data();
        assert_eq!(found.try_to_vec::<f32>().unwrap(), all);
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        let refused = |config: MtLoraConfig| config.attach(net()).unwrap_err().to_string();
        assert!(refused(config().with_rank(0)).contains("choose 1 to"));
        assert!(refused(config().with_rank(5)).contains("rank 5 does not fit query (6 x 4)"));
        assert!(refused(config().with_alpha(f64::NAN)).contains("alpha"));
        assert!(refused(config().with_dropout(1.0)).contains("dropout"));
        let named = config().with_target_modules(Targets::names(["key"]));
        assert!(refused(named).contains("embed, query, conv, classifier"));
        let zero = MtLoraConfig::new(Structure::Icfm).with_init(Init::Zero);
        assert!(refused(zero).contains("icfm"));
        let twice = config().attach(config().attach(net()).unwrap());
        assert!(twice.unwrap_err().to_string().contains("adapter already"));
    }
}

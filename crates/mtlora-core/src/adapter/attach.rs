use std::collections::BTreeMap;

use burn::config::Config;
use burn::module::{Module, ModuleVisitor, Param, Reparameterizer};
use burn::tensor::{Device, Shape, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::adapter::init::{self, Init, Shapes};
use crate::adapter::targets::ends_with_name;
use crate::{Adapter, AdapterForm, AdapterValues, Structure, Targets};

/// A weight whose output is several projections of one width side by side, as GPT-2's `c_attn` is
/// query, key and value; loralib's `enable_lora`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FusedProjections {
    /// The module: its path or the ending of it.
    pub module: String,
    /// Which of the projections are adapted, in their order.
    pub adapted: Vec<bool>,
}

/// What an MTLoRA adapter is and where it goes. Field names are PEFT's where PEFT has the field.
///
/// ```
/// use mtlora_core::{MtLoraConfig, Structure, Targets};
/// let config = MtLoraConfig::new(Structure::Icfm)
///     .with_rank(4)
///     .with_alpha(32.0)
///     .with_target_modules(Targets::names(["query", "value"]))
///     .with_modules_to_save(vec!["classifier".to_string()]);
/// assert_eq!(config.scale(), 8.0);
/// ```
#[derive(Config, Debug, PartialEq)]
pub struct MtLoraConfig {
    /// How `T` is made.
    pub structure: Structure,
    /// Rows of `A`; from 1 to the smaller side of the smallest adapted weight.
    #[config(default = 8)]
    pub rank: usize,
    /// Numerator of the update's scale.
    #[config(default = 16.0)]
    pub alpha: f64,
    /// Scale by `alpha / sqrt(rank)` (arXiv 2312.03732) in place of `alpha / rank`.
    #[config(default = false)]
    pub use_rslora: bool,
    /// Probability of dropout on the adapter's input while training, in `[0, 1)`.
    #[config(default = 0.0)]
    pub dropout: f64,
    /// How the factors start.
    #[config(default = "Init::Kaiming")]
    pub init: Init,
    /// Which weights are adapted.
    #[config(default = "Targets::AllLinear")]
    pub target_modules: Targets,
    /// Which of the adapted weights are fused projections, and which of those are adapted. A weight
    /// that is not named is one projection.
    #[config(default = "Vec::new()")]
    pub fused_projections: Vec<FusedProjections>,
    /// Modules that train themselves (a task's head): paths, or endings of paths.
    #[config(default = "Vec::new()")]
    pub modules_to_save: Vec<String>,
    /// Seed of the factors' start.
    #[config(default = 0)]
    pub seed: u64,
}

/// Why an adapter cannot be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// No weight has the wanted name.
    #[error("no weight matches the target `{target}`; the model has: {}", list(.available))]
    NoMatch {
        /// The name, expression or keyword.
        target: String,
        /// Every module that could be adapted.
        available: Vec<String>,
    },
    /// The expression is none.
    #[error("the target `{pattern}` is no regular expression: {source}")]
    Pattern {
        /// The text.
        pattern: String,
        /// What is wrong with it.
        source: regex::Error,
    },
    /// The rank does not fit a weight.
    #[error("rank {rank} does not fit {path} ({input} x {output}): choose 1 to {}", .input.min(.output))]
    Rank {
        /// The wanted rank.
        rank: usize,
        /// The weight's module.
        path: String,
        /// Input width.
        input: usize,
        /// Output width.
        output: usize,
    },
    /// The weight does not hold these projections.
    #[error(
        "{path} (output width {output}) cannot be {projections} fused projections of which {adapted} are \
         adapted: their number must divide the width, and one at least must be adapted"
    )]
    Fused {
        /// The weight's module.
        path: String,
        /// Output width.
        output: usize,
        /// How many projections.
        projections: usize,
        /// How many of them are adapted.
        adapted: usize,
    },
    /// A number is out of its range.
    #[error("{name} = {value} is out of range: {wanted}")]
    Range {
        /// The field.
        name: &'static str,
        /// Its value.
        value: f64,
        /// What it may be.
        wanted: &'static str,
    },
    /// The start has no way out, or is no zero update.
    #[error(
        "initialisation `zero` is not for structure `{structure}`, {}; use `kaiming` or `identity`",
        if *.structure == Structure::Lora { "which has no C that could be zero" }
        else { "where the gradient of C Cᵀ vanishes at C = 0, so that nothing would train" }
    )]
    Init {
        /// The structure.
        structure: Structure,
    },
    /// A factor does not fit its weight.
    #[error(
        "{path}: the adapter has {}; are adapter and model of the same kind?",
        match (.found, .expected) {
            (Some(found), Some(expected)) => {
                format!("{factor} of shape {found:?}, where the model's weight needs {expected:?}")
            }
            (None, _) => format!("no {factor}, which its structure needs"),
            (_, None) => format!("a {factor} that its structure does not have"),
        }
    )]
    Factor {
        /// The weight's module.
        path: String,
        /// Which: A, B, C or D.
        factor: &'static str,
        /// The shape that would fit, if it should be there.
        expected: Option<[usize; 2]>,
        /// Its shape, if it is there.
        found: Option<Vec<usize>>,
    },
    /// A weight has a reparameterization already.
    #[error("{path} has an adapter already: call `materialize` first to fold it in")]
    Adapted {
        /// The weight's module.
        path: String,
    },
}

/// The first names, and how many more there are.
fn list(names: &[String]) -> String {
    const SHOWN: usize = 40;
    let mut text = names[..names.len().min(SHOWN)].join(", ");
    if names.len() > SHOWN {
        text.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    text
}

impl MtLoraConfig {
    /// The update's factor: `alpha / rank`, or `alpha / sqrt(rank)` with `use_rslora`.
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.use_rslora { rank.sqrt() } else { rank }
    }

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
        let mut survey = Survey::default();
        module.visit(&mut survey);
        let kept = |path: &str| is_kept(path, &self.modules_to_save);
        survey.weights.retain(|weight| !kept(&weight.path));

        let modules: Vec<(String, bool)> = survey
            .weights
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
            let Some(weight) = survey.weights.iter().find(|weight| weight.path == path) else {
                continue;
            };
            if weight.adapted {
                return Err(AttachError::Adapted {
                    path: path.to_string(),
                });
            }
            self.check_fit(path, sides(&weight.shape))?;
            let fused = self.fused(path).to_vec();
            plan.insert(parameter_of(path), (index as u64, fused));
        }
        Ok(module.apply_reparameterization(Attach {
            modules_to_save: &self.modules_to_save,
            plan,
            adapter: |weight: Adaptable<'_>, (index, fused): (u64, Vec<bool>)| {
                self.adapter(weight, index, fused)
            },
        }))
    }

    /// Which projections of the module at `path` are adapted; empty where it is one.
    fn fused(&self, path: &str) -> &[bool] {
        self.fused_projections
            .iter()
            .find(|fused| ends_with_name(path, &fused.module))
            .map_or(&[], |fused| &fused.adapted)
    }

    /// Whether rank and projections fit a weight.
    fn check_fit(&self, path: &str, [input, output]: [usize; 2]) -> Result<(), AttachError> {
        let fused = self.fused(path);
        let adapted = fused.iter().filter(|adapted| **adapted).count();
        if !fused.is_empty() && (adapted == 0 || !output.is_multiple_of(fused.len())) {
            return Err(AttachError::Fused {
                path: path.to_string(),
                output,
                projections: fused.len(),
                adapted,
            });
        }
        let input = input / adapted.max(1);
        let output = output / fused.len().max(1);
        if self.rank == 0 || self.rank > input.min(output) {
            return Err(AttachError::Rank {
                rank: self.rank,
                path: path.to_string(),
                input,
                output,
            });
        }
        Ok(())
    }

    fn validate(&self) -> Result<(), AttachError> {
        let range = |ok, name, value, wanted| match ok {
            true => Ok(()),
            false => Err(AttachError::Range {
                name,
                value,
                wanted,
            }),
        };
        range(
            self.alpha.is_finite() && self.alpha > 0.0,
            "alpha",
            self.alpha,
            "a positive number",
        )?;
        range(
            (0.0..1.0).contains(&self.dropout),
            "dropout",
            self.dropout,
            "from 0 up to, but not 1",
        )?;
        match self.init.suits(self.structure) {
            true => Ok(()),
            false => Err(AttachError::Init {
                structure: self.structure,
            }),
        }
    }

    fn adapter(&self, weight: Adaptable<'_>, index: u64, fused: Vec<bool>) -> Adapter {
        let [input, output] = sides(weight.shape);
        let form = AdapterForm {
            fused,
            dropout: self.dropout,
            ..AdapterForm::new(self.structure, self.scale())
        };
        let square = form.groups() * self.rank;
        let shapes = Shapes {
            a: [square, input],
            b: [form.groups() * output / form.fused.len().max(1), self.rank],
            square,
        };
        let factors = init::draw(self.init, self.structure, shapes, self.seed, index);
        let values = AdapterValues {
            a: TensorData::new(factors.a, shapes.a),
            b: TensorData::new(factors.b, shapes.b),
            c: factors.c.map(|c| TensorData::new(c, [square, square])),
            d: factors.d.map(|d| TensorData::new(d, [square, square])),
            form,
        };
        values.to_device(weight.device)
    }
}

/// Input and output width of a weight as Burn keeps it: `[in, out]`, or `[out, in, k...]`.
fn sides(shape: &Shape) -> [usize; 2] {
    match shape.num_dims() {
        2 => [shape[0], shape[1]],
        _ => [shape.num_elements() / shape[0].max(1), shape[0]],
    }
}

struct Weight {
    /// Of the module that owns the weight.
    path: String,
    shape: Shape,
    linear: bool,
    adapted: bool,
}

/// Lists every weight that can be adapted.
#[derive(Default)]
struct Survey {
    path: Vec<(String, String)>,
    weights: Vec<Weight>,
}

impl ModuleVisitor for Survey {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        // A weight is visited first, what hangs on it second.
        if let ("Reparameterization", Some(weight)) = (container_type, self.weights.last_mut()) {
            weight.adapted = true;
        }
        self.path
            .push((name.to_string(), container_type.to_string()));
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(((name, container), module)) = self.path.split_last() else {
            return;
        };
        if D < 2 || name != "weight" {
            return;
        }
        let path: Vec<&str> = module.iter().map(|(name, _)| name.as_str()).collect();
        self.weights.push(Weight {
            path: path.join("."),
            shape: param.lazy_shape(),
            linear: container == "Struct:Linear",
            adapted: false,
        });
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
    let mut survey = Survey::default();
    module.visit(&mut survey);
    let mut plan = BTreeMap::new();
    for (path, values) in adapters {
        let weight = survey.weights.iter().find(|weight| weight.path == path);
        let Some(weight) = weight else {
            return Err(AttachError::NoMatch {
                target: path,
                available: survey.weights.into_iter().map(|w| w.path).collect(),
            });
        };
        if weight.adapted {
            return Err(AttachError::Adapted { path });
        }
        check_factors(&path, &values, sides(&weight.shape))?;
        plan.insert(parameter_of(&path), values);
    }
    Ok(module.apply_reparameterization(Attach {
        modules_to_save,
        plan,
        adapter: |weight: Adaptable<'_>, values: AdapterValues| values.to_device(weight.device),
    }))
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
    let rank = values.rank();
    // A file may say anything of the rank, also what no multiplication bears.
    let side = adapted.saturating_mul(rank);
    let structure = values.form.structure;
    let square = |there: bool| there.then_some([side, side]);
    let rows = output / fused.len().max(1) * adapted;
    let factors = [
        ("A", Some(&values.a), Some([side, input])),
        ("B", Some(&values.b), Some([rows, rank])),
        ("C", values.c.as_ref(), square(structure.has_c())),
        ("D", values.d.as_ref(), square(structure.has_d())),
    ];
    for (factor, data, expected) in factors {
        let found = data.map(|data| data.shape().to_vec());
        if found != expected.map(|shape| shape.to_vec()) {
            return Err(AttachError::Factor {
                path: path.to_string(),
                factor,
                expected,
                found,
            });
        }
    }
    Ok(())
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

/// The path of a module's weight. A bare layer is its own root: it has no path.
fn parameter_of(module: &str) -> String {
    match module {
        "" => "weight".to_string(),
        _ => format!("{module}.weight"),
    }
}

/// What an adapter is made for.
#[derive(Clone, Copy)]
struct Adaptable<'a> {
    shape: &'a Shape,
    device: &'a Device,
}

struct Attach<'a, T, F> {
    modules_to_save: &'a [String],
    /// By the path of each weight to adapt, what its adapter is made from.
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
            return (param, None);
        }
        let param = param.set_require_grad(false);
        let adapter = self.plan.remove(path).map(|from| {
            let weight = Adaptable {
                shape: &param.lazy_shape(),
                device: &param.lazy_device(),
            };
            (self.adapter)(weight, from)
        });
        (param, adapter)
    }
}

/// The number of values that training changes.
pub fn trainable_parameters<M: Module>(module: &M) -> usize {
    #[derive(Default)]
    struct Count(usize);
    impl ModuleVisitor for Count {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if param.base().is_require_grad() {
                self.0 += param.lazy_shape().num_elements();
            }
        }
    }
    let mut count = Count::default();
    module.visit(&mut count);
    count.0
}

#[cfg(test)]
mod tests {
    use super::*;
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

    #[test]
    fn scales_are_alpha_over_rank_or_its_root() {
        assert_eq!(config().scale(), 8.0);
        assert_eq!(config().with_rank(4).with_use_rslora(true).scale(), 8.0);
    }
}

use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::adapter::error::AttachError;
use crate::adapter::form::AdapterForm;
use crate::adapter::init::{Init, generator};
use crate::adapter::methods::definition::{AdapterMethod, Sizes};
use crate::adapter::module::Adapter;
use crate::adapter::survey::{Adaptable, sides};
use crate::adapter::targets::{Targets, ends_with_name};
use crate::adapter::values::AdapterValues;

/// A weight whose output consists of several projections of the same width, as GPT-2's `c_attn` consists of query,
/// key and value. It corresponds to loralib's `enable_lora`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FusedProjections {
    /// The module: its path or the ending of it.
    pub module: String,
    /// Which of the projections are adapted, in their order.
    pub adapted: Vec<bool>,
}

/// What an adapter is and where it goes. Field names are PEFT's where PEFT has the field.
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MtLoraConfig {
    /// The method: which factors there are, and what they do.
    pub method: AdapterMethod,
    /// Rows of `A`; from 1 to the smaller side of the smallest adapted weight.
    pub rank: usize,
    /// Numerator of the update's scale.
    pub alpha: f64,
    /// Scale by `alpha / sqrt(rank)` (arXiv 2312.03732) in place of `alpha / rank`.
    pub use_rslora: bool,
    /// Probability of dropout on the adapter's input while training, in `[0, 1)`.
    pub dropout: f64,
    /// How the factors start.
    pub init: Init,
    /// Which weights are adapted.
    pub target_modules: Targets,
    /// Which of the adapted weights are fused projections, and which of those are adapted. A weight
    /// that is not named is one projection.
    pub fused_projections: Vec<FusedProjections>,
    /// Modules that train themselves (a task's head): paths, or endings of paths.
    pub modules_to_save: Vec<String>,
    /// Seed of the factors' start.
    pub seed: u64,
}

impl MtLoraConfig {
    /// An adapter of this method with the defaults: rank 8, alpha 16, no dropout, on every linear layer.
    pub fn new(method: impl Into<AdapterMethod>) -> Self {
        Self {
            method: method.into(),
            rank: 8,
            alpha: 16.0,
            use_rslora: false,
            dropout: 0.0,
            init: Init::Kaiming,
            target_modules: Targets::AllLinear,
            fused_projections: Vec::new(),
            modules_to_save: Vec::new(),
            seed: 0,
        }
    }

    /// Sets the rank.
    pub fn with_rank(mut self, rank: usize) -> Self {
        self.rank = rank;
        self
    }

    /// Sets the numerator of the update's scale.
    pub fn with_alpha(mut self, alpha: f64) -> Self {
        self.alpha = alpha;
        self
    }

    /// Sets whether the scale is `alpha / sqrt(rank)`.
    pub fn with_use_rslora(mut self, use_rslora: bool) -> Self {
        self.use_rslora = use_rslora;
        self
    }

    /// Sets the probability of dropout on the adapter's input.
    pub fn with_dropout(mut self, dropout: f64) -> Self {
        self.dropout = dropout;
        self
    }

    /// Sets how the factors start.
    pub fn with_init(mut self, init: Init) -> Self {
        self.init = init;
        self
    }

    /// Sets which weights are adapted.
    pub fn with_target_modules(mut self, target_modules: Targets) -> Self {
        self.target_modules = target_modules;
        self
    }

    /// Sets which of the adapted weights are fused projections.
    pub fn with_fused_projections(mut self, fused_projections: Vec<FusedProjections>) -> Self {
        self.fused_projections = fused_projections;
        self
    }

    /// Sets which modules train themselves.
    pub fn with_modules_to_save(mut self, modules_to_save: Vec<String>) -> Self {
        self.modules_to_save = modules_to_save;
        self
    }

    /// Sets the seed of the factors' start.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The update's factor: `alpha / rank`, or `alpha / sqrt(rank)` with `use_rslora`, unless the method has a scale of
    /// its own.
    pub fn scale(&self) -> f64 {
        self.alpha / self.method.alpha_divisor(self.rank, self.use_rslora)
    }

    /// Which projections of the module at `path` are adapted; empty where it is one.
    pub(super) fn fused(&self, path: &str) -> &[bool] {
        self.fused_projections
            .iter()
            .find(|fused| ends_with_name(path, &fused.module))
            .map_or(&[], |fused| &fused.adapted)
    }

    /// Whether rank and projections fit a weight.
    pub(super) fn check_fit(
        &self,
        path: &str,
        [input, output]: [usize; 2],
    ) -> Result<(), AttachError> {
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

    pub(super) fn validate(&self) -> Result<(), AttachError> {
        let range = |holds, name, value, wanted| {
            if holds {
                return Ok(());
            }
            Err(AttachError::Range {
                name,
                value,
                wanted,
            })
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
            "at least 0 and below 1",
        )?;
        let (method, init) = (self.method, self.init);
        if let Some(reason) = method.refuses(init) {
            return Err(AttachError::Init {
                init,
                method,
                reason,
            });
        }
        if self.use_rslora && !method.scales_by_root() {
            return Err(AttachError::Scale { method });
        }
        Ok(())
    }

    /// The adapter number `index` of the model, as it starts on `weight`.
    pub(super) fn start(&self, weight: Adaptable<'_>, index: u64, fused: Vec<bool>) -> Adapter {
        let [input, output] = sides(weight.shape);
        let form = AdapterForm {
            fused,
            dropout: self.dropout,
            ..AdapterForm::new(self.method, self.scale())
        };
        let sizes = Sizes {
            rank: self.rank,
            total_rank: form.groups() * self.rank,
            input,
            output: form.groups() * output / form.fused.len().max(1),
        };
        let mut rng = generator(self.seed, index);
        let mut drawn = self.method.factors().iter().map(|factor| {
            let shape = (factor.shape)(&sizes);
            let norms = || adapted_norms((weight.matrix)(), &form.fused);
            let values = (factor.start)(self.init).values(&mut rng, shape, &norms);
            (factor.name, TensorData::new(values, shape))
        });
        let form = form.clone();
        AdapterValues::of(form, &mut drawn).to_device(weight.device)
    }
}

/// The Euclidean norms of the rows of a weight, `[out, in]`, that belong to adapted projections.
fn adapted_norms(weight: Tensor<2>, fused: &[bool]) -> Vec<f32> {
    let norms = weight.square().sum_dim(1).sqrt().into_data();
    let width = norms.num_elements() / fused.len().max(1);
    let adapted = |row: usize| fused.get(row / width.max(1)).copied().unwrap_or(true);
    let rows = norms.iter::<f32>().enumerate();
    rows.filter(|(row, _)| adapted(*row))
        .map(|(_, norm)| norm)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Structure;

    #[test]
    fn scales_are_alpha_over_rank_or_its_root() {
        assert_eq!(MtLoraConfig::new(Structure::Ctcm).with_rank(2).scale(), 8.0);
        assert_eq!(
            MtLoraConfig::new(Structure::Ctcm)
                .with_rank(2)
                .with_rank(4)
                .with_use_rslora(true)
                .scale(),
            8.0
        );
    }
}

use std::path::{Path, PathBuf};

use burn::module::Module;
use mtlora_core::{
    AdaLora, AdaLoraHooks, AdaLoraSchedule, AdapterMethod, BaseDtype, HookError, Init,
    MtLoraConfig, RateGroup, Structure, Targets,
};
use mtlora_models::{
    CheckpointLayout, DefaultTargets, ModelFamilies, TrainedFormat, fused_projections,
};
use serde::{Deserialize, Serialize};

use crate::run::error::RunError;
use crate::run::model::method_name::MethodName;
use crate::training::method::Method;
use crate::training::optimizer::lora_plus::LoraPlus;
use crate::training::options::TrainOptions;

/// The trainable parameters of a run's model, and the settings of its adapter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdapterSettings {
    /// Which parameters are trained.
    pub method: MethodName,
    /// The adapter method, such as `shim`, which determines how `T` is made.
    pub structure: AdapterMethod,
    /// The rank of the update.
    pub rank: usize,
    /// The numerator of the update's scale, alpha / rank.
    pub alpha: f64,
    /// Whether the scale is alpha / sqrt(rank).
    pub use_rslora: bool,
    /// The probability of dropout on the adapter's input.
    pub dropout: f64,
    /// The initialization of the factors.
    pub init: Init,
    /// The folder of an adapter (of a run, or saved by PEFT) whose values the new adapter starts with.
    pub init_from: Option<PathBuf>,
    /// The target modules, in the syntax of [`Targets::parse`]. `None` means those of the adapter in `init_from`, or
    /// of the adapter that was loaded.
    pub targets: Option<String>,
    /// For models with a fused projection, such as GPT-2's `c_attn`: which of query, key and value are adapted, as
    /// letters of `qkv`.
    pub projections: Option<String>,
    /// The precision of the frozen weights.
    #[serde(default)]
    pub base_dtype: BaseDtype,
    /// For AdaLoRA: when and how much it prunes. `None` means PEFT's defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adalora: Option<AdaLoraSchedule>,
}

impl Default for AdapterSettings {
    /// The settings of the paper's RoBERTa runs (arXiv 2403.07440).
    fn default() -> Self {
        let DefaultTargets {
            targets,
            projections,
            ..
        } = ModelFamilies::builtin().default_targets("roberta");
        Self {
            method: MethodName::MtLora,
            structure: Structure::Shim.into(),
            rank: 8,
            alpha: 16.0,
            use_rslora: false,
            dropout: 0.0,
            init: Init::Kaiming,
            init_from: None,
            targets: Some(targets.to_string()),
            projections: projections.map(str::to_string),
            base_dtype: BaseDtype::F32,
            adalora: None,
        }
    }
}

impl AdapterSettings {
    /// Whether the adapter is AdaLoRA's.
    fn is_adalora(&self) -> bool {
        self.method == MethodName::MtLora && self.structure == AdapterMethod::from(AdaLora)
    }

    /// When and how much AdaLoRA prunes, if the adapter is AdaLoRA's.
    pub fn schedule(&self) -> Option<AdaLoraSchedule> {
        self.is_adalora().then(|| self.adalora.unwrap_or_default())
    }

    /// The training hooks of the adapter's method, for a training of this many steps; `None` if it needs none.
    ///
    /// # Errors
    /// If the method's settings do not suit this number of steps or the rank.
    pub fn hooks(&self, steps: usize) -> Result<Option<AdaLoraHooks>, HookError> {
        let Some(schedule) = self.schedule() else {
            return Ok(None);
        };
        schedule.check(steps)?;
        schedule.check_rank(self.rank, steps)?;
        Ok(Some(AdaLoraHooks::new(schedule)))
    }

    /// Checks that options of the training that depend on the adapter's method suit it.
    ///
    /// # Errors
    /// When LoRA+ has learning rates for factors that the method does not have, or for which it has no meaning.
    pub fn check_training(&self, options: &TrainOptions) -> Result<(), RunError> {
        let Some(lora_plus) = options.lora_plus else {
            return Ok(());
        };
        if self.method != MethodName::MtLora {
            return Err(RunError::Settings(
                "loraplus_lr_ratio and loraplus_lr_ratio_t are for the factors of an adapter: leave them out, or choose \
                 method mtlora",
            ));
        }
        if self.is_adalora() {
            return Err(RunError::Settings(
                "LoRA+ is not for adalora, whose A and B start alike and play the same part: leave loraplus_lr_ratio and \
                 loraplus_lr_ratio_t out",
            ));
        }
        let has_t = self
            .structure
            .factors()
            .iter()
            .any(|factor| factor.rate == RateGroup::T);
        if lora_plus.lr_ratio_t != LoraPlus::default().lr_ratio_t && !has_t {
            return Err(RunError::Settings(
                "loraplus_lr_ratio_t is for the factors of T, which this structure does not have: leave it out",
            ));
        }
        Ok(())
    }

    /// Converts the frozen weights of `model` to the precision of `base_dtype`.
    ///
    /// # Errors
    /// If no weight is frozen but a lower precision is set, or the device does not support the precision.
    pub fn keep_base<M: Module>(&self, model: M) -> Result<M, RunError> {
        if self.method == MethodName::Full && self.base_dtype != BaseDtype::F32 {
            return Err(RunError::Settings(
                "method full trains every weight, and trained weights stay in f32: leave base_dtype out",
            ));
        }
        Ok(self.base_dtype.keep(model)?)
    }

    /// The precision in which the base model is read. Trained weights are in 32 bits.
    pub fn base_dtype_to_read(&self) -> BaseDtype {
        match self.method {
            MethodName::Full => BaseDtype::F32,
            MethodName::MtLora | MethodName::Head | MethodName::BitFit => self.base_dtype,
        }
    }

    /// Merges the adapter of `model` into its weights if these are in 32 bits. Weights of lower precision would lose
    /// the update in rounding, so the adapter stays separate.
    pub fn folded<M: Module>(&self, model: M) -> M {
        match self.base_dtype {
            BaseDtype::F32 => model.materialize(),
            BaseDtype::Bf16
            | BaseDtype::F16
            | BaseDtype::Int8
            | BaseDtype::Nf4
            | BaseDtype::Packed => model,
        }
    }

    /// The format of the trained values of `model`, whose base model is in the folder `base`.
    pub(crate) fn format<M: Module>(
        &self,
        model: &M,
        layout: &impl CheckpointLayout,
        base: &Path,
    ) -> Result<TrainedFormat, RunError> {
        let base = base.display().to_string();
        Ok(TrainedFormat::new(model, layout, &base, self.use_rslora)?)
    }

    /// The method with all its settings. `seed` determines the initial values of an adapter, and `modules_to_save`
    /// are trained in full beside it.
    ///
    /// # Errors
    /// If no targets are set, or the projections are not letters of `qkv`.
    pub fn method(&self, modules_to_save: &[&str], seed: u64) -> Result<Method, RunError> {
        let adapter = match self.method {
            MethodName::Full => return Ok(Method::Full),
            MethodName::Head => return Ok(Method::Head),
            MethodName::BitFit => return Ok(Method::BitFit),
            MethodName::MtLora => MtLoraConfig::new(self.structure),
        };
        let fused = match self.projections.as_deref().map(fused_projections) {
            None => Vec::new(),
            Some(Some(fused)) => vec![fused],
            Some(None) => return Err(RunError::Settings("projections must be letters of qkv")),
        };
        let targets = self.targets.as_deref().ok_or(RunError::Settings(
            "targets must be set, because nothing else says which weights are adapted",
        ))?;
        let modules_to_save = modules_to_save.iter().map(|name| name.to_string());
        Ok(Method::MtLora(
            adapter
                .with_rank(self.rank)
                .with_alpha(self.alpha)
                .with_use_rslora(self.use_rslora)
                .with_dropout(self.dropout)
                .with_init(self.init)
                .with_target_modules(Targets::parse(targets))
                .with_fused_projections(fused)
                .with_modules_to_save(modules_to_save.collect())
                .with_seed(seed),
        ))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn learning_rates_for_factors_that_do_not_train_are_refused() {
        let options = |lr_ratio, lr_ratio_t| TrainOptions {
            lora_plus: Some(LoraPlus {
                lr_ratio,
                lr_ratio_t,
            }),
            ..TrainOptions::default()
        };
        let settings = |structure: AdapterMethod| AdapterSettings {
            structure,
            ..AdapterSettings::default()
        };
        for structure in Structure::ALL {
            let settings = settings(structure.into());
            assert!(settings.check_training(&options(16.0, 1.0)).is_ok());
            let with_t = settings.check_training(&options(1.0, 4.0));
            assert_eq!(with_t.is_err(), structure == Structure::Lora);
        }
        let adalora = settings(AdaLora.into());
        let error = adalora.check_training(&options(16.0, 1.0)).unwrap_err();
        assert!(error.to_string().contains("adalora"), "{error}");
        let full = AdapterSettings {
            method: MethodName::Full,
            ..AdapterSettings::default()
        };
        let error = full.check_training(&options(16.0, 1.0)).unwrap_err();
        assert!(error.to_string().contains("loraplus_lr_ratio"), "{error}");
        assert!(full.check_training(&TrainOptions::default()).is_ok());
    }
}

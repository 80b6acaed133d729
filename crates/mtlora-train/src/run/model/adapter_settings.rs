use std::path::{Path, PathBuf};

use burn::module::Module;
use mtlora_core::{AdapterMethod, BaseDtype, Init, MtLoraConfig, Structure, Targets};
use mtlora_models::{
    CheckpointLayout, DefaultTargets, ModelFamilies, TrainedFormat, fused_projections,
};
use serde::{Deserialize, Serialize};

use crate::run::error::RunError;
use crate::run::model::method_name::MethodName;
use crate::training::method::Method;

/// What of a run's model trains, and how its adapter is made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdapterSettings {
    /// What trains.
    pub method: MethodName,
    /// The adapter's method, as `shim`: how `T` is made.
    pub structure: AdapterMethod,
    /// The rank of the update.
    pub rank: usize,
    /// Numerator of the update's scale.
    pub alpha: f64,
    /// Scale by the root of the rank.
    pub use_rslora: bool,
    /// Dropout on the adapter's input.
    pub dropout: f64,
    /// How the factors start.
    pub init: Init,
    /// The folder of the adapter (a run, or one of PEFT's) that it starts with instead.
    pub init_from: Option<PathBuf>,
    /// Which weights are adapted, as [`Targets::parse`] reads it. `None` stands for those of the adapter that
    /// `init_from` names, or that was loaded.
    pub targets: Option<String>,
    /// GPT-2: which of the query, key and value in `c_attn` are adapted, as letters of `qkv`.
    pub projections: Option<String>,
    /// In which precision the frozen weights are kept.
    #[serde(default)]
    pub base_dtype: BaseDtype,
}

impl Default for AdapterSettings {
    /// The settings of the paper's RoBERTa runs (arXiv 2403.07440).
    fn default() -> Self {
        let DefaultTargets {
            targets,
            projections,
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
        }
    }
}

impl AdapterSettings {
    /// Converts the frozen weights of `model` to the precision that they are kept in.
    ///
    /// # Errors
    /// If nothing is frozen that could be kept in less precision, or the device does not support it.
    pub fn keep_base<M: Module>(&self, model: M) -> Result<M, RunError> {
        if self.method == MethodName::Full && self.base_dtype != BaseDtype::F32 {
            return Err(RunError::Settings(
                "method full trains every weight, and what trains stays in f32: leave base_dtype out",
            ));
        }
        Ok(self.base_dtype.keep(model)?)
    }

    /// The precision that the base model is read in. What trains is kept in 32 bits.
    pub fn base_dtype_to_read(&self) -> BaseDtype {
        match self.method {
            MethodName::Full => BaseDtype::F32,
            MethodName::MtLora | MethodName::Head => self.base_dtype,
        }
    }

    /// Folds the adapter of `model` into its weights if these are in f32. Weights in less precision would lose the update
    /// in their rounding, so that their adapter stays beside them.
    pub fn folded<M: Module>(&self, model: M) -> M {
        match self.base_dtype {
            BaseDtype::F32 => model.materialize(),
            BaseDtype::Bf16 | BaseDtype::Int8 => model,
        }
    }

    /// How the trained values of `model`, which is based on the model in `base`, are written.
    pub(crate) fn format<M: Module>(
        &self,
        model: &M,
        layout: &impl CheckpointLayout,
        base: &Path,
    ) -> Result<TrainedFormat, RunError> {
        let base = base.display().to_string();
        Ok(TrainedFormat::new(model, layout, &base, self.use_rslora)?)
    }

    /// What trains: the adapter, whose values start from `seed`, with `modules_to_save`, or else the head or all.
    ///
    /// # Errors
    /// If no targets are set, or the projections are not letters of `qkv`.
    pub fn method(&self, modules_to_save: &[&str], seed: u64) -> Result<Method, RunError> {
        let adapter = match self.method {
            MethodName::Full => return Ok(Method::Full),
            MethodName::Head => return Ok(Method::Head),
            MethodName::MtLora => MtLoraConfig::new(self.structure),
        };
        let fused = match self.projections.as_deref().map(fused_projections) {
            None => Vec::new(),
            Some(Some(fused)) => vec![fused],
            Some(None) => return Err(RunError::Settings("projections must be letters of qkv")),
        };
        let targets = self.targets.as_deref().ok_or(RunError::Settings(
            "targets must be set: nothing says which weights are adapted",
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

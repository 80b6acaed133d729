//! The fields of `adapter_config.json`, and writing them.

use mtlora_core::{AdapterMethod, Dora, FusedProjections, Structure};
use serde_json::{Map, Value, json};

use super::adalora::AdaLoraFields;

/// Advice for adapters that are not computed here: fold them into the base with PEFT, which writes no tokenizer.
pub(super) const MERGE: &str = "merge it in Python (`PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained(out)`), \
                     copy the base's tokenizer files into that folder and use it as the model, or train a plain LoRA";
/// The kind of an adapter, as its folder's configuration states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeftType {
    /// Plain LoRA or DoRA, which PEFT reads.
    Lora,
    /// AdaLoRA, which PEFT reads.
    AdaLora,
    /// An adapter with a `T`, or with fused projections.
    MtLora,
}

/// A choice of modules, as PEFT's configuration states it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetModules {
    /// Modules that have one of these names, or whose name ends with `.` and one of them.
    Names(Vec<String>),
    /// Modules whose whole name matches a regular expression (of Python's kind).
    Pattern(String),
    /// Every linear layer but the head.
    AllLinear,
}

/// The fields of `adapter_config.json`, by PEFT's names.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterConfig {
    /// The kind of adapter.
    pub peft_type: PeftType,
    /// What the model does: `SEQ_CLS`, `CAUSAL_LM`, ...
    pub task_type: Option<String>,
    /// The model that it was trained on.
    pub base_model_name_or_path: Option<String>,
    /// The rank of all modules that `rank_pattern` does not name.
    pub r: usize,
    /// The numerator of the scale of all modules that `alpha_pattern` does not name.
    pub lora_alpha: f64,
    /// Scale by `alpha / sqrt(r)` in place of `alpha / r`.
    pub use_rslora: bool,
    /// Dropout on the adapter's input while training.
    pub lora_dropout: f64,
    /// Whether the weights are kept as `[in, out]`: GPT-2's `Conv1D`. It does not change what the
    /// factors mean.
    pub fan_in_fan_out: bool,
    /// Which modules are adapted; `None`: those for which there are tensors.
    pub target_modules: Option<TargetModules>,
    /// Modules that are not adapted although `target_modules` names them.
    pub exclude_modules: Option<TargetModules>,
    /// The numbers of the layers that are adapted; empty: all layers.
    pub layers_to_transform: Vec<usize>,
    /// The name of the list of layers, as `layer` or `h`; empty: any name.
    pub layers_pattern: Vec<String>,
    /// Ranks of modules whose names end with a match of the expression. The first expression that matches counts.
    pub rank_pattern: Vec<(String, usize)>,
    /// Numerators of scales, in the way of `rank_pattern`.
    pub alpha_pattern: Vec<(String, f64)>,
    /// Modules that were trained themselves.
    pub modules_to_save: Vec<String>,
    /// MTLORA: the method, which the file calls `structure`.
    pub method: AdapterMethod,
    /// MTLORA: which modules are fused projections, by the ends of their names.
    pub fused_projections: Vec<FusedProjections>,
    /// Whether an adapter on GPT-2's token embedding is also one on its output map, because the base model has one
    /// weight for both. For plain LoRA this follows from the modules.
    pub tie_word_embeddings: bool,
    /// ADALORA: the fields that only this kind has.
    pub adalora: Option<AdaLoraFields>,
    /// Fields that are set and that this program does not know. Later versions of PEFT may write such fields.
    pub ignored: Vec<String>,
}

impl AdapterConfig {
    /// A plain LoRA on some modules.
    pub fn new(r: usize, lora_alpha: f64, target_modules: TargetModules) -> Self {
        Self {
            peft_type: PeftType::Lora,
            task_type: None,
            base_model_name_or_path: None,
            r,
            lora_alpha,
            use_rslora: false,
            lora_dropout: 0.0,
            fan_in_fan_out: false,
            target_modules: Some(target_modules),
            exclude_modules: None,
            layers_to_transform: Vec::new(),
            layers_pattern: Vec::new(),
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
            modules_to_save: Vec::new(),
            method: Structure::Lora.into(),
            fused_projections: Vec::new(),
            tie_word_embeddings: true,
            adalora: None,
            ignored: Vec::new(),
        }
    }

    /// The update's factor for a rank and a numerator.
    pub(super) fn scale(&self, rank: usize, alpha: f64) -> f64 {
        alpha / self.divisor(rank)
    }

    fn divisor(&self, rank: usize) -> f64 {
        // AdaLoRA's scale stays as it was before pruning.
        let rank = self.adalora.as_ref().map_or(rank, |fields| fields.init_r);
        self.method.alpha_divisor(rank, self.use_rslora)
    }

    /// The numerator that makes this scale: the shortest one from which [`Self::scale`] computes it exactly, if there
    /// is one.
    pub(super) fn alpha(&self, rank: usize, scale: f64) -> f64 {
        let near = scale * self.divisor(rank);
        let short = (near * 1e6).round() / 1e6;
        let candidates = [short, near, near.next_up(), near.next_down()];
        let exact = |alpha: &f64| self.scale(rank, *alpha) == scale;
        candidates.into_iter().find(exact).unwrap_or(near)
    }

    /// The text of the file. Fields that PEFT's first versions did not have are left out where they have their
    /// default, so that those versions can read it too.
    pub fn to_json(&self) -> String {
        let modules = |modules: &Option<TargetModules>| match modules {
            None => Value::Null,
            Some(TargetModules::Names(names)) => json!(names),
            Some(TargetModules::Pattern(pattern)) => json!(pattern),
            Some(TargetModules::AllLinear) => json!("all-linear"),
        };
        let list = |names: &[String]| {
            if names.is_empty() {
                Value::Null
            } else {
                json!(names)
            }
        };
        let ranks = self.rank_pattern.iter();
        let ranks: Map<_, _> = ranks.map(|(name, r)| (name.clone(), json!(r))).collect();
        let alphas = self.alpha_pattern.iter();
        let alphas: Map<_, _> = alphas
            .map(|(name, alpha)| (name.clone(), number(*alpha)))
            .collect();
        let mut map = Map::new();
        let mut set = |field: &str, value: Value| map.insert(field.to_string(), value);
        set("alpha_pattern", Value::Object(alphas));
        set("auto_mapping", Value::Null);
        set(
            "base_model_name_or_path",
            json!(self.base_model_name_or_path),
        );
        set("bias", json!("none"));
        if self.exclude_modules.is_some() {
            set("exclude_modules", modules(&self.exclude_modules));
        }
        set("fan_in_fan_out", json!(self.fan_in_fan_out));
        if self.peft_type == PeftType::MtLora {
            set("fused_projections", json!(self.fused_projections));
        }
        set("inference_mode", json!(true));
        set("init_lora_weights", json!(true));
        set("layers_pattern", list(&self.layers_pattern));
        let layers = &self.layers_to_transform;
        set(
            "layers_to_transform",
            if layers.is_empty() {
                Value::Null
            } else {
                json!(layers)
            },
        );
        set("lora_alpha", number(self.lora_alpha));
        set("lora_dropout", json!(self.lora_dropout));
        set("modules_to_save", list(&self.modules_to_save));
        set(
            "peft_type",
            json!(match self.peft_type {
                PeftType::Lora => "LORA",
                PeftType::AdaLora => "ADALORA",
                PeftType::MtLora => "MTLORA",
            }),
        );
        set("r", json!(self.r));
        set("rank_pattern", Value::Object(ranks));
        set("revision", Value::Null);
        if self.peft_type == PeftType::MtLora {
            set("structure", json!(self.method));
        }
        set("target_modules", modules(&self.target_modules));
        set("task_type", json!(self.task_type));
        if self.peft_type == PeftType::MtLora && !self.tie_word_embeddings {
            set("tie_word_embeddings", json!(false));
        }
        set(
            "use_dora",
            json!(self.peft_type == PeftType::Lora && self.method == AdapterMethod::from(Dora)),
        );
        set("use_rslora", json!(self.use_rslora));
        if let Some(fields) = &self.adalora {
            fields.write(&mut map);
        }
        let mut text = serde_json::to_string_pretty(&Value::Object(map)).unwrap_or_default();
        text.push('\n');
        text
    }
}

/// Writes a whole number without a decimal point, as PEFT does.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        json!(value as i64)
    } else {
        json!(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alphas_give_their_scale_back() {
        for use_rslora in [false, true] {
            let config = AdapterConfig {
                use_rslora,
                ..AdapterConfig::new(1, 1.0, TargetModules::AllLinear)
            };
            for alpha in [0.5, 1.0, 16.0, 33.0] {
                for rank in 1..70 {
                    let scale = config.scale(rank, alpha);
                    assert_eq!(config.alpha(rank, scale), alpha, "{rank}");
                }
            }
        }
    }
}

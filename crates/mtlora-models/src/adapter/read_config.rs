//! Reading `adapter_config.json`.

use std::collections::BTreeMap;
use std::path::Path;

use mtlora_core::{AdaLora, AdaLoraSchedule, AdapterMethod, Dora, FusedProjections, Structure};
use serde_json::{Map, Value};

use super::adalora::{AdaLoraFields, key_of_e};
use super::config::{AdapterConfig, MERGE, PeftType, TargetModules};
use super::error::AdapterError;
use super::keys::without_prefix;
use super::tied::{TIED, UNTIE_AND_MERGE};
use crate::error::ModelError;
use crate::files::fields::{Fields, MAX_DROPOUT, brief};
use crate::files::names::{ADAPTER_CONFIG_FILE, CONFIG_FILE};
use crate::files::read::read_bounded;
use crate::messages::shown;

/// The largest file that is read.
const MAX_BYTES: u64 = 8 << 20;
/// The largest rank that is accepted.
const MAX_RANK: usize = 1 << 16;
/// The largest layer index that is accepted.
const MAX_LAYER: usize = 1 << 16;
/// The most entries that a pattern field may have: more than any model has modules.
const MAX_PATTERNS: usize = 1 << 14;

const RETRAIN: &str = "train a plain LoRA";
const RESIDUAL: &str = "it trains against a changed base model; save it in Python with \
                        `save_pretrained(out, path_initial_model_for_weight_conversion=...)`, which makes a plain LoRA of it";

/// PEFT's methods that put tokens before the input. They cannot be merged into the weights.
const PROMPTS: [&str; 7] = [
    "PROMPT_TUNING",
    "MULTITASK_PROMPT_TUNING",
    "P_TUNING",
    "PREFIX_TUNING",
    "ADAPTION_PROMPT",
    "CPT",
    "CARTRIDGE",
];

/// Fields of `LoraConfig` that change what the adapter computes if they are set, with their names in messages and
/// the advice to give.
const REFUSED: [(&str, &str, &str); 13] = [
    ("lora_bias", "`lora_bias`", MERGE),
    (
        "alora_invocation_tokens",
        "Activated LoRA (`alora_invocation_tokens`)",
        RETRAIN,
    ),
    ("use_qalora", "QALoRA (`use_qalora`)", MERGE),
    ("use_bdlora", "BD-LoRA (`use_bdlora`)", MERGE),
    ("arrow_config", "Arrow (`arrow_config`)", RETRAIN),
    ("kasa_config", "KaSA (`kasa_config`)", MERGE),
    (
        "monteclora_config",
        "MonteCLoRA (`monteclora_config`)",
        MERGE,
    ),
    ("velora_config", "VeLoRA (`velora_config`)", MERGE),
    (
        "layer_replication",
        "a model with repeated layers (`layer_replication`)",
        RETRAIN,
    ),
    (
        "target_parameters",
        "adapters on bare parameters (`target_parameters`)",
        MERGE,
    ),
    (
        "trainable_token_indices",
        "trained tokens (`trainable_token_indices`)",
        MERGE,
    ),
    (
        "megatron_config",
        "Megatron's layers (`megatron_config`)",
        RETRAIN,
    ),
    (
        "modules_to_tie",
        "tied copies of trained modules (`modules_to_tie`)",
        MERGE,
    ),
];

/// Fields that are read here, or that have no effect once an adapter is trained.
const KNOWN: [&str; 47] = [
    "peft_type",
    "task_type",
    "auto_mapping",
    "peft_version",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
    "r",
    "target_modules",
    "exclude_modules",
    "lora_alpha",
    "lora_dropout",
    "fan_in_fan_out",
    "bias",
    "use_rslora",
    "use_dora",
    "modules_to_save",
    "init_lora_weights",
    "layers_to_transform",
    "layers_pattern",
    "rank_pattern",
    "alpha_pattern",
    "megatron_core",
    "loftq_config",
    "eva_config",
    "corda_config",
    "lora_ga_config",
    "qalora_group_size",
    "runtime_config",
    "ensure_weight_tying",
    "target_modules_to_tie",
    "enable_lora",
    "merge_weights",
    "structure",
    "fused_projections",
    "tie_word_embeddings",
    "init_r",
    "target_r",
    "tinit",
    "tfinal",
    "deltaT",
    "beta1",
    "beta2",
    "orth_reg_weight",
    "total_step",
    "version",
    "_name_or_path",
];

impl AdapterConfig {
    /// Reads the `adapter_config.json` of a folder.
    ///
    /// # Errors
    /// When the folder has no such file, and as [`Self::from_bytes`].
    pub fn from_folder(folder: &Path) -> Result<Self, AdapterError> {
        let path = folder.join(ADAPTER_CONFIG_FILE);
        // A folder that may not be read is reported as such below.
        if matches!(path.try_exists(), Ok(false)) || !folder.is_dir() {
            return Err(AdapterError::NotAnAdapter {
                folder: folder.to_path_buf(),
                missing: format!("it has no {ADAPTER_CONFIG_FILE}"),
                hint: if folder.join(CONFIG_FILE).exists() {
                    "it is a model; give the folder of a run with method mtlora, or one that PEFT's save_pretrained wrote"
                } else {
                    "give the folder of a run with method mtlora, or one that PEFT's save_pretrained wrote"
                },
            });
        }
        let bytes = read_bounded(&path, MAX_BYTES)?;
        Self::from_bytes(&path, &bytes)
    }

    /// Reads the bytes of an `adapter_config.json`; `path` is for the messages.
    ///
    /// # Errors
    /// When it is not JSON, a field is missing or out of range, or the adapter uses a feature of PEFT that is not
    /// computed here; the message names the feature and says what to do.
    pub fn from_bytes(path: &Path, bytes: &[u8]) -> Result<Self, AdapterError> {
        let map: Map<String, Value> =
            serde_json::from_slice(bytes).map_err(|error| ModelError::json(path, &error))?;
        let text = String::from_utf8_lossy(bytes);
        let fields = Fields {
            path,
            text: &text,
            map: &map,
        };
        let peft_type = fields.peft_type()?;
        fields.refuse_lora_variants()?;
        let mut config = Self {
            peft_type,
            task_type: fields.text("task_type")?,
            base_model_name_or_path: fields.text("base_model_name_or_path")?,
            r: fields.size_or("r", 8, 1..=MAX_RANK)?,
            lora_alpha: fields
                .number("lora_alpha", f64::MIN..=f64::MAX)?
                .unwrap_or(8.0),
            use_rslora: fields.flag("use_rslora")?,
            lora_dropout: fields
                .number("lora_dropout", 0.0..=MAX_DROPOUT)?
                .unwrap_or(0.0),
            fan_in_fan_out: fields.flag("fan_in_fan_out")?,
            target_modules: fields.modules("target_modules")?,
            exclude_modules: fields.modules("exclude_modules")?,
            layers_to_transform: fields.layers()?,
            layers_pattern: fields.names("layers_pattern")?,
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
            modules_to_save: fields.names("modules_to_save")?,
            method: Structure::Lora.into(),
            fused_projections: Vec::new(),
            tie_word_embeddings: true,
            adalora: None,
            ignored: Vec::new(),
        };
        if fields.flag("use_dora")? {
            if peft_type != PeftType::Lora {
                let what = "DoRA (`use_dora`) with an adapter other than plain LoRA";
                return Err(AdapterError::unsupported(path, what, RETRAIN));
            }
            config.method = Dora.into();
        }
        if peft_type == PeftType::AdaLora {
            if config.lora_alpha <= 0.0 {
                let message = format!("is {}, but must be above 0", config.lora_alpha);
                return Err(fields.wrong("lora_alpha", message).into());
            }
            config.method = AdaLora.into();
            let adalora = fields.adalora()?;
            config.r = adalora.init_r;
            config.adalora = Some(adalora);
        }
        let ranks = match peft_type {
            // AdaLoRA's field of this name says which rows are left.
            PeftType::AdaLora => Vec::new(),
            _ => fields.patterns("rank_pattern")?,
        };
        for (pattern, value) in ranks {
            let rank = fields.whole("rank_pattern", value, 1..=MAX_RANK)?;
            config.rank_pattern.push((pattern.clone(), rank));
        }
        for (pattern, value) in fields.patterns("alpha_pattern")? {
            let alpha = value.as_f64().filter(|alpha| alpha.is_finite());
            let alpha = alpha.ok_or_else(|| {
                let message = format!("has {}, but must have numbers", brief(value));
                fields.wrong("alpha_pattern", message)
            })?;
            config.alpha_pattern.push((pattern.clone(), alpha));
        }
        if peft_type == PeftType::MtLora {
            config.method = fields.method()?;
            config.fused_projections = fields.fused_projections()?;
            config.tie_word_embeddings = fields.flag_or("tie_word_embeddings", true)?;
        }
        let set = |value: &Value| match value {
            Value::Null | Value::Bool(false) => false,
            Value::Array(values) => !values.is_empty(),
            Value::Object(map) => !map.is_empty(),
            _ => true,
        };
        let refused = REFUSED.map(|(field, ..)| field);
        let unknown = map.iter().filter(|(name, value)| {
            let name = name.as_str();
            set(value) && !KNOWN.contains(&name) && !refused.contains(&name)
        });
        config.ignored = unknown.map(|(name, _)| name.clone()).collect();
        Ok(config)
    }
}

impl Fields<'_> {
    fn peft_type(&self) -> Result<PeftType, AdapterError> {
        let value = self
            .get("peft_type")
            .ok_or_else(|| self.missing("peft_type", "is the kind of adapter"))?;
        match value.as_str() {
            Some("LORA") => Ok(PeftType::Lora),
            Some("MTLORA") => Ok(PeftType::MtLora),
            Some("ADALORA") => Ok(PeftType::AdaLora),
            Some(other) => {
                let hint = if PROMPTS.contains(&other) {
                    RETRAIN
                } else {
                    self.merge()
                };
                let what = format!("an adapter of the type {}", shown(other));
                Err(AdapterError::unsupported(self.path, what, hint))
            }
            None => {
                let message = format!("is {}, but must be LORA, ADALORA or MTLORA", brief(value));
                Err(self.wrong("peft_type", message).into())
            }
        }
    }

    /// Advice on how to fold the adapter into its base in Python.
    fn merge(&self) -> &'static str {
        let tied = |value: &Value| {
            let name = value.as_str().unwrap_or_default();
            TIED.iter().any(|tied| {
                let last = tied.rsplit('.').next().unwrap_or(tied);
                name.rsplit('.').next() == Some(last)
            })
        };
        match self.get("target_modules") {
            Some(Value::Array(names)) if names.iter().any(tied) => UNTIE_AND_MERGE,
            Some(name) if tied(name) => UNTIE_AND_MERGE,
            _ => MERGE,
        }
    }

    fn refuse_lora_variants(&self) -> Result<(), AdapterError> {
        let refused = |what: &str, hint| Err(AdapterError::unsupported(self.path, what, hint));
        for (field, what, hint) in REFUSED {
            let set = match self.get(field) {
                None | Some(Value::Bool(false)) => false,
                Some(Value::Array(values)) => !values.is_empty(),
                Some(Value::Object(map)) => !map.is_empty(),
                Some(_) => true,
            };
            if set && hint == MERGE {
                return refused(what, self.merge());
            }
            if set {
                return refused(what, hint);
            }
        }
        match self.get("bias").map(|value| value.as_str()) {
            None | Some(Some("none")) => {}
            Some(Some(bias @ ("all" | "lora_only"))) => {
                return refused(
                    &format!("trained biases (`bias` {})", shown(bias)),
                    self.merge(),
                );
            }
            Some(_) => {
                let message = "must be \"none\"".to_string();
                return Err(self.wrong("bias", message).into());
            }
        }
        let init = self.get("init_lora_weights").and_then(Value::as_str);
        let residual = ["pissa", "olora", "corda", "loftq", "lora_ga"];
        match init.map(str::to_lowercase) {
            Some(init) if residual.iter().any(|name| init.starts_with(name)) => {
                let what = format!("`init_lora_weights` {}", shown(&init));
                refused(&what, RESIDUAL)
            }
            _ => Ok(()),
        }
    }

    fn flag(&self, field: &str) -> Result<bool, ModelError> {
        self.flag_or(field, false)
    }

    fn text(&self, field: &str) -> Result<Option<String>, ModelError> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(value) => {
                let message = format!("is {}, but must be a text", brief(value));
                Err(self.wrong(field, message))
            }
        }
    }

    /// One name or a list of names.
    fn names(&self, field: &str) -> Result<Vec<String>, ModelError> {
        match self.get(field) {
            Some(Value::String(name)) => Ok(vec![name.clone()]),
            _ => self.strings(field),
        }
    }

    fn modules(&self, field: &str) -> Result<Option<TargetModules>, ModelError> {
        Ok(match self.get(field) {
            None => None,
            Some(Value::String(text)) if text.to_lowercase() == "all-linear" => {
                Some(TargetModules::AllLinear)
            }
            Some(Value::String(text)) => Some(TargetModules::Pattern(text.clone())),
            Some(_) => Some(TargetModules::Names(self.strings(field)?)),
        })
    }

    fn layers(&self) -> Result<Vec<usize>, ModelError> {
        const FIELD: &str = "layers_to_transform";
        match self.get(FIELD) {
            None => Ok(Vec::new()),
            Some(Value::Array(layers)) => layers
                .iter()
                .map(|layer| self.whole(FIELD, layer, 0..=MAX_LAYER))
                .collect(),
            Some(layer) => Ok(vec![self.whole(FIELD, layer, 0..=MAX_LAYER)?]),
        }
    }

    fn patterns(&self, field: &str) -> Result<Vec<(&String, &Value)>, ModelError> {
        match self.get(field) {
            None => Ok(Vec::new()),
            Some(Value::Object(map)) if map.len() <= MAX_PATTERNS => Ok(map.iter().collect()),
            Some(value) => {
                let message = format!(
                    "is {}, but must be an object of at most {MAX_PATTERNS} fields",
                    brief(value)
                );
                Err(self.wrong(field, message))
            }
        }
    }

    /// The fields of PEFT's `AdaLoraConfig`, with its defaults.
    fn adalora(&self) -> Result<AdaLoraFields, ModelError> {
        let steps = 0..=u32::MAX as usize;
        let size = |field, default| self.size_or(field, default, steps.clone());
        let default = AdaLoraSchedule::default();
        let fraction = |field, default| {
            let found = self.number(field, 0.0..=1.0)?;
            Ok::<f64, ModelError>(found.unwrap_or(default))
        };
        let init_r = self.size_or("init_r", 12, 1..=MAX_RANK)?;
        let schedule = AdaLoraSchedule {
            target_rank: size("target_r", default.target_rank)?,
            initial_steps: size("tinit", default.initial_steps)?,
            final_steps: size("tfinal", default.final_steps)?,
            interval: size("deltaT", default.interval)?,
            sensitivity_decay: fraction("beta1", default.sensitivity_decay)?,
            uncertainty_decay: fraction("beta2", default.uncertainty_decay)?,
            penalty: self
                .number("orth_reg_weight", f64::MIN..=f64::MAX)?
                .unwrap_or(default.penalty),
            final_phase: default.final_phase,
        };
        let total_step = match self.get("total_step") {
            None => None,
            Some(value) => Some(self.whole("total_step", value, steps.clone())?),
        };
        let mut rank_pattern = BTreeMap::new();
        for (key, value) in self.patterns("rank_pattern")? {
            let module = key
                .strip_suffix(key_of_e())
                .and_then(|name| name.strip_suffix('.'));
            let kept = value.as_array().map(|kept| kept.iter().map(Value::as_bool));
            let kept: Option<Vec<bool>> = kept.and_then(Iterator::collect);
            let (Some(module), Some(kept)) = (module, kept.filter(|kept| kept.len() == init_r))
            else {
                let message = format!(
                    "has {} for {}, but must have {init_r} times true or false for each module's lora_E",
                    brief(value),
                    shown(key)
                );
                return Err(self.wrong("rank_pattern", message));
            };
            rank_pattern.insert(without_prefix(module).to_string(), kept);
        }
        Ok(AdaLoraFields {
            init_r,
            schedule,
            total_step,
            rank_pattern,
        })
    }

    fn method(&self) -> Result<AdapterMethod, ModelError> {
        let value = self
            .get("structure")
            .ok_or_else(|| self.missing("structure", "is how T is made"))?;
        match value.as_str().map(str::parse) {
            Some(Ok(method)) => Ok(method),
            _ => {
                let message = format!(
                    "is {}, but must be one of {}",
                    brief(value),
                    AdapterMethod::names()
                );
                Err(self.wrong("structure", message))
            }
        }
    }

    fn fused_projections(&self) -> Result<Vec<FusedProjections>, ModelError> {
        const FIELD: &str = "fused_projections";
        match self.get(FIELD) {
            None => Ok(Vec::new()),
            Some(value) => serde_json::from_value(value.clone()).map_err(|_| {
                let message = format!(
                    "is {}, but must be a list of {{\"module\": a name, \"adapted\": a list of true and false}}",
                    brief(value)
                );
                self.wrong(FIELD, message)
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(text: &str) -> Result<AdapterConfig, AdapterError> {
        AdapterConfig::from_bytes(Path::new("adapter_config.json"), text.as_bytes())
    }

    fn with(fields: &str) -> String {
        format!("{{\"peft_type\": \"LORA\", \"r\": 4{fields}}}")
    }

    #[test]
    fn what_is_written_is_read_back() {
        let plain = AdapterConfig {
            task_type: Some("SEQ_CLS".into()),
            base_model_name_or_path: Some("roberta-base".into()),
            use_rslora: true,
            lora_alpha: 0.1 + 0.2,
            fan_in_fan_out: true,
            exclude_modules: Some(TargetModules::Pattern(".*key".into())),
            layers_to_transform: vec![0, 3],
            layers_pattern: vec!["layer".into()],
            rank_pattern: vec![("b".into(), 2), ("a".into(), 3)],
            alpha_pattern: vec![("a".into(), 3.0), ("b".into(), 0.5)],
            modules_to_save: vec!["classifier".into()],
            ..AdapterConfig::new(4, 16.0, TargetModules::Names(vec!["query".into()]))
        };
        let mtlora = AdapterConfig {
            peft_type: PeftType::MtLora,
            method: Structure::Dtsm.into(),
            fused_projections: vec![FusedProjections {
                module: "c_attn".into(),
                adapted: vec![true, false, true],
            }],
            tie_word_embeddings: false,
            ..AdapterConfig::new(4, 16.0, TargetModules::AllLinear)
        };
        for config in [plain, mtlora] {
            assert_eq!(read(&config.to_json()).unwrap(), config);
        }
    }

    #[test]
    fn pefts_own_file_is_read() {
        let config = read(&with(
            ", \"lora_alpha\": 32, \"target_modules\": \"all-LINEAR\", \"bias\": \"none\", \"use_dora\": false,
             \"layers_to_transform\": 2, \"qalora_group_size\": 16, \"megatron_core\": \"megatron.core\",
             \"loftq_config\": {}, \"init_lora_weights\": \"gaussian\", \"a_later_field\": 3, \"another\": null",
        ))
        .unwrap();
        assert_eq!((config.r, config.lora_alpha), (4, 32.0));
        assert_eq!(config.target_modules, Some(TargetModules::AllLinear));
        assert_eq!(config.layers_to_transform, [2]);
        assert_eq!(config.ignored, ["a_later_field"]);
        assert!(
            read(&config.to_json())
                .unwrap()
                .to_json()
                .contains("\"lora_alpha\": 32,")
        );
    }

    #[test]
    fn dora_is_read_and_written_and_is_only_plain_lora() {
        let config = read(&with(", \"use_dora\": true")).unwrap();
        assert_eq!(config.method, AdapterMethod::from(Dora));
        assert_eq!(read(&config.to_json()).unwrap(), config);
        for other in ["\"MTLORA\", \"structure\": \"shim\"", "\"ADALORA\""] {
            let text = format!("{{\"peft_type\": {other}, \"use_dora\": true}}");
            let error = read(&text).unwrap_err().to_string();
            assert!(error.contains("DoRA"), "{error}");
        }
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name_with_the_way_out() {
        let refused = |text: &str| read(text).unwrap_err().to_string();
        for (fields, name, hint) in [
            (", \"lora_bias\": true", "lora_bias", "merge_and_unload"),
            (
                ", \"alora_invocation_tokens\": [1]",
                "Activated LoRA",
                "train",
            ),
            (", \"bias\": \"all\"", "trained biases", "merge"),
            (
                ", \"init_lora_weights\": \"pissa_niter_4\"",
                "pissa_niter_4",
                "path_initial_model_for_weight_conversion",
            ),
            (
                ", \"target_parameters\": [\"x\"]",
                "target_parameters",
                "merge",
            ),
        ] {
            let text = refused(&with(fields));
            assert!(text.contains(name) && text.contains(hint), "{text}");
            assert!(text.starts_with("adapter_config.json: "), "{text}");
        }
        let text = refused("{\"peft_type\": \"IA3\"}");
        assert!(text.contains("`IA3`") && text.contains("merge_and_unload"));
        let text = refused("{\"peft_type\": \"PREFIX_TUNING\"}");
        assert!(text.contains("PREFIX_TUNING") && !text.contains("merge"));
        assert!(refused("{}").contains("peft_type"));
        assert!(refused(&with(", \"r\": 0")).contains("`r`"));
        assert!(refused(&with(", \"rank_pattern\": {\"a\": 0}")).contains("rank_pattern"));
        assert!(refused("{\"peft_type\": \"MTLORA\", \"r\": 1}").contains("structure"));
    }

    /// PEFT 0.21.2 merges into a weight that has two names for both of them.
    #[test]
    fn the_way_out_unties_what_merging_would_change_twice() {
        let said = |targets: &str| {
            let text = with(&format!(
                ", \"lora_bias\": true, \"target_modules\": {targets}"
            ));
            read(&text).unwrap_err().to_string()
        };
        for targets in [
            "[\"lm_head\"]",
            "[\"c_attn\", \"wte\"]",
            "[\"transformer.wte\"]",
            "\"lm_head\"",
        ] {
            let text = said(targets);
            assert!(
                text.contains("base.config.tie_word_embeddings = False"),
                "{text}"
            );
            assert!(text.contains("tokenizer files"), "{text}");
        }
        for targets in ["[\"c_attn\", \"mywte\"]", "\"all-linear\"", "[3]", "null"] {
            let text = said(targets);
            assert!(!text.contains("tie_word_embeddings"), "{text}");
            assert!(
                text.contains("merge_and_unload") && text.contains("tokenizer files"),
                "{text}"
            );
        }
    }
}

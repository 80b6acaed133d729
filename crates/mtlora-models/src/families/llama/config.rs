//! The configuration of a Llama-style decoder: `config.json` of a Hugging Face model folder.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::architecture::{Architecture, Bias, MODEL_TYPES, Windows};
use super::positions;
use crate::error::ModelError;
use crate::families::config_file::ConfigFile;
use crate::families::sizes::ModelSizes;
use crate::families::text_config::TextConfig;
use crate::files::fields::{Fields, MAX_DROPOUT, brief};
use crate::layers::activation::Activation;
use crate::layers::attention::{Attention, AttentionSpec, PositionScheme};

/// The configuration of a Llama-style decoder: a `llama`, `mistral`, `qwen2`, `qwen3` or `smollm3`. The fields are named as
/// in config.json. [`Self::to_json`] writes them back and keeps all other fields of the file.
#[derive(Clone, Debug)]
pub struct LlamaConfig {
    pub(super) architecture: &'static Architecture,
    /// The number of rows of the token embedding.
    pub vocab_size: usize,
    /// The width of the hidden states.
    pub hidden_size: usize,
    /// The width between the two maps of the feed-forward block.
    pub intermediate_size: usize,
    /// The number of layers.
    pub num_hidden_layers: usize,
    /// The number of heads of the query.
    pub num_attention_heads: usize,
    /// The number of heads of key and value, which divides that of the query.
    pub num_key_value_heads: usize,
    /// The width of a head.
    pub head_dim: usize,
    /// The maximum length of a sequence in tokens.
    pub max_position_embeddings: usize,
    /// The activation function of the feed-forward block.
    pub hidden_act: Activation,
    /// The dropout probability of the attention probabilities; at least 0 and below 1.
    pub attention_dropout: f64,
    /// What the norms add to the mean square.
    pub rms_norm_eps: f64,
    /// The standard deviation of the normal distribution from which new weights are drawn.
    pub initializer_range: f64,
    /// The id of the token that ends a text; if the file has a list, its first.
    pub eos_token_id: u32,
    /// Whether the output map and the token embedding are one weight. If a checkpoint has both tensors with different
    /// values, the model has a separate output map whatever this says.
    pub tie_word_embeddings: bool,
    /// Which maps have a bias.
    pub(super) biases: Biases,
    /// The attention of each layer.
    pub(super) attentions: Vec<Attention>,
    /// The original fields of the file, in their order.
    original: Map<String, Value>,
}

/// Which linear maps have a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Biases {
    /// Those of query, key and value.
    pub projections: bool,
    /// That of the attention's output.
    pub output: bool,
    /// Those of the feed-forward block.
    pub mlp: bool,
}

impl LlamaConfig {
    /// Reads `config.json` of a model folder.
    ///
    /// # Errors
    /// If there is no such folder or file, it is not JSON, the architecture is another one, or a field is missing, out of
    /// range, or asks for what is not computed. The error names the file and the field.
    pub fn from_folder(folder: &Path) -> Result<Self, ModelError> {
        Self::from_file(&ConfigFile::open(folder)?)
    }

    /// A new configuration with these sizes, whose output map is the token embedding, as in the published models below
    /// three billion parameters.
    ///
    /// # Errors
    /// If the architecture is another one, or a size is out of range.
    pub fn new(model_type: &str, sizes: &ModelSizes) -> Result<Self, ModelError> {
        let last = sizes.vocab_size.saturating_sub(1) as u32;
        let end = sizes.end_of_text.unwrap_or(last);
        let mut fields = json!({
            "bos_token_id": end,
            "eos_token_id": end,
            "hidden_act": "silu",
            "hidden_size": sizes.hidden_size,
            "initializer_range": 0.02,
            "intermediate_size": sizes.inner(),
            "max_position_embeddings": sizes.max_tokens,
            "model_type": model_type,
            "num_attention_heads": sizes.heads,
            "num_hidden_layers": sizes.layers,
            "num_key_value_heads": sizes.key_value_heads.unwrap_or(sizes.heads),
            "rms_norm_eps": 1e-5,
            "sliding_window": null,
            "tie_word_embeddings": true,
            "vocab_size": sizes.vocab_size,
        });
        let head_width = sizes
            .head_width
            .or_else(|| sizes.hidden_size.checked_div(sizes.heads));
        if let Some(map) = fields.as_object_mut() {
            map.insert("head_dim".to_string(), json!(head_width));
        }
        let map = match fields {
            Value::Object(map) => map,
            _ => Map::new(),
        };
        Self::from_file(&ConfigFile::from_map(map))
    }

    /// Reads the fields of a `config.json`.
    ///
    /// # Errors
    /// As [`Self::from_folder`].
    pub fn from_file(file: &ConfigFile) -> Result<Self, ModelError> {
        let Some(architecture) = Architecture::of(&file.model_type()?) else {
            return Err(file.unsupported(MODEL_TYPES.to_vec()));
        };
        let fields = file.fields();
        refuse_variants(&fields)?;
        let vocab_size = fields.size("vocab_size", "is the number of tokens", 1..=1 << 24)?;
        let width = "is the width of the hidden states";
        let hidden_size = fields.size("hidden_size", width, 1..=1 << 16)?;
        let heads = fields.size(
            "num_attention_heads",
            "is the number of attention heads",
            1..=1 << 16,
        )?;
        let layers = fields.size("num_hidden_layers", "is the number of layers", 1..=1 << 10)?;
        let positions = "is the number of positions";
        let max_positions = fields.size("max_position_embeddings", positions, 1..=1 << 30)?;
        let inner = "is the width of the feed-forward block";
        let key_value_heads = key_value_heads(&fields, architecture, heads)?;
        let head_dim = head_dim(&fields, architecture, hidden_size, heads)?;
        let rotary = positions::read(&fields, architecture.theta, max_positions)?;
        let has_positions = has_positions(&fields, architecture, layers)?;
        let windows = windows(&fields, architecture, &has_positions)?;
        let attentions = windows.into_iter().zip(has_positions);
        let attentions = attentions.map(|(window, has_positions)| {
            let spec = AttentionSpec {
                key_value_heads,
                window,
                positions: if has_positions {
                    PositionScheme::Rotary(rotary)
                } else {
                    PositionScheme::InHiddenStates
                },
                ..AttentionSpec::new(heads, head_dim).causal()
            };
            spec.build()
        });
        let bias = |bias| match bias {
            Bias::Never => Ok(false),
            Bias::Always => Ok(true),
            Bias::Field(field) => fields.flag_or(field, false),
        };
        let [projections, output] = architecture.attention_bias;
        let dropout = fields.number("attention_dropout", 0.0..=MAX_DROPOUT)?;
        Ok(Self {
            architecture,
            vocab_size,
            hidden_size,
            intermediate_size: fields.size("intermediate_size", inner, 1..=1 << 20)?,
            num_hidden_layers: layers,
            num_attention_heads: heads,
            num_key_value_heads: key_value_heads,
            head_dim,
            max_position_embeddings: max_positions,
            hidden_act: fields.activation("hidden_act", Activation::Silu)?,
            attention_dropout: dropout.unwrap_or(0.0),
            rms_norm_eps: fields.number("rms_norm_eps", 1e-30..=1.0)?.unwrap_or(1e-6),
            initializer_range: fields
                .number("initializer_range", 0.0..=10.0)?
                .unwrap_or(0.02),
            eos_token_id: end_of_text(&fields, architecture, vocab_size - 1)?,
            tie_word_embeddings: fields.flag_or("tie_word_embeddings", architecture.ties)?,
            biases: Biases {
                projections: bias(projections)?,
                output: bias(output)?,
                mlp: bias(architecture.mlp_bias)?,
            },
            attentions: attentions.collect::<Result<_, _>>()?,
            original: file.map().clone(),
        })
    }

    /// The configuration as the text of a config.json: the fields of the file, with the current `tie_word_embeddings`
    /// and `attention_dropout`. The element type is set to float32, in which weights are written.
    pub fn to_json(&self) -> String {
        let mut map = self.original.clone();
        for (key, value) in [
            ("architectures", json!([self.architecture.class])),
            ("attention_dropout", json!(self.attention_dropout)),
            ("tie_word_embeddings", json!(self.tie_word_embeddings)),
        ] {
            map.insert(key.to_string(), value);
        }
        for key in ["dtype", "torch_dtype"] {
            if let Some(old) = map.get_mut(key) {
                *old = json!("float32");
            }
        }
        format!("{:#}\n", Value::Object(map))
    }

    /// Whether each head of query and key is normalised.
    pub(super) fn normalises_heads(&self) -> bool {
        self.architecture.normalises_heads
    }
}

/// Refuses what would quietly give other numbers than transformers.
fn refuse_variants(fields: &Fields<'_>) -> Result<(), ModelError> {
    fields.refuse_other_models()?;
    for field in ["rope_interleaved", "use_mrope", "add_cross_attention"] {
        if let Some(value) = fields.get(field).filter(|value| **value != json!(false)) {
            let message = format!("is {}, but only false is supported", brief(value));
            return Err(fields.wrong(field, message));
        }
    }
    Ok(())
}

fn key_value_heads(
    fields: &Fields<'_>,
    architecture: &Architecture,
    heads: usize,
) -> Result<usize, ModelError> {
    let field = "num_key_value_heads";
    // In transformers, null is as many as of the query, and an absent field is the architecture's default.
    let usual = match fields.map.contains_key(field) {
        true => heads,
        false => architecture.key_value_heads.unwrap_or(heads),
    };
    let found = fields.size_or(field, usual, 1..=1 << 16)?;
    if !heads.is_multiple_of(found) {
        let message = format!(
            "is {found}, which does not divide num_attention_heads, {heads}; one of the two is wrong"
        );
        return Err(fields.wrong(field, message));
    }
    Ok(found)
}

fn head_dim(
    fields: &Fields<'_>,
    architecture: &Architecture,
    hidden_size: usize,
    heads: usize,
) -> Result<usize, ModelError> {
    let found = match fields.get("head_dim") {
        Some(value) => Some(fields.whole("head_dim", value, 1..=1 << 16)?),
        None => architecture.head_dim,
    };
    let found = match found {
        Some(found) => found,
        None if hidden_size.is_multiple_of(heads) => hidden_size / heads,
        None => {
            let message = format!(
                "is {heads}, which does not divide hidden_size, {hidden_size}, and there is no head_dim; one of the \
                 two is wrong"
            );
            return Err(fields.wrong("num_attention_heads", message));
        }
    };
    if !found.is_multiple_of(2) {
        let field = match fields.get("head_dim") {
            Some(_) => "head_dim",
            None => "hidden_size",
        };
        let message = format!("makes heads of width {found}, which must be even to have positions");
        return Err(fields.wrong(field, message));
    }
    Ok(found)
}

/// Whether each layer knows its tokens' positions.
fn has_positions(
    fields: &Fields<'_>,
    architecture: &Architecture,
    layers: usize,
) -> Result<Vec<bool>, ModelError> {
    if !architecture.has_layers_without_positions {
        return Ok(vec![true; layers]);
    }
    let field = "no_rope_layers";
    let Some(value) = fields.get(field) else {
        let interval = fields.size_or("no_rope_layer_interval", 4, 1..=1 << 20)?;
        return Ok((1..=layers).map(|layer| layer % interval != 0).collect());
    };
    let found = value.as_array().filter(|found| found.len() >= layers);
    let found = found.and_then(|found| {
        let flags = found.iter().take(layers).map(|flag| match flag.as_u64() {
            Some(flag @ (0 | 1)) => Some(flag == 1),
            _ => None,
        });
        flags.collect::<Option<Vec<_>>>()
    });
    found.ok_or_else(|| {
        let message = format!(
            "is {}, but must be a list of a 0 or 1 for each of the {layers} layers",
            brief(value)
        );
        fields.wrong(field, message)
    })
}

/// How many of the last tokens each layer sees, where that is limited.
fn windows(
    fields: &Fields<'_>,
    architecture: &Architecture,
    has_positions: &[bool],
) -> Result<Vec<Option<usize>>, ModelError> {
    const SLIDING: &str = "sliding_attention";
    let layers = has_positions.len();
    let field = "sliding_window";
    let size = |usual| match fields.map.contains_key(field) {
        true => {
            let value = fields.get(field);
            value.map_or(Ok(None), |value| {
                fields.whole(field, value, 1..=1 << 30).map(Some)
            })
        }
        false => Ok(usual),
    };
    let kinds = fields.strings("layer_types")?;
    let other = kinds
        .iter()
        .find(|kind| !["full_attention", SLIDING].contains(&kind.as_str()));
    if let Some(other) = other {
        let message = format!(
            "has the kind {}, but only `full_attention` and `{SLIDING}` are supported",
            brief(&json!(other))
        );
        return Err(fields.wrong("layer_types", message));
    }
    let slides = |layer: usize| kinds.get(layer).is_some_and(|kind| kind == SLIDING);
    let usual = match architecture.windows {
        Windows::Never | Windows::EveryLayer(_) => {
            let window = match architecture.windows {
                Windows::EveryLayer(usual) => size(Some(usual))?,
                _ => None,
            };
            if let Some(layer) = (0..kinds.len()).find(|layer| slides(*layer) != window.is_some()) {
                let message = format!(
                    "says {} of layer {layer}, which a `{}` of transformers does not heed; use a model of another type",
                    brief(&json!(kinds[layer])),
                    architecture.model_type
                );
                return Err(fields.wrong("layer_types", message));
            }
            return Ok(vec![window; layers]);
        }
        Windows::LayersFrom(_) => Some(4096),
        Windows::LayersWithoutPositions => None,
    };
    let uses = fields.flag_or("use_sliding_window", false)?;
    let window = if uses { size(usual)? } else { None };
    if kinds.is_empty() {
        let slides: Vec<bool> = match architecture.windows {
            Windows::LayersFrom(first) => {
                let first = fields.size_or("max_window_layers", first, 0..=1 << 20)?;
                (0..layers).map(|layer| layer >= first).collect()
            }
            _ => has_positions.iter().map(|has| !has).collect(),
        };
        return Ok(slides
            .into_iter()
            .map(|slides| window.filter(|_| slides))
            .collect());
    }
    if kinds.len() < layers {
        let message = format!("has {} kinds for {layers} layers", kinds.len());
        return Err(fields.wrong("layer_types", message));
    }
    if window.is_none() && (0..layers).any(slides) {
        let message = format!(
            "has the kind `{SLIDING}`, but there is no sliding_window, or use_sliding_window is not true"
        );
        return Err(fields.wrong("layer_types", message));
    }
    Ok((0..layers)
        .map(|layer| window.filter(|_| slides(layer)))
        .collect())
}

/// The id of the token that ends a text: that of the file, the first of its list, or the architecture's default.
fn end_of_text(
    fields: &Fields<'_>,
    architecture: &Architecture,
    last: usize,
) -> Result<u32, ModelError> {
    let field = "eos_token_id";
    let found = match fields.get(field) {
        Some(Value::Array(ids)) => match ids.first() {
            Some(first) => fields.whole(field, first, 0..=last)?,
            None => {
                let message = "is an empty list, but must be a token's id".to_string();
                return Err(fields.wrong(field, message));
            }
        },
        Some(value) => fields.whole(field, value, 0..=last)?,
        None => match architecture.end_of_text {
            Some(usual) => usual.min(last),
            None => return Err(fields.missing(field, "is the token that ends a text")),
        },
    };
    Ok(found as u32)
}

impl TextConfig for LlamaConfig {
    fn model_type(&self) -> &str {
        self.architecture.model_type
    }

    fn tokenizer_class(&self) -> Option<&str> {
        self.original.get("tokenizer_class").and_then(Value::as_str)
    }

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn max_tokens(&self) -> usize {
        self.max_position_embeddings
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::super::architecture::ARCHITECTURES;
    use super::*;
    use crate::files::weights::CheckpointLayout;
    use crate::layers::rotary::{Rotary, RotaryScaling};

    const SIZES: ModelSizes = ModelSizes {
        vocab_size: 100,
        hidden_size: 48,
        layers: 4,
        heads: 6,
        key_value_heads: Some(2),
        head_width: Some(8),
        intermediate_size: Some(96),
        max_tokens: 64,
        end_of_text: Some(2),
    };

    /// The configuration of such a model, with changes.
    fn parse(
        model_type: &str,
        change: impl FnOnce(&mut Map<String, Value>),
    ) -> Result<LlamaConfig, ModelError> {
        let mut map = LlamaConfig::new(model_type, &SIZES).unwrap().original;
        change(&mut map);
        LlamaConfig::from_file(&ConfigFile::from_map(map))
    }

    fn with(model_type: &str, fields: Value) -> Result<LlamaConfig, ModelError> {
        parse(model_type, |map| {
            for (field, value) in fields.as_object().unwrap() {
                map.insert(field.clone(), value.clone());
            }
        })
    }

    /// The configuration without some fields.
    fn without(model_type: &str, fields: &[&str]) -> Result<LlamaConfig, ModelError> {
        parse(model_type, |map| {
            map.retain(|field, _| !fields.contains(&field.as_str()))
        })
    }

    fn windows(config: &LlamaConfig) -> Vec<Option<usize>> {
        let windows = config
            .attentions
            .iter()
            .map(|attention| attention.spec().window);
        windows.collect()
    }

    fn rotary(config: &LlamaConfig) -> Rotary {
        match config.attentions[0].spec().positions {
            PositionScheme::Rotary(rotary) => rotary,
            PositionScheme::InHiddenStates => panic!("the first layer knows positions"),
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for architecture in &ARCHITECTURES {
            let fields = json!({"attention_dropout": 0.25, "torch_dtype": "bfloat16", "my_field": [1, {"a": null}],
                "eos_token_id": [3, 4], "tie_word_embeddings": false});
            let config = with(architecture.model_type, fields).unwrap();
            let written: Map<String, Value> = serde_json::from_str(&config.to_json()).unwrap();
            assert_eq!(written["my_field"], json!([1, {"a": null}]));
            assert_eq!(written["eos_token_id"], json!([3, 4]));
            assert_eq!(written["torch_dtype"], "float32");
            assert_eq!(written["architectures"], json!([architecture.class]));
            let again = LlamaConfig::from_file(&ConfigFile::from_map(written)).unwrap();
            assert_eq!(again.to_json(), config.to_json());
            assert_eq!(again.attentions, config.attentions);
            assert_eq!(again.biases, config.biases);
            assert_eq!((again.eos_token_id, again.attention_dropout), (3, 0.25));
        }
    }

    /// The defaults of transformers 5.24's configuration classes.
    #[test]
    fn absent_fields_are_as_in_transformers() {
        let heads = ["num_key_value_heads", "head_dim"];
        for (model_type, key_value_heads, head_dim) in [("llama", 6, 8), ("qwen3", 32, 128)] {
            let sizes =
                json!({"num_attention_heads": key_value_heads, "hidden_size": 8 * key_value_heads});
            let config = parse(model_type, |map| {
                map.retain(|field, _| !heads.contains(&field.as_str()));
                for (field, value) in sizes.as_object().unwrap() {
                    map.insert(field.clone(), value.clone());
                }
            });
            let config = config.unwrap();
            assert_eq!(config.num_key_value_heads, key_value_heads, "{model_type}");
            assert_eq!(config.head_dim, head_dim, "{model_type}");
        }
        // A null is not an absent field.
        let null = with("mistral", json!({"num_key_value_heads": null})).unwrap();
        assert_eq!(null.num_key_value_heads, 6);
        for (model_type, theta, ties) in [
            ("llama", 1e4, false),
            ("mistral", 1e4, false),
            ("qwen2", 1e4, false),
            ("smollm3", 2e6, true),
        ] {
            let config = without(
                model_type,
                &["tie_word_embeddings", "rms_norm_eps", "hidden_act"],
            )
            .unwrap();
            assert_eq!(rotary(&config), Rotary::new(theta), "{model_type}");
            assert_eq!(config.tie_word_embeddings, ties, "{model_type}");
            assert_eq!(config.rms_norm_eps, 1e-6);
            assert_eq!(config.hidden_act, Activation::Silu);
        }
    }

    #[test]
    fn biases_are_where_the_architecture_has_them() {
        let all = json!({"attention_bias": true, "mlp_bias": true});
        for (model_type, plain, asked) in [
            ("llama", [false; 3], [true; 3]),
            ("mistral", [false; 3], [false; 3]),
            ("qwen2", [true, false, false], [true, false, false]),
            ("qwen3", [false; 3], [true, true, false]),
            ("smollm3", [false; 3], [true; 3]),
        ] {
            let biases = |fields: Value| {
                let Biases {
                    projections,
                    output,
                    mlp,
                } = with(model_type, fields).unwrap().biases;
                [projections, output, mlp]
            };
            assert_eq!(biases(json!({})), plain, "{model_type}");
            assert_eq!(biases(all.clone()), asked, "{model_type}");
        }
    }

    #[test]
    fn layers_have_the_windows_and_positions_that_transformers_gives_them() {
        let found = |model_type: &str, fields: Value| windows(&with(model_type, fields).unwrap());
        let (all, none) = (vec![Some(5); 4], vec![None; 4]);
        assert_eq!(found("mistral", json!({"sliding_window": 5})), all);
        assert_eq!(found("mistral", json!({"sliding_window": null})), none);
        let usual = without("mistral", &["sliding_window"]).unwrap();
        assert_eq!(windows(&usual), [Some(4096); 4]);
        for model_type in ["qwen2", "qwen3"] {
            let unused = json!({"sliding_window": 5, "max_window_layers": 1});
            assert_eq!(found(model_type, unused), none);
            let from_one =
                json!({"sliding_window": 5, "use_sliding_window": true, "max_window_layers": 1});
            assert_eq!(
                found(model_type, from_one),
                [None, Some(5), Some(5), Some(5)]
            );
        }
        let kinds = [
            "sliding_attention",
            "full_attention",
            "full_attention",
            "sliding_attention",
        ];
        let named = json!({"sliding_window": 5, "use_sliding_window": true, "layer_types": kinds});
        for model_type in ["qwen2", "qwen3", "smollm3"] {
            assert_eq!(
                found(model_type, named.clone()),
                [Some(5), None, None, Some(5)]
            );
        }
        assert_eq!(found("llama", json!({"sliding_window": 5})), none);

        let positions = |fields: Value| -> Vec<bool> {
            let config = with("smollm3", fields).unwrap();
            let all = config.attentions.iter();
            all.map(|attention| attention.spec().positions != PositionScheme::InHiddenStates)
                .collect()
        };
        assert_eq!(positions(json!({})), [true, true, true, false]);
        assert_eq!(
            positions(json!({"no_rope_layer_interval": 2})),
            [true, false, true, false]
        );
        let listed = json!({"no_rope_layers": [1, 0, 0, 1, 1]});
        assert_eq!(positions(listed.clone()), [true, false, false, true]);
        let mut slides = listed;
        slides["sliding_window"] = json!(7);
        slides["use_sliding_window"] = json!(true);
        assert_eq!(found("smollm3", slides), [None, Some(7), Some(7), None]);
    }

    #[test]
    fn positions_are_read_in_the_forms_of_old_and_new_files() {
        let linear = Rotary {
            theta: 5e4,
            scaling: RotaryScaling::Linear(2.0),
        };
        for fields in [
            json!({"rope_theta": 5e4, "rope_scaling": {"type": "linear", "factor": 2.0}}),
            json!({"rope_theta": 5e4, "rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
            json!({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5e4}}),
            json!({"rope_theta": 5e4, "rope_parameters": {"rope_type": "linear", "factor": 2.0}}),
        ] {
            assert_eq!(rotary(&with("llama", fields).unwrap()), linear);
        }
        let yarn =
            |fields: Value| match rotary(&with("qwen2", json!({"rope_scaling": fields})).unwrap())
                .scaling
            {
                RotaryScaling::Yarn(scaling) => scaling,
                other => panic!("{other:?}"),
            };
        let plain =
            yarn(json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}));
        assert_eq!(
            (plain.beta_fast, plain.beta_slow, plain.truncate),
            (32.0, 1.0, true)
        );
        // transformers: 0.1 ln(4) + 1.
        assert!((plain.attention_factor - 1.138629436111989).abs() < 1e-12);
        let all = yarn(
            json!({"type": "yarn", "original_max_position_embeddings": 8, "mscale": 0.7, "mscale_all_dim": 0.5}),
        );
        // transformers: the factor is then the ratio of the lengths.
        assert_eq!(all.factor, 8.0);
        assert!((all.attention_factor - 1.0376719952405395).abs() < 1e-12);
        let given = yarn(json!({"type": "yarn", "factor": 4.0, "attention_factor": 1.25}));
        assert_eq!(
            (
                given.attention_factor,
                given.original_max_position_embeddings
            ),
            (1.25, 64)
        );
    }

    #[test]
    fn what_is_not_computed_is_refused_by_name() {
        for (model_type, fields, field, message) in [
            (
                "llama",
                json!({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}),
                "rope_scaling",
                "`dynamic`",
            ),
            (
                "llama",
                json!({"rope_parameters": {"rope_type": "longrope"}}),
                "rope_parameters",
                "`longrope`",
            ),
            (
                "llama",
                json!({"rope_parameters": {"full_attention": {"rope_type": "default"}}}),
                "rope_parameters",
                "of their own",
            ),
            (
                "llama",
                json!({"rope_scaling": {"type": "linear"}}),
                "factor",
                "no field",
            ),
            (
                "llama",
                json!({"rope_scaling": {"type": "linear", "factor": 0}}),
                "factor",
                "must be",
            ),
            (
                "llama",
                json!({"rope_scaling": 3}),
                "rope_scaling",
                "must be an object",
            ),
            (
                "llama",
                json!({"rope_scaling": {"type": "llama3", "factor": 2, "low_freq_factor": 4, "high_freq_factor": 4}}),
                "high_freq_factor",
                "above",
            ),
            (
                "llama",
                json!({"partial_rotary_factor": 0.5}),
                "partial_rotary_factor",
                "only 1",
            ),
            (
                "llama",
                json!({"rope_interleaved": true}),
                "rope_interleaved",
                "only false",
            ),
            (
                "llama",
                json!({"hidden_act": "relu6"}),
                "hidden_act",
                "one of",
            ),
            (
                "llama",
                json!({"num_key_value_heads": 4}),
                "num_key_value_heads",
                "does not divide",
            ),
            ("llama", json!({"head_dim": 7}), "head_dim", "even"),
            (
                "llama",
                json!({"quantization_config": {}}),
                "quantization_config",
                "quantized",
            ),
            (
                "llama",
                json!({"layer_types": ["full_attention", "sliding_attention"]}),
                "layer_types",
                "layer 1",
            ),
            (
                "mistral",
                json!({"sliding_window": 5, "layer_types": ["full_attention"]}),
                "layer_types",
                "layer 0",
            ),
            (
                "qwen3",
                json!({"layer_types": ["chunked_attention"]}),
                "layer_types",
                "`chunked_attention`",
            ),
            (
                "qwen3",
                json!({"layer_types": vec!["sliding_attention"; 4]}),
                "layer_types",
                "no sliding_window",
            ),
            (
                "qwen3",
                json!({"layer_types": ["full_attention"]}),
                "layer_types",
                "1 kinds for 4",
            ),
            (
                "qwen3",
                json!({"sliding_window": 0, "use_sliding_window": true}),
                "sliding_window",
                "must be",
            ),
            (
                "smollm3",
                json!({"no_rope_layers": [1, 0]}),
                "no_rope_layers",
                "4 layers",
            ),
            (
                "smollm3",
                json!({"no_rope_layers": [1, 2, 0, 1]}),
                "no_rope_layers",
                "0 or 1",
            ),
            (
                "qwen2",
                json!({"eos_token_id": []}),
                "eos_token_id",
                "empty list",
            ),
            (
                "qwen2",
                json!({"eos_token_id": null}),
                "eos_token_id",
                "no field",
            ),
            (
                "qwen2",
                json!({"eos_token_id": 100}),
                "eos_token_id",
                "must be",
            ),
        ] {
            let error = with(model_type, fields.clone()).unwrap_err().to_string();
            assert!(error.contains(&format!("`{field}`")), "{fields}: {error}");
            assert!(error.contains(message), "{fields}: {error}");
        }
        let other = LlamaConfig::new("gemma", &SIZES).unwrap_err().to_string();
        assert!(
            other.contains("`gemma`") && other.contains("`smollm3`"),
            "{other}"
        );
    }

    #[test]
    fn names_in_checkpoints_are_those_of_hugging_face() {
        let config = LlamaConfig::new("llama", &SIZES).unwrap();
        for (path, name) in [
            ("model.norm.gamma", "model.norm.weight"),
            (
                "model.layers.3.self_attn.q_proj.weight",
                "model.layers.3.self_attn.q_proj.weight",
            ),
            (
                "model.layers.3.input_layernorm.gamma",
                "model.layers.3.input_layernorm.weight",
            ),
            (
                "model.layers.3.self_attn.q_proj.bias",
                "model.layers.3.self_attn.q_proj.bias",
            ),
            ("lm_head.weight", "lm_head.weight"),
        ] {
            assert_eq!(config.stored_name(path), name);
        }
        assert!(config.foreign("model.layers.0.self_attn.rotary_emb.inv_freq"));
        assert!(!config.foreign("model.norm.weight"));
    }

    proptest! {
        #[test]
        fn no_value_makes_it_panic(key in "[a-z_]{1,20}", number in any::<f64>(), which in 0usize..30, kind in 0usize..5) {
            let model_type = MODEL_TYPES[kind];
            let keys: Vec<String> = LlamaConfig::new(model_type, &SIZES).unwrap().original.keys().cloned().collect();
            let further = ["rope_theta", "rope_scaling", "rope_parameters", "layer_types", "no_rope_layers",
                "use_sliding_window", "max_window_layers", "no_rope_layer_interval"].map(str::to_string);
            let all = [keys.as_slice(), &further].concat();
            let key = all.get(which).cloned().unwrap_or(key);
            let object = json!({"rope_type": "yarn", "factor": number, "beta_fast": number});
            for value in [json!(number), json!(number as i64), json!(number.to_string()), json!([number]), object, Value::Null] {
                let _ = parse(model_type, |map| { map.insert(key.clone(), value.clone()); });
            }
        }
    }
}

//! The tokenizer in a GGUF file, as tokenizer.json and tokenizer_config.json.

use serde_json::{Map, Value, json};

use super::error::GgufError;
use super::file::GgufFile;

/// The split of Llama 3's tokenizer, with this for a run of digits.
fn words(digits: &str) -> Value {
    let pattern = format!(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    );
    json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false})
}

fn bytes(splits: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": splits})
}

/// How a tokenizer splits texts before its merges, by the name in `tokenizer.ggml.pre`.
pub(super) struct Splitting {
    pub(super) pre_tokenizer: Value,
    pub(super) normalizer: Value,
    /// Whether a whole word that is in the vocabulary is a token, whatever its merges say.
    pub(super) ignores_merges: bool,
}

impl Splitting {
    pub(super) const NAMES: [&'static str; 4] = ["gpt-2", "smollm", "llama-bpe", "qwen2"];

    pub(super) fn named(name: &str) -> Option<Self> {
        let in_order = |steps: [Value; 2]| json!({"type": "Sequence", "pretokenizers": steps});
        let digits = json!({"type": "Digits", "individual_digits": true});
        let (pre_tokenizer, normalizer, ignores_merges) = match name {
            "gpt-2" => (bytes(true), Value::Null, false),
            "smollm" => (in_order([digits, bytes(true)]), Value::Null, false),
            "llama-bpe" => {
                let words = words(r"\p{N}{1,3}");
                (in_order([words, bytes(false)]), Value::Null, true)
            }
            "qwen2" => {
                let words = words(r"\p{N}");
                (
                    in_order([words, bytes(false)]),
                    json!({"type": "NFC"}),
                    false,
                )
            }
            _ => return None,
        };
        Some(Self {
            pre_tokenizer,
            normalizer,
            ignores_merges,
        })
    }
}

/// tokenizer.json and tokenizer_config.json.
pub(super) fn files(file: &GgufFile, max_tokens: usize) -> Result<[Value; 2], GgufError> {
    let field = "tokenizer.ggml.model";
    let kind = file.text(field)?;
    if kind != "gpt2" {
        return Err(GgufError::unknown(&file.path, field, kind, &["gpt2"]));
    }
    let field = "tokenizer.ggml.pre";
    let Some(pre) = file.text_if_there(field)? else {
        let message = "is missing, so that it is not known how texts are split into words; take a newer file or the \
                       original model's folder";
        return Err(GgufError::field(&file.path, field, message));
    };
    let Some(splitting) = Splitting::named(pre) else {
        return Err(GgufError::unknown(
            &file.path,
            field,
            pre,
            &Splitting::NAMES,
        ));
    };
    let tokens = file.texts("tokenizer.ggml.tokens")?;
    let kinds = file.numbers("tokenizer.ggml.token_type")?;
    if kinds.len() != tokens.len() {
        let message = format!("has {} kinds for {} tokens", kinds.len(), tokens.len());
        return Err(GgufError::field(
            &file.path,
            "tokenizer.ggml.token_type",
            message,
        ));
    }
    let (mut vocabulary, mut added) = (Map::new(), Vec::new());
    for (id, (token, kind)) in tokens.iter().zip(kinds).enumerate() {
        const CONTROL: f64 = 3.0;
        const USER_DEFINED: f64 = 4.0;
        const UNUSED: f64 = 5.0;
        // Rows of the embedding without a token.
        if *kind == UNUSED {
            continue;
        }
        vocabulary.insert(token.clone(), json!(id));
        if [CONTROL, USER_DEFINED].contains(kind) {
            added.push(json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": *kind == CONTROL}));
        }
    }
    let merges = file.texts("tokenizer.ggml.merges")?;
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": splitting.normalizer,
        "pre_tokenizer": splitting.pre_tokenizer,
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": splitting.ignores_merges,
            "vocab": vocabulary,
            "merges": merges,
        },
    });
    let mut config = Map::new();
    config.insert(
        "tokenizer_class".to_string(),
        json!("PreTrainedTokenizerFast"),
    );
    config.insert("model_max_length".to_string(), json!(max_tokens));
    config.insert("clean_up_tokenization_spaces".to_string(), json!(false));
    for (name, own) in [
        ("bos", "bos_token"),
        ("eos", "eos_token"),
        ("unknown", "unk_token"),
        ("padding", "pad_token"),
    ] {
        let id = file.size_if_there(&format!("tokenizer.ggml.{name}_token_id"))?;
        if let Some(token) = id.and_then(|id| tokens.get(id)) {
            config.insert(own.to_string(), json!(token));
        }
    }
    if let Some(template) = file.text_if_there("tokenizer.chat_template")? {
        config.insert("chat_template".to_string(), json!(template));
    }
    Ok([tokenizer, Value::Object(config)])
}

/// generation_config.json: the tokens that end a text.
pub(super) fn generation_config(file: &GgufFile) -> Result<Value, GgufError> {
    let mut ends = Vec::new();
    for name in ["eos", "eot"] {
        let id = file.size_if_there(&format!("tokenizer.ggml.{name}_token_id"))?;
        ends.extend(id.filter(|id| !ends.contains(id)));
    }
    Ok(json!({"eos_token_id": ends}))
}

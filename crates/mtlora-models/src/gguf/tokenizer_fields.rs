//! The metadata that describes a tokenizer to llama.cpp, as `conversion/base.py` in its sources writes it (`_set_vocab_gpt2`).

use std::path::Path;

use serde_json::{Value, json};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::{ModelWrapper, Tokenizer};

use super::error::GgufError;
use super::file::{GgufFile, MetaValue};
use super::model::is_gguf;
use super::tokenizer::Splitting;
use super::write::GgufValue;
use crate::chat::template_source;
use crate::families::causal::CausalConfig;
use crate::families::text_config::TextConfig;
use crate::generation::GenerationConfig;
use crate::text::causal::CausalText;

/// What a token is: the numbers in `tokenizer.ggml.token_type`.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

/// The fields `tokenizer.*` for the tokenizer of a model's folder, or of a GGUF file, which are copied.
///
/// # Errors
/// When the tokenizer cannot be read, or is of a kind that is not written here.
pub(super) fn fields(
    model: &Path,
    config: &CausalConfig,
) -> Result<Vec<(String, GgufValue)>, GgufError> {
    if is_gguf(model) {
        return Ok(copied(&GgufFile::open(model)?));
    }
    let text = CausalText::from_folder(model, config)?;
    let mut fields = of_tokenizer(model, text.tokenizer(), config.vocab_size())?;
    let own = |name: &str| format!("tokenizer.ggml.{name}");
    let mut ends = Vec::new();
    for (purpose, name) in [
        ("bos_token", "bos_token_id"),
        ("eos_token", "eos_token_id"),
        ("unk_token", "unknown_token_id"),
        ("pad_token", "padding_token_id"),
    ] {
        let mut named = text.special_tokens();
        let token = named.find(|(found, _)| *found == purpose);
        let Some(id) = token.and_then(|(_, token)| text.token(token)) else {
            continue;
        };
        fields.push((own(name), GgufValue::U32(id)));
        if purpose == "bos_token" {
            let encoded = text.tokenizer().encode("a", true);
            let adds = encoded.is_ok_and(|encoded| encoded.get_ids().first() == Some(&id));
            fields.push((own("add_bos_token"), GgufValue::Flag(adds)));
        }
        if purpose == "eos_token" {
            ends.push(id);
        }
    }
    // Where a turn ends in another token than a text, it is `eot`.
    let generation = GenerationConfig::from_folder(model, config.vocab_size());
    let further = generation
        .map(|settings| settings.eos_token_ids)
        .unwrap_or_default();
    let mut further = further.into_iter().filter(|id| !ends.contains(id));
    if let Some(id) = further.next() {
        let name = if ends.is_empty() {
            "eos_token_id"
        } else {
            "eot_token_id"
        };
        fields.push((own(name), GgufValue::U32(id)));
    }
    let source = template_source(model).map_err(|error| GgufError::Unwritable {
        what: "its chat template".to_string(),
        message: format!("cannot be read: {error}"),
    })?;
    if let Some(source) = source {
        fields.push((
            "tokenizer.chat_template".to_string(),
            GgufValue::Text(source),
        ));
    }
    Ok(fields)
}

/// The fields of another file. Of lists of numbers, scores alone are floats.
fn copied(file: &GgufFile) -> Vec<(String, GgufValue)> {
    let own = file
        .metadata()
        .iter()
        .filter(|(name, _)| name.starts_with("tokenizer."));
    let fields = own.map(|(name, value)| {
        let value = match value {
            MetaValue::Flag(flag) => GgufValue::Flag(*flag),
            MetaValue::Text(text) => GgufValue::Text(text.clone()),
            MetaValue::Texts(texts) => GgufValue::Texts(texts.clone()),
            MetaValue::Number(number) if number.fract() == 0.0 && *number >= 0.0 => {
                GgufValue::U32(*number as u32)
            }
            MetaValue::Number(number) => GgufValue::F32(*number as f32),
            MetaValue::Numbers(numbers) if name.ends_with("scores") => {
                GgufValue::Floats(numbers.iter().map(|number| *number as f32).collect())
            }
            MetaValue::Numbers(numbers) => {
                GgufValue::Ints(numbers.iter().map(|number| *number as i32).collect())
            }
        };
        (name.clone(), value)
    });
    fields.collect()
}

/// The vocabulary, the merges, and how texts are split.
fn of_tokenizer(
    folder: &Path,
    tokenizer: &Tokenizer,
    vocab_size: usize,
) -> Result<Vec<(String, GgufValue)>, GgufError> {
    let refused = |what: &str| GgufError::Unwritable {
        what: format!("the tokenizer in {}", folder.display()),
        message: format!(
            "{what}; llama.cpp's convert_hf_to_gguf.py may know it: run it on what `mtlora merge` writes without --gguf"
        ),
    };
    let ModelWrapper::BPE(bpe) = tokenizer.get_model() else {
        return Err(refused("is no byte-level BPE"));
    };
    let pre = name_of(tokenizer, bpe.ignore_merges).ok_or_else(|| {
        refused("splits texts in a way whose name in llama.cpp is not known here")
    })?;
    let mut tokens = vec![None; vocab_size];
    for (token, id) in tokenizer.get_vocab(true) {
        if let Some(slot) = tokens.get_mut(id as usize) {
            *slot = Some(token);
        }
    }
    let added = tokenizer.get_added_tokens_decoder();
    let kinds = tokens
        .iter()
        .zip(0u32..)
        .map(|(token, id)| match (token, added.get(&id)) {
            (None, _) => UNUSED,
            (_, Some(added)) if added.special => CONTROL,
            (_, Some(_)) => USER_DEFINED,
            _ => NORMAL,
        });
    let kinds = GgufValue::Ints(kinds.collect());
    // Rows of the embedding without a token.
    let named = tokens.into_iter().enumerate();
    let tokens = named.map(|(id, token)| token.unwrap_or_else(|| format!("[PAD{id}]")));
    let tokens = GgufValue::Texts(tokens.collect());
    let merges = GgufValue::Texts(merges(tokenizer));
    let text = |text: &str| GgufValue::Text(text.to_string());
    Ok([
        ("model", text("gpt2")),
        ("pre", text(pre)),
        ("tokens", tokens),
        ("token_type", kinds),
        ("merges", merges),
    ]
    .map(|(name, value)| (format!("tokenizer.ggml.{name}"), value))
    .into())
}

/// The merges, each as two words.
fn merges(tokenizer: &Tokenizer) -> Vec<String> {
    let model = serde_json::to_value(tokenizer.get_model()).unwrap_or_default();
    let merges = model.get("merges").and_then(Value::as_array);
    let pair = |merge: &Value| match merge {
        Value::String(pair) => Some(pair.clone()),
        Value::Array(pair) => {
            let words: Option<Vec<&str>> = pair.iter().map(Value::as_str).collect();
            words.map(|words| words.join(" "))
        }
        _ => None,
    };
    merges.into_iter().flatten().filter_map(pair).collect()
}

/// llama.cpp's name of the way in which a tokenizer splits texts.
fn name_of(tokenizer: &Tokenizer, ignores_merges: bool) -> Option<&'static str> {
    let own = comparable(json!(tokenizer.get_pre_tokenizer()));
    let normalizer = json!(tokenizer.get_normalizer());
    Splitting::NAMES.into_iter().find(|name| {
        Splitting::named(name).is_some_and(|splitting| {
            let pre = serde_json::from_value::<PreTokenizerWrapper>(splitting.pre_tokenizer);
            pre.is_ok_and(|pre| comparable(json!(pre)) == own)
                && splitting.normalizer == normalizer
                && splitting.ignores_merges == ignores_merges
        })
    })
}

/// Without what changes no tokens.
fn comparable(mut value: Value) -> Value {
    match &mut value {
        Value::Object(map) => {
            map.remove("trim_offsets");
            for inner in map.values_mut() {
                *inner = comparable(inner.take());
            }
        }
        Value::Array(list) => {
            for inner in list {
                *inner = comparable(inner.take());
            }
        }
        _ => (),
    }
    value
}

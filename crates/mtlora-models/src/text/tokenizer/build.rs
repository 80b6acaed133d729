//! Builds the tokenizer from the files and settings.

use serde_json::{Value, json};
use tokenizers::models::ModelWrapper;
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, Tokenizer};

use super::checks::{check_merges, check_template, guarded};
use super::class::TokenizerClass;
use super::files::TokenizerFiles;
use super::settings::TokenizerSettings;
use super::token::Token;
use crate::error::ModelError;

/// Builds the tokenizer from a folder's files and settings. Added tokens for which the model, with `vocab_size`
/// embedding rows, has no row are left out.
///
/// # Errors
/// When `tokenizer.json` is invalid, or is not what the tokenizer class needs.
pub(super) fn build(
    files: &TokenizerFiles,
    class: TokenizerClass,
    settings: &TokenizerSettings,
    vocab_size: usize,
) -> Result<Tokenizer, ModelError> {
    let refused = |message: String| ModelError::Tokenizer {
        path: files.tokenizer_path.clone(),
        message,
    };
    let made = match class {
        TokenizerClass::Backend => None,
        TokenizerClass::Bert | TokenizerClass::DistilBert => Some(word_pieces(files, settings)),
        TokenizerClass::Roberta => Some(byte_pairs(files, settings, false)),
        TokenizerClass::Gpt2 => Some(byte_pairs(files, settings, true)),
        TokenizerClass::DebertaV2 | TokenizerClass::XlmRoberta | TokenizerClass::Camembert => {
            Some(unigram(files, class, settings))
        }
    };
    let made = made.transpose().map_err(refused)?;
    let file = made.as_ref().unwrap_or(&files.tokenizer);
    check_merges(&files.tokenizer_path, file)?;
    check_template(&files.tokenizer_path, file.get("post_processor"))?;
    let text = made.as_ref().map(Value::to_string);
    let bytes = text
        .as_ref()
        .map_or(files.tokenizer_bytes.as_slice(), |text| text.as_bytes());
    let mut tokenizer = guarded(|| Tokenizer::from_bytes(bytes)).map_err(refused)?;
    tokenizer.set_encode_special_tokens(settings.split_special_tokens);
    let added = new_tokens(&tokenizer, settings, vocab_size);
    guarded(|| tokenizer.add_tokens(added)).map_err(refused)?;
    frame(&mut tokenizer, class, settings).map_err(refused)?;
    Ok(tokenizer)
}

/// The vocabulary of `tokenizer.json`, for the classes that build the rest themselves: tokens with their ids.
fn vocabulary(files: &TokenizerFiles) -> Result<&Value, String> {
    let vocabulary = files.tokenizer.pointer("/model/vocab");
    vocabulary
        .filter(|value| value.is_object())
        .ok_or_else(other_vocabulary)
}

fn other_vocabulary() -> String {
    "its vocabulary is not that of the tokenizer class that tokenizer_config.json names, or that the model's type \
     stands for; name the right class there (PreTrainedTokenizerFast: tokenizer.json as it is)"
        .to_string()
}

/// Builds what `DebertaV2Tokenizer`, `XLMRobertaTokenizer` and `CamembertTokenizer` build. The pieces and their scores come
/// from the file; for the latter two also SentencePiece's character map.
fn unigram(
    files: &TokenizerFiles,
    class: TokenizerClass,
    settings: &TokenizerSettings,
) -> Result<Value, String> {
    let pieces = files.tokenizer.pointer("/model/vocab");
    let pieces = pieces
        .and_then(Value::as_array)
        .ok_or_else(other_vocabulary)?;
    let unknown = settings.names.get("unk_token").unwrap_or("None");
    let place = |is_unknown: &dyn Fn(&Value) -> bool| {
        let text = |piece: &Value| piece.get(0).and_then(Value::as_str) == Some(unknown);
        pieces
            .iter()
            .position(|piece| text(piece) && is_unknown(piece))
    };
    let unk_id = match class {
        TokenizerClass::DebertaV2 => {
            let has_no_score = |piece: &Value| piece.get(1).and_then(Value::as_f64) == Some(0.0);
            place(&has_no_score).unwrap_or_else(|| settings.unk_id.unwrap_or(1))
        }
        TokenizerClass::Camembert => place(&|_| true).unwrap_or(0),
        _ => 3,
    };
    let (normalizer, splitter, without_space) = match class {
        TokenizerClass::DebertaV2 => {
            let lower_case = settings.lower_case.then(|| json!({"type": "Lowercase"}));
            let rest = [
                json!({"type": "Replace", "pattern": {"Regex": r"\s{2,}|[\n\r\t]"}, "content": " "}),
                json!({"type": "NFC"}),
                json!({"type": "Strip", "strip_left": false, "strip_right": true}),
            ];
            let all: Vec<Value> = lower_case.into_iter().chain(rest).collect();
            let punctuation = json!({"type": "Punctuation", "behavior": "Isolated"});
            (
                json!({"type": "Sequence", "normalizers": all}),
                settings.split_by_punct.then_some(punctuation),
                "first",
            )
        }
        _ => (
            character_map(files),
            Some(json!({"type": "WhitespaceSplit"})),
            "never",
        ),
    };
    let scheme = if settings.add_prefix_space {
        "always"
    } else {
        without_space
    };
    let spaces =
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": true});
    let splitters: Vec<Value> = splitter.into_iter().chain([spaces.clone()]).collect();
    Ok(json!({
        "version": "1.0",
        "truncation": files.of_tokenizer("truncation"),
        "padding": null,
        "added_tokens": [],
        "normalizer": normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": splitters},
        "post_processor": null,
        "decoder": spaces,
        "model": {"type": "Unigram", "unk_id": unk_id, "vocab": pieces, "byte_fallback": false},
    }))
}

/// SentencePiece's character map: the first in the file's normaliser or in its sequence of normalisers; `null` without one.
fn character_map(files: &TokenizerFiles) -> Value {
    let Some(normalizer) = files.of_tokenizer("normalizer") else {
        return Value::Null;
    };
    let sequence = normalizer.get("normalizers").and_then(Value::as_array);
    let all = sequence.map_or_else(|| std::slice::from_ref(normalizer), Vec::as_slice);
    let mut maps = all.iter().filter_map(|one| {
        let is_map = one.get("type").and_then(Value::as_str) == Some("Precompiled");
        one.get("precompiled_charsmap").filter(|_| is_map)
    });
    maps.next().map_or(
        Value::Null,
        |map| json!({"type": "Precompiled", "precompiled_charsmap": map}),
    )
}

/// Builds what `BertTokenizer` builds; only the vocabulary comes from the file.
fn word_pieces(files: &TokenizerFiles, settings: &TokenizerSettings) -> Result<Value, String> {
    let unknown = settings.names.get("unk_token").unwrap_or("None");
    Ok(json!({
        "version": "1.0",
        "truncation": files.of_tokenizer("truncation"),
        "padding": null,
        "added_tokens": [],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": true,
            "handle_chinese_chars": settings.chinese_chars,
            "strip_accents": settings.strip_accents,
            "lowercase": settings.lower_case,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": null,
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece",
            "unk_token": unknown,
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocabulary(files)?,
        },
    }))
}

/// Builds what `RobertaTokenizer` and `GPT2Tokenizer` build. Vocabulary and merges come from the file; for
/// `GPT2Tokenizer` also the post-processor.
fn byte_pairs(
    files: &TokenizerFiles,
    settings: &TokenizerSettings,
    keeps_post_processor: bool,
) -> Result<Value, String> {
    let merges = files.tokenizer.pointer("/model/merges");
    let merges = merges.filter(|value| value.is_array());
    let post_processor = if keeps_post_processor {
        files.of_tokenizer("post_processor")
    } else {
        None
    };
    let byte_level = |add_prefix_space: bool| json!({"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": true, "use_regex": true});
    Ok(json!({
        "version": "1.0",
        "truncation": files.of_tokenizer("truncation"),
        "padding": null,
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": byte_level(settings.add_prefix_space),
        "post_processor": post_processor,
        "decoder": byte_level(true),
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": false,
            "byte_fallback": false,
            "vocab": vocabulary(files)?,
            "merges": merges.cloned().unwrap_or_else(|| json!([])),
        },
    }))
}

/// The tokens to add to the tokenizer's vocabulary, in transformers' order: first the added tokens that it does not
/// have with the same settings, then the special tokens that it does not have at all.
fn new_tokens(
    tokenizer: &Tokenizer,
    settings: &TokenizerSettings,
    vocab_size: usize,
) -> Vec<AddedToken> {
    let present: Vec<AddedToken> = tokenizer.get_added_tokens_decoder().into_values().collect();
    let mut tokens: Vec<Token> = settings
        .added
        .values()
        .filter(|token| !present.contains(token))
        .cloned()
        .map(Token::Added)
        .collect();
    let mut known: Vec<String> = present
        .iter()
        .map(|token| token.content.clone())
        .chain(tokens.iter().map(|token| token.content().to_string()))
        .collect();
    known.sort_unstable();
    let special = settings.named.iter().map(|(_, token)| token);
    for token in special.chain(&settings.extra) {
        let is_known = known
            .binary_search_by(|text| text.as_str().cmp(token.content()))
            .is_ok();
        if !is_known && !tokens.contains(token) {
            tokens.push(token.clone());
        }
    }

    let named: Vec<&str> = settings
        .named
        .iter()
        .map(|(_, token)| token.content())
        .collect();
    let ids = present_ids(tokenizer);
    let mut next = ids.map_or(0, |largest| largest.saturating_add(1));
    let mut added: Vec<AddedToken> = Vec::new();
    for token in tokens {
        let mut token = token.into_added();
        token.special |= named.contains(&token.content.as_str());
        let has_id = tokenizer.token_to_id(&token.content).is_some()
            || added.iter().any(|other| other.content == token.content);
        if !has_id {
            if next >= vocab_size {
                continue;
            }
            next += 1;
        }
        added.push(token);
    }
    added
}

/// The largest id in use; new tokens get the ids after it.
fn present_ids(tokenizer: &Tokenizer) -> Option<usize> {
    let of_model = tokenizer.get_vocab_size(false).checked_sub(1);
    let decoder = tokenizer.get_added_tokens_decoder();
    let of_added = decoder.keys().max().map(|id| *id as usize);
    of_model.max(of_added)
}

/// Sets the post-processor that adds the class's own special tokens around a text.
fn frame(
    tokenizer: &mut Tokenizer,
    class: TokenizerClass,
    settings: &TokenizerSettings,
) -> Result<(), String> {
    if matches!(class, TokenizerClass::Backend | TokenizerClass::Gpt2) {
        return Ok(());
    }
    let unknown = settings.names.get("unk_token");
    let unknown = unknown.and_then(|text| tokenizer.token_to_id(text));
    let token = |purpose: &str| {
        let text = settings.names.get(purpose).ok_or_else(|| {
            format!("tokenizer_config.json says that there is no {purpose}, which the model expects around a text")
        })?;
        let id = tokenizer.token_to_id(text).or(unknown).ok_or_else(|| {
            format!(
                "its vocabulary lacks the {purpose}, `{}`; do the files belong to the same model?",
                text.escape_debug()
            )
        })?;
        Ok::<_, String>((text.to_string(), id))
    };
    let ends = match class {
        TokenizerClass::XlmRoberta | TokenizerClass::Camembert => ["bos_token", "eos_token"],
        _ => ["cls_token", "sep_token"],
    };
    let (cls, sep) = (token(ends[0])?, token(ends[1])?);
    if class == TokenizerClass::Roberta {
        tokenizer.with_post_processor(Some(RobertaProcessing::new(sep, cls)));
        return Ok(());
    }
    let template = guarded(|| {
        let mut builder = TemplateProcessing::builder();
        builder.try_single(format!("{}:0 $A:0 {}:0", cls.0, sep.0))?;
        builder.try_pair(match class {
            TokenizerClass::XlmRoberta | TokenizerClass::Camembert => {
                format!("{0}:0 $A:0 {1}:0 {1}:0 $B:0 {1}:0", cls.0, sep.0)
            }
            _ => format!("{0}:0 $A:0 {1}:0 $B:1 {1}:1", cls.0, sep.0),
        })?;
        Ok(builder.special_tokens(vec![cls, sep]).build()?)
    })?;
    tokenizer.with_post_processor(Some(template));
    Ok(())
}

/// Whether a tokenizer is a byte-pair encoding.
pub(super) fn is_byte_pairs(tokenizer: &Tokenizer) -> bool {
    matches!(tokenizer.get_model(), ModelWrapper::BPE(_))
}

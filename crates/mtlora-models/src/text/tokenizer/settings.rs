//! Resolves the tokenizer's settings files into one set of settings, with transformers' precedence.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Map, Value, json};
use tokenizers::AddedToken;

use super::class::TokenizerClass;
use super::files::{JsonFile, TokenizerFiles, shown};
use super::token::{Token, added_token};
use crate::error::ModelError;

/// The purposes of special tokens, in the order in which the tokens are added.
const NAMED: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];
/// The field for special tokens without a purpose of their own, and its name in older versions.
const EXTRA: &str = "extra_special_tokens";
const ADDITIONAL: &str = "additional_special_tokens";
/// The field for all tokens that were added to the vocabulary, by their ids.
const ADDED_DECODER: &str = "added_tokens_decoder";
/// A `model_max_length` above this means that there is no limit.
const NO_LIMIT: f64 = 1e20;

/// The side on which a text that is too long loses tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TruncationSide {
    /// The beginning of the text is lost.
    Left,
    /// The end of the text is lost.
    Right,
}

/// The special tokens by their purpose: `cls_token` and so on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TokenNames(Vec<(String, String)>);

impl TokenNames {
    /// The purposes with the texts of their tokens.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let names = self.0.iter();
        names.map(|(purpose, token)| (purpose.as_str(), token.as_str()))
    }

    /// The text of the token for `purpose`.
    pub(crate) fn get(&self, purpose: &str) -> Option<&str> {
        let mut names = self.0.iter();
        names
            .find(|(known, _)| known == purpose)
            .map(|(_, token)| token.as_str())
    }
}

/// The settings of one folder's tokenizer.
pub(super) struct TokenizerSettings {
    /// As [`super::FolderTokenizer::truncation_side`].
    pub(super) truncation_side: Option<TruncationSide>,
    /// As [`super::FolderTokenizer::token_types`].
    pub(super) token_types: bool,
    /// As [`super::FolderTokenizer::cleans_up`], if a file sets it.
    pub(super) cleans_up: bool,
    /// The same for tokenizers that are byte-pair encodings.
    pub(super) cleans_up_byte_pairs: bool,
    /// Whether the text of a special token is split like any other text.
    pub(super) split_special_tokens: bool,
    /// Whether a space is put in front of a text.
    pub(super) add_prefix_space: bool,
    /// Whether punctuation marks are words of their own.
    pub(super) split_by_punct: bool,
    /// The number of the unknown token, if a file names it.
    pub(super) unk_id: Option<usize>,
    /// Whether letters are lower-cased, accents are removed, and Chinese characters are separate words.
    pub(super) lower_case: bool,
    pub(super) strip_accents: Option<bool>,
    pub(super) chinese_chars: bool,
    /// The special tokens with a purpose, in the order in which they are added.
    pub(super) named: Vec<(String, Token)>,
    /// Special tokens without a purpose.
    pub(super) extra: Vec<Token>,
    /// Tokens by the ids that the files give them.
    pub(super) added: BTreeMap<i64, AddedToken>,
    /// The texts of `named`.
    pub(super) names: TokenNames,
}

impl TokenizerSettings {
    /// Combines the settings of all files.
    ///
    /// # Errors
    /// When a setting has the wrong type; the error names the file and the field.
    pub(super) fn resolve(
        files: &TokenizerFiles,
        class: TokenizerClass,
    ) -> Result<Self, ModelError> {
        let config = &files.config;
        let mut tokens = Tokens::of(config)?;
        let added = tokens.add(files)?;
        let named = tokens.named(files, class, &added)?;
        let extra = tokens.extra(config, class)?;
        let names = named.iter().map(|(purpose, token)| {
            let content = token.content().to_string();
            (purpose.clone(), content)
        });
        let cleans_up = config
            .flag("clean_up_tokenization_spaces")?
            .unwrap_or(false);
        let forced = "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output";
        Ok(Self {
            truncation_side: truncation_side(files)?,
            token_types: token_types(config)?.unwrap_or_else(|| class.has_token_types()),
            cleans_up,
            cleans_up_byte_pairs: cleans_up && config.flag(forced)?.unwrap_or(false),
            split_special_tokens: config.flag("split_special_tokens")?.unwrap_or(false),
            add_prefix_space: config
                .flag("add_prefix_space")?
                .unwrap_or_else(|| class.adds_prefix_space()),
            split_by_punct: config.flag("split_by_punct")?.unwrap_or(false),
            unk_id: unk_id(config)?,
            lower_case: config
                .flag("do_lower_case")?
                .unwrap_or_else(|| class.lowers_case()),
            strip_accents: config.flag("strip_accents")?,
            chinese_chars: config.flag("tokenize_chinese_chars")?.unwrap_or(true),
            names: TokenNames(names.collect()),
            named,
            extra,
            added,
        })
    }
}

/// The settings about tokens while they are being combined.
struct Tokens {
    /// The fields of tokenizer_config.json, overridden by those of special_tokens_map.json.
    fields: Map<String, Value>,
    /// Tokens with a purpose that is specific to this model.
    of_model: Vec<(String, Value)>,
}

impl Tokens {
    /// Starts with the settings in tokenizer_config.json.
    fn of(config: &JsonFile) -> Result<Self, ModelError> {
        let mut fields = config.map.clone();
        if let Some(older) = fields.get(ADDITIONAL).cloned()
            && fields.get(EXTRA).is_none_or(is_empty)
        {
            fields.insert(EXTRA.to_string(), older);
            fields.remove(ADDITIONAL);
        }
        let own = |(name, value): (&String, &Value)| {
            let is_own =
                name.ends_with("_token") && !NAMED.contains(&name.as_str()) && value.is_string();
            is_own.then(|| (name.clone(), value.clone()))
        };
        let of_model: Vec<(String, Value)> = fields.iter().filter_map(own).collect();
        for (name, _) in &of_model {
            fields.remove(name);
        }
        let mut tokens = Self { fields, of_model };
        tokens.take_extra_by_name();
        Ok(tokens)
    }

    /// Extra special tokens that have names become tokens with a purpose.
    fn take_extra_by_name(&mut self) {
        if let Some(Value::Object(map)) = self.fields.get(EXTRA) {
            self.of_model.extend(map.clone());
            self.fields.remove(EXTRA);
        }
    }

    /// The tokens that were added to the vocabulary, by their ids. They come from tokenizer_config.json or else from
    /// the older files, which also define special tokens.
    fn add(&mut self, files: &TokenizerFiles) -> Result<BTreeMap<i64, AddedToken>, ModelError> {
        let mut added = BTreeMap::new();
        if let Some(value) = files.config.get(ADDED_DECODER) {
            let wrong = |message: String| files.config.wrong(ADDED_DECODER, message);
            let map = value
                .as_object()
                .ok_or_else(|| wrong(format!("is {}, but must be an object", shown(value))))?;
            for (key, value) in map {
                let id = key.trim().parse::<i64>().ok();
                let token = value.as_object().and_then(added_token);
                let (Some(id), Some(token)) = (id, token) else {
                    return Err(wrong(format!(
                        "has the entry \"{}\": {}, but must map each id to a token with its content",
                        key.escape_debug(),
                        shown(value)
                    )));
                };
                added.insert(id, token);
            }
            return Ok(added);
        }
        if let Some(map) = &files.special_tokens_map {
            self.override_with(map);
        }
        if let Some(file) = &files.added_tokens {
            let special = self.special_texts();
            for (text, id) in &file.map {
                let id = id.as_i64().ok_or_else(|| {
                    file.wrong(text, format!("is {}, but must be a token id", shown(id)))
                })?;
                let is_special = special.contains(text);
                added.insert(id, AddedToken::from(text.as_str(), is_special));
            }
        }
        let of_tokenizer = files.of_tokenizer("added_tokens").and_then(Value::as_array);
        for entry in of_tokenizer.into_iter().flatten() {
            let id = entry.get("id").and_then(Value::as_i64);
            let token = entry.as_object().and_then(added_token);
            let (Some(id), Some(token)) = (id, token) else {
                return Err(ModelError::Tokenizer {
                    path: files.tokenizer_path.clone(),
                    message: format!(
                        "its added_tokens have the entry {}, which is not a token with an id; download the file again",
                        shown(entry)
                    ),
                });
            };
            added.insert(id, token);
        }
        Ok(added)
    }

    /// special_tokens_map.json takes precedence over tokenizer_config.json. A token with flags is special even if its
    /// flags say otherwise.
    fn override_with(&mut self, file: &JsonFile) {
        for (key, value) in &file.map {
            let value = match value {
                Value::Object(token) if key != EXTRA => {
                    let mut token = token.clone();
                    token.insert("special".into(), json!(true));
                    Value::Object(token)
                }
                Value::Array(tokens) if key == EXTRA => {
                    let known = self.fields.get(EXTRA).and_then(Value::as_array);
                    let mut all = known.cloned().unwrap_or_default();
                    for token in tokens {
                        if !all.contains(token) {
                            all.push(token.clone());
                        }
                    }
                    Value::Array(all)
                }
                other => other.clone(),
            };
            self.fields.insert(key.clone(), value);
        }
        self.take_extra_by_name();
    }

    /// The texts of the special tokens so far.
    fn special_texts(&self) -> HashSet<String> {
        let named = NAMED.iter().filter_map(|name| self.fields.get(*name));
        let extra = self.fields.get(EXTRA).and_then(Value::as_array);
        named
            .chain(extra.into_iter().flatten())
            .filter_map(Token::parse)
            .map(|token| token.content().to_string())
            .collect()
    }

    /// The special tokens with a purpose, in the order in which they are added.
    fn named(
        &self,
        files: &TokenizerFiles,
        class: TokenizerClass,
        added: &BTreeMap<i64, AddedToken>,
    ) -> Result<Vec<(String, Token)>, ModelError> {
        let by_text: HashMap<&str, &AddedToken> = added
            .values()
            .map(|token| (token.content.as_str(), token))
            .collect();
        let parse = |name: &str, value: &Value| {
            Token::parse(value).ok_or_else(|| {
                let message = format!("is {}, but must be a token", shown(value));
                files.config.wrong(name, message)
            })
        };
        let mut named = Vec::new();
        for name in NAMED {
            let token = match self.fields.get(name) {
                Some(Value::Null) => continue,
                Some(value) => {
                    let token = parse(name, value)?;
                    let as_added = by_text.get(token.content());
                    as_added.map_or(token, |added| Token::Added((*added).clone()))
                }
                None => {
                    let of_class = class.default_tokens().iter();
                    let mut of_class = of_class.filter(|(known, _)| *known == name);
                    // A tokenizer.json with padding names the padding token.
                    let of_padding = (name == "pad_token" && class == TokenizerClass::Backend)
                        .then(|| files.tokenizer.pointer("/padding/pad_token"))
                        .flatten()
                        .and_then(Value::as_str);
                    match of_class.next().map(|(_, text)| *text).or(of_padding) {
                        Some(text) => Token::Text(text.to_string()),
                        None => continue,
                    }
                }
            };
            let token = match token {
                // This class makes a token of the text that takes the space before it along.
                Token::Text(text) if name == "mask_token" && class == TokenizerClass::Camembert => {
                    Token::Added(AddedToken::from(text, true).lstrip(true))
                }
                token => token,
            };
            named.push((name.to_string(), token));
        }
        let others = self.fields.iter().filter(|(name, value)| {
            name.ends_with("_token")
                && !NAMED.contains(&name.as_str())
                && (value.is_string() || value.is_object())
        });
        let of_model = self.of_model.iter().map(|(name, value)| (name, value));
        for (name, value) in others.chain(of_model) {
            named.push((name.clone(), parse(name, value)?));
        }
        Ok(named)
    }

    /// The special tokens without a purpose.
    fn extra(&self, config: &JsonFile, class: TokenizerClass) -> Result<Vec<Token>, ModelError> {
        // The older name in special_tokens_map.json counts only if the new name is absent.
        let field = if self.fields.contains_key(EXTRA) {
            EXTRA
        } else {
            ADDITIONAL
        };
        let Some(value) = self.fields.get(field).filter(|value| !value.is_null()) else {
            let of_class = class.default_extra().iter();
            return Ok(of_class
                .map(|text| Token::Text((*text).to_string()))
                .collect());
        };
        let tokens = value
            .as_array()
            .and_then(|all| all.iter().map(Token::parse).collect());
        tokens.ok_or_else(|| {
            let message = format!("is {}, but must be a list of tokens", shown(value));
            config.wrong(field, message)
        })
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// The side on which texts are truncated: tokenizer_config.json takes precedence over the direction in tokenizer.json.
fn truncation_side(files: &TokenizerFiles) -> Result<Option<TruncationSide>, ModelError> {
    let field = "truncation_side";
    if let Some(value) = files.config.map.get(field) {
        return match value.as_str() {
            Some("left") => Ok(Some(TruncationSide::Left)),
            Some("right") => Ok(Some(TruncationSide::Right)),
            _ => {
                let message = format!("is {}, but must be \"left\" or \"right\"", shown(value));
                Err(files.config.wrong(field, message))
            }
        };
    }
    let Some(truncation) = files.of_tokenizer("truncation") else {
        return Ok(None);
    };
    let direction = truncation.get("direction").and_then(Value::as_str);
    Ok(Some(match direction {
        Some("Left") => TruncationSide::Left,
        _ => TruncationSide::Right,
    }))
}

/// Whether the tokenizer gives `token_type_ids` to a model, if the file says so.
fn token_types(config: &JsonFile) -> Result<Option<bool>, ModelError> {
    let field = "model_input_names";
    if config.get(field).is_none() {
        return Ok(None);
    }
    let names = config.fields().strings(field)?;
    Ok(Some(names.iter().any(|name| name == "token_type_ids")))
}

/// The number of the unknown token, which only `DebertaV2Tokenizer` reads.
fn unk_id(config: &JsonFile) -> Result<Option<usize>, ModelError> {
    let field = "unk_id";
    let Some(value) = config.get(field) else {
        return Ok(None);
    };
    let number = value.as_u64().and_then(|id| usize::try_from(id).ok());
    let number = number.ok_or_else(|| {
        config.wrong(
            field,
            format!("is {}, but must be a token id", shown(value)),
        )
    })?;
    Ok(Some(number))
}

/// See [`super::model_max_length`].
pub(super) fn model_max_length(config: &JsonFile) -> Result<Option<usize>, ModelError> {
    let field = if config.map.contains_key("model_max_length") {
        "model_max_length"
    } else {
        "max_len"
    };
    let Some(value) = config.get(field) else {
        return Ok(None);
    };
    match value.as_f64() {
        Some(length) if length > NO_LIMIT => Ok(None),
        Some(length) if length >= 1.0 && length.fract() == 0.0 => Ok(Some(length as usize)),
        _ => {
            let message = format!("is {}, but must be a number of tokens", shown(value));
            Err(config.wrong(field, message))
        }
    }
}

//! Reads the decoding settings of a model folder.

use std::path::Path;

use serde_json::Value;

use super::config::{EarlyStopping, GenerationConfig};
use crate::error::ModelError;
use crate::files::fields::brief;
use crate::files::names::{CONFIG_FILE, GENERATION_CONFIG_FILE};
use crate::files::read::is_there;
use crate::messages::shown;
use crate::text::tokenizer::JsonFile;

/// The `top_k` of transformers where no file sets it.
const USUAL_TOP_K: usize = 50;
/// The largest whole number that a setting accepts.
const MOST: usize = 1 << 24;
/// Settings that are not supported here, each with the value at which it has no effect.
const WITHOUT: [(&str, Neutral); 25] = [
    ("min_length", Neutral::Number(0.0)),
    ("max_time", Neutral::Null),
    ("stop_strings", Neutral::Null),
    ("encoder_repetition_penalty", Neutral::Number(1.0)),
    ("bad_words_ids", Neutral::Null),
    ("renormalize_logits", Neutral::False),
    ("forced_bos_token_id", Neutral::Null),
    ("forced_eos_token_id", Neutral::Null),
    ("exponential_decay_length_penalty", Neutral::Null),
    ("suppress_tokens", Neutral::Null),
    ("begin_suppress_tokens", Neutral::Null),
    ("sequence_bias", Neutral::Null),
    ("token_healing", Neutral::False),
    ("guidance_scale", Neutral::Number(1.0)),
    ("watermarking_config", Neutral::Null),
    ("num_return_sequences", Neutral::Number(1.0)),
    ("num_beam_groups", Neutral::Number(1.0)),
    ("diversity_penalty", Neutral::Number(0.0)),
    ("constraints", Neutral::Null),
    ("force_words_ids", Neutral::Null),
    ("penalty_alpha", Neutral::Null),
    ("dola_layers", Neutral::Null),
    // The rest affect only sampling.
    ("typical_p", Neutral::Number(1.0)),
    ("epsilon_cutoff", Neutral::Number(0.0)),
    ("eta_cutoff", Neutral::Number(0.0)),
];
const OF_SAMPLING: [&str; 4] = ["top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"];

/// The value at which a setting has no effect; `null` never has one.
#[derive(Clone, Copy)]
enum Neutral {
    Null,
    False,
    Number(f64),
}

impl Neutral {
    fn is(self, value: &Value) -> bool {
        match self {
            _ if value.is_null() => true,
            Self::Null => value.as_array().is_some_and(Vec::is_empty),
            Self::False => *value == Value::Bool(false),
            Self::Number(number) => value.as_f64() == Some(number),
        }
    }
}

/// Reads a folder's decoding settings from `generation_config.json` or, if that is missing, from config.json, where
/// older folders have them.
fn read(folder: &Path) -> Result<Option<JsonFile>, ModelError> {
    match JsonFile::read_if_there(folder, GENERATION_CONFIG_FILE)? {
        Some(file) => Ok(Some(file)),
        None => JsonFile::read_if_there(folder, CONFIG_FILE),
    }
}

impl GenerationConfig {
    /// The default decoding settings of the model in `folder`, which has `vocab_size` tokens. As in transformers 5.24
    /// they come from `generation_config.json` or, if that is missing, from config.json. Settings that the file leaves
    /// out are as in [`Self::default`], except that `top_k` is 50 if the file sets `do_sample`. If the file names no
    /// end token, texts only end at `max_new_tokens`.
    ///
    /// # Errors
    /// When a setting is invalid; the error names the file and the field.
    pub fn from_folder(folder: &Path, vocab_size: usize) -> Result<Self, ModelError> {
        Self::from_folder_over(folder, vocab_size, Self::default())
    }

    /// As [`Self::from_folder`], where settings that the file leaves out are as in `usual`.
    ///
    /// # Errors
    /// As [`Self::from_folder`].
    pub fn from_folder_over(
        folder: &Path,
        vocab_size: usize,
        usual: Self,
    ) -> Result<Self, ModelError> {
        let Some(file) = read(folder)? else {
            return Ok(usual);
        };
        let fields = file.fields();
        let whole = |field: &str, default: usize, least: usize| {
            fields.size_or(field, default, least..=MOST)
        };
        let number = |field: &str, default: f64| {
            let found = fields.number(field, f64::MIN..=f64::MAX)?;
            Ok::<f64, ModelError>(found.unwrap_or(default))
        };
        let do_sample = file.flag("do_sample")?.unwrap_or(false);
        let num_beams = whole("num_beams", usual.num_beams, 1)?;
        if do_sample && num_beams > 1 {
            return Err(fields.wrong(
                "do_sample",
                format!(
                    "is true with num_beams {num_beams}, but beam search with sampling is not supported; set do_sample \
                     to false or num_beams to 1"
                ),
            ));
        }
        let positive = |field: &str, default: f64| {
            let value = number(field, default)?;
            // The setting has no effect without sampling, and some files have 0 there.
            if value > 0.0 || !do_sample {
                Ok(if value > 0.0 { value } else { default })
            } else {
                Err(fields.wrong(field, format!("is {value}, but must be above 0")))
            }
        };
        let top_k = if do_sample { USUAL_TOP_K } else { usual.top_k };
        let repetition_penalty = number("repetition_penalty", usual.repetition_penalty)?;
        if repetition_penalty <= 0.0 {
            let message = format!("is {repetition_penalty}, but must be above 0");
            return Err(fields.wrong("repetition_penalty", message));
        }
        Ok(Self {
            max_new_tokens: whole("max_new_tokens", usual.max_new_tokens, 1)?,
            min_new_tokens: whole("min_new_tokens", usual.min_new_tokens, 0)?,
            num_beams,
            length_penalty: number("length_penalty", usual.length_penalty)?,
            early_stopping: early_stopping(&file)?,
            no_repeat_ngram_size: whole("no_repeat_ngram_size", usual.no_repeat_ngram_size, 0)?,
            repetition_penalty,
            do_sample,
            temperature: positive("temperature", usual.temperature)?,
            top_k: whole("top_k", top_k, 0)?,
            top_p: fields.number("top_p", 0.0..=1.0)?.unwrap_or(usual.top_p),
            min_p: fields.number("min_p", 0.0..=1.0)?.unwrap_or(usual.min_p),
            eos_token_ids: end_tokens(&file, vocab_size)?,
            ..usual
        })
    }
}

fn early_stopping(file: &JsonFile) -> Result<EarlyStopping, ModelError> {
    let field = "early_stopping";
    match file.get(field) {
        None => Ok(EarlyStopping::No),
        Some(value) => serde_json::from_value(value.clone()).map_err(|_| {
            let message = format!("is {}, but must be true, false or \"never\"", brief(value));
            file.fields().wrong(field, message)
        }),
    }
}

/// The tokens that end a text. Tokens outside of the model's vocabulary are left out, since they are never generated.
fn end_tokens(file: &JsonFile, vocab_size: usize) -> Result<Vec<u32>, ModelError> {
    let field = "eos_token_id";
    let found = match file.get(field) {
        None => Some(Vec::new()),
        Some(Value::Array(ids)) => ids.iter().map(Value::as_i64).collect(),
        Some(value) => value.as_i64().map(|id| vec![id]),
    };
    let ids: Vec<i64> = found.ok_or_else(|| {
        let value = file.get(field).map(Value::to_string).unwrap_or_default();
        let message = format!(
            "is {}, but must be a token id or a list of token ids",
            shown(&value)
        );
        file.fields().wrong(field, message)
    })?;
    let ids = ids.into_iter().filter_map(|id| u32::try_from(id).ok());
    Ok(ids.filter(|id| (*id as usize) < vocab_size).collect())
}

/// The settings in a folder's file that change the texts of transformers and are not supported here, with the file's
/// name.
///
/// # Errors
/// A file that cannot be read.
pub(crate) fn ignored_settings(
    folder: &Path,
) -> Result<Option<(&'static str, Vec<&'static str>)>, ModelError> {
    let Some(file) = read(folder)? else {
        return Ok(None);
    };
    let samples = file.get("do_sample") == Some(&Value::Bool(true));
    let acts = |field: &str, neutral: Neutral| {
        let value = file.get(field).is_some_and(|value| !neutral.is(value));
        value && (samples || !OF_SAMPLING.contains(&field))
    };
    let mut ignored: Vec<&'static str> = WITHOUT
        .into_iter()
        .filter(|(field, neutral)| acts(field, *neutral))
        .map(|(field, _)| field)
        .collect();
    if acts("top_h", Neutral::Null) {
        ignored.push("top_h");
    }
    // `max_length` includes the prompt's tokens, and has no effect next to `max_new_tokens`.
    if acts("max_length", Neutral::Null) && file.get("max_new_tokens").is_none() {
        ignored.push("max_length");
    }
    let name = if is_there(&folder.join(GENERATION_CONFIG_FILE)) {
        GENERATION_CONFIG_FILE
    } else {
        CONFIG_FILE
    };
    Ok((!ignored.is_empty()).then_some((name, ignored)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    const NAMES: [&str; 2] = [GENERATION_CONFIG_FILE, CONFIG_FILE];

    fn folder(files: &[(&str, Value)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, value) in files {
            std::fs::write(folder.path().join(name), value.to_string()).unwrap();
        }
        folder
    }

    fn of(files: &[(&str, Value)]) -> Result<GenerationConfig, ModelError> {
        GenerationConfig::from_folder(folder(files).path(), 100)
    }

    #[test]
    fn a_file_without_settings_gives_the_defaults() {
        // The generation_config.json that transformers writes for a GPT-2.
        let written = json!({"_from_model_config": true, "bos_token_id": 50256, "eos_token_id": 7,
            "transformers_version": "5.24.0", "use_cache": true});
        let expected = GenerationConfig {
            eos_token_ids: vec![7],
            ..GenerationConfig::default()
        };
        assert_eq!(of(&[(NAMES[0], written)]).unwrap(), expected);
        assert_eq!(of(&[]).unwrap(), GenerationConfig::default());
    }

    #[test]
    fn the_settings_of_the_file_are_used() {
        let settings = json!({"max_new_tokens": 9, "min_new_tokens": 2, "num_beams": 4, "length_penalty": 2,
            "early_stopping": "never", "no_repeat_ngram_size": 3, "repetition_penalty": 1.5,
            "eos_token_id": [5, 3, 500, -1], "temperature": 0.0});
        for name in NAMES {
            let found = of(&[(name, settings.clone())]).unwrap();
            let expected = GenerationConfig {
                max_new_tokens: 9,
                min_new_tokens: 2,
                num_beams: 4,
                length_penalty: 2.0,
                early_stopping: EarlyStopping::Never,
                no_repeat_ngram_size: 3,
                repetition_penalty: 1.5,
                // 500 and -1 are not among the 100 tokens, so they are left out.
                eos_token_ids: vec![5, 3],
                ..GenerationConfig::default()
            };
            assert_eq!(found, expected);
        }
        let sampled = of(&[(
            NAMES[0],
            json!({"do_sample": true, "temperature": 0.7, "top_p": 0.9, "min_p": 0.05}),
        )])
        .unwrap();
        assert!(sampled.do_sample);
        assert_eq!((sampled.temperature, sampled.top_p), (0.7, 0.9));
        assert_eq!(sampled.min_p, 0.05);
        // The default of transformers.
        assert_eq!(sampled.top_k, 50);
        let drawn = of(&[(NAMES[0], json!({"do_sample": true, "top_k": 3}))]).unwrap();
        assert_eq!(drawn.top_k, 3);
    }

    /// As in transformers 5.24, settings in config.json count only if there is no generation_config.json. A
    /// generation_config.json without an end token means that there is none, even if config.json has one.
    #[test]
    fn config_json_counts_only_without_generation_config_json() {
        let older = json!({"num_beams": 4, "eos_token_id": 1, "max_new_tokens": 5});
        let both = of(&[(NAMES[0], json!({})), (NAMES[1], older.clone())]).unwrap();
        assert_eq!(both, GenerationConfig::default());
        let alone = of(&[(NAMES[1], older)]).unwrap();
        assert_eq!((alone.num_beams, alone.max_new_tokens), (4, 5));
        assert_eq!(alone.eos_token_ids, [1]);
        let params = json!({"task_specific_params": {"text-generation": {"do_sample": true}}});
        assert!(!of(&[(NAMES[1], params)]).unwrap().do_sample);
        let null = of(&[(NAMES[1], json!({"eos_token_id": null}))]).unwrap();
        assert!(null.eos_token_ids.is_empty());
    }

    #[test]
    fn invalid_settings_are_refused_with_file_and_field() {
        for (settings, expected) in [
            (json!({"num_beams": 0}), "field `num_beams` is `0`"),
            (json!({"num_beams": 2.5}), "field `num_beams` is `2.5`"),
            (json!({"eos_token_id": "end"}), "field `eos_token_id` is"),
            (json!({"eos_token_id": [1, "x"]}), "field `eos_token_id` is"),
            (json!({"do_sample": "yes"}), "must be true or false"),
            (json!({"early_stopping": "often"}), "\"never\""),
            (json!({"top_p": 2}), "field `top_p` is"),
            (json!({"repetition_penalty": 0}), "must be above 0"),
            (
                json!({"do_sample": true, "temperature": 0.0}),
                "must be above 0",
            ),
            (
                json!({"do_sample": true, "num_beams": 3}),
                "beam search with sampling",
            ),
            (json!([1]), "invalid JSON"),
        ] {
            let error = of(&[(NAMES[0], settings)]).unwrap_err().to_string();
            assert!(error.contains(GENERATION_CONFIG_FILE), "{error}");
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn unsupported_settings_are_reported_only_where_they_have_an_effect() {
        let ignored = |settings: Value| {
            let folder = folder(&[(NAMES[0], settings)]);
            ignored_settings(folder.path())
                .unwrap()
                .map_or_else(Vec::new, |(name, fields)| {
                    assert_eq!(name, GENERATION_CONFIG_FILE);
                    fields
                })
        };
        let nothing = json!({"min_length": 0, "typical_p": 1.0, "bad_words_ids": null, "suppress_tokens": [],
            "renormalize_logits": false, "num_return_sequences": 1, "guidance_scale": 1, "min_p": 0.1,
            "diversity_penalty": 0.0, "max_length": 20, "max_new_tokens": 5, "eos_token_id": 1, "pad_token_id": 1});
        assert_eq!(ignored(nothing), Vec::<&str>::new());
        for (settings, field) in [
            (json!({"bad_words_ids": [[3]]}), "bad_words_ids"),
            (json!({"min_length": 3}), "min_length"),
            (json!({"max_length": 30}), "max_length"),
            (json!({"forced_eos_token_id": 3}), "forced_eos_token_id"),
            (json!({"top_h": 0.4, "do_sample": true}), "top_h"),
            (json!({"sequence_bias": [[[3], -1.0]]}), "sequence_bias"),
            (json!({"num_return_sequences": 2}), "num_return_sequences"),
        ] {
            assert_eq!(ignored(settings), [field]);
        }
    }
}

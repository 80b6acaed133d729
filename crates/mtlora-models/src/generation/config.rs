//! The settings of decoding.

use serde::{Deserialize, Serialize};

/// The largest number of sampled sequences for one prompt: all of them are in the cache at the same time.
const MAX_SAMPLES: usize = 10_000;

/// The settings of decoding, with the field names and meanings of Hugging Face's `GenerationConfig`. Fields that a file
/// leaves out have the values of [`Self::default`].
///
/// ```
/// # use mtlora_models::GenerationConfig;
/// // GPT-2 on E2E, after Hu et al. (2021).
/// let config = GenerationConfig {
///     num_beams: 10,
///     length_penalty: 0.9,
///     no_repeat_ngram_size: 4,
///     max_new_tokens: 64,
///     eos_token_ids: vec![628, 50256],
///     ..GenerationConfig::default()
/// };
/// assert!(config.validate().is_ok());
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GenerationConfig {
    /// The largest number of generated tokens, the end token included. At least 1.
    pub max_new_tokens: usize,
    /// The number of tokens that must be generated before an end token is allowed. At most `max_new_tokens`.
    pub min_new_tokens: usize,
    /// The number of sequences that beam search follows in parallel; 1 means greedy decoding or sampling instead of
    /// beam search.
    pub num_beams: usize,
    /// Beam search divides a sequence's log-probability by its number of generated tokens, the end token included, to
    /// this power. Above 0 it favours long sequences.
    pub length_penalty: f64,
    /// When beam search ends.
    pub early_stopping: EarlyStopping,
    /// No n-gram of this many tokens may occur twice in the prompt and its continuation; 0 allows all repetitions.
    pub no_repeat_ngram_size: usize,
    /// The score of a token that already occurs in the prompt or its continuation is divided by this if it is positive
    /// and multiplied by it otherwise (Keskar et al., 2019). Above 0; 1 does nothing.
    pub repetition_penalty: f64,
    /// Draw each token from the distribution instead of taking the likeliest.
    pub do_sample: bool,
    /// Sampling divides the logits by this. Above 0.
    pub temperature: f64,
    /// Sampling draws from this many of the likeliest tokens (Fan et al., 2018), and from those as likely as the last
    /// of them. 0, which is the default here (Hugging Face's is 50), means all tokens.
    pub top_k: usize,
    /// Sampling draws from the smallest set of likeliest tokens whose probabilities sum to at least this (Holtzman et
    /// al., 2020). From 0 to 1; 1 means all tokens.
    pub top_p: f64,
    /// Sampling draws from the tokens that are at least this many times as likely as the likeliest (Nguyen et al., 2024).
    /// From 0 to 1; 0 means all tokens.
    pub min_p: f64,
    /// The seed of sampling. The tokens that are drawn for a prompt depend on the seed and on the prompt's tokens, not
    /// on the batch.
    pub seed: u64,
    /// The end tokens: any one of them ends a sequence.
    pub eos_token_ids: Vec<u32>,
    /// The number of sequences that are returned for each prompt: 1 with greedy decoding, at most `num_beams` with beam
    /// search, and at most 10,000 with sampling.
    pub num_return_sequences: usize,
}

impl Default for GenerationConfig {
    /// Greedy decoding of up to 64 tokens, without an end token.
    fn default() -> Self {
        Self {
            max_new_tokens: 64,
            min_new_tokens: 0,
            num_beams: 1,
            length_penalty: 1.0,
            early_stopping: EarlyStopping::No,
            no_repeat_ngram_size: 0,
            repetition_penalty: 1.0,
            do_sample: false,
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            seed: 0,
            eos_token_ids: Vec::new(),
            num_return_sequences: 1,
        }
    }
}

/// When beam search ends once it has `num_beams` finished sequences (Hugging Face's `early_stopping`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "EarlyStoppingValue", into = "EarlyStoppingValue")]
pub enum EarlyStopping {
    /// `false`: when the best running sequence, scored at its current length, is no better than the worst finished one.
    #[default]
    No,
    /// `true`: at once.
    Yes,
    /// `"never"`: when no running sequence can still become better than the worst finished one. If `length_penalty` is
    /// above 0, running sequences are scored at a length of `max_new_tokens` for this.
    Never,
}

/// The representation in files.
#[derive(Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "early_stopping must be true, false or \"never\""
)]
enum EarlyStoppingValue {
    Flag(bool),
    Word(Never),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Never {
    Never,
}

impl From<EarlyStoppingValue> for EarlyStopping {
    fn from(value: EarlyStoppingValue) -> Self {
        match value {
            EarlyStoppingValue::Flag(false) => Self::No,
            EarlyStoppingValue::Flag(true) => Self::Yes,
            EarlyStoppingValue::Word(Never::Never) => Self::Never,
        }
    }
}

impl From<EarlyStopping> for EarlyStoppingValue {
    fn from(value: EarlyStopping) -> Self {
        match value {
            EarlyStopping::No => Self::Flag(false),
            EarlyStopping::Yes => Self::Flag(true),
            EarlyStopping::Never => Self::Word(Never::Never),
        }
    }
}

/// A setting out of range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("generation setting `{field}` is {value}, but must be {range}")]
pub struct InvalidConfig {
    /// The field's name.
    pub field: &'static str,
    /// Its value.
    pub value: String,
    /// The allowed values.
    pub range: String,
}

impl GenerationConfig {
    /// Checks that every field is within its range.
    ///
    /// # Errors
    /// The first field that is out of range, and its range.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let most_sequences = match (self.num_beams, self.do_sample) {
            (1, true) => MAX_SAMPLES,
            (beams, _) => beams,
        };
        within(
            "max_new_tokens",
            self.max_new_tokens,
            self.max_new_tokens >= 1,
            || "at least 1".into(),
        )?;
        within(
            "min_new_tokens",
            self.min_new_tokens,
            self.min_new_tokens <= self.max_new_tokens,
            || format!("at most max_new_tokens, {}", self.max_new_tokens),
        )?;
        within("num_beams", self.num_beams, self.num_beams >= 1, || {
            "at least 1".into()
        })?;
        within(
            "length_penalty",
            self.length_penalty,
            self.length_penalty.is_finite(),
            || "finite".into(),
        )?;
        within(
            "repetition_penalty",
            self.repetition_penalty,
            positive(f64::from(self.repetition_penalty as f32)),
            || "finite and above 0 (1 does nothing)".into(),
        )?;
        within(
            "temperature",
            self.temperature,
            positive(self.temperature),
            || "finite and above 0 (for the likeliest token, set do_sample to false)".into(),
        )?;
        within(
            "top_p",
            self.top_p,
            (0.0..=1.0).contains(&self.top_p),
            || "from 0 to 1".into(),
        )?;
        within(
            "min_p",
            self.min_p,
            (0.0..=1.0).contains(&self.min_p),
            || "from 0 to 1".into(),
        )?;
        within(
            "do_sample",
            self.do_sample,
            !self.do_sample || self.num_beams <= 1,
            || "false with more than one beam: beam search with sampling is not supported".into(),
        )?;
        within(
            "num_return_sequences",
            self.num_return_sequences,
            (1..=most_sequences).contains(&self.num_return_sequences),
            || {
                format!(
                    "from 1 to {most_sequences} with num_beams {} and do_sample {}",
                    self.num_beams, self.do_sample
                )
            },
        )
    }

    /// Checks that the settings fit a vocabulary of `vocab_size` tokens.
    pub(super) fn validate_for(&self, vocab_size: usize) -> Result<(), InvalidConfig> {
        within(
            "num_beams",
            self.num_beams,
            self.num_beams <= vocab_size,
            || format!("at most the size of the model's vocabulary, {vocab_size}"),
        )?;
        for &token in &self.eos_token_ids {
            within(
                "eos_token_ids",
                token,
                (token as usize) < vocab_size,
                || format!("below the size of the model's vocabulary, {vocab_size}"),
            )?;
        }
        Ok(())
    }

    /// Whether a token ends a sequence.
    pub(super) fn is_end(&self, token: u32) -> bool {
        self.eos_token_ids.contains(&token)
    }
}

fn within(
    field: &'static str,
    value: impl ToString,
    is_within: bool,
    range: impl FnOnce() -> String,
) -> Result<(), InvalidConfig> {
    if is_within {
        return Ok(());
    }
    Err(InvalidConfig {
        field,
        value: value.to_string(),
        range: range(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    type Change = fn(&mut GenerationConfig);

    #[test]
    fn every_field_out_of_range_is_named() {
        let cases: [(&str, Change); 20] = [
            ("max_new_tokens", |c| c.max_new_tokens = 0),
            ("min_new_tokens", |c| c.min_new_tokens = 65),
            ("num_beams", |c| c.num_beams = 0),
            ("length_penalty", |c| c.length_penalty = f64::NAN),
            ("repetition_penalty", |c| c.repetition_penalty = 0.0),
            ("repetition_penalty", |c| {
                c.repetition_penalty = f64::INFINITY
            }),
            ("repetition_penalty", |c| c.repetition_penalty = 1e-300),
            ("temperature", |c| c.temperature = 0.0),
            ("temperature", |c| c.temperature = f64::NAN),
            ("top_p", |c| c.top_p = 1.1),
            ("top_p", |c| c.top_p = -0.1),
            ("top_p", |c| c.top_p = f64::NAN),
            ("min_p", |c| c.min_p = 1.1),
            ("min_p", |c| c.min_p = f64::NAN),
            ("num_return_sequences", |c| c.num_return_sequences = 0),
            ("num_return_sequences", |c| c.num_return_sequences = 2),
            ("num_return_sequences", |c| {
                (c.num_beams, c.num_return_sequences) = (3, 4)
            }),
            ("num_return_sequences", |c| {
                (c.do_sample, c.num_return_sequences) = (true, usize::MAX)
            }),
            ("do_sample", |c| (c.num_beams, c.do_sample) = (2, true)),
            ("length_penalty", |c| c.length_penalty = f64::INFINITY),
        ];
        for (field, change) in cases {
            let mut config = GenerationConfig::default();
            change(&mut config);
            let error = config.validate().unwrap_err();
            assert_eq!(error.field, field);
            assert!(
                error.to_string().contains(&format!("`{field}` is ")),
                "{error}"
            );
        }
        assert_eq!(GenerationConfig::default().validate(), Ok(()));
    }

    #[test]
    fn a_vocabulary_bounds_beams_and_end_tokens() {
        let config = GenerationConfig {
            num_beams: 11,
            ..GenerationConfig::default()
        };
        assert_eq!(config.validate_for(10).unwrap_err().field, "num_beams");
        assert_eq!(config.validate_for(11), Ok(()));
        let config = GenerationConfig {
            eos_token_ids: vec![9, 10],
            ..GenerationConfig::default()
        };
        assert_eq!(
            config.validate_for(10).unwrap_err().to_string(),
            "generation setting `eos_token_ids` is 10, but must be below the size of the model's vocabulary, 10"
        );
    }

    #[test]
    fn early_stopping_has_hugging_faces_values_in_files() {
        for (text, value) in [
            ("false", EarlyStopping::No),
            ("true", EarlyStopping::Yes),
            ("\"never\"", EarlyStopping::Never),
        ] {
            let config: GenerationConfig =
                serde_json::from_str(&format!("{{\"early_stopping\": {text}}}")).unwrap();
            assert_eq!(config.early_stopping, value);
            assert_eq!(serde_json::to_string(&value).unwrap(), text);
        }
        let error = serde_json::from_str::<GenerationConfig>("{\"early_stopping\": \"always\"}")
            .unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("early_stopping must be true, false or \"never\""),
            "{error}"
        );
    }

    #[test]
    fn unknown_fields_are_refused() {
        let error = serde_json::from_str::<GenerationConfig>("{\"beams\": 3}").unwrap_err();
        assert!(error.to_string().contains("unknown field `beams`"));
    }
}

//! Writes texts with a trained causal model.

use burn::tensor::Device;
use mtlora_models::{
    CachedDecoder, CausalModelConfig, DecodeError, GenerationConfig, GenerationError, ModelError,
    Progress, TextConfig, generate,
};

use crate::data::python;
use crate::metrics::labels::Scores;
use crate::run::model::generator::LoadedGenerator;
use crate::tasks::data_to_text::Record;
use crate::training::error::FitError;
use crate::training::learners::causal::{causal_scores, encode_records};

/// The number of rows (prompts times beams) that are decoded together: enough for efficient matrix products, without a
/// cache that is larger than the model.
const ROWS: usize = 160;

/// Why a text could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The tokenizer failed to decode a written text.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The tokenizer failed to encode an input.
    #[error("input {number}: {source}")]
    Input {
        /// The number of the input, counted from 1.
        number: usize,
        /// The tokenizer's error.
        source: ModelError,
    },
    /// Decoding failed.
    #[error(transparent)]
    Decoding(#[from] GenerationError<DecodeError>),
    /// The search found no text.
    #[error("no text can be written for input {number}, because the settings forbid every text")]
    Nothing {
        /// The number of the input, counted from 1.
        number: usize,
    },
    /// The prompt leaves no room for a text.
    #[error(
        "input {number} is {tokens} tokens long, and with {new} new ones more than the {most} that \
         the model reads; {}", too_long_advice(*.new, *.most)
    )]
    TooLong {
        /// The number of the input, counted from 1.
        number: usize,
        /// The length of the prompt in tokens, with the end-of-text token.
        tokens: usize,
        /// `max_new_tokens`.
        new: usize,
        /// The number of positions that the model has.
        most: usize,
    },
}

/// What to do about a prompt that leaves no room for `new` tokens of at most `most`.
fn too_long_advice(new: usize, most: usize) -> String {
    if new > most {
        format!("ask for fewer new ones than {most} with --max-new-tokens")
    } else {
        "shorten it, ask for fewer new ones with --max-new-tokens, or pass --cut-input to cut inputs from the left".into()
    }
}

impl WriteError {
    /// The number of the input that the error is about, counted from 1, if it is about a single one.
    pub fn input(&self) -> Option<usize> {
        match self {
            Self::Nothing { number }
            | Self::TooLong { number, .. }
            | Self::Input { number, .. } => Some(*number),
            Self::Model(_) | Self::Decoding(_) => None,
        }
    }

    /// Replaces the number of the input in the error by what the function returns for it.
    pub(crate) fn renumbered(mut self, place: impl Fn(usize) -> usize) -> Self {
        match &mut self {
            Self::Nothing { number }
            | Self::TooLong { number, .. }
            | Self::Input { number, .. } => *number = place(*number),
            Self::Model(_) | Self::Decoding(_) => {}
        }
        self
    }
}

/// The form of the prompts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptForm {
    /// An input followed by the end-of-text token, after which the text begins. Runs of data-to-text tasks are trained
    /// on this form.
    Input,
    /// The beginning of a text, which the model continues.
    Beginning,
    /// What a chat template made of a conversation, up to the beginning of the assistant's answer.
    Conversation,
}

/// The options of writing texts.
#[derive(Clone, Debug, PartialEq)]
pub struct WriteOptions {
    /// The settings of decoding.
    pub decoding: GenerationConfig,
    /// The form of the prompts.
    pub form: PromptForm,
    /// Truncate prompts that are too long on the left instead of refusing them.
    pub cut: bool,
}

/// A text that a model wrote.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// The text. For an [`Input`](PromptForm::Input) and a [`Conversation`](PromptForm::Conversation), white space around it
    /// is removed. For a
    /// [`Beginning`](PromptForm::Beginning) it is kept, so that the beginning followed by this text is the whole text.
    pub text: String,
    /// As [`Generated::score`](mtlora_models::Generated::score).
    pub score: f32,
    /// Whether the text ended with an end token and not because of its length.
    pub ended: bool,
}

impl LoadedGenerator {
    /// The tokens of a prompt, truncated if necessary to leave room for the new tokens.
    fn prompt(
        &self,
        number: usize,
        text: &str,
        options: &WriteOptions,
    ) -> Result<Vec<u32>, WriteError> {
        let (new, most) = (options.decoding.max_new_tokens, self.config.max_tokens());
        // The model never reads the last new token.
        let room = most.saturating_sub(new.saturating_sub(1));
        let ids = if options.cut {
            self.text.encode_last(text, room)
        } else {
            self.text.encode(text)
        };
        let mut ids = ids.map_err(|source| WriteError::Input { number, source })?;
        if options.form == PromptForm::Input {
            ids.push(self.config.end_of_text());
        }
        if ids.len() > room {
            if !options.cut || room == 0 {
                return Err(WriteError::TooLong {
                    number,
                    tokens: ids.len(),
                    new,
                    most,
                });
            }
            ids.drain(..ids.len() - room);
        }
        Ok(ids)
    }

    /// Writes a text for each input, in the order of the inputs, and reports the number of finished texts to `observe`.
    /// The model must be without gradients on `device`. It is faster if its adapter is folded in.
    ///
    /// # Errors
    /// When an input is too long for the model (and is not to be truncated), a setting is out of range, or the device
    /// fails.
    pub fn write(
        &self,
        inputs: &[&str],
        options: &WriteOptions,
        device: &Device,
        observe: &mut dyn FnMut(usize),
    ) -> Result<Vec<Written>, WriteError> {
        let prompts = inputs
            .iter()
            .enumerate()
            .map(|(index, input)| self.prompt(index + 1, input, options))
            .collect::<Result<Vec<_>, _>>()?;
        let decoding = &options.decoding;
        // Prompts of similar lengths finish at about the same time.
        let mut order: Vec<usize> = (0..prompts.len()).collect();
        order.sort_by_key(|index| prompts[*index].len());
        let mut decoder = CachedDecoder::new(&self.model, &self.config, device);
        let mut written: Vec<Option<Written>> = vec![None; inputs.len()];
        let mut done = 0;
        let together = (ROWS / decoding.num_beams.max(1)).max(1);
        for group in order.chunks(together) {
            let chosen: Vec<Vec<u32>> = group.iter().map(|index| prompts[*index].clone()).collect();
            let mut finished = |progress: Progress<'_>| {
                if let Progress::Finished { .. } = progress {
                    done += 1;
                    observe(done);
                }
            };
            let all = generate(&mut decoder, &chosen, decoding, &mut finished)?;
            for (index, sequences) in group.iter().zip(all) {
                if let Some(best) = sequences.into_iter().next() {
                    let text = match options.form {
                        PromptForm::Input | PromptForm::Conversation => {
                            python::strip(&self.text.decode(&best.tokens)?).to_string()
                        }
                        PromptForm::Beginning => {
                            // The end token is part of the text unless it is a special token, which has no text.
                            let end = best.end_token.as_slice();
                            let tokens = [best.tokens.as_slice(), end].concat();
                            self.text.decode_after(&prompts[*index], &tokens)?
                        }
                    };
                    written[*index] = Some(Written {
                        text,
                        score: best.score,
                        ended: best.end_token.is_some(),
                    });
                }
            }
        }
        let numbered = written.into_iter().zip(1..);
        numbered
            .map(|(one, number)| one.ok_or(WriteError::Nothing { number }))
            .collect()
    }

    /// Writes a text for each record, each on one line, and reports the number of finished texts to `observe`. The
    /// model is in the state in which [`load`](crate::ModelSpec::load) returns it.
    ///
    /// # Errors
    /// When the settings forbid every text, or the device fails.
    pub fn write_records(
        &self,
        records: &[Record],
        decoding: &GenerationConfig,
        device: &Device,
        observe: &mut dyn FnMut(usize),
    ) -> Result<Vec<String>, WriteError> {
        let inputs: Vec<&str> = records.iter().map(|record| record.input.as_str()).collect();
        let options = WriteOptions {
            decoding: decoding.clone(),
            form: PromptForm::Input,
            cut: true,
        };
        let written = self.write(&inputs, &options, device, observe)?;
        // The scores read texts line by line as words with spaces between them, so the texts are kept in this form.
        let one_line = |text: &str| python::split(text).collect::<Vec<_>>().join(" ");
        Ok(written.iter().map(|one| one_line(&one.text)).collect())
    }

    /// The loss and the perplexity of the records' references, in sequences of at most `max_length` tokens. The model
    /// is in the state in which [`load`](crate::ModelSpec::load) returns it.
    ///
    /// # Errors
    /// When no reference is short enough, or the device fails.
    pub fn likelihood(
        &self,
        records: &[Record],
        max_length: usize,
        device: &Device,
    ) -> Result<Scores, FitError> {
        let end = self.config.end_of_text();
        let (sequences, _) = encode_records(&self.text, end, records, max_length)?;
        causal_scores(&self.model, &sequences, device)
    }
}

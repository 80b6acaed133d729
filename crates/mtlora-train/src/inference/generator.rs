//! Writing texts with a trained causal model.

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

/// Rows (prompts times beams) that are decoded together: what makes a matrix product of a step
/// worthwhile without a cache larger than the model.
const ROWS: usize = 160;

/// Why no text was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// What the tokenizer says of a text that was written.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// What the tokenizer says of an input.
    #[error("input {number}: {source}")]
    Input {
        /// Which input, from 1.
        number: usize,
        /// The tokenizer's reason.
        source: ModelError,
    },
    /// The decoding.
    #[error(transparent)]
    Decoding(#[from] GenerationError<DecodeError>),
    /// A search that found no text.
    #[error("nothing can be written for input {number}: the settings forbid every text")]
    Nothing {
        /// Which input, from 1.
        number: usize,
    },
    /// A prompt that leaves no room for a text.
    #[error(
        "input {number} is {tokens} tokens long, and with {new} new ones more than the {most} that \
         the model reads; shorten it, or pass --cut-input to cut inputs from the left"
    )]
    TooLong {
        /// Which input, from 1.
        number: usize,
        /// Its tokens, with the end mark.
        tokens: usize,
        /// `max_new_tokens`.
        new: usize,
        /// The model's positions.
        most: usize,
    },
}

impl WriteError {
    /// The number of the input that it is about, from 1, if it is about one.
    pub fn input(&self) -> Option<usize> {
        match self {
            Self::Nothing { number }
            | Self::TooLong { number, .. }
            | Self::Input { number, .. } => Some(*number),
            Self::Model(_) | Self::Decoding(_) => None,
        }
    }

    /// The same of another input: `number` gives its number for the one that is named.
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

/// What a model is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptForm {
    /// An input and the end-of-text token, after which its text begins: what runs of data-to-text
    /// tasks have learned.
    Input,
    /// The beginning of a text, to be gone on with.
    Beginning,
}

/// How texts are written.
#[derive(Clone, Debug, PartialEq)]
pub struct WriteOptions {
    /// How to decode.
    pub decoding: GenerationConfig,
    /// What the prompts are.
    pub form: PromptForm,
    /// Cut prompts that are too long from the left, rather than refuse them.
    pub cut: bool,
}

/// A text that a model wrote.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// The text. Of an [`Input`](PromptForm::Input) it is without white space around it; what continues a
    /// [`Beginning`](PromptForm::Beginning) is as it was written, so that the two together are the whole text.
    pub text: String,
    /// As [`Generated::score`](mtlora_models::Generated::score).
    pub score: f32,
    /// Whether it ended by an end token, not by its length.
    pub ended: bool,
}

impl LoadedGenerator {
    /// The tokens of a prompt, which leave room for the new ones.
    fn prompt(
        &self,
        number: usize,
        text: &str,
        options: &WriteOptions,
    ) -> Result<Vec<u32>, WriteError> {
        let (new, most) = (options.decoding.max_new_tokens, self.config.max_tokens());
        // The last new token is never read.
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

    /// Writes a text for each input, in their order, and tells `observe` how many of them are done.
    ///
    /// The model is without gradients on `device`. With its adapter folded in it is faster.
    ///
    /// # Errors
    /// When an input is too long for the model (and not to be cut), a setting is out of its
    /// range, or the device fails.
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
        // Prompts of about one length are done at about one time.
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
                        PromptForm::Input => {
                            python::strip(&self.text.decode(&best.tokens)?).to_string()
                        }
                        PromptForm::Beginning => {
                            // A token that ends a text is part of it, unless it is a special one, which has no text.
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

    /// Writes a text for each record, on one line, and tells `observe` how many of them are done. The model is as
    /// [`load`](crate::ModelSpec::load) makes it.
    ///
    /// # Errors
    /// If the settings forbid every text, or the device fails.
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
        // In a file that is read line by line, texts are what the scores see: words with spaces between them.
        let one_line = |text: &str| python::split(text).collect::<Vec<_>>().join(" ");
        Ok(written.iter().map(|one| one_line(&one.text)).collect())
    }

    /// The loss and the perplexity of the records' references, in sequences of at most `max_length` tokens. The model is
    /// as [`load`](crate::ModelSpec::load) makes it.
    ///
    /// # Errors
    /// If no reference is short enough, or the device fails.
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

//! One text that is written token by token, and continued after what comes next: what a conversation needs.

use std::ops::ControlFlow;

use super::chain::choose;
use super::config::{GenerationConfig, InvalidConfig};
use super::decoder::RewindingDecoder;
use super::error::GenerationError;
use super::sampling::random_numbers;
use super::search::check_prompts;
use super::strategy::Generated;

/// Writes texts one after another with one decoder. What a prompt has in common with the text before it, from the first
/// token on, stays in the decoder's cache: the turns of a conversation are read once.
pub struct TextStream<D> {
    decoder: D,
    /// The tokens in the decoder's cache.
    cached: Vec<u32>,
}

impl<D: RewindingDecoder> TextStream<D> {
    /// A stream whose decoder has read nothing.
    pub fn new(decoder: D) -> Self {
        let cached = Vec::new();
        Self { decoder, cached }
    }

    /// The tokens that the decoder has read and keeps.
    pub fn cached(&self) -> &[u32] {
        &self.cached
    }

    /// Continues `prompt` greedily, or by sampling if `do_sample` is set, as [`generate`](super::generate) does, and
    /// passes each new token to `each`, which can end the text. End tokens are not passed.
    ///
    /// # Errors
    /// As [`generate`](super::generate), and if more than one beam is asked for.
    pub fn write(
        &mut self,
        prompt: &[u32],
        config: &GenerationConfig,
        each: &mut dyn FnMut(u32) -> ControlFlow<()>,
    ) -> Result<Generated, GenerationError<D::Error>> {
        config.validate()?;
        config.validate_for(self.decoder.vocab_size())?;
        if config.num_beams > 1 {
            return Err(InvalidConfig {
                field: "num_beams",
                value: config.num_beams.to_string(),
                range: "1 for a text that is shown while it is written".to_string(),
            }
            .into());
        }
        check_prompts(&self.decoder, &[prompt.to_vec()], config)?;
        let mut random = config
            .do_sample
            .then(|| random_numbers(config.seed, prompt, 0));
        let mut scratch = Vec::new();
        let mut score = 0.0;
        let mut logits = self.read(prompt, 1)?;
        for step in 1..=config.max_new_tokens {
            let chosen = choose(
                &logits,
                &self.cached,
                prompt.len(),
                config,
                &mut random,
                &mut scratch,
            );
            let (token, log_probability) = chosen.map_err(|stuck| stuck.at(0, step))?;
            score += log_probability;
            let new = self.cached.get(prompt.len()..).unwrap_or_default();
            let mut tokens = new.to_vec();
            if config.is_end(token) {
                return Ok(Generated {
                    tokens,
                    end_token: Some(token),
                    score: score as f32,
                });
            }
            tokens.push(token);
            if each(token).is_break() || step == config.max_new_tokens {
                return Ok(Generated {
                    tokens,
                    end_token: None,
                    score: score as f32,
                });
            }
            let whole = [self.cached.as_slice(), &[token]].concat();
            logits = self.read(&whole, step + 1)?;
        }
        unreachable!("max_new_tokens is at least 1, and the last of them returns")
    }

    /// Reads a text into the cache, as far as it is not there, and returns the logits after it, `[vocab]`.
    fn read(&mut self, text: &[u32], step: usize) -> Result<Vec<f32>, GenerationError<D::Error>> {
        let both = self.cached.iter().zip(text);
        let common = both.take_while(|(cached, new)| cached == new).count();
        // The last token is read again if need be, because the logits after it are not kept.
        let kept = common.min(text.len().saturating_sub(1));
        self.cached.clear();
        let new = text.get(kept..).unwrap_or_default();
        let logits = self
            .decoder
            .rewind(kept, new)
            .map_err(|source| GenerationError::Decoder { step, source })?;
        let expected = self.decoder.vocab_size();
        if logits.len() != expected {
            let found = logits.len();
            return Err(GenerationError::LogitsLength {
                step,
                expected,
                found,
            });
        }
        self.cached = text.to_vec();
        Ok(logits)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::super::generate;
    use super::super::toy::Toy;
    use super::*;

    const VOCAB: usize = 23;

    fn config(do_sample: bool, seed: u64) -> GenerationConfig {
        GenerationConfig {
            do_sample,
            seed,
            temperature: 0.8,
            top_k: 7,
            top_p: 0.9,
            min_p: 0.05,
            repetition_penalty: 1.2,
            max_new_tokens: 9,
            eos_token_ids: vec![3, 11],
            ..GenerationConfig::default()
        }
    }

    proptest! {
        /// Whatever was read before, a text is the one that `generate` writes.
        #[test]
        fn a_stream_writes_what_generate_does(
            prompts in prop::collection::vec(prop::collection::vec(0..VOCAB as u32, 1..7), 1..5),
            sample: bool, seed: u64,
        ) {
            let config = config(sample, seed);
            let mut stream = TextStream::new(Toy::new(VOCAB));
            let mut whole: Vec<u32> = Vec::new();
            for prompt in &prompts {
                // Half of the prompts continue the text before them.
                let prompt = if seed.is_multiple_of(2) { [whole.as_slice(), prompt].concat() } else { prompt.clone() };
                let mut seen = Vec::new();
                let written = stream.write(&prompt, &config, &mut |token| {
                    seen.push(token);
                    ControlFlow::Continue(())
                }).unwrap();
                let expected = generate(&mut Toy::new(VOCAB), std::slice::from_ref(&prompt), &config, &mut |_| ()).unwrap();
                prop_assert_eq!(&written, &expected[0][0]);
                prop_assert_eq!(&seen, &written.tokens);
                whole = [prompt, written.tokens].concat();
            }
        }
    }

    #[test]
    fn a_conversation_is_read_once() {
        let mut stream = TextStream::new(Toy::new(VOCAB));
        let config = config(false, 0);
        let go_on = &mut |_| ControlFlow::Continue(());
        let first = stream.write(&[1, 2, 4], &config, go_on).unwrap();
        // The last new token was never read.
        let read = stream.decoder.read_tokens;
        let second = [&[1, 2, 4], first.tokens.as_slice(), &[5, 6]].concat();
        let before = stream.cached().len();
        assert!(second.starts_with(stream.cached()));
        let one = GenerationConfig {
            max_new_tokens: 1,
            ..config.clone()
        };
        stream.write(&second, &one, go_on).unwrap();
        assert_eq!(stream.decoder.read_tokens - read, second.len() - before);
        // The same prompt again takes its last token alone.
        let read = stream.decoder.read_tokens;
        stream.write(&second, &one, go_on).unwrap();
        assert_eq!(stream.decoder.read_tokens - read, 1);
    }

    #[test]
    fn the_caller_can_end_a_text() {
        let mut stream = TextStream::new(Toy::new(VOCAB));
        let config = GenerationConfig {
            eos_token_ids: Vec::new(),
            ..config(false, 0)
        };
        let mut left = 3;
        let written = stream.write(&[1], &config, &mut |_| {
            left -= 1;
            if left == 0 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        let written = written.unwrap();
        assert_eq!((written.tokens.len(), written.end_token), (3, None));
        let beams = GenerationConfig {
            num_beams: 2,
            ..config
        };
        let error = stream
            .write(&[1], &beams, &mut |_| ControlFlow::Continue(()))
            .unwrap_err();
        assert!(error.to_string().contains("`num_beams` is 2"), "{error}");
    }
}

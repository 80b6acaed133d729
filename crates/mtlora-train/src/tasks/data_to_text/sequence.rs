use crate::data::python;
use std::ops::Range;

/// The tokens of one input and its target.
///
/// A sequence consists of the input's tokens, the end-of-text token (50256 in GPT-2's vocabulary), the tokens of a space
/// and the target, and another end-of-text token. The first end-of-text token ends the prompt, and the model writes the
/// second one at the end of its text. The loss is over the target and the second end-of-text token. (Source: the
/// published code of Hu et al. 2021, `gpt2_encode.py` with `--add_bos` `--add_eos`, and the mask in `data_utils.py`.)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// The tokens.
    pub ids: Vec<u32>,
    /// The index in `ids` where the target begins: the loss is over the prediction of `ids[loss_from..]`, the first of
    /// which is predicted from the end-of-text token before it.
    pub loss_from: usize,
}

/// A target that does not fit into a sequence of the maximum length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the target with its two end-of-text tokens has {needed} tokens, more than the maximum length of {max_length}; \
     shorten the target or raise the maximum length"
)]
pub struct TooLong {
    /// The number of tokens of the target with both end-of-text tokens.
    pub needed: usize,
    /// The maximum number of tokens.
    pub max_length: usize,
}

/// Encodes `input` and `target`; `end` is the end-of-text token. White space around the target does not matter.
///
/// # Errors
/// The errors of `encode`.
pub fn sequence<E>(
    encode: impl Fn(&str) -> Result<Vec<u32>, E>,
    end: u32,
    input: &str,
    target: &str,
) -> Result<Sequence, E> {
    let (input, target) = (encode(input)?, encode(&target_text(target))?);
    Ok(Sequence::of(input, &target, end))
}

/// A target as it is encoded.
pub(crate) fn target_text(target: &str) -> String {
    format!(" {}", python::strip(target))
}

impl Sequence {
    /// The sequence of the tokens of an input and of its target, each followed by the end-of-text token `end`.
    pub(crate) fn of(input: Vec<u32>, target: &[u32], end: u32) -> Self {
        let mut ids = input;
        ids.push(end);
        let loss_from = ids.len();
        ids.extend(target);
        ids.push(end);
        Self { ids, loss_from }
    }

    /// The tokens to generate from: all up to and including the first end-of-text token.
    pub fn prompt(&self) -> &[u32] {
        self.ids.get(..self.loss_from).unwrap_or(&self.ids)
    }

    /// The range of the tokens that the loss is over. It never includes the first token, which nothing predicts.
    pub fn targets(&self) -> Range<usize> {
        let end = self.ids.len();
        self.loss_from.clamp(1.min(end), end)..end
    }

    /// Cuts the input from the left until there are at most `max_length` tokens, and returns the number of tokens that
    /// were cut. The target is never cut, because the model would learn to write incomplete sentences. (The published
    /// code also cuts prompts from the left, but cuts sequences for training from the right, targets first.)
    ///
    /// # Errors
    /// [`TooLong`] if the target does not fit even without any input.
    pub fn cut_input(&mut self, max_length: usize) -> Result<usize, TooLong> {
        let cut = self.ids.len().saturating_sub(max_length);
        // The first end-of-text token is kept even if the whole input is cut.
        let input = self.loss_from.saturating_sub(1);
        if cut > input {
            return Err(TooLong {
                needed: self.ids.len() - input,
                max_length,
            });
        }
        self.ids.drain(..cut);
        self.loss_from -= cut;
        Ok(cut)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn bytes(text: &str) -> Result<Vec<u32>, String> {
        if text.contains('!') {
            return Err(text.to_string());
        }
        Ok(text.bytes().map(u32::from).collect())
    }

    #[test]
    fn the_target_is_between_two_end_of_text_tokens() {
        let stripped = sequence(bytes, 50256, "ab", "\u{1c}cd \u{1f}").unwrap();
        let sequence = sequence(bytes, 50256, "ab", "cd ").unwrap();
        assert_eq!(stripped, sequence);
        let expected = [97, 98, 50256, 32, 99, 100, 50256];
        assert_eq!(sequence.ids, expected);
        assert_eq!(sequence.loss_from, 3);
        assert_eq!(sequence.prompt(), [97, 98, 50256]);
    }

    /// This also holds for a sequence that is built by hand, where `loss_from` may have any value.
    #[test]
    fn targets_begin_at_the_loss_but_never_at_the_first_token() {
        let targets = |ids: Vec<u32>, loss_from| Sequence { ids, loss_from }.targets();
        assert_eq!(targets(vec![7, 0, 8, 0], 2), 2..4);
        assert_eq!(targets(vec![7, 0, 8, 0], 1), 1..4);
        assert_eq!(targets(vec![7, 0, 8, 0], 0), 1..4);
        assert_eq!(targets(vec![7, 0, 8, 0], 4), 4..4);
        assert_eq!(targets(vec![7, 0, 8, 0], 9), 4..4);
        assert_eq!(targets(vec![7], 0), 1..1);
        assert_eq!(targets(vec![], 0), 0..0);
    }

    #[test]
    fn an_encoders_error_is_passed_on() {
        assert_eq!(sequence(bytes, 0, "a!", "b"), Err("a!".to_string()));
        assert_eq!(sequence(bytes, 0, "a", "b!"), Err(" b!".to_string()));
    }

    #[test]
    fn only_the_input_is_cut_and_from_the_left() {
        let whole = sequence(bytes, 0, "abc", "d").unwrap();
        for (max_length, ids, cut) in [
            (7, vec![97, 98, 99, 0, 32, 100, 0], 0),
            (6, vec![98, 99, 0, 32, 100, 0], 1),
            (4, vec![0, 32, 100, 0], 3),
        ] {
            let mut sequence = whole.clone();
            assert_eq!(sequence.cut_input(max_length), Ok(cut));
            assert_eq!(sequence.ids, ids);
            assert_eq!(sequence.ids[sequence.loss_from..], [32, 100, 0]);
        }
        let mut short = whole.clone();
        let error = TooLong {
            needed: 4,
            max_length: 3,
        };
        assert_eq!(short.cut_input(3), Err(error));
        assert_eq!(short, whole);
    }
}

//! What of a rendered conversation is learned.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::conversation::Conversation;
use super::error::ChatError;
use super::template::{CLOSE, ChatTemplate, OPEN};
use crate::text::causal::CausalText;

/// A message that stands in for the assistant's, to see what the template writes around it.
const STAND_IN: char = '\u{fdd2}';

/// Which tokens of a conversation are learned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LossOn {
    /// What the assistant writes, in all of its turns, with the token that ends a turn.
    #[default]
    Assistant,
    /// What the assistant writes in the completion: in its last turn, or in the part that the data call completion.
    Completion,
    /// All tokens.
    All,
}

impl LossOn {
    /// All choices.
    pub const ALL: [Self; 3] = [Self::Assistant, Self::Completion, Self::All];

    /// The name in files and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Assistant => "assistant",
            Self::Completion => "completion",
            Self::All => "all",
        }
    }
}

impl std::fmt::Display for LossOn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for LossOn {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|one| one.as_str() == name);
        let known = || Self::ALL.map(Self::as_str).join(", ");
        found.ok_or_else(|| format!("expected one of {}", known()))
    }
}

/// A rendered conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LearnedText {
    /// The text.
    pub text: String,
    /// The parts of the text that are learned, in bytes, in order and apart from one another.
    pub learned: Vec<Range<usize>>,
}

impl ChatTemplate {
    /// Renders a conversation and finds what of it is learned. Where the template has `{% generation %}` blocks, that is
    /// what they contain, as in transformers' `return_assistant_tokens_mask`. Otherwise each turn of the assistant begins
    /// where the prompt for it ends, and ends where the template has ended it; white space after that is not learned.
    ///
    /// # Errors
    /// As [`render`](Self::render), and [`ChatError::NoSpan`] where the template does not show where a turn begins or ends.
    pub fn learned(
        &self,
        conversation: &Conversation,
        loss_on: LossOn,
    ) -> Result<LearnedText, ChatError> {
        let text = self.render(conversation, false)?;
        if let Some(reserved) = [OPEN, CLOSE, STAND_IN]
            .into_iter()
            .find(|one| text.contains(*one))
        {
            return Err(ChatError::Reserved(reserved));
        }
        let learned = match loss_on {
            LossOn::All => std::iter::once(0..text.len()).collect(),
            _ if self.has_marks(conversation) && !conversation.leaves_out() => {
                let from = match loss_on {
                    LossOn::Completion => {
                        self.turn_start(conversation, conversation.completion(), &text)?
                    }
                    _ => 0,
                };
                let marked = self.rendered(conversation, false, true)?;
                let marked = marked_parts(&marked).into_iter();
                marked
                    .map(|part| part.start.max(from)..part.end)
                    .filter(|part| !part.is_empty())
                    .collect()
            }
            _ => {
                let first = match loss_on {
                    LossOn::Completion => conversation.completion(),
                    _ => 0,
                };
                let turns = first..conversation.messages.len();
                let turns = turns.filter(|index| conversation.is_learned(*index));
                turns
                    .map(|index| self.turn(conversation, index, &text))
                    .collect::<Result<Vec<_>, _>>()?
            }
        };
        Ok(LearnedText { text, learned })
    }

    /// The special token with which the template ends a turn of the assistant, such as `<|im_end|>`; `None` if it writes
    /// none, or if a conversation of one question and one answer is not what it renders.
    ///
    /// # Errors
    /// When the tokenizer rejects what the template writes.
    pub fn end_of_turn(&self, text: &CausalText) -> Result<Option<u32>, ChatError> {
        let mut conversation = Conversation::of_user("?");
        let answer = Conversation::message("assistant", &STAND_IN.to_string());
        conversation.messages.push(answer);
        let Ok(rendered) = self.render(&conversation, false) else {
            return Ok(None);
        };
        let Some((_, closing)) = rendered.rsplit_once(STAND_IN) else {
            return Ok(None);
        };
        let first = text.encode(closing)?.first().copied();
        // Special tokens have no text of their own.
        let is_special =
            first.is_some_and(|id| text.decode(&[id]).is_ok_and(|text| text.is_empty()));
        Ok(first.filter(|_| is_special))
    }

    /// The part of `text`, which is the whole conversation, that the assistant writes in the message with this index.
    fn turn(
        &self,
        conversation: &Conversation,
        index: usize,
        text: &str,
    ) -> Result<Range<usize>, ChatError> {
        let no_span = || ChatError::NoSpan { message: index + 1 };
        let start = self.turn_start(conversation, index, text)?;
        let until_here = self.render(&conversation.beginning(index + 1), false)?;
        let end = if text.starts_with(&until_here) {
            until_here.len()
        } else {
            self.turn_end(conversation, index, text, &until_here)?
        };
        let turn = text.get(start..end).ok_or_else(no_span)?;
        Ok(start..start + turn.trim_end().len())
    }

    /// Where the prompt for the message with this index ends.
    fn turn_start(
        &self,
        conversation: &Conversation,
        index: usize,
        text: &str,
    ) -> Result<usize, ChatError> {
        if index >= conversation.messages.len() {
            return Ok(text.len());
        }
        let no_span = ChatError::NoSpan { message: index + 1 };
        if index == 0 {
            // There is no conversation before it that could be rendered: its content begins where the text changes with it.
            let other = self.render(&with_stand_in(conversation, 0), false)?;
            let content = conversation.messages[0].get("content");
            let content = content.and_then(Value::as_str).unwrap_or_default();
            let start = other.find(STAND_IN).filter(|start| {
                let (before, rest) = (text.get(..*start), text.get(*start..));
                before == other.get(..*start)
                    && rest.is_some_and(|rest| rest.starts_with(content.trim_start()))
            });
            return start.ok_or(no_span);
        }
        let prompt = self.render(&conversation.beginning(index), true)?;
        text.starts_with(&prompt)
            .then_some(prompt.len())
            .ok_or(no_span)
    }

    /// Where the message with this index ends, if a template writes the last message of the assistant in another way than
    /// earlier ones, as Qwen3's does. What the template writes after the message's content is found by rendering the
    /// conversation with another content in its place: first as far as this message, then as a whole.
    fn turn_end(
        &self,
        conversation: &Conversation,
        index: usize,
        text: &str,
        until_here: &str,
    ) -> Result<usize, ChatError> {
        let other = with_stand_in(conversation, index);
        let closing = common_end(
            until_here,
            &self.render(&other.beginning(index + 1), false)?,
        );
        let rest = common_end(text, &self.render(&other, false)?);
        let end = (text.len() - rest.len()) + closing.len();
        let is_closed = text.get(..end).is_some_and(|turn| turn.ends_with(closing));
        if rest.len() < closing.len() || closing.is_empty() || !is_closed {
            return Err(ChatError::NoSpan { message: index + 1 });
        }
        Ok(end)
    }
}

/// The conversation with another content of the message with this index.
fn with_stand_in(conversation: &Conversation, index: usize) -> Conversation {
    let mut other = conversation.clone();
    if let Some(message) = other.messages.get_mut(index) {
        message.insert("content".to_string(), Value::from(STAND_IN.to_string()));
    }
    other
}

/// The longest end that both texts have.
fn common_end<'a>(text: &'a str, other: &str) -> &'a str {
    let both = text.chars().rev().zip(other.chars().rev());
    let same = both.take_while(|(one, other)| one == other);
    let length: usize = same.map(|(one, _)| one.len_utf8()).sum();
    text.get(text.len() - length..).unwrap_or_default()
}

/// The parts between marks, as positions in the text without marks.
fn marked_parts(text: &str) -> Vec<Range<usize>> {
    let (mut parts, mut at, mut open) = (Vec::new(), 0, None);
    for character in text.chars() {
        match character {
            OPEN => open = Some(at),
            CLOSE => parts.extend(open.take().map(|start| start..at)),
            other => at += other.len_utf8(),
        }
    }
    parts
}

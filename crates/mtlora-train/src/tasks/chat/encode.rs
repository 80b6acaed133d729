//! Encodes conversations as tokens, with those that are learned.

use std::ops::Range;
use std::path::Path;
use std::str::FromStr;

use mtlora_models::{CausalText, ChatError, ChatTemplate, LearnedText, LossOn};
use serde::{Deserialize, Serialize};

use super::error::ChatDataError;
use super::reader::{ChatContent, ChatExample};

/// What becomes of examples with more tokens than fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TooLongChat {
    /// Their end is cut off. An example of which nothing is left to learn is left out.
    #[default]
    Cut,
    /// They are left out.
    Drop,
}

impl TooLongChat {
    /// Both choices.
    pub const ALL: [Self; 2] = [Self::Cut, Self::Drop];

    /// The name in files and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::Drop => "drop",
        }
    }
}

impl std::fmt::Display for TooLongChat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for TooLongChat {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|one| one.as_str() == name);
        found.ok_or_else(|| "expected cut or drop".to_string())
    }
}

/// The tokens of an example.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChatSequence {
    /// The tokens.
    pub ids: Vec<u32>,
    /// The tokens that are learned, as ranges of indices in order and apart from one another. The first token of a
    /// sequence, which nothing precedes, is never among them.
    pub learned: Vec<Range<usize>>,
}

impl ChatSequence {
    /// How many tokens are learned.
    pub fn learned_tokens(&self) -> usize {
        self.learned.iter().map(ExactSizeIterator::len).sum()
    }

    /// The sequence of tokens of which each says whether it is learned.
    fn of(tokens: impl IntoIterator<Item = (u32, bool)>) -> Self {
        let mut sequence = Self::default();
        for (index, (id, is_learned)) in tokens.into_iter().enumerate() {
            sequence.ids.push(id);
            if !is_learned || index == 0 {
                continue;
            }
            match sequence.learned.last_mut() {
                Some(last) if last.end == index => last.end = index + 1,
                _ => sequence.learned.push(index..index + 1),
            }
        }
        sequence
    }

    /// Cuts off what is beyond `max_length` tokens.
    fn cut(&mut self, max_length: usize) {
        self.ids.truncate(max_length);
        for part in &mut self.learned {
            part.end = part.end.min(max_length);
        }
        self.learned.retain(|part| !part.is_empty());
    }
}

/// Encoded examples, and what was cut.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncodedChats {
    /// The sequences.
    pub sequences: Vec<ChatSequence>,
    /// How many examples lost their end.
    pub cut: usize,
    /// How many examples were left out because they are too long.
    pub dropped: usize,
    /// How many examples were left out because nothing in them is learned.
    pub without_answer: usize,
    /// The line of the first example that was left out because nothing in it is learned.
    pub first_without_answer: Option<usize>,
}

/// What conversations are encoded with.
#[derive(Clone, Copy)]
pub struct ChatEncoder<'a> {
    /// The model's tokenizer.
    pub text: &'a CausalText,
    /// The model's chat template. Data that is plain text needs none.
    pub template: Option<&'a ChatTemplate>,
    /// The token that ends a plain text.
    pub end_of_text: u32,
    /// Which tokens are learned.
    pub loss_on: LossOn,
}

impl ChatEncoder<'_> {
    /// The text of an example as the model reads it. A plain text is learned as a whole.
    ///
    /// # Errors
    /// As [`ChatTemplate::learned`].
    pub fn rendered(&self, content: &ChatContent) -> Result<LearnedText, ChatError> {
        match (content, self.template) {
            (ChatContent::Text(text), _) => Ok(LearnedText {
                text: text.clone(),
                learned: std::iter::once(0..text.len()).collect(),
            }),
            (ChatContent::Conversation(conversation), Some(template)) => {
                template.learned(conversation, self.loss_on)
            }
            (ChatContent::Conversation(_), None) => Err(ChatError::Empty),
        }
    }

    /// The tokens of an example. A token is learned if a part of its text is.
    ///
    /// # Errors
    /// As [`Self::rendered`], and when the tokenizer rejects the text.
    pub fn encode(&self, content: &ChatContent) -> Result<ChatSequence, ChatError> {
        let LearnedText { text, learned } = self.rendered(content)?;
        let parts = self.text.encode_parts(&text)?;
        let mut after = learned.iter().peekable();
        let tokens = parts.into_iter().map(|(id, part)| {
            while after.next_if(|learned| learned.end <= part.start).is_some() {}
            let is_learned = after
                .peek()
                .is_some_and(|learned| learned.start < part.end && !part.is_empty());
            (id, is_learned)
        });
        let end = matches!(content, ChatContent::Text(_)).then_some((self.end_of_text, true));
        Ok(ChatSequence::of(tokens.chain(end)))
    }
}

/// Encodes the examples of the file `path`, with at most `max_length` tokens each.
///
/// # Errors
/// When an example cannot be rendered or encoded (the error names its line), or nothing is left to learn.
pub fn encode_chats(
    encoder: ChatEncoder<'_>,
    path: &Path,
    examples: &[ChatExample],
    max_length: usize,
    too_long: TooLongChat,
) -> Result<EncodedChats, ChatDataError> {
    let mut encoded = EncodedChats::default();
    for example in examples {
        let mut sequence =
            encoder
                .encode(&example.content)
                .map_err(|source| ChatDataError::Example {
                    path: path.to_path_buf(),
                    line: example.line,
                    source: Box::new(source),
                })?;
        if sequence.learned.is_empty() {
            encoded.without_answer += 1;
            encoded.first_without_answer.get_or_insert(example.line);
            continue;
        }
        if sequence.ids.len() > max_length {
            sequence.cut(max_length);
            if too_long == TooLongChat::Drop || sequence.learned.is_empty() {
                encoded.dropped += 1;
                continue;
            }
            encoded.cut += 1;
        }
        encoded.sequences.push(sequence);
    }
    match encoded.sequences.is_empty() {
        true => Err(ChatDataError::NothingToLearn {
            path: path.to_path_buf(),
            max_length,
        }),
        false => Ok(encoded),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::PathBuf;

    use mtlora_models::{Conversation, train_causal_tokenizer};
    use proptest::prelude::*;

    use super::super::forms::Form;
    use super::*;

    const TEMPLATE: &str = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>\n{% endfor %}\
                            {% if add_generation_prompt %}<assistant>{% endif %}";

    fn text() -> CausalText {
        let lines = (0..200).map(|n| format!("the cat number {n} sat on the other mat"));
        let tokenizer = train_causal_tokenizer(lines, 300).unwrap();
        let size = tokenizer.get_vocab_size(true);
        CausalText::new(PathBuf::from("tokenizer.json"), tokenizer, size).unwrap()
    }

    fn chat(turns: &[(&str, &str)]) -> ChatContent {
        let turns = turns.iter();
        ChatContent::Conversation(Conversation {
            messages: turns
                .map(|(role, said)| Conversation::message(role, said))
                .collect(),
            ..Conversation::default()
        })
    }

    fn example(line: usize, content: ChatContent) -> ChatExample {
        let form = Form::Messages;
        ChatExample {
            line,
            form,
            content,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Whatever is said, the learned tokens are those of the answers with their ends, and no others.
        #[test]
        fn the_learned_tokens_are_the_assistants(
            turns in prop::collection::vec(("[a-z <>é😀\\n]{0,12}", "[a-z <>é😀]{0,11}[a-z]"), 1..4),
        ) {
            let text = text();
            let template = ChatTemplate::new("t", TEMPLATE, []).unwrap();
            let encoder = ChatEncoder { text: &text, template: Some(&template), end_of_text: 0, loss_on: LossOn::Assistant };
            let said: Vec<(&str, &str)> = turns.iter()
                .flat_map(|(question, answer)| [("user", question.as_str()), ("assistant", answer.as_str())]).collect();
            let content = chat(&said);
            let rendered = encoder.rendered(&content).unwrap();
            let answers: Vec<String> = turns.iter().map(|(_, answer)| format!("{answer}</assistant>")).collect();
            let parts = rendered.learned.iter().map(|part| rendered.text[part.clone()].to_string());
            prop_assert_eq!(parts.collect::<Vec<_>>(), answers.clone());
            let sequence = encoder.encode(&content).unwrap();
            prop_assert_eq!(&sequence.ids, &text.encode(&rendered.text).unwrap());
            for (part, answer) in sequence.learned.iter().zip(&answers) {
                // A token at the edge may hold more than the answer.
                let found = text.decode(&sequence.ids[part.clone()]).unwrap();
                prop_assert!(found.contains(answer.as_str()), "{found} {answer}");
                let inner = text.decode(&sequence.ids[part.start + 1..part.end - 1]).unwrap();
                // Half of a character at an edge is decoded as a replacement character.
                let whole = inner.chars().filter(|one| *one != char::REPLACEMENT_CHARACTER);
                prop_assert!(whole.count() <= answer.chars().count());
            }
            prop_assert_eq!(sequence.learned.len(), answers.len());
        }
    }

    #[test]
    fn long_examples_are_cut_or_dropped_and_counted() {
        let text = text();
        let template = ChatTemplate::new("t", TEMPLATE, []).unwrap();
        let encoder = ChatEncoder {
            text: &text,
            template: Some(&template),
            end_of_text: 0,
            loss_on: LossOn::Assistant,
        };
        let long = "the cat sat on the mat ".repeat(20);
        let examples = [
            example(1, chat(&[("user", "the cat"), ("assistant", "sat")])),
            example(2, chat(&[("user", "the cat"), ("assistant", &long)])),
            example(3, chat(&[("user", &long), ("assistant", "sat")])),
            example(4, chat(&[("user", "the cat")])),
            example(5, ChatContent::Text("the cat".to_string())),
        ];
        let encode = |max_length, too_long| {
            encode_chats(
                encoder,
                Path::new("x.jsonl"),
                &examples,
                max_length,
                too_long,
            )
        };
        let cut = encode(60, TooLongChat::Cut).unwrap();
        assert_eq!(
            (
                cut.sequences.len(),
                cut.cut,
                cut.dropped,
                cut.without_answer
            ),
            (3, 1, 1, 1)
        );
        assert_eq!(cut.first_without_answer, Some(4));
        assert_eq!(cut.sequences[1].ids.len(), 60);
        assert_eq!(cut.sequences[1].learned.last().unwrap().end, 60);
        // All of a plain text but its first token is learned, and that it ends.
        let plain = &cut.sequences[2];
        assert_eq!(plain.learned.len(), 1);
        assert_eq!(plain.learned[0], 1..plain.ids.len());
        assert_eq!(plain.ids.last(), Some(&0));
        let dropped = encode(60, TooLongChat::Drop).unwrap();
        assert_eq!(
            (dropped.sequences.len(), dropped.cut, dropped.dropped),
            (2, 0, 2)
        );
        let error = encode(2, TooLongChat::Drop).unwrap_err();
        assert!(
            error.to_string().contains("nothing is left to learn"),
            "{error}"
        );
        let broken = ChatTemplate::new("t", "{{ raise_exception('no') }}", []).unwrap();
        let encoder = ChatEncoder {
            template: Some(&broken),
            ..encoder
        };
        let error = encode_chats(
            encoder,
            Path::new("x.jsonl"),
            &examples,
            9,
            TooLongChat::Cut,
        )
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "x.jsonl:1: the model's chat template refuses the conversation: no"
        );
    }
}

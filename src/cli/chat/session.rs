//! A conversation with a model: what was said, and the answers as they are written.

use std::error::Error;
use std::ops::ControlFlow;

use mtlora::models::{
    CachedDecoder, CausalText, ChatTemplate, Conversation, GenerationConfig, ModelError, TextStream,
};
use serde_json::{Map, Value};

/// The fewest tokens that an answer gets room for, before the oldest messages are forgotten.
const LEAST_ROOM: usize = 64;

/// A conversation with a model.
pub(super) struct Session<'a> {
    text: &'a CausalText,
    template: ChatTemplate,
    decoding: GenerationConfig,
    stream: TextStream<CachedDecoder<'a>>,
    max_tokens: usize,
    conversation: Conversation,
}

/// What came of an answer.
#[derive(Default)]
pub(super) struct Answer {
    /// How many tokens were written.
    pub(super) tokens: usize,
    /// Whether the model ended it, and not its length or the user.
    pub(super) ended: bool,
    /// How many of the oldest messages were forgotten because the model reads no more.
    pub(super) forgotten: usize,
}

impl<'a> Session<'a> {
    /// A conversation in which nothing was said. The model reads `max_tokens` at most.
    pub(super) fn new(
        text: &'a CausalText,
        template: ChatTemplate,
        decoding: GenerationConfig,
        decoder: CachedDecoder<'a>,
        max_tokens: usize,
    ) -> Self {
        Self {
            text,
            template,
            decoding,
            stream: TextStream::new(decoder),
            max_tokens,
            conversation: Conversation::default(),
        }
    }

    /// What was said.
    pub(super) fn conversation(&self) -> &Conversation {
        &self.conversation
    }

    /// Sets the variables that the chat template knows beside the conversation.
    pub(super) fn set_variables(&mut self, variables: Map<String, Value>) {
        self.conversation.variables = variables;
    }

    /// Forgets all but the system message.
    pub(super) fn reset(&mut self) {
        let system = usize::from(self.conversation.role(0) == Some("system"));
        self.conversation.messages.truncate(system);
    }

    /// Begins anew with another system message, or with none if the text is empty.
    pub(super) fn set_system(&mut self, text: &str) {
        self.conversation.messages.clear();
        if !text.is_empty() {
            let message = Conversation::message("system", text);
            self.conversation.messages.push(message);
        }
    }

    /// Answers a message. Each piece of text is passed to `show` as soon as it is whole, which can end the answer. What was
    /// written so far is then the answer.
    ///
    /// # Errors
    /// When the template refuses the conversation, the message is too long, or the model fails. The message is then
    /// forgotten.
    pub(super) fn say(
        &mut self,
        message: &str,
        show: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Answer, Box<dyn Error>> {
        let said = Conversation::message("user", message);
        self.conversation.messages.push(said);
        let answered = self.answer(show);
        if answered.is_err() {
            self.conversation.messages.pop();
        }
        answered
    }

    fn answer(
        &mut self,
        show: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Answer, Box<dyn Error>> {
        let least = self.decoding.max_new_tokens.min(LEAST_ROOM);
        let mut forgotten = 0;
        let prompt = loop {
            let rendered = self.template.render(&self.conversation, true)?;
            let prompt = self.text.encode(&rendered)?;
            // The model never reads the last token that it writes.
            if prompt.len() + least <= self.max_tokens + 1 {
                break prompt;
            }
            let dropped = self.forget_oldest();
            if dropped == 0 {
                return Err(format!(
                    "the message is too long: with its {} tokens there is no room for an answer, since the model reads {} tokens \
                     at most",
                    prompt.len(),
                    self.max_tokens
                )
                .into());
            }
            forgotten += dropped;
        };
        let room = self.max_tokens + 1 - prompt.len();
        let decoding = GenerationConfig {
            max_new_tokens: self.decoding.max_new_tokens.min(room),
            min_new_tokens: self.decoding.min_new_tokens.min(room),
            ..self.decoding.clone()
        };
        let mut pieces = Pieces::new(self.text);
        let mut failed = None;
        let written =
            self.stream
                .write(&prompt, &decoding, &mut |token| match pieces.push(token) {
                    Ok(piece) if piece.is_empty() => show(""),
                    Ok(piece) => show(&piece),
                    Err(error) => {
                        failed = Some(error);
                        ControlFlow::Break(())
                    }
                })?;
        if let Some(error) = failed {
            return Err(error.into());
        }
        let rest = pieces.rest()?;
        if !rest.is_empty() {
            // The answer is over, whatever the caller wants.
            let _ = show(&rest);
        }
        let text = self.text.decode(&written.tokens)?;
        let message = Conversation::message("assistant", &text);
        self.conversation.messages.push(message);
        Ok(Answer {
            tokens: written.tokens.len(),
            ended: written.end_token.is_some(),
            forgotten,
        })
    }

    /// Forgets the first message of the user and the answer to it, unless it is the only one.
    fn forget_oldest(&mut self) -> usize {
        let messages = &mut self.conversation.messages;
        let is_of_user = |message: &Map<String, Value>| {
            message.get("role").and_then(|role| role.as_str()) == Some("user")
        };
        let mut of_user = (0..messages.len()).filter(|index| is_of_user(&messages[*index]));
        let (Some(first), Some(second)) = (of_user.next(), of_user.next()) else {
            return 0;
        };
        drop(messages.drain(first..second));
        second - first
    }
}

/// Turns tokens into text piece by piece: a character may take several tokens.
struct Pieces<'a> {
    text: &'a CausalText,
    tokens: Vec<u32>,
    /// Where the tokens begin that the next piece is decoded with, and where those that were not shown begin. Some tokenizers
    /// write a token differently at the beginning of a text.
    from: usize,
    shown: usize,
}

impl<'a> Pieces<'a> {
    fn new(text: &'a CausalText) -> Self {
        let tokens = Vec::new();
        Self {
            text,
            tokens,
            from: 0,
            shown: 0,
        }
    }

    /// What a token adds to the text, as far as its characters are complete.
    fn push(&mut self, token: u32) -> Result<String, ModelError> {
        self.tokens.push(token);
        let new = self.unshown()?;
        if new.is_empty() || new.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(String::new());
        }
        (self.from, self.shown) = (self.shown, self.tokens.len());
        Ok(new)
    }

    /// What is left at the end.
    fn rest(&self) -> Result<String, ModelError> {
        self.unshown()
    }

    fn unshown(&self) -> Result<String, ModelError> {
        let context = self.tokens.get(self.from..self.shown).unwrap_or_default();
        let new = self.tokens.get(self.shown..).unwrap_or_default();
        if new.is_empty() {
            return Ok(String::new());
        }
        self.text.decode_after(context, new)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use mtlora::core::devices;
    use mtlora::models::{CausalConfig, CausalLm, TextConfig};

    use super::*;

    const TEMPLATE: &str = "{% for m in messages %}{{ m.role }} : {{ m.content }}\n{% endfor %}\
                            {% if add_generation_prompt %}assistant :{% endif %}";

    fn with_session(decoding: GenerationConfig, test: impl FnOnce(Session<'_>)) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/tiny-gpt2");
        let device = devices().remove(0).device;
        let config = CausalConfig::from_folder(&folder).unwrap();
        let text = CausalText::from_folder(&folder, &config).unwrap();
        let model = CausalLm::from_folder(&folder, &config, &device).unwrap();
        let decoder = CachedDecoder::new(&model, &config, &device);
        let template = ChatTemplate::new("t", TEMPLATE, []).unwrap();
        let most = config.max_tokens();
        test(Session::new(&text, template, decoding, decoder, most));
    }

    fn answers(session: &mut Session<'_>, message: &str) -> (String, Answer) {
        let mut shown = String::new();
        let answer = session.say(message, &mut |piece| {
            shown.push_str(piece);
            ControlFlow::Continue(())
        });
        (shown, answer.unwrap())
    }

    fn content(session: &Session<'_>, index: usize) -> String {
        let message = &session.conversation().messages[index];
        message
            .get("content")
            .unwrap()
            .as_str()
            .unwrap()
            .to_string()
    }

    #[test]
    fn what_is_shown_is_what_is_kept_and_a_reset_forgets_it() {
        let decoding = GenerationConfig {
            max_new_tokens: 12,
            ..GenerationConfig::default()
        };
        with_session(decoding, |mut session| {
            let (first, answer) = answers(&mut session, "The Black Ravens");
            assert_eq!(
                (answer.tokens, answer.ended, answer.forgotten),
                (12, false, 0)
            );
            assert_eq!(content(&session, 1), first);
            let (second, _) = answers(&mut session, "The library");
            assert_eq!(session.conversation().messages.len(), 4);
            assert_eq!(content(&session, 3), second);
            session.reset();
            let (again, _) = answers(&mut session, "The Black Ravens");
            assert_eq!(again, first);
            session.set_system("A system message");
            assert_eq!(content(&session, 0), "A system message");
            answers(&mut session, "The library");
            session.reset();
            assert_eq!(session.conversation().messages.len(), 1);
            session.set_system("");
            assert!(session.conversation().messages.is_empty());
        });
    }

    #[test]
    fn an_answer_can_be_ended_and_the_rest_is_forgotten() {
        let decoding = GenerationConfig {
            max_new_tokens: 40,
            ..GenerationConfig::default()
        };
        with_session(decoding, |mut session| {
            let mut pieces = 0;
            let answer = session.say("The Black Ravens", &mut |_| {
                pieces += 1;
                if pieces == 3 {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            });
            assert_eq!((answer.unwrap().tokens, pieces), (3, 3));
            // The model reads 192 tokens, so the first messages have to go sooner or later, and each answer has room.
            let forgotten: usize = (0..8)
                .map(|_| {
                    answers(&mut session, "The Black Ravens play football")
                        .1
                        .forgotten
                })
                .sum();
            assert!(forgotten > 0 && forgotten.is_multiple_of(2), "{forgotten}");
            let long = "The Black Ravens play football. ".repeat(60);
            let before = session.conversation().clone();
            let error = session
                .say(&long, &mut |_| ControlFlow::Continue(()))
                .err()
                .unwrap();
            assert!(error.to_string().contains("too long"), "{error}");
            assert!(session.conversation().messages.len() <= before.messages.len());
        });
    }

    #[test]
    fn characters_are_shown_when_they_are_complete() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/tiny-gpt2");
        let config = CausalConfig::from_folder(&folder).unwrap();
        let text = CausalText::from_folder(&folder, &config).unwrap();
        for whole in ["aé😀 b", " The 你好 ", "\n\nA"] {
            let mut pieces = Pieces::new(&text);
            let mut shown = String::new();
            for token in text.encode(whole).unwrap() {
                let piece = pieces.push(token).unwrap();
                assert!(!piece.contains(char::REPLACEMENT_CHARACTER));
                shown.push_str(&piece);
            }
            shown.push_str(&pieces.rest().unwrap());
            assert_eq!(shown, whole);
        }
    }
}

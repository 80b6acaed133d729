//! A model's chat template, rendered as transformers renders it.

use std::fmt;
use std::ops::Range;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde};
use minijinja::{Environment, Error, ErrorKind, State, Value};
use serde::Serialize;
use serde_json::Map;

use super::conversation::Conversation;
use super::error::ChatError;
use super::python;

/// The templates' names within the engine.
const DEFAULT: &str = "default";
const TOOL_USE: &str = "tool_use";
/// How much work one rendering may be: templates come from the network, and may be endless.
const FUEL: u64 = 10_000_000;
/// The function that stands for `{% generation %}`, and the variable that asks it for marks.
const GENERATION: &str = "mtlora_generation";
const MARKS: &str = "mtlora_marks";
/// Characters that Unicode reserves for use within programs.
pub(super) const OPEN: char = '\u{fdd0}';
pub(super) const CLOSE: char = '\u{fdd1}';

/// A chat template in the language Jinja, as model folders have it. It renders conversations byte for byte as
/// `apply_chat_template` of transformers 5.24 does: with blocks trimmed, Python's methods of texts, `tojson`,
/// `raise_exception`, `strftime_now` and `{% generation %}`.
#[derive(Clone)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// The special tokens by their purpose, which templates know as variables such as `bos_token`.
    tokens: Map<String, serde_json::Value>,
    /// Where the templates come from, for messages: that for conversations without tools, and that for others.
    places: [String; 2],
    /// Whether the template for each marks what the assistant writes.
    marks: [bool; 2],
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ChatTemplate").field(&self.places).finish()
    }
}

/// What a template knows.
#[derive(Serialize)]
struct Variables<'a> {
    messages: &'a [Map<String, serde_json::Value>],
    tools: Option<&'a [serde_json::Value]>,
    documents: Option<()>,
    add_generation_prompt: bool,
    #[serde(rename = "mtlora_marks")]
    marks: bool,
    #[serde(flatten)]
    others: Map<String, serde_json::Value>,
}

impl ChatTemplate {
    /// A template in `source`. `place` says in messages where it comes from, and `tokens` are the special tokens by their
    /// purpose, such as `bos_token`.
    ///
    /// # Errors
    /// When the template is not valid; the error has the line.
    pub fn new<'a>(
        place: &str,
        source: &str,
        tokens: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, ChatError> {
        let mut environment = Environment::new();
        let mut syntax = SyntaxConfig::builder();
        syntax.trim_blocks(true).lstrip_blocks(true);
        environment.set_syntax(syntax.build().map_err(|error| failed(place, &error))?);
        environment.set_fuel(Some(FUEL));
        environment.set_formatter(python::format);
        environment.set_unknown_method_callback(python::method);
        environment.add_filter("tojson", python::to_json);
        environment.add_filter("trim", python::trim);
        environment.add_function("raise_exception", |message: String| {
            Err::<String, _>(Error::new(ErrorKind::InvalidOperation, message).with_source(Raised))
        });
        environment.add_function("strftime_now", |format: &str| python::strftime_now(format));
        environment.add_function(GENERATION, generation);
        let template = Self {
            environment,
            tokens: tokens
                .into_iter()
                .map(|(purpose, token)| (purpose.to_string(), token.into()))
                .collect(),
            places: [place.to_string(), place.to_string()],
            marks: [false; 2],
        };
        template.with(DEFAULT, 0..2, place, source)
    }

    /// The same template, with another one for conversations that have tools.
    ///
    /// # Errors
    /// When the template is not valid; the error has the line.
    pub fn with_tool_use(self, place: &str, source: &str) -> Result<Self, ChatError> {
        self.with(TOOL_USE, 1..2, place, source)
    }

    fn with(
        mut self,
        name: &'static str,
        which: Range<usize>,
        place: &str,
        source: &str,
    ) -> Result<Self, ChatError> {
        let (source, marks) = with_generation_calls(source);
        for index in which {
            if let (Some(one), Some(known)) =
                (self.marks.get_mut(index), self.places.get_mut(index))
            {
                (*one, *known) = (marks, place.to_string());
            }
        }
        self.environment
            .add_template_owned(name, source)
            .map_err(|error| failed(place, &error))?;
        Ok(self)
    }

    /// The text of a conversation, and with `prompt` of the beginning of the assistant's answer to it
    /// (`add_generation_prompt`).
    ///
    /// # Errors
    /// When there are no messages, or the template refuses the conversation or fails.
    pub fn render(&self, conversation: &Conversation, prompt: bool) -> Result<String, ChatError> {
        self.rendered(conversation, prompt, false)
    }

    /// Whether the template for this conversation marks what the assistant writes.
    pub(super) fn has_marks(&self, conversation: &Conversation) -> bool {
        let [plain, tools] = self.marks;
        if conversation.tools.is_some() {
            tools
        } else {
            plain
        }
    }

    /// As [`render`](Self::render), with what the assistant writes between [`OPEN`] and [`CLOSE`] if `marks` is set.
    pub(super) fn rendered(
        &self,
        conversation: &Conversation,
        prompt: bool,
        marks: bool,
    ) -> Result<String, ChatError> {
        if conversation.messages.is_empty() {
            return Err(ChatError::Empty);
        }
        let [plain, tools] = &self.places;
        let (name, place) = match &conversation.tools {
            Some(_) if self.environment.get_template(TOOL_USE).is_ok() => (TOOL_USE, tools),
            _ => (DEFAULT, plain),
        };
        let mut others = self.tokens.clone();
        others.extend(conversation.variables.clone());
        for name in [
            "messages",
            "tools",
            "documents",
            "add_generation_prompt",
            MARKS,
        ] {
            others.remove(name);
        }
        let variables = Variables {
            messages: &conversation.for_template(),
            tools: conversation.tools.as_deref(),
            documents: None,
            add_generation_prompt: prompt,
            marks,
            others,
        };
        let template = self.environment.get_template(name);
        template
            .and_then(|template| template.render(Value::from(Serde(&variables))))
            .map_err(|error| match raised(&error) {
                true => ChatError::Refused(error.detail().unwrap_or_default().to_string()),
                false => failed(place, &error),
            })
    }
}

/// Says that a template itself raised an error.
#[derive(Debug, thiserror::Error)]
#[error("raise_exception")]
struct Raised;

fn raised(error: &Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<Raised>())
}

fn failed(place: &str, error: &Error) -> ChatError {
    let place = match error.line() {
        Some(line) => format!("{place}, line {line}"),
        None => place.to_string(),
    };
    let kind = error.kind();
    let message = match error.detail() {
        Some(detail) => format!("{kind}: {detail}"),
        None => kind.to_string(),
    };
    ChatError::Template { place, message }
}

/// What `{% generation %}` calls: its body, between marks if they are asked for.
fn generation(state: &mut State, kwargs: Kwargs) -> Result<Value, Error> {
    let body: Value = kwargs.get("caller")?;
    let body = body.call(state, &[])?;
    let marks = state.lookup(MARKS).is_some_and(|marks| marks.is_true());
    Ok(if marks {
        Value::from(format!("{OPEN}{body}{CLOSE}"))
    } else {
        body
    })
}

/// The template with `{% generation %}` written as a call block, which in transformers' extension it is too, and whether
/// it has such a block. The engine knows no tags of one's own.
fn with_generation_calls(source: &str) -> (String, bool) {
    let (mut text, mut rest, mut found) = (String::with_capacity(source.len()), source, false);
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at + 2);
        text.push_str(before);
        let Some(end) = tag.find("%}") else {
            rest = tag;
            break;
        };
        let (inside, after) = tag.split_at(end);
        let word = inside.trim_matches(|one: char| one == '-' || one == '+' || one.is_whitespace());
        let call = match word {
            "generation" => Some(format!("call {GENERATION}()")),
            "endgeneration" => Some("endcall".to_string()),
            _ => None,
        };
        match call {
            Some(call) => {
                found = true;
                text.push_str(&inside.replacen(word, &call, 1));
            }
            None => text.push_str(inside),
        }
        rest = after;
    }
    text.push_str(rest);
    (text, found)
}

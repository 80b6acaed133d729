//! The common forms of conversations in JSON, recognised by their keys.

use std::fmt;

use mtlora_models::Conversation;
use mtlora_models::messages::shown;
use serde_json::{Map, Value};

use super::reader::ChatContent;
use crate::data::error::listed;

/// The keys of variables for the template, as TRL names them.
const VARIABLES: &str = "chat_template_kwargs";
/// ShareGPT's names of roles, and those of other data in its form.
const ROLES: [(&str, &str); 10] = [
    ("human", "user"),
    ("user", "user"),
    ("gpt", "assistant"),
    ("assistant", "assistant"),
    ("model", "assistant"),
    ("chatgpt", "assistant"),
    ("system", "system"),
    ("tool", "tool"),
    ("observation", "tool"),
    ("function_response", "tool"),
];
/// The keys under which data sets have answers. A form reads only its own key, so an answer under another one would be left out.
const ANSWERS: [&str; 7] = [
    "completion",
    "response",
    "answer",
    "chosen",
    "output",
    "target",
    "reply",
];
/// ShareGPT's name for a message in which the assistant calls a tool.
const CALL: &str = "function_call";

/// A form of an example, in the order in which they are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `messages`: a list of objects with `role` and `content`, as OpenAI and TRL have them.
    Messages,
    /// `conversations`: a list of objects with `from` and `value`, as ShareGPT has them, or with `role` and `content`.
    Conversations,
    /// `instruction`, `input` and `output`, as Alpaca has them.
    Instruction,
    /// `prompt` and `completion`: texts, or lists of messages.
    Completion,
    /// `text`: plain text without roles.
    Text,
}

type Object = Map<String, Value>;

impl Form {
    /// All forms, in the order in which they are looked for.
    pub const ALL: [Self; 5] = [
        Self::Messages,
        Self::Conversations,
        Self::Instruction,
        Self::Completion,
        Self::Text,
    ];

    /// The key by which the form is recognised.
    pub fn key(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Conversations => "conversations",
            Self::Instruction => "instruction",
            Self::Completion => "prompt",
            Self::Text => "text",
        }
    }

    /// The form of an object.
    pub(super) fn of(object: &Object) -> Result<Self, String> {
        let found = Self::ALL
            .into_iter()
            .find(|form| has_value(object, form.key()));
        found.ok_or_else(|| {
            let keys: Vec<&str> = object.keys().map(String::as_str).collect();
            format!(
                "not a form that is known: it has the keys {}; an example has {} or `text`",
                listed(&keys),
                "`messages`, `conversations`, `instruction` and `output`, `prompt` and `completion`,"
            )
        })
    }

    /// The example that an object of this form is.
    pub(super) fn read(self, object: &Object) -> Result<ChatContent, String> {
        let mut completion_from = None;
        let messages = match self {
            Self::Text => {
                let text = text(object, "text")?;
                return match text.is_empty() {
                    true => Err("`text` is empty: remove the line".to_string()),
                    false => Ok(ChatContent::Text(text)),
                };
            }
            Self::Messages => messages(object, "messages")?,
            Self::Conversations => conversations(object)?,
            Self::Instruction => instruction(object)?,
            Self::Completion => {
                let mut messages = turns(object, "prompt", "user")?;
                if has_value(object, "completion") {
                    completion_from = Some(messages.len());
                    messages.extend(turns(object, "completion", "assistant")?);
                } else {
                    refuse_other_answer(object, self, "completion")?;
                }
                messages
            }
        };
        if messages.is_empty() {
            return Err(format!("`{}` is empty: remove the line", self.key()));
        }
        Ok(ChatContent::Conversation(Conversation {
            messages,
            tools: tools(object)?,
            variables: variables(object)?,
            completion_from,
        }))
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.key())
    }
}

/// Whether an object has something under a key.
fn has_value(object: &Object, key: &str) -> bool {
    object.get(key).is_some_and(|value| !value.is_null())
}

/// Refuses an object without the form's own name of an answer, if it has one under another name.
fn refuse_other_answer(object: &Object, form: Form, own: &str) -> Result<(), String> {
    match ANSWERS.into_iter().find(|key| has_value(object, key)) {
        Some(other) => Err(format!(
            "there is no `{own}` beside `{form}`, but `{other}`: call it `{own}` if it is the answer, or remove it"
        )),
        None => Ok(()),
    }
}

fn wrong(key: impl fmt::Display, value: Option<&Value>, wanted: &str) -> String {
    match value {
        None | Some(Value::Null) => format!("`{key}` is missing; it must be {wanted}"),
        Some(value) => format!(
            "`{key}` is {}, but must be {wanted}",
            shown(&value.to_string())
        ),
    }
}

fn text(object: &Object, key: &str) -> Result<String, String> {
    let value = object.get(key);
    let text = value.and_then(Value::as_str);
    Ok(text.ok_or_else(|| wrong(key, value, "a text"))?.to_string())
}

/// A text that may be missing or null.
fn text_if_there(object: &Object, key: &str) -> Result<Option<String>, String> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(_) => text(object, key).map(Some),
    }
}

/// A list of messages with roles and contents.
fn messages(object: &Object, key: &str) -> Result<Vec<Object>, String> {
    let value = object.get(key);
    let list = value.and_then(Value::as_array);
    let list = list.ok_or_else(|| wrong(key, value, "a list of messages"))?;
    let numbered = list.iter().enumerate();
    numbered
        .map(|(index, one)| message(one, &format!("{key}[{index}]")))
        .collect()
}

/// A message with a role and a content: a text or parts that are texts, or nothing beside calls of tools.
fn message(value: &Value, place: &str) -> Result<Object, String> {
    let object = value.as_object();
    let mut message = object
        .ok_or_else(|| wrong(place, Some(value), "an object"))?
        .clone();
    let role = message.get("role");
    let is_role = role
        .and_then(Value::as_str)
        .is_some_and(|role| !role.is_empty());
    if !is_role {
        return Err(wrong(
            format!("{place}.role"),
            role,
            "the name of a role, such as user or assistant",
        ));
    }
    match message.get("content") {
        Some(Value::String(_)) => {}
        Some(Value::Array(parts)) => {
            let joined = joined(parts, &format!("{place}.content"))?;
            message.insert("content".to_string(), Value::from(joined));
        }
        None | Some(Value::Null) if message.get("tool_calls").is_some_and(Value::is_array) => {}
        content => return Err(wrong(format!("{place}.content"), content, "a text")),
    }
    if let Some(weight) = message.get("weight").filter(|weight| !weight.is_null())
        && !matches!(weight.as_f64(), Some(0.0 | 1.0))
    {
        return Err(wrong(format!("{place}.weight"), Some(weight), "0 or 1"));
    }
    if let Some(Value::Array(calls)) = message.get_mut("tool_calls") {
        for (index, call) in calls.iter_mut().enumerate() {
            parse_arguments(call, &format!("{place}.tool_calls[{index}]"))?;
        }
    }
    Ok(message)
}

/// The text of a content that is a list of parts.
fn joined(parts: &[Value], place: &str) -> Result<String, String> {
    let text = |(index, part): (usize, &Value)| {
        let kind = part.get("type").and_then(Value::as_str);
        let text = part.get("text").and_then(Value::as_str);
        match (part, kind, text) {
            (Value::String(text), ..) => Ok(text.clone()),
            (_, Some("text") | None, Some(text)) => Ok(text.to_string()),
            _ => Err(wrong(
                format!("{place}[{index}]"),
                Some(part),
                "a part of the type text: the model reads no others",
            )),
        }
    };
    parts.iter().enumerate().map(text).collect()
}

/// OpenAI writes a call's arguments as a text with JSON, and templates write them as JSON themselves.
fn parse_arguments(call: &mut Value, place: &str) -> Result<(), String> {
    let function = match call.get_mut("function") {
        Some(function) => function,
        None => call,
    };
    if !function.get("name").is_some_and(Value::is_string) {
        return Err(wrong(
            format!("{place}.function.name"),
            function.get("name"),
            "the name of a tool",
        ));
    }
    if let Some(arguments) = function.get_mut("arguments")
        && let Some(text) = arguments.as_str()
    {
        *arguments = serde_json::from_str::<Object>(text)
            .map(Value::Object)
            .map_err(|_| {
                wrong(
                    format!("{place}.function.arguments"),
                    Some(arguments),
                    "a JSON object",
                )
            })?;
    }
    Ok(())
}

/// A message of that role with the text under that key, or messages, if there is a list.
fn turns(object: &Object, key: &str, role: &str) -> Result<Vec<Object>, String> {
    match object.get(key) {
        Some(Value::Array(_)) => messages(object, key),
        Some(Value::String(text)) => Ok(vec![Conversation::message(role, text)]),
        value => Err(wrong(key, value, "a text or a list of messages")),
    }
}

/// ShareGPT's messages.
fn conversations(object: &Object) -> Result<Vec<Object>, String> {
    let key = Form::Conversations.key();
    let value = object.get(key);
    let list = value.and_then(Value::as_array);
    let list = list.ok_or_else(|| wrong(key, value, "a list of messages"))?;
    let system = text_if_there(object, "system")?.filter(|text| !text.is_empty());
    let mut messages: Vec<Object> = system
        .map(|text| Conversation::message("system", &text))
        .into_iter()
        .collect();
    for (index, one) in list.iter().enumerate() {
        let place = format!("{key}[{index}]");
        let Some(object) = one.as_object().filter(|object| object.contains_key("from")) else {
            messages.push(message(one, &place)?);
            continue;
        };
        let field = |name: &str| {
            let value = object.get(name);
            let text = value.and_then(Value::as_str);
            text.ok_or_else(|| wrong(format!("{place}.{name}"), value, "a text"))
        };
        let (from, said) = (field("from")?, field("value")?);
        if from == CALL {
            let call = serde_json::from_str::<Value>(said)
                .ok()
                .filter(Value::is_object);
            let mut call = call.ok_or_else(|| {
                wrong(
                    format!("{place}.value"),
                    object.get("value"),
                    "the JSON of a call with name and arguments",
                )
            })?;
            parse_arguments(&mut call, &format!("{place}.value"))?;
            let mut message = Conversation::message("assistant", "");
            let call = serde_json::json!({ "type": "function", "function": call });
            message.insert("tool_calls".to_string(), Value::Array(vec![call]));
            messages.push(message);
            continue;
        }
        let role = ROLES.iter().find(|(name, _)| *name == from);
        let (_, role) = role.ok_or_else(|| {
            let known: Vec<&str> = ROLES.iter().map(|(name, _)| *name).chain([CALL]).collect();
            format!(
                "`{place}.from` is {}, but must be one of {}",
                shown(from),
                listed(&known)
            )
        })?;
        let mut message = Conversation::message(role, said);
        if let Some(weight) = object.get("weight") {
            message.insert("weight".to_string(), weight.clone());
        }
        messages.push(message);
    }
    Ok(messages)
}

/// Alpaca's fields, with the `system` and the `history` that some data add to them.
fn instruction(object: &Object) -> Result<Vec<Object>, String> {
    let mut messages = Vec::new();
    if let Some(system) = text_if_there(object, "system")?.filter(|text| !text.is_empty()) {
        messages.push(Conversation::message("system", &system));
    }
    let history = match object.get("history") {
        None | Some(Value::Null) => &[],
        Some(Value::Array(pairs)) => pairs.as_slice(),
        other => {
            return Err(wrong(
                "history",
                other,
                "a list of pairs of a question and an answer",
            ));
        }
    };
    for (index, pair) in history.iter().enumerate() {
        let texts: Option<Vec<&str>> = pair
            .as_array()
            .and_then(|pair| pair.iter().map(Value::as_str).collect());
        let Some([question, answer]) = texts.as_deref() else {
            return Err(wrong(
                format!("history[{index}]"),
                Some(pair),
                "a pair of a question and an answer",
            ));
        };
        messages.push(Conversation::message("user", question));
        messages.push(Conversation::message("assistant", answer));
    }
    let mut question = text(object, "instruction")?;
    if let Some(input) = text_if_there(object, "input")?.filter(|text| !text.is_empty()) {
        question = format!("{question}\n\n{input}");
    }
    messages.push(Conversation::message("user", &question));
    match text_if_there(object, "output")? {
        Some(answer) => messages.push(Conversation::message("assistant", &answer)),
        None => refuse_other_answer(object, Form::Instruction, "output")?,
    }
    Ok(messages)
}

/// The tools: a list, or a text with the JSON of one.
fn tools(object: &Object) -> Result<Option<Vec<Value>>, String> {
    let tools = match object.get("tools") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(tools)) => tools.clone(),
        Some(Value::String(text)) if text.trim().is_empty() => return Ok(None),
        Some(Value::String(text)) => serde_json::from_str::<Vec<Value>>(text).map_err(|_| {
            wrong(
                "tools",
                object.get("tools"),
                "a list of tools, or the JSON of one",
            )
        })?,
        other => return Err(wrong("tools", other, "a list of tools, or the JSON of one")),
    };
    if let Some(other) = tools.iter().find(|tool| !tool.is_object()) {
        return Err(wrong("tools", Some(other), "a list of objects"));
    }
    Ok(Some(tools).filter(|tools| !tools.is_empty()))
}

fn variables(object: &Object) -> Result<Object, String> {
    match object.get(VARIABLES) {
        None | Some(Value::Null) => Ok(Object::new()),
        Some(Value::Object(variables)) => Ok(variables.clone()),
        other => Err(wrong(
            VARIABLES,
            other,
            "an object with variables of the chat template",
        )),
    }
}

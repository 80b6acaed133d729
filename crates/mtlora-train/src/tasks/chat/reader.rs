//! Reads conversations from JSONL files.

use std::path::Path;

use mtlora_models::Conversation;

use super::forms::Form;
use crate::data::error::DataError;
use crate::data::json_row::json_row;
use crate::data::rows::lines;
use crate::data::text_file::{read_text, read_text_from};

/// An example: a line of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatExample {
    /// The line, counted from 1.
    pub line: usize,
    /// The form in which the example was written.
    pub form: Form,
    /// What it holds.
    pub content: ChatContent,
}

/// What an example holds.
#[derive(Clone, Debug, PartialEq)]
pub enum ChatContent {
    /// A conversation, which the model's chat template renders.
    Conversation(Conversation),
    /// Plain text, which is learned as a whole, without a template.
    Text(String),
}

/// Reads all examples of a JSONL file. Lines that are empty are left out.
///
/// # Errors
/// When the file cannot be read, has no examples, or has one of no known form; the error names the file and the line.
pub fn read_chats(path: &Path) -> Result<Vec<ChatExample>, DataError> {
    let hint = || {
        "check its name; conversations are in JSONL files, with one JSON object on each line"
            .to_string()
    };
    examples(path, &read_text(path, hint)?)
}

/// As [`read_chats`], from a stream, which messages call `name`.
///
/// # Errors
/// As [`read_chats`].
pub fn read_chats_from(
    name: &Path,
    stream: impl std::io::Read,
) -> Result<Vec<ChatExample>, DataError> {
    examples(name, &read_text_from(name, stream)?)
}

fn examples(path: &Path, text: &str) -> Result<Vec<ChatExample>, DataError> {
    let there = lines(text).filter(|(_, line)| !line.trim().is_empty());
    let examples: Vec<ChatExample> = there
        .map(|(line, json)| {
            example(json, line).map_err(|message| DataError::row(path, line, message))
        })
        .collect::<Result<_, _>>()?;
    match examples.is_empty() {
        true => Err(DataError::Empty {
            path: path.to_path_buf(),
        }),
        false => Ok(examples),
    }
}

fn example(json: &str, line: usize) -> Result<ChatExample, String> {
    let object = json_row(json)?;
    let form = Form::of(&object)?;
    let content = form.read(&object)?;
    Ok(ChatExample {
        line,
        form,
        content,
    })
}

impl ChatExample {
    /// The conversation, unless the example is plain text.
    pub fn conversation(&self) -> Option<&Conversation> {
        match &self.content {
            ChatContent::Conversation(conversation) => Some(conversation),
            ChatContent::Text(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::*;

    /// An example of each form, and of variants of it.
    fn samples() -> Vec<Value> {
        vec![
            json!({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "q"}], "weight": null},
                {"role": "assistant", "content": "a", "weight": 1}]}),
            json!({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": null, "tool_calls":
                [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}}]},
                {"role": "tool", "content": "r"}], "tools": "[{\"type\": \"function\", \"function\": {\"name\": \"f\"}}]"}),
            json!({"prompt": "q", "completion": "a"}),
            json!({"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}],
                "chat_template_kwargs": {"enable_thinking": false}}),
            json!({"instruction": "q", "input": "i", "output": "a", "text": "all of it"}),
            json!({"instruction": "q", "input": "", "output": "a", "system": "s", "history": [["h", "g"]]}),
            json!({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "system": "s"}),
            json!({"conversations": [{"from": "human", "value": "q"}, {"from": "function_call", "value":
                "{\"name\": \"f\", \"arguments\": {\"x\": 1}}"}, {"from": "observation", "value": "r"}]}),
            json!({"conversations": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}),
            json!({"text": "plain"}),
        ]
    }

    fn read(text: &str) -> Result<Vec<ChatExample>, String> {
        examples(Path::new("dir/x.jsonl"), text).map_err(|error| error.to_string())
    }

    fn roles(example: &ChatExample) -> Vec<(String, String)> {
        let conversation = example.conversation().unwrap();
        let field = |message: &Map<String, Value>, name: &str| {
            message
                .get(name)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_string()
        };
        let messages = conversation.messages.iter();
        messages
            .map(|one| (field(one, "role"), field(one, "content")))
            .collect()
    }

    #[test]
    fn each_form_is_recognised_by_its_keys() {
        let lines: Vec<String> = samples().iter().map(Value::to_string).collect();
        let found = read(&lines.join("\n\n")).unwrap();
        let forms: Vec<Form> = found.iter().map(|example| example.form).collect();
        use Form::{Completion, Conversations, Instruction, Messages, Text};
        assert_eq!(
            forms,
            [
                Messages,
                Messages,
                Completion,
                Completion,
                Instruction,
                Instruction,
                Conversations,
                Conversations,
                Conversations,
                Text
            ]
        );
        assert_eq!(found[3].line, 7);
        let said = |index: usize, expected: &[(&str, &str)]| {
            let expected: Vec<(String, String)> = expected
                .iter()
                .map(|(role, text)| (role.to_string(), text.to_string()))
                .collect();
            assert_eq!(roles(&found[index]), expected, "{index}");
        };
        let pair = [("user", "q"), ("assistant", "a")];
        said(0, &[("system", "s"), ("user", "q"), ("assistant", "a")]);
        said(2, &pair);
        said(3, &pair);
        said(4, &[("user", "q\n\ni"), ("assistant", "a")]);
        said(
            5,
            &[
                ("system", "s"),
                ("user", "h"),
                ("assistant", "g"),
                ("user", "q"),
                ("assistant", "a"),
            ],
        );
        said(6, &[("system", "s"), ("user", "q"), ("assistant", "a")]);
        said(7, &[("user", "q"), ("assistant", ""), ("tool", "r")]);
        said(8, &pair);
        let of = |index: usize| found[index].conversation().unwrap();
        assert_eq!(
            of(1).messages[1]["tool_calls"][0]["function"]["arguments"],
            json!({"x": 1})
        );
        assert_eq!(
            of(7).messages[1]["tool_calls"][0]["function"]["arguments"],
            json!({"x": 1})
        );
        assert_eq!(
            of(1).tools,
            Some(vec![json!({"type": "function", "function": {"name": "f"}})])
        );
        assert_eq!(of(3).completion_from, Some(1));
        assert_eq!(of(3).variables["enable_thinking"], json!(false));
        assert_eq!(found[9].content, ChatContent::Text("plain".into()));
    }

    #[test]
    fn what_is_wrong_is_said_with_file_and_line() {
        let user = json!({"role": "user", "content": "q"});
        for (line, expected) in [
            ("{".to_string(), "not a JSON object, at column 1"),
            ("[]".to_string(), "each row must be one object on one line"),
            (
                r#"{"messages": [{"role": "user", "content": "a"}], "messages": []}"#.to_string(),
                "the row has the key `messages` twice",
            ),
            (json!({"question": "a", "answer": "b"}).to_string(), "the keys `question`, `answer`; an example has `messages`"),
            (json!({"messages": []}).to_string(), "`messages` is empty"),
            (json!({"messages": "x"}).to_string(), "`messages` is `\\\"x\\\"`, but must be a list"),
            (json!({"messages": [user, {"content": "x"}]}).to_string(), "`messages[1].role` is missing"),
            (json!({"messages": [{"role": "user"}]}).to_string(), "`messages[0].content` is missing; it must be a text"),
            (json!({"messages": [{"role": "user", "content": 3}]}).to_string(), "`messages[0].content` is `3`"),
            (json!({"messages": [{"role": "user", "content": [{"type": "image"}]}]}).to_string(), "must be a part of the type text"),
            (json!({"messages": [{"role": "assistant", "content": "x", "weight": 0.5}]}).to_string(), "must be 0 or 1"),
            (json!({"messages": [{"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f", "arguments": "x"}}]}]}).to_string(),
                "tool_calls[0].function.arguments` is `\\\"x\\\"`, but must be a JSON object"),
            (json!({"messages": [user], "tools": {}}).to_string(), "`tools` is `{}`"),
            (json!({"conversations": [{"from": "nobody", "value": "x"}]}).to_string(), "must be one of `human`"),
            (json!({"conversations": [{"from": "human"}]}).to_string(), "`conversations[0].value` is missing"),
            (json!({"instruction": 1, "output": "x"}).to_string(), "`instruction` is `1`"),
            (json!({"prompt": {}, "completion": "x"}).to_string(), "`prompt` is `{}`"),
            (json!({"prompt": "q", "response": "x"}).to_string(), "there is no `completion` beside `prompt`, but `response`"),
            (json!({"instruction": "q", "response": "x"}).to_string(), "there is no `output` beside `instruction`, but `response`"),
            (json!({"prompt": "q", "chosen": "x", "rejected": "y"}).to_string(), "but `chosen`: call it `completion`"),
            (json!({"text": ""}).to_string(), "`text` is empty"),
        ] {
            let good = json!({"text": "a"});
            let error = read(&format!("{good}\n{line}\n")).unwrap_err();
            assert!(error.starts_with("dir/x.jsonl:2: "), "{error}");
            assert!(error.contains(expected), "{error} does not say {expected}");
        }
        assert!(read("\n \n").unwrap_err().contains("holds no examples"));
        let missing = read_chats(Path::new("no-such.jsonl"))
            .unwrap_err()
            .to_string();
        assert!(missing.contains("JSONL"), "{missing}");
    }

    /// What is read has messages with roles, or is a text.
    fn is_sound(examples: &[ChatExample]) -> bool {
        examples.iter().all(|example| match &example.content {
            ChatContent::Text(text) => !text.is_empty(),
            ChatContent::Conversation(conversation) => {
                let messages = &conversation.messages;
                !messages.is_empty()
                    && (0..messages.len()).all(|index| conversation.role(index).is_some())
            }
        })
    }

    /// JSON that looks like an example: its keys are those of the forms.
    fn similar() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-2i64..3).prop_map(Value::from),
            "[a-c{}\"\\[]{0,6}".prop_map(Value::from),
        ];
        let key = prop::sample::select(vec![
            "messages",
            "conversations",
            "role",
            "content",
            "from",
            "value",
            "prompt",
            "completion",
            "instruction",
            "input",
            "output",
            "text",
            "tools",
            "tool_calls",
            "function",
            "name",
            "arguments",
            "weight",
            "type",
            "history",
            "system",
            "chat_template_kwargs",
        ]);
        leaf.prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((key.clone(), inner), 0..4).prop_map(|fields| {
                    Value::Object(
                        fields
                            .into_iter()
                            .map(|(name, value)| (name.to_string(), value))
                            .collect(),
                    )
                }),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn any_json_is_an_example_or_an_error_on_its_line(value in similar()) {
            match read(&format!("\n{value}\n")) {
                Ok(found) => prop_assert!(is_sound(&found)),
                Err(error) => prop_assert!(error.starts_with("dir/x.jsonl:2: "), "{}", error),
            }
        }

        #[test]
        fn damaged_lines_never_panic(
            which in any::<prop::sample::Index>(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), 0..3usize, prop::sample::select(
                "{}[]\":,\\nua0 \n".chars().collect::<Vec<_>>())), 1..6),
        ) {
            let mut text: Vec<char> = which.get(&samples()).to_string().chars().collect();
            for (at, how, one) in &changes {
                let at = at.index(text.len());
                match how {
                    0 => text.insert(at, *one),
                    1 => text[at] = *one,
                    _ => text.truncate(at.max(1)),
                }
            }
            let text: String = text.into_iter().collect();
            match read(&text) {
                Ok(found) => prop_assert!(is_sound(&found)),
                Err(error) => prop_assert!(error.starts_with("dir/x.jsonl"), "{}", error),
            }
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            match read_chats_from(Path::new("dir/x.jsonl"), bytes.as_slice()) {
                Ok(found) => prop_assert!(is_sound(&found)),
                Err(error) => prop_assert!(error.to_string().starts_with("dir/x.jsonl"), "{}", error),
            }
        }
    }
}

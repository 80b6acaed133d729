//! Chat templates against what transformers renders: `tests/interop/chat_cases.py` writes the expected texts.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use mtlora_models::{ChatError, ChatTemplate, Conversation, LossOn};
use serde_json::{Map, Value, json};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

fn expected() -> Value {
    let text = fs::read_to_string(fixtures().join("chat/expected.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn messages(value: &Value) -> Vec<Map<String, Value>> {
    let list = value.as_array().unwrap().iter();
    list.map(|message| message.as_object().unwrap().clone())
        .collect()
}

/// A conversation of the fixtures, with the date that their templates are rendered on.
fn conversation(expected: &Value, name: &str) -> Conversation {
    let value = &expected["conversations"][name];
    let mut variables = value["variables"].as_object().cloned().unwrap_or_default();
    variables.insert("date_string".into(), json!("26 Jul 2024"));
    Conversation {
        messages: messages(&value["messages"]),
        tools: value["tools"].as_array().cloned(),
        variables,
        completion_from: None,
    }
}

fn template(expected: &Value, name: &str) -> ChatTemplate {
    let source = fs::read_to_string(fixtures().join("chat").join(name)).unwrap();
    let tokens = expected["tokens"].as_object().unwrap();
    let tokens = tokens
        .iter()
        .map(|(purpose, token)| (purpose.as_str(), token.as_str().unwrap()));
    ChatTemplate::new(name, &source, tokens).unwrap()
}

#[test]
fn templates_render_byte_for_byte_as_in_transformers() {
    let expected = expected();
    let mut wrong = Vec::new();
    let cases = expected["cases"].as_array().unwrap();
    for case in cases {
        let [name, which] = ["template", "conversation"].map(|key| case[key].as_str().unwrap());
        let (template, conversation) = (template(&expected, name), conversation(&expected, which));
        for (prompt, key) in [(false, "text"), (true, "prompt")] {
            match (template.render(&conversation, prompt), case[key].as_str()) {
                (Ok(found), Some(text)) if found == text => {}
                (Err(ChatError::Refused(found)), None) if found == case["error"] => {}
                (found, text) => wrong.push(format!("{name}, {which}:\n{found:?}\n{text:?}")),
            }
        }
    }
    assert!(cases.len() >= 40);
    assert!(
        wrong.is_empty(),
        "{} of {}\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n\n")
    );
}

/// SmolLM2's own template, with what transformers makes of three conversations.
#[test]
fn a_published_template_renders_as_in_transformers() {
    let folder = fixtures().join("smollm2");
    let source = fs::read_to_string(folder.join("chat_template.jinja")).unwrap();
    let template = ChatTemplate::new("smollm2", &source, []).unwrap();
    let text = fs::read_to_string(folder.join("expected.json")).unwrap();
    let expected: Value = serde_json::from_str(&text).unwrap();
    let chats = expected["chats"].as_array().unwrap();
    assert_eq!(chats.len(), 3);
    for chat in chats {
        let conversation = Conversation {
            messages: messages(&chat["messages"]),
            ..Conversation::default()
        };
        for (prompt, key) in [(false, "text"), (true, "text_with_generation_prompt")] {
            let found = template.render(&conversation, prompt).unwrap();
            assert_eq!(found, chat[key].as_str().unwrap());
        }
    }
}

/// Positions in characters, as Python counts them.
fn in_characters(text: &str, parts: &[Range<usize>]) -> Value {
    let count = |at: usize| text[..at].chars().count();
    let parts = parts
        .iter()
        .map(|part| json!([count(part.start), count(part.end)]));
    parts.collect()
}

#[test]
fn marked_parts_are_those_of_transformers() {
    let expected = expected();
    let mut compared = 0;
    for case in expected["cases"].as_array().unwrap() {
        let (Some(_), Some(_)) = (case.get("generated"), case["text"].as_str()) else {
            continue;
        };
        let [name, which] = ["template", "conversation"].map(|key| case[key].as_str().unwrap());
        let found = template(&expected, name)
            .learned(&conversation(&expected, which), LossOn::Assistant)
            .unwrap();
        assert_eq!(found.text, case["text"], "{which}");
        assert_eq!(
            in_characters(&found.text, &found.learned),
            case["generated"],
            "{which}"
        );
        compared += found.learned.len();
    }
    assert!(compared >= 5);
}

fn parts(template: &ChatTemplate, conversation: &Conversation, loss_on: LossOn) -> Vec<String> {
    let found = template.learned(conversation, loss_on).unwrap();
    let parts = found.learned.iter();
    parts
        .map(|part| found.text[part.clone()].to_string())
        .collect()
}

/// Templates without marks: each turn of the assistant, with what ends it.
#[test]
fn turns_are_found_by_rendering_what_comes_before_them() {
    let expected = expected();
    let all = |name: &str, which: &str, loss_on| {
        parts(
            &template(&expected, name),
            &conversation(&expected, which),
            loss_on,
        )
    };
    let on = LossOn::Assistant;
    for name in ["chatml.jinja", "thinking.jinja"] {
        let turns = all(name, "two turns", on);
        let first = if name == "chatml.jinja" {
            "Hello!<|im_end|>"
        } else {
            "Hello!\n<|im_end|>"
        };
        assert_eq!(turns[0], first);
        assert!(turns[1].ends_with("Good bye.<|im_end|>"), "{turns:?}");
        assert_eq!(all(name, "two turns", LossOn::Completion), turns[1..]);
    }
    // The template writes thoughts into the last answer only, so that an answer in the middle differs from one at the end.
    let thinking = all("thinking.jinja", "thoughts", on);
    assert_eq!(
        thinking,
        [
            "2<|im_end|>",
            "<think>\nTwo and two.\n</think>\n\n4<|im_end|>"
        ]
    );
    let call = "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"place\": \"Köln\", \"days\": 2, \"exact\": 0.5}}\n\
                </tool_call><|im_end|>";
    assert_eq!(
        all("thinking.jinja", "tools", on),
        [call, "Sunny.<|im_end|>"]
    );
    assert_eq!(
        all("header.jinja", "two turns", on),
        ["Hello!<|eot_id|>", "Good bye.<|eot_id|>"]
    );
    assert_eq!(
        all("alternating.jinja", "two turns", on),
        ["Hello!\n</s>", "Good bye.</s>"]
    );
    assert_eq!(
        all("chatml.jinja", "one question", on),
        Vec::<String>::new()
    );
    let whole = all("chatml.jinja", "two turns", LossOn::All);
    assert_eq!(whole.len(), 1);
    assert!(whole[0].starts_with("<|im_start|>user") && whole[0].ends_with("<|im_end|>\n"));
    assert_eq!(
        all("generation.jinja", "two turns", LossOn::Completion).len(),
        1
    );
}

#[test]
fn answers_with_the_weight_0_are_not_learned() {
    let expected = expected();
    for name in ["chatml.jinja", "generation.jinja"] {
        let mut two = conversation(&expected, "two turns");
        two.messages[1].insert("weight".into(), json!(0));
        let turns = parts(&template(&expected, name), &two, LossOn::Assistant);
        assert_eq!(turns.len(), 1, "{turns:?}");
        assert!(turns[0].ends_with("Good bye.<|im_end|>"), "{turns:?}");
    }
}

/// ShareGPT's conversations often begin with the assistant.
#[test]
fn an_answer_before_any_question_is_learned_too() {
    let expected = expected();
    let mut chat = conversation(&expected, "two turns");
    let greeting = Conversation::message("assistant", "Good morning!");
    chat.messages.insert(0, greeting);
    let learned = parts(
        &template(&expected, "chatml.jinja"),
        &chat,
        LossOn::Assistant,
    );
    assert_eq!(learned.len(), 3, "{learned:?}");
    assert_eq!(learned[0], "Good morning!<|im_end|>");
    // A template that writes something else for another content does not show where it begins.
    let source = "{% if messages[0].content == 'Hi.' %}x{% endif %}{{ messages[0].content }}";
    let chat = Conversation {
        messages: vec![Conversation::message("assistant", "Hi.")],
        ..chat
    };
    assert!(refusal(source, &chat).contains("message 1"));
}

fn refusal(source: &str, conversation: &Conversation) -> String {
    let template = ChatTemplate::new("t.jinja", source, [("bos_token", "<s>")]);
    let learned = template.and_then(|template| template.learned(conversation, LossOn::Assistant));
    learned.unwrap_err().to_string()
}

#[test]
fn what_cannot_be_rendered_or_learned_is_explained() {
    let mut chat = Conversation::of_user("a");
    chat.messages.push(Conversation::message("assistant", "b"));
    for (source, expected) in [
        (
            "{{ bos_token }",
            "the chat template t.jinja, line 1: syntax error",
        ),
        (
            "x\n{{ messages[0].content.nothing() }}",
            "the chat template t.jinja, line 2: ",
        ),
        (
            "{{ raise_exception('no ' ~ messages | length) }}",
            "refuses the conversation: no 2",
        ),
        // The position of the answer follows from the number of messages.
        (
            "{{ messages | length }}{% for m in messages %}{{ m.content }};{% endfor %}",
            "does not show where the assistant's message 2",
        ),
        (
            "{% for i in range(9999) %}{% for i in range(9999) %}{{ i }}{% endfor %}{% endfor %}",
            "the chat template t.jinja",
        ),
    ] {
        let message = refusal(source, &chat);
        assert!(message.contains(expected), "{message}");
    }
    let simple = "{% for m in messages %}{{ m.content }};{% endfor %}";
    assert!(refusal(simple, &Conversation::default()).contains("no messages"));
    chat.messages[0].insert("content".into(), json!("\u{fdd0}"));
    assert!(refusal(simple, &chat).contains("reserves"));
    let first = Conversation {
        messages: vec![Conversation::message("assistant", "b")],
        ..Conversation::default()
    };
    let changed = "{% for m in messages %}{{ m.content | upper }};{% endfor %}";
    assert!(refusal(changed, &first).contains("message 1"));
}

#[test]
fn the_time_is_the_local_one() {
    let template = ChatTemplate::new("t", "{{ strftime_now('%d %b %Y|%H') }}", []).unwrap();
    let text = template.render(&Conversation::of_user("a"), false).unwrap();
    let (date, hour) = text.split_once('|').unwrap();
    assert_eq!((date.len(), hour.len()), (11, 2), "{text}");
    let bad = ChatTemplate::new("t", "{{ strftime_now('%!') }}", []).unwrap();
    assert!(bad.render(&Conversation::of_user("a"), false).is_err());
}

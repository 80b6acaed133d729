//! A conversation, in the form that chat templates read.

use serde_json::{Map, Value};

/// The names under which messages carry the model's reasoning. The first is the one that templates read.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// The messages of a conversation, with the tools that the assistant may call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conversation {
    /// The messages: each has a `role` and mostly a `content`, and may have other fields that the template reads, such
    /// as `tool_calls`.
    pub messages: Vec<Map<String, Value>>,
    /// The descriptions of the tools, as JSON schemas; `None` if there are none.
    pub tools: Option<Vec<Value>>,
    /// Further variables of the template, such as `enable_thinking`.
    pub variables: Map<String, Value>,
    /// The index of the first message of the completion, for [`LossOn::Completion`](super::LossOn). `None`: the last
    /// message of the assistant.
    pub completion_from: Option<usize>,
}

impl Conversation {
    /// A message with a role and a content.
    pub fn message(role: &str, content: &str) -> Map<String, Value> {
        let fields = [("role", role), ("content", content)];
        fields
            .map(|(name, text)| (name.to_string(), Value::from(text)))
            .into_iter()
            .collect()
    }

    /// A conversation of one message of the user.
    pub fn of_user(content: &str) -> Self {
        Self {
            messages: vec![Self::message("user", content)],
            ..Self::default()
        }
    }

    /// The role of the message with this index.
    pub fn role(&self, index: usize) -> Option<&str> {
        self.messages.get(index)?.get("role")?.as_str()
    }

    /// Whether the message with this index is the assistant's.
    pub fn is_of_assistant(&self, index: usize) -> bool {
        self.role(index) == Some("assistant")
    }

    /// The index of the first message of the completion.
    pub(crate) fn completion(&self) -> usize {
        self.completion_from.unwrap_or_else(|| {
            let mut from_last = (0..self.messages.len()).rev();
            from_last
                .find(|index| self.is_of_assistant(*index))
                .unwrap_or(self.messages.len())
        })
    }

    /// The conversation before the assistant's last message: what the model answers.
    pub fn prompt(&self) -> Self {
        let last = (0..self.messages.len())
            .rev()
            .find(|index| self.is_of_assistant(*index));
        self.beginning(last.unwrap_or(self.messages.len()))
    }

    /// The first `count` messages.
    pub(crate) fn beginning(&self, count: usize) -> Self {
        Self {
            messages: self.messages.iter().take(count).cloned().collect(),
            ..self.clone()
        }
    }

    /// Whether the message with this index is the assistant's, and is to be learned: OpenAI's field `weight` is not 0.
    pub(crate) fn is_learned(&self, index: usize) -> bool {
        self.is_of_assistant(index) && self.weight(index) != Some(0.0)
    }

    /// Whether a message of the assistant is not to be learned.
    pub(crate) fn leaves_out(&self) -> bool {
        (0..self.messages.len()).any(|index| self.is_of_assistant(index) && !self.is_learned(index))
    }

    fn weight(&self, index: usize) -> Option<f64> {
        self.messages.get(index)?.get("weight")?.as_f64()
    }

    /// The messages as transformers passes them to a template: fields that are null are left out, and the model's reasoning
    /// has the name that templates read.
    pub(super) fn for_template(&self) -> Vec<Map<String, Value>> {
        let normalized = |message: &Map<String, Value>| {
            let there = message.iter().filter(|(_, value)| !value.is_null());
            let mut message: Map<String, Value> = there
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect();
            let reasoning = REASONING
                .iter()
                .find_map(|name| message.get(*name).cloned());
            if let Some(reasoning) = reasoning {
                let [of_templates, of_gpt_oss, _] = REASONING;
                if !message.contains_key(of_gpt_oss) {
                    message.insert(of_gpt_oss.to_string(), reasoning.clone());
                }
                message.insert(of_templates.to_string(), reasoning);
            }
            message
        };
        self.messages.iter().map(normalized).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn messages_lose_their_nulls_and_name_their_reasoning() {
        let message = json!({"role": "assistant", "content": null, "reasoning": "so", "name": "x"});
        let conversation = Conversation {
            messages: vec![message.as_object().unwrap().clone()],
            ..Conversation::default()
        };
        let expected = json!([{"role": "assistant", "reasoning": "so", "name": "x", "thinking": "so",
            "reasoning_content": "so"}]);
        assert_eq!(json!(conversation.for_template()), expected);
    }

    #[test]
    fn the_completion_is_the_last_answer_unless_it_is_named() {
        let mut conversation = Conversation::of_user("a");
        assert_eq!(
            (
                conversation.completion(),
                conversation.prompt().messages.len()
            ),
            (1, 1)
        );
        for (role, text) in [("assistant", "b"), ("user", "c"), ("assistant", "d")] {
            conversation
                .messages
                .push(Conversation::message(role, text));
        }
        assert_eq!(
            (
                conversation.completion(),
                conversation.prompt().messages.len()
            ),
            (3, 3)
        );
        conversation.completion_from = Some(1);
        assert_eq!(conversation.completion(), 1);
        assert!(!conversation.leaves_out() && conversation.is_learned(1));
        conversation.messages[1].insert("weight".into(), json!(0));
        assert!(conversation.leaves_out() && !conversation.is_learned(1));
    }
}

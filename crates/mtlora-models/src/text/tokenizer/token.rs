//! Tokens in settings files.

use serde_json::{Map, Value};
use tokenizers::AddedToken;

/// A special token in a settings file: its text alone, or its text with flags for how it is matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// The text alone.
    Text(String),
    /// The text, and how it is matched in other texts.
    Added(AddedToken),
}

impl Token {
    /// The token's text.
    pub(super) fn content(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Added(token) => &token.content,
        }
    }

    /// The token to add to the tokenizer: a bare text is a special token with default flags.
    pub(super) fn into_added(self) -> AddedToken {
        match self {
            Self::Text(text) => AddedToken::from(text, true),
            Self::Added(token) => token,
        }
    }

    /// Parses the value of a field for a special token; `None` if it is neither a string nor a token object.
    pub(super) fn parse(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(Self::Text(text.clone())),
            Value::Object(map) => added_token(map).map(Self::Added),
            _ => None,
        }
    }
}

/// Parses an object with `content` and flags. Missing flags are false, except that `normalized` is true for a token
/// that is not special.
pub(super) fn added_token(map: &Map<String, Value>) -> Option<AddedToken> {
    let content = map.get("content")?.as_str()?;
    let flag = |name: &str| match map.get(name) {
        None | Some(Value::Null) => Some(None),
        Some(Value::Bool(flag)) => Some(Some(*flag)),
        Some(_) => None,
    };
    let special = flag("special")?.unwrap_or(false);
    Some(
        AddedToken::from(content, special)
            .single_word(flag("single_word")?.unwrap_or(false))
            .lstrip(flag("lstrip")?.unwrap_or(false))
            .rstrip(flag("rstrip")?.unwrap_or(false))
            .normalized(flag("normalized")?.unwrap_or(!special)),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn missing_flags_have_their_defaults() {
        let parse = |value: Value| Token::parse(&value);
        assert_eq!(parse(json!("<x>")), Some(Token::Text("<x>".into())));
        let token = parse(json!({"content": "x", "lstrip": true})).unwrap();
        let expected = AddedToken::from("x", false).lstrip(true);
        assert!(expected.normalized);
        assert_eq!(token.into_added(), expected);
        let special = parse(json!({"content": "x", "special": true})).unwrap();
        assert!(!special.into_added().normalized);
        for wrong in [
            json!(3),
            json!(null),
            json!({"lstrip": true}),
            json!({"content": 3}),
            json!({"content": "x", "rstrip": "yes"}),
        ] {
            assert_eq!(parse(wrong), None);
        }
    }
}

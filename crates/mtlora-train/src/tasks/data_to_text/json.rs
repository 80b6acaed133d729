use std::path::Path;

use serde::de::DeserializeOwned;

use crate::data::error::DataError;
use crate::data::rows::json_reason;

/// Parses a JSON text. `what` describes it in messages: `DART's JSON`.
///
/// # Errors
/// [`DataError::Row`] if the text is cut off, is not JSON, is nested too deeply, or has another structure.
pub(super) fn parse<T: DeserializeOwned>(
    path: &Path,
    text: &str,
    what: &str,
) -> Result<T, DataError> {
    serde_json::from_str(text).map_err(|error| {
        let why = json_reason(&error);
        let hint = if error.is_eof() {
            "the file is cut off: download it again"
        } else {
            "correct it, or download the file again"
        };
        let message = format!("not {what}, at column {}: {why}; {hint}", error.column());
        DataError::row(path, error.line().max(1), message)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_error_says_where_and_what() {
        let parse = |text: &str| parse::<Vec<[String; 3]>>(Path::new("a.json"), text, "triples");
        assert_eq!(parse("[[\"a\",\"b\",\"c\"]]").unwrap().len(), 1);
        for (text, expected) in [
            ("", "a.json:1: not triples, at column 0: EOF"),
            ("[\n[\"a\",", "a.json:2: not triples, at column 5: EOF"),
            ("[\n[\"a\",\"b\"]]", "a.json:2: not triples"),
            ("<benchmark/>", "a.json:1: not triples, at column 1"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        let deep = "[".repeat(1_000_000);
        assert!(parse(&deep).is_err());
        let deep = "{\"a\":".repeat(1_000_000);
        let unknown = super::parse::<Nothing>(Path::new("a.json"), &deep, "nothing");
        assert!(unknown.is_err());
    }

    /// Ignores whatever there is.
    #[derive(serde::Deserialize)]
    struct Nothing {}
}

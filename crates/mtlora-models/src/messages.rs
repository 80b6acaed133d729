//! Shows names and values from files in messages, truncated so that they cannot flood a message.

/// The number of characters of a name or value that a message shows.
pub(crate) const SHOWN: usize = 80;
/// The number of names that a message lists before "and N more".
const LISTED: usize = 8;

/// A name or value from a file, in backticks, on one line and truncated.
///
/// ```
/// assert_eq!(mtlora_models::messages::shown("a\tb"), "`a\\tb`");
/// ```
pub fn shown(text: &str) -> String {
    let mut characters = text.chars();
    let head: String = characters
        .by_ref()
        .take(SHOWN)
        .flat_map(char::escape_debug)
        .collect();
    let rest = if characters.next().is_some() {
        "…"
    } else {
        ""
    };
    format!("`{head}{rest}`")
}

/// Names, separated by commas; a long list is truncated.
pub(crate) fn listed<S: AsRef<str>>(names: &[S]) -> String {
    listed_up_to(names, LISTED)
}

/// The first `most` names, separated by commas, and how many more there are.
///
/// ```
/// use mtlora_models::messages::listed_up_to;
/// assert_eq!(listed_up_to(&["a", "b", "c"], 2), "`a`, `b` and 1 more");
/// assert_eq!(listed_up_to::<&str>(&[], 2), "none");
/// ```
pub fn listed_up_to<S: AsRef<str>>(names: &[S], most: usize) -> String {
    if names.is_empty() {
        return "none".to_string();
    }
    let first: Vec<String> = names
        .iter()
        .take(most)
        .map(|name| shown(name.as_ref()))
        .collect();
    let mut text = first.join(", ");
    if names.len() > most {
        text.push_str(&format!(" and {} more", names.len() - most));
    }
    text
}

/// What serde says about a value of the wrong kind, in plain words: what the value must be, and what it is. `None` if the
/// message is about something else.
///
/// ```
/// use mtlora_models::messages::needed_and_found;
/// let (needed, found) = needed_and_found("invalid value: integer `-4`, expected usize").unwrap();
/// assert_eq!(needed, "a whole number, 0 or more");
/// assert_eq!(found, "-4");
/// ```
pub fn needed_and_found(message: &str) -> Option<(String, String)> {
    let kinds = ["invalid type: ", "invalid value: "];
    let rest = kinds.iter().find_map(|kind| message.strip_prefix(kind))?;
    let (found, needed) = rest.rsplit_once(", expected ")?;
    Some((plainly_needed(needed), plainly_found(found)))
}

fn plainly_needed(expected: &str) -> String {
    let plain = match expected {
        "usize" | "u64" | "u128" => "a whole number, 0 or more",
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "i8" | "i16" | "i32" | "i64" | "i128" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a string" | "string" | "path string" => "a text in quotes",
        "a sequence" => "a list in [ ]",
        "a map" => "a table",
        other if other.starts_with("a nonzero u") => "a whole number, 1 or more",
        other if other.starts_with("struct ") => "a table",
        other => other,
    };
    plain.to_string()
}

fn plainly_found(found: &str) -> String {
    let in_backticks = found
        .split_once('`')
        .and_then(|(_, rest)| rest.strip_suffix('`'));
    match (found, in_backticks) {
        ("sequence", _) => "a list".to_string(),
        ("map", _) => "a table".to_string(),
        ("null" | "unit value" | "Option value", _) => "null".to_string(),
        (_, Some(value)) => value.to_string(),
        (text, None) => match text.strip_prefix("string ") {
            Some(text) => format!("the text {text}"),
            None => text.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serdes_messages_are_said_in_plain_words() {
        let said = |message: &str| {
            let found = needed_and_found(message);
            found.map(|(needed, found)| format!("{needed}, not {found}"))
        };
        for (message, plain) in [
            (
                "invalid type: string \"2e-3, expected \", expected f64",
                "a number, not the text \"2e-3, expected \"",
            ),
            (
                "invalid type: floating point `1.5`, expected usize",
                "a whole number, 0 or more, not 1.5",
            ),
            (
                "invalid type: sequence, expected a map",
                "a table, not a list",
            ),
            (
                "invalid value: integer `0`, expected a nonzero usize",
                "a whole number, 1 or more, not 0",
            ),
            (
                "invalid type: integer `3`, expected path string",
                "a text in quotes, not 3",
            ),
            (
                "invalid type: boolean `true`, expected a sequence",
                "a list in [ ], not true",
            ),
        ] {
            assert_eq!(said(message).as_deref(), Some(plain), "{message}");
        }
        assert_eq!(said("missing field `name`"), None);
    }

    #[test]
    fn hostile_names_cannot_flood_or_break_a_message() {
        let text = shown(&"a\nb".repeat(1000));
        assert!(!text.contains('\n'));
        assert!(text.chars().count() < 2 * SHOWN + 4);
        assert!(text.ends_with("…`"));
        let long = "x".repeat(1000);
        assert!(shown(&long).chars().count() < SHOWN + 5);
    }
}

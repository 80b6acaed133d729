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

#[cfg(test)]
mod tests {
    use super::*;

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

use fancy_regex::{Regex, RegexBuilder};

/// Steps that an expression may take on one name.
const MAX_STEPS: usize = 100_000;
/// The largest size of a compiled expression, in bytes.
const MAX_COMPILED: usize = 1 << 20;
/// The longest expression, in bytes.
const MAX_LENGTH: usize = 1 << 14;

/// A regular expression over the names of modules, of Python's kind: with look-around and references to groups. It may
/// come from a file, so that its size and its steps are bounded.
///
/// ```
/// use mtlora_core::ModulePattern;
/// let pattern = ModulePattern::whole(r".*\.(?!0\.)\d+\.query").unwrap();
/// assert!(pattern.is_match("layer.1.query").unwrap());
/// assert!(!pattern.is_match("layer.0.query").unwrap());
/// assert!(!pattern.is_match("layer.1.query.weight").unwrap());
/// ```
#[derive(Clone, Debug)]
pub struct ModulePattern(Regex);

/// Why an expression cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PatternError(String);

impl ModulePattern {
    /// Matches names of which the whole matches `expression`.
    ///
    /// # Errors
    /// When it is too long, too large, or not a regular expression.
    pub fn whole(expression: &str) -> Result<Self, PatternError> {
        Self::new(expression, |expression| format!("^(?:{expression})$"))
    }

    /// Matches names with an expression that `complete` makes of the given one.
    ///
    /// # Errors
    /// As [`Self::whole`].
    pub fn new(
        expression: &str,
        complete: impl FnOnce(&str) -> String,
    ) -> Result<Self, PatternError> {
        if expression.len() > MAX_LENGTH {
            let message = format!("it is longer than {MAX_LENGTH} bytes");
            return Err(PatternError(message));
        }
        RegexBuilder::new(&complete(expression))
            .backtrack_limit(MAX_STEPS)
            .delegate_size_limit(MAX_COMPILED)
            .delegate_dfa_size_limit(MAX_COMPILED)
            .build()
            .map(Self)
            .map_err(|error| PatternError(error.to_string()))
    }

    /// Whether the expression matches in `name`.
    ///
    /// # Errors
    /// When that takes too many steps.
    pub fn is_match(&self, name: &str) -> Result<bool, PatternError> {
        self.0
            .is_match(name)
            .map_err(|error| PatternError(error.to_string()))
    }

    /// The text of a named group of the first match in `name`; `None` where nothing matches.
    ///
    /// # Errors
    /// As [`Self::is_match`].
    pub fn group<'a>(&self, name: &'a str, group: &str) -> Result<Option<&'a str>, PatternError> {
        let captures = self.0.captures(name);
        let captures = captures.map_err(|error| PatternError(error.to_string()))?;
        let found = captures.and_then(|captures| captures.name(group));
        Ok(found.map(|found| found.as_str()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn expressions_are_bounded() {
        let long = "a".repeat(MAX_LENGTH + 1);
        let error = ModulePattern::whole(&long).unwrap_err();
        assert!(error.to_string().contains("longer"), "{error}");
        assert!(ModulePattern::whole("(").is_err());
        let slow = ModulePattern::whole(r"(a|a|b\1)*\1c").unwrap();
        assert!(slow.is_match(&format!("{}!", "a".repeat(40))).is_err());
    }

    #[test]
    fn a_group_is_read_from_the_first_match() {
        let layer = ModulePattern::new("layer", |name| format!("{name}\\.(?<idx>\\d+)\\."));
        let layer = layer.unwrap();
        assert_eq!(layer.group("a.layer.12.query", "idx"), Ok(Some("12")));
        assert_eq!(layer.group("a.layers.12.query", "idx"), Ok(None));
    }
}

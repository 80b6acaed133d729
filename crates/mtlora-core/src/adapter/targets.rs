use std::fmt;

use serde::{Deserialize, Serialize};

use crate::adapter::error::AttachError;
use crate::module_pattern::ModulePattern;

/// Which weights are adapted, said as PEFT's `target_modules` says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Targets {
    /// Modules whose path is one of the names or ends with `.` and one of them. Each name must
    /// match something.
    Names(Vec<String>),
    /// Modules whose whole path matches the regular expression, as [`ModulePattern`] reads it.
    Pattern(String),
    /// Every linear layer, but for those that are trained themselves (`modules_to_save`).
    AllLinear,
}

impl Targets {
    /// Reads a flag's value: `all-linear`, names with commas between, or, where a character of
    /// regular expressions occurs that no name has, a regular expression.
    pub fn parse(text: &str) -> Self {
        if text == "all-linear" {
            return Targets::AllLinear;
        }
        if text.contains(['*', '+', '?', '(', '[', '|', '\\', '^', '$', '{']) {
            return Targets::Pattern(text.to_string());
        }
        Targets::names(text.split(',').map(str::trim).filter(|s| !s.is_empty()))
    }

    /// [`Targets::Names`] from anything that is text.
    pub fn names<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        Targets::Names(names.into_iter().map(Into::into).collect())
    }

    /// The paths among `modules` (path, is it a linear layer) that are meant.
    pub(crate) fn select<'a>(
        &self,
        modules: &'a [(String, bool)],
    ) -> Result<Vec<&'a str>, AttachError> {
        let available = || modules.iter().map(|(path, _)| path.clone()).collect();
        let selected: Vec<&str> = match self {
            Targets::Names(names) => {
                for name in names {
                    if !modules.iter().any(|(path, _)| ends_with_name(path, name)) {
                        return Err(AttachError::NoMatch {
                            target: name.clone(),
                            available: available(),
                        });
                    }
                }
                let meant = |path: &str| names.iter().any(|name| ends_with_name(path, name));
                paths(modules, |path, _| meant(path))
            }
            Targets::Pattern(pattern) => {
                let wrong = |source| AttachError::Pattern {
                    pattern: pattern.clone(),
                    source,
                };
                let whole = ModulePattern::whole(pattern).map_err(wrong)?;
                let mut found = Vec::new();
                for (path, _) in modules {
                    if whole.is_match(path).map_err(wrong)? {
                        found.push(path.as_str());
                    }
                }
                found
            }
            Targets::AllLinear => paths(modules, |_, linear| linear),
        };
        if selected.is_empty() {
            return Err(AttachError::NoMatch {
                target: self.to_string(),
                available: available(),
            });
        }
        Ok(selected)
    }
}

/// As [`Targets::parse`] reads it.
impl fmt::Display for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Targets::Names(names) => f.write_str(&names.join(",")),
            Targets::Pattern(pattern) => f.write_str(pattern),
            Targets::AllLinear => f.write_str("all-linear"),
        }
    }
}

fn paths(modules: &[(String, bool)], meant: impl Fn(&str, bool) -> bool) -> Vec<&str> {
    modules
        .iter()
        .filter(|(path, linear)| meant(path, *linear))
        .map(|(path, _)| path.as_str())
        .collect()
}

/// Whether `path` is `name` or ends with `.name`.
pub(crate) fn ends_with_name(path: &str, name: &str) -> bool {
    path.strip_suffix(name)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules() -> Vec<(String, bool)> {
        ["embeddings.word", "layer.0.query", "layer.0.prequery"]
            .into_iter()
            .map(|path| (path.to_string(), !path.starts_with("embeddings")))
            .collect()
    }

    #[test]
    fn names_match_whole_path_components() {
        let modules = modules();
        let selected = Targets::names(["query"]).select(&modules).unwrap();
        assert_eq!(selected, ["layer.0.query"]);
        let selected = Targets::names(["0.query", "word"]).select(&modules);
        assert_eq!(selected.unwrap(), ["embeddings.word", "layer.0.query"]);
    }

    #[test]
    fn patterns_match_the_whole_path() {
        let modules = modules();
        let selected = Targets::parse(r"layer\.\d+\..*query").select(&modules);
        assert_eq!(selected.unwrap(), ["layer.0.query", "layer.0.prequery"]);
        assert!(Targets::Pattern("query".into()).select(&modules).is_err());
        let error = Targets::Pattern("(".into()).select(&modules).unwrap_err();
        assert!(error.to_string().contains("regular expression"));
    }

    #[test]
    fn a_name_that_matches_nothing_lists_what_there_is() {
        let modules = modules();
        let error = Targets::parse("query, valeu").select(&modules).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("valeu") && text.contains("layer.*.prequery"));
    }

    #[test]
    fn all_linear_leaves_embeddings() {
        assert_eq!(Targets::parse("all-linear"), Targets::AllLinear);
        assert_eq!(Targets::AllLinear.select(&modules()).unwrap().len(), 2);
    }
}

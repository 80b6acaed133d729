//! Which modules PEFT adapts, and with which rank: the rules of its `tuners_utils.py` and `other.py`.

use std::collections::HashSet;
use std::path::Path;

use mtlora_core::{ModulePattern, PatternError};

use super::config::{AdapterConfig, TargetModules};
use super::error::AdapterError;

/// A module that may be selected.
#[derive(Clone, Copy)]
pub(super) struct Candidate<'a> {
    /// Its Hugging Face name.
    pub name: &'a str,
    /// Whether it is a linear layer (or `Conv1D`).
    pub linear: bool,
}

/// An expression of the configuration, compiled.
struct Pattern<'a> {
    compiled: ModulePattern,
    path: &'a Path,
    field: &'static str,
    source: &'a str,
}

impl<'a> Pattern<'a> {
    /// The expression `source` of a field, of which `complete` makes the one that is matched.
    fn new(
        path: &'a Path,
        field: &'static str,
        source: &'a str,
        complete: impl FnOnce(&str) -> String,
    ) -> Result<Self, AdapterError> {
        let compiled = ModulePattern::new(source, complete);
        Ok(Self {
            compiled: compiled.map_err(|error| wrong(path, field, source, &error))?,
            path,
            field,
            source,
        })
    }

    fn matches(&self, name: &str) -> Result<bool, AdapterError> {
        let found = self.compiled.is_match(name);
        found.map_err(|error| wrong(self.path, self.field, self.source, &error))
    }

    /// The text of a named group of the first match; `None` where nothing matches.
    fn group<'n>(&self, name: &'n str, group: &str) -> Result<Option<&'n str>, AdapterError> {
        let found = self.compiled.group(name, group);
        found.map_err(|error| wrong(self.path, self.field, self.source, &error))
    }
}

fn wrong(path: &Path, field: &'static str, source: &str, error: &PatternError) -> AdapterError {
    AdapterError::Pattern {
        path: path.to_path_buf(),
        field,
        pattern: source.to_string(),
        message: error.to_string(),
    }
}

/// Whether `name` is one of `names`, or ends with `.` and one of them.
struct Endings<'a>(HashSet<&'a str>);

impl<'a> Endings<'a> {
    fn new(names: &'a [String]) -> Self {
        Self(names.iter().map(String::as_str).collect())
    }

    fn have(&self, name: &str) -> bool {
        let mut rest = name;
        loop {
            if self.0.contains(rest) {
                return true;
            }
            match rest.split_once('.') {
                Some((_, behind)) => rest = behind,
                None => return false,
            }
        }
    }
}

impl AdapterConfig {
    /// Which of the candidates are adapted; `path` is for the messages. Modules that are saved whole are not adapted,
    /// nor are the modules inside them.
    pub(super) fn targets<'a>(
        &self,
        path: &Path,
        candidates: &[Candidate<'a>],
    ) -> Result<HashSet<&'a str>, AdapterError> {
        let meant = self.match_names(path, "target_modules", &self.target_modules, candidates)?;
        let excluded = match &self.exclude_modules {
            None => HashSet::new(),
            some => self.match_names(path, "exclude_modules", some, candidates)?,
        };
        let layers = Layers::new(path, self)?;
        let names = matches!(self.target_modules, Some(TargetModules::Names(_)));
        let mut targets = HashSet::new();
        for name in meant {
            if excluded.contains(name) || self.saves(name) {
                continue;
            }
            if !names || layers.have(name)? {
                targets.insert(name);
            }
        }
        Ok(targets)
    }

    fn match_names<'a>(
        &self,
        path: &Path,
        field: &'static str,
        modules: &Option<TargetModules>,
        candidates: &[Candidate<'a>],
    ) -> Result<HashSet<&'a str>, AdapterError> {
        let names = || candidates.iter().map(|candidate| candidate.name);
        Ok(match modules {
            None => names().collect(),
            Some(TargetModules::Names(wanted)) => {
                let endings = Endings::new(wanted);
                names().filter(|name| endings.have(name)).collect()
            }
            Some(TargetModules::AllLinear) => candidates
                .iter()
                .filter(|candidate| candidate.linear)
                .map(|candidate| candidate.name)
                .collect(),
            Some(TargetModules::Pattern(source)) => {
                let pattern = Pattern::new(path, field, source, |one| format!("^(?:{one})$"))?;
                let mut found = HashSet::new();
                for name in names() {
                    if pattern.matches(name)? {
                        found.insert(name);
                    }
                }
                found
            }
        })
    }

    /// Whether the module with this name is saved whole, or lies inside one that is.
    pub(super) fn saves(&self, name: &str) -> bool {
        // As PEFT compares them: `pre_classifier` ends with `classifier`.
        let is_saved = |name: &str| {
            let mut saved = self.modules_to_save.iter();
            saved.any(|saved| name.ends_with(saved.as_str()))
        };
        let mut ancestor = name;
        loop {
            if is_saved(ancestor) {
                return true;
            }
            match ancestor.rsplit_once('.') {
                Some((before, _)) => ancestor = before,
                None => return false,
            }
        }
    }

    /// Rank and alpha of each module.
    pub(super) fn ranks_and_alphas(
        &self,
        path: &Path,
        names: &[&str],
    ) -> Result<Vec<(usize, f64)>, AdapterError> {
        let ranks = by_pattern(path, "rank_pattern", names, &self.rank_pattern)?;
        let alphas = by_pattern(path, "alpha_pattern", names, &self.alpha_pattern)?;
        let both = ranks.into_iter().zip(alphas);
        Ok(both
            .map(|(rank, alpha)| (rank.unwrap_or(self.r), alpha.unwrap_or(self.lora_alpha)))
            .collect())
    }
}

/// For each name, the value of the first pattern that matches the end of the name.
fn by_pattern<T: Copy>(
    path: &Path,
    field: &'static str,
    names: &[&str],
    patterns: &[(String, T)],
) -> Result<Vec<Option<T>>, AdapterError> {
    let mut values = vec![None; names.len()];
    for (source, value) in patterns {
        // One at a time: thousands of compiled expressions would take a lot of memory.
        let pattern = Pattern::new(path, field, source, |one| format!("^(?:.*\\.)?(?:{one})$"))?;
        for (name, slot) in names.iter().zip(&mut values) {
            if slot.is_none() && pattern.matches(name)? {
                *slot = Some(*value);
            }
        }
    }
    Ok(values)
}

/// The choice of layers in `layers_to_transform`. It applies to `target_modules` that are names, not expressions.
struct Layers<'a> {
    wanted: HashSet<usize>,
    patterns: Vec<Pattern<'a>>,
}

impl<'a> Layers<'a> {
    fn new(path: &'a Path, config: &'a AdapterConfig) -> Result<Self, AdapterError> {
        let wanted: HashSet<usize> = config.layers_to_transform.iter().copied().collect();
        let mut patterns = Vec::new();
        if !wanted.is_empty() {
            for source in &config.layers_pattern {
                patterns.push(Pattern::new(path, "layers_pattern", source, |one| {
                    format!("^(?:.*?\\.)??(?:{one})\\.(?<idx>\\d+)\\.")
                })?);
            }
        }
        Ok(Self { wanted, patterns })
    }

    fn have(&self, name: &str) -> Result<bool, AdapterError> {
        if self.wanted.is_empty() {
            return Ok(true);
        }
        if self.patterns.is_empty() {
            // The first number among the names, but for the first two and the last.
            let parts: Vec<&str> = name.split('.').collect();
            let inner = parts.len().saturating_sub(1);
            let digits =
                |part: &&&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            let number = parts.get(2..inner).and_then(|inner| {
                let found = inner.iter().find(digits)?;
                found.parse().ok()
            });
            return Ok(number.is_some_and(|number| self.wanted.contains(&number)));
        }
        for pattern in &self.patterns {
            if let Some(number) = pattern.group(name, "idx")? {
                let number = number.parse().ok();
                return Ok(number.is_some_and(|number| self.wanted.contains(&number)));
            }
        }
        Ok(false)
    }
}

/// The shortest names that select exactly `wanted` among `all`: the last component of each name, or as many of its
/// last components as are needed.
pub(super) fn short_names(wanted: &[&str], all: &[&str]) -> Vec<String> {
    let exact: HashSet<&str> = wanted.iter().copied().collect();
    let longest = wanted.iter().map(|name| name.split('.').count()).max();
    for count in 1..=longest.unwrap_or(1) {
        let mut names: Vec<String> = Vec::new();
        for name in wanted {
            let cut = name.rmatch_indices('.').nth(count - 1);
            let end = cut.map_or(*name, |(at, _)| name.get(at + 1..).unwrap_or(name));
            if !names.iter().any(|known| known == end) {
                names.push(end.to_string());
            }
        }
        let endings = Endings::new(&names);
        let found = all.iter().filter(|name| endings.have(name));
        if found.copied().collect::<HashSet<_>>() == exact {
            return names;
        }
    }
    wanted.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NAMES: [&str; 9] = [
        "roberta.embeddings.word_embeddings",
        "roberta.encoder.layer.0.attention.self.query",
        "roberta.encoder.layer.0.attention.self.prequery",
        "roberta.encoder.layer.0.attention.output.dense",
        "roberta.encoder.layer.0.output.dense",
        "roberta.encoder.layer.11.attention.self.query",
        "roberta.encoder.layer.11.output.dense",
        "classifier.dense",
        "classifier.out_proj",
    ];

    fn select(change: impl Fn(&mut AdapterConfig)) -> Vec<usize> {
        let mut config = AdapterConfig::new(8, 16.0, TargetModules::AllLinear);
        config.modules_to_save = vec!["classifier".into(), "score".into()];
        change(&mut config);
        let candidates = NAMES.map(|name| Candidate {
            name,
            linear: !name.ends_with("embeddings"),
        });
        let found = config.targets(Path::new("c"), &candidates).unwrap();
        (0..NAMES.len())
            .filter(|at| found.contains(NAMES[*at]))
            .collect()
    }

    fn names(names: &[&str]) -> Option<TargetModules> {
        Some(TargetModules::Names(
            names.iter().map(ToString::to_string).collect(),
        ))
    }

    // What `check_target_module_exists` of PEFT 0.21 says of the same names.
    #[test]
    fn the_modules_are_those_that_peft_adapts() {
        let pattern = |text: &str| Some(TargetModules::Pattern(text.to_string()));
        assert_eq!(select(|_| ()), [1, 2, 3, 4, 5, 6]);
        assert_eq!(
            select(|c| c.target_modules = names(&["query", "word_embeddings"])),
            [0, 1, 5]
        );
        assert_eq!(select(|c| c.target_modules = names(&["dense"])), [3, 4, 6]);
        assert_eq!(
            select(|c| {
                c.target_modules = names(&["dense"]);
                c.exclude_modules = names(&["attention.output.dense"]);
            }),
            [4, 6]
        );
        assert_eq!(
            select(|c| c.target_modules = pattern(".*self.query")),
            [1, 5]
        );
        assert_eq!(
            select(|c| c.target_modules = pattern("query")),
            [] as [usize; 0]
        );
        // Python's look-around.
        assert_eq!(
            select(|c| c.target_modules = pattern(r"(?!.*layer\.0\.).*(query|dense)")),
            [5, 6]
        );
        let layer = |c: &mut AdapterConfig, layer| {
            c.target_modules = names(&["query", "output.dense"]);
            c.layers_to_transform = vec![layer];
        };
        assert_eq!(select(|c| layer(c, 11)), [5, 6]);
        assert_eq!(select(|c| layer(c, 1)), [] as [usize; 0]);
        assert_eq!(
            select(|c| {
                layer(c, 0);
                c.layers_pattern = vec!["h".into(), "layer".into()];
            }),
            [1, 3, 4]
        );
    }

    #[test]
    fn the_first_pattern_that_fits_counts() {
        let config = AdapterConfig {
            rank_pattern: vec![
                ("layer.0.attention.self.query".into(), 2),
                (r".*query".into(), 3),
                (r"^roberta.encoder.*dense".into(), 4),
            ],
            alpha_pattern: vec![("uery".into(), 1.0), ("output.dense".into(), 2.0)],
            ..AdapterConfig::new(8, 16.0, TargetModules::AllLinear)
        };
        let found = config.ranks_and_alphas(Path::new("c"), &NAMES).unwrap();
        let expected = [
            (8, 16.0),
            (2, 16.0),
            (3, 16.0),
            (4, 2.0),
            (4, 2.0),
            (3, 16.0),
            (4, 2.0),
            (8, 16.0),
            (8, 16.0),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn expressions_that_do_not_end_are_refused() {
        let name = format!("{}!", "a".repeat(40));
        let candidates = [Candidate {
            name: &name,
            linear: true,
        }];
        for pattern in [
            r"(a|a|b\1)*\1c",
            r"(?:(?=(a+))\1?)+$x|(((a*)*)*)*(?!a)b",
            "(",
        ] {
            let config = AdapterConfig::new(1, 1.0, TargetModules::Pattern(pattern.into()));
            // Refused or answered, but at once.
            if let Err(error) = config.targets(Path::new("c"), &candidates) {
                assert!(error.to_string().contains("target_modules"), "{error}");
            }
        }
        let config = AdapterConfig::new(1, 1.0, TargetModules::Pattern("(".into()));
        assert!(config.targets(Path::new("c"), &candidates).is_err());
    }

    #[test]
    fn names_are_as_short_as_they_can_be() {
        let short = |wanted: &[usize]| {
            let wanted: Vec<&str> = wanted.iter().map(|at| NAMES[*at]).collect();
            short_names(&wanted, &NAMES)
        };
        assert_eq!(short(&[1, 5]), ["query"]);
        assert_eq!(short(&[3, 4, 6]), ["output.dense"]);
        assert_eq!(
            short(&[1]),
            ["layer.0.attention.self.query"].map(|_| "0.attention.self.query")
        );
        assert_eq!(short(&[0, 1, 5]), ["word_embeddings", "query"]);
    }
}

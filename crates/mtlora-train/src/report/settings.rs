//! Compares the settings of runs.

use std::collections::BTreeMap;

/// A setting's name, and its value in each run that has it.
pub(super) struct Setting {
    /// `training.learning_rate`.
    pub(super) name: String,
    /// One for each run.
    pub(super) values: Vec<Option<String>>,
}

impl Setting {
    /// The section, such as `training`; empty for a setting without one.
    pub(super) fn section(&self) -> &str {
        self.name
            .rsplit_once('.')
            .map_or("", |(section, _)| section)
    }

    /// The name without the section, such as `learning_rate`.
    pub(super) fn leaf(&self) -> &str {
        self.name
            .rsplit_once('.')
            .map_or(self.name.as_str(), |(_, leaf)| leaf)
    }

    /// Whether all runs have the setting with the same value.
    pub(super) fn same(&self) -> bool {
        self.values.iter().all(|value| *value == self.values[0])
    }
}

/// Every setting that at least one run has, in the order of the first run that has it.
pub(super) fn settings(tables: &[&toml::Table]) -> Vec<Setting> {
    let mut places = BTreeMap::new();
    let mut found: Vec<Setting> = Vec::new();
    for (run, table) in tables.iter().enumerate() {
        let mut flat = Vec::new();
        flatten("", table, &mut flat);
        for (name, value) in flat {
            let name = shown(&name);
            let place = *places.entry(name.clone()).or_insert(found.len());
            if place == found.len() {
                found.push(Setting {
                    name,
                    values: vec![None; tables.len()],
                });
            }
            found[place].values[run] = Some(value);
        }
    }
    // Settings without a section come first, then section by section.
    found.sort_by(|one, other| one.section().cmp(other.section()));
    found
}

/// The name that the page shows for a key of `run.toml`: without the tables that only divide the file among parts of
/// the program, such as `adapter.rank` for `base.adapter.rank`.
fn shown(key: &str) -> String {
    let inner = [
        "base.",
        "kind.classification.",
        "kind.generation.",
        "kind.chat.",
    ]
    .iter()
    .find_map(|table| key.strip_prefix(table))
    .unwrap_or(key);
    match inner {
        "data.task" => "task",
        "data.folder" => "data",
        "head.fresh" => "fresh_head",
        inner => inner.strip_prefix("head.").unwrap_or(inner),
    }
    .to_string()
}

fn flatten(prefix: &str, table: &toml::Table, into: &mut Vec<(String, String)>) {
    for (name, value) in table {
        let name = match prefix {
            "" => name.clone(),
            prefix => format!("{prefix}.{name}"),
        };
        match value {
            toml::Value::Table(table) => flatten(&name, table, into),
            toml::Value::String(text) => into.push((name, text.clone())),
            value => into.push((name, value.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mtlora_models::GenerationConfig;

    use super::*;
    use crate::run::config::settings::{GenerationRun, RunConfig, RunKind, example};

    #[test]
    fn differing_settings_are_distinguished_from_equal_ones() {
        let table = |text: &str| text.parse::<toml::Table>().unwrap();
        let one = table("task = 'sea'\n[training]\nlr = 0.1\nseed = 1\n");
        let two = table("task = 'sea'\n[training]\nlr = 0.2\nseed = 1\npatience = 3\n");
        let found = settings(&[&one, &two]);
        let names: Vec<(&str, bool)> = found
            .iter()
            .map(|setting| (setting.name.as_str(), setting.same()))
            .collect();
        let expected = [
            ("task", true),
            ("training.lr", false),
            ("training.seed", true),
            ("training.patience", false),
        ];
        assert_eq!(names, expected);
        assert_eq!(found[3].values, [None, Some("3".to_string())]);
    }

    #[test]
    fn names_are_those_of_the_settings_and_not_of_the_files_tables() {
        let mut config = example();
        let names = |config: &RunConfig| {
            let table = toml::Table::try_from(config).unwrap();
            let found = settings(&[&table]);
            found.into_iter().map(|one| one.name).collect::<Vec<_>>()
        };
        let of_labels = names(&config);
        config.kind = RunKind::Generation(GenerationRun {
            train_split: "train".to_string(),
            label_smoothing: 0.1,
            final_scores: true,
            pairs: None,
            decoding: GenerationConfig::default(),
        });
        let of_texts = names(&config);
        for expected in ["model", "max_length", "task", "data", "adapter.rank"] {
            for names in [&of_labels, &of_texts] {
                assert!(names.iter().any(|name| name == expected), "{expected}");
            }
        }
        assert!(of_labels.contains(&"objective.kind".to_string()));
        assert!(of_texts.contains(&"decoding.num_beams".to_string()));
        for name in of_labels.iter().chain(&of_texts) {
            let is_internal =
                ["base", "kind", "head", "folder"].contains(&name.split('.').next().unwrap());
            assert!(!is_internal, "{name}");
        }
        assert_eq!(shown("kind.classification.head.fresh"), "fresh_head");
    }
}

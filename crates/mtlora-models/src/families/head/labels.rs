//! The labels of a classification head in config.json, and what the head predicts.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::problem_type::ProblemType;
use crate::error::ModelError;
use crate::files::fields::{Fields, brief};
use crate::files::names::CONFIG_FILE;
use crate::messages::{listed, shown};

/// The most labels that a head can have.
pub(in crate::families) const MAX_LABELS: usize = 100_000;

/// Checks the labels of a new head.
///
/// # Errors
/// If there are none, or more than [`MAX_LABELS`].
pub(in crate::families) fn check_labels(labels: &[String]) -> Result<(), ModelError> {
    if (1..=MAX_LABELS).contains(&labels.len()) {
        return Ok(());
    }
    Err(ModelError::Field {
        path: PathBuf::from(CONFIG_FILE),
        line: None,
        field: "id2label".to_string(),
        message: format!(
            "would have {} labels; 1 to {MAX_LABELS} are possible",
            labels.len()
        ),
    })
}

/// The kind of prediction where a file does not name it: regression for one label, and one label out of several for more.
pub(in crate::families) fn usual_problem_type(labels: &[String]) -> ProblemType {
    if labels.len() == 1 {
        ProblemType::Regression
    } else {
        ProblemType::SingleLabelClassification
    }
}

/// Writes the labels into a config.json.
pub(in crate::families) fn set_labels(map: &mut Map<String, Value>, labels: &[String]) {
    let by_id = labels.iter().enumerate();
    let names = by_id
        .clone()
        .map(|(id, label)| (id.to_string(), json!(label)))
        .collect();
    map.insert("id2label".to_string(), names);
    let numbers = by_id
        .map(|(id, label)| (label.clone(), json!(id)))
        .collect();
    map.insert("label2id".to_string(), numbers);
}

/// Writes a field that may be absent: where there is no value and the file had one, `null`.
pub(in crate::families) fn set_if_known(
    map: &mut Map<String, Value>,
    field: &str,
    value: Option<Value>,
) {
    if value.is_some() || map.contains_key(field) {
        map.insert(field.to_string(), value.unwrap_or(Value::Null));
    }
}

/// Brings the fields up to date that say how many labels there are and in which precision weights are written, where the
/// file has them.
pub(in crate::families) fn update_written(map: &mut Map<String, Value>, labels: &[String]) {
    for (field, value) in [
        ("num_labels", json!(labels.len())),
        ("_num_labels", json!(labels.len())),
        ("dtype", json!("float32")),
        ("torch_dtype", json!("float32")),
    ] {
        if let Some(old) = map.get_mut(field) {
            *old = value;
        }
    }
}

impl Fields<'_> {
    pub(in crate::families) fn problem_type(&self) -> Result<Option<ProblemType>, ModelError> {
        let Some(value) = self.get("problem_type") else {
            return Ok(None);
        };
        let all = ProblemType::ALL;
        match all.into_iter().find(|known| value == known.name()) {
            Some(problem_type) => Ok(Some(problem_type)),
            None => Err(self.wrong(
                "problem_type",
                format!(
                    "is {}, but must be one of {}",
                    brief(value),
                    listed(&all.map(ProblemType::name))
                ),
            )),
        }
    }

    /// The labels by number. `id2label` decides over `num_labels`, as it does for the classes that wrote the file.
    pub(in crate::families) fn labels(&self) -> Result<Vec<String>, ModelError> {
        let Some(value) = self.get("id2label") else {
            let field = ["num_labels", "_num_labels"]
                .into_iter()
                .find(|field| self.get(field).is_some());
            let number = self.size_or(field.unwrap_or("num_labels"), 2, 1..=MAX_LABELS)?;
            let unnamed = (0..number).map(|id| format!("LABEL_{id}")).collect();
            return Ok(self.named_by_label2id(None).unwrap_or(unnamed));
        };
        let wrong = |message: String| Err(self.wrong("id2label", message));
        let Some(map) = value.as_object() else {
            return wrong(format!(
                "is {}, but must be an object from label numbers to names",
                brief(value)
            ));
        };
        if map.is_empty() || map.len() > MAX_LABELS {
            return wrong(format!(
                "has {} labels; 1 to {MAX_LABELS} are possible",
                map.len()
            ));
        }
        let mut labels = vec![None; map.len()];
        for (key, value) in map {
            let slot = key.parse().ok().and_then(|id: usize| labels.get_mut(id));
            let label = match value {
                Value::String(name) => Some(name.clone()),
                Value::Number(number) => Some(number.to_string()),
                _ => None,
            };
            let (Some(slot @ None), Some(label)) = (slot, label) else {
                return wrong(format!(
                    "has the entry {}: {}, but must give a name to each number from 0 to {}",
                    shown(key),
                    brief(value),
                    map.len() - 1
                ));
            };
            *slot = Some(label);
        }
        // As many entries as places, and none took a place twice.
        let labels: Vec<String> = labels.into_iter().flatten().collect();
        let mut numbered = labels.iter().enumerate();
        if numbered.all(|(id, label)| *label == format!("LABEL_{id}"))
            && let Some(named) = self.named_by_label2id(Some(labels.len()))
        {
            return Ok(named);
        }
        Ok(labels)
    }

    /// The names that `label2id` gives to all numbers from 0, if it does, of `count` labels where that is known. For
    /// files that name labels there and not in `id2label`.
    fn named_by_label2id(&self, count: Option<usize>) -> Option<Vec<String>> {
        let map = self.get("label2id")?.as_object()?;
        if map.is_empty() || map.len() > MAX_LABELS || count.is_some_and(|count| count != map.len())
        {
            return None;
        }
        let mut labels = vec![None; map.len()];
        for (name, id) in map {
            let slot = labels.get_mut(usize::try_from(id.as_u64()?).ok()?)?;
            if slot.replace(name.clone()).is_some() {
                return None;
            }
        }
        labels.into_iter().collect()
    }
}

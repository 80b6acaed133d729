//! The labels of a classification head in config.json, and what the head predicts.

use serde_json::Value;

use crate::error::ModelError;
use crate::families::problem_type::ProblemType;
use crate::files::fields::{Fields, brief};
use crate::messages::{listed, shown};

/// The most labels that a head can have.
pub(super) const MAX_LABELS: usize = 100_000;

impl Fields<'_> {
    pub(super) fn problem_type(&self) -> Result<Option<ProblemType>, ModelError> {
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
    pub(super) fn labels(&self) -> Result<Vec<String>, ModelError> {
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

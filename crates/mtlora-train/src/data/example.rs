//! The examples of classification and regression tasks.

use serde::{Deserialize, Serialize};

/// A text or a pair of texts, and the target to predict.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// The text, exactly as in the file.
    pub text: String,
    /// The second text of a pair.
    pub pair: Option<String>,
    /// The target; `None` if the file has none, as in GLUE's test sets.
    pub target: Option<Target>,
}

/// The target of one example.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// The index of a class in [`Objective::Classification`]'s labels.
    Class(usize),
    /// A number.
    Value(f32),
}

/// What a model predicts in a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Objective {
    /// One class of several.
    Classification {
        /// The names of the classes; a class is an index in this list.
        labels: Vec<String>,
    },
    /// One number.
    Regression,
}

impl Objective {
    /// The number of outputs of a head: one for each class, or one for a regression.
    pub fn num_labels(&self) -> usize {
        match self {
            Self::Classification { labels } => labels.len(),
            Self::Regression => 1,
        }
    }

    /// The names of the classes; empty for a regression.
    pub fn labels(&self) -> &[String] {
        match self {
            Self::Classification { labels } => labels,
            Self::Regression => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_objective_survives_its_file() {
        let classes = Objective::Classification {
            labels: vec!["no".into(), "yes".into(), "maybe".into()],
        };
        assert_eq!(classes.num_labels(), 3);
        assert_eq!(Objective::Regression.num_labels(), 1);
        assert!(Objective::Regression.labels().is_empty());
        for objective in [classes, Objective::Regression] {
            let json = serde_json::to_string(&objective).unwrap();
            assert_eq!(serde_json::from_str::<Objective>(&json).unwrap(), objective);
        }
    }
}

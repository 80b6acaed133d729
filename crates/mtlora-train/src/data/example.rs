//! One example of a task, and what is to be predicted about it.

use serde::{Deserialize, Serialize};

/// One text, or a pair of texts, and what is to be predicted about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// The text, exactly as the file has it.
    pub text: String,
    /// The second text of a pair.
    pub pair: Option<String>,
    /// What is to be predicted; none where the file does not say, as in GLUE's test sets.
    pub target: Option<Target>,
}

/// What a model should predict about one example.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// The index of a class in [`Objective::Classification`]'s labels.
    Class(usize),
    /// A number.
    Value(f32),
}

/// What a task asks a model for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Objective {
    /// One class of several.
    Classification {
        /// The classes' names; a class is its index in them.
        labels: Vec<String>,
    },
    /// One number.
    Regression,
}

impl Objective {
    /// The number of values a head puts out: one a class, or one.
    pub fn num_labels(&self) -> usize {
        match self {
            Self::Classification { labels } => labels.len(),
            Self::Regression => 1,
        }
    }

    /// The classes' names; empty for regression.
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

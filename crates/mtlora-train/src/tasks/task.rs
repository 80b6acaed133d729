//! A task: where its examples come from, what is predicted about them, and how that is scored.

use std::path::Path;

use crate::data::error::DataError;
use crate::data::example::{Example, Objective};
use crate::metrics::labels::MetricName;

/// The columns of a table that a task's texts are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextColumns<'a> {
    /// The column with the text.
    pub text: &'a str,
    /// The column with the second text, if the task is about pairs of texts.
    pub pair: Option<&'a str>,
}

/// A task to fine-tune on.
///
/// Built in are the [GLUE tasks](crate::tasks::glue) and [tables of one's own](crate::TableTask). A task defined elsewhere
/// says its name, its objective and how its examples are read; the rest has defaults:
///
/// ```
/// use std::path::Path;
///
/// use mtlora_train::{DataError, Example, Objective, Target, Task};
///
/// struct Parity(Objective);
///
/// impl Task for Parity {
///     fn name(&self) -> &str {
///         "parity"
///     }
///     fn objective(&self) -> &Objective {
///         &self.0
///     }
///     fn read(&self, data: &Path, split: &str) -> Result<Vec<Example>, DataError> {
///         let path = data.join(format!("{split}.txt"));
///         let text = std::fs::read_to_string(&path).map_err(|error| DataError::io(&path, error))?;
///         Ok(text
///             .lines()
///             .map(|line| Example {
///                 text: line.to_string(),
///                 pair: None,
///                 target: Some(Target::Class(line.len() % 2)),
///             })
///             .collect())
///     }
/// }
/// ```
pub trait Task: Send + Sync {
    /// The name in reports and on the command line.
    fn name(&self) -> &str;

    /// What is asked of the model.
    fn objective(&self) -> &Objective;

    /// The examples of one split, in the file's order.
    ///
    /// `data` is the folder the user names, `split` one of [`splits`](Self::splits). A class in a target is smaller
    /// than the number of labels, and a value is finite.
    ///
    /// # Errors
    /// Whatever keeps the file from being read, with the file and line it is about.
    fn read(&self, data: &Path, split: &str) -> Result<Vec<Example>, DataError>;

    /// The same, and tells `note` what the user should know about the data though it is no error.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn read_noting(
        &self,
        data: &Path,
        split: &str,
        note: &mut dyn FnMut(&str),
    ) -> Result<Vec<Example>, DataError> {
        let _ = note;
        self.read(data, split)
    }

    /// One line on what the task is; empty if there is nothing to say.
    fn describe(&self) -> &str {
        ""
    }

    /// The split to train on.
    fn train_split(&self) -> &str {
        "train"
    }

    /// The split to choose the best checkpoint by.
    fn dev_split(&self) -> &str {
        "dev"
    }

    /// The splits there may be.
    fn splits(&self) -> Vec<&str> {
        vec![self.train_split(), self.dev_split()]
    }

    /// What is reported, the most important first: accuracy, or for regression the two correlations.
    fn metric_names(&self) -> &[MetricName] {
        match self.objective() {
            Objective::Classification { .. } => &[MetricName::Accuracy],
            Objective::Regression => &[MetricName::Pearson, MetricName::Spearman],
        }
    }

    /// The class that F1 is about: of two, the second.
    fn positive_class(&self) -> usize {
        1
    }

    /// The columns of a table with texts for this task; several where its files are published in several layouts, and
    /// nothing if it does not say.
    fn text_columns(&self) -> Vec<TextColumns<'_>> {
        Vec::new()
    }

    /// The metric that the best checkpoint is best in: the first of [`metric_names`](Self::metric_names).
    fn main_metric(&self) -> MetricName {
        self.metric_names()
            .first()
            .copied()
            .unwrap_or(MetricName::Loss)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bare(Objective);

    impl Task for Bare {
        fn name(&self) -> &str {
            "bare"
        }
        fn objective(&self) -> &Objective {
            &self.0
        }
        fn read(&self, _: &Path, split: &str) -> Result<Vec<Example>, DataError> {
            Err(DataError::other(format!("no {split}")))
        }
    }

    #[test]
    fn a_task_needs_three_methods_and_works_as_an_object() {
        let labels = vec!["a".to_string(), "b".to_string()];
        let classes: Box<dyn Task> = Box::new(Bare(Objective::Classification { labels }));
        assert_eq!(classes.main_metric(), MetricName::Accuracy);
        assert_eq!(classes.splits(), ["train", "dev"]);
        let regression: &dyn Task = &Bare(Objective::Regression);
        assert_eq!(regression.main_metric(), MetricName::Pearson);
        let mut notes = 0;
        let error = regression.read_noting(Path::new(""), "dev", &mut |_| notes += 1);
        assert_eq!(
            error.map_err(|error| error.to_string()),
            Err("no dev".into())
        );
        assert_eq!(notes, 0);
    }
}

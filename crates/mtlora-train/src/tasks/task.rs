//! The interface of a task: where its examples come from, what the model predicts for them, and how predictions are
//! scored.

use std::path::Path;

use crate::data::error::DataError;
use crate::data::example::{Example, Objective};
use crate::metrics::labels::MetricName;

/// The columns of a table that hold a task's texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextColumns<'a> {
    /// The column with the text.
    pub text: &'a str,
    /// The column with the second text, if the task is about pairs of texts.
    pub pair: Option<&'a str>,
}

/// What every kind of task has: a name, and splits of examples that are read from the user's data folder.
pub trait TaskData: Send + Sync {
    /// An example: [`Example`] for a [`Task`], and [`Record`](crate::data_to_text::Record) for a
    /// [`GenerationTask`](crate::data_to_text::GenerationTask).
    type Item;

    /// The name in reports and on the command line.
    fn name(&self) -> &str;

    /// The examples of one split, in the order of the file.
    ///
    /// `data` is the folder that the user names, and `split` one of [`splits`](Self::splits).
    ///
    /// # Errors
    /// If the file cannot be read or has an invalid row; the error names the file and the line.
    fn read(&self, data: &Path, split: &str) -> Result<Vec<Self::Item>, DataError>;

    /// Reads a split like [`read`](Self::read), and passes to `note` what the user should know about the data but is
    /// not an error.
    ///
    /// # Errors
    /// The errors of [`read`](Self::read).
    fn read_noting(
        &self,
        data: &Path,
        split: &str,
        note: &mut dyn FnMut(&str),
    ) -> Result<Vec<Self::Item>, DataError> {
        let _ = note;
        self.read(data, split)
    }

    /// A description of the task in one line; empty by default.
    fn describe(&self) -> &str {
        ""
    }

    /// The split to train on.
    fn train_split(&self) -> &str {
        "train"
    }

    /// The split that decides which checkpoint is the best.
    fn dev_split(&self) -> &str {
        "dev"
    }

    /// The split to report final scores on, if the task has one.
    fn test_split(&self) -> Option<&str> {
        None
    }

    /// The names of all splits.
    fn splits(&self) -> Vec<&str> {
        let mut splits = vec![self.train_split(), self.dev_split()];
        splits.extend(self.test_split());
        splits
    }
}

/// The error for a split that a task does not have.
pub(crate) fn unknown_split<T: TaskData + ?Sized>(task: &T, split: &str) -> DataError {
    DataError::UnknownSplit {
        task: task.name().to_string(),
        split: split.to_string(),
        known: task.splits().into_iter().map(String::from).collect(),
    }
}

/// A task whose examples have a class or a number to predict.
///
/// The [GLUE tasks](crate::tasks::glue) and [the user's own tables](crate::TableTask) are built in. A task defined
/// elsewhere needs a name, an objective and a way to read its examples; everything else has defaults:
///
/// ```
/// use std::path::Path;
///
/// use mtlora_train::{DataError, Example, Objective, Target, Task, TaskData};
///
/// struct Parity(Objective);
///
/// impl TaskData for Parity {
///     type Item = Example;
///
///     fn name(&self) -> &str {
///         "parity"
///     }
///
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
///
/// impl Task for Parity {
///     fn objective(&self) -> &Objective {
///         &self.0
///     }
/// }
/// ```
pub trait Task: TaskData<Item = Example> {
    /// What the model predicts. A class in an example's target is below the number of labels, and a value is finite.
    fn objective(&self) -> &Objective;

    /// The reported metrics, the most important first. By default accuracy, or for a regression the two correlations.
    fn metric_names(&self) -> &[MetricName] {
        match self.objective() {
            Objective::Classification { .. } => &[MetricName::Accuracy],
            Objective::Regression => &[MetricName::Pearson, MetricName::Spearman],
        }
    }

    /// The class whose F1 is computed. By default the second of two classes.
    fn positive_class(&self) -> usize {
        1
    }

    /// The columns that hold the texts of a table for this task. There are several entries if its files are published
    /// in several layouts, and none by default.
    fn text_columns(&self) -> Vec<TextColumns<'_>> {
        Vec::new()
    }

    /// The metric that decides which checkpoint is the best: the first of [`metric_names`](Self::metric_names).
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

    impl TaskData for Bare {
        type Item = Example;

        fn name(&self) -> &str {
            "bare"
        }

        fn read(&self, _: &Path, split: &str) -> Result<Vec<Example>, DataError> {
            Err(DataError::other(format!("no {split}")))
        }
    }

    impl Task for Bare {
        fn objective(&self) -> &Objective {
            &self.0
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

use std::path::Path;

use super::record::Record;
use crate::data::error::DataError;

/// A data-to-text task: where its records come from, and how what a model writes is scored.
///
/// The sibling of [`Task`](crate::Task). Built in are [`E2e`](super::E2e), [`WebNlg`](super::WebNlg),
/// [`Dart`](super::Dart), [pairs of one's own](super::PairsTask) and [`Facts`](crate::tasks::facts::Facts). A task defined
/// elsewhere says its name and how its records are read; the rest has defaults:
///
/// ```
/// use std::path::Path;
///
/// use mtlora_train::DataError;
/// use mtlora_train::data_to_text::{GenerationTask, Record};
///
/// struct Shout;
///
/// impl GenerationTask for Shout {
///     fn name(&self) -> &str {
///         "shout"
///     }
///     fn read(&self, data: &Path, split: &str) -> Result<Vec<Record>, DataError> {
///         let path = data.join(format!("{split}.txt"));
///         let text = std::fs::read_to_string(&path).map_err(|error| DataError::io(&path, error))?;
///         Ok(text
///             .lines()
///             .map(|line| Record {
///                 input: line.to_string(),
///                 references: vec![line.to_uppercase()],
///                 ..Record::default()
///             })
///             .collect())
///     }
/// }
/// ```
pub trait GenerationTask: Send + Sync {
    /// The name in reports and on the command line.
    fn name(&self) -> &str;

    /// The records of one split: its distinct inputs, in the order in which they first appear.
    ///
    /// `data` is the folder the user names, `split` one of [`splits`](Self::splits). There is at least one record, and
    /// each has at least one reference.
    ///
    /// # Errors
    /// Whatever keeps the file from being read, with the file and line it is about.
    fn read(&self, data: &Path, split: &str) -> Result<Vec<Record>, DataError>;

    /// The same, and tells `note` what the user should know about the data though it is no error.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn read_noting(
        &self,
        data: &Path,
        split: &str,
        note: &mut dyn FnMut(&str),
    ) -> Result<Vec<Record>, DataError> {
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

    /// The split to report scores of.
    fn test_split(&self) -> &str {
        "test"
    }

    /// The splits there may be.
    fn splits(&self) -> Vec<&str> {
        vec![self.train_split(), self.dev_split(), self.test_split()]
    }

    /// The column of a table with inputs for this task.
    fn input_column(&self) -> &str {
        "prompt"
    }

    /// The input that a cell of that column, or a line of text, on `line` of the file `path`, stands for.
    ///
    /// # Errors
    /// When the cell is not as the task has it.
    fn input(&self, path: &Path, line: usize, cell: &str) -> Result<String, DataError> {
        let _ = (path, line);
        Ok(cell.to_string())
    }

    /// Whose script scores what a model writes.
    fn scorer(&self) -> Scorer {
        Scorer::WebNlg
    }

    /// What is reported, the most important first.
    fn metric_names(&self) -> &'static [&'static str] {
        self.scorer().metric_names()
    }
}

/// Whose script scores texts: which metrics there are, and on which scales.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scorer {
    /// The E2E challenge's `measure_scores.py`, on its own scales.
    E2e,
    /// The WebNLG 2020 evaluation's, from 0 to 100.
    WebNlg,
    /// The same, for texts that are tokenized already.
    Dart,
}

impl Scorer {
    /// The metrics' names in reports, the most important first. `meteor` is the official program's; without it
    /// `meteor_exact_stem` stands in its place.
    pub fn metric_names(self) -> &'static [&'static str] {
        match self {
            Self::E2e => &["bleu", "nist", "meteor", "rouge_l", "cider"],
            Self::WebNlg | Self::Dart => &["bleu", "sacrebleu", "meteor", "ter", "chrf", "chrf++"],
        }
    }
}

/// What to say of a split that a task does not have.
pub(crate) fn unknown_split(task: &dyn GenerationTask, split: &str) -> DataError {
    DataError::UnknownSplit {
        task: task.name().to_string(),
        split: split.to_string(),
        known: task.splits().into_iter().map(String::from).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bare;

    impl GenerationTask for Bare {
        fn name(&self) -> &str {
            "bare"
        }
        fn read(&self, _: &Path, split: &str) -> Result<Vec<Record>, DataError> {
            Err(unknown_split(self, split))
        }
    }

    #[test]
    fn a_task_needs_two_methods_and_works_as_an_object() {
        let task: Box<dyn GenerationTask> = Box::new(Bare);
        assert_eq!(task.splits(), ["train", "dev", "test"]);
        assert_eq!(task.metric_names().first(), Some(&"bleu"));
        let read = task.read_noting(Path::new(""), "all", &mut |_| ());
        assert_eq!(
            read.map_err(|error| error.to_string()),
            Err("task bare has no split `all`, expected one of `train`, `dev`, `test`".to_string())
        );
    }
}

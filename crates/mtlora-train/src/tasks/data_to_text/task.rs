use std::path::Path;

use super::record::Record;
use crate::data::error::DataError;
use crate::tasks::task::TaskData;

/// A data-to-text task, for which a model writes a text about an input.
///
/// [`E2e`](super::E2e), [`WebNlg`](super::WebNlg), [`Dart`](super::Dart), [the user's own pairs](super::PairsTask) and
/// [`Facts`](crate::facts::Facts) are built in. [`read`](TaskData::read) returns the distinct inputs of a split in the
/// order in which they first appear: at least one record, each with at least one reference. A task defined elsewhere
/// needs a name and a way to read its records; everything else has defaults:
///
/// ```
/// use std::path::Path;
///
/// use mtlora_train::{DataError, TaskData};
/// use mtlora_train::data_to_text::{GenerationTask, Record};
///
/// struct Shout;
///
/// impl TaskData for Shout {
///     type Item = Record;
///
///     fn name(&self) -> &str {
///         "shout"
///     }
///
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
///
///     fn test_split(&self) -> Option<&str> {
///         Some("test")
///     }
/// }
///
/// impl GenerationTask for Shout {}
/// ```
pub trait GenerationTask: TaskData<Item = Record> {
    /// The column of a table that holds this task's inputs.
    fn input_column(&self) -> &str {
        "prompt"
    }

    /// Converts a cell of that column, or a line of text, to the input that the model reads. The cell is on `line` of
    /// the file `path`.
    ///
    /// # Errors
    /// When the cell does not have the task's format.
    fn input(&self, path: &Path, line: usize, cell: &str) -> Result<String, DataError> {
        let _ = (path, line);
        Ok(cell.to_string())
    }

    /// The evaluation script that scores the written texts.
    fn scorer(&self) -> Scorer {
        Scorer::WebNlg
    }

    /// The reported metrics, the most important first.
    fn metric_names(&self) -> &'static [&'static str] {
        self.scorer().metric_names()
    }
}

/// The evaluation script whose scores are computed. It determines the metrics and their scales.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scorer {
    /// The E2E challenge's `measure_scores.py`, on its own scales.
    E2e,
    /// The WebNLG 2020 evaluation, with scores from 0 to 100.
    WebNlg,
    /// The WebNLG 2020 evaluation for texts that are already tokenized.
    Dart,
}

impl Scorer {
    /// The names of the metrics in reports, the most important first. `meteor` needs the official program; without it,
    /// `meteor_exact_stem` is computed instead.
    pub fn metric_names(self) -> &'static [&'static str] {
        match self {
            Self::E2e => &["bleu", "nist", "meteor", "rouge_l", "cider"],
            Self::WebNlg | Self::Dart => &["bleu", "sacrebleu", "meteor", "ter", "chrf", "chrf++"],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::task::unknown_split;

    struct Bare;

    impl TaskData for Bare {
        type Item = Record;

        fn name(&self) -> &str {
            "bare"
        }

        fn read(&self, _: &Path, split: &str) -> Result<Vec<Record>, DataError> {
            Err(unknown_split(self, split))
        }

        fn test_split(&self) -> Option<&str> {
            Some("test")
        }
    }

    impl GenerationTask for Bare {}

    #[test]
    fn a_task_needs_two_methods_and_works_as_an_object() {
        let task: Box<dyn GenerationTask> = Box::new(Bare);
        assert_eq!(task.splits(), ["train", "dev", "test"]);
        assert_eq!(task.metric_names().first(), Some(&"bleu"));
        let read = task.read_noting(Path::new(""), "all", &mut |_| ());
        assert_eq!(
            read.map_err(|error| error.to_string()),
            Err("task bare has no split `all`; its splits are `train`, `dev`, `test`".to_string())
        );
    }
}

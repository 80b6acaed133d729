use std::path::Path;

use crate::data::error::DataError;
use crate::data::example::{Example, Objective};
use crate::metrics::labels::MetricName;
use crate::tasks::glue::{self, GlueTask};
use crate::tasks::task::{Task, TaskData, TextColumns, unknown_split};

/// The acceptability task, with the files that [`write_tsv`](super::write_tsv) writes. It has CoLA's format and classes.
#[derive(Clone, Debug)]
pub struct Acceptability {
    cola: GlueTask,
}

impl Acceptability {
    /// The name of the task.
    pub const NAME: &'static str = "acceptability";

    /// Creates the task.
    pub fn new() -> Self {
        Self { cola: glue::cola() }
    }
}

impl Default for Acceptability {
    fn default() -> Self {
        Self::new()
    }
}

impl TaskData for Acceptability {
    type Item = Example;

    fn name(&self) -> &str {
        Self::NAME
    }

    fn read(&self, data: &Path, split: &str) -> Result<Vec<Example>, DataError> {
        if !self.splits().contains(&split) {
            return Err(unknown_split(self, split));
        }
        self.cola.read(data, split).map_err(|error| match error {
            // CoLA's own hint names GLUE's folders, which this task does not have.
            DataError::NotFound { .. } => DataError::NotFound {
                path: data.join(format!("{split}.tsv")),
                hint: "name the folder with the task's train.tsv and dev.tsv, such as assets/acceptability in the repository".into(),
            },
            other => other,
        })
    }

    fn describe(&self) -> &str {
        "is the sentence well formed? made by this project for the first run"
    }
}

impl Task for Acceptability {
    fn objective(&self) -> &Objective {
        self.cola.objective()
    }

    fn metric_names(&self) -> &[MetricName] {
        &[MetricName::Accuracy, MetricName::Matthews]
    }

    fn text_columns(&self) -> Vec<TextColumns<'_>> {
        self.cola.text_columns()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn errors_do_not_speak_of_the_task_whose_format_this_one_has() {
        let folder = tempfile::tempdir().unwrap();
        let error = |split: &str| {
            let error = Acceptability::new().read(folder.path(), split);
            error.unwrap_err().to_string()
        };
        assert_eq!(
            error("test"),
            "task acceptability has no split `test`; its splits are `train`, `dev`"
        );
        let missing = error("dev");
        assert!(missing.contains("dev.tsv: no such file; name the folder"));
        assert!(!missing.contains("CoLA") && !missing.contains("GLUE"));
    }
}

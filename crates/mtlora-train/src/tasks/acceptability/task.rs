use std::path::Path;

use crate::data::error::DataError;
use crate::data::example::{Example, Objective};
use crate::metrics::labels::MetricName;
use crate::tasks::glue::{self, GlueTask};
use crate::tasks::task::{Task, TaskData, TextColumns};

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
        self.cola.read(data, split)
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

use std::path::Path;

use crate::data::error::DataError;
use crate::data::example::{Example, Objective};
use crate::metrics::labels::MetricName;
use crate::tasks::glue::{self, GlueTask};
use crate::tasks::task::{Task, TextColumns};

/// The acceptability task as [`write_tsv`](super::write_tsv) writes it: CoLA's format and classes.
#[derive(Clone, Debug)]
pub struct Acceptability {
    cola: GlueTask,
}

impl Acceptability {
    /// Its name.
    pub const NAME: &'static str = "acceptability";

    /// The task.
    ///
    /// # Errors
    /// None while there is a task `cola`.
    pub fn new() -> Result<Self, DataError> {
        let cola = glue::task("cola")?;
        Ok(Self { cola })
    }
}

impl Task for Acceptability {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn objective(&self) -> &Objective {
        self.cola.objective()
    }

    fn read(&self, data: &Path, split: &str) -> Result<Vec<Example>, DataError> {
        self.cola.read(data, split)
    }

    fn describe(&self) -> &str {
        "is the sentence well formed? made by this project; the first run's"
    }

    fn metric_names(&self) -> &[MetricName] {
        &[MetricName::Accuracy, MetricName::Matthews]
    }

    fn text_columns(&self) -> Vec<TextColumns<'_>> {
        self.cola.text_columns()
    }
}

use std::path::Path;

use crate::error::DataError;
use crate::example::{Example, Objective};
use crate::glue::{self, GlueTask};
use crate::metrics::MetricName;
use crate::task::{Task, TextColumns};

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

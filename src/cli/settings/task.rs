//! Reads the data of tasks, and opens the task of a run.

use std::error::Error;
use std::path::Path;

use mtlora::train::data_to_text::{GenerationTask, Record};
use mtlora::train::registry::open_classification;
use mtlora::train::{
    ClassificationRun, DataError, Example, Objective, RunConfig, Task, with_label_order,
};

/// Reads a split of a data-to-text task, and prints notes about the data to standard error.
pub(crate) fn read_records(
    task: &dyn GenerationTask,
    data: &Path,
    split: &str,
) -> Result<Vec<Record>, DataError> {
    task.read_noting(data, split, &mut |note| note!("{note}"))
}

/// Reads a split, and prints notes about the data to standard error.
pub(crate) fn read(task: &dyn Task, data: &Path, split: &str) -> Result<Vec<Example>, DataError> {
    task.read_noting(data, split, &mut |note| note!("{note}"))
}

/// Opens the task of a run, with the classes in the order of the outputs of the run's head.
pub(crate) fn of_run(
    config: &RunConfig<ClassificationRun>,
) -> Result<Box<dyn Task>, Box<dyn Error>> {
    for_run(&config.data.task, config, &config.data.folder)
}

/// Opens the task `name` with the folder `data`, with the classes in the order of the outputs of the head that the run
/// `config` trained.
pub(crate) fn for_run(
    name: &str,
    config: &RunConfig<ClassificationRun>,
    data: &Path,
) -> Result<Box<dyn Task>, Box<dyn Error>> {
    let task = open_classification(name, config.kind.table.clone(), data)?;
    let labels = config.kind.head.objective.labels();
    let fits = match task.objective() {
        Objective::Regression => labels.is_empty(),
        Objective::Classification { labels: classes } => {
            classes.iter().all(|class| labels.contains(class))
        }
    };
    if !fits {
        return Err(format!(
            "the run was trained on {}, whose labels are not those of {name}",
            config.data.task
        )
        .into());
    }
    match task.objective() {
        Objective::Regression => Ok(task),
        Objective::Classification { .. } => Ok(with_label_order(task, labels)?),
    }
}

/// The columns that hold the texts of a run's task.
pub(crate) struct OwnedColumns {
    pub(crate) text: String,
    /// The column with the second text, if the task is about pairs.
    pub(crate) pair: Option<String>,
}

/// The text columns of a run's task, one entry for each layout that its files have; empty if the task is unknown.
pub(crate) fn text_columns(config: &RunConfig<ClassificationRun>) -> Vec<OwnedColumns> {
    let Ok(task) = open_classification(
        &config.data.task,
        config.kind.table.clone(),
        &config.data.folder,
    ) else {
        return Vec::new();
    };
    let columns = task.text_columns().into_iter();
    columns
        .map(|columns| OwnedColumns {
            text: columns.text.to_string(),
            pair: columns.pair.map(str::to_string),
        })
        .collect()
}

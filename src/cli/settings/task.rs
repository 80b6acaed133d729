//! Finds tasks by their names.

use std::error::Error;
use std::path::Path;

use mtlora::train::acceptability::Acceptability;
use mtlora::train::data_to_text::{
    Dart, E2e, GenerationTask, PairsConfig, PairsTask, Record, WebNlg,
};
use mtlora::train::facts::Facts;
use mtlora::train::{
    ClassificationRun, DataError, Example, Objective, RunConfig, TableConfig, TableTask, Task,
    glue, with_label_order,
};

/// The name of the task whose examples are the rows of the user's own table.
pub(crate) const TABLE: &str = "table";
/// The name of the data-to-text task whose records are the user's own.
pub(crate) const PAIRS: &str = "pairs";

/// The data-to-text tasks that are built in.
pub(crate) fn generation_tasks() -> Vec<Box<dyn GenerationTask>> {
    vec![
        Box::new(E2e),
        Box::new(WebNlg),
        Box::new(Dart),
        Box::new(Facts),
    ]
}

/// The data-to-text task of that name, if there is one. `pairs` names the columns of the user's own pairs.
pub(crate) fn find_generation(
    name: &str,
    pairs: Option<PairsConfig>,
) -> Result<Option<Box<dyn GenerationTask>>, DataError> {
    if name == PAIRS {
        let task = PairsTask::new(name, pairs.unwrap_or_default())?;
        return Ok(Some(Box::new(task)));
    }
    let mut all = generation_tasks().into_iter();
    Ok(all.find(|task| task.name() == name))
}

/// Reads a split of a data-to-text task; notes for the user go to standard error.
pub(crate) fn read_records(
    task: &dyn GenerationTask,
    data: &Path,
    split: &str,
) -> Result<Vec<Record>, DataError> {
    task.read_noting(data, split, &mut |note| note!("{note}"))
}

/// Checks that a task of that name exists and asks for labels or numbers.
///
/// # Errors
/// If it does not: lists the names of all tasks.
pub(crate) fn check_name(name: &str) -> Result<(), DataError> {
    match name {
        TABLE | Acceptability::NAME => Ok(()),
        _ => built_in(name).map(|_| ()),
    }
}

/// A task of GLUE's; the error lists the names of all tasks.
fn built_in(name: &str) -> Result<glue::GlueTask, DataError> {
    glue::task(name).map_err(|error| match error {
        DataError::UnknownTask { name, mut known } => {
            known.extend([Acceptability::NAME, TABLE].map(str::to_string));
            let generation = generation_tasks();
            known.extend(generation.iter().map(|task| task.name().to_string()));
            known.push(PAIRS.to_string());
            DataError::UnknownTask { name, known }
        }
        other => other,
    })
}

/// The task of that name. `table` names the columns of the user's own table.
pub(crate) fn find(
    name: &str,
    table: Option<TableConfig>,
    data: &Path,
) -> Result<Box<dyn Task>, DataError> {
    match name {
        TABLE => Ok(Box::new(TableTask::open(
            name,
            table.unwrap_or_default(),
            data,
        )?)),
        Acceptability::NAME => Ok(Box::new(Acceptability::new()?)),
        _ => Ok(Box::new(built_in(name)?)),
    }
}

/// Reads a split; notes for the user go to standard error.
pub(crate) fn read(task: &dyn Task, data: &Path, split: &str) -> Result<Vec<Example>, DataError> {
    task.read_noting(data, split, &mut |note| note!("{note}"))
}

/// The task of a run, with its classes in the order of the outputs of the run's head.
pub(crate) fn of_run(
    config: &RunConfig<ClassificationRun>,
) -> Result<Box<dyn Task>, Box<dyn Error>> {
    for_run(&config.data.task, config, &config.data.folder)
}

/// The task of that name with the data in the folder `data`, and its classes in the order of the outputs of the run's
/// head.
pub(crate) fn for_run(
    name: &str,
    config: &RunConfig<ClassificationRun>,
    data: &Path,
) -> Result<Box<dyn Task>, Box<dyn Error>> {
    let task = find(name, config.kind.table.clone(), data)?;
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

/// The columns that the texts of a run's task are in.
pub(crate) struct OwnedColumns {
    pub(crate) text: String,
    /// The column with the second text, if the task is about pairs.
    pub(crate) pair: Option<String>,
}

/// The columns of a run's task, in each layout that its files have; nothing if this program does not know the task.
pub(crate) fn text_columns(config: &RunConfig<ClassificationRun>) -> Vec<OwnedColumns> {
    let Ok(task) = find(
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

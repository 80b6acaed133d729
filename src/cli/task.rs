//! From a name to a task.

use std::path::Path;

use mtlora::train::acceptability::Acceptability;
use mtlora::train::{DataError, Example, TableConfig, TableTask, Task, glue};

/// The name of the task whose examples are the rows of the user's own table.
pub(crate) const TABLE: &str = "table";

/// The task of that name; a table's columns are those of `table`.
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
        _ => Ok(Box::new(glue::task(name)?)),
    }
}

/// Reads a split; what the user should know of it goes to standard error.
pub(crate) fn read(task: &dyn Task, data: &Path, split: &str) -> Result<Vec<Example>, DataError> {
    task.read_noting(data, split, &mut |note| eprintln!("{note}"))
}

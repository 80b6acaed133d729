//! The registry of all tasks by name. A new task is a file of its own and one line in [`all`].

use std::path::Path;

use crate::data::error::DataError;
use crate::tasks::acceptability::Acceptability;
use crate::tasks::chat::ChatTask;
use crate::tasks::data_to_text::{Dart, E2e, GenerationTask, PairsConfig, PairsTask, WebNlg};
use crate::tasks::facts::Facts;
use crate::tasks::glue;
use crate::tasks::table::{TableConfig, TableTask};
use crate::tasks::task::{Task, TaskData};

/// A task of the registry.
pub struct TaskEntry(Source);

enum Source {
    Classification(Box<dyn Task>),
    /// The user's own table of examples.
    Table,
    Generation(Box<dyn GenerationTask>),
    /// The user's own pairs of prompts and completions.
    Pairs,
    /// The user's own conversations.
    Chat,
}

/// All tasks, in the order in which they are listed.
pub fn all() -> Vec<TaskEntry> {
    let mut entries = vec![TaskEntry::classification(Acceptability::new())];
    entries.extend(glue::tasks().into_iter().map(TaskEntry::classification));
    entries.extend([
        TaskEntry(Source::Table),
        TaskEntry::generation(E2e),
        TaskEntry::generation(WebNlg),
        TaskEntry::generation(Dart),
        TaskEntry::generation(Facts),
        TaskEntry(Source::Pairs),
        TaskEntry(Source::Chat),
    ]);
    entries
}

/// The task of that name. The names of GLUE's tasks are found as [`glue::task`] finds them.
///
/// # Errors
/// [`DataError::UnknownTask`], which lists the names of all tasks.
pub fn find(name: &str) -> Result<TaskEntry, DataError> {
    let glue = glue::task(name).ok();
    let entries = all();
    let known: Vec<String> = entries.iter().map(|entry| entry.name().into()).collect();
    entries
        .into_iter()
        .find(|entry| entry.name() == name)
        .or_else(|| glue.map(TaskEntry::classification))
        .ok_or_else(|| DataError::UnknownTask {
            name: name.to_string(),
            known,
        })
}

/// Opens the task of that name, which must predict labels or numbers.
///
/// `table` describes the columns of the user's own table in the folder `data`; other tasks ignore both.
///
/// # Errors
/// If no task of that name predicts labels or numbers, and the errors of [`TableTask::open`].
pub fn open_classification(
    name: &str,
    table: Option<TableConfig>,
    data: &Path,
) -> Result<Box<dyn Task>, DataError> {
    match find(name)?.0 {
        Source::Classification(task) => Ok(task),
        Source::Table => Ok(Box::new(TableTask::open(
            name,
            table.unwrap_or_default(),
            data,
        )?)),
        Source::Generation(_) | Source::Pairs | Source::Chat => Err(DataError::UnknownTask {
            name: name.to_string(),
            known: all()
                .iter()
                .filter(|entry| !entry.is_generation() && !entry.is_chat())
                .map(|entry| entry.name().to_string())
                .collect(),
        }),
    }
}

/// Opens the data-to-text task of that name, or returns `None` if there is none.
///
/// `pairs` describes the columns of the user's own pairs; other tasks ignore it.
///
/// # Errors
/// The errors of [`PairsTask::new`].
pub fn open_generation(
    name: &str,
    pairs: Option<PairsConfig>,
) -> Result<Option<Box<dyn GenerationTask>>, DataError> {
    match find(name).map(|entry| entry.0) {
        Ok(Source::Generation(task)) => Ok(Some(task)),
        Ok(Source::Pairs) => {
            let task = PairsTask::new(name, pairs.unwrap_or_default())?;
            Ok(Some(Box::new(task)))
        }
        Ok(Source::Classification(_) | Source::Table | Source::Chat) | Err(_) => Ok(None),
    }
}

impl TaskEntry {
    fn classification(task: impl Task + 'static) -> Self {
        Self(Source::Classification(Box::new(task)))
    }

    fn generation(task: impl GenerationTask + 'static) -> Self {
        Self(Source::Generation(Box::new(task)))
    }

    /// The name on the command line.
    pub fn name(&self) -> &str {
        match &self.0 {
            Source::Classification(task) => task.name(),
            Source::Table => TableTask::NAME,
            Source::Generation(task) => task.name(),
            Source::Pairs => PairsTask::NAME,
            Source::Chat => ChatTask::NAME,
        }
    }

    /// A description in one line.
    pub fn describe(&self) -> &str {
        match &self.0 {
            Source::Classification(task) => task.describe(),
            Source::Generation(task) => task.describe(),
            Source::Table | Source::Pairs => "your own CSV, TSV or JSONL",
            Source::Chat => ChatTask.describe(),
        }
    }

    /// Whether the task is a data-to-text task. Other tasks predict labels or numbers.
    pub fn is_generation(&self) -> bool {
        matches!(self.0, Source::Generation(_) | Source::Pairs)
    }

    /// Whether the task is about conversations.
    pub fn is_chat(&self) -> bool {
        matches!(self.0, Source::Chat)
    }

    /// The reported metrics, the most important first. Empty for the user's own data, where they depend on the
    /// settings.
    pub fn metric_names(&self) -> Vec<&'static str> {
        match &self.0 {
            Source::Classification(task) => task
                .metric_names()
                .iter()
                .map(|metric| metric.as_str())
                .collect(),
            Source::Generation(task) => task.metric_names().to_vec(),
            Source::Chat => ["loss", "perplexity", "token_accuracy"].to_vec(),
            Source::Table | Source::Pairs => Vec::new(),
        }
    }

    /// The settings that name the columns of the user's own data; empty for other tasks.
    pub fn column_settings(&self) -> &'static [&'static str] {
        match &self.0 {
            Source::Table => &["text_column", "pair_column", "label_column"],
            Source::Pairs => &["prompt_column", "completion_column"],
            Source::Classification(_) | Source::Generation(_) | Source::Chat => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_distinct_and_every_task_is_found_by_its_name() {
        let entries = all();
        let names: BTreeSet<&str> = entries.iter().map(TaskEntry::name).collect();
        assert_eq!(names.len(), entries.len());
        for entry in &entries {
            let found = find(entry.name()).unwrap();
            assert_eq!(found.name(), entry.name());
            assert!(!entry.describe().is_empty(), "{}", entry.name());
            let generation = open_generation(entry.name(), None).unwrap();
            assert_eq!(generation.is_some(), entry.is_generation());
        }
        assert_eq!(find("SST-2").unwrap().name(), "sst2");
    }

    #[test]
    fn an_unknown_name_lists_the_tasks_that_there_are() {
        let error = find("squad").err().unwrap().to_string();
        assert!(error.starts_with("unknown task `squad`"), "{error}");
        for entry in all() {
            assert!(error.contains(&format!("`{}`", entry.name())), "{error}");
        }
        let error = open_classification("e2e", None, Path::new("")).err();
        let error = error.unwrap().to_string();
        assert!(
            error.contains("`cola`") && !error.contains("`dart`"),
            "{error}"
        );
    }
}

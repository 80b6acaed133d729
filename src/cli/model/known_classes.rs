//! The classes of a table without a train split. Where there is one, they are read from it; a trained model knows them, too.

use std::error::Error;
use std::path::Path;

use mtlora::models::PeftAdapter;
use mtlora::train::{
    BaseSpec, ClassificationRun, DataError, DataSpec, HeadSpec, RunConfig, SaveOptions,
    TableConfig, TableTask, Task, is_unnamed, ordered_classes, registry, settings_of,
};

use crate::cli::hub;
use crate::cli::model::device;
use crate::cli::model::head::{Head, HeadOf};
use crate::cli::model::plain;
use crate::cli::settings::defaults::Defaults;
use crate::cli::settings::flags::Settings;
use crate::cli::text::encoding;

/// Opens the table in `data` with the classes of the model that `model` names, or with those that the user `given`. `missing` is
/// the error of looking for the train split.
///
/// # Errors
/// `missing` if the model does not name its classes, and the errors of reading the model's folder.
pub(crate) fn of_model(
    table: TableConfig,
    data: &Path,
    (model, given): (&Path, Option<&[String]>),
    missing: DataError,
) -> Result<Box<dyn Task>, Box<dyn Error>> {
    let known = match given {
        Some(given) => Some(given.to_vec()),
        None => named(Head::find(HeadOf::Model, &plain::find(model)?)?.labels),
    };
    let known = known.ok_or_else(|| unnamed(&missing))?;
    Ok(open(table, data, known)?)
}

/// The configuration of a run on a table without a train split that could have trained the adapter in `folder`: the classes are
/// those that the user named, or those of the adapter's head. `missing` is the error of looking for the train split.
///
/// # Errors
/// `missing` if nothing names the classes, and the errors of reading the folders.
pub(crate) fn of_adapter(
    folder: &Path,
    adapter: &PeftAdapter,
    settings: &Settings,
    missing: &DataError,
) -> Result<RunConfig<ClassificationRun>, Box<dyn Error>> {
    let (Some(model), Some(data)) = (&settings.model, &settings.data) else {
        return Err(missing.to_string().into());
    };
    let data = data.canonicalize().unwrap_or_else(|_| data.clone());
    let model = hub::model(model, None, |_| Ok(()))?;
    let head = Head::find(HeadOf::Adapter(folder, adapter), &model)?;
    let given = settings.labels.clone();
    let known = given.or_else(|| named(head.labels.clone()));
    let known = known.ok_or_else(|| unnamed(missing))?;
    let task = open(settings.table(), &data, known)?;
    let task = head.fit(task, settings.labels.as_deref())?;
    let defaults = Defaults::classification();
    let max_length = match settings.max_length {
        Some(length) => length,
        None => encoding::default_length(&model, defaults.max_length)?,
    };
    Ok(RunConfig {
        device: device::name_or_default(settings.device.as_deref())?,
        base: BaseSpec {
            model,
            max_length,
            adapter: settings_of(&adapter.config),
        },
        data: DataSpec::new(TableTask::NAME, data),
        training: defaults.training,
        checkpoints: SaveOptions::default(),
        kind: ClassificationRun {
            head: HeadSpec {
                fresh: head.fresh,
                objective: task.objective().clone(),
            },
            table: Some(settings.table().with_classes_of(task.as_ref())),
        },
    })
}

/// Opens the table with these classes, in the order that they would have if they were read from a train split.
fn open(table: TableConfig, data: &Path, classes: Vec<String>) -> Result<Box<dyn Task>, DataError> {
    let labels = Some(ordered_classes(classes));
    registry::open_classification(TableTask::NAME, Some(TableConfig { labels, ..table }), data)
}

/// The names of outputs, if they are names of several classes.
fn named(outputs: Option<Vec<String>>) -> Option<Vec<String>> {
    outputs.filter(|names| names.len() > 1 && !is_unnamed(names))
}

/// The error that nothing names the classes.
fn unnamed(missing: &DataError) -> String {
    format!(
        "{missing}. The model does not name its classes, so they are read from that file. Add it, or name them in the order of \
         the model's outputs: --labels A,B,..."
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::PathBuf;

    use super::*;

    fn all(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn classes_have_the_order_that_a_train_split_would_give_them() {
        let task = open(
            TableConfig::default(),
            Path::new("nowhere"),
            all(&["ok", "bad"]),
        );
        assert_eq!(task.unwrap().objective().labels(), all(&["bad", "ok"]));
    }

    #[test]
    fn outputs_without_names_are_no_classes() {
        assert_eq!(named(Some(all(&["LABEL_0", "LABEL_1"]))), None);
        assert_eq!(named(Some(all(&["score"]))), None);
        assert_eq!(named(Some(all(&["a", "b"]))), Some(all(&["a", "b"])));
        let missing = DataError::NotFound {
            path: PathBuf::from("train.csv"),
            hint: "put it there".to_string(),
        };
        let message = unnamed(&missing);
        assert!(message.starts_with("train.csv: no such file"), "{message}");
        assert!(message.contains("--labels"), "{message}");
    }
}

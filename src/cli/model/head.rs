//! Finds the classification head that a run starts with, and the class that each of its outputs means.

use std::error::Error;
use std::path::{Path, PathBuf};

use mtlora::models::{ClassifierConfig, ClassifierModelConfig, PeftAdapter, SequenceClassifier};
use mtlora::train::{LabelError, Run, RunKind, Task, align_to_head, is_unnamed};

use crate::cli::model::label_file;

/// The source of the head that a run starts with.
#[derive(Clone, Copy)]
pub(crate) enum HeadOf<'a> {
    /// The base model's head, if it has one.
    Model,
    /// The base model's head, if it has one, with a new output layer.
    Fresh,
    /// The adapter's head, or the base model's if the adapter has none.
    Adapter(&'a Path, &'a PeftAdapter),
}

/// The outputs of a head, and whether it replaces the base model's own output layer.
pub(crate) struct Head {
    /// The folder of the head, for error messages.
    folder: PathBuf,
    /// The names of the outputs; `None` if the output layer is new.
    pub(crate) labels: Option<Vec<String>>,
    /// Whether the base model's own output layer is not used.
    pub(crate) fresh: bool,
}

impl Head {
    /// Finds the head that `of` names, for the base model in `model`.
    pub(crate) fn find(of: HeadOf<'_>, model: &Path) -> Result<Self, Box<dyn Error>> {
        let config = ClassifierConfig::from_folder(model)?;
        let own = SequenceClassifier::head_outputs(model, &config)?;
        let named = |outputs: usize| output_names(config.labels(), outputs);
        Ok(match of {
            HeadOf::Fresh => Self {
                folder: model.to_path_buf(),
                labels: None,
                fresh: true,
            },
            HeadOf::Adapter(folder, adapter) if adapter.num_labels().is_some() => {
                let outputs = adapter.num_labels().unwrap_or_default();
                let names = adapter_labels(folder, outputs)?;
                Self {
                    folder: folder.to_path_buf(),
                    labels: Some(names.unwrap_or_else(|| named(outputs))),
                    // The adapter's head replaces the base model's.
                    fresh: own.is_some_and(|own| own != outputs),
                }
            }
            HeadOf::Model | HeadOf::Adapter(..) => {
                if let HeadOf::Adapter(folder, _) = of
                    && own.is_none()
                {
                    note!(
                        "neither the adapter in {} nor its base model has a classification head: the head's values are \
                         random, and so is what it predicts",
                        folder.display()
                    );
                }
                // Names for another number of outputs do not belong to this head.
                if let Some(outputs) = own
                    && outputs != config.labels().len()
                    && !is_unnamed(config.labels())
                {
                    return Err(format!(
                        "{}: config.json names {} labels ({}), but the classification head has {outputs} outputs: \
                         correct id2label, or use the model that the file belongs to",
                        model.display(),
                        config.labels().len(),
                        config.labels().join(", ")
                    )
                    .into());
                }
                Self {
                    folder: model.to_path_buf(),
                    labels: own.map(named),
                    fresh: false,
                }
            }
        })
    }

    /// Returns `task` with its classes in the order of the head's outputs. `given` has the classes in that order if
    /// the user named them. Notes for the user go to standard error.
    pub(crate) fn fit(
        &self,
        task: Box<dyn Task>,
        given: Option<&[String]>,
    ) -> Result<Box<dyn Task>, Box<dyn Error>> {
        let fitted = align_to_head(task, self.labels.as_deref(), given);
        let (task, note) = fitted.map_err(|error| match error {
            LabelError::Names { .. } | LabelError::Number { .. } => {
                format!("{}: {error}", self.folder.display())
            }
            about_flags => about_flags.to_string(),
        })?;
        if let Some(note) = note {
            note!("{note}");
        }
        Ok(task)
    }
}

/// The names of a head's outputs: those of the model if there are as many. A base model that was never fine-tuned has
/// names for another number of outputs.
fn output_names(model: &[String], outputs: usize) -> Vec<String> {
    if model.len() == outputs {
        model.to_vec()
    } else {
        (0..outputs).map(|index| format!("LABEL_{index}")).collect()
    }
}

/// The names of the outputs of the head of the adapter in `folder`, which has as many: those of its run, or those that
/// `export` wrote beside it; `None` if neither is there.
pub(crate) fn adapter_labels(folder: &Path, outputs: usize) -> Result<Option<Vec<String>>, String> {
    match run_labels(folder, outputs) {
        None => label_file::read(folder, outputs),
        names => Ok(names),
    }
}

/// The names of the outputs of the run in `folder`; `None` if it is not a run with as many outputs.
fn run_labels(folder: &Path, outputs: usize) -> Option<Vec<String>> {
    if !Run::is_in(folder) {
        return None;
    }
    match Run::open(folder).ok()?.1.kind {
        RunKind::Classification(kind) => {
            let labels = kind.head.objective.labels();
            (labels.len() == outputs).then(|| labels.to_vec())
        }
        RunKind::Generation(_) | RunKind::Chat(_) => None,
    }
}

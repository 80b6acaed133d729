//! A classifier that is used as its folder has it, without a run or an adapter.

use std::error::Error;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use mtlora::models::{
    ClassifierConfig, ClassifierModelConfig, ModelConfig, ModelFamilies, ProblemType,
    SequenceClassifier, TextEncoder,
};
use mtlora::train::{LoadedClassifier, Objective, task_config};

use crate::cli::hub;
use crate::cli::model::head::{Head, HeadOf};
use crate::cli::settings::defaults::Defaults;
use crate::cli::text::encoding;

/// The folder of the classifier that `given` names: a folder, or a name on the Hub.
pub(crate) fn find(given: &Path) -> Result<PathBuf, Box<dyn Error>> {
    hub::model(given, None, |folder| {
        drop(ClassifierConfig::from_folder(folder)?);
        Ok(())
    })
}

/// The folder of the model that `given` names, and what its classification head puts out.
///
/// # Errors
/// If the model generates texts, has no classification head, or one whose outputs are not one class of several or one
/// number.
pub(crate) fn find_with_head(given: &Path) -> Result<(PathBuf, Objective), Box<dyn Error>> {
    let name = given.display();
    let open = |folder: &Path| -> Result<ClassifierConfig, Box<dyn Error>> {
        match ModelFamilies::builtin().open(folder)? {
            ModelConfig::Classifier(config) => Ok(config),
            ModelConfig::Causal(_) => {
                Err(format!("{name}: this model generates texts: use `mtlora generate`").into())
            }
        }
    };
    let folder = hub::model(given, None, |folder| open(folder).map(drop))?;
    let config = open(&folder)?;
    let labels = Head::find(HeadOf::Model, &folder)?.labels.ok_or_else(|| {
        format!(
            "{name}: this model has no classification head, and so nothing to predict with; train one with `mtlora \
             train`, and name its run with --run"
        )
    })?;
    let objective = match (config.problem_type(), labels.len()) {
        (ProblemType::MultiLabelClassification, _) => {
            return Err(format!(
                "{name}: its head gives a text any number of labels (problem_type in config.json), and only heads that \
                 choose one label or give one number can be used"
            )
            .into());
        }
        (_, 1) => Objective::Regression,
        (ProblemType::Regression, outputs) => {
            return Err(format!(
                "{name}: its head gives {outputs} numbers (problem_type in config.json), and only heads that give one \
                 number can be used"
            )
            .into());
        }
        (ProblemType::SingleLabelClassification, _) => Objective::Classification { labels },
    };
    Ok((folder, objective))
}

/// Loads the classifier in `folder` with a head for `objective`. Texts are cut to `max_length` tokens, or else to the
/// usual length. A note says which values the folder lacks.
pub(crate) fn load(
    folder: &Path,
    objective: &Objective,
    max_length: Option<usize>,
    device: &Device,
) -> Result<LoadedClassifier, Box<dyn Error>> {
    let config = task_config(&ClassifierConfig::from_folder(folder)?, objective)?;
    let max_length = match max_length {
        Some(length) => length,
        None => encoding::default_length(folder, Defaults::classification().max_length)?,
    };
    let text = TextEncoder::from_folder(folder, &config, max_length)?;
    let (model, fresh) = SequenceClassifier::from_folder(folder, &config, 0, device)?;
    if !fresh.is_empty() {
        note!(
            "the model's folder lacks {}: their values are random, and so are the results",
            fresh.join(", ")
        );
    }
    Ok(LoadedClassifier {
        model,
        config,
        text,
    })
}

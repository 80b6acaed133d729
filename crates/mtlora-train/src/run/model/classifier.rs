//! An encoder with a classification head.

use burn::tensor::Device;
use mtlora_models::{
    ClassifierConfig, ClassifierModelConfig, ClassifierOptions, ModelError, ProblemType,
    SequenceClassifier, TextEncoder,
};
use serde::{Deserialize, Serialize};

use crate::data::example::Objective;
use crate::run::error::RunError;
use crate::run::model::base::{BaseSpec, Loaded, ModelSpec, Started};

/// A classifier with its configuration and its tokenizer.
pub type LoadedClassifier = Loaded<SequenceClassifier, ClassifierConfig, TextEncoder>;

/// A classification head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadSpec {
    /// Whether the output layer starts with new values although the base model has one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fresh: bool,
    /// The outputs of the head.
    pub objective: Objective,
}

/// An encoder with a classification head and an adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassifierSpec {
    /// The encoder and the adapter.
    pub base: BaseSpec,
    /// The head.
    pub head: HeadSpec,
    /// The seed of new values of the head and the adapter.
    pub seed: u64,
}

impl ModelSpec for ClassifierSpec {
    type Model = SequenceClassifier;
    type Config = ClassifierConfig;
    type Text = TextEncoder;

    fn base(&self) -> &BaseSpec {
        &self.base
    }

    fn seed(&self) -> u64 {
        self.seed
    }

    fn read_base(
        &self,
        device: &Device,
    ) -> Result<Started<SequenceClassifier, ClassifierConfig, TextEncoder>, RunError> {
        let folder = &self.base.model;
        let config = task_config(
            &ClassifierConfig::from_folder(folder)?,
            &self.head.objective,
        )?;
        let text = TextEncoder::from_folder(folder, &config, self.base.max_length)?;
        let options = ClassifierOptions {
            base_dtype: self.base.adapter.base_dtype_to_read(),
            seed: self.seed,
            fresh_head: self.head.fresh,
        };
        let (model, missing) =
            SequenceClassifier::from_folder_with(options, folder, &config, device)?;
        let loaded = Loaded {
            model,
            config,
            text,
        };
        Ok(Started { loaded, missing })
    }

    fn has_base_of(&self, other: &Self) -> bool {
        let dtype = |spec: &Self| spec.base.adapter.base_dtype_to_read();
        self.base.model == other.base.model
            && self.base.max_length == other.base.max_length
            && self.head == other.head
            && dtype(self) == dtype(other)
    }

    fn copy_base(
        &self,
        base: &Started<SequenceClassifier, ClassifierConfig, TextEncoder>,
    ) -> Result<Started<SequenceClassifier, ClassifierConfig, TextEncoder>, RunError> {
        let Loaded {
            model,
            config,
            text,
        } = &base.loaded;
        let model = model.clone().renewed(&base.missing, config, self.seed)?;
        Ok(Started {
            loaded: Loaded {
                model,
                config: config.clone(),
                text: text.clone(),
            },
            missing: base.missing.clone(),
        })
    }

    fn modules_to_save(&self, missing: &[String]) -> Vec<&'static str> {
        let mut modules = vec!["classifier"];
        // BERT's pooler is trained if the base model lacks it.
        if missing.iter().any(|name| name.contains(".pooler.")) {
            modules.push("pooler");
        }
        modules
    }

    fn for_inference(&self, model: SequenceClassifier) -> SequenceClassifier {
        model
    }
}

/// Returns `config` with a head for `objective`.
///
/// # Errors
/// If there are too many labels.
pub fn task_config(
    config: &dyn ClassifierModelConfig,
    objective: &Objective,
) -> Result<ClassifierConfig, ModelError> {
    match objective {
        Objective::Classification { labels } => {
            config.with_labels(labels.clone(), ProblemType::SingleLabelClassification)
        }
        Objective::Regression => {
            config.with_labels(vec!["LABEL_0".to_string()], ProblemType::Regression)
        }
    }
}

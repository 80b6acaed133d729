//! Encoders with a classification or regression head, whatever their family.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use mtlora_core::BaseDtype;

use super::boxed::{BoxedModule, Exposes};
use super::config_handle::ConfigHandle;
use super::head::problem_type::ProblemType;
use super::operations::OperationCounter;
use super::text_config::TextConfig;
use crate::error::ModelError;
use crate::files::checkpoint::Checkpoint;
use crate::files::stored_dtype::StoredDtype;
use crate::files::weights::{self, CheckpointLayout};
use crate::packed_batch::PackedBatch;

/// What the paths of a head's parameters begin with, in every family; all other weights are the base model's.
const HEAD: &str = "classifier.";

/// The forward pass of an encoder with a head, as its family defines it.
pub trait ClassifierModel {
    /// Logits: `[sequences, labels]`.
    fn logits(&self, batch: &PackedBatch) -> Tensor<2>;

    /// Gives the model a head with `labels` outputs, whose values are zero.
    fn replace_head(&mut self, labels: usize, device: &Device);
}

/// The configuration of an encoder with a head, as its family defines it. The paths of the head's parameters begin with
/// `classifier.`.
pub trait ClassifierModelConfig: TextConfig + CheckpointLayout + fmt::Debug + Send + Sync {
    /// The names of the head's outputs; never empty.
    fn labels(&self) -> &[String];

    /// What the head predicts.
    fn problem_type(&self) -> ProblemType;

    /// The same encoder with a head for `labels` (for regression: one name).
    ///
    /// # Errors
    /// No labels, or more than 100,000.
    fn with_labels(
        &self,
        labels: Vec<String>,
        problem_type: ProblemType,
    ) -> Result<ClassifierConfig, ModelError>;

    /// A model whose values are all zero.
    fn empty(&self, device: &Device) -> SequenceClassifier;

    /// The paths of the head's last layer, the weight first.
    fn output_layer(&self) -> &[&'static str];

    /// Whether a checkpoint may lack the tensor of this name: the head's, mostly.
    fn is_optional(&self, name: &str) -> bool;

    /// Counts the operations of the forward pass on sequences of these lengths.
    fn count_operations(&self, counter: &mut dyn OperationCounter, lengths: &[usize]);

    /// Outputs of the head.
    fn num_labels(&self) -> usize {
        self.labels().len()
    }
}

/// The configuration of an encoder with a head, of any family.
pub type ClassifierConfig = ConfigHandle<dyn ClassifierModelConfig>;

impl ClassifierConfig {
    /// A handle on a family's own configuration.
    pub fn of(config: impl ClassifierModelConfig + 'static) -> Self {
        Self::new(Arc::new(config))
    }
}

impl ClassifierModelConfig for ClassifierConfig {
    fn labels(&self) -> &[String] {
        (**self).labels()
    }

    fn problem_type(&self) -> ProblemType {
        (**self).problem_type()
    }

    fn with_labels(
        &self,
        labels: Vec<String>,
        problem_type: ProblemType,
    ) -> Result<ClassifierConfig, ModelError> {
        (**self).with_labels(labels, problem_type)
    }

    fn empty(&self, device: &Device) -> SequenceClassifier {
        (**self).empty(device)
    }

    fn output_layer(&self) -> &[&'static str] {
        (**self).output_layer()
    }

    fn is_optional(&self, name: &str) -> bool {
        (**self).is_optional(name)
    }

    fn count_operations(&self, counter: &mut dyn OperationCounter, lengths: &[usize]) {
        (**self).count_operations(counter, lengths);
    }
}

/// How [`SequenceClassifier::from_folder_with`] reads a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassifierOptions {
    /// The precision of the encoder's weights.
    pub base_dtype: BaseDtype,
    /// The seed of what starts with random values.
    pub seed: u64,
    /// Start the head's output layer with random values even where the checkpoint has one, as `transformers` does
    /// with `ignore_mismatched_sizes`. RoBERTa's hidden layer before it keeps its values.
    pub fresh_head: bool,
}

/// An encoder of any family with a classification or regression head.
pub type SequenceClassifier = BoxedModule<dyn ClassifierModel>;

impl<M: ClassifierModel + 'static> Exposes<dyn ClassifierModel> for M {
    fn exposed(&self) -> &(dyn ClassifierModel + 'static) {
        self
    }

    fn exposed_mut(&mut self) -> &mut (dyn ClassifierModel + 'static) {
        self
    }
}

impl SequenceClassifier {
    /// A model with random weights, as before any pre-training.
    ///
    /// # Errors
    /// Never, with a configuration that was read or made.
    pub fn fresh(
        config: &dyn ClassifierModelConfig,
        seed: u64,
        device: &Device,
    ) -> Result<Self, ModelError> {
        Self::fresh_in(BaseDtype::F32, config, seed, device)
    }

    /// As [`fresh`](Self::fresh), with the encoder's weights frozen and kept in `base_dtype`; each is
    /// converted when it is made.
    ///
    /// # Errors
    /// When the device does not have that precision.
    pub fn fresh_in(
        base_dtype: BaseDtype,
        config: &dyn ClassifierModelConfig,
        seed: u64,
        device: &Device,
    ) -> Result<Self, ModelError> {
        base_dtype.check(device)?;
        weights::fresh(config.empty(device), config, seed, encoder_in(base_dtype))
    }

    /// Reads the model of a Hugging Face folder. A head (and BERT's pooler) that the checkpoint lacks starts with
    /// random values from `seed`; the names of those tensors come back with the model.
    ///
    /// # Errors
    /// When tensors are missing, unexpected or of another shape, with their names.
    pub fn from_folder(
        folder: &Path,
        config: &dyn ClassifierModelConfig,
        seed: u64,
        device: &Device,
    ) -> Result<(Self, Vec<String>), ModelError> {
        let options = ClassifierOptions {
            seed,
            ..ClassifierOptions::default()
        };
        Self::from_folder_with(options, folder, config, device)
    }

    /// As [`from_folder`](Self::from_folder), with the encoder's precision and the head's first values as `options`
    /// say. Weights of the encoder that the checkpoint has are frozen if they are kept in less than 32 bits; each is
    /// converted when it is read, so that the model is never held in 32 bits.
    ///
    /// # Errors
    /// As [`from_folder`](Self::from_folder), or when the device does not have that precision.
    pub fn from_folder_with(
        options: ClassifierOptions,
        folder: &Path,
        config: &dyn ClassifierModelConfig,
        device: &Device,
    ) -> Result<(Self, Vec<String>), ModelError> {
        options.base_dtype.check(device)?;
        let mut checkpoint = Checkpoint::open(folder)?;
        if options.fresh_head {
            let paths = config.output_layer().iter();
            let names: Vec<String> = paths.map(|path| config.stored_name(path)).collect();
            checkpoint.exclude(|name| names.iter().any(|output| output == name));
        } else if let Some(found) = outputs_of(&checkpoint, config)
            && found != config.num_labels()
        {
            return Err(ModelError::HeadSize {
                folder: folder.to_path_buf(),
                found,
                wanted: config.num_labels(),
            });
        }
        let model = config.empty(device);
        let optional = |name: &str| config.is_optional(name);
        let dtype = encoder_in(options.base_dtype);
        weights::read(model, &checkpoint, config, options.seed, optional, dtype)
    }

    /// The model with new random values from `seed` for the tensors in `names`, which are those that
    /// [`from_folder_with`](Self::from_folder_with) named. It is then as if it had been read with this seed.
    ///
    /// # Errors
    /// Never, with a configuration and names that belong to the model.
    pub fn renewed(
        self,
        names: &[String],
        config: &dyn ClassifierModelConfig,
        seed: u64,
    ) -> Result<Self, ModelError> {
        weights::renew(self, names, config, seed)
    }

    /// The number of outputs of the classification head that a model folder has, if its checkpoint has such a head.
    ///
    /// # Errors
    /// When the folder has no checkpoint that can be read.
    pub fn head_outputs(
        folder: &Path,
        config: &dyn ClassifierModelConfig,
    ) -> Result<Option<usize>, ModelError> {
        Ok(outputs_of(&Checkpoint::open(folder)?, config))
    }

    /// The model with a head for the labels of `config`, whose values are zero: for an adapter that brings a head of
    /// its own.
    pub fn with_head(mut self, config: &dyn ClassifierModelConfig, device: &Device) -> Self {
        self.model_mut().replace_head(config.num_labels(), device);
        self
    }

    /// Writes `model.safetensors` and `config.json` into `folder`, adapters folded in. The folder is made if it does not exist.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn save(self, folder: &Path, config: &dyn ClassifierModelConfig) -> Result<(), ModelError> {
        self.save_in(StoredDtype::F32, folder, config)
    }

    /// As [`save`](Self::save), with the weights in this precision, each rounded when it is written.
    ///
    /// # Errors
    /// As [`save`](Self::save), or when a value is too large for the precision.
    pub fn save_in(
        self,
        dtype: StoredDtype,
        folder: &Path,
        config: &dyn ClassifierModelConfig,
    ) -> Result<(), ModelError> {
        weights::write(&self.materialize(), dtype, folder, config)
    }

    /// Logits: `[sequences, labels]`.
    pub fn forward(&self, batch: &PackedBatch) -> Tensor<2> {
        self.model().logits(batch)
    }
}

/// The outputs of the head in a checkpoint, if it has one.
fn outputs_of(checkpoint: &Checkpoint, config: &dyn ClassifierModelConfig) -> Option<usize> {
    let weight = config.output_layer().first()?;
    let shape = checkpoint.shape(&config.stored_name(weight))?;
    shape.first().copied()
}

/// The precision of a parameter by its path: the head stays in 32 bits.
fn encoder_in(base_dtype: BaseDtype) -> impl Fn(&str) -> BaseDtype {
    move |path| {
        if path.starts_with(HEAD) {
            BaseDtype::F32
        } else {
            base_dtype
        }
    }
}

use std::path::Path;

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Linear};
use burn::tensor::activation::tanh;
use burn::tensor::{Device, Tensor};
use mtlora_core::{BaseDtype, adapted_linear, dropout};

use crate::error::ModelError;
use crate::families::encoder::config::{Architecture, EncoderConfig};
use crate::families::encoder::model::{Encoder, Pooler};
use crate::files::checkpoint::Checkpoint;
use crate::files::weights::{self, CheckpointLayout};
use crate::layers::weights::zero_linear;
use crate::packed_batch::PackedBatch;

/// The head of `RobertaForSequenceClassification` or `BertForSequenceClassification`.
#[derive(Module, Debug)]
pub struct ClassificationHead {
    /// RoBERTa's hidden map, with tanh behind it. BERT has its pooler in the encoder.
    pub dense: Option<Linear>,
    /// To the labels: `[hidden, labels]`.
    pub out_proj: Linear,
    /// Before each map.
    pub dropout: Dropout,
}

impl ClassificationHead {
    fn empty(config: &EncoderConfig, device: &Device) -> Self {
        let hidden = config.hidden_size;
        let dense = config.architecture == Architecture::Roberta;
        Self {
            dense: dense.then(|| zero_linear(hidden, hidden, device)),
            out_proj: zero_linear(hidden, config.num_labels(), device),
            dropout: DropoutConfig::new(config.head_dropout()).init(),
        }
    }

    fn forward(&self, first: Tensor<2>) -> Tensor<2> {
        let mut x = dropout(&self.dropout, first);
        if let Some(dense) = &self.dense {
            x = dropout(&self.dropout, tanh(adapted_linear(dense, x)));
        }
        adapted_linear(&self.out_proj, x)
    }
}

/// The head's last layer, as Burn's paths name it.
const OUTPUT_LAYER: [&str; 2] = ["classifier.out_proj.weight", "classifier.out_proj.bias"];

/// The outputs of the head in a checkpoint, if it has one.
fn outputs_of(checkpoint: &Checkpoint, config: &EncoderConfig) -> Option<usize> {
    let shape = checkpoint.shape(&config.stored_name(OUTPUT_LAYER[0]))?;
    shape.first().copied()
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

/// An encoder with a classification or regression head.
#[derive(Module, Debug)]
pub struct SequenceClassifier {
    /// `roberta` or `bert` in the checkpoint.
    pub base: Encoder,
    /// The head.
    pub classifier: ClassificationHead,
}

impl SequenceClassifier {
    /// A model with random weights, as before any pre-training: Gaussian with the configuration's
    /// `initializer_range`, biases zero.
    pub fn fresh(config: &EncoderConfig, seed: u64, device: &Device) -> Result<Self, ModelError> {
        Self::fresh_in(BaseDtype::F32, config, seed, device)
    }

    /// As [`fresh`](Self::fresh), with the encoder's weights frozen and kept in `base_dtype`; each is
    /// converted when it is made.
    ///
    /// # Errors
    /// When the device does not have that precision.
    pub fn fresh_in(
        base_dtype: BaseDtype,
        config: &EncoderConfig,
        seed: u64,
        device: &Device,
    ) -> Result<Self, ModelError> {
        base_dtype.check(device)?;
        let model = Self::empty(config, device);
        weights::fresh(model, config, seed, Self::encoder_in(base_dtype))
    }

    /// Reads the model of a Hugging Face folder. A head (and BERT's pooler) that the checkpoint
    /// lacks starts anew from `seed`; the names of those tensors come back with the model.
    ///
    /// # Errors
    /// When tensors are missing, unexpected or of another shape, with their names.
    pub fn from_folder(
        folder: &Path,
        config: &EncoderConfig,
        seed: u64,
        device: &Device,
    ) -> Result<(Self, Vec<String>), ModelError> {
        let options = ClassifierOptions {
            seed,
            ..ClassifierOptions::default()
        };
        Self::from_folder_with(options, folder, config, device)
    }

    /// As [`from_folder`](Self::from_folder), with the encoder's precision and the head's beginning as `options` say.
    /// Weights of the encoder that the checkpoint has are frozen if they are kept in less than 32 bits; each is
    /// converted when it is read, so that the model is never there in 32 bits.
    ///
    /// # Errors
    /// As [`from_folder`](Self::from_folder), or when the device does not have that precision.
    pub fn from_folder_with(
        options: ClassifierOptions,
        folder: &Path,
        config: &EncoderConfig,
        device: &Device,
    ) -> Result<(Self, Vec<String>), ModelError> {
        options.base_dtype.check(device)?;
        let mut checkpoint = Checkpoint::open(folder)?;
        let outputs = OUTPUT_LAYER.map(|path| config.stored_name(path));
        if options.fresh_head {
            checkpoint.exclude(|name| outputs.iter().any(|output| output == name));
        } else if let Some(found) = outputs_of(&checkpoint, config)
            && found != config.num_labels()
        {
            return Err(ModelError::HeadSize {
                folder: folder.to_path_buf(),
                found,
                wanted: config.num_labels(),
            });
        }
        let model = Self::empty(config, device);
        let optional = |name: &str| name.starts_with("classifier.") || name.contains(".pooler.");
        let dtype = Self::encoder_in(options.base_dtype);
        weights::read(model, &checkpoint, config, options.seed, optional, dtype)
    }

    /// The outputs of the classification head that a model folder has; none if its checkpoint has no such head.
    ///
    /// # Errors
    /// When the folder has no checkpoint that can be read.
    pub fn head_outputs(
        folder: &Path,
        config: &EncoderConfig,
    ) -> Result<Option<usize>, ModelError> {
        Ok(outputs_of(&Checkpoint::open(folder)?, config))
    }

    /// The precision of a parameter by its path.
    fn encoder_in(base_dtype: BaseDtype) -> impl Fn(&str) -> BaseDtype {
        move |path| match path.starts_with("base.") {
            true => base_dtype,
            false => BaseDtype::F32,
        }
    }

    /// The model with a head for the labels of `config`, whose values are zero: for what brings a head
    /// of its own.
    pub fn with_head(mut self, config: &EncoderConfig, device: &Device) -> Self {
        self.classifier = ClassificationHead::empty(config, device);
        self
    }

    /// Writes `model.safetensors` and `config.json` into `folder`, adapters folded in.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn save(self, folder: &Path, config: &EncoderConfig) -> Result<(), ModelError> {
        weights::write(self.materialize(), folder, config)
    }

    /// Logits: `[sequences, labels]`.
    pub fn forward(&self, strip: &PackedBatch) -> Tensor<2> {
        let first = self.base.first_tokens(strip);
        let pooled = match &self.base.pooler {
            Some(pooler) => pooler.forward(first),
            None => first,
        };
        self.classifier.forward(pooled)
    }

    fn empty(config: &EncoderConfig, device: &Device) -> Self {
        let mut base = Encoder::new(config, device);
        if config.architecture == Architecture::Bert {
            base.pooler = Some(Pooler::new(config, device));
        }
        Self {
            base,
            classifier: ClassificationHead::empty(config, device),
        }
    }
}

use std::path::Path;

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Linear};
use burn::tensor::activation::tanh;
use burn::tensor::{Device, Tensor};
use mtlora_core::{BaseDtype, adapted_linear, dropout};

use crate::checkpoint::Checkpoint;
use crate::config::{Architecture, EncoderConfig};
use crate::encoder::{Encoder, Pooler, linear};
use crate::error::ModelError;
use crate::strip::Strip;
use crate::weights;

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
            dense: dense.then(|| linear(hidden, hidden, device)),
            out_proj: linear(hidden, config.num_labels(), device),
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
        Self::from_folder_in(BaseDtype::F32, folder, config, seed, device)
    }

    /// As [`from_folder`](Self::from_folder), with what the checkpoint has of the encoder frozen and
    /// kept in `base_dtype`; each weight is converted when it is read, so that the model is never there
    /// in 32 bits.
    ///
    /// # Errors
    /// As [`from_folder`](Self::from_folder), or when the device does not have that precision.
    pub fn from_folder_in(
        base_dtype: BaseDtype,
        folder: &Path,
        config: &EncoderConfig,
        seed: u64,
        device: &Device,
    ) -> Result<(Self, Vec<String>), ModelError> {
        base_dtype.check(device)?;
        let checkpoint = Checkpoint::open(folder)?;
        let model = Self::empty(config, device);
        let optional = |name: &str| name.starts_with("classifier.") || name.contains(".pooler.");
        let dtype = Self::encoder_in(base_dtype);
        weights::read(model, &checkpoint, config, seed, optional, dtype)
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
    pub fn forward(&self, strip: &Strip) -> Tensor<2> {
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

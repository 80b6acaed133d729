use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Linear};
use burn::tensor::activation::tanh;
use burn::tensor::{Device, Tensor};
use mtlora_core::{adapted_linear, dropout};

use super::config::EncoderConfig;
use super::model::{Encoder, Pooler};
use crate::families::classifier::ClassifierModel;
use crate::layers::weights::zero_linear;
use crate::packed_batch::PackedBatch;

/// The head of `RobertaForSequenceClassification` (and those of XLM-RoBERTa and CamemBERT) or
/// `BertForSequenceClassification`.
#[derive(Module, Debug)]
pub struct ClassificationHead {
    /// RoBERTa's hidden layer, followed by tanh. BERT uses the pooler of the encoder instead.
    pub dense: Option<Linear>,
    /// The output layer: `[hidden, labels]`.
    pub out_proj: Linear,
    /// Dropout before each linear map.
    pub dropout: Dropout,
}

impl ClassificationHead {
    fn empty(config: &EncoderConfig, device: &Device) -> Self {
        let hidden = config.hidden_size;
        let has_dense = config.architecture.is_roberta();
        Self {
            dense: has_dense.then(|| zero_linear(hidden, hidden, device)),
            out_proj: zero_linear(hidden, config.num_labels(), device),
            dropout: DropoutConfig::new(config.head_dropout()).init(),
        }
    }

    /// A head of the same kind with `labels` outputs, whose values are zero.
    fn with_outputs(&self, labels: usize, device: &Device) -> Self {
        let [hidden, _] = self.out_proj.weight.lazy_shape().dims();
        Self {
            dense: self
                .dense
                .as_ref()
                .map(|_| zero_linear(hidden, hidden, device)),
            out_proj: zero_linear(hidden, labels, device),
            dropout: DropoutConfig::new(self.dropout.prob).init(),
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
pub struct EncoderClassifier {
    /// The encoder, named `roberta` or `bert` in checkpoints.
    pub base: Encoder,
    /// The head.
    pub classifier: ClassificationHead,
}

impl EncoderClassifier {
    /// A model whose values are all zero.
    pub(super) fn empty(config: &EncoderConfig, device: &Device) -> Self {
        let mut base = Encoder::new(config, device);
        if !config.architecture.is_roberta() {
            base.pooler = Some(Pooler::new(config, device));
        }
        Self {
            base,
            classifier: ClassificationHead::empty(config, device),
        }
    }
}

impl ClassifierModel for EncoderClassifier {
    fn logits(&self, batch: &PackedBatch) -> Tensor<2> {
        let first = self.base.first_tokens(batch);
        let pooled = match &self.base.pooler {
            Some(pooler) => pooler.forward(first),
            None => first,
        };
        self.classifier.forward(pooled)
    }

    fn replace_head(&mut self, labels: usize, device: &Device) {
        self.classifier = self.classifier.with_outputs(labels, device);
    }
}

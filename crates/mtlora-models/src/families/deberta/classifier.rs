use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Linear};
use burn::tensor::{Device, Tensor};
use mtlora_core::{ActivationDtype, adapted_linear, dropout};

use super::config::DebertaConfig;
use super::model::DebertaEncoder;
use crate::families::classifier::ClassifierModel;
use crate::layers::activation::Activation;
use crate::layers::weights::zero_linear;
use crate::packed_batch::PackedBatch;

/// `ContextPooler`: dropout, a linear map and an activation function on the first token's hidden state. No published
/// DeBERTa has one, so it is part of the head.
#[derive(Module, Debug)]
pub struct ContextPooler {
    /// `[hidden, hidden]`
    pub dense: Linear,
    /// Dropout before the map.
    pub dropout: Dropout,
    /// The activation function.
    #[module(skip)]
    pub activation: Activation,
}

/// The head of `DebertaV2ForSequenceClassification`.
#[derive(Module, Debug)]
pub struct DebertaHead {
    /// The pooler, named `pooler` in checkpoints.
    pub pooler: ContextPooler,
    /// The output layer, named `classifier` in checkpoints: `[hidden, labels]`.
    pub out_proj: Linear,
    /// Dropout before the output layer.
    pub dropout: Dropout,
}

impl DebertaHead {
    fn empty(config: &DebertaConfig, device: &Device) -> Self {
        let hidden = config.hidden_size;
        Self {
            pooler: ContextPooler {
                dense: zero_linear(hidden, hidden, device),
                dropout: DropoutConfig::new(config.pooler_dropout).init(),
                activation: config.pooler_hidden_act,
            },
            out_proj: zero_linear(hidden, config.labels.len(), device),
            dropout: DropoutConfig::new(config.head_dropout()).init(),
        }
    }

    /// A head of the same kind with `labels` outputs, whose values are zero.
    fn with_outputs(&self, labels: usize, device: &Device) -> Self {
        let [hidden, _] = self.out_proj.weight.lazy_shape().dims();
        Self {
            pooler: ContextPooler {
                dense: zero_linear(hidden, hidden, device),
                dropout: DropoutConfig::new(self.pooler.dropout.prob).init(),
                activation: self.pooler.activation,
            },
            out_proj: zero_linear(hidden, labels, device),
            dropout: DropoutConfig::new(self.dropout.prob).init(),
        }
    }

    fn forward(&self, first: Tensor<2>) -> Tensor<2> {
        let x = dropout(&self.pooler.dropout, first);
        let x = adapted_linear(&self.pooler.dense, x);
        let x = self.pooler.activation.forward(x, ActivationDtype::F32);
        adapted_linear(&self.out_proj, dropout(&self.dropout, x))
    }
}

/// DeBERTa with a classification or regression head.
#[derive(Module, Debug)]
pub struct DebertaClassifier {
    /// The encoder, named `deberta` in checkpoints.
    pub base: DebertaEncoder,
    /// The head.
    pub classifier: DebertaHead,
}

impl DebertaClassifier {
    /// A model whose values are all zero.
    pub(super) fn empty(config: &DebertaConfig, device: &Device) -> Self {
        Self {
            base: DebertaEncoder::new(config, device),
            classifier: DebertaHead::empty(config, device),
        }
    }
}

impl ClassifierModel for DebertaClassifier {
    fn logits(&self, batch: &PackedBatch) -> Tensor<2> {
        self.classifier.forward(self.base.first_tokens(batch))
    }

    fn replace_head(&mut self, labels: usize, device: &Device) {
        self.classifier = self.classifier.with_outputs(labels, device);
    }
}

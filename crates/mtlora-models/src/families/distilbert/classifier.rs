use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Linear};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use mtlora_core::{adapted_linear, dropout};

use super::config::DistilBertConfig;
use super::model::DistilBertEncoder;
use crate::families::classifier::ClassifierModel;
use crate::layers::weights::zero_linear;
use crate::packed_batch::PackedBatch;

/// The head of `DistilBertForSequenceClassification`.
#[derive(Module, Debug)]
pub struct DistilBertHead {
    /// The hidden layer, followed by a ReLU; named `pre_classifier` in checkpoints: `[dim, dim]`.
    pub pre_classifier: Linear,
    /// The output layer, named `classifier` in checkpoints: `[dim, labels]`.
    pub out_proj: Linear,
    /// Dropout before the output layer.
    pub dropout: Dropout,
}

impl DistilBertHead {
    fn empty([dim, labels]: [usize; 2], drop: f64, device: &Device) -> Self {
        Self {
            pre_classifier: zero_linear(dim, dim, device),
            out_proj: zero_linear(dim, labels, device),
            dropout: DropoutConfig::new(drop).init(),
        }
    }

    fn forward(&self, first: Tensor<2>) -> Tensor<2> {
        let x = relu(adapted_linear(&self.pre_classifier, first));
        adapted_linear(&self.out_proj, dropout(&self.dropout, x))
    }
}

/// DistilBERT with a classification or regression head.
#[derive(Module, Debug)]
pub struct DistilBertClassifier {
    /// The encoder, named `distilbert` in checkpoints.
    pub base: DistilBertEncoder,
    /// The head.
    pub classifier: DistilBertHead,
}

impl DistilBertClassifier {
    /// A model whose values are all zero.
    pub(super) fn empty(config: &DistilBertConfig, device: &Device) -> Self {
        let sides = [config.dim, config.labels.len()];
        Self {
            base: DistilBertEncoder::new(config, device),
            classifier: DistilBertHead::empty(sides, config.seq_classif_dropout, device),
        }
    }
}

impl ClassifierModel for DistilBertClassifier {
    fn logits(&self, batch: &PackedBatch) -> Tensor<2> {
        self.classifier.forward(self.base.first_tokens(batch))
    }

    fn replace_head(&mut self, labels: usize, device: &Device) {
        let [dim, _] = self.classifier.out_proj.weight.lazy_shape().dims();
        let drop = self.classifier.dropout.prob;
        self.classifier = DistilBertHead::empty([dim, labels], drop, device);
    }
}

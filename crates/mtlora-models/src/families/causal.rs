//! Causal language models, whatever their family: training, generation, and folders.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorReadError, s};
use mtlora_core::{BaseDtype, read, tied_cross_entropy, tied_logits};

use super::boxed::{BoxedModule, Exposes};
use super::causal_batch::CausalBatch;
use super::config_handle::ConfigHandle;
use super::operations::OperationCounter;
use super::text_config::TextConfig;
use crate::error::ModelError;
use crate::files::checkpoint::Checkpoint;
use crate::files::stored_dtype::StoredDtype;
use crate::files::weights::{self, CheckpointLayout};
use crate::gguf::GgufValue;
use crate::layers::attention_context::{AttentionContext, BatchAttention};
use crate::packed_batch::PackedBatch;

/// The forward pass of a causal language model, as its family defines it. Training runs it over the sequences of a
/// batch, and decoding over new tokens and a key-value cache: the [`AttentionContext`] is all that differs.
pub trait CausalModel {
    /// The embeddings of tokens: `[tokens, hidden]`.
    ///
    /// # Shapes
    /// - `ids`, `positions`: `[tokens]`
    fn embed(&self, ids: Tensor<1, Int>, positions: Tensor<1, Int>) -> Tensor<2>;

    /// How many layers there are.
    fn layers(&self) -> usize;

    /// The layer with this number, from 0: `[tokens, hidden]` to the same. It calls
    /// [`attend`](AttentionContext::attend) once.
    fn layer(
        &self,
        index: usize,
        hidden: Tensor<2>,
        attention: &mut dyn AttentionContext,
    ) -> Tensor<2>;

    /// What comes after the last layer, mostly a norm: `[tokens, hidden]` to the same.
    fn finish(&self, hidden: Tensor<2>) -> Tensor<2>;

    /// The map whose rows hidden states are multiplied with for logits: `[vocab_size, hidden]`.
    fn output_map(&self) -> Tensor<2>;

    /// Whether that map is the token embeddings.
    fn ties_output_map(&self) -> bool;
}

/// The configuration of a causal language model, as its family defines it.
pub trait CausalModelConfig: TextConfig + CheckpointLayout + fmt::Debug + Send + Sync {
    /// The token that ends a text.
    fn end_of_text(&self) -> u32;

    /// A model whose values are all zero, with the parts that `checkpoint` has, if one is to be read into it.
    ///
    /// # Errors
    /// When the checkpoint cannot be read.
    fn empty(
        &self,
        checkpoint: Option<&Checkpoint>,
        device: &Device,
    ) -> Result<CausalLm, ModelError>;

    /// The same configuration for a model whose output map is the token embeddings, or is not.
    fn with_tied_output_map(&self, tied: bool) -> CausalConfig;

    /// Counts the operations from the embeddings to the last layer, over `tokens` tokens and `pairs` of a token and
    /// one that it sees. Returns whether the result depends on something that trains.
    fn count_layers(&self, counter: &mut dyn OperationCounter, tokens: f64, pairs: f64) -> bool;

    /// Counts the operations of the output map, for `rows` tokens.
    fn count_output_map(&self, counter: &mut dyn OperationCounter, rows: f64, tracked: bool);

    /// How llama.cpp has the model in GGUF files; `None` for a family for which that is not known here.
    fn llama_cpp(&self) -> Option<&dyn LlamaCppLayout> {
        None
    }
}

/// How llama.cpp has a model of a family in GGUF files.
pub trait LlamaCppLayout {
    /// llama.cpp's name of the architecture: `general.architecture`.
    fn architecture(&self) -> &'static str;

    /// llama.cpp's name of the tensor that has this name in Hugging Face's files.
    fn tensor_name(&self, name: &str) -> Option<String>;

    /// The width of the heads of the linear map with this name in Hugging Face's files, if its rows are in another order in
    /// llama.cpp's files: there the two coordinates of a rotary position are neighbours, and here they lie half a head
    /// apart.
    fn paired_heads(&self, module: &str) -> Option<usize>;

    /// What a file with the whole model says of it.
    ///
    /// # Errors
    /// What llama.cpp does not have of what the configuration asks for, as the end of a sentence that begins with "this model".
    fn description(&self) -> Result<LlamaCppDescription, String> {
        Err(
            "is of a family whose description in llama.cpp is not known here; merge without --gguf"
                .to_string(),
        )
    }
}

/// What a GGUF file says of a model beside its weights and its tokenizer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LlamaCppDescription {
    /// Fields of the metadata, by their whole names.
    pub fields: Vec<(String, GgufValue)>,
    /// Lists of numbers that llama.cpp keeps as tensors, by their names.
    pub tensors: Vec<(String, Vec<f32>)>,
}

/// The configuration of a causal language model of any family.
pub type CausalConfig = ConfigHandle<dyn CausalModelConfig>;

impl CausalConfig {
    /// A handle on a family's own configuration.
    pub fn of(config: impl CausalModelConfig + 'static) -> Self {
        Self::new(Arc::new(config))
    }
}

impl CausalModelConfig for CausalConfig {
    fn end_of_text(&self) -> u32 {
        (**self).end_of_text()
    }

    fn empty(
        &self,
        checkpoint: Option<&Checkpoint>,
        device: &Device,
    ) -> Result<CausalLm, ModelError> {
        (**self).empty(checkpoint, device)
    }

    fn with_tied_output_map(&self, tied: bool) -> CausalConfig {
        (**self).with_tied_output_map(tied)
    }

    fn count_layers(&self, counter: &mut dyn OperationCounter, tokens: f64, pairs: f64) -> bool {
        (**self).count_layers(counter, tokens, pairs)
    }

    fn count_output_map(&self, counter: &mut dyn OperationCounter, rows: f64, tracked: bool) {
        (**self).count_output_map(counter, rows, tracked);
    }

    fn llama_cpp(&self) -> Option<&dyn LlamaCppLayout> {
        (**self).llama_cpp()
    }
}

/// How many rows of logits are made at a time for [`CausalLm::predicted`].
const PREDICTED_ROWS: usize = 128;

/// What a model predicts for the targets of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Predicted {
    /// The sum of the targets' cross-entropies, in nats.
    pub loss: f64,
    /// How many targets are the token that the model finds the likeliest.
    pub correct: usize,
}

/// A causal language model of any family, with its output map.
pub type CausalLm = BoxedModule<dyn CausalModel>;

impl<M: CausalModel + 'static> Exposes<dyn CausalModel> for M {
    fn exposed(&self) -> &(dyn CausalModel + 'static) {
        self
    }

    fn exposed_mut(&mut self) -> &mut (dyn CausalModel + 'static) {
        self
    }
}

impl CausalLm {
    /// A model with random weights, as before any pre-training.
    ///
    /// # Errors
    /// Never, with a configuration that was read or made.
    pub fn fresh(
        config: &dyn CausalModelConfig,
        seed: u64,
        device: &Device,
    ) -> Result<Self, ModelError> {
        Self::fresh_in(BaseDtype::F32, config, seed, device)
    }

    /// As [`fresh`](Self::fresh), with the weights frozen and kept in `base_dtype`; each is converted
    /// when it is made.
    ///
    /// # Errors
    /// When the device does not have that precision.
    pub fn fresh_in(
        base_dtype: BaseDtype,
        config: &dyn CausalModelConfig,
        seed: u64,
        device: &Device,
    ) -> Result<Self, ModelError> {
        base_dtype.check(device)?;
        let model = config.empty(None, device)?;
        weights::fresh(model, config, seed, |_| base_dtype)
    }

    /// Reads the model of a Hugging Face folder, as transformers 5 does where its tensors are all there. Where the
    /// configuration says that embeddings and output map are one weight, a file may have it by either name. If it has
    /// both names with different values, the model has two weights, whatever the configuration says.
    ///
    /// # Errors
    /// When tensors are missing, unexpected or of another shape, with their names.
    pub fn from_folder(
        folder: &Path,
        config: &dyn CausalModelConfig,
        device: &Device,
    ) -> Result<Self, ModelError> {
        Self::from_folder_in(BaseDtype::F32, folder, config, device)
    }

    /// As [`from_folder`](Self::from_folder), with the weights frozen and kept in `base_dtype`; each is
    /// converted when it is read, so that the model is never held in 32 bits.
    ///
    /// # Errors
    /// As [`from_folder`](Self::from_folder), or when the device does not have that precision.
    pub fn from_folder_in(
        base_dtype: BaseDtype,
        folder: &Path,
        config: &dyn CausalModelConfig,
        device: &Device,
    ) -> Result<Self, ModelError> {
        base_dtype.check(device)?;
        let checkpoint = Checkpoint::open(folder)?;
        let model = config.empty(Some(&checkpoint), device)?;
        let dtype = |_: &str| base_dtype;
        let (model, _) = weights::read(model, &checkpoint, config, 0, |_| false, dtype)?;
        Ok(model)
    }

    /// Writes `model.safetensors` and `config.json` into `folder`, adapters folded in. The folder is made if it does not
    /// exist. The configuration says of the output map what is true of this model.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn save(self, folder: &Path, config: &dyn CausalModelConfig) -> Result<(), ModelError> {
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
        config: &dyn CausalModelConfig,
    ) -> Result<(), ModelError> {
        let config = config.with_tied_output_map(self.model().ties_output_map());
        weights::write(&self.materialize(), dtype, folder, &config)
    }

    /// The hidden states of every token, from which logits are made: `[tokens, hidden]`.
    pub fn hidden(&self, batch: &PackedBatch) -> Tensor<2> {
        let model = self.model();
        let mut attention = BatchAttention::new(&batch.offsets);
        let embedded = model.embed(batch.ids.clone(), batch.positions.clone());
        let hidden = (0..model.layers()).fold(embedded, |hidden, index| {
            model.layer(index, hidden, &mut attention)
        });
        model.finish(hidden)
    }

    /// The embeddings and the hidden states after each layer, the last of them finished (normed), as Hugging Face's
    /// models return them: each `[tokens, hidden]`.
    pub fn hidden_states(&self, batch: &PackedBatch) -> Vec<Tensor<2>> {
        let model = self.model();
        let mut attention = BatchAttention::new(&batch.offsets);
        let mut states = vec![model.embed(batch.ids.clone(), batch.positions.clone())];
        for index in 0..model.layers() {
            states.push(model.layer(index, states[index].clone(), &mut attention));
        }
        if let Some(last) = states.pop() {
            states.push(model.finish(last));
        }
        states
    }

    /// Logits over the vocabulary for every token: `[tokens, vocab_size]`. Training takes [`Self::loss`], which never
    /// holds that many.
    pub fn logits(&self, batch: &PackedBatch) -> Tensor<2> {
        self.vocabulary(self.hidden(batch))
    }

    /// Logits from finished hidden states: `[rows, vocab_size]`.
    pub(super) fn vocabulary(&self, hidden: Tensor<2>) -> Tensor<2> {
        tied_logits(hidden, self.model().output_map())
    }

    /// The sum of the cross-entropies of the batch's targets, with label smoothing: `[1]`.
    pub fn loss(&self, batch: &CausalBatch, label_smoothing: f64) -> Tensor<1> {
        let rows = self.hidden(&batch.packed).select(0, batch.places.clone());
        let targets = batch.targets.clone();
        tied_cross_entropy(rows, self.model().output_map(), targets, label_smoothing)
    }

    /// What the model predicts for the batch's targets: the sum of their cross-entropies, and how many of them are the
    /// likeliest token. The logits are made for a few rows at a time.
    ///
    /// # Errors
    /// What the device says.
    pub fn predicted(&self, batch: &CausalBatch) -> Result<Predicted, TensorReadError> {
        let rows = self.hidden(&batch.packed).select(0, batch.places.clone());
        let mut predicted = Predicted::default();
        for start in (0..batch.count).step_by(PREDICTED_ROWS) {
            let part = start..batch.count.min(start + PREDICTED_ROWS);
            let logits = self.vocabulary(rows.clone().slice(s![part.clone(), ..]));
            let count = part.len();
            let targets = batch.targets.clone().slice(s![part]).reshape([count, 1]);
            let correct = logits.clone().argmax(1).equal(targets.clone()).int().sum();
            let losses = log_softmax(logits, 1).gather(1, targets).sum().neg();
            // Read together. A part has so few rows that their number is exact.
            let read = read(Tensor::cat(vec![losses, correct.float()], 0))?;
            if let [loss, correct] = read[..] {
                predicted.loss += f64::from(loss);
                predicted.correct += correct as usize;
            }
        }
        Ok(predicted)
    }
}

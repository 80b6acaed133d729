//! GPT-2's token embeddings and output map in an adapter: one weight by two names, or two weights.

use std::borrow::Cow;
use std::collections::BTreeMap;

use burn::tensor::TensorData;
use mtlora_core::AdapterValues;

use super::config::PeftType;
use super::error::AdapterError;
use super::peft::{AdaptedModule, PeftAdapter};
use crate::files::weights::transpose;

/// GPT-2's token embeddings, and its output map, which is the same tensor unless the model has two.
pub(super) const TIED: [&str; 2] = ["transformer.wte", "lm_head"];
/// The name of the embeddings in a model without a head.
pub(super) const BARE_EMBEDDINGS: &str = "wte";

/// Advice on how to fold an adapter on one of GPT-2's two names for one weight into its base in Python: PEFT would change
/// the other with it.
pub(super) const UNTIE_AND_MERGE: &str = "in GPT-2 `wte` and `lm_head` are one weight, and merging into one changes the other; in Python, give the base an \
                     output map of its own (`base.lm_head.weight = torch.nn.Parameter(base.lm_head.weight.detach().clone()); \
                     base.config.tie_word_embeddings = False`), merge into that (`PeftModel.from_pretrained(base, \
                     adapter).merge_and_unload().save_pretrained(out)`), copy the base's tokenizer files into that folder and use \
                     it as the model";

/// Advice for an adapter whose file also has a weight of its base. PEFT saves the weights of embeddings so.
pub(super) const KEEP_BASE: &str = "if the vocabulary is the base's, save it with `save_pretrained(out, save_embedding_layers=False)`; else resize \
                         the base's (`base.resize_token_embeddings`), merge the adapter into it in Python \
                         (`PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained(out)`), save the tokenizer \
                         with the new tokens into that folder and use it as the model";

/// The same for GPT-2's embeddings and output map, which must be two weights when PEFT merges.
pub(super) const KEEP_TIED_BASE: &str = "if the vocabulary is the base's, save it with `save_pretrained(out, save_embedding_layers=False)`; else, in \
                              Python, resize the base's (`base.resize_token_embeddings`), give it an output map of its own \
                              (`base.lm_head.weight = torch.nn.Parameter(base.lm_head.weight.detach().clone()); \
                              base.config.tie_word_embeddings = False`), merge into that (`PeftModel.from_pretrained(base, \
                              adapter).merge_and_unload().save_pretrained(out)`), save the tokenizer with the new tokens into that \
                              folder and use it as the model";

impl PeftAdapter {
    /// The modules as they are on a model whose embeddings and output map are one weight (`tied`) or two. One weight
    /// has one adapter, which must be the same on both names. An output map of its own has the embeddings' layout, and
    /// so do its adapter's factors.
    pub(super) fn own_modules(
        &self,
        tied: bool,
    ) -> Result<BTreeMap<&String, Cow<'_, AdaptedModule>>, AdapterError> {
        let [embeddings, output] = TIED;
        let mut own: BTreeMap<&String, Cow<'_, AdaptedModule>> = self
            .modules
            .iter()
            .map(|(name, module)| (name, Cow::Borrowed(module)))
            .collect();
        let on_embeddings = self.modules.get(embeddings);
        let on_output = self.modules.get(output);
        if self.config.peft_type == PeftType::MtLora {
            let either = on_embeddings.or(on_output).is_some();
            if either && self.config.tie_word_embeddings != tied {
                let (theirs, ours) = if tied {
                    ("two weights", "one weight")
                } else {
                    ("one weight", "two weights")
                };
                let message = format!(
                    "its base has {theirs} for `{embeddings}` and `{output}`, and this model has {ours}; use it with \
                     the base that it was trained on"
                );
                return Err(AdapterError::contradiction(&self.path, message));
            }
            return Ok(own);
        }
        if !tied {
            own.retain(|name, _| *name != output);
            if let Some((name, module)) = self.modules.get_key_value(output) {
                own.insert(name, Cow::Owned(mirrored(module)));
            }
            return Ok(own);
        }
        let is_one = match (on_embeddings, on_output) {
            (None, None) => !self.modules.contains_key(BARE_EMBEDDINGS),
            (Some(first), Some(second)) => *second == mirrored(first),
            _ => false,
        };
        if !is_one {
            return Err(AdapterError::unsupported(
                &self.path,
                format!(
                    "an adapter on one of `{embeddings}` and `{output}` that is not on the other"
                ),
                UNTIE_AND_MERGE,
            ));
        }
        own.retain(|name, _| *name != output);
        Ok(own)
    }
}

/// Turns modules that are plain LoRA, as they are on a model here, into those that PEFT has. The output map gets a linear
/// layer's adapter, made from the embeddings' if the two are `tied`.
pub(super) fn as_peft_has_them(modules: &mut BTreeMap<String, AdaptedModule>, tied: bool) {
    let [embeddings, output] = TIED;
    let from = if tied { embeddings } else { output };
    let turned = modules
        .get(from)
        .filter(|module| module.embedding)
        .map(mirrored);
    if let Some(turned) = turned {
        modules.insert(output.to_string(), turned);
    }
}

/// Whether this is the tensor of an output map that is a weight of its own.
pub(super) fn is_output_map(tensor: &str) -> bool {
    tensor.strip_suffix(".weight") == Some(TIED[1])
}

/// The adapter of the same weight seen the other way: as a linear layer's, whose input is hidden states, if this one is
/// an embedding's, whose input is tokens, and the reverse.
pub(super) fn mirrored(module: &AdaptedModule) -> AdaptedModule {
    let turned = |data: &TensorData| {
        let shape = data.shape().to_vec();
        let values: Vec<f32> = data.iter::<f32>().collect();
        let turned = transpose(&values, shape[0], shape[1]);
        TensorData::new(turned, [shape[1], shape[0]])
    };
    AdaptedModule {
        values: AdapterValues {
            a: turned(&module.values.b),
            b: turned(&module.values.a),
            ..module.values.clone()
        },
        embedding: !module.embedding,
    }
}

//! Reading an adapter's tensors.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::TensorData;
use mtlora_core::{AdapterForm, AdapterValues, Factor, FusedProjections, Sizes};

use super::adalora::not_empty;
use super::config::{AdapterConfig, MERGE, PeftType};
use super::error::AdapterError;
use super::keys::{split, without_prefix};
use super::peft::{AdaptedModule, PeftAdapter, reshaped};
use super::select::Candidate;
use super::tied::{KEEP_BASE, KEEP_TIED_BASE, TIED, mirrored};
use crate::error::ModelError;
use crate::files::checkpoint::Checkpoint;
use crate::messages::shown;

/// The tensors of one module in the file.
#[derive(Default)]
struct StoredFactors {
    /// The tensors by the factors' names, each with the factor whose key it has.
    tensors: BTreeMap<&'static str, (&'static Factor, TensorData)>,
    linear: bool,
    embedding: bool,
}

impl PeftAdapter {
    pub(super) fn from_parts(
        config: AdapterConfig,
        config_path: &Path,
        checkpoint: &Checkpoint,
    ) -> Result<Self, AdapterError> {
        let path = checkpoint.path().to_path_buf();
        let mut factors: BTreeMap<String, StoredFactors> = BTreeMap::new();
        let mut saved = BTreeMap::new();
        for key in checkpoint.names() {
            let name = without_prefix(key);
            match split(name) {
                Some(found) => {
                    let own = factors.entry(found.module.to_string()).or_default();
                    own.embedding |= found.embedding;
                    own.linear |= !found.embedding;
                    let mut data = tensor(checkpoint, key)?;
                    if let (true, [length]) = (found.factor.vector, &data.shape()[..]) {
                        let length = *length;
                        data = reshaped(&data, vec![length, 1]);
                    }
                    let stored = (found.factor, data);
                    if own.tensors.insert(found.factor.name, stored).is_some() {
                        let message = format!("tensor {} is there twice", shown(name));
                        return Err(AdapterError::contradiction(&path, message));
                    }
                }
                None => {
                    check_saved(&config, &path, name)?;
                    saved.insert(name.to_string(), tensor(checkpoint, key)?);
                }
            }
        }
        let names: Vec<&str> = factors.keys().map(String::as_str).collect();
        let candidates: Vec<Candidate<'_>> = factors
            .iter()
            .map(|(name, own)| Candidate {
                name,
                linear: own.linear,
            })
            .collect();
        let targets = config.targets(config_path, &candidates)?;
        // With `ensure_weight_tying`, PEFT names only the embeddings and writes the same adapter for the output map.
        let [embeddings, output] = TIED;
        let is_target = |name: &&&str| {
            targets.contains(**name) || (**name == output && targets.contains(embeddings))
        };
        if let Some(stray) = names.iter().find(|name| !is_target(name)) {
            let message = format!(
                "has an adapter for {}, which adapter_config.json does not target",
                shown(stray)
            );
            return Err(AdapterError::contradiction(&path, message));
        }
        let mut ranks = config.ranks_and_alphas(config_path, &names)?;
        if let Some(fields) = &config.adalora {
            for (name, (rank, _)) in names.iter().zip(&mut ranks) {
                *rank = fields.rank(name);
            }
        }
        let mut modules = BTreeMap::new();
        for ((name, own), (rank, alpha)) in factors.into_iter().zip(ranks) {
            let form = AdapterForm {
                fused: fused(&config.fused_projections, &name),
                dropout: config.lora_dropout,
                ..AdapterForm::new(config.method, config.scale(rank, alpha))
            };
            let mut module = own.assemble(form, rank).map_err(|message| {
                AdapterError::contradiction(&path, format!("{}: {message}", shown(&name)))
            })?;
            if config.adalora.is_some() {
                module.values = not_empty(module.values);
            }
            modules.insert(name, module);
        }
        if modules.is_empty() {
            let message = "holds no adapter (no tensor with lora_A in its name)";
            return Err(AdapterError::contradiction(&path, message));
        }
        let mut config = config;
        if config.peft_type != PeftType::MtLora {
            // PEFT has an adapter for each name. On a base with one weight, both names have the same adapter or no adapter.
            let [embeddings, output] = TIED.map(|name| modules.get(name));
            config.tie_word_embeddings = match (embeddings, output) {
                (None, None) => true,
                (Some(embeddings), Some(output)) => *output == mirrored(embeddings),
                _ => false,
            };
        }
        let mut adapter = Self::new(config, modules, saved);
        adapter.path = path;
        Ok(adapter)
    }
}

/// The fused projections of the module of this name.
fn fused(all: &[FusedProjections], name: &str) -> Vec<bool> {
    let means = |fused: &&FusedProjections| {
        let rest = name.strip_suffix(&fused.module);
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    // The longest name is the most specific one.
    let best = all
        .iter()
        .filter(means)
        .max_by_key(|fused| fused.module.len());
    best.map(|fused| fused.adapted.clone()).unwrap_or_default()
}

impl StoredFactors {
    fn assemble(mut self, form: AdapterForm, rank: usize) -> Result<AdaptedModule, String> {
        if self.linear && self.embedding {
            return Err("has factors of a linear layer and of an embedding".to_string());
        }
        let (method, embedding) = (form.method, self.embedding);
        for (name, (stored, _)) in &self.tensors {
            let declared = method.factor(name).map(|factor| factor.key(embedding));
            if declared.is_some_and(|key| key != stored.key(embedding)) {
                let key = stored.key(embedding);
                return Err(format!("{key} is there, with structure {method}"));
            }
        }
        let mut needed = |factor: &Factor| {
            let stored = self.tensors.remove(factor.name);
            stored.map(|(_, data)| data).ok_or(factor.file_name())
        };
        let base = |name: &str| method.factor(name).ok_or(format!("{method} has no {name}"));
        let missing = |name| format!("{name} is missing");
        let a = needed(base("a")?).map_err(missing)?;
        let b = needed(base("b")?).map_err(missing)?;
        let missing = |name| format!("{name} is missing, with structure {method}");
        let mut further = Vec::new();
        for factor in method.further_factors() {
            further.push((factor, needed(factor).map_err(missing)?));
        }
        if let Some((stray, _)) = self.tensors.values().next() {
            let name = stray.file_name();
            return Err(format!("{name} is there, with structure {method}"));
        }
        let total_rank = form.groups().saturating_mul(rank);
        let (rows, columns) = (a.shape().to_vec(), b.shape().to_vec());
        if rows.len() != 2 || columns.len() != 2 || rows[0] != total_rank || columns[1] != rank {
            return Err(format!(
                "its lora_A is {rows:?} and its lora_B {columns:?}, where the rank is {rank}"
            ));
        }
        let sizes = Sizes {
            rank,
            total_rank,
            input: rows[1],
            output: columns[0],
        };
        for (factor, data) in &further {
            let (found, expected) = (data.shape().to_vec(), (factor.shape)(&sizes));
            if found != expected {
                let name = factor.file_name();
                return Err(format!("its {name} is {found:?}, not {expected:?}"));
            }
        }
        let further = further
            .into_iter()
            .map(|(factor, data)| (factor.name, data));
        Ok(AdaptedModule {
            values: AdapterValues {
                a,
                b,
                further: further.collect(),
                form,
            },
            embedding,
        })
    }
}

/// Returns an error if a tensor that is not a factor does not belong to `modules_to_save` either.
fn check_saved(config: &AdapterConfig, path: &Path, name: &str) -> Result<(), AdapterError> {
    let module = name.rsplit_once('.').map_or("", |(module, _)| module);
    let refused = |what: String, hint| Err(AdapterError::unsupported(path, what, hint));
    let merge = MERGE;
    // PEFT saves embeddings and output map whole if it adapts one of them, or if the vocabulary has grown.
    let of_tied = TIED.contains(&module.trim_end_matches(".base_layer"));
    let of_base = || {
        let what = format!("an adapter that brings its base's tensor {}", shown(name));
        refused(what, if of_tied { KEEP_TIED_BASE } else { KEEP_BASE })
    };
    if name.contains(".base_layer.") {
        return of_base();
    }
    if name.contains("lora_") {
        let what = format!("an adapter with the tensor {}", shown(name));
        return refused(what, merge);
    }
    // With `ensure_weight_tying`, PEFT names only the embeddings and writes both.
    let [embeddings, output] = TIED;
    if config.saves(module) || (module == output && config.saves(embeddings)) {
        return Ok(());
    }
    if of_tied || module.ends_with(".word_embeddings") {
        return of_base();
    }
    let message = format!(
        "has the tensor {}, which is not an adapter's and does not belong to `modules_to_save`",
        shown(name)
    );
    Err(AdapterError::contradiction(path, message))
}

fn tensor(checkpoint: &Checkpoint, key: &str) -> Result<TensorData, ModelError> {
    let (shape, values) = checkpoint.read_f32(key)?;
    Ok(TensorData::new(values, shape))
}

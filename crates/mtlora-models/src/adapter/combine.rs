use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mtlora_core::{AdapterValues, Truncation, combine};

use super::config::{AdapterConfig, TargetModules};
use super::error::AdapterError;
use super::peft::{AdaptedModule, PeftAdapter};
use super::tied::{TIED, as_peft_has_them};
use crate::messages::shown;

/// A weighted sum of adapters.
#[derive(Clone, Debug)]
pub struct CombinedAdapter {
    /// The sum, a plain LoRA.
    pub adapter: PeftAdapter,
    /// The part of the sum that each module's adapter leaves out.
    pub truncations: BTreeMap<String, Truncation>,
}

impl PeftAdapter {
    /// Computes the weighted sum of the updates of adapters on one base model, as plain LoRA. Without a `rank` the sum
    /// is exact, and the ranks add up; with one it is the nearest update of that rank in the Frobenius norm.
    ///
    /// A sum of heads would have no meaning: the result has the head of the part number `head`, counted from 0, or no
    /// head.
    ///
    /// # Errors
    /// When there is no part, the rank is 0, or the adapters are not on the same model.
    ///
    /// ```no_run
    /// use std::path::Path;
    /// use mtlora_models::PeftAdapter;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mnli = PeftAdapter::from_folder(Path::new("runs/mnli"))?;
    /// let rte = PeftAdapter::from_folder(Path::new("runs/rte"))?;
    /// let sum = PeftAdapter::combine(&[(0.3, mnli), (0.7, rte)], Some(8), Some(1))?;
    /// for (module, truncation) in &sum.truncations {
    ///     println!("{module}: {:.1} % left out", 100.0 * truncation.relative());
    /// }
    /// sum.adapter.write(Path::new("runs/sum"))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn combine(
        parts: &[(f64, PeftAdapter)],
        rank: Option<usize>,
        head: Option<usize>,
    ) -> Result<CombinedAdapter, AdapterError> {
        let Some((_, first)) = parts.first() else {
            return Err(AdapterError::contradiction(
                Path::new(super::ADAPTER_CONFIG_FILE),
                "there is no adapter to combine",
            ));
        };
        let tied = are_tied(parts.iter().map(|(_, part)| part))?;
        let mut embeddings = Vec::new();
        let mut updates = Vec::with_capacity(parts.len());
        for (weight, part) in parts {
            let mut own: BTreeMap<String, AdapterValues> = BTreeMap::new();
            for (name, module) in part.own_modules(tied)? {
                if module.embedding {
                    embeddings.push(name.clone());
                }
                own.insert(name.clone(), module.values.clone());
            }
            updates.push((*weight, own));
        }
        one_naming(parts.iter().map(|(_, part)| part))?;
        let sum = combine(&updates, rank)?;
        let mut modules: BTreeMap<String, AdaptedModule> = sum
            .adapters
            .into_iter()
            .map(|(name, values)| {
                let embedding = embeddings.contains(&name);
                (name, AdaptedModule { values, embedding })
            })
            .collect();
        as_peft_has_them(&mut modules, tied);
        let headed = head
            .and_then(|index| parts.get(index))
            .map(|(_, part)| part);
        let targets = TargetModules::Names(modules.keys().cloned().collect());
        let config = AdapterConfig {
            task_type: first.config.task_type.clone(),
            base_model_name_or_path: first.config.base_model_name_or_path.clone(),
            fan_in_fan_out: first.config.fan_in_fan_out,
            modules_to_save: headed
                .map_or_else(Vec::new, |part| part.config.modules_to_save.clone()),
            tie_word_embeddings: tied,
            ..AdapterConfig::new(1, 1.0, targets)
        };
        let config = config.describing(&modules);
        let saved = headed.map_or_else(BTreeMap::new, |part| part.saved.clone());
        Ok(CombinedAdapter {
            adapter: PeftAdapter::new(config, modules, saved),
            truncations: sum.truncations,
        })
    }
}

/// Whether the parts' base has one weight for embeddings and output map. True if no part adapts either of them.
fn are_tied<'a>(parts: impl Iterator<Item = &'a PeftAdapter>) -> Result<bool, AdapterError> {
    let adapts = |part: &&PeftAdapter| TIED.iter().any(|name| part.modules.contains_key(*name));
    let mut all = parts
        .filter(adapts)
        .map(|part| part.config.tie_word_embeddings);
    let first = all.next().unwrap_or(true);
    if all.any(|other| other != first) {
        let message =
            "one adapter changes GPT-2's embeddings and output map as one weight, another as two";
        let path = PathBuf::from(super::ADAPTER_WEIGHTS_FILE);
        return Err(AdapterError::contradiction(&path, message));
    }
    Ok(first)
}

/// Returns an error if the modules of one part have a prefix that those of another lack: their sum would look like a
/// sum over more layers.
fn one_naming<'a>(parts: impl Iterator<Item = &'a PeftAdapter>) -> Result<(), AdapterError> {
    let mut by_last: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for part in parts {
        for name in part.modules.keys() {
            let last = name.rsplit('.').next().unwrap_or(name);
            by_last.entry(last).or_default().push(name);
        }
    }
    for names in by_last.values() {
        for one in names {
            let longer = names.iter().find(|other| {
                let rest = other.strip_suffix(*one);
                rest.is_some_and(|rest| rest.ends_with('.'))
            });
            if let Some(longer) = longer {
                let message = format!(
                    "one adapter calls {} what another calls {}: one was trained on a model with a head, one without",
                    shown(longer),
                    shown(one)
                );
                let path = PathBuf::from(super::ADAPTER_WEIGHTS_FILE);
                return Err(AdapterError::contradiction(&path, message));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use burn::tensor::{Device, TensorData, Tolerance};
    use mtlora_core::{AdapterForm, AdapterMethod, Structure};

    use super::*;
    use crate::{CausalLm, Gpt2Config, Gpt2Sizes};

    fn part(names: &[&str], rank: usize, seed: usize, structure: Structure) -> PeftAdapter {
        let pattern = |rows: usize, columns: usize, salt: usize| {
            let values: Vec<f32> = (0..rows * columns)
                .map(|at| ((at * 37 + seed * 11 + salt) % 23) as f32 / 11.5 - 1.0)
                .collect();
            TensorData::new(values, [rows, columns])
        };
        let modules: BTreeMap<String, AdaptedModule> = names
            .iter()
            .map(|name| {
                let values = AdapterValues {
                    a: pattern(rank, 8, 1),
                    b: pattern(8, rank, 2),
                    further: AdapterMethod::from(structure).further(|factor| {
                        pattern(rank, rank, if factor.name == "c" { 3 } else { 4 })
                    }),
                    form: AdapterForm::new(structure, 0.5),
                };
                let embedding = false;
                (name.to_string(), AdaptedModule { values, embedding })
            })
            .collect();
        let targets = TargetModules::Names(names.iter().map(ToString::to_string).collect());
        let config = AdapterConfig::new(1, 1.0, targets).describing(&modules);
        PeftAdapter::new(config, modules, BTreeMap::new())
    }

    fn update(adapter: &PeftAdapter, name: &str) -> TensorData {
        let values = &adapter.modules[name].values;
        values.to_device(&Device::flex()).delta().into_data()
    }

    #[test]
    fn a_sum_survives_its_folder_with_ranks_that_differ() {
        let parts = [
            (
                0.5,
                part(&["h.0.query", "h.0.value"], 2, 1, Structure::Dtsm),
            ),
            (-2.0, part(&["h.0.query"], 3, 2, Structure::Lora)),
        ];
        let sum = PeftAdapter::combine(&parts, None, None).unwrap();
        let folder = tempfile::tempdir().unwrap();
        sum.adapter.write(folder.path()).unwrap();
        let read = PeftAdapter::from_folder(folder.path()).unwrap();
        assert_eq!(read.modules, sum.adapter.modules);
        assert_eq!(read.modules["h.0.query"].values.rank(), 5);
        assert_eq!(read.modules["h.0.value"].values.rank(), 2);
        assert_eq!(read.config.method, Structure::Lora);
        let expected: Vec<f32> = update(&parts[0].1, "h.0.query")
            .iter::<f32>()
            .zip(update(&parts[1].1, "h.0.query").iter::<f32>())
            .map(|(one, other)| 0.5 * one - 2.0 * other)
            .collect();
        update(&read, "h.0.query").assert_approx_eq::<f32>(
            &TensorData::new(expected, [8, 8]),
            Tolerance::absolute(1e-5),
        );

        let small = PeftAdapter::combine(&parts, Some(1), None).unwrap();
        assert_eq!(small.adapter.config.r, 1);
        assert!(small.truncations["h.0.query"].relative() > 0.0);
    }

    #[test]
    fn heads_are_taken_from_one_part() {
        let mut parts = [1, 2].map(|seed| (1.0, part(&["q"], 1, seed, Structure::Shim)));
        for (at, (_, part)) in parts.iter_mut().enumerate() {
            part.config.modules_to_save = vec!["classifier".into()];
            let head = TensorData::from([[at as f32]]);
            part.saved.insert("classifier.weight".into(), head);
        }
        let sum = PeftAdapter::combine(&parts, None, Some(1)).unwrap();
        assert_eq!(sum.adapter.saved, parts[1].1.saved);
        assert_eq!(sum.adapter.config.modules_to_save, ["classifier"]);
        let sum = PeftAdapter::combine(&parts, None, None).unwrap();
        assert!(sum.adapter.saved.is_empty() && sum.adapter.config.modules_to_save.is_empty());
    }

    #[test]
    fn adapters_of_different_models_are_refused() {
        let parts =
            |names: [&str; 2]| names.map(|name| (1.0, part(&[name], 1, 1, Structure::Lora)));
        let refused = |names, rank| {
            let error = PeftAdapter::combine(&parts(names), rank, None).unwrap_err();
            error.to_string()
        };
        let text = refused(["roberta.layer.0.query", "layer.0.query"], None);
        assert!(text.contains("with a head"), "{text}");
        let text = refused(["q", "q"], Some(0));
        assert!(text.contains("the adapter of q"), "{text}");
        assert!(PeftAdapter::combine(&[], None, None).is_err());
    }

    #[test]
    fn an_adapter_on_tied_embeddings_stays_on_both_and_fits_the_model() {
        let config = Gpt2Config::new(Gpt2Sizes {
            vocab_size: 8,
            n_embd: 8,
            n_layer: 1,
            n_head: 2,
            n_positions: 8,
            end_of_text: 7,
        })
        .unwrap();
        let model = CausalLm::fresh(&config, 0, &Device::flex()).unwrap();
        let mut own = part(&["transformer.wte"], 2, 3, Structure::Shim);
        own.modules.get_mut("transformer.wte").unwrap().embedding = true;
        own.config = own.config.describing(&own.modules);
        let sum = PeftAdapter::combine(&[(1.0, own.clone()), (1.0, own)], None, None).unwrap();
        assert_eq!(sum.adapter.modules.len(), 2);
        assert!(sum.adapter.attach(model, &config, &[]).is_ok());
    }
}

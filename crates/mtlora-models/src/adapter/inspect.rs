use std::collections::BTreeMap;

use mtlora_core::{AdapterValues, Inspection, inspect};

use super::error::AdapterError;
use super::peft::PeftAdapter;
use crate::error::ModelError;
use crate::files::checkpoint::Checkpoint;

impl PeftAdapter {
    /// Describes what the adapter has learned, by Hugging Face's names, and compares it with the norms of the adapted
    /// weights if `base`, the model's checkpoint, is given.
    ///
    /// # Errors
    /// When factors do not fit each other, a value is not finite, or `base` cannot be read.
    ///
    /// ```no_run
    /// use std::path::Path;
    /// use mtlora_models::{Checkpoint, PeftAdapter};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let base = Checkpoint::open(Path::new("roberta-base"))?;
    /// let found = PeftAdapter::from_folder(Path::new("runs/mrpc"))?.inspect(Some(&base))?;
    /// for layer in &found.layers {
    ///     println!("{}: effective rank {:.2}", layer.path, layer.spectrum.update.effective_rank);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn inspect(&self, base: Option<&Checkpoint>) -> Result<Inspection, AdapterError> {
        let adapters: BTreeMap<String, AdapterValues> = self
            .modules
            .iter()
            .map(|(name, module)| (name.clone(), module.values.clone()))
            .collect();
        let norms = match base {
            Some(base) => norms(base, adapters.keys())?,
            None => BTreeMap::new(),
        };
        Ok(inspect(&adapters, &norms)?)
    }
}

/// The Frobenius norms of those modules' weights that the checkpoint has. Names may differ by a prefix, which models
/// with a head have and models without a head lack.
fn norms<'a>(
    base: &Checkpoint,
    modules: impl Iterator<Item = &'a String>,
) -> Result<BTreeMap<String, f64>, ModelError> {
    let mut norms = BTreeMap::new();
    for module in modules {
        let wanted = format!("{module}.weight");
        let ends = |whole: &str, end: &str| {
            let rest = whole.strip_suffix(end);
            rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        let exact = base.contains(&wanted).then_some(wanted.as_str());
        let alike = || {
            base.names()
                .filter(|name| ends(name, &wanted) || ends(&wanted, name))
                .max_by_key(|name| name.len())
        };
        if let Some(name) = exact.or_else(alike) {
            let (_, values) = base.read_f32(name)?;
            let squares: f64 = values.iter().map(|value| f64::from(*value).powi(2)).sum();
            norms.insert(module.clone(), squares.sqrt());
        }
    }
    Ok(norms)
}

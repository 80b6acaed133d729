//! Reads a base model once for several trainings.

use burn::tensor::Device;

use crate::run::error::RunError;
use crate::run::model::base::{ModelSpec, StartedFor};

/// The base model that was read last, for further trainings on it. What they do not change is in memory once.
pub struct KeptBase<S: ModelSpec> {
    kept: Option<Kept<S>>,
}

struct Kept<S: ModelSpec> {
    spec: S,
    device: String,
    base: StartedFor<S>,
}

impl<S: ModelSpec> Default for KeptBase<S> {
    fn default() -> Self {
        Self { kept: None }
    }
}

impl<S: ModelSpec + Clone> KeptBase<S> {
    /// As [`ModelSpec::start`], with the same values, but reads the base model only if it is not the one that was read
    /// last. `name` is the name of `device`.
    ///
    /// # Errors
    /// Those of [`ModelSpec::start`].
    pub fn start(
        &mut self,
        spec: &S,
        name: &str,
        device: &Device,
    ) -> Result<StartedFor<S>, RunError> {
        let fits = |kept: &Kept<S>| kept.device == name && spec.has_base_of(&kept.spec);
        if let Some(kept) = self.kept.as_ref().filter(|kept| fits(kept)) {
            return spec.prepare(spec.copy_base(&kept.base)?);
        }
        // Two base models are never in memory at once.
        self.kept = None;
        let base = spec.read_base(device)?;
        let copy = spec.copy_base(&base)?;
        self.kept = Some(Kept {
            spec: spec.clone(),
            device: name.to_string(),
            base,
        });
        spec.prepare(copy)
    }

    /// Forgets the base model.
    pub fn forget(&mut self) {
        self.kept = None;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use mtlora_core::state;

    use super::*;
    use crate::data::example::Objective;
    use crate::run::model::adapter_settings::AdapterSettings;
    use crate::run::model::base::BaseSpec;
    use crate::run::model::classifier::{ClassifierSpec, HeadSpec};

    #[test]
    fn a_kept_base_gives_the_values_of_one_that_is_read_again() {
        let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets");
        let labels = ["a", "b", "c"].map(str::to_string).to_vec();
        let spec = |seed| ClassifierSpec {
            base: BaseSpec {
                model: assets.join("tiny-roberta"),
                max_length: 32,
                adapter: AdapterSettings {
                    targets: Some("query".to_string()),
                    ..AdapterSettings::default()
                },
            },
            head: HeadSpec {
                fresh: false,
                objective: Objective::Classification {
                    labels: labels.clone(),
                },
            },
            seed,
        };
        let device = Device::flex().autodiff();
        let mut kept = KeptBase::default();
        for seed in [1, 2, 1] {
            let own = spec(seed).start(&device).unwrap();
            let copy = kept.start(&spec(seed), "flex", &device).unwrap();
            assert_eq!(own.missing, copy.missing);
            assert!(!own.missing.is_empty());
            let values = |model| state(model, |_, _| true);
            assert_eq!(values(&own.loaded.model), values(&copy.loaded.model));
        }
    }
}

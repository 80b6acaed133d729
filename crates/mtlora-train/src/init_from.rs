//! Starting from the adapter of another run.

use std::path::{Path, PathBuf};

use burn::module::Module;
use mtlora_core::{State, load_state, state};
use serde::Deserialize;

use crate::adapter_settings::{AdapterSettings, MethodName};
use crate::run::Run;
use crate::trainer::TrainError;

/// What the path of every factor has in it.
const ADAPTER: &str = ".mtlora.";

/// Why a run cannot start from another's adapter.
#[derive(Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum InitFromError {
    /// The other run trained something else.
    #[error(
        "{}: was trained with method {method} and has no adapter; start from a run with method mtlora",
        .from.display()
    )]
    NoAdapter {
        /// The other run's folder.
        from: PathBuf,
        /// What it trained.
        method: MethodName,
    },
    /// This run trains something else.
    #[error("method {method} has no adapter that could start from another's; choose method mtlora")]
    NoAdapterHere {
        /// What it trains.
        method: MethodName,
    },
    /// The adapters are of different kinds.
    #[error(
        "{}: its adapter has {field} {theirs}, this run's has {ours}; choose {field} {theirs}, or start from a run \
         with {field} {ours}",
        .from.display()
    )]
    Differs {
        /// The other run's folder.
        from: PathBuf,
        /// The setting.
        field: &'static str,
        /// The other run's.
        theirs: String,
        /// This run's.
        ours: String,
    },
    /// One has an adapter where the other has none.
    #[error(
        "{}: {} `{path}`{}, {}; both need the same targets, and base models with the same layers",
        .from.display(),
        if *.theirs { "has" } else { "has no" },
        match .more { 0 => String::new(), more => format!(" (and {more} more)") },
        if *.theirs { "which this run has not" } else { "which this run has" }
    )]
    Place {
        /// The other run's folder.
        from: PathBuf,
        /// Whether it is the other run that has it.
        theirs: bool,
        /// The first such factor.
        path: String,
        /// How many others there are.
        more: usize,
    },
    /// A factor has another shape.
    #[error(
        "{}: `{path}` has shape {theirs:?}, in this run {ours:?}; both need base models of one width, and the same \
         projections adapted",
        .from.display()
    )]
    Shape {
        /// The other run's folder.
        from: PathBuf,
        /// The factor.
        path: String,
        /// The other run's shape.
        theirs: Vec<usize>,
        /// This run's shape.
        ours: Vec<usize>,
    },
}

/// Of a run's configuration, what both kinds of runs have.
#[derive(Deserialize)]
struct WithAdapter {
    adapter: AdapterSettings,
}

/// `model`, whose adapter is made as `settings` say, with the factors (`A`, `B`, `C`, `D`; not the
/// head) of the run that they name in `init_from`; as it is, if they name none. The scale stays its
/// own.
///
/// # Errors
/// When that is no run with an adapter, or not each factor of one adapter has its place in the
/// other.
pub fn init_from<M: Module>(model: M, settings: &AdapterSettings) -> Result<M, TrainError> {
    let Some(from) = &settings.init_from else {
        return Ok(model);
    };
    if settings.method != MethodName::MtLora {
        let method = settings.method;
        return Err(InitFromError::NoAdapterHere { method }.into());
    }
    let (run, WithAdapter { adapter: theirs }) = Run::open(from)?;
    if theirs.method != MethodName::MtLora {
        return Err(InitFromError::NoAdapter {
            from: from.to_path_buf(),
            method: theirs.method,
        }
        .into());
    }
    let fields = [
        (
            "structure",
            theirs.structure.to_string(),
            settings.structure.to_string(),
        ),
        ("rank", theirs.rank.to_string(), settings.rank.to_string()),
    ];
    for (field, theirs, ours) in fields {
        if theirs != ours {
            return Err(InitFromError::Differs {
                from: from.to_path_buf(),
                field,
                theirs,
                ours,
            }
            .into());
        }
    }
    let mut values = run.values()?;
    values.retain(|path, _| path.contains(ADAPTER));
    load_adapter(model, values, from)
}

/// `model` with `values`, which are the factors of the run in `from`, in its adapter.
fn load_adapter<M: Module>(model: M, values: State, from: &Path) -> Result<M, TrainError> {
    let own = state(&model, |path, _| path.contains(ADAPTER));
    for (theirs, these, those) in [(true, &values, &own), (false, &own, &values)] {
        let mut without = these.keys().filter(|path| !those.contains_key(*path));
        if let Some(path) = without.next() {
            return Err(InitFromError::Place {
                from: from.to_path_buf(),
                theirs,
                path: path.clone(),
                more: without.count(),
            }
            .into());
        }
    }
    for ((path, theirs), ours) in values.iter().zip(own.values()) {
        let [theirs, ours] = [theirs, ours].map(|data| data.shape().to_vec());
        if theirs != ours {
            return Err(InitFromError::Shape {
                from: from.to_path_buf(),
                path: path.clone(),
                theirs,
                ours,
            }
            .into());
        }
    }
    Ok(load_state(model, values)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use burn::nn::{Linear, LinearConfig};
    use mtlora_core::{Adapter, Init, MtLoraConfig, Structure};

    use super::*;

    #[derive(Module, Debug)]
    struct Pair {
        body: Linear,
        head: Linear,
    }

    fn pair(width: usize, targets: &[&str], seed: u64) -> Pair {
        let device = mtlora_core::devices()[0].device.clone().autodiff();
        let layer = || LinearConfig::new(width, 6).init(&device);
        let model = Pair {
            body: layer(),
            head: layer(),
        };
        MtLoraConfig::new(Structure::Dtsm)
            .with_rank(2)
            .with_init(Init::Kaiming)
            .with_target_modules(mtlora_core::Targets::names(targets.iter().copied()))
            .with_seed(seed)
            .attach(model)
            .unwrap()
    }

    fn factors(model: &Pair) -> State {
        state(model, |path, _| path.contains(ADAPTER))
    }

    #[test]
    fn the_adapter_is_taken_over_and_trains() {
        let source = factors(&pair(4, &["body"], 1));
        let target = pair(4, &["body"], 2);
        let head = target.head.weight.val().into_data();
        assert_ne!(factors(&target), source);
        let target = load_adapter(target, source.clone(), Path::new("run")).unwrap();
        assert_eq!(factors(&target), source);
        assert_eq!(state(&target, |_, trains| trains), source);
        assert_eq!(target.head.weight.val().into_data(), head);
        assert!(target.body.weight.reparameterization::<Adapter>().is_some());
    }

    #[test]
    fn what_differs_is_named() {
        let error = |source: &[&str], target: &[&str], width| {
            let values = factors(&pair(4, source, 1));
            let model = pair(width, target, 2);
            let error = load_adapter(model, values, Path::new("runs/mnli")).unwrap_err();
            error.to_string()
        };
        let text = error(&["body", "head"], &["body"], 4);
        assert!(
            text.starts_with(
                "runs/mnli: has `head.weight.mtlora.a` (and 3 more), which this run has not; "
            ),
            "{text}"
        );
        let text = error(&["body"], &["body", "head"], 4);
        assert!(text.contains("has no `head.weight.mtlora.a`"), "{text}");
        let text = error(&["body"], &["body"], 5);
        assert!(
            text.contains("`body.weight.mtlora.a` has shape [2, 4], in this run [2, 5]"),
            "{text}"
        );
    }
}

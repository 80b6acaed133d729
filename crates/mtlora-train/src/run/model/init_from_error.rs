//! The reasons why a run cannot start from an existing adapter.

use std::path::PathBuf;

use crate::run::model::method_name::MethodName;

/// Why a run cannot start from an adapter.
#[derive(Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum InitFromError {
    /// This run trains no adapter.
    #[error("method {method} has no adapter that could start from another's; choose method mtlora")]
    NoAdapterHere {
        /// What it trains.
        method: MethodName,
    },
    /// The adapters have different settings.
    #[error(
        "{}: its adapter has {field} {theirs}, this run's has {ours}; choose {field} {theirs}, or start from an \
         adapter with {field} {ours}",
        .from.display()
    )]
    Differs {
        /// The adapter's folder.
        from: PathBuf,
        /// The setting.
        field: &'static str,
        /// The adapter's.
        theirs: String,
        /// This run's.
        ours: String,
    },
    /// One has an adapter on a module where the other has none.
    #[error(
        "{}: {} an adapter on `{path}`{}, {}; leave --targets out, and the adapter's are taken",
        .from.display(),
        if *.theirs { "has" } else { "has no" },
        match .more { 0 => String::new(), more => format!(" (and {more} more)") },
        if *.theirs { "which --targets leaves out" } else { "which --targets names" }
    )]
    Place {
        /// The adapter's folder.
        from: PathBuf,
        /// Whether the adapter in the folder has one there; otherwise this run has.
        theirs: bool,
        /// The first such module.
        path: String,
        /// How many others there are.
        more: usize,
    },
}

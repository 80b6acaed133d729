//! The reasons why a run cannot start from an existing adapter.

use std::path::PathBuf;

use crate::run::model::method_name::MethodName;

/// The reason why a run cannot start from an adapter.
#[derive(Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum InitFromError {
    /// The run does not train an adapter.
    #[error("method {method} has no adapter that could start from another's; choose method mtlora")]
    NoAdapterHere {
        /// The method of the run.
        method: MethodName,
    },
    /// The adapter and the run have different settings.
    #[error(
        "{}: its adapter has {field} {theirs}, this run's has {ours}; choose {field} {theirs}, or start from an \
         adapter with {field} {ours}",
        .from.display()
    )]
    Differs {
        /// The adapter's folder.
        from: PathBuf,
        /// The name of the setting.
        field: &'static str,
        /// The value in the adapter.
        theirs: String,
        /// The value in the run.
        ours: String,
    },
    /// Only one of the two has an adapter on a module.
    #[error(
        "{}: it {} an adapter on `{path}`{}, {}; leave out --targets to use the adapter's own targets",
        .from.display(),
        if *.theirs { "has" } else { "has no" },
        match .more { 0 => String::new(), more => format!(" (and {more} more)") },
        if *.theirs { "which --targets leaves out" } else { "which --targets names" }
    )]
    Place {
        /// The adapter's folder.
        from: PathBuf,
        /// True if the adapter in the folder has one there, false if the run has.
        theirs: bool,
        /// The path of the first such module.
        path: String,
        /// The number of further such modules.
        more: usize,
    },
}

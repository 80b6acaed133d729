//! The keys of an adapter's tensors in PEFT's files.
//!
//! A factor's key is the module's name and what the factor's method declares ([`Factor::key`]); a tensor that was trained
//! itself has its own name.

use mtlora_core::{AdapterMethod, Factor};

/// The prefix of every key.
const PREFIX: &str = "base_model.model.";

/// The factor that a key names.
pub(super) struct FactorKey<'a> {
    /// The module's name.
    pub module: &'a str,
    /// The factor, as the first method that has this key declares it.
    pub factor: &'static Factor,
    /// Whether the module is an embedding.
    pub embedding: bool,
}

/// A key without PEFT's prefix, which old files lack.
pub(super) fn without_prefix(key: &str) -> &str {
    key.strip_prefix(PREFIX).unwrap_or(key)
}

/// The factor of some method that a key without the prefix names, if it names one.
pub(super) fn split(name: &str) -> Option<FactorKey<'_>> {
    for factor in AdapterMethod::all().flat_map(|method| method.factors()) {
        for embedding in [false, true] {
            let module = name.strip_suffix(factor.key(embedding));
            if let Some(module) = module.and_then(|module| module.strip_suffix('.')) {
                return Some(FactorKey {
                    module,
                    factor,
                    embedding,
                });
            }
        }
    }
    None
}

/// A factor's key.
pub(super) fn factor_key(module: &str, factor: &Factor, embedding: bool) -> String {
    format!("{PREFIX}{module}.{}", factor.key(embedding))
}

/// The key of a tensor that was trained itself.
pub(super) fn saved_key(name: &str) -> String {
    format!("{PREFIX}{name}")
}

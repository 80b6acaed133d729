//! The adapter methods.
//!
//! A method is one file here that implements [`MethodDefinition`], and one line in [`DEFINITIONS`]. Everything
//! else (attaching, parameter paths, checkpoints, PEFT's files, folding, analysis) follows from what it declares.

pub(crate) mod adalora;
pub(crate) mod definition;
pub(crate) mod dora;
pub(crate) mod structures;
#[cfg(test)]
mod testing;

use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use adalora::AdaLora;
use definition::{AdapterMethod, MethodDefinition};
use dora::Dora;
use structures::Structure;

/// Every method, in the order in which messages list them.
static DEFINITIONS: &[&dyn MethodDefinition] = &[
    &Structure::Lora,
    &Structure::Shim,
    &Structure::Icfm,
    &Structure::Ctcm,
    &Structure::Dtsm,
    &AdaLora,
    &Dora,
    #[cfg(test)]
    &testing::Magnitude,
];

impl AdapterMethod {
    /// Every method.
    pub fn all() -> impl Iterator<Item = AdapterMethod> {
        DEFINITIONS.iter().copied().map(AdapterMethod::new)
    }

    /// The names of all methods, with commas between them, for messages.
    pub fn names() -> String {
        let names: Vec<&str> = Self::all().map(|method| method.name()).collect();
        names.join(", ")
    }
}

impl FromStr for AdapterMethod {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::all()
            .find(|method| method.name() == name)
            .ok_or_else(|| format!("unknown structure `{name}`: one of {}", Self::names()))
    }
}

impl<'de> Deserialize<'de> for AdapterMethod {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let name = String::deserialize(from)?;
        name.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn names_and_keys_tell_methods_and_factors_apart() {
        let mut keys: BTreeMap<&str, &str> = BTreeMap::new();
        let mut decays: BTreeMap<&str, bool> = BTreeMap::new();
        for method in AdapterMethod::all() {
            assert_eq!(method.to_string().parse(), Ok(method));
            let names: Vec<&str> = method.factors().iter().map(|one| one.name).collect();
            assert_eq!(names[..2], ["a", "b"], "{method}");
            for factor in method.factors() {
                let decays = decays.entry(factor.name).or_insert(factor.decays);
                assert_eq!(*decays, factor.decays, "{}", factor.name);
                for key in [factor.key, factor.embedding_key] {
                    assert_eq!(*keys.entry(key).or_insert(factor.name), factor.name);
                }
            }
        }
        let error = "loraa".parse::<AdapterMethod>().unwrap_err();
        assert!(error.contains("shim"), "{error}");
    }
}

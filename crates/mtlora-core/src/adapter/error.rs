use crate::adapter::init::Init;
use crate::adapter::methods::definition::AdapterMethod;
use crate::module_pattern::PatternError;

/// Why an adapter cannot be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// No weight has the wanted name.
    #[error("no weight matches the target `{target}`; the model has: {}", list(.available))]
    NoMatch {
        /// The name, expression or keyword.
        target: String,
        /// Every module that could be adapted.
        available: Vec<String>,
    },
    /// The target is a regular expression that is not valid, or takes too long.
    #[error("the target `{pattern}` cannot be used as a regular expression: {source}")]
    Pattern {
        /// The text.
        pattern: String,
        /// What is wrong with it.
        source: PatternError,
    },
    /// The rank does not fit a weight.
    #[error("rank {rank} does not fit {path} ({input} x {output}): choose 1 to {}", .input.min(.output))]
    Rank {
        /// The wanted rank.
        rank: usize,
        /// The weight's module.
        path: String,
        /// Input width.
        input: usize,
        /// Output width.
        output: usize,
    },
    /// The weight does not hold these projections.
    #[error(
        "{path} (output width {output}) cannot be {projections} fused projections of which {adapted} are \
         adapted: their number must divide the width, and one at least must be adapted"
    )]
    Fused {
        /// The weight's module.
        path: String,
        /// Output width.
        output: usize,
        /// How many projections.
        projections: usize,
        /// How many of them are adapted.
        adapted: usize,
    },
    /// A number is out of its range.
    #[error("{name} is {value}, but must be {wanted}")]
    Range {
        /// The field.
        name: &'static str,
        /// Its value.
        value: f64,
        /// What it may be.
        wanted: &'static str,
    },
    /// The method cannot train from this start.
    #[error(
        "initialisation `{init}` is not for structure `{method}`, {reason}; use `kaiming` or `identity`"
    )]
    Init {
        /// The start.
        init: Init,
        /// The method.
        method: AdapterMethod,
        /// Why it cannot.
        reason: &'static str,
    },
    /// The method has a scale of its own.
    #[error("use_rslora is not for method `{method}`, which has a scale of its own; leave it out")]
    Scale {
        /// The method.
        method: AdapterMethod,
    },
    /// The method cannot adapt a weight of this kind.
    #[error("method `{method}` cannot adapt {path}: {reason}")]
    Weight {
        /// The weight's module.
        path: String,
        /// The method.
        method: AdapterMethod,
        /// Why it cannot.
        reason: &'static str,
    },
    /// A factor does not fit its weight.
    #[error(
        "{path}: the adapter has {}; are adapter and model of the same kind?",
        match (.found, .expected) {
            (Some(found), Some(expected)) => {
                format!("{factor} of shape {found:?}, where the model's weight needs {expected:?}")
            }
            (None, _) => format!("no {factor}, which its structure `{method}` needs"),
            (_, None) => format!("a {factor} that its structure `{method}` does not have"),
        }
    )]
    Factor {
        /// The weight's module.
        path: String,
        /// The factor, as A or B.
        factor: String,
        /// The adapter's method.
        method: AdapterMethod,
        /// The shape that would fit, if it should be there.
        expected: Option<[usize; 2]>,
        /// Its shape, if it is there.
        found: Option<Vec<usize>>,
    },
    /// A weight has a reparameterization already.
    #[error("{path} has an adapter already: call `materialize` first to fold it in")]
    Adapted {
        /// The weight's module.
        path: String,
    },
}

/// The names of the modules with `*` in place of numbers, each once, so that the layers of a model do not repeat; of many, the first,
/// and how many more there are.
fn list(names: &[String]) -> String {
    const SHOWN: usize = 40;
    let mut kinds: Vec<String> = Vec::new();
    for name in names {
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit());
        let parts = name.split('.');
        let parts = parts.map(|part| if is_number(part) { "*" } else { part });
        let kind = parts.collect::<Vec<_>>().join(".");
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    let mut text = kinds[..kinds.len().min(SHOWN)].join(", ");
    if kinds.len() > SHOWN {
        text.push_str(&format!(" and {} more", kinds.len() - SHOWN));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layers_of_a_model_are_listed_once() {
        let layers = (0..12).flat_map(|n| ["query", "value"].map(|of| format!("layer.{n}.{of}")));
        let error = AttachError::NoMatch {
            target: "q".to_string(),
            available: layers.chain(["head".to_string()]).collect(),
        };
        assert_eq!(
            error.to_string(),
            "no weight matches the target `q`; the model has: layer.*.query, layer.*.value, head"
        );
    }
}

//! The parameters that a run trains: adapters, the head, or the whole model.

use burn::module::{Module, ParamGroup};
use mtlora_core::{AttachError, MtLoraConfig, each_parameter};

/// Which parameters are trained.
#[derive(Clone, Debug, PartialEq)]
pub enum Method {
    /// The adapters, and the modules that their configuration trains in full (the head).
    MtLora(MtLoraConfig),
    /// All parameters.
    Full,
    /// Only the classification head.
    Head,
    /// The biases, those of layer norms included, and the classification head (arXiv 2106.10199).
    BitFit,
}

impl Method {
    /// Prepares `model` for training: the parameters that the method trains require gradients, and all others are
    /// frozen. The head is the module named `classifier`.
    ///
    /// # Errors
    /// When the adapter does not fit the model.
    pub fn prepare<M: Module>(&self, model: M) -> Result<M, AttachError> {
        match self {
            Method::MtLora(config) => config.attach(model),
            Method::Full => Ok(model),
            Method::Head => Ok(only(model, is_in_head)),
            Method::BitFit => Ok(only(model, |path| is_in_head(path) || is_bias(path))),
        }
    }
}

fn is_in_head(path: &str) -> bool {
    path.contains("classifier.")
}

/// Whether a parameter is a bias; Burn calls that of a layer norm `beta`.
fn is_bias(path: &str) -> bool {
    let name = path.rsplit('.').next();
    name.is_some_and(|name| ["bias", "beta"].contains(&name))
}

/// The model in which only the parameters whose paths are `meant` require gradients.
fn only<M: Module>(model: M, meant: impl Fn(&str) -> bool) -> M {
    let mut paths = Vec::new();
    each_parameter(&model, |parameter| {
        if meant(parameter.path) {
            paths.push(parameter.path.to_string());
        }
    });
    model
        .no_grad()
        .set_require_grad_group(ParamGroup::from_paths(paths), true)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
    use mtlora_core::state;

    use super::*;

    #[derive(Module, Debug)]
    struct Net {
        query: Linear,
        norm: LayerNorm,
        classifier: Linear,
    }

    #[test]
    fn bitfit_trains_the_biases_and_the_head() {
        let device = mtlora_core::devices()[0].device.clone().autodiff();
        let net = || Net {
            query: LinearConfig::new(3, 2).init(&device),
            norm: LayerNormConfig::new(2).init(&device),
            classifier: LinearConfig::new(2, 2).init(&device),
        };
        let trained = |method: Method| {
            let net = method.prepare(net()).unwrap();
            let trained = state(&net, |_, trains| trains);
            trained.into_keys().collect::<Vec<String>>()
        };
        let head = ["classifier.bias", "classifier.weight"];
        assert_eq!(trained(Method::Head), head);
        let biases = ["norm.beta", "query.bias"];
        assert_eq!(trained(Method::BitFit), [head, biases].concat());
    }
}

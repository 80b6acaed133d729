//! Base models that one process trains on again and again.

use burn::tensor::Device;
use mtlora::train::{
    ClassifierSpec, GeneratorSpec, KeptBase, MethodName, ModelSpec, RunError, StartedFor,
};

/// The base models that were read last.
#[derive(Default)]
pub(crate) struct Bases {
    classifier: KeptBase<ClassifierSpec>,
    generator: KeptBase<GeneratorSpec>,
}

impl Bases {
    /// A classifier that is prepared for training on `device`, which has the name `name`.
    pub(crate) fn classifier(
        &mut self,
        spec: &ClassifierSpec,
        name: &str,
        device: &Device,
    ) -> Result<StartedFor<ClassifierSpec>, RunError> {
        start(&mut self.classifier, spec, name, device)
    }

    /// A causal language model that is prepared for training on `device`, which has the name `name`.
    pub(crate) fn generator(
        &mut self,
        spec: &GeneratorSpec,
        name: &str,
        device: &Device,
    ) -> Result<StartedFor<GeneratorSpec>, RunError> {
        start(&mut self.generator, spec, name, device)
    }
}

fn start<S: ModelSpec + Clone>(
    kept: &mut KeptBase<S>,
    spec: &S,
    name: &str,
    device: &Device,
) -> Result<StartedFor<S>, RunError> {
    // Full fine-tuning changes every weight, so a base that is kept beside it would only take memory.
    if spec.base().adapter.method == MethodName::Full {
        kept.forget();
        return spec.start(device);
    }
    kept.start(spec, name, device)
}

//! Finding the adapters of a module.

use std::any::Any;
use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::DropoutConfig;
use burn::tensor::Tensor;

use crate::adapter::factors::Factors;
use crate::adapter::form::AdapterForm;
use crate::adapter::module::Adapter;

/// Every adapter of a module, by the path of the module whose weight it is on. They share their parameters with
/// `module`: identities, values and gradients are the same.
pub fn attached<M: Module>(module: &M) -> BTreeMap<String, Adapter> {
    let mut collect = Collect::default();
    module.visit(&mut collect);
    collect.adapters
}

#[derive(Default)]
struct Collect {
    path: Vec<String>,
    /// The parameters of the adapter that is being visited, by their names.
    factors: BTreeMap<String, Param<Tensor<2>>>,
    form: Option<AdapterForm>,
    adapters: BTreeMap<String, Adapter>,
}

impl Collect {
    /// The adapter whose parameters have been visited, if they are all there.
    fn adapter(&mut self) -> Option<Adapter> {
        let form = self.form.take()?;
        let (a, b) = (self.factors.remove("a")?, self.factors.remove("b")?);
        let mut further = Factors::none();
        for factor in form.method.further_factors() {
            further.insert(factor.name, self.factors.remove(factor.name)?);
        }
        Some(Adapter {
            a,
            b,
            further,
            dropout: DropoutConfig::new(form.dropout).init(),
            form,
        })
    }
}

impl ModuleVisitor for Collect {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        if container_type == REPARAMETERIZATION {
            self.factors.clear();
            self.form = None;
        }
        if let Some(form) = AdapterForm::shown(name, container_type) {
            self.form = Some(form);
        }
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, container_type: &str) {
        self.path.pop();
        if container_type != REPARAMETERIZATION {
            return;
        }
        if let Some(adapter) = self.adapter() {
            // The last name is the weight's.
            let module = &self.path[..self.path.len().saturating_sub(1)];
            self.adapters.insert(module.join("."), adapter);
        }
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let matrix = (param as &dyn Any).downcast_ref::<Param<Tensor<2>>>();
        if let ([.., adapter, name], Some(matrix)) = (self.path.as_slice(), matrix)
            && adapter == "mtlora"
        {
            self.factors.insert(name.clone(), matrix.clone());
        }
    }
}

/// The kind of container as which Burn shows a parameter's reparameterization.
const REPARAMETERIZATION: &str = "Reparameterization";

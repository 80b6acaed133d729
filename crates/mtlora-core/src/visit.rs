//! Visits the parameters of a module by their paths.

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::{DType, Device, FloatDType, Shape, Tensor, TensorData};

use crate::packed;

/// The kind of module that a parameter is a field of, as far as this project distinguishes kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// Burn's `Linear`.
    Linear,
    /// Burn's `Embedding`.
    Embedding,
    /// Any other.
    Other,
}

impl Container {
    /// The kind for this container type, which Burn passes to a visitor when it enters a field of a module.
    pub fn of(container_type: &str) -> Self {
        match container_type {
            "Struct:Linear" => Container::Linear,
            "Struct:Embedding" => Container::Embedding,
            _ => Container::Other,
        }
    }
}

/// A floating-point parameter, whatever its number of dimensions.
pub struct VisitedParameter<'a> {
    /// The parameter's path, as in `encoder.layer.0.query.weight.mtlora.a`.
    pub path: &'a str,
    /// The kind of module that it is a field of.
    pub container: Container,
    parameter: &'a dyn Parameter,
}

impl VisitedParameter<'_> {
    /// The parameter's identity.
    pub fn id(&self) -> ParamId {
        self.parameter.id()
    }

    /// Its shape. The parameter is not initialized for it.
    pub fn shape(&self) -> Shape {
        self.parameter.shape()
    }

    /// Whether it trains. On a device without gradients, and so after [`Module::valid`](burn::module::Module::valid): whether it would
    /// train after [`Module::train`](burn::module::Module::train).
    pub fn trains(&self) -> bool {
        self.parameter.trains()
    }

    /// Its own value on the host, without a reparameterization.
    pub fn data(&self) -> TensorData {
        self.parameter.data()
    }

    /// Calls `then` with the number of bytes of [`data`](Self::data) and with a part of them, in their order: an embedding
    /// that is kept packed is unpacked a few rows at a time.
    pub fn each_part(&self, then: &mut dyn FnMut(usize, &[u8])) {
        self.parameter.each_part(then);
    }

    /// Its own value, flat and in 32-bit floats, on its device.
    pub fn flat(&self) -> Tensor<1> {
        self.parameter.flat()
    }

    /// Its device. The parameter is not initialized for it.
    pub fn device(&self) -> Device {
        self.parameter.device()
    }

    /// The path of the module that it is a field of (empty for a bare layer), and the name of the field.
    pub fn split_path(&self) -> (&str, &str) {
        self.path.rsplit_once('.').unwrap_or(("", self.path))
    }
}

/// Calls `visit` with every floating-point parameter of `module`, in Burn's order.
///
/// ```
/// use burn::nn::{Linear, LinearConfig};
/// use burn::tensor::Device;
/// use mtlora_core::each_parameter;
/// let layer: Linear = LinearConfig::new(4, 2).init(&Device::flex());
/// let mut shapes = Vec::new();
/// each_parameter(&layer, |parameter| {
///     shapes.push((parameter.path.to_string(), parameter.shape().to_vec()));
/// });
/// assert_eq!(shapes, [("weight".to_string(), vec![4, 2]), ("bias".to_string(), vec![2])]);
/// ```
pub fn each_parameter<M: Module>(module: &M, visit: impl FnMut(VisitedParameter<'_>)) {
    module.visit(&mut Visitor {
        path: String::new(),
        containers: Vec::new(),
        visit,
    });
}

trait Parameter {
    fn id(&self) -> ParamId;
    fn shape(&self) -> Shape;
    fn trains(&self) -> bool;
    fn data(&self) -> TensorData;
    fn each_part(&self, then: &mut dyn FnMut(usize, &[u8]));
    fn flat(&self) -> Tensor<1>;
    fn device(&self) -> Device;
}

impl<const D: usize> Parameter for Param<Tensor<D>> {
    fn id(&self) -> ParamId {
        self.id
    }

    fn shape(&self) -> Shape {
        self.lazy_shape()
    }

    fn trains(&self) -> bool {
        let value = self.base();
        if value.is_require_grad() {
            return true;
        }
        if value.device().is_autodiff() || matches!(value.dtype(), DType::QFloat(_)) {
            return false;
        }
        // On a device without gradients, `is_require_grad` is always false. Burn keeps the parameter's setting, and `train`
        // applies it.
        self.clone().train().base().is_require_grad()
    }

    fn data(&self) -> TensorData {
        let value = self.base();
        packed::dense(&value).unwrap_or(value).into_data()
    }

    fn each_part(&self, then: &mut dyn FnMut(usize, &[u8])) {
        if !packed::each_part(&self.base(), then) {
            let data = self.data();
            then(data.as_bytes().len(), data.as_bytes());
        }
    }

    fn flat(&self) -> Tensor<1> {
        let value = packed::unquantized(self.base());
        let count = value.shape().num_elements();
        value.reshape([count]).cast(FloatDType::F32)
    }

    fn device(&self) -> Device {
        self.lazy_device()
    }
}

struct Visitor<F> {
    path: String,
    /// The length of the path before each name that it now has, and what the name is a field of.
    containers: Vec<(usize, Container)>,
    visit: F,
}

impl<F: FnMut(VisitedParameter<'_>)> ModuleVisitor for Visitor<F> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.containers
            .push((self.path.len(), Container::of(container_type)));
        if !self.path.is_empty() {
            self.path.push('.');
        }
        self.path.push_str(name);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        if let Some((length, _)) = self.containers.pop() {
            self.path.truncate(length);
        }
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let container = self.containers.last();
        (self.visit)(VisitedParameter {
            path: &self.path,
            container: container.map_or(Container::Other, |(_, container)| *container),
            parameter: param,
        });
    }
}

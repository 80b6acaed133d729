//! A model of a family that is only known at run time, as a module like any other.
//!
//! Burn's [`Module`] has generic methods (visitors see parameters of every rank), so that there is no `dyn Module`.
//! [`BoxedModule`] hides a module's type all the same: a parameter crosses the boundary as [`Any`], and its rank is
//! found again on the other side, as Burn itself does with reparameterizations.

use std::any::Any;
use std::fmt;

use burn::module::{Devices, Flag, Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Bool, Device, Float, Int, Tensor};

/// A module whose type is hidden, with what it can do: `C` is a trait object, such as
/// [`dyn CausalModel`](crate::CausalModel).
///
/// Visitors and mappers see the parameters by the same paths as in the module itself.
pub struct BoxedModule<C: ?Sized>(Box<dyn Object<C>>);

/// Gives a module as the trait object `C`. It is implemented for every type that implements one of the traits of models.
pub trait Exposes<C: ?Sized> {
    /// The module as the trait object.
    fn exposed(&self) -> &C;

    /// The same, to be changed.
    fn exposed_mut(&mut self) -> &mut C;
}

impl<C: ?Sized + 'static> BoxedModule<C> {
    /// Hides the type of `module`.
    pub fn new<M: Module + Exposes<C> + 'static>(module: M) -> Self {
        Self(Box::new(module))
    }

    /// What the module can do.
    pub fn model(&self) -> &C {
        self.0.exposed()
    }

    /// The same, to be changed.
    pub(crate) fn model_mut(&mut self) -> &mut C {
        self.0.exposed_mut()
    }

    /// The module, if it is of type `M`.
    pub fn downcast_ref<M: 'static>(&self) -> Option<&M> {
        self.0.as_any().downcast_ref()
    }
}

impl<C: ?Sized> fmt::Debug for BoxedModule<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<C: ?Sized> Clone for BoxedModule<C> {
    fn clone(&self) -> Self {
        Self(self.0.duplicate())
    }
}

impl<C: ?Sized + 'static> Module for BoxedModule<C> {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.0.collect_devices(devices)
    }

    fn fork(self, device: &Device) -> Self {
        Self(self.0.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        Self(self.0.to_device(device))
    }

    fn train(self) -> Self {
        Self(self.0.train())
    }

    fn valid(&self) -> Self {
        Self(self.0.valid())
    }

    fn materialize(self) -> Self {
        Self(self.0.materialize())
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.0.visit(&mut Restored(visitor));
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        Self(self.0.map(&mut Restored(mapper)))
    }
}

/// [`Module`]'s methods without type parameters.
trait Object<C: ?Sized>: Exposes<C> + fmt::Debug + Send {
    fn duplicate(&self) -> Box<dyn Object<C>>;
    fn collect_devices(&self, devices: Devices) -> Devices;
    fn fork(self: Box<Self>, device: &Device) -> Box<dyn Object<C>>;
    fn to_device(self: Box<Self>, device: &Device) -> Box<dyn Object<C>>;
    fn train(self: Box<Self>) -> Box<dyn Object<C>>;
    fn valid(&self) -> Box<dyn Object<C>>;
    fn materialize(self: Box<Self>) -> Box<dyn Object<C>>;
    fn visit(&self, visitor: &mut dyn AnyVisitor);
    fn map(self: Box<Self>, mapper: &mut dyn AnyMapper) -> Box<dyn Object<C>>;
    fn as_any(&self) -> &dyn Any;
}

impl<C: ?Sized + 'static, M: Module + Exposes<C> + 'static> Object<C> for M {
    fn duplicate(&self) -> Box<dyn Object<C>> {
        Box::new(self.clone())
    }

    fn collect_devices(&self, devices: Devices) -> Devices {
        Module::collect_devices(self, devices)
    }

    fn fork(self: Box<Self>, device: &Device) -> Box<dyn Object<C>> {
        Box::new(Module::fork(*self, device))
    }

    fn to_device(self: Box<Self>, device: &Device) -> Box<dyn Object<C>> {
        Box::new(Module::to_device(*self, device))
    }

    fn train(self: Box<Self>) -> Box<dyn Object<C>> {
        Box::new(Module::train(*self))
    }

    fn valid(&self) -> Box<dyn Object<C>> {
        Box::new(Module::valid(self))
    }

    fn materialize(self: Box<Self>) -> Box<dyn Object<C>> {
        Box::new(Module::materialize(*self))
    }

    fn visit(&self, visitor: &mut dyn AnyVisitor) {
        Module::visit(self, &mut Erased(visitor));
    }

    fn map(self: Box<Self>, mapper: &mut dyn AnyMapper) -> Box<dyn Object<C>> {
        Box::new(Module::map(*self, &mut Erased(mapper)))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A visitor that is given parameters as [`Any`].
trait AnyVisitor {
    fn enter(&mut self, name: &str, container_type: &str);
    fn exit(&mut self, name: &str, container_type: &str);
    fn float(&mut self, param: &dyn Any);
    fn int(&mut self, param: &dyn Any);
    fn bool(&mut self, param: &dyn Any);
    fn flag(&mut self, flag: &Param<Flag>);
}

/// A mapper that is given parameters as [`Any`], and returns each as the type that it was given.
trait AnyMapper {
    fn enter(&mut self, name: &str, container_type: &str);
    fn exit(&mut self, name: &str, container_type: &str);
    fn float(&mut self, param: Box<dyn Any>) -> Box<dyn Any>;
    fn int(&mut self, param: Box<dyn Any>) -> Box<dyn Any>;
    fn bool(&mut self, param: Box<dyn Any>) -> Box<dyn Any>;
    fn flag(&mut self, flag: Param<Flag>) -> Param<Flag>;
}

/// A visitor or mapper on the module's side of the boundary: it hides the rank of parameters.
struct Erased<'a, T: ?Sized>(&'a mut T);

impl ModuleVisitor for Erased<'_, dyn AnyVisitor + '_> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.0.enter(name, container_type);
    }

    fn exit_module(&mut self, name: &str, container_type: &str) {
        self.0.exit(name, container_type);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.float(param);
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        self.0.int(param);
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        self.0.bool(param);
    }

    fn visit_flag(&mut self, flag: &Param<Flag>) {
        self.0.flag(flag);
    }
}

impl ModuleMapper for Erased<'_, dyn AnyMapper + '_> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.0.enter(name, container_type);
    }

    fn exit_module(&mut self, name: &str, container_type: &str) {
        self.0.exit(name, container_type);
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        returned(self.0.float(Box::new(param)))
    }

    fn map_int<const D: usize>(&mut self, param: Param<Tensor<D, Int>>) -> Param<Tensor<D, Int>> {
        returned(self.0.int(Box::new(param)))
    }

    fn map_bool<const D: usize>(
        &mut self,
        param: Param<Tensor<D, Bool>>,
    ) -> Param<Tensor<D, Bool>> {
        returned(self.0.bool(Box::new(param)))
    }

    fn map_flag(&mut self, flag: Param<Flag>) -> Param<Flag> {
        self.0.flag(flag)
    }
}

fn returned<T: 'static>(param: Box<dyn Any>) -> T {
    match param.downcast() {
        Ok(param) => *param,
        Err(_) => unreachable!("a mapper returns a parameter of the type that it was given"),
    }
}

/// A visitor or mapper on the caller's side of the boundary: it finds the rank of parameters again.
struct Restored<'a, T>(&'a mut T);

/// Calls a generic method with the parameter, once its rank is found.
macro_rules! visit_of_rank {
    ($visitor:expr, $visit:ident, $param:expr, $kind:ident, [$($rank:literal)*]) => {{
        $(
            if let Some(param) = $param.downcast_ref::<Param<Tensor<$rank, $kind>>>() {
                return $visitor.$visit(param);
            }
        )*
        unreachable!("Burn's tensors have no more than 8 dimensions")
    }};
}

macro_rules! map_of_rank {
    ($mapper:expr, $map:ident, $param:expr, $kind:ident, [$($rank:literal)*]) => {{
        let param = $param;
        $(
            let param = match param.downcast::<Param<Tensor<$rank, $kind>>>() {
                Ok(param) => return Box::new($mapper.$map(*param)),
                Err(other) => other,
            };
        )*
        drop(param);
        unreachable!("Burn's tensors have no more than 8 dimensions")
    }};
}

impl<V: ModuleVisitor> AnyVisitor for Restored<'_, V> {
    fn enter(&mut self, name: &str, container_type: &str) {
        self.0.enter_module(name, container_type);
    }

    fn exit(&mut self, name: &str, container_type: &str) {
        self.0.exit_module(name, container_type);
    }

    fn float(&mut self, param: &dyn Any) {
        visit_of_rank!(self.0, visit_float, param, Float, [2 1 3 4 5 6 7 8])
    }

    fn int(&mut self, param: &dyn Any) {
        visit_of_rank!(self.0, visit_int, param, Int, [1 2 3 4 5 6 7 8])
    }

    fn bool(&mut self, param: &dyn Any) {
        visit_of_rank!(self.0, visit_bool, param, Bool, [1 2 3 4 5 6 7 8])
    }

    fn flag(&mut self, flag: &Param<Flag>) {
        self.0.visit_flag(flag);
    }
}

impl<M: ModuleMapper> AnyMapper for Restored<'_, M> {
    fn enter(&mut self, name: &str, container_type: &str) {
        self.0.enter_module(name, container_type);
    }

    fn exit(&mut self, name: &str, container_type: &str) {
        self.0.exit_module(name, container_type);
    }

    fn float(&mut self, param: Box<dyn Any>) -> Box<dyn Any> {
        map_of_rank!(self.0, map_float, param, Float, [2 1 3 4 5 6 7 8])
    }

    fn int(&mut self, param: Box<dyn Any>) -> Box<dyn Any> {
        map_of_rank!(self.0, map_int, param, Int, [1 2 3 4 5 6 7 8])
    }

    fn bool(&mut self, param: Box<dyn Any>) -> Box<dyn Any> {
        map_of_rank!(self.0, map_bool, param, Bool, [1 2 3 4 5 6 7 8])
    }

    fn flag(&mut self, flag: Param<Flag>) -> Param<Flag> {
        self.0.map_flag(flag)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use burn::module::ParamId;
    use burn::nn::{Dropout, DropoutConfig, Linear, LinearConfig};
    use mtlora_core::{MtLoraConfig, Structure, Targets, adapters, load_state, state};

    use super::*;

    trait Named {
        fn rank(&self) -> usize;
    }

    #[derive(Module, Debug)]
    struct Toy {
        table: Param<Tensor<3>>,
        map: Linear,
        drop: Dropout,
        places: Param<Tensor<1, Int>>,
    }

    impl Named for Toy {
        fn rank(&self) -> usize {
            self.table.dims().len()
        }
    }

    impl<M: Named + 'static> Exposes<dyn Named> for M {
        fn exposed(&self) -> &(dyn Named + 'static) {
            self
        }

        fn exposed_mut(&mut self) -> &mut (dyn Named + 'static) {
            self
        }
    }

    fn toy() -> Toy {
        let device = mtlora_core::devices().remove(0).device.autodiff();
        Toy {
            table: Param::from_tensor(Tensor::ones([2, 3, 4], &device)),
            map: LinearConfig::new(4, 5).init(&device),
            drop: DropoutConfig::new(0.1).init(),
            places: Param::initialized(ParamId::new(), Tensor::from_data([1, 2], &device)),
        }
    }

    #[derive(Default, PartialEq, Debug)]
    struct Seen(Vec<String>);

    impl ModuleVisitor for Seen {
        fn enter_module(&mut self, name: &str, container_type: &str) {
            self.0.push(format!("{name} of {container_type}"));
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.push(format!("float {D} {}", param.id));
        }

        fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
            self.0.push(format!("int {D} {}", param.id));
        }

        fn visit_flag(&mut self, flag: &Param<Flag>) {
            self.0.push(format!("flag {}", flag.is_enabled()));
        }
    }

    fn seen(module: &impl Module) -> Seen {
        let mut seen = Seen::default();
        module.visit(&mut seen);
        seen
    }

    #[test]
    fn visitors_see_what_they_see_in_the_module_itself() {
        let adapted = MtLoraConfig::new(Structure::Shim)
            .with_rank(2)
            .with_target_modules(Targets::names(["map"]));
        let toy = adapted.attach(toy()).unwrap();
        let boxed = BoxedModule::<dyn Named>::new(toy.clone());
        assert_eq!(seen(&boxed), seen(&toy));
        assert_eq!(seen(&boxed.valid()), seen(&Module::valid(&toy)));
        assert_eq!(adapters(&boxed).len(), 1);
        assert_eq!(boxed.num_params(), toy.num_params());
        assert_eq!(boxed.model().rank(), 3);
        assert!(boxed.downcast_ref::<Toy>().is_some());
        assert!(boxed.downcast_ref::<Linear>().is_none());
    }

    #[test]
    fn a_mapper_changes_the_module_inside() {
        let toy = toy();
        let boxed = BoxedModule::<dyn Named>::new(toy.clone()).no_grad();
        assert!(state(&boxed, |_, trains| trains).is_empty());
        let mut values = state(&toy, |path, _| path == "table");
        let zeros = burn::tensor::TensorData::zeros::<f32, _>([2, 3, 4]);
        values.insert("table".to_string(), zeros.clone());
        let boxed = load_state(boxed, values).unwrap();
        let inside = boxed.downcast_ref::<Toy>().unwrap();
        assert_eq!(inside.table.val().into_data(), zeros);
        // A clone has its own structure: the first one is unchanged.
        assert_ne!(toy.table.val().into_data(), zeros);
    }
}

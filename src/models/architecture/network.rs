//! A network of whichever architecture, as one type.
//!
//! burn's visitors and mappers are generic over the number of a parameter's axes, which a trait
//! object cannot be. So a parameter goes through the object as `dyn Any`, and is found again as
//! what it is on the other side: [`AnyVisitor`], [`AnyMapper`].

use std::any::Any;
use std::fmt::Debug;

use burn::module::{Devices, Flag, Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Bool, Device, Int, Tensor};

use super::definition::Denoiser;
use crate::diffusion::Objective;
use crate::nn::Pass;

/// A network of whichever architecture, with what it is trained for. Its parameters have the names
/// that the architecture gives them.
#[derive(Debug)]
pub struct Network {
    inner: Box<dyn AnyNetwork>,
    objective: Objective,
}

impl Network {
    pub(super) fn new(network: impl Denoiser) -> Self {
        let objective = network.objective();
        Self { inner: Box::new(network), objective }
    }

    /// The same parameters, trained for another objective.
    pub fn with_objective(self, objective: Objective) -> Self {
        Self { objective, ..self }
    }
}

/// [`Denoiser`] and burn's `Module` without generics.
trait AnyNetwork: Debug + Send + Sync {
    fn copied(&self) -> Network;
    fn denoise(
        &self,
        x: Tensor<4>,
        c_noise: Tensor<1>,
        label: Option<Tensor<1, Int>>,
        pass: &Pass,
    ) -> Tensor<4>;
    fn all_devices(&self, devices: Devices) -> Devices;
    fn forked(self: Box<Self>, device: &Device) -> Network;
    fn on_device(self: Box<Self>, device: &Device) -> Network;
    fn in_training(self: Box<Self>) -> Network;
    fn without_autodiff(&self) -> Network;
    fn materialized(self: Box<Self>) -> Network;
    fn visited(&self, visitor: &mut dyn AnyVisitor);
    fn mapped(self: Box<Self>, mapper: &mut dyn AnyMapper) -> Network;
}

impl<N: Denoiser> AnyNetwork for N {
    fn copied(&self) -> Network {
        Network::new(self.clone())
    }
    fn denoise(
        &self,
        x: Tensor<4>,
        c_noise: Tensor<1>,
        label: Option<Tensor<1, Int>>,
        pass: &Pass,
    ) -> Tensor<4> {
        self.forward(x, c_noise, label, pass)
    }
    fn all_devices(&self, devices: Devices) -> Devices {
        self.collect_devices(devices)
    }
    fn forked(self: Box<Self>, device: &Device) -> Network {
        Network::new(self.fork(device))
    }
    fn on_device(self: Box<Self>, device: &Device) -> Network {
        Network::new(self.to_device(device))
    }
    fn in_training(self: Box<Self>) -> Network {
        Network::new(self.train())
    }
    fn without_autodiff(&self) -> Network {
        Network::new(self.valid())
    }
    fn materialized(self: Box<Self>) -> Network {
        Network::new(self.materialize())
    }
    fn visited(&self, visitor: &mut dyn AnyVisitor) {
        self.visit(&mut Visitor(visitor));
    }
    fn mapped(self: Box<Self>, mapper: &mut dyn AnyMapper) -> Network {
        Network::new(self.map(&mut Mapper(mapper)))
    }
}

impl Clone for Network {
    fn clone(&self) -> Self {
        self.inner.copied().with_objective(self.objective)
    }
}

impl Denoiser for Network {
    fn forward(
        &self,
        x: Tensor<4>,
        c_noise: Tensor<1>,
        label: Option<Tensor<1, Int>>,
        pass: &Pass,
    ) -> Tensor<4> {
        self.inner.denoise(x, c_noise, label, pass)
    }

    fn objective(&self) -> Objective {
        self.objective
    }
}

impl Module for Network {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.inner.all_devices(devices)
    }
    fn fork(self, device: &Device) -> Self {
        let objective = self.objective;
        self.inner.forked(device).with_objective(objective)
    }
    fn to_device(self, device: &Device) -> Self {
        let objective = self.objective;
        self.inner.on_device(device).with_objective(objective)
    }
    fn train(self) -> Self {
        let objective = self.objective;
        self.inner.in_training().with_objective(objective)
    }
    fn valid(&self) -> Self {
        let objective = self.objective;
        self.inner.without_autodiff().with_objective(objective)
    }
    fn materialize(self) -> Self {
        let objective = self.objective;
        self.inner.materialized().with_objective(objective)
    }
    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.inner.visited(&mut Generic(visitor));
    }
    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        let objective = self.objective;
        self.inner.mapped(&mut Generic(mapper)).with_objective(objective)
    }
}

/// burn's `ModuleVisitor` without generics. A parameter is a `Param` of a float, int or bool
/// tensor, or of a flag.
trait AnyVisitor {
    fn enter(&mut self, name: &str, container: &str);
    fn exit(&mut self, name: &str, container: &str);
    fn param(&mut self, param: &dyn Any);
}

/// burn's `ModuleMapper` without generics: a parameter comes back as what it was.
trait AnyMapper {
    fn enter(&mut self, name: &str, container: &str);
    fn exit(&mut self, name: &str, container: &str);
    fn param(&mut self, param: Box<dyn Any>) -> Box<dyn Any>;
}

/// A visitor or a mapper of burn's, from outside the object.
struct Generic<'a, T>(&'a mut T);

/// Tries every number of axes that a parameter can have.
macro_rules! of_any_rank {
    ($try:ident) => {
        $try!(1 2 3 4 5 6 7 8)
    };
}

impl<V: ModuleVisitor> AnyVisitor for Generic<'_, V> {
    fn enter(&mut self, name: &str, container: &str) {
        self.0.enter_module(name, container);
    }
    fn exit(&mut self, name: &str, container: &str) {
        self.0.exit_module(name, container);
    }
    fn param(&mut self, param: &dyn Any) {
        macro_rules! visit {
            ($($rank:literal)*) => {$(
                if let Some(param) = param.downcast_ref::<Param<Tensor<$rank>>>() {
                    return self.0.visit_float(param);
                }
                if let Some(param) = param.downcast_ref::<Param<Tensor<$rank, Int>>>() {
                    return self.0.visit_int(param);
                }
                if let Some(param) = param.downcast_ref::<Param<Tensor<$rank, Bool>>>() {
                    return self.0.visit_bool(param);
                }
            )*};
        }
        of_any_rank!(visit);
        if let Some(flag) = param.downcast_ref::<Param<Flag>>() {
            self.0.visit_flag(flag);
        }
    }
}

impl<M: ModuleMapper> AnyMapper for Generic<'_, M> {
    fn enter(&mut self, name: &str, container: &str) {
        self.0.enter_module(name, container);
    }
    fn exit(&mut self, name: &str, container: &str) {
        self.0.exit_module(name, container);
    }
    fn param(&mut self, param: Box<dyn Any>) -> Box<dyn Any> {
        macro_rules! map {
            ($($rank:literal)*) => {{
                let rest = param;
                $(
                    let rest = match rest.downcast::<Param<Tensor<$rank>>>() {
                        Ok(param) => return Box::new(self.0.map_float(*param)),
                        Err(other) => other,
                    };
                    let rest = match rest.downcast::<Param<Tensor<$rank, Int>>>() {
                        Ok(param) => return Box::new(self.0.map_int(*param)),
                        Err(other) => other,
                    };
                    let rest = match rest.downcast::<Param<Tensor<$rank, Bool>>>() {
                        Ok(param) => return Box::new(self.0.map_bool(*param)),
                        Err(other) => other,
                    };
                )*
                rest
            }};
        }
        match of_any_rank!(map).downcast::<Param<Flag>>() {
            Ok(flag) => Box::new(self.0.map_flag(*flag)),
            Err(other) => other,
        }
    }
}

/// What the network's own module sees of a visitor.
struct Visitor<'a>(&'a mut dyn AnyVisitor);

impl ModuleVisitor for Visitor<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.param(param);
    }
    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        self.0.param(param);
    }
    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        self.0.param(param);
    }
    fn visit_flag(&mut self, flag: &Param<Flag>) {
        self.0.param(flag);
    }
    fn enter_module(&mut self, name: &str, container: &str) {
        self.0.enter(name, container);
    }
    fn exit_module(&mut self, name: &str, container: &str) {
        self.0.exit(name, container);
    }
}

/// What the network's own module sees of a mapper.
struct Mapper<'a>(&'a mut dyn AnyMapper);

impl Mapper<'_> {
    #[allow(clippy::unreachable, reason = "what is mapped comes back as the type that it was")]
    fn through<P: Any>(&mut self, param: P) -> P {
        match self.0.param(Box::new(param)).downcast() {
            Ok(param) => *param,
            Err(_) => unreachable!("a mapper gave back another type"),
        }
    }
}

impl ModuleMapper for Mapper<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.0.enter(name, container);
    }
    fn exit_module(&mut self, name: &str, container: &str) {
        self.0.exit(name, container);
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.through(param)
    }
    fn map_int<const D: usize>(&mut self, param: Param<Tensor<D, Int>>) -> Param<Tensor<D, Int>> {
        self.through(param)
    }
    fn map_bool<const D: usize>(
        &mut self,
        param: Param<Tensor<D, Bool>>,
    ) -> Param<Tensor<D, Bool>> {
        self.through(param)
    }
    fn map_flag(&mut self, flag: Param<Flag>) -> Param<Flag> {
        self.through(flag)
    }
}

#[cfg(test)]
mod tests {
    use burn::module::ParamId;

    use super::*;

    /// Parameters of every kind.
    #[derive(Module, Debug)]
    struct Every {
        one: Param<Tensor<1>>,
        eight: Param<Tensor<8>>,
        int: Param<Tensor<2, Int>>,
        bool: Param<Tensor<3, Bool>>,
    }

    impl Denoiser for Every {
        fn forward(
            &self,
            x: Tensor<4>,
            _: Tensor<1>,
            _: Option<Tensor<1, Int>>,
            _: &Pass,
        ) -> Tensor<4> {
            x
        }
    }

    /// What a visitor and a mapper meet, in order.
    #[derive(Default, PartialEq, Debug)]
    struct Met(Vec<String>);

    impl Met {
        fn param(&mut self, what: &str, id: ParamId, rank: usize) {
            self.0.push(format!("{what} {id} {rank}"));
        }
    }

    impl ModuleVisitor for Met {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.0.push(format!("{name} {container}"));
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.param("float", param.id, D);
        }
        fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
            self.param("int", param.id, D);
        }
        fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
            self.param("bool", param.id, D);
        }
    }

    impl ModuleMapper for Met {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.0.push(format!("{name} {container}"));
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            self.param("float", param.id, D);
            param
        }
        fn map_int<const D: usize>(
            &mut self,
            param: Param<Tensor<D, Int>>,
        ) -> Param<Tensor<D, Int>> {
            self.param("int", param.id, D);
            param
        }
        fn map_bool<const D: usize>(
            &mut self,
            param: Param<Tensor<D, Bool>>,
        ) -> Param<Tensor<D, Bool>> {
            self.param("bool", param.id, D);
            param
        }
    }

    #[test]
    fn a_visitor_and_a_mapper_meet_what_they_meet_in_the_module_itself() {
        let device = Device::flex();
        let module = Every {
            one: Param::from_tensor(Tensor::zeros([2], &device)),
            eight: Param::from_tensor(Tensor::zeros([1; 8], &device)),
            int: Param::initialized(ParamId::new(), Tensor::zeros([1, 1], &device)),
            bool: Param::initialized(
                ParamId::new(),
                Tensor::<3>::zeros([1, 1, 1], &device).equal_elem(0.0),
            ),
        };
        let (mut own, mut through, mut mapped, mut again) = <(Met, Met, Met, Met)>::default();
        module.visit(&mut own);
        let network = Network::new(module);
        network.visit(&mut through);
        let network = network.map(&mut mapped);
        network.visit(&mut again);
        assert_eq!(own.0.len(), 8, "{own:?}");
        assert_eq!((&through, &mapped, &again), (&own, &own, &own));
    }
}

use std::fmt;

use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor,
};
use burn::tensor::Device;

use crate::Structure;

/// How an adapter's factors act.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterForm {
    /// How `T` is made.
    pub structure: Structure,
    /// Which of the weight's fused projections are adapted; empty where it is one projection.
    pub fused: Vec<bool>,
    /// The update's factor: `alpha / rank`, or `alpha / sqrt(rank)` with rank-stabilised scaling.
    pub scale: f64,
    /// Probability of dropout on the adapter's input while training.
    pub dropout: f64,
}

/// What kind of container a form says it is, to visitors.
const KIND: &str = "AdapterForm";

impl AdapterForm {
    /// A form without fused projections and dropout.
    pub fn new(structure: Structure, scale: f64) -> Self {
        Self {
            structure,
            fused: Vec::new(),
            scale,
            dropout: 0.0,
        }
    }

    /// How many projections are adapted: `g`; 1 where none are fused.
    pub fn groups(&self) -> usize {
        match self.fused.len() {
            0 => 1,
            _ => self.fused.iter().filter(|adapted| **adapted).count(),
        }
    }

    /// The form that a visitor has entered, where it is one.
    pub(crate) fn entered(name: &str, container_type: &str) -> Option<Self> {
        if container_type != KIND {
            return None;
        }
        let mut words = name.split(' ');
        let structure = words.next()?.parse().ok()?;
        let fused = words.next()?.bytes().skip(1).map(|byte| byte == b'1');
        let mut number = || Some(f64::from_bits(words.next()?.parse().ok()?));
        Some(Self {
            structure,
            fused: fused.collect(),
            scale: number()?,
            dropout: number()?,
        })
    }

    /// What [`Self::entered`] reads. A module shows visitors nothing but parameters and names, so
    /// that this is the name of an empty container.
    fn name(&self) -> String {
        let fused: String = self
            .fused
            .iter()
            .map(|adapted| if *adapted { '1' } else { '0' })
            .collect();
        let (scale, dropout) = (self.scale.to_bits(), self.dropout.to_bits());
        format!("{} p{fused} {scale} {dropout}", self.structure)
    }
}

impl fmt::Display for AdapterForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, scale {}", self.structure, self.scale)
    }
}

impl Module for AdapterForm {
    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        let name = self.name();
        visitor.enter_module(&name, KIND);
        visitor.exit_module(&name, KIND);
    }

    fn map<M: ModuleMapper>(self, _mapper: &mut M) -> Self {
        self
    }

    fn to_device(self, _device: &Device) -> Self {
        self
    }

    fn fork(self, _device: &Device) -> Self {
        self
    }

    fn collect_devices(&self, devices: Devices) -> Devices {
        devices
    }

    fn materialize(self) -> Self {
        self
    }

    fn valid(&self) -> Self {
        self.clone()
    }

    fn train(self) -> Self {
        self
    }
}

impl ModuleDisplayDefault for AdapterForm {
    fn content(&self, content: Content) -> Option<Content> {
        content.add_formatted(&self.to_string()).optional()
    }
}

impl ModuleDisplay for AdapterForm {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn visitors_are_told_the_form_to_the_bit() {
        for structure in Structure::ALL {
            for fused in [vec![], vec![true], vec![true, false, true]] {
                let form = AdapterForm {
                    structure,
                    fused,
                    scale: 16.0 / 3f64.sqrt(),
                    dropout: 0.1,
                };
                assert_eq!(AdapterForm::entered(&form.name(), KIND), Some(form.clone()));
                assert_eq!(AdapterForm::entered(&form.name(), "Struct:Adapter"), None);
            }
        }
        assert_eq!(AdapterForm::entered("shim p1", KIND), None);
    }
}

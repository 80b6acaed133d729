use std::fmt;

use burn::module::ModuleVisitor;

use crate::adapter::methods::definition::AdapterMethod;

/// How an adapter's factors act.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterForm {
    /// The method: which factors there are, and what they do.
    pub method: AdapterMethod,
    /// Which of the weight's fused projections are adapted; empty where it is one projection.
    pub fused: Vec<bool>,
    /// The update's factor: `alpha / rank`, or `alpha / sqrt(rank)` with rank-stabilised scaling.
    pub scale: f64,
    /// Probability of dropout on the adapter's input while training.
    pub dropout: f64,
}

/// The kind of container as which a form shows itself to visitors.
const KIND: &str = "AdapterForm";

impl AdapterForm {
    /// A form without fused projections and dropout.
    pub fn new(method: impl Into<AdapterMethod>, scale: f64) -> Self {
        Self {
            method: method.into(),
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

    /// Shows the form to a visitor, as the name of an empty container.
    ///
    /// There is no other way. Burn 0.22 keeps a reparameterization behind a private trait, and a visitor of a
    /// module sees its parameters and the names of its containers, and nothing else: no type, no field that is not a
    /// parameter. Only [`Param::reparameterization`](burn::module::Param::reparameterization) gives an [`Adapter`]
    /// with its form, and that needs the field of a model whose type is known. An integer parameter could hold the
    /// form, but it would be part of records and of the parameters that a device and an optimizer see.
    ///
    /// [`Adapter`]: crate::Adapter
    pub(super) fn show<V: ModuleVisitor>(&self, visitor: &mut V) {
        let name = self.name();
        visitor.enter_module(&name, KIND);
        visitor.exit_module(&name, KIND);
    }

    /// The form that [`Self::show`] shows, where this container is one.
    pub(super) fn shown(name: &str, container_type: &str) -> Option<Self> {
        if container_type != KIND {
            return None;
        }
        let mut words = name.split(' ');
        let method = words.next()?.parse().ok()?;
        let fused = words.next()?.bytes().skip(1).map(|byte| byte == b'1');
        let mut number = || Some(f64::from_bits(words.next()?.parse().ok()?));
        Some(Self {
            method,
            fused: fused.collect(),
            scale: number()?,
            dropout: number()?,
        })
    }

    fn name(&self) -> String {
        let fused: String = self
            .fused
            .iter()
            .map(|adapted| if *adapted { '1' } else { '0' })
            .collect();
        let (scale, dropout) = (self.scale.to_bits(), self.dropout.to_bits());
        format!("{} p{fused} {scale} {dropout}", self.method)
    }
}

impl fmt::Display for AdapterForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, scale {}", self.method, self.scale)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn visitors_see_the_form_to_the_bit() {
        for method in AdapterMethod::all() {
            for fused in [vec![], vec![true], vec![true, false, true]] {
                let form = AdapterForm {
                    method,
                    fused,
                    scale: 16.0 / 3f64.sqrt(),
                    dropout: 0.1,
                };
                assert_eq!(AdapterForm::shown(&form.name(), KIND), Some(form.clone()));
                assert_eq!(AdapterForm::shown(&form.name(), "Struct:Adapter"), None);
            }
        }
        assert_eq!(AdapterForm::shown("shim p1", KIND), None);
    }
}

//! Reads losses from the device without making every step wait for them.

use burn::tensor::{Device, Tensor};
use mtlora_core::{capabilities, read};

use crate::training::error::FitError;

/// On devices where reading waits for the computation, the losses of this many steps are read together, so that only
/// one step in this many has to wait.
const READ_TOGETHER: usize = 8;

/// When the loss of a step is read from the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LossReading {
    /// During the step, before its gradients are computed.
    AtOnce,
    /// Some steps later, because reading waits until the device has computed everything that is queued.
    Late,
}

impl LossReading {
    /// The mode that suits a device.
    pub(crate) fn of(device: &Device) -> Self {
        if capabilities(device).eager {
            Self::AtOnce
        } else {
            Self::Late
        }
    }
}

/// The loss of a step: a sum of terms, some of which may still be on the device.
#[derive(Debug)]
pub(crate) struct StepLoss {
    reading: LossReading,
    step: usize,
    /// The sum of the terms that have been read.
    sum: f64,
    unread: Vec<Unread>,
}

#[derive(Debug)]
struct Unread {
    /// The shape is `[1]`; the tensor has no autodiff graph.
    term: Tensor<1>,
    divisor: f64,
}

impl StepLoss {
    /// The loss of step number `step`, counted from 1, before any term is added.
    pub(crate) fn new(step: usize, reading: LossReading) -> Self {
        Self {
            reading,
            step,
            sum: 0.0,
            unread: Vec::new(),
        }
    }

    /// Adds `term`, of shape `[1]`, divided by `divisor`.
    ///
    /// # Errors
    /// When losses are read at once and the term is not finite or the device fails.
    pub(crate) fn add(&mut self, term: &Tensor<1>, divisor: f64) -> Result<(), FitError> {
        match self.reading {
            LossReading::AtOnce => {
                let value = read(term.clone());
                let value = value.map_err(|error| FitError::Device(error.to_string()))?;
                self.add_value(value.into_iter().sum(), divisor)
            }
            LossReading::Late => {
                let term = term.clone().inner();
                self.unread.push(Unread { term, divisor });
                Ok(())
            }
        }
    }

    /// The number of the step, counted from 1.
    pub(crate) fn step(&self) -> usize {
        self.step
    }

    /// Adds the loss that another rank computed and read.
    pub(crate) fn add_read(&mut self, loss: f64) {
        self.sum += loss;
    }

    /// The sum of the terms that have been read.
    pub(crate) fn read_so_far(&self) -> f64 {
        self.sum
    }

    fn add_value(&mut self, value: f32, divisor: f64) -> Result<(), FitError> {
        if !value.is_finite() {
            return Err(FitError::NotFinite {
                step: self.step,
                loss: value,
            });
        }
        self.sum += f64::from(value) / divisor;
        Ok(())
    }
}

/// Items whose [`StepLoss`] has not been read yet, in the order of the steps.
pub(crate) struct LossQueue<T> {
    reading: LossReading,
    waiting: Vec<(T, StepLoss)>,
}

impl<T> LossQueue<T> {
    /// An empty queue.
    pub(crate) fn new(reading: LossReading) -> Self {
        Self {
            reading,
            waiting: Vec::new(),
        }
    }

    /// Appends the loss of a step and the item that waits for it.
    pub(crate) fn push(&mut self, one: T, loss: StepLoss) {
        self.waiting.push((one, loss));
    }

    /// Whether the losses should be [read](Self::read) now.
    pub(crate) fn is_due(&self) -> bool {
        match self.reading {
            LossReading::AtOnce => !self.waiting.is_empty(),
            LossReading::Late => self.waiting.len() >= READ_TOGETHER,
        }
    }

    /// Reads all losses from the device in one transfer, and passes each item with its loss to `then`, in order.
    ///
    /// # Errors
    /// When the device fails, a loss is not finite (the items before it are passed on first), or `then` fails.
    pub(crate) fn read(
        &mut self,
        mut then: impl FnMut(T, f64) -> Result<(), FitError>,
    ) -> Result<(), FitError> {
        let waiting = std::mem::take(&mut self.waiting);
        let unread = waiting.iter().flat_map(|(_, loss)| &loss.unread);
        let terms: Vec<Tensor<1>> = unread.map(|one| one.term.clone()).collect();
        let mut values = Vec::new();
        if !terms.is_empty() {
            let read = read(Tensor::cat(terms, 0));
            values = read.map_err(|error| FitError::Device(error.to_string()))?;
        }
        let mut values = values.into_iter();
        for (one, mut loss) in waiting {
            for Unread { divisor, .. } in std::mem::take(&mut loss.unread) {
                let value = values.next().unwrap_or(f32::NAN);
                loss.add_value(value, divisor)?;
            }
            then(one, loss.sum)?;
        }
        Ok(())
    }
}

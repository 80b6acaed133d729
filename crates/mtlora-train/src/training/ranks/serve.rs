//! What the ranks after rank 0 do.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::Device;
use mtlora_core::load_state;

use crate::training::error::FitError;
use crate::training::fit::fingerprints;
use crate::training::late_loss::LossReading;
use crate::training::learner::Learner;
use crate::training::ranks::error::RanksError;
use crate::training::ranks::group::ProcessGroup;
use crate::training::ranks::lead::{identity, parts_of_rank};
use crate::training::ranks::message::{
    Command, Reply, Round, gradients_of, read_values, shapes_of,
};
use crate::training::step::{Made, batch_gradients, seed_part};

/// On the ranks after rank 0: computes what rank 0 asks for, until its training ends. `model`, the learner and `device` are
/// those that rank 0 passes to [`fit_with`](crate::fit_with).
///
/// # Errors
/// When rank 0 is gone, or asks for something else than this build knows. Errors of the learner are sent to rank 0, whose
/// training they end.
pub fn serve<L: Learner>(
    model: L::Model,
    learner: &L,
    device: &Device,
    group: &ProcessGroup<'_>,
) -> Result<(), FitError> {
    let shapes = shapes_of(&model);
    let mut server = Server {
        model,
        learner,
        device,
        group,
        shapes,
    };
    loop {
        let answered = match group.command()? {
            Command::Begin => continue,
            Command::Done | Command::Leave => return Ok(()),
            Command::Compare => {
                let fingerprints = fingerprints(&server.model, learner);
                Ok(Reply::Identity(identity(&server.model, fingerprints)))
            }
            Command::Gradients(round) => match server.gradients(&round) {
                Ok(None) => continue,
                Ok(Some(reply)) => Ok(reply),
                Err(FitError::NotFinite { loss, .. }) => Ok(Reply::NotFinite(loss)),
                Err(error) => Err(error),
            },
            Command::Evaluate { values } => server.evaluate(&values),
        };
        let reply = answered.unwrap_or_else(|error| Reply::Failed(error.to_string()));
        group.reply(&reply)?;
    }
}

struct Server<'a, L: Learner> {
    model: L::Model,
    learner: &'a L,
    device: &'a Device,
    group: &'a ProcessGroup<'a>,
    /// The paths and shapes of the trained parameters.
    shapes: BTreeMap<String, Vec<usize>>,
}

impl<L: Learner> Server<'_, L> {
    /// Takes over the values of rank 0.
    fn take(&mut self, values: &[u8]) -> Result<(), FitError> {
        let state = read_values(values, &self.shapes)?;
        self.model = load_state(self.model.clone(), state)?;
        Ok(())
    }

    /// The gradients of this rank's micro-batch; `None` if it has none in this round.
    fn gradients(&mut self, round: &Round) -> Result<Option<Reply>, FitError> {
        let rank = self.group.rank();
        let batch = rank.checked_sub(1).and_then(|at| round.batches.get(at));
        let taken = round.values.as_ref().map(|values| self.take(values));
        let Some(batch) = batch else {
            // Rank 0 waits for no reply, and the values come again with the next step.
            return Ok(None);
        };
        taken.transpose()?;
        let count = self.learner.lengths().len();
        if batch.examples.iter().any(|example| *example >= count) {
            return Err(RanksError::Message { rank: 0 }.into());
        }
        let (learner, device, model) = (self.learner, self.device, &self.model);
        let mut made = Made::new(round.step, LossReading::AtOnce);
        seed_part(device, round.random, round.first + rank);
        let loss = learner.loss(model, &batch.examples, device)?;
        let gradients = batch_gradients(model, loss, batch.divisors, None, &mut made)?;
        Ok(Some(Reply::Gradients {
            tokens: made.tokens,
            loss: made.loss.read_so_far(),
            gradients: gradients_of(model, gradients)?,
        }))
    }

    /// This rank's parts of an evaluation.
    fn evaluate(&mut self, values: &[u8]) -> Result<Reply, FitError> {
        self.take(values)?;
        let Some(evaluation) = self.learner.evaluation_parts() else {
            return Err(RanksError::Message { rank: 0 }.into());
        };
        let device = self.device.clone().inner();
        let model = self.model.valid();
        let parts = parts_of_rank(evaluation, self.group, &model, &device)?;
        Ok(Reply::Parts(parts))
    }
}

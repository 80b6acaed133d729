//! What rank 0 shares with the others.

use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Device, Tensor};

use crate::metrics::labels::Scores;
use crate::training::error::FitError;
use crate::training::learner::{BatchLoss, EvaluationParts, Learner};
use crate::training::normalization::Divisors;
use crate::training::ranks::error::RanksError;
use crate::training::ranks::group::ProcessGroup;
use crate::training::ranks::message::{
    Command, Identity, MicroBatch, Reply, Round, read_gradients, shapes_of, values_of,
};
use crate::training::snapshot::Fingerprints;
use crate::training::step::{Made, StepMasks, batch_gradients};

/// What a rank trains.
pub(super) fn identity<M: Module>(model: &M, fingerprints: Fingerprints) -> Identity {
    let Fingerprints { data, base } = fingerprints;
    Identity {
        version: env!("CARGO_PKG_VERSION").to_string(),
        data,
        base,
        trains: format!("{:?}", shapes_of(model)),
    }
}

/// Checks that all ranks train the same.
///
/// # Errors
/// If one does not, or has failed.
pub(crate) fn compare<M: Module>(
    group: &ProcessGroup<'_>,
    model: &M,
    fingerprints: Fingerprints,
) -> Result<(), FitError> {
    group.order(&Command::Compare)?;
    let own = identity(model, fingerprints);
    group.replies(group.size() - 1, |rank, reply| {
        let Reply::Identity(other) = reply else {
            return Err(RanksError::Message { rank }.into());
        };
        match own.difference(&other) {
            Some(what) => Err(RanksError::Differs { rank, what }.into()),
            None => Ok(()),
        }
    })
}

/// Ends the training of the other ranks.
pub(crate) fn done(group: &ProcessGroup<'_>) {
    // Where a rank is gone, there is nobody left to tell.
    let _ = group.order(&Command::Done);
}

/// As [`accumulate`](crate::training::step::accumulate), with the micro-batches dealt out to all ranks in turn. Gradients and
/// losses are added in the order of the micro-batches. `made` is a step of which nothing has been made.
///
/// # Errors
/// As there, and when another rank fails or is gone.
pub(crate) fn accumulate_on<M: Module>(
    group: &ProcessGroup<'_>,
    mut made: Made,
    model: &M,
    batches: &[(&[usize], Divisors)],
    mut penalty: Option<Tensor<1>>,
    device: &Device,
    loss_of: impl Fn(&M, &[usize]) -> Result<BatchLoss, FitError>,
) -> Result<(GradientsParams, Made), FitError> {
    let mut accumulator = GradientsAccumulator::new();
    let step = made.loss.step();
    let mut masks = StepMasks::begin(device);
    let mut values = Some(values_of(model)?);
    for (round, batches) in batches.chunks(group.size()).enumerate() {
        let Some(((own, divisors), others)) = batches.split_first() else {
            continue;
        };
        let first = round * group.size();
        let of_other = |(examples, divisors): &(&[usize], Divisors)| MicroBatch {
            examples: examples.to_vec(),
            divisors: *divisors,
        };
        group.order(&Command::Gradients(Round {
            step,
            random: masks.start,
            first,
            values: values.take(),
            batches: others.iter().map(of_other).collect(),
        }))?;
        let own = masks.of(first, || {
            let batch = loss_of(model, own)?;
            batch_gradients(model, batch, *divisors, penalty.take(), &mut made)
        });
        let own = own.map(|gradients| accumulator.accumulate(model, gradients));
        let others = group.replies(others.len(), |rank, reply| {
            // After an error of its own, rank 0 only waits for the others.
            if own.is_err() {
                return Ok(());
            }
            match reply {
                Reply::Gradients {
                    tokens,
                    loss,
                    gradients,
                } => {
                    made.tokens += tokens;
                    made.loss.add_read(loss);
                    let gradients = read_gradients(model, &gradients, rank)?;
                    accumulator.accumulate(model, gradients);
                    Ok(())
                }
                Reply::NotFinite(loss) => Err(FitError::NotFinite { step, loss }),
                _ => Err(RanksError::Message { rank }.into()),
            }
        });
        own?;
        others?;
    }
    masks.end();
    Ok((accumulator.grads(), made))
}

/// Evaluates `model`, which has the values of `trained` without gradients, on all ranks.
///
/// # Errors
/// When the model cannot be scored, or another rank fails or is gone.
pub(crate) fn evaluate_on<L: Learner>(
    group: &ProcessGroup<'_>,
    learner: &L,
    trained: &L::Model,
    device: &Device,
) -> Result<Scores, FitError> {
    let model = trained.valid();
    let Some(evaluation) = learner.evaluation_parts() else {
        return learner.evaluate(&model, device);
    };
    group.order(&Command::Evaluate {
        values: values_of(trained)?,
    })?;
    let count = evaluation.parts();
    let own = parts_of_rank(evaluation, group, &model, device);
    let mut parts = vec![Vec::new(); count];
    let mut place = |rank: usize, found: Vec<Vec<f64>>| {
        let places = parts.iter_mut().skip(rank).step_by(group.size());
        places.zip(found).for_each(|(place, part)| *place = part);
    };
    let others = group.replies(group.size() - 1, |rank, reply| match reply {
        Reply::Parts(found) => {
            place(rank, found);
            Ok(())
        }
        _ => Err(RanksError::Message { rank }.into()),
    });
    place(0, own?);
    others?;
    evaluation.scores(parts)
}

/// The parts of an evaluation that this rank computes.
pub(super) fn parts_of_rank<M>(
    evaluation: &dyn EvaluationParts<M>,
    group: &ProcessGroup<'_>,
    model: &M,
    device: &Device,
) -> Result<Vec<Vec<f64>>, FitError> {
    let own = (group.rank()..evaluation.parts()).step_by(group.size());
    own.map(|part| evaluation.part(model, part, device))
        .collect()
}

//! What training has to know of the adapter's method.

use std::error::Error;

use mtlora::core::AdaLoraHooks;
use mtlora::models::{AdapterConfig, TrainedFormat};
use mtlora::train::{AdapterSettings, MethodName, RunConfig, TrainOptions};

/// Refuses to start from an adapter whose method has changed it during training, such as AdaLoRA: its ranks differ.
pub(super) fn refuse_untrainable(settings: &AdapterSettings) -> Result<(), Box<dyn Error>> {
    let from = match (settings.method, &settings.init_from) {
        (MethodName::MtLora, Some(from)) => from,
        _ => return Ok(()),
    };
    let method = AdapterConfig::from_folder(from)?.method;
    if !method.needs_hooks() {
        return Ok(());
    }
    let place = from.display();
    Err(format!(
        "{place}: its adapter has the method {method}, from which no training can start, because its ranks are pruned; \
         turn it into plain LoRA with `mtlora export --run {place} --out LORA`, and start from that with \
         --init-from LORA"
    )
    .into())
}

/// A note for the user if no step has a learning rate above zero.
fn learns_nothing(options: &TrainOptions, steps: usize) -> Option<&'static str> {
    let schedule = options.schedule(steps);
    let is_zero = steps > 0 && (0..steps).all(|step| schedule.rate(step) == 0.0);
    is_zero.then_some(
        "the only step belongs to the warm-up and has a learning rate of 0, so nothing will be learned: train for more steps, \
         or set --warmup-ratio 0",
    )
}

/// A training's adapter method with the number of steps, which only the data tells.
pub(super) struct Scheduled {
    /// The format of the trained values.
    pub(super) format: TrainedFormat,
    /// The training hooks of the method, if it needs any.
    pub(super) hooks: Option<AdaLoraHooks>,
}

impl Scheduled {
    /// The method for a training on examples with these lengths in tokens.
    ///
    /// # Errors
    /// If the method's schedule does not fit the number of steps.
    pub(super) fn new<K>(
        config: &RunConfig<K>,
        lengths: &[usize],
        format: TrainedFormat,
    ) -> Result<Self, Box<dyn Error>> {
        let steps = config.training.steps(lengths);
        if let Some(nothing) = learns_nothing(&config.training, steps) {
            note!("{nothing}");
        }
        let adapter = &config.base.adapter;
        Ok(Self {
            hooks: adapter.hooks(steps)?,
            format: match adapter.schedule() {
                Some(schedule) => format.with_schedule(schedule, steps),
                None => format,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_single_step_of_warm_up_learns_nothing() {
        let options = TrainOptions::default();
        assert!(options.warmup_ratio > 0.0 && learns_nothing(&options, 1).is_some());
        assert_eq!(learns_nothing(&options, 2), None);
        let without = TrainOptions {
            warmup_ratio: 0.0,
            ..options
        };
        assert_eq!(learns_nothing(&without, 1), None);
    }
}

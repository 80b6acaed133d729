//! What training has to know of the adapter's method.

use std::error::Error;

use mtlora::core::AdaLoraHooks;
use mtlora::models::{AdapterConfig, TrainedFormat};
use mtlora::train::{AdapterSettings, MethodName, RunConfig};

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

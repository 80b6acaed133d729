//! Reports the result of a measurement.

use std::error::Error;

use burn::tensor::Device;
use mtlora::core::{BaseDtype, CpuPath, capabilities};
use mtlora::train::bench::peak_gflops;
use serde::Serialize;

use super::card::Card;
use super::device_work::DeviceWork;
use super::disturbance::{Disturbance, Taken};
use super::model::ModelArgs;
use crate::cli::console::output;
use crate::cli::model::device;

/// The device of a measurement.
pub(super) struct Place {
    name: String,
    pub(super) device: Device,
    base_dtype: BaseDtype,
    peak_gflops: Option<f64>,
    /// Which of the processor's instructions the kernels use.
    cpu: Option<CpuPath>,
}

impl Place {
    /// Opens the device with this name, without gradients, and measures its peak rate for a base model in this
    /// precision. Call this before the work.
    pub(super) fn open(name: Option<&str>, base_dtype: BaseDtype) -> Result<Self, Box<dyn Error>> {
        let name = device::name_or_default(name)?;
        let device = device::open(&name)?;
        Ok(Self {
            base_dtype,
            peak_gflops: peak(&device, base_dtype),
            cpu: capabilities(&device).cpu.map(|choice| choice.path),
            device,
            name,
        })
    }
}

/// The peak rate of the processor; `None` if the device is not the processor, because the measuring loop runs there.
fn peak(device: &Device, base_dtype: BaseDtype) -> Option<f64> {
    capabilities(device)
        .on_host
        .then(|| peak_gflops(base_dtype))
}

/// Steps that were timed.
pub(super) struct Timed {
    /// The time of each step in seconds, without warm-up steps.
    pub(super) step_s: Vec<f64>,
    /// The time that others took from the processor meanwhile.
    pub(super) taken: Taken,
    /// What the device was asked to do, if it is not the processor.
    pub(super) device: Option<DeviceWork>,
}

/// The work that was measured, and the time that it took.
pub(super) struct Work {
    pub(super) timed: Timed,
    /// The time in seconds on which the rates are based.
    pub(super) seconds: f64,
    /// The number of sequences that were trained on or generated, over all steps.
    pub(super) examples: usize,
    /// The number of tokens that were trained on or generated, over all steps.
    pub(super) tokens: usize,
    /// The number of floating-point operations of the matrix products, over all steps.
    pub(super) flops: f64,
}

impl Work {
    /// Creates the result of repeating the same step. The rates are based on the median time, so that a single slow
    /// step does not matter.
    pub(super) fn repeated(
        timed: Timed,
        [examples, tokens]: [usize; 2],
        flops_per_step: f64,
    ) -> Self {
        let steps = timed.step_s.len();
        Self {
            seconds: median(&timed.step_s) * steps as f64,
            examples: examples * steps,
            tokens: tokens * steps,
            flops: flops_per_step * steps as f64,
            timed,
        }
    }
}

/// The JSON object of `--json`. `Settings` are the fields that only this command has.
#[derive(Serialize)]
struct Report<'a, Settings> {
    what: &'static str,
    model: &'a str,
    device: &'a str,
    threads: usize,
    cpu: Option<&'static str>,
    dtype: &'static str,
    #[serde(flatten)]
    settings: Settings,
    steps: usize,
    median_step_s: f64,
    examples_per_s: f64,
    tokens_per_s: f64,
    flops_per_step: f64,
    gflops: f64,
    peak_gflops: Option<f64>,
    fraction_of_peak: Option<f64>,
    disturbance: Option<&'a Disturbance>,
    peak_rss_mb: Option<f64>,
    device_work: Option<&'a DeviceWork>,
    card: Option<Card>,
    /// The least time of a step on that card.
    least_step_s: Option<f64>,
    step_s: &'a [f64],
}

/// Prints the result of a measurement.
pub(super) fn print(
    what: &'static str,
    model: &ModelArgs,
    place: &Place,
    settings: impl Serialize,
    work: &Work,
    json: bool,
) -> Result<(), Box<dyn Error>> {
    let device = place.name.as_str();
    let Timed {
        step_s,
        taken,
        device: asked,
    } = &work.timed;
    let flops_per_step = work.flops / step_s.len() as f64;
    let least = model.card.zip(asked.as_ref());
    let least =
        least.map(|(card, asked)| card.least_time(asked.moved_bytes_per_step(), flops_per_step));
    let per_second = |amount: f64| amount / work.seconds;
    let gflops = per_second(work.flops) / 1e9;
    // Other programs may have slowed down either measurement of the peak, so the larger one is used.
    let pair = place.peak_gflops.zip(peak(&place.device, place.base_dtype));
    let peak_gflops = pair.map(|(before, after)| before.max(after));
    // Work on another device needs little of the processor.
    let disturbance = pair.map(|(before, after)| Disturbance::of(*taken, [before, after]));
    let report = Report {
        what,
        model: model.name(),
        device,
        threads: rayon::current_num_threads(),
        cpu: place.cpu.map(CpuPath::name),
        dtype: "f32",
        settings,
        steps: step_s.len(),
        median_step_s: median(step_s),
        examples_per_s: per_second(work.examples as f64),
        tokens_per_s: per_second(work.tokens as f64),
        flops_per_step,
        gflops,
        peak_gflops,
        fraction_of_peak: peak_gflops.map(|peak| gflops / peak),
        disturbance: disturbance.as_ref(),
        peak_rss_mb: output::peak_rss_mb(),
        device_work: asked.as_ref(),
        card: model.card,
        least_step_s: least,
        step_s,
    };
    say!(
        "{what} of {} on {device}, threads {}: {:.4} s (median of {}), {:.1} examples and {:.0} \
         tokens per second",
        report.model,
        report.threads,
        report.median_step_s,
        report.steps,
        report.examples_per_s,
        report.tokens_per_s
    )?;
    if let (Some(peak), Some(fraction)) = (report.peak_gflops, report.fraction_of_peak) {
        say!("{gflops:.1} of at most {peak:.1} GFLOP/s: {fraction:.3} of the peak")?;
    }
    if let Some(disturbance) = report.disturbance {
        disturbance.say()?;
    }
    if let Some(memory) = report.peak_rss_mb {
        say!("peak resident memory: {memory:.0} MiB")?;
    }
    if let Some(asked) = report.device_work {
        asked.say(model.verbose)?;
    }
    if let Some(least) = report.least_step_s {
        say!(
            "a card with these rates needs {least:.6} s for a step or more: a lower bound, not a measurement"
        )?;
    }
    if json {
        output::json(&report)?;
    }
    Ok(())
}

/// The median: the middle value, or the mean of the two middle values.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted.len().saturating_sub(1) / 2, sorted.len() / 2);
    match (sorted.get(low), sorted.get(high)) {
        (Some(low), Some(high)) => (low + high) / 2.0,
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 9.0]), 3.0);
        assert_eq!(median(&[3.0, 1.0, 9.0, 5.0]), 4.0);
        let timed = Timed {
            step_s: vec![1.0, 9.0, 2.0],
            taken: Taken::default(),
            device: None,
        };
        let work = Work::repeated(timed, [4, 10], 7.0);
        assert_eq!((work.seconds, work.examples, work.tokens), (6.0, 12, 30));
        assert_eq!(work.flops, 21.0);
    }
}

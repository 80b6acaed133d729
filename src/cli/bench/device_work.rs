//! What a device is asked to do in a measurement.

use std::collections::BTreeMap;
use std::error::Error;

use burn::tensor::Device;
use mtlora::core::{DeviceCounts, capabilities, count_device_work};
use serde::Serialize;

/// What a device other than the processor is asked to do in one step, on average.
#[derive(Serialize)]
pub(super) struct DeviceWork {
    launches_per_step: f64,
    uploads_per_step: f64,
    uploaded_bytes_per_step: f64,
    /// How often a value is read, which waits until the device has computed all that is queued.
    waits_per_step: f64,
    downloaded_bytes_per_step: f64,
    /// The bytes that these launches read and write at least: the tensors of each operation, once.
    moved_bytes_per_step: f64,
    /// The number of different kernels, each of which is compiled once.
    kernels: usize,
    /// The number of kernels that were compiled in the second pass over the steps: 0 where every shape has been seen.
    new_kernels: usize,
    /// The memory that the device's allocator holds after the work, in MiB.
    memory_mb: Option<f64>,
    /// The launches of each kernel per step.
    launches: BTreeMap<String, f64>,
    /// The bytes of `moved_bytes_per_step` that are those of one kernel.
    moved_bytes: BTreeMap<String, f64>,
}

impl DeviceWork {
    /// Counts two passes of `work`, which makes `steps` steps. There is nothing to count where the device is the
    /// processor, and the work is not done.
    pub(super) fn of(
        device: &Device,
        steps: usize,
        mut work: impl FnMut() -> Result<(), Box<dyn Error>>,
    ) -> Result<Option<Self>, Box<dyn Error>> {
        if capabilities(device).on_host {
            return Ok(None);
        }
        let mut pass = || -> Result<DeviceCounts, Box<dyn Error>> {
            let (done, counts) = count_device_work(device, &mut work)?;
            done?;
            Ok(counts)
        };
        let (first, second) = (pass()?, pass()?);
        let per_step = |amount: u64| amount as f64 / steps as f64;
        let each = |amounts: &BTreeMap<String, u64>| {
            let amounts = amounts.iter();
            amounts
                .map(|(name, amount)| (name.clone(), per_step(*amount)))
                .collect()
        };
        let memory = device.memory_pool_usage();
        Ok(Some(Self {
            launches_per_step: per_step(second.total_launches()),
            uploads_per_step: per_step(second.uploads),
            uploaded_bytes_per_step: per_step(second.uploaded_bytes),
            waits_per_step: per_step(second.waits),
            downloaded_bytes_per_step: per_step(second.downloaded_bytes),
            kernels: second.kernels(),
            new_kernels: second.new_kernels(&first),
            memory_mb: memory.map(|usage| usage.bytes_reserved as f64 / f64::from(1 << 20)),
            moved_bytes_per_step: per_step(second.moved_bytes),
            launches: each(&second.launches),
            moved_bytes: each(&second.moved_by_kernel),
        }))
    }

    /// The bytes that a step moves at least.
    pub(super) fn moved_bytes_per_step(&self) -> f64 {
        self.moved_bytes_per_step
    }

    /// Prints what is asked, with `verbose` by kernel.
    pub(super) fn say(&self, verbose: bool) -> Result<(), Box<dyn Error>> {
        say!(
            "per step: {:.1} launches of {} kernels ({} compiled in a second pass), which move {:.2} MB or more; \
             {:.1} uploads with {:.0} bytes; {:.2} waits, for {:.0} bytes",
            self.launches_per_step,
            self.kernels,
            self.new_kernels,
            self.moved_bytes_per_step / 1e6,
            self.uploads_per_step,
            self.uploaded_bytes_per_step,
            self.waits_per_step,
            self.downloaded_bytes_per_step
        )?;
        if let Some(memory) = self.memory_mb {
            say!("memory held on the device: {memory:.0} MiB")?;
        }
        if !verbose {
            return Ok(());
        }
        say!("{:>8}  {:>10}  kernel", "launches", "MB")?;
        let mut launches: Vec<_> = self.launches.iter().collect();
        launches.sort_by(|a, b| b.1.total_cmp(a.1).then(a.0.cmp(b.0)));
        for (name, count) in launches {
            let moved = self.moved_bytes.get(name);
            let moved = moved.map_or_else(String::new, |bytes| format!("{:.3}", bytes / 1e6));
            say!("{count:>8.1}  {moved:>10}  {name}")?;
        }
        Ok(())
    }
}

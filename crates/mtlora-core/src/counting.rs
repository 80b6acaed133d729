//! What a device is asked to do: launches of kernels, different kernels, and uploads.

use std::collections::BTreeMap;

use burn::tensor::Device;

/// What a device was asked to do. Devices that are the processor itself are asked for nothing: their operations are
/// function calls.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceCounts {
    /// Launches of each kernel by its name. Kernels that Burn makes of several operations have one name together.
    pub launches: BTreeMap<String, u64>,
    /// Tensors that were made from values of the program.
    pub uploads: u64,
    /// Bytes of those tensors.
    pub uploaded_bytes: u64,
    /// The hashes of the kernels: different shapes of one name may be different kernels.
    kernels: std::collections::BTreeSet<String>,
}

impl DeviceCounts {
    /// All launches.
    pub fn total_launches(&self) -> u64 {
        self.launches.values().sum()
    }

    /// How many different kernels were launched. Each is compiled once in a process.
    pub fn kernels(&self) -> usize {
        self.kernels.len()
    }

    /// How many of the kernels were not launched in `earlier` work, and so had to be compiled.
    pub fn new_kernels(&self, earlier: &DeviceCounts) -> usize {
        self.kernels.difference(&earlier.kernels).count()
    }
}

/// Runs `work` and counts what devices are asked to do meanwhile, in the whole process. It waits for `device` before and
/// after the work, so that all of its operations are counted, and no earlier ones.
///
/// The counts are empty where no backend of the build queues operations (features `wgpu`, `cuda`, ...). One count may be
/// made at a time: another replaces it for as long as it lasts.
///
/// # Errors
/// When the device fails.
pub fn counted<R>(device: &Device, work: impl FnOnce() -> R) -> Result<(R, DeviceCounts), String> {
    let wait = || device.sync().map_err(|error| error.to_string());
    wait()?;
    let counter = backend::Counter::start();
    let result = work();
    wait()?;
    Ok((result, counter.finish()))
}

#[cfg(feature = "cube")]
mod backend {
    use std::sync::{Arc, Mutex, PoisonError};

    use burn::backend::fusion::observer::{BlockOperations, FusionObservation, FusionObserver};
    use burn::backend::ir::OperationIr;
    use burn_cubecl::cubecl::config::TypeNameFormatLevel;
    use burn_cubecl::cubecl::config::type_name_format;
    use burn_cubecl::cubecl::launched::LaunchedKernels;
    use burn_cubecl::cubecl::logging::{LaunchObservation, LaunchObserver};

    use super::DeviceCounts;

    #[derive(Default)]
    struct Counts(Mutex<DeviceCounts>);

    impl Counts {
        fn change(&self, change: impl FnOnce(&mut DeviceCounts)) {
            change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    impl LaunchObserver for Counts {
        fn launched(&self, kernel: &'static str) {
            let name = type_name_format(kernel, TypeNameFormatLevel::Balanced);
            self.change(|counts| *counts.launches.entry(name).or_default() += 1);
        }
    }

    impl FusionObserver for Counts {
        fn registered(&self, operation: &OperationIr) {
            let OperationIr::Init(made) = operation else {
                return;
            };
            let bytes = made.out.shape.num_elements() * made.out.dtype.size();
            self.change(|counts| {
                counts.uploads += 1;
                counts.uploaded_bytes += bytes as u64;
            });
        }

        fn block_starts(&self, _block: BlockOperations<'_>) {}

        fn block_ran(&self) {}
    }

    pub(super) struct Counter {
        counts: Arc<Counts>,
        kernels: LaunchedKernels,
        _launches: LaunchObservation,
        _operations: FusionObservation,
    }

    impl Counter {
        pub(super) fn start() -> Self {
            let counts = Arc::new(Counts::default());
            Self {
                kernels: LaunchedKernels::new(),
                _launches: LaunchObservation::new(counts.clone()),
                _operations: FusionObservation::new(counts.clone()),
                counts,
            }
        }

        pub(super) fn finish(self) -> DeviceCounts {
            let mut counts = DeviceCounts::default();
            self.counts.change(|counted| counts = counted.clone());
            let kernels = self.kernels.finish();
            counts.kernels = kernels.iter().map(|hash| format!("{hash:?}")).collect();
            counts
        }
    }
}

#[cfg(not(feature = "cube"))]
mod backend {
    use super::DeviceCounts;

    pub(super) struct Counter;

    impl Counter {
        pub(super) fn start() -> Self {
            Self
        }

        pub(super) fn finish(self) -> DeviceCounts {
            DeviceCounts::default()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use burn::tensor::{Tensor, TensorData};

    use super::*;
    use crate::capabilities;

    /// Three products and an upload of 24 bytes; the products have the same shapes, so that only the first of them
    /// compiles.
    #[test]
    fn a_small_graph_has_known_counts() {
        for named in crate::devices() {
            let device = named.device;
            let matrix = Tensor::<2>::ones([8, 8], &device);
            let product = || {
                let product = matrix.clone().matmul(matrix.clone());
                product.into_data()
            };
            let (_, first) = counted(&device, product).unwrap();
            let (_, again) = counted(&device, || (product(), product())).unwrap();
            let upload = || Tensor::<1>::from_data(TensorData::new(vec![1.0_f32; 6], [6]), &device);
            let (_, upload) = counted(&device, upload).unwrap();
            if capabilities(&device).eager {
                assert_eq!(
                    [first, again, upload],
                    [(); 3].map(|()| DeviceCounts::default())
                );
                continue;
            }
            assert!(first.total_launches() >= 1, "{first:?}");
            assert_eq!(
                (again.total_launches(), again.new_kernels(&first)),
                (2, 0),
                "{again:?}"
            );
            assert_eq!((again.uploads, again.uploaded_bytes), (0, 0));
            assert_eq!((upload.uploads, upload.uploaded_bytes), (1, 24));
        }
    }
}

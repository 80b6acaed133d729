//! What a device is asked to do: launches of kernels, different kernels, uploads, and reads, which wait.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

use burn::tensor::{Device, Tensor, TensorReadError};

/// How many tensors this process has [`read`].
static READS: AtomicU64 = AtomicU64::new(0);
/// How many bytes these have on their devices.
static READ_BYTES: AtomicU64 = AtomicU64::new(0);

/// The values of a tensor, in order, from whatever precision it is in. A device that queues operations computes all that are
/// queued first: [`DeviceCounts::waits`] counts these waits.
///
/// # Errors
/// When the device fails.
pub fn read<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, TensorReadError> {
    READS.fetch_add(1, Ordering::Relaxed);
    let bytes = tensor.shape().num_elements() * tensor.dtype().size();
    READ_BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
    tensor.try_into_vec_as()
}

/// What a device was asked to do. Devices that are the processor itself are asked for nothing: their operations are
/// function calls.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceCounts {
    /// Launches of each kernel by the name of its type, such as `DropoutKernel`. Kernels that Burn fuses from several
    /// operations share a name.
    pub launches: BTreeMap<String, u64>,
    /// Tensors that were made from values of the program.
    pub uploads: u64,
    /// Bytes of those tensors.
    pub uploaded_bytes: u64,
    /// Tensors that the program read with [`read`], for each of which it waited until the device had computed all that was
    /// queued.
    pub waits: u64,
    /// Bytes of those tensors.
    pub downloaded_bytes: u64,
    /// Bytes of the tensors that the launches read, and of those that they wrote and that something read later: what has to be
    /// moved at least, if no cache keeps a tensor from one launch to the next. An operation that Burn divides into several
    /// launches counts once.
    pub moved_bytes: u64,
    /// These bytes by kernel, for operations that are one launch.
    pub moved_by_kernel: BTreeMap<String, u64>,
    /// The hashes of the compiled kernels. One name may stand for several kernels, for instance for different shapes.
    kernels: BTreeSet<String>,
}

impl DeviceCounts {
    /// How often the kernel with this name was launched.
    pub fn launches_of(&self, kernel: &str) -> u64 {
        self.launches.get(kernel).copied().unwrap_or(0)
    }

    /// How many launches there were.
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
/// The counts are empty where no backend of the build queues operations (features `wgpu`, `cuda`, ...). Calls on several
/// threads wait for each other, so `work` must not call this function.
///
/// # Errors
/// When the device fails, with what it reports.
pub fn count_device_work<R>(
    device: &Device,
    work: impl FnOnce() -> R,
) -> Result<(R, DeviceCounts), String> {
    let wait = || device.sync().map_err(|error| error.to_string());
    let counter = backend::Counter::start(wait)?;
    let result = work();
    wait()?;
    Ok((result, counter.finish()))
}

#[cfg(feature = "cube")]
mod backend {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::atomic::Ordering;
    use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

    use burn::backend::fusion::observer::{BlockOperations, FusionObservation, FusionObserver};
    use burn::backend::ir::{BaseOperationIr, OperationIr, TensorIr, TensorStatus};
    use burn::tensor::DType;
    use burn::tensor::quantization::quantized_data_len;
    use burn_cubecl::cubecl::config::{TypeNameFormatLevel, type_name_format};
    use burn_cubecl::cubecl::launched::LaunchedKernels;
    use burn_cubecl::cubecl::logging::{LaunchObservation, LaunchObserver};

    use super::{DeviceCounts, READ_BYTES, READS};

    /// Held while a count lasts: there is one launch observer in a process.
    static COUNTING: Mutex<()> = Mutex::new(());

    #[derive(Default)]
    struct Counting {
        counts: DeviceCounts,
        /// The block of operations that runs.
        block: Option<Block>,
    }

    struct Block {
        /// Bytes that it moves.
        bytes: u64,
        /// The kernels that it has launched.
        launched: Vec<String>,
    }

    #[derive(Default)]
    struct Counts(Mutex<Counting>);

    impl Counts {
        fn change(&self, change: impl FnOnce(&mut Counting)) {
            change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    impl LaunchObserver for Counts {
        fn launched(&self, kernel: &'static str) {
            let name = type_name_format(kernel, TypeNameFormatLevel::Short);
            self.change(|counting| {
                if let Some(block) = &mut counting.block {
                    block.launched.push(name.clone());
                }
                *counting.counts.launches.entry(name).or_default() += 1;
            });
        }
    }

    fn bytes(tensor: &TensorIr) -> u64 {
        let bytes = match &tensor.dtype {
            DType::QFloat(scheme) => quantized_data_len(scheme, &tensor.shape),
            dtype => tensor.shape.num_elements() * dtype.size(),
        };
        bytes as u64
    }

    /// Whether an operation reads of its first input no more than it writes.
    fn picks(operation: &OperationIr) -> bool {
        let (OperationIr::BaseFloat(base) | OperationIr::BaseInt(base)) = operation else {
            return false;
        };
        matches!(
            base,
            BaseOperationIr::Slice(_) | BaseOperationIr::Select(_) | BaseOperationIr::Gather(_)
        )
    }

    /// Bytes that a block of operations moves at least: what it reads and does not make, and what it makes and does not use up.
    fn moved<'a>(operations: impl Iterator<Item = &'a OperationIr>) -> u64 {
        let mut made = BTreeMap::new();
        let mut read = BTreeMap::new();
        let mut picked = 0;
        let mut used_up = BTreeSet::new();
        for operation in operations {
            let picks = picks(operation);
            for (index, input) in operation.inputs().enumerate() {
                if made.contains_key(&input.id) {
                    if input.status == TensorStatus::ReadWrite {
                        used_up.insert(input.id);
                    }
                } else if picks && index == 0 {
                    picked += operation.outputs().map(bytes).sum::<u64>();
                } else {
                    read.insert(input.id, bytes(input));
                }
            }
            made.extend(operation.outputs().map(|output| (output.id, bytes(output))));
        }
        let written = made.iter().filter(|(id, _)| !used_up.contains(*id));
        picked + read.values().sum::<u64>() + written.map(|(_, bytes)| bytes).sum::<u64>()
    }

    impl FusionObserver for Counts {
        fn registered(&self, operation: &OperationIr) {
            let OperationIr::Init(made) = operation else {
                return;
            };
            let bytes = bytes(&made.out);
            self.change(|counting| {
                counting.counts.uploads += 1;
                counting.counts.uploaded_bytes += bytes;
            });
        }

        fn block_starts(&self, block: BlockOperations<'_>) {
            let bytes = moved(block.iter());
            self.change(|counting| {
                counting.block = Some(Block {
                    bytes,
                    launched: Vec::new(),
                });
            });
        }

        fn block_ran(&self) {
            self.change(|counting| {
                let Some(Block { bytes, launched }) = counting.block.take() else {
                    return;
                };
                // Views move nothing.
                if launched.is_empty() {
                    return;
                }
                counting.counts.moved_bytes += bytes;
                if let [kernel] = launched.as_slice() {
                    let of_kernel = &mut counting.counts.moved_by_kernel;
                    *of_kernel.entry(kernel.clone()).or_default() += bytes;
                }
            });
        }
    }

    /// The tensors that this process has read, and their bytes.
    fn read_so_far() -> [u64; 2] {
        [&READS, &READ_BYTES].map(|count| count.load(Ordering::Relaxed))
    }

    pub(super) struct Counter {
        counts: Arc<Counts>,
        /// Those of earlier work, and their bytes.
        reads: [u64; 2],
        kernels: LaunchedKernels,
        _launches: LaunchObservation,
        _operations: FusionObservation,
        _alone: MutexGuard<'static, ()>,
    }

    impl Counter {
        /// Starts to count once `wait` has returned and no other count lasts.
        pub(super) fn start<E>(wait: impl FnOnce() -> Result<(), E>) -> Result<Self, E> {
            let alone = COUNTING.lock().unwrap_or_else(PoisonError::into_inner);
            wait()?;
            let counts = Arc::new(Counts::default());
            Ok(Self {
                kernels: LaunchedKernels::new(),
                reads: read_so_far(),
                _launches: LaunchObservation::new(counts.clone()),
                _operations: FusionObservation::new(counts.clone()),
                _alone: alone,
                counts,
            })
        }

        pub(super) fn finish(self) -> DeviceCounts {
            let mut counts = DeviceCounts::default();
            self.counts
                .change(|counting| counts = counting.counts.clone());
            let [reads, bytes] = read_so_far();
            counts.waits = reads - self.reads[0];
            counts.downloaded_bytes = bytes - self.reads[1];
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
        pub(super) fn start<E>(wait: impl FnOnce() -> Result<(), E>) -> Result<Self, E> {
            wait()?;
            Ok(Self)
        }

        pub(super) fn finish(self) -> DeviceCounts {
            DeviceCounts::default()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn new_kernels_are_those_that_earlier_work_lacks() {
        let with = |kernels: &[&str]| DeviceCounts {
            kernels: kernels.iter().map(|hash| hash.to_string()).collect(),
            ..DeviceCounts::default()
        };
        assert_eq!(with(&["a", "b", "c"]).new_kernels(&with(&["b", "d"])), 2);
    }

    #[cfg(not(feature = "cube"))]
    #[test]
    fn the_processor_is_asked_for_nothing() {
        let device = crate::devices().remove(0).device;
        let work = || {
            Tensor::<2>::ones([8, 8], &device)
                .sum()
                .into_scalar::<f32>()
        };
        let (sum, counts) = count_device_work(&device, work).unwrap();
        assert_eq!((sum, counts), (64.0, DeviceCounts::default()));
    }
}

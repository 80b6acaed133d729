//! Which kernels a piece of work launches on a device of CubeCL's.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::tensor::Device;
use burn_cubecl::cubecl::config::{TypeNameFormatLevel, type_name_format};
use burn_cubecl::cubecl::logging::{LaunchObservation, LaunchObserver};

/// An observation is one for the process, so that one test at a time has it.
static OBSERVED: Mutex<()> = Mutex::new(());

#[derive(Default)]
struct Recorder(Mutex<Vec<&'static str>>);

impl LaunchObserver for Recorder {
    fn launched(&self, kernel: &'static str) {
        locked(&self.0).push(kernel);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The kernels that were launched, in order, by the name of their type: `DropoutKernel`.
pub struct Launches(Vec<String>);

impl Launches {
    /// Of `work`, with all that it has queued on `device` when it returns.
    pub fn of(device: &Device, work: impl FnOnce()) -> Self {
        let _one = locked(&OBSERVED);
        device.sync().unwrap();
        let recorder = Arc::new(Recorder::default());
        let observation = LaunchObservation::new(recorder.clone());
        work();
        device.sync().unwrap();
        drop(observation);
        let names = locked(&recorder.0);
        let short = |name: &&str| type_name_format(name, TypeNameFormatLevel::Short);
        Self(names.iter().map(short).collect())
    }

    /// How often a kernel was launched.
    pub fn count(&self, kernel: &str) -> usize {
        self.0.iter().filter(|name| *name == kernel).count()
    }

    /// How many launches there were.
    pub fn total(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Display for Launches {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.join(", "))
    }
}

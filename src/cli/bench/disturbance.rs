//! Whether other programs, or other virtual machines, took the processor from a measurement.

use std::path::Path;
use std::time::Instant;

use serde::Serialize;

/// The share of the cores' time that others may take before a measurement counts as disturbed.
const MOST_TAKEN: f64 = 0.02;
/// How far the peak rate may differ before and after the work, relative to the higher one.
const MOST_APART: f64 = 0.05;

/// The clocks when the work begins. The system's counts are read where it has them (Linux).
pub(super) struct Watch {
    start: Instant,
    waited_ns: Option<u64>,
    ticks: Option<Ticks>,
}

/// The time of all cores since the system started.
#[derive(Clone, Copy)]
struct Ticks {
    all: u64,
    stolen: u64,
}

/// The time that others took, as shares from 0 to 1; `None` where the system does not say.
#[derive(Clone, Copy, Default)]
pub(super) struct Taken {
    waited: Option<f64>,
    stolen: Option<f64>,
}

impl Watch {
    pub(super) fn start() -> Self {
        Self {
            start: Instant::now(),
            waited_ns: waited_ns(),
            ticks: Ticks::now(),
        }
    }

    pub(super) fn stop(self) -> Taken {
        let elapsed_ns = self.start.elapsed().as_nanos() as f64;
        let threads = rayon::current_num_threads() as f64;
        let waited = self.waited_ns.zip(waited_ns());
        let ticks = self.ticks.zip(Ticks::now());
        Taken {
            waited: waited.map(|(before, after)| {
                after.saturating_sub(before) as f64 / (elapsed_ns * threads).max(1.0)
            }),
            stolen: ticks.map(|(before, after)| {
                let all = after.all.saturating_sub(before.all).max(1);
                after.stolen.saturating_sub(before.stolen) as f64 / all as f64
            }),
        }
    }
}

/// The time for which this process's threads were ready to run and had no core, in nanoseconds: the second number of each
/// thread's `schedstat` (Linux's Documentation/scheduler/sched-stats).
fn waited_ns() -> Option<u64> {
    let threads = Path::new("/proc/self/task").read_dir().ok()?;
    let waited = threads.flatten().filter_map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    waited.reduce(|all, one| all + one)
}

impl Ticks {
    fn now() -> Option<Self> {
        Self::read(&std::fs::read_to_string("/proc/stat").ok()?)
    }

    /// From the line of all cores: user, nice, system, idle, iowait, irq, softirq, steal (proc_stat(5)). What follows is
    /// counted in these.
    fn read(stat: &str) -> Option<Self> {
        let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let numbers = line.split_whitespace().take(8);
        let numbers: Vec<u64> = numbers.map_while(|number| number.parse().ok()).collect();
        Some(Self {
            all: numbers.iter().sum(),
            stolen: *numbers.get(7)?,
        })
    }
}

/// What was observed of others while the work was measured; part of `--json`.
#[derive(Serialize)]
pub(super) struct Disturbance {
    /// The share of the threads' time in which they were ready to run and had no core.
    waited_fraction: Option<f64>,
    /// The share of the cores' time that the host of a virtual machine gave to others.
    stolen_fraction: Option<f64>,
    /// The peak rate before the work and after it, in GFLOP/s.
    peak_before_and_after_gflops: [f64; 2],
    /// Why the measurement does not count; empty if it does.
    reasons: Vec<String>,
}

impl Disturbance {
    /// What the time that others took and the peak rates before and after say.
    pub(super) fn of(taken: Taken, peaks: [f64; 2]) -> Self {
        let percent = |share: f64| format!("{:.0} %", 100.0 * share);
        let too_much = |share: Option<f64>| share.filter(|share| *share > MOST_TAKEN);
        let [before, after] = peaks;
        let apart = 1.0 - before.min(after) / before.max(after);
        let reasons = [
            too_much(taken.waited).map(|share| {
                format!(
                    "its threads waited {} of their time for a core",
                    percent(share)
                )
            }),
            too_much(taken.stolen)
                .map(|share| format!("the host took {} of the cores' time", percent(share))),
            Some(apart)
                .filter(|apart| *apart > MOST_APART)
                .map(|apart| {
                    format!(
                        "the peak rates before and after are {} apart",
                        percent(apart)
                    )
                }),
        ];
        Self {
            waited_fraction: taken.waited,
            stolen_fraction: taken.stolen,
            peak_before_and_after_gflops: peaks,
            reasons: reasons.into_iter().flatten().collect(),
        }
    }

    /// Prints the reasons, if there are any.
    pub(super) fn say(&self) -> Result<(), Box<dyn std::error::Error>> {
        if !self.reasons.is_empty() {
            let reasons = self.reasons.join(", and ");
            say!(
                "this measurement was disturbed: {reasons}. Measure again when nothing else runs"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_systems_ticks_are_read() {
        let stat = "cpu  100 10 20 800 5 1 2 62 7 7\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        let ticks = Ticks::read(stat).unwrap();
        assert_eq!((ticks.all, ticks.stolen), (1000, 62));
        assert!(Ticks::read("cpu  100 10 20\n").is_none());
        assert!(Ticks::read("").is_none());
    }

    #[test]
    fn a_disturbed_measurement_says_why() {
        let taken = |waited, stolen| Taken {
            waited: Some(waited),
            stolen: Some(stolen),
        };
        let reasons = |taken, peaks| Disturbance::of(taken, peaks).reasons;
        assert!(reasons(taken(0.001, 0.0), [235.0, 231.0]).is_empty());
        assert!(reasons(Taken::default(), [235.0, 231.0]).is_empty());
        let all = reasons(taken(0.25, 0.1), [120.0, 240.0]);
        assert_eq!(
            all,
            [
                "its threads waited 25 % of their time for a core",
                "the host took 10 % of the cores' time",
                "the peak rates before and after are 50 % apart",
            ]
        );
    }

    /// More threads than cores wait for each other, which the system counts.
    #[test]
    #[cfg(target_os = "linux")]
    fn threads_without_a_core_are_noticed() {
        let watch = Watch::start();
        let before = watch.waited_ns;
        let threads = 4 * std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            let busy = || {
                let start = Instant::now();
                while start.elapsed().as_millis() < 300 {
                    std::hint::spin_loop();
                }
            };
            let handles: Vec<_> = (0..threads).map(|_| scope.spawn(busy)).collect();
            std::thread::sleep(std::time::Duration::from_millis(200));
            // While the threads still run: the system forgets those that have ended.
            if let (Some(before), Some(after)) = (before, waited_ns()) {
                assert!(after - before > 50_000_000, "{} ns", after - before);
            }
            drop(handles);
        });
    }
}

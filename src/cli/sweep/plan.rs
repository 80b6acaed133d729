//! The cells of a sweep: one run each.

use std::path::PathBuf;

use mtlora::train::{MetricName, RunResults, text_metrics};

use crate::cli::settings::flags::Settings;
use crate::cli::sweep::file::{SelectOn, SweepFile};
use crate::cli::sweep::store::{Outcome, Outcomes};

/// What a cell is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It tries the point of the grid with this index.
    Tune(usize),
    /// It is scored, with the settings that were chosen.
    Final,
}

/// One run of a sweep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    /// Its name, and the place of its folder: `TASK/ARM/tune/POINT/seed-N` or `TASK/ARM/final/seed-N`.
    pub(crate) name: String,
    pub(crate) task: usize,
    pub(crate) arm: usize,
    pub(crate) phase: Phase,
    pub(crate) seed: u64,
}

/// Whether a cell can be run.
pub(crate) enum Readiness {
    /// With these settings.
    Ready(Box<Settings>),
    /// Only after other cells.
    Waiting,
    /// Never, and why.
    Blocked(String),
}

/// All cells of a sweep, in the order in which one process runs them.
pub(crate) struct Plan {
    pub(crate) file: SweepFile,
    pub(crate) cells: Vec<Cell>,
}

impl Plan {
    /// The cells of a sweep.
    pub(crate) fn new(file: SweepFile) -> Self {
        let mut cells = Vec::new();
        for (task, of_task) in file.tasks.iter().enumerate() {
            let arms = || file.arms.iter().enumerate();
            for (arm, of_arm) in arms() {
                let points = file.points(task, arm);
                let tuned = points.iter().enumerate().filter(|_| points.len() > 1);
                for (at, point) in tuned {
                    cells.extend(file.tuning_seeds.iter().map(|seed| Cell {
                        name: format!(
                            "{}/{}/tune/{}/seed-{seed}",
                            of_task.name, of_arm.name, point.name
                        ),
                        task,
                        arm,
                        phase: Phase::Tune(at),
                        seed: *seed,
                    }));
                }
            }
            for (arm, of_arm) in arms() {
                cells.extend(file.seeds.iter().map(|seed| Cell {
                    name: format!("{}/{}/final/seed-{seed}", of_task.name, of_arm.name),
                    task,
                    arm,
                    phase: Phase::Final,
                    seed: *seed,
                }));
            }
        }
        Self { file, cells }
    }

    /// The cells of an arm on a task with their indices.
    pub(crate) fn cells_of(&self, task: usize, arm: usize) -> impl Iterator<Item = (usize, &Cell)> {
        let all = self.cells.iter().enumerate();
        all.filter(move |(_, cell)| (cell.task, cell.arm) == (task, arm))
    }

    /// The index of the cell with this name.
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        self.cells.iter().position(|cell| cell.name == name)
    }

    /// Whether `other` asks for the same run as this plan's cell: with the same settings at each point, from the same start, and with
    /// the same runs that choose its settings.
    pub(crate) fn asks_for_the_same(&self, index: usize, other: &Plan) -> bool {
        let settings = |plan: &Plan, cell: &Cell| -> Vec<_> {
            let points = 0..plan.file.points(cell.task, cell.arm).len();
            points
                .filter_map(|point| plan.settings(cell, point))
                .collect()
        };
        let needed = |plan: &Plan, index: usize| -> Vec<String> {
            let needed = plan.needed(index).into_iter();
            needed
                .filter_map(|index| Some(plan.cells.get(index)?.name.clone()))
                .collect()
        };
        let Some(cell) = self.cells.get(index) else {
            return false;
        };
        let same = other.find(&cell.name);
        same.is_some_and(|at| {
            settings(self, cell) == settings(other, &other.cells[at])
                && needed(self, index) == needed(other, at)
        })
    }

    /// The point of the grid that was chosen for an arm on a task: the one with the best mean score over the tuning
    /// seeds, and the first of several such. A point with a run that diverged comes after all others. `None` while a
    /// tuning run is missing.
    pub(crate) fn chosen(&self, task: usize, arm: usize, outcomes: &Outcomes) -> Option<usize> {
        let points = self.file.points(task, arm).len();
        if points == 1 {
            return Some(0);
        }
        let mut sums = vec![0.0; points];
        for (index, cell) in self.cells_of(task, arm) {
            if let Phase::Tune(point) = cell.phase {
                *sums.get_mut(point)? += match outcomes.get(index)? {
                    Outcome::Done(results) => goodness(self.tuning_score(cell, results)),
                    Outcome::Diverged { .. } => f64::NEG_INFINITY,
                };
            }
        }
        let mut best = 0;
        for (point, sum) in sums.iter().enumerate() {
            if *sum > sums[best] {
                best = point;
            }
        }
        Some(best)
    }

    /// The name and the value of the metric by which a tuning run is judged: the one that its settings name, or else the task's first.
    pub(crate) fn tuning_score<'a>(
        &self,
        cell: &Cell,
        results: &'a RunResults,
    ) -> Option<(&'a str, f64)> {
        let Phase::Tune(point) = cell.phase else {
            return None;
        };
        let point = self.file.points(cell.task, cell.arm).get(point)?;
        let wanted = point.settings.metric_for_best_model.map(MetricName::as_str);
        let mut all = results.metrics.iter();
        match wanted {
            Some(wanted) => all.find(|(name, _)| *name == wanted),
            None => all.next(),
        }
    }

    /// The final run whose adapter the runs of an arm on a task start with.
    pub(crate) fn origin(&self, task: usize, arm: usize) -> Option<usize> {
        let name = self.file.tasks.get(task)?.starts_from.as_deref()?;
        let from = self.file.task(name)?;
        // An arm that names its own start, or `none`, keeps it.
        let points = self.file.points(task, arm);
        if points.first()?.settings.init_from.is_some() {
            return None;
        }
        let mut cells = self.cells_of(from, arm);
        let (index, _) = cells.find(|(_, cell)| cell.phase == Phase::Final)?;
        Some(index)
    }

    /// The cells that must be complete before a cell is ready.
    pub(crate) fn needed(&self, index: usize) -> Vec<usize> {
        let Some(cell) = self.cells.get(index) else {
            return Vec::new();
        };
        let mut needed: Vec<usize> = self.origin(cell.task, cell.arm).into_iter().collect();
        if cell.phase == Phase::Final {
            let of_arm = self.cells_of(cell.task, cell.arm);
            needed.extend(of_arm.filter_map(|(at, one)| (one.phase != Phase::Final).then_some(at)));
        }
        needed
    }

    /// A cell and all that it needs, in the order of the plan.
    pub(crate) fn with_needed(&self, index: usize) -> Vec<usize> {
        let mut all = vec![index];
        let mut at = 0;
        while let Some(one) = all.get(at) {
            for needed in self.needed(*one) {
                if !all.contains(&needed) {
                    all.push(needed);
                }
            }
            at += 1;
        }
        all.sort_unstable();
        all
    }

    /// Whether a cell can be run, and its settings. `place` is the folder of a cell's run.
    pub(crate) fn readiness(
        &self,
        index: usize,
        outcomes: &Outcomes,
        place: impl Fn(&Cell) -> PathBuf,
    ) -> Readiness {
        let Some(cell) = self.cells.get(index) else {
            return Readiness::Waiting;
        };
        let point = match cell.phase {
            Phase::Tune(point) => point,
            Phase::Final => match self.chosen(cell.task, cell.arm, outcomes) {
                Some(point) => point,
                None => return Readiness::Waiting,
            },
        };
        let Some(settings) = self.settings(cell, point) else {
            return Readiness::Waiting;
        };
        let mut settings = settings;
        if let Some(origin) = self.origin(cell.task, cell.arm)
            && let Some(from) = self.cells.get(origin)
        {
            match outcomes.get(origin) {
                None => return Readiness::Waiting,
                Some(Outcome::Diverged { .. }) => {
                    return Readiness::Blocked(format!(
                        "{}, which it starts from, diverged",
                        from.name
                    ));
                }
                Some(Outcome::Done(_)) => settings.init_from = Some(place(from)),
            }
        }
        Readiness::Ready(Box::new(settings))
    }

    /// The settings of a cell at a point of its grid, before it is known which adapter it starts with.
    pub(crate) fn settings(&self, cell: &Cell, point: usize) -> Option<Settings> {
        let points = self.file.points(cell.task, cell.arm);
        let mut settings = points.get(point)?.settings.clone();
        settings.seed = Some(cell.seed);
        settings.threads = self.file.threads;
        let task = self.file.tasks.get(cell.task)?;
        if self.file.select_on == SelectOn::Train {
            settings.validation_fraction = Some(self.file.held_back);
        }
        match cell.phase {
            Phase::Final => settings.score_split = Some(task.score_split.clone()),
            // Settings are chosen by the loss, which needs no texts.
            Phase::Tune(_) => settings.no_final_scores = task.is_generation.then_some(true),
        }
        Some(settings)
    }
}

/// A score of which higher is better: the value of a metric, negated for losses and other errors; negative infinity without a value.
fn goodness(metric: Option<(&str, f64)>) -> f64 {
    match metric {
        Some((name, value)) if !value.is_nan() && higher_is_better(name) => value,
        Some((_, value)) if !value.is_nan() => -value,
        _ => f64::NEG_INFINITY,
    }
}

/// Whether more of a metric is better.
pub(crate) fn higher_is_better(metric: &str) -> bool {
    match metric.parse() {
        Ok(name) => MetricName::higher_is_better(name),
        Err(_) => text_metrics::higher_is_better(metric),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cli::settings::source::Source;

    const FILE: &str = r#"
seeds = [7, 8]
tuning_seeds = [1, 2]
[settings]
model = "m"
[tasks.mnli]
grid.lr = [1, 2, 3]
[tasks.rte]
starts_from = "mnli"
[arms.lora]
structure = "lora"
[arms.other]
structure = "shim"
tasks.rte.init_from = "none"
"#;

    fn plan() -> Plan {
        Plan::new(SweepFile::of(Source::new("s.toml", FILE)).unwrap())
    }

    fn done(metric: &str, value: f64) -> Outcome {
        Outcome::Done(Box::new(RunResults {
            metrics: [(metric, value), ("loss", 0.0)].into_iter().collect(),
            ..RunResults::default()
        }))
    }

    #[test]
    fn tuning_comes_before_what_it_decides() {
        let plan = plan();
        let names: Vec<&str> = plan.cells.iter().map(|cell| cell.name.as_str()).collect();
        assert_eq!(names.len(), 2 * 6 + 2 * 2 + 2 * 2);
        assert_eq!(names[0], "mnli/lora/tune/lr=1/seed-1");
        assert_eq!(names[12], "mnli/lora/final/seed-7");
        assert_eq!(names[16], "rte/lora/final/seed-7");
        assert_eq!(plan.needed(12), [0, 1, 2, 3, 4, 5]);
        assert_eq!(plan.needed(16), [12]);
        // This arm says itself what it starts with.
        assert!(plan.needed(18).is_empty());
        assert_eq!(plan.with_needed(16), [0, 1, 2, 3, 4, 5, 12, 16]);
    }

    #[test]
    fn the_best_mean_is_chosen_and_a_divergence_comes_last() {
        let plan = plan();
        let mut outcomes = Outcomes::default();
        let none = |_: &Cell| PathBuf::from("run");
        for (index, value) in [0.9, 0.1, 0.6, 0.6, 0.7].into_iter().enumerate() {
            outcomes.set(index, done("accuracy", value));
        }
        assert_eq!(plan.chosen(0, 0, &outcomes), None);
        assert!(matches!(
            plan.readiness(12, &outcomes, none),
            Readiness::Waiting
        ));
        outcomes.set(5, Outcome::Diverged { step: 3 });
        assert_eq!(plan.chosen(0, 0, &outcomes), Some(1));
        let Readiness::Ready(settings) = plan.readiness(12, &outcomes, none) else {
            panic!("the settings are chosen");
        };
        assert_eq!((settings.lr, settings.seed), (Some(2.0), Some(7)));
        assert_eq!(settings.validation_fraction, Some(0.1));
        // Of a loss, less is better; of equal scores, the first is chosen.
        for (index, value) in [0.5, 0.5, 0.2, 0.2, 0.2, 0.2].into_iter().enumerate() {
            outcomes.set(index, done("loss", value));
        }
        assert_eq!(plan.chosen(0, 0, &outcomes), Some(1));
    }

    #[test]
    fn a_run_starts_with_the_adapter_of_the_first_final_run_of_its_arm() {
        let plan = plan();
        let mut outcomes = Outcomes::default();
        let place = |cell: &Cell| PathBuf::from("runs").join(&cell.name);
        assert!(matches!(
            plan.readiness(16, &outcomes, place),
            Readiness::Waiting
        ));
        outcomes.set(12, done("accuracy", 0.8));
        let Readiness::Ready(settings) = plan.readiness(17, &outcomes, place) else {
            panic!("mnli is complete");
        };
        let from = settings.init_from.unwrap();
        assert_eq!(from, PathBuf::from("runs/mnli/lora/final/seed-7"));
        outcomes.set(12, Outcome::Diverged { step: 1 });
        assert!(matches!(
            plan.readiness(16, &outcomes, place),
            Readiness::Blocked(_)
        ));
    }
}

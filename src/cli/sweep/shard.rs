//! Where one of several processes begins in the list of a sweep's cells.

use std::env;
use std::str::FromStr;

/// One of the processes that share a sweep. It begins with its part of the cells and then helps with the others, so that
/// no process waits while there is work, and the sweep ends even if some of the processes never start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shard {
    /// The number of the process, from 0.
    index: u64,
    /// How many there are, if that is known.
    count: Option<u64>,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is not of the form I/N with I from 0 to N - 1, such as 0/4");
        let (index, count) = text.split_once('/').ok_or_else(wrong)?;
        let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
        let (index, count) = (number(index)?, number(count)?);
        if index >= count {
            return Err(wrong());
        }
        Ok(Self {
            index,
            count: Some(count),
        })
    }
}

impl Shard {
    /// The part number `index` of `count`.
    pub(crate) fn of(index: u64, count: u64) -> Self {
        Self {
            index,
            count: Some(count),
        }
    }

    /// The part of this shard that belongs to the process `job` of `jobs` that share it.
    pub(crate) fn part(self, job: usize, jobs: usize) -> Self {
        let jobs = jobs as u64;
        Self {
            index: self.index.saturating_mul(jobs).saturating_add(job as u64),
            count: self.count.map(|count| count.saturating_mul(jobs)),
        }
    }

    /// The shard of a task of a SLURM array or of a pod of a Kubernetes job with indexed completion.
    ///
    /// # Errors
    /// If a variable of theirs is not a number.
    pub(crate) fn of_environment() -> Result<Option<Self>, String> {
        Self::of_variables(|name| env::var(name).ok())
    }

    fn of_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, String> {
        let number = |name: &str| match variable(name) {
            None => Ok(None),
            Some(text) => match text.trim().parse::<u64>() {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(format!(
                    "the environment variable {name} is `{text}` and not a number; give --shard I/N to ignore it"
                )),
            },
        };
        if let Some(id) = number("SLURM_ARRAY_TASK_ID")? {
            let first = number("SLURM_ARRAY_TASK_MIN")?.unwrap_or(0);
            let step = number("SLURM_ARRAY_TASK_STEP")?.unwrap_or(1).max(1);
            let count = number("SLURM_ARRAY_TASK_COUNT")?;
            return Ok(Some(Self {
                index: id.saturating_sub(first) / step,
                count,
            }));
        }
        // Kubernetes does not tell a pod how many there are.
        let index = number("JOB_COMPLETION_INDEX")?;
        Ok(index.map(|index| Self { index, count: None }))
    }

    /// The cells from 0 to `cells - 1` in the order in which this process tries them.
    pub(crate) fn order(self, cells: usize) -> Vec<usize> {
        let first = self.first(cells);
        (first..cells).chain(0..first).collect()
    }

    /// The cell that this process tries first; 0 if there are no cells.
    pub(crate) fn first(self, cells: usize) -> usize {
        let (part, parts) = match self.count.filter(|count| *count > 0) {
            Some(count) => (u128::from(self.index % count), u128::from(count)),
            // Without their number, the processes begin at 0, 1/2, 1/4, 3/4, 1/8, ... of the list.
            None => (u128::from(self.index.reverse_bits()), 1 << 64),
        };
        (part * cells as u128 / parts) as usize
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_shard_tries_every_cell_and_begins_with_its_own() {
        for (text, first) in [("0/4", 0), ("1/4", 3), ("3/4", 9), ("0/1", 0)] {
            let mut order = text.parse::<Shard>().unwrap().order(12);
            assert_eq!(order[0], first);
            order.sort_unstable();
            assert_eq!(order, (0..12).collect::<Vec<_>>());
        }
        assert!(Shard::of(5, 6).order(0).is_empty());
        for wrong in ["4/4", "1", "a/2", "1/0", "-1/2", ""] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn processes_that_share_a_shard_divide_it() {
        // Two tasks with three processes each begin at six places, as six tasks with one process do.
        let firsts: Vec<usize> = (0..2)
            .flat_map(|task| (0..3).map(move |job| Shard::of(task, 2).part(job, 3).first(12)))
            .collect();
        assert_eq!(firsts, [0, 2, 4, 6, 8, 10]);
        // So do pods that do not know how many there are.
        let pod = |index| Shard { index, count: None };
        let firsts: Vec<usize> = (0..2)
            .flat_map(|index| (0..2).map(move |job| pod(index).part(job, 2).first(16)))
            .collect();
        assert_eq!(firsts, [0, 8, 4, 12]);
        // The shard I of as many shards as there are cells begins at cell I.
        for cells in 1..300 {
            for first in 0..cells {
                assert_eq!(Shard::of(first as u64, cells as u64).first(cells), first);
            }
        }
    }

    #[test]
    fn clusters_tell_which_shard_a_process_is() {
        let found = |variables: &[(&str, &str)]| {
            Shard::of_variables(|name| {
                let one = variables.iter().find(|(known, _)| *known == name);
                one.map(|(_, value)| value.to_string())
            })
        };
        let slurm = [
            ("SLURM_ARRAY_TASK_ID", "7"),
            ("SLURM_ARRAY_TASK_MIN", "1"),
            ("SLURM_ARRAY_TASK_STEP", "2"),
            ("SLURM_ARRAY_TASK_COUNT", "4"),
        ];
        assert_eq!(found(&slurm), Ok(Some(Shard::of(3, 4))));
        let firsts: Vec<usize> = (0..5)
            .map(|index| {
                let pod = found(&[("JOB_COMPLETION_INDEX", &index.to_string())]);
                pod.unwrap().unwrap().order(16)[0]
            })
            .collect();
        assert_eq!(firsts, [0, 8, 4, 12, 2]);
        assert_eq!(found(&[]), Ok(None));
        assert!(found(&[("JOB_COMPLETION_INDEX", "x")]).is_err());
    }
}

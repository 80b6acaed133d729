//! Trainings on several ranks: processes that MPI starts together, on one machine or on several.

#[cfg(feature = "mpi")]
mod mpi;

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use mtlora::train::{ProcessGroup, Ranks, RanksError, TrainOptions};

/// The variables in which an MPI launcher tells a process its rank, and the number of ranks: Open MPI; MPICH, Intel MPI and Slurm.
const RANK_AND_SIZE: [[&str; 2]; 2] = [
    ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"],
    ["PMI_RANK", "PMI_SIZE"],
];

/// The folder of the run that is trained, for messages.
static RUN: OnceLock<PathBuf> = OnceLock::new();

/// Remembers the folder of the run that is trained, so that a rank which has to end can say how to resume it.
pub(crate) fn remember(run: &Path) {
    RUN.get_or_init(|| run.to_path_buf());
}

/// What an MPI launcher says of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Launched {
    rank: usize,
    size: usize,
}

impl Launched {
    fn here() -> Option<Self> {
        Self::from(|name| env::var(name).ok())
    }

    fn from(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let number = |name: &str| variable(name)?.parse().ok();
        RANK_AND_SIZE.into_iter().find_map(|[rank, size]| {
            Some(Self {
                rank: number(rank)?,
                size: number(size)?,
            })
        })
    }
}

/// Ends this process without a word if it is not rank 0 of its ranks, all of which have the same error: rank 0 prints it.
pub(crate) fn leave_it_to_first(exit_code: i32) {
    if Launched::here().is_some_and(|launched| launched.rank > 0) {
        // As soon as one process has failed, launchers end the others.
        thread::sleep(Duration::from_secs(1));
        process::exit(exit_code);
    }
}

/// Calls `train` with the group of this process's ranks; with `None` if it is alone. All ranks do that. Only rank 0 prints
/// anything and returns an error; its error may be that of another rank.
pub(crate) fn on_all(
    train: impl FnOnce(Option<&ProcessGroup<'_>>) -> Result<(), Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let Some(ranks) = connect()? else {
        return train(None);
    };
    in_group(&ProcessGroup::new(ranks.as_ref()), train)
}

#[cfg(feature = "mpi")]
fn connect() -> Result<Option<Box<dyn Ranks>>, Box<dyn Error>> {
    if !mpi::is_launched() {
        return Ok(None);
    }
    let ranks = mpi::MpiRanks::connect()?;
    if ranks.size() == 1 {
        return Ok(None);
    }
    crate::cli::model::device::set_local_rank(ranks.local_rank());
    Ok(Some(Box::new(ranks)))
}

#[cfg(not(feature = "mpi"))]
fn connect() -> Result<Option<Box<dyn Ranks>>, Box<dyn Error>> {
    match Launched::here() {
        Some(Launched { size, .. }) if size > 1 => {
            leave_it_to_first(2);
            Err(format!(
                "MPI has started {size} processes, and this build cannot train on several: build it with --features mpi"
            )
            .into())
        }
        _ => Ok(None),
    }
}

fn in_group(
    group: &ProcessGroup<'_>,
    train: impl FnOnce(Option<&ProcessGroup<'_>>) -> Result<(), Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    if group.rank() == 0 {
        let trained = train(Some(group));
        group.leave(None);
        return trained;
    }
    crate::cli::console::output::be_silent();
    // Rank 0 decides when a signal stops the training.
    let signals = crate::cli::console::signals::Signals::listen()?;
    let served = match group.wait() {
        Ok(true) => train(Some(group)),
        Ok(false) => Ok(()),
        Err(error) => Err(error.into()),
    };
    let error = served.err().map(|error| error.to_string());
    group.leave(error.as_deref());
    drop(signals);
    // If this process failed, launchers would end rank 0 before it has told why.
    Ok(())
}

/// Called on all ranks before a training reads its model and data. On rank 0 it lets the others begin, which have waited until
/// it found the settings and fetched what they name.
pub(crate) fn begin(
    group: Option<&ProcessGroup<'_>>,
    options: &TrainOptions,
) -> Result<(), RanksError> {
    let Some(group) = group else {
        return Ok(());
    };
    group.check(options)?;
    if group.rank() == 0 {
        note!(
            "{} ranks train together, each with {} threads",
            group.size(),
            rayon::current_num_threads()
        );
        group.begin()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variables_of_launchers_are_understood() {
        let launched = |variables: &[(&str, &str)]| {
            Launched::from(|name| {
                let mut all = variables.iter();
                all.find(|(known, _)| *known == name)
                    .map(|(_, value)| value.to_string())
            })
        };
        let second = Some(Launched { rank: 1, size: 4 });
        let open_mpi = [("OMPI_COMM_WORLD_RANK", "1"), ("OMPI_COMM_WORLD_SIZE", "4")];
        assert_eq!(launched(&open_mpi), second);
        assert_eq!(launched(&[("PMI_RANK", "1"), ("PMI_SIZE", "4")]), second);
        assert_eq!(launched(&[("PMI_RANK", "1")]), None);
        assert_eq!(launched(&[("PMI_RANK", "one"), ("PMI_SIZE", "4")]), None);
    }
}

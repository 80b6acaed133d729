//! Ranks over MPI.

use std::env;
use std::fs;
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use mpi::Threading;
use mpi::environment::Universe;
use mpi::request::{self, Request, Scope};
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives, Destination, Root, Source};
use mtlora::train::{Ranks, RanksError};

use crate::cli::console::{output, signals};

/// The variables that a launcher sets. Without any of them a process is alone, and MPI is not used.
const LAUNCHERS: [&str; 4] = [
    "OMPI_COMM_WORLD_SIZE",
    "PMI_SIZE",
    "PMIX_RANK",
    "MPI_LOCALNRANKS",
];
/// The variables with the number of a process among those of its machine.
const LOCAL_RANKS: [&str; 4] = [
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "MPI_LOCALRANKID",
    "PMI_LOCAL_RANK",
    "SLURM_LOCALID",
];
/// The most bytes that are sent at once. MPI counts them in 31 bits.
const CHUNK: usize = 1 << 28;
/// How long a rank waits without a pause; after that it lets others have the processor.
const AT_ONCE: Duration = Duration::from_micros(500);
/// The longest pause between two looks at what has arrived.
const PAUSE: Duration = Duration::from_millis(2);
/// How long after a signal a rank may still wait without saying why.
const PATIENCE: Duration = Duration::from_millis(200);
/// The time between two looks whether the other processes of this machine still run.
const LOOK: Duration = Duration::from_millis(300);

/// Whether MPI has started this process.
pub(super) fn is_launched() -> bool {
    LAUNCHERS.iter().any(|name| env::var_os(name).is_some())
}

/// The processes that MPI has started together. Dropping it waits until all of them have done so.
pub(super) struct MpiRanks {
    world: SimpleCommunicator,
    /// The other ranks on this machine, with the numbers of their processes.
    neighbours: Vec<(usize, u32)>,
    _universe: Universe,
}

impl MpiRanks {
    /// Connects this process with the others.
    ///
    /// # Errors
    /// If that was done before.
    pub(super) fn connect() -> Result<Self, &'static str> {
        // Only the main thread sends and receives.
        let begun = mpi::initialize_with_threading(Threading::Funneled);
        let (universe, _) = begun.ok_or("this process has used MPI before")?;
        let world = universe.world();
        Ok(Self {
            neighbours: neighbours(&world),
            world,
            _universe: universe,
        })
    }

    /// The number of this process among those of its machine; 0 if the launcher does not say it.
    pub(super) fn local_rank(&self) -> usize {
        let number = |name: &&str| env::var(name).ok()?.parse().ok();
        LOCAL_RANKS.iter().find_map(number).unwrap_or(0)
    }

    fn broadcast_part(&self, part: &mut [u8]) {
        let first = self.world.process_at_rank(0);
        request::scope(|scope| self.wait(first.immediate_broadcast_into(scope, part)));
    }
}

/// The other ranks that say that they are on this machine, and whose processes can be seen.
fn neighbours(world: &SimpleCommunicator) -> Vec<(usize, u32)> {
    const NAME: usize = 248;
    const ENTRY: usize = NAME + 8;
    let name = mpi::environment::processor_name().unwrap_or_default();
    let mut own = vec![0; ENTRY];
    for (to, from) in own[..NAME].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    own[NAME..].copy_from_slice(&u64::from(process::id()).to_ne_bytes());
    let size = usize::try_from(world.size()).unwrap_or(1);
    let mut all = vec![0; ENTRY * size];
    world.all_gather_into(&own[..], &mut all[..]);
    let others = all.chunks(ENTRY).enumerate();
    let others = others.filter(|(_, entry)| entry[..NAME] == own[..NAME] && **entry != own);
    let process = |(rank, entry): (usize, &[u8])| {
        let number = entry[NAME..].try_into().map(u64::from_ne_bytes).ok()?;
        Some((rank, u32::try_from(number).ok()?))
    };
    let found = others.filter_map(process);
    found.filter(|(_, process)| !has_died(*process)).collect()
}

/// Whether a process of this machine does not run any more, or cannot be seen.
fn has_died(process: u32) -> bool {
    // The state comes after the name, which may have any characters.
    let status = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let state = status
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    state.is_none_or(|state| "ZX".contains(state))
}

impl MpiRanks {
    /// Waits until the request is done. MPI's own functions would keep the processor busy meanwhile, for minutes while rank 0
    /// writes texts, and not notice that a rank has died.
    fn wait<'a, D: ?Sized, S: Scope<'a>>(&self, mut request: Request<'a, D, S>) {
        let begun = Instant::now();
        let mut looked = begun;
        let mut signal: Option<Instant> = None;
        let mut told = false;
        let mut dead = None;
        loop {
            match request.test() {
                Ok(_) => return,
                Err(again) => request = again,
            }
            // What a process sent before it ended has arrived by now.
            if let Some(dead) = dead {
                self.end_after(dead);
            }
            let waited = begun.elapsed();
            if waited < AT_ONCE {
                thread::yield_now();
                continue;
            }
            thread::sleep((waited / 20).min(PAUSE));
            if looked.elapsed() > LOOK {
                let mut neighbours = self.neighbours.iter();
                let found = neighbours.find(|(_, process)| has_died(*process));
                dead = found.map(|(rank, _)| *rank);
                looked = Instant::now();
            }
            if signals::is_heard() && !told {
                let since = *signal.get_or_insert_with(Instant::now);
                if since.elapsed() > PATIENCE {
                    note!("stopping: waiting for the other ranks to end their step");
                    told = true;
                }
            }
        }
    }

    /// Ends this process, because rank `dead` has died. The first of the others says so.
    fn end_after(&self, dead: usize) -> ! {
        if self.rank() == usize::from(dead == 0) {
            output::be_heard();
            let remedy = match super::RUN.get() {
                Some(run) => format!("resume with: mtlora train --resume {}", run.display()),
                None => "resume the run from its last checkpoint".to_string(),
            };
            note!("mtlora: rank {dead} has died, which ends all others; {remedy}");
        } else {
            // Or this rank would be taken for the one that has died.
            thread::sleep(4 * LOOK);
        }
        process::exit(2)
    }
}

impl Drop for MpiRanks {
    fn drop(&mut self) {
        if thread::panicking() {
            // The others would wait for this rank.
            self.world.abort(101);
        }
    }
}

impl Ranks for MpiRanks {
    fn rank(&self) -> usize {
        usize::try_from(self.world.rank()).unwrap_or(0)
    }

    fn size(&self) -> usize {
        usize::try_from(self.world.size()).unwrap_or(1)
    }

    fn broadcast(&self, mut message: Vec<u8>) -> Result<(), RanksError> {
        self.broadcast_part(&mut message.len().to_ne_bytes());
        for part in message.chunks_mut(CHUNK) {
            self.broadcast_part(part);
        }
        Ok(())
    }

    fn next(&self) -> Result<Vec<u8>, RanksError> {
        let mut length = [0; size_of::<usize>()];
        self.broadcast_part(&mut length);
        let mut message = vec![0; usize::from_ne_bytes(length)];
        for part in message.chunks_mut(CHUNK) {
            self.broadcast_part(part);
        }
        Ok(message)
    }

    fn send(&self, message: Vec<u8>) -> Result<(), RanksError> {
        let first = self.world.process_at_rank(0);
        let send =
            |part: &[u8]| request::scope(|scope| self.wait(first.immediate_send(scope, part)));
        send(&message.len().to_ne_bytes());
        message.chunks(CHUNK).for_each(send);
        Ok(())
    }

    fn receive(&self, rank: usize) -> Result<Vec<u8>, RanksError> {
        let number = i32::try_from(rank).map_err(|_| RanksError::Gone { rank })?;
        let from = self.world.process_at_rank(number);
        let receive = |part: &mut [u8]| {
            request::scope(|scope| self.wait(from.immediate_receive_into(scope, part)));
        };
        let mut length = [0; size_of::<usize>()];
        receive(&mut length);
        let mut message = vec![0; usize::from_ne_bytes(length)];
        message.chunks_mut(CHUNK).for_each(receive);
        Ok(message)
    }
}

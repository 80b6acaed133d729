//! The ranks of a training, and how they talk.

use std::cell::Cell;

use crate::training::error::FitError;
use crate::training::options::TrainOptions;
use crate::training::ranks::error::RanksError;
use crate::training::ranks::message::{Command, Reply};

/// How the ranks of a training send messages. Rank 0 sends to all others at once, and each of the others to rank 0. Messages
/// between two ranks arrive in the order in which they were sent.
pub trait Ranks {
    /// The number of this rank, counted from 0.
    fn rank(&self) -> usize;

    /// The number of ranks.
    fn size(&self) -> usize;

    /// On rank 0: sends a message to all others.
    ///
    /// # Errors
    /// When a rank is gone.
    fn broadcast(&self, message: Vec<u8>) -> Result<(), RanksError>;

    /// On other ranks: waits for the next message of rank 0.
    ///
    /// # Errors
    /// When rank 0 is gone.
    fn next(&self) -> Result<Vec<u8>, RanksError>;

    /// On other ranks: sends a message to rank 0.
    ///
    /// # Errors
    /// When rank 0 is gone.
    fn send(&self, message: Vec<u8>) -> Result<(), RanksError>;

    /// On rank 0: waits for the next message of `rank`.
    ///
    /// # Errors
    /// When that rank is gone.
    fn receive(&self, rank: usize) -> Result<Vec<u8>, RanksError>;
}

/// The ranks that train together, as one of them sees them. All ranks make the same calls:
///
/// ```text
/// rank 0                                        the other ranks
/// begin()                                       wait()
/// fit_with(.., Extras { group, .. })            serve(..)
/// leave(None), or leave(Some(error))            leave(None), or leave(Some(error))
/// ```
///
/// After an error, the other ranks stay in [`leave`](Self::leave) until rank 0 has heard of it.
pub struct ProcessGroup<'a> {
    ranks: &'a dyn Ranks,
    /// Whether rank 0 has ended.
    left: Cell<bool>,
}

impl<'a> ProcessGroup<'a> {
    /// The group of these ranks.
    pub fn new(ranks: &'a dyn Ranks) -> Self {
        Self {
            ranks,
            left: Cell::new(false),
        }
    }

    /// The number of this rank, counted from 0.
    pub fn rank(&self) -> usize {
        self.ranks.rank()
    }

    /// The number of ranks.
    pub fn size(&self) -> usize {
        self.ranks.size()
    }

    /// Checks that the ranks can share the micro-batches of each step evenly.
    ///
    /// # Errors
    /// If they cannot.
    pub fn check(&self, options: &TrainOptions) -> Result<(), RanksError> {
        let (accumulation, ranks) = (options.gradient_accumulation, self.size());
        if accumulation.is_multiple_of(ranks) {
            Ok(())
        } else {
            Err(RanksError::Indivisible {
                accumulation,
                ranks,
            })
        }
    }

    /// On rank 0: lets the others begin, which [wait](Self::wait) for it.
    ///
    /// # Errors
    /// When a rank is gone.
    pub fn begin(&self) -> Result<(), RanksError> {
        self.order(&Command::Begin)
    }

    /// On other ranks: waits until rank 0 lets them begin. Returns false if it has ended instead.
    ///
    /// # Errors
    /// When rank 0 is gone.
    pub fn wait(&self) -> Result<bool, RanksError> {
        loop {
            match self.command()? {
                Command::Begin => return Ok(true),
                Command::Leave => return Ok(false),
                _ => {}
            }
        }
    }

    /// The last call of each rank. On rank 0: lets the others end. On the others: waits for that, and meanwhile answers with
    /// this rank's `error`, if it had one.
    pub fn leave(&self, error: Option<&str>) {
        if self.rank() == 0 {
            // Where a rank is gone, there is nobody left to tell.
            let _ = self.order(&Command::Leave);
            return;
        }
        let message = error.unwrap_or("it has ended its training");
        while !self.left.get() {
            let answered = match self.command() {
                Ok(command) if command.is_for(self.rank()) => {
                    self.reply(&Reply::Failed(message.to_string()))
                }
                Ok(_) => Ok(()),
                Err(error) => Err(error),
            };
            if answered.is_err() {
                return;
            }
        }
    }

    /// On rank 0: sends a command to all others.
    pub(super) fn order(&self, command: &Command) -> Result<(), RanksError> {
        self.ranks.broadcast(command.write())
    }

    /// On rank 0: waits for the reply of a rank.
    pub(super) fn reply_of(&self, rank: usize) -> Result<Reply, RanksError> {
        Reply::read(&self.ranks.receive(rank)?, rank)
    }

    /// On other ranks: waits for the next command.
    pub(super) fn command(&self) -> Result<Command, RanksError> {
        let command = Command::read(&self.ranks.next()?)?;
        self.left.set(command == Command::Leave);
        Ok(command)
    }

    /// On other ranks: answers a command.
    pub(super) fn reply(&self, reply: &Reply) -> Result<(), RanksError> {
        self.ranks.send(reply.write())
    }

    /// The replies of all ranks from 1 to `ranks`, all of which are waited for, even if one has failed.
    pub(super) fn replies(
        &self,
        ranks: usize,
        mut each: impl FnMut(usize, Reply) -> Result<(), FitError>,
    ) -> Result<(), FitError> {
        let mut all = Ok(());
        for rank in 1..=ranks {
            let reply = self.reply_of(rank);
            let is_there = !matches!(reply, Err(RanksError::Gone { .. }));
            if all.is_ok() {
                all = reply
                    .map_err(FitError::from)
                    .and_then(|reply| each(rank, reply));
            }
            if !is_there {
                break;
            }
        }
        all
    }
}

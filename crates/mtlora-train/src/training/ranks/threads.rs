//! Ranks that are threads of one process, for tests and examples.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::training::ranks::error::RanksError;
use crate::training::ranks::group::Ranks;

/// Held while ranks of this process train.
static ALONE: Mutex<()> = Mutex::new(());

/// Calls `work` on `size` threads, one for each rank, and returns the results in the order of the ranks.
///
/// The ranks take turns: one computes while the others wait for messages, because a process has one state of the
/// [random generator](mtlora_core::random_state). So nothing becomes faster. For the same reason, a call waits until others have
/// ended.
///
/// # Panics
/// When `work` panics on one of the ranks.
pub fn on_threads<T: Send>(size: usize, work: impl Fn(&dyn Ranks) -> T + Sync) -> Vec<T> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let board = Board {
        state: Mutex::new(State {
            busy: false,
            from_first: vec![VecDeque::new(); size],
            to_first: vec![VecDeque::new(); size],
            gone: vec![false; size],
        }),
        changed: Condvar::new(),
    };
    let board = &board;
    let work = &work;
    thread::scope(|scope| {
        let begin = |rank| {
            scope.spawn(move || {
                let thread = ThreadRank { rank, size, board };
                thread.turn(|_| Some(()));
                work(&thread)
            })
        };
        let threads: Vec<_> = (0..size).map(begin).collect();
        let joined = threads.into_iter().map(|thread| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.collect()
    })
}

struct Board {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Whether a rank has the turn.
    busy: bool,
    /// The messages of rank 0 that a rank has not taken yet.
    from_first: Vec<VecDeque<Vec<u8>>>,
    /// The messages of a rank that rank 0 has not taken yet.
    to_first: Vec<VecDeque<Vec<u8>>>,
    /// The ranks that have ended.
    gone: Vec<bool>,
}

struct ThreadRank<'a> {
    rank: usize,
    size: usize,
    board: &'a Board,
}

impl ThreadRank<'_> {
    fn state(&self) -> MutexGuard<'_, State> {
        let state = self.board.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody else has the turn and there is something to take, and takes both.
    fn turn<T>(&self, take: impl Fn(&mut State) -> Option<T>) -> T {
        let mut state = self.state();
        loop {
            if !state.busy
                && let Some(taken) = take(&mut state)
            {
                state.busy = true;
                return taken;
            }
            let waited = self.board.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Gives the turn away until there is a message or its sender is gone.
    fn message(
        &self,
        sender: usize,
        queue: impl Fn(&mut State) -> &mut VecDeque<Vec<u8>>,
    ) -> Result<Vec<u8>, RanksError> {
        self.state().busy = false;
        self.board.changed.notify_all();
        self.turn(|state| match queue(state).pop_front() {
            Some(message) => Some(Ok(message)),
            None if state.gone[sender] => Some(Err(RanksError::Gone { rank: sender })),
            None => None,
        })
    }
}

impl Drop for ThreadRank<'_> {
    fn drop(&mut self) {
        let mut state = self.state();
        state.gone[self.rank] = true;
        state.busy = false;
        drop(state);
        self.board.changed.notify_all();
    }
}

impl Ranks for ThreadRank<'_> {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn broadcast(&self, message: Vec<u8>) -> Result<(), RanksError> {
        let mut state = self.state();
        for queue in &mut state.from_first[1..] {
            queue.push_back(message.clone());
        }
        Ok(())
    }

    fn next(&self) -> Result<Vec<u8>, RanksError> {
        self.message(0, |state| &mut state.from_first[self.rank])
    }

    fn send(&self, message: Vec<u8>) -> Result<(), RanksError> {
        self.state().to_first[self.rank].push_back(message);
        Ok(())
    }

    fn receive(&self, rank: usize) -> Result<Vec<u8>, RanksError> {
        self.message(rank, |state| &mut state.to_first[rank])
    }
}

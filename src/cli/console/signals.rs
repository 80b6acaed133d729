//! Handles SIGINT (Ctrl-C) and SIGTERM.

use std::io;
use std::sync::Arc;
#[cfg(feature = "mpi")]
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Whether a signal came while [`Signals`] listened.
#[cfg(feature = "mpi")]
static HEARD: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Whether a signal was recorded by any [`Signals`] of this process.
#[cfg(feature = "mpi")]
pub(crate) fn is_heard() -> bool {
    HEARD.load(Ordering::Relaxed)
}

/// While this value exists, the first signal is only recorded, and the second one ends the process at once. After it
/// is dropped, every signal ends the process at once.
pub(crate) struct Signals {
    at_once: Arc<AtomicBool>,
    heard: Arc<AtomicUsize>,
}

impl Signals {
    /// Installs the handlers.
    ///
    /// # Errors
    /// When the operating system refuses a handler.
    pub(crate) fn listen() -> io::Result<Self> {
        let at_once = Arc::new(AtomicBool::new(false));
        let heard = Arc::new(AtomicUsize::new(0));
        #[cfg(feature = "mpi")]
        for signal in [SIGINT, SIGTERM] {
            flag::register(signal, Arc::clone(&HEARD))?;
        }
        for signal in [SIGINT, SIGTERM] {
            // Handlers run in the order of their registration, so the second signal finds the flag that the first one
            // has set.
            flag::register_conditional_default(signal, Arc::clone(&at_once))?;
            flag::register(signal, Arc::clone(&at_once))?;
            flag::register_usize(signal, Arc::clone(&heard), signal as usize)?;
        }
        Ok(Self { at_once, heard })
    }

    /// The signal that was recorded, if any.
    pub(crate) fn heard(&self) -> Option<Signal> {
        match self.heard.load(Ordering::Relaxed) as i32 {
            SIGINT => Some(Signal::Interrupt),
            SIGTERM => Some(Signal::Terminate),
            _ => None,
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.at_once.store(true, Ordering::Relaxed);
    }
}

/// While this value exists, SIGINT (Ctrl-C) ends the process, except while one is [recorded](Self::record).
pub(crate) struct Interrupts {
    at_once: Arc<AtomicBool>,
    heard: Arc<AtomicBool>,
}

/// While this value exists, SIGINT does nothing but to be recorded.
pub(crate) struct Recording<'a>(&'a Interrupts);

impl Interrupts {
    /// Installs the handlers.
    ///
    /// # Errors
    /// When the operating system refuses a handler.
    pub(crate) fn listen() -> io::Result<Self> {
        let at_once = Arc::new(AtomicBool::new(true));
        let heard = Arc::new(AtomicBool::new(false));
        flag::register_conditional_default(SIGINT, Arc::clone(&at_once))?;
        flag::register(SIGINT, Arc::clone(&heard))?;
        Ok(Self { at_once, heard })
    }

    /// Records signals from now on.
    pub(crate) fn record(&self) -> Recording<'_> {
        self.heard.store(false, Ordering::Relaxed);
        self.at_once.store(false, Ordering::Relaxed);
        Recording(self)
    }
}

impl Recording<'_> {
    /// Whether the signal came since the beginning.
    pub(crate) fn heard(&self) -> bool {
        self.0.heard.load(Ordering::Relaxed)
    }
}

impl Drop for Recording<'_> {
    fn drop(&mut self) {
        self.0.at_once.store(true, Ordering::Relaxed);
    }
}

/// A signal that asks the process to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGINT.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

impl Signal {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Signal::Interrupt => "SIGINT",
            Signal::Terminate => "SIGTERM",
        }
    }

    /// The exit code that shells use for a process that the signal ended: 128 plus the signal's number.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Signal::Interrupt => 130,
            Signal::Terminate => 143,
        }
    }
}

/// The error of a command that a signal stopped.
#[cfg(feature = "hub")]
#[derive(Debug, thiserror::Error)]
#[error("stopped by {}; {advice}", .signal.name())]
pub(crate) struct StoppedBy {
    pub(crate) signal: Signal,
    /// How to go on.
    pub(crate) advice: &'static str,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Outside of a recording the signal would end this process.
    #[test]
    fn an_interrupt_is_recorded_once_it_is_asked_for() {
        let interrupts = Interrupts::listen().unwrap();
        for _ in 0..2 {
            let recording = interrupts.record();
            assert!(!recording.heard());
            signal_hook::low_level::raise(SIGINT).unwrap();
            assert!(recording.heard());
        }
        assert!(interrupts.at_once.load(Ordering::Relaxed));
    }
}

//! How a caller follows transfers.

/// Receives the progress of downloads, and of what is sent. `()` ignores it.
pub trait Progress {
    /// A file's transfer begins or resumes: `done` of its bytes have arrived already. `total` is its size in bytes, if
    /// that is known.
    fn started(&mut self, file: &str, done: u64, total: Option<u64>) {
        let _ = (file, done, total);
    }

    /// `done` bytes of the file have arrived now, or have been sent.
    fn advanced(&mut self, done: u64) {
        let _ = done;
    }

    /// The file has arrived, and its size and hash are right.
    fn finished(&mut self) {}

    /// Whether to stop. An upload asks between the parts of a file and before the commit, and ends with
    /// [`HubError::Stopped`](crate::HubError::Stopped). Waits between attempts (up to a minute) and the commit itself are not
    /// interrupted, and downloads do not ask.
    fn is_stopped(&mut self) -> bool {
        false
    }

    /// Something that the user should know although it is not an error.
    fn note(&mut self, text: &str) {
        let _ = text;
    }
}

impl Progress for () {}

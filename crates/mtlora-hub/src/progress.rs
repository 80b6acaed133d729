//! How a caller follows downloads.

/// Receives the progress of downloads. `()` ignores it.
pub trait Progress {
    /// A file's download begins or resumes: `done` of its bytes have arrived already. `total` is its size in bytes, if
    /// that is known.
    fn started(&mut self, file: &str, done: u64, total: Option<u64>) {
        let _ = (file, done, total);
    }

    /// `done` bytes of the file have arrived now.
    fn advanced(&mut self, done: u64) {
        let _ = done;
    }

    /// The file has arrived, and its size and hash are right.
    fn finished(&mut self) {}

    /// Something that the user should know although it is not an error.
    fn note(&mut self, text: &str) {
        let _ = text;
    }
}

impl Progress for () {}

//! Telling somebody how far a transfer is.

/// Is told what is fetched. `()` is a listener that keeps quiet.
pub trait Progress {
    /// A file begins, or goes on: `done` of its bytes are there already. `total` is its size, where that is known.
    fn started(&mut self, file: &str, done: u64, total: Option<u64>) {
        let _ = (file, done, total);
    }

    /// So many bytes of the file are there now.
    fn advanced(&mut self, done: u64) {
        let _ = done;
    }

    /// The file is there, and is what it should be.
    fn finished(&mut self) {}

    /// Something that the user should know, though it is no error.
    fn note(&mut self, text: &str) {
        let _ = text;
    }
}

impl Progress for () {}

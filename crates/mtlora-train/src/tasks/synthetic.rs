//! Choices, words and files of the grammars that make this project's own tasks: the same bytes on every platform.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// After so many texts in a row that there were before, a grammar counts as exhausted.
pub(crate) const PATIENCE: usize = 10_000;

/// Random numbers; `stream` keeps apart what is drawn for different purposes from one seed.
pub(crate) fn random(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(stream);
    random
}

/// Random choices. By hand, because `rand` may change its way between versions, and the bytes of the data sets with it.
pub(crate) trait Choose {
    /// What they are drawn from.
    fn random(&mut self) -> &mut ChaCha8Rng;

    /// A number below `end`, which must not be 0.
    fn below(&mut self, end: usize) -> usize {
        let scaled = u64::from(self.random().next_u32()) * end as u64;
        (scaled >> 32) as usize
    }

    /// True once in `many` times.
    fn once_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    /// One of `of`, which must not be empty.
    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

/// FNV-1a, 64 bits: the standard library's hash may change with its version.
pub(crate) fn fnv1a(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes
        .into_iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
}

/// Whether what these bytes say is for a held-out part of a data set, as one in `many` is: their hash decides.
pub(crate) fn held_out(bytes: impl IntoIterator<Item = u8>, many: u64) -> bool {
    // The upper half: the lowest bits of FNV depend on the lowest bits of the text alone.
    (fnv1a(bytes) >> 32).is_multiple_of(many)
}

/// `count` different texts of those that `make` makes. Fewer come back only where it makes no more.
pub(crate) fn different(count: usize, mut make: impl FnMut() -> String) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut texts = Vec::new();
    let mut repeated = 0;
    while texts.len() < count && repeated < PATIENCE {
        let text = make();
        if seen.insert(text.clone()) {
            repeated = 0;
            texts.push(text);
        } else {
            repeated += 1;
        }
    }
    texts
}

/// `a` or `an`.
pub(crate) fn article(next: &str) -> &'static str {
    if next.starts_with(['a', 'e', 'i', 'o', 'u']) {
        "an"
    } else {
        "a"
    }
}

/// Makes a folder, and those that it is in, if it is missing.
///
/// # Errors
/// What the operating system says, with the folder's name.
pub(crate) fn make_folder(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir).map_err(|error| named(dir, &error))
}

/// Writes a file beside `path` and moves it there when it is complete.
///
/// # Errors
/// What the operating system says, with the file's name.
pub(crate) fn write_lines(
    path: &Path,
    lines: impl IntoIterator<Item = impl AsRef<str>>,
) -> io::Result<()> {
    let partial = path.with_extension("partial");
    let write = || -> io::Result<()> {
        let mut file = io::BufWriter::new(fs::File::create(&partial)?);
        for line in lines {
            file.write_all(line.as_ref().as_bytes())?;
            file.write_all(b"\n")?;
        }
        file.into_inner()?.sync_all()?;
        fs::rename(&partial, path)
    };
    write().map_err(|error| {
        // It may not have been made; the first error is the one that matters.
        let _ = fs::remove_file(&partial);
        named(path, &error)
    })
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

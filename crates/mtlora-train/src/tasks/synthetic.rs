//! Random choices, words and files for the grammars that generate this project's own tasks. The results are the same
//! bytes on every platform.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A grammar counts as exhausted after this many texts in a row that it has made before.
pub(crate) const PATIENCE: usize = 10_000;

/// A generator of random numbers. Each `stream` of a seed gives independent numbers for another purpose.
pub(crate) fn random(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(stream);
    random
}

/// Random choices. They are implemented here because `rand` may change its methods between versions, which would change
/// the data sets.
pub(crate) trait Choose {
    /// The generator that the choices are drawn from.
    fn random(&mut self) -> &mut ChaCha8Rng;

    /// A number below `end`, which must not be 0.
    fn below(&mut self, end: usize) -> usize {
        let scaled = u64::from(self.random().next_u32()) * end as u64;
        (scaled >> 32) as usize
    }

    /// True in one of `many` cases on average.
    fn once_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    /// One of the values `of`, which must not be empty.
    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

/// The FNV-1a hash with 64 bits. The standard library's hash may change between versions.
pub(crate) fn fnv1a(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes
        .into_iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
}

/// Whether the text with these bytes belongs to the held-out part of a data set, as one in `many` does. The hash
/// decides.
pub(crate) fn held_out(bytes: impl IntoIterator<Item = u8>, many: u64) -> bool {
    // This uses the upper half, because the lowest bits of FNV depend only on the lowest bits of the text.
    (fnv1a(bytes) >> 32).is_multiple_of(many)
}

/// `count` different texts from `make`. There are fewer only if `make` is exhausted.
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

/// The article, `a` or `an`, that fits before `next`.
pub(crate) fn article(next: &str) -> &'static str {
    if next.starts_with(['a', 'e', 'i', 'o', 'u']) {
        "an"
    } else {
        "a"
    }
}

/// Creates a folder and its parent folders if they are missing.
///
/// # Errors
/// The operating system's error, with the folder's name.
pub(crate) fn make_folder(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir).map_err(|error| named(dir, &error))
}

/// Writes a file next to `path` and moves it there when it is complete.
///
/// # Errors
/// The operating system's error, with the file's name.
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
        // The file may not exist, and the first error is the one that matters.
        let _ = fs::remove_file(&partial);
        named(path, &error)
    })
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

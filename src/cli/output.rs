//! What several commands print.

use std::path::Path;

use mtlora::train::Scores;
use serde::Serialize;

/// Ends standard output with `object` on a line of its own.
pub(crate) fn json(object: &impl Serialize) -> Result<(), serde_json::Error> {
    println!("{}", serde_json::to_string(object)?);
    Ok(())
}

/// `accuracy 0.8431, f1 0.8874, loss 0.3567`
pub(crate) fn describe(scores: &Scores) -> String {
    let parts: Vec<String> = scores
        .iter()
        .map(|(name, value)| format!("{} {value:.4}", name.as_str()))
        .collect();
    parts.join(", ")
}

/// The process's highest resident memory so far, in MiB, where the system tells it.
pub(crate) fn peak_rss_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib / 1024.0)
}

/// Makes a folder, and those above it.
pub(crate) fn make_folder(folder: &Path) -> Result<(), String> {
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))
}

/// An error if `folder` has something in it, unless it may be overwritten.
pub(crate) fn vacant(folder: &Path, overwrite: bool) -> Result<(), String> {
    let occupied = std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    match occupied && !overwrite {
        true => Err(format!(
            "{}: exists and is not empty; name another folder, or pass --overwrite",
            folder.display()
        )),
        false => Ok(()),
    }
}

//! The tiny models and the data of the first runs, which the program carries in itself, so that it can be tried in any
//! folder.

use std::fs;
use std::path::Path;

use mtlora::models::write_atomically;

use crate::cli::console::output;

/// The folder of the repository with the tiny models and their data, and the one that [`write`] makes.
pub(super) const ASSETS: &str = "assets";

/// The name of a file in [`ASSETS`] and its bytes.
macro_rules! asset {
    ($name:literal) => {
        (
            $name,
            include_bytes!(concat!("../../../assets/", $name)).as_slice(),
        )
    };
}

const FILES: [(&str, &[u8]); 13] = [
    asset!("tiny-roberta/config.json"),
    asset!("tiny-roberta/model.safetensors"),
    asset!("tiny-roberta/tokenizer.json"),
    asset!("tiny-roberta/tokenizer_config.json"),
    asset!("acceptability/train.tsv"),
    asset!("acceptability/dev.tsv"),
    asset!("tiny-gpt2/config.json"),
    asset!("tiny-gpt2/model.safetensors"),
    asset!("tiny-gpt2/tokenizer.json"),
    asset!("tiny-gpt2/tokenizer_config.json"),
    asset!("facts/train.jsonl"),
    asset!("facts/dev.jsonl"),
    asset!("facts/test.jsonl"),
];

/// Writes the files of these folders of [`ASSETS`] into `assets`, and says so. Files that are there stay as they are.
///
/// # Errors
/// If a file cannot be written.
pub(super) fn write(assets: &Path, folders: &[&str]) -> Result<(), String> {
    let mut is_told = false;
    for (name, bytes) in FILES {
        let (folder, _) = name.split_once('/').unwrap_or_default();
        let file = assets.join(name);
        if !folders.contains(&folder) || file.exists() {
            continue;
        }
        if !is_told {
            note!(
                "neither --model nor --data is given, so this is the first run: its tiny model and its data are written \
                 into {}",
                assets.display()
            );
            is_told = true;
        }
        output::make_folder(&assets.join(folder))?;
        write_atomically(&file, bytes).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Whether all files of these folders of [`ASSETS`] are in `assets`.
pub(super) fn are_in(assets: &Path, folders: &[&str]) -> bool {
    folders
        .iter()
        .all(|folder| fs::metadata(assets.join(folder)).is_ok_and(|found| found.is_dir()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_program_has_all_files_of_the_first_runs() {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join(ASSETS);
        let mut found = Vec::new();
        for folder in ["tiny-roberta", "acceptability", "tiny-gpt2", "facts"] {
            for entry in fs::read_dir(repository.join(folder)).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                found.push(format!("{folder}/{name}"));
            }
        }
        found.sort();
        let mut carried = FILES.map(|(name, _)| name.to_string());
        carried.sort();
        assert_eq!(found, carried);
    }

    #[test]
    fn files_that_are_there_stay_and_only_the_folders_of_one_run_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let assets = folder.path().join(ASSETS);
        let own = assets.join("acceptability/train.tsv");
        fs::create_dir_all(own.parent().unwrap()).unwrap();
        fs::write(&own, "own").unwrap();
        let folders = ["tiny-roberta", "acceptability"];
        assert!(!are_in(&assets, &folders));
        write(&assets, &folders).unwrap();
        assert!(are_in(&assets, &folders));
        assert_eq!(fs::read_to_string(&own).unwrap(), "own");
        assert!(assets.join("acceptability/dev.tsv").is_file());
        assert!(assets.join("tiny-roberta/model.safetensors").is_file());
        assert!(!assets.join("facts").exists());
    }
}

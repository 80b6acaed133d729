//! Compares the public API of the library crates with the listings in docs/api, or writes the listings.
//!
//! Usage: `api-listing DOC_FOLDER LISTING_FOLDER [bless]`, where `DOC_FOLDER` has rustdoc's JSON. `run` calls it.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;
use std::{env, fs};

use public_api::PublicItem;

type Error = Box<dyn std::error::Error>;

const CRATES: [&str; 4] = ["mtlora-core", "mtlora-hub", "mtlora-models", "mtlora-train"];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (docs, listings, bless) = match arguments.as_slice() {
        [docs, listings] => (docs, listings, false),
        [docs, listings, word] if word == "bless" => (docs, listings, true),
        _ => {
            eprintln!("usage: api-listing DOC_FOLDER LISTING_FOLDER [bless]");
            return ExitCode::from(2);
        }
    };
    let mut same = true;
    for name in CRATES {
        match check(name, Path::new(docs), Path::new(listings), bless) {
            Ok(unchanged) => same &= unchanged,
            Err(error) => {
                eprintln!("{name}: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    if same || bless {
        return ExitCode::SUCCESS;
    }
    eprintln!(
        "The public API is not the one in docs/api. If the change is intended, run `tests/api/run bless` and commit \
         the listings with it."
    );
    ExitCode::FAILURE
}

/// Whether the crate's listing is up to date; with `bless`, it is written.
fn check(name: &str, docs: &Path, listings: &Path, bless: bool) -> Result<bool, Error> {
    let items = items(&docs.join(format!("{}.json", name.replace('-', "_"))))?;
    let path = listings.join(format!("{name}.txt"));
    let text: String = items.iter().flat_map(|item| [item, "\n"]).collect();
    if bless {
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        println!("{}: {} items", path.display(), items.len());
        return Ok(true);
    }
    let listed = fs::read_to_string(&path).map_err(|error| {
        format!(
            "{}: {error}; `tests/api/run bless` writes it",
            path.display()
        )
    })?;
    if listed == text {
        return Ok(true);
    }
    let now: BTreeSet<&str> = items.iter().map(String::as_str).collect();
    let before: BTreeSet<&str> = listed.lines().collect();
    println!("{}:", path.display());
    for item in before.difference(&now) {
        println!("- {item}");
    }
    for item in now.difference(&before) {
        println!("+ {item}");
    }
    Ok(false)
}

/// The crate's public items, a line for each, sorted by path.
///
/// Left out is what a reader of the listing can tell from the other lines: automatic and derived trait implementations,
/// the members of a trait implementation, and what this workspace implements for Burn's backends, which depends on
/// cargo's features.
fn items(json: &Path) -> Result<Vec<String>, Error> {
    let api = public_api::Builder::from_rustdoc_json(json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .include_function_parameter_names(true)
        .build()
        .map_err(|error| format!("{}: {error}", json.display()))?;
    // `impl Trait for Type`, of which this is the type.
    let implemented_for = |line: &str| {
        let (_, on) = line.strip_prefix("impl")?.split_once(" for ")?;
        Some(on.to_owned())
    };
    let trait_impls: HashSet<_> = api
        .items()
        .filter(|item| implemented_for(&item.to_string()).is_some())
        .map(|item| item.id())
        .collect();
    let name = json.file_stem().and_then(OsStr::to_str).unwrap_or_default();
    let shown = |item: &&PublicItem| {
        let line = item.to_string();
        match implemented_for(&line) {
            Some(on) => !on.starts_with("burn_"),
            None => {
                let in_trait_impl = item
                    .parent_id()
                    .is_some_and(|parent| trait_impls.contains(&parent));
                !line.starts_with("impl") && !in_trait_impl
            }
        }
    };
    Ok(api
        .items()
        .filter(shown)
        .map(|item| short_paths(&item.to_string(), name))
        .collect())
}

/// Shortens the paths of items from other crates to their names, since their modules are those crates' own business:
/// `alloc::vec::Vec` to `Vec`, and `mtlora_core::adapter::init::Init` in another crate to `mtlora_core::Init`.
fn short_paths(line: &str, crate_name: &str) -> String {
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let mut short = String::new();
    let mut rest = line;
    while let Some(start) = rest.find(is_path) {
        let path = &rest[start..];
        let (path, after) = path.split_at(path.find(|c| !is_path(c)).unwrap_or(path.len()));
        short.push_str(&rest[..start]);
        short.push_str(&short_path(path, crate_name));
        rest = after;
    }
    short + rest
}

fn short_path(path: &str, crate_name: &str) -> String {
    let segments: Vec<&str> = path.split("::").collect();
    let (first, last) = (segments[0], segments[segments.len() - 1]);
    let of_a_crate = segments.len() > 1 && first.starts_with(|c: char| c.is_lowercase());
    if !of_a_crate || first == crate_name || last == "Error" || last.is_empty() {
        path.to_owned()
    } else if first.starts_with("mtlora") {
        format!("{first}::{last}")
    } else {
        last.to_owned()
    }
}

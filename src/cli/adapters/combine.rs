use std::error::Error;
use std::path::{Path, PathBuf};

use mtlora::core::Truncation;
use mtlora::models::{CombinedAdapter, PeftAdapter};
use serde_json::{Value, json};

use crate::cli::adapters::export;
use crate::cli::console::output;
use crate::cli::console::table;
use crate::cli::hub;
use crate::cli::model::adapted;

/// The value of --head with which the result has no head.
const NONE: &str = "none";

/// The update of each layer becomes the sum of weight * scale * B T A over the adapters, which must have the same
/// base model. Without --rank the sum is exact, and the ranks of a layer add up. With --rank, each layer becomes the
/// nearest matrix of that rank, and the error is printed. The result is plain LoRA, which PEFT and all --adapter
/// flags can read.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// An adapter: the folder of a run, a folder saved by PEFT, or a name on the Hub. Repeat the flag for each
    /// adapter.
    #[arg(long = "adapter", value_name = "DIR", required = true)]
    adapters: Vec<PathBuf>,
    /// The weights of the adapters, separated by commas [default: one for each adapter].
    #[arg(long, value_delimiter = ',', allow_hyphen_values = true)]
    weights: Option<Vec<f64>>,
    /// The rank of the result [default: the sum of the ranks].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rank: Option<u32>,
    /// The adapter whose head is kept, or none. Heads cannot be added in a meaningful way [default: the one that has
    /// a head].
    #[arg(long, value_name = "DIR")]
    head: Option<PathBuf>,
    /// The folder to write; must be new or empty.
    #[arg(long)]
    out: PathBuf,
    /// Write into a folder that is not empty.
    #[arg(long)]
    overwrite: bool,
}

pub(crate) fn run(args: Args, json: bool) -> Result<(), Box<dyn Error>> {
    let weights = match args.weights {
        None => vec![1.0; args.adapters.len()],
        Some(weights) if weights.len() == args.adapters.len() => weights,
        Some(weights) => {
            return Err(format!(
                "--weights has {} values for {} adapters: give one value for each adapter",
                weights.len(),
                args.adapters.len()
            )
            .into());
        }
    };
    let mut parts: Vec<(f64, PeftAdapter)> = Vec::with_capacity(weights.len());
    let mut folders: Vec<PathBuf> = Vec::with_capacity(weights.len());
    for (weight, folder) in weights.iter().zip(&args.adapters) {
        let folder = hub::adapter(folder)?;
        adapted::refuse_source(&args.out, &folder, "one of the adapters that are combined")?;
        parts.push((*weight, adapted::read(&folder)?));
        folders.push(folder);
    }
    refuse_different_models(&args.adapters, &parts)?;
    output::ensure_empty_dir(&args.out, args.overwrite)?;
    let head = head(&args.adapters, &parts, args.head.as_deref())?;
    note_different_bases(&parts);
    let rank = args.rank.map(usize::try_from).transpose()?;
    let sum = PeftAdapter::combine(&parts, rank, head)?;
    output::make_folder(&args.out)?;
    sum.adapter.write(&args.out)?;
    // The head has the classes of the adapter that it comes from.
    let of_head = head.and_then(|head| folders.get(head));
    export::write_labels(of_head.map(PathBuf::as_path), &sum.adapter, &args.out)?;
    let all = Truncation::of_all(sum.truncations.values().copied());
    output::print(&describe(&sum, all))?;
    say!("the combined adapter is in {}", args.out.display())?;
    if json {
        let layers: Vec<Value> = sum
            .truncations
            .iter()
            .map(|(path, one)| {
                json!({
                    "path": path,
                    "rank": rank_of(&sum, path),
                    "norm": one.norm,
                    "error": one.error,
                    "relative_error": one.relative(),
                })
            })
            .collect();
        output::json(&json!({
            "out": args.out,
            "layers": layers,
            "norm": all.norm,
            "error": all.error,
            "relative_error": all.relative(),
        }))?;
    }
    Ok(())
}

/// The index of the adapter whose head is kept.
fn head(
    folders: &[PathBuf],
    parts: &[(f64, PeftAdapter)],
    wanted: Option<&Path>,
) -> Result<Option<usize>, String> {
    let has = |index: &usize| !parts[*index].1.saved.is_empty();
    match wanted {
        Some(none) if none.as_os_str() == NONE => Ok(None),
        Some(folder) => match folders.iter().position(|known| known == folder) {
            Some(index) if has(&index) => Ok(Some(index)),
            Some(_) => Err(format!(
                "--head {}: this adapter has no head",
                folder.display()
            )),
            None => Err(format!(
                "--head {}: this is not one of the given adapters",
                folder.display()
            )),
        },
        None => {
            let mut headed = (0..parts.len()).filter(has);
            match (headed.next(), headed.next()) {
                (one, None) => Ok(one),
                _ => Err(format!(
                    "several of the adapters have a head, and heads cannot be added: choose the one to keep with \
                     --head DIR, or leave the head out with --head {NONE}"
                )),
            }
        }
    }
}

/// Refuses adapters for models whose layers have different names, such as RoBERTa's and BERT's: no model has both.
fn refuse_different_models(
    folders: &[PathBuf],
    parts: &[(f64, PeftAdapter)],
) -> Result<(), String> {
    // Only layers have numbers in their names; a head's module may have a name of its own beside theirs.
    let is_layer = |path: &&String| path.split('.').any(|part| part.parse::<usize>().is_ok());
    let root = |(_, part): &(f64, PeftAdapter)| {
        let path = part.modules.keys().find(is_layer)?;
        path.split('.').next().map(str::to_string)
    };
    let roots: Vec<(&PathBuf, String)> = folders
        .iter()
        .zip(parts)
        .filter_map(|(folder, part)| Some((folder, root(part)?)))
        .collect();
    let other = roots.iter().find(|(_, root)| *root != roots[0].1);
    match (roots.first(), other) {
        (Some((first, one)), Some((second, two))) => Err(format!(
            "these adapters are for different models: {} adapts modules of `{one}`, and {} of `{two}`; combine adapters for the \
             same model",
            first.display(),
            second.display()
        )),
        _ => Ok(()),
    }
}

/// Prints a note if the adapters name different base models; these may be two names of the same model.
fn note_different_bases(parts: &[(f64, PeftAdapter)]) {
    let mut names: Vec<_> = parts
        .iter()
        .filter_map(|(_, part)| part.config.base_model_name_or_path.as_deref())
        .map(output::printable)
        .collect();
    names.sort_unstable();
    names.dedup();
    if names.len() > 1 {
        note!(
            "the adapters name different base models ({}): their sum makes sense only if these are the same model",
            names.join(", ")
        );
    }
}

fn rank_of(sum: &CombinedAdapter, path: &str) -> usize {
    let module = sum.adapter.modules.get(path);
    module.map_or(0, |module| module.values.rank())
}

fn describe(sum: &CombinedAdapter, all: Truncation) -> String {
    let mut rows = vec![["layer", "rank", "norm", "error", "relative"].map(str::to_string)];
    let row = |path: &str, rank: String, one: Truncation| {
        [
            path.to_string(),
            rank,
            table::number(one.norm),
            table::number(one.error),
            table::number(one.relative()),
        ]
    };
    for (path, one) in &sum.truncations {
        rows.push(row(path, rank_of(sum, path).to_string(), *one));
    }
    rows.push(row("all", String::new(), all));
    table::aligned(&rows)
}

use std::error::Error;
use std::path::{Path, PathBuf};

use mtlora::core::{Eigenvalue, InspectedLayer, Inspection};
use mtlora::models::{Checkpoint, PeftAdapter};
use mtlora::train::Run;

use crate::cli::console::output;
use crate::cli::console::table::{aligned, number};
use crate::cli::hub;
use crate::cli::model::adapted;

/// The number of singular values and eigenvalues of a layer that are printed, largest first. JSON has all of them.
const SHOWN: usize = 5;

/// For each adapted weight W, the command shows the update scale * B T A: its Frobenius norm, also relative to that
/// of W; its singular values; and its effective rank, which is the exponential of the entropy of the singular values
/// divided by their sum (Roy and Vetterli 2007). It is r for r equal singular values and 1 for a single one. For T it
/// shows the eigenvalues (complex ones as conjugate pairs), the condition number, and the distance from the identity,
/// which takes the place of T in LoRA.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The adapter: the folder of a run, a folder saved by PEFT, or a name on the Hub.
    #[arg(required_unless_present = "run", conflicts_with = "run")]
    adapter: Option<PathBuf>,
    /// The run whose adapter is inspected.
    #[arg(long)]
    run: Option<PathBuf>,
    /// The base model, for the norms of its weights [default: the run's, or the one that the adapter names, if it can
    /// be read].
    #[arg(long)]
    model: Option<PathBuf>,
}

pub(crate) fn run(args: Args, json: bool) -> Result<(), Box<dyn Error>> {
    let folder = match (args.run, args.adapter) {
        (Some(run), _) => run,
        (None, Some(adapter)) => hub::adapter(&adapter)?,
        (None, None) => return Err("an adapter is needed".into()),
    };
    let adapter = adapted::read(&folder)?;
    let base = match args.model {
        Some(model) => Some(Checkpoint::open(&hub::model(&model, None, |_| Ok(()))?)?),
        None => base_at_hand(&folder, &adapter),
    };
    let found = adapter.inspect(base.as_ref())?;
    output::print(&describe(&found))?;
    if json {
        output::json(&found)?;
    }
    Ok(())
}

/// The base model that the run or the adapter names, if it can be read.
fn base_at_hand(folder: &Path, adapter: &PeftAdapter) -> Option<Checkpoint> {
    let of_run = Run::open(folder).ok();
    let of_run = of_run.map(|(_, config)| config.base.model);
    let named = || adapter.config.base_model_name_or_path.clone();
    let model = of_run.or_else(|| named().map(PathBuf::from))?;
    Checkpoint::open(&model).ok()
}

/// Formats the results as tables for a terminal.
fn describe(found: &Inspection) -> String {
    let shared = shared_prefix(found.layers.iter().map(|layer| layer.path.as_str()));
    let name = |layer: &InspectedLayer| layer.path[shared..].to_string();
    let first = match shared {
        0 => "layer".to_string(),
        end => found.layers[0].path[..end].to_string(),
    };
    let heads = [
        "rank",
        "norm",
        "norm/|W|",
        "eff. rank",
        "cond(T)",
        "|T-I|",
        "|T-I|/|I|",
    ];
    let mut rows = vec![vec![first]];
    rows[0].extend(heads.map(str::to_string));
    rows.extend(found.layers.iter().map(|layer| row(name(layer), layer)));
    rows.push(vec![
        "all".into(),
        String::new(),
        number(found.norm),
        optional(found.relative_norm),
    ]);
    let mut text = aligned(&rows);
    text.push_str("\nsingular values of the update\n");
    let singular = found.layers.iter().map(|layer| {
        let values = &layer.spectrum.update.singular_values;
        listed(
            name(layer),
            values.iter().map(|value| number(*value)).collect(),
        )
    });
    text.push_str(&aligned(&singular.collect::<Vec<_>>()));
    let eigenvalues: Vec<Vec<String>> = found
        .layers
        .iter()
        .filter_map(|layer| {
            let transform = layer.spectrum.transform.as_ref()?;
            Some(listed(name(layer), conjugates(&transform.eigenvalues)))
        })
        .collect();
    if !eigenvalues.is_empty() {
        text.push_str("\neigenvalues of T\n");
        text.push_str(&aligned(&eigenvalues));
    }
    text.push_str(
        "\nnorm: Frobenius norm of the update scale B T A; |W|: norm of the frozen weight; eff. rank: exp of the\n\
         entropy of the update's singular values over their sum (Roy and Vetterli 2007); cond: largest over\n\
         smallest singular value; |T-I|: Frobenius distance of T from the identity, which LoRA has in its place\n",
    );
    text
}

fn row(name: String, layer: &InspectedLayer) -> Vec<String> {
    let spectrum = &layer.spectrum;
    let of_t = match &spectrum.transform {
        Some(t) => [t.condition, t.distance, t.relative_distance].map(number),
        None => ["T = I", "", ""].map(str::to_string),
    };
    let mut row = vec![
        name,
        spectrum.rank.to_string(),
        number(spectrum.update.norm),
        optional(layer.relative_norm),
        number(spectrum.update.effective_rank),
    ];
    row.extend(of_t);
    row
}

/// A row with the name, the first values, and the last value if there are more.
fn listed(name: String, values: Vec<String>) -> Vec<String> {
    let mut row = vec![name];
    row.extend(values.iter().take(SHOWN).cloned());
    if values.len() > SHOWN {
        row.push("...".into());
        row.extend(values.last().cloned());
    }
    row
}

/// The length in bytes of the longest prefix that all paths share and that ends with a dot; 0 for a single path.
fn shared_prefix<'a>(paths: impl Iterator<Item = &'a str>) -> usize {
    let mut paths = paths.peekable();
    let Some(first) = paths.next() else { return 0 };
    if paths.peek().is_none() {
        return 0;
    }
    let same = |other: &str| {
        let alike = first.bytes().zip(other.bytes()).take_while(|(a, b)| a == b);
        first.as_bytes()[..alike.count()]
            .iter()
            .rposition(|byte| *byte == b'.')
            .map_or(0, |dot| dot + 1)
    };
    paths.map(same).min().unwrap_or(0)
}

/// Formats eigenvalues, each conjugate pair as one value.
fn conjugates(values: &[Eigenvalue]) -> Vec<String> {
    let upper = values.iter().filter(|value| value.im >= 0.0);
    upper
        .map(|value| {
            if value.im == 0.0 {
                number(value.re)
            } else {
                format!("{}±{}i", number(value.re), number(value.im))
            }
        })
        .collect()
}

fn optional(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_string(), number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conjugate_pairs_are_joined_and_long_lists_are_shortened() {
        let pair = [0.5, -0.5].map(|im| Eigenvalue { re: 1.0, im });
        let real = Eigenvalue { re: -2.0, im: 0.0 };
        let texts = conjugates(&[real, pair[0], pair[1]]);
        assert_eq!(texts, ["-2.000", "1.000±0.5000i"]);
        let many: Vec<String> = (0..20).map(|at| at.to_string()).collect();
        let row = listed("q".into(), many);
        assert_eq!(row, ["q", "0", "1", "2", "3", "4", "...", "19"]);
        assert_eq!(listed("q".into(), vec!["7".into()]), ["q", "7"]);
    }

    #[test]
    fn the_shared_prefix_ends_with_a_dot() {
        let shared = |paths: &[&str]| shared_prefix(paths.iter().copied());
        assert_eq!(shared(&["a.b.query", "a.b.quality"]), 4);
        assert_eq!(shared(&["a.b", "c.d"]), 0);
        assert_eq!(shared(&["a.b"]), 0);
        assert_eq!(shared(&["é.b", "ê.b"]), 0);
    }
}

use std::error::Error;
use std::path::PathBuf;

use clap::ValueEnum;
use mtlora::train::text_metrics::{
    MeteorJar, ReferenceLayout, Tokenization, read_pairs, score_e2e, score_webnlg,
};
use serde_json::{Map, json};

use crate::cli::console::output;

/// Flags of `mtlora score`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The benchmark whose metrics, tokenization and layout of references are used.
    #[arg(long)]
    task: TextTask,
    /// The generated texts, one on each line.
    #[arg(long, value_name = "FILE")]
    hypotheses: PathBuf,
    /// The references. For e2e: one file, with a block of lines for each hypothesis, separated by blank lines.
    /// Otherwise: files with a line for each hypothesis, where a blank line means no reference.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    references: Vec<PathBuf>,
    /// The jar of METEOR 1.5, with its data folder beside it. It computes all stages of METEOR instead of the two
    /// that are built in, and needs Java.
    #[arg(long, value_name = "FILE")]
    meteor_jar: Option<PathBuf>,
}

/// The benchmark of the texts.
#[derive(Clone, Copy, ValueEnum)]
enum TextTask {
    /// The E2E challenge: bleu, nist, rouge_l, cider, meteor on the scales of its script
    #[value(name = "e2e")]
    E2e,
    /// WebNLG: bleu, sacrebleu, ter, chrf, chrf++ from 0 to 100; meteor
    #[value(name = "webnlg")]
    WebNlg,
    /// DART, whose texts are tokenized already; otherwise as webnlg
    #[value(name = "dart")]
    Dart,
    /// Any other text, as webnlg
    #[value(name = "text")]
    Text,
}

pub(crate) fn run(args: Args, json: bool) -> Result<(), Box<dyn Error>> {
    let jar = args.meteor_jar.map(MeteorJar::new).transpose()?;
    let layout = match args.task {
        TextTask::E2e => ReferenceLayout::Blocks,
        TextTask::WebNlg | TextTask::Dart | TextTask::Text => ReferenceLayout::Parallel,
    };
    let pairs = read_pairs(&args.hypotheses, &args.references, layout)?;
    let scores = match args.task {
        TextTask::E2e => score_e2e(&pairs, jar.as_ref()),
        TextTask::Dart => score_webnlg(&pairs, Tokenization::None, jar.as_ref()),
        TextTask::WebNlg | TextTask::Text => score_webnlg(&pairs, Tokenization::V13a, jar.as_ref()),
    }?;
    for (name, value) in &scores {
        say!("{name:17} {value:8.4}")?;
    }
    say!("{:17} {:8}", "sentences", pairs.len())?;
    if json {
        let metrics: Map<_, _> = scores
            .iter()
            .map(|(name, value)| (name.to_string(), json!(value)))
            .collect();
        let task = args.task.to_possible_value();
        output::json(&json!({
            "task": task.as_ref().map(|task| task.get_name()),
            "metrics": metrics,
            "sentences": pairs.len(),
        }))?;
    }
    Ok(())
}

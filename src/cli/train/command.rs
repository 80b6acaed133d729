//! The flags of `mtlora train`, which ask for a new run, a first run or a resumed run.

use std::error::Error;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use mtlora::train::{ProcessGroup, Run};

use crate::cli::console::output::Output;
use crate::cli::model::adapted;
use crate::cli::model::head::HeadOf;
use crate::cli::ranks;
use crate::cli::settings::flags::Settings;
use crate::cli::settings::needed;
use crate::cli::settings::resolve::Resolved;
use crate::cli::thread_count;
use crate::cli::train::begin::Begin;
use crate::cli::train::replace::refuse_other_run;
use crate::cli::train::{chat, classification, generation, resume};

/// The flags of `mtlora train`. A TOML file can set the model, the task and everything that training depends on,
/// under the flags' names with `_` instead of `-`. Flags override the file.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A TOML file with settings; flags override it.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Settings for a model and a task, mostly the authors' (see `mtlora recipes`, and `mtlora recipes NAME` for what one
    /// sets); flags and --config override them.
    #[arg(long, value_name = "NAME")]
    recipe: Option<String>,
    /// The run's folder; must be new or empty [needed, except for the first run, which may replace an unfinished run
    /// or one with the same settings].
    #[arg(long)]
    out: Option<PathBuf>,
    /// Write into a folder that is not empty; a run in it is replaced. Files of the same names that are not those of a run are
    /// refused.
    #[arg(long)]
    overwrite: bool,
    /// Resume the run in this folder from its newest checkpoint; the result is as if it had never been stopped. Only
    /// --device, --threads, --save-steps, --save-minutes, --save-total-limit, --report-to, --no-final-scores, --plain and --json
    /// may be given with it.
    #[arg(long, value_name = "RUN", conflicts_with_all = ["config", "recipe", "out", "overwrite"])]
    resume: Option<PathBuf>,
    /// Show the data, and the time and memory that the training takes, measured in a few steps that are discarded. Nothing is
    /// written, and --out is not needed.
    #[arg(long, conflicts_with_all = ["resume", "overwrite"])]
    dry_run: bool,
    /// Print plain lines instead of the dashboard.
    #[arg(long)]
    plain: bool,
    #[command(flatten)]
    settings: Settings,
}

impl Args {
    /// Keeps the number of threads as a setting of the run, and returns it: the one that the user `asked` for, or that of the
    /// settings file, or of the run that is resumed.
    ///
    /// # Errors
    /// If the settings file cannot be read, or its number is too large.
    pub(crate) fn keep_threads(
        &mut self,
        asked: Option<NonZeroUsize>,
    ) -> Result<Option<NonZeroUsize>, String> {
        if let Some(folder) = &self.resume {
            // Runs of earlier builds did not keep it, and what else may be wrong with the run is said later.
            let kept = Run::open(folder).and_then(|(run, _)| run.settings());
            let kept = kept.ok().flatten();
            let kept = kept.and_then(|text| toml::from_str::<Settings>(&text).ok());
            return Ok(asked.or(kept.and_then(|settings| settings.threads)));
        }
        let threads = match (asked, &self.config) {
            (None, Some(path)) => {
                let threads = Settings::read(path)?.threads;
                if let Some(Err(error)) = threads.map(|count| thread_count(&count.to_string())) {
                    return Err(format!("{}: threads: {error}", path.display()));
                }
                threads
            }
            (asked, _) => asked,
        };
        self.settings.threads = threads;
        Ok(threads)
    }
}

pub(crate) fn run(args: Args, json: bool) -> Result<(), Box<dyn Error>> {
    ranks::on_all(|group| train(args, json, group))
}

/// Trains on one rank, or on all ranks of the group, whose other processes make the same call.
fn train(
    mut args: Args,
    json: bool,
    group: Option<&ProcessGroup<'_>>,
) -> Result<(), Box<dyn Error>> {
    let output = Output {
        // What several processes write is put together from lines.
        plain: args.plain || group.is_some(),
        json,
        quiet: false,
    };
    if let Some(folder) = &args.resume {
        ranks::remember(folder);
        return resume::run(folder, args.settings, output, group);
    }
    let mut settings = args
        .settings
        .layered(args.config.as_deref(), args.recipe.as_deref())?;
    let mut may_repeat = false;
    if let Some(which) = settings.asks_for_first_run() {
        settings = settings.over_first_run(which, args.dry_run)?;
        // A first run can be repeated, and then replaces the earlier one.
        may_repeat = args.out.is_none() && !args.overwrite;
        args.out.get_or_insert_with(|| which.out());
    }
    if let Some(out) = &args.out {
        ranks::remember(out);
    }
    let is_first = group.is_none_or(|group| group.rank() == 0);
    if args.dry_run || !is_first {
        let missing = settings.missing()?;
        if !missing.is_empty() {
            return Err(needed::message(&missing).into());
        }
        return match settings.resolve(HeadOf::Model)? {
            Resolved::Classification(config, task) => {
                classification::run(&config, task.as_ref(), Begin::NoRun, output, None, group)
                    .map(drop)
            }
            Resolved::Generation(config, task) => {
                generation::run(&config, task.as_ref(), Begin::NoRun, output, None, group).map(drop)
            }
            Resolved::Chat(config) => {
                chat::run(&config, Begin::NoRun, output, None, group).map(drop)
            }
        };
    }
    let Some(out) = args.out else {
        let mut missing = settings.missing()?;
        missing.push(needed::OUT);
        return Err(needed::message(&missing).into());
    };
    let begin = Begin::New {
        out: &out,
        overwrite: args.overwrite || may_repeat,
        settings: settings.file()?,
    };
    match settings.resolve(HeadOf::Model)? {
        Resolved::Classification(config, task) => {
            adapted::refuse_own(&out, &config)?;
            if may_repeat {
                refuse_other_run(&out, &(*config).clone().into())?;
            }
            classification::run(&config, task.as_ref(), begin, output, None, group).map(drop)
        }
        Resolved::Generation(config, task) => {
            adapted::refuse_own(&out, &config)?;
            if may_repeat {
                refuse_other_run(&out, &(*config).clone().into())?;
            }
            generation::run(&config, task.as_ref(), begin, output, None, group).map(drop)
        }
        Resolved::Chat(config) => {
            adapted::refuse_own(&out, &config)?;
            chat::run(&config, begin, output, None, group).map(drop)
        }
    }
}

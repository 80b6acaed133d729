use std::error::Error;
use std::path::{Path, PathBuf};

use burn::module::Module;
use mtlora::core::{device, trainable_parameters};
use mtlora::models::TrainedFormat;
use mtlora::train::{
    ClassificationRun, Example, ModelSpec, ParameterCounts, Run, RunConfig, RunKind, RunResults,
    Scores, Snapshot, Started, Task, TrainError, TypedConfig, class_counts, class_warnings, train,
};

use crate::cli::console::output;
use crate::cli::console::progress::Progress;
use crate::cli::eval::generation_scores::GenerationScores;
use crate::cli::hub;
use crate::cli::model::adapted;
use crate::cli::model::finished;
use crate::cli::model::head::HeadOf;
use crate::cli::settings::flags::Settings;
use crate::cli::settings::resolve::Resolved;
use crate::cli::settings::task;
use crate::cli::text::encoding;
use crate::cli::train::generation;

/// Flags of `mtlora train`. A TOML file may set the model, the task and all that training depends on, under
/// the flag's name with `_` for `-`; flags win.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A TOML file with settings; flags win over it.
    #[arg(long)]
    config: Option<PathBuf>,
    /// The authors' settings for a model and a task (see `mtlora recipes`); flags and --config win
    /// over them.
    #[arg(long, value_name = "NAME")]
    recipe: Option<String>,
    /// The run's folder; must be new or empty [needed, but for the first run].
    #[arg(long)]
    out: Option<PathBuf>,
    /// Write into a folder that is not empty.
    #[arg(long)]
    overwrite: bool,
    /// Go on with the run in this folder where its newest checkpoint was made, and end as if it had
    /// never been stopped. Only --device, --threads, --save-steps, --save-minutes, --save-total-limit,
    /// --no-final-scores, --plain and --json may stand beside it.
    #[arg(long, value_name = "RUN", conflicts_with_all = ["config", "recipe", "out", "overwrite"])]
    resume: Option<PathBuf>,
    /// Plain lines in place of the dashboard.
    #[arg(long)]
    plain: bool,
    #[command(flatten)]
    settings: Settings,
}

/// The sizes of the data and the model.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    /// The examples to train on.
    pub(crate) train: usize,
    /// The examples of the dev split.
    pub(crate) dev: usize,
    /// The model's values.
    pub(crate) parameters: ParameterCounts,
}

impl Sizes {
    /// Prints them, with the device that computes.
    pub(crate) fn print(self, task: &str, device: &str) {
        let Self {
            train,
            dev,
            parameters: ParameterCounts { trainable, total },
        } = self;
        let share = 100.0 * trainable as f64 / total as f64;
        note!(
            "{task}: {train} train and {dev} dev examples; {trainable} of {total} parameters train \
             ({share:.2} %), on {device}"
        );
    }
}

/// The scores of a run that has ended.
pub(crate) struct Outcome<'a> {
    /// Before the first step.
    pub(crate) before: &'a Scores,
    /// Of the best state.
    pub(crate) best: &'a Scores,
    /// Of the texts that the best state writes, if they were scored.
    pub(crate) texts: Option<&'a GenerationScores>,
    /// All, as `results.json` has them.
    pub(crate) results: &'a RunResults,
}

impl Outcome<'_> {
    /// Prints the scores, and where the run is.
    pub(crate) fn print(&self, run: &Run, json: bool) -> Result<(), Box<dyn Error>> {
        say!("dev before: {}", output::describe(self.before))?;
        say!(
            "dev after:  {} (step {})",
            output::describe(self.best),
            self.results.best_step
        )?;
        if let Some(texts) = self.texts {
            texts.say()?;
        }
        say!("the run is in {}", run.folder().display())?;
        if json {
            output::json(self.results)?;
        }
        Ok(())
    }
}

/// The run that is trained, from its beginning or from a checkpoint.
pub(crate) enum Begin<'a> {
    /// A new one, in a folder that must be empty unless it may be overwritten.
    New {
        /// The folder.
        out: &'a Path,
        /// Whether it may be overwritten.
        overwrite: bool,
    },
    /// One that was stopped.
    Resume(Run),
}

impl Begin<'_> {
    /// The run, ready to be trained, and where it goes on; what the user should know of that goes to
    /// standard error.
    pub(crate) fn open(
        self,
        config: impl Into<RunConfig>,
        format: &TrainedFormat,
    ) -> Result<(Run, Option<Snapshot>), TrainError> {
        match self {
            Begin::New { out, overwrite } => {
                Ok((Run::create(out, overwrite, &config.into())?, None))
            }
            Begin::Resume(run) => {
                let (snapshot, notes) = run.rewind(format)?;
                for note in notes {
                    note!("{note}");
                }
                Ok((run, snapshot))
            }
        }
    }
}

/// How what happens is told.
#[derive(Clone, Copy)]
pub(crate) struct Tell {
    pub(crate) plain: bool,
    pub(crate) json: bool,
}

fn resume(folder: &Path, settings: Settings, tell: Tell) -> Result<(), Box<dyn Error>> {
    let (run, config) = Run::open(folder)?;
    if finished::is_imported(folder) {
        return Err(format!(
            "{}: this run was imported and has not been trained, so that there is nothing to resume: train a new run \
             that starts with it (train --init-from {})",
            folder.display(),
            folder.display()
        )
        .into());
    }
    let run = run.lock()?;
    if let Some(results) = run.results()? {
        let wanted = match &config.kind {
            RunKind::Generation(kind) => settings.final_scores().unwrap_or(kind.final_scores),
            RunKind::Classification(_) => false,
        };
        let place = folder.display();
        let scored = !wanted || results.has_text_scores();
        // Where its end was saved, the run goes on with the scores of its texts.
        let ended = !scored && run.checkpoints().newest()?.0.is_some();
        if !ended {
            if scored {
                say!("the run in {place} is complete")?;
            } else {
                say!(
                    "the run in {place} is complete, but for the scores of its texts, for which its last checkpoint is \
                     needed, and that is gone; see them with: mtlora eval --run {place}"
                )?;
            }
            if tell.json {
                output::json(&results)?;
            }
            return Ok(());
        }
    }
    let begin = Begin::Resume(run);
    // What the Hub's cache has lost is fetched again.
    let (_, mut config) = hub::open_run(folder)?;
    hub::run_origin(&mut config.base.adapter)?;
    config.change(settings.resume_changes(&config.checkpoints)?);
    match config.typed() {
        TypedConfig::Classification(mut config) => {
            let task = task::of_run(&config)?;
            for split in [task.train_split(), task.dev_split()] {
                let data = &config.data;
                config.data.folder = hub::run_data(&data.folder, &data.task, Some(split))?;
            }
            classify(&config, task.as_ref(), begin, tell)
        }
        TypedConfig::Generation(config) => {
            let name = &config.data.task;
            let unknown = || format!("there is no task {name} (see `mtlora tasks`)");
            let task =
                task::find_generation(name, config.kind.pairs.clone())?.ok_or_else(unknown)?;
            generation::run(&config, task.as_ref(), begin, tell)
        }
    }
}

pub(crate) fn run(mut args: Args, json: bool) -> Result<(), Box<dyn Error>> {
    let tell = Tell {
        plain: args.plain,
        json,
    };
    if let Some(folder) = &args.resume {
        return resume(folder, args.settings, tell);
    }
    let mut settings = args
        .settings
        .layered(args.config.as_deref(), args.recipe.as_deref())?;
    if let Some(which) = settings.asks_for_first_run() {
        settings = settings.over_first_run(which)?;
        // It may be made again and again.
        args.overwrite |= args.out.is_none();
        args.out.get_or_insert_with(|| which.out());
    }
    let out = args.out.ok_or("--out is needed: the run's folder")?;
    let begin = Begin::New {
        out: &out,
        overwrite: args.overwrite,
    };
    match settings.resolve(HeadOf::Model)? {
        Resolved::Classification(config, task) => {
            adapted::refuse_own(&out, config.base.adapter.init_from.as_deref())?;
            classify(&config, task.as_ref(), begin, tell)
        }
        Resolved::Generation(config, task) => {
            adapted::refuse_own(&out, config.base.adapter.init_from.as_deref())?;
            generation::run(&config, task.as_ref(), begin, tell)
        }
    }
}

/// How many examples each class has, and what looks like a mistake in the classes of somebody's own table.
fn print_classes(config: &RunConfig<ClassificationRun>, task: &dyn Task, examples: &[Example]) {
    let counts = class_counts(task.objective(), examples);
    if let Some(classes) = output::classes(&counts) {
        note!("{classes}");
    }
    if config.kind.table.is_some() {
        for warning in class_warnings(&counts) {
            note!("{} {}: {warning}", task.name(), task.train_split());
        }
    }
}

fn classify(
    config: &RunConfig<ClassificationRun>,
    task: &dyn Task,
    begin: Begin<'_>,
    tell: Tell,
) -> Result<(), Box<dyn Error>> {
    config.training.validate()?;
    config.checkpoints.validate()?;
    let device = device(&config.device)?.autodiff();
    let train_examples = task::read(task, &config.data.folder, task.train_split())?;
    let dev_examples = task::read(task, &config.data.folder, task.dev_split())?;
    let spec = config.model();
    let Started {
        loaded: parts,
        missing,
    } = spec.start(&device)?;
    let place = |split| encoding::of_split(&config.data.folder, split);
    let items = encoding::encoded(&parts.text, &train_examples, place(task.train_split()))?;
    let dev = encoding::encoded(&parts.text, &dev_examples, place(task.dev_split()))?;
    let format = spec.format(&parts)?;
    let (run, from) = begin.open(config.clone(), &format)?;

    let sizes = Sizes {
        train: items.len(),
        dev: dev.len(),
        parameters: ParameterCounts {
            trainable: trainable_parameters(&parts.model),
            total: parts.model.num_params(),
        },
    };
    sizes.print(task.name(), &config.device);
    print_classes(config, task, &train_examples);
    if !missing.is_empty() && from.is_none() {
        let why = if config.kind.head.fresh {
            "--fresh-head, or not in the model's folder"
        } else {
            "not in the model's folder"
        };
        note!(
            "these start with new values ({why}): {}",
            missing.join(", ")
        );
    }
    let step = from.as_ref().map_or(0, |snapshot| snapshot.step);
    let metrics = task.metric_names();
    let mut progress = Progress::new(&run, format, &config.checkpoints, step, metrics, tell.plain)?;
    let trained = train(
        parts.model,
        &parts.config,
        task,
        [&items, &dev],
        &config.training,
        from,
        &device,
        &mut progress,
    );
    let trained = progress.close(trained)?;

    let results = RunResults::of_training(
        task.name(),
        &trained,
        sizes.parameters,
        output::peak_rss_mb(),
    );
    run.save_results(&results)?;
    let outcome = Outcome {
        before: &trained.before,
        best: &trained.best,
        texts: None,
        results: &results,
    };
    outcome.print(&run, tell.json)
}

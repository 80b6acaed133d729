//! The file of a sweep: which arms are compared on which tasks, with which settings, grids and seeds.

use std::num::NonZeroUsize;
use std::path::Path;

use mtlora::train::chat::ChatTask;
use mtlora::train::comparison::{Published, Reach};
use mtlora::train::data_to_text::Scorer;
use mtlora::train::{DataError, TableTask, TaskData, check_fraction, registry};
use serde::Deserialize;
use toml::Spanned;
use toml::de::DeValue;

use crate::cli::settings::defaults::NONE;
use crate::cli::settings::flags::{EXCLUSIVE, Settings};
use crate::cli::settings::message;
use crate::cli::settings::recipe::Recipe;
use crate::cli::settings::source::{Entries, Mistakes, Source};

/// The share of the train split that is held back if the file does not say it.
const HELD_BACK: f64 = 0.1;
/// The keys of the file.
pub(crate) const KEYS: [&str; 12] = [
    "about",
    "baseline",
    "seeds",
    "tuning_seeds",
    "select_on",
    "held_back",
    "threads",
    "settings",
    "grid",
    "tasks",
    "arms",
    "published",
];
/// The settings of `mtlora train` that a sweep decides, and the keys that decide them.
pub(crate) const DECIDED: [(&str, &str); 5] = [
    (
        "seed",
        "the seeds are in `seeds` and `tuning_seeds`, at the top of the file",
    ),
    (
        "validation_fraction",
        "`held_back`, at the top of the file, is the share of train on which settings are chosen",
    ),
    (
        "score_split",
        "`select_on`, at the top of the file, decides which split is scored, and a task's own table may name another",
    ),
    (
        "threads",
        "`threads`, at the top of the file, is the number of threads of each run",
    ),
    (
        "no_final_scores",
        "the final runs are scored, and the others are not",
    ),
];

/// The file in the folder of claims whose lock guards the sweep's file. No task can have this name.
pub(super) const FILE_LOCK: &str = "sweep.lock";

/// Where settings are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SelectOn {
    /// On a part of the train split that is held back; the dev split is scored.
    Train,
    /// On the dev split; the test split is scored.
    Dev,
}

/// One of the values of a setting in a grid.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GridValue {
    /// As the file has it.
    pub(crate) written: String,
    value: toml::Value,
}

/// The values of each setting that is tuned, in the order of the file.
type Grid = Vec<(String, Vec<GridValue>)>;

/// A task of a sweep.
#[derive(Debug)]
pub(crate) struct SweepTask {
    pub(crate) name: String,
    /// The task whose adapter each arm starts with.
    pub(crate) starts_from: Option<String>,
    /// The metric that tables show; by default the first of the task.
    pub(crate) metric: Option<String>,
    /// The split that is scored; by default dev, or test where dev chooses the settings.
    pub(crate) score_split: String,
    /// Whether texts are written.
    pub(crate) is_generation: bool,
    settings: Settings,
    grid: Grid,
    at: usize,
}

/// One of the methods that are compared.
#[derive(Debug)]
pub(crate) struct Arm {
    pub(crate) name: String,
    settings: Settings,
    grid: Grid,
    /// Settings for single tasks.
    tasks: Vec<(String, Settings)>,
    at: usize,
}

/// A choice of the settings that are tuned.
#[derive(Clone, Debug)]
pub(crate) struct Point {
    /// `lr=1e-3,epochs=3`, or `as-given` if nothing is tuned.
    pub(crate) name: String,
    /// All settings of a run except for its seed and the splits that it uses.
    pub(crate) settings: Settings,
}

/// The file of a sweep.
pub(crate) struct SweepFile {
    source: Source,
    pub(crate) about: Option<String>,
    /// The arm that the others are compared with.
    pub(crate) baseline: usize,
    /// The seeds of the runs that are scored.
    pub(crate) seeds: Vec<u64>,
    /// The seeds of the runs that choose the settings.
    pub(crate) tuning_seeds: Vec<u64>,
    pub(crate) select_on: SelectOn,
    pub(crate) held_back: f64,
    /// The number of threads of each run.
    pub(crate) threads: Option<NonZeroUsize>,
    pub(crate) tasks: Vec<SweepTask>,
    pub(crate) arms: Vec<Arm>,
    /// Published results, to be shown beside those of the sweep.
    pub(crate) published: Vec<Published>,
    /// The points of the grid of each task (first index) and arm (second index).
    points: Vec<Vec<Vec<Point>>>,
}

impl SweepTask {
    /// Whether the texts are scored by E2E's script, whose scores are on other scales than WebNLG's.
    pub(crate) fn is_e2e(&self) -> bool {
        let name = self.settings.task.as_deref().unwrap_or_default();
        let task = registry::open_generation(name, None).ok().flatten();
        task.is_some_and(|task| task.scorer() == Scorer::E2e)
    }
}

impl SweepFile {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// If it does not describe a comparison in which every arm is tuned the same way; the message names the line and
    /// the column.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        Self::of(Source::read(path)?)
    }

    /// The text of the file.
    pub(crate) fn text(&self) -> &str {
        self.source.text()
    }

    /// The points of the grid of an arm on a task; at least one.
    pub(crate) fn points(&self, task: usize, arm: usize) -> &[Point] {
        let of_task = self.points.get(task).and_then(|arms| arms.get(arm));
        of_task.map_or(&[], Vec::as_slice)
    }

    /// An error about an arm on a task.
    pub(crate) fn error(&self, task: usize, arm: usize, message: impl std::fmt::Display) -> String {
        let place = self.arms.get(arm).map_or(0, |arm| arm.at);
        let name = |name: Option<&str>| name.unwrap_or_default().to_string();
        let task = name(self.tasks.get(task).map(|task| task.name.as_str()));
        let arm = name(self.arms.get(arm).map(|arm| arm.name.as_str()));
        self.source
            .error(place, format!("arm {arm} on {task}: {message}"))
    }

    /// The index of a task.
    pub(crate) fn task(&self, name: &str) -> Option<usize> {
        self.tasks.iter().position(|task| task.name == name)
    }

    /// Reads and checks a text.
    pub(crate) fn of(source: Source) -> Result<Self, String> {
        let mut root = source.entries()?;
        let baseline_at = root.place_of("baseline");
        let seeds_at = root.place_of("seeds");
        let tuning_at = root.place_of("tuning_seeds");
        let held_back_at = root.place_of("held_back").unwrap_or(0);
        let published_at = root.place_of("published");
        let mut mistakes = Mistakes::default();
        let about = take(&mut root, "about", &mut mistakes);
        let baseline: Option<String> = take(&mut root, "baseline", &mut mistakes);
        let seeds: Option<Vec<u64>> = take(&mut root, "seeds", &mut mistakes);
        let tuning_seeds: Option<Vec<u64>> = take(&mut root, "tuning_seeds", &mut mistakes);
        let tuning_seeds = tuning_seeds.unwrap_or_default();
        let select_on = take(&mut root, "select_on", &mut mistakes).unwrap_or(SelectOn::Train);
        let held_back: Option<f64> = take(&mut root, "held_back", &mut mistakes);
        let threads = take(&mut root, "threads", &mut mistakes);
        let published: Option<Vec<Published>> = take(&mut root, "published", &mut mistakes);
        let published = published.unwrap_or_default();
        let (at, table) = take_table(&source, &mut root, "settings", &mut mistakes);
        let common = mistakes.keep(at, settings_of(&source, table));
        let (at, table) = take_table(&source, &mut root, "grid", &mut mistakes);
        let common_grid = mistakes.keep(at, grid_of(&source, table));
        let (_, table) = take_table(&source, &mut root, "tasks", &mut mistakes);
        let tasks = tasks_of(&source, table, select_on, &mut mistakes);
        let (_, table) = take_table(&source, &mut root, "arms", &mut mistakes);
        let arms = arms_of(&source, table, &mut mistakes);
        mistakes.keep(0, root.finish(&KEYS));
        mistakes.into_result()?;

        let fail = |at: Option<usize>, message: String| Err(source.error(at.unwrap_or(0), message));
        if let Err(message) = check_fraction(held_back.unwrap_or(HELD_BACK)) {
            return fail(Some(held_back_at), message);
        }
        if held_back.is_some() && select_on == SelectOn::Dev {
            let message = "nothing is held back where dev chooses the settings: remove `held_back` or `select_on`";
            return fail(Some(held_back_at), message.to_string());
        }
        let Some(seeds) = seeds.filter(|seeds| !seeds.is_empty()) else {
            let message = "`seeds` is needed, the seeds of the runs that are scored, such as seeds = [1, 2, 3, 4, 5]";
            return fail(seeds_at, message.to_string());
        };
        for (at, list) in [(seeds_at, &seeds), (tuning_at, &tuning_seeds)] {
            if let Some(twice) = first_repeated(list) {
                return fail(
                    at,
                    format!("the seed {twice} is there twice: name each once"),
                );
            }
        }
        if let Some(shared) = tuning_seeds.iter().find(|seed| seeds.contains(seed)) {
            return fail(
                tuning_at,
                format!(
                    "the seed {shared} is also in `seeds`: settings that were chosen by their score with a seed look \
                     better with it than they are, so the two lists must have no seed in common"
                ),
            );
        }
        if arms.is_empty() || tasks.is_empty() {
            let what = if arms.is_empty() {
                "an arm is needed, such as [arms.lora] with structure = \"lora\""
            } else {
                "a task is needed, such as [tasks.rte]"
            };
            return fail(None, what.to_string());
        }
        let baseline = match baseline {
            None => 0,
            Some(name) => match arms.iter().position(|arm| arm.name == name) {
                Some(index) => index,
                None => {
                    let known: Vec<&str> = arms.iter().map(|arm| arm.name.as_str()).collect();
                    let message = format!(
                        "there is no arm `{name}`; the arms are {}",
                        known.join(", ")
                    );
                    return fail(baseline_at, message);
                }
            },
        };
        check_starts(&source, &tasks)?;
        let is_task = |name: &String| tasks.iter().any(|task| task.name == *name);
        for one in &published {
            if let Some(unknown) = one.scores.keys().find(|name| !is_task(name)) {
                let known: Vec<&str> = tasks.iter().map(|task| task.name.as_str()).collect();
                let message = format!(
                    "the published results of `{}` have a score for `{unknown}`, which is no task; the tasks are {}",
                    one.name,
                    known.join(", ")
                );
                return fail(published_at, message);
            }
        }
        for arm in &arms {
            if let Some((name, _)) = arm
                .tasks
                .iter()
                .find(|(name, _)| !tasks.iter().any(|task| task.name == *name))
            {
                return fail(
                    Some(arm.at),
                    format!("arm {}: there is no task `{name}`", arm.name),
                );
            }
        }
        let points = points_of(&source, &(common, common_grid), &tasks, &arms)?;
        if tuning_seeds.is_empty() && points.iter().flatten().any(|points| points.len() > 1) {
            return fail(
                tuning_at.or(seeds_at),
                "`tuning_seeds` is needed, because there are grids: the seeds of the runs that choose the settings, \
                 such as tuning_seeds = [101, 102]"
                    .to_string(),
            );
        }
        Ok(Self {
            about,
            baseline,
            seeds,
            tuning_seeds,
            select_on,
            held_back: held_back.unwrap_or(HELD_BACK),
            threads,
            tasks,
            arms,
            published,
            points,
            source,
        })
    }
}

fn first_repeated(seeds: &[u64]) -> Option<u64> {
    let mut seeds = seeds.iter().enumerate();
    let all = seeds.clone();
    seeds.find_map(|(at, seed)| {
        let mut before = all.clone().take(at);
        before.any(|(_, other)| other == seed).then_some(*seed)
    })
}

/// Takes out a value of the whole file.
fn take<'a, T: Deserialize<'a>>(
    root: &mut Entries<'a>,
    key: &str,
    mistakes: &mut Mistakes,
) -> Option<T> {
    let at = root.place_of(key).unwrap_or(0);
    let value = root.take_as(key);
    mistakes.keep(at, value)
}

/// Takes out a table of the whole file, with its place.
fn take_table<'a>(
    source: &'a Source,
    root: &mut Entries<'a>,
    key: &str,
    mistakes: &mut Mistakes,
) -> (usize, Entries<'a>) {
    let at = root.place_of(key).unwrap_or(0);
    let table = root.take_table(key).unwrap_or_else(|line| {
        mistakes.add(at, line);
        Entries::none(source)
    });
    (at, table)
}

/// The settings in a table, without those that a sweep decides. `recipe` may name one that completes them.
fn settings_of(source: &Source, mut table: Entries<'_>) -> Result<Settings, String> {
    for (key, remedy) in DECIDED {
        if let Some(at) = table.place_of(key) {
            return Err(source.error(at, format!("`{key}` cannot be set here: {remedy}")));
        }
    }
    let at = table.place_of("recipe").unwrap_or(table.at.start);
    let recipe: Option<String> = table.take_as("recipe")?;
    let settings = table.settings()?;
    let Some(name) = recipe else {
        return Ok(settings);
    };
    let recipe = Recipe::find(&name).map_err(|error| source.error(at, error))?;
    let settings = settings.over(recipe.settings);
    settings.map_err(|error| source.error(at, error))
}

fn grid_of(source: &Source, table: Entries<'_>) -> Result<Grid, String> {
    let mut grid = Grid::new();
    for (key, at, value) in table.rest() {
        if let Some((_, remedy)) = DECIDED.iter().find(|(decided, _)| *decided == key) {
            return Err(source.error(at, format!("`{key}` cannot be in a grid: {remedy}")));
        }
        if ["task", "data", "model"].contains(&key.as_str()) {
            return Err(source.error(
                at,
                format!("`{key}` cannot be in a grid: arms are compared on the same; make another task of it"),
            ));
        }
        for group in EXCLUSIVE
            .iter()
            .filter(|group| group.contains(&key.as_str()))
        {
            if let Some((other, _)) = grid
                .iter()
                .find(|(other, _)| group.contains(&other.as_str()))
            {
                return Err(source.error(
                    at,
                    format!("`{key}` and `{other}` cannot both be in a grid: a run uses only one of them"),
                ));
            }
        }
        let place = value.span().start;
        let DeValue::Array(values) = value.into_inner() else {
            return Err(source.error(place, format!("a list of values for {key} is needed here")));
        };
        let mut found: Vec<GridValue> = Vec::new();
        for value in values {
            let value = grid_value(source, &key, at, value)?;
            // 1e-3 and 0.001 would be two names of one value.
            if let Some(same) = found.iter().find(|one| one.value == value.value) {
                return Err(source.error(
                    place,
                    format!(
                        "the values {} and {} of {key} are the same",
                        same.written, value.written
                    ),
                ));
            }
            found.push(value);
        }
        if found.is_empty() {
            return Err(source.error(place, format!("the list of values for {key} is empty")));
        }
        grid.push((key, found));
    }
    Ok(grid)
}

fn grid_value(
    source: &Source,
    key: &str,
    key_at: usize,
    value: Spanned<DeValue<'_>>,
) -> Result<GridValue, String> {
    let at = value.span().start;
    let written = source.written(&value).trim().to_string();
    let value: toml::Value = source.value(value)?;
    let table: toml::Table = [(key.to_string(), value.clone())].into_iter().collect();
    match table.try_into::<Settings>() {
        Ok(_) => Ok(GridValue { written, value }),
        Err(error) => {
            let message = error.message();
            let is_unknown = message::is_of_unknown_field(message);
            let place = if is_unknown { key_at } else { at };
            Err(source.error(place, message::of_value(key, message)))
        }
    }
}

fn tasks_of(
    source: &Source,
    table: Entries<'_>,
    select_on: SelectOn,
    mistakes: &mut Mistakes,
) -> Vec<SweepTask> {
    let mut names: Vec<String> = Vec::new();
    let mut tasks = Vec::new();
    for (name, at, value) in table.rest() {
        let before = names.iter().map(String::as_str);
        let checked = check_name(&name, before).map_err(|error| source.error(at, error));
        names.push(name.clone());
        match checked.and_then(|()| task_of(source, name, at, value, select_on)) {
            Ok(task) => tasks.push(task),
            Err(line) => mistakes.add(at, line),
        }
    }
    tasks
}

fn task_of(
    source: &Source,
    name: String,
    at: usize,
    value: Spanned<DeValue<'_>>,
    select_on: SelectOn,
) -> Result<SweepTask, String> {
    let mut table = source.table(value)?;
    let starts_from = table.take_as("starts_from")?;
    let metric = table.take_as("metric")?;
    let score_split: Option<String> = table.take_as("score_split")?;
    let grid = grid_of(source, table.take_table("grid")?)?;
    let mut settings = settings_of(source, table)?;
    let task = settings.task.get_or_insert_with(|| name.clone());
    let splits = Splits::of(task).map_err(|error| source.error(at, error))?;
    let known = match select_on {
        SelectOn::Train => Some(splits.dev),
        SelectOn::Dev => splits.test,
    };
    let score_split = score_split.or(known).ok_or_else(|| {
        source.error(
            at,
            "dev chooses the settings, and the task has no test split to score: name another split with labels \
             (score_split = \"...\"), or remove `select_on`",
        )
    })?;
    Ok(SweepTask {
        name,
        starts_from,
        metric,
        score_split,
        is_generation: splits.is_generation,
        settings,
        grid,
        at,
    })
}

impl SweepFile {
    /// What may be a mistake, although the sweep can be run: two arms with the same settings, and too few seeds.
    pub(crate) fn notes(&self) -> Vec<String> {
        let same = |one: usize, other: usize| {
            (0..self.tasks.len()).all(|task| {
                let points = |arm| self.points(task, arm).iter().map(|point| &point.settings);
                points(one).eq(points(other))
            })
        };
        let pairs = (0..self.arms.len()).flat_map(|other| (0..other).map(move |one| (one, other)));
        let mut notes: Vec<String> = pairs
            .filter(|(one, other)| same(*one, *other))
            .map(|(one, other)| {
                format!(
                    "the arms {} and {} have the same settings, so their runs will be the same",
                    self.arms[one].name, self.arms[other].name
                )
            })
            .collect();
        notes.extend(self.too_few_seeds());
        notes
    }

    /// Says so if no difference from the baseline can be told apart with this number of seeds, however large it is.
    fn too_few_seeds(&self) -> Option<String> {
        let (others, tasks, seeds) = (self.arms.len() - 1, self.tasks.len(), self.seeds.len());
        if others == 0 {
            return None;
        }
        let (of_tasks, of_all) = (Reach::new(others * tasks, seeds), Reach::new(others, seeds));
        if of_tasks.is_enough() {
            return None;
        }
        let over_all = match tasks {
            1 => String::new(),
            _ => format!(" ({} for a mean over all tasks)", of_all.seeds_needed),
        };
        Some(format!(
            "{} too few to show a difference on a single task: {} with {} at least {} seeds{over_all}. Seeds can be added at the end of \
             the list, also to a sweep whose runs have ended",
            match seeds {
                1 => "1 seed is".to_string(),
                _ => format!("{seeds} seeds are"),
            },
            match of_tasks.comparisons {
                1 => "1 comparison".to_string(),
                count => format!("{count} comparisons"),
            },
            match of_tasks.comparisons {
                1 => format!("{} needs", self.arms[self.baseline].name),
                _ => format!("{} need", self.arms[self.baseline].name),
            },
            of_tasks.seeds_needed
        ))
    }
}

/// The splits of a task that a sweep uses.
struct Splits {
    dev: String,
    test: Option<String>,
    is_generation: bool,
}

impl Splits {
    fn of(task: &str) -> Result<Self, String> {
        fn named<T: TaskData + ?Sized>(task: &T, is_generation: bool) -> Splits {
            Splits {
                dev: task.dev_split().to_string(),
                test: task.test_split().map(str::to_string),
                is_generation,
            }
        }
        let failed = |error: DataError| error.to_string();
        if task == ChatTask::NAME {
            return Ok(named(&ChatTask, false));
        }
        if task == TableTask::NAME {
            // The classes of a table are read from its data, but its splits are always called the same.
            return Ok(Self {
                dev: "dev".to_string(),
                test: Some("test".to_string()),
                is_generation: false,
            });
        }
        match registry::open_generation(task, None).map_err(failed)? {
            Some(task) => Ok(named(task.as_ref(), true)),
            None => {
                let task = registry::open_classification(task, None, Path::new(""));
                Ok(named(task.map_err(failed)?.as_ref(), false))
            }
        }
    }
}

fn arms_of(source: &Source, table: Entries<'_>, mistakes: &mut Mistakes) -> Vec<Arm> {
    let mut names: Vec<String> = Vec::new();
    let mut arms = Vec::new();
    for (name, at, value) in table.rest() {
        let before = names.iter().map(String::as_str);
        let checked = check_name(&name, before).map_err(|error| source.error(at, error));
        names.push(name.clone());
        match checked.and_then(|()| arm_of(source, name, at, value)) {
            Ok(arm) => arms.push(arm),
            Err(line) => mistakes.add(at, line),
        }
    }
    arms
}

fn arm_of(
    source: &Source,
    name: String,
    at: usize,
    value: Spanned<DeValue<'_>>,
) -> Result<Arm, String> {
    let mut table = source.table(value)?;
    let grid = grid_of(source, table.take_table("grid")?)?;
    let mut tasks = Vec::new();
    for (task, _, value) in table.take_table("tasks")?.rest() {
        tasks.push((task, settings_of(source, source.table(value)?)?));
    }
    if let Some(at) = table.place_of("task") {
        return Err(source.error(
            at,
            "`task` cannot be set for an arm: it belongs into [tasks.NAME]",
        ));
    }
    let settings = settings_of(source, table)?;
    Ok(Arm {
        name,
        settings,
        grid,
        tasks,
        at,
    })
}

/// Names become those of folders, which some file systems compare without case.
fn check_name<'a>(name: &str, mut before: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_+.".contains(c);
    // The longest name of a folder is 255 bytes on most file systems, and this is only a part of some names.
    const LONGEST: usize = 100;
    if name.len() > LONGEST {
        return Err(format!(
            "`{}...` becomes the name of a folder: use at most {LONGEST} characters",
            &name.chars().take(20).collect::<String>()
        ));
    }
    if name.eq_ignore_ascii_case(FILE_LOCK) {
        return Err(format!(
            "`{name}` is the name of a file of the sweep: use another one"
        ));
    }
    if name.is_empty() || name.starts_with('.') || !name.chars().all(fits) {
        return Err(format!(
            "`{name}` becomes the name of a folder: use letters, digits and -_+. only, and no point at the start"
        ));
    }
    match before.find(|other| other.eq_ignore_ascii_case(name)) {
        Some(other) => Err(format!(
            "`{name}` and `{other}` become names of folders, which are the same where case does not count, as on macOS \
             and Windows: use names that differ in more than case"
        )),
        None => Ok(()),
    }
}

/// Each task that starts from another one must come after it.
fn check_starts(source: &Source, tasks: &[SweepTask]) -> Result<(), String> {
    for (index, task) in tasks.iter().enumerate() {
        let Some(from) = &task.starts_from else {
            continue;
        };
        if !tasks
            .iter()
            .take(index)
            .any(|earlier| earlier.name == *from)
        {
            return Err(source.error(
                task.at,
                format!("starts_from: no task `{from}` comes before this one"),
            ));
        }
    }
    Ok(())
}

/// The points of all tasks and arms. Every arm must have as many points of the same settings as the others.
fn points_of(
    source: &Source,
    common: &(Settings, Grid),
    tasks: &[SweepTask],
    arms: &[Arm],
) -> Result<Vec<Vec<Vec<Point>>>, String> {
    let mut all = Vec::new();
    for task in tasks {
        let mut of_task: Vec<Vec<Point>> = Vec::new();
        let mut first: Option<(&str, Vec<(String, usize)>)> = None;
        for arm in arms {
            let mut grid = common.1.clone();
            for (key, values) in task.grid.iter().chain(&arm.grid) {
                match grid.iter_mut().find(|(known, _)| known == key) {
                    Some((_, earlier)) => *earlier = values.clone(),
                    None => grid.push((key.clone(), values.clone())),
                }
            }
            let mut counts: Vec<(String, usize)> = grid
                .iter()
                .map(|(key, values)| (key.clone(), values.len()))
                .collect();
            counts.sort();
            match &first {
                None => first = Some((arm.name.as_str(), counts)),
                Some((name, wanted)) if *wanted != counts => {
                    return Err(source.error(
                        arm.at,
                        format!(
                            "on {}, arm {} has a grid of {} and arm {name} one of {}: an arm with more choices looks \
                             better than it is, so every arm needs as many values of the same settings",
                            task.name,
                            arm.name,
                            counted(&counts),
                            counted(wanted)
                        ),
                    ));
                }
                Some(_) => {}
            }
            let mut settings = arm.settings.clone();
            if let Some((_, own)) = arm.tasks.iter().find(|(name, _)| *name == task.name) {
                settings = own
                    .clone()
                    .over(settings)
                    .map_err(|error| source.error(arm.at, error))?;
            }
            let layers = [&task.settings, &common.0];
            for lower in layers {
                settings = settings
                    .over(lower.clone())
                    .map_err(|error| source.error(arm.at, error))?;
            }
            let from = settings.init_from.as_deref();
            let has_start = from.is_some_and(|from| from.as_os_str() != NONE);
            if settings.structure.is_none() && settings.method.is_none() && !has_start {
                return Err(source.error(
                    arm.at,
                    format!(
                        "arm {}: its structure or its method is needed, such as structure = \"lora\"",
                        arm.name
                    ),
                ));
            }
            let points = product(&grid, &settings).map_err(|error| source.error(arm.at, error))?;
            of_task.push(points);
        }
        all.push(of_task);
    }
    Ok(all)
}

fn counted(counts: &[(String, usize)]) -> String {
    if counts.is_empty() {
        return "nothing".to_string();
    }
    let parts: Vec<String> = counts
        .iter()
        .map(|(key, count)| format!("{count} {key}"))
        .collect();
    parts.join(" x ")
}

/// Every combination of the values, over `settings`. The values of the last setting change fastest.
fn product(grid: &Grid, settings: &Settings) -> Result<Vec<Point>, String> {
    let mut tables = vec![(Vec::new(), toml::Table::new())];
    for (key, values) in grid {
        let mut longer = Vec::new();
        for (names, table) in &tables {
            for value in values {
                let mut names: Vec<String> = names.clone();
                names.push(format!("{key}={}", value.written));
                let mut table = table.clone();
                table.insert(key.clone(), value.value.clone());
                longer.push((names, table));
            }
        }
        tables = longer;
    }
    let mut points: Vec<Point> = Vec::new();
    for (names, table) in tables {
        let own: Settings = table.try_into().map_err(|error| error.to_string())?;
        let name = match names.is_empty() {
            true => "as-given".to_string(),
            false => names.join(","),
        };
        let fits = |c: char| {
            if c.is_ascii_alphanumeric() || "-_+.=,".contains(c) {
                c
            } else {
                '_'
            }
        };
        let name: String = name.chars().map(fits).collect();
        // Names of folders, which some file systems compare without case.
        if points
            .iter()
            .any(|point| point.name.eq_ignore_ascii_case(&name))
        {
            return Err(format!("the grid has {name} twice"));
        }
        points.push(Point {
            name,
            settings: own
                .over(settings.clone())
                .map_err(|error| error.to_string())?,
        });
    }
    Ok(points)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const WHOLE: &str = r#"
seeds = [11, 12]
tuning_seeds = [1]
baseline = "lora"
threads = 1

[settings]
model = "m"
epochs = 3
batch = 4

[grid]
lr = [1e-3, 4e-3]

[tasks.second]
task = "acceptability"
data = "d"

[tasks.rte]
recipe = "roberta-base/rte"
grid.epochs = [1, 2]

[arms.shim]
structure = "shim"

[arms.lora]
structure = "lora"
grid.lr = [1e-2, 2e-2]
tasks.rte.batch_tokens = 99
"#;

    fn read(text: &str) -> Result<SweepFile, String> {
        SweepFile::of(Source::new("s.toml", text))
    }

    #[test]
    fn too_few_seeds_for_a_conclusion_are_noted() {
        let file = read(WHOLE).unwrap();
        let note = file.too_few_seeds().unwrap();
        assert!(
            note.starts_with("2 seeds are too few to show a difference on a single task: 2 comparisons with lora need at least 7 seeds (6 for a mean"),
            "{note}"
        );
        let seeds = (11..18).map(|seed| seed.to_string()).collect::<Vec<_>>();
        let enough = WHOLE.replace("11, 12", &seeds.join(", "));
        assert_eq!(read(&enough).unwrap().too_few_seeds(), None);
        assert!(read(&enough).unwrap().notes().is_empty());
        let again = "[arms.again]\nstructure = \"lora\"\ngrid.lr = [1e-2, 2e-2]\ntasks.rte.batch_tokens = 99\n";
        let notes = read(&format!("{WHOLE}{again}")).unwrap().notes();
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(
            notes[0].contains("lora and again have the same settings"),
            "{notes:?}"
        );
    }

    #[test]
    fn layers_and_grids_are_combined_in_the_order_of_the_file() {
        let file = read(WHOLE).unwrap();
        let names = |file: &SweepFile| -> Vec<String> {
            file.tasks.iter().map(|task| task.name.clone()).collect()
        };
        assert_eq!(names(&file), ["second", "rte"]);
        assert_eq!((file.baseline, file.arms[1].name.as_str()), (1, "lora"));
        let points: Vec<&str> = file
            .points(0, 0)
            .iter()
            .map(|one| one.name.as_str())
            .collect();
        assert_eq!(points, ["lr=1e-3", "lr=4e-3"]);
        let points = file.points(1, 1);
        let named: Vec<&str> = points.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(
            named,
            [
                "lr=1e-2,epochs=1",
                "lr=1e-2,epochs=2",
                "lr=2e-2,epochs=1",
                "lr=2e-2,epochs=2"
            ]
        );
        let last = &points[3].settings;
        assert_eq!((last.lr, last.epochs), (Some(2e-2), Some(2)));
        // The arm's own setting for the task replaces the batch of the layers below.
        assert_eq!((last.batch, last.batch_tokens), (None, Some(99)));
        assert_eq!(last.task.as_deref(), Some("rte"));
        // The task's recipe is below the arm and above nothing but the common settings.
        assert_eq!(file.points(1, 0)[0].settings.batch, Some(32));
        assert_eq!(last.max_length, Some(512));
        let first = &file.points(0, 0)[0].settings;
        assert_eq!(first.task.as_deref(), Some("acceptability"));
        assert_eq!((first.epochs, first.batch), (Some(3), Some(4)));
    }

    #[test]
    fn mistakes_in_several_tables_are_named_at_once() {
        let wrong = WHOLE
            .replacen("threads = 1", "threads = 0", 1)
            .replacen("epochs = 3", "learning_rate = 3", 1)
            .replacen("data = \"d\"", "rank = 'x'\nlora_alpha = 2", 1)
            .replacen("structure = \"shim\"", "structure = \"shin\"", 1);
        let error = read(&wrong).err().unwrap();
        let expected = [
            "s.toml:5:11: a whole number, 1 or more is needed here, not 0",
            "s.toml:9:1: unknown field `learning_rate`: did you mean `lr`?",
            "s.toml:17:8: `rank` must be a whole number, 0 or more, not the text \"x\"",
            "s.toml:18:1: unknown field `lora_alpha`: did you mean `alpha`?",
            "s.toml:25:13: unknown structure `shin`: one of ",
        ];
        let lines: Vec<&str> = error.lines().collect();
        assert_eq!(lines.len(), expected.len(), "{error}");
        for (line, expected) in lines.into_iter().zip(expected) {
            assert!(line.starts_with(expected), "{line}");
        }
    }

    #[test]
    fn errors_name_the_line_and_the_column() {
        let cases = [
            (
                "tuning_seeds = [1]",
                "tuning_seeds = [12]",
                "s.toml:3:1: the seed 12 is also in `seeds`",
            ),
            (
                "seeds = [11, 12]",
                "seeds = [11, 11]",
                "s.toml:2:1: the seed 11 is there twice",
            ),
            (
                "epochs = 3",
                "epcohs = 3",
                "s.toml:9:1: unknown field `epcohs`: did you mean `epochs`?",
            ),
            (
                "epochs = 3",
                "epochs = \"x\"",
                "s.toml:9:10: `epochs` must be a whole number, 0 or more, not the text \"x\"",
            ),
            (
                "lr = [1e-3, 4e-3]",
                "lr = [1e-3, \"x\"]",
                "s.toml:13:13: `lr` must be a number, not the text \"x\"",
            ),
            (
                "lr = [1e-3, 4e-3]",
                "lt = [1e-3]",
                "s.toml:13:1: unknown field `lt`: ",
            ),
            (
                "lr = [1e-3, 4e-3]",
                "lr = 3",
                "s.toml:13:6: a list of values",
            ),
            (
                "lr = [1e-3, 4e-3]",
                "seed = [3]",
                "s.toml:13:1: `seed` cannot be in a grid",
            ),
            (
                "grid.lr = [1e-2, 2e-2]",
                "grid.lr = [1e-2]",
                "s.toml:26:7: on second, arm lora has a grid of 1 lr",
            ),
            (
                "baseline = \"lora\"",
                "baseline = \"dora\"",
                "s.toml:4:1: there is no arm `dora`; the arms are shim, lora",
            ),
            (
                "baseline = \"lora\"",
                "base = \"dora\"",
                "s.toml:4:1: unknown key `base`: did you mean `baseline`? There are ",
            ),
            (
                "structure = \"shim\"",
                "structure = \"shin\"",
                "s.toml:24:13: ",
            ),
            (
                "epochs = 3",
                "threads = 3",
                "s.toml:9:1: `threads` cannot be set here",
            ),
            (
                "structure = \"shim\"",
                "seed = 3",
                "s.toml:24:1: `seed` cannot be set here",
            ),
            (
                "roberta-base/rte",
                "roberta-base/x",
                "s.toml:20:1: unknown recipe",
            ),
            (
                "structure = \"shim\"",
                "rank = 4",
                "s.toml:23:7: arm shim: its structure or its method is needed",
            ),
            (
                "threads = 1",
                "threads = 1\npublished = [{ name = \"x\", source = \"y\", scores = { rtf = 1 } }]",
                "s.toml:6:1: the published results of `x` have a score for `rtf`, which is no task; the tasks are second, rte",
            ),
            (
                "tasks.rte.batch",
                "tasks.cola.batch",
                "s.toml:26:7: arm lora: there is no task `cola`",
            ),
            (
                "[tasks.rte]",
                "[tasks.rte]\nstarts_from = \"mnli\"",
                "s.toml:19:8: starts_from: no task `mnli`",
            ),
            (
                "batch = 4",
                "batch = 4\nbatch_tokens = 4",
                "s.toml:11:1: has both batch and batch_tokens",
            ),
            (
                "threads = 1",
                "threads = 1\nheld_back = 1.5",
                "s.toml:6:1: the validation fraction must be",
            ),
            (
                "threads = 1",
                "threads = 1\nselect_on = \"x\"",
                "s.toml:6:13: `x` is not known here: one of `train`, `dev`",
            ),
            (
                "threads = 1",
                "threads = 1\npublished = [{ name = \"x\" }]",
                "s.toml:6:14: `source` is needed here",
            ),
            ("threads = 1", "threads = [", "s.toml:"),
            (
                "[arms.lora]",
                "[arms.SHIM]\nstructure = \"shim\"\n[arms.lora]",
                "s.toml:26:7: `SHIM` and `shim` become names of folders, which are the same where case does not count",
            ),
            (
                "[tasks.rte]",
                "[tasks.Second]\ntask = \"acceptability\"\n[tasks.rte]",
                "s.toml:19:8: `Second` and `second`",
            ),
            (
                "lr = [1e-3, 4e-3]",
                "lr = [1e-3, 1E-3]",
                "s.toml:13:6: the values 1e-3 and 1E-3 of lr are the same",
            ),
            (
                "lr = [1e-3, 4e-3]",
                "batch = [2, 4]\nbatch_tokens = [100, 200]",
                "s.toml:14:1: `batch_tokens` and `batch` cannot both be in a grid",
            ),
            (
                "lr = [1e-3, 4e-3]",
                "data = [\"a\", \"b\"]",
                "s.toml:13:1: `data` cannot be in a grid",
            ),
            (
                "[tasks.second]",
                "[tasks.\"sweep.lock\"]",
                "s.toml:15:8: `sweep.lock` is the name of a file of the sweep",
            ),
        ];
        for (from, to, message) in cases {
            assert!(WHOLE.contains(from), "{from}");
            let error = read(&WHOLE.replacen(from, to, 1)).err().unwrap();
            assert!(error.starts_with(message), "{to}: {error}");
        }
        let error = read(&WHOLE.replacen("tuning_seeds = [1]\n", "", 1))
            .err()
            .unwrap();
        assert!(error.contains("`tuning_seeds` is needed"), "{error}");
        assert!(
            read("seeds = [1]\n[arms.a]\n")
                .err()
                .unwrap()
                .contains("a task is needed")
        );
        assert!(read("").err().unwrap().contains("`seeds` is needed"));
    }
}

//! The folder of a sweep: a copy of its file, a folder for each run, and a claim on each run that is being made.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{process, thread};

use mtlora::models::write_atomically;
use mtlora::train::{Run, RunResults};
use serde::{Deserialize, Serialize};

use crate::cli::sweep::file::{FILE_LOCK, SweepFile};
use crate::cli::sweep::plan::{Cell, Phase, Plan};

/// The copy of the sweep's file.
pub(crate) const FILE: &str = "sweep.toml";
const RUNS: &str = "runs";
const CLAIMS: &str = "claims";
/// The pause before a lock is tried again while another process only looks at it.
const LOOK: Duration = Duration::from_millis(1);
/// The file that says in a run's folder that its training diverged.
const DIVERGED: &str = "diverged.json";

/// How a run ended.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// With these results.
    Done(Box<RunResults>),
    /// Its loss stopped being finite at this step.
    Diverged {
        /// The step, from 1.
        step: usize,
    },
}

#[derive(Serialize, Deserialize)]
struct Diverged {
    step: usize,
}

/// The outcomes of the cells that have ended, by index.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcomes(HashMap<usize, Outcome>);

impl Outcomes {
    /// The outcome of a cell, if it has ended.
    pub(crate) fn get(&self, index: usize) -> Option<&Outcome> {
        self.0.get(&index)
    }

    pub(crate) fn set(&mut self, index: usize, outcome: Outcome) {
        self.0.insert(index, outcome);
    }

    /// How many cells have ended.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// The folder of a sweep.
pub(crate) struct Store {
    folder: PathBuf,
}

/// The right to run a cell, until it is dropped or the process ends.
pub(crate) struct Claim {
    file: File,
    path: PathBuf,
}

impl Store {
    /// Opens the folder of a sweep, or makes it.
    ///
    /// # Errors
    /// If the folder has another sweep, something else, or cannot be written.
    pub(crate) fn create(folder: &Path, plan: &Plan) -> Result<Self, Box<dyn Error>> {
        let store = Self {
            folder: folder.to_path_buf(),
        };
        let path = store.folder.join(FILE);
        if !path.exists() {
            // Nothing is written into a folder with something else.
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            // Another process may be making the folder at the same moment.
            let mut names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
            if let Some(other) = names.find(|name| name != CLAIMS && !name.contains(FILE)) {
                return Err(format!(
                    "{}: it has {other} and no {FILE}, so it is not the folder of a sweep: name a new folder",
                    folder.display()
                )
                .into());
            }
        }
        let _lock = store.lock_file()?;
        match fs::read_to_string(&path) {
            Ok(text) if text == plan.file.text() => {}
            Ok(_) => store.extend(&path, plan)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                write_atomically(&path, plan.file.text().as_bytes())?;
            }
            Err(error) => return Err(store.failed(&path, &error).into()),
        }
        Ok(store)
    }

    /// Opens the folder of a sweep that was begun, and reads its file.
    ///
    /// # Errors
    /// If it is none.
    pub(crate) fn open(folder: &Path) -> Result<(Self, Plan), String> {
        let path = folder.join(FILE);
        if !path.exists() {
            return Err(format!(
                "{}: it has no {FILE}, so it is not the folder of a sweep (mtlora sweep run FILE --out DIR makes one)",
                folder.display()
            ));
        }
        let store = Self {
            folder: folder.to_path_buf(),
        };
        Ok((store, Plan::new(SweepFile::read(&path)?)))
    }

    /// Replaces the copy of the file by another one. The runs that were begun with the old one must stay as they are.
    fn extend(&self, path: &Path, plan: &Plan) -> Result<(), Box<dyn Error>> {
        let old = Plan::new(SweepFile::read(path)?);
        let is_begun = |cell: &Cell| Run::is_in(&self.run_folder(cell)) || self.is_claimed(cell);
        let changed = old.cells.iter().enumerate().find(|(index, cell)| {
            if plan.find(&cell.name).is_some() {
                return is_begun(cell) && !old.asks_for_the_same(*index, plan);
            }
            // The grid of an arm may change. A scored run may not go: another process may have added it just now.
            let mut of_arm = old.cells_of(cell.task, cell.arm);
            cell.phase == Phase::Final || of_arm.any(|(_, cell)| is_begun(cell))
        });
        if let Some((_, cell)) = changed {
            return Err(format!(
                "{}: with this file, the run {name} would be changed or removed: name a new folder. Arms, tasks and seeds may be \
                 added. The settings and the grid of an arm may change on a task while none of its runs there has begun. No \
                 scored run may be removed",
                self.folder.display(),
                name = cell.name
            )
            .into());
        }
        Ok(write_atomically(path, plan.file.text().as_bytes())?)
    }

    /// Refuses to make a run that is claimed, if the sweep's file now asks for another one: another process has changed it since
    /// this one read it.
    ///
    /// # Errors
    /// If it was changed, or cannot be read.
    pub(crate) fn check_unchanged(&self, plan: &Plan, index: usize) -> Result<(), String> {
        let _lock = self.lock_file()?;
        let path = self.folder.join(FILE);
        let now = SweepFile::read(&path)?;
        if now.text() == plan.file.text() || plan.asks_for_the_same(index, &Plan::new(now)) {
            return Ok(());
        }
        Err(format!(
            "{}: another process has changed it; start this one again",
            path.display()
        ))
    }

    /// Waits for the lock of the sweep's file, under which the file is compared and replaced, so that of two processes with
    /// different changes the second sees those of the first. It also refuses a file system without locks, on which two
    /// processes could make the same run.
    fn lock_file(&self) -> Result<File, String> {
        let path = self.folder.join(CLAIMS).join(FILE_LOCK);
        let locked = open_lock(&path).and_then(|file| file.lock().map(|()| file));
        locked.map_err(|error| match error.kind() {
            io::ErrorKind::Unsupported => format!(
                "{}: its file system has no locks, which keep two processes from making the same run: use another one \
                 (for Lustre, one that is mounted with -o flock)",
                self.folder.display()
            ),
            _ => self.failed(&path, &error),
        })
    }

    fn failed(&self, path: &Path, error: &io::Error) -> String {
        format!("{}: {error}", path.display())
    }

    /// The folder of a cell's run.
    pub(crate) fn run_folder(&self, cell: &Cell) -> PathBuf {
        self.folder.join(RUNS).join(&cell.name)
    }

    fn claim_path(&self, cell: &Cell) -> PathBuf {
        self.folder.join(CLAIMS).join(format!("{}.log", cell.name))
    }

    /// Claims a cell; `None` if another process has it.
    ///
    /// # Errors
    /// If the file of the claim cannot be written.
    pub(crate) fn claim(&self, cell: &Cell) -> Result<Option<Claim>, String> {
        let path = self.claim_path(cell);
        match lock(&path) {
            Ok(Some(file)) => Ok(Some(Claim { file, path })),
            Ok(None) => Ok(None),
            Err(error) => Err(self.failed(&path, &error)),
        }
    }

    /// Whether a process is making a cell's run now.
    pub(crate) fn is_claimed(&self, cell: &Cell) -> bool {
        let file = File::open(self.claim_path(cell));
        file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// How a cell ended; `None` if it has not.
    ///
    /// # Errors
    /// If a file of the run is damaged.
    pub(crate) fn outcome(&self, cell: &Cell) -> Result<Option<Outcome>, Box<dyn Error>> {
        let folder = self.run_folder(cell);
        if !Run::is_in(&folder) {
            return Ok(None);
        }
        let path = folder.join(DIVERGED);
        match fs::read_to_string(&path) {
            Ok(text) => {
                let Diverged { step } = serde_json::from_str(&text)
                    .map_err(|error| format!("{}: {error}", path.display()))?;
                return Ok(Some(Outcome::Diverged { step }));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(self.failed(&path, &error).into()),
        }
        let (run, config) = Run::open(&folder)?;
        // The results of a data-to-text run are saved once before its texts are scored.
        let is_whole =
            |results: &RunResults| config.data.score_split.is_none() || results.scored.is_some();
        let results = run.results()?.filter(is_whole);
        Ok(results.map(|results| Outcome::Done(Box::new(results))))
    }

    /// Records that a cell's training diverged.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn save_diverged(&self, cell: &Cell, step: usize) -> Result<(), Box<dyn Error>> {
        let text = serde_json::to_string(&Diverged { step })?;
        let path = self.run_folder(cell).join(DIVERGED);
        Ok(write_atomically(&path, format!("{text}\n").as_bytes())?)
    }

    /// Looks up the cells that have ended since the last time, and returns those of which a file is damaged, by index, with what
    /// is wrong.
    pub(crate) fn refresh(&self, plan: &Plan, outcomes: &mut Outcomes) -> BTreeMap<usize, String> {
        let mut damaged = BTreeMap::new();
        for (index, cell) in plan.cells.iter().enumerate() {
            if outcomes.get(index).is_some() {
                continue;
            }
            match self.outcome(cell) {
                Ok(Some(outcome)) => outcomes.set(index, outcome),
                Ok(None) => {}
                Err(error) => {
                    damaged.insert(index, error.to_string());
                }
            }
        }
        damaged
    }

    /// The cells that have ended. Those that cannot be read are reported, and count as missing.
    ///
    /// # Errors
    /// If none can be read, but some should be.
    pub(crate) fn ended(&self, plan: &Plan) -> Result<Outcomes, String> {
        let mut outcomes = Outcomes::default();
        let damaged = self.refresh(plan, &mut outcomes);
        if outcomes.len() == 0 && !damaged.is_empty() {
            let all: Vec<String> = damaged.into_values().collect();
            return Err(all.join("\n"));
        }
        for error in damaged.values() {
            note!("{error}");
        }
        Ok(outcomes)
    }
}

/// Opens a file for locks, and makes it and its folder. NFS needs it open for both reading and writing.
fn open_lock(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut options = OpenOptions::new();
    options.create(true).append(true).read(true).open(path)
}

/// Takes the exclusive lock of a file; `None` if another process has it. A shared lock, which [`Store::is_claimed`] takes for
/// a moment, is waited for.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let file = open_lock(path)?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
        match file.try_lock_shared() {
            // Nobody has the exclusive one.
            Ok(()) => file.unlock()?,
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        thread::sleep(LOOK);
    }
}

impl Claim {
    /// Appends an event to the history of the cell, with the time, the host and the process.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn note(&mut self, event: &str) -> Result<(), String> {
        let time = SystemTime::now().duration_since(UNIX_EPOCH);
        let seconds = time.map_or(0, |time| time.as_secs());
        let line = format!("{seconds} {} {} {event}\n", host(), process::id());
        self.file
            .write_all(line.as_bytes())
            .map_err(|error| format!("{}: {error}", self.path.display()))
    }
}

/// The name of this machine, as far as it is known.
fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname");
    let name = name.ok().or_else(|| std::env::var("HOSTNAME").ok());
    let name = name.unwrap_or_default();
    match name.trim() {
        "" => "unknown".to_string(),
        name => name.replace(char::is_whitespace, "-"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Barrier;

    use super::*;
    use crate::cli::settings::source::Source;

    fn plan(seeds: &str) -> Plan {
        let text = format!(
            "seeds = {seeds}\n[tasks.acceptability]\nmodel = 'm'\ndata = 'd'\n[arms.lora]\nstructure = 'lora'\n"
        );
        Plan::new(SweepFile::of(Source::new("sweep.toml", &text)).unwrap())
    }

    #[test]
    fn of_two_processes_that_change_a_sweep_at_once_one_is_refused() {
        for _ in 0..50 {
            let folder = tempfile::tempdir().unwrap();
            let folder = folder.path().join("sweep");
            Store::create(&folder, &plan("[1]")).unwrap();
            let start = Barrier::new(2);
            let change = |seeds: &str| {
                let plan = plan(seeds);
                start.wait();
                Store::create(&folder, &plan).is_ok()
            };
            let both = thread::scope(|scope| {
                let one = scope.spawn(|| change("[1, 2]"));
                let other = scope.spawn(|| change("[1, 3]"));
                [one.join().unwrap(), other.join().unwrap()]
            });
            assert!(both[0] != both[1], "{both:?}");
            let (_, kept) = Store::open(&folder).unwrap();
            assert_eq!(kept.file.seeds, if both[0] { [1, 2] } else { [1, 3] });
        }
    }

    #[test]
    fn a_process_does_not_make_a_run_of_an_older_file() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("sweep");
        let old = plan("[1]");
        let store = Store::create(&folder, &old).unwrap();
        let text = old
            .file
            .text()
            .replace("structure = 'lora'", "structure = 'shim'");
        let new = Plan::new(SweepFile::of(Source::new("sweep.toml", &text)).unwrap());
        Store::create(&folder, &new).unwrap();
        let claim = store.claim(&old.cells[0]).unwrap();
        assert!(claim.is_some());
        let error = store.check_unchanged(&old, 0).unwrap_err();
        assert!(error.contains("start this one again"), "{error}");
        assert_eq!(store.check_unchanged(&new, 0), Ok(()));
        // A claimed run keeps its settings.
        assert!(Store::create(&folder, &old).is_err());
        drop(claim);
        let more = plan("[1, 2]");
        Store::create(&folder, &old).unwrap();
        Store::create(&folder, &more).unwrap();
        assert_eq!(store.check_unchanged(&old, 0), Ok(()));
    }

    #[test]
    fn a_look_at_a_claim_does_not_take_the_run_from_a_process() {
        let folder = tempfile::tempdir().unwrap();
        let plan = plan("[1]");
        let store = Store::create(&folder.path().join("sweep"), &plan).unwrap();
        let cell = &plan.cells[0];
        drop(store.claim(cell).unwrap());
        let looking = File::open(store.claim_path(cell)).unwrap();
        looking.try_lock_shared().unwrap();
        let claim = thread::scope(|scope| {
            let claim = scope.spawn(|| store.claim(cell).unwrap());
            thread::sleep(Duration::from_millis(50));
            looking.unlock().unwrap();
            claim.join().unwrap()
        });
        assert!(claim.is_some() && store.is_claimed(cell));
        // One that is being made is left alone.
        assert!(store.claim(cell).unwrap().is_none());
    }
}

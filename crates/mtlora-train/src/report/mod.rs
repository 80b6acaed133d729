//! Writes one HTML page about one or several runs: curves, final metrics and settings. The page is a single file that
//! includes its styles and pictures, loads nothing else and runs no script. It follows the reader's choice of a light
//! or dark colour scheme.

mod card;
mod card_text;
mod chart;
mod comparison;
mod curves;
mod inspection;
mod page;
mod settings;

use std::io;
use std::path::{Path, PathBuf};

use mtlora_models::{ModelError, write_atomically};

use crate::run::error::RunError;
use crate::run::folder::Run;
use crate::run::results::RunResults;

pub use card::{CardOf, write_card_of, write_model_card};
pub use comparison::comparison_page;
pub use curves::Curves;
pub use page::escape;

/// Why a report could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// A run that cannot be read.
    #[error(transparent)]
    Run(#[from] Box<RunError>),
    /// The metrics log cannot be read.
    #[error("{}: cannot read: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// An invalid line of the metrics log.
    #[error("{}:{line}: invalid line of a metrics log: {reason}", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The page cannot be written.
    #[error(transparent)]
    Write(#[from] ModelError),
}

/// An additional section about a run, below its curves.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    /// Its heading.
    pub title: String,
    /// An HTML fragment: tables, paragraphs, inline SVG. Text from outside must be [`escape`]d. The page's CSS
    /// variables `--ink`, `--muted`, `--line`, `--card` and `--c0` to `--c7` are colours for both light and dark.
    pub html: String,
}

/// The contents of a report about one run.
#[derive(Clone, Debug, PartialEq)]
pub struct RunReport {
    /// The name of the run.
    pub name: String,
    /// Its settings, as in `run.toml`.
    pub settings: toml::Table,
    /// Its steps and evaluations.
    pub curves: Curves,
    /// Its results; `None` while it is not complete.
    pub results: Option<RunResults>,
    /// Additional sections; for a run with an adapter, what the adapter has learned.
    pub sections: Vec<Section>,
}

impl RunReport {
    /// Reads the run in `folder`, complete or not, and names it after the folder.
    ///
    /// # Errors
    /// When the folder is not a run, or its files cannot be read.
    pub fn open(folder: &Path) -> Result<Self, ReportError> {
        let mut report = Self::without_sections(folder)?;
        let (_, config) = Run::open(folder).map_err(Box::new)?;
        let section = inspection::section(folder, &config.base.model);
        report.sections.extend(section);
        Ok(report)
    }

    /// The same without additional sections, for which an adapter must be read.
    fn without_sections(folder: &Path) -> Result<Self, ReportError> {
        let (run, config) = Run::open(folder).map_err(Box::new)?;
        let settings = toml::Table::try_from(&config)
            .map_err(|error| Box::new(RunError::invalid(folder, error)))?;
        let results = run.results().map_err(Box::new)?;
        let whole = folder.canonicalize();
        let named = whole.as_deref().unwrap_or(folder);
        let name = named.file_name().unwrap_or(folder.as_os_str());
        Ok(Self {
            name: name.to_string_lossy().into_owned(),
            curves: Curves::read(&run.log())?,
            results,
            sections: Vec::new(),
            settings,
        })
    }
}

/// A report that shows runs side by side.
///
/// ```no_run
/// use mtlora_train::report::{Report, Section};
///
/// # fn main() -> Result<(), mtlora_train::report::ReportError> {
/// let mut report = Report::open(&["runs/shim", "runs/lora"])?;
/// report.runs[0].sections.push(Section {
///     title: "Notes".to_string(),
///     html: "<p>The first one.</p>".to_string(),
/// });
/// report.write("report.html".as_ref())?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The runs, in the order in which they are shown.
    pub runs: Vec<RunReport>,
}

impl Report {
    /// Reads the runs in these folders. Folders of the same name are distinguished by their paths.
    ///
    /// # Errors
    /// When a folder is not a run, or its files cannot be read.
    pub fn open<P: AsRef<Path>>(folders: &[P]) -> Result<Self, ReportError> {
        let mut runs = Vec::new();
        for folder in folders {
            runs.push((folder.as_ref(), RunReport::open(folder.as_ref())?));
        }
        Ok(Self::of_runs(runs))
    }

    /// A report about runs from these folders. Folders of the same name are distinguished by their paths.
    pub fn of_runs<P: AsRef<Path>>(runs: Vec<(P, RunReport)>) -> Self {
        let names: Vec<String> = runs.iter().map(|(_, run)| run.name.clone()).collect();
        let named = runs.into_iter().map(|(folder, mut run)| {
            if names.iter().filter(|name| **name == run.name).count() > 1 {
                run.name = folder.as_ref().display().to_string();
            }
            run
        });
        Self {
            runs: named.collect(),
        }
    }

    /// The report as an HTML page.
    pub fn to_html(&self) -> String {
        page::page(self)
    }

    /// Writes the page; an existing one is replaced only when the new one is complete.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), ReportError> {
        Ok(write_atomically(path, self.to_html().as_bytes())?)
    }
}

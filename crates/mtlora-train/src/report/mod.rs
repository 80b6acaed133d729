//! One HTML page about one or several runs: curves, final metrics, settings.
//!
//! The page is one file that asks for nothing from elsewhere and runs no script: styles and pictures are
//! in it. It follows the reader's choice of light or dark.

mod chart;
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

pub use curves::Curves;
pub use page::escape;

/// Why there is no report.
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
    /// A line of the metrics log that is none.
    #[error("{}:{line}: no line of a metrics log: {reason}", .path.display())]
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

/// Something more to show of a run, below its curves.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    /// Its heading.
    pub title: String,
    /// An HTML fragment: tables, paragraphs, inline SVG. Text from outside must be [`escape`]d. The page's CSS
    /// variables `--ink`, `--muted`, `--line`, `--card` and `--c0` to `--c7` are colours for both light and dark.
    pub html: String,
}

/// A run as the report shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct RunReport {
    /// What it is called.
    pub name: String,
    /// Its settings, as `run.toml` has them.
    pub settings: toml::Table,
    /// How it went.
    pub curves: Curves,
    /// What it came to; none while it is not complete.
    pub results: Option<RunResults>,
    /// What else is to be shown; for a run with an adapter, what it has learned.
    pub sections: Vec<Section>,
}

impl RunReport {
    /// Of the run in `folder`, complete or not, by the folder's name.
    ///
    /// # Errors
    /// When that is no run, or its files cannot be read.
    pub fn open(folder: &Path) -> Result<Self, ReportError> {
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
            sections: inspection::section(folder, &config.base.model)
                .into_iter()
                .collect(),
            settings,
        })
    }
}

/// A report on runs, side by side.
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
    /// Of the runs in these folders. Folders of the same name are told apart by their paths.
    ///
    /// # Errors
    /// When one is no run, or its files cannot be read.
    pub fn open<P: AsRef<Path>>(folders: &[P]) -> Result<Self, ReportError> {
        let mut runs = Vec::new();
        for folder in folders {
            runs.push(RunReport::open(folder.as_ref())?);
        }
        let names: Vec<String> = runs.iter().map(|run| run.name.clone()).collect();
        for (run, folder) in runs.iter_mut().zip(folders) {
            if names.iter().filter(|name| **name == run.name).count() > 1 {
                run.name = folder.as_ref().display().to_string();
            }
        }
        Ok(Self { runs })
    }

    /// The page.
    pub fn to_html(&self) -> String {
        page::page(self)
    }

    /// Writes the page, replacing an older one only when it is whole.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn write(&self, path: &Path) -> Result<(), ReportError> {
        Ok(write_atomically(path, self.to_html().as_bytes())?)
    }
}

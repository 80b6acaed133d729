//! The first runs, which are trained if the user names neither a model nor data.

use std::error::Error;
use std::path::{Path, PathBuf};

use mtlora::core::Init;
use mtlora::train::acceptability::Acceptability;
use mtlora::train::facts::Facts;

use crate::cli::settings::assets::{self, ASSETS};
use crate::cli::settings::flags::Settings;

/// A run that needs only what the program carries in itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FirstRun {
    /// Classifies sentences as well formed or not.
    Classify,
    /// Generates sentences from facts.
    Generate,
}

impl FirstRun {
    /// The run's folder.
    pub(crate) fn out(self) -> PathBuf {
        PathBuf::from(match self {
            FirstRun::Classify => "runs/first",
            FirstRun::Generate => "runs/facts",
        })
    }

    /// The folders with the model and the data.
    fn folders(self) -> [&'static str; 2] {
        match self {
            FirstRun::Classify => ["tiny-roberta", Acceptability::NAME],
            FirstRun::Generate => ["tiny-gpt2", Facts::NAME],
        }
    }

    /// The model, the data, and settings with which a tiny model learns a whole grammar; the defaults are made for
    /// large models.
    fn settings(self) -> Settings {
        let [model, data] = self
            .folders()
            .map(|folder| Some(Path::new(ASSETS).join(folder)));
        let shared = Settings {
            model,
            data,
            targets: Some("all-linear".to_string()),
            init: Some(Init::Identity),
            batch: Some(32),
            ..Settings::default()
        };
        match self {
            FirstRun::Classify => Settings {
                task: Some(Acceptability::NAME.to_string()),
                rank: Some(16),
                lr: Some(2e-3),
                epochs: Some(5),
                ..shared
            },
            FirstRun::Generate => Settings {
                task: Some(Facts::NAME.to_string()),
                rank: Some(8),
                lr: Some(5e-3),
                epochs: Some(4),
                adapter_dropout: Some(0.0),
                label_smoothing: Some(0.0),
                num_beams: Some(4),
                ..shared
            },
        }
    }
}

impl Settings {
    /// The first run that these settings ask for. They must name neither a model nor data, and no other task than
    /// that of a first run.
    pub(crate) fn asks_for_first_run(&self) -> Option<FirstRun> {
        if self.model.is_some() || self.data.is_some() {
            return None;
        }
        match self.task.as_deref() {
            None => Some(FirstRun::Classify),
            Some(Facts::NAME) => Some(FirstRun::Generate),
            Some(_) => None,
        }
    }

    /// Completes these settings with those of a first run, and writes its model and its data into the working directory
    /// if they are not there. A dry run writes nothing.
    ///
    /// # Errors
    /// If they cannot be written, or are not there for a dry run.
    pub(crate) fn over_first_run(
        self,
        which: FirstRun,
        dry_run: bool,
    ) -> Result<Self, Box<dyn Error>> {
        let (assets, folders) = (Path::new(ASSETS), which.folders());
        if !dry_run {
            assets::write(assets, &folders)?;
        } else if !assets::are_in(assets, &folders) {
            return Err(
                "--model, --task and --data are needed. Without them mtlora trains the first run, whose model and data \
                 are not in this folder yet: --dry-run writes nothing, and the same command without it writes them"
                    .into(),
            );
        }
        self.over(which.settings())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_set_wins_over_the_first_run() {
        let settings: Settings = toml::from_str("batch_tokens = 512\nepochs = 1\n").unwrap();
        assert_eq!(settings.asks_for_first_run(), Some(FirstRun::Classify));
        let filled = settings.over(FirstRun::Classify.settings()).unwrap();
        assert_eq!((filled.batch, filled.batch_tokens), (None, Some(512)));
        assert_eq!((filled.epochs, filled.rank), (Some(1), Some(16)));
        assert_eq!(filled.asks_for_first_run(), None);
    }
}

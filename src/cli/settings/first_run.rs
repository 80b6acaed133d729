//! The first runs: what is trained for somebody who names no model and no data.

use std::error::Error;
use std::path::{Path, PathBuf};

use mtlora::core::Init;
use mtlora::train::acceptability::Acceptability;
use mtlora::train::facts::Facts;

use crate::cli::settings::flags::Settings;

/// The folder of the repository with the tiny models and the data.
const ASSETS: &str = "assets";

/// A run that needs nothing but the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FirstRun {
    /// Is this sentence well formed?
    Classify,
    /// Facts to sentences.
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

    /// The model, the data, and what a tiny model needs to learn a whole grammar: the method's own settings are for
    /// large models.
    fn settings(self) -> Settings {
        let assets = Path::new(ASSETS);
        let shared = Settings {
            targets: Some("all-linear".to_string()),
            init: Some(Init::Identity),
            batch: Some(32),
            ..Settings::default()
        };
        match self {
            FirstRun::Classify => Settings {
                model: Some(assets.join("tiny-roberta")),
                task: Some(Acceptability::NAME.to_string()),
                data: Some(assets.join("acceptability")),
                rank: Some(16),
                lr: Some(2e-3),
                epochs: Some(5),
                ..shared
            },
            FirstRun::Generate => Settings {
                model: Some(assets.join("tiny-gpt2")),
                task: Some(Facts::NAME.to_string()),
                data: Some(assets.join(Facts::NAME)),
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
    /// The first run that is asked for: there is one if neither a model nor data is named, and no task other than a
    /// first run's.
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

    /// Fills in a first run. What is set already stays.
    ///
    /// # Errors
    /// If the repository's tiny model is not below the working directory.
    pub(crate) fn over_first_run(self, which: FirstRun) -> Result<Self, Box<dyn Error>> {
        let first = which.settings();
        if !first.model.as_deref().is_some_and(Path::is_dir) {
            return Err(
                "--model, --task, --data and --out are needed; without them the first run is \
                 made, whose model is in the repository: run from its folder"
                    .into(),
            );
        }
        self.over(first)
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

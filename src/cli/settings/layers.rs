//! Merges the layers of settings: flags override the settings file, and the file overrides the recipe.

use std::error::Error;
use std::path::Path;

use crate::cli::settings::defaults::NONE;
use crate::cli::settings::flags::Settings;
use crate::cli::settings::recipe::Recipe;
use crate::cli::settings::source::Source;

/// Groups of settings that exclude one another. If a layer has a setting of a group, the lower layers' settings of
/// the group are ignored.
pub(crate) const EXCLUSIVE: [&[&str]; 2] = [
    &["batch", "batch_tokens"],
    &["warmup_ratio", "warmup_steps"],
];

impl Settings {
    /// Completes these settings, first from the file `config` and then from the recipe.
    ///
    /// # Errors
    /// If the file cannot be read, there is no such recipe, or the recipe starts from another run and no run is
    /// named.
    pub(crate) fn layered(
        mut self,
        config: Option<&Path>,
        recipe: Option<&str>,
    ) -> Result<Self, Box<dyn Error>> {
        if let Some(path) = config {
            self = self.over(Self::read(path)?)?;
        }
        if let Some(name) = recipe {
            let recipe = Recipe::find(name)?;
            self = self.over(recipe.settings)?;
            if let (Some(origin), None) = (recipe.starts_from, &self.init_from) {
                return Err(format!(
                    "recipe {name} starts from the adapter of a {origin} run: pass --init-from RUN, the folder of \
                     such a run, or --init-from {NONE} to start with a new adapter"
                )
                .into());
            }
        }
        Ok(self)
    }

    /// Reads a settings file.
    ///
    /// # Errors
    /// If it cannot be read, or has something that is no setting; the message names the line and the column.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        Self::of(&Source::read(path)?)
    }

    /// Reads the text of a settings file.
    ///
    /// # Errors
    /// Those of [`Self::read`].
    pub(crate) fn of(source: &Source) -> Result<Self, String> {
        let entries = source.entries()?;
        // No setting has the names of these tables.
        if entries.place_of("format").is_some() && entries.place_of("training").is_some() {
            return Err(source.error(
                0,
                "this is the run.toml of a run, not a settings file. A settings file has the options of `mtlora train` as \
                 its keys, with _ for -, such as lr = 4e-4 or label_column = \"stars\". To resume the run, use `mtlora \
                 train --resume RUN`",
            ));
        }
        entries.settings()
    }

    /// Two settings that were given although they exclude each other.
    ///
    /// # Errors
    /// If a value cannot be stored in a TOML file.
    pub(crate) fn excluding(&self) -> Result<Option<(&'static str, &'static str)>, String> {
        let given = self.given()?;
        for group in EXCLUSIVE {
            let found = group.iter().filter(|name| given.contains_key(**name));
            if let [one, other, ..] = found.collect::<Vec<_>>()[..] {
                return Ok(Some((one, other)));
            }
        }
        Ok(None)
    }

    /// These settings as the text of a settings file.
    ///
    /// # Errors
    /// If a value cannot be stored in a TOML file.
    pub(crate) fn file(&self) -> Result<String, String> {
        toml::to_string(&self.given()?).map_err(|error| error.to_string())
    }

    /// Completes these settings with those of a lower layer.
    pub(crate) fn over(self, lower: Self) -> Result<Self, Box<dyn Error>> {
        let upper = self.given()?;
        let mut both = lower.given()?;
        for group in EXCLUSIVE {
            if group.iter().any(|name| upper.contains_key(*name)) {
                both.retain(|name, _| !group.contains(&name));
            }
        }
        both.extend(upper);
        Ok(both.try_into()?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::PathBuf;

    use super::*;

    fn settings(toml: &str) -> Settings {
        toml::from_str(toml).unwrap()
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_the_recipe() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("settings.toml");
        std::fs::write(&file, "lr = 2e-4\nepochs = 7\nwarmup_steps = 100\n").unwrap();
        let flags = settings("epochs = 9\nbatch_tokens = 2048\n");
        let all = flags
            .layered(Some(&file), Some("roberta-base/cola"))
            .unwrap();
        let expected = Settings {
            epochs: Some(9),
            batch_tokens: Some(2048),
            lr: Some(2e-4),
            warmup_steps: Some(100),
            // Each of these overrides the other setting of its group.
            batch: None,
            warmup_ratio: None,
            ..Recipe::find("roberta-base/cola").unwrap().settings
        };
        assert_eq!(all, expected);
    }

    #[test]
    fn a_runs_configuration_is_not_taken_for_a_settings_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("run.toml");
        let message = |text: &str| {
            std::fs::write(&file, text).unwrap();
            let error = settings("").layered(Some(&file), None);
            error.unwrap_err().to_string()
        };
        for text in [
            "format = 3\ndevice = 'flex'\n[base]\nmodel = 'm'\n[training]\nepochs = 1\n",
            "format = 2\nmodel = 'm'\n[training]\nepochs = 1\n",
        ] {
            let error = message(text);
            assert!(error.contains("is the run.toml of a run, not a settings file"));
            assert!(error.contains("run.toml:1:1: "), "{error}");
            assert!(error.ends_with("`mtlora train --resume RUN`"), "{error}");
        }
        assert!(
            message("lr = 1e-3\nepcohs = 3\n").contains("run.toml:2:1: unknown field `epcohs`")
        );
    }

    #[test]
    fn settings_that_exclude_each_other_are_refused_in_a_file_too() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("settings.toml");
        for (text, message) in [
            (
                "batch = 8\nbatch_tokens = 100\n",
                "settings.toml:2:1: has both batch and batch_tokens",
            ),
            (
                "warmup_steps = 8\nwarmup_ratio = 0.1\n",
                "settings.toml:2:1: has both warmup_ratio and warmup_steps",
            ),
        ] {
            std::fs::write(&file, text).unwrap();
            let error = settings("")
                .layered(Some(&file), None)
                .err()
                .unwrap()
                .to_string();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn a_recipe_that_starts_from_a_run_needs_its_folder() {
        let layered = |text: &str| settings(text).layered(None, Some("roberta-base/mrpc"));
        let error = layered("").err().unwrap().to_string();
        assert!(error.contains("of a roberta-base/mnli run: pass --init-from RUN"));
        assert!(error.ends_with("--init-from none to start with a new adapter"));
        let found = layered("init_from = 'runs/mnli'").unwrap();
        assert_eq!(found.init_from, Some(PathBuf::from("runs/mnli")));
        assert!(layered("init_from = 'none'").is_ok());
    }
}

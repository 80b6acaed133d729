//! Merges the layers of settings: flags override the settings file, and the file overrides the recipe.

use std::error::Error;
use std::path::Path;

use crate::cli::settings::defaults::NONE;
use crate::cli::settings::flags::{EXCLUSIVE, Settings};
use crate::cli::settings::recipe::Recipe;
use crate::cli::settings::source::{Mistakes, Source};

impl Settings {
    /// Completes these settings, first from the file `config` and then from the recipe.
    ///
    /// # Errors
    /// If the file cannot be read or something is wrong with it, there is no such recipe, or the recipe starts from another run
    /// and no run is named.
    pub(crate) fn layered(
        mut self,
        config: Option<&Path>,
        recipe: Option<&str>,
    ) -> Result<Self, Box<dyn Error>> {
        let mut file = None;
        if let Some(path) = config {
            let source = Source::read(path)?;
            let flags = self.given()?;
            self = self.over(Self::of(&source)?)?;
            file = Some((source, flags));
        }
        if let Some(idle) = self.without_effect() {
            note!("{}", idle.message);
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
        if let Some((source, flags)) = file {
            self.check_file(&source, &flags)?;
        }
        Ok(self)
    }

    /// Reads a settings file.
    ///
    /// # Errors
    /// If it cannot be read, or has something that is no setting; the message has a line for each mistake, with its place.
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
                "this is the run.toml of a run, not a settings file. A settings file has settings of `mtlora train` as \
                 its keys, with _ for -, such as lr = 4e-4 or label_column = \"stars\". To resume the run, use `mtlora \
                 train --resume RUN`",
            ));
        }
        if let Some(at) = entries.place_of("settings") {
            return Err(source.error(
                at,
                "a settings file has no table [settings]: its settings stand at the top of the file, so remove this line",
            ));
        }
        if let Some(at) = entries.place_of("arms").or(entries.place_of("tasks")) {
            return Err(source.error(
                at,
                "this is a sweep, not a settings file: `mtlora sweep run FILE --out DIR` makes its runs",
            ));
        }
        let (settings, mut mistakes) = entries.settings_with_mistakes();
        if !mistakes.is_empty() {
            settings.add_wrong(&mut mistakes, source);
        }
        mistakes.into_result()?;
        Ok(settings)
    }

    /// Reads the text of a settings file, and checks its settings for a training.
    ///
    /// # Errors
    /// Those of [`Self::read`], and what is wrong with a setting.
    pub(crate) fn checked(source: &Source) -> Result<Self, String> {
        let settings = Self::of(source)?;
        let mut mistakes = Mistakes::default();
        settings.add_wrong(&mut mistakes, source);
        mistakes.into_result()?;
        Ok(settings)
    }

    /// Adds what is wrong with these settings of a file.
    fn add_wrong(&self, mistakes: &mut Mistakes, source: &Source) {
        for wrong in self.wrong() {
            wrong.add_to(mistakes, source, None);
        }
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
    fn all_mistakes_of_a_file_are_named_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("settings.toml");
        let text = "task = 'cula'\nlr = '2e-3'\nepochs = 1.5\nbatch_size = 8\npatience = 0\nlabels = ['a', 3]\n";
        std::fs::write(&file, text).unwrap();
        let error = settings("").layered(Some(&file), None);
        let error = error.err().unwrap().to_string();
        let name = file.display();
        let expected = [
            "1:1: unknown task `cula`",
            "2:6: `lr` must be a number, not the text \"2e-3\"",
            "3:10: `epochs` must be a whole number, 0 or more, not 1.5",
            "4:1: unknown field `batch_size`: did you mean `batch`?",
            "5:1: patience must be at least 1",
            "6:16: each value of `labels` must be a text in quotes, not 3",
        ];
        let lines: Vec<&str> = error.lines().collect();
        assert_eq!(lines.len(), expected.len(), "{error}");
        for (line, expected) in lines.into_iter().zip(expected) {
            assert!(line.starts_with(&format!("{name}:{expected}")), "{line}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_setting_of_the_file_is_named_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("settings.toml");
        std::fs::write(&file, "task = 'cola'\nepochs = 0\nnum_beams = 3\n").unwrap();
        let layered = |flags: &str| settings(flags).layered(Some(&file), None);
        let error = layered("").err().unwrap().to_string();
        assert!(
            error.contains("settings.toml:1:1: only data-to-text tasks have num_beams"),
            "{error}"
        );
        assert!(
            error.contains("settings.toml:2:1: epochs must be at least 1"),
            "{error}"
        );
        // What flags override is not looked at.
        assert!(layered("task = 'e2e'\nepochs = 2\n").is_ok());
    }

    #[test]
    fn other_kinds_of_files_are_not_taken_for_a_settings_file() {
        for (text, message) in [
            (
                "[settings]\nlr = 1e-3\n",
                "s.toml:1:2: a settings file has no table [settings]",
            ),
            (
                "seeds = [1]\n[tasks.cola]\n",
                "s.toml:2:2: this is a sweep, not a settings file",
            ),
        ] {
            let error = Settings::of(&Source::new("s.toml", text)).err().unwrap();
            assert!(error.starts_with(message), "{error}");
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

//! The recipes: settings for a model and a task by name, those of the authors and those of this project for chat models.

use crate::cli::settings::flags::Settings;
use crate::cli::settings::source::{Mistakes, Source};

/// The name of a recipe and the text of its file.
macro_rules! recipe {
    ($name:literal) => {
        ($name, include_str!(concat!("recipes/", $name, ".toml")))
    };
}

const RECIPES: [(&str, &str); 13] = [
    recipe!("roberta-base/cola"),
    recipe!("roberta-base/sst2"),
    recipe!("roberta-base/mnli"),
    recipe!("roberta-base/qnli"),
    recipe!("roberta-base/qqp"),
    recipe!("roberta-base/mrpc"),
    recipe!("roberta-base/rte"),
    recipe!("roberta-base/stsb"),
    recipe!("gpt2-medium/e2e"),
    recipe!("gpt2-medium/webnlg"),
    recipe!("gpt2-medium/dart"),
    recipe!("smollm2-135m/chat"),
    recipe!("qwen3-0.6b/chat"),
];

/// The keys of a recipe's file.
pub(crate) const KEYS: [&str; 3] = ["about", "starts_from", "settings"];
/// The line of a recipe's file that its settings follow.
const SETTINGS: &str = "[settings]\n";

/// The settings of Liang et al. (arXiv 2403.07440) for a model and a task; for chat models, those of this project.
pub(crate) struct Recipe {
    /// A description on one line.
    pub(crate) about: String,
    /// The recipe of the run whose adapter this recipe starts from.
    pub(crate) starts_from: Option<String>,
    /// The settings.
    pub(crate) settings: Settings,
}

impl Recipe {
    /// Finds a recipe by name.
    ///
    /// # Errors
    /// When there is no such recipe, or its file is invalid.
    pub(crate) fn find(name: &str) -> Result<Self, String> {
        Self::of(&Source::new(&format!("recipe {name}"), text(name)?))
    }

    /// Reads the text of a recipe.
    ///
    /// # Errors
    /// If it is none; the message has a line for each mistake, with its place.
    pub(crate) fn of(source: &Source) -> Result<Self, String> {
        let mut root = source.entries()?;
        let mut mistakes = Mistakes::default();
        let place = |key: Option<usize>| key.unwrap_or(0);
        let about_at = root.place_of("about");
        let about: Option<String> = mistakes.keep(place(about_at), root.take_as("about"));
        let at = place(root.place_of("starts_from"));
        let starts_from = mistakes.keep(at, root.take_as("starts_from"));
        let at = place(root.place_of("settings"));
        let settings = match root.take_table("settings") {
            Ok(table) => {
                let (settings, wrong) = table.settings_with_mistakes();
                mistakes.extend(wrong);
                settings
            }
            Err(line) => {
                mistakes.add(at, line);
                Settings::default()
            }
        };
        mistakes.keep(0, root.finish(&KEYS));
        if about_at.is_none() {
            let line = source.error(
                0,
                "a file with the table [settings] is a recipe, and needs a line of text `about` at its top. The settings of \
                 a settings file stand at its top, without a table; a sweep has also `seeds`, [tasks.NAME] and [arms.NAME]",
            );
            mistakes.add(0, line);
        }
        mistakes.into_result()?;
        Ok(Self {
            about: about.unwrap_or_default(),
            starts_from,
            settings,
        })
    }

    /// The settings of the recipe of that name as the text of a settings file, with the recipe's comments.
    ///
    /// # Errors
    /// When there is no such recipe.
    pub(crate) fn settings_file(name: &str) -> Result<String, String> {
        let recipe = Self::find(name)?;
        let (head, settings) = text(name)?.split_once(SETTINGS).unwrap_or_default();
        let mut file = format!("# {name}: {}\n", recipe.about);
        if let Some(origin) = recipe.starts_from {
            file.push_str(&format!(
                "# It starts from a run of {origin} (--init-from).\n"
            ));
        }
        for comment in head.lines().filter(|line| line.starts_with('#')) {
            file.push_str(comment);
            file.push('\n');
        }
        file.push_str(settings);
        Ok(file)
    }

    /// What it sets, by name.
    ///
    /// # Errors
    /// When a value cannot be written as TOML.
    pub(crate) fn values(&self) -> Result<toml::Table, String> {
        self.settings.given()
    }

    /// All recipes with their names.
    ///
    /// # Errors
    /// When the file of a recipe is invalid.
    pub(crate) fn all() -> Result<Vec<(&'static str, Self)>, String> {
        let read = |(name, _)| Ok((name, Self::find(name)?));
        RECIPES.into_iter().map(read).collect()
    }
}

/// The names of all recipes.
pub(crate) fn names() -> Vec<&'static str> {
    RECIPES.into_iter().map(|(name, _)| name).collect()
}

/// The file of the recipe of that name.
fn text(name: &str) -> Result<&'static str, String> {
    let known = RECIPES.into_iter().find(|(known, _)| *known == name);
    let (_, text) = known.ok_or_else(|| {
        let names = RECIPES.map(|(known, _)| known).join(", ");
        format!("unknown recipe `{name}`: one of {names}")
    })?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mtlora::models::LossOn;

    use super::*;

    /// The recipes of a model with their task names.
    fn of(model: &str) -> Vec<(&'static str, Recipe)> {
        let split = |(name, recipe): (&'static str, Recipe)| {
            let (of, task) = name.split_once('/').unwrap();
            (of == model).then_some((task, recipe))
        };
        let all = Recipe::all().unwrap().into_iter();
        all.filter_map(split).collect()
    }

    #[test]
    fn roberta_has_the_papers_settings() {
        // The columns are the task, the batch size over all devices, the learning rate, the epochs and the seed.
        let table = [
            ("cola", 64, 4e-4, 80, 27),
            ("sst2", 32, 5e-4, 60, 69),
            ("mnli", 32, 5e-4, 30, 0),
            ("qnli", 64, 4e-4, 25, 1739),
            ("qqp", 32, 5e-4, 25, 0),
            ("mrpc", 16, 4e-4, 30, 0),
            ("rte", 32, 5e-4, 80, 0),
            ("stsb", 16, 4e-4, 40, 0),
        ];
        let recipes = of("roberta-base");
        assert_eq!(recipes.len(), table.len());
        for ((name, recipe), (task, batch, lr, epochs, seed)) in recipes.into_iter().zip(table) {
            let from_mnli = ["mrpc", "rte", "stsb"].contains(&task);
            let origin = from_mnli.then(|| "roberta-base/mnli".to_string());
            assert_eq!((name, recipe.starts_from), (task, origin));
            let expected = Settings {
                task: Some(task.to_string()),
                rank: Some(8),
                alpha: Some(16.0),
                adapter_dropout: Some(0.0),
                targets: Some("query,value".to_string()),
                lr: Some(lr),
                batch: Some(batch),
                epochs: Some(epochs),
                warmup_ratio: Some(0.06),
                weight_decay: Some(0.1),
                max_length: Some(512),
                seed: Some(seed),
                ..Settings::default()
            };
            assert_eq!(recipe.settings, expected, "{name}");
        }
    }

    #[test]
    fn gpt2_has_the_papers_settings() {
        let table = [("e2e", 0.9), ("webnlg", 0.8), ("dart", 0.8)];
        let recipes = of("gpt2-medium");
        assert_eq!(recipes.len(), table.len());
        for ((name, recipe), (task, length_penalty)) in recipes.into_iter().zip(table) {
            assert_eq!((name, recipe.starts_from), (task, None));
            let expected = Settings {
                task: Some(task.to_string()),
                rank: Some(4),
                alpha: Some(32.0),
                adapter_dropout: Some(0.1),
                targets: Some("c_attn,c_fc".to_string()),
                projections: Some("qkv".to_string()),
                lr: Some(2e-4),
                batch: Some(8),
                epochs: Some(5),
                warmup_steps: Some(500),
                weight_decay: Some(0.01),
                label_smoothing: Some(0.1),
                max_length: Some(512),
                num_beams: Some(10),
                length_penalty: Some(length_penalty),
                no_repeat_ngram_size: Some(4),
                eos_token_ids: Some(vec![628, 50256]),
                max_new_tokens: Some(64),
                ..Settings::default()
            };
            assert_eq!(recipe.settings, expected, "{name}");
        }
    }

    /// A chat model with these settings sees conversations, and the text that no one asked for is no part of them.
    #[test]
    fn chat_models_learn_conversations_on_all_linear_maps() {
        for model in ["smollm2-135m", "qwen3-0.6b"] {
            let recipes = of(model);
            let [(task, recipe)] = recipes.as_slice() else {
                panic!("{model} has one recipe");
            };
            let settings = &recipe.settings;
            assert_eq!((*task, settings.task.as_deref()), ("chat", Some("chat")));
            assert_eq!(settings.targets.as_deref(), Some("all-linear"));
            assert_eq!(
                (settings.rank, settings.loss_on),
                (Some(16), Some(LossOn::Assistant))
            );
        }
    }

    #[test]
    fn a_recipe_is_printed_as_a_settings_file() {
        for (name, recipe) in Recipe::all().unwrap() {
            let file = Recipe::settings_file(name).unwrap();
            let read: Settings = toml::from_str(&file).unwrap();
            assert_eq!(read, recipe.settings, "{name}");
            assert!(file.starts_with(&format!("# {name}: {}\n# ", recipe.about)));
            let is_of_authors = file.contains("arXiv 2403.07440");
            assert_eq!(is_of_authors, !name.ends_with("/chat"), "{name}");
            assert_eq!(file.contains("--init-from"), recipe.starts_from.is_some());
        }
        assert!(Recipe::settings_file("roberta-base/cula").is_err());
    }

    #[test]
    fn an_unknown_recipe_is_refused_with_the_known_ones() {
        let error = Recipe::find("roberta-base/cula").err().unwrap();
        assert!(error.contains("cula") && error.contains("roberta-base/cola"));
        for (name, recipe) in Recipe::all().unwrap() {
            assert!(!recipe.about.is_empty(), "{name}");
            if let Some(origin) = recipe.starts_from {
                assert!(Recipe::find(&origin).is_ok(), "{name}");
            }
        }
    }
}

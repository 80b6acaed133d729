//! The part of the train split that a run holds back from training (`--validation-fraction`).

use std::error::Error;
use std::path::PathBuf;

use mtlora::train::{DataError, RunConfig, Target, hold_back};

/// The name of that part, where the name of a split is expected.
pub(crate) const HELD_BACK: &str = "held-back";

/// Splits the items of a train split into the learned ones and those that are held back: about the share `fraction` of each
/// class. `target` returns what is to be predicted for an item.
pub(crate) fn by_class<T>(
    items: Vec<T>,
    fraction: f64,
    target: impl Fn(&T) -> Option<Target>,
) -> Result<(Vec<T>, Vec<T>), DataError> {
    hold_back(items, fraction, |item| match target(item) {
        Some(Target::Class(class)) => Some(class),
        Some(Target::Value(_)) | None => None,
    })
}

/// Whether an error says that a split has no file.
pub(crate) fn is_absent(error: &DataError) -> bool {
    matches!(error, DataError::NotFound { .. })
}

/// Adds advice to the error of reading the dev split before a training: if the split has no file, `--validation-fraction` can take its
/// place.
pub(crate) fn or_hold_back(error: DataError) -> Box<dyn Error> {
    if is_absent(&error) {
        format!(
            "{error}. Or let a tenth of the train split take the place of the dev split: --validation-fraction 0.1"
        )
        .into()
    } else {
        error.into()
    }
}

/// Whether the run was trained on the data that the user names, so that its held-back examples can be found there. If none are
/// named, the run's own data are meant.
pub(crate) fn are_its_data<K>(named: &Option<PathBuf>, config: &RunConfig<K>) -> bool {
    named.as_ref().is_none_or(|named| {
        let places = (named.canonicalize(), config.data.folder.canonicalize());
        matches!(places, (Ok(named), Ok(own)) if named == own)
    })
}

/// The splits that a run knows.
#[derive(Clone, Copy)]
pub(crate) struct Splits<'a> {
    /// The split that it was trained on.
    pub(crate) train: &'a str,
    /// The split that decides which state is the best, unless a part of the train split does.
    pub(crate) dev: &'a str,
    /// The share of the train split that was held back.
    pub(crate) fraction: Option<f64>,
}

impl Splits<'_> {
    /// The examples of the split `wanted`, or of what was held back if that is [`HELD_BACK`], and their name. `None` means the
    /// dev split, or what was held back where there is no dev split. `read` reads a split, and `hold` splits the examples into
    /// the learned ones and the others.
    ///
    /// # Errors
    /// Those of `read` and `hold`, and if nothing was held back.
    pub(crate) fn choose<T>(
        self,
        wanted: Option<&str>,
        read: impl Fn(&str) -> Result<Vec<T>, DataError>,
        hold: impl Fn(Vec<T>, f64) -> Result<(Vec<T>, Vec<T>), DataError>,
    ) -> Result<(String, Vec<T>), Box<dyn Error>> {
        let held_back = |fraction| {
            let (_, held_back) = hold(read(self.train)?, fraction)?;
            Ok::<_, DataError>((HELD_BACK.to_string(), held_back))
        };
        match wanted {
            Some(HELD_BACK) => Ok(held_back(self.share()?)?),
            Some(split) => Ok((split.to_string(), read(split)?)),
            None => match (read(self.dev), self.fraction) {
                (Err(error), Some(fraction)) if is_absent(&error) => match held_back(fraction) {
                    Err(other) if is_absent(&other) => Err(error.into()),
                    found => Ok(found?),
                },
                (found, _) => Ok((self.dev.to_string(), found?)),
            },
        }
    }

    /// The share that was held back.
    ///
    /// # Errors
    /// If nothing was.
    pub(crate) fn share(self) -> Result<f64, String> {
        self.fraction.ok_or_else(|| {
            format!(
                "--split {HELD_BACK}: only a run that was trained with --validation-fraction has held-back examples, and only on the \
                 data that it was trained on; name a split, such as {}",
                self.dev
            )
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn absent(split: &str) -> DataError {
        DataError::NotFound {
            path: PathBuf::from(format!("{split}.csv")),
            hint: "put it there".to_string(),
        }
    }

    #[test]
    fn what_was_held_back_is_chosen_by_name_or_where_there_is_no_dev_split() {
        let splits = |fraction| Splits {
            train: "train",
            dev: "dev",
            fraction,
        };
        let choose = |there: &[&str], wanted: Option<&str>, fraction: Option<f64>| {
            let read = |split: &str| match there.contains(&split) {
                true => Ok(vec![split.len(); 8]),
                false => Err(absent(split)),
            };
            let hold = |items: Vec<usize>, fraction| by_class(items, fraction, |_| None);
            let chosen = splits(fraction).choose(wanted, read, hold);
            chosen
                .map(|(name, examples)| (name, examples.len()))
                .map_err(|error| error.to_string())
        };
        let held_back = Ok((HELD_BACK.to_string(), 2));
        let whole = |split: &str| Ok((split.to_string(), 8));
        let all = ["train", "dev", "test"];
        assert_eq!(choose(&all, Some(HELD_BACK), Some(0.25)), held_back);
        assert_eq!(choose(&all, None, Some(0.25)), whole("dev"));
        assert_eq!(choose(&all, Some("test"), Some(0.25)), whole("test"));
        assert_eq!(choose(&["train"], None, Some(0.25)), held_back);
        let message = choose(&["train"], None, None).unwrap_err();
        assert!(message.starts_with("dev.csv: no such file"), "{message}");
        // The file that is asked for first is the one that is named.
        let message = choose(&["test"], None, Some(0.25)).unwrap_err();
        assert!(message.starts_with("dev.csv: no such file"), "{message}");
        let message = choose(&all, Some(HELD_BACK), None).unwrap_err();
        assert!(message.contains("--validation-fraction"), "{message}");
    }

    #[test]
    fn a_training_without_a_dev_split_is_told_of_the_other_way() {
        let message = or_hold_back(absent("dev")).to_string();
        assert!(message.ends_with("--validation-fraction 0.1"), "{message}");
        let message = or_hold_back(DataError::row("dev.csv".as_ref(), 2, "wrong")).to_string();
        assert_eq!(message, "dev.csv:2: wrong");
    }
}

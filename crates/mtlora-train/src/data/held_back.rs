//! Holds back a part of the training examples, on which settings and the best state are chosen.

use std::collections::BTreeMap;

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::data::error::DataError;

/// The seed of the choice. It is not the run's seed: runs that are compared must hold back the same examples.
const SEED: u64 = 0;

/// Splits `items` into those to train on and those that are held back, each in the order of `items`.
///
/// About the share `fraction` of each stratum is held back; `stratum` is the class of an example, or the same for all
/// if there are no classes. The choice depends only on `items` and `fraction`.
///
/// # Errors
/// If `fraction` is not between 0 and 1, or one of the two parts would be empty.
pub fn hold_back<T>(
    items: Vec<T>,
    fraction: f64,
    stratum: impl Fn(&T) -> Option<usize>,
) -> Result<(Vec<T>, Vec<T>), DataError> {
    check_fraction(fraction).map_err(DataError::other)?;
    let mut strata: BTreeMap<Option<usize>, Vec<usize>> = BTreeMap::new();
    for (index, item) in items.iter().enumerate() {
        strata.entry(stratum(item)).or_default().push(index);
    }
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let count = items.len();
    let classes = strata.len();
    let largest = strata.values().map(Vec::len).max().unwrap_or(0);
    let mut is_held_back = vec![false; count];
    for mut members in strata.into_values() {
        members.shuffle(&mut rng);
        let share = (members.len() as f64 * fraction).round() as usize;
        for index in members.into_iter().take(share) {
            is_held_back[index] = true;
        }
    }
    let numbered = items.into_iter().zip(is_held_back);
    let (held_back, rest): (Vec<_>, Vec<_>) = numbered.partition(|(_, is_held_back)| *is_held_back);
    if held_back.is_empty() && classes > 1 {
        return Err(DataError::other(format!(
            "a validation fraction of {fraction} leaves none to hold back: the {count} training examples have {classes} classes, \
             the largest of which has {largest}; choose a larger fraction, or pass --regression if the classes are numbers"
        )));
    }
    if held_back.is_empty() || rest.is_empty() {
        return Err(DataError::other(format!(
            "a validation fraction of {fraction} of the {count} training examples leaves none to {}: choose another",
            if rest.is_empty() {
                "train on"
            } else {
                "hold back"
            }
        )));
    }
    let items = |part: Vec<(T, bool)>| part.into_iter().map(|(item, _)| item).collect();
    Ok((items(rest), items(held_back)))
}

/// Refuses a fraction that is not between 0 and 1.
///
/// # Errors
/// A message that says so.
pub fn check_fraction(fraction: f64) -> Result<(), String> {
    if fraction > 0.0 && fraction < 1.0 {
        return Ok(());
    }
    Err(format!(
        "the validation fraction must be between 0 and 1, and is {fraction}"
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_class_gives_its_share_and_nothing_is_lost() {
        // Three quarters are of class 0.
        let items: Vec<usize> = (0..400).collect();
        let class = |item: &usize| Some(usize::from(item.is_multiple_of(4)));
        let (rest, held_back) = hold_back(items.clone(), 0.1, class).unwrap();
        assert_eq!((rest.len(), held_back.len()), (360, 40));
        let of_one = held_back.iter().filter(|item| class(item) == Some(1));
        assert_eq!(of_one.count(), 10);
        assert!(rest.is_sorted() && held_back.is_sorted());
        let mut all = [rest, held_back.clone()].concat();
        all.sort_unstable();
        assert_eq!(all, items);
        // The choice is the same each time, and spread over the file.
        assert_eq!(hold_back(items, 0.1, class).unwrap().1, held_back);
        assert!(held_back[0] < 100 && held_back[39] > 300, "{held_back:?}");
    }

    #[test]
    fn classes_that_are_too_small_are_named_as_the_reason() {
        let items: Vec<usize> = (0..200).collect();
        let error = hold_back(items, 0.2, |item| Some(*item)).unwrap_err();
        let said = error.to_string();
        assert!(
            said.contains("200 classes") && said.contains("--regression"),
            "{said}"
        );
    }

    #[test]
    fn fractions_that_leave_nothing_are_refused() {
        for fraction in [0.0, 1.0, -0.1, f64::NAN] {
            let error = hold_back(vec![1, 2, 3], fraction, |_| None).unwrap_err();
            assert!(error.to_string().contains("between 0 and 1"), "{error}");
        }
        for (fraction, what) in [(0.1, "none to hold back"), (0.9, "none to train on")] {
            let error = hold_back(vec![1, 2, 3], fraction, |_| None).unwrap_err();
            assert!(error.to_string().contains(what), "{error}");
        }
    }
}

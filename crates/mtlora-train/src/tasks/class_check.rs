//! Checks the classes of a table for likely mistakes.

use std::collections::BTreeMap;

use mtlora_models::messages::shown;

use crate::data::error::listed;
use crate::data::example::{Example, Objective, Target};

/// Spellings of a missing value in lower case: the defaults of pandas' `read_csv` (its parameter `na_values`) and those
/// of other tools.
const MISSING: [&str; 17] = [
    "#n/a",
    "#n/a n/a",
    "#na",
    "-1.#ind",
    "-1.#qnan",
    "-nan",
    "1.#ind",
    "1.#qnan",
    "<na>",
    "n/a",
    "na",
    "nan",
    "none",
    "null",
    "nil",
    "undefined",
    "nat",
];
/// Characters without width that editors and tables leave in a text.
const INVISIBLE: [char; 8] = [
    '\u{ad}', '\u{200b}', '\u{200c}', '\u{200d}', '\u{200e}', '\u{200f}', '\u{2060}', '\u{feff}',
];

/// A class and its number of examples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassCount {
    /// The name of the class.
    pub label: String,
    /// The number of its examples.
    pub count: usize,
}

/// The number of examples of each class, in the order of the classes; empty for a regression.
pub fn class_counts(objective: &Objective, examples: &[Example]) -> Vec<ClassCount> {
    let mut counts = vec![0; objective.labels().len()];
    for example in examples {
        if let Some(Target::Class(class)) = example.target
            && let Some(count) = counts.get_mut(class)
        {
            *count += 1;
        }
    }
    let labels = objective.labels().iter().cloned().zip(counts);
    labels
        .map(|(label, count)| ClassCount { label, count })
        .collect()
}

/// Warnings about likely mistakes in the classes, one sentence each.
pub fn class_warnings(classes: &[ClassCount]) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut alike: BTreeMap<String, Vec<&ClassCount>> = BTreeMap::new();
    for class in classes.iter().filter(|class| class.count > 0) {
        alike.entry(plain(&class.label)).or_default().push(class);
    }
    let mut groups: Vec<Vec<&ClassCount>> = alike
        .into_values()
        .filter(|group| group.len() > 1)
        .collect();
    groups.sort_by_key(|group| classes.iter().position(|class| class == group[0]));
    for group in groups {
        let names: Vec<String> = group
            .iter()
            .map(|class| format!("{} ({})", shown(&class.label), class.count))
            .collect();
        warnings.push(format!(
            "the classes {} differ only in {}, but count as different classes: spell them alike in the data if they \
             mean the same",
            names.join(" and "),
            difference(&group)
        ));
    }
    for class in classes.iter().filter(|class| class.count > 0) {
        if MISSING.contains(&class.label.trim().to_lowercase().as_str()) {
            warnings.push(format!(
                "the class {} ({} rows) looks like a missing value: delete or correct these rows unless it is meant as a class",
                shown(&class.label),
                class.count
            ));
        }
    }
    let rows: usize = classes.iter().map(|class| class.count).sum();
    let there = classes.iter().filter(|class| class.count > 0).count();
    if there * 2 > rows && rows > 0 {
        let there_are = classes.iter().filter(|class| class.count > 0);
        let names: Vec<&str> = there_are.map(|class| class.label.as_str()).collect();
        let numbers = names.iter().all(|name| number(name).is_some());
        let way_out = if numbers {
            "to predict numbers, pass --regression"
        } else {
            "check that --label-column names the column with the classes"
        };
        warnings.push(format!(
            "there are {there} classes in {rows} rows ({}): {way_out}",
            listed(&names)
        ));
    }
    warnings
}

/// A normalised spelling: equal for two spellings that probably mean the same class.
fn plain(label: &str) -> String {
    match number(label) {
        // Adding zero turns -0 into 0.
        Some(value) => format!("{}", value + 0.0),
        None => squeezed(label).to_lowercase(),
    }
}

/// A label without characters that have no width, and with single spaces.
fn squeezed(label: &str) -> String {
    let visible = label.replace(INVISIBLE, "");
    visible.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The number that a label spells, with a point or a comma before its decimals.
fn number(label: &str) -> Option<f64> {
    let mut text = squeezed(label);
    // A comma before three digits may be a thousands separator.
    let decimals = text.split_once(',').map(|(_, behind)| behind.len());
    if decimals.is_some_and(|count| count != 3) {
        text = text.replacen(',', ".", 1);
    }
    text.parse().ok().filter(|value: &f64| value.is_finite())
}

/// What distinguishes classes that have the same normalised spelling.
fn difference(group: &[&ClassCount]) -> &'static str {
    let labels = || group.iter().map(|class| class.label.as_str());
    let same = |form: &dyn Fn(&str) -> String| {
        let mut forms = labels().map(form);
        let first = forms.next();
        forms.all(|form| Some(form) == first)
    };
    if labels().all(|label| number(label).is_some()) {
        "how a number is written"
    } else if same(&str::to_lowercase) {
        "case"
    } else if same(&squeezed) {
        "white space"
    } else {
        "case and white space"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings(classes: &[(&str, usize)]) -> Vec<String> {
        let counts: Vec<ClassCount> = classes
            .iter()
            .map(|(label, count)| ClassCount {
                label: label.to_string(),
                count: *count,
            })
            .collect();
        class_warnings(&counts)
    }

    /// The examples are spellings that a person would take for one class.
    #[test]
    fn classes_that_are_spelled_in_two_ways_are_named() {
        let cases = [
            (["Yes", "yes"], "case"),
            (["1", "1.0"], "how a number is written"),
            (["0", "-0"], "how a number is written"),
            (["1.5", "1,5"], "how a number is written"),
            (["1000", "1e3"], "how a number is written"),
            (["07", "7"], "how a number is written"),
            (["very good", "very  good"], "white space"),
            (["very good", "very\u{a0}good"], "white space"),
            (["good", "go\u{200b}od"], "white space"),
            (["Very good", "very\u{a0}good"], "case and white space"),
            (["STRASSE", "strasse"], "case"),
            (["ÉTÉ", "été"], "case"),
        ];
        for (pair, difference) in cases {
            let found = warnings(&[(pair[0], 10), (pair[1], 20), ("other", 30)]);
            assert_eq!(found.len(), 1, "{pair:?}: {found:?}");
            assert!(
                found[0].contains(&format!("differ only in {difference},")),
                "{found:?}"
            );
            assert!(
                found[0].contains("(10)") && found[0].contains("(20)"),
                "{found:?}"
            );
        }
    }

    #[test]
    fn classes_that_differ_are_left_alone() {
        for pair in [
            ["1", "2"],
            ["yes", "no"],
            ["1.5", "15"],
            ["a b", "ab"],
            ["x", "x1"],
            ["1", "1,000"],
            ["good", "góod"],
        ] {
            assert_eq!(
                warnings(&[(pair[0], 10), (pair[1], 20)]),
                Vec::<String>::new(),
                "{pair:?}"
            );
        }
    }

    /// The names of pandas' default `na_values`.
    #[test]
    fn classes_named_like_a_missing_value_are_named() {
        for name in [
            "NaN", "nan", "NULL", "null", "None", "N/A", "n/a", "NA", "<NA>", "#N/A", "-nan",
        ] {
            let found = warnings(&[(name, 3), ("good", 10), ("bad", 10)]);
            assert_eq!(found.len(), 1, "{name}: {found:?}");
            assert!(
                found[0].contains("missing value") && found[0].contains("3 rows"),
                "{found:?}"
            );
        }
        // There is no warning about a class without rows.
        assert!(warnings(&[("nan", 0), ("good", 10), ("bad", 10)]).is_empty());
    }

    #[test]
    fn more_than_half_as_many_classes_as_rows_are_too_many() {
        let decimals: Vec<String> = (0..40).map(|n| format!("{}.{n}5", n % 7)).collect();
        let decimals: Vec<(&str, usize)> = decimals.iter().map(|d| (d.as_str(), 1)).collect();
        let found = warnings(&decimals);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("40 classes in 40 rows"), "{found:?}");
        assert!(found[0].ends_with("pass --regression"), "{found:?}");
        let words = [("a", 1), ("b", 1), ("c", 1), ("d", 2)];
        assert!(warnings(&words)[0].ends_with("names the column with the classes"));
        // Half as many are not too many.
        assert!(warnings(&[("a", 2), ("b", 2)]).is_empty());
        assert!(warnings(&[]).is_empty());
    }
}

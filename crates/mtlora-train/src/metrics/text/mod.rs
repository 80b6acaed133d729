//! Metrics for generated text: those of E2E, WebNLG and DART, with the same values as their official scripts.
//!
//! A [`Pair`] is a hypothesis with its references. Each metric is a function of all pairs, in its own file, which names
//! its source. [`score_e2e`] and [`score_webnlg`] compute all metrics of a task, and [`read_pairs`] reads hypotheses
//! and references from files. No function here panics, whatever the text.

mod bleu;
mod chrf;
mod cider;
mod error;
mod files;
mod meteor;
mod meteor_jar;
mod mteval13a;
mod ngrams;
mod nist;
mod ptb;
mod rouge_l;
mod ter;

pub use bleu::{Tokenization, bleu_mteval, multi_bleu, multi_bleu_detok, sacrebleu};
pub use chrf::{chrf, chrf_plus_plus};
pub use cider::cider;
pub use error::TextMetricError;
pub use files::{
    ReferenceLayout, read_hypotheses, read_pairs, read_parallel_references, read_reference_blocks,
};
pub use meteor::{Punctuation, meteor_exact_stem};
pub use meteor_jar::MeteorJar;
pub use nist::nist;
pub use rouge_l::rouge_l;
pub use ter::ter;

use crate::data::python;

/// A generated text and the references that it is compared with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pair {
    /// The generated text.
    pub hypothesis: String,
    /// The texts that people wrote. A blank text stands for a missing reference: [`multi_bleu`] and
    /// [`multi_bleu_detok`] treat it as their scripts do, and all other metrics ignore it.
    pub references: Vec<String>,
}

impl Pair {
    /// The references that are not blank.
    pub fn present(&self) -> impl Iterator<Item = &str> {
        let references = self.references.iter().map(String::as_str);
        references.filter(|reference| !python::is_blank(reference))
    }
}

/// The names and values of metrics, in the order of the task's reports.
pub type Scores = Vec<(&'static str, f64)>;

/// Whether a higher value of the metric `name` is better, which holds for all metrics but the edit rate.
pub fn higher_is_better(name: &str) -> bool {
    name != "ter"
}

/// Computes the metrics that the E2E challenge's `measure_scores.py -p` reports, on its scales: `bleu`, `nist`,
/// `rouge_l`, `cider`, and `meteor`, or `meteor_exact_stem` if `meteor` is `None`.
///
/// # Errors
/// If there are no pairs, if a hypothesis has no reference, or if METEOR fails.
pub fn score_e2e(pairs: &[Pair], meteor: Option<&MeteorJar>) -> Result<Scores, TextMetricError> {
    check(pairs)?;
    let meteor = match meteor {
        Some(jar) => ("meteor", jar.score(&captions(pairs))?),
        None => (
            "meteor_exact_stem",
            meteor_exact_stem(pairs, Punctuation::Dropped),
        ),
    };
    Ok(vec![
        ("bleu", bleu_mteval(pairs)),
        ("nist", nist(pairs)),
        ("rouge_l", rouge_l(pairs)),
        ("cider", cider(pairs)),
        meteor,
    ])
}

/// Computes the metrics of WebNLG and DART: `bleu` (multi-bleu-detok), `sacrebleu`, `chrf` and `chrf++` from 0 to 100,
/// `ter` in percent, and `meteor` from 0 to 1, or `meteor_exact_stem` if `meteor` is `None`. `tokenization` is that of
/// [`sacrebleu`]: [`Tokenization::None`] for DART, whose texts are already tokenized, and otherwise
/// [`Tokenization::V13a`].
///
/// # Errors
/// If there are no pairs, if a hypothesis has no reference, or if METEOR fails.
pub fn score_webnlg(
    pairs: &[Pair],
    tokenization: Tokenization,
    meteor: Option<&MeteorJar>,
) -> Result<Scores, TextMetricError> {
    check(pairs)?;
    let meteor = match meteor {
        Some(jar) => ("meteor", jar.score(pairs)?),
        None => (
            "meteor_exact_stem",
            meteor_exact_stem(pairs, Punctuation::Kept),
        ),
    };
    Ok(vec![
        ("bleu", multi_bleu_detok(pairs)),
        ("sacrebleu", sacrebleu(pairs, tokenization)),
        ("ter", ter(pairs)),
        ("chrf", chrf(pairs)),
        ("chrf++", chrf_plus_plus(pairs)),
        meteor,
    ])
}

/// Checks that there are pairs and that each hypothesis has a reference.
fn check(pairs: &[Pair]) -> Result<(), TextMetricError> {
    if pairs.is_empty() {
        return Err(TextMetricError::NoHypotheses);
    }
    match pairs
        .iter()
        .position(|pair| pair.present().next().is_none())
    {
        Some(at) => Err(TextMetricError::NoReference { number: at + 1 }),
        None => Ok(()),
    }
}

/// The pairs with their texts as caption tokens, as COCO's evaluation passes them to METEOR.
fn captions(pairs: &[Pair]) -> Vec<Pair> {
    let caption = |text: &str| ptb::caption_tokens(text).join(" ");
    let captions = |pair: &Pair| Pair {
        hypothesis: caption(&pair.hypothesis),
        references: pair.present().map(caption).collect(),
    };
    pairs.iter().map(captions).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::*;

    pub(crate) fn pair(hypothesis: &str, references: &[&str]) -> Pair {
        Pair {
            hypothesis: hypothesis.into(),
            references: references.iter().map(|&text| text.into()).collect(),
        }
    }

    pub(crate) fn assert_close(value: f64, expected: f64, tolerance: f64) {
        assert!(
            (value - expected).abs() <= tolerance,
            "{value} is not {expected}"
        );
    }

    fn fixtures(task: &str) -> PathBuf {
        let project = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures");
        let folder = std::env::var_os("MTLORA_FIXTURES").unwrap_or_else(|| project.into());
        PathBuf::from(folder).join("metrics").join(task)
    }

    fn expected(task: &str) -> serde_json::Value {
        let text = std::fs::read_to_string(fixtures(task).join("expected.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    fn e2e() -> Vec<Pair> {
        let folder = fixtures("e2e");
        let references = [folder.join("references.txt")];
        read_pairs(
            &folder.join("hypotheses.txt"),
            &references,
            ReferenceLayout::Blocks,
        )
        .unwrap()
    }

    fn dart() -> Vec<Pair> {
        let folder = fixtures("dart");
        let references = [0, 1, 2].map(|at| folder.join(format!("reference{at}")));
        read_pairs(
            &folder.join("hypotheses.txt"),
            &references,
            ReferenceLayout::Parallel,
        )
        .unwrap()
    }

    /// The official METEOR program, if the variable `METEOR_JAR` gives its path.
    fn jar() -> Option<MeteorJar> {
        let path = std::env::var_os("METEOR_JAR")?;
        Some(MeteorJar::new(path).unwrap())
    }

    #[test]
    fn e2e_is_what_the_challenge_script_says() {
        let expected = expected("e2e");
        let scores = score_e2e(&e2e(), jar().as_ref()).unwrap();
        assert_eq!(scores.len(), 5);
        for (name, score) in scores {
            let key = match name {
                "bleu" => "BLEU",
                "nist" => "NIST",
                "rouge_l" => "ROUGE_L",
                "cider" => "CIDEr",
                "meteor" => "METEOR",
                _ => continue,
            };
            assert_close(score, expected[key].as_f64().unwrap(), 0.5e-4 + 1e-12);
        }
    }

    #[test]
    fn dart_is_what_its_scripts_say() {
        let expected = expected("dart");
        let report = expected["multi_bleu_detok"].as_str().unwrap();
        let report = report
            .strip_prefix("BLEU = ")
            .unwrap()
            .split(',')
            .next()
            .unwrap();
        let sacre = &expected["sacrebleu"];
        let scores = score_webnlg(&dart(), Tokenization::None, jar().as_ref()).unwrap();
        assert_eq!(scores.len(), 6);
        for (name, score) in scores {
            let (value, tolerance) = match name {
                "bleu" => (report.parse().unwrap(), 0.5e-2 + 1e-12),
                "sacrebleu" => (sacre["bleu"].as_f64().unwrap(), 1e-9),
                "ter" => (sacre["ter"].as_f64().unwrap(), 1e-9),
                // These are the values of sacreBLEU 2.6.0 for the same files.
                "chrf" => (58.5381698346907, 1e-9),
                "chrf++" => (sacre["chrf2++"].as_f64().unwrap(), 1e-9),
                "meteor" => {
                    let text = expected["meteor_1.5"].as_str().unwrap();
                    (text.parse().unwrap(), 1e-9)
                }
                _ => continue,
            };
            assert_close(score, value, tolerance);
        }
    }

    /// The expected values are those of sacreBLEU 2.6.0, written by tests/interop/sacrebleu_cases.py.
    #[test]
    fn sacrebleus_metrics_are_what_it_says() {
        #[derive(serde::Deserialize)]
        struct Cases {
            cases: Vec<Case>,
        }

        #[derive(serde::Deserialize)]
        struct Case {
            name: String,
            hypotheses: Vec<String>,
            references: Vec<Vec<Option<String>>>,
            #[serde(flatten)]
            scores: std::collections::BTreeMap<String, f64>,
        }

        let file = include_str!("../../../../../tests/fixtures/sacrebleu/cases.json");
        let cases: Cases = serde_json::from_str(file).unwrap();
        assert!(cases.cases.len() > 90);
        for case in &cases.cases {
            let texts = case.hypotheses.iter().enumerate();
            let pairs: Vec<Pair> = texts
                .map(|(at, hypothesis)| Pair {
                    hypothesis: hypothesis.clone(),
                    references: (case.references.iter())
                        .map(|all| all[at].clone().unwrap_or_default())
                        .collect(),
                })
                .collect();
            for (metric, score) in [
                ("bleu_13a", sacrebleu(&pairs, Tokenization::V13a)),
                ("bleu_none", sacrebleu(&pairs, Tokenization::None)),
                ("chrf", chrf(&pairs)),
                ("chrf++", chrf_plus_plus(&pairs)),
                ("ter", ter(&pairs)),
            ] {
                let expected = case.scores[metric];
                let name = &case.name;
                assert!(
                    (score - expected).abs() < 1e-9,
                    "{name}: {metric} is {score}, not {expected}"
                );
            }
        }
    }

    #[test]
    fn a_set_must_be_whole() {
        let refused = |pairs: &[Pair]| {
            let message = score_e2e(pairs, None).unwrap_err().to_string();
            let other = score_webnlg(pairs, Tokenization::V13a, None).unwrap_err();
            assert_eq!(message, other.to_string());
            message
        };
        assert!(refused(&[]).starts_with("no hypotheses"));
        let message = refused(&[pair("a", &["b"]), pair("c", &[" "])]);
        assert!(message.starts_with("hypothesis 2 has no reference"));
    }

    fn any_text() -> impl Strategy<Value = String> {
        let words = prop::collection::vec(
            prop_oneof![
                Just("the"),
                Just("a"),
                Just("pub's"),
                Just("can't"),
                Just("5."),
                Just("-"),
                Just("U.S.")
            ],
            0..40,
        );
        prop_oneof![
            any::<String>(),
            "[ -~]{0,60}",
            words.prop_map(|words| words.join(" "))
        ]
    }

    fn any_pair() -> impl Strategy<Value = Pair> {
        let references = prop::collection::vec(any_text(), 0..4);
        (any_text(), references).prop_map(|(hypothesis, references)| Pair {
            hypothesis,
            references,
        })
    }

    proptest! {
        #[test]
        fn any_text_has_finite_scores(pairs in prop::collection::vec(any_pair(), 0..5)) {
            let metrics = [
                bleu_mteval(&pairs), multi_bleu(&pairs), multi_bleu_detok(&pairs),
                sacrebleu(&pairs, Tokenization::V13a), sacrebleu(&pairs, Tokenization::None),
                nist(&pairs), rouge_l(&pairs), cider(&pairs), ter(&pairs), chrf(&pairs),
                chrf_plus_plus(&pairs),
                meteor_exact_stem(&pairs, Punctuation::Kept),
                meteor_exact_stem(&pairs, Punctuation::Dropped),
            ];
            for score in metrics {
                prop_assert!(score.is_finite() && score >= 0.0, "{score}");
            }
            let _ = score_e2e(&pairs, None);
            let _ = score_webnlg(&pairs, Tokenization::V13a, None);
        }
    }
}

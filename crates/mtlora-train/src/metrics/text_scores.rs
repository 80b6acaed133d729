//! Scores the texts that a model generated for a task's records with the metrics of the task's evaluation script.

use crate::metrics::text::{
    MeteorJar, Pair, Scores, TextMetricError, Tokenization, score_e2e, score_webnlg,
};
use crate::tasks::data_to_text::{Record, Scorer};

/// The scores of generated texts: of all of them, and of those whose category is or is not in the train set.
#[derive(Clone, Debug, PartialEq)]
pub struct TextScores {
    /// The scores of all texts.
    pub all: Scores,
    /// The scores of the texts whose category is in the train set; `None` if there are none.
    pub seen: Option<Scores>,
    /// The scores of the texts whose category is not in the train set; `None` if there are none.
    pub unseen: Option<Scores>,
}

/// Scores `texts`, which holds one text for each record. The scores include `meteor` if `meteor` is given, and
/// otherwise `meteor_exact_stem`.
///
/// # Errors
/// If there is nothing to score, if a record has no reference, or if the official METEOR program fails.
pub fn score_texts(
    scorer: Scorer,
    records: &[Record],
    texts: &[String],
    meteor: Option<&MeteorJar>,
) -> Result<TextScores, TextMetricError> {
    let score = |seen: Option<bool>| {
        let pairs: Vec<Pair> = records
            .iter()
            .zip(texts)
            .filter(|(record, _)| seen.is_none() || record.seen == seen)
            .map(|(record, text)| Pair {
                hypothesis: text.clone(),
                references: record.references.clone(),
            })
            .collect();
        match (scorer, pairs.is_empty() && seen.is_some()) {
            (_, true) => Ok(None),
            (Scorer::E2e, _) => score_e2e(&pairs, meteor).map(Some),
            (Scorer::WebNlg, _) => score_webnlg(&pairs, Tokenization::V13a, meteor).map(Some),
            (Scorer::Dart, _) => score_webnlg(&pairs, Tokenization::None, meteor).map(Some),
        }
    };
    Ok(TextScores {
        all: score(None)?.unwrap_or_default(),
        seen: score(Some(true))?,
        unseen: score(Some(false))?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn record(reference: &str, seen: Option<bool>) -> Record {
        Record {
            references: vec![reference.to_string()],
            seen,
            ..Record::default()
        }
    }

    fn bleu(scores: &Scores) -> f64 {
        scores.iter().find(|(name, _)| *name == "bleu").unwrap().1
    }

    #[test]
    fn seen_and_unseen_categories_are_scored_apart() {
        let records = [
            record("the mill is in the old town", Some(true)),
            record("a red house stands by the lake", Some(false)),
        ];
        let texts = [
            "the mill is in the old town".to_string(),
            "nothing of the kind was ever said".to_string(),
        ];
        let scores = score_texts(Scorer::WebNlg, &records, &texts, None).unwrap();
        let (seen, unseen) = (scores.seen.unwrap(), scores.unseen.unwrap());
        assert!((bleu(&seen) - 100.0).abs() < 1e-9);
        assert!(bleu(&unseen) < bleu(&scores.all) && bleu(&scores.all) < 100.0);
    }

    #[test]
    fn records_without_categories_have_one_score() {
        let records = [record("the mill is in the old town", None)];
        let texts = ["the mill is in the old town".to_string()];
        for scorer in [Scorer::E2e, Scorer::Dart] {
            let scores = score_texts(scorer, &records, &texts, None).unwrap();
            assert!(scores.seen.is_none() && scores.unseen.is_none());
        }
        assert!(score_texts(Scorer::E2e, &[], &[], None).is_err());
    }
}

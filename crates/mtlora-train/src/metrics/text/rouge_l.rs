//! ROUGE-L (Lin, 2004).

use super::Pair;
use super::ngrams::Vocabulary;
use super::ptb;

/// Recall has `BETA` squared times the weight of precision.
const BETA: f64 = 1.2;

/// ROUGE-L as the E2E challenge's `measure_scores.py` reports it (COCO's `rouge.py`). Precision and recall come from the
/// longest common subsequence of caption tokens. The score is the F score of the best precision and the best recall
/// over the references, averaged over hypotheses, from 0 to 1.
pub fn rouge_l(pairs: &[Pair]) -> f64 {
    let mut vocabulary = Vocabulary::default();
    let mut ids = |text: &str| {
        let mut tokens = ptb::caption_tokens(text);
        if tokens.is_empty() {
            // Python's `"".split(" ")` gives one empty string.
            tokens.push(String::new());
        }
        vocabulary.ids(tokens)
    };
    let mut sum = 0.0;
    for pair in pairs {
        let hypothesis = ids(&pair.hypothesis);
        let references: Vec<_> = pair.present().map(&mut ids).collect();
        sum += f_score(&hypothesis, &references);
    }
    sum / pairs.len().max(1) as f64
}

fn f_score(hypothesis: &[u32], references: &[Vec<u32>]) -> f64 {
    let (mut precision, mut recall) = (0.0_f64, 0.0_f64);
    for reference in references {
        let common = longest_common_subsequence(hypothesis, reference) as f64;
        precision = precision.max(common / hypothesis.len().max(1) as f64);
        recall = recall.max(common / reference.len().max(1) as f64);
    }
    if precision == 0.0 || recall == 0.0 {
        return 0.0;
    }
    let factor = BETA * BETA;
    (1.0 + factor) * precision * recall / (recall + factor * precision)
}

fn longest_common_subsequence(a: &[u32], b: &[u32]) -> usize {
    let mut lengths = vec![0; b.len()];
    for token in a {
        let (mut corner, mut left) = (0, 0);
        for (other, length) in b.iter().zip(&mut lengths) {
            let up = *length;
            *length = if token == other {
                corner + 1
            } else {
                up.max(left)
            };
            (corner, left) = (up, *length);
        }
    }
    lengths.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_close, pair};
    use super::*;

    #[test]
    fn a_sentence_by_hand() {
        // The longest common subsequence is "the cat on mat", 4 of 5 and 4 of 6 tokens.
        let pairs = [pair("The cat on a mat.", &["the cat sat on the mat"])];
        let (precision, recall) = (4.0 / 5.0, 4.0 / 6.0);
        let expected = 2.44 * precision * recall / (recall + 1.44 * precision);
        assert_close(rouge_l(&pairs), expected, 1e-12);
        let pairs = [pair("a", &["a"]), pair("", &["a"])];
        assert_close(rouge_l(&pairs), 0.5, 1e-12);
        // A caption of only punctuation becomes an empty string, for which `split(" ")` gives one empty word.
        assert_close(rouge_l(&[pair("", &["."])]), 1.0, 1e-12);
        assert_close(rouge_l(&[pair("!", &["a", "..."])]), 1.0, 1e-12);
        assert_close(
            rouge_l(&[pair("the cat\u{1c}sat", &["the cat sat"])]),
            1.0,
            1e-12,
        );
    }
}

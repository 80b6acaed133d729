//! Training a causal language model to write what follows an input.

use burn::tensor::Device;
use mtlora_models::{CausalBatch, CausalLm, CausalText, ModelError};

use crate::batches::{BatchSize, by_length};
use crate::data_to_text::{Record, Sequence, target_text};
use crate::fingerprint::Fingerprint;
use crate::fit::{BatchLoss, Learner, Observer, Trained, fit};
use crate::metrics::{MetricName, Scores};
use crate::options::TrainOptions;
use crate::snapshot::Snapshot;
use crate::trainer::TrainError;

/// What is added to the number of target tokens that a batch's loss is divided by: the published
/// code's guard against a batch without any (METHOD.md).
const NO_TARGETS: f64 = 1e-4;
/// Tokens that are evaluated at a time.
const EVALUATION_TOKENS: usize = 4096;

/// What became of records on their way to sequences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// Inputs that were cut from the left.
    pub cut: usize,
    /// Targets that were left out, being longer than the sequences may be.
    pub left_out: usize,
}

/// One sequence for each input and each of its references, no longer than `max_length` tokens. Of a long text only as
/// much is tokenised as that takes, where its words end at spaces.
///
/// # Errors
/// [`ModelError::OneOf`] with the record's number, for a text that the tokenizer refuses.
pub fn encode_records(
    text: &CausalText,
    end_of_text: u32,
    records: &[Record],
    max_length: usize,
) -> Result<(Vec<Sequence>, Encoded), ModelError> {
    let (mut sequences, mut count) = (Vec::new(), Encoded::default());
    for (record, number) in records.iter().zip(1..) {
        let failed = |source| ModelError::OneOf {
            number,
            source: Box::new(source),
        };
        let input = text.encode_last(&record.input, max_length);
        let input = input.map_err(failed)?;
        for reference in &record.references {
            let target = text.encode_first(&target_text(reference), max_length);
            let target = target.map_err(failed)?;
            let mut one = Sequence::of(input.clone(), &target, end_of_text);
            match one.cut_input(max_length) {
                Ok(cut) => {
                    count.cut += usize::from(cut > 0);
                    sequences.push(one);
                }
                Err(_) => count.left_out += 1,
            }
        }
    }
    Ok((sequences, count))
}

fn batch(
    sequences: &[Sequence],
    which: &[usize],
    device: &Device,
) -> Result<CausalBatch, TrainError> {
    let chosen = which.iter().map(|index| &sequences[*index]);
    let chosen = chosen.map(|one| (one.ids.as_slice(), one.loss_from..one.ids.len()));
    Ok(CausalBatch::new(chosen, device)?)
}

/// The mean cross-entropy of the targets' tokens, in nats, and its exponential, the perplexity.
///
/// # Errors
/// When there is no sequence, or the device fails.
pub fn causal_scores(
    model: &CausalLm,
    sequences: &[Sequence],
    device: &Device,
) -> Result<Scores, TrainError> {
    let (mut sum, mut count) = (0.0, 0);
    for which in by_length(&lengths(sequences), BatchSize::Tokens(EVALUATION_TOKENS)) {
        let batch = batch(sequences, &which, device)?;
        let loss = model.loss(&batch, 0.0).try_into_scalar::<f32>();
        sum += f64::from(loss.map_err(|error| TrainError::Device(error.to_string()))?);
        count += batch.count;
    }
    if count == 0 {
        return Err(TrainError::NoTargets);
    }
    let loss = sum / count as f64;
    let mut scores = Scores::default();
    scores.set(MetricName::Loss, loss);
    scores.set(MetricName::Perplexity, loss.exp());
    Ok(scores)
}

/// The loss on the sequences with these indices.
pub(crate) fn causal_loss(
    model: &CausalLm,
    sequences: &[Sequence],
    label_smoothing: f64,
    which: &[usize],
    device: &Device,
) -> Result<BatchLoss, TrainError> {
    let batch = batch(sequences, which, device)?;
    let sum = model.loss(&batch, label_smoothing);
    Ok(BatchLoss {
        loss: sum.div_scalar(batch.count as f64 + NO_TARGETS),
        tokens: batch.strip.segments.tokens(),
    })
}

fn lengths(sequences: &[Sequence]) -> Vec<usize> {
    sequences.iter().map(|one| one.ids.len()).collect()
}

struct Causal<'a> {
    items: &'a [Sequence],
    dev: &'a [Sequence],
    lengths: Vec<usize>,
    label_smoothing: f64,
}

impl Learner for Causal<'_> {
    type Model = CausalLm;

    fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    fn loss(
        &self,
        model: &CausalLm,
        which: &[usize],
        device: &Device,
    ) -> Result<BatchLoss, TrainError> {
        causal_loss(model, self.items, self.label_smoothing, which, device)
    }

    fn evaluate(&self, model: &CausalLm, device: &Device) -> Result<Scores, TrainError> {
        causal_scores(model, self.dev, device)
    }

    fn main_metric(&self) -> MetricName {
        MetricName::Loss
    }

    fn fingerprint(&self, fingerprint: &mut Fingerprint) {
        for sequences in [self.items, self.dev] {
            fingerprint.number(sequences.len() as u64);
            for Sequence { ids, loss_from } in sequences {
                fingerprint.numbers(ids.iter().map(|id| u64::from(*id)));
                fingerprint.number(*loss_from as u64);
            }
        }
    }
}

/// Trains `model`, which [`Method::prepare`](crate::Method::prepare) has made ready on an autodiff
/// `device`, and keeps the state with the lowest loss on `dev`. Label smoothing acts on the
/// training loss only. From the beginning, or from where a [`Snapshot`] was made.
///
/// # Errors
/// When an option is out of its range, the loss stops being finite, the snapshot is of another
/// training, or the observer says so.
pub fn train_causal(
    model: CausalLm,
    [items, dev]: [&[Sequence]; 2],
    label_smoothing: f64,
    options: &TrainOptions,
    from: Option<Snapshot>,
    device: &Device,
    observer: &mut dyn Observer,
) -> Result<Trained<CausalLm>, TrainError> {
    if !(0.0..1.0).contains(&label_smoothing) {
        return Err(TrainError::Option(
            "label_smoothing must lie from 0 up to, but not 1",
        ));
    }
    let learner = Causal {
        items,
        dev,
        lengths: lengths(items),
        label_smoothing,
    };
    fit(model, &learner, options, from, device, observer)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::PathBuf;

    use mtlora_models::train_causal_tokenizer;

    use super::*;
    use crate::data_to_text::sequence;

    fn text() -> CausalText {
        let lines = (0..200).map(|n| format!("the cat number {n} sat on the other mat"));
        let tokenizer = train_causal_tokenizer(lines, 300).unwrap();
        let size = tokenizer.get_vocab_size(true);
        CausalText::new(PathBuf::from("tokenizer.json"), tokenizer, size).unwrap()
    }

    fn record(input: String, references: &[String]) -> Record {
        Record {
            input,
            references: references.to_vec(),
            ..Record::default()
        }
    }

    #[test]
    fn long_records_are_those_of_their_whole_texts() {
        let text = text();
        let input: String = (0..5000).map(|n| format!("cat {n} | ")).collect();
        let long: String = (0..5000).map(|n| format!("the mat {n} ")).collect();
        let records = [
            record(input.clone(), &["the cat sat".into(), long]),
            record("a cat".into(), &["the mat".into()]),
        ];
        let (found, count) = encode_records(&text, 0, &records, 32).unwrap();
        let encode = |part: &str| text.encode(part);
        let mut whole = sequence(encode, 0, &input, "the cat sat").unwrap();
        whole.cut_input(32).unwrap();
        let short = sequence(encode, 0, "a cat", "the mat").unwrap();
        assert_eq!(found, [whole, short]);
        assert_eq!(
            count,
            Encoded {
                cut: 1,
                left_out: 1
            }
        );
    }

    #[test]
    fn a_text_that_cannot_be_encoded_is_named_by_its_record() {
        let whole = "x".repeat((16 << 20) + 1);
        let records = [
            record("a".into(), &["b".into()]),
            record("a".into(), &[whole]),
        ];
        let error = encode_records(&text(), 0, &records, 32).unwrap_err();
        assert!(
            matches!(error, ModelError::OneOf { number: 2, .. }),
            "{error}"
        );
    }
}

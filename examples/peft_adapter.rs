//! Loads an adapter that PEFT (or `mtlora train`) saved onto its base model, and prints the model's predictions for a
//! sentence.
//!
//! ```sh
//! cargo run --release --example peft_adapter -- roberta-base their-adapter "A fine film."
//! ```

use std::error::Error;
use std::path::PathBuf;

use burn::module::Module;
use burn::tensor::activation::softmax;
use mtlora::core::devices;
use mtlora::models::{
    EncoderConfig, PackedBatch, PeftAdapter, ProblemType, SequenceClassifier, TextEncoder,
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what| arguments.next().ok_or(format!("{what} is needed"));
    let model = PathBuf::from(next("the base model's folder")?);
    let adapter = PathBuf::from(next("the adapter's folder")?);
    let sentence = next("a sentence")?;
    let device = devices().remove(0).device;

    let adapter = PeftAdapter::from_folder(&adapter)?;
    // The head is the adapter's, with as many labels as it was trained for.
    let mut config = EncoderConfig::from_folder(&model)?;
    if let Some(labels) = adapter.num_labels() {
        let labels = (0..labels).map(|label| format!("LABEL_{label}")).collect();
        config = config.with_classifier(labels, ProblemType::SingleLabelClassification)?;
    }
    let (base, _) = SequenceClassifier::from_folder(&model, &config, 0, &device)?;
    // The update stays beside the weights; `materialize` folds it in.
    let adapted = adapter.attach(base, &config, &[])?.materialize();

    let text = TextEncoder::from_folder(&model, &config, 128)?;
    let tokens = text.encode(&sentence, None)?;
    let logits = adapted.forward(&PackedBatch::new(&[&tokens], &config, &device)?);
    for (label, p) in config
        .labels
        .iter()
        .zip(softmax(logits, 1).into_data().iter::<f32>())
    {
        println!("{label}: {p:.4}");
    }
    Ok(())
}

//! Benchmarks: measures the time of training steps, the floating-point operations that they need, and the peak rate of
//! the processor.
//!
//! ```no_run
//! use std::path::Path;
//! use mtlora_core::{BaseDtype, MtLoraConfig, Structure, Targets, devices};
//! use mtlora_models::{ClassifierConfig, SequenceClassifier};
//! use mtlora_train::bench::{Subject, Trains, classifier_flops, peak_gflops, random_items};
//! use mtlora_train::{Method, TrainOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let device = devices().remove(0).device.autodiff();
//! let config = ClassifierConfig::from_folder(Path::new("roberta-base"))?;
//! let options = TrainOptions::default();
//! let adapter = MtLoraConfig::new(Structure::Shim)
//!     .with_target_modules(Targets::names(["query", "value"]));
//! let model = SequenceClassifier::fresh(&config, 0, &device)?;
//! let model = Method::MtLora(adapter).prepare(model)?;
//! let trains = Trains::of(&model);
//!
//! let items = random_items(&config, [16, 128], 0);
//! let batch: Vec<usize> = (0..items.len()).collect();
//! let subject = Subject::classifier(model, &config, &items, &options, &device);
//! let (subject, seconds) = subject.step(&batch)?;
//! subject.finish()?;
//!
//! let flops = classifier_flops(&config, &trains, &[128; 16]);
//! println!("{:.2} of the peak", flops / seconds / (1e9 * peak_gflops(BaseDtype::F32)));
//! # Ok(())
//! # }
//! ```

mod flops;
mod peak;
mod random;
mod subject;
mod trains;

pub use flops::{causal_flops, classifier_flops, decoding_flops};
pub use peak::peak_gflops;
pub use random::{random_items, random_prompts, random_sequences};
pub use subject::Subject;
pub use trains::Trains;

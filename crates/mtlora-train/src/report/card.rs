//! Writes the model card of a run: a `README.md` with the Hugging Face Hub's front matter
//! (huggingface/hub-docs, `modelcard.md`), and a picture of the curves.

use std::fmt::Write;
use std::path::Path;

use mtlora_core::{AdaLora, AdapterMethod, Dora, Structure};
use mtlora_models::write_atomically;

use super::chart::{picture, significant};
use super::page::main_charts;
use super::{ReportError, RunReport};
use crate::metrics::labels::MetricName;
use crate::run::config::settings::{RunConfig, RunKind};
use crate::run::error::RunError;
use crate::run::file_names::{CARD, CURVES, SETTINGS};
use crate::run::folder::Run;
use crate::run::model::adapter_settings::AdapterSettings;
use crate::run::model::method_name::MethodName;
use crate::run::results::RunResults;
use crate::tasks::glue;

/// The colours and widths of the charts.
const STYLE: &str = include_str!("style.css");

/// Writes `README.md` and `curves.svg` into the folder of a complete run. An existing card is replaced.
///
/// # Errors
/// When the folder is not a run, the run is not complete, or a file cannot be read or written.
pub fn write_model_card(folder: &Path) -> Result<(), ReportError> {
    let (run, config) = Run::open(folder).map_err(Box::new)?;
    let report = RunReport::without_sections(folder)?;
    let Some(results) = &report.results else {
        let reason = "it is not complete, and has no results to show yet";
        return Err(Box::new(RunError::invalid(folder, reason)).into());
    };
    let card = ModelCard {
        name: &report.name,
        config: &config,
        results,
        settings: run.settings().map_err(Box::new)?,
        base: hub_name(&config.base.model),
    };
    let curves = picture(&main_charts(std::slice::from_ref(&report)), STYLE);
    if let Some(svg) = &curves {
        write_atomically(&folder.join(CURVES), svg.as_bytes())?;
    }
    let text = card.markdown(curves.is_some());
    Ok(write_atomically(&folder.join(CARD), text.as_bytes())?)
}

/// The name on the Hub of a model that lies in the Hub's cache (`models--org--name/snapshots/...`).
fn hub_name(model: &Path) -> Option<String> {
    let parts = model
        .components()
        .filter_map(|part| part.as_os_str().to_str());
    let mut names = parts.filter_map(|part| part.strip_prefix("models--"));
    names.next_back().map(|name| name.replace("--", "/"))
}

/// A string in YAML, which takes JSON's strings.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// What a card tells about a run.
struct ModelCard<'a> {
    name: &'a str,
    config: &'a RunConfig,
    results: &'a RunResults,
    /// The settings file, if it was kept.
    settings: Option<String>,
    /// The base model's name on the Hub, if it came from there.
    base: Option<String>,
}

impl ModelCard<'_> {
    fn adapter(&self) -> &AdapterSettings {
        &self.config.base.adapter
    }

    fn has_adapter(&self) -> bool {
        self.adapter().method == MethodName::MtLora
    }

    /// What the scores were computed on.
    fn split(&self) -> &'static str {
        match self.config.data.validation_fraction {
            Some(_) => "held-back",
            None => "dev",
        }
    }

    /// Whether PEFT opens the folder as it is.
    fn is_for_peft(&self) -> bool {
        let known = [
            AdapterMethod::from(Structure::Lora),
            AdaLora.into(),
            Dora.into(),
        ];
        self.has_adapter() && known.contains(&self.adapter().structure)
    }

    fn markdown(&self, has_picture: bool) -> String {
        let mut text = self.front_matter();
        let _ = writeln!(text, "\n# {}\n", self.name);
        self.describe(&mut text);
        self.scores(&mut text);
        if has_picture {
            let _ = writeln!(text, "\n![Training loss and scores by step]({CURVES})");
        }
        self.training(&mut text);
        self.use_it(&mut text);
        text
    }

    fn front_matter(&self) -> String {
        let is_text = !matches!(self.config.kind, RunKind::Classification(_));
        let pipeline = if is_text {
            "text-generation"
        } else {
            "text-classification"
        };
        let library = if self.is_for_peft() { "peft" } else { "mtlora" };
        let mut text = format!("---\nlibrary_name: {library}\npipeline_tag: {pipeline}\n");
        if let Some(base) = &self.base {
            let _ = writeln!(text, "base_model: {}", quoted(base));
        }
        text.push_str("tags:\n- mtlora\n");
        if self.has_adapter() {
            let structure = self.adapter().structure.to_string();
            let _ = writeln!(text, "- {structure}");
            if self.is_for_peft() && structure != "lora" {
                text.push_str("- lora\n");
            }
            if let Some(base) = &self.base {
                let _ = writeln!(text, "- {}", quoted(&format!("base_model:adapter:{base}")));
            }
        } else if let Some(base) = &self.base {
            let _ = writeln!(text, "- {}", quoted(&format!("base_model:finetune:{base}")));
        }
        let task = &self.config.data.task;
        let is_glue = glue::task(task).is_ok();
        if is_glue {
            let _ = writeln!(text, "datasets:\n- {}", glue::HUB_DATASET);
        }
        let metrics: Vec<(&str, f64)> = self
            .results
            .metrics
            .iter()
            .filter(|(name, value)| *name != MetricName::Loss.as_str() && value.is_finite())
            .collect();
        if metrics.is_empty() {
            text.push_str("---\n");
            return text;
        }
        text.push_str("metrics:\n");
        for (name, _) in &metrics {
            let _ = writeln!(text, "- {}", quoted(hub_metric(name)));
        }
        let dataset = if is_glue { glue::HUB_DATASET } else { task };
        let _ = writeln!(
            text,
            "model-index:\n- name: {}\n  results:\n  - task:\n      type: {pipeline}\n    dataset:\n      name: {}\n      \
             type: {}\n      split: {}\n    metrics:",
            quoted(self.name),
            quoted(task),
            quoted(dataset),
            self.split(),
        );
        for (name, value) in metrics {
            let _ = writeln!(
                text,
                "    - type: {}\n      name: {}\n      value: {value}",
                quoted(hub_metric(name)),
                quoted(name)
            );
        }
        text.push_str("---\n");
        text
    }

    fn describe(&self, text: &mut String) {
        let adapter = self.adapter();
        let what = match adapter.method {
            MethodName::MtLora => format!(
                "An adapter with the structure `{}` and rank {} (alpha {}) for",
                adapter.structure, adapter.rank, adapter.alpha
            ),
            MethodName::Full => "All parameters of".to_string(),
            MethodName::Head => "A classification head for".to_string(),
            MethodName::BitFit => "The biases and the classification head for".to_string(),
        };
        let base = match &self.base {
            Some(base) => format!("[{base}](https://huggingface.co/{base})"),
            None => {
                let name = self.config.base.model.file_name();
                let name = name.unwrap_or_default().to_string_lossy();
                format!("the model `{name}`, which is not from the Hub")
            }
        };
        let _ = writeln!(
            text,
            "{what} {base}, trained on the task `{}` with mtlora {}.",
            self.config.data.task,
            env!("CARGO_PKG_VERSION")
        );
    }

    fn scores(&self, text: &mut String) {
        let results = self.results;
        let _ = writeln!(
            text,
            "\n## Scores\n\nOn the {} examples; the state after step {} of {} is the one that is kept.\n\n\
             | metric | before | kept |\n|---|---|---|",
            self.split(),
            results.best_step,
            results.steps
        );
        for (name, value) in results.metrics.iter() {
            let before = results.metrics_before.get(name);
            let before = before.map_or("–".to_string(), significant);
            let _ = writeln!(text, "| {name} | {before} | {} |", significant(value));
        }
    }

    fn training(&self, text: &mut String) {
        let results = self.results;
        let options = &self.config.training;
        let memory = results
            .peak_rss_mb
            .map_or(String::new(), |mib| format!(", and {mib:.0} MiB of memory"));
        let _ = writeln!(
            text,
            "\n## Training\n\n{} of {} parameters were trained in {} steps with the seed {}. On the device `{}` the steps \
             took {:.0} s ({:.0} tokens/s{memory}).",
            results.trainable_parameters,
            results.total_parameters,
            results.steps,
            options.seed,
            self.config.device,
            results.train_seconds,
            results.tokens_per_second,
        );
        if let Some(settings) = &self.settings {
            let _ = writeln!(
                text,
                "\nTo repeat it: `mtlora train --config {SETTINGS} --out RUN`, where `{SETTINGS}`, which is in this folder, \
                 has\n\n```toml\n{}\n```",
                settings.trim_end()
            );
        }
    }

    fn use_it(&self, text: &mut String) {
        let command = match self.config.kind {
            RunKind::Classification(_) => "predict",
            RunKind::Generation(_) | RunKind::Chat(_) => "generate",
        };
        text.push_str("\n## Use\n\n");
        if !self.has_adapter() {
            let _ = writeln!(
                text,
                "```sh\nmtlora {command} --run FOLDER --input texts.txt\n```\n\nHere `FOLDER` is this folder."
            );
            return;
        }
        let base = self.base.as_deref().unwrap_or("MODEL");
        let _ = writeln!(
            text,
            "```sh\nmtlora {command} --adapter FOLDER --model {base} --input texts.txt\nmtlora merge --adapter FOLDER --model \
             {base} --out merged    # a plain Hugging Face folder\n```\n\nHere `FOLDER` is this folder{}.",
            match &self.base {
                Some(_) => ", or its name on the Hub",
                None => ", or its name on the Hub, and `MODEL` the model's folder",
            }
        );
        let class = match self.config.kind {
            RunKind::Classification(_) => "AutoModelForSequenceClassification",
            RunKind::Generation(_) | RunKind::Chat(_) => "AutoModelForCausalLM",
        };
        let outputs = match &self.config.kind {
            RunKind::Classification(kind) => {
                format!(", num_labels={}", kind.head.objective.num_labels())
            }
            RunKind::Generation(_) | RunKind::Chat(_) => String::new(),
        };
        let folder = if self.is_for_peft() {
            text.push_str("\nWith PEFT:\n");
            "FOLDER"
        } else {
            let _ = writeln!(
                text,
                "\nWith PEFT, after `mtlora export --run FOLDER --out lora`, which makes it a plain LoRA:"
            );
            "lora"
        };
        let _ = writeln!(
            text,
            "\n```python\nfrom peft import PeftModel\nfrom transformers import {class}\n\nbase = {class}.from_pretrained({}{outputs})\n\
             model = PeftModel.from_pretrained(base, \"{folder}\")\n```",
            quoted(base)
        );
    }
}

/// The Hub's name of a metric.
fn hub_metric(name: &str) -> &str {
    match name {
        "matthews" => "matthews_correlation",
        "pearson" => "pearsonr",
        "spearman" => "spearmanr",
        other => other,
    }
}

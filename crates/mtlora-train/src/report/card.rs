//! Writes the model card of a run or of what was made from it: a `README.md` with the Hugging Face Hub's front matter
//! (huggingface/hub-docs, `modelcard.md`), and a picture of the curves.

use std::fmt::Write;
use std::path::Path;

use mtlora_core::{AdaLora, AdapterMethod, Dora, Structure};
use mtlora_models::{GgufType, Server, write_atomically};

use super::card_text::{cell, quoted};
use super::chart::{picture, significant};
use super::page::main_charts;
use super::{ReportError, RunReport};
use crate::data::example::Objective;
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

/// What a card describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CardOf {
    /// The folder of the run itself.
    Run,
    /// The run's adapter as plain LoRA.
    Adapter {
        /// The program that it is written for; `None` for further training with PEFT.
        server: Option<Server>,
        /// Its largest rank.
        rank: usize,
    },
    /// The model with the run's adapter merged into its weights, as a Hugging Face folder.
    Merged,
    /// The same as a GGUF file with matrices in this type.
    Gguf(GgufType),
}

/// Writes `README.md` and `curves.svg` into the folder of a complete run. An existing card is replaced.
///
/// # Errors
/// When the folder is not a run, the run is not complete, or a file cannot be read or written.
pub fn write_model_card(folder: &Path) -> Result<(), ReportError> {
    write_card_of(CardOf::Run, folder, None, folder)
}

/// Writes `README.md` and `curves.svg` into `out`, which has what `of` says, made from the complete run in `folder`. For
/// a GGUF file, `out` is the file, and the card and its picture lie beside it: `NAME.md` and `NAME.svg` for `NAME.gguf`.
/// `base` is the base model's name on the Hub where the run does not know it. An existing card is replaced.
///
/// # Errors
/// Those of [`write_model_card`].
pub fn write_card_of(
    of: CardOf,
    folder: &Path,
    base: Option<&str>,
    out: &Path,
) -> Result<(), ReportError> {
    let (run, config) = Run::open(folder).map_err(Box::new)?;
    let report = RunReport::without_sections(folder)?;
    let Some(results) = &report.results else {
        let reason = "it is not complete, and has no results to show yet";
        return Err(Box::new(RunError::invalid(folder, reason)).into());
    };
    let card = ModelCard {
        of,
        name: &report.name,
        config: &config,
        results,
        settings: run.settings().map_err(Box::new)?,
        base: base
            .map(str::to_string)
            .or_else(|| hub_name(&config.base.model)),
        file: match of {
            CardOf::Gguf(_) => out.file_name().unwrap_or_default().to_string_lossy().into(),
            _ => String::new(),
        },
        license: license_of(&config.base.model),
    };
    let (path, curves) = match of {
        CardOf::Gguf(_) => (out.with_extension("md"), out.with_extension("svg")),
        _ => (out.join(CARD), out.join(CURVES)),
    };
    let svg = picture(&main_charts(std::slice::from_ref(&report)), STYLE);
    if let Some(svg) = &svg {
        write_atomically(&curves, svg.as_bytes())?;
    }
    let name = curves.file_name().unwrap_or_default().to_string_lossy();
    let text = card.markdown(svg.is_some().then_some(&*name));
    Ok(write_atomically(&path, text.as_bytes())?)
}

/// The licence that a model's own card names, if there is a card: an identifier of the Hub's, in lower case. `other` and
/// `unknown` would need an explanation, which this card cannot give.
fn license_of(model: &Path) -> Option<String> {
    let card = std::fs::read_to_string(model.join(CARD)).ok()?;
    let (matter, _) = card.strip_prefix("---\n")?.split_once("\n---")?;
    let mut lines = matter.lines();
    let value = lines.find_map(|line| line.strip_prefix("license:"))?;
    let name = value.trim().trim_matches(['"', '\'']);
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.+".contains(c);
    let fits = !name.is_empty() && name.chars().all(is_plain);
    (fits && !["other", "unknown"].contains(&name)).then(|| name.to_string())
}

/// The name on the Hub of a model that lies in the Hub's cache (`models--org--name/snapshots/...`).
fn hub_name(model: &Path) -> Option<String> {
    let parts = model
        .components()
        .filter_map(|part| part.as_os_str().to_str());
    let mut names = parts.filter_map(|part| part.strip_prefix("models--"));
    names.next_back().map(|name| name.replace("--", "/"))
}

/// A settings file whose paths from the root of this machine are cut to their last parts: they would show others what the
/// machine is like, and they do not have these folders.
fn without_places(settings: &str) -> String {
    let Ok(mut table) = settings.parse::<toml::Table>() else {
        return String::new();
    };
    let mut is_changed = false;
    for (_, value) in &mut table {
        if let toml::Value::String(text) = value
            && Path::new(text.as_str()).is_absolute()
            && let Some(name) = Path::new(text.as_str()).file_name()
        {
            *text = name.to_string_lossy().into_owned();
            is_changed = true;
        }
    }
    match toml::to_string(&table) {
        Ok(text) if is_changed => text,
        _ => settings.to_string(),
    }
}

/// What a card tells about a run.
struct ModelCard<'a> {
    of: CardOf,
    name: &'a str,
    config: &'a RunConfig,
    results: &'a RunResults,
    /// The settings file, if it was kept.
    settings: Option<String>,
    /// The base model's name on the Hub, if it came from there.
    base: Option<String>,
    /// The base model's licence, if it is known.
    license: Option<String>,
    /// The name of the GGUF file that the card is about.
    file: String,
}

impl ModelCard<'_> {
    fn adapter(&self) -> &AdapterSettings {
        &self.config.base.adapter
    }

    fn has_adapter(&self) -> bool {
        self.adapter().method == MethodName::MtLora
    }

    /// The examples on which the best state was chosen.
    fn chosen_on(&self) -> &'static str {
        match self.config.data.validation_fraction {
            Some(_) => "held-back",
            None => "dev",
        }
    }

    /// Whether the metrics are those of texts that were generated after training.
    fn has_texts(&self) -> bool {
        let mut names = self.results.metrics.iter();
        matches!(self.config.kind, RunKind::Generation(_))
            && names.any(|(name, _)| name.parse::<MetricName>().is_err())
    }

    /// The examples of which the results have the metrics.
    fn split(&self) -> &str {
        match &self.results.scored {
            Some(scored) if self.has_texts() => &scored.split,
            _ if self.has_texts() => "dev",
            _ => self.chosen_on(),
        }
    }

    /// The program that an adapter is written for, if it is for one.
    fn server(&self) -> Option<Server> {
        match self.of {
            CardOf::Adapter { server, .. } => server,
            CardOf::Run | CardOf::Merged | CardOf::Gguf(_) => None,
        }
    }

    /// Whether it is about a whole model that the adapter is merged into.
    fn is_merged(&self) -> bool {
        matches!(self.of, CardOf::Merged | CardOf::Gguf(_))
    }

    /// Whether the folder has an adapter, and not a model.
    fn is_adapter(&self) -> bool {
        self.has_adapter() && !self.is_merged()
    }

    /// Whether PEFT opens the folder as it is.
    fn is_for_peft(&self) -> bool {
        match self.of {
            CardOf::Run => {}
            CardOf::Adapter { server, .. } => {
                return matches!(server, None | Some(Server::Peft | Server::Vllm));
            }
            CardOf::Merged | CardOf::Gguf(_) => return false,
        }
        let known = [
            AdapterMethod::from(Structure::Lora),
            AdaLora.into(),
            Dora.into(),
        ];
        self.has_adapter() && known.contains(&self.adapter().structure)
    }

    /// The card, with a picture of the curves if there is a file with one.
    fn markdown(&self, curves: Option<&str>) -> String {
        let mut text = self.front_matter();
        let _ = writeln!(text, "\n# {}\n", self.name);
        self.describe(&mut text);
        self.classes(&mut text);
        self.scores(&mut text);
        if let Some(curves) = curves {
            // Angle brackets, since a file's name may have spaces.
            let place = if curves.contains([' ', '(', ')']) {
                format!("<{curves}>")
            } else {
                curves.to_string()
            };
            let _ = writeln!(text, "\n![Training loss and scores by step]({place})");
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
        // The Hub knows files for llama.cpp by their format.
        let library = match (self.of, self.server()) {
            (CardOf::Gguf(_), _) | (_, Some(Server::LlamaCpp | Server::Ollama)) => None,
            (_, Some(Server::Mlx)) => Some("mlx"),
            (CardOf::Merged, _) => Some("transformers"),
            _ if self.is_for_peft() => Some("peft"),
            _ => Some("mtlora"),
        };
        let mut text = "---\n".to_string();
        if let Some(library) = library {
            let _ = writeln!(text, "library_name: {library}");
        }
        let _ = writeln!(text, "pipeline_tag: {pipeline}");
        if let Some(license) = &self.license {
            let _ = writeln!(text, "license: {license}");
        }
        if let Some(base) = &self.base {
            let _ = writeln!(text, "base_model: {}", quoted(base));
        }
        text.push_str("tags:\n- mtlora\n");
        if self.has_adapter() {
            let structure = self.adapter().structure.to_string();
            let _ = writeln!(text, "- {structure}");
            let is_lora = self.is_for_peft() || matches!(self.of, CardOf::Adapter { .. });
            if is_lora && structure != "lora" {
                text.push_str("- lora\n");
            }
        }
        match (self.of, self.server()) {
            (CardOf::Gguf(_), _) | (_, Some(Server::LlamaCpp | Server::Ollama)) => {
                text.push_str("- gguf\n");
            }
            (_, Some(Server::Mlx)) => text.push_str("- mlx\n"),
            _ => {}
        }
        if let Some(base) = &self.base {
            let relation = if self.is_adapter() {
                "adapter"
            } else {
                "finetune"
            };
            let _ = writeln!(
                text,
                "- {}",
                quoted(&format!("base_model:{relation}:{base}"))
            );
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
        let form = match self.of {
            CardOf::Run => return,
            CardOf::Adapter { .. } => {
                "It is written as plain LoRA here: `T` is folded into the other factors, which does not change the outputs."
                    .to_string()
            }
            CardOf::Merged if self.has_adapter() => {
                "The adapter is merged into the weights here, so that this is a model like its base.".to_string()
            }
            CardOf::Merged => "This is the whole model.".to_string(),
            CardOf::Gguf(kind) => {
                let merged = if self.has_adapter() {
                    "with the adapter merged into the weights, "
                } else {
                    ""
                };
                format!("This is the whole model, {merged}as a GGUF file with matrices in {kind}.")
            }
        };
        let _ = writeln!(text, "\n{form}");
    }

    /// What each output of the head means, if it puts out classes.
    fn classes(&self, text: &mut String) {
        let RunKind::Classification(kind) = &self.config.kind else {
            return;
        };
        let Objective::Classification { labels } = &kind.head.objective else {
            return;
        };
        text.push_str("\n## Classes\n\n| output | class |\n|---|---|\n");
        for (output, label) in labels.iter().enumerate() {
            let _ = writeln!(text, "| {output} | {} |", cell(label));
        }
    }

    fn scores(&self, text: &mut String) {
        let results = self.results;
        let (split, chosen_on) = (self.split(), self.chosen_on());
        let by = match split == chosen_on {
            true => String::new(),
            false => format!(" It was chosen on the {chosen_on} examples."),
        };
        let _ = writeln!(
            text,
            "\n## Scores\n\nOn the {split} examples; the state after step {} of {} is the one that is kept.{by}\n\n\
             | metric | before | kept |\n|---|---|---|",
            results.best_step, results.steps
        );
        for (name, value) in results.metrics.iter() {
            // What was before training was scored where the state was chosen.
            let before = results.metrics_before.get(name);
            let before = before.filter(|_| split == chosen_on);
            let before = before.map_or("–".to_string(), significant);
            let _ = writeln!(text, "| {name} | {before} | {} |", significant(value));
        }
        if let Some(scored) = results.scored.as_ref().filter(|_| !self.has_texts()) {
            let _ = writeln!(
                text,
                "\nOn the {} examples, which were scored once, with the kept state:\n\n| metric | kept |\n|---|---|",
                scored.split
            );
            for (name, value) in scored.metrics.iter() {
                let _ = writeln!(text, "| {name} | {} |", significant(value));
            }
        }
    }

    fn training(&self, text: &mut String) {
        let results = self.results;
        let options = &self.config.training;
        let memory = results
            .peak_rss_mb
            .map_or(String::new(), |mib| format!(", and {mib:.0} MiB of memory"));
        let steps = match results.stopped_early() {
            true => format!(
                "{} of {} steps (it stopped when the score no longer improved)",
                results.steps, results.planned_steps
            ),
            false => format!("{} steps", results.steps),
        };
        let _ = writeln!(
            text,
            "\n## Training\n\n{} of {} parameters were trained in {steps} with the seed {}. On the device `{}` the steps \
             took {:.0} s ({:.0} tokens/s{memory}).",
            results.trainable_parameters,
            results.total_parameters,
            options.seed,
            self.config.device,
            results.train_seconds,
            results.tokens_per_second,
        );
        if let Some(settings) = &self.settings {
            let (place, settings) = match self.of {
                CardOf::Run => (", which is in this folder,", settings.clone()),
                _ => ("", without_places(settings)),
            };
            let _ = writeln!(
                text,
                "\nTo repeat it: `mtlora train --config {SETTINGS} --out RUN`, where `{SETTINGS}`{place} has\n\n```toml\n{}\n```",
                settings.trim_end()
            );
        }
    }

    fn use_it(&self, text: &mut String) {
        self.programs(text);
        if let RunKind::Generation(_) = self.config.kind {
            text.push_str(
                "\nIn training, the end-of-text token stood between each input and its text. `mtlora` adds it to a prompt; with other programs, \
                 end each prompt with it: in Python, `prompt + tokenizer.eos_token`.\n",
            );
        }
    }

    /// How programs open what the folder has.
    fn programs(&self, text: &mut String) {
        let command = match self.config.kind {
            RunKind::Classification(_) => "predict",
            RunKind::Generation(_) | RunKind::Chat(_) => "generate",
        };
        // Without the run's configuration, the conversations' template has to be asked for.
        let form = match self.config.kind {
            RunKind::Chat(_) => "--chat ",
            RunKind::Classification(_) | RunKind::Generation(_) => "",
        };
        text.push_str("\n## Use\n\n");
        match self.of {
            CardOf::Run => {}
            CardOf::Adapter { server, rank } => {
                return self.with_server(text, server.unwrap_or(Server::Peft), rank);
            }
            CardOf::Merged => return self.with_transformers(text),
            CardOf::Gguf(_) => return self.with_llama_cpp(text),
        }
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
            "```sh\nmtlora {command} --adapter FOLDER --model {base} {form}--input texts.txt\nmtlora merge --adapter FOLDER --model \
             {base} --out merged    # a plain Hugging Face folder\n```\n\nHere `FOLDER` is this folder{}.",
            match &self.base {
                Some(_) => ", or its name on the Hub",
                None => ", or its name on the Hub, and `MODEL` the model's folder",
            }
        );
        let folder = if self.is_for_peft() {
            text.push_str("\nWith PEFT:\n\n");
            "FOLDER"
        } else {
            let _ = writeln!(
                text,
                "\nWith PEFT, after `mtlora export --run FOLDER --out lora`, which makes it a plain LoRA:\n"
            );
            "lora"
        };
        self.with_peft(text, folder);
    }

    /// The class of transformers that opens the base model.
    fn class(&self) -> &'static str {
        match self.config.kind {
            RunKind::Classification(_) => "AutoModelForSequenceClassification",
            RunKind::Generation(_) | RunKind::Chat(_) => "AutoModelForCausalLM",
        }
    }

    /// How PEFT opens the adapter in `folder`.
    fn with_peft(&self, text: &mut String, folder: &str) {
        let (class, base) = (self.class(), self.base.as_deref().unwrap_or("MODEL"));
        let outputs = match &self.config.kind {
            RunKind::Classification(kind) => {
                format!(", num_labels={}", kind.head.objective.num_labels())
            }
            RunKind::Generation(_) | RunKind::Chat(_) => String::new(),
        };
        let _ = writeln!(
            text,
            "```python\nfrom peft import PeftModel\nfrom transformers import {class}\n\nbase = {class}.from_pretrained({}{outputs})\n\
             model = PeftModel.from_pretrained(base, \"{folder}\")\n```",
            quoted(base)
        );
        if self.of != CardOf::Run {
            let model = match &self.base {
                Some(_) => "",
                None => ", and `MODEL` the base model",
            };
            let _ = writeln!(text, "\nHere `FOLDER` is this folder{model}.");
        }
    }

    /// How the program opens the adapter that was written for it.
    fn with_server(&self, text: &mut String, server: Server, rank: usize) {
        let base = self.base.as_deref().unwrap_or("MODEL");
        let command = match server {
            Server::Peft => return self.with_peft(text, "FOLDER"),
            Server::Vllm => format!(
                "vllm serve {base} --enable-lora --lora-modules adapter=FOLDER --max-lora-rank {}",
                rank_for_vllm(rank)
            ),
            Server::LlamaCpp => "llama-cli -m BASE.gguf --lora FOLDER/adapter.gguf".to_string(),
            Server::Ollama => "ollama create NAME -f FOLDER/Modelfile\nollama run NAME".to_string(),
            Server::Mlx => {
                format!("mlx_lm.generate --model {base} --adapter-path FOLDER --prompt \"...\"")
            }
        };
        let _ = writeln!(text, "```sh\n{command}\n```");
        let names = match (server, &self.base) {
            (Server::LlamaCpp, _) => ", and `BASE.gguf` the base model",
            (Server::Ollama, _) => ", and `NAME` any name",
            (_, None) => ", and `MODEL` the base model",
            (_, Some(_)) => "",
        };
        let _ = writeln!(text, "\nHere `FOLDER` is this folder{names}.");
    }

    /// How llama.cpp, Ollama and this program open the merged model.
    fn with_llama_cpp(&self, text: &mut String) {
        let file = match self.file.contains(char::is_whitespace) {
            true => format!("\"{}\"", self.file),
            false => self.file.clone(),
        };
        let form = match self.config.kind {
            RunKind::Chat(_) => "--chat ",
            RunKind::Generation(_) => "--inputs ",
            RunKind::Classification(_) => "",
        };
        let _ = writeln!(
            text,
            "```sh\nllama-cli -m {file}\nmtlora generate --model {file} {form}--input texts.txt\n```\n\nFor Ollama, a `Modelfile` with \
             the line `FROM ./{}`, and `ollama create NAME -f Modelfile`, where `NAME` is any name.",
            self.file
        );
    }

    /// How transformers and this program open the merged model.
    fn with_transformers(&self, text: &mut String) {
        let class = self.class();
        let _ = writeln!(
            text,
            "```python\nfrom transformers import AutoTokenizer, {class}\n\nmodel = {class}.from_pretrained(\"FOLDER\")\n\
             tokenizer = AutoTokenizer.from_pretrained(\"FOLDER\")\n```\n\nHere `FOLDER` is this folder, or its name on the Hub."
        );
    }
}

/// The smallest of the ranks that vLLM's `--max-lora-rank` takes which is not below this one.
fn rank_for_vllm(rank: usize) -> usize {
    let known = [8, 16, 32, 64, 128, 256, 320, 512];
    let found = known.into_iter().find(|known| *known >= rank);
    found.unwrap_or(rank)
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

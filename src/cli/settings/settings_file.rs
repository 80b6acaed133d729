//! What a run is told: by flags, a file, a recipe.

use std::error::Error;
use std::path::{Path, PathBuf};

use mtlora::core::{BaseDtype, Init, Structure, devices};
use mtlora::models::{AdapterConfig, EncoderConfig, GenerationConfig, Gpt2Config};
use mtlora::train::acceptability::Acceptability;
use mtlora::train::data_to_text::{GenerationTask, PairsConfig, Scorer};
use mtlora::train::facts::Facts;
use mtlora::train::{
    AdapterSettings, BatchSize, GenerationRunConfig, LossNormalization, MethodName, RunConfig,
    SaveOptions, TableConfig, Task, TrainOptions, glue, read_text_file, settings_of,
};
use serde::{Deserialize, Serialize};

use crate::cli::hub;
use crate::cli::model::finished;
use crate::cli::model::head::{Head, HeadOf};
use crate::cli::settings::recipe::Recipe;
use crate::cli::settings::task;
use crate::cli::text::encoding;

/// The heading of their flags in the help.
const DATA_TO_TEXT: &str = "Data-to-text";
/// What a tiny model needs to learn a whole grammar; the method's own settings are for large ones.
const FIRST_RUN_LR: f64 = 2e-3;
const FIRST_RUN_EPOCHS: usize = 5;
const FIRST_RUN_BATCH: usize = 32;
const FIRST_RUN_RANK: usize = 16;
const FACTS_LR: f64 = 5e-3;
const FACTS_EPOCHS: usize = 4;
const FACTS_RANK: usize = 8;
const FACTS_BEAMS: usize = 4;
/// Of each of these, one excludes the others: a layer that says one of them silences those of the
/// layers below.
const EXCLUSIVE: [&[&str]; 2] = [
    &["batch", "batch_tokens"],
    &["warmup_ratio", "warmup_steps"],
];
/// The share of each token's loss that is spread over the vocabulary.
pub(crate) const LABEL_SMOOTHING: f64 = 0.1;
/// What may be set when a run goes on.
const MAY_CHANGE: [&str; 5] = [
    "device",
    "no_final_scores",
    "save_minutes",
    "save_steps",
    "save_total_limit",
];
/// What `init_from` says for no run.
const NONE: &str = "none";

/// What is shown to somebody who names no model and no data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FirstRun {
    /// Is this sentence well formed?
    Classify,
    /// Facts to sentences.
    Generate,
}

/// A run with its task.
pub(crate) enum Resolved {
    /// A classification or a regression.
    Classification(Box<RunConfig>, Box<dyn Task>),
    /// A data-to-text task.
    Generation(Box<GenerationRunConfig>, Box<dyn GenerationTask>),
}

/// What a flag, the TOML file or a recipe may set.
#[derive(Default, clap::Args, Serialize, Deserialize)]
#[cfg_attr(test, derive(Debug, PartialEq))]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// The base model (RoBERTa or BERT; GPT-2 for data-to-text): a Hugging Face folder, or a name on the Hub:
    /// roberta-base, org/name, org/name@revision.
    #[arg(long)]
    pub(crate) model: Option<PathBuf>,
    /// For a model of the Hub: the branch, tag or commit [default: main].
    #[arg(long)]
    pub(crate) revision: Option<String>,
    /// The task (see `mtlora tasks`).
    #[arg(long)]
    pub(crate) task: Option<String>,
    /// The folder with the data [needed, but for GLUE's tasks: those are on the Hub].
    #[arg(long)]
    pub(crate) data: Option<PathBuf>,
    /// For --task table: the column with the text [default: text].
    #[arg(long)]
    pub(crate) text_column: Option<String>,
    /// For --task table: the column with the second text of a pair [default: none].
    #[arg(long)]
    pub(crate) pair_column: Option<String>,
    /// For --task table: the column with the label or the number [default: label].
    #[arg(long)]
    pub(crate) label_column: Option<String>,
    /// The classes in the order of the outputs of the model's classification head, with commas between; classes with
    /// commas in a --config file, as labels = ["a, b", "c"] [default: they are matched by the names in the model's
    /// config.json; a new head takes the data's order].
    #[arg(long, value_delimiter = ',')]
    pub(crate) labels: Option<Vec<String>>,
    /// Start with a new output layer of the classification head, though the model has one: for a model that was
    /// fine-tuned on other classes.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) fresh_head: Option<bool>,
    /// For --task table: predict a number.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) regression: Option<bool>,
    /// What trains: mtlora, full, head [default: mtlora].
    #[arg(long)]
    pub(crate) method: Option<MethodName>,
    /// How T is made: lora, shim, icfm, ctcm, dtsm [default: shim].
    #[arg(long)]
    pub(crate) structure: Option<Structure>,
    /// Rank of the update [default: 8; data-to-text: 4].
    #[arg(long)]
    pub(crate) rank: Option<usize>,
    /// Numerator of the update's scale, alpha / rank [default: 16; data-to-text: 32].
    #[arg(long)]
    pub(crate) alpha: Option<f64>,
    /// Scale by alpha / sqrt(rank).
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) use_rslora: Option<bool>,
    /// Dropout on the adapter's input [default: 0; data-to-text: 0.1].
    #[arg(long)]
    pub(crate) adapter_dropout: Option<f64>,
    /// How the adapter starts: kaiming, identity, zero [default: kaiming].
    #[arg(long)]
    pub(crate) init: Option<Init>,
    /// Start with the adapter (not the head) in this folder: a run's, or one that PEFT saved, or a name on the
    /// Hub; structure, rank, alpha and targets are its own then. Plain LoRA starts any --structure, with T = I. none:
    /// anew [default: none].
    #[arg(long, value_name = "DIR")]
    pub(crate) init_from: Option<PathBuf>,
    /// Which weights are adapted: endings of names with commas between, a regular expression, or
    /// all-linear [default: query,value; data-to-text: c_attn,c_fc].
    #[arg(long)]
    pub(crate) targets: Option<String>,
    /// In which precision the frozen weights are kept: f32, bf16 (half the memory, and faster where
    /// the processor has bfloat16 products), int8 (a quarter) [default: f32].
    #[arg(long)]
    pub(crate) base_dtype: Option<BaseDtype>,
    /// The highest learning rate [default: 4e-4; data-to-text: 2e-4].
    #[arg(long)]
    pub(crate) lr: Option<f64>,
    /// Sequences in a batch [default: 32; data-to-text: 8].
    #[arg(long)]
    pub(crate) batch: Option<usize>,
    /// Tokens in a batch, in place of --batch.
    #[arg(long, conflicts_with = "batch")]
    pub(crate) batch_tokens: Option<usize>,
    /// Batches to a step [default: 1].
    #[arg(long)]
    pub(crate) gradient_accumulation: Option<usize>,
    /// What the losses of a step's batches are divided by. step: the number of tokens (or of examples) in all of
    /// them; batch: each batch's by its own, and then by the number of batches, as the published GPT-2 code does
    /// [default: step].
    #[arg(long)]
    pub(crate) loss_normalization: Option<LossNormalization>,
    /// Passes over the training data [default: 3; data-to-text: 5].
    #[arg(long)]
    pub(crate) epochs: Option<usize>,
    /// The part of all steps over which the learning rate climbs [default: 0.06].
    #[arg(long)]
    pub(crate) warmup_ratio: Option<f64>,
    /// Steps over which the learning rate climbs, in place of --warmup-ratio.
    #[arg(long, conflicts_with = "warmup_ratio")]
    pub(crate) warmup_steps: Option<usize>,
    /// AdamW's weight decay [default: 0.1; data-to-text: 0.01].
    #[arg(long)]
    pub(crate) weight_decay: Option<f64>,
    /// The most that the gradients' norm may be [default: no bound].
    #[arg(long)]
    pub(crate) max_grad_norm: Option<f64>,
    /// Steps between evaluations [default: once an epoch].
    #[arg(long)]
    pub(crate) eval_steps: Option<usize>,
    /// Evaluations without a better score after which training stops [default: never].
    #[arg(long)]
    pub(crate) patience: Option<usize>,
    /// Steps between checkpoints; there is one after each epoch and each best evaluation anyway
    /// [default: none between].
    #[arg(long)]
    pub(crate) save_steps: Option<usize>,
    /// Minutes between checkpoints [default: none between].
    #[arg(long)]
    pub(crate) save_minutes: Option<f64>,
    /// How many of the newest checkpoints are kept, beside that of the best evaluation [default: 2].
    #[arg(long)]
    pub(crate) save_total_limit: Option<usize>,
    /// The most tokens of an example; longer ones are cut, on the side that the model's tokenizer
    /// says [default: 128; data-to-text: 512, where only inputs are cut, on the left, and examples whose
    /// text is too long are left out; or the length that the tokenizer is for, if that is less].
    #[arg(long)]
    pub(crate) max_length: Option<usize>,
    /// Seed of the head, the adapter, the data's order and dropout [default: 0].
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// The device (see `mtlora devices`) [default: the first].
    #[arg(long)]
    pub(crate) device: Option<String>,
    /// The split to train on [default: train].
    #[arg(long, help_heading = DATA_TO_TEXT)]
    pub(crate) train_split: Option<String>,
    /// For --task pairs: the column with the prompt [default: prompt].
    #[arg(long, help_heading = DATA_TO_TEXT)]
    pub(crate) prompt_column: Option<String>,
    /// For --task pairs: the column with what is to be written [default: completion].
    #[arg(long, help_heading = DATA_TO_TEXT)]
    pub(crate) completion_column: Option<String>,
    /// Which of the query, key and value that one weight holds are adapted: letters of qkv
    /// [default: qkv where --targets has c_attn].
    #[arg(long, help_heading = DATA_TO_TEXT)]
    pub(crate) projections: Option<String>,
    /// The share of each token's loss that is spread over the vocabulary [default: 0.1].
    #[arg(long, help_heading = DATA_TO_TEXT)]
    pub(crate) label_smoothing: Option<f64>,
    /// Sequences that beam search follows at a time [default: 10].
    #[arg(long, help_heading = DATA_TO_TEXT)]
    pub(crate) num_beams: Option<usize>,
    /// The power of a sequence's length that its log-probability is divided by [default: 0.9 for e2e,
    /// else 0.8].
    #[arg(long, help_heading = DATA_TO_TEXT)]
    pub(crate) length_penalty: Option<f64>,
    /// No run of this many tokens is written twice; 0: any may be [default: 4].
    #[arg(long, help_heading = DATA_TO_TEXT)]
    pub(crate) no_repeat_ngram_size: Option<usize>,
    /// The tokens that end a text, with commas between [default: the model's end of text].
    #[arg(long, value_delimiter = ',', help_heading = DATA_TO_TEXT)]
    pub(crate) eos_token_ids: Option<Vec<u32>>,
    /// The most tokens that are written [default: 64].
    #[arg(long, help_heading = DATA_TO_TEXT)]
    pub(crate) max_new_tokens: Option<usize>,
    /// End without writing a text for each input of the dev split and scoring them (BLEU and the like), which `mtlora
    /// eval` can do later.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", help_heading = DATA_TO_TEXT)]
    pub(crate) no_final_scores: Option<bool>,
}

impl Settings {
    /// These settings, where they say nothing those of the file `config`, and where that says
    /// nothing those of the recipe.
    ///
    /// # Errors
    /// When the file cannot be read, there is no such recipe, or it starts from another run and
    /// none is named.
    pub(crate) fn layered(
        mut self,
        config: Option<&Path>,
        recipe: Option<&str>,
    ) -> Result<Self, Box<dyn Error>> {
        if let Some(path) = config {
            self = self.over(Self::read(path)?)?;
        }
        if let Some(name) = recipe {
            let recipe = Recipe::find(name)?;
            self = self.over(recipe.settings)?;
            if let (Some(origin), None) = (recipe.starts_from, &self.init_from) {
                return Err(format!(
                    "recipe {name} starts from the adapter of a {origin} run: pass --init-from RUN, \
                     the folder of such a run, or --init-from {NONE} to start anew"
                )
                .into());
            }
        }
        Ok(self)
    }

    fn read(path: &Path) -> Result<Self, String> {
        let at = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let text = read_text_file(path).map_err(|error| error.to_string())?;
        toml::from_str(&text).map_err(|error| at(&error))
    }

    /// These settings, and those of `lower` where they say nothing.
    fn over(self, lower: Self) -> Result<Self, Box<dyn Error>> {
        let upper = toml::Table::try_from(self)?;
        let mut both = toml::Table::try_from(lower)?;
        for group in EXCLUSIVE {
            if group.iter().any(|name| upper.contains_key(*name)) {
                both.retain(|name, _| !group.contains(&name));
            }
        }
        both.extend(upper);
        Ok(both.try_into()?)
    }

    /// The first run that is asked for, if one is: neither model nor data is said, and no task but
    /// that of a first run.
    pub(crate) fn asks_for_first_run(&self) -> Option<FirstRun> {
        if self.model.is_some() || self.data.is_some() {
            return None;
        }
        match self.task.as_deref() {
            None => Some(FirstRun::Classify),
            Some(Facts::NAME) => Some(FirstRun::Generate),
            Some(_) => None,
        }
    }

    /// Fills in a first run: the tiny model and the task that the repository has. What is set
    /// already stays.
    pub(crate) fn first_run(&mut self, which: FirstRun) -> Result<(), Box<dyn Error>> {
        let assets = Path::new("assets");
        let model = assets.join(match which {
            FirstRun::Classify => "tiny-roberta",
            FirstRun::Generate => "tiny-gpt2",
        });
        if !model.is_dir() {
            return Err(
                "--model, --task, --data and --out are needed; without them the first run is \
                 made, whose model is in the repository: run from its folder"
                    .into(),
            );
        }
        self.model = Some(model);
        if which == FirstRun::Generate {
            self.data = Some(assets.join(Facts::NAME));
            self.rank.get_or_insert(FACTS_RANK);
            self.lr.get_or_insert(FACTS_LR);
            self.epochs.get_or_insert(FACTS_EPOCHS);
            self.label_smoothing.get_or_insert(0.0);
            self.num_beams.get_or_insert(FACTS_BEAMS);
            self.init.get_or_insert(Init::Identity);
            self.adapter_dropout.get_or_insert(0.0);
            self.targets.get_or_insert_with(|| "all-linear".to_string());
            if self.batch.is_none() && self.batch_tokens.is_none() {
                self.batch = Some(FIRST_RUN_BATCH);
            }
            return Ok(());
        }
        self.task = Some(Acceptability::NAME.to_string());
        self.data = Some(assets.join("acceptability"));
        self.targets.get_or_insert_with(|| "all-linear".to_string());
        self.rank.get_or_insert(FIRST_RUN_RANK);
        self.init.get_or_insert(Init::Identity);
        self.lr.get_or_insert(FIRST_RUN_LR);
        self.epochs.get_or_insert(FIRST_RUN_EPOCHS);
        if self.batch.is_none() && self.batch_tokens.is_none() {
            self.batch = Some(FIRST_RUN_BATCH);
        }
        Ok(())
    }

    /// The names of the settings that are set though only data-to-text tasks have them.
    fn data_to_text(&self) -> Vec<&'static str> {
        let fields = [
            ("train_split", self.train_split.is_some()),
            ("prompt_column", self.prompt_column.is_some()),
            ("completion_column", self.completion_column.is_some()),
            ("projections", self.projections.is_some()),
            ("label_smoothing", self.label_smoothing.is_some()),
            ("num_beams", self.num_beams.is_some()),
            ("length_penalty", self.length_penalty.is_some()),
            ("no_repeat_ngram_size", self.no_repeat_ngram_size.is_some()),
            ("eos_token_ids", self.eos_token_ids.is_some()),
            ("max_new_tokens", self.max_new_tokens.is_some()),
            ("no_final_scores", self.no_final_scores.is_some()),
        ];
        let set = fields.into_iter().filter(|(_, set)| *set);
        set.map(|(name, _)| name).collect()
    }

    /// The run that these settings and the defaults come to, and its task. A classification starts with the head
    /// of `head`.
    ///
    /// # Errors
    /// When a setting is missing or is none of the task's.
    pub(crate) fn resolve(self, head: HeadOf<'_>) -> Result<Resolved, Box<dyn Error>> {
        let needed = |name| format!("--{name} is needed");
        let name = self.task.clone().ok_or_else(|| needed("task"))?;
        let model = self.model.clone().ok_or_else(|| needed("model"))?;
        let pairs = (name == task::PAIRS).then(|| self.pairs());
        let generation = task::find_generation(&name, pairs.clone())?;
        // Before anything is fetched.
        match &generation {
            Some(_) => self.refuse_labels(&name)?,
            None => {
                task::known(&name)?;
                self.refuse_texts(&name)?;
            }
        }
        // Absolute, so that the run can be read from any folder.
        let data = match (&self.data, glue::task(&name)) {
            (Some(data), _) => data.canonicalize().unwrap_or_else(|_| data.clone()),
            (None, Ok(task)) => hub::glue_data(&task, &[task.train_split(), task.dev_split()])?,
            (None, Err(_)) => return Err(needed("data").into()),
        };
        let model = hub::model(&model, self.revision.as_deref(), |folder| {
            match generation {
                Some(_) => drop(Gpt2Config::from_folder(folder)?),
                None => drop(EncoderConfig::from_folder(folder)?),
            }
            Ok(())
        })?;
        let device = match self.device.clone() {
            Some(name) => name,
            None => match devices().into_iter().next() {
                Some(first) => first.name,
                None => return Err("this build has no backend; build with --features flex".into()),
            },
        };
        let place = Place {
            model,
            data,
            device,
        };
        match generation {
            Some(task) => self.generation(place, task, pairs),
            None => self.classification(&name, place, head),
        }
    }

    /// Refuses what only data-to-text tasks have.
    fn refuse_texts(&self, task: &str) -> Result<(), String> {
        let set = self.data_to_text();
        match set.is_empty() {
            true => Ok(()),
            false => Err(format!(
                "only data-to-text tasks have {}; {task} asks for labels or numbers: leave them out",
                set.join(", ")
            )),
        }
    }

    /// Refuses what only tables have.
    fn refuse_labels(&self, task: &str) -> Result<(), String> {
        let labels_only = [
            ("text_column", self.text_column.is_some()),
            ("pair_column", self.pair_column.is_some()),
            ("label_column", self.label_column.is_some()),
            ("regression", self.regression.is_some()),
            ("labels", self.labels.is_some()),
            ("fresh_head", self.fresh_head.is_some()),
        ];
        match labels_only.into_iter().find(|(_, set)| *set) {
            Some((field, _)) => Err(format!("{field} is not for the task {task}, leave it out")),
            None => Ok(()),
        }
    }

    /// The columns of a table.
    pub(crate) fn table(&self) -> TableConfig {
        let usual = TableConfig::default();
        TableConfig {
            text: self.text_column.clone().unwrap_or(usual.text),
            pair: self.pair_column.clone(),
            label: self.label_column.clone().unwrap_or(usual.label),
            regression: self.regression.unwrap_or(usual.regression),
            ..TableConfig::default()
        }
    }

    fn pairs(&self) -> PairsConfig {
        let usual = PairsConfig::default();
        PairsConfig {
            prompt: self.prompt_column.clone().unwrap_or(usual.prompt),
            completion: self.completion_column.clone().unwrap_or(usual.completion),
            ..PairsConfig::default()
        }
    }

    fn classification(
        self,
        name: &str,
        place: Place,
        head: HeadOf<'_>,
    ) -> Result<Resolved, Box<dyn Error>> {
        let table = (name == task::TABLE).then(|| self.table());
        let head = match (self.fresh_head, head) {
            (Some(true), HeadOf::Adapter(folder, adapter)) if adapter.num_labels().is_some() => {
                return Err(format!(
                    "--fresh-head cannot be used here: the adapter in {} brings a head of its own",
                    folder.display()
                )
                .into());
            }
            (Some(true), _) => HeadOf::Fresh,
            (_, head) => head,
        };
        let mut task = task::find(name, table.clone(), &place.data)?;
        let head = Head::find(head, &place.model)?;
        task = head.fit(task, self.labels.as_deref())?;
        let table = table.map(|table| table.with_classes_of(task.as_ref()));
        if table.is_some() {
            // Splits may have classes that the head knows and the train split lacks.
            task = task::find(name, table.clone(), &place.data)?;
        }
        let adapter = self.adapter(&Defaults::CLASSIFICATION)?;
        let max_length = match self.max_length {
            Some(length) => length,
            None => encoding::usual_length(&place.model, 128)?,
        };
        let config = RunConfig {
            model: place.model,
            task: task.name().to_string(),
            data: place.data,
            table,
            adapter,
            max_length,
            device: place.device,
            training: self.training(TrainOptions::default()),
            checkpoints: self.checkpoints(SaveOptions::default()),
            fresh_head: head.fresh,
            objective: task.objective().clone(),
        };
        Ok(Resolved::Classification(Box::new(config), task))
    }

    fn generation(
        self,
        place: Place,
        task: Box<dyn GenerationTask>,
        pairs: Option<PairsConfig>,
    ) -> Result<Resolved, Box<dyn Error>> {
        // The settings of the paper's GPT-2 runs (arXiv 2403.07440), except for the warm-up, which is a share of the steps.
        let adapter = self.adapter(&Defaults::DATA_TO_TEXT)?;
        let model = Gpt2Config::from_folder(&place.model)?;
        let usual = TrainOptions {
            batch: BatchSize::Sequences(8),
            learning_rate: 2e-4,
            epochs: 5,
            weight_decay: 0.01,
            ..TrainOptions::default()
        };
        let length_penalty = match task.scorer() {
            Scorer::E2e => 0.9,
            Scorer::WebNlg | Scorer::Dart => 0.8,
        };
        let max_length = match self.max_length {
            Some(length) => length,
            None => encoding::usual_length(&place.model, 512)?,
        };
        let max_length = max_length.min(model.n_positions);
        let config = GenerationRunConfig {
            train_split: self
                .train_split
                .clone()
                .unwrap_or_else(|| task.train_split().to_string()),
            task: task.name().to_string(),
            model: place.model,
            data: place.data,
            max_length,
            label_smoothing: self.label_smoothing.unwrap_or(LABEL_SMOOTHING),
            device: place.device,
            final_scores: self.final_scores().unwrap_or(true),
            pairs,
            adapter,
            training: self.training(usual),
            checkpoints: self.checkpoints(SaveOptions::default()),
            decoding: GenerationConfig {
                num_beams: self.num_beams.unwrap_or(10),
                length_penalty: self.length_penalty.unwrap_or(length_penalty),
                no_repeat_ngram_size: self.no_repeat_ngram_size.unwrap_or(4),
                max_new_tokens: self.max_new_tokens.unwrap_or(64),
                eos_token_ids: self.eos_token_ids.unwrap_or(vec![model.eos_token_id]),
                ..GenerationConfig::default()
            },
        };
        config.decoding.validate()?;
        Ok(Resolved::Generation(Box::new(config), task))
    }

    /// How the adapter is made. Where it starts from another, what is not said is that one's.
    fn adapter(&self, usual: &Defaults) -> Result<AdapterSettings, Box<dyn Error>> {
        let named = self.init_from.as_deref();
        let named = named.filter(|folder| folder.as_os_str() != NONE);
        let init_from = named.map(hub::adapter).transpose()?;
        let usual = match &init_from {
            Some(folder) if self.method.unwrap_or(MethodName::MtLora) == MethodName::MtLora => {
                finished::note_if_unfinished(folder)?;
                settings_of(&AdapterConfig::from_folder(folder)?)
            }
            _ => AdapterSettings {
                method: MethodName::MtLora,
                structure: Structure::Shim,
                rank: usual.rank,
                alpha: usual.alpha,
                use_rslora: false,
                dropout: usual.dropout,
                init: Init::Kaiming,
                init_from: None,
                targets: usual.targets.to_string(),
                projections: usual.projections.map(str::to_string),
                base_dtype: BaseDtype::F32,
            },
        };
        Ok(AdapterSettings {
            method: self.method.unwrap_or(usual.method),
            structure: self.structure.unwrap_or(usual.structure),
            rank: self.rank.unwrap_or(usual.rank),
            alpha: self.alpha.unwrap_or(usual.alpha),
            use_rslora: self.use_rslora.unwrap_or(usual.use_rslora),
            dropout: self.adapter_dropout.unwrap_or(usual.dropout),
            init: self.init.unwrap_or(usual.init),
            init_from,
            targets: self.targets.clone().unwrap_or(usual.targets),
            projections: self.projections.clone().or(usual.projections),
            base_dtype: self.base_dtype.unwrap_or_default(),
        })
    }

    /// Whether a training ends with texts and their scores, where this is said.
    pub(crate) fn final_scores(&self) -> Option<bool> {
        self.no_final_scores.map(|none| !none)
    }

    fn checkpoints(&self, usual: SaveOptions) -> SaveOptions {
        SaveOptions {
            save_steps: self.save_steps.or(usual.save_steps),
            save_minutes: self.save_minutes.or(usual.save_minutes),
            save_total_limit: self.save_total_limit.unwrap_or(usual.save_total_limit),
        }
    }

    /// Of a run that goes on, its checkpoints' options and its device as these settings change them.
    ///
    /// # Errors
    /// When anything else is set: it may not change.
    pub(crate) fn on_resume(
        &self,
        checkpoints: &SaveOptions,
        device: &str,
    ) -> Result<(SaveOptions, String), Box<dyn Error>> {
        let set = toml::Table::try_from(self)?;
        let fixed = set.keys().find(|name| !MAY_CHANGE.contains(&name.as_str()));
        if let Some(name) = fixed {
            let flag = name.replace('_', "-");
            return Err(format!(
                "--{flag} cannot be used with --resume: a run that goes on keeps its settings. Leave it out, or start \
                 a new run (with --init-from if it should start with this one's adapter)"
            )
            .into());
        }
        let device = self.device.clone().unwrap_or_else(|| device.to_string());
        Ok((self.checkpoints(checkpoints.clone()), device))
    }

    fn training(&self, usual: TrainOptions) -> TrainOptions {
        TrainOptions {
            batch: match (self.batch, self.batch_tokens) {
                (Some(sequences), _) => BatchSize::Sequences(sequences),
                (None, Some(tokens)) => BatchSize::Tokens(tokens),
                (None, None) => usual.batch,
            },
            gradient_accumulation: self
                .gradient_accumulation
                .unwrap_or(usual.gradient_accumulation),
            loss_normalization: self.loss_normalization.unwrap_or(usual.loss_normalization),
            learning_rate: self.lr.unwrap_or(usual.learning_rate),
            epochs: self.epochs.unwrap_or(usual.epochs),
            warmup_ratio: self.warmup_ratio.unwrap_or(usual.warmup_ratio),
            warmup_steps: self.warmup_steps,
            weight_decay: self.weight_decay.unwrap_or(usual.weight_decay),
            max_grad_norm: self.max_grad_norm,
            eval_steps: self.eval_steps,
            patience: self.patience,
            seed: self.seed.unwrap_or(usual.seed),
        }
    }
}

/// Where a run happens.
struct Place {
    model: PathBuf,
    data: PathBuf,
    device: String,
}

/// The defaults of an adapter that depend on the kind of task.
pub(crate) struct Defaults {
    pub(crate) rank: usize,
    pub(crate) alpha: f64,
    pub(crate) dropout: f64,
    pub(crate) targets: &'static str,
    pub(crate) projections: Option<&'static str>,
}

impl Defaults {
    pub(crate) const CLASSIFICATION: Self = Self {
        rank: 8,
        alpha: 16.0,
        dropout: 0.0,
        targets: "query,value",
        projections: None,
    };
    /// The settings of the paper's GPT-2 runs (arXiv 2403.07440).
    pub(crate) const DATA_TO_TEXT: Self = Self {
        rank: 4,
        alpha: 32.0,
        dropout: 0.1,
        targets: "c_attn,c_fc",
        projections: Some("qkv"),
    };
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn settings(toml: &str) -> Settings {
        toml::from_str(toml).unwrap()
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_the_recipe() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("settings.toml");
        std::fs::write(&file, "lr = 2e-4\nepochs = 7\nwarmup_steps = 100\n").unwrap();
        let flags = settings("epochs = 9\nbatch_tokens = 2048\n");
        let all = flags
            .layered(Some(&file), Some("roberta-base/cola"))
            .unwrap();
        let expected = Settings {
            epochs: Some(9),
            batch_tokens: Some(2048),
            lr: Some(2e-4),
            warmup_steps: Some(100),
            // Each silenced by the other of its kind.
            batch: None,
            warmup_ratio: None,
            ..Recipe::find("roberta-base/cola").unwrap().settings
        };
        assert_eq!(all, expected);
    }

    #[test]
    fn a_recipe_that_starts_from_a_run_wants_it_named() {
        let layered = |text: &str| settings(text).layered(None, Some("roberta-base/mrpc"));
        let error = layered("").err().unwrap().to_string();
        assert!(error.contains("of a roberta-base/mnli run: pass --init-from RUN"));
        assert!(error.ends_with("--init-from none to start anew"));
        let found = layered("init_from = 'runs/mnli'").unwrap();
        assert_eq!(found.init_from, Some(PathBuf::from("runs/mnli")));
        assert!(layered("init_from = 'none'").is_ok());
    }

    #[test]
    fn what_a_task_has_not_is_refused() {
        let text = "task = 'cola'\nmodel = 'm'\ndata = 'd'\nnum_beams = 4\nlabel_smoothing = 0.1\n";
        let error = settings(text)
            .resolve(HeadOf::Model)
            .err()
            .unwrap()
            .to_string();
        assert!(error.starts_with("only data-to-text tasks have label_smoothing, num_beams; cola"));
    }

    #[test]
    fn a_run_that_goes_on_keeps_what_its_losses_are_divided_by() {
        let usual = SaveOptions::default();
        let error = settings("loss_normalization = 'batch'").on_resume(&usual, "flex");
        let text = error.err().unwrap().to_string();
        assert!(text.starts_with("--loss-normalization cannot be used with --resume"));
        assert!(settings("save_steps = 5").on_resume(&usual, "flex").is_ok());
    }

    #[test]
    fn no_run_to_start_from_is_none() {
        let text = "task = 'cola'\nmodel = 'assets/tiny-roberta'\ndata = 'd'\ninit_from = 'none'\n";
        let Resolved::Classification(config, _) = settings(text).resolve(HeadOf::Model).unwrap()
        else {
            panic!("cola is a classification");
        };
        assert_eq!(config.adapter.init_from, None);
        assert_eq!(config.training.warmup_steps, None);
    }
}

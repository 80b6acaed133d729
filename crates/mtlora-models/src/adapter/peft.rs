//! An adapter's folder in memory, by Hugging Face's names.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::TensorData;
use mtlora_core::{
    AdapterForm, AdapterValues, Fold, FusedProjections, LayerError, State, Structure,
    attach_adapters, load_state,
};

use super::config::{AdapterConfig, MERGE, PeftType, TargetModules};
use super::error::AdapterError;
use super::select::Candidate;
use super::tied::{
    BARE_EMBEDDINGS, KEEP_BASE, KEEP_TIED_BASE, TIED, as_peft_has_them, is_output_map, mirrored,
};
use crate::error::{ModelError, listed, shown};
use crate::files::checkpoint::Checkpoint;
use crate::files::names::ADAPTER_CONFIG_FILE;
use crate::files::save::{write_atomically, write_checkpoint};
use crate::files::weights::{CheckpointLayout, Kind, Slot, slots, transpose};

/// The name of the file with its tensors.
pub const ADAPTER_WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// The same of adapters from before safetensors, read where there is not the above.
pub const ADAPTER_PICKLE_FILE: &str = "adapter_model.bin";

/// What PEFT's keys have in front.
const PREFIX: &str = "base_model.model.";
/// One adapted module.
#[derive(Clone, Debug, PartialEq)]
pub struct AdaptedModule {
    /// The factors.
    pub values: AdapterValues,
    /// Whether it is an embedding: PEFT names the factors `lora_embedding_A` and `lora_embedding_B`.
    pub embedding: bool,
}

/// An adapter as a folder in PEFT's format has it.
///
/// ```no_run
/// use std::path::Path;
/// use burn::tensor::Device;
/// use mtlora_core::Fold;
/// use mtlora_models::{CausalLm, Gpt2Config, PeftAdapter};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // Theirs, here.
/// let device = Device::flex();
/// let config = Gpt2Config::from_folder(Path::new("gpt2"))?;
/// let model = CausalLm::from_folder(Path::new("gpt2"), &config, &device)?;
/// let adapter = PeftAdapter::from_folder(Path::new("their-adapter"))?;
/// let model = adapter.attach(model, &config, &[])?;
/// # let _ = model;
/// // Ours, there: as plain LoRA.
/// let ours = PeftAdapter::from_folder(Path::new("runs/e2e"))?;
/// ours.fold(Fold::Balanced)?.write(Path::new("for-peft"))?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct PeftAdapter {
    /// What `adapter_config.json` says.
    pub config: AdapterConfig,
    /// The adapted modules, by their Hugging Face names.
    pub modules: BTreeMap<String, AdaptedModule>,
    /// The tensors that were trained themselves (`modules_to_save`), by Hugging Face's names and in
    /// its layout.
    pub saved: BTreeMap<String, TensorData>,
    /// The tensor file, for messages.
    pub(super) path: PathBuf,
}

/// The tensors of one module in the file.
#[derive(Default)]
struct Factors {
    a: Option<TensorData>,
    b: Option<TensorData>,
    c: Option<TensorData>,
    d: Option<TensorData>,
    linear: bool,
    embedding: bool,
}

/// The file with an adapter's tensors, if `folder` has one.
pub fn adapter_weights(folder: &Path) -> Option<PathBuf> {
    let files = [ADAPTER_WEIGHTS_FILE, ADAPTER_PICKLE_FILE];
    let mut paths = files.into_iter().map(|name| folder.join(name));
    paths.find(|path| path.exists())
}

impl PeftAdapter {
    /// An adapter from its parts.
    pub fn new(
        config: AdapterConfig,
        modules: BTreeMap<String, AdaptedModule>,
        saved: BTreeMap<String, TensorData>,
    ) -> Self {
        Self {
            config,
            modules,
            saved,
            path: PathBuf::from(ADAPTER_WEIGHTS_FILE),
        }
    }

    /// Reads a folder: a run's, or one that PEFT's `save_pretrained` made. In an `adapter_model.bin`, which is read
    /// where there is no `adapter_model.safetensors`, nothing is run: see [`Checkpoint::open`].
    ///
    /// # Errors
    /// When files are missing or damaged, contradict one another, or hold something that is not
    /// computed here.
    pub fn from_folder(folder: &Path) -> Result<Self, AdapterError> {
        let config_path = folder.join(ADAPTER_CONFIG_FILE);
        // Before the tensors: an adapter of another kind has other files.
        let config = AdapterConfig::from_folder(folder)?;
        let path = adapter_weights(folder).ok_or_else(|| AdapterError::NotAnAdapter {
            folder: folder.to_path_buf(),
            missing: format!("it has no {ADAPTER_WEIGHTS_FILE}"),
            hint: "download or save it again",
        })?;
        let checkpoint = Checkpoint::open_file(&path)?;
        Self::from_parts(config, &config_path, &checkpoint)
    }

    fn from_parts(
        config: AdapterConfig,
        config_path: &Path,
        checkpoint: &Checkpoint,
    ) -> Result<Self, AdapterError> {
        let path = checkpoint.path().to_path_buf();
        let mut factors: BTreeMap<String, Factors> = BTreeMap::new();
        let mut saved = BTreeMap::new();
        for key in checkpoint.names() {
            let name = key.strip_prefix(PREFIX).unwrap_or(key);
            match split(name) {
                Some((module, factor, embedding)) => {
                    let own = factors.entry(module.to_string()).or_default();
                    own.embedding |= embedding;
                    own.linear |= !embedding;
                    let slot = match factor {
                        'A' => &mut own.a,
                        'B' => &mut own.b,
                        'C' => &mut own.c,
                        _ => &mut own.d,
                    };
                    if slot.replace(tensor(checkpoint, key)?).is_some() {
                        let message = format!("tensor {} is there twice", shown(name));
                        return Err(AdapterError::contradiction(&path, message));
                    }
                }
                None => {
                    check_saved(&config, &path, name)?;
                    saved.insert(name.to_string(), tensor(checkpoint, key)?);
                }
            }
        }
        let names: Vec<&str> = factors.keys().map(String::as_str).collect();
        let candidates: Vec<Candidate<'_>> = factors
            .iter()
            .map(|(name, own)| Candidate {
                name,
                linear: own.linear,
            })
            .collect();
        let targets = config.targets(config_path, &candidates)?;
        // With `ensure_weight_tying`, PEFT names only the embeddings and writes the same adapter for the output map.
        let [embeddings, output] = TIED;
        let is_target = |name: &&&str| {
            targets.contains(**name) || (**name == output && targets.contains(embeddings))
        };
        if let Some(stray) = names.iter().find(|name| !is_target(name)) {
            let message = format!(
                "has an adapter for {}, which adapter_config.json does not target",
                shown(stray)
            );
            return Err(AdapterError::contradiction(&path, message));
        }
        let ranks = config.ranks_and_alphas(config_path, &names)?;
        let mut modules = BTreeMap::new();
        for ((name, own), (rank, alpha)) in factors.into_iter().zip(ranks) {
            let form = AdapterForm {
                fused: fused(&config.fused_projections, &name),
                dropout: config.lora_dropout,
                ..AdapterForm::new(config.structure, config.scale(rank, alpha))
            };
            let module = own.assemble(form, rank).map_err(|message| {
                AdapterError::contradiction(&path, format!("{}: {message}", shown(&name)))
            })?;
            modules.insert(name, module);
        }
        if modules.is_empty() {
            let message = "holds no adapter (no tensor with lora_A in its name)";
            return Err(AdapterError::contradiction(&path, message));
        }
        let mut config = config;
        if config.peft_type == PeftType::Lora {
            // PEFT has an adapter for each name; on a base with one weight both have the same one, or neither has one.
            let [embeddings, output] = TIED.map(|name| modules.get(name));
            config.tie_word_embeddings = match (embeddings, output) {
                (None, None) => true,
                (Some(embeddings), Some(output)) => *output == mirrored(embeddings),
                _ => false,
            };
        }
        Ok(Self {
            config,
            modules,
            saved,
            path,
        })
    }

    /// Writes the folder's two files, each complete or not there.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn write(&self, folder: &Path) -> Result<(), ModelError> {
        let mut tensors: Vec<(String, &TensorData)> = Vec::new();
        for (name, module) in &self.modules {
            let values = &module.values;
            let factors = [
                ('A', Some(&values.a)),
                ('B', Some(&values.b)),
                ('C', values.c.as_ref()),
                ('D', values.d.as_ref()),
            ];
            for (letter, data) in factors {
                if let Some(data) = data {
                    tensors.push((factor_key(name, letter, module.embedding), data));
                }
            }
        }
        for (name, data) in &self.saved {
            tensors.push((format!("{PREFIX}{name}"), data));
        }
        write_files(folder, &self.config, tensors)
    }

    /// The same update as plain LoRA, which PEFT reads: `T` folded into the factors, and the `g` fused
    /// projections of rank `r` a LoRA of rank `g r`. Where GPT-2's embeddings are its output map, an adapter on them
    /// is one on that too, which PEFT has apart.
    ///
    /// # Errors
    /// When the factors' shapes do not multiply, or a value is not finite, with the module.
    pub fn fold(&self, fold: Fold) -> Result<Self, AdapterError> {
        let mut modules: BTreeMap<String, AdaptedModule> = BTreeMap::new();
        for (name, module) in &self.modules {
            let values = module.values.fold(fold).map_err(|source| LayerError {
                path: name.clone(),
                source,
            })?;
            let embedding = module.embedding;
            modules.insert(name.clone(), AdaptedModule { values, embedding });
        }
        let mut config = self.config.clone();
        let [_, output] = TIED;
        let had_output = modules.contains_key(output);
        if config.peft_type == PeftType::MtLora {
            as_peft_has_them(&mut modules, config.tie_word_embeddings);
        }
        if modules.contains_key(output) && !had_output {
            config.target_modules = config.target_modules.map(|targets| match targets {
                TargetModules::Names(mut names) => {
                    names.push(output.to_string());
                    TargetModules::Names(names)
                }
                TargetModules::Pattern(pattern) => {
                    TargetModules::Pattern(format!("(?:{pattern})|{output}"))
                }
                TargetModules::AllLinear => TargetModules::AllLinear,
            });
        }
        Ok(Self {
            config: config.describing(&modules),
            modules,
            saved: self.saved.clone(),
            path: self.path.clone(),
        })
    }

    /// The adapter in another structure, whose `T` starts as the identity, so that the update is the
    /// same; None where its own `T` is in the way. `dropout` is that of further training.
    pub fn in_structure(mut self, structure: Structure, dropout: f64) -> Option<Self> {
        let mut modules = BTreeMap::new();
        for (name, module) in std::mem::take(&mut self.modules) {
            let mut values = module.values.in_structure(structure)?;
            values.form.dropout = dropout;
            modules.insert(name, AdaptedModule { values, ..module });
        }
        self.modules = modules;
        Some(self)
    }

    /// The adapter without a task's head.
    pub fn without_head(mut self) -> Self {
        self.saved.retain(|name, _| !name.starts_with(HEAD));
        self
    }

    /// How many values the adapter has, the tensors that were trained themselves included.
    pub fn num_params(&self) -> usize {
        let modules = self.modules.values().map(|module| &module.values);
        let factors = modules.flat_map(|values| {
            let square = [values.c.as_ref(), values.d.as_ref()];
            [Some(&values.a), Some(&values.b)].into_iter().chain(square)
        });
        let all = factors.flatten().chain(self.saved.values());
        all.map(|data| data.num_elements()).sum()
    }

    /// Outputs of the trained head, if there is one.
    pub fn num_labels(&self) -> Option<usize> {
        let weights = ["classifier.out_proj.weight", "classifier.weight"];
        let weight = weights.iter().find_map(|name| self.saved.get(*name))?;
        weight.shape().first().copied()
    }

    /// `model`, frozen, with this adapter on it and the trained tensors in it. What the adapter brings
    /// trains, and so do the modules that `also` names (paths, or endings of them).
    ///
    /// # Errors
    /// When a module or tensor has no place in the model or another shape, or one that the adapter
    /// should have is missing.
    pub fn attach<M: Module>(
        &self,
        model: M,
        layout: &impl CheckpointLayout,
        also: &[String],
    ) -> Result<M, AdapterError> {
        let places = Places::new(&model, layout, self);
        let tied = !places.tensors.keys().any(|name| is_output_map(name));
        let own = self.own_modules(tied)?;
        let mut adapters = BTreeMap::new();
        let mut strangers = Vec::new();
        for (name, module) in &own {
            match places.modules.get(name.as_str()) {
                Some(slot) if (slot.kind == Kind::Embedding) == module.embedding => {
                    let path = slot.path.trim_end_matches(".weight").to_string();
                    adapters.insert(path, module.values.clone());
                }
                _ => strangers.push((*name).clone()),
            }
        }
        if !strangers.is_empty() {
            return Err(AdapterError::NoModule {
                path: self.path.clone(),
                names: strangers,
            });
        }
        self.check_targets(&places)?;
        let (values, mut trained) = self.saved_values(&places, layout)?;
        trained.extend(also.iter().cloned());
        let model = attach_adapters(model, adapters, &trained)?;
        Ok(load_state(model, values)?)
    }

    /// An error if the configuration targets a module of the model that has no tensors.
    fn check_targets(&self, places: &Places) -> Result<(), AdapterError> {
        if self.config.target_modules.is_none() {
            return Ok(());
        }
        let candidates: Vec<Candidate<'_>> = places
            .modules
            .iter()
            .map(|(name, slot)| Candidate {
                name,
                linear: slot.kind == Kind::Linear,
            })
            .collect();
        let mut without: Vec<&str> = self
            .config
            .targets(&self.path.with_file_name(ADAPTER_CONFIG_FILE), &candidates)?
            .into_iter()
            .filter(|name| !self.modules.contains_key(*name))
            .collect();
        without.sort_unstable();
        if without.is_empty() {
            return Ok(());
        }
        let message = format!(
            "has no adapter for {}, which adapter_config.json targets",
            listed(&without)
        );
        Err(AdapterError::contradiction(&self.path, message))
    }

    /// The trained tensors by Burn's paths and in its layout, and the paths.
    fn saved_values(
        &self,
        places: &Places,
        layout: &impl CheckpointLayout,
    ) -> Result<(State, Vec<String>), AdapterError> {
        let mut values = State::new();
        let tied = !places.tensors.keys().any(|name| is_output_map(name));
        for (name, data) in &self.saved {
            let module = name.strip_suffix(".weight").unwrap_or(name);
            let of_both = module == TIED[0] || module == BARE_EMBEDDINGS;
            let absent = layout.foreign(name) && !places.tensors.contains_key(name.as_str());
            if absent || (tied && of_both) {
                return Err(AdapterError::unsupported(
                    &self.path,
                    format!("training {} itself", shown(name)),
                    MERGE,
                ));
            }
            let Some(slot) = places.tensors.get(name.as_str()) else {
                return Err(ModelError::UnexpectedTensors {
                    path: self.path.clone(),
                    names: vec![name.clone()],
                }
                .into());
            };
            let (expected, found) = (slot.stored_shape(), data.shape().to_vec());
            if expected != found {
                return Err(ModelError::WrongShape {
                    path: self.path.clone(),
                    name: name.clone(),
                    expected,
                    found,
                }
                .into());
            }
            let data = match slot.transposed {
                false => data.clone(),
                true => {
                    let stored: Vec<f32> = data.iter::<f32>().collect();
                    let turned = transpose(&stored, slot.shape[1], slot.shape[0]);
                    TensorData::new(turned, slot.shape.clone())
                }
            };
            values.insert(slot.path.clone(), data);
        }
        // A module that was saved was saved whole.
        let half = places.tensors.iter().find(|(name, slot)| {
            let module = name.rsplit_once('.').map_or("", |(module, _)| module);
            let sibling = |other: &String| {
                self.config.modules_to_save.iter().any(|saved| {
                    let inside = |name: &str| {
                        name.starts_with(&format!("{saved}."))
                            || name.contains(&format!(".{saved}."))
                    };
                    inside(name) && inside(other)
                })
            };
            !values.contains_key(&slot.path)
                && self.config.saves(module)
                && self.saved.keys().any(sibling)
        });
        if let Some((name, _)) = half {
            return Err(ModelError::MissingTensors {
                path: self.path.clone(),
                names: vec![name.clone()],
            }
            .into());
        }
        let paths = values.keys().cloned().collect();
        Ok((values, paths))
    }
}

/// What the names of a head's tensors begin with.
const HEAD: &str = "classifier.";

/// A model's weights that can be adapted, and all its tensors, by the names that the adapter gives
/// them: without the model's prefix, where it was trained on a model without head.
struct Places {
    modules: BTreeMap<String, Slot>,
    tensors: HashMap<String, Slot>,
}

impl Places {
    fn new<M: Module>(model: &M, layout: &impl CheckpointLayout, adapter: &PeftAdapter) -> Self {
        let prefix = layout.prefix();
        let bare = !adapter.modules.keys().any(|name| name.starts_with(&prefix));
        let mut places = Self {
            modules: BTreeMap::new(),
            tensors: HashMap::new(),
        };
        for slot in slots(model, layout) {
            let name = layout.stored_name(&slot.path);
            let name = match name.strip_prefix(&prefix) {
                Some(rest) if bare => rest.to_string(),
                _ => name,
            };
            if slot.kind != Kind::Other
                && let Some(module) = name.strip_suffix(".weight")
            {
                places.modules.insert(module.to_string(), slot.clone());
            }
            places.tensors.insert(name, slot);
        }
        places
    }
}

impl AdapterConfig {
    /// With rank, alpha, dropout, structure and kind of the modules.
    pub(super) fn describing(mut self, modules: &BTreeMap<String, AdaptedModule>) -> Self {
        let plain = |module: &AdaptedModule| {
            module.values.form.structure == Structure::Lora && module.values.form.fused.is_empty()
        };
        let forms = || modules.values().map(|module| &module.values.form);
        self.structure = forms()
            .next()
            .map_or(Structure::Lora, |form| form.structure);
        self.lora_dropout = forms().map(|form| form.dropout).fold(0.0, f64::max);
        let [embeddings, output] = TIED.map(|name| modules.get(name));
        let tied = self.tie_word_embeddings && embeddings.is_some() && output.is_none();
        let turned = output.is_some_and(|module| module.embedding);
        self.peft_type = match modules.values().all(plain) && !tied && !turned {
            true => PeftType::Lora,
            false => PeftType::MtLora,
        };
        let ranks: BTreeMap<&String, usize> = modules
            .iter()
            .map(|(name, module)| (name, module.values.rank()))
            .collect();
        self.r = commonest(ranks.values().copied()).unwrap_or(self.r);
        let alphas: BTreeMap<&String, f64> = modules
            .iter()
            .map(|(name, module)| (name, self.alpha(ranks[name], module.values.form.scale)))
            .collect();
        let usual = commonest(alphas.values().map(|alpha| alpha.to_bits()));
        self.lora_alpha = usual.map_or(self.lora_alpha, f64::from_bits);
        let rank_pattern = ranks.iter().filter(|(_, rank)| **rank != self.r);
        self.rank_pattern = rank_pattern
            .map(|(name, rank)| (name.to_string(), *rank))
            .collect();
        let alpha_pattern = alphas
            .iter()
            .filter(|(_, alpha)| **alpha != self.lora_alpha);
        self.alpha_pattern = alpha_pattern
            .map(|(name, alpha)| (name.to_string(), *alpha))
            .collect();
        let last = |name: &str| name.rsplit('.').next().unwrap_or(name).to_string();
        let mut fused: Vec<FusedProjections> = Vec::new();
        for (name, module) in modules {
            let adapted = &module.values.form.fused;
            let same = |(other, module): (&String, &AdaptedModule)| {
                last(other) != last(name) || module.values.form.fused == *adapted
            };
            // By the last name where that says it, else by the whole.
            let module = match modules.iter().all(same) {
                true => last(name),
                false => name.clone(),
            };
            if !adapted.is_empty() && !fused.iter().any(|known| known.module == module) {
                let adapted = adapted.clone();
                fused.push(FusedProjections { module, adapted });
            }
        }
        self.fused_projections = fused;
        self
    }
}

/// The value that occurs most often; of several the largest.
fn commonest<T: Ord + Copy>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut counts: BTreeMap<T, usize> = BTreeMap::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    let most = counts
        .into_iter()
        .max_by_key(|(value, count)| (*count, *value));
    most.map(|(value, _)| value)
}

/// The fused projections of the module of this name.
fn fused(all: &[FusedProjections], name: &str) -> Vec<bool> {
    let means = |fused: &&FusedProjections| {
        let rest = name.strip_suffix(&fused.module);
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    // The longest name is the one that says it best.
    let best = all
        .iter()
        .filter(means)
        .max_by_key(|fused| fused.module.len());
    best.map(|fused| fused.adapted.clone()).unwrap_or_default()
}

impl Factors {
    fn assemble(self, form: AdapterForm, rank: usize) -> Result<AdaptedModule, String> {
        if self.linear && self.embedding {
            return Err("has factors of a linear layer and of an embedding".to_string());
        }
        let needed =
            |data: Option<TensorData>, letter| data.ok_or(format!("lora_{letter} is missing"));
        let (a, b) = (needed(self.a, 'A')?, needed(self.b, 'B')?);
        let structure = form.structure;
        for (letter, there, wanted) in [
            ('C', self.c.is_some(), structure.has_c()),
            ('D', self.d.is_some(), structure.has_d()),
        ] {
            if there != wanted {
                let is = if there { "is there" } else { "is missing" };
                return Err(format!("lora_{letter} {is}, with structure {structure}"));
            }
        }
        let side = form.groups().saturating_mul(rank);
        let square = |data: &Option<TensorData>| {
            data.as_ref()
                .is_none_or(|data| data.shape().to_vec() == [side, side])
        };
        let (rows, columns) = (a.shape().to_vec(), b.shape().to_vec());
        if rows.len() != 2 || columns.len() != 2 || rows[0] != side || columns[1] != rank {
            return Err(format!(
                "its lora_A is {rows:?} and its lora_B {columns:?}, where the rank is {rank}"
            ));
        }
        if !square(&self.c) || !square(&self.d) {
            return Err(format!("its lora_C or lora_D is not [{side}, {side}]"));
        }
        Ok(AdaptedModule {
            values: AdapterValues {
                a,
                b,
                c: self.c,
                d: self.d,
                form,
            },
            embedding: self.embedding,
        })
    }
}

/// Module, factor and whether it is an embedding's, of a factor's key without the prefix.
fn split(name: &str) -> Option<(&str, char, bool)> {
    for letter in ['A', 'B', 'C', 'D'] {
        if let Some(module) = name.strip_suffix(&format!(".lora_{letter}.weight")) {
            return Some((module, letter, false));
        }
        if let Some(module) = name.strip_suffix(&format!(".lora_embedding_{letter}")) {
            return Some((module, letter, true));
        }
    }
    None
}

/// A factor's key.
pub(super) fn factor_key(module: &str, letter: char, embedding: bool) -> String {
    match embedding {
        false => format!("{PREFIX}{module}.lora_{letter}.weight"),
        true => format!("{PREFIX}{module}.lora_embedding_{letter}"),
    }
}

/// A trained tensor's key.
pub(super) fn saved_key(name: &str) -> String {
    format!("{PREFIX}{name}")
}

/// An error if a tensor that is no factor is not one of `modules_to_save` either.
fn check_saved(config: &AdapterConfig, path: &Path, name: &str) -> Result<(), AdapterError> {
    let module = name.rsplit_once('.').map_or("", |(module, _)| module);
    let refused = |what: String, hint| Err(AdapterError::unsupported(path, what, hint));
    let merge = MERGE;
    if name.contains("lora_magnitude_vector") {
        return refused("DoRA (`lora_magnitude_vector`)".to_string(), merge);
    }
    // PEFT saves embeddings and output map whole where it adapts one of them, or the vocabulary has grown.
    let of_tied = TIED.contains(&module.trim_end_matches(".base_layer"));
    let of_base = || {
        let what = format!("an adapter that brings its base's tensor {}", shown(name));
        refused(what, if of_tied { KEEP_TIED_BASE } else { KEEP_BASE })
    };
    if name.contains(".base_layer.") {
        return of_base();
    }
    if name.contains("lora_") {
        let what = format!("an adapter with the tensor {}", shown(name));
        return refused(what, merge);
    }
    // With `ensure_weight_tying`, PEFT names only the embeddings and writes both.
    let [embeddings, output] = TIED;
    if config.saves(module) || (module == output && config.saves(embeddings)) {
        return Ok(());
    }
    if of_tied || module.ends_with(".word_embeddings") {
        return of_base();
    }
    let message = format!(
        "has the tensor {}, which is no adapter's and in none of `modules_to_save`",
        shown(name)
    );
    Err(AdapterError::contradiction(path, message))
}

fn tensor(checkpoint: &Checkpoint, key: &str) -> Result<TensorData, ModelError> {
    let (shape, values) = checkpoint.read_f32(key)?;
    Ok(TensorData::new(values, shape))
}

/// Writes an adapter's folder.
pub(super) fn write_files(
    folder: &Path,
    config: &AdapterConfig,
    tensors: Vec<(String, &TensorData)>,
) -> Result<(), ModelError> {
    let tensors = tensors.into_iter().map(|(key, data)| {
        let values: Vec<f32> = data.iter::<f32>().collect();
        (key, data.shape().to_vec(), Cow::Owned(values))
    });
    // The configuration is written first, so that a killed program never leaves weights without one.
    write_atomically(
        &folder.join(ADAPTER_CONFIG_FILE),
        config.to_json().as_bytes(),
    )?;
    write_checkpoint(&folder.join(ADAPTER_WEIGHTS_FILE), tensors)
}

/// The modules under which every tensor of the model is one of `trained`, the topmost of each.
pub(super) fn whole_modules(trained: &BTreeSet<String>, all: &[String]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for name in trained {
        let ancestors = name.match_indices('.').map(|(at, _)| &name[..at]);
        let whole = |module: &&str| {
            let inside = format!("{module}.");
            let mut tensors = all.iter().filter(|name| name.starts_with(&inside));
            tensors.all(|name| trained.contains(name))
        };
        if let Some(module) = ancestors.into_iter().find(whole)
            && !found.iter().any(|known| known == module)
        {
            found.push(module.to_string());
        }
    }
    found
}

//! An adapter's folder in memory, by Hugging Face's names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::TensorData;
use mtlora_core::{AdapterMethod, AdapterValues, Fold, LayerError};

use super::config::{AdapterConfig, PeftType, TargetModules};
use super::error::AdapterError;
use super::keys::{factor_key, saved_key};
use super::tied::{TIED, as_peft_has_them};
use super::write::write_files;
use crate::error::ModelError;
use crate::files::checkpoint::Checkpoint;
use crate::files::names::{ADAPTER_CONFIG_FILE, ADAPTER_PICKLE_FILE, ADAPTER_WEIGHTS_FILE};
use crate::files::save::create_folder;

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
/// use mtlora_models::{CausalConfig, CausalLm, PeftAdapter};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // Theirs, here.
/// let device = Device::flex();
/// let config = CausalConfig::from_folder(Path::new("gpt2"))?;
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

    /// Writes the folder's two files, each complete or not there. The folder is made if it does not exist.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn write(&self, folder: &Path) -> Result<(), ModelError> {
        create_folder(folder)?;
        let mut tensors: Vec<(String, TensorData)> = Vec::new();
        for (name, module) in &self.modules {
            let method = module.values.form.method;
            for (factor, data) in module.values.factors() {
                if let Some(factor) = method.factor(factor) {
                    let shape = factor.shape_in_files(data.shape().to_vec());
                    let key = factor_key(name, factor, module.embedding);
                    tensors.push((key, reshaped(data, shape)));
                }
            }
        }
        for (name, data) in &self.saved {
            tensors.push((saved_key(name), data.clone()));
        }
        write_files(folder, &self.config, tensors)
    }

    /// The same update as plain LoRA, which PEFT can read. `T` is folded into the factors, and `g` fused projections
    /// of rank `r` become one LoRA of rank `g r`. If GPT-2's token embedding is also its output map, an adapter on it
    /// becomes one adapter on each, because PEFT treats them separately.
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

    /// The adapter in another method, whose `T` starts as the identity, so that the update is the
    /// same; `None` where its own `T` is in the way. `dropout` is that of further training.
    pub fn in_method(mut self, method: impl Into<AdapterMethod>, dropout: f64) -> Option<Self> {
        let method = method.into();
        let mut modules = BTreeMap::new();
        for (name, module) in std::mem::take(&mut self.modules) {
            let mut values = module.values.in_method(method)?;
            values.form.dropout = dropout;
            modules.insert(name, AdaptedModule { values, ..module });
        }
        self.config = self.config.describing(&modules);
        self.modules = modules;
        Some(self)
    }

    /// The adapter with the configuration that describes its modules.
    pub(crate) fn described(mut self) -> Self {
        self.config = self.config.describing(&self.modules);
        self
    }

    /// The adapter without a task's head.
    pub fn without_head(mut self) -> Self {
        self.saved.retain(|name, _| !name.starts_with(HEAD));
        self
    }

    /// How many values the adapter has, the tensors that were trained themselves included.
    pub fn num_params(&self) -> usize {
        let modules = self.modules.values().map(|module| &module.values);
        let factors = modules.flat_map(|values| values.factors().map(|(_, data)| data));
        let all = factors.chain(self.saved.values());
        all.map(|data| data.num_elements()).sum()
    }

    /// Outputs of the trained head, if there is one.
    pub fn num_labels(&self) -> Option<usize> {
        let weights = ["classifier.out_proj.weight", "classifier.weight"];
        let weight = weights.iter().find_map(|name| self.saved.get(*name))?;
        weight.shape().first().copied()
    }
}

/// The same values in another shape of as many.
pub(super) fn reshaped(data: &TensorData, shape: Vec<usize>) -> TensorData {
    let (bytes, _, dtype) = data.clone().into_parts();
    TensorData::from_bytes(bytes, shape, dtype)
}

/// What the names of a head's tensors begin with.
const HEAD: &str = "classifier.";

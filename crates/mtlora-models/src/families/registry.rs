//! The families that models are looked up in.

use std::path::Path;

use super::causal::CausalConfig;
use super::classifier::ClassifierConfig;
use super::config_file::ConfigFile;
use super::deberta::DebertaFamily;
use super::distilbert::DistilBertFamily;
use super::encoder::EncoderFamily;
use super::family::{DefaultTargets, ModelFamily};
use super::gpt2::Gpt2Family;
use super::llama::LlamaFamily;
use super::masked_lm::MaskedLmConfig;
use super::sizes::ModelSizes;
use crate::error::ModelError;

/// The families that models are looked up in, by the `model_type` in their config.json.
///
/// A family of your own is added with [`Self::with`]; crates/mtlora-train/tests/toy_family.rs has a whole one.
#[derive(Debug)]
pub struct ModelFamilies {
    families: Vec<Box<dyn ModelFamily>>,
}

/// The configuration of a model of any kind.
#[derive(Clone, Debug)]
pub enum ModelConfig {
    /// An encoder with a classification head, or one that can be given such a head.
    Classifier(ClassifierConfig),
    /// A causal language model.
    Causal(CausalConfig),
}

impl ModelFamilies {
    /// The families of this crate: RoBERTa (with XLM-RoBERTa and CamemBERT) and BERT, DeBERTa v2 and v3, DistilBERT, GPT-2,
    /// and Llama-style decoders.
    pub fn builtin() -> Self {
        Self {
            families: vec![
                Box::new(EncoderFamily),
                Box::new(DebertaFamily),
                Box::new(DistilBertFamily),
                Box::new(Gpt2Family),
                Box::new(LlamaFamily),
            ],
        }
    }

    /// The same with one more family. Where two read the same `model_type`, the one that was added last does.
    pub fn with(mut self, family: impl ModelFamily + 'static) -> Self {
        self.families.push(Box::new(family));
        self
    }

    /// Reads the configuration of a model folder, of whichever kind the model is.
    ///
    /// # Errors
    /// No folder, no config.json, a `model_type` of no family, a field missing or out of range. Each names the file and
    /// the field.
    pub fn open(&self, folder: &Path) -> Result<ModelConfig, ModelError> {
        let file = ConfigFile::open(folder)?;
        let family = self.family(&file.model_type()?);
        if let Some(causal) = family.and_then(ModelFamily::causal) {
            return Ok(ModelConfig::Causal(causal.read(&file)?));
        }
        if let Some(classifier) = family.and_then(ModelFamily::classifier) {
            return Ok(ModelConfig::Classifier(classifier.read(&file)?));
        }
        Err(file.unsupported(self.model_types(|_| true)))
    }

    /// Reads the configuration of a folder whose model can have a classification head.
    ///
    /// # Errors
    /// As [`Self::open`]; a model of another kind.
    pub fn classifier(&self, folder: &Path) -> Result<ClassifierConfig, ModelError> {
        let file = ConfigFile::open(folder)?;
        let family = self.family(&file.model_type()?);
        match family.and_then(ModelFamily::classifier) {
            Some(classifier) => classifier.read(&file),
            None => Err(file.unsupported(self.model_types(|one| one.classifier().is_some()))),
        }
    }

    /// Reads the configuration of a folder with a causal language model.
    ///
    /// # Errors
    /// As [`Self::open`]; a model of another kind.
    pub fn causal(&self, folder: &Path) -> Result<CausalConfig, ModelError> {
        let file = ConfigFile::open(folder)?;
        let family = self.family(&file.model_type()?);
        match family.and_then(ModelFamily::causal) {
            Some(causal) => causal.read(&file),
            None => Err(file.unsupported(self.model_types(|one| one.causal().is_some()))),
        }
    }

    /// The configuration of a new masked language model with these sizes.
    ///
    /// # Errors
    /// When no family makes such models of this type, or a size is out of range.
    pub fn new_masked_lm(
        &self,
        model_type: &str,
        sizes: &ModelSizes,
    ) -> Result<MaskedLmConfig, ModelError> {
        match self.family(model_type).and_then(ModelFamily::masked_lm) {
            Some(family) => family.with_sizes(model_type, sizes),
            None => Err(self.unknown(model_type, |one| one.masked_lm().is_some())),
        }
    }

    /// The configuration of a new causal language model with these sizes.
    ///
    /// # Errors
    /// When no family makes such models of this type, or a size is out of range.
    pub fn new_causal(
        &self,
        model_type: &str,
        sizes: &ModelSizes,
    ) -> Result<CausalConfig, ModelError> {
        match self.family(model_type).and_then(ModelFamily::causal) {
            Some(family) => family.with_sizes(model_type, sizes),
            None => Err(self.unknown(model_type, |one| one.causal().is_some())),
        }
    }

    /// The names of the models whose sizes are published.
    pub fn published_names(&self) -> impl Iterator<Item = &'static str> {
        let all = self.families.iter().flat_map(|family| family.published());
        all.map(|model| model.name)
    }

    /// The configuration of the model whose sizes are published by this name, if there is one.
    ///
    /// # Errors
    /// When the sizes are out of range.
    pub fn published(&self, name: &str) -> Result<Option<ModelConfig>, ModelError> {
        for family in &self.families {
            let Some(model) = family.published().iter().find(|model| model.name == name) else {
                continue;
            };
            if let Some(causal) = family.causal() {
                let config = causal.with_sizes(model.model_type, &model.sizes)?;
                return Ok(Some(ModelConfig::Causal(config)));
            }
            if let Some(classifier) = family.classifier() {
                let config = classifier.with_sizes(model.model_type, &model.sizes)?;
                return Ok(Some(ModelConfig::Classifier(config)));
            }
        }
        Ok(None)
    }

    /// Whether models of this type write texts.
    pub fn writes_texts(&self, model_type: &str) -> bool {
        let family = self.family(model_type);
        family.is_some_and(|family| family.causal().is_some())
    }

    /// Which weights of a model of this type an adapter is attached to if nothing else is asked for; all linear maps of
    /// an unknown one.
    pub fn default_targets(&self, model_type: &str) -> DefaultTargets {
        let family = self.family(model_type);
        family.map_or(DefaultTargets::ALL_LINEAR, ModelFamily::default_targets)
    }

    fn family(&self, model_type: &str) -> Option<&dyn ModelFamily> {
        let mut newest_first = self.families.iter().rev();
        newest_first
            .find(|family| family.model_types().contains(&model_type))
            .map(Box::as_ref)
    }

    /// The `model_type`s of the families that `wanted` accepts.
    fn model_types(&self, wanted: impl Fn(&dyn ModelFamily) -> bool) -> Vec<&'static str> {
        let wanted = self
            .families
            .iter()
            .filter(|family| wanted(family.as_ref()));
        wanted
            .flat_map(|family| family.model_types())
            .copied()
            .collect()
    }

    fn unknown(&self, model_type: &str, wanted: impl Fn(&dyn ModelFamily) -> bool) -> ModelError {
        let field = ("model_type".to_string(), model_type.into());
        ConfigFile::from_map([field].into_iter().collect()).unsupported(self.model_types(wanted))
    }
}

impl ClassifierConfig {
    /// Reads `config.json` of a model folder, of one of the [builtin](ModelFamilies::builtin) families.
    ///
    /// # Errors
    /// As [`ModelFamilies::classifier`].
    pub fn from_folder(folder: &Path) -> Result<Self, ModelError> {
        ModelFamilies::builtin().classifier(folder)
    }
}

impl CausalConfig {
    /// Reads `config.json` of a model folder, of one of the [builtin](ModelFamilies::builtin) families.
    ///
    /// # Errors
    /// As [`ModelFamilies::causal`].
    pub fn from_folder(folder: &Path) -> Result<Self, ModelError> {
        ModelFamilies::builtin().causal(folder)
    }
}

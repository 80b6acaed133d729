//! A model's configuration, of whichever family it is.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use super::text_config::TextConfig;
use crate::files::weights::CheckpointLayout;

/// The configuration of a model whose family is only known at run time: `C` is a trait object, such as
/// [`dyn CausalModelConfig`](crate::CausalModelConfig). Clones share it.
pub struct ConfigHandle<C: ?Sized>(Arc<C>);

impl<C: ?Sized> ConfigHandle<C> {
    pub(super) fn new(config: Arc<C>) -> Self {
        Self(config)
    }
}

impl<C: ?Sized> Clone for ConfigHandle<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C: ?Sized + fmt::Debug> fmt::Debug for ConfigHandle<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<C: ?Sized> Deref for ConfigHandle<C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.0
    }
}

impl<C: ?Sized + TextConfig> TextConfig for ConfigHandle<C> {
    fn model_type(&self) -> &str {
        self.0.model_type()
    }

    fn tokenizer_class(&self) -> Option<&str> {
        self.0.tokenizer_class()
    }

    fn vocab_size(&self) -> usize {
        self.0.vocab_size()
    }

    fn max_tokens(&self) -> usize {
        self.0.max_tokens()
    }

    fn token_types(&self) -> usize {
        self.0.token_types()
    }

    fn positions(&self, ids: &[u32]) -> Vec<usize> {
        self.0.positions(ids)
    }
}

impl<C: ?Sized + CheckpointLayout> CheckpointLayout for ConfigHandle<C> {
    fn prefix(&self) -> String {
        self.0.prefix()
    }

    fn stored_name(&self, path: &str) -> String {
        self.0.stored_name(path)
    }

    fn transposes_linear(&self) -> bool {
        self.0.transposes_linear()
    }

    fn tied_names(&self, name: &str) -> &'static [&'static str] {
        self.0.tied_names(name)
    }

    fn foreign(&self, name: &str) -> bool {
        self.0.foreign(name)
    }

    fn init_std(&self, path: &str) -> f64 {
        self.0.init_std(path)
    }

    fn to_json(&self) -> String {
        self.0.to_json()
    }

    fn task_type(&self) -> &'static str {
        self.0.task_type()
    }
}

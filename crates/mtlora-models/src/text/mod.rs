//! Turns texts into token ids and back.

pub(crate) mod causal;
pub(crate) mod encoder;
pub(crate) mod long_text;
pub(crate) mod tokenizer;
pub(crate) mod vocabulary;

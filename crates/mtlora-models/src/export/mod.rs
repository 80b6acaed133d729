//! Writes an adapter for the program that serves it.
//!
//! Each reader has its own rules, and some read scales wrongly (rsLoRA, patterns of ranks and alphas). So everything that an
//! adapter's configuration could say is folded into its factors first: `T`, and the scale, which becomes 1. See
//! [`Server`] for what each program gets.

mod error;
mod llama_cpp;
mod mlx;
mod ollama;
mod peft;
mod plain;
mod server;

pub use error::ExportError;
pub use server::{ExportOptions, Exported, Server, export_adapter};

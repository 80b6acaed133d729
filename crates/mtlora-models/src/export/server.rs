//! The programs that adapters are written for.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use mtlora_core::Fold;

use super::error::ExportError;
use super::plain::PlainAdapter;
use super::{llama_cpp, mlx, ollama, peft};
use crate::adapter::PeftAdapter;
use crate::families::causal::CausalConfig;

/// A program that serves models with adapters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// Hugging Face's PEFT: a folder with `adapter_config.json` and `adapter_model.safetensors`.
    Peft,
    /// vLLM, and mistral.rs, which reads the same: such a folder with one rank for all modules and no trained heads.
    Vllm,
    /// llama.cpp: `adapter.gguf`.
    LlamaCpp,
    /// Ollama: `adapter.gguf`, and a `Modelfile` that names it and the base.
    Ollama,
    /// MLX: a folder with `adapter_config.json` and `adapters.safetensors`.
    Mlx,
}

impl Server {
    /// All of them, in the order in which flags list them.
    pub const ALL: [Server; 5] = [
        Server::Peft,
        Server::Vllm,
        Server::LlamaCpp,
        Server::Ollama,
        Server::Mlx,
    ];

    /// The lower-case name, as flags have it.
    pub fn name(self) -> &'static str {
        match self {
            Server::Peft => "peft",
            Server::Vllm => "vllm",
            Server::LlamaCpp => "llama.cpp",
            Server::Ollama => "ollama",
            Server::Mlx => "mlx",
        }
    }

    /// The name as people write it.
    pub(super) fn title(self) -> &'static str {
        match self {
            Server::Peft => "PEFT",
            Server::Vllm => "vLLM",
            Server::LlamaCpp => "llama.cpp",
            Server::Ollama => "Ollama",
            Server::Mlx => "MLX",
        }
    }

    /// Whether the base model's configuration is needed.
    pub fn needs_base(self) -> bool {
        matches!(self, Server::LlamaCpp | Server::Ollama)
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Server {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let mut all = Server::ALL.into_iter();
        all.find(|server| server.name() == s).ok_or_else(|| {
            let names = Server::ALL.map(Server::name).join(", ");
            format!("unknown program `{s}`: one of {names}")
        })
    }
}

/// How an adapter is written.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// The factor that takes up `T`.
    pub fold: Fold,
    /// The base model's configuration, where [`Server::needs_base`].
    pub base: Option<CausalConfig>,
    /// The base's name for the files; else that in the adapter's configuration.
    pub base_name: Option<String>,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// The files, of which the first is the one to give to the program.
    pub files: Vec<PathBuf>,
    /// The largest rank.
    pub rank: usize,
    /// The number of adapted modules.
    pub modules: usize,
}

/// Writes `adapter` into `folder`, which is made if it does not exist, for `server`.
///
/// # Errors
/// When the update is not plain LoRA once folded, when the program has no place for a part of it, or what the operating
/// system says.
pub fn export_adapter(
    adapter: &PeftAdapter,
    server: Server,
    options: &ExportOptions,
    folder: &Path,
) -> Result<Exported, ExportError> {
    let plain = PlainAdapter::new(adapter, server, options)?;
    let files = match server {
        Server::Peft | Server::Vllm => peft::write(&plain, folder)?,
        Server::LlamaCpp => vec![llama_cpp::write(&plain, folder)?],
        Server::Ollama => ollama::write(&plain, folder)?,
        Server::Mlx => mlx::write(&plain, folder)?,
    };
    Ok(Exported {
        files,
        rank: plain.rank(),
        modules: plain.adapter.modules.len(),
    })
}

//! Adapters on disk, in the format of Hugging Face's PEFT: `adapter_config.json` with PEFT's fields
//! and `adapter_model.safetensors` (in old folders `adapter_model.bin`) with PEFT's keys.
//!
//! An adapter whose `T` is folded in is plain LoRA, `peft_type` "LORA", which PEFT reads too, as it reads AdaLoRA,
//! `peft_type` "ADALORA". One with
//! a `T` of its own is `peft_type` "MTLORA": the same, with the further factors that its method declares (as `lora_C`)
//! beside `lora_A` and `lora_B`, and the fields `structure`, which names the method, and `fused_projections`.

mod adalora;
mod attach;
mod combine;
mod config;
mod describe;
mod error;
mod inspect;
mod keys;
mod peft;
mod read;
mod read_config;
mod select;
mod tied;
mod trained;
mod write;

pub use crate::files::names::{ADAPTER_CONFIG_FILE, ADAPTER_PICKLE_FILE, ADAPTER_WEIGHTS_FILE};
pub use adalora::AdaLoraFields;
pub use combine::CombinedAdapter;
pub use config::{AdapterConfig, PeftType, TargetModules};
pub use error::AdapterError;
pub use peft::{AdaptedModule, PeftAdapter, adapter_weights};
pub use trained::{TRAINED_FILE, TrainedFormat};

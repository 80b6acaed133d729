//! Names on the Hugging Face Hub, resolved to folders of the cache that Python uses too.
//!
//! `roberta-base` or `org/name@revision` becomes a folder like
//! `~/.cache/huggingface/hub/models--org--name/snapshots/<commit>`. What `transformers` has fetched is used here, and
//! the other way round. Requests block; a transfer that breaks off is resumed; a file gets its name when its size and
//! hash are what the Hub announced, and not before.
//!
//! ```no_run
//! use mtlora_hub::{Hub, RepoId};
//!
//! # fn main() -> Result<(), mtlora_hub::HubError> {
//! let hub = Hub::from_env()?;
//! let model: RepoId = "org/name@v1.0".parse()?;
//! let folder = hub.model(&model, &mut ())?;
//! # let _ = folder;
//! # Ok(())
//! # }
//! ```
//!
//! A repository's own files can't make this write elsewhere: every name that comes from a server or from a file that
//! it sent is checked before it becomes a path, links that lead out of the cache are not followed, and addresses get
//! the user's token only if they are on the Hub itself.

mod cache;
mod client;
mod environment;
mod error;
mod hash;
mod hub;
mod name;
mod progress;
mod snapshot;
mod transfer;

pub use environment::{DEFAULT_ENDPOINT, HubConfig};
pub use error::HubError;
pub use hub::Hub;
pub use name::{MAIN, RepoId, RepoKind};
pub use progress::Progress;
pub use snapshot::Snapshot;

//! Downloads models, adapters and data sets from the Hugging Face Hub into the cache that Python uses too, and sends
//! models and adapters there.
//!
//! A name such as `roberta-base` or `org/name@revision` resolves to a folder such as
//! `~/.cache/huggingface/hub/models--org--name/snapshots/<commit>`. What `transformers` has downloaded is used here, and
//! the other way round. Requests block. A download that breaks off is resumed, and a file gets its final name only when
//! its size and hash are the ones that the Hub announced.
//!
//! ```no_run
//! use mtlora_hub::{Hub, RepoId};
//!
//! # fn main() -> Result<(), mtlora_hub::HubError> {
//! let hub = Hub::from_env()?;
//! let model: RepoId = "org/name@v1.0".parse()?;
//! // The configuration, the tokenizer and the weights, and no other file of the repository.
//! let folder = hub.model(&model, &mut ())?;
//! println!("{}", folder.join("model.safetensors").display());
//! # Ok(())
//! # }
//! ```
//!
//! [`Hub`] has the three things to ask for: [`Hub::model`], [`Hub::adapter`] and [`Hub::dataset`]; [`Snapshot`] has a
//! repository's other files. [`HubConfig`] sets what the environment variables do not, and an implementation of
//! [`Progress`] follows the transfers.
//!
//! [`Hub::push`] sends a folder's files in one commit. They are listed and hashed first, as an [`Upload`], and nothing
//! else is sent:
//!
//! ```no_run
//! use mtlora_hub::{Hub, PushOptions, Upload};
//!
//! # fn main() -> Result<(), mtlora_hub::HubError> {
//! let files = Upload::of_folder("adapter".as_ref())?;
//! for file in files.files() {
//!     println!("{} ({} bytes)", file.name(), file.size());
//! }
//! let options = PushOptions {
//!     private: true,
//!     overwrite: false,
//!     message: "Add the adapter".to_string(),
//! };
//! let pushed = Hub::from_env()?.push(&"org/name".parse()?, &files, &options, &mut ())?;
//! println!("{}", pushed.url);
//! # Ok(())
//! # }
//! ```
//!
//! A repository's files cannot make this crate write elsewhere: every name that comes from a server or from a file of a
//! repository is checked before it becomes a path, links that lead out of the cache are not followed, and the user's
//! token goes to no server but the Hub.
//!
//! In the repository's book, `docs/task/hub.md` lists the environment variables and shows the program's use of names.

mod cache;
mod client;
mod environment;
mod error;
mod hash;
mod hub;
mod name;
mod progress;
mod push;
mod snapshot;
mod transfer;

pub use environment::{DEFAULT_ENDPOINT, HubConfig, RetryWait};
pub use error::HubError;
pub use hub::Hub;
pub use name::{RepoId, RepoKind};
pub use progress::Progress;
pub use push::{PushOptions, Pushed, Upload, UploadFile};
pub use snapshot::Snapshot;

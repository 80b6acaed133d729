//! Reading and writing model folders: tensors, pickles, configuration fields, and the names and layouts of weights.

pub(crate) mod checkpoint;
pub(crate) mod fields;
pub(crate) mod folder_notes;
pub(crate) mod names;
pub(crate) mod pickle;
pub(crate) mod read;
mod safetensors_header;
pub(crate) mod save;
pub(crate) mod stored_dtype;
pub(crate) mod tensor_values;
pub(crate) mod weights;

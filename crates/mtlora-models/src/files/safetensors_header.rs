//! The header of a safetensors file: which tensors lie where.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use safetensors::tensor::TensorInfo;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use crate::error::ModelError;
use crate::messages::shown;

/// The format's own limits: 8 bytes of header length, then a header of at most 100 MB.
pub(super) const LENGTH_BYTES: usize = 8;
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// A header's tensors, in its order. Read straight into their final form, so that a hostile header takes no more
/// memory than a few times its own size.
struct Header(Vec<(String, TensorInfo)>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tensors;

        impl<'de> Visitor<'de> for Tensors {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut tensors = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    let info = map.next_value().map_err(|error| {
                        A::Error::custom(format!("tensor {}: {error}", shown(&name)))
                    })?;
                    tensors.push((name, info));
                }
                Ok(Header(tensors))
            }
        }

        deserializer.deserialize_map(Tensors)
    }
}

/// The tensors of a safetensors file, each with its bytes' place in the file. All that the format promises is
/// checked: tensors lie end to end, as many bytes each as type and shape need, and fill the file.
///
/// The `safetensors` crate checks this too, but leaves out which tensor is wrong, and the sum of its last check can
/// overflow.
pub(super) fn read_header(
    path: &Path,
    bytes: &[u8],
) -> Result<Vec<(String, TensorInfo, Range<usize>)>, ModelError> {
    let corrupt = |message: String| ModelError::corrupt(path, message);
    let (length, rest) = bytes
        .split_first_chunk::<LENGTH_BYTES>()
        .ok_or_else(|| corrupt(format!("it ends after {} bytes", bytes.len())))?;
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER_BYTES {
        return Err(corrupt(format!(
            "its header would be {length} bytes long, but {MAX_HEADER_BYTES} are the most; this is not a safetensors file"
        )));
    }
    let (header, data) = usize::try_from(length)
        .ok()
        .and_then(|length| rest.split_at_checked(length))
        .ok_or_else(|| {
            corrupt(format!(
                "it is truncated: the header is {length} bytes long, but the file ends {} bytes after its beginning",
                rest.len()
            ))
        })?;
    let Header(mut tensors) = serde_json::from_slice(header)
        .map_err(|error| corrupt(format!("its header is wrong: {error}")))?;
    tensors.sort_by_key(|(_, info)| info.data_offsets);

    let start_of_data = bytes.len() - data.len();
    let mut position = 0;
    let mut placed = Vec::with_capacity(tensors.len());
    for (name, info) in tensors {
        let (begin, end) = info.data_offsets;
        if begin != position || end < begin {
            return Err(corrupt(format!(
                "tensor {} is said to be at bytes {begin} to {end} of the data, but the one before it ends at {position}",
                shown(&name)
            )));
        }
        let bits = info
            .shape
            .iter()
            .try_fold(info.dtype.bitsize(), |bits, &size| bits.checked_mul(size));
        if bits.is_none_or(|bits| !bits.is_multiple_of(8) || bits / 8 != end - begin) {
            return Err(corrupt(format!(
                "tensor {} has {} bytes, which is not what type {} and shape {} need",
                shown(&name),
                end - begin,
                info.dtype,
                shown(&format!("{:?}", info.shape))
            )));
        }
        if end > data.len() {
            return Err(corrupt(format!(
                "it is truncated: tensor {} ends at byte {end} of the data, of which there are {}",
                shown(&name),
                data.len()
            )));
        }
        position = end;
        placed.push((name, info, start_of_data + begin..start_of_data + end));
    }
    if position != data.len() {
        return Err(corrupt(format!(
            "the header accounts for {position} bytes of data, but there are {}",
            data.len()
        )));
    }
    Ok(placed)
}

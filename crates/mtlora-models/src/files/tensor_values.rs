//! The values of a tensor that is written to a file.

use std::borrow::Cow;
use std::fmt;

/// Values that are there, or that are made when their turn comes to be written, so that not all of a model is there in full.
pub(crate) enum TensorValues<'a> {
    /// They are there.
    Ready(Cow<'a, [f32]>),
    /// They are made each time that they are asked for, and are the same each time.
    Made(Box<dyn Fn() -> Vec<f32> + 'a>),
}

impl TensorValues<'_> {
    /// The values.
    pub(crate) fn get(&self) -> Cow<'_, [f32]> {
        match self {
            TensorValues::Ready(values) => Cow::Borrowed(values),
            TensorValues::Made(make) => Cow::Owned(make()),
        }
    }
}

impl fmt::Debug for TensorValues<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TensorValues::Ready(_) => "values",
            TensorValues::Made(_) => "values to be made",
        })
    }
}

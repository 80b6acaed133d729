//! What a shell offers its users about the program: completions and manual pages.

pub(crate) mod completions;
pub(crate) mod man;

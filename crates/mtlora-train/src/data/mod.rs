//! Reads examples from text files, tables and Parquet files. This module does not depend on tasks.

pub(crate) mod error;
pub(crate) mod example;
pub(crate) mod fingerprint;
pub(crate) mod held_back;
pub(crate) mod json_row;
pub(crate) mod parquet_rows;
pub(crate) mod python;
pub(crate) mod rows;
pub(crate) mod table_file;
pub(crate) mod text_file;

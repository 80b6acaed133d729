//! Reads single columns of Parquet files, row by row.

use std::fmt::Display;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::types::Type;

use crate::data::error::DataError;

/// Calls `each` for every row of a Parquet file with the row's number, counted from 1, and the values of these columns
/// in this order.
///
/// # Errors
/// If the file is missing, damaged or not Parquet, or if it lacks a column; also the errors of `each`.
pub(crate) fn each_row(
    path: &Path,
    columns: &[&str],
    mut each: impl FnMut(usize, &[Field]) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let wrong = |row: usize, error: &dyn Display| {
        DataError::row(
            path,
            row,
            format!("cannot be read as Parquet: {error}; download the file again"),
        )
    };
    let file = File::open(path).map_err(|error| DataError::io(path, error))?;
    let reader = guarded(|| SerializedFileReader::new(file)).map_err(|error| wrong(0, &error))?;
    let schema = reader.metadata().file_metadata().schema();
    let mut fields: Vec<Arc<Type>> = Vec::new();
    for column in columns {
        let found = schema
            .get_fields()
            .iter()
            .find(|field| field.name() == *column);
        let field = found.ok_or_else(|| DataError::UnknownColumn {
            path: path.to_path_buf(),
            line: 0,
            column: column.to_string(),
            header: schema
                .get_fields()
                .iter()
                .map(|field| field.name().to_string())
                .collect(),
        })?;
        fields.push(field.clone());
    }
    let wanted = Type::group_type_builder(schema.name())
        .with_fields(fields)
        .build()
        .map_err(|error| wrong(0, &error))?;
    let mut rows =
        guarded(|| reader.get_row_iter(Some(wanted))).map_err(|error| wrong(0, &error))?;
    for number in 1.. {
        let row = guarded(|| rows.next().transpose()).map_err(|error| wrong(number, &error))?;
        let Some(row) = row else {
            break;
        };
        let mut named = row.into_columns();
        let mut values = Vec::with_capacity(columns.len());
        for column in columns {
            let at = named.iter().position(|(name, _)| name == column);
            values.push(at.map_or(Field::Null, |at| named.swap_remove(at).1));
        }
        each(number, &values)?;
    }
    Ok(())
}

/// Runs the Parquet library on an untrusted file and turns a panic into an error: the library panics on some damaged
/// files (apache/arrow-rs, issue 9742). A reader that panicked must not be used again.
fn guarded<T, E: Display>(run: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("the file is inconsistent".to_string()),
    }
}

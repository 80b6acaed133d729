//! Writes TensorBoard's event files. A file is a sequence of records. Each record has the length of its data (8 bytes,
//! little-endian), a checksum of the length, the data, and a checksum of the data. The checksum is the masked CRC-32C
//! of TensorFlow's `record_writer.cc`. The data is a protocol-buffer `Event` (`tensorflow/core/util/event.proto`), of
//! which four fields are used.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::time::{SystemTime, UNIX_EPOCH};

use mtlora_models::ModelError;

use crate::metrics::labels::Scores;
use crate::training::error::FitError;
use crate::training::observer::StepReport;

/// The prefix by which TensorBoard recognizes event files.
const PREFIX: &str = "events.out.tfevents.";
/// The fields of `Event`.
const WALL_TIME: u32 = 1;
const STEP: u32 = 2;
const FILE_VERSION: u32 = 3;
const SUMMARY: u32 = 5;
const SESSION_LOG: u32 = 7;

/// Writes the curves of a run for TensorBoard: `train/loss`, `train/learning_rate`, `train/epoch`, for AdaLoRA
/// `train/rank_budget`, and `dev/...` for each metric.
pub struct EventWriter {
    path: PathBuf,
    file: File,
}

impl EventWriter {
    /// Creates a new file in `folder`, for a training that starts, or that resumes after `step` steps. TensorBoard then
    /// discards the records of later steps in the other files of the folder.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn create(folder: &Path, step: usize) -> Result<Self, FitError> {
        let goes_on = step > 0 || !event_files(folder)?.is_empty();
        let seconds = now() as u64;
        let mut number = 0;
        let (path, file) = loop {
            let name = format!("{PREFIX}{seconds}.mtlora.{}.{number}", process::id());
            let path = folder.join(name);
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => break (path, file),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(ModelError::write(&path, error).into()),
            }
        };
        let mut writer = Self { path, file };
        writer.write(0, |event| event.bytes(FILE_VERSION, b"brain.Event:2"))?;
        if goes_on {
            // `SessionLog` with the status START.
            let mut start = Message::default();
            start.varint(1, 1);
            writer.write(step + 1, |event| event.bytes(SESSION_LOG, &start.0))?;
        }
        Ok(writer)
    }

    /// Writes the curves of a training step.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn step(&mut self, report: &StepReport) -> Result<(), FitError> {
        let values = [
            ("train/loss".to_string(), report.loss),
            ("train/learning_rate".to_string(), report.learning_rate),
            ("train/epoch".to_string(), report.epoch),
        ];
        let budget = report.rank_budget;
        let budget = budget.map(|budget| ("train/rank_budget".to_string(), budget as f64));
        self.scalars(report.step, values.into_iter().chain(budget))
    }

    /// Writes the metrics of an evaluation after `step` steps.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn evaluated(&mut self, step: usize, scores: &Scores) -> Result<(), FitError> {
        let values = scores.iter();
        self.scalars(
            step,
            values.map(|(name, value)| (format!("dev/{name}"), value)),
        )
    }

    fn scalars(
        &mut self,
        step: usize,
        values: impl IntoIterator<Item = (String, f64)>,
    ) -> Result<(), FitError> {
        let mut summary = Message::default();
        for (tag, value) in values {
            let mut one = Message::default();
            one.bytes(1, tag.as_bytes());
            one.float(2, value as f32);
            summary.bytes(1, &one.0);
        }
        self.write(step, |event| event.bytes(SUMMARY, &summary.0))
    }

    fn write(&mut self, step: usize, what: impl FnOnce(&mut Message)) -> Result<(), FitError> {
        let mut event = Message::default();
        event.double(WALL_TIME, now());
        event.varint(STEP, step as u64);
        what(&mut event);
        self.file
            .write_all(&record(&event.0))
            .map_err(|error| ModelError::write(&self.path, error).into())
    }
}

/// Removes the event files of an older run in `folder`.
pub(crate) fn remove_event_files(folder: &Path) -> Result<(), FitError> {
    for path in event_files(folder)? {
        fs::remove_file(&path).map_err(|error| ModelError::write(&path, error))?;
    }
    Ok(())
}

/// Whether the folder has event files.
pub(crate) fn has_event_files(folder: &Path) -> bool {
    event_files(folder).is_ok_and(|files| !files.is_empty())
}

fn event_files(folder: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let at = |error| ModelError::write(folder, error);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(at)? {
        let entry = entry.map_err(at)?;
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// The seconds since 1970.
fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}

fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut bytes = Vec::with_capacity(data.len() + 16);
    bytes.extend(length);
    bytes.extend(masked(&length).to_le_bytes());
    bytes.extend(data);
    bytes.extend(masked(data).to_le_bytes());
    bytes
}

/// TensorFlow's masked checksum: the CRC rotated, plus a constant, so that data may itself contain checksums.
fn masked(data: &[u8]) -> u32 {
    crc32c::crc32c(data)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

/// A protocol-buffer message that is being encoded.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, field: u32, value: u64) {
        self.key(field, 0);
        self.plain(value);
    }

    fn double(&mut self, field: u32, value: f64) {
        self.key(field, 1);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u32, value: &[u8]) {
        self.key(field, 2);
        self.plain(value.len() as u64);
        self.0.extend(value);
    }

    fn float(&mut self, field: u32, value: f32) {
        self.key(field, 5);
        self.0.extend(value.to_le_bytes());
    }

    fn key(&mut self, field: u32, wire_type: u32) {
        self.plain(u64::from(field << 3 | wire_type));
    }

    fn plain(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::metrics::labels::MetricName;

    #[test]
    fn records_have_tensorflows_framing() {
        // The expected checksums are those of TensorBoard's own `masked_crc32c` for these bytes.
        assert_eq!(masked(&[]), 0xa282_ead8);
        assert_eq!(
            record(b"mtlora"),
            [
                6, 0, 0, 0, 0, 0, 0, 0, 0x73, 0x69, 0xd5, 0x37, b'm', b't', b'l', b'o', b'r', b'a',
                0x7f, 0x4f, 0xb1, 0x14
            ]
        );
    }

    #[test]
    fn an_event_is_the_protocol_buffer_of_its_fields() {
        let mut message = Message::default();
        message.varint(2, 300);
        message.bytes(1, b"ab");
        message.float(2, 1.0);
        assert_eq!(
            message.0,
            [
                0x10, 0xac, 0x02, 0x0a, 2, b'a', b'b', 0x15, 0, 0, 0x80, 0x3f
            ]
        );
    }

    #[test]
    fn each_start_creates_a_file_and_files_of_an_old_run_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let mut scores = Scores::default();
        scores.set(MetricName::Accuracy, 0.5);
        for step in [0, 7] {
            let mut writer = EventWriter::create(folder.path(), step).unwrap();
            writer.evaluated(step, &scores).unwrap();
        }
        let count = || fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(count(), 2);
        remove_event_files(folder.path()).unwrap();
        assert_eq!(count(), 0);
    }
}

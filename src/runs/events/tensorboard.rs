//! TensorBoard event files: TFRecord framing around protobuf `Event` messages.
//!
//! Framing: length (u64), masked CRC-32C of it, data, masked CRC-32C of the data, all little-endian
//! (`tensorflow/core/lib/io/record_writer.h`). Messages: `tensorflow/core/util/event.proto` and
//! `tensorflow/core/framework/summary.proto`; the few fields that are needed are encoded here by
//! hand.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use pipe_fs::Disk;
use pipe_fs::atomic::{Log, WriteError};
use serde_json::Value;

/// Writes events to one file.
pub struct EventFile(Arc<Log>);

impl EventFile {
    /// A new file in `folder`. When training goes on after `step` > 0, TensorBoard is told to
    /// forget what other files of the run say of later steps.
    pub fn create(disk: &Disk, folder: &Path, step: u64) -> Result<Self, WriteError> {
        // TensorBoard reads the files of a folder in the order of their names: a later one must
        // sort last.
        let now = chrono::Utc::now().timestamp_micros();
        let host = crate::runs::host_in_file_name();
        let name = format!("events.out.tfevents.{now:020}.{host}.{}", std::process::id());
        let mut this = Self(Arc::new(Log::create(disk, &folder.join(name))?));
        this.event(0, |event| event.text(3, "brain.Event:2"))?;
        if step > 0 {
            // SessionLog.status START: the reader drops events at or after this step.
            this.event(step + 1, |event| event.message(7, |session| session.varint(1, 1)))?;
        }
        Ok(this)
    }

    /// What is written so far, to be made durable by another thread.
    pub fn log(&self) -> Arc<Log> {
        self.0.clone()
    }

    /// Adds metrics at an optimizer step.
    pub fn scalars<'a>(
        &mut self,
        step: u64,
        values: impl IntoIterator<Item = (&'a str, f64)>,
    ) -> Result<(), WriteError> {
        self.event(step, |event| {
            event.message(5, |summary| {
                for (tag, value) in values {
                    summary.message(1, |entry| {
                        entry.text(1, tag);
                        entry.float(2, value as f32);
                    });
                }
            });
        })
    }

    /// Adds an image at an optimizer step: a PNG file's content, and its size in pixels.
    pub fn image(
        &mut self,
        step: u64,
        tag: &str,
        [width, height]: [u32; 2],
        png: &[u8],
    ) -> Result<(), WriteError> {
        self.event(step, |event| {
            event.message(5, |summary| {
                summary.message(1, |entry| {
                    entry.text(1, tag);
                    entry.message(4, |image| {
                        image.varint(1, u64::from(height));
                        image.varint(2, u64::from(width));
                        image.varint(3, 3); // RGB
                        image.bytes(4, png);
                    });
                });
            });
        })
    }

    /// Says with what settings the run is trained: for TensorBoard's table of hyperparameters, and as
    /// a text beside its curves.
    ///
    /// `tensorboard/plugins/hparams/plugin_data.proto` and `google/protobuf/struct.proto`.
    pub fn settings(
        &mut self,
        experiment: &str,
        settings: &BTreeMap<String, Value>,
    ) -> Result<(), WriteError> {
        let mut plugin = Message::default();
        plugin.message(3, |start| {
            for (key, value) in settings {
                start.message(1, |entry| {
                    entry.text(1, key);
                    entry.message(2, |held| match value {
                        Value::Number(number) => {
                            held.double(2, number.as_f64().unwrap_or_default())
                        }
                        Value::Bool(value) => held.varint(4, u64::from(*value)),
                        Value::String(text) => held.text(3, text),
                        other => held.text(3, &other.to_string()),
                    });
                });
            }
            start.text(4, experiment);
            start.double(5, chrono::Utc::now().timestamp_micros() as f64 / 1e6);
        });
        self.plugin("_hparams_/session_start_info", "hparams", &plugin.0, |tensor| {
            tensor.varint(1, 1); // DT_FLOAT, of no dimension and no number
            tensor.message(2, |_| ());
        })?;
        let rows = settings.iter().map(|(key, value)| format!("| {key} | {value} |\n"));
        let table = format!("| setting | value |\n|---|---|\n{}", rows.collect::<String>());
        self.plugin("settings", "text", &[], |tensor| {
            tensor.varint(1, 7); // DT_STRING
            tensor.message(2, |_| ());
            tensor.text(8, &table);
        })
    }

    /// Adds what a plugin of TensorBoard reads: `content` in the summary's metadata, and a tensor.
    fn plugin(
        &mut self,
        tag: &str,
        plugin: &str,
        content: &[u8],
        tensor: impl FnOnce(&mut Message),
    ) -> Result<(), WriteError> {
        self.event(0, |event| {
            event.message(5, |summary| {
                summary.message(1, |entry| {
                    entry.text(1, tag);
                    entry.message(8, tensor);
                    entry.message(9, |metadata| {
                        metadata.message(1, |data| {
                            data.text(1, plugin);
                            data.bytes(2, content);
                        });
                    });
                });
            });
        })
    }

    fn event(&mut self, step: u64, fill: impl FnOnce(&mut Message)) -> Result<(), WriteError> {
        let mut event = Message::default();
        event.double(1, chrono::Utc::now().timestamp_micros() as f64 / 1e6);
        event.varint(2, step);
        fill(&mut event);
        let data = event.0;
        let length = (data.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(data.len() + 16);
        record.extend(length);
        record.extend(masked_crc(&length).to_le_bytes());
        record.extend(&data);
        record.extend(masked_crc(&data).to_le_bytes());
        self.0.append(&record)
    }
}

fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A protobuf message under construction (<https://protobuf.dev/programming-guides/encoding/>).
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn varint(&mut self, field: u64, value: u64) {
        self.raw_varint(field << 3);
        self.raw_varint(value);
    }

    fn double(&mut self, field: u64, value: f64) {
        self.raw_varint(field << 3 | 1);
        self.0.extend(value.to_le_bytes());
    }

    fn float(&mut self, field: u64, value: f32) {
        self.raw_varint(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.raw_varint(field << 3 | 2);
        self.raw_varint(value.len() as u64);
        self.0.extend(value);
    }

    fn text(&mut self, field: u64, value: &str) {
        self.bytes(field, value.as_bytes());
    }

    fn message(&mut self, field: u64, fill: impl FnOnce(&mut Message)) {
        let mut inner = Message::default();
        fill(&mut inner);
        self.bytes(field, &inner.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_have_the_frame_that_readers_check() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = EventFile::create(&Disk::default(), folder.path(), 0).unwrap();
        file.scalars(300, [("train_loss", 0.5)]).unwrap();
        let path = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        let bytes = std::fs::read(path).unwrap();
        let mut rest = &bytes[..];
        let mut records = Vec::new();
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(rest[8..12], masked_crc(&rest[..8]).to_le_bytes());
            let data = &rest[12..12 + length];
            assert_eq!(rest[12 + length..16 + length], masked_crc(data).to_le_bytes());
            records.push(data.to_vec());
            rest = &rest[16 + length..];
        }
        assert_eq!(records.len(), 2);
        assert!(records[0].ends_with(b"\x1a\x0dbrain.Event:2"));
        // step 300 as a varint, then summary { value { tag, simple_value } }
        assert_eq!(records[1][9..12], [0x10, 0xac, 0x02]);
        assert_eq!(records[1][12..], *b"\x2a\x13\x0a\x11\x0a\x0atrain_loss\x15\x00\x00\x00\x3f");
    }
}

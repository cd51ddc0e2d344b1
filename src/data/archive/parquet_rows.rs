//! Rows of parquet files, as Hugging Face's `datasets` writes data sets of images: an image and its
//! class in each (`datasets`, "Create an image dataset"). A row becomes an image file, and the
//! classes stand in `metadata.jsonl` beside them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::Type as Physical;
use parquet::file::metadata::FileMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use parquet::schema::types::Type;
use pipe_fs::disk_space;
use serde::Deserialize;
use serde_json::json;

use crate::archive::unpack::Limits;
use crate::error::DataError;

/// Unpacks the rows of all files to `folder`, which is there and empty.
///
/// # Errors
/// No column of images, or several; a row without an image, or without a class where there are
/// classes; a damaged file; more than `limits`; a disk that is full.
pub(super) fn unpack(files: &[PathBuf], folder: &Path, limits: Limits) -> Result<(), DataError> {
    let path = folder.join("metadata.jsonl");
    let failed = || DataError::io("write", &path);
    let mut unpacking = Unpacking { folder, limits, labels: None, images: 0, bytes: 0 };
    for file in files {
        // The crate asserts what a damaged file may say of itself.
        let read = panic::catch_unwind(AssertUnwindSafe(|| unpacking.file(file)));
        read.unwrap_or_else(|_| Err(DataError::archive(file, "its rows", "it is damaged")))?;
        if unpacking.labels.as_ref().is_some_and(|labels| labels.len() < unpacking.images) {
            let reason = "some of the files have a column of classes, and others have none";
            return Err(DataError::archive(file, "its columns", reason));
        }
    }
    let Some(labels) = unpacking.labels else { return Ok(()) };
    let mut lines = BufWriter::new(File::create_new(&path).map_err(failed())?);
    for (number, label) in labels {
        let line = json!({ "file_name": number, "label": label });
        writeln!(lines, "{line}").map_err(failed())?;
    }
    lines.flush().map_err(failed())
}

struct Unpacking<'a> {
    folder: &'a Path,
    limits: Limits,
    /// The class of each image, by the name of its file; `None` if the files have no classes.
    labels: Option<Vec<(String, serde_json::Value)>>,
    images: usize,
    bytes: u64,
}

impl Unpacking<'_> {
    fn file(&mut self, file: &Path) -> Result<(), DataError> {
        let failed = |at: &str, reason: String| DataError::archive(file, at, reason);
        let opened = File::open(file).map_err(DataError::io("open", file))?;
        let reader = SerializedFileReader::new(opened)
            .map_err(|e| failed("its description of columns", e.to_string()))?;
        let metadata = reader.metadata().file_metadata();
        let columns = Columns::of(metadata).map_err(|reason| failed("its columns", reason))?;
        self.check_space(&reader).map_err(|reason| failed("unpacking it", reason))?;
        let rows = reader
            .get_row_iter(Some(columns.projection(metadata)))
            .map_err(|e| failed("its columns", e.to_string()))?;
        for (number, row) in rows.enumerate() {
            let wrong = |reason: String| failed(&format!("row {number}"), reason);
            let row = row.map_err(|e| wrong(e.to_string()))?;
            let (image, label) = columns.read(row).map_err(wrong)?;
            self.count(&image).map_err(wrong)?;
            let name = format!("{:08}.{}", self.images, extension(&image));
            let path = self.folder.join(&name);
            fs::write(&path, image).map_err(DataError::io("write", &path))?;
            if let Some(label) = label {
                self.labels.get_or_insert_default().push((name, label));
            }
        }
        Ok(())
    }

    fn check_space(&self, reader: &SerializedFileReader<File>) -> Result<(), String> {
        let groups = reader.metadata().row_groups();
        let needed = groups.iter().map(|group| u64::try_from(group.total_byte_size()).unwrap_or(0));
        let needed = needed.fold(0, u64::saturating_add);
        match disk_space::free(self.folder) {
            Some(free) if needed > free => {
                Err(format!("it needs {} MB, and {} MB are free", needed >> 20, free >> 20))
            }
            _ => Ok(()),
        }
    }

    fn count(&mut self, image: &[u8]) -> Result<(), String> {
        self.images += 1;
        self.bytes = self.bytes.saturating_add(image.len() as u64);
        if self.images > self.limits.entries {
            return Err(format!(
                "there are more than {} rows, which is refused",
                self.limits.entries
            ));
        }
        if self.bytes > self.limits.bytes {
            let most = self.limits.bytes;
            return Err(format!("the images are more than {most} bytes, which is refused"));
        }
        Ok(())
    }
}

/// The ending of a file with such content. What is no image is told when it is decoded.
fn extension(image: &[u8]) -> &'static str {
    let format = image::guess_format(image).ok();
    format.and_then(|format| format.extensions_str().first().copied()).unwrap_or("png")
}

/// The columns that matter.
struct Columns {
    image: String,
    label: Option<Class>,
}

/// The column of classes.
struct Class {
    column: String,
    /// The names of its numbers; empty if it has none.
    names: Vec<String>,
}

/// What `datasets` writes about columns, as far as it counts here.
#[derive(Deserialize, Default)]
struct HuggingFace {
    #[serde(default)]
    info: Info,
}

#[derive(Deserialize, Default)]
struct Info {
    #[serde(default)]
    features: BTreeMap<String, serde_json::Value>,
}

impl HuggingFace {
    fn of(metadata: &FileMetaData) -> Self {
        let all = metadata.key_value_metadata().into_iter().flatten();
        let text = all.filter(|entry| entry.key == "huggingface").find_map(|e| e.value.as_deref());
        text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    /// The columns of a type.
    fn columns<'a>(
        &'a self,
        kind: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a serde_json::Value)> {
        let is = move |feature: &serde_json::Value| feature["_type"] == kind;
        self.info.features.iter().filter(move |(_, f)| is(f)).map(|(name, f)| (name.as_str(), f))
    }
}

impl Columns {
    /// Finds them by what `datasets` wrote, or else by their types and names. The reason if that
    /// is not clear.
    fn of(metadata: &FileMetaData) -> Result<Self, String> {
        let known = HuggingFace::of(metadata);
        let fields = metadata.schema_descr().root_schema().get_fields();
        let is_there = |name: &str| fields.iter().any(|field| field.name() == name);
        let mut images: Vec<&str> =
            known.columns("Image").map(|(name, _)| name).filter(|name| is_there(name)).collect();
        if images.is_empty() {
            images = fields.iter().filter(|f| holds_bytes(f)).map(|field| field.name()).collect();
        }
        let image = match images[..] {
            [only] => only.to_owned(),
            [] => {
                let names: Vec<&str> = fields.iter().map(|field| field.name()).collect();
                return Err(format!(
                    "none of its columns ({}) holds the bytes of images",
                    names.join(", ")
                ));
            }
            _ if images.contains(&"image") => "image".to_owned(),
            _ => {
                let names = images.join(", ");
                return Err(format!(
                    "several of its columns hold images ({names}), and none is named `image`"
                ));
            }
        };
        let named = known.columns("ClassLabel").filter(|(name, _)| is_there(name));
        let named = named.map(|(name, feature)| Class {
            column: name.to_owned(),
            names: serde_json::from_value(feature["names"].clone()).unwrap_or_default(),
        });
        let mut classes: Vec<Class> = named.collect();
        // Of a coarse and a fine division the fine one counts.
        classes.sort_by_key(|class| (class.column == "label", class.names.len()));
        let plain = || Class { column: "label".to_owned(), names: Vec::new() };
        let label = classes.pop().or_else(|| is_there("label").then(plain));
        Ok(Self { image, label })
    }

    /// The schema of these columns alone.
    fn projection(&self, metadata: &FileMetaData) -> Type {
        let root = metadata.schema_descr().root_schema();
        let is_read = |field: &&Arc<Type>| {
            let name = field.name();
            name == self.image || self.label.as_ref().is_some_and(|label| label.column == name)
        };
        let fields = root.get_fields().iter().filter(is_read).cloned().collect();
        let basic_info = root.get_basic_info().clone();
        Type::GroupType { basic_info, fields }
    }

    /// The image's bytes, and its class if there are classes. The reason if the row lacks one.
    fn read(&self, row: Row) -> Result<(Vec<u8>, Option<serde_json::Value>), String> {
        let (mut image, mut label) = (Field::Null, Field::Null);
        for (name, field) in row.into_columns() {
            if name == self.image {
                image = field;
            } else {
                label = field;
            }
        }
        let image = bytes(image).ok_or_else(|| {
            format!(
                "its column `{}` holds no bytes; `datasets` writes them with \
                 `push_to_hub`, or `embed_external_files`",
                self.image
            )
        })?;
        match &self.label {
            Some(class) => Ok((image, Some(class.value(label)?))),
            None => Ok((image, None)),
        }
    }
}

impl Class {
    /// What is written of a row's class.
    fn value(&self, label: Field) -> Result<serde_json::Value, String> {
        let column = &self.column;
        let number = match label {
            Field::Str(name) => return Ok(name.into()),
            Field::Byte(n) => n.into(),
            Field::Short(n) => n.into(),
            Field::Int(n) => n.into(),
            Field::Long(n) => n,
            Field::UByte(n) => n.into(),
            Field::UShort(n) => n.into(),
            Field::UInt(n) => n.into(),
            Field::Bool(is) => is.into(),
            Field::Null => return Err(format!("its column `{column}` is empty")),
            _ => return Err(format!("its column `{column}` holds neither numbers nor names")),
        };
        let refused = || format!("its column `{column}` is {number}, which is no class");
        let number = u32::try_from(number).map_err(|_| refused())?;
        if self.names.is_empty() {
            return Ok(number.into());
        }
        let name = self.names.get(number as usize).ok_or_else(refused)?;
        Ok(name.as_str().into())
    }
}

/// Whether a column holds bytes that are no text, by itself or as `bytes` of a group.
fn holds_bytes(field: &Type) -> bool {
    match field {
        Type::GroupType { fields, .. } => fields
            .iter()
            .any(|field| field.name() == "bytes" && field.is_primitive() && holds_bytes(field)),
        Type::PrimitiveType { physical_type, basic_info, .. } => {
            *physical_type == Physical::BYTE_ARRAY
                && basic_info.logical_type_ref().is_none()
                && basic_info.converted_type() == parquet::basic::ConvertedType::NONE
        }
    }
}

/// The bytes of an image's column.
fn bytes(field: Field) -> Option<Vec<u8>> {
    match field {
        Field::Bytes(bytes) => Some(bytes.data().to_vec()),
        Field::Group(row) => {
            let of_group = row.into_columns().into_iter().find(|(name, _)| name == "bytes");
            match of_group {
                Some((_, Field::Bytes(bytes))) => Some(bytes.data().to_vec()),
                _ => None,
            }
        }
        _ => None,
    }
}

//! Arrays of floats in NumPy's files, version 1.0 to 3.0 of the format: `.npy`, and `.npz`, a zip
//! file of those. They may come from anyone: memory is taken as numbers are read, never as much as
//! a header promises.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use zip::ZipArchive;
use zip::result::ZipError;

/// The most numbers that are read of an array: 2 GiB of them.
const MOST_NUMBERS: usize = 1 << 28;
/// The longest header that is read, in bytes.
const LONGEST_HEADER: usize = 1 << 16;
const MAGIC: &[u8] = b"\x93NUMPY";

/// Why an array was not read.
#[derive(Debug, thiserror::Error)]
pub enum ArrayError {
    #[error("failed to read {}: {error}", path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("{}: {message}", path.display())]
    Content { path: PathBuf, message: String },
}

/// An array in rows.
pub(crate) struct Array {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

impl Array {
    /// What was expected, and what there is.
    pub fn wrong(&self, path: &Path, wanted: &str) -> ArrayError {
        let message = format!("{wanted}; this one has the shape {:?}", self.shape);
        ArrayError::Content { path: path.to_owned(), message }
    }
}

/// Reads the array `name` of a `.npz`.
pub(crate) fn read_member(path: &Path, name: &str) -> Result<Array, ArrayError> {
    let mut archive = open(path)?;
    let there: Vec<String> =
        archive.file_names().flatten().take(8).map(|name| name.into_owned()).collect();
    let found = archive.by_name(&format!("{name}.npy"));
    let mut member = found.map_err(|error| match error {
        ZipError::FileNotFound => ArrayError::Content {
            path: path.to_owned(),
            message: format!("it holds no array `{name}`, but {}", there.join(", ")),
        },
        error => failed(path, error.into()),
    })?;
    array(&mut member).map_err(|e| failed(path, e))
}

fn open(path: &Path) -> Result<ZipArchive<BufReader<File>>, ArrayError> {
    let file = File::open(path).map_err(|e| failed(path, e))?;
    ZipArchive::new(BufReader::new(file)).map_err(|error| ArrayError::Content {
        path: path.to_owned(),
        message: format!("it is not a whole file of NumPy's (.npz or .npy): {error}"),
    })
}

fn failed(path: &Path, error: io::Error) -> ArrayError {
    ArrayError::Read { path: path.to_owned(), error }
}

fn invalid(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.into())
}

/// What stands before an array's numbers (version 1.0): in all a multiple of 64 bytes.
pub(crate) fn header(kind: &str, shape: &[usize]) -> Vec<u8> {
    let axes: Vec<String> = shape.iter().map(usize::to_string).collect();
    // A tuple of one has a comma.
    let (axes, comma) = (axes.join(", "), if shape.len() == 1 { "," } else { "" });
    let mut text =
        format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({axes}{comma}), }}");
    let before = MAGIC.len() + 4;
    let padded = (before + text.len() + 1).next_multiple_of(64) - before;
    text.extend(std::iter::repeat_n(' ', padded - text.len() - 1));
    text.push('\n');
    let mut header = MAGIC.to_vec();
    header.extend([1, 0]);
    header.extend((text.len() as u16).to_le_bytes());
    header.extend(text.as_bytes());
    header
}

/// Reads a whole `.npy`.
fn array(from: &mut dyn Read) -> io::Result<Array> {
    let (kind, fortran, shape) = read_header(from)?;
    let count = shape.iter().try_fold(1usize, |all, length| all.checked_mul(*length));
    let Some(count) = count.filter(|count| *count <= MOST_NUMBERS) else {
        return Err(invalid(format!("an array of the shape {shape:?} is too large")));
    };
    let mut values = match kind.as_str() {
        "<f8" => numbers(from, count, f64::from_le_bytes)?,
        "<f4" => numbers(from, count, |bytes| f64::from(f32::from_le_bytes(bytes)))?,
        other => {
            let message =
                format!("its numbers are `{other}`; float64 (<f8) and float32 (<f4) are read");
            return Err(invalid(message));
        }
    };
    if from.read(&mut [0])? != 0 {
        return Err(invalid("more follows after the numbers that its header names"));
    }
    if values.iter().any(|value| !value.is_finite()) {
        return Err(invalid("it holds numbers that are not finite"));
    }
    if let ([rows, columns], true) = (&shape[..], fortran) {
        values = (0..count).map(|i| values[i % columns * rows + i / columns]).collect();
    }
    Ok(Array { shape, values })
}

fn numbers<const N: usize>(
    from: &mut dyn Read,
    count: usize,
    number: impl Fn([u8; N]) -> f64,
) -> io::Result<Vec<f64>> {
    let mut values = Vec::new();
    let mut buffer = [[0; N]; 4096];
    while values.len() < count {
        let part = &mut buffer[..(count - values.len()).min(4096)];
        from.read_exact(part.as_flattened_mut())?;
        values.extend(part.iter().map(|bytes| number(*bytes)));
    }
    Ok(values)
}

/// The type of the numbers, whether columns stand one after another, and the shape.
fn read_header(from: &mut dyn Read) -> io::Result<(String, bool, Vec<usize>)> {
    let mut start = [0; 8];
    from.read_exact(&mut start)?;
    if &start[..6] != MAGIC {
        return Err(invalid("it is not an array of NumPy's"));
    }
    let length = if start[6] == 1 {
        let mut length = [0; 2];
        from.read_exact(&mut length)?;
        usize::from(u16::from_le_bytes(length))
    } else {
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        u32::from_le_bytes(length) as usize
    };
    if length > LONGEST_HEADER {
        return Err(invalid("its header is too long"));
    }
    let mut text = vec![0; length];
    from.read_exact(&mut text)?;
    let text = String::from_utf8(text).map_err(|_| invalid("its header is not text"))?;
    let wrong = || invalid(format!("its header is not understood: {}", text.trim_end()));
    let after = |key: &str| {
        let (_, rest) = text.split_once(&format!("'{key}':"))?;
        Some(rest.trim_start())
    };
    let kind = after("descr").and_then(|rest| rest.strip_prefix('\'')?.split('\'').next());
    let fortran = after("fortran_order").map(|rest| rest.starts_with("True"));
    let shape = after("shape").and_then(|rest| rest.strip_prefix('(')?.split(')').next());
    let (Some(kind), Some(fortran), Some(shape)) = (kind, fortran, shape) else {
        return Err(wrong());
    };
    let axes = shape.split(',').map(str::trim).filter(|axis| !axis.is_empty());
    let shape: Result<Vec<usize>, _> = axes.map(str::parse).collect();
    Ok((kind.to_owned(), fortran, shape.map_err(|_| wrong())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(kind: &str, shape: &str, fortran: &str, numbers: &[u8]) -> Vec<u8> {
        let text =
            format!("{{'descr': '{kind}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
        let mut bytes = MAGIC.to_vec();
        bytes.extend([1, 0]);
        bytes.extend((text.len() as u16).to_le_bytes());
        bytes.extend(text.as_bytes());
        bytes.extend(numbers);
        bytes
    }

    fn error(bytes: &[u8]) -> String {
        match array(&mut &bytes[..]) {
            Ok(array) => panic!("{:?} was read", array.shape),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_header_is_whole_blocks_and_is_read_again() {
        for shape in [&[3][..], &[2, 3], &[100_000, 2048]] {
            let header = header("<f4", shape);
            assert_eq!(header.len() % 64, 0);
            let (kind, fortran, found) = read_header(&mut &header[..]).unwrap();
            assert_eq!((kind.as_str(), fortran, &found[..]), ("<f4", false, shape));
        }
    }

    #[test]
    fn columns_one_after_another_become_rows() {
        let numbers: Vec<u8> = (0..6).flat_map(|i| f64::from(i).to_le_bytes()).collect();
        let read = array(&mut &file("<f8", "(2, 3)", "True", &numbers)[..]).unwrap();
        assert_eq!(read.values, [0.0, 2.0, 4.0, 1.0, 3.0, 5.0]);
    }

    #[test]
    fn what_is_torn_or_hostile_is_an_error() {
        let one = 1f32.to_le_bytes();
        let promises = "(1000000000, 1000000000000)";
        assert!(error(&file("<f4", promises, "False", &one)).contains("too large"));
        assert!(error(&file("<f4", "(200000000,)", "False", &one)).contains("fill whole buffer"));
        assert!(
            error(&file("<f4", "(1,)", "False", &[one, one].concat())).contains("more follows")
        );
        assert!(error(&file("<f4", "(1,)", "False", &f32::NAN.to_le_bytes())).contains("finite"));
        assert!(error(&file("|O", "(1,)", "False", &one)).contains("`|O`"));
        assert!(error(&file("<f4", "(-1,)", "False", &one)).contains("not understood"));
        assert!(error(b"\x93NUMPY\x02\x00\xff\xff\xff\xff").contains("too long"));
        assert!(error(b"PK").contains("fill whole buffer"));
    }
}

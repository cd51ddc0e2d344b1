//! `pipe python [-o DIR]`

use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pipe_core::shell::CommandLine;
use pipe_fs::Disk;
use sha2::{Digest, Sha256};
use zip::write::{SimpleFileOptions, ZipWriter};

use super::{CliError, ExitCode, output_file};
use crate::report::stdout::say;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe python && pip install ./burn_pipe-*.whl\n  pipe python -o wheels"
)]
pub struct PythonArguments {
    /// Folder for the wheel
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    output: PathBuf,
}

/// The package, in Python alone, which is a part of this program.
const PACKAGE: [(&str, &str); 15] = [
    ("__init__.py", include_str!("../../python/burn_pipe/__init__.py")),
    ("_alone.py", include_str!("../../python/burn_pipe/_alone.py")),
    ("_canonical.py", include_str!("../../python/burn_pipe/_canonical.py")),
    ("_checkpoint.py", include_str!("../../python/burn_pipe/_checkpoint.py")),
    ("_failures.py", include_str!("../../python/burn_pipe/_failures.py")),
    ("_job.py", include_str!("../../python/burn_pipe/_job.py")),
    ("_protocol.py", include_str!("../../python/burn_pipe/_protocol.py")),
    ("_seed.py", include_str!("../../python/burn_pipe/_seed.py")),
    ("accelerate.py", include_str!("../../python/burn_pipe/accelerate.py")),
    ("diffit.py", include_str!("../../python/burn_pipe/diffit.py")),
    ("lightning.py", include_str!("../../python/burn_pipe/lightning.py")),
    ("py.typed", include_str!("../../python/burn_pipe/py.typed")),
    ("sampler.py", include_str!("../../python/burn_pipe/sampler.py")),
    ("track.py", include_str!("../../python/burn_pipe/track.py")),
    ("transformers.py", include_str!("../../python/burn_pipe/transformers.py")),
];

const LICENSES: [(&str, &str); 2] = [
    ("LICENSE-MIT", include_str!("../../LICENSE-MIT")),
    ("LICENSE-APACHE", include_str!("../../LICENSE-APACHE")),
];

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Writes the package that this program's `trainer` stages talk to.
pub fn python(arguments: PythonArguments) -> Result<ExitCode, CliError> {
    let file = arguments.output.join(format!("burn_pipe-{VERSION}-py3-none-any.whl"));
    output_file::write(&Disk::default(), &file, |out| write_wheel(out))?;
    say!("{}", file.display());
    // Without a folder before it pip takes a name for that of a package.
    let is_bare = matches!(file.components().next(), Some(Component::Normal(_)));
    let path = if is_bare { Path::new(".").join(file) } else { file };
    say!("\nnext: {}", CommandLine::new(["pip", "install"]).path(&path));
    Ok(ExitCode::SUCCESS)
}

/// A wheel for any Python: a zip file of the package and of what is said of it. The same program
/// writes the same bytes.
///
/// See "Binary distribution format" and "Recording installed projects" of the Python packaging
/// specifications.
fn write_wheel(out: impl Write) -> io::Result<()> {
    let about = |name: &str| format!("burn_pipe-{VERSION}.dist-info/{name}");
    let mut files: Vec<(String, String)> = Vec::new();
    files.extend(PACKAGE.map(|(name, text)| (format!("burn_pipe/{name}"), text.to_owned())));
    files
        .extend(LICENSES.map(|(name, text)| (about(&format!("licenses/{name}")), text.to_owned())));
    let metadata = format!(
        "Metadata-Version: 2.4\nName: burn-pipe\nVersion: {VERSION}\n\
         Summary: Any training program as a stage of a pipeline\nRequires-Python: >=3.10\n\
         License-Expression: MIT OR Apache-2.0\nLicense-File: LICENSE-MIT\n\
         License-File: LICENSE-APACHE\n"
    );
    files.push((about("METADATA"), metadata));
    let wheel = "Wheel-Version: 1.0\nGenerator: pipe\nRoot-Is-Purelib: true\nTag: py3-none-any\n";
    files.push((about("WHEEL"), wheel.to_owned()));
    let line = |(name, text): &(String, String)| {
        let digest = URL_SAFE_NO_PAD.encode(Sha256::digest(text));
        format!("{name},sha256={digest},{}\n", text.len())
    };
    let record: String = files.iter().map(line).collect();
    files.push((about("RECORD"), format!("{record}{},,\n", about("RECORD"))));
    let options = SimpleFileOptions::default()
        .last_modified_time(zip::DateTime::default())
        .unix_permissions(0o644);
    let mut zip = ZipWriter::new_stream(out);
    for (name, text) in files {
        zip.start_file(name, options)?;
        zip.write_all(text.as_bytes())?;
    }
    zip.finish()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wheel_has_every_file_of_the_package() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/burn_pipe");
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let files = entries.filter(|path| path.is_file());
        let mut there: Vec<_> =
            files.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
        there.sort();
        let mut packed = PACKAGE.map(|(name, _)| name).to_vec();
        packed.sort();
        assert_eq!(there, packed);
    }

    #[test]
    fn the_version_is_that_of_the_package_of_the_repository() {
        let text = include_str!("../../python/pyproject.toml");
        assert!(text.contains(&format!("\nversion = \"{VERSION}\"\n")), "{text}");
        assert!(text.contains("\nrequires-python = \">=3.10\"\n"), "{text}");
    }
}

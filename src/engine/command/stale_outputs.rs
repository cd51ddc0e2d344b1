//! Outputs that stood there before a program ran and that it did not write. They are not its
//! result: a fresh build would not have them. As in Snakemake, time, number or content of a file
//! must be another one after the program.

use std::collections::BTreeMap;
use std::path::Path;

use pipe_core::failure::StageError;
use pipe_fs::Stamp;
use sha2::{Digest, Sha256};

use super::files::{Files, Found};
use crate::identity::hex;
use crate::kind::RunContext;
use crate::state::{Output, record};

/// The outputs that stand there before the program starts, or stood there before an earlier attempt
/// at the same: what that one wrote was made by this stage. Returns when what the program writes
/// will have another stamp.
pub(super) fn before(
    context: &RunContext,
    standing: &[Found],
    inputs: &[Output],
) -> Result<BTreeMap<String, Stamp>, StageError> {
    let named = |file: &Found| (file.path.to_string_lossy().into_owned(), file.stamp());
    let now: BTreeMap<String, Stamp> = standing.iter().map(named).collect();
    let newest = now.values().map(Stamp::newest).max();
    if let Some(newest) = newest.filter(|newest| Stamp::may_recur(*newest)) {
        record::wait_past(&context.root, &context.pipeline, &context.stage, newest)?;
    }
    let mut run = Sha256::new();
    run.update(&context.identity);
    for Output { path, digest, .. } in inputs {
        run.update(format!("\n{path}={digest}"));
    }
    context.output_baseline(format!("sha256:{}", hex(&run.finalize())), now)
}

/// The first of a stage's files that is as it was before. Hidden files in an output folder may be
/// anybody's.
pub(super) fn find<'f>(
    files: &Files,
    found: &'f [Found],
    before: &BTreeMap<String, Stamp>,
) -> Option<&'f Path> {
    let is_hidden =
        |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    let is_same = |file: &&Found| before.get(&*file.path.to_string_lossy()) == Some(&file.stamp());
    let mut old = found.iter().filter(is_same).map(|file| file.path.as_path());
    old.find(|path| files.is_output(path) || !is_hidden(path))
}

/// What to do about it.
pub(super) fn message(files: &Files, path: &Path) -> String {
    let remedy = if files.is_output(path) {
        "remove it, or let the program write it"
    } else {
        "let the program clear its output folder first, or write the file"
    };
    let path = path.display();
    format!(
        "it ended well and did not write {path}, which is there from before: {remedy}; what is to stay as it is can be \
         touched (`touch {path}`)"
    )
}

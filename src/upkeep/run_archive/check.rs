//! Whether a run's folder holds what its metadata say.

use std::path::Path;

use pipe_runs::{Checkpoint, Metadata, StoreError, file_digest_like};

use super::error::{ArchiveError, refused};

/// Checks what stands in a run's folder against its own metadata, all bytes of its checkpoints.
/// Those that are not there are none of its concern.
pub(super) fn check(folder: &Path) -> Result<Metadata, ArchiveError> {
    let metadata = Metadata::read(&folder.join("metadata.json"))?;
    let epochs = metadata.checkpoints.iter().map(|c| (&c.path, &c.digest));
    let partial = metadata.partial_checkpoint.iter().map(|p| (&p.path, &p.digest));
    for (path, digest) in epochs.chain(partial) {
        let file = folder.join(path);
        if !file.exists() {
            continue;
        }
        let found = file_digest_like(&file, digest).map_err(refused(file.display()))?;
        if found != *digest {
            return Err(refused(file.display())(
                "it is damaged, or another one than its run noted",
            ));
        }
        if digest.starts_with("blake3-head:") {
            // That digest speaks of the head, which speaks of the content.
            Checkpoint::open(&file).and_then(|file| file.verify()).map_err(StoreError::from)?;
        }
    }
    Ok(metadata)
}

//! Bytes of files to objects and back: large ones in parts, a few at a time, each digested on its
//! way.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use futures_util::{StreamExt, TryStreamExt};
use object_store::{Error, MultipartUpload, ObjectStoreExt, PutPayload};
use pipe_engine::identity::hex;
use sha2::{Digest, Sha256};
use tokio::task::JoinSet;

use crate::bucket::Bucket;
use crate::digest;
use crate::error::RemoteError;

/// Bytes of a part. As many parts as are on their way at once are in memory. Tests have many small
/// ones.
const PART: u64 = if cfg!(test) { 64 << 10 } else { 8 << 20 };
const PARALLEL_PARTS: usize = 3;
/// A file of so many bytes goes in parts.
const MULTIPART_ABOVE: u64 = 2 * PART;
/// S3 takes 10,000 parts of an object.
const MAX_PARTS: u64 = 9_000;

impl Bucket {
    /// Puts a small content.
    pub fn put_bytes(&self, key: &str, bytes: Vec<u8>) -> Result<(), RemoteError> {
        let put = self.block_on(self.store.put(&self.at(key), PutPayload::from(bytes)));
        put.map_err(|e| self.error(&format!("put {key}"), &e))?;
        self.make_durable(&self.at(key))
    }

    /// Puts the first `length` bytes of a file, whose digest must be `sha256`. `sent` is told of
    /// every piece.
    pub fn put_file(
        &self,
        key: &str,
        file: &File,
        length: u64,
        sha256: &str,
        sent: &dyn Fn(u64),
    ) -> Result<(), RemoteError> {
        if length <= MULTIPART_ABOVE {
            let bytes = read_piece(file, 0, length).map_err(unreadable(key))?;
            if digest::of_bytes(&bytes) != sha256 {
                return Err(changed(key));
            }
            self.put_bytes(key, bytes)?;
            sent(length);
            return Ok(());
        }
        self.block_on(self.put_parts(key, file, length, sha256, sent))?;
        self.make_durable(&self.at(key))?;
        match self.size(key)? {
            Some(size) if size == length => Ok(()),
            other => {
                Err(self.damaged(format!("{key} was put with {length} bytes and has {other:?}")))
            }
        }
    }

    async fn put_parts(
        &self,
        key: &str,
        file: &File,
        length: u64,
        sha256: &str,
        sent: &dyn Fn(u64),
    ) -> Result<(), RemoteError> {
        let failed = |e: Error| self.error(&format!("put {key}"), &e);
        let mut upload = self.store.put_multipart(&self.at(key)).await.map_err(failed)?;
        let (mut parts, mut hash, mut at) = (JoinSet::new(), Sha256::new(), 0);
        let size = part_size(length);
        let all = async {
            while at < length {
                let piece = read_piece(file, at, size.min(length - at)).map_err(unreadable(key))?;
                hash.update(&piece);
                if parts.len() >= PARALLEL_PARTS {
                    next(&mut parts, sent).await.map_err(failed)?;
                }
                let bytes = piece.len() as u64;
                at += bytes;
                let part = upload.put_part(PutPayload::from(piece));
                parts.spawn(async move { part.await.map(|()| bytes) });
            }
            while !parts.is_empty() {
                next(&mut parts, sent).await.map_err(failed)?;
            }
            if hex(&hash.finalize()) == sha256 { Ok(()) } else { Err(changed(key)) }
        };
        let all = all.await;
        let done = match all {
            Ok(()) => upload.complete().await.map(drop).map_err(failed),
            Err(error) => Err(error),
        };
        if done.is_err() {
            parts.shutdown().await;
            abort(upload).await;
        }
        done
    }

    /// Gets an object of so many bytes, piece by piece in order.
    pub fn get(
        &self,
        key: &str,
        length: u64,
        take: &mut dyn FnMut(&[u8]) -> Result<(), RemoteError>,
    ) -> Result<(), RemoteError> {
        let at = self.at(key);
        let starts = (0..length).step_by(PART as usize);
        let pieces = starts.map(|start| {
            let at = &at;
            async move { self.store.get_range(at, start..(start + PART).min(length)).await }
        });
        self.block_on(async {
            let mut pieces = futures_util::stream::iter(pieces).buffered(PARALLEL_PARTS);
            loop {
                match pieces.try_next().await {
                    Ok(Some(piece)) => take(&piece)?,
                    Ok(None) => return Ok(()),
                    Err(error) => return Err(self.error(&format!("get {key}"), &error)),
                }
            }
        })
    }
}

fn part_size(length: u64) -> u64 {
    match length.div_ceil(MAX_PARTS) {
        least if least > PART => least.next_multiple_of(1 << 20),
        _ => PART,
    }
}

async fn next(parts: &mut JoinSet<Result<u64, Error>>, sent: &dyn Fn(u64)) -> Result<(), Error> {
    if let Some(done) = parts.join_next().await {
        sent(done??);
    }
    Ok(())
}

async fn abort(mut upload: Box<dyn MultipartUpload>) {
    if let Err(error) = upload.abort().await {
        tracing::debug!("failed to take back an upload in parts: {error}");
    }
}

fn read_piece(mut file: &File, at: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn unreadable(key: &str) -> impl FnOnce(io::Error) -> RemoteError {
    move |error| RemoteError::local(format!("failed to read what is to be {key}: {error}"))
}

fn changed(key: &str) -> RemoteError {
    RemoteError::local(format!(
        "what is to be {key} was read twice and was not the same: is the disk failing?"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_large_enough_for_the_largest_files() {
        assert_eq!(part_size(PART), PART);
        assert!((1u64 << 42).div_ceil(part_size(1 << 42)) <= MAX_PARTS);
    }
}

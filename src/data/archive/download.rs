//! Getting one file over HTTP(S): resumed, checked, put in place whole or not at all. Knows nothing
//! of archives.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use md5::{Digest, Md5};
use pipe_fs::{Disk, atomic};
use ureq::Agent;
use ureq::http::{StatusCode, header};

use super::lock;
use crate::digest::hex;
use crate::error::DataError;
use crate::progress::Progress;

/// How many broken connections a download survives; each must have brought it further than all
/// before.
const MAX_RESUMES: usize = 100;
/// A connection that brings nothing for this long is given up.
const SILENCE: Duration = Duration::from_secs(60);

/// Gets `url` to `target`, unless `target` is already there.
///
/// The bytes go to `NAME.part` beside the target, which a later call goes on with (HTTP `Range`,
/// RFC 9110 section 14); after the check against `md5` (32 hexadecimal digits) the file is synced
/// and renamed. Of two processes, one waits for the other. A checksum that is wrong even for a
/// download from the start leaves nothing behind.
pub fn fetch(
    disk: &Disk,
    url: &str,
    target: &Path,
    md5: Option<&str>,
    progress: &dyn Progress,
) -> Result<(), DataError> {
    if target.exists() {
        return Ok(());
    }
    let _lock = lock::beside(disk, target)?;
    if target.exists() {
        return Ok(());
    }
    let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut download = Download::open(url, target, &name, progress)?;
    let mut resumed = download.written > 0;
    if resumed && md5.is_some_and(|expected| download.has(expected)) {
        return download.put_in_place(disk); // stopped just before the rename
    }
    loop {
        download.complete()?;
        match md5 {
            None => return download.put_in_place(disk),
            Some(expected) if download.has(expected) => return download.put_in_place(disk),
            Some(_) if resumed => {
                // The bytes of an earlier call may be of another version of the file.
                tracing::warn!(
                    "{} does not fit the part that was there; starting over",
                    target.display()
                );
                resumed = false;
                download.restart()?;
            }
            Some(expected) => {
                fs::remove_file(&download.part).map_err(DataError::io("remove", &download.part))?;
                let (found, expected) = (download.md5(), expected.to_owned());
                return Err(DataError::Checksum {
                    url: url.to_owned(),
                    path: target.to_owned(),
                    expected,
                    found,
                });
            }
        }
    }
}

/// A file on its way.
struct Download<'a> {
    url: &'a str,
    target: &'a Path,
    name: &'a str,
    progress: &'a dyn Progress,
    agent: Agent,
    part: PathBuf,
    file: File,
    /// Bytes in `file`, all of which went through `digest`.
    written: u64,
    digest: Md5,
}

/// How one request ended.
enum Outcome {
    Complete,
    /// The connection broke in the middle; going on may help.
    Broken(String),
}

impl<'a> Download<'a> {
    fn open(
        url: &'a str,
        target: &'a Path,
        name: &'a str,
        progress: &'a dyn Progress,
    ) -> Result<Self, DataError> {
        let part = target.with_file_name(format!("{name}.part"));
        let error = |e| DataError::io("open", &part)(e);
        let file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&part)
            .map_err(error)?;
        // Archives come as they are: compressing them again would only break resuming.
        let agent: Agent = Agent::config_builder()
            .accept_encoding("identity")
            .http_status_as_error(false)
            .timeout_connect(Some(SILENCE))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .build()
            .into();
        let mut download =
            Self { url, target, name, progress, agent, part, file, written: 0, digest: Md5::new() };
        download.take_up()?;
        Ok(download)
    }

    /// Feeds the digest with what an earlier call left.
    fn take_up(&mut self) -> Result<(), DataError> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let read = self.file.read(&mut buffer).map_err(DataError::io("read", &self.part))?;
            if read == 0 {
                return Ok(());
            }
            self.digest.update(&buffer[..read]);
            self.written += read as u64;
        }
    }

    fn restart(&mut self) -> Result<(), DataError> {
        self.file.set_len(0).map_err(DataError::io("empty", &self.part))?;
        self.file.seek(SeekFrom::Start(0)).map_err(DataError::io("empty", &self.part))?;
        (self.written, self.digest) = (0, Md5::new());
        Ok(())
    }

    fn md5(&self) -> String {
        hex(&self.digest.clone().finalize())
    }

    fn has(&self, md5: &str) -> bool {
        self.md5().eq_ignore_ascii_case(md5)
    }

    /// Requests until the file is whole. When nothing came at all, no empty part stays behind.
    fn complete(&mut self) -> Result<(), DataError> {
        let result = self.request_until_whole();
        if result.is_err() && self.written == 0 {
            fs::remove_file(&self.part).map_err(DataError::io("remove", &self.part))?;
        }
        result
    }

    fn request_until_whole(&mut self) -> Result<(), DataError> {
        let mut furthest = self.written;
        for _ in 0..MAX_RESUMES {
            match self.request()? {
                Outcome::Complete => return Ok(()),
                Outcome::Broken(reason) if self.written <= furthest => {
                    return Err(self.failed(reason));
                }
                Outcome::Broken(reason) => {
                    tracing::warn!(
                        "{} stopped at byte {}: {reason}; going on",
                        self.name,
                        self.written
                    );
                    furthest = self.written;
                }
            }
        }
        Err(self.failed(format!("the connection broke {MAX_RESUMES} times")))
    }

    fn request(&mut self) -> Result<Outcome, DataError> {
        let mut request = self.agent.get(self.url);
        if self.written > 0 {
            request = request.header(header::RANGE, format!("bytes={}-", self.written));
        }
        let mut response = request.call().map_err(|e| self.failed(e.to_string()))?;
        let content_range =
            response.headers().get(header::CONTENT_RANGE).and_then(|v| v.to_str().ok());
        match response.status() {
            StatusCode::PARTIAL_CONTENT if starts_at(content_range, self.written) => {}
            StatusCode::OK => self.restart()?, // the server does not resume, or there was nothing to resume
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if self.written > 0 => {
                // The part is whole already, or longer than the file: the checksum of a fresh start
                // decides.
                self.restart()?;
                return self.request();
            }
            status => return Err(self.failed(format!("the server answers {status}"))),
        }
        let total = response.body().content_length().map(|left| self.written + left);
        let mut body = response.body_mut().as_reader();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let read = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Ok(Outcome::Broken(e.to_string())),
            };
            self.file.write_all(&buffer[..read]).map_err(DataError::io("write", &self.part))?;
            self.digest.update(&buffer[..read]);
            self.written += read as u64;
            self.progress.downloaded(self.name, self.written, total);
        }
        match total {
            Some(total) if self.written < total => {
                Ok(Outcome::Broken(format!("{total} bytes were announced")))
            }
            _ => Ok(Outcome::Complete),
        }
    }

    fn put_in_place(self, disk: &Disk) -> Result<(), DataError> {
        Ok(atomic::put_in_place(disk, &self.part, self.target)?)
    }

    fn failed(&self, reason: String) -> DataError {
        DataError::Download { url: self.url.to_owned(), path: self.target.to_owned(), reason }
    }
}

/// Whether a `Content-Range` (`bytes 500-999/1000`) begins at `offset`.
fn starts_at(content_range: Option<&str>, offset: u64) -> bool {
    content_range
        .and_then(|range| range.strip_prefix("bytes "))
        .and_then(|range| range.split('-').next())
        .is_some_and(|start| start.trim().parse() == Ok(offset))
}

//! Content digests: SHA-256 over labelled fields, so that two different lists of fields never look
//! alike.

pub(crate) use pipe_core::digest::hex;
use sha2::{Digest, Sha256};

/// Collects fields; each is fed with its length before it.
pub(crate) struct FieldDigest(Sha256);

impl FieldDigest {
    /// `purpose` separates digests of different kinds.
    pub fn new(purpose: &str) -> Self {
        let mut digest = Self(Sha256::new());
        digest.field(purpose.as_bytes());
        digest
    }

    pub fn field(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// 64 lower-case hexadecimal digits.
    pub fn finish(self) -> String {
        hex(&self.0.finalize())
    }
}

/// SHA-256 of `bytes` alone, as `sha256sum` prints it.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

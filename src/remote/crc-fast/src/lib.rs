//! CRC-64/NVME under the names that `object_store` knows from the crate `crc-fast`, which cannot be left out of it. That
//! crate has tables for more than a hundred checksums, 700 KB of this program; only this one is ever asked for, where
//! `AWS_CHECKSUM_ALGORITHM=crc64nvme` is set.

/// The checksums that are known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrcAlgorithm {
    Crc64Nvme,
}

/// A checksum while it is computed.
#[derive(Debug, Clone)]
pub struct Digest(u64);

/// 0xad93d23594c93659 with its bits in reverse order.
const POLYNOMIAL: u64 = 0x9a6c_9329_ac4b_c9b5;

/// What each value of a byte adds.
static TABLE: [u64; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut value, mut bit) = (byte as u64, 0);
        while bit < 8 {
            value = if value & 1 == 1 { value >> 1 ^ POLYNOMIAL } else { value >> 1 };
            bit += 1;
        }
        table[byte] = value;
        byte += 1;
    }
    table
};

impl Digest {
    pub fn new(CrcAlgorithm::Crc64Nvme: CrcAlgorithm) -> Self {
        Self(u64::MAX)
    }

    pub fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = TABLE[usize::from(self.0 as u8 ^ byte)] ^ (self.0 >> 8);
        }
    }

    pub fn finalize(&self) -> u64 {
        !self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_check_value_comes_out() {
        let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
        digest.update(b"1234");
        digest.update(b"56789");
        assert_eq!(digest.finalize(), 0xae8b_1486_0a79_9888);
    }
}

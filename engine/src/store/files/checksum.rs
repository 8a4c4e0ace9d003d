//! The checksums that RocksDB writes: CRC-32C under its logs, XXH3 or CRC-32C under the blocks of its tables.

use twox_hash::XxHash3_64;

/// Reflected Castagnoli polynomial, eight tables: bytes are taken eight at a time.
const TABLES: [[u32; 256]; 8] = {
    let mut tables = [[0u32; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let (mut crc, mut bit) = (byte as u32, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut table = 1;
    while table < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[table - 1][byte];
            tables[table][byte] = (before >> 8) ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        table += 1;
    }
    tables
};

/// CRC-32C of several parts as of one.
pub(super) fn crc32c(parts: &[&[u8]]) -> u32 {
    let mut crc = u32::MAX;
    for part in parts {
        let mut words = part.chunks_exact(8);
        for word in words.by_ref() {
            let low = crc ^ u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            crc = TABLES[7][(low & 0xff) as usize]
                ^ TABLES[6][(low >> 8 & 0xff) as usize]
                ^ TABLES[5][(low >> 16 & 0xff) as usize]
                ^ TABLES[4][(low >> 24) as usize]
                ^ TABLES[3][word[4] as usize]
                ^ TABLES[2][word[5] as usize]
                ^ TABLES[1][word[6] as usize]
                ^ TABLES[0][word[7] as usize];
        }
        for byte in words.remainder() {
            crc = TABLES[0][((crc ^ u32::from(*byte)) & 0xff) as usize] ^ (crc >> 8);
        }
    }
    !crc
}

/// As RocksDB stores it, so that a checksum over data that holds a checksum is no special case.
pub(super) fn masked_crc32c(parts: &[&[u8]]) -> u32 {
    crc32c(parts).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A table's kind of checksum, by its number in the footer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Crc32c,
    Xxh3,
}

impl Kind {
    pub(super) const fn of(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Crc32c),
            4 => Some(Self::Xxh3),
            _ => None,
        }
    }

    /// Over a block and the byte that follows it, which says how the block is compressed.
    pub(super) fn compute(self, block: &[u8], last: u8) -> u32 {
        match self {
            Self::Crc32c => masked_crc32c(&[block, &[last]]),
            Self::Xxh3 => (XxHash3_64::oneshot(block) as u32) ^ u32::from(last).wrapping_mul(0x6b90_83d9),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_gives_the_values_of_rfc_3720() {
        assert_eq!(crc32c(&[&[0; 32]]), 0x8a91_36aa);
        assert_eq!(crc32c(&[&[0xff; 32]]), 0x62a8_ab43);
        let ascending: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(&[&ascending]), 0x46dd_794e);
        assert_eq!(crc32c(&[&ascending[..5], &ascending[5..19], &ascending[19..]]), 0x46dd_794e);
    }
}

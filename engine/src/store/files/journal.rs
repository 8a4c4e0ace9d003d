//! RocksDB's log format, in which it writes its write-ahead logs and its MANIFEST: blocks of 32 KiB, in them fragments of
//! records, each with a CRC-32C.

use std::io::{self, Read};

use super::checksum::masked_crc32c;

const BLOCK_BYTES: usize = 32 << 10;
const HEADER_BYTES: usize = 7;
/// A record of a batch is bounded by what one append may hold.
const RECORD_BYTES_MAX: usize = 1 << 30;

/// How a log ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// After a whole record.
    Whole,
    /// What starts at `offset` cannot be read.
    Broken {
        /// Where it starts.
        offset: u64,
        /// Why.
        why: String,
        /// Whether something sound comes after it: then it is no torn end.
        followed: bool,
    },
}

/// Reads a log strictly: every byte of it belongs to a sound record or to the zeros that fill a block. `each` is given
/// where a record starts and its bytes; what it refuses is as broken as a wrong checksum.
pub(super) fn read(file: impl Read, mut each: impl FnMut(u64, &[u8]) -> Result<(), String>) -> io::Result<End> {
    let mut reader = Blocks { file, block: Vec::new(), start: 0, at: 0 };
    let (mut record, mut started): (Vec<u8>, Option<u64>) = (Vec::new(), None);
    let broken = |offset: u64, why: String, followed: bool| Ok(End::Broken { offset, why, followed });
    loop {
        let offset = reader.offset();
        let fragment = match reader.fragment()? {
            Step::End => break,
            Step::Fragment(fragment) => fragment,
            Step::Broken(why) => {
                let followed = reader.followed()?;
                return broken(started.unwrap_or(offset), format!("byte {offset}: {why}"), followed);
            }
        };
        let misplaced = match (fragment.place, started) {
            (Place::Full | Place::First, None) => {
                started = Some(offset);
                record.clear();
                false
            }
            (Place::Middle | Place::Last, Some(_)) => false,
            _ => true,
        };
        if misplaced || record.len() + fragment.bytes.len() > RECORD_BYTES_MAX {
            return broken(
                started.unwrap_or(offset),
                format!("byte {offset}: parts of records are out of order"),
                true,
            );
        }
        record.extend_from_slice(&fragment.bytes);
        if matches!(fragment.place, Place::Full | Place::Last) {
            let start = started.take().unwrap_or(offset);
            if let Err(why) = each(start, &record) {
                return broken(start, why, true);
            }
        }
    }
    match started {
        None => Ok(End::Whole),
        Some(offset) => broken(offset, "the file ends inside a record".into(), false),
    }
}

#[derive(Clone, Copy)]
enum Place {
    Full,
    First,
    Middle,
    Last,
}

struct Fragment {
    place: Place,
    bytes: Vec<u8>,
}

enum Step {
    Fragment(Fragment),
    Broken(String),
    End,
}

struct Blocks<R> {
    file: R,
    block: Vec<u8>,
    /// Where the block starts in the file.
    start: u64,
    at: usize,
}

impl<R: Read> Blocks<R> {
    fn offset(&self) -> u64 {
        self.start + self.at as u64
    }

    /// The next block; false at the end of the file.
    fn next_block(&mut self) -> io::Result<bool> {
        self.start += self.block.len() as u64;
        self.at = 0;
        self.block.clear();
        let file = &mut self.file;
        file.take(BLOCK_BYTES as u64).read_to_end(&mut self.block)?;
        Ok(!self.block.is_empty())
    }

    fn fragment(&mut self) -> io::Result<Step> {
        loop {
            let left = &self.block[self.at..];
            let full = self.block.len() == BLOCK_BYTES;
            if left.is_empty() || (left.len() < HEADER_BYTES && full) {
                if left.iter().any(|byte| *byte != 0) {
                    return Ok(Step::Broken("what fills the block is not zero".into()));
                }
                if !self.next_block()? {
                    return Ok(Step::End);
                }
                continue;
            }
            if left.len() < HEADER_BYTES {
                return Ok(Step::Broken("the file ends inside a header".into()));
            }
            let length = usize::from(u16::from_le_bytes([left[4], left[5]]));
            let Some(bytes) = left.get(HEADER_BYTES..HEADER_BYTES + length) else {
                return Ok(Step::Broken("the length leads beyond the block or the file".into()));
            };
            let stored = u32::from_le_bytes([left[0], left[1], left[2], left[3]]);
            let computed = masked_crc32c(&[&left[6..7], bytes]);
            if stored != computed {
                return Ok(Step::Broken(format!("the checksum is {computed:08x}, stored is {stored:08x}")));
            }
            let place = match left[6] {
                1 => Place::Full,
                2 => Place::First,
                3 => Place::Middle,
                4 => Place::Last,
                // How the records after it are compressed, or what came before: no record of its own.
                other => return Ok(Step::Broken(format!("a part of kind {other}, which this store never writes"))),
            };
            let bytes = bytes.to_vec();
            self.at += HEADER_BYTES + length;
            return Ok(Step::Fragment(Fragment { place, bytes }));
        }
    }

    /// Whether a sound fragment starts anywhere in the rest: what is broken is then in the middle.
    fn followed(&mut self) -> io::Result<bool> {
        self.at += 1;
        loop {
            while self.at + HEADER_BYTES < self.block.len() {
                let at = self.at;
                // A zero length with any checksum is too cheap a witness.
                if matches!(self.block[at + 6], 1..=4)
                    && (self.block[at + 4], self.block[at + 5]) != (0, 0)
                    && let Step::Fragment(_) = self.fragment()?
                {
                    return Ok(true);
                }
                self.at = at + 1;
            }
            if !self.next_block()? {
                return Ok(false);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log of the records, as RocksDB would write it.
    fn written(records: &[Vec<u8>]) -> Vec<u8> {
        let mut log = Vec::new();
        for record in records {
            let (mut rest, mut first) = (&record[..], true);
            loop {
                let left = BLOCK_BYTES - log.len() % BLOCK_BYTES;
                if left < HEADER_BYTES {
                    log.resize(log.len() + left, 0);
                    continue;
                }
                let (now, later) = rest.split_at(rest.len().min(left - HEADER_BYTES));
                let kind = match (first, later.is_empty()) {
                    (true, true) => 1,
                    (true, false) => 2,
                    (false, false) => 3,
                    (false, true) => 4,
                };
                log.extend_from_slice(&masked_crc32c(&[&[kind], now]).to_le_bytes());
                log.extend_from_slice(&(now.len() as u16).to_le_bytes());
                log.push(kind);
                log.extend_from_slice(now);
                (rest, first) = (later, false);
                if rest.is_empty() {
                    break;
                }
            }
        }
        log
    }

    fn records() -> Vec<Vec<u8>> {
        [10, 40_000, 25_500, 100_000, 3].iter().enumerate().map(|(n, bytes)| vec![n as u8 + 1; *bytes]).collect()
    }

    fn end(log: &[u8]) -> (usize, End) {
        let mut count = 0;
        let end = read(log, |_, _| {
            count += 1;
            Ok(())
        });
        (count, end.unwrap())
    }

    #[test]
    fn records_of_all_sizes_are_read_whole() {
        let mut read_back = Vec::new();
        let log = written(&records());
        let end = read(&log[..], |_, record| {
            read_back.push(record.to_vec());
            Ok(())
        });
        assert_eq!((end.unwrap(), read_back), (End::Whole, records()));
    }

    #[test]
    fn a_flipped_bit_is_broken_and_a_cut_end_is_told_apart_from_a_broken_middle() {
        let log = written(&records());
        for at in (0..log.len()).step_by(977).chain(log.len() - 10..log.len()) {
            let mut damaged = log.clone();
            damaged[at] ^= 4;
            let (_, end) = end(&damaged);
            let End::Broken { offset, followed, .. } = end else { panic!("byte {at}") };
            assert!(offset <= at as u64 && (followed || at > log.len() - 11), "byte {at}: {offset} {followed}");
        }
        for cut in [1, 9, 10, 11, 5_000] {
            let (count, end) = end(&log[..log.len() - cut]);
            match end {
                End::Whole => assert_eq!((cut, count), (10, 4)),
                End::Broken { followed, .. } => assert!(!followed, "{cut}"),
            }
        }
    }
}

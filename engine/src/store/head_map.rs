//! Where every deal stands, as one hash: the head map that checkpoints commit to (`tribunal_events::tlog` defines it).
//!
//! The trie is cut at 16 bits of the deal id. Above the cut everything is in memory; below it a bucket is computed from the
//! heads of its deals, which the store holds anyway. Kept on disk are a bucket's hash and, for each deal, the proof of its
//! head in the first checkpoint that covers its last record.
//!
//! | key in `head-map` | value |
//! |---|---|
//! | 0 | tree size and number of deals that the buckets are of |
//! | 1, bucket (2 bytes) | entries (0, 1, or 2 for more) and hash |
//! | 2, deal (32 bytes) | tree size, then siblings from the root down |

use std::collections::{BTreeMap, BTreeSet};

use rocksdb::{Direction, IteratorMode, WriteBatch};
use tribunal_events::{
    DealId,
    tlog::{Hash, HeadEntry, Heads, node_hash},
};

use super::{Head, Inner, StoreFault, family::Family, record::array, row};

const BUCKET_BITS: usize = 16;
const BUCKETS: usize = 1 << BUCKET_BITS;
const STATE_KEY: [u8; 1] = [0];
const OF_BUCKETS: u8 = 1;
const OF_DEALS: u8 = 2;
const NOTHING: Hash = [0; 32];
/// Bytes of rows that are written at once while a map is brought up to date.
const BATCH_BYTES: usize = 4 << 20;

/// A set of deals: how many (2 for more) and their hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Part {
    entries: u8,
    hash: Hash,
}

impl Part {
    const EMPTY: Self = Self { entries: 0, hash: NOTHING };

    fn over(left: &Self, right: &Self) -> Self {
        match (left.entries, right.entries) {
            (0, 0) => Self::EMPTY,
            // A deal alone is itself, at whatever depth.
            (1, 0) => *left,
            (0, 1) => *right,
            _ => Self { entries: 2, hash: node_hash(&left.hash, &right.hash) },
        }
    }
}

/// The map at one tree size.
pub(super) struct HeadMap {
    size: u64,
    deals: u64,
    /// A heap: the parts of node `n` are `2 n` and `2 n + 1`, the root is 1, bucket `b` is `BUCKETS + b`.
    parts: Vec<Part>,
}

impl Default for HeadMap {
    fn default() -> Self {
        Self { size: 0, deals: 0, parts: vec![Part::EMPTY; 2 * BUCKETS] }
    }
}

impl HeadMap {
    /// Reads the map that was made last; where none was ever made, an empty one.
    pub(super) fn load(inner: &Inner) -> Result<Self, StoreFault> {
        let mut this = Self::default();
        let Some(row) = inner.get(Family::HeadMap, &STATE_KEY)? else { return Ok(this) };
        let body = row::unseal(Family::HeadMap, &STATE_KEY, &row)?;
        if body.len() != 16 {
            return Err(row::damaged(Family::HeadMap, &STATE_KEY, "the state has 16 bytes"));
        }
        (this.size, this.deals) = (u64::from_be_bytes(array(body, 0)), u64::from_be_bytes(array(body, 8)));
        let from = IteratorMode::From(&[OF_BUCKETS], Direction::Forward);
        for row in inner.db.iterator_cf(inner.family(Family::HeadMap), from) {
            let (key, row) = row.map_err(|error| StoreFault::rocks("reading the head map", error))?;
            if key[0] != OF_BUCKETS {
                break;
            }
            let body = row::unseal(Family::HeadMap, &key, &row)?;
            if key.len() != 3 || body.len() != 33 || body[0] > 2 {
                return Err(row::damaged(Family::HeadMap, &key, "a bucket has 33 bytes, the first at most 2"));
            }
            let number = usize::from(u16::from_be_bytes([key[1], key[2]]));
            this.parts[BUCKETS + number] = Part { entries: body[0], hash: array(body, 1) };
        }
        for node in (1..BUCKETS).rev() {
            this.parts[node] = Part::over(&this.parts[2 * node], &this.parts[2 * node + 1]);
        }
        Ok(this)
    }

    /// Tree size that it is of.
    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// What a checkpoint says of it.
    pub(super) fn heads(&self) -> Heads {
        Heads { deals: self.deals, root: self.parts[1].hash }
    }

    /// Brings it up to the log's end, which must not move meanwhile: `moved` are the deals with records after its size, and
    /// `started` how many of them are new. Writes whatever is kept of it, all but the last part of it unsynced.
    pub(super) fn advance(
        &mut self,
        inner: &Inner,
        size: u64,
        moved: &BTreeSet<DealId>,
        started: u64,
    ) -> Result<WriteBatch, StoreFault> {
        let mut buckets: BTreeMap<usize, Vec<DealId>> = BTreeMap::new();
        for deal_id in moved {
            buckets.entry(bucket_of(deal_id)).or_default().push(*deal_id);
        }
        let mut batch = WriteBatch::default();
        let family = inner.family(Family::HeadMap);
        let mut entries = BTreeMap::new();
        for &number in buckets.keys() {
            let held = bucket(inner, number)?;
            let part = part(&held, BUCKET_BITS);
            let [high, low] = bucket_prefix(number);
            let key = [OF_BUCKETS, high, low];
            let body = [&[part.entries][..], &part.hash].concat();
            batch.put_cf(family, key, row::seal(Family::HeadMap, &key, body));
            self.parts[BUCKETS + number] = part;
            entries.insert(number, held);
        }
        for &number in buckets.keys() {
            let mut node = (BUCKETS + number) / 2;
            while node > 0 {
                self.parts[node] = Part::over(&self.parts[2 * node], &self.parts[2 * node + 1]);
                node /= 2;
            }
        }
        // Only now are the parts beside each path known.
        for (number, deals) in buckets {
            let held = &entries[&number];
            for deal_id in deals {
                let mut body = size.to_be_bytes().to_vec();
                for sibling in self.siblings(held, &deal_id) {
                    body.extend_from_slice(&sibling);
                }
                let key = deal_key(&deal_id);
                batch.put_cf(family, key, row::seal(Family::HeadMap, &key, body));
            }
            if batch.size_in_bytes() > BATCH_BYTES {
                inner.write(std::mem::take(&mut batch), false)?;
            }
        }
        (self.size, self.deals) = (size, self.deals + started);
        let body = [size.to_be_bytes(), self.deals.to_be_bytes()].concat();
        batch.put_cf(family, STATE_KEY, row::seal(Family::HeadMap, &STATE_KEY, body));
        Ok(batch)
    }

    /// The siblings on the way to a deal, from the root down to where it stands alone; or would stand.
    fn siblings(&self, held: &[HeadEntry], deal_id: &DealId) -> Vec<Hash> {
        let mut siblings = Vec::new();
        for depth in 0..BUCKET_BITS {
            let node = (1 << depth) | bucket_of(deal_id) >> (BUCKET_BITS - depth);
            if self.parts[node].entries < 2 {
                return siblings;
            }
            let child = (1 << (depth + 1)) | bucket_of(deal_id) >> (BUCKET_BITS - depth - 1);
            siblings.push(self.parts[child ^ 1].hash);
        }
        let mut held = held;
        for depth in BUCKET_BITS.. {
            if held.len() < 2 {
                break;
            }
            let (zeros, ones) = split(held, depth);
            let (ours, beside) = if bit(deal_id, depth) { (ones, zeros) } else { (zeros, ones) };
            siblings.push(part(beside, depth + 1).hash);
            held = ours;
        }
        siblings
    }

    /// Proof of where a deal stands at this map's size: its entry, or, where the map has none, the deal that stands in its
    /// place, if any.
    pub(super) fn prove(&self, inner: &Inner, deal_id: &DealId) -> Result<(Option<HeadEntry>, Vec<Hash>), StoreFault> {
        let mut held = Vec::new();
        for entry in bucket(inner, bucket_of(deal_id))? {
            held.extend(as_of(inner, entry, self.size)?);
        }
        let siblings = self.siblings(&held, deal_id);
        let depth = siblings.len();
        // Alone at its depth: in this bucket, or above the cut in whichever bucket the single entry is.
        let mut alone = held.iter().filter(|it| (0..depth).all(|depth| bit(&it.deal_id, depth) == bit(deal_id, depth)));
        let mut found = alone.next().copied();
        if found.is_none() && depth < BUCKET_BITS {
            let mut node = (1 << depth) | bucket_of(deal_id) >> (BUCKET_BITS - depth);
            if self.parts[node].entries == 1 {
                while node < BUCKETS {
                    node = 2 * node + usize::from(self.parts[2 * node].entries == 0);
                }
                for entry in bucket(inner, node - BUCKETS)? {
                    found = found.or(as_of(inner, entry, self.size)?);
                }
            }
        }
        Ok((found, siblings))
    }
}

/// The proof of a deal's head in the first checkpoint after its last record, and that checkpoint's size.
pub(super) fn kept_proof(inner: &Inner, deal_id: &DealId) -> Result<Option<(u64, Vec<Hash>)>, StoreFault> {
    let key = deal_key(deal_id);
    let Some(row) = inner.get(Family::HeadMap, &key)? else { return Ok(None) };
    let body = row::unseal(Family::HeadMap, &key, &row)?;
    let Some((size, siblings)) = body.split_first_chunk().filter(|(_, rest)| rest.len() % 32 == 0) else {
        return Err(row::damaged(Family::HeadMap, &key, "a proof is a size and hashes of 32 bytes"));
    };
    Ok(Some((u64::from_be_bytes(*size), siblings.chunks_exact(32).map(|hash| array(hash, 0)).collect())))
}

/// Where a deal stood when the log had `size` records; nothing if it had none yet.
fn as_of(inner: &Inner, now: HeadEntry, size: u64) -> Result<Option<HeadEntry>, StoreFault> {
    let mut at = now;
    while at.position > size {
        let version = at.version - 1;
        if version == 0 {
            return Ok(None);
        }
        let row = inner.get(Family::Index, &row::index_key(&now.deal_id, version))?;
        let row = row.ok_or_else(|| row::damaged(Family::Index, now.deal_id.bytes(), "a version is missing"))?;
        let (position, link) = row::read_index_row(&now.deal_id, &row)?;
        at = HeadEntry { version, position, link, ..now };
    }
    Ok(Some(at))
}

/// The deals of a bucket, by id.
fn bucket(inner: &Inner, number: usize) -> Result<Vec<HeadEntry>, StoreFault> {
    inner.usable()?;
    let prefix = bucket_prefix(number);
    let rows = inner.db.iterator_cf(inner.family(Family::Heads), IteratorMode::From(&prefix, Direction::Forward));
    let mut held = Vec::new();
    for row in rows {
        let (key, row) = row.map_err(|error| StoreFault::rocks("reading heads", error))?;
        if !key.starts_with(&prefix) {
            break;
        }
        let deal_id = DealId::from_slice(&key).map_err(|_| row::damaged(Family::Heads, &key, "not a deal id"))?;
        held.push(entry(deal_id, &row::read_head(&key, &row)?));
    }
    Ok(held)
}

pub(super) const fn entry(deal_id: DealId, head: &Head) -> HeadEntry {
    HeadEntry { deal_id, version: head.version, position: head.last_position, link: head.link }
}

/// What deals that share their first `depth` bits come to; by id.
fn part(held: &[HeadEntry], depth: usize) -> Part {
    match held {
        [] => Part::EMPTY,
        [one] => Part { entries: 1, hash: one.hash() },
        many => {
            let (zeros, ones) = split(many, depth);
            Part::over(&part(zeros, depth + 1), &part(ones, depth + 1))
        }
    }
}

fn split(held: &[HeadEntry], depth: usize) -> (&[HeadEntry], &[HeadEntry]) {
    held.split_at(held.partition_point(|entry| !bit(&entry.deal_id, depth)))
}

fn bit(deal_id: &DealId, depth: usize) -> bool {
    deal_id.bytes()[depth / 8] >> (7 - depth % 8) & 1 == 1
}

fn bucket_of(deal_id: &DealId) -> usize {
    usize::from(u16::from_be_bytes(array(deal_id.bytes(), 0)))
}

/// How the ids of a bucket's deals begin.
fn bucket_prefix(number: usize) -> [u8; 2] {
    u16::try_from(number).expect("there are 2^16 buckets").to_be_bytes()
}

fn deal_key(deal_id: &DealId) -> [u8; 33] {
    let mut key = [OF_DEALS; 33];
    key[1..].copy_from_slice(deal_id.bytes());
    key
}

//! The Merkle tree over the log: RFC 6962 with SHA-256, leaf `i` is the record at position `i + 1`.
//!
//! Kept in tiles of 256 hashes, as C2SP's tlog-tiles has them: tile `n` of level 0 holds the hashes of leaves 256 n and
//! following, of level `k` the roots over 256^k leaves each. A tile of level 0 is written once, when it is full: until then
//! its hashes follow from the records. Tiles above are written again whenever they grow, so once in 256 leaves. What lies
//! between levels is computed, which costs a proof at most one tile a level.
//!
//! **Invariant:** tiles and records are in the same write, so the tree is never behind the log or ahead of it.

use std::collections::BTreeMap;

use rocksdb::WriteBatch;
use tribunal_events::tlog::{Hash, empty_root, leaf_hash, node_hash};

use super::{Inner, Store, StoreFault, family::Family, record, row};

/// Hashes in a full tile, and binary levels from one tile to the next.
const TILE: usize = 256;
const TILE_LEVELS: u32 = 8;
/// Bytes of tiles that an upgrade writes at once.
const UPGRADE_BATCH_BYTES: usize = 4 << 20;

/// Level and number of a tile.
type TileId = (u8, u64);

/// The unfinished tiles: all that appending needs to know of the tree.
#[derive(Clone, Debug, Default)]
pub(super) struct Edge {
    /// By level, each shorter than a tile.
    levels: Vec<Vec<Hash>>,
}

impl Edge {
    /// Leaves.
    fn size(&self) -> u64 {
        let below = |(level, hashes): (usize, &Vec<Hash>)| (hashes.len() as u64) << (TILE_LEVELS as usize * level);
        self.levels.iter().enumerate().map(below).sum()
    }

    /// Root over all leaves.
    pub(super) fn root(&self) -> Hash {
        let mut root = None;
        // From the smallest complete subtree, which is the last, to the largest.
        for hashes in &self.levels {
            let mut end = hashes.len();
            for bit in 0..TILE_LEVELS {
                let width = 1 << bit;
                if end & width != 0 {
                    let peak = fold(&hashes[end - width..end]);
                    root = Some(root.map_or(peak, |right| node_hash(&peak, &right)));
                    end -= width;
                }
            }
        }
        root.unwrap_or_else(empty_root)
    }

    /// Adds leaves; gives the tiles that are to be written.
    fn extend(&mut self, leaves: &[Hash]) -> BTreeMap<TileId, Vec<Hash>> {
        let mut tiles = BTreeMap::new();
        let mut size = self.size();
        for leaf in leaves {
            size += 1;
            let mut hash = *leaf;
            for level in 0.. {
                if level == self.levels.len() {
                    self.levels.push(Vec::new());
                }
                let hashes = &mut self.levels[level];
                hashes.push(hash);
                let number = (size - 1) >> (TILE_LEVELS as usize * (level + 1));
                let id = (u8::try_from(level).expect("at most eight levels"), number);
                if level > 0 || hashes.len() == TILE {
                    tiles.insert(id, hashes.clone());
                }
                if hashes.len() < TILE {
                    break;
                }
                hash = fold(&std::mem::take(hashes));
            }
        }
        tiles
    }

    /// Adds leaves and puts what that changes into a batch.
    pub(super) fn append(&mut self, leaves: &[Hash], inner: &Inner, batch: &mut WriteBatch) {
        for (id, hashes) in self.extend(leaves) {
            let key = tile_key(id);
            let row = row::seal(Family::Tree, &key, hashes.concat());
            batch.put_cf(inner.family(Family::Tree), key, row);
        }
    }

    /// Reads the edge of a tree of this size.
    pub(super) fn load(inner: &Inner, size: u64) -> Result<Self, StoreFault> {
        let mut tree = Tree::new(inner, size);
        let mut levels = Vec::new();
        for level in 0u8.. {
            let count = size >> (TILE_LEVELS * u32::from(level));
            if count == 0 {
                break;
            }
            let width = (count % TILE as u64) as usize;
            let number = count / TILE as u64;
            levels.push(if width == 0 { Vec::new() } else { tree.tile((level, number))?[..width].to_vec() });
        }
        Ok(Self { levels })
    }

    /// Builds the tree of a log that has none, from its records, over what an earlier attempt left.
    pub(super) fn build(store: &Store) -> Result<Self, StoreFault> {
        let mut edge = Self::default();
        let mut batch = WriteBatch::default();
        for record in store.log(1) {
            edge.append(&[leaf_of(&record?)], &store.0, &mut batch);
            if batch.size_in_bytes() > UPGRADE_BATCH_BYTES {
                store.0.write(std::mem::take(&mut batch), false)?;
            }
        }
        store.0.write(batch, true)?;
        Ok(edge)
    }
}

/// The leaf of a record: the hash of its whole frame.
pub(super) fn leaf_of(record: &record::Record) -> Hash {
    let mut frame = record::record_bytes(record);
    frame.extend_from_slice(record.link.bytes());
    leaf_hash(&frame)
}

/// Root over a power of two of hashes.
fn fold(hashes: &[Hash]) -> Hash {
    match hashes {
        [one] => *one,
        many => {
            let (left, right) = many.split_at(many.len() / 2);
            node_hash(&fold(left), &fold(right))
        }
    }
}

fn tile_key((level, number): TileId) -> [u8; 9] {
    let mut key = [0; 9];
    key[0] = level;
    key[1..].copy_from_slice(&number.to_be_bytes());
    key
}

/// A tree for reading; tiles that were read stay in memory as long as it lives.
struct Tree<'a> {
    inner: &'a Inner,
    /// Leaves that may be asked for.
    size: u64,
    tiles: BTreeMap<TileId, Vec<Hash>>,
}

impl<'a> Tree<'a> {
    const fn new(inner: &'a Inner, size: u64) -> Self {
        Self { inner, size, tiles: BTreeMap::new() }
    }

    fn tile(&mut self, id: TileId) -> Result<&[Hash], StoreFault> {
        if !self.tiles.contains_key(&id) {
            let hashes = self.read(id)?;
            self.tiles.insert(id, hashes);
        }
        Ok(&self.tiles[&id])
    }

    fn read(&self, id: TileId) -> Result<Vec<Hash>, StoreFault> {
        let (level, number) = id;
        let count = (self.size >> (TILE_LEVELS * u32::from(level))) - number * TILE as u64;
        let width = count.min(TILE as u64) as usize;
        let key = tile_key(id);
        let row = self.inner.get(Family::Tree, &key)?;
        match row {
            Some(row) => {
                let body = row::unseal(Family::Tree, &key, &row)?;
                if body.len() % 32 != 0 || body.len() / 32 < width || body.len() / 32 > TILE {
                    let what = format!("a tile of {} bytes that should hold {width} hashes", body.len());
                    return Err(row::damaged(Family::Tree, &key, &what));
                }
                Ok(body.chunks_exact(32).map(|hash| record::array(hash, 0)).collect())
            }
            None if level == 0 && width < TILE => {
                let first = number * TILE as u64 + 1;
                (first..first + width as u64).map(|at| Ok(leaf_of(&self.inner.record(at)?))).collect()
            }
            None => Err(row::damaged(Family::Tree, &key, "the tile is missing")),
        }
    }

    /// Root over the leaves `from..to`; `from` is a multiple of the least power of two that is not less than their number.
    fn root(&mut self, from: u64, to: u64) -> Result<Hash, StoreFault> {
        let count = to - from;
        if !count.is_power_of_two() {
            let split = from + count.next_power_of_two() / 2;
            return Ok(node_hash(&self.root(from, split)?, &self.root(split, to)?));
        }
        let height = count.trailing_zeros();
        let (level, within) = (height / TILE_LEVELS, height % TILE_LEVELS);
        let first = from >> (TILE_LEVELS * level);
        let tile = self.tile((u8::try_from(level).expect("at most eight levels"), first / TILE as u64))?;
        let at = (first % TILE as u64) as usize;
        Ok(fold(&tile[at..at + (1 << within)]))
    }

    /// The audit path of a leaf among `from..to`, its sibling first.
    fn path(&mut self, leaf: u64, from: u64, to: u64, path: &mut Vec<Hash>) -> Result<(), StoreFault> {
        if to - from == 1 {
            return Ok(());
        }
        let split = from + (to - from).next_power_of_two() / 2;
        if leaf < split {
            self.path(leaf, from, split, path)?;
            path.push(self.root(split, to)?);
        } else {
            self.path(leaf, split, to, path)?;
            path.push(self.root(from, split)?);
        }
        Ok(())
    }

    /// That the first `older` leaves were the whole tree once; `whole` while they are all of `from..to` seen so far.
    fn growth(
        &mut self,
        older: u64,
        (from, to): (u64, u64),
        whole: bool,
        proof: &mut Vec<Hash>,
    ) -> Result<(), StoreFault> {
        if older == to {
            if !whole {
                proof.push(self.root(from, to)?);
            }
            return Ok(());
        }
        let split = from + (to - from).next_power_of_two() / 2;
        if older <= split {
            self.growth(older, (from, split), whole, proof)?;
            proof.push(self.root(split, to)?);
        } else {
            self.growth(older, (split, to), false, proof)?;
            proof.push(self.root(from, split)?);
        }
        Ok(())
    }
}

impl Store {
    /// Root of the tree over the first `size` records; nothing if there are not so many.
    ///
    /// # Errors
    /// [`StoreFault`] if it cannot be read.
    pub fn tree_root(&self, size: u64) -> Result<Option<Hash>, StoreFault> {
        if size > self.last_position() {
            return Ok(None);
        }
        if size == 0 {
            return Ok(Some(empty_root()));
        }
        Tree::new(&self.0, size).root(0, size).map(Some)
    }

    /// The audit path of the record at a position in the tree over the first `size` records; nothing if there are not so
    /// many, or it is not among them.
    ///
    /// # Errors
    /// [`StoreFault`] if it cannot be read.
    pub fn prove_inclusion(&self, position: u64, size: u64) -> Result<Option<Vec<Hash>>, StoreFault> {
        Ok(self.prove_inclusions(&[position], size)?.and_then(|mut paths| paths.pop()))
    }

    /// As [`Store::prove_inclusion`] for many records, reading each tile once.
    ///
    /// # Errors
    /// [`StoreFault`] if it cannot be read.
    pub fn prove_inclusions(&self, positions: &[u64], size: u64) -> Result<Option<Vec<Vec<Hash>>>, StoreFault> {
        if size > self.last_position() || positions.iter().any(|&position| position == 0 || position > size) {
            return Ok(None);
        }
        let mut tree = Tree::new(&self.0, size);
        let path = |&position: &u64| {
            let mut path = Vec::new();
            tree.path(position - 1, 0, size, &mut path).map(|()| path)
        };
        positions.iter().map(path).collect::<Result<_, _>>().map(Some)
    }

    /// The first `width` hashes of a tile, as C2SP's tlog-tiles serves them; nothing where the log is not so long.
    ///
    /// # Errors
    /// [`StoreFault`] if it cannot be read.
    pub fn tile(&self, level: u8, number: u64, width: usize) -> Result<Option<Vec<u8>>, StoreFault> {
        let size = self.last_position();
        let shift = TILE_LEVELS.saturating_mul(u32::from(level));
        let end = number.checked_mul(TILE as u64).and_then(|first| first.checked_add(width as u64));
        let there = size.checked_shr(shift).unwrap_or_default();
        if width == 0 || width > TILE || end.is_none_or(|end| end > there) {
            return Ok(None);
        }
        let mut tree = Tree::new(&self.0, size);
        Ok(Some(tree.tile((level, number))?[..width].concat()))
    }

    /// The proof that the log of `older` records is the beginning of that of `newer`; nothing if there are not so many.
    ///
    /// # Errors
    /// [`StoreFault`] if it cannot be read.
    pub fn prove_consistency(&self, older: u64, newer: u64) -> Result<Option<Vec<Hash>>, StoreFault> {
        if newer > self.last_position() || older > newer {
            return Ok(None);
        }
        let mut proof = Vec::new();
        if older > 0 {
            Tree::new(&self.0, newer).growth(older, (0, newer), true, &mut proof)?;
        }
        Ok(Some(proof))
    }
}

/// The tree computed again from the records, compared with its tiles.
pub(super) struct TreeCheck {
    edge: Edge,
}

impl TreeCheck {
    pub(super) fn new() -> Self {
        Self { edge: Edge::default() }
    }

    /// Takes the leaf of the next record; gives what differs.
    pub(super) fn take(&mut self, inner: &Inner, leaf: &Hash, size: u64) -> Result<(), StoreFault> {
        for (id, hashes) in self.edge.extend(std::slice::from_ref(leaf)) {
            // A tile that still grows is looked at when it is full, or at the end.
            if hashes.len() == TILE {
                Self::compare(inner, id, &hashes, size)?;
            }
        }
        Ok(())
    }

    /// The tiles that are not full yet.
    pub(super) fn finish(&self, inner: &Inner) -> Result<(), StoreFault> {
        let size = self.edge.size();
        for (level, hashes) in (0u8..).zip(&self.edge.levels).skip(1) {
            if !hashes.is_empty() {
                Self::compare(inner, (level, size >> (TILE_LEVELS * (u32::from(level) + 1))), hashes, size)?;
            }
        }
        Ok(())
    }

    fn compare(inner: &Inner, id: TileId, hashes: &[Hash], size: u64) -> Result<(), StoreFault> {
        let stored = Tree::new(inner, size).read(id)?;
        if stored.starts_with(hashes) {
            return Ok(());
        }
        Err(row::damaged(Family::Tree, &tile_key(id), "the hashes are not those of the records"))
    }
}

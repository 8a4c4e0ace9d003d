use sha2::{Digest as _, Sha256};

use crate::{ChainLink, DealId};

/// A SHA-256 hash.
pub type Hash = [u8; 32];

/// Siblings in the head map at most: one a bit of a deal id.
const SIBLINGS_MAX: usize = 256;

/// Why a proof shows nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The leaf is not in a tree of this size.
    #[error("leaf {index} is not in a tree of {size} leaves")]
    OutOfRange {
        /// The leaf.
        index: u64,
        /// Leaves of the tree.
        size: u64,
    },
    /// The earlier tree is longer than the later one.
    #[error("a log of {older} leaves cannot have grown to {newer}")]
    Shrunk {
        /// Leaves before.
        older: u64,
        /// Leaves after.
        newer: u64,
    },
    /// Not the number of hashes that these sizes need.
    #[error("the proof has {0} hashes, which is not the number that the sizes need")]
    Length(usize),
    /// The hashes lead to another root.
    #[error("the proof leads to another root than the checkpoint's")]
    Root,
    /// A deal was said to be absent, and what is shown in its place is not on its path.
    #[error("what is shown in the deal's place is not on its path")]
    Path,
}

/// Where a deal stands, as the head map has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadEntry {
    /// The deal.
    pub deal_id: DealId,
    /// Version of its last record.
    pub version: u64,
    /// Log position of its last record.
    pub position: u64,
    /// Its chain after that record.
    pub link: ChainLink,
}

impl HeadEntry {
    /// Its hash where it stands alone.
    pub fn hash(&self) -> Hash {
        let mut hasher = Sha256::new_with_prefix([0]);
        hasher.update(self.deal_id.bytes());
        hasher.update(self.version.to_be_bytes());
        hasher.update(self.position.to_be_bytes());
        hasher.update(self.link.bytes());
        hasher.finalize().into()
    }
}

/// The hash of a leaf with this data.
pub fn leaf_hash(data: &[u8]) -> Hash {
    Sha256::new_with_prefix([0]).chain_update(data).finalize().into()
}

/// The hash of a node over two.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new_with_prefix([1]).chain_update(left).chain_update(right).finalize().into()
}

/// Checks that the leaf with this hash is at `index` in the tree of `size` leaves with this root (RFC 9162, 2.1.3.2).
///
/// # Errors
/// [`ProofError`].
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, path: &[Hash], root: &Hash) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::OutOfRange { index, size });
    }
    let (mut node, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for sibling in path {
        if last == 0 {
            return Err(ProofError::Length(path.len()));
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            // Levels at which this node has no sibling yet.
            while node & 1 == 0 && node != 0 {
                (node, last) = (node >> 1, last >> 1);
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    match (last, hash == *root) {
        (0, true) => Ok(()),
        (0, false) => Err(ProofError::Root),
        _ => Err(ProofError::Length(path.len())),
    }
}

/// Checks that the tree of `older` leaves is the beginning of the tree of `newer` leaves (RFC 9162, 2.1.4.2).
///
/// # Errors
/// [`ProofError`].
pub fn verify_consistency(
    (older, older_root): (u64, &Hash),
    (newer, newer_root): (u64, &Hash),
    proof: &[Hash],
) -> Result<(), ProofError> {
    if older > newer {
        return Err(ProofError::Shrunk { older, newer });
    }
    if older == 0 || older == newer {
        // Everything begins with nothing; and a log is consistent with itself.
        let same = older != newer || older_root == newer_root;
        let empty = older != 0 || *older_root == empty_root();
        return match (proof.len(), same && empty) {
            (0, true) => Ok(()),
            (0, false) => Err(ProofError::Root),
            (length, _) => Err(ProofError::Length(length)),
        };
    }
    let wrong_length = ProofError::Length(proof.len());
    let (mut node, mut last) = (older - 1, newer - 1);
    while node & 1 == 1 {
        (node, last) = (node >> 1, last >> 1);
    }
    // A complete older tree is a node of the newer one and starts the proof itself.
    let (first, rest) = match node {
        0 => (older_root, proof),
        _ => proof.split_first().ok_or(wrong_length)?,
    };
    let (mut old, mut new) = (*first, *first);
    for sibling in rest {
        if last == 0 {
            return Err(wrong_length);
        }
        if node & 1 == 1 || node == last {
            old = node_hash(sibling, &old);
            new = node_hash(sibling, &new);
            while node & 1 == 0 && node != 0 {
                (node, last) = (node >> 1, last >> 1);
            }
        } else {
            new = node_hash(&new, sibling);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    if last != 0 {
        return Err(wrong_length);
    }
    if old == *older_root && new == *newer_root { Ok(()) } else { Err(ProofError::Root) }
}

/// The root of a tree without leaves.
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// Checks that the head map with this root has this entry: where the deal stands, and that nothing of it follows.
///
/// # Errors
/// [`ProofError`].
pub fn verify_head(entry: &HeadEntry, siblings: &[Hash], root: &Hash) -> Result<(), ProofError> {
    if climb(&entry.deal_id, entry.hash(), siblings)? == *root { Ok(()) } else { Err(ProofError::Root) }
}

/// Checks that the head map with this root knows nothing of a deal: where it would stand there is nothing, or `other` alone.
///
/// # Errors
/// [`ProofError`].
pub fn verify_deal_absent(
    deal_id: &DealId,
    other: Option<&HeadEntry>,
    siblings: &[Hash],
    root: &Hash,
) -> Result<(), ProofError> {
    let found = match other {
        None => [0; 32],
        Some(other) => {
            let shared = (0..siblings.len()).all(|depth| bit(&other.deal_id, depth) == bit(deal_id, depth));
            if other.deal_id == *deal_id || !shared {
                return Err(ProofError::Path);
            }
            other.hash()
        }
    };
    if climb(deal_id, found, siblings)? == *root { Ok(()) } else { Err(ProofError::Root) }
}

fn climb(deal_id: &DealId, from: Hash, siblings: &[Hash]) -> Result<Hash, ProofError> {
    if siblings.len() > SIBLINGS_MAX {
        return Err(ProofError::Length(siblings.len()));
    }
    // Beside nothing a deal would stand alone further up already.
    if siblings.last() == Some(&[0; 32]) {
        return Err(ProofError::Path);
    }
    let step = |hash: Hash, (depth, sibling): (usize, &Hash)| match bit(deal_id, depth) {
        0 => node_hash(&hash, sibling),
        _ => node_hash(sibling, &hash),
    };
    Ok(siblings.iter().enumerate().rev().fold(from, step))
}

/// Bit `depth` of an id, the most significant first.
fn bit(deal_id: &DealId, depth: usize) -> u8 {
    deal_id.bytes().get(depth / 8).map_or(0, |byte| byte >> (7 - depth % 8) & 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => empty_root(),
            [one] => *one,
            many => {
                let split = many.len().next_power_of_two() / 2;
                node_hash(&tree(&many[..split]), &tree(&many[split..]))
            }
        }
    }

    #[test]
    fn a_path_of_another_length_is_refused_whatever_it_hashes_to() {
        let leaves: Vec<Hash> = (0..7u8).map(|n| leaf_hash(&[n])).collect();
        let root = tree(&leaves);
        let path = [tree(&leaves[4..6]), tree(&leaves[..4])];
        assert_eq!(verify_inclusion(&leaves[6], 6, 7, &path, &root), Ok(()));
        assert_eq!(verify_inclusion(&leaves[6], 6, 7, &path[..1], &root), Err(ProofError::Length(1)));
        assert_eq!(verify_inclusion(&leaves[6], 5, 7, &path, &root), Err(ProofError::Length(2)));
        assert_eq!(verify_inclusion(&leaves[6], 7, 7, &path, &root), Err(ProofError::OutOfRange { index: 7, size: 7 }));
        // An inner node is no leaf.
        let inner = node_hash(&leaves[0], &leaves[1]);
        assert!(verify_inclusion(&inner, 0, 7, &[tree(&leaves[2..4]), tree(&leaves[4..])], &root).is_err());
    }

    #[test]
    fn nothing_and_the_same_need_no_hashes() {
        let root = leaf_hash(b"x");
        let empty = empty_root();
        assert_eq!(verify_consistency((0, &empty), (1, &root), &[]), Ok(()));
        assert_eq!(verify_consistency((0, &root), (1, &root), &[]), Err(ProofError::Root));
        assert_eq!(verify_consistency((1, &root), (1, &root), &[]), Ok(()));
        assert_eq!(verify_consistency((1, &root), (1, &empty), &[]), Err(ProofError::Root));
        assert_eq!(verify_consistency((1, &root), (1, &root), &[root]), Err(ProofError::Length(1)));
        assert_eq!(verify_consistency((2, &root), (1, &root), &[]), Err(ProofError::Shrunk { older: 2, newer: 1 }));
    }

    #[test]
    fn an_absent_deal_is_shown_by_what_stands_in_its_place() {
        let entry = |first: u8, version| {
            let mut id = [0; 32];
            id[0] = first;
            HeadEntry { deal_id: DealId::new(id), version, position: version, link: ChainLink::GENESIS }
        };
        let (low, high) = (entry(0x20, 1), entry(0xc0, 2));
        let root = node_hash(&low.hash(), &high.hash());
        assert_eq!(verify_head(&low, &[high.hash()], &root), Ok(()));
        assert_eq!(verify_head(&HeadEntry { version: 2, ..low }, &[high.hash()], &root), Err(ProofError::Root));
        let absent = entry(0xf0, 0).deal_id;
        assert_eq!(verify_deal_absent(&absent, Some(&high), &[low.hash()], &root), Ok(()));
        assert_eq!(verify_deal_absent(&absent, Some(&low), &[high.hash()], &root), Err(ProofError::Path));
        assert_eq!(verify_deal_absent(&high.deal_id, Some(&high), &[low.hash()], &root), Err(ProofError::Path));
        assert_eq!(verify_deal_absent(&absent, None, &[low.hash()], &root), Err(ProofError::Root));
        assert_eq!(verify_head(&low, &[[0; 32]; 257], &root), Err(ProofError::Length(257)));
    }
}

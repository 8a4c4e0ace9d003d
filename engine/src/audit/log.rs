//! The log against what was signed of it: the tree and the head map computed again from the records, by other code than the
//! store's, and compared with every checkpoint that the store keeps or somebody brought along.

use std::collections::BTreeMap;

use serde::Serialize;
use tribunal_contracts::Anchor;
use tribunal_events::{
    DealId,
    tlog::{Hash, HeadEntry, LogCertificate, LogVerifier, SignedCheckpoint, empty_root, leaf_hash, node_hash},
};

use super::{AuditReport, Findings};
use crate::{
    bundle::encode_frame,
    log::certificates,
    store::{Record, Store, StoreFault},
};

/// Compares the log with signed checkpoints.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LogAudit {
    /// Records of the log.
    pub size: u64,
    /// Root of the tree over them, in hex.
    pub root: String,
    /// Checkpoints of the store that were compared.
    pub checkpoints: u64,
    /// Records covered by the newest of them.
    pub signed: u64,
    /// Checkpoints brought along that were compared.
    pub held: u64,
    /// Anchors on a chain that were compared.
    pub anchors: u64,
    /// The keys that signed, each certified by the operator.
    pub keys: Vec<LogVerifier>,
}

/// A checkpoint that somebody kept, and whom they believe signed it.
#[derive(Clone, Debug)]
pub struct Held {
    /// Where it comes from, for the report.
    pub name: String,
    /// The checkpoint.
    pub note: SignedCheckpoint,
    /// The log's key, as they know it.
    pub key: Option<LogVerifier>,
}

/// Compares the log with what was anchored of it on a chain.
///
/// # Errors
/// Where the store cannot be read.
pub fn audit_anchors(
    store: &Store,
    origin: &str,
    anchors: &[Anchor],
    report: &mut AuditReport,
) -> Result<(), StoreFault> {
    let mut findings = Findings::new(None);
    for anchor in anchors {
        let size = anchor.tree_size;
        let found = match store.tree_root(size)? {
            Some(root) if root == anchor.root.0 => continue,
            Some(root) => format!("root {}", hex::encode(root)),
            None => format!("{} records", store.last_position()),
        };
        let expected = format!("{size} records with root {:x}, as {origin} was anchored", anchor.root);
        findings.at(None, Some(size), "anchor", expected, found);
    }
    if let Some(log) = &mut report.log {
        log.anchors += anchors.len() as u64;
    }
    report.add(findings);
    Ok(())
}

/// Takes the records of a log in order.
pub(super) struct LogExaminer<'a> {
    store: &'a Store,
    keys: Vec<LogCertificate>,
    /// By size, those brought along that are due.
    held: BTreeMap<u64, Vec<&'a Held>>,
    next: Option<SignedCheckpoint>,
    peaks: Vec<Hash>,
    heads: Heads,
    audit: LogAudit,
}

impl<'a> LogExaminer<'a> {
    pub(super) fn new(store: &'a Store, held: &'a [Held], findings: &mut Findings) -> Result<Self, StoreFault> {
        let keys = super::tolerate(certificates(store), findings)?.unwrap_or_default();
        for key in &keys {
            if let Err(error) = key.verify() {
                findings.whole("log-key", format!("{:#x}'s signature on {}", key.operator, key.vkey), error);
            }
        }
        let mut due: BTreeMap<u64, Vec<&Held>> = BTreeMap::new();
        for it in held {
            let known: Vec<_> = match &it.key {
                Some(key) => vec![key],
                None => keys.iter().map(|key| &key.vkey).collect(),
            };
            if known.iter().any(|key| it.note.verify(key).is_ok()) {
                due.entry(it.note.checkpoint().size).or_default().push(it);
            } else {
                let expected = match &it.key {
                    Some(key) => format!("a checkpoint signed by {key}"),
                    None => "a checkpoint of this log; --log-key VKEY names the key of another".to_owned(),
                };
                findings.whole("checkpoint-signature", expected, format!("{}: another's", it.name));
            }
        }
        let next = super::tolerate(store.checkpoint_covering(0), findings)?.flatten();
        let keys_shown = keys.iter().map(|key| key.vkey.clone()).collect();
        let audit = LogAudit { keys: keys_shown, ..LogAudit::default() };
        Ok(Self { store, keys, held: due, next, peaks: Vec::new(), heads: Heads::default(), audit })
    }

    pub(super) fn take(&mut self, record: &Record, findings: &mut Findings) -> Result<(), StoreFault> {
        let mut hash = leaf_hash(&encode_frame(record));
        // A carry in binary: each trailing one of the count so far is a peak to merge with.
        for _ in 0..self.audit.size.trailing_ones() {
            let left = self.peaks.pop().unwrap_or_default();
            hash = node_hash(&left, &hash);
        }
        self.peaks.push(hash);
        self.audit.size += 1;
        let (deal_id, version, position, link) = (record.deal_id, record.version, record.position, record.link);
        self.heads.set(&HeadEntry { deal_id, version, position, link });
        self.compare(findings)
    }

    fn root(&self) -> Hash {
        let over = |right: Hash, left: &Hash| node_hash(left, &right);
        let mut peaks = self.peaks.iter().rev();
        let last = peaks.next().copied().unwrap_or_else(empty_root);
        peaks.fold(last, over)
    }

    /// With whatever was signed of exactly this many records.
    fn compare(&mut self, findings: &mut Findings) -> Result<(), StoreFault> {
        let size = self.audit.size;
        for held in self.held.remove(&size).unwrap_or_default() {
            self.audit.held += 1;
            self.check(&held.note, "rewritten", &held.name, findings);
        }
        let Some(note) = self.next.take_if(|note| note.checkpoint().size == size) else { return Ok(()) };
        self.audit.checkpoints += 1;
        self.audit.signed = size;
        if !self.keys.iter().any(|key| note.verify(&key.vkey).is_ok()) {
            findings.at(
                None,
                Some(size),
                "checkpoint-signature",
                "a certified key's",
                format!("of {size} records: another's"),
            );
        }
        self.check(&note, "checkpoint", "the store's", findings);
        self.next = super::tolerate(self.store.checkpoint_covering(size + 1), findings)?.flatten();
        Ok(())
    }

    fn check(&mut self, note: &SignedCheckpoint, code: &'static str, name: &str, findings: &mut Findings) {
        let (said, root) = (note.checkpoint(), self.root());
        let at = Some(said.size);
        if said.root != root {
            let expected = format!("root {}, as was signed of {} records ({name})", hex::encode(said.root), said.size);
            findings.at(None, at, code, expected, format!("root {} of the records here", hex::encode(root)));
        }
        let heads = tribunal_events::tlog::Heads { deals: self.heads.deals, root: self.heads.root() };
        if said.heads != heads {
            let say = |it: &tribunal_events::tlog::Heads| format!("{} deals, heads {}", it.deals, hex::encode(it.root));
            findings.at(None, at, code, format!("{} ({name})", say(&said.heads)), say(&heads));
        }
    }

    pub(super) fn finish(mut self, findings: &mut Findings) -> LogAudit {
        self.audit.root = format!("0x{}", hex::encode(self.root()));
        let size = self.audit.size;
        // A log that is written to meanwhile may be signed beyond where this audit ends.
        let end = self.store.last_position().max(size);
        if let Some(note) = self.next.as_ref().filter(|note| note.checkpoint().size > end) {
            let signed = note.checkpoint().size;
            findings.at(
                None,
                Some(size + 1),
                "checkpoint",
                format!("{signed} records, as was signed"),
                format!("{size} records"),
            );
        }
        for held in self.held.values().flatten() {
            let signed = held.note.checkpoint().size;
            if signed <= end {
                findings.note(None, "unsigned", format!("{}: {signed} records were not reached", held.name));
                continue;
            }
            let expected = format!("{signed} records, as was signed ({})", held.name);
            findings.at(None, Some(size + 1), "rewritten", expected, format!("{size} records"));
        }
        self.audit
    }
}

/// The head map as a trie that is hashed again where it changed.
#[derive(Default)]
struct Heads {
    deals: u64,
    nodes: Vec<Node>,
    leaves: Vec<(DealId, Hash)>,
    root: Option<Child>,
}

#[derive(Clone, Copy, PartialEq)]
enum Child {
    Leaf(u32),
    Node(u32),
}

struct Node {
    /// By the bit at its depth.
    children: [Option<Child>; 2],
    /// Nothing where a leaf below changed.
    hash: Option<Hash>,
}

impl Heads {
    fn set(&mut self, entry: &HeadEntry) {
        let hash = entry.hash();
        let Some(mut at) = self.root else {
            self.root = Some(self.leaf(entry.deal_id, hash));
            return;
        };
        let mut parent: Option<(u32, usize)> = None;
        for depth in 0..=256 {
            match at {
                Child::Node(number) => {
                    let node = &mut self.nodes[number as usize];
                    node.hash = None;
                    let side = bit(&entry.deal_id, depth);
                    parent = Some((number, side));
                    match node.children[side] {
                        Some(child) => at = child,
                        None => {
                            let leaf = self.leaf(entry.deal_id, hash);
                            self.nodes[number as usize].children[side] = Some(leaf);
                            return;
                        }
                    }
                }
                Child::Leaf(number) if self.leaves[number as usize].0 == entry.deal_id => {
                    self.leaves[number as usize].1 = hash;
                    return;
                }
                Child::Leaf(number) => {
                    // Another deal alone here: a node above both.
                    let other = bit(&self.leaves[number as usize].0, depth);
                    let mut children = [None; 2];
                    children[other] = Some(at);
                    let made = u32::try_from(self.nodes.len()).expect("fewer than 2^32 deals");
                    self.nodes.push(Node { children, hash: None });
                    at = Child::Node(made);
                    match parent {
                        Some((above, side)) => self.nodes[above as usize].children[side] = Some(at),
                        None => self.root = Some(at),
                    }
                    // Looked at again as a node, one level at a time.
                    let side = bit(&entry.deal_id, depth);
                    if side != other {
                        let leaf = self.leaf(entry.deal_id, hash);
                        self.nodes[made as usize].children[side] = Some(leaf);
                        return;
                    }
                    parent = Some((made, side));
                    at = Child::Leaf(number);
                }
            }
        }
    }

    fn leaf(&mut self, deal_id: DealId, hash: Hash) -> Child {
        self.deals += 1;
        let number = u32::try_from(self.leaves.len()).expect("fewer than 2^32 deals");
        self.leaves.push((deal_id, hash));
        Child::Leaf(number)
    }

    fn root(&mut self) -> Hash {
        self.hash(self.root)
    }

    fn hash(&mut self, child: Option<Child>) -> Hash {
        match child {
            None => [0; 32],
            Some(Child::Leaf(number)) => self.leaves[number as usize].1,
            Some(Child::Node(number)) => {
                let node = &self.nodes[number as usize];
                if let Some(hash) = node.hash {
                    return hash;
                }
                let [zeros, ones] = node.children;
                let hash = node_hash(&self.hash(zeros), &self.hash(ones));
                self.nodes[number as usize].hash = Some(hash);
                hash
            }
        }
    }
}

fn bit(deal_id: &DealId, depth: usize) -> usize {
    usize::from(deal_id.bytes().get(depth / 8).map_or(0, |byte| byte >> (7 - depth % 8) & 1))
}

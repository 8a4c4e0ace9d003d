//! Proofs and checkpoints against vectors that a Python script made from the definitions alone.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, de::DeserializeOwned};
use tribunal_events::{
    ChainLink, DealId,
    tlog::{
        Checkpoint, Hash, HeadEntry, Heads, LogCertificate, LogKey, LogVerifier, SignedCheckpoint, verify_consistency,
        verify_head, verify_inclusion,
    },
};

fn file<T: DeserializeOwned>(name: &str) -> T {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/data/tlog").join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn hash(text: &str) -> Hash {
    STANDARD.decode(text).unwrap().try_into().unwrap()
}

fn hashes(texts: &[String]) -> Vec<Hash> {
    texts.iter().map(|text| hash(text)).collect()
}

#[derive(Deserialize)]
struct Trees {
    trees: Vec<Tree>,
    inclusion: Vec<Inclusion>,
    consistency: Vec<Consistency>,
    bad_inclusion: Vec<Inclusion>,
    bad_consistency: Vec<Consistency>,
}

#[derive(Deserialize)]
struct Tree {
    size: u64,
    root: String,
}

#[derive(Deserialize)]
struct Inclusion {
    size: u64,
    index: u64,
    leaf_hash: String,
    path: Vec<String>,
    root: Option<String>,
    why: Option<String>,
}

#[derive(Deserialize)]
struct Consistency {
    old_size: u64,
    new_size: u64,
    old_root: String,
    new_root: String,
    path: Vec<String>,
    why: Option<String>,
}

#[test]
fn proofs_in_trees_hold_where_python_says_so_and_nowhere_else() {
    let trees: Trees = file("tree.json");
    let root = |size: u64| hash(&trees.trees.iter().find(|tree| tree.size == size).unwrap().root);
    let inclusion = |it: &Inclusion| {
        let root = it.root.as_deref().map_or_else(|| root(it.size), hash);
        verify_inclusion(&hash(&it.leaf_hash), it.index, it.size, &hashes(&it.path), &root)
    };
    let consistency = |it: &Consistency| {
        let (older, newer) = (hash(&it.old_root), hash(&it.new_root));
        verify_consistency((it.old_size, &older), (it.new_size, &newer), &hashes(&it.path))
    };
    assert!(trees.inclusion.len() > 40 && trees.consistency.len() > 40);
    for it in &trees.inclusion {
        assert_eq!(inclusion(it), Ok(()), "leaf {} of {}", it.index, it.size);
    }
    for it in &trees.consistency {
        assert_eq!(consistency(it), Ok(()), "{} to {}", it.old_size, it.new_size);
    }
    assert!(!trees.bad_inclusion.is_empty() && !trees.bad_consistency.is_empty());
    for it in &trees.bad_inclusion {
        assert!(inclusion(it).is_err(), "{:?}", it.why);
    }
    for it in &trees.bad_consistency {
        assert!(consistency(it).is_err(), "{:?}", it.why);
    }
}

#[derive(Deserialize)]
struct Maps {
    maps: Vec<Map>,
    bad_proofs: Vec<BadHead>,
}

#[derive(Deserialize)]
struct Map {
    name: String,
    root: String,
    entries: Vec<Entry>,
    proofs: Vec<HeadProof>,
}

#[derive(Clone, Deserialize)]
struct Entry {
    deal_id: DealId,
    version: u64,
    position: u64,
    link: ChainLink,
}

#[derive(Deserialize)]
struct HeadProof {
    deal_id: DealId,
    path: Vec<String>,
}

#[derive(Deserialize)]
struct BadHead {
    root: String,
    entry: Entry,
    path: Vec<String>,
    why: String,
}

fn entry(it: &Entry) -> HeadEntry {
    HeadEntry { deal_id: it.deal_id, version: it.version, position: it.position, link: it.link }
}

#[test]
fn proofs_of_heads_hold_where_python_says_so_and_nowhere_else() {
    let maps: Maps = file("heads.json");
    let mut longest = 0;
    for map in &maps.maps {
        assert_eq!(map.proofs.is_empty(), map.entries.is_empty(), "{}", map.name);
        for proof in &map.proofs {
            let of = map.entries.iter().find(|it| it.deal_id == proof.deal_id).unwrap();
            assert_eq!(verify_head(&entry(of), &hashes(&proof.path), &hash(&map.root)), Ok(()), "{}", map.name);
            longest = longest.max(proof.path.len());
        }
    }
    assert_eq!(longest, 256, "ids that differ in their last bit alone");
    assert!(!maps.bad_proofs.is_empty());
    for it in &maps.bad_proofs {
        assert!(verify_head(&entry(&it.entry), &hashes(&it.path), &hash(&it.root)).is_err(), "{}", it.why);
    }
}

#[derive(Deserialize)]
struct Notes {
    origin: String,
    secret_key: String,
    vkey: LogVerifier,
    certificate: LogCertificate,
    checkpoints: Vec<Note>,
    bad_notes: Vec<BadNote>,
    bad_vkeys: Vec<BadKey>,
}

#[derive(Deserialize)]
struct Note {
    tree_size: u64,
    root: String,
    deals: u64,
    heads_root: String,
    note: String,
}

#[derive(Deserialize)]
struct BadNote {
    note: String,
    why: String,
}

#[derive(Deserialize)]
struct BadKey {
    vkey: String,
    why: String,
}

#[test]
fn notes_come_out_as_python_makes_them_and_bad_ones_are_refused() {
    let notes: Notes = file("checkpoint.json");
    let mut secret = [0; 32];
    hex::decode_to_slice(notes.secret_key.trim_start_matches("0x"), &mut secret).unwrap();
    let key = LogKey::new(&notes.origin, &secret).unwrap();
    assert_eq!(key.verifier(), &notes.vkey);
    assert_eq!(notes.certificate.verify(), Ok(()));
    assert_eq!(notes.certificate.vkey, notes.vkey);
    for it in &notes.checkpoints {
        let heads = Heads { deals: it.deals, root: hash(&it.heads_root) };
        let checkpoint = Checkpoint { origin: notes.origin.clone(), size: it.tree_size, root: hash(&it.root), heads };
        assert_eq!(checkpoint.clone().sign(&key).note(), it.note);
        let read = SignedCheckpoint::parse(it.note.as_bytes()).unwrap();
        assert_eq!(read.verify(&notes.vkey), Ok(&checkpoint));
    }
    assert!(notes.bad_notes.len() > 5 && notes.bad_vkeys.len() > 3);
    for it in &notes.bad_notes {
        let outcome = SignedCheckpoint::parse(it.note.as_bytes()).and_then(|note| note.verify(&notes.vkey).cloned());
        assert!(outcome.is_err(), "{}", it.why);
    }
    for it in &notes.bad_vkeys {
        assert!(it.vkey.parse::<LogVerifier>().is_err(), "{}", it.why);
    }
}

//! The tree over the log, the head map and signed checkpoints: proofs from the store against the checks of
//! `tribunal_events::tlog` and against trees and maps computed in the plainest way.

use std::{collections::BTreeMap, path::Path, process::Command};

use proptest::prelude::*;
use sha2::{Digest as _, Sha256};
use tribunal_engine::{
    audit::{AuditOptions, Held, Scope, audit},
    bundle::encode_frame,
    log::{LogFault, LogSigner},
    store::{Append, Fsync, LogState, NewRecord, Store, StoreFault, StreamAppend},
};
use tribunal_events::{
    Address, DealId, Envelope, SigningKey, Timestamp,
    tlog::{
        Checkpoint, Hash, HeadEntry, LogKey, SignedCheckpoint, leaf_hash, verify_consistency, verify_deal_absent,
        verify_head, verify_inclusion,
    },
};

fn key() -> LogKey {
    LogKey::new("example.org/log", &[7; 32]).unwrap()
}

fn signer(store: &Store) -> Result<LogSigner, LogFault> {
    LogSigner::open(store, key(), &SigningKey::new([9; 32]).unwrap(), LogSigner::default_path(store.path()))
}

fn deal(number: u64) -> DealId {
    DealId::of_terms(&number.to_be_bytes())
}

/// Adds `count` events over `deals` deals in one append.
fn grow(store: &Store, count: u64, deals: u64, salt: u8) {
    let mut versions = BTreeMap::new();
    let mut streams = Vec::new();
    for number in store.last_position()..store.last_position() + count {
        let deal_id = deal(number * number % deals);
        let version =
            versions.entry(deal_id).or_insert_with(|| store.head(&deal_id).unwrap().map_or(0, |it| it.version));
        let event = [&number.to_be_bytes()[..], &[salt; 40]].concat();
        let record = NewRecord {
            envelope: Envelope::from_parts(event, vec![salt; 65]),
            signer: Address::repeat_byte(salt),
            recorded_at: Timestamp::from_us(number),
        };
        let records = vec![record];
        streams.push(StreamAppend { deal_id, expected_version: *version, records, open: true, snapshot: None });
        *version += 1;
    }
    store.append(Append { streams, ..Append::default() }).unwrap();
}

fn leaves(store: &Store) -> Vec<Hash> {
    store.log(1).map(|record| leaf_hash(&encode_frame(&record.unwrap()))).collect()
}

/// RFC 6962, 2.1, word for word.
pub fn root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Sha256::digest([]).into(),
        [one] => *one,
        many => {
            let split = many.len().next_power_of_two() / 2;
            let (left, right) = (root(&many[..split]), root(&many[split..]));
            Sha256::digest([&[1][..], &left, &right].concat()).into()
        }
    }
}

/// The head map's definition, word for word; entries in any order.
fn map_root(entries: &[HeadEntry], depth: usize) -> Hash {
    match entries {
        [] => [0; 32],
        [it] => {
            let parts = [&[0][..], it.deal_id.bytes(), &it.version.to_be_bytes(), &it.position.to_be_bytes()];
            Sha256::digest([parts.concat(), it.link.bytes().to_vec()].concat()).into()
        }
        many => {
            let bit = |it: &&HeadEntry| it.deal_id.bytes()[depth / 8] & (128 >> (depth % 8)) == 0;
            let (zeros, ones): (Vec<_>, Vec<_>) = many.iter().partition(bit);
            let copied = |part: Vec<&HeadEntry>| part.into_iter().copied().collect::<Vec<_>>();
            let (left, right) = (map_root(&copied(zeros), depth + 1), map_root(&copied(ones), depth + 1));
            Sha256::digest([&[1][..], &left, &right].concat()).into()
        }
    }
}

/// Where the deals stood when the log had `size` records.
fn heads(store: &Store, size: u64) -> Vec<HeadEntry> {
    let mut heads = BTreeMap::new();
    for record in store.log(1).map(Result::unwrap).filter(|record| record.position <= size) {
        let (version, position, link) = (record.version, record.position, record.link);
        heads.insert(record.deal_id, HeadEntry { deal_id: record.deal_id, version, position, link });
    }
    heads.into_values().collect()
}

#[test]
fn every_size_up_to_three_tiles_has_the_root_of_the_definition() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Fsync::Never).unwrap();
    assert_eq!(store.tree_root(0).unwrap(), Some(root(&[])));
    for step in [1, 2, 5, 100, 147, 1, 1, 254, 300] {
        grow(&store, step, 9, 1);
    }
    let leaves = leaves(&store);
    assert_eq!(leaves.len(), 811);
    for size in 0..=leaves.len() {
        assert_eq!(store.tree_root(size as u64).unwrap(), Some(root(&leaves[..size])), "size {size}");
    }
    assert_eq!(store.tree_root(812).unwrap(), None);
}

#[test]
fn a_tree_of_three_levels_reads_back_after_reopening_and_by_a_reader() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Fsync::Never).unwrap();
    for _ in 0..9 {
        grow(&store, 7300, 500, 1);
    }
    drop(store);
    let store = Store::open(dir.path(), Fsync::Never).unwrap();
    grow(&store, 37, 500, 1);
    let leaves = leaves(&store);
    let size = leaves.len() as u64;
    assert!(size > 256 * 256);
    let reader = Store::open_read_only(dir.path()).unwrap();
    let expected = root(&leaves);
    for store in [&store, &reader] {
        assert_eq!(store.tree_root(size).unwrap(), Some(expected));
        for position in [1, 2, 255, 256, 257, 65_536, 65_537, 65_700, size - 1, size] {
            let path = store.prove_inclusion(position, size).unwrap().unwrap();
            let leaf = &leaves[position as usize - 1];
            assert_eq!(verify_inclusion(leaf, position - 1, size, &path, &expected), Ok(()), "position {position}");
        }
        for older in [1, 256, 300, 65_535, 65_536, 65_537, size] {
            let proof = store.prove_consistency(older, size).unwrap().unwrap();
            let before = root(&leaves[..older as usize]);
            assert_eq!(verify_consistency((older, &before), (size, &expected), &proof), Ok(()), "from {older}");
        }
    }
    assert!(store.check(|_| {}).unwrap().damage.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_growth_gives_proofs_that_hold(steps in prop::collection::vec(1u64..400, 1..6), picks in any::<[u64; 6]>()) {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path(), Fsync::Never).unwrap();
        for (number, step) in steps.iter().enumerate() {
            grow(&store, *step, 40, 1);
            if number % 2 == 1 {
                drop(store);
                store = Store::open(dir.path(), Fsync::Never).unwrap();
            }
        }
        let leaves = leaves(&store);
        let last = leaves.len() as u64;
        for pick in picks {
            let size = pick % last + 1;
            let position = pick / last % size + 1;
            let expected = root(&leaves[..size as usize]);
            let path = store.prove_inclusion(position, size).unwrap().unwrap();
            let leaf = leaves[position as usize - 1];
            prop_assert_eq!(verify_inclusion(&leaf, position - 1, size, &path, &expected), Ok(()));
            let proof = store.prove_consistency(position, size).unwrap().unwrap();
            let before = root(&leaves[..position as usize]);
            prop_assert_eq!(verify_consistency((position, &before), (size, &expected), &proof), Ok(()));
            if size > 1 {
                let mut other = before;
                other[0] ^= 1;
                prop_assert!(verify_consistency((position, &other), (size, &expected), &proof).is_err());
            }
        }
    }
}

#[test]
fn checkpoints_commit_to_every_deal_and_prove_each() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("store"), Fsync::Never).unwrap();
    let signer = signer(&store).unwrap();
    assert_eq!(signer.checkpoint(&store).unwrap(), None, "nothing to say of an empty log");
    let mut notes = Vec::new();
    // One deal, two, then many; the last growth leaves most deals alone.
    for (count, deals) in [(1, 1), (2, 2), (700, 300), (5, 3)] {
        grow(&store, count, deals, 1);
        let note = signer.checkpoint(&store).unwrap().unwrap();
        assert_eq!(signer.checkpoint(&store).unwrap().as_ref(), Some(&note), "signed once");
        notes.push(note);
    }
    let key = key();
    let leaves = leaves(&store);
    for note in &notes {
        let said = note.verify(key.verifier()).unwrap();
        let entries = heads(&store, said.size);
        assert_eq!(said.root, root(&leaves[..said.size as usize]));
        assert_eq!((said.heads.deals, said.heads.root), (entries.len() as u64, map_root(&entries, 0)));
    }
    // The log goes on; the newest checkpoint still proves where every deal stood then.
    grow(&store, 60, 7, 1);
    let newest = notes.last().unwrap().checkpoint().clone();
    let then: BTreeMap<_, _> = heads(&store, newest.size).into_iter().map(|entry| (entry.deal_id, entry)).collect();
    let reader = Store::open_read_only(store.path()).unwrap();
    for number in 0..400 {
        let deal_id = deal(number);
        for store in [&store, &reader] {
            let head = store.prove_head(&deal_id).unwrap().unwrap();
            assert_eq!(head.checkpoint.checkpoint(), &newest);
            match then.get(&deal_id) {
                Some(entry) => {
                    assert_eq!(head.entry.as_ref(), Some(entry));
                    assert_eq!(verify_head(entry, &head.siblings, &newest.heads.root), Ok(()));
                }
                None => {
                    let other = head.entry.as_ref();
                    assert_eq!(verify_deal_absent(&deal_id, other, &head.siblings, &newest.heads.root), Ok(()));
                }
            }
        }
    }
    // What is kept with a deal is of the first checkpoint after its last record, and stays.
    let still = |it: &&HeadEntry| store.head(&it.deal_id).unwrap().unwrap().version == it.version;
    let settled = then.values().find(still).unwrap();
    let kept = store.kept_head(&settled.deal_id).unwrap().unwrap();
    assert_eq!(&kept.checkpoint, notes.iter().find(|note| note.checkpoint().size >= settled.position).unwrap());
    assert_eq!(verify_head(settled, &kept.siblings, &kept.checkpoint.checkpoint().heads.root), Ok(()));
    signer.checkpoint(&store).unwrap();
    assert_eq!(store.kept_head(&settled.deal_id).unwrap(), Some(kept));
}

#[test]
fn a_store_that_went_back_signs_nothing_that_contradicts_what_it_said() {
    let dir = tempfile::tempdir().unwrap();
    let (path, backup) = (dir.path().join("store"), dir.path().join("backup"));
    let store = Store::open(&path, Fsync::Always).unwrap();
    grow(&store, 20, 5, 1);
    store.checkpoint(&backup).unwrap();
    grow(&store, 10, 5, 1);
    let published = signer(&store).unwrap().checkpoint(&store).unwrap().unwrap();
    drop(store);

    // An older copy takes its place and goes on otherwise.
    std::fs::remove_dir_all(&path).unwrap();
    std::fs::rename(&backup, &path).unwrap();
    let store = Store::open(&path, Fsync::Always).unwrap();
    let signer = signer(&store).unwrap();
    assert!(matches!(signer.checkpoint(&store), Err(LogFault::Behind { published: 30, found: 20, .. })));
    grow(&store, 11, 5, 2);
    assert!(matches!(signer.checkpoint(&store), Err(LogFault::Forked { published: 30, .. })));
    assert_eq!(store.newest_checkpoint().unwrap(), None);
    drop((signer, store));

    // The same events come again: the log is the one that was signed, and goes on.
    std::fs::remove_dir_all(&path).unwrap();
    let store = Store::open(&path, Fsync::Always).unwrap();
    grow(&store, 20, 5, 1);
    grow(&store, 13, 5, 1);
    let next = self::signer(&store).unwrap().checkpoint(&store).unwrap().unwrap();
    let proof = store.prove_consistency(30, 33).unwrap().unwrap();
    let (older, newer) = (published.checkpoint(), next.checkpoint());
    assert_eq!(verify_consistency((30, &older.root), (33, &newer.root), &proof), Ok(()));
}

#[test]
fn a_log_that_goes_by_a_new_name_signs_beside_what_the_old_one_said() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("store"), Fsync::Always).unwrap();
    grow(&store, 3, 2, 1);
    signer(&store).unwrap().checkpoint(&store).unwrap();
    let renamed = LogKey::new("example.org/log2", &[7; 32]).unwrap();
    let operator = SigningKey::new([9; 32]).unwrap();
    let path = LogSigner::default_path(store.path());
    let signer = LogSigner::open(&store, renamed, &operator, path).unwrap();
    grow(&store, 3, 2, 1);
    let note = signer.checkpoint(&store).unwrap().unwrap();
    assert_eq!(note.checkpoint().origin, "example.org/log2");
    assert_eq!(tribunal_engine::log::certificates(&store).unwrap().len(), 2);
}

#[test]
fn a_damaged_tile_and_a_damaged_note_of_what_was_published_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("store"), Fsync::Always).unwrap();
    grow(&store, 3, 2, 1);
    let path = LogSigner::default_path(store.path());
    signer(&store).unwrap().checkpoint(&store).unwrap();
    std::fs::write(&path, "no note").unwrap();
    let fault = signer(&store).map(|_| ()).unwrap_err();
    assert!(matches!(fault, LogFault::Published { .. }), "{fault}");
    let moved: Result<(), StoreFault> = store.prove_inclusion(1, 9).map(|proof| assert_eq!(proof, None));
    moved.unwrap();
    assert!(SignedCheckpoint::parse(b"no note").is_err());
}

/// Deal and content.
type Event = (u64, u64);

/// A log of these events.
fn told(path: &Path, events: &[Event]) -> Store {
    let store = Store::open(path, Fsync::Never).unwrap();
    for (number, salt) in events {
        let deal_id = deal(*number);
        let record = NewRecord {
            envelope: Envelope::from_parts([&number.to_be_bytes()[..], &salt.to_be_bytes()].concat(), vec![1; 65]),
            signer: Address::ZERO,
            recorded_at: Timestamp::from_us(1),
        };
        let expected_version = store.head(&deal_id).unwrap().map_or(0, |head| head.version);
        let stream = StreamAppend { deal_id, expected_version, records: vec![record], open: true, snapshot: None };
        store.append(Append { streams: vec![stream], ..Append::default() }).unwrap();
    }
    store
}

fn codes(store: &Store, held: &[Held]) -> Vec<&'static str> {
    let report = audit(store, Scope::All, AuditOptions { held, ..AuditOptions::default() }).unwrap();
    report.discrepancies.iter().map(|it| it.code).collect()
}

#[test]
fn a_rewritten_history_is_caught_by_whoever_kept_a_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let events: Vec<Event> = (0..30).map(|number| (number % 4, number)).collect();
    let store = told(&dir.path().join("told"), &events);
    let note = signer(&store).unwrap().checkpoint(&store).unwrap().unwrap();
    let held = |key: Option<&LogKey>| {
        let key = key.map(|key| key.verifier().clone());
        [Held { name: "kept.txt".into(), note: note.clone(), key }]
    };
    assert!(!codes(&store, &held(None)).contains(&"rewritten"));

    let mut number = 0;
    let mut retold = |change: &dyn Fn(&mut Vec<Event>)| {
        let mut events = events.clone();
        change(&mut events);
        number += 1;
        let store = told(&dir.path().join(number.to_string()), &events);
        codes(&store, &held(Some(&key()))).contains(&"rewritten")
    };
    assert!(!retold(&|_| {}), "the same again");
    assert!(!retold(&|events| events.extend([(9, 100), (9, 101)])), "it may grow");
    assert!(retold(&|events| _ = events.remove(7)), "a record dropped");
    assert!(retold(&|events| _ = events.pop()), "the last one dropped");
    assert!(retold(&|events| events.insert(7, (2, 777))), "one inserted");
    assert!(retold(&|events| events.swap(7, 8)), "two in another order");
    assert!(retold(&|events| events[7].1 = 777), "one that says something else");
    // Somebody else's checkpoint proves nothing.
    let other = LogKey::new("example.org/log", &[4; 32]).unwrap();
    assert!(codes(&store, &held(Some(&other))).contains(&"checkpoint-signature"));
}

#[test]
fn a_checkpoint_that_says_what_the_records_do_not_is_caught() {
    let dir = tempfile::tempdir().unwrap();
    let forge = |name: &str, forge: &dyn Fn(&mut Checkpoint)| {
        let store = told(&dir.path().join(name), &[(1, 1), (2, 2), (1, 3)]);
        signer(&store).unwrap();
        let sign = |state: &LogState| -> Result<SignedCheckpoint, StoreFault> {
            let origin = "example.org/log".to_owned();
            let mut checkpoint = Checkpoint { origin, size: state.size, root: state.root, heads: state.heads };
            forge(&mut checkpoint);
            Ok(checkpoint.sign(&key()))
        };
        store.seal_log(sign).unwrap().unwrap();
        codes(&store, &[]).contains(&"checkpoint")
    };
    assert!(!forge("true", &|_| {}));
    assert!(forge("root", &|it| it.root[0] ^= 1));
    assert!(forge("heads", &|it| it.heads.root[0] ^= 1));
    assert!(forge("count", &|it| it.heads.deals += 1));
}

/// Runs the binary; its exit code and what it printed.
fn tribunal(folder: &Path, arguments: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tribunal")).args(arguments).current_dir(folder).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn the_commands_sign_prove_and_verify_and_make_no_store_where_there_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let at = |arguments: &[&str]| tribunal(dir.path(), arguments);
    assert_eq!(at(&["log", "checkpoint", "--store", "missing"]).0, 69);
    assert!(!dir.path().join("missing").exists());

    let store = told(&dir.path().join("store"), &[(1, 1), (2, 2), (1, 3)]);
    assert_eq!(at(&["log", "key", "--store", "store"]).0, 2, "nobody has signed yet");
    assert_eq!(at(&["log", "prove", "--position", "1", "--store", "store"]).0, 2);
    drop(store);
    let (code, note) = at(&["log", "checkpoint", "--store", "store"]);
    assert_eq!((code, at(&["store", "checkpoint", "--store", "store"])), (0, (0, note.clone())));
    assert_eq!(at(&["log", "checkpoint", "--store", "store", "--size", "2"]).0, 2);
    let (_, key) = at(&["log", "key", "--store", "store"]);
    let key = key.split_whitespace().next().unwrap();
    let note = SignedCheckpoint::parse(note.as_bytes()).unwrap();
    assert_eq!(note.verify(&key.parse().unwrap()).unwrap().size, 3);
    let kept = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    kept("kept.txt", note.note());

    // Another engine has the store open: what it signed is handed out, and nothing is signed here.
    let store = Store::open(dir.path().join("store"), Fsync::Never).unwrap();
    assert_eq!(at(&["log", "checkpoint", "--store", "store"]), (0, note.note().to_owned()));
    grow(&store, 2, 2, 1);
    drop(store);
    at(&["log", "checkpoint", "--store", "store"]);
    let deal = deal(1).to_string();
    for (name, wanted) in
        [("one.json", ["--position", "2"]), ("deal.json", ["--deal", &deal]), ("grown.json", ["--from", "3"])]
    {
        let (code, proof) = at(&["log", "prove", wanted[0], wanted[1], "--store", "store"]);
        assert_eq!(code, 0, "{name}");
        kept(name, &proof);
    }
    let verify =
        ["log", "verify", "one.json", "deal.json", "grown.json", "kept.txt", "--since", "kept.txt", "--key", key];
    let (code, said) = at(&verify);
    assert_eq!((code, said.lines().count()), (0, 4), "{said}");
    let forged =
        std::fs::read_to_string(dir.path().join("one.json")).unwrap().replace("\"position\":2", "\"position\":1");
    kept("forged.json", &forged);
    assert_eq!(at(&["log", "verify", "kept.txt", "forged.json", "--key", key]).0, 1);
    let other = self::key().verifier().to_string();
    assert_eq!(at(&["log", "verify", "one.json", "--key", &other]).0, 1);
    assert_eq!(at(&["log", "verify", "gone.json", "--key", key]).0, 2);
    let grown = std::fs::read_to_string(dir.path().join("grown.json")).unwrap().replace("\"from\":3", "\"from\":2");
    kept("grown.json", &grown);
    assert_eq!(at(&["log", "verify", "grown.json", "--since", "kept.txt", "--key", key]).0, 1);
}

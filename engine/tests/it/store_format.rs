//! Stores that older versions wrote open for ever, or are refused by their format's number.

use std::path::{Path, PathBuf};

use tribunal_engine::{
    audit::{AuditOptions, Scope, audit},
    store::{FORMAT, Fsync, Record, Store, StoreFault},
};

use crate::store::copy;

fn frozen(name: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/stores").join(name), dir.path());
    let path = dir.path().to_path_buf();
    (dir, path)
}

fn records(store: &Store) -> Vec<Record> {
    store.log(1).collect::<Result<_, _>>().unwrap()
}

/// Positions and the last record's link, as they were when the store was frozen.
const FORMAT_1_RECORDS: usize = 43;
const FORMAT_1_LINK: &str = "0xf220a1cb15d7e42ee3dee260618484de5cb50d1ab283d1278e6ac89b9c41ae7e";

#[test]
fn a_store_of_format_1_opens_for_writing_and_is_whole() {
    let (_dir, path) = frozen("format-1");
    // Reading alone never upgrades: it reads, or says which format it found.
    match Store::open_read_only(&path) {
        Ok(store) => assert_eq!((records(&store).len(), FORMAT), (FORMAT_1_RECORDS, 1)),
        Err(fault) => {
            assert!(matches!(fault, StoreFault::Format { found: 1, supported: FORMAT }), "{fault}");
            assert!(FORMAT > 1 && fault.to_string().contains("format 1"), "{fault}");
        }
    }
    let store = Store::open(&path, Fsync::Always).unwrap();
    let before = records(&store);
    assert_eq!((before.len(), before.last().unwrap().link.to_string().as_str()), (FORMAT_1_RECORDS, FORMAT_1_LINK));
    assert_eq!(store.check(|_| {}).unwrap().damage.len(), 0);
    let report = audit(&store, Scope::All, AuditOptions::default()).unwrap();
    assert!(report.is_clean() && report.deals == 4, "{report:?}");
    drop(store);
    // From now on it is a store of this version's format.
    assert_eq!(records(&Store::open_read_only(&path).unwrap()), before);
    let report = Store::check_path(&path, |_, _, _| {}).unwrap();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
    assert_eq!(records(&Store::open(&path, Fsync::Always).unwrap()), before);
}

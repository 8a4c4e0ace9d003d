//! Damage of a store's files: a flipped byte anywhere, a file cut short or gone, a disk that is full or read-only.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use tribunal_engine::store::{
    Append, CheckReport, Cursor, CursorUpdate, Fsync, OutboxEntry, Place, Projection, Refused, Store, StoreFault,
    StreamAppend,
};
use tribunal_events::{DealId, Timestamp};

use crate::store::{copy, deal, event, stream};

/// Files that hold data; RocksDB makes the others anew.
fn holds_data(name: &str) -> bool {
    matches!(name, "CURRENT" | "MARK")
        || name.starts_with("MANIFEST-")
        || name.ends_with(".sst")
        || name.ends_with(".log")
}

/// A store with rows of every kind, several tables in several levels, and a live write-ahead log.
pub fn filled(path: &Path) -> Store {
    let append = |store: &Store, number: u64, records: u64| {
        let deal_id = deal(number % 9);
        let version = store.head(&deal_id).unwrap().map_or(0, |head| head.version);
        let records = (0..records).map(|it| event(number * 100 + it, 260)).collect();
        let cursor = Cursor { sequence: number + 1, message_hash: [7; 32], stream_created_us: 1, incarnation: 0 };
        let refused = Refused {
            subject: "deals.x.agreed".into(),
            sequence: number,
            at: Timestamp::from_us(number),
            reason_code: "malformed".into(),
            reason: "not an envelope".into(),
            bytes: vec![7; 40],
        };
        let append = Append {
            streams: vec![StreamAppend {
                open: !number.is_multiple_of(5),
                snapshot: Some(vec![number as u8; 64]),
                ..stream(deal_id, version, records)
            }],
            cursor: Some(CursorUpdate { stream: "DEALS".into(), cursor }),
            outbox_add: vec![OutboxEntry { id: [number as u8; 32], deal_id, payload: vec![number as u8; 50] }],
            outbox_done: if number.is_multiple_of(2) { Vec::new() } else { vec![[number as u8; 32]] },
            refused: if number.is_multiple_of(7) { vec![refused] } else { Vec::new() },
            projections: vec![Projection { key: vec![number as u8], value: Some(vec![1; 20]) }],
        };
        store.append(append).unwrap();
        store.put_intent(format!("intent {number}").as_bytes(), &[number as u8; 30]).unwrap();
    };
    for round in 0..3 {
        // What a round left in the log is in tables when the store is opened the next time.
        let store = Store::open(path, Fsync::Always).unwrap();
        (0..12).for_each(|number| append(&store, round * 12 + number, 6));
        store.put_meta("origin", format!("round {round}").as_bytes()).unwrap();
    }
    let store = Store::open(path, Fsync::Always).unwrap();
    (36..42).for_each(|number| append(&store, number, 6));
    store
}

fn check(path: &Path) -> CheckReport {
    Store::check_path(path, |_, _, _| {}).unwrap()
}

/// Whether the report names the file, and a byte before or at the one that was changed.
fn names(report: &CheckReport, file: &str, at: usize) -> bool {
    report.damage.iter().any(|fault| match fault {
        StoreFault::Damaged { place: Place::File { name, offset }, .. } => {
            name == file && offset.is_none_or(|offset| offset <= at as u64)
        }
        _ => false,
    })
}

/// The files of the store at `path` that hold data, by name.
fn data_files(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
    let named = entries.map(|entry| (entry.file_name().into_string().unwrap(), entry.path()));
    named.filter(|(name, _)| holds_data(name)).map(|(name, path)| (name, fs::read(path).unwrap())).collect()
}

/// Flips bytes of every file at the places that `places` chooses; each must be found and named, and nothing panics.
fn flip(places: impl Fn(&str, usize) -> Vec<usize>) -> usize {
    let (dir, damaged) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = filled(dir.path());
    copy(dir.path(), damaged.path());
    drop(store);
    let sound = check(damaged.path());
    assert!(sound.damage.is_empty() && sound.notes.is_empty(), "{sound:?}");
    let files = data_files(damaged.path());
    let count = |ending: &str| files.keys().filter(|name| name.ends_with(ending)).count();
    assert!(count(".sst") >= 10 && count(".log") == 1, "{:?}", files.keys());
    let mut flipped = 0;
    for (name, sound) in &files {
        for at in places(name, sound.len()) {
            let mut bytes = sound.clone();
            bytes[at] ^= 1 << (at % 8);
            fs::write(damaged.path().join(name), &bytes).unwrap();
            let report = check(damaged.path());
            assert!(!report.damage.is_empty(), "byte {at} of {name}, of {}: clean", sound.len());
            assert!(names(&report, name, at), "byte {at} of {name}: {:?}", report.damage);
            flipped += 1;
        }
        fs::write(damaged.path().join(name), sound).unwrap();
    }
    assert!(check(damaged.path()).damage.is_empty(), "all is put back");
    flipped
}

#[test]
fn a_flipped_byte_in_any_file_is_found_and_named() {
    let flipped = flip(|name, length| {
        let small = matches!(name, "CURRENT" | "MARK");
        // Footer, list of blocks, properties and index are at the end of a table; a log's end is its last write.
        let dense = length.saturating_sub(120)..length;
        let step = if small { 1 } else { (length / 24).max(1) };
        let spread = (0..length).step_by(step);
        let dense = dense.step_by(if name.ends_with(".sst") { 9 } else { 5 });
        spread.chain(dense).collect()
    });
    assert!(flipped > 500, "{flipped}");
}

#[test]
#[ignore = "every byte of every file: minutes; `cargo test -- --ignored every_byte`"]
fn every_byte_of_every_file_flipped_is_found_and_named() {
    println!("{} bytes flipped", flip(|_, length| (0..length).collect()));
}

#[test]
fn damage_names_the_deal_and_the_position() {
    let (dir, damaged) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = filled(dir.path());
    copy(dir.path(), damaged.path());
    let wanted = store.record(20).unwrap().unwrap();
    // No packing shortens the id in the frame; the table of events is the largest that has it.
    let id = &wanted.event_id.bytes()[4..];
    let (_, name, at) = data_files(damaged.path())
        .into_iter()
        .filter(|(name, _)| name.ends_with(".sst"))
        .filter_map(|(name, bytes)| {
            let at = bytes.windows(id.len()).position(|window| window == id)?;
            Some((bytes.len(), name, at))
        })
        .max()
        .expect("the event is in a table");
    let mut bytes = fs::read(damaged.path().join(&name)).unwrap();
    bytes[at] ^= 1;
    fs::write(damaged.path().join(&name), bytes).unwrap();
    let report = check(damaged.path());
    let (deal_id, version) = (wanted.deal_id, wanted.version);
    let found = report.damage.iter().any(|fault| {
        matches!(fault, StoreFault::Damaged { place: Place::Record { position: 20, deal_id: of, version: v }, .. }
            if (*of, *v) == (deal_id, version))
    });
    assert!(found && names(&report, &name, at), "{:?}", report.damage);
}

#[test]
fn a_file_cut_short_or_gone_is_found_and_named() {
    let (dir, damaged) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = filled(dir.path());
    copy(dir.path(), damaged.path());
    drop(store);
    for (name, sound) in data_files(damaged.path()) {
        let path = damaged.path().join(&name);
        for left in [0, 1, sound.len() / 2, sound.len() - 1] {
            fs::write(&path, &sound[..left]).unwrap();
            let report = check(damaged.path());
            assert!(names(&report, &name, left), "{name} cut to {left} of {}: {:?}", sound.len(), report.damage);
        }
        fs::remove_file(&path).unwrap();
        let report = check(damaged.path());
        // A MANIFEST that is gone is missed where its name stands.
        let known = names(&report, &name, 0) || (name.starts_with("MANIFEST") && names(&report, "CURRENT", 0));
        assert!(known || (name.ends_with(".log") && !report.damage.is_empty()), "{name} gone: {:?}", report.damage);
        fs::write(&path, &sound).unwrap();
    }
    assert!(check(damaged.path()).damage.is_empty());
}

#[test]
fn a_column_family_that_is_missing_or_strange_is_found() {
    let dir = tempfile::tempdir().unwrap();
    drop(filled(dir.path()));
    let families = rocksdb::DB::list_cf(&rocksdb::Options::default(), dir.path()).unwrap();
    let mut db = rocksdb::DB::open_cf(&rocksdb::Options::default(), dir.path(), families).unwrap();
    db.drop_cf("intents").unwrap();
    db.create_cf("mine", &rocksdb::Options::default()).unwrap();
    drop(db);
    let damage = format!("{:?}", check(dir.path()).damage);
    assert!(
        damage.contains("the column family intents is missing") && damage.contains("mine is no column"),
        "{damage}"
    );
}

#[test]
fn a_store_checks_clean_while_it_is_written_to() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path());
    let path = dir.path().to_path_buf();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writer = {
        let stop = std::sync::Arc::clone(&stop);
        std::thread::spawn(move || {
            let mut number = 0u64;
            while !stop.load(std::sync::atomic::Ordering::Acquire) {
                let deal_id = deal(1000 + number % 50);
                let records = vec![event(1 << 40 | number, 2000)];
                store
                    .append(Append { streams: vec![stream(deal_id, number / 50, records)], ..Append::default() })
                    .unwrap();
                number += 1;
            }
            number
        })
    };
    for _ in 0..8 {
        let report = check(&path);
        assert!(report.damage.is_empty(), "{:?}", report.damage);
    }
    stop.store(true, std::sync::atomic::Ordering::Release);
    assert!(writer.join().unwrap() > 8);
}

// ---- the command

pub fn tribunal(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tribunal"));
    command.args(args).current_dir(std::env::temp_dir()).stdin(Stdio::null()).output().unwrap()
}

pub fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

#[test]
fn store_check_says_clean_or_where_the_damage_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = filled(&path);
    let at = path.to_str().unwrap();
    let running = tribunal(&["store", "check", "--store", at]);
    assert_eq!(running.status.code(), Some(0), "beside a writer: {running:?}");
    assert!(text(&running.stdout).contains("252 records of 9 deals") && text(&running.stdout).ends_with("clean\n"));
    drop(store);
    let table = data_files(&path).into_iter().find(|(name, _)| name.ends_with(".sst")).unwrap();
    let mut bytes = table.1.clone();
    bytes[10] ^= 64;
    fs::write(path.join(&table.0), bytes).unwrap();
    let found = tribunal(&["store", "check", "--store", at]);
    assert_eq!(found.status.code(), Some(1), "{found:?}");
    assert!(text(&found.stdout).contains(&format!("{}, byte 0", table.0)), "{}", text(&found.stdout));
    let found = tribunal(&["store", "check", "--store", at, "--json"]);
    let answer: serde_json::Value = serde_json::from_slice(&found.stdout).unwrap();
    assert_eq!((&answer["clean"], &answer["damage"][0]["file"]), (&false.into(), &table.0[..].into()));
    let nowhere = tribunal(&["store", "check", "--store", "no-such-folder"]);
    assert_eq!(nowhere.status.code(), Some(69), "{nowhere:?}");
}

#[test]
fn a_second_engine_on_one_store_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let _held = Store::open(dir.path().join("store"), Fsync::Always).unwrap();
    let at = dir.path().join("store");
    let second = tribunal(&["serve", "--listen", "127.0.0.1:0", "--store", at.to_str().unwrap()]);
    assert_eq!(second.status.code(), Some(69), "{second:?}");
    assert!(text(&second.stderr).contains("is open in another process"), "{second:?}");
}

// ---- a disk that takes nothing more

/// Runs a program under limits that a shell sets first.
pub fn limited(shell: &str, program: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{shell}; exec \"$0\" \"$@\"")).arg(program).args(args);
    command.current_dir(std::env::temp_dir()).stdin(Stdio::null());
    command
}

#[test]
fn a_store_in_a_folder_that_cannot_be_written_reads_and_says_why_it_does_not_open() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    drop(filled(&path));
    let mode = |mode: u32| {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        for entry in fs::read_dir(&path).unwrap() {
            fs::set_permissions(entry.unwrap().path(), std::os::unix::fs::PermissionsExt::from_mode(mode & 0o666))
                .unwrap();
        }
        fs::set_permissions(&path, permissions).unwrap();
    };
    mode(0o555);
    // Root writes anywhere unless it gives that up.
    let root = fs::metadata("/proc/self").map(|it| std::os::unix::fs::MetadataExt::uid(&it) == 0).unwrap();
    let run = |args: &[&str]| {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_tribunal"));
        let mut command = if root {
            let mut command = Command::new("setpriv");
            command.args(["--bounding-set=-dac_override,-dac_read_search", "--"]).arg(program).args(args);
            command
        } else {
            let mut command = Command::new(program);
            command.args(args);
            command
        };
        command.current_dir(std::env::temp_dir()).stdin(Stdio::null()).output().unwrap()
    };
    let at = path.to_str().unwrap();
    let read = run(&["store", "check", "--store", at]);
    let written = run(&["serve", "--listen", "127.0.0.1:0", "--store", at]);
    let backup = dir.path().join("backups");
    let kept = run(&["store", "backup", backup.to_str().unwrap(), "--store", at]);
    mode(0o755);
    assert_eq!(read.status.code(), Some(0), "{read:?}");
    assert_eq!(written.status.code(), Some(69), "{written:?}");
    assert!(text(&written.stderr).contains("ermission denied") && text(&written.stderr).contains(at), "{written:?}");
    assert_eq!(kept.status.code(), Some(0), "{kept:?}");
    Store::open(&path, Fsync::Always).unwrap();
    assert!(check(&path).damage.is_empty());
}

#[test]
fn a_deal_that_nothing_happened_in_is_no_deal() {
    // An append of nothing to a new deal must not make a head that a check would miss a record of.
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Fsync::Always).unwrap();
    store.append(Append { streams: vec![stream(deal(1), 0, vec![])], ..Append::default() }).unwrap();
    assert_eq!(store.deals().count(), 0);
    let none: Option<DealId> = None;
    assert_eq!(store.open_deals().unwrap().first().copied(), none);
    drop(store);
    assert!(check(dir.path()).damage.is_empty());
}

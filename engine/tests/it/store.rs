//! The event store, on a real disk: what was acknowledged is there, whole and once, whatever happens to the process.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Barrier,
        atomic::{AtomicU64, Ordering},
    },
};

use tribunal_engine::store::{
    Append, Cursor, CursorUpdate, FORMAT, Fsync, Intent, NewRecord, OutboxEntry, Place, Projection, REFUSED_BYTES_MAX,
    Record, Refused, Store, StoreFault, StreamAppend, record_bytes,
};
use tribunal_events::{Address, ChainLink, DealId, Envelope, Timestamp};

fn deal(number: u64) -> DealId {
    DealId::of_terms(&number.to_be_bytes())
}

/// The store looks into no event, so any distinct bytes are one.
fn event(number: u64, bytes: usize) -> NewRecord {
    let mut event = number.to_be_bytes().to_vec();
    event.resize(bytes.max(8), number as u8);
    NewRecord {
        envelope: Envelope::from_parts(event, vec![number as u8; 65]),
        signer: Address::repeat_byte(number as u8),
        recorded_at: Timestamp::from_us(1_700_000_000_000_000 + number),
    }
}

fn stream(deal_id: DealId, expected_version: u64, records: Vec<NewRecord>) -> StreamAppend {
    StreamAppend { deal_id, expected_version, records, open: true, snapshot: None }
}

fn one(deal_number: u64, expected_version: u64, event_number: u64) -> Append {
    Append {
        streams: vec![stream(deal(deal_number), expected_version, vec![event(event_number, 300)])],
        ..Append::default()
    }
}

fn read(store: &Store) -> Vec<Record> {
    store.log(1).collect::<Result<_, _>>().unwrap()
}

/// A store of `count` records over seven deals, and the records.
fn filled(path: &Path, count: u64) -> Vec<Record> {
    let store = Store::open(path, Fsync::Always).unwrap();
    for first in (0..count).step_by(10) {
        let mut streams: Vec<StreamAppend> = Vec::new();
        for number in first..count.min(first + 10) {
            let in_batch = streams.iter().filter(|stream| stream.deal_id == deal(number % 7)).count() as u64;
            let version = store.head(&deal(number % 7)).unwrap().map_or(0, |head| head.version) + in_batch;
            streams.push(stream(deal(number % 7), version, vec![event(number, 300)]));
        }
        store.append(Append { streams, ..Append::default() }).unwrap();
    }
    read(&store)
}

#[test]
fn everything_appended_reads_back_the_same_also_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let cursor = Cursor { sequence: 9, message_hash: [3; 32], stream_created_us: 77, incarnation: 2 };
    let entry = |id: u8| OutboxEntry { id: [id; 32], deal_id: deal(1), payload: vec![id; 40] };
    let refused = |number: u64| Refused {
        subject: "deals.x.agreed".into(),
        sequence: number,
        at: Timestamp::from_us(number),
        reason_code: "malformed".into(),
        reason: "not an envelope".into(),
        bytes: vec![7; 3 * REFUSED_BYTES_MAX],
    };
    let append = Append {
        streams: vec![
            StreamAppend { snapshot: Some(vec![1, 2, 3]), ..stream(deal(1), 0, vec![event(1, 100), event(2, 5000)]) },
            StreamAppend { open: false, ..stream(deal(2), 0, vec![event(3, 8)]) },
            stream(deal(1), 2, vec![event(4, 100)]),
        ],
        cursor: Some(CursorUpdate { stream: "DEALS".into(), cursor }),
        // Ids in descending order: the outbox is in the order of adding, not of ids.
        outbox_add: vec![entry(9), entry(5), entry(1)],
        outbox_done: vec![[5; 32]],
        refused: vec![refused(1), refused(2)],
        ..Append::default()
    };
    let check = |store: &Store| {
        let records = read(store);
        assert_eq!(records.iter().map(|r| r.position).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert_eq!(records.iter().map(|r| r.version).collect::<Vec<_>>(), [1, 2, 1, 3]);
        for record in &records {
            assert_eq!(record.previous.extend(&record_bytes(record)), record.link);
            assert_eq!(store.record(record.position).unwrap().as_ref(), Some(record));
            let located = store.locate(&record.event_id).unwrap().unwrap();
            assert_eq!(
                (located.position, located.version, located.deal_id),
                (record.position, record.version, record.deal_id)
            );
        }
        assert_eq!((records[0].previous, records[2].previous), (ChainLink::GENESIS, ChainLink::GENESIS));
        assert_eq!((records[1].previous, records[3].previous), (records[0].link, records[1].link));
        let new = event(2, 5000);
        assert_eq!(
            (&records[1].envelope, records[1].signer, records[1].recorded_at),
            (&new.envelope, new.signer, new.recorded_at)
        );

        let of_deal: Vec<Record> = store.stream(&deal(1), 1).collect::<Result<_, _>>().unwrap();
        assert_eq!(of_deal, [records[0].clone(), records[1].clone(), records[3].clone()]);
        let tail: Vec<Record> = store.stream(&deal(1), 3).collect::<Result<_, _>>().unwrap();
        assert_eq!(tail, [records[3].clone()]);
        assert_eq!(store.stream(&deal(1), 4).count() + store.stream(&deal(99), 1).count(), 0);
        assert_eq!(store.log(3).count(), 2);

        let head = store.head(&deal(1)).unwrap().unwrap();
        assert_eq!((head.version, head.last_position, head.open, head.link), (3, 4, true, records[3].link));
        assert_eq!(store.head(&deal(99)).unwrap(), None);
        assert_eq!(store.open_deals().unwrap(), [deal(1)]);
        let deals: BTreeSet<DealId> = store.deals().map(|deal| deal.unwrap().0).collect();
        assert_eq!(deals, BTreeSet::from([deal(1), deal(2)]));
        assert_eq!(store.last_position(), 4);
        assert_eq!(store.snapshot(&deal(1)).unwrap(), Some((2, vec![1, 2, 3])));
        assert_eq!(store.snapshot(&deal(2)).unwrap(), None);
        assert_eq!(store.cursor("DEALS").unwrap(), Some(cursor));
        assert_eq!((store.cursor("DEAL").unwrap(), store.cursor("DEALS2").unwrap()), (None, None));
        assert_eq!(store.outbox().unwrap(), [entry(9), entry(1)]);
        let kept = store.refused(10).unwrap();
        assert_eq!(kept.iter().map(|r| r.sequence).collect::<Vec<_>>(), [2, 1]);
        assert_eq!((kept[0].bytes.len(), &kept[0].reason[..]), (REFUSED_BYTES_MAX, "not an envelope"));
        assert_eq!((store.refused(1).unwrap().len(), store.refused_count().unwrap()), (1, 2));
        let report = store.check(|_| {}).unwrap();
        assert!(report.damage.is_empty(), "{:?}", report.damage);
        assert_eq!((report.records, report.deals), (4, 2));
    };
    let store = Store::open(dir.path(), Fsync::Always).unwrap();
    let returned = store.append(append).unwrap();
    assert_eq!(returned, read(&store));
    check(&store);
    check(&Store::open_read_only(dir.path()).unwrap());
    drop(store);
    check(&Store::open_read_only(dir.path()).unwrap());
    check(&Store::open(dir.path(), Fsync::Group).unwrap());
    check(&Store::open(dir.path(), Fsync::Never).unwrap());
}

#[test]
fn an_append_on_another_version_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Fsync::Always).unwrap();
    store.append(one(1, 0, 1)).unwrap();
    let mut append = one(2, 0, 2);
    append.streams.push(stream(deal(1), 0, vec![event(3, 10)]));
    append.outbox_add.push(OutboxEntry { id: [1; 32], deal_id: deal(2), payload: vec![] });
    let fault = store.append(append).unwrap_err();
    assert!(matches!(fault, StoreFault::Conflict { expected: 0, found: 1, deal_id } if deal_id == deal(1)), "{fault}");
    assert!(fault.can_retry());
    assert_eq!((store.last_position(), store.head(&deal(2)).unwrap(), store.outbox().unwrap()), (1, None, vec![]));
    assert!(matches!(store.append(one(1, 7, 9)), Err(StoreFault::Conflict { expected: 7, found: 1, .. })));
    assert_eq!(store.append(one(1, 1, 2)).unwrap()[0].position, 2, "no position is left out");
}

#[test]
fn an_event_is_stored_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Fsync::Always).unwrap();
    store.append(one(1, 0, 1)).unwrap();
    let again = store.append(one(1, 1, 1)).unwrap_err();
    assert!(matches!(again, StoreFault::Duplicate { position: Some(1), .. }), "{again}");
    // The signature is no part of an event's identity.
    let mut resigned = one(5, 0, 1);
    let event_bytes = resigned.streams[0].records[0].envelope.event().to_vec();
    resigned.streams[0].records[0].envelope = Envelope::from_parts(event_bytes, vec![99; 65]);
    assert!(matches!(store.append(resigned), Err(StoreFault::Duplicate { position: Some(1), .. })));
    let mut twice = one(1, 1, 2);
    twice.streams.push(stream(deal(2), 0, vec![event(2, 300)]));
    assert!(matches!(store.append(twice), Err(StoreFault::Duplicate { position: None, .. })));
    assert_eq!(store.last_position(), 1);
}

#[test]
fn a_cursor_goes_forward_only_and_a_new_incarnation_starts_over() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Fsync::Never).unwrap();
    let put = |sequence, incarnation| {
        let cursor = Cursor { sequence, message_hash: [0; 32], stream_created_us: 0, incarnation };
        store.append(Append { cursor: Some(CursorUpdate { stream: "DEALS".into(), cursor }), ..Append::default() })
    };
    put(5, 0).unwrap();
    assert!(matches!(put(4, 0), Err(StoreFault::CursorBack { found: (0, 5), given: (0, 4), .. })));
    put(1, 1).unwrap();
    assert_eq!(store.cursor("DEALS").unwrap().map(|cursor| (cursor.incarnation, cursor.sequence)), Some((1, 1)));
    assert!(put(9, 0).is_err());
}

#[test]
fn read_models_and_meta_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Fsync::Always).unwrap();
    let row = |key: u8, value: Option<&[u8]>| Projection { key: vec![key], value: value.map(<[u8]>::to_vec) };
    store.append(Append { projections: vec![row(1, Some(b"one"))], ..one(1, 0, 1) }).unwrap();
    store.project(vec![row(2, Some(b"two"))]).unwrap();
    assert_eq!(store.projection(&[1]).unwrap(), Some(b"one".to_vec()));
    assert_eq!(store.projections(&[2], 9).unwrap(), [(vec![2], b"two".to_vec())]);
    store.project(vec![row(1, None)]).unwrap();
    assert_eq!(store.projections(&[], 9).unwrap().len(), 1);
    store.put_meta("genesis", b"abc").unwrap();
    drop(store);
    let store = Store::open(dir.path(), Fsync::Always).unwrap();
    assert_eq!((store.meta("genesis").unwrap(), store.meta("origin").unwrap()), (Some(b"abc".to_vec()), None));
}

#[test]
fn the_first_intent_wins_whoever_else_tries() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Fsync::Never).unwrap();
    let (threads, keys) = (8u8, 20u8);
    let barrier = Arc::new(Barrier::new(threads.into()));
    let spawn = |thread: u8| {
        let (store, barrier) = (store.clone(), Arc::clone(&barrier));
        std::thread::spawn(move || {
            barrier.wait();
            let put = |key: u8| store.put_intent(&[key], &[thread]).unwrap();
            (0..keys).map(put).collect::<Vec<Intent>>()
        })
    };
    let threads: Vec<_> = (0..threads).map(spawn).collect();
    let results: Vec<Vec<Intent>> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    for key in 0..keys {
        let winners: Vec<usize> = (0..results.len()).filter(|&t| results[t][key as usize] == Intent::New).collect();
        assert_eq!(winners.len(), 1, "key {key}");
        let value = vec![winners[0] as u8];
        for (thread, result) in results.iter().enumerate() {
            assert!(thread == winners[0] || result[key as usize] == Intent::Existing(value.clone()));
        }
        assert_eq!(store.intent(&[key]).unwrap(), Some(value));
    }
}

#[test]
fn an_unknown_format_is_refused_by_its_number() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 3);
    // What a later version would write: another number under the same seal, and a column family unknown here.
    let families = rocksdb::DB::list_cf(&rocksdb::Options::default(), dir.path()).unwrap();
    let mut db = rocksdb::DB::open_cf(&rocksdb::Options::default(), dir.path(), families).unwrap();
    let mut row = (FORMAT + 1).to_be_bytes().to_vec();
    let mut seal = blake3::Hasher::new();
    seal.update(b"meta\0").update(&6u64.to_be_bytes()).update(b"format").update(&row);
    row.extend_from_slice(&seal.finalize().as_bytes()[..8]);
    db.put_cf(db.cf_handle("meta").unwrap(), "format", row).unwrap();
    db.create_cf("of-the-future", &rocksdb::Options::default()).unwrap();
    drop(db);
    for result in [Store::open(dir.path(), Fsync::Always), Store::open_read_only(dir.path())] {
        let fault = result.unwrap_err();
        assert!(matches!(fault, StoreFault::Format { found, supported: FORMAT } if found == FORMAT + 1), "{fault}");
    }
}

#[test]
fn a_second_writer_is_refused_and_a_reader_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Store::open_read_only(dir.path()), Err(StoreFault::Missing { .. })));
    let store = Store::open(dir.path(), Fsync::Always).unwrap();
    assert!(matches!(Store::open(dir.path(), Fsync::Always), Err(StoreFault::Locked { .. })));
    let reader = Store::open_read_only(dir.path()).unwrap();
    assert!(matches!(reader.append(one(1, 0, 1)), Err(StoreFault::ReadOnly)));
    assert!(matches!(reader.put_intent(b"k", b"v"), Err(StoreFault::ReadOnly)));
    drop(store);
    Store::open(dir.path(), Fsync::Always).unwrap();
}

#[test]
fn a_reader_sees_all_that_was_acknowledged_while_the_writer_writes() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Fsync::Never).unwrap();
    let (acknowledged, allowed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let rounds = 10u64;
    let writer = {
        let (acknowledged, allowed) = (Arc::clone(&acknowledged), Arc::clone(&allowed));
        std::thread::spawn(move || {
            for number in 0..rounds * 200 {
                while number >= allowed.load(Ordering::Acquire) {
                    std::thread::yield_now();
                }
                store.append(one(number % 5, number / 5, number)).unwrap();
                acknowledged.store(number + 1, Ordering::Release);
            }
        })
    };
    let long_lived = Store::open_read_only(dir.path()).unwrap();
    for round in 1..=rounds {
        allowed.store(round * 200, Ordering::Release);
        while acknowledged.load(Ordering::Acquire) < round * 200 - 150 {
            std::thread::yield_now();
        }
        let before = acknowledged.load(Ordering::Acquire);
        let reader = Store::open_read_only(dir.path()).unwrap();
        long_lived.catch_up().unwrap();
        for store in [&reader, &long_lived] {
            let records = read(store);
            assert!(records.len() as u64 >= before, "{} of {before}", records.len());
            assert!(records.iter().zip(1..).all(|(record, position)| record.position == position));
            let report = store.check(|_| {}).unwrap();
            assert!(report.damage.is_empty(), "{:?}", report.damage);
        }
    }
    writer.join().unwrap();
    long_lived.catch_up().unwrap();
    assert_eq!(long_lived.last_position(), rounds * 200);
}

#[test]
fn a_checkpoint_holds_what_the_store_held_from_writer_and_from_reader() {
    let (dir, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let records = filled(dir.path(), 40);
    let store = Store::open(dir.path(), Fsync::Always).unwrap();
    let reader = Store::open_read_only(dir.path()).unwrap();
    store.checkpoint(copies.path().join("hot")).unwrap();
    reader.checkpoint(copies.path().join("rows")).unwrap();
    assert!(store.checkpoint(copies.path().join("hot")).is_err(), "an existing directory is left alone");
    store.append(one(100, 0, 100)).unwrap();
    for copy in ["hot", "rows"] {
        let copy = Store::open(copies.path().join(copy), Fsync::Always).unwrap();
        assert_eq!(read(&copy), records);
        assert!(copy.check(|_| {}).unwrap().damage.is_empty());
        assert_eq!(copy.append(one(100, 0, 101)).unwrap()[0].position, 41, "a copy can be written on");
    }
}

// ---- damage

/// The files of a store with an ending, longest first.
fn files(path: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.to_string_lossy().ends_with(ending)).collect();
    files.sort_by_key(|path| std::cmp::Reverse(path.metadata().unwrap().len()));
    files
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() && entry.file_name() != "LOCK" {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// Opens and reads everything. True where damage was reported; false where all is as it was; anything else fails.
fn notices(opened: Result<Store, StoreFault>, records: &[Record], what: &str) -> bool {
    let store = match opened {
        Err(StoreFault::Damaged { .. } | StoreFault::Io { .. }) => return true,
        Err(other) => panic!("{what}: {other}"),
        Ok(store) => store,
    };
    let read: Result<Vec<Record>, StoreFault> = store.log(1).collect();
    let report = store.check(|_| {}).unwrap();
    match read {
        Ok(read) => {
            assert!(read == records, "{what}: silently {} records instead of {}", read.len(), records.len());
            !report.damage.is_empty()
        }
        Err(fault) => {
            assert!(matches!(fault, StoreFault::Damaged { .. } | StoreFault::Io { .. }), "{what}: {fault}");
            assert!(!report.damage.is_empty(), "{what}: reading failed with {fault}, the check found nothing");
            true
        }
    }
}

#[test]
fn a_flipped_byte_in_a_table_file_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let records = filled(dir.path(), 300);
    drop(Store::open(dir.path(), Fsync::Always).unwrap()); // recovery moves the log into table files
    let tables = files(dir.path(), ".sst");
    assert!(tables.len() >= 4, "{tables:?}");
    let (mut noticed, mut flipped) = (0, 0);
    for table in tables.iter().take(4) {
        let sound = std::fs::read(table).unwrap();
        for step in 0..12 {
            let at = sound.len() * step / 12 + 3;
            let mut bytes = sound.clone();
            bytes[at] ^= 0x20;
            std::fs::write(table, &bytes).unwrap();
            let what = format!("byte {at} of {}", table.display());
            noticed += u32::from(notices(Store::open_read_only(dir.path()), &records, &what));
            flipped += 1;
        }
        std::fs::write(table, &sound).unwrap();
    }
    assert!(!notices(Store::open_read_only(dir.path()), &records, "nothing"), "sound again");
    // A few bytes of a table file mean nothing to a reader: statistics, padding.
    assert!(noticed * 10 >= flipped * 7, "{noticed} of {flipped}");
}

#[test]
fn a_flipped_byte_in_the_write_ahead_log_is_noticed_also_at_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let records = filled(dir.path(), 100);
    let log = files(dir.path(), ".log").remove(0);
    let name = log.file_name().unwrap().to_owned();
    let sound = std::fs::read(&log).unwrap();
    assert!(sound.len() > 30_000, "{}", sound.len());
    // Spread over the file, and the last record's header and body one by one.
    let spread = (0..10).map(|step| sound.len() * step / 10 + 7);
    let end = sound.len() - 60..sound.len();
    let last = (1..8).map(|back| sound.len() - back * 600);
    let mut noticed = 0;
    let places: Vec<usize> = spread.chain(last).chain(end.step_by(20)).collect();
    for at in &places {
        let damaged = tempfile::tempdir().unwrap();
        copy(dir.path(), damaged.path());
        let mut bytes = sound.clone();
        bytes[*at] ^= 0x10;
        std::fs::write(damaged.path().join(&name), &bytes).unwrap();
        let what = format!("byte {at} of {}", sound.len());
        assert!(notices(Store::open_read_only(damaged.path()), &records, &what), "{what}, reading");
        noticed += u32::from(notices(Store::open(damaged.path(), Fsync::Always), &records, &what));
    }
    assert_eq!(noticed as usize, places.len());
}

#[test]
fn a_log_cut_short_is_refused_where_the_lost_end_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 100);
    let log = files(dir.path(), ".log").remove(0);
    let bytes = std::fs::read(&log).unwrap();
    std::fs::write(&log, &bytes[..bytes.len() - 100]).unwrap();
    let fault = Store::open_read_only(dir.path()).unwrap_err();
    assert!(matches!(fault, StoreFault::Damaged { place: Place::Position(91), .. }), "{fault}");
    let fault = Store::open(dir.path(), Fsync::Always).unwrap_err();
    assert!(matches!(fault, StoreFault::Damaged { place: Place::Position(91), .. }), "{fault}");
    // Whoever accepts the loss says so.
    std::fs::remove_file(dir.path().join("MARK")).unwrap();
    assert_eq!(Store::open(dir.path(), Fsync::Always).unwrap().last_position(), 90);
}

#[test]
fn a_record_under_another_position_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 20);
    let families = rocksdb::DB::list_cf(&rocksdb::Options::default(), dir.path()).unwrap();
    let db = rocksdb::DB::open_cf(&rocksdb::Options::default(), dir.path(), families).unwrap();
    let events = db.cf_handle("events").unwrap();
    let frame = db.get_cf(events, 5u64.to_be_bytes()).unwrap().unwrap();
    db.put_cf(events, 7u64.to_be_bytes(), frame).unwrap();
    db.delete_cf(events, 9u64.to_be_bytes()).unwrap();
    drop(db);
    // A writer needs the last leaves of the tree; whoever reads sees what is left.
    let fault = Store::open(dir.path(), Fsync::Always).unwrap_err();
    assert!(matches!(fault, StoreFault::Damaged { place: Place::Position(7), .. }), "{fault}");
    let store = Store::open_read_only(dir.path()).unwrap();
    for position in [7, 9] {
        let fault = store.record(position).unwrap_err();
        assert!(matches!(fault, StoreFault::Damaged { place: Place::Position(at), .. } if at == position), "{fault}");
    }
    let mut log = store.log(1);
    assert_eq!(log.by_ref().take_while(Result::is_ok).count(), 6, "all before the damage is handed out");
    assert!(log.next().is_none());
    assert!(store.stream(&deal(6), 1).any(|record| record.is_err()));
    assert!(store.check(|_| {}).unwrap().damage.len() >= 2);
}

// ---- processes that die

const CHILD_STORE: &str = "TRIBUNAL_TEST_CHILD_STORE";
const CHILD_RECORD_BYTES: &str = "TRIBUNAL_TEST_CHILD_RECORD_BYTES";

/// No test of its own: what the child processes of the tests below run. Appends until it dies or a write fails.
#[test]
fn child_appends() {
    let Ok(path) = std::env::var(CHILD_STORE) else { return };
    let bytes = std::env::var(CHILD_RECORD_BYTES).unwrap().parse().unwrap();
    let store = Store::open(path, Fsync::Always).unwrap();
    let say = |line: String| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}").and_then(|()| out.flush()).unwrap();
    };
    for number in store.last_position().. {
        let (deal_number, version) = (number % 3, number / 3);
        match store.append(Append {
            streams: vec![stream(deal(deal_number), version, vec![event(number, bytes)])],
            ..Append::default()
        }) {
            Ok(records) => say(format!("acknowledged {}", records[0].position)),
            Err(fault) => {
                say(format!("failed {fault}"));
                let poisoned = [
                    store.append(one(50, 0, 1 << 40)).map(drop),
                    store.head(&deal(0)).map(drop),
                    store.record(1).map(drop),
                    store.log(1).next().unwrap().map(drop),
                    store.put_intent(b"k", b"v").map(drop),
                    store.outbox().map(drop),
                    store.record(u64::MAX).map(drop),
                ];
                let all = poisoned.iter().all(|result| matches!(result, Err(StoreFault::Poisoned)));
                say(format!("poisoned {all}"));
                return;
            }
        }
    }
}

/// This test binary again, running [`child_appends`] alone; under a limit of file size, in blocks of 512 bytes, if given.
fn child(store: &Path, record_bytes: usize, file_blocks_max: Option<u32>) -> Child {
    let module = module_path!().split_once("::").map_or("", |(_, module)| module);
    let limit = file_blocks_max.map_or(String::new(), |blocks| format!("trap '' XFSZ; ulimit -f {blocks}; "));
    Command::new("sh")
        .arg("-c")
        .arg(format!("{limit}exec \"$0\" \"$@\""))
        .arg(std::env::current_exe().unwrap())
        .args([&format!("{module}::child_appends"), "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD_STORE, store)
        .env(CHILD_RECORD_BYTES, record_bytes.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn a_killed_process_loses_nothing_it_acknowledged_and_stores_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for _ in 0..3 {
        // Counted from where this child begins: the last one may have run far ahead before it was killed.
        let enough = acknowledged + 60;
        let mut child = child(dir.path(), 400, None);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let position = |line: &String| line.strip_prefix("acknowledged ").map(|it| it.parse::<u64>().unwrap());
        while acknowledged < enough {
            let line = lines.next().expect("the child goes on").unwrap();
            acknowledged = position(&line).unwrap_or(acknowledged);
        }
        assert!(
            matches!(Store::open(dir.path(), Fsync::Always), Err(StoreFault::Locked { .. })),
            "another process has it"
        );
        assert!(Store::open_read_only(dir.path()).unwrap().last_position() >= acknowledged);
        child.kill().unwrap(); // SIGKILL
        for line in lines {
            acknowledged = position(&line.unwrap()).unwrap_or(acknowledged);
        }
        child.wait().unwrap();

        let store = Store::open(dir.path(), Fsync::Always).unwrap();
        let records = read(&store);
        let found = records.len() as u64;
        assert!(found == acknowledged || found == acknowledged + 1, "{found} records, {acknowledged} acknowledged");
        for (record, number) in records.iter().zip(0..) {
            assert_eq!(record.envelope, event(number, 400).envelope, "in order, nothing twice");
        }
        let report = store.check(|_| {}).unwrap();
        assert!(report.damage.is_empty(), "{:?}", report.damage);
        for deal_number in 0..3 {
            assert!(store.stream(&deal(deal_number), 1).all(|record| record.is_ok()), "the chain verifies");
        }
    }
}

#[test]
fn a_failed_write_poisons_the_store_until_it_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let output = child(dir.path(), 50_000, Some(2048)).wait_with_output().unwrap();
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    let acknowledged = output.lines().filter(|line| line.starts_with("acknowledged ")).count() as u64;
    assert!(acknowledged > 3, "{output}");
    assert!(output.contains("failed writing") && output.contains("poisoned true"), "{output}");
    let store = Store::open(dir.path(), Fsync::Always).unwrap();
    let found = store.last_position();
    assert!(found == acknowledged || found == acknowledged + 1, "{found} records, {acknowledged} acknowledged");
    assert!(store.check(|_| {}).unwrap().damage.is_empty());
    store.append(one(77, 0, 1 << 41)).unwrap();
}

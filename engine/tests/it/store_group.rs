//! Many callers append at once: they share writes, and each is decided on alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::{Command, Stdio},
    sync::Barrier,
    thread,
};

use tribunal_engine::store::{Append, Fsync, Record, Store, StoreFault};

use crate::store::{deal, event, stream};

const THREADS: u64 = 64;
const ROUNDS: u64 = 20;
const SHARED: u64 = 9_999;

/// Runs `work` on all threads at once, each from the same moment on.
fn together<T: Send>(work: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let barrier = Barrier::new(THREADS as usize);
    thread::scope(|scope| {
        let each = |number| {
            let (barrier, work) = (&barrier, &work);
            scope.spawn(move || {
                barrier.wait();
                work(number)
            })
        };
        let threads: Vec<_> = (0..THREADS).map(each).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn one(deal_number: u64, expected_version: u64, event_number: u64) -> Append {
    Append {
        streams: vec![stream(deal(deal_number), expected_version, vec![event(event_number, 120)])],
        ..Append::default()
    }
}

#[test]
fn sixty_four_callers_share_writes_and_all_that_was_acknowledged_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Fsync::Always).unwrap();
    let before = store.writes();
    let acknowledged: Vec<Record> = together(|thread| {
        let append = |round: u64| store.append(one(thread, round, thread * 1000 + round)).unwrap().remove(0);
        (0..ROUNDS).map(append).collect::<Vec<_>>()
    })
    .concat();
    let (appends, writes) = (THREADS * ROUNDS, store.writes() - before);
    assert_eq!(acknowledged.len() as u64, appends);
    assert!(writes * 4 < appends, "{writes} writes for {appends} appends");
    let read: Vec<Record> = Store::open_read_only(dir.path()).unwrap().log(1).collect::<Result<_, _>>().unwrap();
    assert!(read.iter().zip(1..).all(|(record, position)| record.position == position), "gapless");
    let by_position: BTreeMap<u64, &Record> = acknowledged.iter().map(|record| (record.position, record)).collect();
    assert_eq!(by_position.len(), read.len());
    assert!(read.iter().all(|record| by_position[&record.position] == record));
    for thread in 0..THREADS {
        let versions: Vec<u64> = store.stream(&deal(thread), 1).map(|record| record.unwrap().version).collect();
        assert_eq!(versions, (1..=ROUNDS).collect::<Vec<_>>());
    }
    drop(store);
    let report = Store::check_path(dir.path(), |_, _, _| {}).unwrap();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
}

#[test]
fn of_callers_that_want_the_same_version_or_event_one_wins_and_no_other_caller_is_hurt() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Fsync::Always).unwrap();
    let outcomes = together(|thread| {
        let (mut won, mut lost) = (BTreeSet::new(), 0);
        for round in 0..ROUNDS {
            // All want to be the next in one deal …
            match store.append(one(SHARED, round, thread * 1000 + round)) {
                Ok(records) => assert!(won.insert(records[0].version)),
                Err(StoreFault::Conflict { expected, found, .. }) => {
                    assert!(expected == round && found != round, "{expected} {found}");
                    lost += 1;
                }
                Err(other) => panic!("{other}"),
            }
            while store.head(&deal(SHARED)).unwrap().is_none_or(|head| head.version <= round) {
                thread::yield_now();
            }
            // … all bring one event …
            let same = store.append(one(10_000 + thread, 0, 1 << 40 | round));
            match same {
                Ok(records) => assert_eq!(records[0].version, 1),
                Err(StoreFault::Duplicate { position: Some(position), .. }) => {
                    let at = store.record(position).unwrap();
                    assert!(at.is_none_or(|record| record.envelope == event(1 << 40 | round, 120).envelope));
                }
                Err(StoreFault::Conflict { expected: 0, .. }) => {}
                Err(other) => panic!("{other}"),
            }
            // … and each has something of its own that nobody may spoil.
            store.append(one(thread, round, (1 << 50) | (thread * 1000 + round))).unwrap();
        }
        (won, lost)
    });
    let won: Vec<u64> = outcomes.iter().flat_map(|(won, _)| won.iter().copied()).collect();
    assert_eq!(won.len() as u64, ROUNDS, "one a version");
    assert_eq!(won.into_iter().collect::<BTreeSet<_>>(), (1..=ROUNDS).collect());
    let lost: u64 = outcomes.iter().map(|(_, lost)| lost).sum();
    assert_eq!(lost, (THREADS - 1) * ROUNDS);
    let ids: Vec<_> = store.log(1).map(|record| record.unwrap().event_id).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "no event twice");
    assert_eq!(store.log(1).filter(|record| record.as_ref().unwrap().envelope.event()[2] == 1).count() as u64, ROUNDS);
    drop(store);
    assert!(Store::check_path(dir.path(), |_, _, _| {}).unwrap().damage.is_empty());
}

// ---- a disk that fills up while many write

const CHILD_STORE: &str = "TRIBUNAL_TEST_GROUP_STORE";

/// No test of its own: what the child process of the test below runs.
#[test]
fn child_appends_on_many_threads() {
    let Ok(path) = std::env::var(CHILD_STORE) else { return };
    let store = Store::open(path, Fsync::Always).unwrap();
    let lines = together(|thread| {
        let mut acknowledged = 0;
        for round in 0.. {
            let records = vec![event(thread * 100_000 + round, 20_000)];
            match store.append(Append { streams: vec![stream(deal(thread), round, records)], ..Append::default() }) {
                Ok(_) => acknowledged += 1,
                Err(StoreFault::Io { .. } | StoreFault::Poisoned) => break,
                Err(other) => panic!("{other}"),
            }
        }
        assert!(matches!(store.append(one(thread, 0, 1)), Err(StoreFault::Poisoned)));
        format!("deal {thread} {acknowledged}")
    });
    println!("{}", lines.join("\n"));
}

#[test]
fn a_disk_that_fills_up_under_many_callers_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 16384; exec \"$0\" \"$@\""]) // 8 MiB
        .arg(std::env::current_exe().unwrap())
        .args(["store_group::child_appends_on_many_threads", "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD_STORE, dir.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let acknowledged: BTreeMap<u64, u64> = said
        .lines()
        // The first of them follows the name of the test.
        .filter_map(|line| line.rsplit_once("deal ")?.1.split_once(' '))
        .map(|(deal, count)| (deal.parse().unwrap(), count.parse().unwrap()))
        .collect();
    assert!(output.status.success() && acknowledged.len() as u64 == THREADS, "{said}");
    whole(dir.path(), &acknowledged);
}

/// The store opens for reading and for writing with everything in it that was acknowledged, and is sound.
fn whole(path: &Path, acknowledged: &BTreeMap<u64, u64>) {
    let report = Store::check_path(path, |_, _, _| {}).unwrap();
    assert!(report.damage.is_empty(), "before it is opened again: {:?}", report.damage);
    let store = Store::open(path, Fsync::Always).unwrap();
    for (number, count) in acknowledged {
        let found = store.head(&deal(*number)).unwrap().map_or(0, |head| head.version);
        assert!(found == *count || found == count + 1, "deal {number}: {found} of {count}");
    }
    store.append(one(77_777, 0, 1 << 60)).unwrap();
    drop(store);
    let report = Store::check_path(path, |_, _, _| {}).unwrap();
    assert!(report.damage.is_empty() && report.notes.is_empty(), "{report:?}");
}

//! `make bench`: the store beside raw RocksDB with the same durability, loading long deals, and memory over a long log.
//!
//! `TRIBUNAL_BENCH_EVENTS` says how long that log is; default 100000.

use std::{
    path::Path,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use tribunal_core::Deal;
use tribunal_engine::{
    audit,
    replay::{fold, load},
    seal::seal,
    store::{Append, Fsync, NewRecord, Store, StreamAppend},
};
use tribunal_events::{B256, DealId, Digest, Envelope, EventKind, Party, Timestamp};
use tribunal_fixtures::{Script, TermsBuilder, keys::key};

const RUNS: usize = 5;
const PAYLOAD_BYTES: usize = 512;
const LONG_DEAL: u64 = 10_000;
/// How long each figure of appends is taken.
const SPAN: Duration = Duration::from_millis(1500);

fn main() {
    // `cargo test --all-targets` runs benches too; a report there is only noise.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    appends();
    long_deal();
    memory();
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn record(number: u64) -> NewRecord {
    let mut event = number.to_be_bytes().to_vec();
    event.resize(PAYLOAD_BYTES, number as u8);
    NewRecord {
        envelope: Envelope::from_parts(event, vec![7; 65]),
        signer: key("client").address(),
        recorded_at: Timestamp::from_us(1_700_000_000_000_000 + number),
    }
}

fn one(deal_id: DealId, expected_version: u64, number: u64) -> Append {
    let records = vec![record(number)];
    Append {
        streams: vec![StreamAppend { deal_id, expected_version, records, open: true, snapshot: None }],
        ..Append::default()
    }
}

/// How often a second `work` is done by so many threads at once; it is given its thread and how often it did it before.
fn rate(threads: usize, work: impl Fn(u64, u64) + Sync) -> f64 {
    let barrier = Barrier::new(threads + 1);
    thread::scope(|scope| {
        let each = |thread: u64| {
            let (barrier, work) = (&barrier, &work);
            scope.spawn(move || {
                barrier.wait();
                let start = Instant::now();
                let mut count = 0;
                while start.elapsed() < SPAN {
                    work(thread, count);
                    count += 1;
                }
                count
            })
        };
        let running: Vec<_> = (0..threads as u64).map(each).collect();
        barrier.wait();
        let start = Instant::now();
        let count: u64 = running.into_iter().map(|thread| thread.join().expect("appends")).sum();
        count as f64 / start.elapsed().as_secs_f64()
    })
}

/// Each of many callers appends an event to its own deal and waits until it is on the disk; beside RocksDB taking the same
/// frame under a running number in a synced write of its own. Turn about, since disks wander.
fn appends() {
    println!(
        "durable appends of {PAYLOAD_BYTES} bytes a second, each caller waiting for its own, medians of {RUNS} runs:"
    );
    for threads in [1, 16, 64] {
        let (mut ours, mut raw, mut shared) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..RUNS {
            raw.push(raw_rocksdb(threads));
            let folder = tempfile::tempdir().expect("a folder");
            let store = Store::open(folder.path(), Fsync::Always).expect("opens");
            let writes = store.writes();
            ours.push(rate(threads, |thread, count| {
                let deal_id = DealId::of_terms(&thread.to_be_bytes());
                store.append(one(deal_id, count, thread << 40 | count)).expect("appends");
            }));
            shared.push(store.last_position() as f64 / (store.writes() - writes) as f64);
        }
        let (ours, raw) = (median(ours), median(raw));
        println!(
            "  {threads:>2} callers   {ours:>9.0}   raw RocksDB {raw:>9.0}   ratio {:>5.2}   {:>5.1} events a sync",
            ours / raw,
            median(shared)
        );
    }
    println!();
}

fn raw_rocksdb(threads: usize) -> f64 {
    let folder = tempfile::tempdir().expect("a folder");
    let mut options = rocksdb::Options::default();
    options.create_if_missing(true);
    let db = rocksdb::DB::open(&options, folder.path()).expect("opens");
    let frame = vec![7_u8; PAYLOAD_BYTES + 65 + 182];
    rate(threads, |thread, count| {
        let mut options = rocksdb::WriteOptions::default();
        options.set_sync(true);
        db.put_opt((thread << 40 | count).to_be_bytes(), &frame, &options).expect("writes");
    })
}

/// A deal that a chain kept busy: the fold from the first event, and from a snapshot 50 events back.
fn long_deal() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path(), Fsync::Never).expect("opens");
    let script = Script::new(TermsBuilder::new("bench long").agree_by_s(4_000_000_000).build());
    let (deal_id, operator) = (script.terms().deal_id(), key("operator"));
    let new = |envelope: Envelope, signer| NewRecord { envelope, signer, recorded_at: Timestamp::from_us(1) };
    let append = |version: u64, records: Vec<NewRecord>, snapshot| {
        let stream = StreamAppend { deal_id, expected_version: version, records, open: true, snapshot };
        store.append(Append { streams: vec![stream], ..Append::default() }).expect("appends")
    };
    let first = append(0, vec![new(script.proposed(Party::Client), key("client").address())], None);
    let mut deal: Deal = fold(None, &first[0]).expect("folds");
    for number in 1..LONG_DEAL {
        let kind = EventKind::ChainObserved {
            step: "other".into(),
            effect_id: Digest::new([1; 32]),
            transaction: B256::from(alloy_number(number)),
            block: number,
            failure: Some("reverted".into()),
            block_time_s: None,
        };
        let envelope = seal(&kind, &deal, &operator);
        let records = append(number, vec![new(envelope, operator.address())], None);
        deal = fold(Some(deal), &records[0]).expect("folds");
        if number == LONG_DEAL - 50 {
            let saved = serde_json::to_vec(&deal).expect("a deal has a JSON form");
            let stream = StreamAppend {
                deal_id,
                expected_version: deal.version(),
                records: Vec::new(),
                open: true,
                snapshot: Some(saved),
            };
            // Measured first without it: kept aside.
            let before = timed(&store, &deal_id);
            store.append(Append { streams: vec![stream], ..Append::default() }).expect("appends");
            let after = timed(&store, &deal_id);
            println!(
                "load of a deal of {} events: {before:.2} ms, from a snapshot of it {after:.3} ms",
                deal.version()
            );
        }
    }
    println!("load of a deal of {LONG_DEAL} events, its snapshot 49 events old: {:.3} ms\n", timed(&store, &deal_id));
}

fn alloy_number(number: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[24..].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn timed(store: &Store, deal_id: &DealId) -> f64 {
    let run = |_| {
        let start = Instant::now();
        std::hint::black_box(load(store, deal_id).expect("loads"));
        start.elapsed().as_secs_f64() * 1e3
    };
    median((0..RUNS).map(run).collect())
}

/// Peak memory of this process since it was last reset, in MiB.
fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}

fn phase(name: &str, events: u64, work: impl FnOnce()) {
    // 5 resets the peak.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let start = Instant::now();
    work();
    let spent = start.elapsed().as_secs_f64();
    println!("  {name:<34} {:>8.0} MiB   {:>10.0} events a second", peak_mib(), events as f64 / spent);
}

/// Signed honest deals of four events, appended, read, checked, audited and backed up.
fn memory() {
    let events: u64 = std::env::var("TRIBUNAL_BENCH_EVENTS").ok().and_then(|it| it.parse().ok()).unwrap_or(100_000);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store");
    println!("peak memory and speed over a log of {events} events:");
    let store = Store::open(&path, Fsync::Group).expect("opens");
    let deals = events / 4;
    phase("appending, in batches of 1000", events, || {
        for first in (0..deals).step_by(250) {
            let streams = (first..deals.min(first + 250)).map(|number| {
                let records = (0..4).map(|step| record(number * 4 + step)).collect();
                let deal_id = DealId::of_terms(&number.to_be_bytes());
                StreamAppend { deal_id, expected_version: 0, records, open: number % 100 == 0, snapshot: None }
            });
            store.append(Append { streams: streams.collect(), ..Append::default() }).expect("appends");
        }
    });
    drop(store);
    let store = Store::open_read_only(&path).expect("opens");
    phase("reading the log", events, || {
        assert!(store.log(1).inspect(|record| assert!(record.is_ok())).count() as u64 == deals * 4);
    });
    phase("store check", events, || {
        let report = Store::check_path(&path, |_, _, _| {}).expect("checks");
        assert!(report.damage.is_empty(), "{:?}", report.damage.first());
    });
    phase("store backup", events, || backup(&store, folder.path()));
    drop(store);
    audited(events / 10);
}

fn backup(store: &Store, folder: &Path) {
    tribunal_engine::store::backup::back_up(store, &folder.join("backups"), &[]).expect("backs up");
}

/// An audit looks into events, so these are signed.
fn audited(events: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path(), Fsync::Group).expect("opens");
    for number in 0..events {
        let script = Script::new(TermsBuilder::new(&format!("memory {number}")).without_contract().build());
        let new = NewRecord {
            envelope: script.proposed(Party::Client),
            signer: key("client").address(),
            recorded_at: Timestamp::from_us(1),
        };
        let deal_id = script.terms().deal_id();
        let stream = StreamAppend { deal_id, expected_version: 0, records: vec![new], open: true, snapshot: None };
        store.append(Append { streams: vec![stream], ..Append::default() }).expect("appends");
    }
    phase(&format!("auditing {events} proposals"), events, || {
        std::hint::black_box(audit::audit(&store, audit::Scope::All, audit::AuditOptions::default()).expect("audits"));
    });
}

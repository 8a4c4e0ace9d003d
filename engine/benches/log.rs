//! `make bench`: the transparency log at a size, `TRIBUNAL_BENCH_RECORDS` (200,000 unless set): what it costs to keep, to sign,
//! to prove and to verify. One deal has eight records.

use std::time::{Duration, Instant};

use tribunal_engine::{
    bundle::encode_frame,
    log::LogSigner,
    store::{Append, Fsync, NewRecord, Store, StreamAppend},
};
use tribunal_events::{
    Address, DealId, Envelope, SigningKey, Timestamp,
    tlog::{HeadEntry, LogKey, leaf_hash, verify_consistency, verify_head, verify_inclusion},
};

const BATCH: u64 = 8_000;
const RECORDS_A_DEAL: u64 = 8;
const EVENT_BYTES: usize = 300;
/// Proofs of each kind that are timed.
const PROOFS: u64 = 200;

fn main() {
    // `cargo test --all-targets` runs benches too; a report there is only noise.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let records = std::env::var("TRIBUNAL_BENCH_RECORDS").ok().and_then(|text| text.parse().ok()).unwrap_or(200_000);
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path().join("store"), Fsync::Group).expect("opens");
    let start = Instant::now();
    let mut hashing = Duration::ZERO;
    while store.last_position() < records {
        hashing += grow(&store, BATCH.min(records - store.last_position()));
    }
    let spent = start.elapsed();
    println!("log of {records} records, {EVENT_BYTES} bytes an event, {} deals", records.div_ceil(RECORDS_A_DEAL));
    println!("  appended, group sync             {:>10.0} a second", records as f64 / spent.as_secs_f64());
    println!("  leaf hashes alone / all of it    {:>10.3}", hashing.as_secs_f64() / spent.as_secs_f64());

    let key = LogKey::new("example.org/log", &[7; 32]).expect("a name");
    let operator = SigningKey::new([9; 32]).expect("a key");
    let path = LogSigner::default_path(store.path());
    let signer = LogSigner::open(&store, key, &operator, path).expect("opens");
    let start = Instant::now();
    let older = signer.checkpoint(&store).expect("signs").expect("not empty");
    println!("  first checkpoint                 {:>10.1} ms", ms(start.elapsed()));
    grow(&store, 1000);
    let start = Instant::now();
    let newer = signer.checkpoint(&store).expect("signs").expect("not empty");
    println!("  checkpoint after 1000 records    {:>10.1} ms", ms(start.elapsed()));

    let (old, now) = (older.checkpoint(), newer.checkpoint());
    let positions: Vec<u64> = (0..PROOFS).map(|number| number * (now.size - 1) / PROOFS + 1).collect();
    let leaves: Vec<_> = positions
        .iter()
        .map(|&at| leaf_hash(&encode_frame(&store.record(at).expect("reads").expect("is there"))))
        .collect();
    let start = Instant::now();
    let paths: Vec<_> = positions
        .iter()
        .map(|&position| store.prove_inclusion(position, now.size).expect("reads").expect("is there"))
        .collect();
    let proving = start.elapsed() / PROOFS as u32;
    let start = Instant::now();
    for ((position, leaf), path) in positions.iter().zip(&leaves).zip(&paths) {
        verify_inclusion(leaf, position - 1, now.size, path, &now.root).expect("holds");
    }
    let verifying = start.elapsed() / PROOFS as u32;
    let bytes = paths.iter().map(|path| path.len() * 32).max().unwrap_or_default();
    println!("  inclusion: {bytes} bytes, proved in {:.0} µs, verified in {:.1} µs", us(proving), us(verifying));
    let start = Instant::now();
    let proof = store.prove_consistency(old.size, now.size).expect("reads").expect("grew");
    let proving = start.elapsed();
    let start = Instant::now();
    verify_consistency((old.size, &old.root), (now.size, &now.root), &proof).expect("holds");
    let verifying = start.elapsed();
    println!(
        "  consistency: {} bytes, proved in {:.0} µs, verified in {:.1} µs",
        proof.len() * 32,
        us(proving),
        us(verifying)
    );
    let start = Instant::now();
    let mut entry: Option<HeadEntry> = None;
    let mut bytes = 0;
    for number in 0..20 {
        let head = store.prove_head(&deal(number)).expect("reads").expect("signed");
        entry = head.entry;
        bytes = bytes.max(head.siblings.len() * 32);
        verify_head(&head.entry.expect("is there"), &head.siblings, &now.heads.root).expect("holds");
    }
    assert!(entry.is_some());
    println!("  a deal's head: {bytes} bytes, proved and verified in {:.0} µs", us(start.elapsed() / 20));
    let start = Instant::now();
    drop((signer, store));
    let store = Store::open(folder.path().join("store"), Fsync::Group).expect("opens");
    println!("  closed and opened again in       {:>10.1} ms", ms(start.elapsed()));
    assert_eq!(store.tree_root(now.size).expect("reads"), Some(now.root));
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("unknown").trim();
    println!("  memory at most                   {peak:>13}\n");
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn us(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn deal(number: u64) -> DealId {
    DealId::of_terms(&number.to_be_bytes())
}

/// Adds records; how long hashing their leaves once more takes.
fn grow(store: &Store, count: u64) -> Duration {
    let mut streams: Vec<StreamAppend> = Vec::new();
    for number in store.last_position()..store.last_position() + count {
        let (deal_id, version) = (deal(number / RECORDS_A_DEAL), number % RECORDS_A_DEAL);
        let mut event = number.to_be_bytes().to_vec();
        event.resize(EVENT_BYTES, 7);
        let record = NewRecord {
            envelope: Envelope::from_parts(event, vec![1; 65]),
            signer: Address::ZERO,
            recorded_at: Timestamp::from_us(number),
        };
        match streams.last_mut().filter(|stream| stream.deal_id == deal_id) {
            Some(stream) => stream.records.push(record),
            None => {
                let records = vec![record];
                streams.push(StreamAppend { deal_id, expected_version: version, records, open: true, snapshot: None });
            }
        }
    }
    let records = store.append(Append { streams, ..Append::default() }).expect("appends");
    let frames: Vec<_> = records.iter().map(encode_frame).collect();
    let start = Instant::now();
    for frame in &frames {
        std::hint::black_box(leaf_hash(frame));
    }
    start.elapsed()
}

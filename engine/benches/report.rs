//! `make bench`: the engine's speed as ratios to limits and peers, measured on the same machine in the same run.
//!
//! Absolute figures wander on shared machines; the ratios are what to compare. Each figure is the median of several runs.

use std::{
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tribunal_engine::{
    audit,
    bus::{Bus, InProcessBus, InProcessLimits, Message, Outgoing},
    effects::outgoing,
    engine::{Engine, Fencing, Parts, now},
    partition::{Job, Partition, Settings},
    store::{Fsync, Store},
};
use tribunal_events::{ContentAddress, Envelope, Party, Timestamp, proto};
use tribunal_fixtures::{Script, TermsBuilder, keys::key};
use tribunal_verifiers::{FolderSource, MemorySource, OperatorLimits, Request, Service};

#[path = "report/judging.rs"]
mod judging;

const DEALS: usize = 2_000;
const RUNS: usize = 5;
const BATCH: usize = 1_000;

fn main() {
    // `cargo test --all-targets` runs benches too; a report there is only noise.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    // A name after `--` runs that part alone: `cargo bench --bench report -- audit`.
    let audit_alone = std::env::args().any(|argument| argument == "audit");
    println!("Ratios on this machine, medians of {RUNS} runs; 1.00 is the limit or peer named.\n");
    let envelopes = envelopes(0..DEALS);
    let recovery = recovery(&envelopes, false);
    if audit_alone {
        return replay(recovery);
    }
    let answered = self::recovery(&envelopes, true);
    let raw = raw_rocksdb(&envelopes);
    let partition = partition(&envelopes);
    let end_to_end = end_to_end(&envelopes);
    println!("signature recovery, all cores        {recovery:>10.0} a second");
    println!("and a receipt signed for each          {answered:>10.0} a second");
    println!("raw RocksDB, synced batches of {BATCH}   {raw:>10.0} events a second");
    println!("writer: decode to synced append      {partition:>10.0} events a second");
    println!("bus to receipt, durable              {end_to_end:>10.0} events a second");
    let limit = recovery.min(raw);
    println!("  writer / smaller limit             {:>10.2}", partition / limit);
    println!("  end to end / signature limit       {:>10.2}", end_to_end / recovery);
    println!("  end to end / with its receipts     {:>10.2}", end_to_end / answered);
    println!("  end to end / raw RocksDB           {:>10.2}\n", end_to_end / raw);
    reexecution();
    judging::comparators();
    judging::votes();
    replay(recovery);
}

/// Honest deals without a contract: four signed events each, as they come off the bus.
fn envelopes(numbers: std::ops::Range<usize>) -> Vec<Envelope> {
    let deals: Vec<_> = numbers
        .map(|number| {
            let builder = TermsBuilder::new(&format!("bench {number}")).without_contract();
            let script = Script::new(builder.agree_by_s(4_000_000_000).build());
            let claim = proto::Claim {
                stdout: ContentAddress::of(b"").to_string(),
                instruction_count: 1,
                ..proto::Claim::default()
            };
            [
                script.proposed(Party::Client),
                script.agreed(Party::Provider),
                script.result_submitted(claim),
                script.accepted(),
            ]
        })
        .collect();
    (0..4).flat_map(|step| deals.iter().map(move |deal| deal[step].clone())).collect()
}

/// The messages that carry these, after so many others.
fn messages(envelopes: &[Envelope], after: u64) -> Vec<Job> {
    let start = now();
    let message = |(index, envelope): (usize, &Envelope)| {
        let Outgoing { subject, payload, message_id, .. } = outgoing(envelope).expect("well formed");
        Job::Message(Message {
            stream_sequence: after + index as u64 + 1,
            subject,
            payload,
            at: Timestamp::from_us(start.us() + index as u64),
            recorded_at: None,
            message_id,
            stream_created_us: 1,
            incarnation: 0,
        })
    };
    envelopes.iter().enumerate().map(message).collect()
}

fn median(run: impl FnMut() -> f64) -> f64 {
    median_of(RUNS, run)
}

fn median_of(runs: usize, mut run: impl FnMut() -> f64) -> f64 {
    let mut figures: Vec<_> = (0..runs).map(|_| run()).collect();
    figures.sort_by(f64::total_cmp);
    figures[runs / 2]
}

fn rate(count: usize, spent: Duration) -> f64 {
    count as f64 / spent.as_secs_f64()
}

/// Signers recovered a second on all cores; with `receipts`, a signature made for each too.
fn recovery(envelopes: &[Envelope], receipts: bool) -> f64 {
    let domain = tribunal_events::Domain::default();
    let parsed: Vec<_> = envelopes.iter().map(|envelope| envelope.clone().parse().expect("well formed")).collect();
    let share = parsed.len().div_ceil(cores());
    median(|| {
        let copies: Vec<Vec<_>> = parsed.chunks(share).map(<[_]>::to_vec).collect();
        let start = Instant::now();
        thread::scope(|scope| {
            for part in copies {
                scope.spawn(move || {
                    let operator = key("operator");
                    for event in part {
                        let signed = event.authenticate(&domain).expect("signed");
                        if receipts {
                            std::hint::black_box(operator.sign(domain.event_digest(&signed.deal_id(), &signed.id())));
                        }
                    }
                });
            }
        });
        rate(envelopes.len(), start.elapsed())
    })
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

fn raw_rocksdb(envelopes: &[Envelope]) -> f64 {
    let bytes: Vec<_> = envelopes.iter().map(Envelope::encode).collect();
    median(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let mut options = rocksdb::Options::default();
        options.create_if_missing(true);
        let db = rocksdb::DB::open(&options, folder.path()).expect("opens");
        let mut sync = rocksdb::WriteOptions::default();
        sync.set_sync(true);
        let start = Instant::now();
        for (number, part) in bytes.chunks(BATCH).enumerate() {
            let mut batch = rocksdb::WriteBatch::default();
            for (index, value) in part.iter().enumerate() {
                batch.put(((number * BATCH + index) as u64).to_be_bytes(), value);
            }
            db.write_opt(batch, &sync).expect("writes");
        }
        rate(bytes.len(), start.elapsed())
    })
}

fn settings() -> Settings {
    Settings { operator: key("operator"), domains: Vec::new(), recorded_time: false, preflight: None }
}

fn partition(envelopes: &[Envelope]) -> f64 {
    median(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path(), Fsync::Always).expect("opens");
        let mut partition = Partition::new(store, settings(), "DEALS").expect("starts");
        let mut jobs = messages(envelopes, 0).into_iter();
        let start = Instant::now();
        loop {
            let batch: Vec<_> = jobs.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                break;
            }
            let processed = partition.process(batch).expect("processes");
            assert!(processed.refused.is_empty(), "{:?}", processed.refused.first());
        }
        rate(envelopes.len(), start.elapsed())
    })
}

fn end_to_end(envelopes: &[Envelope]) -> f64 {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads");
    median(|| {
        runtime.block_on(async {
            let folder = tempfile::tempdir().expect("a folder");
            let bus: Arc<dyn Bus> = Arc::new(InProcessBus::new(now, InProcessLimits::default()));
            let artifacts = Arc::new(MemorySource::new());
            let engine = Engine::start(Parts {
                store: Store::open(folder.path(), Fsync::Always).expect("opens"),
                bus: Arc::clone(&bus),
                chain: None,
                verifier: Arc::new(Service::new(OperatorLimits::default(), Vec::new())),
                artifacts,
                settings: settings(),
                mediators: Vec::new(),
                history: None,
                workers: 1,
                fuel_per_s: 300_000_000,
                fencing: Fencing::Off,
            })
            .await
            .expect("starts");
            let out: Vec<_> = envelopes.iter().map(|envelope| outgoing(envelope).expect("well formed")).collect();
            let start = Instant::now();
            for out in out {
                bus.publish(out).await.expect("publishes");
            }
            engine.idle().await.expect("idles");
            let figure = rate(envelopes.len(), start.elapsed());
            assert_eq!(engine.store().last_position() as usize, envelopes.len() + DEALS, "each deal settles too");
            engine.shutdown(std::time::Duration::from_secs(60)).await;
            figure
        })
    })
}

/// The fixtures' programs in the sandbox, beside the same modules in wasmtime with the same host functions but neither
/// fuel nor limits, and beside the same programs compiled for this machine.
fn reexecution() {
    println!("re-execution of a cached module / plain wasmtime without fuel and limits   / native");
    let (mut ratios, mut natives) = (Vec::new(), Vec::new());
    for name in ["wordcount", "render", "heat", "classifier"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/jobs").join(name);
        let job = std::fs::read(folder.join("job.json")).expect("a job");
        let job: serde_json::Value = serde_json::from_slice(&job).expect("json");
        let service = Service::new(
            OperatorLimits::default(),
            vec![Arc::new(FolderSource::open(&folder).expect("a job's folder"))],
        );
        let request = asked(&job, serde_json::json!({ "exit_code": 0 }));
        let native = native(&folder, &job);
        service.verify(&request).expect("compiles");
        service.run_plain(&request).expect("compiles");
        // In turn, so that what else the machine does slows both.
        let (mut ours, mut plain, mut alone) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..3 * RUNS {
            let start = Instant::now();
            assert_eq!(service.verify(&request).expect("verifies").reason.code, "ok");
            ours.push(start.elapsed().as_secs_f64());
            plain.push(service.run_plain(&request).expect("runs").as_secs_f64());
            alone.extend(native.as_ref().map(Native::seconds));
        }
        let [ours, plain] = [ours, plain].map(middle);
        let beside = if alone.is_empty() {
            "no C compiler".to_owned()
        } else {
            format!("{:>6.2}", ours / middle(alone.clone()))
        };
        println!("  {name:20} {:>8.1} ms / {:>8.1} ms   {:>6.2}   {beside}", ours * 1e3, plain * 1e3, ours / plain);
        ratios.push(ours / plain);
        if !alone.is_empty() {
            natives.push(ours / middle(alone));
        }
        if name == "wordcount" {
            // Without fuel it ends at its first instruction: what is left is the start of a module and the verdict.
            let mut job = job;
            job["limits"]["fuel"] = 0.into();
            let request = asked(&job, serde_json::json!({ "termination": "out-of-fuel" }));
            let start = || {
                let start = Instant::now();
                assert_eq!(service.verify(&request).expect("verifies").reason.code, "ok");
                start.elapsed().as_secs_f64()
            };
            let started = middle((0..20 * RUNS).map(|_| start()).collect());
            println!("  start of a cached module and its verdict: {:.3} ms", started * 1e3);
        }
    }
    let natives = if natives.is_empty() { String::new() } else { format!("{:>6.2}", middle(natives)) };
    println!("  median                                       {:>6.2}   {natives}\n", middle(ratios));
}

fn asked(job: &serde_json::Value, claim: serde_json::Value) -> Request {
    let request = serde_json::json!({ "method": { "kind": "reexecution" }, "job": job, "claim": claim });
    Request::parse(&request.to_string()).expect("well formed")
}

/// The middle one.
fn middle(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// A job's program compiled for this machine, with its arguments.
struct Native {
    folder: tempfile::TempDir,
    args: Vec<String>,
}

impl Native {
    fn seconds(&self) -> f64 {
        let start = Instant::now();
        let run = std::process::Command::new(self.folder.path().join("program")).args(&self.args).output();
        assert!(run.expect("runs").status.success(), "{:?}", self.args);
        start.elapsed().as_secs_f64()
    }
}

/// None where there is no C compiler.
fn native(job_folder: &Path, job: &serde_json::Value) -> Option<Native> {
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("program");
    let compiled = std::process::Command::new("cc")
        .args(["-std=c11", "-O2", "-ffp-contract=off", "-o"])
        .arg(&program)
        .arg(job_folder.join("main.c"))
        .arg("-lm")
        .status()
        .ok()?;
    assert!(compiled.success(), "the fixtures' programs are plain C");
    let text = |path: &Path| path.to_str().expect("a plain path").to_owned();
    let args = job["args"].as_array().into_iter().flatten().skip(1).filter_map(|arg| arg.as_str());
    let args = args.map(|arg| match (arg.strip_prefix("/in/"), arg.strip_prefix("/out/")) {
        (Some(name), _) => text(&job_folder.join("input").join(name)),
        (_, Some(name)) => text(&folder.path().join(name)),
        _ => arg.to_owned(),
    });
    let args = args.collect();
    Some(Native { folder, args })
}

/// Events of the stores that are audited. `TRIBUNAL_BENCH_EVENTS` names another one beside them, such as 1000000.
const AUDITED: [usize; 2] = [10_000, 100_000];
/// Of a deal above: five events, and two signatures of its terms beside those of the events.
const EVENTS_A_DEAL: usize = 5;
const SIGNATURES_A_DEAL: usize = 7;

/// An audit of a whole store beside the limits of signature recovery and BLAKE3 on all cores: every signature in the
/// record is recovered, those of the terms too, and the bytes are hashed for chain and ids.
fn replay(recovery: f64) {
    let more = std::env::var("TRIBUNAL_BENCH_EVENTS").ok().and_then(|text| text.parse().ok());
    println!("full audit                                  a second   / signatures   / one an event   / BLAKE3");
    for events in AUDITED.into_iter().chain(more) {
        let folder = tempfile::tempdir().expect("a folder");
        let store = recorded(folder.path(), events / EVENTS_A_DEAL);
        let runs = if events > AUDITED[0] { 3 } else { RUNS };
        let events = store.last_position() as usize;
        let bytes: usize = store.log(1).map(|record| record.expect("reads").envelope.encode().len()).sum();
        let hashing = median_of(runs, || hashed(events, bytes));
        let audited = median_of(runs, || {
            let start = Instant::now();
            let report = audit::audit(&store, audit::Scope::All, audit::AuditOptions::default()).expect("audits");
            assert!(report.is_clean() && report.records as usize == events, "{report:?}");
            rate(events, start.elapsed())
        });
        let signatures = audited * SIGNATURES_A_DEAL as f64 / EVENTS_A_DEAL as f64;
        println!(
            "  of {events:>8} events                    {audited:>9.0}         {:>6.2}           {:>6.2}     {:>6.4}",
            signatures / recovery,
            audited / recovery,
            audited / hashing
        );
    }
}

/// A store in which so many deals were played, thousands at a time.
fn recorded(path: &Path, deals: usize) -> Store {
    let store = Store::open(path, Fsync::Group).expect("opens");
    let mut partition = Partition::new(store.clone(), settings(), "DEALS").expect("starts");
    let mut sequence = 0;
    for first in (0..deals).step_by(DEALS) {
        let envelopes = envelopes(first..(first + DEALS).min(deals));
        let mut jobs = messages(&envelopes, sequence).into_iter().peekable();
        while jobs.peek().is_some() {
            partition.process(jobs.by_ref().take(BATCH).collect()).expect("processes");
        }
        sequence += envelopes.len() as u64;
    }
    store
}

/// BLAKE3 of so many bytes, shared among all cores.
fn hashed(events: usize, bytes: usize) -> f64 {
    let data = vec![7_u8; bytes.div_ceil(cores())];
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..cores() {
            scope.spawn(|| std::hint::black_box(blake3::hash(&data)));
        }
    });
    rate(events, start.elapsed())
}

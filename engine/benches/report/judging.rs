//! How fast two results are compared, beside reading the file, and votes put into groups.

use std::{fmt::Write as _, fs, hint::black_box, time::Instant};

use tribunal_events::{Band, Comparator, Metric, Over, SequentialTest};
use tribunal_verifiers::{Comparison, MemorySource, OperatorLimits, Request, Service, compare};

/// Rows of a file, and numbers of a row.
const ROWS: usize = 16_384;
const COLUMNS: usize = 64;
const RUNS: usize = 5;

fn median(mut run: impl FnMut() -> f64) -> f64 {
    let mut figures: Vec<f64> = (0..RUNS).map(|_| run()).collect();
    figures.sort_by(f64::total_cmp);
    figures[RUNS / 2]
}

/// Numbers that look like a result's; `off` is added to each of them.
fn numbers(off: f32) -> impl Iterator<Item = f32> {
    (0..ROWS * COLUMNS).map(move |index| (index * 7919 % 10_007) as f32 / 977.0 + off)
}

fn text(off: f32, separator: &str, around: [&str; 4]) -> Vec<u8> {
    let [first, open, close, last] = around;
    let mut text = first.to_owned();
    for (index, number) in numbers(off).enumerate() {
        match index % COLUMNS {
            0 if index > 0 => text += &format!("{close}{open}"),
            0 => text += open,
            _ => text += separator,
        }
        let _ = write!(text, "{number}");
    }
    text += last;
    text.into_bytes()
}

fn array(off: f32) -> Vec<u8> {
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({ROWS}, {COLUMNS}), }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&(header.len() as u16).to_le_bytes());
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend(numbers(off).flat_map(f32::to_le_bytes));
    bytes
}

/// Megabytes a second of one side, where two files differ everywhere and agree.
pub(crate) fn comparators() {
    let decimal = |text: &str| text.to_owned();
    let band = |relative: &str| Band { relative: decimal(relative), absolute: String::new() };
    let test = SequentialTest {
        alpha: decimal("0.001"),
        beta: decimal("0.01"),
        honest_rate: decimal("0.01"),
        cheat_rate: decimal("0.5"),
    };
    let numeric = Comparator::Numeric { relative: decimal("0.1"), absolute: decimal("0.1"), ulps: 0 };
    let norm = Comparator::Norm { metric: Metric::L2, accept: band("0.1"), reject: band("0.2"), test: test.clone() };
    let topk = Comparator::Topk { over: Over::Logits, k: 10, accept_overlap: 8, reject_overlap: 5, test };
    let json = |off| text(off, ", ", ["[", "[", "],\n", "]]"]);
    let lines = |off| text(off, ",", ["", "", "\n", "\n"]);
    println!("comparators, one thread              MB a second   / reading the file");
    let folder = tempfile::tempdir().expect("a folder");
    for (what, comparator, name, own, claimed) in [
        ("numeric, JSON", &numeric, "a.json", json(0.0), json(0.001)),
        ("numeric, CSV", &numeric, "a.csv", lines(0.0), lines(0.001)),
        ("numeric, .npy", &numeric, "a.npy", array(0.0), array(0.001)),
        ("norm l2, JSON", &norm, "a.json", json(0.0), json(0.001)),
        ("norm l2, .npy", &norm, "a.npy", array(0.0), array(0.001)),
        ("topk, .npy", &topk, "a.npy", array(0.0), array(0.001)),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, &own).expect("writes");
        let rate = |seconds: f64| own.len() as f64 / 1e6 / seconds;
        let read = median(|| {
            let start = Instant::now();
            black_box(fs::read(&path).expect("reads"));
            rate(start.elapsed().as_secs_f64())
        });
        let compared = median(|| {
            let start = Instant::now();
            assert_eq!(compare(comparator, name, &own, &claimed), Comparison::Agree);
            rate(start.elapsed().as_secs_f64())
        });
        println!("  {what:34} {compared:>9.0}         {:>9.4}", compared / read);
    }
    println!();
}

/// Votes of 31 that are compared, grouped and counted a second: all alike, near each other, and in the graph with most groups.
pub(crate) fn votes() {
    let service = Service::new(OperatorLimits::default(), Vec::new());
    // Ten sets of three that disagree inside: a line for each pair, in which it is 2 apart and all others are between.
    let pairs: Vec<(usize, usize)> =
        (0..10).flat_map(|set| [(0, 1), (0, 2), (1, 2)].map(|(a, b)| (set * 3 + a, set * 3 + b))).collect();
    println!("votes of 31                          groupings a second");
    for (what, pairs, comparator) in [
        ("equal digests, exact", &[][..], r#"{ "kind": "exact" }"#),
        ("30 numbers each, within a tolerance", &[], r#"{ "kind": "numeric", "absolute": 1 }"#),
        ("59,049 groups of equal weight", &pairs, r#"{ "kind": "numeric", "absolute": 1 }"#),
    ] {
        let mut source = MemorySource::new();
        let mut votes = Vec::new();
        for voter in 0..31 {
            let line = |(a, b): &(usize, usize)| match voter {
                _ if voter == *a => "0\n".to_owned(),
                _ if voter == *b => "2\n".to_owned(),
                _ => "1\n".to_owned(),
            };
            let lines: String = match pairs.is_empty() {
                false => pairs.iter().map(line).collect(),
                true if comparator.contains("exact") => "1\n".to_owned(),
                true => (0..30).map(|line| format!("{line}.{voter:02}\n")).collect(),
            };
            let address = source.add(lines.into_bytes());
            votes.push(format!(
                r#"{{ "voter": "0x{:040x}", "claim": {{ "stdout": {{ "artifact": "{address}" }} }} }}"#,
                voter + 1
            ));
        }
        let request = format!(
            r#"{{ "method": {{ "kind": "majority", "votes": [{}], "rule": {{ "kind": "quorum", "quorum": 2 }} }},
                 "claim": {{ "exit_code": 0 }}, "comparator": {comparator} }}"#,
            votes.join(",")
        );
        let request = Request::parse(&request).expect("well formed");
        let figure = median(|| {
            let start = Instant::now();
            let mut count = 0;
            while start.elapsed().as_secs_f64() < 0.3 {
                black_box(service.verify_from(&request, &source).expect("verifies"));
                count += 1;
            }
            f64::from(count) / start.elapsed().as_secs_f64()
        });
        println!("  {what:38} {figure:>12.0}");
    }
    println!();
}

//! Every parser of the crate, given what is nearly right.
//!
//! Valid files are flipped, cut, spliced and repeated, from a fixed seed. Nothing may panic, run on or use memory beyond its
//! bounds, and what is read twice must read alike. Seconds by default; `TRIBUNAL_FUZZ_ROUNDS=20000` looks longer and
//! `TRIBUNAL_FUZZ_SEED` elsewhere.

use std::{str::FromStr as _, sync::LazyLock};

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;
use serde_json::{Value, json};
use tribunal_events::{Band, Comparator, Metric, Over, SequentialTest, ToplocErrors};
use tribunal_verifiers::{Cid, Comparison, MemorySource, OperatorLimits, Request, Service, compare};

use crate::{
    bench::{fixture, fixture_bytes, line},
    comparators::{npy, safetensors},
};

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// Spoils files one after the other, the same ones on every run.
struct Spoiler {
    random: ChaCha20Rng,
    rounds: u64,
}

impl Spoiler {
    fn new(name: &str, rounds: u64) -> Self {
        let seed = blake3::Hasher::new()
            .update(name.as_bytes())
            .update(&setting("TRIBUNAL_FUZZ_SEED", 1).to_le_bytes())
            .finalize();
        let rounds = setting("TRIBUNAL_FUZZ_ROUNDS", rounds);
        Self { random: ChaCha20Rng::from_seed(*seed.as_bytes()), rounds }
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.random.next_u64() % bound.max(1) as u64) as usize
    }

    fn range(&mut self, bytes: &[u8]) -> std::ops::Range<usize> {
        let (a, b) = (self.below(bytes.len() + 1), self.below(bytes.len() + 1));
        let (start, end) = (a.min(b), a.max(b));
        start..end.min(start + 256)
    }

    fn spoil(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        const BYTES_MAX: usize = 1 << 18;
        let pick = self.below(corpus.len());
        let mut bytes = corpus[pick].clone();
        for _ in 0..=self.below(4) {
            match self.below(7) {
                0 if !bytes.is_empty() => {
                    let at = self.below(bytes.len());
                    bytes[at] ^= 1 << self.below(8);
                }
                1 if !bytes.is_empty() => {
                    let at = self.below(bytes.len());
                    bytes[at] = [0, 0xff, b'"', b'[', b'{', b',', b'-', b'0', b'\\', b'e', b'.', b'\n'][self.below(12)];
                }
                2 => {
                    let cut = self.range(&bytes);
                    bytes.drain(cut);
                }
                3 => {
                    let end = self.below(bytes.len() + 1);
                    bytes.truncate(end);
                }
                4 => {
                    let other = &corpus[self.below(corpus.len())];
                    let part = other[self.range(other)].to_vec();
                    let at = self.below(bytes.len() + 1);
                    bytes.splice(at..at, part);
                }
                5 => {
                    let range = self.range(&bytes);
                    let (part, at) = (bytes[range.clone()].repeat(1 + self.below(20)), range.end);
                    bytes.splice(at..at, part);
                }
                _ => {
                    let number = [0u64, 1, 0x7f, 0xffff, 0xffff_ffff, u64::MAX, 1 << 63][self.below(7)].to_le_bytes();
                    let at = self.below(bytes.len() + 1);
                    let end = bytes.len().min(at + [1, 2, 4, 8][self.below(4)]);
                    bytes.splice(at..end, number[..end - at].to_vec());
                }
            }
            bytes.truncate(BYTES_MAX);
        }
        bytes
    }

    /// The next spoilt file, until the rounds are over.
    fn next(&mut self, corpus: &[Vec<u8>]) -> Option<Vec<u8>> {
        self.rounds = self.rounds.checked_sub(1)?;
        Some(self.spoil(corpus))
    }
}

fn files(folder: &str, extension: &str) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(fixture(folder)).expect("a fixture folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|found| found == extension) {
            found.push((path.clone(), std::fs::read(path).expect("a file")));
        }
    }
    found.sort();
    assert!(!found.is_empty(), "{folder} has no .{extension}");
    found.into_iter().map(|(_, bytes)| bytes).collect()
}

#[test]
fn requests_that_are_spoilt_are_read_or_refused() {
    let mut corpus = files("requests", "json");
    let band = |relative: &str| json!({ "relative": relative });
    let test = json!({ "alpha": 0.001, "beta": 0.01, "honest_rate": 0.01, "cheat_rate": 0.5 });
    let errors = json!({ "exp_mismatches": 1, "mant_err_mean": 10, "mant_err_median": 8 });
    for comparator in [
        json!({ "kind": "norm", "metric": "l2", "accept": band("0.1"), "reject": band("1"), "test": test }),
        json!({ "kind": "topk", "over": "ids", "k": 5, "accept_overlap": 4, "reject_overlap": 2, "test": test }),
        json!({ "kind": "toploc", "topk": 8, "batch": 4, "accept": errors, "reject": errors, "test": test }),
    ] {
        let request = json!({ "method": { "kind": "external", "verifier": "v" }, "comparator": comparator });
        assert!(Request::parse(&request.to_string()).is_ok(), "{request}");
        corpus.push(request.to_string().into_bytes());
    }
    let (mut spoiler, mut good) = (Spoiler::new("requests", 4_000), 0);
    while let Some(bytes) = spoiler.next(&corpus) {
        let Ok(request) = Request::parse(&String::from_utf8_lossy(&bytes)) else { continue };
        good += 1;
        // What is good has one text, and that text is the same request.
        let canonical = request.canonical_json();
        let again = Request::parse(&canonical).unwrap_or_else(|problem| panic!("{problem}: {canonical}"));
        assert_eq!(again.canonical_json(), canonical);
    }
    assert!(good > 0, "everything was refused");
}

fn comparators() -> Vec<Comparator> {
    let band = |relative: &str| Band { relative: relative.into(), absolute: "0.1".into() };
    let text = |text: &str| text.to_owned();
    let test =
        SequentialTest { alpha: text("0.001"), beta: text("0.01"), honest_rate: text("0.01"), cheat_rate: text("0.5") };
    let errors =
        |most: u32| ToplocErrors { exp_mismatches: most, mant_err_mean: text("10"), mant_err_median: text("8") };
    vec![
        Comparator::Numeric { relative: text("1e-6"), absolute: text("0.001"), ulps: 4 },
        Comparator::IgnoreLines(vec![text("^t")]),
        Comparator::Norm { metric: Metric::L2, accept: band("0.1"), reject: band("0.2"), test: test.clone() },
        Comparator::Topk { over: Over::Logits, k: 3, accept_overlap: 3, reject_overlap: 2, test: test.clone() },
        Comparator::Topk { over: Over::Ids, k: 1, accept_overlap: 1, reject_overlap: 1, test: test.clone() },
        Comparator::Toploc { topk: 4, batch: 2, accept: errors(1), reject: errors(3), test },
    ]
}

/// Compares spoilt files with whole ones and with each other, both ways.
fn compare_spoilt(name: &str, rounds: u64, corpus: &[Vec<u8>], comparators: &[Comparator]) {
    let mut spoiler = Spoiler::new(name, rounds);
    let mut last = corpus[0].clone();
    while let Some(bytes) = spoiler.next(corpus) {
        for comparator in comparators {
            let whole = &corpus[spoiler.below(corpus.len())];
            for other in [whole, &last] {
                let (there, back) =
                    (compare(comparator, name, &bytes, other), compare(comparator, name, other, &bytes));
                let kind = std::mem::discriminant::<Comparison>;
                assert_eq!(kind(&there), kind(&back), "{comparator:?}: {there:?} but {back:?}");
            }
            assert_eq!(compare(comparator, name, &bytes, &bytes), Comparison::Agree, "{comparator:?}");
        }
        last = bytes;
    }
}

fn le(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn numbers_that_are_spoilt_compare_alike_both_ways() {
    let text = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>();
    let json = text(&[
        r#"{"a": [1, 2.5, -3e-7], "b": {"c": [[1, 2], [3, 4]], "d": null}, "e": "x\u00e9\ud83d\ude00"}"#,
        "[[1e400, NaN, -Infinity, 0], [9007199254740993, -0, 0.0, 1]]",
        "[123456789012345678901234567890123456789012345678901234567890]",
    ]);
    compare_spoilt("a.json", 400, &json, &comparators());
    let csv = text(&["x,y,\"a,\"\"b\"\n1,2,3\n4,5e5,\"6\"\r\n", "1,2\n3,4\n\n5,6\n", "\"two\nlines\",1\rx,2"]);
    compare_spoilt("a.csv", 400, &csv, &comparators());
    compare_spoilt("a.txt", 400, &text(&["step 1 loss 0.5\nt 3\nnan inf\n", "1 2 3\r\n4 5 6"]), &comparators());
    let arrays = [
        npy("<f4", "(3, 2)", &le(&[1.0, 2.0, 3.0, 4.0, f32::NAN, -0.0])),
        npy(">f8", "(2,)", &[1; 16]),
        npy("<i8", "(1, 1, 2)", &[0xff; 16]),
        npy("|b1", "()", &[1]),
    ];
    compare_spoilt("a.npy", 400, &arrays, &comparators());
    let tensors = [
        safetensors(
            r#"{"__metadata__":{"a":"b"},"w":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"v":{"dtype":"BF16","shape":[4],"data_offsets":[8,16]}}"#,
            &le(&[1.0, 2.0, 3.0, 4.0]),
        ),
        safetensors(r#"{"h":{"dtype":"BF16","shape":[4,2],"data_offsets":[0,16]}}"#, &le(&[1.0, -2.0, 3.0, 4.0])),
        safetensors(r#"{"h":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}}"#, &[1, 2]),
        br#"["/9kgrno3EhooliIRhLGv","/9kgrno3Eg=="]"#.to_vec(),
    ];
    compare_spoilt("a.safetensors", 400, &tensors, &comparators());
}

#[test]
fn images_that_are_spoilt_compare_alike_both_ways() {
    let encode = |colour: png::ColorType, depth: png::BitDepth, pixels: &[u8]| {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 4, 4);
        encoder.set_color(colour);
        encoder.set_depth(depth);
        encoder.write_header().and_then(|mut writer| writer.write_image_data(pixels)).expect("a PNG");
        bytes
    };
    let pixels: Vec<u8> = (0..128u32).map(|at| (at * 7) as u8).collect();
    let corpus = [
        encode(png::ColorType::Rgb, png::BitDepth::Eight, &pixels[..48]),
        encode(png::ColorType::GrayscaleAlpha, png::BitDepth::Eight, &pixels[..32]),
        encode(png::ColorType::Rgba, png::BitDepth::Sixteen, &pixels),
        encode(png::ColorType::Grayscale, png::BitDepth::One, &pixels[..4]),
    ];
    let comparators = [
        Comparator::Image { psnr_db_min: "30".into(), ssim_min: String::new() },
        Comparator::Image { psnr_db_min: String::new(), ssim_min: "0.9".into() },
    ];
    compare_spoilt("a.png", 800, &corpus, &comparators);
}

#[test]
fn observations_that_are_spoilt_are_aggregated_or_refused() {
    static SERVICE: LazyLock<Service> = LazyLock::new(|| Service::new(OperatorLimits::default(), Vec::new()));
    let corpus = [
        b"[[1, 2.5], [3, -4e3]]".to_vec(),
        br#"{"unit": "C", "values": [1, 2, 3], "at": {"x": 1}}"#.to_vec(),
        npy("<f4", "(2, 2)", &le(&[1.0, 2.0, 3.0, 4.0])),
        safetensors(r#"{"w":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}"#, &le(&[1.0, 2.0, 3.0, 4.0])),
    ];
    let mut spoiler = Spoiler::new("observations", 800);
    let functions = [json!({ "function": "median" }), json!({ "function": "mad-outliers" })];
    while let Some(bytes) = spoiler.next(&corpus) {
        let mut source = MemorySource::new();
        source.add_file("a", bytes.clone());
        source.add_file("b", if spoiler.below(2) == 0 { bytes } else { corpus[spoiler.below(4)].clone() });
        let mut method = functions[spoiler.below(2)].clone();
        method["kind"] = json!("aggregate");
        method["observations"] = json!([{ "source": "a", "artifact": "a" }, { "source": "b", "artifact": "b" }]);
        let claim = json!({ "outputs": [{ "path": "/out/a.json", "artifact": "a" }] });
        let request = Request::parse(&json!({ "method": method, "claim": claim }).to_string()).expect("a good request");
        let verdict = SERVICE.verify_from(&request, &source).expect("a verdict");
        assert!(
            ["ok", "output-differs", "observation-malformed", "operator-limit"].contains(&verdict.reason.code.as_str())
        );
    }
}

#[test]
fn proofs_that_are_spoilt_are_never_valid() {
    let mut request: Value =
        serde_json::from_slice(&fixture_bytes("requests/product-proof-valid.json")).expect("a request");
    let names = ["verification_key", "proof", "public"];
    let whole = names.map(|name| {
        let file = request["method"]["proof"][name]["artifact"].as_str().expect("a file").to_owned();
        request["method"]["proof"][name]["artifact"] = json!(name);
        fixture_bytes(&file)
    });
    let request = Request::parse(&request.to_string()).expect("a good request");
    let service = Service::new(OperatorLimits::default(), Vec::new());
    let mut spoiler = Spoiler::new("proofs", 300);
    while spoiler.rounds > 0 {
        let which = spoiler.below(3);
        let Some(bytes) = spoiler.next(&whole[which..=which]) else { break };
        let text = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).ok();
        let mut source = MemorySource::new();
        for (index, (name, whole)) in names.iter().zip(&whole).enumerate() {
            source.add_file(name, if index == which { bytes.clone() } else { whole.clone() });
        }
        let verdict = service.verify_from(&request, &source);
        // The same JSON in other bytes is the same proof.
        let same = text(&bytes).is_some() && text(&bytes) == text(&whole[which]);
        let unread = ["protocol", "curve", "vk_alphabeta_12"];
        let alike = same
            || text(&bytes).zip(text(&whole[which])).is_some_and(|(mut a, mut b)| {
                for value in [&mut a, &mut b] {
                    if let Some(fields) = value.as_object_mut() {
                        unread.iter().for_each(|name| drop(fields.remove(*name)));
                    }
                }
                a == b
            });
        let line = line(&verdict);
        assert!(alike || !line.starts_with("valid"), "{}: {}", names[which], String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn content_identifiers_that_are_spoilt_are_read_or_refused() {
    let corpus: Vec<Vec<u8>> = [
        "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG",
        "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi",
        "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into();
    let (mut spoiler, mut good) = (Spoiler::new("cids", 5_000), 0);
    while let Some(bytes) = spoiler.next(&corpus) {
        let Ok(cid) = Cid::from_str(&String::from_utf8_lossy(&bytes)) else { continue };
        good += 1;
        assert_eq!(Cid::from_str(&cid.to_string()).expect("it reads back"), cid);
    }
    assert!(good > 0, "everything was refused");
}

#[test]
fn modules_that_are_spoilt_run_within_their_limits_or_do_not() {
    let mut corpus = files("jobs/hostile", "wasm");
    corpus.retain(|module| module.len() < 1 << 16);
    corpus.push(wat::parse_str(crate::bench::printer("hello", "")).expect("a module"));
    let limits =
        OperatorLimits { fuel_max: 200_000, memory_bytes_max: 1 << 22, output_bytes_max: 1 << 16, wall_ms_max: 20_000 };
    let service = Service::new(limits, Vec::new());
    let mut spoiler = Spoiler::new("modules", 150);
    while let Some(bytes) = spoiler.next(&corpus) {
        let bench = crate::bench::Bench::wasm(bytes).set(
            "/job/limits",
            json!({ "fuel": 200_000, "memory_bytes": 1 << 22, "output_bytes": 1 << 16, "wall_ms": 20_000 }),
        );
        let request = Request::parse(&bench.request.to_string()).expect("a good request");
        let verdict = || service.verify_from(&request, &bench.source).expect("a verdict");
        let first = verdict();
        assert_ne!(first.reason.code, "executor-fault", "{}", first.reason.detail);
        assert_eq!(first.digest, verdict().digest, "the same module, the same verdict");
    }
}

//! Rows within bands, and how many of them convict.

use expect_test::expect;
use proptest::prelude::*;
use serde_json::{Value, json};
use tribunal_events::{Band, Comparator, Metric, Over, SequentialTest, ToplocErrors};
use tribunal_verifiers::{Comparison, compare};

use crate::comparators::{npy, safetensors};

fn test() -> SequentialTest {
    let text = |text: &str| text.to_owned();
    SequentialTest { alpha: text("0.001"), beta: text("0.01"), honest_rate: text("0.01"), cheat_rate: text("0.5") }
}

fn band(relative: &str, absolute: &str) -> Band {
    Band { relative: relative.into(), absolute: absolute.into() }
}

/// Near within 1, far beyond 10.
fn norm(metric: Metric) -> Comparator {
    Comparator::Norm { metric, accept: band("", "1"), reject: band("", "10"), test: test() }
}

fn topk(over: Over, k: u32, accept_overlap: u32, reject_overlap: u32) -> Comparator {
    Comparator::Topk { over, k, accept_overlap, reject_overlap, test: test() }
}

fn line(found: &Comparison) -> String {
    match found {
        Comparison::Agree => "agree".into(),
        Comparison::Differ(detail) => format!("differ: {detail}"),
        Comparison::Between(detail) => format!("between: {detail}"),
        Comparison::Unusable(problem) => format!("unusable: {problem}"),
    }
}

fn both(comparator: &Comparator, name: &str, a: &[u8], b: &[u8]) -> Comparison {
    let (there, back) = (compare(comparator, name, a, b), compare(comparator, name, b, a));
    assert_eq!(std::mem::discriminant(&there), std::mem::discriminant(&back), "{name}: {there:?} but {back:?}");
    there
}

/// A list of rows of one number that is 0 on one side and this on the other.
fn rows(values: &[f64]) -> (String, String) {
    let zeros = vec![vec![0.0]; values.len()];
    let rows: Vec<_> = values.iter().map(|value| vec![*value]).collect();
    (json!(zeros).to_string(), json!(rows).to_string())
}

fn many(near: usize, open: usize, far: usize) -> Vec<f64> {
    [vec![0.5; near], vec![5.0; open], vec![50.0; far]].concat()
}

#[test]
fn samples_convict_and_acquit_together_and_never_alone() {
    let mut table = String::new();
    for (near, open, far) in [
        (1, 0, 0),
        (6, 0, 0),
        (7, 0, 0),
        (0, 1, 0),
        (0, 0, 1),
        (0, 0, 2),
        (7, 0, 1),
        (13, 0, 1),
        (1, 0, 2),
        (2, 0, 2),
        (0, 2, 2),
        (20, 1, 0),
        (7, 1, 0),
        (100, 0, 8),
        (10, 0, 6),
    ] {
        let (a, b) = rows(&many(near, open, far));
        let found = line(&both(&norm(Metric::L2), "a.json", a.as_bytes(), b.as_bytes()));
        table += &format!("{near} near, {open} open, {far} far: {}\n", found.split(';').next().unwrap_or_default());
    }
    expect![[r#"
        1 near, 0 open, 0 far: between: of 1 samples 1 are near, 0 between the bands, 0 far: too few to tell
        6 near, 0 open, 0 far: between: of 6 samples 6 are near, 0 between the bands, 0 far: too few to tell
        7 near, 0 open, 0 far: agree
        0 near, 1 open, 0 far: between: of 1 samples 0 are near, 1 between the bands, 0 far: too few to tell
        0 near, 0 open, 1 far: between: of 1 samples 0 are near, 0 between the bands, 1 far: too few to tell
        0 near, 0 open, 2 far: differ: of 2 samples 0 are near, 0 between the bands, 2 far
        7 near, 0 open, 1 far: between: of 8 samples 7 are near, 0 between the bands, 1 far: too few to tell
        13 near, 0 open, 1 far: agree
        1 near, 0 open, 2 far: differ: of 3 samples 1 are near, 0 between the bands, 2 far
        2 near, 0 open, 2 far: between: of 4 samples 2 are near, 0 between the bands, 2 far: too few to tell
        0 near, 2 open, 2 far: between: of 4 samples 0 are near, 2 between the bands, 2 far: too few to tell
        20 near, 1 open, 0 far: agree
        7 near, 1 open, 0 far: between: of 8 samples 7 are near, 1 between the bands, 0 far: too few to tell
        100 near, 0 open, 8 far: agree
        10 near, 0 open, 6 far: differ: of 16 samples 10 are near, 0 between the bands, 6 far
    "#]]
    .assert_eq(&table);
}

#[test]
fn one_far_sample_convicts_nobody_however_great_the_declared_error() {
    let sharp = SequentialTest {
        alpha: "0.4".into(),
        beta: "0.4".into(),
        honest_rate: "0.000000001".into(),
        cheat_rate: "0.999999999".into(),
    };
    let comparator =
        |test| Comparator::Norm { metric: Metric::Linf, accept: band("", "1"), reject: band("", "2"), test };
    let (a, b) = rows(&[50.0]);
    expect!["between: of 1 samples 0 are near, 0 between the bands, 1 far: too few to tell; the first: $[0]: linf distance 50, largest at [0]: expected 0, claimed 50"].assert_eq(&line(&both(&comparator(sharp.clone()), "a.json", a.as_bytes(), b.as_bytes())));
    let (a, b) = rows(&[50.0, 50.0]);
    assert!(matches!(both(&comparator(sharp), "a.json", a.as_bytes(), b.as_bytes()), Comparison::Differ(_)));
}

#[test]
fn norms_are_those_of_the_text_books() {
    // 3, 4: the l2 distance is 5, the linf distance 4.
    let l2 = |accept: &str, reject: &str| Comparator::Norm {
        metric: Metric::L2,
        accept: band("", accept),
        reject: band("", reject),
        test: test(),
    };
    let twice = |row: &str| format!("[{row},{row}]");
    let (zero, row) = (twice("[0,0]"), twice("[3,-4]"));
    let check =
        |comparator: &Comparator, a: &str, b: &str| line(&both(comparator, "a.json", a.as_bytes(), b.as_bytes()));
    expect!["differ: of 2 samples 0 are near, 0 between the bands, 2 far; the first: $[0]: l2 distance 5, largest at [1]: expected 0, claimed -4"].assert_eq(&check(&l2("4.9", "4.9"), &zero, &row));
    expect!["between: of 2 samples 2 are near, 0 between the bands, 0 far: too few to tell"].assert_eq(&check(
        &l2("5", "5"),
        &zero,
        &row,
    ));
    let linf =
        Comparator::Norm { metric: Metric::Linf, accept: band("", "3.9"), reject: band("", "3.9"), test: test() };
    expect!["differ: of 2 samples 0 are near, 0 between the bands, 2 far; the first: $[0]: linf distance 4, largest at [1]: expected 0, claimed -4"].assert_eq(&check(&linf, &zero, &row));
    // Relative to the longer of the two rows, however large or small the numbers are.
    let relative =
        Comparator::Norm { metric: Metric::L2, accept: band("0.01", ""), reject: band("0.1", ""), test: test() };
    for power in ["e300", "e-300", ""] {
        let scaled = |digits: &str| twice(&format!("[{digits}{power},{digits}{power}]"));
        let found = |other: &str| both(&relative, "a.json", scaled("1").as_bytes(), scaled(other).as_bytes());
        // Two near rows are too few to acquit, two far ones convict.
        assert!(line(&found("1.005")).contains("2 are near"), "{power}");
        assert!(line(&found("1.05")).contains("2 between the bands"), "{power}");
        assert!(matches!(found("1.2"), Comparison::Differ(_)), "{power}");
    }
    // What is no finite number agrees with itself alone.
    expect!["agree"].assert_eq(&check(&l2("1", "1"), "[[NaN,Infinity,1]]", "[[NaN,Infinity,1.0]]"));
    expect!["differ: of 2 samples 0 are near, 0 between the bands, 2 far; the first: $[0][0]: expected NaN, claimed 1"]
        .assert_eq(&check(&l2("1e300", "1e300"), &twice("[NaN,1]"), &twice("[1,1]")));
    expect![
        "differ: of 2 samples 0 are near, 0 between the bands, 2 far; the first: $[0][0]: expected inf, claimed -inf"
    ]
    .assert_eq(&check(&l2("1e300", "1e300"), &twice("[Infinity,1]"), &twice("[-Infinity,1]")));
}

#[test]
fn what_is_no_number_is_no_matter_of_tolerance() {
    let norm = norm(Metric::Linf);
    let mut table = String::new();
    for (name, a, b) in [
        ("a.json", r#"{"a":[1,2]}"#, r#"{"b":[1,2]}"#),
        ("a.json", "[[1,2]]", "[[1,2,3]]"),
        ("a.json", r#"["x",1]"#, r#"["y",1]"#),
        ("a.json", "[1e400]", "[1e500]"),
        ("a.json", "[[1],2]", "[[1],[2]]"),
        ("a.csv", "x,1\ny,2\n", "x,1\nz,2\n"),
        ("a.csv", "1,2\n", "1\n"),
        ("a.txt", "step 1\nstep 2\n", "step 1\n"),
        ("a.txt", "step 1", "stop 1"),
    ] {
        table += &format!("{a:?} {b:?}: {}\n", line(&both(&norm, name, a.as_bytes(), b.as_bytes())));
    }
    expect![[r#"
        "{\"a\":[1,2]}" "{\"b\":[1,2]}": differ: $.a: expected, not claimed
        "[[1,2]]" "[[1,2,3]]": differ: $[0]: expected 2 entries, claimed 3
        "[\"x\",1]" "[\"y\",1]": differ: $[0]: expected x, claimed y
        "[1e400]" "[1e500]": differ: $[0]: expected 1e400, claimed 1e500
        "[[1],2]" "[[1],[2]]": differ: $[1]: expected a number, claimed a list
        "x,1\ny,2\n" "x,1\nz,2\n": differ: row 2, 1: expected y, claimed z
        "1,2\n" "1\n": differ: row 1: expected 2 entries, claimed 1
        "step 1\nstep 2\n" "step 1\n": differ: line 2: expected "step 2", claimed no such line
        "step 1" "stop 1": differ: line 1, 1: expected step, claimed stop
    "#]]
    .assert_eq(&table);
}

#[test]
fn arrays_have_a_row_for_each_index_of_the_first_axis() {
    let le = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
    let ones = le(&[1.0; 6]);
    let mut off = [1.0; 6];
    off[3] = 100.0;
    off[5] = 100.0;
    // 3 rows of 2: elements 3 and 5 are in the rows 1 and 2. As 6 rows of nothing else they would be one row.
    let found = both(&norm(Metric::L2), "a.npy", &npy("<f4", "(3, 2)", &ones), &npy("<f4", "(3, 2)", &le(&off)));
    expect!["differ: of 3 samples 1 are near, 0 between the bands, 2 far; the first: row [1]: l2 distance 99, largest at [1]: expected 1, claimed 100"].assert_eq(&line(&found));
    let found = both(&norm(Metric::L2), "a.npy", &npy("<f4", "(6,)", &ones), &npy("<f4", "(6,)", &le(&off)));
    expect!["between: of 1 samples 0 are near, 0 between the bands, 1 far: too few to tell; the first: row: l2 distance 140.0071426749364, largest at [3]: expected 1, claimed 100"].assert_eq(&line(&found));
    let tensor = |data: &[u8]| {
        safetensors(&format!(r#"{{"w":{{"dtype":"F32","shape":[3,2],"data_offsets":[0,{}]}}}}"#, data.len()), data)
    };
    expect!["differ: of 3 samples 1 are near, 0 between the bands, 2 far; the first: w[1]: l2 distance 99, largest at [1]: expected 1, claimed 100"].assert_eq(&line(&both(&norm(Metric::L2), "m.safetensors", &tensor(&ones), &tensor(&le(&off)))));
    // In the order of Fortran the same bytes have elements 3 and 5 in the rows 0 and 2.
    let fortran = |data: &[u8]| {
        let mut file = npy("<f4", "(3, 2)", data);
        let at = file.windows(5).position(|part| part == b"False").expect("a header");
        file[at..at + 5].copy_from_slice(b"True ");
        file
    };
    expect!["differ: of 3 samples 1 are near, 0 between the bands, 2 far; the first: row [0]: l2 distance 99, largest at [1]: expected 1, claimed 100"].assert_eq(&line(&both(&norm(Metric::L2), "a.npy", &fortran(&ones), &fortran(&le(&off)))));
}

#[test]
fn the_top_of_a_row_is_a_set_with_ties_to_the_first() {
    let check = |comparator: &Comparator, a: &str, b: &str| {
        let many = |row: &str| format!("[{}]", [row; 8].join(","));
        line(&both(comparator, "a.json", many(a).as_bytes(), many(b).as_bytes()))
    };
    let logits = topk(Over::Logits, 2, 2, 1);
    let mut table = String::new();
    for (a, b) in [
        ("[3,2,1]", "[2,3,1]"),
        ("[3,2,1]", "[3,1,2]"),
        ("[3,2,1,0]", "[0,1,2,3]"),
        ("[1,1,1]", "[1,1,0]"),
        ("[1,1,1]", "[0,1,1]"),
        ("[NaN,1,0]", "[NaN,1,0.5]"),
        ("[0,-0.0,-1]", "[0,0,-2]"),
        ("[1]", "[2]"),
    ] {
        table += &format!("logits {a} {b}: {}\n", check(&logits, a, b));
    }
    let ids = topk(Over::Ids, 2, 2, 2);
    for (a, b) in [
        ("[7,9,1]", "[9,7,2]"),
        ("[7,9,1]", "[7,1,9]"),
        ("[7,9]", "[7,7]"),
        ("[7,0.5]", "[7,9]"),
        ("[9007199254740992,1]", "[9007199254740993,1]"),
        ("[9007199254740992,1]", "[9007199254740994,1]"),
    ] {
        table += &format!("ids {a} {b}: {}\n", check(&ids, a, b));
    }
    expect![[r#"
        logits [3,2,1] [2,3,1]: agree
        logits [3,2,1] [3,1,2]: between: of 8 samples 0 are near, 8 between the bands, 0 far: too few to tell; the first: $[0]: 1 of the top 2 in common, not [1]: expected 2, claimed 1
        logits [3,2,1,0] [0,1,2,3]: differ: of 8 samples 0 are near, 0 between the bands, 8 far; the first: $[0]: 0 of the top 2 in common, not [0]: expected 3, claimed 0
        logits [1,1,1] [1,1,0]: agree
        logits [1,1,1] [0,1,1]: between: of 8 samples 0 are near, 8 between the bands, 0 far: too few to tell; the first: $[0]: 1 of the top 2 in common, not [0]: expected 1, claimed 0
        logits [NaN,1,0] [NaN,1,0.5]: agree
        logits [0,-0.0,-1] [0,0,-2]: agree
        logits [1] [2]: between: of 8 samples 0 are near, 8 between the bands, 0 far: too few to tell; the first: $[0]: 1 numbers have no top 2
        ids [7,9,1] [9,7,2]: agree
        ids [7,9,1] [7,1,9]: differ: of 8 samples 0 are near, 0 between the bands, 8 far; the first: $[0]: 1 of the top 2 in common, not id 9 at [1], where 1 is claimed
        ids [7,9] [7,7]: differ: of 8 samples 0 are near, 0 between the bands, 8 far; the first: $[0]: 1 of the top 2 in common, not id 9 at [1], where 7 is claimed
        ids [7,0.5] [7,9]: between: of 8 samples 0 are near, 8 between the bands, 0 far: too few to tell; the first: $[0]: an id is no integer below 2^53
        ids [9007199254740992,1] [9007199254740993,1]: between: of 8 samples 0 are near, 8 between the bands, 0 far: too few to tell; the first: $[0]: an id is no integer below 2^53
        ids [9007199254740992,1] [9007199254740994,1]: between: of 8 samples 0 are near, 8 between the bands, 0 far: too few to tell; the first: $[0]: an id is no integer below 2^53
    "#]].assert_eq(&table);
}

/// The generator that made the vectors: 64-bit linear congruential, upper 24 bits.
struct Generator(u64);

impl Generator {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as u32
    }
}

fn model(seed: u64, count: usize) -> Vec<u16> {
    let mut generator = Generator(seed);
    let mut value = || {
        let value = generator.next();
        ((value >> 20 & 1) << 15 | (120 + (value >> 12 & 7)) << 7 | value & 127) as u16
    };
    (0..count).map(|_| value()).collect()
}

fn nudged(mut bits: Vec<u16>) -> Vec<u16> {
    let mut generator = Generator(2);
    bits.iter_mut().filter(|_| generator.next().is_multiple_of(3)).for_each(|bits| *bits ^= 1);
    bits
}

fn activations(width: usize, bits: &[u16]) -> Vec<u8> {
    let data: Vec<u8> = bits.iter().flat_map(|bits| bits.to_le_bytes()).collect();
    let shape =
        json!({ "h": { "dtype": "BF16", "shape": [bits.len() / width, width], "data_offsets": [0, data.len()] } });
    safetensors(&shape.to_string(), &data)
}

fn toploc(topk: u64, batch: u64, accept: (u32, &str, &str), reject: (u32, &str, &str)) -> Comparator {
    let errors = |(exp_mismatches, mean, median): (u32, &str, &str)| ToplocErrors {
        exp_mismatches,
        mant_err_mean: mean.into(),
        mant_err_median: median.into(),
    };
    let (topk, batch) = (topk as u32, batch as u32);
    Comparator::Toploc { topk, batch, accept: errors(accept), reject: errors(reject), test: test() }
}

#[test]
fn toploc_measures_what_the_package_measures() {
    let vectors: Value = serde_json::from_str(include_str!("../toploc.json")).expect("vectors");
    for set in vectors["sets"].as_array().expect("sets") {
        let [tokens, width, batch, topk] =
            ["tokens", "width", "batch", "topk"].map(|name| set[name].as_u64().expect("a number"));
        let own = model(1, (tokens * width) as usize);
        let sides =
            [("same", own.clone()), ("nudged", nudged(own.clone())), ("other", model(3, (tokens * width) as usize))];
        // Whatever is not perfect is open, so that its errors are told.
        let measure = toploc(topk, batch, (0, "0", "0"), (topk as u32, "1e30", "1e30"));
        for (name, bits) in sides {
            let pieces = bits.chunks((batch * width) as usize);
            for (index, piece) in pieces.enumerate() {
                let proof = json!([set["proofs"][index]]).to_string();
                let found = line(&both(&measure, "p", &activations(width as usize, piece), proof.as_bytes()));
                let expected = &set[name][index];
                let [mismatches, mean, median] = [0, 1, 2].map(|at| expected[at].as_f64().expect("a number"));
                let all =
                    format!("proof 0: exp_mismatches {mismatches}, mant_err_mean {mean}, mant_err_median {median}");
                if (mismatches, mean) == (0.0, 0.0) {
                    assert!(found.contains("1 are near"), "{name} {index}: {found}");
                } else {
                    assert!(found.ends_with(&all), "{name} {index}: {found}, not {all}");
                }
            }
        }
    }
}

#[test]
fn toploc_proofs_are_those_of_the_package() {
    // Held against each other, activations are made into proofs: with the same ones all errors are 0, and with others they
    // are the same as those of the package's proofs, which the test above holds against the vectors.
    let vectors: Value = serde_json::from_str(include_str!("../toploc.json")).expect("vectors");
    let set = &vectors["sets"][0];
    let (own, near) = (model(1, 640), nudged(model(1, 640)));
    let measure = toploc(16, 4, (0, "0", "0"), (16, "1e30", "1e30"));
    let held = both(&measure, "p", &activations(64, &own), &activations(64, &near));
    expect!["between: of 3 samples 0 are near, 3 between the bands, 0 far: too few to tell; the first: proof 0: exp_mismatches 1, mant_err_mean 0.13333333333333333, mant_err_median 0"].assert_eq(&line(&held));
    let against_proofs = compare(&measure, "p", &activations(64, &near), set["proofs"].to_string().as_bytes());
    expect!["between: of 3 samples 0 are near, 3 between the bands, 0 far: too few to tell; the first: proof 0: exp_mismatches 1, mant_err_mean 0.13333333333333333, mant_err_median 0"].assert_eq(&line(&against_proofs));
}

#[test]
fn toploc_goes_by_many_proofs_in_the_right_direction() {
    let tokens = 40;
    let own = model(1, tokens * 64);
    let paper = toploc(16, 4, (4, "10", "8"), (8, "20", "16"));
    let of = |bits: &[u16]| activations(64, bits);
    assert_eq!(both(&paper, "p", &of(&own), &of(&nudged(own.clone()))), Comparison::Agree);
    let other = both(&paper, "p", &of(&own), &of(&model(3, tokens * 64)));
    assert!(matches!(other, Comparison::Differ(_)), "{other:?}");
    let null = json!(vec!["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=="; 10]).to_string();
    expect![
        "differ: of 10 samples 0 are near, 0 between the bands, 10 far; the first: proof 0 is null: building it failed"
    ]
    .assert_eq(&line(&both(&paper, "p", &of(&own), null.as_bytes())));
    expect!["differ: expected 10 pieces, claimed 0"].assert_eq(&line(&both(&paper, "p", &of(&own), b"[]")));
    expect!["differ: what is claimed has no base64 at [0]"].assert_eq(&line(&both(&paper, "p", &of(&own), b"[\"!\"]")));
    expect!["between: two sides of proofs and no activations to hold them against"].assert_eq(&line(&both(
        &paper,
        "p",
        &null.replace('A', "B").into_bytes(),
        null.as_bytes(),
    )));
    expect!["differ: what is claimed has 0 tensors, not one"].assert_eq(&line(&both(
        &paper,
        "p",
        &of(&own),
        &safetensors("{}", &[]),
    )));
    expect!["between: of 1 samples 0 are near, 0 between the bands, 1 far: too few to tell; the first: proof 0: exp_mismatches 14, mant_err_mean 62.5, mant_err_median 78"].assert_eq(&line(&both(&paper, "p", &of(&own[..64]), &of(&own[64..128]))));
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![any::<f64>(), -9.0..9.0f64, Just(0.0), Just(-0.0), Just(f64::INFINITY), Just(f64::NAN), Just(5e-324)]
}

proptest! {
    #[test]
    fn bands_are_symmetric_and_reflexive(
        pairs in proptest::collection::vec((number(), number()), 1..24),
        columns in 1usize..5,
        logits in any::<bool>(),
        metric in prop_oneof![Just(Metric::L2), Just(Metric::Linf)],
        relative in 0.0f64..1.0,
    ) {
        let le = |values: Vec<f64>| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
        let count = pairs.len() / columns * columns;
        let shape = format!("({}, {columns})", count / columns);
        let a = npy("<f8", &shape, &le(pairs[..count].iter().map(|pair| pair.0).collect()));
        let b = npy("<f8", &shape, &le(pairs[..count].iter().map(|pair| pair.1).collect()));
        let text = format!("{relative:.4}");
        let norm = Comparator::Norm { metric, accept: band(&text, ""), reject: band(&text, "0.5"), test: test() };
        let over = if logits { Over::Logits } else { Over::Ids };
        for comparator in [norm, topk(over, 2, 2, 1)] {
            both(&comparator, "a.npy", &a, &b);
            prop_assert_eq!(compare(&comparator, "a.npy", &a, &a), Comparison::Agree);
        }
    }

    #[test]
    fn the_order_of_samples_changes_nothing(counts in (0usize..12, 0usize..3, 0usize..5), seed in any::<u64>()) {
        let values = many(counts.0, counts.1, counts.2);
        let mut shuffled = values.clone();
        let mut generator = Generator(seed);
        for index in (1..shuffled.len()).rev() {
            shuffled.swap(index, generator.next() as usize % (index + 1));
        }
        let ask = |values: &[f64]| {
            let (a, b) = rows(values);
            std::mem::discriminant(&compare(&norm(Metric::L2), "a.json", a.as_bytes(), b.as_bytes()))
        };
        prop_assert_eq!(ask(&values), ask(&shuffled));
    }
}

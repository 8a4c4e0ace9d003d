//! When two files agree.

use expect_test::{Expect, expect};
use proptest::prelude::*;
use tribunal_events::Comparator;
use tribunal_verifiers::{Comparison, compare};

fn numeric(relative: &str, absolute: &str, ulps: u64) -> Comparator {
    Comparator::Numeric { relative: relative.into(), absolute: absolute.into(), ulps }
}

fn show(found: &Comparison) -> String {
    match found {
        Comparison::Agree => "agree".into(),
        Comparison::Differ(detail) => detail.clone(),
        Comparison::Between(detail) => format!("between: {detail}"),
        Comparison::Unusable(problem) => format!("unusable: {problem}"),
    }
}

/// Both ways: who is expected and who claims must not matter.
fn both(comparator: &Comparator, name: &str, a: &[u8], b: &[u8]) -> Comparison {
    let (there, back) = (compare(comparator, name, a, b), compare(comparator, name, b, a));
    assert_eq!(there == Comparison::Agree, back == Comparison::Agree, "{name}: {there:?} but {back:?}");
    there
}

fn table(comparator: &Comparator, name: &str, pairs: &[(&str, &str)], expected: Expect) {
    let mut lines = String::new();
    for (a, b) in pairs {
        let found = both(comparator, name, a.as_bytes(), b.as_bytes());
        lines += &format!("{a:?} {b:?}: {}\n", show(&found));
    }
    expected.assert_eq(&lines);
}

#[test]
fn exact_names_the_first_line_or_byte() {
    table(
        &Comparator::Exact,
        "a.txt",
        &[
            ("a\nb\n", "a\nb\n"),
            ("a\nb\n", "a\nc\n"),
            ("a\nb\n", "a\n"),
            ("a", "a\nb"),
            ("a\n", "a"),
            ("a\r\n", "a\n"),
            ("", "x"),
            ("x y", "x  y"),
        ],
        expect![[r#"
            "a\nb\n" "a\nb\n": agree
            "a\nb\n" "a\nc\n": line 2: expected b, claimed c
            "a\nb\n" "a\n": line 2: expected b, claimed no such line
            "a" "a\nb": line 2: expected no such line, claimed b
            "a\n" "a": byte 1: expected 0x0a, claimed the end
            "a\r\n" "a\n": byte 1: expected 0x0d, claimed 0x0a
            "" "x": line 1: expected no such line, claimed x
            "x y" "x  y": line 1: expected "x y", claimed "x  y"
        "#]],
    );
    expect![["byte 2: expected 0x02, claimed 0x09"]].assert_eq(&show(&both(
        &Comparator::Exact,
        "a",
        &[0, 0xff, 2],
        &[0, 0xff, 9, 9],
    )));
}

#[test]
fn numbers_without_tolerance_are_equal_as_numbers() {
    table(
        &numeric("", "", 0),
        "a.txt",
        &[
            ("1.0", "1"),
            ("1e3", "1000"),
            ("0", "-0"),
            ("0.0", "-0.0"),
            ("nan", "NaN"),
            ("nan", "1"),
            ("inf", "Infinity"),
            ("inf", "-inf"),
            ("inf", "1e308"),
            ("1e400", "1e400 "),
            ("1e400", "1e401"),
            ("1e400", "inf"),
            ("1e-400", "0.0"),
            ("9007199254740992", "9007199254740993"),
            ("9007199254740993", "9007199254740993.0"),
            ("340282366920938463463374607431768211456", "340282366920938463463374607431768211457"),
            ("0x10", "16"),
            ("infinity-war", "inf"),
            ("1 2", "1\t 2"),
            ("1 2", "1 2 3"),
            ("1\n2", "1 2"),
            ("+1", "1"),
            ("1.", "1"),
            ("e5", "0"),
        ],
        expect![[r#"
            "1.0" "1": agree
            "1e3" "1000": agree
            "0" "-0": agree
            "0.0" "-0.0": agree
            "nan" "NaN": agree
            "nan" "1": line 1: expected nan, claimed 1
            "inf" "Infinity": agree
            "inf" "-inf": line 1: expected inf, claimed -inf
            "inf" "1e308": line 1: expected inf, claimed 1e308
            "1e400" "1e400 ": agree
            "1e400" "1e401": line 1: expected 1e400, claimed 1e401
            "1e400" "inf": line 1: expected 1e400, claimed inf
            "1e-400" "0.0": agree
            "9007199254740992" "9007199254740993": line 1: expected 9007199254740992, claimed 9007199254740993
            "9007199254740993" "9007199254740993.0": agree
            "340282366920938463463374607431768211456" "340282366920938463463374607431768211457": line 1: expected 340282366920938463463374607431768211456, claimed 340282366920938463463374607431768211457
            "0x10" "16": line 1: expected 0x10, claimed 16
            "infinity-war" "inf": line 1: expected infinity-war, claimed inf
            "1 2" "1\t 2": agree
            "1 2" "1 2 3": line 1: expected 2 words, claimed 3
            "1\n2" "1 2": line 1: expected 1 words, claimed 2
            "+1" "1": agree
            "1." "1": agree
            "e5" "0": line 1: expected e5, claimed 0
        "#]],
    );
}

#[test]
fn tolerances_are_inclusive_and_the_widest_counts() {
    table(
        &numeric("1e-3", "0.5", 0),
        "a.txt",
        &[
            ("0", "0.5"),
            ("0", "0.5000001"),
            ("1000", "1001"),
            ("1000", "1001.1"),
            ("10000", "10010"),
            ("1e308", "-1e308"),
            ("1.7e308", "1.7001e308"),
            ("inf", "1e400"),
            ("90071992547409930000", "90071992547409930001"),
            ("nan", "0"),
            ("x=1", "x=1.1"),
        ],
        expect![[r#"
            "0" "0.5": agree
            "0" "0.5000001": line 1: expected 0, claimed 0.5000001
            "1000" "1001": agree
            "1000" "1001.1": line 1: expected 1000, claimed 1001.1
            "10000" "10010": agree
            "1e308" "-1e308": line 1: expected 1e308, claimed -1e308
            "1.7e308" "1.7001e308": agree
            "inf" "1e400": line 1: expected inf, claimed 1e400
            "90071992547409930000" "90071992547409930001": agree
            "nan" "0": line 1: expected nan, claimed 0
            "x=1" "x=1.1": line 1: expected x=1, claimed x=1.1
        "#]],
    );
    table(
        &numeric("0", "0", 2),
        "a.txt",
        &[
            ("1.0", "1.0000000000000002"),
            ("1.0", "1.0000000000000004"),
            ("1.0", "1.0000000000000007"),
            ("5e-324", "-5e-324"),
            ("1e-323", "-5e-324"),
            ("1.7976931348623157e308", "inf"),
            ("1", "2"),
        ],
        expect![[r#"
            "1.0" "1.0000000000000002": agree
            "1.0" "1.0000000000000004": agree
            "1.0" "1.0000000000000007": line 1: expected 1.0, claimed 1.0000000000000007
            "5e-324" "-5e-324": agree
            "1e-323" "-5e-324": line 1: expected 1e-323, claimed -5e-324
            "1.7976931348623157e308" "inf": line 1: expected 1.7976931348623157e308, claimed inf
            "1" "2": line 1: expected 1, claimed 2
        "#]],
    );
    table(
        &numeric("2", "0", 0),
        "a.txt",
        &[("1e308", "-1e308"), ("1", "-1"), ("0", "5")],
        expect![[r#"
        "1e308" "-1e308": agree
        "1" "-1": agree
        "0" "5": agree
    "#]],
    );
}

#[test]
fn long_integers_are_subtracted_exactly() {
    let nines = "9".repeat(308);
    let (near, longer, other) = (format!("{}8", &nines[1..]), format!("1{nines}"), format!("2{nines}"));
    let far = format!("{}0{}", &nines[..20], &nines[21..]);
    let mut table = String::new();
    for (a, b) in [
        ("170141183460469231731687303715884105728", "170141183460469231731687303715884105729"),
        ("170141183460469231731687303715884105728", "170141183460469231731687303715884105730"),
        ("-1", "170141183460469231731687303715884105728"),
        ("-0", "0"),
        ("00012", "12"),
        (nines.as_str(), near.as_str()),
        (&nines, &far),
        (&longer, &other),
        (&longer, &longer.replace('1', "+1")),
    ] {
        let agree = both(&numeric("0", "1", 0), "a.txt", a.as_bytes(), b.as_bytes()) == Comparison::Agree;
        let short = |text: &str| if text.len() > 40 { format!("{} digits", text.len()) } else { text.to_owned() };
        table += &format!("{} {}: {agree}\n", short(a), short(b));
    }
    expect![[r#"
        170141183460469231731687303715884105728 170141183460469231731687303715884105729: true
        170141183460469231731687303715884105728 170141183460469231731687303715884105730: false
        -1 170141183460469231731687303715884105728: false
        -0 0: true
        00012 12: true
        308 digits 308 digits: true
        308 digits 308 digits: false
        309 digits 309 digits: false
        309 digits 310 digits: true
    "#]]
    .assert_eq(&table);
}

#[test]
fn files_too_large_to_be_read_convict_nobody() {
    let mut large = vec![b' '; 64 * 1024 * 1024 + 2];
    large[0] = b'1';
    let mut other = large.clone();
    other[0] = b'2';
    let near = numeric("0", "5", 0);
    expect!["unusable: both files have more than 67108864 bytes, so they cannot be compared within a tolerance"]
        .assert_eq(&show(&both(&near, "a.txt", &large, &other)));
    expect!["expected 67108866 bytes, claimed 1, and only one is too large to be read"]
        .assert_eq(&show(&both(&near, "a.txt", &large, b"1")));
    assert_eq!(compare(&near, "a.txt", &large, &large), Comparison::Agree);
    // A PNG that says it has more pixels than are read: our limit, not a difference.
    let header = |width: u32| {
        let mut bytes = png(1, 1, png::ColorType::Grayscale, &[1]);
        bytes[16..20].copy_from_slice(&width.to_be_bytes());
        bytes[20..24].copy_from_slice(&65_536u32.to_be_bytes());
        let crc = crc32(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&crc.to_be_bytes());
        bytes
    };
    let psnr = Comparator::Image { psnr_db_min: "1".into(), ssim_min: String::new() };
    expect!["unusable: both images are too large to be compared: 65536 × 65536 pixels are more than 16777216"]
        .assert_eq(&show(&both(&psnr, "a.png", &header(65_536), &header(65_537))));
    expect!["what is expected is no PNG: 65536 × 65536 pixels are more than 16777216"].assert_eq(&show(&both(
        &psnr,
        "a.png",
        &header(65_536),
        &png(1, 1, png::ColorType::Grayscale, &[1]),
    )));
}

/// CRC-32 as PNG has it.
fn crc32(bytes: &[u8]) -> u32 {
    let bit = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| bit(crc)))
}

#[test]
fn json_is_compared_as_a_value() {
    table(
        &numeric("0", "0.1", 0),
        "/out/a.json",
        &[
            (r#"{"a": 1, "b": [2, 3]}"#, r#"{"b":[2.05,3],"a":1}"#),
            (r#"{"a": 1}"#, r#"{"a": 2}"#),
            (r#"{"a": 1}"#, r#"{"a": "1"}"#),
            (r#"{"a": "1"}"#, r#"{"a": "1.0"}"#),
            (r#"{"a": 1}"#, r#"{"a": 1, "b": 2}"#),
            (r#"{"a": 1, "a": 1}"#, r#"{"a": 1}"#),
            ("[1]", "[1, 2]"),
            ("[NaN, -Infinity]", "[NaN,-Infinity]"),
            ("[1e400]", "[1e400 ]"),
            ("[1e400]", "[2e400]"),
            ("[null, true]", "[null, false]"),
            (r#"["é"]"#, r#"["\u00e9"]"#),
            (r#"["\ud83d\ude00"]"#, r#"["😀"]"#),
            ("[1", "[1]"),
            ("[01]", "[1]"),
            ("[9007199254740993]", "[9007199254740994]"),
            ("[9007199254740993]", "[9007199254740992.0]"),
            ("[-0, 0.0]", "[0, -0.0]"),
            ("[.5]", "[0.5]"),
            ("[1E+2]", "[100]"),
            (r#"{"a": {"b": [0, 1]}}"#, r#"{"a": {"b": [0, 5]}}"#),
        ],
        expect![[r#"
            "{\"a\": 1, \"b\": [2, 3]}" "{\"b\":[2.05,3],\"a\":1}": agree
            "{\"a\": 1}" "{\"a\": 2}": $.a: expected 1, claimed 2
            "{\"a\": 1}" "{\"a\": \"1\"}": $.a: expected a number, claimed a string
            "{\"a\": \"1\"}" "{\"a\": \"1.0\"}": $.a: expected 1, claimed 1.0
            "{\"a\": 1}" "{\"a\": 1, \"b\": 2}": $.b: claimed, not expected
            "{\"a\": 1, \"a\": 1}" "{\"a\": 1}": what is expected is no JSON: the key "a" is given twice (line 1, column 10); line 1: expected "{\"a\": 1, \"a\": 1}", claimed "{\"a\": 1}"
            "[1]" "[1, 2]": $: expected 1 entries, claimed 2
            "[NaN, -Infinity]" "[NaN,-Infinity]": agree
            "[1e400]" "[1e400 ]": agree
            "[1e400]" "[2e400]": $[0]: expected 1e400, claimed 2e400
            "[null, true]" "[null, false]": $[1]: expected true, claimed false
            "[\"é\"]" "[\"\\u00e9\"]": agree
            "[\"\\ud83d\\ude00\"]" "[\"😀\"]": agree
            "[1" "[1]": what is expected is no JSON: ',' or ']' expected (line 1, column 3); line 1: expected [1, claimed [1]
            "[01]" "[1]": what is expected is no JSON: ',' or ']' expected (line 1, column 3); line 1: expected [01], claimed [1]
            "[9007199254740993]" "[9007199254740994]": $[0]: expected 9007199254740993, claimed 9007199254740994
            "[9007199254740993]" "[9007199254740992.0]": agree
            "[-0, 0.0]" "[0, -0.0]": agree
            "[.5]" "[0.5]": what is expected is no JSON: a value expected (line 1, column 2); line 1: expected [.5], claimed [0.5]
            "[1E+2]" "[100]": agree
            "{\"a\": {\"b\": [0, 1]}}" "{\"a\": {\"b\": [0, 5]}}": $.a.b[1]: expected 1, claimed 5
        "#]],
    );
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let found = both(&numeric("", "", 0), "a.json", deep(100).as_bytes(), format!("{} ", deep(100)).as_bytes());
    assert!(show(&found).contains("nested deeper"), "{found:?}");
}

#[test]
fn csv_knows_quotes_and_columns() {
    table(
        &numeric("0", "0.1", 0),
        "a.CSV",
        &[
            ("x,y\n1,2\n", "x,y\r\n1.05,2\r\n"),
            ("x,y\n1,2\n", "x,y\n1,3\n"),
            ("\"a,b\",1\n", "\"a,b\",\"1.0\"\n"),
            ("\"a\"\"b\",1\n", "\"a\"\"c\",1\n"),
            ("\"two\nlines\",1\n", "\"two\nlines\",1.01\n"),
            ("1,2\n", "1,2,3\n"),
            ("1,2\n", "1,2\n3,4\n"),
            ("1, 2\n", "1,2.0\n"),
            ("a b,1\n", "a  b,1\n"),
            ("1,2\n\n3,4\n", "1,2\n3,4\n"),
            ("1,2\r3,4\r", "1,2\n3,4\n"),
            (" a ,1\n", "a,1\n"),
            ("\"1\",2\n", "1,2\n"),
            ("\"1,2\n", "1,2\n"),
            ("1,,2\n", "1,2\n"),
            ("1;2\n", "1;3\n"),
        ],
        expect![[r#"
            "x,y\n1,2\n" "x,y\r\n1.05,2\r\n": agree
            "x,y\n1,2\n" "x,y\n1,3\n": row 2, column 2: expected 2, claimed 3
            "\"a,b\",1\n" "\"a,b\",\"1.0\"\n": agree
            "\"a\"\"b\",1\n" "\"a\"\"c\",1\n": row 1, column 1: expected a"b, claimed a"c
            "\"two\nlines\",1\n" "\"two\nlines\",1.01\n": agree
            "1,2\n" "1,2,3\n": row 1: expected 2 columns, claimed 3
            "1,2\n" "1,2\n3,4\n": row 2: expected no such row, claimed one
            "1, 2\n" "1,2.0\n": agree
            "a b,1\n" "a  b,1\n": row 1, column 1: expected "a b", claimed "a  b"
            "1,2\n\n3,4\n" "1,2\n3,4\n": agree
            "1,2\r3,4\r" "1,2\n3,4\n": agree
            " a ,1\n" "a,1\n": agree
            "\"1\",2\n" "1,2\n": agree
            "\"1,2\n" "1,2\n": row 1, column 1: expected 1,2, claimed 1
            "1,,2\n" "1,2\n": row 1, column 2: expected "", claimed 2
            "1;2\n" "1;3\n": row 1, column 1: expected 1;2, claimed 1;3
        "#]],
    );
}

/// A `.npy` file of version 1.
pub fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&(header.len() as u16).to_le_bytes());
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(data);
    bytes
}

fn le64(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn npy_arrays_are_compared_by_element() {
    let near = numeric("1e-6", "", 0);
    let a = npy("<f8", "(2,)", &le64(&[1.0, 2.0]));
    let check = |b: &[u8], expected: Expect| expected.assert_eq(&show(&both(&near, "a.npy", &a, b)));
    check(&npy("<f8", "(2,)", &le64(&[1.0, 2.000_000_1])), expect!["agree"]);
    check(&npy("<f8", "(2,)", &le64(&[1.0, 2.1])), expect!["element [1]: expected 2, claimed 2.1"]);
    check(&npy("<f8", "(1, 2)", &le64(&[1.0, 2.0])), expect!["shape: expected [2], claimed [1, 2]"]);
    check(
        &npy("<i8", "(2,)", &le64(&[1.0, 2.0])),
        expect!["form: expected (Float, 8, false), claimed (Signed, 8, false)"],
    );
    check(
        &npy("<f8", "(3,)", &le64(&[1.0, 2.0])),
        expect![
            "what is claimed has 16 bytes of data, which its shape does not have; byte 61: expected 0x32, claimed 0x33"
        ],
    );
    let big: Vec<u8> = [1.0f64, 2.0].iter().flat_map(|value| value.to_be_bytes()).collect();
    check(&npy(">f8", "(2,)", &big), expect!["agree"]);
    check(
        &npy("|O", "(2,)", &[]),
        expect![[r#"what is claimed has elements of type "|O"; byte 8: expected 0x3a, claimed 0x39"#]],
    );
    check(b"\x93NUMPY", expect!["what is claimed is no .npy file; byte 6: expected 0x01, claimed the end"]);
    let huge = numeric("", "", 0);
    let ints = |value: i64| npy("<i8", "(1,)", &value.to_le_bytes());
    expect!["element [0]: expected 9223372036854775807, claimed 9223372036854775806"].assert_eq(&show(&both(
        &huge,
        "a.npy",
        &ints(i64::MAX),
        &ints(i64::MAX - 1),
    )));
    let nan = |bits: u64| npy("<f8", "(1,)", &bits.to_le_bytes());
    assert_eq!(both(&huge, "a.npy", &nan(0x7ff8 << 48), &nan((0x7ff8 << 48) + 1)), Comparison::Agree);
    let half = |bits: u16| npy("<f2", "(1,)", &bits.to_le_bytes());
    assert_eq!(both(&numeric("", "", 1), "a.npy", &half(0x3c00), &half(0x3c01)), Comparison::Agree);
    assert_ne!(both(&numeric("", "", 1), "a.npy", &half(0x3c00), &half(0x3c02)), Comparison::Agree);
}

pub fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(data);
    bytes
}

#[test]
fn safetensors_are_compared_by_tensor() {
    let near = numeric("1e-3", "", 0);
    let one = |name: &str, dtype: &str, data: &[u8]| {
        let elements = data.len() / if dtype == "F32" { 4 } else { 2 };
        let header =
            format!(r#"{{"{name}":{{"dtype":"{dtype}","shape":[{elements}],"data_offsets":[0,{}]}}}}"#, data.len());
        safetensors(&header, data)
    };
    let single = |value: f32| value.to_le_bytes();
    let a = one("w", "F32", &single(1.0));
    let check = |b: &[u8], expected: Expect| expected.assert_eq(&show(&both(&near, "m.safetensors", &a, b)));
    check(&one("w", "F32", &single(1.0005)), expect!["agree"]);
    check(&one("w", "F32", &single(1.5)), expect!["w[0]: expected 1, claimed 1.5"]);
    check(&one("v", "F32", &single(1.0)), expect!["v: claimed, not expected"]);
    check(&one("w", "BF16", &single(1.0)), expect!["w: expected F32, claimed BF16"]);
    check(
        &safetensors("{}", &single(1.0)),
        expect!["what is claimed has bytes that belong to no tensor, or to two; byte 0: expected 0x36, claimed 0x02"],
    );
    check(
        &safetensors(r#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,99]}}"#, &single(1.0)),
        expect![[r#"what is claimed has no data for "w"; byte 0: expected 0x36, claimed 0x37"#]],
    );
}

fn png(width: u32, height: u32, colour: png::ColorType, pixels: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(colour);
    encoder.write_header().and_then(|mut writer| writer.write_image_data(pixels)).expect("a PNG");
    bytes
}

#[test]
fn images_are_compared_by_distance() {
    let psnr = |least: &str| Comparator::Image { psnr_db_min: least.into(), ssim_min: String::new() };
    let ssim = |least: &str| Comparator::Image { psnr_db_min: String::new(), ssim_min: least.into() };
    let gradient: Vec<u8> = (0..32 * 32 * 3).map(|at| (at % 251) as u8).collect();
    let rgb = |pixels: &[u8]| png(32, 32, png::ColorType::Rgb, pixels);
    let a = rgb(&gradient);
    let nudged = rgb(&gradient.iter().map(|value| value ^ 1).collect::<Vec<_>>());
    let flat = rgb(&[128; 32 * 32 * 3]);
    // Every colour is off by one and alpha by none: MSE is 3/4.
    assert_eq!(both(&psnr("49.38"), "a.png", &a, &nudged), Comparison::Agree);
    expect![
        "PSNR is 49.38 dB, at least 49.39 is needed; row 0, column 0: expected [0, 1, 2, 255], claimed [1, 0, 3, 255]"
    ]
    .assert_eq(&show(&both(&psnr("49.39"), "a.png", &a, &nudged)));
    assert_eq!(both(&ssim("0.99"), "a.png", &a, &nudged), Comparison::Agree);
    expect!["SSIM is 0.258295, at least 0.9 is needed; row 0, column 0: expected [0, 1, 2, 255], claimed [128, 128, 128, 255]"].assert_eq(&show(&both(&ssim("0.9"), "a.png", &a, &flat)));
    assert_eq!(
        both(&ssim("0.999999"), "a.png", &flat, &png(32, 32, png::ColorType::Grayscale, &[128; 32 * 32])),
        Comparison::Agree
    );
    let small = png(1, 1, png::ColorType::Grayscale, &[1]);
    expect!["expected 32 × 32 pixels, claimed 1 × 1 pixels"].assert_eq(&show(&both(&psnr("1"), "a.png", &a, &small)));
    expect!["what is claimed is no PNG: Invalid PNG signature."].assert_eq(&show(&both(
        &psnr("1"),
        "a.png",
        &a,
        b"no image",
    )));
    let one = png(1, 1, png::ColorType::Grayscale, &[2]);
    assert_eq!(both(&ssim("0.5"), "a.png", &small, &one), Comparison::Agree);
    assert_eq!(
        both(&psnr("9999"), "a.png", &small, &png(1, 1, png::ColorType::GrayscaleAlpha, &[1, 255])),
        Comparison::Agree
    );
}

#[test]
fn ignored_lines_may_differ_and_no_others() {
    let times = Comparator::IgnoreLines(vec!["^time ".into(), "^host:".into()]);
    table(
        &times,
        "log",
        &[
            ("a\ntime 1\nb\n", "a\ntime 2\nb\n"),
            ("a\ntime 1\nb\n", "a\nb\n"),
            ("a\ntime 1\nb\n", "a\ntime 1\nc\n"),
            ("a\n", "a\nb\n"),
            ("my time 1\n", "my time 2\n"),
            ("host: x", ""),
        ],
        expect![[r#"
            "a\ntime 1\nb\n" "a\ntime 2\nb\n": agree
            "a\ntime 1\nb\n" "a\nb\n": agree
            "a\ntime 1\nb\n" "a\ntime 1\nc\n": line 3: expected b, claimed c
            "a\n" "a\nb\n": claimed line 2: expected no such line, claimed b
            "my time 1\n" "my time 2\n": line 1: expected "my time 1", claimed "my time 2"
            "host: x" "": agree
        "#]],
    );
    let broken = Comparator::IgnoreLines(vec!["(".into()]);
    expect!["unusable: no regular expression: error: unclosed group"]
        .assert_eq(&show(&both(&broken, "log", b"a", b"b")));
}

fn token() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<f64>().prop_map(|value| value.to_string()),
        any::<i64>().prop_map(|value| value.to_string()),
        "[0-9]{1,40}",
        "-?[0-9]{1,3}e-?[0-9]{1,3}",
        "(nan|inf|-inf|x|-|\\.|1e400|-0|0)",
    ]
}

proptest! {
    #[test]
    fn numeric_comparison_is_symmetric_and_reflexive(a in token(), b in token(), ulps in 0u64..9, relative in 0.0f64..2.0) {
        let comparator = numeric(&format!("{relative:.6}"), "0.001", ulps);
        for name in ["a.txt", "a.csv", "a.json"] {
            both(&comparator, name, a.as_bytes(), b.as_bytes());
            prop_assert_eq!(compare(&comparator, name, a.as_bytes(), a.as_bytes()), Comparison::Agree);
        }
    }

    #[test]
    fn no_bytes_upset_a_comparator(a in proptest::collection::vec(any::<u8>(), 0..200), b in proptest::collection::vec(any::<u8>(), 0..200)) {
        let image = Comparator::Image { psnr_db_min: "1".into(), ssim_min: String::new() };
        for name in ["a.txt", "a.csv", "a.json", "a.npy", "a.safetensors"] {
            both(&numeric("0.1", "", 0), name, &a, &b);
        }
        both(&image, "a.png", &a, &b);
        let mut file = npy("<f4", "(2,)", &a);
        file.extend_from_slice(&b);
        both(&numeric("0.1", "", 0), "a.npy", &file, &b);
        both(&numeric("0.1", "", 0), "a.safetensors", &safetensors("{}", &a), &b);
    }
}

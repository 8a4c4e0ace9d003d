//! Numbers within tolerance: JSON, CSV, whitespace text, `.npy`, `.safetensors`.
//!
//! Two numbers a and b agree when abs(a − b) ≤ max(absolute, relative × max(abs a, abs b)), or they are within `ulps`.
//! What is no number must be equal. The rest is defined like this, and the same whichever side is which:
//!
//! | | |
//! |---|---|
//! | NaN | agrees with every NaN, whatever its bits and sign, and with nothing else |
//! | infinities | each agrees with itself alone, under every tolerance |
//! | −0 and 0 | agree; as integers too |
//! | two integers (digits alone) | their difference is exact up to 308 digits, then rounded once to a double; longer ones agree with themselves alone |
//! | an integer and a number with a point or an exponent | compare as doubles, each the nearest one: 9007199254740993 agrees with 9007199254740992.0 |
//! | a number beyond all doubles (`1e400`) | agrees with the same text alone; one below the smallest (`1e-400`) is 0 |
//! | number formats | `1`, `+1`, `01`, `1.`, `.5`, `1e3`, `1E+3`, `nan`, `-Infinity`, in any case; not `0x10`, `1_000`, `1,5` |
//! | JSON | RFC 8259 and `NaN`, `Infinity`, `-Infinity`; the order of keys and space do not count; `"1"` is text, so it is no `1`; a key given twice, or more than 64 levels, is no JSON |
//! | what cannot be read as its extension says | must be equal byte for byte |
//! | CSV | RFC 4180; rows end in LF, CR LF or CR, and empty lines are none; quotes around a field and space inside them or around it do not count; `"1.0"` is a number |
//! | text | words between ASCII space, line by line; CR LF is a line end |
//! | `.npy`, `.safetensors` | shape, element type and order are equal, byte order is not compared; `ulps` are those of the element type |
//! | more than 64 MiB | two such files cannot be compared, one such file differs from any smaller one |
//!
//! Only IEEE additions, multiplications and comparisons are used, so every machine decides alike.

use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::Uint;

use crate::{
    comparator::{Comparison, PARSED_BYTES_MAX, first_difference, lines, show},
    json::{self, Json},
};

pub(crate) mod arrays;

/// Bytes of a file whose numbers are all held at once.
const TREE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How far numbers may be apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tolerance {
    pub(crate) relative: f64,
    pub(crate) absolute: f64,
    pub(crate) ulps: u64,
}

/// A decimal number as signed in terms; nothing said is zero.
pub(crate) fn decimal(text: &str) -> Option<f64> {
    match text {
        "" => Some(0.0),
        _ if text.len() <= 32 => text.parse().ok(),
        _ => None,
    }
}

/// The lower-case extension of a path's last part.
pub(crate) fn extension(name: &str) -> Option<String> {
    let last = name.rsplit('/').next()?;
    last.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase())
}

pub(crate) fn compare(tolerance: &Tolerance, name: &str, own: &[u8], claimed: &[u8]) -> Comparison {
    if let Some(found) = too_large(own, claimed) {
        return found;
    }
    let found = match extension(name).as_deref() {
        Some("json") => read_json(own, claimed).map(|(own, claimed)| compare_values(tolerance, "$", &own, &claimed)),
        Some("csv") => compare_csv(tolerance, own, claimed),
        Some("npy") => arrays::compare_npy(tolerance, own, claimed),
        Some("safetensors") => arrays::compare_safetensors(tolerance, own, claimed),
        _ => Ok(compare_text(tolerance, own, claimed)),
    };
    // Bytes that cannot be read are not numbers, and what is no number must be equal; equal bytes never come here.
    let found = found.unwrap_or_else(|problem| Some(format!("{problem}; {}", first_difference(own, claimed))));
    found.map_or(Comparison::Agree, Comparison::Differ)
}

/// What is to be said of files that are too large to be read: our limit convicts nobody, unless only one side is beyond it.
pub(crate) fn too_large(own: &[u8], claimed: &[u8]) -> Option<Comparison> {
    match (own.len() > PARSED_BYTES_MAX, claimed.len() > PARSED_BYTES_MAX) {
        (false, false) => None,
        (true, true) => Some(Comparison::Unusable(format!(
            "both files have more than {PARSED_BYTES_MAX} bytes, so they cannot be compared within a tolerance"
        ))),
        _ => Some(Comparison::Differ(format!(
            "expected {} bytes, claimed {}, and only one is too large to be read",
            own.len(),
            claimed.len()
        ))),
    }
}

/// A numeral.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Number {
    /// Sign and digits without leading zeros; zero is never negative.
    Integer(bool, String),
    Float(f64),
    /// Text of a finite number beyond all doubles.
    Huge(String),
}

impl Number {
    /// Reads `-1`, `+.5`, `1e-3`, `nan`, `-Infinity`; nothing else is a number.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let (negative, digits) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        if ["inf", "infinity"].iter().any(|word| digits.eq_ignore_ascii_case(word)) {
            return Some(Self::Float(if negative { f64::NEG_INFINITY } else { f64::INFINITY }));
        }
        if digits.eq_ignore_ascii_case("nan") {
            return Some(Self::Float(f64::NAN));
        }
        if !digits.bytes().next().is_some_and(|byte| byte.is_ascii_digit() || byte == b'.') {
            return None;
        }
        if digits.bytes().all(|byte| byte.is_ascii_digit()) {
            let digits = digits.trim_start_matches('0');
            return Some(match digits {
                "" => Self::Integer(false, "0".into()),
                _ => Self::Integer(negative, digits.to_owned()),
            });
        }
        let value: f64 = digits.parse().ok()?;
        if value.is_infinite() {
            return Some(Self::Huge(format!("{}{}", if negative { "-" } else { "" }, digits.to_ascii_lowercase())));
        }
        Some(Self::Float(if negative { -value } else { value }))
    }

    /// The nearest double; nothing beyond all doubles.
    pub(crate) fn double(&self) -> Option<f64> {
        match self {
            Self::Integer(..) => Some(self.value()).filter(|value| value.is_finite()),
            Self::Float(value) => Some(*value),
            Self::Huge(_) => None,
        }
    }

    fn value(&self) -> f64 {
        match self {
            Self::Integer(negative, digits) => {
                let value = digits.parse().unwrap_or(f64::INFINITY);
                if *negative { -value } else { value }
            }
            Self::Float(value) => *value,
            Self::Huge(text) => {
                if text.starts_with('-') {
                    f64::NEG_INFINITY
                } else {
                    f64::INFINITY
                }
            }
        }
    }
}

impl Tolerance {
    /// Whether two numerals agree.
    pub(crate) fn agree(&self, a: &Number, b: &Number) -> bool {
        match (a, b) {
            (Number::Integer(a_negative, a_digits), Number::Integer(b_negative, b_digits)) => {
                if (a_negative, a_digits) == (b_negative, b_digits) {
                    return true;
                }
                let difference = difference((*a_negative, a_digits), (*b_negative, b_digits));
                difference.is_some_and(|difference| self.allows(difference, a.value().abs().max(b.value().abs())))
            }
            (Number::Huge(a), Number::Huge(b)) => a == b,
            (Number::Huge(_), _) | (_, Number::Huge(_)) => false,
            _ => self.agree_f64(a.value(), b.value()),
        }
    }

    fn allows(&self, difference: f64, larger: f64) -> bool {
        difference.is_finite() && (difference <= self.absolute || difference <= self.relative * larger)
    }

    /// Whether two doubles agree.
    pub(crate) fn agree_f64(&self, a: f64, b: f64) -> bool {
        if a.is_nan() || b.is_nan() {
            return a.is_nan() && b.is_nan();
        }
        if a == b {
            return true;
        }
        if a.is_infinite() || b.is_infinite() {
            return false;
        }
        // Halves, so that the difference of two large numbers stays finite; halving is exact but for the smallest doubles.
        let large = a.abs().max(b.abs()) > 1e300;
        let near = if large {
            let difference = (a / 2.0 - b / 2.0).abs();
            let halved = Self { absolute: self.absolute / 2.0, ..*self };
            halved.allows(difference, a.abs().max(b.abs()) / 2.0)
        } else {
            self.allows((a - b).abs(), a.abs().max(b.abs()))
        };
        near || within_ulps(ordered64(a), ordered64(b), self.ulps)
    }

    /// Whether two floats agree; `ulps` are those of single precision.
    pub(crate) fn agree_f32(&self, a: f32, b: f32) -> bool {
        let plain = Self { ulps: 0, ..*self };
        plain.agree_f64(f64::from(a), f64::from(b))
            || (a.is_finite() && b.is_finite() && within_ulps(ordered32(a), ordered32(b), self.ulps))
    }
}

/// The exact difference of two integers, rounded to a double; nothing where one has more than 308 digits.
fn difference((a_negative, a): (bool, &str), (b_negative, b): (bool, &str)) -> Option<f64> {
    const DIGITS_MAX: usize = 308;
    if a.len().max(b.len()) > DIGITS_MAX {
        return None;
    }
    // 309 digits fit, so the sum does too.
    let read = |digits: &str| Uint::<1088, 17>::from_str_radix(digits, 10).ok();
    let (a, b) = (read(a)?, read(b)?);
    let difference = if a_negative == b_negative { a.abs_diff(b) } else { a.checked_add(b)? };
    // Read from its digits, as every numeral is: the nearest double.
    difference.to_string().parse().ok()
}

fn within_ulps(a: i64, b: i64, ulps: u64) -> bool {
    ulps > 0 && a.abs_diff(b) <= ulps
}

/// Doubles as integers in the same order, both zeros at 0.
fn ordered64(value: f64) -> i64 {
    let bits = value.to_bits();
    let magnitude = (bits & !(1 << 63)).cast_signed();
    if bits >> 63 == 1 { -magnitude } else { magnitude }
}

fn ordered32(value: f32) -> i64 {
    let bits = value.to_bits();
    let magnitude = i64::from(bits & !(1 << 31));
    if bits >> 31 == 1 { -magnitude } else { magnitude }
}

fn compare_token(tolerance: &Tolerance, own: &[u8], claimed: &[u8]) -> bool {
    let number = |token| std::str::from_utf8(token).ok().and_then(Number::read);
    own == claimed
        || matches!((number(own), number(claimed)), (Some(own), Some(claimed)) if tolerance.agree(&own, &claimed))
}

fn compare_text(tolerance: &Tolerance, own: &[u8], claimed: &[u8]) -> Option<String> {
    let tokens = |line: &'_ [u8]| -> Vec<Vec<u8>> {
        line.split(u8::is_ascii_whitespace).filter(|token| !token.is_empty()).map(<[u8]>::to_vec).collect()
    };
    let (mut own_lines, mut claimed_lines) = (lines(own), lines(claimed));
    let mut number = 0;
    loop {
        number += 1;
        let (own, claimed) = match (own_lines.next(), claimed_lines.next()) {
            (None, None) => return None,
            (Some(own), Some(claimed)) => (own, claimed),
            (Some(own), None) => return Some(format!("line {number}: expected {}, claimed no such line", show(own))),
            (None, Some(claimed)) => {
                return Some(format!("line {number}: expected no such line, claimed {}", show(claimed)));
            }
        };
        if own == claimed {
            continue;
        }
        let (own, claimed) = (tokens(own), tokens(claimed));
        if let Some((own, claimed)) =
            own.iter().zip(&claimed).find(|(own, claimed)| !compare_token(tolerance, own, claimed))
        {
            return Some(format!("line {number}: expected {}, claimed {}", show(own), show(claimed)));
        }
        if own.len() != claimed.len() {
            return Some(format!("line {number}: expected {} words, claimed {}", own.len(), claimed.len()));
        }
    }
}

fn compare_csv(tolerance: &Tolerance, own: &[u8], claimed: &[u8]) -> Result<Option<String>, String> {
    let found = records(own, claimed, &mut |row, own, claimed| {
        for (column, (own, claimed)) in own.iter().zip(claimed).enumerate() {
            if !compare_token(tolerance, own, claimed) {
                let column = column + 1;
                return Err(format!("row {row}, column {column}: expected {}, claimed {}", show(own), show(claimed)));
            }
        }
        if own.len() != claimed.len() {
            return Err(format!("row {row}: expected {} columns, claimed {}", own.len(), claimed.len()));
        }
        Ok(())
    })?;
    Ok(found.err())
}

/// What is done with a record's number and the fields of its two sides.
type VisitRecord<'a> = &'a mut dyn FnMut(u64, &[&[u8]], &[&[u8]]) -> Result<(), String>;

/// Visits the records of two CSV files, fields without the space around them, up to the first difference.
///
/// # Errors
/// What is no CSV; inside, the first difference.
pub(crate) fn records(own: &[u8], claimed: &[u8], visit: VisitRecord<'_>) -> Result<Result<(), String>, String> {
    fn reader(bytes: &[u8]) -> csv::ByteRecordsIntoIter<&[u8]> {
        let mut builder = csv::ReaderBuilder::new();
        builder.has_headers(false).flexible(true).from_reader(bytes).into_byte_records()
    }
    let (mut own, mut claimed) = (reader(own), reader(claimed));
    let mut row = 0;
    loop {
        row += 1;
        let problem = |error: csv::Error| format!("row {row} is no CSV: {error}");
        let (own, claimed) = match (own.next().transpose(), claimed.next().transpose()) {
            (Err(error), _) | (_, Err(error)) => return Err(problem(error)),
            (Ok(None), Ok(None)) => return Ok(Ok(())),
            (Ok(Some(_)), Ok(None)) => return Ok(Err(format!("row {row}: expected a row, claimed no such row"))),
            (Ok(None), Ok(Some(_))) => return Ok(Err(format!("row {row}: expected no such row, claimed one"))),
            (Ok(Some(own)), Ok(Some(claimed))) => (own, claimed),
        };
        let own: Vec<&[u8]> = own.iter().map(<[u8]>::trim_ascii).collect();
        let claimed: Vec<&[u8]> = claimed.iter().map(<[u8]>::trim_ascii).collect();
        if let Err(difference) = visit(row, &own, &claimed) {
            return Ok(Err(difference));
        }
    }
}

/// Reads both sides as JSON.
pub(crate) fn read_json(own: &[u8], claimed: &[u8]) -> Result<(Json, Json), String> {
    let read = |whose: &str, bytes| {
        let text = std::str::from_utf8(bytes).map_err(|_| format!("{whose} is no UTF-8"))?;
        json::parse_numeric(text).map_err(|problem| format!("{whose} is no JSON: {problem}"))
    };
    Ok((read("what is expected", own)?, read("what is claimed", claimed)?))
}

/// The numbers of a file by its bytes: `.npy` as nested lists, `.safetensors` as an object of them, else JSON.
///
/// # Errors
/// What it is not.
pub(crate) fn tree(bytes: &[u8]) -> Result<Json, String> {
    if bytes.len() > TREE_BYTES_MAX {
        return Err(format!("{} bytes are more than {TREE_BYTES_MAX}", bytes.len()));
    }
    if let Some(tree) = arrays::tree(bytes) {
        return tree;
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "is no UTF-8")?;
    json::parse(text).map_err(|problem| format!("is no JSON: {problem}"))
}

/// The fields of two objects, ascending by name.
pub(crate) fn fields<'a>(
    own: &'a Json,
    claimed: &'a Json,
) -> impl Iterator<Item = (&'a str, Option<&'a Json>, Option<&'a Json>)> {
    fn map(value: &Json) -> BTreeMap<&str, &Json> {
        match value {
            Json::Object(fields) => fields.iter().map(|(name, value)| (name.as_str(), value)).collect(),
            _ => BTreeMap::new(),
        }
    }
    let (own, claimed) = (map(own), map(claimed));
    let names: BTreeSet<&str> = own.keys().chain(claimed.keys()).copied().collect();
    names.into_iter().map(move |name| (name, own.get(name).copied(), claimed.get(name).copied()))
}

/// Words for two values that are not equal.
pub(crate) fn unlike(path: &str, own: &Json, claimed: &Json) -> String {
    let (own, claimed) = match (own, claimed) {
        (Json::Text(own), Json::Text(claimed)) => (show(own.as_bytes()), show(claimed.as_bytes())),
        (Json::Bool(own), Json::Bool(claimed)) => (own.to_string(), claimed.to_string()),
        (own, claimed) => (own.kind().to_owned(), claimed.kind().to_owned()),
    };
    format!("{path}: expected {own}, claimed {claimed}")
}

fn compare_values(tolerance: &Tolerance, path: &str, own: &Json, claimed: &Json) -> Option<String> {
    match (own, claimed) {
        (Json::Number(own), Json::Number(claimed)) => {
            let agree = compare_token(tolerance, own.as_bytes(), claimed.as_bytes());
            let shown = || (show(own.as_bytes()), show(claimed.as_bytes()));
            (!agree).then(shown).map(|(own, claimed)| format!("{path}: expected {own}, claimed {claimed}"))
        }
        (Json::List(own), Json::List(claimed)) => {
            let mut pairs = own.iter().zip(claimed).enumerate();
            let found = pairs.find_map(|(index, (own, claimed))| {
                compare_values(tolerance, &format!("{path}[{index}]"), own, claimed)
            });
            match found {
                None if own.len() != claimed.len() => {
                    Some(format!("{path}: expected {} entries, claimed {}", own.len(), claimed.len()))
                }
                found => found,
            }
        }
        (Json::Object(_), Json::Object(_)) => fields(own, claimed).find_map(|(name, own, claimed)| {
            let path = format!("{path}.{}", name.chars().take(40).collect::<String>());
            match (own, claimed) {
                (Some(own), Some(claimed)) => compare_values(tolerance, &path, own, claimed),
                (Some(_), None) => Some(format!("{path}: expected, not claimed")),
                (None, _) => Some(format!("{path}: claimed, not expected")),
            }
        }),
        (own, claimed) if own == claimed => None,
        (own, claimed) => Some(unlike(path, own, claimed)),
    }
}

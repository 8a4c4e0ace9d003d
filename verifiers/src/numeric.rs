//! Numbers within tolerance: JSON, CSV, whitespace text, `.npy`, `.safetensors`.
//!
//! Two numbers a and b agree when abs(a − b) ≤ max(absolute, relative × max(abs a, abs b)), or they are within `ulps`.
//! NaN agrees with NaN alone, an infinity with itself, −0 with 0. Two integers compare exactly, however long. Text that
//! overflows a double (`1e400`) agrees only with the same text. What is no number must be equal.
//!
//! Only IEEE additions, multiplications and comparisons are used, so every machine decides alike.

use crate::{
    comparator::{PARSED_BYTES_MAX, first_difference, lines, show},
    json::{self, Json},
};

mod arrays;

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

/// The first difference, if there is one.
pub(crate) fn compare(tolerance: &Tolerance, name: &str, own: &[u8], claimed: &[u8]) -> Option<String> {
    if own.len().max(claimed.len()) > PARSED_BYTES_MAX {
        return Some(format!("too large to be read as numbers; {}", first_difference(own, claimed)));
    }
    let extension = name.rsplit('/').next().and_then(|name| name.rsplit_once('.')).map(|(_, extension)| extension);
    let found = match extension.map(str::to_ascii_lowercase).as_deref() {
        Some("json") => compare_json(tolerance, own, claimed),
        Some("csv") => compare_csv(tolerance, own, claimed),
        Some("npy") => arrays::compare_npy(tolerance, own, claimed),
        Some("safetensors") => arrays::compare_safetensors(tolerance, own, claimed),
        _ => Ok(compare_text(tolerance, own, claimed)),
    };
    // Bytes that cannot be read are not numbers, and what is no number must be equal; equal bytes never come here.
    found.unwrap_or_else(|problem| Some(format!("{problem}; {}", first_difference(own, claimed))))
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
                let exact = |negative: bool, digits: &str| {
                    digits.parse::<i128>().ok().map(|value| if negative { -value } else { value })
                };
                // The difference is found exactly where it can be; it is never below 1.
                let difference = match (exact(*a_negative, a_digits), exact(*b_negative, b_digits)) {
                    (Some(a), Some(b)) => a.abs_diff(b) as f64,
                    _ => (a.value() - b.value()).abs().max(1.0),
                };
                self.allows(difference, a.value().abs().max(b.value().abs()))
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
            (Ok(None), Ok(None)) => return Ok(None),
            (Ok(Some(_)), Ok(None)) => return Ok(Some(format!("row {row}: expected a row, claimed no such row"))),
            (Ok(None), Ok(Some(_))) => return Ok(Some(format!("row {row}: expected no such row, claimed one"))),
            (Ok(Some(own)), Ok(Some(claimed))) => (own, claimed),
        };
        for (column, (own, claimed)) in own.iter().zip(claimed.iter()).enumerate() {
            let agree = own == claimed || compare_token(tolerance, own.trim_ascii(), claimed.trim_ascii());
            if !agree {
                let column = column + 1;
                return Ok(Some(format!(
                    "row {row}, column {column}: expected {}, claimed {}",
                    show(own),
                    show(claimed)
                )));
            }
        }
        if own.len() != claimed.len() {
            return Ok(Some(format!("row {row}: expected {} columns, claimed {}", own.len(), claimed.len())));
        }
    }
}

fn compare_json(tolerance: &Tolerance, own: &[u8], claimed: &[u8]) -> Result<Option<String>, String> {
    let read = |whose: &str, bytes| {
        let text = std::str::from_utf8(bytes).map_err(|_| format!("{whose} is no UTF-8"))?;
        json::parse_numeric(text).map_err(|problem| format!("{whose} is no JSON: {problem}"))
    };
    let (own, claimed) = (read("what is expected", own)?, read("what is claimed", claimed)?);
    Ok(compare_values(tolerance, "$", &own, &claimed))
}

fn compare_values(tolerance: &Tolerance, path: &str, own: &Json, claimed: &Json) -> Option<String> {
    let differ = |own: String, claimed: String| Some(format!("{path}: expected {own}, claimed {claimed}"));
    match (own, claimed) {
        (Json::Number(own), Json::Number(claimed)) => {
            let agree = own == claimed || compare_token(tolerance, own.as_bytes(), claimed.as_bytes());
            if agree { None } else { differ(show(own.as_bytes()), show(claimed.as_bytes())) }
        }
        (Json::List(own), Json::List(claimed)) => {
            let mut pairs = own.iter().zip(claimed).enumerate();
            let found = pairs.find_map(|(index, (own, claimed))| {
                compare_values(tolerance, &format!("{path}[{index}]"), own, claimed)
            });
            match found {
                None if own.len() != claimed.len() => {
                    differ(format!("{} entries", own.len()), format!("{}", claimed.len()))
                }
                found => found,
            }
        }
        (Json::Object(own_fields), Json::Object(claimed_fields)) => {
            let mut names: Vec<&String> = own_fields.iter().chain(claimed_fields).map(|(name, _)| name).collect();
            names.sort();
            names.dedup();
            let find = |fields: &'_ [(String, Json)]| -> std::collections::BTreeMap<String, Json> {
                fields.iter().cloned().collect()
            };
            let (own_fields, claimed_fields) = (find(own_fields), find(claimed_fields));
            names.into_iter().find_map(|name| {
                let path = format!("{path}.{}", name.chars().take(40).collect::<String>());
                match (own_fields.get(name), claimed_fields.get(name)) {
                    (Some(own), Some(claimed)) => compare_values(tolerance, &path, own, claimed),
                    (Some(_), None) => Some(format!("{path}: expected, not claimed")),
                    (None, _) => Some(format!("{path}: claimed, not expected")),
                }
            })
        }
        (own, claimed) if own == claimed => None,
        (Json::Text(own), Json::Text(claimed)) => differ(show(own.as_bytes()), show(claimed.as_bytes())),
        (Json::Bool(own), Json::Bool(claimed)) => differ(own.to_string(), claimed.to_string()),
        (own, claimed) => differ(own.kind().to_owned(), claimed.kind().to_owned()),
    }
}

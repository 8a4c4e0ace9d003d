//! The rows of two files, side by side: what tolerance over samples looks at.
//!
//! | file | a row is |
//! |---|---|
//! | JSON | a list that holds numbers only; a number anywhere else is a row of one |
//! | CSV | the numbers of a record |
//! | `.npy`, each tensor of `.safetensors` | what one index of the first axis holds, in the order of C; all of an array of one axis |
//! | any other | the numbers of a line |
//!
//! Everything else must be equal: keys, shapes, element types, text, how many rows there are and how long they are. That is
//! no matter of tolerance, so a difference there is one at once. Numbers become doubles, the nearest one; integers beyond
//! 2^53 lose digits, and text beyond all doubles (`1e400`) must be the same text. A row without numbers is no sample.

use crate::{
    comparator::{first_difference, lines, show},
    json::Json,
    numeric::{self, Number},
};

/// Called with a row's name and its two sides, of equal length.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(&str, &[f64], &[f64]);

/// Visits the rows of two files.
///
/// # Errors
/// The first difference that is none of numbers.
pub(crate) fn rows(name: &str, own: &[u8], claimed: &[u8], visit: Visit<'_>) -> Result<(), String> {
    let unread = |problem: String| format!("{problem}; {}", first_difference(own, claimed));
    match numeric::extension(name).as_deref() {
        Some("json") => {
            let (own, claimed) = numeric::read_json(own, claimed).map_err(unread)?;
            values("$", &own, &claimed, visit)
        }
        Some("csv") => {
            numeric::records(own, claimed, &mut |row, own, claimed| line(&format!("row {row}"), own, claimed, visit))
                .unwrap_or_else(|problem| Err(unread(problem)))
        }
        Some("npy") => numeric::arrays::npy_rows(own, claimed, visit).unwrap_or_else(|problem| Err(unread(problem))),
        Some("safetensors") => {
            numeric::arrays::safetensors_rows(own, claimed, visit).unwrap_or_else(|problem| Err(unread(problem)))
        }
        _ => text(own, claimed, visit),
    }
}

/// The two numbers, where both sides are numbers; nothing where they are the same text and no doubles.
fn pair(own: &[u8], claimed: &[u8]) -> Result<Option<(f64, f64)>, String> {
    let number = |bytes| std::str::from_utf8(bytes).ok().and_then(Number::read).and_then(|number| number.double());
    match (number(own), number(claimed)) {
        (Some(own), Some(claimed)) => Ok(Some((own, claimed))),
        _ if own == claimed => Ok(None),
        _ => Err(format!("expected {}, claimed {}", show(own), show(claimed))),
    }
}

fn line(label: &str, own: &[&[u8]], claimed: &[&[u8]], visit: Visit<'_>) -> Result<(), String> {
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for (index, (own, claimed)) in own.iter().zip(claimed).enumerate() {
        if let Some((own, claimed)) = pair(own, claimed).map_err(|difference| match label.starts_with('$') {
            true => format!("{label}[{index}]: {difference}"),
            false => format!("{label}, {}: {difference}", index + 1),
        })? {
            left.push(own);
            right.push(claimed);
        }
    }
    if own.len() != claimed.len() {
        return Err(format!("{label}: expected {} entries, claimed {}", own.len(), claimed.len()));
    }
    if !left.is_empty() {
        visit(label, &left, &right);
    }
    Ok(())
}

fn text(own: &[u8], claimed: &[u8], visit: Visit<'_>) -> Result<(), String> {
    fn words(line: &[u8]) -> Vec<&[u8]> {
        line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).collect()
    }
    let (mut own_lines, mut claimed_lines) = (lines(own), lines(claimed));
    let mut number = 0;
    loop {
        number += 1;
        match (own_lines.next(), claimed_lines.next()) {
            (None, None) => return Ok(()),
            (Some(own), Some(claimed)) => line(&format!("line {number}"), &words(own), &words(claimed), visit)?,
            (Some(own), None) => return Err(format!("line {number}: expected {}, claimed no such line", show(own))),
            (None, Some(claimed)) => {
                return Err(format!("line {number}: expected no such line, claimed {}", show(claimed)));
            }
        }
    }
}

fn texts(items: &[Json]) -> Vec<&[u8]> {
    fn text(item: &Json) -> Option<&[u8]> {
        if let Json::Number(text) = item { Some(text.as_bytes()) } else { None }
    }
    items.iter().filter_map(text).collect()
}

fn values(path: &str, own: &Json, claimed: &Json, visit: Visit<'_>) -> Result<(), String> {
    let at = |difference: String| format!("{path}: {difference}");
    let numbers = |items: &[Json]| items.iter().all(|item| matches!(item, Json::Number(_)));
    match (own, claimed) {
        (Json::Number(own), Json::Number(claimed)) => {
            if let Some((own, claimed)) = pair(own.as_bytes(), claimed.as_bytes()).map_err(at)? {
                visit(path, &[own], &[claimed]);
            }
            Ok(())
        }
        (Json::List(own), Json::List(claimed)) => {
            if own.len() != claimed.len() {
                return Err(format!("{path}: expected {} entries, claimed {}", own.len(), claimed.len()));
            }
            if !numbers(own) || !numbers(claimed) {
                return own
                    .iter()
                    .zip(claimed)
                    .enumerate()
                    .try_for_each(|(index, (own, claimed))| values(&format!("{path}[{index}]"), own, claimed, visit));
            }
            line(path, &texts(own), &texts(claimed), visit)
        }
        (Json::Object(_), Json::Object(_)) => numeric::fields(own, claimed).try_for_each(|(name, own, claimed)| {
            let path = format!("{path}.{}", name.chars().take(40).collect::<String>());
            match (own, claimed) {
                (Some(own), Some(claimed)) => values(&path, own, claimed, visit),
                (Some(_), None) => Err(format!("{path}: expected, not claimed")),
                (None, _) => Err(format!("{path}: claimed, not expected")),
            }
        }),
        (own, claimed) if own == claimed => Ok(()),
        (own, claimed) => Err(numeric::unlike(path, own, claimed)),
    }
}

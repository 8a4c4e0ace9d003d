//! When two results agree. Every comparison is symmetric, a pure function of the bytes, and names the first difference.

use regex::bytes::{Regex, RegexBuilder};
use tribunal_events::{Comparator, SequentialTest};

use crate::{
    image,
    norm::Norm,
    numeric, samples,
    sequential::{Sample, Tally},
    topk::Topk,
    toploc::Toploc,
};

/// Bytes of one file that are read as numbers or pixels; larger files compare byte for byte.
pub(crate) const PARSED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a comparison found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// The two agree.
    Agree,
    /// They do not; the first difference, "line 3: expected 17, claimed 18".
    Differ(String),
    /// Nobody can tell: more than what is accepted, less than what convicts, or too few samples; what there is.
    Between(String),
    /// The comparator itself cannot be used, whatever the bytes.
    Unusable(String),
}

/// What one file of a result says: everything, or its part of what all files say together.
pub(crate) enum Examined {
    Outright(Comparison),
    Samples(Tally),
}

/// Compares our own bytes with claimed ones. The format follows from the extension of `name`.
///
/// Where the comparator counts samples, those of this one file decide; a verdict goes by the samples of all files together.
pub fn compare(comparator: &Comparator, name: &str, own: &[u8], claimed: &[u8]) -> Comparison {
    match examine(comparator, name, own, claimed) {
        Examined::Outright(comparison) => comparison,
        Examined::Samples(tally) => decide(comparator, &tally),
    }
}

/// What the samples of a result say together.
pub(crate) fn decide(comparator: &Comparator, tally: &Tally) -> Comparison {
    match test(comparator) {
        Some(test) => tally.decide(test),
        None => Comparison::Agree,
    }
}

/// The test over samples, where the comparator has one.
pub(crate) const fn test(comparator: &Comparator) -> Option<&SequentialTest> {
    match comparator {
        Comparator::Norm { test, .. } | Comparator::Topk { test, .. } | Comparator::Toploc { test, .. } => Some(test),
        Comparator::Exact | Comparator::Numeric { .. } | Comparator::Image { .. } | Comparator::IgnoreLines(_) => None,
    }
}

pub(crate) fn examine(comparator: &Comparator, name: &str, own: &[u8], claimed: &[u8]) -> Examined {
    if own == claimed && test(comparator).is_none() {
        return Examined::Outright(Comparison::Agree);
    }
    let unusable = |problem: &str| Examined::Outright(Comparison::Unusable(problem.into()));
    let found = match comparator {
        Comparator::Exact => Comparison::Differ(first_difference(own, claimed)),
        Comparator::Numeric { relative, absolute, ulps } => {
            let (Some(relative), Some(absolute)) = (numeric::decimal(relative), numeric::decimal(absolute)) else {
                return unusable("a tolerance is no decimal number");
            };
            numeric::compare(&numeric::Tolerance { relative, absolute, ulps: *ulps }, name, own, claimed)
        }
        Comparator::Image { psnr_db_min, ssim_min } => {
            let least = if ssim_min.is_empty() {
                numeric::decimal(psnr_db_min).map(image::Least::PsnrDb)
            } else {
                numeric::decimal(ssim_min).map(image::Least::Ssim)
            };
            let Some(least) = least else { return unusable("the least similarity is no decimal number") };
            image::compare(least, own, claimed)
        }
        Comparator::IgnoreLines(patterns) => {
            match patterns.iter().map(|text| pattern(text)).collect::<Result<Vec<_>, _>>() {
                Ok(patterns) => compare_lines(&patterns, own, claimed).map_or(Comparison::Agree, Comparison::Differ),
                Err(problem) => Comparison::Unusable(problem),
            }
        }
        Comparator::Norm { metric, accept, reject, .. } => match Norm::new(*metric, accept, reject) {
            Some(norm) => return by_rows(name, own, claimed, |row, own, claimed| norm.judge(row, own, claimed)),
            None => return unusable("a band is no decimal number"),
        },
        Comparator::Topk { over, k, accept_overlap, reject_overlap, .. } => {
            let [k, accept_overlap, reject_overlap] =
                [*k, *accept_overlap, *reject_overlap].map(|count| count as usize);
            let topk = Topk { over: *over, k, accept_overlap, reject_overlap };
            return by_rows(name, own, claimed, |row, own, claimed| topk.judge(row, own, claimed));
        }
        Comparator::Toploc { topk, batch, accept, reject, .. } => match Toploc::new(*topk, *batch, accept, reject) {
            Some(toploc) => match toploc.samples(own, claimed) {
                Ok(tally) => return Examined::Samples(tally),
                // What is equal needs no reading.
                Err(_) if own == claimed => Comparison::Agree,
                Err(comparison) => comparison,
            },
            None => return unusable("an error is no decimal number"),
        },
    };
    Examined::Outright(found)
}

fn by_rows(name: &str, own: &[u8], claimed: &[u8], judge: impl Fn(&str, &[f64], &[f64]) -> Sample) -> Examined {
    // Equal files are all of samples that are the same, or of none where they cannot be read.
    match numeric::too_large(own, claimed) {
        Some(_) if own == claimed => return Examined::Outright(Comparison::Agree),
        Some(found) => return Examined::Outright(found),
        None => {}
    }
    let mut tally = Tally::default();
    match samples::rows(name, own, claimed, &mut |row, left, right| {
        tally.count(if own == claimed { Sample::Same } else { judge(row, left, right) });
    }) {
        Ok(()) => Examined::Samples(tally),
        Err(_) if own == claimed => Examined::Outright(Comparison::Agree),
        Err(difference) => Examined::Outright(Comparison::Differ(difference)),
    }
}

/// How good a claim is that agrees, 0 to 100, where the comparator tells: 100 times SSIM, rounded down.
pub(crate) fn grade(comparator: &Comparator, own: &[u8], claimed: &[u8]) -> Option<u8> {
    match comparator {
        Comparator::Image { ssim_min, .. } if !ssim_min.is_empty() => {
            // From -100 to 100; a cast rounds towards zero and stops at the ends.
            Some((image::similarity(own, claimed)? * 100.0).max(0.0) as u8)
        }
        _ => None,
    }
}

/// A regular expression of bounded size.
pub(crate) fn pattern(text: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(text).size_limit(1 << 20).dfa_size_limit(1 << 21).nest_limit(64).build();
    built.map_err(|error| {
        let last = error.to_string().lines().last().unwrap_or_default().trim().to_owned();
        format!("no regular expression: {last}")
    })
}

/// Lines without their line ends; a last line end starts no line.
pub(crate) fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = bytes.strip_suffix(b"\n").unwrap_or(bytes).split(|byte| *byte == b'\n');
    lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line)).take(if bytes.is_empty() { 0 } else { usize::MAX })
}

/// Text for a message: short, printable.
pub(crate) fn show(bytes: &[u8]) -> String {
    const SHOWN_MAX: usize = 60;
    match std::str::from_utf8(bytes) {
        Ok(text) => {
            let short: String = text.chars().take(SHOWN_MAX).collect();
            let more = if short.len() < text.len() { "…" } else { "" };
            let plain = !short.is_empty() && short.chars().all(|c| !c.is_control() && c != ' ');
            if plain { format!("{short}{more}") } else { format!("{short:?}{more}") }
        }
        Err(_) => {
            let short = &bytes[..bytes.len().min(16)];
            format!("0x{}{}", hex::encode(short), if short.len() < bytes.len() { "…" } else { "" })
        }
    }
}

/// Two lines that differ, from shortly before the place where they do, so that it can be shown.
fn around<'a>(own: &'a [u8], claimed: &'a [u8]) -> (usize, &'a [u8], &'a [u8]) {
    let alike = own.iter().zip(claimed).take_while(|(own, claimed)| own == claimed).count();
    if alike < 40 {
        return (0, own, claimed);
    }
    // Not inside a character.
    let from = (0..=alike - 20).rev().find(|from| own[*from] & 0xc0 != 0x80).unwrap_or(0);
    (from, &own[from..], &claimed[from..])
}

/// The first difference of bytes that are not equal: a line where both are text, else an offset.
pub(crate) fn first_difference(own: &[u8], claimed: &[u8]) -> String {
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).is_ok_and(|text| !text.contains('\0'));
    if text(own) && text(claimed) {
        let (mut own_lines, mut claimed_lines) = (lines(own), lines(claimed));
        let mut number = 0;
        loop {
            number += 1;
            match (own_lines.next(), claimed_lines.next()) {
                (Some(own), Some(claimed)) if own == claimed => {}
                (Some(own), Some(claimed)) => {
                    let (from, own, claimed) = around(own, claimed);
                    let from = if from == 0 { String::new() } else { format!(", from byte {from}") };
                    return format!("line {number}{from}: expected {}, claimed {}", show(own), show(claimed));
                }
                (Some(own), None) => return format!("line {number}: expected {}, claimed no such line", show(own)),
                (None, Some(claimed)) => {
                    return format!("line {number}: expected no such line, claimed {}", show(claimed));
                }
                (None, None) => break,
            }
        }
    }
    let at = own.iter().zip(claimed).position(|(own, claimed)| own != claimed);
    let byte = |bytes: &[u8], at: usize| bytes.get(at).map_or("the end".to_owned(), |byte| format!("0x{byte:02x}"));
    let at = at.unwrap_or_else(|| own.len().min(claimed.len()));
    format!("byte {at}: expected {}, claimed {}", byte(own, at), byte(claimed, at))
}

fn compare_lines(patterns: &[Regex], own: &[u8], claimed: &[u8]) -> Option<String> {
    let kept = |bytes| {
        let numbered = lines(bytes).enumerate();
        numbered.filter(|(_, line)| !patterns.iter().any(|pattern| pattern.is_match(line)))
    };
    let (mut own, mut claimed) = (kept(own), kept(claimed));
    loop {
        match (own.next(), claimed.next()) {
            (None, None) => return None,
            (Some((_, own)), Some((_, claimed))) if own == claimed => {}
            (Some((number, own)), Some((_, claimed))) => {
                return Some(format!("line {}: expected {}, claimed {}", number + 1, show(own), show(claimed)));
            }
            (Some((number, own)), None) => {
                return Some(format!("line {}: expected {}, claimed no such line", number + 1, show(own)));
            }
            (None, Some((number, claimed))) => {
                return Some(format!("claimed line {}: expected no such line, claimed {}", number + 1, show(claimed)));
            }
        }
    }
}

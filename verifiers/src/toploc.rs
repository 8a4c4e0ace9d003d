//! TOPLOC proofs against activations.
//!
//! Follows the released package toploc 0.1.6 (MIT; the paper is arXiv 2501.16007) in what is hashed and measured: `ndd.cpp`
//! for the arithmetic modulo 65,497, `poly.cpp` for proofs and errors. A proof is the modulus that keeps the top indices
//! apart, then `topk` coefficients, all 16 bits big-endian; it is evaluated at the verifier's own top indices, each first
//! reduced by the proof's modulus, and gives bfloat16 bits. Where the exponents differ that is a mismatch; of the others the
//! mantissas' differences are averaged, and of those sorted the one at half their number is the median. All three are errors:
//! larger is worse, as in the package's code and unlike its README's `exp_intersections`. Where every exponent differs, mean
//! and median are 2^64, as there.
//!
//! What is defined here and not there: of equal magnitudes the first index counts, NaN is below everything; a proof with a
//! modulus of 0 (the null proof that the package writes where building one failed) is far, and so is one of another length.
//! One proof is one sample. So many proofs that checking them would take more than a few seconds (`topk`² × proofs above 2^31)
//! are not compared at all.
//!
//! A file is either proofs, JSON: a list of base64 text as `build_proofs_base64` gives, or activations, `.safetensors`: one
//! tensor of BF16, tokens by width, that are cut into pieces of `batch` tokens (`skip_prefill`). The content says which, not
//! the name. Proofs and activations are compared as above, whichever side is which. Two files of activations are each made
//! into proofs and held against the other, the worse of the two counting; two files of proofs that are not equal tell
//! nobody anything, for proofs are measured at activations alone.

use tribunal_events::ToplocErrors;

use crate::{
    comparator::Comparison,
    json::{self, Json},
    numeric::{self, arrays},
    sequential::{Sample, Tally},
    topk::largest,
};

const PRIME: u64 = 65_497;
/// Steps that all proofs of a file may take, `topk`² each: a few seconds.
const STEPS_MAX: usize = 1 << 31;

/// What the comparator of that name asks for.
pub(crate) struct Toploc {
    topk: usize,
    batch: usize,
    accept: Errors,
    reject: Errors,
}

/// Larger is worse.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Errors {
    exp_mismatches: u32,
    mant_err_mean: f64,
    mant_err_median: f64,
}

impl Errors {
    fn within(&self, most: &Self) -> bool {
        self.exp_mismatches <= most.exp_mismatches
            && self.mant_err_mean <= most.mant_err_mean
            && self.mant_err_median <= most.mant_err_median
    }
}

/// One side of a comparison.
enum Side {
    Proofs(Vec<Vec<u8>>),
    /// bfloat16 bits, one list a piece.
    Activations(Vec<Vec<u16>>),
}

impl Toploc {
    pub(crate) fn new(topk: u32, batch: u32, accept: &ToplocErrors, reject: &ToplocErrors) -> Option<Self> {
        let errors = |errors: &ToplocErrors| {
            Some(Errors {
                exp_mismatches: errors.exp_mismatches,
                mant_err_mean: numeric::decimal(&errors.mant_err_mean)?,
                mant_err_median: numeric::decimal(&errors.mant_err_median)?,
            })
        };
        let (accept, reject) = (errors(accept)?, errors(reject)?);
        Some(Self { topk: topk as usize, batch: batch as usize, accept, reject })
    }

    /// The samples of two files, or what is to be said at once.
    pub(crate) fn samples(&self, own: &[u8], claimed: &[u8]) -> Result<Tally, Comparison> {
        if let Some(found) = numeric::too_large(own, claimed) {
            return Err(found);
        }
        let differ = |whose: &'static str| move |problem: String| Comparison::Differ(format!("{whose} {problem}"));
        let own = self.read(own).map_err(differ("what is expected"))?;
        let claimed = self.read(claimed).map_err(differ("what is claimed"))?;
        let pieces = [&own, &claimed].map(|side| match side {
            Side::Proofs(_) => 0,
            Side::Activations(pieces) => pieces.len(),
        });
        let pieces = pieces[0].max(pieces[1]);
        if pieces.saturating_mul(self.topk * self.topk) > STEPS_MAX {
            return Err(Comparison::Unusable(format!("{pieces} proofs of {} are more than are checked", self.topk)));
        }
        let mut tally = Tally::default();
        let counts = |own: usize, claimed: usize| match own == claimed {
            true => Ok(()),
            false => Err(Comparison::Differ(format!("expected {own} pieces, claimed {claimed}"))),
        };
        match (&own, &claimed) {
            (Side::Proofs(own), Side::Proofs(claimed)) if own == claimed => {
                own.iter().for_each(|_| tally.count(Sample::Same));
            }
            (Side::Proofs(_), Side::Proofs(_)) => {
                return Err(Comparison::Between("two sides of proofs and no activations to hold them against".into()));
            }
            (Side::Activations(pieces), Side::Proofs(proofs)) | (Side::Proofs(proofs), Side::Activations(pieces)) => {
                counts(pieces.len(), proofs.len())?;
                for (index, (piece, proof)) in pieces.iter().zip(proofs).enumerate() {
                    tally.count(self.judge(index, &[self.errors(piece, proof)]));
                }
            }
            (Side::Activations(own), Side::Activations(claimed)) => {
                counts(own.len(), claimed.len())?;
                for (index, (own, claimed)) in own.iter().zip(claimed).enumerate() {
                    if own == claimed {
                        tally.count(Sample::Same);
                        continue;
                    }
                    let held = |piece: &[u16], other: &[u16]| match self.prove(other) {
                        Some(proof) => self.errors(piece, &proof),
                        None => Err("has no top to prove".to_owned()),
                    };
                    tally.count(self.judge(index, &[held(own, claimed), held(claimed, own)]));
                }
            }
        }
        Ok(tally)
    }

    fn judge(&self, index: usize, found: &[Result<Errors, String>]) -> Sample {
        let (mut near, mut far) = (true, None);
        let mut open = String::new();
        for errors in found {
            match errors {
                Ok(errors) => {
                    let Errors { exp_mismatches, mant_err_mean, mant_err_median } = errors;
                    let what = format!(
                        "proof {index}: exp_mismatches {exp_mismatches}, mant_err_mean {mant_err_mean}, \
                         mant_err_median {mant_err_median}"
                    );
                    if !errors.within(&self.accept) && near {
                        (near, open) = (false, what.clone());
                    }
                    if !errors.within(&self.reject) && far.is_none() {
                        far = Some(what);
                    }
                }
                Err(problem) => far = far.or_else(|| Some(format!("proof {index} {problem}"))),
            }
        }
        match far {
            Some(what) => Sample::Far(what),
            None if near => Sample::Near,
            None => Sample::Open(open),
        }
    }

    fn read(&self, bytes: &[u8]) -> Result<Side, String> {
        if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
            let text = std::str::from_utf8(bytes).map_err(|_| "is no UTF-8")?;
            let Json::List(items) = json::parse(text).map_err(|problem| format!("is no JSON: {problem}"))? else {
                return Err("is no list of proofs".into());
            };
            let proof = |(index, item): (usize, &Json)| match item {
                Json::Text(text) => base64(text).ok_or_else(|| format!("has no base64 at [{index}]")),
                other => Err(format!("has {} at [{index}], not a proof", other.kind())),
            };
            return items.iter().enumerate().map(proof).collect::<Result<_, _>>().map(Side::Proofs);
        }
        let (tokens, bits) = arrays::brain_floats(bytes)?;
        if tokens == 0 || bits.is_empty() {
            return Err("has no activations".into());
        }
        let width = bits.len() / tokens;
        // A piece without a width has no top; one of more tokens than there are is all of them.
        let piece = width.saturating_mul(self.batch).clamp(1, bits.len());
        Ok(Side::Activations(bits.chunks(piece).map(<[u16]>::to_vec).collect()))
    }

    fn top(&self, piece: &[u16]) -> Vec<usize> {
        let magnitudes: Vec<f64> = piece.iter().map(|bits| f64::from(float(bits & 0x7fff))).collect();
        largest(&magnitudes, self.topk)
    }

    /// `verify_proofs` for one proof.
    fn errors(&self, piece: &[u16], proof: &[u8]) -> Result<Errors, String> {
        if proof.len() != 2 + 2 * self.topk {
            return Err(format!("has {} bytes, not {}", proof.len(), 2 + 2 * self.topk));
        }
        let words: Vec<u16> = proof.chunks_exact(2).map(|word| u16::from_be_bytes([word[0], word[1]])).collect();
        let (modulus, coefficients) = (usize::from(words[0]), &words[1..]);
        if modulus == 0 {
            return Err("is null: building it failed".into());
        }
        let top = self.top(piece);
        if top.len() < self.topk {
            return Err(format!("is for {} activations, fewer than {}", top.len(), self.topk));
        }
        let (mut exp_mismatches, mut apart) = (0, Vec::new());
        for index in top {
            let (own, proven) = (piece[index], evaluate(coefficients, (index % modulus) as u64));
            if own & 0x7f80 == proven & 0x7f80 {
                apart.push((own & 0x7f).abs_diff(proven & 0x7f));
            } else {
                exp_mismatches += 1;
            }
        }
        apart.sort_unstable();
        let none = 18_446_744_073_709_551_616.0;
        let median = apart.get(apart.len() / 2).map_or(none, |median| f64::from(*median));
        let sum: u64 = apart.iter().map(|apart| u64::from(*apart)).sum();
        let mean = if apart.is_empty() { none } else { sum as f64 / apart.len() as f64 };
        Ok(Errors { exp_mismatches, mant_err_mean: mean, mant_err_median: median })
    }

    /// `ProofPoly.from_points` over the top of a piece; nothing where it has none, or no modulus keeps the indices apart.
    fn prove(&self, piece: &[u16]) -> Option<Vec<u8>> {
        let top = self.top(piece);
        if top.len() < self.topk {
            return None;
        }
        // Which modulus last saw each remainder.
        let mut seen = vec![0; PRIME as usize];
        let modulus = (1..=PRIME as usize).rev().find(|modulus| {
            top.iter().all(|index| std::mem::replace(&mut seen[index % modulus], *modulus) != *modulus)
        })?;
        let x: Vec<u64> = top.iter().map(|index| (index % modulus) as u64).collect();
        let y: Vec<u64> = top.iter().map(|index| u64::from(piece[*index])).collect();
        let words = std::iter::once(modulus as u64).chain(interpolate(&x, &y));
        Some(words.flat_map(|word| (word as u16).to_be_bytes()).collect())
    }
}

/// A bfloat16 as a float.
fn float(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// `evaluate_polynomial`: coefficients ascending, by Horner's rule.
fn evaluate(coefficients: &[u16], x: u64) -> u16 {
    let value = coefficients.iter().rev().fold(0, |value, coefficient| (value * x + u64::from(*coefficient)) % PRIME);
    value as u16
}

/// `compute_newton_coefficients`: the polynomial of least degree through all points, coefficients ascending.
fn interpolate(x: &[u64], y: &[u64]) -> Vec<u64> {
    let minus = |a: u64, b: u64| (a + PRIME - b % PRIME) % PRIME;
    // 1 / i = −(p div i) / (p mod i), from 1 upwards.
    let mut inverses = vec![0, 1];
    for i in 2..PRIME {
        inverses.push((PRIME - PRIME / i) * inverses[(PRIME % i) as usize] % PRIME);
    }
    let mut differences: Vec<u64> = y.iter().map(|value| value % PRIME).collect();
    for k in 1..x.len() {
        for i in (k..x.len()).rev() {
            differences[i] =
                minus(differences[i], differences[i - 1]) * inverses[minus(x[i], x[i - k]) as usize] % PRIME;
        }
    }
    let (mut coefficients, mut factor) = (vec![0; x.len()], vec![0; x.len()]);
    factor[0] = 1;
    for (i, difference) in differences.iter().enumerate() {
        for (coefficient, factor) in coefficients.iter_mut().zip(&factor[..=i]) {
            *coefficient = (*coefficient + difference * factor) % PRIME;
        }
        if i + 1 < x.len() {
            for k in (0..=i + 1).rev() {
                let shifted = if k == 0 { 0 } else { factor[k - 1] };
                factor[k] = (shifted + factor[k] * minus(0, x[i])) % PRIME;
            }
        }
    }
    coefficients
}

/// RFC 4648 with padding.
fn base64(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(u32::from(byte - b'A')),
        b'a'..=b'z' => Some(u32::from(byte - b'a') + 26),
        b'0'..=b'9' => Some(u32::from(byte - b'0') + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let plain = text.strip_suffix("==").or_else(|| text.strip_suffix('=')).unwrap_or(text).as_bytes();
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let mut bytes = Vec::with_capacity(plain.len() / 4 * 3 + 2);
    for four in plain.chunks(4) {
        let value = four.iter().try_fold(0, |value, byte| Some(value << 6 | digit(*byte)?))?;
        let value = value << (6 * (4 - four.len()));
        bytes.extend_from_slice(&value.to_be_bytes()[1..four.len()]);
    }
    Some(bytes)
}

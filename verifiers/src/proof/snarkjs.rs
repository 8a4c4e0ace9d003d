//! snarkjs' own JSON: `verification_key.json`, `proof.json`, `public.json`.
//!
//! Numbers are decimal strings; a point of G1 is `[x, y, "1"]`, one of G2 `[[x0, x1], [y0, y1], ["1", "0"]]` with the real
//! part first.

use ark_ec::{
    AffineRepr as _,
    pairing::Pairing,
    short_weierstrass::{Affine, SWCurveConfig},
};
use ark_ff::{BigInteger as _, Field, PrimeField};

use crate::json::{self, Json};

/// Bytes of one of these files at most.
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// Public inputs at most.
const INPUTS_MAX: usize = 4096;

/// A pairing whose groups are in short Weierstrass form, as snarkjs writes them.
pub(crate) trait SnarkCurve:
    Pairing<G1Affine = Affine<Self::Config1>, G2Affine = Affine<Self::Config2>>
{
    type Config1: SWCurveConfig<BaseField = Self::Base, ScalarField = Self::ScalarField>;
    type Config2: SWCurveConfig<BaseField = Self::Base2, ScalarField = Self::ScalarField>;
    type Base: PrimeField;
    type Base2: Field<BasePrimeField = Self::Base>;
    /// Names that mean this curve.
    const NAMES: &'static [&'static str];
}

impl SnarkCurve for ark_bn254::Bn254 {
    type Config1 = ark_bn254::g1::Config;
    type Config2 = ark_bn254::g2::Config;
    type Base = ark_bn254::Fq;
    type Base2 = ark_bn254::Fq2;
    const NAMES: &'static [&'static str] = &["bn128", "bn254"];
}

impl SnarkCurve for ark_bls12_381::Bls12_381 {
    type Config1 = ark_bls12_381::g1::Config;
    type Config2 = ark_bls12_381::g2::Config;
    type Base = ark_bls12_381::Fq;
    type Base2 = ark_bls12_381::Fq2;
    const NAMES: &'static [&'static str] = &["bls12381", "bls12-381"];
}

pub(crate) struct Key<E: SnarkCurve> {
    pub(crate) alpha: E::G1Affine,
    pub(crate) beta: E::G2Affine,
    pub(crate) gamma: E::G2Affine,
    pub(crate) delta: E::G2Affine,
    pub(crate) ic: Vec<E::G1Affine>,
    pub(crate) digest: [u8; 32],
}

pub(crate) struct Proof<E: SnarkCurve> {
    pub(crate) a: E::G1Affine,
    pub(crate) b: E::G2Affine,
    pub(crate) c: E::G1Affine,
    pub(crate) public: Vec<E::ScalarField>,
    /// Of proof and public inputs.
    pub(crate) digest: [u8; 32],
}

fn read(bytes: &[u8]) -> Result<Json, String> {
    if bytes.len() > BYTES_MAX {
        return Err(format!("{} bytes are more than {BYTES_MAX}", bytes.len()));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "is no UTF-8")?;
    json::parse(text).map_err(|problem| format!("is no JSON: {problem}"))
}

fn field<'a>(object: &'a Json, name: &str) -> Result<&'a Json, String> {
    object.get(name).ok_or(format!("has no {name}"))
}

fn expect_word(object: &Json, name: &str, words: &[&str]) -> Result<(), String> {
    match field(object, name)? {
        Json::Text(text) if words.contains(&text.as_str()) => Ok(()),
        Json::Text(text) => Err(format!("{name} is {:?}, not {}", text.chars().take(40).collect::<String>(), words[0])),
        other => Err(format!("{name} is {}, not a string", other.kind())),
    }
}

/// A canonical decimal string below the field's modulus.
fn number<F: PrimeField>(name: &str, value: &Json) -> Result<F, String> {
    let Json::Text(text) = value else { return Err(format!("{name} is {}, not a decimal string", value.kind())) };
    let plain = !text.is_empty()
        && text.len() <= 120
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'));
    if !plain {
        return Err(format!("{name} is no decimal number without sign and leading zeros"));
    }
    // Taken modulo the modulus digit by digit; only a number below it comes back as the same digits.
    let ten = F::from(10u64);
    let value = text.bytes().fold(F::zero(), |value, digit| value * ten + F::from(u64::from(digit - b'0')));
    if value.into_bigint().to_string() == *text { Ok(value) } else { Err(format!("{name} is at or above the modulus")) }
}

fn list<'a>(name: &str, value: &'a Json, length: usize) -> Result<&'a [Json], String> {
    match value {
        Json::List(items) if items.len() == length => Ok(items),
        Json::List(items) => Err(format!("{name} has {} entries, not {length}", items.len())),
        other => Err(format!("{name} is {}, not a list", other.kind())),
    }
}

fn is_text(value: &Json, expected: &str) -> bool {
    matches!(value, Json::Text(text) if text == expected)
}

fn checked<C: SWCurveConfig>(name: &str, point: Affine<C>) -> Result<Affine<C>, String> {
    // arkworks writes infinity as (0, 0), so those coordinates would pass for a point of the curve.
    if point.is_zero() {
        return Err(format!("{name} is not on the curve"));
    }
    if !point.is_on_curve() {
        return Err(format!("{name} is not on the curve"));
    }
    if !point.is_in_correct_subgroup_assuming_on_curve() {
        return Err(format!("{name} is not in the subgroup of prime order"));
    }
    Ok(point)
}

fn g1<E: SnarkCurve>(name: &str, value: &Json) -> Result<E::G1Affine, String> {
    let [x, y, z] = list(name, value, 3)? else { return Err(format!("{name} is no point")) };
    if !is_text(z, "1") {
        return Err(format!("{name} is infinity or not affine: its last coordinate is not \"1\""));
    }
    checked(name, Affine::new_unchecked(number(name, x)?, number(name, y)?))
}

fn g2<E: SnarkCurve>(name: &str, value: &Json) -> Result<E::G2Affine, String> {
    let [x, y, z] = list(name, value, 3)? else { return Err(format!("{name} is no point")) };
    let pair = |value: &Json| -> Result<E::Base2, String> {
        let [real, other] = list(name, value, 2)? else { return Err(format!("{name} is no point")) };
        let parts = [number::<E::Base>(name, real)?, number::<E::Base>(name, other)?];
        E::Base2::from_base_prime_field_elems(parts).ok_or(format!("{name} is no point"))
    };
    let [one, zero] = list(name, z, 2)? else { return Err(format!("{name} is no point")) };
    if !is_text(one, "1") || !is_text(zero, "0") {
        return Err(format!("{name} is infinity or not affine: its last coordinate is not [\"1\", \"0\"]"));
    }
    checked(name, Affine::new_unchecked(pair(x)?, pair(y)?))
}

impl<E: SnarkCurve> Key<E> {
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, String> {
        let key = read(bytes)?;
        expect_word(&key, "protocol", &["groth16"])?;
        expect_word(&key, "curve", E::NAMES)?;
        let Json::List(points) = field(&key, "IC")? else { return Err("IC is no list".into()) };
        if points.is_empty() || points.len() > INPUTS_MAX + 1 {
            return Err(format!("IC has between 1 and {} points, not {}", INPUTS_MAX + 1, points.len()));
        }
        let inputs = (points.len() - 1).to_string();
        if !matches!(field(&key, "nPublic")?, Json::Number(text) if *text == inputs) {
            return Err(format!("nPublic is not {inputs}, the number of points in IC less one"));
        }
        // A public input that no constraint uses leaves infinity in IC; elsewhere infinity would undo the proof.
        let infinity = |point: &Json| {
            matches!(point, Json::List(parts) if parts.len() == 3
                && is_text(&parts[0], "0") && is_text(&parts[1], "1") && is_text(&parts[2], "0"))
        };
        let ic = points.iter().enumerate().map(|(index, point)| {
            if infinity(point) { Ok(E::G1Affine::zero()) } else { g1::<E>(&format!("IC[{index}]"), point) }
        });
        Ok(Self {
            alpha: g1::<E>("vk_alpha_1", field(&key, "vk_alpha_1")?)?,
            beta: g2::<E>("vk_beta_2", field(&key, "vk_beta_2")?)?,
            gamma: g2::<E>("vk_gamma_2", field(&key, "vk_gamma_2")?)?,
            delta: g2::<E>("vk_delta_2", field(&key, "vk_delta_2")?)?,
            ic: ic.collect::<Result<_, _>>()?,
            digest: *blake3::hash(bytes).as_bytes(),
        })
    }
}

impl<E: SnarkCurve> Proof<E> {
    /// Reads a proof and its public inputs for a key.
    pub(crate) fn read(proof_bytes: &[u8], public_bytes: &[u8], key: &Key<E>) -> Result<Self, String> {
        let proof = read(proof_bytes).map_err(|problem| format!("the proof {problem}"))?;
        expect_word(&proof, "protocol", &["groth16"])?;
        expect_word(&proof, "curve", E::NAMES)?;
        let public = read(public_bytes).map_err(|problem| format!("the list of public inputs {problem}"))?;
        let Json::List(inputs) = public else { return Err("the public inputs are no list".into()) };
        if inputs.len() + 1 != key.ic.len() {
            return Err(format!("{} public inputs are given, the key has {}", inputs.len(), key.ic.len() - 1));
        }
        let inputs = inputs.iter().enumerate();
        let mut hasher = blake3::Hasher::new();
        hasher.update(blake3::hash(proof_bytes).as_bytes()).update(blake3::hash(public_bytes).as_bytes());
        Ok(Self {
            a: g1::<E>("pi_a", field(&proof, "pi_a")?)?,
            b: g2::<E>("pi_b", field(&proof, "pi_b")?)?,
            c: g1::<E>("pi_c", field(&proof, "pi_c")?)?,
            public: inputs
                .map(|(index, input)| number(&format!("public input {index}"), input))
                .collect::<Result<_, _>>()?,
            digest: *hasher.finalize().as_bytes(),
        })
    }

    /// The public inputs, 32 bytes big-endian each.
    pub(crate) fn words(&self) -> Vec<[u8; 32]> {
        let word = |input: &E::ScalarField| {
            let (mut word, bytes) = ([0; 32], input.into_bigint().to_bytes_be());
            word[32 - bytes.len()..].copy_from_slice(&bytes);
            word
        };
        self.public.iter().map(word).collect()
    }
}

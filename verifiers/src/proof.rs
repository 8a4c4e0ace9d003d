//! Groth16 proofs in snarkjs' JSON, on bn254 and bls12-381.
//!
//! Source: Groth 2016, "On the Size of Pairing-based Non-interactive Arguments"; what a proof must pass before the pairing
//! is in `snarkjs`. Groth16 proofs can be rewritten by anybody, so the proof's digest identifies nothing.
//!
//! **Invariant:** no point reaches a pairing unless its coordinates are below the modulus, it is on the curve, in the
//! subgroup of prime order, and not infinity; no public input is at or above the group's order.

use ark_bls12_381::Bls12_381;
use ark_bn254::Bn254;
use ark_ec::{CurveGroup as _, VariableBaseMSM as _, short_weierstrass::Projective};
use ark_ff::{PrimeField as _, Zero as _};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;
use serde_json::json;
use tribunal_events::{ContentAddress, VerdictKind};

use crate::{
    BadRequest, ProofMethod, Reference, Verdict,
    reexecution::claimed_evidence,
    service::{Check, Fetched},
    verdict::Evidence,
};

mod snarkjs;

use snarkjs::{Key, Proof, SnarkCurve};

/// A curve with pairing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// BN254, also called bn128 and alt_bn128.
    Bn254,
    /// BLS12-381.
    Bls12_381,
}

/// Why a proof does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofProblem {
    /// The key that the deal pins is none; nobody can be blamed.
    #[error("verification key: {0}")]
    Key(String),
    /// The proof or its public inputs are none.
    #[error("{0}")]
    Malformed(String),
    /// The pairing says no.
    #[error("the proof does not hold for these public inputs")]
    Invalid,
}

impl ProofProblem {
    const fn code(&self) -> (VerdictKind, &'static str) {
        match self {
            Self::Key(_) => (VerdictKind::Inconclusive, "key-malformed"),
            Self::Malformed(_) => (VerdictKind::Invalid, "proof-malformed"),
            Self::Invalid => (VerdictKind::Invalid, "proof-invalid"),
        }
    }
}

pub(crate) fn verify(check: &Check<'_>, asked: &ProofMethod) -> Result<Verdict, BadRequest> {
    let curve = match (asked.system.as_str(), asked.curve.as_str()) {
        ("groth16", "bn254") => Curve::Bn254,
        ("groth16", "bls12-381") => Curve::Bls12_381,
        (system, curve) => {
            let evidence = Evidence::new(format!("proof/{system}"));
            let detail = format!("{system} {curve}").trim().to_owned();
            let detail = format!("this verifier does not check {detail} proofs yet");
            return Ok(Verdict::inconclusive("unsupported-proof-system", detail, evidence));
        }
    };
    let mut evidence = Evidence::new(format!("proof/groth16-{}", asked.curve));
    let bind: Vec<_> = asked.bind.iter().map(|bind| json!({ "input": bind.input, "to": bind.to })).collect();
    evidence.set("bind", bind);
    if let Some(deal) = check.request.deal_id {
        evidence.set("deal_id", deal.to_string());
    }
    if let Some(claim) = &check.request.claim {
        claimed_evidence(claim, &mut evidence);
    }
    let parts = [("verification_key", &asked.verification_key), ("proof", &asked.proof), ("public", &asked.public)];
    let (mut bytes, mut missing) = (Vec::new(), Vec::new());
    for (name, reference) in parts {
        let Some(reference) = reference else {
            return Ok(Verdict::new(
                VerdictKind::Invalid,
                "proof-malformed",
                format!("no {name} is claimed"),
                evidence,
            ));
        };
        match check.fetch(reference) {
            Fetched::Bytes(found) => {
                evidence.set(name, ContentAddress::of(&found).to_string());
                bytes.push(found);
            }
            Fetched::Unavailable(problem) => {
                evidence.set(name, reference.to_string());
                missing.push(format!("{name}: {problem}"));
            }
        }
    }
    let [key, proof, public] = bytes.as_slice() else {
        return Ok(Verdict::inconclusive("artifact-unavailable", missing.join("; "), evidence));
    };
    let checked = match curve {
        Curve::Bn254 => check_one::<Bn254>(key, proof, public),
        Curve::Bls12_381 => check_one::<Bls12_381>(key, proof, public),
    };
    let words = match checked {
        Ok(words) => words,
        Err(problem) => {
            let (verdict, code) = problem.code();
            return Ok(Verdict::new(verdict, code, problem.to_string(), evidence));
        }
    };
    for bind in &asked.bind {
        let expected = match bound_value(check, &bind.to)? {
            Ok(expected) => expected,
            Err(problem) => return Ok(Verdict::inconclusive("artifact-unavailable", problem, evidence)),
        };
        for (index, half) in [(bind.input as usize, &expected[..16]), (bind.input as usize + 1, &expected[16..])] {
            let mut word = [0; 32];
            word[16..].copy_from_slice(half);
            match words.get(index) {
                Some(found) if *found == word => {}
                Some(found) => {
                    let (expected, found) = (hex::encode(word), hex::encode(found));
                    let detail =
                        format!("public input {index} must be the {} half 0x{expected}, it is 0x{found}", bind.to);
                    return Ok(Verdict::new(VerdictKind::Invalid, "proof-binding", detail, evidence));
                }
                None => {
                    let detail = format!("public input {index} must be bound to the {}, there is none", bind.to);
                    return Ok(Verdict::new(VerdictKind::Invalid, "proof-binding", detail, evidence));
                }
            }
        }
    }
    let detail = "the proof holds, and its public inputs are bound as asked";
    Ok(Verdict::new(VerdictKind::Valid, "ok", detail, evidence))
}

/// The 32 bytes that two public inputs must hold; the reason where they cannot be found out.
fn bound_value(check: &Check<'_>, to: &str) -> Result<Result<[u8; 32], String>, BadRequest> {
    if to == "deal-id" {
        let deal = check.request.deal_id.ok_or_else(|| BadRequest::new("deal_id", "is missing"))?;
        return Ok(Ok(*deal.bytes()));
    }
    let outputs = check.request.claim.as_ref().and_then(|claim| claim.outputs.as_deref()).unwrap_or_default();
    let [output] = outputs else {
        let problem = format!("a proof is bound to one output file, not {}", outputs.len());
        return Err(BadRequest::new("claim.outputs", problem));
    };
    match output.bytes.reference() {
        Reference::Address(ContentAddress::Blake3(digest)) => Ok(Ok(digest)),
        other => match check.fetch(&other) {
            Fetched::Bytes(bytes) => Ok(Ok(*blake3::hash(&bytes).as_bytes())),
            Fetched::Unavailable(problem) => Ok(Err(problem)),
        },
    }
}

/// Public inputs as 32 bytes, big-endian.
type Words = Vec<[u8; 32]>;

fn check_one<E: SnarkCurve>(key: &[u8], proof: &[u8], public: &[u8]) -> Result<Words, ProofProblem> {
    let key = Key::<E>::read(key).map_err(ProofProblem::Key)?;
    let proof = Proof::<E>::read(proof, public, &key).map_err(ProofProblem::Malformed)?;
    if holds(&key, &[&proof]) { Ok(proof.words()) } else { Err(ProofProblem::Invalid) }
}

/// Checks many proofs for one key together; each entry is a proof and its public inputs, in snarkjs' JSON.
///
/// A random linear combination with 128-bit factors that follow from all the proofs (Fiat and Shamir): N + 3 Miller loops
/// and one final exponentiation for N proofs. Where it fails, halves find the bad ones. A wrong proof passes with
/// probability 2^-128.
pub fn verify_batch(curve: Curve, key: &[u8], proofs: &[(&[u8], &[u8])]) -> Vec<Result<(), ProofProblem>> {
    match curve {
        Curve::Bn254 => batch::<Bn254>(key, proofs),
        Curve::Bls12_381 => batch::<Bls12_381>(key, proofs),
    }
}

fn batch<E: SnarkCurve>(key: &[u8], proofs: &[(&[u8], &[u8])]) -> Vec<Result<(), ProofProblem>> {
    let key = match Key::<E>::read(key) {
        Ok(key) => key,
        Err(problem) => return vec![Err(ProofProblem::Key(problem)); proofs.len()],
    };
    let read = proofs.iter().map(|(proof, public)| Proof::<E>::read(proof, public, &key));
    let read: Vec<_> = read.map(|proof| proof.map_err(ProofProblem::Malformed)).collect();
    let sound: Vec<(usize, &Proof<E>)> =
        read.iter().enumerate().filter_map(|(index, proof)| Some((index, proof.as_ref().ok()?))).collect();
    let mut bad = Vec::new();
    bisect(&key, &sound, &mut bad);
    let answer = |(index, proof): (usize, &Result<Proof<E>, ProofProblem>)| match proof {
        Err(problem) => Err(problem.clone()),
        Ok(_) if bad.contains(&index) => Err(ProofProblem::Invalid),
        Ok(_) => Ok(()),
    };
    read.iter().enumerate().map(answer).collect()
}

fn bisect<E: SnarkCurve>(key: &Key<E>, proofs: &[(usize, &Proof<E>)], bad: &mut Vec<usize>) {
    let all: Vec<&Proof<E>> = proofs.iter().map(|(_, proof)| *proof).collect();
    if all.is_empty() || holds(key, &all) {
        return;
    }
    if let [(index, _)] = proofs {
        bad.push(*index);
        return;
    }
    let (left, right) = proofs.split_at(proofs.len() / 2);
    bisect(key, left, bad);
    bisect(key, right, bad);
}

/// `Π e(rᵢAᵢ, Bᵢ) = e(α, β)^Σrᵢ · e(Σ rᵢ IC(xᵢ), γ) · e(Σ rᵢCᵢ, δ)`, as one product that must be 1. With one proof r is 1.
fn holds<E: SnarkCurve>(key: &Key<E>, proofs: &[&Proof<E>]) -> bool {
    let factors = factors(key, proofs);
    let mut lefts: Vec<E::G1Affine> = Vec::new();
    let mut rights: Vec<E::G2Affine> = Vec::new();
    // Sums of the factors times the public inputs: one for every point of IC, the first for the constant 1.
    let mut scalars = vec![E::ScalarField::zero(); key.ic.len()];
    let mut c = Projective::<E::Config1>::zero();
    for (proof, factor) in proofs.iter().zip(&factors) {
        lefts.push((proof.a * factor).into_affine());
        rights.push(proof.b);
        scalars[0] += factor;
        for (scalar, input) in scalars[1..].iter_mut().zip(&proof.public) {
            *scalar += *factor * input;
        }
        c += proof.c * factor;
    }
    let all = scalars[0];
    let Ok(inputs) = Projective::<E::Config1>::msm(&key.ic, &scalars) else { return false };
    let negated = [key.alpha * all, inputs, c].map(|point| (-point).into_affine());
    lefts.extend(negated);
    rights.extend([key.beta, key.gamma, key.delta]);
    let product: ark_ec::pairing::PairingOutput<E> = E::multi_pairing(lefts, rights);
    product.is_zero()
}

fn factors<E: SnarkCurve>(key: &Key<E>, proofs: &[&Proof<E>]) -> Vec<E::ScalarField> {
    let mut hasher = blake3::Hasher::new_derive_key("tribunal.v1 groth16 batch");
    hasher.update(key.digest.as_slice());
    for proof in proofs {
        hasher.update(proof.digest.as_slice());
    }
    let mut random = ChaCha20Rng::from_seed(*hasher.finalize().as_bytes());
    let factor = |index| match index {
        0 => E::ScalarField::from(1u64),
        _ => {
            let mut bytes = [0; 16];
            random.fill_bytes(&mut bytes);
            E::ScalarField::from_le_bytes_mod_order(&bytes)
        }
    };
    (0..proofs.len()).map(factor).collect()
}

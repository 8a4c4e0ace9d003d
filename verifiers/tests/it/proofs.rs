//! Groth16 proofs of the fixtures' circuits, and every way to spoil one.

use ark_bn254::{Bn254, Fr, G1Affine, G2Affine};
use ark_ff::{AdditiveGroup as _, BigInteger as _, Field as _, PrimeField as _};
use expect_test::expect;
use serde_json::{Value, json};
use tribunal_verifiers::{Curve, MemorySource, ProofProblem, verify_batch};

use crate::bench::{fixture_bytes, line, verify};

const CIRCUITS: [(&str, &str); 3] = [("product", "bn254"), ("membership", "bn128"), ("product-bls12-381", "bls12-381")];

/// The order of bn254's groups and the modulus of its points.
const R: &str = "21888242871839275222246405745257275088548364400416034343698204186575808495617";
const Q: &str = "21888242871839275222246405745257275088696311157297823662689037894645226208583";

struct Case {
    key: Value,
    proof: Value,
    public: Value,
    curve: &'static str,
    output: Vec<u8>,
}

fn case(circuit: &str, curve: &'static str) -> Case {
    let read =
        |name: &str| serde_json::from_slice(&fixture_bytes(&format!("circuits/{circuit}/{name}.json"))).expect("json");
    let output = fixture_bytes(&format!("circuits/{circuit}/output.txt"));
    Case { key: read("verification_key"), proof: read("proof"), public: read("public"), curve, output }
}

fn product() -> Case {
    case("product", "bn254")
}

fn word(public: &Value, index: usize) -> [u8; 16] {
    let text = public[index].as_str().expect("a decimal string");
    text.parse::<u128>().expect("128 bits").to_be_bytes()
}

/// The deal id that the proof is bound to.
fn deal_id(case: &Case) -> String {
    format!("0x{}{}", hex::encode(word(&case.public, 0)), hex::encode(word(&case.public, 1)))
}

impl Case {
    fn ask(&self, bind: &Value, deal_id: &str) -> String {
        let mut source = MemorySource::new();
        source.add_file("vk.json", self.key.to_string().into_bytes());
        source.add_file("proof.json", self.proof.to_string().into_bytes());
        source.add_file("public.json", self.public.to_string().into_bytes());
        source.add_file("output", self.output.clone());
        let request = json!({
            "deal_id": deal_id,
            "method": {
                "kind": "proof",
                "proof": {
                    "system": "groth16",
                    "curve": self.curve,
                    "verification_key": { "artifact": "vk.json" },
                    "proof": { "artifact": "proof.json" },
                    "public": { "artifact": "public.json" },
                },
                "bind": bind,
            },
            "claim": { "outputs": [{ "path": "/out/output.txt", "artifact": "output" }] },
        });
        line(&verify(&request, &source))
    }

    fn line(&self) -> String {
        self.ask(&json!([]), &deal_id(&product()))
    }

    fn with(mut self, edit: impl FnOnce(&mut Self)) -> String {
        edit(&mut self);
        self.line()
    }
}

fn bindings() -> Value {
    json!([{ "input": 0, "to": "deal-id" }, { "input": 2, "to": "output-digest" }])
}

#[test]
fn the_proofs_of_the_fixtures_hold_and_are_bound() {
    for (circuit, curve) in CIRCUITS {
        let case = case(circuit, curve);
        assert_eq!(
            case.ask(&bindings(), &deal_id(&case)),
            "valid ok: the proof holds, and its public inputs are bound as asked",
            "{circuit}"
        );
    }
}

#[test]
fn a_proof_bound_to_another_deal_or_output_is_invalid() {
    let mut case = product();
    let other = case.ask(&bindings(), &format!("0x{}", "11".repeat(32)));
    assert!(other.starts_with("invalid proof-binding: public input 0 must be the deal-id half 0x"), "{other}");
    let id = deal_id(&case);
    case.output.push(b'x');
    let other = case.ask(&bindings(), &id);
    assert!(other.starts_with("invalid proof-binding: public input 2 must be the output-digest half 0x"), "{other}");
    let beyond = case.ask(&json!([{ "input": 999, "to": "deal-id" }]), &id);
    expect!["invalid proof-binding: public input 999 must be bound to the deal-id, there is none"].assert_eq(&beyond);
}

fn plus(text: &Value, addend: &str) -> Value {
    // Decimal addition by hand: the sums are beyond the field.
    let (a, b): (Vec<u8>, Vec<u8>) = (
        text.as_str().expect("text").bytes().rev().map(|digit| digit - b'0').collect(),
        addend.bytes().rev().map(|digit| digit - b'0').collect(),
    );
    let (mut digits, mut carry) = (Vec::new(), 0);
    for index in 0..a.len().max(b.len()) + 1 {
        let sum = a.get(index).unwrap_or(&0) + b.get(index).unwrap_or(&0) + carry;
        digits.push(b'0' + sum % 10);
        carry = sum / 10;
    }
    let text: String = digits.iter().rev().map(|digit| *digit as char).collect();
    json!(text.trim_start_matches('0'))
}

#[test]
fn every_spoiled_proof_is_invalid_and_says_why() {
    let mut table = String::new();
    let mut row = |what: &str, line: String| table += &format!("{what}: {line}\n");
    row("another public input", product().with(|case| case.public[4] = json!("1")));
    row("too few public inputs", product().with(|case| drop(case.public.as_array_mut().map(Vec::pop))));
    row("too many public inputs", product().with(|case| case.public.as_array_mut().expect("list").push(json!("0"))));
    row("an aliased public input", product().with(|case| case.public[0] = plus(&case.public[0], R)));
    row("a public input of r", product().with(|case| case.public[0] = json!(R)));
    row("a number for a public input", product().with(|case| case.public[4] = json!(1)));
    row("a signed public input", product().with(|case| case.public[4] = json!("-1")));
    row("leading zeros", product().with(|case| case.public[4] = json!("01")));
    row("an aliased coordinate", product().with(|case| case.proof["pi_a"][0] = plus(&case.proof["pi_a"][0], Q)));
    row("a coordinate of q", product().with(|case| case.proof["pi_c"][1] = json!(Q)));
    row("A off the curve", product().with(|case| case.proof["pi_a"][0] = plus(&case.proof["pi_a"][0], "1")));
    row("B off the curve", product().with(|case| case.proof["pi_b"][0][1] = json!("1")));
    row("B's parts swapped", product().with(|case| case.proof["pi_b"][0].as_array_mut().expect("list").reverse()));
    row(
        "A and C swapped",
        product().with(|case| {
            let a = case.proof["pi_a"].take();
            case.proof["pi_a"] = std::mem::replace(&mut case.proof["pi_c"], a);
        }),
    );
    row("A infinite", product().with(|case| case.proof["pi_a"] = json!(["0", "1", "0"])));
    row("A at zero", product().with(|case| case.proof["pi_a"] = json!(["0", "0", "1"])));
    row("A projective", product().with(|case| case.proof["pi_a"][2] = json!("2")));
    row("B infinite", product().with(|case| case.proof["pi_b"][2] = json!(["0", "0"])));
    row("no C", product().with(|case| drop(case.proof.as_object_mut().expect("object").remove("pi_c"))));
    row("another protocol", product().with(|case| case.proof["protocol"] = json!("plonk")));
    row("another curve", product().with(|case| case.proof["curve"] = json!("bls12381")));
    row("no object", product().with(|case| case.proof = json!("proof")));
    row("inputs that are no list", product().with(|case| case.public = json!({})));
    row("the key of another circuit", product().with(|case| case.key = self::case("membership", "bn254").key));
    row("a key with nPublic wrong", product().with(|case| case.key["nPublic"] = json!(1)));
    row("a key with a point off the curve", product().with(|case| case.key["IC"][1][0] = json!("5")));
    row("a key with an infinite point", product().with(|case| case.key["vk_delta_2"][2] = json!(["0", "0"])));
    row("a key for another protocol", product().with(|case| case.key["protocol"] = json!("fflonk")));
    expect![[r#"
        another public input: invalid proof-invalid: the proof does not hold for these public inputs
        too few public inputs: invalid proof-malformed: 11 public inputs are given, the key has 12
        too many public inputs: invalid proof-malformed: 13 public inputs are given, the key has 12
        an aliased public input: invalid proof-malformed: public input 0 is at or above the modulus
        a public input of r: invalid proof-malformed: public input 0 is at or above the modulus
        a number for a public input: invalid proof-malformed: public input 4 is a number, not a decimal string
        a signed public input: invalid proof-malformed: public input 4 is no decimal number without sign and leading zeros
        leading zeros: invalid proof-malformed: public input 4 is no decimal number without sign and leading zeros
        an aliased coordinate: invalid proof-malformed: pi_a is at or above the modulus
        a coordinate of q: invalid proof-malformed: pi_c is at or above the modulus
        A off the curve: invalid proof-malformed: pi_a is not on the curve
        B off the curve: invalid proof-malformed: pi_b is not on the curve
        B's parts swapped: invalid proof-malformed: pi_b is not on the curve
        A and C swapped: invalid proof-invalid: the proof does not hold for these public inputs
        A infinite: invalid proof-malformed: pi_a is infinity or not affine: its last coordinate is not "1"
        A at zero: invalid proof-malformed: pi_a is not on the curve
        A projective: invalid proof-malformed: pi_a is infinity or not affine: its last coordinate is not "1"
        B infinite: invalid proof-malformed: pi_b is infinity or not affine: its last coordinate is not ["1", "0"]
        no C: invalid proof-malformed: has no pi_c
        another protocol: invalid proof-malformed: protocol is "plonk", not groth16
        another curve: invalid proof-malformed: curve is "bls12381", not bn128
        no object: invalid proof-malformed: has no protocol
        inputs that are no list: invalid proof-malformed: the public inputs are no list
        the key of another circuit: invalid proof-malformed: 12 public inputs are given, the key has 5
        a key with nPublic wrong: inconclusive key-malformed: verification key: nPublic is not 12, the number of points in IC less one
        a key with a point off the curve: inconclusive key-malformed: verification key: IC[1] is not on the curve
        a key with an infinite point: inconclusive key-malformed: verification key: vk_delta_2 is infinity or not affine: its last coordinate is not ["1", "0"]
        a key for another protocol: inconclusive key-malformed: verification key: protocol is "fflonk", not groth16
    "#]].assert_eq(&table);
}

#[test]
fn a_point_of_g2_outside_the_subgroup_is_refused() {
    // On the twist of bn254 nearly every point is outside the subgroup of prime order.
    let mut x = ark_bn254::Fq2::ONE;
    let point = loop {
        if let Some(point) = G2Affine::get_point_from_x_unchecked(x, false)
            && !point.is_in_correct_subgroup_assuming_on_curve()
        {
            break point;
        }
        x += ark_bn254::Fq2::ONE;
    };
    let text = |part: ark_bn254::Fq| json!(part.into_bigint().to_string());
    let line = product().with(|case| {
        case.proof["pi_b"][0] = json!([text(point.x.c0), text(point.x.c1)]);
        case.proof["pi_b"][1] = json!([text(point.y.c0), text(point.y.c1)]);
    });
    expect!["invalid proof-malformed: pi_b is not in the subgroup of prime order"].assert_eq(&line);
}

#[test]
fn other_proof_systems_are_named_as_not_there_yet() {
    for system in ["sp1", "risc0"] {
        let request = json!({ "method": { "kind": "proof", "proof": { "system": system, "receipt": {} } } });
        let line = line(&verify(&request, &MemorySource::new()));
        assert_eq!(
            line,
            format!("inconclusive unsupported-proof-system: this verifier does not check {system} proofs yet")
        );
    }
}

/// ark-groth16's own answer.
fn reference(case: &Case) -> bool {
    use ark_ec::AffineRepr as _;
    let fq = |value: &Value| value.as_str().expect("text").parse::<ark_bn254::Fq>().expect("a field element");
    let g1 = |value: &Value| G1Affine::new(fq(&value[0]), fq(&value[1]));
    let fq2 = |value: &Value| ark_bn254::Fq2::new(fq(&value[0]), fq(&value[1]));
    let g2 = |value: &Value| G2Affine::new(fq2(&value[0]), fq2(&value[1]));
    let key = ark_groth16::VerifyingKey::<Bn254> {
        alpha_g1: g1(&case.key["vk_alpha_1"]),
        beta_g2: g2(&case.key["vk_beta_2"]),
        gamma_g2: g2(&case.key["vk_gamma_2"]),
        delta_g2: g2(&case.key["vk_delta_2"]),
        gamma_abc_g1: case.key["IC"].as_array().expect("list").iter().map(g1).collect(),
    };
    let proof = ark_groth16::Proof::<Bn254> {
        a: g1(&case.proof["pi_a"]),
        b: g2(&case.proof["pi_b"]),
        c: g1(&case.proof["pi_c"]),
    };
    assert!(!proof.a.is_zero());
    let inputs = case.public.as_array().expect("list").iter();
    let inputs: Vec<Fr> = inputs.map(|input| input.as_str().expect("text").parse().expect("a field element")).collect();
    let key = ark_groth16::prepare_verifying_key(&key);
    <ark_groth16::Groth16<Bn254>>::verify_proof(&key, &proof, &inputs).expect("the right number of inputs")
}

#[test]
fn the_pairing_agrees_with_ark_groth16() {
    for circuit in ["product", "membership"] {
        let mut case = case(circuit, "bn254");
        assert!(reference(&case) && case.line().starts_with("valid"));
        for index in 0..case.public.as_array().expect("list").len() {
            let value: Fr = case.public[index].as_str().expect("text").parse().expect("a field element");
            let old = case.public[index].clone();
            case.public[index] = json!(value.double().into_bigint().to_string());
            assert_eq!(reference(&case), case.line().starts_with("valid"), "{circuit} {index}");
            case.public[index] = old;
        }
    }
    assert_eq!(Fr::MODULUS.to_string(), R);
    assert_eq!(ark_bn254::Fq::MODULUS.to_bytes_be().len(), 32);
}

#[test]
fn a_batch_finds_exactly_the_bad_proofs() {
    let case = product();
    let (key, good) = (case.key.to_string(), (case.proof.to_string(), case.public.to_string()));
    let mut other = case.public.clone();
    other[4] = json!("1");
    let bad = (good.0.clone(), other.to_string());
    let broken = ("{}".to_owned(), good.1.clone());
    for pattern in ["g", "b", "gg", "gbg", "gggggggg", "gggbgggg", "bgggxggb", ""] {
        let entries = pattern.chars().map(|kind| match kind {
            'g' => &good,
            'b' => &bad,
            _ => &broken,
        });
        let entries: Vec<(&[u8], &[u8])> =
            entries.map(|(proof, public)| (proof.as_bytes(), public.as_bytes())).collect();
        let found: String = verify_batch(Curve::Bn254, key.as_bytes(), &entries)
            .iter()
            .map(|result| match result {
                Ok(()) => 'g',
                Err(ProofProblem::Invalid) => 'b',
                Err(ProofProblem::Malformed(_)) => 'x',
                Err(ProofProblem::Key(_)) => 'k',
            })
            .collect();
        assert_eq!(found, pattern);
    }
}

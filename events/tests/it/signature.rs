use proptest::prelude::*;
use tribunal_events::{
    Address, B256, Domain, Envelope, Signature, SignatureError, SignedVerdict, Signer, SignerFault, SigningKey, U256,
    VerdictKind, proto,
};
use tribunal_fixtures::keys;

/// The order of secp256k1.
const ORDER: &str = "115792089237316195423570985008687907852837564279074904382605163141518161494337";

fn order() -> U256 {
    ORDER.parse().expect("a number")
}

fn signed() -> (B256, [u8; 65]) {
    let digest = B256::repeat_byte(5);
    (digest, *keys::key("client").sign(digest).bytes())
}

#[test]
fn a_signature_recovers_its_signer() {
    let (digest, bytes) = signed();
    assert_eq!(Signature::from_slice(&bytes).and_then(|it| it.recover(digest)), Ok(keys::address("client")));
    let other = Signature::from_slice(&bytes).and_then(|it| it.recover(B256::repeat_byte(6)));
    assert_ne!(other, Ok(keys::address("client")));
}

#[test]
fn the_second_signature_that_mathematics_allows_is_refused() {
    let (digest, mut bytes) = signed();
    let s = U256::from_be_slice(&bytes[32..64]);
    bytes[32..64].copy_from_slice(&(order() - s).to_be_bytes::<32>());
    bytes[64] = if bytes[64] == 27 { 28 } else { 27 };
    assert_eq!(Signature::from_slice(&bytes), Err(SignatureError::HighS));
    // The low one of the same pair is fine, so that it is the height of s that was refused.
    let (_, low) = signed();
    assert!(Signature::from_slice(&low).and_then(|it| it.recover(digest)).is_ok());
}

#[test]
fn half_the_order_is_the_highest_s() {
    let half = order() / U256::from(2u64);
    let with = |s: U256| {
        let mut bytes = signed().1;
        bytes[32..64].copy_from_slice(&s.to_be_bytes::<32>());
        Signature::from_slice(&bytes).err()
    };
    assert_eq!(with(half), None);
    assert_eq!(with(half + U256::from(1u64)), Some(SignatureError::HighS));
}

#[test]
fn v_is_27_or_28() {
    for v in (0..=255u8).filter(|v| !matches!(v, 27 | 28)) {
        let mut bytes = signed().1;
        bytes[64] = v;
        assert_eq!(Signature::from_slice(&bytes), Err(SignatureError::RecoveryId(v)));
    }
}

#[test]
fn a_signature_has_65_bytes() {
    let bytes = signed().1;
    assert_eq!(Signature::from_slice(&bytes[..64]), Err(SignatureError::Length(64)));
    assert_eq!(Signature::from_slice(&[&bytes[..], &[0]].concat()), Err(SignatureError::Length(66)));
    assert_eq!(Signature::from_slice(&[]), Err(SignatureError::Length(0)));
    let wallet = SignatureError::Length(97).to_string();
    assert!(wallet.contains("ERC-1271"), "{wallet}");
}

#[test]
fn r_and_s_out_of_range_are_nobodys() {
    for range in [0..32, 32..64] {
        let mut bytes = signed().1;
        bytes[range].fill(0);
        let signature = Signature::from_slice(&bytes).expect("the shape is right");
        assert_eq!(signature.recover(B256::ZERO), Err(SignatureError::Unrecoverable));
    }
    let mut bytes = signed().1;
    bytes[..32].copy_from_slice(&order().to_be_bytes::<32>());
    let signature = Signature::from_slice(&bytes).expect("the shape is right");
    assert_eq!(signature.recover(B256::ZERO), Err(SignatureError::Unrecoverable));
    assert_eq!(Signature::ZERO.bytes(), &[0; 65]);
}

#[test]
fn a_secret_key_is_in_range() {
    assert!(matches!(SigningKey::new([0; 32]), Err(SignatureError::SecretKey)));
    assert!(matches!(SigningKey::new(order().to_be_bytes()), Err(SignatureError::SecretKey)));
    assert!(SigningKey::new((order() - U256::from(1u64)).to_be_bytes()).is_ok());
}

#[test]
fn a_key_does_not_print_its_secret() {
    let key = keys::key("client");
    assert!(!format!("{key:?}").contains(&hex::encode(**key.secret())));
}

proptest! {
    #[test]
    fn whatever_is_signed_is_recovered_and_normal(secret in any::<[u8; 32]>(), digest in any::<[u8; 32]>()) {
        let Ok(key) = SigningKey::new(secret) else { return Ok(()) };
        let signature = key.sign(B256::new(digest));
        prop_assert_eq!(Signature::from_slice(signature.bytes()), Ok(signature));
        prop_assert_eq!(signature.recover(B256::new(digest)), Ok(key.address()));
    }
}

/// A signer that is away.
#[derive(Debug)]
struct Away;

impl Signer for Away {
    fn address(&self) -> Address {
        Address::repeat_byte(1)
    }

    fn sign_preimage(&self, _preimage: &[u8]) -> Result<Signature, SignerFault> {
        Err(SignerFault::Unreachable { signer: "nowhere".into(), problem: "no answer".into() })
    }
}

#[test]
fn a_signer_signs_what_the_key_itself_signs() {
    let key = SigningKey::new([7; 32]).unwrap();
    let signer: std::sync::Arc<dyn Signer> = std::sync::Arc::new(key.clone());
    let domain = Domain::new(31337, Address::repeat_byte(3));
    let terms_hash = B256::repeat_byte(4);
    let one = SignedVerdict::sign(&key, &domain, terms_hash, 2, VerdictKind::Invalid, 9, B256::repeat_byte(5));
    let other =
        SignedVerdict::sign_with(&signer, &domain, terms_hash, 2, VerdictKind::Invalid, 9, B256::repeat_byte(5));
    assert_eq!(other.unwrap(), one);
    assert_eq!(one.signer(&domain, terms_hash).unwrap(), key.address());
    let event = proto::Event { schema_version: 1, deal_id: vec![6; 32], ..Default::default() };
    let signed = Envelope::sign_with(&event, &domain, &signer).unwrap();
    assert_eq!(signed, Envelope::sign(&event, &domain, &key).unwrap());
    let fault = Envelope::sign_with(&event, &domain, &Away).unwrap_err();
    assert!(fault.retry_helps(), "{fault}");
    let fault = Envelope::sign_with(&proto::Event::default(), &domain, &signer).unwrap_err();
    assert!(!fault.retry_helps(), "no deal id: {fault}");
}

#[test]
fn a_signers_answer_may_count_its_recovery_id_from_0() {
    let key = SigningKey::new([7; 32]).unwrap();
    let signature = key.sign(B256::repeat_byte(8));
    let mut bytes = *signature.bytes();
    bytes[64] -= 27;
    assert_eq!(Signature::from_answer(&bytes).unwrap(), signature);
    assert_eq!(Signature::from_answer(signature.bytes()).unwrap(), signature);
    assert!(Signature::from_slice(&bytes).is_err(), "elsewhere it may not");
    assert!(Signature::from_answer(&bytes[..64]).is_err());
}

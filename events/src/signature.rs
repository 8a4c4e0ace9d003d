use std::fmt;

use alloy_primitives::{Address, B256, keccak256};
use secp256k1::{
    Message, PublicKey, SecretKey,
    ecdsa::{RecoverableSignature, RecoveryId},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

/// Half the order of secp256k1, big-endian (EIP-2: `s` above it is refused, so that no second signature is valid).
const HALF_ORDER: [u8; 32] = [
    0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x5d, 0x57, 0x6e,
    0x73, 0x57, 0xa4, 0x50, 0x1d, 0xdf, 0xe9, 0x2f, 0x46, 0x68, 0x1b, 0x20, 0xa0,
];

/// Bytes of a secret key.
pub const SECRET_BYTES: usize = 32;

/// A recoverable secp256k1 signature: r, s, v; v is 27 or 28, s low.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature([u8; 65]);

/// Why a signature was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Not 65 bytes. A longer one is probably an ERC-1271 wallet's, which only a chain can check.
    #[error("a signature has 65 bytes (r, s, v), not {0}; contract wallets (ERC-1271) cannot be checked off chain")]
    Length(usize),
    /// v is neither 27 nor 28.
    #[error("the last byte of a signature is 27 or 28, not {0}")]
    RecoveryId(u8),
    /// s is above half the order.
    #[error("the s of a signature must be the low one (EIP-2)")]
    HighS,
    /// No key could have made it.
    #[error("no key could have made this signature")]
    Unrecoverable,
    /// Somebody else signed than the event names as its sender.
    #[error("the event names {expected} as its sender, but the signature is {found}'s, or of another deal's domain")]
    Sender {
        /// The event's sender.
        expected: Address,
        /// The recovered account.
        found: Address,
    },
    /// A secret key out of range.
    #[error("a secret key is 32 bytes between 1 and the order of secp256k1")]
    SecretKey,
}

impl Signature {
    /// All zero: nobody's.
    pub const ZERO: Self = Self([0; 65]);

    /// Reads 65 bytes.
    ///
    /// # Errors
    /// For a wrong length, recovery id or a high s.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, SignatureError> {
        let bytes: [u8; 65] = bytes.try_into().map_err(|_| SignatureError::Length(bytes.len()))?;
        if !matches!(bytes[64], 27 | 28) {
            return Err(SignatureError::RecoveryId(bytes[64]));
        }
        if bytes[32..64] > HALF_ORDER[..] {
            return Err(SignatureError::HighS);
        }
        Ok(Self(bytes))
    }

    /// Reads what a signer answered: like [`Signature::from_slice`], with a v of 0 or 1 read as 27 or 28.
    ///
    /// # Errors
    /// As there.
    pub fn from_answer(bytes: &[u8]) -> Result<Self, SignatureError> {
        match bytes {
            [compact @ .., v @ (0 | 1)] if compact.len() == 64 => Self::from_slice(&[compact, &[27 + v]].concat()),
            _ => Self::from_slice(bytes),
        }
    }

    /// r, s, v.
    pub const fn bytes(&self) -> &[u8; 65] {
        &self.0
    }

    /// The account that signed `digest`.
    ///
    /// # Errors
    /// [`SignatureError::Unrecoverable`] where r or s is out of range.
    pub fn recover(&self, digest: B256) -> Result<Address, SignatureError> {
        let id = RecoveryId::from_u8_masked(self.0[64] - 27);
        let key = RecoverableSignature::from_compact(&self.0[..64], id)
            .and_then(|signature| signature.recover_ecdsa(Message::from_digest(digest.0)))
            .map_err(|_| SignatureError::Unrecoverable)?;
        Ok(address_of(&key))
    }
}

impl Serialize for Signature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("0x{}", hex::encode(self.0)))
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = hex::decode(text.trim_start_matches("0x")).map_err(serde::de::Error::custom)?;
        Self::from_slice(&bytes).map_err(serde::de::Error::custom)
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{}", hex::encode(self.0))
    }
}

fn address_of(key: &PublicKey) -> Address {
    Address::from_slice(&keccak256(&key.serialize_uncompressed()[1..])[12..])
}

/// A key that signs, here or elsewhere. What it signs is always the keccak256 of a preimage, since a remote signer hashes for
/// itself. May block: call it where blocking is allowed.
pub trait Signer: Send + Sync + fmt::Debug {
    /// The account of the key.
    fn address(&self) -> Address;

    /// Signs `keccak256(preimage)`. For EIP-712 the preimage is `0x19 0x01 || domain separator || struct hash`, 66 bytes.
    ///
    /// # Errors
    /// [`SignerFault::retry_helps`] says whether to ask again.
    fn sign_preimage(&self, preimage: &[u8]) -> Result<Signature, SignerFault>;
}

impl<S: Signer + ?Sized> Signer for std::sync::Arc<S> {
    fn address(&self) -> Address {
        (**self).address()
    }

    fn sign_preimage(&self, preimage: &[u8]) -> Result<Signature, SignerFault> {
        (**self).sign_preimage(preimage)
    }
}

/// Why a signer did not sign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignerFault {
    /// It does not answer, or not in time.
    #[error("the signer at {signer} cannot be reached: {problem}")]
    Unreachable {
        /// Where it is, without what may be secret in a URL.
        signer: String,
        /// What happened.
        problem: String,
    },
    /// It answers that it will not.
    #[error("the signer at {signer} refuses: {problem}")]
    Refused {
        /// Where it is.
        signer: String,
        /// Its words.
        problem: String,
    },
    /// It does not hold the key of this account.
    #[error("the signer at {signer} has no key of {account}; it has {known} others")]
    UnknownKey {
        /// Where it is.
        signer: String,
        /// Whose key is needed.
        account: Address,
        /// Keys it has.
        known: usize,
    },
    /// It answers what is no answer.
    #[error("the signer at {signer} answers what is no signature: {problem}")]
    Answer {
        /// Where it is.
        signer: String,
        /// What is wrong.
        problem: String,
    },
    /// Its signature is another account's.
    #[error("the signer at {signer} signed as {found}, not as {expected}")]
    WrongKey {
        /// Where it is.
        signer: String,
        /// Who should have signed.
        expected: Address,
        /// Who did.
        found: Address,
    },
}

impl SignerFault {
    /// Whether the same request may succeed later without anybody changing the settings.
    pub const fn retry_helps(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

/// A secp256k1 key that signs digests. Never printed; wiped when dropped.
#[derive(Clone)]
pub struct SigningKey {
    secret: Zeroizing<[u8; SECRET_BYTES]>,
    address: Address,
}

impl SigningKey {
    /// The key with this secret scalar, big-endian.
    ///
    /// # Errors
    /// [`SignatureError::SecretKey`] for zero or a value beyond the order.
    pub fn new(secret: [u8; SECRET_BYTES]) -> Result<Self, SignatureError> {
        let secret = Zeroizing::new(secret);
        let key = SecretKey::from_secret_bytes(*secret).map_err(|_| SignatureError::SecretKey)?;
        let address = address_of(&PublicKey::from_secret_key(&key));
        Ok(Self { secret, address })
    }

    /// The account of this key.
    pub const fn address(&self) -> Address {
        self.address
    }

    /// The secret scalar, for a keystore or a chain signer.
    pub fn secret(&self) -> &Zeroizing<[u8; SECRET_BYTES]> {
        &self.secret
    }

    /// A secret of 32 bytes that only this key can derive, for one context and input; the same every time.
    pub fn derive_secret(&self, context: &str, input: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(&*self.secret).update(input);
        *hasher.finalize().as_bytes()
    }

    /// Signs a digest; the nonce is RFC 6979's, so the same digest gives the same signature.
    pub fn sign(&self, digest: B256) -> Signature {
        let key = SecretKey::from_secret_bytes(*self.secret).expect("checked when made");
        let signature = RecoverableSignature::sign_ecdsa_recoverable(Message::from_digest(digest.0), &key);
        let (id, compact) = signature.serialize_compact();
        let mut bytes = [0; 65];
        bytes[..64].copy_from_slice(&compact);
        bytes[64] = 27 + id.to_u8();
        Signature(bytes)
    }
}

impl Signer for SigningKey {
    fn address(&self) -> Address {
        self.address
    }

    fn sign_preimage(&self, preimage: &[u8]) -> Result<Signature, SignerFault> {
        Ok(self.sign(keccak256(preimage)))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.address)
    }
}

use alloy_primitives::{Address, B256};
use serde::{Deserialize, Serialize};

use crate::{Domain, Signature, SignatureError, Signer, SignerFault, SigningKey};

/// Is the claim right? *Inconclusive* means that we could not tell, and moves no collateral.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum VerdictKind {
    /// The provider's claim stands.
    Valid = 1,
    /// The provider's claim is wrong.
    Invalid = 2,
    /// Nobody can be blamed.
    Inconclusive = 3,
}

impl VerdictKind {
    /// From its number in contracts and protobuf: 1, 2 or 3.
    pub fn from_number(number: i32) -> Option<Self> {
        [Self::Valid, Self::Invalid, Self::Inconclusive].into_iter().find(|kind| *kind as i32 == number)
    }

    /// The word used in JSON and on the command line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Invalid => "invalid",
            Self::Inconclusive => "inconclusive",
        }
    }
}

/// A mediator's EIP-712 vote in a recorded dispute. Whoever reads one checks [`SignedVerdict::signer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedVerdict {
    /// Who voted.
    pub mediator: Address,
    /// The round it counts in, from 0.
    pub round: u32,
    /// The vote.
    pub verdict: VerdictKind,
    /// The instruction count that the provider claimed.
    pub instruction_count: u64,
    /// Verdict digest (PROTOCOL "Ids and hashes").
    pub digest: B256,
    /// The EIP-712 signature over all of this.
    pub signature: Signature,
}

impl SignedVerdict {
    /// Signs a vote.
    pub fn sign(
        key: &SigningKey,
        domain: &Domain,
        terms_hash: B256,
        round: u32,
        verdict: VerdictKind,
        instruction_count: u64,
        digest: B256,
    ) -> Self {
        Self::sign_with(key, domain, terms_hash, round, verdict, instruction_count, digest)
            .expect("a key in memory always signs")
    }

    /// Signs a vote with any signer. May block.
    ///
    /// # Errors
    /// Where the signer does not sign.
    pub fn sign_with(
        signer: &dyn Signer,
        domain: &Domain,
        terms_hash: B256,
        round: u32,
        verdict: VerdictKind,
        instruction_count: u64,
        digest: B256,
    ) -> Result<Self, SignerFault> {
        let preimage = domain.verdict_preimage(terms_hash, round, verdict, instruction_count, digest);
        let signature = signer.sign_preimage(&preimage)?;
        Ok(Self { mediator: signer.address(), round, verdict, instruction_count, digest, signature })
    }

    /// The account that really signed it; the vote counts only if that is [`SignedVerdict::mediator`].
    ///
    /// # Errors
    /// Where no key could have made the signature.
    pub fn signer(&self, domain: &Domain, terms_hash: B256) -> Result<Address, SignatureError> {
        let digest = domain.verdict_digest(terms_hash, self.round, self.verdict, self.instruction_count, self.digest);
        self.signature.recover(digest)
    }

    /// What a mediator commits to before revealing: BLAKE3 `derive_key("tribunal.v1 vote", termsHash, round as 4 bytes
    /// big-endian, mediator, EIP-712 digest of the Verdict, salt)`.
    pub fn commitment(&self, domain: &Domain, terms_hash: B256, salt: &[u8; 32]) -> [u8; 32] {
        let digest = domain.verdict_digest(terms_hash, self.round, self.verdict, self.instruction_count, self.digest);
        let mut hasher = blake3::Hasher::new_derive_key("tribunal.v1 vote");
        hasher.update(terms_hash.as_slice()).update(&self.round.to_be_bytes());
        hasher.update(self.mediator.as_slice()).update(digest.as_slice()).update(salt);
        *hasher.finalize().as_bytes()
    }
}

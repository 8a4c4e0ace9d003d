use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{
    checkpoint::{Checkpoint, CheckpointError, LogVerifier, SignedCheckpoint},
    proof::{
        Hash, HeadEntry, ProofError, leaf_hash, verify_consistency, verify_deal_absent, verify_head, verify_inclusion,
    },
};
use crate::{ChainLink, DealId};

/// Bytes of evidence as JSON at most.
pub const EVIDENCE_BYTES_MAX: usize = 1 << 20;

/// A proof with all that it takes to check it, as the command line, HTTP and NATS hand it out: JSON with a field `kind`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Evidence {
    /// A record is in the log, at this position.
    Inclusion {
        /// Its log position, from 1.
        position: u64,
        /// Its whole frame: what the log says happened.
        record: Base64,
        /// The audit path, sibling first.
        hashes: Vec<Base64>,
        /// The log's word.
        checkpoint: Note,
    },
    /// A log has grown and nothing else happened to it.
    Consistency {
        /// Records before.
        from: u64,
        /// Root before; from a checkpoint that was kept.
        from_root: Base64,
        /// RFC 9162, 2.1.4.
        hashes: Vec<Base64>,
        /// The log's word now.
        checkpoint: Note,
    },
    /// Where a deal stands, and that nothing of it was left out.
    Head {
        /// The deal.
        deal_id: DealId,
        /// Where it stands; absent: the log knows nothing of it.
        #[serde(skip_serializing_if = "Option::is_none")]
        head: Option<DealHead>,
        /// With no head: the deal that stands alone in its place, if one does.
        #[serde(skip_serializing_if = "Option::is_none")]
        other: Option<OtherHead>,
        /// From the root down.
        hashes: Vec<Base64>,
        /// The log's word.
        checkpoint: Note,
    },
}

/// Where a deal stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DealHead {
    /// Version of its last record.
    pub version: u64,
    /// Log position of its last record.
    pub position: u64,
    /// Its chain after that record.
    pub link: ChainLink,
}

/// Another deal's head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OtherHead {
    /// That deal.
    pub deal_id: DealId,
    /// Where it stands.
    pub head: DealHead,
}

/// Bytes, in base64.
#[derive(Clone, PartialEq, Eq)]
pub struct Base64(pub Vec<u8>);

/// A signed checkpoint, as its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note(pub SignedCheckpoint);

/// Why evidence shows nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// No evidence at all.
    #[error("no evidence: {0}")]
    Malformed(String),
    /// The checkpoint is not the log's.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The proof does not hold.
    #[error(transparent)]
    Proof(#[from] ProofError),
}

impl Evidence {
    /// Reads JSON.
    ///
    /// # Errors
    /// [`EvidenceError::Malformed`].
    pub fn parse(json: &[u8]) -> Result<Self, EvidenceError> {
        if json.len() > EVIDENCE_BYTES_MAX {
            return Err(EvidenceError::Malformed(format!("{} bytes, more than {EVIDENCE_BYTES_MAX}", json.len())));
        }
        serde_json::from_slice(json).map_err(|error| EvidenceError::Malformed(error.to_string()))
    }

    /// The log's word that it rests on, not checked.
    pub const fn checkpoint(&self) -> &SignedCheckpoint {
        match self {
            Self::Inclusion { checkpoint, .. }
            | Self::Consistency { checkpoint, .. }
            | Self::Head { checkpoint, .. } => &checkpoint.0,
        }
    }

    /// Checks everything: the log's signature, and the proof against it. With nothing but this and the key.
    ///
    /// # Errors
    /// [`EvidenceError`].
    pub fn verify(&self, by: &LogVerifier) -> Result<&Checkpoint, EvidenceError> {
        let said = self.checkpoint().verify(by)?;
        match self {
            Self::Inclusion { position, record, hashes, .. } => {
                let index = position.checked_sub(1).ok_or(ProofError::OutOfRange { index: 0, size: 0 })?;
                verify_inclusion(&leaf_hash(&record.0), index, said.size, &read(hashes)?, &said.root)?;
            }
            Self::Consistency { from, from_root, hashes, .. } => {
                let root = from_root.hash()?;
                verify_consistency((*from, &root), (said.size, &said.root), &read(hashes)?)?;
            }
            Self::Head { deal_id, head: Some(head), hashes, .. } => {
                verify_head(&head.entry(*deal_id), &read(hashes)?, &said.heads.root)?;
            }
            Self::Head { deal_id, head: None, other, hashes, .. } => {
                let other = other.as_ref().map(|it| it.head.entry(it.deal_id));
                verify_deal_absent(deal_id, other.as_ref(), &read(hashes)?, &said.heads.root)?;
            }
        }
        Ok(said)
    }
}

impl DealHead {
    /// As the head map has it.
    pub const fn entry(&self, deal_id: DealId) -> HeadEntry {
        HeadEntry { deal_id, version: self.version, position: self.position, link: self.link }
    }
}

impl From<&HeadEntry> for DealHead {
    fn from(it: &HeadEntry) -> Self {
        Self { version: it.version, position: it.position, link: it.link }
    }
}

impl Base64 {
    fn hash(&self) -> Result<Hash, EvidenceError> {
        let found = self.0.len();
        let wrong = |_| EvidenceError::Malformed(format!("a hash has 32 bytes, not {found}"));
        self.0.as_slice().try_into().map_err(wrong)
    }
}

/// Hashes for JSON.
pub fn in_base64(hashes: &[Hash]) -> Vec<Base64> {
    hashes.iter().map(|hash| Base64(hash.to_vec())).collect()
}

fn read(hashes: &[Base64]) -> Result<Vec<Hash>, EvidenceError> {
    hashes.iter().map(Base64::hash).collect()
}

impl fmt::Debug for Base64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(&self.0))
    }
}

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(serde::de::Error::custom)
    }
}

impl Serialize for Note {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.note())
    }
}

impl<'de> Deserialize<'de> for Note {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        SignedCheckpoint::parse(text.as_bytes()).map(Self).map_err(serde::de::Error::custom)
    }
}

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signer as _, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use super::proof::Hash;
use crate::{
    Address, B256, Domain, SignatureError, Signer, SignerFault,
    domain::LogKeyStruct,
    signature::{Signature, SigningKey},
};

/// Bytes of a signed note at most.
pub const NOTE_BYTES_MAX: usize = 16 << 10;
/// Characters of an origin at most.
pub const ORIGIN_CHARS_MAX: usize = 200;
/// Signatures on a note at most: the log's and its witnesses'.
const SIGNATURES_MAX: usize = 64;
/// Ed25519, in C2SP's list of signature types.
const ALGORITHM: u8 = 0x01;
const HEADS: &str = "heads/1 ";

/// What a log says of itself at one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's name, unique for ever; also the name of its key.
    pub origin: String,
    /// Leaves, so the position of the last record.
    pub size: u64,
    /// Root of the tree.
    pub root: Hash,
    /// Where the deals stand.
    pub heads: Heads,
}

/// The commitment to where every deal stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// How many deals there are.
    pub deals: u64,
    /// Root of the head map.
    pub root: Hash,
}

/// A checkpoint with the bytes that were signed and their signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCheckpoint {
    checkpoint: Checkpoint,
    note: String,
    /// Length of the signed text.
    text: usize,
    /// Name, key id, signature.
    signatures: Vec<(String, [u8; 4], Vec<u8>)>,
}

/// Why a checkpoint or a verifier key was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The bytes are no checkpoint.
    #[error("no checkpoint: {0}")]
    Malformed(&'static str),
    /// The text is no verifier key.
    #[error("no verifier key (<origin>+<8 hex digits>+<base64>): {0}")]
    Key(&'static str),
    /// No such name.
    #[error("an origin is 1 to {ORIGIN_CHARS_MAX} characters without spaces and plus signs, not {0:?}")]
    Origin(String),
    /// Another log's.
    #[error("the checkpoint is of the log {found}, not of {expected}")]
    OtherLog {
        /// Whose key was given.
        expected: String,
        /// Whose checkpoint it is.
        found: String,
    },
    /// The key signed nothing here.
    #[error("the checkpoint carries no signature of {0}")]
    Unsigned(String),
    /// A signature that the key did not make.
    #[error("the signature under the checkpoint is not {0}'s, or the checkpoint was changed")]
    Signature(String),
    /// The operator did not sign the certificate.
    #[error("the certificate of the log's key: {0}")]
    Certificate(#[from] SignatureError),
    /// Somebody else signed the certificate.
    #[error("the certificate of the log's key is signed by {found:#x}, not by {expected:#x}")]
    Certifier {
        /// Named in it.
        expected: Address,
        /// Recovered.
        found: Address,
    },
}

/// The secret of a log: signs its checkpoints and nothing else.
#[derive(Clone)]
pub struct LogKey {
    secret: ed25519_dalek::SigningKey,
    verifier: LogVerifier,
}

/// Who signs for a log: its name and its public key.
#[derive(Clone, PartialEq, Eq)]
pub struct LogVerifier {
    origin: String,
    key: VerifyingKey,
}

/// An operator's word that a key is its log's: EIP-712 `LogKey(string origin,bytes32 publicKey)` in the domain of deals
/// without a contract. The terms of a deal name the operator, so this ties the log to what both parties signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogCertificate {
    /// The log's key.
    pub vkey: LogVerifier,
    /// Whose log it is.
    pub operator: Address,
    /// Its signature.
    pub signature: Signature,
}

impl Checkpoint {
    /// The text that is signed.
    fn text(&self) -> String {
        let Self { origin, size, root, heads } = self;
        let (root, map) = (STANDARD.encode(root), STANDARD.encode(heads.root));
        format!("{origin}\n{size}\n{root}\n{HEADS}{} {map}\n", heads.deals)
    }

    /// Signs with the log's key; the same checkpoint gives the same bytes.
    ///
    /// # Panics
    /// If the key is another log's.
    pub fn sign(self, key: &LogKey) -> SignedCheckpoint {
        assert_eq!(self.origin, key.verifier.origin, "a log signs for itself alone");
        let text = self.text();
        let (id, signature) = (key.verifier.id(), key.secret.sign(text.as_bytes()).to_bytes());
        let line = STANDARD.encode([&id[..], &signature].concat());
        let note = format!("{text}\n— {} {line}\n", self.origin);
        let signatures = vec![(self.origin.clone(), id, signature.to_vec())];
        SignedCheckpoint { checkpoint: self, text: text.len(), note, signatures }
    }
}

impl SignedCheckpoint {
    /// Reads a note. Its signatures are not checked: see [`SignedCheckpoint::verify`].
    ///
    /// # Errors
    /// [`CheckpointError::Malformed`]: the form is strict, so that one checkpoint has one text.
    pub fn parse(bytes: &[u8]) -> Result<Self, CheckpointError> {
        use CheckpointError::Malformed;
        if bytes.len() > NOTE_BYTES_MAX {
            return Err(Malformed("the note is too long"));
        }
        let note = std::str::from_utf8(bytes).map_err(|_| Malformed("the note is not UTF-8"))?;
        let split = note.rfind("\n\n").ok_or(Malformed("an empty line comes before the signatures"))?;
        let (text, signed) = (&note[..=split], &note[split + 2..]);
        let mut lines = text.lines();
        let mut line = |what| lines.next().ok_or(Malformed(what));
        let origin = line("the first line is the origin")?.to_owned();
        let size = line("the second line is the tree size")?;
        let root = hash(line("the third line is the root")?).ok_or(Malformed("a root is 32 bytes in base64"))?;
        let heads = line("the fourth line commits to the deals' heads")?;
        let heads = heads.strip_prefix(HEADS).and_then(|rest| rest.split_once(' '));
        let (deals, map) = heads.ok_or(Malformed("the fourth line is heads/1, a number, and a root in base64"))?;
        let map = hash(map).ok_or(Malformed("the heads' root is 32 bytes in base64"))?;
        let number = |text: &str| text.parse::<u64>().map_err(|_| Malformed("a size is a decimal number"));
        let heads = Heads { deals: number(deals)?, root: map };
        let checkpoint = Checkpoint { origin, size: number(size)?, root, heads };
        if checkpoint.text() != text {
            return Err(Malformed("numbers are written without signs and zeros, and nothing follows the heads"));
        }
        check_origin(&checkpoint.origin)?;
        let mut signatures = Vec::new();
        for line in signed.split_terminator('\n') {
            let parts = line.strip_prefix("— ").and_then(|rest| rest.split_once(' '));
            let (name, blob) = parts.ok_or(Malformed("a signature line is a dash, a name and base64"))?;
            let blob = STANDARD.decode(blob).map_err(|_| Malformed("a signature is base64"))?;
            let (id, signature) = blob.split_first_chunk().ok_or(Malformed("a signature starts with its key id"))?;
            signatures.push((name.to_owned(), *id, signature.to_vec()));
        }
        if signatures.is_empty() || signatures.len() > SIGNATURES_MAX || !note.ends_with('\n') {
            return Err(Malformed("one to 64 signature lines follow, each ended by a newline"));
        }
        Ok(Self { checkpoint, text: text.len(), note: note.to_owned(), signatures })
    }

    /// What it says; somebody's word only once [`SignedCheckpoint::verify`] succeeded.
    pub const fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The note as it is handed on.
    pub fn note(&self) -> &str {
        &self.note
    }

    /// Checks that this log signed it.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn verify(&self, by: &LogVerifier) -> Result<&Checkpoint, CheckpointError> {
        let found = &self.checkpoint.origin;
        if *found != by.origin {
            return Err(CheckpointError::OtherLog { expected: by.origin.clone(), found: found.clone() });
        }
        let of = |(name, id, _): &&(String, [u8; 4], Vec<u8>)| *name == by.origin && *id == by.id();
        let unsigned = || CheckpointError::Unsigned(by.to_string());
        let (_, _, signature) = self.signatures.iter().find(of).ok_or_else(unsigned)?;
        let wrong = || CheckpointError::Signature(by.to_string());
        let signature = ed25519_dalek::Signature::from_slice(signature).map_err(|_| wrong())?;
        // Strict: one signature means the same to everyone who checks it.
        by.key.verify_strict(&self.note.as_bytes()[..self.text], &signature).map_err(|_| wrong())?;
        Ok(&self.checkpoint)
    }
}

fn hash(text: &str) -> Option<Hash> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

fn check_origin(origin: &str) -> Result<(), CheckpointError> {
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && c != '+';
    let length = origin.chars().count();
    if (1..=ORIGIN_CHARS_MAX).contains(&length) && origin.chars().all(plain) {
        return Ok(());
    }
    Err(CheckpointError::Origin(origin.chars().take(80).collect()))
}

impl LogKey {
    /// The key of the log with this name.
    ///
    /// # Errors
    /// [`CheckpointError::Origin`].
    pub fn new(origin: &str, secret: &[u8; 32]) -> Result<Self, CheckpointError> {
        check_origin(origin)?;
        let secret = ed25519_dalek::SigningKey::from_bytes(secret);
        let verifier = LogVerifier { origin: origin.to_owned(), key: secret.verifying_key() };
        Ok(Self { secret, verifier })
    }

    /// A key of its own out of another role's secret: nothing that either signs helps to sign as the other.
    ///
    /// # Errors
    /// [`CheckpointError::Origin`].
    pub fn derived(origin: &str, from: &SigningKey) -> Result<Self, CheckpointError> {
        let secret = zeroize::Zeroizing::new(from.derive_secret("tribunal.v1 log key", b""));
        Self::new(origin, &secret)
    }

    /// Its public half.
    pub const fn verifier(&self) -> &LogVerifier {
        &self.verifier
    }
}

impl fmt::Debug for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogKey({})", self.verifier)
    }
}

impl LogVerifier {
    /// The log's name.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// First bytes of a hash of name and key, in every signature line.
    fn id(&self) -> [u8; 4] {
        let hash = Sha256::new().chain_update(&self.origin).chain_update(b"\n").chain_update([ALGORITHM]);
        let hash: Hash = hash.chain_update(self.key.as_bytes()).finalize().into();
        [hash[0], hash[1], hash[2], hash[3]]
    }

    fn certified(&self) -> LogKeyStruct {
        LogKeyStruct { origin: self.origin.clone(), publicKey: B256::new(self.key.to_bytes()) }
    }
}

impl fmt::Display for LogVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = STANDARD.encode([&[ALGORITHM][..], self.key.as_bytes()].concat());
        write!(f, "{}+{}+{key}", self.origin, hex::encode(self.id()))
    }
}

impl fmt::Debug for LogVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for LogVerifier {
    type Err = CheckpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        use CheckpointError::Key;
        let mut parts = text.splitn(3, '+');
        let (Some(origin), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(Key("it has three parts"));
        };
        check_origin(origin)?;
        let key = STANDARD.decode(key).map_err(|_| Key("the key is not base64"))?;
        let key = key.strip_prefix(&[ALGORITHM]).ok_or(Key("only Ed25519 keys (type 1) are known here"))?;
        let key = key.try_into().map_err(|_| Key("an Ed25519 key has 32 bytes"))?;
        let key = VerifyingKey::from_bytes(key).map_err(|_| Key("the bytes are no Ed25519 key"))?;
        let this = Self { origin: origin.to_owned(), key };
        if hex::encode(this.id()) != id {
            return Err(Key("the key id does not belong to this name and key"));
        }
        Ok(this)
    }
}

impl Serialize for LogVerifier {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LogVerifier {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl LogCertificate {
    /// The operator's word on its log's key.
    ///
    /// # Errors
    /// Where a remote signer fails.
    pub fn sign(vkey: &LogVerifier, operator: &dyn Signer) -> Result<Self, SignerFault> {
        let signature = operator.sign_preimage(&Domain::default().preimage(&vkey.certified()))?;
        Ok(Self { vkey: vkey.clone(), operator: operator.address(), signature })
    }

    /// Checks that the operator named in it signed it.
    ///
    /// # Errors
    /// [`CheckpointError::Certifier`], [`CheckpointError::Certificate`].
    pub fn verify(&self) -> Result<(), CheckpointError> {
        let found = self.signature.recover(Domain::default().digest(&self.vkey.certified()))?;
        if found == self.operator {
            return Ok(());
        }
        Err(CheckpointError::Certifier { expected: self.operator, found })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed() -> (LogKey, SignedCheckpoint) {
        let key = LogKey::new("example.org/log", &[7; 32]).expect("a name");
        let heads = Heads { deals: 3, root: [9; 32] };
        let checkpoint = Checkpoint { origin: "example.org/log".into(), size: 20, root: [8; 32], heads };
        let signed = checkpoint.sign(&key);
        (key, signed)
    }

    #[test]
    fn a_note_reads_back_and_any_changed_byte_is_noticed() {
        let (key, signed) = signed();
        let read = SignedCheckpoint::parse(signed.note().as_bytes()).expect("our own");
        assert_eq!(read, signed);
        assert_eq!(read.verify(key.verifier()).expect("signed").size, 20);
        for at in 0..signed.note().len() {
            for mask in [0x01, 0x20, 0x80] {
                let mut bytes = signed.note().as_bytes().to_vec();
                bytes[at] ^= mask;
                let outcome = SignedCheckpoint::parse(&bytes).and_then(|note| note.verify(key.verifier()).cloned());
                assert!(outcome.is_err(), "byte {at} with {mask:#x}");
            }
        }
    }

    #[test]
    fn a_verifier_key_is_its_text_and_another_log_is_refused() {
        let (key, signed) = signed();
        let text = key.verifier().to_string();
        assert_eq!(text.parse::<LogVerifier>().as_ref(), Ok(key.verifier()));
        let other = LogKey::new("example.org/log", &[6; 32]).expect("a name");
        assert!(matches!(signed.verify(other.verifier()), Err(CheckpointError::Unsigned(_))));
        let other = LogKey::new("example.org/other", &[7; 32]).expect("a name");
        assert!(matches!(signed.verify(other.verifier()), Err(CheckpointError::OtherLog { .. })));
        for wrong in ["", "a+b", "a b+00000000+AQ==", "a+00000000+AQ==", &text.replace("log+", "lag+")] {
            assert!(wrong.parse::<LogVerifier>().is_err(), "{wrong}");
        }
        for wrong in ["", "a b", "a+b", &"x".repeat(201)] {
            assert!(LogKey::new(wrong, &[1; 32]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_have_one_form() {
        let (_, signed) = signed();
        for (from, to) in
            [("\n20\n", "\n020\n"), ("\n20\n", "\n+20\n"), ("heads/1 3", "heads/1 03"), ("heads", "header")]
        {
            let changed = signed.note().replace(from, to);
            assert_ne!(changed, signed.note());
            assert!(SignedCheckpoint::parse(changed.as_bytes()).is_err(), "{changed}");
        }
        let more = signed.note().replace("\n\n", "\nmore\n\n");
        assert!(SignedCheckpoint::parse(more.as_bytes()).is_err());
        assert!(SignedCheckpoint::parse(&vec![b'x'; NOTE_BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn a_certificate_is_the_operators() {
        let (key, _) = signed();
        let operator = SigningKey::new([5; 32]).expect("a key");
        let certificate = LogCertificate::sign(key.verifier(), &operator).expect("here");
        assert_eq!(certificate.verify(), Ok(()));
        let read = serde_json::from_str(&serde_json::to_string(&certificate).expect("JSON")).expect("JSON");
        assert_eq!(certificate, read);
        let other = LogKey::new("example.org/log", &[6; 32]).expect("a name");
        let forged = LogCertificate { vkey: other.verifier().clone(), ..certificate };
        assert!(matches!(forged.verify(), Err(CheckpointError::Certifier { .. })));
    }
}

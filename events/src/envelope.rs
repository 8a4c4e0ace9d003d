use std::sync::Arc;

use alloy_primitives::{Address, B256};
use prost::Message;

use crate::{
    DealId, Domain, EventId, EventKind, IdError, Signature, SignatureError, Signer, SignerFault, SigningKey, Terms,
    proto,
};

/// Bytes of an envelope at most: a message on the bus.
pub const ENVELOPE_BYTES_MAX: usize = 256 * 1024;

/// Why bytes are no event of this schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// More than 256 KiB.
    #[error("an envelope has at most {ENVELOPE_BYTES_MAX} bytes, not {0}")]
    Oversized(usize),
    /// No envelope.
    #[error("not a tribunal.v1.Envelope: {0}")]
    Envelope(String),
    /// No event inside.
    #[error("the envelope holds no tribunal.v1.Event: {0}")]
    Event(String),
    /// Another schema version.
    #[error("schema_version is 1, not {0}")]
    SchemaVersion(u32),
    /// The deal id has no 32 bytes.
    #[error("{0}")]
    DealId(#[from] IdError),
    /// The terms in a proposal do not hash to the deal id.
    #[error("the deal id of these terms is {expected}, not {found}")]
    TermsMismatch {
        /// Hash of the terms.
        expected: DealId,
        /// The event's deal id.
        found: DealId,
    },
    /// The deal that an imported observation is about has another id.
    #[error("the deal id of this imported deal is {expected}, not {found}")]
    ForeignMismatch {
        /// From chain, storage and foreign id.
        expected: DealId,
        /// The event's deal id.
        found: DealId,
    },
    /// A field is missing or wrong.
    #[error("{0}")]
    Field(String),
    /// The signature has the wrong shape.
    #[error("{0}")]
    Signature(#[from] SignatureError),
}

impl DecodeError {
    /// Stable code of the refusal.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Oversized(_) => "oversized",
            Self::Envelope(_) | Self::Event(_) => "malformed",
            Self::SchemaVersion(_) => "schema-version",
            Self::DealId(_) | Self::Field(_) => "malformed-field",
            Self::TermsMismatch { .. } => "terms-mismatch",
            Self::ForeignMismatch { .. } => "foreign-mismatch",
            Self::Signature(_) => "malformed-signature",
        }
    }
}

/// Why an event was not signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignFault {
    /// The deal id has no 32 bytes.
    #[error(transparent)]
    DealId(#[from] IdError),
    /// The signer did not sign.
    #[error(transparent)]
    Signer(#[from] SignerFault),
}

impl SignFault {
    /// Whether the same event may be signed later without anybody changing anything.
    pub const fn retry_helps(&self) -> bool {
        match self {
            Self::DealId(_) => false,
            Self::Signer(fault) => fault.retry_helps(),
        }
    }
}

/// The bytes of an event with this sender, and the preimage of what the sender signs.
fn said_by(event: &proto::Event, domain: &Domain, sender: Address) -> Result<(Vec<u8>, [u8; 66]), IdError> {
    let deal_id = DealId::from_slice(&event.deal_id)?;
    let event = proto::Event { sender: sender.to_vec(), ..event.clone() }.encode_to_vec();
    let preimage = domain.event_preimage(&deal_id, &EventId::of_event(&event));
    Ok((event, preimage))
}

/// Signed bytes as they travel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    event: Vec<u8>,
    signature: Vec<u8>,
}

impl Envelope {
    /// Reads an envelope: protobuf, or the JSON mapping where the first byte is `{`.
    ///
    /// # Errors
    /// [`DecodeError`] for anything oversized or malformed.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > ENVELOPE_BYTES_MAX {
            return Err(DecodeError::Oversized(bytes.len()));
        }
        // No protobuf Envelope starts with '{': that byte would be field 15 as a group.
        let message: proto::Envelope = if bytes.first() == Some(&b'{') {
            let text = std::str::from_utf8(bytes).map_err(|error| DecodeError::Envelope(error.to_string()))?;
            crate::json::from_str("Envelope", text).map_err(DecodeError::Envelope)?
        } else {
            proto::Envelope::decode(bytes).map_err(|error| DecodeError::Envelope(error.to_string()))?
        };
        Ok(Self { event: message.event, signature: message.signature })
    }

    /// Signs an event, whose sender becomes the key's account.
    ///
    /// # Errors
    /// Where the event's deal id has no 32 bytes.
    pub fn sign(event: &proto::Event, domain: &Domain, key: &SigningKey) -> Result<Self, IdError> {
        let (event, preimage) = said_by(event, domain, key.address())?;
        let signature = key.sign(alloy_primitives::keccak256(preimage));
        Ok(Self { event, signature: signature.bytes().to_vec() })
    }

    /// Signs an event with any signer, whose account becomes the event's sender. May block.
    ///
    /// # Errors
    /// Where the event's deal id has no 32 bytes, or the signer does not sign.
    pub fn sign_with(event: &proto::Event, domain: &Domain, signer: &dyn Signer) -> Result<Self, SignFault> {
        let (event, preimage) = said_by(event, domain, signer.address())?;
        let signature = signer.sign_preimage(&preimage)?;
        Ok(Self { event, signature: signature.bytes().to_vec() })
    }

    /// From its two parts, as a store keeps them.
    pub const fn from_parts(event: Vec<u8>, signature: Vec<u8>) -> Self {
        Self { event, signature }
    }

    /// Protobuf bytes.
    pub fn encode(&self) -> Vec<u8> {
        self.message().encode_to_vec()
    }

    /// The protobuf message.
    pub fn message(&self) -> proto::Envelope {
        proto::Envelope { event: self.event.clone(), signature: self.signature.clone() }
    }

    /// The event bytes as sent.
    pub fn event(&self) -> &[u8] {
        &self.event
    }

    /// The signature bytes as sent.
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// BLAKE3 of the event bytes.
    pub fn event_id(&self) -> EventId {
        EventId::of_event(&self.event)
    }

    /// The deal this claims to be of, as far as it can be read: for routing and refusals only.
    pub fn deal_id_hint(&self) -> Option<DealId> {
        let event = proto::Event::decode(self.event.as_slice()).ok()?;
        DealId::from_slice(&event.deal_id).ok()
    }

    /// Reads the event and checks the shape of every field.
    ///
    /// # Errors
    /// [`DecodeError`] names what is wrong.
    pub fn parse(self) -> Result<ParsedEvent, DecodeError> {
        let event =
            proto::Event::decode(self.event.as_slice()).map_err(|error| DecodeError::Event(error.to_string()))?;
        if event.schema_version != 1 {
            return Err(DecodeError::SchemaVersion(event.schema_version));
        }
        let deal_id = DealId::from_slice(&event.deal_id)?;
        if event.sender.len() != 20 {
            return Err(DecodeError::Field(format!("sender has 20 bytes, not {}", event.sender.len())));
        }
        let sender = Address::from_slice(&event.sender);
        let kind =
            event.kind.ok_or_else(|| DecodeError::Field("the event has no kind that this engine knows".into()))?;
        let kind = EventKind::parse(kind).map_err(DecodeError::Field)?;
        if let EventKind::Proposed { terms, .. } = &kind
            && terms.deal_id() != deal_id
        {
            return Err(DecodeError::TermsMismatch { expected: terms.deal_id(), found: deal_id });
        }
        if let EventKind::ForeignObserved(foreign) = &kind
            && foreign.deal_id() != deal_id
        {
            return Err(DecodeError::ForeignMismatch { expected: foreign.deal_id(), found: deal_id });
        }
        let signature = Signature::from_slice(&self.signature)?;
        Ok(ParsedEvent { id: self.event_id(), envelope: self, deal_id, sender, kind, signature })
    }
}

/// An event whose shape is right and whose signature nobody has looked at.
#[derive(Clone, Debug)]
pub struct ParsedEvent {
    envelope: Envelope,
    id: EventId,
    deal_id: DealId,
    sender: Address,
    kind: EventKind,
    signature: Signature,
}

impl ParsedEvent {
    /// BLAKE3 of the event bytes.
    pub const fn id(&self) -> EventId {
        self.id
    }

    /// The deal it is said in.
    pub const fn deal_id(&self) -> DealId {
        self.deal_id
    }

    /// The terms it brings, if it proposes a deal.
    pub fn terms(&self) -> Option<&Arc<Terms>> {
        match &self.kind {
            EventKind::Proposed { terms, .. } => Some(terms),
            _ => None,
        }
    }

    /// What it says, before anybody knows who says it: for routing only.
    pub const fn kind_name(&self) -> &'static str {
        self.kind.name()
    }

    /// What it says, where somebody has checked the signature before.
    pub fn into_kind(self) -> EventKind {
        self.kind
    }

    /// Recovers who signed it in this domain.
    ///
    /// # Errors
    /// Where that is not the sender it names, or no key could have made the signature.
    pub fn authenticate(self, domain: &Domain) -> Result<SignedEvent, SignatureError> {
        let signer = self.signature.recover(domain.event_digest(&self.deal_id, &self.id))?;
        if signer != self.sender {
            return Err(SignatureError::Sender { expected: self.sender, found: signer });
        }
        let Self { envelope, id, deal_id, kind, .. } = self;
        Ok(SignedEvent { envelope, id, deal_id, kind, signer, recovered: Vec::new() })
    }
}

/// An event with its recovered signer. Whether that signer may say it is for the core to decide.
#[derive(Clone, Debug)]
pub struct SignedEvent {
    envelope: Envelope,
    id: EventId,
    deal_id: DealId,
    kind: EventKind,
    signer: Address,
    /// Signers of signatures inside the event that were recovered already, with what they are over.
    recovered: Vec<(Signature, B256, Result<Address, SignatureError>)>,
}

impl SignedEvent {
    /// The bytes as received.
    pub const fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// BLAKE3 of the event bytes.
    pub const fn id(&self) -> EventId {
        self.id
    }

    /// The deal it is said in.
    pub const fn deal_id(&self) -> DealId {
        self.deal_id
    }

    /// What it says.
    pub const fn kind(&self) -> &EventKind {
        &self.kind
    }

    /// Who signed it.
    pub const fn signer(&self) -> Address {
        self.signer
    }

    /// Recovers ahead what the rules will ask for, [`EventKind::consents`]: that takes most of the time, and can be done for
    /// many events side by side.
    #[must_use]
    pub fn recovered_ahead(mut self, terms: &Terms) -> Self {
        let consents = self.kind.consents(terms).into_iter();
        self.recovered = consents.map(|(signature, digest)| (signature, digest, signature.recover(digest))).collect();
        self
    }

    /// The signer of a signature inside this event over a digest.
    ///
    /// # Errors
    /// As [`Signature::recover`].
    pub fn recover(&self, signature: &Signature, digest: B256) -> Result<Address, SignatureError> {
        let known = self.recovered.iter().find(|(known, over, _)| known == signature && *over == digest);
        known.map_or_else(|| signature.recover(digest), |(_, _, signer)| signer.clone())
    }
}

use alloy_primitives::Address;

use crate::{DealId, Domain, EventId, IdError, Signature, SignatureError, SigningKey, proto};

/// What became of an event that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ReceiptStatus {
    /// Recorded, durably.
    Admitted = 1,
    /// Recorded before; version and position are those of the first time.
    Duplicate = 2,
    /// Not recorded; the reason says why. Sent again in its turn it may be admitted.
    Refused = 3,
}

/// The operator's signed word on what became of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The event.
    pub event_id: EventId,
    /// Its deal.
    pub deal_id: DealId,
    /// Its place in the deal's stream, from 1; 0 if refused.
    pub stream_version: u64,
    /// Its place in the whole log, from 1; 0 if refused.
    pub log_position: u64,
    /// What became of it.
    pub status: ReceiptStatus,
    /// Stable code of the rejection, empty unless refused.
    pub reason_code: String,
    /// One sentence, empty unless refused.
    pub reason: String,
    /// The domain the signature lives in: the deal's where the deal is known, else the one without a contract.
    pub domain: Domain,
}

impl Receipt {
    /// Signs and encodes it.
    pub fn sign(&self, operator: &SigningKey) -> proto::Receipt {
        let digest = self.domain.receipt_digest(&self.event_id, self.stream_version, self.log_position, self.status);
        proto::Receipt {
            event_id: self.event_id.bytes().to_vec(),
            deal_id: self.deal_id.bytes().to_vec(),
            stream_version: self.stream_version,
            log_position: self.log_position,
            status: self.status as i32,
            reason_code: self.reason_code.clone(),
            reason: self.reason.clone(),
            signature: operator.sign(digest).bytes().to_vec(),
            chain_id: self.domain.chain_id(),
            contract: self.domain.contract().to_vec(),
        }
    }

    /// Reads a signed receipt and tells who signed it.
    ///
    /// # Errors
    /// A sentence that names the field that is wrong.
    pub fn open(receipt: &proto::Receipt) -> Result<(Self, Address), String> {
        let id = |error: IdError| error.to_string();
        let status = match receipt.status {
            1 => ReceiptStatus::Admitted,
            2 => ReceiptStatus::Duplicate,
            3 => ReceiptStatus::Refused,
            other => return Err(format!("a receipt's status is 1, 2 or 3, not {other}")),
        };
        if receipt.contract.len() != 20 {
            return Err("a receipt's contract has 20 bytes".into());
        }
        let this = Self {
            event_id: EventId::from_slice(&receipt.event_id).map_err(id)?,
            deal_id: DealId::from_slice(&receipt.deal_id).map_err(id)?,
            stream_version: receipt.stream_version,
            log_position: receipt.log_position,
            status,
            reason_code: receipt.reason_code.clone(),
            reason: receipt.reason.clone(),
            domain: Domain::new(receipt.chain_id, Address::from_slice(&receipt.contract)),
        };
        let digest = this.domain.receipt_digest(&this.event_id, this.stream_version, this.log_position, this.status);
        let signer = Signature::from_slice(&receipt.signature)
            .and_then(|signature| signature.recover(digest))
            .map_err(|error: SignatureError| error.to_string())?;
        Ok((this, signer))
    }
}

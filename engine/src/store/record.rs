//! The record frame, version 1. All integers big-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | frame version, 1 |
//! | 1 | flags, 0 |
//! | 4, 4 | bytes of the event, bytes of the signature |
//! | 8, 8 | log position, stream version |
//! | 32, 32, 32 | deal id, event id, previous link |
//! | 8 | recorded at, microseconds |
//! | 20 | signer |
//! | … | event as sent, signature as sent |
//! | 32 | link: `ChainLink::extend(previous, all bytes before)` |
//!
//! The link is chain and checksum in one: a frame whose bytes changed has another link.

use tribunal_events::{Address, ChainLink, DealId, Envelope, EventId, Timestamp};

const FRAME_VERSION: u8 = 1;
const HEADER_BYTES: usize = 150;
const LINK_BYTES: usize = 32;

/// A recorded event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Place in the whole log, from 1, gapless.
    pub position: u64,
    /// Place in the deal's stream, from 1, gapless.
    pub version: u64,
    /// The deal.
    pub deal_id: DealId,
    /// BLAKE3 of the event bytes.
    pub event_id: EventId,
    /// When the engine received it.
    pub recorded_at: Timestamp,
    /// Who signed it, as recovered when it was received.
    pub signer: Address,
    /// The bytes received.
    pub envelope: Envelope,
    /// The deal's chain before this record.
    pub previous: ChainLink,
    /// The deal's chain after this record.
    pub link: ChainLink,
}

/// An event to record; position, version and links are the store's to give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRecord {
    /// The bytes received.
    pub envelope: Envelope,
    /// Who signed it.
    pub signer: Address,
    /// When the engine received it.
    pub recorded_at: Timestamp,
}

/// The bytes that a record's link covers, so that anyone can recompute `record.previous.extend(&record_bytes(record))`.
pub fn record_bytes(record: &Record) -> Vec<u8> {
    let (event, signature) = (record.envelope.event(), record.envelope.signature());
    let mut bytes = Vec::with_capacity(HEADER_BYTES + event.len() + signature.len() + LINK_BYTES);
    bytes.extend_from_slice(&[FRAME_VERSION, 0]);
    bytes.extend_from_slice(&length(event).to_be_bytes());
    bytes.extend_from_slice(&length(signature).to_be_bytes());
    bytes.extend_from_slice(&record.position.to_be_bytes());
    bytes.extend_from_slice(&record.version.to_be_bytes());
    bytes.extend_from_slice(record.deal_id.bytes());
    bytes.extend_from_slice(record.event_id.bytes());
    bytes.extend_from_slice(record.previous.bytes());
    bytes.extend_from_slice(&record.recorded_at.us().to_be_bytes());
    bytes.extend_from_slice(record.signer.as_slice());
    debug_assert_eq!(bytes.len(), HEADER_BYTES);
    bytes.extend_from_slice(event);
    bytes.extend_from_slice(signature);
    bytes
}

fn length(part: &[u8]) -> u32 {
    u32::try_from(part.len()).expect("an envelope is bounded to 256 KiB where it is decoded")
}

/// Seals a record: sets its link and gives the frame.
pub(super) fn seal(record: &mut Record) -> Vec<u8> {
    let mut frame = record_bytes(record);
    record.link = record.previous.extend(&frame);
    frame.extend_from_slice(record.link.bytes());
    frame
}

/// Reads a frame; the error says what is wrong with it.
pub(super) fn decode(frame: &[u8]) -> Result<Record, String> {
    match frame.first() {
        Some(&FRAME_VERSION) => {}
        Some(other) => return Err(format!("record frame version {other}, not {FRAME_VERSION}")),
        None => return Err("an empty record frame".into()),
    }
    if frame.len() < HEADER_BYTES + LINK_BYTES {
        return Err(format!("a record frame of {} bytes", frame.len()));
    }
    let event_bytes = u32::from_be_bytes(array(frame, 2)) as usize;
    let signature_bytes = u32::from_be_bytes(array(frame, 6)) as usize;
    let expected = HEADER_BYTES.saturating_add(event_bytes).saturating_add(signature_bytes).saturating_add(LINK_BYTES);
    if frame.len() != expected {
        return Err(format!("a record frame of {} bytes, not {expected}", frame.len()));
    }
    let (covered, link) = frame.split_at(frame.len() - LINK_BYTES);
    let previous = ChainLink::new(array(frame, 90));
    let link = ChainLink::new(array(link, 0));
    let computed = previous.extend(covered);
    if computed != link {
        return Err(format!("the link of the bytes is {computed}, stored is {link}"));
    }
    if frame[1] != 0 {
        return Err(format!("record flags {}, not 0", frame[1]));
    }
    let event = &covered[HEADER_BYTES..HEADER_BYTES + event_bytes];
    let record = Record {
        position: u64::from_be_bytes(array(frame, 10)),
        version: u64::from_be_bytes(array(frame, 18)),
        deal_id: DealId::new(array(frame, 26)),
        event_id: EventId::new(array(frame, 58)),
        recorded_at: Timestamp::from_us(u64::from_be_bytes(array(frame, 122))),
        signer: Address::from(array::<20>(frame, 130)),
        envelope: Envelope::from_parts(event.to_vec(), covered[HEADER_BYTES + event_bytes..].to_vec()),
        previous,
        link,
    };
    let event_id = record.envelope.event_id();
    if event_id != record.event_id {
        return Err(format!("the id of the event bytes is {event_id}, stored is {}", record.event_id));
    }
    Ok(record)
}

/// `N` bytes at `at`; the caller has checked the length.
pub(super) fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the length was checked")
}

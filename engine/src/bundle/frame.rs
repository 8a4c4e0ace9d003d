//! The record frame, read without the store: what a second implementation would write.

use tribunal_events::{Address, ChainLink, DealId, Envelope, EventId, Timestamp};

use crate::store::{Record, record_bytes};

const HEADER_BYTES: usize = 150;
const LINK_BYTES: usize = 32;

/// A record as a section.
pub fn encode_frame(record: &Record) -> Vec<u8> {
    let mut frame = record_bytes(record);
    frame.extend_from_slice(record.link.bytes());
    frame
}

/// Reads a section as a record. Ids and links are taken as they stand: the examination computes them again.
///
/// # Errors
/// A sentence that says what is wrong with the form.
pub fn decode_frame(frame: &[u8]) -> Result<Record, String> {
    let mut rest = frame;
    let [version, flags] = take(&mut rest)?;
    if (version, flags) != (1, 0) {
        return Err(format!("frame version {version} with flags {flags}, not 1 with 0"));
    }
    let event_bytes = u32::from_be_bytes(take(&mut rest)?) as usize;
    let signature_bytes = u32::from_be_bytes(take(&mut rest)?) as usize;
    let expected = HEADER_BYTES.checked_add(event_bytes).and_then(|sum| sum.checked_add(signature_bytes));
    if expected.and_then(|sum| sum.checked_add(LINK_BYTES)) != Some(frame.len()) {
        return Err(format!("{} bytes, which is not what its lengths say", frame.len()));
    }
    let position = u64::from_be_bytes(take(&mut rest)?);
    let version = u64::from_be_bytes(take(&mut rest)?);
    let deal_id = DealId::new(take(&mut rest)?);
    let event_id = EventId::new(take(&mut rest)?);
    let previous = ChainLink::new(take(&mut rest)?);
    let recorded_at = Timestamp::from_us(u64::from_be_bytes(take(&mut rest)?));
    let signer = Address::from(take::<20>(&mut rest)?);
    let (event, rest) = rest.split_at(event_bytes);
    let (signature, mut rest) = rest.split_at(signature_bytes);
    let envelope = Envelope::from_parts(event.to_vec(), signature.to_vec());
    let link = ChainLink::new(take(&mut rest)?);
    Ok(Record { position, version, deal_id, event_id, recorded_at, signer, envelope, previous, link })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], String> {
    let (bytes, after) = rest.split_first_chunk::<N>().ok_or("it ends within its header")?;
    *rest = after;
    Ok(*bytes)
}

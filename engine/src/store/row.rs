//! Small rows: a body and an 8-byte seal, BLAKE3 over family, key and body, so that a row under another key or with other
//! bytes is noticed whatever layer changed it.

use tribunal_events::{ChainLink, DealId, Timestamp};

use super::{Cursor, Head, OutboxEntry, Place, Refused, StoreFault, family::Family, record::array};

const SEAL_BYTES: usize = 8;

fn seal_of(family: Family, key: &[u8], body: &[u8]) -> [u8; SEAL_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(family.name().as_bytes()).update(&[0]).update(&(key.len() as u64).to_be_bytes());
    hasher.update(key).update(body);
    array(hasher.finalize().as_bytes(), 0)
}

pub(super) fn seal(family: Family, key: &[u8], mut body: Vec<u8>) -> Vec<u8> {
    let seal = seal_of(family, key, &body);
    body.extend_from_slice(&seal);
    body
}

pub(super) fn unseal<'a>(family: Family, key: &[u8], row: &'a [u8]) -> Result<&'a [u8], StoreFault> {
    let split = row.len().checked_sub(SEAL_BYTES).map(|at| row.split_at(at));
    match split {
        Some((body, seal)) if seal == seal_of(family, key, body) => Ok(body),
        _ => Err(damaged(family, key, "the row does not match its seal")),
    }
}

pub(super) fn damaged(family: Family, key: &[u8], what: &str) -> StoreFault {
    StoreFault::damaged(Place::Row(family.name(), hex::encode(key)), what)
}

pub(super) fn index_key(deal_id: &DealId, version: u64) -> [u8; 40] {
    let mut key = [0; 40];
    key[..32].copy_from_slice(deal_id.bytes());
    key[32..].copy_from_slice(&version.to_be_bytes());
    key
}

pub(super) fn index_row(position: u64, link: &ChainLink) -> [u8; 40] {
    let mut row = [0; 40];
    row[..8].copy_from_slice(&position.to_be_bytes());
    row[8..].copy_from_slice(link.bytes());
    row
}

pub(super) fn read_index_row(deal_id: &DealId, row: &[u8]) -> Result<(u64, ChainLink), StoreFault> {
    if row.len() != 40 {
        let what = format!("a stream index row of {} bytes, not 40", row.len());
        return Err(StoreFault::damaged(Place::Deal(*deal_id), what));
    }
    Ok((u64::from_be_bytes(array(row, 0)), ChainLink::new(array(row, 8))))
}

pub(super) fn head_body(head: &Head) -> Vec<u8> {
    let mut body = Vec::with_capacity(49 + SEAL_BYTES);
    body.extend_from_slice(&head.version.to_be_bytes());
    body.extend_from_slice(&head.last_position.to_be_bytes());
    body.push(u8::from(head.open));
    body.extend_from_slice(head.link.bytes());
    body
}

pub(super) fn read_head(key: &[u8], row: &[u8]) -> Result<Head, StoreFault> {
    let body = unseal(Family::Heads, key, row)?;
    if body.len() != 49 {
        return Err(damaged(Family::Heads, key, "a head has 49 bytes"));
    }
    Ok(Head {
        version: u64::from_be_bytes(array(body, 0)),
        last_position: u64::from_be_bytes(array(body, 8)),
        open: body[16] != 0,
        link: ChainLink::new(array(body, 17)),
    })
}

/// `stream ‖ 0 ‖ incarnation`: the newest incarnation is the last row of the stream.
pub(super) fn cursor_key(stream: &str, incarnation: u32) -> Vec<u8> {
    let mut key = Vec::with_capacity(stream.len() + 5);
    key.extend_from_slice(stream.as_bytes());
    key.push(0);
    key.extend_from_slice(&incarnation.to_be_bytes());
    key
}

pub(super) fn cursor_body(cursor: &Cursor) -> Vec<u8> {
    let mut body = Vec::with_capacity(52 + SEAL_BYTES);
    body.extend_from_slice(&cursor.sequence.to_be_bytes());
    body.extend_from_slice(&cursor.message_hash);
    body.extend_from_slice(&cursor.stream_created_us.to_be_bytes());
    body.extend_from_slice(&cursor.incarnation.to_be_bytes());
    body
}

pub(super) fn read_cursor(key: &[u8], row: &[u8]) -> Result<Cursor, StoreFault> {
    let body = unseal(Family::Cursors, key, row)?;
    if body.len() != 52 {
        return Err(damaged(Family::Cursors, key, "a cursor has 52 bytes"));
    }
    Ok(Cursor {
        sequence: u64::from_be_bytes(array(body, 0)),
        message_hash: array(body, 8),
        stream_created_us: u64::from_be_bytes(array(body, 40)),
        incarnation: u32::from_be_bytes(array(body, 48)),
    })
}

/// `order` is the log position after which the entry was added and its place in that append.
pub(super) fn outbox_body(entry: &OutboxEntry, order: (u64, u32)) -> Vec<u8> {
    let mut body = Vec::with_capacity(44 + entry.payload.len() + SEAL_BYTES);
    body.extend_from_slice(&order.0.to_be_bytes());
    body.extend_from_slice(&order.1.to_be_bytes());
    body.extend_from_slice(entry.deal_id.bytes());
    body.extend_from_slice(&entry.payload);
    body
}

pub(super) fn read_outbox(key: &[u8], row: &[u8]) -> Result<((u64, u32), OutboxEntry), StoreFault> {
    let body = unseal(Family::Outbox, key, row)?;
    if body.len() < 44 || key.len() != 32 {
        return Err(damaged(Family::Outbox, key, "an outbox row has a key of 32 bytes and at least 44"));
    }
    let order = (u64::from_be_bytes(array(body, 0)), u32::from_be_bytes(array(body, 8)));
    let deal_id = DealId::new(array(body, 12));
    Ok((order, OutboxEntry { id: array(key, 0), deal_id, payload: body[44..].to_vec() }))
}

pub(super) fn refused_body(refused: &Refused) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend_from_slice(&refused.sequence.to_be_bytes());
    body.extend_from_slice(&refused.at.us().to_be_bytes());
    for part in [refused.subject.as_bytes(), refused.reason_code.as_bytes(), refused.reason.as_bytes()] {
        body.extend_from_slice(&(part.len() as u32).to_be_bytes());
        body.extend_from_slice(part);
    }
    body.extend_from_slice(&refused.bytes);
    body
}

pub(super) fn read_refused(key: &[u8], row: &[u8]) -> Result<Refused, StoreFault> {
    let body = unseal(Family::Refused, key, row)?;
    let parse = || {
        let (sequence, rest) = body.split_first_chunk::<8>()?;
        let (at, mut rest) = rest.split_first_chunk::<8>()?;
        let mut texts = [const { String::new() }; 3];
        for text in &mut texts {
            let (length, after) = rest.split_first_chunk::<4>()?;
            let (part, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize)?;
            *text = String::from_utf8(part.to_vec()).ok()?;
            rest = after;
        }
        let [subject, reason_code, reason] = texts;
        let (sequence, at) = (u64::from_be_bytes(*sequence), Timestamp::from_us(u64::from_be_bytes(*at)));
        Some(Refused { subject, sequence, at, reason_code, reason, bytes: rest.to_vec() })
    };
    parse().ok_or_else(|| damaged(Family::Refused, key, "a refused row ends early"))
}

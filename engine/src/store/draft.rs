use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::Ordering,
};

use rocksdb::WriteBatch;
use tribunal_events::{
    ChainLink, DealId, EventId,
    tlog::{Hash, leaf_hash},
};

use super::{
    Append, CursorUpdate, Head, REFUSED_BYTES_MAX, Record, Store, StoreFault, Writer, family::Family, record, row,
};

/// One write in the making, of one append or of several. Each is taken whole or not at all, and sees those taken before.
pub(super) struct Draft<'a> {
    store: &'a Store,
    batch: WriteBatch,
    /// The log's end.
    position: u64,
    next_refused: u64,
    /// Of deals that gain something.
    heads: BTreeMap<DealId, Head>,
    /// Where events of this write are.
    seen: BTreeMap<EventId, u64>,
    /// Incarnation and sequence, by stream.
    cursors: BTreeMap<String, (u32, u64)>,
    leaves: Vec<Hash>,
}

/// What has to be known of an append before anything of it is taken.
struct Sound {
    /// Where its deals stand now.
    heads: BTreeMap<DealId, Head>,
    /// Ids of its events, in order.
    ids: Vec<EventId>,
}

const NO_DEAL: Head = Head { version: 0, last_position: 0, open: false, link: ChainLink::GENESIS };

impl<'a> Draft<'a> {
    pub(super) fn new(store: &'a Store, writer: &Writer) -> Self {
        Self {
            store,
            batch: WriteBatch::default(),
            position: store.last_position(),
            next_refused: writer.next_refused,
            heads: BTreeMap::new(),
            seen: BTreeMap::new(),
            cursors: BTreeMap::new(),
            leaves: Vec::new(),
        }
    }

    /// Takes an append, or says why it cannot be and leaves no trace of it.
    pub(super) fn take(&mut self, append: Append) -> Result<Vec<Record>, StoreFault> {
        let Sound { heads, ids } = self.examine(&append)?;
        let inner = &*self.store.0;
        let mut ids = ids.into_iter();
        let mut records = Vec::with_capacity(ids.len());
        for stream in append.streams {
            let deal_id = stream.deal_id;
            let mut head = self.heads.get(&deal_id).or(heads.get(&deal_id)).copied().unwrap_or(NO_DEAL);
            for (new, event_id) in stream.records.into_iter().zip(ids.by_ref()) {
                self.position += 1;
                let mut record = Record {
                    position: self.position,
                    version: head.version + 1,
                    deal_id,
                    event_id,
                    recorded_at: new.recorded_at,
                    signer: new.signer,
                    envelope: new.envelope,
                    previous: head.link,
                    link: ChainLink::GENESIS,
                };
                let frame = record::seal(&mut record);
                self.leaves.push(leaf_hash(&frame));
                self.batch.put_cf(inner.family(Family::Events), record.position.to_be_bytes(), frame);
                let key = row::index_key(&deal_id, record.version);
                self.batch.put_cf(inner.family(Family::Index), key, row::index_row(record.position, &record.link));
                let position = record.position.to_be_bytes();
                self.batch.put_cf(inner.family(Family::EventIds), event_id.bytes(), position);
                self.seen.insert(event_id, record.position);
                head = Head { version: record.version, last_position: record.position, link: record.link, ..head };
                records.push(record);
            }
            if head.version == 0 {
                continue; // no event yet, so there is no deal
            }
            let was_open = std::mem::replace(&mut head.open, stream.open);
            if stream.open && !was_open {
                self.batch.put_cf(inner.family(Family::Open), deal_id.bytes(), []);
            } else if was_open && !stream.open {
                self.batch.delete_cf(inner.family(Family::Open), deal_id.bytes());
            }
            if let Some(bytes) = stream.snapshot {
                let mut body = head.version.to_be_bytes().to_vec();
                body.extend_from_slice(&bytes);
                let row = row::seal(Family::Snapshots, deal_id.bytes(), body);
                self.batch.put_cf(inner.family(Family::Snapshots), deal_id.bytes(), row);
            }
            self.heads.insert(deal_id, head);
        }
        if let Some(CursorUpdate { stream, cursor }) = append.cursor {
            let key = row::cursor_key(&stream, cursor.incarnation);
            let row = row::seal(Family::Cursors, &key, row::cursor_body(&cursor));
            self.batch.put_cf(inner.family(Family::Cursors), key, row);
            self.cursors.insert(stream, (cursor.incarnation, cursor.sequence));
        }
        for (index, entry) in (0u32..).zip(&append.outbox_add) {
            let row = row::seal(Family::Outbox, &entry.id, row::outbox_body(entry, (self.position, index)));
            self.batch.put_cf(inner.family(Family::Outbox), entry.id, row);
        }
        for id in &append.outbox_done {
            self.batch.delete_cf(inner.family(Family::Outbox), id);
        }
        for mut refused in append.refused {
            refused.bytes.truncate(REFUSED_BYTES_MAX);
            let key = self.next_refused.to_be_bytes();
            let row = row::seal(Family::Refused, &key, row::refused_body(&refused));
            self.batch.put_cf(inner.family(Family::Refused), key, row);
            self.next_refused += 1;
        }
        self.store.put_projections(&mut self.batch, append.projections);
        Ok(records)
    }

    /// Everything that can refuse an append.
    fn examine(&self, append: &Append) -> Result<Sound, StoreFault> {
        let inner = &*self.store.0;
        let (mut heads, mut versions) = (BTreeMap::new(), BTreeMap::new());
        let (mut ids, mut own) = (Vec::new(), BTreeSet::new());
        for stream in &append.streams {
            let deal_id = stream.deal_id;
            let found = match (versions.get(&deal_id), self.heads.get(&deal_id)) {
                (Some(version), _) => *version,
                (None, Some(head)) => head.version,
                (None, None) => {
                    let head = inner.head(&deal_id)?.unwrap_or(NO_DEAL);
                    heads.insert(deal_id, head);
                    head.version
                }
            };
            if found != stream.expected_version {
                return Err(StoreFault::Conflict { deal_id, expected: stream.expected_version, found });
            }
            for new in &stream.records {
                let event_id = new.envelope.event_id();
                if !own.insert(event_id) {
                    return Err(StoreFault::Duplicate { event_id, position: None });
                }
                let known = match self.seen.get(&event_id) {
                    Some(position) => Some(*position),
                    None => inner.position_of(&event_id)?,
                };
                if known.is_some() {
                    return Err(StoreFault::Duplicate { event_id, position: known });
                }
                ids.push(event_id);
            }
            versions.insert(deal_id, found + stream.records.len() as u64);
        }
        if let Some(CursorUpdate { stream, cursor }) = &append.cursor {
            let known = match self.cursors.get(stream) {
                Some(known) => Some(*known),
                None => inner.cursor(stream)?.map(|cursor| (cursor.incarnation, cursor.sequence)),
            };
            let given = (cursor.incarnation, cursor.sequence);
            if let Some(found) = known.filter(|found| given < *found) {
                return Err(StoreFault::CursorBack { stream: stream.clone(), found, given });
            }
        }
        Ok(Sound { heads, ids })
    }

    /// Writes all that was taken.
    pub(super) fn write(mut self, writer: &mut Writer) -> Result<(), StoreFault> {
        let inner = &*self.store.0;
        for (deal_id, head) in &self.heads {
            let row = row::seal(Family::Heads, deal_id.bytes(), row::head_body(head));
            self.batch.put_cf(inner.family(Family::Heads), deal_id.bytes(), row);
        }
        writer.edge.append(&self.leaves, inner, &mut self.batch);
        if self.batch.is_empty() {
            return Ok(());
        }
        self.store.commit_at(self.batch, false, self.position)?;
        writer.next_refused = self.next_refused;
        inner.last_position.store(self.position, Ordering::Release);
        Ok(())
    }
}

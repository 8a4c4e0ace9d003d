use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{MutexGuard, atomic::Ordering},
};

use rocksdb::{IteratorMode, WriteBatch, WriteOptions, checkpoint::Checkpoint};
use tribunal_events::{ChainLink, DealId, tlog::leaf_hash};

use super::{
    Access, Cursor, Fsync, Head, Intent, META_FORMAT, NewRecord, OutboxEntry, REFUSED_BYTES_MAX, Record, Refused, Row,
    Store, StoreFault, Writer,
    family::{self, Family},
    record, row,
};

/// Bytes that a copy writes at once.
const COPY_BATCH_BYTES: usize = 4 << 20;

/// What one deal gains.
#[derive(Clone, Debug)]
pub struct StreamAppend {
    /// The deal.
    pub deal_id: DealId,
    /// The version that the caller decided on; 0 for a new deal.
    pub expected_version: u64,
    /// What happened, in order.
    pub records: Vec<NewRecord>,
    /// Whether the deal may still move afterwards.
    pub open: bool,
    /// The fold after these records, where it is worth saving.
    pub snapshot: Option<Vec<u8>>,
}

/// How far a bus stream has been read.
#[derive(Clone, Debug)]
pub struct CursorUpdate {
    /// The bus stream.
    pub stream: String,
    /// Where reading goes on.
    pub cursor: Cursor,
}

/// A row of a read model to write or to remove; the store does not look into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Projection {
    /// The key; rows are in its byte order.
    pub key: Vec<u8>,
    /// The value; nothing removes the row.
    pub value: Option<Vec<u8>>,
}

/// Everything that becomes true at once.
#[derive(Clone, Debug, Default)]
pub struct Append {
    /// Events, by deal. A deal may occur more than once; the later one expects the version after the earlier.
    pub streams: Vec<StreamAppend>,
    /// How far the bus was read.
    pub cursor: Option<CursorUpdate>,
    /// Effects to be done.
    pub outbox_add: Vec<OutboxEntry>,
    /// Effects that are done.
    pub outbox_done: Vec<[u8; 32]>,
    /// Messages that were not admitted.
    pub refused: Vec<Refused>,
    /// Rows of read models.
    pub projections: Vec<Projection>,
}

impl Store {
    /// Writes everything or nothing. Under [`Fsync::Always`] it is on the disk when this returns.
    ///
    /// # Errors
    /// [`StoreFault::Conflict`], [`StoreFault::Duplicate`] and [`StoreFault::CursorBack`]: nothing was written. Any fault
    /// of the write itself: unknown what was written, and the store is poisoned.
    pub fn append(&self, append: Append) -> Result<Vec<Record>, StoreFault> {
        let inner = &*self.0;
        let mut writer = self.writer()?;
        let mut batch = WriteBatch::default();
        let mut position = self.last_position();
        let mut heads: BTreeMap<DealId, Head> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        let count = append.streams.iter().map(|stream| stream.records.len()).sum();
        let (mut records, mut leaves) = (Vec::with_capacity(count), Vec::with_capacity(count));

        for stream in append.streams {
            let deal_id = stream.deal_id;
            let known = match heads.get(&deal_id) {
                Some(head) => Some(*head),
                None => inner.head(&deal_id)?,
            };
            let start = Head { version: 0, last_position: 0, open: false, link: ChainLink::GENESIS };
            let mut head = known.unwrap_or(start);
            if head.version != stream.expected_version {
                let (expected, found) = (stream.expected_version, head.version);
                return Err(StoreFault::Conflict { deal_id, expected, found });
            }
            for new in stream.records {
                let event_id = new.envelope.event_id();
                if !seen.insert(event_id) {
                    return Err(StoreFault::Duplicate { event_id, position: None });
                }
                if let Some(position) = inner.position_of(&event_id)? {
                    return Err(StoreFault::Duplicate { event_id, position: Some(position) });
                }
                position += 1;
                let mut record = Record {
                    position,
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
                leaves.push(leaf_hash(&frame));
                batch.put_cf(inner.family(Family::Events), position.to_be_bytes(), frame);
                let key = row::index_key(&deal_id, record.version);
                batch.put_cf(inner.family(Family::Index), key, row::index_row(position, &record.link));
                batch.put_cf(inner.family(Family::EventIds), event_id.bytes(), position.to_be_bytes());
                head.version = record.version;
                head.last_position = position;
                head.link = record.link;
                records.push(record);
            }
            if head.version == 0 {
                continue; // no event yet, so there is no deal
            }
            let was_open = std::mem::replace(&mut head.open, stream.open);
            if stream.open && !was_open {
                batch.put_cf(inner.family(Family::Open), deal_id.bytes(), []);
            } else if was_open && !stream.open {
                batch.delete_cf(inner.family(Family::Open), deal_id.bytes());
            }
            if let Some(bytes) = stream.snapshot {
                let mut body = head.version.to_be_bytes().to_vec();
                body.extend_from_slice(&bytes);
                let row = row::seal(Family::Snapshots, deal_id.bytes(), body);
                batch.put_cf(inner.family(Family::Snapshots), deal_id.bytes(), row);
            }
            heads.insert(deal_id, head);
        }
        for (deal_id, head) in &heads {
            let row = row::seal(Family::Heads, deal_id.bytes(), row::head_body(head));
            batch.put_cf(inner.family(Family::Heads), deal_id.bytes(), row);
        }
        if let Some(update) = append.cursor {
            self.put_cursor(&mut batch, &update)?;
        }
        for (index, entry) in (0u32..).zip(&append.outbox_add) {
            let row = row::seal(Family::Outbox, &entry.id, row::outbox_body(entry, (position, index)));
            batch.put_cf(inner.family(Family::Outbox), entry.id, row);
        }
        for id in &append.outbox_done {
            batch.delete_cf(inner.family(Family::Outbox), id);
        }
        let mut next_refused = writer.next_refused;
        for mut refused in append.refused {
            refused.bytes.truncate(REFUSED_BYTES_MAX);
            let key = next_refused.to_be_bytes();
            let row = row::seal(Family::Refused, &key, row::refused_body(&refused));
            batch.put_cf(inner.family(Family::Refused), key, row);
            next_refused += 1;
        }
        self.put_projections(&mut batch, append.projections);
        writer.edge.append(&leaves, inner, &mut batch);
        if batch.is_empty() {
            return Ok(records);
        }
        self.commit(batch, false)?;
        writer.next_refused = next_refused;
        inner.last_position.store(position, Ordering::Release);
        if let Access::Write { fsync: Fsync::Always, mark, .. } = &inner.access
            && !records.is_empty()
            && let Err(error) = mark.set(position)
        {
            // The records are safe; what is lost is the means to notice damage of the log's end.
            tracing::warn!(%error, "the store's mark could not be written");
        }
        Ok(records)
    }

    /// Writes rows of read models alone; synced.
    ///
    /// # Errors
    /// As [`Store::append`].
    pub fn project(&self, rows: Vec<Projection>) -> Result<(), StoreFault> {
        let _writer = self.writer()?;
        let mut batch = WriteBatch::default();
        self.put_projections(&mut batch, rows);
        self.commit(batch, true)
    }

    /// Stores a value under a key once and for all, synced: the first value wins, whoever else tries.
    ///
    /// # Errors
    /// As [`Store::append`].
    pub fn put_intent(&self, key: &[u8], value: &[u8]) -> Result<Intent, StoreFault> {
        let _writer = self.writer()?;
        if let Some(row) = self.0.get(Family::Intents, key)? {
            return row::unseal(Family::Intents, key, &row).map(|value| Intent::Existing(value.to_vec()));
        }
        let mut batch = WriteBatch::default();
        let row = row::seal(Family::Intents, key, value.to_vec());
        batch.put_cf(self.0.family(Family::Intents), key, row);
        self.commit(batch, true)?;
        Ok(Intent::New)
    }

    /// The value stored under a key by [`Store::put_intent`].
    ///
    /// # Errors
    /// [`StoreFault`] if it cannot be read.
    pub fn intent(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault> {
        let Some(row) = self.0.get(Family::Intents, key)? else { return Ok(None) };
        row::unseal(Family::Intents, key, &row).map(|value| Some(value.to_vec()))
    }

    /// Every value stored by [`Store::put_intent`], by key.
    ///
    /// # Errors
    /// [`StoreFault`] if they cannot be read.
    pub fn intents(&self) -> Result<Vec<Row>, StoreFault> {
        let rows = self.0.rows(Family::Intents, &[], usize::MAX)?;
        let read = |(key, row): Row| {
            row::unseal(Family::Intents, &key, &row).map(<[u8]>::to_vec).map(|body| (key.clone(), body))
        };
        rows.into_iter().map(read).collect()
    }

    /// Keeps a value beside the log; synced. The name `format` is the store's own.
    ///
    /// # Errors
    /// As [`Store::append`].
    ///
    /// # Panics
    /// If the name is `format`.
    pub fn put_meta(&self, name: &str, value: &[u8]) -> Result<(), StoreFault> {
        assert_ne!(name, META_FORMAT, "the format version is the store's own");
        let _writer = self.writer()?;
        let mut batch = WriteBatch::default();
        let row = row::seal(Family::Meta, name.as_bytes(), value.to_vec());
        batch.put_cf(self.0.family(Family::Meta), name, row);
        self.commit(batch, true)
    }

    /// A copy of the store as it stands in a directory that must not exist: hard links where this is the writer, row by
    /// row where it is a reader.
    ///
    /// # Errors
    /// [`StoreFault::Io`] if the directory exists or cannot be written.
    pub fn checkpoint(&self, directory: impl AsRef<Path>) -> Result<(), StoreFault> {
        let directory = directory.as_ref();
        self.0.usable()?;
        if directory.exists() {
            let source = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
            return Err(StoreFault::io("writing a checkpoint", source));
        }
        if let Access::Read { .. } = self.0.access {
            return self.copy(directory);
        }
        let checkpoint = Checkpoint::new(&self.0.db).and_then(|it| it.create_checkpoint(directory));
        checkpoint.map_err(|error| StoreFault::rocks("writing a checkpoint", error))
    }

    fn copy(&self, directory: &Path) -> Result<(), StoreFault> {
        let fault = |error| StoreFault::rocks("copying the store", error);
        std::fs::create_dir_all(directory).map_err(|error| StoreFault::io("copying the store", error))?;
        let options = family::database_options(true);
        let to = rocksdb::DB::open_cf_descriptors(&options, directory, family::descriptors(&[])).map_err(fault)?;
        for family in Family::ALL {
            let handle = to.cf_handle(family.name()).expect("opened with every family");
            let mut batch = WriteBatch::default();
            for row in self.0.db.full_iterator_cf(self.0.family(family), IteratorMode::Start) {
                let (key, row) = row.map_err(fault)?;
                batch.put_cf(handle, key, row);
                if batch.size_in_bytes() > COPY_BATCH_BYTES {
                    to.write(std::mem::take(&mut batch)).map_err(fault)?;
                }
            }
            to.write(batch).map_err(fault)?;
        }
        let mut options = WriteOptions::default();
        options.set_sync(true);
        to.write_opt(WriteBatch::default(), &options).and_then(|()| to.flush_wal(true)).map_err(fault)
    }

    pub(super) fn writer(&self) -> Result<MutexGuard<'_, Writer>, StoreFault> {
        self.0.usable()?;
        if let Access::Read { .. } = self.0.access {
            return Err(StoreFault::ReadOnly);
        }
        // A panic while the lock was held leaves the numbers in memory in doubt.
        let guard = self.0.writer.lock().map_err(|_| {
            self.0.poison();
            StoreFault::Poisoned
        })?;
        self.0.usable()?;
        Ok(guard)
    }

    pub(super) fn commit(&self, batch: WriteBatch, always_sync: bool) -> Result<(), StoreFault> {
        let Access::Write { fsync, group, .. } = &self.0.access else { return Err(StoreFault::ReadOnly) };
        self.0.write(batch, always_sync || *fsync == Fsync::Always)?;
        if let Some(group) = group {
            group.written();
        }
        Ok(())
    }

    fn put_cursor(&self, batch: &mut WriteBatch, update: &CursorUpdate) -> Result<(), StoreFault> {
        let CursorUpdate { stream, cursor } = update;
        if let Some(known) = self.0.cursor(stream)? {
            let (found, given) = ((known.incarnation, known.sequence), (cursor.incarnation, cursor.sequence));
            if given < found {
                return Err(StoreFault::CursorBack { stream: stream.clone(), found, given });
            }
        }
        let key = row::cursor_key(stream, cursor.incarnation);
        let row = row::seal(Family::Cursors, &key, row::cursor_body(cursor));
        batch.put_cf(self.0.family(Family::Cursors), key, row);
        Ok(())
    }

    fn put_projections(&self, batch: &mut WriteBatch, rows: Vec<Projection>) {
        let family = self.0.family(Family::Projections);
        for Projection { key, value } in rows {
            match value {
                Some(value) => batch.put_cf(family, &key, row::seal(Family::Projections, &key, value)),
                None => batch.delete_cf(family, &key),
            }
        }
    }
}

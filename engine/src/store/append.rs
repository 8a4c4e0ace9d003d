use std::{path::Path, sync::MutexGuard};

use rocksdb::{IteratorMode, ReadOptions, WriteBatch, WriteOptions, checkpoint::Checkpoint};
use tribunal_events::DealId;

use super::{
    Access, Cursor, Fsync, Intent, META_FORMAT, NewRecord, OutboxEntry, Refused, Row, Store, StoreFault, Writer,
    family::{self, Family},
    mark::{Mark, MarkFile},
    row,
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
        // Taken first: the copy can only be ahead of it.
        let reached = Mark { position: self.last_position(), sequence: self.0.db.latest_sequence_number() };
        let checkpoint = Checkpoint::new(&self.0.db).and_then(|it| it.create_checkpoint(directory));
        checkpoint.map_err(|error| StoreFault::rocks("writing a checkpoint", error))?;
        mark(directory, reached)
    }

    fn copy(&self, directory: &Path) -> Result<(), StoreFault> {
        let fault = |error| StoreFault::rocks("copying the store", error);
        std::fs::create_dir_all(directory).map_err(|error| StoreFault::io("copying the store", error))?;
        let options = family::database_options(true);
        let to = rocksdb::DB::open_cf_descriptors(&options, directory, family::descriptors(&[])).map_err(fault)?;
        for family in Family::ALL {
            let handle = to.cf_handle(family.name()).expect("opened with every family");
            let mut batch = WriteBatch::default();
            let mut options = ReadOptions::default();
            options.fill_cache(false);
            options.set_total_order_seek(true);
            for row in self.0.db.iterator_cf_opt(self.0.family(family), options, IteratorMode::Start) {
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
        to.write_opt(WriteBatch::default(), &options).and_then(|()| to.flush_wal(true)).map_err(fault)?;
        mark(directory, Mark { position: self.last_position(), sequence: to.latest_sequence_number() })
    }

    /// Refuses a reader, and a store whose write failed.
    pub(super) fn writable(&self) -> Result<(), StoreFault> {
        self.0.usable()?;
        if self.is_writer() { Ok(()) } else { Err(StoreFault::ReadOnly) }
    }

    pub(super) fn writer(&self) -> Result<MutexGuard<'_, Writer>, StoreFault> {
        self.writable()?;
        // A panic while the lock was held leaves the numbers in memory in doubt.
        let guard = self.0.writer.lock().map_err(|_| {
            self.0.poison();
            StoreFault::Poisoned
        })?;
        self.0.usable()?;
        Ok(guard)
    }

    /// Writes a batch of rows that are no records.
    pub(super) fn commit(&self, batch: WriteBatch, always_sync: bool) -> Result<(), StoreFault> {
        self.commit_at(batch, always_sync, self.last_position())
    }

    /// Writes a batch after which `position` is the log's end.
    pub(super) fn commit_at(&self, batch: WriteBatch, always_sync: bool, position: u64) -> Result<(), StoreFault> {
        let Access::Write { fsync, group, mark } = &self.0.access else { return Err(StoreFault::ReadOnly) };
        let sync = always_sync || *fsync == Fsync::Always;
        self.0.write(batch, sync)?;
        let reached = Mark { position, sequence: self.0.db.latest_sequence_number() };
        if sync && let Err(error) = mark.set(reached) {
            // What was written is safe; what is lost is the means to notice damage of the log's end.
            tracing::warn!(%error, "the store's mark could not be written");
        }
        if let Some(group) = group {
            group.written(reached);
        }
        Ok(())
    }

    pub(super) fn put_projections(&self, batch: &mut WriteBatch, rows: Vec<Projection>) {
        let family = self.0.family(Family::Projections);
        for Projection { key, value } in rows {
            match value {
                Some(value) => batch.put_cf(family, &key, row::seal(Family::Projections, &key, value)),
                None => batch.delete_cf(family, &key),
            }
        }
    }
}

fn mark(directory: &Path, reached: Mark) -> Result<(), StoreFault> {
    let written = MarkFile::open(directory).and_then(|file| file.set(reached));
    written.map_err(|error| StoreFault::io("writing the copy's mark", error))
}

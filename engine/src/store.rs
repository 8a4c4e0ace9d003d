//! The record: an append-only log of deal events over RocksDB, one writer, many readers.
//!
//! [`Store::append`] writes events, heads, seen-markers, tree nodes, outbox and bus cursor in one synced batch.
//! Everything else reads. Start at [`Append`], then [`Record`].
//!
//! **Invariant:** positions are gapless over the log, versions gapless over a deal; both start from 1.
//! **Invariant:** an event id is stored once, for ever.
//! **Invariant:** what `append` returned under [`Fsync::Always`] is there after any crash.
//! **Invariant:** no read returns bytes that differ from those written; damage is a [`StoreFault::Damaged`].
//! **Invariant:** after a failed write the store answers nothing until it is opened again, because only then is known
//! what reached the disk.

mod append;
mod check;
mod checkpoints;
mod family;
mod fault;
mod group;
mod head_map;
mod mark;
mod open;
mod reader;
mod record;
mod row;
mod tree;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use rocksdb::{ColumnFamily, DB, DBPinnableSlice, IteratorMode, WriteBatch, WriteOptions};
use tribunal_events::{ChainLink, DealId, EventId, Timestamp};

pub use self::{
    append::{Append, CursorUpdate, Projection, StreamAppend},
    check::CheckReport,
    checkpoints::{DealHead, LogState},
    fault::{Place, StoreFault},
    reader::{Deals, Log, Stream},
    record::{NewRecord, Record, record_bytes},
};
use self::{family::Family, group::GroupSync, head_map::HeadMap, mark::Mark, tree::Edge};

/// The format this program reads and writes.
pub const FORMAT: u64 = 2;
/// Bytes of a refused message that are kept.
pub const REFUSED_BYTES_MAX: usize = 4096;

const META_FORMAT: &str = "format";

/// When a write is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Before `append` returns.
    Always,
    /// At most 20 ms after `append` returned; a killed process loses nothing, a power failure what is younger.
    Group,
    /// When the operating system pleases. For tests and for what can be made again.
    Never,
}

/// Where a deal stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Version of the last record.
    pub version: u64,
    /// Log position of the last record.
    pub last_position: u64,
    /// Whether the deal may still move.
    pub open: bool,
    /// The deal's chain after the last record.
    pub link: ChainLink,
}

/// Where an event is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    /// Its place in the log.
    pub position: u64,
    /// Its place in the deal's stream.
    pub version: u64,
    /// Its deal.
    pub deal_id: DealId,
}

/// How far a stream of the bus was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Sequence of the last message taken.
    pub sequence: u64,
    /// BLAKE3 of that message: subject, a zero byte, payload.
    pub message_hash: [u8; 32],
    /// When the bus created the stream.
    pub stream_created_us: u64,
    /// From 0, one more each time the stream turned out to be another than the one read before.
    pub incarnation: u32,
}

/// An effect that is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxEntry {
    /// Idempotency key.
    pub id: [u8; 32],
    /// The deal it serves.
    pub deal_id: DealId,
    /// What to do.
    pub payload: Vec<u8>,
}

/// A message that was not admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Subject it came on.
    pub subject: String,
    /// Its sequence in the bus stream.
    pub sequence: u64,
    /// When it was refused.
    pub at: Timestamp,
    /// Stable code.
    pub reason_code: String,
    /// One sentence.
    pub reason: String,
    /// The first [`REFUSED_BYTES_MAX`] bytes of it.
    pub bytes: Vec<u8>,
}

/// What came of [`Store::put_intent`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intent {
    /// Nothing was stored under the key; now the given value is, durably.
    New,
    /// This value was stored before and stays.
    Existing(Vec<u8>),
}

/// Key and value of a table's row.
pub type Row = (Vec<u8>, Vec<u8>);

/// A store. Clones share one database.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    access: Access,
    db: Arc<DB>,
    path: PathBuf,
    poisoned: Arc<AtomicBool>,
    last_position: AtomicU64,
    writer: Mutex<Writer>,
}

enum Access {
    Write {
        fsync: Fsync,
        mark: Mark,
        /// Present under [`Fsync::Group`].
        group: Option<GroupSync>,
    },
    /// A secondary instance keeps its own log files in a directory of ours.
    Read { scratch: PathBuf },
}

/// What only the holder of the write lock may know or change.
struct Writer {
    next_refused: u64,
    /// The unfinished tiles of the tree.
    edge: Edge,
    /// The head map of the newest checkpoint, once it was needed.
    heads: Option<HeadMap>,
}

impl Store {
    /// The store's directory.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    fn is_writer(&self) -> bool {
        matches!(self.0.access, Access::Write { .. })
    }

    /// Position of the last record; 0 in an empty store.
    pub fn last_position(&self) -> u64 {
        self.0.last_position.load(Ordering::Acquire)
    }

    /// Where a deal stands.
    ///
    /// # Errors
    /// [`StoreFault`] if it cannot be read.
    pub fn head(&self, deal_id: &DealId) -> Result<Option<Head>, StoreFault> {
        self.0.head(deal_id)
    }

    /// The record at a position.
    ///
    /// # Errors
    /// [`StoreFault::Damaged`] where the position exists and its record is missing or wrong.
    pub fn record(&self, position: u64) -> Result<Option<Record>, StoreFault> {
        if position == 0 || position > self.last_position() {
            self.0.usable()?;
            return Ok(None);
        }
        self.0.record(position).map(Some)
    }

    /// Where an event is stored.
    ///
    /// # Errors
    /// [`StoreFault`] if it cannot be read.
    pub fn locate(&self, event_id: &EventId) -> Result<Option<Located>, StoreFault> {
        let Some(position) = self.0.position_of(event_id)? else { return Ok(None) };
        let record = self.0.record(position)?;
        if record.event_id != *event_id {
            let what = format!("holds event {}, the index says {event_id}", record.event_id);
            return Err(StoreFault::damaged(Place::Position(position), what));
        }
        Ok(Some(Located { position, version: record.version, deal_id: record.deal_id }))
    }

    /// The deals that may still move, by id.
    ///
    /// # Errors
    /// [`StoreFault`] if they cannot be read.
    pub fn open_deals(&self) -> Result<Vec<DealId>, StoreFault> {
        let rows = self.0.rows(Family::Open, &[], usize::MAX)?;
        let read = |(key, _): Row| {
            let deal_id = DealId::from_slice(&key).map_err(|_| row::damaged(Family::Open, &key, "not a deal id"))?;
            match self.0.head(&deal_id)? {
                Some(head) if head.open => Ok(deal_id),
                _ => Err(StoreFault::damaged(Place::Deal(deal_id), "listed as open, its head says otherwise")),
            }
        };
        rows.into_iter().map(read).collect()
    }

    /// The saved fold of a deal and the version it was saved at.
    ///
    /// # Errors
    /// [`StoreFault`] if it cannot be read.
    pub fn snapshot(&self, deal_id: &DealId) -> Result<Option<(u64, Vec<u8>)>, StoreFault> {
        let Some(row) = self.0.get(Family::Snapshots, deal_id.bytes())? else { return Ok(None) };
        let body = row::unseal(Family::Snapshots, deal_id.bytes(), &row)?;
        let Some((version, bytes)) = body.split_first_chunk::<8>() else {
            return Err(row::damaged(Family::Snapshots, deal_id.bytes(), "a snapshot starts with its version"));
        };
        Ok(Some((u64::from_be_bytes(*version), bytes.to_vec())))
    }

    /// The effects that are to be done, in the order they were added.
    ///
    /// # Errors
    /// [`StoreFault`] if they cannot be read.
    pub fn outbox(&self) -> Result<Vec<OutboxEntry>, StoreFault> {
        let rows = self.0.rows(Family::Outbox, &[], usize::MAX)?;
        let mut entries =
            rows.iter().map(|(key, row)| row::read_outbox(key, row)).collect::<Result<Vec<_>, StoreFault>>()?;
        entries.sort_by_key(|(order, entry)| (*order, entry.id));
        Ok(entries.into_iter().map(|(_, entry)| entry).collect())
    }

    /// How far a stream of the bus was read.
    ///
    /// # Errors
    /// [`StoreFault`] if it cannot be read.
    pub fn cursor(&self, stream: &str) -> Result<Option<Cursor>, StoreFault> {
        self.0.cursor(stream)
    }

    /// The newest messages that were not admitted, newest first.
    ///
    /// # Errors
    /// [`StoreFault`] if they cannot be read.
    pub fn refused(&self, limit: usize) -> Result<Vec<Refused>, StoreFault> {
        self.0.usable()?;
        let mut found = Vec::new();
        for row in self.0.db.iterator_cf(self.0.family(Family::Refused), IteratorMode::End).take(limit) {
            let (key, row) = row.map_err(|error| StoreFault::rocks("reading refused messages", error))?;
            found.push(row::read_refused(&key, &row)?);
        }
        Ok(found)
    }

    /// How many messages were not admitted, ever.
    ///
    /// # Errors
    /// [`StoreFault`] if it cannot be read.
    pub fn refused_count(&self) -> Result<u64, StoreFault> {
        self.0.last_refused()
    }

    /// A value kept beside the log: the genesis, the origin.
    ///
    /// # Errors
    /// [`StoreFault`] if it cannot be read.
    pub fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, StoreFault> {
        let Some(row) = self.0.get(Family::Meta, name.as_bytes())? else { return Ok(None) };
        row::unseal(Family::Meta, name.as_bytes(), &row).map(|body| Some(body.to_vec()))
    }

    /// A row of a read model.
    ///
    /// # Errors
    /// [`StoreFault`] if it cannot be read.
    pub fn projection(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault> {
        let Some(row) = self.0.get(Family::Projections, key)? else { return Ok(None) };
        row::unseal(Family::Projections, key, &row).map(|body| Some(body.to_vec()))
    }

    /// Up to `limit` rows of read models, from `key` on, ascending.
    ///
    /// # Errors
    /// [`StoreFault`] if they cannot be read.
    pub fn projections(&self, key: &[u8], limit: usize) -> Result<Vec<Row>, StoreFault> {
        let rows = self.0.rows(Family::Projections, key, limit)?;
        let read = |(key, row): Row| {
            let body = row::unseal(Family::Projections, &key, &row)?.to_vec();
            Ok((key, body))
        };
        rows.into_iter().map(read).collect()
    }

    /// Bytes on the disk, about.
    pub fn disk_bytes(&self) -> u64 {
        let entries = std::fs::read_dir(&self.0.path).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.metadata().ok()).filter(|meta| meta.is_file()).map(|meta| meta.len()).sum()
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({}, {})", self.0.path.display(), self.last_position())
    }
}

impl Inner {
    fn new(db: Arc<DB>, poisoned: Arc<AtomicBool>, path: PathBuf, access: Access) -> Self {
        Self {
            access,
            db,
            path,
            poisoned,
            last_position: AtomicU64::new(0),
            writer: Mutex::new(Writer { next_refused: 1, edge: Edge::default(), heads: None }),
        }
    }

    fn family(&self, family: Family) -> &ColumnFamily {
        self.db.cf_handle(family.name()).expect("opened with every family")
    }

    fn usable(&self) -> Result<(), StoreFault> {
        if self.poisoned.load(Ordering::Acquire) { Err(StoreFault::Poisoned) } else { Ok(()) }
    }

    fn poison(&self) {
        self.poisoned.store(true, Ordering::Release);
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<DBPinnableSlice<'_>>, StoreFault> {
        self.usable()?;
        self.db.get_pinned_cf(self.family(family), key).map_err(|error| StoreFault::rocks("reading", error))
    }

    /// Up to `limit` rows from `key` on.
    fn rows(&self, family: Family, key: &[u8], limit: usize) -> Result<Vec<Row>, StoreFault> {
        self.usable()?;
        let from = IteratorMode::From(key, rocksdb::Direction::Forward);
        let rows = self.db.iterator_cf(self.family(family), from).take(limit);
        rows.map(|row| row.map(|(key, row)| (key.into_vec(), row.into_vec())))
            .collect::<Result<_, _>>()
            .map_err(|error| StoreFault::rocks("reading", error))
    }

    fn last_row(&self, family: Family) -> Result<Option<Row>, StoreFault> {
        self.usable()?;
        let row = self.db.iterator_cf(self.family(family), IteratorMode::End).next();
        let row = row.transpose().map_err(|error| StoreFault::rocks("reading", error))?;
        Ok(row.map(|(key, row)| (key.into_vec(), row.into_vec())))
    }

    fn read_last_position(&self) -> Result<u64, StoreFault> {
        match self.last_row(Family::Events)? {
            None => Ok(0),
            Some((key, _)) => reader::position_key(&key),
        }
    }

    fn last_refused(&self) -> Result<u64, StoreFault> {
        match self.last_row(Family::Refused)? {
            None => Ok(0),
            Some((key, _)) => {
                let number = key.as_slice().try_into().map(u64::from_be_bytes);
                number.map_err(|_| row::damaged(Family::Refused, &key, "a running number has 8 bytes"))
            }
        }
    }

    fn head(&self, deal_id: &DealId) -> Result<Option<Head>, StoreFault> {
        let row = self.get(Family::Heads, deal_id.bytes())?;
        row.map(|row| row::read_head(deal_id.bytes(), &row)).transpose()
    }

    fn position_of(&self, event_id: &EventId) -> Result<Option<u64>, StoreFault> {
        let Some(row) = self.get(Family::EventIds, event_id.bytes())? else { return Ok(None) };
        let position = row.as_ref().try_into().map(u64::from_be_bytes);
        position.map(Some).map_err(|_| row::damaged(Family::EventIds, event_id.bytes(), "a position has 8 bytes"))
    }

    /// The record at a position that must exist.
    fn record(&self, position: u64) -> Result<Record, StoreFault> {
        let frame = self.get(Family::Events, &position.to_be_bytes())?;
        let frame = frame.ok_or_else(|| StoreFault::damaged(Place::Position(position), "the record is missing"))?;
        reader::decode_at(position, &frame)
    }

    fn cursor(&self, stream: &str) -> Result<Option<Cursor>, StoreFault> {
        self.usable()?;
        let newest = row::cursor_key(stream, u32::MAX);
        let from = IteratorMode::From(&newest, rocksdb::Direction::Reverse);
        let Some(row) = self.db.iterator_cf(self.family(Family::Cursors), from).next() else { return Ok(None) };
        let (key, row) = row.map_err(|error| StoreFault::rocks("reading the cursor", error))?;
        let ours = key.len() == newest.len() && key[..key.len() - 4] == newest[..newest.len() - 4];
        if ours { row::read_cursor(&key, &row).map(Some) } else { Ok(None) }
    }

    /// Writes a batch. A failure poisons: after it nobody knows what is on the disk, and a second sync that succeeds
    /// proves nothing about the first.
    fn write(&self, batch: WriteBatch, sync: bool) -> Result<(), StoreFault> {
        self.usable()?;
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        self.db.write_opt(batch, &options).map_err(|error| {
            self.poison();
            tracing::error!(%error, path = %self.path.display(), "the store failed to write and stops");
            StoreFault::rocks("writing", error)
        })
    }
}

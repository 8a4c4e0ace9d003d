use std::collections::VecDeque;

use rocksdb::{Direction, IteratorMode, ReadOptions};
use tribunal_events::{ChainLink, DealId};

use super::{Head, Place, Record, Store, StoreFault, family::Family, record, row};

/// An iterator reads this many rows at once, or this many bytes, and holds nothing of the database in between: a slow
/// reader must not keep old files alive.
const CHUNK_ROWS: u64 = 512;
const CHUNK_BYTES: usize = 4 << 20;

impl Store {
    /// The log from a position to where it ends now, in order.
    pub fn log(&self, from_position: u64) -> Log {
        Log { store: self.clone(), next: from_position.max(1), last: self.last_position(), chunk: VecDeque::new() }
    }

    /// A deal's records from a version to where its stream ends now, in order; each checked to continue the chain.
    pub fn stream(&self, deal_id: &DealId, from_version: u64) -> Stream {
        Stream { store: self.clone(), deal_id: *deal_id, next: from_version.max(1), chunk: VecDeque::new(), end: None }
    }

    /// Every deal and where it stands, by id.
    pub fn deals(&self) -> Deals {
        Deals { store: self.clone(), after: None, chunk: VecDeque::new(), done: false }
    }
}

pub(super) fn position_key(key: &[u8]) -> Result<u64, StoreFault> {
    let position = key.try_into().map(u64::from_be_bytes);
    position.map_err(|_| row::damaged(Family::Events, key, "a log position has 8 bytes"))
}

pub(super) fn decode_at(position: u64, frame: &[u8]) -> Result<Record, StoreFault> {
    let record = record::decode(frame).map_err(|what| StoreFault::damaged(Place::Position(position), what))?;
    if record.position != position {
        let what = format!("holds the record of position {}", record.position);
        return Err(StoreFault::damaged(Place::Position(position), what));
    }
    Ok(record)
}

/// See [`Store::log`]. Ends after the first fault.
pub struct Log {
    store: Store,
    next: u64,
    last: u64,
    chunk: VecDeque<Record>,
}

impl Log {
    fn fill(&mut self) -> Result<(), StoreFault> {
        let inner = &*self.store.0;
        inner.usable()?;
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(self.last.saturating_add(1).to_be_bytes());
        let start = self.next.to_be_bytes();
        let mode = IteratorMode::From(&start, Direction::Forward);
        let (mut next, mut bytes) = (self.next, 0);
        for row in inner.db.iterator_cf_opt(inner.family(Family::Events), options, mode).take(CHUNK_ROWS as usize) {
            let (key, frame) = row.map_err(|error| StoreFault::rocks("reading the log", error))?;
            if position_key(&key)? != next {
                break;
            }
            self.chunk.push_back(decode_at(next, &frame)?);
            (next, bytes) = (next + 1, bytes + frame.len());
            if bytes > CHUNK_BYTES {
                break;
            }
        }
        if next == self.next {
            return Err(StoreFault::damaged(Place::Position(next), "the record is missing"));
        }
        Ok(())
    }
}

impl Iterator for Log {
    type Item = Result<Record, StoreFault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next > self.last {
            return None;
        }
        // What was read before the damage is handed out before it is reported.
        if self.chunk.is_empty()
            && let Err(fault) = self.fill()
            && self.chunk.is_empty()
        {
            self.next = u64::MAX;
            return Some(Err(fault));
        }
        self.next += 1;
        self.chunk.pop_front().map(Ok)
    }
}

/// See [`Store::stream`]. Ends after the first fault.
pub struct Stream {
    store: Store,
    deal_id: DealId,
    next: u64,
    chunk: VecDeque<Record>,
    /// The last version and the link before `next`; read at the first step.
    end: Option<(u64, ChainLink)>,
}

impl Stream {
    fn start(&mut self) -> Result<(u64, ChainLink), StoreFault> {
        if let Some(end) = self.end {
            return Ok(end);
        }
        let last = self.store.head(&self.deal_id)?.map_or(0, |head| head.version);
        let link = if self.next == 1 || self.next > last {
            ChainLink::GENESIS
        } else {
            let row = self.store.0.get(Family::Index, &row::index_key(&self.deal_id, self.next - 1))?;
            let row = row.ok_or_else(|| self.damaged(self.next - 1, "is missing from the index"))?;
            row::read_index_row(&self.deal_id, &row)?.1
        };
        self.end = Some((last, link));
        Ok((last, link))
    }

    fn damaged(&self, version: u64, what: &str) -> StoreFault {
        StoreFault::damaged(Place::Deal(self.deal_id), format!("version {version} {what}"))
    }

    fn fill(&mut self, last: u64) -> Result<(), StoreFault> {
        let inner = &*self.store.0;
        let upto = last.min(self.next.saturating_add(CHUNK_ROWS - 1));
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(row::index_key(&self.deal_id, upto.saturating_add(1)));
        let start = row::index_key(&self.deal_id, self.next);
        let mode = IteratorMode::From(&start, Direction::Forward);
        let mut next = self.next;
        let mut link = self.end.expect("read before").1;
        let mut bytes = 0;
        for row in inner.db.iterator_cf_opt(inner.family(Family::Index), options, mode) {
            let (key, row) = row.map_err(|error| StoreFault::rocks("reading a stream", error))?;
            if *key != row::index_key(&self.deal_id, next) {
                break;
            }
            let (position, indexed) = row::read_index_row(&self.deal_id, &row)?;
            let record = inner.record(position)?;
            if (record.deal_id, record.version) != (self.deal_id, next) {
                return Err(self.damaged(next, &format!("is indexed at position {position}, which is another's")));
            }
            if record.previous != link || record.link != indexed {
                return Err(self.damaged(next, "does not continue the chain"));
            }
            (next, link) = (next + 1, record.link);
            bytes += record.envelope.event().len();
            self.chunk.push_back(record);
            if bytes > CHUNK_BYTES {
                break;
            }
        }
        if next == self.next {
            return Err(self.damaged(next, "is missing from the index"));
        }
        self.end = Some((last, link));
        Ok(())
    }

    fn step(&mut self) -> Result<Option<Record>, StoreFault> {
        let (last, _) = self.start()?;
        if self.next > last {
            return Ok(None);
        }
        if self.chunk.is_empty()
            && let Err(fault) = self.fill(last)
            && self.chunk.is_empty()
        {
            return Err(fault);
        }
        self.next += 1;
        Ok(self.chunk.pop_front())
    }
}

impl Iterator for Stream {
    type Item = Result<Record, StoreFault>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.end = Some((0, ChainLink::GENESIS));
            self.chunk.clear();
        }
        step.transpose()
    }
}

/// See [`Store::deals`]. Ends after the first fault.
pub struct Deals {
    store: Store,
    after: Option<DealId>,
    chunk: VecDeque<(DealId, Head)>,
    done: bool,
}

impl Deals {
    fn fill(&mut self) -> Result<(), StoreFault> {
        // The next possible key after an id is the id and a zero byte.
        let mut from = self.after.map_or(Vec::new(), |deal_id| deal_id.bytes().to_vec());
        if self.after.is_some() {
            from.push(0);
        }
        let rows = self.store.0.rows(Family::Heads, &from, CHUNK_ROWS as usize)?;
        self.done = rows.is_empty();
        for (key, row) in rows {
            let deal_id = DealId::from_slice(&key).map_err(|_| row::damaged(Family::Heads, &key, "not a deal id"))?;
            self.chunk.push_back((deal_id, row::read_head(&key, &row)?));
        }
        Ok(())
    }
}

impl Iterator for Deals {
    type Item = Result<(DealId, Head), StoreFault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.chunk.is_empty() && !self.done {
            let filled = self.fill();
            if let Err(fault) = filled
                && self.chunk.is_empty()
            {
                self.done = true;
                return Some(Err(fault));
            }
        }
        let (deal_id, head) = self.chunk.pop_front()?;
        self.after = Some(deal_id);
        Some(Ok((deal_id, head)))
    }
}

use std::{collections::BTreeMap, path::Path, thread};

use rocksdb::{IteratorMode, ReadOptions};
use tribunal_events::{ChainLink, DealId, tlog::Hash};

use super::{
    Place, Record, Row, Store, StoreFault,
    family::Family,
    files::{self, Files},
    row,
    tree::{TreeCheck, leaf_of},
};

/// Findings that are kept; more are counted.
pub const DAMAGE_MAX: usize = 1000;
/// Records that are looked at side by side.
const CHUNK: u64 = 4 << 10;

/// A record with its leaf, if it can be read, and what is wrong.
type Checked = (Option<(Record, Hash)>, Option<StoreFault>);

/// What [`Store::check`] found.
#[derive(Debug, Default)]
pub struct CheckReport {
    /// Records read.
    pub records: u64,
    /// Deals read.
    pub deals: u64,
    /// Files read, by [`Store::check_path`].
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The first [`DAMAGE_MAX`] things that are wrong.
    pub damage: Vec<StoreFault>,
    /// How many more there are.
    pub damage_left_out: u64,
    /// Worth knowing, no damage.
    pub notes: Vec<String>,
}

/// What a check is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckPhase {
    /// Bytes of files.
    Files,
    /// Log positions.
    Records,
}

impl CheckReport {
    pub(super) fn add(&mut self, fault: StoreFault) {
        if self.damage.len() < DAMAGE_MAX {
            self.damage.push(fault);
        } else {
            self.damage_left_out += 1;
        }
    }
}

impl Store {
    /// Checks the store at `path` from its files up: every byte of them, then all rows as [`Store::check`] does. Works
    /// while another process writes to it. `progress` hears how much of how much is done.
    ///
    /// # Errors
    /// [`StoreFault::Missing`] and [`StoreFault::Format`]; [`StoreFault::Io`] where files cannot be read. All else is in
    /// the report.
    pub fn check_path(
        path: impl AsRef<Path>,
        mut progress: impl FnMut(CheckPhase, u64, u64),
    ) -> Result<CheckReport, StoreFault> {
        let path = path.as_ref();
        if !files::any(path) {
            return Err(StoreFault::Missing { path: path.to_path_buf() });
        }
        let found = files::check(path, |done, total| progress(CheckPhase::Files, done, total))?;
        let Files { damage, files, bytes, notes, readable } = found;
        let mut report = CheckReport { files, bytes, notes, ..CheckReport::default() };
        damage.into_iter().for_each(|fault| report.add(fault));
        if !readable {
            report.notes.push("the rows were not read: which tables there are is not known".into());
            return Ok(report);
        }
        let store = match Self::open_read_only(path) {
            Ok(store) => store,
            Err(fault @ StoreFault::Format { .. }) => return Err(fault),
            Err(fault @ StoreFault::Damaged { .. }) => {
                report.add(fault);
                report.notes.push("the rows were not read: the store does not open".into());
                return Ok(report);
            }
            Err(fault) if report.damage.is_empty() => return Err(fault),
            Err(fault) => {
                report.notes.push(format!("the rows were not read: {fault}"));
                return Ok(report);
            }
        };
        let last = store.last_position();
        let rows = store.check(|position| progress(CheckPhase::Records, position, last))?;
        report.records = rows.records;
        report.deals = rows.deals;
        report.damage_left_out += rows.damage_left_out;
        rows.damage.into_iter().for_each(|fault| report.add(fault));
        Ok(report)
    }

    /// Reads the whole store and checks that log, streams, heads and event ids say the same and that every row is sound.
    /// What the events mean is not checked here. `progress` hears how far in the log it is. Needs little memory, however
    /// long the log.
    ///
    /// # Errors
    /// [`StoreFault::Poisoned`]; all else is in the report.
    pub fn check(&self, mut progress: impl FnMut(u64)) -> Result<CheckReport, StoreFault> {
        self.check_with(|position, _| progress(position))
    }

    /// The part of [`Store::check`] that is about the log's first `last` records and the rows that point to them, for a
    /// log that may have gone on since.
    ///
    /// # Errors
    /// As there.
    pub fn check_until(&self, last: u64, seen: impl FnMut(u64, Option<&Record>)) -> Result<CheckReport, StoreFault> {
        let mut report = CheckReport::default();
        self.check_log(last, &mut report, seen)?;
        self.name_deals(&mut report);
        Ok(report)
    }

    /// The log's records in order, each shown to `seen` where it can be read, with the rows that point to them and the tree.
    fn check_log(
        &self,
        last: u64,
        report: &mut CheckReport,
        mut seen: impl FnMut(u64, Option<&Record>),
    ) -> Result<(), StoreFault> {
        self.0.usable()?;
        let end = self.last_position();
        let last = last.min(end);
        // Until the first record that cannot be read.
        let mut tree = Some(TreeCheck::new());
        for first in (1..=last).step_by(CHUNK as usize) {
            let to = last.min(first + CHUNK - 1);
            for (position, (found, fault)) in (first..).zip(self.check_positions(first, to)) {
                seen(position, found.as_ref().map(|(record, _)| record));
                match (&found, &mut tree) {
                    (Some((_, leaf)), Some(tree)) => {
                        let fault = tree.take(&self.0, leaf, end).err();
                        fault.into_iter().for_each(|fault| report.add(fault));
                    }
                    (Some(_), None) => {}
                    (None, _) => tree = None,
                }
                report.records += u64::from(fault.is_none());
                fault.into_iter().for_each(|fault| report.add(fault));
            }
        }
        let fault = tree.filter(|_| last == end).and_then(|tree| tree.finish(&self.0).err());
        fault.into_iter().for_each(|fault| report.add(fault));
        Ok(())
    }

    /// [`Store::check`], which shows every position on the way, with its record where that can be read.
    ///
    /// # Errors
    /// As there.
    pub fn check_with(&self, seen: impl FnMut(u64, Option<&Record>)) -> Result<CheckReport, StoreFault> {
        let mut report = CheckReport::default();
        let last = self.last_position();
        self.check_log(last, &mut report, seen)?;
        self.name_deals(&mut report);
        self.check_heads(last, &mut report);
        for family in Family::ALL {
            match family {
                Family::Events => self.check_family(family, &mut report, |store, (key, _)| {
                    // Beyond what this reader has seen, a writer may add what it likes.
                    let position = super::reader::position_key(key)?;
                    let stray = position == 0 || (position > last && position > store.last_position());
                    if stray && matches!(store.0.access, super::Access::Read { .. }) {
                        return Err(row::damaged(Family::Events, key, "a record beyond the log's end"));
                    }
                    Ok(())
                }),
                Family::Index => self.check_family(family, &mut report, |store, (key, row)| {
                    let deal_id = key.get(..32).and_then(|id| DealId::from_slice(id).ok());
                    let (Some(deal_id), 40) = (deal_id, key.len()) else {
                        return Err(row::damaged(Family::Index, key, "a key of 40 bytes is expected"));
                    };
                    let (position, _) = row::read_index_row(&deal_id, row)?;
                    let known = (1..=last).contains(&position) || position > last && store.last_position() > last;
                    if known { Ok(()) } else { Err(row::damaged(Family::Index, key, "it leads out of the log")) }
                }),
                Family::EventIds => self.check_family(family, &mut report, |store, (key, row)| {
                    let position = <[u8; 8]>::try_from(row).map(u64::from_be_bytes).unwrap_or_default();
                    let known = (1..=last).contains(&position) || position > last && store.last_position() > last;
                    if known { Ok(()) } else { Err(row::damaged(Family::EventIds, key, "it leads out of the log")) }
                }),
                Family::Heads => {}
                Family::Open => self.check_family(family, &mut report, |store, (key, row)| {
                    let head = DealId::from_slice(key).ok().map(|deal_id| store.0.head(&deal_id)).transpose()?;
                    match head.flatten() {
                        Some(head) if row.is_empty() && (head.open || head.last_position > last) => Ok(()),
                        _ => Err(row::damaged(Family::Open, key, "listed as open, its head says otherwise")),
                    }
                }),
                Family::Outbox => {
                    self.check_family(family, &mut report, |_, (key, row)| row::read_outbox(key, row).map(drop));
                }
                Family::Refused => {
                    self.check_family(family, &mut report, |_, (key, row)| row::read_refused(key, row).map(drop));
                }
                _ => self.check_family(family, &mut report, |_, (key, row)| row::unseal(family, key, row).map(drop)),
            }
        }
        Ok(report)
    }

    /// Records with their leaves where they can be read, and what is wrong; on all cores, since each is looked at alone.
    fn check_positions(&self, first: u64, to: u64) -> Vec<Checked> {
        let threads = thread::available_parallelism().map_or(1, usize::from) as u64;
        let share = (to - first + 1).div_ceil(threads);
        thread::scope(|scope| {
            let part = |start: u64| {
                let end = to.min(start + share - 1);
                scope.spawn(move || (start..=end).map(|at| self.check_position(at)).collect::<Vec<_>>())
            };
            let parts: Vec<_> = (first..=to).step_by(share as usize).map(part).collect();
            parts.into_iter().flat_map(|part| part.join().expect("a check does not panic")).collect()
        })
    }

    fn check_position(&self, position: u64) -> Checked {
        match self.0.record(position) {
            Ok(record) => {
                let (leaf, fault) = (leaf_of(&record), self.check_rows_of(position, &record).err());
                (Some((record, leaf)), fault)
            }
            Err(fault) => (None, Some(fault)),
        }
    }

    /// Whether index and event ids lead to a record.
    fn check_rows_of(&self, position: u64, record: &Record) -> Result<(), StoreFault> {
        let damaged = |what: String| {
            let place = Place::Record { position, deal_id: record.deal_id, version: record.version };
            Err(StoreFault::damaged(place, what))
        };
        let indexed = |version: u64| {
            let row = self.0.get(Family::Index, &row::index_key(&record.deal_id, version))?;
            row.map(|row| row::read_index_row(&record.deal_id, &row)).transpose()
        };
        let before = match record.version {
            0 => return damaged("versions start from 1".into()),
            1 => Some((0, ChainLink::GENESIS)),
            version => indexed(version - 1)?,
        };
        match before {
            Some((at, link)) if at < position && link == record.previous => {}
            _ => return damaged("it does not continue its deal's chain".into()),
        }
        if indexed(record.version)? != Some((position, record.link)) {
            return damaged("the stream index says otherwise".into());
        }
        if record.version == 1 && self.0.head(&record.deal_id)?.is_none() {
            return damaged("the deal has records and no head".into());
        }
        match self.0.position_of(&record.event_id)? {
            Some(at) if at == position => Ok(()),
            other => damaged(format!("the event id index says {other:?}")),
        }
    }

    /// Each head against the index; what is beyond the last record of a deal is found here too.
    fn check_heads(&self, last: u64, report: &mut CheckReport) {
        let mut deals = 0;
        self.check_family(Family::Heads, report, |store, (key, row)| {
            deals += 1;
            let head = row::read_head(key, row)?;
            let deal_id = DealId::from_slice(key).map_err(|_| row::damaged(Family::Heads, key, "not a deal id"))?;
            let damaged = |what: &str| Err(StoreFault::damaged(Place::Deal(deal_id), what));
            let indexed = store.0.get(Family::Index, &row::index_key(&deal_id, head.version))?;
            let indexed = indexed.map(|row| row::read_index_row(&deal_id, &row)).transpose()?;
            if indexed != Some((head.last_position, head.link)) {
                return damaged("the head differs from the last record");
            }
            if head.last_position > last {
                return Ok(()); // the writer has moved on
            }
            let next = store.0.get(Family::Index, &row::index_key(&deal_id, head.version + 1))?;
            let next = next.map(|row| row::read_index_row(&deal_id, &row)).transpose()?;
            if next.is_some_and(|(position, _)| position <= last) {
                return damaged("records follow the one that the head says is the last");
            }
            if head.open && store.0.get(Family::Open, key)?.is_none() {
                // Settled meanwhile, where a writer goes on.
                let now = store.0.head(&deal_id)?;
                if now.is_none_or(|now| now.open) {
                    return damaged("the head says open, the list of open deals does not");
                }
            }
            Ok(())
        });
        report.deals = deals;
    }

    /// Every row of a family.
    fn check_family(
        &self,
        family: Family,
        report: &mut CheckReport,
        mut each: impl FnMut(&Self, (&[u8], &[u8])) -> Result<(), StoreFault>,
    ) {
        let mut options = ReadOptions::default();
        options.set_verify_checksums(true);
        options.fill_cache(false);
        options.set_total_order_seek(true);
        let mut after: Option<Box<[u8]>> = None;
        for entry in self.0.db.iterator_cf_opt(self.0.family(family), options, IteratorMode::Start) {
            match entry {
                Ok((key, row)) => {
                    if let Err(fault) = each(self, (&key, &row)) {
                        report.add(fault);
                    }
                    after = Some(key);
                }
                Err(error) => {
                    let place = after.as_ref().map_or("the first".into(), |key| format!("after {}", hex::encode(key)));
                    let what = format!("cannot be read: {}", error.into_string());
                    report.add(StoreFault::damaged(Place::Row(family.name(), place), what));
                    return;
                }
            }
        }
    }

    /// Says of positions whose record cannot be read whose they are, as far as the index tells.
    fn name_deals(&self, report: &mut CheckReport) {
        let position = |(index, fault): (usize, &StoreFault)| match fault {
            StoreFault::Damaged { place: Place::Position(position), .. } => Some((*position, index)),
            _ => None,
        };
        let mut lost: BTreeMap<u64, usize> = report.damage.iter().enumerate().filter_map(position).collect();
        let rows = self.0.db.full_iterator_cf(self.0.family(Family::Index), IteratorMode::Start).map_while(Result::ok);
        for (key, row) in rows.map(|(key, row)| -> Row { (key.into_vec(), row.into_vec()) }) {
            if lost.is_empty() {
                return;
            }
            let (Some(id), Some(version), Some(position)) = (key.get(..32), key.get(32..40), row.first_chunk::<8>())
            else {
                continue;
            };
            let (Ok(deal_id), Some(index)) = (DealId::from_slice(id), lost.remove(&u64::from_be_bytes(*position)))
            else {
                continue;
            };
            if let StoreFault::Damaged { place, .. } = &mut report.damage[index] {
                let version = version.try_into().map_or(0, u64::from_be_bytes);
                *place = Place::Record { position: u64::from_be_bytes(*position), deal_id, version };
            }
        }
    }
}

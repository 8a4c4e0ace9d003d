use std::collections::BTreeMap;

use tribunal_events::{ChainLink, DealId};

use super::{Head, Place, Record, Store, StoreFault, family::Family, row, tree::TreeCheck};

/// What [`Store::check`] found.
#[derive(Debug, Default)]
pub struct CheckReport {
    /// Records read.
    pub records: u64,
    /// Deals read.
    pub deals: u64,
    /// Everything that is wrong.
    pub damage: Vec<StoreFault>,
}

impl Store {
    /// Reads the whole store and checks that log, streams, heads and event ids say the same and that every row is sound.
    /// What the events mean is not checked here. `progress` hears of each log position. Holds one head a deal in memory.
    ///
    /// # Errors
    /// [`StoreFault::Poisoned`]; all else is in the report.
    pub fn check(&self, mut progress: impl FnMut(u64)) -> Result<CheckReport, StoreFault> {
        self.check_with(|position, _| progress(position))
    }

    /// [`Store::check`], which shows every position on the way, with its record where that can be read.
    ///
    /// # Errors
    /// As there.
    pub fn check_with(&self, seen: impl FnMut(u64, Option<&Record>)) -> Result<CheckReport, StoreFault> {
        let last = self.last_position();
        let (mut report, mut heads) = self.check_records(last, seen)?;
        for deal in self.deals() {
            report.deals += 1;
            let checked = deal.and_then(|(deal_id, head)| match heads.remove(&deal_id) {
                // The writer may have moved on; the head may be ahead of what was read, never beside it.
                _ if head.last_position > last => Ok(()),
                Some(read) if read == Head { open: read.open, ..head } => Ok(()),
                _ => Err(StoreFault::damaged(Place::Deal(deal_id), "the head differs from the last record")),
            });
            report.damage.extend(checked.err());
        }
        for (deal_id, _) in heads {
            report.damage.push(StoreFault::damaged(Place::Deal(deal_id), "the deal has records and no head"));
        }
        report.damage.extend(self.open_deals().err());
        report.damage.extend(self.outbox().err());
        report.damage.extend(self.refused(usize::MAX).err());
        for family in [
            Family::Cursors,
            Family::Snapshots,
            Family::Intents,
            Family::Meta,
            Family::Tree,
            Family::HeadMap,
            Family::Checkpoints,
            Family::Projections,
        ] {
            report.damage.extend(self.check_seals(family).err());
        }
        Ok(report)
    }

    /// The part of [`Store::check`] that is about the log's first `last` records and the rows that point to them, for a
    /// log that may have gone on since.
    ///
    /// # Errors
    /// As there.
    pub fn check_until(&self, last: u64, seen: impl FnMut(u64, Option<&Record>)) -> Result<CheckReport, StoreFault> {
        Ok(self.check_records(last, seen)?.0)
    }

    fn check_records(
        &self,
        last: u64,
        mut seen: impl FnMut(u64, Option<&Record>),
    ) -> Result<(CheckReport, BTreeMap<DealId, Head>), StoreFault> {
        self.0.usable()?;
        let (mut report, mut heads) = (CheckReport::default(), BTreeMap::new());
        // Until the first record that cannot be read.
        let mut tree = Some(TreeCheck::new());
        let mut next = 1;
        while next <= last {
            // A log ends at the first fault; what follows is looked at all the same.
            for record in self.log(next) {
                let position = next;
                if position > last {
                    break;
                }
                next += 1;
                let checked = match record {
                    Ok(record) => {
                        seen(position, Some(&record));
                        if let Some(tree) = &mut tree {
                            report.damage.extend(tree.take(&self.0, &record, self.last_position()).err());
                        }
                        self.check_record(&record, &mut heads)
                    }
                    Err(fault) => {
                        seen(position, None);
                        tree = None;
                        Err(fault)
                    }
                };
                match checked {
                    Ok(()) => report.records += 1,
                    Err(fault) => report.damage.push(fault),
                }
            }
        }
        if let Some(tree) = tree.filter(|_| last == self.last_position()) {
            report.damage.extend(tree.finish(&self.0).err());
        }
        Ok((report, heads))
    }

    fn check_record(&self, record: &Record, heads: &mut BTreeMap<DealId, Head>) -> Result<(), StoreFault> {
        let position = record.position;
        let before = heads.get(&record.deal_id).copied();
        let (version, link) = before.map_or((0, ChainLink::GENESIS), |head| (head.version, head.link));
        let head = Head { version: record.version, last_position: position, open: false, link: record.link };
        heads.insert(record.deal_id, head);
        let damaged = |what: String| Err(StoreFault::damaged(Place::Position(position), what));
        if record.version != version + 1 || record.previous != link {
            return damaged(format!("version {} does not follow version {version}", record.version));
        }
        let indexed = self.0.get(Family::Index, &row::index_key(&record.deal_id, record.version))?;
        match indexed.map(|row| row::read_index_row(&record.deal_id, &row)).transpose()? {
            Some((at, link)) if at == position && link == record.link => {}
            _ => return damaged("the stream index says otherwise".into()),
        }
        match self.0.position_of(&record.event_id)? {
            Some(at) if at == position => Ok(()),
            other => damaged(format!("the event id index says {other:?}")),
        }
    }

    fn check_seals(&self, family: Family) -> Result<(), StoreFault> {
        for row in self.0.db.iterator_cf(self.0.family(family), rocksdb::IteratorMode::Start) {
            let (key, row) = row.map_err(|error| StoreFault::rocks("reading", error))?;
            row::unseal(family, &key, &row)?;
        }
        Ok(())
    }
}

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
        self.0.usable()?;
        let mut report = CheckReport::default();
        let mut heads: BTreeMap<DealId, Head> = BTreeMap::new();
        let last = self.last_position();
        // Until the first record that cannot be read.
        let mut tree = Some(TreeCheck::new());
        for position in 1..=last {
            match self.check_position(position, &mut heads) {
                Ok(record) => {
                    report.records += 1;
                    if let Some(tree) = &mut tree {
                        report.damage.extend(tree.take(&self.0, &record, last).err());
                    }
                }
                Err(fault) => {
                    report.damage.push(fault);
                    tree = None;
                }
            }
            progress(position);
        }
        if let Some(tree) = tree {
            report.damage.extend(tree.finish(&self.0).err());
        }
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

    fn check_position(&self, position: u64, heads: &mut BTreeMap<DealId, Head>) -> Result<Record, StoreFault> {
        let record = self.0.record(position)?;
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
            Some(at) if at == position => Ok(record),
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

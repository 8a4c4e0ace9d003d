//! Signed checkpoints of the log, and what they commit to.

use std::collections::BTreeSet;

use rocksdb::{Direction, IteratorMode};
use tribunal_events::{
    DealId,
    tlog::{Hash, HeadEntry, Heads, SignedCheckpoint},
};

use super::{
    Store, StoreFault,
    family::Family,
    head_map::{self, HeadMap},
    row,
};

/// What a checkpoint of the log as it stands has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogState {
    /// Records.
    pub size: u64,
    /// Root of the tree over them.
    pub root: Hash,
    /// Where the deals stand.
    pub heads: Heads,
}

/// Where a deal stood at a checkpoint, with the proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DealHead {
    /// The checkpoint.
    pub checkpoint: SignedCheckpoint,
    /// The deal's entry; or, where it had none, the deal that stands in its place, if any.
    pub entry: Option<HeadEntry>,
    /// From the root of the head map down.
    pub siblings: Vec<Hash>,
}

impl Store {
    /// Has the log as it stands signed, and keeps what `sign` gives, synced. Nothing is appended meanwhile. The log of a
    /// checkpoint that is kept already is not signed again; an empty log is not signed at all.
    ///
    /// # Errors
    /// What `sign` gives; [`StoreFault`] if the store fails.
    pub fn seal_log<E: From<StoreFault>>(
        &self,
        sign: impl FnOnce(&LogState) -> Result<SignedCheckpoint, E>,
    ) -> Result<Option<SignedCheckpoint>, E> {
        let inner = &*self.0;
        let mut writer = self.writer()?;
        let newest = self.newest_checkpoint()?;
        let size = self.last_position();
        if size == 0 || newest.as_ref().is_some_and(|newest| newest.checkpoint().size == size) {
            return Ok(newest);
        }
        let mut map = writer.heads.take().map_or_else(|| HeadMap::load(inner), Ok)?;
        let (before, heads) = newest.map_or((0, None), |it| (it.checkpoint().size, Some(it.checkpoint().heads)));
        let sound = map.size() == before && heads.is_none_or(|heads| heads == map.heads());
        let (mut moved, mut started) = (BTreeSet::new(), 0);
        if sound {
            for record in self.log(before + 1) {
                let record = record?;
                started += u64::from(record.version == 1);
                moved.insert(record.deal_id);
            }
        } else {
            // A crash in the middle of the last one: from the heads alone.
            map = HeadMap::default();
            for deal in self.deals() {
                moved.insert(deal?.0);
            }
            started = moved.len() as u64;
        }
        let mut batch = map.advance(inner, size, &moved, started)?;
        let signed = sign(&LogState { size, root: writer.edge.root(), heads: map.heads() })?;
        let row = row::seal(Family::Checkpoints, &size.to_be_bytes(), signed.note().as_bytes().to_vec());
        batch.put_cf(inner.family(Family::Checkpoints), size.to_be_bytes(), row);
        self.commit(batch, true)?;
        writer.heads = Some(map);
        Ok(Some(signed))
    }

    /// The newest checkpoint.
    ///
    /// # Errors
    /// [`StoreFault`] if it cannot be read.
    pub fn newest_checkpoint(&self) -> Result<Option<SignedCheckpoint>, StoreFault> {
        self.checkpoint_from(u64::MAX, Direction::Reverse)
    }

    /// The first checkpoint that covers this position.
    ///
    /// # Errors
    /// [`StoreFault`] if it cannot be read.
    pub fn checkpoint_covering(&self, position: u64) -> Result<Option<SignedCheckpoint>, StoreFault> {
        self.checkpoint_from(position, Direction::Forward)
    }

    /// The checkpoint of exactly this size.
    ///
    /// # Errors
    /// [`StoreFault`] if it cannot be read.
    pub fn checkpoint_at(&self, size: u64) -> Result<Option<SignedCheckpoint>, StoreFault> {
        Ok(self.checkpoint_covering(size)?.filter(|found| found.checkpoint().size == size))
    }

    fn checkpoint_from(&self, size: u64, direction: Direction) -> Result<Option<SignedCheckpoint>, StoreFault> {
        self.0.usable()?;
        let key = size.to_be_bytes();
        let row = self.0.db.iterator_cf(self.0.family(Family::Checkpoints), IteratorMode::From(&key, direction)).next();
        let Some(row) = row else { return Ok(None) };
        let (key, row) = row.map_err(|error| StoreFault::rocks("reading a checkpoint", error))?;
        let body = row::unseal(Family::Checkpoints, &key, &row)?;
        let found = SignedCheckpoint::parse(body)
            .map_err(|error| row::damaged(Family::Checkpoints, &key, &error.to_string()))?;
        if *key != found.checkpoint().size.to_be_bytes() {
            return Err(row::damaged(Family::Checkpoints, &key, "the checkpoint is of another size"));
        }
        Ok(Some(found))
    }

    /// Where a deal stood at the newest checkpoint, with the proof; nothing before the first checkpoint.
    ///
    /// # Errors
    /// [`StoreFault`] if it cannot be read.
    pub fn prove_head(&self, deal_id: &DealId) -> Result<Option<DealHead>, StoreFault> {
        if !self.is_writer() {
            return self.prove_head_in(&HeadMap::load(&self.0)?, deal_id);
        }
        // Nothing may move the map on while it is read.
        let mut writer = self.writer()?;
        let map = writer.heads.take().map_or_else(|| HeadMap::load(&self.0), Ok)?;
        let map = writer.heads.insert(map);
        self.prove_head_in(map, deal_id)
    }

    fn prove_head_in(&self, map: &HeadMap, deal_id: &DealId) -> Result<Option<DealHead>, StoreFault> {
        let Some(checkpoint) = self.newest_checkpoint()? else { return Ok(None) };
        let said = checkpoint.checkpoint();
        if map.size() != said.size || map.heads() != said.heads {
            let what = "the head map is not that of the newest checkpoint; the next one makes it anew";
            return Err(row::damaged(Family::HeadMap, &[0], what));
        }
        let (entry, siblings) = map.prove(&self.0, deal_id)?;
        Ok(Some(DealHead { checkpoint, entry, siblings }))
    }

    /// Where a deal stood at the first checkpoint that covers its last record, with the proof: the same whenever it is asked
    /// for, as long as the deal does not move. Nothing before there is such a checkpoint.
    ///
    /// # Errors
    /// [`StoreFault`] if it cannot be read.
    pub fn kept_head(&self, deal_id: &DealId) -> Result<Option<DealHead>, StoreFault> {
        let Some(head) = self.head(deal_id)? else { return Ok(None) };
        let Some((size, siblings)) = head_map::kept_proof(&self.0, deal_id)? else { return Ok(None) };
        if size < head.last_position {
            return Ok(None);
        }
        // None where a crash came between the proof and its checkpoint.
        let Some(checkpoint) = self.checkpoint_at(size)? else { return Ok(None) };
        Ok(Some(DealHead { checkpoint, entry: Some(head_map::entry(*deal_id, &head)), siblings }))
    }
}

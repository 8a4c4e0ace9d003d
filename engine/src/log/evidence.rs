use tribunal_events::{
    DealId, EventId,
    tlog::{Base64, DealHead, Evidence, Note, OtherHead, SignedCheckpoint, in_base64},
};

use crate::{
    bundle::encode_frame,
    store::{Store, StoreFault},
};

/// What is to be proved.
#[derive(Clone, Copy, Debug)]
pub enum Wanted {
    /// That the record at a position is in the log.
    Position(u64),
    /// That an event is recorded.
    Event(EventId),
    /// That a log of so many records has only grown.
    Growth(u64),
    /// Where a deal stands.
    Head(DealId),
}

/// Why there is no evidence.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceFault {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreFault),
    /// Nothing signed covers it.
    #[error("{0}")]
    NotSigned(String),
    /// It is not recorded.
    #[error("{0}")]
    Unknown(String),
}

/// The checkpoint of `size` records, or the newest.
///
/// # Errors
/// [`EvidenceFault::NotSigned`] where there is none.
pub fn signed(store: &Store, size: Option<u64>) -> Result<SignedCheckpoint, EvidenceFault> {
    let found = match size {
        Some(size) => store.checkpoint_at(size)?,
        None => store.newest_checkpoint()?,
    };
    let missing = || {
        let which = size.map_or_else(|| "no checkpoint".into(), |size| format!("no checkpoint of {size} records"));
        EvidenceFault::NotSigned(format!("{which} is signed in this log"))
    };
    found.ok_or_else(missing)
}

/// Proves what is asked against the checkpoint of `size` records, or the newest.
///
/// # Errors
/// [`EvidenceFault`].
pub fn evidence(store: &Store, wanted: Wanted, size: Option<u64>) -> Result<Evidence, EvidenceFault> {
    let signed = signed(store, size)?;
    let size = signed.checkpoint().size;
    match wanted {
        Wanted::Position(position) => inclusion(store, position, signed),
        Wanted::Event(event_id) => match store.locate(&event_id)? {
            Some(found) => inclusion(store, found.position, signed),
            None => Err(EvidenceFault::Unknown(format!("no event {event_id} is recorded"))),
        },
        Wanted::Growth(from) => {
            let (Some(hashes), Some(root)) = (store.prove_consistency(from, size)?, store.tree_root(from)?) else {
                return Err(EvidenceFault::Unknown(format!("a log of {size} records never grew from {from}")));
            };
            let from_root = Base64(root.to_vec());
            Ok(Evidence::Consistency { from, from_root, hashes: in_base64(&hashes), checkpoint: Note(signed) })
        }
        Wanted::Head(deal_id) => {
            let found = store.prove_head(&deal_id)?.filter(|found| found.checkpoint == signed);
            let Some(found) = found else {
                let what = "where a deal stands is proved against the newest checkpoint alone";
                return Err(EvidenceFault::NotSigned(what.into()));
            };
            let (head, other) = match &found.entry {
                Some(entry) if entry.deal_id == deal_id => (Some(DealHead::from(entry)), None),
                Some(entry) => (None, Some(OtherHead { deal_id: entry.deal_id, head: entry.into() })),
                None => (None, None),
            };
            let (hashes, checkpoint) = (in_base64(&found.siblings), Note(found.checkpoint));
            Ok(Evidence::Head { deal_id, head, other, hashes, checkpoint })
        }
    }
}

fn inclusion(store: &Store, position: u64, signed: SignedCheckpoint) -> Result<Evidence, EvidenceFault> {
    let size = signed.checkpoint().size;
    let Some(record) = store.record(position)? else {
        let end = store.last_position();
        return Err(EvidenceFault::Unknown(format!("the log has positions 1 to {end}, not {position}")));
    };
    let Some(hashes) = store.prove_inclusion(position, size)? else {
        let what = format!("position {position} is recorded, but this checkpoint covers {size} records only");
        return Err(EvidenceFault::NotSigned(what));
    };
    let record = Base64(encode_frame(&record));
    Ok(Evidence::Inclusion { position, record, hashes: in_base64(&hashes), checkpoint: Note(signed) })
}

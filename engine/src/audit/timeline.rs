//! One deal from its first word to its money, with what does not fit pinned to where it stands.
//!
//! **Invariant:** whatever the history, there is a timeline: what cannot be read is said where it should stand.

use std::sync::Arc;

use tribunal_core::{Deal, next_deadline};
use tribunal_events::{Address, DealId, Terms, Timestamp};

use super::{Discrepancy, Examiner, Note};
use crate::{
    store::{Record, Store, StoreFault},
    view::{DeadlineView, DealSummary, role, sentence, summary},
};

/// Characters of a sentence at most: parties may write much.
const SENTENCE_CHARS_MAX: usize = 600;

/// A deal for people.
#[derive(Clone, Debug)]
pub struct Timeline {
    /// The deal.
    pub deal_id: DealId,
    /// Where it stands, as far as it could be replayed.
    pub summary: Option<DealSummary>,
    /// What both parties signed.
    pub terms: Option<Arc<Terms>>,
    /// One a record, in order.
    pub entries: Vec<Entry>,
    /// Records that are not shown.
    pub left_out: u64,
    /// Why the records end early, if they do.
    pub unreadable: Option<String>,
    /// What does not fit and belongs to no entry.
    pub discrepancies: Vec<Discrepancy>,
    /// What is worth knowing and belongs to no entry.
    pub notes: Vec<Note>,
}

/// One record.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Version in the deal.
    pub version: u64,
    /// Position in the log.
    pub position: u64,
    /// When it was recorded.
    pub at: Timestamp,
    /// What happened; empty where nobody can tell.
    pub kind: &'static str,
    /// Who said it, by the record.
    pub by: Address,
    /// What that is in the deal.
    pub role: &'static str,
    /// One sentence.
    pub what: String,
    /// The deal's state after it, by the rules.
    pub state: Option<&'static str>,
    /// What ends next.
    pub deadline: Option<DeadlineView>,
    /// Its id.
    pub event_id: String,
    /// What does not fit here.
    pub discrepancies: Vec<Discrepancy>,
    /// What is worth knowing here.
    pub notes: Vec<Note>,
}

/// The timeline of a deal with findings about it; records after log position `until` are left out, and all but `most`, of which
/// those with findings are always shown.
///
/// # Errors
/// Where the disk fails.
pub fn timeline(
    store: &Store,
    deal_id: &DealId,
    until: Option<u64>,
    findings: (&[Discrepancy], &[Note]),
    most: usize,
) -> Result<Timeline, StoreFault> {
    let mut examiner = Examiner::of_store(*deal_id);
    let mut discrepancies: Vec<_> = findings.0.iter().filter(|it| it.deal_id == Some(*deal_id)).cloned().collect();
    let mut notes: Vec<_> = findings.1.iter().filter(|it| it.deal_id == Some(*deal_id)).cloned().collect();
    let mut timeline = Timeline {
        deal_id: *deal_id,
        summary: None,
        terms: None,
        entries: Vec::new(),
        left_out: 0,
        unreadable: None,
        discrepancies: Vec::new(),
        notes: Vec::new(),
    };
    for record in store.stream(deal_id, 1) {
        let record = match record {
            Ok(record) if until.is_some_and(|until| record.position > until) => break,
            Ok(record) => record,
            Err(StoreFault::Damaged { place, what }) => {
                timeline.unreadable = Some(format!("{place}: {what}"));
                break;
            }
            Err(fault) => return Err(fault),
        };
        examiner.take(&record);
        let mut entry = entry(&record, examiner.so_far().deal.as_ref());
        entry.discrepancies = taken(&mut discrepancies, |it| it.position == Some(record.position));
        entry.notes = taken(&mut notes, |it| it.position == Some(record.position));
        let found = !entry.discrepancies.is_empty() || !entry.notes.is_empty();
        if timeline.entries.len() < most || found { timeline.entries.push(entry) } else { timeline.left_out += 1 }
    }
    let examined = examiner.so_far();
    timeline.terms.clone_from(&examined.terms);
    if let (Some(deal), Some((position, at))) = (&examined.deal, examined.last) {
        timeline.summary = Some(summary(deal, position, at));
    }
    (timeline.discrepancies, timeline.notes) = (discrepancies, notes);
    Ok(timeline)
}

fn taken<T>(list: &mut Vec<T>, of: impl Fn(&T) -> bool) -> Vec<T> {
    let (here, elsewhere) = std::mem::take(list).into_iter().partition(of);
    *list = elsewhere;
    here
}

fn entry(record: &Record, deal: Option<&Deal>) -> Entry {
    let parsed = record.envelope.clone().parse();
    let (kind, what) = match (parsed, deal) {
        (Ok(event), Some(deal)) => (event.kind_name(), sentence(deal, &event.into_kind())),
        (Ok(event), None) => (event.kind_name(), "stands before any terms".to_owned()),
        (Err(error), _) => ("", format!("is no event of this schema: {error}")),
    };
    Entry {
        version: record.version,
        position: record.position,
        at: record.recorded_at,
        kind,
        by: record.signer,
        role: deal.map_or("signer", |deal| role(deal, record.signer)),
        what: shortened(what),
        state: deal.map(Deal::state),
        deadline: deal
            .and_then(next_deadline)
            .map(|deadline| DeadlineView { kind: deadline.kind.word(), at: deadline.at.to_string() }),
        event_id: record.event_id.to_string(),
        discrepancies: Vec::new(),
        notes: Vec::new(),
    }
}

fn shortened(text: String) -> String {
    match text.char_indices().nth(SENTENCE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

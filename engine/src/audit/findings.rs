//! What an audit writes down.

use std::{
    collections::BTreeSet,
    fmt::Display,
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Deserializer, Serialize};
use tribunal_events::DealId;

use super::located;
use crate::store::{Place, Record};

/// Discrepancies, and notes, that a report lists at most; all are counted.
pub const FINDINGS_MAX: usize = 10_000;
/// Characters of an expected or found value at most.
const VALUE_CHARS_MAX: usize = 2_000;

/// A word of this program's own: a code, an outcome, a role.
pub type Word = &'static str;

/// Something that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Discrepancy {
    /// The deal, if it is about one.
    pub deal_id: Option<DealId>,
    /// Log position of the record, if it is about one.
    pub position: Option<u64>,
    /// Version of the record in its deal.
    pub version: Option<u64>,
    /// Stable code, see the module.
    #[serde(deserialize_with = "word")]
    pub code: Word,
    /// What should be there.
    pub expected: String,
    /// What is there.
    pub found: String,
}

/// Something that an auditor should know and that is no discrepancy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Note {
    /// The deal.
    pub deal_id: Option<DealId>,
    /// Log position of the record, if it is about one.
    pub position: Option<u64>,
    /// Stable code.
    #[serde(deserialize_with = "word")]
    pub code: Word,
    /// One sentence.
    pub text: String,
}

/// Discrepancies and notes as they come.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    pub(super) deal_id: Option<DealId>,
    /// All, also those beyond [`FINDINGS_MAX`].
    pub discrepancy_count: u64,
    /// The first [`FINDINGS_MAX`].
    pub discrepancies: Vec<Discrepancy>,
    /// The first [`FINDINGS_MAX`].
    pub notes: Vec<Note>,
}

impl Findings {
    /// None yet, about this deal or about the store.
    pub fn new(deal_id: Option<DealId>) -> Self {
        Self { deal_id, ..Self::default() }
    }

    /// A discrepancy at a record.
    pub fn record(&mut self, record: &Record, code: &'static str, expected: impl Display, found: impl Display) {
        let deal_id = self.deal_id.or(Some(record.deal_id));
        self.push(deal_id, Some(record.position), Some(record.version), code, &expected, &found);
    }

    /// A discrepancy of the deal, or of the store, as a whole.
    pub fn whole(&mut self, code: &'static str, expected: impl Display, found: impl Display) {
        self.push(self.deal_id, None, None, code, &expected, &found);
    }

    /// A discrepancy at a place of the log.
    pub(super) fn at(
        &mut self,
        deal_id: Option<DealId>,
        position: Option<u64>,
        code: &'static str,
        expected: impl Display,
        found: impl Display,
    ) {
        self.push(deal_id.or(self.deal_id), position, None, code, &expected, &found);
    }

    /// A discrepancy of a deal that these findings are not about.
    pub(super) fn about(
        &mut self,
        deal_id: DealId,
        position: u64,
        code: &'static str,
        expected: impl Display,
        found: impl Display,
    ) {
        self.push(Some(deal_id), Some(position), None, code, &expected, &found);
    }

    /// What the store could not read.
    pub(super) fn damage(&mut self, place: &Place, what: &str) {
        let (deal_id, position) = located(place);
        let found = format!("{place}: {what}");
        self.push(deal_id, position, None, "damage", &"what was written", &found);
    }

    /// A note.
    pub fn note(&mut self, position: Option<u64>, code: &'static str, text: impl Display) {
        if self.notes.len() < FINDINGS_MAX {
            self.notes.push(Note { deal_id: self.deal_id, position, code, text: short(&text) });
        }
    }

    /// Takes in others.
    pub(super) fn extend(&mut self, others: Self) {
        self.discrepancy_count += others.discrepancy_count;
        let room = FINDINGS_MAX.saturating_sub(self.discrepancies.len());
        self.discrepancies.extend(others.discrepancies.into_iter().take(room));
        let room = FINDINGS_MAX.saturating_sub(self.notes.len());
        self.notes.extend(others.notes.into_iter().take(room));
    }

    fn push(
        &mut self,
        deal_id: Option<DealId>,
        position: Option<u64>,
        version: Option<u64>,
        code: &'static str,
        expected: &dyn Display,
        found: &dyn Display,
    ) {
        self.discrepancy_count += 1;
        if self.discrepancies.len() < FINDINGS_MAX {
            let (expected, found) = (short(expected), short(found));
            self.discrepancies.push(Discrepancy { deal_id, position, version, code, expected, found });
        }
    }
}

fn short(value: &dyn Display) -> String {
    let text = value.to_string();
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// A word of this program's own, such as a code or an outcome, read back from what it saved.
pub(crate) fn word<'de, D: Deserializer<'de>>(deserializer: D) -> Result<&'static str, D::Error> {
    known(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

/// There are few of them, so each is kept for good once it was met.
pub(super) fn known(text: String) -> Result<&'static str, String> {
    static WORDS: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    if text.len() > 64 || !text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-') {
        return Err(format!("no code of this program: {text:.80}"));
    }
    let mut words = WORDS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(word) = words.get(text.as_str()) {
        return Ok(word);
    }
    let word: &'static str = Box::leak(text.into_boxed_str());
    words.insert(word);
    Ok(word)
}

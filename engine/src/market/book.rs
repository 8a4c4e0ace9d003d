//! What is known of a marketplace's cases: a journal of what was seen, judged and answered, and its fold.
//!
//! **Invariant:** what is asked gets one verdict for ever, and it is in the journal before it is answered.
//! **Invariant:** the fold of the journal is the state; nothing else is kept.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tribunal_contracts::{BlockRef, Cursor, LineFile, LineFileFault};
use tribunal_events::{Address, B256, VerdictKind};

/// The first line of a journal.
const HEADER: &str = r#"{"tribunal_market_cases":1}"#;
/// Bytes of a report's evidence that are kept; of longer ones its digest stands for it.
const EVIDENCE_BYTES_MAX: usize = 384 << 10;

/// Whose journal it is: another marketplace's is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// "alkahest", …
    pub kind: String,
    /// EIP-155 id.
    pub chain_id: u64,
    /// The contract that asks.
    pub contract: Address,
    /// The account that answers.
    pub account: Address,
}

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Entry {
    /// The first one.
    Opened(Identity),
    /// Somebody asks. `subject` is the marketplace's own name of what is asked about.
    Asked {
        /// Id of the case.
        case: B256,
        /// What it is about.
        subject: Value,
        /// Where it was said.
        block: BlockRef,
        /// In which transaction.
        transaction: B256,
    },
    /// It was judged: what was verified and the signed report.
    Judged {
        /// Id of the case.
        case: B256,
        /// The verification request.
        request: Value,
        /// The report, signed by the account that answers.
        report: Value,
    },
    /// Nothing is answered for now.
    Held {
        /// Id of the case.
        case: B256,
        /// Why.
        why: String,
        /// A word for the reason.
        code: String,
    },
    /// An answer of the own account stands on the chain.
    Answered {
        /// Id of the case.
        case: B256,
        /// True: the claim stands.
        valid: bool,
        /// Where.
        block: BlockRef,
        /// In which transaction.
        transaction: B256,
    },
    /// The case ended otherwise.
    Closed {
        /// Id of the case.
        case: B256,
        /// How.
        how: String,
        /// Where.
        block: BlockRef,
    },
    /// What was told of blocks after this one is not true any more.
    RolledBack {
        /// The newest block that stands; none: nothing does.
        to: Option<BlockRef>,
    },
    /// The chain was read up to here.
    Reached(BlockRef),
}

impl Entry {
    /// The case that it is about.
    pub const fn case(&self) -> Option<B256> {
        match self {
            Self::Asked { case, .. }
            | Self::Judged { case, .. }
            | Self::Held { case, .. }
            | Self::Answered { case, .. }
            | Self::Closed { case, .. } => Some(*case),
            Self::Opened(_) | Self::RolledBack { .. } | Self::Reached(_) => None,
        }
    }
}

/// Where a case stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The request is not on the chain any more.
    Gone,
    /// Asked, not judged yet.
    Open,
    /// Judged without a verdict, or nothing to be decided; looked at again.
    Held,
    /// Judged; the answer is on its way.
    Judged,
    /// The answer stands.
    Answered,
    /// The answer that stands is not what was judged here.
    Contrary,
    /// It ended otherwise.
    Closed,
}

impl Stage {
    /// As it stands in JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Open => "open",
            Self::Held => "held",
            Self::Judged => "judged",
            Self::Answered => "answered",
            Self::Contrary => "contrary",
            Self::Closed => "closed",
        }
    }

    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Gone, Self::Open, Self::Held, Self::Judged, Self::Answered, Self::Contrary, Self::Closed];
}

/// A case.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Case {
    /// What it is about.
    pub subject: Value,
    /// Where it was asked; none: a reorganisation took that away.
    pub asked: Option<BlockRef>,
    /// Whether the claim is right, once it was found.
    pub verdict: Option<bool>,
    /// What was verified last.
    pub request: Option<Value>,
    /// The report on it.
    pub report: Option<Value>,
    /// Why nothing is answered, code and sentence.
    pub held: Option<(String, String)>,
    /// The answer that stands, and where.
    pub answered: Option<(bool, BlockRef)>,
    /// How it ended otherwise, and where.
    pub closed: Option<(String, BlockRef)>,
}

impl Case {
    /// Where it stands.
    pub fn stage(&self) -> Stage {
        match (self.answered, &self.closed, self.asked, self.verdict) {
            (Some((answer, _)), _, _, verdict) if verdict.is_some_and(|verdict| verdict != answer) => Stage::Contrary,
            (Some(_), ..) => Stage::Answered,
            (None, Some(_), ..) => Stage::Closed,
            (None, None, None, _) => Stage::Gone,
            (None, None, Some(_), Some(_)) if self.held.is_none() => Stage::Judged,
            (None, None, Some(_), _) if self.held.is_some() => Stage::Held,
            (None, None, Some(_), _) => Stage::Open,
        }
    }

    /// Whether there is something to do for it.
    pub fn is_open(&self) -> bool {
        self.asked.is_some() && self.answered.is_none() && self.closed.is_none()
    }
}

/// The fold.
#[derive(Clone, Debug, Default)]
pub struct Book {
    identity: Option<Identity>,
    cases: BTreeMap<B256, Case>,
    cursor: Cursor,
}

impl Book {
    /// Whose it is.
    pub const fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Cases by id.
    pub const fn cases(&self) -> &BTreeMap<B256, Case> {
        &self.cases
    }

    /// How far the chain was read.
    pub const fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// A journal's fold, whoever holds it.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn read(path: &Path) -> Result<Self, LineFileFault> {
        let mut book = Self::default();
        for entry in LineFile::read(path, HEADER)? {
            book.fold(entry);
        }
        Ok(book)
    }

    /// Opens a journal to write.
    ///
    /// # Errors
    /// Where it cannot be read or is in use.
    pub fn open(path: &Path) -> Result<(LineFile<Entry>, Self), LineFileFault> {
        let (journal, entries) = LineFile::open(path, HEADER.into())?;
        let mut book = Self::default();
        for entry in entries {
            book.fold(entry);
        }
        Ok((journal, book))
    }

    /// Whether an entry says something new.
    pub fn is_news(&self, entry: &Entry) -> bool {
        match entry {
            Entry::Asked { case, block, .. } => self.cases.get(case).and_then(|it| it.asked) != Some(*block),
            Entry::Answered { case, valid, block, .. } => {
                self.cases.get(case).and_then(|it| it.answered) != Some((*valid, *block))
            }
            Entry::Held { case, code, .. } => {
                let held = self.cases.get(case).and_then(|it| it.held.as_ref());
                held.is_none_or(|(before, _)| before != code)
            }
            Entry::Closed { case, how, block } => {
                self.cases.get(case).and_then(|it| it.closed.as_ref()) != Some(&(how.clone(), *block))
            }
            Entry::Opened(_) | Entry::Judged { .. } | Entry::RolledBack { .. } | Entry::Reached(_) => true,
        }
    }

    /// Takes in an entry.
    pub fn fold(&mut self, entry: Entry) {
        match entry {
            Entry::Opened(identity) => self.identity = Some(identity),
            Entry::Asked { case, subject, block, .. } => {
                let case = self.cases.entry(case).or_default();
                case.subject = subject;
                case.asked = Some(block);
                // Asked again, it is looked at again.
                case.closed = None;
            }
            Entry::Judged { case, request, report } => {
                let Some(case) = self.cases.get_mut(&case) else { return };
                let found = match verdict(&report) {
                    Some(VerdictKind::Valid) => Some(true),
                    Some(VerdictKind::Invalid) => Some(false),
                    _ => None,
                };
                // The first definite verdict on a request is the one. Another request under the same name is another
                // question: a reorganisation may bring one.
                if case.verdict.is_none() || case.request.as_ref() != Some(&request) {
                    case.verdict = found;
                    case.request = Some(request);
                    case.report = Some(report);
                    case.held = None;
                }
            }
            Entry::Held { case, why, code } => {
                if let Some(case) = self.cases.get_mut(&case) {
                    case.held = (!code.is_empty()).then_some((code, why));
                }
            }
            // Answers are kept though nobody was heard asking: the same account may have run elsewhere.
            Entry::Answered { case, valid, block, .. } => {
                self.cases.entry(case).or_default().answered = Some((valid, block));
            }
            Entry::Closed { case, how, block } => self.cases.entry(case).or_default().closed = Some((how, block)),
            Entry::RolledBack { to } => {
                let stands = |block: &BlockRef| to.is_some_and(|to| block.number <= to.number);
                for case in self.cases.values_mut() {
                    case.asked = case.asked.filter(stands);
                    case.answered = case.answered.filter(|(_, block)| stands(block));
                    case.closed = case.closed.take().filter(|(_, block)| stands(block));
                }
                self.cursor.roll_back(to);
            }
            Entry::Reached(block) => self.cursor.push(block),
        }
    }
}

/// The verdict that a report says.
pub fn verdict(report: &Value) -> Option<VerdictKind> {
    match report["verdict"].as_str()? {
        "valid" => Some(VerdictKind::Valid),
        "invalid" => Some(VerdictKind::Invalid),
        "inconclusive" => Some(VerdictKind::Inconclusive),
        _ => None,
    }
}

/// A report as it is kept: of long evidence the digest alone.
pub fn kept(mut report: Value) -> Value {
    if report["evidence"].to_string().len() > EVIDENCE_BYTES_MAX {
        let verifier = report["evidence"]["verifier"].take();
        report["evidence"] = serde_json::json!({ "verifier": verifier, "omitted": true });
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(number: u64) -> BlockRef {
        BlockRef { number, hash: B256::with_last_byte(number as u8) }
    }

    fn asked(case: B256, at: u64) -> Entry {
        Entry::Asked { case, subject: Value::Null, block: block(at), transaction: B256::ZERO }
    }

    fn answered(case: B256, valid: bool, at: u64) -> Entry {
        Entry::Answered { case, valid, block: block(at), transaction: B256::ZERO }
    }

    fn judged(case: B256, word: &str) -> Entry {
        Entry::Judged { case, request: Value::Null, report: serde_json::json!({ "verdict": word }) }
    }

    fn stage(entries: impl IntoIterator<Item = Entry>) -> Stage {
        let mut book = Book::default();
        entries.into_iter().for_each(|entry| book.fold(entry));
        book.cases[&B256::ZERO].stage()
    }

    #[test]
    fn a_case_goes_from_asked_to_answered_and_back_where_the_chain_does() {
        let case = B256::ZERO;
        let life = [asked(case, 5), judged(case, "valid"), answered(case, true, 7)];
        assert_eq!(stage(life[..1].to_vec()), Stage::Open);
        assert_eq!(stage(life[..2].to_vec()), Stage::Judged);
        assert_eq!(stage(life.to_vec()), Stage::Answered);
        let back = |to| life.iter().cloned().chain([Entry::RolledBack { to }]).collect::<Vec<_>>();
        assert_eq!(stage(back(Some(block(7)))), Stage::Answered);
        assert_eq!(stage(back(Some(block(6)))), Stage::Judged, "to be answered again");
        assert_eq!(stage(back(Some(block(4)))), Stage::Gone);
        assert_eq!(stage(back(None)), Stage::Gone);
    }

    #[test]
    fn the_first_definite_verdict_stays_and_another_answer_is_contrary() {
        let case = B256::ZERO;
        let held = Entry::Held { case, why: "x".into(), code: "unavailable".into() };
        assert_eq!(stage([asked(case, 1), judged(case, "inconclusive"), held.clone()]), Stage::Held);
        assert_eq!(stage([asked(case, 1), held, judged(case, "invalid")]), Stage::Judged);
        let twice = [asked(case, 1), judged(case, "invalid"), judged(case, "valid"), answered(case, true, 2)];
        assert_eq!(stage(twice), Stage::Contrary);
        assert_eq!(stage([answered(case, true, 2), asked(case, 1)]), Stage::Answered);
        let again = Entry::Judged { case, request: 1.into(), report: serde_json::json!({ "verdict": "valid" }) };
        let other = [asked(case, 1), judged(case, "invalid"), again, answered(case, true, 2)];
        assert_eq!(stage(other), Stage::Answered, "another question, another verdict");
        let closed = Entry::Closed { case, how: "revoked".into(), block: block(2) };
        assert_eq!(stage([asked(case, 1), closed.clone()]), Stage::Closed);
        assert_eq!(stage([asked(case, 1), closed.clone(), asked(case, 3)]), Stage::Open);
        assert_eq!(stage([asked(case, 1), closed, Entry::RolledBack { to: Some(block(1)) }]), Stage::Open);
    }

    #[test]
    fn what_is_known_is_no_news() {
        let mut book = Book::default();
        let case = B256::ZERO;
        for entry in [asked(case, 1), answered(case, true, 2)] {
            assert!(book.is_news(&entry));
            book.fold(entry.clone());
            assert!(!book.is_news(&entry));
        }
        book.fold(Entry::RolledBack { to: Some(block(1)) });
        assert!(!book.is_news(&asked(case, 1)) && book.is_news(&answered(case, true, 2)));
    }

    #[test]
    fn long_evidence_is_not_kept() {
        let report =
            serde_json::json!({ "digest": "x", "evidence": { "verifier": "v", "a": "b".repeat(EVIDENCE_BYTES_MAX) } });
        let kept = kept(report);
        assert_eq!(kept, serde_json::json!({ "digest": "x", "evidence": { "verifier": "v", "omitted": true } }));
    }
}

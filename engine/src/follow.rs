//! Follows the record of somebody else's engine: what an independent mediator judges from, and what a watcher checks.
//!
//! A [`Follower`] reads the operator's stream of recorded events over HTTP into a store of its own, byte for byte: the same
//! positions, the same links. Nothing is believed: every record passes the same examination as an audit before anything is
//! done about it, and a record that the operator later tells otherwise does not fit the chain.
//!
//! **Invariant:** a deal whose record does not fit the rules is kept as evidence and never judged; nor is one that names
//! another operator than the one that is followed, who alone may say what happened in it.
//! **Invariant:** what an operator served once it cannot take back: a log that differs stops the following.

mod judging;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use tribunal_core::Deal;
use tribunal_events::{Address, ChainLink, DealId, Envelope, Timestamp};

pub use self::judging::{Followed, OverHttp};
use crate::{
    audit::Examiner,
    store::{Append, Fsync, NewRecord, Record, Store, StoreFault, StreamAppend, record_bytes},
};

/// A record as JSON at most, in bytes.
const LINE_BYTES_MAX: usize = 8 << 20;
/// Silence after which a connection counts as dead; the service sends a sign of life every 15 seconds.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Deals whose examination is kept in memory at most; others are examined from their beginning when they move.
const EXAMINED_MAX: usize = 1_000;
/// An answer that tells where a log ends at most, in bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Why a record cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum FollowFault {
    /// The own copy failed.
    #[error(transparent)]
    Store(#[from] StoreFault),
    /// The service is away, or answers what is no stream of events.
    #[error("{url}: {what}")]
    Service {
        /// Whose record.
        url: String,
        /// What is wrong.
        what: String,
    },
    /// The operator tells another history than it told before.
    #[error("{url} tells another history than before at position {position}: {what}; keep the copy, it is evidence")]
    Rewritten {
        /// Whose record.
        url: String,
        /// Where.
        position: u64,
        /// What differs.
        what: String,
    },
}

impl FollowFault {
    /// Whether asking again may help.
    pub const fn retry_helps(&self) -> bool {
        matches!(self, Self::Service { .. })
    }
}

/// A record as the service sends it.
#[derive(Deserialize)]
struct Told {
    position: u64,
    version: u64,
    deal_id: DealId,
    recorded_at_us: String,
    signer: Address,
    link: ChainLink,
    envelope: serde_json::Value,
}

/// What a new record means.
pub struct News {
    /// The record, which is durable in the own copy.
    pub record: Record,
    /// The deal after it, where everything in its record fits.
    pub deal: Option<Deal>,
    /// Whether with this record the deal is over, stopped to fit the rules, or goes on after that.
    pub closed: bool,
}

/// A copy of somebody's record that goes on.
pub struct Follower {
    url: String,
    /// Whose deals these are; nothing: whoever the terms name.
    operator: Option<Address>,
    client: reqwest::Client,
    store: Store,
    examined: BTreeMap<DealId, Examiner>,
    /// Deals in which something was recorded after they were closed.
    touched: BTreeSet<DealId>,
}

impl Follower {
    /// Follows the engine at `url`, `http://host:port`, into a store at `folder`. With `operator`, deals that name another one
    /// do not count: a log may hold what it likes about them.
    ///
    /// # Errors
    /// Where the copy cannot be opened, or the address is none.
    pub fn open(url: &str, operator: Option<Address>, folder: &Path) -> Result<Self, FollowFault> {
        let url = url.trim_end_matches('/').to_owned();
        tribunal_contracts::install_tls();
        let client = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| FollowFault::Service { url: url.clone(), what: error.to_string() })?;
        let store = Store::open(folder, Fsync::Group)?;
        Ok(Self { url, operator, client, store, examined: BTreeMap::new(), touched: BTreeSet::new() })
    }

    /// Where the copy of an engine's record is kept below a folder.
    pub fn folder(below: &Path, url: &str) -> PathBuf {
        let host = url.split_once("://").map_or(url, |(_, rest)| rest);
        let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' };
        below.join(host.trim_end_matches('/').chars().map(plain).collect::<String>())
    }

    /// The copy.
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Position of the last record that the service holds.
    ///
    /// # Errors
    /// Where it does not say.
    pub async fn end(&self) -> Result<u64, FollowFault> {
        let url = format!("{}/api/v1/deals?limit=1", self.url);
        let answer = self.client.get(url).timeout(Duration::from_secs(10)).send().await;
        let mut answer = answer.and_then(reqwest::Response::error_for_status).map_err(|error| self.service(&error))?;
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| self.service(&error))? {
            body.extend_from_slice(&chunk);
            if body.len() > ANSWER_BYTES_MAX {
                return Err(self.service(&"its answer is too long"));
            }
        }
        let json: serde_json::Value = serde_json::from_slice(&body).map_err(|error| self.service(&error))?;
        let end = json["log_position"].as_u64().ok_or_else(|| self.service(&"it tells no log position"))?;
        let last = self.store.last_position();
        if end < last {
            let what = format!("its log ends at {end}");
            return Err(FollowFault::Rewritten { url: self.url.clone(), position: last, what });
        }
        Ok(end)
    }

    /// Reads the stream from where the copy ends until the connection ends or `take` says stop; `take` hears of every record
    /// once it is in the copy.
    ///
    /// # Errors
    /// [`FollowFault::retry_helps`] says whether to go on.
    pub async fn read(&mut self, mut take: impl FnMut(News) -> bool) -> Result<(), FollowFault> {
        // The last record of the copy is told again, to see that it is still the same.
        let last = self.store.last_position();
        let url = format!("{}/api/v1/events/stream?after={}", self.url, last.saturating_sub(1));
        let answer = tokio::time::timeout(SILENCE_MAX, self.client.get(url).send()).await;
        let answer = answer.map_err(|_| self.service(&"it does not answer"))?;
        let mut answer = answer.and_then(reqwest::Response::error_for_status).map_err(|error| self.service(&error))?;
        let (mut buffer, mut scanned) = (Vec::new(), 0);
        loop {
            let chunk = tokio::time::timeout(SILENCE_MAX, answer.chunk()).await;
            let chunk = chunk.map_err(|_| self.service(&"it has fallen silent"))?;
            let Some(chunk) = chunk.map_err(|error| self.service(&error))? else { return Ok(()) };
            buffer.extend_from_slice(&chunk);
            let mut told = Vec::new();
            let mut start = 0;
            while let Some(length) = buffer[scanned.max(start)..].iter().position(|byte| *byte == b'\n') {
                let end = scanned.max(start) + length;
                if let Some(data) = buffer[start..end].strip_prefix(b"data:") {
                    let data: Told = serde_json::from_slice(data.trim_ascii()).map_err(|error| self.service(&error))?;
                    told.push(data);
                }
                (start, scanned) = (end + 1, end + 1);
            }
            buffer.drain(..start);
            scanned = buffer.len();
            if scanned > LINE_BYTES_MAX {
                return Err(self.service(&"a line of its stream is too long"));
            }
            for told in told {
                if told.position == last && last > 0 {
                    self.check_again(&told)?;
                    continue;
                }
                // Signatures, rules and the disk: not for the threads that keep everything else going.
                let news = tokio::task::block_in_place(|| self.take(told))?;
                if !take(news) {
                    return Ok(());
                }
            }
        }
    }

    /// Whether a record that the copy has is told as it was.
    fn check_again(&self, told: &Told) -> Result<(), FollowFault> {
        let known = self.store.record(told.position)?;
        let known = known.map_or(ChainLink::GENESIS, |known| known.link);
        if known == told.link {
            return Ok(());
        }
        let what = format!("it was linked by {known} and is now by {}", told.link);
        Err(FollowFault::Rewritten { url: self.url.clone(), position: told.position, what })
    }

    fn take(&mut self, told: Told) -> Result<News, FollowFault> {
        let position = self.store.last_position() + 1;
        let rewritten = |what: String| FollowFault::Rewritten { url: self.url.clone(), position, what };
        let head = self.store.head(&told.deal_id)?;
        let version = head.map_or(1, |head| head.version + 1);
        if (told.position, told.version) != (position, version) {
            let what = format!(
                "position {position} and version {version} of deal {} come next, not {} and {}",
                told.deal_id, told.position, told.version
            );
            return Err(rewritten(what));
        }
        let envelope = Envelope::decode(told.envelope.to_string().as_bytes());
        let envelope = envelope.map_err(|error| rewritten(error.to_string()))?;
        let at_us = told.recorded_at_us.parse().map_err(|_| rewritten("its time is no number".into()))?;
        let mut record = Record {
            position,
            version,
            deal_id: told.deal_id,
            event_id: envelope.event_id(),
            recorded_at: Timestamp::from_us(at_us),
            signer: told.signer,
            envelope,
            previous: head.map_or(ChainLink::GENESIS, |head| head.link),
            link: ChainLink::GENESIS,
        };
        record.link = record.previous.extend(&record_bytes(&record));
        if record.link != told.link {
            return Err(rewritten(format!("its record is linked by {}, ours by {}", told.link, record.link)));
        }
        // What is closed stays closed: it is over, or did not fit.
        let was_open = head.is_none_or(|head| head.open);
        if was_open {
            self.examine(&record)?;
        }
        let deal = self.examined.get(&record.deal_id).filter(|_| was_open).and_then(Examiner::sound).cloned();
        let deal = deal.filter(|deal| self.operator.is_none_or(|operator| deal.terms().operator == operator));
        let append = StreamAppend {
            deal_id: record.deal_id,
            expected_version: version - 1,
            records: vec![NewRecord {
                envelope: record.envelope.clone(),
                signer: record.signer,
                recorded_at: record.recorded_at,
            }],
            // Whoever lists open deals folds them: only what fits is open.
            open: deal.as_ref().is_some_and(|deal| !deal.is_settled()),
            snapshot: None,
        };
        self.store.append(Append { streams: vec![append], ..Append::default() })?;
        let mut closed = was_open && deal.as_ref().is_none_or(Deal::is_settled);
        if closed {
            self.examined.remove(&record.deal_id);
        }
        // What comes after the end is told of too; once, however much it is.
        closed |= !was_open && self.touched.len() < EXAMINED_MAX && self.touched.insert(record.deal_id);
        Ok(News { record, deal, closed })
    }

    /// Takes the record into its deal's examination, which is made from the copy where it is not in memory.
    fn examine(&mut self, record: &Record) -> Result<(), FollowFault> {
        if !self.examined.contains_key(&record.deal_id) {
            if self.examined.len() >= EXAMINED_MAX {
                self.examined.pop_first();
            }
            let mut examiner = Examiner::new(record.deal_id);
            for earlier in self.store.stream(&record.deal_id, 1) {
                examiner.take(&earlier?);
            }
            self.examined.insert(record.deal_id, examiner);
        }
        let examiner = self.examined.get_mut(&record.deal_id).expect("put there above");
        let was_sound = record.version == 1 || examiner.sound().is_some();
        examiner.take(record);
        if was_sound && examiner.sound().is_none() && !examiner.is_imported() {
            let first = examiner.findings().discrepancies.first();
            let first = first.map(|it| format!("{}: expected {}, found {}", it.code, it.expected, it.found));
            let first = first.unwrap_or_default();
            tracing::error!(deal_id = %record.deal_id, position = record.position, first,
                "the operator's record of this deal does not fit the rules; it is not judged, someone must act");
        }
        Ok(())
    }

    fn service(&self, what: &dyn std::fmt::Display) -> FollowFault {
        FollowFault::Service { url: self.url.clone(), what: what.to_string() }
    }
}

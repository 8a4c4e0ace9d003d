//! An audit that can be broken off: a file says how far it is, and the next run goes on from there.
//!
//! The file is text: the line `tribunal-audit 1`, BLAKE3 of what follows in hex, and one JSON object. It holds the report on
//! all deals up to one, in the order of ids, and a running hash over where each of them stood:
//! `h = derive_key("tribunal.v1 audit progress", h ‖ deal id ‖ version u64 BE ‖ link)`.
//!
//! A run that goes on audits anew those of these deals that got records since; for the others the hash proves that they are the
//! ones that were audited. What belongs to no deal, and every row of the store, is checked in each run.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Mutex, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tribunal_events::{ChainLink, DealId, Digest, Timestamp};

use super::{Audit, AuditFault, AuditReport, Audited, cores, deals::Moment, lock, tolerate};
use crate::{
    store::{Head, StoreFault},
    whole_file::{read_at_most, write_whole},
};

const FIRST_LINE: &str = "tribunal-audit 1";
/// Bytes of a file at most: a full report has far fewer.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Where to keep the progress of an audit.
#[derive(Clone, Debug)]
pub struct Resume {
    /// The file; made where there is none.
    pub path: PathBuf,
    /// How often it is written.
    pub every: Duration,
    /// What else must be the same for an audit to go on, such as where artifacts come from.
    pub context: String,
}

/// The file with the progress cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProgressFault {
    /// It cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What failed.
        #[source]
        source: io::Error,
    },
    /// It is not what was written.
    #[error("{} is damaged: {what}; remove it to begin anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// It is of another store.
    #[error("{} is of another store, {what}", path.display())]
    OtherStore {
        /// The file.
        path: PathBuf,
        /// What differs.
        what: String,
    },
    /// It was made with other options.
    #[error("{} was made with other options ({found}); use those, or another file", path.display())]
    OtherOptions {
        /// The file.
        path: PathBuf,
        /// The options it was made with.
        found: String,
    },
    /// Deals that were audited are not what they were.
    #[error(
        "{} is of a record that was changed since: deals up to {through} are not those that were audited; remove the file to begin anew",
        path.display()
    )]
    Rewritten {
        /// The file.
        path: PathBuf,
        /// The last deal that was audited.
        through: DealId,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    /// Link of the log's first record.
    first: Option<ChainLink>,
    options: String,
    log_end: u64,
    now_us: u64,
    through: Option<DealId>,
    heads: Digest,
    report: AuditReport,
}

/// Keeps the file up to date.
pub(super) struct Keeper<'a> {
    resume: &'a Resume,
    first: Option<ChainLink>,
    options: String,
    now: Timestamp,
    through: Option<DealId>,
    heads: Digest,
    saved_at: Instant,
}

impl Keeper<'_> {
    /// All deals up to this one are in the report.
    pub(super) fn passed(&mut self, audited: &Audited) {
        self.heads = chained(self.heads, &audited.deal_id, audited.end);
        self.through = Some(audited.deal_id);
    }

    pub(super) fn save_sometimes(&mut self, report: &AuditReport) -> Result<(), ProgressFault> {
        if self.saved_at.elapsed() < self.resume.every {
            return Ok(());
        }
        self.save(report)
    }

    pub(super) fn save(&mut self, report: &AuditReport) -> Result<(), ProgressFault> {
        let saved = Saved {
            first: self.first,
            options: self.options.clone(),
            log_end: report.log_end,
            now_us: self.now.us(),
            through: self.through,
            heads: self.heads,
            report: report.clone(),
        };
        let json = serde_json::to_string(&saved).expect("a report has a JSON form");
        let text = format!("{FIRST_LINE}\n{}\n{json}\n", blake3::hash(json.as_bytes()).to_hex());
        let io = |source| ProgressFault::Io { path: self.resume.path.clone(), source };
        write_whole(&self.resume.path, text.as_bytes()).map_err(io)?;
        self.saved_at = Instant::now();
        Ok(())
    }
}

fn chained(before: Digest, deal_id: &DealId, (version, link): (u64, ChainLink)) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key("tribunal.v1 audit progress");
    hasher.update(before.bytes()).update(deal_id.bytes()).update(&version.to_be_bytes()).update(link.bytes());
    Digest::new(*hasher.finalize().as_bytes())
}

fn read(path: &Path) -> Result<Option<Saved>, ProgressFault> {
    let io = |source| ProgressFault::Io { path: path.to_path_buf(), source };
    let damaged = |what: &str| ProgressFault::Damaged { path: path.to_path_buf(), what: what.to_owned() };
    let bytes = match read_at_most(path, FILE_BYTES_MAX) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => return Err(damaged("it is too long to be one")),
        bytes => bytes.map_err(io)?,
    };
    let text = std::str::from_utf8(&bytes).map_err(|_| damaged("it is no text"))?;
    let mut lines = text.split('\n');
    if lines.next() != Some(FIRST_LINE) {
        return Err(damaged(&format!("its first line is not {FIRST_LINE:?}")));
    }
    let (Some(hash), Some(json), Some(""), None) = (lines.next(), lines.next(), lines.next(), lines.next()) else {
        return Err(damaged("it has not the three lines that it should have"));
    };
    if blake3::hash(json.as_bytes()).to_hex().as_str() != hash {
        return Err(damaged("its hash is another one"));
    }
    let saved = serde_json::from_str(json).map_err(|error| damaged(&error.to_string()))?;
    Ok(Some(saved))
}

impl<'a> Audit<'a> {
    /// Takes up the audit that the file tells of, or begins one; gives the last deal that needs no audit any more.
    pub(super) fn take_up(&mut self, resume: &'a Resume) -> Result<Option<DealId>, AuditFault> {
        let first = tolerate(self.store.record(1), &mut lock(&self.whole))?.flatten().map(|record| record.link);
        let asked = serde_json::to_string(&self.fold.report().options).expect("options have a JSON form");
        let options = format!("{asked} {}", resume.context).trim_end().to_owned();
        let mut keeper = Keeper {
            resume,
            first,
            options,
            now: self.now,
            through: None,
            heads: Digest::default(),
            saved_at: Instant::now(),
        };
        let mut report = self.fold.report().clone();
        if let Some(saved) = read(&resume.path)? {
            keeper.fits(&saved, self.last_position)?;
            self.go_on(saved, &mut keeper, &mut report)?;
        }
        // At once: that the file cannot be written is better known now than after hours.
        keeper.save(&report)?;
        let through = keeper.through;
        self.done.fetch_add(report.records.saturating_sub(self.done.load(Ordering::Relaxed)), Ordering::Relaxed);
        self.fold.resume(report, keeper);
        Ok(through)
    }

    /// Brings what was saved up to date.
    fn go_on(&self, saved: Saved, keeper: &mut Keeper<'_>, report: &mut AuditReport) -> Result<(), AuditFault> {
        let Some(through) = saved.through else { return Ok(()) };
        let heads = || self.store.deals().take_while(|deal| deal.as_ref().map_or(true, |(id, _)| *id <= through));
        let grew = |head: &Head| head.last_position > saved.log_end;
        let grown: Vec<_> = heads().filter_map(|deal| deal.ok().filter(|(_, head)| grew(head))).collect();
        if !grown.is_empty() && !saved.report.is_complete() {
            tracing::warn!(
                deals = grown.len(),
                "deals went on, and the report holds too much to take their part out: beginning anew"
            );
            return Ok(());
        }
        let before = Moment { until: Some(saved.log_end), now: Timestamp::from_us(saved.now_us) };
        let again = self.again(grown, before)?;
        let (mut old, mut new) = (Digest::default(), Digest::default());
        for deal in heads() {
            let (deal_id, head) = match deal {
                Ok(deal) => deal,
                Err(StoreFault::Damaged { place, what }) => {
                    lock(&self.whole).damage(&place, &what);
                    continue;
                }
                Err(fault) => return Err(fault.into()),
            };
            let stands = (head.version, head.link);
            let (was, is) = match again.get(&deal_id) {
                None => (Some(stands), Some(stands)),
                Some((was, is)) => (was.as_ref().map(|it| it.end), is.as_ref().map(|it| it.end)),
            };
            old = was.map_or(old, |end| chained(old, &deal_id, end));
            new = is.map_or(new, |end| chained(new, &deal_id, end));
            if !again.contains_key(&deal_id) {
                self.within.fetch_add(head.version, Ordering::Relaxed);
            }
        }
        if old != saved.heads {
            return Err(ProgressFault::Rewritten { path: keeper.resume.path.clone(), through }.into());
        }
        let (log_end, log_end_at) = (report.log_end, report.log_end_at.take());
        *report = AuditReport { log_end, log_end_at, ..saved.report };
        for (was, is) in again.into_values() {
            if let Some(was) = was {
                report.discount(&was);
            }
            if let Some(is) = is {
                report.count(is);
            }
        }
        (keeper.through, keeper.heads) = (Some(through), new);
        Ok(())
    }

    /// Audits deals as they were before and as they are, on all cores.
    fn again(&self, grown: Vec<(DealId, Head)>, before: Moment) -> Result<BTreeMap<DealId, WasAndIs>, AuditFault> {
        let (grown, again) = (Mutex::new(grown.into_iter()), Mutex::new(BTreeMap::new()));
        thread::scope(|scope| {
            for _ in 0..cores() {
                scope.spawn(|| {
                    loop {
                        let next = lock(&grown).next();
                        let Some((deal_id, _)) = next.filter(|_| !self.is_stopped()) else { break };
                        let was = self.deal(&deal_id, before, false);
                        match was.and_then(|was| Ok((was, self.deal(&deal_id, self.moment(), true)?))) {
                            Ok(both) => drop(lock(&again).insert(deal_id, both)),
                            Err(fault) => self.stop(fault),
                        }
                    }
                });
            }
        });
        match lock(&self.fault).take() {
            Some(fault) => Err(fault),
            None => Ok(std::mem::take(&mut *lock(&again))),
        }
    }
}

/// A deal as it was audited and as it is.
type WasAndIs = (Option<Audited>, Option<Audited>);

impl Keeper<'_> {
    /// Whether the file is of this audit.
    fn fits(&self, saved: &Saved, last_position: u64) -> Result<(), ProgressFault> {
        let path = || self.resume.path.clone();
        let say = |link: Option<ChainLink>| link.map_or_else(|| "nothing".to_owned(), |link| link.to_string());
        if saved.first.is_some() && saved.first != self.first {
            let what = format!("whose log begins with {}; this one begins with {}", say(saved.first), say(self.first));
            return Err(ProgressFault::OtherStore { path: path(), what });
        }
        if saved.options != self.options {
            return Err(ProgressFault::OtherOptions { path: path(), found: saved.options.clone() });
        }
        if saved.log_end > last_position {
            let what = format!("whose log had {} records; this one has {last_position}", saved.log_end);
            return Err(ProgressFault::OtherStore { path: path(), what });
        }
        Ok(())
    }
}

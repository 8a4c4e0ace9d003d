//! Marketplaces of others that ask an account of this operator to judge: their chain is followed, every request is read from
//! the chain itself, verified, kept with its reasons, and answered by a transaction.
//!
//! One [`Market`] is one contract on one chain with one account. It judges only after it has read the chain to its head, so
//! that what the account answered before is known, also by a machine that lost its journal. A verdict is in the journal
//! ([`book`]) before its answer is sent. Inconclusive is never answered: these contracts know yes and no alone, and a fault of
//! this machine is nobody's guilt. Held cases are looked at again until they end.
//!
//! **Invariant:** an answer that stands on the chain is never overwritten, whatever is found later.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use alloy_primitives::U256;
use futures::future::BoxFuture;
use serde::Serialize;
use serde_json::Value;
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tribunal_contracts::{
    ChainFault, LineFile, LineFileFault, Observed, ObservedLog, Observer, RpcNode, Sender, Watched,
};
use tribunal_events::{Address, B256, Domain, Signer, SignerFault, VerdictKind};
use tribunal_verifiers::{BadRequest, Request, Service};

use crate::report;

pub mod alkahest;
pub mod book;
pub mod check;
pub mod lilypad;
pub mod settings;

use book::{Book, Case, Entry, Identity, Stage};

/// Cases at work in one market at most; the others wait.
const AT_WORK_MAX: usize = 32;
/// First wait before a held case is looked at again; doubles up to [`RETRY_MAX`].
const RETRY_FIRST: Duration = Duration::from_secs(2);
const RETRY_MAX: Duration = Duration::from_secs(600);
/// Reasons that pass by themselves or cost little to look at again, and how long a case that is held for another one waits at
/// most.
const TRANSIENT: [&str; 13] = [
    "chain",
    "signer",
    "journal",
    "ended",
    "changed",
    "unavailable",
    "artifact-unavailable",
    "verifier-unavailable",
    "not-asked",
    "document-missing",
    "document-differs",
    "module-unknown",
    "module-unusable",
];
const WORK_EVERY: Duration = Duration::from_secs(86_400);
/// Held for this reason a case is looked at again at least this often: others judge while it waits.
const FEW_WORDS: &str = "few-votes";
const WORDS_EVERY: Duration = Duration::from_secs(15);
/// An answer that was sent and is not seen on the chain after this long is looked at again.
const UNSEEN: Duration = Duration::from_secs(300);
/// Blocks and time after which the place in the chain is kept though nothing happened.
const KEPT_BLOCKS: u64 = 1_000;
const KEPT_EVERY: Duration = Duration::from_secs(300);
/// Time that a transaction needs to be mined before a case's deadline.
const ANSWER_S: u64 = 30;

/// What an event of a marketplace says.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// Somebody asks the own account.
    Asked {
        /// Id of the case.
        case: B256,
        /// What it is about, in the marketplace's own terms.
        subject: Value,
    },
    /// The own account has answered.
    Answered {
        /// Id of the case.
        case: B256,
        /// True: the claim stands.
        valid: bool,
    },
    /// The case ended without the own account.
    Closed {
        /// Id of the case.
        case: B256,
        /// How.
        how: String,
    },
}

/// What there is to decide.
#[derive(Clone, Debug)]
pub enum Question {
    /// Verify this, in time.
    Verify {
        /// A verification request, as JSON.
        request: Value,
        /// Unix time after which an answer changes nothing; none: no such time.
        until_s: Option<u64>,
    },
    /// Nothing for now.
    Nothing {
        /// A word for the reason.
        code: &'static str,
        /// The reason.
        why: String,
    },
    /// Nothing ever, unless somebody asks again.
    Over {
        /// The reason.
        why: String,
    },
}

/// A transaction that answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The contract.
    pub to: Address,
    /// The call.
    pub data: Vec<u8>,
}

/// How a marketplace speaks.
pub trait Marketplace: Send + Sync {
    /// "alkahest", …
    fn kind(&self) -> &'static str;

    /// The contract that asks.
    fn contract(&self) -> Address;

    /// Contracts and events that are followed.
    fn watched(&self) -> (Vec<Address>, Vec<B256>);

    /// What an event says about the own account's cases.
    fn said(&self, log: &ObservedLog) -> Option<Said>;

    /// Reads from the chain what there is to decide about a subject.
    ///
    /// # Errors
    /// Where the node cannot be asked.
    fn question<'a>(
        &'a self,
        node: &'a RpcNode,
        subject: &'a Value,
        now_s: u64,
    ) -> BoxFuture<'a, Result<Question, ChainFault>>;

    /// The transaction that says so.
    fn answer(&self, subject: &Value, valid: bool) -> Answer;

    /// Whether answers and ends are told that are not the own account's alone; those count where it was asked.
    fn tells_of_others(&self) -> bool {
        false
    }

    /// What the account signs beside the report where several decide together: the word without its signature, and what is
    /// hashed for it.
    fn word(&self, _subject: &Value, _report: &Value) -> Option<(Value, Vec<u8>)> {
        None
    }

    /// Where several decide together: the transaction once enough have said the same, else why not yet, code and sentence.
    fn gather<'a>(&'a self, _node: &'a RpcNode, _subject: &'a Value, _report: &'a Value) -> Option<Gathering<'a>> {
        None
    }
}

/// The words of others on their way.
pub type Gathering<'a> = BoxFuture<'a, Result<Answer, (&'static str, String)>>;

/// What a market is made of.
pub struct Parts {
    /// Its name in the settings.
    pub name: String,
    /// How it speaks.
    pub marketplace: Box<dyn Marketplace>,
    /// The account's way to the chain.
    pub sender: Sender,
    /// Signs reports: the same account.
    pub signer: Arc<dyn Signer>,
    /// The first block that can have an event.
    pub first_block: u64,
    /// Blocks that must stand before a request counts.
    pub confirmations: u64,
    /// How often the chain is asked.
    pub poll: Duration,
    /// Its journal.
    pub journal: PathBuf,
    /// Checks claims.
    pub verifier: Arc<Service>,
    /// Verifications side by side, of all markets.
    pub workers: Arc<Semaphore>,
}

/// A market could not start.
#[derive(Debug, thiserror::Error)]
pub enum MarketFault {
    /// Its journal cannot be used.
    #[error(transparent)]
    Journal(#[from] LineFileFault),
    /// Its journal is another one's.
    #[error("the journal {path} is of {found}, not of {expected}")]
    Other {
        /// The file.
        path: String,
        /// In the settings.
        expected: String,
        /// In the file.
        found: String,
    },
}

/// What a market counts.
#[derive(Debug, Default)]
pub struct Counts {
    /// Faults of node, journal and signer.
    pub faults: AtomicU64,
    /// Reorganisations that took something back.
    pub reorganisations: AtomicU64,
    /// Answers sent.
    pub sent: AtomicU64,
    /// Verifications.
    pub verified: AtomicU64,
    /// The last block that was read.
    pub block: AtomicU64,
    /// Whether the chain is read to its head.
    pub caught_up: AtomicBool,
}

/// One contract on one chain that asks one account. See the module.
pub struct Market {
    name: String,
    marketplace: Box<dyn Marketplace>,
    sender: Sender,
    signer: Arc<dyn Signer>,
    watched: Watched,
    poll: Duration,
    kept: Mutex<Kept>,
    verifier: Arc<Service>,
    workers: Arc<Semaphore>,
    counts: Counts,
}

/// What is known, and where it is kept.
struct Kept {
    journal: LineFile<Entry>,
    book: Book,
}

/// When a case is looked at again.
struct Pause {
    at: Instant,
    length: Duration,
}

/// What came of a look at a case.
enum Outcome {
    /// The answer is sent.
    Sent,
    /// Not now; said once for each code.
    Held { code: String, why: String },
    /// Not ever.
    Over { why: String },
}

impl Market {
    /// Opens the journal.
    ///
    /// # Errors
    /// Where it cannot be used, or is another market's.
    pub fn open(parts: Parts) -> Result<Self, MarketFault> {
        let Parts { name, marketplace, sender, signer, first_block, confirmations, poll, journal, verifier, workers } =
            parts;
        let identity = Identity {
            kind: marketplace.kind().into(),
            chain_id: sender.chain_id(),
            contract: marketplace.contract(),
            account: sender.account(),
        };
        let path = journal;
        let (mut journal, mut book) = Book::open(&path)?;
        match book.identity() {
            None => {
                journal.append(&[Entry::Opened(identity.clone())])?;
                book.fold(Entry::Opened(identity));
            }
            Some(found) if *found == identity => {}
            Some(found) => {
                return Err(MarketFault::Other {
                    path: path.display().to_string(),
                    expected: of(&identity),
                    found: of(found),
                });
            }
        }
        let (contracts, events) = marketplace.watched();
        let watched = Watched { contracts, events, first_block, confirmations };
        let (kept, counts) = (Mutex::new(Kept { journal, book }), Counts::default());
        Ok(Self { name, marketplace, sender, signer, watched, poll, kept, verifier, workers, counts })
    }

    /// Its name in the settings.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which marketplace, "alkahest".
    pub fn kind(&self) -> &'static str {
        self.marketplace.kind()
    }

    /// The contract that asks.
    pub fn contract(&self) -> Address {
        self.marketplace.contract()
    }

    /// Chain and account that it answers as.
    pub const fn account(&self) -> (u64, Address) {
        (self.sender.chain_id(), self.sender.account())
    }

    /// What it counts.
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Every case as it stands.
    pub fn cases(&self) -> Vec<(B256, Case)> {
        self.kept().book.cases().iter().map(|(id, case)| (*id, case.clone())).collect()
    }

    /// What this account signed on a case where several decide together.
    pub fn word(&self, id: &B256) -> Option<Value> {
        self.kept().book.cases().get(id)?.report.as_ref()?.get("word").cloned()
    }

    /// How many cases stand where.
    pub fn stages(&self) -> BTreeMap<Stage, u64> {
        let mut stages = BTreeMap::new();
        for case in self.kept().book.cases().values() {
            *stages.entry(case.stage()).or_default() += 1;
        }
        stages
    }

    /// Follows, judges and answers until cancelled. What is at work then is given up; it is taken up at the next start.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken) {
        let mut observer =
            Observer::new(self.sender.provider().clone(), self.watched.clone(), self.kept().book.cursor().clone());
        let mut tasks = JoinSet::<(B256, Outcome)>::new();
        let mut pauses = BTreeMap::<B256, Pause>::new();
        let mut at_work = BTreeSet::new();
        let mut kept = (observer.cursor().last().map_or(0, |last| last.number), Instant::now());
        let mut fault_pause = self.poll;
        loop {
            while let Some(done) = tasks.try_join_next() {
                self.done(done, &mut at_work, &mut pauses);
            }
            let step = tokio::select! {
                () = cancel.cancelled() => break,
                step = observer.next() => step,
            };
            let wait = match step {
                Ok(Some(observed)) => match self.take(observed, &mut kept) {
                    Ok(changed) => {
                        // What happened to a case ends its waiting.
                        match changed {
                            None => pauses.clear(),
                            Some(cases) => pauses.retain(|id, _| !cases.contains(id)),
                        }
                        Duration::ZERO
                    }
                    Err(fault) => {
                        // What could not be kept must not be passed over.
                        tracing::error!(market = %self.name, %fault, "the market stops: someone must act");
                        self.counts.faults.fetch_add(1, Ordering::Relaxed);
                        self.counts.caught_up.store(false, Ordering::Relaxed);
                        break;
                    }
                },
                Ok(None) => {
                    fault_pause = self.poll;
                    self.counts.caught_up.store(true, Ordering::Relaxed);
                    self.poll
                }
                Err(fault) => {
                    tracing::warn!(market = %self.name, fault = %crate::failure::with_causes(&fault), "the chain cannot be followed for now");
                    self.counts.faults.fetch_add(1, Ordering::Relaxed);
                    fault_pause = (fault_pause * 2).min(Duration::from_secs(60));
                    fault_pause
                }
            };
            if self.counts.caught_up.load(Ordering::Relaxed) {
                for id in self.due(&at_work, &pauses) {
                    at_work.insert(id);
                    let this = Arc::clone(&self);
                    tasks.spawn(async move { (id, this.look(id).await) });
                }
            }
            tokio::select! {
                () = cancel.cancelled() => break,
                () = tokio::time::sleep(wait) => {}
                Some(done) = tasks.join_next(), if !tasks.is_empty() => self.done(done, &mut at_work, &mut pauses),
            }
        }
        // A verification cannot be broken off, but nobody waits for it.
        tasks.shutdown().await;
    }

    fn done(
        &self,
        done: Result<(B256, Outcome), tokio::task::JoinError>,
        at_work: &mut BTreeSet<B256>,
        pauses: &mut BTreeMap<B256, Pause>,
    ) {
        let (id, outcome) = match done {
            Ok(done) => done,
            Err(ended) => {
                tracing::error!(market = %self.name, %ended, "a case ended unexpectedly");
                at_work.clear();
                return;
            }
        };
        at_work.remove(&id);
        let length = match outcome {
            Outcome::Sent => UNSEEN,
            Outcome::Over { why } => {
                let block = self.kept().book.cursor().last().unwrap_or_default();
                let entry = Entry::Closed { case: id, how: why, block };
                if let Err(fault) = self.keep(vec![entry]) {
                    tracing::error!(market = %self.name, %fault, "what was found cannot be kept");
                }
                RETRY_MAX
            }
            Outcome::Held { code, why } => {
                let before = pauses.get(&id).map(|pause| pause.length);
                let length = match code.as_str() {
                    FEW_WORDS => before.map_or(RETRY_FIRST, |length| (length * 2).min(WORDS_EVERY)),
                    _ if TRANSIENT.contains(&code.as_str()) => {
                        before.map_or(RETRY_FIRST, |length| (length * 2).min(RETRY_MAX))
                    }
                    // It would cost the same work again: only for a machine or settings that have changed.
                    _ => before.map_or(RETRY_MAX, |length| (length * 2).clamp(RETRY_MAX, WORK_EVERY)),
                };
                let entry = Entry::Held { case: id, why, code };
                if let Err(fault) = self.keep(vec![entry]) {
                    tracing::error!(market = %self.name, %fault, "what was found cannot be kept");
                }
                length
            }
        };
        pauses.insert(id, Pause { at: Instant::now() + length, length });
        pauses.retain(|id, _| self.kept().book.cases().get(id).is_some_and(Case::is_open));
    }

    /// Cases to be looked at now.
    fn due(&self, at_work: &BTreeSet<B256>, pauses: &BTreeMap<B256, Pause>) -> Vec<B256> {
        let now = Instant::now();
        let room = AT_WORK_MAX.saturating_sub(at_work.len());
        let kept = self.kept();
        let open = kept.book.cases().iter().filter(|(id, case)| {
            case.is_open() && !at_work.contains(*id) && pauses.get(*id).is_none_or(|pause| pause.at <= now)
        });
        open.map(|(id, _)| *id).take(room).collect()
    }

    /// Keeps what the chain told; gives the cases that it is about, `None` where that may be all.
    fn take(&self, observed: Observed, kept: &mut (u64, Instant)) -> Result<Option<Vec<B256>>, LineFileFault> {
        match observed {
            Observed::RolledBack { to } => {
                tracing::warn!(market = %self.name, to = to.map_or(0, |to| to.number), "the chain was reorganised");
                self.counts.reorganisations.fetch_add(1, Ordering::Relaxed);
                *kept = (to.map_or(0, |to| to.number), Instant::now());
                self.keep(vec![Entry::RolledBack { to }])?;
                Ok(None)
            }
            Observed::Logs { through, logs } => {
                let mut asked = BTreeSet::new();
                let mut entries: Vec<_> = logs.iter().filter_map(|log| self.entry(log, &mut asked)).collect();
                entries.retain(|entry| self.kept().book.is_news(entry));
                self.counts.block.store(through.number, Ordering::Relaxed);
                let due = through.number >= kept.0 + KEPT_BLOCKS || kept.1.elapsed() >= KEPT_EVERY;
                if entries.is_empty() && !due {
                    return Ok(Some(Vec::new()));
                }
                let cases = entries.iter().filter_map(Entry::case).collect();
                entries.push(Entry::Reached(through));
                *kept = (through.number, Instant::now());
                self.keep(entries)?;
                Ok(Some(cases))
            }
        }
    }

    /// What a log means; `asked` are the cases that were asked in logs before it that are not kept yet.
    fn entry(&self, log: &ObservedLog, asked: &mut BTreeSet<B256>) -> Option<Entry> {
        let (block, transaction) = (log.block, log.transaction);
        Some(match self.marketplace.said(log)? {
            Said::Asked { case, subject } => {
                asked.insert(case);
                Entry::Asked { case, subject, block, transaction }
            }
            // What a panel decides, or where no mediator is named, is told of everybody's cases.
            Said::Answered { case, .. } | Said::Closed { case, .. }
                if self.marketplace.tells_of_others() && !asked.contains(&case) && !self.is_asked(&case) =>
            {
                return None;
            }
            Said::Answered { case, valid } => Entry::Answered { case, valid, block, transaction },
            Said::Closed { case, how } => Entry::Closed { case, how, block },
        })
    }

    fn is_asked(&self, case: &B256) -> bool {
        self.kept().book.cases().get(case).is_some_and(|case| case.asked.is_some())
    }

    /// Makes entries durable, then true.
    fn keep(&self, entries: Vec<Entry>) -> Result<(), LineFileFault> {
        let mut kept = self.kept();
        let news: Vec<_> = entries.into_iter().filter(|entry| kept.book.is_news(entry)).collect();
        if news.is_empty() {
            return Ok(());
        }
        kept.journal.append(&news)?;
        for entry in news {
            self.tell(&kept.book, &entry);
            kept.book.fold(entry);
        }
        Ok(())
    }

    fn tell(&self, book: &Book, entry: &Entry) {
        let market = &self.name;
        match entry {
            Entry::Asked { case, block, .. } => tracing::info!(%market, %case, block = block.number, "asked"),
            Entry::Judged { case, report, .. } => {
                let (verdict, code) = (report["verdict"].as_str(), report["reason"]["code"].as_str());
                tracing::info!(%market, %case, verdict, code, "judged");
            }
            Entry::Held { case, why, code } if !code.is_empty() => tracing::warn!(%market, %case, code, why, "held"),
            Entry::Answered { case, valid, transaction, .. } => {
                if book.cases().get(case).and_then(|it| it.verdict).is_some_and(|verdict| verdict != *valid) {
                    tracing::error!(%market, %case, valid, %transaction,
                        "this account answered the contrary of what was judged here: someone must act");
                } else {
                    tracing::info!(%market, %case, valid, %transaction, "answered");
                }
            }
            Entry::Closed { case, how, .. } => tracing::info!(%market, %case, how, "closed"),
            _ => {}
        }
    }

    /// Looks at a case: reads it, judges it unless it was, answers.
    async fn look(&self, id: B256) -> Outcome {
        match self.try_look(id).await {
            Ok(outcome) => outcome,
            Err((code, why)) => {
                self.counts.faults.fetch_add(1, Ordering::Relaxed);
                Outcome::Held { code: code.into(), why }
            }
        }
    }

    async fn try_look(&self, id: B256) -> Result<Outcome, (&'static str, String)> {
        let chain = |fault: ChainFault| ("chain", crate::failure::with_causes(&fault));
        let case = self.kept().book.cases().get(&id).cloned();
        let Some(case) = case.filter(Case::is_open) else { return Ok(Outcome::Sent) };
        let now_s = tribunal_contracts::block_time_s(self.sender.provider()).await.map_err(chain)?;
        let question = self.marketplace.question(self.sender.provider(), &case.subject, now_s).await.map_err(chain)?;
        let (request, until_s) = match question {
            Question::Verify { request, until_s } => (request, until_s),
            Question::Nothing { code, why } => return Ok(Outcome::Held { code: code.into(), why }),
            Question::Over { why } => return Ok(Outcome::Over { why }),
        };
        let left_s = until_s.map(|until_s| until_s.saturating_sub(now_s));
        if left_s == Some(0) {
            let why = format!("an answer counted until {} and it is {now_s}", until_s.unwrap_or_default());
            return Ok(Outcome::Over { why });
        }
        // A verdict is about what was judged: after a reorganisation the same subject may be about something else.
        let valid = match case.verdict.filter(|_| case.request.as_ref() == Some(&request)) {
            Some(valid) => valid,
            None => {
                let valid = match self.judge(id, &case.subject, request.clone(), left_s).await? {
                    Ok(valid) => valid,
                    Err((code, why)) => return Ok(Outcome::Held { code, why }),
                };
                // It may have taken long: only what is still asked is answered.
                let node = self.sender.provider();
                match self.marketplace.question(node, &case.subject, now_s).await.map_err(chain)? {
                    Question::Verify { request: now, .. } if now == request => valid,
                    _ => return Err(("changed", "what is asked changed while it was verified".into())),
                }
            }
        };
        let report = self.kept().book.cases().get(&id).and_then(|case| case.report.clone()).unwrap_or_default();
        let Answer { to, data } = match self.marketplace.gather(self.sender.provider(), &case.subject, &report) {
            None => self.marketplace.answer(&case.subject, valid),
            Some(gathering) => match gathering.await {
                Ok(answer) => answer,
                Err((code, why)) => return Ok(Outcome::Held { code: code.into(), why }),
            },
        };
        let effect = self.sender.effect_id(Some(to), &data, U256::ZERO);
        let sent = self.sender.send(effect, self.marketplace.kind(), Some(to), data.into(), U256::ZERO).await;
        sent.map_err(|fault| {
            (if fault.retry_helps() { "chain" } else { "refused" }, crate::failure::with_causes(&fault))
        })?;
        self.counts.sent.fetch_add(1, Ordering::Relaxed);
        Ok(Outcome::Sent)
    }

    /// Verifies and keeps what came of it; the inner error is why there is no verdict.
    async fn judge(
        &self,
        id: B256,
        subject: &Value,
        request: Value,
        left_s: Option<u64>,
    ) -> Result<Result<bool, (String, String)>, (&'static str, String)> {
        let ended = |error: &dyn std::fmt::Display| ("ended", error.to_string());
        let _worker = self.workers.acquire().await.map_err(|error| ended(&error))?;
        let wall_ms = left_s.map_or(u64::MAX, |left_s| left_s.saturating_sub(ANSWER_S).max(1).saturating_mul(1_000));
        let (verifier, signer, asked) = (Arc::clone(&self.verifier), Arc::clone(&self.signer), request.clone());
        let domain = Domain::new(self.sender.chain_id(), self.marketplace.contract());
        let verifying =
            tokio::task::spawn_blocking(move || verify(&verifier, signer.as_ref(), domain, &asked, wall_ms));
        self.counts.verified.fetch_add(1, Ordering::Relaxed);
        let mut report = match verifying.await.map_err(|error| ended(&error))? {
            Ok(report) => report,
            Err(Unverified::Bad(bad)) => return Ok(Err(("bad-request".into(), bad.to_string()))),
            Err(Unverified::Unsigned(fault)) => return Err(("signer", crate::failure::with_causes(&fault))),
        };
        let why = || (text(&report["reason"]["code"]), text(&report["reason"]["detail"]));
        let found = match book::verdict(&report) {
            Some(VerdictKind::Valid) => Ok(true),
            Some(VerdictKind::Invalid) => Ok(false),
            _ => return Ok(Err(why())),
        };
        if let Some((mut word, preimage)) = self.marketplace.word(subject, &report) {
            let signer = Arc::clone(&self.signer);
            let signing = tokio::task::spawn_blocking(move || signer.sign_preimage(&preimage));
            let signed = signing.await.map_err(|error| ended(&error))?;
            let signature = signed.map_err(|fault| ("signer", crate::failure::with_causes(&fault)))?;
            word["signature"] = serde_json::json!(signature);
            report["word"] = word;
        }
        let entry = Entry::Judged { case: id, request, report: book::kept(report) };
        self.keep(vec![entry]).map_err(|fault| ("journal", fault.to_string()))?;
        // Whatever else was found at the same time: the book has the one that holds.
        let holds = self.kept().book.cases().get(&id).and_then(|case| case.verdict);
        Ok(holds.map_or(found, Ok))
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Unverified {
    Bad(BadRequest),
    Unsigned(SignerFault),
}

/// The signed report on a request.
fn verify(
    verifier: &Service,
    signer: &dyn Signer,
    domain: Domain,
    request: &Value,
    wall_ms: u64,
) -> Result<Value, Unverified> {
    let request = Request::parse(&request.to_string()).map_err(Unverified::Bad)?;
    let verdict = verifier.verify_within(&request, wall_ms).map_err(Unverified::Bad)?;
    let mut report = verdict.to_json();
    report::sign(&mut report, verdict.digest, request.digest(), domain, signer).map_err(Unverified::Unsigned)?;
    Ok(report)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn of(identity: &Identity) -> String {
    let Identity { kind, chain_id, contract, account } = identity;
    format!("{kind} contract {contract:#x} on chain {chain_id}, account {account:#x}")
}

/// A market for people and programs to see.
#[derive(Debug, Serialize)]
pub struct MarketView {
    /// Its name in the settings.
    pub name: String,
    /// Whose it is.
    #[serde(flatten)]
    pub identity: Option<Identity>,
    /// The last block that is kept as read.
    pub block: Option<u64>,
    /// How many cases stand where.
    pub stages: BTreeMap<Stage, u64>,
}

/// Journals of markets in a folder, by name.
///
/// # Errors
/// Where a journal cannot be read.
pub fn journals(folder: &Path) -> Result<Vec<(String, Book)>, LineFileFault> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let named = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".cases.jsonl"));
        if let Some(name) = named {
            found.push((name.to_owned(), Book::read(&path)?));
        }
    }
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(found)
}

impl MarketView {
    /// What a journal tells.
    pub fn new(name: &str, book: &Book) -> Self {
        let mut stages = BTreeMap::new();
        for case in book.cases().values() {
            *stages.entry(case.stage()).or_default() += 1;
        }
        let block = book.cursor().last().map(|last| last.number);
        Self { name: name.into(), identity: book.identity().cloned(), block, stages }
    }
}

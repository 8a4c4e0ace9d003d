//! The single writer: from bus messages and reports of effects to recorded events, effects and receipts.
//!
//! [`Partition::process`] takes a batch through decode, authenticate, decide, evolve and react, writes it in one synced
//! append together with the bus cursor, and only then hands out receipts and effects.
//!
//! **Invariant:** nothing is acknowledged, published or performed before the append that records it returned.
//! **Invariant:** events already recorded change nothing; their first receipt is given again.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
    thread,
};

use prost::bytes::Bytes;
use tribunal_core::{ChainReport, Context, Deal, DealEvent, Input, Rejection, decide, evolve, next_deadline, react};
use tribunal_events::{
    DealId, Domain, Envelope, EventId, EventKind, ParsedEvent, Receipt, ReceiptStatus, SignedEvent, SigningKey,
    Timestamp, VerdictVote, proto,
};

use crate::{
    accounts,
    bus::Message,
    equivocation,
    policy::{self, Preflight},
    replay::{ReplayFault, load},
    seal::{countersign, seal},
    store::{
        Append, CursorUpdate, NewRecord, OutboxEntry, Projection, Record, Refused, Store, StoreFault, StreamAppend,
    },
};

/// Subject of messages that only carry the bus's time.
pub const CLOCK_SUBJECT: &str = "deals.clock.tick";
/// Deals kept folded in memory, at most.
const DEALS_CACHED_MAX: usize = 50_000;
/// A snapshot is saved whenever a deal's version passes a multiple of this.
const SNAPSHOT_EVERY: u64 = 64;
/// Messages from which on signatures are recovered, and receipts signed, on several threads.
const PARALLEL_FROM: usize = 16;

/// What stays the same while the engine runs.
#[derive(Clone)]
pub struct Settings {
    /// Signs receipts and the engine's events.
    pub operator: SigningKey,
    /// The contracts served.
    pub domains: Vec<Domain>,
    /// Whether times come from a recording's headers instead of the bus.
    pub recorded_time: bool,
    /// Refuses proposals that a mediator run here would not judge; none admits whatever the rules admit. A refused proposal
    /// never existed, so no outcome depends on it and no audit asks for it.
    pub preflight: Option<Arc<Preflight>>,
}

/// Work for the writer.
#[derive(Debug)]
pub enum Job {
    /// A message of the bus.
    Message(Message),
    /// A step on the chain is known to have worked or failed.
    Report {
        /// The deal.
        deal_id: DealId,
        /// What became of it.
        report: ChainReport,
        /// Gas that its transaction took, 0 if there is none: for the books, no rule looks at it.
        gas_used: u64,
    },
    /// An effect without outcome is done.
    Done {
        /// Its id.
        effect_id: [u8; 32],
    },
}

/// What became of a batch, once it is durable.
#[derive(Debug, Default)]
pub struct Processed {
    /// Signed receipts and refusals, in order of arrival.
    pub receipts: Vec<proto::Receipt>,
    /// What was recorded.
    pub records: Vec<Record>,
    /// What was not admitted.
    pub refused: Vec<Refused>,
    /// Effects to perform.
    pub effects: Vec<OutboxEntry>,
}

/// The writer cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum PartitionFault {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreFault),
    /// A deal cannot be loaded.
    #[error(transparent)]
    Replay(#[from] ReplayFault),
}

/// The single writer of a store.
pub struct Partition {
    store: Store,
    settings: Settings,
    stream: String,
    deals: BTreeMap<DealId, Deal>,
    deadlines: BTreeSet<(Timestamp, DealId)>,
    clock: Timestamp,
}

/// A message on its way through a batch.
struct Arrival {
    subject: String,
    sequence: u64,
    at: Timestamp,
    recorded_at: Option<Timestamp>,
    bytes: Bytes,
    event_id: EventId,
    deal_id: DealId,
    step: Step,
}

enum Step {
    Tick,
    Parsed(Box<ParsedEvent>),
    Signed(Box<SignedEvent>),
    Refused { code: &'static str, reason: String },
}

/// What a batch will append.
#[derive(Default)]
struct Staged {
    streams: Vec<StreamAppend>,
    seen: BTreeMap<EventId, DealId>,
    outbox: Vec<OutboxEntry>,
    done: Vec<[u8; 32]>,
    refused: Vec<Refused>,
    receipts: Vec<Draft>,
    verdicts: equivocation::Staged,
    rows: Vec<Projection>,
}

/// A receipt whose position is known after the append.
struct Draft {
    event_id: EventId,
    deal_id: DealId,
    status: ReceiptStatus,
    reason: (String, String),
    domain: Domain,
}

impl Partition {
    /// The writer of this store, reading the bus stream of this name.
    ///
    /// # Errors
    /// Where open deals cannot be loaded.
    pub fn new(store: Store, settings: Settings, stream: &str) -> Result<Self, PartitionFault> {
        let mut this = Self {
            stream: stream.to_owned(),
            settings,
            deals: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            clock: Timestamp::default(),
            store,
        };
        if let Some(last) = this.store.record(this.store.last_position())? {
            this.clock = last.recorded_at;
        }
        for deal_id in this.store.open_deals()? {
            if let Some(deal) = load(&this.store, &deal_id)? {
                this.watch(&deal);
                this.cache(deal);
            }
        }
        Ok(this)
    }

    /// The next moment at which time alone changes a deal.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// The latest time known from the bus.
    pub const fn clock(&self) -> Timestamp {
        self.clock
    }

    /// Takes a batch all the way. After an error nothing of it may be assumed, and the store must be opened again.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn process(&mut self, jobs: Vec<Job>) -> Result<Processed, PartitionFault> {
        let mut cursor = None;
        let mut reports = Vec::new();
        let mut messages = Vec::new();
        let mut staged = Staged::default();
        for job in jobs {
            match job {
                Job::Message(message) => {
                    cursor = Some(message.cursor());
                    messages.push(message);
                }
                Job::Report { deal_id, report, gas_used } => reports.push((deal_id, report, gas_used)),
                Job::Done { effect_id } => staged.done.push(effect_id),
            }
        }
        let mut arrivals = on_all_cores(messages, arrive);
        self.authenticate(&mut arrivals)?;
        for (deal_id, report, gas_used) in reports {
            staged.done.push(*report.effect_id.bytes());
            let deal = self.deal(&deal_id)?;
            let gas = accounts::gas_row(deal_id, &report, gas_used);
            let events = self.decide(deal.as_ref(), &Input::Chain(report)).unwrap_or_default();
            staged.rows.extend(gas.filter(|_| !events.is_empty()));
            self.apply(deal, events, &mut staged);
        }
        for arrival in arrivals {
            let at = if self.settings.recorded_time { arrival.recorded_at } else { Some(arrival.at) };
            self.clock = self.clock.max(at.unwrap_or_default());
            self.elapse(&mut staged)?;
            self.admit(arrival, &mut staged)?;
        }
        self.append(staged, cursor)
    }

    /// Recovers the signers of a batch, on all cores where it is large.
    fn authenticate(&mut self, arrivals: &mut Vec<Arrival>) -> Result<(), PartitionFault> {
        let mut terms = BTreeMap::new();
        for arrival in arrivals.iter() {
            let Step::Parsed(parsed) = &arrival.step else { continue };
            if let Entry::Vacant(entry) = terms.entry(arrival.deal_id) {
                let known = self.deal(&arrival.deal_id)?.map(|deal| Arc::clone(deal.terms()));
                if let Some(known) = known.or_else(|| parsed.terms().cloned()) {
                    entry.insert(known);
                }
            }
        }
        let recovered = on_all_cores(std::mem::take(arrivals), |mut arrival| {
            if let Step::Parsed(parsed) = arrival.step {
                arrival.step = match terms.get(&arrival.deal_id) {
                    None => {
                        let rejection = Rejection::UnknownDeal(arrival.deal_id);
                        Step::Refused { code: rejection.code(), reason: rejection.to_string() }
                    }
                    Some(terms) => match parsed.authenticate(&terms.domain()) {
                        Ok(signed) => Step::Signed(Box::new(signed.recovered_ahead(terms))),
                        Err(error) => Step::Refused { code: "signature", reason: error.to_string() },
                    },
                };
            }
            arrival
        });
        *arrivals = recovered;
        Ok(())
    }

    /// Lets time act on every deal whose deadline has passed.
    fn elapse(&mut self, staged: &mut Staged) -> Result<(), PartitionFault> {
        while let Some((at, deal_id)) = self.deadlines.first().copied() {
            if at >= self.clock {
                break;
            }
            self.deadlines.remove(&(at, deal_id));
            let deal = self.deal(&deal_id)?;
            let events = self.decide(deal.as_ref(), &Input::Tick).unwrap_or_default();
            assert!(!events.is_empty(), "a deadline that has passed changes its deal");
            self.apply(deal, events, staged);
        }
        Ok(())
    }

    fn admit(&mut self, arrival: Arrival, staged: &mut Staged) -> Result<(), PartitionFault> {
        let Arrival { subject, sequence, bytes, event_id, deal_id, step, .. } = arrival;
        let (code, reason) = match step {
            Step::Tick => return Ok(()),
            Step::Parsed(_) => unreachable!("authenticated above"),
            Step::Refused { code, reason } => (code, reason),
            Step::Signed(event) => {
                let deal = self.deal(&deal_id)?;
                let domain = deal.as_ref().map_or_else(Domain::default, |deal| deal.terms().domain());
                if staged.seen.contains_key(&event_id) || self.store.locate(&event_id)?.is_some() {
                    let reason = (String::new(), String::new());
                    staged.receipts.push(Draft { event_id, deal_id, status: ReceiptStatus::Duplicate, reason, domain });
                    return Ok(());
                }
                let decided = self.decide(deal.as_ref(), &Input::Said(&event));
                let unwanted = if deal.is_none() && decided.is_ok() { self.unwanted(&event) } else { None };
                match (decided, unwanted) {
                    (Ok(_), Some(sentence)) => (policy::REJECTION_CODE, sentence),
                    (Ok(events), None) => {
                        if let EventKind::VoteRevealed { vote, .. } | EventKind::VerdictGiven { vote } = event.kind() {
                            self.witness(deal.as_ref(), vote, staged)?;
                        }
                        self.apply(deal, events, staged);
                        let domain = self.deals.get(&deal_id).map_or(domain, |deal| deal.terms().domain());
                        let reason = (String::new(), String::new());
                        staged.receipts.push(Draft {
                            event_id,
                            deal_id,
                            status: ReceiptStatus::Admitted,
                            reason,
                            domain,
                        });
                        return Ok(());
                    }
                    (Err(rejection), _) => (rejection.code(), rejection.to_string()),
                }
            }
        };
        let deal = self.deal(&deal_id)?;
        let domain = deal.as_ref().map_or_else(Domain::default, |deal| deal.terms().domain());
        // Refused or not, whoever sent it: a verdict is its signer's.
        if deal.is_some()
            && let Some(vote) = equivocation::vote_in(&bytes)
        {
            self.witness(deal.as_ref(), &vote, staged)?;
        }
        tracing::info!(%deal_id, %event_id, code, "event refused");
        staged.refused.push(Refused {
            subject,
            sequence,
            at: self.clock,
            reason_code: code.into(),
            reason: reason.clone(),
            bytes: bytes.to_vec(),
        });
        let reason = (code.to_owned(), reason);
        staged.receipts.push(Draft { event_id, deal_id, status: ReceiptStatus::Refused, reason, domain });
        Ok(())
    }

    fn witness(&self, deal: Option<&Deal>, vote: &VerdictVote, staged: &mut Staged) -> Result<(), PartitionFault> {
        let Some(deal) = deal else { return Ok(()) };
        let effect = staged.verdicts.witness(&self.store, deal, vote, self.clock)?;
        staged.outbox.extend(effect);
        Ok(())
    }

    /// Why a mediator run here would not judge the deal that this event proposes, if one is named and would not.
    fn unwanted(&self, event: &SignedEvent) -> Option<String> {
        let preflight = self.settings.preflight.as_ref()?;
        let EventKind::Proposed { terms, .. } = event.kind() else { return None };
        preflight.refusal(terms, self.clock)
    }

    fn decide(&self, deal: Option<&Deal>, input: &Input<'_>) -> Result<Vec<DealEvent>, Rejection> {
        let operator = self.settings.operator.address();
        decide(deal, input, &Context { now: self.clock, operator, domains: &self.settings.domains })
    }

    /// Folds decided events into the deal and stages them with their effects.
    fn apply(&mut self, deal: Option<Deal>, events: Vec<DealEvent>, staged: &mut Staged) {
        if events.is_empty() {
            return;
        }
        if let Some(deal) = &deal {
            self.unwatch(deal);
        }
        let mut deal = deal;
        let before = deal.as_ref().map_or(0, Deal::version);
        let mut records = Vec::new();
        for event in events {
            let (kind, signer, event_id, envelope) = match event {
                DealEvent::Said(signed) => {
                    (signed.kind().clone(), signed.signer(), signed.id(), signed.envelope().clone())
                }
                DealEvent::Recorded(kind) => {
                    let known = deal.as_ref().expect("the engine speaks only in deals that are proposed");
                    let kind = countersign(kind, known.terms(), &self.settings.operator);
                    let envelope = seal(&kind, known, &self.settings.operator);
                    (kind, self.settings.operator.address(), envelope.event_id(), envelope)
                }
            };
            let next = evolve(deal, &kind, signer, event_id, self.clock);
            for effect in react(&next, &kind, signer) {
                let payload = crate::outbox::encode(next.version(), effect.kind);
                staged.outbox.push(OutboxEntry { id: *effect.id.bytes(), deal_id: next.id(), payload });
            }
            staged.seen.insert(event_id, next.id());
            records.push(NewRecord { envelope, signer, recorded_at: self.clock });
            tracing::info!(deal_id = %next.id(), version = next.version(), kind = kind.name(), "event recorded");
            deal = Some(next);
        }
        let deal = deal.expect("at least one event");
        let snapshot = (before / SNAPSHOT_EVERY != deal.version() / SNAPSHOT_EVERY)
            .then(|| serde_json::to_vec(&deal).expect("a deal has a JSON form"));
        staged.streams.push(StreamAppend {
            deal_id: deal.id(),
            expected_version: before,
            records,
            open: !deal.is_settled(),
            snapshot,
        });
        self.watch(&deal);
        self.cache(deal);
    }

    fn append(&mut self, staged: Staged, cursor: Option<crate::store::Cursor>) -> Result<Processed, PartitionFault> {
        let Staged { streams, outbox, done, refused, receipts, verdicts, mut rows, .. } = staged;
        let cursor = cursor.map(|cursor| CursorUpdate { stream: self.stream.clone(), cursor });
        let effects = outbox.clone();
        rows.extend(verdicts.into_rows());
        let records = self.store.append(Append {
            streams,
            cursor,
            outbox_add: outbox,
            outbox_done: done,
            refused: refused.clone(),
            projections: rows,
        })?;
        let places: BTreeMap<_, _> =
            records.iter().map(|record| (record.event_id, (record.version, record.position))).collect();
        let mut answers = Vec::with_capacity(receipts.len());
        for draft in receipts {
            let place = match draft.status {
                ReceiptStatus::Refused => (0, 0),
                _ => match places.get(&draft.event_id) {
                    Some(place) => *place,
                    None => self.store.locate(&draft.event_id)?.map_or((0, 0), |it| (it.version, it.position)),
                },
            };
            answers.push(Receipt {
                event_id: draft.event_id,
                deal_id: draft.deal_id,
                stream_version: place.0,
                log_position: place.1,
                status: draft.status,
                reason_code: draft.reason.0,
                reason: draft.reason.1,
                domain: draft.domain,
            });
        }
        let signed = on_all_cores(answers, |receipt| receipt.sign(&self.settings.operator));
        self.trim();
        Ok(Processed { receipts: signed, records, refused, effects })
    }

    fn deal(&mut self, deal_id: &DealId) -> Result<Option<Deal>, PartitionFault> {
        if let Some(deal) = self.deals.get(deal_id) {
            return Ok(Some(deal.clone()));
        }
        let loaded = load(&self.store, deal_id)?;
        if let Some(deal) = &loaded {
            self.cache(deal.clone());
        }
        Ok(loaded)
    }

    fn cache(&mut self, deal: Deal) {
        self.deals.insert(deal.id(), deal);
    }

    /// Forgets deals that are over; open ones stay, for their deadlines.
    fn trim(&mut self) {
        if self.deals.len() > DEALS_CACHED_MAX {
            self.deals.retain(|_, deal| !deal.is_settled());
        }
    }

    fn watch(&mut self, deal: &Deal) {
        if let Some(deadline) = next_deadline(deal) {
            self.deadlines.insert((deadline.at, deal.id()));
        }
    }

    fn unwatch(&mut self, deal: &Deal) {
        if let Some(deadline) = next_deadline(deal) {
            self.deadlines.remove(&(deadline.at, deal.id()));
        }
    }
}

/// Where an event is published: by its subject alone it reaches the partition, and those who listen for it.
pub fn subject_of(event: &ParsedEvent) -> String {
    format!("deals.{}.{}", event.deal_id(), event.kind_name())
}

/// Decodes a message; anything wrong with it becomes a refusal.
fn arrive(message: Message) -> Arrival {
    let (mut event_id, mut deal_id) = (EventId::default(), DealId::default());
    let refused = |error: tribunal_events::DecodeError| Step::Refused { code: error.code(), reason: error.to_string() };
    let step = if message.subject == CLOCK_SUBJECT {
        Step::Tick
    } else {
        match Envelope::decode(&message.payload) {
            Ok(envelope) => {
                event_id = envelope.event_id();
                match envelope.parse() {
                    Ok(parsed) => {
                        deal_id = parsed.deal_id();
                        let expected = subject_of(&parsed);
                        if message.subject == expected {
                            Step::Parsed(Box::new(parsed))
                        } else {
                            // Whoever put it here need not be its sender, who shall not be told that it was refused.
                            (event_id, deal_id) = Default::default();
                            let found: String = message.subject.chars().take(200).collect();
                            let reason = format!("the event belongs on subject {expected}, not on {found}");
                            Step::Refused { code: "subject", reason }
                        }
                    }
                    Err(error) => {
                        // Read again for its refusal alone: copies of every good event would cost more.
                        let again = Envelope::decode(&message.payload).ok();
                        deal_id = again.and_then(|envelope| envelope.deal_id_hint()).unwrap_or_default();
                        refused(error)
                    }
                }
            }
            Err(error) => refused(error),
        }
    };
    let Message { subject, stream_sequence: sequence, payload: bytes, at, recorded_at, .. } = message;
    Arrival { subject, sequence, at, recorded_at, bytes, event_id, deal_id, step }
}

/// Does the same to every item, in order, on all cores where there are enough items.
fn on_all_cores<T: Send, R: Send>(items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    if items.len() < PARALLEL_FROM || threads == 1 {
        return items.into_iter().map(work).collect();
    }
    let share = items.len().div_ceil(threads);
    let mut items = items.into_iter();
    let parts: Vec<Vec<T>> = (0..threads).map(|_| items.by_ref().take(share).collect()).collect();
    thread::scope(|scope| {
        let work = &work;
        let running: Vec<_> =
            parts.into_iter().map(|part| scope.spawn(move || part.into_iter().map(work).collect::<Vec<_>>())).collect();
        running.into_iter().flat_map(|part| part.join().expect("no signature panics")).collect()
    })
}

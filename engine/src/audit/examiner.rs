//! One deal's records, one after the other, against everything that can be computed again.

mod imported;

use std::{
    collections::{BTreeMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use tribunal_core::{
    ChainReport, Context, Deal, DealEvent, EffectKind, Input, Phase, REORGANISED, decide, evolve, react,
};
use tribunal_events::{
    Address, B256, ChainLink, Claim, DealId, Digest, EventKind, ParsedEvent, SignedEvent, Terms, Timestamp, VerdictVote,
};

use super::{
    differences::{countersignature, differences},
    findings::Findings,
};
use crate::{
    outbox,
    store::{Head, OutboxEntry, Record, record_bytes},
};

/// What a deal's records stand in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Surroundings<'a> {
    /// The time that the log has reached; nothing: the last record's.
    pub now: Option<Timestamp>,
    /// Where the store says the deal stands; nothing outside a store.
    pub head: Option<Head>,
    /// Effects of the deal that are still to be done; nothing where that is not known.
    pub outbox: Option<&'a [OutboxEntry]>,
    /// When the deal went on, if records follow that are left out: what follows by itself may be among them.
    pub went_on_at: Option<Timestamp>,
}

/// A vote as recorded.
#[derive(Clone, Debug)]
pub struct RecordedVote {
    /// Log position.
    pub position: u64,
    /// Version in the deal.
    pub version: u64,
    /// Who voted.
    pub mediator: Address,
    /// What.
    pub vote: VerdictVote,
}

/// A step on the chain as recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainStep {
    /// Log position.
    pub position: u64,
    /// Its name.
    pub step: String,
    /// The transaction; zero where there was none.
    pub transaction: B256,
    /// Its block.
    pub block: u64,
    /// Why it failed, if it did.
    pub failure: Option<String>,
}

/// What examining a deal's records gave.
#[derive(Debug)]
pub struct Examined {
    /// The deal.
    pub deal_id: DealId,
    /// The terms, where the first record holds them.
    pub terms: Option<Arc<Terms>>,
    /// The deal as far as it could be replayed.
    pub deal: Option<Deal>,
    /// Whether all of it could be.
    pub replayed: bool,
    /// Records taken.
    pub records: u64,
    /// Signatures of events recovered and equal to the sender.
    pub signatures: u64,
    /// Position and time of the last record.
    pub last: Option<(u64, Timestamp)>,
    /// The deal's chain after it.
    pub link: ChainLink,
    /// The result, where one was submitted.
    pub claim: Option<Arc<Claim>>,
    /// Claims of replicators.
    pub replicas: BTreeMap<Address, Arc<Claim>>,
    /// Every vote of every round.
    pub votes: Vec<RecordedVote>,
    /// Steps observed on the chain.
    pub steps: Vec<ChainStep>,
    /// Events that the engine recorded.
    pub engine_events: u64,
    /// Steps that are asked for and have no outcome yet.
    pub pending: Vec<EffectKind>,
    /// Whether time decided anything.
    pub by_time: bool,
    /// Where a deal of another marketplace stands, in its own word; nothing for deals made here.
    pub imported: Option<&'static str>,
    /// What does not fit, and what is worth knowing.
    pub findings: Findings,
}

impl Examined {
    /// Steps that count at the end: the last of each name, where no reorganisation took it back.
    pub fn taken(&self) -> Vec<&ChainStep> {
        let mut taken: BTreeMap<&str, &ChainStep> = BTreeMap::new();
        for step in &self.steps {
            match step.failure.as_deref() {
                None => drop(taken.insert(&step.step, step)),
                Some(REORGANISED) => drop(taken.remove(step.step.as_str())),
                Some(_) => {}
            }
        }
        let mut taken: Vec<_> = taken.into_values().collect();
        taken.sort_by_key(|step| step.position);
        taken
    }
}

/// An effect that the record asks for.
struct Asked {
    version: u64,
    kind: EffectKind,
    observed: bool,
    /// A reorganisation took back what was observed.
    undone: bool,
}

/// What a record says.
enum Said {
    /// By the account that signed it.
    Signed(SignedEvent),
    /// By the engine, and its signature does not hold.
    ByNobody(EventKind),
}

impl Said {
    const fn kind(&self) -> &EventKind {
        match self {
            Self::Signed(signed) => signed.kind(),
            Self::ByNobody(kind) => kind,
        }
    }

    const fn signed(&self) -> Option<&SignedEvent> {
        match self {
            Self::Signed(signed) => Some(signed),
            Self::ByNobody(_) => None,
        }
    }
}

/// Takes the records of one deal in order.
pub struct Examiner {
    examined: Examined,
    /// Engine events that must come next, at this time: what the rules gave with the one before.
    owed: VecDeque<EventKind>,
    owed_at: Timestamp,
    effects: BTreeMap<Digest, Asked>,
    snapshot: Option<(u64, Vec<u8>)>,
    /// Whether ids and links were computed from the bytes already.
    read_by_store: bool,
    imported: Option<imported::Observations>,
}

impl Examiner {
    /// Has seen nothing of this deal yet.
    pub const fn new(deal_id: DealId) -> Self {
        let findings =
            Findings { deal_id: Some(deal_id), discrepancy_count: 0, discrepancies: Vec::new(), notes: Vec::new() };
        Self {
            examined: Examined {
                deal_id,
                terms: None,
                deal: None,
                replayed: true,
                records: 0,
                signatures: 0,
                last: None,
                link: ChainLink::GENESIS,
                claim: None,
                replicas: BTreeMap::new(),
                votes: Vec::new(),
                steps: Vec::new(),
                engine_events: 0,
                pending: Vec::new(),
                by_time: false,
                imported: None,
                findings,
            },
            owed: VecDeque::new(),
            owed_at: Timestamp::from_us(0),
            effects: BTreeMap::new(),
            snapshot: None,
            read_by_store: false,
            imported: None,
        }
    }

    /// Likewise, for records that a store read: it computed each one's id and link from the bytes before it gave it out, and
    /// gives out none that says otherwise.
    pub const fn of_store(deal_id: DealId) -> Self {
        let mut this = Self::new(deal_id);
        this.read_by_store = true;
        this
    }

    /// The deal so far, where everything in it fits.
    pub fn sound(&self) -> Option<&Deal> {
        let sound = self.examined.replayed && self.examined.findings.discrepancy_count == 0;
        self.examined.deal.as_ref().filter(|_| sound)
    }

    /// What there is so far.
    pub const fn so_far(&self) -> &Examined {
        &self.examined
    }

    /// Where to add what is found outside the records.
    pub const fn findings(&mut self) -> &mut Findings {
        &mut self.examined.findings
    }

    /// Compares the fold after `version` records with a saved one.
    pub fn expect_snapshot(&mut self, version: u64, bytes: Vec<u8>) {
        self.snapshot = Some((version, bytes));
    }

    /// Takes the next record.
    pub fn take(&mut self, record: &Record) {
        // The rules are asked before anything is folded; this is for what we got wrong ourselves.
        let taken = catch_unwind(AssertUnwindSafe(|| self.take_inner(record)));
        if taken.is_err() {
            self.examined.findings.record(
                record,
                "replay",
                "a history that can be replayed",
                "one that this program fails on",
            );
            self.lose();
        }
    }

    fn take_inner(&mut self, record: &Record) {
        self.frame(record);
        self.examined.records += 1;
        self.examined.last = Some((record.position, record.recorded_at));
        self.examined.link = record.link;
        if let Some(said) = self.open(record)
            && self.examined.replayed
        {
            self.transit(record, said.kind(), said.signed());
        }
        if self.snapshot.as_ref().is_some_and(|(version, _)| *version == self.examined.records)
            && let Some((_, bytes)) = self.snapshot.take()
        {
            self.check_snapshot(record, &bytes);
        }
    }

    /// What is around the event: place, ids, chain.
    fn frame(&mut self, record: &Record) {
        let Examined { deal_id, records, last, link: chain, findings, .. } = &mut self.examined;
        let mut check = |code, expected: &dyn std::fmt::Display, found: &dyn std::fmt::Display, holds: bool| {
            if !holds {
                findings.record(record, code, expected, found);
            }
        };
        check("deal-id", deal_id, &record.deal_id, record.deal_id == *deal_id);
        check("version", &(*records + 1), &record.version, record.version == *records + 1);
        let (position, at) = last.unwrap_or_default();
        check("position", &format!("beyond {position}"), &record.position, record.position > position);
        check("time", &format!("not before {at}"), &record.recorded_at, record.recorded_at >= at);
        check("previous-link", chain, &record.previous, record.previous == *chain);
        if !self.read_by_store {
            let event_id = record.envelope.event_id();
            check("event-id", &event_id, &record.event_id, record.event_id == event_id);
            let link = record.previous.extend(&record_bytes(record));
            check("link", &link, &record.link, record.link == link);
        }
    }

    /// What the event says and who signed it; the signed event only where the signature holds.
    fn open(&mut self, record: &Record) -> Option<Said> {
        let parsed = match record.envelope.clone().parse() {
            Ok(parsed) => parsed,
            Err(error) => {
                self.examined.findings.record(record, "event", "an event of this schema", &error);
                self.lose();
                return None;
            }
        };
        let findings = &mut self.examined.findings;
        if parsed.deal_id() != self.examined.deal_id {
            findings.record(record, "deal-id", self.examined.deal_id, parsed.deal_id());
            self.lose();
            return None;
        }
        if self.imported.is_some() || self.examined.terms.is_none() && parsed.kind_name() == "foreign_observed" {
            self.observe_foreign(record, parsed);
            return None;
        }
        if self.examined.terms.is_none() {
            match parsed.terms() {
                Some(terms) if DealId::of_terms(terms.bytes()) == self.examined.deal_id => {
                    self.examined.terms = Some(Arc::clone(terms));
                }
                Some(terms) => {
                    findings.record(record, "deal-id", self.examined.deal_id, DealId::of_terms(terms.bytes()));
                }
                None => findings.record(record, "event", "a proposal, which begins every deal", parsed.kind_name()),
            }
        }
        let Some(terms) = self.examined.terms.clone() else {
            self.lose();
            return None;
        };
        let findings = &mut self.examined.findings;
        let signed = match parsed.authenticate(&terms.domain()) {
            Ok(signed) => signed,
            Err(error) => {
                findings.record(record, "signature", "one by the sender that the event names", &error);
                let kind = record.envelope.clone().parse().ok().map(ParsedEvent::into_kind);
                // What the engine says can be compared with the rules whoever says it.
                let said = kind.filter(EventKind::is_engine).map(Said::ByNobody);
                if said.is_none() {
                    self.lose();
                }
                return said;
            }
        };
        self.examined.signatures += 1;
        if signed.signer() != record.signer {
            let (expected, found) = (format!("{:#x}", signed.signer()), format!("{:#x}", record.signer));
            findings.record(record, "signer", expected, found);
        }
        if signed.kind().is_engine() && signed.signer() != terms.operator {
            let (expected, found) = (format!("{:#x}", terms.operator), format!("{:#x}", signed.signer()));
            findings.record(record, "operator", expected, found);
        }
        Some(Said::Signed(signed))
    }

    /// Whether the event may stand here, by the rules.
    fn transit(&mut self, record: &Record, kind: &EventKind, signed: Option<&SignedEvent>) {
        if kind.is_engine() {
            self.examined.engine_events += 1;
        }
        if let Some(terms) = &self.examined.terms
            && let Some((code, expected, found)) = countersignature(kind, terms)
        {
            self.examined.findings.record(record, code, expected, found);
        }
        if let Some(expected) = self.owed.pop_front() {
            if record.recorded_at != self.owed_at {
                self.examined.findings.record(record, "group-time", self.owed_at, record.recorded_at);
            }
            self.follow(record, &expected, kind);
            return;
        }
        let Some(terms) = self.examined.terms.clone() else { return };
        let domains = [terms.domain()];
        let context = Context { now: record.recorded_at, operator: terms.operator, domains: &domains };
        let deal = self.examined.deal.as_ref();
        let of_chain = matches!(kind, EventKind::ChainObserved { .. });
        let settled = deal.is_some_and(Deal::is_settled);
        if settled && !of_chain {
            self.examined.findings.record(record, "after-settlement", "nothing: the deal is settled", kind.name());
            return self.lose();
        }
        let due = decide(deal, &Input::Tick, &context).unwrap_or_default();
        if kind.is_engine() && !of_chain {
            self.owed = recorded(due);
            self.owed_at = record.recorded_at;
            match self.owed.pop_front() {
                Some(expected) => self.follow(record, &expected, kind),
                None => {
                    self.examined.findings.record(record, "unfounded", "nothing: no rule calls for it", kind.name());
                    self.lose();
                }
            }
            return;
        }
        if let Some(missed) = recorded(due).front() {
            let expected = format!("{} first, as its time has come", describe(missed));
            self.examined.findings.record(record, "deadline-missed", expected, kind.name());
            return self.lose();
        }
        let decided = match (kind, signed) {
            (EventKind::ChainObserved { step, effect_id, transaction, block, failure, block_time_s }, _) => {
                self.observe(record, step, effect_id, failure.as_deref() == Some(REORGANISED));
                let report = ChainReport {
                    effect_id: *effect_id,
                    step: step.clone(),
                    transaction: *transaction,
                    block: *block,
                    failure: failure.clone(),
                    block_time_s: *block_time_s,
                };
                decide(deal_of(&self.examined), &Input::Chain(report), &context)
            }
            (_, Some(signed)) => decide(deal_of(&self.examined), &Input::Said(signed), &context),
            (_, None) => unreachable!("without a signature only engine events come here"),
        };
        match decided {
            Ok(events) if events.is_empty() && settled => {
                let expected = "nothing: the deal is settled, and the chain took nothing back";
                self.examined.findings.record(record, "after-settlement", expected, kind.name());
                self.lose();
            }
            Ok(events) if events.is_empty() => {
                let expected = "nothing: the step was observed before, or there is no deal";
                self.examined.findings.record(record, "unfounded", expected, kind.name());
                self.lose();
            }
            Ok(events) => {
                // The first is the event itself.
                self.owed = recorded(events.into_iter().skip(1).collect());
                self.owed_at = record.recorded_at;
                self.fold(record, kind);
            }
            Err(rejection) => {
                let found = format!("{}, refused as `{}`: {rejection}", kind.name(), rejection.code());
                self.examined.findings.record(record, "not-admitted", "an event that the rules admit here", found);
                self.lose();
            }
        }
    }

    /// The event that the rules give next, and the one that stands there.
    fn follow(&mut self, record: &Record, expected: &EventKind, found: &EventKind) {
        if expected.name() != found.name() {
            self.examined.findings.record(record, "event-missing", describe(expected), found.name());
            return self.lose();
        }
        let differences = differences(expected, found);
        let differs = !differences.is_empty();
        for (code, expected, found) in differences {
            self.examined.findings.record(record, code, expected, found);
        }
        // Replay goes on as the rules say, so that one wrong field is one discrepancy.
        self.fold(record, if differs { expected } else { found });
    }

    /// An observed step must have been asked for, once; only what was observed can be undone.
    fn observe(&mut self, record: &Record, step: &str, effect_id: &Digest, undone: bool) {
        let findings = &mut self.examined.findings;
        match self.effects.get_mut(effect_id) {
            None => findings.record(
                record,
                "effect",
                "a step that an event before asks for",
                format!("{step}, effect {effect_id}"),
            ),
            Some(asked) if !asked.kind.is_chain() || asked.kind.step() != step => {
                findings.record(record, "effect", format!("an outcome of {:?}", asked.kind), step);
            }
            Some(asked) if undone && (!asked.observed || asked.undone) => {
                findings.record(record, "effect", format!("{step} undone after it was taken"), "undone without that");
            }
            Some(asked) if undone => asked.undone = true,
            Some(asked) if asked.observed => {
                findings.record(record, "effect", "one outcome of an effect", "a second one")
            }
            Some(asked) => asked.observed = true,
        }
    }

    fn fold(&mut self, record: &Record, kind: &EventKind) {
        let Some(terms) = &self.examined.terms else { return };
        let signer = if kind.is_engine() { terms.operator } else { record.signer };
        match kind {
            EventKind::ResultSubmitted { claim, .. } => self.examined.claim = Some(Arc::clone(claim)),
            EventKind::ReplicaSubmitted { claim } => {
                self.examined.replicas.insert(signer, Arc::clone(claim));
            }
            EventKind::VoteRevealed { vote, .. } | EventKind::VerdictGiven { vote } => {
                let (position, version) = (record.position, record.version);
                self.examined.votes.push(RecordedVote { position, version, mediator: signer, vote: vote.clone() });
                self.check_report(record, vote);
            }
            EventKind::DeadlineElapsed { .. } => self.examined.by_time = true,
            EventKind::ChainObserved { step, transaction, block, failure, .. } => {
                self.examined.steps.push(ChainStep {
                    position: record.position,
                    step: step.clone(),
                    transaction: *transaction,
                    block: *block,
                    failure: failure.clone(),
                });
            }
            _ => {}
        }
        let deal = evolve(self.examined.deal.take(), kind, signer, record.event_id, record.recorded_at);
        for effect in react(&deal, kind, signer) {
            let asked = Asked { version: deal.version(), kind: effect.kind, observed: false, undone: false };
            self.effects.insert(effect.id, asked);
        }
        self.examined.deal = Some(deal);
    }

    /// A published report is its mediator's word beside the vote; the vote alone is signed for the contract.
    fn check_report(&mut self, record: &Record, vote: &VerdictVote) {
        if vote.report_json.is_empty() {
            return;
        }
        let digest = format!("blake3:{}", hex::encode(vote.digest));
        let said: Option<serde_json::Value> = serde_json::from_str(&vote.report_json).ok();
        let agrees = said.is_some_and(|report| {
            report["verdict"] == vote.verdict.word()
                && report["digest"] == digest
                && report["reason"]["code"] == vote.reason_code
        });
        if !agrees {
            let text = format!("the report that {:#x} published does not say what its vote says", record.signer);
            self.examined.findings.note(Some(record.position), "report", text);
        }
    }

    fn check_snapshot(&mut self, record: &Record, bytes: &[u8]) {
        let Examined { deal: Some(deal), replayed: true, findings, .. } = &mut self.examined else { return };
        match serde_json::from_slice::<Deal>(bytes) {
            Ok(saved) if saved == *deal => {}
            Ok(_) => findings.record(record, "snapshot", "the fold of the records so far", "another deal"),
            Err(error) => findings.record(record, "snapshot", "the fold of the records so far", error),
        }
    }

    fn lose(&mut self) {
        if self.examined.replayed {
            self.examined.replayed = false;
            let version = self.examined.records;
            let text = format!(
                "the deal could not be replayed from version {version} on; what follows is checked for frame and signature alone"
            );
            self.examined.findings.note(self.examined.last.map(|(position, _)| position), "not-replayed", text);
        }
    }

    /// Ends where records that follow cannot be read.
    pub fn give_up(mut self, why: &str) -> Examined {
        self.examined.replayed = false;
        let position = self.examined.last.map(|(position, _)| position);
        self.examined.findings.note(
            position,
            "not-replayed",
            format!("the deal could not be replayed to its end: {why}"),
        );
        self.examined
    }

    /// Ends after the last record.
    pub fn finish(mut self, surroundings: &Surroundings<'_>) -> Examined {
        let ended = catch_unwind(AssertUnwindSafe(|| self.finish_inner(surroundings)));
        if ended.is_err() {
            self.examined.findings.whole("replay", "a history that can be replayed", "one that this program fails on");
            self.examined.replayed = false;
        }
        self.examined
    }

    fn finish_inner(&mut self, surroundings: &Surroundings<'_>) {
        let at = self.examined.last.map(|(position, _)| position);
        let pending = self.effects.values().filter(|asked| asked.kind.is_chain() && !asked.observed);
        self.examined.pending = pending.map(|asked| asked.kind).collect();
        if let Some(head) = &surroundings.head {
            self.check_head(head);
        }
        if self.examined.records == 0 {
            self.examined.findings.whole("event-missing", "a proposal, which begins every deal", "no record");
        }
        if let Some((version, _)) = &self.snapshot {
            let found = format!("one of version {version}, the deal has {}", self.examined.records);
            self.examined.findings.whole("snapshot", "a snapshot of a version that there is", found);
        }
        if self.imported.is_some() {
            return self.finish_foreign(surroundings);
        }
        let (Some(deal), true) = (&self.examined.deal, self.examined.replayed) else { return };
        let reached = self.examined.last.map_or_else(Timestamp::default, |(_, at)| at);
        let now = surroundings.now.unwrap_or(reached).max(reached);
        // The cut may be between an event and what was recorded with it.
        if surroundings.went_on_at.is_some_and(|at| at <= now) {
            return;
        }
        if let Some(missing) = self.owed.front() {
            self.examined.findings.at(None, at, "event-missing", describe(missing), "the end of the deal's records");
            return;
        }
        let domains = [deal.terms().domain()];
        let context = Context { now, operator: deal.terms().operator, domains: &domains };
        if let Some(missed) = recorded(decide(Some(deal), &Input::Tick, &context).unwrap_or_default()).front() {
            let found = format!("the end of the deal's records, though the log has reached {now}");
            self.examined.findings.at(None, at, "deadline-missed", describe(missed), found);
        }
        self.check_effects(surroundings.outbox);
    }

    fn check_head(&mut self, head: &Head) {
        let Examined { records, last, link, findings, deal, replayed, .. } = &mut self.examined;
        let position = last.map_or(0, |(position, _)| position);
        let say = |version: u64, position: u64, link: &ChainLink| {
            format!("version {version}, position {position}, link {link}")
        };
        let (expected, found) = (say(*records, position, link), say(head.version, head.last_position, &head.link));
        if expected != found {
            findings.whole("head", expected, found);
        }
        if let (Some(deal), true) = (deal, *replayed)
            && head.open == deal.is_settled()
        {
            let word = |open: bool| if open { "open" } else { "settled" };
            findings.whole("head", word(!deal.is_settled()), word(head.open));
        }
    }

    fn check_effects(&mut self, outbox: Option<&[OutboxEntry]>) {
        let Examined { deal: Some(deal), findings, .. } = &mut self.examined else { return };
        // Steps of one deal are done in order, so a contract that has paid has taken all of them. A deal that ended
        // without the contract may leave a step that nobody waits for.
        let (settled, by_contract) = match deal.phase() {
            Phase::Settled { transaction, .. } => (true, transaction.is_some()),
            _ => (false, false),
        };
        let waiting: BTreeMap<Digest, &OutboxEntry> =
            outbox.into_iter().flatten().map(|entry| (Digest::new(entry.id), entry)).collect();
        for (id, asked) in self.effects.iter().filter(|(_, asked)| asked.kind.is_chain()) {
            let step = asked.kind.step();
            if asked.observed {
                if waiting.contains_key(id) {
                    findings.whole("outbox", format!("{step} done, as its outcome is recorded"), "still to be done");
                }
                continue;
            }
            if waiting.contains_key(id) || settled && !by_contract {
                continue;
            }
            // What a reorganisation took back is asked for again whatever the deal's end.
            if outbox.is_some() || by_contract && deal.undone().next().is_none() {
                let expected = format!("an outcome of {step}, which version {} asks for", asked.version);
                findings.whole("effect-lost", expected, "none, and nothing left to do it");
            } else {
                findings.note(None, "pending", format!("the step {step} had no outcome yet"));
            }
        }
        for (id, entry) in waiting {
            let found = outbox::decode(&entry.payload);
            match (self.effects.get(&id), found) {
                (Some(asked), Ok((version, kind))) if version == asked.version && kind == asked.kind => {}
                (Some(asked), Ok((version, kind))) => {
                    let say = |version: u64, kind: EffectKind| format!("{kind:?} of version {version}");
                    findings.whole("outbox", say(asked.version, asked.kind), say(version, kind));
                }
                (Some(_), Err(error)) => findings.whole("outbox", "an effect", error),
                // Follows from what was refused, which the record does not hold.
                (None, Ok((_, EffectKind::Equivocation { .. }))) => {}
                (None, _) => findings.whole("outbox", "effects that an event asks for", format!("effect {id}")),
            }
        }
    }
}

const fn deal_of(examined: &Examined) -> Option<&Deal> {
    examined.deal.as_ref()
}

/// The engine's own among decided events.
fn recorded(events: Vec<DealEvent>) -> VecDeque<EventKind> {
    let own = |event| match event {
        DealEvent::Recorded(kind) => Some(kind),
        DealEvent::Said(_) => None,
    };
    events.into_iter().filter_map(own).collect()
}

/// An engine event in a few words.
fn describe(kind: &EventKind) -> String {
    match kind {
        EventKind::DeadlineElapsed { deadline, .. } => format!("{} of {deadline}", kind.name()),
        EventKind::VerdictReached { outcome, .. } | EventKind::Settled { outcome, .. } => {
            format!("{} as {}", kind.name(), outcome.word())
        }
        EventKind::PanelDrawn { round, .. } => format!("{} of round {round}", kind.name()),
        _ => kind.name().into(),
    }
}

//! Audits of stores that the writer itself made, and of copies in which somebody changed something.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, LazyLock},
};

use tempfile::TempDir;
use tribunal_core::{ChainReport, EffectKind, REORGANISED};
use tribunal_engine::{
    audit::{AuditOptions, AuditReport, Discrepancy, Scope, audit},
    bus::Message,
    demo,
    effects::outgoing,
    outbox,
    partition::{CLOCK_SUBJECT, Job, Partition, Settings},
    store::{Append, Fsync, NewRecord, OutboxEntry, Record, Store, StreamAppend},
};
use tribunal_events::{
    Amount, B256, DealId, Digest, Envelope, EventKind, Outcome, Party, SignedVerdict, SigningKey, Terms, Timestamp,
    VerdictKind, proto::event::Kind,
};
use tribunal_fixtures::{RecordedDeal, START_S, Script, TermsBuilder, Vote, chain, engine_message, jobs, keys};
use tribunal_verifiers::{MemorySource, OperatorLimits, Request, Service, Verdict};

/// An engine's writer with a chain that takes every step at once, and nobody who judges.
pub struct Engine {
    _folder: TempDir,
    pub store: Store,
    partition: Partition,
    sequence: u64,
    block: u64,
    /// Steps that the chain has not got to yet.
    pub hold: BTreeSet<String>,
    /// Whether what is said may be refused.
    pub refuses: bool,
}

impl Engine {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("store"), Fsync::Never).unwrap();
        let settings = Settings {
            operator: keys::key("operator"),
            domains: vec![chain::domain()],
            recorded_time: false,
            preflight: None,
        };
        let partition = Partition::new(store.clone(), settings, "DEALS").unwrap();
        Self { _folder: folder, store, partition, sequence: 0, block: 0, hold: BTreeSet::new(), refuses: false }
    }

    fn message(&mut self, at: Timestamp, subject: &str, payload: Vec<u8>) -> Job {
        self.sequence += 1;
        Job::Message(Message {
            stream_sequence: self.sequence,
            subject: subject.into(),
            payload: payload.into(),
            at,
            recorded_at: None,
            message_id: None,
            stream_created_us: 1,
            incarnation: 0,
        })
    }

    fn process(&mut self, job: Job) {
        let mut jobs = vec![job];
        while !jobs.is_empty() {
            let processed = self.partition.process(std::mem::take(&mut jobs)).unwrap();
            assert!(self.refuses || processed.refused.is_empty(), "{:?}", processed.refused);
            for entry in processed.effects {
                let (_, kind) = outbox::decode(&entry.payload).unwrap();
                if self.hold.contains(&kind.step()) {
                    continue;
                }
                self.block += 1;
                jobs.push(perform(&entry, kind, self.block));
            }
        }
    }

    /// Somebody says something so many seconds after the start.
    pub fn say(&mut self, after_s: u64, envelope: &Envelope) {
        self.say_at(Timestamp::from_s(START_S + after_s), envelope);
    }

    fn say_at(&mut self, at: Timestamp, envelope: &Envelope) {
        let subject = outgoing(envelope).map_or_else(|_| "deals.x.y".into(), |out| out.subject);
        let job = self.message(at, &subject, envelope.encode());
        self.process(job);
    }

    /// Only time goes on.
    fn tick_at(&mut self, at: Timestamp) {
        let job = self.message(at, CLOCK_SUBJECT, Vec::new());
        self.process(job);
    }

    /// Proposal, agreement and, if there is one, a result.
    pub fn begin(&mut self, script: &Script, after_s: u64, claim: Option<tribunal_events::proto::Claim>) {
        self.say(after_s, &script.proposed(Party::Client));
        self.say(after_s + 1, &script.agreed(Party::Provider));
        if let Some(claim) = claim {
            self.say(after_s + 2, &script.result_submitted(claim));
        }
    }

    /// A drawn panel commits and reveals.
    pub fn judge(&mut self, script: &Script, after_s: u64, votes: &dyn Fn(&SigningKey) -> Vote) {
        let deal = tribunal_engine::replay::load(&self.store, &script.terms().deal_id()).unwrap().unwrap();
        let panel = deal.dispute().unwrap().round.as_ref().unwrap().panel().to_vec();
        let members: Vec<_> = panel.into_iter().map(|it| keys::key(keys::name(it).unwrap())).collect();
        for member in &members {
            self.say(after_s, &script.vote_committed(member, &votes(member)));
        }
        for member in &members {
            self.say(after_s + 1, &script.vote_revealed(member, &votes(member)));
        }
    }
}

fn perform(entry: &OutboxEntry, kind: EffectKind, block: u64) -> Job {
    if !kind.is_chain() {
        return Job::Done { effect_id: entry.id };
    }
    let (effect_id, transaction) = (Digest::new(entry.id), B256::new(entry.id));
    let report = ChainReport { effect_id, step: kind.step(), transaction, block, failure: None, block_time_s: None };
    Job::Report { deal_id: entry.deal_id, report, gas_used: 0 }
}

/// The wordcount job, and all that it reads and leaves.
pub fn wordcount() -> (jobs::Job, MemorySource) {
    let job = jobs::load("wordcount").unwrap();
    let mut source = MemorySource::new();
    for bytes in job.artifacts.iter().chain(job.expected.iter().map(|(_, bytes)| bytes)).chain([&job.stdout]) {
        source.add(bytes.clone());
    }
    (job, source)
}

/// The job as a cheating provider hands it in, with what it serves for it.
pub fn cheated() -> (jobs::Job, MemorySource) {
    let (job, mut source) = wordcount();
    let bytes = b"{\"words\": 1}\n".to_vec();
    source.add(bytes.clone());
    (job.with_result("/out/counts.json", bytes), source)
}

/// What the verifier says of a claim.
pub fn judged(terms: &Terms, claim: &tribunal_events::proto::Claim, source: &MemorySource) -> Verdict {
    let claim = tribunal_events::Claim::parse(claim).unwrap();
    let service = Service::new(OperatorLimits::default(), vec![Arc::new(source.clone())]);
    service.verify(&Request::for_deal(terms, &claim, &[])).unwrap()
}

/// A vote of a mediator that says this, with its report.
pub fn vote(terms: &Terms, key: &SigningKey, verdict: &Verdict) -> Vote {
    let (domain, hash) = (terms.domain(), terms.hash());
    let digest = B256::new(*verdict.digest.bytes());
    Vote {
        verdict: SignedVerdict::sign(key, &domain, hash, 0, verdict.verdict, 1, digest),
        reason_code: verdict.reason.code.clone(),
        salt: key.derive_secret("salt", hash.as_slice()),
        report_json: verdict.to_json().to_string(),
    }
}

pub fn script(builder: &TermsBuilder) -> Script {
    Script::new(builder.build())
}

/// What verification says of the cheat in [`caught`] and of the honest work in [`drawn`].
static VERDICTS: LazyLock<(Verdict, Verdict)> = LazyLock::new(|| {
    let ((cheat, source), (honest, _)) = (cheated(), wordcount());
    (judged(caught().terms(), &cheat.claim(1), &source), judged(drawn().terms(), &honest.claim(1), &source))
});

/// Every way a deal can go: on chain and off, accepted, judged by one and by a panel, left alone, open.
pub fn played() -> (Engine, MemorySource) {
    let mut engine = Engine::new();
    let (honest, _) = wordcount();
    let (false_job, source) = cheated();

    let accepted = script(&TermsBuilder::new("accepted"));
    engine.begin(&accepted, 0, Some(honest.claim(1)));
    engine.say(3, &accepted.accepted());

    let caught = caught();
    engine.begin(&caught, 10, Some(false_job.claim(1)));
    engine.say(13, &caught.disputed("wrong"));
    let m1 = keys::key("m1");
    let (invalid, valid) = &*VERDICTS;
    assert_eq!((invalid.verdict, valid.verdict), (VerdictKind::Invalid, VerdictKind::Valid));
    engine.say(14, &caught.verdict_given(&m1, &vote(caught.terms(), &m1, invalid)));

    let drawn = drawn();
    engine.begin(&drawn, 20, Some(honest.claim(1)));
    engine.say(23, &drawn.disputed("doubt"));
    engine.say(24, &drawn.seed_revealed(Party::Provider));
    engine.say(25, &drawn.seed_revealed(Party::Client));
    engine.judge(&drawn, 26, &|key| vote(drawn.terms(), key, valid));

    let left = script(&TermsBuilder::new("left alone").without_contract());
    engine.begin(&left, 30, Some(honest.claim(1)));

    let withdrawn = script(&TermsBuilder::new("withdrawn").without_contract());
    engine.begin(&withdrawn, 40, None);
    engine.say(43, &withdrawn.withdrawn(Party::Client));
    engine.say(44, &withdrawn.withdrawn(Party::Provider));

    engine.hold.insert("submit".into());
    let open = script(&TermsBuilder::new("open").agree_by_s(START_S + 1_000));
    engine.begin(&open, 640, Some(honest.claim(1)));
    (engine, source)
}

pub fn caught() -> Script {
    script(&TermsBuilder::new("caught"))
}

pub fn drawn() -> Script {
    script(&TermsBuilder::new("drawn").without_contract().drawn(&["m1", "m2", "m3", "m4", "m5"], 3, 2, 1))
}

fn audited(store: &Store) -> AuditReport {
    audit(store, Scope::All, AuditOptions::default()).unwrap()
}

fn reverified(store: &Store, source: &MemorySource) -> AuditReport {
    let service = Service::new(OperatorLimits::default(), Vec::new());
    audit(store, Scope::All, AuditOptions { reverify: Some((&service, source)), ..AuditOptions::default() }).unwrap()
}

/// A record as somebody who can write to the disk might change it.
#[derive(Clone)]
pub struct Altered {
    pub deal_id: DealId,
    pub new: NewRecord,
    pub position: u64,
}

impl Altered {
    pub fn kind(&self) -> EventKind {
        self.new.envelope.clone().parse().unwrap().into_kind()
    }

    /// Puts in an event of the engine, signed by this key.
    pub fn forge(&mut self, script: &Script, kind: &EventKind, by: &SigningKey) {
        self.new.envelope = script.say(engine_message(kind), by);
        self.new.signer = by.address();
    }
}

/// A fresh store with the same records after a change; chain, index and heads are the store's own again.
pub fn rewritten(engine: &Engine, change: impl FnOnce(&mut Vec<Altered>)) -> (TempDir, Store) {
    copied(&engine.store, change)
}

/// The same of any store.
pub fn copied(original: &Store, change: impl FnOnce(&mut Vec<Altered>)) -> (TempDir, Store) {
    let records: Vec<Record> = original.log(1).collect::<Result<_, _>>().unwrap();
    let mut altered: Vec<Altered> = records
        .into_iter()
        .map(|it| Altered {
            deal_id: it.deal_id,
            position: it.position,
            new: NewRecord { envelope: it.envelope, signer: it.signer, recorded_at: it.recorded_at },
        })
        .collect();
    change(&mut altered);
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Fsync::Never).unwrap();
    for it in altered {
        let head = original.head(&it.deal_id).unwrap();
        let expected_version = store.head(&it.deal_id).unwrap().map_or(0, |head| head.version);
        let stream = StreamAppend {
            deal_id: it.deal_id,
            expected_version,
            records: vec![it.new],
            open: head.is_none_or(|head| head.open),
            snapshot: None,
        };
        store.append(Append { streams: vec![stream], ..Append::default() }).unwrap();
    }
    let outbox_add = original.outbox().unwrap();
    store.append(Append { outbox_add, ..Append::default() }).unwrap();
    (folder, store)
}

/// Where the record of a deal with this name is, from 0.
pub fn find(records: &[Altered], script: &Script, name: &str) -> usize {
    let deal_id = script.terms().deal_id();
    records.iter().position(|it| it.deal_id == deal_id && it.kind().name() == name).expect(name)
}

/// Audits a changed store; the discrepancies of the deal as code and version.
fn found(engine: &Engine, change: impl FnOnce(&mut Vec<Altered>)) -> Vec<Discrepancy> {
    let (_folder, store) = rewritten(engine, change);
    audited(&store).discrepancies
}

/// The first discrepancy must have this code, at the record that was at `position` before.
#[track_caller]
fn assert_found(discrepancies: &[Discrepancy], code: &str, script: &Script, position: Option<u64>) {
    let deal_id = script.terms().deal_id();
    let hit = discrepancies
        .iter()
        .any(|it| it.code == code && it.deal_id == Some(deal_id) && (position.is_none() || it.position == position));
    assert!(hit, "no {code} at {position:?} in {discrepancies:#?}");
}

#[test]
fn what_the_engine_wrote_is_clean() {
    let (engine, source) = played();
    let report = audited(&engine.store);
    assert!(report.is_clean(), "{:#?}", report.discrepancies);
    assert_eq!((report.deals, report.records), (6, engine.store.last_position()));
    assert_eq!(report.signatures, report.records);
    let outcomes: Vec<_> = report.outcomes.iter().map(|(word, count)| format!("{count} {word}")).collect();
    assert_eq!(outcomes.join(" "), "1 accepted 1 invalid 1 judge-timeout 1 open 1 valid 1 withdrawn");

    let report = reverified(&engine.store, &source);
    assert!(report.is_clean(), "{:#?}", report.discrepancies);
    // Five results; one vote of the appointed mediator and three of the panel.
    assert_eq!((report.reverified, report.votes_confirmed), (5, 4));
    assert!(report.notes.is_empty(), "{:#?}", report.notes);

    // A reader beside the writer sees the same.
    let reader = Store::open_read_only(engine.store.path()).unwrap();
    assert!(audited(&reader).is_clean());
}

#[test]
fn only_the_deals_asked_for_are_audited() {
    let (engine, _) = played();
    let unknown = DealId::new([7; 32]);
    let known = caught().terms().deal_id();
    let done = std::sync::atomic::AtomicU64::new(0);
    let progress = |at: u64, total: u64| {
        assert!(at <= total);
        done.fetch_max(at, std::sync::atomic::Ordering::Relaxed);
    };
    let options = AuditOptions { progress: Some(&progress), ..AuditOptions::default() };
    let report = audit(&engine.store, Scope::Deals(vec![known, unknown, known]), options).unwrap();
    assert_eq!((report.deals, report.unknown), (1, vec![unknown]));
    assert_eq!(report.records, engine.store.head(&known).unwrap().unwrap().version);
    assert_eq!(report.records, done.into_inner());
}

#[test]
fn missing_artifacts_are_said_to_be_unchecked() {
    let (engine, _) = played();
    let report = reverified(&engine.store, &MemorySource::new());
    assert!(report.is_clean(), "{:#?}", report.discrepancies);
    assert_eq!((report.reverified, report.votes_confirmed), (0, 0));
    assert_eq!(report.notes.iter().filter(|note| note.code == "not-checkable").count(), 5, "{:#?}", report.notes);
}

#[test]
fn a_verdict_that_verification_contradicts_is_found() {
    let mut engine = Engine::new();
    let (job, source) = cheated();
    let bribed = script(&TermsBuilder::new("bribed"));
    engine.begin(&bribed, 0, Some(job.claim(1)));
    engine.say(3, &bribed.disputed("wrong"));
    let m1 = keys::key("m1");
    engine.say(4, &bribed.verdict_given(&m1, &bribed.vote(&m1, 0, VerdictKind::Valid, 1, "ok")));
    assert!(audited(&engine.store).is_clean());
    let report = reverified(&engine.store, &source);
    assert_eq!(report.discrepancy_count, 1, "{:#?}", report.discrepancies);
    assert_found(&report.discrepancies, "vote", &bribed, None);
    assert!(report.discrepancies[0].expected.starts_with("invalid (output-differs)"), "{:#?}", report.discrepancies);
    assert!(report.discrepancies[0].found.contains(&format!("{:#x}", m1.address())));
}

#[test]
fn a_vote_that_lost_is_a_note() {
    let mut engine = Engine::new();
    let (job, source) = wordcount();
    let drawn = drawn();
    let valid = &VERDICTS.1;
    engine.begin(&drawn, 0, Some(job.claim(1)));
    engine.say(3, &drawn.disputed("doubt"));
    engine.say(4, &drawn.seed_revealed(Party::Provider));
    engine.say(5, &drawn.seed_revealed(Party::Client));
    let deal = tribunal_engine::replay::load(&engine.store, &drawn.terms().deal_id()).unwrap().unwrap();
    let dissenter = deal.dispute().unwrap().round.as_ref().unwrap().panel()[0];
    engine.judge(&drawn, 6, &|key| match key.address() == dissenter {
        true => drawn.vote(key, 0, VerdictKind::Invalid, 1, "output-differs"),
        false => vote(drawn.terms(), key, valid),
    });
    let report = reverified(&engine.store, &source);
    assert!(report.is_clean(), "{:#?}", report.discrepancies);
    assert_eq!(report.votes_confirmed, 2);
    assert_eq!(report.notes.len(), 1, "{:#?}", report.notes);
    assert!(report.notes[0].code == "vote" && report.notes[0].text.contains(&format!("{dissenter:#x}")));
}

#[test]
fn an_accepted_result_that_is_wrong_is_a_note() {
    let mut engine = Engine::new();
    let (job, source) = cheated();
    let fooled = script(&TermsBuilder::new("fooled"));
    engine.begin(&fooled, 0, Some(job.claim(1)));
    engine.say(3, &fooled.accepted());
    let report = reverified(&engine.store, &source);
    assert!(report.is_clean(), "{:#?}", report.discrepancies);
    assert_eq!(report.notes.iter().map(|note| note.code).collect::<Vec<_>>(), ["unjudged"]);
}

#[test]
fn a_changed_signer_or_signature_is_found() {
    let (engine, _) = played();
    let it = caught();
    let mut at = 0;
    let discrepancies = found(&engine, |records| {
        let index = find(records, &it, "disputed");
        records[index].new.signer = keys::address("stranger");
        at = records[index].position;
    });
    assert_found(&discrepancies, "signer", &it, Some(at));

    let discrepancies = found(&engine, |records| {
        let (index, other) = (find(records, &it, "disputed"), find(records, &it, "agreed"));
        let signature = records[other].new.envelope.signature().to_vec();
        records[index].new.envelope = Envelope::from_parts(records[index].new.envelope.event().to_vec(), signature);
    });
    assert_found(&discrepancies, "signature", &it, Some(at));

    let discrepancies = found(&engine, |records| {
        let index = find(records, &it, "disputed");
        let mut event = records[index].new.envelope.event().to_vec();
        event.truncate(20);
        records[index].new.envelope = Envelope::from_parts(event, vec![0; 65]);
    });
    assert_found(&discrepancies, "event", &it, Some(at));
}

#[test]
fn an_operator_event_by_somebody_else_is_found() {
    let (engine, _) = played();
    let it = caught();
    let mut at = 0;
    let discrepancies = found(&engine, |records| {
        let index = find(records, &it, "verdict_reached");
        let kind = records[index].kind();
        records[index].forge(&it, &kind, &keys::key("stranger"));
        at = records[index].position;
    });
    assert_eq!(discrepancies.len(), 1, "{discrepancies:#?}");
    assert_found(&discrepancies, "operator", &it, Some(at));
    assert_eq!(discrepancies[0].expected, format!("{:#x}", keys::address("operator")));
}

#[test]
fn another_outcome_than_the_votes_give_is_found() {
    let (engine, _) = played();
    let it = caught();
    let mut at = 0;
    let discrepancies = found(&engine, |records| {
        let index = find(records, &it, "verdict_reached");
        let EventKind::VerdictReached { round, reason_code, voters, .. } = records[index].kind() else { panic!() };
        let kind = EventKind::VerdictReached { round, outcome: Outcome::Valid, reason_code, voters };
        records[index].forge(&it, &kind, &keys::key("operator"));
        at = records[index].position;
    });
    assert_found(&discrepancies, "outcome", &it, Some(at));
    assert_eq!((discrepancies[0].expected.as_str(), discrepancies[0].found.as_str()), ("invalid", "valid"));
}

#[test]
fn a_wrong_payout_is_found() {
    let (engine, _) = played();
    for it in [caught(), drawn()] {
        let mut at = 0;
        let discrepancies = found(&engine, |records| {
            let index = find(records, &it, "settled");
            let EventKind::Settled { outcome, mut payouts, transaction, block } = records[index].kind() else {
                panic!()
            };
            payouts[1].paid = payouts[1].paid.checked_add(Amount::new(alloy_primitives::U256::from(1))).unwrap();
            let kind = EventKind::Settled { outcome, payouts, transaction, block };
            records[index].forge(&it, &kind, &keys::key("operator"));
            at = records[index].position;
        });
        assert_found(&discrepancies, "payouts", &it, Some(at));
        assert_found(&discrepancies, "conservation", &it, Some(at));
        assert_eq!(discrepancies.len(), 2, "{discrepancies:#?}");
    }
}

#[test]
fn a_panel_that_was_not_drawn_so_is_found() {
    let (engine, _) = played();
    let it = drawn();
    let mut at = 0;
    let discrepancies = found(&engine, |records| {
        let index = find(records, &it, "panel_drawn");
        let EventKind::PanelDrawn { round, seed, candidates, panel, panel_signature } = records[index].kind() else {
            panic!()
        };
        let others = candidates.iter().copied().filter(|it| !panel.contains(it));
        let mut panel: Vec<_> = others.chain(panel.iter().copied()).take(3).collect();
        panel.sort_unstable();
        let kind = EventKind::PanelDrawn { round, seed, candidates, panel, panel_signature };
        records[index].forge(&it, &kind, &keys::key("operator"));
        at = records[index].position;
    });
    assert_found(&discrepancies, "panel", &it, Some(at));
    assert_eq!(discrepancies.len(), 1, "{discrepancies:#?}");
}

#[test]
fn the_operators_signature_for_the_contract_is_checked() {
    let (engine, _) = played();
    let it = caught();
    let discrepancies = found(&engine, |records| {
        let index = find(records, &it, "panel_drawn");
        let EventKind::PanelDrawn { round, seed, candidates, panel, .. } = records[index].kind() else { panic!() };
        let kind = EventKind::PanelDrawn { round, seed, candidates, panel, panel_signature: None };
        records[index].forge(&it, &kind, &keys::key("operator"));
    });
    assert_found(&discrepancies, "panel-signature", &it, None);
}

#[test]
fn a_missing_event_is_found() {
    let (engine, _) = played();
    let it = drawn();
    for (name, code) in [
        ("proposed", "event"),
        ("agreed", "not-admitted"),
        ("seed_revealed", "unfounded"),
        ("panel_drawn", "event-missing"),
        ("vote_committed", "not-admitted"),
        ("verdict_reached", "event-missing"),
        ("settled", "event-missing"),
    ] {
        let discrepancies = found(&engine, |records| {
            let index = find(records, &it, name);
            records.remove(index);
        });
        assert_found(&discrepancies, code, &it, None);
    }
    // Steps of the chain, too: what is not observed was asked for.
    let it = caught();
    let discrepancies = found(&engine, |records| {
        let deal_id = it.terms().deal_id();
        let submit = |it: &Altered| matches!(it.kind(), EventKind::ChainObserved { step, .. } if step == "submit");
        let index = records.iter().position(|it| it.deal_id == deal_id && submit(it)).unwrap();
        records.remove(index);
    });
    assert_found(&discrepancies, "effect-lost", &it, None);
    assert!(discrepancies.iter().any(|it| it.expected.starts_with("an outcome of submit")), "{discrepancies:#?}");
}

#[test]
fn another_order_is_found() {
    let (engine, _) = played();
    let it = caught();
    let discrepancies = found(&engine, |records| {
        let (a, b) = (find(records, &it, "agreed"), find(records, &it, "result_submitted"));
        let (first, second) = (records[a].new.envelope.clone(), records[b].new.envelope.clone());
        records[a].new = NewRecord { envelope: second, signer: records[b].new.signer, ..records[a].new };
        records[b].new.envelope = first;
    });
    assert_found(&discrepancies, "not-admitted", &it, None);
}

#[test]
fn time_that_goes_back_is_found() {
    let (engine, _) = played();
    let it = caught();
    let mut at = 0;
    let discrepancies = found(&engine, |records| {
        let index = find(records, &it, "disputed");
        records[index].new.recorded_at = Timestamp::from_s(START_S);
        at = records[index].position;
    });
    assert_found(&discrepancies, "time", &it, Some(at));
    assert_found(&discrepancies, "log-time", &it, Some(at));
}

#[test]
fn a_deadline_that_was_not_over_or_was_passed_over_is_found() {
    let (engine, _) = played();
    let left = script(&TermsBuilder::new("left alone").without_contract());
    let mut at = 0;
    // The end of the judging time, ten minutes early.
    let discrepancies = found(&engine, |records| {
        let index = find(records, &left, "deadline_elapsed");
        at = records[index].position;
        for it in records.iter_mut().filter(|it| it.position >= at) {
            it.new.recorded_at = Timestamp::from_s(START_S + 100);
        }
    });
    assert_found(&discrepancies, "unfounded", &left, Some(at));

    // All three events of the timeout left out: the log went on past it.
    let discrepancies = found(&engine, |records| {
        let (deal_id, from) = (left.terms().deal_id(), records[find(records, &left, "deadline_elapsed")].position);
        records.retain(|it| it.deal_id != deal_id || it.position < from);
    });
    assert_found(&discrepancies, "deadline-missed", &left, None);

    // The client is let in after its time.
    let discrepancies = found(&engine, |records| {
        let (deal_id, from) = (left.terms().deal_id(), records[find(records, &left, "deadline_elapsed")].position);
        let at = records[from as usize - 1].new.recorded_at;
        records.retain(|it| it.deal_id != deal_id || it.position < from);
        let new = NewRecord { envelope: left.accepted(), signer: keys::address("client"), recorded_at: at };
        records.push(Altered { deal_id, new, position: 0 });
    });
    assert_found(&discrepancies, "deadline-missed", &left, None);
}

#[test]
fn what_the_rules_refuse_is_found() {
    let (engine, _) = played();
    let it = caught();
    // A second judgement of the client, an event that the engine made up, and something after the end.
    let discrepancies = found(&engine, |records| {
        let index = find(records, &it, "disputed") + 2;
        let like = records[index].clone();
        let new = NewRecord { envelope: it.accepted(), signer: keys::address("client"), ..like.new };
        records.insert(index, Altered { new, ..like });
    });
    assert_found(&discrepancies, "not-admitted", &it, None);

    let discrepancies = found(&engine, |records| {
        let index = find(records, &it, "result_submitted");
        let kind = EventKind::VerdictReached {
            round: 0,
            outcome: Outcome::Valid,
            reason_code: "ok".into(),
            voters: Vec::new(),
        };
        let mut forged = records[index].clone();
        forged.forge(&it, &kind, &keys::key("operator"));
        records.insert(index, forged);
    });
    assert_found(&discrepancies, "unfounded", &it, None);

    let discrepancies = found(&engine, |records| {
        let index = find(records, &it, "settled");
        let mut after = records[index].clone();
        after.new.envelope = it.withdrawn(Party::Client);
        after.new.signer = keys::address("client");
        records.insert(index + 1, after);
    });
    assert_found(&discrepancies, "after-settlement", &it, None);
}

#[test]
fn a_step_that_nobody_asked_for_is_found() {
    let (engine, _) = played();
    let it = caught();
    let mut at = 0;
    let discrepancies = found(&engine, |records| {
        let index = find(records, &it, "chain_observed");
        let EventKind::ChainObserved { step, transaction, block, failure, block_time_s, .. } = records[index].kind()
        else {
            panic!()
        };
        let effect_id = Digest::new([9; 32]);
        let kind = EventKind::ChainObserved { step, effect_id, transaction, block, failure, block_time_s };
        records[index].forge(&it, &kind, &keys::key("operator"));
        at = records[index].position;
    });
    assert_found(&discrepancies, "effect", &it, Some(at));
    assert_found(&discrepancies, "effect-lost", &it, None);
}

/// A reorganisation undoes these steps of a deal, which are taken again at once but for those on hold.
fn reorganise(engine: &mut Engine, script: &Script, steps: &[&str]) {
    let deal_id = script.terms().deal_id();
    let records: Vec<Record> = engine.store.stream(&deal_id, 1).collect::<Result<_, _>>().unwrap();
    for wanted in steps {
        let undone = records.iter().rev().find_map(|it| match it.envelope.clone().parse().unwrap().into_kind() {
            EventKind::ChainObserved { step, effect_id, transaction, block, failure: None, .. } if step == *wanted => {
                let failure = Some(REORGANISED.to_owned());
                Some(ChainReport { effect_id, step, transaction, block, failure, block_time_s: None })
            }
            _ => None,
        });
        let report = undone.expect("a step that was taken");
        engine.process(Job::Report { deal_id, report, gas_used: 0 });
    }
}

#[test]
fn what_a_reorganisation_undid_and_what_was_done_again_is_clean_also_after_the_end() {
    let (mut engine, _) = played();
    engine.hold.clear();
    let open = script(&TermsBuilder::new("open").agree_by_s(START_S + 1_000));
    reorganise(&mut engine, &open, &["open"]);
    reorganise(&mut engine, &caught(), &["submit", "dispute", "settle"]);
    reorganise(&mut engine, &caught(), &["settle"]);
    let report = audited(&engine.store);
    assert!(report.is_clean(), "{:#?}", report.discrepancies);
    let deal = tribunal_engine::replay::load(&engine.store, &caught().terms().deal_id()).unwrap().unwrap();
    assert!(deal.is_settled() && deal.undone().next().is_none());
    assert!(!engine.store.open_deals().unwrap().contains(&deal.id()));

    // While it has to wait it is asked for, and that is enough.
    engine.hold.insert("settle".into());
    reorganise(&mut engine, &caught(), &["settle"]);
    assert!(audited(&engine.store).is_clean());
    // But where nobody is left to do it, it is lost.
    let waiting = engine.store.outbox().unwrap().iter().find(|it| it.deal_id == deal.id()).unwrap().id;
    engine.store.append(Append { outbox_done: vec![waiting], ..Append::default() }).unwrap();
    assert_found(&audited(&engine.store).discrepancies, "effect-lost", &caught(), None);
}

#[test]
fn a_reorganisation_that_was_none_is_found() {
    let (mut engine, _) = played();
    engine.hold.insert("settle".into());
    reorganise(&mut engine, &caught(), &["settle"]);
    let it = caught();
    // Undone twice, undone though another transaction was recorded, undone before it was taken.
    let undone = |records: &[Altered]| records.iter().rposition(|it| it.kind().name() == "chain_observed").unwrap();
    let discrepancies = found(&engine, |records| {
        let index = undone(records);
        records.insert(index + 1, records[index].clone());
        let EventKind::ChainObserved { step, effect_id, block, failure, .. } = records[index].kind() else { panic!() };
        let (transaction, block_time_s) = (B256::repeat_byte(9), None);
        let kind = EventKind::ChainObserved { step, effect_id, transaction, block, failure, block_time_s };
        records[index].forge(&it, &kind, &keys::key("operator"));
    });
    assert_found(&discrepancies, "after-settlement", &it, None);
    let discrepancies = found(&engine, |records| {
        let index = undone(records);
        let EventKind::ChainObserved { step, transaction, block, failure, .. } = records[index].kind() else {
            panic!()
        };
        let (effect_id, block_time_s) = (Digest::new([9; 32]), None);
        let kind = EventKind::ChainObserved { step, effect_id, transaction, block, failure, block_time_s };
        records[index].forge(&it, &kind, &keys::key("operator"));
    });
    assert_found(&discrepancies, "effect", &it, None);
    let discrepancies = found(&engine, |records| {
        let index = undone(records);
        let record = records.remove(index);
        let settled = find(records, &it, "settled");
        records.insert(settled - 1, record);
    });
    assert_found(&discrepancies, "effect", &it, None);
}

#[test]
fn an_outbox_that_forgot_or_made_up_an_effect_is_found() {
    let (engine, _) = played();
    let open = script(&TermsBuilder::new("open").agree_by_s(START_S + 1_000));
    let entries = engine.store.outbox().unwrap();
    assert_eq!(entries.len(), 1, "{entries:?}");
    let (_folder, store) = rewritten(&engine, |_| {});
    assert!(audited(&store).is_clean());
    let outbox_done = vec![entries[0].id];
    store.append(Append { outbox_done, ..Append::default() }).unwrap();
    assert_found(&audited(&store).discrepancies, "effect-lost", &open, None);

    let (_folder, store) = rewritten(&engine, |_| {});
    let made_up = OutboxEntry { id: [3; 32], ..entries[0].clone() };
    store.append(Append { outbox_add: vec![made_up], ..Append::default() }).unwrap();
    assert_found(&audited(&store).discrepancies, "outbox", &open, None);
}

#[test]
fn a_snapshot_of_another_deal_is_found() {
    let (engine, _) = played();
    let it = caught();
    let other = tribunal_engine::replay::load(&engine.store, &drawn().terms().deal_id()).unwrap().unwrap();
    let own = tribunal_engine::replay::load(&engine.store, &it.terms().deal_id()).unwrap().unwrap();
    for (saved, clean) in [(&own, true), (&other, false)] {
        let (_folder, store) = rewritten(&engine, |_| {});
        let stream = StreamAppend {
            deal_id: it.terms().deal_id(),
            expected_version: own.version(),
            records: Vec::new(),
            open: false,
            snapshot: Some(serde_json::to_vec(saved).unwrap()),
        };
        store.append(Append { streams: vec![stream], ..Append::default() }).unwrap();
        let report = audited(&store);
        assert_eq!(report.is_clean(), clean, "{:#?}", report.discrepancies);
        if !clean {
            assert_found(&report.discrepancies, "snapshot", &it, None);
        }
    }
}

#[test]
fn a_deal_that_is_no_deal_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Fsync::Never).unwrap();
    let deal_id = DealId::new([5; 32]);
    let new = NewRecord {
        envelope: Envelope::from_parts(vec![1, 2, 3], vec![4; 65]),
        signer: keys::address("client"),
        recorded_at: Timestamp::from_s(START_S),
    };
    let foreign = NewRecord { envelope: caught().proposed(Party::Client), ..new.clone() };
    let stream = StreamAppend { deal_id, expected_version: 0, records: vec![new, foreign], open: true, snapshot: None };
    store.append(Append { streams: vec![stream], ..Append::default() }).unwrap();
    let report = audited(&store);
    let codes: Vec<_> = report.discrepancies.iter().map(|it| (it.position.unwrap_or(0), it.code)).collect();
    assert_eq!(codes, [(1, "event"), (2, "deal-id")], "{:#?}", report.discrepancies);
    assert_eq!(report.notes.iter().map(|note| note.code).collect::<Vec<_>>(), ["not-replayed"]);
}

#[test]
fn damaged_files_are_found() {
    let (engine, _) = played();
    let copy = tempfile::tempdir().unwrap();
    let path = copy.path().join("store");
    engine.store.checkpoint(&path).unwrap();
    flip(&path);
    match Store::open_read_only(&path) {
        // Either the store notices when it is opened, or the audit does.
        Err(fault) => assert!(matches!(fault, tribunal_engine::store::StoreFault::Damaged { .. }), "{fault}"),
        Ok(store) => {
            let report = audited(&store);
            assert!(report.discrepancies.iter().any(|it| it.code == "damage"), "{:#?}", report.discrepancies);
        }
    }
}

/// Flips one bit in the largest table of a store: the one with the events.
fn flip(path: &Path) {
    let files = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let tables = files.filter(|path| path.extension().is_some_and(|it| it == "sst" || it == "blob"));
    let largest = tables.max_by_key(|path| std::fs::metadata(path).unwrap().len()).expect("a copy has tables");
    let mut bytes = std::fs::read(&largest).unwrap();
    let middle = bytes.len() / 3;
    bytes[middle] ^= 1;
    // The copy shares its files with the store.
    std::fs::remove_file(&largest).unwrap();
    std::fs::write(&largest, bytes).unwrap();
}

#[test]
fn every_recorded_deal_leaves_a_clean_store_and_a_sound_file() {
    for name in RecordedDeal::names().unwrap() {
        let (deal, events) = RecordedDeal::load(&name).unwrap();
        let mut engine = Engine::new();
        engine.refuses = true;
        for step in &deal.timeline {
            match step.line {
                Some(line) => engine.say_at(step.at(), &events[line]),
                None => engine.tick_at(step.at()),
            }
        }
        let report = audited(&engine.store);
        assert!(report.is_clean(), "{name}: {:#?}", report.discrepancies);
        let Some(head) = engine.store.head(&deal.deal_id).unwrap() else { continue };
        assert_eq!(report.records, head.version, "{name}");
        let bytes = tribunal_engine::bundle::export(&engine.store, &deal.deal_id, None).unwrap();
        let file = tribunal_engine::bundle::verify(&bytes, &Default::default()).unwrap();
        assert!(file.is_sound(), "{name}: {:#?} {:#?}", file.discrepancies, file.claims);
    }
}

#[test]
fn a_forged_word_of_a_party_is_found() {
    let (engine, _) = played();
    let it = caught();
    let mut at = 0;
    // A stranger says that the result is accepted: properly signed, by nobody who may.
    let discrepancies = found(&engine, |records| {
        let index = find(records, &it, "disputed");
        let stranger = keys::key("stranger");
        let accepted = tribunal_events::proto::Accepted { move_signature: Vec::new() };
        records[index].new.envelope = it.say(Kind::Accepted(accepted), &stranger);
        records[index].new.signer = stranger.address();
        at = records[index].position;
    });
    assert_found(&discrepancies, "not-admitted", &it, Some(at));
    assert!(discrepancies.iter().any(|it| it.found.contains("not-allowed")), "{discrepancies:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_whole_engine_played_is_clean_and_every_file_of_it_is_sound() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures");
    let folder = tempfile::tempdir().unwrap();
    let deals = demo::read(&fixtures).unwrap();
    let stage = demo::stage(&fixtures, folder.path(), Some(demo::BusChoice::InProcess)).await.unwrap();
    demo::play(&stage, &deals, |_, _| {}).await.unwrap();
    let (store, artifacts, service) = (stage.engine.store().clone(), stage.artifacts.clone(), stage.verifier.clone());
    let checked = tokio::task::spawn_blocking(move || {
        let options = AuditOptions { reverify: Some((&service, &*artifacts)), ..AuditOptions::default() };
        let report = audit(&store, Scope::All, options).unwrap();
        assert!(report.is_clean(), "{:#?}", report.discrepancies);
        assert!(report.reverified >= 10 && report.votes_confirmed >= 10, "{report:#?}");
        for deal in store.deals() {
            let (deal_id, _) = deal.unwrap();
            let bytes = tribunal_engine::bundle::export(&store, &deal_id, Some(&*artifacts)).unwrap();
            let file = tribunal_engine::bundle::verify(&bytes, &Default::default()).unwrap();
            assert!(file.is_sound(), "{deal_id}: {:#?} {:#?}", file.discrepancies, file.claims);
        }
    });
    checked.await.unwrap();
    stage.engine.shutdown(std::time::Duration::from_secs(60)).await;
}

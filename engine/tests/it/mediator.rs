//! A mediator at work: what it signs, what it asks for, and what it never does.

use std::{path::Path, sync::Arc};

use tribunal_core::Deal;
use tribunal_engine::{
    bus::Message,
    effects::outgoing,
    mediator::{Mediator, Next, history::History},
    partition::{CLOCK_SUBJECT, Job, Partition, Settings},
    replay::load,
    store::{Fsync, Store},
};
use tribunal_events::{Envelope, EventKind, Party, Timestamp, VerdictKind};
use tribunal_fixtures::{START_S, Script, TermsBuilder, jobs, keys::key};
use tribunal_verifiers::{
    ArtifactFault, ArtifactSource, FolderSource, MemorySource, OperatorLimits, Reference, Service,
};

/// A source whose disk is broken.
struct Broken;

impl ArtifactSource for Broken {
    fn fetch(&self, reference: &Reference) -> Result<Option<Arc<[u8]>>, ArtifactFault> {
        let source = std::io::Error::other("the disk is gone");
        Err(ArtifactFault::Io { name: reference.to_string(), source })
    }
}

/// A disputed deal of an honest provider whose appointed mediator is m1, in a store of its own.
fn disputed(folder: &Path) -> (Store, Deal) {
    let mut case = Case::new(folder);
    let deal = case.disputed();
    (case.store, deal)
}

/// A writer without a bus.
struct Case {
    store: Store,
    partition: Partition,
    script: Script,
    sequence: u64,
}

impl Case {
    fn new(folder: &Path) -> Self {
        Self::with(folder, |terms| terms.appointed("m1", 1))
    }

    fn with(folder: &Path, mediation: impl FnOnce(TermsBuilder) -> TermsBuilder) -> Self {
        let store = Store::open(folder, Fsync::Never).unwrap();
        let settings =
            Settings { operator: key("operator"), domains: Vec::new(), recorded_time: false, preflight: None };
        let partition = Partition::new(store.clone(), settings, "DEALS").unwrap();
        let terms = mediation(TermsBuilder::new("a mediator at work").without_contract()).build();
        Self { store, partition, script: Script::new(terms), sequence: 0 }
    }

    fn disputed(&mut self) -> Deal {
        let claim = jobs::load("wordcount").unwrap().claim(1_000_000_000);
        let said = [
            self.script.proposed(Party::Client),
            self.script.agreed(Party::Provider),
            self.script.result_submitted(claim),
            self.script.disputed("show me"),
        ];
        for (envelope, second) in said.iter().zip(0..) {
            self.say(envelope, second);
        }
        let deal = self.deal();
        assert_eq!(deal.state(), "disputed");
        deal
    }

    /// Somebody says something so many seconds after the deal began.
    fn say(&mut self, envelope: &Envelope, second: u64) {
        let out = outgoing(envelope).unwrap();
        self.send(out.subject, out.payload, second);
    }

    /// Time goes on.
    fn tick(&mut self, second: u64) {
        self.send(CLOCK_SUBJECT.into(), Vec::new().into(), second);
    }

    fn send(&mut self, subject: String, payload: prost::bytes::Bytes, second: u64) {
        self.sequence += 1;
        let message = Message {
            stream_sequence: self.sequence,
            subject,
            payload,
            at: Timestamp::from_s(START_S + second),
            recorded_at: None,
            message_id: None,
            stream_created_us: 1,
            incarnation: 0,
        };
        let processed = self.partition.process(vec![Job::Message(message)]).unwrap();
        assert!(processed.refused.is_empty(), "{:?}", processed.refused);
    }

    fn deal(&self) -> Deal {
        load(&self.store, &self.script.terms().deal_id()).unwrap().unwrap()
    }
}

fn mediator(store: &Store, source: Arc<dyn ArtifactSource>) -> Mediator {
    mediator_with("m1", store, source)
}

fn mediator_with(name: &str, store: &Store, source: Arc<dyn ArtifactSource>) -> Mediator {
    let verifier = Arc::new(Service::new(OperatorLimits::default(), vec![Arc::clone(&source)]));
    let history = Arc::new(History::open(store.path().join("history.jsonl")).unwrap());
    Mediator::new(Arc::new(key(name)), store.clone(), history, verifier, source).unwrap()
}

/// What a mediator says after one look at a case.
fn judge(mediator: &Mediator, deal: &Deal, round: u32) -> Vec<Envelope> {
    match mediator.examine(deal, round, u64::MAX) {
        Next::Nothing => Vec::new(),
        Next::Say(kinds) => kinds.into_iter().map(|kind| mediator.sign(deal.terms(), kind).unwrap()).collect(),
        Next::Vote(finding) => {
            let entry = mediator.intend(deal, round, &finding).unwrap();
            vec![mediator.vote(deal, &entry).unwrap()]
        }
    }
}

fn jobs_folder() -> Arc<dyn ArtifactSource> {
    Arc::new(FolderSource::open(&tribunal_fixtures::folder().join("jobs")).unwrap())
}

fn only(said: Vec<Envelope>) -> EventKind {
    let [envelope] = &said[..] else { panic!("one event, not {}", said.len()) };
    envelope.clone().parse().unwrap().into_kind()
}

#[test]
fn a_broken_source_of_our_own_is_inconclusive_and_nobody_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let (store, deal) = disputed(folder.path());
    match only(judge(&mediator(&store, Arc::new(Broken)), &deal, 0)) {
        EventKind::VerdictGiven { vote } => {
            assert_eq!(vote.verdict, VerdictKind::Inconclusive);
            assert_eq!(vote.reason_code, "artifact-unavailable");
        }
        other => panic!("a fault of ours became `{}`", other.name()),
    }
}

#[test]
fn what_nobody_serves_is_asked_of_the_responsible_party_before_anybody_is_blamed() {
    let folder = tempfile::tempdir().unwrap();
    let (store, deal) = disputed(folder.path());
    let said = judge(&mediator(&store, Arc::new(MemorySource::new())), &deal, 0);
    assert!(!said.is_empty());
    for envelope in said {
        match envelope.parse().unwrap().into_kind() {
            EventKind::ArtifactRequested { round: 0, party: Party::Client, .. } => {}
            other => panic!("a request to the client for module and input, not `{}`", other.name()),
        }
    }
}

#[test]
fn a_second_different_verdict_in_a_round_is_never_signed() {
    let folder = tempfile::tempdir().unwrap();
    let (store, deal) = disputed(folder.path());
    let first = judge(&mediator(&store, Arc::new(Broken)), &deal, 0);
    // The disk is back, and verification would now say valid: the vote stays what it was, to the byte.
    let second = judge(&mediator(&store, jobs_folder()), &deal, 0);
    assert_eq!(first, second);
    drop(store);
    // Also after a restart.
    let store = Store::open(folder.path(), Fsync::Never).unwrap();
    assert_eq!(judge(&mediator(&store, jobs_folder()), &deal, 0), first);
}

#[test]
fn another_mediator_or_round_gets_no_vote() {
    let folder = tempfile::tempdir().unwrap();
    let (store, deal) = disputed(folder.path());
    assert!(judge(&mediator(&store, jobs_folder()), &deal, 1).is_empty(), "round 1 has not begun");
    let stranger = mediator_with("m2", &store, jobs_folder());
    assert!(judge(&stranger, &deal, 0).is_empty(), "m2 is not on the panel");
}

#[test]
fn a_silent_party_loses_but_one_that_answered_is_not_blamed_by_a_single_mediator() {
    for answers in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let mut case = Case::new(folder.path());
        let deal = case.disputed();
        // A mediator that finds nothing anywhere: its own folders may be the wrong ones.
        let blind = mediator(&case.store, Arc::new(MemorySource::new()));
        let asked = judge(&blind, &deal, 0);
        for envelope in &asked {
            case.say(envelope, 10);
        }
        if answers {
            for request in asked {
                let EventKind::ArtifactRequested { artifact, .. } = request.parse().unwrap().into_kind() else {
                    panic!()
                };
                case.say(&case.script.artifact_served(Party::Client, &artifact.to_string()), 20);
            }
        }
        case.tick(200);
        let mut said = judge(&blind, &case.deal(), 0);
        if !answers {
            // It attests first that nothing came.
            for envelope in &said {
                case.say(envelope, 210);
            }
            said = judge(&blind, &case.deal(), 0);
        }
        match only(said) {
            EventKind::VerdictGiven { vote } if answers => assert_eq!(vote.verdict, VerdictKind::Inconclusive),
            EventKind::VerdictGiven { vote } => {
                assert_eq!((vote.verdict, vote.reason_code.as_str()), (VerdictKind::Valid, "withheld"));
            }
            other => panic!("a vote, not `{}`", other.name()),
        }
    }
}

#[test]
fn a_commitment_of_another_machine_is_not_answered_with_a_second_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let mut case = Case::with(folder.path(), |terms| terms.drawn(&["m1"], 1, 1, 0));
    case.disputed();
    case.say(&case.script.seed_revealed(Party::Client), 10);
    case.say(&case.script.seed_revealed(Party::Provider), 11);
    let mediator = mediator(&case.store, jobs_folder());
    let own = only(judge(&mediator, &case.deal(), 0));
    assert!(matches!(own, EventKind::VoteCommitted { .. }));
    // The same key on another machine was first with another commitment.
    let vote = case.script.vote(&key("m1"), 0, VerdictKind::Inconclusive, 1_000_000_000, "operator-limit");
    case.say(&case.script.vote_committed(&key("m1"), &vote), 12);
    assert!(case.deal().dispute().unwrap().revealing);
    assert_eq!(mediator.reveal(&case.deal(), 0).unwrap(), None, "the other machine's vote is its own to reveal");
}

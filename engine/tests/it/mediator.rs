//! A mediator at work: what it signs, what it asks for, and what it never does.

use std::{path::Path, sync::Arc};

use tribunal_core::Deal;
use tribunal_engine::{
    bus::Message,
    effects::outgoing,
    mediator::Mediator,
    partition::{Job, Partition, Settings},
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
    let store = Store::open(folder, Fsync::Never).unwrap();
    let settings = Settings { operator: key("operator"), domains: Vec::new(), recorded_time: false };
    let mut partition = Partition::new(store.clone(), settings, "DEALS").unwrap();
    let terms = TermsBuilder::new("a mediator at work").without_contract().appointed("m1", 1).build();
    let script = Script::new(terms);
    let claim = jobs::load("wordcount").unwrap().claim(1_000_000_000);
    let said = [
        script.proposed(Party::Client),
        script.agreed(Party::Provider),
        script.result_submitted(claim),
        script.disputed("show me"),
    ];
    for (index, envelope) in said.iter().enumerate() {
        let out = outgoing(envelope).unwrap();
        let message = Message {
            stream_sequence: index as u64 + 1,
            subject: out.subject,
            payload: out.payload,
            at: Timestamp::from_s(START_S + index as u64),
            recorded_at: None,
            message_id: None,
            stream_created_us: 1,
            incarnation: 0,
        };
        let processed = partition.process(vec![Job::Message(message)]).unwrap();
        assert!(processed.refused.is_empty(), "{:?}", processed.refused);
    }
    let deal = load(&store, &script.terms().deal_id()).unwrap().unwrap();
    assert_eq!(deal.state(), "disputed");
    (store, deal)
}

fn mediator(store: &Store, source: Arc<dyn ArtifactSource>) -> Mediator {
    let verifier = Arc::new(Service::new(OperatorLimits::default(), vec![Arc::clone(&source)]));
    Mediator::new(key("m1"), store.clone(), verifier, source)
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
    match only(mediator(&store, Arc::new(Broken)).judge(&deal, 0).unwrap()) {
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
    let said = mediator(&store, Arc::new(MemorySource::new())).judge(&deal, 0).unwrap();
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
    let first = mediator(&store, Arc::new(Broken)).judge(&deal, 0).unwrap();
    // The disk is back, and verification would now say valid: the vote stays what it was, to the byte.
    let second = mediator(&store, jobs_folder()).judge(&deal, 0).unwrap();
    assert_eq!(first, second);
    drop(store);
    // Also after a restart.
    let store = Store::open(folder.path(), Fsync::Never).unwrap();
    assert_eq!(mediator(&store, jobs_folder()).judge(&deal, 0).unwrap(), first);
}

#[test]
fn another_mediator_or_round_gets_no_vote() {
    let folder = tempfile::tempdir().unwrap();
    let (store, deal) = disputed(folder.path());
    assert!(mediator(&store, jobs_folder()).judge(&deal, 1).unwrap().is_empty(), "round 1 has not begun");
    let source = jobs_folder();
    let verifier = Arc::new(Service::new(OperatorLimits::default(), vec![Arc::clone(&source)]));
    let stranger = Mediator::new(key("m2"), store, verifier, source);
    assert!(stranger.judge(&deal, 0).unwrap().is_empty(), "m2 is not on the panel");
}

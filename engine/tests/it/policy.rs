//! The operator's policy at the door: what the writer refuses before it begins a deal.

use std::{path::Path, sync::Arc};

use tribunal_core::ChainReport;
use tribunal_engine::{
    accounts,
    bus::Message,
    config::PolicyConfig,
    effects::outgoing,
    outbox,
    partition::{Job, Partition, Processed, Settings},
    policy::Preflight,
    store::{Fsync, Store},
};
use tribunal_events::{B256, Digest, Envelope, Party, ReceiptStatus, Timestamp};
use tribunal_fixtures::{START_S, Script, TermsBuilder, chain, keys};
use tribunal_verifiers::OperatorLimits;

/// A writer without a bus, that judges as m1 or not at all.
struct Writer {
    store: Store,
    partition: Partition,
    sequence: u64,
}

impl Writer {
    fn new(folder: &Path, preflight: Option<Preflight>) -> Self {
        let store = Store::open(folder, Fsync::Never).unwrap();
        let settings = Settings {
            operator: keys::key("operator"),
            domains: vec![chain::domain()],
            recorded_time: false,
            preflight: preflight.map(Arc::new),
        };
        let partition = Partition::new(store.clone(), settings, "DEALS").unwrap();
        Self { store, partition, sequence: 0 }
    }

    fn say(&mut self, second: u64, envelope: &Envelope) -> Processed {
        self.sequence += 1;
        let out = outgoing(envelope).unwrap();
        let message = Message {
            stream_sequence: self.sequence,
            subject: out.subject,
            payload: out.payload,
            at: Timestamp::from_s(START_S + second),
            recorded_at: None,
            message_id: None,
            stream_created_us: 1,
            incarnation: 0,
        };
        self.partition.process(vec![Job::Message(message)]).unwrap()
    }
}

fn preflight() -> Preflight {
    Preflight {
        policy: PolicyConfig::default(),
        limits: OperatorLimits::default(),
        mediators: vec![keys::address("m1")],
    }
}

/// Six fuel allowed where the job asks for more.
fn small() -> Preflight {
    Preflight { limits: OperatorLimits { fuel_max: 6, ..OperatorLimits::default() }, ..preflight() }
}

fn script(mediator: &str) -> Script {
    Script::new(TermsBuilder::new("at the door").appointed(mediator, 0).build())
}

#[test]
fn a_deal_that_our_mediator_would_not_judge_never_begins() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::new(folder.path(), Some(small()));
    let proposed = script("m1").proposed(Party::Client);
    let processed = writer.say(0, &proposed);
    assert!(processed.records.is_empty() && processed.effects.is_empty());
    assert_eq!(processed.refused[0].reason_code, "policy");
    assert!(processed.refused[0].reason.contains("this operator allows 6"), "{}", processed.refused[0].reason);
    assert_eq!(processed.receipts[0].status, ReceiptStatus::Refused as i32);
    assert_eq!(processed.receipts[0].reason_code, "policy");
    assert!(writer.store.head(&script("m1").terms().deal_id()).unwrap().is_none());
    // Somebody else's mediator is somebody else's business.
    assert_eq!(writer.say(1, &script("m2").proposed(Party::Client)).records.len(), 1);
}

#[test]
fn what_the_rules_refuse_keeps_its_own_reason_and_what_has_begun_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let script = script("m1");
    let mut writer = Writer::new(&folder.path().join("a"), Some(preflight()));
    assert_eq!(writer.say(0, &script.proposed(Party::Client)).records.len(), 1);
    assert_eq!(writer.say(1, &script.proposed(Party::Provider)).refused[0].reason_code, "already-proposed");
    drop(writer);
    // A stricter policy after a restart has no say in a deal that is there.
    let mut writer = Writer::new(&folder.path().join("a"), Some(small()));
    writer.sequence = 2;
    assert_eq!(writer.say(2, &script.agreed(Party::Provider)).records.len(), 1);
    // Without a policy all is admitted.
    let mut writer = Writer::new(&folder.path().join("b"), None);
    assert_eq!(writer.say(0, &script.proposed(Party::Client)).records.len(), 1);
}

#[test]
fn gas_is_kept_with_the_step_that_took_it_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::new(folder.path(), None);
    let script = script("m1");
    writer.say(0, &script.proposed(Party::Client));
    let effects = writer.say(1, &script.agreed(Party::Provider)).effects;
    let (_, kind) = outbox::decode(&effects[0].payload).unwrap();
    let effect_id = Digest::new(effects[0].id);
    let report = |gas_used| {
        let report = ChainReport {
            effect_id,
            step: kind.step(),
            transaction: B256::repeat_byte(7),
            block: 1,
            failure: None,
            block_time_s: None,
        };
        Job::Report { deal_id: effects[0].deal_id, report, gas_used }
    };
    assert_eq!(accounts::gas(&writer.store, &effect_id).unwrap(), None);
    writer.partition.process(vec![report(123_456)]).unwrap();
    // Performed again after a crash: nothing is recorded, and nothing is counted.
    writer.partition.process(vec![report(999)]).unwrap();
    let gas = accounts::gas(&writer.store, &effect_id).unwrap().unwrap();
    assert_eq!((gas.gas_used, gas.step.as_str()), (123_456, "open"));
    assert_eq!((gas.deal_id, gas.transaction), (script.terms().deal_id(), B256::repeat_byte(7)));
}

//! What another policy would have changed.

use tribunal_engine::{
    audit::{Against, AgainstReport, AuditOptions, Change, Policy},
    store::Store,
    view::PayoutView,
};
use tribunal_events::{Amount, Claim, Outcome, Party, VerdictKind, proto};
use tribunal_fixtures::{START_S, Script, TermsBuilder, keys, money::Money};
use tribunal_verifiers::{MemorySource, OperatorLimits, Request, Service};

use super::{audited, policy};
use crate::audit::{Engine, caught, cheated, drawn, played, script, vote, wordcount};

/// What the policy would change; the record must be clean whatever it says.
fn against(store: &Store, policy: &Policy, source: &MemorySource) -> AgainstReport {
    let service = Service::new(policy.limits(OperatorLimits::default()), Vec::new());
    let against = Against { policy, service: &service, source };
    let report = audited(store, AuditOptions { against: Some(against), ..AuditOptions::default() });
    assert!(report.is_clean(), "{:#?}", report.discrepancies);
    let found = report.against.unwrap();
    assert_eq!(found.policy, policy.digest());
    for change in &found.changed {
        assert!(change.verdict_differs || change.payouts_differ);
        for judged in [&change.recorded, &change.policy] {
            let sum = |of: fn(&PayoutView) -> Amount| {
                judged.payouts.iter().fold(Amount::ZERO, |sum, payout| sum.checked_add(of(payout)).unwrap())
            };
            assert_eq!(sum(|it| it.locked), sum(|it| it.paid), "{change:#?}");
        }
    }
    found
}

fn change<'a>(found: &'a AgainstReport, script: &Script) -> &'a Change {
    let deal_id = script.terms().deal_id();
    found
        .changed
        .iter()
        .find(|it| it.deal_id == deal_id)
        .unwrap_or_else(|| panic!("no change of {deal_id}: {found:#?}"))
}

/// Nets by role as the independent table of the fixtures has them.
#[track_caller]
fn assert_money(change: &Change, money: &Money, outcome: Outcome, voters: usize) {
    let net = money.net(outcome, 1, voters);
    let of = |role: &str| -> i128 {
        let of = change.policy.payouts.iter().filter(|it| it.role == role);
        of.map(|it| it.net.parse::<i128>().unwrap()).sum()
    };
    let found = ["client", "provider", "mediator", "treasury"].map(of);
    assert_eq!(found, [net.client, net.provider, net.mediators, net.treasury], "{change:#?}");
    assert_eq!(change.policy.outcome, outcome.word());
}

#[test]
fn a_policy_that_says_nothing_changes_nothing() {
    let (engine, _) = played();
    let found = against(&engine.store, &policy(""), &MemorySource::new());
    assert_eq!((found.deals, found.open, found.changed_count, found.not_comparable_count), (5, 1, 0, 0));
}

#[test]
fn another_comparator_gives_other_verdicts_and_other_money() {
    let (engine, source) = played();
    let lenient = policy("[verification]\ncomparator = { kind = \"ignore_lines\", patterns = [\"\"] }\n");
    let found = against(&engine.store, &lenient, &source);
    assert_eq!((found.deals, found.changed_count), (5, 1), "{found:#?}");
    let it = change(&found, &caught());
    assert!(it.verdict_differs && it.payouts_differ);
    assert_eq!((it.recorded.outcome, it.policy.reason_code.as_str()), ("invalid", "ok"));
    assert_money(it, &Money::of(caught().terms().message()), Outcome::Valid, 1);
    // What nobody can verify is said, and is no change.
    let found = against(&engine.store, &lenient, &MemorySource::new());
    assert_eq!((found.changed_count, found.not_comparable_count), (0, 2), "{found:#?}");
    assert!(found.not_comparable.iter().all(|it| it.why.starts_with("nobody serves blake3:")), "{found:#?}");
}

#[test]
fn a_cheat_that_was_accepted_would_have_been_caught() {
    let mut engine = Engine::new();
    let (job, source) = cheated();
    let (fooled, left) = (script(&TermsBuilder::new("fooled")), script(&TermsBuilder::new("left").without_contract()));
    let honest = script(&TermsBuilder::new("honest"));
    engine.begin(&fooled, 0, Some(job.claim(1)));
    engine.say(3, &fooled.accepted());
    engine.begin(&left, 10, Some(job.claim(1)));
    engine.begin(&honest, 20, Some(wordcount().0.claim(1)));
    engine.say(23, &honest.accepted());
    // The time to judge goes by while others go on.
    let late = script(&TermsBuilder::new("late").agree_by_s(START_S + 2_000));
    engine.begin(&late, 700, None);

    let found = against(&engine.store, &policy(""), &source);
    assert_eq!(found.changed_count, 0);
    let found = against(&engine.store, &policy("[audit]\ndispute = \"all\"\n"), &source);
    assert_eq!((found.deals, found.changed_count), (3, 2), "{found:#?}");
    for (it, recorded) in [(&fooled, "accepted"), (&left, "judge-timeout")] {
        let change = change(&found, it);
        assert_eq!((change.recorded.outcome, change.policy.reason_code.as_str()), (recorded, "output-differs"));
        // Nobody judged, so the mediators' fee goes to the treasury.
        assert_money(change, &Money::of(it.terms().message()), Outcome::Invalid, 0);
    }
}

#[test]
fn recorded_votes_are_counted_under_another_quorum_and_other_weights() {
    let mut engine = Engine::new();
    let (job, _) = wordcount();
    let it = drawn();
    engine.begin(&it, 0, Some(job.claim(1)));
    engine.say(3, &it.disputed("doubt"));
    engine.say(4, &it.seed_revealed(Party::Provider));
    engine.say(5, &it.seed_revealed(Party::Client));
    let deal = tribunal_engine::replay::load(&engine.store, &it.terms().deal_id()).unwrap().unwrap();
    let dissenter = deal.dispute().unwrap().round.as_ref().unwrap().panel()[0];
    engine.judge(&it, 6, &|key| match key.address() == dissenter {
        true => it.vote(key, 0, VerdictKind::Invalid, 1, "output-differs"),
        false => it.vote(key, 0, VerdictKind::Valid, 1, "ok"),
    });
    let nothing = MemorySource::new();
    // Three of three: another panel would have been drawn.
    let found = against(&engine.store, &policy("[mediation]\nquorum = 3\n"), &nothing);
    assert_eq!((found.changed_count, found.not_comparable_count), (0, 1), "{found:#?}");
    assert!(found.not_comparable[0].why.contains("2 valid, 1 invalid"), "{found:#?}");
    // Two of three as recorded.
    let found = against(&engine.store, &policy("[mediation]\nquorum = 2\n"), &nothing);
    assert_eq!((found.deals, found.changed_count), (1, 0), "{found:#?}");
    // One voice that weighs more than the two others.
    let weights = format!("[mediation]\nquorum = 3\nweights = {{ \"{dissenter:#x}\" = 3 }}\n");
    let found = against(&engine.store, &policy(&weights), &nothing);
    let changed = change(&found, &it);
    assert_eq!((changed.recorded.outcome, changed.policy.reason_code.as_str()), ("valid", "output-differs"));
    assert_money(changed, &Money::of(it.terms().message()), Outcome::Invalid, 3);
}

#[test]
fn another_settlement_moves_other_money() {
    let (engine, _) = played();
    let text = "[settlement]\nvictim_bps = 7000\nfee_bps = 100\nmediation_fee = \"100001\"\nsubmit_collateral = 7\n\
                judge_collateral = 9\nresults_collateral_multiple = 0.5\n";
    let found = against(&engine.store, &policy(text), &MemorySource::new());
    // All that moved money; what was withdrawn locked other sums.
    assert_eq!((found.deals, found.changed_count), (5, 5), "{found:#?}");
    let money = |script: &Script| Money {
        victim_bps: 7000,
        fee_bps: 100,
        f: 100_001,
        s: 7,
        j: 9,
        c: Money::of(script.terms().message()).c / 2,
        ..Money::of(script.terms().message())
    };
    for (it, outcome, voters) in [(caught(), Outcome::Invalid, 1), (drawn(), Outcome::Valid, 3)] {
        let changed = change(&found, &it);
        assert!(!changed.verdict_differs);
        assert_money(changed, &money(&it), outcome, voters);
    }
    let free = against(&engine.store, &policy("[settlement]\npublic_good = true\n"), &MemorySource::new());
    let accepted = script(&TermsBuilder::new("accepted"));
    let money = Money { fee_bps: 0, ..Money::of(accepted.terms().message()) };
    assert_money(change(&free, &accepted), &money, Outcome::Accepted, 0);
}

/// A majority of liars convicted an honest provider.
fn outvoted() -> (Engine, Script, MemorySource) {
    let mut engine = Engine::new();
    let (honest, mut source) = wordcount();
    let (lie, others) = cheated();
    for (_, bytes) in &lie.expected {
        source.add(bytes.clone());
    }
    let it = script(&TermsBuilder::new("outvoted").majority());
    engine.begin(&it, 0, None);
    let replicators = ["r1", "r2", "r3"].map(keys::key);
    for key in &replicators[..2] {
        engine.say(1, &it.replica_submitted(key, lie.claim(1)));
    }
    engine.say(1, &it.replica_submitted(&replicators[2], honest.claim(1)));
    engine.say(2, &it.result_submitted(honest.claim(1)));
    engine.say(3, &it.disputed("others say otherwise"));
    let parsed = |claim: &proto::Claim| std::sync::Arc::new(Claim::parse(claim).unwrap());
    let replicas = [&lie, &lie, &honest].map(|job| parsed(&job.claim(1)));
    let replicas: Vec<_> = replicators.iter().map(|key| key.address()).zip(replicas).collect();
    let service = Service::new(OperatorLimits::default(), vec![std::sync::Arc::new(others)]);
    let request = Request::for_deal(it.terms(), &parsed(&honest.claim(1)), &replicas);
    let verdict = service.verify(&request).unwrap();
    assert_eq!((verdict.verdict, verdict.reason.code.as_str()), (VerdictKind::Invalid, "outvoted"));
    let m1 = keys::key("m1");
    engine.say(4, &it.verdict_given(&m1, &vote(it.terms(), &m1, &verdict)));
    (engine, it, source)
}

#[test]
fn a_majority_of_liars_loses_to_running_the_job_again() {
    let (engine, it, source) = outvoted();
    let found = against(&engine.store, &policy("[verification]\nmethod = \"reexecution\"\n"), &source);
    let changed = change(&found, &it);
    assert_eq!((changed.recorded.outcome, changed.policy.outcome), ("invalid", "valid"));
    assert_money(changed, &Money::of(it.terms().message()), Outcome::Valid, 1);
    // The same votes under a rule that asks for all three.
    let rule = policy("[verification]\nrule = { kind = \"quorum\", quorum = 3 }\n");
    let found = against(&engine.store, &rule, &source);
    assert_eq!(change(&found, &it).policy.outcome, "inconclusive");
    // And where the policy is about other methods alone it stands.
    let text = "[verification]\nmethod = \"reexecution\"\nonly_kind = \"proof\"\n";
    assert_eq!(against(&engine.store, &policy(text), &source).changed_count, 0);
}

#[test]
fn a_limit_of_the_policy_is_its_word_and_time_is_not() {
    let (engine, source) = played();
    let found = against(&engine.store, &policy("[verification]\nfuel_max = 10\n"), &source);
    for it in [caught(), drawn()] {
        let changed = change(&found, &it);
        assert_eq!((changed.policy.outcome, changed.policy.reason_code.as_str()), ("inconclusive", "operator-limit"));
    }
    let found = against(&engine.store, &policy("[verification]\nwall_ms_max = 0\n"), &source);
    // Whether a job is cut off in time or not: a slow machine changes nothing.
    assert_eq!(found.changed_count, 0, "{found:#?}");
}

//! Every code of a rejection, once at least; a refused event leaves no trace ([`Scene::refused`] looks).

use tribunal_core::{Context, Input, Rejection, decide};
use tribunal_events::{
    Address, B256, Domain, Envelope, Foreign, ForeignCall, ForeignRole, ForeignSaid, Marketplace, MoveAction, Party,
    Timestamp, VerdictKind, proto, proto::event::Kind,
};
use tribunal_fixtures::{Script, TermsBuilder, World, keys};

use crate::scene::{Scene, claim, key, last_us, next_us};

fn terms() -> TermsBuilder {
    TermsBuilder::new("rejections")
}

fn panel() -> TermsBuilder {
    terms().drawn(&["m1", "m2", "m3"], 2, 2, 0)
}

/// A drawn panel of two of three: its members, and who was not drawn.
fn drawn() -> (Scene, Vec<&'static str>, &'static str) {
    let scene = Scene::new(panel()).draw();
    let round = scene.deal().dispute().and_then(|it| it.round.clone()).expect("a panel");
    let (on, off): (Vec<_>, Vec<_>) =
        ["m1", "m2", "m3"].into_iter().partition(|name| round.panel().contains(&keys::address(name)));
    (scene, on, off[0])
}

#[test]
fn a_deal_begins_with_a_proposal() {
    let scene = Scene::new(terms().without_contract());
    scene.refused("unknown-deal", |it| it.accepted());
}

#[test]
fn a_deal_is_proposed_once() {
    Scene::new(terms()).agree().refused("already-proposed", |it| it.proposed(Party::Provider));
}

#[test]
fn terms_of_another_operator_are_not_ours() {
    let foreign = terms().edit(|terms| {
        if let Some(members) = &mut terms.members {
            members.operator = keys::address("stranger").to_vec();
        }
    });
    Scene::new(foreign).refused("foreign-operator", |it| it.proposed(Party::Client));
}

#[test]
fn terms_of_another_contract_are_not_served() {
    let foreign = terms().edit(|terms| {
        if let Some(settlement) = &mut terms.settlement {
            settlement.chain_id = 1;
        }
    });
    Scene::new(foreign).refused("foreign-contract", |it| it.proposed(Party::Client));
}

#[test]
fn everybody_has_a_part_and_no_other() {
    let stranger = key("stranger");
    let by = |key: &tribunal_events::SigningKey, kind: Kind| {
        let key = key.clone();
        move |it: &Script| it.say(kind, &key)
    };
    let scene = Scene::new(terms());
    let proposal = Kind::Proposed(scene.script.proposed_message(Party::Client));
    let scene = scene.refused("not-allowed", by(&stranger, proposal));
    let scene = scene.say(|it| it.proposed(Party::Client));
    let consent = Kind::Agreed(scene.script.agreed_message(Party::Provider));
    let scene = scene.refused("not-allowed", by(&stranger, consent)).say(|it| it.agreed(Party::Provider));
    let result = Kind::ResultSubmitted(scene.script.result_message(claim()));
    let scene = scene.refused("not-allowed", by(&key("client"), result));
    let replica = Kind::ReplicaSubmitted(proto::ReplicaSubmitted { claim: Some(claim()) });
    let scene = scene.refused("not-allowed", by(&key("r1"), replica)).say(|it| it.result_submitted(claim()));
    let judgements = [Kind::Accepted(proto::Accepted::default()), Kind::Disputed(proto::Disputed::default())];
    let scene = judgements.into_iter().fold(scene, |scene, kind| {
        let scene = scene.refused("not-allowed", by(&stranger, kind.clone()));
        scene.refused("not-allowed", by(&key("provider"), kind))
    });
    let withdrawal = Kind::Withdrawn(proto::Withdrawn::default());
    let scene = scene.refused("not-allowed", by(&stranger, withdrawal)).say(|it| it.disputed("doubt"));
    let seed = Kind::SeedRevealed(proto::SeedRevealed { seed: vec![1; 32], move_signature: Vec::new() });
    scene.refused("not-allowed", by(&stranger, seed));
}

#[test]
fn a_proposer_cannot_agree_with_itself() {
    let scene = Scene::new(terms()).say(|it| it.proposed(Party::Client));
    // It has consented already, so that this is a second word in the same place.
    scene.refused("equivocation", |it| it.agreed(Party::Client));
}

#[test]
fn only_the_engine_records_what_the_engine_records() {
    let kinds = [
        Kind::PanelDrawn(proto::PanelDrawn { seed: vec![0; 32], ..Default::default() }),
        Kind::VerdictReached(proto::VerdictReached { outcome: 2, ..Default::default() }),
        Kind::DeadlineElapsed(proto::DeadlineElapsed { deadline: "judge".into(), ..Default::default() }),
        Kind::ChainObserved(proto::ChainObserved { effect_id: vec![0; 32], ..Default::default() }),
        Kind::Settled(proto::Settled { outcome: 1, ..Default::default() }),
    ];
    // Not even with the operator's key, for what is sent is not what the engine decided.
    for (kind, name) in kinds.iter().flat_map(|kind| ["provider", "operator"].map(|name| (kind.clone(), name))) {
        Scene::new(terms()).submit().refused("engine-only", |it| it.say(kind, &key(name)));
    }
}

#[test]
fn what_another_marketplace_said_is_never_taken_from_anybody() {
    let foreign = Foreign {
        marketplace: Marketplace::Lilypad,
        chain_id: 1,
        storage: Address::repeat_byte(1),
        foreign_id: "Qm".into(),
        contract: Address::repeat_byte(1),
        role: ForeignRole::Storage,
        block: 1,
        block_hash: B256::ZERO,
        block_time_s: None,
        said: ForeignSaid::Answer { call: ForeignCall::GetDeal, data: Vec::new() },
    };
    let context = Context { now: Timestamp::from_s(1), operator: key("operator").address(), domains: &[] };
    for name in ["operator", "provider"] {
        let envelope = Envelope::sign(&foreign.event(), &Domain::default(), &key(name)).expect("a deal id");
        let signed = envelope.parse().expect("well-formed").authenticate(&Domain::default()).expect("signed");
        let refused = decide(None, &Input::Said(&signed), &context).expect_err("only an import records it");
        assert_eq!(refused.code(), "engine-only");
    }
}

#[test]
fn what_comes_out_of_turn_is_refused_and_taken_in_its_turn() {
    let scene = Scene::new(terms()).say(|it| it.proposed(Party::Client));
    let scene = scene.refused("wrong-state", |it| it.result_submitted(claim()));
    let scene = scene.say(|it| it.agreed(Party::Provider)).refused("wrong-state", |it| it.accepted());
    let scene = scene.say(|it| it.result_submitted(claim()));
    let scene = scene.refused("wrong-state", |it| it.seed_revealed(Party::Client));
    let early = scene.vote("m1", VerdictKind::Valid, "test");
    let scene = scene.refused("wrong-state", |it| it.verdict_given(&key("m1"), &early)).say(|it| it.accepted());
    scene.refused("wrong-state", |it| it.withdrawn(Party::Client));
}

#[test]
fn a_decided_deal_that_is_not_settled_yet_takes_nothing_either() {
    let scene = Scene::in_world(World::new().passive(), terms().without_contract()).submit().say(|it| it.accepted());
    assert!(scene.deal().is_settled(), "without a contract nothing is waited for");
    let mut scene = Scene::in_world(World::new().passive(), terms()).agree();
    let report = tribunal_core::ChainReport {
        effect_id: scene.world.effects()[0].1.id,
        step: "open".into(),
        transaction: B256::ZERO,
        block: 1,
        failure: None,
        block_time_s: None,
    };
    let id = scene.id();
    scene.world.report(id, report);
    let scene = scene.say(|it| it.result_submitted(claim())).say(|it| it.accepted());
    assert_eq!(scene.deal().state(), "decided");
    scene.refused("wrong-state", |it| it.withdrawn(Party::Client));
}

#[test]
fn votes_of_the_other_protocol_are_refused() {
    let scene = Scene::new(terms()).dispute();
    let vote = scene.vote("m1", VerdictKind::Valid, "test");
    let scene = scene.refused("wrong-state", |it| it.vote_committed(&key("m1"), &vote));
    scene.refused("wrong-state", |it| it.vote_revealed(&key("m1"), &vote));
    let (scene, on, _) = drawn();
    let vote = scene.vote(on[0], VerdictKind::Valid, "test");
    scene.refused("wrong-state", |it| it.verdict_given(&key(on[0]), &vote));
}

#[test]
fn a_late_agreement_is_refused() {
    let scene = Scene::new(terms()).say(|it| it.proposed(Party::Client)).at(next_us(last_us(300)));
    scene.refused("too-late", |it| it.agreed(Party::Provider));
}

#[test]
fn mediators_wait_for_the_draw_and_for_each_other() {
    let scene = Scene::new(panel()).dispute();
    let vote = scene.vote("m1", VerdictKind::Valid, "test");
    scene.refused("too-early", |it| it.vote_committed(&key("m1"), &vote));
    let (scene, on, _) = drawn();
    let scene = scene.commit(on[0], VerdictKind::Valid);
    let vote = scene.vote(on[0], VerdictKind::Valid, "test");
    scene.refused("too-early", |it| it.vote_revealed(&key(on[0]), &vote));
}

#[test]
fn terms_are_signed_by_the_sender() {
    let mut message = Scene::new(terms()).script.proposed_message(Party::Client);
    message.terms_signature = Scene::new(terms()).script.terms_signature(Party::Provider);
    Scene::new(terms()).refused("terms-signature", |it| it.say(Kind::Proposed(message), &key("client")));
}

#[test]
fn terms_signed_for_other_money_are_not_signed() {
    let other = Scene::new(terms().fixed(1)).script.terms_signature(Party::Client);
    let mut message = Scene::new(terms()).script.proposed_message(Party::Client);
    message.terms_signature = other;
    Scene::new(terms()).refused("terms-signature", |it| it.say(Kind::Proposed(message), &key("client")));
}

#[test]
fn where_a_contract_holds_the_money_every_step_of_it_is_signed() {
    let mut message = Scene::new(terms()).script.proposed_message(Party::Client);
    message.move_signature.clear();
    Scene::new(terms()).refused("move-signature-missing", |it| it.say(Kind::Proposed(message), &key("client")));
    let missing: [fn(&Script) -> Envelope; 2] = [
        |it| it.say(Kind::Accepted(proto::Accepted::default()), &key("client")),
        |it| it.say(Kind::Disputed(proto::Disputed::default()), &key("client")),
    ];
    for say in missing {
        Scene::new(terms()).submit().refused("move-signature-missing", say);
    }
}

#[test]
fn a_move_is_signed_for_that_move_only() {
    let scene = Scene::new(terms()).submit();
    let dispute = scene.script.move_signature(Party::Client, MoveAction::Dispute, 0, B256::ZERO);
    let scene = scene.refused("move-signature", |it| {
        it.say(Kind::Accepted(proto::Accepted { move_signature: dispute }), &key("client"))
    });
    let providers = scene.script.move_signature(Party::Provider, MoveAction::Accept, 0, B256::ZERO);
    scene.refused("move-signature", |it| {
        it.say(Kind::Accepted(proto::Accepted { move_signature: providers }), &key("client"))
    });
}

#[test]
fn the_submitted_move_is_about_the_submitted_claim() {
    let scene = Scene::new(terms()).agree();
    let mut message = scene.script.result_message(claim());
    message.claim.as_mut().expect("set").instruction_count += 1;
    scene.refused("move-signature", |it| it.say(Kind::ResultSubmitted(message), &key("provider")));
}

#[test]
fn a_draw_needs_commitments_and_an_appointment_none() {
    let mut message = Scene::new(panel()).script.proposed_message(Party::Client);
    message.seed_commitment.clear();
    Scene::new(panel()).refused("seed-commitment", |it| it.say(Kind::Proposed(message), &key("client")));
    let mut message = Scene::new(terms()).script.proposed_message(Party::Client);
    message.seed_commitment = vec![1; 32];
    Scene::new(terms()).refused("seed-commitment", |it| it.say(Kind::Proposed(message), &key("client")));
}

#[test]
fn a_seed_is_the_one_committed_to() {
    let other = proto::SeedRevealed { seed: vec![7; 32], move_signature: Vec::new() };
    Scene::new(panel()).dispute().refused("seed", |it| it.say(Kind::SeedRevealed(other), &key("client")));
}

#[test]
fn a_provider_says_that_it_holds_the_inputs() {
    let scene = Scene::new(terms()).say(|it| it.proposed(Party::Client));
    let mut message = scene.script.agreed_message(Party::Provider);
    message.holds_inputs = false;
    scene.refused("inputs-not-held", |it| it.say(Kind::Agreed(message), &key("provider")));
}

#[test]
fn a_claim_fits_the_job() {
    let mut outside = claim();
    outside.outputs[0].path = "/etc/passwd".into();
    let mut proved = claim();
    (proved.proof, proved.public_inputs) = (proved.stdout.clone(), proved.stdout.clone());
    for wrong in [outside, proved] {
        Scene::new(terms()).agree().refused("claim", |it| it.result_submitted(wrong));
    }
}

#[test]
fn two_words_in_one_place_are_equivocation_whenever_the_second_comes() {
    let mut other = claim();
    other.instruction_count += 1;
    let scene = Scene::new(terms()).submit().refused("equivocation", |it| it.result_submitted(other));
    let scene = scene.say(|it| it.accepted());
    assert!(scene.deal().is_settled());
    scene.refused("equivocation", |it| it.disputed("on second thoughts"));
}

#[test]
fn a_mediator_that_changes_its_vote_equivocates() {
    let (scene, on, _) = drawn();
    let scene = scene.commit(on[0], VerdictKind::Valid);
    let other = scene.vote(on[0], VerdictKind::Invalid, "test");
    scene.refused("equivocation", |it| it.vote_committed(&key(on[0]), &other));
}

#[test]
fn only_the_panel_votes() {
    let (scene, _, off) = drawn();
    let vote = scene.vote(off, VerdictKind::Valid, "test");
    let scene = scene.refused("not-on-panel", |it| it.vote_committed(&key(off), &vote));
    let artifact = claim().stdout;
    scene.refused("not-on-panel", |it| it.artifact_requested(&key(off), 0, &artifact, Party::Provider));
}

#[test]
fn a_vote_counts_in_its_round() {
    let scene = Scene::new(terms()).dispute();
    let vote = scene.script.vote(&key("m1"), 1, VerdictKind::Valid, 1000, "test");
    scene.refused("wrong-round", |it| it.verdict_given(&key("m1"), &vote));
    let (scene, on, _) = drawn();
    let artifact = claim().stdout;
    scene.refused("wrong-round", |it| it.artifact_requested(&key(on[0]), 3, &artifact, Party::Provider));
}

#[test]
fn a_member_attests_once() {
    let artifact = claim().stdout;
    let scene = Scene::new(terms()).dispute();
    let scene = scene.say(|it| it.artifact_requested(&key("m1"), 0, &artifact, Party::Provider));
    let scene = scene.tick(next_us(last_us(120)));
    let scene = scene.say(|it| it.artifact_missing(&key("m1"), 0, &artifact, Party::Provider));
    // The engine would recognise the same event; the core refuses it on its own account.
    let again = scene.script.signed(&scene.script.artifact_missing(&key("m1"), 0, &artifact, Party::Provider));
    let rejection = decide(Some(scene.deal()), &Input::Said(&again), &scene.world.context()).expect_err("refused");
    assert_eq!(rejection.code(), "spoken-already");
}

#[test]
fn nobody_reveals_what_it_did_not_commit_to() {
    let (scene, on, _) = drawn();
    let scene = scene.commit(on[0], VerdictKind::Valid).tick(next_us(last_us(360)));
    let vote = scene.vote(on[1], VerdictKind::Valid, "test");
    let scene = scene.refused("not-committed", |it| it.vote_revealed(&key(on[1]), &vote));
    let other = scene.vote(on[0], VerdictKind::Invalid, "test");
    scene.refused("commitment-mismatch", |it| it.vote_revealed(&key(on[0]), &other));
}

#[test]
fn a_verdict_is_signed_by_its_mediator() {
    let scene = Scene::new(terms()).dispute();
    let others = scene.vote("m2", VerdictKind::Valid, "test");
    scene.refused("verdict-signature", |it| it.verdict_given(&key("m1"), &others));
}

#[test]
fn a_verdict_is_about_the_claimed_count() {
    let scene = Scene::new(terms()).dispute();
    let other = scene.script.vote(&key("m1"), 0, VerdictKind::Valid, 999, "test");
    scene.refused("instruction-count", |it| it.verdict_given(&key("m1"), &other));
}

#[test]
fn an_artifact_is_asked_for_once_and_only_if_the_deal_names_it() {
    let artifact = claim().stdout;
    let scene = Scene::new(terms()).dispute();
    let nobody = tribunal_events::ContentAddress::of(b"no part of the deal").to_string();
    let scene = scene.refused("not-requested", |it| it.artifact_requested(&key("m1"), 0, &nobody, Party::Provider));
    let scene = scene.refused("not-requested", |it| it.artifact_requested(&key("m1"), 0, &artifact, Party::Client));
    let scene = scene.refused("not-requested", |it| it.artifact_missing(&key("m1"), 0, &artifact, Party::Provider));
    let scene = scene.refused("not-requested", |it| it.artifact_served(Party::Provider, &artifact));
    let scene = scene.say(|it| it.artifact_requested(&key("m1"), 0, &artifact, Party::Provider));
    let scene = scene.refused("too-early", |it| it.artifact_missing(&key("m1"), 0, &artifact, Party::Provider));
    let scene = scene.refused("not-allowed", |it| it.artifact_served(Party::Client, &artifact));
    let again = scene.script.signed(&scene.script.artifact_requested(&key("m1"), 0, &artifact, Party::Provider));
    let rejection = decide(Some(scene.deal()), &Input::Said(&again), &scene.world.context()).expect_err("refused");
    assert_eq!(rejection, Rejection::AlreadyRequested);
}

#[test]
fn withholding_is_attested_or_not_said() {
    for verdict in [VerdictKind::Valid, VerdictKind::Invalid, VerdictKind::Inconclusive] {
        let scene = Scene::new(terms()).dispute();
        let vote = scene.vote("m1", verdict, "withheld");
        scene.refused("withheld-unattested", |it| it.verdict_given(&key("m1"), &vote));
    }
}

#[test]
fn what_an_earlier_panel_attested_the_next_one_attests_again() {
    let artifact = claim().stdout;
    let scene = Scene::new(terms().drawn(&["m1", "m2", "m3"], 3, 2, 1)).draw();
    let scene = scene.say(|it| it.artifact_requested(&key("m1"), 0, &artifact, Party::Provider));
    let scene = scene.tick(next_us(last_us(120)));
    let attest =
        |scene: Scene, name, round| scene.say(|it| it.artifact_missing(&key(name), round, &artifact, Party::Provider));
    let scene = attest(attest(scene, "m1", 0), "m2", 0).tick(next_us(last_us(480)));
    assert_eq!(scene.round(), 1, "nobody voted");
    let vote = scene.vote("m3", VerdictKind::Invalid, "withheld");
    let scene = scene.say(|it| it.vote_committed(&key("m3"), &vote)).tick(next_us(last_us(720)));
    let scene = scene.refused("withheld-unattested", |it| it.vote_revealed(&key("m3"), &vote));
    let scene = attest(attest(scene, "m1", 1), "m3", 1);
    scene.say(|it| it.vote_revealed(&key("m3"), &vote));
}

#[test]
fn a_provider_is_not_blamed_for_what_the_client_withholds() {
    let input = tribunal_fixtures::jobs::load("wordcount").expect("the job").message.inputs[0].artifact.clone();
    let scene = Scene::new(terms()).dispute();
    let scene = scene.say(|it| it.artifact_requested(&key("m1"), 0, &input, Party::Client));
    let scene = scene.tick(next_us(last_us(120)));
    let scene = scene.say(|it| it.artifact_missing(&key("m1"), 0, &input, Party::Client));
    let vote = scene.vote("m1", VerdictKind::Invalid, "withheld");
    let scene = scene.refused("withheld-unattested", |it| it.verdict_given(&key("m1"), &vote));
    let vote = scene.vote("m1", VerdictKind::Valid, "withheld");
    scene.say(|it| it.verdict_given(&key("m1"), &vote));
}

#[test]
fn a_stranger_without_a_deal_learns_that_there_is_none() {
    let event = Scene::new(terms()).script;
    let event = event.signed(&event.accepted());
    let world = World::new();
    let rejection = decide(None, &Input::Said(&event), &world.context()).expect_err("refused");
    assert_eq!(rejection, Rejection::UnknownDeal(event.deal_id()));
}

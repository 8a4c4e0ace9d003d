use expect_test::{Expect, expect};
use tribunal_core::EffectKind;
use tribunal_events::{Outcome, Party, VerdictKind};
use tribunal_fixtures::{Judgement, TermsBuilder, World, jobs};

use crate::scene::{Scene, at, claim, key, last_us, next_us};

fn check(scene: Scene, expected: Expect) {
    expected.assert_eq(&scene.told());
    assert_eq!(scene.world.replayed(scene.id()).as_ref(), Some(scene.deal()), "replay equals live state");
}

fn terms() -> TermsBuilder {
    TermsBuilder::new("transitions")
}

fn panel() -> TermsBuilder {
    terms().drawn(&["m1", "m2", "m3"], 3, 2, 1)
}

#[test]
fn an_accepted_result_is_settled_by_the_contract() {
    check(
        Scene::new(terms()).submit().say(|it| it.accepted()),
        expect![[r#"
        client: proposed
        provider: agreed
        operator: chain_observed open
        provider: result_submitted
        operator: chain_observed submit
        client: accepted
        operator: chain_observed settle
        operator: settled
        = settled: accepted (accepted); client -1000000, provider 975000, mediators 0, treasury 25000
        effects: Open, Submit, Settle
    "#]],
    );
}

#[test]
fn without_a_contract_the_record_alone_settles() {
    check(
        Scene::new(terms().without_contract()).submit().say(|it| it.accepted()),
        expect![[r#"
        client: proposed
        provider: agreed
        provider: result_submitted
        client: accepted
        operator: settled
        = settled: accepted (accepted); client -1000000, provider 975000, mediators 0, treasury 25000
        effects: none
    "#]],
    );
}

#[test]
fn the_provider_may_propose_too() {
    let scene = Scene::new(terms()).say(|it| it.proposed(Party::Provider)).say(|it| it.agreed(Party::Client));
    check(
        scene,
        expect![[r#"
        provider: proposed
        client: agreed
        operator: chain_observed open
        = agreed
        effects: Open
    "#]],
    );
}

#[test]
fn a_deal_whose_money_cannot_be_locked_is_off() {
    let scene = Scene::in_world(World::new().failing("open", "insufficient balance"), terms()).agree();
    check(
        scene,
        expect![[r#"
        client: proposed
        provider: agreed
        operator: chain_observed open failed
        operator: settled
        = settled: agree-timeout (not-funded); client 0, provider 0, mediators 0, treasury 0
        effects: Open
    "#]],
    );
}

#[test]
fn nothing_is_taken_while_the_money_is_not_locked_and_no_time_passes_for_the_provider() {
    let scene = Scene::in_world(World::new().passive(), terms()).agree();
    assert_eq!(scene.world.next_deadline(scene.id()), None);
    let scene = scene.refused("not-funded", |it| it.result_submitted(claim()));
    check(
        scene.tick(at(100_000)),
        expect![[r#"
        client: proposed
        provider: agreed
        = agreed
        effects: Open
    "#]],
    );
}

#[test]
fn an_appointed_mediator_decides_alone() {
    check(
        Scene::new(terms()).dispute().judge("m1", VerdictKind::Valid),
        expect![[r#"
        client: proposed
        provider: agreed
        operator: chain_observed open
        provider: result_submitted
        operator: chain_observed submit
        client: disputed
        operator: panel_drawn round 0: m1
        operator: chain_observed dispute
        m1: verdict_given
        operator: verdict_reached valid (test) by m1
        operator: chain_observed settle
        operator: settled
        = settled: valid (test); client -1200003, provider 975000, mediators 200003, treasury 25000
        effects: Open, Submit, Dispute, Judge { round: 0 }, Publish, Settle
    "#]],
    );
    let scene = Scene::new(terms()).dispute().judge("m1", VerdictKind::Invalid);
    assert_eq!(scene.decided(), (Outcome::Invalid, "test"));
}

#[test]
fn an_appointed_mediator_that_cannot_tell_tries_as_often_as_agreed() {
    let scene = Scene::new(terms().appointed("m1", 1)).dispute();
    let scene = scene.judge("m1", VerdictKind::Inconclusive).judge("m1", VerdictKind::Inconclusive);
    check(
        scene,
        expect![[r#"
        client: proposed
        provider: agreed
        operator: chain_observed open
        provider: result_submitted
        operator: chain_observed submit
        client: disputed
        operator: panel_drawn round 0: m1
        operator: chain_observed dispute
        m1: verdict_given
        operator: panel_drawn round 1: m1
        m1: verdict_given
        operator: verdict_reached inconclusive (test) by m1
        operator: chain_observed settle
        operator: settled
        = settled: inconclusive (test); client -50000, provider -50000, mediators 100000, treasury 0
        effects: Open, Submit, Dispute, Judge { round: 0 }, Judge { round: 1 }, Publish, Settle
    "#]],
    );
}

#[test]
fn a_drawn_panel_commits_then_reveals_and_a_quorum_decides() {
    let scene = Scene::new(panel()).draw();
    let scene = ["m1", "m2", "m3"].into_iter().fold(scene, |scene, name| scene.commit(name, opinion(name)));
    let scene = ["m3", "m2", "m1"].into_iter().fold(scene, |scene, name| scene.reveal(name, opinion(name)));
    check(
        scene,
        expect![[r#"
        client: proposed
        provider: agreed
        operator: chain_observed open
        provider: result_submitted
        operator: chain_observed submit
        client: disputed
        operator: chain_observed dispute
        client: seed_revealed
        operator: chain_observed reveal-client
        provider: seed_revealed
        operator: panel_drawn round 0: m1 m2 m3
        operator: chain_observed reveal-provider
        m1: vote_committed
        m2: vote_committed
        m3: vote_committed
        m3: vote_revealed
        m2: vote_revealed
        m1: vote_revealed
        operator: verdict_reached invalid (test) by m1 m2 m3
        operator: chain_observed settle
        operator: settled
        = settled: invalid (test); client 1500000, provider -3200004, mediators 200001, treasury 1500003
        effects: Open, Submit, Dispute, Reveal { party: 1 }, Reveal { party: 2 }, Judge { round: 0 }, RevealVotes { round: 0 }, Publish, Settle
    "#]],
    );
}

fn opinion(name: &str) -> VerdictKind {
    if name == "m2" { VerdictKind::Valid } else { VerdictKind::Invalid }
}

#[test]
fn mediators_that_are_run_here_judge_by_themselves() {
    let world = World::new().running(&["m1", "m2", "m3"]).finding(VerdictKind::Valid, "ok");
    check(
        Scene::in_world(world, panel()).draw(),
        expect![[r#"
        client: proposed
        provider: agreed
        operator: chain_observed open
        provider: result_submitted
        operator: chain_observed submit
        client: disputed
        operator: chain_observed dispute
        client: seed_revealed
        operator: chain_observed reveal-client
        provider: seed_revealed
        operator: panel_drawn round 0: m1 m2 m3
        operator: chain_observed reveal-provider
        m1: vote_committed
        m2: vote_committed
        m3: vote_committed
        m1: vote_revealed
        m2: vote_revealed
        m3: vote_revealed
        operator: verdict_reached valid (ok) by m1 m2 m3
        operator: chain_observed settle
        operator: settled
        = settled: valid (ok); client -1200003, provider 975000, mediators 200001, treasury 25002
        effects: Open, Submit, Dispute, Reveal { party: 1 }, Reveal { party: 2 }, Judge { round: 0 }, RevealVotes { round: 0 }, Publish, Settle
    "#]],
    );
}

#[test]
fn a_panel_that_cannot_agree_is_drawn_again_and_then_inconclusive() {
    let all = [VerdictKind::Valid, VerdictKind::Invalid, VerdictKind::Inconclusive];
    let mut scene = Scene::new(panel()).draw();
    for _ in 0..2 {
        for (name, verdict) in ["m1", "m2", "m3"].into_iter().zip(all) {
            scene = scene.commit(name, verdict);
        }
        let votes: Vec<_> =
            ["m1", "m2", "m3"].into_iter().zip(all).map(|(name, it)| (name, scene.vote(name, it, "test"))).collect();
        for (name, vote) in votes {
            scene = scene.say(|it| it.vote_revealed(&key(name), &vote));
        }
    }
    check(
        scene,
        expect![[r#"
        client: proposed
        provider: agreed
        operator: chain_observed open
        provider: result_submitted
        operator: chain_observed submit
        client: disputed
        operator: chain_observed dispute
        client: seed_revealed
        operator: chain_observed reveal-client
        provider: seed_revealed
        operator: panel_drawn round 0: m1 m2 m3
        operator: chain_observed reveal-provider
        m1: vote_committed
        m2: vote_committed
        m3: vote_committed
        m1: vote_revealed
        m2: vote_revealed
        m3: vote_revealed
        operator: panel_drawn round 1: m1 m2 m3
        m1: vote_committed
        m2: vote_committed
        m3: vote_committed
        m1: vote_revealed
        m2: vote_revealed
        m3: vote_revealed
        operator: verdict_reached inconclusive (no-quorum) by m1 m2 m3
        operator: chain_observed settle
        operator: settled
        = settled: inconclusive (no-quorum); client -50000, provider -50000, mediators 99999, treasury 1
        effects: Open, Submit, Dispute, Reveal { party: 1 }, Reveal { party: 2 }, Judge { round: 0 }, RevealVotes { round: 0 }, Judge { round: 1 }, RevealVotes { round: 1 }, Publish, Settle
    "#]],
    );
}

#[test]
fn a_silent_member_is_left_out_of_the_next_draw_and_slashed() {
    let terms = terms().drawn(&["m1", "m2", "m7"], 2, 2, 1);
    let draws_m7 = |name: u32| {
        let world = World::new().running(&["m1", "m2"]).finding(VerdictKind::Valid, "ok");
        let nonce = blake3::hash(&name.to_be_bytes()).as_bytes().to_vec();
        let scene = Scene::in_world(world, terms.clone().edit(|terms| terms.nonce = nonce)).draw();
        let m7 = key("m7").address();
        let drawn = scene.deal().dispute().and_then(|it| it.round.clone()).is_some_and(|it| it.panel().contains(&m7));
        drawn.then_some(scene)
    };
    let scene = (0..).find_map(draws_m7).expect("a draw with m7");
    let (commit, mediate) = (last_us(360), last_us(480));
    let scene = scene.tick(commit).tick(next_us(commit)).tick(mediate).tick(next_us(mediate));
    let told = scene.told();
    let panel_without_m7 = "operator: panel_drawn round 1: m1 m2";
    assert!(told.contains("deadline_elapsed mediate, silent: m7") && told.contains(panel_without_m7), "{told}");
    assert_eq!(scene.decided(), (Outcome::Valid, "ok"));
    let silences = scene.world.effects().iter().filter(|(_, it)| it.kind == EffectKind::Silence { round: 0 });
    assert_eq!(silences.count(), 1);
}

#[test]
fn a_quorum_that_voted_decides_though_a_member_is_silent() {
    let scene = Scene::new(panel()).draw().commit("m1", VerdictKind::Invalid).commit("m2", VerdictKind::Invalid);
    let scene = scene.tick(next_us(last_us(360)));
    let scene = scene.reveal("m1", VerdictKind::Invalid).reveal("m2", VerdictKind::Invalid);
    check(
        scene.tick(next_us(last_us(480))),
        expect![[r#"
        client: proposed
        provider: agreed
        operator: chain_observed open
        provider: result_submitted
        operator: chain_observed submit
        client: disputed
        operator: chain_observed dispute
        client: seed_revealed
        operator: chain_observed reveal-client
        provider: seed_revealed
        operator: panel_drawn round 0: m1 m2 m3
        operator: chain_observed reveal-provider
        m1: vote_committed
        m2: vote_committed
        operator: deadline_elapsed commit
        m1: vote_revealed
        m2: vote_revealed
        operator: deadline_elapsed mediate, silent: m3
        operator: verdict_reached invalid (test) by m1 m2
        operator: chain_observed silence-0
        operator: chain_observed settle
        operator: settled
        = settled: invalid (test); client 1500000, provider -3200004, mediators 200002, treasury 1500002
        effects: Open, Submit, Dispute, Reveal { party: 1 }, Reveal { party: 2 }, Judge { round: 0 }, RevealVotes { round: 0 }, Silence { round: 0 }, Publish, Settle
    "#]],
    );
}

#[test]
fn silence_in_every_round_gives_everything_back() {
    let scene = Scene::new(panel()).draw();
    check(
        scene.tick(next_us(last_us(480))).tick(next_us(last_us(840))),
        expect![[r#"
        client: proposed
        provider: agreed
        operator: chain_observed open
        provider: result_submitted
        operator: chain_observed submit
        client: disputed
        operator: chain_observed dispute
        client: seed_revealed
        operator: chain_observed reveal-client
        provider: seed_revealed
        operator: panel_drawn round 0: m1 m2 m3
        operator: chain_observed reveal-provider
        operator: deadline_elapsed commit
        operator: deadline_elapsed mediate, silent: m1 m2 m3
        operator: panel_drawn round 1: m1 m2 m3
        operator: chain_observed silence-0
        operator: deadline_elapsed commit
        operator: deadline_elapsed mediate, silent: m1 m2 m3
        operator: verdict_reached mediate-timeout (mediators-silent) by
        operator: chain_observed silence-1
        operator: chain_observed settle
        operator: settled
        = settled: mediate-timeout (mediators-silent); client 0, provider 0, mediators 0, treasury 0
        effects: Open, Submit, Dispute, Reveal { party: 1 }, Reveal { party: 2 }, Judge { round: 0 }, RevealVotes { round: 0 }, Silence { round: 0 }, Judge { round: 1 }, RevealVotes { round: 1 }, Silence { round: 1 }, Settle
    "#]],
    );
}

#[test]
fn a_silent_client_has_accepted_and_a_silent_provider_has_lost() {
    let scene = Scene::new(panel()).dispute().say(|it| it.seed_revealed(Party::Provider)).tick(next_us(last_us(120)));
    assert_eq!(scene.decided(), (Outcome::Accepted, "seed-withheld"));
    let scene = Scene::new(panel()).dispute().say(|it| it.seed_revealed(Party::Client)).tick(next_us(last_us(120)));
    assert_eq!(scene.decided(), (Outcome::Invalid, "seed-withheld"));
    let scene = Scene::new(panel()).dispute().tick(next_us(last_us(120)));
    assert_eq!(scene.decided(), (Outcome::Accepted, "seed-withheld"), "who disputes must go on with it first");
}

#[test]
fn a_provider_that_serves_nothing_loses_by_attestation() {
    let artifact = claim().outputs[0].artifact.parse().expect("an address");
    let world = World::new().running(&["m1", "m2", "m3"]).judging(move |_, _| Judgement::Missing(artifact));
    let scene = Scene::in_world(world, panel()).draw();
    check(
        scene.tick(next_us(last_us(120))),
        expect![[r#"
        client: proposed
        provider: agreed
        operator: chain_observed open
        provider: result_submitted
        operator: chain_observed submit
        client: disputed
        operator: chain_observed dispute
        client: seed_revealed
        operator: chain_observed reveal-client
        provider: seed_revealed
        operator: panel_drawn round 0: m1 m2 m3
        operator: chain_observed reveal-provider
        m1: artifact_requested
        operator: deadline_elapsed availability
        m1: artifact_missing
        m2: artifact_missing
        m3: vote_committed
        m1: vote_committed
        m2: vote_committed
        m1: vote_revealed
        m2: vote_revealed
        m3: vote_revealed
        operator: verdict_reached invalid (withheld) by m1 m2 m3
        operator: chain_observed settle
        operator: settled
        = settled: invalid (withheld); client 1500000, provider -3200004, mediators 200001, treasury 1500003
        effects: Open, Submit, Dispute, Reveal { party: 1 }, Reveal { party: 2 }, Judge { round: 0 }, Judge { round: 0 }, Judge { round: 0 }, Judge { round: 0 }, RevealVotes { round: 0 }, Publish, Settle
    "#]],
    );
}

#[test]
fn a_client_that_serves_no_input_loses_by_attestation() {
    let input = jobs::load("wordcount").expect("the job").message.inputs[0].artifact.parse().expect("an address");
    let world = World::new().running(&["m1"]).judging(move |_, _| Judgement::Missing(input));
    let scene = Scene::in_world(world, terms()).dispute().tick(next_us(last_us(120)));
    assert_eq!(scene.decided(), (Outcome::Valid, "withheld"));
}

#[test]
fn an_artifact_that_is_served_is_judged() {
    let artifact: tribunal_events::ContentAddress = claim().outputs[0].artifact.parse().expect("an address");
    let world = World::new().running(&["m1"]).judging(move |deal, _| {
        let served = deal.dispute().is_some_and(|it| it.requests.values().any(|request| request.served));
        if served { Judgement::Verdict(VerdictKind::Valid, "ok".into()) } else { Judgement::Missing(artifact) }
    });
    let scene = Scene::in_world(world, terms()).dispute();
    check(
        scene.say(|it| it.artifact_served(Party::Provider, &claim().outputs[0].artifact)),
        expect![[r#"
        client: proposed
        provider: agreed
        operator: chain_observed open
        provider: result_submitted
        operator: chain_observed submit
        client: disputed
        operator: panel_drawn round 0: m1
        operator: chain_observed dispute
        m1: artifact_requested
        provider: artifact_served
        m1: verdict_given
        operator: verdict_reached valid (ok) by m1
        operator: chain_observed settle
        operator: settled
        = settled: valid (ok); client -1200003, provider 975000, mediators 200003, treasury 25000
        effects: Open, Submit, Dispute, Judge { round: 0 }, Judge { round: 0 }, Publish, Settle
    "#]],
    );
}

#[test]
fn replicators_are_heard_until_the_panel_is_at_work() {
    let scene = Scene::new(terms().majority()).agree().say(|it| it.replica_submitted(&key("r1"), claim()));
    let scene = scene.say(|it| it.result_submitted(claim())).say(|it| it.replica_submitted(&key("r2"), claim()));
    assert_eq!(scene.deal().replicas().map(|replicas| replicas.len()), Some(2));
    let scene = scene.say(|it| it.disputed("doubt"));
    scene.refused("wrong-state", |it| it.replica_submitted(&key("r3"), claim()));
}

#[test]
fn both_parties_can_withdraw_at_any_time_before_an_outcome() {
    let scenes = [
        Scene::new(panel()).say(|it| it.proposed(Party::Client)),
        Scene::new(panel()).agree(),
        Scene::new(panel()).submit(),
        Scene::new(panel()).dispute(),
        Scene::new(panel()).draw(),
    ];
    for scene in scenes {
        let state = scene.deal().state();
        let scene = scene.say(|it| it.withdrawn(Party::Client));
        assert_eq!(scene.deal().state(), state, "one alone ends nothing");
        let scene = scene.say(|it| it.withdrawn(Party::Provider));
        assert_eq!(scene.decided(), (Outcome::Withdrawn, "withdrawn"));
        assert_eq!(scene.net(), Default::default());
        assert!(scene.deal().is_settled());
    }
}

#[test]
fn an_event_said_twice_is_recorded_once() {
    let mut scene = Scene::new(terms()).submit();
    let (recorded, before) = (scene.world.records().len(), scene.deal().clone());
    for envelope in scene.world.records().iter().map(|it| it.envelope.clone()).collect::<Vec<_>>() {
        assert_eq!(scene.try_send(&envelope), Ok(tribunal_fixtures::Sent::Duplicate));
    }
    assert_eq!((scene.world.records().len(), scene.deal()), (recorded, &before));
}

#[test]
fn a_step_of_the_chain_reported_twice_is_recorded_once() {
    let mut scene = Scene::in_world(World::new().passive(), terms()).agree();
    let report = tribunal_core::ChainReport {
        effect_id: scene.world.effects()[0].1.id,
        step: "open".into(),
        transaction: tribunal_events::B256::repeat_byte(1),
        block: 7,
        failure: None,
        block_time_s: None,
    };
    let id = scene.id();
    scene.world.report(id, report.clone());
    let recorded = scene.world.records().len();
    scene.world.report(id, report);
    assert_eq!(scene.world.records().len(), recorded);
}

//! What holds whatever anybody says, in whatever order and at whatever time.

use std::collections::BTreeSet;

use proptest::prelude::*;
use tribunal_core::{ChainReport, Deal, Phase};
use tribunal_events::{Envelope, EventKind, Outcome, Party, VerdictKind, proto, proto::event::Kind};
use tribunal_fixtures::{Sent, TermsBuilder, World, money::Money};

use crate::scene::{Scene, claim, key, net};

/// One thing that anybody may try.
#[derive(Clone, Copy, Debug)]
struct Try {
    what: u8,
    /// Which party, mediator or variant.
    who: u8,
    how: u8,
    /// Time that passes first.
    wait_us: u64,
}

fn tries() -> impl Strategy<Value = Vec<Try>> {
    let wait_us = prop_oneof![4 => 0u64..30_000_000, 1 => 0u64..700_000_000];
    let one = (0u8..23, any::<u8>(), any::<u8>(), wait_us).prop_map(|(what, who, how, wait_us)| Try {
        what,
        who,
        how,
        wait_us,
    });
    // Half of the deals start in order, so that the later states are seen too.
    let ordered = (0usize..6).prop_map(|steps| {
        let step = |what, who| Try { what, who, how: 0, wait_us: 1_000_000 };
        [step(0, 0), step(1, 1), step(2, 0), step(4, 0), step(5, 0), step(5, 1)][..steps].to_vec()
    });
    (ordered, prop::collection::vec(one, 0..24)).prop_map(|(mut start, rest)| {
        start.extend(rest);
        start
    })
}

const MEDIATORS: [&str; 4] = ["m1", "m2", "m3", "m6"];
const VERDICTS: [VerdictKind; 3] = [VerdictKind::Valid, VerdictKind::Invalid, VerdictKind::Inconclusive];

fn terms(kind: u8) -> TermsBuilder {
    let terms = TermsBuilder::new("properties");
    let terms = if kind & 1 == 0 { terms } else { terms.without_contract() };
    let terms = if kind & 2 == 0 { terms } else { terms.metered(1, 800) };
    match kind >> 2 & 3 {
        0 => terms.appointed("m1", 1),
        1 => terms.drawn(&MEDIATORS, 3, 2, 1),
        2 => terms.drawn(&["m1", "m2", "m6"], 3, 2, 0),
        _ => terms.drawn(&MEDIATORS, 1, 1, 3),
    }
}

fn envelope(scene: &Scene, it: Try) -> Option<Envelope> {
    let script = &scene.script;
    let party = if it.who & 1 == 0 { Party::Client } else { Party::Provider };
    let mediator = key(MEDIATORS[usize::from(it.who) % MEDIATORS.len()]);
    let round = scene.world.deal(scene.id()).map_or(0, |_| scene.round());
    let verdict = VERDICTS[usize::from(it.how) % 3];
    let reason = if it.how & 64 == 0 { "test" } else { "withheld" };
    let vote = script.vote(&mediator, round + u32::from(it.how > 250), verdict, 1000, reason);
    let artifact = [claim().stdout, claim().outputs[0].artifact.clone()][usize::from(it.how & 1)].clone();
    Some(match it.what {
        0 => script.proposed(party),
        1 => script.agreed(party),
        2 => {
            let mut claim = claim();
            claim.instruction_count += u64::from(it.how & 1);
            script.result_submitted(claim)
        }
        3 => script.accepted(),
        4 => script.disputed("doubt"),
        5 => script.seed_revealed(party),
        6 => script.withdrawn(party),
        7 | 8 => script.vote_committed(&mediator, &vote),
        9 | 10 => script.vote_revealed(&mediator, &vote),
        11 => script.verdict_given(&mediator, &vote),
        12 => script.artifact_requested(&mediator, round, &artifact, Party::Provider),
        13 => script.artifact_missing(&mediator, round, &artifact, Party::Provider),
        14 => script.artifact_served(party, &artifact),
        15 => script.replica_submitted(&mediator, claim()),
        // Forgeries: what is another's to say, and what is the engine's.
        16 => script.say(Kind::Accepted(proto::Accepted::default()), &key("stranger")),
        17 => script.say(Kind::Settled(proto::Settled { outcome: 1, ..Default::default() }), &mediator),
        // The chain's doing: see `reorganise`.
        20.. => return None,
        // A repeat of what was recorded.
        18 => {
            let records = scene.world.records();
            records.get(usize::from(it.how) % records.len().max(1))?.envelope.clone()
        }
        _ => return None,
    })
}

/// The chain takes a step back, or tells again what it told before; now and then what is asked for has to wait.
fn reorganise(scene: &mut Scene, it: Try) -> Result<(), TestCaseError> {
    let id = scene.id();
    let Some(before) = scene.world.deal(id).cloned() else { return Ok(()) };
    if it.what == 22 {
        scene.world.hold(it.how & 1 == 0);
        return settled_alike(&before, scene);
    }
    let told = |record: &tribunal_fixtures::Record| match &record.kind {
        EventKind::ChainObserved { step, effect_id, transaction, block, failure, block_time_s } => Some(ChainReport {
            effect_id: *effect_id,
            step: step.clone(),
            transaction: *transaction,
            block: *block,
            failure: failure.clone(),
            block_time_s: *block_time_s,
        }),
        _ => None,
    };
    if it.what == 21 {
        let told: Vec<_> = scene.world.records().iter().filter_map(told).collect();
        let Some(again) = told.get(usize::from(it.how) % told.len().max(1)).cloned() else { return Ok(()) };
        let recorded = scene.world.records().len();
        scene.world.report(id, again);
        prop_assert_eq!(scene.world.records().len(), recorded, "what was told before changes nothing");
        return Ok(());
    }
    let taken: Vec<String> = before.taken().map(|(step, _)| step.to_owned()).collect();
    let Some(step) = taken.get(usize::from(it.who) % taken.len().max(1)) else { return Ok(()) };
    let (recorded, effects) = (scene.world.records().len(), scene.world.effects().len());
    let report = scene.world.undo(id, step);
    prop_assert!(scene.world.records().len() > recorded, "{step} was taken");
    prop_assert_eq!(scene.world.effects()[effects].1.kind.step(), step.clone(), "and is asked for again");
    let recorded = scene.world.records().len();
    scene.world.report(id, report);
    prop_assert_eq!(scene.world.records().len(), recorded, "once");
    settled_alike(&before, scene)
}

/// A settled deal may get another transaction, nothing else.
fn settled_alike(before: &Deal, scene: &Scene) -> Result<(), TestCaseError> {
    if let (Phase::Settled { decision, payouts, .. }, now) = (before.phase(), scene.deal().phase()) {
        let alike = matches!(now, Phase::Settled { decision: d, payouts: p, .. } if (d, p) == (decision, payouts));
        prop_assert!(alike, "terminal stays terminal: {now:?}");
    }
    Ok(())
}

/// What holds of a deal at any time.
fn holds(scene: &Scene) -> Result<(), TestCaseError> {
    let Some(deal) = scene.world.deal(scene.id()) else { return Ok(()) };
    let replayed = scene.world.replayed(scene.id());
    prop_assert_eq!(replayed.as_ref(), Some(deal), "replay equals live state");
    let snapshot = serde_json::to_string(deal).expect("a snapshot");
    let restored: Deal = serde_json::from_str(&snapshot).expect("its own snapshot");
    prop_assert_eq!(&restored, deal, "a snapshot is the state");
    prop_assert_eq!(deal.version() as usize, scene.world.records().len());
    let ids: BTreeSet<_> = scene.world.effects().iter().map(|(_, effect)| effect.id).collect();
    prop_assert_eq!(ids.len(), scene.world.effects().len(), "every effect has an id of its own");
    if let Phase::Settled { decision, payouts, .. } = deal.phase() {
        let sum = |amounts: Vec<tribunal_events::Amount>| {
            amounts.into_iter().fold(tribunal_events::U256::ZERO, |sum, amount| sum + amount.base_units())
        };
        let locked = sum(payouts.iter().map(|it| it.locked).collect());
        prop_assert_eq!(locked, sum(payouts.iter().map(|it| it.paid).collect()), "money is conserved");
        let money = Money::of(scene.script.terms().message());
        if decision.funded {
            let voters = decision.round.as_ref().map_or(0, |round| round.voters().len());
            prop_assert_eq!(net(deal), money.net(decision.outcome, decision.instruction_count, voters));
        } else {
            prop_assert_eq!(locked, tribunal_events::U256::ZERO);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_said_the_invariants_hold(kind in 0u8..16, ticks in any::<bool>(), tries in tries()) {
        let mut scene = Scene::new(terms(kind));
        for it in tries {
            scene.now = tribunal_events::Timestamp::from_us(scene.now.us() + it.wait_us);
            let before = scene.world.deal(scene.id()).cloned();
            if ticks || it.what >= 19 {
                let now = scene.now;
                scene.world.tick(now);
            }
            if let Some(envelope) = envelope(&scene, it) {
                let recorded = scene.world.records().len();
                let sent = scene.try_send(&envelope);
                if matches!(sent, Err(_) | Ok(Sent::Duplicate)) {
                    prop_assert_eq!(scene.world.records().len(), recorded, "what is not admitted leaves no trace");
                } else {
                    prop_assert_eq!(scene.try_send(&envelope), Ok(Sent::Duplicate));
                }
            }
            if let Some(before) = before.filter(Deal::is_settled) {
                prop_assert_eq!(scene.world.deal(scene.id()), Some(&before), "terminal stays terminal");
            }
            if it.what >= 20 {
                reorganise(&mut scene, it)?;
            }
            holds(&scene)?;
        }
    }

    #[test]
    fn an_honest_provider_never_nets_less_than_an_inconclusive_dispute(
        redraws in 0u32..=1,
        on_chain in any::<bool>(),
        liars in tries(),
    ) {
        let scene = honest_panel(redraws, on_chain, VerdictKind::Valid);
        let scene = play(scene, &liars, Party::Provider)?;
        let (net, money) = (net(scene.deal()), Money::of(scene.script.terms().message()));
        let least = money.net(Outcome::Inconclusive, 1000, 3).provider.min(money.net(Outcome::Valid, 1000, 3).provider);
        prop_assert!(net.provider >= least, "{} at {}\n{}", net.provider, scene.decided().1, scene.told());
    }

    #[test]
    fn a_cheat_is_never_paid_where_client_and_quorum_are_honest(
        redraws in 0u32..=1,
        on_chain in any::<bool>(),
        liars in tries(),
    ) {
        let scene = honest_panel(redraws, on_chain, VerdictKind::Invalid);
        let scene = play(scene, &liars, Party::Client)?;
        prop_assert!(net(scene.deal()).provider <= 0, "{}", scene.told());
        prop_assert!(net(scene.deal()).client >= Money::of(scene.script.terms().message()).net(Outcome::Inconclusive, 1000, 3).client);
    }
}

/// m1, m2 and m6 judge; m1 and m2 are honest, which is a quorum, and m6 is anybody's.
fn honest_panel(redraws: u32, on_chain: bool, truth: VerdictKind) -> Scene {
    let world = World::new().running(&["m1", "m2"]).finding(truth, "found");
    let terms = TermsBuilder::new("honest").drawn(&["m1", "m2", "m6"], 3, 2, redraws);
    Scene::in_world(world, if on_chain { terms } else { terms.without_contract() })
}

/// The honest party does its part at once, the others say and leave out what they like, until time has ended the deal.
fn play(mut scene: Scene, others: &[Try], honest: Party) -> Result<Scene, TestCaseError> {
    let start = |it: &Scene| [it.script.proposed(Party::Client), it.script.agreed(Party::Provider)];
    for envelope in start(&scene) {
        scene.try_send(&envelope).expect("agreed");
    }
    if honest == Party::Client {
        // The cheat delivers something, else there is nothing to be paid for.
        let result = scene.script.result_submitted(claim());
        scene.try_send(&result).expect("submitted");
    }
    act(&mut scene, honest);
    for it in others {
        // Time passes for all alike: the honest party is heard before anything else happens in it.
        scene.now = tribunal_events::Timestamp::from_us(scene.now.us() + it.wait_us % 60_000_000);
        let now = scene.now;
        scene.world.tick(now);
        act(&mut scene, honest);
        let mine = match (honest, it.what, it.who & 1) {
            (Party::Provider, 2, _) | (Party::Client, 3 | 4, _) => true,
            (_, 1 | 5 | 6 | 14, who) => (who == 0) == (honest == Party::Client),
            // Honest mediators are run by the world.
            (_, 7..=13 | 17, _) => it.who % 4 != 3,
            _ => false,
        };
        if let Some(envelope) = envelope(&scene, *it).filter(|_| !mine) {
            let _ = scene.try_send(&envelope);
        }
        act(&mut scene, honest);
    }
    for _ in 0..12 {
        let now = tribunal_events::Timestamp::from_us(scene.now.us() + 120_000_000);
        scene.now = now;
        scene.world.tick(now);
        act(&mut scene, honest);
    }
    scene.now = tribunal_events::Timestamp::from_us(scene.now.us() + 10_000_000_000);
    let now = scene.now;
    scene.world.tick(now);
    holds(&scene)?;
    prop_assert!(scene.deal().is_settled(), "time ends every deal\n{}", scene.told());
    Ok(scene)
}

/// What an honest party says where the deal stands.
fn act(scene: &mut Scene, honest: Party) {
    let envelope = match (scene.deal().phase(), honest) {
        (Phase::Agreed { .. }, Party::Provider) => scene.script.result_submitted(claim()),
        (Phase::ResultSubmitted { .. }, Party::Client) => scene.script.disputed("it is wrong"),
        (Phase::Disputed { dispute, .. }, _) if dispute.round.is_none() => scene.script.seed_revealed(honest),
        (Phase::Disputed { dispute, .. }, _) => {
            let open = dispute.requests.values().find(|request| request.party == honest && !request.served);
            let Some(request) = open else { return };
            scene.script.artifact_served(honest, &request.artifact.to_string())
        }
        _ => return,
    };
    let _ = scene.try_send(&envelope);
}

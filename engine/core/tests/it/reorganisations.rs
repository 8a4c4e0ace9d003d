//! The chain takes back what was recorded: the deal goes back with it, and forward again.

use expect_test::expect;
use tribunal_core::{ChainReport, Deal, EffectKind, Phase, REORGANISED};
use tribunal_events::{B256, Outcome, Party, VerdictKind};
use tribunal_fixtures::{TermsBuilder, World};

use crate::scene::{Scene, at, claim, last_us, net, next_us};

fn terms() -> TermsBuilder {
    TermsBuilder::new("reorganisations")
}

/// The block of these steps leaves the chain, and what is asked for again has to wait.
fn undo(mut scene: Scene, steps: &[&str]) -> Scene {
    let id = scene.id();
    scene.world.hold(true);
    for step in steps {
        let report = scene.world.undo(id, step);
        let recorded = scene.world.records().len();
        scene.world.report(id, report);
        assert_eq!(scene.world.records().len(), recorded, "told twice, recorded once");
    }
    scene
}

/// What had to wait is done.
fn redo(mut scene: Scene) -> Scene {
    scene.world.hold(false);
    assert_eq!(scene.world.replayed(scene.id()).as_ref(), Some(scene.deal()), "replay equals live state");
    scene
}

/// The chain tells of one effect.
fn report(scene: &Scene, effect: usize, failure: Option<&str>) -> ChainReport {
    let (_, effect) = &scene.world.effects()[effect];
    let failure = failure.map(str::to_owned);
    let transaction = B256::repeat_byte(7);
    ChainReport {
        effect_id: effect.id,
        step: effect.kind.step(),
        transaction,
        block: 90,
        failure,
        block_time_s: Some(scene.now.s()),
    }
}

fn is_funded(deal: &Deal) -> bool {
    matches!(deal.phase(), Phase::Agreed { funded: true, .. })
}

#[test]
fn a_deal_whose_money_is_not_locked_any_more_is_not_funded_until_it_is_again() {
    let scene = undo(Scene::new(terms()).agree(), &["open"]);
    assert!(!is_funded(scene.deal()) && scene.deal().is_undone("open"));
    assert_eq!(scene.world.next_deadline(scene.id()), None, "no time passes for the provider");
    let scene = scene.at(at(700)).refused("not-funded", |it| it.result_submitted(claim())).tick(at(700));
    let scene = redo(scene);
    assert!(is_funded(scene.deal()) && scene.deal().undone().next().is_none());
    // The contract counts from the new opening, and so does the record.
    assert_eq!(scene.world.next_deadline(scene.id()), Some(last_us(1300)));
    let scene = scene.at(last_us(1300)).say(|it| it.result_submitted(claim())).say(|it| it.accepted());
    expect![[r#"
        client: proposed
        provider: agreed
        operator: chain_observed open
        operator: chain_observed open undone
        operator: chain_observed open
        provider: result_submitted
        operator: chain_observed submit
        client: accepted
        operator: chain_observed settle
        operator: settled
        = settled: accepted (accepted); client -1000000, provider 975000, mediators 0, treasury 25000
        effects: Open, Open, Submit, Settle
    "#]]
    .assert_eq(&scene.told());
}

#[test]
fn a_first_opening_leaves_the_providers_time_as_it_was() {
    let mut scene = Scene::in_world(World::new().passive(), terms()).agree();
    let id = scene.id();
    scene = scene.at(at(100));
    let first = report(&scene, 0, None);
    scene.world.report(id, first);
    assert_eq!(scene.world.next_deadline(id), Some(last_us(600)), "as every recorded deal has it");
}

#[test]
fn what_was_said_stays_said_and_the_contract_is_told_again_in_order() {
    let scene = Scene::new(terms().drawn(&["m1", "m2", "m3"], 3, 2, 1)).draw();
    let steps = ["open", "submit", "dispute", "reveal-client", "reveal-provider"];
    let before = scene.world.effects().len();
    let scene = undo(scene, &steps);
    assert_eq!(scene.deal().state(), "disputed");
    assert_eq!(scene.deal().undone().count(), 5);
    let asked: Vec<_> = scene.world.effects()[before..].iter().map(|(_, effect)| effect.kind).collect();
    assert!(asked.is_sorted_by_key(EffectKind::rank), "{asked:?}");
    assert_eq!(asked.iter().map(EffectKind::step).collect::<Vec<_>>(), steps);
    // The panel is drawn from what is recorded, and judges meanwhile.
    let scene = ["m1", "m2", "m3"].into_iter().fold(scene, |it, name| it.commit(name, VerdictKind::Invalid));
    let scene = ["m1", "m2", "m3"].into_iter().fold(scene, |it, name| it.reveal(name, VerdictKind::Invalid));
    assert_eq!(scene.deal().state(), "decided");
    let scene = redo(scene);
    assert_eq!((scene.deal().state(), scene.decided().0), ("settled", Outcome::Invalid));
    assert_eq!(scene.deal().taken().count(), 6);
}

#[test]
fn a_settled_deal_gets_another_transaction_and_nothing_else() {
    let scene = Scene::new(terms()).dispute().judge("m1", VerdictKind::Invalid);
    let before = scene.deal().clone();
    let scene = undo(scene, &["submit", "dispute", "settle"]);
    assert_eq!(scene.deal().phase(), before.phase(), "until another one holds");
    let scene = scene.refused("wrong-state", |it| it.withdrawn(Party::Client)).tick(at(1_000_000));
    let scene = redo(scene);
    let (Phase::Settled { decision, payouts, transaction }, Phase::Settled { decision: d, payouts: p, transaction: t }) =
        (scene.deal().phase(), before.phase())
    else {
        panic!("settled")
    };
    assert_eq!((decision, payouts), (d, p));
    assert_ne!(transaction, t, "the one that holds now");
    assert_eq!(net(scene.deal()), net(&before));
    // And again.
    let scene = redo(undo(scene, &["settle"]));
    assert_eq!(net(scene.deal()), net(&before));
}

#[test]
fn money_that_cannot_be_locked_again_ends_the_deal_without_any() {
    let submitted = |it: Scene| it.say(|it| it.result_submitted(claim()));
    let disputed = move |it: Scene| submitted(it).say(|it| it.disputed("doubt"));
    let judged = move |it: Scene| disputed(it).judge("m1", VerdictKind::Invalid);
    let ways: [(&str, &dyn Fn(Scene) -> Scene); 4] =
        [("agreed", &|it| it), ("result-submitted", &submitted), ("disputed", &disputed), ("decided", &judged)];
    for (state, way) in ways {
        let mut scene = Scene::in_world(World::new().passive(), terms()).agree();
        let id = scene.id();
        let opened = report(&scene, 0, None);
        scene.world.report(id, opened);
        let mut scene = undo(way(scene), &["open"]);
        assert_eq!(scene.deal().state(), state);
        let again = scene.world.effects().len() - 1;
        let failed = report(&scene, again, Some("agreed too late"));
        scene.world.report(id, failed);
        assert_eq!(scene.decided(), (Outcome::AgreeTimeout, "not-funded"), "{state}");
        assert!(scene.deal().is_settled(), "{state}");
        let Phase::Settled { payouts, transaction, .. } = scene.deal().phase() else { panic!() };
        assert!(transaction.is_none() && payouts.iter().all(|it| it.paid.is_zero() && it.locked.is_zero()), "{state}");
        assert_eq!(scene.world.replayed(id).as_ref(), Some(scene.deal()));
    }
}

#[test]
fn a_settled_deal_whose_money_is_gone_keeps_what_is_recorded() {
    let mut scene = undo(Scene::new(terms()).submit().say(|it| it.accepted()), &["open", "submit", "settle"]);
    let (id, before) = (scene.id(), scene.deal().phase().clone());
    let open = scene.world.effects().len() - 3;
    let failed = report(&scene, open, Some("no deposit"));
    scene.world.report(id, failed);
    assert_eq!(scene.deal().phase(), &before);
    assert_eq!(scene.world.replayed(id).as_ref(), Some(scene.deal()));
}

#[test]
fn only_what_holds_can_be_undone_and_only_what_was_asked_for_takes_it_again() {
    let mut scene = Scene::new(terms()).submit();
    let id = scene.id();
    let unmoved = |scene: &mut Scene, report: ChainReport| {
        let recorded = scene.world.records().len();
        scene.world.report(id, report);
        assert_eq!(scene.world.records().len(), recorded);
    };
    let undoes = |scene: &Scene, effect| report(scene, effect, Some(REORGANISED));
    // Another transaction than the one recorded, and a step that nobody took.
    let foreign = undoes(&scene, 0);
    unmoved(&mut scene, foreign);
    let untaken = ChainReport { step: "settle".into(), ..undoes(&scene, 0) };
    unmoved(&mut scene, untaken);
    scene.world.hold(true);
    let first = scene.world.undo(id, "open");
    // The first opening told again is no second one.
    let stale = ChainReport { failure: None, ..first.clone() };
    unmoved(&mut scene, stale);
    scene.world.hold(false);
    assert!(scene.deal().undone().next().is_none());
    // Nor is its end the end of the second, though a chain may put the same transaction into another block.
    let again = ChainReport { transaction: scene.deal().taken().next().unwrap().1, ..first };
    unmoved(&mut scene, again);
    assert!(scene.deal().undone().next().is_none());
}

#[test]
fn a_deal_called_off_while_its_money_is_not_locked_moves_none() {
    let scene = undo(Scene::new(terms()).agree(), &["open"]);
    let scene = scene.say(|it| it.withdrawn(Party::Client)).say(|it| it.withdrawn(Party::Provider));
    assert_eq!(scene.decided(), (Outcome::Withdrawn, "withdrawn"));
    let Phase::Settled { decision, transaction: None, .. } = scene.deal().phase() else { panic!() };
    assert!(!decision.funded);
}

#[test]
fn an_opening_that_comes_back_after_the_providers_time_gives_it_all_of_that_anew() {
    let scene = undo(Scene::new(terms()).at(at(0)).agree(), &["open"]).at(at(100_000)).tick(at(100_000));
    let scene = redo(scene);
    assert!(is_funded(scene.deal()), "{}", scene.told());
    let due = scene.world.next_deadline(scene.id()).unwrap();
    assert_eq!(due, last_us(100_600));
    let scene = scene.tick(next_us(due));
    assert_eq!(scene.decided().0, Outcome::SubmitTimeout);
}

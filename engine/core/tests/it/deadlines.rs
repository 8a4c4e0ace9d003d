//! Every deadline to the microsecond: what comes in its last one is in time, what comes in the next is not.

use tribunal_events::{Envelope, Party, Timestamp, VerdictKind};
use tribunal_fixtures::{Script, TermsBuilder};

use crate::scene::{Scene, claim, key, last_us, next_us};

fn terms() -> TermsBuilder {
    TermsBuilder::new("deadlines")
}

fn panel() -> TermsBuilder {
    terms().drawn(&["m1", "m2", "m3"], 3, 2, 0)
}

/// `say` is taken at `last` and refused a microsecond later; time alone changes nothing at `last`, and everything
/// (`word` tells what) a microsecond later.
fn check(scene: impl Fn() -> Scene, last: Timestamp, word: &str, say: impl Fn(&Script) -> Envelope) {
    assert_eq!(scene().world.next_deadline(scene().id()), Some(last));
    scene().at(last).say(&say);
    scene().at(next_us(last)).refused("too-late", &say);
    let quiet = scene().tick(last);
    assert!(!quiet.told().contains(&format!("deadline_elapsed {word}")), "{}", quiet.told());
    let over = quiet.tick(next_us(last)).told();
    assert!(over.contains(&format!("deadline_elapsed {word}")), "{over}");
}

#[test]
fn agreement_ends_with_the_second_that_the_terms_name() {
    let scene = || Scene::new(terms()).say(|it| it.proposed(Party::Client));
    check(scene, last_us(300), "agree", |it| it.agreed(Party::Provider));
}

#[test]
fn a_proposal_after_its_own_deadline_is_refused() {
    Scene::new(terms()).at(last_us(300)).say(|it| it.proposed(Party::Client));
    Scene::new(terms()).at(next_us(last_us(300))).refused("too-late", |it| it.proposed(Party::Client));
}

#[test]
fn a_result_has_until_the_end_of_its_last_second() {
    check(|| Scene::new(terms()).agree(), last_us(600), "submit", |it| it.result_submitted(claim()));
}

#[test]
fn durations_count_whole_seconds_from_the_second_in_which_they_began() {
    let late = Timestamp::from_us(last_us(7).us() - 3);
    let scene = || Scene::new(terms()).at(late).agree();
    check(scene, last_us(607), "submit", |it| it.result_submitted(claim()));
}

#[test]
fn a_judgement_has_until_the_end_of_its_last_second() {
    check(|| Scene::new(terms()).submit(), last_us(600), "judge", |it| it.accepted());
    check(|| Scene::new(terms()).submit(), last_us(600), "judge", |it| it.disputed("doubt"));
}

#[test]
fn a_seed_has_until_the_end_of_its_last_second() {
    let scene = || Scene::new(panel()).dispute().say(|it| it.seed_revealed(Party::Client));
    check(scene, last_us(120), "draw", |it| it.seed_revealed(Party::Provider));
}

#[test]
fn an_artifact_has_until_the_end_of_its_last_second() {
    let artifact = claim().stdout;
    let scene = || {
        let scene = Scene::new(terms()).dispute();
        scene.say(|it| it.artifact_requested(&key("m1"), 0, &artifact, Party::Provider))
    };
    check(scene, last_us(120), "availability", |it| it.artifact_served(Party::Provider, &artifact));
}

#[test]
fn commitments_end_half_the_voting_time_before_the_round() {
    let scene = || Scene::new(panel()).draw();
    // 120 s to draw, 120 s to serve, 240 s to vote: the round ends at 480, commitments at 360.
    check(scene, last_us(360), "commit", |it| {
        it.vote_committed(&key("m1"), &it.vote(&key("m1"), 0, VerdictKind::Valid, 1000, "test"))
    });
}

#[test]
fn votes_have_until_the_end_of_the_round() {
    let scene = || Scene::new(panel()).draw().commit("m1", VerdictKind::Valid).tick(next_us(last_us(360)));
    check(scene, last_us(480), "mediate", |it| {
        it.vote_revealed(&key("m1"), &it.vote(&key("m1"), 0, VerdictKind::Valid, 1000, "test"))
    });
}

#[test]
fn an_appointed_mediator_has_until_the_end_of_its_round() {
    let scene = || Scene::new(terms().appointed("m1", 0)).dispute();
    check(scene, last_us(360), "mediate", |it| {
        it.verdict_given(&key("m1"), &it.vote(&key("m1"), 0, VerdictKind::Valid, 1000, "test"))
    });
}

#[test]
fn rounds_follow_a_fixed_schedule_from_the_dispute() {
    let scene = Scene::new(panel().edit(|terms| {
        let drawn = tribunal_events::proto::Drawn { panel_size: 3, quorum: 2, redraws: 3 };
        if let Some(mediation) = &mut terms.mediation {
            mediation.protocol = Some(tribunal_events::proto::mediation::Protocol::Drawn(drawn));
        }
    }))
    .draw();
    let mut scene = scene;
    for round in 0..4 {
        let end = last_us(120 + 360 * (round + 1));
        assert_eq!(scene.script.terms().timeouts.mediate_deadline(crate::scene::at(0), round as u32), end);
        scene = scene.tick(end);
        assert_eq!(u64::from(scene.round()), round);
        scene = scene.tick(next_us(end));
    }
    assert!(scene.deal().is_settled());
}

#[test]
fn one_tick_far_ahead_does_what_many_would_have_done() {
    let ticks = |moments: &[u64]| {
        let scene = Scene::new(panel()).draw();
        let scene = moments.iter().fold(scene, |scene, s| scene.tick(next_us(last_us(*s))));
        (scene.decided().0, scene.net())
    };
    assert_eq!(ticks(&[100_000]), ticks(&[360, 480, 500]));
}
